"""Where a stage may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import ConfigError
from stages.core.workspace import Workspace


@pytest.mark.parametrize("relative", ["../raw", ".", "", "data/../..", "/raw"])
def test_nothing_is_written_outside_of_the_outputs(tmp_path: Path, relative: str) -> None:
    (tmp_path / "outputs").mkdir()
    with pytest.raises(ConfigError, match="name a folder there"):
        Workspace(tmp_path, tmp_path / "outputs").write(relative)
    assert [path.name for path in tmp_path.rglob("*")] == ["outputs"]


def test_a_place_below_has_its_folder(tmp_path: Path) -> None:
    assert Workspace(tmp_path, tmp_path).write("data/demo/raw").parent.is_dir()
