"""`fusion changed`: which stacks a change of this repository can change."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import click

from fusion.errors import FusionError
from fusion.stack import Stack, project_root

STACK_FILE = re.compile(r"stacks/Pulumi\.(?P<stack>[A-Za-z0-9_.-]{1,100})\.yaml")
OF_ALL_FOLDERS = {"infra", "planner", "policies", "stacks"}
"""Besides the stacks' own files, `stacks` holds what they name, such as profiles of models."""
OF_ALL_FILES = {"Pulumi.yaml", "requirements.lock", "pyproject.toml"}
OF_LOCAL_FOLDERS = {"localcloud"}
NOTHING = re.compile("0{40}")
"""What GitHub names as the commit before the first push of a branch."""


@click.command(name="changed")
@click.option("--base", help="Commit that the change starts from; without it every stack is listed.")
@click.option("--head", default="HEAD", show_default=True, help="Commit that the change ends with.")
@click.option("--deployed", is_flag=True, help="Without stacks that run on this machine only.")
def command(base: str | None, head: str, deployed: bool) -> None:
    """List the stacks that a change can change, as JSON for a workflow's matrix.

    A stack's file changes that stack; the program, the planner, the policies, Pulumi.yaml and the lock change all;
    the local cloud changes the stacks that run on it. Stacks to start from, which have a page in docs/stacks, are
    nobody's deployment and not listed: copy one under another name.
    """
    root = project_root()
    stacks = [Stack(name, root) for name in _names(root) if not (root / "docs/stacks" / f"{name}.md").exists()]
    touched = None if base is None or NOTHING.fullmatch(base) else _touched(root, base, head)
    chosen = [each for each in stacks if touched is None or _is_changed(each, touched)]
    click.echo(json.dumps([_entry(each) for each in chosen if not (deployed and _is_local(each))]))


def _names(root: Path) -> Iterator[str]:
    for path in sorted((root / "stacks").glob("Pulumi.*.yaml")):
        found = STACK_FILE.fullmatch(f"stacks/{path.name}")
        if found is None:
            raise FusionError(f"{path}: is no stack's file; a stack's name has letters, digits, '.', '_' and '-'")
        yield found["stack"]


def _touched(root: Path, base: str, head: str) -> list[str]:
    """Paths that differ between the commits' common ancestor and the head; a rename touches both names."""
    command = ["git", "diff", "--name-only", "--no-renames", "-z", f"{base}...{head}", "--"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise FusionError(f"--base {base}: git can't compare it with {head}: {reason}; fetch the whole history")
    return [path for path in done.stdout.split("\0") if path]


def _is_changed(stack: Stack, touched: Iterable[str]) -> bool:
    for path in touched:
        own = STACK_FILE.fullmatch(path)
        folder = PurePosixPath(path).parts[0]
        if own is not None:
            if own["stack"] == stack.name:
                return True
        elif path in OF_ALL_FILES or folder in OF_ALL_FOLDERS or (folder in OF_LOCAL_FOLDERS and _is_local(stack)):
            return True
    return False


def _entry(stack: Stack) -> dict[str, Any]:
    """What a job must know to sign in to the stack's clouds; nothing for a local stack."""
    config, is_local = _config(stack), _is_local(stack)
    return {
        "stack": stack.name,
        "local": is_local,
        "aws_region": "" if is_local else _text(config.get("aws:region")),
        "gcp_project": "" if is_local else _text(config.get("gcp:project")),
    }


def _is_local(stack: Stack) -> bool:
    return bool(_config(stack)) and stack.is_local


def _config(stack: Stack) -> Mapping[str, Any]:
    """Empty where the file can't be read; the stack's preview then says what is wrong with it."""
    try:
        return stack.config
    except FusionError:
        return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
