"""The truth about a simulated year: which incidents there were, and when each began and ended.

The alerts do not know it: they see the reports that arrive. The scores compare the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

import certbot_renewal_report as hook
from certbot_renewal_report import DAY
from tools.simulation.alerts import FAILING, FURTHER_STEPS, SILENCE, SILENT, Subject, overdue_grace
from tools.simulation.periods import BEGIN, Periods


class Incident(NamedTuple):
    """Something that an alert should report. What lasts longer than the year ends with it.

    Renewal overdue: begins `crit` after the certificate was due, ends when it is renewed, when its
    lineage is deleted or switched off, or when its host is retired. `crit` is one day, or half of
    the time from the due date to the expiry if that is less. A certificate is due from the first
    attempt to renew it that failed, and without an attempt from a date that the fleet knows
    (`due_at_the_latest`). `expiry`: its notAfter. `shown_from`: from when on certbot's log shows
    the incident, which may be later than `begin` if certbot did not run; 0 if no attempt failed.

    Host silent: begins two days (`silence`) after the last run of certbot of which the host's
    network let it report, whether InfluxDB was there or not. Ends with the next such run, or when
    the administrator retires the host.

    Certbot failing: begins with a run of certbot that fails, or in which a lineage fails or cannot
    be read. All lineages missing is a failure of each. Ends with the next run of which nothing is
    left to report, or when the host is retired. If in a later run a further lineage fails, this is
    an incident of its own (`is_further`), which ends together with the first one.
    """

    subject: Subject
    begin: float
    end: float
    expiry: float = 0.0
    shown_from: float = 0.0
    is_further: bool = False


class FailedAttempt(NamedTuple):
    """The first of the attempts to renew a certificate that failed, one after the other.

    `began_at` is the time in certbot's log, by the clock of the host, `seen_at` the real time.
    `urgent_at` is the time of the first one that failed when the CA had asked for a renewal at
    once, 0 if there was none: then there is no grace period.
    """

    began_at: float
    seen_at: float
    urgent_at: float = 0.0


@dataclass
class FailingRuns:
    """Runs of certbot that fail, one after the other.

    `begin` is the first one, `failing` are all lineages that failed in one of them, "" for a run
    that failed as a whole. `further` has the later runs in which another lineage failed.
    """

    begin: float
    failing: set[str]
    further: list[float] = field(default_factory=list)


class Holding(NamedTuple):
    """From when on a lineage has a certificate; None: it has none any more."""

    since: float
    certificate: hook.Certificate | None


class ReceivedReport(NamedTuple):
    """A run report that a server received: when, and when it arrived in the database."""

    received_at: float
    arrived_at: float


class Truth:
    """What happened in a simulated year. The fleet records it while the year is played."""

    def __init__(
        self,
        seed: int,
        days: float,
        influxdb_down: Periods | None = None,
        kapacitor_down: Periods | None = None,
    ) -> None:
        """`influxdb_down`, `kapacitor_down`: when they are, for all hosts."""
        self.seed = seed
        self.end = BEGIN + days * DAY
        self.influxdb_down = influxdb_down or Periods([])
        kapacitor_down = kapacitor_down or Periods([])
        # While one of the two is down, or both are, nothing is evaluated.
        self.servers_down = Periods([*self.influxdb_down.joined, *kapacitor_down.joined])
        self.overdue: list[Incident] = []
        self.silent: list[Incident] = []
        self.failing: list[Incident] = []
        self.holdings: dict[Subject, list[Holding]] = defaultdict(list)
        self.received: dict[str, list[ReceivedReport]] = defaultdict(list)  # by host tag
        self.last_run: dict[str, float] = {}  # by host tag: the last run that could be reported
        self.failing_runs: dict[str, FailingRuns] = {}  # by host tag
        self.failed_attempts: dict[Subject, FailedAttempt] = {}

    def incidents(self, alert: str) -> list[Incident]:
        """Return the incidents that an alert should report.

        A probe, and the published query, should report overdue renewals.
        """
        if alert == SILENT:
            return self.silent
        if alert == FAILING:
            return self.failing
        return self.overdue

    def evaluation_resumes_at(self, moment: float) -> float:
        """Return the first moment, from this one on, at which InfluxDB and Kapacitor both run."""
        return self.servers_down.end_at(moment) or moment

    # ---- Certificates --------------------------------------------------------------------------
    def certificate_begins(
        self, subject: Subject, certificate: hook.Certificate, moment: float
    ) -> None:
        """Record that a lineage has a new certificate."""
        self.holdings[subject].append(Holding(moment, certificate))

    def certificate_ends(
        self, subject: Subject, certificate: hook.Certificate, moment: float
    ) -> None:
        """Record that a certificate is replaced or deleted: an incident, if it was overdue."""
        begin = overdue_from(certificate.renewal_due, certificate)
        shown_from = 0.0
        attempt = self.failed_attempts.pop(subject, None)
        if attempt:
            shown_from = max(overdue_from(attempt.began_at, certificate), attempt.seen_at)
            if attempt.urgent_at:
                shown_from = min(shown_from, attempt.urgent_at)
            begin = min(begin, shown_from)
        # A copy of a host has no incident before the copy exists.
        begin = max(begin, self.lineage_since(subject))
        if moment > begin:
            incident = Incident(subject, begin, moment, certificate.not_after, shown_from)
            self.overdue.append(incident)

    def lineage_since(self, subject: Subject) -> float:
        """Return since when a lineage exists, or exists again after it was switched off."""
        since = 0.0
        for holding in reversed(self.holdings[subject]):
            if holding.certificate is None:
                break
            since = holding.since
        return since

    def lineage_ends(self, subject: Subject, certificate: hook.Certificate, moment: float) -> None:
        """Record that a lineage is deleted, with its certificate."""
        self.certificate_ends(subject, certificate, moment)
        self.holdings[subject].append(Holding(moment, None))

    # ---- Runs of certbot -----------------------------------------------------------------------
    def attempt_fails(
        self, subject: Subject, began_at: float, moment: float, is_urgent: bool
    ) -> None:
        """Record an attempt to renew a certificate that failed, as certbot's log shows it.

        `is_urgent`: the CA had asked for a renewal at once.
        """
        attempt = self.failed_attempts.get(subject, FailedAttempt(began_at, moment))
        if is_urgent and not attempt.urgent_at:
            attempt = attempt._replace(urgent_at=moment)
        self.failed_attempts[subject] = attempt

    def is_not_due(self, subject: Subject) -> None:
        """Record that certbot did not attempt to renew a certificate: attempts before count not."""
        self.failed_attempts.pop(subject, None)

    def run_ends(self, host: str, failing: AbstractSet[str], moment: float) -> None:
        """Record that certbot has run, and which lineages fail now; "": the run as a whole."""
        if not failing:
            self.failing_ends(host, moment)
            return
        if host not in self.failing_runs:
            self.failing_runs[host] = FailingRuns(moment, set(failing))
            return
        runs = self.failing_runs[host]
        if not failing <= runs.failing:
            runs.further.append(moment)
            runs.failing |= failing

    def failing_ends(self, host: str, moment: float) -> None:
        """Record that the runs on a host do not fail any more: incidents, if they did."""
        runs = self.failing_runs.pop(host, None)
        if runs is None:
            return
        self.failing.append(Incident(Subject(host), runs.begin, moment))
        for further in runs.further[:FURTHER_STEPS]:
            self.failing.append(Incident(Subject(host), further, moment, is_further=True))

    def run_is_reported(self, host: str, moment: float) -> None:
        """Record a run of certbot of which the network let the host report."""
        self.silence_ends(host, moment)
        self.last_run[host] = moment

    def silence_ends(self, host: str, moment: float) -> None:
        """Record that a host reports again, or that the year ends: an incident, if it was silent.

        A host that never reported a run is never silent.
        """
        begin = self.last_run.get(host, moment) + SILENCE
        if moment > begin:
            self.silent.append(Incident(Subject(host), begin, moment))

    def year_ends(self) -> None:
        """Record that the year ends: all runs that still fail are incidents until then."""
        for host in list(self.failing_runs):
            self.failing_ends(host, self.end)


def overdue_from(due: float, certificate: hook.Certificate) -> float:
    """Return from when on a certificate is overdue that is due at a time."""
    return due + overdue_grace(due, certificate.not_after)
