# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments of the series that cleaned up get_user_pages: ``access-remote-vm-static``, ``gup-internal-flags``,
``gup-zero-pin-is-error``, ``gup-vma-remote-never-null``.

Its interface is the kernel's own, so the workloads here are kernel code: a driver that asks for pages, a probe that
writes a breakpoint.
"""

from __future__ import annotations

import ast
import errno
from collections.abc import Callable
from importlib.resources import files
from typing import Final

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.experiments.fault_kinds import BASE, PAGE, RW, DeviceFile, map_file
from memtwin.experiments.inside import frame_of, with_mmap_lock
from memtwin.machine import Machine
from memtwin.mm.filemap import FileVmOps
from memtwin.mm.get_user_pages import (
    FOLL_FORCE,
    FOLL_TOUCH,
    FOLL_WRITE,
    get_user_page_vma_remote,
    get_user_pages,
    pin_user_pages,
    put_user_page,
    unpin_user_pages,
)
from memtwin.mm.page import PG_REFERENCED
from memtwin.mm.process_vm_access import access_remote_vm
from memtwin.mm.vm_fault import VM_FAULT_RETRY, VmFault
from memtwin.process import Process

__all__ = ["run"]

ANON: Final = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
BREAKPOINT: Final = b"\xcc"  #: int3


def run(change_id: str, /) -> ExperimentResult:
    """The experiment of one of the four."""
    return _EXPERIMENTS[change_id](change_id)


class NothingOps(FileVmOps):
    """A driver with a mistake: its fault handler asks for another attempt, and nobody offered one."""

    has_map_pages = False

    def fault(self, vmf: VmFault) -> int:
        return VM_FAULT_RETRY


def _told(result: int) -> str:
    return str(result) if result >= 0 else f"-{errno.errorcode[-result]}"


def _warnings(process: Process) -> str:
    return str(sum("WARNING" in line for line in process.kernel.log))


def _sides(change_id: str, seen: Callable[[Process], dict[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """What a fresh process sees on a machine without and on one with the change."""
    results = []
    for without in ([change_id], []):
        with Machine(memory="64M", without=without) as machine:
            process = machine.spawn()
            results.append(seen(process))
            machine.check()
            for task in list(machine.kernel.tasks.values()):
                machine.kernel.exit_task(task, 0)
            machine.kernel.check_no_leak()
    return results[0], results[1]


def _rows(before: dict[str, str], after: dict[str, str]) -> list[Observation]:
    return [Observation(name, before[name], after[name]) for name in after]


# -- access-remote-vm-static ------------------------------------------------------------------------------------------


def _remote(process: Process) -> dict[str, str]:
    """What a debugger sees of two mapped pages and a hole behind them (all of it observed on 6.18)."""
    mm = process.mm
    process.mmap(BASE, 2 * PAGE, RW, ANON)
    process.write(BASE, b"a")
    process.mmap(BASE + 16 * PAGE, PAGE, PROT_READ, ANON)
    process.mmap(BASE + 32 * PAGE, PAGE, RW, ANON)
    process.write(BASE + 32 * PAGE, b"n")
    process.mprotect(BASE + 32 * PAGE, PAGE, PROT_NONE)
    committed = mm.ctx.committed

    def access(addr: int, size: int, *, write: bool = False, force: bool = True) -> str:
        call = process.kernel.sched.run_as
        return str(call(process.task, access_remote_vm, mm, addr, bytearray(size), write=write, force=force))

    seen = {
        "read 8 pages, 2 of them mapped": access(BASE, 8 * PAGE),
        "read in the hole": access(BASE + 2 * PAGE, 8),
        "read 100 bytes, 50 before the end": access(BASE + 2 * PAGE - 50, 100),
        "read what is PROT_NONE": access(BASE + 32 * PAGE, 1),
        "the same without FOLL_FORCE": access(BASE + 32 * PAGE, 1, force=False),
        "write 1 byte to private memory that is only readable": access(BASE + 16 * PAGE, 1, write=True),
        "its area is then": next(repr(vma)[-5:-1] for vma in process.vmas() if vma.start == BASE + 16 * PAGE),
        "and more memory is promised": f"{mm.ctx.committed - committed} pages",
    }
    file = DeviceFile(FileVmOps())
    process.munmap(BASE, 64 * PAGE)
    map_file(process, file, MAP_SHARED, PROT_READ)
    seen["write 1 byte to a shared mapping that is only readable"] = access(BASE, 1, write=True)
    return seen


_REMOTE: Final = ["8192", "0", "50", "1", "0", "1", "r--p", "0 pages", "0"]


def _module(name: str) -> ast.Module:
    return ast.parse(files("memtwin").joinpath(f"{name}.py").read_text(encoding="utf-8"))


def _static(change_id: str) -> ExperimentResult:
    before, after = _sides(change_id, _remote)
    tree = _module("mm/process_vm_access")
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    callers = sorted(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(each, ast.Name) and each.id == "_access_remote_vm" for each in ast.walk(node))
    )
    user = _module("fs/proc/mem")
    asked = [alias.name for node in user.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    rows = [
        *_rows(before, after),
        Observation("who calls the private function", *(", ".join(callers),) * 2),
    ]
    claims = [
        Claim("what a debugger sees is what 6.18 shows", list(after.values()) == _REMOTE),
        Claim("nothing of it depends on the change", before == after),
        Claim(
            "the function with the flags is private; everybody else uses access_remote_vm",
            "_access_remote_vm" in defined and callers == ["access_remote_vm"] and "access_remote_vm" in asked,
        ),
    ]
    return ExperimentResult(change_id, rows, claims)


# -- gup-internal-flags -----------------------------------------------------------------------------------------------


def _touching(process: Process) -> dict[str, str]:
    ctx, mm = process.kernel.mm_ctx, process.mm
    process.mmap(BASE, 4 * PAGE, RW, ANON)
    process.write(BASE, bytes(4 * PAGE))
    pages: list[int] = []
    got = with_mmap_lock(process, lambda: get_user_pages(mm, BASE, 2, 0, pages))
    plain = _told(got)
    for pfn in pages:
        ctx.pages.flags[pfn] &= ~PG_REFERENCED
        put_user_page(ctx, pfn)
    pages.clear()
    first = _told(with_mmap_lock(process, lambda: get_user_pages(mm, BASE, 2, FOLL_TOUCH, pages)))
    frame = frame_of(process, BASE)
    seen = {
        "get_user_pages of 2 pages": plain,
        "the same with FOLL_TOUCH": first,
        "marked the page referenced": "yes" if ctx.pages.flags[frame] & PG_REFERENCED else "no",
        "once more": _told(with_mmap_lock(process, lambda: get_user_pages(mm, BASE, 2, FOLL_TOUCH, pages))),
        "warnings since boot": _warnings(process),
    }
    for pfn in pages:
        put_user_page(ctx, pfn)
    return seen


def _internal_flags(change_id: str) -> ExperimentResult:
    before, after = _sides(change_id, _touching)
    claims = [
        Claim("a caller that passes FOLL_TOUCH is refused", list(after.values())[1:4:2] == ["-EINVAL"] * 2),
        Claim("it is warned of once", after["warnings since boot"] == "1"),
        Claim(
            "before, the flag was accepted and honoured",
            list(before.values()) == ["2", "2", "yes", "2", "0"],
        ),
        Claim("a caller that does not sees no difference", after["get_user_pages of 2 pages"] == "2"),
    ]
    return ExperimentResult(change_id, _rows(before, after), claims)


# -- gup-zero-pin-is-error --------------------------------------------------------------------------------------------


def _zero(process: Process) -> dict[str, str]:
    ctx, mm = process.kernel.mm_ctx, process.mm
    process.mmap(BASE, 4 * PAGE, RW, ANON)
    process.write(BASE, b"x")
    pages: list[int] = []
    seen = {"pin_user_pages of 0 pages": _told(with_mmap_lock(process, lambda: pin_user_pages(mm, BASE, 0, 0, pages)))}
    seen["the address space counts as one with pins"] = "yes" if mm.has_pinned else "no"
    # Somebody else has the page 1,024 times, as a file system or a socket may: that is not to be told from a pin.
    with_mmap_lock(process, lambda: pin_user_pages(mm, BASE, 1, 0, pages))
    mm.has_pinned = seen["the address space counts as one with pins"] == "yes"
    copied = ctx.work.pages_copied
    child = process.fork()
    seen["pages that the next fork copies at once"] = str(ctx.work.pages_copied - copied)
    unpin_user_pages(ctx, pages)
    child.exit()
    process.munmap(BASE, 64 * PAGE)
    map_file(process, DeviceFile(NothingOps()), MAP_SHARED)
    answers = [_told(with_mmap_lock(process, lambda: get_user_pages(mm, BASE, 1, 0, []))) for _ in range(2)]
    seen["a handler gives nothing: get_user_pages of 1 page"] = answers[0]
    seen["once more"] = answers[1]
    seen["warnings since boot"] = _warnings(process)
    return seen


def _zero_pin(change_id: str) -> ExperimentResult:
    before, after = _sides(change_id, _zero)
    pinned, copies = "the address space counts as one with pins", "pages that the next fork copies at once"
    gave = "a handler gives nothing: get_user_pages of 1 page"
    claims = [
        Claim(
            "asking for no page does nothing; before, it marked the address space",
            (before[pinned], after[pinned]) == ("yes", "no"),
        ),
        Claim("which had later forks copy pages that only look pinned", (before[copies], after[copies]) == ("1", "0")),
        Claim("getting nothing is an error; before, it was 0", (before[gave], after[gave]) == ("0", "-EFAULT")),
        Claim("it is warned of once", (before["warnings since boot"], after["warnings since boot"]) == ("0", "1")),
    ]
    return ExperimentResult(change_id, _rows(before, after), claims)


# -- gup-vma-remote-never-null ----------------------------------------------------------------------------------------


def _uprobe_write(process: Process, addr: int) -> int:
    """How a probe puts its breakpoint into a program: 0, or a negative errno. It passes on what it gets of 0 or less,
    and nothing, NULL, counts as 0 there.
    """
    ctx = process.kernel.mm_ctx
    got = get_user_page_vma_remote(process.mm, addr, FOLL_FORCE | FOLL_WRITE)
    if got is None or isinstance(got, int):
        return got or 0
    pfn, _ = got
    start = pfn << 12 | addr & 4095
    ctx.ram.mem[start : start + 1] = BREAKPOINT
    ctx.pages.nonzero[pfn] = 1
    put_user_page(ctx, pfn)
    return 0


def _probe(change_id: str, *, after: bool) -> dict[str, str]:
    """A probe on ordinary memory, and on a mapping whose handler gives nothing; ``gup-zero-pin-is-error`` is off, or
    there never is nothing.
    """
    without = ["gup-zero-pin-is-error"] if after else ["gup-zero-pin-is-error", change_id]
    with Machine(memory="64M", without=without) as machine:
        process = machine.spawn()
        process.mmap(BASE, PAGE, PROT_READ, ANON)
        usual = _told(with_mmap_lock(process, lambda: _uprobe_write(process, BASE)))
        there = process.read(BASE, 1) == BREAKPOINT
        process.munmap(BASE, PAGE)
        map_file(process, DeviceFile(NothingOps()), MAP_PRIVATE)
        answer = _told(with_mmap_lock(process, lambda: _uprobe_write(process, BASE)))
        copied = process.mm.rss
        unmapped = _told(with_mmap_lock(process, lambda: _uprobe_write(process, BASE + 4096 * PAGE)))
        return {
            "registering a probe": f"{usual}, breakpoint {'written' if there else 'missing'}",
            "where nothing is mapped": unmapped,
            "where a handler gives nothing": f"{answer}, breakpoint {'written' if copied else 'missing'}",
        }


def _never_null(change_id: str) -> ExperimentResult:
    before, after = _probe(change_id, after=False), _probe(change_id, after=True)
    # What the other change makes of it, with this one off and on.
    with Machine(memory="64M", without=[change_id]) as machine:
        process = machine.spawn()
        map_file(process, DeviceFile(NothingOps()), MAP_PRIVATE)
        both = _told(with_mmap_lock(process, lambda: _uprobe_write(process, BASE)))
    name = "where a handler gives nothing"
    rows = [*_rows(before, after), Observation("the same with gup-zero-pin-is-error", both, "-EFAULT")]
    claims = [
        Claim(
            "a probe without a page used to be registered and to do nothing", before[name] == "0, breakpoint missing"
        ),
        Claim("now there is a page or an error", after[name] == "-EINVAL, breakpoint missing"),
        Claim("with gup-zero-pin-is-error it does not come to that", both == "-EFAULT"),
        Claim(
            "every other answer is as before",
            [before[key] for key in before if key != name] == [after[key] for key in after if key != name],
        ),
    ]
    return ExperimentResult(change_id, rows, claims)


_EXPERIMENTS: Final[dict[str, Callable[[str], ExperimentResult]]] = {
    "access-remote-vm-static": _static,
    "gup-internal-flags": _internal_flags,
    "gup-zero-pin-is-error": _zero_pin,
    "gup-vma-remote-never-null": _never_null,
}
