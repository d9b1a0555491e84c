"""conf/ -> params.yaml, the file that DVC tracks and a reviewer diffs.

    python -m stages.compose                     composes conf/config.yaml as it stands
    python -m stages.compose domain=counsel      with overrides; they are recorded in params.yaml
    python -m stages.compose --check             exit code 1, with the difference, when params.yaml is stale

Reads conf/ (and params.yaml when checking), writes params.yaml. Every section is checked against the dataclass of
its stage: an unknown key, a wrong type or a missing value is refused by its name.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stages.axolotl.settings import Axolotl
from stages.core import schema
from stages.core.atomic import write_text
from stages.core.config import parse_section
from stages.core.engine import Engine
from stages.core.errors import ConfigError, GroundtuneError
from stages.core.launch import Launch
from stages.core.lockfile import leave_watcher
from stages.core.process import quiet_environment
from stages.core.stage import CONF, PARAMS, VARIANTS, read_params, variants_of, with_variant
from stages.core.workspace import ROOT
from stages.regression.task import RegressionTask

SHARED_SECTIONS: dict[str, type[Any]] = {
    "axolotl": Axolotl,
    "domain": schema.Domain,
    "embedder": schema.Embedder,
    "engine": Engine,
    "launch": Launch,
    "model": schema.Model,
    "prompt": schema.Prompt,
    "regression": RegressionTask,
    "retrieval": schema.Retrieval,
}
# Sections whose dataclass is not in the stage module of that name.
NOT_STAGES = {
    "chat": "stages.serving.answering",
    "predict": "stages.serving.predicting",
    "review": "stages.serving.review.settings",
    "sweep": "stages.sweeps.settings",
    "serve": "stages.serving.proxy.settings",
}
SCALARS = ("seed", "overrides")

CHECKED = ROOT / "data" / "params.ok"
CHECKED_TEXT = "params.yaml was what conf/ composes to\n"  # constant: a new params.yaml alone reruns no stage

HEADER = "# Composed from conf/ by `python -m stages.compose`: change conf/, or give overrides, not this file.\n"


def compose(overrides: list[str]) -> DictConfig:
    """conf/config.yaml with `overrides`, resolved and validated. Raises ConfigError."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException, MissingConfigException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra_compose("config", overrides=overrides)
        config.overrides = overrides
        OmegaConf.resolve(config)
    except MissingConfigException as error:
        known = sorted(path.stem for path in (CONF / (error.missing_cfg_file or "")).parent.glob("*.yaml"))
        raise ConfigError(f"{str(error).splitlines()[0]}; there is {', '.join(known) or 'nothing there'}") from error
    except HydraException as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # OmegaConf raises many kinds; each message names the key
        raise ConfigError(f"conf/: {str(error).splitlines()[0]}") from error
    validate(config)
    return config


def validate(config: DictConfig) -> None:
    """Checks every section against its dataclass; ConfigError names the first key that does not fit."""
    for name in config:
        if name not in SCALARS:
            section: Any = OmegaConf.to_container(config[name], resolve=True)
            config_class = section_class(str(name))
            for variant in variants_of(section):
                refuse_shared_keys(section, variant, str(name), getattr(config_class, "OF_ALL_VARIANTS", ()))
                parse_section(config_class, with_variant(section, variant, str(name)), str(name))


def refuse_shared_keys(section: Mapping[str, Any], variant: str, name: str, shared: Sequence[str]) -> None:
    """Raises ConfigError where a variant sets what dvc.yaml takes from the section: DVC would not see its change."""
    for key in shared:
        if variant and key in (section[VARIANTS][variant] or {}):
            raise ConfigError(
                f"{name}.{VARIANTS}.{variant}.{key}: all variants share {name}.{key}, which DVC watches; set that, and "
                "give variants on another one a domain file of their own"
            )


def section_class(name: str) -> type[Any]:
    """The dataclass of a section: a shared group's, or `Config` of the stage of that name."""
    if name in SHARED_SECTIONS:
        return SHARED_SECTIONS[name]
    module_name = NOT_STAGES.get(name, f"stages.{name}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ConfigError(f"{name}: unknown section; there is no stage of that name") from error
    config_class: type[Any] = module.Config
    return config_class


def as_text(config: DictConfig) -> str:
    """A composed configuration as params.yaml."""
    return HEADER + OmegaConf.to_yaml(config, sort_keys=False)


def write_params(overrides: list[str]) -> None:
    """Writes params.yaml, and the folder for people's own decisions on the domain, which DVC wants to be there."""
    config = compose(overrides)
    kept = ROOT / config.domain.curation_dir / ".gitkeep"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.touch()
    write_text(PARAMS, as_text(config))


def stale_lines(params: dict[str, Any], text: str) -> list[str]:
    """The difference between params.yaml and what conf/ composes to with its recorded overrides; [] when fresh."""
    wanted = as_text(compose([str(item) for item in params.get("overrides") or []]))
    lines = difflib.unified_diff(
        text.splitlines(), wanted.splitlines(), "params.yaml", "conf/ composed", n=1, lineterm=""
    )
    return list(lines)


def check() -> None:
    """Raises ConfigError when params.yaml is missing or stale, or does not validate; else leaves a mark for DVC."""
    params = read_params()
    if os.environ.get("DVC_EXP_NAME"):
        # `dvc exp run -S` has composed params.yaml itself, from conf/ and its own overrides
        validate(OmegaConf.create(params))
    elif difference := stale_lines(params, PARAMS.read_text(encoding="utf-8")):
        raise ConfigError(
            "\n".join(difference) + "\nparams.yaml is not what conf/ composes to. Run `python -m stages.compose` "
            "(with the overrides you want), or carry the change into conf/."
        )
    write_text(CHECKED, CHECKED_TEXT)


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` default to those of the process."""
    parser = argparse.ArgumentParser(prog="python -m stages.compose", description="Compose conf/ into params.yaml.")
    parser.add_argument("--check", action="store_true", help="only say whether params.yaml is fresh (exit code 1: no)")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as domain=counsel train_rag_lora.lora.r=16")
    options = parser.parse_args(arguments)
    quiet_environment()
    try:
        if options.check:
            leave_watcher()
            check()
        else:
            write_params(options.overrides)
    except GroundtuneError as error:
        raise SystemExit(f"compose: error: {error}") from error


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
