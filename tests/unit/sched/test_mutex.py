# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutexes: order, hand-over, signals, misuse."""

from __future__ import annotations

import pytest

from memtwin.errors import InvariantBroken
from memtwin.sched import Mutex, Scheduler
from memtwin.sched.mutex import MutexStatistics


@pytest.fixture
def mutex(sched):
    return Mutex(sched, "m")


def hold(sched, mutex, log, name):
    mutex.lock()
    log.append(f"{name}@{sched.clock.now}")
    sched.sleep(10)
    mutex.unlock()


def test_one_at_a_time_in_order_of_arrival(sched, mutex, log):
    for name in "abc":
        sched.spawn(lambda name=name: hold(sched, mutex, log, name), name)
    sched.run_until_idle()
    assert mutex.statistics() == MutexStatistics("m", "a(1)", 2, 2)
    assert mutex.is_locked()
    sched.run(until=lambda: not sched.tasks)
    assert log == ["a@0", "b@10", "c@20"]
    assert mutex.statistics() == MutexStatistics("m", None, 0, 2)


def test_trylock_and_ownership(sched, mutex):
    p = sched.new_task("p")
    assert mutex.trylock()
    assert mutex.held_by(sched.host)
    assert not sched.run_as(p, mutex.trylock)
    with pytest.raises(InvariantBroken, match=r"mutex_unlock: p\(1\) does not hold m"):
        sched.run_as(p, mutex.unlock)
    mutex.unlock()
    assert not mutex.is_locked()


@pytest.mark.parametrize(
    ("method", "fatal", "got"),
    [("lock_killable", False, True), ("lock_killable", True, False), ("lock_interruptible", False, False)],
)
def test_signals_end_the_waits_they_may_end(sched, mutex, log, method, fatal, got):
    sched.spawn(lambda: hold(sched, mutex, log, "a"), "a")

    def body():
        answer = getattr(mutex, method)()
        if answer:
            mutex.unlock()
        return answer

    task = sched.spawn(body, "t")
    sched.run_until_idle()
    sched.signal_wake_up(task, fatal)
    sched.run(until=task)
    assert task.result is got
    assert mutex.statistics().waiters == 0


def test_uncontended_variants_take_it(sched, mutex):
    for method in (mutex.lock_killable, mutex.lock_interruptible):
        assert method()
        mutex.unlock()


def test_waiter_torn_down_after_the_hand_over_passes_it_on(log):
    sched = Scheduler()
    mutex = Mutex(sched, "m")
    sched.spawn(lambda: hold(sched, mutex, log, "a"), "a")
    sched.spawn(lambda: hold(sched, mutex, log, "b"), "b")
    sched.run_until_idle()
    sched.clock.advance(10)
    sched.step()  # a unlocks: b owns the mutex and has not run since
    assert mutex.owner.name == "b"
    sched.close()
    assert mutex.owner is None
