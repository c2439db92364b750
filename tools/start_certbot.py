"""A real certbot against a real CA (pebble) on loopback, for the tests and the demo: a renewal takes a second, a life as long as wished."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

import build_servers
from start_servers import MissingServer, free_port, running, wait_for

DAY = 86400
Key = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
KEY: Key = ec.generate_private_key(ec.SECP256R1())
HOOK = Path(__file__).resolve().parent.parent / "certbot_renewal_report.py"


def certificate_of(names: Sequence[str], not_before: int, lifetime: int, key: Key = KEY) -> bytes:
    """A certificate as PEM, signed by itself; without names it has no subjectAltName at all. Times in seconds."""
    general = [x509.IPAddress(ipaddress.ip_address(n)) if n.replace(".", "").isdigit() or ":" in n else x509.DNSName(n) for n in names]
    begin = datetime.datetime.fromtimestamp(not_before, datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(seconds=lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_lineage(
    folder: Path, lineage: str, names: list[str], not_before: int, lifetime: int, conf: str = "", key: Key | None = None
) -> Path:
    """A lineage as certbot lays it out, without its key and chain where no key is given; returns its folder in live/."""
    archive, live, renewal = folder / "archive" / lineage, folder / "live" / lineage, folder / "renewal"
    for path in (archive, live, renewal):
        path.mkdir(parents=True, exist_ok=True)
    number = len(list(archive.glob("cert*.pem"))) + 1
    pem = certificate_of(names, not_before, lifetime, key or KEY)
    more = {"chain": pem, "fullchain": pem, "privkey": key_as_pem(key)} if key else {}
    for kind, text in {"cert": pem, **more}.items():
        file, link = archive / f"{kind}{number}.pem", live / f"{kind}.pem"
        file.touch(0o600 if kind == "privkey" else 0o644)
        file.write_bytes(text)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{lineage}/{kind}{number}.pem")
    paths = "".join(f"{key} = {live}/{key}.pem\n" for key in ("cert", "privkey", "chain", "fullchain"))
    (renewal / f"{lineage}.conf").write_text(f"{conf}version = 5.8.0\n{paths}[renewalparams]\nautorenew = True\n")
    return live


def put_hook(folder: Path) -> Path:
    """A copy of the hook where the administrator puts it."""
    hook = folder / "renewal-hooks" / "deploy" / HOOK.name
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_bytes(HOOK.read_bytes())
    hook.chmod(0o755)
    return hook


def key_as_pem(key: Key) -> bytes:
    """A private key as certbot writes it."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def self_signed(path: Path, name: str) -> Path:
    """A server's certificate and key in one file, which is its own CA too."""
    path.write_bytes(key_as_pem(KEY) + certificate_of([name], int(time.time()) - 60, DAY))
    return path


def command(name: str, package: str) -> str:
    """A command of a Debian package; MissingServer where it is not installed."""
    found = shutil.which(name, path=build_servers.SEARCHED)
    if found is None:
        raise MissingServer(f"{name} is missing: apt-get install {package}")
    return found


@dataclass(frozen=True)
class Authority:
    """A running CA: the address of its ACME directory, and the file that its https is trusted by."""

    directory: str
    bundle: Path


@contextlib.contextmanager
def pebble(folder: Path, lifetime: int = 90 * DAY, http: int = 0) -> Iterator[Authority]:
    """A CA whose certificates live for so many seconds. It asks for no proof, or with a port `http` of 127.0.0.1 for one by HTTP there."""
    folder.mkdir(parents=True, exist_ok=True)
    port, bundle, config = free_port(), self_signed(folder / "pebble.pem", "127.0.0.1"), folder / "pebble.json"
    settings = {"listenAddress": f"127.0.0.1:{port}", "managementListenAddress": "", "certificate": str(bundle), "privateKey": str(bundle)}
    ports = {"httpPort": http or 5002, "tlsPort": 5001}
    config.write_text(json.dumps({"pebble": {**settings, **ports, "certificateValidityPeriod": lifetime}}))
    quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_VA_ALWAYS_VALID": "" if http else "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    quick["PEBBLE_AUTHZREUSE"] = "0" if http else "100"
    authority = Authority(f"https://127.0.0.1:{port}/dir", bundle)
    with contextlib.ExitStack() as stack:
        program = [command("pebble", "pebble"), "-config", str(config)]
        if http:
            dns = f"127.0.0.1:{free_port()}"
            nothing = [part for name in ("http01", "https01", "tlsalpn01") for part in (f"-{name}", "")]
            names = [command("pebble-challtestsrv", "pebble"), "-dns01", dns, "-defaultIPv6", "", *nothing]
            stack.enter_context(running([*names, "-management", f"127.0.0.1:{free_port()}"], folder / "names.log"))
            program += ["-dnsserver", dns]
        child = stack.enter_context(running(program, folder / "pebble.log", quick))
        wait_for(lambda: requests.get(authority.directory, verify=str(bundle), timeout=5).ok, "pebble", child=child)
        yield authority


@dataclass
class Certbot:
    """A certbot with a configuration folder of its own and the hook in its place."""

    folder: Path  # what is /etc/letsencrypt elsewhere
    authority: Authority
    program: str = str(Path(sys.executable).with_name("certbot"))
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hook = self.folder / "renewal-hooks" / "deploy" / HOOK.name
        self.hook.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOOK, self.hook)
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
        folders = {"config-dir": self.folder, "work-dir": self.folder.parent / "work", "logs-dir": self.log.parent}
        return {**{name: str(folder) for name, folder in folders.items()}, "server": self.authority.directory}

    def start(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """A command with certbot on its PATH, to its end."""
        environ = self.surroundings()
        return subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
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
        return self.run("certonly", *account, *proof, "--cert-name", lineage, *(part for name in names for part in ("-d", name)))

    def renew(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What the timer runs, without its random sleep."""
        return self.run("renew", "--no-random-sleep-on-renew", *arguments)

    def not_before(self, lineage: str) -> int:
        """When the present certificate began, Unix seconds."""
        pem = (self.folder / "live" / lineage / "cert.pem").read_bytes()
        return int(x509.load_pem_x509_certificate(pem).not_valid_before_utc.timestamp())
