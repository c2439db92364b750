"""A renewed certificate that is not delivered to a target: the query, and Kapacitor's alert."""

from __future__ import annotations

import time

import pytest

from certbot_renewal_report import Point
from support.alerts import WatchedBucket, critical_alerts, mail_text
from support.points import certificate_state, retired_state, target_state, with_tag, write
from support.queries import Rows, days_in, run_query, unix_seconds
from support.servers import Alerting
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY

TASKS = ["certificate_not_delivered"]
INFLUXDB_2 = pytest.mark.parametrize("alerting", ["influxd-2"], indirect=True)


# ---- The query ---------------------------------------------------------------------------------
def days_missing(rows: Rows) -> dict[str, float]:
    """Return the days for which each target has lacked the renewed certificate; -1: it has it."""
    return {row["target"]: days_in("days_missing", row, digits=2) for row in rows}


def test_without_deliveries_there_are_no_rows(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, certificate_state("a", int(time.time()) + DAY), retired_state("b"))

    assert run_query(influxdb, "not_delivered", bucket) == []


def test_a_target_that_has_the_renewed_certificate_lacks_nothing(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    old = now - 62 * DAY
    renewed = now - 2 * DAY
    before_tag = target_state("tagged", deployed=old, renewed=renewed, at=now - 90)
    write(
        influxdb,
        bucket,
        certificate_state("a", renewed + 60 * DAY),
        target_state("fine", deployed=renewed, renewed=renewed),
        target_state("newer", deployed=renewed + 5, renewed=renewed),
        target_state("recovered", deployed=old, renewed=renewed, at=now - 90),
        target_state("recovered", deployed=renewed, renewed=renewed, at=now - 60),
        with_tag(before_tag, "dc", "north"),
        target_state("tagged", deployed=renewed, renewed=renewed),
    )

    rows = run_query(influxdb, "not_delivered", bucket)

    expected = dict.fromkeys(["fine", "newer", "recovered", "tagged"], -1)
    assert len(rows) == len(expected)
    assert days_missing(rows) == expected
    assert {row["retired"] for row in rows} == {"false"}


def test_a_target_lacks_the_certificate_since_its_renewal(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    old = now - 62 * DAY
    renewed = now - 2 * DAY
    write(
        influxdb,
        bucket,
        certificate_state("a", renewed + 60 * DAY),
        certificate_state("c", renewed + 60 * DAY),
        target_state("late", deployed=old, renewed=renewed),
        # The last report of its host, whose clock is 40 days ahead.
        target_state(
            "late-then", deployed=old, renewed=renewed, run_at=now + 39 * DAY, at=now - DAY
        ),
        target_state("never", deployed=0, renewed=renewed),
        target_state("of-another", deployed=old, renewed=renewed - DAY, lineage="c"),
    )

    rows = run_query(influxdb, "not_delivered", bucket)

    assert days_missing(rows) == {"late": 2, "late-then": 1, "never": 2, "of-another": 3}
    assert {row["target"]: row["lineage"] for row in rows} == {
        "late": "a",
        "late-then": "a",
        "never": "a",
        "of-another": "c",
    }
    assert {row["retired"] for row in rows} == {"false"}


def test_a_row_says_what_the_target_has_and_why_the_last_attempt_failed(
    influxdb: InfluxDB,
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    old = now - 62 * DAY
    renewed = now - 2 * DAY
    write(
        influxdb,
        bucket,
        certificate_state("a", renewed + 60 * DAY),
        target_state("late", deployed=old, renewed=renewed, error="refused"),
        target_state("never", deployed=0, renewed=renewed),
    )

    late, never = sorted(
        run_query(influxdb, "not_delivered", bucket), key=lambda row: row["target"]
    )

    assert unix_seconds(late["renewed"]) == renewed
    assert unix_seconds(late["expiry"]) == old + 90 * DAY
    assert days_in("days_left", late) == 28
    assert late["deploy_error"] == "refused"
    assert late["never_delivered"] == "false"
    assert never["never_delivered"] == "true"
    assert float(never["days_left"]) == 0


def test_a_retired_delivery_and_one_of_a_retired_certificate_lack_nothing(
    influxdb: InfluxDB,
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certificate_state("a", now + 58 * DAY),
        retired_state("b"),
        target_state("retired", deployed=0, renewed=0),
        target_state("of-b", deployed=now - 62 * DAY, renewed=now - 2 * DAY, lineage="b"),
    )

    rows = run_query(influxdb, "not_delivered", bucket)

    assert days_missing(rows) == {"retired": -1, "of-b": -1}
    assert {row["retired"] for row in rows} == {"true"}


# ---- The alert ---------------------------------------------------------------------------------
def undelivered(now: int) -> list[Point]:
    """Return deliveries of a that fail: renewed two days ago, but for the target "expired".

    What the target has expires in 28 days (edge), in three days (soon), or has expired. It never
    had anything (never).
    """
    old = now - 62 * DAY
    renewed = now - 2 * DAY
    return [
        certificate_state("a", renewed + 60 * DAY),
        target_state("edge", deployed=old, renewed=renewed, error="no route to host"),
        target_state("soon", deployed=old, renewed=renewed, lifetime=65 * DAY),
        target_state("never", deployed=0, renewed=renewed),
        # Renewed a minute ago, but the target has nothing that is valid.
        target_state("expired", deployed=old, renewed=now - 60, lifetime=61 * DAY),
    ]


def undelivered_of_b(now: int) -> list[Point]:
    """Return a delivery of b that fails."""
    renewed = now - 2 * DAY
    return [
        certificate_state("b", renewed + 60 * DAY),
        target_state("edge", deployed=now - 62 * DAY, renewed=renewed, lineage="b"),
    ]


@INFLUXDB_2
def test_the_alert_fires_a_day_after_the_renewal_for_each_target(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, TASKS)
    now = int(time.time())
    renewed = now - 2 * DAY
    day_is_over_in_ten_minutes = now - DAY + 600
    watched.write(
        *undelivered(now),
        *undelivered_of_b(now),
        target_state("fine", deployed=renewed, renewed=renewed),
        target_state(
            "not-yet",
            deployed=now - 60 * DAY,
            renewed=day_is_over_in_ten_minutes,
            lifetime=61 * DAY,
        ),
    )

    subjects = watched.next_subjects(5)

    assert [subject.partition(", renewed ")[0] for subject in subjects] == [
        "CRITICAL: a on web1: not delivered to expired",
        "CRITICAL: a on web1: not delivered to soon",
        "WARNING: a on web1: not delivered to edge",
        "WARNING: a on web1: not delivered to never",
        "WARNING: b on web1: not delivered to edge",
    ]
    mail = mail_text(alerting.inbox, "WARNING: a on web1: not delivered to edge")
    assert "The last delivery failed: no route to host" in mail
    assert watched.kapacitor.errors() == []


@INFLUXDB_2
def test_the_alert_is_critical_when_the_certificate_of_the_target_expires_soon(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting, TASKS)
    watched.write(*undelivered(int(time.time())))

    watched.next_subjects(4)

    assert critical_alerts(watched.kapacitor) == {
        "certificate_not_delivered/web1/a/expired",
        "certificate_not_delivered/web1/a/soon",
    }
    assert watched.kapacitor.errors() == []


@INFLUXDB_2
def test_a_delivery_and_the_end_of_a_delivery_resolve_the_alert(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, TASKS)
    now = int(time.time())
    renewed = now - 2 * DAY
    watched.write(*undelivered(now), *undelivered_of_b(now))
    watched.next_subjects(5)

    watched.write(
        target_state("edge", deployed=renewed, renewed=renewed),
        target_state("soon", deployed=renewed, renewed=renewed),
        target_state("never", deployed=renewed, renewed=renewed),
        target_state("expired", deployed=0, renewed=0),
        retired_state("b"),
    )

    assert watched.next_subjects(5) == [
        "OK: a on web1: delivered to edge",
        "OK: a on web1: delivered to never",
        "OK: a on web1: delivered to soon",
        "OK: a on web1: no longer delivered to expired",
        "OK: b on web1: no longer delivered to edge",
    ]
    assert watched.kapacitor.errors() == []
