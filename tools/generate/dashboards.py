#!/usr/bin/env python3
"""Writes the files of dashboards/ from the queries of flux/ and the rules of prometheus/.

    python3 -m tools.generate.dashboards

So a dashboard and every alert show and judge the same. panels.py has the panels of all dashboards,
alerts.py the alerts; chronograf.py, grafana.py, grafana_prometheus.py, grafana_alerts.py and
influxdb2.py make the file of each product from them.
"""

from __future__ import annotations

from pathlib import Path

from tools import ROOT
from tools.generate import chronograf, grafana, grafana_alerts, grafana_prometheus, influxdb2
from tools.generate.formats import to_json

FOLDER = ROOT / "dashboards"


def files() -> dict[Path, str]:
    """Return the text of each file."""
    return {
        FOLDER / "chronograf.json": to_json(chronograf.dashboard()),
        FOLDER / "grafana.json": to_json(grafana.dashboard()),
        FOLDER / "grafana-prometheus.json": to_json(grafana_prometheus.dashboard()),
        FOLDER / "grafana-alerts.yaml": grafana_alerts.rules_file(),
        FOLDER / "influxdb2.yml": influxdb2.template(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text)
