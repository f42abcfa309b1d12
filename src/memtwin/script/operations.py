# SPDX-License-Identifier: GPL-2.0-or-later
"""The operations of the script language: what their arguments are and which call of ``Process`` does them.

An operation that ``Process`` can not do yet raises NotModelled; so does a row without a handler. Those that concern
the script and not one process (fork, exit, dump, echo, uffd_policy) are rows here and are done in ``run``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from memtwin.abi.prctl import PR_GET_MEMORY_MERGE, PR_SET_MEMORY_MERGE, PR_SET_THP_DISABLE
from memtwin.errors import FatalSignal, NotModelled
from memtwin.fs.proc.proc_sysctl import VM_TABLE
from memtwin.script.answers import Runs, byte_runs, signal_fields
from memtwin.script.grammar import MASK, PAGE, BadLine, expression, flags, signed
from memtwin.script.names import FLAGS

if TYPE_CHECKING:
    from memtwin.process import Process

__all__ = ["ADDRESS", "DIRECTORY", "FILE", "NUMBER", "OPERATIONS", "Fields", "Operation", "arguments", "method"]

Fields = dict[str, Any]
#: Does the operation, adds fields to the answer, and returns what the call returned. Raises OSError.
Handler = Callable[["Process", list[Any], Fields], int]

ADDRESS: Final = "address"
NUMBER: Final = "number"
FILE: Final = "file"

#: Where a script's own files are.
DIRECTORY: Final = "/script"

_O_RDWR_CREAT: Final = FLAGS["open"]["rdwr"] | FLAGS["open"]["creat"]
_UFFD_DEFAULT: Final = FLAGS["uffd"]["cloexec"] | FLAGS["uffd"]["nonblock"]
#: Most bytes that one mincore (one a page), pread, pwrite, vm_read or vm_write moves; on a live kernel they need room.
_BUFFER: Final = 256 << 10
#: Most pages that one page_status asks about.
_QUERY: Final = 4096
#: MADV_HWPOISON and MADV_SOFT_OFFLINE: a script that may also run on a live kernel does not poison its memory.
_POISON: Final = (100, 101)

#: Kinds of arguments that Linux takes as an int (-32), an unsigned int (32) or a long (-64); others are unsigned longs.
_WIDTH: Final = {
    **dict.fromkeys(("fd", "advice", "mlock2", "mlockall", "msync", "open", "fallocate", "uffd", "policy"), -32),
    **dict.fromkeys(("capability",), -32),
    **dict.fromkeys(("memfd", "mbind", "limit"), 32),
    **dict.fromkeys(("offset",), -64),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One row. ``kinds``: of the arguments, of which ``required`` must be there; ``result``: ADDRESS, NUMBER or FILE;
    ``handler``: None if it is done elsewhere or not modelled.
    """

    name: str
    kinds: tuple[str, ...]
    required: int
    result: str
    handler: Handler | None


def arguments(
    operation: Operation, words: tuple[str, ...], variable: Callable[[str], int], process: Callable[[str], Process]
) -> list[Any]:
    """The values of an operation's arguments: numbers, text for names, the process for its name. ``variable`` and
    ``process`` look names up and raise KeyError for unknown ones. Raises BadLine, and what else these two raise.
    """
    values: list[Any] = []
    for number, (kind, word) in enumerate(zip(operation.kinds, words, strict=False), 1):
        try:
            if kind == "name":
                values.append(word)
            else:
                values.append(process(word) if kind == "proc" else _value(kind, word, variable))
        except (ValueError, KeyError):
            raise BadLine(f"bad argument {number}") from None
    if len(words) < operation.required:
        raise BadLine("too few arguments")
    if len(words) > len(operation.kinds):
        raise BadLine("too many arguments")
    if operation.kinds[2:3] == ("advice",) and values[2] in _POISON:
        raise BadLine("refused: memory poisoning")
    return values


def _value(kind: str, word: str, variable: Callable[[str], int]) -> int:
    value = flags(word, FLAGS[kind], variable) if kind in FLAGS else expression(word, variable)
    width = _WIDTH.get(kind, 64)
    return signed(value, -width) if width < 0 else value & ((1 << width) - 1)


def method(process: Process, name: str) -> Callable[..., Any]:
    """The call ``name`` of ``process``. Raises NotModelled if there is none yet."""
    found = getattr(process, name, None)
    if found is None:
        raise NotModelled(f"{name}: not modelled yet")
    return found  # type: ignore[no-any-return]


def _plain(name: str) -> Handler:
    """The call takes the arguments as they are and returns None or a number."""

    def handler(process: Process, args: list[Any], _fields: Fields) -> int:
        return method(process, name)(*args) or 0

    return handler


# -- accesses -----------------------------------------------------------------------------------------------------


def _locations(addr: int, length: int, stride: int) -> Iterator[int]:
    return (addr + offset & MASK for offset in range(0, length, stride or PAGE))


def _read(process: Process, args: list[Any], fields: Fields) -> int:
    addr, length, stride = (*args, 0)[:3]
    runs, done = Runs(), 0
    try:
        for at in _locations(addr, length, stride):
            runs.add(process.read(at, 1)[0])
            done += 1
    except FatalSignal as raised:
        fields |= signal_fields(raised)
    fields["vals"] = runs.runs
    return done


def _write(process: Process, args: list[Any], fields: Fields) -> int:
    addr, length, value, stride = (*args, 0)[:4]
    byte, done = bytes([value & 0xFF]), 0
    try:
        for at in _locations(addr, length, stride):
            process.write(at, byte)
            done += 1
    except FatalSignal as raised:
        fields |= signal_fields(raised)
    return done


def _at_most(limit: int, length: int) -> int:
    if length > limit:
        raise OSError(errno.E2BIG, "more than one operation of a script may move")
    return length


def _at_most_a_buffer(length: int) -> int:
    return _at_most(_BUFFER, length)


def _show(data: bytes, fields: Fields) -> int:
    """What a call that reads bytes answers."""
    if data:
        fields |= byte_runs("vals", data)
    return len(data)


def _vm_read(process: Process, args: list[Any], fields: Fields) -> int:
    addr, length, target = (*args, process)[:3]
    return _show(method(process, "process_vm_readv")(target, addr, _at_most_a_buffer(length)), fields)


def _vm_write(process: Process, args: list[Any], _fields: Fields) -> int:
    addr, length, value, target = (*args, process)[:4]
    data = bytes([value & 0xFF]) * _at_most_a_buffer(length)
    done: int = method(process, "process_vm_writev")(target, addr, data)
    return done


def _mincore(process: Process, args: list[Any], fields: Fields) -> int:
    addr, length = args
    _at_most_a_buffer(length // PAGE + (length % PAGE > 0))
    fields |= byte_runs("vec", bytes(byte & 1 for byte in method(process, "mincore")(addr, length)))
    return 0


def _page_status(process: Process, args: list[Any], fields: Fields) -> int:
    addr, pages = args[0], args[1] // PAGE
    _at_most(_QUERY, pages)
    status = method(process, "move_pages")([addr + number * PAGE & MASK for number in range(pages)])
    fields["status"] = [[value, len(list(same))] for value, same in groupby(status)]
    return 0


# -- files --------------------------------------------------------------------------------------------------------


def _path(name: str) -> str:
    """The file of that name in the script's directory; only the zero device is outside. Raises OSError."""
    if name == "/dev/zero":
        return name
    name = name.lstrip("/")
    if not name.strip("."):
        raise OSError(errno.EISDIR, "a directory")
    if "/" in name:
        raise OSError(errno.ENOENT, "the directory has no directories in it")
    return f"{DIRECTORY}/{name}"


def _open(process: Process, args: list[Any], _fields: Fields) -> int:
    name, mode = (*args, _O_RDWR_CREAT)[:2]
    return process.open(_path(name), mode)


def _unlink(process: Process, args: list[Any], _fields: Fields) -> int:
    process.unlink(_path(args[0]))
    return 0


def _memfd(process: Process, args: list[Any], _fields: Fields) -> int:
    name, mode = (*args, 0)[:2]
    fd: int = method(process, "memfd_create")(name, mode)
    return fd


def _fstat(process: Process, args: list[Any], fields: Fields) -> int:
    fields["size"], fields["blocks"] = method(process, "fstat")(args[0])
    return 0


def _pread(process: Process, args: list[Any], fields: Fields) -> int:
    fd, offset, length = args
    return _show(method(process, "pread")(fd, _at_most_a_buffer(length), offset), fields)


def _pwrite(process: Process, args: list[Any], _fields: Fields) -> int:
    fd, offset, length, value = args
    done: int = method(process, "pwrite")(fd, bytes([value & 0xFF]) * _at_most_a_buffer(length), offset)
    return done


# -- limits, policies, prctl --------------------------------------------------------------------------------------


def _shown_limit(value: int) -> int:
    return -1 if value == MASK else value


def _getrlimit(process: Process, args: list[Any], fields: Fields) -> int:
    soft, hard = method(process, "getrlimit")(args[0])
    fields["cur"], fields["max"] = _shown_limit(soft), _shown_limit(hard)
    return 0


def _setrlimit(process: Process, args: list[Any], _fields: Fields) -> int:
    which, soft = args[:2]
    hard = args[2] if len(args) > 2 else method(process, "getrlimit")(which)[1]
    method(process, "setrlimit")(which, soft, hard)
    return 0


def _get_mempolicy(process: Process, args: list[Any], fields: Fields) -> int:
    fields["mode"], fields["nodes"] = method(process, "get_mempolicy")(*args)
    return 0


def _prctl(option: int) -> Handler:
    def handler(process: Process, args: list[Any], _fields: Fields) -> int:
        return method(process, "prctl")(option, *args) or 0

    return handler


def _anon_name(process: Process, args: list[Any], _fields: Fields) -> int:
    addr, length, name = (*args, None)[:3]
    method(process, "prctl_set_vma_anon_name")(addr, length, name)
    return 0


def _sysctl(process: Process, args: list[Any], fields: Fields) -> int:
    name, *value = args
    path = f"/proc/sys/vm/{name}"
    if name not in VM_TABLE:
        raise NotModelled(f"{path}: not modelled yet")
    if value:
        method(process, "write_file")(path, f"{signed(value[0])}")
    else:
        fields["value"] = int(method(process, "read_file")(path))
    return 0


# -- userfaultfd --------------------------------------------------------------------------------------------------


def _userfaultfd(process: Process, args: list[Any], _fields: Fields) -> int:
    fd: int = method(process, "userfaultfd")(*(args or [_UFFD_DEFAULT]))
    return fd


def _uffd_api(process: Process, args: list[Any], fields: Fields) -> int:
    try:
        features, ioctls = method(process, "uffd_api")(*args)
    except OSError as error:
        # Linux zeroes the structure where it refuses what is in it; one that is no userfaultfd does not look at it.
        fields |= {"features": f"{0 if error.errno == errno.EINVAL else args[1]:#x}", "ioctls": "0x0"}
        raise
    fields |= {"features": f"{features:#x}", "ioctls": f"{ioctls:#x}"}
    return 0


def _uffd_register(process: Process, args: list[Any], fields: Fields) -> int:
    fields["ioctls"] = f"{method(process, 'uffd_register')(*args):#x}"
    return 0


def _table() -> Iterator[Operation]:
    def row(name: str, kinds: str, handler: Handler | None, result: str = NUMBER) -> Operation:
        before, _, after = kinds.partition("?")
        required = before.split()
        return Operation(name, (*required, *after.split()), len(required), result, handler)

    yield row("mmap", "addr len prot mmap ? fd number", _plain("mmap"), ADDRESS)
    yield row("munmap", "addr len", _plain("munmap"))
    yield row("mprotect", "addr len prot", _plain("mprotect"))
    yield row("madvise", "addr len advice", _plain("madvise"))
    yield row("process_madvise", "addr len advice", _plain("process_madvise"))
    yield row("mremap", "addr len len mremap ? addr", _plain("mremap"), ADDRESS)
    yield row("brk", "addr", _plain("brk"), ADDRESS)
    yield row("mlock", "addr len", _plain("mlock"))
    yield row("mlock2", "addr len mlock2", _plain("mlock2"))
    yield row("munlock", "addr len", _plain("munlock"))
    yield row("mlockall", "mlockall", _plain("mlockall"))
    yield row("munlockall", "", _plain("munlockall"))
    yield row("msync", "addr len msync", _plain("msync"))
    yield row("mincore", "addr len", _mincore)
    yield row("mseal", "addr len ? number", _plain("mseal"))
    yield row("remap_file_pages", "addr len number number mmap", _plain("remap_file_pages"))
    yield row("read", "addr len ? number", _read)
    yield row("write", "addr len number ? number", _write)
    yield row("vm_read", "addr len ? proc", _vm_read)
    yield row("vm_write", "addr len number ? proc", _vm_write)
    yield row("anon_name", "addr len ? name", _anon_name)
    yield row("merge", "number", _prctl(PR_SET_MEMORY_MERGE))
    yield row("get_merge", "", _prctl(PR_GET_MEMORY_MERGE))
    yield row("thp_disable", "number", _prctl(PR_SET_THP_DISABLE))

    yield row("memfd", "name ? memfd", _memfd, FILE)
    yield row("open", "name ? open", _open, FILE)
    yield row("ftruncate", "fd offset", _plain("ftruncate"))
    yield row("fallocate", "fd fallocate offset offset", _plain("fallocate"))
    yield row("fstat", "fd", _fstat)
    yield row("pread", "fd offset len", _pread)
    yield row("pwrite", "fd offset len number", _pwrite)
    yield row("close", "fd", _plain("close"))
    yield row("unlink", "name", _unlink)
    yield row("addseals", "fd seals", _plain("add_seals"))
    yield row("getseals", "fd", _plain("get_seals"))

    yield row("userfaultfd", "? uffd", _userfaultfd, FILE)
    yield row("uffd_api", "fd features", _uffd_api)
    yield row("uffd_register", "fd addr len register", _uffd_register)
    yield row("uffd_unregister", "fd addr len", _plain("uffd_unregister"))
    yield row("uffd_wake", "fd addr len", _plain("uffd_wake"))
    yield row("uffd_wp", "fd addr len uffd_wp", None)
    yield row("uffd_copy", "fd addr addr len ? uffd_mode", None)
    yield row("uffd_move", "fd addr addr len ? uffd_mode", None)
    for name in ("uffd_zeropage", "uffd_continue", "uffd_poison"):
        yield row(name, "fd addr len ? uffd_mode", None)
    yield row("uffd_policy", "name ? number", None)
    yield row("scan", "addr len scan categories categories categories categories ? number number", None)
    yield row("clear_refs", "number", _plain("clear_refs"))

    yield row("mbind", "addr len policy number mbind", _plain("mbind"))
    yield row("set_mempolicy", "policy number", _plain("set_mempolicy"))
    yield row("get_mempolicy", "? addr", _get_mempolicy)
    yield row("page_status", "addr len", _page_status)
    yield row("getrlimit", "limit", _getrlimit)
    yield row("setrlimit", "limit number ? number", _setrlimit)
    yield row("dropcap", "capability", _plain("dropcap"))
    yield row("sysctl", "name ? number", _sysctl)

    yield row("fork", "name", None)
    yield row("exit", "", None)
    yield row("dump", "", None)
    yield row("echo", "", None)


#: Every operation by name.
OPERATIONS: Final = {operation.name: operation for operation in _table()}
