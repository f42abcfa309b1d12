# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing the changes of one machine: profile + ``with`` - ``without`` -> ``Features``, frozen at boot.

The rule of ``needs``: what the user names wins over the profile, and what follows from it is silent.
``with X`` also switches on what X needs; ``without X`` also switches off what needs X. Only two *named* ids that
contradict each other (``with`` a change, ``without`` one it needs; or both of the same id) are an error. Experiments
that show exactly such a broken combination pass ``ignore_needs=True``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from memtwin.changes.catalogue import CHANGE_BY_ID, CHANGES, KNOB_BY_ID, KNOBS, Change, Knob
from memtwin.changes.profiles import profile
from memtwin.errors import BadInput

__all__ = ["Features", "lookup", "resolve"]


@dataclass(frozen=True, slots=True)
class Features:
    """The changes and knob values of one machine. Immutable; a subsystem copies the bits it cares about when it is
    built."""

    kernel: str
    _changes: frozenset[str] = field(repr=False)
    _knobs: tuple[tuple[str, str], ...] = field(repr=False)
    undecided: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def has(self, id_: str) -> bool:
        """Is this change on, or this knob anything but "off"? Raises BadInput for an unknown id."""
        if id_ in CHANGE_BY_ID:
            return id_ in self._changes
        return self.value(id_) != "off"

    def value(self, knob: str) -> str:
        """Value of a knob: "off", "on" or one of its named values. Raises BadInput for an unknown knob."""
        if knob not in KNOB_BY_ID:
            raise BadInput(_unknown(knob, "knob" if knob.startswith("post-") else "change"))
        return dict(self._knobs).get(knob, "off")

    def ids(self) -> tuple[str, ...]:
        """Every change that is on and every knob that is not off, in catalogue order."""
        return (*(change.id for change in CHANGES if change.id in self._changes), *(id_ for id_, _ in self._knobs))


def _unknown(id_: str, what: str) -> str:
    known = [*CHANGE_BY_ID, *KNOB_BY_ID]
    close = difflib.get_close_matches(id_, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else "`memtwin changes` lists them"
    return f"unknown {what} '{id_}': {hint}"


def lookup(id_: str) -> Change | Knob:
    """The catalogue's record for an id. Raises BadInput, with the closest ids, when there is none."""
    found: Change | Knob | None = CHANGE_BY_ID.get(id_) or KNOB_BY_ID.get(id_)
    if found is None:
        raise BadInput(_unknown(id_, "change"))
    return found


def _needs(id_: str) -> list[str]:
    """All ids that ``id_`` needs, directly or not, nearest first."""
    found: list[str] = []
    todo = list(CHANGE_BY_ID[id_].needs)
    for need in todo:
        if need not in found:
            found.append(need)
            todo.extend(CHANGE_BY_ID[need].needs)
    return found


def _split(wanted: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Names given by a user -> (change ids, knob values). ``knob=value`` picks a value, a bare knob its newest."""
    changes: list[str] = []
    knobs: dict[str, str] = {}
    for text in wanted:
        id_, equals, value = text.partition("=")
        record = lookup(id_)
        if isinstance(record, Change):
            if equals:
                raise BadInput(f"'{id_}' is a change and takes no value")
            changes.append(id_)
            continue
        if equals and value not in record.values:
            raise BadInput(f"'{id_}' has no value '{value}': use {', '.join(record.values)}")
        knobs[id_] = value if equals else record.values[-1]
    return changes, knobs


def _excluded(wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """Ids given with ``without`` -> (change ids, knob ids); a value makes no sense there."""
    wanted = list(wanted)
    for text in wanted:
        if "=" in text:
            raise BadInput(f"'{text}': what is excluded takes no value")
    changes, knobs = _split(wanted)
    return changes, list(knobs)


def _check_conflicts(plus: list[str], minus: list[str]) -> None:
    for id_ in plus:
        for need in _needs(id_):
            if need in minus:
                raise BadInput(f"'{id_}' needs '{need}', which is excluded")


def resolve(
    kernel: str = "6.7",
    with_: Iterable[str] = (),
    without: Iterable[str] = (),
    *,
    ignore_needs: bool = False,
    release: str | None = None,
) -> Features:
    """The features of a machine of profile ``kernel``, plus ``with_``, minus ``without``.

    ``release`` replaces ``uname -r`` for profile "host". Raises BadInput for an unknown id, kernel or value, and for
    two named ids that contradict each other.
    """
    base = profile(kernel, release=release)
    plus, knobs_plus = _split(with_)
    minus, knobs_minus = _excluded(without)
    for id_ in (*plus, *knobs_plus):
        if id_ in minus or id_ in knobs_minus:
            raise BadInput(f"'{id_}' is both asked for and excluded")
    added, dropped = plus, minus
    if not ignore_needs:
        _check_conflicts(plus, minus)
        added = [id_ for name in plus for id_ in (name, *_needs(name))]
        dropped = [change.id for change in CHANGES if change.id in minus or any(n in minus for n in _needs(change.id))]
    values = {**base.knobs, **knobs_plus, **dict.fromkeys(knobs_minus, "off")}
    return Features(
        kernel=kernel,
        _changes=frozenset((*base.changes, *added)).difference(dropped),
        _knobs=tuple((knob.id, values[knob.id]) for knob in KNOBS if values.get(knob.id, "off") != "off"),
        undecided=tuple(id_ for id_ in base.undecided if id_ not in knobs_plus and id_ not in knobs_minus),
        notes=base.notes,
    )
