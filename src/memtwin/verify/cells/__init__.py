# SPDX-License-Identifier: GPL-2.0-or-later
"""The cells of the coverage table that programs of a profile can reach: one module of data a profile.

A cell is listed if the programs of a long campaign on Linux 6.18 (20,000 of vma, 5,000 of the others) reached it at
least 16 times, so that a campaign of that length misses one by chance less than once in a million. ``text`` writes a
module's lines from such a campaign's JSON document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from memtwin.verify.coverage import SITUATIONS

__all__ = ["Cell", "cells", "text"]

Cell = tuple[str, str, str]
_OFTEN: Final = 16


def cells(profile: str) -> list[Cell]:
    """The reachable cells of a profile: operation, result, situation. None for a profile nobody has listed yet."""
    module = f"memtwin.verify.cells.{profile}"
    if find_spec(module) is None:
        return []
    found: list[Cell] = []
    for line in import_module(module).CELLS.strip().splitlines():
        op, result, where = line.split(" | ")
        found += [(op, result, situation) for situation in where.split(", ")]
    return found


def text(coverage: Iterable[Mapping[str, Any]], least: int = _OFTEN) -> str:
    """The lines of a module, from the ``coverage`` of a JSON document."""
    lines: list[str] = []
    for row in coverage:
        counts = row["situations"]
        often = [where for where in SITUATIONS if counts.get(where, 0) >= least]
        if often:
            lines.append(f"{row['operation']} | {row['result']} | {', '.join(often)}")
    return "\n".join(lines)
