"""A GGUF file read by llama.cpp itself; skipped where llama-cpp-python is not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from stages.core.errors import DataError
from stages.core.schema import Model
from stages.export import llama_cpp
from stages.export.gguf_file import write_gguf
from stages.export.golden import Golden
from stages.generation.loading import load_model
from stages.prompts.chat import ChatFormat
from stages.training.merging import prompt_logits

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install -e '.[llama]'")

MESSAGES = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "The other <|end|> thé?"}]


@pytest.fixture
def base(build_model: Callable[..., Path]) -> Path:
    return build_model()


@pytest.fixture
def file(base: Path, tmp_path: Path) -> Path:
    write_gguf(base, tmp_path / "m.F32.gguf", "F32", "m")
    return tmp_path / "m.F32.gguf"


@pytest.fixture
def golden(byte_tokenizer: Any) -> Golden:
    chat = ChatFormat(byte_tokenizer)
    return Golden("qa-1", MESSAGES, chat.prompt_text(MESSAGES), chat.prompt_ids(MESSAGES))


def test_it_reads_the_same_template_tokens_and_logits(
    base: Path, file: Path, golden: Golden, byte_tokenizer: Any, model_config: Model
) -> None:
    model = load_model(base, model_config)
    (wanted,) = prompt_logits(model, [golden.input_ids])
    with llama_cpp.opened(file, 256) as loaded:
        llama_cpp.check_tokens(loaded, file, byte_tokenizer.chat_template, [golden])
        (found,) = llama_cpp.logits(loaded, [golden.input_ids])
        written = llama_cpp.greedy(loaded, golden.input_ids, frozenset(), 8)
        assert llama_cpp.greedy(loaded, golden.input_ids, frozenset(written[2:3]), 8) == written[:2]
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) < 1e-3 * float(wanted.abs().max())
    ids = list(golden.input_ids)
    for token in written:
        assert int(prompt_logits(model, [ids])[0][-1].argmax()) == token
        ids.append(token)


def test_quantised_types_are_read(base: Path, golden: Golden, byte_tokenizer: Any, tmp_path: Path) -> None:
    for kind in ("Q8_0", "Q4_0"):
        file = tmp_path / f"m.{kind}.gguf"
        write_gguf(base, file, kind, "m")
        with llama_cpp.opened(file, 256) as loaded:
            llama_cpp.check_tokens(loaded, file, byte_tokenizer.chat_template, [golden])
            (found,) = llama_cpp.logits(loaded, [golden.input_ids])
        assert found.shape == (len(golden.input_ids), len(byte_tokenizer)) and bool(found.isfinite().all())


def test_other_tokens_or_another_template_are_refused(file: Path, golden: Golden, byte_tokenizer: Any) -> None:
    other = Golden(golden.id, golden.messages, golden.text, golden.input_ids[1:])
    with llama_cpp.opened(file, 256) as loaded:
        with pytest.raises(DataError, match=r"cuts prompt qa-1 into other tokens"):
            llama_cpp.check_tokens(loaded, file, byte_tokenizer.chat_template, [golden, other])
        with pytest.raises(DataError, match=r"another chat template"):
            llama_cpp.check_tokens(loaded, file, "{{ messages }}", [golden])


def test_a_broken_file_is_refused(file: Path) -> None:
    assert gguf.GGUFReader(file).tensors
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"llama.cpp cannot load it"), llama_cpp.opened(file, 64):
        pass
