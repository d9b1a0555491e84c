"""A tokenizer of bytes with a chat template, and a prompt."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import PROMPT, byte_tokenizer

from stages.core.schema import Prompt


@pytest.fixture
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture
def prompt() -> Prompt:
    return PROMPT
