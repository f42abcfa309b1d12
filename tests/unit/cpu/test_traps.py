# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls, exceptions, CPUID and RDTSC."""

from __future__ import annotations

import pytest

from memtwin.cpu.base import (
    TRAP_EXCEPTION,
    TRAP_PAGE_FAULT,
    TRAP_SYSCALL,
    X86_TRAP_BP,
    X86_TRAP_DB,
    X86_TRAP_DE,
    X86_TRAP_GP,
    X86_TRAP_MF,
    X86_TRAP_OF,
    X86_TRAP_UD,
)
from memtwin.cpu.tiny import CODE, STACK, W, World
from memtwin.hw.ram import PAGE_SIZE

SYSCALLS = bytes.fromhex("0f05 ffc3 ebfa")  # syscall; inc ebx; jmp back
NOT_CANONICAL = 1 << 47


def test_a_loop_of_system_calls(world: World) -> None:
    space = world.space(SYSCALLS)
    ctx = space.context()
    for n in range(1000):
        ctx.rax = 39
        assert space.run(ctx) == TRAP_SYSCALL
        assert ctx.rip == ctx.rcx == CODE + 2
        assert ctx.rbx == n
        # What INC left in the flags is what SYSCALL saves.
        assert ctx.r11 == ctx.rflags
        assert ctx.r11 & 0x40 == 0
        assert ctx.rax == 39
        ctx.rax = 1000 + n
        ctx.r11 = ctx.rcx = 0


@pytest.mark.parametrize(("carry", "flags"), [("f9", 0x203), ("f8", 0x202), ("31c0", 0x246), ("fd", 0x602)])
def test_r11_has_the_flags(world: World, carry: str, flags: int) -> None:
    space = world.space(bytes.fromhex(carry + "0f05"))
    ctx = space.context()
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.r11 == ctx.rflags == flags


def test_arguments(world: World) -> None:
    space = world.space(SYSCALLS)
    ctx = space.context(rax=9, rdi=1, rsi=2, rdx=3, r10=4, r8=5, r9=(1 << 64) - 1)
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.syscall_args() == (9, 1, 2, 3, 4, 5, (1 << 64) - 1)


def test_the_kernel_may_send_a_thread_elsewhere(world: World) -> None:
    """What sigreturn and execve do: RIP and every other register as the kernel half says, no two bytes added."""
    space = world.space(bytes.fromhex("0f05 0f0b 0f05"))
    ctx = space.context()
    assert space.run(ctx) == TRAP_SYSCALL
    ctx.rip, ctx.rcx, ctx.rax = CODE + 4, 77, 5
    ctx.rflags = 0x202 | 0x8D5
    assert space.run(ctx) == TRAP_SYSCALL
    assert (ctx.rip, ctx.rax, ctx.rflags, ctx.r11) == (CODE + 6, 5, 0x202 | 0x8D5, 0x202 | 0x8D5)
    ctx.rip = CODE  # restart of an interrupted call
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.rip == CODE + 2


@pytest.mark.parametrize(
    ("code", "vector", "error", "moved"),
    [
        ("31c9 f7f1", X86_TRAP_DE, 0, 2),  # xor ecx, ecx; div ecx
        ("0f0b", X86_TRAP_UD, 0, 0),  # ud2
        ("06", X86_TRAP_UD, 0, 0),  # push es: not in 64-bit mode
        ("0f01d0", X86_TRAP_UD, 0, 0),  # xgetbv
        ("0fc7f0", X86_TRAP_UD, 0, 0),  # rdrand
        ("0f01f9", X86_TRAP_UD, 0, 0),  # rdtscp
        ("f3480faed0", X86_TRAP_UD, 0, 0),  # wrfsbase
        ("0f01c1", X86_TRAP_UD, 0, 0),  # vmcall
        ("cc", X86_TRAP_BP, 0, 1),  # int3
        ("cd03", X86_TRAP_BP, 0, 2),
        ("cd04", X86_TRAP_OF, 0, 2),
        ("cd80", X86_TRAP_GP, 0x402, 0),  # int 0x80
        ("cd0e", X86_TRAP_GP, 0x72, 0),  # int 14 is not a page fault
        ("f4", X86_TRAP_GP, 0, 0),  # hlt
        ("fa", X86_TRAP_GP, 0, 0),  # cli
        ("0f32", X86_TRAP_GP, 0, 0),  # rdmsr
        ("0f20d8", X86_TRAP_GP, 0, 0),  # mov rax, cr3
        ("480f07", X86_TRAP_GP, 0, 0),  # sysretq
        ("0f01f8", X86_TRAP_GP, 0, 0),  # swapgs
        ("488b07", X86_TRAP_GP, 0, 0),  # mov rax, [rdi], not canonical
        ("d9e8 d9ee def9 9b", X86_TRAP_MF, 0, 6),  # 1.0 / 0.0 and fwait
    ],
)
def test_exceptions(world: World, code: str, vector: int, error: int, moved: int) -> None:
    space = world.space(bytes.fromhex(code))
    ctx = space.context(rdi=NOT_CANONICAL)
    if vector == X86_TRAP_MF:
        area = bytearray(ctx.fxsave())
        area[0:2] = (0x37B).to_bytes(2, "little")  # unmask division by zero
        ctx.fxrstor(bytes(area))
    for _ in range(3 if not moved else 1):
        assert space.run(ctx) == TRAP_EXCEPTION
        assert (world.cpu.trap_vector, world.cpu.trap_error, ctx.rip) == (vector, error, CODE + moved)


def test_masked_floating_point_exceptions_are_silent(world: World) -> None:
    space = world.space(bytes.fromhex("d9e8 d9ee def9 9b 0f05"))
    assert space.run(space.context()) == TRAP_SYSCALL


def test_exceptions_between_page_faults(world: World) -> None:
    """Contributory exceptions (0, 13) before and after a page fault: none of them may become a double fault."""
    space = world.space(bytes.fromhex("f7f1"))
    space.load(CODE + PAGE_SIZE, bytes.fromhex("488b07"))
    for _ in range(5):
        for rip, rdi, kind, vector in (
            (CODE, 0, TRAP_EXCEPTION, X86_TRAP_DE),
            (CODE + PAGE_SIZE, 0x1000, TRAP_PAGE_FAULT, None),
            (CODE + PAGE_SIZE, NOT_CANONICAL, TRAP_EXCEPTION, X86_TRAP_GP),
            (CODE + PAGE_SIZE, NOT_CANONICAL, TRAP_EXCEPTION, X86_TRAP_GP),
            (CODE, 0, TRAP_EXCEPTION, X86_TRAP_DE),
        ):
            assert space.run(space.context(rip, rdi=rdi)) == kind
            assert vector in (None, world.cpu.trap_vector)


def test_jump_to_an_address_that_is_not_canonical(world: World) -> None:
    space = world.space(bytes.fromhex("ffe7"))
    ctx = space.context(rdi=NOT_CANONICAL)
    assert space.run(ctx) == TRAP_EXCEPTION
    assert world.cpu.trap_vector == X86_TRAP_GP


def test_single_step(world: World) -> None:
    space = world.space(b"\x90" * 8)
    ctx = space.context()
    ctx.rflags |= 0x100
    for n in range(1, 5):
        assert space.run(ctx) == TRAP_EXCEPTION
        assert (world.cpu.trap_vector, ctx.rip) == (X86_TRAP_DB, CODE + n)


def test_cpuid_is_ours_and_has_nothing_that_we_can_not_run(world: World) -> None:
    space = world.space(bytes.fromhex("0fa2 0f05"))  # cpuid; syscall

    def cpuid(leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
        ctx = space.context(rax=leaf | 0xABCD << 32, rcx=subleaf, rbx=(1 << 64) - 1)
        # RCX is overwritten by SYSCALL: keep CPUID's answer by single steps.
        ctx.rflags |= 0x100
        assert space.run(ctx) == TRAP_EXCEPTION
        return ctx.rax, ctx.rbx, ctx.rcx, ctx.rdx

    top, b, c, d = cpuid(0)
    assert top >= 4
    assert b"".join(part.to_bytes(4, "little") for part in (b, d, c)) == b"GenuineIntel"
    brand = b"".join(part.to_bytes(4, "little") for leaf in range(3) for part in cpuid(0x8000_0002 + leaf))
    assert brand.rstrip(b"\0") == b"memtwin simulated CPU"
    _, _, ecx, edx = cpuid(1)
    assert edx >> 26 & 1  # SSE2
    assert ecx & (1 << 28 | 1 << 30 | 1 << 26 | 1 << 27 | 1 << 12) == 0  # AVX, RDRAND, XSAVE, OSXSAVE, FMA
    assert cpuid(0x8000_0001)[3] >> 27 & 1 == 0  # RDTSCP
    assert cpuid(7) == (0, 0, 0, 0)  # ERMS, AVX2, FSGSBASE
    sizes = []
    while (cache := cpuid(4, len(sizes)))[0] & 31:
        ways, line, sets = (cache[1] >> 22) + 1, (cache[1] & 0xFFF) + 1, cache[2] + 1
        sizes.append(ways * line * sets >> 10)
    assert sizes == [32, 32, 256, 8192]
    assert cpuid(0x1234_5678) == (0, 0, 0, 0)


def test_rdtsc_reads_virtual_time(world: World) -> None:
    space = world.space(bytes.fromhex("0f31 0f0b"))  # rdtsc; ud2
    world.time = (5 << 32) + 7
    ctx = space.context(rax=(1 << 64) - 1, rdx=(1 << 64) - 1)
    assert space.run(ctx) == TRAP_EXCEPTION
    assert (ctx.rdx, ctx.rax) == (5, 1007)
    ctx.rip = CODE
    assert space.run(ctx) == TRAP_EXCEPTION
    assert (ctx.rdx, ctx.rax) == (5, 2007)


@pytest.mark.parametrize("cure", ["live", "blob"])
def test_an_exception_of_the_clock_reaches_the_caller(make, cure: str) -> None:
    def broken() -> int:
        raise ZeroDivisionError("no clock")

    world = make(cure=cure, tsc=broken)
    space = world.space(bytes.fromhex("0f31 ebfc"))  # rdtsc; jmp back: would never end
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="no clock"):
            space.run(space.context())
    other = world.space(SYSCALLS)
    assert other.run(other.context()) == TRAP_SYSCALL


def test_interrupt_from_another_thread(make) -> None:
    import threading

    from memtwin.cpu.base import TRAP_INTERRUPTED

    world = make()
    space = world.space(bytes.fromhex("ffc3 ebfc"))  # inc ebx; jmp back
    ctx = space.context()
    timer = threading.Timer(0.05, world.cpu.interrupt)
    timer.start()
    assert space.run(ctx) == TRAP_INTERRUPTED
    timer.join()
    assert ctx.rbx > 0
    assert ctx.rip in (CODE, CODE + 2)


def test_the_stack_works(world: World) -> None:
    space = world.space(bytes.fromhex("e802000000 0f05 58 50 c3"))  # call +2; syscall; pop rax; push rax; ret
    space.map(STACK - PAGE_SIZE, W)
    ctx = space.context(rsp=STACK)
    assert space.run(ctx) == TRAP_SYSCALL
    assert (ctx.rax, ctx.rsp) == (CODE + 5, STACK)
