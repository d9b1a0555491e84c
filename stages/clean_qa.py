"""Raw questions and answers -> clean ones: no markers, no duplicates, near-duplicates known.

    {"question": "Who built  Bako?", "answer": "[EXPLANATION] Lona Tir. [ESCALATION] Not required."}
 -> {"id": "qa-0017", "kind": "qa", "question": "Who built Bako?", "answer": "Lona Tir.", "cluster": "qa-0017", ...}

Reads the domain's Q&A sources below raw_dir (JSONL, JSON, CSV, TSV), by their `fields`, or in a `format` that
`groundtune convert` knows. Of a conversation the first question and answer are taken; every later turn is rejected as
follow_up_turn, since it asks something else without those before it. alpaca's input belongs to its question; the
context of format qa does not: retrieval brings passages, and questions on one context share a source_document. A
system text is left out (the domain has its own). A domain without Q&A has an empty qa.jsonl.

Writes data/<domain>/clean/qa.jsonl, data/<domain>/clean/rejected.jsonl and reports/<domain>/clean_qa/metrics.json.

    python -m stages.clean_qa
    python -m stages.clean_qa clean_qa.near_duplicate_similarity=0.7
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.fingerprint import fingerprint
from stages.core.jsonl import write_jsonl
from stages.core.ledger import Ledger
from stages.core.schema import Source, one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.formats.conversation import Flaw
from stages.formats.conversion import Record, read_file
from stages.formats.first_turns import first_turn
from stages.formats.formats import NAMES
from stages.knowledge import raw_files
from stages.knowledge.cleaning import Markers
from stages.knowledge.near_duplicates import Groups, near_duplicates
from stages.knowledge.records import QA, QA_KINDS

NEEDED = ("question", "answer")
OPTIONAL = ("source_document", "evidence", "key_fact")
FOLLOW_UP = "follow_up_turn"
NAMED_IN_MESSAGE = 10


@dataclass
class Config:
    """Mirrors conf/clean_qa."""

    domain: str = MISSING
    raw_dir: str = MISSING
    sources: list[Source] = field(default_factory=list)
    language: str = MISSING  # whose markers and stubs to strip
    markers: dict[str, list[str]] = field(default_factory=dict)  # language -> words inside the brackets
    stubs: dict[str, list[str]] = field(default_factory=dict)  # language -> texts of an empty section
    min_chars: int = MISSING  # of a question, and of an answer
    near_duplicate_similarity: float = MISSING  # Jaccard of word trigrams
    max_rejected_share: float = MISSING

    def __post_init__(self) -> None:
        for source in self.sources:
            one_of(source.kind, QA_KINDS, f"domain.qa ({source.path}): kind")
            one_of(source.format, ("", *NAMES), f"domain.qa ({source.path}): format")
        if not 0 < self.near_duplicate_similarity <= 1:
            raise ValueError("near_duplicate_similarity must be above 0 and at most 1")


def run(config: Config, workspace: Workspace) -> None:
    """Reads, strips, drops duplicates, clusters; writes only what holds no marker."""
    ledger = Ledger("clean_qa")
    left_out: Counter[str] = Counter()
    markers = _markers(config)
    read = [
        replace(record, id=f"{prefix}-{record.id}", kind=source.kind, style=source.style)
        for prefix, source in _with_prefixes(config)
        for record in _read(raw_files.raw_path(workspace, config.raw_dir, source.path), source, ledger, left_out)
    ]
    cleaned = [record for record in (_clean(raw, markers, config.min_chars, ledger) for raw in read) if record]
    _refuse_leftovers(cleaned, markers)
    records = _cluster(_drop_duplicates(cleaned, ledger), config.near_duplicate_similarity)
    if config.sources:
        ledger.check(len(records), config.max_rejected_share, by_design=(FOLLOW_UP,))
    write_jsonl(workspace.write(f"data/{config.domain}/clean/qa.jsonl"), (record.to_row() for record in records))
    ledger.write(workspace.write(f"data/{config.domain}/clean/rejected.jsonl"))
    metrics = {**_metrics(records, read, ledger), **left_out}
    write_json(workspace.write(f"reports/{config.domain}/clean_qa/metrics.json"), metrics)


def _markers(config: Config) -> Markers:
    """A language without markers has none to strip; those of the others are noticed all the same."""
    known_names = [name for names in config.markers.values() for name in names]
    return Markers(config.markers.get(config.language, []), config.stubs.get(config.language, []), known_names)


def _with_prefixes(config: Config) -> Iterator[tuple[str, Source]]:
    """Each source with the start of its ids: `qa`, and `qa2` for a second file of that kind."""
    seen: Counter[str] = Counter()
    for source in config.sources:
        raw_files.check_fields(source, () if source.format else NEEDED, OPTIONAL, "domain.qa")
        seen[source.kind] += 1
        yield source.kind if seen[source.kind] == 1 else f"{source.kind}{seen[source.kind]}", source


def _read(path: Path, source: Source, ledger: Ledger, left_out: Counter[str]) -> Iterator[QA]:
    """Records with ids that are unique in their file. left_out: counts what of a kept record is not kept."""
    if not source.format:
        yield from _by_fields(path, source, ledger)
        return
    read = read_file(path, ledger, source.format)
    for record in read.records:
        try:
            yield _from_conversation(record, source, read.format == "alpaca", ledger, left_out)
        except Flaw as flaw:
            ledger.reject(record.origin, flaw.reason, flaw.detail)
        except raw_files.WrongTypeError as error:
            ledger.reject(record.origin, "wrong_type", str(error))


def _by_fields(path: Path, source: Source, ledger: Ledger) -> Iterator[QA]:
    for item in raw_files.iterate_items(path):
        ledger.read()
        if item.error:
            ledger.reject(item.origin, "broken_record", item.error)
            continue
        try:
            question, answer = (raw_files.text_of(item.values, source, name) for name in NEEDED)
            yield _record(item.number, item.origin, question, answer, item.values, source)
        except raw_files.WrongTypeError as error:
            ledger.reject(item.origin, "wrong_type", str(error))


def _from_conversation(
    record: Record, source: Source, join_context: bool, ledger: Ledger, left_out: Counter[str]
) -> QA:
    """Raises Flaw, or WrongTypeError of an optional field. A later turn counts as a record that was read."""
    turn = first_turn(record.conversation, join_context)
    read = _record(record.number, record.origin, turn.question, turn.answer, record.conversation.fields, source)
    for number in range(2, turn.num_follow_ups + 2):
        ledger.read()
        ledger.reject(f"{record.origin}, turn {number}", FOLLOW_UP)
    left_out["num_system_texts_left_out"] += turn.has_system
    context = "" if join_context else record.conversation.context.strip()
    if not context:
        return read
    left_out["num_contexts_left_out"] += 1
    return replace(read, source_document=read.source_document or f"context-{fingerprint(context)[:16]}")


def _record(number: int, origin: str, question: str, answer: str, values: Mapping[str, Any], source: Source) -> QA:
    return QA(
        id=f"{number:04d}",
        kind="",
        question=question,
        answer=answer,
        source_document=raw_files.text_of(values, source, "source_document").strip(),
        evidence=raw_files.list_of(values, source, "evidence"),
        key_fact=raw_files.text_of(values, source, "key_fact").strip(),
        origin=origin,
    )


def _clean(record: QA, markers: Markers, min_chars: int, ledger: Ledger) -> QA | None:
    question, answer = markers.strip(record.question), markers.strip(record.answer)
    for name, text in (("question", question), ("answer", answer)):
        if len(text) < max(1, min_chars):
            ledger.reject(record.origin, f"short_{name}" if text else f"empty_{name}", text)
            return None
    return replace(record, question=question, answer=answer)


def _refuse_leftovers(records: list[QA], markers: Markers) -> None:
    """A model that trains on a marker writes markers: none may get through in a form that we do not strip."""
    found = [
        f"{record.origin} ({record.id}): {leftover!r}"
        for record in records
        if (leftover := markers.leftover(record.question) or markers.leftover(record.answer))
    ]
    if found:
        shown = "".join(f"\n  {line}" for line in found[:NAMED_IN_MESSAGE])
        raise DataError(
            f"{len(found)} records still hold a section marker after cleaning; mend them, or add the form to "
            f"clean_qa.markers:{shown}" + ("\n  ..." if len(found) > NAMED_IN_MESSAGE else "")
        )


def _drop_duplicates(records: list[QA], ledger: Ledger) -> list[QA]:
    kept: dict[tuple[str, str], QA] = {}
    for record in records:
        first = kept.setdefault((record.question, record.answer), record)
        if first is not record:
            ledger.reject(record.origin, "duplicate", f"of {first.id} ({first.origin})")
    return list(kept.values())


def _cluster(records: list[QA], threshold: float) -> list[QA]:
    """Flags `near_duplicate` (question and answer alike) and `similar_answer`; a cluster joins both."""
    pairs = {
        "near_duplicate": near_duplicates([(record.question, record.answer) for record in records], threshold),
        "similar_answer": near_duplicates([(record.answer,) for record in records], threshold),
    }
    groups = Groups(range(len(records)))
    flags: list[set[str]] = [set() for _ in records]
    for flag, found in pairs.items():
        for one, other in found:
            groups.join(one, other)
            flags[one].add(flag)
            flags[other].add(flag)
    return [
        replace(record, cluster=records[groups.first(n)].id, flags=sorted(flags[n])) for n, record in enumerate(records)
    ]


def _metrics(records: list[QA], read: list[QA], ledger: Ledger) -> dict[str, Any]:
    raw = {record.id: record for record in read}
    changed = sum(r.question != raw[r.id].question or r.answer != raw[r.id].answer for r in records)
    sizes = Counter(record.cluster for record in records)
    return {
        **ledger.metrics(),
        "num_kept_by_kind": dict(sorted(Counter(record.kind for record in records).items())),
        "num_changed": changed,
        "num_near_duplicates": sum("near_duplicate" in record.flags for record in records),
        "num_similar_answers": sum("similar_answer" in record.flags for record in records),
        "num_clusters": len(sizes),
        "largest_cluster": max(sizes.values(), default=0),
    }


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
