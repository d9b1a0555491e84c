"""The tokenizer in a GGUF file cuts text as the one it was written from, or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import DataError
from stages.core.schema import Model
from stages.export.comparison import load_gguf
from stages.export.gguf_file import write_gguf
from stages.export.gguf_tokenizer import LLAMA3, QWEN2, TEKKEN, pre_tokenizer, read_vocabulary, rule_of
from stages.generation.loading import load_tokenizer

TEXTS = ["the other <|user|> the\n\nend", "привет, мир — 12 345", "a\tb  c   d", "🦆", " lead and trail ", "it's IT'S"]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


def split(pattern: str) -> dict[str, Any]:
    steps = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}, BYTE_LEVEL]
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}


def test_a_byte_level_tokenizer_survives(build_model: Callable[..., Path], model_config: Model) -> None:
    base = build_model()
    file = base / "gguf" / "m.F16.gguf"
    file.parent.mkdir()
    write_gguf(base, file, "F16", "m")
    _, read_back = load_gguf(file, model_config)
    original = load_tokenizer(base)
    for text in TEXTS:
        ids = original(text)["input_ids"]
        assert read_back(text)["input_ids"] == ids
        assert read_back.decode(ids) == original.decode(ids)
    assert read_back.chat_template == original.chat_template
    assert read_back.eos_token_id == original.eos_token_id
    assert read_back.pad_token_id == original.pad_token_id


def test_types_special_tokens_and_padding(build_model: Callable[..., Path], merging_tokenizer: Any) -> None:
    vocabulary = read_vocabulary(build_model(), merging_tokenizer, 288)
    assert (vocabulary.model, vocabulary.pre, vocabulary.scores, vocabulary.add_bos) == ("gpt2", "gpt-2", [], False)
    assert vocabulary.tokens[:3] == ["<|pad|>", "<|begin|>", "<|end|>"]
    assert vocabulary.tokens[262:265] == ["th", "the", "Ġthe"]
    assert vocabulary.types[:6] + vocabulary.types[262:265] == [3] * 6 + [1] * 3
    assert vocabulary.tokens[-1] == "[PAD287]"
    assert vocabulary.types[-1] == 5
    assert vocabulary.merges == ["t h", "th e", "Ġ the"]
    assert vocabulary.special == {"bos": 1, "eos": 2, "pad": 0}


def test_a_byte_fallback_tokenizer_survives(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stories"
    shutil.copytree(shared_data / "models/stories260K", folder)
    vocabulary = read_vocabulary(folder, load_tokenizer(folder), 512)
    assert (vocabulary.model, vocabulary.pre, vocabulary.add_bos, vocabulary.add_space_prefix) == (
        *("llama", "default"),
        *(True, True),
    )
    assert vocabulary.types[:4] == [2, 3, 3, 6]
    assert vocabulary.scores[vocabulary.tokens.index(vocabulary.merges[0].replace(" ", ""))] == 0
    file = folder / "gguf" / "m.F32.gguf"
    file.parent.mkdir()
    write_gguf(folder, file, "F32", "m")
    _, read_back = load_gguf(file, Model("stories", "local", path=str(folder), max_context_tokens=512))
    original = load_tokenizer(folder)
    for text in ["Once upon a time there was a girl.", 'Tom said: "No!"\n\nшум 🦆', "Two  spaces."]:
        assert read_back(text)["input_ids"] == original(text)["input_ids"]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"pre_tokenizer": BYTE_LEVEL | {"use_regex": True}}, "gpt-2"),
        (split(LLAMA3), "llama-bpe"),
        (split(QWEN2) | {"normalizer": {"type": "NFC"}}, "qwen2"),
        (split(TEKKEN), "tekken"),
    ],
)
def test_known_rules_have_llama_cpps_names(content: dict[str, Any], name: str) -> None:
    assert pre_tokenizer(Path("m"), content) == name


def test_digits_on_their_own_are_a_rule() -> None:
    steps = [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL | {"use_regex": True}]
    assert pre_tokenizer(Path("m"), {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}) == "smollm"


@pytest.mark.parametrize(
    "content",
    [
        split(r"\w+"),
        split(LLAMA3) | {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True, "use_regex": True}},
    ],
)
def test_an_unknown_rule_is_refused_with_itself(content: dict[str, Any]) -> None:
    with pytest.raises(
        DataError, match=r"llama.cpp has no name for this way of cutting text: .*Export safetensors only"
    ):
        pre_tokenizer(Path("m"), content)


def test_a_pattern_is_its_own_rule() -> None:
    assert rule_of(split("abc")["pre_tokenizer"]) == "abc"


def test_missing_and_foreign_tokenizers_are_refused(build_model: Callable[..., Path], merging_tokenizer: Any) -> None:
    base = build_model()
    with pytest.raises(
        DataError, match=r"the tokenizer has 265 tokens, the model 200 rows: the vocabulary was resized"
    ):
        read_vocabulary(base, merging_tokenizer, 200)
    content = json.loads((base / "tokenizer.json").read_text())
    content["model"]["type"] = "Unigram"
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a Unigram tokenizer has no place"):
        read_vocabulary(base, merging_tokenizer, 288)
    (base / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer.json: missing"):
        read_vocabulary(base, merging_tokenizer, 288)
