# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue as pure data: 71 changes of the 6.7 memory-management tree, and the knobs for later differences.

Order is that of the sources and is what users see; ids are unique over changes and knobs (checked by a test).
"""

from __future__ import annotations

from memtwin.changes.catalogue import hugetlb, ksm, vma
from memtwin.changes.catalogue.knobs import KNOBS
from memtwin.changes.catalogue.model import Change, Klass, Knob, Release, Since, parse_release

__all__ = [
    "CHANGES",
    "CHANGE_BY_ID",
    "KNOBS",
    "KNOB_BY_ID",
    "Change",
    "Klass",
    "Knob",
    "Release",
    "Since",
    "parse_release",
]

CHANGES: tuple[Change, ...] = vma.CHANGES + hugetlb.CHANGES + ksm.CHANGES
CHANGE_BY_ID: dict[str, Change] = {change.id: change for change in CHANGES}
KNOB_BY_ID: dict[str, Knob] = {knob.id: knob for knob in KNOBS}
