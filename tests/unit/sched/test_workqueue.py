# SPDX-License-Identifier: GPL-2.0-or-later
"""Work queues."""

from __future__ import annotations

import pytest

from memtwin.errors import BadInput, InvariantBroken
from memtwin.sched import MSEC, Mutex, WorkItem, Workqueue
from memtwin.sched.workqueue import WorkqueueStatistics


@pytest.fixture
def wq(sched):
    return Workqueue(sched, "events")


@pytest.fixture
def item(sched, log):
    def make(name, takes=0):
        def fn():
            sched.sleep(takes)
            log.append(f"{name}@{sched.clock.now} {sched.current.name}")

        return WorkItem(fn, name)

    return make


def test_work_runs_later_in_a_worker_in_order(sched, wq, log, item):
    a, b = item("a", 10), item("b")
    assert wq.queue_work(a) and wq.queue_work(b)
    assert not wq.queue_work(b)
    assert log == []
    assert wq.statistics() == WorkqueueStatistics("events", 2, 0, 1)
    sched.run(until=lambda: not b.busy())
    assert log == ["a@10 kworker/0:events", "b@10 kworker/0:events"]
    assert wq.statistics() == WorkqueueStatistics("events", 0, 2, 1)


def test_each_cpu_has_its_worker(sched, wq, log, item):
    wq.queue_work(item("slow", 10), cpu=0)
    wq.queue_work(item("fast"), cpu=3)
    wq.flush()
    assert log == ["fast@0 kworker/3:events", "slow@10 kworker/0:events"]


def test_delayed_work(sched, wq, log, item):
    a = item("a")
    assert wq.queue_delayed_work(a, 5 * MSEC)
    assert not wq.queue_delayed_work(a, MSEC) and not wq.queue_work(a)
    assert wq.mod_delayed_work(a, 2 * MSEC)
    sched.run(until=lambda: bool(log))
    assert log == [f"a@{2 * MSEC} kworker/0:events"]
    assert not wq.mod_delayed_work(a, MSEC)
    assert wq.cancel_work(a) and not wq.cancel_work(a)
    sched.run(until=10 * MSEC)
    assert len(log) == 1


def test_work_queued_while_it_runs_runs_once_more(sched, wq):
    runs = []

    def fn():
        runs.append(1)
        if len(runs) == 1:
            assert wq.queue_work(again)

    again = WorkItem(fn, "again")
    wq.queue_work(again)
    wq.drain()
    assert len(runs) == 2


def test_flush_work_does_not_wait_for_the_time_of_delayed_work(sched, wq, log, item):
    a = item("a", 3)
    assert not wq.flush_work(a)
    wq.queue_delayed_work(a, MSEC)
    assert wq.flush_work(a)
    assert log == ["a@3 kworker/0:events"]


def test_flush_waits_for_what_runs_and_is_queued(sched, wq, log, item):
    p = sched.new_task("p", cpu=0)
    wq.queue_work(item("a", 10))
    sched.run_until_idle()
    wq.queue_work(item("b", 10))
    wq.queue_delayed_work(item("later"), MSEC)
    sched.run_as(p, wq.flush)
    assert [line.split()[0] for line in log] == ["a@10", "b@20"]


def test_cancel_work_sync_waits_for_the_running_one(sched, wq, log, item):
    a = item("a", 10)
    wq.queue_work(a)
    sched.run_until_idle()
    assert not wq.cancel_work_sync(a)
    assert log == ["a@10 kworker/0:events"]
    b = item("b")
    wq.queue_work(b)
    assert wq.cancel_work_sync(b) and len(log) == 1


def test_close_drains_and_ends_the_workers(sched, wq, log, item):
    wq.queue_work(item("a", 5))
    wq.close()
    assert len(log) == 1
    assert sched.tasks == {}
    with pytest.raises(BadInput, match="workqueue events is closed"):
        wq.queue_work(item("b"))


def test_work_that_leaves_a_lock_held_is_found(sched, wq):
    mutex = Mutex(sched, "m")
    wq.queue_work(WorkItem(mutex.lock, "leak"))
    with pytest.raises(InvariantBroken, match=r"kworker/0:events\(1\) returns to user mode with locks held: m"):
        sched.run_until_idle()
