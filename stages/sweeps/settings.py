"""The section `sweep` of the configuration: what is measured of every job, and what one chooses by."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from stages.core.schema import one_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=+-]*")


@dataclass
class Config:
    """Mirrors `sweep` in conf/config.yaml.

    name: of the folder of results; "": made from the overrides. choose_by: stage -> metric (sweeps.scoring says which
    there are, and which way is better). num_questions: so many validation questions or pairs; 0: all.
    job_memory_gb: what one job needs, so that no more run side by side than fit; 0: not known. search: grid, all
    combinations, or optuna, which proposes num_trials of them.
    """

    name: str = ""
    seed: int = MISSING
    choose_by: dict[str, str] = field(default_factory=dict)
    num_questions: int = 0
    max_new_tokens: int = MISSING
    batch_size: int = MISSING
    num_threads: int = 0
    num_resamples: int = MISSING
    job_memory_gb: float = 0.0
    search: str = "grid"
    num_trials: int = MISSING

    def __post_init__(self) -> None:
        one_of(self.search, ("grid", "optuna"), "search")
        if self.name and not NAME.fullmatch(self.name):
            raise ValueError(f"name: {self.name!r} is not a name for a folder: letters, digits, . _ = + -")
        if min(self.num_questions, self.num_threads, self.job_memory_gb) < 0:
            raise ValueError("num_questions, num_threads and job_memory_gb must not be negative")
        if min(self.max_new_tokens, self.batch_size, self.num_trials) < 1:
            raise ValueError("max_new_tokens, batch_size and num_trials must be at least 1")
        if self.num_resamples < 100:
            raise ValueError(f"num_resamples: {self.num_resamples} are too few for a 95 % interval; give at least 100")
