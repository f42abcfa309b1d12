# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine: the one place that assembles hardware and kernel, and the object a user must know (architecture,
section 4).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, NamedTuple, Self

from memtwin.changes import resolve
from memtwin.errors import BadInput
from memtwin.hw.numa import NODE_ALIGN_PAGES, Topology
from memtwin.hw.ram import Ram
from memtwin.kernel.kernel import Kernel
from memtwin.process import Process

__all__ = ["Machine", "RunResult", "parse_size"]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
#: What x86-64 with 4-level paging can address physically, and what a host can still reserve.
MAX_MEMORY = 16 << 40
MIN_MEMORY = 8 << 20


def parse_size(text: str | int) -> int:
    """Bytes of ``"64M"``, ``"2G"``, ``"4096"`` (binary units K M G T, an optional iB or B behind). Raises BadInput."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*(\d+)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise BadInput(f"'{text}' is not a size such as 64M, 2G or 4T")
    return int(match[1]) * _UNITS[match[2].upper()]


#: Settings of the live machine that :meth:`Machine.like_host` copies.
HOST_SYSCTLS = (
    "overcommit_memory",
    "overcommit_ratio",
    "overcommit_kbytes",
    "admin_reserve_kbytes",
    "user_reserve_kbytes",
    "max_map_count",
    "mmap_min_addr",
    "legacy_va_layout",
)


def _meminfo_pages(meminfo: str) -> int:
    """MemTotal in pages."""
    return int(meminfo.split("MemTotal:", 1)[1].split()[0]) // 4


def _memory_for(managed: int) -> int:
    """Bytes of a machine of one node whose page allocator manages ``managed`` pages: the first MiB and 64 bytes a
    page go off.
    """
    pages = managed
    while pages - (pages + 63) // 64 - 256 < managed:
        pages += managed + (pages + 63) // 64 + 256 - pages
    return pages << 12


def host_memory() -> int:
    """Bytes of a machine whose page allocator manages as many pages as the live kernel's. Raises OSError, ValueError
    where there is no /proc.
    """
    return _memory_for(_meminfo_pages(Path("/proc/meminfo").read_text(encoding="ascii")))


def host_sysctls() -> dict[str, int]:
    """The live machine's settings that a twin has too. Raises OSError, ValueError."""
    paths = {name: Path("/proc/sys/vm", name) for name in HOST_SYSCTLS}
    return {name: int(path.read_text(encoding="ascii")) for name, path in paths.items() if path.exists()}


def _host_has_pku() -> bool:
    """Whether the CPU of the live machine has protection keys and its kernel uses them."""
    try:
        return " ospke" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def _node_pages(memory: int, nodes: int | Sequence[int | str]) -> list[int]:
    """Pages of each node: ``nodes`` equal shares of ``memory`` bytes, or the given sizes."""
    if not isinstance(nodes, int):
        return [parse_size(size) >> 12 for size in nodes]
    if nodes < 1:
        raise BadInput(f"{nodes} NUMA nodes: at least one is needed")
    total = memory >> 12
    share = total // nodes // NODE_ALIGN_PAGES * NODE_ALIGN_PAGES
    if nodes > 1 and not share:
        raise BadInput(f"{memory} bytes are too little for {nodes} NUMA nodes")
    return [share] * (nodes - 1) + [total - share * (nodes - 1)]


class RunResult(NamedTuple):
    """How a program ended: exit status (128 + signal when killed), what it printed if captured, page faults trapped."""

    status: int
    stdout: bytes
    stderr: bytes
    faults: int


class Machine:
    """A computer with a booted kernel. Two machines in one process share nothing.

    ``memory``: bytes, or text such as ``"2G"``; ``cpus``: simulated CPUs; ``nodes``: number of equal NUMA nodes, or a
    list of sizes (which then make up the memory); ``memory_only``: nodes without CPUs; ``distance``: table as in
    ACPI's SLIT; ``kernel``: profile (``before``, ``6.7``, ``host``, a release); ``with_``, ``without``: ids of
    changes and knobs; ``seed``: of everything random; ``lockdep``: check lock order and context at run time;
    ``config``: CONFIG_* options that are on and show (``ANON_VMA_NAME``); ``pku``: the CPU has protection keys, which
    make execute-only memory unreadable (None: as the live machine for the profile ``host``, else without). Raises
    BadInput where the description is impossible. Usable as a context manager; ``close()`` ends it.
    """

    __slots__ = ("kernel",)

    def __init__(
        self,
        memory: int | str = "2G",
        cpus: int = 1,
        nodes: int | Sequence[int | str] = 1,
        *,
        memory_only: Sequence[int] = (),
        distance: Sequence[Sequence[int]] | None = None,
        kernel: str = "6.7",
        with_: Sequence[str] = (),
        without: Sequence[str] = (),
        seed: int = 0,
        lockdep: bool = False,
        config: Sequence[str] = (),
        pku: bool | None = None,
    ) -> None:
        sizes = _node_pages(parse_size(memory), nodes)
        total = sum(sizes) << 12
        if not MIN_MEMORY <= total <= MAX_MEMORY:
            raise BadInput(f"a machine of {total} bytes: between 8 MiB and 16 TiB are possible")
        if pku is None:
            pku = kernel == "host" and _host_has_pku()
        features = resolve(kernel, with_=with_, without=without)
        topology = Topology(sizes, cpus, memory_only=memory_only, distance=distance)
        self.kernel = Kernel(Ram(total), topology, features, seed=seed, lockdep=lockdep, config=config, pku=pku)

    @classmethod
    def like_host(cls, **more: Any) -> Self:
        """A machine like the live one: its kernel's changes, as much memory as its kernel manages, its CPUs, its
        settings under /proc/sys/vm. ``more``: arguments of the constructor that override. Raises BadInput where there
        is no /proc.
        """
        try:
            like = {"memory": host_memory(), "cpus": os.cpu_count() or 1, "kernel": "host"}
            machine = cls(**{**like, **more})
            machine.set_sysctls(host_sysctls())
        except (OSError, ValueError) as error:
            raise BadInput(f"the live machine can not be looked at: {error}") from None
        return machine

    def set_sysctls(self, values: Mapping[str, int]) -> None:
        """Settings under /proc/sys/vm by name, as if they had held from boot on."""
        for name, value in values.items():
            setattr(self.kernel.mm_ctx.sysctl, name, value)

    def spawn(self, name: str = "proc") -> Process:
        """A process without a program, driven by system calls: no ASLR, 8 MiB stack area, empty heap at 0x800000000."""
        return Process.spawn(self.kernel, name)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        capture: bool = False,
    ) -> RunResult:
        """Run a program to its end: ``argv[0]`` is searched along PATH, host files are read-only.

        ``env``: its environment instead of a small fixed one; ``capture``: keep what it prints (it then reads nothing)
        instead of handing our own standard streams through. Raises BadInput where the program can not be started.
        """
        from memtwin.cpu.loop import DEFAULT_ENV, Program

        environment = DEFAULT_ENV if env is None else env
        if not capture:
            program = Program(self.kernel, argv, env=environment, cwd=cwd)
            return RunResult(program.run(), b"", b"", program.faults)
        with open(os.devnull, "rb") as nothing, TemporaryFile() as out, TemporaryFile() as err:
            stdio = nothing.fileno(), out.fileno(), err.fileno()
            program = Program(self.kernel, argv, env=environment, cwd=cwd, stdio=stdio)
            status = program.run()
            out.seek(0)
            err.seek(0)
            return RunResult(status, out.read(), err.read(), program.faults)

    def check(self) -> None:
        """Check every invariant. Raises InvariantBroken."""
        self.kernel.check()

    def close(self) -> None:
        """End all tasks. The machine can not be used afterwards."""
        self.kernel.sched.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
