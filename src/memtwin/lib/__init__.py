# SPDX-License-Identifier: GPL-2.0-or-later
"""Data structures of the kernel's lib/: they know nothing of memory management; allocators are parameters."""
