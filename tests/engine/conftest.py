"""The real Pulumi CLI on projects of its own: a backend, plugins and a local cloud that only the test has."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcloud import server
from localcloud.aws.inventory import inventory
from tests.engine import recording_provider

ROOT = Path(__file__).parents[2]
PACK = {"PULUMI_OPTION_POLICY_PACK": str(ROOT / "policies")}

SAFE = {
    "ami": "ami-12c6146b",
    "associate_public_ip_address": False,
    "metadata_options": {"http_tokens": "required"},
    "root_block_device": {
        "volume_size": 8,
        "encrypted": True,
        "kms_key_id": f"arn:aws:kms:us-east-1:123456789012:key/{uuid.uuid4()}",
    },
}


@dataclass
class Engine:
    """A project with one stack. Every call of the CLI gets `environment`; `FUSION_HOME` gives it a local cloud."""

    folder: Path
    environment: dict[str, str]
    stack: str = "local"
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def stack_file(self) -> Path:
        return self.folder / "stacks" / f"Pulumi.{self.stack}.yaml"

    @property
    def manifests(self) -> Path:
        return self.folder / "manifests"

    def configure(self, **changes: Any) -> None:
        """Write the stack's file; keys are `fusion:…` unless they hold a colon."""
        self.config |= {key if ":" in key else f"fusion:{key}": value for key, value in changes.items()}
        self.stack_file.parent.mkdir(exist_ok=True)
        self.stack_file.write_text(yaml.safe_dump({"config": self.config}))

    def program(self, text: str) -> None:
        """Make this the project's program; `SAFE` in it are inputs of an instance that every guardrail passes."""
        (self.folder / "__main__.py").write_text(f"SAFE = {SAFE!r}\n{textwrap.dedent(text)}")

    def start(self, *args: str, **more: str) -> "subprocess.Popen[str]":
        """Start the CLI in a process group of its own."""
        return subprocess.Popen(
            ["pulumi", *args, "--stack", self.stack, "--non-interactive"],
            cwd=self.folder,
            env=self.environment | more,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *args: str, status: int | None = 0, **more: str) -> str:
        """Run the CLI to its end and return what it printed; it must exit with `status` (None: anything but 0)."""
        process = self.start(*args, **more)
        output, _ = process.communicate(timeout=300)
        assert (process.returncode == status) if status is not None else process.returncode, output
        return output

    def up(self, *args: str, status: int | None = 0, **more: str) -> str:
        return self.run("up", "--yes", "--skip-preview", *args, status=status, **more)

    def preview(self, *args: str, status: int | None = 0, **more: str) -> str:
        return self.run("preview", *args, status=status, **more)

    def refresh(self, *args: str) -> str:
        return self.run("refresh", "--yes", "--skip-preview", *args)

    def destroy(self) -> str:
        return self.run("destroy", "--yes", "--skip-preview")

    def outputs(self) -> Any:
        return json.loads(self.run("stack", "output", "--json"))

    def state(self) -> list[dict[str, Any]]:
        """The resources in the stack's state."""
        deployment = json.loads(self.run("stack", "export"))["deployment"]
        return list(deployment.get("resources") or [])

    def exists(self) -> list[str]:
        """What is in the local AWS, asked through boto3; in one that was never asked for anything, nothing."""
        asked = self.folder / "fusion" / "localcloud" / "requests.jsonl"
        return inventory(self.ensure()) if asked.exists() else []

    def recorded(self) -> list[str]:
        """The names of what exists in the packages that are recorded (`record`)."""
        return recording_provider.recorded(self.folder / "recorded")

    def ensure(self) -> str:
        """The address of this test's local cloud."""
        done = self._server("ensure()")
        return done.strip()

    def kill_server(self) -> None:
        """End the local cloud's server as a crash would; its state stays on disk."""
        self._server("kill()")

    def _server(self, call: str) -> str:
        script = f"from localcloud import server; print(server.{call})"
        done = subprocess.run(
            [sys.executable, "-c", script], env=self.environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout


def kill_group(process: "subprocess.Popen[str]") -> None:
    """kill -9 of the CLI alone; its plugins notice by themselves."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def make_engine(folder: Path, main: str) -> Engine:
    folder.mkdir(parents=True)
    home = folder / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "AWS_"))}
    environment |= {
        "PATH": f"{ROOT / '.fusion/bin'}{os.pathsep}{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "FUSION_HOME": str(folder / "fusion"),
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": f"file://{home}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_OPTION_GENERATE_CODE": "false",
    }
    home.mkdir()
    project = {
        "name": "fusion",
        "main": main,
        "stackConfigDir": "stacks",
        "runtime": {"name": "python", "options": {"virtualenv": str(ROOT / ".venv")}},
    }
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    engine = Engine(folder, environment)
    engine.configure(
        **{
            "aws:region": "us-east-1",
            "aws:profile": "fusion-local",
            "kubernetes:renderYamlToDirectory": str(engine.manifests),
        }
    )
    subprocess.run(
        ["pulumi", "stack", "init", engine.stack], cwd=folder, env=environment, check=True, capture_output=True
    )
    return engine


def record(engine: Engine, *packages: str) -> None:
    """Let a plugin serve these packages that takes every resource and writes down what was created."""
    plugins = engine.folder / "plugins"
    plugins.mkdir()
    for package in packages:
        plugin = plugins / f"pulumi-resource-{package}"
        serves = f"{sys.executable} -m {recording_provider.__name__} {package} {engine.folder / 'recorded'}"
        plugin.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {serves}\n")
        plugin.chmod(0o755)
    engine.environment["PATH"] = f"{plugins}{os.pathsep}{engine.environment['PATH']}"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A project whose program the test writes."""
    engine = make_engine(tmp_path / "project", ".")
    engine.program("")
    yield engine
    monkeypatch.setenv("FUSION_HOME", engine.environment["FUSION_HOME"])
    server.stop()


DIGITS = {
    "kind": "training",
    "name": "digits",
    "image": f"registry.example.com/fusion/training@sha256:{64 * '0'}",
    "price_model": "spot",
    "needs": {"accelerator": "A10G", "accelerators": 1, "vcpus": 3, "memory_gib": 12},
    "nodes": {"min": 0, "desired": 1, "max": 2},
}


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """This checkout's own program, on a stack like `local`."""
    engine = make_engine(tmp_path / "project", str(ROOT / "infra"))
    engine.configure(
        workloads=[DIGITS],
        guardrails={"monthly_cost_limit_usd": 1500, "budget_required": True},
        budget_alarms={"emails": ["ml-platform@example.com"]},
        object_store={"delete_with_contents": True},
    )
    yield engine
    monkeypatch.setenv("FUSION_HOME", engine.environment["FUSION_HOME"])
    server.stop()
