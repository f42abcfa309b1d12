# SPDX-License-Identifier: GPL-2.0-or-later
"""``break_down_buddy_pages`` before ``buddy-break-down-cleanup``: a second variable and a test that always holds.

Both shapes leave the same free lists; this one makes two comparisons a level instead of one.
"""

from __future__ import annotations

from memtwin.mm.buddy import BuddyLists

__all__ = ["break_down_buddy_pages"]


def break_down_buddy_pages(buddies: BuddyLists, page: int, target: int, low: int, high: int, migratetype: int) -> None:
    """As :func:`memtwin.mm.buddy.break_down_buddy_pages`, in the shape of 6.6."""
    work = buddies.work
    size = 1 << high
    while high > low:
        high -= 1
        size >>= 1
        work.buddy_comparisons += 1
        if target >= page + size:
            next_page = page + size
            half = page
        else:
            next_page = page
            half = page + size
        work.buddy_comparisons += 1
        if half != target:
            buddies.buddy[half] = high + 1
            buddies.lists[high][migratetype][half] = None
        page = next_page
