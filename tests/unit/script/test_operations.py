# SPDX-License-Identifier: GPL-2.0-or-later
"""What each operation asks of a process, and what it makes of the result; on a process that only records."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest

from memtwin.script.names import FLAGS
from memtwin.script.operations import OPERATIONS

B = 0x1000000000
ALL = (1 << 64) - 1
INFINITY = ALL


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("mmap B 2p rw private|anon|fixed", ("mmap", B, 8192, 3, 0x32)),
        ("mmap 0 1p r shared 5", ("mmap", 0, 4096, 1, 1, 5)),
        ("mmap 0 1p r shared 0-1 0-1p", ("mmap", 0, 4096, 1, 1, -1, ALL - 4095)),
        ("munmap B 1p", ("munmap", B, 4096)),
        ("mprotect B 1p rx|growsdown", ("mprotect", B, 4096, 5 | 1 << 24)),
        ("madvise B 1p dontneed", ("madvise", B, 4096, 4)),
        ("madvise B 1p 0-1", ("madvise", B, 4096, -1)),
        ("process_madvise B 1p cold", ("process_madvise", B, 4096, 20)),
        ("mremap B 1p 2p maymove", ("mremap", B, 4096, 8192, 1)),
        ("mremap B 1p 2p maymove|fixed B+4p", ("mremap", B, 4096, 8192, 3, B + 4 * 4096)),
        ("brk K+1", ("brk", 0x800000001)),
        ("mlock B 0-2p", ("mlock", B, ALL + 1 - 8192)),
        ("mlock2 B 1p onfault", ("mlock2", B, 4096, 1)),
        ("munlock B 1p", ("munlock", B, 4096)),
        ("mlockall current|future", ("mlockall", 3)),
        ("munlockall", ("munlockall",)),
        ("msync B 1p sync|invalidate", ("msync", B, 4096, 6)),
        ("mseal B 1p", ("mseal", B, 4096)),
        ("mseal B 1p 1", ("mseal", B, 4096, 1)),
        ("remap_file_pages B 1p 0 3 0", ("remap_file_pages", B, 4096, 0, 3, 0)),
        ("merge 1", ("prctl", 67, 1)),
        ("get_merge", ("prctl", 68)),
        ("thp_disable 1", ("prctl", 41, 1)),
        ("anon_name B 1p heap", ("prctl_set_vma_anon_name", B, 4096, "heap")),
        ("anon_name B 1p", ("prctl_set_vma_anon_name", B, 4096, None)),
        ("ftruncate 3 0-1", ("ftruncate", 3, -1)),
        ("fallocate 3 punch_hole|keep_size 1p 2p", ("fallocate", 3, 3, 4096, 8192)),
        ("close 3", ("close", 3)),
        ("addseals 3 seal|write", ("add_seals", 3, 9)),
        ("uffd_unregister 4 B 1p", ("uffd_unregister", 4, B, 4096)),
        ("mbind B 1p bind|static_nodes 1 strict|move", ("mbind", B, 4096, 0x8002, 1, 3)),
        ("set_mempolicy interleave 1", ("set_mempolicy", 3, 1)),
        ("dropcap ipc_lock", ("dropcap", 14)),
        ("setrlimit memlock 1p 2p", ("setrlimit", 8, 4096, 8192)),
    ],
)
def test_calls(fake: Any, ask: Any, line: str, call: tuple[Any, ...]) -> None:
    process = fake({call[0]: None})
    (answer,) = ask(process, line)
    assert process.calls[-1] == call
    assert "error" not in answer


@pytest.mark.parametrize(
    ("line", "does", "fields"),
    [
        ("mmap 0 1p r private|anon", {"mmap": B + 4096}, {"ret": "B+0x1000"}),
        ("brk 0", {"brk": 0x800000000}, {"ret": "K+0x0"}),
        ("process_madvise B 1p cold", {"process_madvise": 4096}, {"ret": 4096}),
        ("munmap B 1p", {"munmap": OSError(errno.EINVAL, "x")}, {"ret": -22, "err": "EINVAL"}),
        ("mmap 0 1p r private", {"mmap": OSError(errno.EOPNOTSUPP, "x")}, {"ret": -95, "err": "EOPNOTSUPP"}),
        ("mincore B 3p", {"mincore": b"\x01\x03\x00"}, {"ret": 0, "vec": [[1, 2], [0, 1]]}),
        ("mincore B 2g", {"mincore": b""}, {"ret": -7, "err": "E2BIG"}),
        ("memfd a sealing", {"memfd_create": 7}, {"ret": 0}),
        ("fstat 3", {"fstat": (4096, 8)}, {"ret": 0, "size": 4096, "blocks": 8}),
        ("pread 3 0 4", {"pread": b"\0\0a"}, {"ret": 3, "vals": [[0, 2], [97, 1]]}),
        ("pread 3 9p 4", {"pread": b""}, {"ret": 0}),
        ("pread 3 0 1m", {"pread": b""}, {"ret": -7, "err": "E2BIG"}),
        ("pwrite 3 0 4 1", {"pwrite": 4}, {"ret": 4}),
        ("pwrite 3 0 1m 1", {"pwrite": 4}, {"ret": -7, "err": "E2BIG"}),
        ("vm_read B 3", {"process_vm_readv": b"aab"}, {"ret": 3, "vals": [[97, 2], [98, 1]]}),
        ("vm_read B 1m", {"process_vm_readv": b""}, {"ret": -7, "err": "E2BIG"}),
        ("vm_read B 1", {"process_vm_readv": OSError(errno.EFAULT, "x")}, {"ret": -14, "err": "EFAULT"}),
        ("vm_write B 3 1", {"process_vm_writev": 3}, {"ret": 3}),
        ("vm_write B 1m 1", {"process_vm_writev": 3}, {"ret": -7, "err": "E2BIG"}),
        ("getseals 3", {"get_seals": 12}, {"ret": 12}),
        ("userfaultfd", {"userfaultfd": 5}, {"ret": 0}),
        ("uffd_api 5 0", {"uffd_api": (0x1FFFF, 0x1FF)}, {"ret": 0, "features": "0x1ffff", "ioctls": "0x1ff"}),
        (
            "uffd_api 5 0x100000",
            {"uffd_api": OSError(errno.EINVAL, "x")},
            {"ret": -22, "err": "EINVAL", "features": "0x0", "ioctls": "0x0"},
        ),
        (
            "uffd_api 5 poison",
            {"uffd_api": OSError(errno.ENOTTY, "x")},
            {"ret": -25, "err": "ENOTTY", "features": "0x4000", "ioctls": "0x0"},
        ),
        ("uffd_register 5 B 1p wp", {"uffd_register": 0x1C}, {"ret": 0, "ioctls": "0x1c"}),
        ("get_mempolicy B", {"get_mempolicy": (2, 1)}, {"ret": 0, "mode": 2, "nodes": 1}),
        ("getrlimit as", {"getrlimit": (4096, INFINITY)}, {"ret": 0, "cur": 4096, "max": -1}),
    ],
)
def test_answers(fake: Any, ask: Any, line: str, does: dict[str, Any], fields: dict[str, Any]) -> None:
    (answer,) = ask(fake(does), line)
    assert list(answer.items()) == [("i", 1), ("op", line.split()[0]), *fields.items()]


def test_arguments_that_are_missing_have_defaults(fake: Any, ask: Any) -> None:
    process = fake({"memfd_create": 4, "userfaultfd": 5, "getrlimit": (1, 2), "setrlimit": None})
    ask(process, "memfd m", "userfaultfd", "setrlimit as 5")
    assert process.calls == [
        ("memfd_create", "m", 0),
        ("userfaultfd", 0o2004000),
        ("getrlimit", 9),
        ("setrlimit", 9, 5, 2),
    ]


def test_memory_of_another_process(fake: Any, ask: Any) -> None:
    child = fake()
    process = fake({"fork": child, "process_vm_readv": b"", "process_vm_writev": 1})
    answers = ask(process, "fork c", "vm_read B 2", "vm_read B 2 c", "vm_write B 1 5 c", "vm_read B 2 d")
    assert process.calls[1:] == [
        ("process_vm_readv", process, B, 2),
        ("process_vm_readv", child, B, 2),
        ("process_vm_writev", child, B, b"\5"),
    ]
    assert answers[4]["error"] == "bad argument 3"


def test_read_touches_each_location_until_one_faults(fake: Any, ask: Any) -> None:
    process = fake()
    process.memory = {B: 7, B + 4096: 7, B + 8192: 9, B + 8193: 9}
    answers = ask(process, "read B 4p", "read B+2p 2 1", "read B 0", "read B+1p 0x1001 0", "read B+9p 1")
    assert answers == [
        {
            **{"i": 1, "op": "read", "ret": 3, "sig": "SIGSEGV", "code": "SEGV_MAPERR", "at": "B+0x3000"},
            **{"vals": [[7, 2], [9, 1]], "min": 3},
        },
        {"i": 2, "op": "read", "ret": 2, "vals": [[9, 2]], "min": 2},
        {"i": 3, "op": "read", "ret": 0, "vals": []},
        {"i": 4, "op": "read", "ret": 2, "vals": [[7, 1], [9, 1]], "min": 2},
        {
            **{"i": 5, "op": "read", "ret": 0, "sig": "SIGSEGV", "code": "SEGV_MAPERR", "at": "B+0x9000"},
            "vals": [],
        },
    ]
    assert list(answers[0]) == ["i", "op", "ret", "sig", "code", "at", "vals", "min"]


def test_write_stores_the_low_byte(fake: Any, ask: Any) -> None:
    process = fake()
    process.memory = {B: 0, B + 2: 0}
    (answer,) = ask(process, "write B 5 0x105 2")
    assert (answer["ret"], answer["at"]) == (2, "B+0x4")
    assert process.calls == [("write", B, b"\5"), ("write", B + 2, b"\5")]


def test_what_a_process_can_not_do_is_not_modelled(fake: Any, ask: Any) -> None:
    assert ask(fake(), "mlock B 1p", "scan B 1p 0 0 0 0 0", "vm_read B 1p") == [
        {"i": 1, "op": "mlock", "error": "not modelled"},
        {"i": 2, "op": "scan", "error": "not modelled"},
        {"i": 3, "op": "vm_read", "error": "not modelled"},
    ]
    (answer,) = ask(fake(), "mlock B 1p", explain=True)
    assert answer["reason"] == "mlock: not modelled yet"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("mmap 0 1p rq private", "bad argument 3"),
        ("mmap 0 1p rw anonymous", "bad argument 4"),
        ("read $x 1", "bad argument 1"),
        ("munmap B", "too few arguments"),
        ("munmap x", "bad argument 1"),
        ("munlockall 1", "too many arguments"),
        ("mmap 0 1p r private 3 0 0", "too many arguments"),
        ("madvise B 1p 100", "refused: memory poisoning"),
        ("process_madvise B 1p 101", "refused: memory poisoning"),
        ("uffd_policy other", "bad policy"),
        ("nonsense 1", "unknown operation"),
    ],
)
def test_lines_that_are_not_understood(fake: Any, ask: Any, line: str, why: str) -> None:
    assert ask(fake(), line + "  # comment") == [{"i": 1, "line": line + "  ", "error": why}]


def test_every_operation_is_documented(root: Path) -> None:
    page = (root / "docs/script.md").read_text().split("## Lines")[1].split("## Answers")[0]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set(OPERATIONS)
    assert all(operation.name == name for name, operation in OPERATIONS.items())


def test_every_flag_is_documented(root: Path) -> None:
    page = (root / "docs/script.md").read_text()
    words = set(re.findall(r"\w+", page.split("## Names of flags")[1]))
    assert [name for table in FLAGS.values() for name in table if name not in words] == []


def test_page_status_tells_runs_and_asks_about_4096_pages_at_most(fake, ask):
    process = fake({"move_pages": [0, 0, -2, 0]})
    assert ask(process, "page_status B 4p", "page_status B 4097p") == [
        {"i": 1, "op": "page_status", "ret": 0, "status": [[0, 2], [-2, 1], [0, 1]]},
        {"i": 2, "op": "page_status", "ret": -7, "err": "E2BIG"},
    ]
    assert process.calls == [("move_pages", [B, B + 4096, B + 8192, B + 12288])]
