"""The monthly limit on the real engine: what breaks it creates nothing, and there is no way round."""

import json
from pathlib import Path

import yaml

from tests.engine.conftest import DIGITS, PACK, Engine

STRAY = """
    import pulumi_aws as aws
    aws.ec2.Instance("stray", **SAFE, instance_type="p5.48xlarge")
"""


def test_a_plan_over_the_limit_creates_nothing_with_the_pack_and_without_it(platform: Engine) -> None:
    platform.configure(workloads=[DIGITS | {"nodes": {"min": 0, "max": 20}}])
    for environment in ({}, PACK):
        printed = platform.up(status=None, **environment)
        assert "over the limit of $1,500.00" in printed
        assert "lower the maximum of pool g5-xlarge-spot (digits) from 20 to" in printed
        assert platform.exists() == []
        assert not list(platform.manifests.rglob("*.yaml"))
        assert {each["type"] for each in platform.state()} <= {"pulumi:pulumi:Stack"}
    assert "[mandatory]  monthly-cost-limit" in platform.preview(status=None, **PACK)
    without_the_pack = platform.preview(status=None)
    assert "over the limit" in without_the_pack
    assert "only the plan is judged" in without_the_pack


def test_the_pack_alone_stops_a_plan_that_its_own_limit_forbids(platform: Engine) -> None:
    limits = platform.folder / "limits.json"
    limits.write_text(json.dumps({"monthly-cost-limit": {"monthly_cost_limit_usd": 500}}))
    pack = PACK["PULUMI_OPTION_POLICY_PACK"]
    printed = platform.up("--policy-pack", pack, "--policy-pack-config", str(limits), status=None)
    assert "over the limit of $500.00" in printed
    assert platform.exists() == []


def test_a_resource_outside_the_plan_that_would_pass_the_limit_is_refused(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program(STRAY)
    assert "over the limit of $1,000.00" in small.up(status=None, **PACK)
    assert small.exists() == []


def test_a_resource_within_the_limit_is_created(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program(STRAY.replace("p5.48xlarge", "m6i.large"))
    small.up(**PACK)
    assert any(line.startswith("ec2 i-") for line in small.exists())


def test_many_small_resources_are_stopped_by_their_sum(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 250})
    small.program("""
        import pulumi
        import pulumi_aws as aws
        before = []
        for number in range(6):
            made = aws.ec2.Instance(
                f"small-{number}", **SAFE, instance_type="m6i.large",
                opts=pulumi.ResourceOptions(depends_on=before),
            )
            before = [made]
    """)
    assert "over the limit of $250.00" in small.up(status=None, **PACK)
    assert len([line for line in small.exists() if line.startswith("ec2 i-")]) == 3


def test_a_transform_that_changes_the_instance_type_later_is_judged_by_what_it_makes(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program("""
        import pulumi
        import pulumi_aws as aws
        def dearer(args):
            return pulumi.ResourceTransformResult(args.props | {"instanceType": "p5.48xlarge"}, args.opts)
        pulumi.runtime.register_resource_transform(dearer)
        aws.ec2.Instance("innocent", **SAFE, instance_type="m6i.large")
    """)
    assert "over the limit" in small.up(status=None, **PACK)
    assert small.exists() == []


def test_a_price_that_depends_on_what_is_not_known_is_refused_in_preview_and_up(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program("""
        import pulumi_aws as aws
        vpc = aws.ec2.Vpc("net", cidr_block="10.0.0.0/16")
        aws.ec2.Instance("unknown", **SAFE, instance_type=vpc.id.apply(lambda _: "p5.48xlarge"))
    """)
    assert "its cost can't be known" in small.preview(status=None, **PACK)


def test_a_wrong_config_is_one_error_a_value_before_anything_exists(platform: Engine) -> None:
    platform.configure(workloads=[DIGITS | {"nodes": {"min": 3, "max": 1}}], guardrails={"monthly_cost_limit_usd": -1})
    printed = platform.up(status=None)
    assert "stacks/Pulumi.local.yaml: fusion:workloads[0].nodes: " in printed
    assert "stacks/Pulumi.local.yaml: fusion:guardrails.monthly_cost_limit_usd: got -1" in printed
    assert "Traceback" not in printed
    assert platform.exists() == []


def test_the_committed_local_stack_is_within_its_guardrails(platform: Engine) -> None:
    committed = yaml.safe_load((Path(__file__).parents[3] / "stacks/Pulumi.local.yaml").read_text())["config"]
    platform.configure(**committed)
    assert "error" not in platform.preview(**PACK).lower()


def test_the_expected_load_has_a_limit_of_its_own(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 100_000, "expected_monthly_cost_limit_usd": 1000})
    small.program(STRAY)
    assert "at the expected load" in small.up(status=None, **PACK)
    assert small.exists() == []
    small.program(STRAY.replace("p5.48xlarge", "m6i.large"))
    small.up(**PACK)
    assert any(line.startswith("ec2 i-") for line in small.exists())
