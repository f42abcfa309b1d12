# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments of the series "Handle more faults under the VMA lock": which lock a fault takes, and why.

Each prints the table of the fifteen kinds of fault (``fault_kinds.py``): the result of the attempt under the area's
lock (S success, R retry, A abort), how often ``mmap_lock`` was taken for reading, and every reason; then what its own
change is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED
from memtwin.errors import InvariantBroken
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.experiments.fault_kinds import (
    BASE,
    DISK,
    KINDS,
    PAGE,
    RW,
    DeviceFile,
    Setup,
    Taken,
    all_kinds,
    file_fault,
    map_file,
    take,
)
from memtwin.machine import Machine
from memtwin.mm.memory import handle_mm_fault
from memtwin.mm.mmap_lock import lock_vma_under_rcu
from memtwin.mm.vm_fault import FAULT_FLAG_KILLABLE, FAULT_FLAG_USER, FAULT_FLAG_VMA_LOCK, VM_FAULT_RETRY
from memtwin.sched import MSEC

__all__ = ["run"]

#: The specification's table: attempt and times of ``mmap_lock``, with none of the six and with all.
TABLE: Final = dict(
    zip(
        KINDS,
        (
            ("A, 1", "A, 1"),
            ("S, 0", "S, 0"),
            ("R, 2", "R, 1"),
            ("S, 0", "S, 0"),
            ("R, 2", "R, 1"),
            ("R, 2", "R, 2"),
            ("R, 2", "R, 1"),
            ("R, 1", "S, 0"),
            ("R, 1", "R, 1"),
            ("S, 0", "S, 0"),
            ("R, 2", "R, 1"),
            ("R, 1", "S, 0"),
            ("R, 1", "S, 0"),
            ("S, 0", "S, 0"),
            ("R, 1", "R, 1"),
        ),
        strict=True,
    )
)

#: Which rows are another change's, by how the row begins.
ROWS: Final = {
    "vma-lock-read-faults": ("read, cold", "read, warm, page carries"),
    "vma-lock-cow-faults": ("private write, cold, anon_vma set", "private write, warm, anon_vma set"),
    "vma-lock-shared-faults": ("shared write, cold", "shared write, warm"),
    "vma-lock-ro-write-faults": ("shared write to a read-only entry, page_mkwrite",),
    "vmf-anon-prepare": ("private write, cold, anon_vma set", "private write, warm, anon_vma set"),
}


def run(change_id: str, /) -> ExperimentResult:
    """The experiment of one of the six. What needs the change is off without it too."""
    before, after = all_kinds(without=[change_id]), all_kinds()
    rows = [Observation(name, str(before[name]), str(after[name])) for name in KINDS]
    claims = [
        Claim(
            "with the whole series every kind of fault takes the locks that the table says",
            all(_short(after[name]) == TABLE[name][1] for name in KINDS),
        ),
        Claim(_without_text(change_id), _as_without(change_id, before)),
    ]
    more_rows, more_claims = _MORE[change_id](change_id)
    return ExperimentResult(change_id, rows + more_rows, claims + more_claims)


def _short(taken: Taken) -> str:
    return f"{taken.attempt}, {taken.times}"


def _without_text(change_id: str) -> str:
    if change_id == "fault-lock-release":
        return "without it, and so without the five that need it, every kind takes the locks of the other column"
    return "without it, only the kinds of fault it is about give the area's lock up unconditionally"


def _as_without(change_id: str, before: dict[str, Taken]) -> bool:
    mine = ROWS.get(change_id)
    return all(_short(before[name]) == TABLE[name][0 if mine is None or name.startswith(mine) else 1] for name in KINDS)


More = tuple[list[Observation], list[Claim]]


# -- fault-lock-release -----------------------------------------------------------------------------------------------


def _killed(*, after: bool) -> dict[str, str]:
    """A fault under the area's lock that must not ask again waits for a folio that another CPU has locked, and the task
    is killed meanwhile: what is held afterwards. Before, the branch is reached only with this one change missing and
    another of the series there, which needs it.
    """
    with Machine(memory="64M") as machine:
        process = machine.spawn()
        ctx, sched, task, mm = process.kernel.mm_ctx, process.kernel.sched, process.task, process.mm
        ctx.fault_lock_release = after
        file = DeviceFile(DISK)
        map_file(process, file, MAP_SHARED)
        folio = file.mapping.get_folio(ctx, 0)
        ctx.folio_locks.start_io(folio)
        seen: dict[str, str] = {}

        def kill() -> None:
            sched.signal_wake_up(task, fatal=True)

        sched.clock.timer_in(MSEC, kill, "SIGKILL")

        def fault() -> None:
            vma = lock_vma_under_rcu(mm, BASE)
            assert vma is not None and vma.vm_lock is not None
            flags = FAULT_FLAG_VMA_LOCK | FAULT_FLAG_USER | FAULT_FLAG_KILLABLE
            try:
                result = handle_mm_fault(mm, vma, BASE, flags)
                seen["mmap_lock"] = "untouched"
                seen["answer"] = "VM_FAULT_RETRY" if result == VM_FAULT_RETRY else hex(result)
            except InvariantBroken:
                seen["mmap_lock"] = "unlocked without being held"
                seen["answer"] = "none"
            seen["lock of the area"] = "left held" if vma.vm_lock.held_by(task) else "released once"

        sched.run_as(task, fault)
        return seen


def _fault_lock_release(change_id: str) -> More:
    before, after = _killed(after=False), _killed(after=True)
    rows = [Observation(f"killed while waiting for a folio, {name}", before[name], after[name]) for name in after]
    claims = [
        Claim(
            "a wait under the area's lock that ends by SIGKILL releases exactly that lock",
            after == {"mmap_lock": "untouched", "answer": "VM_FAULT_RETRY", "lock of the area": "released once"},
        ),
        Claim(
            "before, it unlocked mmap_lock, which it did not hold, and left the area's lock held",
            before["mmap_lock"] == "unlocked without being held" and before["lock of the area"] == "left held",
        ),
    ]
    return rows, claims


# -- vmf-anon-prepare -------------------------------------------------------------------------------------------------


def _delays(without: list[str]) -> dict[str, str]:
    """How often a copy delayed the task: for the first copy of an area, and for the second."""
    with Machine(memory="64M", without=without) as machine:
        process = machine.spawn()
        file = DeviceFile(DISK)
        map_file(process, file, MAP_PRIVATE)
        counts = []
        for page in (0, 1):
            process.touch(BASE + page * PAGE, False)
            start = process.task.wpcopy_count
            process.touch(BASE + page * PAGE, True)
            counts.append(process.task.wpcopy_count - start)
        return {"wpcopy_count of the first copy": str(counts[0]), "wpcopy_count of the next": str(counts[1])}


def _anon_prepare(change_id: str) -> More:
    before, after = _delays([change_id]), _delays([])
    rows = [Observation(name, before[name], after[name]) for name in after]
    claims = [
        Claim("the aborted attempt of the first copy is counted as a delay too", list(after.values()) == ["2", "1"]),
        Claim("before, the attempt ended before the copy routine", list(before.values()) == ["1", "1"]),
    ]
    return rows, claims


# -- the four that save mmap_lock -------------------------------------------------------------------------------------


def _waited(fault: Setup, without: list[str], *, same: bool) -> str:
    """How long a fault waits for a writer that has ``mmap_lock`` for 10 ms and changes this area, or another."""
    with Machine(memory="64M", cpus=2, without=without) as machine:
        process = machine.spawn()
        sched, mm = process.kernel.sched, process.mm
        addr, write = fault(process)
        other = process.mmap(0, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS)

        def change() -> None:
            mm.mmap_lock.down_write()
            mm.mm_mt.load(BASE if same else other).start_write()
            sched.sleep(10 * MSEC)
            mm.mmap_lock.up_write()

        writer = sched.spawn(change, "writer")
        sched.step()
        ns = take(process, addr, write).ns
        sched.run(writer)
        process.exit()
        return f"{ns / MSEC:g} ms"


_FAULTS: Final = {
    "vma-lock-read-faults": ("cold read", file_fault(DISK, MAP_SHARED, write=False, cold=True)),
    "vma-lock-cow-faults": ("private write", file_fault(DISK, MAP_PRIVATE, write=True, anon_vma=True)),
    "vma-lock-shared-faults": ("shared write", file_fault(DISK, MAP_SHARED, write=True)),
    "vma-lock-ro-write-faults": ("write to a read-only entry", file_fault(DISK, MAP_SHARED, write=True, mapped=True)),
}


def _concurrent(change_id: str) -> More:
    name, fault = _FAULTS[change_id]
    elsewhere = _waited(fault, [change_id], same=False), _waited(fault, [], same=False)
    here = _waited(fault, [change_id], same=True), _waited(fault, [], same=True)
    rows = [
        Observation(f"{name} while another area is changed for 10 ms: waits", *elsewhere),
        Observation(f"{name} while this area is changed for 10 ms: waits", *here),
    ]
    cold = change_id == "vma-lock-read-faults"
    # A cold read ends under mmap_lock in any case, but its I/O needs not wait for it.
    claims = [
        Claim(
            f"a writer in another area does not hold {'the I/O' if cold else 'it'} up any more",
            elsewhere == (("10.1 ms", "10 ms") if cold else ("10 ms", "0 ms")),
        ),
        Claim("a writer of this area does, as before", here == (("10.1 ms",) * 2 if cold else ("10 ms",) * 2)),
    ]
    return rows, claims


def _read_faults(change_id: str) -> More:
    rows, claims = _concurrent(change_id)
    seen = []
    for machine in ({"without": [change_id]}, {}, {"with_": ["post-majflt-tried"]}):
        with Machine(memory="64M", **machine) as m:  # type: ignore[arg-type]
            process = m.spawn()
            map_file(process, DeviceFile(DISK, cold=True), MAP_SHARED)
            taken = take(process, BASE + 8 * PAGE, False)
            seen.append(f"+{taken.pgmajfault} / +{taken.maj_flt} / +{taken.min_flt}")
    what = "one cold read: pgmajfault / ru_majflt / ru_minflt"
    rows += [Observation(what, seen[0], seen[1]), Observation(f"{what}, with post-majflt-tried", "", seen[2])]
    claims += [
        Claim("side effect: the task is charged a minor fault for a page that was read", seen[1] == "+1 / +0 / +1"),
        Claim("before it was a major one, with post-majflt-tried it is again", seen[0] == seen[2] == "+1 / +1 / +0"),
    ]
    return rows, claims


_MORE: Final[dict[str, Callable[[str], More]]] = {
    "fault-lock-release": _fault_lock_release,
    "vmf-anon-prepare": _anon_prepare,
    "vma-lock-shared-faults": _concurrent,
    "vma-lock-cow-faults": _concurrent,
    "vma-lock-read-faults": _read_faults,
    "vma-lock-ro-write-faults": _concurrent,
}
