from infra.cluster import SystemPoolArgs
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.test_aws_cluster import program

OFFICE = "203.0.113.0/24"


def test_a_public_endpoint_is_for_the_named_ranges():
    with Cloud(program(public_access_cidrs=(OFFICE,))) as deployed:
        endpoint = deployed.eks.describe_cluster(name="t-cluster")["cluster"]["resourcesVpcConfig"]
        assert endpoint["endpointPublicAccess"] and endpoint["endpointPrivateAccess"]
        assert endpoint["publicAccessCidrs"] == [OFFICE]


def test_arm_nodes_get_an_arm_image():
    with Cloud(program(system_pool=SystemPoolArgs(instance_type="m7g.large", nodes=1))) as deployed:
        (name,) = deployed.eks.list_nodegroups(clusterName="t-cluster")["nodegroups"]
        nodes = deployed.eks.describe_nodegroup(clusterName="t-cluster", nodegroupName=name)["nodegroup"]
        assert nodes["amiType"] == "AL2023_ARM_64_STANDARD"
