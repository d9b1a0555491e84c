"""dvc.lock and .dvc/tmp/rwlock after a kill: DVC writes them in place, and refuses what a kill left half written.

    python -m stages.core.lockfile                      what `make repro` does first; prints what it mended, or nothing
    python -m stages.core.lockfile --when-dvc-ends PID  what the first stage of a `dvc repro` leaves waiting behind it

A dvc.lock that is not whole becomes the last one in git, or goes where git has none; what was built since then comes
from DVC's run cache. The rwlock says who is at work on which path, and goes. DVC has no place for a hook, and takes
most of a second to write dvc.lock: hence the watcher, a small process that lives as long as the `dvc repro` it belongs
to, in a session of its own, so that what is sent to DVC's whole group leaves it alone. Only what ends both at once (the
power, a container) leaves the file to the next `make repro`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.core.atomic import write_bytes
from stages.core.workspace import ROOT

LOCK = "dvc.lock"
TMP = Path(".dvc", "tmp")


def is_whole(path: Path) -> bool:
    """Whether DVC would take the file."""
    import yaml
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where it is there: a second less
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(path.read_bytes(), Loader=loader))  # noqa: S506  # a safe one
    except (yaml.YAMLError, Invalid):
        return False
    return True


def mend(root: Path = ROOT) -> str:
    """Puts a whole dvc.lock, here and one folder below, where there is half of one, and removes half an rwlock.

    What was done, "" for nothing.
    """
    broken = [path for path in (*root.glob(LOCK), *root.glob(f"*/{LOCK}")) if not is_whole(path)]
    return "\n".join([*(_mend(path, root) for path in broken), *_mend_rwlock(root / TMP)])


def _mend_rwlock(tmp: Path) -> Iterator[str]:
    path = tmp / "rwlock"
    if not path.exists():
        return
    with _held(tmp / "rwlock.lock"):  # DVC's own, without which no other DVC is in the middle of writing
        try:
            json.loads(path.read_bytes())
        except ValueError:
            path.unlink()
            yield f"{path.relative_to(tmp.parents[1])} was half written when DVC was killed: removed"


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Waits for a lock of DVC's, and holds it."""
    import fcntl

    with open(lock, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _mend(path: Path, root: Path) -> str:
    name = path.relative_to(root)
    committed = subprocess.run(["git", "show", f"HEAD:./{name}"], cwd=root, capture_output=True, check=False)
    if committed.returncode == 0:
        write_bytes(path, committed.stdout)
        return f"{name} was half written when DVC was killed: restored from git"
    path.unlink()
    return f"{name} was half written when DVC was killed, and git has none: removed"


def leave_watcher() -> None:
    """Starts the watcher of the `dvc repro` that runs this stage; nothing where none does, or where it has one."""
    if "DVC_STAGE" not in os.environ or not sys.platform.startswith("linux"):
        return
    import fcntl

    root, dvc = Path(os.environ["DVC_ROOT"]), _running_dvc()
    if not (root / TMP).is_dir():
        return
    with open(root / TMP / f"watched-{dvc}", "w") as watched:
        try:
            fcntl.flock(watched, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the watcher inherits it
        except BlockingIOError:
            return
        subprocess.Popen(
            [sys.executable, "-m", "stages.core.lockfile", "--when-dvc-ends", str(dvc)],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe that DVC writes to ends with DVC
            stderr=subprocess.DEVNULL,
            pass_fds=[watched.fileno()],
            start_new_session=True,
        )


def _running_dvc() -> int:
    """The process that set DVC_STAGE for this one: its parent, or the parent of the shell between them."""
    import psutil

    stage, process = os.environ["DVC_STAGE"], psutil.Process()
    while process.environ().get("DVC_STAGE") == stage and (parent := process.parent()):
        process = parent
    return int(process.pid)


def watch(dvc: int, root: Path) -> None:
    """Waits for the end of DVC, then mends."""
    import psutil
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: F401  # before the end: it takes half a second

    with suppress(psutil.NoSuchProcess):
        psutil.Process(dvc).wait()
    # DVC's own lock: no other DVC is in the middle of writing, and one that starts now waits.
    with _held(root / TMP / "lock"):
        mend(root)
    (root / TMP / f"watched-{dvc}").unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--when-dvc-ends"]:
        watch(int(sys.argv[2]), Path.cwd())
    elif done := mend():
        print(done, file=sys.stderr)
