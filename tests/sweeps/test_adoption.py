"""A job's settings go into the file that decides about them, and nothing else of it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import ConfigError, DataError
from stages.serving import adopt_command
from stages.sweeps.adoption import AdoptableJob, changes_of, files_in_force, find_job, write_change

CONFIG = """\
defaults:
  - s: default   # the stage
  - model: tiny
  - domain: demo
  - override hydra/launcher: local
  - _self_
"""
STAGE = """\
# What the stage does.
seed: ${seed}
empty: null
lora: {r: 8, alpha: 24, modules: [q_proj, v_proj]}   # rank and alpha
training:
  learning_rate: 5e-5    # of the largest
variants:
  ce: {loss: {weight: 0}}
  hybrid: {}
"""
MODEL = "# @package _global_\n# A model.\nmodel: {name: tiny}\ns:\n  training: {learning_rate: 6e-3}\n"
DOMAIN = "# @package _global_\ndomain:\n  name: demo\ns: {lora: {r: 4}}\n"
CSV = """\
job,s.lora.r,s.lora.modules,s.training.learning_rate,seed,status,reason,loss,variant
"r=16",16,"[q_proj,k_proj]",0.001,2,finished,,0.5,
"r=32",32,"[q_proj,k_proj]",0.001,2,failed,no memory,,
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    texts = {"config": CONFIG, "s/default": STAGE, "model/tiny": MODEL, "domain/demo": DOMAIN, "domain/other": DOMAIN}
    for name, text in texts.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / f"{name}.yaml").write_text(text)
    return tmp_path / "conf"


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    (tmp_path / "reports/s").mkdir(parents=True)
    (tmp_path / "reports/s/mine.csv").write_text(CSV)
    return tmp_path / "reports"


def job(variant: str = "", **row: str) -> AdoptableJob:
    return AdoptableJob("j", "s", variant, {"job": "j", **row, "status": "finished"})


def test_each_setting_goes_where_it_is_decided(conf: Path, reports: Path) -> None:
    found = find_job(reports, "s", "mine", "r=16")
    files = files_in_force({"domain": "demo"}, conf)
    assert files == [conf / "s/default.yaml", conf / "model/tiny.yaml", conf / "domain/demo.yaml"]
    changes = changes_of(found, files, conf)
    assert [(str(c.file.relative_to(conf)), c.key, c.before, c.after) for c in changes] == [
        ("domain/demo.yaml", "s.lora.r", 4, 16),
        ("s/default.yaml", "s.lora.modules", ["q_proj", "v_proj"], ["q_proj", "k_proj"]),
        ("model/tiny.yaml", "s.training.learning_rate", 6e-3, 1e-3),
    ]
    for change in changes:
        write_change(change, conf)
    assert (conf / "domain/demo.yaml").read_text() == DOMAIN.replace("r: 4", "r: 16")
    assert (conf / "s/default.yaml").read_text() == STAGE.replace("[q_proj, v_proj]", "[q_proj, k_proj]")
    assert (conf / "model/tiny.yaml").read_text() == MODEL.replace("6e-3", "0.001")
    assert changes_of(found, files, conf) == []
    assert found.left_out == ["seed=2"]


def test_a_variant_gets_it_for_itself(conf: Path) -> None:
    files = files_in_force({}, conf)
    [change] = changes_of(job("hybrid", **{"s.lora.r": "16"}), files, conf)
    write_change(change, conf)
    assert (conf / "s/default.yaml").read_text() == STAGE.replace("hybrid: {}", "hybrid:\n    lora: {r: 16}")
    assert changes_of(job("hybrid", **{"s.lora.r": "16"}), files, conf) == []


def test_a_key_that_nobody_set_goes_to_the_stage(conf: Path) -> None:
    [change] = changes_of(job(**{"+s.training.patience": "2"}), files_in_force({}, conf), conf)
    write_change(change, conf)
    assert "learning_rate: 5e-5    # of the largest\n  patience: 2\n" in (conf / "s/default.yaml").read_text()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("s", "mine", "r=32"), r"r=32 is failed \(no memory\): only a finished job can be adopted"),
        (("s", "mine", "r=7"), "no job r=7; there is r=16, r=32"),
        (("s", "other", "r=7"), "no sweep s/other; there is s/mine"),
    ],
)
def test_what_cannot_be_adopted_is_refused(reports: Path, place: tuple[str, str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_job(reports, *place)


def test_a_configuration_that_does_not_compose_is_taken_back(conf: Path) -> None:
    def compose(overrides: list[str]) -> None:
        raise ConfigError("s.lora.r: too large")

    changes = changes_of(job(**{"s.lora.r": "16"}), files_in_force({}, conf), conf)
    monkeypatched: Any = pytest.MonkeyPatch()
    with monkeypatched.context() as patch, pytest.raises(ConfigError, match="too large"):
        patch.setattr("stages.sweeps.adoption.write_change.__defaults__", (conf,))
        adopt_command.write(changes, [], compose)
    assert (conf / "domain/demo.yaml").read_text() == DOMAIN


def test_a_sweep_for_another_domain_is_refused() -> None:
    params = {name: {"name": "demo"} for name in adopt_command.GROUPS}
    with pytest.raises(
        ConfigError, match=r"ran with domain=tutor, params.yaml has demo: run `python -m stages.compose"
    ):
        adopt_command._check_choices(job(domain="tutor"), params)
    adopt_command._check_choices(job(domain="demo"), params)


def test_the_list_has_each_winner_and_its_verdict(reports: Path) -> None:
    page = (
        "# s: mine\n\nBest by validation loss: **r 16**, 0.5. Not to be told from the best: 0.\n\n| 1 | 16 | `r=16` |\n"
    )
    (reports / "s/mine.md").write_text(page)
    assert adopt_command.list_sweeps(reports) == ["s/mine/r=16", "    Best by validation loss: r 16, 0.5."]


def test_a_place_needs_three_parts() -> None:
    with pytest.raises(ConfigError, match="STAGE/SWEEP/JOB"):
        adopt_command._parts("s/mine")
