"""docs/kapacitor.md, followed by a reader, and compared with the scripts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documents import rows_of
from support.machine import Machine, start_machine
from support.manual import Block, blocks_of, follow, follow_page, read_page
from support.points import certbot_run, reported_state, write
from support.servers import require_program
from tools import ROOT
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY

PAGE = "kapacitor.md"
FIRST_MAIL = (
    "Configure Kapacitor",
    "Install the alerts",
    "Check the queries",
    "Prove the mail and the recovery",
)

# As the package of Kapacitor has it.
UNIT = """[Service]
ExecStart=kapacitord -config /etc/kapacitor/kapacitor.conf
X-Listens=9092
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with Kapacitor's package."""
    require_program("kapacitord")
    with start_machine(tmp_path) as running:
        for program in ("kapacitord", "kapacitor"):
            running.add_built_program(program)
        running.add_unit("kapacitor.service", UNIT)
        running.run("groupadd --force kapacitor; mkdir -p /var/lib/kapacitor /var/log/kapacitor")
        running.write("/etc/kapacitor/kapacitor.conf", "packaged")
        yield running


def report(machine: Machine, influxdb: InfluxDB) -> None:
    """Report two certificates that are not due into the bucket of the page."""
    now = int(time.time())
    with machine.network():
        if influxdb.major == 2:
            influxdb.post("/api/v2/buckets", name="certbot", orgID=influxdb.org_id())
        else:
            influxdb.command("CREATE DATABASE certbot")
        write(
            influxdb,
            "certbot",
            reported_state("example.com", now + 40 * DAY, now),
            reported_state("example.net", now + 20 * DAY, now),
            certbot_run("web1", now, exit_status=0),
        )


def with_token(blocks: list[Block], influxdb: InfluxDB) -> list[Block]:
    """Return blocks with a token of this InfluxDB; without one the line is removed, for 1.x."""
    line = f'token = "{influxdb.token}"\n' if influxdb.token else ""
    return [
        block._replace(text=block.text.replace('token = "fake-token"\n', line)) for block in blocks
    ]


@pytest.mark.parametrize("influxdb_name", ["influxd-1.12", "influxd-2"])
def test_a_reader_gets_a_mail_for_each_certificate_and_its_recovery(
    machine: Machine, influxdb_name: str
) -> None:
    influxdb = machine.add_influxdb(influxdb_name)
    report(machine, influxdb)

    follow(machine, with_token(blocks_of(read_page(PAGE), FIRST_MAIL), influxdb))

    subjects = sorted(machine.inbox.subjects())
    assert [subject.rpartition(": ")[0] for subject in subjects] == [
        "CRITICAL: example.com on web1",
        "CRITICAL: example.net on web1",
        "OK: example.com on web1",
        "OK: example.net on web1",
    ]
    task = machine.read("/etc/kapacitor/load/tasks/renewal_overdue.yaml")
    original = (ROOT / "kapacitor" / "tasks" / "renewal_overdue.yaml").read_text()
    assert task == original.replace("telegraf}", "certbot}").replace('""', "example-org")


def test_a_reader_finds_a_wrong_organization_in_all_six_tasks(machine: Machine) -> None:
    influxdb = machine.add_influxdb("influxd-2")
    report(machine, influxdb)
    sections = ["Configure Kapacitor", "Install the alerts"]
    follow(machine, with_token(blocks_of(read_page(PAGE), sections), influxdb))
    machine.run("sed -i 's/example-org/nobody/' /etc/kapacitor/load/tasks/*")

    section = blocks_of(read_page(PAGE), ["Check the queries"])
    printed = [machine.run(block.text) for block in section if block.is_command]
    assert len(re.findall(r'errors="[1-9]', printed[1])) == 6
    assert printed[2].count('organization name \\"nobody\\" not found') == 6


def test_a_reader_updates_the_scripts(machine: Machine) -> None:
    influxdb = machine.add_influxdb("influxd-1.12")
    report(machine, influxdb)
    sections = ["Configure Kapacitor", "Install the alerts"]
    follow(machine, with_token(blocks_of(read_page(PAGE), sections), influxdb))
    before = machine.run("cat /etc/kapacitor/load/tasks/*.yaml")

    follow_page(machine, PAGE, "Update and remove")
    machine.run("sleep 2")
    assert machine.run("cat /etc/kapacitor/load/tasks/*.yaml") == before
    assert machine.run("kapacitor list tasks | grep -c true") == "6\n"


# ---- Tables ------------------------------------------------------------------------------------
def test_the_page_lists_the_handlers() -> None:
    rows = rows_of(
        read_page(PAGE),
        "Slack, PagerDuty and webhooks",
        "| file | in `kapacitor.conf` | in the file |",
    )
    files = {path.name for path in (ROOT / "kapacitor" / "handlers").glob("*.example")}
    assert {row[0] for row in rows} == files
