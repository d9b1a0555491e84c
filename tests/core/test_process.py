"""How processes of ours end: in one line when asked to, with their parent, and never alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stages.core.errors import DataError
from stages.core.process import map_in_processes

ROOT = Path(__file__).resolve().parents[2]


def start(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_end_it_says_so_in_one_line(number: signal.Signals, code: int) -> None:
    process = start(
        "import time; from stages.core.process import end_in_one_line\n"
        "end_in_one_line('train_rag_lora')\n"
        "print('ready', flush=True)\n"
        "try: time.sleep(60)\n"
        "finally: print('unwound')"
    )
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    assert err == f"train_rag_lora: stopped by {number.name}; just run it again\n"


WORKERS = """
import time
from stages.core.process import end_in_one_line, map_in_processes, quiet_environment

def work(number):
    print("ready", flush=True) if number == 0 else None
    time.sleep(60)

if __name__ == "__main__":
    quiet_environment()
    end_in_one_line("stage")
    map_in_processes(work, [0, 1], 2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_it_and_say_nothing(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(WORKERS)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert len(err.splitlines()) == (0 if number == signal.SIGKILL else 1)
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def dies(number: int) -> int:
    if number == 1:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(DataError, match="a worker process was killed"):
        map_in_processes(dies, [0, 1, 2], 2)


def test_results_keep_their_order() -> None:
    assert map_in_processes(abs, [-3, 2, -1], 2) == [3, 2, 1]


def test_a_parent_that_died_before_the_call_is_noticed() -> None:
    code = (
        "import os; from stages.core.process import die_with_parent; die_with_parent(os.getppid() + 1); print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
