"""The dashboard for Grafana with VictoriaMetrics or Prometheus: the same panels, in PromQL."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from tools.generate import grafana
from tools.generate.formats import Json
from tools.generate.panels import PANELS, Panel
from tools.generate.rules import expand, last_of_certificate

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
LETTERS = string.ascii_uppercase


# ---- Queries -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Table:
    """A panel in PromQL, with the names of rules.py.

    `rows` selects the rows: one for each value of the labels in `labels`. Each of `columns` is a
    query of its own, by the name of the column. `sort` is a column, sorted downwards unless
    `ascending`. `note` is added to the note of the panel.

    The queries are evaluated at the end of the time range that Grafana's time picker shows. If
    `span` is set (such as 30d), they are evaluated each `step` of the last `span`.
    """

    labels: str
    rows: str
    columns: dict[str, str]
    sort: str
    note: str = ""
    ascending: bool = False
    span: str = ""
    step: str = ""

    def queries(self) -> list[str]:
        """Return the query of each column, in PromQL, for the rows of the table only."""
        return [one_line(self.of_rows(column)) for column in self.columns.values()]

    def of_rows(self, column: str) -> str:
        """Return the query of a column, limited to the rows of the table.

        A column that contains the query of the rows has no others.
        """
        if self.rows in column:
            return column
        return f"({column}) and on ({self.labels}) ({self.rows})"


def one_line(text: str) -> str:
    """Return PromQL on one line, with the expressions in the place of their names."""
    line = re.sub(r"\s+", " ", expand(text)).strip()
    return line.replace("( ", "(").replace(" )", ")")


def newest(promql: str) -> str:
    """Return PromQL for the value of each certificate's series that was reported last."""
    return f"max by (host, lineage) ({promql} and NEWEST)"


def time_of_last(series: str) -> str:
    """Return PromQL for the time of the last point of each series, Unix seconds.

    Older than six hours it is known to a quarter of a day only, the step of the subquery.
    """
    now_if_recent = f"0 * last_over_time({series}[6h]) + time()"
    return f"({now_if_recent} or max_over_time(({now_if_recent})[400d:6h]))"


def last_half_day(field: str) -> str:
    """Return PromQL for the highest value of a field of runs in the half day that begins now."""
    return f'max by (host) (max_over_time(certbot_renewal_{field}{{host!=""}}[12h] offset -12h))'


SILENT = "DAYS_SILENT or MOST_HOSTS"
OVERDUE = "DAYS_OVERDUE >= DAYS_TO_CRITICAL"
MISSING = "max by (host, lineage, target) (DAYS_MISSING) >= 0"
UNSERVED = "max by (host, lineage) (DAYS_UNSERVED)"
NAME_SERIES = 'certbot_renewal_renewed_count{domain!="all"}'
NAME_RENEWED = f"max by (domain, host) {time_of_last(NAME_SERIES)}"
DRY_RUN = f"max by (host, lineage) ({last_of_certificate('dry_run_failed')})"
DRY_RUN_TIME = f"max by (host, lineage) {time_of_last('certbot_renewal_dry_run_failed')}"
# The renewals of the day that begins now. A renewal is a point of its own, or the start of a
# certificate whose state was reported within two days.
RENEWALS = """
    count by (host) (
      count_over_time(certbot_renewal_renewed_count{domain="all"}[1d] offset -1d)
      or (
        (
          last_over_time(certbot_renewal_not_before{domain="all"}[2d] offset -2d)
          >= time()
        )
        < time() + 86400
      )
    )
"""
NOT_STORED = "VictoriaMetrics and Prometheus store no text:"

# By the name of the query that shows the same in Flux.
TABLES = {
    "overdue": Table(
        labels="host, lineage",
        rows=OVERDUE,
        columns={
            "days_overdue": OVERDUE,
            "grace_days": newest("HALF_OF_THE_REST"),
            "days_left": newest("(NOT_AFTER - time()) / 86400"),
            "due": newest("RENEWAL_DUE * 1000"),
            "expiry": newest("NOT_AFTER * 1000"),
            "judged_at": "max by (host, lineage) (EVIDENCE) * 1000",
        },
        sort="days_overdue",
        note=f"{NOT_STORED} the reason is missing.",
    ),
    "silent_hosts": Table(
        labels="host",
        rows=SILENT,
        columns={
            "last_report": f"(time() - ({SILENT}) * 86400) * 1000",
            "days_silent": SILENT,
            "most_hosts_away": (
                "0 * DAYS_SILENT + scalar(0 * MOST_HOSTS_AWAY + 1 or vector(0)) or 0 * MOST_HOSTS"
            ),
        },
        sort="days_silent",
    ),
    "failing": Table(
        labels="host",
        rows="FAILING",
        columns={
            "last_report": "LAST_REPORT * 1000",
            "exit_status": "EXIT_STATUS",
            "failed_count": "FAILED_COUNT",
            "unreadable_count": "UNREADABLE_COUNT",
        },
        sort="failed_count",
        note=f"{NOT_STORED} the names of the certificates and the reasons are missing.",
    ),
    "not_delivered": Table(
        labels="host, lineage, target",
        rows=MISSING,
        columns={
            "days_missing": MISSING,
            "days_left": "max by (host, lineage, target) ((DEPLOYED_EXPIRY > 0) - time()) / 86400",
            "renewed": "max by (host, lineage, target) (RENEWED) * 1000",
            "expiry": "max by (host, lineage, target) (DEPLOYED_EXPIRY > 0) * 1000",
            "never_delivered": "max by (host, lineage, target) (DEPLOYED == bool 0)",
        },
        sort="days_missing",
        note=f"{NOT_STORED} the reason is missing.",
    ),
    "not_served": Table(
        labels="host, lineage",
        rows=UNSERVED,
        columns={
            "days_unserved": UNSERVED,
            "days_left": newest("(SERVED_EXPIRY - time()) / 86400"),
            "renewed": newest("NOT_BEFORE * 1000"),
            "expiry": newest("SERVED_EXPIRY * 1000"),
            "served": newest(last_of_certificate("served")),
        },
        sort="days_unserved",
        note=f"{NOT_STORED} the names are missing.",
    ),
    "renewals_per_host": Table(
        labels="host",
        rows="",
        columns={"renewals": RENEWALS},
        sort="",
        note="A certificate counts once a day.",
        span="30d",
        step="1d",
    ),
    "certificates": Table(
        labels="host, lineage",
        rows=newest("DUE"),
        columns={
            "age_days": newest("(time() - NOT_BEFORE) / 86400"),
            "next_renewal": newest("RENEWAL_DUE * 1000"),
            "expiry": newest("NOT_AFTER * 1000"),
            "staging": newest(last_of_certificate("staging")),
        },
        sort="age_days",
    ),
    "domains": Table(
        labels="domain, host",
        rows=NAME_RENEWED,
        columns={
            "renewed": f"{NAME_RENEWED} * 1000",
            "age_days": f"(time() - {NAME_RENEWED}) / 86400",
        },
        sort="age_days",
        note="The times are exact to a quarter of a day. "
        "The table is empty with Prometheus itself, which accepts no old points.",
    ),
    "runs": Table(
        labels="host",
        rows=last_half_day("failing"),
        columns={
            "certificates": last_half_day("certificates"),
            "failed_count": last_half_day("failed_count"),
            "unreadable_count": last_half_day("unreadable_count"),
            "exit_status": last_half_day("exit_status"),
            "failing": last_half_day("failing"),
        },
        sort="Time",
        note="A row is half a day (UTC) with a run, and has the highest number of each column. "
        f"{NOT_STORED} the names of the certificates and the reasons are missing.",
        span="30d",
        step="12h",
    ),
    "dry_run_results": Table(
        labels="host, lineage",
        rows=DRY_RUN,
        columns={"time": f"{DRY_RUN_TIME} * 1000", "failed": DRY_RUN},
        sort="host",
        note=f"The times are exact to a quarter of a day. {NOT_STORED} the reason is missing.",
        ascending=True,
    ),
}


# ---- Panels ------------------------------------------------------------------------------------
# How Grafana shows columns. Times are in milliseconds.
TIME_COLUMNS = ("due", "judged_at", "expiry", "last_report", "renewed", "next_renewal", "time")
BOOLEAN_COLUMNS = ("most_hosts_away", "never_delivered", "staging")
INTEGER_COLUMNS = (
    "certificates",
    "failed_count",
    "unreadable_count",
    "exit_status",
    "failing",
    "served",
    "failed",
)
BOOLEAN_TEXTS = {
    "type": "value",
    "options": {"0": {"text": "false", "index": 0}, "1": {"text": "true", "index": 1}},
}


def prometheus_panel(number: int, panel: Panel) -> Json:
    """Return the panel that Grafana shows with InfluxDB, with queries in PromQL.

    The result of each query is a table with one column, and Grafana merges these tables.
    """
    table = TABLES[panel.query]
    shown = grafana.influxdb_panel(number, panel)
    shown["targets"] = targets(table, panel.is_graph)
    shown["datasource"] = SOURCE
    shown["description"] = description(panel, table)
    if table.span:
        shown["timeFrom"] = table.span
        shown["hideTimeOverride"] = True

    if panel.is_graph:
        del shown["fieldConfig"]["defaults"]["displayName"]
    else:
        shown["transformations"] = merged_columns(table)
        shown["fieldConfig"]["overrides"] += column_overrides(table)
    return shown


def targets(table: Table, is_graph: bool) -> list[Json]:
    """Return the queries of a panel, which Grafana calls A, B, C, …"""
    common: Json = {
        "instant": not table.span,
        "range": bool(table.span),
        "format": "time_series" if is_graph else "table",
    }
    if is_graph:
        common["legendFormat"] = "{{host}}"
    if table.step:
        common["interval"] = table.step

    return [
        {
            "refId": letter,
            "datasource": SOURCE,
            "expr": query.replace("certbot_renewal_", "${measurement}_"),
            **common,
        }
        for letter, query in zip(LETTERS, table.queries())
    ]


def description(panel: Panel, table: Table) -> str:
    """Return the panel's note, what differs in PromQL, and the time range."""
    time_range = "The values are those at the end of the time range in the time picker."
    if table.span:
        time_range = f"The time range is the last {table.span}. The time picker has no effect."
    if not table.note:
        return f"{panel.note} {time_range}"
    return f"{panel.note} {table.note} {time_range}"


def merged_columns(table: Table) -> list[Json]:
    """Return the transformations that make one table of those of all columns."""
    column_names = {}
    for letter, column in zip(LETTERS, table.columns):
        column_names[f"Value #{letter}"] = column

    order = ["Time", *table.labels.split(", "), *column_names]
    hidden = {} if table.span else {"Time": True}
    organize = {
        "excludeByName": hidden,
        "indexByName": {name: index for index, name in enumerate(order)},
        "renameByName": column_names,
    }
    sort = [{"field": table.sort, "desc": not table.ascending}]
    return [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": organize},
        {"id": "sortBy", "options": {"fields": {}, "sort": sort}},
    ]


def column_overrides(table: Table) -> list[Json]:
    """Return how Grafana shows the columns that are no numbers with a decimal."""
    times = [
        grafana.override(column, {"unit": "dateTimeAsIso"})
        for column in table.columns
        if column in TIME_COLUMNS
    ]
    booleans = [
        grafana.override(column, {"mappings": [BOOLEAN_TEXTS]})
        for column in BOOLEAN_COLUMNS
        if column in table.columns
    ]
    integers = [
        grafana.override(column, {"decimals": 0})
        for column in table.columns
        if column in INTEGER_COLUMNS
    ]
    return times + booleans + integers


def dashboard() -> Json:
    """Return the dashboard for VictoriaMetrics and Prometheus.

    Its time zone is UTC: the days of PromQL begin at midnight there.
    """
    label = "VictoriaMetrics or Prometheus"
    variables = [grafana.source_variable(label, "prometheus"), grafana.MEASUREMENT]
    panels = [prometheus_panel(number, panel) for number, panel in enumerate(PANELS, start=1)]
    return grafana.make_dashboard("certbot-renewals-prometheus", "utc", variables, panels)
