# SPDX-License-Identifier: GPL-2.0-or-later
"""Knobs that the written sources call "not observed", probed on the running kernel: the evidence for their
`6.7-6.18`."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct

import pytest

from memtwin.changes.catalogue import KNOB_BY_ID, parse_release

MAP_DROPPABLE = 0x08
PROCMAP_QUERY = 0xC0686611  # _IOWR('f', 17, 104 bytes)


def _old_enough() -> bool:
    """The bracket speaks of 6.18 and, presumably, all later ones."""
    return os.uname().sysname == "Linux" and parse_release(os.uname().release) >= (6, 18, 0)


pytestmark = pytest.mark.skipif(not _old_enough(), reason="the probe says something about 6.18 and later only")


@pytest.mark.parametrize("knob", ["post-droppable", "post-procmap-query", "post-vvar-vclock"])
def test_the_bracket_ends_where_it_was_seen(knob: str) -> None:
    assert KNOB_BY_ID[knob].since[-1].release == "6.7-6.18"


def test_map_droppable() -> None:
    with mmap.mmap(-1, 4096, flags=mmap.MAP_ANONYMOUS | MAP_DROPPABLE) as area:
        assert len(area) == 4096


def test_procmap_query() -> None:
    word = ctypes.c_long()  # its address is surely mapped
    here = ctypes.addressof(word)
    query = bytearray(struct.pack("<13Q", 104, 0, here, *[0] * 10))
    with open("/proc/self/maps", "rb") as maps:
        fcntl.ioctl(maps, PROCMAP_QUERY, query)
    start, end = struct.unpack_from("<2Q", query, 24)
    assert start <= here < end


def test_vvar_vclock() -> None:
    with open("/proc/self/maps") as maps:
        assert "[vvar_vclock]" in maps.read()
