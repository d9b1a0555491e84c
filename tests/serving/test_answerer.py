from __future__ import annotations

from dataclasses import replace

import pytest

from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.prompts.renderer import Turn
from stages.serving.answering import Answerer, Config, shrunk


def budget(answerer: Answerer, num_tokens: int) -> None:
    """Leaves `num_tokens` for prompts."""
    model = replace(answerer.config.model, max_context_tokens=num_tokens + answerer.config.max_new_tokens)
    answerer.config.model = model


def test_the_prompt_is_the_renderers(answerer: Answerer) -> None:
    request = answerer.prepare("  About 1? ", "base")
    renderer = answerer.models.load("base").renderer
    assert request.prompt_ids == renderer.prompt_ids(renderer.messages("About 1?", ["Text 1.\nText 2."]))
    assert [document.hit.id for document in request.documents] == ["book-1"]


def test_without_documents_nothing_is_searched(answerer: Answerer) -> None:
    answerer.finder.find = lambda question: pytest.fail("searched")  # type: ignore[method-assign]
    request = answerer.prepare("About 1?", "base", use_documents=False)
    text = answerer.models.load("base").tokenizer.decode(request.prompt_ids)
    assert request.documents == []
    assert text == "<|begin|><|system|>Answer.<|end|><|user|>About 1?<|end|><|assistant|>"


def test_earlier_turns_stand_before_the_question(answerer: Answerer) -> None:
    request = answerer.prepare("And 1?", "base", False, [Turn("Hello?", "Yes.")])
    text = answerer.models.load("base").tokenizer.decode(request.prompt_ids)
    assert "<|user|>Hello?<|end|><|assistant|>Yes.<|end|><|user|>And 1?<|end|>" in text


def test_what_is_too_long_goes_turns_first_then_siblings_then_documents(answerer: Answerer) -> None:
    history = [Turn("first " * 5, "one"), Turn("second " * 5, "two")]
    whole = answerer.prepare("About 1?", "base", history=history)
    assert (whole.num_dropped_turns, whole.num_dropped_documents) == (0, 0)

    budget(answerer, len(whole.prompt_ids))
    assert answerer.prepare("About 1?", "base", history=history) == whole  # exactly full

    budget(answerer, len(whole.prompt_ids) - 1)
    shorter = answerer.prepare("About 1?", "base", history=history)
    assert (shorter.num_dropped_turns, shorter.num_dropped_documents) == (1, 0)
    text = answerer.models.load("base").tokenizer.decode(shorter.prompt_ids)
    assert "first" not in text and "second" in text

    alone = len(answerer.prepare("About 1?", "base").prompt_ids)
    budget(answerer, alone - 1)
    single = answerer.prepare("About 1?", "base", history=history)
    assert (single.num_dropped_turns, single.num_dropped_documents, single.num_without_siblings) == (2, 0, 1)
    assert [document.text for document in single.documents] == ["Text 1."]

    budget(answerer, len(single.prompt_ids) - 1)
    bare = answerer.prepare("About 1?", "base", history=history)
    assert (bare.num_dropped_documents, bare.num_without_siblings, bare.documents) == (1, 0, [])


def test_siblings_of_the_last_document_go_first(answerer: Answerer) -> None:
    near, far = answerer.finder.find("About 1?")[0], answerer.finder.find("About 6?")[0]
    shorter = shrunk([near, far])
    assert [document.text for document in shorter] == ["Text 1.\nText 2.", "Text 6."]
    assert [document.text for document in shrunk(shorter)] == ["Text 1.", "Text 6."]
    assert [document.text for document in shrunk(shrunk(shorter))] == ["Text 1."]


def test_a_question_too_long_on_its_own_is_refused_with_the_numbers(answerer: Answerer) -> None:
    with pytest.raises(DataError, match=r"question is too long: a prompt of \d+ tokens, where 504 fit"):
        answerer.prepare("why " * 500, "base")


@pytest.mark.parametrize("question", ["", " \n\t "])
def test_an_empty_question_is_refused(answerer: Answerer, question: str) -> None:
    with pytest.raises(DataError, match="question is empty"):
        answerer.prepare(question, "base")


def test_the_answer_is_what_the_stream_says(answerer: Answerer) -> None:
    request = answerer.prepare("About 1?", "tuned")
    answer = answerer.answer("About 1?", "tuned")
    assert answer.text == "".join(answerer.stream(request)).strip()
    assert answer.request == request


def test_the_row_of_an_answer(answerer: Answerer) -> None:
    answer = answerer.answer("About 1?", "book")
    row = answer.to_row()
    assert list(row) == ["question", "answer", "model", "documents", "prompt_tokens", "completion_tokens", "elapsed_s"]
    assert (row["question"], row["model"]) == ("About 1?", "book")
    assert row["prompt_tokens"] == len(answer.request.prompt_ids)
    assert row["completion_tokens"] > 0
    assert row["elapsed_s"] > 0
    assert [document["id"] for document in row["documents"]] == ["book-1"]


def test_room_for_the_answer_must_be_in_the_context() -> None:
    values = {
        "domain": "world",
        "model": {"name": "m", "kind": "build", "max_context_tokens": 100},
        "embedder": {"name": "e", "package": "p", "dimension": 8, "max_tokens": 8},
        "prompt": {
            "name": "p",
            "with_documents": "{documents}",
            "without_documents": "",
            "documents": "{documents}",
            "document": "{number}{text}",
            "abstain": "",
        },
        "retrieval": {"store": "faiss"},
        "kinds": [],
        "top_k": 2,
        "max_distance": 0.5,
        "num_siblings": 1,
        "max_new_tokens": 99,
    }
    assert parse_section(Config, values, "chat").max_new_tokens == 99
    with pytest.raises(ConfigError, match="max_new_tokens: 100"):
        parse_section(Config, {**values, "max_new_tokens": 100}, "chat")
    with pytest.raises(ConfigError, match="top_k must be at least 1"):
        parse_section(Config, {**values, "top_k": 0}, "chat")
