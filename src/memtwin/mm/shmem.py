# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that live in memory (Linux: mm/shmem.c, mm/memfd.c), as far as mappings need them before tmpfs is built.

A file has a size, seals and pages; there are no block limits, holes are not given back, and nothing is charged.
Invariant: no page lies at or beyond the end of the file.
"""

from __future__ import annotations

import errno
from typing import Final

from memtwin.abi.fcntl import F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE
from memtwin.mm.context import MmContext
from memtwin.mm.filemap import AddressSpace, FileVmOps
from memtwin.mm.mm_types import VM_MAYWRITE, VM_SHARED, VM_UFFD_MINOR, VM_UFFD_MISSING, MappedFile
from memtwin.mm.page import PG_DIRTY, mark_page_accessed
from memtwin.mm.userfaultfd import handle_userfault
from memtwin.mm.vm_fault import VmFault
from memtwin.mm.vm_ops import VmOperations
from memtwin.mm.zap import unmap_mapping_pages

__all__ = ["SHMEM_VM_OPS", "DevZero", "ShmemFile", "ShmemInode", "punch_hole"]


class ShmemVmOps(FileVmOps):
    """Operations of mapped memory files: a hole becomes a page of zeroes, and a userfaultfd may want to be asked."""

    def fault(self, vmf: VmFault) -> int:
        """shmem_fault."""
        vma = vmf.vma
        if vma.flags & (VM_UFFD_MISSING | VM_UFFD_MINOR):
            assert vma.file is not None
            mapping = vma.file.mapping
            wanted = VM_UFFD_MINOR if vmf.pgoff in mapping.folios else VM_UFFD_MISSING
            if vma.flags & wanted and vmf.pgoff < (mapping.size() + 4095) >> 12:
                return handle_userfault(vma, vmf.address)
        return super().fault(vmf)


#: Operations of mapped memory files and of shared anonymous memory.
SHMEM_VM_OPS: Final = ShmemVmOps()


def _truncate_range(ctx: MmContext, mapping: AddressSpace, first: int, last: int, *, even_cows: bool) -> None:
    """Unmap the pages [first, last) of a file everywhere, with ``even_cows`` private copies of them too, and drop them.

    A fault that got a page before maps it under the lock of the folio: with that lock it is looked at once more.
    """
    unmap_mapping_pages(ctx, mapping, first, last, even_cows=even_cows)
    for index in sorted(index for index in mapping.folios if first <= index < last):
        pfn = mapping.folios.get(index)
        if pfn is None:
            continue
        ctx.pages.refcount[pfn] += 1
        ctx.folio_locks.lock(pfn)
        if mapping.folios.get(index) == pfn:
            if ctx.pages.mapcount[pfn]:
                unmap_mapping_pages(ctx, mapping, index, index + 1, even_cows=False)
            mapping.drop(ctx, index)
        ctx.folio_locks.unlock(pfn)
        ctx.page_alloc.put_page(pfn)


def punch_hole(ctx: MmContext, file: MappedFile, first: int, last: int) -> None:
    """Give back the pages [first, last) of a memory file (FALLOC_FL_PUNCH_HOLE of whole pages); private copies stay.
    Raises OSError EPERM (sealed against writing).
    """
    if file.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
        raise OSError(errno.EPERM, "the file is sealed")
    _truncate_range(ctx, file.mapping, first, last, even_cows=False)


class ShmemInode:
    """One memory file. ``name`` as /proc/PID/maps shows it."""

    __slots__ = ("ctx", "ino", "mapping", "name", "seals", "size")

    def __init__(self, ctx: MmContext, name: str, *, sealable: bool) -> None:
        ctx.mapping_ids += 1
        self.ctx = ctx
        self.ino = ctx.mapping_ids
        self.name = name
        self.size = 0
        self.seals = 0 if sealable else F_SEAL_SEAL
        self.mapping = AddressSpace(lambda index: b"", lambda: self.size, shmem=True)

    def truncate(self, size: int) -> None:
        """ftruncate(2). Raises OSError EINVAL, EPERM (sealed)."""
        if size < 0:
            raise OSError(errno.EINVAL, "ftruncate: negative length")
        if (size < self.size and self.seals & F_SEAL_SHRINK) or (size > self.size and self.seals & F_SEAL_GROW):
            raise OSError(errno.EPERM, "ftruncate: the file is sealed")
        shrinks = size < self.size
        self.size = size  # first: no fault gets a page behind the new end any more
        if shrinks:
            self._shrink()

    def _shrink(self) -> None:
        """Unmap and drop what lies behind the new end, private copies included; zero the rest of the last page."""
        size = self.size
        _truncate_range(self.ctx, self.mapping, (size + 4095) >> 12, 1 << 52, even_cows=True)
        last = self.mapping.folios.get(size >> 12)
        if size & 4095 and last is not None:
            start = (last << 12) + (size & 4095)
            self.ctx.ram.mem[start : (last + 1) << 12] = bytes(4096 - (size & 4095))
            self.ctx.pages.flags[last] |= PG_DIRTY

    def read(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes; holes read as zeroes and stay holes. A page read from its beginning counts as
        accessed. Raises OSError EINVAL.
        """
        if offset < 0:
            raise OSError(errno.EINVAL, "pread: negative offset")
        end = min(offset + length, self.size)
        parts: list[bytes | memoryview] = []
        while offset < end:
            size = min(end - offset, 4096 - (offset & 4095))
            pfn = self.mapping.folios.get(offset >> 12)
            if pfn is None:
                parts.append(bytes(size))
            else:
                at = (pfn << 12) + (offset & 4095)
                parts.append(self.ctx.ram.mem[at : at + size])
                if not offset & 4095:  # who reads on in a page looked at it before
                    mark_page_accessed(self.ctx.pages, pfn, locked=False)
            offset += size
        return b"".join(parts)

    def write(self, data: bytes, offset: int) -> int:
        """Write ``data``; the number of bytes. Raises OSError EINVAL, EPERM (sealed), ENOMEM."""
        if offset < 0:
            raise OSError(errno.EINVAL, "pwrite: negative offset")
        end = offset + len(data)
        if self.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) or (self.seals & F_SEAL_GROW and end > self.size):
            raise OSError(errno.EPERM, "pwrite: the file is sealed")
        done = 0
        while done < len(data):
            at = offset + done
            size = min(len(data) - done, 4096 - (at & 4095))
            pfn = self.mapping.get_folio(self.ctx, at >> 12)
            if not pfn:
                if done:
                    break
                raise OSError(errno.ENOMEM, "pwrite: no memory for the page")
            start = (pfn << 12) + (at & 4095)
            self.ctx.ram.mem[start : start + size] = data[done : done + size]
            self.ctx.pages.nonzero[pfn] = 1
            self.ctx.pages.flags[pfn] |= PG_DIRTY
            mark_page_accessed(self.ctx.pages, pfn, locked=False)
            self.ctx.tlb.note_frame_changed(pfn)
            done += size
            self.size = max(self.size, at + size)
        return done

    def add_seals(self, seals: int) -> None:
        """F_ADD_SEALS. Raises OSError EPERM, EINVAL, EBUSY (a writable shared mapping exists)."""
        if seals & ~0x3F:
            raise OSError(errno.EINVAL, "F_ADD_SEALS: unknown seal")
        if self.seals & F_SEAL_SEAL:
            raise OSError(errno.EPERM, "F_ADD_SEALS: sealed against seals")
        if seals & F_SEAL_WRITE and not self.seals & F_SEAL_WRITE and self._mapped_writable():
            raise OSError(errno.EBUSY, "F_ADD_SEALS: a shared mapping may write")
        self.seals |= seals

    def _mapped_writable(self) -> bool:
        both = VM_SHARED | VM_MAYWRITE
        return any(
            vma.file is not None and vma.file.mapping is self.mapping and vma.flags & both == both
            for mm in self.ctx.mms.values()
            for vma in mm.areas()
        )


class DevZero(ShmemInode):
    """/dev/zero: its private mappings are anonymous memory; it has no size to exceed."""

    __slots__ = ()

    def __init__(self, ctx: MmContext) -> None:
        super().__init__(ctx, "/dev/zero", sealable=False)
        self.size = 1 << 62

    def write(self, data: bytes, offset: int) -> int:
        """What is written to the device is gone. Raises OSError EINVAL."""
        if offset < 0:
            raise OSError(errno.EINVAL, "pwrite: negative offset")
        return len(data)

    def truncate(self, size: int) -> None:
        """A device can not be truncated."""
        raise OSError(errno.EINVAL, "ftruncate: a device")


class ShmemFile:
    """An open memory file; what ``do_mmap`` maps. ``only_path``: opened with O_PATH, good for nothing but its name."""

    __slots__ = ("inode", "only_path", "readable", "writable")

    def __init__(
        self, inode: ShmemInode, *, readable: bool = True, writable: bool = True, only_path: bool = False
    ) -> None:
        self.inode = inode
        self.only_path = only_path
        self.readable = readable and not only_path
        self.writable = writable and not only_path
        inode.mapping.opened(inode.ctx)

    def close(self) -> None:
        """The descriptor is gone."""
        self.inode.mapping.closed(self.inode.ctx)

    @property
    def mapping(self) -> AddressSpace:
        """Its pages."""
        return self.inode.mapping

    @property
    def path(self) -> str:
        """Name in /proc/PID/maps."""
        return self.inode.name

    @property
    def dev(self) -> tuple[int, int]:
        """Device of the internal tmpfs."""
        return (0, 1)

    @property
    def ino(self) -> int:
        """Inode number."""
        return self.inode.ino

    @property
    def seals(self) -> int:
        """F_SEAL_* bits."""
        return self.inode.seals

    @property
    def vm_ops(self) -> VmOperations | None:
        """Ordinary file operations; none for /dev/zero."""
        return None if isinstance(self.inode, DevZero) else SHMEM_VM_OPS
