"""The workflows' own scripts, run here as GitHub runs them: in a checkout of their own, on the local stack."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from localcloud import server
from localcloud.aws.api import CREDENTIALS
from tests.engine.conftest import ROOT
from tests.unit.github import GitHub, Ran, github_environment, pull_request_event, run_job, served, workflow

LOCAL = {"stack": "local", "local": True, "aws_region": "", "gcp_project": ""}


@pytest.fixture
def github() -> Iterator[GitHub]:
    with served() as held:
        yield held


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is in this checkout, committed or not, as the first commit of another one."""
    folder = tmp_path / "checkout"
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for path in (each for each in listed if each and (ROOT / each).is_file()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    git(folder, "init", "-q")
    commit(folder)
    yield folder
    monkeypatch.setenv("FUSION_HOME", str(folder / ".fusion"))
    server.stop()


def git(folder: Path, *args: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    done = subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    """Commit everything; returns the commit before."""
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a change")
    return git(folder, "rev-list", "--max-count=2", "HEAD").splitlines()[-1]


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "stacks/Pulumi.local.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def job(name: str, of: str, github: GitHub, folder: Path, event: dict[str, Any], **contexts: Any) -> Ran:
    return run_job(workflow(name)["jobs"][of], folder, event, github_environment(github, folder), **contexts)


def test_a_pull_request_is_previewed_and_told_and_told_anew(checkout: Path, github: GitHub) -> None:
    change(checkout, "max: 2", "max: 3")
    event = pull_request_event(7, commit(checkout))
    stacks = job("preview", "stacks", github, checkout, event)
    assert (stacks.failed, stacks.outputs["stacks"][:18]) == (False, '[{"stack": "local"')

    good = job("preview", "preview", github, checkout, event, matrix=LOCAL)
    assert not good.failed, good.steps
    assert good.steps["Say why there is no preview"][0] == "skipped"
    (first,) = github.comments[7]
    assert first["body"].startswith("<!-- fusion:local -->\n### ✅ <code>local</code>: ")
    assert (checkout / "preview.html").read_text().startswith("<!doctype html>")

    change(checkout, "max: 3", "max: 20")
    commit(checkout)
    bad = job("preview", "preview", github, checkout, event, matrix=LOCAL)
    assert bad.failed
    assert {step: bad.steps[step][0] for step in ("Preview", "Comment")} == {"Preview": "failure", "Comment": "success"}
    (again,) = github.comments[7]
    assert again["id"] == first["id"]
    assert "over the limit of $1,500.00" in again["body"]
    assert "over the limit of $1,500.00" in (checkout.parent / "summary.md").read_text()

    change(checkout, "config:", "config: [")
    broken = job("preview", "preview", github, checkout, event, matrix=LOCAL | {"local": False})
    assert broken.failed
    assert "not YAML" in again["body"]


def test_a_fork_is_previewed_where_no_credentials_are_needed_and_told_in_the_summary(
    checkout: Path, github: GitHub
) -> None:
    event = pull_request_event(7, "base", fork=True)
    summary = checkout.parent / "summary.md"
    real = job("preview", "preview", github, checkout, event, matrix=LOCAL | {"stack": "prod", "local": False})
    assert real.steps["Preview"][0] == real.steps["Comment"][0] == "skipped"
    assert "forks get no credentials" in summary.read_text()
    local = job("preview", "preview", github, checkout, event, matrix=LOCAL)
    assert not local.failed, local.steps
    assert "<!-- fusion:local -->" in summary.read_text()
    assert github.asked == []


def test_what_is_merged_is_provisioned_and_drift_is_an_issue_until_it_is_over(checkout: Path, github: GitHub) -> None:
    change(checkout, "epochs: 12", "epochs: 1")
    before = commit(checkout)
    stacks = job("up", "stacks", github, checkout, {"before": before})
    assert stacks.outputs["stacks"] == "[]"  # a local stack is not deployed by a workflow
    assert job("drift", "stacks", github, checkout, {}).outputs["stacks"] == "[]"

    up = job("up", "up", github, checkout, {"before": before}, matrix=LOCAL)
    assert not up.failed, up.steps
    assert "Stack local is up" in up.steps["Up"][1]

    calm = job("drift", "drift", github, checkout, {}, matrix=LOCAL)
    assert not calm.failed, calm.steps
    assert github.issues == []

    endpoint = subprocess.run(
        ["bash", "-c", ". .fusion/env && python -c 'from localcloud import server; print(server.ensure())'"],
        cwd=checkout,
        env=github_environment(github, checkout),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    ec2 = boto3.client("ec2", endpoint_url=endpoint, region_name="us-east-1", **CREDENTIALS)
    (vpc,) = (each for each in ec2.describe_vpcs()["Vpcs"] if not each["IsDefault"])
    ec2.create_tags(Resources=[vpc["VpcId"]], Tags=[{"Key": "team", "Value": "somebody else"}])
    drifted = job("drift", "drift", github, checkout, {}, matrix=LOCAL)
    assert drifted.failed
    assert drifted.steps["Tell of drift"][0] == "success"
    (issue,) = github.issues
    assert (issue["state"], "somebody else" in issue["body"]) == ("open", True)

    ec2.create_tags(Resources=[vpc["VpcId"]], Tags=[{"Key": "team", "Value": "ml-platform"}])
    over = job("drift", "drift", github, checkout, {}, matrix=LOCAL)
    assert not over.failed, over.steps
    assert [each["state"] for each in github.issues] == ["closed"]
