"""How a stage starts.

python -m stages.clean_qa                        as DVC runs it: its section of params.yaml, outputs in place
python -m stages.clean_qa clean_qa.min_chars=3   a trial: Hydra composes conf/, outputs under runs/
python -m stages.clean_qa -m clean_qa.min_chars=3,5,9    a sweep (stages/sweeps), compared in reports/sweeps/

A stage with variants (`variants:` in its section) takes the name of one first; its settings win over the section's:

python -m stages.train_regression @hybrid        as DVC runs train_regression@hybrid
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.config import parse_section
from stages.core.cost import noted_cost
from stages.core.errors import ConfigError, GroundtuneError
from stages.core.lockfile import leave_watcher
from stages.core.process import die_with_parent, end_in_one_line, quiet_environment
from stages.core.read_only import keep_read_only_files
from stages.core.workspace import ROOT, Workspace

CONF = ROOT / "conf"
PARAMS = ROOT / "params.yaml"
WAYS_OUT = {  # of what is no fault of ours, and of no line in particular
    errno.ENOSPC: "the disk is full{}; make room and run again",
    errno.EDQUOT: "the disk's quota is used up{}; make room and run again",
    errno.EROFS: "the disk takes no writing{}; mount it so that it does, and run again",
    errno.EACCES: "no right to read or write{}; change the rights, or the user, and run again",
    errno.EPERM: "not permitted{}; change the rights, or the user, and run again",
}
VARIANTS = "variants"  # of a section: name -> what differs


def stage_main(config_class: type[Any], run: Callable[[Any, Workspace], Any]) -> Callable[[], None]:
    """The `main` of a stage module: picks the way of starting; our errors become one message, exit code 1."""
    name = Path(sys.modules[run.__module__].__file__ or "").stem
    quiet_environment()

    def main() -> None:
        if {"-h", "--help"} & set(sys.argv[1:]):
            print(help_text(name, sys.modules[run.__module__].__doc__ or ""))
            return
        if not _is_sweep():  # which writes its report first
            end_in_one_line(name)
        die_with_parent()
        leave_watcher()
        keep_read_only_files()
        variant = sys.argv.pop(1).removeprefix("@") if sys.argv[1:] and sys.argv[1].startswith("@") else ""
        try:
            if len(sys.argv) == 1:
                section = with_variant(load_section(name), variant, name)
                config, workspace = parse_section(config_class, section, name), Workspace()
                with noted_cost(workspace.outputs, name, variant, section):
                    run(config, workspace)
            else:
                _run_trial(name, variant)
        except GroundtuneError as error:
            raise SystemExit(f"{name}: error: {error}") from error
        except OSError as error:
            if error.errno not in WAYS_OUT:
                raise
            where = f" ({error.filename})" if error.filename else ""
            raise SystemExit(f"{name}: error: {WAYS_OUT[error.errno].format(where)}") from error

    return main


def help_text(name: str, description: str) -> str:
    """What a stage does, how it starts, and its settings as they stand in params.yaml."""
    import yaml

    settings = yaml.safe_dump({name: load_section(name)}, sort_keys=False, allow_unicode=True)
    variants = variants_of(load_section(name))
    command = f"stages.{name}" if variants == [""] else f"stages.{name} @{variants[0]}"
    return (
        f"{description.strip()}\n\n"
        f"python -m {command}                     run it on params.yaml (what `dvc repro` does)\n"
        f"python -m {command} KEY=VALUE ...       try other settings; everything goes under runs/\n"
        f"python -m {command} -m KEY=A,B,C ...    try several, one after the other, with a table of results\n\n"
        f"Settings now (conf/{name}/default.yaml, then the model's and the domain's file):\n\n{settings}"
    )


def read_params() -> dict[str, Any]:
    """All of params.yaml. Raises ConfigError where it is missing, broken or no mapping."""
    import yaml

    if not PARAMS.exists():
        raise ConfigError(f"{PARAMS.name} is missing: run `python -m stages.compose`")
    try:
        params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{PARAMS.name}: broken YAML: {error}") from error
    if not isinstance(params, dict):
        raise ConfigError(f"{PARAMS.name}: expected a mapping of sections: run `python -m stages.compose`")
    return params


def load_section(name: str) -> dict[str, Any]:
    """One stage's section of params.yaml, and nothing else of it."""
    params = read_params()
    if not isinstance(params.get(name), dict):
        raise ConfigError(f"{PARAMS.name} has no section {name}: run `python -m stages.compose`")
    section: dict[str, Any] = params[name]
    return section


def with_variant(section: Mapping[str, Any], variant: str, name: str) -> dict[str, Any]:
    """The settings of one variant: the section's with the variant's over them, and its name as `variant`.

    Raises ConfigError where the section has variants and none of them is named, or the other way round.
    """
    from omegaconf import OmegaConf

    settings = dict(section)
    variants = settings.pop(VARIANTS, None)
    if variants is None and not variant:
        return settings
    if variant not in (variants or {}):
        choices = ", ".join(f"@{key}" for key in variants or {}) or "none"
        raise ConfigError(f"{name}: {'@' + variant if variant else 'no variant'} given; there are {choices}")
    merged = OmegaConf.merge(settings, variants[variant] or {}, {"variant": variant})
    return {str(key): value for key, value in OmegaConf.to_container(merged).items()}  # type: ignore[union-attr]


def variants_of(section: Mapping[str, Any]) -> list[str]:
    """The names of a section's variants; [""] where it has none."""
    return [str(key) for key in section[VARIANTS]] if VARIANTS in section else [""]


@dataclass
class Trial:
    """What Hydra calls with a composed configuration. An object of this module, so that launchers can send it to other
    processes, where __main__ is another module."""

    stage: str
    variant: str

    def __post_init__(self) -> None:
        self.__module__ = f"stages.{self.stage}"  # Hydra names the job after it

    def settings(self, config: Any) -> Any:
        """The stage's settings in `config`, an instance of its dataclass. Raises ConfigError."""
        from omegaconf import OmegaConf

        section: Any = OmegaConf.to_container(config[self.stage], resolve=True)
        return parse_section(self.module.Config, with_variant(section, self.variant, self.stage), self.stage)

    @property
    def module(self) -> Any:
        return importlib.import_module(f"stages.{self.stage}")

    def __call__(self, config: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        run, output = HydraConfig.get(), Path(HydraConfig.get().runtime.output_dir)
        if str(run.mode).endswith("MULTIRUN"):
            # By name: sweeps also evaluate, and core knows nothing of evaluation.
            return importlib.import_module("stages.sweeps.job").run_job(self, config, list(run.overrides.task), output)
        try:
            return self.module.run(self.settings(config), Workspace(outputs=output))
        except GroundtuneError as error:  # Hydra would show it as a crash
            raise SystemExit(f"{self.stage}: error: {error}") from error


def _is_sweep() -> bool:
    return bool({"-m", "--multirun"} & set(sys.argv))


def _run_trial(name: str, variant: str) -> None:
    import hydra

    if _is_sweep():
        importlib.import_module("stages.sweeps.side_by_side").register()
    trial = Trial(name, variant)
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(trial)()
