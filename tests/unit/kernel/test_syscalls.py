# SPDX-License-Identifier: GPL-2.0-or-later
"""The system call table: numbers, conversions, what is told when something is not modelled; calls without a CPU."""

from __future__ import annotations

import errno
import struct

import pytest

from memtwin.abi.syscall_nr import NAMES, NUMBERS
from memtwin.errors import Deadlock
from memtwin.events import MemorySink
from memtwin.kernel.resource import default_rlimits
from memtwin.kernel.signal import SigHand, signal_name
from memtwin.kernel.syscalls import COVERAGE, Calls, SyscallTable
from memtwin.kernel.uaccess import copy_from_user, copy_to_user
from memtwin.machine import Machine

BUF = 0x10000


@pytest.fixture
def guest():
    """call(name, *args): the signed answer; memory of 64 KiB at BUF."""
    with Machine("64M", cpus=3, seed=4) as machine:
        table = SyscallTable(machine.kernel)
        p = machine.spawn()
        p.mmap(BUF, 65536, flags=0x32)
        task = p.task
        task.sighand = SigHand()
        task.rlimits = default_rlimits(1000)
        task.files = table.vfs.new_files((0, 1, 2), 1024)
        task.fs = table.vfs.new_fs(b"/")

        class Guest:
            sys, process = table, p

            def call(self, name, *args):
                numbers = [value & (1 << 64) - 1 for value in (*args, 0, 0, 0, 0, 0, 0)][:6]
                nr = NUMBERS[name] if isinstance(name, str) else name
                result = p._call(table.dispatch, task, (nr, *numbers))
                return result - (1 << 64) if result >> 63 else result

            def read(self, count, addr=BUF):
                return p._call(copy_from_user, task, addr, count)

            def write(self, data, addr=BUF):
                p._call(copy_to_user, task, addr, data)
                return addr

        yield Guest()


def test_numbers_and_names():
    assert (NUMBERS["read"], NUMBERS["execve"], NUMBERS["exit_group"], NUMBERS["rseq"]) == (0, 59, 231, 334)
    assert (NUMBERS["pidfd_send_signal"], NUMBERS["clone3"], NUMBERS["futex_requeue"]) == (424, 435, 456)
    assert len(NAMES) == len(NUMBERS) == 335 + 33


@pytest.mark.live
def test_numbers_are_those_of_the_hosts_headers():
    import platform
    import re
    from pathlib import Path

    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if platform.machine() != "x86_64" or not header.exists():
        pytest.skip("no x86-64 kernel headers here")
    theirs = {name: int(nr) for name, nr in re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())}
    assert {name: NUMBERS.get(name) for name, nr in theirs.items() if nr <= 456} == {
        name: nr for name, nr in theirs.items() if nr <= 456
    }


def test_coverage_has_every_call():
    assert list(COVERAGE) == list(NAMES.values())
    assert COVERAGE["getpid"] == ("modelled", "")
    assert COVERAGE["madvise"][0] == "partly" and COVERAGE["madvise"][1]
    assert COVERAGE["io_uring_setup"] == ("not", "")


def test_no_call_is_defined_twice(guest):
    from memtwin.kernel.syscalls import _all_calls

    calls = _all_calls()
    assert len({call.nr for call in calls}) == len(calls) == len(guest.sys.calls)


def test_arguments_are_converted_by_kind():
    calls = Calls()
    seen = []
    calls.define("read", "fd", "uint", "long", "size")(lambda *args: seen.append(args[2:]) or 0)
    with Machine("16M") as machine:
        table = SyscallTable(machine.kernel)
        table._entries[0] = (calls[0].handler, SyscallTable._converters(calls[0]))
        table.dispatch(machine.spawn().task, (0, (1 << 64) - 1, (5 << 32) | 7, (1 << 64) - 2, (1 << 64) - 3, 0, 0))
    assert seen == [(-1, 7, -2, (1 << 64) - 3)]


def test_what_is_not_modelled_is_enosys_and_told_once(guest):
    assert guest.call("io_uring_setup") == guest.call("io_uring_setup") == -errno.ENOSYS
    assert guest.call(9999) == -errno.ENOSYS
    assert guest.call("prctl", 12345) == -errno.EINVAL
    assert guest.sys.unmodelled == {"io_uring_setup": 2, "system call 9999": 1, "prctl option 12345": 1}
    assert [line for line in guest.sys.kernel.log if "not modelled" in line] == [
        "io_uring_setup: not modelled",
        "system call 9999: not modelled",
        "prctl option 12345: not modelled",
    ]
    assert guest.sys.counts[NUMBERS["io_uring_setup"]] == 2


def test_events_of_a_call(guest):
    sink = MemorySink()
    guest.sys.kernel.trace.enable("raw_syscalls:*", sink)
    guest.call("close", 77)
    assert [(event.name, event.fields) for event in sink.events] == [
        ("sys_enter", {"id": 3, "args": (77, 0, 0, 0, 0, 0)}),
        ("sys_exit", {"id": 3, "ret": -errno.EBADF}),
    ]


def test_uname_and_names(guest):
    assert guest.call("uname", BUF) == 0
    fields = [guest.read(65, BUF + 65 * i).rstrip(b"\0").decode() for i in range(6)]
    assert fields == ["Linux", "memtwin", "6.7.0-rc1", "#1 SMP PREEMPT_DYNAMIC memtwin", "x86_64", "(none)"]
    guest.write(b"a-name-longer-than-fifteen\0")
    assert guest.call("prctl", 15, BUF) == 0
    assert guest.call("prctl", 16, BUF) == 0
    assert guest.read(16) == b"a-name-longer-t\0"


def test_clocks(guest):
    guest.sys.kernel.clock.advance(5_123_456_789)
    assert guest.call("clock_gettime", 1, BUF) == 0
    assert struct.unpack("<qq", guest.read(16)) == (5, 123_456_789)
    assert guest.call("clock_gettime", 6, BUF) == 0
    assert struct.unpack("<qq", guest.read(16)) == (5, 120_000_000)
    assert guest.call("clock_gettime", 0, BUF) == 0
    assert struct.unpack("<qq", guest.read(16)) == (1_699_747_205, 123_456_789)
    assert guest.call("time", 0) == 1_699_747_205
    guest.write(struct.pack("<qq", 7, 0))
    assert guest.call("nanosleep", BUF, 0) == 0
    assert guest.sys.kernel.clock.now >= 12_123_456_789
    assert guest.call("clock_gettime", 2, BUF) == 0
    assert struct.unpack("<qq", guest.read(16)) == (5, 123_456_789)  # the sleep took no CPU time
    guest.write(struct.pack("<qq", 20, 0))
    assert guest.call("clock_nanosleep", 1, 1, BUF, 0) == 0
    assert guest.sys.kernel.clock.now == 20_000_000_000


def test_sysinfo_tells_memory(guest):
    assert guest.call("sysinfo", BUF) == 0
    uptime, _, _, _, total, free, *_ = struct.unpack("<q9Q", guest.read(80))
    alloc = guest.sys.kernel.page_alloc
    assert (uptime, total) == (0, alloc.managed_pages << 12)
    assert 0 < free <= total
    assert struct.unpack("<I", guest.read(4, BUF + 104)) == (1,)


def test_random_bytes_depend_on_the_seed_alone(guest):
    assert guest.call("getrandom", BUF, 32, 0) == 32
    first = guest.read(32)
    with Machine("16M", seed=4) as other:
        assert SyscallTable(other.kernel).random_bytes(32) == first
    with Machine("16M", seed=5) as other:
        assert SyscallTable(other.kernel).random_bytes(32) != first


def test_a_wait_that_nobody_can_end_is_a_deadlock(guest):
    guest.write(struct.pack("<I", 3))
    assert guest.call("futex", BUF, 0, 4, 0) == -errno.EAGAIN
    with pytest.raises(Deadlock, match="no other thread exists to wake it"):
        guest.call("futex", BUF, 0, 3, 0)


def test_limits(guest):
    guest.write(struct.pack("<QQ", 5, 4096))
    assert guest.call("setrlimit", 7, BUF) == 0
    guest.write(b"/dev/null\0", BUF + 100)
    opened = [guest.call("open", BUF + 100, 0) for _ in range(4)]
    assert opened[-1] == -errno.EMFILE and max(opened) == 4
    guest.write(struct.pack("<QQ", 1 << 20, 1 << 30))
    assert guest.call("prlimit64", 0, 3, BUF, 0) == 0
    assert guest.process.task.rlimit(3) == 1 << 20


def test_affinity_tells_the_cpus(guest):
    assert guest.call("sched_getaffinity", 0, 128, BUF) == 8
    assert struct.unpack("<Q", guest.read(8)) == (7,)


def test_rseq(guest):
    area = BUF + 64
    assert guest.call("rseq", area + 4, 32, 0, 1) == -errno.EINVAL
    assert guest.call("rseq", area, 32, 0, 0x53053053) == 0
    cpu = guest.process.task.cpu
    assert struct.unpack("<II", guest.read(8, area)) == (cpu, cpu)
    assert guest.call("rseq", area, 32, 0, 0x53053053) == -errno.EBUSY
    assert guest.call("rseq", area, 32, 0, 5) == -errno.EPERM
    assert guest.call("rseq", area, 32, 1, 5) == -errno.EPERM
    assert guest.call("rseq", area, 32, 1, 0x53053053) == 0
    assert struct.unpack("<II", guest.read(8, area)) == (0, 0xFFFFFFFF)


@pytest.mark.parametrize(("sig", "name"), [(1, "SIGHUP"), (11, "SIGSEGV"), (31, "SIGSYS"), (40, "SIGRT 40")])
def test_signal_names(sig, name):
    assert signal_name(sig) == name
