# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiment ``fork-maple-gfp-kernel``: fork of a process with many areas when free memory is just above the min
watermark.

fork asks for all nodes of the child's tree in advance. Without the change that request may not reclaim; with it, it
may. Three situations: clean cache that a shrinker would give back (it stands in for the page cache until that comes),
nothing reclaimable but another process to kill, and nothing at all. Free memory is taken to the last page, so that the
outcome does not hang on what lies on per-CPU lists.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE
from memtwin.errors import ProcessKilled
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.lib.gfp_types import GFP_KERNEL, GFP_NOWAIT, MOVABLE
from memtwin.lib.maple_tree import MM_MT_FLAGS, MapleTree, MaState
from memtwin.lib.testing.slab_shim import SlabShim
from memtwin.machine import Machine
from memtwin.mm.page_alloc import PageAllocator
from memtwin.mm.vmscan import Shrinker
from memtwin.process import Process

__all__ = ["run"]

PAGE: Final = 4096
AREAS: Final = 5_000
NODE: Final = 256
SPARE: Final = 32  #: pages that are free above the min watermark
CACHE: Final = 4096  #: pages of clean cache
ANON: Final = MAP_PRIVATE | MAP_ANONYMOUS
#: Areas of a parent -> nodes that the spec says are asked for.
ASKED: Final = {23: 8, 134: 26, 1000: 164, 65530: 10_536}
SITUATIONS: Final = ("clean cache", "only another process", "nobody else to kill")


class _CleanCache:
    """Pages that can be had back at any time: what a shrinker of ours counts and frees."""

    def __init__(self, alloc: PageAllocator, pages: int) -> None:
        self._alloc = alloc
        self.pfns = [alloc.alloc_pages(GFP_KERNEL | MOVABLE) for _ in range(pages)]

    def count_objects(self, gfp: int, nid: int) -> int:
        """Pages left."""
        return len(self.pfns)

    def scan_objects(self, gfp: int, nid: int, nr_to_scan: int) -> int:
        """Free so many pages; returns how many there were."""
        count = min(nr_to_scan, len(self.pfns))
        self.drop(count)
        self._alloc.reclaim.account_reclaimed_pages(count)
        return count

    def drop(self, count: int) -> None:
        """Free the last ``count`` pages."""
        for _ in range(count):
            self._alloc.free_pages(self.pfns.pop())


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one fork came to."""

    outcome: str
    allocstall: int
    slabs_scanned: int
    reclaimed: int  #: pages of the cache
    oom_kill: int
    kswapd: int  #: whether kswapd was woken
    log: tuple[str, ...]
    parent_whole: bool


def _crowded(machine: Machine) -> Process:
    """A process with AREAS areas besides its stack."""
    process = machine.spawn("parent")
    start = process.mmap(0, AREAS * PAGE, PROT_READ, ANON)
    for page in range(0, AREAS, 2):
        process.mprotect(start + page * PAGE, PAGE, PROT_NONE)
    return process


def _take_all(alloc: PageAllocator) -> list[int]:
    """Allocate until the min watermark refuses, and free SPARE pages again; the pages that are held."""
    for zone in alloc.zones:
        alloc.zone_pcp_disable(zone)
    held: list[int] = []
    while pfn := alloc.alloc_pages(GFP_NOWAIT):
        held.append(pfn)
    for _ in range(SPARE):
        alloc.free_pages(held.pop())
    alloc.kswapd.wanted.clear()  # as if kswapd had been and gone
    return held


def _fork(change_id: str, situation: str, *, after: bool) -> _Seen:
    """fork in one situation, on a machine of its own."""
    machine = Machine(memory="64M", without=[] if after else [change_id])
    kernel, alloc = machine.kernel, machine.kernel.page_alloc
    parent = _crowded(machine)
    areas = len(parent.vmas())
    other = machine.spawn("other")
    cache = _CleanCache(alloc, CACHE if situation == "clean cache" else 0)
    alloc.reclaim.register_shrinker(Shrinker("clean cache", cache))
    if situation == "only another process":
        other.populate(other.mmap(0, CACHE * PAGE, PROT_READ | PROT_WRITE, ANON), CACHE * PAGE)
    elif situation == "nobody else to kill":
        other.exit()
    held = _take_all(alloc)
    events = alloc.events
    stall, scanned, kills, wakeups = (
        events.allocstall_normal,
        events.slabs_scanned,
        events.oom_kill,
        alloc.kswapd.wakeups,
    )
    pages = len(cache.pfns)
    outcome = "success"
    whole = True
    try:
        child = parent.fork()
        whole = len(child.vmas()) == areas
        child.exit()
    except OSError as error:
        outcome = errno.errorcode[error.errno or 0]
    except ProcessKilled:
        outcome = "killed"
    seen = _Seen(
        outcome,
        events.allocstall_normal - stall,
        events.slabs_scanned - scanned,
        pages - len(cache.pfns),
        events.oom_kill - kills,
        alloc.kswapd.wakeups - wakeups,
        tuple(line.split(" total-vm")[0] for line in kernel.log),
        whole and (outcome == "killed" or len(parent.vmas()) == areas),
    )
    machine.check()
    cache.drop(len(cache.pfns))
    for pfn in held:
        alloc.free_pages(pfn)
    parent.exit()
    other.exit()
    kernel.check_no_leak()
    machine.close()
    return seen


def _asked(areas: int) -> int:
    """Nodes that fork of a process with so many areas asks for."""
    nodes = SlabShim(NODE)
    state = MaState(MapleTree(nodes, MM_MT_FLAGS))
    asked = state.expected_entries(areas, GFP_KERNEL)
    state.destroy()
    return asked


def run(change_id: str, /) -> ExperimentResult:
    """Three situations on machines without and with the change."""
    before = {name: _fork(change_id, name, after=False) for name in SITUATIONS}
    after = {name: _fork(change_id, name, after=True) for name in SITUATIONS}
    asked = {areas: _asked(areas) for areas in (*ASKED, AREAS + 1)}
    rows = [
        *(Observation(f"nodes asked for, {areas} areas", str(nodes), str(nodes)) for areas, nodes in asked.items()),
        Observation("free pages above the min watermark", str(SPARE), str(SPARE)),
    ]
    for name in SITUATIONS:
        sides = before[name], after[name]
        rows += [
            Observation(f"{name}: fork", *(seen.outcome for seen in sides)),
            Observation(f"{name}: allocstall_normal", *(f"{seen.allocstall:+d}" for seen in sides)),
            Observation(f"{name}: slabs_scanned", *(f"{seen.slabs_scanned:+d}" for seen in sides)),
            Observation(f"{name}: pages the shrinker gave back", *(f"{seen.reclaimed}" for seen in sides)),
            Observation(f"{name}: oom_kill", *(f"{seen.oom_kill:+d}" for seen in sides)),
            Observation(f"{name}: kswapd woken", *(f"{seen.kswapd:+d}" for seen in sides)),
            Observation(f"{name}: kernel log", *("; ".join(seen.log) or "(nothing)" for seen in sides)),
        ]
    cached, crowded, alone = (after[name] for name in SITUATIONS)
    claims = [
        Claim("the estimate of nodes is the formula's", all(asked[areas] == nodes for areas, nodes in ASKED.items())),
        Claim("the nodes do not fit into what is free above the min watermark", asked[AREAS + 1] * NODE > SPARE * PAGE),
        Claim(
            "without the change fork fails with ENOMEM, silently, without reclaim or kill; only kswapd is woken",
            all(
                (seen.outcome, seen.allocstall, seen.slabs_scanned, seen.reclaimed, seen.oom_kill, seen.log)
                == ("ENOMEM", 0, 0, 0, 0, ())
                and seen.kswapd
                for seen in before.values()
            ),
        ),
        Claim(
            "with it fork reclaims from the shrinker and succeeds",
            cached.outcome == "success" and cached.allocstall > 0 < cached.reclaimed and not cached.oom_kill,
        ),
        Claim(
            "with nothing to reclaim somebody is killed, and fork succeeds if it was somebody else",
            (crowded.outcome, crowded.oom_kill, alone.outcome, alone.oom_kill) == ("success", 1, "killed", 1),
        ),
        Claim(
            "the parent keeps its areas, and a child has them all",
            all(seen.parent_whole for side in (before, after) for seen in side.values()),
        ),
    ]
    return ExperimentResult(change_id, rows, claims)
