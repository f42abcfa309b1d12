# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments ``rmap-exclusive-out-of-move`` and ``wp-can-reuse-anon-folio``: who decides that a write fault may reuse
an anonymous page, and who marks it exclusive. The decisions are the same; their shape is what changed.
"""

from __future__ import annotations

import ast
from importlib.resources import files
from random import Random
from typing import Final

from memtwin.abi.mman import MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.experiments.fault_kinds import BASE, PAGE, RW
from memtwin.experiments.inside import entry_index, frame_of, with_mmap_lock
from memtwin.hw.paging import PFN_MASK, PRESENT
from memtwin.hw.paging import RW as PTE_RW
from memtwin.lib.gfp_types import COMP, GFP_HIGHUSER_MOVABLE
from memtwin.machine import Machine
from memtwin.mm.get_user_pages import get_user_pages, put_user_page
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE
from memtwin.mm.set_pte import ANON_FLAGS
from memtwin.process import Process

__all__ = ["run"]

ANON: Final = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


def run(change_id: str, /) -> ExperimentResult:
    """The experiment of either change."""
    return _move(change_id) if change_id == "rmap-exclusive-out-of-move" else _reuse(change_id)


# -- rmap-exclusive-out-of-move ---------------------------------------------------------------------------------------

FOLIO_PAGES: Final = 4
MINE: Final = 2  #: the page of the folio that is still mapped


def _subpage(without: list[str]) -> dict[str, str]:
    """A write to the only mapped page of a folio of four, read-only and not known to be exclusive; a huge page that is
    mapped by entries looks so when all but one of its pages are gone.
    """
    with Machine(memory="64M", without=without) as machine:
        process = machine.spawn()
        kernel, ctx = process.kernel, process.kernel.mm_ctx
        pages = ctx.pages
        process.mmap(BASE, 8 * PAGE, RW, ANON)
        process.write(BASE, b"x")
        child = process.fork()
        vma = child.mm.mm_mt.load(BASE)
        inherited = pages.mapping[frame_of(child, BASE)]
        head = ctx.page_alloc.alloc_pages(GFP_HIGHUSER_MOVABLE | COMP, 2)
        for page in range(head, head + FOLIO_PAGES):
            pages.flags[page] |= ANON_FLAGS & ~PG_ANON_EXCLUSIVE
            pages.mapping[page] = inherited
        addr = BASE + 4 * PAGE
        index = entry_index(child, addr)
        ctx.ram.q[index] = (head + MINE) << 12 | vma.page_prot & ~PTE_RW
        pages.mapcount[head + MINE] = 1
        told: list[str] = []

        def at(site: str) -> None:
            if site == "folio_unlock":
                told.append("yes" if pages.flags[head + MINE] & PG_ANON_EXCLUSIVE else "no")

        kernel.sched.hook = at
        child.touch(addr, True)
        kernel.sched.hook = None
        bits = "".join("1" if pages.flags[head + i] & PG_ANON_EXCLUSIVE else "0" for i in range(FOLIO_PAGES))
        return {
            "the write to page 2 of a folio of 4": "reused" if frame_of(child, addr) == head + MINE else "copied",
            "exclusive bits of its pages": bits,
            "the folio belongs to the writer's own anon_vma": "yes" if pages.mapping[head] == vma.anon_vma.id else "no",
            "exclusive when the folio is unlocked": " ".join(told),
        }


def _move(change_id: str) -> ExperimentResult:
    before, after = _subpage([change_id]), _subpage([])
    inline = _subpage([change_id, "wp-can-reuse-anon-folio"]), _subpage(["wp-can-reuse-anon-folio"])
    name = "exclusive when the folio is unlocked"
    claims = [
        Claim(
            "only the page that is mapped becomes exclusive, and the folio moves, without and with the change",
            all(list(side.values())[:3] == ["reused", "0010", "yes"] for side in (before, after, *inline)),
        ),
        Claim("the move marked it, under the folio's lock", before[name] == inline[0][name] == "yes"),
        Claim("now the write fault does, when the folio is unlocked", after[name] == inline[1][name] == "no"),
    ]
    rows = [Observation(key, before[key], after[key]) for key in after]
    return ExperimentResult(change_id, rows, claims)


# -- wp-can-reuse-anon-folio ------------------------------------------------------------------------------------------


def _cases(without: list[str]) -> dict[str, str]:
    """The cases of the specification; all of it observed on 6.18 with a pipe instead of a reference."""
    seen: dict[str, str] = {}
    with Machine(memory="64M", without=without) as machine:
        ctx = machine.kernel.mm_ctx

        def fresh() -> Process:
            process = machine.spawn()
            process.mmap(BASE, PAGE, RW, ANON)
            process.write(BASE, b"o")
            return process

        def write(process: Process) -> str:
            frame = frame_of(process, BASE)
            process.write(BASE, b"n")
            machine.check()
            return "reused" if frame_of(process, BASE) == frame else "copied"

        def hold(process: Process) -> int:
            pages: list[int] = []
            with_mmap_lock(process, lambda: get_user_pages(process.mm, BASE, 1, 0, pages))
            return pages[0]

        def release(frame: int) -> str:
            byte = bytes(ctx.ram.mem[frame << 12 : (frame << 12) + 1])
            put_user_page(ctx, frame)
            return {b"o": "the old byte", b"n": "the new byte"}[byte]

        parent = fresh()
        child = parent.fork()
        seen["after fork: the parent writes first"] = write(parent)
        seen["after fork: then the child"] = write(child)
        parent.exit()
        child.exit()
        parent = fresh()
        parent.fork().exit()
        seen["after fork and the child's exit"] = write(parent)
        parent.exit()
        parent = fresh()
        child = parent.fork()
        held = hold(parent)
        child.exit()
        seen["the same, the kernel holds the page"] = f"{write(parent)}, it sees {release(held)}"
        parent.exit()
        process = fresh()
        held = hold(process)
        process.mprotect(BASE, PAGE, PROT_READ)
        process.mprotect(BASE, PAGE, RW)
        name = "exclusive, the kernel holds the page, mprotect r-- and rw-"
        seen[name] = f"{write(process)}, it sees {release(held)}"
        process.exit()
        process = fresh()
        held = hold(process)
        index = entry_index(process, BASE)
        ctx.ram.q[index] &= ~PTE_RW  # as userfaultfd's write protection leaves it
        seen["exclusive, the kernel holds the page, entry read-only"] = f"{write(process)}, it sees {release(held)}"
        process.exit()
        machine.kernel.check_no_leak()
    return seen


_EXPECTED: Final = [
    "copied",
    "reused",
    "reused",
    "copied, it sees the old byte",
    "reused, it sees the new byte",
    "reused, it sees the new byte",
]


def _random(without: list[str], steps: int) -> str:
    """A family of processes writes, forks, drops and ends at random: every page's frame and bits at the end."""
    rng = Random(7)
    trace: list[str] = []
    with Machine(memory="64M", without=without) as machine:
        flags = machine.kernel.pages.flags
        family = [machine.spawn()]
        family[0].mmap(BASE, 16 * PAGE, RW, ANON)
        for _ in range(steps):
            process = rng.choice(family)
            what = rng.randrange(10)
            addr = BASE + rng.randrange(16) * PAGE
            if what < 6:
                process.touch(addr, True)
            elif what < 7:
                process.madvise(addr, PAGE, MADV_DONTNEED)
            elif what < 9 and len(family) < 5:
                family.append(process.fork())
            elif len(family) > 1:
                family.remove(process)
                process.exit()
            machine.check()
        for process in family:
            for addr in range(BASE, BASE + 16 * PAGE, PAGE):
                entry = machine.kernel.ram.q[entry_index(process, addr)] if process.mm.pte_tables else 0
                pfn = (entry & PFN_MASK) >> 12
                known = flags[pfn] & (PG_ANON | PG_ANON_EXCLUSIVE) if entry & PRESENT else 0
                trace.append(f"{entry:x}.{known:x}")
            process.exit()
        machine.kernel.check_no_leak()
    return " ".join(trace)


def _functions(module: str) -> list[str]:
    tree = ast.parse(files("memtwin.mm").joinpath(f"{module}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def _reuse(change_id: str) -> ExperimentResult:
    before, after = _cases([change_id]), _cases([])
    claims = [
        Claim("each write is answered as on 6.18", list(after.values()) == _EXPECTED),
        Claim("and as before", before == after),
        Claim("so are 400 random steps of a family of processes", _random([change_id], 400) == _random([], 400)),
        Claim(
            "the question is a function of its own, where the fault used to ask it inline",
            "wp_can_reuse_anon_folio" in _functions("wp") and _functions("before/wp") == ["may_reuse_inline"],
        ),
    ]
    return ExperimentResult(change_id, [Observation(key, before[key], after[key]) for key in after], claims)
