"""All workloads of a stack at once: the choice that is best for them together, and keeps what they share.

Services that minimise cost may share the nodes of one offer, so the stack is a partition of its workloads into pools.
Each group of services has its own best pool (`planner.optimizer`), and the cheapest partition of every set of services
follows from those of smaller sets (dynamic programming over subsets). That is the optimum where no quota or budget
binds; with them it is the bound of a best-first search (A*) over partial choices, which carry what they take of every
quota and budget. A partial choice is dropped where another of the same workloads costs no more and takes no more of
anything (label setting: M. Desrochers, F. Soumis, INFOR 26(3), 1988). The first whole choice that keeps every limit is
the optimum.

Objectives: workloads that minimise time or latency come first, in sum of their times over the least that each could
have alone; the whole stack's USD by month decides among equals.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from planner.catalog import Offer
from planner.choices import Answer, Ask, Choice, Key, NothingFits, Option
from planner.optimizer import MILLION, Optimizer, Options, broken, place_of, rounded_up, shared_limits
from planner.workloads import Budget, PriceModel, Quota

SHARING_MOST = 10
"""Services whose every grouping is looked at; the number of groups doubles with each."""
NOT_EXACT = (
    f"more than {SHARING_MOST} services could share nodes, so only the {SHARING_MOST} cheapest were planned together "
    "and each other one by itself; a cheaper plan that shares more may exist"
)


@dataclass(frozen=True, slots=True)
class SharedPool:
    """Nodes of one offer, and the workloads on them."""

    offer: Offer
    price_model: PriceModel
    spot_fallback: bool
    workloads: tuple[str, ...]
    nodes: int
    """At the load that is planned for; a training job's while it runs."""
    usd_per_hour: float
    """While all of them run."""


@dataclass(frozen=True, slots=True)
class StackAnswer:
    """The best choice for all workloads of a stack together."""

    answers: Mapping[str, Answer]
    pools: tuple[SharedPool, ...]
    usd_per_month: float
    """Expected: services for 730 h, training by its runs; with egress, without the platform."""
    usd_per_hour: float
    """While all of them run."""
    egress_usd_per_month: float
    exact: bool
    """False where more services could share nodes than every grouping can be tried of."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What its reader must know of how it was found, a sentence each."""
        return () if self.exact else (NOT_EXACT,)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A partial choice: the options taken so far, latest first."""

    option: Option
    members: tuple[int, ...]
    before: _Taken | None


def search(
    optimizer: Optimizer, asks: Sequence[Ask], quotas: Sequence[Quota] = (), budget: Budget | None = None
) -> StackAnswer:
    """The best choice for all workloads together that keeps every limit.

    Raises:
        NothingFits: there is none; names the workload, or the quotas and budgets to raise, and to what.
    """
    return _Stack(Options(optimizer.predictor, asks, shared_limits(quotas, budget))).answer()


class _Stack:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._asks = options.asks
        self._limits = options.limits
        self._alone = {ask: self._alone_answer(ask) for ask in self._asks}
        for ask, answer in self._alone.items():
            if ask.objective != "cost" and answer.best.outcome is not None:
                options.scale_s[ask] = answer.best.outcome.seconds
        sharing = [number for number, ask in enumerate(self._asks) if ask.shares]
        self.exact = len(sharing) <= SHARING_MOST
        # small ones leave most of a node to others
        cheapest = sorted(sharing, key=lambda number: self._alone[self._asks[number]].best.usd)
        self._sharing = sorted(cheapest[:SHARING_MOST])
        self._apart = [number for number in range(len(self._asks)) if number not in self._sharing]

    def _alone_answer(self, ask: Ask) -> Answer:
        try:
            return self._options.search(ask)
        except NothingFits as error:
            raise NothingFits(f"workload {ask.name}: {error}", error.relaxed) from None

    def answer(self) -> StackAnswer:
        taken = self._best(lambda option: option.key, [round(limit.most * MILLION) for limit in self._limits])
        if taken is None:
            raise self._nothing_fits()
        chosen: dict[str, Choice] = {}
        for each in taken:
            for member, choice in zip(each.members, each.option.choices, strict=True):
                chosen[self._asks[member].name] = choice
        return self._told({ask.name: chosen[ask.name] for ask in self._asks}, taken)

    # the search

    def _best(self, key_of: Callable[[Option], Key], caps: Sequence[float]) -> list[_Taken] | None:
        """The best partition by a key, within caps on the shared limits; None where there is none."""
        least = {(number,): min(map(key_of, found)) for number in self._apart if (found := self._block((number,)))}
        if any((number,) not in least for number in self._apart):
            return None
        rest = [(0, 0)]
        for number in reversed(self._apart):
            rest.insert(0, _sum(rest[0], least[(number,)]))
        groups, together = self._together(key_of)
        start = _mask(self._sharing)
        if start not in together:
            return None
        order = itertools.count()
        empty = (0,) * len(self._limits)
        queue: list[tuple[Key, int, tuple[int, int], Key, tuple[int, ...], _Taken | None]] = []
        heapq.heappush(queue, (_sum(rest[0], together[start]), next(order), (0, start), (0, 0), empty, None))
        seen: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        while queue:
            _, _, (at, left), cost, use, taken = heapq.heappop(queue)
            if _no_better(use, seen.setdefault((at, left), [])):
                continue
            seen[at, left].append(use)
            if at == len(self._apart) and not left:
                return _path(taken)
            following = [(self._apart[at],)] if at < len(self._apart) else groups.get(left & -left, [])
            then = min(at + 1, len(self._apart))
            for members in following:
                remaining = left if at < len(self._apart) else left & ~_mask(members)
                if (_mask(members) & ~left and at == len(self._apart)) or remaining not in together:
                    continue
                for option, taking in self._within(members, use, caps):
                    so_far = _sum(cost, key_of(option))
                    bound = _sum(so_far, _sum(rest[then], together[remaining]))
                    step = _Taken(option, members, taken)
                    heapq.heappush(queue, (bound, next(order), (then, remaining), so_far, taking, step))
        return None

    def _within(
        self, members: tuple[int, ...], use: tuple[int, ...], caps: Sequence[float]
    ) -> Iterator[tuple[Option, tuple[int, ...]]]:
        """The options of workloads that, with what is taken already, stay within the caps."""
        for option in self._block(members):
            taking = tuple(a + b for a, b in zip(use, option.use, strict=True))
            if all(a <= b for a, b in zip(taking, caps, strict=True)):
                yield option, taking

    def _together(self, key_of: Callable[[Option], Key]) -> tuple[dict[int, list[tuple[int, ...]]], dict[int, Key]]:
        """The groups of services that may share nodes, by the bit of their first member, and for each set of services
        the least that a partition of it into groups can cost.

        Where nothing binds, only a group that is cheaper than its parts is of use.
        """
        groups: dict[int, list[tuple[int, ...]]] = {}
        keys: dict[int, Key] = {}
        least: dict[int, Key] = {0: (0, 0)}
        sizes = range(1, len(self._sharing) + 1)
        for members in (each for size in sizes for each in itertools.combinations(self._sharing, size)):
            subset, first = _mask(members), 1 << members[0]
            parts = [
                _sum(keys[mask], least[subset & ~mask])
                for mask in map(_mask, groups.get(first, ()))
                if not mask & ~subset and subset & ~mask in least
            ]
            apart = min(parts, default=None)
            below = math.inf if self._limits or apart is None else apart[1] / MILLION
            alike = len({self._asks[member].pool for member in members}) == 1
            options = self._block(members, below) if alike else []
            if options:
                keys[subset] = min(map(key_of, options))
                groups.setdefault(first, []).append(members)
                parts.append(keys[subset])
            if parts:
                least[subset] = min(parts)
        return groups, least

    def _block(self, members: tuple[int, ...], below_usd: float = math.inf) -> list[Option]:
        if members not in self._blocks:
            self._blocks[members] = self._new_block(members, below_usd)
        return self._blocks[members]

    @functools.cached_property
    def _blocks(self) -> dict[tuple[int, ...], list[Option]]:
        return {}

    def _new_block(self, members: tuple[int, ...], below_usd: float) -> list[Option]:
        """The options of workloads on one pool of which none is worse than another in everything."""
        asks = [self._asks[member] for member in members]
        kept: list[Option] = []

        def worse(option: Option) -> bool:
            return any(
                each.key <= option.key and all(a <= b for a, b in zip(each.use, option.use, strict=True))
                for each in kept
            )

        if len(members) == 1:
            found = self._options.alone(asks[0], worse)
        else:
            found = self._options.together(asks, worse, below_usd)
        for option in found:
            if not any(broken(choice, ask.limits) for ask, choice in zip(asks, option.choices, strict=True)):
                kept.append(option)
                if not any(option.use):
                    break
        return kept

    # when nothing fits

    def _nothing_fits(self) -> NothingFits:
        relaxed: dict[str, float] = {}
        for at, limit in enumerate(self._limits):
            caps = [math.inf if other == at else round(each.most * MILLION) for other, each in enumerate(self._limits)]
            taken = self._best(functools.partial(_use, at), caps)
            if taken is not None:
                relaxed[limit.name] = sum(each.option.use[at] for each in taken) / MILLION
        if relaxed:
            most = {limit.name: limit.most for limit in self._limits}
            ways = " or ".join(
                f"raise the {name} from {most[name]:g} to {rounded_up(least):.10g}" for name, least in relaxed.items()
            )
            return NothingFits(f"the workloads don't fit together: {ways}", relaxed)
        freely = self._best(lambda option: option.key, [math.inf] * len(self._limits)) or []
        for at, limit in enumerate(self._limits):
            used = sum(each.option.use[at] for each in freely) / MILLION
            if used > limit.most:
                relaxed[limit.name] = used
        ways = " and ".join(f"the {name} to {rounded_up(least):.10g}" for name, least in relaxed.items())
        return NothingFits(f"the workloads don't fit together, and no single limit is enough: raise {ways}", relaxed)

    # the answer

    def _told(self, chosen: Mapping[str, Choice], taken: Sequence[_Taken]) -> StackAnswer:
        answers = {ask.name: self._answer(ask, chosen[ask.name], taken) for ask in self._asks}
        pools = _pools(self._asks, taken)
        monthly = sum(each.option.key[1] for each in taken) / MILLION
        return StackAnswer(
            answers=answers,
            pools=pools,
            usd_per_month=monthly,
            usd_per_hour=sum(pool.usd_per_hour for pool in pools),
            egress_usd_per_month=sum(choice.egress_usd_per_month for choice in chosen.values()),
            exact=self.exact,
        )

    def _answer(self, ask: Ask, best: Choice, taken: Sequence[_Taken]) -> Answer:
        alone = self._alone[ask]
        others = [each for each in (alone.best, *alone.runners_up) if place_of(each) != place_of(best)]
        return Answer(
            best=best,
            prediction=self._options.predictor.prediction(ask, best),
            runners_up=tuple(replace(each, reason=self._why(ask, best, each, taken)) for each in others[:3]),
            rejected=alone.rejected,
            peak=self._options.predictor.peak_prediction(ask, best),
        )

    def _why(self, ask: Ask, best: Choice, other: Choice, taken: Sequence[_Taken]) -> str:
        """Why another choice for one workload lost, with the rest of the stack as it is planned."""
        own = next(each for each in taken if any(self._asks[member] is ask for member in each.members))
        beside = [self._asks[member].name for member in own.members if self._asks[member] is not ask]
        if ask.objective != "cost" and best.outcome and other.outcome and other.outcome.seconds > best.outcome.seconds:
            return f"{other.outcome.seconds / best.outcome.seconds - 1:.1%} slower"
        if other.usd_per_month >= best.usd_per_month:
            more = other.usd_per_month - best.usd_per_month
            share = f" ({more / best.usd_per_month:.0%})" if best.usd_per_month else ""
            return f"${more:,.2f} a month dearer{share}" if more >= 0.005 else "costs the same"
        if beside:
            return (
                f"cheaper alone, but the chosen nodes are shared with {', '.join(beside)}, and all of them cost less so"
            )
        option = self._options.seen[ask, place_of(other)]
        for at, limit in enumerate(self._limits):
            rest = sum(each.option.use[at] for each in taken if each is not own)
            if rest + option.use[at] > limit.most * MILLION:
                taking = (rest + option.use[at]) / MILLION
                return (
                    f"would break the {limit.name}: {taking:g} of {limit.most:g}, with the other workloads as planned"
                )
        return "cheaper for itself, but dearer for the stack as a whole"


def _pools(asks: Sequence[Ask], taken: Sequence[_Taken]) -> tuple[SharedPool, ...]:
    pools: dict[object, list[_Taken]] = {}
    for each in taken:
        pools.setdefault((each.option.row, asks[each.members[0]].pool), []).append(each)
    found: list[SharedPool] = []
    for together in pools.values():
        first = together[0].option.choices[0]
        nodes = sum(each.option.nodes for each in together)
        names = [asks[member].name for each in together for member in each.members]
        order = {ask.name: number for number, ask in enumerate(asks)}
        found.append(
            SharedPool(
                first.offer,
                first.price_model,
                first.spot_fallback,
                tuple(sorted(names, key=lambda name: order[name])),
                nodes,
                nodes * first.price_usd_per_hour,
            )
        )
    return tuple(found)


def _use(limit: int, option: Option) -> Key:
    return option.use[limit], 0


def _no_better(use: tuple[int, ...], earlier: Sequence[tuple[int, ...]]) -> bool:
    """Whether something that came before, so cost no more, takes no more of anything."""
    return any(all(a <= b for a, b in zip(each, use, strict=True)) for each in earlier)


def _path(taken: _Taken | None) -> list[_Taken]:
    found: list[_Taken] = []
    while taken is not None:
        found.append(taken)
        taken = taken.before
    return found[::-1]


def _mask(members: Sequence[int]) -> int:
    return sum(1 << member for member in members)


def _sum(one: Key, other: Key) -> Key:
    return one[0] + other[0], one[1] + other[1]
