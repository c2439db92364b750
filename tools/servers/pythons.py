#!/usr/bin/env python3
"""Makes an environment with the hooks' libraries for each Python from 3.9 to 3.14.

    python3 -m tools.servers.pythons

The tests run the hooks with each of them. It looks for interpreters on PATH and in pyenv's folder,
and leaves out those that this machine does not have. It needs only Python.
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
PRINT_MINOR = "import sys, venv, ensurepip; print(sys.version_info[1])"


def interpreter(minor: int) -> str | None:
    """Return a Python 3.x of this machine that can make environments, None if there is none."""
    for path in candidates(minor):
        result = subprocess.run([path, "-c", PRINT_MINOR], capture_output=True, text=True)
        if result.stdout.strip() == str(minor):
            return path
    return None


def candidates(minor: int) -> list[str]:
    """Return the programs that may be a Python 3.x."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    of_pyenv = [str(path) for path in sorted(pyenv.glob(f"3.{minor}.*/bin/python3"))]
    on_path = shutil.which(f"python3.{minor}")
    paths = [sys.executable, *of_pyenv]
    return [on_path, *paths] if on_path else paths


def environment(minor: int) -> Path:
    """Return the folder of the environment of a Python 3.x; it may not exist."""
    return HOME / f"3.{minor}"


def ready_file(minor: int) -> Path:
    """Return the file that says which libraries the environment of a Python 3.x has."""
    return environment(minor) / "ready"


def libraries_for(minor: int) -> list[str]:
    """Return what pip installs for the hooks."""
    libraries = ["requests"]
    if minor == 9:
        libraries = ["requests==2.25.1"]  # Debian 11 has it, the oldest that is supported
    if minor < 11:
        libraries.append("tomli")
    return libraries


def make_environment(path: str, minor: int) -> None:
    """Make the environment of the interpreter at a path, unless it has all libraries already."""
    libraries = libraries_for(minor)
    ready = ready_file(minor)
    if ready.exists() and ready.read_text() == " ".join(libraries):
        return

    folder = environment(minor)
    subprocess.run([path, "-m", "venv", "--clear", str(folder)], check=True)
    pip = str(folder / "bin" / "pip")
    options = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([pip, "install", *options, *libraries], check=True)
    ready.write_text(" ".join(libraries))


def main() -> int:
    """Make the environments that are missing; print the name of each that cannot be made."""
    for minor in MINORS:
        path = interpreter(minor)
        if path is None:
            continue
        try:
            make_environment(path, minor)
        except subprocess.CalledProcessError as error:
            print(f"pythons: 3.{minor}: {error}", file=sys.stderr)

    versions = [f"3.{minor}" for minor in MINORS if ready_file(minor).exists()]
    print(f"Pythons to run the hook with: {', '.join(versions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
