"""What runs inside axolotl's own virtual environment: `axolotl train`, with the checks that it leaves out.

    python -P checked_train.py axolotl.yml progress.jsonl [checkpoint]     trains; 64: the YAML is refused
    python -P checked_train.py --check axolotl.yml [--gpu]                 only checks

axolotl 0.19 ignores an unknown key, and a plugin that it cannot import, with exit code 0; here both are errors, and
cost no process of their own. It does not seed before it makes the adapter; here the seed holds for all of it. Every
log record goes to progress.jsonl as it comes, unrounded:

    {"event": "log", "step": 3, "epoch": 0.6, "time_s": 1751.2, "loss": 2.01, "grad_norm": 0.8, "learning_rate": 2e-4}

Imports nothing of groundtune, which is not installed here.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

REFUSED = 64  # EX_USAGE of sysexits.h


def unknown_keys(config: dict[str, Any]) -> list[str]:
    """Keys that axolotl's schema (its plugins' included) does not have, those of datasets with their place."""
    from axolotl.utils.config import merge_input_args
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import SFTDataset

    schema = merge_input_args()[1] if config.get("plugins") else AxolotlInputConfig
    unknown = sorted(set(config) - _names(schema))
    for name in ("datasets", "test_datasets"):
        for number, dataset in enumerate(config.get(name) or []):
            unknown += [f"{name}[{number}].{key}" for key in sorted(set(dataset) - _names(SFTDataset))]
    return unknown


def _names(schema: Any) -> set[str]:
    return set(schema.model_fields) | {field.alias for field in schema.model_fields.values() if field.alias}


def unloaded_plugins(config: dict[str, Any]) -> list[str]:
    """Plugins of the config that axolotl could not import; the others are registered."""
    from axolotl.integrations.base import PluginManager

    manager = PluginManager.get_instance()
    for name in config.get("plugins") or []:
        manager.register(name)
    return [name for name in config.get("plugins") or [] if name not in manager.plugins]


def refuse_ignored(config: dict[str, Any]) -> None:
    """Exits with REFUSED where axolotl would ignore a part of the config."""
    if missing := unloaded_plugins(config):
        _refuse(f"plugins: {', '.join(missing)} cannot be imported in axolotl's environment")
    if unknown := unknown_keys(config):
        _refuse(f"axolotl has no setting {', '.join(unknown)}")


def _refuse(reason: str) -> None:
    print(f"ConfigError: {reason}", file=sys.stderr, flush=True)
    raise SystemExit(REFUSED)


def check(path: Path, gpu: bool) -> None:
    """Validates as axolotl would on such a machine; its ValidationError is shown as it is."""
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    config = _read(path)
    refuse_ignored(config)
    import torch

    machine = {"bf16": gpu, "fp8": False, "tf32": gpu, "n_gpu": 1, "compute_capability": "sm_90" if gpu else None}
    software = {"torch_version": str(torch.__version__).split("+")[0]}
    try:
        validate_config(DictDefault(config), capabilities=machine, env_capabilities=software)
    except ValueError as error:  # pydantic's is one
        _refuse(" ".join(str(error).split()))


def _read(path: Path) -> dict[str, Any]:
    import yaml

    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def report_to(progress: Path) -> None:
    """Gives every Trainer of this process a callback that writes to `progress`."""
    from transformers import TrainerCallback, trainer

    class Report(TrainerCallback):  # type: ignore[misc]
        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # It would compare with the untrained model too, and count one evaluation more after every resume.
            args.eval_on_start = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._write("begin", state, {})

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= state.max_steps:  # the last step counts, whatever eval_steps is
                control.should_evaluate = control.should_save = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            self._write("log", state, {k: v for k, v in logs.items() if isinstance(v, int | float)})

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._write("saved", state, {})

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            best = Path(state.best_model_checkpoint).name.rsplit("-", 1)[-1] if state.best_model_checkpoint else 0
            self._write("end", state, {"best_step": int(best) or state.global_step})

        def _write(self, event: str, state: Any, values: dict[str, Any]) -> None:
            if state.is_world_process_zero:
                at = {"event": event, "step": state.global_step, "epoch": state.epoch, "time_s": time.time()}
                with open(progress, "a", encoding="utf-8") as file:
                    file.write(json.dumps({**values, **at}) + "\n")

    trainer.DEFAULT_CALLBACKS.append(Report)


def main(arguments: list[str]) -> None:
    """The command line; see the module."""
    if arguments[0] == "--check":
        check(Path(arguments[1]), gpu="--gpu" in arguments)
        return
    path, progress, *checkpoint = arguments
    config = _read(Path(path))
    refuse_ignored(config)
    report_to(Path(progress))
    sys.argv = [sys.argv[0]]  # axolotl parses it again
    from axolotl.cli.train import do_cli
    from transformers import set_seed

    set_seed(config["seed"])  # axolotl's `seed` orders rows only: the adapter would start from other numbers each time
    do_cli(path, **({"resume_from_checkpoint": checkpoint[0]} if checkpoint else {}))


if __name__ == "__main__":
    main(sys.argv[1:])
