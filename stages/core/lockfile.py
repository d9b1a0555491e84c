"""dvc.lock after a kill: DVC writes it in place, so a kill at that moment leaves half of it, which DVC then refuses.

    python -m stages.core.lockfile      what `make repro` does first; nothing is printed where nothing was wrong

A dvc.lock that is not whole becomes the last one in git, or goes where git has none; what was built since then comes
from DVC's run cache.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stages.core.atomic import write_bytes
from stages.core.workspace import ROOT

LOCK = "dvc.lock"


def is_whole(path: Path) -> bool:
    """Whether DVC would take the file."""
    import yaml
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, Invalid):
        return False
    return True


def mend(root: Path = ROOT) -> str:
    """Puts a whole dvc.lock where there is half of one; what was done, "" for nothing."""
    path = root / LOCK
    if not path.exists() or is_whole(path):
        return ""
    committed = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], cwd=root, capture_output=True, check=False)
    if committed.returncode == 0:
        write_bytes(path, committed.stdout)
        return f"{LOCK} was half written when DVC was killed: restored from git"
    path.unlink()
    return f"{LOCK} was half written when DVC was killed, and git has none: removed"


if __name__ == "__main__":
    if done := mend():
        print(done, file=sys.stderr)
