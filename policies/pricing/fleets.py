"""What groups and fleets of EC2 are billed for: as many machines as they may start, on demand and on spot.

A group of several types, or of weights, is counted as the dearest mix that AWS may start to reach its capacity: the
last machine may take it beyond that by its weight, which is so in groups and fleets alike (EC2 documentation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from planner.cost import Quantity
from planner.workloads import PriceModel
from policies.pricing.machines import UNSEEN, as_many, blocks, dearest_machine, monthly_usd, with_prepared
from policies.pricing.reading import Priced, Quantities, Rule, UnpricedResource, added, number, plain
from policies.resource import Props

MIXED_UNITS_MAX = 100_000
"""Beyond this, a mix of weights is refused rather than searched; 20 times what an account's fleets may hold."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A machine that AWS may start: what one is billed for, what it costs a month, and how many units it fills."""

    amounts: Quantities
    usd: float
    weight: int


ChoicesAt = Callable[[PriceModel], list[Choice]]
"""What may be started, as it is bought."""


def _group(priced: Priced) -> Quantities:
    """An Auto Scaling group at its minimum, its desired capacity and its maximum."""
    props = priced.props
    if plain(props, "desiredCapacityType", default="units") != "units":
        raise UnpricedResource("desiredCapacityType counts vCPUs or memory, of machines of any price; set it to units")
    least, most = number(props, "minSize"), number(props, "maxSize")
    desired = min(max(least, number(props, "desiredCapacity", default=least)), most)
    if props.has("warmPool"):  # machines kept ready beside those that are desired
        desired = most = with_prepared(most, props.part("warmPool"))
    mixed = props.part("mixedInstancesPolicy")
    if props.has("mixedInstancesPolicy"):
        shared = mixed.part("launchTemplate", "launchTemplateSpecification")
        overrides = list(blocks(mixed, "launchTemplate", "overrides"))
        base = number(mixed, "instancesDistribution", "onDemandBaseCapacity", default=0)
        percent = number(mixed, "instancesDistribution", "onDemandPercentageAboveBaseCapacity", default=100)
        at = _remembered(lambda bought: _of_template(priced, shared, overrides, bought))
        return _at_bounds(
            *(_shared_out(at, _on_demand(units, base, percent), units) for units in (least, desired, most))
        )
    if props.has("launchConfiguration"):
        choices = list(_of_configuration(priced, props.part("launchConfiguration")))
    elif props.has("launchTemplate"):
        choices = list(_of_template(priced, props.part("launchTemplate"), [], None))
    else:
        raise UnpricedResource("launchTemplate decides its price and is not set; name one of this stack by its name")
    return _at_bounds(*(_worst(choices, units) for units in (least, desired, most)))


def _of_configuration(priced: Priced, named: Props) -> Iterator[Choice]:
    """A machine of the launch configuration, or of each that it may be."""
    found = priced.registered.configurations(named)
    if not found:
        raise UnpricedResource(
            "its launchConfiguration decides its price and is none that this stack declares before it; declare it, "
            "or use a launch template"
        )
    for each in found:
        yield _choice(priced, dearest_machine(priced, each, None, "spot" if each.has("spotPrice") else None), each)


def _on_demand(units: float, base: float, percent: float) -> float:
    """How much of a capacity a group buys on demand; AWS rounds up what is above the base."""
    above = max(0.0, units - base)
    return min(units, base) + math.ceil(above * min(percent, 100) / 100 - 1e-9)


def _fleet(priced: Priced) -> Quantities:
    """A fleet of EC2 at its target; what neither price model is told of is bought as its default says."""
    asked = priced.props.part("targetCapacitySpecification")
    _check_units(asked)
    total = number(asked, "totalTargetCapacity")
    on_demand = number(asked, "onDemandTargetCapacity", default=0)
    spot = number(asked, "spotTargetCapacity", default=0)
    rest = max(0.0, total - on_demand - spot)
    if plain(asked, "defaultTargetCapacityType", default="on-demand") == "spot":
        spot += rest
    else:
        on_demand += rest
    at = _remembered(lambda bought: _of_configs(priced, bought))
    return _shared_out(at, on_demand, on_demand + spot)


def _spot_fleet(priced: Priced) -> Quantities:
    """A spot fleet at its target, a part of which it may buy on demand."""
    props = priced.props
    _check_units(props)
    total = number(props, "targetCapacity")
    on_demand = number(props, "onDemandTargetCapacity", default=0)
    at = _remembered(lambda bought: [*_of_specifications(priced, bought), *_of_configs(priced, bought)])
    return _shared_out(at, min(on_demand, total), total)


def _check_units(props: Props) -> None:
    if plain(props, "targetCapacityUnitType", default="units") != "units":
        raise UnpricedResource(
            "targetCapacityUnitType counts vCPUs or memory, of machines of any price; set it to units"
        )


def _of_configs(priced: Priced, bought: PriceModel) -> Iterator[Choice]:
    for each in blocks(priced.props, "launchTemplateConfigs"):
        shared = each.part("launchTemplateSpecification")
        yield from _of_template(priced, shared, list(blocks(each, "overrides")), bought)


def _of_specifications(priced: Priced, bought: PriceModel) -> Iterator[Choice]:
    for each in blocks(priced.props, "launchSpecifications"):
        yield _choice(priced, dearest_machine(priced, each, None, bought), each)


def _of_template(
    priced: Priced, shared: Props, overrides: Sequence[Props], bought: PriceModel | None
) -> Iterator[Choice]:
    """A machine of the shared template, or one for each override, which may name a template of its own."""
    for each in overrides or [Props({})]:
        own = each.part("launchTemplateSpecification")
        template = own if each.has("launchTemplateSpecification") else shared
        if not priced.registered.templates(template):
            raise UnpricedResource(UNSEEN)
        yield _choice(priced, dearest_machine(priced, each, template, bought), each)


def _choice(priced: Priced, machine: Quantities, entry: Props) -> Choice:
    weight = number(entry, "weightedCapacity", default=1)
    if weight < 1 or weight != int(weight):
        raise UnpricedResource(f"weightedCapacity is {weight:g}; expected a whole number of 1 or more")
    return Choice(machine, monthly_usd(priced.catalog, machine), int(weight))


def _remembered(choices: Callable[[PriceModel], Iterable[Choice]]) -> ChoicesAt:
    """What may be started by how it is bought, priced once and only if it is: not every type is sold on spot."""
    found: dict[PriceModel, list[Choice]] = {}

    def at(bought: PriceModel) -> list[Choice]:
        if bought not in found:
            found[bought] = list(choices(bought))
        return found[bought]

    return at


def _shared_out(at: ChoicesAt, on_demand: float, units: float) -> Quantities:
    """The dearest machines of which so many units are bought on demand and the others on spot."""
    bought: list[tuple[PriceModel, float]] = [("on_demand", on_demand), ("spot", units - on_demand)]
    return added(*(_worst(at(price_model), asked) for price_model, asked in bought if asked > 0))


def _worst(choices: Sequence[Choice], units: float) -> Quantities:
    """The dearest mix that may be started until its weights reach the units."""
    wanted = math.ceil(units)
    weights = {each.weight for each in choices}
    if wanted <= 0:
        return {}
    if not weights:
        raise UnpricedResource("no launch template and no instance type is named, which decide its price")
    if len(weights) == 1:
        dearest = max(choices, key=lambda each: each.usd)
        return as_many(dearest.amounts, math.ceil(wanted / dearest.weight))
    if wanted > MIXED_UNITS_MAX:
        raise UnpricedResource(f"it holds {wanted:,} units of machines of several weights; expected at most 100,000")
    return added(*(as_many(each.amounts, machines) for each, machines in _dearest_mix(choices, wanted)))


def _dearest_mix(choices: Sequence[Choice], wanted: int) -> list[tuple[Choice, int]]:
    """By dynamic programming: what the rest can cost at most, whichever machine is started next."""
    most_usd, started = [0.0], [0]
    for units in range(1, wanted + 1):
        usd, index = max((each.usd + most_usd[max(0, units - each.weight)], i) for i, each in enumerate(choices))
        most_usd.append(usd)
        started.append(index)
    machines = [0] * len(choices)
    left = wanted
    while left > 0:
        machines[started[left]] += 1
        left -= choices[started[left]].weight
    return [(each, number) for each, number in zip(choices, machines, strict=True) if number]


def _at_bounds(least: Quantities, expected: Quantities, most: Quantities) -> Quantities:
    nothing = Quantity.fixed(0)
    return {
        each: Quantity(*(of.get(each, nothing).max for of in (least, expected, most)))
        for each in (least | expected | most)
    }


RULES: Mapping[str, Rule] = {
    "aws:autoscaling/group:Group": _group,
    "aws:ec2/fleet:Fleet": _fleet,
    "aws:ec2/spotFleetRequest:SpotFleetRequest": _spot_fleet,
}
