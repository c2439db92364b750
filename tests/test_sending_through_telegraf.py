"""Telegraf between the hook and the database."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from support.hooks import Ran
from support.renewals import Renewal, renew, stored_renewals
from support.servers import require_program, skip_or_fail
from tools import ROOT
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, built_program, free_port, running, wait_for
from tools.servers.prometheus import Prometheus, start_prometheus
from tools.servers.telegraf import start_telegraf

Hook = Callable[..., Ran]

FIELDS_OF_A_REPORT = 8  # of a certificate 4, of its state 4; more with each name


@pytest.fixture(autouse=True)
def telegraf() -> None:
    """Need Telegraf."""
    require_program("telegraf")


def wait_for_points(influxdb: InfluxDB, bucket: str) -> None:
    """Wait until Telegraf has passed a report on."""
    wait_for(
        lambda: len(influxdb.points(bucket)) >= FIELDS_OF_A_REPORT, "the points behind Telegraf"
    )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["influxd-1.12", "influxd-2"])
def test_a_report_arrives_through_the_listener_of_its_version(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewal: Renewal,
    version: int,
    name: str,
    tmp_path: Path,
) -> None:
    influxdb = server(name)
    bucket = influxdb.new_bucket()
    with start_telegraf(version, influxdb, bucket, tmp_path) as url:
        environ = {"INFLUXDB_URL": url, "INFLUXDB_BUCKET": bucket}
        ran = report_hook(**renewal.environ, **environ, INFLUXDB_VERSION=str(version))
        assert ran.status == 0
        wait_for_points(influxdb, bucket)
    assert stored_renewals(influxdb, bucket) == renewal.points()


@pytest.mark.parametrize("version", [1, 2])
def test_a_listener_of_the_other_version_is_refused_with_the_remedy(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewal: Renewal,
    version: int,
    tmp_path: Path,
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    other = str(3 - version)
    with start_telegraf(version, influxdb, bucket, tmp_path) as url:
        environ = {"INFLUXDB_URL": url, "INFLUXDB_BUCKET": bucket}
        wrong = report_hook(**renewal.environ, **environ, INFLUXDB_VERSION=other)
    assert wrong.status == 1
    assert "answered 404 404 page not found" in wrong.err
    assert f"set INFLUXDB_VERSION={version}" in wrong.err


@pytest.mark.parametrize(
    ("version", "config", "token"),
    [
        (1, 'basic_username = "hook"\nbasic_password = "fake-password"', "hook:fake-password"),
        (2, 'token = "fake-token"', "fake-token"),
    ],
)
def test_a_listener_that_asks_for_a_password(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewal: Renewal,
    version: int,
    config: str,
    token: str,
    tmp_path: Path,
) -> None:
    influxdb = server("influxd-1.8")
    bucket = influxdb.new_bucket()
    with start_telegraf(version, influxdb, bucket, tmp_path, config) as url:
        environ = {
            **renewal.environ,
            "INFLUXDB_URL": url,
            "INFLUXDB_VERSION": str(version),
            "INFLUXDB_BUCKET": bucket,
        }
        refused = report_hook(**environ, INFLUXDB_TOKEN="fake-wrong")
        assert report_hook(**environ, INFLUXDB_TOKEN=token).status == 0
        wait_for_points(influxdb, bucket)
    assert stored_renewals(influxdb, bucket) == renewal.points()
    assert refused.status == 1
    assert "answered 401 " in refused.err
    assert "INFLUXDB_TOKEN is not valid: set it to " in refused.err


@contextlib.contextmanager
def start_telegraf_to_prometheus(prometheus: Prometheus, folder: Path) -> Iterator[str]:
    """Start Telegraf with telegraf/prometheus.conf; yield the address where it listens."""
    address = f"127.0.0.1:{free_port()}"
    text = (ROOT / "telegraf" / "prometheus.conf").read_text()
    text = text.replace("127.0.0.1:8086", address)
    text = text.replace("http://127.0.0.1:9090", prometheus.url)
    conf = folder / "telegraf.conf"
    conf.write_text(f'[agent]\nflush_interval = "200ms"\n{text}')
    command = [built_program("telegraf"), "--config", str(conf)]
    with running(command, folder / "telegraf.log") as child:
        ready = f"http://{address}/api/v2/ready"
        wait_for(lambda: requests.get(ready, timeout=5), "telegraf", child=child)
        yield f"http://{address}"


def test_the_reports_of_two_hosts_arrive_in_prometheus(
    report_hook: Hook, certbot_folder: Path, tmp_path: Path
) -> None:
    renewal = renew(certbot_folder, age=70 * DAY)
    due_date = str(renewal.not_before + 60 * DAY)
    with contextlib.ExitStack() as stack:
        try:
            prometheus = stack.enter_context(start_prometheus(tmp_path / "prometheus"))
        except MissingServer as error:
            skip_or_fail(error)
        url = stack.enter_context(start_telegraf_to_prometheus(prometheus, tmp_path))
        for host in ("web1", "web2"):
            ran = report_hook(**renewal.environ, HOSTNAME=host, INFLUXDB_URL=url)
            assert ran.status == 0
            query = f'certbot_renewal_renewal_due{{host="{host}"}}[1h]'
            (series,) = wait_for(functools.partial(prometheus.query, query), "the state")
            assert series["metric"]["lineage"] == "example.com"
            assert series["values"][0][1] == due_date
