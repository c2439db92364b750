"""The renewal board on VictoriaMetrics and Prometheus when something is wrong: the remedies."""

from __future__ import annotations

import base64
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from certbot_renewal_report import Point
from support.board import board_json, run_board, store_metrics
from support.points import certificate_state
from tools.servers.faulty import answer, serving
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY
from tools.servers.prometheus import (
    VictoriaMetrics,
    copy_database,
    start_prometheus,
    start_victoria_metrics,
)

NewVictoria = Callable[[], VictoriaMetrics]

NOT_PROMETHEUS = (
    "this is not VictoriaMetrics or Prometheus: correct INFLUXDB_URL, for example "
    "http://victoria:8428"
)
LIMIT_REMEDY = "raise this limit of the server"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
IS_PARTIAL = b'{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}'


@pytest.fixture
def error_of(tmp_path: Path) -> Callable[..., str]:
    """Returns the error line of a board with these settings, which leaves the old page."""
    page = tmp_path / "board.html"
    page.write_text("the old one")

    def get(settings: dict[str, str], source: str = "prometheus") -> str:
        run = run_board(settings, "--source", source, "--html", str(page))
        assert (run.status, page.read_text()) == (2, "the old one")
        return run.err

    return get


# ---- Other data --------------------------------------------------------------------------------
def test_without_a_report_the_remedy_names_the_settings(victoria: NewVictoria) -> None:
    metrics = victoria()
    err = run_board(metrics.settings(), "--source", "prometheus").err
    assert f"no certificate was reported to {metrics.url} yet: run" in err
    assert "on each host, or correct INFLUXDB_URL or MEASUREMENT" in err


def test_renewals_of_the_published_hook_are_not_enough(
    victoria: NewVictoria, error_of: Callable[..., str]
) -> None:
    metrics = victoria()
    now = int(time.time())
    metrics.write(f"certbot_renewal,domain=all,host=web1 renewed_count=1 {now}")
    metrics.write(f"certbot_renewal,domain=a,host=web1 renewed_count=1 {now}")
    assert "contains only renewals of the published hook" in error_of(metrics.settings())


def test_a_measurement_of_another_program_has_its_remedy(
    victoria: NewVictoria, error_of: Callable[..., str]
) -> None:
    metrics = victoria()
    metrics.write("mine,cpu=0 usage=1")
    err = error_of({**metrics.settings(), "MEASUREMENT": "mine"})
    assert "contains other data (usage): correct INFLUXDB_URL or MEASUREMENT" in err


def test_a_measurement_may_have_any_name(victoria: NewVictoria) -> None:
    metrics = victoria()
    now = int(time.time())
    measurement = 'a "b" ü😀'
    state = certificate_state("fine", now + DAY, at=now - 60)
    store_metrics(metrics, state._replace(measurement=measurement))
    store_metrics(metrics, *(certificate_state(name, now + DAY, at=now - 60) for name in "abc"))
    settings = {**metrics.settings(), "MEASUREMENT": measurement}
    whole = board_json(settings, "--source", "prometheus", status=0)
    assert [card["lineage"] for card in whole["certificates"]] == ["fine"]


# ---- Other servers -----------------------------------------------------------------------------
def test_victoria_metrics_needs_the_option_source(
    victoria: NewVictoria, error_of: Callable[..., str]
) -> None:
    err = error_of(victoria().settings(), "influxdb")
    assert "this is VictoriaMetrics: add --source prometheus" in err


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-2"])
def test_influxdb_is_no_prometheus(
    server: Callable[[str], InfluxDB], error_of: Callable[..., str], name: str
) -> None:
    assert NOT_PROMETHEUS in error_of(server(name).settings("x"))


def test_the_path_of_a_cluster_is_wrong_on_a_single_server(
    victoria: NewVictoria, error_of: Callable[..., str]
) -> None:
    url = victoria().url + "/select/0/prometheus"
    assert "this is not VictoriaMetrics or Prometheus" in error_of({"INFLUXDB_URL": url})


def test_a_server_that_does_not_run_has_its_remedy(error_of: Callable[..., str]) -> None:
    err = error_of({"INFLUXDB_URL": "http://127.0.0.1:1"})
    assert "Connection refused: " in err


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        (IS_PARTIAL, "a vmstorage node is down"),
        (b"[]", "this is not VictoriaMetrics or Prometheus"),
        (b'{"data":{"result":[{"metric":{}}]}}', "this is not VictoriaMetrics or Prometheus"),
        (b"<p>Please log in", "this is not VictoriaMetrics or Prometheus"),
    ],
)
def test_an_answer_that_is_no_whole_result_has_its_remedy(
    error_of: Callable[..., str], body: bytes, remedy: str
) -> None:
    with serving(answer(HEAD + body)) as url:
        assert remedy in error_of({"INFLUXDB_URL": url})


# ---- Limits ------------------------------------------------------------------------------------
def three_states() -> list[Point]:
    """Return the states of three certificates."""
    now = int(time.time())
    return [certificate_state(name, now + DAY, at=now - 60) for name in "abc"]


def test_a_limit_of_prometheus_has_its_remedy(victoria: NewVictoria, tmp_path: Path) -> None:
    metrics = victoria()
    store_metrics(metrics, *three_states())
    copy_database(metrics, tmp_path)
    with start_prometheus(tmp_path, "{}", None, "--query.max-samples=2") as prometheus:
        run = run_board({"INFLUXDB_URL": prometheus.url}, "--source", "prometheus")
    assert LIMIT_REMEDY in run.err


def test_a_limit_of_victoria_metrics_has_its_remedy(victoria: NewVictoria, tmp_path: Path) -> None:
    victoria()  # skips the test if there is none
    with start_victoria_metrics(tmp_path, None, "-search.maxUniqueTimeseries=2") as metrics:
        store_metrics(metrics, *three_states())
        run = run_board(metrics.settings(), "--source", "prometheus")
    assert LIMIT_REMEDY in run.err


# ---- Passwords ---------------------------------------------------------------------------------
def ask_with_token(token: str) -> tuple[str, str]:
    """Ask a server that refuses; return the board's error and the header Authorization."""
    headers: list[str] = []

    def refuse(connection: socket.socket) -> None:
        request = connection.recv(65536).decode()
        headers.extend(re.findall(r"Authorization: (.*?)\r", request))
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")

    with serving(refuse) as url:
        settings = {"INFLUXDB_URL": url, "INFLUXDB_TOKEN": token}
        err = run_board(settings, "--source", "prometheus").err
    (header,) = headers
    return err, header


def test_a_token_is_sent_as_a_bearer_token() -> None:
    err, header = ask_with_token("fake-Secret-7f3")
    assert header == "Bearer fake-Secret-7f3"
    assert "401" in err
    assert "set INFLUXDB_TOKEN to user:password or to a bearer token" in err
    assert "Secret" not in err


def test_a_password_is_sent_as_a_password() -> None:
    _, header = ask_with_token("board:fake")
    assert header == "Basic " + base64.b64encode(b"board:fake").decode()
