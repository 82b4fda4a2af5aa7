"""A cache of the bucket, from one line of the stack's file: what it is on each cloud, and how a job reads from it."""

import json
from typing import Any

import pulumi
import pytest
import yaml

from infra.assembly import platform_args
from infra.aws.lustre import lustre_gib
from infra.build import build_platform
from infra.planning import plan_stack
from planner.catalog import load
from policies.pricing import Place, Registered, quantities
from policies.resource import Resource, read
from tests.unit.infra.cloud import Cloud, Recording, run_program, whole
from tests.unit.infra.test_config import GCP, INFERENCE, TRAINING, config_of, refused
from tests.unit.infra.whole_stack import built, job, of_kind
from tools.cloud_args import Echo

CACHED = {"object_store": {"file_cache_gib": 500}}
FOLDER = "/store/data/digits"


def reads_from(config_map: dict[str, Any]) -> str:
    return str(yaml.safe_load(config_map["data"]["training.yaml"])["data"]["url"])


@pytest.fixture(scope="module")
def cloud():
    with built(workloads=[job()], **CACHED) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def system(cloud: Cloud) -> dict[str, Any]:
    (only,) = cloud.client("fsx").describe_file_systems()["FileSystems"]
    return dict(only)


def test_on_aws_it_is_the_smallest_file_system_of_lustre_that_holds_it(system: dict[str, Any]) -> None:
    assert (system["StorageCapacity"], system["StorageType"]) == (1_200, "SSD")
    assert system["LustreConfiguration"]["PerUnitStorageThroughput"] == 125, "what the catalog has the price of"


def test_on_aws_it_lies_under_the_buckets_own_key(cloud: Cloud, system: dict[str, Any]) -> None:
    (bucket,) = [each["Name"] for each in cloud.client("s3").list_buckets()["Buckets"]]
    rules = cloud.client("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    key = rules[0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    assert system["KmsKeyId"] == key
    policy = json.loads(cloud.client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    (lustre,) = [each for each in policy["Statement"] if each["Sid"] == "ObjectsForLustre"]
    assert lustre["Action"] == ["kms:Decrypt"]
    assert lustre["Condition"]["StringEquals"]["kms:ViaService"] == "s3.us-east-1.amazonaws.com"


def test_on_aws_it_is_in_a_private_subnet_and_lets_in_lustre_alone(cloud: Cloud, system: dict[str, Any]) -> None:
    (subnet,) = cloud.ec2.describe_subnets(SubnetIds=system["SubnetIds"])["Subnets"]
    assert {tag["Value"] for tag in subnet["Tags"] if tag["Key"] == "Name"} == {"t-network-private-us-east-1a"}
    (declared,) = cloud.mocks.of_type("aws:fsx/lustreFileSystem:LustreFileSystem")
    groups = [{"Name": "group-id", "Values": declared["securityGroupIds"]}]
    rules = cloud.ec2.describe_security_group_rules(Filters=groups)["SecurityGroupRules"]
    ours = [each for each in rules if each["IpProtocol"] != "-1"]
    assert {(each["FromPort"], each["ToPort"], each["CidrIpv4"]) for each in ours} == {
        (988, 988, "10.0.0.0/16"),
        (1018, 1023, "10.0.0.0/16"),
    }


def test_on_aws_it_is_linked_to_the_data_and_to_nothing_else(cloud: Cloud) -> None:
    (link,) = cloud.client("fsx").describe_data_repository_associations()["Associations"]
    (bucket,) = [each["Name"] for each in cloud.client("s3").list_buckets()["Buckets"]]
    assert (link["FileSystemPath"], link["DataRepositoryPath"]) == ("/data", f"s3://{bucket}/data/")
    assert link["S3"] == {"AutoImportPolicy": {"Events": ["NEW", "CHANGED", "DELETED"]}}, "nothing is exported"


def test_on_aws_it_comes_with_the_driver_that_mounts_it_which_has_no_rights(cloud: Cloud) -> None:
    addons = cloud.client("eks").list_addons(clusterName="t-cluster")["addons"]
    assert "aws-fsx-csi-driver" in addons
    associations = cloud.client("eks").list_pod_identity_associations(clusterName="t-cluster")["associations"]
    assert not any("fsx" in each["serviceAccount"] for each in associations)


def test_on_aws_it_shows_a_job_the_folder_of_its_data_read_only(cloud: Cloud, system: dict[str, Any]) -> None:
    (volume,) = of_kind(cloud, "PersistentVolume").values()
    csi = volume["spec"]["csi"]
    assert (csi["driver"], csi["volumeHandle"], csi["readOnly"]) == (
        "fsx.csi.aws.com",
        system["FileSystemId"],
        True,
    )
    assert csi["volumeAttributes"]["mountname"] == system["LustreConfiguration"]["MountName"]
    (run,) = of_kind(cloud, "Job").values()
    (mount,) = [
        each
        for each in run["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if each["mountPath"].startswith("/store")
    ]
    assert mount == {"name": "data", "mountPath": FOLDER, "subPath": "data/digits", "readOnly": True}
    assert reads_from(of_kind(cloud, "ConfigMap")["digits-config"]) == "file://${FUSION_DATA_PATH}"


def on_gcp(**fusion: Any) -> Recording:
    config = config_of(region=None, places=GCP, cloud="gcp", guardrails={"monthly_cost_limit_usd": 1e6}, **fusion)
    plan = plan_stack(config, "t", load())

    def program() -> None:
        build_platform(platform_args(config, plan), pulumi.ComponentResource("fusion:platform:Plan", "p", {}))

    mocks = Echo()
    run_program(program, mocks)
    return mocks


@pytest.fixture(scope="module")
def made():
    mocks = on_gcp(workloads=[TRAINING | {"needs": {"accelerator": "L4", "accelerators": 1}}, INFERENCE], **CACHED)
    return [(each.typ, each.name, whole(each.inputs)) for each in mocks.registered]


def one(made: list[tuple[str, str, dict[str, Any]]], kind: str) -> dict[str, Any]:
    (only,) = [inputs for typ, _, inputs in made if typ == kind]
    return only


def test_on_google_cloud_the_cluster_has_the_driver(made) -> None:
    addons = one(made, "gcp:container/cluster:Cluster")["addonsConfig"]
    assert addons == {"gcsFuseCsiDriverConfig": {"enabled": True}}


def test_the_driver_sees_the_folder_of_the_jobs_data_alone_and_keeps_so_much_of_it(made) -> None:
    spec = one(made, "kubernetes:core/v1:PersistentVolume")["spec"]
    assert (spec["csi"]["driver"], spec["csi"]["volumeHandle"]) == ("gcsfuse.csi.storage.gke.io", "t-store")
    assert "only-dir=data/digits" in spec["mountOptions"]
    assert f"file-cache:max-size-mb:{500 * 1024}" in spec["mountOptions"]


def test_pods_of_the_job_bring_it_along_and_others_do_not(made) -> None:
    run = one(made, "kubernetes:batch/v1:Job")["spec"]["template"]
    assert run["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"
    assert run["metadata"]["annotations"]["gke-gcsfuse/ephemeral-storage-limit"] == "501Gi"
    assert "annotations" not in one(made, "kubernetes:apps/v1:Deployment")["spec"]["template"]["metadata"]
    assert reads_from(one(made, "kubernetes:core/v1:ConfigMap")) == "file://${FUSION_DATA_PATH}"


def test_nodes_that_train_have_room_for_it_and_others_as_much_as_before(made) -> None:
    disks = {
        inputs["nodeConfig"]["labels"]["fusion.dev/pool"]: inputs["nodeConfig"]["diskSizeGb"]
        for typ, _, inputs in made
        if typ == "gcp:container/nodePool:NodePool" and inputs["nodeConfig"].get("labels")
    }
    assert sorted(disks.values()) == [100, 601]


def test_a_stack_without_one_is_as_before() -> None:
    kinds = {each.typ for each in on_gcp(workloads=[TRAINING]).registered}
    assert not {each for each in kinds if "FileCache" in each or "PersistentVolume" in each}


@pytest.mark.parametrize(
    ("asked", "sold"), [(1, 1_200), (1_200, 1_200), (1_201, 2_400), (2_400, 2_400), (5_000, 7_200)]
)
def test_lustre_is_sold_in_steps(asked: int, sold: int) -> None:
    assert lustre_gib(asked) == sold


@pytest.mark.parametrize(
    ("fusion", "says"),
    [
        (CACHED | {"workloads": [INFERENCE]}, "fusion:workloads: "),
        (CACHED | {"workloads": [INFERENCE]}, "file_cache_gib 500 is a cache for training jobs, and there are none"),
        (
            CACHED | {"guardrails": {"monthly_cost_limit_usd": 100, "data_class": "confidential"}},
            "lets pods read from a cache that keeps none; leave it out",
        ),
        ({"object_store": {"file_cache_gib": 0}}, "fusion:object_store.file_cache_gib: got 0;"),
        ({"object_store": {"file_cache_gib": "big"}}, 'fusion:object_store.file_cache_gib: got "big";'),
    ],
)
def test_what_makes_no_cache_is_one_clear_line(fusion: dict[str, Any], says: str) -> None:
    assert says in refused(**fusion)


def claim(**spec: Any) -> Resource:
    asked = {"resources": {"requests": {"storage": "1200Gi"}}, "storageClassName": "fusion-bucket"} | spec
    value = {"metadata": {"name": "digits-data"}, "spec": asked}
    return Resource("kubernetes:core/v1:PersistentVolumeClaim", "c", read(value), "urn:c", "")


@pytest.mark.parametrize(
    ("driver", "spec", "gib"),
    [
        ("fsx.csi.aws.com", {"volumeName": "v"}, None),
        ("ebs.csi.aws.com", {"volumeName": "v"}, 1_200),
        ("fsx.csi.aws.com", {"volumeName": "other"}, 1_200),
        ("fsx.csi.aws.com", {}, 1_200),
        ("fsx.csi.aws.com", {"volumeName": "v", "resources": {"requests": {"storage": "9600Gi"}}}, 9_600),
    ],
    ids=["of the bucket", "a disk", "another volume", "no volume", "grown"],
)
def test_only_a_claim_of_a_buckets_volume_costs_nothing_beside_it(driver: str, spec: dict[str, Any], gib: int) -> None:
    known = Registered()
    volume = {"metadata": {"name": "v"}, "spec": {"csi": {"driver": driver}, "capacity": {"storage": "1200Gi"}}}
    known.take(Resource("kubernetes:core/v1:PersistentVolume", "v", read(volume), "urn:v", ""))
    billed = quantities(claim(**spec), load(), Place("aws", "us-east-1"), known)
    assert [each.max for each in billed.values()] == ([] if gib is None else [gib])
