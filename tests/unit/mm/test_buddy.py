# SPDX-License-Identifier: GPL-2.0-or-later
"""Free lists: splitting, merging, order of lists, virgin memory, and both shapes of break_down_buddy_pages."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtwin.errors import InvariantBroken
from memtwin.hw.work import Work
from memtwin.mm import buddy
from memtwin.mm.before import page_alloc as before
from memtwin.mm.buddy import MOVABLE, UNMOVABLE, BuddyLists, aligned_blocks
from memtwin.mm.page import PageArrays


def lists(pages=8192, first=1024, end=None):
    """Free lists over frames [first, end)."""
    arrays = PageArrays(pages)
    zone = BuddyLists(first, end or pages, arrays, memoryview(bytearray(pages // 512 + 2)), Work())
    zone.add_range(first, end or pages)
    return zone


def shape(zone):
    """Everything two equal states have in common, the order inside each list included."""
    return (
        [[list(blocks) for blocks in by_type] for by_type in zone.lists],
        zone.virgin,
        zone.nr_free,
        bytes(zone.buddy),
    )


def free_set(zone):
    """The free blocks of each order, in no order."""
    return [sorted(pfn for blocks in by_type for pfn in blocks) for by_type in zone.lists]


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_aligned_blocks_cover_the_range_with_maximal_blocks(first, length):
    blocks = aligned_blocks(first, first + length)
    at = first
    for pfn, order in blocks:
        assert pfn == at and pfn % (1 << order) == 0
        bigger = order + 1
        assert bigger > 10 or pfn % (1 << bigger) or pfn + (1 << bigger) > first + length
        at += 1 << order
    assert at == first + length


def test_boot_lists_only_what_is_not_a_whole_largest_block():
    zone = lists(8192, first=1000, end=8192 - 24)
    assert zone.virgin == [(1024, 7168)]
    assert sum(len(blocks) for by_type in zone.lists for blocks in by_type) == len(aligned_blocks(1000, 1024)) + len(
        aligned_blocks(7168, 8168)
    )
    assert zone.counts()[10] == 6
    assert zone.nr_free == 7168


def test_a_split_lists_the_upper_halves_and_hands_out_the_lowest_frame():
    zone = lists()
    pfn = zone.rmqueue_smallest(0, MOVABLE)
    assert pfn == 1024
    assert zone.counts() == [1] * 10 + [6]
    assert [next(iter(zone.lists[order][MOVABLE])) for order in range(10)] == [1024 + (1 << o) for o in range(10)]
    zone.free_one(pfn, 0, MOVABLE)
    assert zone.counts() == [0] * 10 + [7]
    assert zone.work.buddy_splits == zone.work.buddy_merges == 10


def test_virgin_memory_is_used_upwards_and_after_what_was_freed():
    zone = lists()
    first, second = zone.rmqueue_smallest(10, MOVABLE), zone.rmqueue_smallest(10, MOVABLE)
    assert (first, second) == (1024, 2048)
    zone.free_one(first, 10, MOVABLE)
    assert zone.rmqueue_smallest(10, MOVABLE) == first
    assert zone.rmqueue_smallest(10, MOVABLE) == 3072


def test_a_freed_block_goes_to_the_head_or_to_the_tail_when_a_merge_is_near():
    zone = lists()
    pages = [zone.rmqueue_smallest(0, MOVABLE) for _ in range(1024)]
    assert zone.lists[0][MOVABLE] == {}
    base = pages[0]
    zone.free_one(base + 16, 0, MOVABLE)
    zone.free_one(base + 32, 0, MOVABLE)
    assert list(zone.lists[0][MOVABLE]) == [base + 16, base + 32]  # the last one is the head
    zone.free_run(base + 42, 2)
    zone.free_one(base + 40, 0, MOVABLE)  # 41 missing for a pair, and that pair's buddy is free: likely to merge
    assert list(zone.lists[0][MOVABLE]) == [base + 40, base + 16, base + 32]


def test_no_merge_across_the_end_of_the_zone():
    zone = lists(4097, first=1024)  # page 4096 has no record of a buddy
    pages = [zone.rmqueue_smallest(0, MOVABLE) for _ in range(zone.nr_free)]
    assert pages[0] == 4096  # the smallest block first
    zone.free_one(4096, 0, MOVABLE)
    assert zone.counts()[0] == 1


@pytest.mark.parametrize("order", [0, 3, 9, 10])
def test_exhaustion(order):
    zone = lists()
    got = []
    while pfn := zone.rmqueue_smallest(order, MOVABLE):
        got.append(pfn)
    assert len(set(got)) == len(got) == 7168 >> order
    assert zone.nr_free == 0
    for pfn in got:
        zone.free_one(pfn, order, MOVABLE)
    assert zone.counts() == [0] * 10 + [7]


def test_a_run_is_what_single_allocations_would_get():
    for seed in range(30):
        rng = random.Random(seed)
        one, many = lists(), lists()
        for zone in (one, many):
            held = [zone.rmqueue_smallest(0, MOVABLE) for _ in range(3000)]
            for pfn in random.Random(seed).sample(held, 1500):
                zone.free_one(pfn, 0, MOVABLE)
        want = rng.randrange(1, 4000)
        singles = [one.rmqueue_smallest(0, MOVABLE) for _ in range(want)]
        runs = []
        while sum(n for _, n in runs) < want:
            runs.append(many.take_run(want - sum(n for _, n in runs), MOVABLE))
        assert [pfn for first, n in runs for pfn in range(first, first + n)] == singles
        assert shape(one) == shape(many)


def test_bulk_free_leaves_the_same_blocks_as_single_frees():
    for seed in range(30):
        rng = random.Random(seed)
        one, many = lists(), lists()
        for zone in (one, many):
            held = [zone.rmqueue_smallest(0, MOVABLE) for _ in range(6000)]
        freed = np.array(sorted(rng.sample(held, rng.choice((5, 300, 3000, 6000)))), dtype=np.int64)
        for pfn in freed.tolist():
            one.free_one(pfn, 0, MOVABLE)
        many.free_sorted(freed)
        assert free_set(one) == free_set(many)
        assert bytes(one.buddy) == bytes(many.buddy)
        assert (one.nr_free, one.work.buddy_merges) == (many.nr_free, one.work.buddy_merges)


def test_a_block_missing_from_its_list_is_noticed():
    zone = lists()
    zone.rmqueue_smallest(0, MOVABLE)
    del zone.lists[1][MOVABLE][1026]
    with pytest.raises(InvariantBroken, match="on no list"):
        zone.unlist(1026, 1)


def test_a_block_is_found_on_the_list_of_another_type():
    """After a small steal a block may be listed under a type that its pageblock does not have."""
    zone = lists()
    zone.rmqueue_smallest(0, MOVABLE)
    del zone.lists[1][MOVABLE][1026]
    zone.lists[1][UNMOVABLE][1026] = None
    assert zone.unlist(1026, 1) == UNMOVABLE
    assert zone.lists[1][UNMOVABLE] == {} and zone.buddy[1026] == 0


# break_down_buddy_pages


def broken_down(function, target, order=10, low=0, migratetype=MOVABLE):
    zone = lists()
    head = zone.rmqueue_smallest(order, MOVABLE)
    zone.nr_free += 1 << order
    function(zone, head, head + target, low, order, migratetype)
    zone.nr_free -= 1 << low
    return zone, head


def test_breaking_down_an_order_10_block_lists_one_block_of_each_order():
    zone, head = broken_down(buddy.break_down_buddy_pages, 0x155)
    listed = [list(zone.lists[order][MOVABLE]) for order in range(10)]
    assert [len(blocks) for blocks in listed] == [1] * 10
    pages = {pfn for order in range(10) for pfn in range(listed[order][0], listed[order][0] + (1 << order))}
    assert pages == set(range(head, head + 1024)) - {head + 0x155}


def test_ten_comparisons_instead_of_twenty():
    assert broken_down(buddy.break_down_buddy_pages, 0x155)[0].work.buddy_comparisons == 10
    assert broken_down(before.break_down_buddy_pages, 0x155)[0].work.buddy_comparisons == 20


@given(st.integers(0, 10), st.data())
def test_both_shapes_leave_the_same_lists(order, data):
    low = data.draw(st.integers(0, order))
    target = data.draw(st.integers(0, (1 << (order - low)) - 1)) << low
    new, _ = broken_down(buddy.break_down_buddy_pages, target, order, low, UNMOVABLE)
    old, _ = broken_down(before.break_down_buddy_pages, target, order, low, UNMOVABLE)
    assert shape(new) == shape(old)
    assert old.work.buddy_comparisons == 2 * new.work.buddy_comparisons == 2 * (order - low)
