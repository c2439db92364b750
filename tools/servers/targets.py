"""Starts what certificates are delivered to, on free loopback ports: HAProxy, OpenSSH servers, Vault, nginx."""

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
from tools.servers.lineages import make_server_certificate
from tools.servers.processes import built_program, free_port, installed_program, running, wait_for


def served_certificate(port: int, name: str, host: str = "127.0.0.1") -> bytes:
    """The certificate (DER) that is served for a name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return tls.getpeercert(True) or b""


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with socket.create_connection(("127.0.0.1", port), 5):
        return True


@dataclass
class HAProxy:
    """A running HAProxy with a folder of certificates."""

    socket: Path
    certs: Path
    http: int
    https: int
    pid: int
    tcp: int  # where its stats socket listens, too

    def target(self, more: str = "", crt_list: str = "") -> str:
        """The table of it in certbot_renewal_deliver.toml."""
        certificate, crt_list = f"{self.certs}/{{lineage}}.pem", crt_list or f"{self.certs}/"
        return f'[[haproxy]]\nsocket = "{self.socket}"\ncertificate = "{certificate}"\ncrt_list = "{crt_list}"\n{more}\n'

    def serves(self, name: str) -> bytes:
        """The certificate (DER) that it serves for a name."""
        return served_certificate(self.https, name)


@contextlib.contextmanager
def start_haproxy(
    folder: Path, acme: int = 9, level: str = "admin", bind: str = ""
) -> Iterator[HAProxy]:
    """HAProxy as a user sets it up: http forwards the CA's questions to certbot's port `acme`, and redirects the rest; https serves the
    certificates of a folder. The same folder again: with the files that it had, on the same ports."""
    program = installed_program("haproxy", "haproxy")
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "certs"
    if not place.exists():
        place.mkdir()
        make_server_certificate(place / "placeholder.pem", "placeholder.example.com")
    ports = folder / "ports"
    if not ports.exists():
        ports.write_text(f"{free_port()} {free_port()} {free_port()}")
    http, https, tcp = map(int, ports.read_text().split())
    found = HAProxy(folder / "admin.sock", place, http, https, 0, tcp)
    (folder / "haproxy.cfg").write_text(f"""global
    stats socket {found.socket} mode 660 level {level}
    stats socket ipv4@127.0.0.1:{tcp} level {level}
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend http
    bind 127.0.0.1:{http}
    http-request redirect scheme https unless {{ path_beg /.well-known/acme-challenge/ }}
    use_backend acme if {{ path_beg /.well-known/acme-challenge/ }}
frontend https
    bind 127.0.0.1:{https} ssl {bind or f"crt {place}/"}
    http-request return status 200 content-type text/plain string served
backend acme
    server certbot 127.0.0.1:{acme}
""")
    with running(
        [program, "-db", "-f", str(folder / "haproxy.cfg")], folder / "haproxy.log"
    ) as child:
        found.pid = child.pid
        wait_for(lambda: answers(https), "haproxy", child=child)
        yield found


def haproxy_says(haproxy: HAProxy, command: str) -> str:
    """What its Runtime API answers."""
    with socket.create_connection(("127.0.0.1", haproxy.tcp), 10) as peer:
        peer.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: peer.recv(4096), b"")).decode()


@dataclass
class Sshd:
    """A running OpenSSH server, and the file of OpenSSH's client with the way to it."""

    port: int
    config: Path

    @property
    def host(self) -> str:
        """As it stands in hosts."""
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def start_sshd(folder: Path, own: Path | None = None) -> Iterator[Sshd]:
    """An OpenSSH server for this user, which knows one key; the client's configuration knows the server's. Several of them may each have
    a folder `own` of their own at the same path, as hosts have (as root)."""
    program = installed_program("sshd", "openssh-server")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "user"):
        if not (folder / name).exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
            )
    port, config = free_port(), folder / "ssh_config"
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    config.write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\n"
    )
    sftp = next(
        path
        for path in ("/usr/lib/openssh/sftp-server", "internal-sftp")
        if path[0] != "/" or Path(path).exists()
    )
    (folder / "sshd_config").write_text(f"""ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
Subsystem sftp {sftp}
""")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(
            exist_ok=True
        )  # where the unprivileged half of the server lives; Debian's unit makes it
    apart = (
        ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {own} && exec "$@"', "sh"]
        if own
        else []
    )
    with running(
        [*apart, program, "-D", "-e", "-f", str(folder / "sshd_config")], folder / "sshd.log"
    ) as child:
        wait_for(lambda: answers(port), "sshd", child=child)
        yield Sshd(port, config)


@dataclass
class Vault:
    """A running Vault with a KV engine, version 2, at secret/."""

    url: str
    token: str

    def api(self, method: str, path: str, **body: object) -> requests.Response:
        """A call of its HTTP API, as root."""
        return requests.request(
            method,
            f"{self.url}/v1/{path}",
            headers={"X-Vault-Token": self.token},
            json=body or None,
            timeout=30,
        )

    def secret(self, path: str) -> dict[str, str]:
        """A secret; {} where there is none."""
        answer = self.api("GET", f"secret/data/{path}")
        return dict(answer.json()["data"]["data"]) if answer.ok else {}

    def version(self, path: str) -> int:
        """How often a secret was written."""
        answer = self.api("GET", f"secret/data/{path}")
        return int(answer.json()["data"]["metadata"]["version"]) if answer.ok else 0


@contextlib.contextmanager
def start_vault(folder: Path) -> Iterator[Vault]:
    """A Vault that forgets everything at its end."""
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    with running(
        [built_program("vault-server"), "-address", address, "-token", TOKEN], folder / "vault.log"
    ) as child:
        found = Vault(f"http://{address}", TOKEN)
        wait_for(lambda: found.api("GET", "secret/config").ok, "vault", child=child)
        yield found


@contextlib.contextmanager
def start_nginx(folder: Path, servers: str) -> Iterator[int]:
    """An nginx with these server blocks, as this user; its process id."""
    program = installed_program("nginx", "nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(f"""daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    {servers}
}}
""")
    with running(
        [program, "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")],
        folder / "nginx.log",
    ) as child:
        wait_for((folder / "nginx.pid").exists, "nginx", child=child)
        yield child.pid


def install_deliver_hook(folder: Path, toml: str) -> Path:
    """A copy of the second deploy hook where the administrator puts it, and its targets."""
    source = ROOT / "deliver" / "certbot_renewal_deliver.py"
    hook = folder / "renewal-hooks" / "deploy" / source.name
    hook.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, hook)
    hook.chmod(0o755)
    (folder / "certbot_renewal_deliver.toml").write_text(toml)
    return hook


def run_deliver_hook(
    hook: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Runs the second deploy hook, as a process."""
    environ = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(
        [sys.executable, str(hook), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
