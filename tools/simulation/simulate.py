#!/usr/bin/env python3
"""Whether the alerts are right: a simulated year of a fleet, judged by the alert pack's own queries on a real InfluxDB, and by its rules
for Prometheus on a real VictoriaMetrics.

The hook's own code makes the reports of simulated_fleet.py; InfluxDB stores them in the order in which they arrive; the queries of flux/
judge them with `now` pinned, every fifteen minutes as Kapacitor does. A model of the queries, much faster, says at which of these 35,000
moments the level of any alert changes: there, and every four weeks besides, the real query judges, and every one of its rows must be what
the model says. A model of Kapacitor's alert states counts the mails. Without run reports, where alarms are many, the real query judges at
one mail of five. The rules of prometheus/ are asked of VictoriaMetrics in the same way, with a model of their own; of the ALERTS that
whoever evaluates stores each time, it has the first, and one a day. The same year is judged by the published query in the same way, and by
what people use today, which asks no database. Start it with: make simulation
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

import requests
import yaml

import certbot_renewal_report as hook
from tools import ROOT
from tools.servers.influxdb import ORG, InfluxDB, start_influxdb
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer
from tools.servers.prometheus import VictoriaMetrics, start_victoria_metrics
from tools.simulation.fleet import BEGIN, HOUR, Fleet, Span
from tools.simulation.judges import (
    CRITICAL,
    EVERY,
    FAILING,
    OVERDUE,
    PROBE,
    PROBES,
    PUBLISHED,
    RULES,
    SILENT,
    AlertPack,
    Judge,
    Key,
    Mail,
    PublishedAlert,
    Row,
    Rules,
    probed,
)

MEMORY = Path(
    "/dev/shm"
)  # the hooks of a year write a hundred thousand files, which a disk takes minutes for
SLACK = 2 * EVERY  # clocks are off, and a run takes a while


@dataclass(frozen=True)
class Configuration:
    """A way to use the alert pack, or the published query: how the fleet reports, and for how many days the bucket keeps points."""

    name: str
    judge: type[Judge]
    alerts: tuple[str, ...]
    run_reports: bool
    retention: int
    of_mails: int = 1  # the real query is asked at one of so many of its mails


CONFIGURATIONS = (
    Configuration("with run reports", AlertPack, (OVERDUE, SILENT, FAILING), True, 400),
    Configuration("with run reports, 7 days kept", AlertPack, (OVERDUE, SILENT, FAILING), True, 7),
    Configuration(
        "with run reports, rules of Prometheus", Rules, (OVERDUE, SILENT, FAILING), True, 400
    ),
    Configuration("deploy hook alone", AlertPack, (OVERDUE,), False, 400, 5),
    Configuration("deploy hook alone, rules of Prometheus", Rules, (OVERDUE,), False, 400, 5),
    Configuration("published hook and script", PublishedAlert, (PUBLISHED,), False, 400, 5),
)


class Database(ABC):
    """Something real that is written to, and asked as of a moment. `none` is what it means when it has no row."""

    none = Row(1e9)

    def __init__(self) -> None:
        self.pending: list[str] = []
        self.written: set[str] = set()
        self.queries: dict[str, str] = {}

    def take(self, line: str) -> None:
        """A point that arrived. The same point again changes nothing; of renewals, run reports send many again."""
        if line not in self.written:
            self.pending.append(line)
        if "renewed_count" in line:
            self.written.add(line)

    def flush(self) -> None:
        """Writes what is pending."""
        while self.pending:
            batch, self.pending = self.pending[:20_000], self.pending[20_000:]
            self.write("\n".join(batch))

    @abstractmethod
    def write(self, lines: str) -> None:
        """Stores line protocol."""

    @abstractmethod
    def ask(self, alert: str, now: int) -> dict[Key, Row]:
        """The alert's own query at a moment: what it says, by key."""


class Bucket(Database):
    """A bucket of InfluxDB, and the queries of flux/."""

    def __init__(self, influxdb: InfluxDB, alerts: tuple[str, ...], retention: float) -> None:
        super().__init__()
        self.influxdb, self.bucket = influxdb, influxdb.new_bucket()
        self.session = requests.Session()
        for alert in alerts:
            text = (
                (ROOT / "flux" / f"{alert}.flux")
                .read_text()
                .replace('"telegraf"', f'"{self.bucket}"')
            )
            since = re.search(r"since = -(\d+)d", text)
            assert since
            self.queries[alert] = text.replace(
                since[0], f"since = -{min(int(retention / DAY), int(since[1]))}d"
            )

    def write(self, lines: str) -> None:
        parameters = {"bucket": self.bucket, "org": ORG, "precision": "s"}
        url = self.influxdb.url + "/api/v2/write"
        self.session.post(
            url, params=parameters, data=lines, headers=self.influxdb.headers, timeout=120
        ).raise_for_status()

    def ask(self, alert: str, now: int) -> dict[Key, Row]:
        self.flush()
        pinned = f"option now = () => {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now))}\n"
        rows = self.influxdb.query(pinned + self.queries[alert])
        if alert == OVERDUE:
            return {(row["host"], row["lineage"]): Row(float(row["days_overdue"])) for row in rows}
        if alert == PUBLISHED:
            return {(row["host"], row["domain"]): Row(float(row["stateDuration"])) for row in rows}
        if alert == SILENT:
            days = {
                (row["host"],): (float(row["days_silent"]), row["deaf"] == "true") for row in rows
            }
            return {
                key: Row(silent, deaf and silent >= CRITICAL[SILENT])
                for key, (silent, deaf) in days.items()
            }
        return {(row["host"],): Row(float(row["failing"] == "true")) for row in rows}


class Series(Database):
    """A VictoriaMetrics of its own, and the rules of prometheus/, which have a row for what fires only."""

    none = Row(-1.0)

    def __init__(self, server: VictoriaMetrics, alerts: tuple[str, ...]) -> None:
        super().__init__()
        self.server = server
        groups = yaml.safe_load((ROOT / "prometheus" / "rules.yml").read_text())["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.queries = {
            alert: " or ".join(rule["expr"] for rule in rules if rule.get("alert") == RULES[alert])
            for alert in alerts
        }

    def write(self, lines: str) -> None:
        noted = {line for line in lines.split("\n") if line.startswith("ALERTS{")}
        requests.post(
            self.server.url + "/api/v1/import/prometheus", data="\n".join(noted), timeout=120
        ).raise_for_status()
        self.server.write("\n".join(line for line in lines.split("\n") if line not in noted))

    def ask(self, alert: str, now: int) -> dict[Key, Row]:
        self.flush()
        found = dict[Key, Row]()
        for row in self.server.query(self.queries[alert], now):
            labels, value = row["metric"], float(row["value"][1])
            key = (labels["host"], labels["lineage"]) if alert == OVERDUE else (labels["host"],)
            found[key] = Row(float(value > 0) if alert == FAILING else value)
        return found


def compared(
    judge: Judge,
    alert: str,
    now: int,
    rows: dict[Key, Row],
    none: Row,
    levels: dict[tuple[str, Key], bool],
) -> None:
    """RuntimeError where a query does not say what its model says, or an alert's level is another one than the query's rows give."""
    expected = {
        key: row for key in judge.keys(alert) if (row := judge.row(alert, key, now)) is not None
    }
    pairs = {key: (rows.get(key, none), expected.get(key, none)) for key in {*rows, *expected}}
    odd = {
        key: (said, meant)
        for key, (said, meant) in pairs.items()
        if abs(said.value - meant.value) > 1e-6 or said.deaf != meant.deaf
    }
    odd |= {
        key: (row, row)
        for key, row in rows.items()
        if row.critical(alert, levels[alert, key]) != levels[alert, key]
    }
    if odd:
        raise RuntimeError(
            f"the query {alert} at {now} does not say what the model says: {dict(itertools.islice(odd.items(), 5))}"
        )


def judged(
    fleet: Fleet,
    arrivals: list[tuple[float, list[str]]],
    judge: Judge,
    database: Database,
    of_mails: int,
) -> tuple[list[Mail], int]:
    """The year as Kapacitor hears it: its mails, and how often a query was asked: of every mail, or of one of so many."""
    mails, asked = list[Mail](), 0
    levels: dict[tuple[str, Key], bool] = defaultdict(bool)
    # A point from the future, of a clock that is ahead, is seen when its time has come.
    waiting = sorted(
        (
            (max(at, *(int(line.rpartition(" ")[2]) for line in lines)), lines)
            for at, lines in arrivals
        ),
        key=lambda a: a[0],
    )
    following = iter(waiting)
    arrival = next(following, None)
    changed = set[tuple[str, Key]]()
    for now in range(BEGIN + EVERY, int(fleet.end), EVERY):
        while arrival and arrival[0] <= now:
            for line in arrival[1]:
                judge.take(line)
                database.take(line)
            arrival = next(following, None)
        changed |= judge.changed_until(now)
        if fleet.influxdb_down.end_of(now) or fleet.kapacitor_down.end_of(now):
            continue
        alerts = set(database.queries) if now % (28 * DAY) == 0 else set[str]()
        begun = set[tuple[str, Key]]()
        for alert, key in sorted(changed):
            row, level = (
                judge.row(alert, key, now) if alert in database.queries else None,
                levels[alert, key],
            )
            if row and row.critical(alert, level) != level:
                levels[alert, key] = not level
                begun |= set() if level else {(alert, key)}
                mails.append(Mail(now, alert, key, not level, judge.evidence(alert, key, now)))
                if len(mails) % of_mails == 0:
                    alerts.add(alert)
        changed.clear()
        for alert in alerts:
            compared(judge, alert, now, database.ask(alert, now), database.none, levels)
            asked += 1
        for alert, key in (
            [of for of, on in levels.items() if on] if now % DAY == 0 else begun
        ):  # each evaluation notes it, which is many
            for line in judge.noted(alert, key, now):  # the next evaluation sees it
                judge.take(line)
                database.take(line)
    return mails, asked


# ---- Scores ----------------------------------------------------------------------------------------------------------
@dataclass
class Score:
    """How an alert did: alarms that were `true`, `false`, or false after an `outage` of InfluxDB of over a day; of the `incidents` that
    lasted over a day how many were `missed` by all alerts; how `late` it told of the others, in seconds since the report that could tell
    arrived, and where InfluxDB had been away for over a day in the four before (`late_after`); certificates that `expired`, and of how
    many of them nobody was told at least a day before (`unannounced`)."""

    true: int = 0
    false: int = 0
    outage: int = 0
    incidents: int = 0
    missed: int = 0
    expired: int = 0
    unannounced: int = 0
    heard: int = 0
    alarms: int = 0
    recoveries: int = 0
    late: list[float] = field(default_factory=list)
    late_after: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # what a stranger would ask about

    def add(self, other: Score) -> None:
        """Joins another fleet's."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def lineage_of(key: Key) -> Key:
    """Of the alert by name, the host and lineage."""
    return (key[0], ".".join(key[1].split(".")[-3:])) if len(key) > 1 else key


def scores(
    fleet: Fleet,
    alerts: tuple[str, ...],
    truth: dict[str, list[Span]],
    mails: list[Mail],
    early: float,
) -> dict[str, Score]:
    """The mails against the truth; an alarm may be `early` by so many seconds."""
    found = {alert: Score() for alert in alerts}
    on: dict[tuple[str, Key], list[tuple[float, float]]] = defaultdict(
        list
    )  # when which alarm was on
    spans = {alert: defaultdict[Key, list[Span]](list) for alert in alerts}
    for alert in alerts:
        for span in truth[alert]:
            spans[alert][span.of].append(span)
    for mail in mails:
        score, key = found[mail.alert], lineage_of(mail.key)
        if not mail.alarm:
            on[mail.alert, key][-1] = on[mail.alert, key][-1][0], mail.at
            continue
        on[mail.alert, key].append((mail.at, fleet.end))
        before = (
            DAY if mail.alert == SILENT else early
        )  # InfluxDB was not there for its last report: it is told of earlier
        if any(
            span.begin - before <= mail.evidence <= span.end + SLACK
            for span in spans[mail.alert][key]
        ):
            score.true += 1
        elif (
            mail.alert == SILENT
            and fleet.influxdb_down.length_within(mail.at - 4 * DAY, mail.at) >= DAY
        ):
            score.outage += 1
            score.remarks.append(
                f"seed {fleet.seed}: {mail.alert} of {' '.join(mail.key)} at {mail.at}, after an outage"
            )
        else:
            score.false += 1
            score.wrong.append(
                f"seed {fleet.seed}: false {mail.alert} of {' '.join(mail.key)} at {mail.at}"
            )
    for alert in alerts:
        for span in truth[alert]:
            related = [(alert, span.of)] + (
                [(SILENT, span.of[:1]), (FAILING, span.of[:1])] if alert == OVERDUE else []
            )
            times = [
                begin
                for key in related
                for begin, end in on[key]
                if begin <= span.end and end >= span.begin
            ]
            mine = [
                (begin, end)
                for begin, end in on[alert, span.of]
                if begin <= span.end and end >= span.begin
            ]
            if PROBE in alerts or PUBLISHED in alerts:  # an alarm that is always on tells nothing
                times = [begin for begin in times if begin >= span.begin - early]
                mine = [(begin, end) for begin, end in mine if begin >= span.begin - early]
            score = found[alert]
            if span.expiry and span.end > span.expiry:
                score.expired += 1
                if not any(begin <= span.expiry - DAY for begin in times):
                    score.unannounced += 1
                    life = f"overdue from {span.begin:.0f} to {span.end:.0f}, told of at {[f'{begin:.0f}' for begin in times]}"
                    score.remarks.append(
                        f"seed {fleet.seed}: {' '.join(span.of)} expired at {span.expiry:.0f}, {life}"
                    )
            deaf = sum(
                down.length_within(span.begin, span.end)
                for down in (fleet.influxdb_down, fleet.kapacitor_down)
            )
            if span.end - span.begin - deaf <= DAY:
                continue
            score.incidents += 1
            if not times:
                score.missed += 1
                score.wrong.append(
                    f"seed {fleet.seed}: missed {alert} of {' '.join(span.of)} from {span.begin:.0f} to {span.end:.0f}"
                )
            if mine:
                score.heard += 1
                score.alarms += len(mine)
                score.recoveries += sum(end < fleet.end for _, end in mine)
                told = min(begin for begin, _ in mine)
                known = known_at(fleet, alert, span)
                away = fleet.influxdb_down.length_within(span.begin - 4 * DAY, told) >= DAY
                (score.late_after if away else score.late).append(max(0.0, told - known))
    return found


def known_at(fleet: Fleet, alert: str, span: Span) -> float:
    """When it could be known at the earliest: when the first run report after the beginning arrived, and where none did, at the beginning;
    if InfluxDB and Kapacitor were there then, else when they were there again."""
    known = span.begin
    if alert in (OVERDUE, FAILING) and fleet.run_reports:
        known = min(
            (arrived for made, arrived in fleet.delivered[span.of[0]] if made >= span.begin),
            default=span.begin,
        )
    while again := fleet.influxdb_down.end_of(known) or fleet.kapacitor_down.end_of(known):
        known = again
    return known


@contextlib.contextmanager
def database_of(
    configuration: Configuration, influxdb: InfluxDB, folder: Path
) -> Iterator[Database]:
    """What a configuration is judged on."""
    if configuration.judge is Rules:
        folder = folder / configuration.name
        with start_victoria_metrics(
            folder, None, "-search.disableCache"
        ) as server:  # it is asked of the past, where points still come
            yield Series(server, configuration.alerts)
    else:
        yield Bucket(influxdb, configuration.alerts, configuration.retention * DAY)


def year(
    seed: int, certificates: int, days: int, server: str
) -> list[tuple[str, dict[str, Score], str]]:
    """One fleet's year, in every configuration."""
    results, fleets = [], dict[bool, Fleet]()
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name,
        start_influxdb(server, Path(name) / "influxdb", config="max-body-size = 0") as influxdb,
    ):
        for configuration in CONFIGURATIONS:
            begin = time.monotonic()
            if configuration.run_reports not in fleets:
                fleet = fleets[configuration.run_reports] = Fleet(
                    seed,
                    certificates,
                    days,
                    configuration.run_reports,
                    Path(name) / f"fleet {configuration.name}",
                )
                fleet.run()
            fleet, judge = (
                fleets[configuration.run_reports],
                configuration.judge(configuration.retention * DAY),
            )
            published, alerts = configuration.judge is PublishedAlert, configuration.alerts
            arrivals = fleet.published if published else fleet.arrivals
            with database_of(configuration, influxdb, Path(name)) as database:
                mails, asked = judged(fleet, arrivals, judge, database, configuration.of_mails)
            truth = {
                OVERDUE: fleet.overdue,
                SILENT: fleet.silent,
                FAILING: fleet.failing,
                PUBLISHED: fleet.overdue,
            }
            took = f"{len(fleet.hosts)} hosts, {len(arrivals)} reports, {asked} queries, {time.monotonic() - begin:.0f} s"
            server_name = (
                "VictoriaMetrics"
                if configuration.judge is Rules
                else f"InfluxDB {influxdb.version()}"
            )
            remark = f"seed {seed}, {server_name}, {configuration.name}: {took}"
            results.append(
                (
                    configuration.name,
                    scores(fleet, alerts, truth, mails, DAY if published else SLACK),
                    remark,
                )
            )
        for rule, threshold in PROBES.items():
            found = scores(fleet, (PROBE,), {PROBE: fleet.overdue}, probed(fleet, threshold), DAY)
            results.append((rule, found, f"seed {seed}, {rule}"))
    return results


def table(results: dict[str, dict[str, Score]]) -> str:
    """What everybody wants to know."""
    header = (
        "",
        "alert",
        "true",
        "false",
        "after an outage",
        "incidents",
        "missed",
        "late, median",
        "worst",
        "worst after an outage",
        "mails for one",
        "recoveries",
        "expired",
        "unannounced",
    )
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, by_alert in results.items():
        for alert, score in by_alert.items():
            measured = (statistics.median, score.late), (max, score.late), (max, score.late_after)
            late = [
                f"{summary(times) / HOUR:.1f} h" if times else "" for summary, times in measured
            ]
            each = [
                f"{count / score.heard:.2f}" if score.heard else ""
                for count in (score.alarms, score.recoveries)
            ]
            row = (
                name,
                alert,
                score.true,
                score.false,
                score.outage,
                score.incidents,
                score.missed,
                *late,
                *each,
            )
            lines.append(
                "| " + " | ".join(map(str, (*row, score.expired, score.unannounced))) + " |"
            )
    return "\n".join(lines)


def main() -> int:
    """Prints the table, and what a stranger would ask about. Returns 1 where run reports did not keep the promise; MissingServer where a
    server is missing. With points kept for 7 days a host is forgotten that dies while InfluxDB is away for as long: no promise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--certificates", type=int, default=500)
    parser.add_argument("--days", type=int, default=365)
    given = parser.parse_args()
    servers = ("influxd-1.12", "influxd-2")
    totals: dict[str, dict[str, Score]] = {}
    print(
        f"certbot_renewal_report {hook.__version__}; {given.certificates} certificates, {given.days} days, seeds 1 to {given.seeds}",
        flush=True,
    )
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        years = [
            pool.submit(year, seed, given.certificates, given.days, server)
            for seed, server in zip(range(1, given.seeds + 1), itertools.cycle(servers))
        ]
        for done in years:
            try:
                results = done.result()
            except BaseException:
                pool.shutdown(
                    wait=False, cancel_futures=True
                )  # it is told of now, not when the others have ended
                raise
            for name, by_alert, remark in results:
                print(remark)
                for alert, score in by_alert.items():
                    totals.setdefault(name, {}).setdefault(alert, Score()).add(score)
            print(table(totals), flush=True)
    for name in (of.name for of in CONFIGURATIONS if of.run_reports):
        for text in itertools.chain.from_iterable(
            score.remarks + score.wrong for score in totals[name].values()
        ):
            print(f"{name}: {text}")
    promised = [of.name for of in CONFIGURATIONS if of.run_reports and of.retention > 7]
    return 1 if any(score.wrong for name in promised for score in totals[name].values()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MissingServer as error:
        sys.exit(f"simulation: {error}")
