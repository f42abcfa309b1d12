# SPDX-License-Identifier: GPL-2.0-or-later
"""TLB generations, frames that held code, and work counters."""

from memtwin.hw.tlb import MmTlb, Tlb
from memtwin.hw.work import Work


def test_a_flush_bumps_only_its_own_address_space():
    tlb = Tlb(Work())
    a, b = MmTlb(tlb), MmTlb(tlb)
    a.flush(3)
    a.flush(2)
    assert (a.gen, b.gen, tlb.flushes, tlb.pages, tlb.work.tlb_flushes) == (2, 0, 2, 5, 2)


def test_only_frames_that_were_executable_are_reported_as_changed():
    tlb = Tlb(Work())
    tlb.note_frame_changed(7)
    tlb.note_executable(7)
    assert (list(tlb.changed_code), tlb.code_gen) == ([], 0)
    tlb.note_frame_changed(7)
    assert (list(tlb.changed_code), tlb.code_gen) == ([7], 1)


def test_work_tells_what_was_added():
    work = Work()
    before = work.snapshot()
    assert set(before.values()) == {0}
    work.ptes += 5
    work.locks += 1
    assert work.since(before) == {"ptes": 5, "locks": 1}
