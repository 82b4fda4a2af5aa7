"""Nodes of a shared pool: as first fit, replica by replica, counts them, and never more than the services apart."""

from hypothesis import given
from hypothesis import strategies as st

from planner.packing import Demand, nodes_for, room_of
from tests.unit.planner.stacks import nodes_one_by_one

REPLICAS = st.lists(
    st.tuples(
        st.integers(1, 9),
        st.builds(Demand, st.sampled_from([1.0, 2.0]), st.sampled_from([1.0, 2.5, 7.0]), st.sampled_from([2.0, 20.0])),
    ),
    min_size=1,
    max_size=3,
)


@given(replicas=REPLICAS, accelerators=st.sampled_from([1, 4, 8]), vcpus=st.sampled_from([4, 16]))
def test_equal_nodes_counted_together_are_as_many_as_one_by_one(replicas, accelerators, vcpus):
    class Node:
        accelerator_count, memory_gib = accelerators, 64.0

    Node.vcpus = vcpus
    assert nodes_for(room_of(accelerators, vcpus, 64.0), replicas) == nodes_one_by_one(Node, replicas)
