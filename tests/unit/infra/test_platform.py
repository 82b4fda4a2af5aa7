import dataclasses

import pulumi
import pytest

from infra.budget import BudgetArgs
from infra.build import InferenceServiceSpec, PlatformArgs, TrainingJobSpec, build_platform
from infra.cluster import ClusterArgs
from infra.kubernetes.pods import PodArgs
from infra.network import NetworkArgs
from infra.object_store import ObjectStoreArgs
from infra.registry import RegistryArgs
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import REGION, ZONES, efa_pool_args, pool_args, refusal

POD = PodArgs(image="registry.example.com/fusion/training@sha256:0", cpus=3, memory_gib=12)
TRAINING = TrainingJobSpec(
    name="digits", pool="train", pod=POD, devices=8, nodes=2, read=("data/",), write=("runs/digits/",)
)
SERVING = InferenceServiceSpec(name="classify", pool="serve", pod=POD, devices=1)


def platform_args(**changes):
    defaults = {
        "stack": "t",
        "network": NetworkArgs(region=REGION, zones=ZONES),
        "cluster": ClusterArgs(region=REGION),
        "object_store": ObjectStoreArgs(region=REGION),
        "registry": RegistryArgs(region=REGION, repositories=("training",)),
        "pools": (efa_pool_args(pool="train"), pool_args(pool="serve")),
        "training_jobs": (TRAINING,),
        "inference_services": (SERVING,),
        "budget": BudgetArgs(stack="t", limit_usd_per_month=100, emails=("ml@example.com",)),
        "tags": {"team": "ml"},
    }
    return PlatformArgs(**(defaults | changes))


@pytest.fixture(scope="module")
def cloud():
    def program():
        plan = pulumi.ComponentResource("fusion:platform:Plan", "t-plan", {})
        return build_platform(platform_args(), plan)

    with Cloud(program, lambda platform: platform.outputs) as deployed:
        yield deployed


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stack": "Prod"}, "stack 'Prod' can't begin the names"),
        ({"pools": (pool_args(), pool_args())}, "pools: the name train is used twice"),
        (
            {"inference_services": (dataclasses.replace(SERVING, name="digits"),)},
            "workloads: the name digits is used twice",
        ),
        ({"training_jobs": (dataclasses.replace(TRAINING, pool="none"),)}, "no pool none; the stack has train, serve"),
        ({"training_jobs": (dataclasses.replace(TRAINING, devices=9),)}, "devices 9 are more than the 8 of a node"),
        ({"training_jobs": (dataclasses.replace(TRAINING, nodes=3),)}, "may grow to (2)"),
        ({"pools": (pool_args(zones=("us-east-1c",)),)}, "zones us-east-1c are not of the network"),
        ({"pools": (pool_args(instance_type="g5.huge"),)}, "'g5.huge' is unknown on AWS"),
        ({"network": NetworkArgs(region=REGION, zones=ZONES, log_retention_days=8)}, "log_retention_days 8"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_registered(changes, says):
    assert says in refusal(platform_args, **changes)


def test_every_component_is_registered_after_the_plan(cloud):
    types = [each.typ for each in cloud.mocks.registered]
    assert types[0] == "fusion:platform:Plan"
    assert {typ for typ in types if typ.startswith("fusion:aws:")} == {
        "fusion:aws:Budget",
        "fusion:aws:Network",
        "fusion:aws:Cluster",
        "fusion:aws:AcceleratorPool",
        "fusion:aws:ObjectStore",
        "fusion:aws:Registry",
        "fusion:aws:WorkloadIdentity",
    }


def test_everything_of_aws_that_has_tags_carries_the_stacks(cloud):
    for tagged in cloud.client("resourcegroupstaggingapi").get_resources()["ResourceTagMappingList"]:
        tags = {tag["Key"]: tag["Value"] for tag in tagged["Tags"]}
        if tags:
            assert (tags["team"], tags["fusion:stack"]) == ("ml", "t"), tagged["ResourceARN"]


def test_the_job_runs_on_its_pool_with_all_devices_and_adapters_of_the_node(cloud):
    (job,) = cloud.mocks.of_type("kubernetes:batch/v1:Job")
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"fusion.dev/pool": "train"}
    limits = pod["containers"][0]["resources"]["limits"]
    assert (limits["nvidia.com/gpu"], limits["vpc.amazonaws.com/efa"]) == ("8", "32")
    assert pod["serviceAccountName"] == "digits"
    env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    assert env["FUSION_BUCKET_URL"] == f"s3://t-store-{cloud.account_id}-{REGION}"
    assert (env["FUSION_STACK"], env["FUSION_WORKLOAD"], env["AWS_REGION"]) == ("t", "digits", REGION)


def test_who_needs_no_bucket_has_no_identity(cloud):
    accounts = cloud.mocks.of_type("kubernetes:core/v1:ServiceAccount")
    assert [each["metadata"]["name"] for each in accounts] == ["digits"]
    (deployment,) = cloud.mocks.of_type("kubernetes:apps/v1:Deployment")
    assert "serviceAccountName" not in deployment["spec"]["template"]["spec"]


def test_the_namespace_itself_refuses_privileged_pods(cloud):
    (namespace,) = cloud.mocks.of_type("kubernetes:core/v1:Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_cluster_is_reached_with_its_own_kubeconfig(cloud):
    (provider,) = cloud.mocks.of_type("pulumi:providers:kubernetes")
    assert '"eks", "get-token"' in provider["kubeconfig"]


def test_the_outputs_say_where_everything_is(cloud):
    outputs = cloud.outputs
    assert outputs["cluster_name"] == "t-cluster"
    assert outputs["bucket_url"].startswith("s3://t-store-")
    assert outputs["repositories"]["training"].endswith("/t-registry/training")
    assert set(outputs["pools"]) == {"train", "serve"}
    assert outputs["training_jobs"] == {"digits": "digits"}
    assert outputs["inference_services"] == {"classify": "http://classify.workloads.svc"}
