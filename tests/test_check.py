"""--check of the report hook: what it prints of an installation, and what it says is wrong."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import responses

import certbot_renewal_report as hook
from support.hooks import Ran, start_report_hook
from support.lineages import UNREACHABLE, make_aged_lineage
from support.renewals import MOCKED_URL, Renewal, renew, stored_renewals, storing_influxdb
from support.servers import require_program, skip_or_fail
from tools.servers import faulty
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, REPORT_HOOK
from tools.servers.processes import MissingServer
from tools.servers.prometheus import start_prometheus, start_victoria_metrics
from tools.servers.telegraf import start_telegraf

Hook = Callable[..., Ran]
Server = TypeVar("Server")

VERSIONS = {
    "influxd-1.8": "InfluxDB 1.8.",
    "influxd-1.12": "InfluxDB 1.12.",
    "influxd-2": "InfluxDB v2.",
}


@pytest.fixture
def script(certbot_folder: Path) -> Path:
    """The path of the installed hook."""
    return certbot_folder / "renewal-hooks" / "deploy" / "certbot_renewal_report.py"


def table_of(out: str, title: str) -> list[list[str]]:
    """Return the cells of the rows of a table that --check prints, with its header."""
    lines = out.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(title)) + 1
    rows = []
    for line in lines[begin:]:
        if not line.startswith("  "):
            break
        rows.append(re.split(r" {2,}", line.strip()))
    return rows


def statuses(out: str) -> dict[str, str]:
    """Return the status of each lineage in the table of certificates."""
    header, *rows = table_of(out, "Certificates")
    return {row[0]: row[header.index("status")] for row in rows}


@contextlib.contextmanager
def if_installed(starting: contextlib.AbstractContextManager[Server]) -> Iterator[Server]:
    """Start a server; skip the test if it is missing."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(starting)
        except MissingServer as error:
            skip_or_fail(error)
        yield server


# ---- An installation that is right -------------------------------------------------------------
def test_check_prints_settings_server_and_certificates_and_ends_in_ready(
    influxdb: InfluxDB, report_hook: Hook, certbot_folder: Path, script: Path, renewal: Renewal
) -> None:
    bucket = influxdb.new_bucket()
    renew(certbot_folder, "example.org", ["example.org"], lifetime=45 * DAY)
    environ = influxdb.settings(bucket)
    ran = report_hook("--check", **environ)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"Settings (the others have the defaults of {script}):"
    settings = table_of(ran.out, "Settings")
    assert ["INFLUXDB_BUCKET", bucket, "the environment"] in settings
    assert ["HOSTNAME", "web1", "the environment"] in settings
    assert "MEASUREMENT" not in ran.out
    assert f"Report hook: {script}, version {hook.__version__}, mode 755" in lines
    assert f"Server: {VERSIONS[influxdb.name]}" in ran.out
    assert f", at {influxdb.url}, bucket {bucket}\n" in ran.out
    assert statuses(ran.out) == {"example.com": "OK", "example.org": "OK"}
    assert lines[-2:] == [
        f"2 certificates: reported to {influxdb.url}, bucket {bucket}",
        f"ready: reports arrive at {influxdb.url}, as host web1",
    ]
    assert not environ["INFLUXDB_TOKEN"] or environ["INFLUXDB_TOKEN"] not in ran.out


def test_check_says_that_there_is_no_env_file(
    report_hook: Hook, env_file: Path, renewal: Renewal
) -> None:
    missing = f"Env file: {env_file} does not exist\n"
    assert missing in report_hook("--check", **UNREACHABLE).out
    env_file.write_text("INFLUXDB_TIMEOUT=1\n")
    assert missing not in report_hook("--check", **UNREACHABLE).out


def test_check_writes_the_certificates_and_may_be_repeated(
    influxdb: InfluxDB, report_hook: Hook, certbot_folder: Path, renewal: Renewal
) -> None:
    bucket = influxdb.new_bucket()
    other = renew(certbot_folder, "example.org", ["example.org"], lifetime=45 * DAY)
    (certbot_folder / "live" / "README").write_text("certbot puts one here")
    for _ in range(2):
        ran = report_hook("--check", **influxdb.settings(bucket))
        assert (ran.status, ran.err) == (0, "")
    assert stored_renewals(influxdb, bucket) == renewal.points() | other.points()


def test_the_certificates_are_a_table_whose_times_are_utc(
    report_hook: Hook, certbot_folder: Path
) -> None:
    now = int(time.time())
    renewal = renew(certbot_folder, "example.com", ["example.com", "www.example.com"])
    with storing_influxdb():
        ran = report_hook("--check", INFLUXDB_URL=MOCKED_URL)
    times = [
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(renewal.not_before + days * DAY))
        for days in (0, 60, 90)
    ]
    assert "Certificates (times are UTC):" in ran.out.splitlines()
    assert table_of(ran.out, "Certificates") == [
        ["lineage", "names", "renewed", "due", "expires", "status"],
        ["example.com", "2", *times, "OK"],
    ]
    assert renewal.not_before <= now
    assert ", 2 names, next renewal due " in ran.out


# ---- Certificates that were not renewed --------------------------------------------------------
HOUR = 3600


@pytest.mark.parametrize(
    ("lifetime", "due_after", "age", "status"),
    [
        (90 * DAY, 60 * DAY, 60 * DAY - 1, "OK"),
        (90 * DAY, 60 * DAY, 60 * DAY, "due"),
        (90 * DAY, 60 * DAY, 61 * DAY, "due"),
        (90 * DAY, 60 * DAY, 61 * DAY + 1, "OVERDUE"),
        (90 * DAY, 60 * DAY, 90 * DAY - 1, "OVERDUE"),
        (90 * DAY, 60 * DAY, 90 * DAY, "EXPIRED"),
        # Half of the time between the due date and the expiry is less than a day.
        (24 * HOUR, 12 * HOUR, 18 * HOUR, "due"),
        (24 * HOUR, 12 * HOUR, 18 * HOUR + 1, "OVERDUE"),
    ],
)
def test_a_renewal_is_ok_due_overdue_or_its_certificate_has_expired(
    lifetime: int, due_after: int, age: int, status: str
) -> None:
    begin = 1_790_000_000
    certificate = hook.Certificate("a", ["a"], begin, begin + lifetime, begin + due_after)
    assert hook.renewal_status(certificate, begin + age) == status


@pytest.mark.parametrize(
    ("ages", "verdict"),
    [
        ([1, 60], "ready: reports arrive at {url}, as host web1"),
        ([1, 70], "ready, but 1 certificate is overdue: {remedy}"),
        ([70, 71, 1], "ready, but 2 certificates are overdue: {remedy}"),
        ([1, 91], "ready, but 1 certificate has expired: {remedy}"),
        (
            [70, 91, 92],
            "ready, but 1 certificate is overdue and 2 certificates have expired: {remedy}",
        ),
    ],
)
def test_the_verdict_names_certificates_that_are_overdue_or_have_expired(
    report_hook: Hook, certbot_folder: Path, ages: list[int], verdict: str
) -> None:
    for number, days in enumerate(ages):
        make_aged_lineage(certbot_folder, f"c{number}", days)
    with storing_influxdb():
        ran = report_hook("--check", INFLUXDB_URL=MOCKED_URL)
    assert (ran.status, ran.err) == (0, "")  # the installation works
    remedy = "find the reason with certbot renew --dry-run"
    assert ran.out.splitlines()[-1] == verdict.format(url=MOCKED_URL, remedy=remedy)


# ---- An installation that is wrong -------------------------------------------------------------
def test_check_names_everything_that_is_wrong_and_reports_what_it_can(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    certbot_folder: Path,
    script: Path,
    renewal: Renewal,
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    script.chmod(0o644)
    env_file = certbot_folder / "certbot_renewal_report.env"
    env_file.write_text("INFLUXDB_TOKEN=fake-token\n")
    env_file.chmod(0o644)
    broken = renew(certbot_folder, "broken", ["example.net"], lifetime=DAY)
    (broken.live_folder / "cert.pem").unlink()

    environ = {**influxdb.settings(bucket), "INFLUXDB_TOKEN": "fake-unused"}
    ran = report_hook("--check", **environ)
    assert ran.status == 1
    assert ran.err.startswith("certbot_renewal_report: not ready: ")
    assert f"{script} is not executable, so certbot ignores it: chmod 755 {script}" in ran.err
    open_file = f"{env_file} holds the token, but every user can read it: chmod o= {env_file}"
    assert open_file in ran.err
    assert "live/broken/cert.pem to be a symlink: restore the links" in ran.err
    assert "ready: " not in ran.out
    assert "fake-token" not in ran.out + ran.err
    assert stored_renewals(influxdb, bucket) == renewal.points()


@pytest.mark.parametrize("host", ["3f2b8c9d0e1a", "3f2b8c9d0e1a" * 5 + "abcd"])
@pytest.mark.parametrize("program", ["report_hook", "run_report"])
def test_check_sends_nothing_under_the_id_of_a_container(
    server: Callable[[str], InfluxDB],
    request: pytest.FixtureRequest,
    certbot_folder: Path,
    renewal: Renewal,
    program: str,
    host: str,
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    ran = request.getfixturevalue(program)("--check", HOSTNAME=host, **influxdb.settings(bucket))
    assert ran.status == 1
    env_file = certbot_folder / "certbot_renewal_report.env"
    assert ran.err.endswith(
        f": not ready: the host tag {host} is a container's id, which changes: "
        f"set HOSTNAME in {env_file}\n"
    )
    assert statuses(ran.out) == {"example.com": "OK"}
    assert "reported to" not in ran.out
    assert influxdb.points(bucket) == set()


def test_check_of_a_server_that_is_not_there(report_hook: Hook, renewal: Renewal) -> None:
    ran = report_hook("--check", **UNREACHABLE)
    assert ran.status == 1
    assert (
        "Server: no answer: Connection refused, at http://127.0.0.1:1, bucket telegraf\n" in ran.out
    )
    assert "not ready: cannot reach http://127.0.0.1:1: Connection refused" in ran.err


def test_check_ends_though_the_server_never_finishes_its_answer(
    certbot_folder: Path, renewal: Renewal
) -> None:
    with faulty.EVERY["dripping headers"]() as url:
        environ = {"INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": "0.6"}
        done = start_report_hook(certbot_folder, "--check", **environ)
    assert done.returncode == 1
    assert "Server: no answer, at " in done.stdout
    assert "not ready: no answer from" in done.stderr


def test_check_of_a_server_whose_answers_drip(report_hook: Hook, renewal: Renewal) -> None:
    with faulty.EVERY["dripping headers"]() as url:
        ran = report_hook("--check", INFLUXDB_URL=url, INFLUXDB_TIMEOUT="0.6")
    assert "Server: no answer, at " in ran.out
    assert re.search(
        r"no answer from .* \((1 try|\d+ tries); INFLUXDB_TIMEOUT is 0\.6 s\)", ran.err
    )


def test_check_of_a_server_that_is_something_else(report_hook: Hook, renewal: Renewal) -> None:
    with faulty.serving(
        faulty.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    ) as url:
        ran = report_hook("--check", INFLUXDB_URL=url)
    assert "Server: unknown, at " in ran.out


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("1.0", "Telegraf listener 1.0"),
        ("Telegraf-1.39.3", "Telegraf-1.39.3"),
        ("1.8.10", "InfluxDB 1.8.10"),
        ("v2.9.1", "InfluxDB v2.9.1"),
    ],
)
def test_a_server_is_known_by_the_version_in_its_answer(version: str, kind: str) -> None:
    assert hook.influxdb_kind(version) == kind


def test_check_before_there_is_a_certificate(report_hook: Hook, certbot_folder: Path) -> None:
    for name in ("live", "renewal"):
        (certbot_folder / name).mkdir()
    remedy = "get a certificate with certbot, or name certbot's"
    ran = report_hook("--check")
    assert f"{certbot_folder}/live: no certificates: {remedy}" in ran.err


def test_check_of_a_hook_that_certbot_would_not_start(
    certbot_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("live", "renewal"):
        (certbot_folder / name).mkdir()
    copy = tmp_path / "certbot_renewal_report.py"
    copy.write_bytes(REPORT_HOOK.read_bytes())
    arguments = ["--check", "--config-dir", str(certbot_folder)]
    assert hook.main(arguments, {"HOSTNAME": "web1"}, str(copy)) == 1
    deploy = certbot_folder / "renewal-hooks" / "deploy"
    problem = f"{copy} is not in {deploy}, where certbot would run it: copy it there"
    assert problem in capfd.readouterr().err


# ---- Other servers -----------------------------------------------------------------------------
@pytest.mark.parametrize("version", [1, 2])
def test_check_recognizes_telegraf(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewal: Renewal,
    version: int,
    tmp_path: Path,
) -> None:
    require_program("telegraf")
    influxdb = server("influxd-1.8")
    bucket = influxdb.new_bucket()
    with start_telegraf(version, influxdb, bucket, tmp_path) as url:
        environ = {"INFLUXDB_URL": url, "INFLUXDB_BUCKET": bucket}
        ran = report_hook("--check", **environ, INFLUXDB_VERSION=str(version))
    assert (ran.status, ran.err) == (0, "")
    assert "Server: Telegraf" in ran.out


KEEPS_LONG_ENOUGH = ""
KEEPS = (
    ", retention {} days: an alert resolves when its last report is deleted, "
    "so start VictoriaMetrics with -retentionPeriod=400d"
)


@pytest.mark.parametrize(
    ("retention", "remark"),
    [
        ("100y", KEEPS_LONG_ENOUGH),
        ("400d", KEEPS_LONG_ENOUGH),
        ("13", KEEPS_LONG_ENOUGH),  # months
        ("1", KEEPS.format(31)),
        ("12w", KEEPS.format(84)),
    ],
)
def test_check_recognizes_victoriametrics_and_how_long_it_keeps_points(
    report_hook: Hook, renewal: Renewal, tmp_path: Path, retention: str, remark: str
) -> None:
    flag = f"-retentionPeriod={retention}"
    with if_installed(start_victoria_metrics(tmp_path, None, flag)) as victoria:
        ran = report_hook("--check", **victoria.settings())
        victoria.flush()
        stored = victoria.query("certbot_renewal_renewal_due[1h]")
    assert (ran.status, ran.err) == (0, "")
    expected = rf"Server: VictoriaMetrics( v[\d.]+)?{remark}, at {victoria.url}"
    assert re.search(rf"^{expected}$", ran.out, re.MULTILINE)
    assert "bucket" not in ran.out  # it has none
    assert re.search(rf"(?m): reported to {victoria.url}$", ran.out)
    assert [series["metric"]["host"] for series in stored] == ["web1"]


def test_check_says_of_prometheus_what_takes_line_protocol_for_it(
    report_hook: Hook, renewal: Renewal, tmp_path: Path
) -> None:
    with if_installed(start_prometheus(tmp_path)) as prometheus:
        ran = report_hook("--check", INFLUXDB_URL=prometheus.url)
    assert ran.status == 1
    assert re.search(rf"(?m)^Server: Prometheus \d+\..*, at {prometheus.url}$", ran.out)
    assert ran.err == (
        "certbot_renewal_report: not ready: Prometheus does not accept line protocol: "
        "set INFLUXDB_URL to vmagent or to a Telegraf listener that forwards to Prometheus\n"
    )


@pytest.mark.parametrize(
    ("version", "path", "scheme"),
    [
        ("2", "/api/v2/write?bucket=certbot&org=&precision=s", "Token"),
        ("3", "/api/v3/write_lp?db=certbot&precision=second", "Bearer"),
    ],
)
def test_check_recognizes_influxdb_3(
    report_hook: Hook, renewal: Renewal, version: str, path: str, scheme: str
) -> None:
    """As its manual says, https://docs.influxdata.com/influxdb3/core/api/: none is built here."""
    url = "http://127.0.0.1:8086"
    headers = {"X-Influxdb-Version": "3.9.0", "X-Influxdb-Build": "Core"}
    environ = {
        "INFLUXDB_VERSION": version,
        "INFLUXDB_TOKEN": "apiv3_fake",
        "INFLUXDB_BUCKET": "certbot",
    }
    with responses.RequestsMock() as mock:
        mock.add(responses.GET, f"{url}/ping", json={"version": "3.9.0"}, headers=headers)
        mock.add(responses.POST, url + path.partition("?")[0], status=204)
        ran = report_hook("--check", **environ)
        request = mock.calls[1].request
    assert (ran.status, ran.err) == (0, "")
    assert "Server: InfluxDB 3.9.0, which has no Flux: " in ran.out
    assert request.path_url == path
    assert f"{scheme} apiv3_fake" in str(request.headers["Authorization"])
