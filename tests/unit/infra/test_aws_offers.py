"""Every offer of AWS in the catalog, bought in every way that it is sold, as the node group or NodePool that it becomes.

The rules are those of the EKS user guide ("Customize managed nodes with launch templates", "Create a managed node group
with Capacity Blocks for ML") and of the EC2 user guide (network cards), and of Karpenter's own definitions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from infra.accelerator_pool import AcceleratorPoolArgs, Taint
from infra.aws.accelerator_pool import (
    DEVICE_RESOURCES,
    bought_in_group,
    bought_in_template,
    check,
    has_efa,
    interface_layout,
    is_compact,
)
from infra.aws.instance_shapes import can_build, shape_of
from infra.aws.karpenter import EC2, node_pool
from planner.catalog import Offer, load
from planner.workloads import Bought
from tests.custom_resources import problems

ZONE = "us-east-1a"
OFFERS = {each.instance_type: each for each in load().find(cloud="aws")}
NOT_MADE = {
    "dl1.24xlarge": "Gaudi1",
    **dict.fromkeys((f"g4ad.{size}xlarge" for size in ("", 2, 4, 8, 16)), "RadeonProV520"),
    **dict.fromkeys((f"g7.{size}xlarge" for size in (2, 4, 8, 12, 24, 48)), "RTX PRO 4500"),
}
"""No image of EKS is documented for these chips, by their type; they are left out of what is planned."""
MADE = [each for each in OFFERS.values() if each.instance_type not in NOT_MADE]
IMAGES = {"nvidia": "NVIDIA", "neuron": "NEURON", "none": "STANDARD", "fpga": "STANDARD"}
CHIPS = {"H100": "nvidia", "Trainium1": "neuron", "Inferentia2": "neuron", "VU47P": "fpga"}


def buyings(offer: Offer) -> Iterator[tuple[Bought, str | None]]:
    """The ways in which AWS sells it, each with a reservation where it comes from one."""
    yield "on_demand", None
    yield "on_demand", "cr-0123456789abcdef0"
    yield "spot", None
    if shape_of(offer.instance_type).capacity_block:
        yield "capacity_block", "cr-0123456789abcdef0"


def pool(offer: Offer, price_model: Bought, reservation: str | None, **more: Any) -> AcceleratorPoolArgs:
    return AcceleratorPoolArgs(
        pool="p",
        region="us-east-1",
        zones=(ZONE,),
        instance_type=offer.instance_type,
        accelerator=offer.accelerator,
        accelerator_count=offer.accelerator_count,
        nodes_max=2,
        price_model=price_model,
        reservation_id=reservation,
        vcpus=offer.vcpus,
        device_resource="example.com/fpga" if offer.accelerator == "VU47P" else None,
        **more,
    )


def wrong(offer: Offer, args: AcceleratorPoolArgs) -> Iterator[str]:
    """What EKS or EC2 would refuse of the node group and its launch template."""
    shape, group, template = shape_of(offer.instance_type), bought_in_group(args), bought_in_template(args)
    architecture = "ARM_64" if offer.architecture == "arm64" else "x86_64"
    if group["ami_type"] != f"AL2023_{architecture}_{IMAGES[shape.accelerator_vendor]}":
        yield f"image {group['ami_type']}"
    if CHIPS.get(offer.accelerator or "", shape.accelerator_vendor) != shape.accelerator_vendor:
        yield f"{offer.accelerator} of {shape.accelerator_vendor}"
    if ("instance_types" in group) == ("instance_type" in template):
        yield "the instance type is in the node group or in the template, in one of both"
    is_block = args.price_model == "capacity_block"
    if is_block != (template.get("instance_market_options") == {"market_type": "capacity-block"}):
        yield "market of a Capacity Block"
    if is_block != (group["capacity_type"] == "CAPACITY_BLOCK"):
        yield f"capacity type {group['capacity_type']}"
    if bool(args.reservation_id) != ("capacity_reservation_specification" in template):
        yield "a reservation is named by the template"
    if is_compact(args) and not (shape.cluster_placement_group and args.reservation_id is None):
        yield "placement group"
    if has_efa(args):
        yield from _wrong_interfaces(offer)


def _wrong_interfaces(offer: Offer) -> Iterator[str]:
    shape, layout = shape_of(offer.instance_type), interface_layout(shape_of(offer.instance_type))
    cards = [card for card, _, kind in layout if kind == "efa-only"]
    if len(cards) != len(set(cards)) or len(cards) != shape.efa_interfaces_max:
        yield "one adapter a card"
    if layout[0] != (0, 0, "interface") or len({each[:2] for each in layout}) != len(layout):
        yield "one interface with an address, each in a place of its own"
    if max(card for card, _, _ in layout) >= shape.network_cards or len(layout) > shape.network_interfaces_max:
        yield f"{len(layout)} interfaces on {shape.network_cards} cards"


def test_every_offer_bought_in_every_way_is_a_node_group_that_eks_takes() -> None:
    found: dict[tuple[str, str], list[str]] = {}
    for offer in MADE:
        for price_model, reservation in buyings(offer):
            args = pool(offer, price_model, reservation)
            check(args)
            found[offer.instance_type, price_model] = list(wrong(offer, args))
    assert {key: reasons for key, reasons in found.items() if reasons} == {}


def test_every_offer_is_a_node_pool_that_karpenter_takes() -> None:
    for offer in MADE:
        for price_model, reservation in buyings(offer):
            args = pool(offer, price_model, reservation, node_autoscaler="karpenter", fast_interconnect=False)
            check(args)
            device = DEVICE_RESOURCES.get(shape_of(offer.instance_type).accelerator_vendor) or args.device_resource
            taints = (Taint(key=device, value="present"),) if device else ()
            made: Any = SimpleNamespace(args=args, device_resource=device, taints=taints, node_pool_name="p")
            spec = node_pool(made, EC2)
            assert spec["limits"]["cpu"] == f"{offer.vcpus * 2:g}", offer.instance_type
    whole = {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "p"}, "spec": spec}
    assert problems(whole) == [], "all differ in values alone"


def test_what_no_image_drives_is_left_out_by_name() -> None:
    assert {name for name in OFFERS if not can_build(name)} == NOT_MADE.keys()
    for name, chip in NOT_MADE.items():
        assert re.sub(r"\W", "", str(OFFERS[name].accelerator)) == re.sub(r"\W", "", chip)


@pytest.mark.parametrize("vendor", IMAGES)
def test_each_kind_of_image_is_one_of_the_catalogs(vendor: str) -> None:
    assert any(shape_of(each.instance_type).accelerator_vendor == vendor for each in MADE)
