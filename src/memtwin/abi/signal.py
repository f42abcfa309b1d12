# SPDX-License-Identifier: GPL-2.0-or-later
"""Signal numbers and si_code values of x86-64 Linux (uapi asm/signal.h, asm-generic/siginfo.h)."""

from __future__ import annotations

from typing import Final

SIGILL: Final = 4
SIGTRAP: Final = 5
SIGABRT: Final = 6
SIGBUS: Final = 7
SIGFPE: Final = 8
SIGKILL: Final = 9
SIGSEGV: Final = 11

SEGV_MAPERR: Final = 1  #: no mapping at the address
SEGV_ACCERR: Final = 2  #: the mapping does not permit the access
SEGV_PKUERR: Final = 4  #: a protection key does not permit the access
BUS_ADRALN: Final = 1
BUS_ADRERR: Final = 2  #: beyond the end of the object
BUS_MCEERR_AR: Final = 4  #: the memory is broken
SI_KERNEL: Final = 0x80
ILL_ILLOPN: Final = 2
FPE_INTDIV: Final = 1
FPE_FLTINV: Final = 7
TRAP_BRKPT: Final = 1
