"""A model folder as one GGUF file, a weight at a time (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

    write_gguf(folder, Path("model.Q8_0.gguf"), "Q8_0", name="demo-rag")

Types: F32, F16, BF16 and the block formats Q8_0 and Q4_0 (blocks of 32 values with one scale). As in llama.cpp's own
converter, vectors stay float32, and a matrix whose rows are no multiple of 32 stays F16. In Q4_0 the embeddings and
the output layer are Q8_0, as 4 bits cost them most. The same folder gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.progress import track
from stages.export.architectures import architecture_of
from stages.export.gguf_tokenizer import GgufVocabulary, read_vocabulary
from stages.export.tensor_files import Entry, Weights
from stages.generation.loading import load_tokenizer

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
BLOCK = 32
ENDS = ("token_embd.weight", "output.weight")
ROPE_TYPES = ("default", "llama3")


@dataclass(frozen=True)
class GgufTensor:
    """name, quantisation type (as gguf spells it), shape, and how to get its values as a float32 array."""

    name: str
    kind: str
    shape: tuple[int, ...]
    values: Callable[[], Any]


def write_gguf(folder: Path, path: Path, kind: str, name: str) -> None:
    """Writes the model of `folder` to `path`; kind is one of TYPES.

    Raises DataError for an architecture, a tokenizer or a rotary embedding that a GGUF file cannot say.
    """
    import gguf
    from transformers import AutoConfig

    architecture = architecture_of(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    check_rope(folder, config)
    weights = Weights(folder)
    num_rows = weights.entries["model.embed_tokens.weight"].shape[0]
    vocabulary = read_vocabulary(folder, load_tokenizer(folder), num_rows)
    writer = gguf.GGUFWriter(path, architecture.gguf)
    writer.add_name(name)
    writer.add_file_type(getattr(gguf.LlamaFileType, "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_hyperparameters(writer, config, num_rows)
    add_vocabulary(writer, vocabulary)
    _write_tensors(writer, list(_tensors(folder, weights, config, kind)))


def check_rope(folder: Path, config: Any) -> None:
    """Raises DataError for position scaling that is not written here, and would be dropped without a word."""
    rope_type = config.rope_parameters.get("rope_type", "default")
    partial = config.rope_parameters.get("partial_rotary_factor", 1.0) or 1.0
    if rope_type not in ROPE_TYPES or partial != 1.0:
        raise DataError(
            f"{folder / 'config.json'}: rotary embedding {rope_type} (partial {partial}) is not written to GGUF; "
            f"only {', '.join(ROPE_TYPES)} is. Export safetensors only (export_model.gguf: [])"
        )


def head_dim(config: Any) -> int:
    """Dimensions of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def add_hyperparameters(writer: Any, config: Any, num_rows: int) -> None:
    """Sizes and constants of the architecture; `vocab_size` counts the rows of the embedding matrix."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_vocab_size(num_rows)
    if config.model_type == "phi3" and getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)


def add_vocabulary(writer: Any, vocabulary: GgufVocabulary) -> None:
    """The tokenizer and the chat template."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
    writer.add_token_merges(vocabulary.merges)
    for name, number in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(False)
    writer.add_chat_template(vocabulary.chat_template)


def _tensors(folder: Path, weights: Weights, config: Any, kind: str) -> Any:
    """Yields GgufTensor; DataError for a weight that the architecture has no place for."""
    import gguf

    architecture = architecture_of(folder)
    number = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture.gguf]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    if config.rope_parameters.get("rope_type", "default") == "llama3":
        yield GgufTensor("rope_freqs.weight", "F32", (head_dim(config) // 2,), lambda: llama3_factors(config))
    for entry in weights.entries.values():
        if entry.name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(entry.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise DataError(f"{entry.file}: {entry.name} has no place in a GGUF file of {architecture.gguf}")
        heads = _heads(entry.name, config) if architecture.rotates_neighbours else 0
        yield GgufTensor(name, _kind(name, entry, kind), entry.shape, _reader(weights, entry.name, heads))


def _kind(name: str, entry: Entry, kind: str) -> str:
    if len(entry.shape) == 1:
        return "F32"
    if kind.startswith("Q") and entry.shape[-1] % BLOCK:
        return "F16"
    return "Q8_0" if kind == "Q4_0" and name in ENDS else kind


def _heads(name: str, config: Any) -> int:
    """Heads of a query or key projection; 0 for any other weight."""
    if ".q_proj." in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".k_proj." in name else 0


def _reader(weights: Weights, name: str, heads: int) -> Callable[[], Any]:
    def values() -> Any:
        array = weights.read(name).float().numpy()
        return neighbours(array, heads) if heads else array

    return values


def neighbours(array: Any, heads: int) -> Any:
    """Rows [heads * d, ...] reordered within each head: 0, d/2, 1, d/2 + 1, ... (what llama.cpp rotates together)."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def llama3_factors(config: Any) -> Any:
    """Llama 3.1's stretching of long waves, one divisor for each frequency, float32 [head_dim / 2].

    Formula of the model's release: waves longer than the old context / low_freq_factor are divided by `factor`,
    those shorter than the old context / high_freq_factor are left, those between are blended.
    """
    import numpy as np

    rope = config.rope_parameters
    old = rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    dim = head_dim(config)
    waves = 2 * pi * rope["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    share = np.clip((old / waves - low) / (high - low), 0, 1)  # 0: long, all divided; 1: short, left alone
    return (1 / ((1 - share) / factor + share)).astype(np.float32)


def _write_tensors(writer: Any, tensors: list[GgufTensor]) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape, quantize

    plain: dict[str, Any] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
    for tensor in tensors:
        kind = GGMLQuantizationType[tensor.kind]
        dtype = plain.get(tensor.kind, np.dtype(np.uint8))
        shape = tensor.shape if tensor.kind in plain else quant_shape_to_byte_shape(tensor.shape, kind)
        writer.add_tensor_info(tensor.name, shape, dtype, int(np.prod(shape)) * dtype.itemsize, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in track(tensors, "write GGUF"):
            values = np.ascontiguousarray(quantize(tensor.values(), GGMLQuantizationType[tensor.kind]))
            writer.write_tensor_data(values)
    finally:
        writer.close()
