"""Training on several nodes of A3 and A4: from the pool's networks to what its pods are given to use them."""

import dataclasses
import json

import kubernetes_validate
import pulumi
import pytest

from infra.accelerator_pool import AcceleratorPoolArgs
from infra.build import PlatformArgs, TrainingJobSpec, build_platform
from infra.cluster import ClusterArgs, SystemPoolArgs
from infra.gcp.gpudirect import free_range
from infra.kubernetes.pods import PodArgs
from infra.network import NetworkArgs
from infra.object_store import ObjectStoreArgs
from tests.unit.infra.cloud import run_program, whole
from tests.unit.infra.conftest import refusal
from tools.cloud_args import Echo

REGION, ZONES = "us-central1", ("us-central1-a", "us-central1-b")
DAEMON = "registry.example.com/daemon@sha256:" + "0" * 64
IMAGES = {"TCPX": DAEMON, "TCPXO": DAEMON}
POD = PodArgs(image="registry.example.com/training@sha256:0", cpus=180, memory_gib=1_500)
TRAINING = TrainingJobSpec(name="pretrain", pool="train", pod=POD, devices=8, nodes=2)


def pool(machine_type, accelerator, **changes):
    defaults = {"zones": ZONES[:1], "price_model": "spot", "fabric_images": IMAGES, "nodes_max": 2}
    return AcceleratorPoolArgs(
        pool="train",
        region=REGION,
        instance_type=machine_type,
        accelerator=accelerator,
        accelerator_count=8,
        **(defaults | changes),
    )


def registered(*pools, job=TRAINING, version="1.35", **changes):
    args = PlatformArgs(
        stack="t",
        cloud="gcp",
        network=NetworkArgs(region=REGION, zones=ZONES),
        cluster=ClusterArgs(
            region=REGION, kubernetes_version=version, system_pool=SystemPoolArgs(instance_type="e2-standard-2")
        ),
        object_store=ObjectStoreArgs(region=REGION),
        registry=None,
        pools=pools,
        training_jobs=(job,),
        inference_services=(),
        **changes,
    )
    return run_program(lambda: build_platform(args, pulumi.ComponentResource("fusion:platform:Plan", "p", {})), Echo())


def of_kind(mocks, kind):
    return [whole(each.inputs) for each in mocks.registered if each.typ.rpartition(":")[2] == kind]


def pod_of(mocks):
    (job,) = of_kind(mocks, "Job")
    kubernetes_validate.validate(job, "1.34", strict=True)
    return job["spec"]["template"]["metadata"]["annotations"], job["spec"]["template"]["spec"]


def environment(pod):
    return {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}


@pytest.mark.parametrize(("machine_type", "count"), [("a3-highgpu-8g", 4), ("a3-megagpu-8g", 8)])
def test_each_interface_of_the_gpus_is_in_a_network_that_the_pod_asks_for(machine_type, count):
    mocks = registered(pool(machine_type, "H100"))
    annotations, _ = pod_of(mocks)
    asked = json.loads(annotations["networking.gke.io/interfaces"])
    assert [each["interfaceName"] for each in asked] == [f"eth{each}" for each in range(count + 1)]
    (nodes,) = [each for each in of_kind(mocks, "NodePool") if "autoscaling" in each]
    vpcs = [each["network"] for each in nodes["networkConfig"]["additionalNodeNetworkConfigs"]]
    made = {each["name"]: each for each in of_kind(mocks, "Network") if each.get("mtu") == 8244}
    assert sorted(made) == sorted(vpcs)
    parameters = {each["metadata"]["name"]: each["spec"]["vpc"] for each in of_kind(mocks, "GKENetworkParamSet")}
    joined = {
        each["metadata"]["name"]: parameters[each["spec"]["parametersRef"]["name"]]
        for each in of_kind(mocks, "Network")
        if "spec" in each
    }
    assert [joined[each["network"]] for each in asked[1:]] == vpcs


@pytest.mark.parametrize(
    ("machine_type", "daemon", "variable"),
    [
        ("a3-highgpu-8g", "tcpx-daemon", "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME"),
        ("a3-megagpu-8g", "tcpxo-daemon", "NCCL_FASTRAK_IFNAME"),
    ],
)
def test_the_daemon_runs_beside_the_training_with_the_gpus_and_no_privileges(machine_type, daemon, variable):
    annotations, pod = pod_of(registered(pool(machine_type, "H100")))
    (beside,) = pod["initContainers"]
    assert (beside["name"], beside["image"], beside["restartPolicy"]) == (daemon, DAEMON, "Always")
    assert (
        "privileged" not in beside["securityContext"]
        and "NET_ADMIN" in beside["securityContext"]["capabilities"]["add"]
    )
    assert annotations[f"devices.gke.io/container.{daemon}"].count("/dev/nvidia") == 10
    assert environment(pod)[variable].startswith("eth1,eth2,eth3,eth4")
    volumes = {each["name"] for each in pod["volumes"]}
    mounted = [each for container in (beside, pod["containers"][0]) for each in container["volumeMounts"]]
    assert {each["name"] for each in mounted} <= volumes
    own = [each for each in pod["containers"][0]["volumeMounts"] if each["mountPath"].startswith(("/usr", "/dev/ap"))]
    assert own and all(each["readOnly"] for each in own)


@pytest.mark.parametrize(
    ("machine_type", "gpu", "tuner"), [("a3-ultragpu-8g", "H200", "a3u"), ("a4-highgpu-8g", "B200", "a4")]
)
def test_with_rdma_a_pod_claims_the_interfaces_of_the_node(machine_type, gpu, tuner):
    mocks = registered(pool(machine_type, gpu))
    _, pod = pod_of(mocks)
    (template,) = of_kind(mocks, "ResourceClaimTemplate")
    kubernetes_validate.validate(template, "1.34", strict=True)
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert (request["exactly"]["deviceClassName"], request["exactly"]["count"]) == ("mrdma.google.com", 8)
    (claim,) = pod["resourceClaims"]
    assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
    assert pod["containers"][0]["resources"]["claims"] == [{"name": claim["name"]}]
    assert pod["nodeSelector"]["gke.networks.io/accelerator-network-profile"] == "auto"
    assert environment(pod)["NCCL_TUNER_CONFIG_PATH"].endswith(f"tuner_config_{tuner}.txtpb")
    assert "initContainers" not in pod and not of_kind(mocks, "GKENetworkParamSet")


def test_pools_share_the_networks():
    others = dataclasses.replace(pool("a3-highgpu-8g", "H100"), pool="other")
    assert len(of_kind(registered(pool("a3-megagpu-8g", "H100"), others), "GKENetworkParamSet")) == 8


def level_of(mocks):
    (namespace,) = of_kind(mocks, "Namespace")
    return namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]


def test_the_namespace_lets_pods_see_their_node_where_some_must_and_warns_of_each():
    mocks = registered(pool("a3-megagpu-8g", "H100"))
    (namespace,) = of_kind(mocks, "Namespace")
    assert level_of(mocks) == "privileged"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/warn"] == "restricted"


@pytest.mark.parametrize(
    "alone",
    [
        {"job": dataclasses.replace(TRAINING, nodes=1)},
        {"job": dataclasses.replace(TRAINING, devices=4)},
        {"fabric_images": None},
    ],
    ids=["one node", "part of a node", "not asked for"],
)
def test_pods_that_need_no_other_node_see_nothing_of_theirs(alone):
    changes = dict(alone)
    job = changes.pop("job", TRAINING)
    mocks = registered(pool("a3-megagpu-8g", "H100", **changes), job=job)
    annotations, pod = pod_of(mocks)
    assert level_of(mocks) == "restricted"
    assert not any("hostPath" in each for each in pod["volumes"]) and "initContainers" not in pod
    assert "networking.gke.io/interfaces" not in annotations


def test_an_older_cluster_that_serves_no_claims_is_refused():
    assert "Kubernetes 1.33 does not serve; use 1.34" in refusal(
        registered, pool("a4-highgpu-8g", "B200"), version="1.33"
    )


def test_the_networks_lie_outside_of_the_clusters_own_ranges():
    assert str(free_range(["10.0.0.0/16", "172.20.0.0/16"])) == "192.168.0.0/16"
    assert str(free_range(["192.168.64.0/18", "172.20.0.0/16"])) == "172.16.0.0/16"
