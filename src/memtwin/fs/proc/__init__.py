# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc of the twin (fs/proc/): its own state, never the host's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["COVERAGE"]

#: Files relative to /proc: how much of each is modelled, and what is not. A test compares it with what is there.
COVERAGE: Final[Mapping[str, tuple[str, str]]] = {
    "PID/clear_refs": ("modelled", "no soft-dirty bits"),
    "PID/cmdline": ("modelled", ""),
    "PID/comm": ("modelled", ""),
    "PID/cwd": ("modelled", ""),
    "PID/environ": ("modelled", ""),
    "PID/exe": ("modelled", ""),
    "PID/fd": ("modelled", ""),
    "PID/limits": ("modelled", ""),
    "PID/maps": ("modelled", ""),
    "PID/mem": ("modelled", ""),
    "PID/numa_maps": ("modelled", "no hugetlb pages"),
    "PID/pagemap": ("modelled", "no soft-dirty bits"),
    "PID/root": ("modelled", ""),
    "PID/smaps": ("partly", "no swapped pages of shared memory; KSM and hugetlb are 0"),
    "PID/smaps_rollup": ("partly", "as smaps"),
    "PID/stat": ("partly", "times, terminals and flags are 0"),
    "PID/statm": ("modelled", ""),
    "PID/status": ("partly", "no seccomp, CPU and node masks, context switches"),
    "buddyinfo": ("modelled", ""),
    "cmdline": ("modelled", "empty"),
    "filesystems": ("modelled", ""),
    "kpagecount": ("modelled", ""),
    "kpageflags": ("partly", "no bits of KSM, hugetlb and idle pages"),
    "loadavg": ("partly", "the averages are 0"),
    "meminfo": ("partly", "lines of what is not modelled are 0"),
    "mounts": ("modelled", ""),
    "pagetypeinfo": ("modelled", ""),
    "self": ("modelled", ""),
    "slabinfo": ("modelled", ""),
    "sys/kernel/domainname": ("modelled", "read-only"),
    "sys/kernel/hostname": ("modelled", "read-only"),
    "sys/kernel/osrelease": ("modelled", ""),
    "sys/kernel/ostype": ("modelled", ""),
    "sys/kernel/randomize_va_space": ("modelled", "0, read-only"),
    "sys/kernel/version": ("modelled", ""),
    "sys/vm/admin_reserve_kbytes": ("modelled", ""),
    "sys/vm/legacy_va_layout": ("modelled", ""),
    "sys/vm/max_map_count": ("modelled", ""),
    "sys/vm/min_free_kbytes": ("modelled", ""),
    "sys/vm/mmap_min_addr": ("modelled", ""),
    "sys/vm/overcommit_kbytes": ("modelled", ""),
    "sys/vm/overcommit_memory": ("modelled", ""),
    "sys/vm/overcommit_ratio": ("modelled", ""),
    "sys/vm/user_reserve_kbytes": ("modelled", ""),
    "uptime": ("modelled", ""),
    "version": ("modelled", ""),
    "vmstat": ("partly", "lines of what is not modelled are 0"),
    "zoneinfo": ("modelled", ""),
}
