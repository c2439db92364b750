"""docs/data.md: its fields are those of the programs, its queries those of flux/."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import certbot_renewal_report as hook
import certbot_renewal_run as run
from certbot_renewal_report import Point
from support.documents import rows_of
from support.machine import Machine, start_machine
from support.manual import Block, blocks_of, follow, read_page
from support.points import certificate_renewal, certificate_state, write
from support.servers import skip_or_fail
from tools import ROOT
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer

PAGE = read_page("data.md")
BEGIN = 1_790_000_000
SETTINGS = hook.Settings("", 2, "", "", "", 10, "certbot_renewal", "web1", {})

# A row of a table of fields.
FIELD_ROW = re.compile(r"^\| `(?P<field>\w+)` \| (?P<type>\w+) \|", re.MULTILINE)
TYPES = {"time": int, "integer": int, "float": float, "text": str}


CERTBOT_RUN = run.CertbotRun(
    position="2026-09-21 14:13:20,000",
    started_at=BEGIN,
    ended_at=BEGIN + 5,
    version="5.8.0",
    mode="renew",
    is_dry_run=False,
    is_finished=True,
    results={},
    failure="",
    is_locked=False,
)


def example_certificate() -> hook.Certificate:
    """Return a certificate of 90 days for one name."""
    end = BEGIN + 90 * DAY
    return hook.Certificate(
        "example.com", ["example.com"], BEGIN, end, hook.due_by_rule(BEGIN, end, (4, 0), "")
    )


# ---- Points ------------------------------------------------------------------------------------
def test_the_line_protocol_is_what_the_report_hook_writes() -> None:
    certificate = example_certificate()
    points = hook.renewal_points(SETTINGS, certificate)
    points.append(hook.state_point(SETTINGS, certificate, 0))
    lines = "".join(f"{hook.line_protocol(point)}\n" for point in points)
    assert f"```text\n{lines}```" in PAGE.partition("\n## ")[0]


def documented_fields(section: str) -> dict[str, type]:
    """Return the fields in the tables of a section, with their types in Python."""
    text = PAGE.split(f"\n### {section}\n")[1].split("\n#")[0]
    return {row["field"]: TYPES[row["type"]] for row in FIELD_ROW.finditer(text)}


def fields_of(points: Sequence[Point]) -> dict[str, type]:
    """Return the fields of points, with their types in Python."""
    return {name: type(value) for point in points for name, value in point.fields.items()}


def state_of_served_certificate() -> Point:
    """Return the state of a certificate, as a run report with VERIFY sends it."""
    certificate = example_certificate()
    endpoint = run.Endpoint("www.example.com", 443, "www.example.com")
    served = run.served_state("example.com", {endpoint: b"other"}, {}, [], BEGIN)
    return hook.state_point(SETTINGS, certificate, BEGIN, served.fields)


def run_of_certbot() -> Point:
    """Return the point about a run in which everything failed that can fail."""
    results = {
        "a": run.LineageResult(run.FAILED, "Some challenges have failed.", None),
        "c": run.LineageResult(run.RENEWED, "", None),
        "d": run.LineageResult(run.NOT_DUE, "", None),
        "e": run.LineageResult(run.NOT_PROCESSED, "", None),
    }
    lineages = hook.Lineages({"a", "b"}, [example_certificate()], {"b": "missing"}, [])
    record = hook.HostRecord({"certbot": "5.8.0"})
    failures = {"a": "Some challenges have failed.", "b": "missing"}
    runs = [CERTBOT_RUN._replace(results=results)]
    summary = run.RunSummary(runs, ["a"], failures, "interrupted", True)
    point = run.run_point(SETTINGS, lineages, record, summary)
    return run.as_run_report(point, BEGIN)


def dry_run() -> list[Point]:
    """Return the points of a dry run."""
    results = {"a": run.LineageResult(run.RENEWED, "", None)}
    dry = CERTBOT_RUN._replace(is_dry_run=True, results=results)
    return run.dry_run_points(SETTINGS, [dry])


def deliveries() -> list[Point]:
    """Return the point of a delivery."""
    delivery = hook.Delivery("example.com", "haproxy")
    return hook.delivery_points(SETTINGS, [delivery], [example_certificate()], BEGIN)


SECTIONS = {
    "Renewals": hook.renewal_points(SETTINGS, example_certificate()),
    "State of a certificate": [state_of_served_certificate()],
    "Deliveries": deliveries(),
    "Runs of certbot": [run_of_certbot()],
    "Dry runs": dry_run(),
}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_fields_are_those_that_the_programs_write(section: str) -> None:
    assert documented_fields(section) == fields_of(SECTIONS[section])


def test_the_tags_are_those_that_the_programs_write() -> None:
    points = [point for section in SECTIONS.values() for point in section]
    tags = {tag for point in points for tag in point.tags}
    assert {row[0] for row in rows_of(PAGE, "Points", "| tag | value |")} == tags


# ---- Queries -----------------------------------------------------------------------------------
def test_the_queries_are_those_of_the_folder() -> None:
    queries = [row[0] for row in rows_of(PAGE, "Queries", "| query | shows |")]
    assert sorted(queries) == sorted(path.name for path in (ROOT / "flux").iterdir())


def start_reader(machine: Machine, influxdb_name: str) -> InfluxDB:
    """Start InfluxDB with a certificate in the bucket `certbot`, and set the queries to it."""
    try:
        influxdb = machine.add_influxdb(influxdb_name)
    except MissingServer as error:
        skip_or_fail(error)
    with machine.network():
        if influxdb.major == 1:
            influxdb.command('CREATE DATABASE "certbot"')
        else:
            influxdb.post("/api/v2/buckets", name="certbot", orgID=influxdb.org_id())
        now = int(time.time())
        points = [
            certificate_renewal("example.com", now, ["example.com"]),
            certificate_state("example.com", now + 60 * DAY),
        ]
        write(influxdb, "certbot", *points)
    follow(machine, blocks_of(PAGE, ["Queries"]))
    return influxdb


def with_token(block: Block, influxdb: InfluxDB) -> Block:
    """Return a block with the token of this server."""
    return block._replace(text=block.text.replace("fake-token", influxdb.token or "user:password"))


def test_the_command_influx_prints_a_query_as_a_table(tmp_path: Path) -> None:
    with start_machine(tmp_path) as machine:
        try:
            machine.add_built_program("influx")
        except MissingServer as error:
            skip_or_fail(error)
        influxdb = start_reader(machine, "influxd-2")
        follow(
            machine, [with_token(block, influxdb) for block in blocks_of(PAGE, ["Command line"])]
        )


@pytest.mark.parametrize("influxdb_name", ["influxd-1.8", "influxd-1.12", "influxd-2"])
def test_a_request_prints_the_history_as_csv(influxdb_name: str, tmp_path: Path) -> None:
    with start_machine(tmp_path) as machine:
        influxdb = start_reader(machine, influxdb_name)
        for_2, for_1, output = blocks_of(PAGE, ["HTTP"])
        if influxdb.major == 2:
            follow(machine, [with_token(for_2, influxdb), output])
        elif influxdb_name == "influxd-1.12":
            follow(machine, [for_1, output])
        else:
            lines = machine.run(for_1.text).splitlines()
            assert [line.startswith("#") for line in lines[:4]] == [True, True, True, False]
            assert lines[3] == output.text.splitlines()[0]
            assert "example.com" in lines[4]
