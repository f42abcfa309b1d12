# SPDX-License-Identifier: GPL-2.0-or-later
"""Files as a guest sees them (Linux: fs/): the host's, read-only, with /proc, /sys and /dev replaced by the twin's own.

This layer speaks bytes and Python values; user memory, descriptors in registers and errno in RAX are ``kernel/``'s
business. Errors are ``OSError`` with Linux's errno.
"""
