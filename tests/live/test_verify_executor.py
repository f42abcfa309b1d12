# SPDX-License-Identifier: GPL-2.0-or-later
"""The executor on the kernel that runs here: processes, answers, isolation, and a small campaign."""

import json
import os
import subprocess

import pytest

from memtwin.verify.campaign import Campaign, reports, run
from memtwin.verify.live import Live, executor, why_not
from memtwin.verify.twin import Twin

REASON = why_not()
pytestmark = [pytest.mark.live, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


@pytest.fixture(scope="module")
def live():
    return Live(executor())


def one(live, *lines):
    return live.run([lines])[0]


def test_an_empty_address_space(live):
    (answer,) = one(live, "dump")
    assert answer == {"i": 1, "op": "dump", "maps": [], "smaps": [], "pagemap": [], "status": {}}


def test_both_halves_begin_with_the_same_size():
    """Limits on all of the address space count from there. The executor fills up to it, so it must not need more."""
    size = Twin().size()
    answers = Live(executor(), size=size).run([["setrlimit as AS0", "getrlimit as"]])[0]
    assert answers[1]["cur"] == size


def test_mapping_touching_and_a_fault(live):
    answers = one(live, "mmap B 2p rw private|anon|fixed", "write B 3p 7", "read B 2p", "dump maps status")
    assert answers[0] == {"i": 1, "op": "mmap", "ret": "B+0x0"}
    fault = {"ret": 2, "sig": "SIGSEGV", "code": "SEGV_MAPERR", "at": "B+0x2000", "min": 2}
    assert answers[1] == {"i": 2, "op": "write", **fault}
    assert answers[2] == {"i": 3, "op": "read", "ret": 2, "vals": [[7, 2]]}
    assert answers[3]["maps"] == ["B+0x0-B+0x2000 rw-p 0"]
    assert answers[3]["status"] == {"VmSize": 8, "VmRSS": 8, "RssAnon": 8, "VmData": 8}


def test_kernel_chosen_addresses_the_heap_and_variables(live):
    answers = one(live, "v=mmap 0 4p rw private|anon", "munmap $v+1p 1p", "brk K+1p", "w=mmap 0-1p 0 r 0", "read $w 1p")
    assert [answer.get("ret") for answer in answers] == ["T-0x4000", 0, "K+0x1000", -9, 0]
    assert answers[4]["at"] == "B+0x800000000"


def test_processes_take_turns(live):
    answers = one(
        live,
        "mmap B 1p rw private|anon|fixed",
        "write B 1p 1",
        "fork c",
        "@c write B 1p 2",
        "read B 1p",
        "@c fork d",
        "@c exit",
        "@d read B 1p",
        "@* dump maps",
        "@c munmap B 1p",
    )
    assert answers[4]["vals"] == [[1, 1]]
    assert answers[6] == {"i": 7, "proc": "c", "op": "exit", "ret": 0}
    assert answers[7]["vals"] == [[2, 1]]
    assert list(answers[8]["procs"]) == ["main", "d"]
    assert answers[9]["error"] == "no such process"


def test_programs_do_not_see_each_other(live):
    first, second = live.run(
        [["f=open a", "ftruncate $f 1p", "mmap B 1p rw private|anon"], ["f=open a", "fstat $f", "dump"]]
    )
    assert first[1]["ret"] == 0
    assert (second[1]["size"], second[2]["maps"]) == (0, [])


def test_limits_and_capabilities(live):
    answers = one(
        live, "dropcap ipc_lock", "setrlimit memlock 1p", "mmap B 4p rw private|anon", "mlock B 2p", "mlock B 1p"
    )
    assert [answer["ret"] for answer in answers] == [0, 0, "B+0x0", -12, 0]


def test_room_for_areas(live):
    if not live.map_room:
        pytest.skip("vm.max_map_count is too large to be filled")
    answers = one(live, "mmap B 9p rw private|anon|fixed", "map_room 2", "mprotect B+4p 1p r", "mprotect B+7p 1p r")
    assert [answer["ret"] for answer in answers] == ["B+0x0", 0, 0, -12]


def test_a_lost_program_ends_alone(live):
    # mlockall and a limit of nothing do not matter here: the image itself is unmapped
    lost, fine = live.run([["munmap 0x30000000 64m", "brk K"], ["brk K"]])
    assert "died" in lost[-1] and fine == [{"i": 1, "op": "brk", "ret": "K+0x0"}]


def test_a_program_lost_in_the_middle_of_an_answer(live):
    if not live.map_room:
        pytest.skip("vm.max_map_count is too large to be filled")
    text = "script slow\nbrk K\nmap_room 0\n" + "dump smaps\n" * 50 + "script fine\nbrk K\n"
    command = [str(executor()), "--timeout", "20"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[2] == {"i": 1, "op": "brk", "ret": "K+0x0"} == answers[-1]
    assert "timeout" in answers[-3] and answers[-2] == {"script": "fine"}


def test_what_can_not_be_read(live):
    answers = one(live, "nonsense", "mmap B", "mmap B 1p rw nonsense", "@x brk K", "brk K")
    assert [("error" in answer) for answer in answers] == [True, True, True, True, False]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_a_campaign_does_not_depend_on_the_number_of_workers():
    campaign = Campaign("vma", 0, 120)
    one_worker, two_workers = run(campaign), run(campaign, jobs=2)
    assert one_worker.programs + one_worker.unstable + one_worker.lost >= 120 - 5
    assert [case.number for case in one_worker.cases] == [case.number for case in two_workers.cases]
    assert one_worker.coverage.cells == two_workers.coverage.cells
    assert len(list(reports(campaign))) == 3
