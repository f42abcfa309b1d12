# SPDX-License-Identifier: GPL-2.0-or-later
"""Committed_AS step by step: the table of mprotect-unaccount-unfaulted (both sides of it on the twin, the newer one on
the live kernel too), DONTUNMAP, and what one request may be at most in overcommit mode 0.

One C program does the steps on both kernels.
"""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memtwin import Machine
from memtwin.abi.mman import MADV_WIPEONFORK, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from memtwin.changes.catalogue import parse_release

PAGE, BASE = 4096, 0x1000000000
RW, ANON = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
#: Step -> kB (before the change, after it).
STATED = {
    "untouched-rw": (16, 16),
    "untouched-back": (16, 0),
    "written-rw": (16, 16),
    "written-back": (16, 16),
    "read-rw": (16, 16),
    "read-back": (16, 0),
    "zapped-rw": (16, 16),
    "zapped-back": (16, 16),
    "file-rw": (16, 16),
    "file-back": (16, 16),
    "mapped-rw": (48, 48),
    "to-none": (48, 0),
    "dontunmap": (32, 32),
    "child-wiped": (0, -48),
    "child": (0, 0),
}
#: Steps for which the program needs calls that programs on the twin do not have yet (memfd_create, fork).
BY_CALLS = ("file-rw", "file-back", "child-wiped", "child")
MODE = Path("/proc/sys/vm/overcommit_memory")

needs_gcc = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64" or shutil.which("gcc") is None,
    reason="needs gcc on x86-64 Linux",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("committed") / "committed"
    source = Path(__file__).with_name("committed.c")
    subprocess.run(["gcc", "-O1", "-w", "-static", "-o", path, source], check=True)
    return path


def steps(output):
    return {name: int(change) for name, change in (line.split() for line in output.splitlines())}


@needs_gcc
@pytest.mark.live
def test_the_live_kernel(program):
    if parse_release(os.uname().release) < (6, 7, 0):
        pytest.skip("needs 6.7")
    done = subprocess.run([program, "25"], capture_output=True, text=True, check=True, timeout=60)
    assert steps(done.stdout) == {name: after for name, (_, after) in STATED.items()}


@needs_gcc
@pytest.mark.parametrize(("without", "column"), [(("mprotect-unaccount-unfaulted",), 0), ((), 1)])
def test_the_twin(program, without, column):
    with Machine("64M", without=without) as machine:
        ran = machine.run([str(program)], capture=True)
        assert ran.status == 0, ran.stderr
    found = steps(ran.stdout.decode())
    assert {name: change for name, change in found.items() if name not in BY_CALLS} == {
        name: stated[column] for name, stated in STATED.items() if name not in BY_CALLS
    }


@pytest.mark.parametrize(("without", "column"), [(("mprotect-unaccount-unfaulted",), 0), ((), 1)])
def test_the_twin_by_calls(without, column):
    found = {}
    with Machine("64M", without=without) as machine:
        ctx = machine.kernel.mm_ctx
        p = machine.spawn()
        fd = p.memfd_create("m")
        p.ftruncate(fd, 12 * PAGE)
        before = ctx.committed
        p.mmap(BASE, 12 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd)
        p.mprotect(BASE + 4 * PAGE, 4 * PAGE, RW)
        found["file-rw"] = (ctx.committed - before) * 4
        p.mprotect(BASE + 4 * PAGE, 4 * PAGE, PROT_READ)
        found["file-back"] = (ctx.committed - before) * 4
        for name, wiped in (("child-wiped", True), ("child", False)):
            p.mmap(BASE, 12 * PAGE, RW, ANON | MAP_FIXED)
            p.populate(BASE, 12 * PAGE)
            if wiped:
                p.madvise(BASE, 12 * PAGE, MADV_WIPEONFORK)
            child = p.fork()
            before = ctx.committed
            child.mprotect(BASE, 12 * PAGE, PROT_READ)
            found[name] = (ctx.committed - before) * 4
            child.exit()
        machine.check()
    assert found == {name: STATED[name][column] for name in BY_CALLS}


def largest(mmap, pages):
    """The errno of a request of so many pages, 0 if it is granted."""
    try:
        mmap(pages << 12)
    except OSError as error:
        return error.errno
    return 0


def test_one_request_in_mode_0():
    """R10: exactly RAM is granted, a page more is ENOMEM."""
    with Machine("64M") as machine:
        ram = machine.kernel.mm_ctx.page_alloc.managed_pages
        for pages, number in ((ram + 1, errno.ENOMEM), (ram, 0)):
            assert largest(lambda size: machine.spawn().mmap(0, size, RW, ANON), pages) == number


@pytest.mark.live
@pytest.mark.skipif(not MODE.exists() or MODE.read_text().strip() != "0", reason="needs overcommit mode 0")
def test_one_request_in_mode_0_live():
    import mmap

    info = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    ram = sum(int(info[key].split()[0]) for key in ("MemTotal", "SwapTotal")) // 4
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    assert largest(lambda size: mmap.mmap(-1, size, flags=flags), ram + 1) == errno.ENOMEM
    assert largest(lambda size: mmap.mmap(-1, size, flags=flags).close(), ram) == 0
