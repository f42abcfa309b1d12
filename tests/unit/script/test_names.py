# SPDX-License-Identifier: GPL-2.0-or-later
"""The flag names of the language against the constants of memtwin.abi."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest

import memtwin.abi
from memtwin.script.names import FLAGS

PREFIXES = {
    "prot": "PROT_",
    "mmap": "MAP_",
    "advice": "MADV_",
    "mremap": "MREMAP_",
    "mlock2": "MLOCK_",
    "mlockall": "MCL_",
    "msync": "MS_",
    "memfd": "MFD_",
    "open": "O_",
    "fallocate": "FALLOC_FL_",
    "seals": "F_SEAL_",
    "policy": "MPOL_",
    "mbind": "MPOL_MF_",
    "limit": "RLIMIT_",
    "capability": "CAP_",
}
LONG = {"r": "READ", "w": "WRITE", "x": "EXEC", "anon": "ANONYMOUS"}


def _constants() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(memtwin.abi.__path__):
        found.update(vars(importlib.import_module(f"memtwin.abi.{module.name}")))
    return found


@pytest.mark.parametrize("table", sorted(PREFIXES))
def test_values_agree_with_abi(table: str) -> None:
    constants = _constants()
    known = {name: constants.get(PREFIXES[table] + LONG.get(name, name.upper())) for name in FLAGS[table]}
    assert {name: number for name, number in known.items() if number not in (None, FLAGS[table][name])} == {}
    if table in ("prot", "mmap", "open", "limit"):
        assert sum(number is not None for number in known.values()) >= 4, "the comparison compares nothing"


def test_every_table_has_names() -> None:
    assert all(FLAGS.values())
    assert FLAGS["features"]["move"] == 0x10000
    assert FLAGS["categories"]["guard"] == 256
