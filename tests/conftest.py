"""What all tests share: slow tests only when asked for, and the places of real data where there is any."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port, wait_until_up

from stages.core.engine import Engine

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out the slow tests")


def pytest_configure() -> None:
    """Ctrl-C is heard by what the tests start, also where a shell started them in the background and has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and config.getoption("--fast"):
            item.add_marker(pytest.mark.skip(reason="slow: left out by --fast"))
        if "gpu" in item.keywords and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real documents, Q&A and books beside a checkout; a user does not have them."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.exists():
        pytest.skip("no folder of real data beside this checkout")
    return folder


@pytest.fixture
def transformers_serve(tmp_path: Path) -> Iterator[Callable[[Path], tuple[str, subprocess.Popen[bytes]]]]:
    """Starts `transformers serve`, a real OpenAI-compatible server, for a model folder: its base URL and process."""
    if missing := [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"transformers[serving] is not installed: no {', '.join(missing)}")
    processes = []

    def serve(model: Path) -> tuple[str, subprocess.Popen[bytes]]:
        port = free_port()
        (tmp_path / "hf" / "hub").mkdir(parents=True)
        environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
        command = [Path(sys.executable).with_name("transformers"), "serve", model, "--port", str(port)]
        with open(tmp_path / "serve.log", "wb") as log:
            process = subprocess.Popen([*map(str, command), "--device", "cpu"], env=environment, stdout=log, stderr=log)
        processes.append(process)
        wait_until_up(f"http://127.0.0.1:{port}/health", process, tmp_path / "serve.log")
        return f"http://127.0.0.1:{port}/v1", process

    yield serve
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Engine]:
    """An engine of two workers on a Ray that a module's tests share, as it takes seconds to start.

    It ends with the module: others kill, or count, the children of this process.
    """
    if not importlib.util.find_spec("ray"):
        pytest.skip("the extra ray is not installed")
    from stages.core.ray_engine import connected

    engine = Engine("ray", num_workers=2)
    with connected(engine):
        yield engine
