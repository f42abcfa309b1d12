# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of an area: faults beside those who change the area, switched at every lock operation by a seeded hook."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
from interleaved import run_interleaved

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from memtwin.abi.signal import SEGV_ACCERR, SEGV_MAPERR, SIGSEGV
from memtwin.arch.x86.mm.fault import do_user_addr_fault
from memtwin.experiments.fault_kinds import BASE, DISK, PAGE, DeviceFile, map_file
from memtwin.hw.paging import PF_USER, PF_WRITE
from memtwin.machine import Machine
from memtwin.mm.mmap import do_mmap, do_munmap
from memtwin.mm.mprotect import do_mprotect
from memtwin.sched import MSEC

RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


def interleaved(seed: int, steps: int = 120) -> Machine:
    """Two threads fault all over an address space that a third one maps, protects and unmaps."""
    machine = Machine("64M", cpus=3, seed=seed, lockdep=True)
    process = machine.spawn()
    sched, mm = machine.kernel.sched, process.mm
    process.mmap(BASE, 32 * PAGE, RW, ANON)
    rng = Random(seed)

    def faults() -> None:
        task = sched.current
        for _ in range(steps):
            addr = BASE + rng.randrange(34) * PAGE
            signal = do_user_addr_fault(task, addr, PF_USER | (PF_WRITE if rng.random() < 0.6 else 0))
            assert signal is None or (signal.sig, signal.addr) == (SIGSEGV, addr)
            assert signal is None or signal.code in (SEGV_ACCERR, SEGV_MAPERR)

    def changes() -> None:
        for _ in range(steps):
            start, length = BASE + rng.randrange(30) * PAGE, rng.randrange(1, 4) * PAGE
            what = rng.randrange(4)
            if what == 0:
                do_munmap(mm, start, length)
            elif what == 1:
                do_mmap(mm, start, length, RW, ANON)
            else:
                with suppress(OSError):  # over a hole
                    do_mprotect(mm, start, length, RW if what == 2 else PROT_READ)

    run_interleaved(machine, process, (faults, faults, changes), rng)
    return machine


@pytest.mark.parametrize("seed", range(8))
def test_faults_beside_changes(seed: int) -> None:
    with interleaved(seed) as machine:
        stats = machine.kernel.mm_ctx.fault_locks
        assert stats.success and stats.abort


def test_every_reason_not_to_have_the_lock_comes_up() -> None:
    seen: dict[str, int] = {}
    for seed in range(8):
        with interleaved(seed) as machine:
            for name, count in machine.kernel.mm_ctx.fault_locks.reasons.items():
                seen[name] = seen.get(name, 0) + count
    for name in ("NO_VMA", "NO_ANON_VMA", "WRITE_LOCKED", "DETACHED", "PERMISSION"):
        assert seen[name], seen


def test_the_same_seed_takes_the_same_locks() -> None:
    with interleaved(3) as first, interleaved(3) as second:
        assert first.kernel.mm_ctx.fault_locks.as_dict() == second.kernel.mm_ctx.fault_locks.as_dict()


def test_a_writer_waits_for_faults_that_have_the_area() -> None:
    """A page is being written through page_mkwrite when somebody wants to unmap the area."""
    with Machine("64M", cpus=2, lockdep=True) as machine:
        process = machine.spawn()
        sched, mm = machine.kernel.sched, process.mm
        order: list[str] = []

        class Slow(type(DISK)):
            def page_mkwrite(self, vmf) -> int:
                sched.sleep(5 * MSEC)
                order.append("page_mkwrite")
                return super().page_mkwrite(vmf)

        file = DeviceFile(Slow())
        map_file(process, file, MAP_SHARED)

        def fault() -> None:
            assert do_user_addr_fault(sched.current, BASE, PF_USER | PF_WRITE) is None
            order.append("fault")

        def unmap() -> None:
            do_munmap(mm, BASE, 32 * PAGE)
            order.append("munmap")

        first = sched.spawn(fault, "fault", mm=mm)
        sched.step()
        second = sched.spawn(unmap, "unmap", mm=mm)
        sched.run(first)
        sched.run(second)
        assert order == ["page_mkwrite", "fault", "munmap"]
        assert machine.kernel.clock.now == 5 * MSEC
        process.exit()
        machine.check()
        machine.kernel.check_no_leak()


def test_start_write_ends_with_the_writer() -> None:
    with Machine("64M") as machine:
        process = machine.spawn()
        mm, sched = process.mm, machine.kernel.sched
        process.mmap(BASE, PAGE, RW, ANON)
        vma = mm.mm_mt.load(BASE)

        def change(downgrade: bool) -> None:
            mm.mmap_lock.down_write()
            vma.start_write()
            assert vma.lock_seq == mm.mmap_lock.write_seq
            if downgrade:
                mm.mmap_lock.downgrade_write()
                assert vma.lock_seq != mm.mmap_lock.write_seq
                mm.mmap_lock.up_read()
            else:
                mm.mmap_lock.up_write()

        for downgrade in (False, True):
            sched.run_as(process.task, change, downgrade)
            assert vma.lock_seq != mm.mmap_lock.write_seq


def test_the_lock_is_made_by_the_first_fault() -> None:
    with Machine("64M") as machine:
        process = machine.spawn()
        process.mmap(BASE, 4 * PAGE, RW, ANON)
        vma = process.mm.mm_mt.load(BASE)
        assert vma.vm_lock is None and "vma_lock" not in process.read_file("/proc/slabinfo")
        process.touch(BASE, True)
        assert vma.vm_lock is None  # the first fault of 6.7 is handled under mmap_lock, for the anon_vma
        process.touch(BASE + PAGE, True)
        assert vma.vm_lock is not None and not vma.vm_lock.is_locked()
