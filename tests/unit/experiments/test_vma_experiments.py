# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiments of the VMA layer fail when what they show is broken; a registry test runs each of them unbroken."""

from __future__ import annotations

import pytest

from memtwin.errors import InvariantBroken
from memtwin.experiments import ExperimentResult, find, fork_maple_gfp, mprotect_unaccount, vma_modify
from memtwin.mm import vma as vma_module
from memtwin.mm.before.vma_modify import InlinedVmaModify
from memtwin.mm.vma_modify import VmaModify


def failing(change_id: str) -> list[str]:
    """Texts of the claims that do not hold."""
    return [claim.text for claim in find(change_id).run(change_id).claims if not claim.holds]


def values(result: ExperimentResult) -> dict[str, tuple[str, str]]:
    return {row.name: (row.before, row.after) for row in result.rows}


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch):
    """Break the switchboard: the change is reported as ``value`` on both sides."""

    def force(change_id: str, value: bool) -> None:
        from memtwin.changes import Features

        has = Features.has
        monkeypatch.setattr(Features, "has", lambda self, id_: value if id_ == change_id else has(self, id_))

    return force


# -- mprotect-unaccount-unfaulted


def test_the_whole_table() -> None:
    seen = values(find("mprotect-unaccount-unfaulted").run("mprotect-unaccount-unfaulted"))
    table = mprotect_unaccount.TABLE
    assert {name: seen[name] for name in table} == table
    assert set(seen) == set(table)


@pytest.mark.parametrize("value", [False, True])
def test_unaccount_needs_the_switch(features, value: bool) -> None:
    features("mprotect-unaccount-unfaulted", value)
    texts = failing("mprotect-unaccount-unfaulted")
    assert len(texts) == 3
    assert any("loses its charge" in text for text in texts)
    assert any("overcommit mode 2" in text for text in texts)


@pytest.mark.interpreted
def test_unaccount_of_touched_memory_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that gives charges back whatever was touched."""
    from memtwin.mm import mprotect

    fixup = mprotect._fixup

    def careless(mm, prev, vma, start, end, flags):
        if flags & 2 or not vma.flags & mprotect.VM_ACCOUNT:
            return fixup(mm, prev, vma, start, end, flags)
        changed = fixup(mm, prev, vma, start, end, flags)
        if changed.flags & mprotect.VM_ACCOUNT and (changed.start, changed.end) == (start, end):
            changed.set_flags(changed.flags & ~mprotect.VM_ACCOUNT)
            mm.ctx.committed -= changed.pages
        return changed

    monkeypatch.setattr(mprotect, "_fixup", careless)
    texts = failing("mprotect-unaccount-unfaulted")
    assert any("one page ever written" in text for text in texts)
    assert any("private mapping of a file" in text for text in texts)


# -- vma-modify


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vma_modify, "SEQUENCES", 1000)


@pytest.mark.parametrize("site", ["mprotect", "mlock", "madvise", "mbind", "uffd_register", "uffd_unregister"])
def test_a_site_that_splits_the_wrong_end_first(monkeypatch: pytest.MonkeyPatch, short: None, site: str) -> None:
    """The order of the two splits shows when the limit allows only one."""
    inlined = getattr(InlinedVmaModify, site)

    def reversed_order(self, mm, prev, vma, start, end, *rest):
        if vma.start < start and end < vma.end:
            vma_module.split_vma(mm, vma, end, new_below=False)
        return inlined(self, mm, prev, vma, start, end, *rest)

    monkeypatch.setattr(InlinedVmaModify, site, reversed_order)
    assert any("leave the same areas" in text for text in failing("vma-modify"))


@pytest.mark.parametrize("shape", [VmaModify, InlinedVmaModify])
def test_a_close_that_forgets_to_merge(monkeypatch: pytest.MonkeyPatch, short: None, shape: type) -> None:
    monkeypatch.setattr(shape, "uffd_release", lambda self, mm, prev, vma, flags: vma)
    texts = failing("vma-modify")
    assert len(texts) == 2
    assert "leave the same areas" in texts[0]
    assert "every caller" in texts[1]


def test_the_common_routine_that_undoes_a_split(monkeypatch: pytest.MonkeyPatch, short: None) -> None:
    """Undoing the first split when the second fails is not what Linux does."""
    modify = VmaModify.mprotect

    def tidy(self, mm, prev, vma, start, end, flags):
        splits = (vma.start < start) + (vma.end > end)
        if mm.map_count + splits > mm.ctx.sysctl.max_map_count:
            raise OSError(12, "no room for all splits")
        return modify(self, mm, prev, vma, start, end, flags)

    monkeypatch.setattr(VmaModify, "mprotect", tidy)
    assert any("fails at its second split" in text for text in failing("vma-modify"))


def test_both_sides_need_their_own_shape(features, short: None) -> None:
    features("vma-modify", True)
    assert any("inlined and common" in text for text in failing("vma-modify"))


# -- vma-merge-wrappers and vma-decls-in-mm-types


def test_a_wrapper_that_forgets_the_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    def short_sighted(mm, vma, delta):
        mm.mm_mt.store_prealloc(vma.start, vma.end + delta - 1, vma)
        vma.end += delta
        return vma

    from memtwin.experiments import vma_structure
    from memtwin.mm import mremap

    monkeypatch.setattr(mremap, "vma_merge_extend", short_sighted)
    monkeypatch.setattr(vma_structure, "vma_merge_extend", short_sighted)
    texts = failing("vma-merge-wrappers")
    assert any("case 1" in text for text in texts)
    assert any("spelled-out" in text for text in texts)


def test_names_without_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    from memtwin.process import Process

    monkeypatch.setattr(Process, "prctl_set_vma_anon_name", lambda self, addr, length, name: None)
    assert len(failing("vma-decls-in-mm-types")) == 2


# -- vma-merge-dup-anon-comment


@pytest.mark.interpreted
def test_a_merge_that_hides_a_failed_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the first call overwritten by the success of the second: pages nobody can find again."""
    dup = vma_module._dup_anon_vma

    def hidden(mm, dst, src):
        done = dup(mm, dst, src)
        return done or src.anon_vma is not None

    monkeypatch.setattr(vma_module, "_dup_anon_vma", hidden)
    with pytest.raises(InvariantBroken, match="pages of anon_vmas"):
        find("vma-merge-dup-anon-comment").run("vma-merge-dup-anon-comment")


@pytest.mark.interpreted
def test_a_merge_that_clones_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    clone = vma_module.anon_vma_clone

    def again(mm, dst, src):
        if src is None or src.anon_vma is None:
            return True
        if dst.anon_vma is None:
            dst.anon_vma = src.anon_vma
            return clone(mm.ctx, dst, src)
        spare = mm.ctx.avc_cache.alloc(0xCC0)
        mm.ctx.avc_cache.free(spare)
        return True

    monkeypatch.setattr(vma_module, "_dup_anon_vma", again)
    assert any("never follows" in text for text in failing("vma-merge-dup-anon-comment"))


# -- fork-maple-gfp-kernel


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_maple_gfp, "AREAS", 4_000)


def test_fork_before_never_reclaims(features, small: None) -> None:
    features("fork-maple-gfp-kernel", False)
    texts = failing("fork-maple-gfp-kernel")
    assert [text.split(",")[0] for text in texts] == [
        "with it fork reclaims from the shrinker and succeeds",
        "with nothing to reclaim somebody is killed",
    ]


def test_fork_that_always_reclaims(features, small: None) -> None:
    features("fork-maple-gfp-kernel", True)
    assert [text.split(",")[0] for text in failing("fork-maple-gfp-kernel")] == [
        "without the change fork fails with ENOMEM"
    ]


def test_an_estimate_that_is_off(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    from memtwin.lib.maple_tree import MaState

    expected = MaState.expected_entries
    monkeypatch.setattr(MaState, "expected_entries", lambda self, n, gfp=0xCC0: expected(self, n + 7, gfp))
    assert any("estimate" in text for text in failing("fork-maple-gfp-kernel"))
