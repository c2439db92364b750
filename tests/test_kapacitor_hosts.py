"""The alerts for hosts that fail and hosts that are silent, on the real Kapacitor."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterable

from certbot_renewal_report import Point
from support.alerts import EACH_QUICK_INFLUXDB, HOST_TASKS, WatchedBucket, mail_text, utc
from support.points import (
    HOUR,
    certbot_run,
    certificate_state,
    dry_run_result,
    post_hook_run,
    reported_state,
    retired_host,
)
from support.servers import Alerting
from tools.servers.lineages import DAY

FIVE_HOSTS = [f"web{number}" for number in range(5)]


def run_reports(hosts: Iterable[str], reported_at: int) -> list[Point]:
    """Return the run point of each host, about a run of certbot that succeeded."""
    return [certbot_run(host, reported_at) for host in hosts]


def two_days_of_run_reports(hosts: Iterable[str], now: int) -> list[Point]:
    """Return run reports of hosts that report regularly: 25 hours and a minute before now."""
    names = list(hosts)
    return run_reports(names, now - 25 * HOUR) + run_reports(names, now - 60)


def without_last(subjects: Iterable[str]) -> list[str]:
    """Return subjects of mails without the time of the last report."""
    return [re.sub(r" \(last: .* UTC\)", "", subject) for subject in subjects]


# ---- Failing -----------------------------------------------------------------------------------
@EACH_QUICK_INFLUXDB
def test_a_failed_run_is_one_notification_and_a_good_run_resolves_it(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    watched.write(
        *run_reports(["fine", "failed", "error", "unreadable"], now - 25 * HOUR),
        certbot_run("fine", now - 60),
        certbot_run("failed", now - 60, failed="a b", exit_status=1),
        certbot_run("error", now - 60, exit_status=143),
        post_hook_run("unreadable", now - 60, unreadable="c"),
    )

    assert watched.next_subjects(3) == [
        "WARNING: error: certbot failed; exit status 143",
        "WARNING: failed: certbot failed; not renewed: a, b; exit status 1",
        "WARNING: unreadable: certbot failed; unreadable: c",
    ]

    watched.restart_kapacitor()
    assert watched.next_subjects(0) == []

    watched.write(certbot_run("failed", None), certbot_run("error", None))
    assert watched.next_subjects(2) == [
        "OK: error: certbot succeeded",
        "OK: failed: certbot succeeded",
    ]
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_the_alert_fires_again_when_more_certificates_fail_and_not_when_fewer_do(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    watched.write(certbot_run("web1", None, failed="a", exit_status=1, step=1))
    assert watched.next_subjects(1) == [
        "WARNING: web1: certbot failed; not renewed: a; exit status 1"
    ]

    watched.write(certbot_run("web1", None, failed="a b", exit_status=1, step=2))
    assert watched.next_subjects(1) == [
        "WARNING: web1: certbot failed; not renewed: a, b; exit status 1"
    ]

    watched.restart_kapacitor()
    watched.write(certbot_run("web1", None, failed="b", exit_status=1, step=2))
    assert watched.next_subjects(0) == []

    watched.write(certbot_run("web1", None, failed="b c d", exit_status=1, step=3))
    assert watched.next_subjects(1) == [
        "WARNING: web1: certbot failed; not renewed: b, c, d; exit status 1"
    ]

    # Each notification has its recovery, also after a restart.
    watched.restart_kapacitor()
    watched.write(certbot_run("web1", None, step=0, steps=3))
    assert watched.next_subjects(3) == ["OK: web1: certbot succeeded"] * 3

    # The next incident.
    watched.write(certbot_run("web1", None, failed="a", exit_status=1, step=1, steps=3))
    assert watched.next_subjects(1) == [
        "WARNING: web1: certbot failed; not renewed: a; exit status 1"
    ]
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_a_retired_host_resolves_each_notification_about_its_runs(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    watched.write(certbot_run("web1", None, failed="a", exit_status=1, step=1))
    watched.next_subjects(1)
    watched.write(certbot_run("web1", None, failed="a b", exit_status=1, step=2))
    watched.next_subjects(1)

    watched.write(retired_host("web1", None))

    assert watched.next_subjects(2) == ["OK: web1: certbot succeeded"] * 2
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_the_mail_has_a_line_for_each_reason(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    reason_of_a = "DNS problem: NXDOMAIN looking up A for a.example.com & <others>"
    reason_of_b = "too many certificates already issued for example.com " + "x" * 100
    watched.write(
        certbot_run(
            "lineages",
            None,
            failed="a b",
            exit_status=1,
            failures=f"a: {reason_of_a} | b: {reason_of_b}",
        ),
        certbot_run("whole", None, exit_status=1, failure="Another instance is already running"),
    )

    lineages, whole = watched.next_subjects(2)

    shortened = f"a: {reason_of_a} | b: {reason_of_b}"[:97]
    assert lineages == (
        "WARNING: lineages: certbot failed; not renewed: a, b; exit status 1; "
        f"reason: {shortened}..."
    )
    text = html.unescape(mail_text(alerting.inbox, "WARNING: lineages: "))
    assert f"\n<pre>a: {reason_of_a}\nb: {reason_of_b}</pre>\n" in text
    assert whole == (
        "WARNING: whole: certbot failed; exit status 1; reason: Another instance is already running"
    )
    text = mail_text(alerting.inbox, "WARNING: whole: ")
    assert "<p>The run failed: Another instance is already running</p>" in text
    assert "<pre>" not in text
    assert watched.kapacitor.errors() == []


# ---- Dry runs ----------------------------------------------------------------------------------
@EACH_QUICK_INFLUXDB
def test_a_failed_dry_run_is_one_notification_and_a_good_one_resolves_it(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting, ["dry_run_failed"])
    now = int(time.time())
    watched.write(
        dry_run_result("a", "no route to host"),
        dry_run_result("b", "rate limit"),
        dry_run_result("c", "none"),
        dry_run_result("a", "none", host="fine"),
        dry_run_result("a", "no route to host", host="long-ago", at=now - 31 * DAY),
    )

    assert watched.next_subjects(1) == [
        "WARNING: web1: dry run failed: a, b; reason: a: no route to host | b: rate limit"
    ]
    text = mail_text(alerting.inbox, "WARNING: web1: dry run failed")
    assert "<pre>a: no route to host\nb: rate limit</pre>" in text

    watched.restart_kapacitor()
    watched.write(dry_run_result("b", "none"))
    assert watched.next_subjects(0) == []

    watched.write(dry_run_result("a", "none"))
    assert watched.next_subjects(1) == ["OK: web1: no failed dry run"]
    assert watched.kapacitor.errors() == []


# ---- Silent ------------------------------------------------------------------------------------
@EACH_QUICK_INFLUXDB
def test_a_host_is_silent_two_days_after_its_last_run_report(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    fires_at = now + 4
    last_report = fires_at - 2 * DAY
    watched.write_paused(
        *two_days_of_run_reports(["fine1", "fine2", "fine3"], now),
        certbot_run("silent", last_report),
        certbot_run("in-two-minutes", last_report + 120),
        certificate_state("a", now + DAY, host="deploy-hook-only", at=now - 50 * DAY),
    )

    subject = alerting.inbox.read()
    assert time.time() >= fires_at
    assert watched.next_subjects(0) == []

    assert without_last([subject]) == ["CRITICAL: silent: no run report for 2.0 days"]
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_a_silent_host_is_one_notification_and_its_next_report_resolves_it(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    long_ago = now - 49 * HOUR
    watched.write_paused(
        *two_days_of_run_reports(["fine1", "fine2", "fine3"], now),
        certbot_run("silent", long_ago),
        certbot_run("to-be-retired", long_ago),
        # A lost lineage does not make a host silent that reports.
        reported_state("lost", now + DAY, long_ago, host="fine1"),
    )

    assert without_last(watched.next_subjects(2)) == [
        "CRITICAL: silent: no run report for 2.0 days",
        "CRITICAL: to-be-retired: no run report for 2.0 days",
    ]
    text = mail_text(alerting.inbox, "CRITICAL: silent: ")
    assert "certbot_renewal_run.py --retire --host silent</code>" in text

    watched.restart_kapacitor()
    assert watched.next_subjects(0) == []

    watched.write(certbot_run("silent", None), retired_host("to-be-retired", None))
    assert watched.next_subjects(2) == [
        "OK: silent: reports again",
        "OK: to-be-retired: retired, no run reports expected",
    ]
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_a_retired_host_never_alerts_until_it_reports_again(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    watched.write_paused(
        *two_days_of_run_reports(["fine1", "fine2", "fine3"], now),
        certbot_run("retired", now - 31 * DAY, failed="a", exit_status=1),
        retired_host("retired", now - 20 * DAY),
        retired_host("back", now - 20 * DAY),
        certbot_run("back", now - 49 * HOUR),
    )

    assert without_last(watched.next_subjects(1)) == ["CRITICAL: back: no run report for 2.0 days"]
    assert watched.kapacitor.errors() == []


# ---- Most hosts are silent ---------------------------------------------------------------------
@EACH_QUICK_INFLUXDB
def test_hosts_that_are_silent_together_are_one_notification(alerting: Alerting) -> None:
    """web0 stopped six days ago; three days ago InfluxDB was no longer reached by any host."""
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    watched.write_paused(
        *run_reports(["web0"], now - 6 * DAY), *run_reports(FIVE_HOSTS[1:], now - 3 * DAY)
    )

    (subject,) = watched.next_subjects(1)

    assert subject == (
        f"CRITICAL: (most hosts): no run report for 3.0 days (last: {utc(now - 3 * DAY)}; "
        "5 of 5 hosts: web0, web1, web2, web3, web4)"
    )
    text = mail_text(alerting.inbox, "CRITICAL: (most hosts)")
    assert "Check whether the server that stores the reports was down." in text
    assert "--retire" not in text
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_after_most_hosts_came_back_the_others_have_a_day_to_report(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    came_back = FIVE_HOSTS[1:4]
    watched.write(*run_reports(FIVE_HOSTS, now - 3 * DAY))
    watched.next_subjects(1)

    # web0 and web4 may have had no run of certbot yet.
    watched.write(*run_reports(came_back, now))
    assert watched.next_subjects(1) == ["OK: (most hosts): report again"]

    # As a day later.
    watched.write(*run_reports(came_back, now - 25 * HOUR), *run_reports(came_back, now))
    assert without_last(watched.next_subjects(2)) == [
        "CRITICAL: web0: no run report for 3.0 days",
        "CRITICAL: web4: no run report for 3.0 days",
    ]
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_a_silent_host_stays_silent_while_most_hosts_are(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    watched.write_paused(
        *run_reports(["web0", "web4"], now - 3 * DAY),
        *two_days_of_run_reports(["web1", "web2", "web3"], now),
    )
    assert without_last(watched.next_subjects(2)) == [
        "CRITICAL: web0: no run report for 3.0 days",
        "CRITICAL: web4: no run report for 3.0 days",
    ]

    six_more = [f"more{number}" for number in range(6)]
    watched.write(*run_reports(six_more, now - 3 * DAY))

    (subject,) = watched.next_subjects(1)
    assert subject.startswith("CRITICAL: (most hosts): ")
    assert watched.kapacitor.errors() == []
