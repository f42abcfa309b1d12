# SPDX-License-Identifier: GPL-2.0-or-later
"""What must be measured in a process of its own: how much host memory the twin takes.

``python -m benchmarks.child boot SIZE`` boots a machine, ``touch PAGES`` and ``populate PAGES`` have pages of one
present, written and never read; each prints the growth of this process's resident memory in bytes.
"""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["grown"]


def grown(what: str, amount: str | int) -> int:
    """Run this module in a fresh process: the bytes it printed. Raises RuntimeError with its last line of stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", what, str(amount)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{what} {amount}: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout)


def resident() -> int:
    """Resident memory of this process in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _boot(size: str) -> int:
    from memtwin.machine import Machine

    Machine("64M")  # what the first machine brings in, it brings in once
    before = resident()
    machine = Machine(size)
    after = resident()
    machine.close()
    return after - before


def _present(pages: int, *, one_by_one: bool) -> int:
    from memtwin.machine import Machine

    machine = Machine((pages << 12) + (1 << 30))
    process = machine.spawn("present")
    start = process.mmap(0, (pages + 512) << 12)
    process.touch(start + (pages << 12), True)
    process.populate(start + (pages + 1 << 12), 256 << 12)
    before = resident()
    if one_by_one:
        touch = process.touch
        for addr in range(start, start + (pages << 12), 4096):
            touch(addr, True)
    else:
        process.populate(start, pages << 12)
    after = resident()
    if process.mm.rss_anon != pages + 257:
        raise AssertionError(f"{process.mm.rss_anon} pages are present")
    return after - before


def main(what: str, amount: str) -> None:
    """Measure and print."""
    print(_boot(amount) if what == "boot" else _present(int(amount), one_by_one=what == "touch"))


if __name__ == "__main__":
    main(*sys.argv[1:])
