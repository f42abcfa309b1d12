# SPDX-License-Identifier: GPL-2.0-or-later
"""Thread contexts: switches between address spaces, copies, x87 and SSE state, segment bases."""

from __future__ import annotations

import struct
import subprocess

import pytest

from memtwin.cpu.base import TRAP_PAGE_FAULT, TRAP_SYSCALL
from memtwin.cpu.tiny import CODE, DATA, W, World

#: inc qword [rdi]; add rax, [rdi]; rol rax, 7; syscall; jmp back
STEP = bytes.fromhex("48ff07 480307 48c1c007 0f05 ebf2")


def test_a_new_context_is_what_a_new_program_finds(world: World) -> None:
    ctx = world.cpu.new_context()
    assert list(ctx.q[:17]) == [0] * 17
    assert (ctx.rflags, ctx.fs_base, ctx.gs_base) == (0x202, 0, 0)
    control, status, tags, mxcsr = struct.unpack_from("<HHB19xI", ctx.fxsave())
    assert (control, status, tags, mxcsr) == (0x37F, 0, 0, 0x1F80)
    assert ctx.fxsave()[32:] == bytes(480)


def test_registers_are_separate_words(world: World) -> None:
    ctx = world.cpu.new_context()
    listed = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip fs_base gs_base"
    names = listed.split()
    for n, name in enumerate(names):
        setattr(ctx, name, 1000 + n)
    assert [getattr(ctx, name) for name in names] == list(range(1000, 1019))
    with pytest.raises(ValueError, match=r"."):
        ctx.rax = -1
    with pytest.raises(ValueError, match=r"."):
        ctx.rax = 1 << 64


def test_every_register_reaches_the_program_and_comes_back(world: World) -> None:
    """A push of each register shows what the program sees."""
    push = bytes(range(0x50, 0x58)) + b"".join(bytes((0x41, n)) for n in range(0x50, 0x58))
    space = world.space(push + b"\x9c\x0f\x0b")  # pushfq; ud2
    space.map(DATA, W)
    ctx = space.context()
    values = [0x1111_2222_3333_0000 + n for n in range(16)]
    values[4] = DATA + 4096
    for n, value in enumerate(values):
        ctx.q[n] = value
    ctx.rflags = 0xAD7
    assert space.run(ctx) != TRAP_PAGE_FAULT
    seen = struct.unpack("<17Q", space.peek(DATA + 4096 - 17 * 8, 17 * 8))[::-1]
    expected = values.copy()
    expected[4] -= 4 * 8  # four pushes before its own
    assert list(seen) == [*expected, 0xAD7]
    values[4] -= 17 * 8
    assert list(ctx.q[:16]) == values


def test_two_threads_in_two_address_spaces(world: World) -> None:
    """Same code, same addresses, different frames: run alternately and one after the other, the outcome is the same."""

    def outcome(turns: list[int]) -> list[tuple[bytes, bytes]]:
        spaces = [world.space(STEP) for _ in range(2)]
        threads = []
        for n, space in enumerate(spaces):
            space.load(DATA, struct.pack("<Q", 100 * n), W)
            threads.append(space.context(rdi=DATA, rax=n + 1, rbx=n))
        for turn in turns:
            assert spaces[turn].run(threads[turn]) == TRAP_SYSCALL
        assert [thread.rbx for thread in threads] == [0, 1]
        return [(thread.snapshot(), space.peek(DATA, 8)) for thread, space in zip(threads, spaces, strict=True)]

    apart = outcome([0] * 20 + [1] * 20)
    mixed = outcome([0, 1] * 20)
    assert apart == mixed
    assert [struct.unpack("<Q", memory)[0] for _, memory in mixed] == [20, 120]


def test_threads_of_one_address_space_need_no_flush(world: World) -> None:
    space = world.space(STEP)
    space.map(DATA, W)
    threads = [space.context(rdi=DATA) for _ in range(3)]
    for _ in range(5):
        for thread in threads:
            assert space.run(thread) == TRAP_SYSCALL
    assert struct.unpack("<Q", space.peek(DATA, 8))[0] == 15
    assert (world.cpu.flushes, world.cpu.runs) == (1, 15)
    if world.cpu.cure == "live":
        assert world.cpu.switches == 15


def test_switches_are_lazy(world: World) -> None:
    space = world.space(STEP)
    space.map(DATA, W)
    thread, idle = space.context(rdi=DATA), space.context(rax=5)
    before = world.cpu.switches
    for _ in range(5):
        assert space.run(thread) == TRAP_SYSCALL
        assert idle.rax == 5
    if world.cpu.cure == "live":
        assert world.cpu.switches == before + 1


def test_fork(world: World) -> None:
    """The child has the parent's registers at the moment of the call, and then its own."""
    space = world.space(STEP)
    space.map(DATA, W)
    parent = space.context(rdi=DATA, rax=3, rbx=4)
    parent.fs_base = 0x1234
    assert space.run(parent) == TRAP_SYSCALL
    child = world.cpu.new_context(parent)
    assert child.snapshot() == parent.snapshot()
    child.rax = 0
    assert parent.rax != 0
    assert space.run(child) == TRAP_SYSCALL
    assert space.run(parent) == TRAP_SYSCALL
    grandchild = world.cpu.new_context(child)  # of a context that is not live
    assert grandchild.snapshot() == child.snapshot()
    assert grandchild.fs_base == 0x1234


def test_execve_resets_a_live_context(world: World) -> None:
    space = world.space(bytes.fromhex("d9eb f30f6f07 0f05"))  # fldpi; movdqu xmm0, [rdi]; syscall
    space.load(DATA, b"x" * 16, W)
    ctx = space.context(rdi=DATA, rbp=9)
    ctx.fs_base = 77
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.snapshot() != world.cpu.new_context().snapshot()
    ctx.reset()
    assert ctx.snapshot() == world.cpu.new_context().snapshot()
    ctx.rip = CODE
    ctx.rdi = DATA
    assert space.run(ctx) == TRAP_SYSCALL


def test_x87_and_sse_state_survive_switches(world: World) -> None:
    load = bytes.fromhex(
        "d9eb d9e8"  # fldpi; fld1
        "f30f6f07 f3440f6f7f10"  # movdqu xmm0, [rdi]; movdqu xmm15, [rdi + 16]
        "0fae5720 d96f24"  # ldmxcsr [rdi + 32]; fldcw [rdi + 36]
        "0f05"
    )
    space = world.space(load)
    patterns = [bytes(range(n, n + 32)) + struct.pack("<IH", 0x1F80 | n << 13, 0x37F & ~(n << 8)) for n in range(3)]
    threads = []
    for n, pattern in enumerate(patterns):
        space.load(DATA + n * 4096, pattern, W)
        threads.append(space.context(rdi=DATA + n * 4096))
        assert space.run(threads[n]) == TRAP_SYSCALL
    saved = [thread.fxsave() for thread in threads]
    for n, (area, pattern) in enumerate(zip(saved, patterns, strict=True)):
        control, status, tags, mxcsr = struct.unpack_from("<HHB19xI", area)
        assert (control, mxcsr) == (0x37F & ~(n << 8), 0x1F80 | n << 13)
        assert status >> 11 & 7 == 6  # two registers pushed
        assert tags == 0b1100_0000
        assert area[32:42] == bytes(7) + bytes.fromhex("80ff3f")  # ST0 = 1.0
        assert area[48:58] == bytes.fromhex("35c26821a2da0fc90040")  # ST1 = pi
        assert area[160:176] == pattern[:16]
        assert area[400:416] == pattern[16:32]
    # Touch it from other threads and in other ways, then look again.
    other = world.space(bytes.fromhex("660fefc0 dbe3 0f05"))  # pxor xmm0, xmm0; fninit; syscall
    assert other.run(other.context()) == TRAP_SYSCALL
    assert [thread.fxsave() for thread in threads] == saved
    # The round trip through memory that a signal frame is.
    fresh = space.context()
    fresh.fxrstor(saved[1])
    assert fresh.fxsave() == saved[1]


def test_fxsave_agrees_with_the_instruction(world: World) -> None:
    code = bytes.fromhex("d9eb d9e8 f30f6f07 480fae06 0f05")  # fldpi; fld1; movdqu xmm0, [rdi]; fxsave64 [rsi]; syscall
    space = world.space(code)
    space.load(DATA, b"\xa5" * 16, W)
    space.map(DATA + 4096, W)
    ctx = space.context(rdi=DATA, rsi=DATA + 4096)
    assert space.run(ctx) == TRAP_SYSCALL
    ours, theirs = ctx.fxsave(), space.peek(DATA + 4096, 512)
    assert ours[:6] == theirs[:6]  # control, status, tags; then come opcode and pointers
    assert ours[24:416] == theirs[24:416]


def test_fxrstor_wants_the_whole_area(world: World) -> None:
    with pytest.raises(ValueError, match="512"):
        world.cpu.new_context().fxrstor(b"short")


def test_rounding_follows_the_restored_control_words(world: World) -> None:
    space = world.space(bytes.fromhex("df3e 0f05"))  # fistp qword [rsi]; syscall
    space.map(DATA, W)
    # 1.5 in ST0
    area = bytearray(world.cpu.new_context().fxsave())
    area[2:4] = (7 << 11).to_bytes(2, "little")
    area[4] = 0x80
    area[32:42] = (0xC000_0000_0000_0000).to_bytes(8, "little") + (0x3FFF).to_bytes(2, "little")
    results = []
    for rounding in range(4):  # nearest even, down, up, towards zero
        area[0:2] = (0x37F | rounding << 10).to_bytes(2, "little")
        ctx = space.context(rsi=DATA)
        ctx.fxrstor(bytes(area))
        assert space.run(ctx) == TRAP_SYSCALL
        results.append(space.peek(DATA, 1)[0])
    assert results == [2, 1, 2, 1]


def test_segment_bases(world: World) -> None:
    code = bytes.fromhex("6448890425 10000000 65488b1c25 18000000 0f05")  # mov fs:[0x10], rax; mov rbx, gs:[0x18]
    space = world.space(code)
    for n in range(2):
        space.load(DATA + n * 4096, struct.pack("<4Q", 0, 0, 0, 30 + n), W)
    threads = []
    for n in range(2):
        ctx = space.context(rax=70 + n)
        ctx.fs_base, ctx.gs_base = DATA + n * 4096, DATA + (1 - n) * 4096
        threads.append(ctx)
    for _ in range(2):
        for n, ctx in enumerate(threads):
            ctx.rip = CODE
            assert space.run(ctx) == TRAP_SYSCALL
            assert ctx.rbx == 31 - n
            assert space.peek(DATA + n * 4096 + 16, 1)[0] == 70 + n
    threads[0].fs_base = 0  # while another context is live
    threads[0].rip = CODE
    assert space.run(threads[0]) == TRAP_PAGE_FAULT
    assert world.cpu.trap_addr == 0x10


def test_a_closed_context_is_gone(world: World) -> None:
    space = world.space(STEP)
    space.map(DATA, W)
    ctx, other = space.context(rdi=DATA), space.context(rdi=DATA)
    assert space.run(ctx) == TRAP_SYSCALL
    ctx.close()
    ctx.close()
    with pytest.raises(IndexError):
        _ = ctx.rax
    with pytest.raises(IndexError):
        space.run(ctx)
    assert space.run(other) == TRAP_SYSCALL


def test_many_contexts_come_and_go() -> None:
    """Contexts that nobody closes are freed with their Python object."""
    code = """
import resource
from memtwin.cpu.tiny import World
world = World()
for _ in range(2000): world.cpu.new_context()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(20000): world.cpu.new_context()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    import sys

    grown = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert grown < 4096  # KiB; 20000 contexts of 5.6 KB would be 112 MB
