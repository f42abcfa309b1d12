# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine-wide files of /proc: which there are, and where their text comes from (fs/proc/ and the subsystems' own).

Everything is read-only so far: opening one for writing is EROFS, as for all files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from memtwin.fs.proc import meminfo, slabinfo, vmstat
from memtwin.kernel.sys import DOMAIN_NAME, HOST_NAME, release, version

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable

__all__ = ["FILES", "register"]

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


def _version(sys: SyscallTable) -> str:
    return f"Linux version {release(sys)} (memtwin@{HOST_NAME}) (memtwin) {version()}\n"


#: Path relative to /proc -> its text.
FILES: Final[Mapping[str, Callable[[SyscallTable], str]]] = {
    "buddyinfo": lambda sys: vmstat.buddyinfo(sys.kernel.page_alloc),
    "cmdline": lambda sys: "\n",
    "filesystems": lambda sys: _FILESYSTEMS,
    "loadavg": lambda sys: f"0.00 0.00 0.00 1/{len(sys.kernel.tasks)} {max(sys.kernel.tasks, default=0)}\n",
    "meminfo": lambda sys: meminfo.meminfo(sys.kernel.page_alloc, sys.kernel.mm_ctx.committed),
    "mounts": lambda sys: _MOUNTS,
    "pagetypeinfo": lambda sys: vmstat.pagetypeinfo(sys.kernel.page_alloc),
    "slabinfo": lambda sys: slabinfo.slabinfo(sys.kernel.slab),
    "sys/kernel/domainname": lambda sys: f"{DOMAIN_NAME}\n",
    "sys/kernel/hostname": lambda sys: f"{HOST_NAME}\n",
    "sys/kernel/osrelease": lambda sys: f"{release(sys)}\n",
    "sys/kernel/ostype": lambda sys: "Linux\n",
    "sys/kernel/randomize_va_space": lambda sys: "0\n",
    "sys/kernel/version": lambda sys: f"{version()}\n",
    "sys/vm/max_map_count": lambda sys: f"{sys.kernel.mm_ctx.sysctl.max_map_count}\n",
    "sys/vm/mmap_min_addr": lambda sys: f"{sys.kernel.mm_ctx.sysctl.mmap_min_addr}\n",
    "sys/vm/overcommit_memory": lambda sys: f"{sys.kernel.mm_ctx.sysctl.overcommit_memory}\n",
    "uptime": _uptime,
    "version": _version,
    "vmstat": lambda sys: vmstat.vmstat(sys.kernel.page_alloc),
    "zoneinfo": lambda sys: vmstat.zoneinfo(sys.kernel.page_alloc),
}


def register(sys: SyscallTable) -> None:
    """Put the files into the machine's /proc."""
    for path, text in FILES.items():
        sys.vfs.proc.add(path, lambda text=text: text(sys))  # type: ignore[misc]
