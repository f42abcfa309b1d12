# SPDX-License-Identifier: GPL-2.0-or-later
"""prctl options about memory (uapi linux/prctl.h)."""

from __future__ import annotations

from typing import Final

PR_SET_THP_DISABLE: Final = 41
PR_GET_THP_DISABLE: Final = 42
PR_SET_MEMORY_MERGE: Final = 67
PR_GET_MEMORY_MERGE: Final = 68
PR_SET_VMA: Final = 0x53564D41
PR_SET_VMA_ANON_NAME: Final = 0
