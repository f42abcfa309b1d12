# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual clock and its timers (kernel/time/, as far as a model needs it).

Time is an integer count of nanoseconds. It moves when somebody says how long work took (``advance``) and when everyone
sleeps (``jump``: straight to the next timer). Nothing here reads the host's clock.

Timers that are due together run in the order in which they were armed. A callback runs as an interrupt would: it may
wake tasks and arm timers, and may not sleep. Inside a callback ``now`` is at or after the time it was armed for.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from memtwin.errors import BadInput

__all__ = ["MSEC", "NSEC", "SEC", "USEC", "Clock", "Timer"]

NSEC: Final = 1
USEC: Final = 1_000
MSEC: Final = 1_000_000
SEC: Final = 1_000_000_000


class Timer:
    """One armed callback. ``cancel()`` is idempotent; a cancelled timer never fires."""

    __slots__ = ("callback", "name", "when")

    def __init__(self, when: int, callback: Callable[[], None], name: str) -> None:
        self.when: Final = when  #: virtual ns
        self.callback: Callable[[], None] | None = callback  #: None: fired or cancelled
        self.name: Final = name

    @property
    def pending(self) -> bool:
        """Armed, and neither fired nor cancelled."""
        return self.callback is not None

    def cancel(self) -> bool:
        """Disarm; true if the timer was still pending."""
        pending = self.callback is not None
        self.callback = None
        return pending

    def __repr__(self) -> str:
        return f"<Timer {self.name} at {self.when} ns{'' if self.pending else ', done'}>"


class Clock:
    """Virtual time in nanoseconds since boot.

    ``on_due`` is called by ``advance`` when timers have come due; the scheduler puts its interrupt entry there, which
    calls ``run_due`` at once or, with interrupts off, later. By itself the clock calls ``run_due``.
    """

    __slots__ = ("_heap", "_seq", "now", "on_due")

    def __init__(self, now: int = 0) -> None:
        self.now = now
        self._heap: list[tuple[int, int, Timer]] = []
        self._seq = 0
        self.on_due: Callable[[], None] = self.run_due

    def timer_at(self, when: int, callback: Callable[[], None], name: str = "timer") -> Timer:
        """Arm ``callback`` for virtual time ``when`` (ns); a time in the past is due at once."""
        timer = Timer(when, callback, name)
        self._seq += 1
        heapq.heappush(self._heap, (when, self._seq, timer))
        return timer

    def timer_in(self, delay: int, callback: Callable[[], None], name: str = "timer") -> Timer:
        """Arm ``callback`` for ``delay`` ns from now."""
        return self.timer_at(self.now + delay, callback, name)

    def next_expiry(self) -> int | None:
        """When the next pending timer fires (virtual ns); None without one."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self) -> bool:
        """Whether a pending timer should have fired by now."""
        when = self.next_expiry()
        return when is not None and when <= self.now

    def advance(self, ns: int) -> None:
        """Let ``ns`` nanoseconds of work pass; timers that come due on the way fire at the end of it."""
        if ns < 0:
            raise BadInput(f"the clock can not go back by {-ns} ns")
        self.now += ns
        if self._heap and self._heap[0][0] <= self.now:
            self.on_due()

    def jump(self, limit: int | None = None) -> bool:
        """Everyone sleeps: go to the next timer and fire what is due then.

        False without a timer, or with none until ``limit`` (then the clock stands at ``limit`` or where it was, if
        later).
        """
        when = self.next_expiry()
        if when is None or (limit is not None and when > limit):
            if limit is not None:
                self.now = max(self.now, limit)
            return False
        self.now = max(self.now, when)
        self.on_due()
        return True

    def run_due(self) -> None:
        """Fire every pending timer that is due, in order; those that callbacks arm for now or earlier as well."""
        heap = self._heap
        while heap and heap[0][0] <= self.now:
            timer = heapq.heappop(heap)[2]
            callback = timer.callback
            if callback is not None:
                timer.callback = None
                callback()

    def clear(self) -> None:
        """Cancel everything that is armed."""
        for _, _, timer in self._heap:
            timer.callback = None
        self._heap.clear()
