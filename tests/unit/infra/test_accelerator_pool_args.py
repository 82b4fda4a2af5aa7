import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infra.accelerator_pool import SYSTEM_GIB, UNPACKED_IMAGE_COPIES
from infra.aws.accelerator_pool import check, has_efa, interface_layout, is_compact
from infra.aws.builder import BUILDER
from infra.aws.instance_shapes import can_build, instance_shapes, shape_of
from infra.errors import ArgumentError
from planner.catalog import load
from tests.unit.infra.conftest import REGION, ZONES, efa_pool_args, pool_args, refusal


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nodes_min": 3}, "nodes_min 3 and nodes_max 2 are not bounds"),
        ({"nodes_max": 0}, "at least 1"),
        ({"nodes_desired": 5}, "nodes_desired 5 is outside of nodes_min 0 to nodes_max 2"),
        (
            {"price_model": "spot", "reservation_id": "cr-01234567"},
            "spot nodes can't come from the reservation cr-01234567",
        ),
        ({"price_model": "capacity_block"}, "set reservation_id to its id"),
        ({"reservation_id": "cr-01234567"}, "lies in one zone, but zones names 2"),
        ({"compact_placement": True}, "only possible within one zone"),
        ({"fast_interconnect": True}, "does not reach from zone to zone"),
        (
            {"zones": ZONES[:1], "compact_placement": True, "reservation_id": "cr-01234567"},
            "already fixes where its nodes are",
        ),
        ({"price_model": "flex_start", "nodes_min": 1}, "it can't start with 1; use nodes_min 0 and nodes_desired 0"),
        ({"price_model": "flex_start", "nodes_desired": 2}, "it can't start with 2"),
        ({"price_model": "flex_start", "reservation_id": "r", "zones": ZONES[:1]}, "no nodes from the reservation r"),
        ({"price_model": "flex_start", "max_run_hours": 0}, "max_run_hours 0; use 1 hour or more"),
        ({"queued": True}, "are of price_model flex_start, and it is on_demand"),
        ({"price_model": "spot", "max_run_hours": 2}, "are of price_model flex_start, and it is spot"),
        ({"accelerator": None}, "name both from the offer"),
        ({"accelerator_count": 0}, "name both from the offer"),
        ({"image_gib": 50}, "takes 120 with the system; use 120 or more"),
        ({"zones": ()}, "at least 1 are needed"),
    ],
)
def test_a_pool_that_no_cloud_can_build_is_refused_with_the_way_out(changes, says):
    assert says in refusal(pool_args, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"instance_type": "g5.huge"}, "did you mean g5."),
        ({"instance_type": "quantum.large"}, "is unknown on AWS"),
        (
            {"instance_type": "f2.6xlarge", "accelerator": "VU47P"},
            "has FPGAs, which no vendor's device plugin has a name",
        ),
        ({"device_resource": "xilinx.com/fpga"}, "g5.xlarge has no FPGAs, and device_resource xilinx.com/fpga"),
        ({"instance_type": "g7.2xlarge", "accelerator": "RTX PRO 4500"}, "no EKS image is documented to drive"),
        ({"instance_type": "m7i.large"}, "has no accelerator, but accelerator is A10G"),
        ({"accelerator": None, "accelerator_count": 0}, "has accelerators, but accelerator is None"),
        ({"zones": ZONES[:1], "fast_interconnect": True}, "g5.xlarge has no EFA"),
        ({"price_model": "flex_start"}, "AWS sells nothing as flex_start"),
        (
            {"zones": ZONES[:1], "price_model": "capacity_block", "reservation_id": "cr-01234567"},
            "not sold as Capacity Blocks",
        ),
        (
            {"zones": ZONES[:1], "instance_type": "t3.large", "accelerator": None, "accelerator_count": 0}
            | {"compact_placement": True},
            "t3.large can't be in a cluster placement group",
        ),
    ],
)
def test_a_pool_that_aws_can_not_build_is_refused_with_the_way_out(changes, says):
    assert says in refusal(check, pool_args(**changes))


@pytest.mark.parametrize("shape", [shape for shape in instance_shapes().values() if shape.ami_type], ids=str)
def test_every_instance_type_with_an_image_is_buildable(shape):
    accelerated = shape.accelerator_vendor != "none"
    args = pool_args(
        instance_type=shape.instance_type,
        accelerator="A10G" if accelerated else None,
        accelerator_count=int(accelerated),
        zones=ZONES[:1],
        device_resource="xilinx.com/fpga" if shape.accelerator_vendor == "fpga" else None,
    )
    check(args)
    assert has_efa(args) == (shape.efa_interfaces_max > 0)


@pytest.mark.parametrize(
    ("instance_type", "adapters"),
    {
        "p4d.24xlarge": 4,
        "p5.48xlarge": 32,
        "p5en.48xlarge": 16,
        "p6-b300.48xlarge": 16,
        "p5.4xlarge": 1,
        "trn1.32xlarge": 8,
        "trn1n.32xlarge": 16,
        "trn2.48xlarge": 16,
        "g5.8xlarge": 1,
        "g6e.48xlarge": 4,
    }.items(),
)
def test_there_is_one_adapter_a_card_and_one_interface_with_an_address(instance_type, adapters):
    layout = interface_layout(shape_of(instance_type))
    assert layout[0] == (0, 0, "interface")
    assert [kind for _, _, kind in layout[1:]] == ["efa-only"] * adapters
    assert len({(card, device) for card, device, _ in layout}) == len(layout), "no two interfaces in one place"
    assert max(card for card, _, _ in layout) < shape_of(instance_type).network_cards


def test_the_first_card_of_a_p6_b300_has_no_adapter():
    _, first, *_ = interface_layout(shape_of("p6-b300.48xlarge"))
    assert first == (1, 0, "efa-only")


def test_several_nodes_with_efa_in_one_zone_are_placed_together():
    assert has_efa(efa_pool_args()) and is_compact(efa_pool_args())


@pytest.mark.parametrize(
    ("changes", "efa", "compact"),
    [
        ({"nodes_max": 1}, False, False),
        ({"zones": ZONES}, False, False),
        ({"reservation_id": "cr-01234567"}, True, False),
        ({"compact_placement": False}, True, False),
        ({"fast_interconnect": False}, False, False),
        ({"nodes_max": 1, "fast_interconnect": True}, True, True),
    ],
)
def test_what_makes_efa_or_a_placement_group_pointless_or_impossible_leaves_it_out(changes, efa, compact):
    args = efa_pool_args(**changes)
    assert (has_efa(args), is_compact(args)) == (efa, compact)


COUNTS = st.integers(-2, 12)


@given(COUNTS, st.none() | COUNTS, COUNTS)
def test_bounds_are_taken_exactly_when_they_are_in_order(low, desired, high):
    in_order = 0 <= low <= (low if desired is None else desired) <= high and high >= 1
    try:
        args = pool_args(nodes_min=low, nodes_desired=desired, nodes_max=high)
    except ArgumentError:
        assert not in_order
    else:
        assert in_order
        assert args.nodes_min <= args.nodes_at_creation <= args.nodes_max


@given(
    st.sampled_from(["on_demand", "spot", "capacity_block"]),
    st.none() | st.just("cr-01234567"),
    st.integers(1, 2),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, True, False]),
)
def test_whatever_is_taken_keeps_spot_off_reservations_and_placement_within_a_zone(
    price_model, reservation, zones, interconnect, compact
):
    try:
        args = efa_pool_args(
            price_model=price_model,
            reservation_id=reservation,
            zones=ZONES[:zones],
            fast_interconnect=interconnect,
            compact_placement=compact,
        )
    except ArgumentError:
        assume(False)
    check(args)
    assert not (args.price_model == "spot" and args.reservation_id)
    assert not (is_compact(args) and (len(args.zones) > 1 or args.reservation_id))
    assert not (has_efa(args) and len(args.zones) > 1)


@given(st.integers(1, 500), st.integers(1, 2000))
def test_the_disk_holds_the_image_twice_beside_the_system(image_gib, disk_gib):
    fits = disk_gib >= SYSTEM_GIB + UNPACKED_IMAGE_COPIES * image_gib
    try:
        pool_args(image_gib=image_gib, disk_gib=disk_gib)
    except ArgumentError:
        assert not fits
    else:
        assert fits


def test_the_planner_may_choose_what_can_be_built_and_no_more():
    offers = load().find(cloud="aws", region=REGION)
    chosen = [offer for offer in offers if can_build(offer.instance_type)]
    assert {offer.instance_type for offer in offers if offer.accelerator is None} <= {
        offer.instance_type for offer in chosen
    }
    for offer in chosen:
        check_named(offer)
    for offer in set(offers) - set(chosen):
        with pytest.raises(ArgumentError):
            check_named(offer)


def check_named(offer):
    """What the cloud says of an offer's pool."""
    BUILDER.check_accelerator_pool(
        pool_args(
            device_resource="xilinx.com/fpga" if offer.accelerator == "VU47P" else None,
            instance_type=offer.instance_type,
            accelerator=offer.accelerator,
            accelerator_count=offer.accelerator_count,
        )
    )
