# SPDX-License-Identifier: GPL-2.0-or-later
"""What CPUID answers: a Nehalem-class machine with what Unicorn executes rightly, and nothing that depends on the host.

No AVX (partly mis-decoded), no RDRAND (not deterministic), no ERMS (``rep stosb`` is 15 times slower than SSE stores
under emulation), no RDTSCP (invalid in Unicorn's Nehalem), no XSAVE, no FSGSBASE. The vendor stays GenuineIntel
because C libraries choose their routines by it; the brand string is ours. Source of the fields: Intel SDM volume 2A,
CPUID.
"""

from __future__ import annotations

from typing import Final

__all__ = ["cpuid"]

Answer = tuple[int, int, int, int]  #: EAX, EBX, ECX, EDX

_VENDOR: Final = b"GenuineIntel"
_BRAND: Final = b"memtwin simulated CPU".ljust(48, b"\0")

# Leaf 1. Family 6, model 26, stepping 3.
_SIGNATURE: Final = 0x000106A3
#: fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2
_FEATURES_EDX: Final = 0x078B_FBFF
#: sse3 ssse3 cx16 sse4.1 sse4.2 popcnt
_FEATURES_ECX: Final = 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23
_CLFLUSH_LINE: Final = 8  # in units of 8 bytes

# Leaf 0x80000001: lahf in ECX; syscall, nx, long mode in EDX.
_EXTENDED_ECX: Final = 1 << 0
_EXTENDED_EDX: Final = 1 << 11 | 1 << 20 | 1 << 29


def _text(text: bytes) -> Answer:
    a, b, c, d = (int.from_bytes(text[at : at + 4], "little") for at in range(0, 16, 4))
    return a, b, c, d


def _cache(kind: int, level: int, ways: int, sets: int) -> Answer:
    """Leaf 4: one cache of 64-byte lines; ``kind`` 1 data, 2 instruction, 3 unified."""
    return kind | level << 5 | 1 << 8, (ways - 1) << 22 | 63, sets - 1, 0


_CACHES: Final = (
    _cache(1, 1, 8, 64),  # 32 KiB
    _cache(2, 1, 4, 128),  # 32 KiB
    _cache(3, 2, 8, 512),  # 256 KiB
    _cache(3, 3, 16, 8192),  # 8 MiB
)

_LEAVES: Final[dict[int, Answer]] = {
    0x0: (0xB, *_text(_VENDOR[0:4] + _VENDOR[8:12] + _VENDOR[4:8] + bytes(4))[:3]),
    0x1: (_SIGNATURE, _CLFLUSH_LINE << 8, _FEATURES_ECX, _FEATURES_EDX),
    # Cache descriptor 0xff: "see leaf 4".
    0x2: (0xFF01, 0, 0, 0),
    0x8000_0000: (0x8000_0008, 0, 0, 0),
    0x8000_0001: (0, 0, _EXTENDED_ECX, _EXTENDED_EDX),
    0x8000_0002: _text(_BRAND[0:16]),
    0x8000_0003: _text(_BRAND[16:32]),
    0x8000_0004: _text(_BRAND[32:48]),
    0x8000_0006: (0, 0, 256 << 16 | 6 << 12 | 64, 0),  # level-2 cache: KiB, associativity code, line
    0x8000_0007: (0, 0, 0, 1 << 8),  # invariant time stamp counter
    0x8000_0008: (48 << 8 | 40, 0, 0, 0),  # address sizes: 48 bits virtual, 40 physical
}


def cpuid(leaf: int, subleaf: int) -> Answer:
    """EAX, EBX, ECX, EDX for the 32-bit ``leaf`` (EAX) and ``subleaf`` (ECX); zeroes for what is not there."""
    if leaf == 4:
        return _CACHES[subleaf] if subleaf < len(_CACHES) else (0, 0, 0, 0)
    return _LEAVES.get(leaf, (0, 0, 0, 0))
