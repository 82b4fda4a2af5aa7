"""A quota is judged with what others of the account use of it already."""

from localcloud.aws.api import Aws
from tests.engine.conftest import DIGITS, PACK, Engine

GPU = {"accelerators": 1, "instance_type": "g5.8xlarge", "vcpus": 3, "memory_gib": 12}
ON_DEMAND = {"needs": GPU, "price_model": "on_demand", "nodes": {"min": 0, "desired": 1, "max": 63}}
LAUNCH = {"ImageId": "ami-12c6146b", "InstanceType": "g5.4xlarge"}


def test_what_runs_elsewhere_takes_from_the_quota_until_it_ends(platform: Engine) -> None:
    """2,048 vCPUs are granted, the plan takes 63 nodes of 32: 32 are left for others."""
    platform.configure(guardrails={"monthly_cost_limit_usd": 10**9}, workloads=[DIGITS | ON_DEMAND])
    aws = Aws(platform.ensure(), "us-east-1")
    own = [{"ResourceType": "instance", "Tags": [{"Key": "fusion:stack", "Value": platform.stack}]}]
    aws.call("ec2", "run_instances", **LAUNCH, MinCount=3, MaxCount=3, TagSpecifications=own)
    aws.call("ec2", "run_instances", **LAUNCH, MinCount=2, MaxCount=2)
    assert "[mandatory]" not in platform.preview(**PACK)

    before = platform.exists()
    other = aws.call("ec2", "run_instances", **LAUNCH, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    more = platform.exists()
    assert len(more) > len(before)
    for environment in ({}, PACK):
        said = " ".join(platform.up(status=None, **environment).split())
        assert "2,048 are granted and 48 are in use by others than this stack: 16 are missing" in said
        assert platform.exists() == more
    aws.call("ec2", "terminate_instances", InstanceIds=[other])
    assert "[mandatory]" not in platform.preview(**PACK)
