"""A search's record, and how it ends a training that is not worth going on with.

The sampler is TPE (Bergstra et al., 2011), the pruner the median rule: a training whose best evaluation loss so far is
worse than the median of earlier trials at the same step is ended (Golovin et al., 2017, 3.2). It applies where a job is
one training in its own process; a stage that trains several seeds runs them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"
TRIAL_FILE = "trial.json"
NUM_STARTUP = 5  # trials that are drawn at random and never pruned: the median needs something to stand on


class Pruned(Exception):  # noqa: N818  # no error: a decision
    """Raised out of a training that is not worth going on with."""


def open_study(folder: Path, seed: int) -> optuna.Study:
    """The study of a sweep's folder; made where there is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        study_name="sweep",
        load_if_exists=True,
        direction="minimize",  # as the evaluation loss that pruning goes by; see Search
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=NUM_STARTUP, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=NUM_STARTUP),
    )


def observers_of(job: Path, seed: int) -> list[Callable[[int, float], None]]:
    """What to call with step and evaluation loss in a job of a search; nothing in one of a grid."""
    path = job / TRIAL_FILE
    if not path.exists():
        return []
    import optuna

    trial_id = json.loads(path.read_text(encoding="utf-8"))["trial_id"]
    trial = optuna.trial.Trial(open_study(job.parent, seed), trial_id)

    def observe(step: int, loss: float) -> None:
        trial.report(loss, step)
        if trial.should_prune():
            raise Pruned(f"evaluation loss {loss:.4g} at step {step} is worse than the median of the trials before")

    return [observe]
