"""Full-text search in the knowledge base: BM25 (FTS5) over stems, and snippets of the real text.

ranked(connection, "who ground the corn?", 5)    # [31, 7]: places of chunks, best first
snippet("Bako is a mill. It ground corn.", "ground corn", ["english"])   # marks [(19, 25), (26, 30)]
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stages.knowledge.kb_stemming import WORD, stem

MAX_FOUND = 5_000  # chunks that the frequent words of one query may bring in
SNIPPET_WORDS = 32
WORDS_BEFORE = 6  # of the first match
WHITE_SPACE = re.compile(r"\s")
BEST = (
    "SELECT rowid, round(rank, 9) AS score FROM fulltext WHERE fulltext MATCH :match ORDER BY score, rowid LIMIT :limit"
)
# The filter is answered from an index of its own, once (hence the +, which keeps SQLite from asking FTS5 row by row).
BEST_WITHIN = """
    SELECT rowid, round(rank, 9) AS score FROM fulltext WHERE fulltext MATCH :match AND +rowid IN (
        SELECT place FROM chunks WHERE (:kind = '' OR kind = :kind)
        AND substr(document, 1, length(:document)) = :document)
    ORDER BY score, rowid LIMIT :limit"""


@dataclass(frozen=True)
class Filter:
    """document: what the document's name begins with. kind: the chunk's. Empty: all."""

    document: str = ""
    kind: str = ""


ALL = Filter()


@dataclass(frozen=True)
class Snippet:
    """A part of a text, white space as blanks; `marks` are (begin, end) of the words that matched, in characters."""

    text: str
    marks: list[tuple[int, int]]


def languages_of(connection: sqlite3.Connection) -> list[str]:
    """In which the documents' words were stemmed."""
    return [row["language"] for row in connection.execute("SELECT language FROM languages ORDER BY language")]


def ranked(connection: sqlite3.Connection, query: str, limit: int, only: Filter = ALL) -> list[int]:
    """Places of at most `limit` chunks that hold any of the query's words, best first; equal ones in reading order.

    In a large base only chunks with one of the rarer words are scored, by all words: `the` alone would bring in every
    chunk, and change nothing. They are asked for twice, as FTS5 scores only the words it was asked for: those with a
    frequent word as well, and all. A chunk found by both has the better score of the two, which is its own.
    """
    rare, frequent = _by_rarity(connection, query_stems(query, languages_of(connection)))
    if not rare:
        return []
    scores = _scores(connection, _any_of(rare), limit, only)
    if frequent:
        for place, score in _scores(connection, f"({_any_of(rare)}) AND ({_any_of(frequent)})", limit, only).items():
            scores[place] = min(score, scores.get(place, 0.0))
    return sorted(scores, key=lambda place: (scores[place], place))[:limit]


def query_stems(query: str, languages: Collection[str]) -> list[list[str]]:
    """For each of the query's words its stems in these languages, each set of stems once."""
    found = (tuple(dict.fromkeys(stem(word, language) for language in languages)) for word in WORD.findall(query))
    return [list(stems) for stems in dict.fromkeys(found)]


def snippet(text: str, query: str, languages: Collection[str]) -> Snippet:
    """Where most of the query's words stand close together; the beginning where there is none of them."""
    wanted = {word: number for number, stems in enumerate(query_stems(query, languages)) for word in stems}
    spans = [match.span() for match in WORD.finditer(text)]
    words = [text[begin:end] for begin, end in spans]
    numbers = {word: _which(word, wanted, languages) for word in set(words)}
    hits = [numbers[word] for word in words]
    first = _best_window(hits)
    shown = range(first, min(first + SNIPPET_WORDS, len(spans)))
    if not shown:
        return Snippet("", [])
    begin, end = spans[shown[0]][0] if first else 0, spans[shown[-1]][1]
    before, after = "… " if first else "", " …" if shown[-1] + 1 < len(spans) else ""
    cut = text[begin:] if not after else text[begin:end]
    shift = len(before) - begin
    marks = [(spans[n][0] + shift, spans[n][1] + shift) for n in shown if hits[n] is not None]
    return Snippet(before + WHITE_SPACE.sub(" ", cut).rstrip() + after, marks)


def _scores(connection: sqlite3.Connection, match: str, limit: int, only: Filter) -> dict[int, float]:
    """Place -> BM25 as FTS5 gives it (less is better), of the best."""
    values = {"match": match, "kind": only.kind, "document": only.document, "limit": limit}
    return {row[0]: row[1] for row in connection.execute(BEST if only == ALL else BEST_WITHIN, values)}


def _by_rarity(connection: sqlite3.Connection, words: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """(stems by which chunks are found, further stems by which they are scored).

    Stems of more than half of the chunks are left out of the second: BM25 gives them no weight.
    """
    listed = json.dumps([word for stems in words for word in stems])
    rows = connection.execute("SELECT * FROM frequent WHERE stem IN (SELECT value FROM json_each(?))", (listed,))
    counts = {row["stem"]: row["num_chunks"] for row in rows}
    num_chunks = connection.execute("SELECT max(place) FROM chunks").fetchone()[0] or 0
    costs = [sum(counts.get(word, 0) for word in stems) for stems in words]
    rare: list[str] = []
    frequent: list[str] = []
    total = 0
    for cost, stems in sorted(zip(costs, words, strict=True), key=lambda pair: pair[0]):
        total += cost
        if not rare or total <= MAX_FOUND:
            rare += stems
        elif 2 * cost <= num_chunks:
            frequent += stems
    return rare, frequent


def _any_of(words: Sequence[str]) -> str:
    """Quoted, so that nothing in them is taken for FTS5 syntax; stems hold letters and digits only."""
    return " OR ".join(f'"{word}"' for word in words)


def _which(word: str, wanted: dict[str, int], languages: Collection[str]) -> int | None:
    """The number of the query's word that this one matches."""
    for language in languages:
        if (number := wanted.get(stem(word, language))) is not None:
            return number
    return None


def _best_window(hits: Sequence[int | None]) -> int:
    """The word to begin with: so many different words of the query follow, the earliest of equals."""
    starts = [number for number, hit in enumerate(hits) if hit is not None]
    if not starts:
        return 0
    room = SNIPPET_WORDS - WORDS_BEFORE
    best = max(starts, key=lambda start: (len({hit for hit in hits[start : start + room] if hit is not None}), -start))
    return max(0, min(best - WORDS_BEFORE, len(hits) - SNIPPET_WORDS))
