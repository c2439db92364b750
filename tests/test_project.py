"""What the project promises of its files: the hook's size, the Pythons it runs on, and that the README says what the code does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pythons
from conftest import make_lineage, put_hook
from start_certbot import DAY, HOOK
from start_servers import InfluxDB

ROOT = HOOK.parent


def test_the_hook_can_be_read_in_one_sitting() -> None:
    lines = [line for line in HOOK.read_text().splitlines() if line.strip()]
    assert len(lines) <= 450


def test_the_hook_uses_nothing_newer_than_python_3_9() -> None:
    vermin = str(Path(sys.executable).with_name("vermin"))
    done = subprocess.run([vermin, "-t=3.9-", "--no-tips", "--violations", str(HOOK)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("minor", pythons.MINORS)
def test_the_hook_runs_on_every_python(server: Callable[[str], InfluxDB], certbot_folder: Path, minor: int) -> None:
    python = pythons.environment(minor) / "bin" / "python"
    if not (python.parent.parent / "ready").exists():
        pytest.skip(f"no Python 3.{minor} on this machine")  # in CI too: not every Python can be had
    influxdb = server("influxd-1.8")
    bucket, names, begin = influxdb.new_bucket(), ["example.com", "*.example.com", "2001:db8::1"], int(time.time()) - DAY
    live = make_lineage(certbot_folder, "example.com", names, begin, 90 * DAY, "renew_before_expiry = 3 weeks\n")
    environ = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": " ".join(names), "HOSTNAME": "web1", **influxdb.settings(bucket)}
    for arguments, extra in ((), environ), (("--check",), influxdb.settings(bucket)), (("--help",), {}):
        command = [str(python), "-W", "error", str(put_hook(certbot_folder)), *arguments]
        done = subprocess.run(command, env=extra, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    points = influxdb.points(bucket)
    assert ("renewed_count", "1", "domain=2001:db8::1", "host=web1") in {p[1:] for p in points}
    assert ("renewal_due", str(begin + 69 * DAY), "domain=all", "host=web1", "lineage=example.com") in {p[1:] for p in points}
