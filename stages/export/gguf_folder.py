"""The gguf/ folder of an export: a file for each type, and beside it the Modelfile that Ollama builds a model from.

ollama create demo-rag -f models/export/demo/rag/gguf/Modelfile.Q8_0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.export.gguf_file import TYPES, write_gguf
from stages.export.k_quants import K_QUANTS, k_quantise, require_llama_cpp
from stages.export.ollama import modelfile, turn_texts
from stages.generation.decoding import stop_token_ids

GGUF_FOLDER = "gguf"
KINDS = TYPES + K_QUANTS


@dataclass(frozen=True)
class _Stopping:
    """What `stop_token_ids` asks of a model."""

    generation_config: Any


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises ConfigError for a type that cannot be written here; better now than after a merge."""
    for kind in sorted(set(kinds) & set(K_QUANTS)):
        require_llama_cpp(kind)


def write_gguf_folder(
    folder: Path, kinds: Sequence[str], name: str, tokenizer: Any, system: str, num_ctx: int
) -> list[Path]:
    """Writes folder/gguf/<name>.<kind>.gguf from the model in `folder`, and the Modelfiles; the GGUF files.

    system, num_ctx: the system prompt and the context length (tokens) that Ollama is to use.
    """
    if not kinds:
        return []
    (folder / GGUF_FOLDER).mkdir()
    texts, stops = turn_texts(tokenizer), stop_texts(folder, tokenizer)
    files = []
    for kind in kinds:
        file = folder / GGUF_FOLDER / f"{name}.{kind}.gguf"
        _write_one(folder, file, kind, name)
        text = modelfile(file.name, texts, stops, system, num_ctx)
        (folder / GGUF_FOLDER / f"Modelfile.{kind}").write_text(text, encoding="utf-8")
        files.append(file)
    return files


def _write_one(folder: Path, file: Path, kind: str, name: str) -> None:
    if kind not in K_QUANTS:
        write_gguf(folder, file, kind, name)
        return
    whole = file.with_suffix(".tmp")
    write_gguf(folder, whole, "F32", name)
    k_quantise(whole, file, kind)
    whole.unlink()


def stop_texts(folder: Path, tokenizer: Any) -> list[str]:
    """The texts of the tokens that end an answer."""
    from transformers import AutoConfig, GenerationConfig

    if (folder / "generation_config.json").is_file():
        config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return [tokenizer.decode([token]) for token in sorted(stop_token_ids(_Stopping(config), tokenizer))]
