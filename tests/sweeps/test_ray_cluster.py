"""Sweeps on Ray: started here, and on a cluster of a head and a worker, two processes with a checkout each."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port

from tests.sweeps.conftest import command, copy_checkout

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra ray is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

START = ["--block", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}


def start_node(checkout: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """As conf/hydra/launcher/ray_cluster.yaml says: from its checkout, with that on the path."""
    with open(checkout / "ray.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *START, *arguments],
            cwd=checkout,
            env={**ENVIRONMENT, "PYTHONPATH": str(checkout)},
            stdout=log,
            stderr=log,
        )


def wait_for_nodes(address: str, num: int) -> None:
    count = f"import ray; ray.init('{address}', logging_level='ERROR'); print(sum(n['Alive'] for n in ray.nodes()))"
    for _ in range(60):
        done = subprocess.run(
            [sys.executable, "-c", count], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        if done.stdout.strip() == str(num):
            return
        time.sleep(1)
    raise AssertionError(f"no {num} nodes at {address}: {done.stderr}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Its address, and the head's checkout; the input of `probe` is 3 characters long on the head, 8 on the worker."""
    head, worker = copy_checkout(tmp_path / "head"), copy_checkout(tmp_path / "worker")
    (worker / "data/probe.txt").write_text("abcdefgh")
    port = free_port()
    address = f"127.0.0.1:{port}"
    nodes = [start_node(head, "--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false")]
    try:
        wait_for_nodes(address, 1)
        nodes.append(start_node(worker, f"--address={address}"))
        wait_for_nodes(address, 2)
        yield address, head
    finally:
        for process in reversed(nodes):
            process.send_signal(signal.SIGTERM)
        for process in nodes:
            process.wait(timeout=60)


def test_jobs_run_on_every_node_from_its_own_checkout_into_the_shared_folder(
    cluster: tuple[str, Path], tmp_path: Path
) -> None:
    address, head = cluster
    shared = tmp_path / "shared"
    grid = ["probe.value=1,2", "probe.mood=well,fail", "probe.seconds=15", "hydra/launcher=ray_cluster"]
    place = [f"hydra.sweep.dir={shared}", f"hydra.launcher.ray.init.address={address}"]
    done = subprocess.run(
        command(*grid, *place), cwd=head, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 1, done.stderr
    rows = list(csv.DictReader((head / "reports/sweeps/probe/shared.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["finished", "failed", "finished", "failed"], done.stderr
    assert [row["square"] for row in rows] == ["1", "", "4", ""]
    assert {row["length"] for row in rows} == {"3", "8", ""}  # of the head's input, and of the worker's
    notes = [json.loads(path.read_text()) for path in sorted(shared.glob("*/job.json"))]
    assert len({note["pid"] for note in notes}) > 1 and not list(head.glob("runs/*")) + list(
        tmp_path.glob("worker/runs")
    )


def test_ray_started_for_the_sweep(checkout: Path) -> None:
    grid = ["probe.value=1,2", "probe.mood=well,fail", "sweep.name=here", "hydra/launcher=ray"]
    done = subprocess.run(
        command(*grid), cwd=checkout, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    rows = list(csv.DictReader((checkout / "reports/sweeps/probe/here.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["finished", "failed", "finished", "failed"]
