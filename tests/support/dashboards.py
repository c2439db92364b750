"""The files of dashboards/, and a fleet with each kind of trouble that they should show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from certbot_renewal_report import Point
from support.metrics import with_look
from support.points import (
    HOUR,
    certbot_run,
    certificate_state,
    dry_run_result,
    make_point,
    name_renewal,
    reported_state,
    retired_state,
    served_state,
    target_state,
    write,
)
from tools import ROOT
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY

FOLDER = ROOT / "dashboards"
Json = dict[str, Any]


# ---- Files -------------------------------------------------------------------------------------
CHRONOGRAF: Json = json.loads((FOLDER / "chronograf.json").read_text())
GRAFANA: Json = json.loads((FOLDER / "grafana.json").read_text())
GRAFANA_PROMETHEUS: Json = json.loads((FOLDER / "grafana-prometheus.json").read_text())
GRAFANA_ALERTS = (FOLDER / "grafana-alerts.yaml").read_text()
GRAFANA_RULES: list[Json] = yaml.safe_load(GRAFANA_ALERTS)["groups"][0]["rules"]
INFLUXDB2_TEMPLATE = (FOLDER / "influxdb2.yml").read_text()
MANUAL = "".join(
    (ROOT / "docs" / name).read_text() for name in ("influxdb2.md", "grafana.md", "kapacitor.md")
)

# Matches a variable of Grafana in a query: ${bucket} or $bucket or [[bucket]]
GRAFANA_VARIABLE = re.compile(
    r"""
    \$ \{ (?P<braces> \w+ ) \}
    | \$ (?P<plain> \w+ )
    | \[\[ (?P<brackets> \w+ ) \]\]
    """,
    re.VERBOSE,
)


def flux_by_title() -> dict[str, str]:
    """Return the query of each panel, as Chronograf has it."""
    cells = CHRONOGRAF["dashboard"]["cells"]
    return {cell["name"]: cell["queries"][0]["query"] for cell in cells}


def with_variables(query: str) -> str:
    """Return a query of Grafana's dashboard with the default values of its variables."""
    variables = GRAFANA["templating"]["list"]
    defaults = {variable["name"]: variable.get("query", "") for variable in variables}
    return GRAFANA_VARIABLE.sub(
        lambda match: str(defaults[match["braces"] or match["plain"] or match["brackets"]]), query
    )


def for_bucket(bucket: str, text: str) -> str:
    """Return a query or a file as an administrator sets it to a bucket."""
    assert 'bucket = "telegraf"\n' in text
    return text.replace('bucket = "telegraf"', f'bucket = "{bucket}"')


def run_documented_python(name: str, text: str, folder: Path, *arguments: str) -> Json:
    """Run the line of Python that the manual gives for a file, such as dashboards/grafana.json.

    The file is written to the folder before, with the text; the folder also stands for /root.
    Return the JSON that the line prints.
    """
    lines = re.findall(r"(?m)^python3 -c '(.*)'", MANUAL)
    (line,) = [line for line in lines if f'{name}"' in line]
    line = line.replace('"/root/', '"')
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    process = subprocess.run(
        [sys.executable, "-c", line, *arguments], cwd=folder, capture_output=True, check=True
    )
    printed: Json = json.loads(process.stdout)
    return printed


# ---- Rows --------------------------------------------------------------------------------------
LABELS = ("host", "step", "lineage", "target", "domain")


def row_key(row: dict[str, str]) -> tuple[str, ...]:
    """Return what a row is about: its values of LABELS, as far as it has them."""
    return tuple(row[label] for label in LABELS if label in row)


def row_name(row: dict[str, str]) -> str:
    """Return what a row is about as text, such as web1/example.com."""
    return "/".join(row_key(row))


# ---- The fleet ---------------------------------------------------------------------------------
def states(now: int) -> list[Point]:
    """Return the states of certificates, some of them overdue."""
    return [
        certificate_state("fine", now + 35 * DAY),
        certificate_state("late", now - 2 * DAY, failure="no TXT record"),
        certificate_state("later", now - 30 * HOUR),
        certificate_state("tolerable", now - 20 * HOUR),
        certificate_state("brief", now - 5 * HOUR, lifetime=DAY),  # expires in 3 hours
        retired_state("ended"),
        reported_state("a", now + DAY, now - 3 * DAY, host="web2"),
        reported_state("b", now - HOUR, now - DAY - 60, host="web3"),
        reported_state("b", now - HOUR, now - 60, host="web3"),
    ]


def runs(now: int) -> list[Point]:
    """Return runs of certbot, of which the last on web3 failed. web2 is silent."""
    return [
        certbot_run("web2", now - 3 * DAY),
        certbot_run("web3", now - DAY - 60, exit_status=0),
        certbot_run(
            "web3",
            now - 60,
            failed="b c",
            exit_status=1,
            step=2,
            failures="b: refused | c: refused",
        ),
        certbot_run("web4", now - 60, exit_status=0),
        certbot_run("web1", now - DAY - 60, exit_status=0),
        certbot_run("web1", now, exit_status=0),
    ]


def deliveries(now: int) -> list[Point]:
    """Return deliveries of a certificate that was renewed two days ago, three of them missing."""
    renewed = now - 2 * DAY
    deployed = {
        "haproxy": renewed,
        "vault": now - 88 * DAY,  # expires in two days
        "mail": 0,  # never got a certificate
        "web": renewed - 60 * DAY,
    }
    points = [certificate_state("delivered", renewed + 60 * DAY)]
    for target, not_before in deployed.items():
        points.append(
            target_state(target, deployed=not_before, renewed=renewed, lineage="delivered")
        )
    return points


def looks(now: int) -> list[Point]:
    """Return what run reports saw of two certificates; one of them is not served."""
    renewed = now - 2 * DAY
    served_before = served_state("served", renewed, 1, not_served="none", at=now - DAY - 60)
    served_now = served_state("served", renewed, 1, not_served="none", at=now)
    served_elsewhere = served_state(
        "elsewhere",
        renewed,
        0,
        not_served="elsewhere.example.com",
        served_expiry=now + 20 * DAY,
    )
    return [with_look(state) for state in (served_before, served_now, served_elsewhere)]


def renewals(now: int) -> list[Point]:
    """Return renewals of certificates and of names."""
    renewed_at = {
        "late": now - 3 * DAY,
        "delivered": now - 2 * DAY,
        "served": now - 2 * DAY,
        "elsewhere": now - 2 * DAY,
    }
    points = [
        name_renewal("late.example.com", now - 3 * DAY),
        name_renewal("old.example.com", now - 300 * DAY),
    ]
    for lineage, at in renewed_at.items():
        tags = {"domain": "all", "host": "web1", "lineage": lineage}
        points.append(make_point(tags, {"renewed_count": 1.0}, at))
    return points


def fleet_points(now: int) -> list[Point]:
    """Return the points of a fleet with a certificate in each kind of trouble, and one without."""
    return [
        *states(now),
        *runs(now),
        *deliveries(now),
        *looks(now),
        *renewals(now),
        dry_run_result("fine", "none", at=now - DAY),
        dry_run_result("late", "no", at=now - 3 * DAY),
        dry_run_result("b", "none", host="web3", at=now - DAY),
    ]


def write_fleet(influxdb: InfluxDB) -> str:
    """Write the points of the fleet into a new bucket; return the bucket."""
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, *fleet_points(int(time.time())))
    return bucket


# What each panel shows of the fleet.
SHOWN_BY_PANEL = {
    "Overdue": {"web1/late", "web1/later", "web1/brief"},
    "Silent hosts": {"web2"},
    "Failing hosts": {"web3"},
    "Not delivered": {"web1/delivered/vault", "web1/delivered/mail", "web1/delivered/web"},
    "Not served": {"web1/elsewhere"},
    "Certificates": {
        "web1/fine",
        "web1/late",
        "web1/later",
        "web1/tolerable",
        "web1/brief",
        "web1/delivered",
        "web1/served",
        "web1/elsewhere",
        "web2/a",
        "web3/b",
    },
    "Names": {"web1/late.example.com", "web1/old.example.com"},
    "Renewals per day": {"web1"},
    "Runs": {"web1", "web2", "web3", "web4"},
    "Dry runs": {"web1/fine", "web1/late", "web3/b"},
}
RENEWALS = 4
