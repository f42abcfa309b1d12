# SPDX-License-Identifier: GPL-2.0-or-later
"""The same calls on a process of the twin and on this one, for tests that compare the two answer by answer.

Addresses are fixed, in a window that is empty on both sides; what a call answers is a number, bytes, or the name of its
errno. ``Live`` needs x86-64 and, for some files, root.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource

import pytest

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from memtwin.kernel.syscalls import SyscallTable
from memtwin.machine import Machine

RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
AT = 0x1000000000
PAGE = 4096
_MMAP, _MPROTECT, _MUNMAP, _MADVISE, _MLOCK, _MUNLOCK, _MBIND = 9, 10, 11, 28, 149, 150, 237


def answer(function):
    """What ``function()`` returns, or the name of its errno."""
    try:
        return function()
    except OSError as error:
        return errno.errorcode[error.errno]


class Side:
    """What both sides have in common."""

    def mmap(self, addr, pages, prot=RW, flags=ANON):
        return self.call(_MMAP, addr, pages * PAGE, prot, flags, (1 << 64) - 1, 0)

    def mprotect(self, addr, pages, prot):
        return self.call(_MPROTECT, addr, pages * PAGE, prot)

    def madvise(self, addr, pages, advice):
        return self.call(_MADVISE, addr, pages * PAGE, advice)

    def mlock(self, addr, pages):
        return self.call(_MLOCK, addr, pages * PAGE)

    def munlock(self, addr, pages):
        return self.call(_MUNLOCK, addr, pages * PAGE)

    def smaps(self, at):
        """What is not 0 of the area that starts at ``at``, sizes and flags left out."""
        text = self.file("smaps")
        entry = re.search(rf"(?ms)^{at:08x}-.*?^VmFlags", text)[0]
        values = {}
        for line in entry.splitlines()[1:-1]:
            key, _, value = line.partition(":")
            number = int(value.split()[0])
            if number and key not in ("Size", "KernelPageSize", "MMUPageSize", "THPeligible", "ProtectionKey"):
                values[key] = number
        return values

    def numa(self, at):
        """The line of numa_maps, without the address."""
        found = [line for line in self.file("numa_maps").splitlines() if line.startswith(f"{at:08x} ")]
        return found[0].partition(" ")[2] if found else None


class Live(Side):
    """This process."""

    def __init__(self):
        if platform.machine() != "x86_64" or platform.system() != "Linux":
            pytest.skip("needs Linux on x86-64")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        self.pid = os.getpid()
        self._used = []

    def call(self, *numbers):
        """A system call with up to six arguments; what it returned, or the name of its errno."""
        arguments = [
            ctypes.c_long(number - (1 << 64) if number >> 63 else number) for number in (*numbers, *[0] * 7)[:7]
        ]
        ctypes.set_errno(0)
        result = self._libc.syscall(*arguments)
        if result == -1 and ctypes.get_errno():
            return errno.errorcode[ctypes.get_errno()]
        if numbers[0] == _MMAP:
            self._used.append((numbers[1], numbers[2]))
        return result

    def read(self, addr, n=1):
        return ctypes.string_at(addr, n)

    def write(self, addr, data):
        ctypes.memmove(addr, data, len(data))

    def file(self, name):
        with open(f"/proc/self/{name}", errors="surrogateescape") as file:
            return file.read()

    def file_at(self, name, offset, size):
        fd = os.open(f"/proc/{name}", os.O_RDONLY)
        try:
            return answer(lambda: os.pread(fd, size, offset))
        finally:
            os.close(fd)

    def put(self, name, data, offset=0):
        fd = os.open(f"/proc/{name}", os.O_WRONLY)
        try:
            return answer(lambda: os.pwrite(fd, data, offset))
        finally:
            os.close(fd)

    def faults(self, function):
        """(what ``function()`` returns, minor faults it took)."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        result = function()
        return result, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def close(self):
        for addr, size in self._used:
            self.call(_MUNMAP, addr, size)


class Twin(Side):
    """A process of a machine like the live one; with a system call table, as a program would have."""

    def __init__(self, machine):
        self.process = machine.spawn()
        self.pid = self.process.pid
        kernel = self.process.kernel
        self._table = kernel.syscalls if getattr(kernel, "syscalls", None) is not None else SyscallTable(kernel)

    def call(self, *numbers):
        arguments = tuple((*numbers, *[0] * 7)[:7])
        if numbers[0] == _MBIND:  # no program calls it yet
            mask = int.from_bytes(self.read(numbers[4], 8), "little") if numbers[4] else 0
            return answer(lambda: self.process.mbind(*numbers[1:4], mask, numbers[6]) or 0)
        result = self.process._call(self._table.dispatch, self.process.task, arguments)
        return errno.errorcode[(1 << 64) - result] if result > (1 << 64) - 4096 else result

    def read(self, addr, n=1):
        return self.process.read(addr, n)

    def write(self, addr, data):
        self.process.write(addr, data)

    def file(self, name):
        return self.process.read_file(f"/proc/self/{name}")

    def file_at(self, name, offset, size):
        return answer(lambda: self.process.read_file_at(f"/proc/{name}", offset, size))

    def put(self, name, data, offset=0):
        return answer(lambda: self.process.write_file_at(f"/proc/{name}", offset, data))

    def faults(self, function):
        before = self.process.task.min_flt
        result = function()
        return result, self.process.task.min_flt - before

    def close(self):
        self.process.kernel.check()


@pytest.fixture
def sides():
    """(live, twin), each with the window at ``AT`` empty."""
    live = Live()
    with Machine("256M", kernel="host") as machine:
        twin = Twin(machine)
        try:
            yield live, twin
        finally:
            live.close()
            twin.close()
