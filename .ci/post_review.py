"""Posts a review as the one comment of its pull request (GitHub) or merge request (GitLab).

    python .ci/post_review.py review.md

The comment that carries the marker of the file's first line is updated; where there is none, one is added. All settings
come from the variables that GitHub Actions and GitLab CI set, the token from GITHUB_TOKEN or GROUNDTUNE_TOKEN; it is
sent in a header and printed nowhere. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE_SIZE = 100


@dataclass(frozen=True)
class Comments:
    """The comments of one request: where they are listed and added, where one is changed, and how one is authorised."""

    url: str
    comment_url: str
    update_method: str
    headers: dict[str, str]

    def post(self, text: str) -> str:
        """Updates ours, or adds it; "updated" or "added"."""
        marker = text.split("\n", 1)[0]
        ours = next((c["id"] for c in self.all() if str(c["body"]).startswith(marker)), None)
        if ours is None:
            self._call("POST", self.url, {"body": text})
            return "added"
        self._call(self.update_method, f"{self.comment_url}/{ours}", {"body": text})
        return "updated"

    def all(self) -> Iterator[dict[str, Any]]:
        """Every comment, page after page."""
        number = 1
        while page := self._call("GET", f"{self.url}?per_page={PAGE_SIZE}&page={number}"):
            yield from page
            number += 1

    def _call(self, method: str, url: str, body: Mapping[str, str] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  # the CI's own address
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return json.load(response)


def comments(variables: Mapping[str, str]) -> Comments:
    """Of the request that the CI's variables name. Raises KeyError naming the variable that is not set."""
    if variables.get("GITHUB_ACTIONS"):
        api = f"{variables['GITHUB_API_URL']}/repos/{variables['GITHUB_REPOSITORY']}/issues"
        authorisation = {"Authorization": f"Bearer {variables['GITHUB_TOKEN']}"}
        return Comments(f"{api}/{variables['PULL_REQUEST']}/comments", f"{api}/comments", "PATCH", authorisation)
    request = f"projects/{variables['CI_PROJECT_ID']}/merge_requests/{variables['CI_MERGE_REQUEST_IID']}"
    notes = f"{variables['CI_API_V4_URL']}/{request}/notes"
    return Comments(notes, notes, "PUT", {"PRIVATE-TOKEN": variables["GROUNDTUNE_TOKEN"]})


def main() -> None:
    """Exit code 1 with one line where it cannot be posted."""
    try:
        print(f"review {comments(os.environ).post(Path(sys.argv[1]).read_text(encoding='utf-8'))}")
    except KeyError as error:
        raise SystemExit(f"post_review: {error.args[0]} is not set") from None
    except (OSError, urllib.error.URLError) as error:
        raise SystemExit(f"post_review: not posted: {error}") from None


if __name__ == "__main__":
    main()
