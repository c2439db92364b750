"""What the simulation takes for an incident, and how it judges a year: hand-made examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import certbot_renewal_report as hook
from certbot_renewal_report import DAY
from support.points import as_lines, certbot_run, reported_state
from tools.simulation.alerts import (
    CRITICAL,
    FAILING,
    MOST_HOSTS,
    OVERDUE,
    PROBE,
    SILENT,
    AlertId,
    AlertStates,
    Notification,
    Row,
    Subject,
)
from tools.simulation.certbot import due_at_the_latest, would_renew
from tools.simulation.databases import Database
from tools.simulation.evaluation import Evaluation
from tools.simulation.fleet import Fleet
from tools.simulation.hosts import Lineage
from tools.simulation.models import AlertPack
from tools.simulation.periods import BEGIN, EVALUATION_INTERVAL, HOUR, Period, Periods
from tools.simulation.probes import days_before_expiry, probe_notifications
from tools.simulation.reports import Arrival, Reports, dated
from tools.simulation.truth import Incident, Truth

HOST = Subject("web1")
FIRST_STEP = Subject("web1", step=1)
LINEAGE = Subject("web1", "c1.example.com")


def day(number: float) -> int:
    """Return the beginning of a day of the year."""
    return int(BEGIN + number * DAY)


def certificate(begin: int) -> hook.Certificate:
    """Return a certificate of 90 days that is due on its day 60."""
    return hook.Certificate(
        LINEAGE.lineage, [LINEAGE.lineage], begin, begin + 90 * DAY, begin + 60 * DAY
    )


# ---- Periods -----------------------------------------------------------------------------------
def test_periods_that_touch_are_one() -> None:
    periods = Periods([Period(30, 40), Period(10, 20), Period(20, 25)])
    assert periods.joined == [Period(10, 25), Period(30, 40)]


def test_a_period_contains_its_beginning_but_not_its_end() -> None:
    periods = Periods([Period(10, 20)])
    assert [periods.contains(moment) for moment in (9, 10, 19, 20)] == [False, True, True, False]
    assert periods.end_at(15) == 20
    assert periods.end_at(20) == 0


def test_the_seconds_of_all_periods_between_two_moments_are_counted() -> None:
    assert Periods([Period(10, 20), Period(30, 40)]).seconds_within(15, 32) == 5 + 2


# ---- Incidents ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("seconds_later", "is_incident"), [(0, False), (1, True)])
def test_a_renewal_is_overdue_from_a_day_after_the_due_date(
    seconds_later: int, is_incident: bool
) -> None:
    truth = Truth(seed=1, days=100)
    truth.certificate_begins(LINEAGE, certificate(day(0)), day(0))
    renewed_at = day(61) + seconds_later
    truth.certificate_ends(LINEAGE, certificate(day(0)), renewed_at)
    expected = [Incident(LINEAGE, day(61), renewed_at, expiry=day(90))]
    assert truth.overdue == expected * is_incident


def test_a_certificate_on_a_copied_host_is_not_overdue_before_the_copy_exists() -> None:
    truth = Truth(seed=1, days=100)
    truth.certificate_begins(LINEAGE, certificate(day(0)), day(70))
    truth.lineage_ends(LINEAGE, certificate(day(0)), day(75))
    assert truth.overdue == [Incident(LINEAGE, day(70), day(75), expiry=day(90))]


@pytest.mark.parametrize(("seconds_later", "is_incident"), [(0, False), (1, True)])
def test_a_host_is_silent_from_two_days_after_its_last_report(
    seconds_later: int, is_incident: bool
) -> None:
    truth = Truth(seed=1, days=100)
    truth.run_is_reported(HOST.host, day(10))
    reports_again_at = day(12) + seconds_later
    truth.run_is_reported(HOST.host, reports_again_at)
    assert truth.silent == [Incident(HOST, day(12), reports_again_at)] * is_incident


def test_a_host_that_never_reported_is_not_silent() -> None:
    truth = Truth(seed=1, days=100)
    truth.silence_ends(HOST.host, truth.end)
    assert truth.silent == []


def test_runs_fail_from_the_first_failed_run_to_the_first_successful_one() -> None:
    truth = Truth(seed=1, days=100)
    runs: list[set[str]] = [set(), {"x"}, {"x"}, set(), {""}]
    for moment, failing in enumerate(runs, 1):
        truth.run_ends(HOST.host, failing, day(moment))
    truth.year_ends()
    assert truth.failing == [Incident(HOST, day(2), day(4)), Incident(HOST, day(5), truth.end)]


def test_a_further_lineage_that_fails_is_an_incident_of_its_own() -> None:
    truth = Truth(seed=1, days=100)
    runs: list[set[str]] = [{"x"}, {"x", "y"}, {"y"}, {"x"}, set()]
    for moment, failing in enumerate(runs, 1):
        truth.run_ends(HOST.host, failing, day(moment))
    assert truth.failing == [
        Incident(HOST, day(1), day(5)),
        Incident(HOST, day(2), day(5), is_further=True),
    ]


def test_an_attempt_that_failed_makes_a_certificate_due() -> None:
    truth = Truth(seed=1, days=100)
    truth.certificate_begins(LINEAGE, certificate(day(0)), day(0))
    truth.attempt_fails(LINEAGE, day(40), day(40), is_urgent=False)
    truth.is_not_due(LINEAGE)
    truth.attempt_fails(LINEAGE, day(50), day(50), is_urgent=False)
    truth.attempt_fails(LINEAGE, day(52), day(52), is_urgent=False)
    truth.certificate_ends(LINEAGE, certificate(day(0)), day(55))
    assert [incident.begin for incident in truth.overdue] == [day(51)]


def test_a_renewal_that_the_ca_wants_at_once_is_overdue_when_it_fails() -> None:
    truth = Truth(seed=1, days=100)
    truth.certificate_begins(LINEAGE, certificate(day(0)), day(0))
    truth.attempt_fails(LINEAGE, day(40), day(40), is_urgent=True)
    truth.certificate_ends(LINEAGE, certificate(day(0)), day(41))
    assert [incident.begin for incident in truth.overdue] == [day(40)]


@pytest.mark.parametrize(
    ("ways", "has_run_reports"),
    [(Reports.BOTH_HOOKS, False), (Reports.RUN_REPORTS, True)],
)
def test_the_same_happens_in_a_year_whatever_is_reported(
    ways: Reports, has_run_reports: bool, tmp_path: Path
) -> None:
    years = []
    for reports in (Reports.DEPLOY_HOOK, ways):
        fleet = Fleet(3, 20, 60, reports, tmp_path / reports.name)
        fleet.run()
        years.append(fleet.truth)
    without_reports, with_reports = years
    assert with_reports.overdue == without_reports.overdue
    assert with_reports.failing == without_reports.failing
    assert with_reports.holdings == without_reports.holdings
    assert bool(with_reports.received) == has_run_reports
    assert not without_reports.received


# ---- When a renewal is due ---------------------------------------------------------------------
def lineage(
    lifetime: int, ca: str = "no ARI", interval: str = "", autorenew: bool = True
) -> Lineage:
    """Return a lineage whose certificate was issued on day 0."""
    begin = day(0)
    return Lineage(
        names=[LINEAGE.lineage],
        lifetime=lifetime,
        ca=ca,
        backdated="hour",
        interval=interval,
        autorenew=autorenew,
        broken=Periods([]),
        faults={},
        random_source=random.Random(1),
        certificate=hook.Certificate(LINEAGE.lineage, [], begin, begin + lifetime, 0),
    )


@pytest.mark.parametrize(
    ("lifetime", "version", "options", "due_on_day"),
    [
        (90, (2, 9), {}, 60),
        (365, (2, 9), {}, 335),
        (365, (4, 0), {}, 365 * 2 / 3),
        (6, (4, 0), {}, 3),
        (90, (5, 8), {"ca": "letsencrypt"}, 60.9),
        (90, (5, 8), {"ca": "wide"}, 72),  # the end of its window
        (90, (5, 8), {"ca": "late"}, 75),  # 15 days before the expiry
        (90, (5, 8), {"ca": "early"}, 60.9),
        (90, (2, 9), {"ca": "late"}, 60),  # certbot does not ask the CA
        (90, (5, 8), {"ca": "wide", "interval": "two weeks"}, 76),
        (90, (5, 8), {"autorenew": False}, 75),
        (60, (5, 8), {"autorenew": False}, 50),  # a sixth of the lifetime before the expiry
    ],
)
def test_a_renewal_is_due_when_a_working_certbot_has_renewed(
    lifetime: int, version: tuple[int, int], options: dict[str, Any], due_on_day: float
) -> None:
    due = due_at_the_latest(lineage(lifetime * DAY, **options), version)
    assert due == pytest.approx(day(0) + due_on_day * DAY)


@pytest.mark.parametrize(("days", "is_renewed"), [(66, False), (73, True)])
def test_certbot_renews_at_a_random_moment_in_the_window_of_the_ca(
    days: int, is_renewed: bool
) -> None:
    clock = day(days)
    late = lineage(90 * DAY, "late")
    assert not would_renew(late, (5, 8), day(70), ca_is_up=True)
    assert would_renew(late, (5, 8), day(81), ca_is_up=True)
    # Without an answer of the CA, certbot renews when a third is left.
    assert would_renew(late, (5, 8), clock, ca_is_up=False)
    wide = lineage(90 * DAY, "wide")
    renewals = [would_renew(wide, (5, 8), clock, ca_is_up=True) for _ in range(50)]
    assert all(renewals) == is_renewed
    assert any(renewals)


def test_certbot_renews_at_once_what_the_ca_has_revoked() -> None:
    revoked = lineage(90 * DAY, "letsencrypt")
    assert not would_renew(revoked, (5, 8), day(20), ca_is_up=True)
    revoked.revoked_at = day(19)
    assert would_renew(revoked, (5, 8), day(20), ca_is_up=True)
    assert not would_renew(revoked, (2, 9), day(20), ca_is_up=True)


# ---- Lines -------------------------------------------------------------------------------------
def test_a_line_without_a_time_gets_that_of_the_server() -> None:
    assert dated('m,host=a failure="at 12"', 5) == 'm,host=a failure="at 12" 5'
    assert dated("m,host=a run_at=1i", 5) == "m,host=a run_at=1i 5"
    assert dated("m,host=a renewed_count=1 3", 5) == "m,host=a renewed_count=1 3"


# ---- Alert states ------------------------------------------------------------------------------
def test_a_renewal_is_critical_after_half_of_the_time_to_the_expiry_if_that_is_less() -> None:
    rows = [Row(0.2, grace=0.25), Row(0.25, grace=0.25), Row(0.9, grace=7.0), Row(1.0, grace=7.0)]
    assert changes(OVERDUE, *rows) == [False, True, True, True]


def changes(alert: str, *rows: Row | None) -> list[bool]:
    """Return after which of the rows a notification is sent."""
    states = AlertStates()
    return [states.changes_with(AlertId(alert, HOST), row) for row in rows]


@pytest.mark.parametrize("alert", list(CRITICAL))
def test_an_alert_fires_at_its_threshold(alert: str) -> None:
    assert changes(alert, Row(CRITICAL[alert] - 1e-6)) == [False]
    assert changes(alert, Row(CRITICAL[alert])) == [True]


def test_a_notification_is_sent_only_when_an_alert_fires_or_resolves() -> None:
    rows = [Row(0.0), Row(1.0), Row(2.0), Row(0.0), Row(0.0)]
    assert changes(OVERDUE, *rows) == [False, True, False, True, False]


def test_an_alert_without_a_row_keeps_its_state() -> None:
    assert changes(OVERDUE, None, Row(1.0), None, Row(1.0)) == [False, True, False, False]


def test_an_alert_that_is_held_back_does_not_fire_but_goes_on_if_it_does() -> None:
    held_back = Row(3.0, held_back=True)
    assert changes(SILENT, held_back, Row(3.0), held_back, Row(0.0)) == [False, True, False, True]


# ---- The evaluation ----------------------------------------------------------------------------
class RecordingDatabase(Database):
    """Answers what a model says, with an error added, and records when it was asked."""

    def __init__(self, model: AlertPack, error: float = 0.0) -> None:
        """`error` is added to each value."""
        super().__init__()
        self.model = model
        self.error = error
        self.queries = {OVERDUE: "", SILENT: "", FAILING: ""}
        self.asked: list[tuple[str, int]] = []
        self.lines: list[str] = []

    def write(self, lines: list[str]) -> None:
        """Record the lines."""
        self.lines += lines

    def query(self, alert: str, now: int) -> dict[Subject, Row]:
        """Return the model's rows."""
        self.asked.append((alert, now))
        rows = {}
        for subject in self.model.subjects(alert):
            row = self.model.row(AlertId(alert, subject), now)
            if row is not None:
                rows[subject] = row._replace(value=row.value + self.error)
        return rows


def evaluate(
    arrivals: Sequence[Arrival], truth: Truth, error: float = 0.0
) -> tuple[list[Notification], RecordingDatabase]:
    """Evaluate a year; return the notifications, and the database."""
    model = AlertPack(400 * DAY)
    database = RecordingDatabase(model, error)
    evaluation = Evaluation(truth, model, database)
    evaluation.run(arrivals)
    assert evaluation.queries_asked == len(database.asked)
    return evaluation.notifications, database


def report(moment: int, due: int, exit_status: int = 0) -> Arrival:
    """Return a run report of the host that was made a second ago, and arrives now."""
    points = [
        reported_state(LINEAGE.lineage, due, moment - 1, host=HOST.host),
        certbot_run(HOST.host, moment - 1, exit_status=exit_status),
    ]
    return Arrival(moment, as_lines(points))


def test_each_alert_fires_once_and_resolves_once() -> None:
    arrivals = [
        report(day(1), due=day(20)),
        report(day(2), due=day(20), exit_status=1),
        report(day(3), due=day(20)),
        report(day(10), due=day(8)),  # it is overdue by two days
        report(day(11), due=day(50)),
    ]
    notifications, _ = evaluate(arrivals, Truth(seed=1, days=12))
    sent = [
        (notification.at, notification.alert, notification.subject, notification.fires)
        for notification in notifications
    ]
    assert sent == [
        (day(2), FAILING, FIRST_STEP, True),
        (day(3), FAILING, FIRST_STEP, False),
        (day(5), SILENT, HOST, True),
        (day(10), OVERDUE, LINEAGE, True),
        (day(10), SILENT, HOST, False),
        (day(11), OVERDUE, LINEAGE, False),
    ]


def test_a_report_is_judged_at_the_next_evaluation_after_it_has_arrived() -> None:
    late = report(day(1), due=day(20), exit_status=1)._replace(at=day(1) + 1)
    notifications, _ = evaluate([late], Truth(seed=1, days=2))
    assert [notification.at for notification in notifications] == [day(1) + EVALUATION_INTERVAL]


def test_a_report_is_not_seen_at_the_moment_of_its_own_points() -> None:
    report_of_now = report(day(1) + 1, due=day(20), exit_status=1)._replace(at=day(1))
    notifications, _ = evaluate([report_of_now], Truth(seed=1, days=2))
    assert [notification.at for notification in notifications] == [day(1) + EVALUATION_INTERVAL]


def test_each_further_lineage_that_fails_is_notified_and_all_resolve_together() -> None:
    arrivals = []
    for number, (step, steps) in enumerate([(1, 1), (2, 2), (2, 2), (0, 2)], 1):
        run = certbot_run(HOST.host, day(number) - 1, exit_status=1, step=step, steps=steps)
        arrivals.append(Arrival(day(number), as_lines([run])))
    notifications, _ = evaluate(arrivals, Truth(seed=1, days=5))
    second_step = FIRST_STEP._replace(step=2)
    sent = [(each.at, each.subject, each.fires) for each in notifications]
    assert sent == [
        (day(1), FIRST_STEP, True),
        (day(2), second_step, True),
        (day(4), FIRST_STEP, False),
        (day(4), second_step, False),
    ]


@pytest.mark.parametrize("what_is_down", ["influxdb_down", "kapacitor_down"])
def test_there_is_no_evaluation_while_influxdb_or_kapacitor_is_down(what_is_down: str) -> None:
    down = {what_is_down: Periods([Period(day(1), day(2) + 1)])}
    truth = Truth(1, 3, **down)
    notifications, _ = evaluate([report(day(1), due=day(20), exit_status=1)], truth)
    assert [notification.at for notification in notifications] == [day(2) + EVALUATION_INTERVAL]


def test_an_overdue_alert_is_about_the_last_report_others_about_now() -> None:
    arrivals = [report(day(1), due=day(-1), exit_status=1)._replace(at=day(1) + HOUR)]
    notifications, _ = evaluate(arrivals, Truth(seed=1, days=2))
    evidence = {notification.alert: notification.evidence for notification in notifications}
    assert evidence == {OVERDUE: day(1) - 1, FAILING: day(1) + HOUR}


def test_the_database_is_asked_at_each_notification() -> None:
    arrivals = [report(day(1), due=day(20), exit_status=1), report(day(2), due=day(20))]
    _, database = evaluate(arrivals, Truth(seed=1, days=3))
    assert database.asked == [(FAILING, day(1)), (FAILING, day(2))]
    assert database.lines == arrivals[0].lines + arrivals[1].lines


def test_the_database_is_asked_every_four_weeks() -> None:
    _, database = evaluate([report(day(1), due=day(90))], Truth(seed=1, days=60))
    of_failing = [moment for alert, moment in database.asked if alert == FAILING]
    assert len(of_failing) == 2
    assert of_failing[1] - of_failing[0] == 28 * DAY


def test_a_database_that_does_not_answer_what_the_model_says_is_an_error() -> None:
    arrivals = [report(day(1), due=day(20), exit_status=1)]
    evaluate(arrivals, Truth(seed=1, days=2), error=1e-7)
    with pytest.raises(RuntimeError, match=r"failing at \d+ does not say what the model says"):
        evaluate(arrivals, Truth(seed=1, days=2), error=1e-5)


def test_more_than_half_of_three_hosts_are_reported_as_most_hosts() -> None:
    arrivals = []
    for host in ("a", "b", "c"):
        last = day(3) if host == "a" else day(1)
        points = [certbot_run(host, last - 1)]
        arrivals.append(Arrival(last, as_lines(points)))
    notifications, _ = evaluate(arrivals, Truth(seed=1, days=4))
    assert [(notification.at, notification.subject) for notification in notifications] == [
        (day(3), MOST_HOSTS)
    ]


# ---- Probes ------------------------------------------------------------------------------------
def test_a_probe_alerts_from_its_threshold_until_the_renewal() -> None:
    truth = Truth(seed=1, days=100)
    truth.certificate_begins(LINEAGE, certificate(day(0)), day(0))
    truth.certificate_begins(LINEAGE, certificate(day(75)), day(75))
    hosts_off = {HOST.host: Periods([])}
    notifications = probe_notifications(truth, hosts_off, days_before_expiry(21))
    assert notifications == [
        Notification(day(69) + 900, PROBE, LINEAGE, True, day(69) + 900),
        Notification(day(75) + 900, PROBE, LINEAGE, False, day(75)),
    ]


def test_a_probe_does_not_alert_while_the_host_is_off() -> None:
    truth = Truth(seed=1, days=80)
    truth.certificate_begins(LINEAGE, certificate(day(0)), day(0))
    hosts_off = {HOST.host: Periods([Period(day(60), day(72))])}
    notifications = probe_notifications(truth, hosts_off, days_before_expiry(21))
    assert [notification.at for notification in notifications] == [day(72) + 900]
