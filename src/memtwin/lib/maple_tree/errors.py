# SPDX-License-Identifier: GPL-2.0-or-later
"""What a store raises. A module of its own because exceptions stay ordinary classes when the tree is compiled."""

from __future__ import annotations

import errno

__all__ = ["NodesWanted"]


class NodesWanted(OSError):
    """ENOMEM inside a store that can be repeated once ``wanted`` nodes are in the cursor's reserve; the tree is
    untouched.
    """

    def __init__(self, wanted: int) -> None:
        super().__init__(errno.ENOMEM, "no memory for maple nodes")
        self.wanted = wanted
