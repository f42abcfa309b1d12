# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of tracepoints, and that it agrees with the kernel this runs on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memtwin.events import POINTS, Tracepoints

TRACEFS = Path("/sys/kernel/tracing/events")


def test_names_can_be_attributes_and_fields_can_be_keys_of_a_line():
    assert len(POINTS) > 80
    for name, point in POINTS.items():
        assert name == point.name and name.isidentifier() and not hasattr(Tracepoints, f"_{name}")
        assert point.fields and len(set(point.fields)) == len(point.fields)
        assert all(field.isidentifier() for field in point.fields)
        assert not {"ts", "task", "event"} & set(point.fields)


def test_own_points_are_recognisable():
    for name, point in POINTS.items():
        assert name.startswith("memtwin_") == (point.category == "memtwin")


def test_no_point_hides_a_method():
    assert not set(POINTS) & {"enable", "disable", "enabled"}


@pytest.mark.live
def test_fields_are_those_of_the_live_kernel():
    """Only points the kernel has under that name; fields must be there in that order."""
    if not TRACEFS.is_dir() or not any(TRACEFS.iterdir()):
        pytest.skip("tracefs is not mounted")
    compared = 0
    for point in POINTS.values():
        path = TRACEFS / point.category / point.name / "format"
        if path.exists():
            declared = re.findall(r"field:[^;]*?(\w+)(?:\[\d*\])?;", path.read_text())
            assert [field for field in declared if not field.startswith("common_")] == list(point.fields), (
                point.full_name
            )
            compared += 1
    assert compared
