#!/usr/bin/env python3
"""Writes the files of dashboards/ from the queries of flux/, so that a dashboard and every alert show and judge the same; the one for
Prometheus from what the rules of prometheus/ are made of.

    python3 -m tools.generate.dashboards

What is said here is where things stand, and how the words of kapacitor/templates/ are said in Flux and in Grafana's templates; the queries
are those of flux/ as they are, with a few lines added at the end.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools import ROOT
from tools.generate.rules import last, spelled
from tools.generate.templates import TEXT

FOLDER = ROOT / "dashboards"
FOR_A_DASHBOARD = re.compile(r"(?m)^// For a dashboard.*add at the end\n//     (\|> .*)$")
WORST_FIRST = '|> group() |> sort(columns: ["{}"], desc: true)'
RED = "#DC4E58"

Json = dict[str, Any]


def query(name: str) -> str:
    """A query of flux/, without the line break at its end."""
    return (ROOT / "flux" / f"{name}.flux").read_text().rstrip()


# ---- Panels ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Panel:
    """A table, or the graph; its place is in columns of twelve."""

    title: str
    name: str  # of the query
    note: str
    place: tuple[int, int, int, int]  # x, y, width, height
    more: str = ""  # at the end of the query
    alarm: str = ""  # the column that says how bad it is: only what is bad is in the table
    graph: bool = False

    def flux(self) -> str:
        """The query as this panel asks it."""
        more = self.more or "".join(FOR_A_DASHBOARD.findall(query(self.name)))
        return query(self.name) + (f"\n    {more}" if more else "")


def bad(condition: str, column: str) -> str:
    """What leaves of a query only what is bad, in one table: Grafana and Chronograf show one at a time."""
    return f"|> filter(fn: (r) => {condition}) {WORST_FIRST.format(column)}"


OWN_TIME = "Looks as far back as its query says, whatever the time picker shows."
PANELS = [
    Panel(
        "Overdue",
        "overdue",
        "Certificates that should have been renewed a day ago or earlier. Empty is well.",
        (0, 0, 6, 3),
        alarm="days_overdue",
    ),
    Panel(
        "Silent hosts",
        "silent_hosts",
        "Hosts without a run report for two days. deaf: InfluxDB was away, they are not judged yet. Empty is well.",
        (6, 0, 6, 3),
        bad("r.days_silent >= silence", "days_silent"),
        "days_silent",
    ),
    Panel(
        "Failing hosts",
        "failing",
        "Hosts where the last run of certbot failed, left a certificate, or could not read one. Empty is well.",
        (0, 3, 4, 3),
        bad("r.failing", "failed_count"),
        "failed_count",
    ),
    Panel(
        "Not delivered",
        "not_delivered",
        "Targets that lack the renewed certificate, and for how many days. Empty is well.",
        (4, 3, 4, 3),
        bad("r.days_missing >= 0.0", "days_missing"),
        "days_missing",
    ),
    Panel(
        "Not served",
        "not_served",
        "Certificates instead of which an older one is served, and for how many days. Empty is well.",
        (8, 3, 4, 3),
        bad("r.days_unserved >= 0.0", "days_unserved"),
        "days_unserved",
    ),
    Panel(
        "Renewals per day",
        "renewals_per_host",
        "Renewals of certificates per day (UTC) and host, of the last 30 days.",
        (0, 6, 12, 3),
        graph=True,
    ),
    Panel(
        "Certificates",
        "certificates",
        "Every certificate: age, next renewal, expiry; the oldest first.",
        (0, 9, 6, 4),
    ),
    Panel(
        "Names",
        "domains",
        "Every name: when its certificate was renewed; the oldest first.",
        (6, 9, 6, 4),
    ),
    Panel(
        "Failed runs",
        "failures",
        "Every run of certbot that left something, the newest first.",
        (0, 13, 6, 3),
    ),
    Panel(
        "Dry runs",
        "dry_runs",
        "How the last dry run of each certificate went, where one was reported.",
        (6, 13, 6, 3),
    ),
]


# ---- Chronograf ------------------------------------------------------------------------------------------------------
def chronograf() -> Json:
    """A dashboard as Chronograf exports it. A query without a source is asked of the one that is looked at."""
    axis = {
        "bounds": ["", ""],
        "label": "",
        "prefix": "",
        "suffix": "",
        "base": "10",
        "scale": "linear",
    }
    time = {"internalName": "_time", "displayName": "", "visible": True}
    cells = []
    for number, panel in enumerate(PANELS):
        x, y, width, height = panel.place
        colors = (
            [
                {
                    "id": "base",
                    "type": "background",
                    "hex": RED,
                    "name": "fire",
                    "value": "-1000000000000000000",
                }
            ]
            if panel.alarm
            else []
        )
        cells.append(
            {
                "i": f"certbot-renewal-{number}",
                **{"x": x, "y": y, "w": width, "h": height},
                "name": panel.title,
                "queries": [{"query": panel.flux(), "source": "", "type": "flux"}],
                "axes": {"x": axis, "y": axis, "y2": axis},
                "type": "bar" if panel.graph else "table",
                "colors": colors,
                "legend": {},
                "tableOptions": {
                    "verticalTimeAxis": True,
                    "sortBy": time,
                    "wrapping": "truncate",
                    "fixFirstColumn": False,
                },
                "fieldOptions": [time],
                "timeFormat": "YYYY-MM-DD HH:mm",
                "decimalPlaces": {"isEnforced": True, "digits": 1},
                "note": panel.note,
                "noteVisibility": "showWhenNoData" if panel.alarm else "default",
            }
        )
    return {
        "meta": {"chronografVersion": "1.10.0", "sources": {}},
        "dashboard": {"name": "certbot renewals", "cells": cells, "templates": []},
    }


# ---- Grafana ---------------------------------------------------------------------------------------------------------
SOURCE = {"type": "influxdb", "uid": "${datasource}"}
STEPS = [
    {"color": "red", "value": None},
    {"color": "orange", "value": 7},
    {"color": "green", "value": 14},
]  # of days left


def override(column: str, **properties: Any) -> Json:
    """What Grafana shows a column of a table with."""
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": k.replace("_", "."), "value": v} for k, v in properties.items()],
    }


def grafana_panel(number: int, panel: Panel) -> Json:
    """A panel of Grafana, whose columns are half as wide and high."""
    x, y, width, height = (2 * size for size in panel.place)
    text = TEXT.sub(lambda found: f'{found[1]} = "${{{found[1]}}}"', panel.flux())
    common = {
        "id": number,
        "title": panel.title,
        "description": f"{panel.note} {OWN_TIME}",
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "datasource": SOURCE,
        "targets": [{"refId": "A", "datasource": SOURCE, "query": text}],
        "maxDataPoints": 10000,  # rows: a table would else end at ten times its width
        "transparent": False,
    }
    if panel.graph:
        bars = {
            "drawStyle": "bars",
            "fillOpacity": 80,
            "lineWidth": 0,
            "stacking": {"mode": "normal", "group": "A"},
            "axisLabel": "renewals",
        }
        defaults = {
            "custom": bars,
            "decimals": 0,
            "displayName": "${__field.labels.host}",
            "unit": "short",
        }
        legend = {"displayMode": "list", "placement": "right", "showLegend": True, "calcs": ["sum"]}
        options: Json = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        return {
            **common,
            "type": "timeseries",
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options,
        }
    red = {"mode": "absolute", "steps": [{"color": "red", "value": None}]}
    cell = {"type": "color-background", "mode": "basic"}
    overrides = []
    if panel.alarm:
        overrides += [override(panel.alarm, thresholds=red, custom_cellOptions=cell)]
        overrides += [
            override(
                "days_left",
                thresholds={"mode": "absolute", "steps": STEPS},
                custom_cellOptions=cell,
            )
        ]
    defaults = {
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True},
        "decimals": 1,
    }
    options = {"showHeader": True, "cellHeight": "sm", "frameIndex": 0}
    without = [
        {"id": "organize", "options": {"excludeByName": {"_time": True}}}
    ]  # when it was asked
    fields = {"defaults": defaults, "overrides": overrides}
    return {
        **common,
        "type": "table",
        "fieldConfig": fields,
        "options": options,
        "transformations": without,
    }


def typed(name: str, label: str, value: str) -> Json:
    """A variable that is typed on top of the dashboard."""
    chosen = {"selected": True, "text": value, "value": value}
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "query": value,
        "current": chosen,
        "options": [chosen],
        "hide": 0,
    }


def grafana_dashboard(label: str, kind: str, variables: list[Json], panels: list[Json]) -> Json:
    """A dashboard for Grafana 11 and 12."""
    source = {
        "type": "datasource",
        "name": "datasource",
        "label": label,
        "query": kind,
        "regex": "",
        "refresh": 1,
        "hide": 0,
    }
    return {
        "uid": "certbot-renewals" if kind == "influxdb" else f"certbot-renewals-{kind}",
        "title": "certbot renewals",
        "description": "Certificates, and what is wrong with their renewals.",
        "tags": ["certbot"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 0,
        "time": {"from": "now-30d", "to": "now"},
        "timepicker": {},
        "timezone": "browser"
        if kind == "influxdb"
        else "utc",  # Prometheus is asked for days that begin at midnight there
        "refresh": "15m",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [{**source, "options": [], "multi": False, "includeAll": False}, *variables]
        },
        "panels": panels,
    }


MEASUREMENT = typed("measurement", "Measurement", "certbot_renewal")


def grafana() -> Json:
    """For InfluxDB."""
    panels = [grafana_panel(number, panel) for number, panel in enumerate(PANELS, start=1)]
    return grafana_dashboard(
        "InfluxDB", "influxdb", [typed("bucket", "Bucket", "telegraf"), MEASUREMENT], panels
    )


# ---- Grafana, with Prometheus ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Numbers:
    """A panel in PromQL: `rows` says which there are, by their labels, and each column is a query of its own. With a `step` it is asked
    over a `span` of time, else as of the end of what the time picker shows. The words are those of make_rules.py."""

    labels: str
    rows: str
    columns: dict[str, str]
    sort: str
    says: str = ""  # beside what the other dashboards say
    ascending: bool = False
    span: str = ""
    step: str = ""

    def queries(self) -> list[str]:
        """One for each column, in PromQL."""
        rows = [
            one if self.rows in one else f"({one}) and on ({self.labels}) ({self.rows})"
            for one in self.columns.values()
        ]
        return [re.sub(r"\s+", " ", spelled(one)).strip() for one in rows]


def newest(of: str) -> str:
    """By certificate: what the series says that was reported last."""
    return f"max by (host, lineage) ({of} and NEWEST)"


def since(series: str) -> str:
    """When the last point of each series was written, Unix seconds, to a quarter of a day: of points of long ago PromQL says no more."""
    moment = f"0 * last_over_time({series}[6h]) + time()"
    return f"({moment} or max_over_time(({moment})[400d:6h]))"


SILENT = "SILENT or MOST_HOSTS"
FAILING = "FAILED_COUNT > 0 or UNREADABLE_COUNT > 0 or EXIT_STATUS > 0"
MISSING = "max by (host, lineage, target) (MISSING) >= 0"
UNSERVED = "max by (host, lineage) (UNSERVED)"
LEFT_OVER = 'max by (host) (max_over_time(certbot_renewal_{}{{host!=""}}[12h] offset -12h))'
FAILED_RUNS = (
    f"{LEFT_OVER.format('failed_count')} > 0 or {LEFT_OVER.format('unreadable_count')} > 0"
)
RENEWALS = """
count by (host) (
    count_over_time(certbot_renewal_renewed_count{domain="all"}[1d] offset -1d)
    or (last_over_time(certbot_renewal_not_before{domain="all"}[2d] offset -2d) >= time()) < time() + 86400
)"""
NAME = 'certbot_renewal_renewed_count{domain!="all"}'
DRY_RUN = last("dry_run_failed")
NOT_KEPT = "is text, which is not kept"
PROMQL = {  # by the query that says the same in Flux
    "overdue": Numbers(
        "host, lineage",
        "OVERDUE >= CRIT_DAYS",
        {
            "days_overdue": "OVERDUE >= CRIT_DAYS",
            "days_left": newest("(NOT_AFTER - time()) / 86400"),
            "due": newest("DUE * 1000"),
            "expiry": newest("NOT_AFTER * 1000"),
        },
        "days_overdue",
    ),
    "silent_hosts": Numbers(
        "host",
        SILENT,
        {
            "last": f"(time() - ({SILENT}) * 86400) * 1000",
            "days_silent": SILENT,
            "deaf": "0 * SILENT + scalar(0 * (DEAF) + 1 or vector(0)) or 0 * MOST_HOSTS",
        },
        "days_silent",
    ),
    "failing": Numbers(
        "host",
        FAILING,
        {
            "run": "max by (host) (RUN_AT > 0) * 1000",
            "exit_status": "EXIT_STATUS",
            "failed_count": "FAILED_COUNT",
            "unreadable_count": "UNREADABLE_COUNT",
        },
        "failed_count",
        f"Which ones {NOT_KEPT}.",
    ),
    "not_delivered": Numbers(
        "host, lineage, target",
        MISSING,
        {
            "days_missing": MISSING,
            "days_left": "max by (host, lineage, target) ((ENDS > 0) - time()) / 86400",
            "renewed": "max by (host, lineage, target) (RENEWED) * 1000",
            "expiry": "max by (host, lineage, target) (ENDS > 0) * 1000",
            "never": "max by (host, lineage, target) (DEPLOYED == bool 0)",
        },
        "days_missing",
        f"Why {NOT_KEPT}.",
    ),
    "not_served": Numbers(
        "host, lineage",
        UNSERVED,
        {
            "days_unserved": UNSERVED,
            "days_left": newest("(SERVED_ENDS - time()) / 86400"),
            "renewed": newest("NOT_BEFORE * 1000"),
            "expiry": newest("SERVED_ENDS * 1000"),
            "served": newest(last("served")),
        },
        "days_unserved",
        f"For which names {NOT_KEPT}.",
    ),
    "renewals_per_host": Numbers(
        "host",
        "",
        {"renewals": RENEWALS},
        "",
        "A certificate counts once a day.",
        span="30d",
        step="1d",
    ),
    "certificates": Numbers(
        "host, lineage",
        newest("DUE > 0"),
        {
            "age_days": newest("(time() - NOT_BEFORE) / 86400"),
            "next_renewal": newest("DUE * 1000"),
            "expiry": newest("NOT_AFTER * 1000"),
        },
        "age_days",
    ),
    "domains": Numbers(
        "domain, host",
        f"max by (domain, host) {since(NAME)}",
        {
            "renewed": f"max by (domain, host) {since(NAME)} * 1000",
            "age_days": f"(time() - max by (domain, host) {since(NAME)}) / 86400",
        },
        "age_days",
        "To a quarter of a day. Empty where Prometheus itself has the points, which takes none of long ago.",
    ),
    "failures": Numbers(
        "host",
        FAILED_RUNS,
        {
            "failed_count": LEFT_OVER.format("failed_count"),
            "unreadable_count": LEFT_OVER.format("unreadable_count"),
        },
        "Time",
        f"A row is half a day (UTC); which ones {NOT_KEPT}.",
        span="400d",
        step="12h",
    ),
    "dry_runs": Numbers(
        "host, lineage",
        f"max by (host, lineage) ({DRY_RUN})",
        {
            "time": f"max by (host, lineage) {since('certbot_renewal_dry_run_failed')} * 1000",
            "failed": f"max by (host, lineage) ({DRY_RUN})",
        },
        "host",
        f"To a quarter of a day; why {NOT_KEPT}.",
        ascending=True,
    ),
}
MOMENTS = (
    "due",
    "expiry",
    "last",
    "run",
    "renewed",
    "next_renewal",
    "time",
)  # milliseconds, as Grafana wants them
YES_OR_NO = [
    {
        "type": "value",
        "options": {"0": {"text": "false", "index": 0}, "1": {"text": "true", "index": 1}},
    }
]


def grafana_prometheus_panel(number: int, panel: Panel) -> Json:
    """The panel as Grafana shows it of InfluxDB, with other queries: each column is a table of its own, and they are put together."""
    shown, of = grafana_panel(number, panel), PROMQL[panel.name]
    source = {"type": "prometheus", "uid": "${datasource}"}
    how = {
        "instant": not of.span,
        "range": bool(of.span),
        "format": "time_series" if panel.graph else "table",
    }
    how |= {"legendFormat": "{{host}}"} if panel.graph else {}
    how |= {"interval": of.step} if of.step else {}
    shown["targets"] = [
        {
            "refId": chr(ord("A") + place),
            "datasource": source,
            "expr": text.replace("certbot_renewal_", "${measurement}_"),
            **how,
        }
        for place, text in enumerate(of.queries())
    ]
    own = (
        "As of the end of what the time picker shows."
        if not of.span
        else f"Of {of.span}, whatever the time picker shows."
    )
    shown |= {
        "datasource": source,
        "description": " ".join(filter(None, (panel.note, of.says, own))),
    }
    shown |= {"timeFrom": of.span, "hideTimeOverride": True} if of.span else {}
    if panel.graph:
        shown["fieldConfig"]["defaults"].pop("displayName")
        return shown
    names = {
        f"Value #{target['refId']}": column for target, column in zip(shown["targets"], of.columns)
    }
    order = {name: place for place, name in enumerate(["Time", *of.labels.split(", "), *names])}
    tidy = {
        "excludeByName": {} if of.span else {"Time": True},
        "indexByName": order,
        "renameByName": names,
    }
    shown["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": tidy},
        {
            "id": "sortBy",
            "options": {"fields": {}, "sort": [{"field": of.sort, "desc": not of.ascending}]},
        },
    ]
    overrides = shown["fieldConfig"]["overrides"]
    overrides += [
        override(column, unit="dateTimeAsIso") for column in of.columns if column in MOMENTS
    ]
    overrides += [
        override(column, mappings=YES_OR_NO) for column in ("deaf", "never") if column in of.columns
    ]
    overrides += [
        override(column, decimals=0)
        for column in of.columns
        if column.endswith(("_count", "_status")) or column in ("served", "failed")
    ]
    return shown


def grafana_prometheus() -> Json:
    """For VictoriaMetrics and Prometheus."""
    panels = [
        grafana_prometheus_panel(number, panel) for number, panel in enumerate(PANELS, start=1)
    ]
    return grafana_dashboard("VictoriaMetrics or Prometheus", "prometheus", [MEASUREMENT], panels)


# ---- Alerts ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Alert:
    """An alert of kapacitor/templates/, in Flux for InfluxDB 2 and in Grafana's words."""

    name: str
    query: str
    keys: tuple[str, ...]  # what tells its groups apart
    what: str
    judge: str  # Flux: thresholds, level(r): "crit", "warn" or "ok", and message(r), of a row with its _level
    numbers: dict[str, str]  # Grafana: by refId, in Flux
    rules: dict[
        str, tuple[str, str]
    ]  # Grafana: severity, and what makes it fire, by the end of its name
    summary: str  # Grafana: A, B, D are the numbers, C is whether it fires; URGENT: said by rules of that name
    first: str = ""  # Flux: at the end of the query


GRACE = """\
// Days from the renewal on that may pass: at least the time between two runs of certbot.
grace = 1.0

// Days before the old one expires from which on it is critical.
urgent = 7.0

"""
SERVED = """\
level = (r) =>
    if r.DAYS >= 0.0 and r.days_left != 0.0 and (r.days_left < 0.0 or r.DAYS >= grace and r.days_left < urgent) then
        "crit"
    else if r.DAYS >= grace then
        "warn"
    else
        "ok"
begin = (r) => r.lineage + " on " + r.host + ": " + (if r._level == "crit" then "urgent, " else "")
expires = (r) => (if r.days_left < 0.0 then "expired " else "expires ") + moment(t: r.expiry)
"""
ON_HOST = "{{ .Labels.lineage }} on {{ .Labels.host }}: "
LEFT = '{{ if lt .Values.B.Value 0.0 }}expired{{ else }}expires in {{ printf "%.1f" .Values.B.Value }} days{{ end }}'
AGO = '{{ printf "%.1f" .Values.A.Value }} days ago'
OLD_RULES = {
    "": ("warning", "$A >= 1"),
    "_urgent": ("critical", "$A >= 0 && $B != 0 && ($B < 0 || ($A >= 1 && $B < 7))"),
}

ALERTS = [
    Alert(
        "renewal_overdue",
        "overdue",
        ("host", "lineage"),
        "Critical when a certificate was not renewed in time.",
        """\
// Days after certbot should have renewed. 1.0 is day 61 of 90.
crit = 1.0

level = (r) => if r.days_overdue >= crit then "crit" else "ok"
left = (r) => if r.days_left < 0.0 then "expired" else days(v: r.days_left) + " days left"
message = (r) =>
    r.lineage + " on " + r.host + ": " + (if r._level != "ok" then
        "not renewed, due since " + moment(t: r.due) + ", " + left(r: r)
    else if r.ended then
        "no longer on this host"
    else
        "renewed, next due " + moment(t: r.due))
""",
        {"A": "r.days_overdue", "B": "r.days_left"},
        {"": ("critical", "$A >= 1")},
        f"{ON_HOST}{{{{ if .Values.C.Value }}}}not renewed, due {AGO}, {LEFT}"
        f"{{{{ else if .Values.B.Value }}}}renewed, {LEFT}{{{{ else }}}}no longer on this host{{{{ end }}}}",
    ),
    Alert(
        "renewal_failing",
        "failing",
        ("host",),
        "Warning when a run of certbot failed, left a certificate that was due, or cannot read one.",
        """\
level = (r) => if r.failing then "warn" else "ok"
reasons = (r) =>
    (if r.failed_count > 0 then ", not renewed: " + r.failed else "")
        + (if r.unreadable_count > 0 then ", unreadable: " + r.unreadable else "")
        + (if r.exit_status > 0 then ", exit status " + string(v: r.exit_status) else "")
message = (r) => r.host + ": " + (if r._level == "ok" then "certbot runs well again" else "certbot fails" + reasons(r: r))
""",
        {"A": "r.failed_count", "B": "r.unreadable_count", "D": "r.exit_status"},
        {"": ("warning", "$A > 0 || $B > 0 || $D > 0")},
        "{{ .Labels.host }}: {{ if .Values.C.Value }}certbot fails"
        '{{ if gt .Values.A.Value 0.0 }}, {{ printf "%.0f" .Values.A.Value }} not renewed{{ end }}'
        '{{ if gt .Values.B.Value 0.0 }}, {{ printf "%.0f" .Values.B.Value }} unreadable{{ end }}'
        '{{ if gt .Values.D.Value 0.0 }}, exit status {{ printf "%.0f" .Values.D.Value }}{{ end }}'
        "{{ else }}certbot runs well again{{ end }}",
    ),
    Alert(
        "host_silent",
        "silent_hosts",
        ("host",),
        "Critical when a host that sent run reports has stopped to.",
        """\
level = (r) => if r.silent then "crit" else "ok"
heard = (r) =>
    if r.host == "(most hosts)" then
        "report again"
    else if r.days_silent < 0.0 then
        "no longer expected to report"
    else
        "reports again"
short = (v) => if strings.strlen(v: v) > 100 then strings.substring(v: v, start: 0, end: 100) else v
message = (r) =>
    r.host + ": " + (if r._level == "ok" then
        heard(r: r)
    else
        "no report of certbot for " + days(v: r.days_silent) + " days, last " + moment(t: r.last) + " of " + short(v: r.lineages))
""",
        # Half is between both thresholds: while InfluxDB hears nobody, a silent host is not judged, and what was told stays told.
        {
            "A": "if r.days_silent < silence then 0.0 else if r.deaf then 0.5 else 1.0",
            "B": "r.days_silent",
        },
        {"": ("critical", "0.75 0.25")},
        '{{ .Labels.host }}: {{ if .Values.C.Value }}no report of certbot for {{ printf "%.1f" .Values.B.Value }} days'
        "{{ else if lt .Values.B.Value 0.0 }}no longer expected to report{{ else }}reports again{{ end }}",
        """\
    |> map(fn: (r) => ({r with silent: r.days_silent >= silence}))
    // While InfluxDB hears nobody, a silent host is not judged, and what was told stays told.
    |> filter(fn: (r) => not r.silent or not r.deaf)
""",
    ),
    Alert(
        "certificate_not_delivered",
        "not_delivered",
        ("host", "lineage", "target"),
        "Warning when a renewed certificate did not get to a target, critical when the one that the target has will soon expire.",
        GRACE
        + SERVED.replace("DAYS", "days_missing")
        + """\
old = (r) => if r.never then ", it never got one" else ", what it has " + expires(r: r)
message = (r) =>
    begin(r: r) + (if r._level != "ok" then
        "not delivered to " + r.target + ", renewed " + moment(t: r.renewed) + old(r: r)
    else if r.ended then
        "no longer for " + r.target
    else
        "delivered to " + r.target)
""",
        {"A": "r.days_missing", "B": "r.days_left"},
        OLD_RULES,
        f"{ON_HOST}{{{{ if .Values.C.Value }}}}URGENTnot delivered to {{{{ .Labels.target }}}}, renewed {AGO}, "
        f"{{{{ if .Values.B.Value }}}}what it has {LEFT}{{{{ else }}}}it never got one{{{{ end }}}}"
        "{{ else }}delivered to {{ .Labels.target }}, or no longer for it{{ end }}",
    ),
    Alert(
        "certificate_not_served",
        "not_served",
        ("host", "lineage"),
        "Warning when a certificate was renewed and another one is served, critical when that one will soon expire.",
        GRACE
        + SERVED.replace("DAYS", "days_unserved")
        + """\
message = (r) =>
    begin(r: r) + (if r._level != "ok" then
        "renewed " + moment(t: r.renewed) + ", but another one is served for " + r.not_served + ", which " + expires(r: r)
    else if r.looked then
        "the renewed certificate is served"
    else
        "no longer looked at")
""",
        {"A": "r.days_unserved", "B": "r.days_left"},
        OLD_RULES,
        f"{ON_HOST}{{{{ if .Values.C.Value }}}}URGENTrenewed {AGO}, but another one is served, which {LEFT}"
        "{{ else }}the renewed certificate is served, or no longer looked at{{ end }}",
    ),
]


# ---- Grafana's alerts ------------------------------------------------------------------------------------------------
def grafana_rule(alert: Alert, suffix: str) -> Json:
    """A rule. Every number is a query of its own, ungrouped and without a time: one table with text and exactly one number is what Grafana
    makes an instance per row of, with the text as labels. A table for each certificate would be dropped, and all seem well."""
    severity, condition = alert.rules[suffix]
    texts = "".join(f"{key}: r.{key}, " for key in alert.keys)
    data = [
        {
            "refId": number,
            "relativeTimeRange": {"from": 600, "to": 0},
            "datasourceUid": "DATASOURCE",
            "model": {
                "refId": number,
                "query": f"{query(alert.query)}\n    |> map(fn: (r) => ({{{texts}value: float(v: {value})}}))\n    |> group()",
                "intervalMs": 1000,
                "maxDataPoints": 43200,
            },
        }
        for number, value in alert.numbers.items()
    ]
    expression: Json = {"type": "math", "expression": condition}
    if alert.name == "host_silent":
        fires, ends = (float(value) for value in condition.split())
        limits = {
            "evaluator": {"type": "gt", "params": [fires]},
            "unloadEvaluator": {"type": "lt", "params": [ends]},
        }
        expression = {"type": "threshold", "expression": "A", "conditions": [limits]}
    own = {"type": "__expr__", "uid": "__expr__"}
    data.append(
        {
            "refId": "C",
            "datasourceUid": "__expr__",
            "model": {"refId": "C", "datasource": own, **expression},
        }
    )
    return {
        "uid": f"{alert.name}{suffix}",
        "title": f"{alert.name}{suffix}",
        "condition": "C",
        "data": data,
        # What vanishes has not recovered: what ended has a row that says so. Thus nothing ends while InfluxDB is away, for a month.
        "noDataState": "KeepLast",
        "execErrState": "Error",
        "missing_series_evals_to_resolve": 31 * 96,
        "for": "0s",
        "annotations": {
            "summary": alert.summary.replace("URGENT", "urgent, " if suffix else ""),
            "description": alert.what,
        },
        "labels": {"severity": severity},
    }


GRAFANA_HEAD = """\
# Alert rules for Grafana 11 and 12: put this file into provisioning/alerting/ of its configuration and restart it. docs/dashboards.md says
# more.
# Made by tools/generate/dashboards.py. Edit here, and in each query the lines with bucket and measurement.
#
# The uid of the data source, InfluxDB with the query language Flux: under Connections, Data sources, in the address of its page.
datasource: &datasource influxdb
"""


def grafana_alerts() -> str:
    """The file of alert rules; the uid of the data source stands in one place."""
    rules = [grafana_rule(alert, suffix) for alert in ALERTS for suffix in alert.rules]
    group = {
        "orgId": 1,
        "name": "certbot_renewal",
        "folder": "certbot renewals",
        "interval": "15m",
        "rules": rules,
    }
    return GRAFANA_HEAD + to_yaml({"apiVersion": 1, "groups": [group]}).replace(
        "datasourceUid: DATASOURCE", "datasourceUid: *datasource"
    )


# ---- InfluxDB 2 ------------------------------------------------------------------------------------------------------
TASK = """\
import "influxdata/influxdb/monitor"
import "math"
import "strings"

// WHAT
// It writes a status into _monitoring while a notification rule has not told of it: so nothing is told twice, not after a restart either,
// and nothing is lost when InfluxDB or the endpoint was away.
told =
    from(bucket: "_monitoring")
        |> range(start: -400d, stop: 1d)
        |> filter(fn: (r) => r._measurement == "notifications" and r._check_id == "NAME")
        |> filter(fn: (r) => r._field == "_status" or r._field == "_message" and r._sent == "true")
        |> filter(fn: (r) => r._sent == "true" or strings.hasPrefix(v: r._value, prefix: "2"))
        |> group(columns: [COLUMNS])
        |> sort(columns: ["_time"])
        |> last()
        |> map(fn: (r) => ({KEYS, _level: "", _message: "", told: r._level}))
news = (tables=<-) =>
    union(tables: [tables, told])
        |> group(columns: [COLUMNS])
        |> reduce(
            identity: {_level: "", _message: "", told: "ok"},
            fn: (r, accumulator) =>
                ({
                    _level: if r.told == "" then r._level else accumulator._level,
                    _message: if r.told == "" then r._message else accumulator._message,
                    told: if r.told == "" then accumulator.told else r.told,
                }),
        )
        |> filter(fn: (r) => r._level != "" and r._level != r.told)
        |> drop(columns: ["told"])
        |> map(fn: (r) => ({r with _time: now(), _measurement: "certbot_renewal"}))
        |> group(columns: [COLUMNS, "_measurement"])
moment = (t) =>
    strings.substring(v: string(v: t), start: 0, end: 10) + " " + strings.substring(v: string(v: t), start: 11, end: 16) + " UTC"
tenths = (v) => int(v: math.round(x: v * 10.0))
days = (v) => string(v: tenths(v: v) / 10) + "." + string(v: tenths(v: v) % 10)

JUDGE
QUERY
FIRST    |> map(fn: (r) => ({r with _level: level(r: r)}))
    |> map(fn: (r) => ({KEYS, _level: r._level, _message: message(r: r), told: ""}))
    |> news()
    |> monitor.check(
        crit: (r) => r._level == "crit",
        warn: (r) => r._level == "warn",
        messageFn: (r) => r._message,
        data: {_check_id: "NAME", _check_name: "NAME", _type: "custom", tags: {alerts: "certbot_renewal"}},
    )
"""

INFLUXDB_HEAD = """\
# Dashboard and alerts for InfluxDB 2, without Kapacitor. docs/dashboards.md says how to apply it, and what to edit.
# Made by tools/generate/dashboards.py.
#
# The bucket of the reports must exist. In a new InfluxDB have it made, too, by what follows; of a bucket that is there it would set
# the retention, to for ever:
#
#   apiVersion: influxdata.com/v2alpha1
#   kind: Bucket
#   metadata: {name: telegraf}
#
# Who is told: the endpoint and the rule at the end. In their place, for Slack:
#
#   apiVersion: influxdata.com/v2alpha1
#   kind: NotificationEndpointSlack
#   metadata: {name: certbot-renewal-endpoint}
#   spec: {name: certbot renewals, url: https://hooks.slack.com/services/fake/fake/fake}
#
# and in the rule messageTemplate: "${ r._message }". For PagerDuty, which opens an incident and resolves it on recovery:
#
#   apiVersion: influxdata.com/v2alpha1
#   kind: NotificationEndpointPagerDuty
#   metadata: {name: certbot-renewal-endpoint}
#   spec: {name: certbot renewals, url: https://influx.example.com, routingKey: fake-routing-key}
#
# (the url is what an incident links to) and the same messageTemplate; without currentLevel: WARN, if that shall wake nobody.
"""


def part(kind: str, meta: str, **spec: Any) -> Json:
    """A resource of an InfluxDB template, under the project's label."""
    labels = (
        {} if kind == "Label" else {"associations": [{"kind": "Label", "name": "certbot-renewal"}]}
    )
    return {
        "apiVersion": "influxdata.com/v2alpha1",
        "kind": kind,
        "metadata": {"name": meta},
        "spec": {**spec, **labels},
    }


def chart(panel: Panel) -> Json:
    """A cell of InfluxDB 2's dashboard."""
    x, y, width, height = panel.place
    common = {
        "name": panel.title,
        "xPos": x,
        "yPos": y,
        "width": width,
        "height": height,
        "note": panel.note,
        "queries": [{"query": panel.flux() + "\n"}],
    }
    if panel.graph:
        axes = [{"name": name, "base": "10", "scale": "linear"} for name in "xy"]
        lines = [
            {"name": "line", "type": "scale", "hex": color}
            for color in ("#31C0F6", "#A500A5", "#FF7E27")
        ]
        return {
            "kind": "Xy",
            **common,
            "geom": "bar",
            "xCol": "_time",
            "yCol": "_value",
            "position": "stacked",
            "axes": axes,
            "colors": lines,
        }
    colors = (
        [{"id": "base", "name": "fire", "type": "background", "hex": RED}] if panel.alarm else []
    )
    shown = {
        "tableOptions": {"verticalTimeAxis": True, "wrapping": "truncate"},
        "timeFormat": "YYYY-MM-DD HH:mm",
        "decimalPlaces": 1,
    }
    return {"kind": "Table", **common, **shown, "colors": colors}


def task(alert: Alert) -> str:
    """The Flux of an alert's task."""
    parts = {
        "WHAT": alert.what,
        "NAME": alert.name,
        "COLUMNS": ", ".join(f'"{key}"' for key in alert.keys),
        "KEYS": ", ".join(f"{key}: r.{key}" for key in alert.keys),
        "JUDGE": alert.judge,
        "QUERY": query(alert.query),
        "FIRST": alert.first,
    }
    return re.sub(
        r"\b(WHAT|NAME|COLUMNS|KEYS|JUDGE|QUERY|FIRST)\b", lambda found: parts[found[0]], TASK
    )


def influxdb2() -> str:
    """A template for `influx apply` and POST /api/v2/templates/apply."""
    parts = [
        part("Label", "certbot-renewal", color="#4591ED", description="certbot renewal report")
    ]
    parts += [
        part(
            "Dashboard",
            "certbot-renewals",
            name="certbot renewals",
            charts=[chart(panel) for panel in PANELS],
        )
    ]
    parts += [
        part(
            "Task",
            alert.name.replace("_", "-"),
            name=alert.name,
            description=alert.what,
            every="15m",
            query=task(alert),
        )
        for alert in ALERTS
    ]
    endpoint = {
        "name": "certbot renewals",
        "method": "POST",
        "type": "none",
        "url": "http://127.0.0.1:9999/certificates",
    }
    parts += [part("NotificationEndpointHTTP", "certbot-renewal-endpoint", **endpoint)]
    # Looks at each status once: five minutes after it was written, and long before the tasks look whether it was told.
    rule = {"name": "certbot renewals", "endpointName": "certbot-renewal-endpoint", "every": "5m"}
    levels = [{"currentLevel": level} for level in ("CRIT", "WARN", "OK")]
    ours = [{"key": "alerts", "value": "certbot_renewal", "operator": "equal"}]
    parts += [
        part("NotificationRule", "certbot-renewal-rule", **rule, statusRules=levels, tagRules=ours)
    ]
    return INFLUXDB_HEAD + "".join(f"---\n{to_yaml(one)}" for one in parts)


# ---- Files -----------------------------------------------------------------------------------------------------------
class Dumper(yaml.SafeDumper):
    """YAML with queries as blocks of lines."""


def as_block(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """Text of several lines as it is."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


Dumper.add_representer(str, as_block)


def to_yaml(value: Json) -> str:
    """YAML in the order of the keys."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, width=1000, allow_unicode=True)


def files() -> dict[Path, str]:
    """The text of each file."""
    return {
        FOLDER / "chronograf.json": json.dumps(chronograf(), indent=2) + "\n",
        FOLDER / "grafana.json": json.dumps(grafana(), indent=2) + "\n",
        FOLDER / "grafana-prometheus.json": json.dumps(grafana_prometheus(), indent=2) + "\n",
        FOLDER / "grafana-alerts.yaml": grafana_alerts(),
        FOLDER / "influxdb2.yml": influxdb2(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text)
