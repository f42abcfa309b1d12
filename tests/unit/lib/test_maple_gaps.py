# SPDX-License-Identifier: GPL-2.0-or-later
"""Gap search against a list of ranges, and its error cases."""

from __future__ import annotations

import errno
import random

import pytest

from memtwin.lib.maple_tree import INDEX_MAX, MM_MT_FLAGS, MT_FLAGS_ALLOC_RANGE, MapleTree, MaState
from memtwin.lib.testing.maple_model import PAGE, WINDOW, RangeModel, vma_tree
from memtwin.lib.testing.slab_shim import SlabShim


def failing(mas: MaState, *window: int) -> tuple[int | None, int | None]:
    codes = []
    for search in (mas.empty_area, mas.empty_area_rev):
        with pytest.raises(OSError) as error:
            search(*window)
        codes.append(error.value.errno)
    return codes[0], codes[1]


@pytest.mark.parametrize("entries", [0, 1, 8, 60, 900])
def test_search_equals_a_list_of_ranges(entries: int) -> None:
    rnd = random.Random(entries)
    tree = MapleTree(SlabShim(), MM_MT_FLAGS)
    model = RangeModel()
    span = 20 * max(entries, 10)
    for k in range(entries):
        first = rnd.randrange(span)
        last = first + rnd.randrange(30)
        tree.store_range(first, last, f"e{k}")
        model.store(first, last, f"e{k}")
    found = 0
    for _ in range(1500):
        low = rnd.choice([0, rnd.randrange(span)])
        high = rnd.choice([INDEX_MAX, low + rnd.randrange(span)])
        size = rnd.choice([1, rnd.randrange(1, 60), span])
        if size > high - low + 1:
            continue
        first, last = model.gap(low, high, size), model.gap_rev(low, high, size)
        mas = MaState(tree)
        if first is None:
            assert last is None and failing(mas, low, high, size) == (errno.EBUSY, errno.EBUSY)
            continue
        assert last is not None
        mas.empty_area(low, high, size)
        assert (mas.index, mas.last) == (first, first + size - 1)
        mas.empty_area_rev(low, high, size)
        assert (mas.index, mas.last) == (last - size + 1, last)
        found += 1
    assert found > 300


def test_impossible_windows() -> None:
    mas = MaState(MapleTree(SlabShim(), MT_FLAGS_ALLOC_RANGE))
    for window in [(0, 10, 0), (10, 9, 1), (10, 19, 11)]:
        assert failing(mas, *window) == (errno.EINVAL, errno.EINVAL)
    assert failing(MaState(MapleTree(SlabShim(), 0)), 0, 10, 1) == (errno.EINVAL, errno.EINVAL)


def test_a_gap_cut_by_the_window_is_not_enough() -> None:
    """The inner nodes promise a large gap, the window sees a part of it: the search backs up and goes on."""
    tree = MapleTree(SlabShim(), MM_MT_FLAGS)
    for i in range(100):
        tree.store_range(i * 100, i * 100 + (49 if i == 50 else 97), f"e{i}")  # gaps of 2, one of 50
    mas = MaState(tree)
    mas.empty_area(0, 9_999, 50)
    assert (mas.index, mas.last) == (5_050, 5_099)
    assert failing(mas, 5_060, 9_999, 50) == (errno.EBUSY, errno.EBUSY)
    mas.empty_area(5_060, 9_999, 2)
    assert mas.index == 5_060
    mas.empty_area_rev(0, 5_060, 11)
    assert (mas.index, mas.last) == (5_050, 5_060)
    mas.empty_area_rev(0, 5_060, 2)
    assert (mas.index, mas.last) == (5_059, 5_060)


def test_filling_all_gaps_bottom_up_and_top_down() -> None:
    """empty_area_fill: what is found is stored, until nothing is left."""
    for rev in (False, True):
        tree = vma_tree(SlabShim(), "up", 200, gaps=True)
        end = WINDOW + 400 * PAGE - 1
        places = []
        for k in range(200):
            alloc = tree.alloc_rrange if rev else tree.alloc_range
            places.append(alloc(f"new {k}", PAGE, WINDOW, end))
        expected = [WINDOW + (2 * i + 1) * PAGE for i in range(200)]
        assert places == (expected[::-1] if rev else expected)
        with pytest.raises(OSError) as error:
            tree.alloc_range("one more", PAGE, WINDOW, end)
        assert error.value.errno == errno.EBUSY
        tree.check()


def test_gaps_follow_every_store() -> None:
    """gap_combining: erasing neighbours joins their gaps, storing cuts them; the search sees each step."""
    tree = MapleTree(SlabShim(), MM_MT_FLAGS)
    for i in range(60):
        tree.store_range(i * 10, i * 10 + 9, f"e{i}")
    mas = MaState(tree)
    for joined in range(1, 20):
        tree.erase((joined + 19) * 10)
        mas.empty_area(0, 599, joined * 10)
        assert mas.index == 200
    tree.store(250, "x")
    mas.empty_area(0, 599, 139)
    assert mas.index == 251
    assert failing(mas, 0, 599, 140) == (errno.EBUSY, errno.EBUSY)
    tree.check()
