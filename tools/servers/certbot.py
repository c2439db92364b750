"""A real certbot against a real CA (pebble) on loopback, for the tests and the demo: a renewal takes a second, a life as long as wished."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import requests
from cryptography import x509

from tools.servers.lineages import (
    DAY,
    REPORT_HOOK,
    make_server_certificate,
)
from tools.servers.processes import free_port, installed_program, running, wait_for


@dataclass(frozen=True)
class Authority:
    """A running CA: the address of its ACME directory, and the file that its https is trusted by."""

    directory: str
    bundle: Path


@contextlib.contextmanager
def start_pebble(folder: Path, lifetime: int = 90 * DAY, http: int = 0) -> Iterator[Authority]:
    """A CA whose certificates live for so many seconds. It asks for no proof, or with a port `http` of 127.0.0.1 for one by HTTP there."""
    folder.mkdir(parents=True, exist_ok=True)
    port, bundle, config = (
        free_port(),
        make_server_certificate(folder / "pebble.pem", "127.0.0.1"),
        folder / "pebble.json",
    )
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": "",
        "certificate": str(bundle),
        "privateKey": str(bundle),
    }
    ports = {"httpPort": http or 5002, "tlsPort": 5001}
    config.write_text(
        json.dumps({"pebble": {**settings, **ports, "certificateValidityPeriod": lifetime}})
    )
    quick = {
        "PEBBLE_VA_NOSLEEP": "1",
        "PEBBLE_VA_ALWAYS_VALID": "" if http else "1",
        "PEBBLE_WFE_NONCEREJECT": "0",
    }
    quick["PEBBLE_AUTHZREUSE"] = "0" if http else "100"
    authority = Authority(f"https://127.0.0.1:{port}/dir", bundle)
    with contextlib.ExitStack() as stack:
        program = [installed_program("pebble", "pebble"), "-config", str(config)]
        if http:
            dns = f"127.0.0.1:{free_port()}"
            nothing = [
                part for name in ("http01", "https01", "tlsalpn01") for part in (f"-{name}", "")
            ]
            names = [
                installed_program("pebble-challtestsrv", "pebble"),
                "-dns01",
                dns,
                "-defaultIPv6",
                "",
                *nothing,
            ]
            stack.enter_context(
                running([*names, "-management", f"127.0.0.1:{free_port()}"], folder / "names.log")
            )
            program += ["-dnsserver", dns]
        child = stack.enter_context(running(program, folder / "pebble.log", quick))
        wait_for(
            lambda: requests.get(authority.directory, verify=str(bundle), timeout=5).ok,
            "pebble",
            child=child,
        )
        yield authority


@dataclass
class Certbot:
    """A certbot with a configuration folder of its own and the hook in its place."""

    folder: Path  # what is /etc/letsencrypt elsewhere
    authority: Authority
    program: str = str(Path(sys.executable).with_name("certbot"))
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hook = self.folder / "renewal-hooks" / "deploy" / REPORT_HOOK.name
        self.hook.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPORT_HOOK, self.hook)
        self.hook.chmod(0o755)
        self.log = self.folder.parent / "logs" / "letsencrypt.log"

    def settings(self, values: dict[str, str]) -> None:
        """Writes the hook's settings into its env file."""
        path = self.folder / "certbot_renewal_report.env"
        path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        path.chmod(0o600)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """certbot, as a timer would start it; what it prints is in `stdout`. The hook runs with this Python, or Debian's for Debian's."""
        options = [part for name, value in self.options().items() for part in (f"--{name}", value)]
        return self.start([self.program, *arguments, *options, "-n"])

    def options(self) -> dict[str, str]:
        """What tells certbot where its things are here."""
        folders = {
            "config-dir": self.folder,
            "work-dir": self.folder.parent / "work",
            "logs-dir": self.log.parent,
        }
        return {
            **{name: str(folder) for name, folder in folders.items()},
            "server": self.authority.directory,
        }

    def start(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A command with certbot on its PATH, to its end."""
        environ = self.surroundings()
        return subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )

    def surroundings(self) -> dict[str, str]:
        """The environment of a command with certbot on its PATH; a plain `certbot` finds its folders, too."""
        ini = self.folder.parent / ".config" / "letsencrypt" / "cli.ini"
        ini.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{name} = {value}\n" for name, value in self.options().items())
        ini.write_text(f"{lines}non-interactive = true\nno-random-sleep-on-renew = true\n")
        return {
            "PATH": f"{Path(self.program).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder.parent),
            "REQUESTS_CA_BUNDLE": str(self.authority.bundle),
            **self.environ,
        }

    def adapted(self, text: str) -> str:
        """A text of the README or of a file to install, for this folder."""
        return text.replace("/etc/letsencrypt", str(self.folder))

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """A command line of the README, as cron or an administrator runs it."""
        return self.start(["/bin/sh", "-c", self.adapted(line)])

    def issue(self, lineage: str, *names: str) -> subprocess.CompletedProcess[str]:
        """A first certificate, or another one under the same name."""
        account = ["--agree-tos", "--register-unsafely-without-email"]
        proof = ["--manual", "--preferred-challenges", "dns", "--manual-auth-hook", "/bin/true"]
        return self.run(
            "certonly",
            *account,
            *proof,
            "--cert-name",
            lineage,
            *(part for name in names for part in ("-d", name)),
        )

    def renew(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What the timer runs, without its random sleep."""
        return self.run("renew", "--no-random-sleep-on-renew", *arguments)

    def not_before(self, lineage: str) -> int:
        """When the present certificate began, Unix seconds."""
        pem = (self.folder / "live" / lineage / "cert.pem").read_bytes()
        return int(x509.load_pem_x509_certificate(pem).not_valid_before_utc.timestamp())
