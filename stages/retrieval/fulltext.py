"""Full-text search over questions and texts: SQLite FTS5, ranked by BM25."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from stages.knowledge.kb_stemming import WORD, folded
from stages.retrieval.index import Index


class FulltextStore:
    """In memory and read-only once built (1,000 records: 20 ms); may be asked from several threads."""

    def __init__(self, index: Index) -> None:
        self._ids = [record.id for record in index.records]
        self._kinds = {record.kind for record in index.records}
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE records USING fts5(kind UNINDEXED, questions, text, tokenize='unicode61')"
        )
        self._database.executemany(
            "INSERT INTO records(rowid, kind, questions, text) VALUES (?, ?, ?, ?)",
            ((n, r.kind, folded("\n".join(r.questions)), folded(r.text)) for n, r in enumerate(index.records)),
        )

    def ranked(self, query: str, kinds: Collection[str] | None) -> list[int]:
        """Numbers of the records of these kinds (None: all) that hold any word of the query, best first.

        Records of equal rank are in the order of their ids.
        """
        expression = match_expression(query)
        if not expression:
            return []
        rows = self._database.execute(
            "SELECT rowid, round(rank, 9) FROM records "
            "WHERE records MATCH ? AND kind IN (SELECT value FROM json_each(?))",
            (expression, json.dumps(sorted(self._kinds if kinds is None else kinds))),
        )
        return [number for number, _ in sorted(rows, key=lambda row: (row[1], self._ids[row[0]]))]


def match_expression(query: str) -> str:
    """The query's distinct words, quoted and joined by OR: nothing in them is taken for FTS5 syntax."""
    words = dict.fromkeys(WORD.findall(folded(query)))
    return " OR ".join(f'"{word}"' for word in words)
