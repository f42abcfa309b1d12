# SPDX-License-Identifier: GPL-2.0-or-later
"""Determinism: budgets of basic blocks, slices, and runs that are the same to the bit."""

from __future__ import annotations

import pytest

from memtwin.cpu.base import TRAP_BUDGET, TRAP_PAGE_FAULT, TRAP_SYSCALL
from memtwin.cpu.tiny import CODE, DATA, W, World
from memtwin.hw.ram import PAGE_SIZE

#: Ten instructions in four blocks a turn, stores to a new page now and then, floating point; ends with a system call.
MIX = bytes.fromhex(
    "4801d8"  # 0: add rax, rbx
    "4831c3"  # 3: xor rbx, rax
    "48c1c007"  # 6: rol rax, 7
    "a801"  # 10: test al, 1
    "7404"  # 12: jz +4
    "f20f58c1"  # 14: addsd xmm0, xmm1
    "a840"  # 18: test al, 0x40
    "750a"  # 20: jnz +10
    "488907"  # 22: mov [rdi], rax
    "4881c700010000"  # 25: add rdi, 256
    "48ffc9"  # 32: dec rcx
    "75db"  # 35: jnz 0
    "0f05"  # 37: syscall
)


def outcome(world: World, turns: int, budget: int) -> tuple[bytes, int, list[int], bytes]:
    """Final state, slices, faulting addresses, and memory, of MIX run in slices of ``budget`` blocks."""
    space = world.space(MIX)
    ctx = space.context(rdi=DATA, rax=0x1234_5678_9ABC_DEF1, rbx=0xFEDC_BA98_7654_3211, rcx=turns)
    slices, faults = 0, []
    while (trap := space.run(ctx, budget)) != TRAP_SYSCALL:
        if trap == TRAP_PAGE_FAULT:
            faults.append(world.cpu.trap_addr)
            space.map(world.cpu.trap_addr & -PAGE_SIZE, W)
        else:
            assert trap == TRAP_BUDGET
            slices += 1
    memory = b"".join(space.peek(page & -PAGE_SIZE, PAGE_SIZE) for page in faults)
    return ctx.snapshot(), slices, faults, memory


@pytest.mark.parametrize("cure", ["live", "blob"])
def test_slices_change_nothing(make, cure: str) -> None:
    whole = outcome(make(cure=cure), 3000, 0)
    assert whole[1] == 0
    assert len(whole[2]) > 50
    for budget in (1, 7, 97):
        sliced = outcome(make(cure=cure, preempt=True), 3000, budget)
        assert sliced[0] == whole[0]
        assert sliced[2:] == whole[2:]
        assert sliced[1] > 10


def test_the_same_run_twice_is_the_same_to_the_bit(make) -> None:
    runs = []
    for _ in range(2):
        world = make(preempt=True)
        runs.append((outcome(world, 5000, 100), world.cpu.blocks, world.cpu.runs, world.cpu.flushes))
    assert runs[0] == runs[1]
    assert runs[0][1] > 10_000


def test_many_slices_with_and_without_machine_code(make) -> None:
    runs = [outcome(make(preempt=True, native=native), 16_000, 4) for native in (True, False)]
    assert runs[0] == runs[1]
    assert runs[0][1] > 11_000


def test_blocks_are_counted_exactly(make) -> None:
    world = make(preempt=True)
    space = world.space(bytes.fromhex("ffc3 ffc9 75fa 0f05"))  # inc ebx; dec ecx; jnz back; syscall
    ctx = space.context(rcx=100)
    assert space.run(ctx) == TRAP_SYSCALL
    assert world.cpu.blocks == 101
    ctx = space.context(rcx=100)
    for n in range(1, 11):
        assert space.run(ctx, 10) == TRAP_BUDGET
        assert (ctx.rbx, ctx.rip) == (10 * n, CODE if n < 10 else CODE + 6)
        assert world.cpu.blocks == 101 + 10 * n
    assert space.run(ctx, 10) == TRAP_SYSCALL
    assert world.cpu.blocks == 202


def test_a_budget_that_is_just_enough_or_just_not(make) -> None:
    world = make(preempt=True)
    space = world.space(bytes.fromhex("ffc9 75fc 0f05"))  # dec ecx; jnz back; syscall
    for budget, trap in ((9, TRAP_BUDGET), (10, TRAP_BUDGET), (11, TRAP_SYSCALL), (12, TRAP_SYSCALL)):
        assert space.run(space.context(rcx=10), budget) == trap


def test_two_endless_threads_share_the_cpu(make) -> None:
    world = make(preempt=True)
    spaces = [world.space(bytes.fromhex("48ffc3 ebfb")) for _ in range(2)]  # inc rbx; jmp back
    threads = [space.context() for space in spaces]
    for turn in range(100):
        space, ctx = spaces[turn % 2], threads[turn % 2]
        assert space.run(ctx, 50) == TRAP_BUDGET
    assert [ctx.rbx for ctx in threads] == [2500, 2500]
