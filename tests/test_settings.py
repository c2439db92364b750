"""Where settings come from, and how the env file is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import certbot_renewal_report as hook
from support.hooks import Ran, start
from support.renewals import renew
from tools.servers.lineages import install_report_hook

Hook = Callable[..., Ran]

ENVIRONMENT = {
    "HOSTNAME": "from-environment",
    "MEASUREMENT": "mine",
    "INFLUXDB_BUCKET": "b1",
    "INFLUXDB_ORG": "o1",
}


@pytest.fixture(autouse=True)
def lineage(certbot_folder: Path) -> None:
    """Make a certificate, so that a dry run has something to print."""
    renew(certbot_folder)


def host_tag(ran: Ran) -> str:
    """Return the host tag in the output of a dry run."""
    match = re.search(r"host=([^, ]*)", ran.out)
    assert match, ran.err
    return match[1]


# ---- The file, the environment, the script -----------------------------------------------------
def test_without_settings_the_defaults_hold(report_hook: Hook) -> None:
    url = "http://127.0.0.1:8086/api/v2/write?bucket=telegraf&org=&precision=s"
    assert report_hook("--dry-run").out.rstrip().endswith(url)


def test_the_environment_replaces_the_defaults(report_hook: Hook) -> None:
    ran = report_hook("--dry-run", **ENVIRONMENT)
    assert host_tag(ran) == "from-environment"
    assert ran.out.startswith("mine,")
    assert "bucket=b1&org=o1" in ran.out


def test_the_env_file_replaces_the_environment(report_hook: Hook, env_file: Path) -> None:
    env_file.write_text("HOSTNAME=from-file\nINFLUXDB_VERSION=1\nINFLUXDB_BUCKET=db/rp\n")
    ran = report_hook("--dry-run", **ENVIRONMENT)
    assert host_tag(ran) == "from-file"
    assert ran.out.startswith("mine,")
    assert "/write?db=db&rp=rp&precision=s" in ran.out


def test_the_defaults_may_be_edited_in_the_script(certbot_folder: Path) -> None:
    script = install_report_hook(certbot_folder)
    text = script.read_text()
    assert text.count('"http://127.0.0.1:8086",\n') == 1
    assert '"MEASUREMENT": Setting(\n        "certbot_renewal",\n' in text
    script.write_text(
        text.replace('"http://127.0.0.1:8086",\n', '"http://influx.example.com:8086",\n')
    )
    done = start(script, "--dry-run")
    assert "http://influx.example.com:8086/api/v2/write" in done.stdout


def test_it_is_known_which_settings_are_defaults() -> None:
    sources = hook.setting_sources({"HOSTNAME": "web1"}, {}, "the env file", "the script")
    assert sources["MEASUREMENT"] == ("certbot_renewal", "the script", True)
    assert sources["HOSTNAME"] == ("web1", "the environment", False)


def test_an_empty_hostname_means_the_name_of_the_host(report_hook: Hook) -> None:
    assert host_tag(report_hook("--dry-run", HOSTNAME="")) == os.uname().nodename


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"INFLUXDB_USER": "1"}, "/write?db=telegraf"),
        ({"INFLUXDB_USER": "1", "INFLUXDB_VERSION": "2"}, "/api/v2/write"),
        ({"INFLUXDB_USER": "somebody"}, "/api/v2/write"),
    ],
)
def test_the_version_of_the_published_hook_still_counts(
    report_hook: Hook, environ: dict[str, str], path: str
) -> None:
    assert path in report_hook("--dry-run", **environ).out


@pytest.mark.parametrize(
    ("script", "live_folder", "folder"),
    [
        ("/srv/certbot/renewal-hooks/deploy/hook.py", "", "/srv/certbot"),
        ("/opt/hook.py", "/srv/certbot/live/example.com", "/srv/certbot"),
        ("/opt/hook.py", "", "/etc/letsencrypt"),
        ("/opt/hook.py", "/somewhere/else", "/etc/letsencrypt"),
    ],
)
def test_the_folder_of_certbot_is_the_one_of_the_hook_or_of_the_lineage(
    script: str, live_folder: str, folder: str
) -> None:
    assert hook.config_folder(script, live_folder) == folder


# ---- The env file ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "HOSTNAME=web9",
        "export HOSTNAME=web9",
        "HOSTNAME = web9",
        "HOSTNAME='web9'",
        'HOSTNAME="web9"',
        "HOSTNAME=web9  # of the rack",
        '  HOSTNAME="web9" # of the rack',
        "\n# a comment\n\nHOSTNAME=web9\n",
        "HOSTNAME=web9\r\n",
    ],
)
def test_an_env_file_is_read_as_a_shell_would_read_it(
    report_hook: Hook, env_file: Path, text: str
) -> None:
    env_file.write_bytes(text.encode())
    assert host_tag(report_hook("--dry-run")) == "web9"


def test_a_hash_or_an_equals_sign_inside_a_value_belongs_to_it(env_file: Path) -> None:
    env_file.write_text("INFLUXDB_TOKEN=fake#token==\nINFLUXDB_BUCKET='a # b'\n")
    problems: list[str] = []
    assert hook.read_env_file(str(env_file), problems) == {
        "INFLUXDB_TOKEN": "fake#token==",
        "INFLUXDB_BUCKET": "a # b",
    }
    assert problems == []
