"""A sweep from its jobs to its report: checks all of them first, runs what is not finished, and goes on after failures.

The same command finds the same folder and runs what is missing. A sweep holds its folder: the same one cannot run
twice at once, different ones can. What stays when everything is killed is taken up by the next run of the command.
"""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError, GroundtuneError
from stages.core.stage import Trial
from stages.core.workspace import ROOT
from stages.evaluation.markdown import estimate
from stages.sweeps.job import is_finished, job_key
from stages.sweeps.job_file import FINISHED, PRUNED, forget, held, mark_dead, read_job
from stages.sweeps.naming import job_names, settings_of, sweep_name
from stages.sweeps.results import Plan, SweepResults
from stages.sweeps.scoring import SCORERS
from stages.sweeps.settings import Config
from stages.sweeps.table import REPORTS, write_report

PLACEHOLDER = "stage."  # in the keys of a preset: the stage that is swept
DIED = "its process died"

Launcher = Callable[[str], Any]  # from the folder of a sweep to one of Hydra's launchers

log = logging.getLogger(__name__)


@dataclass
class Sweep(AbstractContextManager["Sweep"]):
    """One sweep, held while the block runs. config: the multirun's, as Hydra composed it; launcher: Hydra's.

    Raises DataError where it is running already, ConfigError where a job's settings do not fit.
    """

    trial: Trial
    config: Any
    config_loader: Any
    launcher: Any
    folder: Path
    settings: Config
    plan: Plan
    keys: dict[str, str] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(
        cls, trial: Trial, config: Any, config_loader: Any, launcher: Launcher, jobs: Sequence[Sequence[str]]
    ) -> Sweep:
        """jobs: the overrides of each; of a search, those that all have."""
        settings = parse_section(Config, config.sweep, "sweep")
        folder = _folder(trial, config, settings, jobs)
        metric = chosen_metric(trial.stage, settings)
        plan = Plan(
            trial.stage, trial.variant, metric, settings.seed, settings.num_resamples, _command(trial, config.hydra)
        )
        return cls(trial, config, config_loader, launcher(str(folder)), folder, settings, plan)

    def __enter__(self) -> Sweep:
        if not self._stack.enter_context(held(self.folder)):
            raise DataError(
                f"{_shown(self.folder)}: this sweep is running already; wait for it, or give sweep.name=..."
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, jobs: Sequence[Sequence[str]], names: Sequence[str]) -> None:
        """Checks all, then runs those that are not finished. Raises ConfigError before any of them has begun."""
        checked = {name: self._checked(overrides) for name, overrides in zip(names, jobs, strict=True)}
        self.keys |= checked
        self.plan.jobs |= {name: settings_of(overrides) for name, overrides in zip(names, jobs, strict=True)}
        self.plan.write(self.folder)
        for name in names:
            mark_dead(self.folder / name, DIED)
        pending = {name: job for name, job in zip(names, jobs, strict=True) if not self._is_done(name)}
        for name in pending:
            forget(self.folder / name)
        if len(pending) < len(jobs):
            log.info(f"{len(jobs) - len(pending)} of {len(jobs)} jobs are finished already")
        while pending:
            error = self._launch(pending)
            if error is None:
                return
            pending = self._without_the_lost(pending, error)

    def _is_done(self, name: str) -> bool:
        return is_finished(self.folder / name, self.keys[name])

    def _checked(self, overrides: Sequence[str]) -> str:
        """The job's key. Hydra's own check knows nothing of the stage's settings."""
        from hydra.errors import HydraException

        try:
            config = self.config_loader.load_sweep_config(self.config, list(overrides))
        except HydraException as error:
            raise ConfigError(
                " ".join(str(error).splitlines()[:1] + str(error.__cause__ or "").splitlines()[:1])
            ) from error
        return job_key(self.trial, self.trial.settings(config), self.settings)

    def _launch(self, jobs: dict[str, Sequence[str]]) -> Exception | None:
        """Runs the jobs; an exception is the launcher's own, such as a worker that was killed: jobs raise nothing."""
        place = f"hydra.sweep.dir='{self.folder}'"
        all_overrides = [[*job, place, f"hydra.sweep.subdir='{name}'"] for name, job in jobs.items()]
        try:
            self.launcher.launch(all_overrides, initial_job_idx=0)
        except Exception as error:
            return error
        return None

    def _without_the_lost(self, jobs: dict[str, Sequence[str]], error: Exception) -> dict[str, Sequence[str]]:
        """What is left to run after the launcher broke. A job whose process died is run once more, alone, so that
        jobs which only had no room beside each other get through; if it dies again, it stays a killed one.

        Raises DataError where the launcher cannot start jobs at all, or runs them elsewhere, out of our sight.
        """
        lost = [name for name in jobs if mark_dead(self.folder / name, DIED)]
        begun = [name for name in jobs if read_job(self.folder / name)]
        if type(self.launcher).__name__ != "JoblibLauncher" or not begun:
            raise DataError(
                f"{type(self.launcher).__name__}: {' '.join(str(error).split())}; what is finished is kept, the same "
                "command goes on"
            ) from error
        for name in lost:
            log.info(f"{name}: {DIED}; once more, alone")
            if (again := self._launch({name: jobs[name]})) is not None:
                mark_dead(self.folder / name, f"{DIED} twice: {_signal(again)}")
        return {name: job for name, job in jobs.items() if name not in begun}

    def report(self) -> SweepResults:
        """Writes the report and says where it is."""
        results = write_report(self.folder)
        path = _shown(REPORTS / self.plan.stage / f"{self.folder.name}.md")
        counts = Counter(job.status for job in results.jobs)
        print(f"{', '.join(f'{num} {status}' for status, num in counts.most_common())}: {path}")
        if results.configurations:
            best = results.configurations[0]
            print(f"best by {self.plan.metric}: {results.label(best)}, {estimate(best.estimate, 3)}")
            print(f"groundtune adopt {self.plan.stage}/{self.folder.name}/{best.jobs[0].folder.name}")
        return results


def run_grid(trial: Trial, config: Any, config_loader: Any, launcher: Launcher, jobs: Sequence[Sequence[str]]) -> None:
    """All combinations. Exits with code 1 where a job did not finish, 130 where somebody interrupts."""
    with Sweep.of(trial, config, config_loader, launcher, jobs) as sweep, reported(sweep):
        sweep.run(jobs, job_names([settings_of(job) for job in jobs]))


@contextmanager
def reported(sweep: Sweep) -> Iterator[None]:
    """Writes the report however the block ends, once a job has begun; then sets the exit code."""
    try:
        yield
    except KeyboardInterrupt:
        _finish(sweep, "interrupted")
        raise SystemExit(130) from None
    except GroundtuneError:
        if sweep.plan.jobs:  # else nothing has begun
            _finish(sweep, DIED)
        raise
    if any(job.status not in (FINISHED, PRUNED) for job in _finish(sweep, DIED).jobs):
        raise SystemExit(1)


def _finish(sweep: Sweep, reason: str) -> SweepResults:
    for name in sweep.plan.jobs:
        mark_dead(sweep.folder / name, reason)
    return sweep.report()


@contextmanager
def messages(stage: str) -> Iterator[None]:
    """Turns our errors into one message: Hydra would show a traceback."""
    try:
        yield
    except GroundtuneError as error:
        raise SystemExit(f"{stage}: error: {error}") from error


def chosen_metric(stage: str, settings: Config) -> str:
    """What a stage's jobs are chosen by; "" for one that trains nothing. Raises ConfigError."""
    if stage not in SCORERS:
        return ""
    known = SCORERS[stage].metrics
    metric = settings.choose_by.get(stage, known[0])
    if metric not in known:
        raise ConfigError(f"sweep.choose_by.{stage}: {metric!r} is not one of {', '.join(known)}")
    return metric


def preset_overrides(params: Any, stage: str) -> list[str]:
    """The overrides of a preset (hydra.sweeper.params), for this stage."""
    return [f"{_key(str(key), stage)}={value}" for key, value in (params or {}).items()]


def _key(key: str, stage: str) -> str:
    return f"{stage}.{key.removeprefix(PLACEHOLDER)}" if key.startswith(PLACEHOLDER) else key


def _folder(trial: Trial, config: Any, settings: Config, jobs: Sequence[Sequence[str]]) -> Path:
    """Where the sweep lives: what the user says in hydra.sweep.dir, or a place made from the overrides."""
    if any(item.startswith("hydra.sweep.dir=") for item in config.hydra.overrides.hydra):
        return (ROOT / str(config.hydra.sweep.dir)).resolve()
    preset = str(config.hydra.runtime.choices.get("sweep") or "")
    typed = [item for item in config.hydra.overrides.task if settings_of([item])]
    found = [settings_of(job) for job in jobs]
    return ROOT / "runs" / trial.stage / sweep_name(settings.name, preset, trial.variant, found, typed)


def _command(trial: Trial, hydra: Any) -> str:
    """What was typed, for the report."""
    typed = [item for item in hydra.overrides.hydra if not item.startswith("hydra.mode=")]
    words = [f"stages.{trial.stage}", *([f"@{trial.variant}"] if trial.variant else []), "-m"]
    return f"python -m {shlex.join([*words, *hydra.overrides.task, *typed])}"


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _signal(error: Exception) -> str:
    """The line of loky's long explanation that says how a worker ended."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "SIG" in line or "EXIT" in line), lines[0] if lines else "")
