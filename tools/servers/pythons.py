#!/usr/bin/env python3
"""Gives every Python from 3.9 to 3.14 that this machine has an environment with the hooks' libraries, to run them with.

    python3 -m tools.servers.pythons

Looks on PATH and where pyenv keeps its own. Needs only Python; an interpreter that is not here is left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.servers.build import CACHE

MINORS = range(9, 15)
HOME = CACHE.parent / "pythons"


def interpreter(minor: int) -> str | None:
    """A Python 3.x of this machine that can make environments; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    own = [str(path) for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python3"))]
    for path in filter(None, [shutil.which(f"python3.{minor}"), sys.executable, *own]):
        done = subprocess.run(
            [path, "-c", "import sys, venv, ensurepip; print(sys.version_info[1])"],
            capture_output=True,
            text=True,
        )
        if done.stdout.strip() == str(minor):
            return path
    return None


def environment(minor: int) -> Path:
    """Where the environment of a Python 3.x is, or would be."""
    return HOME / f"3.{minor}"


def main() -> int:
    """Makes what is missing; what cannot be had is named and left out."""
    for minor in MINORS:
        folder = environment(minor)
        ready, path = folder / "ready", interpreter(minor)
        # 2.25.1 is what Debian 11 has, the oldest supported.
        libraries = [
            "requests==2.25.1" if minor == 9 else "requests",
            *(["tomli"] if minor < 11 else []),
        ]
        if path and not (ready.exists() and ready.read_text() == " ".join(libraries)):
            try:
                subprocess.run([path, "-m", "venv", "--clear", str(folder)], check=True)
                subprocess.run(
                    [
                        str(folder / "bin" / "pip"),
                        "install",
                        "--quiet",
                        "--disable-pip-version-check",
                        *libraries,
                    ],
                    check=True,
                )
                ready.write_text(" ".join(libraries))
            except subprocess.CalledProcessError as error:
                print(f"pythons: 3.{minor}: {error}", file=sys.stderr)
    names = [f"3.{minor}" for minor in MINORS if (environment(minor) / "ready").exists()]
    print(f"Pythons to run the hook with: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
