# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments ``test-maple-rwsem`` and ``radix-test-bulk-size``: the maple tree's own tests (lib/test_maple_tree.c,
tools/testing/radix-tree).

The tests that copy a tree as fork does ask for the copy's nodes in advance. Since fork-maple-gfp-kernel that may
sleep, so the lock they hold must be one that may be held over sleep.
"""

from __future__ import annotations

from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.lib.gfp_types import GFP_KERNEL, GFP_NOWAIT
from memtwin.lib.testing.maple_forking import run_bench_forking, run_check_dup_gaps, run_check_forking
from memtwin.lib.testing.slab_shim import bulk_request_bytes

__all__ = ["run"]

#: Node size, and the largest number of nodes one bulk request asks for.
_NODE = 256
_BULK = 30


def run(change_id: str, /) -> ExperimentResult:
    """What the tests' lock checker and slab shim see, before and after."""
    return _rwsem(change_id) if change_id == "test-maple-rwsem" else _bulk_size(change_id)


def _rwsem(change_id: str) -> ExperimentResult:
    rows: list[Observation] = []
    claims: list[Claim] = []
    for test in (run_check_forking, run_check_dup_gaps, run_bench_forking):
        name = test.__name__.removeprefix("run_")
        before, after = test("spinlock", GFP_KERNEL), test("rwsem", GFP_KERNEL)
        old_fork = test("spinlock", GFP_NOWAIT)
        rows += [
            Observation(f"{name}: lock of the new tree", "tree spinlock", "external rwsem"),
            Observation(
                f"{name}: sleeping allocations under a spinlock",
                str(len(before["violations"])),
                str(len(after["violations"])),
            ),
            Observation(f"{name}: nodes asked for", str(before["nodes_asked"]), str(after["nodes_asked"])),
        ]
        claims += [
            Claim(
                f"{name}: with the sleeping preallocation and the old lock the checker fires",
                bool(before["violations"]),
            ),
            Claim(f"{name}: with the rwsem it does not", not after["violations"]),
            Claim(f"{name}: with the old preallocation the old lock was right", not old_fork["violations"]),
        ]
    return ExperimentResult(change_id, rows, claims)


def _bulk_size(change_id: str) -> ExperimentResult:
    before, after = (bulk_request_bytes(_NODE, _BULK, fixed) for fixed in (False, True))
    rows = [Observation(f"bytes asked of malloc for {_BULK} nodes of {_NODE} bytes", str(before), str(after))]
    claims = [
        Claim("each slot got the size of the whole bulk", before == _NODE * _BULK * _BULK),
        Claim("each slot gets the size of one object", after == _NODE * _BULK),
    ]
    return ExperimentResult(change_id, rows, claims)
