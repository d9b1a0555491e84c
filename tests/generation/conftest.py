"""A random Llama whose choices are clear, and a tokenizer of bytes."""

from __future__ import annotations

from typing import Any

import pytest

VOCABULARY = 40
END = 2


class ByteTokenizer:
    """One token per byte of UTF-8, after three special ones; decodes like a byte-level tokenizer."""

    eos_token_id = END
    chat_template = None

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(i - 3 for i in ids if i >= 3).decode("utf-8", errors="replace")

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode()]


@pytest.fixture(scope="session")
def byte_tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="session")
def llama() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.5,  # far from uniform: greedy choices do not hang on rounding
        eos_token_id=None,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()
