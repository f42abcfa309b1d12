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
PROFILES = ("vma", "mremap", "mlock", "fork")
#: Operations whose refused split says "try again", and mlock's populating.
EAGAIN_TOO = frozenset(("madvise", "process_madvise", "mlock", "mlock2", "mlockall"))
#: What a failed allocation changes besides an errno: brk returns the old break, a touch is taken again.
SILENT = frozenset(("brk", "read", "write"))


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
    lines = [line for line in program(short, 0, number) if "map_room" not in line]
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
