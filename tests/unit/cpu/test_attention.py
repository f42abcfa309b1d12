# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C stops a guest that never traps."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from memtwin.cpu.attention import interruptible
from memtwin.cpu.base import TRAP_SYSCALL

ENDLESS = """
from memtwin.cpu.attention import interruptible
from memtwin.cpu.tiny import World
world = World()
space = world.space(bytes.fromhex("48ffc3 ebfb"))  # inc rbx; jmp back
ctx = space.context()
print("running", flush=True)
try:
    with interruptible(world.cpu):
        while True:
            space.run(ctx)
except KeyboardInterrupt:
    print("stopped", ctx.rbx > 0, flush=True)
"""


def test_ctrl_c() -> None:
    child = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "running\n"
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=10)
    assert out == "stopped True\n"


def test_a_handler_that_raises_nothing(make) -> None:
    """SIGALRM in the middle of a long loop: handled at once, and the result is the same."""
    world = make()
    space = world.space(bytes.fromhex("48ffc3 48ffc9 75f8 0f05"))  # inc rbx; dec rcx; jnz back; syscall
    turns = 200_000_000
    ctx = space.context(rcx=turns)
    seen: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(ctx.rbx))
    try:
        with interruptible(world.cpu):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            while space.run(ctx) != TRAP_SYSCALL:
                pass
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert ctx.rbx == turns
    assert len(seen) == 1
    assert 0 < seen[0] < turns


def test_nothing_is_left_behind(make) -> None:
    world = make()
    threads = threading.active_count()
    with interruptible(world.cpu):
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


def test_in_another_thread_it_does_nothing(make) -> None:
    world = make()
    counts: list[int] = []

    def work() -> None:
        with interruptible(world.cpu):
            counts.append(threading.active_count())

    before = threading.active_count()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert counts == [before + 1]
