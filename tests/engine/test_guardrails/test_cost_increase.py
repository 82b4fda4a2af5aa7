"""The limit on the increase against the deployed stack: what breaks it changes nothing, what just keeps it is made."""

import pytest

from infra.planning import plan_stack
from planner.catalog import load
from planner.cost import to_the_cent
from tests.engine.conftest import DIGITS, PACK, Engine
from tests.engine.test_guardrails.test_cost import load_config

MACHINE = 'aws.ec2.Instance("{name}", **SAFE, instance_type="{type}", opts=pulumi.ResourceOptions(depends_on=before))'
SAID = "more than the ${:,.2f} of the deployed stack (fusion:guardrails monthly_cost_increase_max_percent)"


def machines(engine: Engine, **types: str) -> None:
    """A program of instances, one after the other."""
    made = [f"before = [{MACHINE.format(name=name, type=each)}]" for name, each in types.items()]
    engine.program("\n".join(["import pulumi, pulumi_aws as aws", "before = []", *made]))


def limit(engine: Engine, percent: float, **more: object) -> None:
    engine.configure(guardrails={"monthly_cost_increase_max_percent": percent, **more})


def types_of(engine: Engine) -> list[str]:
    return sorted(each["inputs"]["instanceType"] for each in engine.state() if each["type"].endswith(":Instance"))


def cost_usd(engine: Engine) -> float:
    """By month at the autoscaler's maximum, as the stack's file is now."""
    return to_the_cent(plan_stack(load_config(engine), engine.stack, load()).monthly_usd.max)


@pytest.fixture
def deployed(small: Engine) -> Engine:
    """A stack of one m6i.large, made under the limit: the first deployment is no increase."""
    limit(small, 0)
    machines(small, one="m6i.large")
    small.up(**PACK)
    assert types_of(small) == ["m6i.large"]
    return small


def test_twice_the_deployed_stack_is_an_increase_of_100_percent_and_not_of_99(deployed: Engine) -> None:
    machines(deployed, one="m6i.large", two="m6i.large")
    limit(deployed, 99.9)
    for printed in (deployed.preview(status=None, **PACK), deployed.up(status=None, **PACK)):
        assert "two (aws:ec2/instance:Instance) costs up to $70.72 a month and would take the stack to" in printed
        assert SAID.format(70.72) in printed
        assert types_of(deployed) == ["m6i.large"]
    limit(deployed, 100)
    deployed.up(**PACK)
    assert types_of(deployed) == ["m6i.large", "m6i.large"]
    assert "unchanged" in deployed.preview("--expect-no-changes", **PACK)


def test_a_deployed_machine_may_not_grow_past_the_limit_and_may_shrink(deployed: Engine) -> None:
    limit(deployed, 50)
    machines(deployed, one="m6i.xlarge")
    assert SAID.format(70.72) in deployed.up(status=None, **PACK)
    assert types_of(deployed) == ["m6i.large"]
    limit(deployed, 0)
    machines(deployed, one="t3.medium")
    deployed.up(**PACK)
    assert types_of(deployed) == ["t3.medium"]


def test_what_takes_the_place_of_another_resource_is_compared_with_it(deployed: Engine) -> None:
    limit(deployed, 0)
    machines(deployed, other="m6i.large")
    deployed.up(**PACK)
    assert types_of(deployed) == ["m6i.large"]
    machines(deployed, other="m6i.large", free_of_cost_no_more="t3.nano")
    assert SAID.format(70.72) in deployed.up(status=None, **PACK)


def test_what_is_not_known_before_the_update_is_refused_in_preview_and_up(deployed: Engine) -> None:
    deployed.program("""
        import pulumi_aws as aws
        net = aws.ec2.Vpc("net", cidr_block="10.0.0.0/16")
        aws.ec2.Instance("one", **SAFE, instance_type=net.id.apply(lambda _: "p5.48xlarge"))
    """)
    assert "its cost can't be known" in deployed.preview(status=None, **PACK)
    assert SAID.format(70.72) in deployed.up(status=None, **PACK)
    assert types_of(deployed) == ["m6i.large"]


def test_a_level_of_advisory_shows_the_increase_and_makes_it(deployed: Engine) -> None:
    limit(deployed, 10, levels={"monthly-cost-increase": "advisory"})
    machines(deployed, one="m6i.xlarge")
    assert "[advisory]  monthly-cost-increase" in deployed.up(**PACK)
    assert types_of(deployed) == ["m6i.xlarge"]


def test_a_plan_that_grows_past_the_limit_is_stopped_with_the_pack_and_without_it(platform: Engine) -> None:
    def asks(nodes: int, percent: float) -> None:
        guardrails = {"monthly_cost_limit_usd": 10**6, "monthly_cost_increase_max_percent": percent}
        platform.configure(workloads=[DIGITS | {"nodes": {"min": 0, "max": nodes}}], guardrails=guardrails)

    asks(2, 0)
    assert "monthly-cost-increase: nothing of the plan is deployed yet, so it passes" in platform.up(**PACK)
    before, inventory = cost_usd(platform), platform.exists()
    asks(4, 0)
    for environment in ({}, PACK):
        for printed in (platform.preview(status=None, **environment), platform.up(status=None, **environment)):
            said = " ".join(printed.split())
            assert f"over the limit of ${before:,.2f}, 0 % {SAID.format(before)}" in said
            assert "Nearest change that fits: lower the maximum of pool g5-xlarge-spot (digits) from 4 to 2" in said
        assert platform.exists() == inventory
    grown = cost_usd(platform)
    asks(4, (grown / before - 1) * 100)
    platform.up()
    asks(5, 1000)
    platform.up(**PACK)
    asks(5, 0)
    assert "unchanged" in platform.preview("--expect-no-changes", **PACK)
