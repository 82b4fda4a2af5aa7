"""A stack of confidential data on the real engine: Fusion's own components keep what the guardrail asks for."""

from tests.engine.conftest import PACK, Engine
from tests.engine.test_guardrails.programs import broken

LIMITS = {"monthly_cost_limit_usd": 1500}
BARE = """
    import pulumi_aws as aws
    aws.s3.Bucket("bare", tags={"data-class": "confidential"})
"""


def test_a_stack_of_confidential_data_keeps_an_access_log_that_its_plan_foresaw(platform: Engine) -> None:
    platform.configure(guardrails=LIMITS | {"data_class": "confidential"})
    printed = platform.run("up", "--yes", **PACK)
    assert broken(printed) == {}
    there = platform.exists()
    assert [line for line in there if line.startswith("cloudtrail ")] == [
        "cloudtrail arn:aws:cloudtrail:us-east-1:123456789012:trail/local-store-access"
    ]
    assert len([line for line in there if line.startswith("s3 ")]) == 2
    (plan,) = [each["inputs"] for each in platform.state() if each["type"] == "fusion:platform:Plan"]
    keys = [line for line in there if line.startswith("kms ") and "alias" not in line]
    assert plan["platform"]["encryption_keys"] == len(keys) == 6
    platform.destroy()
    assert platform.exists() == []


def test_a_bucket_beside_the_components_that_is_confidential_needs_a_log_of_its_own(small: Engine) -> None:
    small.program(BARE)
    printed = small.run("up", "--yes", status=None, **PACK)
    assert "bucket bare is confidential and keeps no access log; add one (a Trail" in printed
    assert "confidential data is in S3 and the stack has no VPC endpoint of S3; add one" in printed
    assert small.exists() == []
