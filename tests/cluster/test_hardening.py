"""checkov, a scanner that others wrote, finds nothing in the objects that the components render."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.test_component_objects import EVERYTHING
from tests.unit.infra.whole_stack import built
from tools.setup import find_uv

CHECKOV = "checkov==3.3.30"
ACCEPTED: dict[str, str] = {}
"""Failed checks that stay, by id, each with its reason."""
CARELESS = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "careless"},
    "spec": {
        "hostNetwork": True,
        "containers": [{"name": "c", "image": "nginx", "securityContext": {"privileged": True}}],
    },
}


def scanned(folder: Path) -> dict[str, Any]:
    """What checkov says of the YAML files of a folder; it runs apart, for its pins are not this project's."""
    command = ("tool", "run", "--from", CHECKOV, "checkov", "--framework", "kubernetes", "--skip-download")
    done = subprocess.run(
        [find_uv(), *command, "--directory", folder, "--output", "json"], capture_output=True, text=True, check=False
    )
    assert done.stdout.lstrip().startswith("{"), f"checkov said nothing to read: {done.stderr[-2000:]}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def as_known_kinds(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A JobSet's jobs besides itself: scanners know no JobSet, and would pass over its pods."""
    for each in objects:
        yield each
        for part in each["spec"]["replicatedJobs"] if each["kind"] == "JobSet" else ():
            metadata = {**each["metadata"], "name": f"{each['metadata']['name']}-{part['name']}-0"}
            yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": part["template"]["spec"]}


@pytest.mark.timeout(300)
def test_a_scanner_finds_nothing_that_is_not_accepted_with_its_reason(tmp_path: Path) -> None:
    with built(**EVERYTHING) as cloud:
        objects = list(as_known_kinds(cloud.mocks.all_objects()))
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump_all(objects))
    (tmp_path / "careless.yaml").write_text(yaml.safe_dump(CARELESS))
    report = scanned(tmp_path)
    failed = {file: set[str]() for file in ("/rendered.yaml", "/careless.yaml")}
    for each in report["results"]["failed_checks"]:
        failed[each["file_path"]].add(each["check_id"])
    assert {"CKV_K8S_16", "CKV_K8S_19"} <= failed["/careless.yaml"], "it finds privileges where there are some"
    assert failed["/rendered.yaml"] == set(ACCEPTED)
    judged = {each["resource"].split(".")[0] for each in report["results"]["passed_checks"]}
    assert {"Deployment", "Job", "Service"} <= judged
