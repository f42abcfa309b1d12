# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock checker (kernel/locking/lockdep.c in purpose; the classes and their order are declared in
``lock_order.py``).

It follows which locks each task holds and reports, on the first run that *could* go wrong rather than the one that
does: a lock taken against the declared order; two classes without a declared order taken both ways round; the same
lock twice; a sleeping lock or a sleep inside a spinlock; a class that timer callbacks take, taken elsewhere with
interrupts on; a release by somebody who does not hold the lock; a missing "must hold"; locks held on return to user
mode.

A try-lock can not deadlock and is exempt from order, but what is taken under it is not. Readers count as writers: our
semaphores are fair, so a reader can wait behind a writer.

Cost: nothing when off (locks keep ``None`` instead of the checker); when on, a few microseconds per lock. For tests.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from types import CodeType
from typing import TYPE_CHECKING, Final

from memtwin.errors import Deadlock, InvariantBroken
from memtwin.sched.lock_order import CHAINS, CLASSES, Chain, Kind, LockClass

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler
    from memtwin.sched.task import Task

__all__ = ["Held", "Lockdep", "declared_order", "lock_order_markdown"]

_HERE: Final = __file__.rpartition("/")[0]

IN_IRQ: Final = 1
IRQS_ON: Final = 2


class Held:
    """One lock held by a task. ``lock``: the lock object, or a value that stands for it (a pfn for a folio lock)."""

    __slots__ = ("_at", "_code", "cls", "lock", "name", "read", "spinning", "subclass")

    def __init__(self, lock: object, cls: LockClass, read: bool, subclass: int) -> None:
        self.lock: Final = lock
        self.cls: Final = cls
        self.name: Final = cls.name
        self.read = read
        self.subclass: Final = subclass
        self.spinning: Final = cls.kind is Kind.SPIN
        self._code, self._at = _site()

    @property
    def site(self) -> str:
        """``file.py:line function`` where the lock was taken."""
        return _site_name(self._code, self._at)

    def __str__(self) -> str:
        mode = " (read)" if self.read else ""
        return f"{self.name}{f'/{self.subclass}' if self.subclass else ''}{mode} [{self.site}]"


def _site() -> tuple[CodeType, int]:
    """The nearest caller outside this package: its code, and the instruction it is at (cheaper than the line)."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def _site_name(code: CodeType, at: int) -> str:
    _, found, inside = code.co_filename.rpartition("/memtwin/")
    line = next((line for start, end, line in code.co_lines() if start <= at < end), None)
    return f"{inside if found else code.co_filename.rpartition('/')[2]}:{line} {code.co_name}"


def declared_order(chains: tuple[Chain, ...] = CHAINS) -> dict[str, dict[str, str]]:
    """For each class every class that may be taken inside it, and the title of a chain that says so (closure of the
    chains).

    Raises ``InvariantBroken`` if the chains contradict each other.
    """
    inner: dict[str, dict[str, str]] = {}
    for chain in chains:
        for outer, after in pairwise(chain.classes):
            inner.setdefault(outer, {}).setdefault(after, chain.title)
            inner.setdefault(after, {})
    closure: dict[str, dict[str, str]] = {}
    for start in inner:
        reached: dict[str, str] = {}
        todo = list(inner[start].items())
        while todo:
            name, title = todo.pop(0)
            if name not in reached:
                reached[name] = title
                todo += inner[name].items()
        if start in reached:
            raise InvariantBroken(f"the declared lock order has a cycle through {start} ({reached[start]})")
        closure[start] = reached
    return closure


class Lockdep:
    """The checker of one scheduler. With ``collect`` violations go to ``reports`` instead of being raised."""

    __slots__ = ("_classes", "_edges", "_order", "_sched", "_usage", "acquisitions", "collect", "reports")

    def __init__(
        self,
        *,
        collect: bool = False,
        classes: tuple[LockClass, ...] = CLASSES,
        chains: tuple[Chain, ...] = CHAINS,
    ) -> None:
        self.collect = collect
        self.reports: Final[list[str]] = []
        self.acquisitions: Final[dict[str, int]] = {}  #: by class name
        self._classes: Final = {cls.name: cls for cls in classes}
        self._order: Final = declared_order(chains)
        self._edges: Final[dict[str, dict[str, str]]] = {}  #: learned: outer -> inner -> where it was seen
        self._usage: Final[dict[str, int]] = {}
        self._sched: Scheduler | None = None

    def attach(self, sched: Scheduler) -> None:
        """Called by the scheduler that uses this checker."""
        self._sched = sched

    @property
    def _current(self) -> Task:
        assert self._sched is not None
        return self._sched.current

    def report(self, text: str) -> None:
        """A violation: raise it, or keep it (each text once)."""
        if not self.collect:
            raise InvariantBroken(text)
        if text not in self.reports:
            self.reports.append(text)

    def class_of(self, name: str, kind: Kind) -> LockClass:
        """The declared class, or a new one without declared order and without nesting."""
        cls = self._classes.get(name)
        if cls is None:
            cls = self._classes[name] = LockClass(name, kind, "undeclared")
        elif cls.kind is not kind:
            self.report(f"lock class {name} is declared a {cls.kind}, and used as a {kind}")
        return cls

    # ---- taking and giving up

    def acquire(
        self,
        lock: object,
        name: str,
        kind: Kind,
        *,
        read: bool = False,
        subclass: int = 0,
        trylock: bool = False,
    ) -> None:
        """The current task is about to wait for ``lock`` of class ``name`` (or, ``trylock``, has just got it)."""
        sched = self._sched
        assert sched is not None
        task = sched.current
        cls = self.class_of(name, kind)
        new = Held(lock, cls, read, subclass)
        self.acquisitions[name] = self.acquisitions.get(name, 0) + 1
        if not trylock:
            if not new.spinning and (task.preempt_count or task.irqs_off or sched.in_irq):
                sched.might_sleep(f"taking {new}")
            for held in task.held:
                self._check_pair(task, held, new)
        if new.spinning:
            self._check_irq_use(new, sched.in_irq, task.irqs_off > 0)
        task.held.append(new)

    def release(self, lock: object, name: str) -> None:
        """The current task gives ``lock`` up."""
        held = self._current.held
        for i in range(len(held) - 1, -1, -1):
            if held[i].name == name and held[i].lock == lock:
                del held[i]
                return
        self.report(f"bad unlock balance: {self._current} releases {name}, which it does not hold [{_where()}]")

    def downgrade(self, lock: object, name: str) -> None:
        """A write lock of the current task becomes a read lock."""
        for held in self._current.held:
            if held.name == name and held.lock == lock and not held.read:
                held.read = True
                return
        self.report(f"{self._current} downgrades {name}, which it does not hold for writing [{_where()}]")

    def enter_context(self, name: str) -> None:
        """The current task enters a state that orders like a lock (``fs_reclaim``)."""
        self.acquire(name, name, Kind.CONTEXT)

    def leave_context(self, name: str) -> None:
        """Undo ``enter_context``."""
        self.release(name, name)

    def _check_pair(self, task: Task, held: Held, new: Held) -> None:
        if held.name == new.name and held.lock == new.lock:
            self.report(f"possible recursive locking: {task} takes {new} while holding {held}")
        elif held.name == new.name:
            self._check_nesting(task, held, new)
        elif new.name in self._order and held.name in self._order[new.name]:
            title = self._order[new.name][held.name]
            self.report(
                f"lock order violation: {task} takes {new} while holding {held}; "
                f"declared order is {new.name} -> {held.name} ({title})"
            )
        elif held.name not in self._order or new.name not in self._order[held.name]:
            self._learn(task, held, new)

    def _check_nesting(self, task: Task, held: Held, new: Held) -> None:
        rule = new.cls.nesting
        if rule == "subclass" and new.subclass > held.subclass:
            return
        if rule not in ("", "subclass") and any(other.name == rule and not other.read for other in task.held):
            return
        need = {"": "does not nest", "subclass": "needs a higher subclass"}.get(rule, f"needs {rule} held for writing")
        self.report(f"possible recursive locking: {task} takes {new} while holding {held}; the class {need}")

    def _learn(self, task: Task, held: Held, new: Held) -> None:
        inner = self._edges.setdefault(held.name, {})
        if new.name in inner:
            return
        path = self._path(new.name, held.name)
        if path is None:
            inner[new.name] = f"{task}: {held} then {new}"
            return
        known = "; ".join(self._edges.get(a, {}).get(b) or f"declared {a} -> {b}" for a, b in pairwise(path))
        self.report(f"possible circular locking: {task} takes {new} while holding {held}; the other way round: {known}")

    def _path(self, start: str, goal: str) -> list[str] | None:
        """A way from one class to another along declared and learned order, or None."""
        todo = [[start]]
        seen = {start: True}
        while todo:
            path = todo.pop(0)
            if path[-1] == goal:
                return path
            for name in (*self._edges.get(path[-1], ()), *self._order.get(path[-1], ())):
                if name not in seen:
                    seen[name] = True
                    todo.append([*path, name])
        return None

    def _check_irq_use(self, new: Held, in_irq: bool, irqs_off: bool) -> None:
        usage = self._usage.get(new.name, 0)
        usage |= IN_IRQ if in_irq else 0 if irqs_off else IRQS_ON
        self._usage[new.name] = usage
        if usage == IN_IRQ | IRQS_ON:
            how = "in a timer callback" if in_irq else "with interrupts on"
            other = "elsewhere with interrupts on" if in_irq else "in timer callbacks as well"
            self.report(f"inconsistent lock state: {self._current} takes {new} {how}; it is taken {other}")

    # ---- assertions

    def holds(self, lock: object, name: str, write: bool = False) -> bool:
        """Whether the current task holds ``lock`` of class ``name`` (``write``: not only for reading)."""
        return any(held.name == name and held.lock == lock and not (write and held.read) for held in self._current.held)

    def assert_held(self, lock: object, name: str) -> None:
        """The current task must hold ``lock``."""
        if not self.holds(lock, name):
            self.report(f"{name} must be held by {self._current} [{_where()}]")

    def assert_held_write(self, lock: object, name: str) -> None:
        """The current task must hold ``lock`` for writing."""
        if not self.holds(lock, name, write=True):
            mode = " is held for reading only and" if self.holds(lock, name) else ""
            self.report(f"{name}{mode} must be held for writing by {self._current} [{_where()}]")

    def check_no_locks_held(self, task: Task) -> None:
        """Nothing may be held: on return to user mode, at exit, in a kernel thread between two rounds."""
        left = list(task.held)
        if not (left or task.preempt_count or task.irqs_off):
            return
        # The task gets a clean sheet: what it forgot is reported once, here.
        task.held.clear()
        preempt, irqs = task.preempt_count, task.irqs_off
        task.preempt_count = task.irqs_off = 0
        if left:
            self.report(f"{task} returns to user mode with locks held: {', '.join(map(str, left))}")
        else:
            self.report(f"{task} returns to user mode with preempt_count {preempt}, interrupts off {irqs} times")

    def check_user_return(self, task: Task) -> None:
        """``check_no_locks_held``, unless the call ends because memtwin itself failed: that error is the one to see."""
        reason = sys.exc_info()[1]
        if reason is None or (isinstance(reason, Exception) and not isinstance(reason, (InvariantBroken, Deadlock))):
            self.check_no_locks_held(task)
        else:
            task.held.clear()


def _where() -> str:
    return _site_name(*_site())


def lock_order_markdown() -> str:
    """The text of docs/lock-order.md, from the declarations."""
    lines = [
        "# Lock order",
        "",
        "Generated from `memtwin/sched/lock_order.py` by `memtwin.sched.lockdep.lock_order_markdown()`; do not edit.",
        "",
        "A chain is read from outside to inside: while a lock is held, only locks further right may be taken. Chains",
        "combine where they share a class. Classes that no chain connects have no declared order; the checker learns",
        "one as it goes.",
        "",
        "## Chains",
        "",
    ]
    for chain in CHAINS:
        lines.append(f"- **{chain.title}**: {' → '.join(f'`{name}`' for name in chain.classes)}")
    lines += ["", "## Classes", "", "| class | kind | protects | two at once |", "|---|---|---|---|"]
    for cls in CLASSES:
        nesting = {"": "no", "subclass": "by subclass"}.get(cls.nesting, f"under `{cls.nesting}` (write)")
        lines.append(f"| `{cls.name}` | {cls.kind} | {cls.protects} | {nesting} |")
    return "\n".join(lines) + "\n"
