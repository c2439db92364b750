"""The alert for fleets, on the real Kapacitor: one mail about all that is overdue on a host."""

from __future__ import annotations

import re
import time

import pytest

from certbot_renewal_report import Point
from support.alerts import EACH_QUICK_INFLUXDB, WatchedBucket, mail_text
from support.points import HOUR, certificate_state, make_point, reported_state, retired_state
from support.servers import Alerting
from tools.servers.lineages import DAY

# Forty certificates of web1; each was due later than the one before.
FORTY = [f"many{number:02}" for number in range(40)]
NEWEST_FIRST = ", ".join(reversed(FORTY))


def forty_overdue(now: int) -> list[Point]:
    """Return the states of forty overdue certificates of web1, due one second after another."""
    first_due = now - 9 * DAY
    return [certificate_state(name, first_due + number) for number, name in enumerate(FORTY)]


def renewed(*lineages: str, host: str = "web1") -> list[Point]:
    """Return the states of certificates that were renewed just now."""
    due = int(time.time()) + 60 * DAY
    return [certificate_state(lineage, due, host=host) for lineage in lineages]


def next_subjects(watched: WatchedBucket, count: int) -> list[str]:
    """Return the subjects of the next mails without the times.

    For example "CRITICAL: web1: 2 renewals overdue, due: b, a".
    """
    subjects = watched.next_subjects(count)
    return [re.sub(r"due since .* left", "due", subject) for subject in subjects]


def evaluate_every(watched: WatchedBucket, every: str) -> None:
    """Set how often the alert is evaluated, from the next start of Kapacitor on."""
    task = watched.load_folder / "tasks" / "renewal_overdue_hosts.yaml"
    text = task.read_text()
    assert "value: 500ms" in text
    task.write_text(text.replace("value: 500ms", f"value: {every}"))


@pytest.fixture
def watched(alerting: Alerting) -> WatchedBucket:
    """A bucket that the alert for fleets watches."""
    return WatchedBucket(alerting, ["renewal_overdue_hosts"])


@EACH_QUICK_INFLUXDB
def test_all_that_is_overdue_on_a_host_is_one_notification(watched: WatchedBucket) -> None:
    now = int(time.time())
    half = {"domain": "all", "host": "web3", "lineage": "half"}
    watched.write(
        *forty_overdue(now),
        certificate_state("alone", now - 2 * DAY, host="web2", failure="no route to host"),
        certificate_state("fine", now + DAY, host="web2"),
        certificate_state("not-yet", now - DAY + 120, host="web3"),
        certificate_state("4-hours", now - 4 * HOUR - 60, lifetime=DAY, host="web4"),
        certificate_state("not-yet", now - 4 * HOUR + 120, lifetime=DAY, host="web4"),
        reported_state("not-yet-then", now - 25 * HOUR, now - 7 * HOUR, host="web3"),
        retired_state("retired", host="web3"),
        make_point(half, {"not_after": 5}, now - DAY),
    )

    assert next_subjects(watched, 3) == [
        f"CRITICAL: web1: 40 renewals overdue, due: {NEWEST_FIRST[:97]}...",
        "CRITICAL: web2: 1 renewal overdue, due: alone",
        "CRITICAL: web4: 1 renewal overdue, due: 4-hours",
    ]
    assert "<td>no route to host</td>" in mail_text(watched.inbox, "CRITICAL: web2: ")
    assert f"<td>{NEWEST_FIRST}</td>" in mail_text(watched.inbox, "CRITICAL: web1: ")


@EACH_QUICK_INFLUXDB
def test_the_alert_fires_again_only_when_another_certificate_is_overdue(
    watched: WatchedBucket,
) -> None:
    now = int(time.time())
    watched.write(*forty_overdue(now))
    watched.next_subjects(1)

    watched.write(certificate_state("another", now - 3 * DAY))
    (subject,) = next_subjects(watched, 1)
    assert subject.startswith("CRITICAL: web1: 41 renewals overdue, due: another, many39")

    # Few are left, then there are more, then few again: each has one notification.
    watched.write(*renewed(*FORTY[3:]))
    assert watched.next_subjects(0) == []

    nine_more = [f"late{number}" for number in range(9)]
    watched.write(
        *[certificate_state(name, now - 2 * DAY - number) for number, name in enumerate(nine_more)]
    )
    (subject,) = next_subjects(watched, 1)
    assert subject.startswith("CRITICAL: web1: 13 renewals overdue, due: late0, late1, ")

    watched.write(*renewed(*nine_more, "another"))
    assert watched.next_subjects(0) == []


@EACH_QUICK_INFLUXDB
def test_restarts_and_outages_send_no_mail_but_about_what_happened_meanwhile(
    watched: WatchedBucket,
) -> None:
    now = int(time.time())
    watched.write(*forty_overdue(now))
    watched.next_subjects(1)
    watched.write(*renewed(*FORTY[3:]))

    watched.restart_kapacitor()
    assert watched.next_subjects(0) == []

    watched.restart_influxdb_after_a_failed_query()
    watched.kapacitor.reload()
    assert watched.next_subjects(0) == []

    watched.alerting.stop("kapacitor")
    watched.write(certificate_state("meanwhile", now - DAY - 60))
    evaluate_every(watched, "3s")  # until then Kapacitor has loaded the handler of mails
    watched.start_kapacitor()
    assert next_subjects(watched, 1) == [
        "CRITICAL: web1: 4 renewals overdue, due: meanwhile, many02, many01, many00"
    ]


@EACH_QUICK_INFLUXDB
def test_the_alert_resolves_when_no_certificate_of_the_host_is_overdue(
    watched: WatchedBucket,
) -> None:
    now = int(time.time())
    watched.write(
        *forty_overdue(now),
        certificate_state("to-be-retired", now - DAY - 60),
        certificate_state("alone", now - 2 * DAY, host="web2"),
        certificate_state("fine", now + DAY, host="web2"),
    )
    watched.next_subjects(2)

    watched.write(*renewed(*FORTY))
    assert watched.next_subjects(0) == []

    watched.write(retired_state("to-be-retired"), *renewed("alone", host="web2"))
    assert watched.next_subjects(2) == [
        "OK: web1: no renewal is overdue",
        "OK: web2: no renewal is overdue",
    ]


@EACH_QUICK_INFLUXDB
def test_the_alert_fires_again_for_a_certificate_that_was_due_before_those_of_the_last_incident(
    watched: WatchedBucket,
) -> None:
    now = int(time.time())
    watched.write(*forty_overdue(now))
    watched.next_subjects(1)
    watched.write(*renewed(*FORTY))
    assert watched.next_subjects(1) == ["OK: web1: no renewal is overdue"]

    watched.write(certificate_state("many01", now - 10 * DAY))
    assert next_subjects(watched, 1) == ["CRITICAL: web1: 1 renewal overdue, due: many01"]
