# SPDX-License-Identifier: GPL-2.0-or-later
"""Static busybox on the twin prints, byte for byte, what it prints natively."""

from __future__ import annotations

import os
import time

import pytest

APPLETS = {
    "ls -l": ["ls", "-l"],
    "ls -la": ["ls", "-la", ".", "sub"],
    "ls -lin": ["ls", "-lin"],
    "sha256sum": ["sha256sum", "data", "text", "empty"],
    "md5sum": ["md5sum", "data"],
    "sort": ["sort", "text"],
    "sort -n": ["sort", "-n", "-k3", "text"],
    "awk": ["awk", "{ n[$1 % 7] += $3 } END { for (i = 0; i < 7; i++) print i, n[i], length(n[i]) }", "text"],
    "cat": ["cat", "text", "data"],
    "echo": ["echo", "a", "b  c"],
    "wc": ["wc", "text", "data", "empty"],
    "grep": ["grep", "-n", "1[37]$", "text"],
    "find": ["find", ".", "-type", "l"],
    "head": ["head", "-c", "4097", "data"],
    "tail": ["tail", "-n", "3", "text"],
    "cut": ["cut", "-d", " ", "-f", "2-", "text"],
    "sed": ["sed", "-n", "s/line/LINE/;5,9p", "text"],
    "tr": ["tr", "a-z", "A-Z"],
    "od": ["od", "-x", "data"],
    "xxd": ["xxd", "data"],
    "gzip": ["gzip", "-c", "data"],
    "bzip2": ["bzip2", "-c", "text"],
    "cmp": ["cmp", "text", "data"],
    "diff": ["diff", "text", "text2"],
    "stat": ["stat", "-c", "%n %s %f %h %i %Y", "text", "link", "sub"],
    "readlink": ["readlink", "-f", "sub/up/link"],
    "tar": ["tar", "cf", "-", "text", "sub"],
    "seq": ["seq", "1", "3", "50"],
    "expr": ["expr", "6", "*", "7"],
    "test": ["test", "-d", "text"],
    "missing file": ["cat", "nothing"],
    "unknown applet": ["nosuchapplet"],
    "sh": ["sh", "-c", "x=5; while [ $x -gt 0 ]; do echo $x; x=$((x-1)); done; cd sub; pwd; exit 3"],
}


@pytest.fixture
def directory(tmp_path):
    root = tmp_path / "top" / "files"
    (root / "sub").mkdir(parents=True)
    (root / "data").write_bytes(bytes(i * i % 253 for i in range(300_000)))
    (root / "text").write_text("".join(f"{i * 7919 % 2003} line {i}\n" for i in range(2000)))
    (root / "text2").write_text("".join(f"{i * 7919 % 2003} line {i}\n" for i in range(2000) if i % 500))
    (root / "empty").write_bytes(b"")
    (root / "link").symlink_to("text")
    (root / "sub" / "up").symlink_to("..")
    for path in [*root.rglob("*"), root, root.parent]:
        os.utime(
            path, ns=(10**18, 10**18), follow_symlinks=False
        )  # September 2001: the year is printed, whatever the date
    return root


@pytest.mark.parametrize("name", APPLETS)
def test_applet(busybox, twin, native, directory, name):
    argv = [busybox, *APPLETS[name]]
    text = (directory / "text").read_bytes()
    ran, expected = twin(argv, cwd=directory, stdin=text), native(argv, cwd=directory, stdin=text)
    assert ran.out == expected.out
    assert ran.err == expected.err
    assert ran.status == expected.status
    assert ran.out or ran.err or name == "test"


def test_ls_with_todays_date(busybox, twin, native, directory):
    os.utime(directory / "data")
    ran = twin([busybox, "ls", "-l"], cwd=directory, program={"epoch": time.time_ns()})
    assert ran.out == native([busybox, "ls", "-l"], cwd=directory).out


def test_a_pipe_that_nobody_reads(busybox, twin, directory, tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    devnull = os.open(os.devnull, os.O_RDWR)
    try:
        ran = twin([busybox, "cat", "data"], cwd=directory, program={"stdio": (devnull, write_end, devnull)})
    finally:
        os.close(write_end)
        os.close(devnull)
    assert ran.status == 128 + 13
