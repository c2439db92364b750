"""Running as a user who is not root: root may read everything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from support.hooks import Ran

NOBODY = 65534


def as_nobody(run: Callable[[], Ran]) -> Ran:
    """Run as nobody, or as the present user if that is not root."""
    if os.geteuid() != 0:
        return run()
    os.seteuid(NOBODY)
    try:
        return run()
    finally:
        os.seteuid(0)


def let_everybody_enter(folder: Path) -> None:
    """Let every user enter a folder: those of pytest are for their user alone."""
    for path in (folder, *folder.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(0o755)
