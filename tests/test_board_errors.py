"""The renewal board when something is wrong: one line with the remedy, and the old page stays."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from support.board import BOARD, FleetSettings, run_board
from support.points import write
from tools.servers.faulty import answer, drip, serving
from tools.servers.influxdb import InfluxDB

PUBLISHED_HOOK = """\
certbot_renewal,domain=all,host=web1 renewed_count=1
certbot_renewal,domain=a,host=web1 renewed_count=1"""
TEXT_FIELDS = (
    'certbot_renewal,domain=all,host=web1,lineage=a renewal_due="x",not_after="y",'
    'run_at="z",not_before="w"'
)


# ---- The command line --------------------------------------------------------------------------
@pytest.mark.parametrize("threshold", ["nan", "inf", "-1", "1e9", "x"])
def test_a_threshold_that_is_no_number_of_days_is_wrong_usage(threshold: str) -> None:
    process = subprocess.run(
        [sys.executable, str(BOARD), "--crit", threshold], capture_output=True, timeout=60
    )
    assert process.returncode == 2


# ---- Standard output ---------------------------------------------------------------------------
def run_in_shell(settings: dict[str, str], arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the board in a shell; `arguments` are in the shell's language."""
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(BOARD))} {arguments}"
    return subprocess.run(
        ["sh", "-c", command], env=settings, capture_output=True, text=True, timeout=60
    )


def test_a_reader_may_stop_reading(fleet_settings: FleetSettings) -> None:
    process = run_in_shell(fleet_settings("influxd-1.12"), "--json | head -c 1")
    assert (process.stdout, process.stderr) == ("{", "")


def test_a_closed_output_is_one_line(fleet_settings: FleetSettings) -> None:
    process = run_in_shell(fleet_settings("influxd-1.12"), "--csv >&-")
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)


def test_a_full_disk_is_one_line(fleet_settings: FleetSettings) -> None:
    process = run_in_shell(fleet_settings("influxd-1.12"), "--csv >/dev/full")
    assert process.returncode == 2
    assert process.stderr == "certbot_renewal_board: stdout: No space left on device\n"


# ---- Other servers than InfluxDB ---------------------------------------------------------------
LOGIN_PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Please log in"
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: https://example.com/login\r\n\r\n"
CSV_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\n"


@pytest.mark.parametrize(
    ("response", "remedy"),
    [
        (LOGIN_PAGE, "this is not InfluxDB: correct INFLUXDB_URL"),
        (REDIRECT, "this is a redirect: set INFLUXDB_URL to the address of InfluxDB"),
        (CSV_HEAD + b"a,b\r\n1,2\r\n", "correct INFLUXDB_URL, INFLUXDB_BUCKET or MEASUREMENT"),
        (
            CSV_HEAD + b"a\r\n" + b"x" * 200_000 + b"\r\n",  # a cell longer than csv takes
            "correct INFLUXDB_URL, INFLUXDB_BUCKET or MEASUREMENT",
        ),
        (CSV_HEAD + b"error,reference\r\nbucket no database,\r\n", "correct INFLUXDB_BUCKET"),
    ],
)
def test_an_answer_that_no_influxdb_gives_has_its_remedy(response: bytes, remedy: str) -> None:
    with serving(answer(response)) as url:
        assert remedy in run_board({"INFLUXDB_URL": url}).err


def test_a_server_that_drips_ends_with_the_timeout() -> None:
    with serving(drip(CSV_HEAD)) as url:
        run = run_board({"INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": "0.5"})
    assert "raise INFLUXDB_TIMEOUT" in run.err


# ---- Settings that are wrong -------------------------------------------------------------------
def settings_for_lines(influxdb: InfluxDB, lines: str) -> dict[str, str]:
    """Return the settings for a bucket with something else in it; the lines have no time."""
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(influxdb, bucket, *(f"{line} {now}" for line in lines.splitlines()))
    return influxdb.settings(bucket)


class Fault(NamedTuple):
    """A fault: the settings that make it, and the remedies of InfluxDB 1.x and 2.x."""

    settings: Callable[[InfluxDB], dict[str, str]]
    remedy_1: str
    remedy_2: str


def fault(settings: Callable[[InfluxDB], dict[str, str]], remedy: str) -> Fault:
    """Return a fault with the same remedy for all versions."""
    return Fault(settings, remedy, remedy)


FAULTS = {
    "nobody listens": fault(
        lambda influxdb: {"INFLUXDB_URL": "http://127.0.0.1:1"},
        "Connection refused: ",
    ),
    "no such bucket": fault(
        lambda influxdb: influxdb.settings("missing"), "correct INFLUXDB_BUCKET"
    ),
    "no number": fault(
        lambda influxdb: {**influxdb.settings("x"), "INFLUXDB_TIMEOUT": "x"},
        "INFLUXDB_TIMEOUT is ",
    ),
    "other data": fault(
        lambda influxdb: settings_for_lines(influxdb, "certbot_renewal,cpu=0 usage=1"),
        "correct INFLUXDB_BUCKET or MEASUREMENT",
    ),
    "other types": fault(
        lambda influxdb: settings_for_lines(influxdb, TEXT_FIELDS),
        "correct INFLUXDB_BUCKET or MEASUREMENT",
    ),
    "published hook": fault(
        lambda influxdb: settings_for_lines(influxdb, PUBLISHED_HOOK),
        "contains only renewals of the published hook",
    ),
    "retention policy": Fault(
        lambda influxdb: influxdb.settings(f"{influxdb.new_bucket()}/missing"),
        "correct the part after the slash in INFLUXDB_BUCKET",
        "correct INFLUXDB_BUCKET",
    ),
    "token": Fault(
        lambda influxdb: {**influxdb.settings("x"), "INFLUXDB_TOKEN": "fake-Secret-7f3"},
        "correct INFLUXDB_BUCKET",
        "set INFLUXDB_TOKEN to a token that can read",
    ),
    "organization": Fault(
        lambda influxdb: {
            **influxdb.settings(influxdb.new_bucket()),
            "INFLUXDB_ORG": "missing",
        },
        "no certificate was reported to",  # 1.x has no organizations
        "set INFLUXDB_ORG",
    ),
}


@pytest.mark.parametrize("influxdb_name", ["influxd-1.8", "influxd-2"])
@pytest.mark.parametrize("fault_name", FAULTS)
def test_a_fault_is_one_line_with_the_remedy_and_the_old_page_stays(
    server: Callable[[str], InfluxDB], tmp_path: Path, influxdb_name: str, fault_name: str
) -> None:
    influxdb = server(influxdb_name)
    wrong = FAULTS[fault_name]
    page = tmp_path / "board.html"
    page.write_text("the old one")
    run = run_board(wrong.settings(influxdb), "--html", str(page))
    assert run.status == 2
    assert (wrong.remedy_1 if influxdb.major == 1 else wrong.remedy_2) in run.err
    assert "fake-Secret" not in run.err
    assert page.read_text() == "the old one"
