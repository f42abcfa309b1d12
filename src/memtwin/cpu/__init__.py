# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs: what runs guest instructions over the simulated memory, and what the kernel sees of them."""
