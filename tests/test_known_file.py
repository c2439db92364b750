"""What run reports remember: retired certificates, and renewals that were not reported."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import certbot_renewal_report
from support.buckets import Bucket
from support.hooks import Ran, known, next_second, set_clock
from support.lineages import (
    UNREACHABLE,
    make_aged_lineage,
    remove_files,
    remove_lineage,
)
from tools.servers.lineages import DAY, make_lineage

Program = Callable[..., Ran]
HOURS_160 = 160 * 3600  # seconds, the lifetime of Let's Encrypt's shortest certificates


@pytest.fixture
def begin() -> int:
    """The time at which the test began, in Unix seconds."""
    return int(time.time())


@pytest.fixture
def two_reported(run_report: Program, certbot_folder: Path, bucket: Bucket) -> None:
    """Make two lineages, `old` and `stays`, and report them."""
    for lineage in ("old", "stays"):
        make_aged_lineage(certbot_folder, lineage, 1)
    assert run_report("--all", **bucket.settings).status == 0
    next_second()


@pytest.mark.usefixtures("two_reported")
def test_a_lineage_whose_files_are_missing_is_unreadable_and_not_retired(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    remove_files(certbot_folder, "old")
    assert run_report("--all", **bucket.settings).status == 1
    assert bucket.state_of("old")["renewal_due"] > 0


@pytest.mark.usefixtures("two_reported")
def test_a_lineage_that_no_longer_exists_is_retired(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    remove_lineage(certbot_folder, "old")
    ran = run_report("--all", **bucket.settings)
    assert ran.status == 0
    assert re.findall("; (.*): reported to ", ran.out) == ["old retired"]
    last_state = bucket.state_of("old")
    times = {last_state[name] for name in ("not_before", "renewal_due", "not_after")}
    assert times == {0}
    assert known(certbot_folder) == ["stays"]


@pytest.mark.usefixtures("two_reported")
def test_each_report_of_thirty_days_repeats_that_a_lineage_is_retired(
    run_report: Program, certbot_folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_lineage(certbot_folder, "old")
    run_report("--all", **bucket.settings)
    retired_at = bucket.state_of("old")["run_at"]
    next_second()
    ran = run_report("--all", **bucket.settings)
    assert "old retired" not in ran.out  # this is no news
    last_report = bucket.state_of("old")["run_at"]
    assert last_report > retired_at

    for days, is_repeated in ((29, True), (31, False)):
        now = float(retired_at + days * DAY)
        set_clock(monkeypatch, now)
        run_report("--all", **bucket.settings)
        next_second()
        assert (bucket.state_of("old")["run_at"] == now) == is_repeated


@pytest.mark.usefixtures("two_reported")
def test_all_lineages_that_vanish_at_once_are_unreadable_until_they_are_retired_by_hand(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    for lineage in ("old", "stays"):
        remove_lineage(certbot_folder, lineage)
    ran = run_report("--all", **bucket.settings)
    assert ran.status == 1
    assert "all lineages are missing (old stays): check that certbot's configuration" in ran.err
    assert bucket.runs()[-1]["unreadable"] == "old stays"
    assert bucket.state_of("old")["renewal_due"] > 0

    assert run_report("--retire", "old", "stays", **bucket.settings).status == 0
    next_second()
    assert run_report("--all", **bucket.settings).status == 0
    assert bucket.runs()[-1]["unreadable_count"] == "0"
    assert bucket.state_of("old")["renewal_due"] == 0


@pytest.mark.usefixtures("two_reported")
def test_lineages_that_come_back_after_they_vanished_are_as_before(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    (certbot_folder / "renewal").rename(certbot_folder / "renewal.away")
    (certbot_folder / "renewal").mkdir()
    (certbot_folder / "live").rename(certbot_folder / "live.away")
    (certbot_folder / "live").mkdir()
    assert run_report("--all", **bucket.settings).status == 1
    for name in ("renewal", "live"):
        (certbot_folder / name).rmdir()
        (certbot_folder / f"{name}.away").rename(certbot_folder / name)
    next_second()
    assert run_report("--all", **bucket.settings).status == 0
    assert bucket.runs()[-1]["unreadable_count"] == "0"
    assert bucket.state_of("old")["renewal_due"] > 0


def test_hosts_that_share_a_folder_know_each_their_own_reports(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    for lineage in ("old", "stays"):
        make_aged_lineage(certbot_folder, lineage, 1)
    assert run_report("--all", HOSTNAME="web1", **bucket.settings).status == 0
    assert run_report("--all", HOSTNAME="web2", **bucket.settings).status == 0
    remove_lineage(certbot_folder, "old")
    assert "old retired" in run_report("--all", HOSTNAME="web1", **bucket.settings).out
    assert known(certbot_folder, "web1") == ["stays"]
    assert known(certbot_folder, "web2") == ["old", "stays"]
    assert "old retired" in run_report("--all", HOSTNAME="web2", **bucket.settings).out


@pytest.mark.usefixtures("two_reported")
def test_what_was_not_stored_is_reported_by_the_next_run_report(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    remove_lineage(certbot_folder, "old")
    assert run_report("--all", **{**bucket.settings, **UNREACHABLE}).status == 1
    assert known(certbot_folder) == ["old", "stays"]
    assert run_report("--all", **bucket.settings).status == 0
    assert bucket.state_of("old")["renewal_due"] == 0


def test_a_lineage_that_lived_between_two_run_reports_is_reported_as_retired(
    report_hook: Program, run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "stays", 1)
    assert run_report("--all", **bucket.settings).status == 0
    live = make_aged_lineage(certbot_folder, "trial", 0)
    renewal = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": "trial.example.com"}
    assert report_hook(**renewal, **bucket.settings).status == 0
    remove_lineage(certbot_folder, "trial")
    next_second()
    assert run_report("--all", **bucket.settings).status == 0
    assert bucket.state_of("trial")["renewal_due"] == 0


def test_only_the_current_certificates_are_reported_at_first_unless_the_history_is_asked_for(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    for days in (121, 61, 1):
        make_aged_lineage(certbot_folder, "example.com", days)
    assert run_report("--all", **bucket.settings).status == 0
    assert len(bucket.renewals_of("example.com")) == 1
    assert run_report("--all", "--history", **bucket.settings).status == 0
    renewals = bucket.renewals_of("example.com")
    newest = max(renewals)
    assert renewals == {newest, newest - 60 * DAY, newest - 120 * DAY}


@pytest.fixture
def five_renewals(
    report_hook: Program, run_report: Program, certbot_folder: Path, bucket: Bucket, begin: int
) -> list[int]:
    """Renew a certificate 40, 10, 7, 4 and 1 days ago; return the times of the renewals.

    The run report came after the second, and InfluxDB was away at the third and the fourth.
    """
    renewals = [begin - days * DAY for days in (40, 10, 7, 4, 1)]
    for not_before in renewals[:2]:
        make_lineage(certbot_folder, "example.com", ["example.com"], not_before, HOURS_160)
    assert run_report("--all", **bucket.settings).status == 0

    away = {**bucket.settings, **UNREACHABLE}
    for not_before, environ in zip(renewals[2:], (away, away, bucket.settings)):
        live = make_lineage(certbot_folder, "example.com", ["example.com"], not_before, HOURS_160)
        renewal = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": "example.com"}
        assert report_hook(**environ, **renewal).status == (1 if environ is away else 0)
    return renewals


def test_renewals_while_influxdb_was_away_are_reported_by_the_next_run_report(
    run_report: Program, bucket: Bucket, five_renewals: list[int]
) -> None:
    assert bucket.renewals_of("example.com") == {five_renewals[1], five_renewals[4]}
    assert run_report("--all", **bucket.settings).status == 0
    assert bucket.renewals_of("example.com") == set(five_renewals[1:])


@pytest.mark.usefixtures("five_renewals")
def test_an_older_certificate_that_cannot_be_read_is_named(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    (certbot_folder / "archive" / "example.com" / "cert3.pem").write_text("damaged")
    ran = run_report("--all", "--dry-run", **bucket.settings)
    assert ran.status == 1
    assert "cert3.pem: not a certificate" in ran.err
    assert "(this older renewal is not reported)" in ran.err


def test_a_known_file_that_cannot_be_written_is_a_warning(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "example.com", 1)
    (certbot_folder / f"{certbot_renewal_report.KNOWN_FILE}.new").mkdir()
    ran = run_report("--all", **bucket.settings)
    assert ran.status == 0
    assert "reported to" in ran.out
    assert "warning: " in ran.err
    assert (
        "make the file writable; until then, retired certificates are only reported by" in ran.err
    )


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b'{"web1": {}}\xff', "not UTF-8 text"),
        (b"", "is damaged: remove it, the next report writes it"),
        (b"[]", "is damaged: remove it"),
        (b'{"web1": {"verdicts": {"a": {"begin": 1}}}}', "is damaged: remove it"),
        (b'{"web1": {"run_report_at": "soon"}}', "is damaged: remove it"),
    ],
)
def test_a_known_file_that_cannot_be_read_stays_as_it_is(
    run_report: Program, certbot_folder: Path, bucket: Bucket, damaged: bytes, message: str
) -> None:
    make_aged_lineage(certbot_folder, "example.com", 1)
    file = certbot_folder / certbot_renewal_report.KNOWN_FILE
    file.write_bytes(damaged)
    ran = run_report("--all", **bucket.settings)
    assert ran.status == 1
    assert message in ran.err
    assert "reported to" in ran.out
    assert file.read_bytes() == damaged
    assert len(bucket.runs()) == 1


def test_two_installations_with_one_host_tag_retire_nothing_of_each_other(
    run_report: Program, tmp_path: Path, bucket: Bucket, begin: int
) -> None:
    folders = {lineage: tmp_path / f"container-{lineage}" for lineage in ("a", "b")}
    for lineage, folder in folders.items():
        make_lineage(folder, lineage, [f"{lineage}.example.com"], begin - DAY, 90 * DAY)
    for folder in (*folders.values(), *folders.values()):
        next_second()
        ran = run_report("--all", "--config-dir", str(folder), **bucket.settings)
        assert ran.status == 0
    due = {point[2] for point in bucket.points() if point[1] == "renewal_due"}
    assert due == {str(begin - DAY + 60 * DAY)}
