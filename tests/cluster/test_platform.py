"""This checkout's own program on a stack whose Kubernetes objects go to a real API server."""

from pathlib import Path

import pytest
from kubernetes import client, config

from localcloud.kubernetes import api_server
from tests.cluster.conftest import on_cluster
from tests.engine.conftest import Engine


@pytest.mark.timeout(900)
def test_the_real_server_takes_the_platforms_objects_as_the_components_make_them(
    cluster_home: Path, platform: Engine
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(cluster_home))
        on_cluster(platform)
        api = config.new_client_from_config(str(api_server.kubeconfig_file()), context=api_server.CONTEXT)
    platform.preview()
    platform.up()
    jobs = client.BatchV1Api(api).list_job_for_all_namespaces().items
    (job,) = [each for each in jobs if each.metadata.name == "digits"]
    (container,) = job.spec.template.spec.containers
    assert container.resources.limits["nvidia.com/gpu"] == "1"
    again = platform.up()
    assert "unchanged" in again
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))
    platform.destroy()
    assert client.BatchV1Api(api).list_job_for_all_namespaces().items == []
    assert platform.exists() == []
