"""The one comment of a request: added once, updated ever after; against servers that keep comments as the two do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci/post_review.py"
MARKER = "<!-- groundtune review -->"
TOKEN = "secret-token"


class Handler(BaseHTTPRequestHandler):
    """Lists, adds and changes the comments of one request."""

    comments: list[dict[str, Any]]
    list_path: str
    change_path: str
    change_method: str
    authorisation: tuple[str, str]

    def _answer(self, status: int, value: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def _body(self) -> str:
        return str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"])

    def _handle(self) -> None:
        header, value = self.authorisation
        path = urlsplit(self.path)
        if self.headers[header] != value:
            self._answer(401, {})
        elif self.command == "GET" and path.path == self.list_path:
            query = {key: int(values[0]) for key, values in parse_qs(path.query).items()}
            start = (query["page"] - 1) * query["per_page"]
            self._answer(200, self.comments[start : start + query["per_page"]])
        elif self.command == "POST" and path.path == self.list_path:
            self.comments.append({"id": len(self.comments) + 1, "body": self._body()})
            self._answer(201, {})
        elif self.command == self.change_method and (match := re.fullmatch(rf"{self.change_path}/(\d+)", path.path)):
            self.comments[int(match[1]) - 1]["body"] = self._body()
            self._answer(200, {})
        else:
            self._answer(404, {})

    do_GET = do_POST = do_PUT = do_PATCH = _handle

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(params=["github", "gitlab"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[type[Handler], dict[str, str]]]:
    """The comments on it, and the variables that its CI sets."""

    class Own(Handler):
        comments: list[dict[str, Any]] = []

    http = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{http.server_port}"
    if request.param == "github":
        Own.list_path, Own.change_path = "/repos/us/it/issues/7/comments", "/repos/us/it/issues/comments"
        Own.change_method, Own.authorisation = "PATCH", ("Authorization", f"Bearer {TOKEN}")
        variables = {"GITHUB_ACTIONS": "true", "GITHUB_API_URL": url, "GITHUB_REPOSITORY": "us/it"}
        variables |= {"PULL_REQUEST": "7", "GITHUB_TOKEN": TOKEN}
    else:
        Own.list_path = Own.change_path = "/projects/3/merge_requests/7/notes"
        Own.change_method, Own.authorisation = "PUT", ("PRIVATE-TOKEN", TOKEN)
        variables = {"CI_API_V4_URL": url, "CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "7", "GROUNDTUNE_TOKEN": TOKEN}
    yield Own, variables
    http.shutdown()


def post(folder: Path, text: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "review.md").write_text(text)
    env = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "review.md"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_it_is_added_once_and_updated_ever_after(server: tuple[type[Handler], dict[str, str]], tmp_path: Path) -> None:
    handler, variables = server
    handler.comments += [{"id": n + 1, "body": f"of others, quoting {MARKER}"} for n in range(150)]  # two pages
    assert post(tmp_path, f"{MARKER}\nfirst", variables).stdout == "review added\n"
    handler.comments.append({"id": 152, "body": "later"})
    assert post(tmp_path, f"{MARKER}\nsecond", variables).stdout == "review updated\n"
    assert [c["body"] for c in handler.comments[150:]] == [f"{MARKER}\nsecond", "later"]
    assert all(c["body"].startswith("of others") for c in handler.comments[:150])


@pytest.mark.parametrize(
    ("change", "message"), [({"GITHUB_TOKEN": "x", "GROUNDTUNE_TOKEN": "x"}, "not posted: HTTP Error 401")]
)
def test_a_refusal_is_one_line(
    server: tuple[type[Handler], dict[str, str]], tmp_path: Path, change: dict[str, str], message: str
) -> None:
    done = post(tmp_path, f"{MARKER}\n", {**server[1], **change})
    assert done.returncode == 1
    assert done.stderr.startswith(f"post_review: {message}") and done.stderr.count("\n") == 1


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    done = post(tmp_path, f"{MARKER}\n", {})
    assert (done.returncode, done.stderr) == (1, "post_review: CI_PROJECT_ID is not set\n")
