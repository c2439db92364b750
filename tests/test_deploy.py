"""certbot_renewal_deliver.py on the real neighbours of a certificate: HAProxy, OpenSSH servers, nginx, commands. Vault: test_vault."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

import certbot_renewal_deliver
from support.alerts import make_load_folder
from support.hooks import start_report_hook, start_run_report
from support.servers import Alerting, skip_or_fail
from tools.servers.certbot import Authority, Certbot, start_pebble
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, KEY, key_as_pem, make_lineage, make_server_certificate
from tools.servers.processes import MissingServer, free_port, wait_for
from tools.servers.targets import (
    HAProxy,
    Sshd,
    haproxy_says,
    install_deliver_hook,
    run_deliver_hook,
    served_certificate,
    start_haproxy,
    start_nginx,
    start_sshd,
)

RENEWALS = int(os.environ.get("RENEWALS", "1"))  # under load; 20 in make faults
NOW = int(time.time())


def started(
    neighbour: contextlib.AbstractContextManager[object], stack: contextlib.ExitStack
) -> object:
    """Starts it, or skips the test where it is not installed."""
    try:
        return stack.enter_context(neighbour)
    except MissingServer as error:
        skip_or_fail(error)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[HAProxy]:
    """A HAProxy with a placeholder as its only certificate."""
    with contextlib.ExitStack() as stack:
        found = started(start_haproxy(tmp_path / "haproxy"), stack)
        assert isinstance(found, HAProxy)
        yield found


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An OpenSSH server."""
    with contextlib.ExitStack() as stack:
        found = started(start_sshd(tmp_path_factory.mktemp("sshd")), stack)
        assert isinstance(found, Sshd)
        yield found


def renew(
    folder: Path,
    lineage: str = "example.com",
    names: tuple[str, ...] = ("example.com",),
    days_ago: int = 0,
) -> bytes:
    """A new certificate in a lineage, as certbot would write it; its DER."""
    live = make_lineage(folder, lineage, list(names), NOW - 60 - days_ago * DAY, 90 * DAY, key=KEY)
    return ssl.PEM_cert_to_DER_cert((live / "cert.pem").read_text())


def lines_of(path: Path) -> list[str]:
    """The lines of a file; none where there is none."""
    return path.read_text().splitlines() if path.exists() else []


def command_target(folder: Path, name: str = "log") -> str:
    """A target that cannot fail, and writes down what it got."""
    return f"""[[command]]
name = "{name}"
command = ["/bin/sh", "-c", "echo $RENEWED_LINEAGE $RENEWED_DOMAINS >> {folder}/{name}"]
"""


def ssh_target(sshd: Sshd, folder: Path, more: str = "", hosts: str = "") -> str:
    """Certificates to a folder on another server, which writes down each reload."""
    folder.mkdir(exist_ok=True)
    return f"""[[ssh]]
hosts = [{hosts or f'"{sshd.host}"'}]
fullchain = "{folder}/{{lineage}}.crt"
key = "{folder}/{{lineage}}.key"
config = "{sshd.config}"
reload = "echo reloaded >> {folder}/reloads"
{more}
"""


def assert_well(done: subprocess.CompletedProcess[str], says: str = "") -> None:
    """The hook ended well."""
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert says in done.stdout


def pair_fits(fullchain: Path, key: Path) -> bool:
    """Whether certificate and key belong together."""
    certificate = x509.load_pem_x509_certificate(fullchain.read_bytes())
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == private.public_key().public_bytes(*form)


# ---- HAProxy ---------------------------------------------------------------------------------------------------------
class Load:
    """New TLS connections to a HAProxy, each with one request, from some threads; what failed, and which certificate was served when."""

    def __init__(self, haproxy: HAProxy, name: str) -> None:
        self.haproxy, self.name, self.ending = haproxy, name, False
        self.failed, self.seen = (
            list[str](),
            list[tuple[float, float, bytes]](),
        )  # begin, end, certificate
        self.threads = [threading.Thread(target=self.work) for _ in range(3)]

    def work(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while not self.ending:
            time.sleep(
                0 if RENEWALS > 10 else 0.02
            )  # in the short form other tests want the processor, too
            begin = time.time()
            try:
                with (
                    socket.create_connection(("127.0.0.1", self.haproxy.https), 10) as plain,
                    context.wrap_socket(plain, server_hostname=self.name) as peer,
                ):
                    peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    answer = peer.recv(4096)
                    found = peer.getpeercert(True) or b""
                if b"200" not in answer:
                    self.failed.append(repr(answer))
                self.seen.append((begin, time.time(), found))
            except OSError as error:
                self.failed.append(str(error))

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending = True
        for thread in self.threads:
            thread.join()


def test_no_connection_fails_while_certbot_renews_through_haproxy(tmp_path: Path) -> None:
    acme = free_port()
    with contextlib.ExitStack() as stack:
        haproxy = started(start_haproxy(tmp_path / "haproxy", acme), stack)
        assert isinstance(haproxy, HAProxy)
        authority = started(start_pebble(tmp_path / "pebble", http=haproxy.http), stack)
        assert isinstance(authority, Authority)
        certbot = Certbot(tmp_path / "letsencrypt", authority)
        certbot.hook.unlink()
        install_deliver_hook(certbot.folder, haproxy.target())
        for name in ("aa-before", "zz-after"):
            mark = certbot.hook.parent / name
            mark.write_text(f"#!/bin/sh\ndate +%s.%N >> {tmp_path}/{name}\n")
            mark.chmod(0o755)
        proof = [
            "--standalone",
            "--http-01-port",
            str(acme),
            "--agree-tos",
            "--register-unsafely-without-email",
        ]
        issued = certbot.run("certonly", *proof, "--cert-name", "example.com", "-d", "example.com")
        assert issued.returncode == 0, issued.stdout
        served = []

        def leaf() -> bytes:
            return ssl.PEM_cert_to_DER_cert(
                (certbot.folder / "live" / "example.com" / "cert.pem").read_text()
            )

        assert haproxy.serves("example.com") == leaf()
        with Load(haproxy, "example.com") as load:
            for number in range(RENEWALS):
                served.append(leaf())
                kind = (
                    ("--key-type", "rsa", "--rsa-key-size", "2048")
                    if number % 2 == 0
                    else ("--key-type", "ecdsa")
                )
                renewed = certbot.renew("--force-renewal", *kind)
                assert renewed.returncode == 0, renewed.stdout
                assert "example.com to haproxy: serves it" in renewed.stdout
                count = len(load.seen)
                wait_for(lambda: len(load.seen) > count + 20, "more connections")  # noqa: B023
        served.append(leaf())
        assert load.failed == []
        assert len(set(served)) == RENEWALS + 1
        before, after = (
            [float(line) for line in lines_of(tmp_path / name)][-RENEWALS:]
            for name in ("aa-before", "zz-after")
        )
        for begin, end, found in load.seen:
            number = sum(
                1 for moment in after if moment <= begin
            )  # so many renewals were delivered before it began
            newest = sum(1 for moment in before if moment <= end)
            assert found in served[number : newest + 1]
        print(f"{len(load.seen)} connections during {RENEWALS} renewals, none failed")
        assert pair_fits(haproxy.certs / "example.com.pem", haproxy.certs / "example.com.pem")
    with start_haproxy(tmp_path / "haproxy") as again:
        assert again.serves("example.com") == served[-1]


def test_a_certificate_that_haproxy_does_not_know_is_added(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    over_tcp = haproxy.target().replace(str(haproxy.socket), f"127.0.0.1:{haproxy.tcp}")
    hook, first = install_deliver_hook(certbot_folder, over_tcp), renew(certbot_folder, days_ago=60)
    assert_well(run_deliver_hook(hook, "--dry-run"), "would get it, as a new one")
    assert haproxy.serves("example.com") != first
    assert_well(run_deliver_hook(hook, "--all"), "serves it")
    assert haproxy.serves("example.com") == first
    second, pem = renew(certbot_folder), haproxy.certs / "example.com.pem"
    assert pem.stat().st_mode & 0o777 == 0o600
    pem.chmod(0o640)
    assert_well(run_deliver_hook(hook, "--check"), "would get it")
    assert haproxy.serves("example.com") == first
    assert_well(
        run_deliver_hook(hook, RENEWED_LINEAGE=str(certbot_folder / "live" / "example.com"))
    )
    assert haproxy.serves("example.com") == second
    assert_well(run_deliver_hook(hook, "--all"), "nothing to do: 1 had it")
    assert haproxy.serves("other.example.com") not in (first, second)
    assert pem.stat().st_mode & 0o777 == 0o640


def test_a_crt_list_gets_the_new_certificate_for_the_next_start_too(
    tmp_path: Path, certbot_folder: Path
) -> None:
    folder = tmp_path / "haproxy"
    (folder / "certs").mkdir(parents=True)
    placeholder, crt_list = (
        make_server_certificate(folder / "certs" / "placeholder.pem", "placeholder.example.com"),
        folder / "crt-list",
    )
    crt_list.write_text(f"{placeholder}\n")
    new = renew(certbot_folder)
    with contextlib.ExitStack() as stack:
        haproxy = started(start_haproxy(folder, bind=f"crt-list {crt_list}"), stack)
        assert isinstance(haproxy, HAProxy)
        hook = install_deliver_hook(certbot_folder, haproxy.target(crt_list=str(crt_list)))
        assert_well(run_deliver_hook(hook, "--all"))
        assert haproxy.serves("example.com") == new
        assert_well(run_deliver_hook(hook, "--all"), "nothing to do")
    assert lines_of(crt_list) == [str(placeholder), str(folder / "certs" / "example.com.pem")]
    with start_haproxy(folder, bind=f"crt-list {crt_list}") as haproxy:
        assert haproxy.serves("example.com") == new
        assert_well(run_deliver_hook(hook, "--all"), "nothing to do")


def test_a_new_certificate_without_a_crt_list_is_told(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    renew(certbot_folder)
    toml = re.sub("crt_list = .*", "", haproxy.target())
    done = run_deliver_hook(install_deliver_hook(certbot_folder, toml), "--all")
    assert done.returncode == 1
    assert (
        f"HAProxy has no certificate {haproxy.certs}/example.com.pem: correct certificate, or set crt_list"
        in done.stderr
    )
    assert haproxy_says(haproxy, f"new ssl cert {haproxy.certs}/example.com.pem").startswith(
        "New empty"
    )
    done = run_deliver_hook(
        install_deliver_hook(certbot_folder, toml), "--all"
    )  # as a hook that was killed leaves it
    assert (
        f"no bind of HAProxy uses {haproxy.certs}/example.com.pem: set crt_list to where it is added"
        in done.stderr
    )
    assert_well(
        run_deliver_hook(install_deliver_hook(certbot_folder, haproxy.target()), "--all"),
        f"added to {haproxy.certs}/",
    )
    toml = haproxy.target(crt_list=str(haproxy.certs.parent / "no-crt-list"))
    renew(certbot_folder, "other")
    done = run_deliver_hook(install_deliver_hook(certbot_folder, toml), "--all")
    assert "other not delivered to haproxy: HAProxy refused: " in done.stderr


def test_a_target_that_is_wanted_again_is_new(tmp_path: Path, certbot_folder: Path) -> None:
    renew(certbot_folder)
    hook = install_deliver_hook(certbot_folder, command_target(tmp_path))
    assert_well(run_deliver_hook(hook, "--all"))
    install_deliver_hook(certbot_folder, command_target(tmp_path, "other"))
    assert_well(run_deliver_hook(hook, "--all"))
    rows = certbot_renewal_deliver.State(str(certbot_folder)).rows
    assert rows["example.com", "log"].fingerprint == "ended"
    install_deliver_hook(certbot_folder, "[[command]]\nname = 'log'\ncommand = ['false']\n")
    assert run_deliver_hook(hook, "--all").returncode == 1
    row = certbot_renewal_deliver.State(str(certbot_folder)).rows["example.com", "log"]
    assert (row.fingerprint, row.not_before, row.error) == (
        "none",
        0,
        "false ended with status 1: no word",
    )


def test_what_haproxy_refuses_changes_nothing(
    tmp_path: Path, haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook, old = (
        install_deliver_hook(certbot_folder, haproxy.target() + command_target(tmp_path)),
        renew(certbot_folder, days_ago=60),
    )
    assert_well(run_deliver_hook(hook, "--all"))
    before = (haproxy.certs / "example.com.pem").read_bytes()
    renew(
        certbot_folder,
        names=tuple(f"{'a-long-name-' * 4}{number}.example.com" for number in range(400)),
    )
    refused = run_deliver_hook(hook, "--all")
    assert refused.returncode == 1
    assert "example.com not delivered to haproxy: " in refused.stderr
    assert re.search(
        r"HAProxy hung up on \d+ bytes: raise tune.bufsize in haproxy.cfg", refused.stderr
    )
    assert haproxy.serves("example.com") == old
    assert (haproxy.certs / "example.com.pem").read_bytes() == before
    assert len(lines_of(tmp_path / "log")) == 2  # the other target got it
    new = renew(certbot_folder)  # no transaction was left open
    assert_well(run_deliver_hook(hook, "--all"))
    assert haproxy.serves("example.com") == new
    pem, placeholder = (
        (haproxy.certs / "example.com.pem").read_text(),
        haproxy.certs / "placeholder.pem",
    )
    begun = haproxy_says(
        haproxy, f"set ssl cert {placeholder} <<\n{pem}"
    )  # and never ended, as somebody who was killed
    assert "Transaction created" in begun
    other, new = haproxy.serves("placeholder.example.com"), renew(certbot_folder)
    assert_well(run_deliver_hook(hook, "--all"), "example.com to haproxy: serves it")
    assert (haproxy.serves("example.com"), haproxy.serves("placeholder.example.com")) == (
        new,
        other,
    )


def test_what_haproxy_refuses_at_last_is_taken_back(tmp_path: Path, certbot_folder: Path) -> None:
    """The real one refuses a good certificate at no time; here one does, to see what it is told then."""
    said, answers = list[str](), {"show": "Not found", "new": "New empty certificate store"}
    answers["set"] = f"Transaction created for certificate {tmp_path}/example.com.pem!"

    class Refusing(socketserver.StreamRequestHandler):
        """Refuses to commit."""

        def handle(self) -> None:
            """One command."""
            command = self.rfile.readline().decode()
            said.append(command.strip().removesuffix(" <<"))
            while command.endswith("<<\n") and self.rfile.readline().strip():
                pass
            self.wfile.write(
                (answers.get(command.split()[0], "Committing.\nunable to load.") + "\n").encode()
            )

    renew(certbot_folder)
    path = tmp_path / "admin.sock"
    toml = f'[[haproxy]]\nsocket = "{path}"\ncertificate = "{tmp_path}/{{lineage}}.pem"\ncrt_list = "{tmp_path}/"\n'
    with socketserver.ThreadingUnixStreamServer(str(path), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=[0.05]).start()
        done = run_deliver_hook(install_deliver_hook(certbot_folder, toml), "--all")
        server.shutdown()
    assert (
        "example.com not delivered to haproxy: HAProxy refused: unable to load.: look at its log"
        in done.stderr
    )
    assert [command.split()[0] for command in said] == [
        "show",
        "show",
        "new",
        "set",
        "commit",
        "abort",
        "del",
    ]
    assert not (tmp_path / "example.com.pem").exists()


def test_a_stats_socket_without_level_admin_is_named(tmp_path: Path, certbot_folder: Path) -> None:
    renew(certbot_folder)
    with contextlib.ExitStack() as stack:
        haproxy = started(start_haproxy(tmp_path / "haproxy", level="operator"), stack)
        assert isinstance(haproxy, HAProxy)
        hook = install_deliver_hook(certbot_folder, haproxy.target())
        done = [run_deliver_hook(hook, argument) for argument in ("--check", "--all")]
    for status, stderr in ((it.returncode, it.stderr) for it in done):
        assert status == 1
        assert (
            f"{haproxy.socket}: HAProxy answered: permission denied: write level admin behind stats socket in haproxy.cfg"
            in stderr
        )


def test_a_certificate_of_another_key_goes_nowhere(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_target(tmp_path))
    renew(certbot_folder, "good")
    renew(certbot_folder, "bad")
    key = rsa.generate_private_key(65537, 2048)
    (certbot_folder / "live" / "bad" / "privkey.pem").write_bytes(key_as_pem(key))
    done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    assert "bad: " in done.stderr and "certificate and key do not belong together" in done.stderr
    assert [Path(line.split()[0]).name for line in lines_of(tmp_path / "log")] == ["good"]


def test_a_haproxy_that_is_down_gets_the_file_and_serves_it_when_it_starts(
    tmp_path: Path, certbot_folder: Path
) -> None:
    folder = tmp_path / "haproxy"
    with contextlib.ExitStack() as stack:
        haproxy = started(start_haproxy(folder), stack)
        assert isinstance(haproxy, HAProxy)
        hook = install_deliver_hook(certbot_folder, haproxy.target())
        renew(certbot_folder, days_ago=60)
        assert_well(run_deliver_hook(hook, "--all"))
    new = renew(certbot_folder)
    done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    assert (
        f"example.com not delivered to haproxy: {haproxy.socket}: Connection refused: does HAProxy run, and is socket"
        in done.stderr
    )
    renew(certbot_folder, "another", days_ago=1)
    checked = run_deliver_hook(hook, "--check")
    assert "not ready: another, example.com not delivered to haproxy: " in checked.stderr
    shutil.rmtree(certbot_folder / "live" / "another")
    with start_haproxy(folder) as haproxy:
        assert haproxy.serves("example.com") == new
        assert_well(run_deliver_hook(hook, "--all"), "nothing to do")


def test_a_target_that_hangs_keeps_nobody_waiting(
    tmp_path: Path, haproxy: HAProxy, certbot_folder: Path
) -> None:
    toml = (
        haproxy.target("timeout = 1")
        + command_target(tmp_path)
        + '[[command]]\nname = "slow"\ncommand = ["sleep", "60"]\ntimeout = 1\n'
    )
    hook, new = install_deliver_hook(certbot_folder, toml), renew(certbot_folder)
    os.kill(haproxy.pid, signal.SIGSTOP)
    try:
        done = run_deliver_hook(hook, "--all")
    finally:
        os.kill(haproxy.pid, signal.SIGCONT)
    assert done.returncode == 1
    assert f"not delivered to haproxy: {haproxy.socket}: no answer in time" in done.stderr
    assert (
        "not delivered to slow: sleep did not end in time: timeout is too short, or it hangs"
        in done.stderr
    )
    assert "example.com to log: ran" in done.stdout
    done = run_deliver_hook(hook, "--all")
    assert "haproxy" not in done.stderr
    assert haproxy.serves("example.com") == new


def test_a_full_disk_leaves_the_old_file_and_haproxy_serves_the_new_certificate(
    tmp_path: Path, certbot_folder: Path
) -> None:
    certs = tmp_path / "haproxy" / "certs"
    certs.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", certs], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"not allowed here: {mounted.stderr}")
    try:
        make_server_certificate(certs / "placeholder.pem", "placeholder.example.com")
        with contextlib.ExitStack() as stack:
            haproxy = started(start_haproxy(tmp_path / "haproxy"), stack)
            assert isinstance(haproxy, HAProxy)
            hook = install_deliver_hook(certbot_folder, haproxy.target())
            renew(certbot_folder, days_ago=60)
            assert_well(run_deliver_hook(hook, "--all"))
            old, new, filler = (
                (certs / "example.com.pem").read_bytes(),
                renew(certbot_folder),
                certs / "filler.key",
            )
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            done = run_deliver_hook(hook, "--all")
            assert done.returncode == 1
            assert (
                "HAProxy serves it, but " in done.stderr
                and "No space left on device: the next start would serve the old one" in done.stderr
            )
            assert haproxy.serves("example.com") == new
            assert (certs / "example.com.pem").read_bytes() == old
            filler.unlink()
            assert {path.name for path in certs.iterdir()} == {"example.com.pem", "placeholder.pem"}
            assert_well(run_deliver_hook(hook, "--all"), "example.com.pem written")
            assert (
                ssl.PEM_cert_to_DER_cert(
                    (certs / "example.com.pem").read_text().partition("-----BEGIN PRIVATE")[0]
                )
                == new
            )
    finally:
        subprocess.run(["umount", certs], check=True)


def test_a_folder_that_certbots_user_may_not_write_to_is_named(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook, new = install_deliver_hook(certbot_folder, haproxy.target()), renew(certbot_folder)
    apart = (
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    )  # root may write everywhere
    haproxy.certs.chmod(0o555)
    done = subprocess.run(
        [*apart, sys.executable, str(hook), "--all"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    said = f"HAProxy serves it, but {haproxy.certs}/.example.com.pem.new.key: Permission denied: the next start would serve the old one"
    assert said in done.stderr
    assert haproxy.serves("example.com") == new
    haproxy.certs.chmod(0o755)
    assert_well(run_deliver_hook(hook, "--all"), "example.com.pem written")


# ---- OpenSSH ---------------------------------------------------------------------------------------------------------
def test_other_servers_get_certificate_and_key_and_reload_once(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    there = tmp_path / "there"
    hook = install_deliver_hook(certbot_folder, ssh_target(sshd, there))
    live = renew_live(certbot_folder, days_ago=60)
    assert_well(run_deliver_hook(hook, "--dry-run"), "would get it")
    assert list(there.iterdir()) == []
    assert_well(run_deliver_hook(hook, "--all"))
    assert (there / "example.com.crt").read_bytes() == (live / "fullchain.pem").read_bytes()
    assert (there / "example.com.key").read_bytes() == (live / "privkey.pem").read_bytes()
    modes = [(there / f"example.com.{kind}").stat().st_mode & 0o777 for kind in ("crt", "key")]
    assert modes == [0o644, 0o600]
    (there / "example.com.key").chmod(0o640)
    (there / "example.com.crt").chmod(0o444)
    if os.geteuid() == 0:
        os.chown(there / "example.com.key", 0, 8)
    renew(certbot_folder)
    assert_well(run_deliver_hook(hook, "--all"))
    assert (there / "example.com.crt").read_bytes() == (live / "fullchain.pem").read_bytes()
    assert [(there / f"example.com.{kind}").stat().st_mode & 0o777 for kind in ("crt", "key")] == [
        0o444,
        0o640,
    ]
    assert os.geteuid() != 0 or (there / "example.com.key").stat().st_gid == 8
    (certbot_folder / "certbot_renewal_deliver.state").unlink()
    assert_well(run_deliver_hook(hook, "--all"), "nothing to do: 1 had it")
    assert lines_of(there / "reloads") == ["reloaded", "reloaded"]
    assert {path.name for path in there.iterdir()} == {
        "example.com.crt",
        "example.com.key",
        "reloads",
    }


def renew_live(folder: Path, days_ago: int = 0) -> Path:
    """A new certificate of example.com; its folder in live/."""
    renew(folder, days_ago=days_ago)
    return folder / "live" / "example.com"


def test_a_reload_that_fails_is_tried_again_without_another_copy(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    there = tmp_path / "there"
    toml = ssh_target(sshd, there).replace(
        "echo reloaded",
        f"test -e {tmp_path}/well || {{ echo nginx is sad >&2; exit 3; }}; echo reloaded",
    )
    hook, _ = install_deliver_hook(certbot_folder, toml), renew(certbot_folder)
    done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    said = r"example.com not delivered to ssh/127.0.0.1:\d+: ssh ended with status 3: nginx is sad \(reload; the files are in place\)"
    assert re.search(said, done.stderr)
    checked = run_deliver_hook(hook, "--check")
    assert re.search(
        r"not ready: .*: the last try: ssh ended with status 3: nginx is sad .* --all tries again",
        checked.stderr,
    )
    copied = (there / "example.com.crt").stat().st_ino
    (tmp_path / "well").touch()
    assert_well(run_deliver_hook(hook, "--all"), "reload ran")
    assert ((there / "example.com.crt").stat().st_ino, lines_of(there / "reloads")) == (
        copied,
        ["reloaded"],
    )


def test_a_run_that_is_stopped_before_the_reload_is_made_up_for(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    there, pid = tmp_path / "there", tmp_path / "pid"
    stop = f"test -e {tmp_path}/well || {{ until test -s {pid}; do sleep 0.05; done; kill -9 $(cat {pid}); exit 1; }}; echo reloaded"
    hook, _ = (
        install_deliver_hook(
            certbot_folder, ssh_target(sshd, there).replace("echo reloaded", stop)
        ),
        renew(certbot_folder),
    )
    child = subprocess.Popen(
        [sys.executable, str(hook), "--all"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    pid.write_text(f"{child.pid}\n")
    assert child.wait(60) == -signal.SIGKILL
    assert pair_fits(there / "example.com.crt", there / "example.com.key")
    (tmp_path / "well").touch()
    assert_well(run_deliver_hook(hook, "--all"), "reload ran")
    assert lines_of(there / "reloads") == ["reloaded"]
    assert_well(run_deliver_hook(hook, "--all"), "nothing to do")


def test_hosts_are_each_on_their_own(sshd: Sshd, tmp_path: Path, certbot_folder: Path) -> None:
    there, closed = tmp_path / "there", free_port()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = silent.getsockname()[1]
        hosts = f'"{sshd.host}", "127.0.0.1:{closed}", "127.0.0.1:{hanging}", "nobody@{sshd.host}"'
        hook, _ = (
            install_deliver_hook(certbot_folder, ssh_target(sshd, there, "timeout = 10", hosts)),
            renew_live(certbot_folder),
        )
        done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    assert f"to ssh/{sshd.host}: copied, reload ran" in done.stdout
    assert (
        f"not delivered to ssh/127.0.0.1:{closed}: ssh ended with status 255: " in done.stderr
        and "Connection refused" in done.stderr
    )
    assert re.search(
        rf"not delivered to ssh/127.0.0.1:{hanging}: ssh (did not end in time|ended with status 255: .*timed out)",
        done.stderr,
    )
    assert re.search(
        r"not delivered to ssh/nobody@\S+: ssh ended .* put the key of certbot's user into authorized_keys",
        done.stderr,
    )
    assert (there / "example.com.crt").exists()


def test_a_host_key_that_is_not_known_is_refused(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    there, config = tmp_path / "there", tmp_path / "ssh_config"
    config.write_text(sshd.config.read_text().replace("known_hosts", "no_known_hosts"))
    toml = ssh_target(sshd, there).replace(str(sshd.config), str(config))
    hook, _ = install_deliver_hook(certbot_folder, toml), renew(certbot_folder)
    done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    assert (
        "Host key verification failed." in done.stderr
        and "put the host's key into known_hosts of certbot's user" in done.stderr
    )
    assert list(there.iterdir()) == []


def test_a_host_key_that_changed_is_no_new_one(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    there, config, known = tmp_path / "there", tmp_path / "ssh_config", tmp_path / "known_hosts"
    config.write_text(
        sshd.config.read_text().replace(str(sshd.config.parent / "known_hosts"), str(known))
    )
    known.write_text(f"[127.0.0.1]:{sshd.port} {(sshd.config.parent / 'user.pub').read_text()}")
    hook, _ = (
        install_deliver_hook(
            certbot_folder, ssh_target(sshd, there).replace(str(sshd.config), str(config))
        ),
        renew(certbot_folder),
    )
    done = run_deliver_hook(hook, "--all")
    assert (
        "find out why before you replace it in known_hosts" in done.stderr
        and list(there.iterdir()) == []
    )


def test_files_are_put_where_links_lead_to(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    there, real = tmp_path / "there", tmp_path / "real"
    real.mkdir()
    hook, _ = install_deliver_hook(certbot_folder, ssh_target(sshd, there)), renew(certbot_folder)
    for kind in ("crt", "key"):
        (real / kind).write_text("old")
        (real / kind).chmod(0o640)
        (there / f"example.com.{kind}").symlink_to(Path("..") / "real" / kind)
    assert_well(run_deliver_hook(hook, "--all"))
    assert pair_fits(real / "crt", real / "key")
    assert {path.name: path.stat().st_mode & 0o777 for path in real.iterdir()} == {
        "crt": 0o640,
        "key": 0o640,
    }
    assert all((there / f"example.com.{kind}").is_symlink() for kind in ("crt", "key"))
    assert_well(run_deliver_hook(hook, "--all"), "nothing to do")


def test_a_folder_that_is_not_there_is_told_before_anything_is_copied(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    toml = ssh_target(sshd, tmp_path / "there").replace(
        f'key = "{tmp_path}/there/', f'key = "{tmp_path}/nowhere/'
    )
    hook, _ = install_deliver_hook(certbot_folder, toml), renew(certbot_folder)
    for argument in ("--check", "--all"):
        done = run_deliver_hook(hook, argument)
        assert done.returncode == 1
        assert (
            f"ssh ended with status 1: {tmp_path}/nowhere is not there, or may not be written to"
            in done.stderr
        )
    assert list((tmp_path / "there").iterdir()) == []


def test_ipv6_and_users_are_given_to_ssh_as_it_wants_them(
    tmp_path: Path, certbot_folder: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\nexit 255\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    toml = "[[ssh]]\nhosts = ['deploy@[::1]:2222', 'web1']\nfullchain = '/x/{lineage}.crt'\nkey = '/x/{lineage}.key'\n"
    hook, _ = install_deliver_hook(certbot_folder, toml), renew(certbot_folder)
    assert (
        run_deliver_hook(hook, "--all", PATH=f"{tmp_path}/bin:{os.environ['PATH']}").returncode == 1
    )
    assert sorted(
        line.partition("ForwardAgent=no -o ConnectTimeout=30 ")[2]
        for line in lines_of(tmp_path / "said")
    ) == [
        "-o Port=2222 deploy@::1 exec sh -s",
        "web1 exec sh -s",
    ]


def test_a_full_disk_on_another_server_leaves_nothing_half(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    there = tmp_path / "there"
    hook, _ = (
        install_deliver_hook(certbot_folder, ssh_target(sshd, there)),
        renew(certbot_folder, days_ago=60),
    )
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", there], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"not allowed here: {mounted.stderr}")
    try:
        assert_well(run_deliver_hook(hook, "--all"))
        old = (there / "example.com.crt").read_bytes()
        with (there / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        renew(certbot_folder)
        done = run_deliver_hook(hook, "--all")
        assert done.returncode == 1
        assert "sftp ended with status 1: " in done.stderr
        assert (there / "example.com.crt").read_bytes() == old and pair_fits(
            there / "example.com.crt", there / "example.com.key"
        )
        assert {path.name for path in there.iterdir()} == {
            "example.com.crt",
            "example.com.key",
            "filler",
            "reloads",
        }
        (there / "filler").unlink()
        assert_well(run_deliver_hook(hook, "--all"))
        assert (
            pair_fits(there / "example.com.crt", there / "example.com.key")
            and (there / "example.com.crt").read_bytes() != old
        )
    finally:
        subprocess.run(["umount", there], check=True)


def test_nginx_serves_what_was_copied_after_its_reload(
    sshd: Sshd, tmp_path: Path, certbot_folder: Path
) -> None:
    there, port = tmp_path / "there", free_port()
    first = renew(certbot_folder, days_ago=60)
    toml = ssh_target(sshd, there).replace(
        f"echo reloaded >> {there}/reloads",
        f"[ ! -e {tmp_path}/nginx/nginx.pid ] || kill -HUP $(cat {tmp_path}/nginx/nginx.pid)",
    )
    hook = install_deliver_hook(certbot_folder, toml)
    assert_well(run_deliver_hook(hook, "--all"))
    block = f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {there}/example.com.crt; ssl_certificate_key {there}/example.com.key; }}"
    with contextlib.ExitStack() as stack:
        started(start_nginx(tmp_path / "nginx", block), stack)
        assert served_certificate(port, "example.com") == first
        second = renew(certbot_folder)
        assert_well(run_deliver_hook(hook, "--all"))
        wait_for(
            lambda: served_certificate(port, "example.com") == second,
            "nginx to serve the new certificate",
        )


# ---- Commands, and everything ----------------------------------------------------------------------------------------
def test_a_command_runs_once_for_each_certificate(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(
        certbot_folder, command_target(tmp_path) + 'lineages = ["example.*"]\n'
    )
    live = renew_live(certbot_folder)
    renew(certbot_folder, "not-for-it")
    expected = f"{live} example.com"
    for count in (1, 1):
        assert_well(run_deliver_hook(hook, "--all"))
        assert lines_of(tmp_path / "log") == [expected] * count
    renew(certbot_folder, names=("example.com", "*.example.com"))
    assert_well(run_deliver_hook(hook, RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="ignored"))
    assert lines_of(tmp_path / "log") == [expected, f"{live} example.com *.example.com"]


def test_a_command_that_fails_is_told_with_its_last_words_and_runs_again(
    tmp_path: Path, certbot_folder: Path
) -> None:
    script = f"echo first; echo the disk is \\\\360 sad >&2; test -e {tmp_path}/well"
    toml = f"[[command]]\ncommand = ['/bin/sh', '-c', '{script}']\n[[command]]\nname = 'lost'\ncommand = ['no-such-program']\n"
    toml += "[[command]]\nname = 'behind'\ncommand = ['/bin/sh', '-c', 'sleep 60 & echo started']\n"
    hook, _ = install_deliver_hook(certbot_folder, toml), renew(certbot_folder)
    done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    assert (
        "example.com not delivered to command: /bin/sh ended with status 1: the disk is"
        in done.stderr
    )
    assert (
        "not delivered to lost: no-such-program: No such file or directory: is it installed, and executable?"
        in done.stderr
    )
    assert (
        "not delivered to lost: no-such-program: not found: is it installed, and executable?"
        in run_deliver_hook(hook, "--dry-run").stderr
    )
    assert "example.com to behind: ran" in done.stdout  # what it left behind does not hold certbot
    assert done.stderr.count("\n") == 1
    (tmp_path / "well").touch()
    done = run_deliver_hook(hook, "--all")
    assert "example.com to command: ran" in done.stdout and "behind" not in done.stdout


def test_whoever_starts_certbot_the_targets_get_the_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    certbot, log = Certbot(tmp_path / "letsencrypt", authority), tmp_path / "log"
    certbot.hook.unlink()
    hook, pem = (
        install_deliver_hook(certbot.folder, command_target(tmp_path)),
        certbot.folder / "live" / "example.com" / "cert.pem",
    )
    assert certbot.issue("example.com", "example.com").returncode == 0
    assert len(lines_of(log)) == 1
    proof = "--manual --manual-auth-hook /bin/true --preferred-challenges dns"
    ways = {
        "a timer": "env -i PATH=$PATH HOME=$HOME REQUESTS_CA_BUNDLE=$REQUESTS_CA_BUNDLE certbot -q renew --force-renewal",
        "a script": f"certbot certonly --force-renewal {proof} -d example.com --deploy-hook 'touch {tmp_path}/its-own'",
        "past the hooks": f"certbot renew --force-renewal --no-directory-hooks && {hook} --all",
    }
    for way, line in ways.items():
        count, before = len(lines_of(log)), pem.read_bytes()
        done = certbot.shell(line)
        assert done.returncode == 0, done.stdout
        assert pem.read_bytes() != before
        assert len(lines_of(log)) == count + 1, way
    assert (tmp_path / "its-own").exists()


def test_no_argument_log_or_file_shows_a_key(
    sshd: Sshd, haproxy: HAProxy, tmp_path: Path, certbot_folder: Path
) -> None:
    there, wrapped, scratch = tmp_path / "there", tmp_path / "bin", tmp_path / "scratch"
    wrapped.mkdir()
    scratch.mkdir()
    for name in ("ssh", "sftp"):
        (wrapped / name).write_text(
            f'#!/bin/sh\necho "$0 $@" >> {tmp_path}/arguments\nls -laR {scratch} >> {tmp_path}/arguments\nexec {shutil.which(name)} "$@"\n'
        )
        (wrapped / name).chmod(0o755)
    own_key = rsa.generate_private_key(65537, 2048)
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], NOW - 60, 90 * DAY, key=own_key
    )
    hook = install_deliver_hook(
        certbot_folder, haproxy.target() + ssh_target(sshd, there) + command_target(tmp_path)
    )
    done = run_deliver_hook(
        hook, "--all", PATH=f"{wrapped}:{os.environ['PATH']}", TMPDIR=str(scratch)
    )
    assert_well(done)
    assert len([line for line in lines_of(tmp_path / "arguments") if "BatchMode=yes" in line]) == 3
    key = (live / "privkey.pem").read_text()
    secret = key.splitlines()[1]
    open_to_all = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o077 and secret in path.read_text("latin1")
    ]
    assert open_to_all == []
    for text in (
        done.stdout,
        done.stderr,
        (tmp_path / "arguments").read_text(),
        (certbot_folder / "certbot_renewal_deliver.state").read_text(),
    ):
        assert secret not in text
    assert list(scratch.iterdir()) == []


def test_a_hook_that_is_killed_leaves_nothing_half_and_the_next_run_heals(
    sshd: Sshd, haproxy: HAProxy, tmp_path: Path, certbot_folder: Path
) -> None:
    there, lot = tmp_path / "there", random.Random(1)
    hook = install_deliver_hook(certbot_folder, haproxy.target() + ssh_target(sshd, there))
    known = [renew(certbot_folder, days_ago=80)]
    assert_well(run_deliver_hook(hook, "--all"))
    for number in range(max(4, RENEWALS * 2)):
        known.append(renew(certbot_folder, days_ago=79 - number))
        child = subprocess.Popen(
            [sys.executable, str(hook), "--all"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(lot.uniform(0.1, 0.9))
        child.kill()
        child.wait()
        assert haproxy.serves("example.com") in known
        pem = haproxy.certs / "example.com.pem"
        assert pair_fits(pem, pem) and pair_fits(
            there / "example.com.crt", there / "example.com.key"
        )
        if number % 2:
            assert_well(run_deliver_hook(hook, "--all"))
            assert haproxy.serves("example.com") == known[-1]
            assert ssl.PEM_cert_to_DER_cert((there / "example.com.crt").read_text()) == known[-1]


# ---- Reports ---------------------------------------------------------------------------------------------------------
def deliveries(points: set[tuple[str, ...]]) -> dict[str, dict[str, str]]:
    """The newest of what is told of each target."""
    found: dict[str, dict[str, str]] = {}
    for _, field, value, *tags in sorted(points, key=lambda point: int(point[0])):
        target = next((tag.partition("=")[2] for tag in tags if tag.startswith("target=")), "")
        if target:
            found.setdefault(target, {})[field] = value
    return found


def test_reports_tell_what_each_target_has(
    server: Callable[[str], InfluxDB], tmp_path: Path, certbot_folder: Path
) -> None:
    influxdb = server("influxd-1.12")
    bucket, well = influxdb.new_bucket(), tmp_path / "well"
    toml = f"[[command]]\nname = 'edge'\ncommand = ['/bin/sh', '-c', 'test -e {well} || {{ echo no route; exit 1; }}']\n"
    hook = install_deliver_hook(certbot_folder, toml + command_target(tmp_path))
    well.touch()
    live, begin = renew_live(certbot_folder, days_ago=60), NOW - 60 - 60 * DAY
    assert_well(run_deliver_hook(hook, RENEWED_LINEAGE=str(live)))
    settings = influxdb.settings(bucket)
    told = start_report_hook(
        certbot_folder, **settings, RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="example.com"
    )
    assert told.returncode == 0, told.stderr
    has = {
        "deployed": str(begin),
        "deployed_expiry": str(begin + 90 * DAY),
        "renewed": str(begin),
        "run_at": "0",
        "deploy_error": "none",
    }
    assert deliveries(influxdb.points(bucket)) == {"edge": has, "log": has}
    well.unlink()
    renew(certbot_folder)
    assert run_deliver_hook(hook, "--all").returncode == 1
    assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
    found = deliveries(influxdb.points(bucket))
    assert (found["edge"]["deployed"], found["edge"]["renewed"]) == (str(begin), str(NOW - 60))
    assert (found["edge"]["deploy_error"], found["log"]["deployed"]) == (
        "/bin/sh ended with status 1: no route",
        str(NOW - 60),
    )
    assert int(found["edge"]["run_at"]) >= NOW
    hook = install_deliver_hook(certbot_folder, command_target(tmp_path))  # edge is given up
    assert_well(run_deliver_hook(hook, "--all"))
    wait_for(lambda: time.time() > int(found["edge"]["run_at"]) + 1, "another second")
    assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
    found = deliveries(influxdb.points(bucket))
    assert (found["edge"]["renewed"], found["log"]["renewed"]) == ("0", str(NOW - 60))


@pytest.mark.parametrize("house", ["influxd-1.12"], indirect=True)
def test_from_a_haproxy_that_is_down_to_the_mail_and_back(
    house: Alerting, tmp_path: Path, certbot_folder: Path
) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket = influxdb.new_bucket()
    load = make_load_folder(tmp_path, influxdb, bucket, often=("certificate_not_delivered",))
    kapacitor = house.start_kapacitor(load)
    with contextlib.ExitStack() as stack:
        haproxy = started(start_haproxy(tmp_path / "haproxy"), stack)
        assert isinstance(haproxy, HAProxy)
        hook = install_deliver_hook(certbot_folder, haproxy.target('name = "edge"'))
        renew(certbot_folder, days_ago=62)
        assert_well(run_deliver_hook(hook, "--all"))
    renew(certbot_folder, days_ago=2)
    settings = influxdb.settings(bucket)
    assert run_deliver_hook(hook, "--all").returncode == 1
    assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
    assert re.match(
        r"example.com on web1: not delivered to edge, renewed .*, what it has expires ", box.read()
    )
    assert "does HAProxy run" in box.mails[-1].get_content()
    with start_haproxy(tmp_path / "haproxy"):
        assert_well(run_deliver_hook(hook, "--all"))
        next_report = int(time.time())
        wait_for(lambda: time.time() > next_report + 1, "another second")
        assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
        assert box.read() == "example.com on web1: delivered to edge"
    assert kapacitor.errors() == []


# ---- Bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("", "no target in it"),
        ("not toml", "Expected '=' after a key"),
        (
            "[haproxy]\nsocket = 'x'\n",
            "haproxy is no kind of target: each begins with [[haproxy]], [[vault]], [[ssh]], [[command]]",
        ),
        ("[[ftp]]\n", "ftp is no kind of target"),
        ("[[haproxy]]\n", "haproxy: socket is missing: HAProxy's stats socket"),
        (
            "[[haproxy]]\nsocket = 'x'\ncertificate = '/x.pem'\n",
            "certificate would be the same file for all certificates",
        ),
        (
            "[[haproxy]]\nsocket = 'x'\ncertificate = 3\n",
            "certificate is wrong: it must be one line of text",
        ),
        (
            "[[ssh]]\nhosts = 'web1'\nfullchain = '/{lineage}'\nkey = '/{lineage}'\n",
            "hosts is wrong: it must be a list of texts",
        ),
        (
            "[[ssh]]\nhosts = ['-oProxyCommand=x']\nfullchain = '/{lineage}'\nkey = '/k{lineage}'\n",
            "in hosts is wrong: it must be [user@]host",
        ),
        (
            "[[command]]\ncommand = ['x']\ntimeout = 0\n",
            "timeout is wrong: it must be a number above 0",
        ),
        (
            "[[command]]\ncommand = ['x']\nreload = 'x'\n",
            "reload is no option of command (known: name, lineages,",
        ),
        (
            "[[command]]\ncommand = ['x']\n[[command]]\ncommand = ['y']\n",
            "two targets are called command: give each a name",
        ),
        ("[[command]]\nname = 3\ncommand = ['x']\n", "name is wrong: it must be one line of text"),
    ],
)
def test_a_fault_in_the_file_is_named(certbot_folder: Path, toml: str, says: str) -> None:
    hook, _ = install_deliver_hook(certbot_folder, toml), renew(certbot_folder)
    done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"certbot_renewal_deliver: {certbot_folder}/certbot_renewal_deliver.toml: "
    )
    assert says in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_a_target_that_no_certificate_is_for_is_not_ready(certbot_folder: Path) -> None:
    hook, _ = (
        install_deliver_hook(
            certbot_folder, "[[command]]\ncommand = ['true']\nlineages = ['exmaple.com']\n"
        ),
        renew(certbot_folder),
    )
    assert (
        "not ready: no certificate here is for command: correct its lineages and names"
        in run_deliver_hook(hook, "--check").stderr
    )
    assert_well(run_deliver_hook(hook, "--all"), "nothing delivered")


def test_many_certificates_that_fail_alike_are_told_of_once(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['false']\n")
    for number in range(5):
        renew(certbot_folder, f"c{number}")
    done = run_deliver_hook(hook, "--all")
    assert (
        done.stderr
        == "certbot_renewal_deliver: c0, c1, c2 and 2 more not delivered to command: false ended with status 1: no word\n"
    )


def test_another_run_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certbot_renewal_deliver, "PATIENCE", 0.3)
    with (
        certbot_renewal_deliver.alone(str(tmp_path)),
        pytest.raises(
            certbot_renewal_deliver.DeployError,
            match=r"another run has held it for 0.3 s: look what it hangs at, and end it",
        ),
        certbot_renewal_deliver.alone(str(tmp_path)),
    ):
        pass


def test_a_path_that_no_command_line_takes_is_named(haproxy: HAProxy, certbot_folder: Path) -> None:
    hook, _ = (
        install_deliver_hook(certbot_folder, haproxy.target()),
        renew(certbot_folder, "with space"),
    )
    done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    assert (
        "with space not delivered to haproxy: certificate is '" in done.stderr
        and "it may hold letters, digits and" in done.stderr
    )


def test_started_without_anything_to_do_it_says_how(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['true']\n")
    done = run_deliver_hook(hook)
    assert (done.returncode, done.stderr) == (
        1,
        "certbot_renewal_deliver: RENEWED_LINEAGE is not set: certbot sets it for a deploy hook. "
        "By hand use certbot_renewal_deliver.py --all\n",
    )
    done = run_deliver_hook(hook, "--check")
    assert (
        f"not ready: {certbot_folder}/live: No such file or directory: run as root" in done.stderr
    )
    (certbot_folder / "live").mkdir()
    done = run_deliver_hook(hook, "--check")
    assert f"not ready: {certbot_folder}/live: no certificate: get one with certbot" in done.stderr
    (certbot_folder / "certbot_renewal_deliver.toml").unlink()
    done = run_deliver_hook(hook, "--all")
    assert (
        "certbot_renewal_deliver.toml: No such file or directory: write it, as docs/deliver.md says"
        in done.stderr
    )


def test_the_state_can_be_unreadable_or_lost(tmp_path: Path, certbot_folder: Path) -> None:
    hook, _ = install_deliver_hook(certbot_folder, command_target(tmp_path)), renew(certbot_folder)
    state = certbot_folder / "certbot_renewal_deliver.state"
    state.mkdir()
    done = run_deliver_hook(hook, "--all")
    assert done.returncode == 1
    assert f"{state}: " in done.stderr and "example.com to log: ran" in done.stdout
    state.rmdir()
    state.write_text("rubbish\n\x00\n")
    assert_well(run_deliver_hook(hook, "--all"), "ran")
    assert (
        certbot_renewal_deliver.State(str(certbot_folder)).rows["example.com", "log"].not_before
        == NOW - 60
    )


VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.sampled_from(["{lineage}", "/x/{lineage}.pem", "web1", "-x", "a:b"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=2)
    ),
    max_leaves=4,
)
OPTIONS = sorted(
    {
        *certbot_renewal_deliver.COMMON,
        *(option for table in certbot_renewal_deliver.KINDS.values() for option in table),
    }
)


@given(
    st.sampled_from(sorted(certbot_renewal_deliver.KINDS)),
    st.dictionaries(st.one_of(st.sampled_from(OPTIONS), st.text()), VALUES),
)
def test_whatever_stands_in_a_table_it_is_a_target_or_a_fault(
    kind: str, table: dict[str, object]
) -> None:
    faults = list[str]()
    targets = certbot_renewal_deliver.targets_of(kind, table, 0, faults)
    assert bool(targets) != bool(faults)
    lineage = certbot_renewal_deliver.Lineage(
        "example.com", "/live", ["www.example.com"], 0, 0, b"", {}
    )
    for target in targets:
        target.wants(lineage)
        for option in ("certificate", "file", "fullchain", "key"):
            with contextlib.suppress(certbot_renewal_deliver.DeployError, KeyError):
                target.path(option, lineage)
