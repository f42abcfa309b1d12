# SPDX-License-Identifier: GPL-2.0-or-later
"""The same program on two machines: the same answers, frames, counters and time, and nothing left in the end."""

import pytest

from memtwin.machine import Machine
from memtwin.script.run import Script
from memtwin.verify.generate import program
from memtwin.verify.profiles import NAMES, profile

PROGRAMS = 6


def run(lines):
    with Machine("512M", kernel="6.18") as machine:
        kernel = machine.kernel
        script = Script("", machine)
        answers = []
        for line in lines:
            answers.append(script.answer(line))
            machine.check()
        frames = sorted(
            (process.pid, addr, base)
            for process in script.processes.values()
            for addr, base in process.mm.pte_tables.items()
        )
        numbers = [
            (name, value)
            for stats in (kernel.mm_ctx.fault_stats, kernel.mm_ctx.fault_locks)
            for name in sorted(dir(stats))
            if isinstance(value := getattr(stats, name), int)
        ]
        vmstat = script.processes["main"].read_file("/proc/vmstat")
        seen = (answers, frames, numbers, vmstat, kernel.clock.now)
        for path in list(kernel.memory_names):
            script.processes["main"].unlink(path)
        for process in script.processes.values():
            process.exit()
        kernel.check_no_leak()
        assert numbers
        return seen


@pytest.mark.parametrize("name", NAMES)
def test_a_program_runs_the_same_way_again(name):
    for number in range(PROGRAMS):
        lines = [line for line in program(profile(name), 5, number) if "map_room" not in line]
        assert run(lines) == run(lines)
