"""Names that the same command always gives, and no two jobs share."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from stages.sweeps.naming import job_names, settings_of, sweep_name

GRID = [
    {"train_rag_lora.lora.r": r, "train_rag_lora.lora.alpha": a, "model": "tiny"}
    for r in ("4", "8")
    for a in ("8", "16")
]


def test_a_job_is_named_after_what_varies() -> None:
    assert job_names(GRID) == ["r=4,alpha=8", "r=4,alpha=16", "r=8,alpha=8", "r=8,alpha=16"]


def test_equal_last_parts_are_told_apart() -> None:
    jobs = [{"a.lora.r": "1", "b.lora.r": "1"}, {"a.lora.r": "2", "b.lora.r": "3"}]
    assert job_names(jobs) == ["a.lora.r=1,b.lora.r=1", "a.lora.r=2,b.lora.r=3"]


def test_lists_and_strange_characters_make_plain_names() -> None:
    jobs = [{"s.modules": "[q_proj,v_proj]"}, {"s.modules": "[q_proj]"}, {"s.modules": "a/../b c"}]
    assert job_names(jobs) == ["modules=q_proj+v_proj", "modules=q_proj", "modules=a..bc"]


def test_a_sweep_is_named_by_the_user_or_its_preset_or_its_overrides() -> None:
    assert sweep_name("mine", "rank_alpha", "hybrid", GRID, ["x=1"]) == "mine"
    assert sweep_name("", "rank_alpha", "", GRID, []) == "rank_alpha"
    assert sweep_name("", "rank_alpha", "hybrid", GRID, ["x=1"]).startswith("hybrid-rank_alpha-")
    name = sweep_name("", "", "", GRID, [])
    assert re.fullmatch(r"r-alpha-[0-9a-f]{6}", name)
    assert name == sweep_name("", "", "", GRID, []) != sweep_name("", "", "", GRID[:3], [])


def test_overrides_of_the_sweep_itself_are_no_settings() -> None:
    items = ["a.r=4", "+sweep=rank_alpha", "sweep.num_questions=3", "hydra.x=1", "hydra/launcher=ray", "+b.c={d:e=f}"]
    assert settings_of(items) == {"a.r": "4", "+b.c": "{d:e=f}"}


@given(
    st.lists(st.dictionaries(st.sampled_from(["a.x", "b.x", "c.y"]), st.text(max_size=120)), unique_by=str, max_size=6)
)
def test_names_are_folders_and_differ(jobs: list[dict[str, str]]) -> None:
    names = job_names(jobs)
    assert len(set(names)) == len(names)
    assert all(name and "/" not in name and name not in (".", "..") and len(name) < 100 for name in names)
