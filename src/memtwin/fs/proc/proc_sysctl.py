# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/sys/vm (fs/proc/proc_sysctl.c, kernel/sysctl.c; Documentation/admin-guide/sysctl/vm.rst): numbers to read and
write.

A write sets one number, at the start of the file only (sysctl_writes_strict=1: elsewhere it is taken and ignored); a
refused write changes nothing. How numbers are read was observed on 6.18: white space before, C notation (0x, octal), a
blank, tab or newline behind, and what follows it is left for the next write.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from memtwin.abi.capability import CAP_SYS_RAWIO
from memtwin.abi.stat import S_IFREG
from memtwin.fs.file import File
from memtwin.fs.inode import linux_error
from memtwin.fs.libfs import PseudoFs, PseudoInode

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry
    from memtwin.mm.context import MmContext

__all__ = ["VM_TABLE", "Knob", "SysctlInode", "parse"]

INT_MAX: Final = (1 << 31) - 1
INT_MIN: Final = -(1 << 31)
ULONG_MAX: Final = (1 << 64) - 1

_SPACES: Final = b" \t\n\v\f\r"
_NUMBER: Final = re.compile(rb"(-?)(0[xX][0-9a-fA-F]+|[0-9]+)")
#: A number with its sign has to be shorter than this.
_MAX_NUMBER: Final = 21
#: Bytes of one write that are looked at.
_MAX_WRITE: Final = 4095


def parse(data: bytes, lowest: int, highest: int) -> tuple[int, int]:
    """The number that ``data`` sets, and how many bytes that takes. EINVAL for anything but a number in the range; with
    ``lowest`` 0 and ``highest`` 2**64 - 1 (an unsigned long) even -0 is none.
    """
    data = data[:_MAX_WRITE]
    rest = data.lstrip(_SPACES)
    match = _NUMBER.match(rest)
    if match is None or match.end() >= _MAX_NUMBER or (match[1] and highest == ULONG_MAX):
        raise linux_error(errno.EINVAL)
    behind = rest[match.end() :]
    if behind and behind[:1] not in (b" ", b"\t", b"\n"):
        raise linux_error(errno.EINVAL)
    digits = match[2].decode()
    base = 16 if digits[1:2] in ("x", "X") else 8 if digits[0] == "0" else 10
    try:
        value = int(digits, base)
    except ValueError:  # an 8 or 9 in an octal number
        raise linux_error(errno.EINVAL) from None
    value = -value if match[1] else value
    if not lowest <= value <= highest:
        raise linux_error(errno.EINVAL)
    return value, len(data) - len(behind.lstrip(_SPACES))


@dataclass(frozen=True, slots=True)
class Knob:
    """One number: where it is, its range, and the capability that writing it needs (None: none)."""

    get: Callable[[MmContext], int]
    set: Callable[[MmContext, int], None]
    lowest: int = 0
    highest: int = ULONG_MAX
    capability: int | None = None


def _field(name: str, lowest: int = 0, highest: int = ULONG_MAX, capability: int | None = None) -> Knob:
    """A number in ``ctx.sysctl`` that is only looked at."""
    return Knob(
        lambda ctx: int(getattr(ctx.sysctl, name)),
        lambda ctx, value: setattr(ctx.sysctl, name, value),
        lowest,
        highest,
        capability,
    )


def _set_ratio(ctx: MmContext, value: int) -> None:
    ctx.sysctl.overcommit_ratio = value
    ctx.sysctl.overcommit_kbytes = 0


def _set_kbytes(ctx: MmContext, value: int) -> None:
    ctx.sysctl.overcommit_kbytes = value
    ctx.sysctl.overcommit_ratio = 0


#: Name in /proc/sys/vm -> the number.
VM_TABLE: Final[Mapping[str, Knob]] = {
    "admin_reserve_kbytes": _field("admin_reserve_kbytes"),
    "legacy_va_layout": _field("legacy_va_layout", 0, INT_MAX),
    "max_map_count": _field("max_map_count", 0, INT_MAX),
    "min_free_kbytes": Knob(
        lambda ctx: ctx.page_alloc.min_free_kbytes,
        lambda ctx, value: ctx.page_alloc.set_min_free_kbytes(value),
        0,
        INT_MAX,
    ),
    "mmap_min_addr": _field("mmap_min_addr", capability=CAP_SYS_RAWIO),
    "overcommit_kbytes": Knob(lambda ctx: ctx.sysctl.overcommit_kbytes, _set_kbytes),
    "overcommit_memory": _field("overcommit_memory", 0, 2),
    "overcommit_ratio": Knob(lambda ctx: ctx.sysctl.overcommit_ratio, _set_ratio, INT_MIN, INT_MAX),
    "user_reserve_kbytes": _field("user_reserve_kbytes"),
}


class SysctlInode(PseudoInode):
    """The file of one number. ``capable``: whether the process that writes has a capability."""

    __slots__ = ("capable", "ctx", "knob")

    def __init__(self, fs: PseudoFs, ctx: MmContext, knob: Knob, capable: Callable[[int], bool]) -> None:
        super().__init__(fs, S_IFREG | 0o644)
        self.ctx: Final = ctx
        self.knob: Final = knob
        self.capable: Final = capable

    def open(self, dentry: Dentry, flags: int) -> File:
        return _SysctlFile(dentry, self, flags)

    def write(self, data: bytes) -> int:
        """Set the number; the bytes taken. EPERM, EINVAL."""
        knob = self.knob
        if knob.capability is not None and not self.capable(knob.capability):
            raise linux_error(errno.EPERM)
        if not data:
            return 0
        value, taken = parse(data, knob.lowest, knob.highest)
        knob.set(self.ctx, value)
        return taken


class _SysctlFile(File):
    """An open ``SysctlInode``."""

    __slots__ = ()

    reads_fill = True

    def pread(self, count: int, offset: int) -> bytes:
        """The whole number has to be read at once: there is nothing at any other place than the start."""
        assert isinstance(self.inode, SysctlInode)
        return b"" if offset else (b"%d\n" % self.inode.knob.get(self.inode.ctx))[:count]

    def pwrite(self, data: bytes, offset: int) -> int:
        assert isinstance(self.inode, SysctlInode)
        return len(data) if offset else self.inode.write(data)
