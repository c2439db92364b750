"""The deliver hook's targets of the kind `haproxy`, on the real HAProxy."""

from __future__ import annotations

import os
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
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from support.alerts import make_load_folder
from support.hooks import next_second, start_run_report
from support.servers import Alerting
from support.targets import (
    RENEWALS,
    assert_failure,
    assert_success,
    available,
    command_table,
    fill_disk,
    first_certificate,
    installed_in,
    is_pair,
    lines_of,
    mode_of,
    names_in,
    new_certbot,
    renew,
    renewed_certificate,
    small_disk,
)
from tools.servers.certbot import Certbot, start_pebble
from tools.servers.lineages import make_server_certificate
from tools.servers.processes import free_port, wait_for
from tools.servers.targets import HAProxy, install_deliver_hook, run_deliver_hook, start_haproxy


# ---- Under load --------------------------------------------------------------------------------
class Connection(NamedTuple):
    """When a connection began and ended, Unix seconds, and which certificate (DER) was served."""

    began: float
    ended: float
    certificate: bytes


class Load:
    """New TLS connections to a HAProxy, each with one request, from three threads."""

    def __init__(self, haproxy: HAProxy, name: str) -> None:
        """`name` is the server name to ask for."""
        self.haproxy = haproxy
        self.name = name
        self.is_ending = False
        self.errors: list[str] = []
        self.connections: list[Connection] = []
        self.threads = [threading.Thread(target=self.work) for _ in range(3)]

    def __enter__(self) -> Load:
        """Start the threads."""
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads."""
        self.is_ending = True
        for thread in self.threads:
            thread.join()

    def work(self) -> None:
        """Connect, one connection after the other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # In the short form, other tests want the processor too.
        pause = 0 if RENEWALS > 10 else 0.02
        while not self.is_ending:
            time.sleep(pause)
            try:
                self.connect(context)
            except OSError as error:
                self.errors.append(str(error))

    def connect(self, context: ssl.SSLContext) -> None:
        """Make one connection; raise OSError if it fails."""
        began = time.time()
        with (
            socket.create_connection(("127.0.0.1", self.haproxy.https_port), 10) as plain,
            context.wrap_socket(plain, server_hostname=self.name) as peer,
        ):
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = peer.recv(4096)
            certificate = peer.getpeercert(True) or b""
        if b"200" not in answer:
            self.errors.append(repr(answer))
        self.connections.append(Connection(began, time.time(), certificate))

    def wait_for_more(self, count: int) -> None:
        """Wait until `count` more connections have ended."""
        enough = len(self.connections) + count
        wait_for(lambda: len(self.connections) > enough, "more connections")


def install_clock(certbot: Certbot, name: str) -> Path:
    """Install a deploy hook that writes down when it is started; return its file."""
    times = certbot.folder.parent / name
    hook = certbot.hook.with_name(name)
    hook.write_text(f"#!/bin/sh\ndate +%s.%N >> {times}\n")
    hook.chmod(0o755)
    return times


def moments_in(path: Path) -> list[float]:
    """Return the moments that a clock has written down, in the last renewals."""
    return [float(line) for line in lines_of(path)][-RENEWALS:]


def assert_each_was_current(
    connections: Sequence[Connection],
    certificates: Sequence[bytes],
    before: Sequence[float],
    after: Sequence[float],
) -> None:
    """Assert that each connection got a certificate that was current while it lasted.

    `before` and `after` have the moments before and after each delivery.
    """
    for connection in connections:
        delivered_before = sum(moment <= connection.began for moment in after)
        begun_until_end = sum(moment <= connection.ended for moment in before)
        assert connection.certificate in certificates[delivered_before : begun_until_end + 1]


def renew_under_load(certbot: Certbot, load: Load) -> list[bytes]:
    """Renew example.com RENEWALS times, ECDSA and RSA in turn; return all certificates."""
    live = certbot.folder / "live" / "example.com"
    certificates = [first_certificate(live / "cert.pem")]
    for number in range(RENEWALS):
        key_type = ["--key-type", "ecdsa"]
        if number % 2 == 0:
            key_type = ["--key-type", "rsa", "--rsa-key-size", "2048"]
        renewed = certbot.renew("--force-renewal", *key_type)
        assert renewed.returncode == 0, renewed.stdout
        assert "example.com to haproxy: now served" in renewed.stdout
        certificates.append(first_certificate(live / "cert.pem"))
        load.wait_for_more(20)
    return certificates


def issue_through(certbot: Certbot, port: int) -> None:
    """Get the first certificate of example.com; certbot answers the CA on a port."""
    account = ["--agree-tos", "--register-unsafely-without-email"]
    proof = ["--standalone", "--http-01-port", str(port)]
    names = ["--cert-name", "example.com", "-d", "example.com"]
    issued = certbot.run("certonly", *proof, *account, *names)
    assert issued.returncode == 0, issued.stdout


def test_no_connection_fails_while_certbot_renews_through_haproxy(tmp_path: Path) -> None:
    acme_port = free_port()
    with (
        available(start_haproxy(tmp_path / "haproxy", acme_port)) as haproxy,
        available(start_pebble(tmp_path / "pebble", http=haproxy.http_port)) as authority,
    ):
        certbot = new_certbot(tmp_path, authority)
        installed_in(certbot, haproxy.table())
        before = install_clock(certbot, "aa-before")
        after = install_clock(certbot, "zz-after")
        issue_through(certbot, acme_port)
        current = certbot.folder / "live" / "example.com" / "cert.pem"
        assert haproxy.served("example.com") == first_certificate(current)

        with Load(haproxy, "example.com") as load:
            certificates = renew_under_load(certbot, load)
        assert load.errors == []
        assert len(set(certificates)) == RENEWALS + 1
        assert_each_was_current(
            load.connections, certificates, moments_in(before), moments_in(after)
        )
        print(f"{len(load.connections)} connections during {RENEWALS} renewals, none failed")
        assert is_pair(haproxy.certs / "example.com.pem", haproxy.certs / "example.com.pem")

    with start_haproxy(tmp_path / "haproxy") as restarted:
        assert restarted.served("example.com") == certificates[-1]


# ---- Certificates ------------------------------------------------------------------------------
def test_a_certificate_that_haproxy_does_not_know_is_added(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table())
    certificate = renewed_certificate(certbot_folder)
    assert_success(run_deliver_hook(hook, "--dry-run"), "would be added as a new certificate")
    assert haproxy.served("example.com") != certificate
    assert_success(run_deliver_hook(hook, "--all"), "now served")
    assert haproxy.served("example.com") == certificate
    assert haproxy.served("other.example.com") != certificate
    assert mode_of(haproxy.certs / "example.com.pem") == 0o600


def test_a_renewed_certificate_replaces_the_old_one_and_its_file_keeps_its_mode(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table())
    first = renewed_certificate(certbot_folder, days_ago=60)
    assert_success(run_deliver_hook(hook, "--all"))
    (haproxy.certs / "example.com.pem").chmod(0o640)
    second = renewed_certificate(certbot_folder)
    assert_success(run_deliver_hook(hook, "--check"), "would be replaced")
    assert haproxy.served("example.com") == first

    live = certbot_folder / "live" / "example.com"
    assert_success(run_deliver_hook(hook, RENEWED_LINEAGE=str(live)))
    assert haproxy.served("example.com") == second
    assert haproxy.served("other.example.com") not in (first, second)
    assert mode_of(haproxy.certs / "example.com.pem") == 0o640
    assert_success(run_deliver_hook(hook, "--all"), "nothing to do: 1 up to date")


def test_the_stats_socket_may_be_an_address(haproxy: HAProxy, certbot_folder: Path) -> None:
    over_tcp = haproxy.table().replace(str(haproxy.socket), f"127.0.0.1:{haproxy.stats_port}")
    hook = install_deliver_hook(certbot_folder, over_tcp)
    certificate = renewed_certificate(certbot_folder)
    assert_success(run_deliver_hook(hook, "--all"), "now served")
    assert haproxy.served("example.com") == certificate


def test_a_crt_list_gets_a_new_certificate_for_the_next_start_too(
    tmp_path: Path, certbot_folder: Path
) -> None:
    folder = tmp_path / "haproxy"
    (folder / "certs").mkdir(parents=True)
    pem = folder / "certs" / "placeholder.pem"
    placeholder = make_server_certificate(pem, "placeholder.example.com")
    crt_list = folder / "crt-list"
    crt_list.write_text(f"{placeholder}\n")
    certificate = renewed_certificate(certbot_folder)
    with available(start_haproxy(folder, bind=f"crt-list {crt_list}")) as haproxy:
        hook = install_deliver_hook(certbot_folder, haproxy.table(crt_list=str(crt_list)))
        assert_success(run_deliver_hook(hook, "--all"))
        assert haproxy.served("example.com") == certificate
        assert_success(run_deliver_hook(hook, "--all"), "nothing to do")

    assert lines_of(crt_list) == [str(placeholder), str(folder / "certs" / "example.com.pem")]
    with start_haproxy(folder, bind=f"crt-list {crt_list}") as haproxy:
        assert haproxy.served("example.com") == certificate
        assert_success(run_deliver_hook(hook, "--all"), "nothing to do")


def test_a_crt_list_that_lacks_a_certificate_is_written(
    tmp_path: Path, haproxy: HAProxy, certbot_folder: Path
) -> None:
    """HAProxy has the certificate from its folder; the crt-list is for the next start."""
    crt_list = tmp_path / "crt-list"
    crt_list.write_text("")
    hook = install_deliver_hook(certbot_folder, haproxy.table())
    renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--all"))
    install_deliver_hook(certbot_folder, haproxy.table(crt_list=str(crt_list)))
    assert_success(run_deliver_hook(hook, "--dry-run"), f"would write {crt_list}")
    assert lines_of(crt_list) == []
    assert_success(run_deliver_hook(hook, "--all"), f"wrote {crt_list}")
    assert lines_of(crt_list) == [f"{haproxy.certs}/example.com.pem"]


# ---- Settings ----------------------------------------------------------------------------------
def test_a_new_certificate_without_a_crt_list_is_an_error(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    renew(certbot_folder)
    without_crt_list = re.sub("crt_list = .*", "", haproxy.table())
    hook = install_deliver_hook(certbot_folder, without_crt_list)
    known = f"HAProxy has not loaded {haproxy.certs}/example.com.pem"
    remedy = "correct certificate, or set crt_list"
    assert_failure(run_deliver_hook(hook, "--all"), f"{known}: {remedy}")
    assert_failure(run_deliver_hook(hook, "--check"), f"{known}: {remedy}")


def test_a_certificate_that_no_bind_uses_is_added_to_crt_list(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    """A hook that was killed leaves such a certificate."""
    renew(certbot_folder)
    pem = haproxy.certs / "example.com.pem"
    assert haproxy.ask(f"new ssl cert {pem}").startswith("New empty")
    without_crt_list = re.sub("crt_list = .*", "", haproxy.table())
    hook = install_deliver_hook(certbot_folder, without_crt_list)
    error = f"no bind line of HAProxy uses {pem}: set crt_list to add it"
    assert_failure(run_deliver_hook(hook, "--all"), error)

    install_deliver_hook(certbot_folder, haproxy.table())
    assert_success(run_deliver_hook(hook, "--dry-run"), "would be added to crt_list")
    assert_success(run_deliver_hook(hook, "--all"), f"added to {haproxy.certs}/")


def test_a_crt_list_that_haproxy_does_not_know_is_an_error(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    toml = haproxy.table(crt_list=str(haproxy.certs.parent / "no-crt-list"))
    renew(certbot_folder)
    completed = run_deliver_hook(install_deliver_hook(certbot_folder, toml), "--all")
    assert_failure(completed, "example.com not delivered to haproxy: HAProxy refused: ")


def test_a_path_with_characters_that_haproxy_would_not_take_is_an_error(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table())
    renew(certbot_folder, "with space")
    assert_failure(
        run_deliver_hook(hook, "--all"),
        "with space not delivered to haproxy: certificate is '",
        "use only letters, digits and",
    )


@pytest.mark.parametrize("argument", ["--check", "--all"])
def test_a_stats_socket_without_level_admin_is_an_error(
    tmp_path: Path, certbot_folder: Path, argument: str
) -> None:
    renew(certbot_folder)
    with available(start_haproxy(tmp_path / "haproxy", level="operator")) as haproxy:
        hook = install_deliver_hook(certbot_folder, haproxy.table())
        completed = run_deliver_hook(hook, argument)
    assert_failure(
        completed,
        f"{haproxy.socket}: HAProxy answered permission denied: "
        'add "level admin" to the stats socket line in haproxy.cfg',
    )


# ---- A HAProxy that refuses --------------------------------------------------------------------
def renew_with_too_many_names(folder: Path) -> None:
    """Write a certificate that is larger than HAProxy's buffer."""
    names = [f"{'a-long-name-' * 4}{number}.example.com" for number in range(400)]
    renew(folder, names=tuple(names))


def test_a_certificate_that_haproxy_refuses_changes_nothing(
    tmp_path: Path, haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table() + command_table(tmp_path))
    old = renewed_certificate(certbot_folder, days_ago=60)
    assert_success(run_deliver_hook(hook, "--all"))
    old_file = (haproxy.certs / "example.com.pem").read_bytes()
    renew_with_too_many_names(certbot_folder)

    refused = run_deliver_hook(hook, "--all")
    assert_failure(refused, "example.com not delivered to haproxy: ")
    remedy = "raise tune.bufsize in haproxy.cfg"
    assert re.search(rf"HAProxy cannot take a command of \d+ bytes: {remedy}", refused.stderr)
    assert haproxy.served("example.com") == old
    assert (haproxy.certs / "example.com.pem").read_bytes() == old_file
    assert len(lines_of(tmp_path / "log")) == 2  # the other target got it


def test_after_a_refusal_the_next_certificate_is_delivered(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table())
    renew_with_too_many_names(certbot_folder)
    assert_failure(run_deliver_hook(hook, "--all"), "not delivered to haproxy")
    certificate = renewed_certificate(certbot_folder)  # no transaction was left open
    assert_success(run_deliver_hook(hook, "--all"))
    assert haproxy.served("example.com") == certificate


def test_a_transaction_of_somebody_who_was_killed_is_aborted(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table())
    renew(certbot_folder, days_ago=60)
    assert_success(run_deliver_hook(hook, "--all"))
    pem = (haproxy.certs / "example.com.pem").read_text()
    begun = haproxy.ask(f"set ssl cert {haproxy.certs}/placeholder.pem <<\n{pem}")
    assert "Transaction created" in begun
    placeholder = haproxy.served("placeholder.example.com")

    certificate = renewed_certificate(certbot_folder)
    assert_success(run_deliver_hook(hook, "--all"), "example.com to haproxy: now served")
    assert haproxy.served("example.com") == certificate
    assert haproxy.served("placeholder.example.com") == placeholder


def test_nothing_is_set_while_a_transaction_of_somebody_else_goes_on(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table())
    renew(certbot_folder, days_ago=60)
    assert_success(run_deliver_hook(hook, "--all"))
    served = haproxy.served("example.com")
    pem = (haproxy.certs / "example.com.pem").read_text()
    other = haproxy.certs / "placeholder.pem"
    assert "Transaction created" in haproxy.ask(f"set ssl cert {other} <<\n{pem}")

    # The deadline comes before the two seconds after which the transaction would be aborted.
    hook = install_deliver_hook(certbot_folder, haproxy.table("timeout = 1"))
    certificate = renewed_certificate(certbot_folder)
    assert_failure(
        run_deliver_hook(hook, "--all"),
        f"example.com not delivered to haproxy: {haproxy.socket}: "
        f"HAProxy has an unfinished transaction for {other}: "
        "abort it, or set timeout to more than 2 seconds",
        f"the next start will serve {haproxy.certs}/example.com.pem",
    )
    assert haproxy.served("example.com") == served
    assert first_certificate(haproxy.certs / "example.com.pem") == certificate
    assert f"*{other}" in haproxy.ask("show ssl cert")


class RefusingHAProxy(socketserver.ThreadingUnixStreamServer):
    """A stats socket that takes a certificate and refuses to commit it.

    The real one commits every certificate that it has taken. `commands` are those that it got.
    """

    def __init__(self, path: Path, certificate: Path) -> None:
        """`certificate` is the file as HAProxy calls it."""
        super().__init__(str(path), RefusingHandler)
        self.commands: list[str] = []
        self.answers = {
            "show": "Not found",
            "new": "New empty certificate store",
            "set": f"Transaction created for certificate {certificate}!",
        }


class RefusingHandler(socketserver.StreamRequestHandler):
    """One connection: a command, and after `<<` lines to an empty one."""

    server: RefusingHAProxy

    def handle(self) -> None:
        """Answer the command."""
        line = self.rfile.readline().decode()
        while line.endswith("<<\n") and self.rfile.readline().strip():
            pass
        command = line.split()[0]
        self.server.commands.append(command)
        answer = self.server.answers.get(command, "Committing.\nunable to load.")
        self.wfile.write(f"{answer}\n".encode())


def test_a_certificate_that_haproxy_refuses_at_last_is_taken_back(
    tmp_path: Path, certbot_folder: Path
) -> None:
    renew(certbot_folder)
    path = tmp_path / "admin.sock"
    toml = f"""[[haproxy]]
socket = "{path}"
certificate = "{tmp_path}/{{lineage}}.pem"
crt_list = "{tmp_path}/"
"""
    hook = install_deliver_hook(certbot_folder, toml)
    with RefusingHAProxy(path, tmp_path / "example.com.pem") as server:
        threading.Thread(target=server.serve_forever, args=[0.05]).start()
        completed = run_deliver_hook(hook, "--all")
        server.shutdown()
    refusal = "HAProxy refused: unable to load.: check its log"
    assert_failure(completed, f"example.com not delivered to haproxy: {refusal}")
    taken_back = ["abort", "del"]
    assert server.commands == ["show", "show", "new", "set", "commit", *taken_back]
    assert not (tmp_path / "example.com.pem").exists()


# ---- A HAProxy that does not run ---------------------------------------------------------------
def test_a_haproxy_that_is_down_serves_the_certificate_from_its_next_start(
    tmp_path: Path, certbot_folder: Path
) -> None:
    with available(start_haproxy(tmp_path / "haproxy")) as haproxy:
        hook = install_deliver_hook(certbot_folder, haproxy.table())
        renew(certbot_folder, days_ago=60)
        assert_success(run_deliver_hook(hook, "--all"))

    certificate = renewed_certificate(certbot_folder)
    assert_failure(
        run_deliver_hook(hook, "--all"),
        f"example.com not delivered to haproxy: {haproxy.socket}: Connection refused: "
        "check that HAProxy is running and that socket",
        f"the next start will serve {haproxy.certs}/example.com.pem",
    )
    with start_haproxy(tmp_path / "haproxy") as haproxy:
        assert haproxy.served("example.com") == certificate
        assert_success(run_deliver_hook(hook, "--all"), "nothing to do")


def test_check_names_all_certificates_that_a_haproxy_that_is_down_cannot_get(
    tmp_path: Path, certbot_folder: Path
) -> None:
    with available(start_haproxy(tmp_path / "haproxy")) as haproxy:
        hook = install_deliver_hook(certbot_folder, haproxy.table())
    renew(certbot_folder)
    renew(certbot_folder, "another", days_ago=1)
    error = "not ready: another, example.com not delivered to haproxy: "
    assert_failure(run_deliver_hook(hook, "--check"), error)


def test_a_haproxy_that_hangs_is_given_up_at_the_deadline(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table("timeout = 1"))
    certificate = renewed_certificate(certbot_folder)
    os.kill(haproxy.pid, signal.SIGSTOP)
    try:
        completed = run_deliver_hook(hook, "--all")
    finally:
        os.kill(haproxy.pid, signal.SIGCONT)
    assert_failure(completed, f"not delivered to haproxy: {haproxy.socket}: no answer in time")
    assert_success(run_deliver_hook(hook, "--all"))
    assert haproxy.served("example.com") == certificate


@pytest.mark.parametrize("alerting", ["influxd-1.12"], indirect=True)
def test_from_a_haproxy_that_is_down_to_the_mail_and_back(
    alerting: Alerting, tmp_path: Path, certbot_folder: Path
) -> None:
    influxdb = alerting.start_influxdb()
    bucket = influxdb.new_bucket()
    load = make_load_folder(tmp_path, influxdb, bucket, often=("certificate_not_delivered",))
    kapacitor = alerting.start_kapacitor(load)
    settings = influxdb.settings(bucket)
    with available(start_haproxy(tmp_path / "haproxy")) as haproxy:
        hook = install_deliver_hook(certbot_folder, haproxy.table('name = "edge"'))
        renew(certbot_folder, days_ago=62)
        assert_success(run_deliver_hook(hook, "--all"))

    renew(certbot_folder, days_ago=2)
    assert run_deliver_hook(hook, "--all").returncode == 1
    assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
    subject = alerting.inbox.read()
    assert subject.startswith("WARNING: example.com on web1: not delivered to edge, renewed 20")
    assert ", the old certificate there expires 20" in subject
    assert "check that HAProxy is running" in alerting.inbox.mails[-1].get_content()

    with start_haproxy(tmp_path / "haproxy"):
        assert_success(run_deliver_hook(hook, "--all"))
        next_second()
        assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
        assert alerting.inbox.read() == "OK: example.com on web1: delivered to edge"
    assert kapacitor.errors() == []


# ---- The file for the next start ---------------------------------------------------------------
def test_on_a_full_disk_haproxy_serves_the_new_certificate_and_the_old_file_stays(
    tmp_path: Path, certbot_folder: Path
) -> None:
    certs = tmp_path / "haproxy" / "certs"
    certs.mkdir(parents=True)
    pem = certs / "example.com.pem"
    with small_disk(certs, "16k"):
        make_server_certificate(certs / "placeholder.pem", "placeholder.example.com")
        with available(start_haproxy(tmp_path / "haproxy")) as haproxy:
            hook = install_deliver_hook(certbot_folder, haproxy.table())
            renew(certbot_folder, days_ago=60)
            assert_success(run_deliver_hook(hook, "--all"))
            old_file = pem.read_bytes()
            certificate = renewed_certificate(certbot_folder)
            filler = certs / "filler.key"
            fill_disk(filler)

            assert_failure(
                run_deliver_hook(hook, "--all"),
                "HAProxy serves the new certificate, but ",
                "No space left on device: "
                "the next start of HAProxy would serve the old certificate",
            )
            assert haproxy.served("example.com") == certificate
            assert pem.read_bytes() == old_file
            assert names_in(certs) == {"example.com.pem", "placeholder.pem", filler.name}

            filler.unlink()
            assert_success(run_deliver_hook(hook, "--all"), f"wrote {pem}")
            assert first_certificate(pem) == certificate


def test_a_folder_that_certbots_user_may_not_write_to_is_named(
    haproxy: HAProxy, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, haproxy.table())
    certificate = renewed_certificate(certbot_folder)
    haproxy.certs.chmod(0o555)
    command = [sys.executable, str(hook), "--all"]
    if os.geteuid() == 0:  # root may write everywhere, unless it has no capabilities
        setpriv = shutil.which("setpriv") or pytest.skip("no setpriv")
        command = [setpriv, "--bounding-set=-all", "--inh-caps=-all", *command]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60)

    new_file = haproxy.certs / ".example.com.pem.new.key"
    reason = "Permission denied: the next start of HAProxy would serve the old certificate"
    assert_failure(completed, f"HAProxy serves the new certificate, but {new_file}: {reason}")
    assert haproxy.served("example.com") == certificate
    haproxy.certs.chmod(0o755)
    assert_success(run_deliver_hook(hook, "--all"), f"wrote {haproxy.certs}/example.com.pem")
