# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may look into whose memory, and what is left of a process that is gone. All answers observed on 6.18, where
nothing else is said.
"""

from __future__ import annotations

import errno

import pytest

from memtwin.abi.capability import CAP_IPC_LOCK, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE
from memtwin.abi.fcntl import O_RDONLY, O_WRONLY
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE
from memtwin.kernel.procfs import open_file
from memtwin.machine import Machine

RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
AT = 0x1000000000
#: Files that tell about memory, and those that tell anybody.
GUARDED = ("maps", "smaps", "smaps_rollup", "numa_maps", "pagemap")
OPEN = ("statm", "status", "stat", "limits", "cmdline")


def answer(function):
    try:
        function()
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]


def answers(asker, target):
    """What each way to the memory of ``target`` answers."""
    where = f"/proc/{target.pid}"
    found = {
        name: answer(lambda name=name: asker.read_file_at(f"{where}/{name}", AT >> 9, 8)) for name in GUARDED + OPEN
    }
    found["mem"] = answer(lambda: asker.read_file_at(f"{where}/mem", AT, 8))
    found["clear_refs"] = answer(lambda: asker.write_file(f"{where}/clear_refs", "1"))
    found["readv"] = answer(lambda: asker.process_vm_readv(target, AT, 8))
    found["writev"] = answer(lambda: asker.process_vm_writev(target, AT, b"x"))
    return {name: result for name, result in found.items() if result != "ok"}


@pytest.fixture
def pair(request):
    """(a process, another one of the same machine); parameter: the kernel."""
    with Machine("64M", kernel=getattr(request, "param", "host")) as machine:
        first, second = machine.spawn("first"), machine.spawn("second")
        for process in (first, second):
            process.mmap(AT, 1 << 16, RW, ANON)
            process.write(AT, process.task.name.encode())
        yield first, second
        machine.check()


def test_with_the_same_capabilities_all_is_open(pair):
    first, second = pair
    assert answers(first, second) == answers(first, first) == {}
    assert second.process_vm_readv(first, AT, 5) == b"xirst"


def test_ptrace_is_needed_for_whom_has_more(pair):
    first, second = pair
    first.dropcap(CAP_IPC_LOCK)
    assert answers(first, second) == {}
    first.dropcap(CAP_SYS_PTRACE)
    assert answers(first, second) == {"mem": "EACCES", "readv": "EPERM", "writev": "EPERM"}
    assert answers(second, first) == answers(first, first) == {}
    first.dropcap(CAP_PERFMON)
    assert "maps" not in answers(first, second)
    first.dropcap(CAP_SYS_ADMIN)
    refused = answers(first, second)
    assert {refused.pop(name) for name in GUARDED} == {"EACCES"}
    assert refused == {"mem": "EACCES", "readv": "EPERM", "writev": "EPERM"}


@pytest.mark.parametrize("pair", ["6.7"], indirect=True)
def test_6_7_does_not_ask_for_perfmon(pair):
    """From its documentation (proc(5): ptrace access mode PTRACE_MODE_READ_FSCREDS); not asked there."""
    first, second = pair
    first.dropcap(CAP_SYS_PTRACE)
    refused = answers(first, second)
    assert {refused.pop(name) for name in GUARDED} == {"EACCES"}
    assert sorted(refused) == ["mem", "readv", "writev"]


def test_frame_numbers_are_for_administrators(pair):
    first, _ = pair
    with_pfn = int.from_bytes(first.read_file_at("/proc/self/pagemap", AT >> 9, 8), "little")
    first.dropcap(CAP_SYS_ADMIN)
    without = int.from_bytes(first.read_file_at("/proc/self/pagemap", AT >> 9, 8), "little")
    assert with_pfn & (1 << 55) - 1 and without == with_pfn >> 55 << 55


def test_what_is_left_of_a_process(pair):
    first, second = pair
    held = {
        name: first._call(open_file, first.kernel, f"/proc/{second.pid}/{name}", O_RDONLY)
        for name in (*GUARDED, "mem", "statm")
    }
    held["clear_refs"] = first._call(open_file, first.kernel, f"/proc/{second.pid}/clear_refs", O_WRONLY)
    second.exit()
    assert [held[name].pread(8, AT >> 9 if name == "pagemap" else AT) for name in ("pagemap", "mem")] == [b"", b""]
    for name in ("maps", "smaps", "smaps_rollup", "numa_maps", "statm"):
        assert answer(lambda name=name: held[name].pread(8, 0)) == "ESRCH", name
    assert answer(lambda: held["clear_refs"].write(b"1")) == "ESRCH"
    assert answer(lambda: held["clear_refs"].write(b"6")) == "EINVAL"
    assert set(answers(first, second).values()) == {"ENOENT", "ESRCH"}


def test_another_machine_is_far_away(pair):
    with Machine("64M") as machine, pytest.raises(ValueError, match="another machine"):
        pair[0].process_vm_readv(machine.spawn(), AT, 1)


def test_the_commit_charge_is_not_touched_by_forced_writes(pair):
    """A forced private copy is not accounted, and the area's flags stay."""
    first, _ = pair
    first.mmap(AT + (1 << 30), 1 << 16, PROT_READ, ANON)
    first.mmap(AT + (1 << 31), 1 << 16, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
    before = first.kernel.mm_ctx.committed
    assert first.write_file_at("/proc/self/mem", AT + (1 << 30) + 4090, bytes(range(12))) == 12
    assert first.read(AT + (1 << 30) + 4090, 12) == bytes(range(12))
    assert answer(lambda: first.write_file_at("/proc/self/mem", AT + (1 << 31), b"x")) == "EIO"
    assert first.read_file_at("/proc/self/mem", AT + (1 << 31), 2) == b"\0\0"
    assert first.kernel.mm_ctx.committed == before
    assert [vma.flags & 7 for vma in first.vmas() if vma.start == AT + (1 << 30)] == [1]
    assert first.mm.rss_anon == 3 and first.mm.rss_shmem == 1


@pytest.mark.parametrize("name", [*GUARDED, *OPEN])
def test_what_can_not_be_written_is_not_opened_for_it(pair, name):
    first, _ = pair
    assert answer(lambda: first.write_file(f"/proc/self/{name}", "x")) == "EROFS"


def test_a_read_of_memory_costs_what_is_there_not_what_is_asked_for(pair):
    first, _ = pair
    first.mmap(AT, 5 << 16, RW, ANON)
    first.write(AT + (1 << 18), b"behind")
    assert first.read_file_at("/proc/self/mem", AT + 5, 1 << 50) == bytes((1 << 18) - 5) + b"behind" + bytes(
        (1 << 16) - 6
    )
