"""Helpers for the tests of the deliver hook: certificates to deliver, targets, what came of it."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from support.servers import skip_or_fail
from tools.servers.certbot import Authority, Certbot
from tools.servers.lineages import DAY, KEY, make_lineage
from tools.servers.processes import MissingServer
from tools.servers.targets import Sshd, install_deliver_hook

Server = TypeVar("Server")
Completed = subprocess.CompletedProcess[str]

RENEWALS = int(os.environ.get("RENEWALS", "1"))  # under load; 20 in make faults
NOW = int(time.time())
STATE_FILE = "certbot_renewal_deliver.state"


@contextlib.contextmanager
def available(server: AbstractContextManager[Server]) -> Iterator[Server]:
    """Start a server, or skip the test if it is not installed."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(server)
        except MissingServer as error:
            skip_or_fail(error)
        yield running


# ---- Certificates ------------------------------------------------------------------------------
def renew(
    folder: Path,
    lineage: str = "example.com",
    names: tuple[str, ...] = ("example.com",),
    days_ago: int = 0,
) -> Path:
    """Write a new certificate of a lineage, as certbot would; return its folder in live/."""
    not_before = NOW - 60 - days_ago * DAY
    return make_lineage(folder, lineage, list(names), not_before, 90 * DAY, key=KEY)


def first_certificate(path: Path) -> bytes:
    """Return the first certificate (DER) in a PEM file, which may also hold a key."""
    begin, end, _ = path.read_text().partition("-----END CERTIFICATE-----\n")
    return ssl.PEM_cert_to_DER_cert(begin + end)


def renewed_certificate(
    folder: Path, names: tuple[str, ...] = ("example.com",), days_ago: int = 0
) -> bytes:
    """Renew example.com; return the new certificate (DER)."""
    return first_certificate(renew(folder, names=names, days_ago=days_ago) / "cert.pem")


def is_pair(certificate_path: Path, key_path: Path) -> bool:
    """Return whether a certificate and a key belong together."""
    certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


# ---- Targets -----------------------------------------------------------------------------------
def command_table(folder: Path, name: str = "log") -> str:
    """Return the table of a command that cannot fail: it logs what it got in a file of its name."""
    script = f"echo $RENEWED_LINEAGE $RENEWED_DOMAINS >> {folder}/{name}"
    return f'[[command]]\nname = "{name}"\ncommand = ["/bin/sh", "-c", "{script}"]\n'


def ssh_table(sshd: Sshd, folder: Path, more: str = "", hosts: str = "", reload: str = "") -> str:
    """Return the table of a host that has its certificates in a folder, and logs each reload.

    `reload` replaces that command.
    """
    folder.mkdir(exist_ok=True)
    lines = [
        "[[ssh]]",
        f"hosts = [{hosts or quoted(sshd.host)}]",
        f'fullchain = "{folder}/{{lineage}}.crt"',
        f'key = "{folder}/{{lineage}}.key"',
        f'config = "{sshd.config}"',
        f'reload = "{reload or f"echo reloaded >> {folder}/reloads"}"',
        more,
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a text as TOML has it."""
    return f'"{text}"'


def installed_in(certbot: Certbot, toml: str) -> Path:
    """Install the deliver hook for a certbot; the report hook is there, but is not started."""
    hook = install_deliver_hook(certbot.folder, toml)
    certbot.hook.chmod(0o644)
    return hook


def new_certbot(folder: Path, authority: Authority) -> Certbot:
    """Return a certbot with a configuration folder of its own in a folder."""
    return Certbot(folder / "letsencrypt", authority)


# ---- What came of it ---------------------------------------------------------------------------
def assert_success(completed: Completed, output: str = "") -> None:
    """Assert that the hook succeeded, with nothing on stderr."""
    assert (completed.returncode, completed.stderr) == (0, ""), completed.stderr
    assert output in completed.stdout


def assert_failure(completed: Completed, *errors: str) -> None:
    """Assert that the hook failed, with these texts on one line of stderr."""
    assert completed.returncode == 1
    assert completed.stderr.count("\n") == 1, completed.stderr
    for error in errors:
        assert error in completed.stderr


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file, [] if there is none."""
    return path.read_text().splitlines() if path.exists() else []


def names_in(folder: Path) -> set[str]:
    """Return the names in a folder."""
    return {path.name for path in folder.iterdir()}


def mode_of(path: Path) -> int:
    """Return the permissions of a file."""
    return path.stat().st_mode & 0o777


# ---- Disks -------------------------------------------------------------------------------------
@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a small disk on a folder, or skip the test if that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"not allowed here: {mounted.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_disk(path: Path) -> None:
    """Write a file until its disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
