"""What tests make models of: a tokenizer of one token a byte, Llamas of a few thousand random weights, and a prompt.

Imported by name (`pythonpath` in pyproject.toml), since a conftest.py cannot be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core.fingerprint import sha256_files
from stages.core.schema import Prompt

SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PROMPT = Prompt(
    name="test",
    with_documents="Answer from these.\n{documents}",
    without_documents="Answer.",
    documents="<documents>\n{documents}\n</documents>",
    document="<document {number}>\n{text}\n</document>",
    abstain="The documents do not say.",
)


def byte_tokenizer(template: str = TEMPLATE, merges: Sequence[tuple[str, str]] = ()) -> Any:
    """SPECIAL first (padding 0, begin 1, end 2), then one token a byte, then one a merge; cuts text as GPT-2 does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    core = Tokenizer(models.BPE({symbol: number for number, symbol in enumerate(symbols)}, list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    tokenizer.chat_template = template
    return tokenizer


def save_llama(folder: Path, tokenizer: Any, seed: int = 0, **changes: Any) -> Path:
    """A model folder: two layers of random weights, so far apart that what it writes does not hang on rounding."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.5,
    }
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**(sizes | ids | {"vocab_size": len(tokenizer)} | changes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_base_manifest(folder: Path) -> None:
    """As the stage base_model leaves a model that it built."""
    manifest = {"name": folder.name, "kind": "build", "path": ".", "revision": "", "files": sha256_files(folder)}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def save_word_tokenizer(root: Path) -> None:
    """models/base/words: one token a word, for stages that only count tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = root / "models/base/words"
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_base_manifest(folder)
