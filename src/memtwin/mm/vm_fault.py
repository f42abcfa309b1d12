# SPDX-License-Identifier: GPL-2.0-or-later
"""The words in which a fault is described and answered (Linux: include/linux/mm.h, mm_types.h).

``FAULT_FLAG_*`` say what is asked and what the handler may do; ``VM_FAULT_*`` what came of it. Both have Linux's
values. :class:`VmFault` carries a fault through the handlers that may have to wait, and to the operations of an area.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from memtwin.mm.mm_types import MmStruct, VmArea

__all__ = ["VmFault"]

FAULT_FLAG_WRITE: Final = 0x1  #: the access writes
FAULT_FLAG_MKWRITE: Final = 0x2  #: page_mkwrite is asked about a page that is mapped already
FAULT_FLAG_ALLOW_RETRY: Final = 0x4  #: the handler may give up the lock and say VM_FAULT_RETRY
FAULT_FLAG_RETRY_NOWAIT: Final = 0x8  #: it shall not wait before it says so (and keeps the lock)
FAULT_FLAG_KILLABLE: Final = 0x10  #: a fatal signal ends the wait
FAULT_FLAG_TRIED: Final = 0x20  #: it said so once; it must come to an end now
FAULT_FLAG_USER: Final = 0x40  #: user mode made the access
FAULT_FLAG_REMOTE: Final = 0x80  #: another task asks for the page
FAULT_FLAG_INSTRUCTION: Final = 0x100  #: the access fetches an instruction
FAULT_FLAG_INTERRUPTIBLE: Final = 0x200  #: any signal ends the wait
FAULT_FLAG_UNSHARE: Final = 0x400  #: a read-only pin wants a page of its own: copy, and leave it read-only
FAULT_FLAG_VMA_LOCK: Final = 0x1000  #: the lock of the area is held, not ``mmap_lock``

#: What every fault begins with.
FAULT_FLAG_DEFAULT: Final = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE | FAULT_FLAG_INTERRUPTIBLE

VM_FAULT_OOM: Final = 0x1
VM_FAULT_SIGBUS: Final = 0x2
VM_FAULT_MAJOR: Final = 0x4  #: something was read from a disk
VM_FAULT_HWPOISON: Final = 0x10
VM_FAULT_SIGSEGV: Final = 0x40
VM_FAULT_NOPAGE: Final = 0x100  #: the entry is installed (or somebody else changed it): nothing to map
VM_FAULT_LOCKED: Final = 0x200  #: the page is returned locked
VM_FAULT_RETRY: Final = 0x400  #: the lock was given up; ask again
VM_FAULT_FALLBACK: Final = 0x800  #: no huge page: go on with small ones
VM_FAULT_DONE_COW: Final = 0x1000  #: the copy was made already
VM_FAULT_COMPLETED: Final = 0x4000  #: all is done, and the lock was given up

VM_FAULT_ERROR: Final = VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_HWPOISON


class VmFault:
    """One fault (Linux: struct vm_fault).

    ``address``: where, to the byte; ``pgoff``: page offset of it in the file; ``index``: where in ``ram.q`` the entry
    is, 0 before it is known; ``entry``: what it held when the handler looked; ``page``: frame that an operation of the
    area returned; ``cow_page``: frame that a private write is copied to.
    """

    __slots__ = ("address", "cow_page", "entry", "flags", "index", "mm", "page", "pgoff", "vma")

    def __init__(self, mm: MmStruct, vma: VmArea, address: int, flags: int, index: int = 0, entry: int = 0) -> None:
        self.mm = mm
        self.vma = vma
        self.address = address
        self.flags = flags
        self.index = index
        self.entry = entry
        self.pgoff = ((address - vma.start) >> 12) + vma.pgoff
        self.page = 0
        self.cow_page = 0
