import json

import pytest

from infra.aws.cluster import AwsCluster
from infra.aws.network import AwsNetwork
from infra.aws.object_store import AwsObjectStore
from infra.aws.workload_identity import AwsWorkloadIdentity
from infra.cluster import ClusterArgs
from infra.network import NetworkArgs
from infra.object_store import ObjectStore, ObjectStoreArgs
from infra.workload_identity import StoreAccess, WorkloadIdentityArgs
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import REGION, ZONES, refusal


def program():
    network = AwsNetwork("t-network", NetworkArgs(region=REGION, zones=ZONES, flow_logs=False))
    cluster = AwsCluster("t-cluster", ClusterArgs(region=REGION), network)
    store = AwsObjectStore("t-store", ObjectStoreArgs(region=REGION))
    for name, write in (("trainer", ("runs/digits/",)), ("reader", ())):
        args = WorkloadIdentityArgs(
            region=REGION,
            namespace="workloads",
            service_account=name,
            access=(StoreAccess(store=store, read=("data/",), write=write),),
        )
        AwsWorkloadIdentity(f"t-{name}", args, cluster)


@pytest.fixture(scope="module")
def cloud():
    with Cloud(program) as deployed:
        yield deployed


@pytest.fixture
def bucket(cloud):
    return f"arn:aws:s3:::t-store-{cloud.account_id}-{REGION}"


@pytest.fixture
def statements(cloud):
    def find(role):
        return {each["Sid"].rstrip("0"): each for each in cloud.role_policy(role)["Statement"]}

    return find


def test_only_pods_of_the_one_service_account_of_the_one_cluster_take_on_the_role(cloud):
    (trust,) = cloud.trust("t-trainer")["Statement"]
    assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert trust["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert trust["Condition"]["StringEquals"] == {
        "aws:SourceAccount": cloud.account_id,
        "aws:RequestTag/eks-cluster-arn": cloud.eks.describe_cluster(name="t-cluster")["cluster"]["arn"],
        "aws:RequestTag/kubernetes-namespace": "workloads",
        "aws:RequestTag/kubernetes-service-account": "trainer",
    }


def test_it_reads_and_writes_the_named_folders_of_the_named_bucket(bucket, statements):
    trainer = statements("t-trainer")
    assert trainer["Read"]["Resource"] == [f"{bucket}/data/*", f"{bucket}/runs/digits/*"]
    assert trainer["Write"]["Resource"] == [f"{bucket}/runs/digits/*"]
    assert trainer["List"]["Resource"] == bucket
    assert trainer["List"]["Condition"]["StringLike"]["s3:prefix"] == ["data", "data/*", "runs/digits", "runs/digits/*"]


def test_who_reads_only_can_not_write_or_encrypt(bucket, statements):
    reader = statements("t-reader")
    assert set(reader) == {"List", "Read", "Key"}
    assert reader["Read"]["Action"] == ["s3:GetObject"] and reader["Key"]["Action"] == ["kms:Decrypt"]


@pytest.mark.parametrize("role", ["t-trainer", "t-reader"])
def test_no_action_and_no_resource_is_a_wildcard(cloud, role, bucket):
    for statement in cloud.role_policy(role)["Statement"]:
        assert not any("*" in action for action in statement["Action"])
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert all(each.startswith((f"{bucket}/", bucket, "arn:aws:kms:")) for each in resources)
        assert "*" not in {each.removeprefix(bucket).strip("/") for each in resources}


@pytest.mark.parametrize("role", ["t-trainer", "t-reader"])
def test_the_buckets_key_is_used_through_s3_only(cloud, role, statements):
    key = statements(role)["Key"]
    assert cloud.key_rotates(key["Resource"])
    assert key["Condition"] == {"StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}}


def test_the_cluster_knows_whose_role_it_is(cloud):
    listed = cloud.eks.list_pod_identity_associations(clusterName="t-cluster")["associations"]
    found = [each for each in listed if each["namespace"] == "workloads"]
    assert {each["serviceAccount"] for each in found} == {"trainer", "reader"}
    (trainer,) = [each["associationId"] for each in found if each["serviceAccount"] == "trainer"]
    association = cloud.eks.describe_pod_identity_association(clusterName="t-cluster", associationId=trainer)
    assert association["association"]["roleArn"].endswith(":role/t-trainer")


def test_the_service_account_brings_no_rights_in_the_cluster(cloud):
    accounts = cloud.mocks.of_type("kubernetes:core/v1:ServiceAccount")
    assert [each["automountServiceAccountToken"] for each in accounts] == [False, False]
    assert {json.dumps(each["metadata"], sort_keys=True) for each in accounts} == {
        '{"name": "reader", "namespace": "workloads"}',
        '{"name": "trainer", "namespace": "workloads"}',
    }


def test_a_store_of_another_cloud_is_refused():
    access = (StoreAccess(store=ObjectStore.__new__(ObjectStore), read=("data/",)),)
    args = WorkloadIdentityArgs(region=REGION, namespace="w", service_account="s", access=access)
    assert "a store of another cloud" in refusal(AwsWorkloadIdentity, "t-other", args, None)
