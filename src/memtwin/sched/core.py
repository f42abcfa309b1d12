# SPDX-License-Identifier: GPL-2.0-or-later
"""The scheduler: run to block, in one host thread, in a deterministic order (kernel/sched/core.c, as a model needs it).

The greenlet that calls into the machine is the *hub*. A system call made through the API runs at once in the hub, as
its task (``enter`` / ``leave``). Every other context has a greenlet of its own and runs only when the hub gives it the
CPU: when a task in the hub must block, or when somebody calls ``step``, ``run`` or ``run_until_idle``. A task keeps
running until it blocks, yields or ends, or until the preemption hook takes the CPU away (``preempt.py``). Timer
callbacks are the interrupts: they run in the hub or on top of the task that let the time pass, as the idle task, and
can not sleep.

With no one runnable the clock jumps to the next timer. If there is none either, and somebody in the hub waits, nothing
can ever happen again: ``Deadlock``, with every blocked task and what it waits for. A cycle of lock waits is reported
as soon as it closes, and a hub task that sleeps for ``hung_ns`` of virtual time without a timeout of its own counts as
deadlocked too (periodic daemons would otherwise keep the clock going for ever).

Alternatives rejected: host threads (slow to hand over, and the order would be the host's), generators (five times
faster to switch, at the price of ``yield from`` in every function that may block). Open doubt: real wake-ups preempt
and migrate; here a woken task waits its turn, so orders that need preemption are reached through the hook only.

Invariants: ``current`` is ``host`` when no simulated code runs; ``idle`` while the hub looks for work and in
callbacks. A runnable task that does not run is in ``_runq`` exactly once, or parked by a hook.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final, ParamSpec, TypeVar, overload

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped, unused-ignore]

from memtwin.errors import BadInput, Deadlock, InvariantBroken
from memtwin.hw.work import Work
from memtwin.sched.clock import SEC, Clock
from memtwin.sched.deadlock import check_cycle, report
from memtwin.sched.lockdep import Lockdep
from memtwin.sched.preempt import Hook, Instrument, Policy
from memtwin.sched.task import (
    DEAD,
    INTERRUPTIBLE,
    NORMAL,
    PARKED,
    RUNNING,
    UNINTERRUPTIBLE,
    WAKEKILL,
    Task,
    WaitsFor,
    signal_pending_state,
)

__all__ = ["HUNG_NS", "Scheduler"]

#: Default bound on a sleep without timeout in the hub; Linux's hung_task_timeout_secs is 120 s as well.
HUNG_NS: Final = 120 * SEC

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Task)


class Scheduler:
    """All tasks of one machine, its CPUs and its clock. Two schedulers share nothing.

    ``cpus``: number of simulated CPUs; ``seed``: of every random stream (``stream``); ``work``: counters to add to;
    ``lockdep``: True for a checker that raises, or a ``Lockdep`` of your own; ``policy``: who is next (default: FIFO).
    """

    __slots__ = (
        "_closing",
        "_crash",
        "_hub",
        "_last_tid",
        "_next_cpu",
        "_parked",
        "_pinned",
        "_pins",
        "_runq",
        "clock",
        "closed",
        "cpus",
        "current",
        "hook",
        "host",
        "hung_ns",
        "idle",
        "in_irq",
        "instruments",
        "lockdep",
        "policy",
        "seed",
        "tasks",
        "work",
    )

    def __init__(
        self,
        cpus: int = 1,
        seed: int = 0,
        work: Work | None = None,
        *,
        lockdep: bool | Lockdep = False,
        policy: Policy | None = None,
        hung_ns: int | None = HUNG_NS,
    ) -> None:
        if cpus < 1:
            raise BadInput(f"a machine needs at least one CPU, not {cpus}")
        self.cpus: Final = cpus
        self.seed: Final = seed
        self.work: Final = Work() if work is None else work
        self.clock: Final = Clock()
        self.clock.on_due = self._interrupt
        self.hook: Hook | None = None  #: see preempt.py
        self.policy = policy
        self.hung_ns = hung_ns
        self.instruments: list[Instrument] = []
        self.tasks: Final[dict[int, Task]] = {}  #: living tasks by tid, in order of birth
        self.host: Final = Task(0, "host", 0, RUNNING)  #: whoever calls into the machine
        self.idle: Final = Task(0, "swapper", 0, RUNNING)
        self.current: Task = self.host
        self.in_irq = False  #: inside a timer callback
        self.closed = False
        self._closing = False
        self._runq: deque[Task] = deque()
        self._parked: list[Task] = []
        self._pinned: list[Task | None] = [None] * cpus  #: preempted with preemption off: its CPU is not free
        self._pins = 0
        self._hub: greenlet | None = None
        self._crash: BaseException | None = None
        self._last_tid = 0
        self._next_cpu = 0
        self.lockdep: Lockdep | None = (Lockdep() if lockdep is True else lockdep) or None
        if self.lockdep is not None:
            self.lockdep.attach(self)

    # ---- birth and death of tasks

    @overload
    def new_task(
        self, name: str, *, tid: int | None = None, cpu: int | None = None, mm: Any = None, task_class: type[T]
    ) -> T: ...

    @overload
    def new_task(self, name: str, *, tid: int | None = None, cpu: int | None = None, mm: Any = None) -> Task: ...

    def new_task(
        self,
        name: str,
        *,
        tid: int | None = None,
        cpu: int | None = None,
        mm: Any = None,
        task_class: type[Task] = Task,
    ) -> Task:
        """A task in user mode that is driven through ``enter`` / ``leave``, or started later with ``start``.

        Without ``tid`` the next free number is taken; without ``cpu`` the CPUs take turns. ``task_class``: a
        subclass with the same constructor, for an owner that keeps more about its tasks.
        """
        if self.closed or self._closing:
            raise BadInput("the machine is closed")
        if tid is None:
            tid = self._last_tid + 1
            while tid in self.tasks:
                tid += 1
            self._last_tid = tid
        elif tid in self.tasks:
            raise BadInput(f"thread id {tid} is taken by {self.tasks[tid]}")
        if cpu is None:
            cpu = self._next_cpu
            self._next_cpu = (cpu + 1) % self.cpus
        elif not 0 <= cpu < self.cpus:
            raise BadInput(f"no CPU {cpu}: the machine has {self.cpus}")
        task = task_class(tid, name, cpu)
        task.mm = mm
        self.tasks[tid] = task
        for instrument in self.instruments:
            instrument.task_spawned(task)
        return task

    def start(self, task: Task, fn: Callable[[], object]) -> None:
        """Let ``task`` run ``fn`` on a greenlet of its own; it becomes runnable now and runs when the hub lets it."""
        if task.state != PARKED or task.greenlet is not None:
            raise BadInput(f"{task} already runs")
        task.fn = fn
        task.state = RUNNING
        self._runq.append(task)

    def spawn(
        self, fn: Callable[[], object], name: str, *, tid: int | None = None, cpu: int | None = None, mm: Any = None
    ) -> Task:
        """A kernel thread or guest thread: ``new_task`` and ``start``. What ``fn`` returns becomes ``task.result``."""
        task = self.new_task(name, tid=tid, cpu=cpu, mm=mm)
        self.start(task, fn)
        return task

    def exit_task(self, task: Task) -> None:
        """``task`` is no more: wake who waits for its end. A task of its own gets here when its function returns."""
        if task.state == DEAD:
            return
        task.state = DEAD
        task.on_rq = True
        self.tasks.pop(task.tid, None)
        waiters, task.exit_waiters = task.exit_waiters, []
        for waiter in waiters:
            self.wake_up(waiter)
        for instrument in self.instruments:
            instrument.task_exited(task)

    def _bootstrap(self, task: Task) -> None:
        """First and last frame of a task's greenlet. An exception is kept for the hub: none is lost."""
        try:
            task.result = task.fn()
            if self.lockdep is not None and not self._closing:
                self.lockdep.check_no_locks_held(task)
        except GreenletExit:
            pass
        except BaseException as exc:
            exc.add_note(f"raised in task {task}")
            self._crash = exc
        finally:
            task.fn = None
            task.greenlet = None
            self.exit_task(task)

    def join(self, task: Task) -> Any:
        """Sleep until ``task`` has ended; returns its result."""
        while task.state != DEAD:
            current = self.current
            task.exit_waiters.append(current)
            current.state = UNINTERRUPTIBLE
            current.waiting_on = task
            check_cycle(current)
            self.schedule()
        return task.result

    def kthread_stop(self, task: Task) -> Any:
        """Ask a kernel thread to end (it polls ``current.should_stop``), wake it, wait for it; returns its result."""
        task.should_stop = True
        self.wake_up(task, NORMAL | WAKEKILL)
        return self.join(task)

    # ---- system calls in the calling greenlet

    def enter(self, task: Task) -> Task:
        """From now on the calling greenlet executes as ``task``; give what is returned to ``leave``, whatever happens.

        The task uses the stack of the caller until then. Re-entering the current task is allowed and does nothing.
        """
        prev = self.current
        if task.state != PARKED:
            if task is not prev:
                raise BadInput(f"{task} can not make a call now: it is {self._why_busy(task)}")
            return prev
        task.state = RUNNING
        task.greenlet = prev.greenlet
        self.current = task
        return prev

    def leave(self, prev: Task) -> None:
        """Back to user mode: the greenlet executes as ``prev`` again."""
        task = self.current
        self.current = prev
        if task is not prev:
            if task.state != DEAD:
                task.state = PARKED
            task.greenlet = None
            if self.lockdep is not None:
                self.lockdep.check_user_return(task)

    def run_as(self, task: Task, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``fn(*args)`` as ``task``, at once, in the calling greenlet."""
        prev = self.enter(task)
        try:
            return fn(*args, **kwargs)
        finally:
            self.leave(prev)

    def _why_busy(self, task: Task) -> str:
        if task.state == DEAD:
            return "dead"
        if task.blocked:
            return f"blocked, waiting for {task.wait_description()}"
        return "running"

    # ---- sleeping and waking

    def schedule(self) -> None:
        """Sleep until woken, if ``current.state`` says so; with RUNNING (somebody woke us already) return at once.

        A signal that the state allows prevents the sleep. The caller tells ``current.waiting_on`` for reports.
        """
        task = self.current
        state = task.state
        if state != RUNNING:
            if self.in_irq or task.preempt_count or task.irqs_off:
                self.might_sleep("schedule")
            if signal_pending_state(state, task):
                task.state = RUNNING
            else:
                task.blocked_since = self.clock.now
                task.on_rq = False
                self._switch_out(task)
        task.waiting_on = None

    def schedule_timeout(self, ns: int | None) -> int:
        """``schedule()`` with a bound of ``ns`` virtual nanoseconds (None: without); returns what is left of it."""
        if ns is None:
            self.schedule()
            return 1
        task = self.current
        until = self.clock.now + ns
        task.timer = timer = self.clock.timer_at(until, lambda: self._timed_out(task), "schedule_timeout")
        try:
            self.schedule()
        finally:
            timer.cancel()
            task.timer = None
        return max(0, until - self.clock.now)

    def _timed_out(self, task: Task) -> None:
        self.wake_up(task, NORMAL | WAKEKILL)

    def sleep(self, ns: int, state: int = UNINTERRUPTIBLE) -> int:
        """Sleep for ``ns`` virtual nanoseconds; returns what was left when a signal ended it early, else 0."""
        task = self.current
        left = ns
        while left > 0:
            task.state = state
            task.waiting_on = f"{left} ns to pass"
            left = self.schedule_timeout(left)
            if left and signal_pending_state(state, task):
                return left
        return 0

    def wake_up(self, task: Task, mode: int = NORMAL) -> bool:
        """Make ``task`` runnable if its state is one of ``mode``; true if it was. It runs when its turn comes."""
        if not task.state & mode:
            return False
        task.state = RUNNING
        task.waiting_on = None
        self.work.wakeups += 1
        if not task.on_rq:
            task.on_rq = True
            self._runq.append(task)
        for instrument in self.instruments:
            instrument.task_woken(task)
        return True

    def signal_wake_up(self, task: Task, fatal: bool = False) -> bool:
        """A signal is pending for ``task`` (``fatal``: one that kills it): end the sleeps that a signal may end."""
        task.signal_pending = True
        if fatal:
            task.fatal_signal_pending = True
        return self.wake_up(task, INTERRUPTIBLE | WAKEKILL if fatal else INTERRUPTIBLE)

    def might_sleep(self, where: str) -> None:
        """Raise ``InvariantBroken`` if the current context must not sleep."""
        task = self.current
        if not (self.in_irq or task.preempt_count or task.irqs_off):
            return
        why = "in a timer callback" if self.in_irq else "with interrupts off"
        if task.preempt_count:
            names = ", ".join(held.name for held in task.held if held.spinning) or f"{task.preempt_count} spinlock(s)"
            why = f"while holding {names}"
        text = f"sleeping function called from invalid context: {where} by {task} {why}"
        if self.lockdep is None or self.in_irq:
            raise InvariantBroken(text)
        self.lockdep.report(text)

    # ---- giving the CPU away without sleeping

    def yield_(self) -> None:
        """Let the others run first; a no-op when nobody else is runnable."""
        self.might_sleep("yield")
        if self._runq:
            self.preempt()

    def cond_resched(self) -> None:
        """A place where long kernel work offers the CPU: in a run-to-block world only the hook takes it."""
        hook = self.hook
        if hook is not None:
            hook("cond_resched")

    def preempt(self) -> None:
        """Go to the end of the run queue, from any context but a timer callback (there it does nothing)."""
        if self.in_irq:
            return
        task = self.current
        self._runq.append(task)
        self._switch_out(task)

    def cpu_relax(self, what: str) -> None:
        """One turn of a busy loop that waits for another CPU to do ``what``; ``Deadlock`` if nobody can."""
        if not self._runq and not self.clock.jump():
            raise Deadlock(report(self, f"{self.current} spins for ever: waits for {what}"))
        self.preempt()

    def park(self, why: WaitsFor | str) -> None:
        """Take the current task off its CPU, whatever it holds, until ``unpark``; for hooks and spinning."""
        task = self.current
        if self.in_irq:
            what = why if isinstance(why, str) else why.describe_wait(task)
            raise Deadlock(report(self, f"a timer callback waits for {what}"))
        before, task.waiting_on = task.waiting_on, why
        task.blocked_since = self.clock.now
        self._parked.append(task)
        try:
            self._switch_out(task)
        finally:
            if task in self._parked:
                self._parked.remove(task)
            task.waiting_on = before

    def unpark(self, task: Task) -> None:
        """A parked task may go on; no-op if it is not parked."""
        if task in self._parked:
            self._parked.remove(task)
            task.waiting_on = None
            self._runq.append(task)

    def local_irq_disable(self) -> None:
        """Timer callbacks wait until interrupts are on again (nests)."""
        self.current.irqs_off += 1

    def local_irq_enable(self) -> None:
        """Undo one ``local_irq_disable``; callbacks that came due meanwhile run now."""
        task = self.current
        task.irqs_off -= 1
        if task.irqs_off == 0 and self.clock.due():
            self._interrupt()

    # ---- the hub

    def step(self) -> bool:
        """Run the next runnable task until it blocks, else jump to the next timer; false if there was neither."""
        self._hub_only("step")
        return self._run_one() or self._jump()

    def run_until_idle(self) -> None:
        """Run until nobody is runnable at the present moment; the clock does not jump."""
        self._hub_only("run_until_idle")
        while self._run_one():
            pass

    def run(self, until: Task | int | Callable[[], bool]) -> None:
        """Run until a task has ended, until virtual time ``until`` (ns), or until a condition holds.

        Raises ``Deadlock`` when that can not happen any more.
        """
        self._hub_only("run")
        if isinstance(until, int):
            while self.clock.now <= until and (self._run_one() or self._jump(until)):
                pass
        elif isinstance(until, Task):
            while until.state != DEAD:
                if not (self._run_one() or self._jump()):
                    raise Deadlock(report(self, f"{until} never ends"))
        else:
            while not until():
                if not (self._run_one() or self._jump()):
                    raise Deadlock(report(self, "what was waited for never happens"))

    def runnable(self) -> tuple[Task, ...]:
        """The run queue, in order."""
        return tuple(self._runq)

    def close(self) -> None:
        """Tear down: every task of its own is unwound with ``GreenletExit``, every timer cancelled. Idempotent."""
        self._hub_only("close")
        self.hook = None
        self.policy = None
        self._closing = True
        # Whoever sleeps, waits for its turn or is parked has live frames. A task that lends its greenlet to another
        # does none of these; the other's unwinding reaches it.
        waiting = [task for task in self.tasks.values() if task.blocked or task in self._parked or task in self._runq]
        self._runq.clear()
        try:
            for task in waiting:
                if task.greenlet is not None:
                    self._throw(task)
            for task in list(self.tasks.values()):
                self.exit_task(task)
        finally:
            self._closing = False
            self.closed = True
            self.clock.clear()
            self._runq.clear()
            self._parked.clear()
            self._hub = None
            self.current = self.host

    def _throw(self, task: Task) -> None:
        stack = task.greenlet
        assert stack is not None
        self._hub = stack.parent = getcurrent()
        task.on_rq = True
        task.state = RUNNING
        self.current = task
        stack.throw(GreenletExit)
        self.current = self.host
        self._reraise()

    def _hub_only(self, what: str) -> None:
        if self.current is not self.host:
            raise BadInput(f"{what}() is for the hub, not for {self.current}")

    def _run_one(self) -> bool:
        task = self._pick()
        if task is None:
            return False
        self.current = self.idle
        try:
            self._resume(task)
        finally:
            self.current = self.host
        return True

    def _jump(self, limit: int | None = None) -> bool:
        before = self.clock.now
        jumped = self.clock.jump(limit)
        for instrument in self.instruments if self.clock.now != before else ():
            instrument.clock_jumped(before, self.clock.now)
        return jumped

    def _interrupt(self) -> None:
        """Timer callbacks that are due: as the idle task, on top of whoever is current; later with interrupts off."""
        prev = self.current
        if self.in_irq or prev.irqs_off:
            return
        self.current = self.idle
        self.in_irq = True
        try:
            self.clock.run_due()
        finally:
            self.in_irq = False
            self.current = prev

    def _pick(self) -> Task | None:
        """The next task to run, taken off the queue; None if nobody is runnable on a free CPU."""
        runq = self._runq
        if not runq:
            return None
        if not self._pins and self.policy is None:
            return runq.popleft()
        pinned = self._pinned
        choice = [task for task in runq if pinned[task.cpu] is None or pinned[task.cpu] is task]
        if not choice:
            return None
        task = choice[0 if self.policy is None else self.policy.choose(choice)]
        runq.remove(task)
        return task

    def _resume(self, task: Task) -> None:
        """Hub: give the CPU to a task with a greenlet until it blocks or ends; raise what it raised."""
        if self._pinned[task.cpu] is task:
            self._pinned[task.cpu] = None
            self._pins -= 1
        hub = self._hub = getcurrent()
        stack = task.greenlet
        self.work.switches += 1
        for instrument in self.instruments:
            instrument.task_switched(self.idle, RUNNING, task)
        self.current = task
        if stack is None:
            task.greenlet = stack = greenlet(self._bootstrap, hub)
            stack.switch(task)
        else:
            if stack.parent is not hub:
                stack.parent = hub
            stack.switch()
        gone, self.current = self.current, self.idle
        for instrument in self.instruments:
            instrument.task_switched(gone, gone.state, self.idle)
        self._reraise()

    def _reraise(self) -> None:
        crash, self._crash = self._crash, None
        if crash is not None:
            raise crash

    def _switch_out(self, task: Task) -> None:
        """The current task gives up the CPU; returns when it has it again."""
        if self._closing:
            task.on_rq = True
            raise GreenletExit
        if task.preempt_count or task.irqs_off:
            self._pinned[task.cpu] = task
            self._pins += 1
        if task.greenlet is None:
            self._run_others(task)
        else:
            assert self._hub is not None
            self._hub.switch()

    def _run_others(self, task: Task) -> None:
        """A task in the hub has given up the CPU: run the others until its turn comes again."""
        for instrument in self.instruments:
            instrument.task_switched(task, task.state, self.idle)
        self.current = self.idle
        try:
            while True:
                next_ = self._pick()
                if next_ is task:
                    break
                if next_ is not None:
                    self._resume(next_)
                else:
                    self._wait_for_timer(task)
        except BaseException:
            # Another task's exception, or a deadlock, ends this wait: the task goes on with it.
            if task in self._runq:
                self._runq.remove(task)
            task.on_rq = True
            task.state = RUNNING
            raise
        finally:
            if self._pinned[task.cpu] is task:
                self._pinned[task.cpu] = None
                self._pins -= 1
            self.current = task
        for instrument in self.instruments:
            instrument.task_switched(self.idle, RUNNING, task)

    def _wait_for_timer(self, task: Task) -> None:
        """Nobody is runnable, and ``task`` waits in the hub."""
        when = self.clock.next_expiry()
        if when is None:
            raise Deadlock(report(self, f"{task} can never go on"))
        if task.timer is None and self.hung_ns is not None and when - task.blocked_since > self.hung_ns:
            seconds = self.hung_ns / SEC
            raise Deadlock(report(self, f"{task} blocked for more than {seconds:g} seconds of virtual time"))
        self._jump()

    # ---- questions

    def blocked_tasks(self) -> list[Task]:
        """Every task that sleeps or is parked by a hook, the hub's own first."""
        everyone = [self.host, *self.tasks.values()]
        return [task for task in everyone if task.blocked or task in self._parked]

    def held_up(self) -> list[tuple[Task, Task]]:
        """Runnable tasks whose CPU is taken, each with the one that has preemption disabled on it."""
        pairs = [(task, self._pinned[task.cpu]) for task in self._runq]
        return [(task, holder) for task, holder in pairs if holder is not None and holder is not task]

    # ---- randomness

    def stream(self, name: str) -> Random:
        """A random stream of its own for each component: the same seed and name give the same numbers."""
        return Random(f"{self.seed}/{name}")
