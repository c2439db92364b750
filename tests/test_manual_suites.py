"""docs/suites.md: an administrator follows it on a throwaway machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.buckets import new_token
from support.installations import INSTALLED, LINEAGES, RUN_REPORT, Host, start_host
from support.manual import read_page
from tools import ROOT

PAGE = read_page("suites.md")

# Runs on this machine what ssh would run on another one.
SSH = """#!/bin/sh
while [ "$1" != "root@web1.example.com" ] && [ "$1" != "root@web2.example.com" ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The machine of all tests."""
    with start_host(tmp_path_factory.mktemp("machine")) as host:
        ssh = host.machine.folder / "bin" / "ssh"
        ssh.write_text(SSH)
        ssh.chmod(0o755)
        yield host


@pytest.fixture
def host(running: Host) -> Host:
    """A host on which the programs are installed."""
    running.restore(INSTALLED)
    return running


def test_a_policy_is_changed_after_a_dry_run(host: Host) -> None:
    host.follow("suites.md", "Policies")
    conf = host.machine.read("/etc/letsencrypt/renewal/example.com.conf")
    assert "key_type = rsa" in conf


def test_a_dry_run_is_reported(host: Host) -> None:
    host.follow("suites.md", "Dry run")
    assert_dry_runs(host)


def test_a_dry_run_is_reported_by_cron(host: Host) -> None:
    (line,) = re.findall(r"(?m)^41 5 \* \* 6 root (.*)$", PAGE)
    assert host.machine.run(line) == ""
    assert_dry_runs(host)


def assert_dry_runs(host: Host) -> None:
    """Assert that a dry run of both certificates was reported, and that none failed."""
    results = [point for point in host.points() if point[1] == "dry_run_failed"]
    assert [point[2] for point in results] == ["0", "0"]


def test_many_certificates_are_renewed(host: Host) -> None:
    host.machine.run(f"{RUN_REPORT} --all")
    old = {lineage: host.state_of(lineage)["not_before"] for lineage in LINEAGES}
    host.follow("suites.md", "Bulk")
    for lineage in LINEAGES:
        assert host.state_of(lineage)["not_before"] > old[lineage]


def test_the_history_is_written_as_csv(host: Host) -> None:
    host.machine.run(f"{RUN_REPORT} --all")
    with host.machine.network():
        read_token = new_token(host.influxdb, "read")
    board = "/opt/certbot-renewal-board"
    host.machine.run(f"mkdir -p {board}; cp -r certbot_renewal_report.py board flux {board}/")
    settings = host.machine.read("/etc/letsencrypt/certbot_renewal_report.env")
    host.machine.write(
        f"{board}/board/certbot_renewal_board.env", settings.replace(host.token, read_token)
    )
    host.follow("suites.md", "History")
    lines = host.machine.run("cat renewals.csv").splitlines()
    assert len(lines) == 3
    assert lines[1].count("example") >= 2


def test_every_file_that_the_page_names_exists() -> None:
    for path in re.findall(r"`((?:flux|kapacitor)/[\w./]*)`", PAGE):
        assert (ROOT / path).exists(), path
