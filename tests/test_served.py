"""What run reports see of what is served (VERIFY), with a real nginx, and what Telegraf's x509_cert sees."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

import certbot_renewal_report
from support.alerts import make_load_folder
from support.hooks import Ran, next_second, start_report_hook, start_run_report
from support.servers import Alerting, skip_or_fail
from tools.servers import faulty
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, KEY, make_certificate, make_lineage
from tools.servers.processes import MissingServer, free_port, wait_for
from tools.servers.targets import served_certificate, start_nginx

NOW = int(time.time())


class Nginx:
    """A nginx that serves lineages of certbot's folder, each on a port of its own."""

    def __init__(self, pid: int, ports: dict[str, int], folder: Path) -> None:
        self.pid, self.ports, self.folder = pid, ports, folder

    def reload(self) -> None:
        """Reads the certificates anew."""
        os.kill(self.pid, signal.SIGHUP)
        for lineage, port in self.ports.items():
            pem = (self.folder / "live" / lineage / "cert.pem").read_text()
            wait_for(
                lambda: served_certificate(port, "x.example.com") == ssl.PEM_cert_to_DER_cert(pem),
                "nginx",
            )  # noqa: B023


@contextmanager
def nginx(folder: Path, certbot_folder: Path, *lineages: str) -> Iterator[Nginx]:
    """Starts it."""
    ports = {lineage: free_port() for lineage in lineages}
    blocks = "".join(
        f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certbot_folder}/live/{lineage}/fullchain.pem; "
        f"ssl_certificate_key {certbot_folder}/live/{lineage}/privkey.pem; }}\n"
        for lineage, port in ports.items()
    )
    try:
        with start_nginx(folder, blocks) as pid:
            yield Nginx(pid, ports, certbot_folder)
    except MissingServer as error:
        skip_or_fail(error)


def renew(folder: Path, lineage: str, *names: str, days_ago: int = 0) -> None:
    """A new certificate, as certbot would write it."""
    make_lineage(
        folder,
        lineage,
        list(names or [f"{lineage}.example.com"]),
        NOW - 60 - days_ago * DAY,
        90 * DAY,
        key=KEY,
    )


def seen_of(influxdb: InfluxDB, bucket: str, lineage: str) -> list[str | None]:
    """The last report of what is served of a lineage: at how many places, what other names have, and until when."""
    points = [point for point in influxdb.points(bucket) if f"lineage={lineage}" in point]
    newest = max(int(point[0]) for point in points if point[1] == "run_at")
    found = {point[1]: point[2] for point in points if int(point[0]) == newest}
    return [found.get(name) for name in ("served", "not_served", "served_expiry")]


def test_a_server_that_was_not_restarted_serves_another_one(
    server: Callable[[str], InfluxDB], tmp_path: Path, certbot_folder: Path
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    for lineage in ("a", "b"):
        renew(certbot_folder, lineage, days_ago=60)
    with nginx(tmp_path / "nginx", certbot_folder, "a", "b") as running:
        verify = " ".join(f"{lineage}=127.0.0.1:{port}" for lineage, port in running.ports.items())
        settings = {**influxdb.settings(bucket), "VERIFY": verify}
        done = start_run_report(certbot_folder, "--all", **settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert (
            seen_of(influxdb, bucket, "a") == seen_of(influxdb, bucket, "b") == ["1", "none", "0"]
        )
        renew(certbot_folder, "a")
        live = certbot_folder / "live" / "a"
        assert (
            start_report_hook(
                certbot_folder,
                **settings,
                RENEWED_LINEAGE=str(live),
                RENEWED_DOMAINS="a.example.com",
            ).returncode
            == 0
        )
        next_second()
        done = start_run_report(certbot_folder, "--all", **settings)
        assert (done.returncode, done.stderr) == (0, "")
        place = f"a.example.com@127.0.0.1:{running.ports['a']}"
        assert seen_of(influxdb, bucket, "a") == ["0", place, str(NOW - 60 + 30 * DAY)]
        assert seen_of(influxdb, bucket, "b") == ["1", "none", "0"]
        done = start_report_hook(certbot_folder, "--check", **settings)
        assert (
            f", served at 0 of 1, another one for {place}" in done.stdout
            and ", served at 1 of 1\n" in done.stdout
        )
        running.reload()
        next_second()
        assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
        assert seen_of(influxdb, bucket, "a") == ["1", "none", "0"]
    next_second()
    done = start_run_report(certbot_folder, "--all", **settings)
    assert done.returncode == 1
    assert (
        f"nobody answers for a at 127.0.0.1:{running.ports['a']} (Connection refused): correct VERIFY, or add a=none"
        in done.stderr
    )
    assert seen_of(influxdb, bucket, "a") == ["0", None, None]  # what was known stays


def test_a_deploy_hook_never_looks(report_hook: Callable[..., Ran], certbot_folder: Path) -> None:
    renew(certbot_folder, "a")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        verify = f"127.0.0.1:{listening.getsockname()[1]}"
        live = certbot_folder / "live" / "a"
        done = report_hook(
            "--dry-run", VERIFY=verify, RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="a.example.com"
        )
        assert done.status == 0 and "served" not in done.out
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_one_of_two_certificates_of_a_name_is_enough(
    run_report: Callable[..., Ran], tmp_path: Path, certbot_folder: Path
) -> None:
    for lineage, name in (
        ("ecdsa", "www.example.com"),
        ("rsa", "www.example.com"),
        ("other", "mail.example.org"),
        ("wild", "*.example.com"),
    ):
        renew(certbot_folder, lineage, name)
    with nginx(tmp_path / "nginx", certbot_folder, "ecdsa", "wild") as running:
        verify = f"127.0.0.1:{running.ports['ecdsa']}"
        done = run_report("--all", "--dry-run", VERIFY=f"{verify} wild=none")
        assert (
            done.status,
            len(re.findall(r'served=1i,seen_at=\d+i,served_expiry=0i,not_served="none"', done.out)),
        ) == (0, 2)
        assert (
            f'not_served="mail.example.org@{verify}"' in done.out
        )  # one that does not hold the name is none
        done = run_report(
            "--all", "--dry-run", VERIFY=f"127.0.0.1:{running.ports['wild']} other=none"
        )
        assert (done.status, done.out.count('not_served="none"')) == (0, 3)


@pytest.mark.parametrize(
    ("verify", "names", "places"),
    [
        ("", ["a.example.com"], []),
        (
            "443",
            ["a.example.com", "*.example.com", "b.example.com"],
            ["a.example.com:443", "b.example.com:443"],
        ),
        ("443 993", ["a.example.com"], ["a.example.com:443", "a.example.com:993"]),
        (
            "proxy:443",
            ["a.example.com", "b.example.com"],
            ["a.example.com@proxy:443", "b.example.com@proxy:443"],
        ),
        ("443 name=993", ["a.example.com"], ["a.example.com:993"]),
        ("443 name=none", ["a.example.com"], []),
        ("443 other=none", ["a.example.com"], ["a.example.com:443"]),
        ("443 name=[::1]:8443", ["a.example.com"], ["a.example.com@::1:8443"]),
        ("443", ["*.example.com"], []),
        ("name=www.example.com:443", ["*.example.com"], ["www.example.com:443"]),
        ("443", ["2001:db8::1"], ["2001:db8::1:443"]),
    ],
)
def test_where_verify_looks(verify: str, names: list[str], places: list[str]) -> None:
    settings = certbot_renewal_report.Settings(
        "", 2, "", "", "", 10, "certbot_renewal", "web1", {}, verify
    )
    found = certbot_renewal_report.places_of(
        settings, certbot_renewal_report.Certificate("name", names, 0, 0, 0)
    )
    assert [
        (name if host == name else f"{name}@{host}") + f":{port}" for host, port, name in found
    ] == places


def test_a_lineage_of_verify_that_is_not_there_is_named(
    run_report: Callable[..., Ran], certbot_folder: Path
) -> None:
    renew(certbot_folder, "a")
    done = run_report("--all", "--dry-run", VERIFY="a=none a.example.com=443 b=none")
    assert (
        done.err
        == "certbot_renewal_report: VERIFY speaks of a.example.com b, which is no lineage here: see certbot certificates\n"
    )


@pytest.mark.parametrize(
    "verify", ["https://example.com", "443,993", "a=b=443", "example.com", ":443", "123456", "none"]
)
def test_a_wrong_verify_is_named(
    run_report: Callable[..., Ran], certbot_folder: Path, verify: str
) -> None:
    renew(certbot_folder, "a")
    done = run_report("--all", "--dry-run", VERIFY=verify)
    assert done.status == 1
    assert (
        "VERIFY is wrong: it must be port, host:port, NAME=port, NAME=host:port or NAME=none; several"
        in done.err
    )


def test_what_does_not_speak_tls_is_no_answer(
    run_report: Callable[..., Ran], certbot_folder: Path
) -> None:
    renew(certbot_folder, "a", *(f"{number}.example.com" for number in range(60)))
    with faulty.serving(faulty.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        done = run_report(
            "--all", "--dry-run", VERIFY=f"127.0.0.1:99999 {url[7:]} 127.0.0.1:{free_port()}"
        )
    assert done.status == 1
    assert done.out.count(",served=0i ") == 1 and "nobody answers for a at " in done.err


@given(st.integers(-631152000, 4102444800), st.integers(1, 400 * DAY))
def test_the_end_of_a_certificate_is_read_as_a_library_reads_it(begin: int, lifetime: int) -> None:
    pem = make_certificate(["a.example.com"], begin, lifetime)
    expected = int(x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp())
    assert certbot_renewal_report.end_of(ssl.PEM_cert_to_DER_cert(pem.decode())) == expected


def test_what_is_no_certificate_has_no_end() -> None:
    for der in (b"", b"\x30\x1e\x17\x0d261301000000Z\x17\x0d261399000000Z", bytes(range(256))):
        assert certbot_renewal_report.end_of(der) == 0


@pytest.mark.parametrize("house", ["influxd-1.12"], indirect=True)
def test_from_a_server_that_was_not_restarted_to_the_mail_and_back(
    house: Alerting, tmp_path: Path, certbot_folder: Path
) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket = influxdb.new_bucket()
    kapacitor = house.start_kapacitor(
        make_load_folder(tmp_path, influxdb, bucket, often=("certificate_not_served",))
    )
    renew(certbot_folder, "a", days_ago=85)
    with nginx(tmp_path / "nginx", certbot_folder, "a") as running:
        renew(certbot_folder, "a", days_ago=2)
        settings = {**influxdb.settings(bucket), "VERIFY": f"127.0.0.1:{running.ports['a']}"}
        assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
        subject = box.read()
        assert (
            subject.startswith("a on web1: urgent, renewed 20")
            and "but another one is served for a.example.com@127.0.0.1:" in subject
        )
        events = kapacitor.api("GET", "/alerts/topics/certbot_renewal/events").json()["events"]
        assert [event["state"]["level"] for event in events if "served" in event["id"]] == [
            "CRITICAL"
        ]  # it expires in five days
        running.reload()
        next_second()
        assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
        assert box.read() == "a on web1: the renewed certificate is served"
    assert kapacitor.errors() == []
