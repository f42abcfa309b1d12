# SPDX-License-Identifier: GPL-2.0-or-later
"""The shrinker, judged by predicates instead of kernels."""

import random

from memtwin.verify.shrink import shrink


def judge(predicate, seen=None):
    def differs(candidates):
        for index, candidate in enumerate(candidates):
            if seen is not None:
                seen.append(candidate)
            if predicate(candidate):
                return index
        return None

    return differs


def test_only_the_needed_lines_stay():
    lines = [f"munmap B+{i}p 1p" for i in range(40)]
    needed = {lines[3], lines[17], lines[38]}
    assert shrink(lines, judge(lambda program: needed <= set(program))) == [lines[3], lines[17], lines[38]]


def test_lines_that_need_each_other():
    lines = ["a", "open", "b", "c", "close", "d"]

    def balanced(program):
        return program.count("open") == program.count("close") and "open" in program

    assert shrink(lines, judge(balanced)) == ["open", "close"]


def test_flags_numbers_assignments_and_processes_go():
    lines = ["fork c1", "@c1 v1=mmap B+17p 12p rw private|anon|fixed|populate", "@c1 dump maps smaps status"]

    def wanted(program):
        text = "\n".join(program)
        there = "@c1" not in text or "fork c1" in text
        return there and "anon" in text and "mmap" in text and "dump" in text and " maps" in text

    small = shrink(lines, judge(wanted))
    assert small == ["mmap B+1p 1p rw anon", "dump maps"]


def test_a_used_variable_stays():
    lines = ["v1=mmap 0 4p rw private|anon", "munmap $v1 4p"]
    small = shrink(lines, judge(lambda program: len(program) == 2 and "v1=" in program[0]))
    assert small[0].startswith("v1=mmap")


def test_nothing_smaller_is_left():
    rng = random.Random(5)
    for _ in range(20):
        lines = [f"mmap B+{rng.randrange(40)}p {rng.randrange(1, 9)}p rw private|anon" for _ in range(15)]
        chosen = tuple(sorted(rng.sample(range(15), 3)))
        keep = [lines[i].split()[1] for i in chosen]

        def wanted(program, keep=keep):
            return sum(any(k == line.split()[1] for line in program) for k in set(keep)) == len(set(keep))

        seen = []
        small = shrink(lines, judge(wanted, seen))
        assert wanted(small)
        for drop in range(len(small)):
            assert not wanted(small[:drop] + small[drop + 1 :])
