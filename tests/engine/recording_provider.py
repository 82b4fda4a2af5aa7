"""A provider plugin for tests, of any package: it takes every resource as it is and records what was created.

It stands in where the local cloud serves no such type, so that the engine shows which resources a guardrail stopped and
which were created: `python -m tests.engine.recording_provider PACKAGE FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from localcloud.provider import Backend, Change, Failure, Found, Properties, Resource, changes, serve
from localcloud.values import has_unknown


class Recorder(Backend):
    """Each resource is one JSON file of the folder, which holds its type, its name and its inputs."""

    version = "99.0.0"

    def __init__(self, package: str, folder: Path) -> None:
        self.package, self.folder = package, folder

    def configure(self, variables: Properties) -> None:
        """It has no config."""

    def check(
        self, resource: Resource, old: Properties, new: Properties, seed: bytes
    ) -> tuple[Properties, list[Failure]]:
        """Nothing is wrong, so that only a guardrail can refuse."""
        return new, []

    def diff(self, resource: Resource, id: str, old: Properties, new: Properties) -> Change:
        """Every change is made in place."""
        return changes(old, new, frozenset())

    def create(self, resource: Resource, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Write it down."""
        if preview:
            return "", inputs
        assert not has_unknown(inputs)
        id = hashlib.sha256(resource.urn.encode()).hexdigest()[:16]
        self._write(id, resource, inputs)
        return id, _outputs(resource, id, inputs)

    def read(self, resource: Resource, id: str, inputs: Properties) -> Found | None:
        """What is written down; an import is of what a test wrote."""
        path = self._path(id)
        if not path.exists():
            return None
        found: Properties = json.loads(path.read_text())["inputs"]
        return Found(id, found, _outputs(resource, id, found))

    def update(self, resource: Resource, id: str, old: Properties, new: Properties, preview: bool) -> Properties:
        """Write the new inputs down."""
        if not preview:
            self._write(id, resource, new)
        return _outputs(resource, id, new)

    def delete(self, resource: Resource, id: str, inputs: Properties) -> None:
        """Forget it."""
        self._path(id).unlink(missing_ok=True)

    def invoke(self, token: str, args: Properties) -> Properties:
        """A function knows nothing."""
        return {}

    def known(self, resource: Resource, id: str) -> None:
        """There is nothing to confirm."""

    def _write(self, id: str, resource: Resource, inputs: Properties) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path(id).write_text(json.dumps({"type": resource.type, "name": resource.name, "inputs": inputs}))

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.json"


def recorded(folder: Path) -> list[str]:
    """The names of the resources that exist."""
    return sorted(json.loads(path.read_text())["name"] for path in folder.glob("*.json"))


def _outputs(resource: Resource, id: str, inputs: Properties) -> Properties:
    """The inputs; a launch template has its ARN as well, by which a guardrail tells it from those of elsewhere."""
    if resource.type != "aws:ec2/launchTemplate:LaunchTemplate":
        return inputs
    return inputs | {"arn": f"arn:aws:ec2:us-east-1:123456789012:launch-template/{id}"}


if __name__ == "__main__":
    serve(lambda: Recorder(sys.argv[1], Path(sys.argv[2])))
