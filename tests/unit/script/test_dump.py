# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps from the texts of /proc; the texts are those of Linux 6.18."""

from __future__ import annotations

import errno
import struct
from typing import Any

MAPS = """\
555555554000-555555555000 r-xp 00001000 08:01 12                         /bin/program
800000000-800002000 rw-p 00000000 00:00 0                                [heap]
1000000000-1000002000 rw-p 00000000 00:00 0 
1000004000-1000006000 r--s 00003000 00:2a 2                              /script/x y
1000006000-1000007000 rw-s 00000000 00:01 1054                           /dev/zero (deleted)
7ffff7ffe000-7ffff7fff000 ---p 00001000 00:01 77                         /memfd:m1 (deleted)
7ffff8000000-7ffff8001000 rw-p 00000000 00:00 0 
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""
SMAPS = """\
555555554000-555555555000 r-xp 00001000 08:01 12                         /bin/program
Size:                  4 kB
VmFlags: rd ex mr mw me 
1000000000-1000200000 rw-p 00000000 00:00 0 
Size:               2048 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   8 kB
Pss:                   8 kB
Swap:                  0 kB
THPeligible:           1
VmFlags: rd wr mr mw me ac 
1000200000-1000400000 rw-p 00000000 00:0f 123                            /anon_hugepage (deleted)
Size:               2048 kB
KernelPageSize:     2048 kB
Private_Hugetlb:    2048 kB
VmFlags: rd wr mr mw me de ht 
"""


def test_maps(fake: Any, ask: Any) -> None:
    (answer,) = ask(fake(files={"/proc/self/maps": MAPS}), "dump maps")
    assert answer == {
        "i": 1,
        "op": "dump",
        "maps": [
            "K+0x0-K+0x2000 rw-p 0 [heap]",
            "B+0x0-B+0x2000 rw-p 0",
            "B+0x4000-B+0x6000 r--s 3000 tmpfs:/x y",
            "B+0x6000-B+0x7000 rw-s 0 /dev/zero (deleted)",
            "T-0x1000-T-0x0 ---p 1000 /memfd:m1 (deleted)",
            "T+0x1000-T+0x2000 rw-p 0",
        ],
    }


def test_smaps_shows_what_is_not_zero(fake: Any, ask: Any) -> None:
    (answer,) = ask(fake(files={"/proc/self/smaps": SMAPS}), "dump smaps")
    assert answer["smaps"] == [
        {
            **{"vma": "B+0x0-B+0x200000", "Size": 2048, "Rss": 8, "Pss": 8, "THPeligible": 1},
            "VmFlags": "rd wr mr mw me ac",
        },
        {
            **{"vma": "B+0x200000-B+0x400000", "Size": 2048, "KernelPageSize": 2048, "Private_Hugetlb": 2048},
            "VmFlags": "rd wr mr mw me de ht",
        },
    ]
    assert next(iter(answer["smaps"][0])) == "vma"


def test_status_is_relative_to_the_start(fake: Any, ask: Any) -> None:
    process = fake()
    before = "VmSize: 8192 kB\nVmRSS: 12 kB\nVmLck: 4 kB\nVmData: 132 kB\n"
    texts = iter([before, "VmSize: 8200 kB\nVmRSS: 8 kB\nVmLck: 4 kB\nVmData: 132 kB\n"])
    process.does["read_file"] = lambda _path: next(texts)
    (answer,) = ask(process, "dump status")
    assert answer["status"] == {"VmSize": 8, "VmRSS": -4, "VmLck": 4}


PRESENT, FILE, EXCLUSIVE, SWAP, WP = 1 << 63, 1 << 61, 1 << 56, 1 << 62, 1 << 57
#: Frame -> its entry in /proc/kpageflags: zero page, huge pages, KSM.
KINDS = {1: 1 << 24, 512: 1 << 17, 513: 1 << 17, 1024: 1 << 22, 700: 1 << 21}


def pages(entries: dict[int, int]) -> dict[str, Any]:
    """``read_file_at`` for a pagemap with these entries by page number."""

    def read_file_at(path: str, offset: int, size: int) -> bytes:
        first = offset // 8
        if path == "/proc/kpageflags":
            return struct.pack("<Q", KINDS.get(first, 0))
        assert path == "/proc/self/pagemap"
        return b"".join(struct.pack("<Q", entries.get(page, 0)) for page in range(first, first + size // 8))

    return {"read_file_at": read_file_at}


def pagemap(fake: Any, ask: Any, entries: dict[int, int], line: str = "dump pagemap") -> list[Any]:
    maps = "1000000000-1000008000 rw-p 00000000 00:00 0 \n1000008000-1000009000 r--p 00000000 00:00 0 \n"
    base = 0x1000000
    process = fake(pages({base + page: entry for page, entry in entries.items()}), {"/proc/self/maps": maps})
    (answer,) = ask(process, line)
    runs: list[Any] = answer["pagemap"]
    return runs


def test_pagemap_runs_and_classes(fake: Any, ask: Any) -> None:
    own = PRESENT | EXCLUSIVE
    entries = {0: own | 90, 1: own | 80, 2: own | 70, 4: PRESENT | 90, 5: own | 60, 6: own | 50, 7: own | 40}
    assert pagemap(fake, ask, {**entries, 8: own | 30}) == [
        ["B+0x0", 3, "PX", 0],
        ["B+0x4000", 1, "P", 0],
        ["B+0x5000", 3, "PX", 3],
        ["B+0x8000", 1, "PX", 6],  # classes go on, but an area ends a run
    ]


def test_pagemap_letters(fake: Any, ask: Any) -> None:
    entries = {
        0: PRESENT | 1,
        1: PRESENT | 1,
        2: PRESENT | FILE | 512,
        3: PRESENT | EXCLUSIVE | 1024,
        4: PRESENT | 700,
        5: SWAP | WP,
        6: SWAP | WP,
        7: 1 << 58,
    }
    assert pagemap(fake, ask, entries) == [
        ["B+0x0", 2, "PZ"],
        ["B+0x2000", 1, "PHF", 0],
        ["B+0x3000", 1, "PTX", 1],
        ["B+0x4000", 1, "PK", 2],
        ["B+0x5000", 2, "SW"],
        ["B+0x7000", 1, "G"],
    ]


def test_pagemap_of_a_range(fake: Any, ask: Any) -> None:
    entries = {page: PRESENT | 100 + page for page in range(9)}
    assert pagemap(fake, ask, entries, "dump pagemap B+0x3800 0x800") == [["B+0x3000", 1, "P", 0]]
    assert pagemap(fake, ask, entries, "dump B+7p 2p pagemap") == [["B+0x7000", 1, "P", 0], ["B+0x8000", 1, "P", 1]]


def test_a_huge_area_is_cut_short(fake: Any, ask: Any) -> None:
    process = fake(files={"/proc/self/maps": "1000000000-1800000000 rw-p 00000000 00:00 0 \n"})
    process.does["read_file_at"] = lambda _path, _offset, size: bytes(size)
    (answer,) = ask(process, "dump pagemap")
    assert (answer["pagemap"], answer["pagemap_truncated"]) == ([], True)
    assert len(process.calls) == (1 << 21) // (1 << 16) + 1


def test_hugetlb_and_numa(fake: Any, ask: Any) -> None:
    pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
    files = {pool + f"{name}_hugepages": f"{count}\n" for name, count in zip(("nr", "free"), (8, 5), strict=True)}
    files |= {pool + "resv_hugepages": "2\n", pool + "surplus_hugepages": "0\n"}
    files["/proc/self/numa_maps"] = (
        "00001000 default\n1000000000 bind:0 anon=1 dirty=1 N0=1 kernelpagesize_kB=4\n"
        "1000004000 default file=/script/x mapped=1 N0=1 kernelpagesize_kB=4\n"
    )
    (answer,) = ask(fake(files=files), "dump numa hugetlb")
    assert list(answer.items())[2:] == [
        ("hugetlb", {"total": 8, "free": 5, "resv": 2, "surp": 0}),
        (
            "numa_maps",
            [
                "B+0x0 bind:0 anon=1 dirty=1 N0=1 kernelpagesize_kB=4",
                "B+0x4000 default file=tmpfs:/x mapped=1 N0=1 kernelpagesize_kB=4",
            ],
        ),
    ]


def test_default_views_and_their_order(fake: Any, ask: Any) -> None:
    process = fake(pages({}), {"/proc/self/maps": MAPS, "/proc/self/smaps": SMAPS})
    (answer,) = ask(process, "dump")
    assert list(answer) == ["i", "op", "maps", "smaps", "pagemap", "status"]
    (answer,) = ask(process, "dump status maps")
    assert list(answer) == ["i", "op", "maps", "status"]


def test_a_view_that_is_missing_makes_the_dump_not_modelled(fake: Any, ask: Any) -> None:
    process = fake(files={"/proc/self/maps": MAPS})
    assert ask(process, "dump maps pagemap") == [{"i": 1, "op": "dump", "error": "not modelled"}]
    for call in ("read_file", "read_file_at"):
        process.does[call] = OSError(errno.ENOENT, "No such file or directory")
        (answer,) = ask(process, "dump maps pagemap", explain=True)
        assert answer["error"] == "not modelled"


def test_bad_arguments(fake: Any, ask: Any) -> None:
    answers = ask(fake(), "dump foo", "dump maps B", "dump B 1p 1p", "dump $x 1p")
    assert [answer["error"] for answer in answers] == [
        "bad dump argument",
        "dump range needs address and length",
        "bad dump argument",
        "bad dump argument",
    ]
