"""The run report: every certificate on disk, and certbot's run, read back from a real InfluxDB."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import certbot_renewal_report
import certbot_renewal_run
from support.buckets import Bucket
from support.hooks import Ran, known, next_second, set_clock
from support.lineages import make_aged_lineage, make_empty_folders
from tools.faults.disks import known_text
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, make_lineage

Program = Callable[..., Ran]


@pytest.fixture
def five_lineages(certbot_folder: Path) -> None:
    """Make a lineage that is due, one that is not, and three that certbot cannot renew."""
    make_aged_lineage(certbot_folder, "due", 70)
    make_aged_lineage(certbot_folder, "fine", 1, "fine.example.com", "www.example.com")
    dangling = make_aged_lineage(certbot_folder, "dangling", 1)
    (dangling / "cert.pem").resolve().unlink()
    make_aged_lineage(certbot_folder, "no-conf", 1)
    (certbot_folder / "renewal" / "no-conf.conf").unlink()
    make_aged_lineage(certbot_folder, "bad-conf", 1)
    (certbot_folder / "renewal" / "bad-conf.conf").write_text("fullchain = /x\n")


@pytest.mark.usefixtures("five_lineages")
def test_a_run_report_names_what_is_wrong_with_each_lineage(
    run_report: Program, bucket: Bucket
) -> None:
    ran = run_report("--all", EXIT_STATUS="1", **bucket.settings)
    assert ran.status == 1
    assert "dangling/cert.pem does not exist: restore the file" in ran.err
    assert "no-conf.conf: renewal configuration is missing: restore the file" in ran.err
    assert "missing a required file reference (cert, privkey, chain)" in ran.err


@pytest.mark.usefixtures("five_lineages")
def test_a_run_report_has_the_state_of_each_certificate_that_can_be_read(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    before = int(time.time())
    run_report("--all", EXIT_STATUS="1", **bucket.settings)
    states = {point[-1] for point in bucket.points() if point[1] == "renewal_due"}
    assert states == {"lineage=due", "lineage=fine", "lineage=no-conf", "lineage=bad-conf"}
    assert before <= bucket.state_of("fine")["run_at"] <= time.time()
    assert known(certbot_folder) == ["bad-conf", "dangling", "due", "fine", "no-conf"]


@pytest.mark.usefixtures("five_lineages")
def test_a_run_report_counts_what_failed_and_what_is_unreadable(
    run_report: Program, bucket: Bucket
) -> None:
    run_report("--all", EXIT_STATUS="1", **bucket.settings)
    (run,) = bucket.runs()
    expected = {
        "certificates": "4",
        "failed_count": "1",
        "failed": "due",
        "unreadable_count": "3",
        "unreadable": "bad-conf dangling no-conf",
        "exit_status": "1",
        "failing": "1",
        "steps": "1",
        "retired": "0",
        "hook": certbot_renewal_run.__version__,
    }
    assert {name: run.get(name) for name in expected} == expected
    reasons = [reason.partition(":")[0] for reason in run["failures"].split(" | ")]
    assert reasons == ["bad-conf", "dangling", "no-conf"]


@pytest.mark.parametrize(("seconds", "is_due"), [(-1, False), (0, True)])
def test_a_lineage_failed_only_if_it_was_due(
    run_report: Program,
    certbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    is_due: bool,
) -> None:
    not_before = int(time.time()) - 60 * DAY
    make_lineage(certbot_folder, "due", ["due.example.com"], not_before, 90 * DAY)
    now = float(not_before + 60 * DAY + seconds)
    set_clock(monkeypatch, now)
    out = run_report("--all", "--dry-run", FAILED_DOMAINS="due.example.com").out
    assert ('failed="due"' in out) == is_due
    assert ("failed_count=1i" in out) == is_due


@pytest.mark.parametrize(
    ("text", "status"),
    [("0", "0"), ("1", "1"), ("TERM", "143"), ("KILL", "137"), ("", None), ("x y", None)],
)
def test_the_exit_status_is_read_as_systemd_gives_it(
    run_report: Program, certbot_folder: Path, text: str, status: str | None
) -> None:
    make_aged_lineage(certbot_folder, "example.com", 1)
    ran = run_report("--all", "--dry-run", EXIT_STATUS=text)
    (run,) = [line for line in ran.out.splitlines() if " certificates=1i" in line]
    assert (f"exit_status={status}i" in run) == (status is not None)
    assert ("EXIT_STATUS is not valid" in ran.err) == (text == "x y")


def test_a_dry_run_does_not_write_the_known_file(run_report: Program, certbot_folder: Path) -> None:
    make_aged_lineage(certbot_folder, "example.com", 1)
    run_report("--all", "--dry-run")
    assert not (certbot_folder / certbot_renewal_report.KNOWN_FILE).exists()


def test_many_lines_are_sent_in_several_requests(
    influxdb: InfluxDB,
    run_report: Program,
    certbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certbot_renewal_report, "LINES_PER_REQUEST", 3)
    bucket = Bucket(influxdb, retention=str(7 * DAY))
    # All renewals are older than the retention: it does not matter in which request they are.
    for number in range(5):
        make_aged_lineage(certbot_folder, f"c{number}", 8 + number)
    ran = run_report("--all", **bucket.settings)
    assert (ran.status, ran.err) == (0, "")
    states = {point[-1] for point in bucket.points() if point[1] == "run_at"}
    assert states == {f"lineage=c{number}" for number in range(5)}
    assert bucket.runs()[-1]["certificates"] == "5"


def test_more_names_than_a_field_can_hold_are_cut(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_empty_folders(certbot_folder)
    for number in range(400):  # 96,000 characters
        (certbot_folder / "renewal" / f"{number:03}{'x' * 237}.conf").touch()
    assert "reported to" in run_report("--all", **bucket.settings).out
    (run,) = bucket.runs()
    names = run["unreadable"].split()
    assert run["unreadable_count"] == "400"
    assert names[0] == "000" + "x" * 237
    assert names[-1] == "..."
    assert len(names[-2]) == 240


def test_folders_that_cannot_be_listed_retire_nothing(
    run_report: Program, certbot_folder: Path, bucket: Bucket
) -> None:
    make_aged_lineage(certbot_folder, "example.com", 1)
    assert run_report("--all", **bucket.settings).status == 0
    for name in ("live", "renewal"):
        (certbot_folder / name).rename(certbot_folder / f"{name}.away")
    next_second()
    ran = run_report("--all", **bucket.settings)
    assert ran.status == 1
    assert "name certbot's configuration folder with --config-dir" in ran.err
    assert known(certbot_folder) == ["example.com"]
    assert bucket.state_of("example.com")["renewal_due"] > 0


def test_a_configuration_that_is_no_lineage_is_named_and_retires_nothing(
    run_report: Program, certbot_folder: Path
) -> None:
    make_aged_lineage(certbot_folder, "example.com", 1)
    renewal = certbot_folder / "renewal"
    known_file = certbot_folder / certbot_renewal_report.KNOWN_FILE
    known_file.write_text(known_text("web1", "a", 1))
    for name in (b"a\nb", b"\xff"):
        shutil.copy(renewal / "example.com.conf", renewal / f"{os.fsdecode(name)}.conf")
    ran = run_report("--all", "--dry-run")
    assert ran.status == 1
    assert f"{renewal}: 'a\\nb.conf' is not the name of a lineage: remove it" in ran.err
    assert ran.err.count("is not the name of a lineage: remove it") == 2
    assert re.findall(r"renewal_due=(\d)", ran.out) == ["1"]  # of example.com; 0 would be retired


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "old-web"], "--host needs --retire"),
        (["--host", "old-web", "--all"], "--host needs --retire"),
        (["--history"], "--history, --patience and --stdout need --all"),
        (["--stdout", "--check"], "--history, --patience and --stdout need --all"),
        (["--all", "--retire"], "--all, --retire and --check exclude each other"),
        (["--check", "--dry-run"], "argument --dry-run: not allowed with argument --check"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(
    run_report: Program,
    arguments: list[str],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run_report(*arguments)
    assert exit_info.value.code == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("text", ["-5", "nan", "inf", "soon"])
def test_patience_must_be_a_number_of_hours(
    run_report: Program, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run_report("--all", f"--patience={text}")
    assert exit_info.value.code == 2
    assert f"--patience: invalid hours value: '{text}'" in capfd.readouterr().err
