# SPDX-License-Identifier: GPL-2.0-or-later
"""The sequencer forces the interleavings it is told."""

from __future__ import annotations

import pytest

from memtwin.errors import Deadlock, InvariantBroken
from memtwin.sched import Mutex, SpinLock
from memtwin.sched.testing import Sequencer


class Counter:
    """The classic race: read, add, write back."""

    def __init__(self, sched):
        self.sched = sched
        self.value = 0

    def increment(self):
        seen = self.value
        hook = self.sched.hook
        if hook is not None:
            hook("increment:read")
        self.value = seen + 1


def test_the_race_does_not_happen_by_itself(sched):
    counter = Counter(sched)
    for name in "ab":
        sched.spawn(counter.increment, name)
    sched.run_until_idle()
    assert counter.value == 2


def test_named_points_force_the_lost_update(sched):
    counter = Counter(sched)
    a, b = (sched.spawn(counter.increment, name) for name in "ab")
    with Sequencer(sched) as seq:
        seq.at("increment:read", b)
        seq.at("increment:read", a)
        sched.run_until_idle()
    assert counter.value == 1
    assert sched.hook is None


def test_numbered_steps_force_an_order(sched, log):
    seq = Sequencer(sched)

    def body(name, *numbers):
        for number in numbers:
            with seq(number):
                log.append(f"{name}{number}")

    sched.spawn(lambda: body("a", 1, 2, 5), "a")
    sched.spawn(lambda: body("b", 0, 3, 4), "b")
    sched.run_until_idle()
    assert log == ["b0", "a1", "a2", "b3", "b4", "a5"]


def test_lock_operations_are_points_and_the_hub_takes_part(sched, log):
    mutex = Mutex(sched, "m")

    def call(name):
        mutex.lock()
        log.append(name)
        mutex.unlock()

    p = sched.new_task("p")
    q = sched.spawn(lambda: call("q"), "q")
    with Sequencer(sched) as seq:
        seq.at("mutex_lock:m", q)
        seq.at("mutex_unlock:m", q)
        seq.at("mutex_lock:m", p)
        sched.run_as(p, call, "p")
    assert log == ["q", "p"]


def test_waiting_inside_a_spinlock(sched, log):
    """The other task runs on its own CPU meanwhile, up to where it needs the lock."""
    spin = SpinLock(sched, "s")

    def holder():
        spin.lock()
        sched.hook("inside")
        log.append("holder")
        spin.unlock()

    def other():
        log.append("other came")
        spin.lock()
        log.append("other got it")
        spin.unlock()

    a, b = sched.spawn(holder, "a"), sched.spawn(other, "b")
    with Sequencer(sched) as seq:
        seq.at("spin_lock:s", a)
        seq.at("spin_lock:s", b)
        seq.at("inside", a)
        sched.run_until_idle()
    assert log == ["other came", "holder", "other got it"]
    assert spin.contended == 1


def test_plan_that_did_not_happen(sched):
    counter = Counter(sched)
    a = sched.spawn(counter.increment, "a")
    with pytest.raises(InvariantBroken, match=r"left: a\(1\) at nowhere"), Sequencer(sched) as seq:
        seq.at("increment:read", a)
        seq.at("nowhere", a)
        sched.run_until_idle()
    assert counter.value == 1


def test_waiting_for_a_step_that_never_comes(sched):
    counter = Counter(sched)
    a = sched.spawn(counter.increment, "a")
    p = sched.new_task("p")
    with pytest.raises(Deadlock) as caught, Sequencer(sched) as seq:
        seq.at("nowhere", p)
        seq.at("increment:read", a)
        sched.run(until=a)
    assert "a(1) waits for its turn at increment:read, after p(2) at nowhere" in str(caught.value)


def test_a_number_is_used_once(sched):
    seq = Sequencer(sched)
    with seq(0):
        pass
    with pytest.raises(InvariantBroken, match="step 0 is used twice"), seq(0):
        pass
    with pytest.raises(Deadlock, match="waits for sequence step 1, to take step 2"), seq(2):
        pass
