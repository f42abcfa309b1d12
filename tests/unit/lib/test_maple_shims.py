# SPDX-License-Identifier: GPL-2.0-or-later
"""The userspace shims of the tree tests: radix-test-bulk-size and test-maple-rwsem, before and after."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from memtwin.errors import InvariantBroken
from memtwin.lib.gfp_types import GFP_KERNEL, GFP_NOWAIT, NOWARN
from memtwin.lib.testing.locks import LockChecker, RwsemShim, SpinLockShim
from memtwin.lib.testing.maple_forking import run_bench_forking, run_check_dup_gaps, run_check_forking
from memtwin.lib.testing.slab_shim import SlabShim, bulk_request_bytes


def test_bulk_allocation_asked_for_n_times_too_much() -> None:
    assert bulk_request_bytes(256, 30, fixed=False) == 30 * 7_680 == 230_400
    assert bulk_request_bytes(256, 30, fixed=True) == 7_680
    assert bulk_request_bytes(576, 1, fixed=False) == bulk_request_bytes(576, 1, fixed=True) == 576


def test_kept_objects_serve_a_bulk_only_together() -> None:
    shim = SlabShim(256, keep=10)
    shim.free_bulk(shim.alloc_bulk(GFP_KERNEL, 10))
    assert shim.cached == 10 and shim.requested_bytes == 2_560
    shim.alloc_bulk(GFP_KERNEL, 11)
    assert shim.cached == 10 and shim.requested_bytes == 2_560 + 2_816
    shim.alloc_bulk(GFP_KERNEL, 10)
    assert shim.cached == 0 and shim.requested_bytes == 2_560 + 2_816


def test_non_kernel_budget() -> None:
    shim = SlabShim(256, non_kernel=5)
    assert shim.alloc(GFP_NOWAIT)
    assert shim.alloc_bulk(GFP_NOWAIT, 5) == []  # does not fit
    assert len(shim.alloc_bulk(GFP_NOWAIT, 4)) == 4
    assert shim.alloc(GFP_NOWAIT) == 0
    assert shim.alloc(GFP_KERNEL) and shim.allocated == 6


def test_addresses_are_aligned_and_never_shared() -> None:
    shim = SlabShim(576, align=64)
    addrs = [shim.alloc(GFP_KERNEL), *shim.alloc_bulk(GFP_KERNEL, 20)]
    assert all(addr and addr % 64 == 0 for addr in addrs)
    ordered = sorted(addrs)
    assert all(b - a >= 576 for a, b in pairwise(ordered))


def test_leaks_and_double_frees_are_found() -> None:
    shim = SlabShim(256)
    addr = shim.alloc(GFP_KERNEL)
    with pytest.raises(InvariantBroken, match="1 objects leaked"):
        shim.check_leaks()
    shim.free(addr)
    shim.check_leaks()
    with pytest.raises(InvariantBroken, match="not allocated"):
        shim.free(addr)


@pytest.mark.parametrize("run", [run_check_forking, run_check_dup_gaps, run_bench_forking])
def test_the_checker_fires_only_under_the_spinlock_with_gfp_kernel(run: Callable[..., dict[str, Any]]) -> None:
    fires = {
        (locking, gfp == GFP_KERNEL): bool(run(locking, gfp)["violations"])
        for locking in ("spinlock", "rwsem")
        for gfp in (GFP_KERNEL, GFP_NOWAIT | NOWARN)
    }
    assert fires == {
        ("spinlock", True): True,
        ("spinlock", False): False,
        ("rwsem", True): False,
        ("rwsem", False): False,
    }


def test_forking_copies_the_tree() -> None:
    answer = run_check_forking("rwsem", GFP_KERNEL)
    assert answer["equal"] and answer["nodes_asked"] == 26 and answer["nodes_used"] < 26
    for zero_start in (False, True):
        gaps = run_check_dup_gaps("rwsem", GFP_KERNEL, 100, zero_start)
        assert gaps["equal"] and gaps["gaps_found"] == gaps["gaps"] == 100


def test_lock_shims() -> None:
    rwsem = RwsemShim()
    rwsem.down_read()
    rwsem.assert_held()
    with pytest.raises(InvariantBroken, match="waits"):
        rwsem.down_write()
    with pytest.raises(InvariantBroken, match="destroyed"):
        rwsem.exit()
    rwsem.up_read()
    with pytest.raises(InvariantBroken, match="without"):
        rwsem.up_read()
    with pytest.raises(InvariantBroken, match="not held"):
        rwsem.assert_held()
    rwsem.down_write()
    with pytest.raises(InvariantBroken, match="waits"):
        rwsem.down_read()
    rwsem.up_write()
    with pytest.raises(InvariantBroken, match="without"):
        rwsem.up_write()
    rwsem.exit()
    checker = LockChecker()
    spinlock = SpinLockShim(checker)
    spinlock.lock()
    with pytest.raises(InvariantBroken, match="twice"):
        spinlock.lock()
    checker.might_sleep(GFP_NOWAIT)
    assert checker.violations == []
    checker.might_sleep(GFP_KERNEL)
    assert checker.violations == ["sleeping allocation (GFP_KERNEL) with ma_lock held"]
    spinlock.unlock()
    with pytest.raises(InvariantBroken, match="not held"):
        spinlock.unlock()
    assert spinlock.taken == 1 and checker.spinlocks == []
