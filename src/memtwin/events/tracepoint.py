# SPDX-License-Identifier: GPL-2.0-or-later
"""Tracepoints of one machine: slots that are ``None`` when off (include/linux/tracepoint.h in purpose).

The code that fires one pays a test when it is off::

    trace = tp.mm_page_alloc
    if trace is not None:
        trace(pfn, order, gfp, migratetype)

Any number of sinks can listen to a point. Who fires knows none of them; a sink gets the virtual time, the current task,
the point and the values. Values are integers, strings, booleans, ``None``, reasons (``reason.py``), or tuples of these.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from memtwin.errors import BadInput, InvariantBroken
from memtwin.events.points import POINTS, Point
from memtwin.events.reason import Because

if TYPE_CHECKING:
    from memtwin.sched import Scheduler, Task

__all__ = ["Event", "JsonLines", "MemorySink", "Probe", "Sink", "Tracepoints"]

Probe = Callable[..., None]


class Sink(Protocol):
    """Where events go. Must not block, and must not change the machine."""

    def emit(self, ts: int, task: Task, point: Point, values: tuple[Any, ...]) -> None:
        """One event: ``ts`` virtual ns, ``task`` that was current, ``values`` as ``point.fields``."""
        ...


class Tracepoints:
    """One attribute for each name of ``points.POINTS``: ``None``, or what to call with the values of its fields."""

    __slots__ = ("_sched", "_sinks", *POINTS)

    def __init__(self, sched: Scheduler) -> None:
        self._sched: Final = sched
        self._sinks: Final[dict[str, tuple[Sink, ...]]] = {}
        for name in POINTS:
            setattr(self, name, None)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Probe | None: ...

    def enable(self, pattern: str, sink: Sink) -> list[str]:
        """Let ``sink`` hear the points that ``pattern`` names; returns their names.

        ``pattern`` is a name, ``category:name``, or a glob of either. A sink that hears a point already does not hear
        it twice. Raises ``BadInput`` if nothing matches.
        """
        names = self._matching(pattern)
        for name in names:
            if sink not in self._sinks.get(name, ()):
                self._set(name, (*self._sinks.get(name, ()), sink))
        return names

    def disable(self, pattern: str = "*", sink: Sink | None = None) -> list[str]:
        """Undo ``enable`` for one sink, or for all (``None``); returns the names of the points that changed."""
        changed = []
        for name in self._matching(pattern):
            before = self._sinks.get(name, ())
            after = tuple(each for each in before if sink is not None and each is not sink)
            if after != before:
                self._set(name, after)
                changed.append(name)
        return changed

    def enabled(self) -> list[str]:
        """The points somebody listens to, in the order of the table."""
        return [name for name in POINTS if name in self._sinks]

    def _matching(self, pattern: str) -> list[str]:
        names = [
            name
            for name, point in POINTS.items()
            if fnmatchcase(name, pattern) or fnmatchcase(point.full_name, pattern)
        ]
        if not names:
            raise BadInput(f"no tracepoint is called {pattern!r}")
        return names

    def _set(self, name: str, sinks: tuple[Sink, ...]) -> None:
        if sinks:
            self._sinks[name] = sinks
            setattr(self, name, self._probe(POINTS[name], sinks))
        else:
            self._sinks.pop(name, None)
            setattr(self, name, None)

    def _probe(self, point: Point, sinks: tuple[Sink, ...]) -> Probe:
        sched = self._sched
        clock = sched.clock
        count = len(point.fields)

        def fire(*values: Any) -> None:
            if len(values) != count:
                raise InvariantBroken(f"{point.name} has {count} fields {point.fields}, fired with {len(values)}")
            for sink in sinks:
                sink.emit(clock.now, sched.current, point, values)

        return fire


def _plain(value: object, point: Point) -> object:
    """A value as JSON has it, the same bytes on every run; refuses what prints with an address."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Because):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(each, point) for each in value]
    raise InvariantBroken(f"{point.name} carries a {type(value).__name__}; events carry numbers, text and reasons")


class JsonLines:
    """One JSON object a line: ``ts`` (virtual ns), ``task`` (``name-tid``), ``event``, then the event's fields."""

    def __init__(self, fh: IO[str]) -> None:
        self._fh: Final = fh

    def emit(self, ts: int, task: Task, point: Point, values: tuple[Any, ...]) -> None:
        record: dict[str, object] = {"ts": ts, "task": f"{task.name}-{task.tid}", "event": point.name}
        for field, value in zip(point.fields, values, strict=True):
            record[field] = _plain(value, point)
        self._fh.write(json.dumps(record, separators=(",", ":")) + "\n")


@dataclass(frozen=True, slots=True)
class Event:
    """What ``MemorySink`` keeps; fields by name in ``fields``."""

    ts: int
    task: str
    name: str
    fields: dict[str, Any]


class MemorySink:
    """Keeps events in a list, for tests."""

    def __init__(self) -> None:
        self.events: Final[list[Event]] = []

    def emit(self, ts: int, task: Task, point: Point, values: tuple[Any, ...]) -> None:
        self.events.append(Event(ts, str(task), point.name, dict(zip(point.fields, values, strict=True))))

    def named(self, name: str) -> list[Event]:
        """The events of one tracepoint."""
        return [event for event in self.events if event.name == name]

    def clear(self) -> None:
        """Forget what was kept."""
        self.events.clear()
