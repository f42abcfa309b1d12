# SPDX-License-Identifier: GPL-2.0-or-later
"""Reader/writer semaphores: who gets in when."""

from __future__ import annotations

import pytest

from memtwin.errors import InvariantBroken
from memtwin.sched import Rwsem
from memtwin.sched.rwsem import MAX_READERS_WAKEUP, RwsemStatistics


@pytest.fixture
def sem(sched):
    return Rwsem(sched, "sem")


@pytest.fixture
def actors(sched, sem, log):
    """``actors("r1 w2 r3")``: tasks that each take the semaphore, log it, and hold it for 10 ns."""

    def body(name):
        if name[0] == "r":
            sem.down_read()
        else:
            sem.down_write()
        log.append(f"{name}@{sched.clock.now}")
        sched.sleep(10)
        if name[0] == "r":
            sem.up_read()
        else:
            sem.up_write()

    def start(names):
        return [sched.spawn(lambda name=name: body(name), name) for name in names.split()]

    return start


def test_readers_share_and_writers_do_not(sched, sem, log, actors):
    actors("r1 r2")
    sched.run_until_idle()
    assert [task.name for task in sem.readers] == ["r1", "r2"]
    actors("w3 w4")
    sched.run(until=lambda: not sched.tasks)
    assert log == ["r1@0", "r2@0", "w3@10", "w4@20"]
    assert not sem.is_locked() and not sem.is_contended()


def test_a_reader_queues_behind_a_waiting_writer(sched, log, actors):
    """Otherwise readers that keep coming would keep the writer out for ever."""
    actors("r1")
    sched.run_until_idle()
    actors("w2 r3")
    sched.run(until=lambda: not sched.tasks)
    assert log == ["r1@0", "w2@10", "r3@20"]


def test_a_release_lets_in_every_queued_reader(sched, log, actors):
    actors("w1")
    sched.run_until_idle()
    actors("r2 w3 r4")
    sched.run(until=lambda: not sched.tasks)
    assert log == ["w1@0", "r2@10", "r4@10", "w3@20"]


def test_at_most_256_readers_at_once(sched, log, actors):
    actors("w0")
    sched.run_until_idle()
    actors(" ".join(f"r{i}" for i in range(MAX_READERS_WAKEUP + 1)) + " w")
    sched.run(until=lambda: not sched.tasks)
    assert [sum(line.endswith(f"@{now}") for line in log) for now in (10, 20, 30)] == [256, 1, 1]
    assert log[-2:] == [f"r{MAX_READERS_WAKEUP}@20", "w@30"]


def test_hand_over_leaves_no_gap(sched, sem, log, actors):
    """The releasing task, still running, can not take it back before the waiter."""
    p = sched.new_task("p")

    def call():
        sem.down_write()
        actors("w1")
        sched.yield_()
        sem.up_write()
        assert not sem.down_write_trylock() and not sem.down_read_trylock()
        sem.down_read()
        log.append(f"p@{sched.clock.now}")
        sem.up_read()

    sched.run_as(p, call)
    assert log == ["w1@0", "p@10"]


def test_downgrade_lets_readers_in_and_keeps_writers_out(sched, sem, log, actors):
    p = sched.new_task("p")

    def call():
        sem.down_write()
        actors("r1 w2")
        sched.yield_()
        log.append("downgrade")
        sem.downgrade_write()
        assert sem.held_by(p) and sem.writer is None
        sched.sleep(5)
        sem.up_read()

    sched.run_as(p, call)
    sched.run(until=lambda: not sched.tasks or len(log) == 3)
    assert log == ["downgrade", "r1@0", "w2@10"]


def test_downgrade_of_what_is_not_held(sched, sem):
    with pytest.raises(InvariantBroken, match="downgrade_write: host"):
        sem.downgrade_write()


@pytest.mark.parametrize(
    ("method", "fatal", "got"),
    [
        ("down_read_killable", False, True),
        ("down_read_killable", True, False),
        ("down_write_killable", True, False),
        ("down_read_interruptible", False, False),
    ],
)
def test_signals_end_the_waits_they_may_end(sched, sem, actors, method, fatal, got):
    actors("w1")
    sched.run_until_idle()

    def body():
        answer = getattr(sem, method)()
        if answer:
            sem.up_read()
        return answer

    task = sched.spawn(body, "t")
    sched.run_until_idle()
    assert sem.is_contended()
    sched.signal_wake_up(task, fatal)
    sched.run(until=task)
    assert task.result is got
    assert not sem.is_contended()
    assert (sched.clock.now == 10) is got


def test_killed_writer_lets_the_readers_behind_it_in(sched, sem, log, actors):
    actors("r1")
    sched.run_until_idle()
    writer = sched.spawn(sem.down_write_killable, "w")
    actors("r2")
    sched.run_until_idle()
    assert log == ["r1@0"]
    sched.signal_wake_up(writer, fatal=True)
    sched.run_until_idle()
    assert log == ["r1@0", "r2@0"]
    assert writer.result is False


def test_a_grant_beats_a_signal_that_comes_after_it(sched, sem):
    """Handed over, then killed before it runs: it has the lock, as in Linux."""

    def holder():
        sem.down_write()
        sched.yield_()
        sem.up_write()
        sched.signal_wake_up(waiter, fatal=True)

    def body():
        assert sem.down_write_killable()
        sem.up_write()
        return "held"

    sched.spawn(holder, "holder")
    waiter = sched.spawn(body, "waiter")
    sched.run(until=waiter)
    assert waiter.result == "held"


def test_trylock(sched, sem):
    p, q = sched.new_task("p"), sched.new_task("q")
    sched.lockdep.collect = True  # calls that return with the lock held
    assert sched.run_as(p, sem.down_read_trylock)
    assert sched.run_as(q, sem.down_read_trylock)
    assert not sched.run_as(q, sem.down_write_trylock)
    assert sem.held_by(p) and sem.held_by(q) and not sem.held_by(sched.host)


def test_release_by_somebody_else(sched, sem):
    p = sched.new_task("p")
    sem.down_read()
    with pytest.raises(InvariantBroken, match=r"up_read: p\(1\) does not hold sem for reading"):
        sched.run_as(p, sem.up_read)
    with pytest.raises(InvariantBroken, match="up_write: host"):
        sem.up_write()
    sem.up_read()


def test_statistics_and_work(sched, sem, actors):
    before = sched.work.snapshot()
    actors("r1 r2 w3 r4")
    sched.run_until_idle()
    assert sem.statistics() == RwsemStatistics("sem", 2, None, 1, 1, 2)
    sched.run(until=lambda: not sched.tasks)
    assert sem.statistics() == RwsemStatistics("sem", 0, None, 0, 0, 2)
    assert sched.work.since(before)["locks"] == 4
    assert sched.lockdep.acquisitions == {"sem": 4}
