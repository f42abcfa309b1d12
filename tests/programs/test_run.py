# SPDX-License-Identifier: GPL-2.0-or-later
"""``memtwin run``: statuses, one-line errors, the summary, determinism."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

SPIN = 'int main(void) { for (;;) __asm__ volatile(""); }'


@pytest.fixture
def memtwin(tmp_path):
    """memtwin(*args, hashseed=0): run the command line in a process of its own."""

    def run(*args: str, hashseed: int = 0, **kwargs):
        return subprocess.run([sys.executable, "-m", "memtwin", "run", *args], **_options(tmp_path, hashseed), **kwargs)

    return run


def _options(cwd, hashseed):
    env = {**os.environ, "PYTHONHASHSEED": str(hashseed), "PYTHONPATH": os.pathsep.join(sys.path)}
    return {"cwd": cwd, "env": env, "capture_output": True, "timeout": 120}


@pytest.fixture
def hello(cc):
    return cc("hello2", '#include <stdio.h>\nint main(void) { printf("hello\\n"); return 42; }')


def test_status_output_and_summary(memtwin, hello):
    done = memtwin("--check", "--", hello)
    assert (done.returncode, done.stdout) == (42, b"hello\n")
    lines = dict(line.split(maxsplit=1) for line in done.stderr.decode().splitlines())
    assert lines["end"] == "exit status 42"
    assert "minor, 0 major" in lines["faults"]
    assert "missing" not in lines
    assert memtwin("--no-summary", hello).stderr == b""


def test_the_same_run_gives_the_same_events_byte_for_byte(memtwin, busybox, tmp_path):
    (tmp_path / "data").write_bytes(bytes(100_000))
    logs, documents = [], []
    for hashseed in (1, 2, 77):
        log, document = tmp_path / f"e{hashseed}", tmp_path / f"j{hashseed}"
        done = memtwin(
            *("--events", str(log), "--json", str(document), "--seed", "5", "--nodes", "2"),
            *("--", busybox, "sort", "/etc/passwd"),
            hashseed=hashseed,
        )
        assert done.returncode == 0
        logs.append(log.read_bytes())
        documents.append(json.loads(document.read_text()))
    assert logs[0] == logs[1] == logs[2]
    assert documents[0] == documents[1] == documents[2]
    names = {json.loads(line)["event"] for line in logs[0].splitlines()}
    assert {"sys_enter", "sys_exit", "sched_process_exec", "page_fault_user", "mm_page_alloc", "mm_page_free"} <= names


def test_events_can_be_chosen(memtwin, hello, tmp_path):
    log = tmp_path / "events"
    memtwin("--events", str(log), "--event", "raw_syscalls:*", hello)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {event["event"] for event in events} == {"sys_enter", "sys_exit"}
    assert events[-1]["id"] == 231
    assert memtwin("--event", "sys_enter", hello).returncode == 2


def test_another_seed_gives_other_random_numbers(memtwin, busybox):
    def numbers(*args):
        return memtwin("--no-summary", *args, "--", busybox, "head", "-c", "20", "/dev/urandom").stdout

    assert numbers("--seed", "1") == numbers("--seed", "1")
    assert numbers("--seed", "1") != numbers("--seed", "2")
    assert len(numbers()) == 20


def test_json(memtwin, hello, tmp_path):
    memtwin("--json", str(tmp_path / "s.json"), "--no-summary", hello)
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["schema"] == "memtwin.run/1"
    assert document["program"] == [hello]
    assert document["status"] == 42
    assert document["syscalls"]["write"] == 1
    assert document["faults"]["minor"] >= document["memory"]["rss_anon_kb"] // 4 > 0


@pytest.mark.parametrize(
    ("make", "status", "text"),
    [
        (None, 127, "No such file or directory"),
        (lambda p: p.mkdir(), 126, "it is a directory"),
        (lambda p: p.write_bytes(b"hello"), 126, "it is not executable"),
        (lambda p: _write(p, b""), 126, "it is not an ELF program"),
        (lambda p: _write(p, b"#!/bin/sh\necho hi\n"), 126, "it is a script, and interpreters are not modelled yet"),
        (lambda p: _write(p, b"\x7fELF\x02\x01"), 126, "its ELF header is cut off"),
        (lambda p: _write(p, _elf(machine=3, bits=1)), 126, "it is a 32-bit program: memtwin runs x86-64 programs"),
        (lambda p: _write(p, _elf(machine=183)), 126, "it is for another machine (ELF machine 183)"),
        (lambda p: _write(p, _elf(kind=1)), 126, "it is an ELF file, but no program"),
        (lambda p: _write(p, _elf(phentsize=40)), 126, "its ELF program headers are broken"),
        (lambda p: _write(p, _elf(phnum=0)), 126, "its ELF program headers are broken"),
        (lambda p: _write(p, _elf(phnum=9)), 126, "its ELF program headers are cut off"),
        (lambda p: _write(p, _elf(p_type=4)), 126, "it has nothing to load"),
        (lambda p: _write(p, _elf(p_type=3)), 126, "dynamically linked programs are not modelled yet"),
        (lambda p: _write(p, _elf(filesz=8192, memsz=1)), 126, "one of its ELF segments is impossible"),
        (
            lambda p: _write(p, _elf(vaddr=(1 << 47) - 4096, memsz=1 << 20)),
            126,
            "one of its ELF segments is impossible",
        ),
        (lambda p: _write(p, _elf(vaddr=0x400123)), 126, "one of its ELF segments is impossible"),
    ],
)
def test_what_can_not_be_run_is_one_line(memtwin, tmp_path, make, status, text):
    program = tmp_path / "program"
    if make is not None:
        make(program)
    done = memtwin("--", str(program))
    assert (done.returncode, done.stdout) == (status, b"")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"memtwin: cannot run '{program}': {text}")


def _write(path, data):
    path.write_bytes(data)
    path.chmod(0o755)


def _elf(
    kind=2, machine=62, bits=2, phentsize=56, phnum=1, p_type=1, vaddr=0x400000, filesz=120, memsz=120, entry=0x400078
):
    ident = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9)
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, kind, machine, 1, entry, 64, 0, 0, 64, phentsize, phnum, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", p_type, 5, 0, vaddr, vaddr, filesz, memsz, 4096)


@pytest.mark.parametrize(
    "elf",
    [
        {"vaddr": 0, "entry": 0x78},  # below mmap_min_addr is fine for root; then it runs into zeroes or off the end
        {"vaddr": 0x7FFFFFFDE000, "entry": 0x7FFFFFFDE078},  # where the stack is
        {"entry": 0xDEAD0000},
        {"memsz": 1 << 46},  # more than the overcommit rule grants
        {"filesz": 100_000, "memsz": 100_000},  # beyond the end of the file: mapped, SIGBUS when touched
    ],
)
def test_a_program_with_odd_segments_ends_cleanly(memtwin, tmp_path, elf):
    _write(tmp_path / "odd", _elf(**elf))
    done = memtwin("--no-summary", "--check", str(tmp_path / "odd"))
    assert done.returncode in (126, 128 + 7, 128 + 11), done
    assert len(done.stderr.decode().splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--memory", "3X", "x"], "is not a size"),
        (["--bogus", "x"], "no such option: --bogus"),
        (["--with", "nosuch", "x"], "unknown change 'nosuch'"),
        (["--env", "novalue", "x"], "KEY=VALUE"),
        (["--cwd", "/nonexistent", "x"], "no working directory '/nonexistent'"),
        (["--cwd", "/etc/passwd", "x"], "no working directory '/etc/passwd'"),
        (["--timeout", "-1", "x"], "must be positive"),
        (["--epoch", "soon", "x"], "neither seconds"),
        (["--events", "/nonexistent/f", "x"], "No such file"),
        (["--show", "/etc/passwd", "x"], "not a file of the twin's /proc"),
        (["--cpus", "0", "x"], "CPU"),
        ([], "missing argument"),
    ],
)
def test_bad_options_are_one_line_and_2(memtwin, hello, args, text):
    done = memtwin(*[hello if arg == "x" else arg for arg in args])
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, len(lines)) == (2, 1), lines
    assert text in lines[0]


def test_environment_and_directory(memtwin, busybox, tmp_path):
    done = memtwin("--env", "FOO=bar=baz", "--env", "HOME=/root", "--no-summary", "--", busybox, "env")
    assert sorted(done.stdout.decode().splitlines()) == [
        "FOO=bar=baz",
        "HOME=/root",
        "LANG=C",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=dumb",
    ]
    assert memtwin("--no-summary", busybox, "pwd").stdout == f"{tmp_path}\n".encode()
    assert memtwin("--no-summary", "--cwd", "/usr", busybox, "pwd").stdout == b"/usr\n"


def test_files_of_proc_can_be_shown(memtwin, hello):
    done = memtwin("--no-summary", "--memory", "128M", "--show", "/proc/meminfo", "--show", "/proc/self/maps", hello)
    text = done.stderr.decode()
    assert "==> /proc/meminfo <==\nMemTotal:" in text
    assert "==> /proc/self/maps <==\n00400000-" in text
    assert text.endswith("[vsyscall]\n")


def test_virtual_time_limits_a_program_that_spins(memtwin, cc):
    done = memtwin("--timeout", "0.05", "--no-summary", cc("spin", SPIN))
    assert done.returncode == 137
    assert done.stderr.decode().splitlines()[0].endswith("killed, its virtual time is up")


def test_ctrl_c_ends_a_program_that_spins(cc, tmp_path):
    options = _options(tmp_path, 0)
    process = subprocess.Popen(
        [sys.executable, "-m", "memtwin", "run", cc("spin", SPIN)],
        cwd=tmp_path,
        env=options["env"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.decode().splitlines() == ["memtwin: interrupted"]


def test_a_lone_thread_that_waits_for_ever_is_told(memtwin, cc):
    source = (
        "#include <sys/syscall.h>\n#include <unistd.h>\nint w;\nint main(void) { syscall(SYS_futex, &w, 0, 0, 0); }"
    )
    done = memtwin("--no-summary", cc("wait", source))
    assert done.returncode == 125
    assert "no other thread exists to wake it" in done.stderr.decode()
