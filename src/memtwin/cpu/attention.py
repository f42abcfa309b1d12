# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C while a program runs: Python's signal handlers wait for C code to return, which an endless guest never does.

A thread is woken by the signal itself (``signal.set_wakeup_fd``) and interrupts the CPU; ``run`` returns
TRAP_INTERRUPTED, the interpreter runs the handler, and KeyboardInterrupt or whatever it raises travels on as usual.
An interrupt has no effect on the simulated machine: if the handler raises nothing, ``run`` goes on where it was.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from memtwin.cpu.base import Cpu

__all__ = ["interruptible"]

#: A signal that comes just before the emulator is entered is lost on it: ask a few times, this many seconds apart.
_PAUSE: Final = 0.02
_TIMES: Final = 5


@contextmanager
def interruptible(cpu: Cpu) -> Iterator[None]:
    """While the block runs, a signal that Python handles makes ``cpu.run`` return TRAP_INTERRUPTED.

    Does nothing outside of the main thread, where signals are not handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    done = threading.Event()

    def watch() -> None:
        while reader.recv(64) and not done.is_set():
            for _ in range(_TIMES):
                cpu.interrupt()
                if done.wait(_PAUSE):
                    return

    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="memtwin-attention", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(previous)
        writer.close()
        watcher.join()
        reader.close()
