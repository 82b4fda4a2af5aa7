"""How prices are read from a resource's inputs: plain values only, and never a price of nothing for what is missing.

A mandatory policy that reads an unknown value would be made advisory by the engine, so such a value is an error that
says which field needs a plain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from planner.catalog import Catalog
from planner.cost import Quantity, Tariff, price_usd_per_month
from planner.workloads import PriceModel
from policies.resource import NotKnown, Props, Resource

Quantities = dict[Tariff, Quantity]
LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
LAUNCH_CONFIGURATION = "aws:ec2/launchConfiguration:LaunchConfiguration"
NODE_CLASSES = tuple(f"kubernetes:karpenter.k8s.aws/{version}:EC2NodeClass" for version in ("v1", "v1beta1"))
STATEFUL_SETS = ("kubernetes:apps/v1:StatefulSet", "kubernetes:apps/v1:StatefulSetPatch")
AUTOSCALERS = (
    *(
        f"kubernetes:autoscaling/{version}:HorizontalPodAutoscaler{patch}"
        for version in ("v1", "v2", "v2beta1", "v2beta2")
        for patch in ("", "Patch")
    ),
    "kubernetes:keda.sh/v1alpha1:ScaledObject",
)
SUBNET, DEFAULT_SUBNET = "aws:ec2/subnet:Subnet", "aws:ec2/defaultSubnet:DefaultSubnet"
VOLUME = "kubernetes:core/v1:PersistentVolume"
KEPT = frozenset(
    (LAUNCH_TEMPLATE, LAUNCH_CONFIGURATION, VOLUME, *NODE_CLASSES, *STATEFUL_SETS, *AUTOSCALERS, SUBNET, DEFAULT_SUBNET)
)
"""What decides the price of others: what their machines and disks are, and how many there may be."""


AMOUNT_MAX = 1e12
"""Of anything that is billed; more than that no cloud has."""


class UnpricedResource(ValueError):
    """The price of a resource can't be known from what is declared; says which field is missing."""


@dataclass(frozen=True, slots=True)
class Place:
    """A cloud and its region."""

    cloud: str
    region: str

    def service(self, name: str) -> Tariff:
        """A service of `services.csv` there."""
        return Tariff(self.cloud, self.region, name)

    def node(self, instance_type: str, price_model: PriceModel) -> Tariff:
        """An instance type there."""
        return Tariff(self.cloud, self.region, instance_type, price_model)


@dataclass(slots=True)
class Registered:
    """What was registered so far of a stack and decides the price of others: see `KEPT`."""

    _kept: dict[str, Resource] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)

    def take(self, resource: Resource, id: str | None = None) -> None:
        """Remember it if others are priced by it; with its id where it is deployed."""
        if resource.type in KEPT:
            self._kept[resource.key] = resource
            if id:
                self._ids[id] = resource.key

    def of_type(self, *types: str) -> list[Resource]:
        """Those of some types, in the order that they were registered."""
        return [each for each in self._kept.values() if each.type in types]

    def before(self, resource: Resource, *types: str) -> list[Resource]:
        """Those of some types that were registered before another."""
        keys = list(self._kept)
        end = keys.index(resource.key) if resource.key in self._kept else len(keys)
        return [self._kept[each] for each in keys[:end] if self._kept[each].type in types]

    def templates(self, named: Props) -> list[Props]:
        """The launch templates that may be the one that a resource names: the one of that name, else all.

        An id of a template that is not deployed tells nothing: it is an output, which guardrails never see.
        """
        name = _first(named, "name", "launchTemplateName")
        if name is not None and not name.is_unknown():
            return [each.props for each in self.of_type(LAUNCH_TEMPLATE) if each.props.part("name").value == name.value]
        id = _first(named, "id", "launchTemplateId")
        if id is not None and not id.is_unknown() and id.value in self._ids:
            return [self._kept[self._ids[id.value]].props]
        return [each.props for each in self.of_type(LAUNCH_TEMPLATE)]

    def configurations(self, named: Props) -> list[Props]:
        """The launch configurations that may be the one of a name: all where it is not known yet."""
        known = [each.props for each in self.of_type(LAUNCH_CONFIGURATION)]
        return known if named.is_unknown() else [each for each in known if each.part("name").value == named.value]

    def gives_addresses(self) -> bool:
        """Whether a subnet of the stack gives its machines public addresses: which one a machine is in is an output."""
        return any(
            plain(each.props, "mapPublicIpOnLaunch", default=each.type == DEFAULT_SUBNET) is not False
            for each in self.of_type(SUBNET, DEFAULT_SUBNET)
        )

    def is_guessed(self, named: Props) -> bool:
        """Whether several launch templates may be the one that a resource names."""
        return named.value is not None and len(self.templates(named)) > 1


def _first(props: Props, *keys: str) -> Props | None:
    """The first of the keys that is set."""
    return next((props.part(key) for key in keys if props.has(key)), None)


@dataclass(frozen=True, slots=True)
class Priced:
    """What a rule prices: a resource, where it is, the prices there, and what was registered that decides it."""

    resource: Resource
    place: Place
    catalog: Catalog
    registered: Registered

    @property
    def props(self) -> Props:
        """Its inputs."""
        return self.resource.props


Rule = Callable[[Priced], Quantities]


def plain(props: Props, *path: str, default: Any = None) -> Any:
    """The value at a path; `default` where nothing is set.

    Raises:
        UnpricedResource: it is not known before the update.
    """
    try:
        return props.get(*path, default=default)
    except NotKnown as error:
        raise _decides(str(error), "is not known before the update") from None


def needed(props: Props, *path: str) -> Any:
    """The value at a path.

    Raises:
        UnpricedResource: it is not set, or not known before the update.
    """
    value = plain(props, *path)
    if value is None:
        raise _decides(".".join(path), "is not set")
    return value


def number(props: Props, *path: str, default: float | None = None) -> float:
    """The amount at a path; without a default it must be set.

    Raises:
        UnpricedResource: it is no amount, or not known before the update.
    """
    value = needed(props, *path) if default is None else plain(props, *path, default=default)
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = math.nan
    if not 0 <= amount <= AMOUNT_MAX:
        raise UnpricedResource(
            f"{'.'.join(path)} decides its price and is {repr(value)[:40]}; expected a number of 0 or more, up to 1e12"
        )
    return amount


def values(props: Props, *path: str) -> list[Any]:
    """The plain values of a list, or the one in its place.

    Raises:
        UnpricedResource: they are not known before the update.
    """
    found = plain(props, *path, default=[])
    return found if isinstance(found, list) else [found]


def count(props: Props, *path: str) -> int | None:
    """How many elements a list has, whatever is known of them; None where it is not set.

    Raises:
        UnpricedResource: the list itself is not known before the update.
    """
    part = props.part(*path)
    if part.is_unknown():
        raise _decides(".".join(path), "is not known before the update")
    return None if part.value is None else len(part.value) if isinstance(part.value, list) else 1


def fixed(amounts: Iterable[tuple[Tariff, float]]) -> Quantities:
    """Amounts that no autoscaler moves; those of the same tariff are added, those of nothing left out."""
    found: Quantities = {}
    for tariff, amount in amounts:
        if amount:
            found[tariff] = found.get(tariff, Quantity.fixed(0)) + Quantity.fixed(amount)
    return found


def times(amounts: Quantities, nodes: Quantity) -> Quantities:
    """What as many nodes take, of which each takes the (fixed) amounts."""
    return {tariff: nodes * amount.max for tariff, amount in amounts.items()}


def added(*parts: Quantities) -> Quantities:
    """All parts together."""
    found: Quantities = {}
    for part in parts:
        for tariff, amount in part.items():
            found[tariff] = found.get(tariff, Quantity.fixed(0)) + amount
    return found


def one(service: str) -> Rule:
    """The rule of what is billed as one unit of a service."""
    return lambda priced: {priced.place.service(service): Quantity.fixed(1.0)}


def refused(reason: str) -> Rule:
    """The rule of what has no price that can be known before the update."""

    def raises(_: Priced) -> Quantities:
        raise UnpricedResource(reason)

    return raises


def dearest(catalog: Catalog, tariffs: Iterable[Tariff]) -> Tariff:
    """Of several that the cloud may choose from."""
    return max(tariffs, key=lambda tariff: price_usd_per_month(catalog, tariff))


def _decides(path: str, why: str) -> UnpricedResource:
    return UnpricedResource(f"{path} decides its price and {why}; give it a plain value")
