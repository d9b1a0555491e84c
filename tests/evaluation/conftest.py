"""A tokenizer of bytes with a chat template, and a prompt."""

from __future__ import annotations

from typing import Any

import pytest

from stages.core.schema import Prompt

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: number for number, token in enumerate(special + alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    names = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|end|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, additional_special_tokens=special[3:], **names)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture
def prompt() -> Prompt:
    return Prompt(
        name="test",
        with_documents="Answer.\n{documents}",
        without_documents="Answer.",
        documents="<documents>\n{documents}\n</documents>",
        document="<document {number}>\n{text}\n</document>",
        abstain="The documents do not say.",
    )
