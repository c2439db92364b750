"""docs/influxdb2.md, followed by a reader with the command influx."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.machine import Machine, start_machine
from support.manual import Block, blocks_of, follow, read_page
from support.points import certbot_run, reported_state, write
from support.webhook import Webhook, start_webhook
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY
from tools.servers.processes import wait_for

PAGE = "influxdb2.md"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with the command influx."""
    with start_machine(tmp_path) as running:
        running.add_built_program("influx")
        yield running


@pytest.fixture
def influxdb(machine: Machine) -> InfluxDB:
    """InfluxDB 2 as docs/servers.md sets it up, with a report of a certificate that is not due."""
    influxdb = machine.add_influxdb("influxd-2")
    _set_up, config, bucket, *_ = blocks_of(read_page("servers.md"), ["InfluxDB 2.x"])
    machine.run(config.text.replace("fake-token", influxdb.token))
    machine.run(bucket.text)
    now = int(time.time())
    with machine.network():
        write(
            influxdb,
            "certbot",
            reported_state("example.com", now + 40 * DAY, now),
            certbot_run("web1", now, exit_status=0),
        )
    return influxdb


@pytest.fixture
def webhook(machine: Machine) -> Iterator[Webhook]:
    """A webhook on the machine."""
    with machine.network(), start_webhook() as running:
        yield running


def blocks(webhook: Webhook, *sections: str) -> list[Block]:
    """Return blocks with the address of the webhook, and with shorter times."""
    return [
        block._replace(
            text=block.text.replace("https://example.com/certificates", webhook.url)
            .replace("every: 2m", "every: 20s")
            .replace("every: 1m", "every: 10s")
        )
        for block in blocks_of(read_page(PAGE), sections)
    ]


def wait_for_notification(webhook: Webhook, text: str) -> None:
    """Wait for a notification that begins with a text.

    With times this short, InfluxDB may send a notification twice.
    """

    def has_come() -> bool:
        return any(message.startswith(text) for message in webhook.next_messages())

    wait_for(has_come, text, 120)


def test_a_reader_gets_a_notification_and_its_recovery(
    machine: Machine, influxdb: InfluxDB, webhook: Webhook
) -> None:
    follow(machine, blocks(webhook, "Edit the template", "Apply the template"))
    proof = blocks(webhook, "Prove the notification and the recovery")
    overdue, restored, times, errors = [block for block in proof if block.is_command]

    follow(machine, [overdue])
    wait_for_notification(webhook, "crit: CRITICAL: example.com on web1: renewal overdue")
    follow(machine, [restored])
    wait_for_notification(webhook, "ok: OK: example.com on web1: renewed")
    follow(machine, [times])
    assert machine.run(errors.text) == ""

    tasks = machine.run("influx task list --org example-org --hide-headers")
    assert tasks.count("15m0s") == 6
    follow(machine, blocks(webhook, "How it notifies"))
    buckets = machine.run("influx bucket list --org example-org --name _monitoring --hide-headers")
    assert "infinite" in buckets
    (remove,) = blocks(webhook, "Remove")
    follow(machine, [remove])
    assert machine.run("influx task list --org example-org --hide-headers") == ""


def test_a_reader_applies_the_template_without_the_command(
    machine: Machine, influxdb: InfluxDB, webhook: Webhook
) -> None:
    follow(machine, blocks(webhook, "Edit the template"))
    (apply,) = blocks(webhook, "Without the command influx")
    with machine.network():
        org_id = influxdb.org_id()
    commands = apply.text.replace("0123456789abcdef", org_id)
    answer = machine.run(commands.replace("fake-token", influxdb.token))
    assert '"stackID"' in answer
    tasks = machine.run("influx task list --org example-org --hide-headers")
    assert tasks.count("15m0s") == 6
