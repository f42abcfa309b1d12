# SPDX-License-Identifier: GPL-2.0-or-later
"""Why the kernel decided as it did: the base of the small enums that stand next to the code that decides.

A subsystem names its reasons once, and hands one out with every refusal or choice a user could wonder about::

    class NoMerge(Reason):
        FLAGS_DIFFER = auto()          #: detail: the flags
        ANON_VMA_INCOMPATIBLE = auto()

    return NoMerge.FLAGS_DIFFER("VM_ACCOUNT")       # prints as FLAGS_DIFFER(VM_ACCOUNT)

A bare member and one with detail can be used alike: both have ``reason`` and ``detail``, both print as what they mean,
and ``because.reason is NoMerge.FLAGS_DIFFER`` asks which it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

__all__ = ["Because", "Reason"]


class Reason(StrEnum):
    """Base class without members. ``auto()`` makes a member's value its name: what reports and traces show."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    def __call__(self, *detail: object) -> Because:
        """This reason with what it is about, in words or numbers."""
        return Because(self, tuple(str(part) for part in detail))

    @property
    def reason(self) -> Self:
        """The reason without detail: itself."""
        return self

    @property
    def detail(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class Because:
    """A reason with its detail; equal if both are."""

    reason: Reason
    detail: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.reason}({', '.join(self.detail)})" if self.detail else str(self.reason)
