# SPDX-License-Identifier: GPL-2.0-or-later
"""Planted faults: each can be planted, breaks something, and is gone afterwards."""

import pytest

from memtwin import Machine
from memtwin.errors import BadInput
from memtwin.verify.mutations import MUTATIONS, Mutation, lookup, planted
from memtwin.verify.profiles import NAMES


@pytest.mark.interpreted
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_no_mutation_is_stale(mutation):
    assert mutation.code().co_code != mutation.function().__code__.co_code or (
        mutation.code().co_consts != mutation.function().__code__.co_consts
        or mutation.code().co_names != mutation.function().__code__.co_names
    )
    assert set(mutation.profiles) <= set(NAMES)


def test_there_are_enough_and_names_are_unique():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 20


@pytest.mark.interpreted
def test_a_planted_fault_shows_and_goes():
    def areas():
        with Machine("64M", kernel="host") as machine:
            p = machine.spawn()
            at = p.mmap(0, 12 * 4096)
            before = len(p.vmas())
            p.mprotect(at + 4096, 4096, 1)
            p.mprotect(at + 4096, 4096, 3)
            return len(p.vmas()) - before

    assert areas() == 0
    with planted(lookup("no-merge-next")[0]):
        assert areas() > 0
    assert areas() == 0


@pytest.mark.interpreted
def test_stale_and_unknown_ones():
    with pytest.raises(BadInput, match="stale"):
        Mutation("x", "", "mm.vma:vma_merge", "this is not there", "").code()
    with pytest.raises(BadInput, match="stale"):
        Mutation("x", "", "mm.vma:nothing", "a", "b").code()
    with pytest.raises(BadInput, match="no such mutation"):
        lookup("x")
