"""Scanners that others wrote, checkov and kube-score, find nothing in the objects that the components render."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcloud.kubernetes import processes
from tests.cluster.test_component_objects import EVERYTHING, OF_THE_SYSTEM
from tests.unit.infra.whole_stack import built
from tools.setup import find_uv

CHECKOV = "checkov==3.3.30"
ACCEPTED: dict[str, str] = {}
"""checkov's failed checks that stay, by id, each with its reason."""
OF_WORKLOADS = {
    "container-image-pull-policy": "images are named by digest, which is never stale; asked for at each start, a "
    "registry that is away would keep pods down",
    "deployment-replicas": "a service's replicas are its autoscaler's; TensorBoard is looked at by one team and holds "
    "nothing",
    "deployment-has-host-podantiaffinity": "replicas are spread over nodes, and still start where a node with several "
    "accelerators is the only one",
}
OF_AGENTS = {
    "container-image-pull-policy": OF_WORKLOADS["container-image-pull-policy"],
    "container-resources": "no limit of CPU: an agent that is held back is taken for one that is sick",
    "container-security-context-readonlyrootfilesystem": "the vendors' charts leave it writable, and what their images "
    "write was not tried",
    "container-security-context-user-group-id": "the kubelet's folders and the driver are root's",
    "pod-networkpolicy": "what goes on in kube-system is the cluster's own, not a stack's",
}
"""kube-score's failed checks that stay, of a stack's namespace and of kube-system."""
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


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    with built(**(EVERYTHING | OF_THE_SYSTEM)) as cloud:
        return list(as_known_kinds(cloud.mocks.all_objects()))


def is_of_the_system(value: dict[str, Any]) -> bool:
    return bool(value["metadata"].get("namespace") == "kube-system")


@pytest.mark.timeout(300)
def test_checkov_finds_nothing_that_is_not_accepted_with_its_reason(
    objects: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump_all(each for each in objects if not is_of_the_system(each)))
    (tmp_path / "careless.yaml").write_text(yaml.safe_dump(CARELESS))
    report = scanned(tmp_path)
    failed = {file: set[str]() for file in ("/rendered.yaml", "/careless.yaml")}
    for each in report["results"]["failed_checks"]:
        failed[each["file_path"]].add(each["check_id"])
    assert {"CKV_K8S_16", "CKV_K8S_19"} <= failed["/careless.yaml"], "it finds privileges where there are some"
    assert failed["/rendered.yaml"] == set(ACCEPTED)
    judged = {each["resource"].split(".")[0] for each in report["results"]["passed_checks"]}
    assert {"Deployment", "Job", "Service"} <= judged


@pytest.mark.timeout(300)
def test_kube_score_finds_nothing_that_is_not_accepted_with_its_reason(
    objects: list[dict[str, Any]], tmp_path: Path
) -> None:
    if processes.missing(("kube-score",)):
        pytest.skip("kube-score not built: run `python -m tools.control_plane --all`")
    ours = [each for each in objects if not is_of_the_system(each)]
    assert failed(ours, tmp_path) == set(OF_WORKLOADS)
    assert failed([each for each in objects if is_of_the_system(each)], tmp_path) == set(OF_AGENTS)
    assert {"container-security-context-privileged", "container-image-tag"} <= failed([CARELESS], tmp_path)


def failed(objects: list[dict[str, Any]], folder: Path) -> set[str]:
    """The checks that kube-score says some objects fail, warnings included."""
    file = folder / "scored.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    command = [processes.BIN / "kube-score", "score", "--output-format", "json", "--kubernetes-version", "v1.34", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("["), f"kube-score said nothing to read: {done.stderr[-2000:]}"
    good = 10
    checks = (check for each in json.loads(done.stdout) for check in each["checks"] if not check["skipped"])
    return {each["check"]["id"] for each in checks if each["grade"] < good}
