# SPDX-License-Identifier: GPL-2.0-or-later
"""The views of an address space in /proc/PID: maps, the Vm lines of status, statm (fs/proc/task_mmu.c; spec R14)."""

from __future__ import annotations

from typing import Final

from memtwin.mm.mm_types import VM_EXEC, VM_MAYSHARE, VM_READ, VM_WRITE, MmStruct, VmArea

__all__ = ["VSYSCALL_LINE", "maps", "maps_line", "statm", "status_vm"]

#: Byte offset in a line at which a name begins (R14).
_NAME_COLUMN: Final = 73
_SHOWN: Final = VM_READ | VM_WRITE | VM_EXEC | VM_MAYSHARE
#: The four letters of the flags that show.
_RIGHTS: Final = {
    r | w | x | s: ("r" if r else "-") + ("w" if w else "-") + ("x" if x else "-") + ("s" if s else "p")
    for r in (0, VM_READ)
    for w in (0, VM_WRITE)
    for x in (0, VM_EXEC)
    for s in (0, VM_MAYSHARE)
}
VSYSCALL_LINE: Final = "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"


def maps(mm: MmStruct) -> str:
    """/proc/PID/maps."""
    return "".join(maps_line(mm, vma) for vma in mm.areas()) + VSYSCALL_LINE


def maps_line(mm: MmStruct, vma: VmArea) -> str:
    """The line of one area, which also heads its part of smaps."""
    rights = _RIGHTS[vma.flags & _SHOWN]
    where = "00000000 00:00 0"
    file = vma.file
    if file is not None:
        major, minor = file.dev
        where = f"{vma.pgoff << 12:08x} {major:02x}:{minor:02x} {file.ino}"
    line = f"{vma.start:08x}-{vma.end:08x} {rights} {where} "
    name = _name(mm, vma)
    return f"{line:<{_NAME_COLUMN}}{name}\n" if name else line + "\n"


def _name(mm: MmStruct, vma: VmArea) -> str:
    if vma.file is not None:
        if vma.anon_name is not None:
            return f"[anon_shmem:{vma.anon_name}]"
        return vma.file.path.replace("\n", "\\012")
    if vma.start < mm.brk and vma.end > mm.start_brk:
        return "[heap]"
    if vma.start <= mm.start_stack <= vma.end:
        return "[stack]"
    return f"[anon:{vma.anon_name}]" if vma.anon_name is not None else ""


def _text_pages(mm: MmStruct) -> int:
    """Pages of program text: the code segment, at most what is mapped executable."""
    pages = ((mm.end_code + 4095) >> 12) - (mm.start_code >> 12)
    return min(pages, mm.exec_vm)


def status_vm(mm: MmStruct) -> str:
    """The lines of /proc/PID/status about memory, in kB."""
    text = _text_pages(mm)
    pages = (
        ("VmPeak", max(mm.hiwater_vm, mm.total_vm)),
        ("VmSize", mm.total_vm),
        ("VmLck", mm.locked_vm),
        ("VmPin", 0),
        ("VmHWM", max(mm.hiwater_rss, mm.rss)),
        ("VmRSS", mm.rss),
        ("RssAnon", mm.rss_anon),
        ("RssFile", mm.rss_file),
        ("RssShmem", mm.rss_shmem),
        ("VmData", mm.data_vm),
        ("VmStk", mm.stack_vm),
        ("VmExe", text),
        ("VmLib", mm.exec_vm - text),
        ("VmPTE", mm.pgtables_bytes >> 12),
        ("VmSwap", mm.rss_swap),
    )
    return "".join(f"{key}:\t{count * 4:8d} kB\n" for key, count in pages) + f"HugetlbPages:\t{0:8d} kB\n"


def statm(mm: MmStruct) -> str:
    """/proc/PID/statm, in pages."""
    shared = mm.rss_file + mm.rss_shmem
    return f"{mm.total_vm} {mm.rss} {shared} {_text_pages(mm)} 0 {mm.data_vm + mm.stack_vm} 0\n"
