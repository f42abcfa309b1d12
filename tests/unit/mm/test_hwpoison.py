# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory errors of free and kernel pages: the specification's numbers, the undo, and that a bad page never comes
back."""

import numpy as np
import pytest

from memtwin.errors import NotModelled
from memtwin.fs.proc.meminfo import meminfo
from memtwin.lib import gfp_types as g
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from memtwin.mm.memory_failure import EHWPOISON, MemoryFailure
from memtwin.mm.page import PG_ANON, PG_HWPOISON, PG_TAKENOFF

PFN = 0x4B155  # the one of ``live 6.7.3`` in the specification: +0x155 in its order-10 block


@pytest.fixture(params=[(), ("buddy-break-down-cleanup",)], ids=["after", "before"])
def machine(request, make_alloc):
    alloc = make_alloc(2 << 18, without=request.param)
    log = []
    return alloc, MemoryFailure(alloc, log.append), log, 20 if request.param else 10


def corrupted(alloc):
    return next(line for line in meminfo(alloc).splitlines() if line.startswith("HardwareCorrupted"))


def test_the_numbers_of_the_specification(machine):
    alloc, failure, log, comparisons = machine
    zone = alloc.zone_of(PFN)
    before, free = zone.counts(), alloc.nr_free_pages()
    assert failure.memory_failure(PFN) == 0
    assert [after - count for after, count in zip(zone.counts(), before, strict=True)] == [1] * 10 + [-1]
    assert alloc.nr_free_pages() == free - 1
    assert corrupted(alloc) == "HardwareCorrupted:     4 kB"
    assert log == ["Memory failure: 0x4b155: recovery action for free buddy page: Recovered"]
    assert alloc.work.buddy_comparisons == comparisons
    assert alloc.pages.flags[PFN] == PG_HWPOISON | PG_TAKENOFF
    alloc.check()

    assert failure.memory_failure(PFN) == -EHWPOISON == -133
    assert log[1:] == ["Memory failure: 0x4b155: already hardware poisoned"]

    assert failure.unpoison_memory(PFN) == 0
    assert zone.counts() == before and alloc.nr_free_pages() == free
    assert alloc.pages.flags[PFN] == alloc.pages.refcount[PFN] == 0
    assert corrupted(alloc) == "HardwareCorrupted:     0 kB"
    assert log[2:] == ["Unpoison: Software-unpoisoned page 0x4b155"]
    alloc.check()


def test_unpoisoning_what_is_not_poisoned(machine):
    _, failure, log, _ = machine
    assert failure.unpoison_memory(PFN) == -16
    assert log == ["Unpoison: Page was already unpoisoned 0x4b155"]


@pytest.mark.parametrize("pfn", [-1, 1 << 40])
def test_outside_of_memory(machine, pfn):
    _, failure, log, _ = machine
    assert failure.memory_failure(pfn) == failure.soft_offline_page(pfn) == failure.unpoison_memory(pfn) == -6
    assert "memory outside kernel control" in log[0]


def test_a_page_on_a_per_cpu_list_is_drained_first(machine):
    alloc, failure, _, _ = machine
    pages = [alloc.alloc_pages(GFP_KERNEL) for _ in range(30)]
    for pfn in pages:
        alloc.free_pages(pfn)
    assert not alloc.is_free_buddy_page(pages[3])
    assert failure.memory_failure(pages[3]) == 0
    assert alloc.nr_pcp_pages() == 0
    alloc.check()


def test_a_poisoned_page_is_never_handed_out(machine):
    alloc, failure, _, _ = machine
    bad = [700, 5000, 5001, PFN]
    assert [failure.memory_failure(pfn) for pfn in bad] == [0] * 4
    got = alloc.alloc_bulk(GFP_KERNEL | g.MEMALLOC, 1 << 20)
    assert len(got) == alloc.managed_pages - 4
    assert not np.isin(bad, got).any()
    alloc.check()


def test_a_kernel_page_stays_in_use_and_does_not_come_back(machine):
    alloc, failure, log, _ = machine
    pfn = alloc.alloc_pages(GFP_KERNEL)
    assert failure.memory_failure(pfn) == -16
    assert log == [f"Memory failure: {pfn:#x}: recovery action for unknown page: Ignored"]
    alloc.check()
    alloc.free_pages(pfn)
    alloc.drain_all_pages()
    assert alloc.nr_free_pages() == alloc.managed_pages - 1
    alloc.check()
    assert failure.unpoison_memory(pfn) == 0
    assert alloc.nr_free_pages() == alloc.managed_pages
    alloc.check()


def test_a_bad_page_in_a_larger_block_or_in_bulk(machine):
    alloc, failure, _, _ = machine
    folio = alloc.alloc_pages(GFP_KERNEL | g.COMP, 6)
    many = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 500)
    bad = [folio + 5, folio + 63, int(many[250])]
    for pfn in bad:
        assert failure.memory_failure(pfn) == -16
    alloc.free_pages(folio, 6)
    alloc.free_bulk(many)
    alloc.drain_all_pages()
    alloc.check()
    assert alloc.nr_free_pages() == alloc.managed_pages - 3
    for pfn in bad:
        assert failure.unpoison_memory(pfn) == 0
    alloc.check()
    assert alloc.nr_free_pages() == alloc.managed_pages


def test_reserved_pages_can_not_be_recovered(machine):
    alloc, failure, _, _ = machine
    assert failure.memory_failure(5) == -16
    assert failure.unpoison_memory(5) == 0
    alloc.check()


def test_pages_of_user_space_are_not_modelled_and_not_touched(machine):
    alloc, failure, _, _ = machine
    pfn = alloc.alloc_pages(GFP_HIGHUSER_MOVABLE)
    alloc.pages.flags[pfn] = PG_ANON
    with pytest.raises(NotModelled, match="user space"):
        failure.memory_failure(pfn)
    assert alloc.pages.flags[pfn] == PG_ANON and alloc.hw_poisoned == 0


def test_soft_offline_of_a_range(machine):
    alloc, failure, _, _ = machine
    used = alloc.alloc_pages(GFP_KERNEL)
    first = used - 20
    assert failure.soft_offline_range(first, 100) == 99
    assert failure.soft_offline_range(first, 100) == 0
    assert failure.soft_offline_page(first) == 0
    assert alloc.nr_free_pages() + alloc.nr_pcp_pages() == alloc.managed_pages - 100
    alloc.check()
    for pfn in range(first, first + 100):
        if pfn != used:
            assert failure.unpoison_memory(pfn) == 0
    alloc.free_pages(used)
    alloc.drain_all_pages()
    assert alloc.nr_free_pages() == alloc.managed_pages
    alloc.check()
