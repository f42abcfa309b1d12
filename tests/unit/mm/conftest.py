# SPDX-License-Identifier: GPL-2.0-or-later
"""A page allocator without a machine around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from memtwin.changes import resolve
from memtwin.hw.numa import Topology
from memtwin.hw.ram import Ram
from memtwin.hw.work import Work
from memtwin.mm.page import PageArrays
from memtwin.mm.page_alloc import PageAllocator
from memtwin.mm.vmstat import NodeStat, VmEvents

MIB = 256  #: pages


@pytest.fixture
def make_alloc() -> Callable[..., PageAllocator]:
    """``make_alloc(pages or list of pages per node, cpus=..., cpu=..., without=[...], memory_only=..., thp=...)`` and
    so on."""

    def make(
        sizes: int | Sequence[int] = 64 * MIB, *, cpus=1, cpu=None, without=(), memory_only=(), thp=True, trace=None
    ):
        sizes = [sizes] if isinstance(sizes, int) else list(sizes)
        return PageAllocator(
            Ram(sum(sizes) << 12),
            Topology(sizes, cpus, memory_only=memory_only),
            PageArrays(sum(sizes)),
            features=resolve("6.7", without=without),
            work=Work(),
            events=VmEvents(),
            node_stats=[NodeStat() for _ in sizes],
            cpu=cpu,
            thp=thp,
            trace=trace,
        )

    return make
