"""A renewed certificate that is not served: the queries, and the alert on Kapacitor."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from certbot_renewal_report import Point
from support.alerts import WatchedBucket, critical_alerts, utc
from support.hooks import next_second
from support.nginx import serving_lineages
from support.points import (
    HOUR,
    certificate_state,
    name_renewal,
    reported_state,
    retired_state,
    served_state,
    write,
)
from support.queries import Rows, days_in, rows_by, run_query, unix_seconds
from support.servers import Alerting, require_program
from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.lineages import DAY, KEY, make_lineage
from tools.servers.processes import built_program

TASKS = ["certificate_not_served"]
INFLUXDB_2 = pytest.mark.parametrize("alerting", ["influxd-2"], indirect=True)


def other_served(lineage: str, renewed: int, expiry: int, at: int | None = None) -> Point:
    """Return the state of a renewed certificate when a.example.com serves another one."""
    return served_state(
        lineage, renewed, 0, not_served="a.example.com", served_expiry=expiry, at=at
    )


# ---- The query ---------------------------------------------------------------------------------
def days_unserved(rows: Rows) -> dict[str, float]:
    """Return the days for which another certificate has been served; -1: none is."""
    return {row["lineage"]: days_in("days_unserved", row, digits=2) for row in rows}


def test_a_certificate_that_nobody_looks_for_has_no_row(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, certificate_state("a", int(time.time()) + DAY))

    assert run_query(influxdb, "not_served", bucket) == []


def test_a_certificate_is_not_served_since_its_renewal(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    renewed = now - 2 * DAY
    expiry = now + 28 * DAY
    endpoints = "a.example.com b.example.com:993"
    write(
        influxdb,
        bucket,
        served_state("fine", renewed, 2, not_served="none"),
        served_state("other", renewed, 1, not_served=endpoints, served_expiry=expiry),
    )

    rows = rows_by("lineage", run_query(influxdb, "not_served", bucket))

    assert days_unserved(list(rows.values())) == {"fine": -1, "other": 2}
    assert {row["checked"] for row in rows.values()} == {"true"}
    other = rows["other"]
    assert other["not_served"] == endpoints
    assert other["served"] == "1"
    assert unix_seconds(other["renewed"]) == renewed
    assert unix_seconds(other["expiry"]) == expiry
    assert days_in("days_left", other) == 28


def test_the_last_answer_counts_until_an_endpoint_answers_again(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    renewed = now - 2 * DAY
    expiry = now + 28 * DAY
    yesterday = now - DAY
    write(
        influxdb,
        bucket,
        # Nobody answers now: what was seen yesterday counts, as of yesterday.
        other_served("away", renewed, expiry, at=yesterday),
        served_state("away", renewed, 0),
        served_state("never-there", renewed, 0),
        other_served("recovered", renewed, expiry, at=now - 60),
        served_state("recovered", renewed, 1, not_served="none"),
    )

    rows = run_query(influxdb, "not_served", bucket)

    assert days_unserved(rows) == {"away": 1, "never-there": -1, "recovered": -1}
    assert {row["checked"] for row in rows} == {"true"}


def test_after_a_renewal_the_days_are_counted_from_0(influxdb: InfluxDB) -> None:
    """The deploy hook reports the renewal without a look."""
    bucket = influxdb.new_bucket()
    now = int(time.time())
    before = now - 60 * DAY
    expired = now - DAY
    write(
        influxdb,
        bucket,
        other_served("a", before, expired, at=now - HOUR),
        reported_state("a", now + 60 * DAY, now),
    )

    (row,) = run_query(influxdb, "not_served", bucket)

    assert days_in("days_unserved", row, digits=2) == 0
    assert days_in("days_left", row) == -1
    assert row["checked"] == "true"


def test_a_certificate_is_no_longer_looked_at_when_it_is_retired_or_left_out_for_two_days(
    influxdb: InfluxDB,
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    renewed = now - 2 * DAY
    expiry = now + 28 * DAY
    three_days_ago = now - 3 * DAY
    write(
        influxdb,
        bucket,
        other_served("left-out", renewed, expiry, at=three_days_ago),
        reported_state("left-out", renewed + 60 * DAY, now),
        other_served("retired", renewed, expiry, at=now - 60),
        retired_state("retired", run_at=now),
    )

    rows = run_query(influxdb, "not_served", bucket)

    assert days_unserved(rows) == {"left-out": -1, "retired": -1}
    assert {row["checked"] for row in rows} == {"false"}


# ---- The query about what Telegraf sees --------------------------------------------------------
TELEGRAF_CONF = """
[agent]
omit_hostname = true
[[inputs.x509_cert]]
sources = ["{source}"]
"""

TELEGRAF_OUTPUT_1 = """
[[outputs.influxdb]]
urls = ["{url}"]
database = "{bucket}"
skip_database_creation = true
"""

TELEGRAF_OUTPUT_2 = """
[[outputs.influxdb_v2]]
urls = ["{url}"]
bucket = "{bucket}"
organization = "{org}"
token = "{token}"
"""


def look_with_telegraf(influxdb: InfluxDB, bucket: str, folder: Path, source: str) -> None:
    """Let a real Telegraf look at a source once, set up as the query's comment says."""
    output = TELEGRAF_OUTPUT_1 if influxdb.major == 1 else TELEGRAF_OUTPUT_2
    text = (TELEGRAF_CONF + output).format(
        source=source, url=influxdb.url, bucket=bucket, org=ORG, token=influxdb.token
    )
    conf = folder / "telegraf.conf"
    conf.write_text(text)
    process = subprocess.run(
        [built_program("telegraf"), "--config", str(conf), "--once"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    next_second()  # Telegraf rounds the time to a second, up or down


def seen_by_telegraf(source: str, not_before: int, at: int) -> str:
    """Return the line that Telegraf writes about another certificate of 90 days for localhost."""
    tags = f"san=localhost,serial_number=2,source={source}"
    return f"x509_cert,{tags} startdate={not_before}i,enddate={not_before + 90 * DAY}i {at}"


def test_what_telegraf_sees_is_compared_with_the_last_renewal_of_the_name(
    influxdb: InfluxDB, tmp_path: Path
) -> None:
    require_program("telegraf")
    bucket = influxdb.new_bucket()
    now = int(time.time())
    first = now - 62 * DAY
    renewed = now - 2 * DAY
    certbot_folder = tmp_path / "letsencrypt"
    make_lineage(certbot_folder, "a", ["localhost"], first, 90 * DAY, key=KEY)
    write(
        influxdb,
        bucket,
        name_renewal("localhost", first),
        name_renewal("localhost", renewed),
        name_renewal("other", now - 9 * DAY),
    )

    with serving_lineages(tmp_path / "nginx", certbot_folder, "a") as nginx:
        source = f"tcp://localhost:{nginx.ports['a']}"
        look_with_telegraf(influxdb, bucket, tmp_path, source)

    (row,) = run_query(influxdb, "not_served_x509", bucket)
    assert (row["source"], row["name"]) == (source, "localhost")
    assert days_in("days_unserved", row, digits=2) == 2
    assert days_in("days_left", row, digits=2) == 28

    next_second()  # so that this certificate is seen after the other one
    write(influxdb, bucket, seen_by_telegraf(source, renewed, int(time.time())))
    (row,) = run_query(influxdb, "not_served_x509", bucket)
    assert float(row["days_unserved"]) == -1
    assert days_in("days_left", row) == 88


# ---- The alert ---------------------------------------------------------------------------------
@INFLUXDB_2
def test_the_alert_fires_a_day_after_the_renewal(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, TASKS)
    now = int(time.time())
    renewed = now - 2 * DAY
    watched.write(
        other_served("late", renewed, now + 28 * DAY),
        served_state("fine", renewed, 1, not_served="none"),
        # In ten minutes its day is over.
        other_served("not-yet", now - DAY + 600, now + DAY),
    )

    (subject,) = watched.next_subjects(1)

    assert subject == (
        f"WARNING: late on web1: not served for a.example.com, renewed {utc(renewed)}, "
        f"the served certificate expires {utc(now + 28 * DAY)}"
    )
    assert critical_alerts(watched.kapacitor) == set()
    assert watched.kapacitor.errors() == []


def late_soon_and_expired(now: int) -> list[Point]:
    """Return states of renewed certificates; what is served instead expires late, soon, or has."""
    renewed = now - 2 * DAY
    return [
        other_served("late", renewed, now + 28 * DAY),
        other_served("soon", renewed, now + 2 * DAY),
        # Renewed a minute ago, but what is served is no longer valid.
        other_served("expired", now - 60, now - DAY),
    ]


@INFLUXDB_2
def test_the_alert_is_urgent_when_the_other_certificate_expires_soon(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, TASKS)
    watched.write(*late_soon_and_expired(int(time.time())))

    subjects = watched.next_subjects(3)

    assert [subject.partition(" for ")[0] for subject in subjects] == [
        "CRITICAL: expired on web1: not served",
        "CRITICAL: soon on web1: not served",
        "WARNING: late on web1: not served",
    ]
    assert critical_alerts(watched.kapacitor) == {
        "certificate_not_served/web1/expired",
        "certificate_not_served/web1/soon",
    }
    assert watched.kapacitor.errors() == []


@INFLUXDB_2
def test_the_alert_resolves_when_the_renewed_certificate_is_served(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, TASKS)
    now = int(time.time())
    watched.write(*late_soon_and_expired(now))
    watched.next_subjects(3)

    watched.write(
        served_state("late", now - 2 * DAY, 1, not_served="none"),
        served_state("soon", now - 2 * DAY, 1, not_served="none"),
        served_state("expired", now - 2 * DAY, 1, not_served="none"),
    )

    assert watched.next_subjects(3) == [
        "OK: expired on web1: the renewed certificate is served",
        "OK: late on web1: the renewed certificate is served",
        "OK: soon on web1: the renewed certificate is served",
    ]
    assert watched.kapacitor.errors() == []
