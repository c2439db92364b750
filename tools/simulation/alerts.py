"""The alerts: their names and thresholds, the rows that they judge, their states, notifications."""

from __future__ import annotations

import math
from typing import NamedTuple

from certbot_renewal_report import DAY

# Names of alerts: those of the queries in flux/, and "probe", which asks no database.
OVERDUE = "overdue"
SILENT = "silent_hosts"
FAILING = "failing"
PUBLISHED = "overdue_domains"  # the published query
PROBE = "probe"

# The names of the alert pack's alerts in kapacitor/ and prometheus/.
ALERT_NAMES = {OVERDUE: "renewal_overdue", SILENT: "host_silent", FAILING: "renewal_failing"}

# An alert is critical from this value of its query on: the defaults of the TICKscripts.
CRITICAL = {OVERDUE: 1.0, SILENT: 2.0, FAILING: 1.0, PUBLISHED: 60.0}

LONGEST_GRACE = DAY  # `crit` of renewal_overdue: 1.0 days
SILENCE = 2 * DAY  # `silence` of host_silent: 2.0 days
MOST_STEPS = 5  # of renewal_failing: the query has at most so many rows of a host
FURTHER_STEPS = MOST_STEPS - 1  # so many further notifications can be sent in an incident


def overdue_grace(due: float, expiry: float) -> float:
    """Return how many seconds after the due date a renewal is overdue.

    One day, or half of the time from the due date to the expiry if that is less.
    """
    return min(LONGEST_GRACE, max(0.0, (expiry - due) / 2))


class Subject(NamedTuple):
    """What an alert is about: a host, by its tag, and for overdue renewals a lineage.

    For the published query, `lineage` is a name in a certificate. `step` is that of
    renewal_failing, from 1 on; 0 for all other alerts, and for incidents.
    """

    host: str
    lineage: str = ""
    step: int = 0

    def words(self) -> str:
        """Return the subject in words."""
        step = f"step {self.step}" if self.step else ""
        return " ".join(filter(None, [self.host, self.lineage, step]))


MOST_HOSTS = Subject("(most hosts)")  # of the alert host_silent if more than half of them are


class AlertId(NamedTuple):
    """An alert about a subject. It has one state, and a query has at most one row of it."""

    alert: str
    subject: Subject


class Row(NamedTuple):
    """A row of an alert's query.

    `value` is what the alert judges. `held_back` says that the alert must not fire now, though it
    goes on if it fires already: so it is of host_silent where the value is critical and most hosts
    were away, which is the column `most_hosts_away` of the query. `grace` is the column
    `grace_days` of overdue renewals: the alert is critical from this value on, if it is less than
    the usual one.
    """

    value: float
    held_back: bool = False
    grace: float = math.inf

    def is_firing(self, alert: str, was_firing: bool) -> bool:
        """Return the alert's new state, as the TICKscript computes it from the one before."""
        is_critical = self.value >= min(CRITICAL[alert], self.grace)
        return is_critical and (was_firing or not self.held_back)


class Notification(NamedTuple):
    """A mail: an alert fires (`fires`), or it resolves.

    `evidence` is the moment that it is about: for an overdue renewal on a host with run reports
    that of the last report, else the moment of the evaluation.
    """

    at: float
    alert: str
    subject: Subject
    fires: bool
    evidence: float


class AlertStates:
    """The states of all alerts, as Kapacitor keeps them with `stateChangesOnly`.

    A notification is sent when a state changes, and only then. An alert of which the query has no
    row keeps its state.
    """

    def __init__(self) -> None:
        """At first no alert fires."""
        self.states: dict[AlertId, bool] = {}

    def is_firing(self, alert_id: AlertId) -> bool:
        """Return whether an alert fires."""
        return self.states.get(alert_id, False)

    def firing(self) -> list[AlertId]:
        """Return the alerts that fire."""
        return [alert_id for alert_id, is_firing in self.states.items() if is_firing]

    def changes_with(self, alert_id: AlertId, row: Row | None) -> bool:
        """Judge a row, None if the query has none; return whether the state has changed."""
        was_firing = self.is_firing(alert_id)
        if row is None or row.is_firing(alert_id.alert, was_firing) == was_firing:
            return False
        self.states[alert_id] = not was_firing
        return True
