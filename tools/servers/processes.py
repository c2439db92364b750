"""A real certbot against a real CA (pebble) on loopback, for the tests and the demo: a renewal takes a second, a life as long as wished."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools.servers import build


def installed_program(name: str, package: str) -> str:
    """A command of a Debian package; MissingServer where it is not installed."""
    found = shutil.which(name, path=build.SEARCHED)
    if found is None:
        raise MissingServer(f"{name} is missing: apt-get install {package}")
    return found


READY_SECONDS = 60


class MissingServer(Exception):
    """A program is not on this machine; the message says how to get it."""


def built_program(name: str) -> str:
    """The path of a server's binary; MissingServer when it was not built."""
    found = build.find(name)
    if found is None:
        raise MissingServer(f"{name} is missing: make servers")
    return str(found)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; not one that the system gives to outgoing connections, which could take it."""
    while True:
        port = random.SystemRandom().randrange(10000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(
    condition: Callable[[], Any],
    what: str,
    seconds: float = READY_SECONDS,
    child: subprocess.Popen[bytes] | None = None,
) -> Any:
    """Waits until the condition is true and returns what it returned; an error of it means not yet."""
    deadline = time.monotonic() + seconds
    error: object = "not true"
    while time.monotonic() < deadline:
        if child is not None and child.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with status {child.returncode}")
        try:
            if value := condition():
                return value
        except (OSError, ValueError, KeyError) as seen:
            error = seen
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {seconds:g} s ({error})")


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is stopped at the end, its output in a file."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environ or {})},
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
