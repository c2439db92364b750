"""The dashboard for Prometheus shows the rows and numbers of the queries in Flux.

Its PromQL is evaluated by a real VictoriaMetrics and a real Prometheus, and the Flux by InfluxDB.
"""

from __future__ import annotations

import calendar
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from certbot_renewal_report import Point, line_protocol
from support.dashboards import (
    GRAFANA_PROMETHEUS,
    Json,
    fleet_points,
    flux_by_title,
    for_bucket,
    row_key,
)
from support.points import HOUR, certbot_run, certificate_renewal, write
from support.queries import Rows
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY
from tools.servers.prometheus import (
    Prometheus,
    VictoriaMetrics,
    copy_database,
    start_prometheus,
)

FLUX = flux_by_title()
PANELS: dict[str, Json] = {panel["title"]: panel for panel in GRAFANA_PROMETHEUS["panels"]}
GRAPH = "Renewals per day"
TABLE_OVER_TIME = "Runs"  # a row for each half day
TABLES = [title for title in PANELS if title not in (GRAPH, TABLE_OVER_TIME)]

# Their times are known to a quarter of a day.
COARSE_TABLES = ("Names", "Dry runs")

# Columns that a row does not have if another column of it is 1: a target that never got a
# certificate has none that expires.
MISSING_IF = {"days_left": "never_delivered", "expiry": "never_delivered"}

Table = dict[tuple[str, ...], dict[str, float]]  # the columns of each row


class Stores(NamedTuple):
    """Three databases with the points of the same fleet; `bucket` is InfluxDB's."""

    influxdb: InfluxDB
    bucket: str
    victoria: VictoriaMetrics
    prometheus: Prometheus

    def flux_rows(self, title: str) -> Rows:
        """Return the rows of a panel, from InfluxDB."""
        return self.influxdb.query(for_bucket(self.bucket, FLUX[title]))


@pytest.fixture(scope="module")
def stores(
    server: Callable[[str], InfluxDB],
    victoria: Callable[[], VictoriaMetrics],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stores]:
    """The fleet of support/dashboards.py in three databases."""
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    now = int(time.time())
    points = fleet_points(now)
    # The renewal of the certificate of a day. In PromQL a state counts as a renewal too.
    points.append(certificate_renewal("brief", now - 21 * HOUR, ["example.com"]))
    write(influxdb, bucket, *points)

    metrics = victoria()
    lines = [line_protocol(point) for point in points]
    metrics.store(*lines)
    metrics.store(*lines)  # reported again: VictoriaMetrics keeps both
    folder = tmp_path_factory.mktemp("prometheus")
    copy_database(metrics, folder)
    with start_prometheus(folder) as prometheus:
        yield Stores(influxdb, bucket, metrics, prometheus)


# ---- What Grafana shows ------------------------------------------------------------------------
def table_of(source: Prometheus, panel: Json) -> Table:
    """Return the table that Grafana makes of a panel's queries.

    The key of a row are its labels, and its time in a panel over time.
    """
    table: Table = {}
    names = column_names(panel)
    for target in panel["targets"]:
        promql = target["expr"].replace("${measurement}", "certbot_renewal")
        column = names.get(f"Value #{target['refId']}", "value")
        if target["instant"]:
            for series in source.query(promql):
                _, value = series["value"]
                table.setdefault(series_key(series), {})[column] = float(value)
        else:
            for series in query_span(source, panel, target, promql):
                for at, value in series["values"]:
                    key = (*series_key(series), str(at))
                    table.setdefault(key, {})[column] = float(value)
    return table


def column_names(panel: Json) -> dict[str, str]:
    """Return the names of a table's columns, by what Grafana calls them; {} for the graph."""
    for transformation in panel.get("transformations", ()):
        if transformation["id"] == "organize":
            names: dict[str, str] = transformation["options"]["renameByName"]
            return names
    return {}


def series_key(series: Json) -> tuple[str, ...]:
    """Return the labels of a series. It must be a computed one, which has no name."""
    labels = series["metric"]
    assert "__name__" not in labels
    return row_key(labels)


def query_span(source: Prometheus, panel: Json, target: Json, promql: str) -> list[Json]:
    """Return the series of a query over time, with the panel's span and the query's step."""
    step = seconds_of(target["interval"])
    end = time.time() // step * step
    return source.query_range(promql, end - seconds_of(panel["timeFrom"]), end, step)


def seconds_of(duration: str) -> float:
    """Return a duration such as 12h or 30d in seconds."""
    unit_seconds = {"h": 3600, "d": DAY}
    return float(duration[:-1]) * unit_seconds[duration[-1]]


# ---- Comparing ---------------------------------------------------------------------------------
def number_of(text: str) -> float:
    """Return a value of a row in Flux as a number: a time in milliseconds, true as 1."""
    if text in ("true", "false"):
        return float(text == "true")
    if re.fullmatch(r"\d{4}-.*Z", text):
        return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1000.0
    return float(text)


def is_time(value: float) -> bool:
    """Return whether a value is a time in milliseconds, rather than a number of days or things."""
    return value > 1e9


def assert_same_rows(title: str, table: Table, rows: Rows) -> None:
    """Assert that a table in PromQL has the rows and numbers of the query in Flux."""
    flux_rows = {row_key(row): row for row in rows}
    assert table.keys() == flux_rows.keys(), title
    all_columns = set[str]().union(*table.values())
    for key, row in table.items():
        missing = {column for column, other in MISSING_IF.items() if row.get(other)}
        assert row.keys() == all_columns - missing, (title, key)
        for column, value in row.items():
            assert_close(title, value, number_of(flux_rows[key][column]), (title, key, column))


def assert_close(title: str, value: float, flux_value: float, place: object) -> None:
    """Assert that a number of a table is that of Flux, as exactly as the table is."""
    tolerance_days = 0.251 if title in COARSE_TABLES else 0.001
    tolerance = tolerance_days * DAY * 1000 if is_time(value) else tolerance_days
    assert abs(value - flux_value) <= tolerance, (place, value, flux_value)


def test_every_panel_shows_the_same_of_victoriametrics_and_of_prometheus(stores: Stores) -> None:
    for title, panel in PANELS.items():
        of_victoria = table_of(stores.victoria, panel)
        of_prometheus = table_of(stores.prometheus, panel)
        assert of_victoria, title
        assert of_prometheus.keys() == of_victoria.keys(), title
        for key, row in of_victoria.items():
            for column, value in row.items():
                tolerance = 5000 if is_time(value) else 0.001
                difference = abs(of_prometheus[key][column] - value)
                assert difference <= tolerance, (title, key, column)


def test_every_table_shows_the_rows_and_numbers_of_flux(stores: Stores) -> None:
    assert len(TABLES) == len(PANELS) - 2
    for title in TABLES:
        table = table_of(stores.victoria, PANELS[title])
        assert_same_rows(title, table, stores.flux_rows(title))


def test_the_graph_shows_the_renewals_of_each_day(stores: Stores) -> None:
    renewals = Counter[tuple[str, int]]()
    for row in stores.flux_rows(GRAPH):
        end_of_day = int(number_of(row["_time"]) / 1000)
        midnight = (end_of_day - 1) // DAY * DAY
        renewals[row["host"], midnight] += int(row["_value"])

    shown = {}
    for (host, at), columns in table_of(stores.victoria, PANELS[GRAPH]).items():
        shown[host, int(at)] = columns["value"]
    assert shown == +renewals  # without the days on which nothing was renewed


def test_the_runs_show_the_numbers_of_each_half_day(stores: Stores) -> None:
    half_day = DAY // 2
    runs: dict[tuple[str, float], list[dict[str, float]]] = {}
    for row in stores.flux_rows(TABLE_OVER_TIME):
        begin = number_of(row["time"]) / 1000 // half_day * half_day
        names = [name for name in row["failed"].split() if name != "none"]
        numbers = {name: float(row[name]) for name in ("certificates", "exit_status", "failing")}
        runs.setdefault((row["host"], begin), []).append({**numbers, "failed_count": len(names)})

    table = table_of(stores.victoria, PANELS[TABLE_OVER_TIME])
    assert {(host, float(at)) for host, at in table} == runs.keys()
    for (host, at), columns in table.items():
        for name in ("certificates", "exit_status", "failing", "failed_count"):
            of_runs = [numbers[name] for numbers in runs[host, float(at)]]
            assert columns[name] == max(of_runs), (host, at, name)


# ---- Silent hosts ------------------------------------------------------------------------------
def run_reports(report_times: dict[str, int]) -> list[Point]:
    """Return a run report of each host, by the time at which it was sent."""
    return [certbot_run(host, at) for host, at in report_times.items()]


def test_the_silent_hosts_are_those_of_flux_while_most_are_away_and_when_they_are_back(
    server: Callable[[str], InfluxDB], victoria: Callable[[], VictoriaMetrics]
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    metrics = victoria()
    title = "Silent hosts"
    now = int(time.time())
    just_now = now - 60
    a_day_ago = now - DAY - 900
    everybody = [f"web{number}" for number in range(5)]
    three_days_ago = {host: now - 3 * DAY + number for number, host in enumerate(everybody)}

    # The reports of each step, and whether most hosts are then not on time. Two hosts of five, then
    # three, report again, each first just now, and then as if they had reported a day ago too.
    steps = [
        (three_days_ago, True),
        (dict.fromkeys(["web3", "web4"], just_now), True),
        (dict.fromkeys(["web3", "web4"], a_day_ago), True),
        (dict.fromkeys(["web2", "web3", "web4"], just_now), True),
        (dict.fromkeys(["web2", "web3", "web4"], a_day_ago), False),
    ]
    for report_times, are_away in steps:
        points = run_reports(report_times)
        write(influxdb, bucket, *points)
        metrics.store(*(line_protocol(point) for point in points))

        table = table_of(metrics, PANELS[title])
        rows = influxdb.query(for_bucket(bucket, FLUX[title]))
        assert_same_rows(title, table, rows)
        assert ("(most hosts)",) in table or len(table) == 2
        assert table["web0",]["most_hosts_away"] == are_away
