# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM: views of one memory, zeroing, and the price of what was never touched."""

import resource

import numpy as np
import pytest

from memtwin.errors import BadInput
from memtwin.hw.ram import PAGE_SIZE, Ram


def test_views_show_the_same_memory():
    ram = Ram(8 * PAGE_SIZE)
    ram.mem[PAGE_SIZE : PAGE_SIZE + 8] = (0x1122334455667788).to_bytes(8, "little")
    assert ram.q[512] == 0x1122334455667788 == int(ram.words[512]) == int(ram.frames[1, 0])
    ram.frames[2, 511] = 7
    assert ram.mem[3 * PAGE_SIZE - 8] == 7


@pytest.mark.parametrize("size", [0, -4096, 100, 4097])
def test_impossible_sizes_are_bad_input(size):
    with pytest.raises(BadInput):
        Ram(size)


def test_zero_and_copy():
    ram = Ram(4 * PAGE_SIZE)
    ram.frames[:] = 5
    ram.zero(1)
    ram.copy(3, 1)
    assert [bool(ram.frames[i].any()) for i in range(4)] == [True, False, True, False]


def test_only_what_is_not_zero_is_copied_onto_zeroes():
    ram = Ram(4 * PAGE_SIZE)
    ram.frames[1, 511] = 5
    assert ram.copy_onto_zeroes(3, 1)
    assert not ram.copy_onto_zeroes(2, 0)
    assert [int(ram.frames[i].sum()) for i in range(4)] == [0, 5, 0, 5]


@pytest.mark.parametrize("pfns", [[], [3], [0, 1, 2, 3, 4], [9, 1, 8, 7, 2, 6, 30], [*range(40, 50), 60, 62]])
def test_zero_bulk_zeroes_exactly_the_named_frames(pfns):
    ram = Ram(64 * PAGE_SIZE)
    ram.frames[:] = 1
    ram.zero_bulk(np.array(pfns, dtype=np.int64))
    assert {i for i in range(64) if not ram.frames[i].any()} == set(pfns)


def test_four_tebibytes_cost_nothing_until_touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ram = Ram(4 << 40)
    ram.q[(3 << 40) // 8] = 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


def test_the_buffer_stays_exported_so_that_its_address_stays_valid():
    ram = Ram(PAGE_SIZE)
    with pytest.raises(BufferError):
        ram._area.close()
