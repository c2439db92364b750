"""--check of the report hook: what it prints of an installation, and what it says is wrong."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import responses

import certbot_renewal_report as hook
from support.hooks import Ran, start_report_hook
from support.lineages import UNREACHABLE
from support.renewals import Renewal, renew, stored_renewals
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


def row(label: str, text: str) -> str:
    """Return a row of --check, or its beginning."""
    return f"{label:20} {text}"


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
    assert row("INFLUXDB_BUCKET", f"{bucket:24} from the environment") in ran.out
    assert row("MEASUREMENT", f"{'certbot_renewal':24} from {script}") in ran.out
    assert row("this file", f"{script}, mode 755") in ran.out
    assert row("server", VERSIONS[influxdb.name]) in ran.out
    assert row("certificate", "example.com renewed ") in ran.out
    assert row("certificate", "example.org renewed ") in ran.out
    assert "2 certificates: reported into" in ran.out
    ready = f"ready: renewals will be reported into {bucket} at {influxdb.url}, as host web1"
    assert ran.out.splitlines()[-1] == ready
    assert not environ["INFLUXDB_TOKEN"] or environ["INFLUXDB_TOKEN"] not in ran.out


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
    host = "3f2b8c9d0e1a"
    env_file = certbot_folder / "certbot_renewal_report.env"
    env_file.write_text(f"INFLUXDB_TOKEN=fake-token\nHOSTNAME={host}\n")
    env_file.chmod(0o644)
    broken = renew(certbot_folder, "broken", ["example.net"], lifetime=DAY)
    (broken.live_folder / "cert.pem").unlink()

    environ = {**influxdb.settings(bucket), "INFLUXDB_TOKEN": "fake-unused"}
    ran = report_hook("--check", **environ)
    assert ran.status == 1
    assert ran.err.startswith("certbot_renewal_report: not ready: ")
    assert f"{script} is not executable, so certbot ignores it: chmod 755 {script}" in ran.err
    container_id = f"the host tag {host} is a container's id, which changes"
    assert f"{container_id}: set HOSTNAME in {env_file}" in ran.err
    open_file = f"{env_file} holds the token and everybody may read it: chmod o= {env_file}"
    assert open_file in ran.err
    assert "live/broken/cert.pem: No such file or directory" in ran.err
    assert "ready: " not in ran.out
    assert "fake-token" not in ran.out + ran.err
    assert stored_renewals(influxdb, bucket) == renewal.points(host)


def test_check_of_a_server_that_is_not_there(report_hook: Hook, renewal: Renewal) -> None:
    ran = report_hook("--check", **UNREACHABLE)
    assert ran.status == 1
    assert row("server", "none: Connection refused") in ran.out
    assert "not ready: cannot reach http://127.0.0.1:1: Connection refused" in ran.err


def test_check_ends_though_the_server_never_finishes_its_answer(
    certbot_folder: Path, renewal: Renewal
) -> None:
    with faulty.EVERY["dripping headers"]() as url:
        environ = {"INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": "0.6"}
        done = start_report_hook(certbot_folder, "--check", **environ)
    assert done.returncode == 1
    assert row("server", "none: no answer\n") in done.stdout
    assert "not ready: no answer from" in done.stderr


def test_check_of_a_server_whose_answers_drip(report_hook: Hook, renewal: Renewal) -> None:
    with faulty.EVERY["dripping headers"]() as url:
        ran = report_hook("--check", INFLUXDB_URL=url, INFLUXDB_TIMEOUT="0.6")
    assert row("server", "none: no answer\n") in ran.out
    assert re.search(
        r"no answer from .* \(tried [1-9]\d* times; INFLUXDB_TIMEOUT is 0\.6 s\)", ran.err
    )


def test_check_of_a_server_that_is_something_else(report_hook: Hook, renewal: Renewal) -> None:
    with faulty.serving(
        faulty.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    ) as url:
        ran = report_hook("--check", INFLUXDB_URL=url)
    assert row("server", "InfluxDB unknown\n") in ran.out


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


def test_check_without_run_reports_says_so(report_hook: Hook, renewal: Renewal) -> None:
    ran = report_hook("--check", **UNREACHABLE)
    assert row("run reports", "none yet, started by ") in ran.out


def test_check_before_there_is_a_certificate(report_hook: Hook, certbot_folder: Path) -> None:
    for name in ("live", "renewal"):
        (certbot_folder / name).mkdir()
    remedy = "get one with certbot, or name its folder"
    ran = report_hook("--check")
    assert f"{certbot_folder}/live: no certificate: {remedy}" in ran.err


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
    assert row("server", "Telegraf ") in ran.out


KEEPS_LONG_ENOUGH = ""
KEEPS = (
    ", which keeps points for {} days: an alert ends with them, start it with -retentionPeriod=400d"
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
    expected = row("server", rf"VictoriaMetrics( v[\d.]+)?{remark}")
    assert re.search(rf"^{expected}$", ran.out, re.MULTILINE)
    assert [series["metric"]["host"] for series in stored] == ["web1"]


def test_check_says_of_prometheus_what_takes_line_protocol_for_it(
    report_hook: Hook, renewal: Renewal, tmp_path: Path
) -> None:
    with if_installed(start_prometheus(tmp_path)) as prometheus:
        ran = report_hook("--check", INFLUXDB_URL=prometheus.url)
    assert ran.status == 1
    assert re.search("^" + row("server", r"Prometheus \d+\."), ran.out, re.MULTILINE)
    assert ran.err == (
        "certbot_renewal_report: not ready: Prometheus takes no line protocol: "
        "set INFLUXDB_URL to vmagent or a Telegraf listener, which pass points on to it\n"
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
    assert row("server", "InfluxDB 3.9.0, which has no Flux: ") in ran.out
    assert request.path_url == path
    assert f"{scheme} apiv3_fake" in str(request.headers["Authorization"])
