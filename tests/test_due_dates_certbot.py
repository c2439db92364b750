"""When certbot renews: the due date by rule against certbot's own decision."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import certbot_renewal_report as hook
from support.servers import skip_or_fail
from tools.servers.lineages import DAY, KEY, make_lineage
from tools.servers.processes import MissingServer

HOUR = 3600
MARGIN = 300  # seconds: how near to the due date each decision is looked at

# Prints whether certbot would renew each lineage. Debian's certbot runs in Debian's Python.
PROGRAM = r"""
import argparse, json, sys
from certbot import configuration
from certbot._internal import renewal, storage

folder, *paths = sys.argv[1:]
namespace = argparse.Namespace(
    config_dir=folder, work_dir=folder, logs_dir=folder, http01_port=80, https_port=443, domains=[]
)
config = configuration.NamespaceConfig(namespace)
decisions = {}
for path in paths:
    lineage = storage.RenewableCert(path, config)
    if hasattr(lineage, "should_autorenew"):  # certbot before 4.0
        decisions[path] = lineage.should_autorenew()
    else:  # without a server in the configuration, certbot asks no CA (ARI)
        decisions[path] = renewal.should_autorenew(lineage, None)
print(json.dumps(decisions))
"""

LIFETIMES = [90 * DAY, 64 * DAY, 47 * DAY, 45 * DAY, 160 * HOUR, DAY, 365 * DAY, 180 * DAY]
LIFETIMES += [10 * DAY, 10 * DAY - 60]
INTERVALS = [
    "30 days",
    "30",
    "two weeks",
    "a week",
    "10 days and 6 hours",
    "3 weeks, 12 hours",
    "8 hours",
    "12h",
    "3.5 days",
]


@pytest.fixture(params=[sys.executable, "/usr/bin/python3"], ids=["newest", "distribution"])
def certbot_python(request: pytest.FixtureRequest) -> str:
    """The Python of a certbot: the newest, or the distribution's."""
    python: str = request.param
    if python != sys.executable and not Path("/usr/bin/certbot").exists():
        skip_or_fail(MissingServer("certbot is missing: apt-get install certbot"))
    return python


def certbot_version(python: str) -> tuple[int, int]:
    """Return the version of the certbot in a Python, such as (5, 8)."""
    program = "import certbot; print(certbot.__version__)"
    ran = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    major, minor = ran.stdout.split(".")[:2]
    return int(major), int(minor)


class Lineages:
    """Lineages made to ask certbot whether it would renew them now."""

    def __init__(self, folder: Path, python: str) -> None:
        """`folder` is the configuration folder, `python` the Python of the certbot to ask."""
        self.folder = folder
        self.python = python
        self.expected: dict[str, bool] = {}

    def add(self, not_before: int, lifetime: int, conf: str, is_due: bool) -> None:
        """Add a lineage of which `is_due` says whether certbot should renew it now."""
        name = f"lineage-{len(self.expected)}"
        make_lineage(self.folder, name, [f"{name}.example.com"], not_before, lifetime, conf, KEY)
        self.expected[str(self.folder / "renewal" / f"{name}.conf")] = is_due

    def assert_certbot_agrees(self) -> None:
        """Check what certbot decides about all lineages."""
        command = [self.python, "-c", PROGRAM, str(self.folder), *self.expected]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout) == self.expected


@pytest.fixture
def lineages(certbot_python: str, tmp_path: Path) -> Lineages:
    """No lineages yet."""
    return Lineages(tmp_path / "letsencrypt", certbot_python)


def test_certbot_renews_from_the_due_date_on(lineages: Lineages) -> None:
    version = min(certbot_version(lineages.python), (4, 0))  # without ARI
    now = int(time.time())
    for lifetime in LIFETIMES:
        due_after = hook.due_by_rule(now, now + lifetime, version, "") - now
        lineages.add(now - due_after - MARGIN, lifetime, "", is_due=True)
        if due_after:
            lineages.add(now - due_after + MARGIN, lifetime, "", is_due=False)
    lineages.assert_certbot_agrees()


def test_certbot_follows_renew_before_expiry(lineages: Lineages) -> None:
    version = certbot_version(lineages.python)
    now = int(time.time())
    lifetime = 365 * DAY
    for interval in INTERVALS:
        conf = f"renew_before_expiry = {json.dumps(interval)}\n"
        due_after = hook.due_by_rule(now, now + lifetime, version, interval) - now
        not_before = now - due_after  # so that the certificate is due now
        lineages.add(not_before - MARGIN, lifetime, conf, is_due=True)
        lineages.add(not_before + MARGIN, lifetime, conf, is_due=False)
    lineages.assert_certbot_agrees()


def test_certbot_renews_only_after_the_expiry_if_it_does_not_understand(
    lineages: Lineages,
) -> None:
    now = int(time.time())
    lifetime = 90 * DAY
    for interval in ("thirty days", "banana", "0", "-30 days", "30 days before expiry"):
        conf = f"renew_before_expiry = {json.dumps(interval)}\n"
        lineages.add(now - lifetime + MARGIN, lifetime, conf, is_due=False)
    for interval in ("thirty days", "banana", "0"):
        conf = f"renew_before_expiry = {json.dumps(interval)}\n"
        lineages.add(now - lifetime - MARGIN, lifetime, conf, is_due=True)
    lineages.assert_certbot_agrees()
