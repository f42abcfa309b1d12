# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual clock by itself."""

from __future__ import annotations

import pytest

from memtwin.errors import BadInput
from memtwin.sched.clock import Clock


@pytest.fixture
def clock():
    return Clock()


def test_timers_fire_in_order_of_time_then_of_arming(clock):
    fired = []
    timers = [
        clock.timer_at(when, lambda name=name: fired.append(f"{name}@{clock.now}"), name)
        for name, when in (("late", 20), ("first", 10), ("second", 10))
    ]
    assert clock.jump()
    assert [timer.pending for timer in timers] == [True, False, False]
    assert fired == ["first@10", "second@10"]
    assert clock.jump()
    assert not clock.jump()
    assert fired == ["first@10", "second@10", "late@20"]


def test_advance_fires_what_came_due_at_the_end_of_the_work(clock):
    fired = []
    clock.timer_in(5, lambda: fired.append(clock.now))
    clock.advance(4)
    assert fired == [] and not clock.due()
    clock.advance(4)
    assert fired == [8]
    with pytest.raises(BadInput, match="can not go back by 1 ns"):
        clock.advance(-1)


def test_cancelled_timer_is_as_if_never_armed(clock):
    timer = clock.timer_in(5, lambda: pytest.fail("fired"), "t")
    assert timer.pending and "t at 5 ns" in repr(timer)
    assert timer.cancel()
    assert not timer.cancel()
    assert clock.next_expiry() is None
    assert not clock.jump()
    assert clock.now == 0


def test_jump_stops_at_the_limit(clock):
    fired = []
    clock.timer_at(10, lambda: fired.append(clock.now))
    assert not clock.jump(limit=9)
    assert clock.now == 9
    assert clock.jump(limit=10)
    assert not clock.jump(limit=15)
    assert (clock.now, fired) == (15, [10])


def test_a_callback_may_arm_another_for_the_same_instant(clock):
    fired = []
    clock.timer_at(3, lambda: (fired.append("a"), clock.timer_in(0, lambda: fired.append("b"))))
    clock.jump()
    assert fired == ["a", "b"]


def test_a_timer_in_the_past_is_due_at_once(clock):
    clock.advance(100)
    fired = []
    clock.timer_at(7, lambda: fired.append(clock.now))
    assert clock.due()
    clock.advance(0)
    assert fired == [100]


def test_clear_cancels_everything(clock):
    timer = clock.timer_in(5, lambda: pytest.fail("fired"))
    clock.clear()
    assert not timer.pending and not clock.jump()
