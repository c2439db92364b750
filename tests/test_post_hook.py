"""certbot_renewal_run.py as certbot's post hook: what failed, and nothing about silent days."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from support.buckets import Bucket
from support.hooks import Ran, next_second, start_run_report
from support.lineages import make_aged_lineage

Program = Callable[..., Ran]


def run_post_hook(folder: Path, bucket: Bucket, **environ: str) -> subprocess.CompletedProcess[str]:
    """Start the run report as certbot starts a post hook: without any argument."""
    return start_run_report(folder, **bucket.settings, **environ)


def test_the_post_hook_of_an_old_certbot_knows_nothing_about_the_run(
    certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "due", 70)
    fine = make_aged_lineage(certbot_folder, "fine", 1)
    # certbot 2.1 sets no FAILED_DOMAINS, and leaves the variables of its last deploy hook.
    leaked = {"RENEWED_DOMAINS": "fine.example.com", "RENEWED_LINEAGE": str(fine)}
    assert run_post_hook(certbot_folder, bucket, **leaked).returncode == 0
    (run,) = bucket.runs()
    assert (run["certificates"], run["failed_count"], run["exit_status"]) == ("2", "0", "-1")
    assert "reported_at" not in run
    assert bucket.state_of("due")["run_at"] == 0


def test_the_post_hook_reports_what_failed_and_was_due(
    certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "due", 70)
    make_aged_lineage(certbot_folder, "fine", 1)
    # certbot also lists the names of a dry run or a forced renewal, though nothing was due; and
    # it may cut the list in the middle of a name.
    failed = "fine.example.com due.example.com cut.exam"
    assert run_post_hook(certbot_folder, bucket, FAILED_DOMAINS=failed).returncode == 0
    assert bucket.runs()[-1]["failed"] == "due"


def test_the_post_hook_says_that_the_host_is_alive_if_run_reports_are_installed(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    before = int(time.time())
    make_aged_lineage(certbot_folder, "due", 70)
    assert run_report("--all", **bucket.settings).status == 0
    next_second()
    assert run_post_hook(certbot_folder, bucket, FAILED_DOMAINS="").returncode == 0
    assert bucket.runs()[-1]["failed_count"] == "0"
    assert bucket.state_of("due")["run_at"] > before
