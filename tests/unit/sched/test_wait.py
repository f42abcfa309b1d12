# SPDX-License-Identifier: GPL-2.0-or-later
"""Wait queues: order of waking, wake functions, timeouts, signals."""

from __future__ import annotations

import pytest

from memtwin.sched import (
    INTERRUPTIBLE,
    KILLABLE,
    MSEC,
    WQ_FLAG_EXCLUSIVE,
    WQ_FLAG_PRIORITY,
    WQ_FLAG_WOKEN,
    WaitEntry,
    WaitQueue,
    WaitResult,
)
from memtwin.sched.wait import WaitQueueStatistics


@pytest.fixture
def queue(sched):
    return WaitQueue(sched, "q")


@pytest.fixture
def waiter(sched, queue, log):
    def start(name, **how):
        def body():
            entry = queue.entry(how.get("exclusive", False))
            queue.prepare_to_wait(entry, how.get("state", 2))
            sched.schedule()
            queue.finish_wait(entry)
            log.append(name)

        return sched.spawn(body, name)

    return start


def test_wake_up_takes_all_ordinary_and_one_exclusive(sched, queue, log, waiter):
    for name, exclusive in (("x1", True), ("a", False), ("x2", True), ("b", False)):
        waiter(name, exclusive=exclusive)
    sched.run_until_idle()
    assert [entry.task.name for entry in queue.entries] == ["b", "a", "x1", "x2"]
    assert queue.wake_up() == 3
    sched.run_until_idle()
    assert log == ["b", "a", "x1"]
    assert queue.wake_up_all() == 1
    sched.run_until_idle()
    assert not queue.active()
    assert queue.statistics() == WaitQueueStatistics("q", 0, 2, 4)


def test_wake_up_interruptible_leaves_the_others_asleep(sched, queue, log, waiter):
    waiter("deep")
    waiter("light", state=INTERRUPTIBLE)
    sched.run_until_idle()
    assert queue.wake_up_interruptible() == 1
    sched.run_until_idle()
    assert log == ["light"]
    assert [entry.task.name for entry in queue.entries] == ["deep"]


def test_priority_entries_come_first(sched, queue):
    seen = []

    def note(entry, mode, key):
        seen.append(entry.private)
        return 0

    for name, flags in (("a", 0), ("p", WQ_FLAG_PRIORITY), ("b", 0), ("q", WQ_FLAG_PRIORITY)):
        queue.add_locked(WaitEntry(sched.host, note, flags, name))
    queue.wake_up_all()
    assert seen == ["q", "p", "b", "a"]


def test_wake_functions_choose_by_key_and_can_end_the_walk(sched, queue):
    """How two folios share one queue: each entry looks at the key."""
    woken = []

    def wake_page(entry, mode, key):
        folio, bit = key
        if entry.private != folio:
            return 0
        if bit == "locked again":
            return -1
        entry.flags |= WQ_FLAG_WOKEN
        woken.append(entry)
        queue.remove_locked(entry)
        return 1

    entries = [WaitEntry(sched.host, wake_page, WQ_FLAG_EXCLUSIVE, folio) for folio in (1, 2, 1, 2)]
    for entry in entries:
        queue.add_tail_locked(entry)
    assert queue.wake_up(nr_exclusive=1, key=(2, "unlocked")) == 1
    assert woken == [entries[1]] and entries[1].flags & WQ_FLAG_WOKEN
    assert queue.wake_up_all(key=(1, "locked again")) == 0
    assert queue.wake_up_all(key=(1, "unlocked")) == 2
    assert queue.entries == [entries[3]]


def test_entry_removed_by_an_earlier_wake_function_is_not_called(sched, queue):
    second = WaitEntry(sched.host, lambda *args: pytest.fail("called"))

    def first(entry, mode, key):
        queue.remove_locked(second)
        return 1

    queue.add_tail_locked(WaitEntry(sched.host, first))
    queue.add_tail_locked(second)
    assert queue.wake_up_all() == 1


def test_default_wake_keeps_the_entry_queued(sched, queue):
    def body():
        entry = WaitEntry(sched.current, queue.default_wake)
        queue.prepare_to_wait(entry, INTERRUPTIBLE)
        sched.schedule()
        still = entry.queue is queue
        queue.finish_wait(entry)
        return still

    task = sched.spawn(body, "t")
    sched.run_until_idle()
    queue.wake_up()
    sched.run(until=task)
    assert task.result is True and not queue.active()


class TestWaitEvent:
    def test_ready_at_once_does_not_sleep(self, sched, queue):
        assert queue.wait_event(lambda: True) is WaitResult.READY
        assert sched.work.switches == 0

    def test_goes_back_to_sleep_until_the_condition_holds(self, sched, queue):
        count = [0]

        def ready():
            return count[0] >= 2

        task = sched.spawn(lambda: queue.wait_event(ready), "t")
        for _ in range(2):
            sched.run_until_idle()
            count[0] += 1
            assert task.blocked
            assert queue.wake_up() == 1
        sched.run(until=task)
        assert task.result is WaitResult.READY

    def test_timeout(self, sched, queue):
        result = sched.run_as(sched.new_task("p"), lambda: queue.wait_event(lambda: False, timeout=3 * MSEC))
        assert result is WaitResult.TIMED_OUT and not result
        assert sched.clock.now == 3 * MSEC
        assert not queue.active() and sched.clock.next_expiry() is None

    def test_early_wake_ups_do_not_lengthen_the_timeout(self, sched, queue):
        for when in (1, 2):
            sched.clock.timer_in(when * MSEC, queue.wake_up)
        assert queue.wait_event(lambda: False, timeout=3 * MSEC) is WaitResult.TIMED_OUT
        assert sched.clock.now == 3 * MSEC

    def test_condition_that_becomes_true_with_the_timeout_counts(self, sched, queue):
        assert queue.wait_event(lambda: sched.clock.now >= 5, timeout=5) is WaitResult.READY

    @pytest.mark.parametrize(("state", "fatal"), [(INTERRUPTIBLE, False), (KILLABLE, True)])
    def test_signal(self, sched, queue, state, fatal):
        task = sched.spawn(lambda: queue.wait_event(lambda: False, state=state), "t")
        sched.run_until_idle()
        sched.signal_wake_up(task, fatal)
        sched.run(until=task)
        assert task.result is WaitResult.INTERRUPTED and not task.result
        assert not queue.active()

    def test_exception_in_the_condition_leaves_no_entry(self, sched, queue):
        calls = []

        def ready():
            calls.append(1)
            if len(calls) == 2:
                raise ValueError("no")
            return False

        with pytest.raises(ValueError, match="no"):
            queue.wait_event(ready)
        assert not queue.active() and sched.host.state == 0

    def test_wake_up_between_check_and_sleep_is_not_lost(self, sched, queue, preempt_at):
        """Preempted after it queued itself: the wake-up comes while it is on its way to sleep."""
        flag = []
        preempt_at("spin_unlock:wait_queue")
        task = sched.spawn(lambda: queue.wait_event(lambda: bool(flag)), "t")

        def waker():
            flag.append(1)
            queue.wake_up()

        sched.spawn(waker, "waker")
        sched.run(until=task)
        assert task.result is WaitResult.READY
