import json

import pytest

from infra.aws.cluster import AwsCluster
from infra.aws.network import AwsNetwork
from infra.cluster import ClusterArgs
from infra.network import NetworkArgs
from localcloud.kubernetes.backend import version_in
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import REGION, ZONES

ADMINISTRATOR = "arn:aws:iam::123456789012:role/administrators"


def program(**changes):
    args = ClusterArgs(region=REGION, administrators=(ADMINISTRATOR,), **changes)
    network_args = NetworkArgs(region=REGION, zones=ZONES, flow_logs=False)
    return lambda: AwsCluster("t-cluster", args, AwsNetwork("t-network", network_args))


@pytest.fixture(scope="module")
def cloud():
    pinned = program(addon_versions={"coredns": "v1.12.1-eksbuild.2"}, log_retention_days=30)
    with Cloud(pinned, lambda made: {"kubeconfig": made.kubeconfig}) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def cluster(cloud):
    return cloud.eks.describe_cluster(name="t-cluster")["cluster"]


def test_the_endpoint_is_private(cluster):
    endpoint = cluster["resourcesVpcConfig"]
    assert endpoint["endpointPrivateAccess"] is True
    assert endpoint["endpointPublicAccess"] is False


def test_the_control_plane_is_in_the_private_subnets_of_all_zones(cloud, cluster):
    subnets = cloud.ec2.describe_subnets(SubnetIds=cluster["resourcesVpcConfig"]["subnetIds"])["Subnets"]
    assert {subnet["AvailabilityZone"] for subnet in subnets} == set(ZONES)
    assert all(cloud.tags(subnet)["Name"].startswith("t-network-private-") for subnet in subnets)


def test_secrets_are_encrypted_with_the_clusters_own_key(cloud, cluster):
    (encryption,) = cluster["encryptionConfig"]
    assert encryption["resources"] == ["secrets"] and cloud.key_rotates(encryption["provider"]["keyArn"])


def test_everything_that_the_control_plane_logs_is_kept_encrypted(cloud, cluster):
    enabled = [types for types in cluster["logging"]["clusterLogging"] if types["enabled"]]
    assert {each for types in enabled for each in types["types"]} == {
        "api",
        "audit",
        "authenticator",
        "controllerManager",
        "scheduler",
    }
    (group,) = cloud.client("logs").describe_log_groups(logGroupNamePrefix="/aws/eks/t-cluster")["logGroups"]
    assert group["retentionInDays"] == 30 and cloud.key_rotates(group["kmsKeyId"])


def test_access_is_by_entries_and_the_administrators_have_one(cloud, cluster):
    assert cluster["accessConfig"]["authenticationMode"] == "API"
    assert ADMINISTRATOR in cloud.eks.list_access_entries(clusterName="t-cluster")["accessEntries"]
    (policy,) = cloud.eks.list_associated_access_policies(clusterName="t-cluster", principalArn=ADMINISTRATOR)[
        "associatedAccessPolicies"
    ]
    assert policy["policyArn"].endswith("/AmazonEKSClusterAdminPolicy")


def test_the_core_add_ons_are_there_at_the_pinned_version(cloud):
    names = cloud.eks.list_addons(clusterName="t-cluster")["addons"]
    assert set(names) == {"vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent", "aws-ebs-csi-driver"}
    coredns = cloud.eks.describe_addon(clusterName="t-cluster", addonName="coredns")["addon"]
    assert coredns["addonVersion"] == "v1.12.1-eksbuild.2"


@pytest.mark.parametrize(
    ("addon", "service_account"), [("vpc-cni", "aws-node"), ("aws-ebs-csi-driver", "ebs-csi-controller-sa")]
)
def test_drivers_have_rights_of_their_own_and_the_node_has_not(cloud, addon, service_account):
    associations = cloud.eks.list_pod_identity_associations(clusterName="t-cluster")["associations"]
    assert ("kube-system", service_account) in {(each["namespace"], each["serviceAccount"]) for each in associations}
    (statement,) = cloud.trust(f"t-cluster-{addon}")["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    conditions = statement["Condition"]["StringEquals"]
    assert conditions["aws:SourceAccount"] == cloud.account_id
    assert conditions["aws:RequestTag/kubernetes-service-account"] == service_account
    assert cloud.attached("t-cluster-node") == {"AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"}


def test_pods_can_also_authenticate_through_the_clusters_oidc_issuer(cloud, cluster):
    (provider,) = cloud.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
    found = cloud.client("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=provider["Arn"])
    assert found["Url"] == cluster["identity"]["oidc"]["issuer"].removeprefix("https://")
    assert found["ClientIDList"] == ["sts.amazonaws.com"]


def test_system_nodes_are_small_fixed_and_closed(cloud):
    (name,) = cloud.eks.list_nodegroups(clusterName="t-cluster")["nodegroups"]
    nodes = cloud.eks.describe_nodegroup(clusterName="t-cluster", nodegroupName=name)["nodegroup"]
    assert nodes["scalingConfig"] == {"minSize": 2, "desiredSize": 2, "maxSize": 2}
    assert nodes["amiType"] == "AL2023_x86_64_STANDARD" and nodes["capacityType"] == "ON_DEMAND"
    template = cloud.launch_template("t-cluster-system")
    assert template["MetadataOptions"]["HttpTokens"] == "required"
    (disk,) = template["BlockDeviceMappings"]
    assert disk["Ebs"]["Encrypted"] is True and cloud.key_rotates(disk["Ebs"]["KmsKeyId"])


def test_no_policy_of_ours_allows_a_wildcard(cloud):
    assert cloud.inline_policies()
    for role, policy in cloud.inline_policies().items():
        for statement in policy["Statement"]:
            assert "*" not in json.dumps(statement["Action"]), role
            assert statement["Resource"] != "*" and "*" not in statement["Resource"], role


def test_the_key_of_disks_is_usable_by_auto_scaling_and_for_resources_of_aws_only(cloud):
    use, grant = cloud.key_policy("alias/t-cluster-disks")["Statement"][1:]
    for statement in (use, grant):
        condition = statement["Condition"]
        assert condition["StringEquals"]["kms:CallerAccount"] == cloud.account_id
        assert condition["ArnEquals"]["aws:PrincipalArn"].endswith("/AWSServiceRoleForAutoScaling")
    assert grant["Condition"]["Bool"] == {"kms:GrantIsForAWSResource": "true"}


def test_the_kubeconfig_holds_no_credential(cloud):
    config = json.loads(cloud.outputs["kubeconfig"])
    (user,) = config["users"]
    assert set(user["user"]) == {"exec"}
    assert user["user"]["exec"]["args"][:4] == ["eks", "get-token", "--cluster-name", "t-cluster"]


def test_the_kubeconfig_says_the_clusters_version_to_those_who_check_objects_offline(cloud):
    assert version_in(cloud.outputs["kubeconfig"]) == "1.35"


def test_guardrails_see_the_keys(cloud):
    assert cloud.facts("fusion:aws:Cluster")["encryption_keys"] == cloud.keys_made() == 2
