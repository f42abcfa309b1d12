# SPDX-License-Identifier: GPL-2.0-or-later
"""smaps, smaps_rollup, limits, statm have the live kernel's names, order and widths; pagemap and /proc/sys/vm refuse
what it refuses.
"""

import errno
import os
import re
from pathlib import Path

import pytest

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from memtwin.fs.proc.proc_sysctl import INT_MAX, ULONG_MAX, VM_TABLE, parse
from memtwin.machine import Machine

pytestmark = pytest.mark.live

AT = 0x1000000000


def live(path):
    try:
        return Path(path).read_text()
    except OSError as error:
        pytest.skip(f"{path}: {error.strerror}")


@pytest.fixture(scope="module")
def process():
    """With some of each kind of area, on a machine with the live one's protection keys."""
    with Machine("64M", kernel="host") as machine:
        process = machine.spawn()
        process.mmap(AT, 40 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
        process.populate(AT, 30 << 12)
        process.mmap(AT + (64 << 12), 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
        process.brk(0x800003000)
        yield process


def pattern(line):
    """Labels exact, numbers right-aligned in the same columns."""
    return re.sub(r"(\\ )*\d+", lambda match: rf"[ \d]{{{len(match[0].replace(chr(92), ''))}}}", re.escape(line))


def entries(text):
    """Groups of lines, one an area, without the head lines."""
    return [part.splitlines()[1:] for part in re.split(r"(?m)^(?=[0-9a-f]+-)", text) if part]


def test_smaps(process):
    template = entries(live("/proc/self/smaps"))[0]
    for entry in entries(process.read_file("/proc/self/smaps")):
        assert [line.split(":")[0] for line in entry] == [line.split(":")[0] for line in template]
        for ours, theirs in zip(entry[:-1], template[:-1], strict=True):
            assert re.fullmatch(pattern(theirs), ours), ours
        assert re.fullmatch(r"VmFlags: ([a-z]{2} )+", entry[-1])


def test_smaps_rollup(process):
    theirs, ours = live("/proc/self/smaps_rollup"), process.read_file("/proc/self/smaps_rollup")
    head = r"[0-9a-f]+-[0-9a-f]+ ---p 00000000 00:00 0 +\[rollup\]"
    for text in (theirs, ours):
        assert re.fullmatch(head, text.splitlines()[0]) and text.splitlines()[0].index("[") == 73
    for mine, line in zip(entries(ours)[0], entries(theirs)[0], strict=True):
        assert re.fullmatch(pattern(line), mine), mine


def test_the_vsyscall_page(process):
    """Lines of the page that is no process's own."""
    theirs = live("/proc/self/smaps")
    if "[vsyscall]" not in theirs or "VmFlags: ex \n" not in theirs[-20:]:
        pytest.skip("the live kernel has no execute-only vsyscall page")
    assert process.read_file("/proc/self/smaps").partition("ffffffffff6")[2] == theirs.partition("ffffffffff6")[2]


def test_limits(process):
    for mine, line in zip(
        process.read_file("/proc/self/limits").splitlines(), live("/proc/self/limits").splitlines(), strict=True
    ):
        assert (mine[:26], mine[68:], len(mine)) == (line[:26], line[68:], len(line))


def test_status_and_statm(process):
    theirs = {line.split(":")[0]: line for line in live("/proc/self/status").splitlines()}
    for line in process.read_file("/proc/self/status").splitlines():
        assert line.split(":")[0] in theirs
        if line.endswith(" kB"):
            assert re.fullmatch(r"\w+:\t[ \d]{8} kB", line)
    assert re.fullmatch(r"(\d+ ){3}\d+ 0 \d+ 0\n", live("/proc/self/statm"))
    assert re.fullmatch(r"(\d+ ){3}\d+ 0 \d+ 0\n", process.read_file("/proc/self/statm"))


def test_pagemap_refuses_alike(process):
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        for offset, size in ((0, 8), (1, 8), (0, 7), (4, 4), (0, 0), (1 << 62, 8), (0x7FFFFFFFF000 >> 9, 16)):
            answers = []
            for read in (
                lambda o, s: os.pread(fd, s, o),
                lambda o, s: process.read_file_at("/proc/self/pagemap", o, s),
            ):
                try:
                    answers.append(len(read(offset, size)))
                except OSError as error:
                    answers.append(errno.errorcode[error.errno])
            assert answers[0] == answers[1], (offset, size)
    finally:
        os.close(fd)


#: Texts around a number; each is refused, or sets the number itself.
TEXTS = ["{}", "{}\n", " {} \n", "{} 7", "{} x", "{:#x}", "0{:o}", "{}\t\n 3\n", "-0 {}", "{}x", "{},", "{}\0", "+{}"]
TEXTS += ["-", "--{}", "", " \n", "0x", "08", "\0", "{}99999999999999999", "0000000000000000000000{:o}", "\v{}"]


@pytest.mark.parametrize("name", ["max_map_count", "legacy_va_layout", "admin_reserve_kbytes"])
def test_sysctls_take_and_refuse_alike(name):
    """Only what the live file shows already is written to it."""
    path = Path("/proc/sys/vm") / name
    before = live(path)
    if not os.access(path, os.W_OK):
        pytest.skip("needs root")
    knob = VM_TABLE[name]
    assert (knob.lowest, knob.highest) in ((0, INT_MAX), (0, ULONG_MAX))
    for text in TEXTS:
        data = text.format(int(before)).encode()
        try:
            value, mine = parse(data, knob.lowest, knob.highest) if data else (int(before), 0)
        except OSError as error:
            value, mine = int(before), errno.errorcode[error.errno]
        if value != int(before):
            continue
        fd = os.open(path, os.O_WRONLY)
        try:
            theirs = os.write(fd, data)
        except OSError as error:
            theirs = errno.errorcode[error.errno]
        finally:
            os.close(fd)
            if path.read_text() != before:
                path.write_text(before)
                pytest.fail(f"{data!r} changed {name}")
        assert mine == theirs, data
