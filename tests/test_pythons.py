"""The programs run on every Python from 3.9 on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.renewals import Renewal, renew
from tools import ROOT
from tools.servers import pythons
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import (
    DAY,
    KEY,
    REPORT_HOOK,
    RUN_REPORT,
    install_report_hook,
    install_run_report,
    make_lineage,
)
from tools.servers.targets import install_deliver_hook

NAMES = ["example.com", "*.example.com", "2001:db8::1"]


@pytest.fixture(params=pythons.MINORS)
def python(request: pytest.FixtureRequest) -> Path:
    """Each Python in turn; a test is skipped, in CI too, if this machine does not have it."""
    environment = pythons.environment(request.param)
    if not (environment / "ready").exists():
        pytest.skip(f"no Python 3.{request.param} on this machine")
    return environment / "bin" / "python"


@pytest.fixture
def renewal(certbot_folder: Path) -> Renewal:
    """A certificate that certbot has renewed, with its key."""
    conf = "renew_before_expiry = 3 weeks\n"
    renewal = renew(certbot_folder, names=NAMES, age=DAY)
    make_lineage(certbot_folder, "example.com", NAMES, renewal.not_before, 90 * DAY, conf, KEY)
    return renewal


def run_without_warnings(python: Path, script: Path, *arguments: str, **environ: str) -> None:
    """Run a program; assert that it succeeds, and that Python has nothing to say about it."""
    done = subprocess.run(
        [str(python), "-W", "error", str(script), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_the_programs_use_nothing_newer_than_python_3_9() -> None:
    vermin = Path(sys.executable).with_name("vermin")
    programs = [REPORT_HOOK, RUN_REPORT]
    for folder in ("deliver", "board"):
        programs += sorted((ROOT / folder).rglob("*.py"))
    done = subprocess.run(
        [vermin, "-t=3.9-", "--no-tips", "--violations", *programs],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_report_hook_runs_on_every_python(
    server: Callable[[str], InfluxDB], certbot_folder: Path, python: Path, renewal: Renewal
) -> None:
    influxdb = server("influxd-1.8")
    bucket = influxdb.new_bucket()
    settings = influxdb.settings(bucket)
    script = install_report_hook(certbot_folder)
    run_without_warnings(python, script, **renewal.environ, **settings, HOSTNAME="web1")
    run_without_warnings(python, script, "--check", **settings)
    run_without_warnings(python, script, "--help")

    points = {point[1:] for point in influxdb.points(bucket)}
    assert ("renewed_count", "1", "domain=2001:db8::1", "host=web1") in points
    tags = ("domain=all", "host=web1", "lineage=example.com")
    assert ("renewal_due", str(renewal.not_before + 69 * DAY), *tags) in points


def test_the_run_report_runs_on_every_python(
    server: Callable[[str], InfluxDB], certbot_folder: Path, python: Path, renewal: Renewal
) -> None:
    influxdb = server("influxd-1.8")
    bucket = influxdb.new_bucket()
    settings = influxdb.settings(bucket)
    script = install_run_report(certbot_folder)
    run_without_warnings(python, script, "--all", **settings, HOSTNAME="web1", EXIT_STATUS="0")
    run_without_warnings(python, script, **settings, HOSTNAME="web1")
    run_without_warnings(python, script, "--check", **settings)
    run_without_warnings(python, script, "--help")

    points = {point[1:] for point in influxdb.points(bucket)}
    assert ("exit_status", "0", "host=web1") in points


def test_the_deliver_hook_runs_on_every_python(
    certbot_folder: Path, python: Path, renewal: Renewal
) -> None:
    delivered = certbot_folder / "delivered"
    install_report_hook(certbot_folder)
    script = install_deliver_hook(
        certbot_folder, f'[[command]]\ncommand = ["touch", "{delivered}"]\n'
    )
    for argument in ("--all", "--check", "--help"):
        run_without_warnings(python, script, argument)
    assert delivered.exists()
