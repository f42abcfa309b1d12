# SPDX-License-Identifier: GPL-2.0-or-later
"""First life against the kernel that runs here: results, errnos, signals and their addresses, faults, pages present.

The operations are random but stay where the ground floor is complete: private anonymous memory at given places.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memtwin import FatalSignal, Machine
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_PRIVATE

PAGE = 4096
BASE = 0x1000000000
ANON = MAP_PRIVATE | MAP_ANONYMOUS
POPULATE_READ, POPULATE_WRITE = 22, 23

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="needs Linux on x86-64"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """``live(lines)``: the live kernel's answers."""
    program = tmp_path_factory.mktemp("live") / "first_life"
    source = Path(__file__).with_name("first_life.c")
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)

    def run(lines):
        text = "".join(line + "\n" for line in lines)
        done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=60)
        if done.returncode:
            pytest.skip(f"the probe can not run here (status {done.returncode}): {done.stderr.strip()}")
        return done.stdout.splitlines()

    return run


def twin(lines):
    """The twin's answers to the same operations."""
    answers = []
    with Machine("256M", kernel="host") as machine:
        p = machine.spawn()
        heap = p.brk(0)
        for line in lines:
            op, *words = line.split()
            numbers = [int(word, 16) for word in words]
            before = p.task.min_flt
            try:
                answer = f"= {operate(p, heap, op, *numbers):x}"
            except OSError as error:
                answer = f"! {error.errno}"
            except FatalSignal as signal:
                answer = f"sig {signal.sig} {signal.code} {signal.addr:x}"
            answers.append(f"{answer} {p.task.min_flt - before}")
            machine.check()
        p.exit()
        machine.kernel.check_no_leak()
    return answers


def operate(p, heap, op, a, b=0, c=0, d=0):
    if op == "mmap":
        return p.mmap(a, b, c, d)
    if op == "munmap":
        p.munmap(a, b)
    elif op == "mprotect":
        p.mprotect(a, b, c)
    elif op == "madvise":
        p.populate(a, b, write=c == POPULATE_WRITE)
    elif op == "brk":
        return p.brk(heap + a) - heap
    elif op == "r":
        return p.read(a, 1)[0]
    elif op == "w":
        p.write(a, bytes([b]))
    elif op == "bits":
        return bits(p, a)
    return 0


def bits(p, addr):
    """Present and exclusively mapped, as /proc/PID/pagemap has them in bits 63 and 56."""
    index, _ = p.kernel.pt.lookup(p.mm, addr)
    entry = p.kernel.ram.q[index] if index else 0
    if not entry:
        return 0
    pfn = entry >> 12 & 0xFF_FFFF_FFFF
    return 2 | (p.kernel.pages.mapcount[pfn] == 1)


def operations(seed, count):
    """Random operations on a window of 64 pages, biased to boundaries."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        start = rng.randrange(64)
        pages = rng.choice([1, 1, 2, 3, 8, 60])
        addr, length = BASE + start * PAGE, pages * PAGE
        odd = rng.choice([0] * 9 + [1])
        what = rng.randrange(100)
        if what < 22:
            flags = ANON | (MAP_FIXED if rng.random() < 0.8 else MAP_FIXED_NOREPLACE)
            length = rng.choice([length] * 9 + [0]) - odd * 100
            at, prot = addr + odd * rng.choice([0, 5]), rng.choice([0, 1, 3, 3, 3, 7])
            lines.append(f"mmap {at:x} {max(length, 0):x} {prot:x} {flags:x}")
        elif what < 32:
            lines.append(f"munmap {addr + odd:x} {rng.choice([length] * 9 + [0]):x}")
        elif what < 42:
            lines.append(f"mprotect {addr + odd:x} {length:x} {rng.choice([0, 1, 3, 3, 5]):x}")
        elif what < 47:
            lines.append(f"brk {rng.choice([0, PAGE, 3 * PAGE, 5 * PAGE + 17, 100]):x}")
        elif what < 65:
            lines.append(f"r {addr + rng.randrange(PAGE):x}")
        elif what < 85:
            lines.append(f"w {addr + rng.randrange(PAGE):x} {rng.randrange(256):x}")
        else:
            lines.append(f"bits {addr:x}")
    return lines


@pytest.mark.parametrize("seed", range(24))
def test_random_operations_answer_alike(live, seed):
    lines = operations(seed, 250)
    theirs, ours = live(lines), twin(lines)
    for number, (line, their, our) in enumerate(zip(lines, theirs, ours, strict=True)):
        assert our == their, f"operation {number}: {line}"


def test_populate_answers_alike(live):
    """MADV_POPULATE_*: errors and fault counts. Ranges without holes: behind one, kernels differ (spec R15)."""
    lines = [f"mmap {BASE:x} {64 * PAGE:x} 3 {ANON | MAP_FIXED:x}"]
    rng = random.Random(1)
    for _ in range(40):
        start = rng.randrange(60)
        length = rng.randrange(1, 64 - start) * PAGE
        lines.append(f"madvise {BASE + start * PAGE:x} {length:x} {rng.choice([POPULATE_READ, POPULATE_WRITE]):x}")
        lines.append(f"mmap {BASE + start * PAGE:x} {length // 2 // PAGE * PAGE + PAGE:x} 3 {ANON | MAP_FIXED:x}")
    lines += [f"bits {BASE + i * PAGE:x}" for i in range(64)]
    theirs = live(lines)
    if any(their.startswith("! 22") for their in theirs):
        pytest.skip("this kernel has no MADV_POPULATE_*")
    assert twin(lines) == theirs


def test_kernel_chosen_addresses_answer_alike(live):
    """Relative to the first one: where the top is depends on the program's own mappings."""
    sizes = [1, 4, 4, 4, 2, 30, 511]
    lines = [f"mmap 0 {size * PAGE:x} 3 {ANON:x}" for size in sizes]
    theirs = [int(answer.split()[1], 16) for answer in live(lines)]
    ours = [int(answer.split()[1], 16) for answer in twin(lines)]
    assert [a - theirs[0] for a in theirs] == [a - ours[0] for a in ours]
