"""The queries that say which hosts fail, and which hosts are silent, on every InfluxDB."""

from __future__ import annotations

import time

import pytest

from support.points import (
    HOUR,
    certbot_run,
    certificate_state,
    make_point,
    reported_state,
    retired_state,
    with_tag,
    write,
)
from support.queries import Rows, days_in, rows_by, run_query, unix_seconds
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY

MOST_HOSTS = "(most hosts)"


# ---- failing -----------------------------------------------------------------------------------
def failing_hosts(rows: Rows) -> dict[str, bool]:
    """Return for each host whether it fails."""
    by_host = rows_by("host", rows)
    return {host: row["failing"] == "true" for host, row in by_host.items()}


def test_a_host_fails_when_its_last_run_left_something_not_renewed(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("recovered", now - 2 * HOUR, failed="a b", unreadable="c", exit_status=1),
        certbot_run("recovered", now - 60, exit_status=0),
        certbot_run("failed", now - 2 * HOUR, exit_status=0),
        certbot_run("failed", now - 60, failed="a b", exit_status=1),
    )

    rows = rows_by("host", run_query(influxdb, "failing", bucket))

    assert failing_hosts(list(rows.values())) == {"recovered": False, "failed": True}
    assert rows["failed"]["failed"] == "a b"
    assert rows["failed"]["exit_status"] == "1"
    assert unix_seconds(rows["failed"]["last_report"]) == now - 60
    assert rows["recovered"]["failed"] == "none"
    assert rows["recovered"]["unreadable"] == "none"


def test_a_host_fails_when_a_lineage_is_unreadable_or_certbot_ends_with_an_error(
    influxdb: InfluxDB,
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("unreadable", now - 60, unreadable="c"),
        certbot_run("error", now - 60, exit_status=1),
    )

    rows = rows_by("host", run_query(influxdb, "failing", bucket))

    assert failing_hosts(list(rows.values())) == {"unreadable": True, "error": True}
    assert rows["unreadable"]["unreadable"] == "c"
    assert rows["unreadable"]["exit_status"] == "-1"  # not known


def test_the_exit_status_of_an_older_run_does_not_count(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("web1", now - 2 * HOUR, exit_status=1),
        certbot_run("web1", now - 60),  # of a post hook
    )

    assert failing_hosts(run_query(influxdb, "failing", bucket)) == {"web1": False}


def test_a_report_without_a_run_of_certbot_does_not_change_how_the_last_run_went(
    influxdb: InfluxDB,
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    report_by_hand = make_point(
        {"host": "web1"}, {"certificates": 1, "unreadable_count": 0}, now - 60
    )
    write(
        influxdb,
        bucket,
        certbot_run("web1", now - 2 * HOUR, failed="a b", exit_status=1),
        report_by_hand,
    )

    (row,) = run_query(influxdb, "failing", bucket)

    assert row["failing"] == "true"
    assert row["failed"] == "a b"
    assert row["exit_status"] == "1"


def test_a_host_without_run_reports_is_not_judged_by_its_runs(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, certificate_state("a", int(time.time()) + DAY))

    assert run_query(influxdb, "failing", bucket) == []


# ---- silent_hosts ------------------------------------------------------------------------------
def days_silent(rows: Rows) -> dict[str, float]:
    """Return the full days of silence by host, -1 for a host that is not expected to report."""
    by_host = rows_by("host", rows)
    return {host: days_in("days_silent", row) for host, row in by_host.items()}


def test_a_host_is_silent_since_its_last_run_report(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    two_days_ago = now - 2 * DAY
    write(
        influxdb,
        bucket,
        reported_state("a", now + DAY, now - 60, host="fine"),
        retired_state("retired", host="fine", run_at=now - 30 * DAY, at=now - 30 * DAY),
        retired_state("a", host="retired", run_at=now - 30 * DAY, at=now - 30 * DAY),
        certificate_state("a", now - DAY, host="deploy-hook-only", at=now - 90 * DAY),
        reported_state("a", now - DAY, two_days_ago, host="silent"),
    )

    rows = rows_by("host", run_query(influxdb, "silent_hosts", bucket))

    assert days_silent(list(rows.values())) == {
        "fine": 0,
        "retired": -1,
        "deploy-hook-only": -1,
        "silent": 2,
        MOST_HOSTS: -1,
    }
    assert rows["fine"]["lineages"] == "a"
    assert rows["retired"]["lineages"] == "none"
    assert rows["deploy-hook-only"]["lineages"] == "none"
    assert rows["silent"]["lineages"] == "a"


def test_a_host_is_silent_when_one_of_its_installations_is(influxdb: InfluxDB) -> None:
    """Two installations of certbot share a host tag, and one of them stopped."""
    bucket = influxdb.new_bucket()
    now = int(time.time())
    three_days_ago = now - 3 * DAY
    write(
        influxdb,
        bucket,
        reported_state("a", now + DAY, now - 60),
        reported_state("b", now + DAY, three_days_ago),
        reported_state("c", now + DAY, three_days_ago),
    )

    rows = rows_by("host", run_query(influxdb, "silent_hosts", bucket))

    assert days_in("days_silent", rows["web1"]) == 3
    assert rows["web1"]["lineages"] == "b c"
    assert unix_seconds(rows["web1"]["last_report"]) == three_days_ago


def test_when_most_hosts_are_silent_one_row_names_them(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        reported_state("a", now + DAY, now - 60, host="fine"),
        reported_state("a", now + DAY, now - 2 * DAY, host="gone"),
        reported_state("a", now + DAY, now - 3 * DAY, host="old"),
        retired_state("a", host="retired", run_at=now - 30 * DAY, at=now - 30 * DAY),
        certificate_state("a", now - DAY, host="deploy-hook-only", at=now - 90 * DAY),
    )

    rows = rows_by("host", run_query(influxdb, "silent_hosts", bucket))

    assert days_in("days_silent", rows[MOST_HOSTS]) == 2
    assert rows[MOST_HOSTS]["lineages"] == "2 of 3 hosts: gone, old"


# How many hosts reported how many days ago, and whether the query then takes InfluxDB for the cause
# ("most_hosts_away"): no host is judged by itself. 2.5 days ago all hosts reported.
FLEETS = {
    "five hosts report all the time": ({0.5: 5, 1.5: 5, 2.5: 5}, False),
    "two of five are silent": ({0.5: 3, 1.5: 3, 2.5: 5}, False),
    "three of five have not reported for a day": ({0.5: 2, 1.5: 5, 2.5: 5}, True),
    "three of five came back after two days": ({0.5: 5, 1.5: 2, 2.5: 5}, True),
    "three of five are silent": ({0.5: 2, 1.5: 2, 2.5: 5}, True),
    "all five are silent": ({2.5: 5}, True),
    "two of five are silent and the others came back just now": ({0.01: 3, 1.9: 3, 2.5: 5}, True),
    "two of five are silent and the others came back before": ({0.2: 3, 1.01: 3, 2.5: 5}, False),
    "one of three is silent": ({0.5: 2, 1.5: 2, 2.5: 3}, False),
    "two of three are silent": ({0.5: 1, 1.5: 1, 2.5: 3}, True),
    "both of two are silent": ({2.5: 2}, False),
    "the only host is silent": ({2.5: 1}, False),
}
MOST_SILENT = (
    "three of five are silent",
    "all five are silent",
    "two of three are silent",
)


def write_reports_of_fleet(
    influxdb: InfluxDB, bucket: str, now: int, hosts_by_days_ago: dict[float, int]
) -> None:
    """Write run reports: so many days ago, of the first so many hosts."""
    for days_ago, host_count in hosts_by_days_ago.items():
        reported_at = now - int(days_ago * DAY)
        for number in range(host_count):
            host = f"web{number}"
            state = reported_state("a", now + DAY, reported_at, host=host)
            write(influxdb, bucket, state, certbot_run(host, reported_at))


@pytest.mark.parametrize("fleet", FLEETS)
def test_no_host_is_judged_by_itself_while_most_hosts_are_not_heard(
    influxdb: InfluxDB, fleet: str
) -> None:
    hosts_by_days_ago, are_away = FLEETS[fleet]
    bucket = influxdb.new_bucket()
    write_reports_of_fleet(influxdb, bucket, int(time.time()), hosts_by_days_ago)

    rows = rows_by("host", run_query(influxdb, "silent_hosts", bucket))
    most_hosts = rows.pop(MOST_HOSTS)

    assert len(rows) == max(hosts_by_days_ago.values())
    assert {row["most_hosts_away"] for row in rows.values()} == {str(are_away).lower()}
    expected_days = 2.5 if fleet in MOST_SILENT else -1.0
    assert float(most_hosts["days_silent"]) == pytest.approx(expected_days, abs=0.01)


# ---- One tag more or less ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tag_before", "tag_after"), [("", "north"), ("north", "")], ids=["added", "removed"]
)
def test_with_another_tag_the_newest_report_of_a_host_counts(
    influxdb: InfluxDB, tag_before: str, tag_after: str
) -> None:
    """The series with the old tags stays in InfluxDB, and nobody writes to it any more."""
    bucket = influxdb.new_bucket()
    now = int(time.time())
    old_state = reported_state("a", now + DAY, now - 9 * DAY)
    old_run = certbot_run("web1", now - 9 * DAY, failed="a b", exit_status=1)
    new_state = reported_state("a", now + DAY, now - 60)
    new_run = certbot_run("web1", now - 60, exit_status=0)
    write(
        influxdb,
        bucket,
        with_tag(old_state, "dc", tag_before),
        with_tag(old_run, "dc", tag_before),
        with_tag(new_state, "dc", tag_after),
        with_tag(new_run, "dc", tag_after),
    )

    assert failing_hosts(run_query(influxdb, "failing", bucket)) == {"web1": False}
    assert days_silent(run_query(influxdb, "silent_hosts", bucket)) == {"web1": 0, MOST_HOSTS: -1}
