# SPDX-License-Identifier: GPL-2.0-or-later
"""NUMA topology: nodes with memory ranges, CPUs and distances; a node may have memory but no CPU (a CXL expander).

Distances follow ACPI's SLIT: 10 is local, 20 the usual remote. Node ranges are contiguous and ascending, without holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memtwin.errors import BadInput

__all__ = ["Node", "Topology"]

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
#: Nodes begin at a multiple of the largest buddy block (order 10), as firmware lays them out.
NODE_ALIGN_PAGES = 1024


@dataclass(frozen=True, slots=True)
class Node:
    """One node: frames [``start_pfn``, ``end_pfn``), the CPUs it holds (none for a memory-only node)."""

    nid: int
    start_pfn: int
    end_pfn: int
    cpus: tuple[int, ...]


class Topology:
    """All nodes of a machine and the distances between them.

    ``nodes``: ascending by pfn; ``distance[a][b]``; ``cpu_node[cpu]``; ``fallback[nid]``: all nodes, nearest first (a
    tie goes to the lower number), which is the order in which the page allocator tries them.
    """

    __slots__ = ("cpu_node", "distance", "fallback", "nodes", "nr_cpus")

    def __init__(
        self,
        sizes: Sequence[int],
        cpus: int,
        *,
        memory_only: Sequence[int] = (),
        distance: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """``sizes``: pages of each node; ``cpus``: number of CPUs, dealt in blocks to the nodes not in ``memory_only``.

        Raises BadInput for an impossible topology.
        """
        count = len(sizes)
        if not count or any(size <= 0 for size in sizes):
            raise BadInput("every NUMA node needs memory")
        with_cpus = [nid for nid in range(count) if nid not in memory_only]
        if any(nid < 0 or nid >= count for nid in memory_only):
            raise BadInput(f"memory-only nodes {list(memory_only)} do not all exist (there are {count} nodes)")
        if not with_cpus:
            raise BadInput("at least one NUMA node needs a CPU")
        if cpus < 1:
            raise BadInput(f"{cpus} CPUs: at least one is needed")
        if count > 1 and any(size % NODE_ALIGN_PAGES for size in sizes[:-1]):
            raise BadInput("the size of every NUMA node but the last must be a multiple of 4 MiB")
        self.nr_cpus = cpus
        self.cpu_node = [with_cpus[cpu * len(with_cpus) // cpus] for cpu in range(cpus)]
        start = 0
        nodes: list[Node] = []
        for nid, size in enumerate(sizes):
            mine = tuple(cpu for cpu in range(cpus) if self.cpu_node[cpu] == nid)
            nodes.append(Node(nid, start, start + size, mine))
            start += size
        self.nodes = tuple(nodes)
        self.distance = _distances(count, distance)
        self.fallback = tuple(
            tuple(sorted(range(count), key=lambda other: (self.distance[nid][other], other))) for nid in range(count)
        )

    def pfn_to_nid(self, pfn: int) -> int:
        """The node of frame ``pfn``."""
        for node in self.nodes:
            if pfn < node.end_pfn:
                return node.nid
        raise IndexError(pfn)


def _distances(count: int, given: Sequence[Sequence[int]] | None) -> tuple[tuple[int, ...], ...]:
    if given is None:
        return tuple(tuple(LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in range(count)) for a in range(count))
    if len(given) != count or any(len(row) != count for row in given):
        raise BadInput(f"the distance table must have {count} rows of {count} numbers")
    for a in range(count):
        for b in range(count):
            if (given[a][b] < LOCAL_DISTANCE) or (a == b) != (given[a][b] == LOCAL_DISTANCE):
                raise BadInput(f"distance {given[a][b]} from node {a} to node {b}: 10 means local, more means remote")
    return tuple(tuple(row) for row in given)
