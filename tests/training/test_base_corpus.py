"""The text of the base: no name of a domain in it, rendered by the one renderer, weighted where it matters."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from stages.core.errors import ConfigError
from stages.knowledge.invented_words import is_reserved
from stages.training.base_corpus import Corpus, documents_and_facts
from stages.training.tiny_tokenizer import save_new_tokenizer, token_weights

SHARES = {"chat": 0.5, "story": 0.2, "recall": 0.1, "copy": 0.2}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save_new_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tiny", 1280, 1024, seed=1)


def drawn(tokenizer: Any, count: int, shares: dict[str, float] = SHARES) -> list[str]:
    pieces = Corpus(tokenizer).pieces(Random(3), shares, max_documents=6)
    return [next(pieces).text for _ in range(count)]


def test_no_entity_of_a_domain_is_ever_spoken_of(tokenizer: Any) -> None:
    words = set(re.findall(r"\w+", " ".join(drawn(tokenizer, 500)).replace("Miranda", "")))
    capitalised = {word for word in words if word[0].isupper()}
    assert len(capitalised) > 1000
    assert [word for word in capitalised if is_reserved(word)] == []


def test_facts_stand_in_the_documents() -> None:
    random = Random(5)
    for count in (1, 2, 6):
        texts, facts = documents_and_facts(random, count)
        assert len(texts) == count
        for entity, attribute in facts:
            assert any(entity.name in text and entity.facts[attribute] in text for text in texts)


def test_chat_pieces_look_as_at_inference(tokenizer: Any) -> None:
    (piece,) = [text for text in drawn(tokenizer, 20, {"chat": 1.0}) if "<document 3>" in text][:1]
    assert re.match(r"<\|bos\|><\|system\|>\n.*\n\n<documents>\n<document 1>\n", piece)
    assert piece.endswith("<|end|>")
    assert "<|end|>\n<|user|>\n" in piece


def test_an_invented_word_is_two_tokens(tokenizer: Any) -> None:
    lengths = [len(tokenizer.tokenize(f" {word}")) for word in ("Bako", "Lonten", "Vunfun", "Miran", "Tongu")]
    assert lengths == [2] * 5


def test_what_the_assistant_says_and_what_is_repeated_weighs_in_full(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "To Bako Miran. By Bako Lonten."},
        {"role": "assistant", "content": "Tongu."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    full = [i for i, w in zip(ids, token_weights(tokenizer, ids, 0.1), strict=True) if w == 1.0]
    assert tokenizer.decode(full) == "ko\nTongu.<|end|>\n"


def test_the_template_masks_the_end_token_as_the_assistants(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Lona."}]
    encoded = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    masked = [i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(masked) == "Lona.<|end|>"


def test_unknown_pieces_are_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="poems"):
        drawn(tokenizer, 1, {"poems": 1.0})


def test_the_tokenizer_is_the_same_twice(tokenizer: Any, tmp_path: Path) -> None:
    again = save_new_tokenizer(tmp_path / "tiny", 1280, 1024, seed=1)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert len(again) == 1280
