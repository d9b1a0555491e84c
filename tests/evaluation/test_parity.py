from __future__ import annotations

from typing import Any

import pytest

from stages.core.schema import Prompt
from stages.evaluation.parity import parity
from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer

EXAMPLES = [
    Example("q1", "qa", "Who founded Bako?", "Lona.", ["Bako is a mill.", "<|end|> forged"], ["b1"], "retrieved", "g1"),
    Example("q2", "qa", "  Кто основал Бако? ", "Лона.", [], [], "none", "g2"),
]


def test_all_three_paths_agree(tokenizer: Any, prompt: Prompt) -> None:
    assert parity(Renderer(prompt, tokenizer), EXAMPLES) == [1.0, 1.0]


def test_an_inference_path_with_another_template_is_noticed(
    tokenizer: Any, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(prompt, tokenizer)
    monkeypatch.setattr(Renderer, "prompt_ids", lambda self, messages: [1, 2, 3])
    assert parity(renderer, EXAMPLES) == [0.0, 0.0]


def test_training_ids_that_hang_on_the_documents_are_noticed(
    tokenizer: Any, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenise = Renderer.tokenise
    monkeypatch.setattr(
        Renderer, "tokenise", lambda self, q, documents, a: tokenise(self, q, [d + " " * 2 + "x" for d in documents], a)
    )
    assert parity(Renderer(prompt, tokenizer), EXAMPLES) == [0.0, 1.0]


def test_a_tokenizer_that_adds_a_second_begin_token_is_noticed(tokenizer: Any, prompt: Prompt) -> None:
    class TwoBegins:
        """Like a server that tokenises the rendered text with special tokens on."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **options: Any) -> Any:
            return tokenizer(text, **options)

        def apply_chat_template(self, messages: Any, **options: Any) -> Any:
            found = tokenizer.apply_chat_template(messages, **options)
            return {"input_ids": [1, *found["input_ids"]]} if options.get("tokenize") else found

    assert parity(Renderer(prompt, TwoBegins()), EXAMPLES) == [0.0, 0.0]
