# SPDX-License-Identifier: GPL-2.0-or-later
"""What a campaign reached: operation x result x situation of the areas, as the twin saw them before the operation.

Situations: ``hole`` nothing is mapped in the range; ``whole`` exactly one area; ``head``, ``tail``, ``middle`` part of
one; ``across`` a border of adjacent areas; ``over hole`` mapped and unmapped parts, beginning mapped; ``from hole``
beginning unmapped; ``zero``, ``unaligned``, ``outside`` (beyond the address space, or wrapping); ``-`` no range.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from memtwin.script.grammar import MASK, expression
from memtwin.script.run import Script
from memtwin.verify.twin import Before

__all__ = ["SITUATIONS", "Coverage", "Span", "marker", "operation", "situation"]

SITUATIONS: Final = (
    "-",
    "hole",
    "whole",
    "head",
    "tail",
    "middle",
    "across",
    "over hole",
    "from hole",
    "zero",
    "unaligned",
    "outside",
)
_TASK: Final = (1 << 47) - 4096
Span = tuple[int, int]
Cell = tuple[str, str, str]

#: Operations whose first two arguments are a range, and those with a file before it.
_RANGED: Final = frozenset(
    re.findall(
        r"\w+",
        "mmap munmap mprotect madvise process_madvise mremap mlock mlock2 munlock msync mincore mseal remap_file_pages"
        " read write vm_read vm_write anon_name mbind",
    )
)
_FILE_FIRST: Final = frozenset(("uffd_register", "uffd_unregister"))


def situation(areas: Sequence[Span], addr: int, length: int) -> str:
    """Where [addr, addr + length) lies among ``areas``, ascending and disjoint."""
    if addr & 4095:
        return "unaligned"
    if not length:
        return "zero"
    end = addr + (length + 4095 & ~4095)
    if end > _TASK:
        return "outside"
    hit = [span for span in areas if span[0] < end and addr < span[1]]
    if not hit:
        return "hole"
    if addr < hit[0][0]:
        return "from hole"
    if end > hit[-1][1] or any(left[1] != right[0] for left, right in pairwise(hit)):
        return "over hole"
    if len(hit) > 1:
        return "across"
    start, stop = hit[0]
    if addr == start:
        return "whole" if end == stop else "head"
    return "tail" if end == stop else "middle"


def operation(words: Sequence[str]) -> str:
    """The row of an operation: calls that are several in one are several rows."""
    op = words[0]
    if op == "mmap" and len(words) > 4:
        flags = words[4].split("|")
        if "fixed" in flags:
            return "mmap fixed"
        if "fixed_noreplace" in flags:
            return "mmap noreplace"
        return "mmap anywhere" if words[1] == "0" else "mmap hint"
    if op == "mremap" and len(words) > 4:
        flags = words[4].split("|")
        for name in ("dontunmap", "fixed", "maymove"):
            if name in flags:
                return f"mremap {name}"
        return "mremap in place"
    if op in ("madvise", "process_madvise") and len(words) > 3:
        return f"{op} {words[3]}" if words[3].isalpha() or "_" in words[3] else f"{op} unknown"
    if op == "mlock2" and len(words) > 3:
        return f"mlock2 {words[3]}"
    if op in ("mlockall", "dump", "setrlimit", "sysctl") and len(words) > 1:
        return op if op == "dump" else f"{op} {words[1]}"
    return op


@dataclass(slots=True)
class Coverage:
    """Counts by cell: (operation, result, situation)."""

    cells: Counter[Cell] = field(default_factory=Counter)

    def add(self, other: Coverage) -> None:
        """Count ``other`` in."""
        self.cells.update(other.cells)

    def rows(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """Operation, result, and the counts by situation; sorted."""
        found: dict[tuple[str, str], dict[str, int]] = {}
        for (op, result, where), count in self.cells.items():
            found.setdefault((op, result), {})[where] = count
        for (op, result), counts in sorted(found.items()):
            yield op, result, counts

    def empty(self, reachable: Iterable[Cell]) -> list[Cell]:
        """The cells that can be reached and were not."""
        return sorted(cell for cell in reachable if not self.cells[cell])


def _where(script: Script, proc: str, words: Sequence[str]) -> str:
    op = words[0]
    at = 1 if op in _RANGED else 2 if op in _FILE_FIRST else 0
    if not at or len(words) < at + 2:
        return "-"
    try:
        addr, length = (expression(word, script.variable) for word in words[at : at + 2])
    except (ValueError, KeyError):
        return "-"
    if op == "mmap" and words[1] == "0":
        return "-"
    process = script.processes.get(proc)
    if process is None:
        return "-"
    areas = [(vma.start, vma.end) for vma in process.vmas()]
    return "outside" if addr + length > MASK else situation(areas, addr, length)


def marker(coverage: Coverage) -> tuple[Before, Callable[[Iterable[dict[str, Any]]], Iterator[dict[str, Any]]]]:
    """Two hooks for one program: what to call before each line, and what its answers go through."""
    pending: list[tuple[str, str]] = []

    def before(script: Script, proc: str, words: Sequence[str]) -> None:
        pending.append((operation(words), _where(script, proc, words)))

    def done(answers: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for answer in answers:
            if pending:
                op, where = pending.pop()
                pending.clear()
                if "ret" in answer and op != "dump":
                    coverage.cells[op, answer.get("err") or answer.get("sig") or "ok", where] += 1
            yield answer

    return before, done
