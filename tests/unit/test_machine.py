# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine and its processes: descriptions, isolation, boot cost, determinism, memory per page."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import memtwin
from memtwin import Machine
from memtwin.errors import BadInput, ProcessKilled
from memtwin.machine import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", 64 << 20), ("2G", 2 << 30), ("4T", 4 << 40), ("4096", 4096), (" 1 GiB ", 1 << 30), (7, 7)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1G", "1.5G", "1X", "G"])
def test_bad_sizes(text):
    with pytest.raises(BadInput):
        parse_size(text)


@pytest.mark.parametrize(
    "description",
    [
        {"memory": "1M"},
        {"memory": "32T"},
        {"memory": "64M", "nodes": 0},
        {"memory": "8M", "nodes": 64},
        {"memory": "64M", "cpus": 0},
        {"kernel": "plan9"},
        {"with_": ["no-such-change"]},
        {"nodes": ["64M", "3000K", "64M"]},
    ],
)
def test_impossible_machines_are_bad_input(description):
    with pytest.raises(BadInput):
        Machine(**description)


def test_two_machines_share_nothing():
    a, b = Machine("64M"), Machine("64M", nodes=2, cpus=2)
    p, q = a.spawn(), b.spawn()
    assert p.pid == q.pid
    addr = p.mmap(0, 4096)
    assert q.mmap(0, 4096) == addr
    p.write(addr, b"a")
    assert q.read(addr, 1) == b"\0"
    assert (p.mm.rss, q.mm.rss) == (1, 0)
    a.check()
    b.check()


def test_nodes_from_a_list_make_up_the_memory():
    with Machine(nodes=["64M", "32M"], memory_only=[1]) as machine:
        assert [node.end_pfn for node in machine.kernel.topology.nodes] == [16384, 24576]
        machine.check()


def test_exit_is_final():
    with Machine("64M") as machine:
        p = machine.spawn()
        p.exit(3)
        assert p.task.exit_code == 3 << 8
        p.exit(4)
        assert p.task.exit_code == 3 << 8
        for call in (lambda: p.mmap(0, 4096), lambda: p.read(0, 1), lambda: p.touch(0, True), lambda: p.mm, p.vmas):
            with pytest.raises(ProcessKilled):
                call()
        machine.kernel.check_no_leak()


def test_run_a_program_and_keep_what_it_prints(tmp_path):
    """A program without a C library, given as bytes: write(1, "hi\\n", 3); exit(7)."""
    code = bytes.fromhex("b801000000 bf01000000 488d3513000000 ba03000000 0f05 b83c000000 bf07000000 0f05") + b"hi\n"
    entry = 0x400078
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    size = 0x78 + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
    path = tmp_path / "hi"
    path.write_bytes(header + segment + code)
    path.chmod(0o755)
    with Machine("64M") as machine:
        result = machine.run([str(path)], capture=True)
        assert (result.status, result.stdout, result.stderr) == (7, b"hi\n", b"") and result.faults > 0
        machine.check()
        machine.kernel.check_no_leak()
        with pytest.raises(BadInput):
            machine.run(["/no/such/program"])


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs the /proc of Linux")
def test_like_host_copies_the_live_machine():
    with Machine.like_host(cpus=1) as machine:
        total = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
        assert machine.kernel.page_alloc.managed_pages == total // 4
        limit = int(Path("/proc/sys/vm/max_map_count").read_text())
        assert machine.kernel.mm_ctx.sysctl.max_map_count == limit
        assert machine.kernel.features.kernel == "host"
        machine.check()


def test_public_names():
    assert memtwin.Machine is Machine
    with pytest.raises(AttributeError):
        _ = memtwin.Nonsense
    assert "Machine" in dir(memtwin)


SCRIPT = """
import io, json, sys
from memtwin import Machine
from memtwin.events import JsonLines
out = io.StringIO()
with Machine("64M", nodes=2, cpus=2, seed=5) as m:
    m.kernel.trace.enable("*", JsonLines(out))
    for round in range(3):
        p = m.spawn(); q = m.spawn()
        a = p.mmap(0, 1 << 20); b = q.mmap(0, 1 << 21)
        for i in range(0, 1 << 20, 12288):
            p.write(a + i, b"x"); q.touch(b + i, i % 8192 == 0)
        p.munmap(a, 1 << 19); q.populate(b, 1 << 21); p.mprotect(a + (1 << 19), 8192, 1)
        p.exit(); q.exit()
    m.check()
    json.dump({"work": m.kernel.work.snapshot(), "log": m.kernel.log}, out)
sys.stdout.write(out.getvalue())
"""


def test_same_seed_same_bytes_whatever_the_hash_seed():
    runs = {
        seed: subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert runs["0"] == runs["1"] == runs["4711"]
    events = [json.loads(line) for line in runs["0"].splitlines()[:-1]]
    assert len(events) > 300 and {"page_fault_user", "mm_page_alloc"} <= {event["event"] for event in events}


MEMORY = """
import sys
from memtwin import Machine
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
m = Machine("8G"); p = m.spawn()
n = 1_000_000
a = p.mmap(0, (n + 4096) * 4096)
if sys.argv[1] == "touch":
    for addr in range(a, a + 4096 * 4096, 4096):
        p.touch(addr, True)
else:
    p.populate(a, 4096 * 4096)
a += 4096 * 4096
before = rss()
if sys.argv[1] == "touch":
    for addr in range(a, a + n * 4096, 4096):
        p.touch(addr, True)
else:
    p.populate(a, n * 4096)
print((rss() - before) / n)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.parametrize("how", ["touch", "populate"])
def test_a_touched_page_costs_at_most_72_bytes_of_the_host(how):
    """Takes some seconds: a million pages, since host memory is counted in pages itself."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, how],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert float(done.stdout) <= 72


BOOT = """
import sys
from memtwin import Machine
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
Machine("64M").close()
before = rss()
m = Machine("4T"); p = m.spawn(); a = p.mmap(0, 1 << 20); p.write(a, b"x"); m.check
print(rss() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_four_tebibytes_boot_in_a_hundred_megabytes():
    done = subprocess.run(
        [sys.executable, "-c", BOOT], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=True, text=True
    )
    assert int(done.stdout) <= 100 << 20
