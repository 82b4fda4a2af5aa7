"""Sets this checkout up: `make setup`, and part of `make up` and `make test`. Plain Python 3.11, nothing to install
first.

Makes `.venv` from the lock, finds or builds the Pulumi CLI, and writes `.fusion/env`, the file to source in a shell.
A second run finds its stamps and does nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUSION = ROOT / ".fusion"
VENV = ROOT / ".venv"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusion"

PULUMI_VERSION = "3.250.0"
RELEASES = "https://github.com/pulumi/pulumi/releases/download"
RELEASE_SHA256 = {
    "darwin-arm64": "dbd289ce3069cf567683252082e226aef533775f546df7286f64f3f36f5fda28",
    "darwin-x64": "8aa1615ed737022949d4050bf183ab37bce1f9cecb88877bc6636db82604e348",
    "linux-arm64": "deb4bf0d05b4cbaf3adcf82ffa44039ad0ebf039e33338ead8136877a437b4e5",
    "linux-x64": "8916fd36ccc96adbd45ca679194b685e3b767d94502ae05610878a6d9870b8f3",
}
"""Of the release's archives, by platform: github.com/pulumi/homebrew-tap, Formula/pulumi.rb at f745989 (2026-07-02)."""
RELEASE_TIMEOUT_S = 10
CLI_TIMEOUT_S = 60
PULUMI_COMMAND = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
GO_LDFLAGS = f"-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{PULUMI_VERSION}"

UV_VERSION = "0.13.9"
UV_REQUIREMENT = ROOT / "tools" / "uv.lock.txt"
HEARTBEAT_S = 15
LOCAL_CLOUDS = ("aws:profile: fusion-local", "gcp:project: fusion-local")
"""Lines of a stack's file, each of which puts the stack on this machine."""


class SetupError(Exception):
    """Nothing worked; the text says what was tried and what to install."""


def main() -> int:
    """Run every step that is not done yet; 0 when the checkout is ready."""
    try:
        with locked(FUSION / "setup.lock"):
            stamp = FUSION / "setup.stamp"
            wanted = fingerprint()
            if stamp.is_file() and stamp.read_text() == wanted and is_complete():
                keep_salt_out_of_git()
                return 0
            stamp.unlink(missing_ok=True)
            make_environment()
            cli = find_cli()
            write_shell_files(cli)
            make_local_stacks()
            keep_salt_out_of_git()
            stamp.write_text(wanted)
            say("ready: `source .fusion/env` puts pulumi and fusion on this shell's PATH")
    except SetupError as error:
        sys.stderr.write(f"setup: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"setup: {not_writable(error)}\n")
        return 1
    return 0


def not_writable(error: OSError) -> str:
    """What to do about a folder that can't be written, or a full disk."""
    return (
        f"{error.filename or ROOT}: {error.strerror or error}. Set-up writes into this checkout and into {CACHE}; "
        "make both writable, or name another folder for the latter in XDG_CACHE_HOME."
    )


def is_complete() -> bool:
    """Whether what the stamp stands for is still there."""
    return all((path).exists() for path in (VENV / "bin" / "fusion", FUSION / "bin" / "pulumi", FUSION / "env"))


def fingerprint() -> str:
    """Changes when anything that set-up depends on does, the CLI on PATH included."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT} {shutil.which('pulumi', path=outer_path())}".encode())
    for name in ("requirements.lock", "pyproject.toml", "tools/setup.py", "tools/uv.lock.txt"):
        digest.update((ROOT / name).read_bytes())
    digest.update(b"".join(cli_sources()))
    return digest.hexdigest()


def outer_path() -> str:
    """PATH without this checkout's own folders, which a sourced `.fusion/env` has put there."""
    own = {str(FUSION / "bin"), str(VENV / "bin")}
    return os.pathsep.join(part for part in os.environ.get("PATH", "").split(os.pathsep) if part not in own)


def say(message: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"setup: {message}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def step(doing: str) -> Iterator[None]:
    """Say what is done, that it is still being done, and how long it took."""
    say(f"{doing} ...")
    start, done = time.monotonic(), threading.Event()

    def heartbeat() -> None:
        while not done.wait(HEARTBEAT_S):
            say(f"  {doing}: {time.monotonic() - start:.0f} s so far")

    threading.Thread(target=heartbeat, daemon=True).start()
    try:
        yield
    finally:
        done.set()
    say(f"  done in {time.monotonic() - start:.1f} s")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file, so that two set-ups at once do the work once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run a command quietly.

    Raises:
        SetupError: it failed; with the last lines that it printed.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise SetupError(f"{Path(command[0]).name} ended with status {done.returncode}:\n  {last}")


def make_environment() -> None:
    """`.venv` with exactly what the lock says, every file checked by its hash."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older one is told
        raise SetupError(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; install it and run again")
    uv = find_uv()
    with step("installing the locked packages into .venv"):
        if not (VENV / "bin" / "python").exists():
            run(uv, "venv", "--quiet", "--python", sys.executable, VENV)
        python = VENV / "bin" / "python"
        run(uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, "requirements.lock")
        run(uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "--editable", ".")


def find_uv() -> Path:
    """uv from PATH, else the pinned one in a folder of its own in the user's cache."""
    if on_path := shutil.which("uv"):
        return Path(on_path)
    home = CACHE / f"uv-{UV_VERSION}"
    if not (home / "bin" / "uv").exists():
        with step(f"installing uv {UV_VERSION}"), locked(CACHE / "uv.lock"):
            run(sys.executable, "-m", "venv", home)
            run(home / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", UV_REQUIREMENT)
    return home / "bin" / "uv"


def find_cli() -> Path:
    """The Pulumi CLI: from PATH, else the official release, else built here.

    Raises:
        SetupError: none of them works.
    """
    tried = []
    for way in (cli_on_path, cli_of_release, cli_from_source):
        try:
            return way()
        except SetupError as error:
            tried.append(str(error))
            say(f"  {error}")
    listed = "\n  - ".join(tried)
    raise SetupError(
        f"no Pulumi CLI. Tried:\n  - {listed}\nInstall Pulumi {PULUMI_VERSION} or newer (pulumi.com/docs/install), or "
        "Go 1.25 or newer, and run again."
    )


def cli_on_path() -> Path:
    """A `pulumi` on PATH that is new enough."""
    found = shutil.which("pulumi", path=outer_path())
    if found is None:
        raise SetupError("pulumi on PATH: there is none")
    try:
        asked = subprocess.run([found, "version"], capture_output=True, text=True, check=False, timeout=CLI_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"pulumi on PATH: {found} can't be run ({error})") from None
    version = asked.stdout.strip()
    if not is_new_enough(version):
        raise SetupError(f"pulumi on PATH: {found} is {version or 'broken'}, {PULUMI_VERSION} or newer is needed")
    say(f"using {found} ({version})")
    return Path(found)


def is_new_enough(version: str) -> bool:
    """Whether a version such as `v3.251.1` is not older than the pinned one, and of the same major."""
    parts = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if parts is None:
        return False
    found = tuple(int(part) for part in parts.groups())
    pinned = tuple(int(part) for part in PULUMI_VERSION.split("."))
    return found >= pinned and found[0] == pinned[0]


def cli_of_release() -> Path:
    """The official release archive, if it is the one whose checksum is pinned here."""
    machine = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(os.uname().machine)
    platform = f"{os.uname().sysname.lower()}-{machine}"
    if platform not in RELEASE_SHA256:
        raise SetupError(f"official release: there is none for {os.uname().sysname} on {os.uname().machine}")
    archive = f"pulumi-v{PULUMI_VERSION}-{platform}.tar.gz"
    home = CACHE / "pulumi" / f"{PULUMI_VERSION}-release"
    if not (home / "pulumi" / "pulumi").exists():
        with locked(CACHE / "pulumi" / "release.lock"), step(f"downloading the official release, {archive}"):
            unpack_checked(download(f"{RELEASES}/v{PULUMI_VERSION}/{archive}"), RELEASE_SHA256[platform], home)
    return home / "pulumi" / "pulumi"


def download(url: str) -> bytes:
    """What an address answers."""
    try:
        with urllib.request.urlopen(url, timeout=RELEASE_TIMEOUT_S) as answer:
            body: bytes = answer.read()
            return body
    except (OSError, http.client.HTTPException) as error:
        raise SetupError(f"official release: its site did not answer ({getattr(error, 'reason', error)})") from None


def unpack_checked(archive: bytes, expected_sha256: str, home: Path) -> None:
    """Unpack an archive whose checksum is right; nothing is left of one whose checksum is wrong."""
    found = hashlib.sha256(archive).hexdigest()
    if found != expected_sha256:
        raise SetupError(
            f"official release: its checksum is {found}, {expected_sha256} was expected; nothing was installed"
        )
    fresh = home.with_name(f"{home.name}.{os.getpid()}")
    shutil.rmtree(home, ignore_errors=True)  # half of one, which would be in the way
    fresh.mkdir(parents=True)
    packed = fresh / "archive.tar.gz"
    packed.write_bytes(archive)
    with tarfile.open(packed) as files:
        files.extractall(fresh, filter="data")
    packed.unlink()
    fresh.rename(home)


def cli_from_source() -> Path:
    """The CLI built from its Go module, kept in the user's cache by version and by what it was built from."""
    go = shutil.which("go")
    if go is None:
        raise SetupError("building from source: go is not on PATH")
    sources = ROOT / "tools" / "pulumi"
    key = hashlib.sha256(b"".join(cli_sources())).hexdigest()[:12]
    home = CACHE / "pulumi" / f"{PULUMI_VERSION}-{key}"
    built = home / "pulumi"
    with locked(CACHE / "pulumi" / "build.lock"):
        if not built.exists():
            home.mkdir(parents=True, exist_ok=True)
            fresh = home / f"pulumi.{os.getpid()}"
            with step(f"building the Pulumi CLI {PULUMI_VERSION} from its Go module (4 to 8 minutes on 2 cores)"):
                flags = ("-trimpath", "-ldflags", GO_LDFLAGS, "-o", fresh)
                run(go, "build", *flags, PULUMI_COMMAND, cwd=sources, env={"CGO_ENABLED": "0"})
            fresh.rename(built)
    return built


def cli_sources() -> tuple[bytes, ...]:
    """What the CLI that we build depends on."""
    sources = ROOT / "tools" / "pulumi"
    return (sources / "go.mod").read_bytes(), (sources / "go.sum").read_bytes(), GO_LDFLAGS.encode()


def write_shell_files(cli: Path) -> None:
    """`.fusion/bin` and `.fusion/env`."""
    folder = FUSION / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    host = "pulumi-language-python"
    (folder / host).unlink(missing_ok=True)
    needs_host = not (cli.resolve().parent / host).exists() and shutil.which(host, path=outer_path()) is None
    put(folder / "pulumi", cli, as_hard_link=needs_host and cli.is_relative_to(CACHE))
    if needs_host:
        say("the CLI came without a Python language host; Fusion's own stands in")
        script = ROOT / "tools" / "language_host" / "host.py"
        write_executable(folder / host, f'#!/bin/sh\nexec "{VENV}/bin/python" "{script}" "$@"\n')
    (FUSION / "state").mkdir(exist_ok=True)
    (FUSION / "env").write_text(ENV.format(root=ROOT))


def make_local_stacks() -> None:
    """The stacks of the local cloud in `.fusion/state`, so that `pulumi preview -s local` works at once.

    Pulumi adds a salt to a stack's file, which belongs to the passphrase that is set, or to the empty one.
    """
    project = re.search(r"^name: *(\S+)", (ROOT / "Pulumi.yaml").read_text(), re.MULTILINE)
    of_a_checkout = f"file://{os.environ.get('FUSION_HOME')}/state?metadata=skip"
    if project is None or os.environ.get("PULUMI_BACKEND_URL", of_a_checkout) != of_a_checkout:
        return  # in a backend of their own, teams make their stacks themselves
    state = FUSION / "state"
    settings = {"PULUMI_BACKEND_URL": f"file://{state}?metadata=skip", "PULUMI_SKIP_UPDATE_CHECK": "true"}
    if not os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
        settings["PULUMI_CONFIG_PASSPHRASE"] = os.environ.get("PULUMI_CONFIG_PASSPHRASE", "")
    for stack in (path.name.split(".")[1] for path in local_stack_files()):
        if not (state / ".pulumi" / "stacks" / project.group(1) / f"{stack}.json").exists():
            command = ("stack", "init", stack, "--no-select", "--non-interactive")
            run(FUSION / "bin" / "pulumi", *command, cwd=ROOT, env=settings)


def local_stack_files() -> list[Path]:
    """The files of the stacks that run on the local cloud."""
    files = sorted((ROOT / "stacks").glob("Pulumi.*.yaml"))
    return [path for path in files if any(line in path.read_text() for line in LOCAL_CLOUDS)]


def keep_salt_out_of_git() -> None:
    """Let git pass over the salt that Pulumi writes into a local stack's file when it first uses the stack.

    Committed, it would shut out whoever has another passphrase. A file with encrypted values keeps it, as they can't be
    read without. `.gitattributes` names the files. Git looks into a file whose size has changed only when it is told to
    add it; nothing is staged where the salt is all that differs.
    """
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return  # a release archive: there is nothing to commit to
    run(git, "config", "--local", f"filter.{SALT_FILTER}.clean", WITHOUT_SALT, cwd=ROOT)
    for path in local_stack_files():
        same = subprocess.run([git, "diff", "--quiet", "HEAD", "--", path], cwd=ROOT, check=False, capture_output=True)
        if same.returncode == 0:
            run(git, "add", "--update", "--", path, cwd=ROOT)


SALT_FILTER = "fusion-local-stack"
WITHOUT_SALT = (
    "awk '/secure:/ {encrypted = 1} {line[NR] = $0} "
    "END {for (i = 1; i <= NR; i++) if (encrypted || line[i] !~ /^encryptionsalt:/) print line[i]}'"
)

ENV = """\
# Written by tools/setup.py; `source` it in bash or zsh. What is exported already for backend and passphrase stays.
# The backend of another checkout, whose file was sourced before, is no choice of the user's.
[ "${{PULUMI_BACKEND_URL-}}" != "file://${{FUSION_HOME-}}/state?metadata=skip" ] || unset PULUMI_BACKEND_URL
export FUSION_HOME="{root}/.fusion"
export VIRTUAL_ENV="{root}/.venv"
export PATH="{root}/.fusion/bin:{root}/.venv/bin:$PATH"
# Without metadata: a kill amid the writing of that second file would leave a state that Pulumi can't load ("EOF").
export PULUMI_BACKEND_URL="${{PULUMI_BACKEND_URL:-file://{root}/.fusion/state?metadata=skip}}"
[ -n "${{PULUMI_CONFIG_PASSPHRASE_FILE-}}" ] || export PULUMI_CONFIG_PASSPHRASE="${{PULUMI_CONFIG_PASSPHRASE-}}"
export PULUMI_OPTION_POLICY_PACK="{root}/policies"
export PULUMI_SKIP_UPDATE_CHECK=true
# `pulumi import` would end in an error after the import: the local cloud has no schemas to write a program from.
export PULUMI_OPTION_GENERATE_CODE="${{PULUMI_OPTION_GENERATE_CODE:-false}}"
# Many container images set this; without kept bytecode each preview compiles the SDKs' 100 MB of source anew.
unset PYTHONDONTWRITEBYTECODE
"""


def put(path: Path, target: Path, *, as_hard_link: bool) -> None:
    """A link in place of any earlier one, at no moment absent.

    With a hard link the engine takes the folder of the link for its own and finds the language host beside it;
    through a symbolic link it would warn on each call that the host comes from PATH.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    if as_hard_link:
        with contextlib.suppress(OSError):  # on another file system: the symbolic link works too, with the warning
            fresh.hardlink_to(target)
    if not fresh.exists():
        fresh.symlink_to(target)
    fresh.replace(path)
    fresh.unlink(missing_ok=True)  # stays where both names were one file already


def write_executable(path: Path, text: str) -> None:
    """A script that can be run."""
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


if __name__ == "__main__":
    sys.exit(main())
