# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory files of /proc have the live kernel's names, order and widths.

Newer kernels have lines that 6.7 has not; those the twin leaves out. Where 6.7 has a line that the live kernel dropped
or moved, it is named here.
"""

import re
from pathlib import Path

import pytest

from memtwin.changes import resolve
from memtwin.fs.proc.meminfo import meminfo
from memtwin.fs.proc.slabinfo import slabinfo
from memtwin.fs.proc.vmstat import buddyinfo, pagetypeinfo, vmstat, zoneinfo
from memtwin.hw.numa import Topology
from memtwin.hw.ram import Ram
from memtwin.hw.work import Work
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from memtwin.mm.page import PageArrays
from memtwin.mm.page_alloc import PageAllocator
from memtwin.mm.slab import SlabAllocator, slab_order
from memtwin.mm.vmstat import NodeStat, VmEvents

pytestmark = pytest.mark.live

#: In 6.7 and not in every later kernel: dropped, or (pgdemote_*) moved to the node statistics in 6.8.
ONLY_6_7 = {"nr_bounce", "pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "nr_writeback_temp"}
#: Needs CONFIG_MEMORY_FAILURE, which the live kernel may lack.
OPTIONAL = {"HardwareCorrupted"}


def live(path):
    file = Path(path)
    try:
        return file.read_text()
    except OSError as error:
        pytest.skip(f"{path}: {error.strerror}")


@pytest.fixture(scope="module")
def machine():
    """6 GiB with something allocated; and its caches."""
    alloc = PageAllocator(
        Ram(6 << 30),
        Topology([6 << 18], 2),
        PageArrays(6 << 18),
        features=resolve("6.7"),
        work=Work(),
        events=VmEvents(),
        node_stats=[NodeStat()],
        cpu=lambda: 0,
    )
    alloc.alloc_bulk(GFP_HIGHUSER_MOVABLE, 100_000)
    slab = SlabAllocator(alloc)
    slab.kmem_cache_create("maple_node", 256).alloc_bulk(GFP_KERNEL, 1000)
    return alloc, slab


def shape(line):
    """A line as a pattern that other numbers of the same width fit: names exact, numbers right-aligned in their
    field."""
    pattern = ""
    for part in re.split(r"( *\d+)", line):
        if re.fullmatch(r" *\d+", part):
            pattern += rf"(?=[ \d]{{{len(part)},}}) *\d+"
        else:
            pattern += re.escape(part)
    return pattern


def in_order(ours, theirs):
    """Our names all exist there, in the same order."""
    missing = [name for name in ours if name not in theirs]
    assert missing == []
    places = [theirs.index(name) for name in ours]
    assert places == sorted(places)


def test_meminfo(machine):
    theirs = live("/proc/meminfo").splitlines()
    by_name = {line.split(":")[0]: line for line in theirs}
    ours = meminfo(machine[0]).splitlines()
    in_order([line.split(":")[0] for line in ours if line.split(":")[0] not in OPTIONAL], list(by_name))
    for line in ours:
        name = line.split(":")[0]
        if name in by_name:
            assert re.fullmatch(shape(by_name[name]), line), line
            assert len(line) == len(by_name[name]), line
    left_out = set(by_name) - {line.split(":")[0] for line in ours}
    assert left_out <= {"Balloon", "GPUActive", "GPUReclaim", "CmaTotal", "CmaFree", "Unaccepted", "KernelStack:Shadow"}


def test_vmstat(machine):
    theirs = [line.split()[0] for line in live("/proc/vmstat").splitlines()]
    ours = vmstat(machine[0]).splitlines()
    assert all(re.fullmatch(r"[a-z0-9_]+ \d+", line) for line in ours)
    in_order([line.split()[0] for line in ours if line.split()[0] not in ONLY_6_7], theirs)


def test_buddyinfo(machine):
    theirs = live("/proc/buddyinfo").splitlines()
    for line in buddyinfo(machine[0]).splitlines():
        same = next(other for other in theirs if other[:24] == line[:24])
        assert len(same) == len(line) and re.fullmatch(r"Node \d+, zone +\w+ (?: *\d+ ){11}", line)


def test_pagetypeinfo(machine):
    theirs = live("/proc/pagetypeinfo").splitlines()
    ours = pagetypeinfo(machine[0]).splitlines()
    assert ours[:4] == theirs[:4]
    for line in ours[4:]:
        if "zone" in line:
            label = len(re.match(r"Node +\d+, zone +\w+(, type +\w+)? ", line)[0])
            assert any(other[:label] == line[:label] and len(other) == len(line) for other in theirs), line
    assert next(line for line in ours if line.startswith("Number")) in theirs


def zone_blocks(text):
    return {block.split()[3]: block for block in re.split(r"(?m)^(?=Node )", text) if block}


def test_zoneinfo(machine):
    theirs, ours = zone_blocks(live("/proc/zoneinfo")), zone_blocks(zoneinfo(machine[0]))
    for name in ("DMA", "DMA32", "Normal"):
        if name not in theirs:
            continue
        other = theirs[name].splitlines()
        lines = ours[name].splitlines()
        labels = [re.sub(r"\d+", "", line) for line in other]
        for line in lines:
            label = re.sub(r"\d+", "", line)
            if line.split()[0] in ONLY_6_7:
                continue
            if "protection" in line:
                assert re.fullmatch(r" {8}protection: \((\d+, )+\d+\)", line)
                continue
            if name != "DMA" and "per-node" in theirs["DMA"] and label not in labels:
                assert line.split()[0] in theirs["DMA"], line  # gauges of the node stand in its first zone
                continue
            assert label in labels, line
    assert [line.split()[0] for line in ours["Movable"].splitlines()[-1:]] == ["protection:"]


def test_slabinfo(machine):
    theirs = live("/proc/slabinfo").splitlines()
    ours = slabinfo(machine[1]).splitlines()
    assert ours[:2] == theirs[:2]
    for line in ours[2:]:
        name = line.split()[0]
        same = next((other for other in theirs if other.split()[0] == name), None)
        assert same is None or (len(same) == len(line) and same.split()[3:6] == line.split()[3:6])


def test_slab_orders_of_every_live_cache():
    """As far as the number of CPUs is what SLUB went by at boot."""
    cpus = len(re.findall(r"^processor", live("/proc/cpuinfo"), re.M))
    caches = [line.split() for line in live("/proc/slabinfo").splitlines()[2:]]
    wrong = [cache[0] for cache in caches if 1 << slab_order(int(cache[3]), cpus) != int(cache[5])]
    assert len(wrong) <= len(caches) // 20, wrong
