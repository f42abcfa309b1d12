# SPDX-License-Identifier: GPL-2.0-or-later
"""The record types of the catalogue: a change of the Linux tree, and a knob for a later visible difference.

Pure data, no behaviour beyond release arithmetic. Releases are tuples ``(major, minor, stable)`` so that they compare;
an ``-rcN`` counts as its release, because the merge window (where all of this happens) is closed at rc1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from memtwin.errors import BadInput

__all__ = ["Change", "Klass", "Knob", "Release", "Since", "parse_release"]

Klass = Literal["behaviour", "race", "perf", "structure", "diagnostic", "tooling"]
Release = tuple[int, int, int]

_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?!\d)")


def parse_release(text: str) -> Release:
    """``"6.18.4-arch1"`` -> (6, 18, 4); ``"6.7-rc1"`` -> (6, 7, 0).

    Distribution suffixes are ignored. Raises BadInput when the text does not begin with a release number.
    """
    match = _RELEASE.match(text)
    if match is None:
        raise BadInput(f"'{text}' is not a kernel release such as 6.7 or 6.18.4")
    major, minor, stable = match.groups(default="0")
    return int(major), int(minor), int(stable)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the catalogue, on or off in a machine.

    ``date`` is ISO, or shorter where only month or year are known, or "" when the sources do not tell it. ``klass`` is
    the main class, ``also`` further ones. ``needs`` are ids without which the change has no meaning; ``wants`` are ids
    without which it works, but does less (said in ``summary``). ``backported`` names stable series known to carry it,
    which therefore do not show the before side.
    """

    id: str
    title: str
    author: str
    date: str
    klass: Klass
    subsystem: str
    summary: str
    series: str = ""
    release: str = "6.7"
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    also: tuple[Klass, ...] = ()
    backported: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Since:
    """From which release on a knob has a value: the exact release, or the observed bracket.

    A bracket ``"6.7.3-6.12"`` means: not in 6.7.3, there in 6.12; a kernel in between may or may not have it, so only
    its upper end counts as "has it". ``"not observed"`` never counts.
    """

    value: str
    release: str

    @property
    def lower(self) -> Release | None:
        """Newest release known to lack it (a bracket only)."""
        low, dash, _ = self.release.partition("-")
        return parse_release(low) if dash else None

    @property
    def upper(self) -> Release | None:
        """Oldest release known to have it; None when never observed."""
        if self.release == "not observed":
            return None
        return parse_release(self.release.rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class Knob:
    """A visible difference of a later kernel that is no change of the catalogue; ``off`` is 6.7-rc1.

    ``since`` is in order of age: a knob of two values has "off" and "on", others name their values.
    """

    id: str
    subsystem: str
    summary: str
    since: tuple[Since, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """All values, "off" first, then by age."""
        return ("off", *(s.value for s in self.since))
