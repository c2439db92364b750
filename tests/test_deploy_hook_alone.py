"""A host without run reports: each start of the deploy hook reports all lineages of the host."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.buckets import Bucket
from support.hooks import Ran, next_second, set_clock
from support.lineages import UNREACHABLE, make_aged_lineage, remove_lineage
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, make_lineage

Program = Callable[..., Ran]
TEN_MINUTES = 600


@pytest.fixture
def bucket(server: Callable[[str], InfluxDB]) -> Bucket:
    """An empty bucket."""
    return Bucket(server("influxd-1.12"))


def renew(folder: Path, lineage: str) -> dict[str, str]:
    """Renew a lineage; return the variables that certbot sets for a deploy hook."""
    live = make_aged_lineage(folder, lineage, 1)
    return {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": f"{lineage}.example.com"}


def reported_lineages(bucket: Bucket) -> set[str]:
    """Return the lineages that have a state in the bucket."""
    return {point[-1] for point in bucket.points() if point[1] == "renewal_due"}


def test_a_lost_report_is_repaired_by_the_next_renewal_of_another_certificate(
    report_hook: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    lost = report_hook(**renew(certbot_folder, "a"), **{**bucket.settings, **UNREACHABLE})
    assert lost.status == 1
    ran = report_hook(**renew(certbot_folder, "b"), **bucket.settings)
    assert ran.status == 0
    assert "and the state of 1 other certificate: reported to" in ran.out
    assert reported_lineages(bucket) == {"lineage=a", "lineage=b"}
    assert len(bucket.renewals_of("a")) == 1
    assert bucket.state_of("a")["run_at"] == 0  # nothing proves that certbot runs regularly


def test_a_deleted_certificate_is_retired_by_the_next_renewal_of_another_one(
    report_hook: Program,
    certbot_folder: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_aged_lineage(certbot_folder, "old", 30)
    report_hook(**renew(certbot_folder, "a"), **bucket.settings)
    remove_lineage(certbot_folder, "old")
    next_second()
    set_clock(monkeypatch, time.time() + TEN_MINUTES)
    ran = report_hook(**renew(certbot_folder, "a"), **bucket.settings)
    assert "; old retired: reported to" in ran.out
    assert bucket.state_of("old")["renewal_due"] == 0


@pytest.mark.parametrize(("seconds", "is_complete"), [(TEN_MINUTES - 5, False), (601, True)])
def test_the_other_certificates_are_reported_once_in_ten_minutes(
    report_hook: Program,
    certbot_folder: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    is_complete: bool,
) -> None:
    for lineage in ("a", "b", "c"):
        make_aged_lineage(certbot_folder, lineage, 1)
    report_hook(**renew(certbot_folder, "a"), **bucket.settings)
    set_clock(monkeypatch, time.time() + seconds)
    ran = report_hook("--dry-run", **renew(certbot_folder, "b"), **bucket.settings)
    assert ("lineage=c" in ran.out) == is_complete
    assert "lineage=b" in ran.out


def test_a_broken_certificate_does_not_disturb_the_report_of_another_one(
    report_hook: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "broken", 1)
    (certbot_folder / "renewal" / "broken.conf").write_text("nonsense")
    ran = report_hook(**renew(certbot_folder, "a"), **bucket.settings)
    assert (ran.status, ran.err) == (0, "")


def test_a_hook_that_is_installed_elsewhere_reports_only_its_own_certificate(
    report_hook: Program, certbot_folder: Path, tmp_path: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "other", 1)
    environ = renew(tmp_path / "elsewhere", "a")
    assert report_hook(**environ, **bucket.settings).status == 0
    assert reported_lineages(bucket) == {"lineage=a"}


def test_a_folder_that_certbot_has_at_another_path_is_read_here(
    run_report: Program, tmp_path: Path, certbot_folder: Path, bucket: Bucket
) -> None:
    # The container's /etc/letsencrypt is another folder on this host.
    inside = tmp_path / "container" / "etc" / "letsencrypt"
    make_lineage(inside, "a", ["a.example.com"], int(time.time()) - DAY, 90 * DAY)
    shutil.copytree(inside, certbot_folder, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(inside)
    ran = run_report("--all", **bucket.settings)
    assert (ran.status, ran.err) == (0, "")
    assert bucket.runs()[-1]["unreadable_count"] == "0"
