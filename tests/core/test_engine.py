"""Batches through a function, here; and what of a result is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.compose import compose
from stages.core.engine import Engine, map_batches
from stages.core.errors import ConfigError
from stages.core.kept_batches import KeptBatches


def load_sum() -> Callable[[list[int]], int]:
    return sum


def test_here_they_come_in_order_and_nothing_is_loaded_for_nothing() -> None:
    assert list(map_batches(Engine(), load_sum, [[1, 2], [3]], "Adding")) == [(0, 3), (1, 3)]
    assert list(map_batches(Engine(), lambda: pytest.fail("loaded"), [], "Adding")) == []
    assert list(map_batches(Engine("ray"), lambda: pytest.fail("loaded"), [], "Adding")) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "spark"}, "engine.kind: 'spark' is not one of local, ray"),
        ({"num_workers": 0}, "num_workers and num_cpus are at least 1"),
        ({"connect_timeout_s": 0}, "connect_timeout_s above 0"),
        ({"address": "auto"}, "engine.address: 'auto' is no host:port"),
        ({"address": "ray://head:10001"}, "is no host:port"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(**values)


def test_an_engine_is_chosen_for_all_stages_at_once() -> None:
    config = compose(["engine=ray", "engine.num_workers=3"])
    for stage in ("build_index", "build_pair_index", "generate_sft"):
        assert (config[stage].engine.kind, config[stage].engine.num_workers) == ("ray", 3)


def test_ray_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'groundtune\[ray\]'"):
        list(map_batches(Engine("ray"), load_sum, [[1]], "Adding"))


class Maker:
    """Makes [n, n] of a batch [n]; ends as a kill does at `fatal`."""

    def __init__(self, fatal: int = -1) -> None:
        self.made: list[int] = []
        self._fatal = fatal

    def __call__(self, batch: list[int]) -> np.ndarray:
        if batch[0] == self._fatal:
            raise KeyboardInterrupt
        self.made += batch
        return np.array(batch * 2, dtype=np.float32)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Callable[[str], KeptBatches]]:
    yield lambda maker: KeptBatches(tmp_path / "kept", Engine(), maker)


def test_what_is_done_is_not_done_again(kept: Callable[[str], KeptBatches], tmp_path: Path) -> None:
    killed, other = Maker(fatal=3), Maker()
    with pytest.raises(KeyboardInterrupt):
        kept("a").map(lambda: killed, [[1], [2], [3]])
    (tmp_path / "kept" / ".0.tmp-1.npy").write_bytes(b"torn")
    found = kept("a").map(lambda: other, [[3], [2], [1]])
    assert [array.tolist() for array in found] == [[3, 3], [2, 2], [1, 1]]
    assert (killed.made, other.made) == ([1, 2], [3])


def test_what_another_function_made_is_not_taken(kept: Callable[[str], KeptBatches]) -> None:
    first, second = Maker(), Maker()
    kept("a").map(lambda: first, [[1]])
    kept("b").map(lambda: second, [[1]])
    assert second.made == [1]
