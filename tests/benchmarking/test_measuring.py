"""Whole runs against scripted servers: figures, failures, what cannot be measured, stopping and going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.benchmarking.measuring import measure
from stages.benchmarking.publishing import publish
from stages.benchmarking.settings import Config, Endpoint
from stages.core.errors import DataError
from stages.core.jsonl import write_jsonl
from stages.core.workspace import Workspace

FAST = ["throughput", "context", "writing", "coherence"]


def only(config: Config, *names: str) -> Config:
    return replace(config, only=list(names))


def test_counts_and_scores_of_a_scripted_server(config: Config, workspace: Workspace, server: Any) -> None:
    found = measure(only(config, *FAST), workspace)
    one, three = (found.sections["throughput"].figures[s]["scripted"] for s in ("1 client", "3 clients"))
    assert one["answer_tokens"].value == three["answer_tokens"].value == 3.0
    assert (one["tokens_per_s"].n, one["answer_tokens"].n, three["answer_tokens"].n) == (2, 4, 6)
    assert (one["first_token_p50_s"].n, one["between_tokens_p50_s"].n) == (4, 8)
    writing = found.sections["writing"].figures["writing"]["scripted"]
    assert writing["completed"].value == 1.0 and writing["completed"].n == 6
    assert writing["repetition"].value == 0.0 and writing["lexical_diversity"].value == 1.0
    assert writing["words"].value == 2.0
    assert 0 < writing["keywords"].value < 1  # `answer` stands in each text, the other keywords in none
    assert any("style is not measured" in note for note in found.sections["writing"].notes)
    coherence = found.sections["coherence"].figures
    assert coherence["whole story"]["scripted"]["recalled"].n == 12
    assert coherence["last quarter"]["scripted"]["recalled"].value == 0.0
    assert not any(section.ratios or section.differences for section in found.sections.values())


def test_recall_is_of_the_story_that_the_server_was_told(config: Config, workspace: Workspace, server: Any) -> None:
    asked: list[str] = []
    server.pieces = lambda question: asked.append(question) or ["A ", "b"]
    measure(only(config, "coherence"), workspace)
    bodies = [body for body in server.bodies if body["messages"][0]["role"] == "system"]
    assert len(bodies) == 12
    name = bodies[0]["messages"][1]["content"].rstrip("?").split()[-1]
    assert f"by the name of {name}." in bodies[0]["messages"][0]["content"]


def test_warm_up_is_asked_and_not_counted(config: Config, workspace: Workspace, server: Any) -> None:
    found = measure(only(config, "throughput"), workspace)
    assert len(server.bodies) == 2 + (2 + 2 + 1) + (3 + 3 + 1)  # probes, one client, three clients
    assert found.sections["throughput"].figures["1 client"]["scripted"]["latency_p50_s"].n == 4


def test_no_two_prompts_of_the_throughput_begin_alike(config: Config, workspace: Workspace, server: Any) -> None:
    measure(only(config, "throughput"), workspace)
    prompts = [body["messages"][0]["content"] for body in server.bodies[2:]]
    beginnings = [prompt.split("\n\n")[1][:40] for prompt in prompts]
    assert len(set(beginnings)) == len(beginnings) - 2  # the warm-up of either number of clients


def test_lengths_double_up_to_the_limit(config: Config, workspace: Workspace, server: Any) -> None:
    section = measure(only(config, "context"), workspace).sections["context"]
    assert list(section.figures) == ["50 tokens", "100 tokens", "200 tokens", "381 tokens"]
    for setting, rows in section.figures.items():
        assert rows["scripted"]["prompt_tokens"].value == pytest.approx(float(setting.split()[0]), rel=0.15)
        assert rows["scripted"]["memory_bytes"].value > 2**20  # the server runs in this process


def test_a_length_that_is_refused_ends_the_scaling(config: Config, workspace: Workspace, server: Any) -> None:
    server.limit = 150
    section = measure(only(config, "context"), workspace).sections["context"]
    assert list(section.figures) == ["50 tokens", "100 tokens"]
    assert any("refuses 200 tokens" in note and "do not fit into 150" in note for note in section.notes)
    server.limit = 0
    server.models = [{"id": "scripted", "max_model_len": 120}]
    section = measure(only(config, "context"), workspace).sections["context"]
    assert list(section.figures) == ["50 tokens", "112 tokens"]


def test_a_context_that_holds_not_even_the_smallest(config: Config, workspace: Workspace, server: Any) -> None:
    server.models = [{"id": "scripted", "max_model_len": 40}]
    with pytest.raises(DataError, match=r"nothing was measured\ncontext: context.min_tokens: 50 do not fit into 40"):
        measure(only(config, "context"), workspace)


def test_two_endpoints_are_compared_block_by_block(
    both: Config, workspace: Workspace, server: Any, second_server: Any
) -> None:
    found = measure(only(both, *FAST), workspace)
    ratios = found.sections["throughput"].ratios
    assert set(ratios) == {"1 client", "3 clients"} and ratios["1 client"]["tokens_per_s"].n == 2
    words = {name: rows["words"].value for name, rows in found.sections["writing"].figures["writing"].items()}
    assert words == {"scripted": 2.0, "second": 4.0}
    difference = found.sections["writing"].differences["writing"]["keywords"]
    assert difference.n == 6 and difference.difference > 0  # it uses `bridge` besides `answer`
    assert found.sections["writing"].differences["writing"]["completed"].difference == 0.0
    assert {body["messages"][0]["content"] for body in server.bodies if body["max_tokens"] == 8} == {
        body["messages"][0]["content"] for body in second_server.bodies if body["max_tokens"] == 8
    }


def test_failures_are_counted_and_the_rest_is_measured(config: Config, workspace: Workspace, server: Any) -> None:
    server.fault, server.fault_after = "cut", 2 + 1 + 4
    section = measure(only(config, "throughput"), workspace).sections["throughput"]
    assert "3 clients" not in section.figures and section.figures["1 client"]["scripted"]["latency_p50_s"].n == 4
    assert sum(section.failures["scripted"].values()) == 6
    assert all("the stream ended after 1 pieces" in what for what in section.failures["scripted"])


def test_a_server_that_counts_no_tokens_is_said_to(config: Config, workspace: Workspace, server: Any) -> None:
    server.fault = "no_usage"
    section = measure(only(config, "throughput"), workspace).sections["throughput"]
    assert section.figures["1 client"]["scripted"]["answer_tokens"].value == 3.0
    assert any("does not count tokens" in note for note in section.notes)


def test_a_server_that_does_not_stream_has_no_first_token(config: Config, workspace: Workspace, server: Any) -> None:
    server.fault = "whole"
    section = measure(only(config, "throughput"), workspace).sections["throughput"]
    assert "first_token_p50_s" not in section.figures["1 client"]["scripted"]
    assert any("answers in one piece" in note for note in section.notes)


def test_what_a_domain_lacks_is_noted_and_the_rest_goes_on(
    config: Config, workspace: Workspace, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure(only(config, "throughput", "retrieval", "pipeline"), workspace)
    assert list(found.sections) == ["throughput"] and list(found.skipped) == ["retrieval", "pipeline"]
    assert "data/world/rag/test.jsonl: no such file" in found.skipped["retrieval"]
    assert "benchmark retrieval: not measured" in capsys.readouterr().err


def test_an_empty_test_set_is_an_error_where_nothing_else_is_asked_for(
    config: Config, workspace: Workspace, server: Any
) -> None:
    write_jsonl(workspace.write("data/world/rag/test.jsonl"), [])
    with pytest.raises(DataError, match="no question to ask"):
        measure(only(config, "pipeline"), workspace)


def test_a_run_that_was_stopped_reports_what_it_has_and_goes_on_there(
    config: Config, workspace: Workspace, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    config = only(config, "throughput", "writing")
    with monkeypatch.context() as patched:
        patched.setattr("stages.benchmarking.writing.writing_tasks", interrupted)
        found = measure(config, workspace)
    assert found.stopped == "interrupted" and list(found.sections) == ["throughput"]
    publish(tmp_path / "out", found, "world", "groundtune bench")
    assert "**Partial: interrupted.**" in (tmp_path / "out" / "benchmark.md").read_text()
    assert len(list(workspace.cache("benchmark").glob("*.jsonl"))) == 1
    num_before = len(server.bodies)
    again = measure(config, workspace)
    new = [body["messages"][0]["content"] for body in server.bodies[num_before + 2 :]]  # after the probes
    assert not again.stopped and len(new) == 6 and all(text.startswith(("Use", "Write")) for text in new)
    assert again.sections["throughput"] == found.sections["throughput"]
    assert not list(workspace.cache("benchmark").glob("*.jsonl"))


def test_a_server_that_goes_away_leaves_a_partial_report(config: Config, workspace: Workspace, server: Any) -> None:
    def gone(question: str) -> list[str]:
        if question.startswith(("Use", "Write")):
            server.socket.close()
            raise ConnectionError
        return ["One ", "answer", "."]

    server.pieces = gone
    found = measure(only(config, "throughput", "writing", "coherence"), workspace)
    assert "throughput" in found.sections and "coherence" not in found.sections
    assert "gone" in found.stopped


def test_the_same_server_twice_with_two_models(config: Config, workspace: Workspace, server: Any) -> None:
    endpoints = {name: Endpoint(base_url=server.url, model=name) for name in ("scripted", "other")}
    found = measure(replace(config, endpoints=endpoints, only=["throughput"]), workspace)
    assert [endpoint.model for endpoint in found.endpoints.values()] == ["scripted", "other"]
    assert {body["model"] for body in server.bodies} == {"scripted", "other"}
    order = [body["model"] for body in server.bodies[4:]]
    assert order[0] == "scripted" and order[3:5] == ["other", "other"]  # warm-up and two of the first, then the other
