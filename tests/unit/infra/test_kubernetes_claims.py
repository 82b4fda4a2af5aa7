"""GPUs that are claimed (DRA) in place of being counted: one class, a template by workload, and a quota."""

from collections.abc import Iterator
from typing import Any

import pytest

from infra.errors import ArgumentError
from infra.kubernetes.device_plugins import DevicePluginsArgs, NvidiaArgs
from infra.kubernetes.pods import PodArgs
from localcloud.kubernetes.validation import validate_object
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.whole_stack import IMAGE, built, job, of_kind, service

NEURON = {"instance_type": "trn1.2xlarge", "accelerators": 1, "vcpus": 3, "memory_gib": 12}


@pytest.fixture(scope="module")
def stack() -> Iterator[Cloud]:
    workloads = [job(nodes={"desired": 1, "max": 3}), job("on-neuron", needs=NEURON), service()]
    with built(workloads=workloads, cluster={"device_plugins": {"gpu_claims": True}}) as cloud:
        yield cloud


def pods(cloud: Cloud) -> dict[str, dict[str, Any]]:
    made = of_kind(cloud, "Job") | of_kind(cloud, "Deployment")
    return {name: each["spec"]["template"]["spec"] for name, each in made.items()}


def test_every_object_is_what_kubernetes_takes(stack: Cloud) -> None:
    for each in stack.mocks.all_objects():
        assert (each["kind"], validate_object(each)) == (each["kind"], [])


def test_each_pod_claims_its_gpus_from_the_stacks_class_and_counts_none(stack: Cloud) -> None:
    assert of_kind(stack, "DeviceClass").keys() == {"t-gpu"}
    templates = of_kind(stack, "ResourceClaimTemplate")
    assert templates.keys() == {"digits-devices", "classify-devices"}
    for name in ("digits", "classify"):
        pod = pods(stack)[name]
        (container,), (claim,) = pod["containers"], pod["resourceClaims"]
        assert claim["resourceClaimTemplateName"] == f"{name}-devices"
        assert container["resources"]["claims"] == [{"name": claim["name"]}]
        assert "nvidia.com/gpu" not in container["resources"]["limits"]
        (request,) = templates[f"{name}-devices"]["spec"]["spec"]["devices"]["requests"]
        assert request["exactly"] == {"deviceClassName": "t-gpu", "allocationMode": "ExactCount", "count": 1}


def test_chips_of_another_maker_are_counted_as_ever(stack: Cloud) -> None:
    (container,) = pods(stack)["on-neuron"]["containers"]
    assert container["resources"]["limits"]["aws.amazon.com/neuron"] == "1"
    assert "resourceClaims" not in pods(stack)["on-neuron"]


def test_the_namespace_may_claim_what_the_plan_has_at_its_most(stack: Cloud) -> None:
    gpus = sum(
        each["nodes_max"] * each["accelerator_count"]
        for each in stack.all_facts("fusion:aws:AcceleratorPool")
        if each["instance_type"] != NEURON["instance_type"]
    )
    (quota,) = of_kind(stack, "ResourceQuota").values()
    assert quota["spec"]["hard"]["t-gpu.deviceclass.resource.k8s.io/devices"] == str(int(gpus))
    assert "requests.nvidia.com/gpu" not in quota["spec"]["hard"]


def test_gpus_are_not_handed_out_by_two_and_a_class_without_devices_is_refused() -> None:
    with pytest.raises(ArgumentError, match="would both hand out the GPUs"):
        DevicePluginsArgs(nvidia=NvidiaArgs(image=IMAGE), gpu_class="t-gpu")
    with pytest.raises(ArgumentError, match="no devices are claimed from it"):
        PodArgs(image=IMAGE, cpus=1, memory_gib=4, device_class="t-gpu")
