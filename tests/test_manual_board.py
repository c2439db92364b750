"""docs/board.md: a reader follows it, and its tables are what the board has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import certbot_renewal_board
from renewal_board.exports import CSV_HEADER, json_text
from renewal_board.model import STATES, Fleet
from support import documents
from support.buckets import new_token
from support.documents import (
    error_messages,
    message_entries,
    options_of_help,
    pieces_of,
    rows_of,
)
from support.machine import Machine, start_machine
from support.manual import blocks_of, follow, follow_page, read_page
from support.servers import require_program, skip_or_fail
from tools import ROOT
from tools.servers.processes import MissingServer
from tools.servers.prometheus import start_victoria_metrics

PAGE = read_page("board.md")
BUCKET = "certbot"
HTML = "/var/www/certificates/index.html"
# All modules but the one with the problems of certificates and hosts, which are not errors.
MODULES = [path for path in sorted((ROOT / "board").rglob("*.py")) if path.name != "fleet.py"]

# Functions and classes whose arguments are messages.
MESSAGE_CALLS = ("ArgumentTypeError", "ReportError", "Remedy", "fail", "refusal", "stop", "warn")

# Needs no explanation.
CLEAR_MESSAGES = {"stdout: closed"}


# ---- A reader follows it -----------------------------------------------------------------------
@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with certbot and the report hook. Other users than root can start its Python."""
    with start_machine(tmp_path, ["influx.example.com"]) as machine:
        for folder in (tmp_path, *tmp_path.parents):
            folder.chmod(folder.stat().st_mode | 0o011)
        machine.run("chmod o+x /root")
        machine.add_certbot("www.example.com")
        yield machine


def report(machine: Machine, settings: dict[str, str]) -> None:
    """Report the certificates of the machine."""
    machine.run(
        "mkdir -p /etc/letsencrypt/renewal-hooks/deploy\n"
        "install -m 755 certbot_renewal_report.py /etc/letsencrypt/renewal-hooks/deploy/"
    )
    lines = [f"{name}={value}\n" for name, value in settings.items() if value]
    machine.write("/etc/letsencrypt/certbot_renewal_report.env", "".join(lines))
    machine.run(
        "chmod 600 /etc/letsencrypt/certbot_renewal_report.env\n"
        "/etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_report.py --check"
    )


def follow_with_token(machine: Machine, section: str, token: str) -> None:
    """Follow a section with a token in the place of the example's; without one on InfluxDB 1.x."""
    line = f"INFLUXDB_TOKEN={token}\n" if token else ""
    blocks = []
    for block in blocks_of(PAGE, [section]):
        text = block.text.replace("INFLUXDB_TOKEN=fake-read-token\n", line)
        blocks.append(block._replace(text=text))
    follow(machine, blocks)


def test_a_reader_publishes_the_board_of_influxdb_2(machine: Machine) -> None:
    require_program("influxd-2")
    influxdb = machine.add_influxdb("influxd-2")
    with machine.network():
        influxdb.post("/api/v2/buckets", name=BUCKET, orgID=influxdb.org_id())
        token = new_token(influxdb, "read")
    report(machine, influxdb.settings(BUCKET))
    follow_with_token(machine, "Install", token)
    assert "www.example.com" in machine.read(HTML)
    assert machine.run(f"stat -c '%U %a' {HTML}") == "certbot-board 644\n"

    command = machine.read("/etc/cron.d/certbot-renewal-board").split("certbot-board ", 1)[1]
    machine.run(f"rm {HTML}\nrunuser -u certbot-board -- {command}")
    assert "www.example.com" in machine.read(HTML)


def test_a_reader_publishes_the_board_of_influxdb_1(machine: Machine) -> None:
    require_program("influxd-1.8")
    influxdb = machine.add_influxdb("influxd-1.8")
    with machine.network():
        influxdb.command(f'CREATE DATABASE "{BUCKET}"')
    report(machine, influxdb.settings(BUCKET))
    follow_with_token(machine, "Install", "")
    assert "www.example.com" in machine.read(HTML)


def test_a_reader_publishes_the_board_of_victoria_metrics(machine: Machine) -> None:
    with machine.network():
        try:
            started = start_victoria_metrics(machine.folder / "victoria", 8428)
            metrics = machine.stack.enter_context(started)
        except MissingServer as error:
            skip_or_fail(error)
    machine.run("echo 127.0.0.1 victoria.example.com >>/etc/hosts")
    report(machine, {"INFLUXDB_URL": "http://victoria.example.com:8428"})
    with machine.network():
        metrics.flush()
    for block in blocks_of(PAGE, ["Install"])[:2]:
        follow(machine, [block])
    follow_page(machine, "board.md", "VictoriaMetrics and Prometheus")


# ---- What the page lists -----------------------------------------------------------------------
def test_the_page_has_the_options_of_the_board() -> None:
    rows = " ".join(row[0] for row in rows_of(PAGE, "Options", "| option | action |"))
    options = options_of_help(certbot_renewal_board.command_line().format_help())
    assert set(re.findall(r"--[a-z-]+", rows)) == options


def test_the_page_has_the_columns_of_the_board() -> None:
    titles = [row[0] for row in rows_of(PAGE, "Columns", "| column | certificates |") if row[0]]
    assert titles == list(STATES.values())


def test_the_page_has_the_columns_of_the_csv() -> None:
    assert [row[0] for row in rows_of(PAGE, "CSV", "| column | content |")] == CSV_HEADER


def test_the_page_has_the_keys_of_the_json() -> None:
    fleet = Fleet(made=0, since=0, cards=[], hosts=[], renewals=[], dry_runs=[], notice="")
    keys = [row[0] for row in rows_of(PAGE, "JSON", "| key | content |")]
    assert set(", ".join(keys).split(", ")) == set(json.loads(json_text(fleet)))


# ---- Messages ----------------------------------------------------------------------------------
def test_the_messages_of_the_board_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MESSAGE_CALLS", MESSAGE_CALLS)
    entries = message_entries(read_page("messages.md"))
    explained = [piece for entry in entries for piece in pieces_of(entry.message)]
    printed = [text for module in MODULES for text in error_messages(module)]
    assert len(printed) > 25
    missing = {text for text in printed if not any(piece in text for piece in explained)}
    assert missing == CLEAR_MESSAGES
