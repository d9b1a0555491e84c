"""A sweep on a Ray cluster: a head and a worker in two processes, each in a checkout of its own, one shared folder.

On one machine Ray lets the worker import from the driver's folder first, which a node elsewhere does not have: so this
does not show whose inputs a job read.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.conftest import command, copy_checkout

pytest.importorskip("ray", reason="the extra ray is not installed")
pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra ray is not installed")
pytestmark = pytest.mark.slow

GCS = "127.0.0.1:6389"
START = [
    "ray.scripts.scripts",
    "start",
    "--block",
    "--num-cpus=1",
    "--object-store-memory=80000000",
    "--disable-usage-stats",
]


def node(checkout: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A Ray node started in a checkout: its jobs run that checkout's code, on that checkout's inputs."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    log = open(checkout / "ray.log", "wb")  # noqa: SIM115
    return subprocess.Popen(
        [sys.executable, "-m", *START, *arguments], cwd=checkout, env=environment, stdout=log, stderr=log
    )


@pytest.fixture
def checkouts(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    head, worker = copy_checkout(tmp_path / "head"), copy_checkout(tmp_path / "worker")
    nodes = [node(head, "--head", "--port=6389", "--include-dashboard=false")]
    time.sleep(10)
    nodes.append(node(worker, f"--address={GCS}"))
    time.sleep(10)
    try:
        yield head, worker
    finally:
        for process in reversed(nodes):
            process.terminate()
        for process in nodes:
            process.wait(timeout=60)


def test_a_cluster_runs_the_jobs_into_the_shared_folder(checkouts: tuple[Path, Path], tmp_path: Path) -> None:
    head, _ = checkouts
    overrides = ["probe.value=1,2", "probe.seconds=20", "hydra/launcher=ray_cluster"]
    place = [f"hydra.sweep.dir={tmp_path}/shared", f"hydra.launcher.ray.init.address={GCS}"]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(*overrides, *place), cwd=head, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((head / "reports/sweeps/probe/shared.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["finished"] * 2
    assert [row["square"] for row in rows] == ["1", "4"]
    assert sorted(path.parent.name for path in (tmp_path / "shared").glob("*/job.json")) == ["value=1", "value=2"]
