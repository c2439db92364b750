"""The runs of certbot as CSV: the record for an auditor."""

from __future__ import annotations

import subprocess
import sys
import time

from support.board import BOARD, FleetSettings, run_board, runs_csv, store
from support.buckets import Bucket
from support.points import certbot_run, certificate_state, post_hook_run
from tools.servers.lineages import DAY


def iso(moment: int) -> str:
    """Return a time in Unix seconds as the CSV has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def test_the_runs_have_a_row_for_each_certificate_with_its_result(one_bucket: Bucket) -> None:
    now = int(time.time())
    run = certbot_run(
        "web1", now, failed="a", unreadable="b", failures="a: refused, again | b: no private key"
    )
    texts = {"succeeded": "c", "not_due": "d e", "not_processed": "f"}
    store(
        one_bucket,
        certificate_state("a", now + DAY, run_at=now),
        run._replace(fields={**run.fields, **texts}),
    )
    rows = runs_csv(one_bucket.settings, status=0)
    assert [(row["lineage"], row["result"], row["reason"]) for row in rows] == [
        ("a", "failed", "refused, again"),
        ("b", "unreadable", "no private key"),
        ("c", "renewed", ""),
        ("d", "not due", ""),
        ("e", "not due", ""),
        ("f", "not processed", ""),
    ]
    for row in rows:
        assert (row["host"], row["mode"], row["certbot"], row["hook"]) == (
            "web1",
            "renew",
            "5.8.0",
            "0.1.0",
        )
        assert (row["time"], row["started"], row["ended"]) == (
            iso(now),
            iso(now - 60),
            iso(now - 55),
        )


def test_a_run_without_certificates_has_a_row_with_its_reason(one_bucket: Bucket) -> None:
    now = int(time.time())
    store(
        one_bucket,
        certificate_state("a", now + DAY, run_at=now),
        certbot_run("web1", now, exit_status=1, failure="=Another instance is running"),
    )
    (row,) = runs_csv(one_bucket.settings, status=0)
    assert (row["lineage"], row["result"], row["reason"]) == ("", "", "")
    assert row["exit_status"] == "1"
    assert row["failure"] == "'=Another instance is running"  # no formula


def test_the_runs_are_those_since_a_time_the_newest_first(one_bucket: Bucket) -> None:
    now = int(time.time())
    days = (1, 30, 90)
    store(
        one_bucket,
        certificate_state("a", now + DAY, run_at=now),
        *(certbot_run("web1", now - day * DAY) for day in days),
    )
    recent = runs_csv(one_bucket.settings, "--since", "60d", status=0)
    assert [row["time"] for row in recent] == [iso(now - DAY), iso(now - 30 * DAY)]
    assert len(runs_csv(one_bucket.settings, status=0)) == 3


def test_what_certbots_log_does_not_say_is_empty(one_bucket: Bucket) -> None:
    now = int(time.time())
    point = post_hook_run("web1", now, failed="a")
    known = ("certificates", "unreadable_count", "failed_count", "exit_status", "failing", "failed")
    fields = {name: point.fields[name] for name in known}
    store(
        one_bucket,
        certificate_state("a", now + DAY, run_at=now),
        point._replace(fields=fields),
    )
    (row,) = runs_csv(one_bucket.settings, status=0)
    assert (row["lineage"], row["result"]) == ("a", "failed")
    for column in ("started", "ended", "mode", "exit_status", "certbot", "hook", "reason"):
        assert row[column] == ""


def test_csv_alone_prints_the_renewals(fleet_settings: FleetSettings) -> None:
    settings = fleet_settings("influxd-1.12")
    alone = run_board(settings, "--csv")
    assert alone == run_board(settings, "--csv", "renewals")
    assert alone.out.startswith("time,host,lineage,names,lifetime_days,next_due,days_late\r\n")


def test_servers_without_texts_have_no_runs() -> None:
    settings = {"INFLUXDB_URL": "http://127.0.0.1:1"}
    process = subprocess.run(
        [sys.executable, str(BOARD), "--csv", "runs", "--source", "prometheus"],
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 2
    assert "--csv runs needs InfluxDB" in process.stderr
    assert "store no text" in process.stderr
