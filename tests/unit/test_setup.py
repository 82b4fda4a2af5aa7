"""What `make setup` promises: a checkout that is ready, once; and one clear message where it can't be."""

import functools
import hashlib
import http.server
import os
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import setup


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set-up works on folders of this test alone, and finds no pulumi."""
    monkeypatch.setattr(setup, "FUSION", tmp_path / ".fusion")
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(setup, "RELEASES", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    (tmp_path / "path").mkdir()
    return tmp_path


def fake_cli(path: Path, version: str = "v3.250.0") -> Path:
    """A file that answers `pulumi version`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    setup.write_executable(path, f"#!/bin/sh\necho {version}\n")
    return path


def sourced(folder: Path, variable: str, **exported: str) -> str:
    """A variable in a shell that has sourced the file that set-up wrote."""
    script = f'. "{folder}/.fusion/env"; printf %s "${variable}"'
    environment = {"PATH": os.environ["PATH"]} | exported
    done = subprocess.run(["bash", "-uc", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("v3.250.0", True),
        ("v3.251.1", True),
        ("3.1000.0-dev", True),
        ("v3.249.9", False),
        ("v4.0.0", False),
        ("", False),
    ],
)
def test_a_cli_of_the_pinned_minor_or_newer_will_do(version: str, good: bool) -> None:
    assert setup.is_new_enough(version) is good


def test_a_cli_on_path_is_used(checkout: Path) -> None:
    on_path = fake_cli(checkout / "path" / "pulumi", "v3.260.0")
    assert setup.find_cli() == on_path


def test_the_cli_of_this_checkout_is_not_taken_for_one_on_path(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cli(checkout / ".fusion" / "bin" / "pulumi")
    monkeypatch.setenv("PATH", f"{checkout / '.fusion' / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(setup.SetupError, match="there is none"):
        setup.cli_on_path()


def test_one_message_lists_what_was_tried_and_what_to_install(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_cli(checkout / "path" / "pulumi", "v3.100.0")
    monkeypatch.setattr(setup.shutil, "which", lambda name, path=None: str(old) if name == "pulumi" else None)
    with pytest.raises(setup.SetupError) as refused:
        setup.find_cli()
    message = str(refused.value)
    for part in (
        "v3.100.0, 3.250.0 or newer is needed",
        "did not answer",
        "go is not on PATH",
        "Install Pulumi 3.250.0",
    ):
        assert part in message


def test_a_cli_that_was_built_before_is_not_built_again(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = hashlib.sha256(b"".join(setup.cli_sources())).hexdigest()[:12]
    cached = fake_cli(checkout / "cache" / "pulumi" / f"3.250.0-{key}" / "pulumi")
    monkeypatch.setattr(setup, "run", lambda *_, **__: pytest.fail("it was built again"))
    fake_cli(checkout / "path" / "go")
    assert setup.cli_from_source() == cached


@pytest.fixture
def release(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The archive of a release for this machine, on a site that serves its folder."""
    machine = {"x86_64": "x64"}.get(os.uname().machine, "arm64")
    platform = f"{os.uname().sysname.lower()}-{machine}"
    archive = checkout / "site" / "v3.250.0" / f"pulumi-v3.250.0-{platform}.tar.gz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, mode="w:gz") as files:
        files.add(fake_cli(checkout / "made" / "pulumi"), "pulumi/pulumi")
    monkeypatch.setitem(setup.RELEASE_SHA256, platform, hashlib.sha256(archive.read_bytes()).hexdigest())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=checkout / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        monkeypatch.setattr(setup, "RELEASES", f"http://127.0.0.1:{site.server_port}")
        yield archive
        site.shutdown()


def test_the_official_release_is_used_where_its_site_answers(checkout: Path, release: Path) -> None:
    fake_cli(checkout / "path" / "pulumi", "v3.100.0")
    found = setup.find_cli()
    assert found == checkout / "cache" / "pulumi" / "3.250.0-release" / "pulumi" / "pulumi"
    assert os.access(found, os.X_OK)
    release.unlink()
    assert setup.find_cli() == found  # kept


def test_an_archive_that_is_not_the_pinned_one_is_refused_and_leaves_nothing(checkout: Path, release: Path) -> None:
    release.write_bytes(release.read_bytes() + b"more")
    with pytest.raises(setup.SetupError, match=r"its checksum is .* was expected; nothing was installed"):
        setup.cli_of_release()
    assert not list((checkout / "cache" / "pulumi").glob("3.250.0-release*"))


def test_the_pinned_checksums_are_of_every_platform_that_has_a_release() -> None:
    assert sorted(setup.RELEASE_SHA256) == ["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"]
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in setup.RELEASE_SHA256.values())


def test_a_cli_on_path_that_can_not_be_run_is_told_and_passed_over(checkout: Path) -> None:
    broken = checkout / "path" / "pulumi"
    broken.write_bytes(b"\x7fELF nothing that runs")
    broken.chmod(0o755)
    with pytest.raises(setup.SetupError, match=f"pulumi on PATH: {broken} can't be run"):
        setup.cli_on_path()


def test_fusions_language_host_stands_in_where_none_came_with_the_cli(checkout: Path) -> None:
    built = fake_cli(checkout / "cache" / "pulumi" / "3" / "pulumi")
    for _ in range(2):  # a second time changes nothing
        setup.write_shell_files(built)
        folder = checkout / ".fusion" / "bin"
        assert {path.name for path in folder.iterdir()} == {"pulumi", "pulumi-language-python"}
        assert (folder / "pulumi").samefile(built)
        # the engine looks beside the resolved path of the CLI, and says nothing where it finds the host there
        assert (folder / "pulumi").resolve().parent == folder.resolve()


def test_a_language_host_that_came_with_the_cli_is_left_alone(checkout: Path) -> None:
    released = fake_cli(checkout / "release" / "pulumi")
    fake_cli(checkout / "release" / "pulumi-language-python")
    setup.write_shell_files(released)
    assert [path.name for path in (checkout / ".fusion" / "bin").iterdir()] == ["pulumi"]
    assert (checkout / ".fusion" / "bin" / "pulumi").resolve() == released


def test_the_sourced_file_keeps_a_users_own_backend_and_passphrase(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ROOT", checkout)
    setup.write_shell_files(fake_cli(checkout / "release" / "pulumi"))
    assert sourced(checkout, "PULUMI_BACKEND_URL") == f"file://{checkout}/.fusion/state?metadata=skip"
    assert sourced(checkout, "PULUMI_CONFIG_PASSPHRASE") == ""
    assert sourced(checkout, "PULUMI_BACKEND_URL", PULUMI_BACKEND_URL="s3://mine") == "s3://mine"
    another = {"FUSION_HOME": "/other/.fusion", "PULUMI_BACKEND_URL": "file:///other/.fusion/state?metadata=skip"}
    assert sourced(checkout, "PULUMI_BACKEND_URL", **another) == f"file://{checkout}/.fusion/state?metadata=skip"
    assert sourced(checkout, "PULUMI_CONFIG_PASSPHRASE", PULUMI_CONFIG_PASSPHRASE="own") == "own"
    assert sourced(checkout, "PULUMI_OPTION_POLICY_PACK") == f"{checkout}/policies"
    assert sourced(checkout, "PATH").startswith(f"{checkout}/.fusion/bin:{checkout}/.venv/bin:")


def test_a_failing_command_is_told_with_its_last_lines(checkout: Path) -> None:
    with pytest.raises(setup.SetupError, match="sh ended with status 3:\n  no space left"):
        setup.run("sh", "-c", "echo no space left >&2; exit 3")


def test_bytecode_is_kept_where_an_image_forbids_it(checkout: Path) -> None:
    setup.write_shell_files(fake_cli(checkout / "release" / "pulumi"))
    assert sourced(checkout, "{PYTHONDONTWRITEBYTECODE-unset}", PYTHONDONTWRITEBYTECODE="1") == "unset"


def test_local_stacks_are_there_at_once_and_only_once(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "ROOT", checkout)
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    (checkout / "Pulumi.yaml").write_text("name: fusion\nruntime: python\n")
    (checkout / "stacks").mkdir()
    for name, profile in (("here", "fusion-local"), ("real", "production")):
        (checkout / "stacks" / f"Pulumi.{name}.yaml").write_text(f"config:\n  aws:profile: {profile}\n")
    called = checkout / "called"
    script = f'#!/bin/sh\necho "$PULUMI_BACKEND_URL" "$@" >>"{called}"\n'
    (checkout / ".fusion" / "bin").mkdir(parents=True)
    setup.write_executable(checkout / ".fusion" / "bin" / "pulumi", script)
    setup.make_local_stacks()
    backend = f"file://{checkout}/.fusion/state?metadata=skip"
    assert called.read_text() == f"{backend} stack init here --no-select --non-interactive\n"

    (checkout / ".fusion" / "state" / ".pulumi" / "stacks" / "fusion").mkdir(parents=True)
    (checkout / ".fusion" / "state" / ".pulumi" / "stacks" / "fusion" / "here.json").write_text("{}")
    setup.make_local_stacks()
    assert len(called.read_text().splitlines()) == 1


def test_in_the_shell_of_another_checkout_the_stacks_are_made_here(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ROOT", checkout)
    monkeypatch.setenv("FUSION_HOME", "/other/.fusion")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///other/.fusion/state?metadata=skip")
    (checkout / "Pulumi.yaml").write_text("name: fusion\nruntime: python\n")
    (checkout / "stacks").mkdir()
    (checkout / "stacks" / "Pulumi.here.yaml").write_text("config:\n  aws:profile: fusion-local\n")
    backends: list[str] = []
    monkeypatch.setattr(setup, "run", lambda *_, env, **__: backends.append(env["PULUMI_BACKEND_URL"]))
    setup.make_local_stacks()
    assert backends == [f"file://{checkout}/.fusion/state?metadata=skip"]


def test_in_a_backend_of_the_teams_own_no_stack_is_made(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://ours")
    monkeypatch.setattr(setup, "run", lambda *_, **__: pytest.fail("a stack was made"))
    setup.make_local_stacks()


@pytest.mark.parametrize(
    ("added", "is_changed"),
    [
        ("encryptionsalt: v1:x\n", False),
        ("encryptionsalt: v1:x\n  c: d\n", True),
        ("  c:\n    secure: v1:y\nencryptionsalt: v1:x\n", True),
    ],
)
def test_the_salt_of_a_local_stack_is_no_change_unless_values_are_encrypted_with_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, added: str, is_changed: bool
) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True).stdout

    attributes = (setup.ROOT / ".gitattributes").read_text()
    monkeypatch.setattr(setup, "ROOT", checkout)
    stack_file = checkout / "stacks" / "Pulumi.local.yaml"
    stack_file.parent.mkdir()
    stack_file.write_text(f"config:\n  {setup.LOCAL_CLOUDS[0]}\n")
    (checkout / ".gitattributes").write_text(attributes)
    git("init", "--quiet")
    git("add", ".gitattributes", "stacks")
    git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "all")
    with stack_file.open("a") as file:
        file.write(added)
    setup.keep_salt_out_of_git()
    assert (git("status", "--porcelain", "stacks") != "") is is_changed
    assert git("diff", "--cached", "--name-only") == ""
    if "secure" in added:
        git("add", "stacks")
        assert "encryptionsalt" in git("show", ":stacks/Pulumi.local.yaml")


def test_a_cache_that_can_not_be_written_is_one_sentence_with_the_way_out(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "file").touch()
    monkeypatch.setattr(setup, "CACHE", checkout / "file" / "cache")
    assert setup.main() == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "XDG_CACHE_HOME" in line]
    assert said.startswith(f"setup: {checkout / 'file'}")
