# SPDX-License-Identifier: GPL-2.0-or-later
"""Planted faults: rules of the twin broken on purpose, one at a time, to see whether the generator notices.

A mutation replaces a piece of one function's text, and the function's code by what that compiles to, so everybody who
has imported the function gets the broken one. To add one, add a row. Where a piece is no longer in the source (once,
exactly), the row is stale and has to follow the code; a test says so.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType

from memtwin import compiled
from memtwin.errors import BadInput
from memtwin.verify.mutations_huge import HUGE
from memtwin.verify.mutations_pages import PAGES

__all__ = ["MUTATIONS", "Mutation", "lookup", "planted"]


@dataclass(frozen=True, slots=True)
class Mutation:
    """``where``: "module:function" or "module:Class.method", below memtwin; ``old``: what stands there exactly once;
    ``new``: what stands there instead; ``profiles``: those whose programs can notice.
    """

    name: str
    text: str
    where: str
    old: str
    new: str
    profiles: tuple[str, ...] = ("vma",)

    def function(self) -> FunctionType:
        """The function that is broken. Raises BadInput if there is none."""
        module, _, path = self.where.partition(":")
        found: object = import_module(f"memtwin.{module}")
        for name in path.split("."):
            found = getattr(found, name, None)
        if compiled() and found is not None:
            raise BadInput("mutations are planted in the source: not where memtwin was installed with MEMTWIN_MYPYC=1")
        if not isinstance(found, FunctionType):
            raise BadInput(f"mutation {self.name} is stale: there is no function {self.where}")
        return found

    def code(self) -> CodeType:
        """The broken function's code. Raises BadInput if the piece is not there exactly once."""
        function = self.function()
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.old) != 1:
            raise BadInput(f"mutation {self.name} is stale: '{self.old}' occurs {source.count(self.old)} times")
        namespace: dict[str, object] = {}
        flags = function.__code__.co_flags & 0x1000000  # from __future__ import annotations
        text = source.replace(self.old, self.new)
        exec(compile(text, f"<mutation {self.name}>", "exec", flags), function.__globals__, namespace)
        mutant = namespace[function.__name__]
        assert isinstance(mutant, FunctionType)
        return mutant.__code__


_MERGE = "mm.vma:vma_merge"
_NEW = "mm.vma:vma_merge_new_range"
_SAME = "mm.vma:_attributes_agree"
_ANON = "mm.vma:_anon_vmas_agree"

MUTATIONS = (
    Mutation("no-merge-prev", "no change merges with the previous area", _MERGE, "and prev.end == start", "and False"),
    Mutation(
        "no-merge-next",
        "no change merges with the next area",
        _MERGE,
        "and nxt.pgoff == pgoff +",
        "and 0 == 1 + pgoff +",
    ),
    Mutation(
        "no-case-5",
        "the head of an area does not go to the previous one (case 5)",
        _MERGE,
        "if merge_prev:",
        "if merge_prev and not (cur is not None and end < cur.end):",
    ),
    Mutation(
        "no-case-4",
        "the tail of an area does not go to the next one (case 4)",
        _MERGE,
        "    if merge_next:\n        assert nxt is not None\n        # Case 3",
        "    if merge_next and not inside:\n        assert nxt is not None\n        # Case 3",
    ),
    Mutation(
        "merge-any-offset", "page offsets need not be contiguous", _MERGE, "and prev.pgoff + prev.pages == pgoff", ""
    ),
    Mutation("merge-any-policy", "areas with different memory policies merge", _SAME, "and vma.policy == policy", ""),
    Mutation("merge-any-uffd", "areas of different userfaultfds merge", _SAME, "and vma.uffd_ctx is uffd_ctx", ""),
    Mutation(
        "merge-any-file",
        "mappings of different files merge",
        _SAME,
        "vma.file is file",
        "(vma.file is None) == (file is None)",
    ),
    Mutation(
        "merge-forked",
        "an inherited area merges with a new one",
        _ANON,
        "return len(vma.anon_vma_chain) == 1",
        "return True",
    ),
    Mutation(
        "merge-two-anon-vmas", "separately faulted areas merge", _ANON, "        return False", "        return True"
    ),
    Mutation(
        "no-merge-faulted-unfaulted",
        "a faulted range does not merge with an unfaulted neighbour (6.7)",
        _ANON,
        "return mm.ctx.merge_faulted_unfaulted and",
        "return False and",
    ),
    Mutation(
        "new-joins-next",
        "a new mapping between two faulted areas joins the next one (6.7)",
        _NEW,
        "if ctx.mmap_merge_prev_first and alone:",
        "if False:",
    ),
    Mutation(
        "new-no-merge",
        "a new mapping does not merge with the next area",
        _NEW,
        "and nxt.pgoff == pgoff + pages",
        "and False",
    ),
    Mutation(
        "split-limit",
        "one split too many is allowed at the limit of areas",
        "mm.vma:split_vma",
        ">= ctx.sysctl.max_map_count",
        "> ctx.sysctl.max_map_count",
    ),
    Mutation(
        "mmap-limit",
        "mmap refuses one area too early",
        "mm.mmap:_do_mmap",
        "mm.map_count > ctx.sysctl.max_map_count",
        "mm.map_count >= ctx.sysctl.max_map_count",
    ),
    Mutation(
        "munmap-limit",
        "munmap of a middle is allowed at the limit",
        "mm.mmap:_gather",
        "mm.map_count >= mm.ctx.sysctl.max_map_count",
        "False",
    ),
    Mutation(
        "brk-limit",
        "brk refuses one area too early",
        "mm.mmap:_grow_heap",
        "mm.map_count > mm.ctx",
        "mm.map_count >= mm.ctx",
    ),
    Mutation(
        "mremap-limit",
        "a move is allowed one area later",
        "mm.mremap:_Mremap._move",
        "max_map_count - 3",
        "max_map_count - 2",
        ("mremap",),
    ),
    Mutation(
        "unaccount",
        "an untouched area keeps its charge when it becomes unwritable",
        "mm.mprotect:_fixup",
        "elif ctx.mprotect_unaccount and",
        "elif False and",
    ),
    Mutation(
        "mprotect-errno", "mprotect says EPERM for EACCES", "mm.mprotect:_protect_range", "errno.EACCES", "errno.EPERM"
    ),
    Mutation(
        "mprotect-locked",
        "no pages are had when a locked area becomes writable",
        "mm.mprotect:_fixup",
        "== VM_LOCKED and flags & VM_WRITE",
        "== VM_LOCKED and False",
        ("mlock", "vma"),
    ),
    Mutation(
        "madvise-errno",
        "madvise says ENOMEM where a split is refused",
        "mm.madvise:_update",
        "errno.EAGAIN if",
        "errno.ENOMEM if",
    ),
    Mutation(
        "madvise-stops", "madvise stops at a hole", "mm.madvise:_walk_changing", "position = vma.start\n", "break\n"
    ),
    Mutation(
        "mlock-limit",
        "one page more may be locked",
        "mm.util:mlock_limit_allows",
        "mm.locked_vm + pages <= limit >> 12",
        "mm.locked_vm + pages <= (limit >> 12) + 1",
        ("mlock",),
    ),
    Mutation(
        "mlock-twice",
        "what is locked already counts again",
        "mm.mlock:_locked_pages",
        "return sum(locked) >> 12",
        "return 0 * sum(locked)",
        ("mlock",),
    ),
    Mutation(
        "munlock-count",
        "munlock does not lower VmLck",
        "mm.mlock:_fixup",
        "mm.locked_vm -=",
        "mm.locked_vm -= 0 *",
        ("mlock", "vma"),
    ),
    Mutation(
        "as-limit",
        "RLIMIT_AS refuses one page too early",
        "mm.util:may_expand_vm",
        "> owner.rlimit(RLIMIT_AS) >> 12",
        ">= owner.rlimit(RLIMIT_AS) >> 12",
    ),
    Mutation(
        "data-limit",
        "RLIMIT_DATA counts shared memory",
        "mm.util:may_expand_vm",
        "flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE",
        "flags & VM_WRITE",
    ),
    Mutation(
        "brk-gap", "the heap may touch the next area", "mm.mmap:_grow_heap", "new + 4096 > start_gap", "new > start_gap"
    ),
    Mutation(
        "guard-gap",
        "no gap is kept below an area that grows down",
        "mm.unmapped_area:start_gap",
        "if vma.flags & VM_GROWSDOWN:",
        "if False:",
    ),
    Mutation(
        "stack-gap",
        "an area grows down one page too close",
        "mm.mmap:expand_stack",
        "sysctl.stack_guard_gap << 12",
        "sysctl.stack_guard_gap - 1 << 12",
    ),
    Mutation(
        "hint-next",
        "a hint directly below an area is refused",
        "mm.unmapped_area:_hint_free",
        "addr + length <= start_gap",
        "addr + length < start_gap",
    ),
    Mutation("thp-align", "3 MiB are aligned too", "mm.unmapped_area:_thp_aligned", "length % PMD_SIZE == 0", "True"),
    Mutation(
        "map-stack",
        "MAP_STACK has no effect on huge pages",
        "mm.mmap:_do_mmap",
        "flags & mman.MAP_STACK and",
        "False and",
    ),
    Mutation(
        "noreserve",
        "MAP_NORESERVE is charged",
        "mm.mmap:_accountable",
        "(VM_NORESERVE | VM_SHARED | VM_WRITE)",
        "(VM_SHARED | VM_WRITE)",
    ),
    Mutation(
        "fixed-fail",
        "a refused MAP_FIXED does not split what is there",
        "mm.mmap:_mmap_region",
        "if ctx.mmap_fixed_fail_splits:",
        "if False:",
    ),
    Mutation(
        "readonly-file",
        "a shared mapping of a read-only file may become writable",
        "mm.mmap:_file_flags",
        "vm_flags &= ~(VM_MAYWRITE | VM_SHARED)",
        "vm_flags &= ~VM_SHARED",
    ),
    Mutation(
        "move-offset",
        "an untouched area keeps its page offset when it moves",
        "mm.mremap:_Mremap._copy_vma",
        "pgoff = target >> 12",
        "pgoff += 0",
        ("mremap",),
    ),
    Mutation(
        "move-top",
        "growth in place is refused above mmap's top",
        "mm.mremap:_Mremap._expandable",
        "end <= self.mm.task_size",
        "end <= self.mm.mmap_base",
        ("mremap",),
    ),
    Mutation(
        "dontunmap-locked",
        "MREMAP_DONTUNMAP of a locked area is counted once",
        "mm.mremap:_Mremap._move",
        "not dont_unmap or ctx.mremap_dontunmap_locked",
        "not dont_unmap",
        ("mremap", "mlock"),
    ),
    Mutation(
        "mbind-hole", "mbind over a hole says ENOMEM", "mm.mempolicy:_check_range", "errno.EFAULT", "errno.ENOMEM"
    ),
    Mutation(
        "overcommit-always",
        "overcommit mode 1 refuses what mode 0 does",
        "mm.util:security_vm_enough_memory",
        "mode == OVERCOMMIT_GUESS and",
        "True and",
    ),
    Mutation(
        "strict-noreserve",
        "MAP_NORESERVE counts in overcommit mode 2",
        "mm.mmap:_do_mmap",
        "flags & mman.MAP_NORESERVE and ctx.sysctl.overcommit_memory != 2",
        "flags & mman.MAP_NORESERVE",
    ),
    Mutation(
        "shared-promise",
        "shared anonymous memory is not promised",
        "mm.mmap:_place_shared",
        "if vm_flags & VM_NORESERVE:",
        "if True:",
    ),
    Mutation(
        "limit-lowered",
        "areas may be split where there are more than are allowed",
        "mm.vma:split_vma",
        "mm.map_count >= ctx",
        "mm.map_count == ctx",
    ),
    Mutation(
        "lowest-address",
        "an area may begin one page below vm.mmap_min_addr",
        "mm.unmapped_area:may_map_at",
        "addr >= mm.ctx",
        "addr + 4096 >= mm.ctx",
    ),
    Mutation(
        "lowest-in-place",
        "an area below vm.mmap_min_addr grows in place",
        "mm.mremap:_Mremap._expandable",
        "may_map_at(self.mm, vma.start) and",
        "",
        ("mremap",),
    ),
    Mutation(
        "legacy-at-once",
        "vm.legacy_va_layout holds for programs that run already",
        "mm.unmapped_area:_arch_get_unmapped_area",
        "if not mm.topdown:",
        "if mm.ctx.sysctl.legacy_va_layout:",
    ),
    Mutation(
        "fork-locks",
        "a child inherits locks",
        "kernel.fork:_new_area",
        "copy.flags & ~_LOCKS",
        "copy.flags",
        ("fork", "mlock", "vma"),
    ),
    Mutation(
        "fork-dontfork",
        "a child inherits MADV_DONTFORK areas",
        "kernel.fork:_dup_vma",
        "if vma.flags & VM_DONTCOPY:",
        "if False:",
        ("fork", "vma"),
    ),
    Mutation(
        "fork-wipe",
        "a child inherits the anon_vma of a wiped area",
        "kernel.fork:_new_area",
        "if not flags & VM_WIPEONFORK and not",
        "if not",
        ("fork",),
    ),
    *(Mutation(*row) for row in (*PAGES, *HUGE)),
)


def lookup(name: str) -> list[Mutation]:
    """The mutation ``name``, or all of them. Raises BadInput."""
    if name == "all":
        return list(MUTATIONS)
    found = [mutation for mutation in MUTATIONS if mutation.name == name]
    if not found:
        raise BadInput(f"no such mutation: {name} (there are {', '.join(mutation.name for mutation in MUTATIONS)})")
    return found


@contextmanager
def planted(mutation: Mutation | None) -> Iterator[None]:
    """Break the rule for the time of a block. Raises BadInput if the mutation is stale."""
    if mutation is None:
        yield
        return
    function, broken = mutation.function(), mutation.code()
    whole = function.__code__
    function.__code__ = broken
    try:
        yield
    finally:
        function.__code__ = whole
