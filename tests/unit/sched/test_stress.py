# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs under random preemption at every lock operation.

Locks exclude, nobody is forgotten, and the same seed gives the same run. The checker is on, and the programs take
locks in one order, so no run may deadlock; some hundred switches each.
"""

from __future__ import annotations

from random import Random

import pytest

from memtwin.sched import (
    KILLABLE,
    Completion,
    Mutex,
    RandomPolicy,
    Rwsem,
    Scheduler,
    SpinLock,
    WaitQueue,
    WorkItem,
    Workqueue,
)


class World:
    """Shared state, each part with who is inside now, and the tasks that use it."""

    def __init__(self, seed: int, cpus: int = 3) -> None:
        self.sched = Scheduler(cpus, seed, lockdep=True)
        self.sched.policy = RandomPolicy(self.sched.stream("policy"))
        coin = self.sched.stream("preemption")

        def hook(site: str) -> None:
            if coin.random() < 0.3:
                self.sched.preempt()

        self.sched.hook = hook
        self.sem = Rwsem(self.sched, "mmap_lock")
        self.mutex = Mutex(self.sched, "inner")
        self.spin = SpinLock(self.sched, "page_table_lock")
        self.queue = WaitQueue(self.sched, "tickets")
        self.wq = Workqueue(self.sched, "wq")
        self.readers = self.writers = self.in_mutex = self.in_spin = 0
        self.tickets = 0
        self.log: list[str] = []
        self.tasks = []

    def inside(self, name: str) -> None:
        self.log.append(f"{self.sched.clock.now} {self.sched.current.name} {name}")

    def read(self) -> None:
        if self.sem.down_read_killable():
            self.readers += 1
            assert self.writers == 0
            self.spinning()
            self.readers -= 1
            self.sem.up_read()

    def write(self) -> None:
        if self.sem.down_write_killable():
            self.writers += 1
            assert (self.writers, self.readers) == (1, 0)
            self.locked()
            self.writers -= 1
            self.sem.downgrade_write()
            self.readers += 1
            self.sched.yield_()
            assert self.writers == 0
            self.readers -= 1
            self.sem.up_read()

    def locked(self) -> None:
        self.mutex.lock()
        self.in_mutex += 1
        assert self.in_mutex == 1
        self.sched.sleep(3)
        self.spinning()
        self.inside("mutex")
        self.in_mutex -= 1
        self.mutex.unlock()

    def spinning(self) -> None:
        self.spin.lock()
        self.in_spin += 1
        assert self.in_spin == 1
        hook = self.sched.hook
        if hook is not None:
            hook("inside the spinlock")
        self.inside("spin")
        self.in_spin -= 1
        self.spin.unlock()

    def give(self) -> None:
        self.tickets += 1
        self.queue.wake_up()

    def take(self) -> None:
        """Exclusive waiters: each ticket lets one through; a timer keeps adding some, so nobody waits for ever."""

        def ready() -> bool:
            if self.tickets:
                self.tickets -= 1
                return True
            return False

        self.sched.clock.timer_in(5, self.give)
        if not self.queue.wait_event(ready, exclusive=True, state=KILLABLE):
            self.inside("killed")

    def later(self) -> None:
        done = Completion(self.sched, "work")

        def fn() -> None:
            self.read()
            done.complete()

        self.wq.queue_delayed_work(WorkItem(fn, "read"), 7)
        done.wait()

    def kill(self) -> None:
        victim = self.tasks[len(self.log) % len(self.tasks)]
        self.sched.signal_wake_up(victim, fatal=True)

    def run(self) -> list[str]:
        rng: Random = self.sched.stream("programs")
        verbs = (self.read, self.write, self.locked, self.spinning, self.give, self.take, self.later)

        def program(steps: list[int]) -> None:
            for step in steps:
                verbs[step]()

        for i in range(6):
            steps = [rng.randrange(len(verbs)) for _ in range(15)]
            self.tasks.append(self.sched.spawn(lambda steps=steps: program(steps), f"t{i}"))
        self.sched.clock.timer_in(20, self.kill)
        self.sched.run(until=lambda: all(task.state == 0x80 for task in self.tasks))
        self.wq.close()
        assert self.sched.tasks == {}
        assert not self.sem.is_locked() and not self.mutex.is_locked() and not self.spin.is_locked()
        assert not self.sem.is_contended() and not self.queue.active()
        assert self.sched.idle.preempt_count == self.sched.host.preempt_count == 0
        self.sched.close()
        return self.log


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(seed):
    world = World(seed)
    log = world.run()
    assert len(log) > 20
    assert log == World(seed).run()


def test_the_runs_are_of_use():
    """They do contend, on everything."""
    worlds = [World(seed) for seed in range(4)]
    for world in worlds:
        world.run()
    for name in ("sem", "mutex", "spin"):
        assert sum(getattr(world, name).contended for world in worlds) > 4, name
    assert any("killed" in line for world in worlds for line in world.log)
    assert sum(world.sched.work.switches for world in worlds) > 900


@pytest.mark.parametrize("seed", range(12))
def test_teardown_at_any_moment_leaves_nothing(seed):
    """Close in the middle: every task unwinds, whatever it holds or waits for."""
    world = World(seed)
    world.sched.lockdep.collect = True
    world.tasks += [world.sched.spawn(lambda: [world.write() or world.take() for _ in range(5)], "t") for _ in range(5)]
    for _ in range(10 + 37 * seed):
        world.sched.step()
    world.sched.close()
    assert world.sched.tasks == {} and world.sched.runnable() == ()
    assert all(task.greenlet is None for task in world.tasks)
