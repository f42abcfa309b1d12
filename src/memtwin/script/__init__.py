# SPDX-License-Identifier: GPL-2.0-or-later
"""The script language: one operation of memory management a line, one JSON answer line each.

``grammar`` reads lines, ``names`` has the flags, ``operations`` what each operation does, ``dump`` looks at a process
through its /proc files, ``answers`` writes lines, ``run`` keeps processes and variables, ``explain`` says why.
Everything works on the public face of ``Machine`` and ``Process``. docs/script.md is the language for users.
"""

from __future__ import annotations
