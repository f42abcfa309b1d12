# SPDX-License-Identifier: GPL-2.0-or-later
"""The switchboard: which single kernel changes a machine has.

``catalogue`` is the data, ``profiles`` says what a named kernel has, ``select.resolve`` makes the frozen ``Features``
that a kernel asks at the few places where behaviour parts.
"""

from __future__ import annotations

from memtwin.changes.catalogue import CHANGES, KNOBS, Change, Knob
from memtwin.changes.select import Features, lookup, resolve

__all__ = ["CHANGES", "KNOBS", "Change", "Features", "Knob", "lookup", "resolve"]
