# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated hardware: RAM, paging structures, NUMA topology, TLB generations, work counters."""
