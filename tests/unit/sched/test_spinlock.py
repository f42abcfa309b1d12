# SPDX-License-Identifier: GPL-2.0-or-later
"""Spinlocks: contention through the hook, preemption, interrupts."""

from __future__ import annotations

import pytest

from memtwin.errors import Deadlock, InvariantBroken
from memtwin.sched import Scheduler, SpinLock
from memtwin.sched.spinlock import SpinLockStatistics


@pytest.fixture
def spin(sched):
    return SpinLock(sched, "s")


def test_contention_needs_the_hook_and_is_served_in_order(sched, spin, log, preempt_at):
    def body(name):
        spin.lock()
        log.append(f"{name} in")
        hook = sched.hook
        if hook is not None:
            hook("inside")
        log.append(f"{name} out")
        spin.unlock()

    preempt_at("inside")
    for name in "abc":
        sched.spawn(lambda name=name: body(name), name)
    for _ in range(3):
        sched.step()
    assert spin.statistics() == SpinLockStatistics("s", "a(1)", 2, 2)
    sched.run_until_idle()
    assert log == ["a in", "a out", "b in", "b out", "c in", "c out"]
    assert not spin.is_locked()


def test_hub_task_spins_while_the_holder_goes_on(sched, spin, preempt_at):
    def holder():
        spin.lock()
        sched.preempt()
        spin.unlock()

    sched.spawn(holder, "holder")
    sched.step()
    p = sched.new_task("p")

    def call():
        spin.lock()
        assert p.preempt_count == 1
        spin.unlock()

    sched.run_as(p, call)
    assert spin.contended == 1 and p.preempt_count == 0


def test_spinning_on_the_only_cpu_of_the_holder_is_a_deadlock():
    """Not possible in Linux, where the holder can not be preempted; the scheduler says who blocks whom."""
    sched = Scheduler(cpus=2)
    s, t = SpinLock(sched, "s"), SpinLock(sched, "t")

    def body(first, second):
        first.lock()
        sched.preempt()
        second.lock()

    sched.spawn(lambda: body(s, t), "a")
    sched.spawn(lambda: body(t, s), "b")
    with pytest.raises(Deadlock, match=r"b\(2\) waits for spinlock s, held by a\(1\)"):
        sched.run_until_idle()
    sched.close()


def test_trylock_and_ownership(sched, spin):
    p = sched.new_task("p")
    assert spin.trylock()
    assert spin.held_by(sched.host)
    assert not sched.run_as(p, spin.trylock)
    assert p.preempt_count == 0
    with pytest.raises(InvariantBroken, match=r"spin_unlock: p\(1\) does not hold s"):
        sched.run_as(p, spin.unlock)
    spin.unlock()
    assert sched.host.preempt_count == 0


def test_lock_irq_holds_back_timers(sched, spin, log):
    sched.clock.timer_in(5, lambda: log.append("tick"))
    spin.lock_irq()
    sched.clock.advance(10)
    log.append("inside")
    spin.unlock_irq()
    assert log == ["inside", "tick"]


def test_callback_that_wants_a_lock_of_the_interrupted_task():
    sched = Scheduler()
    spin = SpinLock(sched, "s")
    sched.clock.timer_in(5, spin.lock)
    spin.lock()
    with pytest.raises(Deadlock, match="a timer callback waits for spinlock s, held by host"):
        sched.clock.advance(10)
    assert sched.idle.preempt_count == 0
