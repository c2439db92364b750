"""The way to InfluxDB: a reverse proxy, IPv6, an address that does not answer, a private CA."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.hooks import Ran, start_report_hook
from support.proxies import Proxy, start_proxy
from support.renewals import MOCKED_URL, Renewal, stored_renewals
from tools.servers import faulty
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import make_server_certificate

Hook = Callable[..., Ran]


@pytest.fixture
def influxdb(server: Callable[[str], InfluxDB]) -> InfluxDB:
    """One InfluxDB: the way to all of them is the same."""
    return server("influxd-1.12")


@pytest.mark.parametrize(("version", "path"), [("1", "/write"), ("2", "/api/v2/write")])
@pytest.mark.parametrize(
    ("prefix", "host", "end"),
    [
        ("", "127.0.0.1", "/"),
        ("/influx", "127.0.0.1", ""),
        ("/a/b", "127.0.0.1", "/"),
        ("", "::1", ""),
    ],
)
def test_a_report_passes_a_proxy_with_a_path_prefix_a_trailing_slash_or_ipv6(
    influxdb: InfluxDB,
    report_hook: Hook,
    renewal: Renewal,
    prefix: str,
    host: str,
    end: str,
    version: str,
    path: str,
) -> None:
    bucket = influxdb.new_bucket()
    environ = {**renewal.environ, **influxdb.settings(bucket), "INFLUXDB_VERSION": version}
    with start_proxy(influxdb.url, prefix, host) as proxy:
        ran = report_hook(**{**environ, "INFLUXDB_URL": proxy.url + end})
        assert ran.status == 0
        assert proxy.paths == [path]
    assert stored_renewals(influxdb, bucket) == renewal.points()


def test_an_address_that_does_not_answer_leaves_time_for_the_next_one(
    influxdb: InfluxDB,
    report_hook: Hook,
    renewal: Renewal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = influxdb.new_bucket()
    environ = {
        **renewal.environ,
        **influxdb.settings(bucket),
        "INFLUXDB_URL": MOCKED_URL,
        "INFLUXDB_TIMEOUT": "6",
    }
    with faulty.blackhole() as silent_url:  # as IPv6 is in many networks
        addresses = []
        for url in (silent_url, influxdb.url):
            port = urlsplit(url).port
            addresses += socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)[:1]
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
            ran = report_hook(**environ)
    assert (ran.status, ran.err) == (0, "")
    assert stored_renewals(influxdb, bucket) == renewal.points()


# ---- https with a private CA -------------------------------------------------------------------
@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The certificate and key of a server, which is its own CA."""
    return make_server_certificate(tmp_path / "server.pem", "127.0.0.1")


@pytest.fixture
def https(influxdb: InfluxDB, certificate: Path) -> Iterator[Proxy]:
    """A proxy with TLS in front of InfluxDB."""
    with start_proxy(influxdb.url, certificate=certificate) as proxy:
        yield proxy


@pytest.fixture
def environ(influxdb: InfluxDB, https: Proxy, renewal: Renewal) -> dict[str, str]:
    """What certbot gives a deploy hook, and the settings."""
    settings = influxdb.settings(influxdb.new_bucket())
    return {**renewal.environ, **settings, "INFLUXDB_URL": https.url}


def test_a_server_with_a_private_ca_is_refused_with_the_remedy(
    certbot_folder: Path, environ: dict[str, str]
) -> None:
    refused = start_report_hook(certbot_folder, **environ)
    assert refused.returncode == 1
    assert "certificate verify failed" in refused.stderr
    assert "set REQUESTS_CA_BUNDLE to the file with your CA's certificate" in refused.stderr


def test_a_ca_bundle_that_is_missing_is_named(
    certbot_folder: Path, environ: dict[str, str]
) -> None:
    missing = start_report_hook(certbot_folder, **environ, REQUESTS_CA_BUNDLE="/nowhere/ca.pem")
    assert missing.returncode == 1
    assert "/nowhere/ca.pem" in missing.stderr
    assert "set REQUESTS_CA_BUNDLE" in missing.stderr


def test_a_report_arrives_with_the_ca_bundle_of_the_environment(
    certbot_folder: Path,
    environ: dict[str, str],
    certificate: Path,
    influxdb: InfluxDB,
    renewal: Renewal,
) -> None:
    done = start_report_hook(certbot_folder, **environ, REQUESTS_CA_BUNDLE=str(certificate))
    assert done.returncode == 0
    assert stored_renewals(influxdb, environ["INFLUXDB_BUCKET"]) == renewal.points()


def test_the_ca_bundle_of_the_env_file_replaces_the_one_of_the_environment(
    certbot_folder: Path,
    environ: dict[str, str],
    certificate: Path,
    influxdb: InfluxDB,
    renewal: Renewal,
) -> None:
    env_file = certbot_folder / "certbot_renewal_report.env"
    env_file.write_text(f"REQUESTS_CA_BUNDLE={certificate}\n")
    done = start_report_hook(certbot_folder, **environ, REQUESTS_CA_BUNDLE="/nowhere/ca.pem")
    assert done.returncode == 0
    assert stored_renewals(influxdb, environ["INFLUXDB_BUCKET"]) == renewal.points()
