"""Training in several processes: a stage that trains starts them through `accelerate launch`.

    launch.train("train_rag_lora", config, workspace)    # first line of a stage's `run`

With `launch=single` this does nothing. Otherwise the stage is run by every launched process as far as its trainings,
which leave their checkpoints; then the stage's own process goes on, finds the trainings finished, measures and writes.
So there is one writer, one message and one set of metrics whatever the launch, and what belongs to a resumed training
(stages.training.checkpoints) is all that is needed: a killed stage takes its processes with it and is just run again.

Below .cache/launch/<stage>/<hash of the settings>/ lie

    accelerate.yaml     accelerate's own configuration, rendered from conf/launch
    job.json            {"stage": "train_rag_lora", "section": {...}, "inputs": "...", "outputs": "..."}
    error.txt           what a process could not go on for
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from stages.core.atomic import write_json, write_text
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError, GroundtuneError
from stages.core.fingerprint import fingerprint
from stages.core.process import die_with_parent, quiet_environment
from stages.core.schema import Training, one_of
from stages.core.workspace import ROOT, Workspace

Value = TypeVar("Value")

KINDS = {"single": "NO", "ddp": "MULTI_GPU", "fsdp": "FSDP", "deepspeed": "DEEPSPEED"}  # ours -> accelerate's
OPTIONS = {"fsdp": "fsdp_config", "deepspeed": "deepspeed_config"}
SHARDED = ("fsdp", "deepspeed")  # no process holds the whole model
LAUNCHED = "GROUNDTUNE_LAUNCHED_BY"  # in the environment of a launched process: the process that started it
CONFIG, JOB, ERROR = "accelerate.yaml", "job.json", "error.txt"


@dataclass
class Launch:
    """Mirrors conf/launch. num_processes: 0 is one for each GPU. options: by accelerate's own names."""

    kind: str = "single"
    num_processes: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self.kind, tuple(KINDS), "launch.kind")
        if self.num_processes < 0 or (self.kind == "single" and self.num_processes > 1):
            raise ValueError(f"launch.num_processes: {self.num_processes} does not go with launch.kind {self.kind}")
        if self.options and self.kind not in OPTIONS:
            raise ValueError(f"launch.options: a {self.kind} launch has none")


class TrainingDone(Exception):  # noqa: N818  # no error
    """Raised in a launched process when its part is done; the process that launched it goes on from the checkpoint."""


def is_launched() -> bool:
    """Whether this is one of the processes that `train` has started."""
    return LAUNCHED in os.environ


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def from_main(value: Callable[[], Value]) -> Value:
    """What `value` returns in the process that writes, in every process; only that one calls it."""
    if not is_launched():
        return value()
    from accelerate.utils import broadcast_object_list

    _join()
    found: list[Any] = [value() if is_main() else None]
    return broadcast_object_list(found)[0]  # type: ignore[no-any-return]


def _join() -> Any:
    """accelerate's state of this process, which knows the others from here on."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())  # else it does not look for others without a GPU


def num_processes(launch: Launch) -> int:
    """How many processes train; ConfigError, with the numbers, where that cannot be here."""
    if launch.kind == "single":
        return 1
    if launch.kind == "deepspeed" and not find_spec("deepspeed"):
        raise ConfigError("launch.kind: deepspeed is not installed: pip install 'groundtune[deepspeed]'")
    import torch

    num_gpus = torch.cuda.device_count()
    if launch.kind in SHARDED and not num_gpus:
        raise ConfigError(f"launch.kind: {launch.kind} needs GPUs, there is none here; launch=ddp runs without")
    wanted = launch.num_processes or num_gpus
    if wanted < 2:
        raise ConfigError(f"launch.num_processes: {launch.num_processes} with {num_gpus} GPUs here; give at least 2")
    if num_gpus and wanted > num_gpus:
        raise ConfigError(f"launch.num_processes: {wanted} processes, but {num_gpus} GPUs here")
    return wanted


def accumulation_of_each(launch: Launch, training: Training) -> int:
    """Batches that each process adds up for a step, so that a step has the same rows however many processes there are.

    Raises ConfigError where training.accumulation cannot be shared out evenly.
    """
    share, rest = divmod(training.accumulation, num_processes(launch))
    if rest:
        raise ConfigError(
            f"training.accumulation: {training.accumulation} batches a step cannot be shared out to "
            f"{num_processes(launch)} processes; a step has batch_size x accumulation rows whatever the launch: "
            "make accumulation a multiple of launch.num_processes, and batch_size as much smaller"
        )
    return share


def accelerate_config(launch: Launch, training: Training) -> dict[str, Any]:
    """accelerate's configuration of a launch, as `accelerate config` would write it."""
    options = dict(launch.options)
    if launch.kind == "deepspeed":
        options |= {
            "gradient_accumulation_steps": accumulation_of_each(launch, training),
            "gradient_clipping": training.max_grad_norm,
        }
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": KINDS[launch.kind],
        "mixed_precision": "no",  # the trainer's own setting decides
        "num_machines": 1,
        "num_processes": num_processes(launch),
        "main_process_port": 0,  # any free one
        **({OPTIONS[launch.kind]: options} if launch.kind in OPTIONS else {}),
    }


def train(stage: str, config: Any, workspace: Workspace) -> None:
    """Has the trainings of a stage done by launched processes, up to their last checkpoints; returns when they are.

    config: the stage's; it has `launch` and `training`. Raises ConfigError where the launch cannot be, and DataError
    with what a process could not go on for.
    """
    if config.launch.kind == "single" or is_launched():
        return
    rendered = accelerate_config(config.launch, config.training)
    accumulation_of_each(config.launch, config.training)
    folder = workspace.cache("launch", stage, fingerprint(config, str(workspace.outputs))[:16])
    roots = {"inputs": str(workspace.inputs), "outputs": str(workspace.outputs)}
    write_json(folder / JOB, {"stage": stage, "section": asdict(config), **roots})
    write_text(folder / CONFIG, json.dumps(rendered, indent=2) + "\n")  # JSON is YAML
    (folder / ERROR).unlink(missing_ok=True)
    command = [sys.executable, "-m", "stages.core.launch", "launch", str(folder)]
    # In a session of its own: a signal to our group ends us, and that ends them, without a word from torchrun.
    code = subprocess.Popen(command, env=_environment(config.training), start_new_session=True).wait()
    if (folder / ERROR).exists():
        raise DataError((folder / ERROR).read_text(encoding="utf-8"))
    if code != 0:
        raise DataError(f"{stage}: a launched process ended with exit code {code}; what it said stands above")


def _environment(training: Training) -> dict[str, str]:
    import torch

    roots = [str(ROOT), os.environ.get("PYTHONPATH", "")]  # this checkout's code, wherever we were started
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, roots)),
        LAUNCHED: str(os.getpid()),
        # Without a GPU accelerate would start them through MPI; torchrun and gloo need nothing that is not here.
        "ACCELERATE_USE_CPU": "false" if torch.cuda.is_available() else "true",
        "OMP_NUM_THREADS": str(training.num_threads or 1),
    }


def _launch(folder: Path) -> int:
    """Calls `accelerate launch`; the exit code."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ[LAUNCHED] = str(os.getpid())
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # our processes say themselves what was wrong
    threads = ["--num_cpu_threads_per_process", os.environ["OMP_NUM_THREADS"]]
    command = ["--config_file", str(folder / CONFIG), *threads, "-m", "stages.core.launch", "run", str(folder)]
    try:
        launch_command(launch_command_parser().parse_args(command))
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    return 0


def _run(folder: Path) -> int:
    """One launched process: the stage up to its trainings."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    stage = importlib.import_module(f"stages.{job['stage']}")
    config = parse_section(stage.Config, job["section"], job["stage"])
    try:
        with suppress(TrainingDone):
            stage.run(config, Workspace(Path(job["inputs"]), Path(job["outputs"])))
    except GroundtuneError as error:  # of every process the same, or of one alone: one message either way
        write_text(folder / ERROR, str(error))
        return 1
    _join().destroy_process_group()
    return 0


def main() -> None:
    """What a launched process is started as."""
    quiet_environment()
    die_with_parent(int(os.environ[LAUNCHED]))
    sys.exit({"launch": _launch, "run": _run}[sys.argv[1]](Path(sys.argv[2])))


if __name__ == "__main__":
    importlib.import_module("stages.core.launch").main()  # as the module that the stage imports, not as __main__
