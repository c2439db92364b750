"""A throwaway machine for pages of the manual: their commands run on it exactly as written.

It is a process with namespaces of its own. It shares the files of this machine, but what it writes
to /etc, /opt, /root, /srv, /usr/local and /var disappears with it. Its loopback is its own, so
servers have their usual ports. It has no systemd and no Docker: stand_ins/ has commands in their
place.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.servers import skip_or_fail
from tools import ROOT
from tools.servers import build
from tools.servers.certbot import Authority, start_pebble
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.kapacitor import Inbox, start_inbox
from tools.servers.lineages import DAY, KEY, key_as_pem, make_certificate
from tools.servers.processes import MissingServer, running, wait_for

STAND_INS = Path(__file__).with_name("stand_ins")
HOST = "web1"
TLS_ADDRESS = "127.0.0.2"  # of the names under which a page reaches a server by https
RUN_SECONDS = 240
CLONE_NEWNET = 0x40000000  # of linux/sched.h

# Makes the machine: what it changes is in memory, in the folder $1.
SET_UP = f"""
set -eu
hostname {HOST}
ip link set lo up
mount -t tmpfs machine "$1"
for folder in etc opt root srv usr/local var; do
    mkdir -p "$1/$folder/changes" "$1/$folder/work"
    mount -t overlay overlay \
        -o "lowerdir=/$folder,upperdir=$1/$folder/changes,workdir=$1/$folder/work" "/$folder"
done
mount -t tmpfs machine /run
rm -rf /etc/letsencrypt /etc/kapacitor /etc/cron.d/certbot /var/lib/letsencrypt
echo ready
exec sleep infinity
"""

# Pastes a file with commands into the shell of the machine. A command that fails is noted.
PASTE = """
trap 'echo "$BASH_COMMAND: status $?" >>{failures}' ERR
source {commands} >{output} 2>&1 </dev/null
trap - ERR
echo done >{done}
"""


@dataclass
class Machine:
    """A running machine.

    `folder` is outside of it and seen by both, `checkout` a copy of the project in which commands
    run. `inbox` gets its mails, on port 25. `pid` is its first process. `shell` is the reader's
    shell, None until it is started, and `pasted` the number of blocks that were pasted into it.
    `stack` has the servers of the machine.
    """

    folder: Path
    checkout: Path
    pid: int
    inbox: Inbox
    shell: subprocess.Popen[str] | None = None
    pasted: int = 0
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    # ---- What a reader does --------------------------------------------------------------------
    def run(self, commands: str, may_fail: bool = False) -> str:
        """Paste commands into the shell; return what they print.

        Raise an AssertionError if one of them fails, unless that is expected.
        """
        self.pasted += 1
        files = {}
        for name in ("commands", "output", "failures", "done"):
            files[name] = self.folder / f"{self.pasted}-{name}"
        files["commands"].write_text(commands)
        shell = self.start_shell()
        assert shell.stdin is not None
        shell.stdin.write(PASTE.format(**files))
        shell.stdin.flush()

        wait_for(files["done"].exists, f"the end of: {commands}", RUN_SECONDS)
        output = files["output"].read_text(errors="replace")
        if files["failures"].exists() and not may_fail:
            raise AssertionError(f"{files['failures'].read_text()}\nprinted:\n{output}")
        return output

    def start_shell(self) -> subprocess.Popen[str]:
        """Return the reader's shell: what one block sets, the next one has."""
        if self.shell is None:
            self.shell = subprocess.Popen(
                [*self.enter(), "env", "-i", *self.environ(), "bash", "--norc"],
                stdin=subprocess.PIPE,
                text=True,
            )
            assert self.shell.stdin is not None
            self.shell.stdin.write(f"cd {self.checkout}\n")
        return self.shell

    def environ(self) -> list[str]:
        """Return the environment of everything that runs on the machine."""
        python = Path(sys.executable).parent
        path = f"{self.folder}/bin:{STAND_INS}:{python}:/usr/sbin:/usr/bin:/sbin:/bin"
        bundle = self.folder / "ca.pem"
        return [
            f"PATH={path}",
            "HOME=/root",
            "LANG=C.UTF-8",
            f"REQUESTS_CA_BUNDLE={bundle}",
            f"SSL_CERT_FILE={bundle}",
            f"CURL_CA_BUNDLE={bundle}",
        ]

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine, as an editor does; its folder is made if it is missing."""
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1"'
        command = [*self.enter(), "sh", "-c", script, "sh", path]
        subprocess.run(command, input=text, text=True, check=True, timeout=30)

    def read(self, path: str) -> str:
        """Return the text of a file of the machine."""
        command = [*self.enter(), "cat", path]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    # ---- What the machine has ------------------------------------------------------------------
    def enter(self) -> list[str]:
        """Return the beginning of a command that runs on the machine."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--uts"]

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Move this thread, and all that it starts, into the network of the machine."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            open("/proc/thread-self/ns/net") as own,  # noqa: PTH123 - no path leads to it later
            open(f"/proc/{self.pid}/ns/net") as other,  # noqa: PTH123
        ):
            assert libc.setns(other.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(own.fileno(), CLONE_NEWNET) == 0

    def add_program(self, name: str, program: str | Path) -> None:
        """Put a program on PATH."""
        (self.folder / "bin" / name).symlink_to(program)

    def add_built_program(self, name: str, built_name: str = "") -> None:
        """Put a server that the tests have built on PATH; raise MissingServer without it."""
        binary = build.find(built_name or name)
        if binary is None:
            raise MissingServer(f"{name} is missing: make servers")
        self.add_program(name, binary)

    def add_unit(self, name: str, text: str) -> None:
        """Add a systemd unit, as a package has one.

        `X-Listens=PORT` in its section [Service] makes `systemctl start` wait for that port.
        """
        self.write(f"/etc/systemd/system/{name}", text)

    def add_certbot(self, *lineages: str, lifetime: int = 90 * DAY) -> Authority:
        """Add a certbot with certificates, from a CA of its own.

        Each certificate is for the lineage's name alone. The units are those of Debian, of EPEL,
        and of the snap.
        """
        with self.network():
            authority = self.stack.enter_context(start_pebble(self.folder / "pebble", lifetime))
        self.trust(authority.bundle.read_text())
        self.write("/etc/letsencrypt/cli.ini", cli_ini(authority.directory))
        for unit in ("certbot", "certbot-renew", "snap.certbot.renew"):
            self.add_unit(
                f"{unit}.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/env certbot renew\n"
            )
            self.add_unit(f"{unit}.timer", "[Timer]\nOnCalendar=*-*-* 00,12:00:00\n")
        self.run("systemctl start certbot.timer snap.certbot.renew.timer")  # EPEL's is off
        for lineage in lineages:
            self.run(f"certbot -q certonly --cert-name {lineage} -d {lineage}")
        return authority

    def add_influxdb(self, name: str, port: int = 8086) -> InfluxDB:
        """Start InfluxDB, by http on 127.0.0.1 and by https on TLS_ADDRESS."""
        with self.network():
            influxdb = self.stack.enter_context(
                start_influxdb(name, self.folder / f"{name}-{port}", port)
            )
            self.stack.enter_context(serve_tls(port, self.folder / "server.pem"))
        return influxdb

    def trust(self, certificates: str) -> None:
        """Add to the CAs that the machine trusts."""
        with (self.folder / "ca.pem").open("a") as bundle:
            bundle.write(certificates)


def cli_ini(directory: str) -> str:
    """Return certbot's configuration for a CA that asks for no proof."""
    return f"""server = {directory}
agree-tos = true
register-unsafely-without-email = true
non-interactive = true
no-random-sleep-on-renew = true
authenticator = manual
preferred-challenges = dns
manual-auth-hook = /bin/true
"""


@contextlib.contextmanager
def start_machine(folder: Path, names: Sequence[str] = ()) -> Iterator[Machine]:
    """Start a machine; `names` are host names that lead to it.

    Its programs are those of this machine, and the stand-ins.
    """
    require_namespaces()
    for name in ("state", "bin"):
        (folder / name).mkdir(parents=True)
    checkout = folder / "certbot-renewal-report"
    copy_checkout(checkout)
    make_tls_certificate(folder, names)

    with contextlib.ExitStack() as stack:
        pid = stack.enter_context(start_namespaces(folder))
        inbox = Inbox()
        inbox.port = 25
        machine = Machine(folder, checkout, pid, inbox)
        machine.write("/etc/hosts", hosts_file(names))
        stack.callback(end_shell, machine)
        stack.enter_context(machine.stack)
        with machine.network():
            stack.enter_context(start_inbox(inbox))
        yield machine


def require_namespaces() -> None:
    """Skip or fail the test if this user cannot make namespaces."""
    if os.environ.get("WITHOUT_SERVERS") == "1":
        skip_or_fail(MissingServer("a machine for a page: WITHOUT_SERVERS=1 is set"))
    if os.geteuid() != 0:
        skip_or_fail(MissingServer("a machine for a page needs root, for its namespaces"))


def copy_checkout(folder: Path) -> None:
    """Copy the files of the project, without what is not in Git."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    for name in listed.rstrip("\0").split("\0"):
        if name.startswith(("tests/", "tools/")) or not (ROOT / name).is_file():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


@contextlib.contextmanager
def start_namespaces(folder: Path) -> Iterator[int]:
    """Start the first process of a machine; yield its id. When it ends, everything on it ends."""
    log = folder / "machine.log"
    command = ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child"]
    command += ["--mount-proc", "sh", "-c", SET_UP, "sh", str(folder / "state")]
    with running(command, log) as child:
        wait_for(lambda: "ready" in log.read_text(), "the machine", child=child)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text()
        pid = int(children.split()[0])
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)  # the first process of a namespace ignores SIGTERM


def end_shell(machine: Machine) -> None:
    """End the shell of a machine."""
    if machine.shell is not None:
        machine.shell.kill()
        machine.shell.communicate()


def hosts_file(names: Sequence[str]) -> str:
    """Return /etc/hosts of a machine; servers that a page reaches by name speak TLS."""
    lines = [f"127.0.0.1 localhost {HOST}\n"]
    lines += [f"{TLS_ADDRESS} {name}\n" for name in names]
    return "".join(lines)


# ---- TLS ---------------------------------------------------------------------------------------
def make_tls_certificate(folder: Path, names: Sequence[str]) -> None:
    """Make a certificate for names, which the machine trusts."""
    now = int(time.time())
    pem = make_certificate(["localhost", *names], now - 60, DAY, common_name="machine")
    (folder / "server.pem").write_bytes(key_as_pem(KEY) + pem)
    (folder / "ca.pem").write_bytes(pem)


@contextlib.contextmanager
def serve_tls(port: int, pem: Path) -> Iterator[None]:
    """Accept TLS at a port of TLS_ADDRESS, and pass it on to the same port of 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    listener = socket.create_server((TLS_ADDRESS, port))

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=forward, args=(client, context, port), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def forward(client: socket.socket, context: ssl.SSLContext, port: int) -> None:
    """Pass on one connection, until either side closes it."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        near = stack.enter_context(context.wrap_socket(client, server_side=True))
        far = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        back = threading.Thread(target=pump, args=(far, near), daemon=True)
        back.start()
        pump(near, far)
        back.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy what one side sends to the other side."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
