# SPDX-License-Identifier: GPL-2.0-or-later
"""The address space and its areas (Linux: include/linux/mm_types.h, mm.h; spec R1).

Lock order: ``mmap_lock``, then ``page_table_lock``, then the zone lock inside the page allocator. Fields say what
protects them. Invariants, recomputed by ``mm/check_mm.py``: areas do not overlap; ``map_count`` counts them; the
``*_vm`` counters are sums over the areas; the ``rss_*`` counters are sums over the page tables.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from memtwin.hw import paging

if TYPE_CHECKING:
    from memtwin.hw.tlb import MmTlb
    from memtwin.lib.maple_tree import MapleTree
    from memtwin.mm.context import MmContext
    from memtwin.mm.filemap import AddressSpace
    from memtwin.mm.mempolicy import MemPolicy
    from memtwin.mm.rmap import AnonVma, AnonVmaChain
    from memtwin.mm.userfaultfd import UserfaultfdCtx
    from memtwin.mm.vm_ops import VmOperations
    from memtwin.sched import Rwsem, SpinLock

__all__ = ["MappedFile", "MmStruct", "VmArea", "vm_get_page_prot"]

VM_READ: Final = 0x1
VM_WRITE: Final = 0x2
VM_EXEC: Final = 0x4
VM_SHARED: Final = 0x8
VM_MAYREAD: Final = 0x10
VM_MAYWRITE: Final = 0x20
VM_MAYEXEC: Final = 0x40
VM_MAYSHARE: Final = 0x80
VM_GROWSDOWN: Final = 0x100
VM_UFFD_MISSING: Final = 0x200
VM_PFNMAP: Final = 0x400
VM_MAYBE_GUARD: Final = 0x800  #: guard pages were installed at some time (later than 6.7)
VM_UFFD_WP: Final = 0x1000
VM_LOCKED: Final = 0x2000
VM_IO: Final = 0x4000
VM_SEQ_READ: Final = 0x8000
VM_RAND_READ: Final = 0x10000
VM_DONTCOPY: Final = 0x20000
VM_DONTEXPAND: Final = 0x40000
VM_LOCKONFAULT: Final = 0x80000
VM_ACCOUNT: Final = 0x100000
VM_NORESERVE: Final = 0x200000
VM_HUGETLB: Final = 0x400000
VM_SYNC: Final = 0x800000
VM_WIPEONFORK: Final = 0x2000000
VM_DONTDUMP: Final = 0x4000000
VM_SOFTDIRTY: Final = 0x8000000
VM_MIXEDMAP: Final = 0x10000000
VM_HUGEPAGE: Final = 0x20000000
VM_NOHUGEPAGE: Final = 0x40000000
VM_MERGEABLE: Final = 0x80000000
VM_UFFD_MINOR: Final = 1 << 38

VM_PKEY_EXECUTE_ONLY: Final = 1 << 32  #: the protection key of memory that may only be executed (VM_PKEY_BIT0)
VM_SEALED: Final = 1 << 42  #: mseal(2), later than 6.7

#: Two letters of each flag in the VmFlags line of smaps, in bit order (spec R1).
FLAG_LETTERS: Final = {
    VM_READ: "rd",
    VM_WRITE: "wr",
    VM_EXEC: "ex",
    VM_SHARED: "sh",
    VM_MAYREAD: "mr",
    VM_MAYWRITE: "mw",
    VM_MAYEXEC: "me",
    VM_MAYSHARE: "ms",
    VM_GROWSDOWN: "gd",
    VM_UFFD_MISSING: "um",
    VM_PFNMAP: "pf",
    VM_MAYBE_GUARD: "gu",
    VM_UFFD_WP: "uw",
    VM_LOCKED: "lo",
    VM_IO: "io",
    VM_SEQ_READ: "sr",
    VM_RAND_READ: "rr",
    VM_DONTCOPY: "dc",
    VM_DONTEXPAND: "de",
    VM_LOCKONFAULT: "lf",
    VM_ACCOUNT: "ac",
    VM_NORESERVE: "nr",
    VM_HUGETLB: "ht",
    VM_SYNC: "sf",
    VM_WIPEONFORK: "wf",
    VM_DONTDUMP: "dd",
    VM_SOFTDIRTY: "sd",
    VM_MIXEDMAP: "mm",
    VM_HUGEPAGE: "hg",
    VM_NOHUGEPAGE: "nh",
    VM_MERGEABLE: "mg",
    VM_UFFD_MINOR: "ui",
    VM_SEALED: "sl",
}
#: Name of every flag, for reasons.
FLAG_NAMES: Final = {
    value: name
    for name, value in list(globals().items())
    if name.startswith("VM_") and isinstance(value, int) and value in FLAG_LETTERS
}

VM_ACCESS_FLAGS: Final = VM_READ | VM_WRITE | VM_EXEC
VM_UFFD_FLAGS: Final = VM_UFFD_MISSING | VM_UFFD_WP | VM_UFFD_MINOR
#: Flags that never keep areas apart.
VM_STICKY: Final = VM_SOFTDIRTY | VM_MAYBE_GUARD
VM_SPECIAL: Final = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP

#: Pages kept free below a growing-down area (Linux: stack_guard_gap, default of the boot parameter).
STACK_GUARD_PAGES: Final = 256


@cache
def vm_get_page_prot(flags: int) -> int:
    """Page-table bits for an area with these VM_* flags, as a fresh mapping gets them.

    A private writable area yields read-only entries: the write fault decides between reuse and copy. On x86
    write-only areas are readable and execute-only areas too, unless a protection key denies data accesses.
    """
    if not flags & VM_ACCESS_FLAGS:
        return paging.PROT_NONE | paging.ACCESSED | paging.NX
    prot = paging.PRESENT | paging.USER | paging.ACCESSED
    if flags & VM_WRITE and flags & VM_SHARED:
        prot |= paging.RW
    if not flags & VM_EXEC:
        prot |= paging.NX
    elif flags & VM_PKEY_EXECUTE_ONLY:
        prot |= paging.PKEY_EXECUTE_ONLY
    return prot


class MappedFile(Protocol):
    """What the file system gives to ``do_mmap``: an open file."""

    @property
    def mapping(self) -> AddressSpace:
        """The page cache of its inode."""

    @property
    def path(self) -> str:
        """Name shown in /proc/PID/maps."""

    @property
    def dev(self) -> tuple[int, int]:
        """Device (major, minor)."""

    @property
    def ino(self) -> int:
        """Inode number."""

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""

    @property
    def readable(self) -> bool:
        """Whether it was opened for reading."""

    @property
    def seals(self) -> int:
        """F_SEAL_* bits of a memory file, else 0."""

    @property
    def vm_ops(self) -> VmOperations | None:
        """Operations of its mappings; None makes private mappings anonymous (/dev/zero)."""


class TaskLimits(Protocol):
    """What memory management asks about the owner of an address space: limits, capabilities, and where faults are
    counted.
    """

    min_flt: int

    def rlimit(self, resource: int) -> int:
        """Soft limit in bytes; 2**64 - 1 is unlimited."""

    def rlimit_max(self, resource: int) -> int:
        """Hard limit in bytes."""

    def capable(self, capability: int) -> bool:
        """Whether it has the capability (CAP_* number)."""


class VmArea:
    """One area [``start``, ``end``) of an address space. All fields are protected by ``mm.mmap_lock``.

    ``pgoff``: page offset of ``start`` in the file, or ``start / 4096`` for private anonymous memory; ``page_prot``:
    what :func:`vm_get_page_prot` says for ``flags``; ``addr``: address of the object in its cache.

    ``vm_lock``: the area's own lock, made when the first fault wants it; faults hold it for reading. Whoever changes
    the area (``mmap_lock`` held for writing) calls :meth:`start_write` first; ``lock_seq`` equal to
    ``mm.mmap_lock.write_seq`` means that a writer has the area. ``detached``: it is no longer in the tree.
    """

    __slots__ = (
        "addr",
        "anon_name",
        "anon_vma",
        "anon_vma_chain",
        "detached",
        "end",
        "file",
        "flags",
        "lock_seq",
        "mm",
        "page_prot",
        "pgoff",
        "policy",
        "start",
        "uffd_ctx",
        "vm_lock",
        "vm_ops",
    )

    def __init__(
        self, mm: MmStruct, addr: int, start: int, end: int, flags: int, pgoff: int, file: MappedFile | None = None
    ) -> None:
        self.mm = mm
        self.addr = addr
        self.start = start
        self.end = end
        self.flags = flags
        self.pgoff = pgoff
        self.file = file
        self.page_prot = vm_get_page_prot(flags)
        self.vm_ops: VmOperations | None = None
        if file is not None:
            self.vm_ops = file.vm_ops
            self.page_prot = self.vma_page_prot(flags)
        self.vm_lock: Rwsem | None = None
        self.lock_seq = -1
        self.detached = False
        self.anon_vma: AnonVma | None = None
        self.anon_vma_chain: list[AnonVmaChain] = []
        self.policy: MemPolicy | None = None
        self.uffd_ctx: UserfaultfdCtx | None = None
        self.anon_name: str | None = None

    @classmethod
    def duplicate(cls, vma: VmArea, addr: int, start: int, end: int, mm: MmStruct | None = None) -> VmArea:
        """A copy of ``vma`` for its part [start, end): all attributes, no anon_vma; ``addr``: the new object."""
        pgoff = ((start - vma.start) >> 12) + vma.pgoff
        new = cls(vma.mm if mm is None else mm, addr, start, end, vma.flags, pgoff, vma.file)
        new.vm_ops = vma.vm_ops
        new.page_prot = vma.page_prot
        new.policy = vma.policy
        new.uffd_ctx = vma.uffd_ctx
        new.anon_name = vma.anon_name
        return new

    def set_flags(self, flags: int) -> None:
        """New VM_* flags, and the page protection that follows from them. An area that may have guards keeps saying so:
        a merge may have brought it pages that do.
        """
        self.start_write()
        flags |= self.flags & VM_MAYBE_GUARD
        self.flags = flags
        self.page_prot = vm_get_page_prot(flags) if self.vm_ops is None else self.vma_page_prot(flags)

    def vma_page_prot(self, flags: int) -> int:
        """Page-table bits of fresh entries with these VM_* flags: without the right to write where the owner of a
        shared area wants to hear of the first write to each page.
        """
        ops = self.vm_ops
        if flags & VM_SHARED and ops is not None and (ops.has_page_mkwrite or ops.wants_writenotify):
            flags &= ~VM_SHARED
        return vm_get_page_prot(flags)

    def start_write(self) -> None:
        """Keep faults away from the area until ``mmap_lock``, held for writing, is given up or downgraded (Linux:
        vma_start_write): wait for those that have its lock, and let later ones find the area locked.
        """
        seq = self.mm.mmap_lock.write_seq
        if self.lock_seq == seq:
            return
        lock = self.vm_lock
        if lock is None:  # no fault ever took it, so nobody can have it now
            self.lock_seq = seq
            return
        self.mm.mmap_lock.assert_held_write()
        lock.down_write()
        self.lock_seq = seq
        lock.up_write()

    @property
    def is_anonymous(self) -> bool:
        """No operations: private anonymous memory (a private mapping of /dev/zero too)."""
        return self.vm_ops is None

    @property
    def pages(self) -> int:
        """Length in pages."""
        return (self.end - self.start) >> 12

    def linear_page_index(self, addr: int) -> int:
        """Page offset of ``addr`` in the file or in the anonymous object."""
        return ((addr - self.start) >> 12) + self.pgoff

    def __repr__(self) -> str:
        rwx = "".join(c if self.flags & bit else "-" for c, bit in (("r", VM_READ), ("w", VM_WRITE), ("x", VM_EXEC)))
        return f"<VmArea {self.start:x}-{self.end:x} {rwx}{'s' if self.flags & VM_MAYSHARE else 'p'}>"


class MmStruct:
    """One address space.

    ``pgd``: frame of the top-level table. ``pte_tables``: ``addr >> 21`` to the index in ``ram.q`` of the first entry
    of the page table covering it; a cache of the real tables, kept by ``mm/page_table.py`` alone (protected by
    ``page_table_lock``). ``deposits``: ``addr >> 21`` of each huge leaf to the frame of the table it keeps in reserve
    (ditto). ``huge_zero``: it holds a reference to the huge zero page. ``rss_*``, ``pgtables_bytes``: protected by
    ``page_table_lock``. ``*_vm``: pages, protected by ``mmap_lock``. ``has_pinned``: a page may once
    have been pinned (MMF_HAS_PINNED), so fork looks.
    """

    __slots__ = (
        "addr",
        "arg_end",
        "arg_start",
        "brk",
        "ctx",
        "data_vm",
        "def_flags",
        "deposits",
        "end_code",
        "end_data",
        "env_end",
        "env_start",
        "exec_vm",
        "has_pinned",
        "hiwater_rss",
        "hiwater_vm",
        "huge_zero",
        "id",
        "locked_vm",
        "map_count",
        "merge_any",
        "mm_mt",
        "mmap_base",
        "mmap_lock",
        "owner",
        "page_table_lock",
        "pgd",
        "pgtables_bytes",
        "pte_tables",
        "rss_anon",
        "rss_file",
        "rss_shmem",
        "rss_swap",
        "stack_vm",
        "start_brk",
        "start_code",
        "start_data",
        "start_stack",
        "task_size",
        "thp_disabled",
        "tlb",
        "topdown",
        "total_vm",
    )

    def __init__(
        self,
        ctx: MmContext,
        mm_id: int,
        addr: int,
        pgd: int,
        mm_mt: MapleTree,
        mmap_lock: Rwsem,
        page_table_lock: SpinLock,
        tlb: MmTlb,
    ) -> None:
        self.ctx = ctx
        self.id = mm_id
        self.addr = addr
        self.pgd = pgd
        self.mm_mt = mm_mt
        self.mmap_lock = mmap_lock
        self.page_table_lock = page_table_lock
        self.tlb = tlb
        self.pte_tables: dict[int, int] = {}
        self.deposits: dict[int, int] = {}
        self.huge_zero = False
        self.task_size = paging.TASK_SIZE
        self.mmap_base = 0
        self.topdown = True  #: MMF_TOPDOWN: chosen when the program began
        self.owner: TaskLimits | None = None
        self.def_flags = 0
        self.thp_disabled = False
        self.merge_any = False
        self.has_pinned = False
        self.map_count = 0
        self.total_vm = self.data_vm = self.exec_vm = self.stack_vm = self.locked_vm = 0
        self.rss_anon = self.rss_file = self.rss_shmem = self.rss_swap = 0
        self.hiwater_rss = self.hiwater_vm = 0
        self.pgtables_bytes = 0
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.start_brk = self.brk = self.start_stack = 0
        self.arg_start = self.arg_end = self.env_start = self.env_end = 0

    @property
    def rss(self) -> int:
        """Resident set in pages: anonymous + file + shmem."""
        return self.rss_anon + self.rss_file + self.rss_shmem

    def areas(self) -> list[VmArea]:
        """All areas, ascending."""
        return list(self.mm_mt.entries())

    def vm_stat_account(self, flags: int, pages: int) -> None:
        """Add ``pages`` (negative to subtract) to the ``*_vm`` counters an area with ``flags`` belongs to (spec R9)."""
        self.total_vm += pages
        if flags & VM_GROWSDOWN:
            self.stack_vm += pages
        elif flags & VM_EXEC and not flags & VM_WRITE:
            self.exec_vm += pages
        elif flags & VM_WRITE and not flags & VM_SHARED:
            self.data_vm += pages
