# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel of one machine: owns every subsystem, boots them in order, and can check them all (architecture, section
4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from memtwin.abi.signal import SIGKILL
from memtwin.changes import Features
from memtwin.errors import InvariantBroken, MemtwinError
from memtwin.events.tracepoint import Tracepoints
from memtwin.hw.numa import Topology
from memtwin.hw.ram import Ram
from memtwin.hw.tlb import MmTlb, Tlb
from memtwin.hw.work import Work
from memtwin.kernel.resource import default_rlimits
from memtwin.kernel.task import TaskStruct
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import MM_MT_FLAGS, MapleTree, RcuQueue
from memtwin.mm.before.vma_modify import InlinedVmaModify
from memtwin.mm.before.wp import may_reuse_inline
from memtwin.mm.check import Checks
from memtwin.mm.check_mm import check_address_spaces
from memtwin.mm.context import MmContext
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HugeZeroShrinker
from memtwin.mm.huge_split import DeferredSplitShrinker
from memtwin.mm.khugepaged import Khugepaged
from memtwin.mm.mm_types import MmStruct
from memtwin.mm.mmap import exit_mmap
from memtwin.mm.oom_kill import oom_kill_message, select_bad_process
from memtwin.mm.page import PageArrays
from memtwin.mm.page_alloc import PageAllocator
from memtwin.mm.page_table import PageTables
from memtwin.mm.shmem import ShmemInode
from memtwin.mm.slab import SlabAllocator
from memtwin.mm.unmapped_area import legacy_base
from memtwin.mm.vma import no_memory
from memtwin.mm.vma_modify import VmaModify
from memtwin.mm.vmscan import Shrinker
from memtwin.mm.vmstat import NodeStat, VmEvents
from memtwin.mm.wp import may_reuse
from memtwin.sched import PARKED, Rwsem, Scheduler, SpinLock

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable

__all__ = ["Kernel"]

#: Highest address for mappings and start of the heap of a spawned process (architecture, section 4).
_MMAP_BASE: Final = 0x7FFFF7FFF000
_START_BRK: Final = 0x800000000


class Kernel:
    """Every subsystem of one machine. Two kernels in one process share nothing.

    ``features``: changes and knobs, frozen; ``log``: the kernel log, one line each; ``on_exit``: called with a task
    just before its address space goes (to look at page tables from outside).
    """

    __slots__ = (
        "_boot_free",
        "checks",
        "clock",
        "events",
        "features",
        "huge_zero_shrinker",
        "khugepaged",
        "log",
        "memory_names",
        "mm_ctx",
        "node_stats",
        "on_exit",
        "page_alloc",
        "pages",
        "pt",
        "ram",
        "rcu",
        "sched",
        "seed",
        "slab",
        "syscalls",
        "tasks",
        "tlb",
        "topology",
        "trace",
        "work",
    )

    syscalls: SyscallTable
    page_alloc: PageAllocator
    slab: SlabAllocator
    mm_ctx: MmContext

    def __init__(
        self,
        ram: Ram,
        topology: Topology,
        features: Features,
        *,
        seed: int = 0,
        lockdep: bool = False,
        config: Iterable[str] = (),
        pku: bool = False,
    ) -> None:
        self.ram = ram
        self.topology = topology
        self.features = features
        self.seed = seed
        self.log: list[str] = []
        self.on_exit: Callable[[TaskStruct], None] | None = None
        self.work = Work()
        self.sched = sched = Scheduler(topology.nr_cpus, seed, self.work, lockdep=lockdep)
        self.clock = sched.clock
        self.trace = Tracepoints(sched)
        self.events = VmEvents()
        self.node_stats = [NodeStat() for _ in topology.nodes]
        self.tlb = Tlb(self.work)
        self.checks = Checks()
        self.pages = PageArrays(ram.nr_frames)
        self.page_alloc = PageAllocator(
            ram,
            topology,
            self.pages,
            features=features,
            work=self.work,
            events=self.events,
            node_stats=self.node_stats,
            trace=self.trace,
            cpu=lambda: sched.current.cpu,
        )
        self.page_alloc.printk = self.printk
        self.page_alloc.task_id = lambda: sched.current.tid
        self.page_alloc.oom = self.out_of_memory
        self.slab = SlabAllocator(self.page_alloc)
        self.rcu = RcuQueue()
        self.pt = PageTables(ram, self.pages, self.page_alloc, self.node_stats, topology.pfn_to_nid, self.work)
        self.mm_ctx = MmContext(
            ram=ram,
            topology=topology,
            pages=self.pages,
            page_alloc=self.page_alloc,
            pt=self.pt,
            slab=self.slab,
            tlb=self.tlb,
            sched=sched,
            features=features,
            work=self.work,
            events=self.events,
            node_stats=self.node_stats,
            trace=self.trace,
            zero_pfn=self.page_alloc.take_fixed_page(),
            printk=self.printk,
            may_reuse=may_reuse if features.has("wp-can-reuse-anon-folio") else may_reuse_inline,
            modify=VmaModify() if features.has("vma-modify") else InlinedVmaModify(),
            config=frozenset(config),
            pku=pku,
        )
        #: Scans for blocks to collapse when somebody lets it run.
        self.khugepaged = Khugepaged(self.mm_ctx)
        self.huge_zero_shrinker = HugeZeroShrinker(self.mm_ctx)
        self.page_alloc.reclaim.register_shrinker(Shrinker("thp-zero", self.huge_zero_shrinker))
        self.page_alloc.reclaim.register_shrinker(Shrinker("thp-deferred_split", DeferredSplitShrinker(self.mm_ctx)))
        self.tasks: dict[int, TaskStruct] = {}
        #: The names of memory files that processes driven by the API share: a file system without directories.
        self.memory_names: dict[str, ShmemInode] = {}
        self.checks.register("page allocator", self.page_alloc.check)
        self.checks.register("object caches", self.slab.check)
        self.checks.register("address spaces", lambda: check_address_spaces(self.mm_ctx))
        self._boot_free = self.page_alloc.nr_free_pages()
        self.mm_ctx.sysctl.set_reserves(self._boot_free * 4)

    def has(self, change: str) -> bool:
        """Whether this kernel has the change. Raises BadInput for an unknown id."""
        return self.features.has(change)

    def printk(self, line: str) -> None:
        """Append a line to the kernel log."""
        self.log.append(line)

    def check(self) -> None:
        """Recompute everything that is kept incrementally. Raises InvariantBroken naming the first disagreement."""
        self.checks.run()

    def check_no_leak(self) -> None:
        """Every frame must be back once the last process is gone. Raises InvariantBroken."""
        if self.tasks:
            raise InvariantBroken(f"{len(self.tasks)} processes still live")
        self.rcu.rcu_barrier()
        self.slab.shrink_all()
        self.huge_zero_shrinker.scan_objects(0, 0, HPAGE_PMD_NR)
        self.page_alloc.drain_all_pages()
        free = self.page_alloc.nr_free_pages()
        if free != self._boot_free:
            raise InvariantBroken(f"{self._boot_free - free} pages leaked")

    # -- processes ------------------------------------------------------------------------------------------------

    def mm_alloc(self) -> MmStruct:
        """An empty address space (no areas; mmap top and heap as in architecture, section 4). Raises OSError ENOMEM."""
        ctx = self.mm_ctx
        addr = ctx.mm_cache.alloc(GFP_KERNEL)
        if not addr:
            raise no_memory()
        pgd = self.pt.pgd_alloc()
        if not pgd:
            ctx.mm_cache.free(addr)
            raise no_memory()
        ctx.mm_ids += 1
        lock = Rwsem(self.sched, "mmap_lock")
        tree = MapleTree(ctx.maple_cache, MM_MT_FLAGS, self.work, rcu=self.rcu)
        if self.sched.lockdep is not None:
            tree.set_external_lock(lock)
        mm = MmStruct(ctx, ctx.mm_ids, addr, pgd, tree, lock, SpinLock(self.sched, "page_table_lock"), MmTlb(self.tlb))
        mm.topdown = not ctx.sysctl.legacy_va_layout
        mm.mmap_base = _MMAP_BASE if mm.topdown else legacy_base(mm)
        mm.start_brk = mm.brk = _START_BRK
        ctx.mms[mm.id] = mm
        return mm

    def mm_put(self, mm: MmStruct) -> None:
        """Tear an address space down that no task has."""
        exit_mmap(mm)

    def new_task(self, name: str) -> TaskStruct:
        """A thread of a new process without an address space."""
        task = self.sched.new_task(name, task_class=TaskStruct)
        self.tasks[task.pid] = task
        task.start_time = self.clock.now
        task.rlimits = default_rlimits(self.page_alloc.managed_pages)
        return task

    def out_of_memory(self, gfp: int, order: int) -> bool:
        """An allocation finds no memory: kill somebody. True if it may try again, False if the caller itself must die.

        Raises MemtwinError (the kernel panics) where nobody can be killed.
        """
        current = self.sched.current
        if current.fatal_signal_pending:
            return False
        victim = select_bad_process(self.tasks.values(), self.page_alloc.managed_pages)
        if victim is None:
            raise MemtwinError("Kernel panic - not syncing: System is deadlocked on memory")
        self.events.oom_kill += 1
        self.printk(oom_kill_message(victim))
        victim.fatal_signal_pending = True
        if victim is current or victim.state != PARKED:
            return False
        self.sched.run_as(victim, self.exit_task, victim, SIGKILL)
        return True

    def exec_mmap(self, task: TaskStruct, mm: MmStruct | None) -> None:
        """Give ``task`` the address space ``mm`` and tear down the one it had."""
        old = task.mm
        task.mm = mm
        if mm is not None:
            mm.owner = task
        if old is not None:
            exit_mmap(old)

    def exit_task(self, task: TaskStruct, code: int) -> None:
        """The process ends; ``code`` as wait(2) reports it. Its memory goes now."""
        if task.exit_code >= 0:
            return
        if self.on_exit is not None:
            self.on_exit(task)
        task.exit_code = code
        for held in task.memory_files.values():
            held.put()
        task.memory_files.clear()
        self.exec_mmap(task, None)
        self.sched.exit_task(task)
        del self.tasks[task.pid]
        self.rcu.rcu_barrier()
