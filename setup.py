# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything about the package is in pyproject.toml; here is how its inner modules are compiled, where that is asked:

    MEMTWIN_MYPYC=1 pip install .

The modules stay what they are, annotated Python; mypyc turns them into one C extension that needs a compiler to build
and nothing to run. Without the variable nothing is compiled, and memtwin installs anywhere.
"""

import os
import sys

from setuptools import Extension, setup

#: What every call on an address space and every fault goes through. Classes that others subclass (VmOperations,
#: VmaModify, Policy, exceptions) are in modules of their own and not here: interpreted classes can not inherit from
#: compiled ones.
COMPILED = {
    "arch/x86/mm": ("fault",),
    "cpu": ("direct",),
    "hw": ("paging", "tlb", "work"),
    "lib": ("gfp_types",),
    "lib/maple_tree": ("gaps", "node", "rebuild", "state", "tree", "write"),
    "mm": (
        "buddy",
        "context",
        "copy",
        "fault_lock_stats",
        "folio_lock",
        "get_user_pages",
        "guard",
        "gup",
        "huge_memory",
        "huge_mm",
        "huge_range",
        "huge_rmap",
        "huge_split",
        "madvise",
        "memory",
        "mlock",
        "mm_types",
        "mmap",
        "mmap_lock",
        "mprotect",
        "mremap",
        "page",
        "page_alloc",
        "page_table",
        "pcp",
        "rmap",
        "set_pte",
        "slab",
        "sysctl",
        "unmapped_area",
        "util",
        "vm_fault",
        "vma",
        "vmstat",
        "wp",
        "zap",
        "zone",
    ),
    "sched": ("core", "mutex", "owned", "rwsem", "spinlock"),
    ".": ("process",),
}
TO_COMPILE = ("mypy>=1.15", "numpy>=1.26", "greenlet>=3.0")


def modules() -> list[str]:
    """Paths of the modules to compile."""
    return [f"src/memtwin/{room}/{name}.py" for room, names in COMPILED.items() for name in names]


def extensions() -> list[Extension]:
    """The compiled modules; none unless asked for, or while pip only asks what is needed to build."""
    if os.environ.get("MEMTWIN_MYPYC") != "1" or "egg_info" in sys.argv:
        return []
    from mypyc.build import mypycify

    return mypycify(["--config-file=pyproject.toml", *modules()], opt_level="3", debug_level="0")


setup(ext_modules=extensions(), setup_requires=TO_COMPILE if os.environ.get("MEMTWIN_MYPYC") == "1" else ())
