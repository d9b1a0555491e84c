"""The K-quants of llama.cpp (2 to 6 bits a weight with two levels of scales), made by llama.cpp itself.

PyPI's gguf cannot write them; `llama-cpp-python` can, and compiles for minutes, so it is an extra (`llama`): where it
is not installed, asking for one of these types is an error that says so before anything is computed. A row that is no
multiple of 256 long cannot have them; llama.cpp then writes Q5_0 or Q8_0 for it.
"""

from __future__ import annotations

from pathlib import Path

from stages.core.errors import ConfigError, DataError
from stages.export.llama_cpp import is_installed

K_QUANTS = ("Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K")


def require_llama_cpp(kind: str) -> None:
    """Raises ConfigError where llama-cpp-python is not installed."""
    if not is_installed():
        raise ConfigError(
            f"export_model.gguf: {kind} is made by llama.cpp: `pip install -e '.[llama]'` (llama-cpp-python, which "
            "compiles for some minutes), or choose F16, BF16, Q8_0 or Q4_0"
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
