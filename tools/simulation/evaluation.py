"""The evaluation of a year: every fifteen minutes the alerts are judged, as Kapacitor does it.

The model of the queries says which rows there are, and AlertStates which notifications they cause.
The real database is asked the real query at some of these moments, and must answer what the model
says:

- every four weeks;
- at each notification, since there an error would change the counts; of a configuration with very
  many notifications, at one of five.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from certbot_renewal_report import DAY
from tools.simulation.alerts import AlertId, AlertStates, Notification, Row, Subject
from tools.simulation.databases import Database
from tools.simulation.models import QueryModel
from tools.simulation.periods import BEGIN, EVALUATION_INTERVAL
from tools.simulation.reports import Arrival
from tools.simulation.truth import Truth

REGULAR_COMPARISON = 28 * DAY
LARGEST_DIFFERENCE = 1e-6  # between the values of a query and of its model
DIFFERENCES_SHOWN = 5


class RowPair(NamedTuple):
    """What a query answers, and what its model says."""

    answer: Row
    expected: Row

    def differs(self) -> bool:
        """Return whether the two are not the same."""
        answer, expected = self.answer, self.expected
        return (
            not math.isclose(answer.value, expected.value, abs_tol=LARGEST_DIFFERENCE)
            or not math.isclose(answer.grace, expected.grace, abs_tol=LARGEST_DIFFERENCE)
            or answer.held_back != expected.held_back
        )


class Evaluation:
    """The evaluation of a year.

    `notifications` are all that were sent. `queries_asked` is how often the database was asked.
    """

    def __init__(
        self, truth: Truth, model: QueryModel, database: Database, compare_every: int = 1
    ) -> None:
        """The database is asked at one of `compare_every` notifications."""
        self.truth = truth
        self.model = model
        self.database = database
        self.compare_every = compare_every
        self.states = AlertStates()
        self.notifications: list[Notification] = []
        self.queries_asked = 0

    def run(self, arrivals: Sequence[Arrival]) -> None:
        """Evaluate the whole year; RuntimeError if a query does not answer what its model says.

        While InfluxDB or Kapacitor is down there is no evaluation: what changes meanwhile is judged
        at the first one after that.
        """
        visible = [Arrival(visible_at(arrival), arrival.lines) for arrival in arrivals]
        waiting = deque(sorted(visible, key=lambda arrival: arrival.at))
        changed: set[AlertId] = set()
        for now in range(BEGIN + EVALUATION_INTERVAL, int(self.truth.end), EVALUATION_INTERVAL):
            while waiting and waiting[0].at <= now:
                self.take(waiting.popleft().lines)
            changed |= self.model.changed_until(now)
            if self.truth.evaluation_resumes_at(now) == now:
                self.evaluate(changed, now)
                changed = set()

    def take(self, lines: Sequence[str]) -> None:
        """Give lines that arrived to the model and to the database."""
        for line in lines:
            self.model.take(line)
            self.database.take(line)

    def evaluate(self, changed: set[AlertId], now: int) -> None:
        """Judge the rows that may have changed, and compare the model with the database."""
        alerts_to_compare: set[str] = set()
        if now % REGULAR_COMPARISON == 0:
            alerts_to_compare.update(self.database.queries)
        newly_firing = []
        for alert_id in sorted(changed):
            if alert_id.alert not in self.database.queries:
                continue
            if not self.states.changes_with(alert_id, self.model.row(alert_id, now)):
                continue
            self.notify(alert_id, now)
            if self.states.is_firing(alert_id):
                newly_firing.append(alert_id)
            if len(self.notifications) % self.compare_every == 0:
                alerts_to_compare.add(alert_id.alert)

        for alert in sorted(alerts_to_compare):
            self.compare(alert, now)
        self.store_firing(newly_firing, now)

    def notify(self, alert_id: AlertId, now: int) -> None:
        """Record the notification of a state that has changed."""
        fires = self.states.is_firing(alert_id)
        evidence = self.model.evidence(alert_id, now)
        self.notifications.append(
            Notification(now, alert_id.alert, alert_id.subject, fires, evidence)
        )

    def store_firing(self, newly_firing: Sequence[AlertId], now: int) -> None:
        """Store what vmalert or Prometheus store of alerts that fire; the next evaluation sees it.

        They store it at each evaluation. That would be very many points, and the first of an
        alert and one a day have the same effect.
        """
        to_store = newly_firing
        if now % DAY == 0:
            to_store = self.states.firing()
        for alert_id in to_store:
            self.take(self.model.stored_while_firing(alert_id, now))

    def compare(self, alert: str, now: int) -> None:
        """Ask the database; raise RuntimeError if it does not answer what the model says.

        Also if the state of an alert is not that which the rows of the database give.
        """
        self.queries_asked += 1
        answers = self.database.ask(alert, now)
        pairs = self.row_pairs(alert, answers, now)
        differences = {subject: pair for subject, pair in pairs.items() if pair.differs()}
        for subject, answer in answers.items():
            was_firing = self.states.is_firing(AlertId(alert, subject))
            if answer.is_firing(alert, was_firing) != was_firing:
                differences[subject] = RowPair(answer, answer)
        if differences:
            shown = dict(list(differences.items())[:DIFFERENCES_SHOWN])
            raise RuntimeError(
                f"the query {alert} at {now} does not say what the model says: {shown}"
            )

    def row_pairs(
        self, alert: str, answers: dict[Subject, Row], now: int
    ) -> dict[Subject, RowPair]:
        """Return the rows of a query together with the model's."""
        missing = self.database.missing_row
        pairs = {subject: RowPair(answer, missing) for subject, answer in answers.items()}
        for subject in self.model.subjects(alert):
            expected = self.model.row(AlertId(alert, subject), now)
            if expected is not None:
                pairs[subject] = RowPair(answers.get(subject, missing), expected)
        return pairs


def visible_at(arrival: Arrival) -> float:
    """Return from when on queries see a report: after its arrival and the time of its newest point.

    The published hook dates its points by the clock of its host, which may be ahead. A query does
    not see the points of its own moment.
    """
    newest = max(int(line.rpartition(" ")[2]) for line in arrival.lines)
    return max(arrival.at, newest + 1)
