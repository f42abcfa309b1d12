# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: birth, calls, sleeping, waking, deadlock, preemption, determinism, teardown."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import pytest

from memtwin.errors import BadInput, Deadlock, InvariantBroken
from memtwin.hw.work import Work
from memtwin.sched import (
    DEAD,
    INTERRUPTIBLE,
    KILLABLE,
    MSEC,
    PARKED,
    SEC,
    UNINTERRUPTIBLE,
    Instrument,
    Mutex,
    Policy,
    RandomPolicy,
    Rwsem,
    Scheduler,
    WaitQueue,
    state_letter,
)


def block(sched: Scheduler, state: int = UNINTERRUPTIBLE, what: str = "a test") -> None:
    sched.current.state = state
    sched.current.waiting_on = what
    sched.schedule()


class TestSpawn:
    def test_runs_in_order_of_birth_until_each_blocks(self, sched, log):
        def body(name):
            log.append(f"{name}1")
            sched.yield_()
            log.append(f"{name}2")

        for name in "abc":
            sched.spawn(lambda name=name: body(name), name)
        assert log == []  # nothing runs before the hub says so
        sched.run_until_idle()
        assert log == ["a1", "b1", "c1", "a2", "b2", "c2"]
        assert sched.tasks == {}

    def test_result_and_join(self, sched):
        child = sched.spawn(lambda: 42, "child")
        parent = sched.spawn(lambda: sched.join(child) + 1, "parent")
        sched.run(until=parent)
        assert (child.result, parent.result) == (42, 43)
        assert child.state == parent.state == DEAD

    def test_tids_and_cpus_are_given_out_in_turn(self):
        sched = Scheduler(cpus=2)
        tasks = [sched.new_task("t") for _ in range(3)]
        assert [(t.tid, t.cpu) for t in tasks] == [(1, 0), (2, 1), (3, 0)]
        assert sched.new_task("x", tid=5).tid == 5
        assert [sched.new_task("y").tid for _ in range(2)] == [4, 6]
        with pytest.raises(BadInput, match=r"thread id 5 is taken by x\(5\)"):
            sched.new_task("z", tid=5)
        with pytest.raises(BadInput, match="no CPU 2"):
            sched.new_task("z", cpu=2)
        with pytest.raises(BadInput, match="at least one CPU"):
            Scheduler(cpus=0)

    def test_step_runs_one_task(self, sched, log):
        sched.spawn(lambda: log.append("a"), "a")
        sched.spawn(lambda: log.append("b"), "b")
        assert [task.name for task in sched.runnable()] == ["a", "b"]
        assert sched.step()
        assert log == ["a"]
        assert sched.step()
        assert not sched.step()

    def test_exception_reaches_the_hub_with_the_name_of_the_task(self, sched):
        def boom():
            raise ZeroDivisionError("boom")

        sched.spawn(boom, "bad")
        with pytest.raises(ZeroDivisionError, match="boom") as caught:
            sched.run_until_idle()
        assert caught.value.__notes__ == ["raised in task bad(1)"]
        assert sched.current is sched.host
        sched.run_until_idle()  # the scheduler survives it

    def test_kthread_stop_wakes_and_waits(self, sched):
        def daemon():
            rounds = 0
            while not sched.current.should_stop:
                rounds += 1
                sched.sleep(SEC, INTERRUPTIBLE)
            return rounds

        task = sched.spawn(daemon, "daemon")
        sched.run(until=int(2.5 * SEC))
        assert sched.kthread_stop(task) == 3
        # It noticed at once, not at the end of its sleep... which goes on until its time has passed.
        assert sched.clock.now == 3 * SEC


class TestEnterLeave:
    def test_call_runs_at_once_as_the_task(self, sched):
        p = sched.new_task("p")
        assert sched.run_as(p, lambda: sched.current) is p
        assert sched.current is sched.host
        assert p.state == PARKED and p.greenlet is None

    def test_blocking_in_the_hub_runs_the_others(self, sched, log):
        p = sched.new_task("p")
        queue = WaitQueue(sched, "an answer")
        answer: list[int] = []

        def helper():
            log.append("helper")
            answer.append(7)
            queue.wake_up()

        sched.spawn(helper, "helper")

        def call():
            log.append("call")
            queue.wait_event(lambda: bool(answer))
            log.append("done")
            return answer[0]

        assert sched.run_as(p, call) == 7
        assert log == ["call", "helper", "done"]
        assert p.state == PARKED

    def test_blocking_in_the_hub_jumps_the_clock(self, sched):
        p = sched.new_task("p")
        sched.run_as(p, sched.sleep, 5 * MSEC)
        assert sched.clock.now == 5 * MSEC

    def test_call_on_the_greenlet_of_another_task(self, sched, log):
        """Two processes driven from two tasks: the second blocks on what the first holds, as p2, on its own stack."""
        p1, p2 = sched.new_task("p1"), sched.new_task("p2")
        mutex = Mutex(sched, "m")

        def call(hold: bool):
            mutex.lock()
            log.append(f"{sched.current.name} locked")
            if hold:
                sched.sleep(MSEC)
            mutex.unlock()

        a = sched.spawn(lambda: sched.run_as(p1, call, True), "driver1")
        b = sched.spawn(lambda: sched.run_as(p2, call, False), "driver2")
        sched.run_until_idle()
        assert [(t.name, t.blocked) for t in (a, b, p1, p2)] == [
            ("driver1", False),
            ("driver2", False),
            ("p1", True),
            ("p2", True),
        ]
        with pytest.raises(
            BadInput, match=r"p2\(2\) can not make a call now: it is blocked, waiting for m, held by p1"
        ):
            sched.enter(p2)
        sched.run(until=b)
        assert log == ["p1 locked", "p2 locked"]

    def test_a_task_makes_one_call_at_a_time(self, sched):
        p = sched.new_task("p")
        other = sched.spawn(lambda: sched.run_as(p, sched.sleep, SEC), "other")
        sched.run_until_idle()
        with pytest.raises(BadInput, match="blocked, waiting for 1000000000 ns"):
            sched.enter(p)
        with pytest.raises(BadInput, match="running"):
            sched.enter(other)
        sched.run(until=other)
        sched.exit_task(p)
        with pytest.raises(BadInput, match="dead"):
            sched.enter(p)

    def test_reentering_the_current_task_is_harmless(self, sched):
        p = sched.new_task("p")

        def outer():
            assert sched.run_as(p, lambda: sched.current) is p
            return sched.current

        assert sched.run_as(p, outer) is p
        assert p.state == PARKED

    def test_error_of_a_call_leaves_everything_in_place(self, sched):
        p = sched.new_task("p")

        def fail():
            raise OSError(12, "Cannot allocate memory")

        with pytest.raises(OSError, match="Cannot allocate"):
            sched.run_as(p, fail)
        assert sched.current is sched.host and p.state == PARKED

    def test_exception_of_another_task_ends_the_wait_and_the_task_can_go_on(self, sched):
        p = sched.new_task("p")
        sem = Rwsem(sched, "sem")

        def holder():
            sem.down_write()
            sched.yield_()
            raise RuntimeError("holder died")

        sched.lockdep = None
        sched.spawn(holder, "holder")
        sched.spawn(lambda: None, "other")
        sched.step()
        with pytest.raises(RuntimeError, match="holder died"):
            sched.run_as(p, sem.down_read)
        assert not sem.is_contended()  # p left the queue
        assert sched.run_as(p, lambda: 1) == 1

    def test_exception_of_another_task_reaches_a_preempted_call_once(self, sched):
        def boom():
            raise RuntimeError("boom")

        sched.hook = lambda site: sched.preempt() if site == "cond_resched" else None
        sched.spawn(boom, "bad")
        p = sched.new_task("p")
        with pytest.raises(RuntimeError, match="boom"):
            sched.run_as(p, sched.cond_resched)
        assert sched.runnable() == ()
        sched.run_until_idle()


class TestSleepAndWake:
    def test_wake_up_before_the_sleep_is_not_lost(self, sched):
        def body():
            me = sched.current
            me.state = INTERRUPTIBLE
            assert sched.wake_up(me)
            sched.schedule()
            return "awake"

        task = sched.spawn(body, "t")
        sched.run(until=task)
        assert task.result == "awake"
        assert sched.clock.now == 0

    def test_wake_up_only_in_the_named_states(self, sched):
        task = sched.spawn(lambda: block(sched, UNINTERRUPTIBLE), "t")
        sched.run_until_idle()
        assert not sched.wake_up(task, INTERRUPTIBLE)
        assert state_letter(task.state) == "D"
        assert sched.wake_up(task)
        assert not sched.wake_up(task)
        sched.run(until=task)

    @pytest.mark.parametrize(
        ("state", "fatal", "ends"),
        [
            (INTERRUPTIBLE, False, True),
            (INTERRUPTIBLE, True, True),
            (KILLABLE, False, False),
            (KILLABLE, True, True),
            (UNINTERRUPTIBLE, True, False),
        ],
    )
    def test_signals_end_the_sleeps_they_may_end(self, sched, state, fatal, ends):
        task = sched.spawn(lambda: block(sched, state), "t")
        sched.run_until_idle()
        assert sched.signal_wake_up(task, fatal) is ends
        sched.run_until_idle()
        assert (task.state == DEAD) is ends

    def test_pending_signal_prevents_the_sleep(self, sched):
        p = sched.new_task("p")
        sched.signal_wake_up(p)
        assert sched.run_as(p, sched.sleep, SEC, INTERRUPTIBLE) == SEC
        assert sched.clock.now == 0

    def test_schedule_timeout_returns_what_is_left(self, sched):
        def sleeper():
            sched.current.state = INTERRUPTIBLE
            return sched.schedule_timeout(10 * MSEC)

        task = sched.spawn(sleeper, "sleeper")
        sched.run(until=4 * MSEC)
        assert sched.clock.now == 4 * MSEC
        sched.wake_up(task)
        sched.run(until=task)
        assert task.result == 6 * MSEC
        assert sched.clock.next_expiry() is None

    def test_run_until_a_time_runs_what_is_due_then(self, sched, log):
        def ticker():
            while True:
                sched.sleep(MSEC)
                log.append(f"{sched.clock.now // MSEC}")

        sched.spawn(ticker, "ticker")
        sched.run(until=3 * MSEC)
        assert log == ["1", "2", "3"]
        assert sched.clock.now == 3 * MSEC
        sched.run(until=lambda: len(log) == 5)
        assert sched.clock.now == 5 * MSEC

    def test_sleeping_in_a_timer_callback_is_an_error(self, sched):
        sched.clock.timer_in(1, lambda: sched.sleep(5), "bad")
        with pytest.raises(
            InvariantBroken, match=r"sleeping function called from invalid context: .* in a timer callback"
        ):
            sched.step()
        assert sched.current is sched.host and not sched.in_irq

    def test_callbacks_wait_for_interrupts(self, sched, log):
        p = sched.new_task("p")
        sched.clock.timer_in(10, lambda: log.append(f"tick as {sched.current.name}"), "tick")

        def call():
            sched.local_irq_disable()
            sched.local_irq_disable()
            sched.clock.advance(20)
            sched.local_irq_enable()
            log.append("still off")
            sched.local_irq_enable()
            log.append("on")

        sched.run_as(p, call)
        assert log == ["still off", "tick as swapper", "on"]


class TestDeadlock:
    def test_report_names_every_task_what_it_waits_for_and_the_holder(self, sched):
        p = sched.new_task("p")
        mutex = Mutex(sched, "m")
        queue = WaitQueue(sched, "the reply of the daemon")

        def holder():
            mutex.lock()
            queue.wait_event(lambda: False)

        sched.spawn(holder, "holder")
        sched.run_until_idle()
        with pytest.raises(Deadlock) as caught:
            sched.run_as(p, mutex.lock)
        assert str(caught.value).splitlines() == [
            "deadlock: p(1) can never go on",
            "  p(1) waits for m, held by holder(2)",
            "  holder(2) waits for the reply of the daemon",
        ]
        assert p.state == PARKED and sched.current is sched.host

    def test_cycle_is_reported_when_it_closes(self):
        sched = Scheduler(cpus=2)
        m, n = Mutex(sched, "m"), Mutex(sched, "n")

        def body(first, second):
            first.lock()
            sched.yield_()
            second.lock()

        sched.spawn(lambda: body(m, n), "a")
        sched.spawn(lambda: body(n, m), "b")
        with pytest.raises(Deadlock) as caught:
            sched.run_until_idle()
        assert str(caught.value).splitlines() == [
            "deadlock: b(2) -> a(1) -> b(2) wait for each other",
            "  b(2) waits for m, held by a(1)",
            "  a(1) waits for n, held by b(2)",
        ]
        sched.close()

    def test_taking_a_mutex_twice(self):
        sched = Scheduler()
        m = Mutex(sched, "m")
        p = sched.new_task("p")

        def twice():
            m.lock()
            m.lock()

        with pytest.raises(Deadlock, match=r"p\(1\) -> p\(1\) wait for each other"):
            sched.run_as(p, twice)

    def test_reading_twice_around_a_writer(self):
        """The semaphore is fair: the second read waits behind the writer, who waits for the first read."""
        sched = Scheduler()
        sem = Rwsem(sched, "sem")

        def reader():
            sem.down_read()
            sched.yield_()
            sem.down_read()

        sched.spawn(reader, "reader")
        sched.spawn(sem.down_write, "writer")
        with pytest.raises(Deadlock, match=r"reader\(1\) -> writer\(2\) -> reader\(1\)"):
            sched.run_until_idle()
        sched.close()

    def test_hung_task_while_a_daemon_keeps_the_clock_going(self, sched):
        def daemon():
            while True:
                sched.sleep(SEC, INTERRUPTIBLE)

        sched.spawn(daemon, "daemon")
        p = sched.new_task("p")
        with pytest.raises(Deadlock, match=r"p\(2\) blocked for more than 120 seconds of virtual time"):
            sched.run_as(p, block, sched)
        assert sched.clock.now == 120 * SEC

    def test_a_long_sleep_of_its_own_is_no_hang(self, sched):
        def daemon():
            while True:
                sched.sleep(SEC, INTERRUPTIBLE)

        sched.spawn(daemon, "daemon")
        sched.run_as(sched.new_task("p"), sched.sleep, 500 * SEC)
        assert sched.clock.now == 500 * SEC

    def test_waiting_for_a_task_that_never_ends(self, sched):
        task = sched.spawn(lambda: block(sched, what="Godot"), "t")
        with pytest.raises(Deadlock, match=r"t\(1\) never ends\n  t\(1\) waits for Godot"):
            sched.run(until=task)
        with pytest.raises(Deadlock, match="never happens"):
            sched.run(until=lambda: False)

    def test_spinning_for_ever(self, sched):
        p = sched.new_task("p")
        with pytest.raises(Deadlock, match="spins for ever: waits for a flag"):
            sched.run_as(p, sched.cpu_relax, "a flag")


class TestPreemption:
    def test_hook_switches_at_named_points(self, sched, log):
        def body(name):
            hook = sched.hook
            log.append(f"{name}1")
            if hook is not None:
                hook("middle")
            log.append(f"{name}2")

        sched.hook = lambda site: sched.preempt() if site == "middle" else None
        sched.spawn(lambda: body("a"), "a")
        p = sched.new_task("p")
        sched.run_as(p, body, "p")
        sched.run_until_idle()
        assert log == ["p1", "a1", "p2", "a2"]

    def test_preempted_in_a_spinlock_keeps_its_cpu(self, log):
        from memtwin.sched import SpinLock

        sched = Scheduler(cpus=2)
        spin = SpinLock(sched, "s")

        def holder():
            spin.lock()
            sched.preempt()
            log.append("holder")
            spin.unlock()

        sched.spawn(holder, "holder", cpu=0)
        sched.spawn(lambda: log.append("same cpu"), "same", cpu=0)
        sched.spawn(lambda: log.append("other cpu"), "other", cpu=1)
        sched.run_until_idle()
        assert log == ["other cpu", "holder", "same cpu"]

    def test_cond_resched_is_a_point(self, sched):
        seen = []
        sched.cond_resched()
        sched.hook = seen.append
        sched.cond_resched()
        assert seen == ["cond_resched"]


def run_story(seed: int, policy: bool) -> list[str]:
    """A story with every kind of event; returns what happened, in order."""
    sched = Scheduler(cpus=2, seed=seed)
    if policy:
        sched.policy = RandomPolicy(sched.stream("policy"))
    rng = sched.stream("sleeps")
    sem = Rwsem(sched, "sem")
    log: list[str] = []

    def body(name: str) -> None:
        for i in range(5):
            if rng.random() < 0.5:
                sem.down_read()
                sched.yield_()
                sem.up_read()
            else:
                sem.down_write()
                sched.sleep(rng.randrange(1, 100))
                sem.up_write()
            log.append(f"{sched.clock.now} {name}{i}")

    for name in ("a", "b", "c", "d"):
        sched.spawn(lambda name=name: body(name), name)
    sched.run(until=lambda: not sched.tasks)
    sched.close()
    return log


class TestDeterminism:
    @pytest.mark.parametrize("policy", [False, True])
    def test_same_seed_same_story(self, policy):
        assert run_story(1, policy) == run_story(1, policy)
        assert run_story(1, policy) != run_story(2, policy)

    def test_random_policy_differs_from_fifo(self):
        assert run_story(1, True) != run_story(1, False)

    def test_hash_seed_does_not_matter(self, root):
        code = f"import sys; sys.path.insert(0, {str(root / 'tests/unit/sched')!r}); import test_core as t; "
        code += "print(t.run_story(3, True), t.run_story(3, False))"
        outs = []
        for hash_seed in ("0", "77"):
            env = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONHASHSEED": hash_seed}
            outs.append(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)
        assert outs[0] == outs[1] != b""

    def test_streams_are_independent(self):
        a, b = Scheduler(seed=5), Scheduler(seed=5)
        a.stream("x").random()
        assert a.stream("y").random() == b.stream("y").random() != b.stream("x").random()

    def test_policy_chooses(self, log):
        class Last(Policy):
            def choose(self, runnable):
                return len(runnable) - 1

        sched = Scheduler(policy=Last())
        for name in "abc":
            sched.spawn(lambda name=name: log.append(name), name)
        sched.run_until_idle()
        assert log == ["c", "b", "a"]


class TestTwoSchedulers:
    def test_side_by_side(self, log):
        one, two = Scheduler(seed=1), Scheduler(seed=2)

        def body(sched, name):
            for _ in range(2):
                log.append(f"{name} {sched.clock.now}")
                sched.sleep(10)

        one.spawn(lambda: body(one, "one"), "t")
        two.spawn(lambda: body(two, "two"), "t")
        while one.step() | two.step():
            pass
        assert log == ["one 0", "two 0", "one 10", "two 10"]
        assert one.work is not two.work

    def test_a_task_of_one_is_the_hub_of_the_other(self):
        one, two = Scheduler(), Scheduler()

        def inner():
            two.sleep(5)
            return two.clock.now

        def outer():
            one.sleep(1)
            task = two.spawn(inner, "inner")
            two.run(until=task)
            one.sleep(1)
            return task.result

        task = one.spawn(outer, "outer")
        one.run(until=task)
        assert (task.result, one.clock.now, two.clock.now) == (5, 2, 5)


class TestClose:
    def test_no_greenlet_is_left(self, log):
        sched = Scheduler(cpus=2)

        def sleeper():
            try:
                block(sched)
            finally:
                log.append("unwound")

        def stubborn():
            try:
                block(sched)
            finally:
                sched.sleep(5)  # blocking while being torn down ends at once

        p = sched.new_task("p")
        for fn in (sleeper, stubborn, lambda: sched.run_as(p, sleeper)):
            sched.spawn(fn, "t")
        sched.run_until_idle()
        refs = [weakref.ref(task.greenlet) for task in sched.tasks.values() if task.greenlet is not None]
        sched.spawn(lambda: log.append("never"), "unborn")
        assert len(refs) == 4  # p borrows one
        sched.close()
        gc.collect()
        assert [ref() for ref in refs] == [None] * 4
        assert log == ["unwound", "unwound"]
        assert sched.tasks == {} and sched.current is sched.host
        sched.close()
        with pytest.raises(BadInput, match="closed"):
            sched.spawn(lambda: None, "late")

    def test_exception_while_unwinding_is_not_lost(self):
        sched = Scheduler()

        def bad():
            try:
                block(sched)
            finally:
                raise KeyError("in finally")

        sched.spawn(bad, "bad")
        sched.run_until_idle()
        with pytest.raises(KeyError, match="in finally"):
            sched.close()
        assert sched.closed

    def test_only_the_hub_closes_and_steps(self, sched):
        task = sched.new_task("p")
        for method in (sched.close, sched.step, sched.run_until_idle):
            with pytest.raises(BadInput, match=r"is for the hub, not for p\(1\)"):
                sched.run_as(task, method)


def test_instruments_hear_everything(sched):
    heard = []

    class Ear(Instrument):
        def task_spawned(self, task):
            heard.append(f"spawned {task}")

        def task_exited(self, task):
            heard.append(f"exited {task}")

        def task_switched(self, prev, prev_state, next_):
            heard.append(f"{prev.name} {state_letter(prev_state)} -> {next_.name}")

        def task_woken(self, task):
            heard.append(f"woken {task}")

        def clock_jumped(self, before, after):
            heard.append(f"clock {before} -> {after}")

    sched.instruments = [Ear(), Instrument()]
    p = sched.new_task("p")
    sched.spawn(lambda: sched.sleep(5), "k")
    sched.run_as(p, sched.sleep, 7)
    assert heard == [
        "spawned p(1)",
        "spawned k(2)",
        "p D -> swapper",
        "swapper R -> k",
        "k D -> swapper",
        "woken k(2)",
        "clock 0 -> 5",
        "swapper R -> k",
        "exited k(2)",
        "k X -> swapper",
        "woken p(1)",
        "clock 5 -> 7",
        "swapper R -> p",
    ]


def test_work_counts_switches_and_wakeups():
    work = Work()
    sched = Scheduler(work=work)
    sched.spawn(lambda: sched.sleep(5), "k")
    sched.run(until=5)
    assert work.since(Work().snapshot()) == {"switches": 2, "wakeups": 1}
