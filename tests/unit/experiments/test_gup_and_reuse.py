# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiments of get_user_pages and of write reuse fail when what they show is broken."""

from __future__ import annotations

import pytest

from memtwin.changes import Features
from memtwin.experiments import find
from memtwin.mm import get_user_pages, wp
from memtwin.mm.page import PG_ANON_EXCLUSIVE


def failing(change_id: str) -> list[str]:
    return [claim.text for claim in find(change_id).run(change_id).claims if not claim.holds]


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize(
    "change_id",
    ["gup-internal-flags", "gup-zero-pin-is-error", "gup-vma-remote-never-null", "rmap-exclusive-out-of-move"],
)
def test_both_sides_alike_is_noticed(change_id: str, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    has = Features.has
    monkeypatch.setattr(Features, "has", lambda self, id_: value if id_ == change_id else has(self, id_))
    assert failing(change_id)


@pytest.mark.interpreted
def test_a_debugger_that_may_write_what_is_shared_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_user_pages, "check_vma_flags", lambda vma, flags: 0)
    assert "what a debugger sees is what 6.18 shows" in failing("access-remote-vm-static")


@pytest.mark.interpreted
def test_a_fault_that_copies_exclusive_pages_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(ctx, vma, page):
        return ctx.pages.refcount[page] == 1 and wp.wp_can_reuse_anon_folio(ctx, vma, page)

    monkeypatch.setattr("memtwin.kernel.kernel.may_reuse", alone)
    assert "each write is answered as on 6.18" in failing("wp-can-reuse-anon-folio")


@pytest.mark.interpreted
def test_a_reuse_that_forgets_to_mark_the_page_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(ctx, vma, page):
        return bool(ctx.pages.flags[page] & PG_ANON_EXCLUSIVE) or wp.wp_can_reuse_anon_folio(ctx, vma, page)

    monkeypatch.setattr("memtwin.kernel.kernel.may_reuse", forgetful)
    assert failing("rmap-exclusive-out-of-move")
    assert failing("wp-can-reuse-anon-folio")
