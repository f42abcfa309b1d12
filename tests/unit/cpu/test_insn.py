# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of instructions that read and write memory, and what becomes of it in a page fault."""

from __future__ import annotations

import pytest

from memtwin.cpu.base import TRAP_PAGE_FAULT
from memtwin.cpu.insn import code_at, is_read_modify_write
from memtwin.cpu.tiny import CODE, DATA, STACK, R, W, World, X
from memtwin.hw.paging import NX, PF_USER, PF_WRITE, PRESENT, PSE, USER
from memtwin.hw.ram import PAGE_SIZE

# Natively, each of the first list faults with error code 6 on an absent page, and each of the second with 4.
WRITES = {
    "add": "48830701",
    "add r": "480107",
    "add byte": "0007",
    "lock add": "f048830701",
    "lock add r8": "f04d0107",
    "inc": "ff07",
    "dec byte": "fe0f",
    "or byte": "800f01",
    "adc": "48831701",
    "sbb": "481907",
    "and": "812700000001",
    "xor word": "663107",
    "xchg": "488707",
    "xadd": "f0480fc107",
    "cmpxchg": "f0480fb10f",
    "cmpxchg, no lock": "480fb10f",
    "cmpxchg16b": "f0480fc70f",
    "shl 1": "48d127",
    "shl cl": "48d327",
    "rol 3": "48c10703",
    "not": "48f717",
    "neg byte": "f61f",
    "bts": "480fba2f01",
    "btr r": "480fb30f",
    "shld": "480fa40f01",
    "shrd cl": "480fad0f",
    "add [rdi + 0]": "4883870000000001",
}
READS = {
    "mov": "488b07",
    "mov byte": "8a07",
    "cmp": "48833f01",
    "cmp r": "48390f",
    "cmp byte": "803f01",
    "test": "48f70701000000",
    "bt": "480fba2701",
    "mul": "48f727",
    "div": "f737",
    "add r, m": "480307",
    "movzx": "0fb607",
    "movdqu": "f30f6f07",
    "push": "ff37",
    "jmp": "ff27",
    "imul": "480faf07",
    "cmove": "480f4407",
    "lodsb, through rdi": "8a0790",
}


@pytest.mark.parametrize("name", [*WRITES, *READS])
def test_table_and_fault(world: World, name: str) -> None:
    code = bytes.fromhex(WRITES.get(name) or READS[name])
    assert is_read_modify_write(code + bytes(3)) == (name in WRITES)
    space = world.space(code)
    space.map(STACK - PAGE_SIZE, W)
    ctx = space.context(rdi=DATA, r15=DATA, rsp=STACK - 8, rcx=1)
    assert space.run(ctx) == TRAP_PAGE_FAULT
    assert world.cpu.trap_error == (PF_USER | PF_WRITE if name in WRITES else PF_USER)
    assert (world.cpu.trap_addr, ctx.rip) == (DATA, CODE)


@pytest.mark.parametrize(
    "code", [b"", b"\x48", b"\x0f", b"\xf0\x48", b"\xf0\x48\x0f\xb1", b"\x66" * 15, b"\x48\x01\xc7", b"\xff\xc0"]
)
def test_truncated_code_and_register_forms_are_no_writes(code: bytes) -> None:
    assert not is_read_modify_write(code)


def test_code_is_read_through_the_tables(world: World) -> None:
    space = world.space()
    space.load(CODE, bytes(range(256)) * 16, X)
    assert code_at(world.ram, space.pgd, CODE + 5) == bytes(range(5, 20))
    assert code_at(world.ram, space.pgd, CODE + PAGE_SIZE - 4) == b"\xfc\xfd\xfe\xff"
    space.load(CODE + PAGE_SIZE, b"\x01\x02", X)
    assert code_at(world.ram, space.pgd, CODE + PAGE_SIZE - 4) == b"\xfc\xfd\xfe\xff\x01\x02" + bytes(9)
    assert code_at(world.ram, space.pgd, DATA) == b""
    space.map(DATA, R, 0)
    pmd = next(n for n in range(len(world.ram.q)) if world.ram.q[n] >> 12 == space.entry(DATA) >> 9)
    world.ram.q[pmd] = PRESENT | USER | PSE | NX
    assert code_at(world.ram, space.pgd, DATA + 0x8000) == bytes(world.ram.mem[0x8000:0x800F])
