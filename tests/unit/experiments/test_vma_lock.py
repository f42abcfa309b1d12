# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lock each kind of fault takes; the experiments fail when what they show is broken."""

from __future__ import annotations

import pytest

from memtwin.experiments import find
from memtwin.experiments.fault_kinds import BASE, DISK, PAGE, DeviceFile, all_kinds, map_file, take
from memtwin.experiments.vma_lock import ROWS, TABLE
from memtwin.machine import Machine
from memtwin.mm import memory, wp
from memtwin.mm.mm_types import VmArea

SERIES = [
    "fault-lock-release",
    "vmf-anon-prepare",
    "vma-lock-shared-faults",
    "vma-lock-cow-faults",
    "vma-lock-read-faults",
    "vma-lock-ro-write-faults",
]
#: What the table says of 6.18 where it differs from 6.7-rc1: the anon_vma is made under the area's lock, with
#: ``mmap_lock`` tried in addition.
LATER = {
    "anon first touch, no anon_vma": "S, 1",
    "private write to a read-only entry, no anon_vma": "S, 1",
}


def short(taken) -> str:
    return f"{taken.attempt}, {taken.times}"


@pytest.mark.parametrize("lockdep", [False, True])
def test_the_table(lockdep: bool) -> None:
    assert {name: short(taken) for name, taken in all_kinds(without=SERIES, lockdep=lockdep).items()} == {
        name: before for name, (before, _) in TABLE.items()
    }
    assert {name: short(taken) for name, taken in all_kinds(lockdep=lockdep).items()} == {
        name: after for name, (_, after) in TABLE.items()
    }


def test_later_kernels_prepare_the_anon_vma_under_the_areas_lock() -> None:
    taken = all_kinds(with_=["post-anon-prepare-vma-lock", "post-majflt-tried"])
    assert {name: short(each) for name, each in taken.items()} == {
        name: LATER.get(name, after) for name, (_, after) in TABLE.items()
    }
    assert taken["private write, cold, no anon_vma"].why == ("READ",)
    cold = [each for name, each in taken.items() if " cold" in name]
    assert len(cold) == 4 and all((each.pgmajfault, each.maj_flt, each.min_flt) == (1, 1, 0) for each in cold)


def test_a_cold_fault_counts_as_minor_in_6_7_rc1() -> None:
    taken = all_kinds()
    for name in ("read, cold", "private write, cold, anon_vma set", "shared write, cold"):
        assert (taken[name].pgmajfault, taken[name].maj_flt, taken[name].min_flt) == (1, 0, 1)
    assert taken["private write, cold, no anon_vma"].maj_flt == 1  # its first attempt stopped before the I/O


def failing(change_id: str) -> list[str]:
    return [claim.text for claim in find(change_id).run(change_id).claims if not claim.holds]


@pytest.mark.parametrize("change_id", ROWS)
def test_the_experiment_notices_a_change_that_is_missing(change_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from memtwin.changes import Features

    has = Features.has
    monkeypatch.setattr(Features, "has", lambda self, id_: id_ != change_id and has(self, id_))
    assert failing(change_id)


@pytest.mark.interpreted
def test_the_experiment_notices_a_fault_that_never_asks_for_mmap_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory, wp):
        monkeypatch.setattr(module, "vmf_can_call_fault", lambda vmf: 0)
    assert failing("vma-lock-read-faults")


@pytest.mark.interpreted
def test_the_experiment_notices_a_writer_that_does_not_lock_the_area(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VmArea, "start_write", lambda self: None)
    assert any("writer of this area" in text for text in failing("vma-lock-shared-faults"))


def test_a_killed_task_leaves_no_lock_behind() -> None:
    with Machine("64M") as machine:
        process = machine.spawn()
        kernel = process.kernel
        file = DeviceFile(DISK, cold=True)
        map_file(process, file, 1)
        kernel.clock.timer_in(1000, lambda: kernel.sched.signal_wake_up(process.task, fatal=True), "SIGKILL")
        from memtwin.errors import ProcessKilled

        with pytest.raises(ProcessKilled):
            process.touch(BASE, False)
        assert not process.task.held and not kernel.tasks
        kernel.sched.run(kernel.clock.now + 1_000_000)  # the disk finishes; nobody waits for it
        kernel.check()
        kernel.check_no_leak()


def test_one_waits_for_the_page_that_another_reads() -> None:
    with Machine("64M", cpus=2, lockdep=True) as machine:
        first, second = machine.spawn(), machine.spawn()
        kernel = first.kernel
        file = DeviceFile(DISK, cold=True)
        map_file(first, file, 1)
        map_file(second, file, 1)
        pfn = file.mapping.start_read(kernel.mm_ctx, 3)
        taken = take(second, BASE + 3 * PAGE, False)
        assert (taken.attempt, taken.times, taken.why, taken.pgmajfault) == ("R", 1, ("FOLIO_LOCKED",), 0)
        assert second.read(BASE + 3 * PAGE, 1) == b"\x03"
        assert take(first, BASE + 3 * PAGE, False).attempt == "S"
        assert kernel.pages.mapcount[pfn] == 2
        for process in (first, second):
            process.exit()
        kernel.check()
        kernel.check_no_leak()


def test_a_cold_fault_reads_one_page() -> None:
    with Machine("64M") as machine:
        process = machine.spawn()
        file = DeviceFile(DISK, cold=True)
        map_file(process, file, 1)
        process.touch(BASE + 9 * PAGE, False)
        assert list(file.mapping.folios) == [9]
