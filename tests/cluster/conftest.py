"""A real Kubernetes API server, and projects of the real Pulumi CLI whose objects go there."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kubernetes import client, config

from localcloud.kubernetes import api_server, processes
from localcloud.kubernetes.cluster import Cluster
from tests.engine.conftest import Engine, make_engine
from tests.engine.conftest import platform as platform  # its fixture, for these tests too


@pytest.fixture(scope="session")
def cluster_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a control plane that only this process's tests have, running; it is gone afterwards."""
    if missing := processes.missing(api_server.PROGRAMS):
        pytest.skip(f"{', '.join(missing)} not built: run `make control-plane`")
    home = tmp_path_factory.mktemp("control-plane")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(home))
        try:
            api_server.ensure()
            patch.undo()
            yield home
        finally:
            patch.setenv("FUSION_HOME", str(home))
            api_server.stop()


@dataclass
class InCluster:
    """A project whose program the test writes, on a stack whose objects go to the cluster; and the cluster itself."""

    engine: Engine
    api: client.ApiClient

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api)

    @property
    def apps(self) -> client.AppsV1Api:
        return client.AppsV1Api(self.api)


def delete_namespace(cluster: Cluster, name: str) -> None:
    """Delete a namespace with all that is in it, and wait until it is gone: another test makes one of the same name."""
    place, ends = f"/api/v1/namespaces/{name}", time.monotonic() + 60
    cluster.request("DELETE", place)
    while cluster.get(place) is not None:
        assert time.monotonic() < ends, f"the namespace {name} does not go"
        time.sleep(0.2)


def on_cluster(engine: Engine) -> None:
    """Let the stack's objects go to the API server of this process's tests."""
    engine.config.pop("kubernetes:renderYamlToDirectory")
    engine.configure(
        **{
            "kubernetes:kubeconfig": str(api_server.kubeconfig_file()),
            "kubernetes:context": api_server.CONTEXT,
        }
    )


@pytest.fixture
def cluster(cluster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InCluster:
    monkeypatch.setenv("FUSION_HOME", str(cluster_home))
    engine = make_engine(tmp_path / "project", ".")
    on_cluster(engine)
    kubeconfig = str(api_server.kubeconfig_file())
    return InCluster(engine, config.new_client_from_config(kubeconfig, context=api_server.CONTEXT))
