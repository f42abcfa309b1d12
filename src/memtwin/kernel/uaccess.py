# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel half's access to user memory (Linux: include/linux/uaccess.h): walks the real tables, faults pages in,
sets A and D.

The same translation serves system calls (a bad address is EFAULT) and the direct CPU of the API (a bad address is a
signal).
"""

from __future__ import annotations

import errno

from memtwin.arch.x86.mm.fault import SignalInfo, do_user_addr_fault
from memtwin.hw.paging import (
    ACCESSED,
    DIRTY,
    NX,
    PF_PROT,
    PF_USER,
    PF_WRITE,
    PFN_MASK,
    PKEY_EXECUTE_ONLY,
    PRESENT,
    RW,
    USER,
)
from memtwin.kernel.task import TaskStruct

__all__ = [
    "clear_user",
    "copy_from_user",
    "copy_to_user",
    "get_user",
    "put_user",
    "strncpy_from_user",
    "translate",
]


def translate(task: TaskStruct, addr: int, write: bool, *, user: bool = False) -> int | SignalInfo:
    """Physical address of user address ``addr``, accessed as a CPU would: faults taken, A (and D) set; or the signal
    it raises. ``user``: user mode makes the access, not the kernel on its behalf.
    """
    mm = task.mm
    assert mm is not None
    q = mm.ctx.ram.q
    need, mark = (PRESENT | USER | RW, ACCESSED | DIRTY) if write else (PRESENT | USER, ACCESSED)
    while True:
        base = mm.pte_tables.get(addr >> 21)
        if base is not None:
            index, shift = base + (addr >> 12 & 511), 12
        else:
            index, shift = mm.ctx.pt.lookup(mm, addr) if addr < 1 << 47 else (0, 0)
        entry = q[index] if index else 0
        if entry & (need | PKEY_EXECUTE_ONLY) == need:
            if entry & mark != mark:
                q[index] = entry | mark
            physical = (entry & PFN_MASK & -(1 << shift)) | (addr & ((1 << shift) - 1))
            if write and not entry & NX:
                mm.ctx.tlb.note_frame_changed(physical >> 12)
            return physical
        error = (PF_USER if user else 0) | (PF_WRITE if write else 0) | (PF_PROT if entry & PRESENT else 0)
        signal = do_user_addr_fault(task, addr, error)
        if signal is not None:
            return signal


def _bad(addr: int) -> OSError:
    return OSError(errno.EFAULT, f"bad user address {addr:#x}")


def copy_from_user(task: TaskStruct, addr: int, n: int) -> bytes:
    """``n`` bytes at ``addr``. Raises OSError EFAULT."""
    assert task.mm is not None
    mem = task.mm.ctx.ram.mem
    parts: list[memoryview] = []
    while n > 0:
        physical = translate(task, addr, False)
        if not isinstance(physical, int):
            raise _bad(addr)
        size = min(n, 4096 - (addr & 4095))
        parts.append(mem[physical : physical + size])
        addr += size
        n -= size
    return b"".join(parts)


def copy_to_user(task: TaskStruct, addr: int, data: bytes | memoryview) -> None:
    """Write ``data`` at ``addr``, ascending. Raises OSError EFAULT; what precedes the bad page is written."""
    assert task.mm is not None
    mem = task.mm.ctx.ram.mem
    done, n = 0, len(data)
    while done < n:
        physical = translate(task, addr + done, True)
        if not isinstance(physical, int):
            raise _bad(addr + done)
        size = min(n - done, 4096 - (addr + done & 4095))
        mem[physical : physical + size] = data[done : done + size]
        done += size


def clear_user(task: TaskStruct, addr: int, n: int) -> None:
    """Zero ``n`` bytes at ``addr``. Raises OSError EFAULT."""
    copy_to_user(task, addr, bytes(n))


def get_user(task: TaskStruct, addr: int, size: int = 8) -> int:
    """The little-endian unsigned number of ``size`` bytes at ``addr``. Raises OSError EFAULT."""
    return int.from_bytes(copy_from_user(task, addr, size), "little")


def put_user(task: TaskStruct, addr: int, value: int, size: int = 8) -> None:
    """Store ``value`` (taken modulo 2**(8 * size)) at ``addr``. Raises OSError EFAULT."""
    copy_to_user(task, addr, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))


def strncpy_from_user(task: TaskStruct, addr: int, limit: int = 4096) -> bytes:
    """The bytes at ``addr`` up to a NUL, left out. Raises OSError EFAULT, ENAMETOOLONG past ``limit`` bytes."""
    assert task.mm is not None
    mem = task.mm.ctx.ram.mem
    text = b""
    while len(text) < limit:
        physical = translate(task, addr, False)
        if not isinstance(physical, int):
            raise _bad(addr)
        size = 4096 - (addr & 4095)
        piece = bytes(mem[physical : physical + size])
        end = piece.find(0)
        if end >= 0:
            text += piece[:end]
            break
        text += piece
        addr += size
    if len(text) >= limit:
        raise OSError(errno.ENAMETOOLONG, "string longer than the limit")
    return text
