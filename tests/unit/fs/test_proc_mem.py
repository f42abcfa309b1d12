# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory files of /proc: values of a machine in a known state."""

import re

import pytest

from memtwin.changes import resolve
from memtwin.fs.proc.meminfo import mem_available, meminfo
from memtwin.fs.proc.slabinfo import slabinfo
from memtwin.fs.proc.vmstat import buddyinfo, pagetypeinfo, vmstat, zoneinfo
from memtwin.hw.numa import Topology
from memtwin.hw.ram import Ram
from memtwin.hw.work import Work
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from memtwin.mm.page import PageArrays
from memtwin.mm.page_alloc import PageAllocator
from memtwin.mm.slab import SlabAllocator
from memtwin.mm.vmstat import NodeStat, VmEvents

GIB = 1 << 18


@pytest.fixture
def alloc():
    """Two nodes of 5 GiB and 1 GiB, two CPUs."""
    return PageAllocator(
        Ram(6 << 30),
        Topology([5 * GIB, GIB], 2),
        PageArrays(6 * GIB),
        features=resolve("6.7"),
        work=Work(),
        events=VmEvents(),
        node_stats=[NodeStat(), NodeStat()],
        cpu=lambda: 0,
    )


def numbers(text):
    return {line.split()[0].rstrip(":"): int(line.split()[1]) for line in text.splitlines()}


def test_meminfo_adds_up(alloc):
    slab = SlabAllocator(alloc)
    slab.kmem_cache_create("dentry", 192, reclaimable=True).alloc_bulk(GFP_KERNEL, 2100)
    slab.kmem_cache_create("maple_node", 256).alloc_bulk(GFP_KERNEL, 160)
    alloc.node_stats[1].nr_anon_pages = 7
    alloc.node_stats[0].nr_page_table_pages = 3
    info = numbers(meminfo(alloc, committed=11, commit_limit=13))
    assert info["MemTotal"] == alloc.managed_pages * 4 == 6 * 1024 * 1024 - alloc.reserved_pages * 4
    assert info["MemFree"] == alloc.nr_free_pages() * 4
    assert (info["SReclaimable"], info["SUnreclaim"], info["Slab"]) == (400, 40, 440)
    assert info["KReclaimable"] == 400
    assert (info["AnonPages"], info["PageTables"], info["Committed_AS"]) == (28, 12, 44)
    assert info["CommitLimit"] == 52
    assert (info["DirectMap4k"], info["DirectMap2M"], info["DirectMap1G"]) == (0, 0, 6 << 20)
    assert info["VmallocTotal"] == 34359738367


def test_available_memory(alloc):
    """Free less what the zones hold back; of the page cache and the reclaimable slabs what is above half or low."""
    held_back = sum(min(max(zone.lowmem_reserve) + zone.watermarks[2], zone.managed) for zone in alloc.zones)
    assert mem_available(alloc) == alloc.nr_free_pages() - held_back
    low = sum(zone.watermarks[1] for zone in alloc.zones)
    base = mem_available(alloc)
    alloc.node_stats[0].nr_file_pages = 100
    assert mem_available(alloc) == base + 50
    alloc.node_stats[0].nr_file_pages = 10 * low
    assert mem_available(alloc) == base + 9 * low
    alloc.node_stats[0].nr_shmem = 10 * low
    assert mem_available(alloc) == base


def test_buddyinfo_counts_every_free_page(alloc):
    alloc.alloc_pages(GFP_KERNEL)
    alloc.drain_all_pages()
    rows = [line.split() for line in buddyinfo(alloc).splitlines()]
    assert [(row[1], row[3]) for row in rows] == [("0,", "DMA"), ("0,", "DMA32"), ("0,", "Normal"), ("1,", "Normal")]
    pages = sum(int(count) << order for row in rows for order, count in enumerate(row[4:]))
    assert pages == alloc.nr_free_pages()


def test_pagetypeinfo_agrees_with_buddyinfo(alloc):
    alloc.alloc_pages(GFP_KERNEL)
    text = pagetypeinfo(alloc)
    totals = {}
    for line in text.splitlines():
        match = re.match(r"Node +(\d+), zone +(\w+), type +(\w+) (.*)", line)
        if match:
            counts = [int(count) for count in match[4].split()]
            key = match[1], match[2]
            totals[key] = [a + b for a, b in zip(totals.get(key, [0] * 11), counts, strict=True)]
    for line in buddyinfo(alloc).splitlines():
        words = line.split()
        assert totals[words[1].rstrip(","), words[3]] == [int(count) for count in words[4:]]
    assert re.search(r"Node 0, zone   Normal +2 +\d+ +0 +0 +0 $", text, re.M)


def test_zoneinfo_shows_empty_zones_and_the_node_once(alloc):
    for _ in range(5):
        alloc.alloc_pages(GFP_HIGHUSER_MOVABLE)
    text = zoneinfo(alloc)
    zones = re.findall(r"^Node (\d), zone +(\w+)$", text, re.M)
    assert zones == [(str(nid), name) for nid in (0, 1) for name in ("DMA", "DMA32", "Normal", "Movable")]
    assert text.count("per-node stats") == 2
    normal = text.split("zone   Normal")[1].split("Node ")[0]
    zone = alloc.zones[2]
    for name, value in (
        ("pages free", zone.nr_free),
        ("min", zone.watermarks[0]),
        ("managed", zone.managed),
        ("numa_hit", 5),
        ("numa_local", 5),
        ("start_pfn:", 4 * GIB),
    ):
        assert re.search(rf"{name} +{value}$", normal, re.M), name
    assert re.search(rf"cpu: 0\n +count: +{zone.pcps[0].count}\n", normal)
    movable = text.split("zone  Movable")[1].split("Node ")[0]
    assert movable.rstrip().endswith("protection: (0, 0, 0, 0)")


def test_vmstat_events(alloc):
    pages = alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 300)
    order2 = alloc.alloc_pages(GFP_KERNEL, 2)
    alloc.free_pages(order2, 2)
    alloc.free_bulk(pages[:100])
    alloc.events.pgfault = 9
    stat = numbers(vmstat(alloc))
    assert stat["pgalloc_normal"] == 304 and stat["pgalloc_dma32"] == 0
    assert stat["pgfree"] == 104
    assert (stat["numa_hit"], stat["numa_miss"], stat["numa_local"]) == (301, 0, 301)
    assert stat["nr_free_pages"] == alloc.nr_free_pages()
    assert stat["pgfault"] == 9


def test_slabinfo(alloc):
    slab = SlabAllocator(alloc)
    slab.kmem_cache_create("maple_node", 256).alloc_bulk(GFP_KERNEL, 20)
    slab.kmem_cache_create("a_name_of_twenty_chr", 1408)
    lines = slabinfo(slab).splitlines()
    assert lines[0] == "slabinfo - version: 2.1"
    assert lines[2].startswith("a_name_of_twenty_chr      0      0   1408")
    assert lines[3] == (
        "maple_node            32     32    256   16    1 : tunables    0    0    0 : slabdata      2      2      0"
    )
