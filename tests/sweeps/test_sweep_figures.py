"""What a sweep's figure and table show, by how many settings vary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.core.atomic import write_json, write_text
from stages.sweeps import figures
from stages.sweeps.job_file import write_job
from stages.sweeps.naming import job_names
from stages.sweeps.results import Plan, SweepResults
from stages.sweeps.table import as_markdown

MODULES = [{"s.modules": f"[{','.join(names)}]"} for names in (["q"], ["q", "k"], ["q", "k", "v"])]
KINDS = [{"s.kind": kind, "s.weight": weight} for kind in ("mse", "crps") for weight in ("20", "5")]
SEARCH = [{"s.rate": rate, "s.r": "8", "s.alpha": alpha} for rate in ("0.1", "0.2") for alpha in ("8", "16")]


def results_of(folder: Path, jobs: Sequence[dict[str, str]]) -> SweepResults:
    """Jobs that are each worse than the one before, by 0.5 nats on each of eight questions."""
    names = job_names(jobs)
    Plan("s", "", "loss", 13, 200, "command", dict(zip(names, jobs, strict=True))).write(folder)
    ids = [f"q{n}" for n in range(8)]
    for rank, name in enumerate(names):
        nll = [1 + rank / 2 + (n - 3.5) / 100 for n in range(8)]
        scores = {"seeds": [1], "ids": ids, "groups": [[i] for i in ids], "columns": {"nll": [nll]}}
        found = {"scores": {**scores, "weights": [1.0] * 8, "truth": []}, "metrics": {"loss": {"value": nll[0]}}}
        write_json(folder / name / "scores.json", found)
        write_job(folder / name, {"status": "finished", "train_s": 1.0})
        write_text(folder / name / "reports/curve.csv", f"epoch,eval_loss\n1,{2 + rank}\n2,{1 + rank}\n")
    return SweepResults.read(folder)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The axes of a sweep's figure."""

    def draw(jobs: Sequence[dict[str, str]]) -> list[Any]:
        if not (tmp_path / "plan.json").exists():
            results_of(tmp_path, jobs)
        found: list[Any] = []
        monkeypatch.setattr(figures, "save_figure", lambda figure, path: found.extend(figure.axes))
        assert figures.draw(SweepResults.read(tmp_path), tmp_path / "sweep.png")
        return found

    return draw


def test_one_setting_is_ranked_with_every_value_named(drawn: Any) -> None:
    ranking, curves = drawn(MODULES)
    assert [tick.get_text() for tick in ranking.get_yticklabels()] == [
        "modules [q]",
        "modules [q, k]",
        "modules [q, k, v]",
    ]
    low, high = ranking.get_ylim()
    assert low > high  # the best on top
    legend = [text.get_text() for text in curves.get_legend().get_texts()]
    assert legend == ["modules [q]", "modules [q, k]", "modules [q, k, v]"]


def test_two_settings_make_a_map_whether_they_are_numbers_or_words(drawn: Any) -> None:
    heat_map, _ = drawn(KINDS)
    assert [tick.get_text() for tick in heat_map.get_xticklabels()] == ["mse", "crps"]
    assert [tick.get_text() for tick in heat_map.get_yticklabels()] == ["5", "20"]
    shown = {text.get_position(): (text.get_text(), text.get_weight()) for text in heat_map.texts}
    assert shown == {
        (0, 1): ("1", "bold"),
        (0, 0): ("1.5", "normal"),
        (1, 1): ("2", "normal"),
        (1, 0): ("2.5", "normal"),
    }


def test_of_a_loss_with_parts_the_comparable_one_is_drawn(drawn: Any, tmp_path: Path) -> None:
    drawn(KINDS)
    for path in tmp_path.glob("*/reports/curve.csv"):
        write_text(path, "epoch,eval_loss,eval_token\n1,99,0.5\n2,98,0.25\n")
    _, curves = drawn(KINDS)
    assert {tuple(line.get_ydata()) for line in curves.lines} == {(0.5, 0.25)}


def test_what_varies_in_more_than_two_ways_is_ranked(drawn: Any) -> None:
    jobs = [*SEARCH, {"s.rate": "0.3", "s.r": "4", "s.alpha": "8"}]
    ranking, _ = drawn(jobs)
    assert ranking.get_title(loc="left") == "ranked" and len(ranking.get_yticklabels()) == 5


def test_a_search_in_two_settings_is_no_map(drawn: Any) -> None:
    ranking, _ = drawn([{"s.rate": f"0.{n}", "s.decay": f"0.0{n}"} for n in range(1, 15)])
    assert ranking.get_title(loc="left") == "the best 12 of 14" and len(ranking.get_yticklabels()) == 12


def test_nothing_finished_draws_nothing(tmp_path: Path) -> None:
    (tmp_path / "sweep.png").write_bytes(b"of an earlier run")
    results = SweepResults(Plan("s", "", "loss", 13, 200, "command"), [])
    assert not figures.draw(results, tmp_path / "sweep.png")
    assert not (tmp_path / "sweep.png").exists()


def test_settings_in_a_table_are_read_as_they_were_typed(tmp_path: Path) -> None:
    page = as_markdown(results_of(tmp_path, [*MODULES, {"s.modules": "a|b`"}]), "sweep", True)
    assert "**modules `[q]`**" in page and "| 2 | `[q,k]` |" in page
    assert "| 4 | a&#124;b&#96; |" in page
