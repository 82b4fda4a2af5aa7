"""A stack of this checkout, driven through the Pulumi CLI."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fusion.errors import FusionError
from fusion.yaml_files import read_yaml

if TYPE_CHECKING:
    from localcloud.clouds import LocalCloud
    from localcloud.kubernetes.cluster import Cluster

PACK = "PULUMI_OPTION_POLICY_PACK"
"""Names the policy packs of previews and updates; this checkout's own unless it is set."""
LOGS_EVENTS = {"PULUMI_DEBUG_COMMANDS": "true"}
"""The CLI offers its log of events among the options for debugging."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack by name, in the project at ``root``."""

    name: str
    root: Path

    @classmethod
    def find(cls, name: str) -> Stack:
        """The stack of that name in the project that the current folder is in.

        Raises:
            FusionError: no project here, or it has no file for that stack.
        """
        root = project_root()
        stack = cls(name, root)
        if not stack.file.is_file():
            known = ", ".join(sorted(path.name.split(".")[1] for path in (root / "stacks").glob("Pulumi.*.yaml")))
            raise FusionError(f"stack {name}: {stack.file} does not exist; stacks here: {known or 'none'}")
        return stack

    @property
    def file(self) -> Path:
        """The stack's config file."""
        return self.root / "stacks" / f"Pulumi.{self.name}.yaml"

    @property
    def config(self) -> dict[str, Any]:
        """The stack's config as it is written in its file."""
        document = read_yaml(self.file)
        config = document.get("config") if isinstance(document, dict) else None
        if not isinstance(config, dict):
            raise FusionError(f"{self.file}: config: not set; expected the stack's settings below it")
        return config

    @property
    def is_local(self) -> bool:
        """Whether the stack runs on this machine's local cloud."""
        return bool(self.local_clouds)

    @property
    def local_clouds(self) -> dict[str, LocalCloud]:
        """By name, the clouds of this machine that the stack may be on; none for a stack on a real one."""
        from localcloud.clouds import LOCAL_CLOUDS

        config = self.config
        return {name: cloud for name, cloud in LOCAL_CLOUDS.items() if config.get(cloud.setting[0]) == cloud.setting[1]}

    @property
    def is_on_cluster(self) -> bool:
        """Whether its Kubernetes objects go to the control plane of this machine."""
        from localcloud.kubernetes import api_server

        config = self.config
        return config.get("fusion:kubernetes") == "cluster" or config.get("kubernetes:context") == api_server.CONTEXT

    @property
    def manifests(self) -> Path:
        """The folder that a local stack's Kubernetes objects are rendered to."""
        return self.root / self._setting("kubernetes:renderYamlToDirectory", "the folder to render objects to")

    def region(self, cloud: str) -> str:
        """The region that a stack is in if it is on a cloud."""
        if cloud == "gcp":
            return self._setting("gcp:region", "a region of Google Cloud, such as us-central1")
        return self._setting("aws:region", "a region of AWS, such as us-east-1")

    def _setting(self, key: str, expected: str) -> str:
        value = self.config.get(key)
        if not isinstance(value, str) or not value:
            raise FusionError(f"{self.file}: config: {key}: {json.dumps(value)}; expected {expected}")
        return value

    def cluster(self) -> Cluster:
        """The stack's cluster: the local one where its file says so, else the one that its program made.

        Raises:
            FusionError: it has none, or none yet.
        """
        from localcloud.kubernetes import api_server
        from localcloud.kubernetes.backend import read_kubeconfig
        from localcloud.kubernetes.cluster import Cluster
        from localcloud.provider import ProviderError

        context: str | None = None
        if self.is_on_cluster:
            named = self.config.get("kubernetes:kubeconfig")
            kubeconfig = str(self.root / named if named else api_server.kubeconfig_file())
            context = api_server.CONTEXT
        elif "kubernetes:renderYamlToDirectory" in self.config:
            raise FusionError(
                f"stack {self.name} renders its objects into {self.manifests} and has no cluster; run "
                f"`make cluster`, and set fusion:kubernetes: cluster in {self.file}"
            )
        else:
            kubeconfig = self.outputs().get("kubeconfig", "")
        try:
            return Cluster(read_kubeconfig(kubeconfig), context)
        except ProviderError as error:
            raise FusionError(f"stack {self.name}: {error}") from None

    def select(self) -> None:
        """Make the stack the current one; it is created in the backend when it is not there yet.

        The lock of an update that was killed on this machine is taken off: nothing will ever release it.

        Raises:
            FusionError: the backend can't be reached, or would be thrown away with this machine.
        """
        if os.environ.get("GITHUB_ACTIONS") == "true" and not self.is_local and _backend_of_files() is not None:
            raise FusionError(
                f"stack {self.name}: its state would be kept on this machine of GitHub Actions and be lost with it; "
                "set the variable PULUMI_BACKEND_URL of the repository or of the environment"
            )
        self._run("stack", "select", self.name, "--create", quiet=True)
        if self._is_locked_by_a_dead_process():
            self._run("cancel", "--yes", "--stack", self.name, quiet=True)

    def _is_locked_by_a_dead_process(self) -> bool:
        """Whether every lock in a backend of files is of this machine and its process has ended."""
        folder = _backend_of_files()
        if folder is None:
            return False
        project = yaml.safe_load((self.root / "Pulumi.yaml").read_text())["name"]
        held = Path(folder).expanduser() / ".pulumi" / "locks" / "organization" / project / self.name
        locks = [json.loads(path.read_text()) for path in held.glob("*.json")]
        return bool(locks) and all(
            lock["hostname"] == socket.gethostname() and not Path(f"/proc/{lock['pid']}").exists() for lock in locks
        )

    def up(self, event_log: Path) -> None:
        """`pulumi up`, shown as it goes; what the engine says is written to a file as well."""
        try:
            self._run("up", "--yes", "--stack", self.name, "--event-log", str(event_log))
        finally:
            self.pass_over_salt()

    def destroy(self, *urns: str) -> None:
        """`pulumi destroy`, shown as it goes; of everything, or of these resources alone."""
        targets = [word for urn in urns for word in ("--target", urn)]
        self._run("destroy", "--yes", "--stack", self.name, *targets)

    def pass_over_salt(self) -> None:
        """Let git see that the salt, which Pulumi writes into a local stack's file, is no change of it.

        What differs in more than its salt is left alone (`tools/setup.py`, keep_salt_out_of_git).
        """
        git = shutil.which("git")
        if git is None or not self.is_local:
            return
        for question in (("diff", "--quiet", "HEAD"), ("add", "--update")):
            done = subprocess.run([git, *question, "--", self.file], cwd=self.root, check=False, capture_output=True)
            if done.returncode:
                return

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        found: dict[str, Any] = json.loads(self._run("stack", "output", "--json", "--stack", self.name, quiet=True))
        return found

    def resources(self) -> list[dict[str, Any]]:
        """The resources in the stack's state, without providers and the stack itself."""
        exported = json.loads(self._run("stack", "export", "--stack", self.name, quiet=True))
        resources = (exported.get("deployment") or {}).get("resources") or []
        return [each for each in resources if not each["type"].startswith("pulumi:")]

    def others_with_resources(self) -> list[str]:
        """The other stacks of the project that hold something."""
        listed = json.loads(self._run("stack", "ls", "--json", quiet=True))
        return [each["name"] for each in listed if each["name"] != self.name and each.get("resourceCount")]

    def _run(self, *args: str, quiet: bool = False) -> str:
        process = subprocess.Popen(
            [pulumi_command(), *args, "--non-interactive"],
            cwd=self.root,
            env=pulumi_environment() | LOGS_EVENTS,
            text=True,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.PIPE if quiet else None,
        )
        try:
            printed, complaint = process.communicate()
        except KeyboardInterrupt:
            # The CLI has had the Ctrl-C as well: it ends what is under way, keeps its state and takes its lock off.
            process.communicate()
            raise
        if process.returncode == 0:
            return printed or ""
        said = (complaint or "").strip()
        raise FusionError(
            f"pulumi {args[0]} ended with status {process.returncode}" + (f": {said}" if said else "; see above")
        )


def pulumi_command() -> str:
    """The path of the CLI.

    Raises:
        FusionError: there is none.
    """
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        raise FusionError("the pulumi command is not on PATH; run `make setup`, then `source .fusion/env`")
    return pulumi


def pulumi_environment() -> dict[str, str]:
    """What the CLI is given: this shell's environment, with the policy pack unless another one is named."""
    return {PACK: str(Path(__file__).parents[1] / "policies")} | os.environ


def project_root() -> Path:
    """The folder of the project that the current folder is in.

    Raises:
        FusionError: there is none.
    """
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").is_file()), None)
    if root is None:
        raise FusionError(f"no Pulumi.yaml in {here} or above; run this inside a Fusion checkout")
    return root


def _backend_of_files() -> str | None:
    """The folder of a backend on this machine; None for any other."""
    scheme, _, path = os.environ.get("PULUMI_BACKEND_URL", "").partition("://")
    return path.partition("?")[0] if scheme == "file" else None
