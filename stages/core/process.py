"""What every process of ours sets up first: no telemetry, no spinning threads, no orphans."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import warnings

QUIET = {
    "ANONYMIZED_TELEMETRY": "False",  # chromadb
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait for work sleep instead of spinning: on a busy machine spinning made two threads several times
    # slower than one. Read when OpenMP starts.
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic cuBLAS; read when CUDA starts
}

PR_SET_PDEATHSIG = 1


def quiet_environment() -> None:
    """Sets what libraries read from the environment, here and in children; a value that the user has set stays."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    # Said at every import, about nothing that a user of ours can change.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent dies: a killed `dvc repro` leaves no trainer behind.

    Source: prctl(2). Elsewhere nothing happens. A parent that died before the call is noticed too.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
