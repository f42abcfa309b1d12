# SPDX-License-Identifier: GPL-2.0-or-later
"""Topology: ranges, CPUs, distances, fallback order, and what is refused."""

import pytest

from memtwin.errors import BadInput
from memtwin.hw.numa import Topology


def test_one_node_has_everything():
    topology = Topology([4096], 3)
    assert topology.nodes[0].cpus == (0, 1, 2)
    assert topology.distance == ((10,),)
    assert topology.pfn_to_nid(4095) == 0


def test_cpus_are_dealt_in_blocks_and_memory_only_nodes_get_none():
    topology = Topology([1024, 2048, 1024], 4, memory_only=[1])
    assert [node.cpus for node in topology.nodes] == [(0, 1), (), (2, 3)]
    assert topology.cpu_node == [0, 0, 2, 2]
    assert [topology.pfn_to_nid(pfn) for pfn in (0, 1023, 1024, 3071, 3072)] == [0, 0, 1, 1, 2]


def test_fallback_is_nearest_first_ties_by_number():
    distance = [[10, 20, 15], [20, 10, 20], [15, 20, 10]]
    topology = Topology([1024] * 3, 1, distance=distance)
    assert topology.fallback == ((0, 2, 1), (1, 0, 2), (2, 0, 1))


@pytest.mark.parametrize(
    ("sizes", "cpus", "more"),
    [
        ([], 1, {}),
        ([1024, 0], 1, {}),
        ([1024], 0, {}),
        ([1024], 1, {"memory_only": [0]}),
        ([1024], 1, {"memory_only": [5]}),
        ([1000, 1024], 1, {}),
        ([1024, 1024], 1, {"distance": [[10, 20]]}),
        ([1024, 1024], 1, {"distance": [[10, 10], [20, 10]]}),
        ([1024, 1024], 1, {"distance": [[20, 20], [20, 10]]}),
        ([1024, 1024], 1, {"distance": [[10, 5], [20, 10]]}),
    ],
)
def test_impossible_topologies_are_bad_input(sizes, cpus, more):
    with pytest.raises(BadInput):
        Topology(sizes, cpus, **more)
