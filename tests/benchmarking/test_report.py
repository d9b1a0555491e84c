"""The page: what it says, whatever names and texts it is given."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages.benchmarking.client import Abilities
from stages.benchmarking.measuring import Benchmark, MeasuredEndpoint
from stages.benchmarking.publishing import publish
from stages.benchmarking.report import Context, report
from stages.benchmarking.results import Section
from stages.evaluation.intervals import Difference, Estimate

CONTEXT = Context("demo", "groundtune bench", "a laptop, 2 cores", "2026-01-01 00:00 UTC", True)


@pytest.fixture
def found() -> Benchmark:
    """Two endpoints; throughput with a ratio, coherence with a difference, retrieval skipped."""
    throughput = Section("throughput", failures={"a": Counter({"cut: no | end": 2}), "b": Counter()})
    for name, value in (("a", 20.0), ("b", 30.0)):
        figures = {"tokens_per_s": Estimate(value, value - 1, value + 1, 5)}
        throughput.add("1 client", name, figures | {"first_token_p50_s": Estimate(0.0123, None, None, 4)})
    throughput.ratios["1 client"] = {"tokens_per_s": Estimate(1.5, 1.4, 1.6, 5)}
    coherence = Section("coherence", notes=["a <b>note</b>"])
    coherence.add("whole story", "a", {"recalled": Estimate(0.5, 0.25, 0.75, 8)})
    coherence.differences["whole story"] = {"recalled": Difference(0.0, 0.0, 0.0, 1.0, 8)}
    endpoints = {
        "a": MeasuredEndpoint("http://127.0.0.1:1/v1", "m|x", Abilities(counts_tokens=True)),
        "b": MeasuredEndpoint("", "tuned", Abilities(retrieves=True, max_context_tokens=1024)),
    }
    return Benchmark(endpoints, {"throughput": throughput, "coherence": coherence}, {"retrieval": "no index"})


def test_the_page_says_what_was_found(found: Benchmark) -> None:
    text = report(found, CONTEXT)
    for line in (
        "# Benchmark: a against b",
        "- command: `groundtune bench`",
        "- our own server ran on the same machine, and shared its cores with the client",
        "| a | http://127.0.0.1:1/v1 | m&#124;x | not said | yes | yes | no |",
        "| b | our own | tuned | 1024 | yes | no | yes |",
        "| 1 client | a | 20.0 [19.0, 21.0] | 12 (no interval) | 4-5 |",
        "| 1 client: tokens/s | 1.50 [1.40, 1.60] | 5 |",
        "| whole story: recalled | 0 everywhere | 8 |",
        "- a: 2 x cut: no &#124; end",
        "- a &lt;b&gt;note&lt;/b&gt;".replace("&lt;", "&#60;").replace("&gt;", "&#62;"),
        "Not measured: no index.",
    ):
        assert line in text, line
    assert "Partial" not in text and "## 6." not in text


def test_a_page_of_a_stopped_run_says_so_first(found: Benchmark) -> None:
    found.stopped = "interrupted"
    assert report(found, CONTEXT).split("\n\n")[1].startswith("**Partial: interrupted.**")


def test_the_files_hold_the_same_figures(found: Benchmark, tmp_path: Path) -> None:
    values = publish(tmp_path, found, "demo", "groundtune bench")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.json", "benchmark.md", "benchmark.png"]
    assert json.loads((tmp_path / "benchmark.json").read_text()) == json.loads(json.dumps(values))
    figures: Any = values["benchmarks"]["throughput"]["figures"]
    assert figures["1 client"]["b"]["tokens_per_s"] == {"value": 30.0, "low": 29.0, "high": 31.0, "n": 5}
    assert values["benchmarks"]["throughput"]["failures"] == {"a": {"cut: no | end": 2}}
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_without_figures_there_is_no_picture(found: Benchmark, tmp_path: Path) -> None:
    publish(tmp_path, found, "demo", "groundtune bench")
    found.sections = {"writing": Section("writing")}
    publish(tmp_path, found, "demo", "groundtune bench")
    assert not (tmp_path / "benchmark.png").exists()
    assert "benchmark.png" not in (tmp_path / "benchmark.md").read_text()
