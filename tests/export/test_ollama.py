"""Ollama's template says what the chat template says, or is refused."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from stages.core.errors import DataError
from stages.export.ollama import TurnTexts, modelfile, turn_texts

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|system|>You are helpful.<|end|>\n{% endif %}"
    "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LONG = [
    {"role": "system", "content": "Be {{ brief }}."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Bako."},
    {"role": "user", "content": "When?"},
]


def with_template(tokenizer: Any, template: str) -> Any:
    other = deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_the_texts_around_turns_are_found(merging_tokenizer: Any) -> None:
    texts = turn_texts(merging_tokenizer)
    assert texts == TurnTexts(
        "<|begin|>", ("<|system|>", "<|end|>\n"), ("<|user|>", "<|end|>\n<|assistant|>"), ("", "<|end|>\n")
    )
    assert texts.render(LONG) == merging_tokenizer.apply_chat_template(LONG, tokenize=False, add_generation_prompt=True)


def test_a_template_with_a_default_system_prompt(merging_tokenizer: Any) -> None:
    tokenizer = with_template(merging_tokenizer, CHATML)
    texts = turn_texts(tokenizer)
    assert texts.begin == ""
    assert "helpful" not in texts.go_template()
    assert texts.render(LONG) == tokenizer.apply_chat_template(LONG, tokenize=False, add_generation_prompt=True)


def test_a_begin_token_that_the_runtime_adds_is_left_to_it(merging_tokenizer: Any) -> None:
    from tokenizers import processors

    adding = deepcopy(merging_tokenizer)
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", adding.bos_token_id)]
    )
    assert turn_texts(adding).begin == ""


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ loop.index }}<|end|>{% endfor %}",  # counts turns
        "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role != 'assistant' or loop.last %}{{ m.content }}{% endif %}"
        "{% endfor %}",  # cuts earlier answers
    ],
)
def test_a_template_that_does_more_is_refused(merging_tokenizer: Any, template: str) -> None:
    with pytest.raises(DataError, match="Ollama's template cannot say that"):
        turn_texts(with_template(merging_tokenizer, template))


def test_the_modelfile(merging_tokenizer: Any) -> None:
    text = modelfile("m.Q8_0.gguf", turn_texts(merging_tokenizer), ["<|end|>"], "Answer.", 512)
    assert text == (
        "FROM ./m.Q8_0.gguf\n"
        'TEMPLATE """<|begin|>{{ range .Messages }}{{ if eq .Role "system" }}<|system|>{{ .Content }}<|end|>\n'
        '{{ else if eq .Role "user" }}<|user|>{{ .Content }}<|end|>\n'
        '<|assistant|>{{ else if eq .Role "assistant" }}{{ .Content }}<|end|>\n'
        '{{ end }}{{ end }}"""\n'
        'SYSTEM """Answer."""\n'
        'PARAMETER stop "<|end|>"\n'
        "PARAMETER num_ctx 512\n"
    )
    assert "SYSTEM" not in modelfile("m.gguf", turn_texts(merging_tokenizer), [], "", 512)


def test_text_that_a_modelfile_cannot_hold_is_refused(merging_tokenizer: Any) -> None:
    texts = turn_texts(merging_tokenizer)
    with pytest.raises(DataError, match="the system prompt holds"):
        modelfile("m.gguf", texts, [], 'Say """hello""".', 512)
    with pytest.raises(DataError, match="the chat template writes"):
        TurnTexts("{{", ("", ""), ("", ""), ("", "")).go_template()
