# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs of the profile ``thp``, asked of the live kernel and of the twin: contents, faults, areas, smaps,
pagemap with page identity and status must agree after each operation.
"""

from __future__ import annotations

import os

import pytest

from memtwin.changes.catalogue import parse_release
from memtwin.verify.compare import compare, ignored, unruled
from memtwin.verify.generate import program
from memtwin.verify.live import Live, why_not
from memtwin.verify.profiles import profile
from memtwin.verify.twin import Twin

PROGRAMS = 16
REASON = why_not()
if REASON is None and parse_release(os.uname().release) < (6, 18, 0):
    REASON = f"the twin's answers about huge pages were judged by 6.18, here runs {os.uname().release}"


@pytest.mark.live
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_random_programs_on_huge_pages() -> None:
    """A program that the live kernel answers otherwise when it runs again says nothing (khugepaged and DAMON run there
    when they like).
    """
    twin = Twin("host")
    live_half = Live(size=twin.size())
    programs = [program(profile("thp"), 0, number) for number in range(PROGRAMS)]
    names = ignored(os.uname().release)
    differ, unstable = [], 0
    for number, (lines, live) in enumerate(zip(programs, live_half.run(programs), strict=True)):
        compared = names | unruled(lines)
        difference, missing = compare(live, twin.run(lines), compared)
        if difference is None and missing is None:
            continue
        again = [compare(live, other, compared)[0] for other in live_half.run([lines] * 3)]
        if difference is not None and any(other is not None and other.index <= difference.index for other in again):
            unstable += 1
        else:
            differ.append((number, difference, missing))
    assert differ == []
    assert unstable <= PROGRAMS // 3
