"""The alert for each overdue certificate, on the real Kapacitor: who gets a mail, and when."""

from __future__ import annotations

import html
import time
from collections import Counter

from support.alerts import (
    EACH_INFLUXDB,
    EACH_QUICK_INFLUXDB,
    WatchedBucket,
    as_plain_text,
    mail_text,
    overdue_notifications,
    overdue_recoveries,
    utc,
)
from support.manual import assert_output, blocks_of, read_page
from support.points import (
    HOUR,
    LIFETIMES,
    certificate_renewal,
    certificate_state,
    make_point,
    name_renewal,
    published_renewal,
    reported_state,
    retired_state,
)
from support.servers import Alerting
from tools.servers.lineages import DAY

HUNDRED_NAMES = [f"{number}.example.com" for number in range(100)]


# ---- The alert fires ---------------------------------------------------------------------------
@EACH_INFLUXDB
def test_the_alert_fires_one_day_after_the_due_date_whatever_the_lifetime(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting)
    fires_at = int(time.time()) + 4
    due = fires_at - DAY
    for name, lifetime in LIFETIMES.items():
        watched.write(
            certificate_state(f"overdue-{name}", due, lifetime=lifetime),
            certificate_state(f"in-two-minutes-{name}", due + 120, lifetime=lifetime),
        )

    alerting.inbox.read()
    assert time.time() >= fires_at
    watched.next_subjects(len(LIFETIMES) - 1)

    expected = Counter(f"overdue-{name} on web1" for name in LIFETIMES)
    assert overdue_notifications(alerting.inbox) == expected
    assert watched.kapacitor.errors() == []


@EACH_INFLUXDB
def test_on_a_host_with_run_reports_the_alert_is_judged_at_the_last_report(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting)
    due = int(time.time()) - 5 * DAY
    watched.write(
        reported_state("not-yet-overdue-then", due, due + DAY - 60),
        reported_state("overdue-then", due, due + DAY + 1),
    )

    watched.next_subjects(1)

    assert overdue_notifications(alerting.inbox) == Counter(["overdue-then on web1"])
    assert watched.kapacitor.errors() == []


@EACH_INFLUXDB
def test_a_certificate_of_24_hours_is_reported_before_it_expires(alerting: Alerting) -> None:
    """certbot renews it 8 hours before expiry. The alert fires after half of them."""
    watched = WatchedBucket(alerting)
    fires_at = int(time.time()) + 4
    due = fires_at - 4 * HOUR
    watched.write(
        certificate_state("day", due, lifetime=DAY),
        certificate_state("in-two-minutes", due + 120, lifetime=DAY),
        certificate_state("90-days", due),
    )

    subject = alerting.inbox.read()
    assert time.time() >= fires_at
    assert watched.next_subjects(0) == []

    assert subject.startswith("CRITICAL: day on web1: renewal overdue, due since ")
    assert subject.endswith(" UTC, 0.2 days left")
    assert watched.kapacitor.errors() == []


@EACH_INFLUXDB
def test_a_host_with_a_wrong_clock_is_judged_by_the_clock_of_the_server(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting)
    now = int(time.time())
    due = now - 2 * DAY
    for host, clock_error in {"ahead": 40 * DAY, "behind": -40 * DAY}.items():
        watched.write(
            certificate_state("late", due, host=host, run_at=now + clock_error, at=now - 60),
            certificate_state("fine", now - HOUR, host=host, run_at=now + clock_error, at=now - 60),
        )

    watched.next_subjects(2)

    expected = Counter(["late on ahead", "late on behind"])
    assert overdue_notifications(alerting.inbox) == expected
    text = mail_text(alerting.inbox, "CRITICAL: late on ahead: ")
    assert "<td>2.0 days at the last report of " in text
    assert watched.kapacitor.errors() == []


@EACH_INFLUXDB
def test_each_overdue_certificate_of_each_host_is_one_notification(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting)
    now = int(time.time())
    overdue = now - DAY - 60
    watched.write(
        certificate_state("new", now + 60 * DAY),
        certificate_state("twin", overdue, host="web1"),
        certificate_state("twin", overdue, host="web2"),
        # A certificate with many names.
        certificate_state("hundred", overdue),
        certificate_renewal("hundred", now - 61 * DAY, HUNDRED_NAMES),
        *[name_renewal(name, now - 61 * DAY) for name in HUNDRED_NAMES],
        # Two lineages share a name, and one of them was renewed.
        certificate_state("shares-a-name", overdue),
        certificate_state("renewed", now + 59 * DAY),
        name_renewal("shared.example.com", now - DAY),
        # An older state arrives after the newer one.
        certificate_state("renewed-meanwhile", now + 60 * DAY, at=now - 10),
        certificate_state("renewed-meanwhile", overdue, at=now - 20),
    )

    watched.next_subjects(4)

    assert overdue_notifications(alerting.inbox) == Counter(
        ["twin on web1", "twin on web2", "hundred on web1", "shares-a-name on web1"]
    )
    assert not overdue_recoveries(alerting.inbox)
    assert watched.kapacitor.errors() == []


@EACH_INFLUXDB
def test_points_of_other_programs_and_of_the_published_hook_raise_no_alert(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting)
    now = int(time.time())
    yesterday = now - DAY
    half = {"domain": "all", "host": "web1", "lineage": "half"}
    due_only = {"domain": "all", "host": "web1", "lineage": "due-only"}
    watched.write(
        published_renewal(2, now - 80 * DAY),
        name_renewal("gone.example.com", now - 80 * DAY),
        make_point(half, {"not_after": 5}, yesterday),
        make_point(due_only, {"renewal_due": 5}, yesterday),
        make_point({"domain": "all"}, {"renewal_due": 5, "not_after": 5, "run_at": 0}, yesterday),
        make_point({"host": "web1"}, {"failed": "", "certificates": 3}, yesterday),
        certificate_state("overdue", now - 2 * DAY),
    )

    watched.next_subjects(1)

    assert overdue_notifications(alerting.inbox) == Counter(["overdue on web1"])
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_the_mail_says_since_when_how_long_is_left_and_what_to_try(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting)
    now = int(time.time())
    watched.write(
        certificate_state("valid", now - DAY - 60), certificate_state("expired", now - 40 * DAY)
    )

    watched.next_subjects(2)

    valid = mail_text(alerting.inbox, "CRITICAL: valid on web1: renewal overdue, due since ")
    assert valid.partition("\n")[0].endswith(" UTC, 29.0 days left")
    assert "(in 29.0 days)" in valid
    assert "<td>1.0 days</td>" in valid
    assert "<code>certbot renew --cert-name valid --dry-run</code>" in valid
    expired = mail_text(alerting.inbox, "CRITICAL: expired on web1: renewal overdue, due since ")
    assert expired.partition("\n")[0].endswith(" UTC, expired 10.0 days ago")
    assert "(10.0 days ago)" in expired
    assert "<td>40.0 days</td>" in expired


@EACH_QUICK_INFLUXDB
def test_the_notification_says_why_certbot_does_not_renew(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting)
    due = int(time.time()) - 2 * DAY
    long_reason = "DNS problem: NXDOMAIN looking up A for <example.com> " + "x" * 100
    watched.write(
        certificate_state("short", due, failure="autorenew = False in short.conf"),
        certificate_state("long", due, failure=long_reason),
        certificate_state("unknown", due),
    )

    long, short, unknown = watched.next_subjects(3)

    assert short.endswith(" UTC, 28.0 days left; reason: autorenew = False in short.conf")
    assert long.endswith(f" UTC, 28.0 days left; reason: {long_reason[:97]}...")
    assert unknown.endswith(" UTC, 28.0 days left")
    text = html.unescape(mail_text(alerting.inbox, "CRITICAL: long on web1: "))
    assert f"<td>{long_reason}</td>" in text
    text = mail_text(alerting.inbox, "CRITICAL: unknown on web1: ")
    assert "Reason" not in text
    assert "certbot_renewal_run.py --host web1 --retire unknown</code>" in text
    assert watched.kapacitor.errors() == []


@EACH_QUICK_INFLUXDB
def test_the_mail_says_as_of_which_report_the_certificate_is_overdue(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting)
    due = int(time.time()) - 15 * DAY
    reported_at = due + 12 * DAY
    watched.write(reported_state("late", due, reported_at))

    watched.next_subjects(1)

    text = mail_text(alerting.inbox, "CRITICAL: late on web1: renewal overdue")
    assert f"<td>12.0 days at the last report of {utc(reported_at)}</td>" in text


@EACH_QUICK_INFLUXDB
def test_the_mail_is_as_the_manual_shows_it(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting)
    due = int(time.time()) - 15 * DAY
    reported_at = due + 12 * DAY
    reason = (
        "Some challenges have failed. "
        "(example.com: unauthorized: No TXT records found for DNS challenge)"
    )
    watched.write(
        certificate_state("example.com", due, run_at=reported_at, failure=reason, at=reported_at)
    )
    watched.next_subjects(1)

    (mail,) = alerting.inbox.mails
    _, shown, _ = blocks_of(read_page("alerts.md"), ["Notifications"])
    assert_output(shown.text, as_plain_text(mail.get_content()))


# ---- The alert resolves ------------------------------------------------------------------------
@EACH_INFLUXDB
def test_a_renewed_and_a_retired_certificate_resolve_the_alert(alerting: Alerting) -> None:
    watched = WatchedBucket(alerting)
    now = int(time.time())
    overdue = now - DAY - 60
    watched.write(
        certificate_state("late", overdue),
        certificate_state("twin", overdue, host="web1"),
        certificate_state("twin", overdue, host="web2"),
        certificate_state("twice", overdue),
        certificate_state("retired", overdue),
    )
    for name, lifetime in LIFETIMES.items():
        watched.write(certificate_state(f"renewed-{name}", overdue, lifetime=lifetime))
    watched.next_subjects(5 + len(LIFETIMES))
    notifications = overdue_notifications(alerting.inbox)

    watched.write(
        certificate_state("twin", now + DAY, host="web2"),
        certificate_state("twice", now + DAY),
        certificate_state("twice", now + DAY),  # reported twice
        retired_state("retired"),
        *[certificate_state(f"renewed-{name}", now + 30 * DAY) for name in LIFETIMES],
    )
    subjects = watched.next_subjects(3 + len(LIFETIMES))

    assert overdue_recoveries(alerting.inbox) == Counter(
        ["twin on web2", "twice on web1", "retired on web1"]
        + [f"renewed-{name} on web1" for name in LIFETIMES]
    )
    assert "OK: retired on web1: no longer on this host" in subjects
    assert any(
        subject.startswith("OK: twin on web2: renewed, next renewal due ") for subject in subjects
    )
    assert overdue_notifications(alerting.inbox) == notifications
    assert watched.kapacitor.errors() == []


# ---- Interruptions -----------------------------------------------------------------------------
@EACH_QUICK_INFLUXDB
def test_restarts_and_outages_send_no_mail(alerting: Alerting) -> None:
    # The state is enough: the renewals are older than the bucket's retention.
    watched = WatchedBucket(alerting, retention=str(7 * DAY))
    now = int(time.time())
    watched.write(certificate_state("late", now - 2 * DAY), certificate_state("fine", now + DAY))
    (notification,) = watched.next_subjects(1)
    assert notification.startswith("CRITICAL: late on web1: renewal overdue, due since ")

    watched.restart_kapacitor()
    assert watched.next_subjects(0) == []

    watched.restart_influxdb_after_a_failed_query()
    assert watched.next_subjects(0) == []

    watched.kapacitor.reload()
    assert watched.next_subjects(0) == []

    alerting.stop("kapacitor", "influxdb")
    alerting.start_influxdb()
    watched.start_kapacitor()
    assert watched.next_subjects(0) == []

    watched.write(certificate_state("late", now + 60 * DAY))
    (recovery,) = watched.next_subjects(1)
    assert recovery.startswith("OK: late on web1: renewed, next renewal due ")
