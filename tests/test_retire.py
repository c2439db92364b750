"""--retire: certificates that are no longer on this host, or on another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import certbot_renewal_report
from support.buckets import Bucket
from support.hooks import Ran, next_second
from support.lineages import make_aged_lineage

Program = Callable[..., Ran]


@pytest.mark.parametrize("host", [[], ["--host", "web1"]], ids=["no host", "this host"])
def test_a_certificate_that_is_still_here_cannot_be_retired(
    run_report: Program, certbot_folder: Path, bucket: Bucket, host: list[str]
) -> None:
    make_aged_lineage(certbot_folder, "a.example.com", 1)
    ran = run_report(*host, "--retire", "a.example.com", **bucket.settings)
    assert ran.status == 1
    assert "certbot delete --cert-name a.example.com" in ran.err
    assert "--host" in ran.err
    assert bucket.points() == set()


def test_the_certificates_of_another_host_are_retired_with_one_command(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "a.example.com", 1)
    (certbot_folder / "certbot_renewal_report.env").write_text("HOSTNAME=web1\n")
    names = ["a.example.com", "b.example.com"]
    ran = run_report("--host", "old-web", "--retire", *names, **bucket.settings)
    assert ran.status == 0
    assert ran.out.startswith(
        "a.example.com on old-web retired; b.example.com on old-web retired: reported to "
    )
    points = bucket.points()
    assert {point[3:] for point in points} == {
        ("domain=all", "host=old-web", f"lineage={name}") for name in names
    }
    assert {point[2] for point in points if point[1] == "renewal_due"} == {"0"}


def test_a_certificate_that_was_here_is_retired(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "a.example.com", 1)
    assert run_report("--retire", "b.example.com", **bucket.settings).status == 0
    assert bucket.state_of("b.example.com")["renewal_due"] == 0


def test_a_whole_host_is_retired_with_all_its_certificates(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "a.example.com", 1)
    assert run_report("--all", **bucket.settings).status == 0
    next_second()
    ran = run_report("--retire", **bucket.settings)
    assert ran.status == 0
    assert ran.out.startswith("host web1 retired: reported to ")
    assert bucket.state_of("a.example.com")["renewal_due"] == 0
    last_run = bucket.runs()[-1]
    assert (last_run["retired"], last_run["reported_at"], last_run["failing"]) == ("1", "0", "0")


def test_another_host_is_retired_without_its_names(run_report: Program, bucket: Bucket) -> None:
    assert run_report("--host", "old-web", "--retire", **bucket.settings).status == 0
    (run,) = bucket.runs()
    assert run["retired"] == "1"
    assert {point[3:] for point in bucket.points()} == {("host=old-web",)}


def test_a_retired_host_that_reports_again_is_no_longer_retired(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "a.example.com", 1)
    assert run_report("--retire", **bucket.settings).status == 0
    next_second()
    assert run_report("--all", **bucket.settings).status == 0
    assert bucket.runs()[-1]["retired"] == "0"
    assert bucket.state_of("a.example.com")["renewal_due"] > 0


def test_retiring_a_host_does_not_replace_a_damaged_known_file(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    known_file = certbot_folder / certbot_renewal_report.KNOWN_FILE
    known_file.write_text("damaged")
    ran = run_report("--retire", **bucket.settings)
    assert (ran.status, bucket.runs()[-1]["retired"]) == (1, "1")
    assert "is damaged: remove it" in ran.err
    assert known_file.read_text() == "damaged"
