"""What search over the knowledge base costs, and how well it finds.

    python tests/benchmarks/knowledge_base.py                       speed, over 100,000 generated chunks
    python tests/benchmarks/knowledge_base.py --xquad /data/qa      and recall over XQuAD's paragraphs

The folder for --xquad holds xquad.de.docs.jsonl (doc_id, title, text) and xquad.de.questions.jsonl (doc_id,
question): https://github.com/google-deepmind/xquad, CC BY-SA 4.0. Writes reports/bench/knowledge_base.md.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import psutil
from pipeline import commit, hardware

from stages import ingest
from stages.core.atomic import write_text
from stages.core.config import parse_section
from stages.core.jsonl import read_jsonl
from stages.core.process import quiet_environment
from stages.core.schema import Embedder
from stages.core.stage import load_section
from stages.core.workspace import ROOT, Workspace
from stages.knowledge import kb_fulltext
from stages.knowledge.kb_fulltext import snippet
from stages.knowledge.kb_stemming import FREQUENT_WORDS, folded
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import Chunk
from stages.retrieval.kb_search import MODES, KnowledgeSearch
from stages.retrieval.kb_vectors import CACHE

SEED = 13
VOCABULARY = 60_000
NUM_QUERIES = 200
SYLLABLES = [a + b for a in ("b", "d", "gr", "k", "l", "m", "n", "p", "st", "t", "v", "z") for b in "aeiou"]
BM25_K1, BM25_B = 1.2, 0.75


class Texts:
    """Texts of words by Zipf's law, the most frequent ones those of English: as many chunks share a word as really do."""

    def __init__(self) -> None:
        draw = random.Random(SEED)
        rare = {"".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))) for _ in range(VOCABULARY)}
        self.words = [
            *FREQUENT_WORDS["english"].split(),
            *sorted(rare, key=lambda word: hashlib.md5(word.encode()).digest()),
        ]
        self._weights = list(accumulate(1 / rank for rank in range(1, len(self.words) + 1)))
        self.draw = draw

    def text(self, num_words: int) -> str:
        return " ".join(self.draw.choices(self.words, cum_weights=self._weights, k=num_words))

    def chunks(self, num: int, num_words: int) -> Iterator[Chunk]:
        for n in range(num):
            yield Chunk(
                f"article-{n // 100:08x}-{n % 100:04d}",
                "article",
                f"{n // 100}.pdf",
                "",
                n % 100,
                self.text(self.draw.randint(num_words // 2, num_words * 3 // 2)),
            )


def speed(folder: Path, num_chunks: int, num_words: int) -> list[str]:
    """The table of times; queries are as long as questions are, half of their words from one place in a text."""
    texts, path = Texts(), folder / "knowledge.sqlite"
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    write_knowledge(path, [], texts.chunks(num_chunks, num_words))
    write_s = time.perf_counter() - start
    grown = (_peak_bytes() - before) / 2**20
    queries = [texts.text(texts.draw.randint(4, 12)) for _ in range(NUM_QUERIES)]
    rows = [
        f"| writing {num_chunks:,} chunks of {num_words} words (half to one and a half times as many), stems and index | {write_s:.0f} s, {grown:.0f} MiB more memory |",
        f"| file | {path.stat().st_size / 2**20:.0f} MiB |",
    ]
    with KnowledgeSearch(path, None, folder) as search:
        best = [search.places(query, 10, "fulltext") for query in queries]
        rows.append(_times("full text, top 10: places", queries, lambda query: search.places(query, 10, "fulltext")))
        rows.append(_times("the same with chunks and snippets", queries, lambda query: search.find(query, 10)))
        kb_fulltext.MAX_FOUND = sys.maxsize
        everything = [search.places(query, 10, "fulltext") for query in queries]
        rows.append(
            _times("every word looked for, however frequent", queries, lambda q: search.places(q, 10, "fulltext"))
        )
    shared = statistics.mean(len({*a} & {*b}) / max(1, len(b)) for a, b in zip(best, everything, strict=True))
    return [*rows, f"| share of the top 10 that stays the same | {shared:.1%} |"]


def _times(name: str, queries: list[str], ask: Callable[[str], object]) -> str:
    times = []
    for query in queries:
        start = time.perf_counter()
        ask(query)
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return f"| {name} | p50 {times[len(times) // 2]:.1f} ms, p95 {times[int(len(times) * 0.95)]:.1f} ms |"


def _peak_bytes() -> int:
    """Of this process; VmHWM, as ru_maxrss starts at the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def quality(folder: Path, xquad: Path) -> list[str]:
    """The table of recall: one chunk a paragraph, the gold paragraph is the question's."""
    documents = read_jsonl(xquad / "xquad.de.docs.jsonl")
    questions = read_jsonl(xquad / "xquad.de.questions.jsonl")
    place = {row["doc_id"]: number for number, row in enumerate(documents, start=1)}
    path = ingested(folder, xquad)
    embedder = parse_section(Embedder, load_section("build_index")["embedder"], "embedder")
    gold = [place[row["doc_id"]] for row in questions]
    plain = PlainBm25([row["text"] for row in documents])
    rows = [_scores("plain BM25, words as they are", [plain.ranked(row["question"]) for row in questions], gold)]
    with KnowledgeSearch(path, embedder, Workspace().cache(CACHE)) as search:
        for mode in MODES:
            name = f"{mode} ({embedder.name})" if mode != "fulltext" else "fulltext, stems"
            found = [search.places(row["question"], len(documents), mode) for row in questions]
            rows.append(_scores(name, found, gold))
    snippets = [
        snippet(documents[n - 1]["text"], row["question"], ["german"]) for n, row in zip(gold, questions, strict=True)
    ]
    shown = statistics.mean(_holds_answer(s.text, row["answers"]) for s, row in zip(snippets, questions, strict=True))
    return [*rows, f"| share of snippets of the gold paragraph that show the answer | {shown:.3f} | | |"]


def ingested(folder: Path, xquad: Path) -> Path:
    """The paragraphs through the stage, one chunk each: none is as long as chunk_tokens."""
    fields = {"document": "title", "text": "text"}
    changed = {
        "domain": "xquad",
        "raw_dir": str(xquad.resolve()),
        "curation_dir": "curation",
        "sources": [{"path": "xquad.de.docs.jsonl", "kind": "article", "fields": fields}],
        "chunk_tokens": 4000,
    }
    config = parse_section(ingest.Config, {**load_section("ingest"), **changed}, "ingest")
    ingest.run(config, Workspace(outputs=folder))  # the base, whose tokens are counted, is the checkout's
    return folder / "data/xquad/knowledge.sqlite"


def _holds_answer(text: str, answers: list[str]) -> bool:
    return any(answer in text for answer in answers)


def _scores(name: str, found: list[list[int]], gold: list[int]) -> str:
    ranks = [
        places.index(right) + 1 if right in places else math.inf for places, right in zip(found, gold, strict=True)
    ]
    hit, recall = (statistics.mean(rank <= k for rank in ranks) for k in (1, 5))
    return f"| {name} | {hit:.3f} | {recall:.3f} | {statistics.mean(1 / rank for rank in ranks):.3f} |"


class PlainBm25:
    """The yardstick: BM25 (Robertson et al., TREC-3, 1994) over folded words, without stems."""

    def __init__(self, texts: list[str]) -> None:
        self._counts = [Counter(self._words(text)) for text in texts]
        self._lengths = [counts.total() for counts in self._counts]
        self._num_with = Counter(word for counts in self._counts for word in counts)

    def ranked(self, query: str) -> list[int]:
        words = set(self._words(query))
        scores = [sum(self._score(word, n) for word in words) for n in range(len(self._counts))]
        return [n + 1 for n in sorted(range(len(scores)), key=lambda n: (-scores[n], n)) if scores[n] > 0]

    def _score(self, word: str, n: int) -> float:
        tf, num = self._counts[n][word], len(self._counts)
        rarity = math.log(1 + (num - self._num_with[word] + 0.5) / (self._num_with[word] + 0.5))
        length = 1 - BM25_B + BM25_B * self._lengths[n] / statistics.fmean(self._lengths)
        return rarity * tf * (BM25_K1 + 1) / (tf + BM25_K1 * length)

    @staticmethod
    def _words(text: str) -> list[str]:
        return kb_fulltext.WORD.findall(folded(text))


def report(options: argparse.Namespace, revision: str, times: list[str], recall: list[str]) -> str:
    command = "python tests/benchmarks/knowledge_base.py" + (" --xquad FOLDER" if recall else "")
    lines = [
        "# Search over the knowledge base",
        "",
        f"`{command}` at commit {revision}, {hardware()}, Python {platform.python_version()}. "
        f"{NUM_QUERIES} queries of 4 to 12 words by Zipf's law, over {options.chunks:,} generated chunks.",
        "",
        "| what | cost (aim: p50 < 20 ms) |",
        "|---|---|",
        *times,
    ]
    if recall:
        lines += [
            "",
            "XQuAD (German): 1,190 questions, 240 paragraphs.",
            "",
            "| search | hit@1 | recall@5 | MRR |",
            "|---|---:|---:|---:|",
            *recall,
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=300, help="a chunk has: 500 tokens of an 8B model are some 350")
    parser.add_argument("--xquad", type=Path)
    options = parser.parse_args()
    quiet_environment()
    revision = commit()
    with tempfile.TemporaryDirectory() as folder:
        times = speed(Path(folder), options.chunks, options.words)
        recall = quality(Path(folder), options.xquad) if options.xquad else []
    text = report(options, revision, times, recall)
    write_text(ROOT / "reports" / "bench" / "knowledge_base.md", text)
    print(text)


if __name__ == "__main__":
    main()
