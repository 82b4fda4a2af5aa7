"""The workflows are pinned, ask for the least, and their commands speak with GitHub as they should."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from fusion.commands import changed, comment, issue
from fusion.errors import FusionError
from fusion.stack import Stack
from tests.unit.github import BOT, REPOSITORY, TOKEN, WORKFLOWS, GitHub, pull_request_event, served, workflow

NAMES = ("preview", "up", "drift")
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def steps(name: str) -> list[dict]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", NAMES)
def test_every_action_is_pinned_by_a_full_commit_with_its_version_beside_it(name):
    used = re.findall(r"uses: (.*)", (WORKFLOWS / f"{name}.yml").read_text())
    assert used and all(PINNED.fullmatch(each) for each in used)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_granted_but_what_a_job_names(name):
    found = workflow(name)
    assert found["permissions"] == {}
    for job in found["jobs"].values():
        allowed = {"contents": "read", "id-token": "write"}
        allowed |= {"pull-requests": "write"} if name == "preview" else {"issues": "write"} if name == "drift" else {}
        assert job["permissions"].items() <= allowed.items()
        assert all(
            step["with"]["persist-credentials"] is False for step in job["steps"] if "checkout" in step.get("uses", "")
        )


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_named_and_no_foreign_text_is_pasted_into_a_script(name):
    text = (WORKFLOWS / f"{name}.yml").read_text()
    assert "secrets." not in text and "pull_request_target" not in text
    assert not any("${{" in step["run"] for step in steps(name) if "run" in step)


@pytest.mark.parametrize("name", NAMES)
def test_every_script_is_a_command_of_this_repository(name):
    for step in steps(name):
        for line in step.get("run", "").splitlines():
            assert re.match(
                r"make setup$|\. \.fusion/env$|exit 1$|(stacks=\$\()?fusion [a-z]+ |echo \"stacks=", line
            ), line


def test_only_up_waits_for_an_approval_and_each_stack_has_its_own_queue():
    assert workflow("up")["jobs"]["up"]["environment"] == "${{ matrix.stack }}"
    for name in ("preview", "drift"):
        assert workflow(name)["jobs"][name]["environment"] == "${{ matrix.stack }}-preview"
    up = workflow("up")["jobs"]["up"]["concurrency"]
    assert up == {"group": "stack-${{ matrix.stack }}"}
    assert "concurrency" not in workflow("up")  # one run waits in a queue: of all stacks it would drop a merge's
    queues = [up["group"], *(workflow(name)["concurrency"]["group"] for name in ("preview", "drift"))]
    assert len(set(queues)) == len(queues)


def test_a_newer_push_takes_the_place_of_the_preview_before_it():
    queue = workflow("preview")["concurrency"]
    assert queue == {"group": "preview-${{ github.event.pull_request.number }}", "cancel-in-progress": True}


def test_a_branch_can_require_one_check_that_fails_with_any_stack_and_is_skipped_without_any():
    gate = workflow("preview")["jobs"]["guardrails"]
    assert (gate["needs"], gate["if"]) == (["stacks", "preview"], "${{ failure() || cancelled() }}")
    assert [each["run"] for each in gate["steps"]] == ["exit 1"]


@pytest.fixture(scope="session")
def actionlint(tmp_path_factory) -> str:
    found = shutil.which("actionlint")
    if found is None and shutil.which("go") is None:
        pytest.skip("needs actionlint, or Go to build it")
    if found is None:
        folder = tmp_path_factory.mktemp("actionlint")
        subprocess.run(["go", "install", ACTIONLINT], env=os.environ | {"GOBIN": str(folder)}, check=True, timeout=500)
        found = str(folder / "actionlint")
    return found


def test_actionlint_finds_nothing(actionlint):
    files = [str(WORKFLOWS / f"{name}.yml") for name in NAMES]
    done = subprocess.run([actionlint, "-no-color", *files], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


@pytest.fixture
def github(monkeypatch, tmp_path):
    with served() as held:
        event = tmp_path / "event.json"
        event.write_text(json.dumps(pull_request_event(7, "base")))
        for name, value in {
            "GITHUB_API_URL": held.url,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        }.items():
            monkeypatch.setenv(name, value)
        yield held


def report(folder: Path, stack: str = "prod", said: str = "first") -> str:
    path = folder / f"{stack}.md"
    path.write_text(f"<!-- fusion:{stack} -->\n{said}\n")
    return str(path)


def told(command, *args: str):
    ran = CliRunner().invoke(command, list(args))
    if ran.exception is not None:
        raise ran.exception
    return ran.output


def bodies(github: GitHub) -> list[str]:
    return [each["body"] for each in github.comments.get(7, [])]


def test_each_stack_has_one_comment_that_is_written_over(github, tmp_path):
    for stack, said in (("prod", "first"), ("dev", "other"), ("prod", "second")):
        told(comment.command, "-s", stack, report(tmp_path, stack, said))
    assert bodies(github) == ["<!-- fusion:prod -->\nsecond\n", "<!-- fusion:dev -->\nother\n"]
    assert (tmp_path / "summary.md").read_text().count("second") == 1


def test_a_comment_that_says_the_same_is_left_alone(github, tmp_path):
    for _ in range(2):
        told(comment.command, "-s", "prod", report(tmp_path))
    assert [each.split()[0] for each in github.asked] == ["GET", "POST", "GET"]


def test_the_comment_is_found_behind_hundreds_of_others(github, tmp_path):
    for number in range(250):
        github.add_comment(7, f"talk {number}", "somebody")
    told(comment.command, "-s", "prod", report(tmp_path))
    told(comment.command, "-s", "prod", report(tmp_path, said="second"))
    assert [each for each in bodies(github) if each.startswith("<!--")] == ["<!-- fusion:prod -->\nsecond\n"]


def test_what_somebody_else_wrote_is_never_written_over(github, tmp_path):
    github.add_comment(7, "<!-- fusion:prod -->\nmine", "somebody")
    github.add_comment(7, "I quote: <!-- fusion:prod -->", BOT)
    told(comment.command, "-s", "prod", report(tmp_path))
    assert len(bodies(github)) == 3
    assert bodies(github)[0].endswith("mine")


def test_a_fork_gets_its_report_in_the_summary_and_no_comment(github, tmp_path):
    (tmp_path / "event.json").write_text(json.dumps(pull_request_event(7, "base", fork=True)))
    told(comment.command, "-s", "prod", report(tmp_path))
    told(comment.command, "-s", "real")
    summary = (tmp_path / "summary.md").read_text()
    assert "first" in summary and "<code>real</code>: not previewed" in summary
    assert github.asked == []


def test_a_passing_fault_is_tried_again_and_a_lasting_one_is_one_sentence(github, tmp_path):
    github.fails = [502]
    told(comment.command, "-s", "prod", report(tmp_path))
    assert len(bodies(github)) == 1
    github.fails = [403]
    with pytest.raises(FusionError, match=r"GitHub answered 403 to GET .*: failing"):
        told(comment.command, "-s", "prod", report(tmp_path))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("GITHUB_TOKEN", "wrong", "401 .* Bad credentials"),
        ("GITHUB_TOKEN", "", "GITHUB_TOKEN is not set"),
        ("GITHUB_API_URL", "http://127.0.0.1:9", "GitHub does not answer"),
        ("GITHUB_EVENT_PATH", "/nowhere", "expected the event of a pull request"),
    ],
)
def test_a_wrong_environment_is_one_sentence(github, tmp_path, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(FusionError, match=said):
        told(comment.command, "-s", "prod", report(tmp_path))


def test_a_report_of_another_stack_is_refused(github, tmp_path):
    with pytest.raises(FusionError, match="does not start with <!-- fusion:dev -->"):
        told(comment.command, "-s", "dev", report(tmp_path))


def test_drift_has_one_issue_until_it_is_over(github, tmp_path):
    github.add_issue("Stack prod is not as its program says", "<!-- fusion:prod -->", "somebody")
    assert "no open issue" in told(issue.command, "-s", "prod")
    for said in ("first", "second"):
        told(issue.command, "-s", "prod", report(tmp_path, said=said))
    own = github.issues[1:]
    assert [(each["state"], each["body"]) for each in own] == [("open", "<!-- fusion:prod -->\nsecond\n")]
    assert "closed" in told(issue.command, "-s", "prod")
    assert [each["state"] for each in github.issues] == ["open", "closed"]
    told(issue.command, "-s", "prod", report(tmp_path, said="again"))
    assert [each["state"] for each in github.issues] == ["open", "closed", "open"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a local stack and one of AWS, and a first commit."""
    root = tmp_path / "checkout"
    for path, text in {
        "Pulumi.yaml": "name: fusion\n",
        "stacks/Pulumi.local.yaml": "config: {'aws:profile': fusion-local, 'aws:region': us-east-1}\n",
        "stacks/Pulumi.prod.eu.yaml": "config: {'aws:region': eu-west-1, 'gcp:project': p}\n",
        "README.md": "x\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    monkeypatch.chdir(root)
    git(root, "init", "-q")
    commit(root)
    return root


def git(root: Path, *args: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    return subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a change")


@pytest.mark.parametrize(
    ("path", "stacks"),
    [
        ("stacks/Pulumi.prod.eu.yaml", ["prod.eu"]),
        ("stacks/Pulumi.local.yaml", ["local"]),
        ("stacks/model.json", ["local", "prod.eu"]),
        ("infra/aws/cluster.py", ["local", "prod.eu"]),
        ("planner/a.py", ["local", "prod.eu"]),
        ("policies/a.py", ["local", "prod.eu"]),
        ("Pulumi.yaml", ["local", "prod.eu"]),
        ("requirements.lock", ["local", "prod.eu"]),
        ("localcloud/a.py", ["local"]),
        ("README.md", []),
        ("docs/infra/x.md", []),
        ("odd name\nü.md", []),
    ],
)
def test_which_stacks_a_file_can_change(checkout, path, stacks):
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    with (checkout / path).open("a") as file:
        file.write("# a change\n")
    commit(checkout)
    found = json.loads(told(changed.command, "--base", "HEAD~1"))
    assert [each["stack"] for each in found] == stacks


def test_a_job_learns_where_to_sign_in(checkout):
    assert json.loads(told(changed.command)) == [
        {"stack": "local", "local": True, "aws_region": "", "gcp_project": ""},
        {"stack": "prod.eu", "local": False, "aws_region": "eu-west-1", "gcp_project": "p"},
    ]
    assert [each["stack"] for each in json.loads(told(changed.command, "--deployed", "--base", "0" * 40))] == [
        "prod.eu"
    ]


def test_what_the_base_gained_meanwhile_is_not_the_changes(checkout):
    git(checkout, "checkout", "-qb", "change")
    (checkout / "README.md").write_text("y\n")
    commit(checkout)
    git(checkout, "checkout", "-q", "-")
    (checkout / "stacks/Pulumi.local.yaml").write_text("config: {}\n")
    commit(checkout)
    assert json.loads(told(changed.command, "--base", "HEAD", "--head", "change")) == []


def test_a_deleted_or_unreadable_stack_stops_no_other(checkout):
    (checkout / "stacks/Pulumi.prod.eu.yaml").unlink()
    (checkout / "stacks/Pulumi.local.yaml").write_text("config: [\n")
    commit(checkout)
    found = json.loads(told(changed.command, "--base", "HEAD~1"))
    assert found == [{"stack": "local", "local": False, "aws_region": "", "gcp_project": ""}]


def test_a_commit_that_is_not_there_and_a_file_that_is_no_stacks_are_one_sentence(checkout):
    with pytest.raises(FusionError, match="--base abc: git can't compare"):
        told(changed.command, "--base", "abc")
    (checkout / "stacks/Pulumi.a b.yaml").write_text("")
    with pytest.raises(FusionError, match="is no stack's file"):
        told(changed.command)


def test_a_stack_of_a_real_cloud_does_not_keep_its_state_on_a_machine_of_github(checkout, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///somewhere")
    with pytest.raises(FusionError, match="PULUMI_BACKEND_URL"):
        Stack.find("prod.eu").select()
