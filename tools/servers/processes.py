"""Finds the programs that the tests need, runs them as child processes, and waits for them."""

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

import requests

from tools.servers import build

READY_SECONDS = 60
POLL_SECONDS = 0.05
STOP_SECONDS = 15  # until a child that was asked to end is killed


class MissingServer(Exception):  # noqa: N818 - no error as a rule: its test is skipped
    """A program is not on this machine; the message says how to get it."""


def refuse_without_servers(name: str) -> None:
    """Raise MissingServer if WITHOUT_SERVERS=1 asks for the tests that need no server."""
    if os.environ.get("WITHOUT_SERVERS") == "1":
        raise MissingServer(f"{name} is not started: WITHOUT_SERVERS=1 is set")


def installed_program(name: str, package: str) -> str:
    """Return the path of a Debian package's command; raise MissingServer if it is not installed."""
    refuse_without_servers(name)
    path = shutil.which(name, path=build.SEARCHED)
    if path is None:
        raise MissingServer(f"{name} is missing: apt-get install {package}")
    return path


def built_program(name: str) -> str:
    """Return the path of a server's binary; raise MissingServer if it was not built."""
    refuse_without_servers(name)
    binary = build.find(name)
    if binary is None:
        raise MissingServer(f"{name} is missing: make servers")
    return str(binary)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens now.

    It is below the range from which the system takes the ports of outgoing connections: one of
    them could take the port before the server does.
    """
    while True:
        port = random.SystemRandom().randrange(10000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(
    condition: Callable[[], Any],
    description: str,
    seconds: float = READY_SECONDS,
    child: subprocess.Popen[bytes] | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> Any:
    """Wait until a condition returns something true, and return that.

    OSError, ValueError and KeyError of the condition mean: not yet. Raise TimeoutError after so
    many seconds, and RuntimeError as soon as the child, the process that is waited for, has ended.
    Between two looks are `poll_seconds`: more of them where a look is work for a server.
    """
    deadline = time.monotonic() + seconds
    reason: object = "not true"
    while time.monotonic() < deadline:
        if child is not None and child.poll() is not None:
            raise RuntimeError(f"{description}: the process ended with status {child.returncode}")
        try:
            value = condition()
            if value:
                return value
        except (OSError, ValueError, KeyError) as error:
            reason = error
        time.sleep(poll_seconds)
    raise TimeoutError(f"{description}: not within {seconds:g} s ({reason})")


def wait_for_status(
    url: str,
    status: int,
    name: str,
    child: subprocess.Popen[bytes],
    seconds: float = READY_SECONDS,
    verify: bool | str = True,
) -> None:
    """Wait until a server that was just started answers a GET with this HTTP status.

    `name` is the server's name in errors; `verify` is a file with the CA's certificate for https.
    """

    def is_ready() -> bool:
        return requests.get(url, timeout=5, verify=verify).status_code == status

    wait_for(is_ready, name, seconds, child)


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a child process, and stop it at the end.

    Its output is appended to the file `log`. `environ` has variables that it gets in addition to
    those of this process.
    """
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
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
