# SPDX-License-Identifier: GPL-2.0-or-later
"""memtwin's own errors; a leaf that every layer may import.

Errors of the *simulated* kernel are ordinary ``OSError`` with Linux's errno. What is here is about memtwin itself, or
about a simulated thread that can not go on.
"""

from __future__ import annotations

__all__ = [
    "BadInput",
    "Deadlock",
    "FatalSignal",
    "InvariantBroken",
    "MemtwinError",
    "NotModelled",
    "ProcessKilled",
]


class MemtwinError(Exception):
    """Base of memtwin's own errors; ``exit_status`` is a command's status when one reaches the command line."""

    exit_status = 1


class BadInput(MemtwinError):
    """What the user gave (option, id, configuration, program) can not be used; the message is one clear line."""

    exit_status = 2


class NotModelled(MemtwinError):
    """A valid request for something that memtwin does not model yet."""

    exit_status = 3


class InvariantBroken(MemtwinError):
    """memtwin caught itself in an impossible state: a bug of memtwin, not of the guest."""

    exit_status = 70


class Deadlock(MemtwinError):
    """Every task is blocked and no timer is pending; the message names each task and what it waits for."""


class FatalSignal(MemtwinError):
    """An access through the API raised a signal that would have killed a program without a handler.

    Attributes: ``sig`` signal number, ``code`` si_code, ``addr`` si_addr, ``done`` bytes transferred before the fault.
    """

    def __init__(self, sig: int, code: int, addr: int, done: int = 0) -> None:
        super().__init__(f"signal {sig} (si_code {code}) at {addr:#x} after {done} bytes")
        self.sig = sig
        self.code = code
        self.addr = addr
        self.done = done


class ProcessKilled(MemtwinError):
    """The process is gone: killed by SIGKILL or by the OOM killer, or it has exited."""
