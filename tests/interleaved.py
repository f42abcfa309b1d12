# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads of one process that are preempted at random places, for tests in several files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from memtwin.machine import Machine
from memtwin.process import Process


def run_interleaved(machine: Machine, process: Process, bodies: Sequence[Callable[[], None]], rng: Random) -> None:
    """Run ``bodies`` beside each other in the address space of ``process``, which ends then: everything is consistent
    afterwards, no lock is held, nothing is left.
    """
    sched, mm = machine.kernel.sched, process.mm

    def switch(site: str) -> None:
        if rng.random() < 0.3:
            sched.preempt()

    sched.hook = switch
    threads = [sched.spawn(body, f"thread {number}", mm=mm) for number, body in enumerate(bodies)]
    for thread in threads:
        sched.run(thread)
    sched.hook = None
    machine.check()
    assert not any(vma.vm_lock is not None and vma.vm_lock.is_locked() for vma in mm.areas())
    process.exit()
    machine.kernel.check_no_leak()
