"""The template for InfluxDB 2: a dashboard, and the alerts as tasks with a notification rule."""

from __future__ import annotations

import re
from typing import Any

from tools import ROOT
from tools.generate.alerts import ALERTS, Alert
from tools.generate.formats import Json, to_yaml
from tools.generate.panels import PANELS, RED, Panel
from tools.generate.queries import read_query

FOLDER = ROOT / "tools" / "generate"
HEAD = FOLDER / "heads" / "influxdb2.yml"
TASKS = FOLDER / "tasks"

LABEL = "certbot-renewal"
ENDPOINT = "certbot-renewal-endpoint"
BAR_COLORS = ("#31C0F6", "#A500A5", "#FF7E27")

# The words in tasks/task.flux.in that each task replaces.
PLACEHOLDER = re.compile(r"\b(DESCRIPTION|NAME|COLUMNS|KEYS|LEVEL_AND_MESSAGE|QUERY)\b")

# The column that says for how many days an old certificate was in use after a renewal.
DAYS_COLUMNS = {
    "certificate_not_delivered": "days_missing",
    "certificate_not_served": "days_unserved",
}

# Flux at the end of a query.
ADDITIONS = {
    "host_silent": """\
    |> map(fn: (r) => ({r with silent: r.days_silent >= silence}))
    // While most hosts are silent or late, a silent host is not judged. Its alert does not resolve.
    |> filter(fn: (r) => not r.silent or not r.most_hosts_away)"""
}


def resource(kind: str, name: str, /, **spec: Any) -> Json:
    """Return a resource of a template, with the project's label; `spec` may have a name too."""
    if kind != "Label":
        spec["associations"] = [{"kind": "Label", "name": LABEL}]
    return {
        "apiVersion": "influxdata.com/v2alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


# ---- Dashboard ---------------------------------------------------------------------------------
def chart(panel: Panel) -> Json:
    """Return a panel as a cell of the dashboard."""
    common = {
        "name": panel.title,
        "xPos": panel.place.x,
        "yPos": panel.place.y,
        "width": panel.place.width,
        "height": panel.place.height,
        "note": panel.note,
        "queries": [{"query": panel.flux() + "\n"}],
    }
    if panel.is_graph:
        return {"kind": "Xy", **common, **graph_parts()}
    return {"kind": "Table", **common, **table_parts(panel)}


def graph_parts() -> Json:
    """Return what makes a cell a bar graph."""
    return {
        "geom": "bar",
        "xCol": "_time",
        "yCol": "_value",
        "position": "stacked",
        "axes": [{"name": name, "base": "10", "scale": "linear"} for name in ("x", "y")],
        "colors": [{"name": "line", "type": "scale", "hex": color} for color in BAR_COLORS],
    }


def table_parts(panel: Panel) -> Json:
    """Return what makes a cell a table."""
    colors = []
    if panel.alarm:
        colors = [{"id": "base", "name": "fire", "type": "background", "hex": RED}]
    return {
        "tableOptions": {"verticalTimeAxis": True, "wrapping": "truncate"},
        "timeFormat": "YYYY-MM-DD HH:mm",
        "decimalPlaces": 1,
        "colors": colors,
    }


# ---- Tasks -------------------------------------------------------------------------------------
def task_flux(alert: Alert) -> str:
    """Return the Flux of an alert's task."""
    query = read_query(alert.query)
    if alert.name in ADDITIONS:
        query = f"{query}\n{ADDITIONS[alert.name]}"

    parts = {
        "DESCRIPTION": alert.description,
        "NAME": alert.name,
        "COLUMNS": ", ".join(f'"{key}"' for key in alert.keys),
        "KEYS": ", ".join(f"{key}: r.{key}" for key in alert.keys),
        "LEVEL_AND_MESSAGE": level_and_message(alert),
        "QUERY": query,
    }
    template = (TASKS / "task.flux.in").read_text()
    return PLACEHOLDER.sub(lambda match: parts[match[0]], template)


def level_and_message(alert: Alert) -> str:
    """Return Flux with the thresholds of an alert, and the functions level and message.

    level(r) is "crit", "warn" or "ok" for a row of the query, and message(r) its text.
    """
    own = (TASKS / f"{alert.name}.flux.in").read_text()
    if alert.name not in DAYS_COLUMNS:
        return own
    common = (TASKS / "old_certificate.flux.in").read_text()
    return common.replace("DAYS_COLUMN", DAYS_COLUMNS[alert.name]) + own


def task(alert: Alert) -> Json:
    """Return the task of an alert."""
    return resource(
        "Task",
        alert.name.replace("_", "-"),
        name=alert.name,
        description=alert.description,
        every="15m",
        query=task_flux(alert),
    )


# ---- Template ----------------------------------------------------------------------------------
def notification_rule() -> Json:
    """Return the rule that sends the statuses that the tasks write.

    It looks at each status once, at most five minutes after it was written. That is long before
    the next run of the task, which looks whether the status was sent.
    """
    levels = [{"currentLevel": level} for level in ("CRIT", "WARN", "OK")]
    own_statuses = [{"key": "alerts", "value": "certbot_renewal", "operator": "equal"}]
    return resource(
        "NotificationRule",
        "certbot-renewal-rule",
        name="certbot renewals",
        endpointName=ENDPOINT,
        every="5m",
        statusRules=levels,
        tagRules=own_statuses,
    )


def template() -> str:
    """Return the template, for `influx apply` and POST /api/v2/templates/apply."""
    charts = [chart(panel) for panel in PANELS]
    resources = [
        resource("Label", LABEL, color="#4591ED", description="certbot renewal report"),
        resource("Dashboard", "certbot-renewals", name="certbot renewals", charts=charts),
        *(task(alert) for alert in ALERTS),
        resource(
            "NotificationEndpointHTTP",
            ENDPOINT,
            name="certbot renewals",
            method="POST",
            type="none",
            url="http://127.0.0.1:9999/certificates",
        ),
        notification_rule(),
    ]
    documents = [f"---\n{to_yaml(document)}" for document in resources]
    return HEAD.read_text() + "".join(documents)
