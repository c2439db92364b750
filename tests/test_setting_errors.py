"""Settings that are wrong: one line names each of them, the file to correct, and no secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.hooks import Ran
from support.renewals import MOCKED_URL, renew
from support.users import as_nobody, let_everybody_enter

SECRET = "fake-secret"
Hook = Callable[..., Ran]


@pytest.fixture
def environ(certbot_folder: Path) -> dict[str, str]:
    """What certbot gives a deploy hook, and settings that are right."""
    return {
        **renew(certbot_folder).environ,
        "INFLUXDB_URL": MOCKED_URL,
        "INFLUXDB_TOKEN": f"somebody:{SECRET}",
    }


def assert_is_named(report_hook: Hook, environ: dict[str, str], name: str, state: str) -> None:
    """Assert that nothing is sent, and that the hook says what a setting must be, and where."""
    ran = report_hook(**environ)
    assert (ran.status, ran.out) == (1, "")
    assert f"{name} is {state}: it must be " in ran.err
    assert "certbot_renewal_report.env" in ran.err
    assert SECRET not in ran.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFLUXDB_URL", "influx.example.com:8086"),
        ("INFLUXDB_URL", "ftp://influx.example.com"),
        ("INFLUXDB_URL", f"http://somebody:{SECRET}@influx.example.com:8086"),
        ("INFLUXDB_URL", "http://influx example.com:8086"),
        ("INFLUXDB_URL", "http://"),
        ("INFLUXDB_URL", "http://influx.example.com:8086/?db=telegraf"),
        ("INFLUXDB_URL", "http://[::1"),
        ("INFLUXDB_VERSION", "4"),
        ("INFLUXDB_VERSION", "1.8"),
        ("INFLUXDB_BUCKET", "/rp"),
        ("INFLUXDB_TIMEOUT", "0"),
        ("INFLUXDB_TIMEOUT", "-1"),
        ("INFLUXDB_TIMEOUT", "ten"),
        ("INFLUXDB_TIMEOUT", "inf"),
        ("MEASUREMENT", "#comment"),
        ("MEASUREMENT", "_internal"),
        ("HOSTNAME", "web\n1"),
        ("INFLUXDB_TOKEN", f"{SECRET}\r\nX-Injected: 1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_must_be(
    report_hook: Hook, environ: dict[str, str], name: str, value: str
) -> None:
    assert_is_named(report_hook, {**environ, name: value}, name, "not valid")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFLUXDB_URL", ""),
        ("INFLUXDB_VERSION", ""),
        ("INFLUXDB_BUCKET", ""),
        ("INFLUXDB_BUCKET", "   "),
        ("INFLUXDB_TIMEOUT", ""),
        ("MEASUREMENT", ""),
    ],
)
def test_an_empty_setting_is_named_with_what_it_must_be(
    report_hook: Hook, environ: dict[str, str], name: str, value: str
) -> None:
    assert_is_named(report_hook, {**environ, name: value}, name, "empty")


def test_all_problems_of_the_settings_are_reported_at_once(
    report_hook: Hook, environ: dict[str, str], env_file: Path
) -> None:
    lines = ["INFLUXDB_URL=influx", "INFLUXDB_TOKEN_FILE=/nowhere/token", "INFLUX_BUCKET=x", SECRET]
    env_file.write_text("\n".join(lines) + "\n")
    ran = report_hook(**{**environ, "INFLUXDB_VERSION": "9", "INFLUXDB_TOKEN": ""})
    assert ran.status == 1
    assert "INFLUXDB_URL is not valid" in ran.err
    assert "INFLUXDB_VERSION is not valid" in ran.err
    assert (
        f"{env_file}: line 3: INFLUX_BUCKET is not a known setting: use one of INFLUXDB_URL, "
        in ran.err
    )
    assert "line 4 is not NAME=value" in ran.err
    assert SECRET not in ran.err


def test_a_token_and_a_token_file_are_one_too_many(
    report_hook: Hook, environ: dict[str, str]
) -> None:
    ran = report_hook(**{**environ, "INFLUXDB_TOKEN_FILE": "/nowhere/token"})
    assert "are both set: remove one of them" in ran.err


def test_a_token_file_that_is_missing(
    report_hook: Hook, environ: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "token"
    ran = report_hook(**{**environ, "INFLUXDB_TOKEN": "", "INFLUXDB_TOKEN_FILE": str(path)})
    assert ran.status == 1
    assert (
        "INFLUXDB_TOKEN_FILE is not valid: it must name a file that holds only the token" in ran.err
    )
    assert f"{path}: No such file or directory: restore the file, or correct its path" in ran.err


@pytest.mark.parametrize("content", [b"", b"a\nb", b"\xff\xfe"])
def test_a_token_file_without_a_token(
    report_hook: Hook, environ: dict[str, str], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    ran = report_hook(**{**environ, "INFLUXDB_TOKEN": "", "INFLUXDB_TOKEN_FILE": str(path)})
    assert ran.status == 1
    assert (
        "INFLUXDB_TOKEN_FILE is not valid: it must name a file that holds only the token" in ran.err
    )


def test_an_env_file_that_is_not_text(
    report_hook: Hook, environ: dict[str, str], env_file: Path
) -> None:
    env_file.write_bytes(b"\xff\xfeH\x00")
    ran = report_hook(**environ)
    assert ran.status == 1
    assert f"{env_file}: not UTF-8 text: replace it with a text file" in ran.err


def test_a_folder_in_place_of_the_env_file(
    report_hook: Hook, environ: dict[str, str], env_file: Path
) -> None:
    env_file.mkdir()
    ran = report_hook(**environ)
    assert ran.status == 1
    assert f"{env_file}: Is a directory: replace it with a text file" in ran.err


def test_an_env_file_that_the_user_may_not_read(
    report_hook: Hook, environ: dict[str, str], env_file: Path
) -> None:
    env_file.write_text("HOSTNAME=web1\n")
    env_file.chmod(0)
    let_everybody_enter(env_file.parent)
    ran = as_nobody(lambda: report_hook(**environ))
    assert ran.status == 1
    assert f"{env_file}: Permission denied: run as root, or let this user read the file" in ran.err
