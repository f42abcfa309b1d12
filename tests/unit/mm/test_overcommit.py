# SPDX-License-Identifier: GPL-2.0-or-later
"""Overcommit modes 1 and 2 (spec R10, mprotect-unaccount-unfaulted). The mode is a whole machine's, so a live kernel is
not asked: the answers are those that the specification states.
"""

import errno

import pytest

from memtwin import Machine
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE
from memtwin.mm.util import vm_commit_limit

PAGE, BASE = 4096, 0x1000000000
RW, ANON = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


@pytest.fixture
def strict(request):
    """A machine in mode 2 with its only process."""
    with Machine("256M", **getattr(request, "param", {})) as machine:
        p = machine.spawn()
        p.write_file("/proc/sys/vm/overcommit_memory", "2")
        yield machine, p
        machine.check()


def free_commit(machine):
    """Pages that a request without reserves for root and the user could still have."""
    ctx = machine.kernel.mm_ctx
    ctx.sysctl.admin_reserve_kbytes = ctx.sysctl.user_reserve_kbytes = 0
    return vm_commit_limit(ctx) - ctx.committed - 1


def fails(number, call, *arguments):
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno == number


def test_mode_1_never_refuses():
    with Machine("64M") as machine:
        p = machine.spawn()
        assert fails(errno.ENOMEM, p.mmap, BASE, 1 << 40, RW, ANON)
        p.write_file("/proc/sys/vm/overcommit_memory", "1")
        assert p.mmap(BASE, 1 << 40, RW, ANON) == BASE


def test_mode_2_counts_noreserve(strict):
    machine, p = strict
    before = machine.kernel.mm_ctx.committed
    p.mmap(BASE, 10 * PAGE, RW, ANON | MAP_NORESERVE)
    assert machine.kernel.mm_ctx.committed == before + 10


def test_mode_2_refuses_at_the_limit(strict):
    machine, p = strict
    free = free_commit(machine)
    assert fails(errno.ENOMEM, p.mmap, BASE, (free + 1) * PAGE, RW, ANON)
    assert p.mmap(BASE, free * PAGE, RW, ANON) == BASE
    assert fails(errno.ENOMEM, p.mmap, 0, PAGE, RW)
    assert p.brk(p.brk(0) + PAGE) == p.brk(0), "brk says so by the old break"
    p.mmap(0, PAGE, PROT_READ)


def test_mode_2_fork_charges_again(strict):
    machine, p = strict
    size = (free_commit(machine) * 2 // 3) * PAGE
    p.mmap(BASE, size, RW, ANON)
    before = machine.kernel.mm_ctx.committed
    assert fails(errno.ENOMEM, p.fork)
    assert machine.kernel.mm_ctx.committed == before
    p.munmap(BASE, size)
    p.fork().exit()


@pytest.mark.parametrize(
    ("strict", "granted"),
    [({"without": ("mprotect-unaccount-unfaulted",)}, False), ({}, True)],
    indirect=["strict"],
    ids=["before", "after"],
)
def test_mode_2_gives_an_untouched_range_back(strict, granted):
    """mprotect-unaccount-unfaulted: A rw, B rw refused, A back to r-- untouched, B rw granted only since the change."""
    machine, p = strict
    size = (free_commit(machine) - 10) * PAGE
    second = BASE + size
    p.mmap(BASE, 2 * size, PROT_READ, ANON)
    p.mprotect(BASE, size, RW)
    assert fails(errno.ENOMEM, p.mprotect, second, size, RW)
    p.mprotect(BASE, size, PROT_READ)
    areas = [(area.start, area.end) for area in p.vmas()[:2]]
    assert ((BASE, BASE + 2 * size) in areas) == granted, "A and B are one area in between"
    if granted:
        p.mprotect(second, size, RW)
    else:
        assert fails(errno.ENOMEM, p.mprotect, second, size, RW)


@pytest.mark.parametrize(("with_", "tail"), [((), ""), (("post-overcommit-log-bytes",), f" bytes: {1 << 40}")])
def test_the_log_line_of_a_refusal(with_, tail):
    with Machine("64M", with_=with_) as machine:
        p = machine.spawn()
        assert fails(errno.ENOMEM, p.mmap, BASE, 1 << 40, RW, ANON)
        (line,) = [line for line in machine.kernel.log if "not enough memory" in line]
        assert line.endswith(f"not enough memory for the allocation{tail}")
