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
    OVERDUE,
    OVERDUE_GRACE,
    PUBLISHED,
    SILENCE,
    SILENT,
    AlertId,
    Row,
    Subject,
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


NO_STATE = State(0, 0, 0)


class LastRun(NamedTuple):
    """The newest run of certbot on a host."""

    time: int
    is_failing: bool


NO_RUN = LastRun(0, False)


class AwayAnswer(NamedTuple):
    """Whether most hosts were away, at a moment."""

    moment: int
    were_away: bool


class AlertPack(QueryModel):
    """The queries of the alert pack in flux/.

    overdue: days since the due date, for each certificate, judged at its last run report, or now
    on a host without run reports. -1 for a retired certificate.

    silent_hosts: days since the certificate that was reported least recently was reported, for
    each host. -1 for a host without run reports. Besides, the row "(most hosts)" if more than half
    of three or more hosts are silent.

    failing: 1 if the last run of certbot on a host failed, else 0.
    """

    def __init__(self, retention: float) -> None:
        """At first no point has arrived."""
        super().__init__(retention)
        self.states: dict[str, dict[str, State]] = defaultdict(dict)  # by host, by lineage
        self.last_runs: dict[str, LastRun] = {}  # by host
        self.run_times: dict[str, list[int]] = defaultdict(list)  # by host, sorted
        self.last_reports: dict[str, int | None] = {}  # by host: see last_report
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
        host, lineage = point.subject
        state = point.state
        if state.time < self.states[host].get(lineage, NO_STATE).time:
            return
        self.states[host][lineage] = state
        gone_at = state.time + self.retention + 1
        moments = [gone_at]
        if state.due and not state.run_at:  # judged now: it becomes overdue without any report
            moments.append(state.due + OVERDUE_GRACE)
        self.note_change(AlertId(OVERDUE, point.subject), *moments)
        self.note_change(AlertId(SILENT, Subject(host)), gone_at)

    def take_run(self, point: RunPoint) -> None:
        """Take a run of certbot."""
        insort(self.run_times[point.host], point.time)
        if point.time >= self.last_runs.get(point.host, NO_RUN).time:
            self.last_runs[point.host] = LastRun(point.time, point.is_failing)
            self.note_change(AlertId(FAILING, Subject(point.host)))

    def last_report(self, host: str, now: int) -> int | None:
        """Return when the host's certificate that was reported least recently was reported.

        0: no certificate has a run report. None: the bucket has no state of this host any more.
        """
        oldest_kept = now - self.retention
        kept = [state for state in self.states[host].values() if state.time >= oldest_kept]
        if not kept:
            return None
        reported = [state.run_at for state in kept if state.due]
        return min(filter(None, reported), default=0)

    def most_silent_since(self, now: int) -> int:
        """Return since when more than half of at least three hosts are silent; 0: they are not."""
        reports = [report for report in self.last_reports.values() if report]
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
            hosts = [host for host, report in self.last_reports.items() if report]
            regular = self.regular_hosts(hosts, now)
            self.away_answer = AwayAnswer(now, len(hosts) > 2 and regular * 2 < len(hosts))
        return self.away_answer.were_away

    def regular_hosts(self, hosts: Iterable[str], now: int) -> int:
        """Return how many of these hosts have reported regularly."""
        return sum(self.is_regular(host, now) for host in hosts)

    def is_regular(self, host: str, now: int) -> bool:
        """Return whether a host reported in the last day, and was not away before that.

        The first run report in the last day came at most 26.4 hours after the one before.
        """
        times = self.run_times[host]
        first = bisect_left(times, now - DAY)
        if first == 0 or first == len(times) or times[first] >= now:
            return False
        return times[first] - times[first - 1] <= LONGEST_REGULAR_GAP

    def row(self, alert_id: AlertId, now: int) -> Row | None:
        """Return the row that the query must have."""
        alert, subject = alert_id
        if alert == FAILING:
            return self.failing_row(subject, now)
        if alert == SILENT:
            return self.silent_row(subject, now)
        return self.overdue_row(subject, now)

    def failing_row(self, subject: Subject, now: int) -> Row | None:
        """Return 1 if the host's last run failed, else 0."""
        last_run = self.last_runs.get(subject.host, NO_RUN)
        if last_run.time < now - min(self.retention, FAILING_LOOKBACK):
            return None
        return Row(float(last_run.is_failing))

    def silent_row(self, subject: Subject, now: int) -> Row | None:
        """Return the days since a host's, or most hosts', last report."""
        if subject == MOST_HOSTS:
            silent_since = self.most_silent_since(now)
            return Row((now - silent_since) / DAY if silent_since else -1.0)

        last_report = self.last_reports[subject.host]
        if last_report is None:
            return None
        if last_report == 0:
            return Row(-1.0)
        days = (now - last_report) / DAY
        return Row(days, held_back=days >= CRITICAL[SILENT] and self.most_were_away(now))

    def overdue_row(self, subject: Subject, now: int) -> Row | None:
        """Return the days since a certificate's due date."""
        state = self.states[subject.host][subject.lineage]
        if state.time < now - self.retention:
            return None
        if not state.due:
            return Row(-1.0)
        evidence = state.run_at or now
        return Row((evidence - state.due) / DAY)

    def subjects(self, alert: str) -> Iterable[Subject]:
        """Return everything of which the query may have a row."""
        if alert == FAILING:
            return [Subject(host) for host in self.last_runs]
        if alert == SILENT:
            return [*map(Subject, self.states), MOST_HOSTS]
        subjects = []
        for host, lineages in self.states.items():
            subjects += [Subject(host, lineage) for lineage in lineages]
        return subjects

    def changed_until(self, now: int) -> set[AlertId]:
        """Return the rows that may have changed: also those of all silent hosts.

        Whether the alert is held back for them depends on the other hosts.
        """
        changed = super().changed_until(now)
        for alert, subject in changed:
            if alert == SILENT:
                self.last_reports[subject.host] = self.last_report(subject.host, now)

        silent_before = self.silent_hosts
        self.silent_hosts = []
        for host, last_report in self.last_reports.items():
            if last_report and last_report <= now - SILENCE:
                self.silent_hosts.append(Subject(host))
        for subject in (MOST_HOSTS, *silent_before, *self.silent_hosts):
            changed.add(AlertId(SILENT, subject))
        return changed

    def evidence(self, alert_id: AlertId, now: int) -> float:
        """Return the moment that a notification is about."""
        if alert_id.alert != OVERDUE:
            return now
        host, lineage = alert_id.subject
        return self.states[host][lineage].run_at or now


NOT_FIRING = Row(-1.0)


class ReportTimes(NamedTuple):
    """A state that arrived: its time, and its `run_at`."""

    time: int
    run_at: int


class RegularAnswer(NamedTuple):
    """Whether a host has reported regularly, and until when that cannot change without a point."""

    until: int
    is_regular: bool


class PrometheusRules(AlertPack):
    """The rules in prometheus/ for the same alerts. A rule has a row for what fires only.

    They differ from the queries in flux/ in this:
    - Whether a host has reported regularly is known by its certificates' `run_at`, not by runs.
    - Prometheus itself keeps no state for a rule that holds itself back. The program that evaluates
      the rules stores the series ALERTS for each alert that fires. The rule reads this series: an
      alert that has fired since the host's last report continues.
    """

    def __init__(self, retention: float) -> None:
        """At first no point has arrived."""
        super().__init__(retention)
        # By host, by lineage, sorted.
        self.report_times: dict[str, dict[str, list[ReportTimes]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.regular_answers: dict[str, RegularAnswer] = {}  # by host, as long as they hold
        self.fired_at: dict[str, int] = {}  # by host: when host_silent was stored as firing

    def take_point(self, point: ParsedPoint) -> None:
        """Take a point that arrived."""
        super().take_point(point)
        if isinstance(point, FiringPoint):
            self.fired_at[point.host] = point.time

    def take_state(self, point: StatePoint) -> None:
        """Take the state of a certificate."""
        super().take_state(point)
        host, lineage = point.subject
        insort(self.report_times[host][lineage], ReportTimes(point.state.time, point.state.run_at))
        self.regular_answers.pop(host, None)

    def take_run(self, point: RunPoint) -> None:
        """Take a run of certbot: when it is too old for the rule, its alert resolves."""
        super().take_run(point)
        self.note_change(AlertId(FAILING, Subject(point.host)), point.time + FAILING_LOOKBACK)

    def regular_hosts(self, hosts: Iterable[str], now: int) -> int:
        """Return how many hosts have reported regularly: of all, also of those that are retired."""
        return super().regular_hosts(self.report_times, now)

    def is_regular(self, host: str, now: int) -> bool:
        """Return whether a host reported in the last day, and was not away before that."""
        answer = self.regular_answers.get(host)
        if answer is None or now >= answer.until:
            answer = self.regular_answer(host, now)
            self.regular_answers[host] = answer
        return answer.is_regular

    def regular_answer(self, host: str, now: int) -> RegularAnswer:
        """Compute whether a host has reported regularly.

        The rule compares the least `run_at` in the last day with the greatest of those that were
        the last before it. It drops what is 0: without run reports.
        """
        in_last_day = []
        before = []
        until = now + DAY
        for times in self.report_times[host].values():
            first = bisect_left(times, ReportTimes(now - DAY + 1, 0))
            if first < len(times):
                in_last_day.append(min(report.run_at for report in times[first:]))
                until = min(until, times[first].time + DAY)
            if first > 0:
                before.append(times[first - 1].run_at)

        first_report = min(filter(None, in_last_day), default=0)
        report_before = max(before, default=0)
        has_both = first_report > 0 and report_before > 0
        gap = first_report - report_before
        return RegularAnswer(until, has_both and gap <= LONGEST_REGULAR_GAP)

    def row(self, alert_id: AlertId, now: int) -> Row:
        """Return the row that the rule must have; NOT_FIRING if it must have none."""
        row = super().row(alert_id, now)
        if row is None or self.is_too_old(alert_id, now):
            return NOT_FIRING
        host = alert_id.subject.host
        if row.held_back and self.fired_at.get(host, 0) > (self.last_reports[host] or 0):
            row = Row(row.value)
        if not row.is_firing(alert_id.alert, was_firing=False):
            return NOT_FIRING
        return row

    def is_too_old(self, alert_id: AlertId, now: int) -> bool:
        """Return whether a failed run is just out of the rule's view.

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
