"""The sweepers of groundtune, where Hydra looks for plugins; what they do is in stages.sweeps.

Light: Hydra imports every plugin at every start.
"""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper

EXTRAS = {"hydra_submitit_launcher": "slurm", "hydra_ray_launcher": "ray"}  # package -> extra that installs it


def _launcher(sweeper: Any, folder: str) -> Any:
    """The configured launcher, for jobs below `folder`. Exits with a message where it is not installed."""
    from hydra.core.plugins import Plugins
    from omegaconf import open_dict, read_write

    config = sweeper.config
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = folder
    parts = {"hydra_context": sweeper.hydra_context, "task_function": sweeper.trial, "config": config}
    try:
        return Plugins.instance().instantiate_launcher(**parts)
    except (ImportError, RuntimeError) as error:
        target = str(config.hydra.launcher.get("_target_", ""))
        extra = next((extra for package, extra in EXTRAS.items() if package in target), "")
        hint = f"; install it with `pip install 'groundtune[{extra}]'`" if extra else ""
        raise SystemExit(f"{sweeper.trial.stage}: error: {target} is not installed{hint}") from error


class GridSweeper(Sweeper):  # type: ignore[misc]  # hydra ships without types
    """All combinations, as Hydra's own sweeper takes them apart, run by stages.sweeps.sweeping."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.trial, self.hydra_context, self.config = task_function, hydra_context, config

    def sweep(self, arguments: list[str]) -> None:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from stages.sweeps.sweeping import preset_overrides, run_grid

        loader = self.hydra_context.config_loader
        overrides = [*preset_overrides(self.params, self.trial.stage), *arguments]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
        jobs = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        run_grid(self.trial, self.config, loader, lambda folder: _launcher(self, folder), jobs)
