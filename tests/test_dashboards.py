"""The dashboards and alerts of dashboards/: their queries on every InfluxDB, the template on a real InfluxDB 2 with a webhook, and for
Chronograf and Grafana, which cannot be had here, what their documentation says of such a file."""

from __future__ import annotations

import calendar
import contextlib
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import yaml

from support.points import delivery, run_point, served, state, write
from support.queries import Rows
from support.servers import require_program
from tools import ROOT
from tools.generate import dashboards
from tools.generate.dashboards import ALERTS
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.lineages import DAY
from tools.servers.processes import free_port, wait_for
from tools.servers.prometheus import Prometheus, VictoriaMetrics, copy_database, start_prometheus

FOLDER = ROOT / "dashboards"
CHRONOGRAF: dict[str, Any] = json.loads((FOLDER / "chronograf.json").read_text())
GRAFANA: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
PROMETHEUS: dict[str, Any] = json.loads((FOLDER / "grafana-prometheus.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "grafana-alerts.yaml").read_text())[
    "groups"
][0]["rules"]
TEMPLATE = (FOLDER / "influxdb2.yml").read_text()
DOCS = (ROOT / "docs" / "dashboards.md").read_text()
MINUTE = 60


def test_each_file_is_made_of_the_queries_as_they_are() -> None:
    for path, text in dashboards.files().items():
        assert path.read_text() == text, "run: python3 -m tools.generate.dashboards"


# ---- Queries ---------------------------------------------------------------------------------------------------------
def points(now: int) -> list[str]:
    """A certificate in each kind of trouble, and one that is well."""
    old, new, before = now - 88 * DAY, now - 2 * DAY, now - DAY - 60

    def looked(line: str) -> str:
        at = line.rpartition(" ")[2]
        return f"{line.rpartition(' ')[0]},looked_at={at}i,seen_at={at}i {at}"

    return [
        state("fine", now + 35 * DAY),
        state("late", now - 2 * DAY),
        state("later", now - 30 * 3600),
        state("tolerable", now - 20 * 3600),
        state("ended", 0),
        state("a", now + DAY, host="web2", run_at=now - 3 * DAY, at=now - 3 * DAY),
        *(state("b", now - 3600, host="web3", run_at=at, at=at) for at in (before, now - 60)),
        run_point("web3", before, exit_status=0),
        run_point("web3", now - 60, failed="b", exit_status=2),
        run_point("web4", now - 60, exit_status=0),
        run_point("web1", before, exit_status=0),
        run_point("web1", now, exit_status=0),
        state("delivered", new + 60 * DAY),
        delivery("haproxy", new, new, "delivered"),
        delivery("vault", old, new, "delivered"),  # expires in two days
        delivery("mail", 0, new, "delivered"),  # never got one
        delivery("web", new - 60 * DAY, new, "delivered"),
        looked(served("served", new, 1, "none", at=before)),
        looked(served("served", new, 1, "none", at=now)),
        looked(served("elsewhere", new, 0, "elsewhere.example.com", now + 20 * DAY)),
        f"certbot_renewal,domain=all,host=web1,lineage=late renewed_count=1 {now - 3 * DAY}",
        f"certbot_renewal,domain=late.example.com,host=web1 renewed_count=1 {now - 3 * DAY}",
        f"certbot_renewal,domain=old.example.com,host=web1 renewed_count=1 {now - 300 * DAY}",
        *(
            f"certbot_renewal,domain=all,host=web1,lineage={name} renewed_count=1 {new}"
            for name in ("delivered", "served", "elsewhere")
        ),
        f'certbot_renewal,domain=all,host=web1,lineage=fine dry_run_failed=0i,dry_run_error="none" {now - DAY}',
        f'certbot_renewal,domain=all,host=web1,lineage=late dry_run_failed=1i,dry_run_error="no" {now - 3 * DAY}',
    ]


def fill(influxdb: InfluxDB) -> str:
    """A bucket with these points."""
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, *points(int(time.time())))
    return bucket


TROUBLE = {
    "Overdue": {"web1/late", "web1/later"},
    "Silent hosts": {"web2"},
    "Failing hosts": {"web3"},
    "Not delivered": {"web1/delivered/vault", "web1/delivered/mail", "web1/delivered/web"},
    "Not served": {"web1/elsewhere"},
    "Certificates": {
        *(
            f"web1/{name}"
            for name in ("fine", "late", "later", "tolerable", "delivered", "served", "elsewhere")
        ),
        *("web2/a", "web3/b"),
    },
    "Names": {"web1/late.example.com", "web1/old.example.com"},
    "Renewals per day": {"web1"},
    "Failed runs": {"web3"},
    "Dry runs": {"web1/fine", "web1/late"},
}
FIRING = {
    "renewal_overdue": TROUBLE["Overdue"],
    "renewal_failing": {"web3"},
    "host_silent": {"web2"},
    "certificate_not_delivered": TROUBLE["Not delivered"],
    "certificate_not_delivered_urgent": {"web1/delivered/vault"},
    "certificate_not_served": {"web1/elsewhere"},
    "certificate_not_served_urgent": set[str](),
}


def who(row: dict[str, str]) -> str:
    """What a row is about."""
    return "/".join(row[key] for key in ("host", "lineage", "target", "domain") if key in row)


def on(bucket: str, text: str) -> str:
    """A query as an administrator sets it to his bucket."""
    assert 'bucket = "telegraf"\n' in text
    return text.replace('bucket = "telegraf"', f'bucket = "{bucket}"')


def interpolated(text: str) -> str:
    """A query with the values of Grafana's variables, as Grafana puts them in."""
    values = {one["name"]: one.get("query", "") for one in GRAFANA["templating"]["list"]}
    return re.sub(
        r"\$\{(\w+)\}|\$(\w+)|\[\[(\w+)\]\]",
        lambda found: values[found[1] or found[2] or found[3]],
        text,
    )


def fires(rule: dict[str, Any], numbers: dict[str, float]) -> bool:
    """Whether the condition of a Grafana rule is true of the numbers of an instance."""
    (condition,) = (one["model"] for one in rule["data"] if one["refId"] == rule["condition"])
    if condition["type"] == "threshold":
        (limits,) = condition["conditions"]
        assert (limits["evaluator"]["type"], limits["unloadEvaluator"]["type"]) == ("gt", "lt")
        return numbers[condition["expression"]] > float(limits["evaluator"]["params"][0])
    python = re.sub(r"\$(\w)", lambda found: str(numbers[found[1]]), condition["expression"])
    assert re.fullmatch(r"[-\d.e ><=!&|()]+", python)
    return bool(eval(python.replace("&&", " and ").replace("||", " or ")))


def test_every_panel_shows_what_is_wrong_and_every_rule_of_grafana_judges_it(
    influxdb: InfluxDB,
) -> None:
    bucket = fill(influxdb)
    shown: dict[str, Rows] = {}
    for cell, panel in zip(CHRONOGRAF["dashboard"]["cells"], GRAFANA["panels"]):
        text = cell["queries"][0]["query"]
        assert interpolated(panel["targets"][0]["query"]) == text  # so that each is asked once
        shown[cell["name"]] = influxdb.query(on(bucket, text))
    assert {title: {who(row) for row in rows} for title, rows in shown.items()} == TROUBLE
    assert sum(int(row["_value"]) for row in shown.pop("Renewals per day")) == 4
    for rows in shown.values():
        assert {row["table"] for row in rows} == {"0"}
    (dashboard,) = (one for one in yaml.safe_load_all(TEMPLATE) if one["kind"] == "Dashboard")
    for cell, chart in zip(CHRONOGRAF["dashboard"]["cells"], dashboard["spec"]["charts"]):
        assert chart["queries"][0]["query"].rstrip() == cell["queries"][0]["query"]

    answers: dict[str, Rows] = {}
    for rule in RULES:
        numbers: dict[str, dict[str, float]] = {}
        for one in rule["data"][:-1]:
            text = on(bucket, one["model"]["query"])
            rows = answers[text] = answers.get(text) or influxdb.query(text)
            for row in rows:
                # One table, with text and exactly one number, and no time: otherwise Grafana sees no instances, or another one each time.
                assert set(row) - {"", "result"} == {
                    "table",
                    "value",
                    *(key for key in ("host", "lineage", "target") if key in row),
                }
                assert row["table"] == "0"
                numbers.setdefault(who(row), {})[one["refId"]] = float(row["value"])
        assert {name for name, found in numbers.items() if fires(rule, found)} == FIRING[
            rule["title"]
        ]
        assert (
            set(numbers) > FIRING[rule["title"]]
        )  # those that are well are there, too: else nothing would ever recover


# ---- The same in PromQL ----------------------------------------------------------------------------------------------
Table = dict[tuple[str, ...], dict[str, float]]


def seconds_of(text: str) -> float:
    """A span such as 12h."""
    return float(text[:-1]) * {"h": 3600, "d": DAY}[text[-1]]


def table_of(source: Prometheus, panel: dict[str, Any]) -> Table:
    """What a table shows, as Grafana puts it together: by its labels (and the moment, where it is asked over time) each column."""
    tidy: dict[str, Any] = next(
        (one["options"] for one in panel.get("transformations", ()) if one["id"] == "organize"), {}
    )
    table: Table = {}
    for target in panel["targets"]:
        text = target["expr"].replace("${measurement}", "certbot_renewal")
        column = tidy.get("renameByName", {}).get(f"Value #{target['refId']}", "value")
        if target["instant"]:
            found = [({**one["metric"]}, [one["value"]]) for one in source.query(text)]
        else:
            step = seconds_of(target["interval"])
            end = time.time() // step * step
            found = [
                (one["metric"], one["values"])
                for one in source.query_range(text, end - seconds_of(panel["timeFrom"]), end, step)
            ]
        for labels, samples in found:
            assert "__name__" not in labels
            for at, value in samples:
                key = tuple(
                    labels[key] for key in ("host", "lineage", "target", "domain") if key in labels
                )
                table.setdefault(key if target["instant"] else (*key, str(at)), {})[column] = float(
                    value
                )
    return table


def number(text: str) -> float:
    """What Flux says, as a number: a moment in milliseconds."""
    if text in ("true", "false"):
        return float(text == "true")
    if re.fullmatch(r"\d{4}-.*Z", text):
        return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1000.0
    return float(text)


NOT_TO_THE_SECOND = {"Names", "Dry runs"}  # a quarter of a day
ONLY_WHERE = {"days_left": "never", "expiry": "never"}  # of what a target never got there is none


def assert_same(title: str, table: Table, rows: Rows) -> None:
    """Whether a table in PromQL has the rows of Flux, and in each column the same."""
    of_flux = {
        tuple(row[key] for key in ("host", "lineage", "target", "domain") if key in row): row
        for row in rows
    }
    assert table.keys() == of_flux.keys(), title
    for key, row in table.items():
        slack = 0.251 if title in NOT_TO_THE_SECOND else 0.001  # days
        for column, value in row.items():
            there = number(of_flux[key][column])
            assert abs(value - there) <= slack * (DAY * 1000 if value > 1e9 else 1), (
                title,
                key,
                column,
                value,
                there,
            )
        gone = {column for column, where in ONLY_WHERE.items() if row.get(where)}
        columns = {column for one in table.values() for column in one}
        assert row.keys() == columns - gone, (title, key)


def test_every_panel_in_promql_shows_the_numbers_of_flux(
    server: Callable[[str], InfluxDB], victoria: Callable[[], VictoriaMetrics], tmp_path: Path
) -> None:
    influxdb, metrics, lines = server("influxd-1.12"), victoria(), points(int(time.time()))
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, *lines)
    for _ in range(2):  # VictoriaMetrics keeps what is reported again, beside the first
        metrics.store(*lines)
    copy_database(metrics, tmp_path)
    with start_prometheus(tmp_path) as prometheus:
        for panel, flux in zip(PROMETHEUS["panels"], GRAFANA["panels"]):
            title = panel["title"]
            rows = influxdb.query(on(bucket, interpolated(flux["targets"][0]["query"])))
            table = table_of(metrics, panel)
            again = table_of(prometheus, panel)
            assert again.keys() == table.keys() and table, title
            for key, row in table.items():
                for column, value in row.items():
                    assert abs(again[key][column] - value) <= (5000 if value > 1e9 else 0.001), (
                        title,
                        key,
                        column,
                    )
            if title == "Renewals per day":
                days = Counter(
                    (row["host"], int(number(row["_time"]) / 1000 - 1) // DAY * DAY)
                    for row in rows
                    for _ in range(int(row["_value"]))
                )
                assert {(host, int(at)): row["value"] for (host, at), row in table.items()} == days
            elif title == "Failed runs":
                halves = {
                    (row["host"], number(row["time"]) // 43_200_000 * 43_200): len(
                        row["failed"].split()
                    )
                    for row in rows
                }
                assert {
                    (host, float(at)): row["failed_count"] for (host, at), row in table.items()
                } == halves
            else:
                assert_same(title, table, rows)


def test_silent_hosts_in_promql_are_those_of_flux_while_most_are_away(
    server: Callable[[str], InfluxDB], victoria: Callable[[], VictoriaMetrics]
) -> None:
    influxdb, metrics, now = server("influxd-1.12"), victoria(), int(time.time())
    bucket, then = influxdb.new_bucket(), now - 3 * DAY
    panel, flux = (
        next(one for one in of["panels"] if one["title"] == "Silent hosts")
        for of in (PROMETHEUS, GRAFANA)
    )
    everybody, some, most = (
        {f"web{n}": then + n for n in range(5)},
        ("web3", "web4"),
        ("web2", "web3", "web4"),
    )
    steps = [dict.fromkeys(who, at) for who in (some, most) for at in (now - 60, now - DAY - 900)]
    for hosts, deaf in zip([everybody, *steps], (1, 1, 1, 1, 0)):
        lines = [
            line
            for host, at in hosts.items()
            for line in (state("a", now + DAY, host=host, run_at=at, at=at), run_point(host, at))
        ]
        write(influxdb, bucket, *lines)
        metrics.store(*lines)
        table, rows = (
            table_of(metrics, panel),
            influxdb.query(on(bucket, interpolated(flux["targets"][0]["query"]))),
        )
        assert_same("Silent hosts", table, rows)
        assert ("(most hosts)",) in table or len(table) == 2
        assert table["web0",]["deaf"] == deaf


def test_grafana_can_read_its_dashboard_for_prometheus() -> None:
    assert [one["name"] for one in PROMETHEUS["templating"]["list"]] == [
        "datasource",
        "measurement",
    ]
    assert PROMETHEUS["uid"] != GRAFANA["uid"] and set(PROMETHEUS) == set(GRAFANA)
    for panel, other in zip(PROMETHEUS["panels"], GRAFANA["panels"]):
        assert [panel[key] for key in ("id", "type", "title", "gridPos")] == [
            other[key] for key in ("id", "type", "title", "gridPos")
        ]
        assert panel["description"].startswith(
            other["description"].partition(" Looks as far back")[0]
        )
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert [target["refId"] for target in panel["targets"]] == list("ABCDE")[
            : len(panel["targets"])
        ]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert (
                set(re.findall(r"\$\{?(\w+)", target["expr"])) == {"measurement"}
                and "[[" not in target["expr"]
            )
            assert target["instant"] != target["range"] and (target["instant"] or panel["timeFrom"])
        if panel["type"] == "table":
            merge, tidy, sort = panel["transformations"]
            shown = {*tidy["options"]["renameByName"].values()}
            assert (
                len(shown) == len(panel["targets"]) > 1
            )  # of one alone Grafana calls the column otherwise
            assert (merge["id"], tidy["id"], sort["id"]) == ("merge", "organize", "sortBy")
            assert {one["field"] for one in sort["options"]["sort"]} <= {*shown, "host", "Time"}
            assert {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]} <= {
                *shown,
                "days_left",
            }
            assert tidy["options"]["excludeByName"] == (
                {"Time": True} if panel["targets"][0]["instant"] else {}
            )


def documented(name: str, text: str, folder: Path, *arguments: str) -> bytes:
    """What the manual's one line of Python makes of a file."""
    (line,) = (one for one in re.findall(r"(?m)^python3 -c '(.*)'", DOCS) if f'"{name}"' in one)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, "-c", line, *arguments], cwd=folder, capture_output=True, check=True
    ).stdout


def test_the_manual_s_commands_do_what_it_says(tmp_path: Path) -> None:
    for name, body in (
        ("chronograf.json", CHRONOGRAF["dashboard"]),
        ("grafana.json", {"dashboard": GRAFANA, "overwrite": True}),
    ):
        assert (
            json.loads(documented(f"dashboards/{name}", (FOLDER / name).read_text(), tmp_path))
            == body
        )
    (command,) = re.findall(r"(?m)^sed .*$", DOCS)
    shutil.copytree(FOLDER, tmp_path / "dashboards", dirs_exist_ok=True)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    for path in FOLDER.iterdir():
        before, after = path.read_text(), (tmp_path / "dashboards" / path.name).read_text()
        assert re.findall(r'(?m)bucket = \\?"(.*?)\\?["]', after) == [
            name.replace("telegraf", "certs")
            for name in re.findall(r'(?m)bucket = \\?"(.*?)\\?["]', before)
        ]
        assert (before != after) == (path.name not in ("grafana.json", "grafana-prometheus.json"))


# ---- Chronograf and Grafana: what their sources say of such a file ---------------------------------------------------
def assert_no_overlap(places: list[tuple[int, int, int, int]], columns: int) -> None:
    """No two panels lie on each other, and none is beyond the edge."""
    taken = [
        (x + i, y + j)
        for x, y, width, height in places
        for i in range(width)
        for j in range(height)
    ]
    assert len(taken) == len(set(taken))
    assert all(x < columns for x, _ in taken)


def test_chronograf_can_read_its_file() -> None:
    """As server/dashboards.go and server/cells.go of Chronograf 1.10 check it, and its interface imports it."""
    assert set(CHRONOGRAF) == {"meta", "dashboard"}
    cells = CHRONOGRAF["dashboard"]["cells"]
    for cell in cells:
        assert [(one["type"], one["source"]) for one in cell["queries"]] == [
            ("flux", "")
        ]  # "": Dynamic Source
        assert set(cell["axes"]) <= {"x", "y", "y2"}
        assert all(
            axis["base"] in ("10", "2") and axis["scale"] in ("linear", "log")
            for axis in cell["axes"].values()
        )
        assert all(
            len(color["hex"]) == 7 and isinstance(color["value"], str) for color in cell["colors"]
        )
        assert all(
            color["type"] in ("min", "max", "threshold", "text", "background", "scale")
            for color in cell["colors"]
        )
        assert cell["noteVisibility"] in ("default", "showWhenNoData")
        assert cell["type"] in ("table", "bar")
    assert len({cell["i"] for cell in cells}) == len(cells)
    assert_no_overlap([(cell["x"], cell["y"], cell["w"], cell["h"]) for cell in cells], 12)


def test_grafana_can_read_its_dashboard() -> None:
    panels, names = GRAFANA["panels"], [one["name"] for one in GRAFANA["templating"]["list"]]
    assert (
        GRAFANA["schemaVersion"] >= 39
        and "id" not in GRAFANA
        and names == ["datasource", "bucket", "measurement"]
    )
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert_no_overlap([tuple(panel["gridPos"][side] for side in "xywh") for panel in panels], 24)
    for panel in panels:
        assert panel["type"] in ("table", "timeseries") and panel["title"] and panel["description"]
        assert panel["datasource"] == {"type": "influxdb", "uid": "${datasource}"}
        (target,) = panel["targets"]
        assert target["refId"] == "A" and target["datasource"] == panel["datasource"]
        assert (
            set(re.findall(r"\$\{?(\w+)", target["query"])) == {"bucket", "measurement"}
            and "[[" not in target["query"]
        )


def test_grafana_can_read_its_alerts() -> None:
    """As pkg/services/provisioning/alerting/rules_types.go and pkg/services/ngalert check it."""
    text = (FOLDER / "grafana-alerts.yaml").read_text()
    assert text.count("influxdb\n") == 1  # the data source is named in one place
    assert (
        len({rule["uid"] for rule in RULES})
        == len({rule["title"] for rule in RULES})
        == len(RULES)
        == 7
    )
    keys = {
        "uid",
        "title",
        "condition",
        "data",
        "noDataState",
        "execErrState",
        "for",
        "annotations",
        "labels",
    }
    keys.add("missing_series_evals_to_resolve")  # Grafana 12.2; older ones ignore it
    for rule in RULES:
        assert set(rule) == keys and len(rule["uid"]) <= 40 and re.fullmatch(r"\w+", rule["uid"])
        assert (rule["for"], rule["noDataState"], rule["execErrState"]) == (
            "0s",
            "KeepLast",
            "Error",
        )
        assert rule["labels"]["severity"] in ("warning", "critical")
        *queries, condition = rule["data"]
        assert condition["refId"] == rule["condition"] and condition["datasourceUid"] == "__expr__"
        numbers = {one["refId"] for one in queries}
        expression = condition["model"]["expression"]
        assert numbers >= set(re.findall(r"\b[A-Z]\b", expression)) and "A" in expression
        for one in queries:
            assert one["model"]["refId"] == one["refId"] and one["datasourceUid"] == "influxdb"
            assert one["relativeTimeRange"]["from"] > one["relativeTimeRange"]["to"] == 0
        said = rule["annotations"]["summary"] + rule["annotations"]["description"]
        assert "$" not in said  # Grafana takes it for a variable of the environment
        assert set(re.findall(r"\.Values\.(\w)", said)) <= {*numbers, "C"}
        assert set(re.findall(r"\.Labels\.(\w+)", said)) == set(
            re.findall(r"(\w+): r\.\1, ", queries[0]["model"]["query"].splitlines()[-2])
        )
        assert said.count("{{ if") == said.count("{{ end }}")


# ---- InfluxDB 2 ------------------------------------------------------------------------------------------------------
class Webhook:
    """What a notification rule posts to: keeps it, and answers as it is told to."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200

    def messages(self) -> list[str]:
        """What arrived since it was last asked."""
        got, self.got = self.got, []
        return sorted(f"{one.get('_level')}: {one.get('_message')}" for one in got)


@contextlib.contextmanager
def webhook(report_hook: Webhook) -> Iterator[str]:
    """Starts it on loopback; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            report_hook.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(report_hook.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/certificates"
        server.shutdown()


class Alerting:
    """InfluxDB 2 with the template, whose tasks run as of any moment."""

    def __init__(self, influxdb: InfluxDB) -> None:
        self.influxdb = influxdb
        self.org = self.get("orgs")["orgs"][0]["id"]

    def get(self, path: str, **parameters: str) -> Any:
        """What the API says."""
        return requests.get(
            f"{self.influxdb.url}/api/v2/{path}",
            params=parameters,
            headers=self.influxdb.headers,
            timeout=30,
        ).json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Asks the API for something."""
        answer = requests.post(
            f"{self.influxdb.url}/api/v2/{path}",
            json=body,
            headers=self.influxdb.headers,
            timeout=60,
        )
        assert answer.status_code < 300, answer.text
        return answer.json()

    def apply(self, template: str, folder: Path, **more: Any) -> str:
        """Applies a template with the command of the manual; its stack."""
        body = json.loads(documented("dashboards/influxdb2.yml", template, folder, self.org))
        answer = self.post("templates/apply", {**body, **more})
        assert not answer.get("errors")
        return str(answer["stackID"])

    def tasks(self) -> dict[str, str]:
        """The tasks by name, the rules' too."""
        rules = {
            one["name"]: one["taskID"]
            for one in self.get("notificationRules", orgID=self.org)["notificationRules"]
        }
        return {**{one["name"]: one["id"] for one in self.get("tasks")["tasks"]}, **rules}

    def run(self, at: int, *names: str) -> None:
        """Runs tasks as of a moment, and waits until they have ended well."""
        tasks = self.tasks()
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        runs = [
            f"tasks/{tasks[name]}/runs/{self.post(f'tasks/{tasks[name]}/runs', {'scheduledFor': moment})['id']}"
            for name in names
        ]
        for run in runs:
            ended = wait_for(
                lambda: (one := self.get(run)) and one["status"] in ("success", "failed") and one,
                "the run of a task",
            )  # noqa: B023
            assert ended["status"] == "success", ended

    def look(self, at: int, *names: str) -> None:
        """Alerts look at a quarter of an hour, and the rule five minutes later."""
        self.run(at, *(names or [alert.name for alert in ALERTS]))
        self.run(at + 5 * MINUTE, "certbot renewals")


def offered(number: int) -> str:
    """A resource from the comment on top of the template: the bucket, an endpoint for Slack, one for PagerDuty."""
    return re.sub(r"(?m)^#   ", "", re.findall(r"(?m)(?:^#   .*\n)+", TEMPLATE)[number])


def variant(template: str, endpoint: str) -> str:
    """The template with another endpoint."""
    edited = re.sub(
        r"(?s)apiVersion: \S+\nkind: NotificationEndpointHTTP\n.*?(?=---\n)",
        lambda _: endpoint,
        template,
    )
    return edited.replace(
        "  endpointName:", '  messageTemplate: "${ r._message }"\n  endpointName:'
    )


def test_influxdb_2_tells_each_incident_once_and_its_recovery_once(tmp_path: Path) -> None:
    require_program("influxd-2")
    hook, port = Webhook(), free_port()
    start = int(time.time()) // (15 * MINUTE) * 15 * MINUTE - 8 * 15 * MINUTE
    with webhook(hook) as url, contextlib.ExitStack() as stack:
        influxdb = stack.enter_context(start_influxdb("influxd-2", tmp_path, port))
        house, bucket = Alerting(influxdb), influxdb.new_bucket()
        template = on(bucket, TEMPLATE).replace("http://127.0.0.1:9999/certificates", url)
        applied = house.apply(template, tmp_path)
        assert {one["every"] for one in house.get("tasks")["tasks"]} == {"15m0s"}
        assert (
            house.get("notificationRules", orgID=house.org)["notificationRules"][0]["every"]
            == "5m0s"
        )

        begin, old = start - 2 * DAY, start - 88 * DAY
        due = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(begin))
        write(
            influxdb,
            bucket,
            *(state("late", begin, host=host, at=start - 60) for host in ("web1", "web2")),
            state("ending", begin, at=start - 60),
            state("fine", start + DAY, at=start - 60),
            state("a", start + DAY, host="web9", run_at=start - 3 * DAY, at=start - 3 * DAY),
            run_point("web1", start - 60, failed="late other", exit_status=1),
            state("delivered", begin + 60 * DAY, host="web1", at=start - 60),
            delivery("haproxy", begin - 60 * DAY, begin, "delivered", at=start - 60),
            delivery("vault", old, begin, "delivered", at=start - 60),
            served("served", begin, 0, "served.example.com", start + DAY, at=start - 60),
        )
        house.look(start)
        late = ("late on web1", "late on web2", "ending on web1")
        days = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(start - 3 * DAY))
        expiry = [
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
            for at in (begin + 30 * DAY, old + 90 * DAY, start + DAY)
        ]
        assert hook.messages() == sorted(
            [
                *(f"crit: {name}: not renewed, due since {due}, 28.0 days left" for name in late),
                "warn: web1: certbot fails, not renewed: late other, exit status 1",
                f"crit: web9: no report of certbot for 3.0 days, last {days} of a",
                f"warn: delivered on web1: not delivered to haproxy, renewed {due}, what it has expires {expiry[0]}",
                f"crit: delivered on web1: urgent, not delivered to vault, renewed {due}, what it has expires {expiry[1]}",
                f"crit: served on web1: urgent, renewed {due}, but another one is served for served.example.com, which expires {expiry[2]}",
            ]
        )
        # InfluxDB starts anew; and most hosts are not heard, so that one that is silent is neither told of nor well again.
        stack.close()
        house.influxdb = influxdb = stack.enter_context(start_influxdb("influxd-2", tmp_path, port))
        at = start + 6 * MINUTE
        write(influxdb, bucket, state("a", at + DAY, host="web8", run_at=at - 3 * DAY, at=at))
        write(
            influxdb,
            bucket,
            *(
                state("a", at + DAY, host=host, run_at=at, at=at)
                for host in ("web5", "web6", "web7")
            ),
        )
        house.look(start + 15 * MINUTE)
        assert hook.messages() == []

        # Nobody hears of the next one at first.
        hook.status = 503
        write(influxdb, bucket, state("next", begin, at=start + 21 * MINUTE))
        house.look(start + 30 * MINUTE, "renewal_overdue")
        assert hook.messages() == [
            f"crit: next on web1: not renewed, due since {due}, 28.0 days left"
        ]
        hook.status = 204  # many a webhook says so, and InfluxDB takes it for a failure
        house.look(start + 45 * MINUTE, "renewal_overdue")
        assert hook.messages() == [
            f"crit: next on web1: not renewed, due since {due}, 28.0 days left"
        ]
        house.look(start + 60 * MINUTE, "renewal_overdue")
        assert hook.messages() == []

        at = start + 66 * MINUTE
        new = at + 60 * DAY
        write(
            influxdb,
            bucket,
            *(state("late", new, host=host, at=at) for host in ("web1", "web2")),
            state("next", new, at=at),
            state("ending", 0, at=at),
            state("a", at + DAY, host="web9", run_at=at, at=at),
            run_point("web1", at, exit_status=0),
            delivery("haproxy", begin, begin, "delivered", at=at),
            delivery("vault", 0, 0, "delivered", at=at),
            served("served", begin, 1, "none", at=at),
        )
        hook.status = 200
        house.look(start + 75 * MINUTE)
        due = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(new))
        assert hook.messages() == sorted(
            [
                *(
                    f"ok: {name}: renewed, next due {due}"
                    for name in ("late on web1", "late on web2", "next on web1")
                ),
                "ok: ending on web1: no longer on this host",
                "ok: web1: certbot runs well again",
                "ok: web9: reports again",
                "ok: delivered on web1: delivered to haproxy",
                "ok: delivered on web1: no longer for vault",
                "ok: served on web1: the renewed certificate is served",
            ]
        )
        house.look(start + 90 * MINUTE)
        assert hook.messages() == []

        # Applied again, with another endpoint in the place of the first, as the head of the file says.
        slack, pagerduty = (variant(template, offered(number)) for number in (1, 2))
        house.apply(
            slack.replace("https://hooks.slack.com/services/fake/fake/fake", url),
            tmp_path,
            stackID=applied,
        )
        assert [one["name"] for one in house.get("dashboards")["dashboards"]] == [
            "certbot renewals"
        ]
        assert [
            len(house.get("notificationRules", orgID=house.org)["notificationRules"]),
            len(house.get("tasks")["tasks"]),
        ] == [1, 5]
        write(influxdb, bucket, state("slack", begin, at=start + 96 * MINUTE))
        house.look(start + 105 * MINUTE, "renewal_overdue")
        assert [one["attachments"][0]["text"].split(",")[0] for one in hook.got] == [
            "slack on web1: not renewed"
        ]
        without = "---".join(
            one
            for one in pagerduty.split("---")
            if "kind: Task" not in one and "kind: Dashboard" not in one
        )
        house.apply(f"{without}---\n{offered(0)}", tmp_path)
        assert [one["name"] for one in house.get("buckets", name="telegraf")["buckets"]] == [
            "telegraf"
        ]

        # _monitoring, which knows what was told, keeps it for a week, or for as long as one says.
        (monitoring,) = house.get("buckets", name="_monitoring")["buckets"]
        assert monitoring["retentionRules"][0]["everySeconds"] == 7 * DAY
        forever = {"retentionRules": [{"type": "expire", "everySeconds": 0}]}
        path = f"{influxdb.url}/api/v2/buckets/{monitoring['id']}"
        assert (
            requests.patch(path, json=forever, headers=influxdb.headers, timeout=30).json()[
                "retentionRules"
            ][0]["everySeconds"]
            == 0
        )
