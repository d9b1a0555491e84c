"""`groundtune vllm`: the command that serves an exported model with vLLM on a GPU host."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace

KEY = "VLLM_API_KEY"  # vLLM reads it by this name
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that --max-lora-rank takes
CONFIG, ADAPTER_CONFIG, ADAPTERS = "config.json", "adapter_config.json", "adapter"

Model = Annotated[
    str,
    typer.Argument(help="[DOMAIN/]VARIANT of an export, NAME@VERSION, or a folder.", show_default=False),
]
MaxLength = Annotated[int, typer.Option("--max-model-len", min=0, help="Context in tokens; 0: the model's own.")]
NumSequences = Annotated[int, typer.Option("--max-num-seqs", min=1, help="Answers that are written together.")]
Memory = Annotated[float, typer.Option("--gpu-memory-utilization", min=0.05, max=1.0, help="Share of its memory.")]
Base = Annotated[str, typer.Option(help="For an export of adapters alone: the folder of the model they belong to.")]
Host = Annotated[str, typer.Option(help="Beyond loopback, put the proxy in front: vLLM's key leaves paths open.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
Run = Annotated[bool, typer.Option("--run", help="Start it; else the command is printed.")]


@dataclass(frozen=True)
class Served:
    """What vLLM loads. adapters: name -> folder."""

    name: str
    folder: Path
    max_positions: int
    adapters: dict[str, Path]
    max_rank: int


def vllm_command(domain: Callable[[], str], workspace: Workspace) -> Any:
    """The command. domain: names the configured one."""

    def vllm(
        model: Model,
        max_length: MaxLength = 0,
        num_sequences: NumSequences = 64,
        memory: Memory = 0.9,
        base: Base = "",
        host: Host = "127.0.0.1",
        port: Port = 8000,
        run: Run = False,
    ) -> None:
        """Print, or start, the vLLM command for an exported model."""
        served = read_served(model, base, workspace, domain())
        length = max_length or served.max_positions
        if length > served.max_positions:
            raise ConfigError(f"--max-model-len {length}: {served.folder} was made for {served.max_positions} tokens")
        options = {
            "--served-model-name": served.name,
            "--max-model-len": str(length),
            "--max-num-seqs": str(num_sequences),
            "--gpu-memory-utilization": f"{memory:g}",
            "--host": host,
            "--port": str(port),
        }
        command = arguments(served, options)
        if run:
            _start(command)
        typer.echo(shlex.join(command))
        typer.echo(_advice(served, host, port), err=True)

    return vllm


def read_served(model: str, base: str, workspace: Workspace, domain: str = "") -> Served:
    """domain: whose variants `model` may name alone.

    Raises DataError for what is no export, or holds adapters that vLLM cannot serve, by name.
    """
    folder = _folder(model, workspace, domain)
    name = model if "/" not in model and "@" in model else "-".join(folder.parts[-2:])
    adapters = sorted(path.parent for path in (folder / ADAPTERS).rglob(ADAPTER_CONFIG))
    if (folder / CONFIG).is_file():
        return Served(name, folder, _max_positions(folder), {}, 0)  # the adapter is merged into it
    if not adapters:
        raise DataError(f"{folder}: no {CONFIG} and no adapter in it; run `dvc repro export_model`")
    if not base:
        raise DataError(f"{folder}: adapters alone; give --base, the folder of the model they were trained on")
    weights = _folder(base, workspace)
    ranks = [_rank(adapter) for adapter in adapters]
    named = {"-".join((name, *path.relative_to(folder / ADAPTERS).parts)): path for path in adapters}
    return Served(f"{name}-base", weights, _max_positions(weights), named, max(ranks))


def arguments(served: Served, options: dict[str, str]) -> list[str]:
    """The command line; a folder is given in full, as vLLM takes a relative one for a hub name where it is missing."""
    command = ["vllm", "serve", str(served.folder.resolve())]
    command += [word for pair in options.items() for word in pair]
    if served.adapters:
        rank = next(rank for rank in RANKS if rank >= served.max_rank)
        command += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(len(served.adapters))]
        command += ["--lora-modules", *(f"{name}={path.resolve()}" for name, path in served.adapters.items())]
    return command


def _folder(model: str, workspace: Workspace, domain: str = "") -> Path:
    if "@" in model:
        from stages.serving.releases import resolve

        return resolve(model, workspace, domain)
    roots = ("models/export", f"models/export/{domain}", "")
    for place in (Path(model), *(workspace.inputs / root / model for root in roots)):
        if place.is_dir():
            return place
    raise DataError(f"{model}: neither an export (models/export/{model}) nor a folder; run `dvc repro export_model`")


def _max_positions(folder: Path) -> int:
    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{folder}: no model here ({CONFIG} is missing)")
    if not any(folder.glob("*.safetensors")):
        raise DataError(f"{folder}: no *.safetensors; nothing else is loaded")
    positions = json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings")
    if not isinstance(positions, int):
        raise DataError(f"{path}: max_position_embeddings is missing; give --max-model-len a model that names it")
    return positions


def _rank(adapter: Path) -> int:
    """Raises DataError for an adapter that is more than low-rank matrices, or of too high a rank."""
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    reasons = {
        "has whole layers of its own (modules_to_save)": bool(config.get("modules_to_save")),
        "is a DoRA": bool(config.get("use_dora")),
        "trains biases": config.get("bias", "none") != "none",
        f"has a rank above {RANKS[-1]}": config.get("r", 0) > RANKS[-1],
    }
    if found := [reason for reason, is_so in reasons.items() if is_so]:
        raise DataError(f"{adapter}: vLLM cannot serve it, as it {' and '.join(found)}; export it with merge: true")
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def _start(command: list[str]) -> None:
    """Becomes vLLM. Raises ConfigError where it is not installed, or no key is set."""
    program = shutil.which(command[0])
    if program is None:
        raise ConfigError("vllm is not installed here; on a GPU host: `pip install vllm`, in an environment of its own")
    if not os.environ.get(KEY):
        raise ConfigError(
            f'{KEY} is not set: export {KEY}=$(python -c "import secrets; print(secrets.token_urlsafe())")'
        )
    os.execv(program, command)  # noqa: S606  # no shell is wanted: it becomes the server


def _advice(served: Served, host: str, port: int) -> str:
    names = list(served.adapters) or [served.name]
    proxy = f"groundtune serve --upstream http://{host}:{port}/v1 --upstream-model {names[0]} --upstream-key-env {KEY}"
    files = next(iter(served.adapters.values()), served.folder)
    return (
        f"# needs {KEY} in the environment of both; then, for the documents:\n"
        f"# {proxy} --files {shlex.quote(str(files if (files / 'tokenizer.json').is_file() else served.folder))}"
    )
