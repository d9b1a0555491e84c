"""Q&A + retrieved documents -> training, validation and test examples, split without a leak.

    {"id": "qa-0017", "question": "Who built Bako?", "answer": "Lona Tir. ...", "documents": ["<two chunks, joined>"],
     "document_ids": ["book-0031", "book-0032"], "documents_kind": "retrieved", "group": "qa-0009", ...}

Reads data/<domain>/{clean,sft}/qa.jsonl, knowledge.sqlite and index, and the base model's tokenizer (to count tokens).
Writes data/<domain>/rag/{train,validation,test}.jsonl, splits.json, rejected.jsonl and
reports/<domain>/build_rag_data/metrics.json. Test rows carry what search finds for them, nothing added or withheld.

    python -m stages.build_rag_data
    python -m stages.build_rag_data -m build_rag_data.num_distractors=0,1,2
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_json
from stages.core.errors import DataError
from stages.core.jsonl import write_jsonl
from stages.core.ledger import Ledger
from stages.core.progress import track
from stages.core.schema import Model, Prompt, Retrieval
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.generation.loading import load_tokenizer, resolve_base
from stages.knowledge.knowledge_base import read_chunks
from stages.knowledge.leaks import find_leaks, quoted_chunks, refuse_leaks
from stages.knowledge.qa_files import read_qa
from stages.knowledge.records import CHUNK_KINDS, QA, SPLITS, Chunk, Example, IndexRecord
from stages.knowledge.splits import group_rows, split_groups, splits_hash
from stages.prompts.renderer import Renderer
from stages.retrieval.index import Index
from stages.retrieval.rag_examples import Fitter
from stages.retrieval.search import Searcher
from stages.retrieval.training_documents import Choice, Chosen, Query, choose_documents

TRAINED_KINDS = ("qa", "boundary")


@dataclass
class Split:
    """Shares of the rows; a group goes one way as a whole."""

    train: float = MISSING
    validation: float = MISSING
    test: float = MISSING

    def __post_init__(self) -> None:
        shares = (self.train, self.validation, self.test)
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"split: shares must be above 0 and sum to 1, not {shares}")


@dataclass
class Config:
    """Mirrors conf/build_rag_data."""

    domain: str = MISSING
    seed: int = MISSING
    model: Model = MISSING
    prompt: Prompt = MISSING
    retrieval: Retrieval = MISSING
    kinds: list[str] = field(default_factory=list)
    top_k: int = MISSING
    max_distance: float = MISSING
    num_following: int = MISSING
    num_distractors: int = MISSING
    without_gold_share: float = MISSING
    abstain: bool = MISSING
    split: Split = MISSING
    max_length: int = MISSING
    leak_similarity: float = MISSING
    max_rejected_share: float = MISSING

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(CHUNK_KINDS):
            raise ValueError(f"kinds: {self.kinds}; documents come from {', '.join(CHUNK_KINDS)} only, never from qa")
        if not 0 < self.leak_similarity <= 1 or not 0 <= self.without_gold_share <= 1:
            raise ValueError("leak_similarity must be above 0, without_gold_share at least 0, both at most 1")
        if self.top_k < 1 or self.num_following < 0 or self.num_distractors < 0:
            raise ValueError("top_k is at least 1; num_following and num_distractors are not negative")
        if self.max_length > self.model.max_context_tokens:
            raise ValueError(f"max_length: {self.model.name} reads at most {self.model.max_context_tokens} tokens")


@dataclass(frozen=True)
class Material:
    """What the stage works on."""

    rows: list[QA]  # those to train on; interviews are documents only
    book: dict[str, str]  # id -> text: read in training whether it is retrieved or not
    passages: list[Chunk | IndexRecord]  # all that may be read in training
    index: Index


@dataclass(frozen=True)
class Division:
    """groups: first row's id -> rows. splits: row id -> split. quoting: row id -> chunks that quote its answer."""

    groups: dict[str, list[QA]]
    splits: dict[str, str]
    quoting: dict[str, set[str]]

    @property
    def group_of(self) -> dict[str, str]:
        return {row.id: first for first, members in self.groups.items() for row in members}

    def metrics(self) -> dict[str, Any]:
        pinned = [members for members in self.groups.values() if any(row.id in self.quoting for row in members)]
        return {
            "num_groups": len(self.groups),
            "largest_group": max(len(members) for members in self.groups.values()),
            "num_quoting_rows": len(self.quoting),
            "num_pinned_to_train": sum(len(members) for members in pinned),
            "splits_sha256": splits_hash(self.splits),
        }


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Divides first, then chooses documents, then fits them; the leak check looks at what came out."""
    material = read_material(config, workspace)
    division = divide(config, material)
    chosen = choose(config, workspace, material, division)
    renderer = Renderer(config.prompt, load_tokenizer(resolve_base(workspace, config.model)))
    ledger = Ledger("build_rag_data")
    fitter = Fitter(renderer, config.max_length, config.abstain, ledger)
    group_of = division.group_of
    fitted = [fitter.fit(row, chosen[row.id], group_of[row.id]) for row in track(material.rows, "Fitting prompts")]
    examples = [example for example in fitted if example]
    ledger.check(len(examples), config.max_rejected_share)
    parts = {name: [e for e in examples if division.splits[e.id] == name] for name in SPLITS}
    check_parts(config, parts, material)

    folder = f"data/{config.domain}/rag"
    for name, part in parts.items():
        write_jsonl(workspace.write(f"{folder}/{name}.jsonl"), (example.to_row() for example in part))
    frozen = {"sha256": splits_hash(division.splits), "splits": division.splits, "groups": group_of}
    write_json(workspace.write(f"{folder}/splits.json"), frozen)
    ledger.write(workspace.write(f"{folder}/rejected.jsonl"))
    metrics = {
        **ledger.metrics(),
        **division.metrics(),
        **fitter.metrics(),
        "num_quoting_chunks_passed_over": sum(choice.num_quoting for choice in chosen.values()),
        "num_leaks": 0,  # any leak has failed the stage by now
        "splits": {name: _part_metrics(part, chosen) for name, part in parts.items()},
        "template_hash": renderer.hash,
    }
    write_json(workspace.write(f"reports/{config.domain}/build_rag_data/metrics.json"), metrics)
    return metrics


def read_material(config: Config, workspace: Workspace) -> Material:
    """Raises DataError where there is nothing to retrieve, or the index is not of these questions."""
    rows = [row for row in read_qa(workspace, config.domain) if row.kind in TRAINED_KINDS]
    chunks = read_chunks(workspace.read(f"data/{config.domain}/knowledge.sqlite"))
    book = [chunk for chunk in chunks if chunk.kind == "book"]
    index = Index.load(workspace.read(f"data/{config.domain}/index"))
    documents = [record for record in index.records if record.kind in config.kinds]
    if not documents:
        raise DataError(f"no documents at all: the index holds no {', '.join(config.kinds)}; see domain.texts")
    if missing := [row.id for row in rows if row.kind == "qa" and row.id not in index]:
        raise DataError(
            f"{len(missing)} questions are not in the index ({missing[0]}, ...); run `dvc repro build_index`"
        )
    passages: dict[str, Chunk | IndexRecord] = {chunk.id: chunk for chunk in book}
    passages.update((record.id, record) for record in documents)
    return Material(rows, {chunk.id: chunk.text for chunk in book}, list(passages.values()), index)


def divide(config: Config, material: Material) -> Division:
    """Rows whose answer is quoted by a passage are trained on: held out, they would be known by heart."""
    quoting = quoted_chunks(material.rows, material.passages, config.num_following, config.leak_similarity)
    groups = group_rows(material.rows, config.leak_similarity)
    return Division(groups, split_groups(groups, quoting, asdict(config.split), config.seed), quoting)


def choose(config: Config, workspace: Workspace, material: Material, division: Division) -> dict[str, Chosen]:
    """Row id -> its documents. Boundary rows have none: nothing in the documents is about them."""
    asked = [row for row in material.rows if row.kind == "qa"]
    queries = [
        Query(
            row.id,
            row.question,
            row.answer,
            material.index.query_vector(row.id),
            frozenset(row.evidence),
            frozenset(division.quoting.get(row.id, ())),
            plain=division.splits[row.id] == "test",
        )
        for row in asked
    ]
    searcher = Searcher(material.index, config.retrieval, workspace.cache("stores"))
    choice = Choice(**{key.name: getattr(config, key.name) for key in fields(Choice)})
    found = choose_documents(searcher, queries, choice)
    chosen = {row.id: Chosen("none") for row in material.rows}
    return {**chosen, **{query.id: documents for query, documents in zip(queries, found, strict=True)}}


def check_parts(config: Config, parts: Mapping[str, Sequence[Example]], material: Material) -> None:
    """Raises DataError where a split is empty or leaks."""
    if empty := [name for name, part in parts.items() if not part]:
        raise DataError(
            f"no row fell into {', '.join(empty)}: give build_rag_data.split a larger share, or more groups"
        )
    kinds = {record.id: record.kind for record in material.index.records}
    refuse_leaks(find_leaks(parts, material.book, kinds, config.leak_similarity))


def _part_metrics(part: Sequence[Example], chosen: Mapping[str, Chosen]) -> dict[str, Any]:
    asked = [example for example in part if example.kind == "qa"]
    distances = [d.distance for example in asked for d in chosen[example.id].documents]
    known = [bool({*example.evidence} & {*example.document_ids}) for example in asked if example.evidence]
    return {
        "num_rows": len(part),
        "num_rows_by_kind": dict(sorted(Counter(example.kind for example in part).items())),
        "num_rows_by_documents": dict(sorted(Counter(example.documents_kind for example in part).items())),
        "num_documents": sum(len(example.documents) for example in part),
        "num_abstaining": sum(example.abstains for example in part),
        "share_with_documents": round(_mean([bool(example.documents) for example in asked]), 6),
        **({"share_with_evidence": round(_mean(known), 6)} if known else {}),
        "mean_distance": round(_mean(distances), 6),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
