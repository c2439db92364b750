"""docs/run-reports.md: an administrator follows it on a throwaway machine."""

from __future__ import annotations

import re

import pytest
import yaml

from certbot_renewal_run import LONGEST_PAUSE_SECONDS
from support.hooks import CRON
from support.installations import BUCKET, INSTALLED, LINEAGES, SERVER, Host
from support.manual import read_page
from tools import ROOT
from tools.servers.influxdb import ORG
from tools.servers.processes import wait_for

PAGE = read_page("run-reports.md")

# Starts a service of a compose file without a container engine, and prints what it prints.
DOCKER_COMPOSE = """#!/bin/sh
set -e
[ "$1 $2" = "compose -f" ] || exit 64
case $4 in
up) sh -c "$(cat {command})" >{log} 2>&1 & ;;
logs) cat {log} ;;
esac
"""


@pytest.fixture
def host(running_host: Host) -> Host:
    """A host on which the programs are installed, and nothing starts run reports."""
    running_host.restore(INSTALLED)
    return running_host


def assert_reports_runs(host: Host, exit_status: str = "0") -> None:
    """Assert that each run report is about both certificates, and has certbot's exit status.

    -1: it does not know the exit status.
    """
    runs = host.runs()
    assert runs
    for run in runs:
        assert run["certificates"] == "2"
        assert run["exit_status"] == exit_status
    for lineage in LINEAGES:
        assert host.state_of(lineage)["run_at"] > 0


@pytest.mark.parametrize("section", ["Debian and Ubuntu", "EPEL and Fedora", "Snap"])
def test_with_systemd(host: Host, section: str) -> None:
    host.follow("run-reports.md", section)
    assert_reports_runs(host)
    host.follow("run-reports.md", "Check")


def test_with_cron(host: Host) -> None:
    host.follow("run-reports.md", "Cron")
    assert_reports_runs(host)
    reports = len(host.runs())
    (line,) = re.findall(
        r"(?m)^17 3,15 \* \* \* root (.*)$", host.machine.read("/etc/cron.d/certbot")
    )
    assert host.machine.run(f"sleep 1; {line}") == ""
    assert len(host.runs()) == reports + 1
    host.follow("run-reports.md", "Check")


def test_with_docker(host: Host) -> None:
    host.follow("run-reports.md", "Docker")
    assert_reports_runs(host)


def test_with_compose(host: Host) -> None:
    (service,) = yaml.safe_load((ROOT / "compose" / "certbot.yaml").read_text())[
        "services"
    ].values()
    command, log = host.machine.folder / "command", host.machine.folder / "compose.log"
    command.write_text(service["command"][0].replace("$$", "$"))
    docker = host.machine.folder / "bin" / "docker"
    docker.write_text(DOCKER_COMPOSE.format(command=command, log=log))
    docker.chmod(0o755)

    host.follow("run-reports.md", "Compose")
    (documented,) = re.findall(r"The log contains the line `(.*) …`", PAGE)
    wait_for(lambda: documented in log.read_text(), "the report")
    assert_reports_runs(host)


def test_with_telegraf(host: Host) -> None:
    host.machine.add_built_program("telegraf")
    host.machine.add_unit(
        "telegraf.service",
        "[Service]\nType=oneshot\nExecStart=telegraf --once --config /etc/telegraf/telegraf.conf "
        "--config-directory /etc/telegraf/telegraf.d\n",
    )
    host.machine.write(
        "/etc/telegraf/telegraf.conf",
        f'[[outputs.influxdb_v2]]\nurls = ["https://{SERVER}:8086"]\ntoken = "{host.token}"\n'
        f'organization = "{ORG}"\nbucket = "{BUCKET}"\n',
    )
    host.machine.run("mkdir -p /etc/telegraf/telegraf.d")
    host.follow("run-reports.md", "Telegraf")
    assert_reports_runs(host, exit_status="-1")


def test_the_permission_for_telegraf_is_that_for_the_command_of_its_input() -> None:
    conf = (ROOT / "telegraf" / "certbot_renewal_report.conf").read_text()
    (rule,) = re.findall(r"(?m)^ *(telegraf ALL=.*)$", PAGE)
    assert f"#     {rule}\n" in conf
    assert f'"sudo -n {rule.partition("NOPASSWD: ")[2]}"' in conf


def test_the_units_and_commands_wait_for_the_server_for_as_long_as_the_page_says() -> None:
    assert "tried again for 24 hours, at least every five minutes" in " ".join(PAGE.split())
    assert LONGEST_PAUSE_SECONDS == 5 * 60
    drop_in = (ROOT / "systemd" / "certbot.service.d" / "renewal-report.conf").read_text()
    compose = (ROOT / "compose" / "certbot.yaml").read_text()
    for starter in (drop_in, compose, CRON):
        assert "--all --patience 24" in starter
