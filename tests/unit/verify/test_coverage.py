# SPDX-License-Identifier: GPL-2.0-or-later
"""The coverage table: situations, rows, counting."""

import pytest

from memtwin.verify.cells import cells, text
from memtwin.verify.coverage import SITUATIONS, Coverage, operation, situation

P = 4096
AREAS = [(10 * P, 20 * P), (20 * P, 24 * P), (30 * P, 32 * P)]


@pytest.mark.parametrize(
    ("start", "pages", "where"),
    [
        (10, 10, "whole"),
        (10, 4, "head"),
        (16, 4, "tail"),
        (12, 4, "middle"),
        (12, 10, "across"),
        (10, 14, "across"),
        (22, 4, "over hole"),
        (22, 9, "over hole"),
        (25, 2, "hole"),
        (25, 6, "from hole"),
        (8, 3, "from hole"),
        (0, 0, "zero"),
        (0x7FFFFFFFF, 1, "outside"),
    ],
)
def test_situations(start, pages, where):
    assert situation(AREAS, start * P, pages * P) == where
    assert where in SITUATIONS


def test_unaligned_and_partial_pages():
    assert situation(AREAS, 10 * P + 1, P) == "unaligned"
    assert situation(AREAS, 10 * P, 10 * P - 1) == "whole"


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("mmap B 1p rw private|anon|fixed", "mmap fixed"),
        ("mmap B 1p rw private|fixed_noreplace", "mmap noreplace"),
        ("mmap B 1p rw private", "mmap hint"),
        ("mmap 0 1p rw private", "mmap anywhere"),
        ("mremap B 1p 2p 0", "mremap in place"),
        ("mremap B 1p 1p maymove|fixed|dontunmap B", "mremap dontunmap"),
        ("madvise B 1p random", "madvise random"),
        ("madvise B 1p 0-1", "madvise unknown"),
        ("brk K", "brk"),
    ],
)
def test_rows(line, row):
    assert operation(line.split()) == row


def test_counting_and_what_is_missing():
    one, two = Coverage(), Coverage()
    one.cells["brk", "ok", "-"] += 2
    two.cells["brk", "ok", "-"] += 1
    two.cells["munmap", "EINVAL", "zero"] += 1
    one.add(two)
    assert list(one.rows()) == [("brk", "ok", {"-": 3}), ("munmap", "EINVAL", {"zero": 1})]
    assert one.empty([("brk", "ok", "-"), ("munmap", "ok", "hole")]) == [("munmap", "ok", "hole")]


def test_lists_of_reachable_cells():
    rows = [
        {"operation": "brk", "result": "ok", "situations": {"-": 99}},
        {"operation": "munmap", "result": "ok", "situations": {"tail": 16, "hole": 20, "head": 3}},
        {"operation": "munmap", "result": "EINVAL", "situations": {"zero": 1}},
    ]
    assert text(rows) == "brk | ok | -\nmunmap | ok | hole, tail"
    assert cells("nothing") == []
    found = cells("vma")
    assert len(found) == len(set(found)) > 300
    assert all(where in SITUATIONS for _, _, where in found)
    assert ("munmap", "ok", "middle") in found
