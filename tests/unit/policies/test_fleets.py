"""What groups and fleets of EC2 are billed for: each sum is of rows of the catalog's files, read here without the planner."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalog import load
from planner.cost import price_usd_per_month
from policies.cost import expected_monthly_cost, monthly_cost_limit
from policies.pricing import Registered, UnpricedResource, quantities
from policies.resource import Resource, read
from policies.testing import UNKNOWN, Declared, judge
from tests.unit.policies.test_pricing import exact, node, service

GROUP, FLEET, SPOT_FLEET = (
    "aws:autoscaling/group:Group",
    "aws:ec2/fleet:Fleet",
    "aws:ec2/spotFleetRequest:SpotFleetRequest",
)
INSTANCE, SPOT_REQUEST = "aws:ec2/instance:Instance", "aws:ec2/spotInstanceRequest:SpotInstanceRequest"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
DISK = service("aws", "block_storage_gib")
SMALL, LARGE = node("aws", "m6i.large") + 8 * DISK, node("aws", "g5.xlarge") + 8 * DISK
SMALL_SPOT, LARGE_SPOT = node("aws", "m6i.large", spot=True) + 8 * DISK, node("aws", "g5.xlarge", spot=True) + 8 * DISK
SIZES = {"minSize": 1, "desiredCapacity": 3, "maxSize": 10}


def template(name: str, instance_type: str | None = "m6i.large", **inputs: Any) -> Declared:
    given = {"name": name} | ({"instanceType": instance_type} if instance_type else {}) | inputs
    return Declared(TEMPLATE, given, name=name)


def billed(kind: str, inputs: dict[str, Any], *templates: Declared) -> dict[str, Decimal]:
    known = Registered()
    for each in templates:
        known.take(Resource(each.type, each.name, read(each.inputs), each.urn, "us-east-1"))
    amounts = quantities(Resource(kind, "tested", read(inputs), "urn", "us-east-1"), load(), registered=known)
    found = {
        bound: sum(getattr(each, bound) * price_usd_per_month(load(), tariff) for tariff, each in amounts.items())
        for bound in ("min", "expected", "max")
    }
    return {bound: exact(Decimal(f"{usd:.6f}")) for bound, usd in found.items()}


def at(least: Decimal, expected: Decimal, most: Decimal) -> dict[str, Decimal]:
    return {"min": exact(least), "expected": exact(expected), "max": exact(most)}


def mixed(*overrides: dict[str, Any], **distribution: Any) -> dict[str, Any]:
    launch = {"launchTemplateSpecification": {"launchTemplateName": "a"}, "overrides": list(overrides)}
    return {"mixedInstancesPolicy": {"launchTemplate": launch, "instancesDistribution": distribution}}


def of_type(name: str, weight: int | None = None) -> dict[str, Any]:
    return {"instanceType": name} | ({"weightedCapacity": str(weight)} if weight else {})


def test_a_group_costs_the_machines_of_its_template_at_each_bound() -> None:
    group = SIZES | {"launchTemplate": {"name": "a", "version": "$Latest"}}
    dearer = template("b", "p5.48xlarge")
    assert billed(GROUP, group, template("a"), dearer) == at(SMALL, 3 * SMALL, 10 * SMALL)
    on_spot = template("a", instanceMarketOptions={"marketType": "spot"})
    assert billed(GROUP, group, on_spot, dearer)["max"] == exact(10 * SMALL_SPOT)
    mapped = [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": 100, "volumeType": "gp3"}}]
    public = [{"associatePublicIpAddress": "true"}]
    whole = template("a", blockDeviceMappings=mapped, networkInterfaces=public)
    each = node("aws", "m6i.large") + 100 * DISK + service("aws", "public_ipv4")
    assert billed(GROUP, group, whole)["max"] == exact(10 * each)


def test_machines_that_a_warm_pool_keeps_ready_count_as_running() -> None:
    group = SIZES | {"launchTemplate": {"name": "a"}, "warmPool": {"maxGroupPreparedCapacity": 12}}
    assert billed(GROUP, group, template("a")) == at(SMALL, 12 * SMALL, 12 * SMALL)


def test_a_mixed_group_costs_its_base_and_its_share_on_demand_and_the_rest_on_spot_each_of_its_dearest_type() -> None:
    policy = mixed(
        of_type("m6i.large"), of_type("g5.xlarge"), onDemandBaseCapacity=2, onDemandPercentageAboveBaseCapacity=25
    )
    assert billed(GROUP, SIZES | policy, template("a")) == at(
        LARGE, 3 * LARGE, 4 * LARGE + 6 * LARGE_SPOT
    )  # of the 1 above the base at 3, a quarter is rounded up; of the 8 at 10, 2 are on demand
    all_on_demand = billed(GROUP, SIZES | mixed(of_type("m6i.large")), template("a"))
    assert all_on_demand["max"] == exact(10 * SMALL)
    all_on_spot = mixed(onDemandPercentageAboveBaseCapacity=0)
    assert billed(GROUP, SIZES | all_on_spot, template("a"))["max"] == exact(10 * SMALL_SPOT)


def test_a_machine_of_weight_fills_as_many_units_and_the_last_may_go_beyond() -> None:
    heavy = mixed(of_type("g5.xlarge", 4))
    assert billed(GROUP, SIZES | heavy, template("a")) == at(LARGE, LARGE, 3 * LARGE)
    both = mixed(of_type("m6i.large", 1), of_type("g5.xlarge", 4))
    assert billed(GROUP, SIZES | both, template("a"))["min"] == exact(LARGE)
    assert billed(GROUP, SIZES | both, template("a"))["expected"] == exact(max(2 * SMALL + LARGE, 3 * SMALL, LARGE))


def test_an_override_may_start_from_a_template_of_its_own() -> None:
    own = {"instanceType": "m6i.large", "launchTemplateSpecification": {"launchTemplateName": "b"}}
    big = template("b", blockDeviceMappings=[{"deviceName": "/dev/xvda", "ebs": {"volumeSize": 900}}])
    usd = node("aws", "m6i.large") + 900 * service("aws", "block_storage_gp2_gib")
    assert billed(GROUP, SIZES | mixed(own), template("a"), big)["max"] == exact(10 * usd)


CONFIGS = [
    {"launchTemplateSpecification": {"launchTemplateName": "a"}, "overrides": [of_type("g5.xlarge")]},
    {"launchTemplateSpecification": {"launchTemplateName": "b"}},
]


@pytest.mark.parametrize(
    ("target", "usd"),
    [
        ({"totalTargetCapacity": 10, "defaultTargetCapacityType": "spot"}, 10 * LARGE_SPOT),
        ({"totalTargetCapacity": 10, "defaultTargetCapacityType": "on-demand"}, 10 * LARGE),
        (
            {"totalTargetCapacity": 10, "defaultTargetCapacityType": "spot", "onDemandTargetCapacity": 4},
            4 * LARGE + 6 * LARGE_SPOT,
        ),
        (
            {"totalTargetCapacity": 10, "defaultTargetCapacityType": "on-demand", "spotTargetCapacity": 9},
            LARGE + 9 * LARGE_SPOT,
        ),
    ],
)
def test_a_fleet_costs_its_target_as_it_is_bought(target: dict[str, Any], usd: Decimal) -> None:
    fleet = {"targetCapacitySpecification": target, "launchTemplateConfigs": CONFIGS}
    assert billed(FLEET, fleet, template("a"), template("b")) == at(usd, usd, usd)


def test_a_spot_fleet_costs_its_target_of_templates_and_of_specifications() -> None:
    fleet = {"targetCapacity": 5, "onDemandTargetCapacity": 2, "launchTemplateConfigs": CONFIGS}
    assert billed(SPOT_FLEET, fleet, template("a"), template("b"))["max"] == exact(2 * LARGE + 3 * LARGE_SPOT)
    written = {"instanceType": "m6i.large", "rootBlockDevices": [{"volumeSize": 50}], "weightedCapacity": "2"}
    spot = node("aws", "m6i.large", spot=True) + 50 * DISK
    assert billed(SPOT_FLEET, {"targetCapacity": 5, "launchSpecifications": [written]})["max"] == exact(3 * spot)


def test_an_instance_without_a_type_of_its_own_is_that_of_its_template() -> None:
    mapped = [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": 100, "volumeType": "gp3"}}]
    whole = template("a", "g5.xlarge", blockDeviceMappings=mapped)
    for kind, spot in ((INSTANCE, False), (SPOT_REQUEST, True)):
        each = node("aws", "g5.xlarge", spot=spot)
        named = {"launchTemplate": {"name": "a"}}
        assert billed(kind, named, whole)["max"] == exact(each + 100 * DISK)
        assert billed(kind, named | {"rootBlockDevice": {"volumeSize": 20}}, whole)["max"] == exact(each + 20 * DISK)
        smaller = named | {"instanceType": "m6i.large"}
        assert billed(kind, smaller, whole)["max"] == exact(node("aws", "m6i.large", spot=spot) + 100 * DISK)
    on_spot = template("a", instanceMarketOptions={"marketType": "spot"})
    assert billed(INSTANCE, {"launchTemplate": {"name": "a"}}, on_spot)["max"] == exact(SMALL_SPOT)


NAMED = {"launchTemplate": {"name": "a"}}
WEIGHTS = (of_type("m6i.large", 1), of_type("g5.xlarge", 4))


@pytest.mark.parametrize(
    ("kind", "inputs", "templates", "said"),
    [
        (GROUP, SIZES | NAMED, [], "is none that this stack declares before it"),
        (GROUP, SIZES | NAMED, [template("other")], "is none that this stack declares before it"),
        (GROUP, SIZES | {"launchTemplate": {"id": UNKNOWN}}, [template("a", None)], "with an instanceType"),
        (GROUP, SIZES | NAMED, [template("a", UNKNOWN)], "instanceType decides its price and is not known"),
        (GROUP, SIZES | NAMED | {"maxSize": UNKNOWN}, [template("a")], "maxSize decides its price and is not known"),
        (GROUP, SIZES | NAMED | {"desiredCapacityType": "vcpu"}, [template("a")], "set it to units"),
        (GROUP, SIZES, [template("a")], "launchTemplate decides its price and is not set"),
        (GROUP, SIZES | {"launchConfiguration": "c"}, [template("c")], "launchConfiguration decides its price and is"),
        (GROUP, SIZES | mixed(*WEIGHTS) | {"maxSize": 10**9}, [template("a")], "expected at most 100,000"),
        (GROUP, SIZES | mixed({"instanceRequirements": {"vcpuCount": {"min": 1}}}), [template("a")], "of any price"),
        (GROUP, SIZES | NAMED, [template("a", placement={"tenancy": "dedicated"})], "tenancy dedicated"),
        (FLEET, {"targetCapacitySpecification": {"totalTargetCapacity": 1}}, [], "no launch template and no instance"),
        (INSTANCE, NAMED, [], "is none that this stack declares before it"),
        (INSTANCE, {}, [template("a")], "instanceType decides its price and is not set"),
    ],
)
def test_what_decides_the_price_and_is_not_seen_is_refused(
    kind: str, inputs: dict[str, Any], templates: list[Declared], said: str
) -> None:
    with pytest.raises(UnpricedResource, match=said):
        billed(kind, inputs, *templates)


def configuration(name: str, instance_type: str, **inputs: Any) -> Declared:
    given = {"name": name, "instanceType": instance_type} | inputs
    return Declared("aws:ec2/launchConfiguration:LaunchConfiguration", given, name=name)


@pytest.mark.parametrize(
    ("named", "inputs", "machine"),
    [
        ("a", {}, SMALL),
        (UNKNOWN, {}, LARGE),
        ("a", {"spotPrice": "0.1"}, SMALL_SPOT),
        ("a", {"rootBlockDevice": {"volumeSize": 100}}, SMALL + 92 * DISK),
        (
            "a",
            {"ebsBlockDevices": [{"deviceName": "/dev/sdb", "volumeSize": 9, "volumeType": "gp3"}]},
            SMALL + 9 * DISK,
        ),
        ("a", {"associatePublicIpAddress": True}, SMALL + service("aws", "public_ipv4")),
    ],
)
def test_a_group_is_billed_for_the_machines_of_its_launch_configuration(named, inputs, machine) -> None:
    known = (configuration("a", "m6i.large", **inputs), configuration("b", "g5.xlarge"))
    assert billed(GROUP, SIZES | {"launchConfiguration": named}, *known) == at(machine, 3 * machine, 10 * machine)


def test_where_the_template_may_be_any_of_several_the_dearest_counts_and_the_name_tells_it() -> None:
    cheap, dear, of_nodes = template("a"), template("b", "g5.xlarge"), template("of-nodes", None)
    by_id = Declared(GROUP, SIZES | {"launchTemplate": {"id": UNKNOWN}})
    by_name = Declared(GROUP, SIZES | {"launchTemplate": {"name": "a"}})
    usd = math.ceil(10 * SMALL * 100) / 100
    assert judge(monthly_cost_limit, cheap, dear, of_nodes, by_name, monthly_cost_limit_usd=usd) == []
    (told,) = judge(monthly_cost_limit, cheap, dear, of_nodes, by_id, monthly_cost_limit_usd=usd)
    assert "the dearest that it may be counts; name it by the template's name" in told


def test_a_group_is_judged_at_its_maximum_and_as_it_is_desired() -> None:
    group = Declared(GROUP, SIZES | {"launchTemplate": {"name": "a"}})
    for guardrail, setting, machines in (
        (monthly_cost_limit, "monthly_cost_limit_usd", 10),
        (expected_monthly_cost, "expected_monthly_cost_limit_usd", 3),
    ):
        edge = float((machines * SMALL).quantize(Decimal("0.01")))
        assert judge(guardrail, template("a"), group, **{setting: edge}) == []
        (told,) = judge(guardrail, template("a"), group, **{setting: round(edge - 0.01, 2)})
        assert "$0.01 over the limit" in told


TYPES = ("m6i.large", "g5.xlarge", "g5.2xlarge", "g5.12xlarge")
COSTS = {(name, spot): node("aws", name, spot) + 8 * DISK for name in TYPES for spot in (False, True)}


@given(
    weights=st.lists(st.tuples(st.sampled_from(TYPES), st.integers(1, 9)), min_size=1, max_size=4),
    units=st.integers(1, 60),
    base=st.integers(0, 20),
    percent=st.integers(0, 100),
    picks=st.lists(st.integers(0, 3), min_size=60, max_size=60),
)
def test_no_order_of_starting_machines_costs_more_than_the_maximum(
    weights: list[tuple[str, int]], units: int, base: int, percent: int, picks: list[int]
) -> None:
    policy = mixed(
        *(of_type(*each) for each in weights),
        onDemandBaseCapacity=base,
        onDemandPercentageAboveBaseCapacity=percent,
    )
    found = billed(GROUP, {"minSize": 0, "desiredCapacity": units // 2, "maxSize": units} | policy, template("a"))
    on_demand = min(base, units) + math.ceil(max(0, units - base) * percent / 100)
    started, usd = iter(picks * 2), Decimal(0)
    for left, spot in ((on_demand, False), (units - on_demand, True)):
        while left > 0:
            name, weight = weights[next(started) % len(weights)]
            usd += COSTS[name, spot]
            left -= weight
    assert exact(usd) <= found["max"] + Decimal("0.00001")
    assert found["min"] == 0
    assert found["expected"] <= found["max"]
