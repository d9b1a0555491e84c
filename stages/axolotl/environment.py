"""axolotl's virtual environment: whether it is there, and of the version that was tested."""

from __future__ import annotations

import os
from importlib.metadata import distributions
from pathlib import Path

from stages.axolotl.settings import Axolotl
from stages.core.errors import ConfigError
from stages.training.lora import LIBRARIES

# What would lead its Python to our packages.
DROPPED = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "LD_PRELOAD")
OFFLINE = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
}
WAY_OUT = "run `make axolotl` (about 4 minutes, 4.3 GB), or take the backend trl"


def venv_folder(settings: Axolotl, root: Path) -> Path:
    """Where the environment lies; `root` is the repository."""
    return root / settings.venv


def venv_versions(settings: Axolotl, root: Path) -> dict[str, str]:
    """The versions that decide about the weights, as lora.versions() has them of ours, and axolotl's own.

    Raises ConfigError where the environment is missing, incomplete, or of another version than the tested one. Read
    from the metadata on disk: starting its Python for that would take a second.
    """
    venv = venv_folder(settings, root)
    if not python_of(venv).exists():
        raise ConfigError(f"axolotl.venv: {venv} has no Python; {WAY_OUT}")
    packages = [str(path) for path in venv.glob("lib/python*/site-packages")]
    found = {d.metadata["Name"]: d.version for d in distributions(path=packages)}
    if "axolotl" not in found:
        raise ConfigError(f"axolotl.venv: {venv} has no axolotl; {WAY_OUT}")
    if found["axolotl"] != settings.version:
        raise ConfigError(
            f"axolotl.version: {venv} has axolotl {found['axolotl']}, tested is {settings.version}; run `rm -r {venv}` "
            f"and `make axolotl`, or set axolotl.version={found['axolotl']} and run `make test-axolotl` before you "
            "trust it"
        )
    return {name: found[name] for name in ("axolotl", *LIBRARIES) if name in found}


def python_of(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / "bin" / "python"


def child_environment(venv: Path, device: str, num_threads: int) -> dict[str, str]:
    """The environment variables of a process in it: its programs first, nothing of ours, no network, no telemetry."""
    inherited = {key: value for key, value in os.environ.items() if key not in DROPPED}
    threads = {"OMP_NUM_THREADS": str(num_threads)} if num_threads else {}
    path = f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return inherited | OFFLINE | threads | hidden | {"PATH": path, "VIRTUAL_ENV": str(venv)}
