"""A source of reports: VictoriaMetrics or Prometheus, asked with PromQL.

Each number of a report is a series there, named after the measurement and the field. Text is not
stored. PromQL says when the last point of a series was written only if all of them are read. So
the time of a run report comes from its field reported_at, which is by the clock of the server.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from renewal_board import reports
from renewal_board.model import DAY
from renewal_board.report_hook import hook
from renewal_board.reports import LONGEST_LIFE_DAYS, MOST_HOSTS, CertificateKey
from renewal_board.server import Server
from renewal_board.texts import plain

# What to do about an answer that is no result: the first that matches. VictoriaMetrics 1.79,
# Prometheus 2.42.
REMEDIES = (
    hook.Remedy(
        r"^40[13]|auth token|missing route",  # the latter two: vmauth
        "set INFLUXDB_TOKEN to user:password or to a bearer token, with read access",
    ),
    hook.Remedy(r"^3", "this is a redirect: set INFLUXDB_URL to the address of the server"),
    hook.Remedy(
        r"^2|^40[45]|unsupported path|cannot parse path",
        "this is not VictoriaMetrics or Prometheus: correct INFLUXDB_URL, for example "
        "http://victoria:8428, or http://vmselect:8481/select/0/prometheus for a cluster",
    ),
    hook.Remedy(r"too many samples|-search\.max", "raise this limit of the server"),
    hook.Remedy(r"", "check the server's log"),
)
CONTENT_TYPES = ("application/json", "application/stream+json")

NO_TEXT = "{server} stores no text: failed names and reasons are missing."
NO_HISTORY = " The history begins with the first report, and has no names."
NOT_RENEWED = "certbot could not renew it"  # of a dry run: why is text

# Which series are those of certificates, of runs of certbot, of targets, of names.
CERTIFICATES = 'domain="all",host!="",lineage!=""'
RUNS = 'host!="",lineage="",target=""'
TARGETS = 'target!=""'
NAMES = 'domain!="all",domain!="",host!="",lineage=""'

STATE_FIELDS = ("run_at", "not_before", "renewal_due", "not_after")
MORE_STATE_FIELDS = ("staging", "served_expiry", "seen_at", "looked_at")
DELIVERY_FIELDS = ("run_at", "renewed", "deployed", "deployed_expiry")

MOST_SAMPLES = 10_000  # in an answer, of a series: Prometheus takes 11,000, VictoriaMetrics 30,000
RUN_DAYS = 30  # how far back the last run of a host is looked for, as in failing.flux
HOSTS_NAMED = 10  # of the silent hosts, if most hosts are silent, as in silent_hosts.flux
NOT_LOOKED_SECONDS = 2 * DAY  # reports without a look for this long: VERIFY was taken out
RENEWAL_STEP = DAY // 4  # seconds; two renewals of a certificate within one are one

Parsed = TypeVar("Parsed")


class Sample(NamedTuple):
    """A value of a series at a time, in Unix seconds."""

    time: float
    value: float


class Series(NamedTuple):
    """A series in an answer: its labels, and its samples, the oldest first, at least one."""

    labels: dict[str, str]
    samples: list[Sample]

    def key(self) -> CertificateKey:
        """Return host and lineage, "" if there is no such label."""
        return CertificateKey(self.labels.get("host", ""), self.labels.get("lineage", ""))


class State(NamedTuple):
    """The last state of a certificate, in Unix seconds.

    `run_at` is 0 on a host without run reports, `renewal_due` 0 if the certificate is retired.
    `staging` is 1 if a staging CA issued it. The others are 0 if no run report ever looked, or if
    the right certificate is served. `run_at`, `seen_at` and `looked_at` are by the clock of the
    host, which may be wrong: they are compared with each other only.
    """

    run_at: int
    not_before: int
    renewal_due: int
    not_after: int
    staging: int = 0
    served_expiry: int = 0
    seen_at: int = 0
    looked_at: int = 0


class Slot(NamedTuple):
    """A renewal in an answer: a lineage or a name on a host, in the step that ends at `end`."""

    host: str
    name: str
    end: float


class HostMoment(NamedTuple):
    """A second on a host, in which certificates began."""

    host: str
    time: int


def plain_texts(parsed: dict[str, Any]) -> dict[str, Any]:
    """Return an object of JSON without characters that steer a terminal."""
    return {key: plain(value) if isinstance(value, str) else value for key, value in parsed.items()}


def parse_series(data: Any) -> list[Series]:
    """Return the series in an answer; raise KeyError, TypeError or ValueError."""
    all_series = []
    for result in data["result"]:
        values = result["values"] if "values" in result else [result["value"]]
        samples = [Sample(float(moment), float(value)) for moment, value in values]
        if samples:
            all_series.append(Series(result["metric"], samples))
    return all_series


def metric_names(data: Any) -> set[str]:
    """Return the names of the series in an answer; raise KeyError or TypeError."""
    return {labels["__name__"] for labels in data}


def promql_text(text: str) -> str:
    """Return a text as a string literal of PromQL."""
    return json.dumps(text, ensure_ascii=False)


class Prometheus:
    """A reports.Source."""

    settings_to_correct = "INFLUXDB_URL or MEASUREMENT"

    def __init__(self, settings: hook.Settings) -> None:
        """Raise a ReportError if requests is missing."""
        is_password = ":" in settings.token
        # So that the report hook sends the token as a password, or else as a bearer token.
        settings = settings._replace(version=1 if is_password else 3)
        self.server = Server(settings, CONTENT_TYPES, REMEDIES)
        self.measurement = settings.measurement
        self.place = settings.url
        self.notice = NO_TEXT.format(server="VictoriaMetrics")
        self.now = int(time.time())

    # ---- Asking ----
    def get(self, path: str, parse: Callable[[Any], Parsed], **parameters: Any) -> Parsed:
        """Return what `parse` makes of the data in an answer; raise a ReportError."""
        text = self.server.post(f"/api/v1/{path}", data=parameters)
        try:
            answer = json.loads(text, object_hook=plain_texts)
            if answer.get("isPartial"):
                # No new page is better than a page without some certificates.
                raise self.server.refusal(
                    "503 isPartial: a vmstorage node is down, so certificates would be missing"
                )
            return parse(answer["data"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self.server.refusal(f"200 {text}") from None

    def query(self, promql: str) -> list[Series]:
        """Return what a query finds now."""
        return self.get("query", parse_series, query=promql, nocache="1")

    def query_steps(self, promql: str, since: int, step: int) -> list[Series]:
        """Return what a query finds at each step; `since`: seconds before now."""
        end = (self.now // step + 1) * step
        start = max(end - (since // step + 1) * step, end - MOST_SAMPLES * step)
        return self.get(
            "query_range",
            parse_series,
            query=promql,
            nocache="1",
            start=start,
            end=end,
            step=step,
        )

    def series(self, field: str, match: str = CERTIFICATES) -> str:
        """Return the selector of the series of a field."""
        return f"{{__name__={promql_text(f'{self.measurement}_{field}')},{match}}}"

    def newest_points(
        self, keys: Sequence[str], match: str, fields: Sequence[str], more_fields: Sequence[str]
    ) -> dict[tuple[str, ...], dict[str, int]]:
        """Return the last point of each thing that the labels `keys` name, by their values.

        A point has all `fields`, and perhaps some of `more_fields`. A thing may have several
        series, as when Telegraf begins to add a label: the one whose fields are the newest counts.

        The fields of a point are the last values of its series, so they may be of different times:
        when a report arrives between two queries, or when reports no longer have `more_fields`.
        This is accepted, since the time of a last value is known only if all samples are read,
        which takes too long. In the first case the next board is right, since each report has all
        `fields`. In the second case not_served looks whether `looked_at` is too old.
        """
        points: dict[frozenset[tuple[str, str]], dict[str, int]] = defaultdict(dict)
        for field in (*fields, *more_fields):
            selector = self.series(field, match)
            for series in self.query(f"last_over_time({selector}[{LONGEST_LIFE_DAYS}d])"):
                series.labels.pop("__name__", None)
                labels = frozenset(series.labels.items())
                points[labels][field] = int(series.samples[-1].value)

        newest: dict[tuple[str, ...], dict[str, int]] = {}
        for labels, point in points.items():
            key = tuple(dict(labels).get(name, "") for name in keys)
            if not all(key) or not point.keys() >= set(fields):
                continue
            values = [point[field] for field in fields]
            if key not in newest or values > [newest[key][field] for field in fields]:
                newest[key] = point
        return dict(sorted(newest.items()))

    def last_samples(self, field: str, match: str, days: int) -> dict[CertificateKey, Sample]:
        """Return the last sample of a field, with its time, by host and lineage.

        All samples are read: so this is for fields that are seldom written, or of few series.
        """
        last: dict[CertificateKey, Sample] = {}
        for series in self.query(f"{self.series(field, match)}[{days}d]"):
            key = series.key()
            last[key] = max(series.samples[-1], last.get(key, series.samples[-1]))
        return dict(sorted(last.items()))

    @functools.cached_property
    def states(self) -> dict[CertificateKey, State]:
        """The last state of each certificate, sorted."""
        points = self.newest_points(
            ("host", "lineage"), CERTIFICATES, STATE_FIELDS, MORE_STATE_FIELDS
        )
        return {CertificateKey(*key): State(**point) for key, point in points.items()}

    @functools.cached_property
    def last_reports(self) -> dict[str, int]:
        """When the last run report of each host arrived, by the clock of the server, sorted.

        0: the host is retired. Hosts without run reports are missing.
        """
        reported_at = self.series("reported_at", RUNS)
        last = self.value_of_hosts(
            f"max by (host) (last_over_time({reported_at}[{LONGEST_LIFE_DAYS}d]))"
        )
        # The report that retires a host may be in another series, as it may come from another host,
        # with other labels. This finds its day, by the midnight before, as in rules.yml.
        last_of_day = f"last_over_time({reported_at}[1d] offset -1d)"
        days = f"(({last_of_day} == 0) + time())[{LONGEST_LIFE_DAYS}d:1d]"
        retired_on = self.value_of_hosts(f"max by (host) (max_over_time({days}))")

        last_reports = {}
        for host, moment in sorted(last.items()):
            is_retired = host in retired_on and retired_on[host] > moment - DAY
            last_reports[host] = 0 if is_retired else min(int(moment), self.now)
        return last_reports

    def evidence(self, host: str, run_at: int) -> int:
        """Return the time as of which something is judged: the last run report of its host, or now.

        `run_at` is that of a state or a delivery. 0 if its host is retired.
        """
        return self.last_reports.get(host, 0) if run_at else self.now

    def days_since(self, moment: float) -> float:
        """Return how many days ago a time was, negative if it is still to come."""
        return (self.now - moment) / DAY

    def fields(self) -> list[str]:
        """Return the fields of the measurement."""
        prefix = f"{self.measurement}_"
        parameters = {
            "match[]": f"{{__name__=~{promql_text(re.escape(prefix) + '.+')}}}",
            "start": self.now - LONGEST_LIFE_DAYS * DAY,
        }
        names = self.get("series", metric_names, **parameters)
        return sorted(name[len(prefix) :] for name in names)

    # ---- Certificates ----
    def overdue(self) -> list[reports.OverdueRow]:
        """Return the rows of overdue.flux: judged at the last run report, or else now."""
        rows = []
        for certificate, state in self.states.items():
            due = state.renewal_due
            judged_at = self.evidence(certificate.host, state.run_at)
            days_overdue = -1.0
            grace_days = 1.0
            days_left = 0.0
            if due:
                days_overdue = (judged_at - due) / DAY
                grace_days = max(state.not_after - due, 0) / 2 / DAY
                days_left = -self.days_since(state.not_after)
            row = reports.OverdueRow(
                certificate,
                days_overdue,
                grace_days,
                days_left,
                due,
                state.not_after,
                judged_at,
                failure="",
                is_retired=not due,
            )
            rows.append(row)
        return rows

    def certificates(self) -> list[reports.CertificateRow]:
        """Return the rows of certificates.flux."""
        return [
            reports.CertificateRow(
                certificate, self.days_since(state.not_before), is_staging=bool(state.staging)
            )
            for certificate, state in self.states.items()
            if state.not_after
        ]

    # ---- Silent hosts ----
    def silent_hosts(self, silence_days: float) -> list[reports.SilentHostRow]:
        """Return the rows of silent_hosts.flux."""
        reporting = {host: last for host, last in self.last_reports.items() if last}
        most_were_silent = self.most_were_silent(list(reporting), silence_days)

        rows = [self.most_hosts_row(reporting, silence_days)]
        for host, last in self.last_reports.items():
            days_silent = self.days_since(last) if last else -1.0
            rows.append(reports.SilentHostRow(host, last, days_silent, most_were_silent))
        return rows

    def most_were_silent(self, hosts: Sequence[str], silence_days: float) -> bool:
        """Return whether most hosts were silent until recently.

        They came back within the last half of the silence, or are still silent. Then the server
        may have been down. Such a host did not report in the last half of the silence, or its
        first report in that half came more than 0.55 of the silence after the one before. Fewer
        than three hosts are never most hosts.
        """
        half = max(round(silence_days * DAY / 2), 1)
        reported_at = self.series("reported_at", RUNS)
        until_half = f"{reported_at}[{LONGEST_LIFE_DAYS}d] offset {half}s"
        first = self.value_of_hosts(f"min by (host) (min_over_time({reported_at}[{half}s]) > 0)")
        before = self.value_of_hosts(f"max by (host) (last_over_time({until_half}) > 0)")
        longest_pause = 0.55 * silence_days * DAY

        steady = 0
        for host in hosts:
            has_reported = host in first and host in before
            if has_reported and first[host] - before[host] <= longest_pause:
                steady += 1
        return len(hosts) > 2 and steady * 2 < len(hosts)

    def value_of_hosts(self, promql: str) -> dict[str, float]:
        """Return the value that a query finds for each host."""
        return {series.key().host: series.samples[-1].value for series in self.query(promql)}

    def most_hosts_row(
        self, last_reports: Mapping[str, int], silence_days: float
    ) -> reports.SilentHostRow:
        """Return the row about all hosts: whether more than half of them are silent."""
        silent = []
        for host, last in last_reports.items():
            if self.now - last >= silence_days * DAY:
                silent.append(host)
        if len(last_reports) <= 2 or len(silent) * 2 <= len(last_reports):
            return reports.SilentHostRow(MOST_HOSTS, 0, -1.0, most_were_silent=False)

        newest = max(last_reports[host] for host in silent)
        first_hosts = ", ".join(silent[:HOSTS_NAMED])
        more = ", ..." if len(silent) > HOSTS_NAMED else ""
        return reports.SilentHostRow(
            MOST_HOSTS,
            newest,
            self.days_since(newest),
            most_were_silent=False,
            silent_hosts=f"{len(silent)} of {len(last_reports)} hosts: {first_hosts}{more}",
        )

    # ---- Runs of certbot ----
    def failing(self) -> list[reports.FailingRow]:
        """Return the rows of failing.flux for the first step.

        A report that is about no certbot run has none of these fields but unreadable_count: then
        the last run counts, and the fields of its point have the same time.
        """
        steps = self.last_samples("failing", RUNS, RUN_DAYS)
        failed_counts = self.last_samples("failed_count", RUNS, RUN_DAYS)
        unreadable_counts = self.last_samples("unreadable_count", RUNS, RUN_DAYS)
        exit_statuses = self.last_samples("exit_status", RUNS, RUN_DAYS)

        rows = []
        for key, step in steps.items():
            failed = failed_counts.get(key, step)
            unreadable = unreadable_counts.get(key, step)
            status = exit_statuses.get(key, Sample(0.0, -1.0))
            row = reports.FailingRow(
                key.host,
                int(max(step.time, unreadable.time)),
                is_failing=step.value > 0,
                exit_status=int(status.value),
                failed_count=int(failed.value),
                unreadable_count=int(unreadable.value),
                failed=self.failed_lineages(key.host, failed) if failed.value else [],
                unreadable=[],
                failures={},
                failure="",
            )
            rows.append(row)
        return rows

    def failed_lineages(self, host: str, failed: Sample) -> list[str]:
        """Return the lineages that failed in a run, [] if they are not known.

        Only what is due can have failed: so they are known if as many are due in the last report.
        """
        of_host = {
            certificate.lineage: state
            for certificate, state in self.states.items()
            if certificate.host == host
        }
        last_run_at = max((state.run_at for state in of_host.values()), default=0)

        due = []
        for lineage, state in of_host.items():
            is_due = 0 < state.renewal_due <= failed.time
            if is_due and state.run_at in (0, last_run_at):
                due.append(lineage)
        return due if len(due) == failed.value else []

    def runs(self, since: int) -> list[reports.RunRow]:
        """Return nothing: which lineages a run renewed is text."""
        return []

    def dry_run_results(self) -> list[reports.DryRunRow]:
        """Return the rows of dry_run_results.flux."""
        samples = self.last_samples("dry_run_failed", CERTIFICATES, LONGEST_LIFE_DAYS)
        rows = []
        for certificate, failed in samples.items():
            error = NOT_RENEWED if failed.value else "none"
            rows.append(reports.DryRunRow(certificate, int(failed.time), bool(failed.value), error))
        return rows

    # ---- Delivered and served ----
    def not_delivered(self) -> list[reports.NotDeliveredRow]:
        """Return the rows of not_delivered.flux."""
        points = self.newest_points(("host", "lineage", "target"), TARGETS, DELIVERY_FIELDS, ())
        rows = []
        for (host, lineage, target), point in points.items():
            certificate = CertificateKey(host, lineage)
            state = self.states.get(certificate)
            is_retired = state is None or not state.renewal_due
            expiry = point["deployed_expiry"]
            days_missing = -1.0
            days_left = 0.0
            if not is_retired and 0 < point["renewed"] > point["deployed"]:
                days_missing = (self.evidence(host, point["run_at"]) - point["renewed"]) / DAY
                days_left = -self.days_since(expiry) if expiry else 0.0
            row = reports.NotDeliveredRow(
                certificate,
                target,
                days_missing,
                days_left,
                expiry,
                has_none=not point["deployed"],
                error="",
            )
            rows.append(row)
        return rows

    def not_served(self) -> list[reports.NotServedRow]:
        """Return the rows of not_served.flux: another one is served if there is its expiry."""
        rows = []
        for certificate, state in self.states.items():
            if not state.looked_at:
                continue
            is_looked_for = state.looked_at >= state.run_at - NOT_LOOKED_SECONDS
            days_unserved = -1.0
            days_left = 0.0
            expiry = state.served_expiry if state.renewal_due and is_looked_for else 0
            if expiry:
                # So long before the last run report a server answered, by the clock of the host.
                seconds_ago = state.run_at - state.seen_at
                last_seen = self.evidence(certificate.host, state.run_at) - seconds_ago
                days_unserved = max(last_seen - state.not_before, 0) / DAY
                days_left = -self.days_since(expiry)
            rows.append(reports.NotServedRow(certificate, days_unserved, days_left, expiry, []))
        return rows

    # ---- History ----
    def history(self, since: int) -> list[reports.HistoryRow]:
        """Return the rows of history.flux.

        VictoriaMetrics stores points of long ago, and says when they were. Prometheus has neither:
        there the history is what the states say.
        """
        try:
            rows = self.renewals_of_points(since)
        except hook.ReportError as error:
            if "unknown function" not in str(error):
                raise
            rows = self.renewals_of_states(since)
            self.notice = NO_TEXT.format(server="Prometheus") + NO_HISTORY
        return sorted(rows, key=lambda row: (row.time, *row.certificate))

    def renewals_of_points(self, since: int) -> list[reports.HistoryRow]:
        """Return the renewals that were reported, but of two within one step only the last.

        VictoriaMetrics stores a point as often as it was reported: to read all would take minutes.
        """
        began = self.renewal_values("tlast_over_time", "renewed_count", since)
        lifetimes = self.renewal_values("last_over_time", "lifetime", since)
        # certbot's verdict may move the due date, and the renewal is reported again with the same
        # time. Which of these points was written last is not known: the latest due date counts.
        due_after = self.renewal_values("max_over_time", "due_after", since)
        name_counts = self.renewal_values("last_over_time", "renewed_count", since)
        names_by_moment = self.names_by_moment(since)
        renewals_per_moment = Counter(
            HostMoment(slot.host, moment) for slot, moment in began.items()
        )

        rows = []
        for slot, moment in began.items():
            if slot not in lifetimes or slot not in due_after:
                continue
            # The names are those of the same second, unless that may be wrong.
            host_moment = HostMoment(slot.host, moment)
            names = names_by_moment.get(host_moment, set())
            if renewals_per_moment[host_moment] > 1 or len(names) != name_counts[slot]:
                names = set()
            row = reports.HistoryRow(
                moment,
                CertificateKey(slot.host, slot.name),
                own_name_first(names, slot.name),
                lifetimes[slot] / DAY,
                due_after[slot] / DAY,
            )
            rows.append(row)
        return rows

    def renewal_values(
        self,
        function: str,
        field: str,
        since: int,
        match: str = CERTIFICATES,
        label: str = "lineage",
    ) -> dict[Slot, int]:
        """Return what a function makes of a field in each RENEWAL_STEP."""
        promql = f"{function}({self.series(field, match)}[{RENEWAL_STEP}s])"
        return self.values_by_slot(promql, since, RENEWAL_STEP, label)

    def values_by_slot(
        self, promql: str, since: int, step: int, label: str = "lineage"
    ) -> dict[Slot, int]:
        """Return what a query finds at each step, by the host and another label."""
        values = {}
        for series in self.query_steps(promql, since, step):
            for sample in series.samples:
                slot = Slot(series.labels["host"], series.labels[label], sample.time)
                values[slot] = int(sample.value)
        return values

    def names_by_moment(self, since: int) -> dict[HostMoment, set[str]]:
        """Return which names were renewed on a host in the same second."""
        moments = self.renewal_values("tlast_over_time", "renewed_count", since, NAMES, "domain")
        names = defaultdict(set)
        for slot, moment in moments.items():
            names[HostMoment(slot.host, moment)].add(slot.name)
        return names

    def renewals_of_states(self, since: int) -> list[reports.HistoryRow]:
        """Return the renewals by the states: when one is about another certificate than before.

        The states of each day are compared with those of the day before.
        """
        begin = f"last_over_time({self.series('not_before')}[1d])"
        due = f"last_over_time({self.series('renewal_due')}[1d])"
        end = f"last_over_time({self.series('not_after')}[1d])"
        day_before = f"last_over_time({self.series('not_before')}[1d] offset 1d)"
        new = f"({begin} unless {begin} == {day_before})"

        began = self.values_by_slot(new, since, DAY)
        lifetimes = self.values_by_slot(f"{end} - {begin} and {new}", since, DAY)
        due_after = self.values_by_slot(f"{due} - {begin} and {new}", since, DAY)

        rows = set()
        for slot, moment in began.items():
            is_retired = moment == 0
            if is_retired or slot not in lifetimes or slot not in due_after:
                continue
            row = reports.HistoryRow(
                moment,
                CertificateKey(slot.host, slot.name),
                (),
                lifetimes[slot] / DAY,
                due_after[slot] / DAY,
            )
            rows.add(row)
        return list(rows)


def own_name_first(names: set[str], lineage: str) -> tuple[str, ...]:
    """Return names in alphabetical order, but first the one that is the lineage's name."""
    return tuple(sorted(names, key=lambda name: (name != lineage, name)))
