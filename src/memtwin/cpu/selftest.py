# SPDX-License-Identifier: GPL-2.0-or-later
"""Does the CPU do here what it did where it was built? A second's worth of checks on a machine of its own.

Run ``python -m memtwin.cpu.selftest`` after a change of Unicorn, of Python or of the host: it tries both cures of
unicorn issue #1883 and both kinds of callbacks, and measures what a trap costs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from memtwin.cpu.base import (
    TRAP_BUDGET,
    TRAP_EXCEPTION,
    TRAP_NAMES,
    TRAP_PAGE_FAULT,
    TRAP_SYSCALL,
    X86_TRAP_DE,
    X86_TRAP_UD,
)
from memtwin.cpu.tiny import CODE, DATA, R, W, World
from memtwin.errors import BadInput
from memtwin.hw.paging import ACCESSED, DIRTY, PF_PROT, PF_USER, PF_WRITE
from memtwin.hw.ram import PAGE_SIZE

__all__ = ["Check", "selftest"]

_STORE = bytes.fromhex("488907 4881c700100000 ebf4")  # mov [rdi], rax; add rdi, 4096; jmp back
_CALL = bytes.fromhex("0f05 ffc3 ebfa")  # syscall; inc ebx; jmp back
_COUNT = bytes.fromhex("4801d8 4831c3 48c1c007 48ffc9 75f1 0f05")  # add, xor, rol, dec rcx, jnz back; syscall


@dataclass(frozen=True, slots=True)
class Check:
    """One claim: its name, whether it held, and what was seen."""

    name: str
    passed: bool
    seen: str


def selftest(cure: str | None = None, native: bool | None = None) -> list[Check]:
    """Check a CPU with the given cure and kind of callbacks (None: the fastest that works here). Raises BadInput."""
    world = World(cure=cure, native=native, preempt=True)
    checks: list[Check] = []

    def claim(name: str, seen: object, expected: object) -> None:
        checks.append(Check(name, seen == expected, f"{seen}" if seen == expected else f"{seen}, not {expected}"))

    try:
        _page_faults(world, claim)
        _traps(world, claim)
        _slices(world, claim)
    finally:
        world.close()
    return checks


def _page_faults(world: World, claim: Callable[[str, object, object], None]) -> None:
    cpu = world.cpu
    space = world.space(_STORE)
    ctx = space.context(rdi=DATA)
    seen, expected = [], []
    for n in range(4):
        seen.append((space.run(ctx), cpu.trap_vector, cpu.trap_addr, cpu.trap_error))
        expected.append((TRAP_PAGE_FAULT, 0, DATA + n * PAGE_SIZE, PF_USER | PF_WRITE))
        space.map(DATA + n * PAGE_SIZE, W)
    claim("four page faults in a row", seen, expected)
    claim("the last fault starts no flush", cpu.flushes, 1)
    space.run(ctx)
    bits = [space.flags(DATA + n * PAGE_SIZE) & (ACCESSED | DIRTY) for n in range(4)]
    claim("accessed and dirty bits", bits, [ACCESSED | DIRTY] * 4)
    space.protect(DATA, R)
    ctx.rip, ctx.rdi = CODE, DATA
    claim("a page made read-only faults", space.run(ctx), TRAP_PAGE_FAULT)
    claim("with its error code", cpu.trap_error, PF_USER | PF_PROT | PF_WRITE)
    add = world.space(bytes.fromhex("48ff07"))  # inc qword [rdi]
    claim("inc of an absent page is a trap", add.run(add.context(rdi=DATA)), TRAP_PAGE_FAULT)
    claim("namely a write", cpu.trap_error, PF_USER | PF_WRITE)


def _traps(world: World, claim: Callable[[str, object, object], None]) -> None:
    cpu = world.cpu
    space = world.space(_CALL)
    ctx = space.context()
    traps = [space.run(ctx) for _ in range(3)]
    claim("three system calls", (traps, ctx.rip, ctx.rcx, ctx.rbx), ([TRAP_SYSCALL] * 3, CODE + 2, CODE + 2, 2))
    for name, code, vector in (("division by zero", "31c9 f7f1", X86_TRAP_DE), ("ud2", "0f0b", X86_TRAP_UD)):
        space = world.space(bytes.fromhex(code))
        claim(name, (space.run(space.context()), cpu.trap_vector), (TRAP_EXCEPTION, vector))


def _slices(world: World, claim: Callable[[str, object, object], None]) -> None:
    space = world.space(_COUNT)
    states = []
    for budget in (0, 7):
        ctx = space.context(rcx=1000, rax=1, rbx=3)
        while (trap := space.run(ctx, budget)) == TRAP_BUDGET:
            pass
        states.append((TRAP_NAMES[trap], ctx.snapshot()))
    claim("slices end as the whole run does", states[1], states[0])


def _rate(name: str, count: int, work: Callable[[], object]) -> str:
    start = time.perf_counter()
    work()
    return f"{name} {(time.perf_counter() - start) / count * 1e6:.2f} us"


def _measure(cure: str, native: bool) -> str:
    """Costs of this host, for people; nothing depends on them."""
    begun = time.perf_counter()
    world = World(cure=cure, native=native)
    costs = [f"start-up {(time.perf_counter() - begun) * 1e3:.1f} ms"]
    count = 20_000
    calls, faults, loop = (world.space(code) for code in (_CALL, _STORE, _COUNT))
    ctx = calls.context()
    costs.append(_rate("system call", count, lambda: [calls.run(ctx) for _ in range(count)]))
    faulting = faults.context(rdi=DATA)
    costs.append(_rate("page fault", count, lambda: [faults.run(faulting) for _ in range(count)]))
    pair = [calls.context(), calls.context()]
    costs.append(_rate("thread switch", count, lambda: [calls.run(pair[n & 1]) for n in range(count)]))
    turns = 20_000_000
    begun = time.perf_counter()
    loop.run(loop.context(rcx=turns))
    costs.append(f"{turns * 5e-6 / (time.perf_counter() - begun):.0f} million instructions a second")
    world.close()
    return ", ".join(costs)


def main() -> int:
    """Print the checks and costs of every combination; 1 if one failed."""
    failed = 0
    for cure in ("live", "blob"):
        for native in (True, False):
            title = f"cure {cure}, {'machine code' if native else 'Python'} callbacks"
            try:
                checks = selftest(cure, native)
                wrong = [check for check in checks if not check.passed]
                print(f"{title}: {len(checks) - len(wrong)} of {len(checks)} hold; {_measure(cure, native)}")
            except BadInput as error:
                print(f"{title}: {error}")
                continue
            for check in wrong:
                print(f"  {check.name}: {check.seen}")
            failed += len(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
