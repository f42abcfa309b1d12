# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting a machine: time, and host memory."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from benchmarks.child import grown
from benchmarks.harness import Bench, Case, Side
from memtwin.machine import Machine

TITLE = "Boot"
NOTE = "Machine(SIZE) in a warm process, and the growth of resident memory by it in a fresh one. Nothing live compares."

#: Size, promised ms, promised MB.
PROMISES = (("64M", 2.0, None), ("64G", None, None), ("4T", 50.0, 100.0))


def cases(bench: Bench) -> Iterator[Case]:
    """Three sizes."""
    for size, ms, mb in PROMISES:
        yield Case(f"boot {size}", "ms", _time(size), None, "no peer", lower=True, most=ms)
        yield Case(f"boot {size}", "MB", _memory(size), None, "no peer", lower=True, most=mb, rounds=1)


def _time(size: str) -> Side:
    def side() -> float:
        start = perf_counter()
        machine = Machine(size)
        passed = perf_counter() - start
        machine.close()
        return passed * 1e3

    return side


def _memory(size: str) -> Side:
    return lambda: grown("boot", size) / 1e6
