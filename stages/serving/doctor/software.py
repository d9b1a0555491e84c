"""Checks of the machine and of what is installed on it."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stages.core.process import QUIET
from stages.core.workspace import Workspace
from stages.serving import machine
from stages.serving.doctor.check import Check, size_text
from stages.serving.machine import GIB

DISTRIBUTION = "groundtune"
INSTALL = "make setup"
MIN_FREE_DISK_BYTES = 2 * GIB
TELEMETRY = ("ANONYMIZED_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "WANDB_MODE")


def machine_checks(workspace: Workspace) -> Iterator[Check]:
    """System, cores, memory, GPU, disk."""
    group = "machine"
    yield Check(group, "system", "ok", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    memory = machine.memory()
    yield Check(group, "CPU", "ok", f"{machine.num_cores()} cores")
    yield Check(group, "memory", "ok", f"{size_text(memory.available_bytes)} free of {size_text(memory.total_bytes)}")
    yield _gpu_check(group)
    free = machine.free_disk_bytes(workspace.outputs)
    low = free < MIN_FREE_DISK_BYTES
    fix = "free some space: checkpoints, caches and two copies of the weights go there" if low else ""
    yield Check(group, "disk", "note" if low else "ok", f"{size_text(free)} free", fix)


def _gpu_check(group: str) -> Check:
    found = machine.gpus()
    if found:
        names = ", ".join(f"{g.name} ({size_text(g.free_bytes)} free of {size_text(g.total_bytes)})" for g in found)
        return Check(group, "GPU", "ok", names)
    if unused := machine.driver_gpus():
        why = "torch is a CPU build" if machine.torch_is_cpu_build() else "torch cannot use it"
        fix = "install torch's CUDA build of the same version, in a virtual environment of its own"
        return Check(group, "GPU", "note", f"{', '.join(unused)}, but {why}", fix)
    return Check(group, "GPU", "ok", "none: everything runs on the CPU")


def software_checks(workspace: Workspace) -> Iterator[Check]:
    """Packages against our requirements, Git, DVC, telemetry."""
    yield _packages_check()
    git = shutil.which("git")
    is_repository = git is not None and _succeeds([git, "rev-parse", "--git-dir"], workspace.inputs)
    yield _needed(
        "git", is_repository, "present", "not installed, or this is no Git repository", "install git; git init"
    )
    has_dvc = importlib.util.find_spec("dvc") is not None and (workspace.inputs / ".dvc").is_dir()
    yield _needed("DVC", has_dvc, "present", "not installed, or not initialised here", f"{INSTALL}; dvc init")
    yield _telemetry_check(workspace)


def _needed(name: str, is_there: bool, found: str, missing: str, fix: str) -> Check:
    return Check("software", name, "ok", found) if is_there else Check("software", name, "problem", missing, fix)


def _succeeds(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=10).returncode == 0


def _packages_check() -> Check:
    """Every requirement of our own metadata against what is installed."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    except importlib.metadata.PackageNotFoundError:
        return Check("software", "packages", "problem", f"{DISTRIBUTION} itself is not installed", INSTALL)
    wrong, versions = [], []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        versions.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return Check("software", "packages", "problem", ", ".join(wrong), INSTALL)
    return Check("software", "packages", "ok", ", ".join(versions))


def _telemetry_check(workspace: Workspace) -> Check:
    variables = [key for key in TELEMETRY if os.environ.get(key, QUIET[key]) != QUIET[key]]
    fixes = [f"unset {' '.join(variables)}"] if variables else []
    config = configparser.ConfigParser()
    config.read(workspace.inputs / ".dvc" / "config")
    if config.get("core", "analytics", fallback="true") != "false":
        variables.append("DVC's analytics")
        fixes.append("dvc config core.analytics false")
    if not variables:
        return Check("software", "telemetry", "ok", "off")
    return Check("software", "telemetry", "note", f"on: {', '.join(variables)}", "; ".join(fixes))
