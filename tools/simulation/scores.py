"""The scores: the notifications of a year, compared with its incidents.

Of each **alert that fires**:

- It is *true* if there is an incident of the same kind, about the same subject, at the moment that
  the alert is about (its evidence). It may be *early*: half an hour, or a day if it is about a
  silent host, or of the published query, or of a probe. It may also come half an hour after the end
  of the incident, since clocks are wrong and a run takes a while.
- It is *after an outage* if it is about a silent host, is not true, and InfluxDB was down for a day
  in all in the four days before. Such alerts are counted apart and printed.
- Otherwise it is *false*.

Of each **incident** that was visible for more than a day (the time in which InfluxDB or Kapacitor
was down does not count):

- It is *missed* if no alert that reports it was firing at any time between its beginning and its
  end. An overdue renewal is reported by its own alert, and also by the alerts of its host: silent
  host and failing run. If certbot does not run on a host, that is what the administrator has to
  know.
- It is *noticed* if an alert of its own kind was firing in that time. Then the *delay* is counted,
  from the moment at which the incident could be known to the first notification, 0 if the alert was
  early. It could be known when the first report that shows it had arrived, and InfluxDB and
  Kapacitor both ran. Delays after an outage of InfluxDB of a day or more are counted apart.

Shorter incidents count neither as missed nor as noticed, but an alert for one of them is true.

Of each **certificate that expired** while it was overdue: it is *unannounced* if no alert that
reports it fired at least a day before the expiry, or, if it was overdue for less than two days
until then, in the first half of this time.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from certbot_renewal_report import DAY
from tools.simulation.alerts import (
    FAILING,
    MOST_STEPS,
    OVERDUE,
    SILENT,
    AlertId,
    Notification,
    Subject,
)
from tools.simulation.periods import EVALUATION_INTERVAL
from tools.simulation.truth import Incident, Truth

SHORTEST_COUNTED = DAY  # an incident that was visible for longer counts
SLACK = 2 * EVALUATION_INTERVAL  # clocks are wrong, and a run takes a while
# After an outage: InfluxDB was down for this long in the days before, the sum of all its periods.
OUTAGE = DAY
OUTAGE_LOOKBACK = 4 * DAY
LABELS_OF_LINEAGE = 3  # a lineage is called c0.example.com, its names www.c0.example.com and so on


class Tolerance(NamedTuple):
    """How early an alert may fire.

    An alert at most `early` seconds before the incident's beginning is still true. With
    `only_new_firings`, an alert that has been firing since before that does not report the
    incident: an alert that always fires reports nothing.
    """

    early: float
    only_new_firings: bool


ALERT_PACK = Tolerance(early=SLACK, only_new_firings=False)
FIXED_THRESHOLD = Tolerance(early=DAY, only_new_firings=True)  # published query, probes
# The last report of a host may have been made while InfluxDB was down: its silence seems to begin
# with the report before.
SILENT_EARLY = DAY


class Verdict(enum.Enum):
    """What an alert that fires is."""

    TRUE = "true"
    AFTER_OUTAGE = "after an outage"
    FALSE = "false"


class Firing(NamedTuple):
    """When an alert was firing."""

    begin: float
    end: float


@dataclass
class Score:
    """The counts of an alert. The words are defined at the top of this file."""

    # Alerts that fired, by verdict.
    true_alerts: int = 0
    false_alerts: int = 0
    alerts_after_outage: int = 0

    incidents: int = 0  # that were visible for long enough to count
    missed: int = 0  # incidents during which no alert that reports them was firing
    noticed: int = 0  # incidents during which their own alert was firing
    firings: int = 0  # how often the own alerts of the noticed incidents fired
    resolutions: int = 0  # how many of these firings resolved before the end of the year
    expired: int = 0  # certificates that expired while they were overdue
    unannounced: int = 0  # expired certificates without an alert a day before the expiry

    # Of each noticed incident, how many seconds late its alert was: one number in one of the lists.
    delays: list[float] = field(default_factory=list)
    delays_after_outage: list[float] = field(default_factory=list)

    errors: list[str] = field(default_factory=list)  # texts: false alerts, missed incidents
    remarks: list[str] = field(default_factory=list)  # texts: what else a reader would ask about

    def add(self, other: Score) -> None:
        """Add the counts of another year."""
        for count in fields(self):
            total = getattr(self, count.name) + getattr(other, count.name)
            setattr(self, count.name, total)


def scores(
    truth: Truth, alerts: Sequence[str], notifications: Sequence[Notification], tolerance: Tolerance
) -> dict[str, Score]:
    """Return the score of each alert in a year, whose notifications are given in their order."""
    comparison = Comparison(truth, notifications, tolerance)
    return {alert: comparison.score(alert) for alert in alerts}


class Comparison:
    """The comparison of a year's notifications with its incidents.

    It has two views of the alerts. Each notification by itself, with its evidence, is a true or a
    false alert. The firings, from a notification that an alert fires to the one that it resolves,
    say which alerts were firing during an incident: whether it was reported, and when first.
    """

    def __init__(
        self, truth: Truth, notifications: Sequence[Notification], tolerance: Tolerance
    ) -> None:
        """`notifications` are in the order in which they were sent."""
        self.truth = truth
        self.notifications = notifications
        self.tolerance = tolerance
        self.firings = firings_by_alert(notifications, truth.end)

    def score(self, alert: str) -> Score:
        """Return the score of an alert."""
        score = Score()
        incidents: dict[Subject, list[Incident]] = defaultdict(list)
        for incident in self.truth.incidents(alert):
            incidents[incident.subject].append(incident)

        for notification in self.notifications:
            if notification.alert == alert and notification.fires:
                subject = lineage_of(notification.subject)._replace(step=0)
                own_incidents = incidents[subject]
                self.count_alert(notification, own_incidents, score)
        for incident in self.truth.incidents(alert):
            self.count_expiry(alert, incident, score)
            if self.visible_seconds(incident) > SHORTEST_COUNTED:
                self.count_incident(alert, incident, score)
        return score

    # ---- Alerts that fire ----------------------------------------------------------------------
    def count_alert(
        self, notification: Notification, incidents: Sequence[Incident], score: Score
    ) -> None:
        """Count an alert that fires; `incidents` are those of its kind and subject."""
        verdict = self.verdict(notification, incidents)
        about = f"{notification.alert} of {notification.subject.words()} at {notification.at}"
        if verdict is Verdict.TRUE:
            score.true_alerts += 1
        elif verdict is Verdict.AFTER_OUTAGE:
            score.alerts_after_outage += 1
            score.remarks.append(f"seed {self.truth.seed}: {about}, after an outage")
        else:
            score.false_alerts += 1
            score.errors.append(f"seed {self.truth.seed}: false {about}")

    def verdict(self, notification: Notification, incidents: Sequence[Incident]) -> Verdict:
        """Return what an alert that fires is."""
        early = self.tolerance.early
        if notification.alert == SILENT:
            early = SILENT_EARLY
        for incident in incidents:
            if incident.begin - early <= notification.evidence <= incident.end + SLACK:
                return Verdict.TRUE
        if notification.alert == SILENT and self.is_after_outage(notification.at, notification.at):
            return Verdict.AFTER_OUTAGE
        return Verdict.FALSE

    def is_after_outage(self, begin: float, end: float) -> bool:
        """Return whether InfluxDB was down for long, from four days before a moment to another."""
        down = self.truth.influxdb_down.seconds_within(begin - OUTAGE_LOOKBACK, end)
        return down >= OUTAGE

    # ---- Incidents -----------------------------------------------------------------------------
    def visible_seconds(self, incident: Incident) -> float:
        """Return for how long alerts could see an incident: while both servers run."""
        seconds_down = self.truth.servers_down.seconds_within(incident.begin, incident.end)
        return incident.end - incident.begin - seconds_down

    def count_incident(self, alert: str, incident: Incident, score: Score) -> None:
        """Count an incident: whether it was missed, and how late the alert was."""
        score.incidents += 1
        firings = self.all_firings(alert, incident)
        if incident.is_further:
            earliest = incident.begin - self.tolerance.early
            firings = [firing for firing in firings if firing.begin >= earliest]
        if not firings:
            score.missed += 1
            when = f"from {incident.begin:.0f} to {incident.end:.0f}"
            score.errors.append(
                f"seed {self.truth.seed}: missed {alert} of {incident.subject.words()} {when}"
            )

        own_firings = self.firings_during(own_alert(alert, incident.subject), incident)
        if own_firings and not incident.is_further:
            score.noticed += 1
            score.firings += len(own_firings)
            resolved = [firing for firing in own_firings if firing.end < self.truth.end]
            score.resolutions += len(resolved)
            first = min(firing.begin for firing in own_firings)
            self.count_delay(alert, incident, first, score)

    def count_delay(self, alert: str, incident: Incident, notified_at: float, score: Score) -> None:
        """Count how late the first notification of an incident was; 0 if it was early."""
        delay = max(0.0, notified_at - self.knowable_at(alert, incident))
        if self.is_after_outage(incident.begin, notified_at):
            score.delays_after_outage.append(delay)
        else:
            score.delays.append(delay)

    def knowable_at(self, alert: str, incident: Incident) -> float:
        """Return when an incident could be known at the earliest.

        With run reports, an overdue renewal and a failing run show in the first report that was
        made after the beginning, when it has arrived. A silent host shows at the beginning, and so
        does everything without run reports. While InfluxDB or Kapacitor is down nothing is known.
        """
        knowable_at = incident.begin
        if alert in (OVERDUE, FAILING):
            received = self.truth.received[incident.subject.host]
            shown_from = max(incident.begin, incident.shown_from)
            arrivals = [
                report.arrived_at for report in received if report.received_at >= shown_from
            ]
            knowable_at = min(arrivals, default=incident.begin)
        return self.truth.evaluation_resumes_at(knowable_at)

    def count_expiry(self, alert: str, incident: Incident, score: Score) -> None:
        """Count a certificate that expired while it was overdue; not if it was renewed in time."""
        if not incident.expiry or incident.end <= incident.expiry:
            return
        score.expired += 1
        begins = [firing.begin for firing in self.all_firings(alert, incident)]
        time_left = min(DAY, (incident.expiry - incident.begin) / 2)
        if min(begins, default=incident.expiry) <= incident.expiry - time_left:
            return
        score.unannounced += 1
        moments = [f"{begin:.0f}" for begin in begins]
        history = f"overdue from {incident.begin:.0f} to {incident.end:.0f}, alerts at {moments}"
        score.remarks.append(
            f"seed {self.truth.seed}: {incident.subject.words()} expired at "
            f"{incident.expiry:.0f}, {history}"
        )

    def all_firings(self, alert: str, incident: Incident) -> list[Firing]:
        """Return when the alerts that report an incident were firing during it."""
        firings = []
        for alert_id in reporting_alerts(alert, incident.subject):
            firings += self.firings_during(alert_id, incident)
        return firings

    def firings_during(self, alert_id: AlertId, incident: Incident) -> list[Firing]:
        """Return when an alert was firing during an incident; it may have begun before."""
        firings = []
        earliest = incident.begin - self.tolerance.early
        for firing in self.firings[alert_id]:
            overlaps = firing.begin <= incident.end and firing.end >= incident.begin
            is_older = self.tolerance.only_new_firings and firing.begin < earliest
            if overlaps and not is_older:
                firings.append(firing)
        return firings


def firings_by_alert(
    notifications: Sequence[Notification], year_end: float
) -> dict[AlertId, list[Firing]]:
    """Return when each alert was firing, from the notifications in their order.

    What does not resolve fires until the end of the year. The alerts about the names of a lineage
    are paired name by name, and then count for the lineage.
    """
    firings_by_subject: dict[AlertId, list[Firing]] = defaultdict(list)
    for notification in notifications:
        firings = firings_by_subject[AlertId(notification.alert, notification.subject)]
        if notification.fires:
            firings.append(Firing(notification.at, year_end))
        else:
            firings[-1] = firings[-1]._replace(end=notification.at)

    firings_by_lineage: dict[AlertId, list[Firing]] = defaultdict(list)
    for (alert, subject), firings in firings_by_subject.items():
        firings_by_lineage[AlertId(alert, lineage_of(subject))] += firings
    return firings_by_lineage


def own_alert(alert: str, subject: Subject) -> AlertId:
    """Return the alert that reports an incident first; of failing runs that of the first step."""
    if alert == FAILING:
        subject = subject._replace(step=1)
    return AlertId(alert, subject)


def reporting_alerts(alert: str, subject: Subject) -> list[AlertId]:
    """Return the alerts that report an incident: its own, and of an overdue renewal its host's."""
    host = Subject(subject.host)
    failing = [AlertId(FAILING, host._replace(step=step)) for step in range(1, MOST_STEPS + 1)]
    if alert == FAILING:
        return failing
    if alert == OVERDUE:
        return [AlertId(alert, subject), AlertId(SILENT, host), *failing]
    return [AlertId(alert, subject)]


def lineage_of(subject: Subject) -> Subject:
    """Return the lineage to which a name belongs; of a host or a lineage itself."""
    labels = subject.lineage.split(".")
    return subject._replace(lineage=".".join(labels[-LABELS_OF_LINEAGE:]))
