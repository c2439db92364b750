"""What arrives in a real InfluxDB when the hook runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from conftest import DAY, make_lineage, run_hook
from start_servers import InfluxDB


def test_a_renewal_arrives_as_points_and_state(influxdb: InfluxDB, certbot_folder: Path) -> None:
    bucket, begin = influxdb.new_bucket(), int(time.time()) - DAY
    live = make_lineage(certbot_folder, "example.com", ["example.com", "www.example.com", "::1"], begin, 90 * DAY)
    before = int(time.time())
    done = run_hook(
        certbot_folder, RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="example.com www.example.com ::1", **influxdb.settings(bucket)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    points = influxdb.points(bucket)
    assert {p for p in points if p[1] == "renewed_count"} == {
        (str(begin), "renewed_count", "3", "domain=all", "host=web1", "lineage=example.com"),
        (str(begin), "renewed_count", "1", "domain=example.com", "host=web1"),
        (str(begin), "renewed_count", "1", "domain=www.example.com", "host=web1"),
        (str(begin), "renewed_count", "1", "domain=::1", "host=web1"),
    }
    state = {p[1]: p[2] for p in points if p[1] != "renewed_count"}
    assert state == {"not_before": str(begin), "renewal_due": str(begin + 60 * DAY), "not_after": str(begin + 90 * DAY), "run_at": "0"}
    assert {p[3:] for p in points if p[1] != "renewed_count"} == {("domain=all", "host=web1", "lineage=example.com")}
    assert all(before <= int(p[0]) <= time.time() for p in points if p[1] != "renewed_count")


def test_a_retried_report_overwrites_the_same_points(influxdb: InfluxDB, certbot_folder: Path) -> None:
    bucket, begin = influxdb.new_bucket(), int(time.time()) - DAY
    live = make_lineage(certbot_folder, "example.com", ["example.com"], begin, 90 * DAY)
    for _ in range(3):
        assert (
            run_hook(certbot_folder, RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="example.com", **influxdb.settings(bucket)).returncode == 0
        )
    assert len({p for p in influxdb.points(bucket) if p[1] == "renewed_count"}) == 2


@pytest.mark.parametrize("environ", [{}, {"RENEWED_DOMAINS": "  "}])
def test_started_by_hand_it_says_what_to_do(certbot_folder: Path, environ: dict[str, str]) -> None:
    done = run_hook(certbot_folder, **environ)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "--check" in done.stderr and "Traceback" not in done.stderr
