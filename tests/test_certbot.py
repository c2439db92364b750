"""The whole way: the real certbot renews a certificate of a real CA, and its hook reports that."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.buckets import Bucket
from support.hooks import RUN_REPORT, next_second
from support.points import Points, renewals_of
from support.servers import require_program, skip_or_fail
from tools.servers.certbot import Authority, Certbot, start_pebble
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import install_run_report
from tools.servers.processes import MissingServer, wait_for
from tools.servers.telegraf import start_telegraf

STATE_TIMES = ("not_before", "renewal_due", "not_after", "run_at")
LIFETIME = 8  # seconds: certbot renews after half of it


class Renewals(NamedTuple):
    """The notBefore of a certificate and of its successor, in Unix seconds."""

    first: int
    second: int


@pytest.fixture(scope="module")
def hasty_authority(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Authority]:
    """A CA whose certificates live for seconds."""
    with start_pebble(tmp_path_factory.mktemp("hasty"), LIFETIME) as running:
        yield running


def make_certbot(folder: Path, authority: Authority, settings: dict[str, str]) -> Certbot:
    """Return a certbot with the deploy hook and its settings."""
    certbot = Certbot(folder / "letsencrypt", authority)
    certbot.settings({**settings, "HOSTNAME": "web1"})
    return certbot


def assert_hook_succeeded(certbot: Certbot, output: str) -> None:
    """Assert that the hook ran, and that certbot has nothing to report, on screen or in its log."""
    assert "Hook 'deploy-hook' ran with output:" in output
    for text in (output, certbot.log.read_text()):
        assert "error output" not in text
        assert "reported error code" not in text
        assert "Traceback" not in text


def issue_and_renew(certbot: Certbot, lineage: str) -> Renewals:
    """Let certbot issue a certificate, and renew it as soon as certbot finds it due."""
    issued = certbot.issue(lineage, lineage, f"www.{lineage}")
    assert issued.returncode == 0, issued.stdout
    assert_hook_succeeded(certbot, issued.stdout)  # from 5.3 on, also at the first issuance
    first = certbot.not_before(lineage)
    wait_for(lambda: time.time() > first + LIFETIME / 2, "the certificate to be due")
    renewed = certbot.renew()
    assert renewed.returncode == 0, renewed.stdout
    assert_hook_succeeded(certbot, renewed.stdout)
    return Renewals(first, certbot.not_before(lineage))


def assert_reported(points: Points, lineage: str, renewals: Renewals) -> None:
    """Assert that each renewal and name is there once, and the state of the last certificate."""
    assert renewals_of(points, lineage) == set(renewals)
    for name in (lineage, f"www.{lineage}"):
        assert {int(point[0]) for point in points if f"domain={name}" in point} == set(renewals)

    newest = max(int(point[0]) for point in points if point[1] == "renewal_due")
    state = {}
    for point in points:
        if int(point[0]) == newest and point[1] in STATE_TIMES:
            state[point[1]] = int(point[2])
    not_after = renewals.second + LIFETIME - 1  # the last second counts
    assert state == {
        "not_before": renewals.second,
        "renewal_due": not_after - (LIFETIME - 1) // 2,
        "not_after": not_after,
        "run_at": 0,
    }


def force_renewal(certbot: Certbot, lineage: str, *arguments: str) -> str:
    """Let certbot renew in another second than before; return what it prints."""
    not_before = certbot.not_before(lineage)
    wait_for(lambda: time.time() > not_before + 1, "another second")
    renewed = certbot.renew("--force-renewal", *arguments)
    assert renewed.returncode == 0, renewed.stdout
    return renewed.stdout


def test_a_renewal_when_it_is_due(
    bucket: Bucket, hasty_authority: Authority, tmp_path: Path
) -> None:
    certbot = make_certbot(tmp_path, hasty_authority, bucket.settings)
    renewals = issue_and_renew(certbot, "example.com")
    assert renewals.second >= renewals.first + LIFETIME / 2
    assert_reported(bucket.points(), "example.com", renewals)


@pytest.mark.parametrize("version", [1, 2])
def test_a_renewal_through_telegraf(
    server: Callable[[str], InfluxDB], hasty_authority: Authority, tmp_path: Path, version: int
) -> None:
    require_program("telegraf")
    bucket = Bucket(server("influxd-2"))
    with start_telegraf(version, bucket.influxdb, bucket.name, tmp_path / "telegraf") as url:
        settings = {
            "INFLUXDB_URL": url,
            "INFLUXDB_VERSION": str(version),
            "INFLUXDB_BUCKET": bucket.name,
        }
        certbot = make_certbot(tmp_path, hasty_authority, settings)
        renewals = issue_and_renew(certbot, "example.com")
        wait_for(
            lambda: bucket.renewals_of("example.com") >= set(renewals),
            "the points behind Telegraf",
        )
    assert_reported(bucket.points(), "example.com", renewals)


def test_a_dry_run_of_certbot_reports_no_renewal(
    bucket: Bucket, authority: Authority, tmp_path: Path
) -> None:
    certbot = make_certbot(tmp_path, authority, bucket.settings)
    certbot.issue("example.com", "example.com")
    moment = str(certbot.not_before("example.com"))
    dry_run = certbot.renew("--dry-run", "--run-deploy-hooks")
    assert dry_run.returncode == 0, dry_run.stdout
    assert_hook_succeeded(certbot, dry_run.stdout)
    assert "reported to" in dry_run.stdout
    assert {point for point in bucket.points() if point[1] == "renewed_count"} == {
        (moment, "renewed_count", "1", "domain=all", "host=web1", "lineage=example.com"),
        (moment, "renewed_count", "1", "domain=example.com", "host=web1"),
    }


def test_two_lineages_a_wildcard_and_a_hundred_names(
    server: Callable[[str], InfluxDB], authority: Authority, tmp_path: Path
) -> None:
    bucket = Bucket(server("influxd-2"))
    certbot = make_certbot(tmp_path, authority, bucket.settings)
    names_of = {
        "hundred": [f"{number}.example.net" for number in range(100)],
        "example.com": ["example.com", "*.example.com", "xn--bcher-kva.example"],
    }
    for lineage, names in names_of.items():
        certbot.issue(lineage, *names)
    forced = certbot.renew("--force-renewal")
    assert forced.returncode == 0, forced.stdout
    assert_hook_succeeded(certbot, forced.stdout)

    points = bucket.points()
    for lineage, names in names_of.items():
        moment = str(certbot.not_before(lineage))
        count = str(len(names))
        tags = ("domain=all", "host=web1", f"lineage={lineage}")
        assert (moment, "renewed_count", count, *tags) in points
        for name in names:
            assert (moment, "renewed_count", "1", f"domain={name}", "host=web1") in points
    assert len({point[3:] for point in points}) == 2 + 103  # series


def test_certbot_shows_and_logs_a_report_that_fails_and_goes_on(
    authority: Authority, tmp_path: Path
) -> None:
    away = {"INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TIMEOUT": "0.5"}
    certbot = make_certbot(tmp_path, authority, away)
    issued = certbot.issue("example.com", "example.com")
    assert issued.returncode == 0
    reason = (
        "certbot_renewal_report: cannot reach http://127.0.0.1:1: Connection refused: "
        "check that the server is running and that INFLUXDB_URL is correct"
    )
    for text in (issued.stdout, certbot.log.read_text()):
        assert "Hook 'deploy-hook' reported error code 1" in text
        assert reason in text


@pytest.fixture
def distribution_certbot(authority: Authority, tmp_path: Path) -> Certbot:
    """The distribution's certbot."""
    programs = [path for path in ("/usr/bin/certbot", "/snap/bin/certbot") if Path(path).exists()]
    if not programs:
        missing = "the distribution's certbot is missing: apt-get install certbot"
        skip_or_fail(MissingServer(missing))
    return Certbot(tmp_path / "letsencrypt", authority, programs[0])


def has_hooks_at_first_issuance(certbot: Certbot) -> bool:
    """Return whether this certbot runs deploy hooks also for the first certificate (from 5.3)."""
    command = [certbot.program, "--version"]
    version = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    major, minor = re.findall(r"\d+", version)[:2]
    return (int(major), int(minor)) >= (5, 3)


def test_the_certbot_of_the_distribution(
    server: Callable[[str], InfluxDB], distribution_certbot: Certbot
) -> None:
    certbot = distribution_certbot
    bucket = Bucket(server("influxd-1.8"))
    certbot.settings({**bucket.settings, "HOSTNAME": "web1"})
    issued = certbot.issue("example.com", "example.com", "www.example.com")
    assert issued.returncode == 0, issued.stdout
    first = certbot.not_before("example.com")
    reported_at_once = {first} if has_hooks_at_first_issuance(certbot) else set()
    assert bucket.renewals_of("example.com") == reported_at_once

    install_run_report(certbot.folder)
    assert certbot.shell(RUN_REPORT).returncode == 0
    assert bucket.renewals_of("example.com") == {first}
    output = force_renewal(certbot, "example.com")
    assert_hook_succeeded(certbot, output)
    assert certbot.not_before("example.com") in bucket.renewals_of("example.com")


def test_a_renewal_without_hooks_is_reported_by_the_next_run_report(
    bucket: Bucket, authority: Authority, tmp_path: Path
) -> None:
    certbot = make_certbot(tmp_path, authority, bucket.settings)
    install_run_report(certbot.folder)
    certbot.issue("example.com", "example.com")
    assert certbot.shell(RUN_REPORT).returncode == 0
    first = certbot.not_before("example.com")
    output = force_renewal(certbot, "example.com", "--no-directory-hooks")
    assert "reported to" not in output
    assert bucket.renewals_of("example.com") == {first}

    second = certbot.not_before("example.com")
    assert certbot.shell(RUN_REPORT).returncode == 0
    assert bucket.renewals_of("example.com") == {first, second}


def test_a_host_restored_from_a_backup_is_reported_as_it_is(
    bucket: Bucket, authority: Authority, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    certbot = make_certbot(tmp_path, authority, bucket.settings)
    install_run_report(certbot.folder)
    certbot.issue("example.com", "example.com")
    assert certbot.shell(RUN_REPORT).returncode == 0
    first = certbot.not_before("example.com")
    shutil.copytree(certbot.folder, backup, symlinks=True)
    force_renewal(certbot, "example.com")
    certbot.issue("new.example.com", "new.example.com")
    assert certbot.shell(RUN_REPORT).returncode == 0
    second = certbot.not_before("example.com")
    assert second > first
    assert bucket.state_of("example.com")["not_before"] == second

    shutil.rmtree(certbot.folder)
    backup.rename(certbot.folder)
    next_second()
    assert certbot.shell(RUN_REPORT).returncode == 0
    assert bucket.state_of("example.com")["not_before"] == first
    # Nobody knows what became of it: the alert about silent hosts says that.
    assert bucket.state_of("new.example.com")["renewal_due"] > 0
