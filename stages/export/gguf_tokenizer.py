"""A fast tokenizer as llama.cpp spells it: tokens, their types, merges or scores, and how text is cut before merging.

Two families. Byte-level BPE (`gpt2` in a GGUF file): llama.cpp cuts the text by a rule that it knows under a name, so
the rule in tokenizer.json must be one of the table; another is refused, as its text would be cut differently without
a word. Byte-fallback BPE as in Llama 2 and Phi-3 (`llama`): merging goes by the score of the merged piece, which is
the rank of its merge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # gguf.TokenType

GPT2_RULE = "gpt2"  # ByteLevel with its own pattern
DIGITS_RULE = "digits gpt2"  # the same, after every digit was cut off on its own

# The rule in tokenizer.json, as `rule_of` puts it -> llama.cpp's name (llama-vocab.cpp). Patterns: Llama 3, Qwen 2
# and 3, Mistral Nemo (tekken).
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RULES = {GPT2_RULE: "gpt-2", DIGITS_RULE: "smollm", LLAMA3: "llama-bpe", QWEN2: "qwen2", TEKKEN: "tekken"}


@dataclass(frozen=True)
class GgufVocabulary:
    """model: gpt2 or llama; pre: llama.cpp's name of the cutting rule. special: bos, eos, pad, unk -> id."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    special: dict[str, int]
    add_bos: bool
    add_space_prefix: bool
    chat_template: str = field(repr=False, default="")


def read_vocabulary(folder: Path, tokenizer: Any, num_rows: int) -> GgufVocabulary:
    """The vocabulary of a model folder. tokenizer: the same, loaded. num_rows: of the embedding matrix.

    Raises DataError for a tokenizer that llama.cpp would read differently, or that has more tokens than rows.
    """
    content = read_tokenizer_json(folder)
    model = content["model"]
    if model.get("type", "BPE") != "BPE":
        raise DataError(
            f"{folder / 'tokenizer.json'}: a {model['type']} tokenizer has no place in a GGUF file; only BPE"
        )
    added = {token["id"]: token for token in content.get("added_tokens", [])}
    by_id = {number: text for text, number in model["vocab"].items()} | {n: t["content"] for n, t in added.items()}
    check_size(folder, max(*by_id, len(tokenizer) - 1) + 1, num_rows)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    fallback = bool(model.get("byte_fallback"))
    tokens = [by_id.get(n, f"[PAD{n}]") for n in range(num_rows)]
    return GgufVocabulary(
        model="llama" if fallback else "gpt2",
        pre="default" if fallback else pre_tokenizer(folder, content),
        tokens=tokens,
        types=[_type(n, by_id, added, fallback, model.get("unk_token")) for n in range(num_rows)],
        merges=merges,
        scores=_scores(tokens, merges) if fallback else [],
        special=_special(tokenizer),
        add_bos=adds_bos(tokenizer),
        add_space_prefix=fallback and "prepend" in json.dumps(content.get("normalizer") or {}).lower(),
        chat_template=tokenizer.chat_template or "",
    )


def read_tokenizer_json(folder: Path) -> dict[str, Any]:
    """tokenizer.json. Raises DataError where it is missing: the older files do not say how text is cut."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"{path}: missing; a GGUF file is written from a fast tokenizer (tokenizer.json)")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def check_size(folder: Path, num_tokens: int, num_rows: int) -> None:
    """Raises DataError where the tokenizer has more tokens than the model has rows for them."""
    if num_tokens > num_rows:
        raise DataError(
            f"{folder}: the tokenizer has {num_tokens} tokens, the model {num_rows} rows: the vocabulary was resized; "
            "restore the base's tokenizer, or resize the base's embeddings before training"
        )


def adds_bos(tokenizer: Any) -> bool:
    """Whether plain text gets a begin token in front, which llama.cpp and Ollama then add to a rendered prompt too."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def pre_tokenizer(folder: Path, content: Mapping[str, Any]) -> str:
    """llama.cpp's name of the rule by which tokenizer.json cuts text. Raises DataError for a rule without one."""
    rule = rule_of(content.get("pre_tokenizer") or {})
    if content.get("normalizer") and (content["normalizer"].get("type") != "NFC" or rule != QWEN2):
        rule = f"{content['normalizer'].get('type')} and {rule}"  # llama.cpp normalises nothing
    if rule not in RULES:
        raise DataError(
            f"{folder / 'tokenizer.json'}: llama.cpp has no name for this way of cutting text: {rule[:200]}; "
            f"known: {', '.join(RULES.values())}. Export safetensors only (export_model.gguf: [])"
        )
    return RULES[rule]


def rule_of(pre: Mapping[str, Any]) -> str:
    """The pre_tokenizer of tokenizer.json in one string: a pattern, or one of the names above."""
    steps = pre.get("pretokenizers", [pre])
    names = [step.get("type", "none") for step in steps]
    byte_level = steps[-1]
    if names[-1] != "ByteLevel" or byte_level.get("add_prefix_space"):
        return json.dumps(pre)
    own_pattern = byte_level.get("use_regex", True)
    if names == ["ByteLevel"] and own_pattern:
        return GPT2_RULE
    if names == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and own_pattern:
        return DIGITS_RULE
    if names == ["Split", "ByteLevel"] and steps[0].get("behavior") == "Isolated" and not own_pattern:
        return str(steps[0]["pattern"].get("Regex", ""))
    return json.dumps(pre)


def _type(
    number: int, by_id: Mapping[int, str], added: Mapping[int, Mapping[str, Any]], fallback: bool, unknown: str | None
) -> int:
    text = by_id.get(number)
    if text is None:
        return UNUSED  # rows of the matrix beyond the vocabulary, there for speed
    if text == unknown:
        return UNKNOWN if fallback else CONTROL
    if number in added:
        return CONTROL if added[number]["special"] else USER_DEFINED
    return BYTE if fallback and re.fullmatch(r"<0x[0-9A-F]{2}>", text) else NORMAL


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """Minus the rank of the first merge that gives the piece; pieces that no merge gives are never looked up."""
    rank: dict[str, int] = {}
    for number, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", "", 1), number)
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _special(tokenizer: Any) -> dict[str, int]:
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    return {name: number for name, number in ids.items() if number is not None}
