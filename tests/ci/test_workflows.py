"""The workflows that are shipped: what they may do, and that each of their commands exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from stages.cli import app

ROOT = Path(__file__).resolve().parents[2]
GITHUB = (ROOT / ".github/workflows/review.yml").read_text()
GITLAB = (ROOT / ".gitlab-ci.yml").read_text()
HEAVY = ("torch", "transformers", "peft", "datasets", "chromadb", "faiss", "scipy", "sqlalchemy", "lxml", "openai")


def github() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(GITHUB)
    return loaded


def commands() -> list[str]:
    steps = [step["run"] for step in github()["jobs"]["review"]["steps"] if "run" in step]
    return [*steps, *yaml.safe_load(GITLAB)["review"]["script"]]


def test_the_workflow_may_read_the_code_and_comment_and_nothing_else() -> None:
    assert github()["permissions"] == {"contents": "read"}
    assert github()["jobs"]["review"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert github()[True] == "pull_request"  # YAML 1.1 reads the key `on` so; never pull_request_target
    checkout = github()["jobs"]["review"]["steps"][0]
    assert checkout["with"]["persist-credentials"] is False and checkout["with"]["fetch-depth"] == 0


def test_nothing_that_a_stranger_writes_is_pasted_into_a_shell() -> None:
    assert not [command for command in commands() if "${{" in command]
    assert not re.search(r"\$\{\{[^}]*(title|body|head_ref|head\.ref)[^}]*\}\}", GITHUB)


def test_no_token_is_printed_or_put_on_a_command_line() -> None:
    for command in commands():
        assert "TOKEN" not in re.sub(r'\[ -n "\$\{GROUNDTUNE_TOKEN:-\}" \]', "", command), command
        assert "set -x" not in command


def test_only_actions_of_github_s_own_are_used() -> None:
    used = [step["uses"] for step in github()["jobs"]["review"]["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)


def test_each_option_of_review_is_one_it_has() -> None:
    help_text = CliRunner().invoke(app, ["review", "--help"], terminal_width=200).output
    reviews = [command for command in commands() if "stages.cli review" in command]
    assert len(reviews) == 2
    for command in reviews:
        for option in (word for word in shlex.split(command) if word.startswith("--")):
            assert option in help_text, option


def test_each_file_that_a_command_names_is_there() -> None:
    named = {word for command in commands() for word in re.findall(r"\.ci/[\w.-]+|requirements\.lock", command)}
    assert named == {".ci/post_review.py", ".ci/check_cache", ".ci/review-requirements.txt", "requirements.lock"}
    assert all((ROOT / name).exists() for name in named)


def test_what_is_installed_for_a_review_is_locked() -> None:
    lines = (ROOT / ".ci/review-requirements.txt").read_text().splitlines()
    wanted = {line.lower() for line in lines if line and not line.startswith("#")}
    locked = {line.partition("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert wanted and wanted <= locked


def test_a_review_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(',')))\n"  # importing one of them now fails
        "from stages.cli import app\n"
        "app(['review', 'HEAD', '--json'])"
    )
    command = [sys.executable, "-c", code, ",".join(HEAVY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("{"), done.stderr
