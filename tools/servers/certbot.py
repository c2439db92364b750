"""Runs a real certbot against a real CA, pebble, on loopback.

A renewal takes a second, and a certificate may live for as long as a test wants.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import requests
from cryptography import x509

from tools.servers.lineages import DAY, install_report_hook, make_server_certificate
from tools.servers.processes import (
    MissingServer,
    built_program,
    free_port,
    installed_program,
    running,
    wait_for_status,
)

UNUSED_PORT = 5002  # of pebble's configuration: no proof is asked for


@dataclass(frozen=True)
class Authority:
    """A running CA: the URL of its ACME directory, and the file with the CA of its https.

    `management` is the URL of its management interface, "" for a CA without ARI.
    """

    directory: str
    bundle: Path
    management: str = ""

    def set_window(self, certificate: Path, start: int, end: int) -> None:
        """Set the window in which a certificate should be renewed (ARI), in Unix seconds."""
        window = {"start": rfc3339(start), "end": rfc3339(end)}
        response = requests.post(
            f"{self.management}/set-renewal-info/",
            json={
                "certificate": certificate.read_text(),
                "ariResponse": json.dumps({"suggestedWindow": window}),
            },
            verify=str(self.bundle),
            timeout=10,
        )
        response.raise_for_status()


def distribution_certbot() -> str:
    """Return the path of the distribution's certbot, 2.1 in Debian 12; raise MissingServer."""
    for path in ("/usr/bin/certbot", "/snap/bin/certbot"):
        if Path(path).exists():
            return path
    raise MissingServer("the distribution's certbot is missing: apt-get install certbot")


def rfc3339(moment: int) -> str:
    """Return a time in Unix seconds as ACME writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


@contextlib.contextmanager
def start_pebble(folder: Path, lifetime: int = 90 * DAY, http: int = 0) -> Iterator[Authority]:
    """Start a CA without ARI, whose certificates are valid for `lifetime` seconds.

    It asks for no proof; with `http`, a port of 127.0.0.1, it asks each name for one by HTTP there.
    """
    program = installed_program("pebble", "pebble")
    options = {"managementListenAddress": "", "certificateValidityPeriod": lifetime}
    with running_pebble(program, folder, options, http) as authority:
        yield authority


@contextlib.contextmanager
def start_pebble_with_ari(
    folder: Path, lifetime: int = 90 * DAY, http: int = 0
) -> Iterator[Authority]:
    """Start a CA with ARI, otherwise like `start_pebble`.

    Its window is the time of two thirds of the lifetime and a day on both sides, until
    `set_window` sets another one.
    """
    management = f"127.0.0.1:{free_port()}"
    profile = {"description": "default", "validityPeriod": lifetime}
    options = {"managementListenAddress": management, "profiles": {"default": profile}}
    with running_pebble(built_program("pebble-ari"), folder, options, http) as authority:
        yield replace(authority, management=f"https://{management}")


@contextlib.contextmanager
def running_pebble(
    program: str, folder: Path, options: dict[str, Any], http: int
) -> Iterator[Authority]:
    """Start a pebble with its `options`, which differ by version."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle = make_server_certificate(folder / "pebble.pem", "127.0.0.1")
    port = free_port()
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "certificate": str(bundle),
        "privateKey": str(bundle),
        "httpPort": http or UNUSED_PORT,
        "tlsPort": 5001,
        **options,
    }
    config_file = folder / "pebble.json"
    config_file.write_text(json.dumps({"pebble": config}))

    authority = Authority(f"https://127.0.0.1:{port}/dir", bundle)
    command = [program, "-config", str(config_file)]
    with contextlib.ExitStack() as stack:
        if http:
            name_server = stack.enter_context(start_name_server(folder))
            command += ["-dnsserver", name_server]
        environ = pebble_environ(asks_for_proof=http != 0)
        child = stack.enter_context(running(command, folder / "pebble.log", environ))
        wait_for_status(authority.directory, 200, "pebble", child, verify=str(bundle))
        yield authority


def pebble_environ(asks_for_proof: bool) -> dict[str, str]:
    """Return the variables that make pebble quick and reliable, with or without proofs."""
    return {
        "PEBBLE_VA_NOSLEEP": "1",
        "PEBBLE_VA_ALWAYS_VALID": "" if asks_for_proof else "1",
        "PEBBLE_WFE_NONCEREJECT": "0",
        "PEBBLE_AUTHZREUSE": "0" if asks_for_proof else "100",
    }


@contextlib.contextmanager
def start_name_server(folder: Path) -> Iterator[str]:
    """Start a DNS server that answers 127.0.0.1 for every name; yield its address."""
    address = f"127.0.0.1:{free_port()}"
    command = [installed_program("pebble-challtestsrv", "pebble"), "-dns01", address]
    for other_server in ("-defaultIPv6", "-http01", "-https01", "-tlsalpn01"):
        command += [other_server, ""]
    command += ["-management", f"127.0.0.1:{free_port()}"]
    with running(command, folder / "names.log"):
        yield address


@dataclass
class Certbot:
    """A certbot with a configuration folder of its own, in which the report hook is installed.

    `folder` is what is /etc/letsencrypt elsewhere; certbot's other folders are beside it. `program`
    is certbot, the one of this Python by default. `environ` has further variables for everything
    that is run. `hook` is the path of the report hook, `log` that of certbot's log.
    """

    folder: Path
    authority: Authority
    program: str = str(Path(sys.executable).with_name("certbot"))
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Install the report hook."""
        self.hook = install_report_hook(self.folder)
        self.log = self.folder.parent / "logs" / "letsencrypt.log"

    def copied(self, folder: Path) -> Certbot:
        """Return a certbot with a copy of the configuration folder at another path."""
        shutil.copytree(self.folder, folder, symlinks=True)
        for conf in (folder / "renewal").iterdir():
            conf.write_text(conf.read_text().replace(str(self.folder), str(folder)))
        return Certbot(folder, self.authority, self.program)

    def settings(self, values: dict[str, str]) -> None:
        """Write the hook's settings into its env file."""
        lines = [f"{name}={value}\n" for name, value in values.items()]
        path = self.folder / "certbot_renewal_report.env"
        path.write_text("".join(lines))
        path.chmod(0o600)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run certbot as a timer would start it; its output is in `stdout`.

        The hook runs with the Python whose bin folder certbot is in.
        """
        command = [self.program, *arguments, "-n"]
        for name, value in self.options().items():
            command += [f"--{name}", value]
        return self.start(command)

    def options(self) -> dict[str, str]:
        """Return certbot's options for its folders and the CA, by name."""
        return {
            "config-dir": str(self.folder),
            "work-dir": str(self.folder.parent / "work"),
            "logs-dir": str(self.log.parent),
            "server": self.authority.directory,
        }

    def start(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command with certbot on its PATH, to its end; its output is in `stdout`."""
        return subprocess.run(
            command,
            env=self.surroundings(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )

    def surroundings(self) -> dict[str, str]:
        """Return the environment of a command with certbot on its PATH.

        Its HOME has a configuration file, by which a plain `certbot` uses these folders too.
        """
        home = self.folder.parent
        lines = [f"{name} = {value}\n" for name, value in self.options().items()]
        lines += ["non-interactive = true\n", "no-random-sleep-on-renew = true\n"]
        ini = home / ".config" / "letsencrypt" / "cli.ini"
        ini.parent.mkdir(parents=True, exist_ok=True)
        ini.write_text("".join(lines))
        return {
            "PATH": f"{Path(self.program).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "REQUESTS_CA_BUNDLE": str(self.authority.bundle),
            **self.environ,
        }

    def adapted(self, text: str) -> str:
        """Return a text of the manual, or of a file to install, with this folder in it."""
        return text.replace("/etc/letsencrypt", str(self.folder))

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a command line of the manual, as cron or an administrator does."""
        return self.start(["/bin/sh", "-c", self.adapted(line)])

    def issue(self, lineage: str, *names: str) -> subprocess.CompletedProcess[str]:
        """Get the first certificate of a lineage, or one with other names."""
        arguments = ["--agree-tos", "--register-unsafely-without-email"]
        arguments += ["--manual", "--preferred-challenges", "dns"]
        arguments += ["--manual-auth-hook", "/bin/true"]
        arguments += ["--cert-name", lineage]
        for name in names:
            arguments += ["-d", name]
        return self.run("certonly", *arguments)

    def renew(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `certbot renew` as the timer does, without its random sleep."""
        return self.run("renew", "--no-random-sleep-on-renew", *arguments)

    def not_before(self, lineage: str) -> int:
        """Return notBefore of a lineage's current certificate, in Unix seconds."""
        pem = (self.folder / "live" / lineage / "cert.pem").read_bytes()
        return int(x509.load_pem_x509_certificate(pem).not_valid_before_utc.timestamp())
