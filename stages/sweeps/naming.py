"""Names that the same command always gives: of a sweep's folder, and of its jobs.

sweep_name(...)  ->  "r-alpha-3f2a91", "rank_alpha" (of a preset), "hybrid-weight-kind-0c19ab" (of a variant)
job_names([{"train_rag_lora.lora.r": "4", "train_rag_lora.lora.alpha": "8"}, ...])  ->  ["r=4,alpha=8", ...]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from stages.core.fingerprint import fingerprint

MAX_CHARS = 80
NO_SETTING = ("sweep.", "+sweep=", "sweep=", "hydra.", "hydra/")  # overrides of the sweep itself


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value of a job's overrides, without those that set up the sweep. A leading + or ++ is kept."""
    taken = (item for item in overrides if not item.startswith(NO_SETTING))
    return {key: value for key, _, value in (item.partition("=") for item in taken)}


def varied_keys(jobs: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that have more than one value among the jobs, in order."""
    keys = dict.fromkeys(key for job in jobs for key in job)
    return [key for key in keys if len({job.get(key) for job in jobs}) > 1]


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Key -> its last part, or as many parts as tell it apart from the others."""
    short: dict[str, str] = {}
    for key in keys:
        parts = re.split(r"[./]", key.lstrip("+~"))
        tails = (".".join(parts[-num:]) for num in range(1, len(parts) + 1))
        others = [other for other in keys if other != key]
        short[key] = next((tail for tail in tails if not any(o.endswith(f".{tail}") for o in others)), ".".join(parts))
    return short


def job_names(jobs: Sequence[Mapping[str, str]]) -> list[str]:
    """A folder name for each job, from what it does otherwise than the others."""
    short = short_keys(varied_keys(jobs))
    names = [",".join(f"{name}={job[key]}" for key, name in short.items() if key in job) or "job" for job in jobs]
    plain = [re.sub(r"[^A-Za-z0-9_.=,+-]+", "", name.replace(",", "+") if "[" in name else name) for name in names]
    return [
        name
        if len(name) <= MAX_CHARS and plain.count(name) == 1
        else f"{name[:MAX_CHARS]}-{fingerprint(dict(job))[:6]}"
        for name, job in zip(plain, jobs, strict=True)
    ]


def sweep_name(given: str, preset: str, variant: str, jobs: Sequence[Mapping[str, str]], extra: Sequence[str]) -> str:
    """given: by the user, taken as it is. extra: what was typed beside a preset; nothing: the preset's name will do."""
    if given:
        return given
    parts = [variant] if variant else []
    if preset:
        parts.append(preset)
    else:
        parts += list(short_keys(varied_keys(jobs)).values()) or ["one"]
    if extra or not preset:
        parts.append(fingerprint([sorted(job.items()) for job in jobs])[:6])
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", "-".join(parts))[:MAX_CHARS]
