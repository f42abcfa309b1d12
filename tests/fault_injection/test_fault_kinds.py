# SPDX-License-Identifier: GPL-2.0-or-later
"""Every allocation of every kind of fault fails once: the fault is taken again and succeeds, nothing is left behind."""

from __future__ import annotations

import pytest

from memtwin.experiments import fault_kinds
from memtwin.experiments.fault_kinds import BASE, KINDS, PAGE, RW, Taken
from memtwin.machine import Machine
from memtwin.mm import get_user_pages as gup
from memtwin.mm.fault_inject import FaultInjection


def fault(name: str, fail: int, monkeypatch: pytest.MonkeyPatch, **machine: object) -> tuple[Taken, int, int]:
    """What the fault took with the ``fail``-th allocation in it failing, how many there were and how many failed."""
    with Machine("64M", lockdep=True, **machine) as m:
        alloc = m.kernel.page_alloc
        injection = FaultInjection(fail_nth=fail)
        take = fault_kinds.take

        def injected(process, addr: int, write: bool) -> Taken:
            alloc.fault = injection
            try:
                return take(process, addr, write)
            finally:
                alloc.fault = None

        with monkeypatch.context() as patch:
            patch.setattr(fault_kinds, "take", injected)
            process = m.spawn()
            taken = KINDS[name](process)
        assert m.kernel.mm_ctx.fault_stats.oom <= injection.failed
        m.check()
        process.exit()
        m.kernel.sched.run(m.kernel.clock.now + 10_000_000)
        m.kernel.check_no_leak()
        return taken, injection.points, injection.failed


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("without", [(), ("fault-lock-release",)])
def test_an_allocation_of_a_fault_fails(name: str, without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    _, points, _ = fault(name, 0, monkeypatch, without=without)
    assert bool(points) is not name.startswith("shared write to a read-only entry")
    for fail in range(1, points + 1):
        taken, _, failed = fault(name, fail, monkeypatch, without=without)
        assert failed == 1
        assert taken.min_flt + taken.maj_flt == 1


def test_a_pin_without_memory_is_an_errno() -> None:
    for fail in range(1, 20):
        with Machine("64M", lockdep=True) as machine:
            process = machine.spawn()
            process.mmap(BASE, 8 * PAGE, RW)
            start = process.mmap(0, 8 * PAGE, RW)
            ctx, lock = machine.kernel.mm_ctx, process.mm.mmap_lock
            injection = machine.kernel.page_alloc.fault = FaultInjection(fail_nth=fail)
            pages: list[int] = []

            def pin(mm=process.mm, lock=lock, pages=pages, start=start) -> int:
                lock.down_read()
                got = gup.pin_user_pages(mm, start, 8, gup.FOLL_WRITE, pages)
                lock.up_read()
                return got

            got = machine.kernel.sched.run_as(process.task, pin)
            machine.kernel.page_alloc.fault = None
            assert got == len(pages) or (got == -12 and not pages)
            assert (got == 8) == (not injection.failed)
            gup.unpin_user_pages(ctx, pages)
            machine.check()
            process.exit()
            machine.kernel.check_no_leak()
            if not injection.failed:
                return
    raise AssertionError("more allocations than expected")
