"""The exact search for one workload: the cheapest or fastest way to run it, over everything that the catalog sells.

Offers that perform alike (same accelerator, count and spot interruptions) are one machine, of which only the cheapest
offer can win; numpy columns find it. The shapes of all machines then stand in one queue, ordered by the least that
each could cost or take (A*: P. Hart, N. Nilsson, B. Raphael, IEEE TSSC 4(2), 1968); a shape is predicted when it comes
first, and what comes first with its prediction is the optimum, since no bound exceeds what it bounds. Each (machine,
shape) of a goal is predicted once, whoever sells it.

Spot: interruptions lengthen a training run by Daly's expected loss (`planner.performance.training`), and while spot is
gone its node is bought on demand: the price is (1 - f)·spot + f·on demand, f = λh/(1 + λh), with h =
`FALLBACK_HOURS` (an assumption: no cloud publishes how long spot stays away).
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from planner.calibration.store import Calibration
from planner.catalog import Catalog, Offer
from planner.errors import PlanError
from planner.frontier import Bound, frontier
from planner.goals import Goal, Machine, Outcome, Prediction, Shape
from planner.performance.checks import PerformanceError
from planner.performance.chip import Chip
from planner.workloads import PriceModel

Objective = Literal["cost", "time"]
MONTHLY_RECLAIM: Mapping[str | None, float] = {"<5%": 0.05, "5-10%": 0.1, "10-15%": 0.15, "15-20%": 0.2, ">20%": 0.3}
"""The upper end of each bucket of AWS Spot Advisor; beyond 20 % it states none, and 30 % is taken."""
UNKNOWN_RECLAIM = 0.3
"""Where a cloud publishes no rate, the worst is taken."""
FALLBACK_HOURS = 1.0


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a choice must not exceed; infinite where nothing is asked."""

    usd: float = math.inf
    """Training: of the run; services: by hour."""
    seconds: float = math.inf
    """As `Outcome.seconds`."""
    token_s: float = math.inf

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise PlanError(f"{limit.name} is {value!r}; a limit must be above zero")


@dataclass(frozen=True, slots=True)
class Where:
    """Which offers may be taken; None is any."""

    places: frozenset[tuple[str, str]] | None = None
    """(cloud, region)."""
    accelerators: frozenset[str] | None = None
    counts: frozenset[int] | None = None
    """Accelerators of one node."""
    instance_types: frozenset[str] | None = None
    price_models: tuple[PriceModel, ...] = ("on_demand",)
    min_vcpus: float = 0.0
    min_memory_gib: float = 0.0
    architecture: str | None = None
    not_built: Collection[str] = ()
    """Instance types that can't be provisioned."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run a goal, with what it costs and takes."""

    offer: Offer
    price_model: PriceModel
    machine: Machine
    shape: Shape
    outcome: Outcome
    usd: float
    price_usd_per_hour: float
    """Of one node, with the share on demand while spot is away."""

    def limited(self, name: str) -> float:
        """What the field `name` of `Ceilings` limits."""
        value: float = self.usd if name == "usd" else getattr(self.outcome, name)
        return value


@dataclass(frozen=True, slots=True)
class Rejected:
    """A machine that comes before the choice by the objective alone, and the limit that it breaks at its nearest."""

    choice: Choice
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The optimum, what comes after it (one shape a machine, best first), and what a limit kept out before it."""

    best: Choice
    prediction: Prediction
    runners_up: tuple[Choice, ...]
    rejected: tuple[Rejected, ...]


class NothingFits(PlanError):
    """No choice keeps every limit; the text names each limit that alone could be raised, and to what."""

    def __init__(self, message: str, relaxed: Mapping[str, float]) -> None:
        super().__init__(message)
        self.relaxed = relaxed
        """The least value of each field of `Ceilings` with which there is a choice, the others kept."""


@dataclass(frozen=True, slots=True)
class _Sold:
    """The cheapest way to have one node of a machine."""

    machine: Machine
    offer: Offer
    price_model: PriceModel
    price_usd_per_hour: float


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out for one goal."""

    floors: dict[Machine, tuple[tuple[Shape, float], ...]] = field(default_factory=dict)
    outcomes: dict[tuple[Machine, Shape], Outcome | str] = field(default_factory=dict)
    """The prediction, or why the shape can't run there."""
    predictions: dict[tuple[Machine, Shape], Prediction] = field(default_factory=dict)


Key = TypeVar("Key")
Column = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


class Optimizer:
    """A catalog as columns, and what was predicted of it so far. Make one by process and ask it often."""

    def __init__(self, catalog: Catalog, calibration: Calibration) -> None:
        self._calibration = calibration
        self._chips = _chips(catalog)
        self._offers = [
            offer
            for offer in catalog.offers
            if (offer.accelerator or "") in self._chips
            and offer.accelerator_count >= 1
            and offer.accelerator_count % 1 == 0
        ]
        self._columns = _Columns(self._offers)
        self._known: weakref.WeakKeyDictionary[Goal, _Known] = weakref.WeakKeyDictionary()

    def search(
        self, goal: Goal, where: Where, limits: Ceilings, objective: Objective = "cost", runners_up: int = 3
    ) -> Answer:
        """The best choice that keeps every limit.

        Raises:
            NothingFits: there is none; says which limit to relax and to what.
        """
        sold = tuple(self._columns.cheapest(where, self._offers))
        best: list[Choice] = []
        done: set[Machine] = set()
        rejected: dict[Machine, Rejected] = {}
        for choice in self._in_order(goal, sold, objective, limits, done):
            reason = _broken(choice, limits)
            if reason is not None:
                if not best:
                    rejected.setdefault(choice.machine, Rejected(choice, reason))
                continue
            best.append(choice)
            done.add(choice.machine)
            if len(best) > runners_up:
                break
        if not best:
            raise self._nothing_fits(goal, sold, limits)
        first = best[0]
        return Answer(
            best=first,
            prediction=self._prediction(goal, first),
            runners_up=tuple(best[1:]),
            rejected=tuple(each for machine, each in rejected.items() if machine not in done),
        )

    def frontier(self, goal: Goal, where: Where) -> tuple[Choice, ...]:
        """Every choice that no other one beats in both cost and time, cheapest first, whatever the limits."""
        return frontier(
            Bound(
                goal.billed_floor_hours(floor_s) * shape.nodes * sold.price_usd_per_hour,
                floor_s,
                functools.partial(self._costed, goal, sold, shape),
            )
            for sold in self._columns.cheapest(where, self._offers)
            for shape, floor_s in self._floor(goal, sold.machine)
        )

    def _costed(self, goal: Goal, sold: _Sold, shape: Shape) -> tuple[float, float, Choice] | None:
        """USD, seconds and the choice that they are of; None where it can't run."""
        outcome = self._outcome(goal, sold.machine, shape)
        if isinstance(outcome, str):
            return None
        usd = outcome.billed_hours * shape.nodes * sold.price_usd_per_hour
        choice = Choice(sold.offer, sold.price_model, sold.machine, shape, outcome, usd, sold.price_usd_per_hour)
        return usd, outcome.seconds, choice

    def _in_order(
        self,
        goal: Goal,
        sold: tuple[_Sold, ...],
        objective: Objective,
        limits: Ceilings,
        done: Collection[Machine] = (),
    ) -> Iterator[Choice]:
        """Every choice whose bounds keep the limits, best first; each is predicted only when its bound comes first.

        What is left of a machine in `done`, which the caller may fill on the way, is passed over.
        """
        number = itertools.count()
        queue: list[tuple[float, float, int, _Sold, Shape, Choice | None]] = []
        for each in sold:
            for shape, floor_s in self._floor(goal, each.machine):
                floor_usd = goal.billed_floor_hours(floor_s) * shape.nodes * each.price_usd_per_hour
                if floor_s <= limits.seconds and floor_usd <= limits.usd and floor_s < math.inf:
                    key = (floor_usd, floor_s) if objective == "cost" else (floor_s, floor_usd)
                    queue.append((*key, next(number), each, shape, None))
        heapq.heapify(queue)
        while queue:
            *_, each, shape, choice = heapq.heappop(queue)
            if each.machine in done:
                continue
            if choice is not None:
                yield choice
                continue
            costed = self._costed(goal, each, shape)
            if costed is not None:
                usd, seconds, choice = costed
                key = (usd, seconds) if objective == "cost" else (seconds, usd)
                heapq.heappush(queue, (*key, next(number), each, shape, choice))

    def _known_of(self, goal: Goal) -> _Known:
        return self._known.setdefault(goal, _Known())

    def _floor(self, goal: Goal, machine: Machine) -> tuple[tuple[Shape, float], ...]:
        """The shapes that a goal may take on a machine with their least seconds; interruptions don't lower them."""
        calm = replace(machine, interruptions_per_node_hour=0.0)
        known = self._known_of(goal).floors
        if calm not in known:
            chip = self._chips[machine.accelerator]
            seconds: dict[tuple[object, ...], float] = {}
            found: list[tuple[Shape, float]] = []
            for shape in goal.shapes(calm):
                key = goal.floor_key(shape)
                if key not in seconds:
                    try:
                        seconds[key] = goal.floor_s(chip, shape, self._calibration)
                    except PerformanceError:
                        seconds[key] = math.inf
                found.append((shape, seconds[key]))
            known[calm] = tuple(found)
        return known[calm]

    def _outcome(self, goal: Goal, machine: Machine, shape: Shape) -> Outcome | str:
        """The prediction, or why the shape can't run there."""
        known = self._known_of(goal).outcomes
        key = (machine, shape)
        if key not in known:
            try:
                known[key] = goal.outcome(self._chips[machine.accelerator], machine, shape, self._calibration)
            except PerformanceError as error:
                known[key] = str(error)
        return known[key]

    def _prediction(self, goal: Goal, choice: Choice) -> Prediction:
        known = self._known_of(goal).predictions
        key = (choice.machine, choice.shape)
        if key not in known:
            known[key] = goal.predict(self._chips[choice.machine.accelerator], *key, self._calibration)
        return known[key]

    def _nothing_fits(self, goal: Goal, sold: tuple[_Sold, ...], limits: Ceilings) -> NothingFits:
        if not sold:
            return NothingFits("no offer in the catalog has the accelerators, place and price model asked for", {})
        relaxed = {
            name: least
            for name in _WORDS
            if (least := self._least(goal, sold, limits, name)) is not None and least > getattr(limits, name)
        }
        if relaxed:
            ways = " or ".join(
                f"raise the limit of {_WORDS[name]} from {getattr(limits, name):.4g} to {_up(least):.4g}"
                for name, least in relaxed.items()
            )
            return NothingFits(f"no choice keeps every limit: {ways}", relaxed)
        whys = [
            outcome
            for each in sold
            for shape, floor_s in self._floor(goal, each.machine)
            if floor_s == math.inf and isinstance(outcome := self._outcome(goal, each.machine, shape), str)
        ]
        why = f"; for instance: {min(whys, key=len)}" if whys else ""
        return NothingFits(f"no machine can run it within these limits, even with any one of them lifted{why}", {})

    def _least(self, goal: Goal, sold: tuple[_Sold, ...], limits: Ceilings, name: str) -> float | None:
        """The least value of one limit with which there is a choice, the others kept; found by planning without it."""
        lifted = replace(limits, **{name: math.inf})
        objective: Objective = "cost" if name == "usd" else "time"
        kept = (each for each in self._in_order(goal, sold, objective, lifted) if _broken(each, lifted) is None)
        if name == "token_s":  # the queue can't be ordered by it: every choice is looked at
            return min((each.limited("token_s") for each in kept), default=None)
        first = next(kept, None)
        return None if first is None else first.limited(name)


_WORDS = {"usd": "cost (USD)", "seconds": "time (s)", "token_s": "time by output token (s)"}
"""What each field of `Ceilings` limits."""


def _up(value: float) -> float:
    """Rounded up to four digits, so that the limit as printed lets the choice pass."""
    digits = 3 - math.floor(math.log10(value))
    scale = 10.0**digits
    return math.ceil(value * scale) / scale


def _broken(choice: Choice, limits: Ceilings) -> str | None:
    """The first limit that a choice breaks, in numbers; None where it keeps them all."""
    for name, word in _WORDS.items():
        value, limit = choice.limited(name), getattr(limits, name)
        if value > limit:
            return f"{word} {value:.4g} > {limit:.4g}"
    return None


class _Columns:
    """Offers as numpy columns; `machine` numbers the (accelerator, count, bucket) that they share."""

    def __init__(self, offers: list[Offer]) -> None:
        self.on_demand: Column = _prices([offer.price_usd_per_hour for offer in offers])
        spot = _prices([offer.spot_price_usd_per_hour for offer in offers])
        self.machines, self.machine = _numbered(
            [
                (offer.accelerator or "", int(offer.accelerator_count), offer.spot_interruption_bucket)
                for offer in offers
            ]
        )
        rates = np.array([_interruptions_per_hour(bucket) for *_, bucket in self.machines] or [0.0])
        rate = rates[self.machine] if offers else np.zeros(0)
        away = rate * FALLBACK_HOURS / (1 + rate * FALLBACK_HOURS)
        # inf - inf would be nan where a price is missing: such an offer is not sold on spot with a fallback
        with np.errstate(invalid="ignore"):
            blended = (1 - away) * spot + away * self.on_demand
        self.spot: Column = np.where(np.isfinite(blended), blended, np.inf)
        self.places, self.place = _numbered([(offer.cloud, offer.region) for offer in offers])
        self.types, self.type = _numbered([(offer.cloud, offer.instance_type) for offer in offers])
        self.architectures, self.architecture = _numbered([(offer.architecture,) for offer in offers])
        self.vcpus = np.array([offer.vcpus for offer in offers], dtype=np.float64)
        self.memory_gib = np.array([offer.memory_gib for offer in offers], dtype=np.float64)
        self.by_machine: Index = np.argsort(self.machine, kind="stable")
        self.starts: Index = np.searchsorted(self.machine[self.by_machine], np.arange(len(self.machines)))

    def cheapest(self, where: Where, offers: list[Offer]) -> Iterator[_Sold]:
        """The cheapest offer of each machine and price model among those that may be taken; the first of equals."""
        if not offers:
            return
        allowed = (self.vcpus >= where.min_vcpus) & (self.memory_gib >= where.min_memory_gib)
        if where.places is not None:
            allowed &= np.array([each in where.places for each in self.places])[self.place]
        if where.architecture is not None:
            allowed &= np.array([each[0] == where.architecture for each in self.architectures])[self.architecture]
        if where.instance_types is not None:
            allowed &= np.array([each[1] in where.instance_types for each in self.types])[self.type]
        if where.not_built:
            allowed &= np.array([each[1] not in where.not_built for each in self.types])[self.type]
        wanted = [
            (where.accelerators is None or name in where.accelerators)
            and (where.counts is None or count in where.counts)
            for name, count, _ in self.machines
        ]
        for price_model in where.price_models:
            column = self.on_demand if price_model == "on_demand" else self.spot
            price = np.where(allowed, column, np.inf)[self.by_machine]
            least = np.minimum.reduceat(price, self.starts)
            for number in np.flatnonzero(np.isfinite(least) & np.array(wanted)):
                start = int(self.starts[number])
                row = int(self.by_machine[start + int(np.argmax(price[start:] == least[number]))])
                accelerator, count, bucket = self.machines[number]
                rate = _interruptions_per_hour(bucket) if price_model == "spot" else 0.0
                yield _Sold(Machine(accelerator, count, rate), offers[row], price_model, float(least[number]))


def _interruptions_per_hour(bucket: str | None) -> float:
    """λ of a Poisson process that takes a node within a month (730 h) with the bucket's probability."""
    return -math.log1p(-MONTHLY_RECLAIM.get(bucket, UNKNOWN_RECLAIM)) / 730


def _prices(values: list[float | None]) -> Column:
    return np.array([math.inf if value is None else value for value in values], dtype=np.float64)


def _numbered(keys: list[Key]) -> tuple[list[Key], Index]:
    numbers: dict[Key, int] = {}
    column = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    return list(numbers), column


def _chips(catalog: Catalog) -> dict[str, Chip]:
    """The accelerators of which something can be predicted."""
    found: dict[str, Chip] = {}
    for name, accelerator in catalog.accelerators.items():
        try:
            found[name] = Chip.from_accelerator(accelerator)
        except PerformanceError:
            continue  # identity only: no peak is sourced, and docs/catalog.md says so
    return found
