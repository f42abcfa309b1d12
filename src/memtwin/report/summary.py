# SPDX-License-Identifier: GPL-2.0-or-later
"""The summary of one program's run: how it ended, faults, memory, system calls, work, virtual time.

Numbers that concern the address space are those of the moment before it goes; peaks are over the whole run.
"""

from __future__ import annotations

from typing import Any, Final

from memtwin.abi.syscall_nr import NAMES
from memtwin.cpu.loop import Program
from memtwin.kernel.signal import signal_name
from memtwin.kernel.task import TaskStruct

__all__ = ["Summary", "end_of"]

_TOP: Final = 10  #: system calls named in the text


def end_of(program: Program) -> str | None:
    """One line about a death by signal; None if the program exited by itself."""
    code = program.task.exit_code
    if not code & 0x7F:
        return None
    if program.timed_out:
        return f"{program.name}: killed, its virtual time is up"
    text = f"{program.name}: killed by {signal_name(code & 0x7F)}"
    died = program.sys.died_of
    if died is not None and died[0] == code & 0x7F and died[1]:
        text += f" at {died[2]:#x} (si_code {died[1]})"
    return text


class Summary:
    """Collects while ``program`` runs; ``document()`` and ``text()`` once it has ended. Chains to the kernel's
    ``on_exit``.
    """

    def __init__(self, program: Program) -> None:
        self._program: Final = program
        self._memory: dict[str, int] = {}
        kernel = program.kernel
        self._work_before: Final = kernel.work.snapshot()
        self._next: Final = kernel.on_exit
        kernel.on_exit = self._on_exit

    def _on_exit(self, task: TaskStruct) -> None:
        mm = task.mm
        if task is self._program.task and mm is not None:
            self._memory = {
                "rss_kb": mm.rss * 4,
                "rss_peak_kb": max(mm.hiwater_rss, mm.rss) * 4,
                "rss_anon_kb": mm.rss_anon * 4,
                "rss_file_kb": mm.rss_file * 4,
                "rss_shmem_kb": mm.rss_shmem * 4,
                "vm_kb": mm.total_vm * 4,
                "vm_peak_kb": max(mm.hiwater_vm, mm.total_vm) * 4,
                "vmas": mm.map_count,
                "vmas_peak": max(self._program.map_count_peak, mm.map_count),
                "page_table_pages": mm.pgtables_bytes >> 12,
            }
        if self._next is not None:
            self._next(task)

    def document(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        program = self._program
        task, sys, kernel = program.task, program.sys, program.kernel
        code = task.exit_code
        counts = sorted(program.counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            "program": list(program.argv),
            "status": program.status,
            "signal": signal_name(code & 0x7F) if code & 0x7F else None,
            "faults": {
                "minor": task.min_flt,
                "major": task.maj_flt,
                "trapped": program.faults,
                "kinds": kernel.mm_ctx.fault_stats.as_dict(),
                "locks": kernel.mm_ctx.fault_locks.as_dict(),
            },
            "memory": self._memory,
            "syscalls": {NAMES.get(nr, str(nr)): count for nr, count in counts},
            "not_modelled": dict(sys.unmodelled),
            "work": kernel.work.since(self._work_before),
            "blocks": program.cpu.blocks if program.count_blocks else None,
            "virtual_ns": program.virtual_ns,
        }

    def text(self) -> str:
        """The lines for a reader, each with a name in front."""
        doc = self.document()
        faults, memory, calls = doc["faults"], doc["memory"], doc["syscalls"]
        top = list(calls.items())[:_TOP]
        more = len(calls) - len(top)
        work = doc["work"]
        rows = [
            ("end", f"killed by {doc['signal']}" if doc["signal"] else f"exit status {doc['status']}"),
            ("faults", f"{faults['minor']} minor, {faults['major']} major{_kinds(faults['kinds'])}"),
            ("locks", _locks(faults["locks"])),
        ]
        if memory:
            rows += [
                ("rss", f"{_kb(memory['rss_kb'])} at exit, {_kb(memory['rss_peak_kb'])} peak{_rss_kinds(memory)}"),
                ("areas", f"{memory['vmas']} at exit, {memory['vmas_peak']} peak; {_kb(memory['vm_kb'])} mapped"),
                ("tables", f"{memory['page_table_pages']} page-table pages"),
            ]
        names = " ".join(f"{name} {count}" for name, count in top) + (f" and {more} more" if more > 0 else "")
        rows.append(("calls", f"{sum(calls.values())}: {names}"))
        if doc["not_modelled"]:
            missing = ", ".join(f"{what} ({times}x)" for what, times in doc["not_modelled"].items())
            rows.append(("missing", f"not modelled: {missing}"))
        blocks = f"; {doc['blocks']} blocks" if doc["blocks"] is not None else ""
        rows += [
            ("cpu", f"{work.get('tlb_flushes', 0)} TLB flushes; {faults['trapped']} faults trapped{blocks}"),
            ("time", f"{doc['virtual_ns'] / 1e6:.3f} ms virtual"),
        ]
        return "".join(f"{name:<8} {value}\n" for name, value in rows)


def _kb(kb: int) -> str:
    return f"{kb} kB"


def _kinds(kinds: dict[str, int]) -> str:
    return ": " + ", ".join(f"{name} {count}" for name, count in kinds.items()) if kinds else ""


def _locks(locks: dict[str, Any]) -> str:
    """Which lock faults took, and why not their area's."""
    return (
        f"{locks['success']} faults under the lock of their area; {locks['abort']} could not have it, {locks['retry']} "
        f"gave it up; mmap_lock taken {locks['mmap_lock']} times{_kinds(locks['reasons'])}"
    )


def _rss_kinds(memory: dict[str, int]) -> str:
    parts = [f"{kind} {memory[f'rss_{kind}_kb']}" for kind in ("anon", "file", "shmem") if memory[f"rss_{kind}_kb"]]
    return f" ({', '.join(parts)})" if parts else ""
