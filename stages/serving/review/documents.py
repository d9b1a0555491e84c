"""JSON and YAML of both sides of a review, read once, with the file and the side in every error."""

from __future__ import annotations

import json
from typing import Any

from stages.core.dvc_lock import load_yaml
from stages.core.errors import DataError
from stages.serving.review.revisions import Revisions

SIDES = ("before", "after")


def read_both(revisions: Revisions, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mapping in a .json, .yaml or .lock file before and after; {} where the file is not there."""
    before = parse(revisions.before(path), f"{path} of {revisions.base.commit[:7]}")
    return before, parse(revisions.after(path), path)


def parse(data: bytes | None, name: str) -> dict[str, Any]:
    """Raises DataError naming the file where it is not what its name says."""
    import yaml

    if data is None:
        return {}
    try:
        found = json.loads(data) if ".json" in name else load_yaml(data)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{name}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise DataError(f"{name}: expected a mapping")
    return found
