"""What all tests share: slow tests only when asked for, and the places of real data where there is any."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out the slow tests")


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
