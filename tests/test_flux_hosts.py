"""The queries that say which hosts fail, and which hosts are silent, on every InfluxDB."""

from __future__ import annotations

import time

import pytest

from support.points import (
    HOUR,
    certbot_run,
    certificate_state,
    post_hook_run,
    report_by_hand,
    reported_state,
    retired_host,
    with_tag,
    write,
)
from support.queries import Rows, days_in, rows_by, run_query, unix_seconds
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY

MOST_HOSTS = "(most hosts)"


# ---- failing -----------------------------------------------------------------------------------
def failing_steps(rows: Rows) -> dict[str, list[bool]]:
    """Return for each host whether it fails at step 1, step 2 and so on."""
    by_host: dict[str, list[bool]] = {}
    for row in sorted(rows, key=lambda row: int(row["step"])):
        steps = by_host.setdefault(row["host"], [])
        steps.append(row["failing"] == "true")
        assert row["step"] == str(len(steps))
    return by_host


def test_a_host_fails_when_its_last_run_left_something_not_renewed(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("recovered", now - 2 * HOUR, failed="a b", unreadable="c", exit_status=1),
        certbot_run("recovered", now - 60),
        certbot_run("failed", now - 2 * HOUR),
        certbot_run("failed", now - 60, failed="a b", exit_status=1),
    )

    rows = rows_by("host", run_query(influxdb, "failing", bucket))

    assert failing_steps(list(rows.values())) == {"recovered": [False], "failed": [True]}
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
        post_hook_run("unreadable", now - 60, unreadable="c"),
        certbot_run("error", now - 60, exit_status=1),
    )

    rows = rows_by("host", run_query(influxdb, "failing", bucket))

    assert failing_steps(list(rows.values())) == {"unreadable": [True], "error": [True]}
    assert rows["unreadable"]["unreadable"] == "c"
    assert rows["unreadable"]["exit_status"] == "-1"  # not known


def test_a_host_fails_for_the_reasons_of_its_last_run(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    failures = "a: no route to host | b: rate limit"
    write(
        influxdb,
        bucket,
        certbot_run("lineages", now - 2 * HOUR, exit_status=1, failure="no network"),
        certbot_run("lineages", now - 60, failed="a b", exit_status=1, failures=failures),
        certbot_run("whole", now - 2 * HOUR, failed="a b", exit_status=1, failures=failures),
        certbot_run("whole", now - 60, exit_status=1, failure="no network"),
        certbot_run("recovered", now - 2 * HOUR, failed="a", exit_status=1, failures="a: no"),
        certbot_run("recovered", now - 60),
    )

    rows = rows_by("host", run_query(influxdb, "failing", bucket))

    reasons = {host: (row["failures"], row["failure"]) for host, row in rows.items()}
    assert reasons == {
        "lineages": (failures, "none"),
        "whole": ("none", "no network"),
        "recovered": ("none", "none"),
    }
    assert rows["whole"]["failed"] == "none"


def test_a_host_has_a_row_for_each_step_that_it_reached(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("first", now - 60, failed="a", step=1, steps=1),
        certbot_run("third", now - 60, failed="a", step=3, steps=3),
        certbot_run("new incident", now - 60, failed="a", step=1, steps=3),
        certbot_run("recovered", now - 60, step=0, steps=3),
        certbot_run("seventh", now - 60, failed="a", step=7, steps=9),
        certbot_run("fine", now - 60),
    )

    rows = run_query(influxdb, "failing", bucket)

    assert failing_steps(rows) == {
        "first": [True],
        "third": [True, True, True],
        "new incident": [True, False, False],
        "recovered": [False, False, False],
        "seventh": [True] * 5,
        "fine": [False],
    }


def test_a_retired_host_fails_at_no_step(influxdb: InfluxDB) -> None:
    """The host that retires another one does not know which steps the other one reached."""
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("web1", now - 2 * HOUR, failed="a b", exit_status=1, step=4),
        retired_host("web1", now - 60),
    )

    rows = run_query(influxdb, "failing", bucket)

    assert failing_steps(rows) == {"web1": [False] * 5}
    assert {row["failed"] for row in rows} == {"none"}


def test_the_exit_status_of_an_older_run_does_not_count(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("web1", now - 2 * HOUR, exit_status=1),
        post_hook_run("web1", now - 60),
    )

    (row,) = run_query(influxdb, "failing", bucket)

    assert row["failing"] == "false"
    assert row["exit_status"] == "-1"


def test_a_report_without_a_run_of_certbot_does_not_change_how_the_last_run_went(
    influxdb: InfluxDB,
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("web1", now - 2 * HOUR, failed="a b", exit_status=1, failures="a: no route"),
        report_by_hand("web1", now - 60),
    )

    (row,) = run_query(influxdb, "failing", bucket)

    assert row["failing"] == "true"
    assert row["failed"] == "a b"
    assert row["exit_status"] == "1"
    assert row["failures"] == "a: no route"
    assert unix_seconds(row["last_report"]) == now - 60


def test_a_host_without_run_reports_is_not_judged_by_its_runs(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(influxdb, bucket, certificate_state("a", now + DAY), report_by_hand("web2", now - 60))

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
        certbot_run("fine", now - 60),
        report_by_hand("by hand", now - 60),
        certbot_run("retired", now - 31 * DAY),
        retired_host("retired", now - 30 * DAY),
        certbot_run("back", now - 31 * DAY),
        retired_host("back", now - 30 * DAY),
        certbot_run("back", now - 60),
        certbot_run("silent", two_days_ago),
        # The states of its certificates, and the post hook, are no evidence that certbot is
        # started regularly.
        reported_state("a", now + DAY, now - 60, host="silent"),
        post_hook_run("silent", now - 60),
        certificate_state("a", now - DAY, host="deploy-hook-only", at=now - 90 * DAY),
        post_hook_run("post-hook-only", now - 9 * DAY),
    )

    rows = rows_by("host", run_query(influxdb, "silent_hosts", bucket))

    assert days_silent(list(rows.values())) == {
        "fine": 0,
        "by hand": 0,
        "retired": -1,
        "back": 0,
        "silent": 2,
        MOST_HOSTS: -1,
    }
    assert unix_seconds(rows["silent"]["last_report"]) == two_days_ago
    assert {row["hosts"] for row in rows.values()} == {"none"}


@pytest.mark.parametrize("clock_error", [-40 * DAY, 40 * DAY], ids=["behind", "ahead"])
def test_a_host_with_a_wrong_clock_is_silent_since_its_report_arrived(
    influxdb: InfluxDB, clock_error: int
) -> None:
    bucket = influxdb.new_bucket()
    arrived_at = int(time.time()) - 3 * DAY
    run = certbot_run("web1", arrived_at)
    fields = {**run.fields, "started_at": arrived_at + clock_error}
    write(influxdb, bucket, run._replace(fields=fields))

    assert days_silent(run_query(influxdb, "silent_hosts", bucket)) == {"web1": 3, MOST_HOSTS: -1}


def test_when_most_hosts_are_silent_one_row_names_them(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("fine", now - 60),
        certbot_run("gone", now - 2 * DAY),
        certbot_run("old", now - 3 * DAY),
        certbot_run("retired", now - 31 * DAY),
        retired_host("retired", now - 30 * DAY),
        certificate_state("a", now - DAY, host="deploy-hook-only", at=now - 90 * DAY),
    )

    rows = rows_by("host", run_query(influxdb, "silent_hosts", bucket))

    assert days_in("days_silent", rows[MOST_HOSTS]) == 2
    assert rows[MOST_HOSTS]["hosts"] == "2 of 3 hosts: gone, old"


def test_when_many_hosts_are_silent_the_row_names_ten(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    three_days_ago = int(time.time()) - 3 * DAY
    hosts = [f"web{number:02}" for number in range(12)]
    write(influxdb, bucket, *[certbot_run(host, three_days_ago) for host in hosts])

    rows = rows_by("host", run_query(influxdb, "silent_hosts", bucket))

    first_ten = ", ".join(hosts[:10])
    assert rows[MOST_HOSTS]["hosts"] == f"12 of 12 hosts: {first_ten}, ..."


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
        hosts = [f"web{number}" for number in range(host_count)]
        write(influxdb, bucket, *[certbot_run(host, reported_at) for host in hosts])


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
    old_run = certbot_run("web1", now - 9 * DAY, failed="a b", exit_status=1)
    new_run = certbot_run("web1", now - 60)
    write(
        influxdb,
        bucket,
        with_tag(old_run, "dc", tag_before),
        with_tag(new_run, "dc", tag_after),
    )

    assert failing_steps(run_query(influxdb, "failing", bucket)) == {"web1": [False]}
    assert days_silent(run_query(influxdb, "silent_hosts", bucket)) == {"web1": 0, MOST_HOSTS: -1}
