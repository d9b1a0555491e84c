"""Two workers on a Ray of this machine, and a cluster with a head of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from stages.core.engine import Engine, map_batches
from stages.core.errors import ConfigError, DataError
from stages.core.workspace import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_spec("ray"), reason="the extra ray is not installed")]

BATCHES = [[number, number + 1] for number in range(12)]


def _load_sum(folder: Path) -> Callable[[list[int]], int]:
    def add(batch: list[int]) -> int:
        (folder / f"{os.getpid()}").touch()
        time.sleep(0.3)
        return sum(batch)

    return add


def test_two_workers_share_the_batches(ray_here: Engine, tmp_path: Path) -> None:
    found = list(map_batches(ray_here, partial(_load_sum, tmp_path), BATCHES, "Adding"))
    assert sorted(found) == [(number, 2 * number + 1) for number in range(12)]
    assert len(list(tmp_path.iterdir())) == 2
    assert str(os.getpid()) not in {path.name for path in tmp_path.iterdir()}


def _load_refusal() -> Callable[[list[int]], int]:
    raise DataError("the weights are not there")


def test_an_error_of_ours_comes_through_as_it_is(ray_here: Engine) -> None:
    with pytest.raises(DataError, match=r"^the weights are not there$"):
        list(map_batches(ray_here, _load_refusal, BATCHES, "Adding"))


def _load_dying(folder: Path, num_deaths: int) -> Callable[[list[int]], int]:
    def die(batch: list[int]) -> int:
        deaths = len(list(folder.iterdir()))
        if batch[0] == 1 and deaths < num_deaths:
            (folder / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return sum(batch)

    return die


def test_a_worker_that_dies_is_replaced(ray_here: Engine, tmp_path: Path) -> None:
    found = map_batches(ray_here, partial(_load_dying, tmp_path, 1), BATCHES[:3], "Adding")
    assert sorted(found) == [(0, 1), (1, 3), (2, 5)]
    assert len(list(tmp_path.iterdir())) == 1


def test_one_that_keeps_dying_is_given_up(ray_here: Engine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a worker on Ray died 3 times"):
        list(map_batches(ray_here, partial(_load_dying, tmp_path, 100), BATCHES[:3], "Adding"))


def test_workers_that_fit_nowhere(ray_here: Engine, tmp_path: Path) -> None:
    many = Engine("ray", num_workers=2, num_gpus=1)
    with pytest.raises(ConfigError, match="2 workers of 1 CPUs and 1 GPUs, but there is room for 0"):
        list(map_batches(many, partial(_load_sum, tmp_path), BATCHES, "Adding"))


SCRIPT = """
import sys, time
from functools import partial
from pathlib import Path
from stages.core.engine import Engine, map_batches
from stages.core.errors import GroundtuneError
from stages.core.process import end_in_one_line

def add(batch):
    return sum(batch), [str(path) for path in map(Path, sys.path) if (path / "stages/core/engine.py").exists()]

def slow(batch):
    started.touch()
    time.sleep(600)

started = Path(sys.argv[-1])
end_in_one_line("probe")
engine = Engine("ray", **eval(sys.argv[1]))
function = slow if len(sys.argv) > 2 else add
try:
    for number, (total, folders) in sorted(map_batches(engine, lambda: function, [[1, 2], [3]], "Adding")):
        print(number, total, *folders)
except GroundtuneError as error:
    sys.exit(f"error: {error}")
"""


def probe(folder: Path, engine: str, *more: str) -> subprocess.Popen[str]:
    script = folder / "probe.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(script), engine, *more], env=environment, **pipes)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_behind_where_the_stage_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    started = tmp_path / "started"
    process = probe(tmp_path, "{}", str(started))
    while not started.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    family = [child for child in children if "Agent" not in child.name()]  # two that take minutes to say goodbye
    assert any("raylet" in child.name() for child in family)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if number == signal.SIGTERM:
        assert stderr.strip().endswith("probe: stopped by SIGTERM; just run it again")
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture
def port() -> int:
    from ports import free_port  # not above: the workers import this module, and do not know the folder tests/

    return free_port()


def test_a_cluster_gets_our_code(tmp_path: Path, port: int) -> None:
    address = f"127.0.0.1:{port}"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    place = ["--node-ip-address=127.0.0.1", f"--port={address.split(':')[1]}", "--include-dashboard=false"]
    with open(tmp_path / "head.log", "wb") as log:
        head = subprocess.Popen(
            [*command, *place, f"--temp-dir=/tmp/ray-{os.getpid()}"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "disabled")
            process = probe(tmp_path, repr({"address": address, "connect_timeout_s": 90}))
            stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        rows = [line.split() for line in stdout.splitlines()]
        assert [row[:2] for row in rows] == [["0", "3"], ["1", "3"]]
        assert all(any("py_modules_files" in folder for folder in row[2:]) for row in rows)
    finally:
        head.terminate()
        head.wait(timeout=60)


def test_a_cluster_that_does_not_answer(tmp_path: Path, port: int) -> None:
    process = probe(tmp_path, repr({"address": f"127.0.0.1:{port}", "connect_timeout_s": 3}))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "engine.address: no Ray cluster answers at 127.0.0.1:" in stderr
    assert "Traceback" not in stderr
