# SPDX-License-Identifier: GPL-2.0-or-later
"""``kernel.check()``: recompute everything that is kept incrementally and name the first thing that disagrees.

Each subsystem registers its own function, in boot order; a function raises :class:`~memtwin.errors.InvariantBroken`
through :func:`require`. Checks read state and never change it, work counters included.
"""

from __future__ import annotations

from collections.abc import Callable

from memtwin.errors import InvariantBroken

__all__ = ["Checks", "require"]


class Checks:
    """The registered invariant checks of one machine."""

    __slots__ = ("_checks",)

    def __init__(self) -> None:
        self._checks: list[tuple[str, Callable[[], None]]] = []

    def register(self, name: str, check: Callable[[], None]) -> None:
        """Add the check of subsystem ``name``."""
        self._checks.append((name, check))

    def run(self) -> None:
        """Run all checks. Raises InvariantBroken with the subsystem's name in front."""
        for name, check in self._checks:
            try:
                check()
            except InvariantBroken as broken:
                raise InvariantBroken(f"{name}: {broken}") from None


def require(condition: bool, message: str) -> None:
    """Raise InvariantBroken(message) unless ``condition`` holds."""
    if not condition:
        raise InvariantBroken(message)
