# SPDX-License-Identifier: GPL-2.0-or-later
"""The build table of selftest-mremap-mman-header, and a real compiler's opinion."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from memtwin.experiments.mremap_header import _USED, INCLUDES, build

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to ask")


@pytest.mark.parametrize(
    ("side", "glibc", "outcome"),
    [
        ("before", (2, 28), "error: 'MREMAP_DONTUNMAP' undeclared"),
        ("before", (2, 31), "error: 'MREMAP_DONTUNMAP' undeclared"),
        ("before", (2, 32), "ok"),
        ("after", (2, 31), "ok"),
        ("after", (2, 40), "ok"),
    ],
)
def test_build(side: str, glibc: tuple[int, int], outcome: str) -> None:
    assert build(INCLUDES[side], glibc) == outcome


def _compiles(side: str, *, old_libc: bool) -> bool:
    """Ask gcc; an old libc is today's with the name taken away again behind <sys/mman.h>."""
    source = "#define _GNU_SOURCE\n"
    for header in INCLUDES[side]:
        source += f"#include <{header}>\n"
        if header == "sys/mman.h" and old_libc:
            source += "#undef MREMAP_DONTUNMAP\n"
    source += f"int used[] = {{{', '.join(_USED)}}};\n"
    done = subprocess.run(["gcc", "-fsyntax-only", "-x", "c", "-"], input=source, text=True, capture_output=True)
    assert done.returncode == 0 or "MREMAP_DONTUNMAP" in done.stderr
    return done.returncode == 0


@needs_gcc
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("old_libc", [False, True])
def test_gcc_agrees(side: str, old_libc: bool) -> None:
    assert _compiles(side, old_libc=old_libc) == (build(INCLUDES[side], (2, 31) if old_libc else (2, 32)) == "ok")
