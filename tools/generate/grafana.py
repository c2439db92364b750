"""The dashboard for Grafana with InfluxDB, and what the one with Prometheus shares with it."""

from __future__ import annotations

from tools.generate.formats import Json
from tools.generate.panels import PANELS, Panel
from tools.generate.queries import TEXT_PARAMETER

SOURCE = {"type": "influxdb", "uid": "${datasource}"}
TIME_RANGE_NOTE = "The query sets the time range. The time picker has no effect."

COLORED_CELL = {"type": "color-background", "mode": "basic"}
RED_ALWAYS = {"mode": "absolute", "steps": [{"color": "red", "value": None}]}
DAYS_LEFT_COLORS = {
    "mode": "absolute",
    "steps": [
        {"color": "red", "value": None},
        {"color": "orange", "value": 7},
        {"color": "green", "value": 14},
    ],
}


# ---- Panels ------------------------------------------------------------------------------------
def influxdb_panel(number: int, panel: Panel) -> Json:
    """Return a panel that asks InfluxDB."""
    common = common_parts(number, panel)
    if panel.is_graph:
        return {**common, **graph_parts()}
    return {**common, **table_parts(panel)}


def common_parts(number: int, panel: Panel) -> Json:
    """Return what tables and graphs have. Grafana has 24 columns, twice as many as a Place."""
    query = TEXT_PARAMETER.sub(r'\g<name> = "${\g<name>}"', panel.flux())
    return {
        "id": number,
        "title": panel.title,
        "description": f"{panel.note} {TIME_RANGE_NOTE}",
        "gridPos": {
            "x": 2 * panel.place.x,
            "y": 2 * panel.place.y,
            "w": 2 * panel.place.width,
            "h": 2 * panel.place.height,
        },
        "datasource": SOURCE,
        "targets": [{"refId": "A", "datasource": SOURCE, "query": query}],
        # Rows. Without it a table ends at ten times its width in pixels.
        "maxDataPoints": 10000,
        "transparent": False,
    }


def graph_parts() -> Json:
    """Return what makes a panel a bar graph, with a color for each host."""
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
    return {
        "type": "timeseries",
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}},
    }


def table_parts(panel: Panel) -> Json:
    """Return what makes a panel a table, without the column _time, the time of the query."""
    overrides = []
    if panel.alarm:
        alarm = {"thresholds": RED_ALWAYS, "custom.cellOptions": COLORED_CELL}
        days_left = {"thresholds": DAYS_LEFT_COLORS, "custom.cellOptions": COLORED_CELL}
        overrides = [override(panel.alarm, alarm), override("days_left", days_left)]

    defaults = {
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True},
        "decimals": 1,
    }
    return {
        "type": "table",
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": {"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
        "transformations": [{"id": "organize", "options": {"excludeByName": {"_time": True}}}],
    }


def override(column: str, properties: Json) -> Json:
    """Return the properties of one column of a table."""
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }


# ---- Dashboards --------------------------------------------------------------------------------
def text_variable(name: str, label: str, value: str) -> Json:
    """Return a variable of the dashboard into which one types; `value` is its default."""
    option = {"selected": True, "text": value, "value": value}
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "query": value,
        "current": option,
        "options": [option],
        "hide": 0,
    }


BUCKET = text_variable("bucket", "Bucket", "telegraf")
MEASUREMENT = text_variable("measurement", "Measurement", "certbot_renewal")


def source_variable(label: str, kind: str) -> Json:
    """Return the variable that chooses the data source, of one kind."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": label,
        "query": kind,
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "options": [],
        "multi": False,
        "includeAll": False,
    }


def make_dashboard(uid: str, timezone: str, variables: list[Json], panels: list[Json]) -> Json:
    """Return a dashboard for Grafana 11 and 12."""
    return {
        "uid": uid,
        "title": "certbot renewals",
        "description": "Certificates, and the problems with their renewals.",
        "tags": ["certbot"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 0,
        "time": {"from": "now-30d", "to": "now"},
        "timepicker": {},
        "timezone": timezone,
        "refresh": "15m",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": variables},
        "panels": panels,
    }


def dashboard() -> Json:
    """Return the dashboard for InfluxDB."""
    variables = [source_variable("InfluxDB", "influxdb"), BUCKET, MEASUREMENT]
    panels = [influxdb_panel(number, panel) for number, panel in enumerate(PANELS, start=1)]
    return make_dashboard("certbot-renewals", "browser", variables, panels)
