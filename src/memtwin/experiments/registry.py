# SPDX-License-Identifier: GPL-2.0-or-later
"""Which module of this package has the experiment of a change.

One module a patch series. To add one: write ``memtwin/experiments/NAME.py`` with ``run(change_id) -> ExperimentResult``
and add a row for each of its ids. A module is imported only when its experiment runs. The rows are also what the
coverage page calls modelled.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from memtwin.changes import lookup
from memtwin.errors import NotModelled
from memtwin.experiments.base import Experiment

__all__ = ["MODULES", "find"]

MODULES: dict[str, str] = {
    "selftest-mremap-mman-header": "mremap_header",
    "mailmap-oleksij-rempel": "mailmap",
    "mailmap-bartosz-golaszewski": "mailmap",
    "test-maple-rwsem": "maple_tests",
    "radix-test-bulk-size": "maple_tests",
    "buddy-break-down-cleanup": "buddy_break_down",
    "vma-decls-in-mm-types": "vma_structure",
    "vma-modify": "vma_modify",
    "vma-merge-wrappers": "vma_structure",
    "mprotect-unaccount-unfaulted": "mprotect_unaccount",
    "thp-huge-fault-eligibility": "thp_eligibility",
    "vma-merge-dup-anon-comment": "vma_merge_case6",
    "fork-maple-gfp-kernel": "fork_maple_gfp",
    "rmap-exclusive-out-of-move": "wp_reuse",
    "wp-can-reuse-anon-folio": "wp_reuse",
    "access-remote-vm-static": "gup",
    "gup-internal-flags": "gup",
    "gup-zero-pin-is-error": "gup",
    "gup-vma-remote-never-null": "gup",
    "fault-lock-release": "vma_lock",
    "vmf-anon-prepare": "vma_lock",
    "vma-lock-shared-faults": "vma_lock",
    "vma-lock-cow-faults": "vma_lock",
    "vma-lock-read-faults": "vma_lock",
    "vma-lock-ro-write-faults": "vma_lock",
}
"""Change id -> module name below ``memtwin.experiments``."""


def find(change_id: str) -> Experiment:
    """The experiment of a change. Raises BadInput for an unknown id, NotModelled where there is none yet."""
    lookup(change_id)
    if change_id not in MODULES:
        raise NotModelled(f"{change_id}: not modelled yet")
    return cast(Experiment, import_module(f"memtwin.experiments.{MODULES[change_id]}"))
