# SPDX-License-Identifier: GPL-2.0-or-later
"""What starting the command line costs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import Bench, Case, Side, Unavailable

TITLE = "Command line"
NOTE = "CPU seconds (user + system) of a new process, against a bare interpreter that does nothing."


def cases(bench: Bench) -> Iterator[Case]:
    """``--help`` of the whole and of its largest command."""
    bare = _cpu_ms("-c", "pass")
    yield Case(
        "memtwin --help", "CPU ms", _cpu_ms("-m", "memtwin", "--help"), bare, "python -c pass", lower=True, most=300.0
    )
    yield Case(
        "memtwin run --help",
        "CPU ms",
        _cpu_ms("-m", "memtwin", "run", "--help"),
        bare,
        "python -c pass",
        lower=True,
        most=300.0,
    )


def _cpu_ms(*args: str) -> Side:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def side() -> float:
        child = subprocess.Popen(
            [sys.executable, *args],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise Unavailable(f"'python {' '.join(args)}' exits with {child.returncode}")
        return (usage.ru_utime + usage.ru_stime) * 1e3

    return side
