# SPDX-License-Identifier: GPL-2.0-or-later
"""Every allocation of a start and a run is made to fail, one at a time: a clean end, and every frame comes back."""

from __future__ import annotations

import os

import pytest

from memtwin.cpu.loop import CannotRun, Program
from memtwin.errors import MemtwinError
from memtwin.machine import Machine
from memtwin.mm.fault_inject import FaultInjection

SOURCE = r"""
static long call(long nr, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "+a"(nr) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return nr;
}
static char bss[10000];
static int data = 5;
void _start(void) {
    char *heap = (char *)call(12, 0, 0, 0, 0, 0, 0);
    long status = 0;
    bss[5000] = data++;
    if (call(12, (long)heap + 8192, 0, 0, 0, 0, 0) == (long)heap + 8192)
        heap[100] = 1;
    else
        status |= 1;
    char *map = (char *)call(9, 0, 65536, 3, 0x22, -1, 0);
    if ((unsigned long)map < -4095UL) {
        map[0] = map[40000] = 1;
        status |= call(10, (long)map, 4096, 1, 0, 0, 0) ? 2 : 0;
        status |= call(11, (long)map + 8192, 4096, 0, 0, 0, 0) ? 4 : 0;
    } else
        status |= 8;
    int fd = call(257, -100, (long)"/proc/self/maps", 0, 0, 0, 0);
    status |= fd < 0 || call(0, fd, (long)bss, sizeof bss, 0, 0, 0) <= 0 ? 16 : 0;
    call(231, status, 0, 0, 0, 0, 0);
}
"""


def _run(program: str, fail: int) -> tuple[int | None, int]:
    """Status (None: it could not be started) with the ``fail``-th allocation failing, and how many there were."""
    devnull = os.open(os.devnull, os.O_RDWR)
    try:
        with Machine("16M") as machine:
            kernel = machine.kernel
            fault = kernel.page_alloc.fault = FaultInjection(fail_nth=fail)
            try:
                p = Program(kernel, [program], stdio=(devnull, devnull, devnull))
                status = p.run()
            except CannotRun as error:
                # A page that the kernel itself wants to write (stack, end of bss) is EFAULT, as on Linux.
                assert "memory" in str(error) or "bad user address" in str(error)
                status = None
            kernel.page_alloc.fault = None
            machine.check()
            kernel.check_no_leak()
            return status, fault.points
    finally:
        os.close(devnull)


def test_every_allocation_may_fail(cc):
    program = cc("nomem", SOURCE, "-nostartfiles")
    status, points = _run(program, 0)
    assert status == 0 and points > 30
    seen = {}
    for fail in range(1, points + 1):
        status, _ = _run(program, fail)
        seen[status] = seen.get(status, 0) + 1
        # Not started at all; or told by an errno; or a page fault, which is simply taken again.
        assert status is None or status < 32, (fail, status)
    assert {None, 0, 1, 2, 4, 8} <= set(seen), seen


def test_a_machine_too_small_for_the_program(cc):
    with Machine("8M") as machine, pytest.raises(MemtwinError, match="memory"):
        machine.kernel.page_alloc.fault = FaultInjection(probability=100, times=-1)
        Program(machine.kernel, [cc("nomem", SOURCE, "-nostartfiles")])
