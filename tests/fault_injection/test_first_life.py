# SPDX-License-Identifier: GPL-2.0-or-later
"""Every allocation of 200 random sequences is made to fail, one at a time: right errno, nothing changed or leaked.

Takes some seconds: each sequence is run once for every allocation it makes.
"""

import errno
import random

import pytest

from memtwin import Machine
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE
from memtwin.errors import FatalSignal, ProcessKilled
from memtwin.mm.fault_inject import FaultInjection

PAGE = 4096
BASE = 0x1000000000
RW = PROT_READ | PROT_WRITE
SEQUENCES = 200


def operations(seed):
    """A few random calls, as (name, arguments)."""
    rng = random.Random(seed)
    result = []
    for _ in range(rng.randrange(3, 8)):
        start, count = rng.randrange(64), rng.randrange(1, 24)
        addr, length = BASE + start * PAGE, count * PAGE
        flags = MAP_FIXED | MAP_ANONYMOUS | (MAP_SHARED if rng.random() < 0.2 else MAP_PRIVATE)
        result.append(
            rng.choice(
                [
                    ("mmap", (addr, length, rng.choice([RW, RW, PROT_READ, PROT_NONE]), flags)),
                    ("mmap", (addr, length, RW, flags)),
                    ("munmap", (addr, length)),
                    ("mprotect", (addr, length, rng.choice([RW, PROT_READ]))),
                    ("brk", (0x800000000 + length,)),
                    ("populate", (addr, length)),
                    ("write", (addr, b"x" * (length // 2))),
                    ("read", (addr, length)),
                ]
            )
        )
    return result


def shape(p):
    mm = p.mm
    areas = [(v.start, v.end, v.flags, v.pgoff, v.anon_vma is not None) for v in p.vmas()]
    return areas, mm.map_count, mm.total_vm, mm.brk, p.kernel.mm_ctx.committed


def run(seed, fail):
    """Run the sequence with the ``fail``-th allocation failing (0: none); the number of allocation points passed."""
    with Machine("16M") as machine:
        kernel = machine.kernel
        fault = kernel.page_alloc.fault = FaultInjection(fail_nth=fail)
        try:
            p = machine.spawn()
        except OSError as error:
            assert error.errno == errno.ENOMEM and fault.failed
            p = None
        for name, arguments in operations(seed) if p else ():
            before, failed = shape(p), fault.failed
            try:
                getattr(p, name)(*arguments)
                hit = None
            except OSError as error:
                hit = error.errno
            except FatalSignal:
                hit = None
            if fault.failed > failed and hit is not None:
                assert hit == errno.ENOMEM
                if name == "mmap" and before != shape(p):
                    # 6.7 unmaps what a MAP_FIXED replaces before it can fail (R3): only the range itself may differ.
                    start, end = arguments[0], arguments[0] + arguments[1]
                    outside = [a for a in before[0] if a[1] <= start or a[0] >= end]
                    now = shape(p)[0]
                    assert all(a in now or a[0] < start or a[1] > end for a in outside)
            if fault.failed > failed and name == "brk" and hit is None:
                assert shape(p)[2:] == before[2:], "a refused brk maps and charges nothing; a split it made may stay"
            kernel.check()
        kernel.page_alloc.fault = None
        if p:
            p.exit()
        kernel.check()
        kernel.check_no_leak()
        return fault.points


@pytest.mark.parametrize("chunk", range(10))
def test_every_allocation_of_random_sequences_may_fail(chunk):
    for seed in range(chunk * SEQUENCES // 10, (chunk + 1) * SEQUENCES // 10):
        points = run(seed, 0)
        assert points > 5
        for nth in range(1, points + 1):
            run(seed, nth)


def test_spawn_fails_cleanly_at_every_point():
    with Machine("16M") as machine:
        for nth in range(1, 30):
            machine.kernel.page_alloc.fault = fault = FaultInjection(fail_nth=nth)
            try:
                machine.spawn().exit()
            except OSError as error:
                assert error.errno == errno.ENOMEM
            machine.kernel.page_alloc.fault = None
            machine.check()
            machine.kernel.check_no_leak()
            if not fault.failed:
                assert nth > 4
                return
    raise AssertionError("spawn makes an endless number of allocations")


def test_a_fault_retries_after_a_failed_allocation():
    """As Linux does: VM_FAULT_OOM without a victim means the fault is taken again."""
    with Machine("16M") as machine:
        p = machine.spawn()
        a = p.mmap(0, PAGE)
        machine.kernel.page_alloc.fault = FaultInjection(fail_nth=1)
        p.write(a, b"x")
        assert machine.kernel.mm_ctx.fault_stats.oom == 1
        assert "Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF" in machine.kernel.log
        with pytest.raises(ProcessKilled):
            p.kill()
            p.read(a, 1)
