"""A review of a branch: every section of it, what fails it, and the repositories it cannot review."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from stages.cli import Commands
from stages.core.workspace import Workspace
from stages.serving.review.command import review_command

from .conftest import Write, git, lock, number

RULES = [
    {"match": "*.num_leaks", "better": "lower", "tolerance": 0.0},
    {"match": "*.exact_match", "better": "higher", "tolerance": 0.02},
    {"match": "*loss", "better": "lower"},
]
SETTINGS: dict[str, Any] = {"metrics": RULES, "cost": {"max_memory_ratio": 1.5}}


def review(folder: Path, *arguments: str, settings: dict[str, Any] = SETTINGS) -> Result:
    app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command("review")(review_command(lambda: settings, Workspace(folder, folder)))
    return CliRunner().invoke(app, ["review", *arguments])


def answers(exact_match: dict[str, float], loss: dict[str, float]) -> dict[str, Any]:
    return {"answers": {"tuned_docs": {"exact_match": exact_match, "loss": loss}}, "best": "hybrid"}


def test_an_unchanged_branch_has_nothing_to_say(repository: Path) -> None:
    result = review(repository)
    assert result.exit_code == 0, result.output
    commit = git(repository, "rev-parse", "--short=7", "main").strip()
    assert f"Against `main` ({commit})." in result.stdout
    assert "No regression" in result.stdout and "###" not in result.stdout.replace("### Data", "")
    assert "Split unchanged: `demo/build_rag_data.splits_sha256`." in result.stdout


def test_a_setting_of_many_sections_is_one_row(repository: Path, write: Write) -> None:
    write("params.yaml", {"seed": 14, "model": {"name": "big"}, "train": {"r": 16, "model": {"name": "big"}, "x": 1}})
    text = review(repository).stdout
    assert "| `seed` | `13` | `14` |" in text
    assert "| `train.r` | `8` | `16` |" in text
    assert "| `model.name` in 2 places | `tiny` | `big` |" in text
    assert "1 settings are new or gone" in text and "| `train.x` | `-` | `1` |" in text


@pytest.mark.parametrize(
    ("after", "verdict", "exit_code"),
    [
        (number(0.6, 0.5, 0.7), "**worse**", 1),
        (number(0.8, 0.7, 0.88), "indistinguishable", 0),
        (number(0.99, 0.97, 1.0), "better", 0),
        ({"value": 0.89, "low": None, "high": None, "n": 3}, "no interval", 0),
        ({"value": 0.87, "low": None, "high": None, "n": 3}, "**no interval**", 1),
    ],
)
def test_a_guarded_metric_gets_the_verdict_of_its_intervals(
    repository: Path, write: Write, after: dict[str, float], verdict: str, exit_code: int
) -> None:
    write("reports/demo/metrics.json", answers(after, number(0.5, 0.4, 0.6)))
    result = review(repository)
    assert result.exit_code == exit_code
    row = next(line for line in result.stdout.splitlines() if line.startswith("| `demo.answers.tuned_docs.exact"))
    assert row.endswith(f"| {verdict} |")
    assert ("**Regressions**\n- `demo.answers.tuned_docs.exact_match`" in result.stdout) == bool(exit_code)


def test_a_loss_beyond_the_tolerance_that_may_be_chance_is_said_and_fails_nothing(
    repository: Path, write: Write
) -> None:
    write("reports/demo/metrics.json", answers(number(0.84, 0.75, 0.93), number(0.5, 0.4, 0.6)))
    result = review(repository)
    assert result.exit_code == 0
    assert "Worse than the tolerance, but within the intervals: `demo.answers.tuned_docs.exact_match`" in result.stdout


def test_a_lower_loss_is_better_and_an_unguarded_one_never_fails(repository: Path, write: Write) -> None:
    write("reports/demo/metrics.json", answers(number(0.9, 0.85, 0.95), number(0.9, 0.8, 1.0)))
    result = review(repository)
    assert result.exit_code == 0
    assert "1 other metrics that differ" in result.stdout
    assert "| `demo.answers.tuned_docs.loss` | 0.500 [0.400, 0.600] | 0.900 [0.800, 1.000] | worse |" in result.stdout


def test_a_leak_without_an_interval_is_a_regression(repository: Path, write: Write) -> None:
    write("reports/demo/build_rag_data/metrics.json", {"num_leaks": 1, "splits_sha256": "b" * 64})
    result = review(repository)
    assert result.exit_code == 1
    assert "- `demo/build_rag_data.num_leaks`: 0 → 1 (no interval)" in result.stdout
    assert "**Split changed**: `demo/build_rag_data.splits_sha256` (aaaaaaaaaaaa → bbbbbbbbbbbb)" in result.stdout


def test_a_guarded_metric_that_is_gone_is_a_regression_and_a_whole_report_is_not(
    repository: Path, write: Write
) -> None:
    write("reports/demo/metrics.json", {"answers": {"tuned_docs": {"loss": number(0.5, 0.4, 0.6)}}})
    assert review(repository).exit_code == 1
    (repository / "reports/demo/metrics.json").unlink()
    assert review(repository).exit_code == 0


def test_records_are_counted_before_and_after(repository: Path, write: Write) -> None:
    ledger = {"num_read": 12, "num_kept": 9, "num_rejected": 3, "rejected": {"duplicate": 1, "too_short": 2}}
    write("reports/demo/clean_qa/metrics.json", ledger)
    write("reports/demo/ingest/metrics.json", {"num_read": 5, "num_kept": 5, "num_rejected": 0, "rejected": {}})
    text = review(repository).stdout
    assert "| `demo/clean_qa` | 10 → 12 | 9 | 1 → 3 | `too_short 0 → 2` |" in text
    assert "| `demo/ingest` | - → 5 | - → 5 | - → 0 |  |" in text


def test_stages_say_what_changed_by_kind_and_an_old_lock_is_named(repository: Path, write: Write) -> None:
    write("dvc.lock", lock("another", {"r": 16, "model": {"name": "tiny"}}, "data-2"))
    text = review(repository).stdout
    assert "| `train` | `stages/train.py` | `train.r` | `data/x` | `models/x` |" in text
    assert "**The reports are not of this tree**" in text and "- `train`: `stages/train.py`, `train.r`" in text


def cost(wall_s: float, peak_memory_bytes: int, device: str = "cpu: A") -> dict[str, Any]:
    return {"wall_s": wall_s, "peak_memory_bytes": peak_memory_bytes, "peak_gpu_bytes": None, "device": device}


@pytest.mark.parametrize(
    ("after", "exit_code"),
    [(cost(99, 1_400_000_000), 0), (cost(9, 1_600_000_000), 1), (cost(9, 1_600_000_000, "gpu: 1 x B"), 0)],
)
def test_memory_beyond_its_ratio_fails_on_the_same_device_only(
    repository: Path, write: Write, after: dict[str, Any], exit_code: int
) -> None:
    write("reports/demo/cost/train@ce.json", cost(10, 1_000_000_000))
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "cost")
    git(repository, "branch", "-f", "main")
    write("reports/demo/cost/train@ce.json", after)
    result = review(repository)
    assert result.exit_code == exit_code, result.output
    assert f"| `demo/train@ce` | 10.0 s → {after['wall_s']:.1f} s | 1.00 GB → " in result.stdout
    assert ("- cost of `demo/train@ce`: memory beyond the limit" in result.stdout) == bool(exit_code)


def test_figures_are_written_beside_the_page_and_curves_are_drawn(
    repository: Path, write: Write, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write("reports/demo/figures/answers.png", b"new picture")
    write("reports/demo/figures/more.png", b"more")
    write("reports/demo/train/curve.csv", "step,train_loss,eval_loss,tokens_per_s\n1,2.0,2.4,100\n2,1.0,1.2,100\n")
    out = tmp_path_factory.mktemp("out") / "review.md"
    assert review(repository, "--out", str(out)).exit_code == 0
    folder = out.parent / "review"
    assert (folder / "demo-answers-before.png").read_bytes() == b"old picture"
    assert (folder / "demo-answers-after.png").read_bytes() == b"new picture"
    assert (folder / "demo-train-curve.png").read_bytes().startswith(b"\x89PNG")
    text = out.read_text()
    assert (
        "| ![`demo/answers`](review/demo-answers-before.png) | ![`demo/answers`](review/demo-answers-after.png) |"
        in text
    )
    assert "![`demo/more`](review/demo-more-after.png)" in text and "](review/demo-train-curve.png)" in text


def test_a_curve_that_differs_in_speed_alone_is_not_drawn(
    repository: Path, write: Write, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write("reports/demo/train/curve.csv", "step,train_loss,eval_loss,tokens_per_s\n1,2.0,2.5,300\n2,1.0,1.5,300\n")
    out = tmp_path_factory.mktemp("out") / "review.md"
    assert review(repository, "--out", str(out)).exit_code == 0
    assert "Figures" not in out.read_text()


def test_figures_can_be_links_to_both_revisions(repository: Path, write: Write) -> None:
    write("reports/demo/figures/answers.png", b"new picture")
    git(repository, "commit", "-qam", "figure")
    before, after = (git(repository, "rev-parse", name).strip() for name in ("main", "work"))
    text = review(repository, "--figure-links", "https://host/{revision}/{path}").stdout
    assert f"(https://host/{before}/reports/demo/figures/answers.png) | " in text
    assert f"(https://host/{after}/reports/demo/figures/answers.png) |" in text
    assert review(repository, "--figure-links", "https://host/").exit_code == 1


def test_json_holds_everything(repository: Path, write: Write) -> None:
    write("reports/demo/metrics.json", answers(number(0.6, 0.5, 0.7), number(0.5, 0.4, 0.6)))
    result = review(repository, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["passed"] is False
    assert found["regressions"] == ["demo.answers.tuned_docs.exact_match"]
    assert found["metrics"][0]["after"] == {"value": 0.6, "low": 0.5, "high": 0.7, "n": 90}


def test_uncommitted_changes_are_reviewed_and_said_or_refused(repository: Path, write: Write) -> None:
    write("params.yaml", {"seed": 14})
    write("new.txt", "untracked")
    assert "with uncommitted changes in 2 files" in review(repository).stdout
    refused = review(repository, "--committed")
    assert refused.exit_code == 1
    assert refused.stderr == "error: 2 files have uncommitted changes, new.txt first: commit or stash them\n"


def test_what_main_did_since_is_not_the_branch_s(repository: Path, write: Write) -> None:
    left = git(repository, "rev-parse", "--short=7", "main").strip()
    git(repository, "switch", "-q", "main")
    write("params.yaml", {"seed": 99})
    git(repository, "commit", "-qam", "main goes on")
    git(repository, "switch", "-q", "work")
    text = review(repository).stdout
    assert f"({left})" in text and "99" not in text


def test_a_base_without_metrics_makes_everything_new(repository: Path, write: Write) -> None:
    git(repository, "switch", "-q", "--orphan", "bare")
    write("README", "nothing measured yet")
    git(repository, "add", "README")
    git(repository, "commit", "-qm", "nothing yet")
    git(repository, "switch", "-qc", "measured")
    write("reports/demo/metrics.json", answers(number(0.6, 0.5, 0.7), number(0.5, 0.4, 0.6)))
    result = review(repository, "bare")
    assert result.exit_code == 0
    assert "The base has no metrics: everything measured is new" in result.stdout
    assert "| `demo.answers.tuned_docs.exact_match` | - | 0.600 [0.500, 0.700] | new |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such"], "error: no-such: git knows no such revision\n"),
        (["--", "-q"], "error: -q: git knows no such revision\n"),
        (["origin/main"], "error: origin/main: git knows no such revision; `git fetch origin` may get origin/main\n"),
    ],
)
def test_an_unknown_base_is_named(repository: Path, arguments: Sequence[str], message: str) -> None:
    result = review(repository, *arguments)
    assert (result.exit_code, result.stderr) == (1, message)


def test_a_shallow_clone_says_how_to_deepen_it(
    repository: Path, write: Write, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write("params.yaml", {"seed": 14})
    git(repository, "commit", "-qam", "work")
    clone = tmp_path_factory.mktemp("clone")
    git(clone, "clone", "-q", "--depth=1", "--no-single-branch", f"file://{repository}", ".")
    result = review(clone, "origin/main")
    assert result.exit_code == 1
    assert "no common history; this clone is shallow: `git fetch --unshallow`, or `git fetch --depth=" in result.stderr


def test_no_repository_and_no_git_are_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not a git repository" in review(tmp_path).stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in review(tmp_path).stderr


def test_a_broken_report_is_named_with_its_side(repository: Path, write: Write) -> None:
    write("reports/demo/metrics.json", "{broken")
    assert "error: reports/demo/metrics.json: cannot be read" in review(repository).stderr


def test_names_in_reports_have_no_effect_on_the_page(repository: Path, write: Write) -> None:
    write("reports/demo/metrics.json", {"<img src=x>`|**": number(0.6, 0.5, 0.7), "\x1b[2J": 1})
    text = review(repository).stdout
    assert "`demo.<img src=x>'\\|**`" in text
    assert "\x1b" not in text


def test_a_long_page_is_cut_to_what_a_comment_may_hold(repository: Path, write: Write) -> None:
    write("params.yaml", {f"key-{n}": "x" * 150 for n in range(1000)})
    text = review(repository, settings={**SETTINGS, "max_rows": 900}).stdout
    assert len(text) <= 65_100
    assert text.count("<details>") == text.count("</details>") == 1
    assert text.endswith("(cut here: see `groundtune review --json`)\n")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"better": "higher"}, "a rule needs a pattern"),
        ({"match": "*", "better": "up"}, "'up' is not one of higher, lower, neither"),
        ({"match": "*", "tolerance": -1}, "the tolerance of * is negative"),
    ],
)
def test_a_wrong_rule_is_refused_by_its_key(repository: Path, rule: dict[str, Any], message: str) -> None:
    result = review(repository, settings={"metrics": [rule]})
    assert result.exit_code == 1 and message in result.stderr


def test_the_real_repository_is_reviewed_against_its_first_parent() -> None:
    root = Path(__file__).resolve().parents[3]
    if subprocess.run(["git", "rev-parse", "HEAD~1"], cwd=root, capture_output=True, check=False).returncode:
        pytest.skip("no history beside this checkout")
    from stages.core.stage import load_section

    result = review(root, "HEAD~1", "--json", settings=load_section("review"))
    assert json.loads(result.stdout)["base"]["name"] == "HEAD~1", result.stderr
