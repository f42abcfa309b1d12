# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes that address spaces cost on the kernel that runs here, against the tree's own count for the same VMAs.

The number of ``maple_node`` objects is read before, while and after many processes have the same VMAs, the per-CPU
stocks shrunk before each reading. Other tasks come and go meanwhile: a reading counts if the count came back, and 1.5 %
are allowed: less than what a wrong cut (7 %), a wrong push or leaves of 14 instead of 15 would make. Three that count
and disagree fail; one that agrees settles it.

Takes some seconds: tens of thousands of real VMAs per case, and each reading waits for an RCU grace period.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from memtwin.lib.testing.maple_model import PAGE, WINDOW, Order, vma_tree
from memtwin.lib.testing.slab_shim import SlabShim

pytestmark = [pytest.mark.live, pytest.mark.slow]

CACHE = Path("/sys/kernel/slab/maple_node")
#: Readings taken while other tasks moved the count do not count; so many are tried.
ATTEMPTS = 6
SOURCE = Path(__file__).with_name("maple_vmas.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root to read /proc/slabinfo and shrink the cache")
    if not CACHE.is_dir() or not os.access("/proc/slabinfo", os.R_OK):
        pytest.skip("no /sys/kernel/slab/maple_node or no /proc/slabinfo")
    if (CACHE / "aliases").read_text().strip() != "0":
        pytest.skip("the maple_node cache is merged with others (slab_nomerge not set): its line counts them too")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    binary = tmp_path_factory.mktemp("maple") / "maple_vmas"
    built = subprocess.run(["gcc", "-O1", "-static", "-o", binary, SOURCE], capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"gcc can not link statically: {built.stderr.splitlines()[-1:]}")
    return binary


def command(program: Path, *args: str) -> list[str]:
    """Without address randomisation, so that all copies have the same layout."""
    return ["setarch", "--addr-no-randomize", str(program), *args]


def active_nodes() -> int:
    time.sleep(0.25)  # longer than a grace period
    (CACHE / "shrink").write_text("1")
    for line in Path("/proc/slabinfo").read_text().splitlines():
        if line.startswith("maple_node "):
            return int(line.split()[1])
    raise AssertionError("no line for maple_node")


def base_vmas(program: Path) -> list[tuple[int, int]]:
    """(first page, pages) of every VMA of the program before it makes its own."""
    maps = subprocess.run(command(program, "up", "0", "?", "0"), capture_output=True, text=True, check=True).stdout
    ends = [line.split()[0].split("-") for line in maps.splitlines() if "[vsyscall]" not in line]
    return [(int(low, 16) // PAGE, (int(high, 16) - int(low, 16)) // PAGE) for low, high in ends]


def live_nodes(program: Path, order: Order, count: int, gaps: bool, copies: int) -> tuple[float, float]:
    """Nodes per process, and by how much other tasks moved the count meanwhile (per process)."""
    before = active_nodes()
    with subprocess.Popen(
        command(program, order, str(count), str(int(gaps)), str(copies)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        during = active_nodes()
        process.stdin.close()
    assert process.returncode == 0
    return (during - before) / copies, abs(active_nodes() - before) / copies


@pytest.mark.parametrize(
    "order, count, gaps, copies",
    [
        ("up", 1_000, False, 100),
        ("down", 1_000, False, 100),
        ("up", 1_000, True, 100),
        ("down", 1_000, True, 100),
        ("up", 30_000, False, 4),
    ],
)
def test_live_node_counts(program: Path, order: Order, count: int, gaps: bool, copies: int) -> None:
    base = base_vmas(program)
    assert all((page + pages) * PAGE <= WINDOW or page * PAGE > WINDOW + 2 * count * PAGE for page, pages in base)
    predicted = vma_tree(SlabShim(), order, count, gaps=gaps, base=base).node_count
    allowed = 0.015 * predicted
    wrong = []
    for _ in range(ATTEMPTS):
        reading, noise = live_nodes(program, order, count, gaps, copies)
        if noise > allowed / 2:
            continue
        if abs(reading - predicted) <= allowed:
            return
        wrong.append(reading)
        assert len(wrong) < 3, (predicted, wrong)
    pytest.skip("other tasks of this machine create and drop address spaces all the time")
