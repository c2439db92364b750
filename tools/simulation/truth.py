"""The truth about a simulated year: which incidents there were, and when each began and ended.

The alerts do not know it: they see the reports that arrive. The scores compare the two.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import certbot_renewal_report as hook
from certbot_renewal_report import DAY
from tools.simulation.alerts import FAILING, OVERDUE_GRACE, SILENCE, SILENT, Subject
from tools.simulation.periods import BEGIN, Periods


class Incident(NamedTuple):
    """Something that an alert should report. What lasts longer than the year ends with it.

    Renewal overdue: begins one day (`crit`) after the certificate was due, ends when it is
    renewed, when its lineage is deleted, or when its host is retired. `expiry`: its notAfter.

    Host silent: begins two days (`silence`) after the last run of certbot of which the host's
    network let it report, whether InfluxDB was there or not. Ends with the next such run, or when
    the administrator retires the host.

    Run failing: begins with a run of certbot in which a renewal fails, ends with the next run in
    which none does, or when the host is retired.
    """

    subject: Subject
    begin: float
    end: float
    expiry: float = 0.0


class Holding(NamedTuple):
    """From when on a lineage has a certificate; None: it has none any more."""

    since: float
    certificate: hook.Certificate | None


class ReceivedReport(NamedTuple):
    """A run report that the database received: when it was made, and when it arrived."""

    made_at: float
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
        self.failing_since: dict[str, float] = {}  # by host tag

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
        # A copy of a host has no incident before the copy exists.
        subject_since = self.holdings[subject][0].since
        begin = max(certificate.renewal_due + OVERDUE_GRACE, subject_since)
        if moment > begin:
            self.overdue.append(Incident(subject, begin, moment, certificate.not_after))

    def lineage_ends(self, subject: Subject, certificate: hook.Certificate, moment: float) -> None:
        """Record that a lineage is deleted, with its certificate."""
        self.certificate_ends(subject, certificate, moment)
        self.holdings[subject].append(Holding(moment, None))

    # ---- Runs of certbot -----------------------------------------------------------------------
    def run_ends(self, host: str, has_failed: bool, moment: float) -> None:
        """Record that certbot has run: whether a renewal failed."""
        if has_failed:
            self.failing_since.setdefault(host, moment)
        else:
            self.failing_ends(host, moment)

    def failing_ends(self, host: str, moment: float) -> None:
        """Record that the runs on a host do not fail any more: an incident, if they did."""
        begin = self.failing_since.pop(host, None)
        if begin is not None:
            self.failing.append(Incident(Subject(host), begin, moment))

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
        for host in list(self.failing_since):
            self.failing_ends(host, self.end)
