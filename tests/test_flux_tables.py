"""The queries for dashboards and auditors: tables of certificates, names and runs."""

from __future__ import annotations

import time

from certbot_renewal_report import Point
from support.points import (
    certbot_run,
    certificate_renewal,
    certificate_state,
    make_point,
    name_renewal,
    published_renewal,
    retired_state,
    write,
)
from support.queries import days_in, rows_by, run_query, unix_seconds
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY


# ---- Certificates and names --------------------------------------------------------------------
def test_certificates_are_listed_the_oldest_first(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certificate_state("young", now + 59 * DAY),
        certificate_state("old", now + DAY, host="web2"),
        retired_state("retired"),
        # Other points of the hooks are not certificates.
        published_renewal(1, now),
        make_point({"host": "web1"}, {"certificates": 3}, now),
    )

    old, young = run_query(influxdb, "certificates", bucket)

    assert (old["host"], old["lineage"]) == ("web2", "old")
    assert days_in("age_days", old, digits=3) == 59
    assert unix_seconds(old["next_renewal"]) == now + DAY
    assert unix_seconds(old["expiry"]) == now + 31 * DAY
    assert (young["host"], young["lineage"]) == ("web1", "young")
    assert days_in("age_days", young, digits=3) == 1
    assert unix_seconds(young["next_renewal"]) == now + 59 * DAY
    assert unix_seconds(young["expiry"]) == now + 89 * DAY


def test_names_are_listed_with_the_age_of_their_last_renewal(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        name_renewal("a.example.com", now - 5 * DAY),
        name_renewal("b.example.com", now - 50 * DAY),
        name_renewal("a.example.com", now - 65 * DAY),
    )

    older, newer = run_query(influxdb, "domains", bucket)

    assert (older["domain"], older["host"]) == ("b.example.com", "web1")
    assert days_in("age_days", older) == 50
    assert (newer["domain"], newer["host"]) == ("a.example.com", "web1")
    assert days_in("age_days", newer) == 5


# ---- Renewals ----------------------------------------------------------------------------------
def test_renewals_are_counted_per_host_and_day(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    today = int(time.time()) // DAY * DAY
    seven_names = [f"{number}.example.com" for number in range(7)]
    three_days_ago = today - 3 * DAY + 60
    five_days_ago = today - 5 * DAY + 60
    write(
        influxdb,
        bucket,
        certificate_renewal("a", three_days_ago, seven_names, host="web1"),
        certificate_renewal("b", three_days_ago, seven_names, host="web1"),
        certificate_renewal("a", five_days_ago, seven_names, host="web1"),
        certificate_renewal("a", three_days_ago, seven_names, host="web2"),
    )

    counts = {}
    for row in run_query(influxdb, "renewals_per_host", bucket):
        counts[row["host"], unix_seconds(row["_time"])] = int(row["_value"])

    assert {key: count for key, count in counts.items() if count} == {
        ("web1", today - 2 * DAY): 2,  # the time of a day's row is the end of the day
        ("web1", today - 4 * DAY): 1,
        ("web2", today - 2 * DAY): 1,
    }
    assert len(counts) >= 60  # days without a renewal have a row too


def test_the_history_lists_every_renewal_with_its_names(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    yesterday = now - DAY
    names_of_a = ["a.example.com", "*.a.example.com"]
    write(
        influxdb,
        bucket,
        # Renewed in the same second: the history keeps apart which names belong to which lineage.
        certificate_renewal("a", yesterday, names_of_a, lifetime=90 * DAY),
        *[name_renewal(name, yesterday) for name in names_of_a],
        certificate_renewal("b", yesterday, ["b.example.com"], lifetime=45 * DAY),
        name_renewal("b.example.com", yesterday),
        certificate_state("a", now + DAY),
        certificate_state("b", now + DAY),
    )

    first, second = run_query(influxdb, "history", bucket)

    assert unix_seconds(first["time"]) == yesterday
    assert (first["host"], first["lineage"]) == ("web1", "a")
    assert (first["count"], first["names"]) == ("2", "a.example.com *.a.example.com")
    assert (first["lifetime_days"], first["due_after_days"]) == ("90", "60")
    assert unix_seconds(second["time"]) == yesterday
    assert (second["host"], second["lineage"]) == ("web1", "b")
    assert (second["count"], second["names"]) == ("1", "b.example.com")
    assert (second["lifetime_days"], second["due_after_days"]) == ("45", "30")


def test_the_history_has_0_days_for_a_certificate_that_could_not_be_read(
    influxdb: InfluxDB,
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    renewal = certificate_renewal("unreadable", now - 60, ["c"], lifetime=0)
    renewal.fields["renewed_count"] = 3.0
    write(influxdb, bucket, certificate_renewal("a", now - DAY, ["a.example.com"]), renewal)

    older, newer = run_query(influxdb, "history", bucket)

    assert older["lineage"] == "a"
    assert unix_seconds(newer["time"]) == now - 60
    assert (newer["host"], newer["lineage"]) == ("web1", "unreadable")
    assert (newer["count"], newer["names"]) == ("3", "c")
    assert (newer["lifetime_days"], newer["due_after_days"]) == ("0", "0")


# ---- Runs --------------------------------------------------------------------------------------
def test_failures_lists_the_runs_that_left_something_the_newest_first(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certbot_run("web1", now - 2 * DAY, failed="a b", exit_status=1),
        certbot_run("web1", now - DAY, exit_status=0),
        certbot_run("web2", now - 60, unreadable="c"),
    )

    newer, older = run_query(influxdb, "failures", bucket)

    assert unix_seconds(newer["time"]) == now - 60
    assert (newer["host"], newer["failed"], newer["unreadable"]) == ("web2", "none", "c")
    assert unix_seconds(older["time"]) == now - 2 * DAY
    assert (older["host"], older["failed"], older["unreadable"]) == ("web1", "a b", "none")


def dry_run(lineage: str, at: int, *, failed: int, error: str = "none") -> Point:
    """Return the result of a dry run for a certificate."""
    tags = {"domain": "all", "host": "web1", "lineage": lineage}
    return make_point(tags, {"dry_run_failed": failed, "dry_run_error": error}, at)


def test_dry_runs_lists_how_the_last_dry_run_of_each_certificate_went(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        dry_run("a", now - 2 * DAY, failed=1, error="no route"),
        dry_run("a", now - DAY, failed=0),
        dry_run("b", now - 2 * DAY, failed=1, error="no route"),
        certificate_state("a", now + DAY),
    )

    rows = run_query(influxdb, "dry_runs", bucket)

    assert [row["lineage"] for row in rows] == ["a", "b"]
    by_lineage = rows_by("lineage", rows)
    succeeded = by_lineage["a"]
    failed = by_lineage["b"]
    assert unix_seconds(succeeded["time"]) == now - DAY
    assert (succeeded["failed"], succeeded["dry_run_error"]) == ("0", "none")
    assert unix_seconds(failed["time"]) == now - 2 * DAY
    assert (failed["failed"], failed["dry_run_error"]) == ("1", "no route")
