"""The process that reads documents, under limits: what goes wrong in it costs the one file it is reading.

    python -m stages.documents.worker FD '{"cpu_s": 60, ...}'

Messages on FD are JSON, never pickles: a reader taken over by a file could not run anything in its parent.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stages.core.process import die_with_parent
from stages.documents.blocks import RejectedError
from stages.documents.formats import read_document
from stages.documents.limits import Limits


def main() -> None:
    """Reads files until the parent closes the connection."""
    die_with_parent()
    connection, limits = Connection(int(sys.argv[1])), Limits(**json.loads(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends its workers itself
    _preload()
    _confine(limits)
    while True:
        try:
            name = connection.recv_bytes()
        except EOFError:
            return
        _limit_cpu(limits.cpu_s)
        answer = _read(Path(os.fsdecode(name)), limits)
        connection.send_bytes(json.dumps(answer).encode("ascii"))
        if answer.get("reason") == "memory_limit":
            return  # libraries may be in any state after a failed allocation


def _read(path: Path, limits: Limits) -> dict[str, Any]:
    try:
        document = read_document(path, limits.max_chars)
    except RejectedError as error:
        return {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        return {"reason": "memory_limit", "detail": f"more than {limits.memory_bytes >> 20} MiB"}
    except OSError as error:
        return {"reason": "unreadable", "detail": error.strerror or str(error)}
    except Exception as error:  # a reader that a file has confused: that file's end, and never the folder's
        return {"reason": "broken", "detail": f"{type(error).__name__}: {error}"[:300]}
    blocks = [[b.kind, b.text, b.path, b.page, b.begin, b.end] for b in document.blocks]
    return {**asdict(document), "blocks": blocks}


def _preload() -> None:
    """Libraries are imported before the limits: under them they could not even write their .pyc files."""
    import charset_normalizer
    import lxml.etree
    import markdown_it
    import pypdfium2

    assert charset_normalizer and lxml.etree and markdown_it and pypdfium2


def _confine(limits: Limits) -> None:
    """No file written, no core dumped, few files open, so much memory and no more."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)


def _limit_cpu(seconds: int) -> None:
    """SIGXCPU ends this process when the next file has taken so many seconds of CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
