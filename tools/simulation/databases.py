"""The real databases of the simulation, which are asked the real queries as of a moment.

A model says what a query must answer, but only the real database with the real query shows that it
is so. Both get the same lines, in the order in which they arrive.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from typing import Any

import requests
import yaml

from tools import ROOT
from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.prometheus import VictoriaMetrics
from tools.simulation.alerts import (
    ALERT_NAMES,
    CRITICAL,
    FAILING,
    OVERDUE,
    PUBLISHED,
    SILENT,
    Row,
    Subject,
)

LINES_PER_REQUEST = 20_000
WRITE_SECONDS = 120

# In a query of flux/, how far back it looks. Matches: since = -400d
SINCE = re.compile(r"since [ ] = [ ] -(?P<days> \d+ )d", re.VERBOSE)


class Database(ABC):
    """A real database. Points are written when they are needed: before a query.

    `missing_row` is the row to compare with a model's if the database has none.
    """

    missing_row = Row(1e9)  # equals no row of a model

    def __init__(self) -> None:
        """At first it is empty."""
        self.pending: list[str] = []
        self.renewals: set[str] = set()  # all that arrived
        self.queries: dict[str, str] = {}  # by alert

    def take(self, line: str) -> None:
        """Take a point that arrived.

        A renewal that arrived before is not written again, which would change nothing: run reports
        repeat each renewal many times.
        """
        if "renewed_count" not in line:
            self.pending.append(line)
        elif line not in self.renewals:
            self.renewals.add(line)
            self.pending.append(line)

    def flush(self) -> None:
        """Write the points that arrived since the last query."""
        for start in range(0, len(self.pending), LINES_PER_REQUEST):
            self.write(self.pending[start : start + LINES_PER_REQUEST])
        self.pending = []

    def ask(self, alert: str, now: int) -> dict[Subject, Row]:
        """Ask an alert's query as of a moment; return its rows."""
        self.flush()
        return self.query(alert, now)

    @abstractmethod
    def write(self, lines: list[str]) -> None:
        """Write lines."""

    @abstractmethod
    def query(self, alert: str, now: int) -> dict[Subject, Row]:
        """Run an alert's query as of a moment; return its rows."""


class InfluxDBBucket(Database):
    """A bucket of InfluxDB, and the queries of flux/."""

    def __init__(self, influxdb: InfluxDB, alerts: tuple[str, ...], retention_days: int) -> None:
        """The bucket keeps everything: a shorter retention is that the queries look back less."""
        super().__init__()
        self.influxdb = influxdb
        self.bucket = influxdb.new_bucket()
        self.session = requests.Session()
        for alert in alerts:
            text = (ROOT / "flux" / f"{alert}.flux").read_text()
            text = text.replace('"telegraf"', f'"{self.bucket}"')
            since = SINCE.search(text)
            assert since is not None
            days = min(retention_days, int(since["days"]))
            self.queries[alert] = text.replace(since[0], f"since = -{days}d")

    def write(self, lines: list[str]) -> None:
        """Write lines, their times in seconds."""
        response = self.session.post(
            f"{self.influxdb.url}/api/v2/write",
            params={"bucket": self.bucket, "org": ORG, "precision": "s"},
            data="\n".join(lines),
            headers=self.influxdb.headers,
            timeout=WRITE_SECONDS,
        )
        response.raise_for_status()

    def query(self, alert: str, now: int) -> dict[Subject, Row]:
        """Run an alert's query with `now` set to a moment."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        option = f"option now = () => {moment}\n"
        rows = {}
        for columns in self.influxdb.query(option + self.queries[alert]):
            subject = Subject(columns["host"])
            if alert == OVERDUE:
                subject = Subject(columns["host"], columns["lineage"])
            elif alert == FAILING:
                subject = Subject(columns["host"], step=int(columns["step"]))
            elif alert == PUBLISHED:
                subject = Subject(columns["host"], columns["domain"])
            rows[subject] = flux_row(alert, columns)
        return rows


def flux_row(alert: str, columns: dict[str, str]) -> Row:
    """Return a row of a query in flux/ as the alert judges it."""
    if alert == OVERDUE:
        return Row(float(columns["days_overdue"]), grace=float(columns["grace_days"]))
    if alert == PUBLISHED:
        return Row(float(columns["stateDuration"]))
    if alert == SILENT:
        days = float(columns["days_silent"])
        most_were_away = columns["most_hosts_away"] == "true"
        return Row(days, held_back=most_were_away and days >= CRITICAL[SILENT])
    return Row(float(columns["failing"] == "true"))


class VictoriaMetricsSeries(Database):
    """A VictoriaMetrics, and the rules of prometheus/, which have rows only for what fires."""

    missing_row = Row(-1.0)

    def __init__(self, server: VictoriaMetrics, alerts: tuple[str, ...]) -> None:
        """`server` stores the points of nothing else."""
        super().__init__()
        self.server = server
        groups = yaml.safe_load((ROOT / "prometheus" / "rules.yml").read_text())["groups"]
        for alert in alerts:
            expressions = []
            for group in groups:
                expressions += expressions_of(group["rules"], ALERT_NAMES[alert])
            self.queries[alert] = " or ".join(expressions)

    def write(self, lines: list[str]) -> None:
        """Write lines: points, and the series ALERTS, which is no line protocol."""
        alerts = {line for line in lines if line.startswith("ALERTS{")}
        points = [line for line in lines if line not in alerts]
        response = requests.post(
            f"{self.server.url}/api/v1/import/prometheus",
            data="\n".join(alerts),
            timeout=WRITE_SECONDS,
        )
        response.raise_for_status()
        self.server.write("\n".join(points))

    def query(self, alert: str, now: int) -> dict[Subject, Row]:
        """Run the rules of an alert as of a moment."""
        rows = {}
        for result in self.server.query(self.queries[alert], now):
            labels = result["metric"]
            value = float(result["value"][1])
            subject = Subject(labels["host"])
            if alert == OVERDUE:
                subject = Subject(labels["host"], labels["lineage"])
            elif alert == FAILING:
                subject = Subject(labels["host"], step=int(labels["step"]))
            rows[subject] = Row(value, grace=0.0)  # each row of a rule fires
        return rows


def expressions_of(rules: list[dict[str, Any]], name: str) -> list[str]:
    """Return the expressions of all rules of an alert; there may be more than one."""
    return [rule["expr"] for rule in rules if rule.get("alert") == name]
