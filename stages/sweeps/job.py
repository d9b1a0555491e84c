"""One job of a sweep: trains, evaluates on validation data, and leaves both results and how it ended.

    runs/<stage>/<sweep>/<job>/
        job.json      status (running, finished, failed, pruned), reason, overrides, seed, seconds; what it depends on
        scores.json   what was measured, question by question (sweeps.scoring)
        models/, reports/   what the stage wrote
        error.txt     the traceback of a job that failed

A job whose settings and inputs are those of a finished one is not run again. What it raises becomes its reason; only
an interruption gets through.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.core.atomic import write_json, write_text
from stages.core.config import parse_section
from stages.core.errors import GroundtuneError
from stages.core.fingerprint import fingerprint
from stages.core.process import die_with_parent, quiet_environment
from stages.core.progress import OBSERVERS
from stages.core.stage import Trial
from stages.core.workspace import ROOT
from stages.sweeps.job_file import FAILED, FINISHED, PRUNED, RUNNING, SCORES_FILE, held, read_job, write_job
from stages.sweeps.job_workspace import JobWorkspace, unchanged
from stages.sweeps.pruning import Pruned, observers_of
from stages.sweeps.scoring import SCORERS
from stages.sweeps.settings import Config
from stages.sweeps.side_by_side import take_gpu, visible_gpus
from stages.sweeps.table import write_progress


def run_job(trial: Trial, config: Any, overrides: Sequence[str], output: Path) -> str:
    """Runs the job in the folder `output` unless it is done; returns its status."""
    _set_up_process()
    settings, sweep = trial.settings(config), parse_section(Config, config["sweep"], "sweep")
    key = job_key(trial, settings, sweep)
    with held(output) as free:
        if free and not is_finished(output, key):  # else another sweep's process is at it
            note: dict[str, Any] = {"key": key, "overrides": list(overrides), "pid": os.getpid()}
            write_job(output, {**note, "status": RUNNING, "reason": ""})
            write_job(output, {**note, **_run(trial, settings, sweep, output)})
            _release_memory()
    write_progress(output.parent)
    return str(read_job(output).get("status", ""))


def job_key(trial: Trial, settings: Any, sweep: Config) -> str:
    """What a job's results depend on, but for its inputs."""
    measured = (sweep.num_questions, sweep.max_new_tokens, sweep.seed, sweep.num_resamples)
    return fingerprint(trial.stage, trial.variant, asdict(settings), measured)


def is_finished(output: Path, key: str) -> bool:
    """Whether a job with these settings has finished, on the inputs as they are now."""
    note = read_job(output)
    return note.get("status") == FINISHED and note["key"] == key and unchanged(ROOT, note["inputs"])


def _set_up_process() -> None:
    quiet_environment()
    take_gpu(visible_gpus())
    die_with_parent()  # a killed sweep leaves no trainer behind


def _run(trial: Trial, settings: Any, sweep: Config, output: Path) -> Mapping[str, Any]:
    workspace = JobWorkspace(ROOT, output)
    start = time.perf_counter()
    try:
        OBSERVERS[:] = observers_of(output, sweep.seed)
        trial.module.run(settings, workspace)
        trained = time.perf_counter()
        if scorer := SCORERS.get(trial.stage):
            write_json(output / SCORES_FILE, scorer.score(settings, sweep, workspace))
    except Pruned as error:
        return {"status": PRUNED, "reason": str(error)}
    except Exception as error:
        write_text(output / "error.txt", traceback.format_exc())
        return {"status": FAILED, "reason": _reason(error)}
    took = {"train_s": trained - start, "evaluate_s": time.perf_counter() - trained}
    seconds = {name: round(value, 2) for name, value in took.items()}
    return {"status": FINISHED, "reason": "", "inputs": workspace.inputs_sha256(), **seconds}


def _reason(error: Exception) -> str:
    """One line; what is not ours also by its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, GroundtuneError) else f"{type(error).__name__}: {text}"


def _release_memory() -> None:
    """The next job may come into this process. What is left by now are modules, not to be looked through again."""
    gc.collect()
    gc.freeze()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
