# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: ``main`` has the table of commands, every command is one file with a typer ``app``."""

from __future__ import annotations
