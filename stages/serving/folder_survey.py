"""What is in a folder of raw material: documents, questions and answers, passages, pairs, databases.

survey = look_at(Path("/data/medical"))
survey.documents     # [Seen("heart.pdf", "PDF", 1048576), ...]
survey.qa            # [Records("pairs.csv", Found(role="qa", ...), num_records=120, ...)]

Only files of records are read whole, up to a size; documents are known by name, and a few are looked into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from stages.core.errors import DataError
from stages.core.jsonl import Line
from stages.core.progress import track
from stages.core.record_files import TABLES, iterate_records
from stages.documents.blocks import RejectedError
from stages.documents.charset import decode
from stages.documents.folder import Found as File
from stages.documents.folder import files_of
from stages.documents.formats import READERS
from stages.documents.read_text import CHAPTER
from stages.formats.files import read_rows
from stages.serving.language_guess import language_of, parsed_text
from stages.serving.record_survey import SAMPLE, Found, Row, question_and_answer, recognise

SAME = 0.9  # of a file's questions that another one has too
MAX_FILES = 50_000  # a whole disk is no domain
WHOLE_BYTES = 64 << 20  # of a file of records; of a longer one only the beginning is looked at
HEAD_BYTES = 1 << 20
URL_BYTES = 4_000  # of a file of settings
LOOKED_INTO = 200  # plain texts
PARSED = 8  # documents at most, where no text has told the language
BOOK_CHARS, BOOK_CHAPTERS = 100_000, 3
SAMPLE_CHARS = (1_500, 40_000)  # of a writing sample: some 500 to 10,000 tokens
RECORDS = (".jsonl", ".ndjson", ".json", *TABLES)
PLAIN = (".txt", ".text", ".md", ".markdown")
SQLITE = b"SQLite format 3\0"
ABOUT = re.compile(r".*\b(?:readme|licen[cs]e|changelog|copying)\b.*", re.IGNORECASE)  # the folder, not the subject
URL = re.compile(r"\b(postgres(?:ql)?|mysql|mariadb|mssql|oracle|sqlite)(?:\+\w+)?://\S+")


@dataclass(frozen=True)
class Seen:
    """A document. what: book | sample | "", of plain text. same_as: a file of records that bears its name."""

    path: str
    format: str
    num_bytes: int
    what: str = ""
    same_as: str = ""


@dataclass(frozen=True)
class Records:
    """A file of records. num_records: None where it is too large to count. num_broken: those that cannot be used.

    asked: of each question with its answer, hashes of the question and of both, and its bytes. num_groups: of questions
    with one source, or one answer. same_as: a file with the same questions.
    """

    path: str
    found: Found
    num_records: int | None
    num_broken: int
    asked: list[tuple[int, int, int]] = field(default_factory=list)
    num_groups: int = 0
    num_bytes: int = 0
    same_as: str = ""

    @property
    def questions(self) -> set[int]:
        """Hashes of the questions."""
        return {question for question, _, _ in self.asked}


@dataclass
class Survey:
    """Everything that was found; not_understood: (path, why)."""

    documents: list[Seen] = field(default_factory=list)
    qa: list[Records] = field(default_factory=list)
    texts: list[Records] = field(default_factory=list)
    pairs: list[Records] = field(default_factory=list)
    databases: list[tuple[str, str]] = field(default_factory=list)  # path, and of which kind the URL in it is
    not_understood: list[tuple[str, str]] = field(default_factory=list)
    language: str = ""  # "": nothing tells
    num_looked_into: int = 0  # plain texts


def look_at(folder: Path) -> Survey:
    """Raises DataError where there is no such folder, or nothing in it."""
    survey, samples = Survey(), list[str]()
    files = files_of(folder)
    for file in track(files[:MAX_FILES], "Looking at the folder"):
        try:
            _add(survey, file, samples)
        except OSError as error:
            survey.not_understood.append((file.source, error.strerror or str(error)))
    if len(files) > MAX_FILES:
        survey.not_understood.append((f"{len(files) - MAX_FILES} files", f"only the first {MAX_FILES} are looked at"))
    survey.qa = _without_copies(survey.qa)
    survey.documents = [replace(seen, same_as=_same_text(seen, survey.texts)) for seen in survey.documents]
    survey.language = language_of("\n".join(samples)) or language_of(parsed_text(_smallest(folder, survey)))
    return survey


def _smallest(folder: Path, survey: Survey) -> list[Path]:
    by_size = sorted((seen.num_bytes, seen.path) for seen in survey.documents if seen.num_bytes)
    return [folder / path for _, path in by_size[:PARSED]]


def _add(survey: Survey, file: File, samples: list[str]) -> None:
    suffix = file.path.suffix.lower()
    if kind := _database_url(file, suffix):
        survey.databases.append((file.source, kind))
    elif file.reason == "hidden":
        return
    elif reason := file.reason or unusable(str(file.path)):
        survey.not_understood.append((file.source, reason))
    elif suffix in RECORDS:
        _add_records(survey, file, suffix, samples)
    elif ABOUT.fullmatch(file.path.stem):
        survey.not_understood.append((file.source, "tells about the folder; to read it, name it in domain.texts"))
    elif suffix and suffix in READERS:
        survey.documents.append(_document(survey, file, suffix, samples))
    elif _head(file.path, len(SQLITE)) == SQLITE:
        survey.databases.append((file.source, ""))
    else:
        survey.not_understood.append((file.source, f"{suffix or 'no suffix'}: not a format that is read"))


def unusable(name: str) -> str:
    """Why a configuration cannot hold the name; "" where it can."""
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "its name is not UTF-8: rename it"
    return "its name holds ${, which a configuration takes for a reference: rename it" if "${" in name else ""


def _head(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def _database_url(file: File, suffix: str) -> str:
    """The kind of database whose URL stands in a file of settings, or in a text that is nothing else; "" for none.

    Nothing else of the URL is shown to anybody: it may hold a password.
    """
    text = suffix in PLAIN and not file.reason
    if not (text or file.path.name == ".env" or suffix in (".env", ".url")):
        return ""
    if not file.path.is_file() or file.path.stat().st_size > URL_BYTES:
        return ""
    content = _head(file.path, URL_BYTES).decode("utf-8", "replace").strip()
    found = URL.fullmatch(content) if text else URL.search(content)
    return found[1] if found else ""


def _document(survey: Survey, file: File, suffix: str, samples: list[str]) -> Seen:
    size = file.path.stat().st_size
    seen = Seen(file.source, suffix[1:].upper(), size)
    if suffix not in PLAIN or not size or survey.num_looked_into >= LOOKED_INTO:
        return seen
    survey.num_looked_into += 1
    try:
        text, _ = decode(_head(file.path, HEAD_BYTES))
    except RejectedError:
        return seen
    samples.append(text[:5_000])
    num_chapters = sum(bool(CHAPTER.fullmatch(line.strip())) for line in text.splitlines())
    if size >= BOOK_CHARS and num_chapters >= BOOK_CHAPTERS:
        return Seen(seen.path, seen.format, size, "book")
    return Seen(seen.path, seen.format, size, "sample" if SAMPLE_CHARS[0] <= len(text) <= SAMPLE_CHARS[1] else "")


def _add_records(survey: Survey, file: File, suffix: str, samples: list[str]) -> None:
    size = file.path.stat().st_size
    try:
        lines = read_rows(file.path) if size <= WHOLE_BYTES else list(_beginning(file.path, suffix))
    except DataError as error:
        survey.not_understood.append((file.source, str(error).removeprefix(f"{file.path}: ")))
        return
    found = recognise(lines)
    if not found.role and suffix in TABLES:
        survey.documents.append(Seen(file.source, suffix[1:].upper(), size))  # a table is a document too
        return
    if reason := unusable("".join(found.fields.values())):
        survey.not_understood.append((file.source, f"a field: {reason}"))
        return
    if not found.role:
        keys = f"records have {', '.join(found.keys[:8])}" if found.keys else "it holds no record"
        survey.not_understood.append((file.source, keys))
        return
    rows = [line.value for line in lines if not line.error]
    samples += [str(value)[:2_000] for row in rows[:20] for value in row.values()]
    records = Records(
        path=file.source,
        found=found,
        num_records=len(lines) if size <= WHOLE_BYTES else None,
        num_broken=len(lines) - len(rows),
        num_bytes=size,
    )
    if found.role == "qa":
        survey.qa.append(_asked(records, rows))
    else:
        {"texts": survey.texts, "pairs": survey.pairs}[found.role].append(records)


def _asked(records: Records, rows: Sequence[Row]) -> Records:
    source = records.found.fields.get("source_document", "")
    asked, groups = [], set()
    for row in rows:
        if pair := question_and_answer(row, records.found):
            asked.append((hash(pair[0]), hash(pair), len("".join(pair).encode(errors="replace"))))
            groups.add(str(row.get(source)) if source else pair[1])
    num_broken = records.num_broken + len(rows) - len(asked)
    return replace(records, asked=asked, num_groups=len(groups), num_broken=num_broken)


def _beginning(path: Path, suffix: str) -> Iterator[Line]:
    """The first records of a large file. Raises DataError for a JSON list, which could only be read whole."""
    if suffix not in (".jsonl", ".ndjson"):
        raise DataError(f"{path}: {path.stat().st_size >> 20} MiB; make it JSON lines, which can be read in part")
    return islice(iterate_records(path), SAMPLE)


def _same_text(seen: Seen, texts: Sequence[Records]) -> str:
    """The passages cut from this document, as their name says: novel.txt and novel.chapters.jsonl; "" for none."""
    stem = seen.path.rpartition(".")[0]
    return next((records.path for records in texts if records.path.startswith(f"{stem}.")), "")


def _without_copies(found: Sequence[Records]) -> list[Records]:
    """Those with the same questions as one before are marked: read twice, every row would be a duplicate."""
    kept: list[Records] = []
    for records in found:
        questions = records.questions
        first = (one for one in kept if not one.same_as and len(one.questions & questions) >= SAME * len(questions))
        same_as = next((one.path for one in first), "") if questions else ""
        kept.append(replace(records, same_as=same_as))
    return kept
