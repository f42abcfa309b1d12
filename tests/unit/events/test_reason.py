# SPDX-License-Identifier: GPL-2.0-or-later
"""Reasons print as what they mean, with and without detail."""

from __future__ import annotations

import json
from enum import auto

from memtwin.events import Because, Reason


class NoMerge(Reason):
    """An example."""

    FLAGS_DIFFER = auto()
    ANON_VMA_INCOMPATIBLE = auto()
    OTHER = "something else"


def test_a_member_is_its_name():
    assert str(NoMerge.FLAGS_DIFFER) == "FLAGS_DIFFER"
    assert str(NoMerge.OTHER) == "something else"
    assert json.dumps(NoMerge.FLAGS_DIFFER) == '"FLAGS_DIFFER"'
    assert NoMerge.FLAGS_DIFFER.reason is NoMerge.FLAGS_DIFFER
    assert NoMerge.FLAGS_DIFFER.detail == ()


def test_detail():
    because = NoMerge.FLAGS_DIFFER("VM_ACCOUNT", 0x10)
    assert str(because) == "FLAGS_DIFFER(VM_ACCOUNT, 16)"
    assert because.reason is NoMerge.FLAGS_DIFFER
    assert because.detail == ("VM_ACCOUNT", "16")
    assert because == Because(NoMerge.FLAGS_DIFFER, ("VM_ACCOUNT", "16"))
    assert because != NoMerge.FLAGS_DIFFER("VM_LOCKED", 0x10)
    assert str(NoMerge.ANON_VMA_INCOMPATIBLE()) == "ANON_VMA_INCOMPATIBLE"
