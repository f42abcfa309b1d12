# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that change settings under /proc/sys/vm: which they are, and the lock that keeps others away meanwhile.

The settings are the whole machine's. The executor changes them, with the lock file held exclusively, and puts them back
however it ends; everybody who depends on them holds it shared.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["changes_sysctls", "lock_file", "settings_held", "why_no_sysctls"]

_VM: Final = Path("/proc/sys/vm")
_FOR_LOCKS: Final = Path("/run/lock")


def lock_file() -> Path:
    """One file for the machine, whoever asks."""
    return (_FOR_LOCKS if _FOR_LOCKS.is_dir() else Path("/tmp")) / "memtwin-sysctls"


def changes_sysctls(lines: Sequence[str]) -> bool:
    """Does a program write a setting?"""
    for line in lines:
        words = line.split()
        at = 1 if words[0].startswith("@") else 0
        if len(words) > at + 2 and words[at].rpartition("=")[2] == "sysctl":
            return True
    return False


def why_no_sysctls() -> str | None:
    """Why settings can not be changed here, in a few words; None if they can."""
    if os.geteuid() != 0:
        return "changing sysctls needs root"
    if not os.access(_VM / "max_map_count", os.W_OK):
        return f"{_VM} can not be written to"
    return None


@contextmanager
def settings_held() -> Iterator[None]:
    """While inside, no executor changes a setting. Waits for one that does."""
    create = os.O_CREAT if os.geteuid() == 0 else 0  # a file of somebody else's would keep executors away
    try:
        held = os.open(lock_file(), os.O_RDONLY | create | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError:  # nobody has changed anything here yet
        yield
        return
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield
    finally:
        os.close(held)
