# SPDX-License-Identifier: GPL-2.0-or-later
"""The generator: the same programs again, in the language, aimed at something."""

import random

import pytest

from memtwin.errors import BadInput, NotModelled
from memtwin.script.operations import OPERATIONS
from memtwin.verify.generate import Author, program
from memtwin.verify.layout import Area, Layout
from memtwin.verify.profiles import LATER, NAMES, profile
from memtwin.verify.twin import words_of


@pytest.mark.parametrize("name", NAMES)
def test_the_same_numbers_give_the_same_program(name):
    first = [program(profile(name), 7, number) for number in range(30)]
    assert first == [program(profile(name), 7, number) for number in range(30)]
    assert first != [program(profile(name), 8, number) for number in range(30)]
    assert len({tuple(lines) for lines in first}) == 30


@pytest.mark.parametrize("name", NAMES)
def test_programs_are_in_the_language_and_end_with_a_dump(name):
    for number in range(200):
        lines = program(profile(name), 1, number)
        assert "dump" in words_of(lines[-1])[1]
        for line in lines:
            op = words_of(line)[1][0]
            assert op in OPERATIONS or op == "map_room", line


def test_programs_of_a_profile_reach_its_subject():
    text = "\n".join("\n".join(program(profile("vma"), 0, number)) for number in range(600))
    for wanted in ("map_room", "setrlimit as", "fork", "mbind", "uffd_register", "brk", " 0-1p", "growsdown", "+0x800"):
        assert wanted in text


def test_most_operations_hit_something():
    author = Author(random.Random(1))
    author.layout.map(Area(10, 20))
    targets = [author.target() for _ in range(400)]
    hits = [at for at in targets if at.sane and at.start < 20 and at.end > 10]
    assert len(hits) > 300
    assert {(at.start == 10, at.end == 20) for at in hits} == {
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    }
    assert any(at.length == "0" for at in targets)


def test_the_picture_follows():
    layout = Layout()
    layout.map(Area(0, 10))
    layout.change(4, 6, prot="r")
    assert [(a.start, a.end, a.prot) for a in layout.areas] == [(0, 4, "rw"), (4, 6, "r"), (6, 10, "rw")]
    layout.unmap(3, 5)
    layout.move(5, 1, 2, 20)
    assert [(a.start, a.end, a.prot) for a in layout.areas] == [(0, 3, "rw"), (6, 10, "rw"), (20, 22, "r")]
    assert layout.free(3, 6)
    other = layout.copy()
    other.unmap(0, 30)
    assert layout.areas and not other.areas


def test_profiles_that_are_not_there():
    with pytest.raises(NotModelled):
        profile(LATER[0])
    with pytest.raises(BadInput, match="no such profile: nonsense"):
        profile("nonsense")
