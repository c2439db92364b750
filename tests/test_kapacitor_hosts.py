"""The alerts for hosts that fail and hosts that are silent, on the real Kapacitor."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from certbot_renewal_report import Point
from support.alerts import EACH_QUICK_INFLUXDB, HOST_TASKS, WatchedBucket, mail_text, utc
from support.points import HOUR, certbot_run, certificate_state, reported_state, retired_state
from support.servers import Alerting
from tools.servers.lineages import DAY

FIVE_HOSTS = [f"web{number}" for number in range(5)]


def run_reports(hosts: Iterable[str], reported_at: int) -> list[Point]:
    """Return the run report of each host: one certificate, and a run of certbot that succeeded."""
    due = int(time.time()) + DAY
    points = []
    for host in hosts:
        points.append(reported_state("a", due, reported_at, host=host))
        points.append(certbot_run(host, reported_at, exit_status=0))
    return points


def two_days_of_run_reports(hosts: Iterable[str], now: int) -> list[Point]:
    """Return run reports of hosts that report regularly: 25 hours and a minute before now."""
    names = list(hosts)
    return run_reports(names, now - 25 * HOUR) + run_reports(names, now - 60)


def without_last(subjects: Iterable[str]) -> list[str]:
    """Return subjects of mails without the time of the last report."""
    return [re.sub(r"last: .* UTC; ", "", subject) for subject in subjects]


# ---- Failing -----------------------------------------------------------------------------------
@EACH_QUICK_INFLUXDB
def test_a_failed_run_is_one_notification_and_a_good_run_resolves_it(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    watched.write(
        *run_reports(["fine", "failed", "error", "unreadable"], now - 25 * HOUR),
        certbot_run("fine", now - 60, exit_status=0),
        certbot_run("failed", now - 60, failed="a b", exit_status=1),
        certbot_run("error", now - 60, exit_status=143),
        certbot_run("unreadable", now - 60, unreadable="c"),
    )

    assert watched.next_subjects(3) == [
        "WARNING: error: certbot failed; exit status 143",
        "WARNING: failed: certbot failed; not renewed: a, b; exit status 1",
        "WARNING: unreadable: certbot failed; unreadable: c",
    ]

    watched.restart_kapacitor()
    assert watched.next_subjects(0) == []

    now = int(time.time())
    watched.write(certbot_run("failed", now, exit_status=0), certbot_run("error", now))
    assert watched.next_subjects(2) == [
        "OK: error: certbot succeeded",
        "OK: failed: certbot succeeded",
    ]
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
        reported_state("a", now + DAY, last_report, host="silent"),
        reported_state("a", now + DAY, last_report + 120, host="in-two-minutes"),
        certificate_state("a", now + DAY, host="deploy-hook-only", at=now - 50 * DAY),
    )

    subject = alerting.inbox.read()
    assert time.time() >= fires_at
    assert watched.next_subjects(0) == []

    assert without_last([subject]) == [
        "CRITICAL: silent: no run report for 2.0 days (certificates: a)"
    ]
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_a_silent_host_is_one_notification_and_its_next_report_resolves_it(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting, HOST_TASKS)
    now = int(time.time())
    long_ago = now - 49 * HOUR
    watched.write_paused(
        *two_days_of_run_reports(["fine1", "fine2", "fine3", "pair"], now),
        reported_state("a", now + DAY, long_ago, host="silent"),
        reported_state("a", now + DAY, long_ago, host="to-be-retired"),
        # A second installation of certbot with the same host tag, which stopped.
        reported_state("b", now + DAY, long_ago, host="pair"),
        reported_state("c", now + DAY, long_ago, host="pair"),
    )

    assert without_last(watched.next_subjects(3)) == [
        "CRITICAL: pair: no run report for 2.0 days (certificates: b, c)",
        "CRITICAL: silent: no run report for 2.0 days (certificates: a)",
        "CRITICAL: to-be-retired: no run report for 2.0 days (certificates: a)",
    ]

    watched.restart_kapacitor()
    assert watched.next_subjects(0) == []

    now = int(time.time())
    watched.write(
        reported_state("a", now + DAY, now, host="silent"),
        reported_state("b", now + DAY, now, host="pair"),
        reported_state("c", now + DAY, now, host="pair"),
        retired_state("a", host="to-be-retired", run_at=now, at=now),
    )
    assert watched.next_subjects(3) == [
        "OK: pair: reports again",
        "OK: silent: reports again",
        "OK: to-be-retired: retired, no run reports expected",
    ]
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
        "CRITICAL: web0: no run report for 3.0 days (certificates: a)",
        "CRITICAL: web4: no run report for 3.0 days (certificates: a)",
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
        "CRITICAL: web0: no run report for 3.0 days (certificates: a)",
        "CRITICAL: web4: no run report for 3.0 days (certificates: a)",
    ]

    six_more = [f"more{number}" for number in range(6)]
    watched.write(*run_reports(six_more, now - 3 * DAY))

    (subject,) = watched.next_subjects(1)
    assert subject.startswith("CRITICAL: (most hosts): ")
    assert watched.kapacitor.errors() == []
