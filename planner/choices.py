"""The ways to run one workload, and what is predicted of them: no more than need be.

Candidates stand in a queue by the least that they can cost or take, and are looked at closer only when they come first
(A*: P. Hart, N. Nilsson, B. Raphael, IEEE TSSC 4(2), 1968): first by FLOPs over peak, then by the roofline of computing
alone, then by the whole prediction. What comes first with its prediction is the optimum, since no bound exceeds what it
bounds. What was found of a goal on a machine is kept, whoever sells it.

`planner.optimizer` puts the ways of all offers in order.
"""

from __future__ import annotations

import heapq
import itertools
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from planner.calibration.own import Own
from planner.calibration.store import Calibration
from planner.catalog import Catalog, Offer
from planner.cost import HOURS_PER_MONTH
from planner.errors import PlanError
from planner.goals import (
    NEVER,
    Goal,
    LanguageModelGoal,
    LimitFields,
    Outcome,
    Prediction,
    ReplicaGoal,
    Shape,
    TrainingGoal,
)
from planner.machines import Machine, chip_of, cpu_calibration
from planner.market import Market, Where
from planner.packing import Demand, nodes_for, room_of
from planner.performance.checks import PerformanceError
from planner.performance.chip import Chip
from planner.workloads import Objective, PriceModel, Purchase

REPLICA_STEPS = (1, 3, 5, 7, *(step << power for power in range(13) for step in (2, 3)))
"""Numbers of replicas that are tried where latency is minimised: 1 to 8, 12, 16, 24 …, the least and the most."""
CLOSER_STEP = 8
"""By which share of them the replicas that are tried grow: one by one below 8, then by an eighth."""
Key = tuple[int, int]
"""Nanoseconds (0 where cost is the objective) or parts by 10⁹ of the least time, then micro-dollars by month: whole
numbers, whose sums don't depend on their order."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a choice must not exceed; infinite where nothing is asked."""

    usd: float = math.inf
    """Training: of the run; services: by hour, on nodes of their own."""
    seconds: float = math.inf
    """As `Outcome.seconds`."""
    token_s: float = math.inf

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise PlanError(f"{limit.name} is {value!r}; a limit must be above zero")


@dataclass(frozen=True, eq=False)
class Ask:
    """A workload, as it is searched for."""

    name: str
    where: Where
    goal: Goal | None
    """None: chosen by needs and price alone."""
    demand: Demand
    """Of one replica; its accelerators are those of the shape where a goal has shapes of several."""
    limits: Ceilings = Ceilings()
    objective: Objective = "cost"
    count: int = 1
    """Nodes or replicas of a workload without a goal."""
    most: int = 1
    """Nodes or replicas that the autoscaler may reach."""
    whole_nodes: bool = True
    """A training job: its pods have nodes of their own."""
    per_month: float = HOURS_PER_MONTH
    """Runs of a training job with a goal, or hours."""
    egress_usd: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """By place, USD a month for data that is not there."""
    pool: tuple[str | None, Purchase | None] = (None, None)
    """The zone and the purchase of its nodes; replicas with others don't stand beside its own."""

    @property
    def limit_fields(self) -> LimitFields:
        """What may be limited, in the user's words; without a prediction that is cost alone."""
        return self.goal.limit_fields if self.goal else {"usd": ("USD an hour", 1)}

    @property
    def shares(self) -> bool:
        """Whether its replicas may stand beside others': what minimises latency has nodes of its own."""
        return not self.whole_nodes and self.objective == "cost"


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run a workload, with what it costs and takes."""

    offer: Offer
    price_model: PriceModel
    spot_fallback: bool
    machine: Machine | None
    """None where nothing is predicted."""
    shape: Shape | None
    outcome: Outcome | None
    nodes: int
    """On nodes of its own."""
    usd: float
    """On nodes of its own."""
    usd_per: Literal["run", "hour"]
    """A run where its time is predicted, else an hour."""
    price_usd_per_hour: float
    """Of one node, as expected: with the share on demand while spot is away."""
    usd_per_month: float
    """With egress."""
    egress_usd_per_month: float
    reason: str = ""
    """Why it lost, or what limit it breaks; empty for the choice."""

    def limited(self, name: str) -> float:
        """What the field `name` of `Ceilings` limits."""
        if name == "usd":
            return self.usd
        value: float = getattr(self.outcome, name) if self.outcome else 0.0
        return value


@dataclass(frozen=True, slots=True)
class Rejected:
    """A choice that comes before the best by the objective alone, and the limit that it breaks."""

    choice: Choice
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The optimum, what comes after it (one a machine, best first), and what a limit kept out before it."""

    best: Choice
    prediction: Prediction | None
    runners_up: tuple[Choice, ...]
    rejected: tuple[Rejected, ...]
    peak: Prediction | None = None
    """Of the best at the peak that its target states, with the most replicas."""


class NothingFits(PlanError):
    """No choice keeps every limit; the text names each limit that alone could be raised, and to what."""

    def __init__(self, message: str, relaxed: Mapping[str, float]) -> None:
        super().__init__(message)
        self.relaxed = relaxed
        """The least value of each limit with which there is a choice, the others kept."""


@dataclass(slots=True)
class Option:
    """Workloads on one pool: what they cost at least, or, with `choices`, what they cost."""

    key: Key
    row: int
    use: tuple[int, ...] = ()
    """Of what the stack shares: quotas and budgets, in millionths."""
    choices: tuple[Choice, ...] = ()
    nodes: int = 0
    nth: int = 0
    """Of a whole-node workload: which of the machine's shapes."""


@dataclass(slots=True)
class _Ranked:
    """The shapes of a goal on a machine, best first, each looked at only as closely as its turn requires."""

    queue: list[tuple[tuple[float, float], int, int, Shape, Outcome | None]]
    closer: Callable[[Shape, int], tuple[tuple[float, float], Outcome | None] | None]
    done: list[tuple[tuple[float, float], Shape, Outcome]] = field(default_factory=list)

    def floor(self, nth: int) -> tuple[float, float] | None:
        """The least that the nth best can be; None where there are not so many."""
        if nth < len(self.done):
            return self.done[nth][0]
        return self.queue[0][0] if self.queue else None

    def known(self, nth: int) -> tuple[tuple[float, float], Shape, Outcome] | None:
        """The nth best, once enough was looked at."""
        return self.done[nth] if nth < len(self.done) else None

    def look(self) -> None:
        """Look closer at what comes first, until the least that it can be is larger or it is known."""
        key, number, looked, shape, outcome = heapq.heappop(self.queue)
        if outcome is not None:
            self.done.append((key, shape, outcome))
            return
        found = self.closer(shape, looked + 1)
        if found is not None:
            least = max(found[0], key) if found[1] is None else found[0]
            heapq.heappush(self.queue, (least, number, looked + 1, shape, found[1]))


@dataclass(slots=True)
class Fewest:
    """The fewest replicas with which a service keeps its limits on a chip, by devices of one replica."""

    floor: int
    looked: int = 0
    """How closely: 0 by FLOPs over peak, 1 by the capacity of full batches and by trying fewer, 2 it is known."""
    shape: Shape | None = None
    """Where none keeps them, what comes nearest."""
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out for one goal."""

    ranked: dict[tuple[object, ...], _Ranked] = field(default_factory=dict)
    fewest: dict[tuple[object, ...], Fewest] = field(default_factory=dict)
    outcomes: dict[tuple[Machine, Shape], Outcome | str] = field(default_factory=dict)
    """The prediction, or why the shape can't run there."""
    slower: dict[tuple[Machine, Shape], float] = field(default_factory=dict)
    """Seconds that a shape is known to take more than, where no more was asked."""
    predictions: dict[tuple[Machine, Shape], Prediction] = field(default_factory=dict)


class Predictor:
    """A catalog, or some of its places, as columns, and what was predicted of it so far."""

    def __init__(
        self,
        catalog: Catalog,
        calibration: Calibration,
        own: Own | None = None,
        places: Collection[tuple[str, str]] | None = None,
    ) -> None:
        self.market = Market(catalog, places)
        self._calibration = calibration
        self._own = own or Own({})
        self._known: weakref.WeakKeyDictionary[Goal, _Known] = weakref.WeakKeyDictionary()

    # what is predicted

    def _known_of(self, goal: Goal) -> _Known:
        return self._known.setdefault(goal, _Known())

    def _chip(self, goal: Goal, machine: Machine) -> tuple[Chip, Calibration]:
        chip = chip_of(machine, self.market.chips)
        usual = cpu_calibration() if machine.vcpus else self._calibration
        return self._own.of(machine, chip, usual, goal.precisions)

    def outcome(self, goal: Goal, machine: Machine, shape: Shape) -> Outcome | str:
        """The prediction, or why the shape can't run there."""
        known = self._known_of(goal).outcomes
        key = (machine, shape)
        if key not in known:
            chip, calibration = self._chip(goal, machine)
            try:
                known[key] = goal.outcome(chip, machine, shape, calibration)
            except PerformanceError as error:
                known[key] = str(error)
        return known[key]

    def prediction(self, ask: Ask, choice: Choice) -> Prediction | None:
        """With its interval and reasons; None where nothing is predicted of the workload."""
        if ask.goal is None or choice.machine is None or choice.shape is None:
            return None
        return self._prediction(ask.goal, choice.machine, choice.shape)

    def peak_prediction(self, ask: Ask, choice: Choice) -> Prediction | None:
        """The same of a service at its peak, with the most replicas; None where no peak is stated."""
        if ask.goal is None or isinstance(ask.goal, TrainingGoal) or choice.machine is None or choice.shape is None:
            return None
        peak = ask.goal.peak
        if peak is None:
            return None
        return self._prediction(peak, choice.machine, replace(choice.shape, replicas=peak.replicas_max))

    def _prediction(self, goal: Goal, machine: Machine, shape: Shape) -> Prediction:
        known = self._known_of(goal).predictions
        if (machine, shape) not in known:
            chip, calibration = self._chip(goal, machine)
            known[machine, shape] = goal.predict(chip, machine, shape, calibration)
        return known[machine, shape]

    def machine(self, ask: Ask, row: int) -> Machine | None:
        """What a row performs as for a workload: of a CPU, what the pod asks for."""
        machine = self.market.machines[int(self.market.machine[row])]
        if machine is None or not machine.vcpus:
            return machine
        return replace(machine, vcpus=ask.demand.vcpus, memory_gib=ask.demand.memory_gib)

    def floor_s(self, goal: Goal, machine: Machine, shape: Shape) -> float:
        """The least seconds that a shape takes; infinite where it can't run or its queue would grow for ever."""
        chip, calibration = self._chip(goal, machine)
        try:
            if not isinstance(goal, TrainingGoal) and goal.replicas_floor(chip, shape, calibration) > shape.replicas:
                return math.inf
            return goal.floor_s(chip, shape, calibration)
        except PerformanceError:
            return math.inf

    # whole nodes, and services that minimise latency

    def ranked(self, ask: Ask, machine: Machine) -> _Ranked:
        """The shapes of a workload on a machine by its objective; those that can't keep its time are left out."""
        assert ask.goal is not None
        known = self._known_of(ask.goal).ranked
        key = (machine, ask.objective, ask.limits.seconds)
        if key not in known:
            known[key] = self._new_ranked(ask, ask.goal, machine)
        return known[key]

    def _new_ranked(self, ask: Ask, goal: Goal, machine: Machine) -> _Ranked:
        chip, calibration = self._chip(goal, machine)
        by_cost = ask.objective == "cost"

        def measured(shape: Shape, seconds: float) -> tuple[float, float]:
            amount = goal.node_hours(seconds, shape) if isinstance(goal, TrainingGoal) else float(shape.replicas)
            return (amount, seconds) if by_cost else (seconds, amount)

        def closer(shape: Shape, looked: int) -> tuple[tuple[float, float], Outcome | None] | None:
            if looked == 1:
                floor_s = self.floor_s(goal, machine, shape)
                return None if floor_s > ask.limits.seconds or floor_s == math.inf else (measured(shape, floor_s), None)
            outcome = self.outcome(goal, machine, shape)
            return None if isinstance(outcome, str) else (measured(shape, outcome.seconds), outcome)

        queue: list[tuple[tuple[float, float], int, int, Shape, Outcome | None]] = []
        for number, shape in enumerate(counted(goal, machine)):
            floor_s = goal.quick_floor_s(chip, shape, calibration) if isinstance(goal, TrainingGoal) else 0.0
            if floor_s <= ask.limits.seconds and floor_s < math.inf:
                queue.append((measured(shape, floor_s), number, 0, shape, None))
        heapq.heapify(queue)
        return _Ranked(queue, closer)

    # replicas

    def fewest(self, ask: Ask, machine: Machine, tensor: int) -> Fewest:
        """The fewest replicas of `tensor` devices on a machine; a lower bound until it is resolved."""
        goal = _replica_goal(ask)
        known = self._known_of(goal).fewest
        alone = _one_replica(machine, tensor)
        key = (alone, ask.limits.seconds, ask.limits.token_s)
        if key not in known:
            chip, calibration = self._chip(goal, alone)
            shapes = [shape for shape in goal.shapes(alone) if shape.parallelism.devices == tensor]
            known[key] = Fewest(min((goal.quick_replicas(chip, shape, calibration) for shape in shapes), default=NEVER))
        return known[key]

    def closer(self, ask: Ask, machine: Machine, tensor: int) -> bool:
        """Bound the fewest replicas by the capacity of full batches, then by trying; whether that says more."""
        fewest = self.fewest(ask, machine, tensor)
        goal, alone = _replica_goal(ask), _one_replica(machine, tensor)
        before = fewest.floor
        if fewest.looked == 0:
            floors = [floor for floor, _ in self._ways(ask, goal, alone)]
            fewest.floor, fewest.looked = max(before, min(floors, default=NEVER)), 1
        elif fewest.looked == 1 and before < goal.replicas_max:
            tried = min(goal.replicas_max, before + before // CLOSER_STEP)
            if self._first_kept(ask, goal, alone, tried) is None:
                fewest.floor = min(goal.replicas_max, tried + 1)
        return fewest.floor > before

    def resolved(self, ask: Ask, machine: Machine, tensor: int) -> Fewest:
        """The same, found by trying; none has a shape where the most replicas don't do."""
        fewest = self.fewest(ask, machine, tensor)
        if fewest.looked < 2:
            goal, alone = _replica_goal(ask), _one_replica(machine, tensor)
            best = self._first_kept(ask, goal, alone, fewest.floor) or self._found_by_halves(
                ask, goal, alone, fewest.floor
            )
            if best is not None and isinstance(goal, LanguageModelGoal):
                best = self._first_kept(ask, goal, alone, best[0]) or best
            fewest.looked, fewest.floor = 2, NEVER
            if best is not None:
                fewest.floor, fewest.shape, fewest.outcome = best
            else:
                fewest.shape, fewest.outcome = self._nearest(ask, goal, alone)
        return fewest

    def _first_kept(
        self, ask: Ask, goal: ReplicaGoal, alone: Machine, replicas: int
    ) -> tuple[int, Shape, Outcome] | None:
        """The first of the shapes that keeps the limits with so many replicas; of a language model, whose precisions
        and splits cost the same then, the one that answers soonest."""
        ways = (
            kept
            for floor, shape in self._ways(ask, goal, alone)
            if floor <= replicas and (kept := self._kept(ask, goal, alone, replace(shape, replicas=replicas)))
        )
        if not isinstance(goal, LanguageModelGoal):
            return next(ways, None)
        return min(ways, key=lambda way: way[2].seconds + goal.output_tokens * way[2].token_s, default=None)

    def _found_by_halves(
        self, ask: Ask, goal: ReplicaGoal, alone: Machine, least: int
    ) -> tuple[int, Shape, Outcome] | None:
        best: tuple[int, Shape, Outcome] | None = None
        for floor, shape in self._ways(ask, goal, alone):
            at_least = max(floor, least)
            if best is None and at_least <= goal.replicas_max:
                best = self._least_replicas(ask, goal, alone, shape, at_least, goal.replicas_max)
            elif best is not None and at_least < best[0]:
                best = self._fewer_replicas(ask, goal, alone, shape, at_least, best[0]) or best
        return best

    def _ways(self, ask: Ask, goal: ReplicaGoal, alone: Machine) -> list[tuple[int, Shape]]:
        """The shapes that may keep the limits, each with the fewest replicas that bear the load, fewest first."""
        return sorted(self._found_ways(ask, goal, alone), key=lambda way: way[0])

    def _found_ways(self, ask: Ask, goal: ReplicaGoal, alone: Machine) -> Iterator[tuple[int, Shape]]:
        chip, calibration = self._chip(goal, alone)
        for shape in goal.shapes(alone):
            if shape.parallelism.devices != alone.count:
                continue
            try:
                floor = goal.replicas_floor(chip, shape, calibration)
                if floor <= goal.replicas_max and goal.floor_s(chip, shape, calibration) <= ask.limits.seconds:
                    yield floor, shape
            except PerformanceError:
                continue

    def _least_replicas(
        self, ask: Ask, goal: ReplicaGoal, alone: Machine, shape: Shape, floor: int, most: int
    ) -> tuple[int, Shape, Outcome] | None:
        """By doubling steps, then by halves: a further replica never makes requests wait longer."""
        below, step, at = floor - 1, 1, floor
        while (found := self._kept(ask, goal, alone, replace(shape, replicas=at))) is None:
            if at >= most:
                return None
            below, at, step = at, min(most, at + step), step * 2
        while found[0] - below > 1:
            middle = (found[0] + below) // 2
            better = self._kept(ask, goal, alone, replace(shape, replicas=middle))
            if better is None:
                below = middle
            else:
                found = better
        return found

    def _fewer_replicas(
        self, ask: Ask, goal: ReplicaGoal, alone: Machine, shape: Shape, floor: int, known: int
    ) -> tuple[int, Shape, Outcome] | None:
        """The least below a number that another shape takes: mostly one less is too few already."""
        found = self._kept(ask, goal, alone, replace(shape, replicas=known - 1))
        if found is None or known - 1 == floor:
            return found
        return self._least_replicas(ask, goal, alone, shape, floor, known - 2) or found

    def _kept(self, ask: Ask, goal: ReplicaGoal, alone: Machine, shape: Shape) -> tuple[int, Shape, Outcome] | None:
        """What a shape does, where it keeps the limits of time."""
        known, most_s = self._known_of(goal), ask.limits.seconds
        key = (alone, shape)
        if key not in known.outcomes:
            if most_s <= known.slower.get(key, 0.0):
                return None
            chip, calibration = self._chip(goal, alone)
            if goal.is_slower(chip, shape, calibration, most_s):
                known.slower[key] = most_s
                return None
        outcome = self.outcome(goal, alone, shape)
        if isinstance(outcome, str) or outcome.seconds > most_s or outcome.token_s > ask.limits.token_s:
            return None
        return shape.replicas, shape, outcome

    def _nearest(self, ask: Ask, goal: ReplicaGoal, alone: Machine) -> tuple[Shape, Outcome] | tuple[None, None]:
        """The fastest shape with the most replicas, where those are not enough."""
        best: tuple[Shape, Outcome] | tuple[None, None] = (None, None)
        chip, calibration = self._chip(goal, alone)
        for _, shape in self._ways(ask, goal, alone):
            tried = replace(shape, replicas=goal.replicas_max)
            if best[1] is not None and goal.is_slower(chip, tried, calibration, best[1].seconds):
                continue
            outcome = self.outcome(goal, alone, tried)
            if isinstance(outcome, Outcome) and (best[1] is None or outcome.seconds < best[1].seconds):
                best = tried, outcome
        return best

    # choices

    def choice(self, ask: Ask, row: int, shape: Shape | None, outcome: Outcome | None) -> Choice | None:
        """A workload on a row, on nodes of its own; None where a replica doesn't fit a node."""
        market = self.market
        offer, buying = market.offer(row), market.buying(row)
        price = float(market.price[row])
        nodes = self._nodes(ask, offer, shape)
        if nodes is None:
            return None
        runs = isinstance(ask.goal, TrainingGoal)
        hours = outcome.seconds / 3600 if outcome and runs else 1.0
        usd = hours * nodes * price
        egress = ask.egress_usd.get((offer.cloud, offer.region), 0.0)
        return Choice(
            offer=offer,
            price_model="on_demand" if buying == "on_demand" else "spot",
            spot_fallback=buying == "spot_fallback",
            machine=self.machine(ask, row) if ask.goal else None,
            shape=shape,
            outcome=outcome,
            nodes=nodes,
            usd=usd,
            usd_per="run" if runs else "hour",
            price_usd_per_hour=price,
            usd_per_month=usd * ask.per_month + egress,
            egress_usd_per_month=egress,
        )

    def _nodes(self, ask: Ask, offer: Offer, shape: Shape | None) -> int | None:
        if ask.whole_nodes:
            return ask.count if shape is None else shape.parallelism.nodes
        room = room_of(offer.accelerator_count, offer.vcpus, offer.memory_gib)
        return nodes_for(room, [(ask.count if shape is None else shape.replicas, demand_of(ask, shape))])


def _one_replica(machine: Machine, tensor: int) -> Machine:
    """What of a machine a replica's speed depends on."""
    return replace(machine, count=tensor, interruptions_per_node_hour=0.0, away_hours=0.0)


def demand_of(ask: Ask, shape: Shape | None) -> Demand:
    """What a replica of that shape asks of its node."""
    if shape is None or ask.demand.accelerators in (0, shape.parallelism.devices):
        return ask.demand
    return replace(ask.demand, accelerators=float(shape.parallelism.devices))


def counted(goal: Goal, machine: Machine) -> Iterator[Shape]:
    """The goal's shapes; of a service, with each number of replicas."""
    if isinstance(goal, TrainingGoal):
        yield from goal.shapes(machine)
        return
    counts = {goal.replicas_min, goal.replicas_max, *REPLICA_STEPS}
    for shape in goal.shapes(machine):
        for replicas in sorted(counts):
            if goal.replicas_min <= replicas <= goal.replicas_max:
                yield replace(shape, replicas=replicas)


def _replica_goal(ask: Ask) -> ReplicaGoal:
    assert ask.goal is not None and not isinstance(ask.goal, TrainingGoal)
    return ask.goal


def lazily(
    feed: Iterable[Option], closer: Callable[[Option], Iterable[Option]], skip: Callable[[Option], bool]
) -> Iterator[Option]:
    """Options with choices, best first. `feed` gives lower bounds in their order, `closer` what is behind one.

    `skip` passes over an option, when its turn comes, as a bound and again as what it is.
    """
    number = itertools.count()
    queue: list[tuple[Key, int, Option]] = []
    waiting = iter(feed)
    following = next(waiting, None)
    while queue or following is not None:
        if following is not None and (not queue or following.key <= queue[0][0]):
            option, following = following, next(waiting, None)
        else:
            option = heapq.heappop(queue)[2]
        if skip(option):
            continue
        if option.choices:
            yield option
            continue
        for behind in closer(option):
            heapq.heappush(queue, (behind.key, next(number), behind))
