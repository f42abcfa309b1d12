# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment about huge_fault handlers shows the table, and fails when the feature is broken."""

import pytest

from memtwin.experiments import find, thp_eligibility
from memtwin.mm import memory

ID = "thp-huge-fault-eligibility"


def test_the_table():
    result = find(ID).run(ID)
    assert {row.name: (row.before, row.after) for row in result.rows} == thp_eligibility.TABLE
    assert result.holds


@pytest.mark.interpreted
def test_it_fails_if_no_handler_is_asked(monkeypatch):
    monkeypatch.setattr(memory, "do_huge_fault", lambda vmf: 0x800)
    assert not find(ID).run(ID).holds


@pytest.mark.interpreted
def test_it_fails_if_the_check_does_not_change(monkeypatch):
    check = thp_eligibility.hugepage_vma_check
    monkeypatch.setattr(memory, "hugepage_vma_check", lambda vma, **how: not vma.vm_ops and check(vma, **how))
    assert not find(ID).run(ID).holds
