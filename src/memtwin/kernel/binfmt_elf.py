# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading ELF programs (fs/binfmt_elf.c): static x86-64 executables and static position-independent ones.

Headers are read with ``struct``: 64 bytes and 56 a segment need no library, and start-up stays short. Segments become
private file mappings exactly as Linux makes them: page by page of the file, the rest of the last page zeroed, anonymous
pages behind it. Sources: System V ABI chapters 4-5 and its AMD64 supplement; addresses as observed with address
randomisation off.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from memtwin.abi import mman
from memtwin.hw.paging import TASK_SIZE
from memtwin.hw.ram import PAGE_MASK
from memtwin.kernel.uaccess import clear_user
from memtwin.mm.mmap import do_mmap, do_munmap

if TYPE_CHECKING:
    from memtwin.fs.file import File
    from memtwin.kernel.task import TaskStruct

__all__ = ["Elf", "Loaded", "Segment", "load_segments", "parse"]

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")

ET_EXEC: Final = 2
ET_DYN: Final = 3
EM_386: Final = 3
EM_X86_64: Final = 62
PT_LOAD: Final = 1
PT_INTERP: Final = 3
PT_GNU_STACK: Final = 0x6474E551
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4


class Segment(NamedTuple):
    """One PT_LOAD header, bytes."""

    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int

    @property
    def prot(self) -> int:
        """PROT_* bits."""
        flags = self.flags
        return (
            (mman.PROT_READ if flags & PF_R else 0)
            | (mman.PROT_WRITE if flags & PF_W else 0)
            | (mman.PROT_EXEC if flags & PF_X else 0)
        )


class Elf(NamedTuple):
    """What the headers say. ``phdr_vaddr``: where the program headers are in the image; ``exec_stack``: PT_GNU_STACK
    with X.
    """

    kind: int
    entry: int
    phnum: int
    phdr_vaddr: int
    exec_stack: bool
    segments: tuple[Segment, ...]


class Loaded(NamedTuple):
    """Where things ended up: what the auxiliary vector and ``mm`` tell."""

    entry: int
    phdr: int
    start_code: int
    end_code: int
    start_data: int
    end_data: int
    brk: int


def _bad(why: str) -> OSError:
    return OSError(errno.ENOEXEC, why)


def parse(file: File) -> Elf:
    """Read the headers of ``file``. Raises OSError ENOEXEC with a reason, EINVAL for segments that contradict
    themselves.
    """
    head = file.pread(_EHDR.size, 0)
    if head[:2] == b"#!":
        raise _bad("it is a script, and interpreters are not modelled yet")
    if head[:4] != b"\x7fELF":
        raise _bad("it is not an ELF program")
    if len(head) < _EHDR.size:
        raise _bad("its ELF header is cut off")
    ident, kind, machine, _, entry, phoff, _, _, _, phentsize, phnum, *_ = _EHDR.unpack(head)
    if ident[4] == 1 or machine == EM_386:
        raise _bad("it is a 32-bit program: memtwin runs x86-64 programs")
    if ident[4] != 2 or ident[5] != 1 or machine != EM_X86_64:
        raise _bad(f"it is for another machine (ELF machine {machine}): memtwin runs x86-64 programs")
    if kind not in (ET_EXEC, ET_DYN):
        raise _bad("it is an ELF file, but no program")
    if phentsize != _PHDR.size or not 1 <= phnum <= 65536 // _PHDR.size:
        raise _bad("its ELF program headers are broken")
    table = file.pread(_PHDR.size * phnum, phoff)
    if len(table) < _PHDR.size * phnum:
        raise _bad("its ELF program headers are cut off")
    segments = []
    phdr_vaddr = 0
    exec_stack = False
    for p_type, flags, offset, vaddr, _, filesz, memsz, _ in _PHDR.iter_unpack(table):
        if p_type == PT_INTERP:
            raise _bad("dynamically linked programs are not modelled yet")
        if p_type == PT_GNU_STACK:
            exec_stack = bool(flags & PF_X)
        if p_type == PT_LOAD:
            if filesz > memsz or memsz > TASK_SIZE or vaddr > TASK_SIZE - memsz or (vaddr ^ offset) & 4095:
                raise OSError(errno.EINVAL, "one of its ELF segments is impossible")
            segments.append(Segment(flags, offset, vaddr, filesz, memsz))
            if offset <= phoff < offset + filesz:
                phdr_vaddr = phoff - offset + vaddr
    if not segments:
        raise _bad("it has nothing to load")
    return Elf(kind, entry, phnum, phdr_vaddr, exec_stack, tuple(segments))


def load_segments(task: TaskStruct, file: File, elf: Elf) -> Loaded:
    """Map the segments into ``task.mm``, which has only a stack. Raises OSError: the old program is gone by then."""
    bias = _place(task, elf)
    first, last = True, 0
    end = max(segment.vaddr + segment.memsz for segment in elf.segments)
    for segment in elf.segments:
        # The first must find its place free; later ones may share a page with one before.
        _map(task, file, segment, bias, replace=not first)
        first = False
        last = max(last, segment.vaddr + segment.filesz)
    code = [segment for segment in elf.segments if segment.flags & PF_X] or list(elf.segments)
    return Loaded(
        entry=elf.entry + bias,
        phdr=elf.phdr_vaddr + bias if elf.phdr_vaddr else 0,
        start_code=min(segment.vaddr for segment in code) + bias,
        end_code=max(segment.vaddr + segment.filesz for segment in code) + bias,
        start_data=max(segment.vaddr for segment in elf.segments) + bias,
        end_data=last + bias,
        brk=(end + bias + 4095) & PAGE_MASK,
    )


def _place(task: TaskStruct, elf: Elf) -> int:
    """What is added to the addresses in the file. A position-independent program without an interpreter goes where mmap
    puts it.
    """
    if elf.kind == ET_EXEC:
        return 0
    assert task.mm is not None
    low = elf.segments[0].vaddr & PAGE_MASK
    size = ((max(s.vaddr + s.memsz for s in elf.segments) + 4095) & PAGE_MASK) - low
    base = do_mmap(task.mm, 0, size, mman.PROT_NONE, mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_NORESERVE)
    do_munmap(task.mm, base, size)
    return base - low


def _map(task: TaskStruct, file: File, segment: Segment, bias: int, *, replace: bool) -> None:
    mm = task.mm
    assert mm is not None
    start = segment.vaddr + bias
    prot = segment.prot
    fixed = mman.MAP_FIXED if replace else mman.MAP_FIXED_NOREPLACE
    if segment.filesz:
        lead = start & 4095
        size = (lead + segment.filesz + 4095) & PAGE_MASK
        private = mman.MAP_PRIVATE | fixed
        do_mmap(mm, start - lead, size, prot, private, file, (segment.offset - lead) >> 12)
    bss = start + segment.filesz
    end = (start + segment.memsz + 4095) & PAGE_MASK
    if segment.memsz == segment.filesz:
        return
    if segment.filesz and bss & 4095 and prot & mman.PROT_WRITE:
        clear_user(task, bss, -bss & 4095)
    bss = (bss + 4095) & PAGE_MASK if segment.filesz else start & PAGE_MASK
    if bss < end:
        anonymous = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED
        # As brk maps it (vm_brk_flags): readable and writable, whatever the segment says about reading.
        do_mmap(mm, bss, end - bss, mman.PROT_READ | mman.PROT_WRITE | (prot & mman.PROT_EXEC), anonymous)
