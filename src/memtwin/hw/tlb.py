# SPDX-License-Identifier: GPL-2.0-or-later
"""TLB generations: how the kernel half tells CPUs that translations changed, without ever calling one (architecture,
section 5).

A CPU remembers the generation at which it last flushed and compares on entry. Only changes that *remove* something
need a flush: never-present to present and read-only to writable do not.
"""

from __future__ import annotations

from memtwin.hw.work import Work

__all__ = ["MmTlb", "Tlb"]


class MmTlb:
    """Flush state of one address space; ``gen`` counts the flushes asked for."""

    __slots__ = ("_tlb", "gen")

    def __init__(self, tlb: Tlb) -> None:
        self._tlb = tlb
        self.gen = 0

    def flush(self, pages: int) -> None:
        """Translations of ``pages`` pages lost rights, frames or A/D bits: every CPU must drop what it cached."""
        self.gen += 1
        tlb = self._tlb
        tlb.flushes += 1
        tlb.pages += pages
        tlb.work.tlb_flushes += 1


class Tlb:
    """Machine-wide: flush counts, and the frames whose *content as code* may have changed under a CPU's translated
    blocks.
    """

    __slots__ = ("changed_code", "code_gen", "executable", "flushes", "pages", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.flushes = 0
        self.pages = 0
        #: Frames that were ever mapped executable and not yet reused (a dict as an ordered set).
        self.executable: dict[int, None] = {}
        #: Executable frames written or reused by the kernel half since a CPU last looked.
        self.changed_code: dict[int, None] = {}
        self.code_gen = 0

    def note_executable(self, pfn: int) -> None:
        """``pfn`` was mapped executable: CPUs may hold translated blocks of it from now on."""
        self.executable[pfn] = None

    def note_frame_changed(self, pfn: int) -> None:
        """The kernel half changed the content of ``pfn`` or gave it to somebody else."""
        if pfn in self.executable:
            self.changed_code[pfn] = None
            self.code_gen += 1
