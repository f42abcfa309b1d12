# SPDX-License-Identifier: GPL-2.0-or-later
"""Object caches (Linux: mm/slub.c, mm/slab_common.c): objects of one size in slabs of pages, a stack of free objects
per CPU.

An object is its address in simulated memory; what it means lives in its owner's Python objects, so that here only its
*place* is real: it costs pages, can fail to be allocated, and its slab returns to the page allocator when the last
object is freed. A CPU allocates from and frees to its own stack; refills empty one slab, overflow returns the coldest
objects to their slabs.

Lock order (Linux): the cache's per-node list lock, inside it the zone lock. Invariants: every object of a slab is
either in ``_live`` (allocated), in its slab's free list, or in one CPU's stack; a slab with free objects of its own is
on its node's partial list; nr_slab_* count the pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.errors import BadInput, InvariantBroken
from memtwin.hw.ram import PAGE_SHIFT, PAGE_SIZE
from memtwin.lib import gfp_types as g
from memtwin.mm.check import require
from memtwin.mm.page import PG_SLAB

if TYPE_CHECKING:
    from memtwin.mm.page_alloc import PageAllocator

__all__ = ["KmemCache", "Slab", "SlabAllocator"]

SLUB_MAX_ORDER: Final = 3
SMALLEST: Final = 8
WORD: Final = 8
CACHE_LINE: Final = 64


class Slab:
    """One slab: ``1 << order`` frames from ``pfn`` on, cut into ``objects``; ``free`` addresses that no CPU holds."""

    __slots__ = ("free", "nid", "objects", "order", "pfn")

    def __init__(self, pfn: int, order: int, nid: int, size: int) -> None:
        self.pfn = pfn
        self.order = order
        self.nid = nid
        self.objects = (PAGE_SIZE << order) // size
        base = pfn << PAGE_SHIFT
        # The last element is handed out first: addresses ascend within a fresh slab.
        self.free = list(range(base + (self.objects - 1) * size, base - 1, -size))


class KmemCache:
    """Objects of ``size`` bytes (what /proc/slabinfo shows as objsize; ``object_size`` is what was asked for).

    ``order``: pages per slab as a power of two, ``objs_per_slab``. ``reclaimable``: counted as SReclaimable and
    allocated from RECLAIMABLE pageblocks; ``account``: charged to the allocating task's memory cgroup.
    """

    __slots__ = (
        "_alloc",
        "_cpu",
        "_live",
        "_owner",
        "_partial",
        "_slabs",
        "_stack",
        "_stacks",
        "_uniprocessor",
        "account",
        "gfp",
        "min_order",
        "min_partial",
        "name",
        "object_size",
        "objs_per_slab",
        "order",
        "reclaimable",
        "size",
        "stack_limit",
    )

    def __init__(
        self, owner: SlabAllocator, name: str, size: int, *, align: int, reclaimable: bool, account: bool
    ) -> None:
        if not 1 <= size <= PAGE_SIZE << SLUB_MAX_ORDER:
            raise BadInput(f"objects of {size} bytes do not fit into a cache")
        self._owner = owner
        self._alloc = alloc = owner.alloc
        self.name = name
        self.object_size = size
        step = max(align, WORD)
        self.size = max((size + step - 1) // step * step, SMALLEST)
        self.reclaimable = reclaimable
        self.account = account
        self.gfp = g.RECLAIMABLE if reclaimable else 0
        self.order = slab_order(self.size, alloc.topology.nr_cpus)
        self.min_order = min_slab_order(self.size)
        self.objs_per_slab = (PAGE_SIZE << self.order) // self.size
        #: Empty slabs kept per node (Linux: half the logarithm of the size, 5 to 10).
        self.min_partial = min(max((self.size.bit_length() - 1) // 2, 5), 10)
        #: Free objects a CPU may hold (Linux: cpu_partial, by size).
        self.stack_limit = max(cpu_partial(self.size), self.objs_per_slab)
        nodes = len(alloc.topology.nodes)
        self._slabs: dict[int, Slab] = {}
        self._partial: list[dict[int, Slab]] = [{} for _ in range(nodes)]
        self._live: set[int] = set()
        self._stacks: list[list[int]] = [[] for _ in range(alloc.topology.nr_cpus)]
        self._stack = self._stacks[0]
        self._cpu = owner.cpu
        self._uniprocessor = owner.uniprocessor

    # The object interface

    def alloc(self, gfp: int) -> int:
        """One object's address, 0 on failure. ``gfp`` says how far the page allocator may go for a new slab."""
        stack = self._stack if self._uniprocessor else self._stacks[self._cpu()]
        if not stack or self._alloc.fault is not None:
            return self._alloc_slow(stack, gfp)
        address = stack.pop()
        self._live.add(address)
        return address

    def free(self, address: int) -> None:
        """Give an object back. Raises InvariantBroken if it is not an allocated object of this cache."""
        try:
            self._live.remove(address)
        except KeyError:
            raise InvariantBroken(f"{self.name}: {address:#x} is freed but not allocated") from None
        stack = self._stack if self._uniprocessor else self._stacks[self._cpu()]
        stack.append(address)
        if len(stack) > self.stack_limit:
            self._flush(stack, len(stack) // 2)

    def at_hand(self, n: int) -> bool:
        """Whether this CPU holds ``n`` free objects, so that an allocation of as many can not fail."""
        return len(self._stack if self._uniprocessor else self._stacks[self._cpu()]) >= n and self._alloc.fault is None

    def alloc_bulk(self, gfp: int, n: int) -> list[int]:
        """``n`` objects, or none at all: [] on failure."""
        stack = self._stack if self._uniprocessor else self._stacks[self._cpu()]
        fault = self._alloc.fault
        if fault is not None and fault.should_fail_slab(gfp, self.size * n):
            return []
        got: list[int] = []
        while len(got) < n:
            if not stack and not self._refill(stack, gfp):
                stack += reversed(got)
                self._flush(stack, max(len(stack) - self.stack_limit, 0))
                return []
            take = min(n - len(got), len(stack))
            got += stack[: -take - 1 : -1]
            del stack[-take:]
        self._live.update(got)
        return got

    def free_bulk(self, addresses: list[int]) -> None:
        """Give objects back in one step. Raises InvariantBroken as ``free`` does."""
        live = self._live
        stack = self._stack if self._uniprocessor else self._stacks[self._cpu()]
        for address in addresses:
            if address not in live:
                raise InvariantBroken(f"{self.name}: {address:#x} is freed but not allocated")
            live.remove(address)
        stack += addresses
        if len(stack) > self.stack_limit:
            self._flush(stack, len(stack) - self.stack_limit // 2)

    # Slabs

    def _alloc_slow(self, stack: list[int], gfp: int) -> int:
        fault = self._alloc.fault
        if fault is not None and fault.should_fail_slab(gfp, self.size):
            return 0
        if not stack and not self._refill(stack, gfp):
            return 0
        address = stack.pop()
        self._live.add(address)
        return address

    def _refill(self, stack: list[int], gfp: int) -> bool:
        """All free objects of one slab: a partial one of the CPU's node, else a new one, else a partial one of another
        node."""
        topology = self._alloc.topology
        fallback = topology.fallback[topology.cpu_node[self._cpu()]]
        partial = self._partial[fallback[0]]
        if partial:
            _, slab = partial.popitem()
        else:
            fresh = self._new_slab(gfp)
            if fresh is None:
                others = [self._partial[nid] for nid in fallback[1:] if self._partial[nid]]
                if not others:
                    return False
                _, slab = others[0].popitem()
            else:
                slab = fresh
        stack += slab.free
        slab.free.clear()
        return True

    def _new_slab(self, gfp: int) -> Slab | None:
        """A slab of the wanted order without any effort, else of the smallest order with all the effort ``gfp``
        allows."""
        alloc = self._alloc
        flags = (gfp & ~(g.ZERO | g.MOVABLE | g.HIGHMEM | g.COMP)) | self.gfp
        order = self.order
        if order:
            flags |= g.COMP
        pfn = 0
        if order > self.min_order:
            gentle = (flags | g.NOWARN | g.NORETRY | g.NOMEMALLOC) & ~(g.NOFAIL | g.RECLAIM)
            pfn = alloc.alloc_pages(gentle, order)
        if not pfn:
            order = self.min_order
            pfn = alloc.alloc_pages(flags if order else flags & ~g.COMP, order)
        if not pfn:
            return None
        alloc.pages.flags[pfn] |= PG_SLAB
        nid = alloc.zone_of(pfn).nid
        slab = Slab(pfn, order, nid, self.size)
        self._slabs[pfn] = slab
        self._owner.account_slab(nid, self.reclaimable, 1 << order)
        return slab

    def _slab_of(self, address: int) -> Slab:
        return self._slabs[self._alloc.pages.head(address >> PAGE_SHIFT)]

    def _flush(self, stack: list[int], count: int) -> None:
        """Return the ``count`` coldest objects of a stack to their slabs."""
        for address in stack[:count]:
            slab = self._slab_of(address)
            slab.free.append(address)
            partial = self._partial[slab.nid]
            if len(slab.free) < slab.objects:
                partial[slab.pfn] = slab
            elif self._empty_slabs(slab.nid) > self.min_partial:
                self._discard(slab)
            else:
                partial[slab.pfn] = slab
        del stack[:count]

    def _empty_slabs(self, nid: int) -> int:
        # Linux compares the number of partial slabs, empty or not.
        return len(self._partial[nid])

    def _discard(self, slab: Slab) -> None:
        self._partial[slab.nid].pop(slab.pfn, None)
        del self._slabs[slab.pfn]
        alloc = self._alloc
        alloc.pages.flags[slab.pfn] &= ~PG_SLAB
        self._owner.account_slab(slab.nid, self.reclaimable, -(1 << slab.order))
        alloc.free_pages(slab.pfn, slab.order)

    def shrink(self) -> int:
        """Return every empty slab to the page allocator, those behind CPUs' stacks included; returns pages freed."""
        for stack in self._stacks:
            self._flush(stack, len(stack))
        pages = 0
        for partial in self._partial:
            for slab in [slab for slab in partial.values() if len(slab.free) == slab.objects]:
                pages += 1 << slab.order
                self._discard(slab)
        return pages

    def destroy(self) -> None:
        """Give everything back and forget the cache. Raises InvariantBroken while objects are allocated."""
        if self._live:
            raise InvariantBroken(f"cache {self.name} is destroyed with {len(self._live)} objects in use")
        self.shrink()
        self._owner.caches.remove(self)

    # Questions

    def check(self) -> None:
        """Every object of every slab is in exactly one place, and slab pages carry PG_SLAB. Raises InvariantBroken."""
        places = [*self._live, *self.stacked()]
        free = 0
        for pfn, slab in self._slabs.items():
            require(slab.pfn == pfn, f"{self.name}: a slab is filed under another pfn")
            require(bool(self._alloc.pages.flags[pfn] & PG_SLAB), f"{self.name}: slab {pfn:#x} lacks PG_SLAB")
            places += slab.free
            free += len(slab.free)
            listed = slab.pfn in self._partial[slab.nid]
            require(listed == bool(slab.free), f"{self.name}: slab {pfn:#x} is on the wrong list")
        require(len(places) == len(set(places)), f"{self.name}: an object is in two places")
        require(len(places) == self.num_objects, f"{self.name}: {self.num_objects} objects, {len(places)} found")
        strays = [address for address in places if not self._holds(address)]
        require(not strays, f"{self.name}: an object belongs to no slab")

    def _holds(self, address: int) -> bool:
        slab = self._slabs.get(self._alloc.pages.head(address >> PAGE_SHIFT))
        return slab is not None and (address - (slab.pfn << PAGE_SHIFT)) % self.size == 0

    @property
    def active_objects(self) -> int:
        """Allocated objects, exactly (SLUB's slabinfo also counts what lies on CPUs' stacks)."""
        return len(self._live)

    @property
    def num_objects(self) -> int:
        """Objects in all slabs, allocated or not."""
        return sum(slab.objects for slab in self._slabs.values())

    @property
    def num_slabs(self) -> int:
        """Slabs held."""
        return len(self._slabs)

    @property
    def stacked_objects(self) -> int:
        """Free objects on CPUs' stacks."""
        return sum(map(len, self._stacks))

    def is_allocated(self, address: int) -> bool:
        """Whether ``address`` is an allocated object of this cache."""
        return address in self._live

    def slabs(self) -> list[Slab]:
        """All slabs, oldest first."""
        return list(self._slabs.values())

    def stacked(self) -> list[int]:
        """Addresses on CPUs' stacks, CPU by CPU."""
        return [address for stack in self._stacks for address in stack]

    def partial_slabs(self) -> list[Slab]:
        """Slabs on the nodes' partial lists."""
        return [slab for partial in self._partial for slab in partial.values()]


class SlabAllocator:
    """All caches of a machine, in order of creation."""

    __slots__ = ("alloc", "caches", "cpu", "uniprocessor")

    def __init__(self, alloc: PageAllocator) -> None:
        self.alloc = alloc
        self.cpu = alloc.current_cpu
        self.uniprocessor = alloc.uniprocessor
        self.caches: list[KmemCache] = []

    def kmem_cache_create(
        self, name: str, size: int, *, align: int = 0, reclaimable: bool = False, account: bool = False
    ) -> KmemCache:
        """A new cache for objects of ``size`` bytes at multiples of ``align`` (0: 8). Raises BadInput for an impossible
        size."""
        cache = KmemCache(self, name, size, align=align, reclaimable=reclaimable, account=account)
        self.caches.append(cache)
        return cache

    def account_slab(self, nid: int, reclaimable: bool, pages: int) -> None:
        """Add ``pages`` to the node's slab gauge; pages given back during reclaim are its progress."""
        stat = self.alloc.node_stats[nid]
        if reclaimable:
            stat.nr_slab_reclaimable += pages
        else:
            stat.nr_slab_unreclaimable += pages
        if pages < 0:
            self.alloc.reclaim.account_reclaimed_pages(-pages)

    def check(self) -> None:
        """Recompute objects, slabs and gauges. Raises InvariantBroken."""
        nodes = len(self.alloc.topology.nodes)
        pages = {False: [0] * nodes, True: [0] * nodes}
        for cache in self.caches:
            cache.check()
            for slab in cache.slabs():
                pages[cache.reclaimable][slab.nid] += 1 << slab.order
        for nid, stat in enumerate(self.alloc.node_stats):
            require(stat.nr_slab_unreclaimable == pages[False][nid], f"node {nid}: nr_slab_unreclaimable is wrong")
            require(stat.nr_slab_reclaimable == pages[True][nid], f"node {nid}: nr_slab_reclaimable is wrong")

    def shrink_all(self) -> int:
        """Shrink every cache; returns pages freed."""
        return sum(cache.shrink() for cache in self.caches)


def min_slab_order(size: int) -> int:
    """Smallest order that holds one object."""
    return max((size - 1) >> PAGE_SHIFT, 0).bit_length()


def slab_order(size: int, nr_cpus: int) -> int:
    """Order of a cache's slabs as SLUB chooses it (order 0-3): at least 4 * (fls(cpus) + 1) objects where they fit,
    then the smallest order that wastes at most 1/16 of the slab, else 1/8, 1/4, 1/2. Agrees with /proc/slabinfo of
    6.18."""
    wanted = min(4 * (nr_cpus.bit_length() + 1), max((PAGE_SIZE << SLUB_MAX_ORDER) // size, 1))
    smallest = min_slab_order(wanted * size)
    for fraction in (16, 8, 4, 2):
        for order in range(smallest, SLUB_MAX_ORDER + 1):
            slab = PAGE_SIZE << order
            if slab % size <= slab // fraction:
                return order
    return min_slab_order(size)


def cpu_partial(size: int) -> int:
    """Free objects SLUB keeps per CPU beyond the slab in use, by object size."""
    for least, objects in ((PAGE_SIZE, 6), (1024, 24), (256, 52)):
        if size >= least:
            return objects
    return 120
