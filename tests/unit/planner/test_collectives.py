"""Collectives: the published volumes, and the order that links impose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.performance.checks import PerformanceError
from planner.performance.collectives import (
    Link,
    all_gather_s,
    all_reduce_s,
    hierarchical_all_reduce_s,
    inside_link,
    reduce_scatter_s,
    ring_all_reduce_s,
    tree_all_reduce_s,
)
from tests.unit.planner.chips import chip

WIRE = Link(100e9, 0.0, efficiency=1.0)


@pytest.mark.parametrize("devices", [1, 2, 8, 64])
def test_a_ring_moves_two_n_minus_one_over_n_of_the_data(devices):
    assert ring_all_reduce_s(1e9, devices, WIRE) == pytest.approx(2 * (devices - 1) / devices * 0.01)


def test_a_ring_is_a_reduce_scatter_and_an_all_gather():
    link = Link(100e9, 5e-6)
    assert ring_all_reduce_s(1e8, 8, link) == pytest.approx(reduce_scatter_s(1e8, 8, link) + all_gather_s(1e8, 8, link))


def test_small_messages_among_many_go_by_tree_and_large_ones_by_ring():
    link = Link(100e9, 5e-6)
    assert all_reduce_s(1e3, 256, link) == tree_all_reduce_s(1e3, 256, link)
    assert all_reduce_s(1e10, 8, link) == ring_all_reduce_s(1e10, 8, link)


def test_one_node_needs_no_network():
    inside, slow = Link(450e9, 0.0), Link(1.0, 10.0)
    assert hierarchical_all_reduce_s(1e9, 8, 1, inside, slow) == pytest.approx(ring_all_reduce_s(1e9, 8, inside))


@given(size=st.floats(0, 1e12), devices=st.integers(1, 4096), bandwidth=st.floats(1e6, 1e12), factor=st.floats(1, 100))
def test_more_bandwidth_never_takes_longer(size, devices, bandwidth, factor):
    slow, fast = Link(bandwidth, 1e-6), Link(bandwidth * factor, 1e-6)
    assert all_reduce_s(size, devices, fast) <= all_reduce_s(size, devices, slow) * (1 + 1e-9)


def test_chips_without_links_of_their_own_share_the_hosts_bus():
    shares = {name: inside_link(chip(name), 8).efficiency for name in ("H100", "L40S")}
    assert shares["L40S"] < shares["H100"] / 3


def test_faster_links_are_filled_less_and_still_carry_more():
    fast, usual = (inside_link(chip(name), 8) for name in ("B200", "H100"))
    assert fast.efficiency < usual.efficiency
    assert fast.rate > usual.rate


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_wrong_size_is_named(wrong):
    with pytest.raises(PerformanceError, match="size_bytes"):
        ring_all_reduce_s(wrong, 2, WIRE)
