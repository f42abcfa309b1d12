# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock checker catches each kind of mistake, and accepts what is right."""

from __future__ import annotations

import pytest

from memtwin.errors import BadInput, InvariantBroken
from memtwin.sched import Kind, Lockdep, Mutex, Rwsem, Scheduler, SpinLock
from memtwin.sched.lock_order import CHAINS, CLASSES, Chain
from memtwin.sched.lockdep import declared_order, lock_order_markdown


def rwsem(sched, name):
    return Rwsem(sched, name)


class TestDeclaredOrder:
    def test_page_is_what_the_declarations_say(self, root):
        assert (root / "docs/lock-order.md").read_text() == lock_order_markdown()

    def test_every_class_of_a_chain_is_declared_and_every_declared_class_is_in_a_chain(self):
        declared = [cls.name for cls in CLASSES]
        used = {name for chain in CHAINS for name in chain.classes}
        assert sorted(set(declared)) == sorted(declared)
        assert used == set(declared)

    def test_nesting_rules_name_classes(self):
        names = {cls.name for cls in CLASSES}
        assert {cls.nesting for cls in CLASSES} - {"", "subclass"} <= names

    def test_closure(self):
        order = declared_order((Chain("x", ("a", "b", "c")), Chain("y", ("c", "d"))))
        assert {name: sorted(inner) for name, inner in order.items()} == {
            "a": ["b", "c", "d"],
            "b": ["c", "d"],
            "c": ["d"],
            "d": [],
        }

    def test_contradiction_in_the_declarations(self):
        with pytest.raises(InvariantBroken, match="cycle through a"):
            declared_order((Chain("x", ("a", "b")), Chain("y", ("b", "a"))))

    def test_order_of_the_specification(self):
        """R13: inode, mmap, invalidate, folio, i_mmap, anon_vma, page table, i_pages; hugetlb: folio inside i_mmap."""
        order = declared_order()
        row = ["inode_rwsem", "mmap_lock", "invalidate_lock", "folio_lock", "i_mmap_rwsem", "anon_vma"]
        row += ["page_table_lock", "memcg_move_lock", "i_pages_lock"]
        huge = ["mmap_lock", "hugetlb_fault_mutex", "hugetlb_vma_lock", "i_mmap_rwsem", "hugetlb_folio_lock"]
        huge += ["page_table_lock", "hugetlb_lock"]
        for chain in (row, huge):
            for i, outer in enumerate(chain):
                assert all(inner in order[outer] for inner in chain[i + 1 :])

    def test_right_order_passes(self, sched):
        mmap, anon, ptl = rwsem(sched, "mmap_lock"), rwsem(sched, "anon_vma"), SpinLock(sched, "page_table_lock")
        for _ in range(2):
            mmap.down_read()
            anon.down_write()
            ptl.lock()
            ptl.unlock()
            anon.up_write()
            mmap.up_read()

    def test_wrong_order_is_caught_the_first_time_with_both_sites(self, sched):
        mmap, anon = rwsem(sched, "mmap_lock"), rwsem(sched, "anon_vma")

        def careless():
            anon.down_write()
            mmap.down_read()

        with pytest.raises(InvariantBroken) as caught:
            sched.run_as(sched.new_task("p"), careless)
        text = str(caught.value)
        assert text.startswith("lock order violation: p(1) takes mmap_lock (read) [test_lockdep.py:")
        assert text.count("careless]") == 2
        assert "while holding anon_vma [" in text
        assert "declared order is mmap_lock -> anon_vma (" in text
        assert "\n" not in text

    def test_every_lock_held_counts_not_only_the_latest(self, sched):
        mmap, anon, other = rwsem(sched, "mmap_lock"), rwsem(sched, "anon_vma"), Mutex(sched, "other")
        anon.down_read()
        other.lock()
        with pytest.raises(InvariantBroken, match="declared order is mmap_lock -> anon_vma"):
            mmap.down_read()

    def test_a_trylock_may_go_against_the_order_but_what_follows_may_not(self, sched):
        mmap, anon, other = (rwsem(sched, name) for name in ("mmap_lock", "anon_vma", "inode_rwsem"))
        anon.down_write()
        assert mmap.down_write_trylock()
        with pytest.raises(InvariantBroken, match=r"takes inode_rwsem .* while holding"):
            other.down_read()
        assert not other.is_locked()

    def test_hugetlb_deviates(self, sched):
        i_mmap, folio, huge = rwsem(sched, "i_mmap_rwsem"), "folio_lock", "hugetlb_folio_lock"
        dep = sched.lockdep
        i_mmap.down_write()
        dep.acquire(77, huge, Kind.BIT)
        dep.release(77, huge)
        with pytest.raises(InvariantBroken, match=r"lock order violation: .* takes folio_lock"):
            dep.acquire(77, folio, Kind.BIT)

    def test_reclaim_context(self, sched):
        """An allocation that may wait while i_mmap_rwsem is held: reclaim could want the same lock."""
        i_mmap, dep = rwsem(sched, "i_mmap_rwsem"), sched.lockdep
        dep.enter_context("fs_reclaim")
        i_mmap.down_read()
        i_mmap.up_read()
        dep.leave_context("fs_reclaim")
        i_mmap.down_write()
        with pytest.raises(InvariantBroken, match=r"takes fs_reclaim .* while holding i_mmap_rwsem"):
            dep.enter_context("fs_reclaim")

    def test_class_used_as_another_kind(self, sched):
        with pytest.raises(InvariantBroken, match="mmap_lock is declared a rwsem, and used as a mutex"):
            Mutex(sched, "mmap_lock").lock()


class TestLearnedOrder:
    def test_abba_without_a_deadlock_happening(self, sched):
        a, b = Mutex(sched, "a"), Mutex(sched, "b")

        def forward():
            a.lock()
            b.lock()
            b.unlock()
            a.unlock()

        def backward():
            b.lock()
            a.lock()

        forward()
        with pytest.raises(InvariantBroken) as caught:
            backward()
        text = str(caught.value)
        assert text.startswith("possible circular locking: host(0) takes a [")
        assert "the other way round: host(0): a [" in text and "forward] then b [" in text

    def test_longer_cycle_through_a_declared_edge(self, sched):
        x, mmap, anon = Mutex(sched, "x"), rwsem(sched, "mmap_lock"), rwsem(sched, "anon_vma")
        x.lock()
        mmap.down_read()
        mmap.up_read()
        x.unlock()
        anon.down_read()
        with pytest.raises(InvariantBroken, match="declared mmap_lock -> anon_vma"):
            x.lock()


class TestRecursion:
    def test_same_lock_twice(self, sched):
        sem = rwsem(sched, "mmap_lock")
        sem.down_read()
        with pytest.raises(InvariantBroken, match=r"possible recursive locking: .* takes mmap_lock"):
            sem.down_read()

    def test_two_of_a_class_need_a_subclass(self, sched):
        parent, child = rwsem(sched, "mmap_lock"), rwsem(sched, "mmap_lock")
        parent.down_write()
        child.down_write(subclass=1)
        child.up_write()
        with pytest.raises(InvariantBroken, match="the class needs a higher subclass"):
            child.down_write()

    def test_many_of_a_class_under_the_lock_that_serialises_them(self, sched):
        mmap, one, two = rwsem(sched, "mmap_lock"), rwsem(sched, "anon_vma"), rwsem(sched, "anon_vma")
        mmap.down_write()
        one.down_write()
        two.down_write()
        two.up_write()
        one.up_write()
        mmap.downgrade_write()
        one.down_write()
        with pytest.raises(InvariantBroken, match="the class needs mmap_lock held for writing"):
            two.down_write()

    def test_undeclared_classes_do_not_nest(self, sched):
        one, two = Mutex(sched, "m"), Mutex(sched, "m")
        one.lock()
        with pytest.raises(InvariantBroken, match="the class does not nest"):
            two.lock(subclass=1)

    def test_keys_of_different_classes_are_different_locks(self, sched):
        dep = sched.lockdep
        dep.acquire(5, "folio_lock", Kind.BIT)
        dep.acquire(5, "page_table_lock", Kind.SPIN)
        dep.release(5, "folio_lock")
        assert dep.holds(5, "page_table_lock") and not dep.holds(5, "folio_lock")


class TestContext:
    def test_sleeping_lock_inside_a_spinlock(self, sched):
        spin, sem = SpinLock(sched, "page_table_lock"), rwsem(sched, "whatever")
        spin.lock()
        with pytest.raises(InvariantBroken, match=r"invalid context: taking whatever .* while holding page_table_lock"):
            sem.down_read()

    def test_sleep_inside_a_spinlock(self, sched):
        spin = SpinLock(sched, "s")
        spin.lock()
        with pytest.raises(InvariantBroken, match=r"schedule by host\(0\) while holding s"):
            sched.sleep(5)

    def test_sleep_with_interrupts_off(self, sched):
        sched.local_irq_disable()
        with pytest.raises(InvariantBroken, match=r"might_alloc by .* with interrupts off"):
            sched.might_sleep("might_alloc")
        sched.local_irq_enable()
        sched.might_sleep("might_alloc")

    def test_sleeping_in_atomic_context_is_caught_without_lockdep(self):
        sched = Scheduler()
        spin = SpinLock(sched, "s")
        spin.lock()
        with pytest.raises(InvariantBroken, match=r"while holding 1 spinlock"):
            sched.sleep(5)

    @pytest.mark.parametrize("irq_first", [False, True])
    def test_lock_of_a_callback_taken_with_interrupts_on(self, sched, irq_first):
        spin = SpinLock(sched, "s")

        def take():
            spin.lock()
            spin.unlock()

        def in_callback():
            sched.clock.timer_in(1, take)
            sched.clock.advance(1)

        first, second = (in_callback, take) if irq_first else (take, in_callback)
        first()
        with pytest.raises(InvariantBroken, match=r"inconsistent lock state: .* takes s \["):
            second()

    def test_lock_of_a_callback_taken_with_interrupts_off(self, sched):
        spin = SpinLock(sched, "s")
        sched.clock.timer_in(1, lambda: (spin.lock(), spin.unlock()))
        sched.clock.advance(1)
        spin.lock_irq()
        spin.unlock_irq()


class TestReleaseAndAssert:
    def test_release_of_what_is_not_held(self, sched):
        with pytest.raises(InvariantBroken, match="bad unlock balance: host"):
            sched.lockdep.release(object(), "m")
        with pytest.raises(InvariantBroken, match="downgrades m"):
            sched.lockdep.downgrade(object(), "m")

    def test_must_hold(self, sched):
        sem, mutex, spin = rwsem(sched, "mmap_lock"), Mutex(sched, "m"), SpinLock(sched, "s")
        for lock in (sem, mutex, spin):
            with pytest.raises(InvariantBroken, match=rf"{lock.name} must be held by host\(0\) \[test_lockdep.py:"):
                lock.assert_held()
        with pytest.raises(InvariantBroken, match="mmap_lock must be held for writing"):
            sem.assert_held_write()
        sem.down_read()
        sem.assert_held()
        with pytest.raises(InvariantBroken, match="mmap_lock is held for reading only and must be held for writing"):
            sem.assert_held_write()
        sem.up_read()
        sem.down_write()
        sem.assert_held_write()
        sem.downgrade_write()
        with pytest.raises(InvariantBroken, match="reading only"):
            sem.assert_held_write()

    def test_held_by_another_task_does_not_count(self, sched):
        mutex = Mutex(sched, "m")
        sched.spawn(lambda: (mutex.lock(), sched.sleep(5), mutex.unlock()), "t")
        sched.step()
        with pytest.raises(InvariantBroken, match="m must be held by host"):
            mutex.assert_held()

    def test_nothing_is_checked_when_off(self):
        sem = rwsem(Scheduler(), "mmap_lock")
        sem.assert_held()
        sem.assert_held_write()

    def test_return_to_user_mode_with_a_lock(self, sched):
        p, sem = sched.new_task("p"), rwsem(sched, "mmap_lock")
        with pytest.raises(
            InvariantBroken, match=r"p\(1\) returns to user mode with locks held: mmap_lock \(read\) \["
        ):
            sched.run_as(p, sem.down_read)

    def test_return_to_user_mode_with_an_errno_and_a_lock(self, sched):
        p, mutex = sched.new_task("p"), Mutex(sched, "m")

        def call():
            mutex.lock()
            raise OSError(12, "Cannot allocate memory")

        with pytest.raises(InvariantBroken, match="locks held: m") as caught:
            sched.run_as(p, call)
        assert isinstance(caught.value.__context__, OSError)

    def test_return_to_user_mode_with_interrupts_off(self, sched):
        with pytest.raises(InvariantBroken, match="preempt_count 0, interrupts off 1 times"):
            sched.run_as(sched.new_task("p"), sched.local_irq_disable)

    def test_end_of_a_thread_with_a_lock(self, sched):
        sched.spawn(Mutex(sched, "m").lock, "t")
        with pytest.raises(InvariantBroken, match=r"t\(1\) returns to user mode with locks held: m"):
            sched.run_until_idle()

    def test_broken_invariant_is_not_masked_by_the_locks_it_left(self, sched):
        mutex = Mutex(sched, "m")

        def call():
            mutex.lock()
            raise InvariantBroken("the first")

        with pytest.raises(InvariantBroken, match="the first"):
            sched.run_as(sched.new_task("p"), call)

    def test_failed_killable_wait_holds_nothing(self, sched):
        sem = rwsem(sched, "mmap_lock")
        sched.spawn(lambda: (sem.down_write(), sched.sleep(5), sem.up_write()), "holder")
        sched.step()
        p = sched.new_task("p")
        p.fatal_signal_pending = True
        assert sched.run_as(p, sem.down_write_killable) is False
        assert p.held == []


def test_collect_instead_of_raise():
    dep = Lockdep(collect=True)
    sched = Scheduler(lockdep=dep)
    mmap, anon = rwsem(sched, "mmap_lock"), rwsem(sched, "anon_vma")
    for _ in range(2):
        anon.down_write()
        mmap.down_read()
        mmap.up_read()
        anon.up_write()
    assert len(dep.reports) == 1 and dep.reports[0].startswith("lock order violation")
    spin = SpinLock(sched, "s")
    spin.lock()
    sched.sleep(5)
    spin.unlock()
    assert [text.split(":")[0] for text in dep.reports[1:]] == ["sleeping function called from invalid context"]
    assert sched.clock.now == 5
    with pytest.raises(BadInput):
        sched.run_as(sched.new_task("p"), sched.close)


def test_two_checkers_do_not_share_what_they_learn():
    one, two = Scheduler(lockdep=True), Scheduler(lockdep=True)
    for sched, names in ((one, "ab"), (two, "ba")):
        locks = [Mutex(sched, name) for name in names]
        for lock in locks:
            lock.lock()
        for lock in locks:
            lock.unlock()
