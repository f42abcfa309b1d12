# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports and their groups; the twin's half; no live kernel."""

from memtwin.verify.campaign import Case, Report, key_of
from memtwin.verify.compare import Difference
from memtwin.verify.coverage import Coverage, marker
from memtwin.verify.twin import Twin, words_of


def case(number, line, live, twin):
    return Case(number, (line,), Difference(0, live, twin))


def test_groups_are_by_operation_and_outcome():
    report, other = Report(programs=2), Report(programs=1, lost=1)
    report.cases = [
        case(0, "munmap B 1p", {"ret": 0}, {"ret": -22, "err": "EINVAL"}),
        case(1, "@c1 v=mmap B 1p rw private", {"ret": "B"}, {"ret": "T"}),
    ]
    other.cases = [case(2, "@c2 munmap B 2p", {"ret": 0}, {"ret": -22, "err": "EINVAL"})]
    report.add(other)
    assert {key: [c.number for c in cases] for key, cases in report.groups().items()} == {
        "munmap: ok -> EINVAL": [0, 2],
        "mmap: ret": [1],
    }
    assert (report.programs, report.lost) == (3, 1)


def test_numbers_in_messages_do_not_part_groups():
    broken = [case(n, "dump", {}, {"broken": f"InvariantBroken: {n} pages"}) for n in (1, 22)]
    assert key_of(broken[0]) == key_of(broken[1])


def test_words():
    assert words_of("@c1 v1=mmap B 1p") == ("c1", ["mmap", "B", "1p"])
    assert words_of("munmap B 1p") == ("main", ["munmap", "B", "1p"])


def test_the_twin_answers_and_is_covered():
    coverage = Coverage()
    before, done = marker(coverage)
    lines = ["mmap B 4p rw private|anon|fixed", "mprotect B+1p 1p r", "munmap B+8p 1p", "munmap B 0"]
    answers = list(done(Twin("host").run(lines, before)))
    assert [answer["ret"] for answer in answers] == ["B+0x0", 0, 0, -22]
    assert coverage.cells == {
        ("mmap fixed", "ok", "hole"): 1,
        ("mprotect", "ok", "middle"): 1,
        ("munmap", "ok", "hole"): 1,
        ("munmap", "EINVAL", "zero"): 1,
    }


def test_room_for_areas():
    lines = ["mmap B 9p rw private|anon|fixed", "map_room 2", "mprotect B+4p 1p r", "mprotect B+7p 1p r"]
    assert [answer["ret"] for answer in Twin("host").run(lines)] == ["B+0x0", 0, 0, -12]


def test_a_bug_of_the_twin_ends_the_program():
    def raise_it(script, proc, words):
        raise RuntimeError("out of order")

    assert list(Twin("host").run(["munmap B 1p", "munmap B 1p"], raise_it)) == [
        {"broken": "RuntimeError: out of order"}
    ]
