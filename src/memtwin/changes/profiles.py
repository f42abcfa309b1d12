# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles: which changes are on, and which value each knob has, for a named kernel.

========== =========================================================================================
``before``  none of the catalogue, no knob: the 6.6 shape of what the catalogue touches
``6.7``     all of the catalogue, no knob: 6.7-rc1, the default
``X.Y[.Z]`` any other release: every change and knob value whose release is at most that release
``host``    the same for the kernel that runs here (``uname -r``)
========== =========================================================================================

A bracket such as ``6.7.3-6.12`` counts as present from its upper end on. A release inside the bracket is *undecided*:
the knob stays off and is named in ``Profile.undecided``, so that a comparison can leave out what depends on it. A knob
"not observed" anywhere is never on by a profile.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from memtwin.changes.catalogue import CHANGES, KNOBS, Knob, Release, parse_release
from memtwin.errors import BadInput

__all__ = ["BASE", "NEWEST_KNOWN", "Profile", "profile"]

BASE: Release = (6, 7, 0)
NEWEST_KNOWN: Release = (6, 18, 0)
"""The newest release whose differences were looked at; a newer one gets a warning and the newest knobs."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a named kernel has: change ids, knob values other than "off", and lines a user should see once."""

    name: str
    changes: tuple[str, ...]
    knobs: dict[str, str]
    undecided: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _knob_value(knob: Knob, release: Release) -> tuple[str, bool]:
    """Value of ``knob`` on ``release``, and whether the release lies inside a bracket."""
    value = "off"
    undecided = False
    for since in knob.since:
        upper, lower = since.upper, since.lower
        if upper is not None and release >= upper:
            value = since.value
        elif lower is not None and release > lower:
            undecided = True
    return value, undecided


def _short(release: Release) -> str:
    major, minor, stable = release
    return f"{major}.{minor}.{stable}" if stable else f"{major}.{minor}"


def _for_release(name: str, release: Release) -> Profile:
    knobs: dict[str, str] = {}
    undecided: list[str] = []
    for knob in KNOBS:
        value, open_ = _knob_value(knob, release)
        if value != "off":
            knobs[knob.id] = value
        if open_:
            undecided.append(knob.id)
    notes: list[str] = []
    if release < BASE:
        notes.append(
            f"Linux {_short(release)} is older than {_short(BASE)}: only what both share can be compared "
            "(some changes were back-ported to stable releases)"
        )
    elif release[:2] > NEWEST_KNOWN[:2]:
        newest = _short(NEWEST_KNOWN)
        notes.append(f"Linux {_short(release)} is newer than {newest}, the newest known: using what {newest} has")
    on = tuple(change.id for change in CHANGES if parse_release(change.release) <= release)
    return Profile(name, on, knobs, tuple(undecided), tuple(notes))


def profile(name: str = "6.7", *, release: str | None = None) -> Profile:
    """The profile ``name``; for "host", ``release`` stands in for ``uname -r``.

    Raises BadInput for a name that is neither a profile nor a kernel release.
    """
    if name == "before":
        return Profile(name, (), {})
    if name == "host":
        return _for_release(name, parse_release(release or os.uname().release))
    try:
        wanted = parse_release(name)
    except BadInput:
        raise BadInput(f"unknown kernel '{name}': use before, 6.7, host or a release such as 6.12") from None
    return _for_release(name, wanted)
