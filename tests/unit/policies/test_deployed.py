"""What a deployed stack costs, from its state; and that nobody is let through where it can't be known."""

from typing import Any

import pytest
from pulumi.runtime.proto import AnalyzeRequest, AnalyzerResource, AnalyzerStackConfigureRequest, AnalyzeStackRequest

from planner.cost import to_the_cent
from policies import cost
from policies.analyzer import Analyzer
from policies.deployed import monthly_usd
from policies.left import nothing_left_behind
from policies.plan import PLAN_TYPE
from policies.state import StateNotRead, read_state
from policies.testing import UNKNOWN, Declared, judge
from policies.update import Update
from tests.unit.planner.test_plan import job, planned

PLAN = planned(job(needs={"instance_type": "g5.xlarge", "accelerators": 1}, nodes={"min": 0, "max": 2}))
PLAN_USD = to_the_cent(PLAN.monthly_usd.max)
INSTANCE, GROUP, VOLUME = "aws:ec2/instance:Instance", "aws:eks/nodeGroup:NodeGroup", "aws:ebs/volume:Volume"
UPDATE = Update(config={"aws:region": "us-east-1"})


def state(resource_type: str, name: str, inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "type": resource_type,
        "urn": f"urn:pulumi:prod::fusion::{resource_type}::{name}",
        "inputs": inputs,
    } | fields


REGISTERED = state(PLAN_TYPE, "plan", PLAN.as_props())
POOL = state(
    GROUP,
    "pool",
    {
        "instanceTypes": ["g5.xlarge"],
        "diskSize": PLAN.pools[0].disk_gib,
        "scalingConfig": {"minSize": 0, "desiredSize": 0, "maxSize": 2},
    },
)


def test_nothing_deployed_costs_nothing() -> None:
    assert monthly_usd(UPDATE, []) == 0


def test_what_the_deployed_plan_foresaw_is_counted_once_and_what_goes_beyond_it_too() -> None:
    assert monthly_usd(UPDATE, [REGISTERED]) == PLAN_USD
    assert monthly_usd(UPDATE, [POOL, REGISTERED]) == PLAN_USD
    larger = POOL | {"inputs": POOL["inputs"] | {"scalingConfig": {"minSize": 0, "desiredSize": 0, "maxSize": 4}}}
    assert monthly_usd(UPDATE, [REGISTERED, larger]) > PLAN_USD + 2 * 730 * PLAN.pools[0].price_usd_per_hour


def test_what_is_only_waiting_for_its_deletion_counts_nothing() -> None:
    assert monthly_usd(UPDATE, [state(VOLUME, "old", {"size": 100}, delete=True)]) == 0


def test_objects_of_a_cluster_are_priced_where_the_stack_is_deployed_and_not_where_the_change_takes_it() -> None:
    claim = state(
        "kubernetes:core/v1:PersistentVolumeClaim",
        "data",
        {"spec": {"resources": {"requests": {"storage": "1000Gi"}}}},
    )
    moved = Update(config={"aws:region": "eu-west-1"})
    deployed = [REGISTERED, claim]
    assert monthly_usd(moved, deployed) == monthly_usd(UPDATE, deployed) > monthly_usd(UPDATE, [REGISTERED])


def test_a_resource_is_priced_where_its_provider_is() -> None:
    provider = state("pulumi:providers:aws", "far", {"region": "eu-west-1"})
    there = state(VOLUME, "data", {"size": 1000}, provider=f"{provider['urn']}::id")
    price = UPDATE.catalog.service_price("aws", "eu-west-1", "block_storage_gp2_gib").price_usd
    assert monthly_usd(UPDATE, [there, provider]) == to_the_cent(1000 * price)


def test_what_has_no_price_counts_nothing_so_that_the_limit_errs_towards_the_strict_side() -> None:
    without = [state(VOLUME, "a", {}), state(INSTANCE, "b", {"instanceType": "x9.huge"}), state(GROUP, "c", {})]
    assert monthly_usd(UPDATE, [*without, REGISTERED]) == PLAN_USD


def test_a_plan_of_which_even_the_bill_has_another_form_is_an_error_and_not_a_bill_of_nothing() -> None:
    with pytest.raises(StateNotRead, match="written by another version"):
        monthly_usd(UPDATE, [state(PLAN_TYPE, "plan", {"items": [{"usd": 1}]})])


def test_of_another_versions_plan_the_bill_is_enough() -> None:
    assert monthly_usd(UPDATE, [state(PLAN_TYPE, "plan", {"items": PLAN.as_props()["items"], "new": 1})]) == PLAN_USD


def test_what_the_catalog_no_longer_has_is_counted_at_the_price_of_its_plan() -> None:
    items = PLAN.as_props()["items"]
    gone = items[0] | {"tariff": items[0]["tariff"] | {"item": "x9.huge", "price_model": "on_demand"}}
    counted = gone["quantity"]["max"] * gone["price_usd_per_month"]
    usd = monthly_usd(UPDATE, [state(PLAN_TYPE, "plan", {"items": [*items, gone]}), POOL])
    assert usd == pytest.approx(PLAN_USD + counted, abs=0.01)


def test_a_state_that_nobody_can_read_breaks_the_guardrail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    machines = [Declared(INSTANCE, {"instanceType": "m6i.large"}, name=name) for name in ("one", "two")]
    (told,) = judge(cost.monthly_cost_increase, *machines, read_state=read_state, monthly_cost_increase_max_percent=10)
    assert told.startswith("what the deployed stack costs can't be known: the pulumi command is not on PATH")
    assert judge(cost.monthly_cost_increase, *machines) == []


DATA = state(VOLUME, "tested", {"size": 100}, retainOnDelete=True)


def left(*declared: Declared, of: dict[str, Any], **settings: Any) -> list[str]:
    """What is told of a stack in whose state there is one resource."""
    return judge(nothing_left_behind, *declared, read_state=lambda *_: [of | {"urn": URN}], **settings)


URN = Declared(VOLUME, {}).urn


def test_what_is_kept_when_it_leaves_is_told_with_its_price_while_the_stack_has_a_limit() -> None:
    (told,) = left(of=DATA, monthly_cost_limit_usd=1000)
    assert told.startswith("tested (aws:ebs/volume:Volume) costs up to $10.00 a month and is kept when it leaves")
    assert left(of=DATA) == []
    assert left(Declared(VOLUME, {}), of=DATA, monthly_cost_limit_usd=1000) == []


def test_what_was_kept_is_told_after_an_update_without_a_preview() -> None:
    there = [DATA | {"urn": URN}]

    def read(*_: str) -> list[dict[str, Any]]:
        return there.copy()

    analyzer = Analyzer("test", [nothing_left_behind], read)
    settings = {"fusion:guardrails": '{"monthly_cost_limit_usd": 1000}', "aws:region": "us-east-1"}
    analyzer.ConfigureStack(AnalyzerStackConfigureRequest(config=settings), None)
    analyzer.Analyze(AnalyzeRequest(type="pulumi:pulumi:Stack", urn="urn:stack"), None)
    there.clear()  # the engine forgets it
    (answer,) = analyzer.AnalyzeStack(AnalyzeStackRequest(), None).diagnostics
    assert "tested (aws:ebs/volume:Volume) costs up to $10.00 a month and has left the stack" in answer.message


def test_the_old_one_of_what_is_replaced_and_kept_is_told() -> None:
    deployed = DATA | {"inputs": {"size": 100}, "outputs": {"size": 100, "arn": "arn:aws:ec2:::volume/vol-1"}}
    for outputs, told in (({"arn": UNKNOWN}, 1), ({}, 1), ({"arn": deployed["outputs"]["arn"]}, 0)):
        found = left(Declared(VOLUME, {"size": 200}, outputs=outputs), of=deployed, monthly_cost_limit_usd=1000)
        assert len(found) == told
        assert all("costs up to $10.00 a month and is replaced and kept beside the new one" in each for each in found)


@pytest.mark.parametrize(
    "gone",
    [
        state(VOLUME, "a", {"size": 100}),
        state("aws:ec2/vpc:Vpc", "b", {}, retainOnDelete=True),
        DATA | {"external": True},
        DATA | {"delete": True},
    ],
)
def test_what_is_deleted_free_only_read_or_waiting_for_its_deletion_is_not_left_behind(gone: dict[str, Any]) -> None:
    assert left(of=gone, monthly_cost_limit_usd=1000) == []


def test_what_has_another_name_now_is_not_left_behind() -> None:
    analyzer = Analyzer("test", [nothing_left_behind], lambda *_: [DATA])
    settings = {"fusion:guardrails": '{"monthly_cost_limit_usd": 1000}', "aws:region": "us-east-1"}
    analyzer.ConfigureStack(AnalyzerStackConfigureRequest(dry_run=True, config=settings), None)
    analyzer.Analyze(AnalyzeRequest(type=VOLUME, urn="urn:new"), None)
    for aliases, told in (([], 1), ([DATA["urn"]], 0)):
        renamed = AnalyzerResource(type=VOLUME, urn="urn:new", options={"aliases": aliases})
        assert len(analyzer.AnalyzeStack(AnalyzeStackRequest(resources=[renamed]), None).diagnostics) == told
    untouched = AnalyzerResource(type=VOLUME, urn=DATA["urn"])
    (answer,) = analyzer.AnalyzeStack(AnalyzeStackRequest(resources=[untouched]), None).diagnostics
    assert "stays, since --target or --exclude leaves it out" in answer.message


def test_a_state_that_nobody_can_read_leaves_nobody_through_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (told,) = judge(nothing_left_behind, read_state=read_state, monthly_cost_limit_usd=1000)
    assert told == "whether anything with a price stays behind can't be known: the pulumi command is not on PATH"
