"""Records to vectors: what search finds documents by.

Embeds questions only (`question` of a Q&A record, the questions that a chunk answers), one vector each, never the
answer: a user's question is far nearer to another question than to a text. Boundary examples are not indexed.

    reads   data/<domain>/{clean,sft}/qa.jsonl, data/<domain>/knowledge.sqlite, data/<domain>/sft/questions.jsonl
    writes  data/<domain>/index/ (stages/retrieval/index.py says what lies in it, and rejected.jsonl)
            reports/<domain>/build_index/metrics.json

Vectors are kept in .cache/build_index batch by batch until the index is written: a rerun after a kill goes on.

    python -m stages.build_index
    python -m stages.build_index build_index.embed=text embedder=e5_large
    python -m stages.compose engine=ray     # embed in workers on Ray, to the same bytes; see conf/engine
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from shutil import rmtree

import numpy as np
from omegaconf import MISSING

from stages.core.atomic import new_folder, write_json
from stages.core.engine import Engine
from stages.core.fingerprint import fingerprint
from stages.core.ledger import Ledger
from stages.core.schema import Embedder, one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.knowledge.knowledge_base import read_chunks
from stages.knowledge.qa_files import read_potential_questions, read_qa
from stages.knowledge.records import QA, Chunk, IndexRecord
from stages.retrieval.corpus_encoder import CorpusEncoder
from stages.retrieval.embedding import Encoder, Float32
from stages.retrieval.index import EMBED_MODES, WITHOUT_QUESTIONS, Index, flatten, texts_of

NOT_INDEXED = ("boundary",)


@dataclass
class Config:
    """Mirrors conf/build_index/default.yaml."""

    domain: str = MISSING
    embedder: Embedder = MISSING
    embed: str = "questions"
    without_questions: str = "text"
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        one_of(self.embed, EMBED_MODES, "embed")
        one_of(self.without_questions, WITHOUT_QUESTIONS, "without_questions")


def run(config: Config, workspace: Workspace) -> Index:
    """Builds and writes the index.

    Raises DataError where no record is left to index, two have the same id, or the embedder is not there.
    """
    qa = read_qa(workspace, config.domain)
    chunks = read_chunks(workspace.read(f"data/{config.domain}/knowledge.sqlite"))
    generated = read_potential_questions(workspace, config.domain)
    ledger = Ledger("build_index")
    questions = _with_texts([_from_qa(r) for r in qa if r.kind not in NOT_INDEXED], config, ledger)
    documents = _with_texts([_from_chunk(chunk, generated.get(chunk.id, [])) for chunk in chunks], config, ledger)
    ledger.check(len(questions) + len(documents))

    cache = workspace.cache("build_index", fingerprint(config.domain, str(workspace.outputs))[:16])
    encoder = CorpusEncoder(config.embedder, config.engine, cache)
    records, groups = zip(*questions, *documents, strict=True)
    texts, entries = flatten(groups)
    vectors = encoder.encode_passages(texts)
    queries = _query_vectors(records[: len(questions)], vectors, entries.tolist(), encoder, config)
    index = Index(list(records), vectors, entries, queries, {})

    with new_folder(workspace.write(f"data/{config.domain}/index")) as folder:
        index.write(folder, _description(config, encoder))
        ledger.write(folder / "rejected.jsonl")
    metrics = {
        **ledger.metrics(),
        **index.counts(),
        "num_not_indexed": sum(r.kind in NOT_INDEXED for r in qa),
        "num_truncated": encoder.num_truncated(texts),
        "records": dict(sorted(Counter(record.kind for record in records).items())),
    }
    write_json(workspace.write(f"reports/{config.domain}/build_index/metrics.json"), metrics)
    rmtree(cache)
    return index


def _from_qa(record: QA) -> IndexRecord:
    return IndexRecord(record.id, record.kind, record.id, "", 0, [record.question], record.answer, record.origin)


def _from_chunk(chunk: Chunk, generated: list[str]) -> IndexRecord:
    place = (chunk.document, chunk.section, chunk.number)
    return IndexRecord(chunk.id, chunk.kind, *place, [*chunk.questions, *generated], chunk.text, chunk.origin)


def _with_texts(records: Sequence[IndexRecord], config: Config, ledger: Ledger) -> list[tuple[IndexRecord, list[str]]]:
    """The records that have something to embed, with it."""
    kept = []
    for record in records:
        ledger.read()
        if texts := texts_of(record, config.embed, config.without_questions):
            kept.append((record, texts))
        else:
            ledger.reject(record.origin or record.id, "nothing_to_embed", f"{record.id} has no question")
    return kept


def _query_vectors(
    records: Sequence[IndexRecord], vectors: Float32, entries: list[int], encoder: Encoder, config: Config
) -> Float32:
    """float32[len(records), D]: the records' questions as queries; not encoded twice where that is the same."""
    embedder = config.embedder
    if config.embed == "questions" and embedder.query_prefix == embedder.passage_prefix:
        firsts = np.searchsorted(entries, np.arange(len(records)))
        return vectors[firsts]
    return encoder.encode_queries([record.questions[0].strip() for record in records])


def _description(config: Config, encoder: Encoder) -> dict[str, str]:
    return {
        "embedder": config.embedder.name,
        "embedder_fingerprint": encoder.fingerprint,
        "embed": config.embed,
        "without_questions": config.without_questions,
    }


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
