# SPDX-License-Identifier: GPL-2.0-or-later
"""Capability numbers (uapi linux/capability.h)."""

from __future__ import annotations

from typing import Final

CAP_IPC_LOCK: Final = 14
CAP_SYS_RAWIO: Final = 17
CAP_SYS_PTRACE: Final = 19
CAP_SYS_ADMIN: Final = 21
CAP_SYS_NICE: Final = 23
CAP_SYS_RESOURCE: Final = 24
CAP_PERFMON: Final = 38
CAP_LAST_CAP: Final = 40
