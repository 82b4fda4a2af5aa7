"""A stack whose objects go to the control plane of this machine: `fusion:kubernetes: cluster`."""

from planner.catalog import load
from policies.pricing import Place, Registered, quantities
from policies.resource import Resource, read
from tests.unit.infra.whole_stack import built, job, of_kind

HERE = {"kubernetes": "cluster", "places": {"aws:profile": "fusion-local"}}


def test_its_provider_names_that_server_and_its_pools_the_karpenter_that_runs_there() -> None:
    with built(workloads=[job()], cluster={"node_autoscaler": "karpenter"}, **HERE) as cloud:
        (provider,) = cloud.mocks.of_type("pulumi:providers:kubernetes")
        (pool,), (node_class,) = (of_kind(cloud, kind).values() for kind in ("NodePool", "KWOKNodeClass"))
        (run,) = of_kind(cloud, "Job").values()
    assert provider["context"] == "fusion-local"
    assert provider["kubeconfig"].endswith("/cluster/kubeconfig")
    reference = pool["spec"]["template"]["spec"]["nodeClassRef"]
    assert reference == {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": node_class["metadata"]["name"]}
    assert of_kind(cloud, "EC2NodeClass") == {}
    resource = Resource("kubernetes:karpenter.sh/v1:NodePool", "pool", read(pool), "urn", "")
    (machine, nodes), (_, gib) = quantities(resource, load(), Place("aws", "us-east-1"), Registered()).items()
    assert (machine.item, nodes.max, gib.max) == ("g5.xlarge", 1, 20), "the pack prices its nodes and their usual disk"
    annotations = run["spec"]["template"]["metadata"]["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "true", "it is not on spot: nobody takes its node back"
