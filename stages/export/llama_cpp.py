"""A GGUF file as llama.cpp itself reads it, where llama-cpp-python is installed (the extra `llama`).

Keys and values are kept in 32 bits, on the CPU: llama.cpp's default of 16 would be measured instead of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.export.golden import Golden

F32 = 0  # llama.cpp's number of the type (ggml_type)
TEMPLATE = "tokenizer.chat_template"


def is_installed() -> bool:
    """Whether llama-cpp-python is here."""
    return find_spec("llama_cpp") is not None


@contextmanager
def opened(file: Path, num_ctx: int) -> Iterator[Any]:
    """The model of a GGUF file. Raises DataError where llama.cpp cannot load it. num_ctx: tokens."""
    from llama_cpp import Llama

    options: dict[str, Any] = {"type_k": F32, "type_v": F32, "logits_all": True, "n_gpu_layers": 0, "verbose": False}
    try:
        with _weights_as_stored():
            loaded = Llama(model_path=str(file), n_ctx=num_ctx, **options)
    except ValueError as error:
        raise DataError(f"{file}: llama.cpp cannot load it: {error}") from error
    with closing(loaded):
        yield loaded


@contextmanager
def _weights_as_stored() -> Iterator[None]:
    """Models opened in the block are not repacked for the CPU at hand; `Llama` has no argument for it.

    Repacked for AMX, every quantised type ended in a segmentation fault on virtual machines that name AMX among their
    CPU's features (llama-cpp-python 0.3.36).
    """
    from llama_cpp import llama_cpp as library

    defaults = library.llama_model_default_params

    def without_repacking() -> Any:
        params = defaults()
        params.use_extra_bufts = False
        return params

    library.llama_model_default_params = without_repacking
    try:
        yield
    finally:
        library.llama_model_default_params = defaults


def check_tokens(loaded: Any, file: Path, template: str, golden: Sequence[Golden]) -> None:
    """Raises DataError where it has another chat template, or cuts a rendered prompt into other tokens."""
    if loaded.metadata.get(TEMPLATE) != template:
        raise DataError(f"{file}: llama.cpp reads another chat template than the tokenizer has")
    for one in golden:
        ids = loaded.tokenize(one.text.encode(), add_bos=False, special=True)
        if list(ids) != one.input_ids:
            raise DataError(f"{file}: llama.cpp cuts prompt {one.id} into other tokens")


def logits(loaded: Any, prompts: Sequence[Sequence[int]]) -> list[Any]:
    """Each prompt's logits, [T, V] float32."""
    import torch

    found = []
    for prompt in prompts:
        _read(loaded, prompt)
        found.append(torch.from_numpy(loaded.scores[: len(prompt)].copy()))
    return found


def greedy(loaded: Any, prompt: Sequence[int], stops: frozenset[int], max_new_tokens: int) -> list[int]:
    """The ids of the most likely continuation, up to one of `stops`."""
    _read(loaded, prompt)
    ids: list[int] = []
    while len(ids) < max_new_tokens:
        token = int(loaded.scores[loaded.n_tokens - 1].argmax())
        if token in stops:
            break
        ids.append(token)
        loaded.eval([token])
    return ids


def _read(loaded: Any, prompt: Sequence[int]) -> None:
    loaded.reset()
    loaded.eval(list(prompt))
