# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings that user space changes under /proc/sys/vm (Documentation/admin-guide/sysctl/vm.rst)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LSM_MMAP_MIN_ADDR", "VmSysctl"]

#: Lower bound of mmap_min_addr for hints and searches whatever the sysctl says (CONFIG_LSM_MMAP_MIN_ADDR).
LSM_MMAP_MIN_ADDR = 65536


@dataclass(slots=True)
class VmSysctl:
    """Values as Linux 6.7 has them after boot; sizes in the unit of the file's name, addresses in bytes."""

    overcommit_memory: int = 0
    overcommit_ratio: int = 50
    overcommit_kbytes: int = 0
    admin_reserve_kbytes: int = 8192
    user_reserve_kbytes: int = 131072
    max_map_count: int = 65530
    mmap_min_addr: int = 4096
    legacy_va_layout: int = 0
    #: Boot parameter stack_guard_gap=, in pages.
    stack_guard_gap: int = 256

    def set_reserves(self, free_kbytes: int) -> None:
        """What overcommit mode 2 keeps back: a 32nd of what was free at boot, up to 8 and 128 MiB (spec R10)."""
        self.admin_reserve_kbytes = min(free_kbytes // 32, 8192)
        self.user_reserve_kbytes = min(free_kbytes // 32, 131072)

    @property
    def lowest_address(self) -> int:
        """Lowest address that hints and searches use, a whole page (spec R7; the rounding was observed on 6.18)."""
        return (max(self.mmap_min_addr, LSM_MMAP_MIN_ADDR) + 4095) & -4096
