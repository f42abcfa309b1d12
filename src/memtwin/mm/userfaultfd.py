# SPDX-License-Identifier: GPL-2.0-or-later
"""The userfaultfd context: handshake, registering and unregistering ranges, close (Linux: fs/userfaultfd.c).

What it does to areas is complete (a registered area carries the context and merges only with the same one);
delivering faults to a monitor is not modelled, so a fault that a monitor would have to answer says so instead of being
answered by the kernel.
"""

from __future__ import annotations

import errno
from typing import Final

from memtwin.abi import userfaultfd as uf
from memtwin.errors import NotModelled
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.filemap import FILE_VM_OPS, AddressSpace
from memtwin.mm.mm_types import (
    VM_MAYWRITE,
    VM_UFFD_FLAGS,
    VM_UFFD_MINOR,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
    MmStruct,
    VmArea,
)
from memtwin.mm.vm_fault import VM_FAULT_SIGBUS
from memtwin.mm.vm_ops import VmOperations
from memtwin.mm.vma import areas_in, each_area

__all__ = ["UserfaultfdCtx", "UserfaultfdFile", "handle_userfault"]

_MODE_FLAGS: Final = {
    uf.UFFDIO_REGISTER_MODE_MISSING: VM_UFFD_MISSING,
    uf.UFFDIO_REGISTER_MODE_WP: VM_UFFD_WP,
    uf.UFFDIO_REGISTER_MODE_MINOR: VM_UFFD_MINOR,
}
_API_IOCTLS: Final = 1 << uf.UFFDIO_NR_REGISTER | 1 << uf.UFFDIO_NR_UNREGISTER | 1 << uf.UFFDIO_NR_API


def handle_userfault(vma: VmArea, addr: int) -> int:
    """A missing page in a registered area: with the SIGBUS feature the fault fails (VM_FAULT_SIGBUS).

    Raises NotModelled where a monitor would have to be asked.
    """
    ctx = vma.uffd_ctx
    if ctx is None or not (ctx.features or 0) & uf.UFFD_FEATURE_SIGBUS:
        raise NotModelled(f"a fault at {addr:#x} that a userfaultfd's monitor would have to answer")
    return VM_FAULT_SIGBUS


class UserfaultfdFile:
    """What mmap sees of a userfaultfd: it is open for reading only, and can not be mapped."""

    path = "anon_inode:[userfaultfd]"
    dev = (0, 0)
    ino = 0
    readable = True
    writable = False
    seals = 0
    vm_ops: VmOperations | None = FILE_VM_OPS

    @property
    def mapping(self) -> AddressSpace:
        """Raises OSError ENODEV."""
        raise OSError(errno.ENODEV, "mmap: a userfaultfd can not be mapped")


class UserfaultfdCtx:
    """One userfaultfd of the address space ``mm``. ``features`` is None before the API handshake."""

    __slots__ = ("features", "mm")

    def __init__(self, mm: MmStruct) -> None:
        self.mm = mm
        self.features: int | None = None

    def api(self, version: int, features: int) -> tuple[int, int]:
        """UFFDIO_API: (features the kernel has, ioctls). Raises OSError EINVAL (version, unknown feature, second
        call), EPERM.
        """
        has_move = self.mm.ctx.features.has("post-uffd-move")
        known = 0x1FFFF if has_move else 0xFFFF
        if version != uf.UFFD_API or features & ~known or self.features is not None:
            raise OSError(errno.EINVAL, "UFFDIO_API: version, feature, or called twice")
        self.features = features
        if features & uf.UFFD_FEATURE_WP_ASYNC:
            self.features |= uf.UFFD_FEATURE_WP_UNPOPULATED
        return known, _API_IOCTLS

    def _validate_range(self, start: int, length: int) -> None:
        if self.features is None:
            raise OSError(errno.EINVAL, "userfaultfd: UFFDIO_API comes first")
        task_size = self.mm.task_size
        if (
            start & ~PAGE_MASK
            or length & ~PAGE_MASK
            or not length
            or start < self.mm.ctx.sysctl.lowest_address
            or start >= task_size
            or length > task_size - start
        ):
            raise OSError(errno.EINVAL, "userfaultfd: unaligned, empty or impossible range")

    def register(self, start: int, length: int, mode: int) -> int:
        """UFFDIO_REGISTER; the mask of ioctls the range takes. Raises OSError EINVAL, EPERM, EBUSY, ENOMEM."""
        if not mode or mode & ~7:
            raise OSError(errno.EINVAL, "UFFDIO_REGISTER: no mode, or an unknown one")
        self._validate_range(start, length)
        wanted = sum(flag for bit, flag in _MODE_FLAGS.items() if mode & bit)
        mm, end = self.mm, start + length
        mm.mmap_lock.down_write()
        try:
            areas = areas_in(mm, start, end)
            if not areas:
                raise OSError(errno.EINVAL, "UFFDIO_REGISTER: nothing is mapped there")
            for vma in areas:
                self._check_area(vma, wanted)
            self._change(start, end, wanted)
        finally:
            mm.mmap_lock.up_write()
        return self._range_ioctls(mode)

    def _check_area(self, vma: VmArea, wanted: int) -> None:
        assert self.features is not None
        shmem = vma.file is not None and vma.vm_ops is not None and vma.file.mapping.shmem
        only_wp = wanted == VM_UFFD_WP and self.features & uf.UFFD_FEATURE_WP_ASYNC
        if not (vma.is_anonymous or shmem or only_wp) or (wanted & VM_UFFD_MINOR and not shmem):
            raise OSError(errno.EINVAL, f"UFFDIO_REGISTER: {vma!r} can not be registered in this mode")
        if not vma.flags & VM_MAYWRITE:
            raise OSError(errno.EPERM, f"UFFDIO_REGISTER: {vma!r} may never be written")
        if vma.uffd_ctx is not None and vma.uffd_ctx is not self:
            raise OSError(errno.EBUSY, f"UFFDIO_REGISTER: {vma!r} belongs to another userfaultfd")

    def _range_ioctls(self, mode: int) -> int:
        mask = 1 << uf.UFFDIO_NR_WAKE | 1 << uf.UFFDIO_NR_COPY | 1 << uf.UFFDIO_NR_ZEROPAGE | 1 << uf.UFFDIO_NR_POISON
        if self.mm.ctx.features.has("post-uffd-move"):
            mask |= 1 << uf.UFFDIO_NR_MOVE
        if mode & uf.UFFDIO_REGISTER_MODE_WP:
            mask |= 1 << uf.UFFDIO_NR_WRITEPROTECT
        if mode & uf.UFFDIO_REGISTER_MODE_MINOR:
            mask |= 1 << uf.UFFDIO_NR_CONTINUE
        return mask

    def _change(self, start: int, end: int, wanted: int) -> None:
        mm = self.mm
        prev: VmArea | None = None
        for vma in each_area(mm, start, end):
            low, high = max(vma.start, start), min(vma.end, end)
            if prev is None or prev.end < low:
                prev = vma if low > vma.start else (mm.mm_mt.load(low - 1) if low else None)
            if vma.uffd_ctx is self and vma.flags & wanted == wanted:
                prev = vma
                continue
            flags = vma.flags & ~VM_UFFD_FLAGS | wanted
            changed = mm.ctx.modify.uffd_register(mm, prev, vma, low, high, flags, self)
            changed.set_flags(flags)
            changed.uffd_ctx = self
            prev = changed

    def unregister(self, start: int, length: int) -> None:
        """UFFDIO_UNREGISTER. Raises OSError EINVAL, ENOMEM."""
        self._validate_range(start, length)
        mm, end = self.mm, start + length
        mm.mmap_lock.down_write()
        try:
            areas = areas_in(mm, start, end)
            if not areas:
                raise OSError(errno.EINVAL, "UFFDIO_UNREGISTER: nothing is mapped there")
            for vma in areas:
                shmem = vma.file is not None and vma.vm_ops is not None and vma.file.mapping.shmem
                if not (vma.is_anonymous or shmem or vma.uffd_ctx is not None):
                    raise OSError(errno.EINVAL, f"UFFDIO_UNREGISTER: {vma!r} can not be registered")
                if mm.ctx.uffd_unregister_own and vma.uffd_ctx not in (None, self):
                    raise OSError(errno.EINVAL, f"UFFDIO_UNREGISTER: {vma!r} belongs to another userfaultfd")
            prev: VmArea | None = None
            for vma in each_area(mm, start, end):
                low, high = max(vma.start, start), min(vma.end, end)
                if prev is None or prev.end < low:
                    prev = vma if low > vma.start else (mm.mm_mt.load(low - 1) if low else None)
                if vma.uffd_ctx is None:
                    prev = vma
                    continue
                flags = vma.flags & ~VM_UFFD_FLAGS
                changed = mm.ctx.modify.uffd_unregister(mm, prev, vma, low, high, flags)
                changed.set_flags(flags)
                changed.uffd_ctx = None
                prev = changed
        finally:
            mm.mmap_lock.up_write()

    def release(self) -> None:
        """The last descriptor is closed: every area of the context goes back to normal and may merge; this never
        fails.
        """
        mm = self.mm
        if not mm.pgd:
            return
        mm.mmap_lock.down_write()
        try:
            prev: VmArea | None = None
            position = 0
            while (vma := mm.mm_mt.find(position)) is not None:
                position = vma.end
                if vma.uffd_ctx is not self:
                    prev = vma
                    continue
                flags = vma.flags & ~VM_UFFD_FLAGS
                changed = mm.ctx.modify.uffd_release(mm, prev, vma, flags)
                changed.set_flags(flags)
                changed.uffd_ctx = None
                prev = changed
        finally:
            mm.mmap_lock.up_write()
