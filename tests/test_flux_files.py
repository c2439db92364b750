"""All files of flux/ together, and the scripts for Kapacitor that are made from them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from certbot_renewal_report import FieldValue
from support.points import make_point, write
from support.queries import QUERIES, run_query
from support.servers import require_program
from tools.generate import templates
from tools.servers.influxdb import InfluxDB
from tools.servers.processes import built_program

EACH_QUERY = pytest.mark.parametrize("path", QUERIES, ids=[path.stem for path in QUERIES])

# Tags and fields of points that no program of this project writes.
CERTIFICATE_TAGS = {"domain": "all", "host": "web1", "lineage": "half"}
FOREIGN_POINTS: dict[str, tuple[dict[str, str], dict[str, FieldValue]]] = {
    "state with an expiry alone": (CERTIFICATE_TAGS, {"not_after": 5}),
    "state without an expiry": (CERTIFICATE_TAGS, {"renewal_due": 5, "run_at": 0}),
    "state with a delivery": (CERTIFICATE_TAGS, {"deployed": 5, "served": 1}),
    "no lineage": ({"domain": "all", "host": "web1"}, {"renewal_due": 5, "run_at": 0}),
    "no host": ({"domain": "all"}, {"certificates": 3}),
}


@EACH_QUERY
def test_an_empty_bucket_gives_no_rows_and_no_error(influxdb: InfluxDB, path: Path) -> None:
    assert run_query(influxdb, path.stem, influxdb.new_bucket()) == []


@pytest.mark.parametrize("kind", FOREIGN_POINTS)
def test_points_of_other_programs_in_the_measurement_give_no_rows(
    influxdb: InfluxDB, kind: str
) -> None:
    bucket = influxdb.new_bucket()
    tags, fields = FOREIGN_POINTS[kind]
    write(influxdb, bucket, make_point(tags, fields, int(time.time())))

    for path in QUERIES:
        assert run_query(influxdb, path.stem, bucket) == [], path.stem


@EACH_QUERY
def test_each_query_is_formatted(path: Path) -> None:
    require_program("flux")
    process = subprocess.run(
        [built_program("flux"), "fmt", str(path)], capture_output=True, text=True, timeout=60
    )
    assert process.stdout.rstrip() == path.read_text().rstrip(), "run: flux fmt -w flux/*.flux"


def test_each_script_for_kapacitor_runs_the_query_of_the_same_name() -> None:
    scripts = sorted(templates.TEMPLATES.glob("*.tick"))
    assert len(scripts) == 8
    for script in scripts:
        text = script.read_text()
        assert text == templates.with_query(script), "run: python3 -m tools.generate.templates"
        assert "from(bucket: bucket)" in text
