"""The K-quants of llama.cpp (2 to 6 bits a weight with two levels of scales), made by llama.cpp itself.

PyPI's gguf cannot write them; `llama-cpp-python` can, and compiles for minutes, so it is no dependency: where it is
not installed, asking for one of these types is an error that says so before anything is computed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stages.core.errors import ConfigError, DataError

K_QUANTS = ("Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K")


def require_llama_cpp(kind: str) -> None:
    """Raises ConfigError where llama-cpp-python is not installed."""
    if find_spec("llama_cpp") is None:
        raise ConfigError(
            f"export_model.gguf: {kind} is made by llama.cpp: `pip install llama-cpp-python` (it compiles for some "
            "minutes), or choose F16, BF16, Q8_0 or Q4_0"
        )


def k_quantise(source: Path, target: Path, kind: str) -> None:
    """Writes `source` (a GGUF file of 16 or 32 bits) as `target`. Raises DataError where llama.cpp refuses."""
    import ctypes

    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code:
        raise DataError(f"{target}: llama.cpp could not write {kind} (code {code}); see its messages above")
