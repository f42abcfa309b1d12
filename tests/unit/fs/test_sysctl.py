# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/sys/vm: what a write takes, what it refuses, and that memory management heeds it."""

from __future__ import annotations

import errno

import pytest

from memtwin.abi.capability import CAP_SYS_RAWIO
from memtwin.abi.fcntl import O_RDWR, O_TRUNC
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from memtwin.fs.proc.proc_sysctl import INT_MAX, ULONG_MAX, VM_TABLE, parse
from memtwin.kernel.procfs import open_file
from memtwin.machine import Machine

VM = "/proc/sys/vm/"


@pytest.fixture
def process():
    with Machine("64M") as machine:
        yield machine.spawn()
        machine.check()


def number(process, name):
    return int(process.read_file(VM + name))


@pytest.mark.parametrize(
    ("data", "value", "taken"),
    [
        (b"5", 5, 1),
        (b"65530\n", 65530, 6),
        (b" \t5 \n", 5, 5),
        (b"5 7", 5, 2),
        (b"5 x", 5, 2),
        (b"5\t\n 3\n", 5, 4),
        (b"0xfffA", 65530, 6),
        (b"0177772", 65530, 7),
        (b"-0", 0, 2),
        (b"00", 0, 2),
    ],
)
def test_a_number_and_what_it_takes(data, value, taken):
    """As 6.18 does it."""
    assert parse(data, 0, INT_MAX) == (value, taken)


@pytest.mark.parametrize(
    "data",
    [b"x", b" \n", b"-", b"--1", b"+1", b"5x", b"5,", b"5\0", b"\0", b"0x", b"08", b"-1", b"2147483648", b"9" * 30],
)
def test_what_is_no_number_in_range(data):
    with pytest.raises(OSError) as refused:
        parse(data, 0, INT_MAX)
    assert refused.value.errno == errno.EINVAL


def test_a_number_of_too_many_digits():
    assert parse(b"0" * 19 + b"5", 0, INT_MAX) == (5, 20)
    with pytest.raises(OSError, match="Invalid"):
        parse(b"0" * 20 + b"5", 0, INT_MAX)


def test_an_unsigned_long_has_no_sign():
    assert parse(b"18446744073709551615", 0, ULONG_MAX) == (ULONG_MAX, 20)
    for data in (b"-0", b"18446744073709551616"):
        with pytest.raises(OSError, match="Invalid"):
            parse(data, 0, ULONG_MAX)


@pytest.mark.parametrize("name", VM_TABLE)
def test_a_refused_write_changes_nothing(process, name):
    before = number(process, name)
    for data in ("x", "99999999999999999999"):
        with pytest.raises(OSError) as refused:
            process.write_file(VM + name, data)
        assert refused.value.errno == errno.EINVAL
    assert process.write_file(VM + name, "") == 0
    assert number(process, name) == before
    assert process.write_file(VM + name, f"{before}\n") == len(f"{before}\n")
    assert process.write_file(VM + name, "1") == 1 and number(process, name) == 1


def test_ratio_and_kbytes_switch_each_other_off(process):
    process.write_file(VM + "overcommit_kbytes", "8192")
    assert (number(process, "overcommit_ratio"), number(process, "overcommit_kbytes")) == (0, 8192)
    assert "\nCommitLimit:        8192 kB\n" in process.read_file("/proc/meminfo")
    process.write_file(VM + "overcommit_ratio", "25")
    assert (number(process, "overcommit_ratio"), number(process, "overcommit_kbytes")) == (25, 0)
    limit = process.kernel.page_alloc.managed_pages * 25 // 100 * 4
    assert f"\nCommitLimit:    {limit:8} kB\n" in process.read_file("/proc/meminfo")


def test_settings_are_heeded(process):
    at, flags = 0x1000000000, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    process.write_file(VM + "max_map_count", "1")
    process.mmap(at, 4096, PROT_READ, flags)
    with pytest.raises(OSError) as refused:
        process.mmap(at + 8192, 4096, PROT_READ, flags)
    assert refused.value.errno == errno.ENOMEM
    process.write_file(VM + "max_map_count", "65530")
    process.write_file(VM + "overcommit_memory", "2")
    process.write_file(VM + "overcommit_kbytes", "1024")
    with pytest.raises(OSError) as refused:
        process.mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    assert refused.value.errno == errno.ENOMEM
    watermarks = [zone.watermarks[0] for zone in process.kernel.page_alloc.zones if zone.managed]
    process.write_file(VM + "min_free_kbytes", str(2 * number(process, "min_free_kbytes")))
    assert all(
        zone.watermarks[0] > old
        for zone, old in zip((z for z in process.kernel.page_alloc.zones if z.managed), watermarks, strict=True)
    )


def test_the_lowest_address_needs_a_capability(process):
    process.dropcap(CAP_SYS_RAWIO)
    with pytest.raises(PermissionError):
        process.write_file(VM + "mmap_min_addr", "65536")
    assert number(process, "mmap_min_addr") == 4096


def test_only_the_start_of_the_file_counts(process):
    file = open_file(process.kernel, VM + "max_map_count", O_RDWR | O_TRUNC)
    assert (file.pread(3, 0), file.pread(10, 3)) == (b"655", b"")
    assert file.pwrite(b"5", 2) == 1 and number(process, "max_map_count") == 65530
    assert file.write(b"77 9") == 3
    assert file.write(b"9") == 1 and file.pos == 4 and number(process, "max_map_count") == 77


def test_everything_else_is_read_only(process):
    for path in ("/proc/meminfo", "/proc/self/maps", "/proc/sys/kernel/hostname"):
        with pytest.raises(OSError) as refused:
            process.write_file(path, "1")
        assert refused.value.errno == errno.EROFS
