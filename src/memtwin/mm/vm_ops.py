# SPDX-License-Identifier: GPL-2.0-or-later
"""What the owner of an area may want to do itself (Linux: struct vm_operations_struct).

This is the small protocol between faults and whatever has the pages: the page cache (``mm/filemap.py``), memory files
(``mm/shmem.py``), drivers. A fault calls ``fault`` for a page that is not mapped (read, private copy, shared write),
``map_pages`` before that for a read, ``page_mkwrite`` when a shared page is about to be written, ``huge_fault`` where a
huge leaf could go. Each has a ``has_`` attribute, since who has an operation decides more than what it does.

Drivers and files subclass it, so it stays an ordinary class where the rest of mm is compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.mm.vm_fault import VM_FAULT_FALLBACK, VM_FAULT_SIGBUS

if TYPE_CHECKING:
    from memtwin.mm.mm_types import VmArea
    from memtwin.mm.vm_fault import VmFault

__all__ = ["VmOperations"]


class VmOperations:
    """What the owner of an area wants to be asked or told. The defaults do nothing.

    ``has_close``: ``close`` must be called when such an area is removed, so merging may not swallow it.
    ``has_map_pages``: cached pages around a read fault may be mapped; such operations do not need ``mmap_lock``.
    ``has_page_mkwrite``, ``has_huge_fault``, ``has_access``: the operation exists. ``wants_writenotify``: shared
    entries are installed read-only, so that the first write to a page is noticed (files whose dirty pages are tracked;
    implied by ``has_page_mkwrite``). ``is_dax``: the file's pages are memory themselves.
    """

    has_close = False
    has_map_pages = False
    has_page_mkwrite = False
    has_huge_fault = False
    has_access = False
    is_dax = False
    wants_writenotify = False

    def open(self, vma: VmArea) -> None:
        """``vma`` came into being by a copy or a split."""

    def close(self, vma: VmArea) -> None:
        """``vma`` goes away."""

    def may_split(self, vma: VmArea, addr: int) -> int:
        """0, or the errno with which a split at ``addr`` is refused."""
        return 0

    def fault(self, vmf: VmFault) -> int:
        """Get the page at ``vmf.pgoff``: VM_FAULT_* bits.

        With VM_FAULT_LOCKED ``vmf.page`` is its frame, with a reference for the caller and its folio locked; with
        VM_FAULT_NOPAGE the entry is installed; with VM_FAULT_RETRY the fault's lock has been given up. Else an error.
        """
        return VM_FAULT_SIGBUS

    def map_pages(self, vmf: VmFault, start_pgoff: int, end_pgoff: int) -> int:
        """Map what is there without waiting of the pages ``[start_pgoff, end_pgoff]``: VM_FAULT_NOPAGE if
        ``vmf.pgoff`` itself now is, else 0. ``vmf.index`` stays.
        """
        return 0

    def page_mkwrite(self, vmf: VmFault) -> int:
        """``vmf.page``, referenced and not locked, is about to become writable: VM_FAULT_LOCKED (the folio is locked
        now), 0 to have the caller lock it, an error, or VM_FAULT_NOPAGE to have the access made again.
        """
        return 0

    def huge_fault(self, vmf: VmFault, order: int) -> int:
        """Map ``4096 << order`` bytes around ``vmf.address`` with one leaf (order 9 or 18), or VM_FAULT_FALLBACK. Mode
        and alignment of the file are the handler's own to check.
        """
        return VM_FAULT_FALLBACK

    def access(self, vma: VmArea, addr: int, data: bytearray, write: bool) -> int:
        """Copy ``data`` to or from device memory at ``addr`` for a debugger; bytes done, or a negative errno."""
        return 0
