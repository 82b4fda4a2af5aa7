"""This checkout's own program on a stack whose Kubernetes objects go to a real API server."""

from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from localcloud.kubernetes import api_server
from localcloud.kubernetes.cluster import Cluster
from tests.cluster.conftest import on_cluster
from tests.cluster.test_component_objects import apply, path
from tests.custom_resources import crds
from tests.engine.conftest import Engine


def stays_as_it_is(platform: Engine) -> None:
    """On another update of the same program."""
    again = platform.up()
    assert "unchanged" in again
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))


@pytest.mark.timeout(900)
def test_the_real_server_takes_the_platforms_objects_as_the_components_make_them(
    cluster_home: Path, platform: Engine
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(cluster_home))
        platform.configure(kubernetes="cluster", **{"kubernetes:kubeconfig": str(api_server.kubeconfig_file())})
        api = config.new_client_from_config(str(api_server.kubeconfig_file()), context=api_server.CONTEXT)
    platform.preview()
    platform.up()
    assert not platform.manifests.exists(), "fusion:kubernetes: cluster goes before kubernetes:renderYamlToDirectory"
    jobs = client.BatchV1Api(api).list_job_for_all_namespaces().items
    (job,) = [each for each in jobs if each.metadata.name == "digits"]
    (container,) = job.spec.template.spec.containers
    assert container.resources.limits["nvidia.com/gpu"] == "1"
    stays_as_it_is(platform)
    platform.destroy()
    assert client.BatchV1Api(api).list_job_for_all_namespaces().items == []
    assert platform.exists() == []


IMAGE = f"registry.example.com/system@sha256:{64 * '0'}"
GROWING = {
    "fusion:cluster": {
        "node_autoscaler": "karpenter",
        "namespace": "research",
        "device_plugins": {"nvidia_image": IMAGE},
    },
    "fusion:monitoring": {"labels": {"release": "prometheus"}, "dcgm_image": IMAGE},
}
MADE_BY_IT = (
    "/apis/karpenter.sh/v1/nodepools",
    "/apis/karpenter.k8s.aws/v1/ec2nodeclasses",
    "/apis/monitoring.coreos.com/v1/prometheusrules",
    "/apis/apps/v1/daemonsets",
)


@pytest.mark.timeout(900)
def test_karpenters_pools_plugins_and_what_is_watched_pass_the_pack_stay_as_they_are_and_go(
    cluster_home: Path, platform: Engine
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(cluster_home))
        on_cluster(platform)
        server = Cluster(yaml.safe_load(api_server.kubeconfig_file().read_text()), api_server.CONTEXT)
    definitions = [path(server, each) for each in crds() if apply(server, each, dry_run=False)]
    guardrails = platform.config["fusion:guardrails"]
    exempt = {"pods_exempt": ["kube-system/*-devices-*", "kube-system/*-dcgm"]}
    platform.configure(**GROWING, **{"fusion:guardrails": {**guardrails, **exempt}})
    try:
        platform.up()
        (pool,) = server.request("GET", MADE_BY_IT[0])["items"]
        assert pool["spec"]["limits"]["nvidia.com/gpu"] == "2", "the plan's maximum"
        assert all(server.request("GET", each)["items"] for each in MADE_BY_IT)
        stays_as_it_is(platform)
        platform.destroy()
        assert [each for each in MADE_BY_IT if server.request("GET", each)["items"]] == []
        assert platform.exists() == []
    finally:
        for each in definitions:
            server.request("DELETE", each)
