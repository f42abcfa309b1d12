# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiment ``selftest-mremap-mman-header``: does mm/mremap_dontunmap build, by release of glibc?

Models what a C preprocessor knows: which header names which MREMAP_* identifier. glibc's ``<sys/mman.h>`` has
MREMAP_MAYMOVE and MREMAP_FIXED, and MREMAP_DONTUNMAP since 2.32; the kernel's ``<linux/mman.h>`` has all three. A test
asks a real compiler the same question.
"""

from __future__ import annotations

from memtwin.experiments.base import Claim, ExperimentResult, Observation

__all__ = ["build", "run"]

_VALUES = {"MREMAP_MAYMOVE": 1, "MREMAP_FIXED": 2, "MREMAP_DONTUNMAP": 4}
_USED = ("MREMAP_MAYMOVE", "MREMAP_FIXED", "MREMAP_DONTUNMAP")

_GLIBC_SINCE = (2, 32)
"""First glibc whose <sys/mman.h> names MREMAP_DONTUNMAP."""

INCLUDES = {"before": ("sys/mman.h",), "after": ("sys/mman.h", "linux/mman.h")}
"""The headers of the selftest that matter here."""


def _identifiers(header: str, glibc: tuple[int, int]) -> dict[str, int]:
    if header == "linux/mman.h" or glibc >= _GLIBC_SINCE:
        return _VALUES
    return {name: value for name, value in _VALUES.items() if name != "MREMAP_DONTUNMAP"}


def build(includes: tuple[str, ...], glibc: tuple[int, int]) -> str:
    """Outcome of compiling the selftest: "ok", or the compiler's complaint about the first unknown identifier."""
    known: dict[str, int] = {}
    for header in includes:
        known.update(_identifiers(header, glibc))
    for name in _USED:
        if name not in known:
            return f"error: '{name}' undeclared"
    return "ok"


def run(change_id: str, /) -> ExperimentResult:
    """The build table: an old and a new libc, with the includes before and after."""
    old, new = (tuple(build(INCLUDES[side], glibc) for side in ("before", "after")) for glibc in ((2, 31), (2, 32)))
    rows = [Observation("build with glibc 2.31", *old), Observation("build with glibc 2.32", *new)]
    claims = [
        Claim("with glibc before 2.32 the selftest did not build, now it does", old[0] != "ok" and old[1] == "ok"),
        Claim("with glibc from 2.32 on nothing changes", new == ("ok", "ok")),
    ]
    return ExperimentResult(change_id, rows, claims)
