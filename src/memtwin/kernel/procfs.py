# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine-wide files of /proc: which there are, and where their text comes from (fs/proc/ and the subsystems' own).

``FILES`` are texts, ``READERS`` arrays that are read at any place, ``/proc/sys/vm`` takes writes too; opening anything
else for writing is EROFS, as for all files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from memtwin.fs.file import FsStruct
from memtwin.fs.open import do_open
from memtwin.fs.proc import meminfo, page, slabinfo, vmstat
from memtwin.fs.proc.inode import Reader, ReaderInode
from memtwin.fs.proc.proc_sysctl import VM_TABLE, SysctlInode
from memtwin.fs.sysfs import add_transparent_hugepage
from memtwin.kernel.sys import DOMAIN_NAME, HOST_NAME, release, version
from memtwin.mm.util import vm_commit_limit

if TYPE_CHECKING:
    from memtwin.fs.file import File
    from memtwin.kernel.kernel import Kernel
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.mm.context import MmContext

__all__ = ["FILES", "READERS", "open_file", "register"]

_MOUNTS: Final = """\
rootfs / rootfs ro,relatime 0 0
proc /proc proc ro,relatime 0 0
devtmpfs /dev devtmpfs rw,relatime 0 0
sysfs /sys sysfs ro,relatime 0 0
"""
_FILESYSTEMS: Final = "nodev\tsysfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\trootfs\n"


def _uptime(sys: SyscallTable) -> str:
    """Seconds since boot, and seconds all CPUs idled: those of the CPUs that have nothing to run."""
    hundredths = sys.kernel.clock.now // 10_000_000
    idle = hundredths * (sys.kernel.topology.nr_cpus - 1)
    return f"{hundredths // 100}.{hundredths % 100:02d} {idle // 100}.{idle % 100:02d}\n"


def _meminfo(ctx: MmContext) -> str:
    return meminfo.meminfo(ctx.page_alloc, ctx.committed, vm_commit_limit(ctx))


def _version(sys: SyscallTable) -> str:
    return f"Linux version {release(sys)} (memtwin@{HOST_NAME}) (memtwin) {version()}\n"


#: Path relative to /proc -> its text.
FILES: Final[Mapping[str, Callable[[SyscallTable], str]]] = {
    "buddyinfo": lambda sys: vmstat.buddyinfo(sys.kernel.page_alloc),
    "cmdline": lambda sys: "\n",
    "filesystems": lambda sys: _FILESYSTEMS,
    "loadavg": lambda sys: f"0.00 0.00 0.00 1/{len(sys.kernel.tasks)} {max(sys.kernel.tasks, default=0)}\n",
    "meminfo": lambda sys: _meminfo(sys.kernel.mm_ctx),
    "mounts": lambda sys: _MOUNTS,
    "pagetypeinfo": lambda sys: vmstat.pagetypeinfo(sys.kernel.page_alloc),
    "slabinfo": lambda sys: slabinfo.slabinfo(sys.kernel.slab),
    "sys/kernel/domainname": lambda sys: f"{DOMAIN_NAME}\n",
    "sys/kernel/hostname": lambda sys: f"{HOST_NAME}\n",
    "sys/kernel/osrelease": lambda sys: f"{release(sys)}\n",
    "sys/kernel/ostype": lambda sys: "Linux\n",
    "sys/kernel/randomize_va_space": lambda sys: "0\n",
    "sys/kernel/version": lambda sys: f"{version()}\n",
    "uptime": _uptime,
    "version": _version,
    "vmstat": lambda sys: vmstat.vmstat(sys.kernel.page_alloc),
    "zoneinfo": lambda sys: vmstat.zoneinfo(sys.kernel.page_alloc),
}

#: Arrays, 8 bytes a frame.
READERS: Final[Mapping[str, Callable[[MmContext], Reader]]] = {
    "kpagecount": page.kpagecount_reader,
    "kpageflags": page.kpageflags_reader,
}


def register(sys: SyscallTable) -> None:
    """Put the files into the machine's /proc and /sys."""
    for path, text in FILES.items():
        sys.vfs.proc.add(path, lambda text=text: text(sys))  # type: ignore[misc]
    proc, ctx = sys.vfs.proc, sys.kernel.mm_ctx
    for path, reader in READERS.items():
        proc.add_inode(path, ReaderInode(proc.fs, partial(reader, ctx)))
    for name, knob in VM_TABLE.items():
        proc.add_inode(f"sys/vm/{name}", SysctlInode(proc.fs, ctx, knob, proc.capable))
    add_transparent_hugepage(sys.vfs.sys, ctx)


def open_file(kernel: Kernel, path: str, flags: int) -> File:
    """Open an absolute path as the current process, which needs no root or working directory of its own. Everything
    that open(2) refuses.
    """
    sys: SyscallTable | None = getattr(kernel, "syscalls", None)
    if sys is None:  # no program has run on this machine yet
        from memtwin.kernel.syscalls import SyscallTable

        sys = SyscallTable(kernel)
    root = sys.vfs.root
    return do_open(FsStruct(root, root), root, os.fsencode(path), flags)
