"""Raw questions and answers -> clean ones: no markers, no duplicates, near-duplicates known.

    {"question": "Who built  Bako?", "answer": "[EXPLANATION] Lona Tir. [ESCALATION] Not required."}
 -> {"id": "qa-0017", "kind": "qa", "question": "Who built Bako?", "answer": "Lona Tir.", "cluster": "qa-0017", ...}

Reads the domain's Q&A sources below raw_dir (JSONL, JSON, CSV, TSV). Writes data/<domain>/clean/qa.jsonl,
data/<domain>/clean/rejected.jsonl and reports/<domain>/clean_qa/metrics.json.

    python -m stages.clean_qa
    python -m stages.clean_qa clean_qa.near_duplicate_similarity=0.7
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_json
from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import write_jsonl
from stages.core.ledger import Ledger
from stages.core.schema import Source, one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.knowledge import raw_files
from stages.knowledge.cleaning import Markers
from stages.knowledge.near_duplicates import Groups, near_duplicates
from stages.knowledge.records import QA, QA_KINDS

NEEDED = ("question", "answer")
OPTIONAL = ("source_document", "evidence", "key_fact")
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
        if not 0 < self.near_duplicate_similarity <= 1:
            raise ValueError("near_duplicate_similarity must be above 0 and at most 1")


def run(config: Config, workspace: Workspace) -> None:
    """Reads, strips, drops duplicates, clusters; writes only what holds no marker."""
    ledger = Ledger("clean_qa")
    markers = _markers(config)
    read = [
        record
        for prefix, source in _with_prefixes(config)
        for record in _read(config, workspace, source, prefix, ledger)
    ]
    cleaned = [record for record in (_clean(raw, markers, config.min_chars, ledger) for raw in read) if record]
    _refuse_leftovers(cleaned, markers)
    records = _cluster(_drop_duplicates(cleaned, ledger), config.near_duplicate_similarity)
    ledger.check(len(records), config.max_rejected_share)
    write_jsonl(workspace.write(f"data/{config.domain}/clean/qa.jsonl"), (record.to_row() for record in records))
    ledger.write(workspace.write(f"data/{config.domain}/clean/rejected.jsonl"))
    write_json(workspace.write(f"reports/{config.domain}/clean_qa/metrics.json"), _metrics(records, read, ledger))


def _markers(config: Config) -> Markers:
    if config.language not in config.markers:
        known = ", ".join(sorted(config.markers))
        raise ConfigError(f"clean_qa.language: no markers for {config.language!r} in clean_qa.markers; known: {known}")
    known_names = [name for names in config.markers.values() for name in names]
    return Markers(config.markers[config.language], config.stubs.get(config.language, []), known_names)


def _with_prefixes(config: Config) -> Iterator[tuple[str, Source]]:
    """Each source with the start of its ids: `qa`, and `qa2` for a second file of that kind."""
    if not config.sources:
        raise ConfigError("domain.qa: a domain needs at least one file of questions and answers")
    seen: Counter[str] = Counter()
    for source in config.sources:
        raw_files.check_fields(source, NEEDED, OPTIONAL, "domain.qa")
        seen[source.kind] += 1
        yield source.kind if seen[source.kind] == 1 else f"{source.kind}{seen[source.kind]}", source


def _read(config: Config, workspace: Workspace, source: Source, prefix: str, ledger: Ledger) -> Iterator[QA]:
    for item in raw_files.iterate_items(raw_files.raw_path(workspace, config.raw_dir, source.path)):
        ledger.read()
        if item.error:
            ledger.reject(item.origin, "broken_record", item.error)
            continue
        try:
            yield QA(
                id=f"{prefix}-{item.number:04d}",
                kind=source.kind,
                question=raw_files.text_of(item.values, source, "question"),
                answer=raw_files.text_of(item.values, source, "answer"),
                source_document=raw_files.text_of(item.values, source, "source_document").strip(),
                evidence=raw_files.list_of(item.values, source, "evidence"),
                key_fact=raw_files.text_of(item.values, source, "key_fact").strip(),
                origin=item.origin,
            )
        except raw_files.WrongTypeError as error:
            ledger.reject(item.origin, "wrong_type", str(error))


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
        "largest_cluster": max(sizes.values()),
    }


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
