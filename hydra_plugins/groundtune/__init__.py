"""The sweepers of groundtune, where Hydra looks for plugins; what they do is in stages.sweeps.

Light: Hydra imports every plugin at every start.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper

EXTRAS = {"hydra_submitit_launcher": "slurm", "hydra_ray_launcher": "ray"}  # package -> extra that installs it
RAY_ADDRESS = "hydra.launcher.ray.init.address"


def _launcher(sweeper: Any, folder: str) -> Any:
    """The configured launcher, for jobs below `folder`. Exits with a message where it is not installed.

    Raises ConfigError where its Ray cluster is not there.
    """
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf, open_dict, read_write

    from stages.core.ray_cluster import require_cluster

    config = sweeper.config
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = folder
    parts = {"hydra_context": sweeper.hydra_context, "task_function": sweeper.trial, "config": config}
    try:
        launcher = Plugins.instance().instantiate_launcher(**parts)
    except (ImportError, RuntimeError) as error:
        target = str(config.hydra.launcher.get("_target_", ""))
        extra = next((extra for package, extra in EXTRAS.items() if package in target), "")
        hint = f"; install it with `pip install 'groundtune[{extra}]'`" if extra else ""
        raise SystemExit(f"{sweeper.trial.stage}: error: {target} is not installed{hint}") from error
    address = OmegaConf.select(config, RAY_ADDRESS)
    if address not in (None, "local"):
        require_cluster(address, RAY_ADDRESS)
    return launcher


class GroundtuneSweeper(Sweeper):  # type: ignore[misc]  # hydra ships without types
    """Takes the command line apart as Hydra's own sweeper does; stages.sweeps runs the jobs."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}
        self.hydra_context: Any = None
        self.config: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.trial, self.hydra_context, self.config = task_function, hydra_context, config

    def sweep(self, arguments: list[str]) -> None:
        from stages.sweeps.sweeping import messages, preset_overrides, run_grid

        loader = self.hydra_context.config_loader
        found = OverridesParser.create(config_loader=loader).parse_overrides(
            [*preset_overrides(self.params, self.trial.stage), *arguments]
        )
        overrides = list({one.get_key_element(): one for one in found}.values())  # of one key, the last counts
        parts = self.trial, self.config, loader, lambda folder: _launcher(self, folder)
        with messages(self.trial.stage):
            if self.config.sweep.search == "optuna":
                _search()(*parts, overrides)
            else:
                run_grid(*parts, _combinations(overrides))


def _combinations(overrides: list[Any]) -> list[list[str]]:
    from stages.core.errors import ConfigError

    try:
        return [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
    except HydraException as error:
        raise ConfigError(
            f"{error}; a grid takes A,B,C or range(); for an interval() give sweep.search=optuna"
        ) from error


def _search() -> Any:
    from stages.core.errors import ConfigError

    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError("sweep.search=optuna needs `pip install 'groundtune[optuna]'`") from error
    from stages.sweeps.search import run_search

    return run_search
