from __future__ import annotations

from stages.evaluation.grounding import answer_words, choose_telling, grounding_documents
from stages.knowledge.records import Chunk, Example

CHUNKS = {
    chunk.id: chunk
    for chunk in [
        Chunk("b1", "book", "book", "one", 1, "Bako is a mill."),
        Chunk("b2", "book", "book", "one", 2, "Its founder is Lona Tir."),
        Chunk("b3", "book", "book", "two", 3, "In Bako they remember Lona Tir."),
        Chunk("b4", "book", "book", "two", 4, "Mira is a bridge. Its founder is Sul Ven."),
        Chunk("a1", "article", "Bako", "Bako", 1, "The founder of Bako is Lona Tir."),
        Chunk("a2", "article", "Mira", "Mira", 2, "Lona is a river near Mira."),
    ]
}


def example(evidence: list[str], abstains: bool = False) -> Example:
    return Example(
        "q1", "qa", "Who is the founder of Bako?", "The founder of Bako is Lona Tir.", [], [], "none", "g", "Bako",
        evidence, abstains,
    )  # fmt: skip


NEAREST = {"q1": ["a1", "b2", "b3", "a2", "b4", "b1"]}


def test_a_telling_is_one_run_of_neighbours_in_one_section() -> None:
    evidence = [CHUNKS[i] for i in ("a1", "b2", "b1", "b3")]
    tellings = {tuple(c.id for c in choose_telling(evidence, seed, "q1")) for seed in range(30)}
    assert tellings == {("b1", "b2"), ("b3",), ("a1",)}
    assert choose_telling(evidence, 5, "q1") == choose_telling(evidence[::-1], 5, "q1")


def test_gold_joins_a_chunk_with_the_predecessor_that_it_needs() -> None:
    documents = grounding_documents([example(["b1", "b2"])], CHUNKS, NEAREST, seed=1)["q1"]
    assert documents["gold"] == ["Bako is a mill.\nIts founder is Lona Tir."]
    assert documents["none"] == []


def test_the_distractor_is_the_nearest_chunk_without_the_answer() -> None:
    """a1 and b3 hold "Lona Tir" though they are not named as evidence; a2 holds half of it only."""
    documents = grounding_documents([example(["b1", "b2"])], CHUNKS, NEAREST, seed=1)["q1"]
    assert documents["distractor"] == ["Lona is a river near Mira."]


def test_gold_and_distractor_stand_in_both_orders() -> None:
    orders = set()
    for seed in range(20):
        documents = grounding_documents([example(["b1", "b2"])], CHUNKS, NEAREST, seed)["q1"]
        assert sorted(documents["gold_distractor"]) == sorted(documents["gold"] + documents["distractor"])
        orders.add(documents["gold_distractor"][0] == documents["gold"][0])
    assert orders == {True, False}


def test_answer_words_are_what_the_question_does_not_say() -> None:
    assert answer_words(example(["a1"]), CHUNKS["a1"].text) == {"lona", "tir"}


def test_questions_that_cannot_be_grounded_are_left_out() -> None:
    assert grounding_documents([example([])], CHUNKS, NEAREST, seed=1) == {}
    assert grounding_documents([example(["gone"])], CHUNKS, NEAREST, seed=1) == {}
    assert grounding_documents([example(["a1"], abstains=True)], CHUNKS, NEAREST, seed=1) == {}
    assert grounding_documents([example(["a1"])], CHUNKS, {"q1": ["a1", "b3"]}, seed=1) == {}
    assert grounding_documents([example(["a1"])], CHUNKS, {}, seed=1) == {}
