# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiment ``thp-huge-fault-eligibility``: who may have huge pages, asked by a fault, by smaps, by khugepaged.

A device file offers ``fault`` and ``huge_fault``, which maps 2 MiB of its memory with one leaf. It is mapped 2 MiB
aligned, as a mixed map, and all of its 512 pages are touched. Before the change its ``huge_fault`` is never called.
"""

from __future__ import annotations

from typing import Final

from memtwin.abi.mman import MADV_HUGEPAGE, MAP_FIXED, MAP_SHARED, PROT_READ, PROT_WRITE
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.experiments.fault_kinds import DeviceFile
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.machine import Machine
from memtwin.mm.filemap import FileVmOps
from memtwin.mm.huge_memory import hugepage_vma_check, vmf_insert_pfn_pmd
from memtwin.mm.mm_types import VM_MIXEDMAP, VmArea
from memtwin.mm.mmap import do_mmap
from memtwin.mm.vm_fault import FAULT_FLAG_WRITE, VM_FAULT_FALLBACK, VmFault
from memtwin.process import Process

__all__ = ["DeviceOps", "run"]

PAGE: Final = 4096
HUGE: Final = 512 * PAGE
BASE: Final = 0x1000000000
RW: Final = PROT_READ | PROT_WRITE


class DeviceOps(FileVmOps):
    """A driver that is not DAX and can map 2 MiB of its memory, from frame ``memory`` on, at once."""

    has_map_pages = False
    has_huge_fault = True

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.calls: list[int] = []  #: orders that ``huge_fault`` was asked for

    def huge_fault(self, vmf: VmFault, order: int) -> int:
        """Alignment is the handler's to judge; nothing of 1 GiB is there."""
        self.calls.append(order)
        if order != 9 or vmf.address & -HUGE < vmf.vma.start or vmf.vma.pgoff % 512:
            return VM_FAULT_FALLBACK
        return vmf_insert_pfn_pmd(vmf, self.memory, bool(vmf.flags & FAULT_FLAG_WRITE))


class DaxOps(DeviceOps):
    """A file whose pages are memory themselves."""

    is_dax = True


def _map(process: Process, device: DeviceFile) -> VmArea:
    sched = process.kernel.sched
    sched.run_as(process.task, do_mmap, process.mm, BASE, HUGE, RW, MAP_SHARED | MAP_FIXED, device, 0)
    vma = process.vmas()[0]
    vma.set_flags(vma.flags | VM_MIXEDMAP)
    return vma


def _eligible(process: Process) -> int:
    area = process.read_file("/proc/self/smaps").split(f"{BASE:x}-", 1)[1]
    return int(area.split("THPeligible:", 1)[1].split()[0])


class _Side:
    """All rows on one machine: ``seen`` by name."""

    def __init__(self, change_id: str, *, after: bool) -> None:
        self.machine = Machine(memory="64M", without=[] if after else [change_id])
        self.seen: dict[str, str] = {}
        self._device("enabled=always", "always")
        self._device("enabled=madvise", "madvise")
        self._device("enabled=madvise and MADV_HUGEPAGE", "madvise", advised=True)
        self._device("enabled=never and MADV_HUGEPAGE", "never", advised=True)
        self._device("a DAX file, enabled=always", "always", dax=True)
        self.machine.check()
        self.machine.close()

    def _device(self, name: str, enabled: str, *, advised: bool = False, dax: bool = False) -> None:
        kernel = self.machine.kernel
        kernel.mm_ctx.thp.enabled = enabled
        memory = kernel.page_alloc.alloc_pages(GFP_KERNEL, 9)
        ops = (DaxOps if dax else DeviceOps)(memory)
        process = self.machine.spawn()
        vma = _map(process, DeviceFile(ops, pages=HUGE // PAGE))
        if advised:
            process.madvise(BASE, HUGE, MADV_HUGEPAGE)
            vma = process.vmas()[0]
        eligible = _eligible(process)
        before = kernel.events.pgfault
        for page in range(512):
            process.touch(BASE + page * PAGE, True)
        faults = kernel.events.pgfault - before
        collapse = "may" if hugepage_vma_check(vma, enforce_sysfs=False) else "may not"
        self.seen[name] = (
            f"{faults} faults, {ops.calls.count(9)} huge_fault, THPeligible {eligible}, khugepaged {collapse}"
        )
        self.machine.check()
        process.exit()
        kernel.page_alloc.free_pages(memory, 9)


_SMALL: Final = "512 faults, 0 huge_fault, THPeligible 0, khugepaged may not"
_HUGE: Final = "1 faults, 1 huge_fault, THPeligible 1, khugepaged may not"
_DAX: Final = "1 faults, 1 huge_fault, THPeligible 0, khugepaged may not"

#: What the spec says of each row: before and after.
TABLE: Final = {
    "enabled=always": (_SMALL, _HUGE),
    "enabled=madvise": (_SMALL, _SMALL),
    "enabled=madvise and MADV_HUGEPAGE": (_SMALL, _HUGE),
    "enabled=never and MADV_HUGEPAGE": (_SMALL, _SMALL),
    "a DAX file, enabled=always": (_DAX, _DAX),
}


def run(change_id: str, /) -> ExperimentResult:
    """The table on a machine without and one with the change."""
    before, after = (_Side(change_id, after=after).seen for after in (False, True))
    rows = [Observation(name, before[name], after[name]) for name in before]

    def as_told(text: str, *names: str) -> Claim:
        return Claim(text, all((before[name], after[name]) == TABLE[name] for name in names))

    claims = [
        as_told(
            "a driver that is not DAX maps 2 MiB with one fault; before it was never asked",
            "enabled=always",
            "enabled=madvise and MADV_HUGEPAGE",
        ),
        as_told(
            "it is asked only where the setting permits huge pages",
            "enabled=madvise",
            "enabled=never and MADV_HUGEPAGE",
        ),
        as_told("a DAX file was asked all along, and smaps says it is not eligible", "a DAX file, enabled=always"),
        Claim(
            "khugepaged touches none of them, without and with the change",
            all(text.endswith("may not") for text in (*before.values(), *after.values())),
        ),
    ]
    return ExperimentResult(change_id, rows, claims)
