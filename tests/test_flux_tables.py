"""The queries for dashboards and auditors: tables of certificates, names and runs."""

from __future__ import annotations

import time

from certbot_renewal_report import FieldValue
from support.points import (
    HOUR,
    certbot_run,
    certificate_renewal,
    certificate_state,
    dry_run_result,
    make_point,
    name_renewal,
    post_hook_run,
    published_renewal,
    report_by_hand,
    retired_host,
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
def test_runs_lists_every_run_with_the_result_of_each_certificate(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    successful = certbot_run("web1", now - DAY)
    results: dict[str, FieldValue] = {"succeeded": "a b", "not_due": "c d", "not_processed": "e"}
    write(
        influxdb,
        bucket,
        certbot_run("web2", now - 2 * DAY, exit_status=1, failure="no network", step=1),
        successful._replace(fields={**successful.fields, **results}),
        certbot_run(
            "web1", now - 60, failed="a", unreadable="b", exit_status=1, failures="a: no | b: bad"
        ),
    )

    newest, middle, oldest = run_query(influxdb, "runs", bucket)

    assert (newest["host"], newest["failed"], newest["unreadable"]) == ("web1", "a", "b")
    assert (newest["failures"], newest["failing"]) == ("a: no | b: bad", "1")
    assert (newest["renewed"], newest["failure"]) == ("none", "none")
    assert (middle["renewed"], middle["not_due"]) == ("a b", "c d")
    assert (middle["not_processed"], middle["failing"]) == ("e", "0")
    assert (middle["certbot"], middle["hook"]) == ("5.8.0", "0.1.0")
    assert (middle["mode"], middle["exit_status"]) == ("renew", "0")
    assert unix_seconds(middle["time"]) == now - DAY
    assert unix_seconds(middle["started"]) == now - DAY - 60
    assert unix_seconds(middle["ended"]) == now - DAY - 55
    assert (oldest["host"], oldest["failure"]) == ("web2", "no network")


def test_runs_shows_a_run_once_and_only_runs(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    by_post_hook = post_hook_run("web1", now - 90)
    by_run_report = certbot_run("web1", now - 60)
    same_start: dict[str, FieldValue] = {"started_at": now - 150}
    write(
        influxdb,
        bucket,
        by_post_hook._replace(fields={**by_post_hook.fields, **same_start}),
        by_run_report._replace(fields={**by_run_report.fields, **same_start}),
        post_hook_run("post-hook-only", now - HOUR),
        report_by_hand("web1", now - 30),
        retired_host("web3", now - 30),
    )

    newer, older = run_query(influxdb, "runs", bucket)

    assert (newer["host"], newer["exit_status"]) == ("web1", "0")
    assert unix_seconds(newer["time"]) == now - 60
    assert (older["host"], older["exit_status"]) == ("post-hook-only", "-1")


def test_a_run_of_which_the_log_is_missing_has_the_time_of_its_report(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    names = ("certificates", "unreadable_count", "failed_count", "exit_status", "failing")
    for moment in (now - 60, now - DAY):
        run = certbot_run("web1", moment)
        write(influxdb, bucket, run._replace(fields={name: run.fields[name] for name in names}))

    rows = run_query(influxdb, "runs", bucket)

    assert [unix_seconds(row["time"]) for row in rows] == [now - 60, now - DAY]
    for row in rows:
        assert row["started"] == row["ended"] == row["time"]
        assert row["mode"] == "none"


# ---- Dry runs ----------------------------------------------------------------------------------
def write_dry_runs(influxdb: InfluxDB, bucket: str, now: int) -> None:
    """Write dry runs: of web1's certificates a (recovered) and b and c (failed), and of web2's."""
    write(
        influxdb,
        bucket,
        dry_run_result("a", "no route", at=now - 2 * DAY),
        dry_run_result("a", "none", at=now - DAY),
        dry_run_result("b", "no route", at=now - 2 * DAY),
        dry_run_result("c", "rate limit", at=now - 3 * DAY),
        dry_run_result("a", "none", host="web2", at=now - 31 * DAY),
        dry_run_result("b", "no route", host="web2", at=now - 31 * DAY),
        certificate_state("a", now + DAY),
        certbot_run("web3", now - 60),
    )


def test_dry_runs_lists_how_the_last_dry_run_of_each_host_went(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write_dry_runs(influxdb, bucket, now)

    rows = rows_by("host", run_query(influxdb, "dry_runs", bucket))

    assert set(rows) == {"web1", "web2"}
    web1 = rows["web1"]
    assert (web1["certificates"], web1["failed_count"]) == ("3", "2")
    assert (web1["failed"], web1["errors"]) == ("b c", "b: no route | c: rate limit")
    assert unix_seconds(web1["last_dry_run"]) == now - DAY
    # A dry run counts for 30 days.
    web2 = rows["web2"]
    assert (web2["failed_count"], web2["failed"], web2["errors"]) == ("0", "none", "none")


def test_dry_run_results_lists_the_last_dry_run_of_each_certificate(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write_dry_runs(influxdb, bucket, now)

    rows = [row for row in run_query(influxdb, "dry_run_results", bucket) if row["host"] == "web1"]

    results = [(row["lineage"], row["failed"], row["dry_run_error"]) for row in rows]
    assert results == [("a", "0", "none"), ("b", "1", "no route"), ("c", "1", "rate limit")]
    assert unix_seconds(rows[0]["time"]) == now - DAY
