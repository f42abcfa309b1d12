# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines, expressions and flags of the script language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtwin.script.grammar import (
    MASK,
    SYMBOLS,
    BadLine,
    Line,
    expression,
    flags,
    parse_line,
    signed,
    split,
    strip_comment,
)
from memtwin.script.names import FLAGS

VARIABLES = {"$a": 0x5000, "AS0": 8192 << 10, "DATA0": 0}


def value(text: str) -> int:
    return expression(text, VARIABLES.__getitem__)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("17", 17),
        ("0x10", 16),
        ("010", 8),
        ("3p", 3 * 4096),
        ("2k", 2048),
        ("0x2m", 2 << 20),
        ("1g", 1 << 30),
        ("0-1", MASK),
        ("-1", MASK),
        ("inf", MASK),
        ("B", 0x1000000000),
        ("K+2p", 0x800002000),
        ("T-4p", 0x7FFFF7FFB000),
        ("B+26p+0x800", 0x1000000000 + 26 * 4096 + 0x800),
        ("$a-0x5000+1", 1),
        ("AS0+1p", (8192 << 10) + 4096),
        ("DATA0", 0),
        ("99999999999999999999", MASK),
        ("0xffffffffffffffffg", MASK << 30 & MASK),
    ],
)
def test_expression(text: str, number: int) -> None:
    assert value(text) == number


@pytest.mark.parametrize("text", ["", "+", "1+", "--1", "1x", "0x", "08", "p", "b", "B+q", "1pp", "1 ", "0b1", "1_000"])
def test_expression_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        value(text)


@pytest.mark.parametrize("text", ["$b", "$", "B+$b"])
def test_unknown_variable(text: str) -> None:
    with pytest.raises(KeyError):
        value(text)


@given(st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, MASK)), min_size=1, max_size=5))
def test_arithmetic_is_modulo_2_to_the_64(terms: list[tuple[str, int]]) -> None:
    text = "".join(f"{sign}{number:#x}" for sign, number in terms)
    assert value(text) == sum(number if sign == "+" else -number for sign, number in terms) % (MASK + 1)


@pytest.mark.parametrize(
    ("table", "text", "number"),
    [
        ("prot", "none", 0),
        ("prot", "rw|sem", 11),
        ("mmap", "private|anon|fixed", 0x32),
        ("mmap", "shared|hugetlb|huge_2mb", 0x40001 | 21 << 26),
        ("mmap", "anon|0x8000", 0x8020),
        ("mmap", "|anon||", 0x20),
        ("advice", "0-1", MASK),
        ("policy", "bind|static_nodes", 0x8002),
    ],
)
def test_flags(table: str, text: str, number: int) -> None:
    assert flags(text, FLAGS[table], VARIABLES.__getitem__) == number


def test_flags_of_another_table_are_unknown() -> None:
    with pytest.raises(ValueError):
        flags("rw", FLAGS["mmap"], VARIABLES.__getitem__)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("munlockall", ("main", None, "munlockall", ())),
        ("\tbrk  K\r", ("main", None, "brk", ("K",))),
        ("@c v=mmap 0 1p", ("c", "v", "mmap", ("0", "1p"))),
        ("v= mmap 0", ("main", "v", "mmap", ("0",))),
        ("@* dump maps", ("*", None, "dump", ("maps",))),
        ("x=y=mmap", ("main", "x", "y=mmap", ())),
    ],
)
def test_parse_line(text: str, line: tuple[object, ...]) -> None:
    assert parse_line(text) == Line(text, *line)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@main", "no operation"),
        ("v=", "bad assignment"),
        ("=mmap 0", "bad assignment"),
        ("a23456789012345678901=mmap 0", "bad assignment"),
    ],
)
def test_bad_line(text: str, why: str) -> None:
    with pytest.raises(BadLine, match=why):
        parse_line(text)


def test_nothing_in_a_line() -> None:
    assert split(strip_comment("  \t# mmap 0 1p")) == []
    assert strip_comment("brk K#+1p # x") == "brk K"


def test_signed() -> None:
    assert (signed(MASK), signed(1 << 63), signed(5)) == (-1, -(1 << 63), 5)
    assert (signed(0xFFFFFFFF, 32), signed(0x7FFFFFFF, 32), signed(1 << 32, 32)) == (-1, 0x7FFFFFFF, 0)


def test_symbols_are_the_process_model() -> None:
    assert SYMBOLS == {"B": 0x1000000000, "K": 0x800000000, "T": 0x7FFFF7FFF000, "inf": MASK}
