# SPDX-License-Identifier: GPL-2.0-or-later
"""memtwin: a software twin of Linux memory management.

The public names are loaded when first asked for, so that ``import memtwin`` (and every ``memtwin --help``) costs no
NumPy and no emulator::

    m = memtwin.Machine(memory="2G", cpus=2, kernel="6.7", without=["ksm-smart-scan"])

Constants of the system calls are in ``memtwin.abi``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "Machine": "memtwin.machine",
    "Process": "memtwin.process",
    "BadInput": "memtwin.errors",
    "Deadlock": "memtwin.errors",
    "FatalSignal": "memtwin.errors",
    "InvariantBroken": "memtwin.errors",
    "MemtwinError": "memtwin.errors",
    "NotModelled": "memtwin.errors",
    "ProcessKilled": "memtwin.errors",
}


def compiled() -> bool:
    """Whether the inner modules run compiled (``MEMTWIN_MYPYC=1 pip install``), not interpreted."""
    spec = find_spec("memtwin.mm.vma")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def __getattr__(name: str) -> Any:
    """Import the module behind a public name, once."""
    if name not in _NAMES:
        raise AttributeError(f"module 'memtwin' has no attribute '{name}'")
    value = getattr(import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_NAMES, "__version__", "compiled"])
