# SPDX-License-Identifier: GPL-2.0-or-later
"""Sequence counts: readers notice writers."""

from __future__ import annotations

import pytest

from memtwin.errors import Deadlock, InvariantBroken
from memtwin.sched import Seqcount
from memtwin.sched.seqcount import SeqcountStatistics


@pytest.fixture
def count(sched):
    return Seqcount(sched, "seq")


def test_reader_retries_when_a_writer_was_there(sched, count, preempt_at):
    value = [1, 1]

    def reader():
        while True:
            seq = count.read_begin()
            first = value[0]
            sched.preempt()
            pair = (first, value[1])
            if not count.read_retry(seq):
                return pair

    def writer():
        count.write_begin()
        value[:] = [2, 2]
        count.write_end()

    task = sched.spawn(reader, "reader")
    sched.spawn(writer, "writer")
    sched.run(until=task)
    assert task.result == (2, 2)
    assert count.statistics() == SeqcountStatistics("seq", 2, 1)


def test_reader_waits_for_a_write_under_way(sched, count, log, preempt_at):
    preempt_at("write_begin:seq")

    def writer():
        count.write_begin()
        log.append("written")
        count.write_end()

    sched.spawn(writer, "writer")
    sched.step()
    assert count.sequence == 1
    sched.run_as(sched.new_task("p"), lambda: log.append(f"read {count.read_begin()}"))
    assert log == ["written", "read 2"]


def test_reader_without_a_writer_to_wait_for(sched, count):
    count.sequence = 1
    with pytest.raises(Deadlock, match="spins for ever: waits for the writer of seq"):
        count.read_begin()


def test_misuse(sched, count):
    with pytest.raises(InvariantBroken, match="write_end of seq without"):
        count.write_end()
    count.write_begin()
    with pytest.raises(InvariantBroken, match="two writers of seq"):
        count.write_begin()
    count.write_end()
    assert sched.host.preempt_count == 0
