"""`groundtune new`: a folder of raw material -> a configuration that `dvc repro` can run."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.core.errors import ConfigError
from stages.core.workspace import ROOT

if TYPE_CHECKING:
    from stages.serving.folder_survey import Survey
    from stages.serving.new_domain import Wanted

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # of a file, a folder and a choice on the command line
SHOWN = 20
TARGETS = {"domain": "evaluate", "regression": "evaluate_regression"}  # the stage that a configuration leads to

Name = Annotated[str, typer.Argument(help="What to call it: small letters, digits, _ and -.", show_default=False)]
Folder = Annotated[Path, typer.Option("--from", help="The folder of raw material.", show_default=False)]
LanguageOption = Annotated[str, typer.Option("--language", help="en, ru, de, ...; else it is guessed.")]
ModelOption = Annotated[str, typer.Option("--model", help="A file of conf/model; else the default.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a configuration of that name.")]


def new(
    name: Name, from_: Folder, language: LanguageOption = "", model: ModelOption = "", force: Force = False
) -> None:
    """Look at a folder, and write a configuration for what is in it.

    Documents (PDF, DOCX, HTML, EPUB, MD, TXT, ODT, PPTX), questions and answers in any format that `convert` knows or
    under any common field names, ready passages: conf/domain/NAME.yaml. Pairs of texts with a number:
    conf/regression/NAME.yaml. Nothing in the folder is changed.

    \b
    groundtune new medical --from /data/medical
    groundtune new lectures --from ~/lectures --language ru --model vikhr_8b
    """
    from stages.serving.folder_survey import look_at, unusable
    from stages.serving.new_domain import Wanted

    _check(name, force, ROOT)
    kind = _kind_of(language, model, ROOT)
    folder = from_.expanduser()
    if reason := unusable(str(folder.resolve())):
        raise ConfigError(f"{folder}: {reason}")
    survey = look_at(folder)
    wanted = Wanted(language or survey.language or "en", model, small=kind == "build", fetched=kind == "hub")
    _show(name, survey, write(name, folder, survey, wanted, ROOT))


def write(name: str, folder: Path, survey: Survey, wanted: Wanted, root: Path) -> list[Path]:
    """Writes the configurations and the folder for people's own decisions; returns the configurations.

    Raises ConfigError where nothing in the folder is of use; then nothing is written.
    """
    from stages.core.atomic import write_text
    from stages.serving.new_domain import domain_yaml, raw_dir_of
    from stages.serving.new_task import task_yaml

    raw_dir = raw_dir_of(folder, root)
    texts = {
        "domain": domain_yaml(name, raw_dir, survey, wanted),
        "regression": task_yaml(name, raw_dir, survey.pairs) if survey.pairs else "",
    }
    if not any(texts.values()) and not survey.databases:
        raise ConfigError(f"{folder}: nothing that a model can learn from was recognised{_examples(survey)}")
    written = []
    for group, text in texts.items():
        if text:
            written.append(root / "conf" / group / f"{name}.yaml")
            write_text(written[-1], text)
    if texts["domain"]:
        kept = root / "data" / name / "curation" / ".gitkeep"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.touch()
    return written


def _check(name: str, force: bool, root: Path) -> None:
    if not NAME.fullmatch(name) or name == "default":
        raise ConfigError(f"{name!r} cannot be a name: small letters, digits, _ and -, beginning with a letter")
    for group in ("domain", "regression"):
        path = root / "conf" / group / f"{name}.yaml"
        if path.exists() and not force:
            raise ConfigError(f"conf/{group}/{name}.yaml exists; choose another name, or give --force to overwrite it")


def _kind_of(language: str, model: str, root: Path) -> str:
    """The kind of the model (see core.schema.Model). Raises ConfigError for a language or model nobody knows."""
    import yaml

    from stages.synthetic.languages import LANGUAGES

    if language and language not in LANGUAGES:
        raise ConfigError(f"--language {language}: not known; known: {', '.join(sorted(LANGUAGES))}")
    models = {path.stem: path for path in sorted((root / "conf" / "model").glob("*.yaml"))}
    if model and model not in models:
        raise ConfigError(f"--model {model}: no such file in conf/model; there are {', '.join(models)}")
    return str(yaml.safe_load(models[model].read_text(encoding="utf-8"))["model"]["kind"]) if model else "build"


def _show(name: str, survey: Survey, written: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    from stages.serving.new_task import database_hints
    from stages.serving.terminal import printable

    console = Console(highlight=False)
    table = Table("found", "files", "records", "read as")
    for row in rows(survey):
        table.add_row(*(printable(cell) for cell in row))
    console.print(table)
    lines = [f"not understood: {path}: {why}" for path, why in survey.not_understood[:SHOWN]]
    if len(survey.not_understood) > SHOWN:
        lines.append(f"... and {len(survey.not_understood) - SHOWN} more")
    lines += database_hints(name, survey.databases)
    lines += [f"wrote {path.parent.parent.name}/{path.parent.name}/{path.name}" for path in written]
    lines += [*_missing(survey, written), *_next(name, written)]
    for line in lines:
        typer.echo(printable(line))


def rows(survey: Survey) -> list[tuple[str, str, str, str]]:
    """What was found, how many files and records of it, and as what it is read."""
    formats = Counter(seen.format for seen in survey.documents)
    books = Counter(seen.format for seen in survey.documents if seen.what == "book")
    found = [
        (f"{form} documents", f"{count}", "", f"documents{f', {books[form]} of them a book' if books[form] else ''}")
        for form, count in sorted(formats.items())
    ]
    for role, files in (("Q&A", survey.qa), ("passages", survey.texts), ("pairs", survey.pairs)):
        for records in files[:SHOWN]:
            count = "many" if records.num_records is None else f"{records.num_records}"
            how = f"left out: the questions of {records.same_as}" if records.same_as else records.found.how
            found.append((f"{role}: {records.path}", "1", count, how))
        if len(files) > SHOWN:
            rest = sum(records.num_records or 0 for records in files[SHOWN:])
            found.append((f"{role}: more", f"{len(files) - SHOWN}", f"{rest}", "as those above, or alike"))
    return found + [(f"database: {path}", "1", "", "see below") for path, _ in survey.databases]


def _missing(survey: Survey, written: list[Path]) -> list[str]:
    """What the domain still lacks, for people."""
    from stages.serving.new_domain import GIVE_A_FOLDER, cover

    num_left_out = cover(survey)[1]
    lines = [f"left out: {num_left_out} documents beside files of records; {GIVE_A_FOLDER}"] if num_left_out else []
    if any(path.parent.name == "domain" for path in written) and not (survey.documents or survey.texts):
        lines.append("missing: documents; name some in domain.texts, or `dvc repro` stops at ingest")
    return lines


def _next(name: str, written: list[Path]) -> list[str]:
    if not written:
        return []
    groups = " ".join(f"{path.parent.name}={name}" for path in written)
    targets = " ".join(TARGETS[path.parent.name] for path in written)
    return ["next:", f"  python -m stages.compose {groups}", f"  dvc repro {targets}"]


def _examples(survey: Survey) -> str:
    shown = "".join(f"\n  {path}: {why}" for path, why in survey.not_understood[:SHOWN])
    return f":{shown}" if shown else ""
