"""Limits of capacity: what can't be had or can't run stops an update before anything exists; the same, just possible, is made."""

import pytest

from localcloud.aws.api import Aws
from tests.engine.conftest import DIGITS, PACK, Engine

GPU = {"accelerators": 1, "instance_type": "g5.8xlarge", "vcpus": 3, "memory_gib": 12}
WHOLE = 64
"""Nodes of 32 vCPUs that take all that the local account is granted."""
G_SPOT = "L-3819A6DF"
ONLY_PLAN = {"monthly_cost_limit_usd": 10**9}


def job(nodes: int = 1, **fields: object) -> dict[str, object]:
    return DIGITS | {"needs": GPU, "nodes": {"min": 0, "desired": 1, "max": nodes}} | fields


def stopped(engine: Engine, *said: str) -> str:
    """`up` ends with an error that says so, and nothing exists."""
    printed = engine.up(status=None, **PACK)
    for each in said:
        assert each in " ".join(printed.split()), printed
    assert engine.exists() == []
    return printed


def test_a_quota_is_kept_to_the_last_vcpu_and_what_is_granted_on_asking_is_made(platform: Engine) -> None:
    platform.configure(guardrails=ONLY_PLAN, workloads=[job(WHOLE + 1)])
    said = f"quota {G_SPOT} (All G and VT Spot Instance Requests) in aws us-east-1: the plan takes up to 2,080 vcpus"
    stopped(platform, said, "2,048 are granted: 32 are missing", f"--quota-code {G_SPOT} --desired-value 2080")
    assert said in " ".join(platform.preview(status=None, **PACK).split())
    assert said in " ".join(platform.up(status=None).split())  # the program keeps it where the pack is not loaded

    platform.configure(workloads=[job(WHOLE)])
    assert "[mandatory]" not in platform.preview(**PACK)
    platform.configure(workloads=[job(WHOLE + 1)])
    ask = {"ServiceCode": "ec2", "QuotaCode": G_SPOT, "DesiredValue": 2080}
    Aws(platform.ensure(), "us-east-1").call("service-quotas", "request_service_quota_increase", **ask)
    platform.up(**PACK)
    assert platform.exists() != []


def test_several_pools_take_from_one_quota_together(platform: Engine) -> None:
    small = GPU | {"instance_type": "g5.4xlarge"}
    platform.configure(guardrails=ONLY_PLAN, workloads=[job(WHOLE), job(1, name="other", needs=small)])
    stopped(platform, "takes up to 2,064 vcpus", "2,048 are granted: 16 are missing")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "aws.ec2.Instance('a', **SAFE, instance_type='g5.3xlarge')",
            "instanceType: g5.3xlarge is no instance type of aws",
        ),
        ("aws.ec2.Instance('a', **SAFE, instance_type='f1.2xlarge')", "f1.2xlarge was retired on 2025-12-20"),
    ],
)
def test_an_instance_type_that_is_not_sold_creates_nothing(small: Engine, program: str, said: str) -> None:
    small.program(f"import pulumi_aws as aws\n{program}")
    stopped(small, said)
