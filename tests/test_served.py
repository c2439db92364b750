"""VERIFY: what run reports see of a certificate that a real nginx serves, or should serve."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

import certbot_renewal_report
import certbot_renewal_run
from support.alerts import make_load_folder
from support.buckets import Bucket
from support.hooks import Ran, next_second, start_report_hook, start_run_report
from support.nginx import Nginx, serving_lineages
from support.servers import Alerting
from tools.servers import faulty
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, KEY, make_certificate, make_lineage
from tools.servers.processes import free_port

Program = Callable[..., Ran]
NOW = int(time.time())


class Seen(NamedTuple):
    """What the newest state of a lineage says is served; None: the report does not say it."""

    served: str | None
    not_served: str | None
    served_expiry: str | None


SERVED_CORRECTLY = Seen("1", "none", "0")


def renew(folder: Path, lineage: str, *names: str, days_ago: int = 0) -> Path:
    """Make a new certificate with its key, as certbot would; return its folder in live/."""
    not_before = NOW - 60 - days_ago * DAY
    server_names = list(names) or [f"{lineage}.example.com"]
    return make_lineage(folder, lineage, server_names, not_before, 90 * DAY, key=KEY)


def seen_of(bucket: Bucket, lineage: str) -> Seen:
    """Return what the newest report says is served of a lineage."""
    points = [point for point in bucket.points() if f"lineage={lineage}" in point]
    newest = max(int(point[0]) for point in points if point[1] == "run_at")
    fields = {point[1]: point[2] for point in points if int(point[0]) == newest}
    return Seen(fields.get("served"), fields.get("not_served"), fields.get("served_expiry"))


class Setting(NamedTuple):
    """A nginx that serves the lineages a and b, which are 60 days old, and where to report it."""

    nginx: Nginx
    folder: Path
    bucket: Bucket
    environ: dict[str, str]

    def report(self) -> None:
        """Send a run report, in a second of its own."""
        next_second()
        done = start_run_report(self.folder, "--all", **self.environ)
        assert (done.returncode, done.stderr) == (0, "")

    def label(self, lineage: str) -> str:
        """Return what a report calls the endpoint of a lineage."""
        return f"{lineage}.example.com@{self.nginx.address(lineage)}"


@pytest.fixture
def setting(
    server: Callable[[str], InfluxDB], tmp_path: Path, certbot_folder: Path
) -> Iterator[Setting]:
    """A nginx with two lineages, and VERIFY for both."""
    bucket = Bucket(server("influxd-1.12"))
    for lineage in ("a", "b"):
        renew(certbot_folder, lineage, days_ago=60)
    with serving_lineages(tmp_path / "nginx", certbot_folder, "a", "b") as nginx:
        verify = f"a={nginx.address('a')} b={nginx.address('b')}"
        yield Setting(nginx, certbot_folder, bucket, {**bucket.settings, "VERIFY": verify})


def test_what_is_on_disk_is_served_correctly(setting: Setting) -> None:
    setting.report()
    assert seen_of(setting.bucket, "a") == SERVED_CORRECTLY
    assert seen_of(setting.bucket, "b") == SERVED_CORRECTLY


def test_a_server_that_was_not_reloaded_serves_another_certificate(setting: Setting) -> None:
    setting.report()
    live = renew(setting.folder, "a")
    renewal = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": "a.example.com"}
    done = start_report_hook(setting.folder, **setting.environ, **renewal)
    assert done.returncode == 0

    setting.report()
    old_expiry = str(NOW - 60 + 30 * DAY)
    assert seen_of(setting.bucket, "a") == Seen("0", setting.label("a"), old_expiry)
    assert seen_of(setting.bucket, "b") == SERVED_CORRECTLY

    setting.nginx.reload()
    setting.report()
    assert seen_of(setting.bucket, "a") == SERVED_CORRECTLY


def test_check_says_what_is_served(setting: Setting) -> None:
    renew(setting.folder, "a")
    done = start_run_report(setting.folder, "--check", **setting.environ)
    assert re.search(r"(?m)^  lineage +names +.* +status +served$", done.stdout)
    rows = re.findall(r"(?m)^  (\w) .* (OK|due) +(\d of \d.*)$", done.stdout)
    assert rows == [
        ("a", "OK", f"0 of 1, another certificate at {setting.label('a')}"),
        ("b", "due", "1 of 1"),
    ]
    assert done.returncode == 0
    verdict = "ready, but 1 certificate is not served: reload the servers, or correct VERIFY"
    assert done.stdout.splitlines()[-1] == verdict


def test_when_nobody_answers_the_last_answer_stays(
    server: Callable[[str], InfluxDB], certbot_folder: Path
) -> None:
    bucket = Bucket(server("influxd-1.12"))
    renew(certbot_folder, "a")
    address = f"127.0.0.1:{free_port()}"
    done = start_run_report(certbot_folder, "--all", VERIFY=address, **bucket.settings)
    assert done.returncode == 1
    reason = f"no server answers for a at {address} (Connection refused)"
    assert f"{reason}: check the server, correct VERIFY, or add a=none to VERIFY" in done.stderr
    assert seen_of(bucket, "a") == Seen("0", None, None)


def test_a_deploy_hook_never_looks(report_hook: Program, certbot_folder: Path) -> None:
    live = renew(certbot_folder, "a")
    renewal = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": "a.example.com"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        verify = f"127.0.0.1:{listener.getsockname()[1]}"
        ran = report_hook("--dry-run", VERIFY=verify, **renewal)
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert ran.status == 0
    assert "served" not in ran.out


@pytest.fixture
def two_names_in_two_certificates(certbot_folder: Path) -> Path:
    """Make two lineages of one name, one of another name, and a wildcard; return the folder."""
    renew(certbot_folder, "ecdsa", "www.example.com")
    renew(certbot_folder, "rsa", "www.example.com")
    renew(certbot_folder, "other", "mail.example.org")
    renew(certbot_folder, "wild", "*.example.com")
    return certbot_folder


def test_one_of_two_certificates_of_a_name_is_enough(
    run_report: Program, tmp_path: Path, two_names_in_two_certificates: Path
) -> None:
    with serving_lineages(tmp_path / "nginx", two_names_in_two_certificates, "ecdsa") as nginx:
        address = nginx.address("ecdsa")
        ran = run_report("--all", "--dry-run", VERIFY=f"{address} wild=none")
    assert ran.status == 0
    correct = r'served=1i,seen_at=\d+i,served_expiry=0i,not_served="none"'
    assert len(re.findall(correct, ran.out)) == 2
    # A certificate that does not hold the name is another one.
    assert f'not_served="mail.example.org@{address}"' in ran.out


def test_a_wildcard_certificate_is_as_good_for_its_names(
    run_report: Program, tmp_path: Path, two_names_in_two_certificates: Path
) -> None:
    with serving_lineages(tmp_path / "nginx", two_names_in_two_certificates, "wild") as nginx:
        ran = run_report("--all", "--dry-run", VERIFY=f"{nginx.address('wild')} other=none")
    assert ran.status == 0
    assert ran.out.count('not_served="none"') == 3


@pytest.mark.parametrize(
    ("verify", "names", "endpoints"),
    [
        ("", ["a.example.com"], []),
        (
            "443",
            ["a.example.com", "*.example.com", "b.example.com"],
            [("a.example.com", 443, "a.example.com"), ("b.example.com", 443, "b.example.com")],
        ),
        (
            "443 993",
            ["a.example.com"],
            [("a.example.com", 443, "a.example.com"), ("a.example.com", 993, "a.example.com")],
        ),
        (
            "proxy:443",
            ["a.example.com", "b.example.com"],
            [("proxy", 443, "a.example.com"), ("proxy", 443, "b.example.com")],
        ),
        ("443 name=993", ["a.example.com"], [("a.example.com", 993, "a.example.com")]),
        ("443 name=none", ["a.example.com"], []),
        ("443 other=none", ["a.example.com"], [("a.example.com", 443, "a.example.com")]),
        ("443 name=[::1]:8443", ["a.example.com"], [("::1", 8443, "a.example.com")]),
        ("443", ["*.example.com"], []),
        (
            "name=www.example.com:443",
            ["*.example.com"],
            [("www.example.com", 443, "www.example.com")],
        ),
        ("443", ["2001:db8::1"], [("2001:db8::1", 443, "2001:db8::1")]),
    ],
)
def test_verify_names_the_endpoints_of_a_certificate(
    verify: str, names: list[str], endpoints: list[tuple[str, int, str]]
) -> None:
    certificate = certbot_renewal_report.Certificate("name", names, 0, 0, 0)
    rules = certbot_renewal_run.verify_rules(verify)
    assert certbot_renewal_run.endpoints_of(certificate, rules) == endpoints


def test_a_lineage_in_verify_that_does_not_exist_is_named(
    run_report: Program, certbot_folder: Path
) -> None:
    renew(certbot_folder, "a")
    ran = run_report("--all", "--dry-run", VERIFY="a=none a.example.com=443 b=none")
    assert ran.err == (
        "certbot_renewal_run: VERIFY has rules for a.example.com b, "
        "but this host has no lineage of that name: "
        "correct VERIFY (certbot certificates lists the lineages)\n"
    )


@pytest.mark.parametrize(
    "verify", ["https://example.com", "443,993", "a=b=443", "example.com", ":443", "123456", "none"]
)
def test_a_wrong_verify_is_named(run_report: Program, certbot_folder: Path, verify: str) -> None:
    renew(certbot_folder, "a")
    ran = run_report("--all", "--dry-run", VERIFY=verify)
    assert ran.status == 1
    must_be = "port, host:port, NAME=port, NAME=host:port or NAME=none, separated by spaces"
    assert f"VERIFY is not valid: it must be {must_be}" in ran.err


def test_a_server_that_does_not_speak_tls_does_not_answer(
    run_report: Program, certbot_folder: Path
) -> None:
    renew(certbot_folder, "a", *(f"{number}.example.com" for number in range(60)))
    no_such_port = "127.0.0.1:99999"
    with faulty.serving(faulty.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        plain_text = url.removeprefix("http://")
        verify = f"{no_such_port} {plain_text} 127.0.0.1:{free_port()}"
        ran = run_report("--all", "--dry-run", VERIFY=verify)
    assert ran.status == 1
    assert ran.out.count(",served=0i\n") == 1
    assert "no server answers for a at " in ran.err


@given(st.integers(-631152000, 4102444800), st.integers(1, 400 * DAY))
def test_the_expiry_of_a_certificate_is_read_as_a_library_reads_it(
    not_before: int, lifetime: int
) -> None:
    pem = make_certificate(["a.example.com"], not_before, lifetime)
    expected = int(x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp())
    assert certbot_renewal_run.expiry_of(ssl.PEM_cert_to_DER_cert(pem.decode())) == expected


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x1e\x17\x0d261301000000Z\x17\x0d261399000000Z",  # there is no month 13
        bytes(range(256)),
    ],
)
def test_what_is_no_certificate_has_no_expiry(der: bytes) -> None:
    assert certbot_renewal_run.expiry_of(der) == 0


@pytest.mark.parametrize("alerting", ["influxd-1.12"], indirect=True)
def test_the_alert_fires_until_the_server_is_reloaded(
    alerting: Alerting, tmp_path: Path, certbot_folder: Path
) -> None:
    bucket = Bucket(alerting.start_influxdb())
    load = make_load_folder(
        tmp_path, bucket.influxdb, bucket.name, often=("certificate_not_served",)
    )
    kapacitor = alerting.start_kapacitor(load)
    renew(certbot_folder, "a", days_ago=85)
    with serving_lineages(tmp_path / "nginx", certbot_folder, "a") as nginx:
        renew(certbot_folder, "a", days_ago=2)
        environ = {**bucket.settings, "VERIFY": nginx.address("a")}
        assert start_run_report(certbot_folder, "--all", **environ).returncode == 0
        subject = alerting.inbox.read()
        assert subject.startswith("CRITICAL: a on web1: not served for a.example.com@127.0.0.1:")
        assert ", the served certificate expires 20" in subject
        events = kapacitor.api("GET", "/alerts/topics/certbot_renewal/events").json()["events"]
        levels = [event["state"]["level"] for event in events if "served" in event["id"]]
        assert levels == ["CRITICAL"]  # the old one expires in five days

        nginx.reload()
        next_second()
        assert start_run_report(certbot_folder, "--all", **environ).returncode == 0
        assert alerting.inbox.read() == "OK: a on web1: the renewed certificate is served"
    assert kapacitor.errors() == []
