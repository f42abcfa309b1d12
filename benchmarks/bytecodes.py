# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the calls on areas spend their time: ``python -m benchmarks.bytecodes``.

Their time is spread over so many short functions that a profiler measures itself. What does not vary and adds up is the
number of bytecodes that the interpreter executes (``sys.settrace`` with opcode events), summed here by module.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from benchmarks.tables.areas import AREA, map_areas
from memtwin.abi import mman
from memtwin.machine import Machine

__all__ = ["count"]

#: Modules by what they do; the first prefix that fits.
LAYERS = {
    "memtwin.process": "Process: becoming the task and back",
    "memtwin.sched.core": "Process: becoming the task and back",
    "memtwin.sched": "mmap_lock",
    "memtwin.mm.mmap": "mmap, munmap, mprotect: the call itself",
    "memtwin.mm.mprotect": "mmap, munmap, mprotect: the call itself",
    "memtwin.mm.unmapped_area": "address selection",
    "memtwin.lib.maple_tree.gaps": "address selection",
    "memtwin.lib.maple_tree": "maple tree: finding and storing",
    "memtwin.mm.slab": "object caches",
    "memtwin.mm": "areas: merging, splitting, limits, counters",
    "memtwin.kernel": "areas: merging, splitting, limits, counters",
}
REPEAT = 20


def count(call: Callable[[], object]) -> tuple[Counter[str], Counter[str]]:
    """(bytecodes, function calls) by layer, of one ``call()`` on average over ``REPEAT``."""
    executed: Counter[str] = Counter()
    entered: Counter[str] = Counter()
    layers: dict[str, str] = {}

    def layer(frame: FrameType) -> str:
        module = frame.f_globals.get("__name__", "")
        if module not in layers:
            layers[module] = next((text for prefix, text in LAYERS.items() if module.startswith(prefix)), "the loop")
        return layers[module]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "call":
            entered[layer(frame)] += 1
        elif event == "opcode":
            executed[layer(frame)] += 1
        return trace

    call()
    sys.settrace(trace)
    try:
        for _ in range(REPEAT):
            call()
    finally:
        sys.settrace(None)
    return executed, entered


def _calls(areas: int) -> dict[str, Callable[[], object]]:
    process = Machine("1G").spawn("bytecodes")
    start = map_areas(process, areas)
    # In the middle of a writable area.
    inner = start + (areas // 2 | 1) * (AREA << 12) + 4096
    read, both = mman.PROT_READ, mman.PROT_READ | mman.PROT_WRITE

    def map_unmap() -> None:
        process.munmap(process.mmap(0, AREA << 12), AREA << 12)

    def protect() -> None:
        process.mprotect(inner, 2 << 12, read)
        process.mprotect(inner, 2 << 12, both)

    return {"mmap + munmap": map_unmap, "2 mprotects": protect}


def main() -> None:
    """Print a Markdown table a pair of calls and number of areas."""
    for areas in (10, 30_000):
        for name, call in _calls(areas).items():
            executed, entered = count(call)
            del executed["the loop"], entered["the loop"]
            total = executed.total()
            print(f"\n| {name}, {areas:,} areas | bytecodes | share | functions called |\n| --- | --- | --- | --- |")
            for text, bytecodes in executed.most_common():
                print(
                    f"| {text} | {bytecodes / REPEAT:,.0f} | {bytecodes / total:.0%} | {entered[text] / REPEAT:.0f} |"
                )
            print(f"| **total** | **{total / REPEAT:,.0f}** | 100% | **{entered.total() / REPEAT:.0f}** |")


if __name__ == "__main__":
    sys.exit(main())
