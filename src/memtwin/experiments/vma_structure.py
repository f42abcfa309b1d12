# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments ``vma-decls-in-mm-types`` and ``vma-merge-wrappers``: changes of shape that nobody outside can see.

Shown in two ways: the twin's own sources are arranged as the change arranges Linux's (read from their syntax trees),
and machines without and with the change behave alike.
"""

from __future__ import annotations

import ast
import errno
from importlib.resources import files
from typing import Final

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.machine import Machine
from memtwin.mm.mm_types import VmArea
from memtwin.mm.vma import vma_merge, vma_merge_extend
from memtwin.process import Process

__all__ = ["run"]

PAGE: Final = 4096
BASE: Final = 0x10000000
RW: Final = PROT_READ | PROT_WRITE
ANON: Final = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
OLD: Final = 8 * PAGE
DELTA: Final = 2 * PAGE
MORE: Final = 4 * PAGE
SHARING: Final = "up to a neighbour with its anon_vma"
UNFAULTED: Final = "up to a neighbour without pages"
FREE: Final = "into free space"
NEIGHBOURS: Final = (SHARING, UNFAULTED, FREE)


def run(change_id: str, /) -> ExperimentResult:
    """The experiment of either change."""
    return _declarations(change_id) if change_id == "vma-decls-in-mm-types" else _wrappers(change_id)


def _imports(module: str) -> dict[str, list[str]]:
    """What a module of memtwin.mm imports when it is loaded: names by module. Imports for type checkers are none."""
    source = files("memtwin.mm").joinpath(f"{module.replace('.', '/')}.py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for node in tree.body:  # not inside ``if TYPE_CHECKING:``
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found.setdefault(node.module, []).extend(alias.name for alias in node.names)
    return found


# -- vma-decls-in-mm-types ------------------------------------------------------------------------------------------


def _names(change_id: str, *, after: bool, config: tuple[str, ...]) -> dict[str, str]:
    """Policy and name of fresh areas, and what naming an area says."""
    with Machine(memory="64M", without=[] if after else [change_id], config=config) as machine:
        process = machine.spawn()
        process.mmap(BASE, OLD, RW, ANON)
        answer = "ok"
        try:
            process.prctl_set_vma_anon_name(BASE, PAGE, "heap")
        except OSError as error:
            answer = errno.errorcode[error.errno or 0]
        areas = [vma for vma in process.vmas() if BASE <= vma.start < BASE + OLD]
        option = f"ANON_VMA_NAME={'y' if config else 'n'}"
        return {
            f"{option}: PR_SET_VMA_ANON_NAME": answer,
            f"{option}: names of the areas": " ".join(str(vma.anon_name) for vma in areas),
            f"{option}: policies of the areas": " ".join(str(vma.policy) for vma in areas),
        }


def _declarations(change_id: str) -> ExperimentResult:
    before, after = (
        _names(change_id, after=side, config=()) | _names(change_id, after=side, config=("ANON_VMA_NAME",))
        for side in (False, True)
    )
    own = [name for name in ("policy", "anon_name") if name in vars(VmArea)]
    needed = sorted(name for name in _imports("mm_types") if name.startswith("memtwin.mm"))
    rows = [
        Observation("attributes that the area's type declares", *(", ".join(own),) * 2),
        Observation("modules of mm that mm_types needs when loaded", *(", ".join(needed) or "none",) * 2),
        *(Observation(name, before[name], after[name]) for name in before),
    ]
    claims = [
        Claim("policy and name belong to the type of an area", own == ["policy", "anon_name"]),
        Claim("the type needs neither the policies nor the names to be loaded", not needed),
        Claim("nothing shows at run time", before == after),
        Claim(
            "without CONFIG_ANON_VMA_NAME no area has a name, so that no two names differ",
            list(after.values())[:2] == ["EINVAL", "None"],
        ),
        Claim("with it a named part is an area of its own", list(after.values())[3:5] == ["ok", "heap None"]),
    ]
    return ExperimentResult(change_id, rows, claims)


# -- vma-merge-wrappers ---------------------------------------------------------------------------------------------


def _extend(process: Process, *, wrapper: bool) -> str:
    """Extend the faulted area at BASE in place by the wrapper, or by the generic merge with its parameters spelled out
    as its caller did before; what is there then.
    """
    mm = process.mm

    def extend() -> None:
        vma = mm.mm_mt.load(BASE)
        mm.mmap_lock.down_write()
        try:
            if wrapper:
                merged = vma_merge_extend(mm, vma, DELTA)
            else:
                merged = vma_merge(
                    mm,
                    vma,
                    vma.end,
                    vma.end + DELTA,
                    vma.flags,
                    vma.anon_vma,
                    vma.file,
                    vma.pgoff + vma.pages,
                    vma.policy,
                    vma.uffd_ctx,
                    vma.anon_name,
                )
            if merged is not None:  # what mremap accounts itself
                mm.vm_stat_account(merged.flags, DELTA // PAGE)
                mm.ctx.committed += DELTA // PAGE
        finally:
            mm.mmap_lock.up_write()

    process.kernel.sched.run_as(process.task, extend)
    return _areas(process)


def _areas(process: Process) -> str:
    """Areas from BASE on: pages each, ``*`` with an anon_vma."""
    areas = [vma for vma in process.vmas() if BASE <= vma.start < BASE + 64 * PAGE]
    return " ".join(f"{vma.pages}p{'*' * (vma.anon_vma is not None)}" for vma in areas)


def _grown(change_id: str, *, after: bool) -> dict[str, str]:
    """Growth in place, by mremap and by the function alone. An area without pages does not fit a faulted one in 6.7
    (post-merge-faulted-unfaulted).
    """
    seen: dict[str, str] = {}
    with Machine(memory="64M", without=[] if after else [change_id]) as machine:
        for neighbour in NEIGHBOURS:
            for way in ("mremap 8p -> 10p", "the merge alone"):
                process = machine.spawn()
                process.mmap(BASE, OLD + (DELTA + MORE) * (neighbour == SHARING), RW, ANON)
                process.write(BASE, b"x")
                if neighbour == SHARING:
                    process.munmap(BASE + OLD, DELTA)
                elif neighbour == UNFAULTED:
                    process.mmap(BASE + OLD + DELTA, MORE, RW, ANON)
                at_first = _areas(process)
                if way == "the merge alone":
                    then = _extend(process, wrapper=after)
                else:
                    process.mremap(BASE, OLD, OLD + DELTA)
                    then = _areas(process)
                seen[f"{way}, {neighbour}"] = f"{at_first} -> {then}"
                machine.check()
                process.exit()
        machine.kernel.check_no_leak()
    return seen


def _wrappers(change_id: str) -> ExperimentResult:
    before, after = (_grown(change_id, after=side) for side in (False, True))
    users = {
        shape: sorted(name for name in ("vma_merge", "split_vma") if name in _imports(module).get("memtwin.mm.vma", []))
        for shape, module in (("before", "before.vma_modify"), ("after", "vma_modify"))
    }
    rows = [
        *(Observation(name, before[name], after[name]) for name in before),
        Observation(
            "generic functions that the changers of attributes use",
            *(", ".join(users[shape]) or "none" for shape in ("before", "after")),
        ),
        Observation("vma_merge_new_vma after a driver's mmap hook", *("waits for drivers with an mmap hook",) * 2),
    ]
    claims = [
        Claim(
            "a faulted area that grows up to a compatible neighbour becomes one with it (case 1)",
            all(after[name] == "8p* 4p* -> 14p*" for name in after if name.endswith(SHARING)),
        ),
        Claim(
            "one that grows up to an area that it can not be one with, or into free space, is extended (case 2)",
            all(after[name] == "8p* 4p -> 10p* 4p" for name in after if name.endswith(UNFAULTED))
            and all(after[name] == "8p* -> 10p*" for name in after if name.endswith(FREE)),
        ),
        Claim("the wrapper does what the spelled-out call did", before == after),
        Claim(
            "with the one routine of vma-modify nobody there needs the generic merge and split any more",
            (users["before"], users["after"]) == (["split_vma", "vma_merge"], []),
        ),
    ]
    return ExperimentResult(change_id, rows, claims)
