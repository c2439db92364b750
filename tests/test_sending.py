"""What arrives in a real InfluxDB, and what the hook says when that InfluxDB refuses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.hooks import TEXT, Ran, start_report_hook
from support.proxies import start_proxy
from support.renewals import NAMES, Renewal, renew, renewal_points, stored_renewals
from support.servers import require_program
from tools.servers.influxdb import ORG, InfluxDB, start_influxdb
from tools.servers.lineages import DAY

Hook = Callable[..., Ran]

TAGS_OF_CERTIFICATE = ("domain=all", "host=web1", "lineage=example.com")
STATE_FIELDS = {"not_before", "renewal_due", "not_after", "run_at", "failure", "staging"}


def write(influxdb: InfluxDB, bucket: str, line: str) -> None:
    """Write a line, its time in seconds."""
    requests.post(
        f"{influxdb.url}/api/v2/write",
        params={"bucket": bucket, "org": ORG, "precision": "s"},
        data=line,
        headers=influxdb.headers,
        timeout=30,
    ).raise_for_status()


# ---- What arrives ------------------------------------------------------------------------------
def test_a_renewal_arrives_at_the_time_of_its_certificate(
    influxdb: InfluxDB, certbot_folder: Path, renewal: Renewal
) -> None:
    bucket = influxdb.new_bucket()
    done = start_report_hook(certbot_folder, **renewal.environ, **influxdb.settings(bucket))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    moment = str(renewal.not_before)
    points = {point for point in influxdb.points(bucket) if point[1] not in STATE_FIELDS}
    assert points == {
        *renewal.points(),
        (moment, "lifetime", str(90 * DAY), *TAGS_OF_CERTIFICATE),
        (moment, "due_after", str(60 * DAY), *TAGS_OF_CERTIFICATE),
        (moment, "names", " ".join(NAMES), *TAGS_OF_CERTIFICATE),
    }


def test_the_state_of_a_certificate_arrives_at_the_time_of_the_report(
    influxdb: InfluxDB, certbot_folder: Path, renewal: Renewal
) -> None:
    bucket = influxdb.new_bucket()
    before = int(time.time())
    done = start_report_hook(certbot_folder, **renewal.environ, **influxdb.settings(bucket))
    assert done.returncode == 0
    state = {point for point in influxdb.points(bucket) if point[1] in STATE_FIELDS}
    assert {point[1:] for point in state} == {
        ("not_before", str(renewal.not_before), *TAGS_OF_CERTIFICATE),
        ("renewal_due", str(renewal.not_before + 60 * DAY), *TAGS_OF_CERTIFICATE),
        ("not_after", str(renewal.not_before + 90 * DAY), *TAGS_OF_CERTIFICATE),
        ("run_at", "0", *TAGS_OF_CERTIFICATE),
        ("failure", "none", *TAGS_OF_CERTIFICATE),
        ("staging", "0", *TAGS_OF_CERTIFICATE),
    }
    assert all(before <= int(point[0]) <= time.time() for point in state)


def test_a_repeated_report_overwrites_the_same_points(
    influxdb: InfluxDB, report_hook: Hook, renewal: Renewal
) -> None:
    bucket = influxdb.new_bucket()
    for _ in range(3):
        assert report_hook(**renewal.environ, **influxdb.settings(bucket)).status == 0
    assert stored_renewals(influxdb, bucket) == renewal.points()


def test_many_names_are_one_request(
    influxdb: InfluxDB, report_hook: Hook, certbot_folder: Path
) -> None:
    bucket = influxdb.new_bucket()
    many = renew(certbot_folder, "many", [f"{number}.example.com" for number in range(1000)])
    with start_proxy(influxdb.url) as proxy:
        environ = {**influxdb.settings(bucket), "INFLUXDB_URL": proxy.url}
        assert report_hook(**many.environ, **environ).status == 0
        assert proxy.paths == ["/api/v2/write"]
    assert stored_renewals(influxdb, bucket) == many.points()


# Text for a setting: what stands around it is removed, and a backslash at its end is replaced.
SETTING_TEXT = TEXT.map(str.strip).filter(lambda text: text != "" and not text.endswith("\\"))
MEASUREMENT_TEXT = SETTING_TEXT.filter(lambda text: text[0] not in "#_")
NAME_TEXT = TEXT.map(lambda text: "".join(text.split())).filter(
    lambda text: text != "" and not text.endswith("\\")
)


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12", "influxd-2"])
def test_whatever_text_is_reported_is_stored_unchanged(
    server: Callable[[str], InfluxDB], report_hook: Hook, name: str
) -> None:
    influxdb = server(name)

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        host=SETTING_TEXT,
        measurement=MEASUREMENT_TEXT,
        names=st.lists(NAME_TEXT, min_size=1, max_size=3, unique=True),
    )
    @example(
        host='a b,c=d"e\\f',
        measurement="x y,z=1",
        names=["*.example.com", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1"],
    )
    def is_stored_unchanged(host: str, measurement: str, names: list[str]) -> None:
        bucket = influxdb.new_bucket()
        ran = report_hook(
            HOSTNAME=host,
            MEASUREMENT=measurement,
            RENEWED_LINEAGE="/nowhere/live/a,b =c",
            RENEWED_DOMAINS=" ".join(names),
            **influxdb.settings(bucket),
        )
        assert "the renewal is reported with the current time" in ran.err, ran.err
        tags = ("domain=all", f"host={host}", "lineage=a,b =c")
        renewal = renewal_points("a,b =c", names, 0, host)
        assert {point[1:] for point in influxdb.points(bucket)} == {
            *(point[1:] for point in renewal),
            ("lifetime", "0", *tags),  # not known: the certificate could not be read
            ("due_after", "0", *tags),
            ("names", " ".join(names), *tags),
        }
        if influxdb.major == 2:
            assert measurements(influxdb, bucket) == [measurement]

    is_stored_unchanged()


def measurements(influxdb: InfluxDB, bucket: str) -> list[str]:
    """Return the measurements in a bucket."""
    rows = influxdb.query(
        f'import "influxdata/influxdb/schema" schema.measurements(bucket: "{bucket}")'
    )
    return [row["_value"] for row in rows]


# ---- What a server refuses ---------------------------------------------------------------------
def test_a_bucket_that_does_not_exist(
    influxdb: InfluxDB, report_hook: Hook, renewal: Renewal
) -> None:
    ran = report_hook(**renewal.environ, **influxdb.settings("nowhere"))
    assert ran.status == 1
    assert "answered 404 " in ran.err
    assert 'create "nowhere", correct INFLUXDB_BUCKET' in ran.err


def test_a_measurement_that_holds_other_types(
    influxdb: InfluxDB, report_hook: Hook, renewal: Renewal
) -> None:
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, f'certbot_renewal renewed_count="three" {renewal.not_before}')
    ran = report_hook(**renewal.environ, **influxdb.settings(bucket))
    assert ran.status == 1
    assert "conflict" in ran.err
    assert "set MEASUREMENT to another name" in ran.err


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
@pytest.mark.parametrize("limit", ["max-values-per-tag", "max-series-per-database"])
def test_more_names_than_influxdb_1_x_takes(
    tmp_path: Path, report_hook: Hook, renewal: Renewal, name: str, limit: str
) -> None:
    require_program(name)
    with start_influxdb(name, tmp_path / name, storage={limit: 1}) as influxdb:
        bucket = influxdb.new_bucket()
        tags = "domain=all,host=other,lineage=other"
        # InfluxDB counts what was there before.
        write(influxdb, bucket, f"certbot_renewal,{tags} renewed_count=1 {int(time.time())}")
        ran = report_hook(**renewal.environ, **influxdb.settings(bucket))
    assert ran.status == 1
    assert limit in ran.err
    assert "check the log of the server" in ran.err


# ---- Retention ---------------------------------------------------------------------------------
def test_a_certificate_older_than_the_bucket_keeps_is_no_failure(
    influxdb: InfluxDB, report_hook: Hook, certbot_folder: Path
) -> None:
    bucket = influxdb.new_bucket(retention="86400")
    old = renew(certbot_folder, age=10 * DAY)
    ran = report_hook(**old.environ, **influxdb.settings(bucket))
    assert (ran.status, ran.err) == (0, "")
    assert "renewals older than the retention of the bucket were not stored" in ran.out
    assert {point[1] for point in influxdb.points(bucket)} == STATE_FIELDS


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
def test_a_report_is_written_to_a_retention_policy(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewal: Renewal,
    name: str,
    version: str,
) -> None:
    influxdb = server(name)
    bucket = influxdb.new_bucket()
    influxdb.command(f'CREATE RETENTION POLICY "years" ON "{bucket}" DURATION 700d REPLICATION 1')
    environ = {**influxdb.settings(f"{bucket}/years"), "INFLUXDB_VERSION": version}
    assert report_hook(**renewal.environ, **environ).status == 0
    assert stored_renewals(influxdb, f"{bucket}/years") == renewal.points()
    assert stored_renewals(influxdb, bucket) == set()


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
def test_version_1_writes_to_the_default_retention_policy(
    server: Callable[[str], InfluxDB], report_hook: Hook, renewal: Renewal, name: str
) -> None:
    influxdb = server(name)
    bucket = influxdb.new_bucket()
    environ = {**influxdb.settings(bucket), "INFLUXDB_VERSION": "1"}
    assert report_hook(**renewal.environ, **environ).status == 0
    assert stored_renewals(influxdb, bucket) == renewal.points()


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
def test_a_retention_policy_that_does_not_exist(
    server: Callable[[str], InfluxDB], report_hook: Hook, renewal: Renewal, name: str
) -> None:
    influxdb = server(name)
    environ = influxdb.settings(f"{influxdb.new_bucket()}/nowhere")
    ran = report_hook(**renewal.environ, **environ, INFLUXDB_VERSION="1")
    assert ran.status == 1
    assert "retention policy not found" in ran.err
    assert "correct the part after the slash in INFLUXDB_BUCKET" in ran.err


def test_https_to_a_server_without_tls_has_its_own_remedy(
    influxdb: InfluxDB, report_hook: Hook, renewal: Renewal
) -> None:
    url = influxdb.url.replace("http://", "https://")
    ran = report_hook(**renewal.environ, INFLUXDB_URL=url)
    assert ran.status == 1
    assert "the server does not use TLS: set INFLUXDB_URL to http://, or enable TLS" in ran.err
