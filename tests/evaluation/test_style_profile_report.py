from __future__ import annotations

from pathlib import Path

from stages.evaluation.style_profile_report import LABELS, estimates, write_style_report
from stages.style.profile import StyleProfile

TEXTS = [f'I saw {"the sea and " * n}her. "Go," she said; we left.' for n in range(1, 9)]
METRICS = {"num_train": 8, "num_train_tokens": 160, "num_validation": 1, "warnings": ["few | examples"]}


def test_every_feature_has_a_label_and_an_interval() -> None:
    profile = StyleProfile.of(TEXTS, "en")
    assert set(profile.features) == set(LABELS)
    found = estimates(profile, seed=13)
    assert found["words_per_sentence"].n == 8
    assert all(e.low is not None and e.high is not None and e.low <= e.value <= e.high for e in found.values())


def test_table_and_picture_are_the_same_every_time(tmp_path: Path) -> None:
    profile = StyleProfile.of(TEXTS, "en")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_style_report(tmp_path / name / "style.md", "v_1", profile, "Be brief.", METRICS, seed=13)
    text, picture = ((tmp_path / "a" / f"style.{suffix}").read_bytes() for suffix in ("md", "png"))
    assert text == (tmp_path / "b/style.md").read_bytes()
    assert picture == (tmp_path / "b/style.png").read_bytes()
    assert b"# The style of v&#95;1" in text
    assert b"**Warning:** few &#124; examples" in text


def test_a_profile_without_text_still_has_a_report(tmp_path: Path) -> None:
    write_style_report(tmp_path / "style.md", "v", StyleProfile.of([], "en"), "Be.", METRICS, seed=13)
    assert (tmp_path / "style.png").exists()
