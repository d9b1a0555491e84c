"""What was found in a folder -> conf/domain/NAME.yaml, with what was chosen and why in comments.

domain_yaml("medical", folder, survey, Wanted(language="en"))   # text of the file, or "" where nothing is for a domain
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stages.serving.folder_survey import ABOUT, Records, Seen, Survey
from stages.serving.new_sizes import sizes

MAX_LISTED = 200  # documents that lie beside files of another role, and are named one by one
GIVE_A_FOLDER = "move them into a folder of their own"
KIND_WORDS = {
    "interview": ("interview", "интервью"),
    "boundary": ("boundary",),
    "article": ("article", "blog", "стать"),
}
WORDS = {  # instructions without documents, with them, and what to say where they do not help
    "en": ("Answer the question.", "Answer the question from the documents.", "The documents do not say."),
    "ru": ("Ответьте на вопрос.", "Ответьте на вопрос по документам.", "В документах этого нет."),
    "de": ("Beantworte die Frage.", "Beantworte die Frage aus den Dokumenten.", "Die Dokumente sagen es nicht."),
}


@dataclass(frozen=True)
class Wanted:
    """What the caller decides: a language, a file of conf/model ("": the default). small: the base is built here."""

    language: str
    model: str = ""
    small: bool = True
    fetched: bool = False  # the model comes from a hub, so that an embedder can too


def domain_yaml(name: str, raw_dir: str, survey: Survey, wanted: Wanted) -> str:
    """Valid YAML that composes; "" where nothing in the folder is for a domain. Ends in a line end."""
    texts = _texts(survey)
    qa = [records for records in survey.qa if not records.same_as]
    if not texts and not qa:
        return ""
    parts = [
        _head(name, raw_dir, survey),
        _defaults(wanted, qa),
        _domain(name, raw_dir, survey, texts, wanted.language),
        _prompt(name, wanted.language),
        sizes(survey, qa, wanted.language, wanted.small, wanted.fetched),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def quoted(text: str) -> str:
    """A YAML string, which holds no ${ (see folder_survey.unusable)."""
    return json.dumps(text, ensure_ascii=False)


def counted(names: Iterable[str]) -> str:
    """`3 PDF, 2 DOCX`, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(names).items(), key=lambda c: (-c[1], c[0])))


def _head(name: str, raw_dir: str, survey: Survey) -> list[str]:
    found = [counted(seen.format for seen in survey.documents) + " documents"] if survey.documents else []
    found += [f"questions and answers in {len(survey.qa)} files"] if survey.qa else []
    found += [f"passages in {len(survey.texts)} files"] if survey.texts else []
    return [
        "# @package _global_",
        f"# Written by `groundtune new {name} --from ...`: what it found, what it chose and why. Yours to change.",
        f"#   python -m stages.compose domain={name}",
        "#   dvc repro evaluate",
        f"# Found: {'; '.join(found)}.",
    ]


def _defaults(wanted: Wanted, qa: Sequence[Records]) -> list[str]:
    lines = [f"  - override /model: {wanted.model}"] if wanted.model else []
    if wanted.fetched and wanted.language != "en":
        lines.append("  - override /embedder: e5_large   # many languages; the default knows English only")
    if not qa:
        lines += [
            "  # No questions and answers were found: a model writes them from the documents. Look first, with",
            "  # `python -m stages.generate_sft --preview 5`; more styles: factual, conversational, socratic, ...",
            "  - override /generate_sft/styles: [factual]",
            "  # provider local asks the base itself. Better pairs: a model behind a URL (ollama, vllm, openrouter)",
            "  # - override /generate_sft/provider: ollama",
        ]
    return ["defaults:", *lines, ""] if lines else [""]


def _domain(name: str, raw_dir: str, survey: Survey, texts: Sequence[str], language: str) -> Iterator[str]:
    guessed = "" if survey.language == language else f"   # the texts look {survey.language}" if survey.language else ""
    yield from ["domain:", f"  name: {name}", f"  language: {language}{guessed}", f"  raw_dir: {quoted(raw_dir)}"]
    yield "  qa:" if any(not records.same_as for records in survey.qa) else "  qa: []"
    for records in survey.qa:
        count = "many" if records.num_records is None else f"{records.num_records}"
        broken = f", {records.num_broken} of them broken" if records.num_broken else ""
        yield f"    # {_comment(records.path)}: {count} records{broken}; by {_comment(records.found.how)}"
        if records.same_as:
            yield f"    # the same questions as in {_comment(records.same_as)}: left out"
            continue
        yield f"    - {_source(records, _kind(records.path, ('interview', 'boundary'), 'qa'))}"
    yield "  texts:" if texts else "  texts: []   # none found: ingest needs a book, articles or other documents"
    yield from texts


def _texts(survey: Survey) -> list[str]:
    """Lines of domain.texts. Without a book there would be no continued pre-training: then all are books."""
    paths, num_left_out = cover(survey)
    kinds = [_kind(path, ("interview", "article"), "book") for path in paths]
    tables = [_kind(r.path, ("interview",), "book" if _is_book(r) else "article") for r in survey.texts]
    if "book" not in (*kinds, *tables):
        kinds, tables = ["book"] * len(kinds), ["book"] * len(tables)
    lines = [
        "    # book: read in continued pre-training and looked up; article, interview: only looked up",
        *_plain_texts(survey.documents),
        *(
            [f"    # left out: {num_left_out} more documents beside files of records; {GIVE_A_FOLDER}"]
            if num_left_out
            else []
        ),
        *(f"    - {{path: {quoted(path)}, kind: {kind}}}" for path, kind in zip(paths, kinds, strict=True)),
        *(f"    - {_source(records, kind)}" for records, kind in zip(survey.texts, tables, strict=True)),
    ]
    return lines if paths or survey.texts else []


def _plain_texts(documents: Sequence[Seen]) -> Iterator[str]:
    for seen in documents:
        if seen.same_as:
            yield f"    # {_comment(seen.path)}: left out; by its name the text of {_comment(seen.same_as)}"
        elif seen.what == "book":
            yield f"    # {_comment(seen.path)}: a book with chapters"
    num_samples = sum(seen.what == "sample" for seen in documents)
    if num_samples > 1:
        yield f"    # {num_samples} texts of a writing sample's length: as a book, the model takes on their manner"


def cover(survey: Survey) -> tuple[list[str], int]:
    """The sources that hold all documents, and how many documents more there are than can be listed.

    Folders in which nothing is read otherwise, as few as there can be, and single documents beside files of records:
    as a folder's, an answer in a table would be read as a document too.
    """
    others = [records.path for found in (survey.qa, survey.texts, survey.pairs) for records in found]
    others += [path for path, _ in survey.not_understood if ABOUT.fullmatch(PurePosixPath(path).stem)]
    mixed = {parent.as_posix() for path in others for parent in PurePosixPath(path).parents}
    found: dict[str, None] = {}
    for seen in survey.documents:
        above = [parent.as_posix() for parent in reversed(PurePosixPath(seen.path).parents)]
        if not seen.same_as:
            found[next((folder for folder in above if folder not in mixed), seen.path)] = None
    return list(found)[:MAX_LISTED], max(0, len(found) - MAX_LISTED)


def _is_book(records: Records) -> bool:
    return bool({"book", "chapter", "part", "книга", "глава"} & {key.casefold() for key in records.found.keys})


def _kind(path: str, kinds: Sequence[str], default: str) -> str:
    return next((kind for kind in kinds if any(word in path.casefold() for word in KIND_WORDS[kind])), default)


def _source(records: Records, kind: str) -> str:
    found = records.found
    form = f", format: {found.format}" if found.format else ""
    return f"{{path: {quoted(records.path)}, kind: {kind}{form}{_fields(found.fields)}}}"


def _fields(fields: Mapping[str, str]) -> str:
    listed = ", ".join(f"{name}: {quoted(key)}" for name, key in fields.items())
    return f", fields: {{{listed}}}" if listed else ""


def _comment(text: str) -> str:
    """On one line, whatever a name holds."""
    return " ".join(json.dumps(text, ensure_ascii=False)[1:-1].split())


def _prompt(name: str, language: str) -> list[str]:
    without, with_documents, abstain = WORDS.get(language, WORDS["en"])
    told = "" if language in WORDS else f"   # better in the language of the domain ({language})"
    return [
        "",
        f"prompt:{told}",
        f"  name: {name}",
        f"  without_documents: {quoted(without)}",
        f"  with_documents: {quoted(with_documents + chr(10) * 2 + '{documents}')}",
        f"  abstain: {quoted(abstain)}",
    ]


def raw_dir_of(folder: Path, root: Path) -> str:
    """The folder as the configuration names it: below the repository by its relative path, else absolute."""
    absolute = folder.resolve()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else absolute.as_posix()
