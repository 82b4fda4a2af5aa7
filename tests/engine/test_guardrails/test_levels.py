"""How hard a guardrail is enforced: by the stack's file, by the pack's config, mandatory unless one of them says less."""

import json

import pytest

from tests.engine.conftest import PACK, Engine

DEAR = """
    import pulumi_aws as aws
    aws.ec2.Instance("dear", **SAFE, instance_type="p5.48xlarge")
"""
OVER = "over the limit of $1,000.00"


@pytest.fixture
def dear(small: Engine) -> Engine:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program(DEAR)
    return small


def test_advisory_by_the_stack_is_shown_and_creates(dear: Engine) -> None:
    dear.configure(guardrails={"monthly_cost_limit_usd": 1000, "levels": {"monthly-cost-limit": "advisory"}})
    printed = dear.up(**PACK)
    assert "[advisory]  monthly-cost-limit" in printed
    assert OVER in printed


def test_disabled_by_the_stack_says_nothing(dear: Engine) -> None:
    dear.configure(guardrails={"monthly_cost_limit_usd": 1000, "levels": {"monthly-cost-limit": "disabled"}})
    assert OVER not in dear.preview(**PACK)


def test_the_packs_config_sets_the_level_too(dear: Engine) -> None:
    levels = dear.folder / "levels.json"
    levels.write_text(json.dumps({"monthly-cost-limit": {"enforcementLevel": "advisory"}}))
    pack = PACK["PULUMI_OPTION_POLICY_PACK"]
    assert OVER in dear.preview("--policy-pack", pack, "--policy-pack-config", str(levels))


def test_a_level_of_an_unknown_guardrail_stops_the_update(dear: Engine) -> None:
    dear.configure(guardrails={"levels": {"monthly-cost": "disabled"}})
    printed = dear.up(status=None, **PACK)
    assert "fusion:guardrails.levels.monthly-cost: no guardrail has this name; such as monthly-cost-limit" in printed
    assert dear.exists() == []


def test_an_advisory_violation_of_the_plan_is_a_warning_without_the_pack(platform: Engine) -> None:
    platform.configure(guardrails={"monthly_cost_limit_usd": 100, "levels": {"monthly-cost-limit": "advisory"}})
    printed = platform.preview()
    assert "warning: monthly-cost-limit: the plan costs" in printed
