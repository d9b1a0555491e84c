"""A search instead of a grid: Optuna proposes the next jobs from the scores of those before, and ends hopeless ones.

runs/<stage>/<sweep>/study.journal    Optuna's own record; the same command goes on from it
runs/<stage>/<sweep>/trial-007/trial.json    which trial of it this job is
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.core.atomic import write_json
from stages.core.errors import ConfigError
from stages.core.stage import Trial
from stages.sweeps.job_file import FINISHED, PRUNED, read_job
from stages.sweeps.metrics import METRICS
from stages.sweeps.pruning import TRIAL_FILE, open_study
from stages.sweeps.results import Job
from stages.sweeps.side_by_side import num_side_by_side
from stages.sweeps.sweeping import Launcher, Sweep, reported

if TYPE_CHECKING:
    import optuna


def run_search(trial: Trial, config: Any, config_loader: Any, launcher: Launcher, overrides: Sequence[Any]) -> None:
    """overrides: parsed; those that are sweeps span the space, the others hold for all jobs.

    Exits like run_grid. Raises ConfigError where there is nothing to search, or nothing to go by.
    """
    fixed = [one.input_line for one in overrides if not one.is_sweep_override()]
    spanned = [one for one in overrides if one.is_sweep_override()]
    space = {one.get_key_element(): distribution(one) for one in spanned}
    whole = [*fixed, *(one.input_line for one in spanned)]
    sweep = Sweep.of(trial, config, config_loader, launcher, [whole, fixed])  # it is named after what differs
    if not space or not sweep.plan.metric:
        raise ConfigError("a search needs a setting to vary, such as KEY=interval(1e-4,1e-2), and a stage that trains")
    with sweep, reported(sweep):
        Search(sweep, space, fixed, _num_at_once(config)).run()


def _num_at_once(config: Any) -> int:
    """As many as the launcher runs side by side: to ask for more would be to ask before the last ones have told."""
    launcher = config.hydra.launcher
    if "BasicLauncher" in launcher._target_:
        return 1
    given = next((int(launcher[key]) for key in ("n_jobs", "array_parallelism") if key in launcher), 0)
    return given if given > 0 else num_side_by_side(config)


class Search:
    """Asks for jobs, runs them, tells their scores, until there are as many trials as are wanted."""

    def __init__(self, sweep: Sweep, space: dict[str, Any], fixed: list[str], num_at_once: int) -> None:
        self.sweep, self.space, self.fixed, self.num_at_once = sweep, space, fixed, num_at_once
        self.study = open_study(sweep.folder, sweep.settings.seed)

    def run(self) -> None:
        self._take_up()
        while (missing := self.sweep.settings.num_trials - len(self._done())) > 0:
            trials = [self.study.ask(self.space) for _ in range(min(missing, self.num_at_once))]
            self._run([one.number for one in trials])

    def _done(self) -> list[Any]:
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))

    def _take_up(self) -> None:
        """Trials whose sweep was killed run first: they are in the journal, and perhaps in a checkpoint."""
        from optuna.trial import TrialState

        past = self.study.get_trials(deepcopy=False)
        ended = [one.number for one in past if one.state != TrialState.RUNNING]
        self.sweep.plan.jobs |= {_name(n): self._settings(past[n].params) for n in ended}
        open_ones = [one.number for one in past if one.state == TrialState.RUNNING]
        if open_ones:
            self._run(open_ones)

    def _run(self, numbers: Sequence[int]) -> None:
        from optuna.trial import TrialState

        trials = [self.study.trials[number] for number in numbers]
        for trial in trials:
            write_json(self.sweep.folder / _name(trial.number) / TRIAL_FILE, {"trial_id": trial._trial_id})
        names = [_name(trial.number) for trial in trials]
        jobs = [[*self.fixed, *(f"{k}={v}" for k, v in self._settings(trial.params).items())] for trial in trials]
        self.sweep.run(jobs, names)
        for trial, name in zip(trials, names, strict=True):
            job = Job(self.sweep.folder / name, {}, read_job(self.sweep.folder / name))
            if job.status == FINISHED:
                self.study.tell(trial.number, self._told(job))
            else:
                self.study.tell(trial.number, state=TrialState.PRUNED if job.status == PRUNED else TrialState.FAIL)

    def _told(self, job: Job) -> float:
        """A job's score, the smaller the better."""
        metric = self.sweep.plan.metric
        value = float(job.measured["metrics"][metric]["value"])
        return value if METRICS[metric].lower_is_better else -value

    def _settings(self, params: dict[str, Any]) -> dict[str, str]:
        return {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in params.items()}


def distribution(override: Any) -> optuna.distributions.BaseDistribution:
    """Optuna's distribution of one of Hydra's sweeps: A,B,C or choice(), range(), interval(), and tag(log, ...)."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    swept = override.value()
    if override.is_choice_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if override.is_interval_sweep():
        if isinstance(swept.start, int) and isinstance(swept.end, int):
            return IntDistribution(swept.start, swept.end, log="log" in swept.tags)
        return FloatDistribution(float(swept.start), float(swept.end), log="log" in swept.tags)
    if override.is_range_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    raise ConfigError(f"{override.input_line}: a search takes A,B,C, choice(...), range(...) or interval(...)")


def _name(number: int) -> str:
    return f"trial-{number:03d}"
