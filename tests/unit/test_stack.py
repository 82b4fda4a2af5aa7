"""A stack's file as the CLI reads it: what is wrong is one sentence that names the file and the field."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusion.errors import FusionError
from fusion.stack import Stack


def stack(folder: Path, text: str) -> Stack:
    (folder / "stacks").mkdir()
    (folder / "stacks" / "Pulumi.local.yaml").write_text(text)
    return Stack("local", folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config: [", "not YAML"),
        ("", "config: not set"),
        ("config: 3", "config: not set"),
    ],
)
def test_a_file_that_is_no_stack_file_is_refused_with_its_path(tmp_path: Path, text: str, said: str) -> None:
    local = stack(tmp_path, text)
    with pytest.raises(FusionError, match=said) as error:
        _ = local.is_local
    assert str(local.file) in str(error.value)


def test_a_local_stack_without_its_settings_says_which_is_missing(tmp_path: Path) -> None:
    local = stack(tmp_path, "config: {'aws:profile': fusion-local, 'kubernetes:renderYamlToDirectory': 7}")
    with pytest.raises(FusionError, match=r"Pulumi\.local\.yaml: config: aws:region: null; expected a region of AWS"):
        local.region("aws")
    with pytest.raises(FusionError, match="kubernetes:renderYamlToDirectory: 7; expected the folder"):
        _ = local.manifests


def test_a_stack_that_is_not_there_names_those_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack(tmp_path, "config: {}")
    (tmp_path / "Pulumi.yaml").write_text("name: fusion\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FusionError, match=r"stack staging: .*Pulumi\.staging\.yaml does not exist; stacks here: local$"
    ):
        Stack.find("staging")


def test_ctrl_c_lets_pulumi_end_what_is_under_way(tmp_path: Path) -> None:
    """A CLI that is killed instead leaves its lock, and a resource that its state does not know."""
    stack(tmp_path, "config: {}")
    slow = "#!/bin/sh\ntrap 'sleep 1; touch ended; exit 1' INT\ntouch begun\nwhile :; do sleep 0.1; done\n"
    (tmp_path / "pulumi").write_text(slow)
    (tmp_path / "pulumi").chmod(0o755)
    program = (
        "from pathlib import Path\nfrom fusion.stack import Stack\n"
        f"Stack('local', Path({str(tmp_path)!r})).up(Path('events.jsonl'))"
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PATH": path},
        start_new_session=True,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a job in the background ignores
    )
    while process.poll() is None and not (tmp_path / "begun").exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=120)
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize(("added", "is_changed"), [("encryptionsalt: v1:x\n", False), ("tags: {}\n", True)])
def test_after_a_preview_git_sees_no_change_in_a_local_stack_that_only_got_a_salt(
    tmp_path: Path, added: str, is_changed: bool
) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    local = stack(tmp_path, "config: {'aws:profile': fusion-local}\n")
    (tmp_path / ".gitattributes").write_text((Path(__file__).parents[2] / ".gitattributes").read_text())
    git("init", "--quiet")
    git("config", "filter.fusion-local-stack.clean", "sed /^encryptionsalt:/d")
    git("add", ".")
    git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "all")
    with local.file.open("a") as file:
        file.write(added)
    assert git("status", "--porcelain") != ""
    local.pass_over_salt()
    assert (git("status", "--porcelain") != "") is is_changed
    assert git("diff", "--cached", "--name-only") == ""
