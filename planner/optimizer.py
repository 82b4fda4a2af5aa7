"""The options of a stack's workloads, alone and together on one pool, best first.

An option is a pool (an offer bought one way) with the workloads on it, what it costs by month, and what it takes of
the stack's quotas and budgets. Of rows that perform alike and take the same of those, only the cheapest can win.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from planner.calibration.own import Own
from planner.calibration.store import Calibration
from planner.catalog import Catalog
from planner.choices import (
    Answer,
    Ask,
    Ceilings,
    Choice,
    Key,
    NothingFits,
    Option,
    Predictor,
    Rejected,
    counted,
    demand_of,
    lazily,
)
from planner.cost import HOURS_PER_MONTH
from planner.frontier import Bound, frontier
from planner.goals import Goal, LanguageModelGoal, Outcome, ReplicaGoal, Shape, TrainingGoal
from planner.machines import Machine, chip_of
from planner.market import Column, Index, Market, Mask, Where
from planner.packing import NODE_RESERVED_MEMORY_FRACTION, NODE_RESERVED_VCPUS, Demand, nodes_for, room_of
from planner.performance.checks import PerformanceError
from planner.quotas import amount, named
from planner.workloads import Budget, Objective, Quota

MILLION = 1_000_000
MILLIONTH = 1e-6
KINDS_MOST = 1_000_000
"""Numbers beyond which gaps between them are closed; before that, sorting takes longer than it saves."""
REPLICAS_MOST = 15_000
"""That a service may be declared with."""


Place = tuple[str, str, str, str, bool]


@dataclass(frozen=True, slots=True)
class SharedLimit:
    """A quota or a budget of the whole stack."""

    name: str
    most: float
    quota: Quota | None
    """None: a budget, by month or hour."""
    hourly: bool = False


def shared_limits(quotas: Sequence[Quota], budget: Budget | None) -> tuple[SharedLimit, ...]:
    """In the words of the stack."""
    found = [SharedLimit(named(quota), float(amount(quota)), quota) for quota in quotas]
    if budget is not None and budget.usd_per_month is not None:
        found.append(SharedLimit("budget (USD by month)", budget.usd_per_month, None))
    if budget is not None and budget.usd_per_hour is not None:
        found.append(SharedLimit("budget (USD by hour)", budget.usd_per_hour, None, hourly=True))
    return tuple(found)


class Optimizer:
    """A catalog, or some of its places, ready to be searched.

    Make one by process and ask it often: what was predicted is kept.
    """

    def __init__(
        self,
        catalog: Catalog,
        calibration: Calibration,
        own: Own | None = None,
        places: Collection[tuple[str, str]] | None = None,
    ) -> None:
        self.predictor = Predictor(catalog, calibration, own, places)

    def search(self, goal: Goal, where: Where, limits: Ceilings | None = None, objective: Objective = "cost") -> Answer:
        """The best way to reach one goal with nodes of its own, within limits; a replica takes a device and no more.

        Raises:
            NothingFits: there is none; says which limit to relax and to what.
        """
        ask = _ask_of(goal, where, limits or Ceilings(), objective)
        return Options(self.predictor, (ask,)).search(ask)

    def frontier(self, goal: Goal, where: Where) -> tuple[Choice, ...]:
        """Every choice that no other one beats in both cost and time, cheapest first, whatever the limits."""
        ask = _ask_of(goal, where, Ceilings(), "cost")
        return Options(self.predictor, (ask,)).frontier(ask)


def _ask_of(goal: Goal, where: Where, limits: Ceilings, objective: Objective) -> Ask:
    training = isinstance(goal, TrainingGoal)
    demand = Demand(1, MILLIONTH, MILLIONTH)
    per_month = 1.0 if training else float(HOURS_PER_MONTH)
    return Ask("", where, goal, demand, limits, objective, whole_nodes=training, per_month=per_month)


class Options:
    """What the workloads of one stack may run on."""

    def __init__(self, predictor: Predictor, asks: Sequence[Ask], limits: Sequence[SharedLimit] = ()) -> None:
        self.predictor, self.asks, self.limits = predictor, asks, limits
        self.market: Market = predictor.market
        self.scale_s: dict[Ask, float] = {}
        """The least time of those that minimise it, once it is known; keys are then relative to it."""
        # by node, in whole millionths, for each quota and row
        self._use = [
            np.rint(self.market.use(limit.quota) * MILLION).astype(np.int64) for limit in limits if limit.quota
        ]
        market = self.market
        devices = np.where((market.count > 0) & (market.count < 1), 1.0, market.count)
        left = (market.vcpus - NODE_RESERVED_VCPUS, market.memory_gib * (1 - NODE_RESERVED_MEMORY_FRACTION))
        self._room: tuple[Column, ...] = tuple(market.of_rows(each) for each in (devices, *left))
        self.seen: dict[tuple[Ask, Place], Option] = {}
        """What was found for each workload alone, by where it would run."""
        self._rows: dict[Ask, Index] = {}
        self._masks: dict[Ask, Mask] = {}
        self._floors: dict[tuple[Ask, int], Column] = {}
        self._choices: dict[tuple[Ask, int, int], Choice | None] = {}
        self._egress: dict[Ask, Column] = {}

    # one workload

    def search(self, ask: Ask, runners_up: int = 3) -> Answer:
        """The best choice for one workload that keeps its own limits.

        Raises:
            NothingFits: there is none; says which limit to relax and to what.
        """
        best: list[Choice] = []
        done: set[Machine | int] = set()
        rejected: dict[Machine | int, Rejected] = {}
        for option in self.alone(ask, lambda option: self._kind(ask, option.row) in done):
            (choice,) = option.choices
            kind = self._kind(ask, option.row)
            if (limit := broken(choice, ask.limits)) is not None:
                if not best:
                    rejected.setdefault(kind, Rejected(choice, _by_how_much(choice, ask, limit)))
                continue
            self.seen[ask, place_of(choice)] = option
            best.append(choice)
            done.add(kind)
            if len(best) > runners_up:
                break
        if not best:
            raise self.nothing_fits(ask)
        return Answer(
            best=best[0],
            prediction=self.predictor.prediction(ask, best[0]),
            runners_up=tuple(best[1:]),
            rejected=tuple(each for kind, each in rejected.items() if kind not in done),
            peak=self.predictor.peak_prediction(ask, best[0]),
        )

    def _kind(self, ask: Ask, row: int) -> Machine | int:
        """What is listed once among the runners-up: a machine, or, where nothing is predicted, an instance type."""
        machine = self.predictor.machine(ask, row) if ask.goal else None
        return machine or int(self.market.type[row % len(self.market.offers)])

    def alone(self, ask: Ask, skip: Callable[[Option], bool]) -> Iterator[Option]:
        """The options of one workload with nodes of its own, best first; its own limits are not applied to cost."""
        if ask.shares:
            return self.together((ask,), skip)
        return lazily(self._own_feed(ask), lambda option: self._own_behind(ask, option), skip)

    def nothing_fits(self, ask: Ask) -> NothingFits:
        """Why, and the least value of each limit with which there is a choice, the others kept."""
        if not len(self.rows(ask)):
            return NothingFits(
                f"no offer in the catalog has the accelerators, place and price model asked for "
                f"({_asked_for(ask.where)}){self._unknown(ask)}",
                {},
            )
        relaxed = {
            name: least
            for name in ask.limit_fields
            if (least := self._least(ask, name)) is not None and least > getattr(ask.limits, name)
        }
        if relaxed:
            ways = " or ".join(
                f"raise {typed} from {getattr(ask.limits, name) * scale:.4g} to {rounded_up(relaxed[name] * scale):.4g}"
                for name, (typed, scale) in ask.limit_fields.items()
                if name in relaxed
            )
            return NothingFits(f"no choice keeps every limit: {ways}", relaxed)
        return NothingFits(
            f"no machine can run it within these limits, even with any one of them lifted{self._why(ask)}", {}
        )

    def _unknown(self, ask: Ask) -> str:
        """The chips that have them, and that too little is known of."""
        rows = self.market.rows(replace(ask.where, predicted=False))
        names = sorted(
            {self.market.offers[int(row) % len(self.market.offers)].accelerator or "" for row in rows} - {""}
        )
        if not names:
            return ""
        return (
            f" of which something can be predicted: accelerators.csv lacks the memory, its bandwidth or every peak of "
            f"{', '.join(names[:4])}"
        )

    def _least(self, ask: Ask, name: str) -> float | None:
        """The least value of one limit with which there is a choice; found by planning without it."""
        lifted = replace(ask.limits, **{name: math.inf})
        if name == "usd":
            # without egress, which its own limit does not count
            eased = replace(ask, limits=lifted, objective="cost", egress_usd={})
            first = next(self._kept(eased, lifted), None)
            return None if first is None else first.usd
        if not ask.whole_nodes and ask.goal is not None:
            return self._least_of_service(ask, lifted, name)
        eased = replace(ask, limits=lifted, objective="time")
        kept = next(self._kept(eased, lifted), None)
        return None if kept is None else kept.limited(name)

    def _least_of_service(self, ask: Ask, limits: Ceilings, name: str) -> float | None:
        """The same of a time of a service: with the most replicas that may be paid, since more are never slower."""
        eased = replace(ask, limits=limits)
        bounds: list[tuple[float, int, Shape]] = []
        goal = ask.goal
        assert goal is not None and not isinstance(goal, TrainingGoal)
        for row in self._cheapest(eased):
            machine = self.predictor.machine(ask, row)
            assert machine is not None
            for shape in goal.shapes(machine):
                most = replace(shape, replicas=self._most_paid(eased, row, shape, goal.replicas_max))
                floor_s = (
                    self.predictor.floor_s(goal, machine, most) if most.replicas >= goal.replicas_min else math.inf
                )
                if floor_s < math.inf and floor_s <= limits.seconds:
                    bounds.append((floor_s if name == "seconds" else 0.0, row, most))
        least: float | None = None
        for floor_s, row, shape in sorted(bounds, key=lambda bound: bound[0]):
            if least is not None and floor_s >= least:
                break
            machine = self.predictor.machine(ask, row)
            outcome = self.predictor.outcome(goal, machine, shape) if machine else ""
            choice = None if isinstance(outcome, str) else self.predictor.choice(ask, row, shape, outcome)
            if choice is not None and broken(choice, limits) is None:
                least = min(choice.limited(name), math.inf if least is None else least)
        return least

    def _most_paid(self, ask: Ask, row: int, shape: Shape, most: int) -> int:
        """The most replicas of a shape that its hourly limit allows on a row; 0 where a replica doesn't fit a node."""
        offer = self.market.offer(row)
        each = demand_of(ask, shape).times_in(room_of(offer.accelerator_count, offer.vcpus, offer.memory_gib))
        nodes = ask.limits.usd / float(self.market.price[row])
        return most if each and nodes == math.inf else min(most, math.floor(nodes + 1e-9) * each) if each else 0

    def _kept(self, ask: Ask, limits: Ceilings) -> Iterator[Choice]:
        for option in self.alone(ask, lambda option: False):
            (choice,) = option.choices
            if broken(choice, limits) is None:
                yield choice

    def _why(self, ask: Ask) -> str:
        if ask.goal is None:
            return ""
        machines = {machine for row in self.rows(ask) if (machine := self.predictor.machine(ask, int(row)))}
        if (replicas := self._least_replicas(ask)) is not None:
            return f": raise replicas.max to {replicas}"
        whys: list[str] = []
        for machine in machines:
            for shape in itertools.islice(ask.goal.shapes(machine), 64):
                if not isinstance(ask.goal, TrainingGoal):
                    shape = replace(shape, replicas=ask.goal.replicas_max)
                outcome: Outcome | str = self._without_peak(machine, shape)
                if not outcome and self.predictor.floor_s(ask.goal, machine, shape) < math.inf:
                    continue  # it runs; to predict how well would take long and say nothing
                outcome = outcome or self.predictor.outcome(ask.goal, machine, shape)
                if isinstance(outcome, str):
                    whys.append(outcome)
            if len(whys) > 64:
                break
        return f"; for instance: {min(whys, key=len)}" if whys else ""

    def _without_peak(self, machine: Machine, shape: Shape) -> str:
        """Why a machine computes nothing at a shape's precision; empty where it does."""
        try:
            chip_of(machine, self.market.chips).peak(shape.precision)
        except PerformanceError as error:
            return str(error)
        return ""

    def _least_replicas(self, ask: Ask) -> int | None:
        """With how many replicas a service would keep its limits, at its peak too; None where no number does."""
        if ask.goal is None or isinstance(ask.goal, TrainingGoal):
            return None
        each = [self._least_at(ask, goal) for goal in (ask.goal, ask.goal.peak) if goal is not None]
        return max((least for least in each if least is not None), default=None) if None not in each else None

    def _least_at(self, ask: Ask, goal: ReplicaGoal) -> int | None:
        """The same of the usual load, or of the peak."""
        most = replace(ask, goal=replace(goal, replicas_max=REPLICAS_MOST, peak=None))
        asked = Options(self.predictor, (most,))
        rows = [
            (float(asked._replicas(most, tensor)[row]), row, tensor)
            for tensor in self._tensors(ask)
            for row in asked._cheapest(most)
        ]
        least: int | None = None
        for floor, row, tensor in sorted(rows):
            if floor > (REPLICAS_MOST if least is None else least - 1):
                break
            choice = asked._replica_choice(most, row, tensor)
            if choice is not None and choice.shape is not None and broken(choice, ask.limits) is None:
                least = min(choice.shape.replicas, least or REPLICAS_MOST)
        return least

    def frontier(self, ask: Ask) -> tuple[Choice, ...]:
        """Every choice for one workload that no other one beats in both cost and time, limits aside, cheapest first."""
        return frontier(bound for row in self._cheapest(ask) for bound in self._bounds(ask, row))

    def _bounds(self, ask: Ask, row: int) -> Iterator[Bound[Choice]]:
        machine = self.predictor.machine(ask, row)
        if ask.goal is None or machine is None:
            return
        for shape in counted(ask.goal, machine):
            floor_s = self.predictor.floor_s(ask.goal, machine, shape)
            if floor_s < math.inf and (choice := self.predictor.choice(ask, row, shape, Outcome(floor_s))) is not None:
                yield Bound(choice.usd, floor_s, functools.partial(self._predicted, ask, row, machine, shape))

    def _predicted(self, ask: Ask, row: int, machine: Machine, shape: Shape) -> tuple[float, float, Choice] | None:
        assert ask.goal is not None
        outcome = self.predictor.outcome(ask.goal, machine, shape)
        choice = None if isinstance(outcome, str) else self.predictor.choice(ask, row, shape, outcome)
        return None if choice is None or isinstance(outcome, str) else (choice.usd, outcome.seconds, choice)

    # columns

    def rows(self, ask: Ask) -> Index:
        """Where a workload may run."""
        if ask not in self._rows:
            self._rows[ask] = self.market.rows(ask.where)
        return self._rows[ask]

    def _common_rows(self, asks: Sequence[Ask]) -> Index:
        """Where all of them may run."""
        if len(asks) == 1:
            return self.rows(asks[0])
        for ask in asks:
            if ask not in self._masks:
                self._masks[ask] = np.zeros(len(self.market.price), dtype=np.bool_)
                self._masks[ask][self.rows(ask)] = True
        return np.flatnonzero(np.logical_and.reduce([self._masks[ask] for ask in asks]))

    def egress(self, ask: Ask) -> Column:
        """USD a month of its data, by row."""
        if ask not in self._egress:
            by_place = np.array([ask.egress_usd.get(place, 0.0) for place in self.market.places] or [0.0])
            column = by_place[self.market.place] if self.market.offers else np.zeros(0)
            self._egress[ask] = self.market.of_rows(column)
        return self._egress[ask]

    def _cheapest(self, ask: Ask) -> list[int]:
        """Of rows that perform alike, cost the same egress and take the same of every quota, the cheapest."""
        rows = self.rows(ask)
        if not len(rows):
            return []
        columns: list[Column | Index] = [self.egress(ask)[rows], *(use[rows] for use in self._use)]
        if ask.goal is not None:
            columns.append(self.market.machine[rows])
        if not ask.whole_nodes:
            columns.append(self.market.size[rows])
        kind, price = _kinds(columns), self.market.price[rows]
        least = np.full(int(kind.max()) + 1, np.inf)
        np.minimum.at(least, kind, price)
        cheapest = np.flatnonzero(price == least[kind])
        _, first = np.unique(kind[cheapest], return_index=True)
        return [int(row) for row in rows[cheapest[first]]]

    # nodes of its own

    def _own_feed(self, ask: Ask) -> list[Option]:
        options = [bound for row in self._cheapest(ask) if (bound := self._own_bound(ask, row, 0)) is not None]
        return sorted(options, key=lambda option: option.key)

    def _own_bound(self, ask: Ask, row: int, nth: int) -> Option | None:
        price, egress = float(self.market.price[row]), float(self.egress(ask)[row])
        if ask.goal is None:
            hourly = ask.count * price
            by_month = hourly * ask.per_month + egress
            return Option(self._key(ask, 0.0, by_month, math.floor), row, self._least_use(ask, row, hourly, by_month))
        machine = self.predictor.machine(ask, row)
        assert machine is not None
        floor = self.predictor.ranked(ask, machine).floor(nth)
        if floor is None:
            return None
        seconds, by_month = floor[0], egress
        if ask.objective == "cost":  # else the least time and the least cost needn't go together
            seconds, by_month = 0.0, floor[0] * price * ask.per_month + egress
        use = self._least_use(ask, row, price, by_month)
        return Option(self._key(ask, seconds, by_month, math.floor), row, use, nth=nth)

    def _own_behind(self, ask: Ask, option: Option) -> Iterator[Option]:
        if ask.goal is None:
            found = self._own_option(ask, option.row, self.predictor.choice(ask, option.row, None, None))
            if found:
                yield found
            return
        machine = self.predictor.machine(ask, option.row)
        assert machine is not None
        ranked = self.predictor.ranked(ask, machine)
        least = ranked.floor(option.nth)
        while least is not None and ranked.known(option.nth) is None and ranked.floor(option.nth) == least:
            ranked.look()
        known = ranked.known(option.nth)
        if known is None:  # it may be another's turn now
            if (closer := self._own_bound(ask, option.row, option.nth)) is not None:
                yield closer
            return
        _, shape, outcome = known
        found = self._own_option(ask, option.row, self.predictor.choice(ask, option.row, shape, outcome))
        if found:
            yield found
        following = self._own_bound(ask, option.row, option.nth + 1)
        if following is not None:
            yield following

    def _own_option(self, ask: Ask, row: int, choice: Choice | None) -> Option | None:
        if choice is None:
            return None
        seconds = choice.outcome.seconds if choice.outcome else 0.0
        key = self._key(ask, seconds, choice.usd_per_month, round)
        use = self._exact_use(row, self._nodes_most(ask, row, choice), choice.nodes, choice.usd_per_month)
        return Option(key, row, use, (choice,), choice.nodes)

    def _nodes_most(self, ask: Ask, row: int, choice: Choice) -> int:
        if ask.whole_nodes:
            return max(ask.most, choice.nodes)
        offer = choice.offer
        room = room_of(offer.accelerator_count, offer.vcpus, offer.memory_gib)
        return nodes_for(room, [(ask.most, demand_of(ask, choice.shape))]) or 0

    # replicas together

    def together(
        self, asks: Sequence[Ask], skip: Callable[[Option], bool], below_usd: float = math.inf
    ) -> Iterator[Option]:
        """The options of services with their replicas on one pool, best first, whose bounds are below an amount."""
        feeds = [
            (tensors, self._together_bounds(asks, tensors, below_usd))
            for tensors in itertools.product(*(self._tensors(ask) for ask in asks))
        ]
        feed = (
            sorted(
                (
                    Option(key, row, use, nth=number)
                    for number, (_, bounds) in enumerate(feeds)
                    for key, row, use in bounds
                ),
                key=lambda option: option.key,
            )
            if len(feeds) > 1
            else (Option(key, row, use) for key, row, use in feeds[0][1])
        )
        return lazily(feed, lambda option: self._together_behind(asks, feeds[option.nth][0], option), skip)

    def _tensors(self, ask: Ask) -> tuple[int, ...]:
        return ask.goal.tensors if isinstance(ask.goal, LanguageModelGoal) else (1,)

    def _together_bounds(
        self, asks: Sequence[Ask], tensors: Sequence[int], below_usd: float
    ) -> Iterator[tuple[Key, int, tuple[int, ...]]]:
        rows = self._common_rows(asks)
        if not len(rows):
            return
        replicas = [self._replicas(ask, tensor)[rows] for ask, tensor in zip(asks, tensors, strict=True)]
        nodes = self._least_nodes(asks, tensors, rows, replicas)
        egress = sum((self.egress(ask)[rows] for ask in asks), np.zeros(len(rows)))
        usd = nodes * self.market.price[rows] * HOURS_PER_MONTH + egress
        kept = np.flatnonzero(usd < below_usd)
        most_each = [np.full(len(kept), float(ask.most)) for ask in asks]
        most = self._least_nodes(asks, tensors, rows[kept], most_each) if self._use else None
        for at in np.argsort(usd[kept], kind="stable"):
            row = int(rows[kept[at]])
            use = tuple(int(each[row] * most[at]) for each in self._use) if most is not None else ()
            by_month = float(usd[kept[at]])
            budgets = self._budget_use(by_month, float(nodes[kept[at]] * self.market.price[row]), math.floor)
            yield (0, math.floor(by_month * MILLION)), row, use + budgets

    def _least_nodes(
        self, asks: Sequence[Ask], tensors: Sequence[int], rows: Index, replicas: Sequence[Column]
    ) -> Column:
        """At least so many, by the scarcest resource."""
        nodes = np.ones(len(rows))
        for resource, room in zip(("accelerators", "vcpus", "memory_gib"), self._room, strict=True):
            asked = np.zeros(len(rows))
            for ask, tensor, count in zip(asks, tensors, replicas, strict=True):
                each = getattr(ask.demand, resource)
                if each:  # where none is asked for, infinitely many replicas ask for none
                    asked += count * (tensor if resource == "accelerators" and ask.goal else each)
            with np.errstate(divide="ignore", invalid="ignore"):
                nodes = np.maximum(nodes, np.where(asked > 0, np.ceil(asked / room[rows] - 1e-6), 0.0))
        return nodes

    def _replicas(self, ask: Ask, tensor: int) -> Column:
        """The fewest replicas by row, as far as is known; infinite where it can't run."""
        if (ask, tensor) not in self._floors:
            rows, column = self.rows(ask), np.full(len(self.market.price), np.inf)
            if ask.goal is None:
                column[rows] = ask.count
            else:
                column[rows] = self._floors_of(ask, tensor, self.market.machine[rows])
            self._floors[ask, tensor] = column
        return self._floors[ask, tensor]

    def _floors_of(self, ask: Ask, tensor: int, machines: Index) -> Column:
        numbers, inverse = np.unique(machines, return_inverse=True)
        goal = ask.goal
        assert goal is not None and not isinstance(goal, TrainingGoal)
        floors = np.full(len(numbers), np.inf)
        for at, number in enumerate(numbers):
            machine = self.market.machines[int(number)]
            if machine is None or machine.count < tensor:
                continue
            if machine.vcpus:
                machine = replace(machine, vcpus=ask.demand.vcpus, memory_gib=ask.demand.memory_gib)
            fewest = self.predictor.fewest(ask, machine, tensor)
            if fewest.floor <= goal.replicas_max:
                floors[at] = fewest.floor
        return np.asarray(floors[inverse])

    def _together_behind(self, asks: Sequence[Ask], tensors: Sequence[int], option: Option) -> Iterator[Option]:
        if any([self._closer(ask, option.row, tensor) for ask, tensor in zip(asks, tensors, strict=True)]):
            bound = self._together_bound(asks, tensors, option)
            if bound is not None:
                yield bound
            return
        choices: list[Choice] = []
        for ask, tensor in zip(asks, tensors, strict=True):
            choice = self._replica_choice(ask, option.row, tensor)
            if choice is None:
                return
            choices.append(choice)
        if len(asks) > 1 and any(broken(each, ask.limits) for ask, each in zip(asks, choices, strict=True)):
            return
        offer = self.market.offer(option.row)
        room = room_of(offer.accelerator_count, offer.vcpus, offer.memory_gib)
        pairs = list(zip(asks, choices, strict=True))
        nodes = nodes_for(room, [(_replicas_of(ask, each), demand_of(ask, each.shape)) for ask, each in pairs])
        most = nodes_for(room, [(ask.most, demand_of(ask, each.shape)) for ask, each in pairs])
        if nodes is None or most is None:
            return
        egress = sum(each.egress_usd_per_month for each in choices)
        usd = nodes * float(self.market.price[option.row]) * HOURS_PER_MONTH + egress
        use = self._exact_use(option.row, most, nodes, usd)
        yield Option((0, round(usd * MILLION)), option.row, use, tuple(choices), nodes)

    def _closer(self, ask: Ask, row: int, tensor: int) -> bool:
        machine = self.predictor.machine(ask, row) if ask.goal is not None else None
        if machine is None or not self.predictor.closer(ask, machine, tensor):
            return False
        self._floors.pop((ask, tensor), None)
        return True

    def _together_bound(self, asks: Sequence[Ask], tensors: Sequence[int], option: Option) -> Option | None:
        """An option's bound, now that more is known of its replicas."""
        row = np.array([option.row])
        replicas = [self._replicas(ask, tensor)[row] for ask, tensor in zip(asks, tensors, strict=True)]
        nodes = float(self._least_nodes(asks, tensors, row, replicas)[0])
        if not math.isfinite(nodes):
            return None
        hourly = nodes * float(self.market.price[option.row])
        by_month = hourly * HOURS_PER_MONTH + sum(float(self.egress(ask)[option.row]) for ask in asks)
        quotas = option.use[: len(self._use)]
        use = quotas + self._budget_use(by_month, hourly, math.floor)
        return Option((0, math.floor(by_month * MILLION)), option.row, use, nth=option.nth)

    def _replica_choice(self, ask: Ask, row: int, tensor: int) -> Choice | None:
        key = (ask, row, tensor)
        if key not in self._choices:
            self._choices[key] = self._new_replica_choice(ask, row, tensor)
        return self._choices[key]

    def _new_replica_choice(self, ask: Ask, row: int, tensor: int) -> Choice | None:
        if ask.goal is None:
            return self.predictor.choice(ask, row, None, None)
        machine = self.predictor.machine(ask, row)
        assert machine is not None
        fewest = self.predictor.resolved(ask, machine, tensor)
        if fewest.shape is None or fewest.outcome is None:
            return None
        return self.predictor.choice(ask, row, fewest.shape, fewest.outcome)

    # keys and shared limits

    def _key(self, ask: Ask, seconds: float, usd_per_month: float, whole: Callable[[float], int]) -> Key:
        time = 0 if ask.objective == "cost" else whole(min(seconds / self.scale_s.get(ask, 1.0), 1e30) * 1e9)
        return time, whole(min(usd_per_month, 1e30) * MILLION)

    def _least_use(self, ask: Ask, row: int, usd_per_hour: float, usd_per_month: float) -> tuple[int, ...]:
        if not self.limits:
            return ()
        nodes = ask.most if ask.whole_nodes else 0
        return tuple(int(each[row]) * nodes for each in self._use) + self._budget_use(
            usd_per_month, usd_per_hour, math.floor
        )

    def _exact_use(self, row: int, nodes_most: int, nodes: int, usd_per_month: float) -> tuple[int, ...]:
        if not self.limits:
            return ()
        hourly = nodes * float(self.market.price[row])
        return tuple(int(each[row]) * nodes_most for each in self._use) + self._budget_use(usd_per_month, hourly, round)

    def _budget_use(self, by_month: float, by_hour: float, whole: Callable[[float], int]) -> tuple[int, ...]:
        return tuple(
            whole((by_hour if limit.hourly else by_month) * MILLION) for limit in self.limits if limit.quota is None
        )


def _kinds(columns: Sequence[Column | Index]) -> Index:
    """Numbers from 0 for rows, the same where all columns are the same."""
    kind = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        if (column == column[0]).all():
            continue
        each = np.asarray(
            column if column.dtype == np.int64 else np.unique(column, return_inverse=True)[1], dtype=np.int64
        )
        together = kind * (int(each.max()) + 1) + each
        kind = together if together.max() < KINDS_MOST else np.unique(together, return_inverse=True)[1]
    return kind


def _replicas_of(ask: Ask, choice: Choice) -> int:
    return ask.count if choice.shape is None else choice.shape.replicas


def place_of(choice: Choice) -> Place:
    """What tells pools apart."""
    offer = choice.offer
    return offer.cloud, offer.region, offer.instance_type, choice.price_model, choice.spot_fallback


def broken(choice: Choice, limits: Ceilings) -> str | None:
    """The first field of `Ceilings` that a choice breaks; None where it keeps them all."""
    return next((each.name for each in fields(limits) if choice.limited(each.name) > getattr(limits, each.name)), None)


def _by_how_much(choice: Choice, ask: Ask, name: str) -> str:
    typed, scale = ask.limit_fields[name]
    return f"{typed} {choice.limited(name) * scale:.4g} > {getattr(ask.limits, name) * scale:.4g}"


def _asked_for(where: Where) -> str:
    """Accelerators, price models and places, in a few words."""
    count = min(where.counts) if where.counts else where.min_count
    types, chips = (" or ".join(sorted(each or ())[:4]) for each in (where.instance_types, where.accelerators))
    bought = " or ".join(each.replace("_", " ") for each in where.buyings)
    places = ", ".join(" ".join(each) for each in sorted(where.places or ())[:4])
    return ", ".join(each for each in (types, f"accelerators {count:g}", chips, bought, places) if each)


def rounded_up(value: float) -> float:
    """To four digits, so that the limit as printed lets the choice pass."""
    if value <= 0:
        return 0.0
    scale = 10.0 ** (3 - math.floor(math.log10(value)))
    return math.ceil(value * scale) / scale
