"""What Fusion asks of GitHub: one comment by stack on a pull request, one issue by stack that drifts.

The environment is the one that GitHub Actions sets: `GITHUB_API_URL`, `GITHUB_REPOSITORY`, `GITHUB_TOKEN`,
`GITHUB_EVENT_PATH`, `GITHUB_STEP_SUMMARY`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from fusion.errors import FusionError

AUTHOR = "github-actions[bot]"
"""Whom `GITHUB_TOKEN` writes as. Only its own words are written over, whoever else copies the marker."""
PAGE = 100
RETRIED = (429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on GitHub, with a token that may write to it."""

    api_url: str
    name: str
    token: str
    author: str

    @classmethod
    def of_environment(cls, author: str) -> Repository:
        """The one that a workflow runs for.

        Raises:
            FusionError: a variable is not set.
        """
        api_url = os.environ.get("GITHUB_API_URL", "https://api.github.com")
        return cls(api_url.rstrip("/"), _required("GITHUB_REPOSITORY"), _required("GITHUB_TOKEN"), author)

    def write_comment(self, pull_request: int, marker: str, body: str) -> str:
        """Make the comment that starts with the marker say this; returns its address."""
        path = f"issues/{pull_request}/comments"
        for each in self._pages(path, {}):
            if self._is_own(each, marker):
                return self._changed(each, f"issues/comments/{each['id']}", {"body": body})
        return str(self._ask("POST", path, {"body": body})["html_url"])

    def write_issue(self, marker: str, title: str, body: str) -> str:
        """Make the open issue that starts with the marker say this, or open one; returns its address."""
        found = self._open_issue(marker)
        if found is not None:
            return self._changed(found, f"issues/{found['number']}", {"body": body})
        return str(self._ask("POST", "issues", {"title": title, "body": body})["html_url"])

    def close_issue(self, marker: str) -> str | None:
        """Close the open issue that starts with the marker; returns its address, None where there is none."""
        found = self._open_issue(marker)
        if found is None:
            return None
        closed = self._ask("PATCH", f"issues/{found['number']}", {"state": "closed", "state_reason": "completed"})
        return str(closed["html_url"])

    def _open_issue(self, marker: str) -> Mapping[str, Any] | None:
        issues = self._pages("issues", {"state": "open", "creator": self.author})
        return next((each for each in issues if "pull_request" not in each and self._is_own(each, marker)), None)

    def _is_own(self, found: Mapping[str, Any], marker: str) -> bool:
        return (found.get("user") or {}).get("login") == self.author and (found.get("body") or "").startswith(marker)

    def _changed(self, found: Mapping[str, Any], path: str, wanted: Mapping[str, str]) -> str:
        if any(found.get(key) != value for key, value in wanted.items()):
            self._ask("PATCH", path, wanted)
        return str(found["html_url"])

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        number = 1
        while True:
            asked = urlencode({**query, "per_page": PAGE, "page": number})
            page = self._ask("GET", f"{path}?{asked}")
            yield from page
            if len(page) < PAGE:
                return
            number += 1

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        url = f"{self.api_url}/repos/{self.name}/{path}"
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "User-Agent": "fusion",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        # A second POST could write a second comment, so only what can be repeated is.
        retries = urllib3.Retry(3, status_forcelist=RETRIED, allowed_methods=("GET", "PATCH"), backoff_factor=0.5)
        retries.raise_on_status = False
        try:
            answer = urllib3.request(method, url, json=body, headers=headers, retries=retries, timeout=30.0)
        except urllib3.exceptions.HTTPError as error:
            raise FusionError(f"GitHub does not answer: {method} {url}: {error}") from None
        if answer.status >= 300:
            raise FusionError(f"GitHub answered {answer.status} to {method} {url}: {_message(answer.data)}")
        try:
            return json.loads(answer.data)
        except ValueError:
            raise FusionError(f"GitHub answered no JSON to {method} {url}; is GITHUB_API_URL right?") from None


@dataclass(frozen=True, slots=True)
class PullRequest:
    """The pull request that started the workflow."""

    number: int
    is_from_fork: bool
    """Its workflow gets no cloud credentials and no token that may write."""


def pull_request() -> PullRequest:
    """Of the event that started the workflow.

    Raises:
        FusionError: another event did.
    """
    path = Path(_required("GITHUB_EVENT_PATH"))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["pull_request"]
        origin = (found["head"]["repo"] or {}).get("full_name")  # none where the fork is deleted
        return PullRequest(int(found["number"]), origin != found["base"]["repo"]["full_name"])
    except (OSError, ValueError, KeyError, TypeError):
        raise FusionError(f"GITHUB_EVENT_PATH {path}: expected the event of a pull request") from None


def add_to_summary(markdown: str) -> None:
    """Add to what the run's page shows; nothing outside a workflow."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{markdown}\n")


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise FusionError(f"{name} is not set; GitHub Actions sets it (the token where `env:` passes it on)")
    return value


def _message(data: bytes) -> str:
    try:
        found = json.loads(data)
        return str(found["message"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
