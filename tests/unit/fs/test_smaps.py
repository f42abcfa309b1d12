# SPDX-License-Identifier: GPL-2.0-or-later
"""smaps, smaps_rollup, pagemap, kpageflags, kpagecount and limits, as the process itself reads them."""

from __future__ import annotations

import errno
import re
import struct

import pytest

from memtwin.abi.capability import CAP_SYS_ADMIN
from memtwin.abi.mman import (
    MADV_COLD,
    MADV_FREE,
    MADV_HUGEPAGE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from memtwin.abi.prctl import PR_SET_THP_DISABLE
from memtwin.abi.resource import RLIMIT_MEMLOCK
from memtwin.machine import Machine
from memtwin.mm.huge_memory import hugepage_vma_check

RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS
AT = 0x1000000000
PRESENT, FILE, EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
PFN = (1 << 55) - 1


@pytest.fixture
def process():
    with Machine("64M") as machine:
        yield machine.spawn()
        machine.check()


def smaps(process, at=AT):
    """The entry of the area that starts at ``at``: key -> number of kB, and VmFlags as text."""
    text = process.read_file("/proc/self/smaps")
    entry = re.search(rf"(?ms)^{at:08x}-.*?^VmFlags: [a-z ]*$", text)[0]
    values = {}
    for line in entry.splitlines()[1:]:
        key, _, value = line.partition(":")
        values[key] = value.strip() if key == "VmFlags" else int(value.split()[0])
    return values


def shown(process, at=AT):
    """What is neither 0 nor the size of a page."""
    return {
        key: value
        for key, value in smaps(process, at).items()
        if value and key not in ("KernelPageSize", "MMUPageSize", "Size", "VmFlags")
    }


def pagemap(process, at, pages):
    data = process.read_file_at("/proc/self/pagemap", at >> 12 << 3, pages * 8)
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def test_the_text_of_one_area(process):
    process.mmap(AT, 3 << 12, RW, ANON | MAP_FIXED)
    process.touch(AT, True)
    process.touch(AT + 4096, False)  # the zero page counts nowhere
    text = process.read_file("/proc/self/smaps")
    assert text.startswith(
        """\
1000000000-1000003000 rw-p 00000000 00:00 0 
Size:                 12 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   4 kB
Pss:                   4 kB
Pss_Dirty:             4 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         4 kB
Referenced:            4 kB
Anonymous:             4 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                  0 kB
SwapPss:               0 kB
Locked:                0 kB
THPeligible:           0
VmFlags: rd wr mr mw me ac 
"""
    )
    assert text.endswith("VmFlags: ex \n")
    assert re.search(r"(?m)^ffffffffff600000-ffffffffff601000 --xp .* \[vsyscall\]$", text)


@pytest.mark.parametrize("pages", [3, 40, 41, 600, 3000])
def test_every_number_of_pages_is_counted_the_same(process, pages):
    """Few entries are read one way, whole tables another."""
    process.mmap(AT, pages << 12, RW, ANON | MAP_FIXED)
    process.populate(AT, pages << 12)
    kb = pages * 4
    assert shown(process) == dict.fromkeys(("Rss", "Pss", "Pss_Dirty", "Private_Dirty", "Referenced", "Anonymous"), kb)
    entries = pagemap(process, AT - 4096, pages + 2)
    assert entries[0] == entries[-1] == 0
    assert {entry & ~PFN for entry in entries[1:-1]} == {PRESENT | EXCLUSIVE}
    assert len(set(entries)) == pages + 1


def test_shared_pages_count_by_their_share(process):
    process.mmap(AT, 3 << 12, RW, ANON | MAP_FIXED)
    process.write(AT, bytes(3 << 12))
    children = [process.fork(), process.fork()]
    assert shown(process) == {
        "Rss": 12, "Pss": 3, "Pss_Dirty": 3, "Shared_Dirty": 12, "Referenced": 12, "Anonymous": 12,
    }  # fmt: skip
    first = pagemap(process, AT, 3)
    assert first == pagemap(children[0], AT, 3) and not any(entry & EXCLUSIVE for entry in first)
    assert "Referenced" not in shown(children[0])
    children[0].write(AT, b"x")
    assert smaps(process)["Pss"] == 4  # 2 kB and twice 4/3 kB
    assert smaps(children[0])["Private_Dirty"] == 4
    for child in children:
        child.exit()
    assert smaps(process)["Pss"] == 12


def test_lock_and_lazy_freeing(process):
    process.mmap(AT, 4 << 12, RW, ANON | MAP_FIXED)
    process.mlock(AT, 4 << 12)
    assert smaps(process)["Locked"] == 16 and "lo" in smaps(process)["VmFlags"].split()
    assert "VmLck:\t      16 kB\n" in process.read_file("/proc/self/status")
    process.munlock(AT, 4 << 12)
    process.madvise(AT, 2 << 12, MADV_FREE)
    values = smaps(process)
    assert (values["Locked"], values["Private_Clean"], values["Referenced"]) == (0, 8, 16), (
        "locking touched the page itself, which MADV_FREE leaves alone"
    )


@pytest.mark.parametrize("pages", [2, 600])
def test_children_have_accessed_nothing(process, pages):
    process.mmap(AT, pages << 12, RW, ANON | MAP_FIXED)
    process.write(AT, bytes(pages << 12))
    child = process.fork()
    assert (smaps(process)["Referenced"], smaps(child)["Referenced"]) == (pages * 4, 0)
    child.touch(AT, False)
    assert (smaps(child)["Referenced"], smaps(child)["Shared_Dirty"]) == (4, pages * 4)


def test_pages_of_memory_files_are_clean_until_written(process):
    fd = process.memfd_create("m")
    process.ftruncate(fd, 2 << 12)
    process.mmap(AT, 2 << 12, RW, MAP_PRIVATE | MAP_FIXED, fd)
    for page in range(2):
        process.touch(AT + (page << 12), False)
    assert shown(process) == dict.fromkeys(("Rss", "Pss", "Private_Clean", "Referenced"), 8)
    shared = process.mmap(0, 2 << 12, RW, MAP_SHARED, fd)
    process.write(shared, b"x")
    values = smaps(process)
    assert (values["Shared_Dirty"], values["Private_Clean"], values["Pss_Dirty"]) == (4, 4, 2)


def test_files_and_no_access(process):
    process.mmap(AT, 2 << 12, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
    process.write(AT, b"x")
    assert shown(process) == dict.fromkeys(("Rss", "Pss", "Pss_Dirty", "Private_Dirty", "Referenced"), 4)
    assert [entry & ~PFN for entry in pagemap(process, AT, 2)] == [PRESENT | FILE | EXCLUSIVE, 0]
    private = AT + 0x10000
    process.mmap(private, 4096, RW, ANON | MAP_FIXED)
    process.write(private, b"x")
    before = pagemap(process, private, 1)
    process.mprotect(private, 4096, PROT_NONE)
    assert pagemap(process, private, 1) == before
    assert smaps(process, private)["Rss"] == 4


def test_rollup_adds_up(process):
    process.mmap(AT, 4 << 12, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
    process.populate(AT, 4 << 12)
    process.brk(0x800003000)
    process.write(0x800000000, b"x")
    lines = process.read_file("/proc/self/smaps_rollup").splitlines()
    assert lines[0] == f"{'800000000-7ffffffff000 ---p 00000000 00:00 0 ':73}[rollup]"
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    assert (values["Rss"], values["Pss_Anon"], values["Pss_File"], values["Pss_Shmem"]) == (20, 4, 0, 16)
    assert list(values)[:6] == ["Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem"]
    assert not {"Size", "THPeligible", "VmFlags"} & set(values)


def test_pagemap_of_the_zero_page(process):
    process.mmap(AT, 4096, RW, ANON | MAP_FIXED)
    process.touch(AT, False)
    zero = process.kernel.mm_ctx.zero_pfn
    assert pagemap(process, AT, 1) == [PRESENT | zero]
    flags = struct.unpack("<Q", process.read_file_at("/proc/kpageflags", zero * 8, 8))[0]
    assert flags >> 24 & 1


def test_frames_are_hidden_from_the_unprivileged(process):
    process.mmap(AT, 4096, RW, ANON | MAP_FIXED)
    process.write(AT, b"x")
    process.dropcap(CAP_SYS_ADMIN)
    assert pagemap(process, AT, 1) == [PRESENT | EXCLUSIVE]


def test_pagemap_wants_whole_entries_and_ends_with_user_space(process):
    for path in ("/proc/self/pagemap", "/proc/kpageflags", "/proc/kpagecount"):
        for offset, size in ((1, 8), (0, 7), (4, 4)):
            with pytest.raises(OSError) as refused:
                process.read_file_at(path, offset, size)
            assert refused.value.errno == errno.EINVAL
        assert process.read_file_at(path, 1 << 60, 8) == b""
        assert process.read_file_at(path, 0, 0) == b""
    last = 0x7FFFFFFFF000 >> 12 << 3
    assert len(process.read_file_at("/proc/self/pagemap", last - 8, 64)) == 8
    assert process.read_file_at("/proc/self/pagemap", last, 64) == b""


def test_frames_of_the_machine(process):
    process.mmap(AT, 4096, RW, ANON | MAP_FIXED)
    process.write(AT, b"x")
    child = process.fork()
    pfn = pagemap(process, AT, 1)[0] & PFN
    count, flags = (
        struct.unpack("<Q", process.read_file_at(f"/proc/kpage{what}", pfn * 8, 8))[0] for what in ("count", "flags")
    )
    assert count == 2
    assert {bit for bit in range(64) if flags >> bit & 1} == {3, 11, 12, 14}  # UPTODATE, MMAP, ANON, SWAPBACKED
    child.exit()
    whole = process.read_file_at("/proc/kpageflags", 0, 1 << 30)
    assert len(whole) == process.kernel.pages.nr_pages * 8


def test_huge_pages_need_advice_and_an_aligned_block(process):
    mib2 = 2 << 20
    process.mmap(AT, 2 * mib2, RW, ANON | MAP_FIXED)
    vma = process.vmas()[0]
    assert smaps(process)["THPeligible"] == 0
    thp = process.kernel.mm_ctx.thp
    thp.enabled = "always"
    assert hugepage_vma_check(vma, smaps=True)
    assert not hugepage_vma_check(vma)  # khugepaged: nothing was ever written
    thp.enabled = "madvise"
    process.madvise(AT, 2 * mib2, MADV_HUGEPAGE)
    assert smaps(process)["THPeligible"] == 1
    thp.enabled = "never"
    assert smaps(process)["THPeligible"] == 0
    thp.enabled = "madvise"
    process.munmap(AT + 4096, mib2)  # both ends of the hole cut a block
    assert smaps(process)["THPeligible"] == 0
    assert smaps(process, AT + 4096 + mib2)["THPeligible"] == 0


def test_huge_pages_can_be_switched_off(process):
    process.mmap(AT, 4 << 20, RW, ANON | MAP_FIXED)
    process.madvise(AT, 4 << 20, MADV_HUGEPAGE)
    process.prctl(PR_SET_THP_DISABLE, 1)
    assert smaps(process)["THPeligible"] == 0


def test_protection_keys():
    """Execute-only memory has key 1 where the CPU has keys."""
    with Machine("64M", pku=True) as machine:
        process = machine.spawn()
        process.mmap(AT, 4096, PROT_EXEC, ANON | MAP_FIXED)
        process.mmap(AT + 8192, 4096, RW, ANON | MAP_FIXED)
        assert smaps(process)["ProtectionKey"] == 1
        assert smaps(process, AT + 8192)["ProtectionKey"] == 0
        assert "\nProtectionKey:         1\nVmFlags: ex mr mw me \n" in process.read_file("/proc/self/smaps")


def test_limits(process):
    process.setrlimit(RLIMIT_MEMLOCK, 65536)
    lines = process.read_file("/proc/self/limits").splitlines()
    assert lines[0] == "Limit                     Soft Limit           Hard Limit           Units     "
    assert lines[1] == "Max cpu time              unlimited            unlimited            seconds   "
    assert lines[9] == "Max locked memory         65536                8388608              bytes     "
    assert lines[14] == "Max nice priority         0                    0                    "
    assert len(lines) == 17


def test_other_processes_can_be_looked_at(process):
    process.mmap(AT, 4096, RW, ANON | MAP_FIXED)
    child = process.fork()
    assert child.read_file(f"/proc/{process.pid}/smaps") == process.read_file("/proc/self/smaps")
    child.exit()
    with pytest.raises(FileNotFoundError):
        process.read_file(f"/proc/{child.pid}/smaps")


@pytest.mark.parametrize("pages", [3, 600])
@pytest.mark.parametrize(("times", "referenced"), [(1, True), (2, False), (3, True)])
def test_populating_marks_pages_accessed(process, pages, times, referenced):
    """Seen in a child, whose entries are old. live 6.18: the second time makes the page active instead."""
    process.mmap(AT, pages << 12, RW, ANON | MAP_FIXED)
    for _ in range(times):
        process.populate(AT, pages << 12)
    child = process.fork()
    assert smaps(child)["Referenced"] == (pages * 4 if referenced else 0)
    child.exit()  # what others map too, MADV_COLD leaves alone
    process.madvise(AT, pages << 12, MADV_COLD)
    assert smaps(process)["Referenced"] == 0
