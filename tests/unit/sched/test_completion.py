# SPDX-License-Identifier: GPL-2.0-or-later
"""Completions."""

from __future__ import annotations

import pytest

from memtwin.sched import INTERRUPTIBLE, MSEC, Completion, WaitResult


@pytest.fixture
def done(sched):
    return Completion(sched, "done")


def start(sched, done, log, names):
    return [sched.spawn(lambda name=name: (done.wait(), log.append(name)), name) for name in names]


def test_each_complete_lets_one_through_in_order(sched, done, log):
    start(sched, done, log, "abc")
    sched.run_until_idle()
    assert log == [] and done.statistics().waiters == 3
    for expected in ("a", "ab", "abc"):
        done.complete()
        sched.run_until_idle()
        assert "".join(log) == expected
    assert not done.is_done()


def test_complete_before_the_wait_is_remembered(sched, done):
    done.complete()
    assert done.is_done() and done.try_wait() and not done.try_wait()


def test_complete_all_is_for_good_until_reinit(sched, done, log):
    start(sched, done, log, "ab")
    sched.run_until_idle()
    done.complete_all()
    done.complete()
    sched.run_until_idle()
    assert log == ["a", "b"]
    assert done.wait() is WaitResult.READY and done.try_wait()
    done.reinit()
    assert not done.try_wait()


def test_complete_in_a_timer_callback(sched, done):
    sched.clock.timer_in(MSEC, done.complete)
    assert sched.run_as(sched.new_task("p"), done.wait) is WaitResult.READY
    assert sched.clock.now == MSEC


def test_timeout_and_signal(sched, done):
    p = sched.new_task("p")
    assert sched.run_as(p, lambda: done.wait(timeout=MSEC)) is WaitResult.TIMED_OUT
    sched.signal_wake_up(p)
    assert sched.run_as(p, lambda: done.wait(state=INTERRUPTIBLE)) is WaitResult.INTERRUPTED
