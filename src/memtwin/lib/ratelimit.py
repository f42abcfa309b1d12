# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages that could come without end (Linux: lib/ratelimit.c)."""

from __future__ import annotations

__all__ = ["Ratelimit"]


class Ratelimit:
    """Lets ``burst`` messages through in ``interval`` virtual ns, counted from the first; Linux's own numbers unless
    given. ``missed`` counts the others.
    """

    __slots__ = ("_begin", "_burst", "_interval", "_printed", "missed")

    def __init__(self, interval: int = 5_000_000_000, burst: int = 10) -> None:
        self._interval = interval
        self._burst = burst
        self._begin = -1
        self._printed = 0
        self.missed = 0

    def allows(self, now: int) -> bool:
        """Whether a message at ``now`` may be told."""
        if self._begin < 0 or now > self._begin + self._interval:
            self._begin = now
            self._printed = 0
        if self._printed < self._burst:
            self._printed += 1
            return True
        self.missed += 1
        return False
