# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine: start-up, both cures, several at once, memory of any size, refusals."""

from __future__ import annotations

import pytest

from memtwin.cpu import ucstate
from memtwin.cpu.base import TRAP_PAGE_FAULT, TRAP_SYSCALL, Cpu, ThreadContext
from memtwin.cpu.selftest import selftest
from memtwin.cpu.tiny import DATA, W, World
from memtwin.cpu.uc import REACHABLE, UcCpu
from memtwin.errors import BadInput, InvariantBroken
from memtwin.hw.ram import PAGE_SHIFT, PAGE_SIZE


def resident() -> int:
    """Resident memory of this process, bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_SIZE


STORE = bytes.fromhex("488907 0f05")  # mov [rdi], rax; syscall


def test_the_live_state_is_found_here() -> None:
    """On this host and this Unicorn the fast way works; the fallback is for others."""
    world = World()
    assert (world.cpu.cure, world.cpu.native) == ("live", True)
    world.close()


def test_it_is_a_cpu(world: World) -> None:
    cpu: Cpu = world.cpu
    ctx: ThreadContext = cpu.new_context()
    space = world.space(STORE)
    ctx.rip = 0
    assert cpu.run(ctx, space.pgd, space.tlb) == TRAP_PAGE_FAULT


@pytest.mark.parametrize("cure", ["live", "blob"])
@pytest.mark.parametrize("native", [True, False])
def test_selftest(cure: str, native: bool) -> None:
    report = selftest(cure, native)
    assert len(report) >= 8
    assert [check.name for check in report if not check.passed] == []


def test_selftest_sees_a_cure_that_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the cure to another word: the second page fault becomes a double fault, and the self-test says so."""
    original = UcCpu._boot

    def boot(self: UcCpu, cure: str | None) -> None:
        import dataclasses

        original(self, cure)
        self._layout = dataclasses.replace(self._layout, i_old_exception=self._layout.i_error + 40)

    monkeypatch.setattr(UcCpu, "_boot", boot)
    assert not all(check.passed for check in selftest("live"))


def test_without_the_live_state_the_fallback_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memtwin.cpu.uc.find_live", lambda handle, registers: iter(()))
    world = World()
    assert world.cpu.cure == "blob"
    world.close()
    with pytest.raises(BadInput, match="live state"):
        World(cure="live")


def test_a_state_laid_out_otherwise_is_refused() -> None:
    registers = bytes(range(128))
    blob = bytes(40) + registers + bytes(400)
    with pytest.raises(ucstate.Uncalibrated, match=r"CR3|FS"):
        ucstate.measure(blob, blob, registers, 1 << 60, 1 << 61, 1 << 40, 1 << 46)
    with pytest.raises(ucstate.Uncalibrated, match="adjacent"):
        ucstate.measure(blob, blob, b"\xff" * 128, 1 << 60, 1 << 61, 1 << 40, 1 << 46)


def test_bad_cure() -> None:
    with pytest.raises(BadInput, match="magic"):
        World(cure="magic")


def test_no_unicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memtwin.cpu.uclib.find_spec", lambda name: None)
    monkeypatch.delenv("LIBUNICORN_PATH", raising=False)
    with pytest.raises(BadInput, match="pip install unicorn"):
        World()


def test_several_machines_at_once(make) -> None:
    worlds = [make(cure=cure, preempt=preempt) for cure in ("live", "blob") for preempt in (False, True)]
    spaces = [world.space(STORE) for world in worlds]
    threads = [space.context(rdi=DATA, rax=n + 1) for n, space in enumerate(spaces)]
    for world, space, ctx in zip(worlds, spaces, threads, strict=True):
        assert space.run(ctx) == TRAP_PAGE_FAULT
        assert world.cpu.trap_addr == DATA
        space.map(DATA, W)
    worlds[1].close()
    for n, (space, ctx) in enumerate(zip(spaces, threads, strict=True)):
        if n != 1:
            assert space.run(ctx) == TRAP_SYSCALL
            assert space.peek(DATA, 1)[0] == n + 1


def test_close_twice_and_contexts_after_it(world: World) -> None:
    space = world.space(STORE)
    space.map(DATA, W)
    ctx = space.context(rdi=DATA, rax=5)
    assert space.run(ctx) == TRAP_SYSCALL
    world.close()
    world.close()
    assert ctx.rax == 5  # its last state
    world.cpu.interrupt()
    with pytest.raises(InvariantBroken, match="closed"):
        space.run(ctx)
    with pytest.raises(InvariantBroken, match="closed"):
        world.cpu.new_context()
    ctx.close()


def test_an_engine_that_nobody_closes_is_freed_with_its_object() -> None:
    import gc

    World(4 << 20)
    gc.collect()
    before = resident()
    for _ in range(30):
        world = World(4 << 20)
        space = world.space(STORE)
        assert space.run(space.context(rdi=DATA)) == TRAP_PAGE_FAULT
        del world, space
        gc.collect()
    assert resident() - before < 30 << 20


@pytest.mark.parametrize("size", [1 << 20, 64 << 30, 4 << 40])
def test_memory_of_any_size(make, size: int) -> None:
    """The first and the last frame that the CPU can reach; the size of memory costs nothing."""
    world = make(size)
    space = world.space(STORE)
    last = min(size, REACHABLE) // PAGE_SIZE - 1
    space.map(DATA, W, last)
    assert space.run(space.context(rdi=DATA + 8, rax=77)) == TRAP_SYSCALL
    assert world.ram.q[(last << PAGE_SHIFT) + 8 >> 3] == 77
    space.map(DATA + PAGE_SIZE, W, 0)
    assert space.run(space.context(rdi=DATA + PAGE_SIZE, rax=78)) == TRAP_SYSCALL
    assert world.ram.q[0] == 78


def test_a_gigabyte_of_simulated_memory_is_not_touched() -> None:
    """Resident memory of an engine over 4 TiB is that of one over 1 MiB."""
    World(1 << 20).close()
    before = resident()
    worlds = [World(4 << 40)]
    grown = resident() - before
    worlds[0].close()
    assert grown < 16 << 20
