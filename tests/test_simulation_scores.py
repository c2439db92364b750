"""How the simulation counts: hand-made years, and both sides of each threshold.

Each year here has one host with one lineage, and begins on day 0. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from certbot_renewal_report import DAY
from tools.simulation.alerts import (
    FAILING,
    OVERDUE,
    PROBE,
    PUBLISHED,
    SILENT,
    Notification,
    Subject,
)
from tools.simulation.periods import BEGIN, HOUR, Period, Periods
from tools.simulation.scores import (
    ALERT_PACK,
    FIXED_THRESHOLD,
    SLACK,
    Score,
    Tolerance,
    scores,
)
from tools.simulation.truth import Incident, ReceivedReport, Truth

HOST = Subject("web1")
FIRST_STEP = Subject("web1", step=1)  # of renewal_failing
SECOND_STEP = Subject("web1", step=2)
LINEAGE = Subject("web1", "c1.example.com")
YEAR_DAYS = 100


def day(number: float) -> float:
    """Return the beginning of a day of the year."""
    return BEGIN + number * DAY


def quiet_year(
    influxdb_down: Sequence[Period] = (), kapacitor_down: Sequence[Period] = ()
) -> Truth:
    """Return a year without incidents."""
    return Truth(1, YEAR_DAYS, Periods(influxdb_down), Periods(kapacitor_down))


def year_with_overdue_renewal(begin: float, end: float, expiry: float = 0.0) -> Truth:
    """Return a year in which the lineage is overdue once."""
    truth = quiet_year()
    truth.overdue.append(Incident(LINEAGE, begin, end, expiry))
    return truth


def year_with_silent_host(begin: float, end: float, influxdb_down: Sequence[Period] = ()) -> Truth:
    """Return a year in which the host is silent once."""
    truth = quiet_year(influxdb_down)
    truth.silent.append(Incident(HOST, begin, end))
    return truth


def fires(
    alert: str, at: float, subject: Subject = LINEAGE, evidence: float | None = None
) -> Notification:
    """Return the notification of an alert that fires; by default it is about that moment."""
    return Notification(at, alert, subject, True, at if evidence is None else evidence)


def resolves(alert: str, at: float, subject: Subject = LINEAGE) -> Notification:
    """Return the notification of an alert that resolves."""
    return Notification(at, alert, subject, False, at)


def score_of(
    alert: str, truth: Truth, *notifications: Notification, tolerance: Tolerance = ALERT_PACK
) -> Score:
    """Return the score of an alert."""
    return scores(truth, [alert], notifications, tolerance)[alert]


def year_with_failing_runs(*further: float) -> Truth:
    """Return a year in which certbot fails from day 10 to day 20; `further`: a lineage more."""
    truth = quiet_year()
    truth.failing.append(Incident(HOST, day(10), day(20)))
    for begin in further:
        truth.failing.append(Incident(HOST, begin, day(20), is_further=True))
    return truth


# ---- A whole year ------------------------------------------------------------------------------
def test_a_year_with_a_missed_a_late_a_false_and_an_early_alert() -> None:
    truth = quiet_year()
    for begin in (10, 20, 30):
        truth.overdue.append(Incident(LINEAGE, day(begin), day(begin + 5)))

    score = score_of(
        OVERDUE,
        truth,
        # Nothing from day 10 to day 15: missed.
        fires(OVERDUE, day(20) + 6 * HOUR),  # six hours late
        resolves(OVERDUE, day(25)),
        fires(OVERDUE, day(27)),  # there is no incident: false
        resolves(OVERDUE, day(28)),
        fires(OVERDUE, day(30) - 600),  # ten minutes early
        resolves(OVERDUE, day(35)),
    )

    assert (score.true_alerts, score.false_alerts) == (2, 1)
    assert (score.incidents, score.missed, score.noticed) == (3, 1, 2)
    assert score.delays == [6 * HOUR, 0.0]
    assert (score.firings, score.resolutions) == (2, 2)
    assert score.errors == [
        f"seed 1: false overdue of web1 c1.example.com at {day(27)}",
        f"seed 1: missed overdue of web1 c1.example.com from {day(10):.0f} to {day(15):.0f}",
    ]


def test_a_year_without_incidents_and_alerts_counts_nothing() -> None:
    assert score_of(OVERDUE, quiet_year()) == Score()


def test_the_counts_of_two_years_add_up() -> None:
    late_by_an_hour = score_of(
        OVERDUE, year_with_overdue_renewal(day(10), day(15)), fires(OVERDUE, day(10) + HOUR)
    )
    missed = score_of(OVERDUE, year_with_overdue_renewal(day(10), day(15)))
    total = Score()
    for score in (late_by_an_hour, missed):
        total.add(score)
    assert (total.true_alerts, total.incidents, total.missed) == (1, 2, 1)
    assert total.delays == [HOUR]
    assert len(total.errors) == 1


# ---- Alerts that fire: true, early, false ------------------------------------------------------
@pytest.mark.parametrize(
    ("at", "true_alerts"),
    [
        (day(10) - SLACK - 1, 0),
        (day(10) - SLACK, 1),
        (day(15) + SLACK, 1),
        (day(15) + SLACK + 1, 0),
    ],
)
def test_an_alert_may_fire_half_an_hour_before_or_after_the_incident(
    at: float, true_alerts: int
) -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    score = score_of(OVERDUE, truth, fires(OVERDUE, at))
    assert (score.true_alerts, score.false_alerts) == (true_alerts, 1 - true_alerts)


def test_the_moment_that_an_alert_is_about_decides_whether_it_is_true() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    about_incident = fires(OVERDUE, day(17), evidence=day(14))
    about_later = fires(OVERDUE, day(14), evidence=day(17))
    assert score_of(OVERDUE, truth, about_incident).true_alerts == 1
    assert score_of(OVERDUE, truth, about_later).false_alerts == 1


@pytest.mark.parametrize(
    "other", [Subject("web2", LINEAGE.lineage), Subject(LINEAGE.host, "c2.example.com")]
)
def test_an_alert_about_another_certificate_is_false_and_reports_nothing(other: Subject) -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    score = score_of(OVERDUE, truth, fires(OVERDUE, day(11), other))
    assert (score.true_alerts, score.false_alerts, score.missed) == (0, 1, 1)


def test_an_alert_of_another_kind_is_false() -> None:
    truth = year_with_silent_host(day(10), day(15))
    assert score_of(FAILING, truth, fires(FAILING, day(11), HOST)).false_alerts == 1


@pytest.mark.parametrize(("seconds_early", "true_alerts"), [(DAY, 1), (DAY + 1, 0)])
def test_the_alert_about_a_silent_host_may_fire_a_day_before_the_incident(
    seconds_early: int, true_alerts: int
) -> None:
    truth = year_with_silent_host(day(10), day(15))
    score = score_of(SILENT, truth, fires(SILENT, day(10) - seconds_early, HOST))
    assert (score.true_alerts, score.false_alerts) == (true_alerts, 1 - true_alerts)


@pytest.mark.parametrize(("seconds_down", "after_outage"), [(DAY, 1), (DAY - 1, 0)])
def test_an_alert_about_a_silent_host_after_a_day_without_influxdb_is_counted_apart(
    seconds_down: int, after_outage: int
) -> None:
    truth = quiet_year(influxdb_down=[Period(day(10), day(10) + seconds_down)])
    score = score_of(SILENT, truth, fires(SILENT, day(12), HOST))
    assert (score.alerts_after_outage, score.false_alerts) == (after_outage, 1 - after_outage)
    assert len(score.remarks) == after_outage
    assert len(score.errors) == 1 - after_outage


@pytest.mark.parametrize(("days_later", "after_outage"), [(3, 1), (3.01, 0)])
def test_an_outage_counts_for_four_days_from_its_beginning(
    days_later: float, after_outage: int
) -> None:
    truth = quiet_year(influxdb_down=[Period(day(10), day(11))])
    score = score_of(SILENT, truth, fires(SILENT, day(11 + days_later), HOST))
    assert (score.alerts_after_outage, score.false_alerts) == (after_outage, 1 - after_outage)


def test_another_alert_after_an_outage_is_false() -> None:
    truth = quiet_year(influxdb_down=[Period(day(10), day(11))])
    assert score_of(OVERDUE, truth, fires(OVERDUE, day(12))).false_alerts == 1


# ---- Missed incidents --------------------------------------------------------------------------
@pytest.mark.parametrize(("seconds_after_end", "missed"), [(0, 0), (1, 1)])
def test_an_incident_is_missed_if_the_alert_fires_after_its_end(
    seconds_after_end: int, missed: int
) -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    score = score_of(OVERDUE, truth, fires(OVERDUE, day(15) + seconds_after_end))
    assert (score.missed, score.noticed) == (missed, 1 - missed)


@pytest.mark.parametrize(("seconds_before_begin", "missed"), [(0, 0), (1, 1)])
def test_an_incident_is_missed_if_the_alert_resolved_before_its_beginning(
    seconds_before_begin: int, missed: int
) -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    notifications = (fires(OVERDUE, day(5)), resolves(OVERDUE, day(10) - seconds_before_begin))
    assert score_of(OVERDUE, truth, *notifications).missed == missed


def test_an_alert_that_has_been_firing_since_before_reports_an_incident() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    score = score_of(OVERDUE, truth, fires(OVERDUE, day(5)))
    assert (score.false_alerts, score.missed, score.noticed) == (1, 0, 1)
    assert score.delays == [0.0]


@pytest.mark.parametrize(
    ("alert", "subject"), [(SILENT, HOST), (FAILING, FIRST_STEP), (FAILING, SECOND_STEP)]
)
def test_an_overdue_renewal_is_not_missed_if_an_alert_about_its_host_fires(
    alert: str, subject: Subject
) -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    score = score_of(OVERDUE, truth, fires(alert, day(11), subject))
    assert (score.incidents, score.missed) == (1, 0)
    assert score.noticed == 0  # not by its own alert, so no delay is counted
    assert score.delays == []


def test_an_overdue_renewal_is_missed_if_the_alert_about_another_host_fires() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    assert score_of(OVERDUE, truth, fires(SILENT, day(11), Subject("web2"))).missed == 1


def test_a_silent_host_is_missed_if_only_its_certificate_is_reported() -> None:
    truth = year_with_silent_host(day(10), day(15))
    assert score_of(SILENT, truth, fires(OVERDUE, day(11))).missed == 1


@pytest.mark.parametrize(("seconds", "incidents"), [(DAY, 0), (DAY + 1, 1)])
def test_an_incident_counts_if_it_lasts_for_over_a_day(seconds: int, incidents: int) -> None:
    truth = year_with_overdue_renewal(day(10), day(10) + seconds)
    score = score_of(OVERDUE, truth)
    assert (score.incidents, score.missed) == (incidents, incidents)


def test_an_alert_about_a_short_incident_is_true() -> None:
    truth = year_with_overdue_renewal(day(10), day(10) + HOUR)
    score = score_of(OVERDUE, truth, fires(OVERDUE, day(10)))
    assert (score.true_alerts, score.incidents, score.noticed) == (1, 0, 0)


@pytest.mark.parametrize(("seconds_visible", "incidents"), [(DAY, 0), (DAY + 1, 1)])
def test_the_time_in_which_influxdb_or_kapacitor_is_down_does_not_count(
    seconds_visible: int, incidents: int
) -> None:
    truth = quiet_year(
        influxdb_down=[Period(day(10), day(11))], kapacitor_down=[Period(day(11), day(12))]
    )
    truth.overdue.append(Incident(LINEAGE, day(10), day(12) + seconds_visible))
    assert score_of(OVERDUE, truth).incidents == incidents


def test_a_time_in_which_influxdb_and_kapacitor_are_both_down_is_subtracted_once() -> None:
    """Three days, and both servers are down on the first two of them: one day is visible."""
    both = [Period(day(10), day(12))]
    truth = quiet_year(influxdb_down=both, kapacitor_down=both)
    truth.overdue.append(Incident(LINEAGE, day(10), day(13)))
    truth.overdue.append(Incident(LINEAGE, day(10), day(13) + 1))
    score = score_of(OVERDUE, truth)
    assert (score.incidents, score.missed) == (1, 1)  # only the second is visible for over a day


def test_outages_that_overlap_in_part_are_subtracted_once() -> None:
    """InfluxDB is down from day 10 to 12, and Kapacitor from day 11 to 13."""
    truth = quiet_year(
        influxdb_down=[Period(day(10), day(12))], kapacitor_down=[Period(day(11), day(13))]
    )
    truth.overdue.append(Incident(LINEAGE, day(10), day(14)))
    truth.overdue.append(Incident(LINEAGE, day(10), day(14) + 1))
    assert score_of(OVERDUE, truth).incidents == 1


# ---- Late alerts -------------------------------------------------------------------------------
def test_the_delay_counts_from_the_arrival_of_the_first_report_after_the_beginning() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    truth.received[HOST.host] = [
        ReceivedReport(received_at=day(9.5), arrived_at=day(10.1)),  # received before the beginning
        ReceivedReport(received_at=day(10.5), arrived_at=day(10.75)),
        ReceivedReport(received_at=day(11), arrived_at=day(11)),
    ]
    score = score_of(OVERDUE, truth, fires(OVERDUE, day(11)))
    assert score.delays == [DAY / 4]


def test_the_delay_counts_from_the_first_report_after_certbots_log_shows_the_incident() -> None:
    truth = quiet_year()
    truth.overdue.append(Incident(LINEAGE, day(10), day(15), shown_from=day(12)))
    truth.received[HOST.host] = [ReceivedReport(day(11), day(11)), ReceivedReport(day(13), day(13))]
    assert score_of(OVERDUE, truth, fires(OVERDUE, day(13) + 900)).delays == [900]


def test_the_delay_counts_from_the_beginning_without_run_reports() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    assert score_of(OVERDUE, truth, fires(OVERDUE, day(11))).delays == [DAY]


def test_the_delay_of_a_silent_host_counts_from_the_beginning() -> None:
    truth = year_with_silent_host(day(10), day(15))
    truth.received[HOST.host] = [ReceivedReport(received_at=day(15), arrived_at=day(15))]
    assert score_of(SILENT, truth, fires(SILENT, day(10) + 600, HOST)).delays == [600]


def test_the_delay_counts_from_when_influxdb_and_kapacitor_run_again() -> None:
    truth = quiet_year(
        influxdb_down=[Period(day(9.9), day(10.2))], kapacitor_down=[Period(day(10.1), day(10.5))]
    )
    truth.overdue.append(Incident(LINEAGE, day(10), day(15)))
    assert score_of(OVERDUE, truth, fires(OVERDUE, day(11))).delays == [DAY / 2]


def test_an_early_alert_has_no_delay() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    assert score_of(OVERDUE, truth, fires(OVERDUE, day(10) - 600)).delays == [0.0]


@pytest.mark.parametrize(("seconds_down", "after_outage"), [(DAY, True), (DAY - 1, False)])
def test_the_delay_after_a_day_without_influxdb_is_counted_apart(
    seconds_down: int, after_outage: bool
) -> None:
    outage = Period(day(9), day(9) + seconds_down)
    truth = year_with_silent_host(day(10), day(15), influxdb_down=[outage])
    score = score_of(SILENT, truth, fires(SILENT, day(11), HOST))
    assert score.delays_after_outage == [DAY] * after_outage
    assert score.delays == [DAY] * (not after_outage)


def test_each_notification_during_an_incident_is_counted() -> None:
    truth = year_with_overdue_renewal(day(10), day(20))
    score = score_of(
        OVERDUE,
        truth,
        fires(OVERDUE, day(10)),
        resolves(OVERDUE, day(12)),
        fires(OVERDUE, day(13)),  # and goes on until the end of the year
    )
    assert (score.noticed, score.firings, score.resolutions) == (1, 2, 1)


# ---- Certificates that expire ------------------------------------------------------------------
@pytest.mark.parametrize(("seconds_after_expiry", "expired"), [(0, 0), (1, 1)])
def test_a_certificate_that_is_not_renewed_before_its_expiry_has_expired(
    seconds_after_expiry: int, expired: int
) -> None:
    truth = year_with_overdue_renewal(day(10), day(40) + seconds_after_expiry, expiry=day(40))
    score = score_of(OVERDUE, truth)
    assert (score.expired, score.unannounced) == (expired, expired)


@pytest.mark.parametrize(("seconds_later", "unannounced"), [(0, 0), (1, 1)])
def test_an_expiry_is_announced_if_an_alert_fires_a_day_before(
    seconds_later: int, unannounced: int
) -> None:
    truth = year_with_overdue_renewal(day(10), day(50), expiry=day(40))
    score = score_of(OVERDUE, truth, fires(OVERDUE, day(39) + seconds_later))
    assert (score.expired, score.unannounced) == (1, unannounced)
    assert len(score.remarks) == unannounced


def test_an_expiry_is_announced_by_an_alert_about_the_host() -> None:
    truth = year_with_overdue_renewal(day(10), day(50), expiry=day(40))
    assert score_of(OVERDUE, truth, fires(SILENT, day(30), HOST)).unannounced == 0


def test_an_expiry_counts_also_if_the_incident_is_too_short_to_count() -> None:
    expiry = day(10) + HOUR
    truth = year_with_overdue_renewal(day(10), day(10) + 2 * HOUR, expiry)
    score = score_of(OVERDUE, truth)
    assert (score.incidents, score.expired, score.unannounced) == (0, 1, 1)


# ---- The published query, and probes -----------------------------------------------------------
@pytest.mark.parametrize("alert", [PUBLISHED, PROBE])
@pytest.mark.parametrize(("seconds_early", "missed"), [(DAY, 0), (DAY + 1, 1)])
def test_a_fixed_threshold_reports_an_incident_if_it_fires_at_most_a_day_early(
    alert: str, seconds_early: int, missed: int
) -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    notification = fires(alert, day(10) - seconds_early)
    score = score_of(alert, truth, notification, tolerance=FIXED_THRESHOLD)
    assert (score.missed, score.false_alerts) == (missed, missed)
    assert score.true_alerts == 1 - missed


def test_an_alert_by_name_counts_for_the_lineage() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    name = Subject("web1", f"www.{LINEAGE.lineage}")
    notification = fires(PUBLISHED, day(11), name)
    score = score_of(PUBLISHED, truth, notification, tolerance=FIXED_THRESHOLD)
    assert (score.true_alerts, score.missed) == (1, 0)


FIRST_NAME = Subject("web1", f"www.{LINEAGE.lineage}")
SECOND_NAME = Subject("web1", f"api.{LINEAGE.lineage}")


def test_the_alerts_of_two_names_of_a_lineage_each_have_their_own_recovery() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    score = score_of(
        PUBLISHED,
        truth,
        fires(PUBLISHED, day(11), FIRST_NAME),
        fires(PUBLISHED, day(11), SECOND_NAME),
        resolves(PUBLISHED, day(15), FIRST_NAME),
        resolves(PUBLISHED, day(15), SECOND_NAME),
        tolerance=FIXED_THRESHOLD,
    )
    assert (score.noticed, score.firings, score.resolutions) == (1, 2, 2)


def test_the_alert_of_a_name_that_does_not_resolve_has_no_recovery() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    score = score_of(
        PUBLISHED,
        truth,
        fires(PUBLISHED, day(11), FIRST_NAME),
        fires(PUBLISHED, day(12), SECOND_NAME),
        resolves(PUBLISHED, day(15), FIRST_NAME),
        tolerance=FIXED_THRESHOLD,
    )
    assert (score.firings, score.resolutions) == (2, 1)


def test_the_alerts_of_two_names_that_resolved_do_not_report_a_later_incident() -> None:
    truth = year_with_overdue_renewal(day(10), day(15))
    truth.overdue.append(Incident(LINEAGE, day(40), day(45)))
    score = score_of(
        PUBLISHED,
        truth,
        fires(PUBLISHED, day(11), FIRST_NAME),
        fires(PUBLISHED, day(11), SECOND_NAME),
        resolves(PUBLISHED, day(15), FIRST_NAME),
        resolves(PUBLISHED, day(15), SECOND_NAME),
    )
    assert (score.incidents, score.noticed, score.missed) == (2, 1, 1)


# ---- Failing runs ------------------------------------------------------------------------------
def test_further_lineages_that_fail_need_a_further_notification() -> None:
    truth = year_with_failing_runs(day(12), day(15))
    score = score_of(
        FAILING, truth, fires(FAILING, day(10), FIRST_STEP), fires(FAILING, day(12), SECOND_STEP)
    )
    assert (score.true_alerts, score.false_alerts) == (2, 0)
    assert (score.incidents, score.missed) == (3, 1)
    assert score.errors == [f"seed 1: missed failing of web1 from {day(15):.0f} to {day(20):.0f}"]


def test_only_the_first_notification_of_failing_runs_counts_for_the_delay() -> None:
    truth = year_with_failing_runs(day(12))
    score = score_of(
        FAILING,
        truth,
        fires(FAILING, day(10) + 900, FIRST_STEP),
        fires(FAILING, day(14), SECOND_STEP),
    )
    assert (score.noticed, score.firings, score.delays) == (1, 1, [900])


def test_a_further_step_without_failing_runs_is_false() -> None:
    score = score_of(FAILING, quiet_year(), fires(FAILING, day(12), SECOND_STEP))
    assert (score.true_alerts, score.false_alerts) == (0, 1)
    assert score.errors == [f"seed 1: false failing of web1 step 2 at {day(12)}"]


# ---- Short certificates ------------------------------------------------------------------------
@pytest.mark.parametrize(("hours_late", "unannounced"), [(2, 0), (3, 1)])
def test_the_expiry_of_a_short_certificate_is_announced_in_the_first_half_of_the_time(
    hours_late: float, unannounced: int
) -> None:
    expiry = day(10) + 4 * HOUR
    truth = year_with_overdue_renewal(day(10), day(12), expiry)
    score = score_of(OVERDUE, truth, fires(OVERDUE, day(10) + hours_late * HOUR))
    assert (score.expired, score.unannounced) == (1, unannounced)
