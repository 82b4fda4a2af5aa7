"""What rendering says of a field that takes only some values is what a real API server says."""

from pathlib import Path

import pytest
import yaml

from localcloud.kubernetes import api_server
from localcloud.kubernetes.cluster import Cluster, Refusal
from localcloud.kubernetes.validation import Object, validate_object
from tests.unit.localcloud.test_kubernetes_enumerations import FIELDS, OBJECTS, as_told
from tests.unit.localcloud.test_kubernetes_validation import changed


@pytest.fixture
def server(cluster_home: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("FUSION_HOME", str(cluster_home))
    return Cluster(yaml.safe_load(api_server.kubeconfig_file().read_text()), api_server.CONTEXT)


def refusal(server: Cluster, value: Object) -> Refusal | None:
    path = server.path(value["apiVersion"], value["kind"], "default", value["metadata"]["name"])
    try:
        server.apply(path, value, "test", force=False, dry_run=True)
    except Refusal as refused:
        return refused
    return None


@pytest.mark.parametrize("kind", OBJECTS)
def test_the_server_takes_the_objects_that_rendering_takes(server: Cluster, kind: str) -> None:
    assert validate_object(OBJECTS[kind]) == []
    refused = refusal(server, OBJECTS[kind])
    assert refused is None, refused


@pytest.mark.parametrize(("kind", "path"), FIELDS)
def test_the_server_refuses_the_value_that_rendering_refuses(server: Cluster, kind: str, path: str) -> None:
    wrong = changed(OBJECTS[kind], path, "Neither")
    assert as_told(path) in {problem.path for problem in validate_object(wrong)}
    assert refusal(server, wrong) is not None
