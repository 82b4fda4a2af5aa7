"""The local AWS under the real engine: drift, import, secrets, unknowns, two stacks, a server that restarts."""

import json
import subprocess

import boto3

from localcloud.aws.api import CREDENTIALS
from tests.engine.conftest import ROOT, Engine


def client(engine: Engine, service: str):
    return boto3.client(service, endpoint_url=engine.ensure(), region_name="us-east-1", **CREDENTIALS)


PROGRAM = """
    import json
    import pulumi
    import pulumi_aws as aws

    secret = pulumi.Config().require_secret("password")
    vpc = aws.ec2.Vpc("net", cidr_block="10.0.0.0/16", tags={"team": "ml"})
    subnet = aws.ec2.Subnet("one", vpc_id=vpc.id, cidr_block="10.0.1.0/24", availability_zone="us-east-1a")
    group = aws.ec2.SecurityGroup("nodes", vpc_id=vpc.id)
    inside = aws.vpc.SecurityGroupIngressRule(
        "inside", security_group_id=group.id, ip_protocol="-1", referenced_security_group_id=group.id,
        description="Among the nodes",
    )
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "eks.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = aws.iam.Role("cluster", assume_role_policy=json.dumps(trust))
    cluster = aws.eks.Cluster("it", role_arn=role.arn, version="1.33", vpc_config={"subnet_ids": [subnet.id]})
    nodes = aws.eks.NodeGroup(
        "gpu", cluster_name=cluster.name, node_role_arn=role.arn, subnet_ids=[subnet.id], labels={"a": "b"},
        scaling_config={"min_size": 0, "desired_size": 0, "max_size": 1},
    )
    bucket = aws.s3.Bucket("data", bucket="data-of-ours", force_destroy=True)
    rules = aws.s3.BucketLifecycleConfiguration("old", bucket=bucket.id, rules=[
        {"id": "old", "status": "Enabled", "filter": {"prefix": "runs/"},
         "transitions": [{"days": 30, "storage_class": "GLACIER"}], "expiration": {"days": 90}}])
    seed = aws.s3.BucketObjectv2("seed", bucket=bucket.id, key="seed.txt", source=pulumi.StringAsset("42"))
    parameter = aws.ssm.Parameter("password", name="password", type="SecureString", value=secret)
    queue = aws.sqs.Queue("runs", visibility_timeout_seconds=60)
    for name, value in {"vpc": vpc.id, "group": group.id, "rule": inside.id, "role": role.name, "nodes": nodes.node_group_name,
                        "cluster": cluster.name, "queue": queue.url}.items():
        pulumi.export(name, value)
"""


def test_drift_of_every_kind_is_found_and_mended(small: Engine) -> None:
    small.configure(password="hunter2")
    small.program(PROGRAM)
    assert "error" not in small.preview().lower()
    small.up()
    assert "unchanged" in small.up("--refresh", "--expect-no-changes")
    ids = small.outputs()
    ec2, eks, iam, s3 = (client(small, service) for service in ("ec2", "eks", "iam", "s3"))

    ec2.create_tags(Resources=[ids["vpc"]], Tags=[{"Key": "team", "Value": "theirs"}])
    ec2.modify_vpc_attribute(VpcId=ids["vpc"], EnableDnsSupport={"Value": False})
    ec2.revoke_security_group_ingress(GroupId=ids["group"], SecurityGroupRuleIds=[ids["rule"]])
    iam.update_role(RoleName=ids["role"], Description="theirs", MaxSessionDuration=7200)
    eks.update_nodegroup_config(
        clusterName=ids["cluster"], nodegroupName=ids["nodes"], labels={"addOrUpdateLabels": {"x": "y"}}
    )
    s3.delete_bucket_lifecycle(Bucket="data-of-ours")
    client(small, "sqs").set_queue_attributes(QueueUrl=ids["queue"], Attributes={"VisibilityTimeout": "5"})
    client(small, "ssm").put_parameter(Name="password", Value="theirs", Type="SecureString", Overwrite=True)

    small.up("--refresh")
    tags = ec2.describe_vpcs(VpcIds=[ids["vpc"]])["Vpcs"][0]["Tags"]
    assert tags == [{"Key": "team", "Value": "ml"}]
    dns = ec2.describe_vpc_attribute(VpcId=ids["vpc"], Attribute="enableDnsSupport")
    assert dns["EnableDnsSupport"]["Value"]
    group = {"Name": "group-id", "Values": [ids["group"]]}
    (rule,) = ec2.describe_security_group_rules(Filters=[group])["SecurityGroupRules"]
    assert rule["Description"] == "Among the nodes"
    role = iam.get_role(RoleName=ids["role"])["Role"]
    assert (role.get("Description", ""), role["MaxSessionDuration"]) == ("", 3600)
    described = eks.describe_nodegroup(clusterName=ids["cluster"], nodegroupName=ids["nodes"])["nodegroup"]
    assert described["labels"] == {"a": "b"}
    (lifecycle,) = s3.get_bucket_lifecycle_configuration(Bucket="data-of-ours")["Rules"]
    assert lifecycle["Transitions"] == [{"Days": 30, "StorageClass": "GLACIER"}]
    queue = client(small, "sqs").get_queue_attributes(QueueUrl=ids["queue"], AttributeNames=["All"])["Attributes"]
    assert queue["VisibilityTimeout"] == "60"
    found = client(small, "ssm").get_parameter(Name="password", WithDecryption=True)["Parameter"]
    assert found["Value"] == "hunter2"
    assert "unchanged" in small.up("--refresh", "--expect-no-changes")

    assert "hunter2" not in small.run("stack", "export"), "what was secret in the config is secret in the state"
    small.destroy()
    assert small.exists() == []


def test_an_existing_resource_is_imported_by_the_cli_with_a_program_that_fits(small: Engine) -> None:
    s3, iam = client(small, "s3"), client(small, "iam")
    s3.create_bucket(Bucket="found-here")
    s3.put_bucket_tagging(Bucket="found-here", Tagging={"TagSet": [{"Key": "team", "Value": "ml"}]})
    iam.create_role(RoleName="found", AssumeRolePolicyDocument="{}", Description="was here")
    resources = [
        {"type": "aws:s3/bucket:Bucket", "name": "bucket", "id": "found-here"},
        {"type": "aws:iam/role:Role", "name": "role", "id": "found"},
    ]
    (small.folder / "import.json").write_text(json.dumps({"resources": resources}))
    small.run("import", "--file", "import.json", "--yes", "--protect=false")
    small.program("""
        import pulumi_aws as aws
        aws.s3.Bucket("bucket", bucket="found-here", tags={"team": "ml"})
        aws.iam.Role("role", name="found", assume_role_policy="{}", description="was here")
    """)
    assert "unchanged" in small.up("--expect-no-changes")
    small.destroy()
    assert small.exists() == []


def test_an_id_that_does_not_exist_is_not_imported(small: Engine) -> None:
    printed = small.run("import", "aws:s3/bucket:Bucket", "no", "not-there", "--yes", status=None)
    assert "not-there" in printed
    assert "does not exist" in printed


def test_two_stacks_share_a_local_cloud_and_leave_each_others_alone(small: Engine) -> None:
    program = """
        import pulumi, pulumi_aws as aws
        aws.s3.Bucket("data", bucket=f"{pulumi.get_stack()}-data")
        role = aws.iam.Role("nodes", assume_role_policy="{}")
        network = aws.ec2.Vpc("network", cidr_block="10.0.0.0/16")
        subnets = [
            aws.ec2.Subnet(f"subnet-{zone}", vpc_id=network.id, cidr_block=f"10.0.{number}.0/24",
                           availability_zone=f"us-east-1{zone}").id
            for number, zone in enumerate("ab")
        ]
        cluster = aws.eks.Cluster("cluster", role_arn=role.arn, vpc_config={"subnet_ids": subnets})
        issuer = cluster.identities[0].oidcs[0].issuer
        aws.iam.OpenIdConnectProvider("pods", url=issuer, client_id_lists=["sts.amazonaws.com"])
    """
    small.program(program)
    small.up()
    config, first = dict(small.config), small.exists()
    other = Engine(small.folder, small.environment, stack="other", config=config)
    other.configure()
    subprocess.run(["pulumi", "stack", "init", "other"], cwd=small.folder, env=small.environment, check=True)
    other.up()
    assert "s3 local-data" in other.exists()
    assert "s3 other-data" in other.exists()
    down = [ROOT / ".venv/bin/fusion", "down", "--stack", "other"]
    done = subprocess.run(down, cwd=small.folder, env=small.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "has nothing of it (asked through boto3). Its server runs on for local." in done.stdout
    assert small.exists() == first
    assert "unchanged" in small.up("--refresh", "--expect-no-changes")


def test_a_server_that_dies_between_and_amid_updates_loses_nothing(small: Engine) -> None:
    small.configure(password="hunter2")
    small.program(PROGRAM)
    process = small.start("up", "--yes", "--skip-preview")
    while not small.exists():
        assert process.poll() is None
    small.kill_server()
    process.communicate(timeout=300)
    small.up()
    small.kill_server()
    assert "unchanged" in small.up("--refresh", "--expect-no-changes")
    in_aws = [line for line in small.exists() if line.startswith("ec2 vpc-")]
    assert in_aws == [f"ec2 {small.outputs()['vpc']}"]


def test_a_wrong_field_deep_inside_is_told_by_name_in_the_preview(small: Engine) -> None:
    small.program("""
        import pulumi_aws as aws
        bucket = aws.s3.Bucket("data")
        aws.s3.BucketLifecycleConfiguration("rules", bucket=bucket.id, rules=[
            {"id": "a", "status": "Enabled", "prefix": "x", "expiration": {"days": 1}}])
    """)
    printed = small.preview(status=None)
    assert "rules[0].prefix" in printed
    assert "does not carry this field" in printed
    assert small.exists() == []


def test_another_region_of_the_provider_alone_replaces_what_is_in_a_region_and_nothing_else(small: Engine) -> None:
    """As pulumi-aws 7 has it: a resource that names no region is in its provider's; identities are in none."""
    small.program("""
        import pulumi, pulumi_aws as aws
        provider = aws.Provider("here", region=pulumi.Config().require("region"), profile="fusion-local")
        here = pulumi.ResourceOptions(provider=provider)
        network = aws.ec2.Vpc("network", cidr_block="10.0.0.0/16", opts=here)
        aws.ec2.Vpc("stays", cidr_block="10.1.0.0/16", region="us-east-1", opts=here)
        aws.iam.Role("nodes", assume_role_policy="{}", opts=here)
        pulumi.export("network", network.id)
    """)
    small.configure(region="us-east-1")
    small.up()
    before = small.outputs()["network"]
    small.configure(region="eu-west-1")
    previewed = small.preview("--diff")
    assert '~ region: "us-east-1" => "eu-west-1"' in previewed
    assert "+-1 replaced" in previewed or "+-1 to replace" in previewed
    small.up()
    there = boto3.client("ec2", endpoint_url=small.ensure(), region_name="eu-west-1", **CREDENTIALS)
    assert "10.0.0.0/16" in {each["CidrBlock"] for each in there.describe_vpcs()["Vpcs"]}
    here = client(small, "ec2").describe_vpcs()["Vpcs"]
    assert before not in {each["VpcId"] for each in here}
    assert "10.1.0.0/16" in {each["CidrBlock"] for each in here}
    assert "unchanged" in small.up("--refresh", "--expect-no-changes")
    small.destroy()
    assert "10.0.0.0/16" not in {each["CidrBlock"] for each in there.describe_vpcs()["Vpcs"]}
