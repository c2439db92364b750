"""The dashboards: what their panels show on every InfluxDB, and that each product can read them.

Grafana and Chronograf are not available here. Their files are compared with what the sources of
both check.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support.dashboards import (
    CHRONOGRAF,
    FOLDER,
    GRAFANA,
    GRAFANA_PROMETHEUS,
    INFLUXDB2_TEMPLATE,
    MANUAL,
    RENEWALS,
    SHOWN_BY_PANEL,
    Json,
    flux_by_title,
    for_bucket,
    row_name,
    run_documented_python,
    with_variables,
    write_fleet,
)
from tools.generate import dashboards
from tools.servers.influxdb import InfluxDB

CELLS: list[Json] = CHRONOGRAF["dashboard"]["cells"]
PANELS: list[Json] = GRAFANA["panels"]
PROMETHEUS_PANELS: list[Json] = GRAFANA_PROMETHEUS["panels"]


def test_each_file_is_generated_from_the_queries_as_they_are() -> None:
    for path, text in dashboards.files().items():
        assert path.read_text() == text, "run: python3 -m tools.generate.dashboards"


# ---- Panels ------------------------------------------------------------------------------------
def test_every_panel_shows_what_is_wrong(influxdb: InfluxDB) -> None:
    bucket = write_fleet(influxdb)
    shown = {}
    for title, query in flux_by_title().items():
        rows = influxdb.query(for_bucket(bucket, query))
        shown[title] = {row_name(row) for row in rows}
        if title == "Renewals per day":
            assert sum(int(row["_value"]) for row in rows) == RENEWALS
        else:
            # Grafana and Chronograf show one table at a time.
            assert {row["table"] for row in rows} == {"0"}
    assert shown == SHOWN_BY_PANEL


def test_all_dashboards_ask_the_same_queries() -> None:
    documents = yaml.safe_load_all(INFLUXDB2_TEMPLATE)
    (dashboard,) = [document for document in documents if document["kind"] == "Dashboard"]
    charts = dashboard["spec"]["charts"]
    assert len(CELLS) == len(PANELS) == len(charts)
    for cell, panel, chart in zip(CELLS, PANELS, charts):
        query = cell["queries"][0]["query"]
        assert with_variables(panel["targets"][0]["query"]) == query
        assert chart["queries"][0]["query"].rstrip() == query


# ---- The manual's commands ---------------------------------------------------------------------
def test_the_manual_s_python_makes_the_bodies_of_requests(tmp_path: Path) -> None:
    bodies = {
        "chronograf.json": CHRONOGRAF["dashboard"],
        "grafana.json": {"dashboard": GRAFANA, "overwrite": True},
    }
    for name, body in bodies.items():
        text = (FOLDER / name).read_text()
        assert run_documented_python(f"dashboards/{name}", text, tmp_path) == body


@pytest.mark.parametrize("name", ["chronograf.json", "influxdb2.yml", "grafana-alerts.yaml"])
def test_the_manual_s_sed_sets_the_bucket(tmp_path: Path, name: str) -> None:
    bucket_line = re.compile(r'bucket = \\?"(.*?)\\?["]')
    commands = re.findall(r"(?m)^sed .*telegraf.*$", MANUAL)
    (command,) = [command for command in commands if name in command]
    copy = tmp_path / "dashboards" / name
    copy.parent.mkdir()
    shutil.copy(FOLDER / name, copy)
    expression = command.removesuffix("\\")
    printed = subprocess.run(
        expression, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout

    before = bucket_line.findall((FOLDER / name).read_text())
    after = bucket_line.findall(printed or copy.read_text())
    assert before
    assert after == [bucket.replace("telegraf", "certbot") for bucket in before]


# ---- Chronograf --------------------------------------------------------------------------------
def assert_no_overlap(places: list[tuple[int, int, int, int]], columns: int) -> None:
    """Assert that no two panels (x, y, width, height) overlap, and all are within the columns."""
    cells = []
    for left, top, width, height in places:
        assert left + width <= columns
        for x in range(left, left + width):
            cells += [(x, y) for y in range(top, top + height)]
    assert len(cells) == len(set(cells))


def test_chronograf_can_read_its_file() -> None:
    """See server/dashboards.go of Chronograf 1.10, and what its interface imports."""
    assert set(CHRONOGRAF) == {"meta", "dashboard"}
    for cell in CELLS:
        (query,) = cell["queries"]
        assert (query["type"], query["source"]) == ("flux", "")  # "": Dynamic Source
        assert cell["noteVisibility"] in ("default", "showWhenNoData")
        assert cell["type"] in ("table", "bar")
    assert len({cell["i"] for cell in CELLS}) == len(CELLS)
    assert_no_overlap([(cell["x"], cell["y"], cell["w"], cell["h"]) for cell in CELLS], 12)


def test_chronograf_can_read_its_axes_and_colors() -> None:
    """See server/cells.go of Chronograf 1.10."""
    color_types = ("min", "max", "threshold", "text", "background", "scale")
    for cell in CELLS:
        assert set(cell["axes"]) <= {"x", "y", "y2"}
        for axis in cell["axes"].values():
            assert axis["base"] in ("10", "2")
            assert axis["scale"] in ("linear", "log")
        for color in cell["colors"]:
            assert len(color["hex"]) == 7
            assert isinstance(color["value"], str)
            assert color["type"] in color_types


# ---- Grafana -----------------------------------------------------------------------------------
def variable_names(dashboard: Json) -> list[str]:
    """Return the names of a dashboard's variables."""
    return [variable["name"] for variable in dashboard["templating"]["list"]]


def used_variables(query: str) -> set[str]:
    """Return the variables in a query, which must be written with $."""
    assert "[[" not in query
    return set(re.findall(r"\$\{?(\w+)", query))


def test_grafana_can_read_its_dashboard() -> None:
    assert GRAFANA["schemaVersion"] >= 39
    assert "id" not in GRAFANA
    assert variable_names(GRAFANA) == ["datasource", "bucket", "measurement"]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    positions = [panel["gridPos"] for panel in PANELS]
    assert_no_overlap([(place["x"], place["y"], place["w"], place["h"]) for place in positions], 24)


def test_grafana_can_read_the_panels_of_its_dashboard() -> None:
    for panel in PANELS:
        assert panel["type"] in ("table", "timeseries")
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "influxdb", "uid": "${datasource}"}
        (target,) = panel["targets"]
        assert target["refId"] == "A"
        assert target["datasource"] == panel["datasource"]
        assert used_variables(target["query"]) == {"bucket", "measurement"}


def test_grafana_s_dashboard_for_prometheus_has_the_panels_of_that_for_influxdb() -> None:
    assert GRAFANA_PROMETHEUS["uid"] != GRAFANA["uid"]
    assert set(GRAFANA_PROMETHEUS) == set(GRAFANA)
    assert len(PROMETHEUS_PANELS) == len(PANELS)
    for panel, influxdb_panel in zip(PROMETHEUS_PANELS, PANELS):
        for key in ("id", "type", "title", "gridPos"):
            assert panel[key] == influxdb_panel[key]
        note, _, _ = influxdb_panel["description"].partition(" The query sets")
        assert panel["description"].startswith(note)


def test_grafana_can_read_the_queries_of_its_dashboard_for_prometheus() -> None:
    assert variable_names(GRAFANA_PROMETHEUS) == ["datasource", "measurement"]
    for panel in PROMETHEUS_PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABCDEFGH")[: len(letters)]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert used_variables(target["expr"]) == {"measurement"}
            assert target["instant"] != target["range"]
            assert target["instant"] or panel["timeFrom"]


def prometheus_tables() -> list[Json]:
    """Return the tables of the dashboard for Prometheus: all panels but the graph."""
    tables = [panel for panel in PROMETHEUS_PANELS if panel["type"] == "table"]
    assert len(tables) == len(PROMETHEUS_PANELS) - 1
    return tables


def test_grafana_merges_the_columns_of_each_table_for_prometheus() -> None:
    for panel in prometheus_tables():
        merge, organize, sort = panel["transformations"]
        assert (merge["id"], organize["id"], sort["id"]) == ("merge", "organize", "sortBy")
        columns = set(organize["options"]["renameByName"].values())
        # If there is one query only, Grafana names its column otherwise.
        assert len(columns) == len(panel["targets"]) > 1
        hidden = {"Time": True} if panel["targets"][0]["instant"] else {}
        assert organize["options"]["excludeByName"] == hidden


def test_grafana_sorts_and_formats_columns_that_the_table_has() -> None:
    for panel in prometheus_tables():
        _, organize, sort = panel["transformations"]
        columns = set(organize["options"]["renameByName"].values())
        sorted_by = {field["field"] for field in sort["options"]["sort"]}
        assert sorted_by <= {*columns, "host", "Time"}
        overrides = panel["fieldConfig"]["overrides"]
        formatted = {override["matcher"]["options"] for override in overrides}
        assert formatted <= {*columns, "days_left"}
