"""conf/launch: what cannot be is refused by name, and what is rendered is what accelerate itself reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from stages.compose import compose
from stages.core import launch
from stages.core.atomic import write_json
from stages.core.config import parse_section
from stages.core.errors import ConfigError
from stages.core.launch import Launch
from stages.core.schema import Training

LAUNCHES = Path(__file__).resolve().parents[2] / "conf" / "launch"
TRAINING = Training(learning_rate=1e-3, num_epochs=1, batch_size=2, accumulation=4, max_length=64)


def shipped(name: str) -> Launch:
    values = yaml.safe_load((LAUNCHES / f"{name}.yaml").read_text(encoding="utf-8"))
    return parse_section(Launch, values, "launch")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how many GPUs there are, and whether deepspeed is installed."""

    def set_number(number: int, deepspeed: bool = True) -> None:
        monkeypatch.setattr("torch.cuda.device_count", lambda: number)
        monkeypatch.setattr(launch, "find_spec", lambda name: object() if deepspeed else None)

    return set_number


@pytest.mark.parametrize(
    ("name", "num_gpus", "message"),
    [
        ("ddp", 0, "launch.num_processes: 0 with 0 GPUs here; give at least 2"),
        ("ddp", 1, "launch.num_processes: 0 with 1 GPUs here"),
        ("fsdp", 0, "launch.kind: fsdp needs GPUs"),
        ("deepspeed_zero3", 0, "launch.kind: deepspeed needs GPUs"),
    ],
)
def test_a_launch_that_cannot_be_here_is_refused(name: str, num_gpus: int, message: str, gpus: Any) -> None:
    gpus(num_gpus)
    with pytest.raises(ConfigError, match=message):
        launch.num_processes(shipped(name))


def test_more_processes_than_gpus_are_refused_with_the_numbers(gpus: Any) -> None:
    gpus(2)
    with pytest.raises(ConfigError, match="4 processes, but 2 GPUs here"):
        launch.num_processes(Launch("ddp", 4))
    assert launch.num_processes(shipped("ddp")) == 2
    gpus(0)
    assert launch.num_processes(Launch("ddp", 4)) == 4  # on the CPU


def test_deepspeed_that_is_not_installed_names_the_extra(gpus: Any) -> None:
    gpus(2, deepspeed=False)
    with pytest.raises(ConfigError, match=r"pip install 'groundtune\[deepspeed\]'"):
        launch.num_processes(shipped("deepspeed_zero3"))


def test_accumulation_is_shared_out_or_refused(gpus: Any) -> None:
    gpus(0)
    assert launch.accumulation_of_each(Launch("single"), TRAINING) == 4
    assert launch.accumulation_of_each(Launch("ddp", 2), TRAINING) == 2
    with pytest.raises(
        ConfigError, match=r"training.accumulation: 4 batches a step cannot be shared out to 3 processes"
    ):
        launch.accumulation_of_each(Launch("ddp", 3), TRAINING)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("launch.kind=horovod", "launch.kind: 'horovod' is not one of single, ddp, fsdp, deepspeed"),
        ("+launch.num_gpus=2", "launch.num_gpus"),
        ("+launch.num_processes=2", "2 does not go with launch.kind single"),
        ("+launch.options={zero_stage: 3}", "a single launch has none"),
        ("launch=slurm", "launch/slurm.*; there is ddp, deepspeed_zero3, fsdp, single"),
    ],
)
def test_a_launch_that_makes_no_sense_is_refused_by_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([override])


def test_a_large_model_composes_with_every_launch() -> None:
    """What one stage cannot do under it is that stage's own error, when it runs."""
    assert compose(["model=llama3_1_8b", "launch=fsdp"]).train_book_lora.launch.kind == "fsdp"


@pytest.mark.parametrize("path", sorted(LAUNCHES.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_what_is_rendered(path: Path, gpus: Any, tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    gpus(2)
    rendered = launch.accelerate_config(shipped(path.stem), TRAINING)
    write_json(tmp_path / "accelerate.yaml", rendered)
    config = load_config_from_file(str(tmp_path / "accelerate.yaml"))  # an unknown key is an error
    assert config.distributed_type == launch.KINDS[shipped(path.stem).kind]
    assert config.num_processes == (1 if path.stem == "single" else 2)
    arguments = ["--config_file", str(tmp_path / "accelerate.yaml"), "--num_cpu_threads_per_process", "1", "-m", "x"]
    found, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    assert (found.multi_gpu, found.use_fsdp, found.use_deepspeed) == (
        path.stem == "ddp",
        path.stem == "fsdp",
        path.stem == "deepspeed_zero3",
    )


def test_fsdp_becomes_the_plugin_that_a_lora_needs(gpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    gpus(2)
    write_json(tmp_path / "accelerate.yaml", launch.accelerate_config(shipped("fsdp"), TRAINING))
    arguments = ["--config_file", str(tmp_path / "accelerate.yaml"), "--num_cpu_threads_per_process", "1", "-m", "x"]
    found, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    monkeypatch.setattr("accelerate.utils.dataclasses.is_cuda_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    with mock.patch.dict(os.environ, prepare_multi_gpu_env(found)):
        plugin = FullyShardedDataParallelPlugin()
    assert (plugin.use_orig_params, plugin.cpu_ram_efficient_loading, plugin.sync_module_states) == (True, True, True)
    assert plugin.state_dict_type.name == "FULL_STATE_DICT" and plugin.fsdp_version == 1
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"


def test_deepspeed_gets_the_accumulation_of_each_process(gpus: Any) -> None:
    gpus(2)
    options = launch.accelerate_config(shipped("deepspeed_zero3"), TRAINING)["deepspeed_config"]
    assert (options["zero_stage"], options["gradient_accumulation_steps"], options["gradient_clipping"]) == (3, 2, 1.0)
