"""GitHub's API for comments and issues, as far as Fusion asks it, in a real HTTP server; and its workflows' runner."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml

BOT = "github-actions[bot]"
REPOSITORY = "octo/fusion"
TOKEN = "ghs_test"
WORKFLOWS = Path(__file__).parents[2] / ".github" / "workflows"
ISSUES = re.compile(rf"/repos/{REPOSITORY}/issues(?:/(?P<number>\d+))?(?P<comments>/comments)?")
COMMENT = re.compile(rf"/repos/{REPOSITORY}/issues/comments/(?P<id>\d+)")


@dataclass
class GitHub:
    """What the server holds, and what it was asked."""

    url: str = ""
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    issues: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fails: list[int] = field(default_factory=list)
    """Statuses to answer with first."""

    def add_comment(self, number: int, body: str, author: str = BOT) -> dict[str, Any]:
        every = self.comments.setdefault(number, [])
        identity = 1 + sum(len(each) for each in self.comments.values())
        every.append({"id": identity, "body": body, "user": {"login": author}, "html_url": f"{self.url}/c/{identity}"})
        return every[-1]

    def add_issue(self, title: str, body: str, author: str = BOT) -> dict[str, Any]:
        number = len(self.issues) + 1
        made = {"number": number, "title": title, "body": body, "state": "open", "user": {"login": author}}
        self.issues.append(made | {"html_url": f"{self.url}/i/{number}"})
        return self.issues[-1]

    def answer(self, method: str, target: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        if len(body.get("body", "")) > 65_536:
            return 422, {"message": "Validation Failed: body is too long (maximum is 65536 characters)"}
        url, query = urlparse(target), parse_qs(urlparse(target).query)
        comment, issue = COMMENT.fullmatch(url.path), ISSUES.fullmatch(url.path)
        if comment is not None and method == "PATCH":
            found = next(each for every in self.comments.values() for each in every if each["id"] == int(comment["id"]))
            return 200, _changed(found, body)
        if issue is None:
            return 404, {"message": "Not Found"}
        if issue["comments"]:
            number = int(issue["number"])
            every = self.comments.get(number, [])
            return (200, _page(every, query)) if method == "GET" else (201, self.add_comment(number, body["body"]))
        if issue["number"]:
            return 200, _changed(self.issues[int(issue["number"]) - 1], body)
        if method == "POST":
            return 201, self.add_issue(body["title"], body["body"])
        listed = [each for each in self.issues if each["state"] in query.get("state", ["open"])]
        return 200, _page([each for each in listed if each["user"]["login"] in query["creator"]], query)


def _changed(found: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    found.update(body)
    return found


def _page(every: list[dict[str, Any]], query: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    size, number = int(query.get("per_page", ["30"])[0]), int(query.get("page", ["1"])[0])
    return every[size * (number - 1) : size * number]


@contextmanager
def served() -> Iterator[GitHub]:
    """A server on a port of its own."""
    held = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            held.asked.append(f"{self.command} {self.path}")
            if held.fails:
                status, said = held.fails.pop(0), {"message": "failing"}
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, said = 401, {"message": "Bad credentials"}
            else:
                status, said = held.answer(self.command, self.path, body)
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PATCH = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield held
    finally:
        server.shutdown()


def pull_request_event(number: int, base: str, fork: bool = False) -> dict[str, Any]:
    head = "somebody/fusion" if fork else REPOSITORY
    return {
        "pull_request": {
            "number": number,
            "head": {"repo": {"full_name": head}},
            "base": {"sha": base, "repo": {"full_name": REPOSITORY}},
        }
    }


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())
    return found


@dataclass
class Ran:
    """A job that has run: by step, in order, its outcome and what it printed; and the job's outputs."""

    steps: dict[str, tuple[str, str]]
    outputs: dict[str, str]

    @property
    def failed(self) -> bool:
        return any(outcome == "failure" for outcome, _ in self.steps.values())


def run_job(
    job: Mapping[str, Any], checkout: Path, event: Mapping[str, Any], environment: Mapping[str, str], **contexts: Any
) -> Ran:
    """Run a job's scripts as GitHub would: with its `env`, `if` and outputs; actions of others are passed over."""
    folder = checkout.parent / "runner"
    folder.mkdir(exist_ok=True)
    output, event_file = folder / "output", folder / "event.json"
    event_file.write_text(json.dumps(event))
    github = {"event": event, "repository": REPOSITORY, "token": TOKEN}
    known: dict[str, Any] = {"github": github, "vars": {}, "matrix": {}, "needs": {}, "steps": {}, "env": {}} | contexts
    known["env"] = {name: _text(_filled(str(value), known)) for name, value in job.get("env", {}).items()}
    ran: dict[str, tuple[str, str]] = {}
    for number, step in enumerate(job["steps"]):
        name, failed = step.get("name", f"step {number}"), any(outcome == "failure" for outcome, _ in ran.values())
        outcome, printed, outputs = "skipped", "", {}
        if "run" in step and _holds(str(step.get("if", "success()")), known, failed):
            output.write_text("")
            own = {key: _text(_filled(str(value), known)) for key, value in step.get("env", {}).items()}
            given = environment | known["env"] | own
            given |= {"GITHUB_OUTPUT": str(output), "GITHUB_EVENT_PATH": str(event_file)}
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
                cwd=checkout,
                env=given,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=500,
                check=False,
            )
            outcome, printed = "failure" if done.returncode else "success", done.stdout
            outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
        ran[name] = (outcome, printed)
        if "id" in step:
            known["steps"][step["id"]] = {"outcome": outcome, "outputs": outputs}
    return Ran(ran, {key: _text(_filled(value, known)) for key, value in job.get("outputs", {}).items()})


def github_environment(github: GitHub, checkout: Path) -> dict[str, str]:
    """What GitHub sets for every step, without what this machine's own shell has of Fusion."""
    own = ("PULUMI_", "AWS_", "FUSION_", "GITHUB_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    summary = checkout.parent / "summary.md"
    return kept | {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": github.url,
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_STEP_SUMMARY": str(summary),
    }


EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
TOKENS = re.compile(r"'(?:[^']*)'|&&|\|\||!=|==|!|[A-Za-z_][\w.-]*(?:\(\))?|[()]")
WORDS = {"&&": "and", "||": "or", "!": "not", "!=": "!=", "==": "==", "(": "(", ")": ")"}


def _filled(text: str, known: Mapping[str, Any]) -> Any:
    whole = EXPRESSION.fullmatch(text)
    if whole is not None:
        return _value(whole[1], known, failed=False)
    return EXPRESSION.sub(lambda found: _text(_value(found[1], known, failed=False)), text)


def _holds(condition: str, known: Mapping[str, Any], failed: bool) -> bool:
    """An `if` without a function of status is joined with success()."""
    inner = condition.strip()
    whole = EXPRESSION.fullmatch(inner)
    inner = whole[1] if whole else inner
    if not re.search(r"(success|failure|always|cancelled)\(\)", inner):
        inner = f"success() && ({inner})"
    return bool(_value(inner, known, failed))


def _value(expression: str, known: Mapping[str, Any], failed: bool) -> Any:
    """Of the few operators that the workflows use, with Python's, which have the same precedence here."""
    status = {"success()": not failed, "failure()": failed, "always()": True, "cancelled()": False}
    names: dict[str, Any] = {}
    words = []
    for token in TOKENS.findall(expression):
        if token in WORDS:
            words.append(WORDS[token])
            continue
        names[f"v{len(names)}"] = token[1:-1] if token[0] == "'" else status.get(token, _looked_up(token, known))
        words.append(f"v{len(names) - 1}")
    return eval(" ".join(words), {"__builtins__": {}}, names)


def _looked_up(path: str, known: Mapping[str, Any]) -> Any:
    if path in ("true", "false"):
        return path == "true"
    value: Any = known
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
