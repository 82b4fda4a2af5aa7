"""Small stacks over small catalogs, and everything that could be chosen for them: brute force, to compare with."""

import dataclasses
import fnmatch
import itertools
import math

from hypothesis import strategies as st

from planner.catalog import Catalog, Offer, load
from planner.choices import Ask, Ceilings
from planner.goals import LanguageModelGoal, ServiceGoal, TrainingGoal
from planner.machines import Machine, chip_of, chips_of, cpu_calibration, cpu_of
from planner.market import AWAY_HOURS, MONTHLY_RECLAIM, UNKNOWN_RECLAIM, Where
from planner.optimizer import Optimizer
from planner.packing import NODE_RESERVED_MEMORY_FRACTION, NODE_RESERVED_VCPUS, Demand
from planner.performance import InferenceLoad, PerformanceError, TrainingRun, builtin
from planner.profiles.decoder import decoder
from planner.profiles.model import profile
from planner.workloads import Quota

ACCELERATORS = load().accelerators
CHIPS = chips_of(ACCELERATORS)
MODEL = profile("fusionnet-8")
PLACES = [("aws", "east"), ("aws", "west"), ("gcp", "east")]
BUYINGS = ("on_demand", "spot", "spot_fallback")
TRAINING = [TrainingGoal(TrainingRun(MODEL, 200_000, epochs, 1), 1024, nodes=(1, 2)) for epochs in (50, 300)]
SERVICES = [
    ServiceGoal(InferenceLoad(MODEL, rate), batches=(1, 8), replicas_max=most)
    for rate, most in ((2_000.0, 2), (30_000.0, 3), (60_000.0, 4))
]
PEAKS = [
    dataclasses.replace(service, peak=ServiceGoal(InferenceLoad(MODEL, peak), batches=(1, 8), replicas_max=most))
    for service, peak, most in ((SERVICES[0], 45_000.0, 2), (SERVICES[0], 150_000.0, 3), (SERVICES[1], 100_000.0, 4))
]
CPU_SERVICES = [ServiceGoal(InferenceLoad(MODEL, 900.0), ("fp32",), batches=(1, 4), replicas_max=3)]
DECODERS = [LanguageModelGoal(decoder("llama-3.1-8b"), 500, 100, 3.0, replicas_max=3, tensors=(1, 2))]


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    price = draw(st.sampled_from([0.4, 1.0, 1.1, 2.5, 8.0, 20.0]))
    cloud, region = draw(st.sampled_from(PLACES))
    accelerator = draw(st.sampled_from(["H100", "A10G", "L4", None]))
    cpu = draw(st.sampled_from(["c7i.x", "c6a.x"])) if cloud == "aws" else "n2-x"
    count = draw(st.sampled_from([1, 2, 8])) if accelerator else 0
    vcpus = draw(st.sampled_from([4, 16]))
    return Offer(
        cloud=cloud,
        region=region,
        zone=None,
        instance_type=f"{cpu if accelerator is None else draw(st.sampled_from('abc'))}{count}-{vcpus}",
        accelerator=accelerator,
        accelerator_count=count,
        accelerator_memory_gib=None,
        vcpus=vcpus,
        memory_gib=64,
        price_usd_per_hour=price,
        spot_price_usd_per_hour=draw(st.sampled_from([price / 3, None])),
        spot_interruption_bucket=draw(st.sampled_from(["<5%", None])),
        price_source="test",
        price_as_of="2026",
        spot_source="test",
        spot_as_of="2026",
        note="",
    )


def catalogs(most: int) -> st.SearchStrategy[list[Offer]]:
    return st.lists(
        offers(), min_size=1, max_size=most, unique_by=lambda each: (each.cloud, each.region, each.instance_type)
    )


@st.composite
def asks(draw: st.DrawFn, number: int) -> Ask:
    kind = draw(st.sampled_from(["training", "service", "service", "cpu", "cpu", "needs", "model"]))
    places = draw(st.sampled_from([None, None, frozenset(PLACES[:2])]))
    buyings = draw(st.sampled_from([("on_demand",), ("spot",), ("on_demand", "spot_fallback")]))
    data = draw(st.sampled_from([{}, {place: usd for place, usd in zip(PLACES, (0.0, 20.0, 300.0), strict=True)}]))
    vcpus = draw(st.sampled_from([1.0, 3.0]))
    common = {"name": f"w{number}", "egress_usd": data, "demand": Demand(1, vcpus, 4)}
    where = Where(places=places, buyings=buyings, min_vcpus=vcpus + NODE_RESERVED_VCPUS)
    if kind == "training":
        goal = draw(st.sampled_from(TRAINING))
        objective = draw(st.sampled_from(["cost", "cost", "time"]))
        limits = draw(st.sampled_from([Ceilings(), Ceilings(seconds=300.0), Ceilings(usd=0.5)]))
        accelerated = dataclasses.replace(where, min_count=1)
        return Ask(**common, where=accelerated, goal=goal, limits=limits, objective=objective, most=2, per_month=30.0)
    replicas = {"whole_nodes": False, "most": 4}
    if kind == "needs":
        count = draw(st.sampled_from([1, 3]))
        needs = dataclasses.replace(where, min_count=1, predicted=False)
        return Ask(**common, **replicas, where=needs, goal=None, count=count)
    if kind == "cpu":
        on_cpu = dataclasses.replace(where, accelerators=frozenset(), counts=frozenset({0}))
        common["demand"] = Demand(0, vcpus, 4)
        return Ask(**common, **replicas, where=on_cpu, goal=draw(st.sampled_from(CPU_SERVICES)))
    goal = draw(st.sampled_from(SERVICES + PEAKS if kind == "service" else DECODERS))
    limits = draw(st.sampled_from([Ceilings(), Ceilings(seconds=0.05), Ceilings(usd=9.0)]))
    accelerated = dataclasses.replace(where, min_count=1)
    objective = draw(st.sampled_from(["cost", "cost", "cost", "latency"]))
    return Ask(**common, **replicas, where=accelerated, goal=goal, limits=limits, objective=objective)


quotas = st.builds(
    lambda place, buying, unit, most, name: Quota.model_validate(
        {"cloud": place[0], "region": place[1], "price_model": buying, unit: most, "accelerator": name}
    ),
    st.sampled_from(PLACES),
    st.sampled_from([None, "on_demand", "spot"]),
    st.sampled_from(["vcpus", "accelerators", "nodes"]),
    st.sampled_from([0, 1, 2, 4, 8, 16]),
    st.sampled_from([None, None, "L4"]),
)


def optimizer(catalog: list[Offer]) -> Optimizer:
    return Optimizer(Catalog(catalog, ACCELERATORS), builtin())


_OUTCOMES: dict = {}


def outcome(goal, machine, shape):
    key = (id(goal), machine, shape)
    if key not in _OUTCOMES:
        try:
            chip = chip_of(machine, CHIPS)
            _OUTCOMES[key] = goal.outcome(chip, machine, shape, cpu_calibration() if machine.vcpus else builtin())
        except PerformanceError:
            _OUTCOMES[key] = None
    return _OUTCOMES[key]


@dataclasses.dataclass(frozen=True)
class Way:
    """A workload on one row: how many replicas or nodes, and what that costs and takes alone."""

    offer: Offer
    buying: str
    price: float
    count: int
    demand: Demand
    seconds: float
    usd: float
    egress_usd: float
    nodes: int


def priced(offer: Offer, buying: str) -> tuple[float, float, float] | None:
    """Price, interruptions by hour, and hours away after each."""
    spot, on_demand = offer.spot_price_usd_per_hour, offer.price_usd_per_hour
    rate = -math.log(1 - MONTHLY_RECLAIM.get(offer.spot_interruption_bucket, UNKNOWN_RECLAIM)) / 730
    if buying == "on_demand":
        return None if on_demand is None else (on_demand, 0.0, 0.0)
    if spot is None:
        return None
    if buying == "spot":
        return spot, rate, AWAY_HOURS
    away = rate * AWAY_HOURS / (1 + rate * AWAY_HOURS)
    return (1 - away) * spot + away * on_demand, rate, 0.0


def room(offer: Offer) -> tuple[float, float, float]:
    return (
        offer.accelerator_count,
        offer.vcpus - NODE_RESERVED_VCPUS,
        offer.memory_gib * (1 - NODE_RESERVED_MEMORY_FRACTION),
    )


def nodes_one_by_one(offer: Offer, replicas: list[tuple[int, Demand]]) -> int | None:
    """First fit of the largest first, replica by replica; no more than the services apart."""
    has = room(offer)
    asked = [(count, (d.accelerators, d.vcpus, d.memory_gib)) for count, d in replicas]
    apart = 0
    for count, demand in asked:
        each = min(math.floor(h / d + 1e-9) for h, d in zip(has, demand, strict=True) if d)
        if each < 1:
            return None
        apart += math.ceil(count / each)
    order = sorted(asked, key=lambda pair: -max(d / h for h, d in zip(has, pair[1], strict=True) if d))
    nodes: list[list[float]] = []
    for count, demand in order:
        for _ in range(count):
            for left in nodes:
                if all(rest >= d - 1e-9 for rest, d in zip(left, demand, strict=True)):
                    break
            else:
                nodes.append(left := list(has))
            for at, d in enumerate(demand):
                left[at] -= d
    return min(apart, len(nodes))


def ways(ask: Ask, catalog: list[Offer]) -> list[Way]:
    """Everything that could be chosen for one workload within its own limits."""
    found = []
    for offer in catalog:
        if not allowed(ask, offer):
            continue
        for buying in ask.where.buyings:
            price = priced(offer, buying)
            if price is not None:
                found.extend(ways_on(ask, offer, buying, *price))
    kept = [
        each
        for each, token_s in found
        if each.usd <= ask.limits.usd and each.seconds <= ask.limits.seconds and token_s <= ask.limits.token_s
    ]
    if ask.objective == "cost":  # one row and count: only the cheapest matters
        best: dict = {}
        for each in kept:
            key = (id(each.offer), each.buying, each.count, each.demand, each.nodes)
            if key not in best or each.usd < best[key].usd:
                best[key] = each
        kept = list(best.values())
    return kept


def allowed(ask: Ask, offer: Offer) -> bool:
    where = ask.where
    return (
        offer.vcpus >= where.min_vcpus
        and offer.accelerator_count >= where.min_count
        and (where.counts is None or offer.accelerator_count in where.counts)
        and (where.places is None or (offer.cloud, offer.region) in where.places)
    )


def ways_on(ask: Ask, offer: Offer, buying: str, price: float, rate: float, away: float):
    egress = ask.egress_usd.get((offer.cloud, offer.region), 0.0)
    if ask.goal is None:
        nodes = nodes_one_by_one(offer, [(ask.count, ask.demand)])
        if nodes is not None:
            yield Way(offer, buying, price, ask.count, ask.demand, 0.0, nodes * price, egress, nodes), 0.0
        return
    if offer.accelerator is None:
        name = cpu_of(offer.cloud, offer.instance_type).name
        machine = Machine(name, 1, rate, away, vcpus=ask.demand.vcpus, memory_gib=ask.demand.memory_gib)
    else:
        machine = Machine(offer.accelerator, int(offer.accelerator_count), rate, away)
    for shape in ask.goal.shapes(machine):
        if ask.whole_nodes:
            result = outcome(ask.goal, machine, shape)
            if result is not None:
                nodes = shape.parallelism.nodes
                usd = result.seconds / 3600 * nodes * price
                yield Way(offer, buying, price, nodes, ask.demand, result.seconds, usd, egress, nodes), 0.0
            continue
        devices = float(shape.parallelism.devices) if ask.demand.accelerators else 0.0
        demand = dataclasses.replace(ask.demand, accelerators=devices)
        for replicas in range(ask.goal.replicas_min, ask.goal.replicas_max + 1):
            result = outcome(ask.goal, machine, dataclasses.replace(shape, replicas=replicas))
            nodes = nodes_one_by_one(offer, [(replicas, demand)])
            if result is not None and nodes is not None:
                way = Way(offer, buying, price, replicas, demand, result.seconds, nodes * price, egress, nodes)
                yield way, result.token_s


def used(quota: Quota, offer: Offer, buying: str) -> float:
    if offer.cloud != quota.cloud or quota.region not in (None, offer.region):
        return 0.0
    if not any(fnmatch.fnmatchcase(offer.instance_type, each) for each in quota.instance_types):
        return 0.0
    if quota.accelerator not in (None, offer.accelerator):
        return 0.0
    models = {"on_demand": ["on_demand"], "spot": ["spot"], "spot_fallback": ["spot", "on_demand"]}[buying]
    if quota.price_model is not None and quota.price_model not in models:
        return 0.0
    return offer.vcpus if quota.vcpus is not None else offer.accelerator_count if quota.accelerators is not None else 1


def totals(asks: tuple[Ask, ...], chosen: tuple[Way, ...]) -> tuple[float, float, dict]:
    """USD by month, USD by hour, and nodes at most by (offer, buying)."""
    month = hour = 0.0
    most: dict = {}
    pools: dict = {}
    for ask, way in zip(asks, chosen, strict=True):
        month += way.egress_usd
        row = (way.offer, way.buying)
        if ask.shares:
            pools.setdefault(row, []).append((ask, way))
            continue
        month += way.usd * ask.per_month
        hour += way.nodes * way.price
        at_most = max(ask.most, way.nodes) if ask.whole_nodes else nodes_one_by_one(way.offer, [(ask.most, way.demand)])
        most[row] = most.get(row, 0) + at_most
    for row, members in pools.items():
        nodes = nodes_one_by_one(row[0], [(way.count, way.demand) for _, way in members])
        month += nodes * members[0][1].price * 730
        hour += nodes * members[0][1].price
        most[row] = most.get(row, 0) + nodes_one_by_one(row[0], [(ask.most, way.demand) for ask, way in members])
    return month, hour, most


def every_stack(asks: tuple[Ask, ...], catalog: list[Offer]):
    """(sum of times over the least alone, USD by month, by hour, nodes at most) of every combination."""
    each = [ways(ask, catalog) for ask in asks]
    least = [min((way.seconds for way in found), default=1.0) or 1.0 for found in each]
    for chosen in itertools.product(*each):
        month, hour, most = totals(asks, chosen)
        time = sum(
            way.seconds / floor for ask, way, floor in zip(asks, chosen, least, strict=True) if ask.objective != "cost"
        )
        yield time, month, hour, most
