"""The whole stage against a server that misbehaves: exact counts, nothing lost, nothing paid twice, no key anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import read_jsonl
from stages.core.workspace import Workspace
from stages.generate_sft import Config, run

KEY = "sk-this-is-the-secret"
OUTPUTS = ("qa", "pairs", "questions", "rejected", "orphaned_reviews")


def outputs(workspace: Workspace) -> dict[str, bytes]:
    files = [workspace.outputs / f"data/mills/sft/{name}.jsonl" for name in OUTPUTS]
    return {path.name: path.read_bytes() for path in [*files, metrics_path(workspace)]}


def metrics_path(workspace: Workspace) -> Path:
    return workspace.outputs / "reports/mills/generate_sft/metrics.json"


def metrics(workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(metrics_path(workspace).read_text(encoding="utf-8"))
    return found


def name_of(text: str) -> str:
    return text.split()[2]


@pytest.fixture
def names(knowledge: Callable[[int], None], chunks: Any) -> list[str]:
    knowledge(16)
    return [name_of(chunk.text) for chunk in chunks(16)]


def test_every_fault_is_overcome_or_counted(
    server: Any, config: Config, workspace: Workspace, names: list[str]
) -> None:
    faults = [
        *(["429"], ["500", "503"], ["timeout"], ["cut"], ["gone"], ["garbage"], ["empty"], ["429", "500", "cut"]),
        *(["invalid_json"], ["wrong_schema"], ["german"], ["about_text"], ["invented"], ["refused"], ["none"]),
    ]
    server.faults = dict(zip(names, faults, strict=False))
    run(config, workspace)
    found = metrics(workspace)
    assert (found["num_requested"], found["num_kept"], found["num_rejected"]) == (16, 9, 7)
    assert found["rejected"] == {
        "about_the_text": 1,
        "invalid_json": 1,
        "missing": 1,
        "not_grounded": 1,
        "refused": 1,
        "wrong_language": 1,
        "wrong_schema": 1,
    }
    assert set(server.answered.values()) == {1}
    assert sum(server.attempts.values()) == 16 + 1 + 2 + 1 + 1 + 1 + 1 + 1 + 3
    assert (found["num_prompt_tokens"], found["num_completion_tokens"]) == (1600, 160)
    assert found["cost"] == pytest.approx((1600 * 1 + 160 * 5) / 1e6)
    assert len(read_jsonl(workspace.outputs / "data/mills/sft/qa.jsonl")) == 9
    rejected = read_jsonl(workspace.outputs / "data/mills/sft/rejected.jsonl")
    assert [set(row) >= {"chunk", "style", "reason", "detail"} for row in rejected] == [True] * 7


def test_what_is_written_does_not_depend_on_the_order_of_answers(
    server: Any, config: Config, workspace: Workspace, names: list[str], tmp_path: Path
) -> None:
    server.faults = {names[1]: ["500"], names[2]: ["timeout"], names[5]: ["invalid_json"]}
    run(config, workspace)
    first = outputs(workspace)
    (tmp_path / ".cache").rename(tmp_path / "old_cache")
    server.faults = {names[5]: ["invalid_json"], names[8]: ["cut"]}
    run(replace(config, provider=replace(config.provider, max_concurrent=1)), workspace)
    assert outputs(workspace) == first
    num_attempts = sum(server.attempts.values())
    run(config, workspace)
    assert outputs(workspace) == first
    assert sum(server.attempts.values()) == num_attempts


def test_a_dead_server_ends_the_run_and_a_rerun_goes_on(
    server: Any, config: Config, workspace: Workspace, names: list[str]
) -> None:
    server.faults = {names[3]: ["500"] * 4}
    config = replace(config, provider=replace(config.provider, max_concurrent=1))
    with pytest.raises(
        DataError, match=r"failed 4 times, the last time: .*500(.|\n)*run the same command again"
    ) as raised:
        run(config, workspace)
    done, wanted = map(int, re.search(r"(\d+) of (\d+) requests are done", str(raised.value)).groups())  # type: ignore[union-attr]
    assert wanted == 16
    assert done == len(server.answered) < 16
    run(config, workspace)
    assert metrics(workspace)["num_kept"] == 16
    assert set(server.answered.values()) == {1}


def test_nobody_listens(config: Config, workspace: Workspace, names: list[str]) -> None:
    nowhere = replace(config.provider, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(DataError, match="0 of 16 requests are done"):
        run(replace(config, provider=nowhere), workspace)


@pytest.mark.parametrize(
    ("status", "advice"), [("401", "see the key in FAKE_KEY"), ("404", "base_url and model"), ("402", "402")]
)
def test_what_no_retry_can_mend_ends_the_run_at_once(
    server: Any,
    config: Config,
    workspace: Workspace,
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    advice: str,
) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)
    server.faults = {name: [status] for name in names}
    provider = replace(config.provider, max_concurrent=1, api_key_env="FAKE_KEY")
    with pytest.raises(DataError, match=advice) as raised:
        run(replace(config, provider=provider), workspace)
    assert sum(server.attempts.values()) == 1
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("refused", "used"), [({"json_schema"}, "json_object"), ({"json_schema", "json_object"}, "text")]
)
def test_a_server_without_json_schema_is_asked_for_less(
    server: Any, config: Config, workspace: Workspace, names: list[str], refused: set[str], used: str
) -> None:
    server.refused_formats = refused
    run(replace(config, provider=replace(config.provider, max_concurrent=1)), workspace)
    assert metrics(workspace)["num_kept"] == 16
    assert sum(server.attempts.values()) == 16 + len(refused)
    assert server.bodies[-1].get("response_format", {"type": "text"})["type"] == used


def test_a_request_that_the_server_never_takes_is_a_rejection(
    server: Any, config: Config, workspace: Workspace, names: list[str]
) -> None:
    server.faults = {names[0]: ["400"] * 9}
    run(config, workspace)
    assert metrics(workspace)["rejected"] == {"request_failed": 1}
    server.faults = dict.fromkeys(names, ["413"] * 9)
    with pytest.raises(DataError, match=r"takes no request; the first answer: .*413"):
        run(replace(config, provider=replace(config.provider, model="another")), workspace)


def test_the_key_is_in_no_file_and_no_message(
    server: Any,
    config: Config,
    workspace: Workspace,
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-server")
    keyed = replace(config, provider=replace(config.provider, api_key_env="FAKE_KEY"))
    server.faults = {names[0]: ["429", "chatty"], names[1]: ["500"] * 9}
    with pytest.raises(DataError, match="run the same command again") as raised:
        run(keyed, workspace)
    server.faults.pop(names[1])
    run(keyed, workspace)
    assert server.authorizations == {f"Bearer {KEY}"}
    assert metrics(workspace)["num_kept"] == 16
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"***" in written  # the chatty answer repeats it
    assert KEY.encode() not in written
    assert KEY not in str(raised.value)
    assert KEY not in "".join(capfd.readouterr())


def test_without_a_key_none_is_sent(
    server: Any, config: Config, workspace: Workspace, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    run(config, workspace)
    assert server.authorizations == {"Bearer none"}
    with pytest.raises(ConfigError, match="the environment has no FAKE_KEY"):
        run(replace(config, provider=replace(config.provider, api_key_env="FAKE_KEY")), workspace)


def test_rate_and_concurrency_are_kept(server: Any, config: Config, workspace: Workspace, names: list[str]) -> None:
    server.delay_s = 0.05
    run(replace(config, provider=replace(config.provider, max_concurrent=3)), workspace)
    assert server.most_open == 3
    server.times.clear()
    slow = replace(config.provider, model="another", requests_per_minute=1200)  # one in 50 ms
    run(replace(config, provider=slow), workspace)
    assert server.times[-1] - server.times[0] >= 15 * 0.05 * 0.9


def test_retry_after_holds_every_request_back(
    server: Any, config: Config, workspace: Workspace, names: list[str]
) -> None:
    server.faults = {name: ["429"] for name in names}  # "Retry-After: 0.2"
    run(replace(config, provider=replace(config.provider, max_concurrent=1), limit=1), workspace)
    assert server.times[1] - server.times[0] >= 0.2


def test_a_preview_is_paid_once(
    server: Any, config: Config, workspace: Workspace, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(config, preview=5), workspace)
    shown = capsys.readouterr().out
    assert len(re.findall("^Question: When was the mill", shown, re.MULTILINE)) == 5
    assert "5 requests, 500 + 50 tokens" in shown
    assert sum(server.attempts.values()) == 5
    assert not (workspace.outputs / "data/mills/sft").exists()
    run(config, workspace)
    assert sum(server.attempts.values()) == 16
