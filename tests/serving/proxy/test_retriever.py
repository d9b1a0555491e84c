"""Questions that come at the same time are embedded and searched together, and each gets its own documents."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stages.retrieval.embedding import Float32
from stages.serving.finding import Wanted
from stages.serving.proxy.rag import Retriever

pytestmark = pytest.mark.anyio
NEAR, FAR = Wanted(2, 0.5, 0), Wanted(2, 1.5, 1)


class Finder:
    """Notes what it is asked, and by how many OpenMP threads a question would be embedded; finds the question."""

    def __init__(self) -> None:
        self.encoder = self
        self.asked: list[tuple[list[str], Wanted]] = []
        self.num_threads = set[int]()
        self.may_answer = threading.Event()

    def load(self) -> None:
        pass

    def encode_queries(self, texts: Sequence[str]) -> Float32:
        import torch

        self.num_threads.add(torch.get_num_threads())
        return np.array([[len(text), 0] for text in texts], dtype=np.float32)

    def find_near(self, questions: Sequence[str], vectors: Float32, wanted: Wanted) -> list[Any]:
        self.may_answer.wait()
        self.asked.append((list(questions), wanted))
        assert vectors[:, 0].tolist() == [len(question) for question in questions]
        return [[question, wanted] for question in questions]


async def test_together_by_what_is_wanted() -> None:
    finder = Finder()
    retriever = Retriever(finder)  # type: ignore[arg-type]  # what is used of it
    first = asyncio.create_task(retriever.find("a", NEAR))
    await asyncio.sleep(0.05)  # the others come while it is being searched
    asked = [("bb", NEAR), ("ccc", FAR), ("bb", NEAR), ("bb", FAR), ("dddd", NEAR)]
    others = [asyncio.create_task(retriever.find(*one)) for one in asked]
    await asyncio.sleep(0.05)
    finder.may_answer.set()
    assert await first == ["a", NEAR]
    assert await asyncio.gather(*others) == [list(one) for one in asked]
    assert finder.asked[0] == (["a"], NEAR)
    assert {(tuple(sorted(questions)), wanted) for questions, wanted in finder.asked[1:]} == {
        (("bb", "dddd"), NEAR),
        (("bb", "ccc"), FAR),
    }
    assert retriever.num_embedded == 4
    await retriever.close()


async def test_one_openmp_thread_where_nobody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before, finder = torch.get_num_threads(), Finder()
    retriever = Retriever(finder)  # type: ignore[arg-type]  # what is used of it
    await retriever.load()
    assert finder.num_threads == {1}
    assert torch.get_num_threads() == before
    await retriever.close()
