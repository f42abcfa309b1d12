# SPDX-License-Identifier: GPL-2.0-or-later
"""Running scripts: each on a fresh machine with its processes, variables and baselines; answers come as they are made.

A script can not influence the next one, since nothing outlives its machine. A line that is not understood and an
operation that is not modelled are answered and counted, and the script goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from memtwin import __version__
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from memtwin.errors import NotModelled, ProcessKilled
from memtwin.script import dump
from memtwin.script.answers import address, errno_name, quoted
from memtwin.script.explain import Refusal, apart, reason
from memtwin.script.grammar import MASK, PAGE, SYMBOLS, BadLine, Line, expression, parse_line, split, strip_comment
from memtwin.script.names import FLAGS
from memtwin.script.operations import ADDRESS, FILE, OPERATIONS, Fields, Operation, arguments, method

if TYPE_CHECKING:
    from memtwin.machine import Machine
    from memtwin.process import Process

__all__ = ["Answer", "Runner", "Script", "environment"]

Answer = dict[str, Any]

#: Processes of a script, living or dead.
_MAX_PROCESSES: Final = 8
#: What a variable holds after a failure: an address where nothing is mapped, or no file.
_NO_ADDRESS: Final = SYMBOLS["B"] + (32 << 30)
_NO_FILE: Final = MASK
_TO_THE_END: Final = (0, MASK)


#: What a small static program has mapped outside the windows, as (start, pages, writable): text, data, stack. Limits
#: and mlockall see it. The sizes are those of the program that does scripts on a live kernel; where it is linked shows
#: through in what low hints find free.
PROGRAM_BASE: Final = 0x400000
_TEXT: Final = (0, 206, False)
_DATA: Final = (206 * PAGE, 184, True)
_STACK: Final = (0x7FFFFFFFF000 - 66 * PAGE, 66, True)


def _start_program(process: Process, base: int) -> None:
    """Map the program of a fresh process."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    for start, pages, writable in (_TEXT, _DATA):
        process.mmap(base + start, pages * PAGE, PROT_READ | (PROT_WRITE if writable else PROT_EXEC), flags)
    lowest = process.vmas()[-1].start
    process.munmap(lowest, _STACK[0] - lowest)
    _prefault(process, base)


def _prefault(process: Process, base: int) -> None:
    """Have the program resident, so that no operation takes faults for it."""
    areas = [(base + start, pages, writable) for start, pages, writable in (_TEXT, _DATA)]
    for start, pages, writable in (*areas, _STACK):
        with suppress(OSError):  # a script may have taken the program away
            process.populate(start, pages * PAGE, write=writable)


class Script:
    """One script on a machine of its own.

    ``processes``: the living ones by name, in order of birth; ``variables``: by name, None where the operation that
    should have set it is not modelled; ``number``: of the operation answered last; ``refusals``: the calls that were
    refused; ``max_map_count``: the limit that ``MAPS0`` stands for.
    """

    __slots__ = (
        "_base",
        "_born",
        "_explain",
        "_program_base",
        "_unborn",
        "machine",
        "max_map_count",
        "name",
        "number",
        "processes",
        "refusals",
        "variables",
    )

    def __init__(self, name: str, machine: Machine, *, explain: bool = False, program_base: int = PROGRAM_BASE) -> None:
        self.name = name
        self.machine = machine
        self.max_map_count = machine.kernel.mm_ctx.sysctl.max_map_count
        self._explain = explain
        self.number = 0
        self.refusals: list[Refusal] = []
        self._born = 1
        self._unborn: list[str] = []  # names of children whose fork is not modelled
        self.variables: dict[str, int | None] = {}
        main = machine.spawn("main")
        self._program_base = program_base
        _start_program(main, program_base)
        self.processes: dict[str, Process] = {"main": main}
        self._base: dict[str, int] | None = None
        try:
            self._base = dump.status(main)
            method(main, "dropcap")(FLAGS["capability"]["sys_resource"])
        except NotModelled:
            pass

    # -- values ---------------------------------------------------------------------------------------------------

    def variable(self, term: str) -> int:
        """What ``$NAME``, ``AS0``, ``DATA0`` or ``MAPS0`` stands for. Raises KeyError, NotModelled."""
        if term.startswith("$"):
            value = self.variables[term[1:]]
            if value is None:
                raise NotModelled(f"{term} comes from an operation that is not modelled")
            return value
        if term == "MAPS0":
            return self.max_map_count
        if self._base is None:
            raise NotModelled("/proc/self/status: not modelled yet")
        return self._base["VmSize" if term == "AS0" else "VmData"] << 10

    # -- lines ----------------------------------------------------------------------------------------------------

    def answer(self, text: str) -> Answer:
        """Do one line (without its comment, not empty) and return its answer."""
        self.number += 1
        try:
            line = parse_line(text)
            operation = OPERATIONS.get(line.op)
            if operation is None:
                raise BadLine("unknown operation")
            if line.op == "echo":
                return {"i": self.number, "op": "echo", "text": quoted(text)}
            self._check_process(line)
            return self._run(line, operation)
        except BadLine as bad:
            return {"i": self.number, "line": quoted(text), "error": bad.args[0]}

    def _check_process(self, line: Line) -> None:
        known = line.proc == "*" or line.proc in self.processes or line.proc in self._unborn
        if not known:
            raise BadLine("no such process")
        if line.proc == "*" and line.op != "dump":
            raise BadLine("@* is for dump only")

    def _run(self, line: Line, operation: Operation) -> Answer:
        answer: Answer = {"i": self.number}
        if line.proc != "main":
            answer["proc"] = quoted(line.proc)
        answer["op"] = line.op
        try:
            if line.op == "dump":
                return answer | self._dump(line)
            if line.op == "uffd_policy":
                if line.words[:1] not in (("zero",), ("copy",)):
                    raise BadLine("bad policy")
                return answer | {"ret": 0}
            args = arguments(operation, line.words, self.variable, self._process)
            return answer | self._call(line, operation, args)
        except NotModelled as missing:
            if line.var is not None:
                self.variables[line.var] = None
            return answer | {"error": "not modelled"} | ({"reason": str(missing)} if self._explain else {})

    def _call(self, line: Line, operation: Operation, args: list[Any]) -> Fields:
        process = self._process(line.proc)
        task, fields, refused = process.task, Fields(), None
        before = task.min_flt, task.maj_flt
        try:
            result = self._do(line, operation, process, args, fields)
        except OSError as error:
            refused = error
            result = -(error.errno or 0)
        except ProcessKilled:
            del self.processes[line.proc]
            return {"died": True}
        if line.var is not None:
            failed = _NO_FILE if operation.result == FILE else _NO_ADDRESS
            self.variables[line.var] = failed if refused is not None else result
        answer: Fields = {"ret": _shown(operation, result)}
        if refused is not None:
            answer["err"] = errno_name(-result)
        answer |= fields
        if line.op != "fork":
            faults = {"min": task.min_flt - before[0], "maj": task.maj_flt - before[1]}
            answer |= {key: count for key, count in faults.items() if count}
        if refused is not None:
            why = reason(refused)
            self.refusals.append(Refusal(self.number, line.text.strip(), answer["err"], why))
            if why and self._explain:
                answer["reason"] = why
        return answer

    def _do(self, line: Line, operation: Operation, process: Process, args: list[Any], fields: Fields) -> int:
        if line.op == "fork":
            return self._fork(process, args[0])
        if line.op == "exit":
            del self.processes[line.proc]
            process.exit()
            return 0
        if operation.handler is None:
            raise NotModelled(f"{line.op}: not modelled yet")
        return operation.handler(process, args, fields)

    def _fork(self, process: Process, name: str) -> int:
        if name in self.processes or name in self._unborn or name == "*":
            raise BadLine("process name in use")
        if self._born >= _MAX_PROCESSES:
            raise BadLine("too many processes")
        try:
            child = method(process, "fork")(name)
        except NotModelled:
            self._unborn.append(name)
            raise
        for each in (process, child):
            _prefault(each, self._program_base)
        self.processes[name] = child
        self._born += 1
        return 0

    def _process(self, name: str) -> Process:
        if name in self._unborn:
            raise NotModelled(f"@{name} comes from a fork that is not modelled")
        return self.processes[name]

    # -- dump -----------------------------------------------------------------------------------------------------

    def _dump(self, line: Line) -> Fields:
        wanted: set[str] = set()
        numbers: list[int] = []
        for word in line.words:
            if word in dump.VIEWS:
                wanted.add(word)
                continue
            try:
                numbers.append(expression(word, self.variable))
            except (ValueError, KeyError):
                numbers += [0, 0, 0]
            if len(numbers) > 2:
                return {"error": "bad dump argument"}
        if len(numbers) == 1:
            return {"error": "dump range needs address and length"}
        within = (numbers[0] & -PAGE, numbers[0] + numbers[1] & MASK) if numbers else _TO_THE_END
        views = [view for view in dump.VIEWS if view in (wanted or dump.DEFAULT)]
        classes = dump.Classes()
        if line.proc != "*":
            return self._dump_one(self._process(line.proc), views, within, classes)
        procs = {
            quoted(name): {"p": 0, **self._dump_one(process, views, within, classes)}
            for name, process in self.processes.items()
        }
        return {"procs": procs}

    def _dump_one(self, process: Process, views: list[str], within: dump.Range, classes: dump.Classes) -> Fields:
        if self._base is None and "status" in views:
            raise NotModelled("/proc/self/status: not modelled yet")
        fields: Fields = {}
        for view in views:
            fields |= dump.view(process, view, within, classes, self._base or {})
        if self._explain and "maps" in views:
            fields["reason"] = {address(border): why for border, why in apart(process)}
        return fields


def _shown(operation: Operation, result: int) -> int | str:
    """The field ``ret``: an errno, an address, 0 for a file, or the number."""
    if result < 0:
        return result
    if operation.result == ADDRESS:
        return address(result)
    return 0 if operation.result == FILE else result


class Runner:
    """Runs a stream of scripts and counts what went wrong.

    ``new_machine`` makes the machine of one script. ``check``: check every invariant after every operation;
    ``on_end``: called with each script that has ended, before its machine goes. ``bad``: lines that were not
    understood, as (number of the line in the stream, error); ``missing``: operations that are not modelled, by name ->
    how often; ``script``: the current one.
    """

    def __init__(
        self,
        new_machine: Callable[[], Machine],
        *,
        explain: bool = False,
        check: bool = False,
        on_end: Callable[[Script], None] | None = None,
    ) -> None:
        self._new_machine = new_machine
        self._on_end = on_end
        self._explain = explain
        self._check = check
        self.bad: list[tuple[int, str]] = []
        self.missing: dict[str, int] = {}
        self.script: Script | None = None

    def run(self, lines: Iterable[str]) -> Iterator[Answer]:
        """The answers to a stream of lines, ``{"script": NAME}`` before those of a script with a name."""
        try:
            for number, raw in enumerate(lines, 1):
                answer = self._line(strip_comment(raw.rstrip("\n").replace("\0", " ")))
                if answer is not None:
                    self._count(number, answer)
                    yield answer
            self._end()
        finally:
            self._close()

    def _line(self, text: str) -> Answer | None:
        if not text.strip(" \t\r"):
            return None
        if text.lstrip(" \t\r").startswith("script"):
            words = split(text)
            if words[0] == "script":
                name = words[1] if len(words) > 1 else ""
                self._start(name)
                return {"script": quoted(name)}
        if self.script is None:
            self._start("")
        assert self.script is not None
        answer = self.script.answer(text)
        if self._check:
            self.script.machine.check()
        return answer

    def _start(self, name: str) -> None:
        self._end()
        self.script = Script(name, self._new_machine(), explain=self._explain)

    def _end(self) -> None:
        if self.script is not None and self._on_end is not None:
            self._on_end(self.script)
        self._close()

    def _close(self) -> None:
        if self.script is not None:
            self.script.machine.close()
            self.script = None

    def _count(self, number: int, answer: Answer) -> None:
        error = answer.get("error")
        if error == "not modelled":
            self.missing[answer["op"]] = self.missing.get(answer["op"], 0) + 1
        elif error is not None:
            self.bad.append((number, error))


def environment(machine: Machine) -> Answer:
    """The line that comes first: what answers."""
    kernel = machine.kernel
    return {
        "env": {
            "memtwin": __version__,
            "kernel": kernel.features.kernel,
            "memory": kernel.ram.nr_frames * PAGE,
            "base": f"{SYMBOLS['B']:#x}",
            "brk": f"{SYMBOLS['K']:#x}",
        }
    }
