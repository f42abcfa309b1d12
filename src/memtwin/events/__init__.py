# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine tells about itself: tracepoints with Linux's names, and reasons for decisions."""

from __future__ import annotations

from memtwin.events.points import POINTS, Point
from memtwin.events.reason import Because, Reason
from memtwin.events.sched_events import SchedEvents
from memtwin.events.tracepoint import Event, JsonLines, MemorySink, Probe, Sink, Tracepoints

__all__ = [
    "POINTS",
    "Because",
    "Event",
    "JsonLines",
    "MemorySink",
    "Point",
    "Probe",
    "Reason",
    "SchedEvents",
    "Sink",
    "Tracepoints",
]
