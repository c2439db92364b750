"""How the token reaches the server, and what each server says of one that it does not accept."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import responses

from support.buckets import new_token
from support.hooks import Ran, start_report_hook
from support.renewals import Renewal, stored_renewals
from support.servers import require_program
from tools.servers.influxdb import InfluxDB, start_influxdb

Hook = Callable[..., Ran]


@pytest.mark.parametrize(
    ("version", "token", "header"),
    [
        ("2", "fake-token", "Token fake-token"),
        ("2", "hook:fake", "Token hook:fake"),
        # InfluxDB before 1.8 understands nothing else.
        ("1", "hook:fake", "Basic " + base64.b64encode(b"hook:fake").decode()),
        ("1", "fake-token", "Token fake-token"),
        ("1", "", None),
    ],
)
def test_each_version_gets_the_header_that_it_understands(
    report_hook: Hook, renewal: Renewal, version: str, token: str, header: str | None
) -> None:
    environ = {"INFLUXDB_VERSION": version, "INFLUXDB_TOKEN": token}
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, re.compile("http://127.0.0.1:8086/.*write"), status=204)
        ran = report_hook(**renewal.environ, **environ)
        sent = mock.calls[0].request.headers.get("Authorization")
    assert ran.status == 0
    if isinstance(sent, bytes):
        sent = sent.decode()
    assert sent == header


@pytest.mark.parametrize("place", ["environment", "env file", "token file"])
def test_the_token_replaces_the_login_in_netrc(
    server: Callable[[str], InfluxDB],
    certbot_folder: Path,
    renewal: Renewal,
    tmp_path: Path,
    place: str,
) -> None:
    influxdb = server("influxd-2")
    bucket = influxdb.new_bucket()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password fake-netrc\n")
    environ = {**renewal.environ, **influxdb.settings(bucket), "NETRC": str(netrc)}

    env_file = certbot_folder / "certbot_renewal_report.env"
    token_file = tmp_path / "token"
    if place == "env file":
        env_file.write_text(f"INFLUXDB_TOKEN={environ.pop('INFLUXDB_TOKEN')}\n")
    elif place == "token file":
        token_file.write_text(environ.pop("INFLUXDB_TOKEN") + "\n")
        env_file.write_text(f"INFLUXDB_TOKEN_FILE={token_file}\n")

    done = start_report_hook(certbot_folder, **environ)
    assert done.returncode == 0, done.stderr
    assert stored_renewals(influxdb, bucket) == renewal.points()


# ---- InfluxDB 1.x with authentication ----------------------------------------------------------
@pytest.fixture(scope="module", params=["influxd-1.8", "influxd-1.12"])
def closed_influxdb(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InfluxDB]:
    """An InfluxDB 1.x that asks for a password, with the users hook and guest."""
    require_program(request.param)
    folder = tmp_path_factory.mktemp("closed")
    with start_influxdb(request.param, folder, config="auth-enabled = true") as influxdb:
        influxdb.command("CREATE USER admin WITH PASSWORD 'fake-admin' WITH ALL PRIVILEGES")
        influxdb.headers["Authorization"] = "Token admin:fake-admin"
        influxdb.command("CREATE USER hook WITH PASSWORD 'fake:pass'")
        influxdb.command("CREATE USER guest WITH PASSWORD 'fake-guest'")
        yield influxdb


@pytest.fixture
def database(closed_influxdb: InfluxDB) -> str:
    """A database to which the user hook may write."""
    database = closed_influxdb.new_bucket()
    closed_influxdb.command(f'GRANT ALL ON "{database}" TO hook')
    return database


@pytest.fixture(params=["1", "2"])
def environ(
    request: pytest.FixtureRequest, closed_influxdb: InfluxDB, database: str, renewal: Renewal
) -> dict[str, str]:
    """What certbot gives a deploy hook, and the settings but for the token, for each version."""
    settings = closed_influxdb.settings(database)
    return {**renewal.environ, **settings, "INFLUXDB_VERSION": request.param}


def test_a_1_x_takes_user_and_password(
    closed_influxdb: InfluxDB,
    report_hook: Hook,
    renewal: Renewal,
    database: str,
    environ: dict[str, str],
) -> None:
    assert report_hook(**{**environ, "INFLUXDB_TOKEN": "hook:fake:pass"}).status == 0
    assert stored_renewals(closed_influxdb, database) == renewal.points()


def test_a_1_x_refuses_a_wrong_password(
    closed_influxdb: InfluxDB, report_hook: Hook, database: str, environ: dict[str, str]
) -> None:
    refused = report_hook(**{**environ, "INFLUXDB_TOKEN": "hook:fake-wrong"})
    assert refused.status == 1
    assert "answered 401 " in refused.err
    assert 'set it to user:password of a user with write access to the database "' in refused.err
    assert "create a token" not in refused.err
    assert "fake-wrong" not in refused.err
    assert stored_renewals(closed_influxdb, database) == set()


def test_a_1_x_refuses_a_report_without_a_password(
    report_hook: Hook, environ: dict[str, str]
) -> None:
    assert "answered 401 " in report_hook(**{**environ, "INFLUXDB_TOKEN": ""}).err


def test_a_1_x_refuses_a_user_who_may_not_write(
    report_hook: Hook, database: str, environ: dict[str, str]
) -> None:
    forbidden = report_hook(**{**environ, "INFLUXDB_TOKEN": "guest:fake-guest"})
    assert forbidden.status == 1
    assert "answered 403 " in forbidden.err
    assert f'write access to "{database}"' in forbidden.err


# ---- InfluxDB 2.x ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wrong", "status", "remedy"),
    [
        (
            {"INFLUXDB_TOKEN": "fake-wrong"},
            "401 unauthorized access",
            "INFLUXDB_TOKEN is not valid: create a token with write access to the bucket",
        ),
        (
            {"INFLUXDB_TOKEN": ""},
            "401 unauthorized access",
            "INFLUXDB_TOKEN is empty: create a token with write access to the bucket",
        ),
        (
            {"INFLUXDB_ORG": "nobody"},
            "404 ",
            "set INFLUXDB_ORG to the organization's name",
        ),
        (
            {"INFLUXDB_ORG": ""},
            "400 ",
            "set INFLUXDB_ORG to the organization's name",
        ),
        (
            {"INFLUXDB_VERSION": "1", "INFLUXDB_BUCKET": "nowhere"},
            "404 ",
            "set INFLUXDB_VERSION=2",
        ),
    ],
)
def test_a_2_x_refuses_a_wrong_setting(
    server: Callable[[str], InfluxDB],
    report_hook: Hook,
    renewal: Renewal,
    wrong: dict[str, str],
    status: str,
    remedy: str,
) -> None:
    influxdb = server("influxd-2")
    bucket = influxdb.new_bucket()
    ran = report_hook(**{**renewal.environ, **influxdb.settings(bucket), **wrong})
    assert ran.status == 1
    assert status in ran.err
    assert remedy in ran.err
    assert "1.x" not in ran.err
    assert "user:password" not in ran.err
    assert "fake-wrong" not in ran.err
    assert influxdb.points(bucket) == set()


def test_a_2_x_refuses_a_token_that_may_only_read(
    server: Callable[[str], InfluxDB], report_hook: Hook, renewal: Renewal
) -> None:
    influxdb = server("influxd-2")
    bucket = influxdb.new_bucket()
    token = new_token(influxdb, "read")
    environ = {**renewal.environ, **influxdb.settings(bucket), "INFLUXDB_TOKEN": token}
    ran = report_hook(**environ)
    assert ran.status == 1
    assert "403 " in ran.err
    assert f'write access to "{bucket}"' in ran.err
    assert token not in ran.err
    assert influxdb.points(bucket) == set()


def test_a_2_x_refuses_a_wrong_path(
    server: Callable[[str], InfluxDB], report_hook: Hook, renewal: Renewal
) -> None:
    influxdb = server("influxd-2")
    bucket = influxdb.new_bucket()
    environ = {**renewal.environ, **influxdb.settings(bucket)}
    ran = report_hook(**{**environ, "INFLUXDB_URL": f"{influxdb.url}/influx"})
    assert ran.status == 1
    assert "40" in ran.err
    assert "or correct the path in INFLUXDB_URL" in ran.err
    assert influxdb.points(bucket) == set()
