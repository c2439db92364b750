"""The whole way: a real certbot renews a certificate of a real CA, its deploy hook reports, the points are read back."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.hooks import RUN_REPORT, next_second
from support.points import renewals_of, state_of
from support.servers import require_program, skip_or_fail
from tools.servers.certbot import Authority, Certbot, start_pebble
from tools.servers.influxdb import InfluxDB
from tools.servers.processes import MissingServer, wait_for
from tools.servers.telegraf import start_telegraf

LIFE = 8  # seconds: certbot renews after half of it


@pytest.fixture(scope="module")
def hasty_authority(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Authority]:
    """A CA whose certificates live for seconds."""
    with start_pebble(tmp_path_factory.mktemp("hasty"), LIFE) as running:
        yield running


def assert_clean(certbot: Certbot, said: str) -> None:
    """certbot has nothing to complain about, on the screen or in its log."""
    assert "Hook 'deploy-hook' ran with output:" in said
    for text in (said, certbot.log.read_text()):
        assert (
            "error output" not in text
            and "reported error code" not in text
            and "Traceback" not in text
        )


def one_life(certbot: Certbot, lineage: str) -> tuple[int, int]:
    """Issues a certificate and lets certbot renew it when certbot finds it due; returns both notBefore."""
    issued = certbot.issue(lineage, lineage, f"www.{lineage}")
    assert issued.returncode == 0, issued.stdout
    assert_clean(certbot, issued.stdout)  # 5.3 and newer run deploy hooks at first issuance too
    first = certbot.not_before(lineage)
    wait_for(lambda: time.time() > first + LIFE / 2, "the certificate to be due")
    renewed = certbot.renew()
    assert renewed.returncode == 0, renewed.stdout
    assert_clean(certbot, renewed.stdout)
    return first, certbot.not_before(lineage)


def assert_reported(points: set[tuple[str, ...]], lineage: str, *moments: int) -> None:
    """Every renewal is there once, at its notBefore, with every name, and the state is that of the last."""
    assert renewals_of(points, lineage) == set(moments)
    for name in (lineage, f"www.{lineage}"):
        assert {int(p[0]) for p in points if f"domain={name}" in p} == set(moments)
    newest = max(int(p[0]) for p in points if p[1] == "renewal_due")
    state = {p[1]: int(p[2]) for p in points if int(p[0]) == newest and p[1] != "renewed_count"}
    end = moments[-1] + LIFE - 1  # a certificate's last second counts
    assert state == {
        "not_before": moments[-1],
        "renewal_due": end - (LIFE - 1) // 2,
        "not_after": end,
        "run_at": 0,
    }


def test_a_renewal_when_it_is_due(
    influxdb: InfluxDB, hasty_authority: Authority, tmp_path: Path
) -> None:
    certbot, bucket = Certbot(tmp_path / "letsencrypt", hasty_authority), influxdb.new_bucket()
    certbot.settings({**influxdb.settings(bucket), "HOSTNAME": "web1"})
    first, second = one_life(certbot, "example.com")
    assert second >= first + LIFE / 2
    assert_reported(influxdb.points(bucket), "example.com", first, second)


@pytest.mark.parametrize("version", [1, 2])
def test_a_renewal_through_telegraf(
    server: Callable[[str], InfluxDB], hasty_authority: Authority, tmp_path: Path, version: int
) -> None:
    require_program("telegraf")
    influxdb = server("influxd-2")
    certbot, bucket = Certbot(tmp_path / "letsencrypt", hasty_authority), influxdb.new_bucket()
    with start_telegraf(version, influxdb, bucket, tmp_path / "telegraf") as url:
        certbot.settings(
            {
                "INFLUXDB_URL": url,
                "INFLUXDB_VERSION": str(version),
                "INFLUXDB_BUCKET": bucket,
                "HOSTNAME": "web1",
            }
        )
        moments = one_life(certbot, "example.com")
        wait_for(
            lambda: renewals_of(influxdb.points(bucket), "example.com") >= set(moments),
            "the points behind Telegraf",
        )
    assert_reported(influxdb.points(bucket), "example.com", *moments)


def test_a_dry_run_of_certbot_reports_no_renewal(
    influxdb: InfluxDB, authority: Authority, tmp_path: Path
) -> None:
    certbot, bucket = Certbot(tmp_path / "letsencrypt", authority), influxdb.new_bucket()
    certbot.settings({**influxdb.settings(bucket), "HOSTNAME": "web1"})
    certbot.issue("example.com", "example.com")
    moment = certbot.not_before("example.com")
    rehearsed = certbot.renew("--dry-run", "--run-deploy-hooks")
    assert rehearsed.returncode == 0, rehearsed.stdout
    assert_clean(certbot, rehearsed.stdout)
    assert "reported into" in rehearsed.stdout  # it did run
    points = {p for p in influxdb.points(bucket) if p[1] == "renewed_count"}
    assert points == {
        (str(moment), "renewed_count", "1", "domain=all", "host=web1", "lineage=example.com"),
        (str(moment), "renewed_count", "1", "domain=example.com", "host=web1"),
    }


def test_two_lineages_a_wildcard_and_a_hundred_names(
    server: Callable[[str], InfluxDB], authority: Authority, tmp_path: Path
) -> None:
    influxdb = server("influxd-2")
    certbot, bucket = Certbot(tmp_path / "letsencrypt", authority), influxdb.new_bucket()
    certbot.settings({**influxdb.settings(bucket), "HOSTNAME": "web1"})
    hundred, wild = (
        [f"{i}.example.net" for i in range(100)],
        ["example.com", "*.example.com", "xn--bcher-kva.example"],
    )
    certbot.issue("hundred", *hundred)
    certbot.issue("example.com", *wild)
    forced = certbot.renew("--force-renewal")
    assert forced.returncode == 0, forced.stdout
    assert_clean(certbot, forced.stdout)
    points = influxdb.points(bucket)
    for lineage, names in (("hundred", hundred), ("example.com", wild)):
        moment = str(certbot.not_before(lineage))
        assert (
            moment,
            "renewed_count",
            str(len(names)),
            "domain=all",
            "host=web1",
            f"lineage={lineage}",
        ) in points
        for name in names:
            assert (moment, "renewed_count", "1", f"domain={name}", "host=web1") in points
    assert len({p[3:] for p in points}) == 2 + 103


def test_a_report_that_fails_is_seen_and_certbot_goes_on(
    authority: Authority, tmp_path: Path
) -> None:
    certbot = Certbot(tmp_path / "letsencrypt", authority)
    certbot.settings(
        {"INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TIMEOUT": "0.5", "HOSTNAME": "web1"}
    )
    issued = certbot.issue("example.com", "example.com")
    assert issued.returncode == 0
    line = "certbot_renewal_report: cannot reach http://127.0.0.1:1: Connection refused: does it run, and is INFLUXDB_URL its address?"
    for text in (issued.stdout, certbot.log.read_text()):
        assert "Hook 'deploy-hook' reported error code 1" in text
        assert line in text


def test_the_certbot_of_the_distribution(
    server: Callable[[str], InfluxDB], authority: Authority, tmp_path: Path
) -> None:
    programs = [Path(folder, "certbot") for folder in ("/usr/bin", "/snap/bin")]
    program = next((str(path) for path in programs if path.exists()), None)
    if program is None:
        skip_or_fail(
            MissingServer("the distribution's certbot is missing: apt-get install certbot")
        )
    version = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=60
    ).stdout
    major, minor = (int(number) for number in re.findall(r"\d+", version)[:2])
    influxdb = server("influxd-1.8")
    certbot, bucket = Certbot(tmp_path / "letsencrypt", authority, program), influxdb.new_bucket()
    certbot.settings({**influxdb.settings(bucket), "HOSTNAME": "web1"})
    issued = certbot.issue("example.com", "example.com", "www.example.com")
    assert issued.returncode == 0, issued.stdout
    first = certbot.not_before("example.com")
    assert renewals_of(influxdb.points(bucket), "example.com") == (
        {first} if (major, minor) >= (5, 3) else set()
    )
    assert certbot.shell(RUN_REPORT).returncode == 0
    assert renewals_of(influxdb.points(bucket), "example.com") == {first}
    wait_for(lambda: time.time() > first + 1, "another second")
    renewed = certbot.renew("--force-renewal")
    assert renewed.returncode == 0, renewed.stdout
    assert_clean(certbot, renewed.stdout)
    assert certbot.not_before("example.com") in renewals_of(influxdb.points(bucket), "example.com")


def test_a_renewal_past_the_hooks_is_known_after_the_next_run_report(
    influxdb: InfluxDB, authority: Authority, tmp_path: Path
) -> None:
    certbot, bucket = Certbot(tmp_path / "letsencrypt", authority), influxdb.new_bucket()
    certbot.settings({**influxdb.settings(bucket), "HOSTNAME": "web1"})
    certbot.issue("example.com", "example.com")
    assert certbot.shell(RUN_REPORT).returncode == 0
    first = certbot.not_before("example.com")
    wait_for(lambda: time.time() > first + 1, "another second")
    renewed = certbot.renew("--force-renewal", "--no-directory-hooks")
    assert (renewed.returncode, "reported into" in renewed.stdout) == (0, False)
    second = certbot.not_before("example.com")
    assert renewals_of(influxdb.points(bucket), "example.com") == {first}
    assert certbot.shell(RUN_REPORT).returncode == 0
    assert renewals_of(influxdb.points(bucket), "example.com") == {first, second}


def test_a_host_restored_from_a_backup_is_told_as_it_is(
    influxdb: InfluxDB, authority: Authority, tmp_path: Path
) -> None:
    certbot, bucket, backup = (
        Certbot(tmp_path / "letsencrypt", authority),
        influxdb.new_bucket(),
        tmp_path / "backup",
    )
    certbot.settings({**influxdb.settings(bucket), "HOSTNAME": "web1"})
    certbot.issue("example.com", "example.com")
    assert certbot.shell(RUN_REPORT).returncode == 0
    first = certbot.not_before("example.com")
    shutil.copytree(certbot.folder, backup, symlinks=True)
    wait_for(lambda: time.time() > first + 1, "another second")
    assert certbot.renew("--force-renewal").returncode == 0
    certbot.issue("new.example.com", "new.example.com")
    assert certbot.shell(RUN_REPORT).returncode == 0
    assert (
        state_of(influxdb.points(bucket), "example.com")["not_before"]
        == certbot.not_before("example.com")
        > first
    )
    shutil.rmtree(certbot.folder)
    backup.rename(certbot.folder)
    next_second()
    assert certbot.shell(RUN_REPORT).returncode == 0
    points = influxdb.points(bucket)
    assert state_of(points, "example.com")["not_before"] == first
    assert (
        state_of(points, "new.example.com")["renewal_due"] > 0
    )  # nobody knows what became of it: that is for host_silent to say
