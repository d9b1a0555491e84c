"""A read-only file stays as it is, for root too.

DVC links outputs to its cache (hard links, symbolic links: a 16 GB model lies on the disk once) and takes the right to
write away from them. A stage that writes into an input would write into the cache, and root, as which containers run,
may write into anything. So our processes refuse what the system would refuse to anybody else.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_TRUNC
WRITABLE = 0o222


def keep_read_only_files() -> None:
    """From here on, opening a read-only file for writing raises PermissionError, whoever we are.

    Python's own opening of files is held (open, os.open, os.truncate, SQLite where it may write); it lasts as long as
    the process. Source: PEP 578, audit hooks.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & WRITING:
            _check(path)
    elif event == "os.truncate" or (event == "sqlite3.connect" and not str(arguments[0]).startswith("file:")):
        _check(arguments[0])


def _check(path: Any) -> None:
    """Raises PermissionError where `path` is a file that nobody may write; an open descriptor was checked before."""
    try:
        mode = 0 if isinstance(path, int) else os.stat(path).st_mode  # noqa: PTH116  # a path in any form
    except (OSError, TypeError, ValueError):
        return
    if stat.S_ISREG(mode) and not mode & WRITABLE:
        raise PermissionError(errno.EACCES, "an input is read-only: write a new file instead", str(path))
