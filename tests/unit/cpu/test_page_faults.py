# SPDX-License-Identifier: GPL-2.0-or-later
"""Page faults: exact addresses and error codes, restartable instructions, A and D bits."""

from __future__ import annotations

import pytest

from memtwin.cpu.base import R8, RBX, TRAP_PAGE_FAULT, TRAP_SYSCALL
from memtwin.cpu.tiny import CODE, DATA, STACK, R, W, World, X
from memtwin.errors import InvariantBroken
from memtwin.hw.paging import (
    ACCESSED,
    DIRTY,
    NX,
    PF_INSTR,
    PF_PROT,
    PF_USER,
    PF_WRITE,
    PFN_MASK,
    PRESENT,
    PSE,
    RW,
    USER,
)
from memtwin.hw.ram import PAGE_SIZE

READ = bytes.fromhex("488b07 0f05")  # mov rax, [rdi]; syscall
WRITE = bytes.fromhex("488907 0f05")  # mov [rdi], rax; syscall
JUMP = bytes.fromhex("ffe7")  # jmp rdi
LOCK_ADD = bytes.fromhex("f048830701 0f05")  # lock add qword [rdi], 1; syscall
#: mov [rdi], rax; add rdi, 4096; jmp back
WALK = bytes.fromhex("488907 4881c700100000 ebf4")


@pytest.mark.parametrize(
    ("code", "flags", "error"),
    [
        (READ, None, PF_USER),
        (WRITE, None, PF_USER | PF_WRITE),
        (JUMP, None, PF_USER | PF_INSTR),
        (READ, PRESENT | NX, PF_USER | PF_PROT),  # a supervisor page
        (WRITE, PRESENT | RW | NX, PF_USER | PF_PROT | PF_WRITE),
        (WRITE, R, PF_USER | PF_PROT | PF_WRITE),
        (LOCK_ADD, R, PF_USER | PF_PROT | PF_WRITE),
        (LOCK_ADD, None, PF_USER | PF_WRITE),
        (JUMP, W, PF_USER | PF_PROT | PF_INSTR),  # NX
        (JUMP, PRESENT, PF_USER | PF_PROT | PF_INSTR),
    ],
)
def test_address_and_error_code(world: World, code: bytes, flags: int | None, error: int) -> None:
    space = world.space(code)
    if flags is not None:
        space.map(DATA, flags)
    address = DATA + 0x123
    ctx = space.context(rdi=address, rax=7)
    for _ in range(3):  # the same fault again and again stays the same fault
        assert space.run(ctx) == TRAP_PAGE_FAULT
        assert (world.cpu.trap_addr, world.cpu.trap_error) == (address, error)
        assert ctx.rip == (address if code is JUMP else CODE)
        assert ctx.rax == 7


def test_a_fault_at_any_level_of_the_tables(world: World) -> None:
    space = world.space(READ)
    space.map(DATA, R)
    table = space.pgd
    for shift in (39, 30, 21):
        at = (table << 9) + (DATA >> shift & 511)
        entry = world.ram.q[at]
        world.ram.q[at] = 0
        space.tlb.flush(1)
        assert space.run(space.context(rdi=DATA)) == TRAP_PAGE_FAULT
        assert world.cpu.trap_error == PF_USER
        world.ram.q[at] = entry & ~USER
        space.tlb.flush(1)
        assert space.run(space.context(rdi=DATA)) == TRAP_PAGE_FAULT
        assert world.cpu.trap_error == PF_USER | PF_PROT
        world.ram.q[at] = entry
        table = (entry & PFN_MASK) >> 12
    space.tlb.flush(1)
    assert space.run(space.context(rdi=DATA)) == TRAP_SYSCALL


def test_a_thousand_faults_in_a_row(world: World) -> None:
    space = world.space(WALK)
    ctx = space.context(rdi=DATA)
    target = world.frame()
    for n in range(1000):
        assert space.run(ctx) == TRAP_PAGE_FAULT
        assert (world.cpu.trap_addr, world.cpu.trap_error) == (DATA + n * PAGE_SIZE, PF_USER | PF_WRITE)
        space.map(world.cpu.trap_addr, W, target)
    assert world.cpu.flushes == 1  # never-present to present asks for no flush


def test_two_mebibyte_pages(world: World) -> None:
    space = world.space(WRITE)
    at = (space.entry(DATA) >> 9, 0)  # makes the tables; the last one is not needed
    pmd = next(
        n for n in range(world.ram.size // 8) if world.ram.q[n] & PFN_MASK == at[0] << 12 and world.ram.q[n] & PRESENT
    )
    huge = 0x20_0000
    world.ram.q[pmd] = huge | W | PSE
    assert space.run(space.context(rdi=DATA + 0x1F_F008, rax=5)) == TRAP_SYSCALL
    assert world.ram.q[(huge + 0x1F_F008) >> 3] == 5
    assert world.ram.q[pmd] & (ACCESSED | DIRTY) == ACCESSED | DIRTY


def test_accessed_and_dirty_bits_are_what_the_program_did(world: World) -> None:
    space = world.space(
        bytes.fromhex(
            "488b07"  # mov rax, [rdi]
            "488906"  # mov [rsi], rax
            "0f05"
        )
    )
    pages = [DATA + n * PAGE_SIZE for n in range(4)]
    for page in pages:
        space.map(page, W)
    ctx = space.context(rdi=pages[1], rsi=pages[2])
    assert space.run(ctx) == TRAP_SYSCALL
    bits = ACCESSED | DIRTY
    assert [space.flags(page) & bits for page in pages] == [0, ACCESSED, bits, 0]
    assert space.flags(CODE) & bits == ACCESSED
    # A page that was read and then is written: D comes with the first write.
    ctx.rip, ctx.rsi = CODE, pages[1]
    assert space.run(ctx) == TRAP_SYSCALL
    assert space.flags(pages[1]) & bits == bits
    # Cleared bits come back after a flush.
    space.protect(pages[1], W)
    assert space.flags(pages[1]) & bits == 0
    ctx.rip, ctx.rsi = CODE, pages[2]
    assert space.run(ctx) == TRAP_SYSCALL
    assert space.flags(pages[1]) & bits == ACCESSED


def test_a_faulting_write_leaves_the_bits_alone(world: World) -> None:
    space = world.space(WRITE)
    space.map(DATA, R)
    assert space.run(space.context(rdi=DATA)) == TRAP_PAGE_FAULT
    assert space.flags(DATA) & DIRTY == 0


def test_rights_taken_away_are_seen_after_a_flush(world: World) -> None:
    space = world.space(WRITE)
    space.map(DATA, W)
    ctx = space.context(rdi=DATA)
    assert space.run(ctx) == TRAP_SYSCALL
    space.protect(DATA, R)
    ctx.rip = CODE
    assert space.run(ctx) == TRAP_PAGE_FAULT
    assert world.cpu.trap_error == PF_USER | PF_PROT | PF_WRITE
    space.protect(DATA, W)
    assert space.run(ctx) == TRAP_SYSCALL
    space.unmap(DATA)
    ctx.rip = CODE
    assert space.run(ctx) == TRAP_PAGE_FAULT
    assert world.cpu.trap_error == PF_USER | PF_WRITE


def test_a_frame_exchanged_under_a_page_is_seen_after_a_flush(world: World) -> None:
    space = world.space(READ)
    first, second = space.map(DATA, R), world.frame()
    world.ram.q[first << 9], world.ram.q[second << 9] = 11, 22
    ctx = space.context(rdi=DATA)
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.rax == 11
    space.map(DATA, R, second)
    space.tlb.flush(1)
    ctx.rip = CODE
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.rax == 22


def test_rep_movs_restarts_where_it_faulted(world: World) -> None:
    space = world.space(bytes.fromhex("f3a4 0f05"))  # rep movsb; syscall
    text = bytes(n % 251 for n in range(3 * PAGE_SIZE))
    space.load(DATA, text, R)
    target = DATA + (1 << 30)
    ctx = space.context(rsi=DATA, rdi=target + 100, rcx=len(text) - 200)
    faults = []
    while space.run(ctx) == TRAP_PAGE_FAULT:
        faults.append(world.cpu.trap_addr)
        assert ctx.rip == CODE
        # What was moved so far is in the registers.
        assert ctx.rdi == world.cpu.trap_addr
        assert ctx.rsi - DATA == ctx.rdi - target - 100 == len(text) - 200 - ctx.rcx
        space.map(world.cpu.trap_addr & -PAGE_SIZE, W)
    assert faults == [target + 100, target + PAGE_SIZE, target + 2 * PAGE_SIZE]
    assert (ctx.rsi, ctx.rip) == (DATA + len(text) - 200, CODE + 4)
    copied = b"".join(space.peek(target + n * PAGE_SIZE, PAGE_SIZE) for n in range(3))
    assert copied == bytes(100) + text[: len(text) - 200] + bytes(100)


def test_backward_rep_stos(world: World) -> None:
    space = world.space(bytes.fromhex("fd f3aa 0f05"))  # std; rep stosb; syscall
    space.map(DATA + PAGE_SIZE, W)
    ctx = space.context(rdi=DATA + PAGE_SIZE + 9, rcx=20, rax=0x5A)
    assert space.run(ctx) == TRAP_PAGE_FAULT
    assert (world.cpu.trap_addr, ctx.rcx) == (DATA + PAGE_SIZE - 1, 10)
    space.map(DATA, W)
    assert space.run(ctx) == TRAP_SYSCALL
    assert space.peek(DATA + PAGE_SIZE - 10, 10) == space.peek(DATA + PAGE_SIZE, 10) == b"\x5a" * 10


@pytest.mark.parametrize("code", ["50", "ffd0", "e800010000", "9c", "c8100000"])  # push, call, call, pushf, enter
def test_a_push_to_a_missing_page_changes_nothing(world: World, code: str) -> None:
    space = world.space(bytes.fromhex(code))
    ctx = space.context(rsp=STACK, rax=CODE)
    before = ctx.snapshot()
    for _ in range(2):
        assert space.run(ctx) == TRAP_PAGE_FAULT
        assert (world.cpu.trap_addr, world.cpu.trap_error) == (STACK - 8, PF_USER | PF_WRITE)
        assert ctx.snapshot() == before


def test_an_access_across_two_pages_faults_on_the_second_and_writes_nothing(world: World) -> None:
    space = world.space(WRITE)
    space.map(DATA, W)
    ctx = space.context(rdi=DATA + PAGE_SIZE - 4, rax=0xFFFF_FFFF_FFFF_FFFF)
    assert space.run(ctx) == TRAP_PAGE_FAULT
    assert (world.cpu.trap_addr, world.cpu.trap_error) == (DATA + PAGE_SIZE, PF_USER | PF_WRITE)
    assert space.peek(DATA + PAGE_SIZE - 4, 4) == bytes(4)
    space.map(DATA + PAGE_SIZE, W)
    assert space.run(ctx) == TRAP_SYSCALL
    assert space.peek(DATA + PAGE_SIZE, 4) == b"\xff" * 4


@pytest.mark.parametrize("preempt", [False, True])
@pytest.mark.parametrize("cure", ["live", "blob"])
def test_running_off_a_page_of_code(make, cure: str, preempt: bool) -> None:
    """What comes before the missing page takes effect first, though the emulator translates all of it at once."""
    world = make(cure=cure, preempt=preempt)
    space = world.space()
    space.map(CODE, X)
    space.map(DATA, W)
    edge = CODE + PAGE_SIZE
    code = bytes.fromhex("49ffc0 488907 49ffc0 48bb8877")  # inc r8; mov [rdi], rax; inc r8; movabs rbx, (8 more bytes)
    space.poke(edge - len(code), code)
    ctx = space.context(edge - len(code), rdi=DATA, rax=3)
    assert space.run(ctx) == TRAP_PAGE_FAULT
    assert (world.cpu.trap_addr, world.cpu.trap_error, ctx.rip) == (edge, PF_USER | PF_INSTR, edge - 4)
    assert (ctx.q[R8], ctx.q[RBX], world.ram.q[(world.ram.q[space.entry(DATA)] & PFN_MASK) >> 3]) == (2, 0, 3)
    assert ctx.rflags & 0x100 == 0
    assert space.run(ctx) == TRAP_PAGE_FAULT  # still not there
    assert (world.cpu.trap_addr, ctx.rip) == (edge, edge - 4)
    space.load(edge, bytes.fromhex("665544332211") + b"\x0f\x05")
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.q[RBX] == 0x1122334455667788 & 0xFFFF_FFFF_FFFF_FFFF


def test_a_data_fault_before_the_end_of_the_code_comes_first(world: World) -> None:
    space = world.space()
    space.map(CODE, X)
    space.poke(CODE + PAGE_SIZE - 3, WRITE[:3])
    ctx = space.context(CODE + PAGE_SIZE - 3, rdi=DATA)
    assert space.run(ctx) == TRAP_PAGE_FAULT
    assert (world.cpu.trap_addr, world.cpu.trap_error, ctx.rip) == (DATA, PF_USER | PF_WRITE, CODE + PAGE_SIZE - 3)


def test_reserved_bits_and_frames_out_of_memory_are_our_bug(world: World) -> None:
    space = world.space(READ)
    space.map(DATA, R, 1 << 28)
    with pytest.raises(InvariantBroken, match="reserved bits"):
        space.run(space.context(rdi=DATA))
    space.map(DATA, R, world.ram.nr_frames + 100)
    with pytest.raises(InvariantBroken, match="out of memory"):
        space.run(space.context(rdi=DATA))
    space.map(DATA, R)
    space.tlb.flush(1)
    assert space.run(space.context(rdi=DATA)) == TRAP_SYSCALL
