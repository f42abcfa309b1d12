# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a write fault may reuse an anonymous page, as it was before ``wp-can-reuse-anon-folio``: every question
inline in the fault, with one way out to the copy and one to the reuse. Same answers as
:func:`memtwin.mm.wp.may_reuse`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.mm.huge_split import wp_can_reuse_huge
from memtwin.mm.page import PG_ANON_EXCLUSIVE
from memtwin.mm.rmap import folio_move_anon_rmap

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext
    from memtwin.mm.mm_types import VmArea

__all__ = ["may_reuse_inline"]


def may_reuse_inline(ctx: MmContext, vma: VmArea, page: int) -> bool:
    """Whether a write to the anonymous ``page`` need not copy it; the page is exclusive then. Needs
    ``page_table_lock``.
    """
    pages = ctx.pages
    folio = pages.head(page)
    if not pages.flags[page] & PG_ANON_EXCLUSIVE:
        if pages.comp_order[page] and ctx.thp_mm_exclusive:
            if not wp_can_reuse_huge(vma, page):
                return False
            pages.flags[page] |= PG_ANON_EXCLUSIVE
            return True
        if pages.refcount[folio] > 1:
            return False
        if not ctx.folio_locks.trylock(folio):
            return False
        if pages.refcount[folio] != 1:
            ctx.folio_locks.unlock(folio)
            return False
        folio_move_anon_rmap(ctx, vma, folio, page)
        ctx.folio_locks.unlock(folio)
        if ctx.exclusive_out_of_move:
            pages.flags[page] |= PG_ANON_EXCLUSIVE
    return True
