# SPDX-License-Identifier: GPL-2.0-or-later
"""Code that changes under the emulator's translated blocks."""

from __future__ import annotations

import struct

import pytest

from memtwin.cpu.base import TRAP_PAGE_FAULT, TRAP_SYSCALL
from memtwin.cpu.tiny import CODE, DATA, WX, W, World, X
from memtwin.hw.paging import PF_PROT, PF_USER, PF_WRITE


def program(value: int) -> bytes:
    """mov eax, value; syscall."""
    return b"\xb8" + struct.pack("<I", value) + b"\x0f\x05"


def run(space, rip: int = CODE) -> int:
    ctx = space.context(rip)
    assert space.run(ctx) == TRAP_SYSCALL
    return ctx.rax


def test_a_program_that_writes_its_own_code(world: World) -> None:
    # loop: mov [rdi + 10], cl (the operand of the add below); nop; add ebx, imm8; dec ecx; jnz; syscall
    code = bytes.fromhex("884f06 90 83c300 ffc9 75f5 0f05")
    space = world.space(code, WX)
    ctx = space.context(rdi=CODE, rcx=100)
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.rbx == sum(range(1, 101))


def test_a_program_that_writes_another_page_of_code(world: World) -> None:
    """A just-in-time compiler with one page that is writable and executable."""
    # inc ecx; mov [rdi + 1], ecx; call rdi; add rbx, rax; cmp ecx, 300; jne; syscall
    space = world.space(bytes.fromhex("ffc1 894f01 ffd7 4801c3 81f92c010000 75ee 0f05"))
    space.load(DATA, b"\xb8\0\0\0\0\xc3", WX)  # mov eax, imm32; ret
    space.map(DATA + 4096, W)
    ctx = space.context(rdi=DATA, rsp=DATA + 8192)
    assert space.run(ctx) == TRAP_SYSCALL
    assert ctx.rbx == sum(range(1, 301))


def test_the_kernel_writes_code(world: World) -> None:
    """A breakpoint, a read() into a text page: the kernel half says that the frame changed."""
    space = world.space(program(0))
    for value in range(300):
        space.poke(CODE, program(value))
        world.tlb.note_frame_changed((world.ram.q[space.entry(CODE)] & (1 << 40) - 1) >> 12)
        assert run(space) == value
    assert not world.tlb.changed_code


def test_without_that_the_old_code_runs(world: World) -> None:
    """Why the test above tests something."""
    space = world.space(program(1))
    assert run(space) == 1
    space.poke(CODE, program(2))
    assert run(space) == 1


@pytest.mark.parametrize("count", [3, 600])  # below and above the limit from which on all code is dropped
def test_many_frames_change_at_once(world: World, count: int) -> None:
    space = world.space()
    pages = [CODE + n * 4096 for n in range(count)]
    frames = []
    for n, page in enumerate(pages):
        space.load(page, program(n))
        frames.append((world.ram.q[space.entry(page)] & (1 << 40) - 1) >> 12)
    assert [run(space, page) for page in pages] == list(range(count))
    for n, (page, frame) in enumerate(zip(pages, frames, strict=True)):
        space.poke(page, program(n + 1000))
        world.tlb.note_frame_changed(frame)
    assert [run(space, page) for page in pages] == list(range(1000, 1000 + count))


def test_a_frame_reused_for_other_code_in_another_address_space(world: World) -> None:
    first, second = world.space(program(1)), world.space()
    assert run(first) == 1
    frame = (world.ram.q[first.entry(CODE)] & (1 << 40) - 1) >> 12
    first.unmap(CODE)
    world.ram.zero(frame)
    world.tlb.note_frame_changed(frame)
    second.map(CODE, X, frame)
    second.poke(CODE, program(2))
    assert run(second) == 2


def test_same_address_other_frame(world: World) -> None:
    space = world.space(program(1))
    assert run(space) == 1
    other = world.frame()
    world.ram.mem[other << 12 : (other << 12) + 7] = program(2)
    space.map(CODE, X, other)
    space.tlb.flush(1)
    assert run(space) == 2


def test_writable_alias_of_code(world: World) -> None:
    """A frame that is executable here and writable there: no W while it runs, and a note at the fault."""
    space = world.space(program(0))
    frame = (world.ram.q[space.entry(CODE)] & (1 << 40) - 1) >> 12
    space.load(CODE + 4096, bytes.fromhex("894f01 0f05"))  # mov [rdi + 1], ecx; syscall
    space.map(DATA, W & ~2, frame)
    for value in range(1, 50):
        writer = space.context(CODE + 4096, rdi=DATA, rcx=value)
        assert space.run(writer) == TRAP_PAGE_FAULT
        assert world.cpu.trap_error == PF_USER | PF_PROT | PF_WRITE
        space.protect(DATA, W)
        assert space.run(writer) == TRAP_SYSCALL
        space.protect(DATA, W & ~2)
        world.tlb.note_frame_changed(frame)
        assert run(space) == value


def test_write_then_execute_by_mprotect(world: World) -> None:
    """A just-in-time compiler with W^X: the kernel half notes the change when it grants execution again."""
    space = world.space()
    space.load(CODE, bytes.fromhex("894f01 0f05"))
    frame = space.map(DATA, W)
    space.poke(DATA, program(0))
    for value in range(1, 50):
        writer = space.context(CODE, rdi=DATA, rcx=value)
        assert space.run(writer) == TRAP_SYSCALL
        space.protect(DATA, X)
        world.tlb.note_executable(frame)
        world.tlb.note_frame_changed(frame)
        assert run(space, DATA) == value
        space.protect(DATA, W)
