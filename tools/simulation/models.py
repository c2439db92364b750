"""Models of the alerts' queries: what a query must answer at a moment, from the points so far.

A year has 35,000 evaluations, and the real queries would take days for them. A model is much
faster, and the real query is asked at the moments that matter (see evaluation.py): there each of
its rows must equal the model's. There are three models:

- AlertPack: the queries in flux/ that Kapacitor runs: overdue, silent_hosts, failing.
- PrometheusRules: the rules in prometheus/ for the same three alerts.
- PublishedQuery: the published query, by name of a certificate.

A model also knows when a row may change: when a point arrives, and at certain moments, for example
one day after a due date. Only such rows are judged at an evaluation.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from certbot_renewal_report import DAY
from tools.simulation.alerts import (
    ALERT_NAMES,
    CRITICAL,
    FAILING,
    MOST_HOSTS,
    MOST_STEPS,
    OVERDUE,
    PUBLISHED,
    SILENCE,
    SILENT,
    AlertId,
    Row,
    Subject,
    overdue_grace,
)
from tools.simulation.points import (
    FiringPoint,
    NamePoint,
    ParsedPoint,
    RunPoint,
    State,
    StatePoint,
    parse_line,
)

LONGEST_REGULAR_GAP = SILENCE * 55 // 100  # seconds between two reports: 0.55 * silence
FAILING_LOOKBACK = 30 * DAY  # `since` of failing.flux, and [30d] in the rule
PUBLISHED_LOOKBACK = 65 * DAY  # `since` of overdue_domains.flux


class QueryModel(ABC):
    """What the queries must answer.

    `retention` is for how many seconds the bucket keeps points.
    """

    def __init__(self, retention: float) -> None:
        """At first no point has arrived."""
        self.retention = retention
        self.changed: set[AlertId] = set()  # rows that may have changed
        self.changes_later: list[tuple[float, AlertId]] = []  # a heap: when a row may change

    def take(self, line: str) -> None:
        """Take a line that arrived."""
        point = parse_line(line)
        if point is not None:
            self.take_point(point)

    @abstractmethod
    def take_point(self, point: ParsedPoint) -> None:
        """Take a point that arrived; ignore one at which the queries do not look."""

    @abstractmethod
    def row(self, alert_id: AlertId, now: int) -> Row | None:
        """Return the row that the query must have; None if it must have none."""

    @abstractmethod
    def subjects(self, alert: str) -> Iterable[Subject]:
        """Return everything of which the query may have a row."""

    def note_change(self, alert_id: AlertId, *moments: float) -> None:
        """Note that a row may have changed, and may change again at some moments."""
        self.changed.add(alert_id)
        for moment in moments:
            heapq.heappush(self.changes_later, (moment, alert_id))

    def changed_until(self, now: int) -> set[AlertId]:
        """Return the rows that may have changed since the last call."""
        while self.changes_later and self.changes_later[0][0] <= now:
            _, alert_id = heapq.heappop(self.changes_later)
            self.changed.add(alert_id)
        changed = self.changed
        self.changed = set()
        return changed

    def evidence(self, alert_id: AlertId, now: int) -> float:
        """Return the moment that a notification, sent now, is about."""
        return now

    def stored_while_firing(self, alert_id: AlertId, now: int) -> list[str]:
        """Return the lines that vmalert or Prometheus store of an alert that fires."""
        return []


NO_STATE = State(0, 0, 0, 0)
NO_RUN = RunPoint("", 0, 0, 0, False, None)


class LastReport(NamedTuple):
    """The newest run report of a host: its time; `is_retired`: it retires the host."""

    time: int
    is_retired: bool


NO_REPORT = LastReport(0, False)


class AwayAnswer(NamedTuple):
    """Whether most hosts were away, at a moment."""

    moment: int
    were_away: bool


class AlertPack(QueryModel):
    """The queries of the alert pack in flux/.

    overdue: days since the due date, for each certificate, judged when its last state arrived, or
    now on a host without run reports. -1 for a retired certificate.

    silent_hosts: days since the last run report arrived, for each host that sends them. -1 for a
    retired host. Besides, the row "(most hosts)" if more than half of three or more hosts are
    silent.

    failing: for each host and each step that it reached in the last 30 days, 1 if the last run
    point is of this step or a higher one, else 0.
    """

    def __init__(self, retention: float) -> None:
        """At first no point has arrived."""
        super().__init__(retention)
        self.states: dict[str, dict[str, State]] = defaultdict(dict)  # by host, by lineage
        self.last_runs: dict[str, RunPoint] = {}  # by host: about runs of certbot
        self.last_reports: dict[str, LastReport] = {}  # by host: run reports
        self.report_times: dict[str, list[int]] = defaultdict(list)  # by host, sorted
        self.silent_hosts: list[Subject] = []
        self.away_answer = AwayAnswer(0, False)  # the last, since all silent hosts ask for it

    def take_point(self, point: ParsedPoint) -> None:
        """Take a point that arrived."""
        if isinstance(point, StatePoint):
            self.take_state(point)
        elif isinstance(point, RunPoint):
            self.take_run(point)

    def take_state(self, point: StatePoint) -> None:
        """Take the state of a certificate; an older one than that before changes nothing."""
        host, lineage, _ = point.subject
        state = point.state
        if state.time < self.states[host].get(lineage, NO_STATE).time:
            return
        self.states[host][lineage] = state
        moments = [state.time + self.retention + 1]
        if state.due and not state.run_at:  # judged now: it becomes overdue without any report
            moments.append(state.due + overdue_grace(state.due, state.expiry))
        self.note_change(AlertId(OVERDUE, point.subject), *moments)

    def take_run(self, point: RunPoint) -> None:
        """Take a run point."""
        if point.failing is not None and point.time >= self.last_runs.get(point.host, NO_RUN).time:
            self.last_runs[point.host] = point
            for step in range(1, MOST_STEPS + 1):
                self.note_change(AlertId(FAILING, Subject(point.host, step=step)))
        if point.reported_at is not None:
            report = LastReport(self.report_time(point), point.reported_at == 0)
            self.take_report(point.host, report)

    def report_time(self, point: RunPoint) -> int:
        """Return the time of a run report: that of its point."""
        return point.time

    def take_report(self, host: str, report: LastReport) -> None:
        """Take a run report."""
        insort(self.report_times[host], report.time)
        if report.time >= self.last_reports.get(host, NO_REPORT).time:
            self.last_reports[host] = report
            gone_at = report.time + self.retention + 1
            self.note_change(AlertId(SILENT, Subject(host)), report.time + SILENCE, gone_at)

    def reporting_hosts(self, now: int) -> dict[str, int]:
        """Return the hosts that send run reports and are not retired, with their last report."""
        oldest = now - self.retention
        return {
            host: report.time
            for host, report in self.last_reports.items()
            if report.time >= oldest and not report.is_retired
        }

    def most_silent_since(self, now: int) -> int:
        """Return since when more than half of at least three hosts are silent; 0: they are not."""
        reports = self.reporting_hosts(now).values()
        silent = [report for report in reports if report <= now - SILENCE]
        if len(reports) > 2 and len(silent) * 2 > len(reports):
            return max(silent)
        return 0

    def most_were_away(self, now: int) -> bool:
        """Return whether most of three or more hosts have not reported regularly.

        Then InfluxDB was probably down, not the hosts. A host is not judged until it has had the
        time to report again.
        """
        if self.away_answer.moment != now:
            hosts = self.reporting_hosts(now)
            regular = sum(self.is_regular(host, now) for host in hosts)
            self.away_answer = AwayAnswer(now, len(hosts) > 2 and regular * 2 < len(hosts))
        return self.away_answer.were_away

    def is_regular(self, host: str, now: int) -> bool:
        """Return whether a host reported in the last day, and was not away before that.

        The first run report in the last day came at most 26.4 hours after the one before.
        """
        times = self.report_times[host]
        first = self.first_in_last_day(times, now)
        if first == 0 or first == len(times):
            return False
        return times[first] - times[first - 1] <= LONGEST_REGULAR_GAP

    def first_in_last_day(self, times: list[int], now: int) -> int:
        """Return the index of the first time in the last day."""
        return bisect_left(times, now - DAY)

    def row(self, alert_id: AlertId, now: int) -> Row | None:
        """Return the row that the query must have."""
        alert, subject = alert_id
        if alert == FAILING:
            return self.failing_row(subject, now)
        if alert == SILENT:
            return self.silent_row(subject, now)
        return self.overdue_row(subject, now)

    def failing_row(self, subject: Subject, now: int) -> Row | None:
        """Return 1 if the host's last run is of this step or of a higher one, else 0."""
        last_run = self.last_runs.get(subject.host, NO_RUN)
        if last_run.time < now - min(self.retention, FAILING_LOOKBACK):
            return None
        highest_step = MOST_STEPS if last_run.is_retired else last_run.steps or 0
        if subject.step > max(1, highest_step):
            return None
        return Row(float(self.is_at_step(last_run, subject.step)))

    def is_at_step(self, run: RunPoint, step: int) -> bool:
        """Return whether the row of a step is critical after a run."""
        return (run.failing or 0) >= step

    def silent_row(self, subject: Subject, now: int) -> Row | None:
        """Return the days since a host's, or most hosts', last report."""
        if subject == MOST_HOSTS:
            silent_since = self.most_silent_since(now)
            return Row((now - silent_since) / DAY if silent_since else -1.0)

        report = self.last_reports.get(subject.host, NO_REPORT)
        if report.time < now - self.retention:
            return None
        if report.is_retired:
            return Row(-1.0)
        days = (now - report.time) / DAY
        return Row(days, held_back=days >= CRITICAL[SILENT] and self.most_were_away(now))

    def overdue_row(self, subject: Subject, now: int) -> Row | None:
        """Return the days since a certificate's due date."""
        state = self.states[subject.host][subject.lineage]
        if state.time < now - self.retention:
            return None
        if not state.due:
            return Row(-1.0, grace=1.0)
        grace = max(0.0, (state.expiry - state.due) / 2 / DAY)
        return Row((self.judged_at(subject, now) - state.due) / DAY, grace=grace)

    def judged_at(self, subject: Subject, now: int) -> int:
        """Return the moment for which a certificate is judged."""
        state = self.states[subject.host][subject.lineage]
        return state.time if state.run_at else now

    def subjects(self, alert: str) -> Iterable[Subject]:
        """Return everything of which the query may have a row."""
        if alert == FAILING:
            steps = range(1, MOST_STEPS + 1)
            return [Subject(host, step=step) for host in self.last_runs for step in steps]
        if alert == SILENT:
            return [*map(Subject, self.last_reports), MOST_HOSTS]
        subjects = []
        for host, lineages in self.states.items():
            subjects += [Subject(host, lineage) for lineage in lineages]
        return subjects

    def changed_until(self, now: int) -> set[AlertId]:
        """Return the rows that may have changed: also those of all silent hosts.

        Whether the alert is held back for them depends on the other hosts.
        """
        changed = super().changed_until(now)
        silent_before = self.silent_hosts
        self.silent_hosts = []
        for host, last_report in self.reporting_hosts(now).items():
            if last_report <= now - SILENCE:
                self.silent_hosts.append(Subject(host))
        for subject in (MOST_HOSTS, *silent_before, *self.silent_hosts):
            changed.add(AlertId(SILENT, subject))
        return changed

    def evidence(self, alert_id: AlertId, now: int) -> float:
        """Return the moment that a notification is about."""
        if alert_id.alert != OVERDUE:
            return now
        return self.judged_at(alert_id.subject, now)


NOT_FIRING = Row(-1.0)


class PrometheusRules(AlertPack):
    """The rules in prometheus/ for the same alerts. A rule has a row for what fires only.

    They differ from the queries in flux/ in this:
    - PromQL cannot read the time of a state. A certificate on a host with run reports is judged at
      the host's last run report, which has the server's time as its value.
    - Only the row of the present step of an incident fires.
    - Prometheus itself keeps no state for a rule that holds itself back. The program that evaluates
      the rules stores the series ALERTS for each alert that fires. The rule reads this series: an
      alert that has fired since the host's last report continues.
    """

    def __init__(self, retention: float) -> None:
        """At first no point has arrived."""
        super().__init__(retention)
        self.fired_at: dict[str, int] = {}  # by host: when host_silent was stored as firing

    def take_point(self, point: ParsedPoint) -> None:
        """Take a point that arrived."""
        super().take_point(point)
        if isinstance(point, FiringPoint):
            self.fired_at[point.host] = point.time

    def take_run(self, point: RunPoint) -> None:
        """Take a run point: when it is too old for the rule, its alert resolves."""
        super().take_run(point)
        for step in range(1, MOST_STEPS + 1):
            alert_id = AlertId(FAILING, Subject(point.host, step=step))
            self.note_change(alert_id, point.time + FAILING_LOOKBACK)

    def report_time(self, point: RunPoint) -> int:
        """Return the time of a run report: its value, also if the request was repeated later."""
        return point.reported_at or point.time

    def take_report(self, host: str, report: LastReport) -> None:
        """Take a run report: at its time, all certificates of the host are judged."""
        super().take_report(host, report)
        for lineage in self.states[host]:
            self.note_change(AlertId(OVERDUE, Subject(host, lineage)))

    def first_in_last_day(self, times: list[int], now: int) -> int:
        """Return the index of the first time in the last day, which begins after its moment."""
        return bisect_left(times, now - DAY + 1)

    def is_at_step(self, run: RunPoint, step: int) -> bool:
        """Return whether a run is of this step, and of no higher one that has a row."""
        return min(run.failing or 0, MOST_STEPS) == step

    def judged_at(self, subject: Subject, now: int) -> int:
        """Return the moment for which a certificate is judged; 0 if its host is retired."""
        if not self.states[subject.host][subject.lineage].run_at:
            return now
        report = self.last_reports.get(subject.host, NO_REPORT)
        return 0 if report.is_retired else report.time

    def row(self, alert_id: AlertId, now: int) -> Row:
        """Return the row that the rule must have; NOT_FIRING if it must have none."""
        row = super().row(alert_id, now)
        if row is None or self.is_too_old(alert_id, now):
            return NOT_FIRING
        host = alert_id.subject.host
        if row.held_back and self.fired_at.get(host, 0) > self.last_reports[host].time:
            row = Row(row.value)
        if not row.is_firing(alert_id.alert, was_firing=False):
            return NOT_FIRING
        return Row(row.value, grace=0.0)

    def is_too_old(self, alert_id: AlertId, now: int) -> bool:
        """Return whether a run is just out of the rule's view.

        Flux looks back to a moment and includes it, PromQL does not include it.
        """
        if alert_id.alert != FAILING:
            return False
        return self.last_runs[alert_id.subject.host].time == now - FAILING_LOOKBACK

    def stored_while_firing(self, alert_id: AlertId, now: int) -> list[str]:
        """Return the series ALERTS, for the one rule that looks at it."""
        if alert_id.alert != SILENT or alert_id.subject == MOST_HOSTS:
            return []
        labels = f'alertname="{ALERT_NAMES[SILENT]}",alertstate="firing"'
        return [f'ALERTS{{{labels},host="{alert_id.subject.host}"}} 1 {now}000']


class PublishedQuery(QueryModel):
    """The published query: for each name, for how many days no renewal has been seen.

    It counts windows of a day (UTC), and alerts from 60 on. It does not know the lifetime. There is
    no row from 65 days after the renewal on.
    """

    def __init__(self, retention: float) -> None:
        """At first no point has arrived."""
        super().__init__(retention)
        self.renewed_at: dict[Subject, int] = {}

    def take_point(self, point: ParsedPoint) -> None:
        """Take the renewal of a name; an older one than that before changes nothing."""
        if not isinstance(point, NamePoint):
            return
        if point.time <= self.renewed_at.get(point.subject, 0):
            return
        self.renewed_at[point.subject] = point.time
        # 60 windows after the one that follows the renewal.
        critical_at = (point.time // DAY + 62) * DAY
        gone_at = point.time + PUBLISHED_LOOKBACK
        self.note_change(AlertId(PUBLISHED, point.subject), critical_at, gone_at)

    def row(self, alert_id: AlertId, now: int) -> Row | None:
        """Return the whole days since the first window without a renewal began to count."""
        renewed_at = self.renewed_at[alert_id.subject]
        if renewed_at < now - PUBLISHED_LOOKBACK:
            return None
        window_end = (renewed_at // DAY + 1) * DAY
        if now <= window_end:
            return Row(-1.0)
        return Row(float(max(0, (now - window_end - DAY) // DAY)))

    def subjects(self, alert: str) -> Iterable[Subject]:
        """Return every name that was renewed."""
        return self.renewed_at
