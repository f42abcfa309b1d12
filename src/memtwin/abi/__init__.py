# SPDX-License-Identifier: GPL-2.0-or-later
"""What user space sees of x86-64 Linux: constants and layouts. Imports nothing.

The constants of the system calls are also names of this package: ``from memtwin.abi import PROT_READ, RLIMIT_AS``.
"""

from __future__ import annotations

from importlib import import_module

_MODULES = ("mman", "resource", "signal", "fcntl", "mempolicy", "prctl", "capability", "userfaultfd")


def __getattr__(name: str) -> int:
    """A constant of one of the modules, by its own name."""
    if name.isupper():
        for module in _MODULES:
            value = getattr(import_module(f"memtwin.abi.{module}"), name, None)
            if isinstance(value, int):
                return value
    raise AttributeError(f"module 'memtwin.abi' has no attribute '{name}'")
