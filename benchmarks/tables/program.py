# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that faults all the time: on the twin, on the live kernel, under another emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from benchmarks.harness import Bench, Case, Side, Unavailable
from benchmarks.live import compile_peer

TITLE = "A fault-heavy program"
NOTE = (
    "peers/faults.c, static: wall time of the whole run, start included, and first-touch faults a second once it runs "
    "(what PAGES more take longer than none). 'memtwin run' also simulates the memory management that the other two "
    "leave to the live kernel."
)


def cases(bench: Bench) -> Iterator[Case]:
    """Against native; against qemu-user where that is installed."""
    pages = bench.size(100_000, 5_000)
    try:
        program = compile_peer("faults", bench.tmp, "-static")
    except Unavailable as why:
        yield Case("wall time", "s", _missing(str(why)), None, str(why), lower=True, rounds=1)
        return
    twin = [sys.executable, "-m", "memtwin", "run", "--", str(program)]
    native = [str(program)]
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    yield Case("nothing but start and exit", "s", _wall(twin, 0), _wall(native, 0), "native", lower=True)
    yield Case(f"{pages:,} faults", "s", _wall(twin, pages), _wall(native, pages), "native", lower=True)
    yield Case("faults", "faults/s", _faults(twin, pages), _faults(native, pages), "native")
    if qemu is None:
        yield Case("faults", "faults/s", _faults(twin, pages), None, "qemu-x86_64 is not installed", rounds=1)
    else:
        other = [qemu, str(program)]
        yield Case(f"{pages:,} faults", "s", _wall(twin, pages), _wall(other, pages), "qemu-x86_64", lower=True)
        yield Case("faults", "faults/s", _faults(twin, pages), _faults(other, pages), "qemu-x86_64")


def _missing(why: str) -> Side:
    def side() -> float:
        raise Unavailable(why)

    return side


def _wall(command: list[str], pages: int) -> Side:
    """Wall seconds of a run that touches ``pages`` pages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    expected = f"{pages * (pages + 1) // 2}"

    def side() -> float:
        start = perf_counter()
        done = subprocess.run(
            [*command, str(pages)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        passed = perf_counter() - start
        if done.returncode or done.stdout.strip() != expected:
            said = (done.stderr.strip().splitlines() or ["nothing"])[0]
            name = "memtwin run" if "memtwin" in command else Path(command[0]).name
            raise Unavailable(f"'{name}' exits with {done.returncode}: {said}")
        return passed

    return side


def _faults(command: list[str], pages: int) -> Side:
    none, many = _wall(command, 0), _wall(command, pages)

    def side() -> float:
        idle = none()
        return pages / max(many() - idle, 1e-9)

    return side
