"""Start what certificates are delivered to, on free loopback ports, and install the deliver hook.

The targets are the real ones: HAProxy, an OpenSSH server, Vault, nginx.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from tools import ROOT
from tools.servers.influxdb import TOKEN
from tools.servers.lineages import install, install_report_hook, make_server_certificate
from tools.servers.processes import built_program, free_port, installed_program, running, wait_for

DELIVER_HOOK = ROOT / "deliver" / "certbot_renewal_deliver.py"
TARGETS_PACKAGE = ROOT / "deliver" / "certbot_renewal_targets"


def served_certificate(port: int, name: str, host: str = "127.0.0.1") -> bytes:
    """Return the certificate (DER) that is served for a name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return tls.getpeercert(True) or b""


def answers(port: int) -> bool:
    """Return whether somebody listens on a port of 127.0.0.1; raise OSError if nobody does."""
    with socket.create_connection(("127.0.0.1", port), 5):
        return True


# ---- HAProxy -----------------------------------------------------------------------------------
HAPROXY_CFG = """global
    stats socket {socket} mode 660 level {level}
    stats socket ipv4@127.0.0.1:{stats_port} level {level}
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend http
    bind 127.0.0.1:{http_port}
    http-request redirect scheme https unless {{ path_beg /.well-known/acme-challenge/ }}
    use_backend acme if {{ path_beg /.well-known/acme-challenge/ }}
frontend https
    bind 127.0.0.1:{https_port} ssl {bind}
    http-request return status 200 content-type text/plain string served
backend acme
    server certbot 127.0.0.1:{acme_port}
"""


@dataclass
class HAProxy:
    """A HAProxy with a folder of certificates.

    `socket` is its stats socket; it also listens on `stats_port`. `pid` is 0 while it is not
    running.
    """

    socket: Path
    certs: Path
    http_port: int
    https_port: int
    stats_port: int
    pid: int = 0

    def table(self, more: str = "", crt_list: str = "") -> str:
        """Return its table in certbot_renewal_deliver.toml; `crt_list` "": the folder."""
        lines = [
            "[[haproxy]]",
            f'socket = "{self.socket}"',
            f'certificate = "{self.certs}/{{lineage}}.pem"',
            f'crt_list = "{crt_list or f"{self.certs}/"}"',
            more,
        ]
        return "\n".join(lines) + "\n"

    def served(self, name: str) -> bytes:
        """Return the certificate (DER) that it serves for a name."""
        return served_certificate(self.https_port, name)

    def ask(self, command: str) -> str:
        """Return what its Runtime API answers to a command."""
        with socket.create_connection(("127.0.0.1", self.stats_port), 10) as connection:
            connection.sendall(command.encode() + b"\n")
            with connection.makefile("rb") as answer:
                return answer.read().decode()


@contextlib.contextmanager
def start_haproxy(
    folder: Path, acme: int = 9, level: str = "admin", bind: str = ""
) -> Iterator[HAProxy]:
    """Start a HAProxy as a user sets it up.

    http forwards the CA's questions to certbot's port `acme` and redirects everything else. https
    serves the certificates of a folder, or what `bind` says. Given the same folder again, it has
    the same files and the same ports.
    """
    program = installed_program("haproxy", "haproxy")
    folder.mkdir(parents=True, exist_ok=True)
    certs = folder / "certs"
    if not certs.exists():
        certs.mkdir()
        make_server_certificate(certs / "placeholder.pem", "placeholder.example.com")
    ports = folder / "ports"
    if not ports.exists():
        ports.write_text(f"{free_port()} {free_port()} {free_port()}")
    http_port, https_port, stats_port = map(int, ports.read_text().split())
    haproxy = HAProxy(folder / "admin.sock", certs, http_port, https_port, stats_port)

    cfg = HAPROXY_CFG.format(
        socket=haproxy.socket,
        level=level,
        stats_port=stats_port,
        http_port=http_port,
        https_port=https_port,
        bind=bind or f"crt {certs}/",
        acme_port=acme,
    )
    (folder / "haproxy.cfg").write_text(cfg)
    command = [program, "-db", "-f", str(folder / "haproxy.cfg")]
    with running(command, folder / "haproxy.log") as child:
        haproxy.pid = child.pid
        wait_for(lambda: answers(https_port), "haproxy", child=child)
        yield haproxy


# ---- OpenSSH -----------------------------------------------------------------------------------
SSHD_CONFIG = """ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
Subsystem sftp {sftp_server}
"""
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")


@dataclass
class Sshd:
    """A running OpenSSH server; `config` is OpenSSH's client configuration with the way to it."""

    port: int
    config: Path

    @property
    def host(self) -> str:
        """Its entry in `hosts` of a target."""
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def start_sshd(folder: Path, own: Path | None = None) -> Iterator[Sshd]:
    """Start an OpenSSH server for this user, which knows one key.

    The client's configuration knows the server's key. With `own`, the server has a folder of its
    own at this path, as a host has; several of them may have the same path. This needs root.
    """
    program = installed_program("sshd", "openssh-server")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "user"):
        make_ssh_key(folder / name)
    port = free_port()
    config = write_ssh_configuration(folder, port)
    if os.geteuid() == 0:
        # Where the unprivileged half of the server lives; Debian's unit makes it.
        Path("/run/sshd").mkdir(exist_ok=True)

    command = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    if own:
        mount = f'mount -t tmpfs none {own} && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
    with running(command, folder / "sshd.log") as child:
        wait_for(lambda: answers(port), "sshd", child=child)
        yield Sshd(port, config)


def make_ssh_key(path: Path) -> None:
    """Make a key of OpenSSH, unless there is one."""
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(command, check=True)


def write_ssh_configuration(folder: Path, port: int) -> Path:
    """Write the configuration of a server and of its client; return the client's."""
    sftp_server = "internal-sftp"
    if SFTP_SERVER.exists():
        sftp_server = str(SFTP_SERVER)
    server = SSHD_CONFIG.format(port=port, folder=folder, sftp_server=sftp_server)
    (folder / "sshd_config").write_text(server)
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())

    host_key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    client = folder / "ssh_config"
    lines = [
        f"IdentityFile {folder}/user",
        "IdentitiesOnly yes",
        f"UserKnownHostsFile {folder}/known_hosts",
    ]
    client.write_text("\n".join(lines) + "\n")
    return client


# ---- Vault -------------------------------------------------------------------------------------
@dataclass
class Vault:
    """A running Vault with a KV engine, version 2, at secret/."""

    url: str
    token: str

    def api(self, method: str, path: str, **body: object) -> requests.Response:
        """Call its HTTP API, as root."""
        return requests.request(
            method,
            f"{self.url}/v1/{path}",
            headers={"X-Vault-Token": self.token},
            json=body or None,
            timeout=30,
        )

    def secret(self, path: str) -> dict[str, str]:
        """Return a secret, {} if there is none."""
        answer = self.api("GET", f"secret/data/{path}")
        return dict(answer.json()["data"]["data"]) if answer.ok else {}

    def version(self, path: str) -> int:
        """Return how often a secret was written."""
        answer = self.api("GET", f"secret/data/{path}")
        return int(answer.json()["data"]["metadata"]["version"]) if answer.ok else 0


@contextlib.contextmanager
def start_vault(folder: Path) -> Iterator[Vault]:
    """Start a Vault that forgets everything when it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    command = [built_program("vault-server"), "-address", address, "-token", TOKEN]
    with running(command, folder / "vault.log") as child:
        vault = Vault(f"http://{address}", TOKEN)
        wait_for(lambda: vault.api("GET", "secret/config").ok, "vault", child=child)
        yield vault


# ---- nginx -------------------------------------------------------------------------------------
NGINX_CONF = """daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    {servers}
}}
"""


@contextlib.contextmanager
def start_nginx(folder: Path, servers: str) -> Iterator[int]:
    """Start an nginx with these server blocks, as this user; yield its process id."""
    program = installed_program("nginx", "nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, servers=servers))
    command = [program, "-e", f"{folder}/error.log", "-c", str(conf)]
    with running(command, folder / "nginx.log") as child:
        wait_for((folder / "nginx.pid").exists, "nginx", child=child)
        yield child.pid


# ---- The deliver hook --------------------------------------------------------------------------
def install_deliver_hook(folder: Path, toml: str) -> Path:
    """Install the deliver hook with all that it needs, and its settings file; return its path."""
    install_report_hook(folder)
    deploy = folder / "renewal-hooks" / "deploy"
    package = deploy / TARGETS_PACKAGE.name
    no_bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TARGETS_PACKAGE, package, ignore=no_bytecode, dirs_exist_ok=True)
    (folder / "certbot_renewal_deliver.toml").write_text(toml)
    return install(DELIVER_HOOK, deploy)


def run_deliver_hook(
    hook: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the deliver hook as a process; its environment is `environ` and PATH."""
    environ = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(
        [sys.executable, str(hook), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
