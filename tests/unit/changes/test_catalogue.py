# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue is complete and consistent. The list of ids is written out here on purpose: it is the contract."""

from __future__ import annotations

import re

import pytest

from memtwin.changes.catalogue import CHANGE_BY_ID, CHANGES, KNOB_BY_ID, KNOBS, parse_release
from memtwin.errors import BadInput

_IDS = """
vma-decls-in-mm-types vma-modify vma-merge-wrappers mprotect-unaccount-unfaulted vma-merge-dup-anon-comment
wait-bookmark-removal thp-huge-fault-eligibility ifs-state-lock-hoist folio-end-read xor-unlock-negative-byte
xor-unlock-m68k xor-unlock-ppc32 folio-xor-flags-has-waiters end-writeback-check-first end-writeback-xor-waiters
filemap-get-folios-tag access-remote-vm-static gup-internal-flags gup-zero-pin-is-error gup-vma-remote-never-null
rmap-exclusive-out-of-move wp-can-reuse-anon-folio fault-lock-release vmf-anon-prepare vma-lock-shared-faults
vma-lock-cow-faults vma-lock-read-faults vma-lock-ro-write-faults filemap-fault-notuptodate fork-maple-gfp-kernel
test-maple-rwsem radix-test-bulk-size

memcg-charge-helpers memcg-migrate-transfer hugetlb-memcg-accounting hugetlb-cgroup-min-order buddy-break-down-cleanup
percpu-limited-add percpu-limited-add-negative shmem-inode-info-union shmem-falloc-wait shmem-tidyups
shmem-acct-blocks-naming shmem-charge-out-of-add shmem-add-before-acct memcg-stat-units memcg-rstat-normalize
memcg-threshold-counted-by hugetlb-dissolve-check hugetlb-resv-map-clear hugetlb-private-vma-lock hugetlb-zap-lock
selftest-get-free-hugepages selftest-hugetlb-fault-after-madv zswap-shrink-refcount

ksm-smart-scan ksm-pages-skipped uffd-wp-async pagemap-scan pagemap-scan-fastpath damon-terminate-unlock
memtier-adistance-notifier hmat-initiators-refactor hmat-adistance kmem-memory-types kasan-original-fault-addr
kasan-hook-not-hw-tags selftest-clone3-time-ns selftest-mremap-mman-header mailmap-oleksij-rempel
mailmap-bartosz-golaszewski
"""
EXPECTED = _IDS.split()

_KNOBS = """
post-anon-prepare-vma-lock post-dev-zero-thp-align post-droppable post-fork-mt-dup
post-guard-flag post-hugetlb-restore-reserve post-hugetlb-vma-lock post-madv-guard post-majflt-tried
post-map-stack-nohugepage
post-merge-close-fix post-merge-faulted-unfaulted post-mmap-fixed-fail-keeps post-mmap-fixed-fail-splits
post-mmap-merge-prev-first post-mmap-merge-unfaulted-prev post-mmap-thp-align post-move-pages-enoent
post-mremap-checks-first post-mremap-dontunmap-locked post-mremap-fail-clean post-mremap-multi-vma post-mseal
post-overcommit-log-bytes post-pageout-keeps-young post-populate-stop-at-hole post-process-madvise-self
post-procmap-query post-pt-reclaim post-rss-exact post-scan-guard post-scan-none-written post-scan-soft-dirty
post-softdirty-sticky post-thp-advice-batch post-thp-align-topdown post-thp-collapse-readonly
post-thp-deferred-partial post-thp-mm-exclusive post-thp-split-zeropage post-thp-zero-write-alloc
post-uffd-move post-uffd-unregister-own post-vvar-vclock
"""
EXPECTED_KNOBS = _KNOBS.split()


def test_all_71_changes_in_order() -> None:
    assert len(EXPECTED) == 71
    assert [change.id for change in CHANGES] == EXPECTED


def test_all_knobs() -> None:
    assert sorted(knob.id for knob in KNOBS) == EXPECTED_KNOBS


def test_ids_are_unique_over_changes_and_knobs() -> None:
    assert len(CHANGE_BY_ID) == len(CHANGES)
    assert len(KNOB_BY_ID) == len(KNOBS)
    assert not set(CHANGE_BY_ID) & set(KNOB_BY_ID)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.id)
def test_change_is_well_formed(change) -> None:
    assert re.fullmatch(r"(2023(-\d\d(-\d\d)?)?)?", change.date)
    assert change.author
    assert change.summary.endswith(".")
    assert change.release == "6.7"
    for other in change.needs + change.wants:
        assert other in CHANGE_BY_ID
        assert other != change.id
    assert not set(change.needs) & set(change.wants)


def test_needs_have_no_cycle() -> None:
    done: set[str] = set()
    waiting = dict(CHANGE_BY_ID)
    while waiting:
        ready = [id_ for id_, change in waiting.items() if done.issuperset(change.needs)]
        assert ready, f"cycle among {sorted(waiting)}"
        done.update(ready)
        for id_ in ready:
            del waiting[id_]


@pytest.mark.parametrize(
    ("change", "need"),
    [
        ("memcg-migrate-transfer", "memcg-charge-helpers"),
        ("hugetlb-memcg-accounting", "memcg-charge-helpers"),
        ("percpu-limited-add-negative", "percpu-limited-add"),
        ("shmem-add-before-acct", "shmem-charge-out-of-add"),
        ("memcg-rstat-normalize", "memcg-stat-units"),
        ("hugetlb-private-vma-lock", "hugetlb-resv-map-clear"),
        ("folio-xor-flags-has-waiters", "xor-unlock-negative-byte"),
        ("vma-lock-cow-faults", "vmf-anon-prepare"),
        *((id_, "fault-lock-release") for id_ in EXPECTED if id_.startswith("vma-lock-")),
    ],
)
def test_needs_of_the_sources(change: str, need: str) -> None:
    assert need in CHANGE_BY_ID[change].needs


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.id)
def test_knob_is_well_formed(knob) -> None:
    assert knob.id.startswith("post-")
    assert knob.summary
    assert knob.values[0] == "off"
    assert len(set(knob.values)) == len(knob.values)
    for since in knob.since:
        assert since.release == "not observed" or since.upper > (6, 7, 0)
        assert since.lower is None or since.lower < since.upper


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("6.7", (6, 7, 0)),
        ("6.7-rc1", (6, 7, 0)),
        ("6.7.0-rc3+", (6, 7, 0)),
        ("6.18.44-cloud-amd64", (6, 18, 44)),
        ("6.12.95", (6, 12, 95)),
        ("10.0.1", (10, 0, 1)),
    ],
)
def test_parse_release(text: str, release: tuple[int, int, int]) -> None:
    assert parse_release(text) == release


@pytest.mark.parametrize("text", ["", "six", "6", "-6.7", "v6.7"])
def test_parse_release_refuses(text: str) -> None:
    with pytest.raises(BadInput, match="not a kernel release"):
        parse_release(text)
