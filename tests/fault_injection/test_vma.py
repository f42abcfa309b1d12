# SPDX-License-Identifier: GPL-2.0-or-later
"""Every allocation of 300 random programs of the verification's generator fails once: right errno, every invariant
holds after the operation that was hit, nothing is leaked in the end.

Each program is run once for every allocation it makes, some 15 a program, so programs are short (two mappings, a touch,
two to five operations and what the generator's idioms add), their process has no program of its own, and one machine
does all runs of a program: at the end of each everything was given back, which is checked. What a failed merge or split
leaves behind shows within the next operation or two; longer programs would cost the square of their length.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from memtwin import Machine
from memtwin.mm.fault_inject import FaultInjection
from memtwin.script import run as run_module
from memtwin.script.run import Script
from memtwin.verify import actions
from memtwin.verify.generate import program
from memtwin.verify.profiles import profile
from memtwin.verify.twin import words_of

PROGRAMS = 300
HUGE_PROGRAMS = 24
PROFILES = ("vma", "mremap", "mlock", "fork", "fault", "madvise")
#: Operations whose refused split says "try again", and mlock's populating.
EAGAIN_TOO = frozenset(("madvise", "process_madvise", "mlock", "mlock2", "mlockall"))
#: What a failed allocation changes besides an errno: brk returns the old break, a touch is taken again, a write is
#: short.
SILENT = frozenset(("brk", "read", "write", "pwrite"))


def something_mapped(author):
    """What a program begins with, so that its few operations find something."""
    for _ in range(2):
        actions.mmap_fixed(author)
    actions.touch(author)


def only_a_page_of_stack(process, base):
    """Instead of the program that a script's process has: nothing that mlockall would populate again and again."""
    (stack,) = process.vmas()
    process.munmap(stack.start, stack.end - stack.start - 4096)


def lines_of(number):
    """A short program, and the kernel that is to run it."""
    chosen = profile(PROFILES[number % len(PROFILES)])
    short = replace(chosen, length=(2, 5), peeks=0.0, dump="maps", openings={something_mapped: 1.0})
    lines = program(short, 0, number)
    # Areas of whole page tables would want thousands of runs.
    lines = [line for line in lines if "map_room" not in line and "4m+" not in line and "16m" not in line]
    return lines, ("6.7", "6.18")[random.Random(number).randrange(2)]


def run(machine, lines, fail, wanted=None):
    """The answers with the ``fail``-th allocation failing, and how many there were. ``wanted``: the answers without."""
    kernel = machine.kernel
    script = Script("", machine)
    fault = kernel.page_alloc.fault = FaultInjection(fail_nth=fail)
    answers = []
    for line in lines:
        hit = fault.failed
        answer = script.answer(line)
        answers.append(answer)
        if fault.failed > hit:
            judge(line, answer, wanted[len(answers) - 1])
            machine.check()
        elif answer.get("error") == "not modelled":
            break
    kernel.page_alloc.fault = None
    machine.check()
    for path in list(kernel.memory_names):
        script.processes["main"].unlink(path)
    for process in script.processes.values():
        process.exit()
    kernel.check_no_leak()
    assert kernel.mm_ctx.committed == kernel.mm_ctx.commit_leaked
    return answers, fault.points


def judge(line, answer, wanted):
    """``answer`` is that of an operation in which an allocation failed."""
    op = words_of(line)[1][0]
    allowed = {"ENOMEM", "EAGAIN"} if op in EAGAIN_TOO else {"ENOMEM"}
    if answer.get("err") != wanted.get("err"):
        assert answer.get("err") in allowed, (line, answer, wanted)
    elif op not in SILENT:
        assert without_faults(answer) == without_faults(wanted), line


def without_faults(answer):
    return {key: value for key, value in answer.items() if key not in ("min", "maj")}


@pytest.fixture(autouse=True)
def no_program(monkeypatch):
    monkeypatch.setattr(run_module, "_start_program", only_a_page_of_stack)
    monkeypatch.setattr(run_module, "_prefault", lambda process, base: None)


@pytest.mark.slow  # every allocation of 300 programs, one run each
@pytest.mark.parametrize("chunk", range(10))
def test_every_allocation_of_random_programs_may_fail(chunk):
    total = 0
    for number in range(chunk * PROGRAMS // 10, (chunk + 1) * PROGRAMS // 10):
        lines, kernel = lines_of(number)
        with Machine("64M", kernel=kernel) as machine:
            wanted, points = run(machine, lines, 0)
            total += points
            for nth in range(1, points + 1):
                run(machine, lines, nth, wanted)
    assert total > PROGRAMS // 10 * 5


@pytest.mark.slow
def test_every_allocation_of_programs_on_huge_pages_may_fail():
    """As above, on an area with huge pages; a huge page that is not to be had is small ones, and says nothing."""
    thp = profile("thp")
    total = 0
    for number in range(HUGE_PROGRAMS):
        lines = program(replace(thp, length=(3, 5), dump="maps"), 0, number)
        # Filling small pages by the hundred would want a run each.
        lines = [re.sub(r"(write \S+) \d{2,}p", r"\1 6p", line) for line in lines if line != "@* dump"]
        lines = [line for line in lines if "populate" not in line and "mlock" not in line]
        with Machine("64M", kernel=("6.7", "6.18")[number % 2]) as machine:
            wanted, points = run(machine, lines, 0)
            total += points
            for nth in range(1, points + 1):
                run(machine, lines, nth, wanted)
    assert total > HUGE_PROGRAMS * 5


def test_a_move_whose_source_can_not_be_split_leaves_it_beside_its_copy():
    """mremap has no way back when the entries have moved: it succeeds, the source stays, and both count."""
    lines = ["mmap B 12p rw private|anon|fixed", "write B 12p 7", "mremap B+4p 4p 4p maymove|fixed B+40p", "dump maps"]
    seen = set()
    with Machine("64M") as machine:
        wanted, points = run(machine, lines, 0)
        for nth in range(1, points + 1):
            answers, _ = run(machine, lines, nth, wanted)
            seen.add((answers[2].get("err"), tuple(answers[3]["maps"])))
    whole, copy = "B+0x0-B+0xc000 rw-p 0", "B+0x28000-B+0x2c000 rw-p 0"
    moved = (None, ("B+0x0-B+0x4000 rw-p 0", "B+0x8000-B+0xc000 rw-p 0", copy))
    assert {moved, ("ENOMEM", (whole,)), (None, (whole, copy))} <= seen


class FailTwo(FaultInjection):
    """Fails the ``first``-th point, and the ``second``-th passed after it."""

    __slots__ = ("chosen",)

    def __init__(self, first, second):
        super().__init__()
        self.chosen = {first, first + second}

    def _should_fail(self, size):
        self.points += 1
        self.failed += self.points in self.chosen
        return self.points in self.chosen


#: Programs whose last line moves something: what is there already, flags of the source, whether the copy merges.
MOVES = {
    "copy-needs-tables": [
        "mmap B+500p 24p rw private|anon|fixed",
        "write B+500p 24p 7",
        "mmap B+1536p 20p rw private|anon|fixed",
        "mremap B+500p 8p 8p maymove|fixed B+1528p",
        "munmap B+1530p 26p",
        "mremap B+508p 10p 10p maymove|fixed B+1530p",
    ],
    "locked": ["mmap B 12p rw private|anon|fixed|locked", "mremap B+4p 4p 4p maymove|fixed B+1000p"],
    "locked-grows": ["mmap B+508p 8p rw private|anon|fixed|locked", "mremap B+510p 6p 9p maymove|fixed B+1020p"],
    "dontunmap": ["mmap B 12p rw private|anon|fixed", "write B 12p 1", "mremap B+4p 4p 4p maymove|dontunmap B+1022p"],
    "dontunmap-locked": ["mmap B 12p rw private|anon|fixed|locked", "mremap B 12p 12p maymove|dontunmap B+1022p"],
    "several-areas": [
        "mmap B 4p rw private|anon|fixed",
        "mmap B+4p 4p r private|anon|fixed",
        "mmap B+10p 4p rw private|anon|fixed|locked",
        "write B 4p 7",
        "mremap B+2p 10p 10p maymove|fixed B+1020p",
    ],
}


def move_failing(machine, lines, first, second):
    """Run ``lines`` with two allocations of the last one failing; how many failed, and its answer."""
    kernel = machine.kernel
    script = Script("", machine)
    for line in lines[:-1]:
        script.answer(line)
    fault = kernel.page_alloc.fault = FailTwo(first, second)
    answer = script.answer(lines[-1])
    kernel.page_alloc.fault = None
    machine.check()
    script.answer("write B 2048p 1")
    machine.check()
    script.processes["main"].exit()
    kernel.check_no_leak()
    assert kernel.mm_ctx.committed == kernel.mm_ctx.commit_leaked
    return fault.failed, answer


@pytest.mark.parametrize("kernel", ["6.7", "6.18"])
@pytest.mark.parametrize("name", MOVES)
def test_two_allocations_of_a_move_fail(name, kernel):
    """The second one is often on the way back: everything is still accounted for, and nothing is left."""
    if name == "several-areas" and kernel == "6.7":
        pytest.skip("6.7 moves one area at a time")
    lines, errors, both = MOVES[name], set(), 0
    for first in range(1, 200):
        for second in range(1, 200):
            with Machine("64M", kernel=kernel) as machine:
                failed, answer = move_failing(machine, lines, first, second)
            errors.add(answer.get("err"))
            both += failed == 2
            if failed < 2:
                break
        if not failed:
            break
    assert not failed and both and errors == {None, "ENOMEM"}


def test_a_copy_that_can_not_be_unmapped_stays_empty():
    """No tables for the entries, and no memory to take the copy away: the move fails, and the copy stays."""
    lines, seen = MOVES["copy-needs-tables"], set()
    for first in range(1, 10):
        for second in range(1, 4):
            with Machine("64M") as machine:
                script = Script("", machine)
                for line in lines[:-1]:
                    script.answer(line)
                machine.kernel.page_alloc.fault = fault = FailTwo(first, second)
                answer = script.answer(lines[-1])
                machine.kernel.page_alloc.fault = None
                read = script.answer("read B+508p 10p")
                if fault.failed == 2 and answer.get("err"):
                    assert read["vals"] == [[7, 10]]
                    seen.add(tuple(script.answer("dump maps")["maps"]))
                machine.check()
    source, before, copy = "B+0x1fc000-B+0x20c000", "B+0x5f8000-B+0x5fa000", "B+0x5fa000-B+0x604000"
    assert seen == {tuple(f"{area} rw-p 0" for area in (source, before, copy))}
