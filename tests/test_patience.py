"""--patience: run reports that wait while InfluxDB is down. The newest run report wins."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import certbot_renewal_run
from support.buckets import Bucket
from support.hooks import Ran, known
from support.lineages import UNREACHABLE, make_aged_lineage
from support.points import run_points, state_of
from support.servers import Alerting
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import install_run_report
from tools.servers.processes import wait_for

Program = Callable[..., Ran]


@contextlib.contextmanager
def waiting_report(folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Start a run report that waits for an hour, as a process."""
    command = [sys.executable, str(install_run_report(folder)), "--all", "--patience", "1"]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # or a test that fails waits for an hour


def wait_until_a_try_has_failed(port: int) -> None:
    """Take one connection where InfluxDB was, until its client has given up."""
    with socket.create_server(("127.0.0.1", port)) as server, server.accept()[0] as connection:
        while connection.recv(65536):
            pass


@pytest.fixture
def turn_file(certbot_folder: Path) -> Path:
    """The file that says which run report is the newest."""
    return certbot_folder / certbot_renewal_run.TURN_FILE


@pytest.mark.parametrize("alerting", ["influxd-1.12"], indirect=True)
def test_the_newest_of_two_waiting_run_reports_is_stored_with_what_is_on_disk_then(
    alerting: Alerting, certbot_folder: Path, turn_file: Path
) -> None:
    influxdb = alerting.start_influxdb()
    bucket = influxdb.new_bucket()
    settings = {"HOSTNAME": "web1", "INFLUXDB_TIMEOUT": "1", **influxdb.settings(bucket)}
    make_aged_lineage(certbot_folder, "early", 1)
    alerting.stop("influxdb")

    with waiting_report(certbot_folder, EXIT_STATUS="1", **settings) as first:
        wait_for(turn_file.exists, "the first report's turn")
        first_id = turn_file.read_text()
        with waiting_report(certbot_folder, EXIT_STATUS="0", **settings) as second:
            assert first.communicate(timeout=60) == ("", "")
            assert turn_file.read_text() != first_id
            make_aged_lineage(certbot_folder, "late", 0)
            wait_until_a_try_has_failed(alerting.port)  # it may have read the disk too early
            alerting.start_influxdb()
            out, err = second.communicate(timeout=60)

    assert (first.returncode, second.returncode, err) == (0, 0, "")
    assert out.startswith("2 certificates: reported to ")
    assert out.count("\n") == 1
    points = alerting.influxdb.points(bucket)
    assert [run["exit_status"] for run in run_points(points)] == ["0"]  # only the second
    assert state_of(points, "late")["not_before"] > 0
    assert known(certbot_folder) == ["early", "late"]


@pytest.fixture
def small_bucket(server: Callable[[str], InfluxDB]) -> Bucket:
    """A bucket of InfluxDB 1.12."""
    return Bucket(server("influxd-1.12"))


def test_a_waiting_run_report_ends_when_one_that_does_not_wait_was_stored(
    run_report: Program, certbot_folder: Path, small_bucket: Bucket, turn_file: Path
) -> None:
    make_aged_lineage(certbot_folder, "a", 1)
    with waiting_report(certbot_folder, HOSTNAME="web1", EXIT_STATUS="1", **UNREACHABLE) as waiting:
        wait_for(lambda: turn_file.exists() and turn_file.read_text(), "its turn")
        assert run_report("--all", EXIT_STATUS="0", **small_bucket.settings).status == 0
        assert waiting.communicate(timeout=60) == ("", "")
    assert waiting.returncode == 0


def test_a_waiting_run_report_goes_on_when_nothing_newer_was_stored(
    run_report: Program, certbot_folder: Path, small_bucket: Bucket, turn_file: Path
) -> None:
    make_aged_lineage(certbot_folder, "a", 1)
    with waiting_report(certbot_folder, HOSTNAME="web1", EXIT_STATUS="1", **UNREACHABLE):
        waiting_id = wait_for(lambda: turn_file.exists() and turn_file.read_text(), "its turn")
        run_report("--all", EXIT_STATUS="0", **UNREACHABLE)
        assert turn_file.read_text() == waiting_id  # not stored
        missing_bucket = {**small_bucket.settings, "INFLUXDB_BUCKET": "nowhere"}
        run_report("--all", EXIT_STATUS="0", **missing_bucket)
        assert turn_file.read_text() == waiting_id  # refused
        run_report("--all", "--dry-run", EXIT_STATUS="0", **small_bucket.settings)
        run_report("--all", "--patience=1", "--dry-run", **small_bucket.settings)
        run_report("--all", "--patience=1", "--stdout", **small_bucket.settings)
        assert turn_file.read_text() == waiting_id  # not sent
        run_report("--all", **small_bucket.settings)
        assert turn_file.read_text() == waiting_id  # not about a run of certbot


def test_patience_ends_with_one_error_and_one_warning(
    run_report: Program, certbot_folder: Path
) -> None:
    make_aged_lineage(certbot_folder, "a", 1)
    container_id = "0123456789ab"  # a warning
    hours = "0.0005"  # time for two tries
    ran = run_report("--all", "--patience", hours, HOSTNAME=container_id, **UNREACHABLE)
    assert ran.status == 1
    assert ran.err.count("cannot reach") == 1
    assert ran.err.count("is a container's id") == 1


def test_a_run_report_does_not_wait_if_waiting_does_not_help(
    run_report: Program, certbot_folder: Path, server: Callable[[str], InfluxDB]
) -> None:
    make_aged_lineage(certbot_folder, "a", 1)
    missing_bucket = server("influxd-1.12").settings("nowhere")
    ran = run_report("--all", "--patience", "6", **missing_bucket)
    assert ran.status == 1
    assert "answered 404" in ran.err
