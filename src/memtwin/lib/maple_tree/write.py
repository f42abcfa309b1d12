# SPDX-License-Identifier: GPL-2.0-or-later
"""What one store does to the nodes of a maple tree (Linux: lib/maple_tree.c).

The first that applies: empty tree or root word, spanning store, exact fit, new root, rebalance, split, append or slot
store (in place), node store (section T5 of the specification).

Invariants: a store never touches entries outside its interval, though it may shrink the two at its edges. In RCU mode a
node that readers may be in changes by a single word only (exact fit; one border between two ranges moves); all else
makes a new node. Nodes are taken before anything is changed, so ENOMEM leaves the tree as it was.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from memtwin.lib.maple_tree.errors import NodesWanted
from memtwin.lib.maple_tree.gaps import max_gap, set_gap
from memtwin.lib.maple_tree.node import (
    BULK_MAX,
    GFP_FIRST_TRY,
    INDEX_MAX,
    LEAF_64,
    LEAF_LEAST_END,
    LEAF_SLOTS,
    MA_ACTIVE,
    SLOTS,
    Entry,
    MapleNode,
    NodeAllocator,
    next_node,
)
from memtwin.lib.maple_tree.rebuild import Run, cuts, off_null, rebuild

if TYPE_CHECKING:
    from memtwin.lib.maple_tree.state import MaState
    from memtwin.lib.maple_tree.tree import MapleTree

__all__ = ["fill_reserve", "level_last_leaf", "nodes_for", "store", "store_in_leaf"]

#: A last leaf that overflows gives slots to its left sibling if both together have fewer (rebuild: _push).
PUSH_ROOM = 2 * LEAF_SLOTS - 4
_STALE = -1  # a sequence number no tree has: the cursor walks again before it moves


def store(mas: MaState, entry: Entry) -> Entry:
    """Overwrite [mas.index, mas.last] by ``entry``; returns what was at the first index.

    Afterwards index/last are the range stored (a NULL: as widened). Raises NodesWanted (an OSError, ENOMEM) when the
    cursor's reserve is short and the allocator refuses a first try; the tree is then untouched.
    """
    tree = mas.tree
    least = 0
    if not mas.bulk:
        least = LEAF_LEAST_END
    elif mas.seq == tree.seq and not tree.in_rcu and entry is not None and _append(mas, tree, entry):
        return None
    stored = store_in_leaf(tree, mas.index, mas.last, entry, mas.alloc, GFP_FIRST_TRY, least)
    if stored is not None:
        old, mas.node, mas.offset = stored
        offset, pivots = mas.offset, mas.node.pivots
        mas.status = MA_ACTIVE
        mas.index = pivots[offset - 1] + 1 if offset else mas.node.min
        mas.last = pivots[offset]
        mas.seq = tree.seq
        return old
    first, last = mas.index, mas.last
    node = tree.leaf_at(first)
    if last > node.pivots[-1] or (entry is None and last == node.pivots[-1] != INDEX_MAX):
        return _store_spanning(mas, node, entry)
    old, o0, o1, first, last, _, _ = _locate(node, first, last, entry)
    run = _changed(node, o0, o1, first, last, entry)
    if node.addr:
        _store_beyond_leaf(mas, node, run, first, last)
    else:
        _store_root(mas, run, first, last)
    return old


def _append(mas: MaState, tree: MapleTree, entry: Entry) -> bool:
    """The next of many stores in ascending order: behind what the cursor stored last, in the last leaf. Nobody reads
    yet, so nodes change in place; they come out as by any other store. False, nothing done, where a new parent or a
    new level is needed, and for any other store.
    """
    node = mas.node
    if node.kind != LEAF_64 or not node.addr:
        return False
    pivots, slots = node.pivots, node.slots
    first, last = mas.index, mas.last
    count = len(slots)
    if count < 2 or slots[-1] is not None or pivots[-1] != INDEX_MAX or last >= INDEX_MAX >> 1:
        return False
    start = pivots[-2] + 1
    if first < start:
        return False
    borders, entries = [last, INDEX_MAX], [entry, None]
    if first > start:
        borders.insert(0, first - 1)
        entries.insert(0, None)
    track = node.parent is not None and tree.track_gaps
    if count - 1 + len(borders) > LEAF_SLOTS:
        if node.parent is None or not _append_to_full(mas, tree, borders, entries):
            return False
        node = mas.node
    else:
        pivots[-1:] = borders
        slots[-1:] = entries
    tree.seq += 1
    mas.status = MA_ACTIVE
    mas.offset = len(node.slots) - 2
    mas.seq = tree.seq
    if track:
        set_gap(node, INDEX_MAX - last)  # more than half of all indexes: no other gap is as long
    return True


def _append_to_full(mas: MaState, tree: MapleTree, borders: list[int], entries: list[Entry]) -> bool:
    """The last leaf overflows: its left sibling takes what it can, else it is split, if the parent has room. Leaves
    ``mas.node`` at the last leaf, and the longest gaps of the leaves but the last one right.
    """
    node = mas.node
    parent = node.parent
    assert parent is not None
    slot = node.parent_slot
    left = parent.slots[slot - 1] if slot else None
    end = len(node.slots) - 2 + len(borders)
    if left is not None and end + len(left.slots) - 1 < PUSH_ROOM:
        run = Run(
            LEAF_64, left.min, left.pivots + node.pivots[:-1] + borders, left.slots + node.slots[:-1] + entries, []
        )
        cut = off_null(run, LEAF_SLOTS - 2)
        _take(mas, 2 * tree.height + 1)
    elif len(parent.slots) < SLOTS[parent.kind]:
        run = Run(LEAF_64, node.min, node.pivots[:-1] + borders, node.slots[:-1] + entries, [])
        cut = cuts(run, bulk=True)[0]
        _take(mas, 2 * tree.height + 1)
        left, slot = node, slot + 1
        node = MapleNode(mas.alloc.pop(), LEAF_64, 0, [INDEX_MAX], [None], [])
        node.parent = parent
        node.parent_slot = slot
        tree.node_count += 1
        parent.pivots.append(INDEX_MAX)
        parent.slots.append(node)
        if tree.track_gaps:
            parent.gaps.append(parent.gaps[-1])  # the one behind everything, until it is set right
    else:
        return False
    left.pivots, left.slots = run.pivots[: cut + 1], run.slots[: cut + 1]
    node.pivots, node.slots = run.pivots[cut + 1 :], run.slots[cut + 1 :]
    node.min = run.pivots[cut] + 1
    parent.pivots[slot - 1] = run.pivots[cut]
    if tree.track_gaps:
        parent.gaps[slot - 1] = max_gap(left)
    mas.node = node
    return True


def store_in_leaf(
    tree: MapleTree,
    first: int,
    last: int,
    entry: Entry,
    reserve: list[int] | None,
    gfp: int,
    least: int = LEAF_LEAST_END,
) -> tuple[Entry, MapleNode, int] | None:
    """The common store, in one walk: its leaf ends up with more than ``least`` slots and at most 16, so that no other
    node changes.

    Returns (old entry at ``first``, the leaf, the offset stored to); None, nothing done, for any other store. A new
    node comes from ``reserve``, else with ``gfp``; with None for a reserve, as many as ``nodes_for`` says are got
    beforehand, and those not needed given back. Raises NodesWanted, the tree untouched.
    """
    node = tree.leaf_at(first)
    pivots = node.pivots
    end = pivots[-1]
    if last > end or not node.addr or (entry is None and last == end != INDEX_MAX):
        return None
    slots = node.slots
    o0 = o1 = bisect_left(pivots, first)
    start = pivots[o0 - 1] + 1 if o0 else node.min
    stop = pivots[o0]
    if last > stop:
        o1 = bisect_left(pivots, last, o0 + 1)
        stop = pivots[o1]
    old = slots[o0]
    if entry is None:
        o0, o1, first, last, start, stop = _widened(node, o0, o1, first, last, start, stop)
    keep_left = first > start
    keep_right = last < stop
    count = len(slots) - o1 + o0 + keep_left + keep_right
    parent = node.parent
    if o0 == o1 and not keep_left and not keep_right and (count > 1 or entry is not None):  # exact fit
        was_null = slots[o0] is None
        slots[o0] = entry
        if was_null is not (entry is None) and parent is not None and tree.track_gaps:
            set_gap(node, max_gap(node))
        return old, node, o0
    if count > LEAF_SLOTS or (count <= least and parent is not None) or (count == 1 and last - first == INDEX_MAX):
        return None

    addr = 0
    in_place = not tree.in_rcu or (o1 - o0 == 1 and keep_left is not keep_right)
    unused: list[int] = []
    worst = 2 * tree.height - 1 if parent is not None and count <= LEAF_LEAST_END + 2 else 1
    if reserve is None and not tree.allocator.at_hand(worst):
        unused = _worst_case(tree, worst, gfp)
        if not in_place:
            addr = unused.pop()
    elif not in_place:
        addr = reserve.pop() if reserve else tree.allocator.alloc(gfp)
        if not addr:
            raise NodesWanted(1)
    # The longest NULL stretch that goes: a leaf is scanned again only when its longest one may have gone.
    lost = 0
    track = parent is not None and tree.track_gaps
    if track:
        for i in range(o0, o1 + 1):
            if slots[i] is None:
                lost = max(lost, pivots[i] - (pivots[i - 1] if i else node.min - 1))
    if keep_left:
        borders = [first - 1, last, stop] if keep_right else [first - 1, last]
        entries = [slots[o0], entry, slots[o1]] if keep_right else [slots[o0], entry]
    else:
        borders = [last, stop] if keep_right else [last]
        entries = [entry, slots[o1]] if keep_right else [entry]
    if addr:
        node = _replace_leaf(tree, node, addr)
        pivots = node.pivots
        slots = node.slots
    o1 += 1
    pivots[o0:o1] = borders
    slots[o0:o1] = entries
    tree.seq += 1
    if track and (lost or entry is None):
        assert parent is not None
        known = parent.gaps[node.parent_slot]
        made = last - first + 1 if entry is None else 0
        if made > known:
            set_gap(node, made)
        elif lost >= known > made:
            set_gap(node, max_gap(node))
    if unused:
        tree.allocator.free_bulk(unused)
    return old, node, o0 + keep_left


def _worst_case(tree: MapleTree, wanted: int, gfp: int) -> list[int]:
    """``wanted`` nodes, or NodesWanted and none."""
    nodes: list[int] = []
    if not fill_reserve(tree.allocator, nodes, wanted, gfp):
        tree.allocator.free_bulk(nodes)
        raise NodesWanted(wanted)
    return nodes


def nodes_for(mas: MaState, entry: Entry) -> int:
    """How many nodes Linux 6.7 asks for before it stores ``entry`` (mas_preallocate): the worst case of the kind of
    store.

    A slot store counts 1 although it will need none (so until 6.8).
    """
    tree = mas.tree
    first, last = mas.index, mas.last
    if (first == 0 and last == INDEX_MAX) or not tree.root.addr:
        return 1
    node = tree.leaf_at(first)
    if last > node.pivots[-1] or (entry is None and last == node.pivots[-1] != INDEX_MAX):
        return 3 * tree.height + 1
    _, o0, o1, first, last, start, stop = _locate(node, first, last, entry)
    if o0 == o1 and first == start and last == stop:
        return 0
    new_end = len(node.slots) - o1 + o0 + (first > start) + (last < stop) - 1
    if new_end >= LEAF_SLOTS:
        return 2 * tree.height + 1
    if node.parent is None:
        return 1
    return 2 * tree.height - 1 if new_end - 1 <= LEAF_LEAST_END else 1


def fill_reserve(allocator: NodeAllocator, reserve: list[int], wanted: int, gfp: int) -> bool:
    """Bring a reserve up to ``wanted`` nodes: the first one alone, the rest in bulks of up to 30.

    False when the allocator refuses; what it gave before stays in the reserve.
    """
    if not reserve and wanted > 0:
        addr = allocator.alloc(gfp)
        if not addr:
            return False
        reserve.append(addr)
    while (missing := wanted - len(reserve)) > 0:
        addrs = allocator.alloc_bulk(gfp, min(missing, BULK_MAX))
        if not addrs:
            return False
        reserve += addrs
    return True


def level_last_leaf(mas: MaState) -> None:
    """After filling by append.

    A last leaf with fewer than 5 slots is levelled with its left sibling, if nodes can be had.
    """
    tree = mas.tree
    node = tree.root
    while node.kind != LEAF_64:
        node = node.slots[-1]
    if node.parent is None or len(node.slots) >= LEAF_LEAST_END - 1:
        return
    if fill_reserve(tree.allocator, mas.alloc, 2 * tree.height - 1, GFP_FIRST_TRY):
        _rebalance(mas, node, Run(LEAF_64, node.min, node.pivots, node.slots, []))


def _locate(node: MapleNode, first: int, last: int, entry: Entry) -> tuple[Entry, int, int, int, int, int, int]:
    """Where a store inside one leaf goes: (entry at first, first and last slot touched, first, last, start, stop).

    A NULL is widened over NULL neighbours, so first/last may come back wider; start/stop are the outer limits of the
    slots.
    """
    pivots = node.pivots
    slots = node.slots
    o0 = bisect_left(pivots, first)
    o1 = o0 if last <= pivots[o0] else bisect_left(pivots, last, o0 + 1)
    start = pivots[o0 - 1] + 1 if o0 else node.min
    stop = pivots[o1]
    old = slots[o0]
    if entry is None:
        o0, o1, first, last, start, stop = _widened(node, o0, o1, first, last, start, stop)
    return old, o0, o1, first, last, start, stop


def _widened(
    node: MapleNode, o0: int, o1: int, first: int, last: int, start: int, stop: int
) -> tuple[int, int, int, int, int, int]:
    """A NULL over [first, last], which lie in slots o0 and o1, takes NULL neighbours in: the new limits."""
    pivots = node.pivots
    slots = node.slots
    if slots[o0] is None:
        first = start
    elif first == start and o0 and slots[o0 - 1] is None:
        o0 -= 1
        first = start = pivots[o0 - 1] + 1 if o0 else node.min
    if slots[o1] is None:
        last = stop
    elif last == stop != pivots[-1] and slots[o1 + 1] is None:
        o1 += 1
        last = stop = pivots[o1]
    return o0, o1, first, last, start, stop


def _changed(node: MapleNode, o0: int, o1: int, first: int, last: int, entry: Entry) -> Run:
    """The contents of a leaf after a store over [first, last], whose limits lie in slots o0 and o1."""
    return _joined(node, o0, first, last, entry, node, o1)


def _joined(left: MapleNode, o0: int, first: int, last: int, entry: Entry, right: MapleNode, o1: int) -> Run:
    """What remains of ``left`` before first, the entry, what remains of ``right`` behind last (which lies in its slot
    o1).
    """
    pivots, slots = left.pivots[:o0], left.slots[:o0]
    if first > (pivots[-1] + 1 if o0 else left.min):
        pivots.append(first - 1)
        slots.append(left.slots[o0])
    pivots.append(last)
    slots.append(entry)
    if o1 >= 0 and last < right.pivots[o1]:
        pivots.append(right.pivots[o1])
        slots.append(right.slots[o1])
    return Run(LEAF_64, left.min, pivots + right.pivots[o1 + 1 :], slots + right.slots[o1 + 1 :], [])


def _replace_leaf(tree: MapleTree, dead: MapleNode, addr: int) -> MapleNode:
    """Put a copy in the place of a leaf that readers may still be in (RCU mode)."""
    tree.leaf = node = MapleNode(addr, LEAF_64, dead.min, dead.pivots[:], dead.slots[:], [])
    parent = dead.parent
    if parent is None:
        tree.root = node
    else:
        node.parent = parent
        node.parent_slot = slot = dead.parent_slot
        parent.slots[slot] = node
    dead.dead = True
    if tree.rcu is None:
        tree.allocator.free(dead.addr)
    else:
        tree.rcu.call_rcu(tree.allocator, dead.addr)
    return node


def _take(mas: MaState, wanted: int) -> None:
    """Have at least ``wanted`` nodes in the reserve, or raise NodesWanted."""
    if len(mas.alloc) < wanted and not fill_reserve(mas.tree.allocator, mas.alloc, wanted, GFP_FIRST_TRY):
        raise NodesWanted(wanted)


def _stored(mas: MaState, first: int, last: int) -> None:
    """Leave the cursor on the range stored, its node unknown."""
    mas.tree.seq += 1
    mas.status = MA_ACTIVE
    mas.index = first
    mas.last = last
    mas.seq = _STALE


def _store_root(mas: MaState, run: Run, first: int, last: int) -> None:
    """A store into an empty tree or one with a root word: stays without node, or gets its first one."""
    tree = mas.tree
    if len(run.slots) == 1 and run.slots[0] is None:
        tree.set_root_word(None)
    elif run.pivots[0] == 0 and len(run.slots) == 2 and run.slots[1] is None and _fits_root_word(run.slots[0]):
        tree.set_root_word(run.slots[0])
    else:
        _take(mas, 1)
        tree.set_root_leaf(MapleNode(mas.alloc.pop(), LEAF_64, 0, run.pivots, run.slots, []))
    _stored(mas, first, last)


def _fits_root_word(entry: Entry) -> bool:
    """Whether an entry can not be taken for a node pointer: words whose low bits are 10 can."""
    return not (isinstance(entry, int) and entry & 3 == 2)


def _store_beyond_leaf(mas: MaState, node: MapleNode, run: Run, first: int, last: int) -> None:
    """A store whose leaf comes out too full, too small, or the only range of the tree."""
    tree = mas.tree
    if last - first == INDEX_MAX:
        _new_root(mas, run.slots[0])
    elif len(run.slots) > LEAF_SLOTS:
        _take(mas, 2 * tree.height + 1)
        rebuild(tree, mas.alloc, run, node, node, push=True, bulk=mas.bulk)
    else:
        _take(mas, 2 * tree.height - 1)
        _rebalance(mas, node, run)
    _stored(mas, first, last)


def _new_root(mas: MaState, entry: Entry) -> None:
    """One range for the whole index space: a leaf with a single slot, or an empty tree."""
    tree = mas.tree
    if entry is not None:
        _take(mas, 1)
    old = tree.all_nodes()
    if entry is None:
        tree.set_root_word(None)
    else:
        tree.set_root_leaf(MapleNode(mas.alloc.pop(), LEAF_64, 0, [INDEX_MAX], [entry], []))
    tree.bury(old, mas.alloc)


def _rebalance(mas: MaState, node: MapleNode, run: Run) -> None:
    """Pour a leaf that came out too small together with its right sibling, or the left one if there is none."""
    assert node.parent is not None
    siblings = node.parent.slots
    slot = node.parent_slot
    left = right = node
    if slot + 1 < len(siblings):
        right = siblings[slot + 1]
        run.append(right)
    else:
        left = siblings[slot - 1]
        run.prepend(left)
    rebuild(mas.tree, mas.alloc, run, left, right, push=False, bulk=mas.bulk)


def _store_spanning(mas: MaState, left: MapleNode, entry: Entry) -> Entry:
    """A store that ends in another leaf, or would leave a leaf ending in NULL."""
    tree = mas.tree
    first, last = mas.index, mas.last
    o0 = bisect_left(left.pivots, first)
    old = left.slots[o0]
    right = tree.leaf_at(last)
    o1 = bisect_left(right.pivots, last)
    if entry is None:
        start = left.pivots[o0 - 1] + 1 if o0 else left.min
        if old is None:
            first = start
        elif first == start and o0 and left.slots[o0 - 1] is None:
            o0 -= 1
            first = left.pivots[o0 - 1] + 1 if o0 else left.min
        if right.slots[o1] is None:
            last = right.pivots[o1]
        elif last == right.pivots[o1] != INDEX_MAX:
            if last != right.pivots[-1]:
                o1 += 1
            else:  # a NULL up to a leaf's last index moves into the next leaf
                following = next_node(right)
                assert following is not None
                right, o1 = following, 0
            if right.slots[o1] is None:
                last = right.pivots[o1]
            else:
                o1 -= 1
    if last - first == INDEX_MAX:
        _new_root(mas, entry)
    else:
        _take(mas, 3 * tree.height + 1)
        run = _joined(left, o0, first, last, entry, right, o1)
        rebuild(tree, mas.alloc, run, left, right, push=False, bulk=mas.bulk)
    _stored(mas, first, last)
    return old
