"""What arrives in a real InfluxDB when the hook runs, and what the hook says when that InfluxDB refuses."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import responses
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import certbot_renewal_report
from support.hooks import TEXT, Ran, start_report_hook
from support.servers import require_program, skip_or_fail
from tools import ROOT
from tools.servers import faulty
from tools.servers.influxdb import ORG, InfluxDB, start_influxdb
from tools.servers.lineages import DAY, make_lineage, make_server_certificate
from tools.servers.processes import MissingServer, built_program, free_port, running, wait_for
from tools.servers.prometheus import start_prometheus, start_victoria_metrics
from tools.servers.telegraf import start_telegraf

NAMES = ["example.com", "www.example.com", "::1"]
Hook = Callable[..., Ran]


@pytest.fixture
def begin() -> int:
    """A notBefore, an hour ago."""
    return int(time.time()) - 3600


@pytest.fixture
def renewed(certbot_folder: Path, begin: int) -> dict[str, str]:
    """What certbot gives a deploy hook."""
    live = make_lineage(certbot_folder, "example.com", NAMES, begin, 90 * DAY)
    return {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": " ".join(NAMES)}


def renewals(
    begin: int, lineage: str = "example.com", names: list[str] = NAMES, host: str = "web1"
) -> set[tuple[str, ...]]:
    """The renewal points that must be in the database."""
    whole = (
        str(begin),
        "renewed_count",
        str(len(names)),
        "domain=all",
        f"host={host}",
        f"lineage={lineage}",
    )
    return {
        whole,
        *((str(begin), "renewed_count", "1", f"domain={name}", f"host={host}") for name in names),
    }


def stored_renewals(server: InfluxDB, bucket: str) -> set[tuple[str, ...]]:
    """The renewal points that are."""
    return {p for p in server.points(bucket) if p[1] == "renewed_count"}


def test_a_renewal_arrives_as_points_and_state(
    influxdb: InfluxDB, certbot_folder: Path, renewed: dict[str, str], begin: int
) -> None:
    bucket, before = influxdb.new_bucket(), int(time.time())
    done = start_report_hook(certbot_folder, **renewed, **influxdb.settings(bucket))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    points = influxdb.points(bucket)
    assert {p for p in points if p[1] == "renewed_count"} == renewals(begin)
    whole = ("domain=all", "host=web1", "lineage=example.com")
    told = {p for p in points if p[1] in ("lifetime", "due_after", "names")}
    told_of = {"lifetime": f"{90 * DAY}", "due_after": f"{60 * DAY}", "names": " ".join(NAMES)}
    assert told == {(str(begin), name, value, *whole) for name, value in told_of.items()}
    points -= told
    state = {p[1]: p[2] for p in points if p[1] != "renewed_count"}
    assert state == {
        "not_before": str(begin),
        "renewal_due": str(begin + 60 * DAY),
        "not_after": str(begin + 90 * DAY),
        "run_at": "0",
    }
    assert {p[3:] for p in points if p[1] != "renewed_count"} == {whole}
    assert all(before <= int(p[0]) <= time.time() for p in points if p[1] != "renewed_count")


def test_a_repeated_report_overwrites_the_same_points(
    influxdb: InfluxDB, report_hook: Hook, renewed: dict[str, str], begin: int
) -> None:
    bucket = influxdb.new_bucket()
    for _ in range(3):
        assert report_hook(**renewed, **influxdb.settings(bucket)).status == 0
    assert stored_renewals(influxdb, bucket) == renewals(begin)


def test_many_names_are_one_request(
    influxdb: InfluxDB, report_hook: Hook, certbot_folder: Path, begin: int
) -> None:
    bucket, names = influxdb.new_bucket(), [f"{i}.example.com" for i in range(1000)]
    live = make_lineage(certbot_folder, "many", names, begin, 90 * DAY)
    with proxy(influxdb.url) as front:
        environ = {**influxdb.settings(bucket), "INFLUXDB_URL": front.url}
        assert (
            report_hook(
                RENEWED_LINEAGE=str(live), RENEWED_DOMAINS=" ".join(names), **environ
            ).status
            == 0
        )
        assert front.paths == ["/api/v2/write"]
    assert stored_renewals(influxdb, bucket) == renewals(begin, "many", names)


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12", "influxd-2"])
def test_whatever_text_goes_in_comes_out(
    server: Callable[[str], InfluxDB], report_hook: Hook, name: str
) -> None:
    influxdb = server(name)
    word = (
        TEXT.map(lambda t: "".join(t.split())).filter(bool).filter(lambda t: not t.endswith("\\"))
    )

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        host=TEXT.filter(lambda t: bool(t.strip()))
        .map(str.strip)
        .filter(lambda t: not t.endswith("\\")),
        measurement=TEXT.filter(lambda t: t[0] not in "#_")
        .map(str.strip)
        .filter(lambda t: bool(t) and t[0] not in "#_" and t[-1] != "\\"),
        names=st.lists(word, min_size=1, max_size=3, unique=True),
    )
    @example(
        host='a b,c=d"e\\f',
        measurement="x y,z=1",
        names=["*.example.com", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1"],
    )
    def out_as_in(host: str, measurement: str, names: list[str]) -> None:
        bucket, before = influxdb.new_bucket(), int(time.time())
        ran = report_hook(
            HOSTNAME=host,
            MEASUREMENT=measurement,
            RENEWED_LINEAGE="/nowhere/live/a,b =c",
            RENEWED_DOMAINS=" ".join(names),
            **influxdb.settings(bucket),
        )
        assert "Reported as renewed now" in ran.err, ran.err
        told = {
            "lifetime": "0",
            "due_after": "0",
            "names": " ".join(names),
        }  # of a certificate that could not be read
        whole = {
            (field, value, "domain=all", f"host={host}", "lineage=a,b =c")
            for field, value in told.items()
        }
        assert {p[1:] for p in influxdb.points(bucket)} == {
            p[1:] for p in renewals(before, "a,b =c", names, host)
        } | whole
        query = f'import "influxdata/influxdb/schema" schema.measurements(bucket: "{bucket}")'
        if influxdb.major == 2:
            assert [row["_value"] for row in influxdb.query(query)] == [measurement]

    out_as_in()


# ---- What each server says when it refuses ---------------------------------------------------------------------------
def test_a_bucket_that_does_not_exist(
    influxdb: InfluxDB, report_hook: Hook, renewed: dict[str, str]
) -> None:
    ran = report_hook(**renewed, **influxdb.settings("nowhere"))
    assert ran.status == 1
    assert "answered 404 " in ran.err and "create nowhere, or correct INFLUXDB_BUCKET" in ran.err


def test_a_measurement_that_holds_other_types(
    influxdb: InfluxDB, report_hook: Hook, renewed: dict[str, str], begin: int
) -> None:
    bucket = influxdb.new_bucket()
    path, parameters = ("/api/v2/write", {"bucket": bucket, "org": ORG, "precision": "s"})
    line = f'certbot_renewal renewed_count="three" {begin}'
    requests.post(
        influxdb.url + path, params=parameters, data=line, headers=influxdb.headers, timeout=30
    ).raise_for_status()
    ran = report_hook(**renewed, **influxdb.settings(bucket))
    assert ran.status == 1
    assert "conflict" in ran.err and "set MEASUREMENT to another name" in ran.err


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
@pytest.mark.parametrize("limit", ["max-values-per-tag", "max-series-per-database"])
def test_more_names_than_influxdb_1_x_takes(
    tmp_path: Path, report_hook: Hook, renewed: dict[str, str], name: str, limit: str
) -> None:
    require_program(name)
    with start_influxdb(name, tmp_path / name, storage={limit: 1}) as influxdb:
        bucket = influxdb.new_bucket()
        other = f"certbot_renewal,domain=all,host=other,lineage=other renewed_count=1 {int(time.time())}"  # it counts what was there before
        requests.post(
            f"{influxdb.url}/api/v2/write?bucket={bucket}&precision=s", data=other, timeout=30
        ).raise_for_status()
        ran = report_hook(**renewed, **influxdb.settings(bucket))
    assert ran.status == 1
    assert limit in ran.err and "look at the server's log" in ran.err


def test_a_certificate_older_than_the_bucket_keeps_is_no_failure(
    influxdb: InfluxDB, report_hook: Hook, certbot_folder: Path
) -> None:
    bucket, old = influxdb.new_bucket("86400"), int(time.time()) - 10 * DAY
    live = make_lineage(certbot_folder, "example.com", NAMES, old, 90 * DAY)
    ran = report_hook(
        RENEWED_LINEAGE=str(live), RENEWED_DOMAINS=" ".join(NAMES), **influxdb.settings(bucket)
    )
    assert (ran.status, ran.err) == (0, "")
    assert "what is older than the bucket keeps was not stored" in ran.out
    assert {p[1] for p in influxdb.points(bucket)} == {
        "not_before",
        "renewal_due",
        "not_after",
        "run_at",
    }


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
def test_version_1_writes_to_a_retention_policy(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewed: dict[str, str],
    begin: int,
    name: str,
) -> None:
    influxdb = server(name)
    bucket = influxdb.new_bucket()
    influxdb.command(f'CREATE RETENTION POLICY "years" ON "{bucket}" DURATION 700d REPLICATION 1')
    for version, place in (("1", f"{bucket}/years"), ("2", f"{bucket}/years"), ("1", bucket)):
        assert (
            report_hook(**renewed, **influxdb.settings(place), INFLUXDB_VERSION=version).status == 0
        )
    assert (
        stored_renewals(influxdb, f"{bucket}/years")
        == stored_renewals(influxdb, bucket)
        == renewals(begin)
    )
    ran = report_hook(**renewed, **influxdb.settings(f"{bucket}/nowhere"), INFLUXDB_VERSION="1")
    assert ran.status == 1
    assert (
        "retention policy not found" in ran.err
        and "correct what stands behind the slash in INFLUXDB_BUCKET" in ran.err
    )


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
def test_user_and_password_of_a_1_x(
    report_hook: Hook, renewed: dict[str, str], begin: int, name: str, tmp_path: Path
) -> None:
    require_program(name)
    with start_influxdb(name, tmp_path / "influxdb", config="auth-enabled = true") as influxdb:
        admin = {"u": "admin", "p": "fake-admin"}
        influxdb.command("CREATE USER admin WITH PASSWORD 'fake-admin' WITH ALL PRIVILEGES")
        for q in (
            "CREATE DATABASE d",
            "CREATE USER hook WITH PASSWORD 'fake:pass'",
            "CREATE USER guest WITH PASSWORD 'fake-guest'",
        ):
            influxdb.command(q, **admin)
        influxdb.command("GRANT ALL ON d TO hook", **admin)
        for version in ("1", "2"):
            environ = {**renewed, **influxdb.settings("d"), "INFLUXDB_VERSION": version}
            assert report_hook(**{**environ, "INFLUXDB_TOKEN": "hook:fake:pass"}).status == 0
            refused = report_hook(**{**environ, "INFLUXDB_TOKEN": "hook:fake-wrong"})
            assert refused.status == 1
            assert (
                "answered 401 " in refused.err
                and "set INFLUXDB_TOKEN to a valid token, or to user:password on 1.x" in refused.err
            )
            assert "fake-wrong" not in refused.err
            assert "answered 401 " in report_hook(**{**environ, "INFLUXDB_TOKEN": ""}).err
            forbidden = report_hook(**{**environ, "INFLUXDB_TOKEN": "guest:fake-guest"})
            assert forbidden.status == 1
            assert "answered 403 " in forbidden.err and "the right to write to d" in forbidden.err
        influxdb.headers["Authorization"] = "Token admin:fake-admin"
        assert stored_renewals(influxdb, "d") == renewals(begin)


def test_what_a_2_x_refuses(
    server: Callable[[str], InfluxDB], report_hook: Hook, renewed: dict[str, str]
) -> None:
    influxdb = server("influxd-2")
    bucket = influxdb.new_bucket()
    environ = {**renewed, **influxdb.settings(bucket)}
    orgs = requests.get(influxdb.url + "/api/v2/orgs", headers=influxdb.headers, timeout=30).json()[
        "orgs"
    ]
    may_read = {
        "orgID": orgs[0]["id"],
        "permissions": [
            {"action": "read", "resource": {"type": "buckets", "orgID": orgs[0]["id"]}}
        ],
    }
    reader = requests.post(
        influxdb.url + "/api/v2/authorizations", json=may_read, headers=influxdb.headers, timeout=30
    ).json()["token"]
    for wrong, says in (
        (
            {"INFLUXDB_TOKEN": "fake-wrong"},
            ("401 unauthorized access", "set INFLUXDB_TOKEN to a valid token"),
        ),
        (
            {"INFLUXDB_TOKEN": ""},
            ("401 unauthorized access", "set INFLUXDB_TOKEN to a valid token"),
        ),
        ({"INFLUXDB_TOKEN": reader}, ("403 ", f"the right to write to {bucket}")),
        ({"INFLUXDB_ORG": "nobody"}, ("404 ", "set INFLUXDB_ORG to the organization's name")),
        ({"INFLUXDB_ORG": ""}, ("400 ", "set INFLUXDB_ORG to the organization's name")),
        (
            {"INFLUXDB_VERSION": "1", "INFLUXDB_BUCKET": "nowhere"},
            ("404 ", "set INFLUXDB_VERSION=2"),
        ),
        ({"INFLUXDB_URL": influxdb.url + "/influx"}, ("40", "or correct the path in INFLUXDB_URL")),
    ):
        ran = report_hook(**{**environ, **wrong})
        assert ran.status == 1
        for text in says:
            assert text in ran.err
        assert "fake-wrong" not in ran.err and reader not in ran.err
    assert influxdb.points(bucket) == set()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["influxd-1.12", "influxd-2"])
def test_through_telegraf(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewed: dict[str, str],
    begin: int,
    version: int,
    name: str,
    tmp_path: Path,
) -> None:
    require_program("telegraf")
    influxdb = server(name)
    bucket = influxdb.new_bucket()
    with start_telegraf(version, influxdb, bucket, tmp_path) as url:
        assert (
            report_hook(
                **renewed, INFLUXDB_URL=url, INFLUXDB_VERSION=str(version), INFLUXDB_BUCKET=bucket
            ).status
            == 0
        )
        wait_for(lambda: len(influxdb.points(bucket)) >= 8, "the points behind Telegraf")
        wrong = report_hook(
            **renewed, INFLUXDB_URL=url, INFLUXDB_VERSION=str(3 - version), INFLUXDB_BUCKET=bucket
        )
    assert stored_renewals(influxdb, bucket) == renewals(begin)
    assert wrong.status == 1
    assert (
        "answered 404 404 page not found" in wrong.err
        and f"set INFLUXDB_VERSION={version}" in wrong.err
    )


def test_through_telegraf_into_prometheus(
    report_hook: Hook, certbot_folder: Path, tmp_path: Path
) -> None:
    require_program("telegraf")
    now, port = int(time.time()), free_port()
    live = make_lineage(certbot_folder, "example.com", NAMES, now - 70 * DAY, 90 * DAY)
    conf, text = tmp_path / "telegraf.conf", (ROOT / "telegraf" / "prometheus.conf").read_text()
    url = f"http://127.0.0.1:{port}"
    try:
        with start_prometheus(tmp_path / "prometheus") as prometheus:
            text = text.replace("127.0.0.1:8086", f"127.0.0.1:{port}").replace(
                "http://127.0.0.1:9090", prometheus.url
            )
            conf.write_text(f'[agent]\nflush_interval = "200ms"\n{text}')
            with running(
                [built_program("telegraf"), "--config", str(conf)], tmp_path / "telegraf.log"
            ) as child:
                wait_for(
                    lambda: requests.get(url + "/api/v2/ready", timeout=5), "telegraf", child=child
                )
                for host in ("web1", "web2"):
                    environ = {
                        "RENEWED_LINEAGE": str(live),
                        "RENEWED_DOMAINS": " ".join(NAMES),
                        "HOSTNAME": host,
                    }
                    assert report_hook(**environ, INFLUXDB_URL=url).status == 0
                    ask = functools.partial(
                        prometheus.query, f'certbot_renewal_renewal_due{{host="{host}"}}[1h]'
                    )
                    found = wait_for(ask, "the state")
                    assert [(one["metric"]["lineage"], one["values"][0][1]) for one in found] == [
                        ("example.com", str(now - 10 * DAY))
                    ]
    except MissingServer as error:
        skip_or_fail(error)


@pytest.mark.parametrize(
    ("version", "config", "token"),
    [
        (1, 'basic_username = "hook"\nbasic_password = "fake-password"', "hook:fake-password"),
        (2, 'token = "fake-token"', "fake-token"),
    ],
)
def test_telegraf_that_asks_for_a_password(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewed: dict[str, str],
    begin: int,
    version: int,
    config: str,
    token: str,
    tmp_path: Path,
) -> None:
    require_program("telegraf")
    influxdb = server("influxd-1.8")
    bucket = influxdb.new_bucket()
    with start_telegraf(version, influxdb, bucket, tmp_path, config) as url:
        environ = {
            **renewed,
            "INFLUXDB_URL": url,
            "INFLUXDB_VERSION": str(version),
            "INFLUXDB_BUCKET": bucket,
        }
        refused = report_hook(**environ, INFLUXDB_TOKEN="fake-wrong")
        assert report_hook(**environ, INFLUXDB_TOKEN=token).status == 0
        wait_for(lambda: len(influxdb.points(bucket)) >= 8, "the points behind Telegraf")
    assert stored_renewals(influxdb, bucket) == renewals(begin)
    assert refused.status == 1
    assert "answered 401 " in refused.err and "set INFLUXDB_TOKEN" in refused.err


# ---- The way there ---------------------------------------------------------------------------------------------------
class Proxy(http.server.ThreadingHTTPServer):
    """A reverse proxy in front of a real InfluxDB."""

    daemon_threads = True
    target = url = prefix = ""
    paths: list[str]


class Forward(http.server.BaseHTTPRequestHandler):
    """Passes a request on and its answer back."""

    server: Proxy

    def do_POST(self) -> None:
        path = self.path.removeprefix(self.server.prefix)
        self.server.paths.append(path.partition("?")[0])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {
            key: self.headers[key]
            for key in ("Authorization", "Content-Type")
            if key in self.headers
        }
        answer = requests.post(
            self.server.target + path, data=body, headers=headers, timeout=30, auth=lambda r: r
        )
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class ProxyIPv6(Proxy):
    """The same on ::1."""

    import socket

    address_family = socket.AF_INET6


@contextlib.contextmanager
def proxy(
    target: str, prefix: str = "", host: str = "127.0.0.1", certificate: Path | None = None
) -> Iterator[Proxy]:
    """Starts a reverse proxy, with TLS when it is given a certificate and key."""
    kind = ProxyIPv6 if ":" in host else Proxy
    with kind((host, 0), Forward) as front:
        front.target, front.prefix, front.paths = target, prefix, []
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            front.socket = context.wrap_socket(front.socket, server_side=True)
        authority = f"[{host}]" if ":" in host else host
        front.url = f"http{'s' if certificate else ''}://{authority}:{front.server_port}{prefix}"
        threading.Thread(target=front.serve_forever, daemon=True).start()
        try:
            yield front
        finally:
            front.shutdown()


@pytest.mark.parametrize(
    ("prefix", "host", "end"),
    [
        ("", "127.0.0.1", "/"),
        ("/influx", "127.0.0.1", ""),
        ("/a/b", "127.0.0.1", "/"),
        ("", "::1", ""),
    ],
)
def test_a_path_prefix_a_trailing_slash_and_ipv6(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewed: dict[str, str],
    begin: int,
    prefix: str,
    host: str,
    end: str,
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    with proxy(influxdb.url, prefix, host) as front:
        for version in ("1", "2"):
            environ = {
                **influxdb.settings(bucket),
                "INFLUXDB_URL": front.url + end,
                "INFLUXDB_VERSION": version,
            }
            assert report_hook(**renewed, **environ).status == 0
        assert front.paths == ["/write", "/api/v2/write"]
    assert stored_renewals(influxdb, bucket) == renewals(begin)


def test_an_address_that_does_not_answer_leaves_time_for_the_next_one(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewed: dict[str, str],
    begin: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    with faulty.blackhole() as url:  # as IPv6 is in many a network
        found = [
            socket.getaddrinfo("127.0.0.1", urlsplit(each).port, type=socket.SOCK_STREAM)[0]
            for each in (url, influxdb.url)
        ]
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            environ = {
                **influxdb.settings(bucket),
                "INFLUXDB_URL": "http://influx.example.com:8086",
                "INFLUXDB_TIMEOUT": "6",
            }
            ran = report_hook(**renewed, **environ)
    assert (ran.status, ran.err) == (0, "")
    assert stored_renewals(influxdb, bucket) == renewals(begin)


def test_https_with_a_private_ca(
    server: Callable[[str], InfluxDB],
    certbot_folder: Path,
    renewed: dict[str, str],
    begin: int,
    tmp_path: Path,
) -> None:
    influxdb = server("influxd-1.12")
    bucket, certificate = (
        influxdb.new_bucket(),
        make_server_certificate(tmp_path / "server.pem", "127.0.0.1"),
    )
    env_file = certbot_folder / "certbot_renewal_report.env"
    with proxy(influxdb.url, certificate=certificate) as front:
        environ = {**renewed, **influxdb.settings(bucket), "INFLUXDB_URL": front.url}
        refused = start_report_hook(certbot_folder, **environ)
        assert refused.returncode == 1
        assert "certificate verify failed" in refused.stderr
        assert "set REQUESTS_CA_BUNDLE to the file with your CA's certificate" in refused.stderr
        missing = start_report_hook(certbot_folder, **environ, REQUESTS_CA_BUNDLE="/nowhere/ca.pem")
        assert missing.returncode == 1
        assert "/nowhere/ca.pem" in missing.stderr and "set REQUESTS_CA_BUNDLE" in missing.stderr
        assert (
            start_report_hook(
                certbot_folder, **environ, REQUESTS_CA_BUNDLE=str(certificate)
            ).returncode
            == 0
        )
        env_file.write_text(f"REQUESTS_CA_BUNDLE={certificate}\n")
        assert (
            start_report_hook(
                certbot_folder, **environ, REQUESTS_CA_BUNDLE="/nowhere/ca.pem"
            ).returncode
            == 0
        )
    assert stored_renewals(influxdb, bucket) == renewals(begin)


@pytest.mark.parametrize("place", ["environment", "file", "token file"])
def test_the_token_wins_over_netrc(
    server: Callable[[str], InfluxDB],
    certbot_folder: Path,
    renewed: dict[str, str],
    begin: int,
    tmp_path: Path,
    place: str,
) -> None:
    influxdb = server("influxd-2")
    bucket = influxdb.new_bucket()
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password fake-netrc\n")
    environ = {**renewed, **influxdb.settings(bucket), "NETRC": str(tmp_path / "netrc")}
    if place != "environment":
        token = environ.pop("INFLUXDB_TOKEN")
        (tmp_path / "token").write_text(token + "\n")
        setting = (
            f"INFLUXDB_TOKEN={token}"
            if place == "file"
            else f"INFLUXDB_TOKEN_FILE={tmp_path / 'token'}"
        )
        (certbot_folder / "certbot_renewal_report.env").write_text(setting + "\n")
    done = start_report_hook(certbot_folder, **environ)
    assert done.returncode == 0, done.stderr
    assert stored_renewals(influxdb, bucket) == renewals(begin)


# ---- --check ---------------------------------------------------------------------------------------------------------
def test_check_proves_an_installation(
    influxdb: InfluxDB, report_hook: Hook, certbot_folder: Path, renewed: dict[str, str], begin: int
) -> None:
    bucket = influxdb.new_bucket()
    make_lineage(certbot_folder, "example.org", ["example.org"], begin, 45 * DAY)
    (certbot_folder / "live" / "README").write_text("certbot puts one here")
    environ = influxdb.settings(bucket)
    for _ in range(2):  # as often as one likes
        ran = report_hook("--check", **environ)
        assert (ran.status, ran.err) == (0, "")
    version = {
        "influxd-1.8": "InfluxDB 1.8.",
        "influxd-1.12": "InfluxDB 1.12.",
        "influxd-2": "InfluxDB v2.",
    }[influxdb.name]
    for says in (
        f"{'INFLUXDB_BUCKET':20} {bucket:24} from the environment",
        f"{'MEASUREMENT':20} {'certbot_renewal':24} from {certbot_folder}/renewal-hooks/deploy/certbot_renewal_report.py",
        f"{'this file':20} {certbot_folder}/renewal-hooks/deploy/certbot_renewal_report.py, mode 755",
        f"{'server':20} {version}",
        f"{'certificate':20} example.com renewed ",
        f"{'certificate':20} example.org renewed ",
        "2 certificates: reported into",
    ):
        assert says in ran.out
    assert (
        ran.out.splitlines()[-1]
        == f"ready: renewals will be reported into {bucket} at {influxdb.url}, as host web1"
    )
    assert not environ["INFLUXDB_TOKEN"] or environ["INFLUXDB_TOKEN"] not in ran.out
    assert stored_renewals(influxdb, bucket) == renewals(begin) | renewals(
        begin, "example.org", ["example.org"]
    )


def test_check_names_everything_that_is_wrong(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    certbot_folder: Path,
    renewed: dict[str, str],
    tmp_path: Path,
    begin: int,
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    script = certbot_folder / "renewal-hooks" / "deploy" / "certbot_renewal_report.py"
    script.chmod(0o644)
    env_file = certbot_folder / "certbot_renewal_report.env"
    env_file.write_text("INFLUXDB_TOKEN=fake-token\nHOSTNAME=3f2b8c9d0e1a\n")
    env_file.chmod(0o644)
    (make_lineage(certbot_folder, "broken", ["example.net"], begin, DAY) / "cert.pem").unlink()
    ran = report_hook("--check", **{**influxdb.settings(bucket), "INFLUXDB_TOKEN": "fake-unused"})
    assert ran.status == 1
    assert ran.err.startswith("certbot_renewal_report: not ready: ")
    for says in (
        f"{script} is not executable, so certbot ignores it: chmod 755 {script}",
        "the host tag 3f2b8c9d0e1a is a container's id, which changes: set HOSTNAME in",
        f"{env_file} holds the token and everybody may read it: chmod o= {env_file}",
        "live/broken/cert.pem: No such file or directory",
    ):
        assert says in ran.err
    assert "ready: " not in ran.out
    assert "fake-token" not in ran.out + ran.err
    assert stored_renewals(influxdb, bucket) == renewals(
        begin, host="3f2b8c9d0e1a"
    )  # what can be reported is


def test_check_of_a_server_that_is_not_there(report_hook: Hook, renewed: dict[str, str]) -> None:
    ran = report_hook("--check", INFLUXDB_URL="http://127.0.0.1:1")
    assert ran.status == 1
    assert f"{'server':20} none: Connection refused" in ran.out
    assert "not ready: cannot reach http://127.0.0.1:1: Connection refused" in ran.err


def test_check_before_there_is_a_certificate_or_from_the_wrong_place(
    report_hook: Hook, certbot_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("live", "renewal"):
        (certbot_folder / name).mkdir()
    assert (
        f"{certbot_folder}/live: no certificate: get one with certbot, or name its folder"
        in report_hook("--check").err
    )
    copy = tmp_path / "certbot_renewal_report.py"
    copy.write_bytes(Path(certbot_renewal_report.__file__).read_bytes())
    assert (
        certbot_renewal_report.main(
            ["--check", "--config-dir", str(certbot_folder)], {"HOSTNAME": "web1"}, str(copy)
        )
        == 1
    )
    assert (
        f"{copy} is not in {certbot_folder}/renewal-hooks/deploy, where certbot would run it: copy it there"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize("version", [1, 2])
def test_check_recognizes_telegraf(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewed: dict[str, str],
    version: int,
    tmp_path: Path,
) -> None:
    require_program("telegraf")
    influxdb = server("influxd-1.8")
    bucket = influxdb.new_bucket()
    with start_telegraf(version, influxdb, bucket, tmp_path) as url:
        ran = report_hook(
            "--check", INFLUXDB_URL=url, INFLUXDB_VERSION=str(version), INFLUXDB_BUCKET=bucket
        )
    assert (ran.status, ran.err) == (0, "")
    assert f"{'server':20} Telegraf " in ran.out


@pytest.mark.parametrize(
    ("retention", "days"), [("100y", 0), ("400d", 0), ("13", 0), ("1", 31), ("12w", 84)]
)
def test_check_recognizes_victoriametrics(
    report_hook: Hook, renewed: dict[str, str], tmp_path: Path, retention: str, days: int
) -> None:
    try:
        with start_victoria_metrics(tmp_path, None, f"-retentionPeriod={retention}") as metrics:
            ran = report_hook("--check", **metrics.settings())
            metrics.flush()
            stored = metrics.query("certbot_renewal_renewal_due[1h]")
    except MissingServer as error:
        skip_or_fail(error)
    kept = (
        f", which keeps points for {days} days: an alert ends with them, start it with -retentionPeriod=400d"
        if days
        else ""
    )
    assert (ran.status, ran.err) == (0, "")
    assert re.search(rf"^{'server':20} VictoriaMetrics( v[\d.]+)?{kept}$", ran.out, re.MULTILINE)
    assert [series["metric"]["host"] for series in stored] == ["web1"]


def test_check_says_of_prometheus_what_takes_line_protocol_for_it(
    report_hook: Hook, renewed: dict[str, str], tmp_path: Path
) -> None:
    try:
        with start_prometheus(tmp_path) as prometheus:
            ran = report_hook("--check", INFLUXDB_URL=prometheus.url)
    except MissingServer as error:
        skip_or_fail(error)
    assert ran.status == 1
    assert re.search(rf"^{'server':20} Prometheus \d+\.", ran.out, re.MULTILINE)
    remedy = "set INFLUXDB_URL to vmagent or a Telegraf listener, which pass points on to it"
    assert (
        ran.err
        == f"certbot_renewal_report: not ready: Prometheus takes no line protocol: {remedy}\n"
    )


@pytest.mark.parametrize(
    ("version", "path", "scheme"),
    [
        ("2", "/api/v2/write?bucket=certbot&org=&precision=s", "Token"),
        ("3", "/api/v3/write_lp?db=certbot&precision=second", "Bearer"),
    ],
)
def test_check_recognizes_influxdb_3(
    report_hook: Hook, renewed: dict[str, str], version: str, path: str, scheme: str
) -> None:
    """As its manual says, https://docs.influxdata.com/influxdb3/core/api/: there was none to start."""
    with responses.RequestsMock() as mock:
        headers = {"X-Influxdb-Version": "3.9.0", "X-Influxdb-Build": "Core"}
        mock.add(
            responses.GET, "http://127.0.0.1:8086/ping", json={"version": "3.9.0"}, headers=headers
        )
        mock.add(responses.POST, "http://127.0.0.1:8086" + path.partition("?")[0], status=204)
        ran = report_hook(
            "--check",
            INFLUXDB_VERSION=version,
            INFLUXDB_TOKEN="apiv3_fake",
            INFLUXDB_BUCKET="certbot",
        )
        request = mock.calls[1].request
    assert (ran.status, ran.err) == (0, "")
    assert f"{'server':20} InfluxDB 3.9.0, which has no Flux: " in ran.out
    assert request.path_url == path
    assert f"{scheme} apiv3_fake" in str(request.headers["Authorization"])
