"""The dashboard for Chronograf."""

from __future__ import annotations

from tools.generate.formats import Json
from tools.generate.panels import PANELS, RED, Panel

TIME_FIELD = {"internalName": "_time", "displayName": "", "visible": True}
AXIS = {
    "bounds": ["", ""],
    "label": "",
    "prefix": "",
    "suffix": "",
    "base": "10",
    "scale": "linear",
}
# The background of all numbers: from the lowest on.
ALARM_COLOR = {
    "id": "base",
    "type": "background",
    "hex": RED,
    "name": "fire",
    "value": "-1000000000000000000",
}


def dashboard() -> Json:
    """Return a dashboard as Chronograf exports it."""
    cells = [cell(number, panel) for number, panel in enumerate(PANELS)]
    return {
        "meta": {"chronografVersion": "1.10.0", "sources": {}},
        "dashboard": {"name": "certbot renewals", "cells": cells, "templates": []},
    }


def cell(number: int, panel: Panel) -> Json:
    """Return a panel as a cell. A query with an empty source asks the InfluxDB that is chosen."""
    return {
        "i": f"certbot-renewal-{number}",
        "x": panel.place.x,
        "y": panel.place.y,
        "w": panel.place.width,
        "h": panel.place.height,
        "name": panel.title,
        "queries": [{"query": panel.flux(), "source": "", "type": "flux"}],
        "axes": {"x": AXIS, "y": AXIS, "y2": AXIS},
        "type": "bar" if panel.is_graph else "table",
        "colors": [ALARM_COLOR] if panel.alarm else [],
        "legend": {},
        "tableOptions": {
            "verticalTimeAxis": True,
            "sortBy": TIME_FIELD,
            "wrapping": "truncate",
            "fixFirstColumn": False,
        },
        "fieldOptions": [TIME_FIELD],
        "timeFormat": "YYYY-MM-DD HH:mm",
        "decimalPlaces": {"isEnforced": True, "digits": 1},
        "note": panel.note,
        "noteVisibility": "showWhenNoData" if panel.alarm else "default",
    }
