# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc: the page that says what there is, the formats of maps, status and statm, and the machine-wide files."""

from __future__ import annotations

import re

import pytest

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from memtwin.fs.proc import COVERAGE, task_mmu
from memtwin.fs.proc.proc_sysctl import VM_TABLE
from memtwin.kernel.procfs import FILES, READERS
from memtwin.kernel.syscalls import SyscallTable
from memtwin.machine import Machine

RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS


@pytest.fixture
def machine():
    with Machine("64M", cpus=2) as m:
        SyscallTable(m.kernel)
        yield m


def test_coverage_names_what_is_there(machine):
    proc = machine.kernel.syscalls.vfs.proc
    p = machine.spawn()
    per_process = {f"PID/{name.decode()}" for name in proc.root.lookup(b"%d" % p.pid).entries}
    sysctls = {f"sys/vm/{name}" for name in VM_TABLE}
    assert set(COVERAGE) == per_process | set(FILES) | set(READERS) | sysctls | {"self"}
    assert {status for status, _ in COVERAGE.values()} <= {"modelled", "partly"}


@pytest.mark.parametrize("path", FILES)
def test_every_machine_wide_file_has_text(machine, path):
    text = machine.kernel.syscalls.vfs.text(f"/proc/{path}")
    assert text.endswith("\n")


def test_what_is_not_there_is_enoent(machine):
    for path in ("/proc/kcore", "/proc/2/maps", "/proc/self/maps", "/proc/self"):
        with pytest.raises(FileNotFoundError):
            machine.kernel.syscalls.vfs.text(path)
    with pytest.raises(IsADirectoryError):
        machine.kernel.syscalls.vfs.text("/proc/sys")


def test_maps_of_a_spawned_process(machine):
    p = machine.spawn()
    p.mmap(0x10000, 0x3000, PROT_READ, ANON | MAP_FIXED)
    p.mmap(0x20000, 0x1000, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
    p.mmap(0x40000, 0x1000, 0, ANON | MAP_FIXED | MAP_NORESERVE)
    p.brk(0x800002345)
    lines = machine.kernel.syscalls.vfs.text(f"/proc/{p.pid}/maps").splitlines(keepends=True)
    assert lines[0] == "00010000-00013000 r--p 00000000 00:00 0 \n"
    assert re.fullmatch(r"00020000-00021000 rw-s 00000000 00:01 \d+ +/dev/zero \(deleted\)\n", lines[1])
    assert lines[1].index("/") == 73
    assert lines[2] == "00040000-00041000 ---p 00000000 00:00 0 \n"
    assert lines[3] == f"{'800000000-800003000 rw-p 00000000 00:00 0 ':73}[heap]\n"
    assert lines[4] == f"{'7fffff7ff000-7ffffffff000 rw-p 00000000 00:00 0 ':73}[stack]\n"
    assert lines[5] == f"{'ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 ':73}[vsyscall]\n"


def test_names_are_escaped_and_long_lines_are_not_padded(machine):
    p = machine.spawn()
    vma = p.mm.areas()[0]

    class Odd:
        path, dev, ino = "/tmp/a\nb", (253, 300), 123456

    vma.file, vma.pgoff = Odd(), 5
    line = task_mmu.maps(p.mm).splitlines()[0]
    assert line == f"{'7fffff7ff000-7ffffffff000 rw-p 00005000 fd:12c 123456 ':73}/tmp/a\\012b"
    vma.file = None
    vma.pgoff = vma.start >> 12


def test_status_and_statm_tell_the_counters(machine):
    p = machine.spawn()
    addr = p.mmap(0, 64 << 12, RW, ANON)
    for page in range(10):
        p.touch(addr + (page << 12), True)
    p.munmap(addr, 5 << 12)
    vfs = machine.kernel.syscalls.vfs
    lines = vfs.text(f"/proc/{p.pid}/status").splitlines()
    status = dict(line.split(":\t") for line in lines)
    assert status["VmRSS"] == "      20 kB" and status["VmHWM"] == "      40 kB"
    assert status["VmData"] == f"{59 * 4:8d} kB" and status["VmStk"] == "    8192 kB"
    assert status["VmSize"] == f"{(59 + 2048) * 4:8d} kB" and status["VmPeak"] == f"{(64 + 2048) * 4:8d} kB"
    names = [line.split(":")[0] for line in lines]
    assert names.index("VmPeak") + 15 == names.index("HugetlbPages")
    assert vfs.text(f"/proc/{p.pid}/statm") == f"{59 + 2048} 5 0 0 0 {59 + 2048} 0\n"


def test_sysctls_tell_what_the_kernel_uses(machine):
    vfs = machine.kernel.syscalls.vfs
    machine.kernel.mm_ctx.sysctl.max_map_count = 77
    assert machine.spawn().read_file("/proc/sys/vm/max_map_count") == "77\n"
    assert vfs.text("/proc/sys/kernel/osrelease") == "6.7.0-rc1\n"
    machine.kernel.clock.advance(12_345_678_901)
    assert vfs.text("/proc/uptime") == "12.34 12.34\n"
