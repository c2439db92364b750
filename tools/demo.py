#!/usr/bin/env python3
"""A whole certificate life in a minute: certbot gets a certificate from a local CA, finds it due, renews it, and the hook reports.

Everything is real (certbot, the CA pebble, InfluxDB 1.8, the hook) but the certificate lives 40 seconds, not 90 days. Nothing leaves
this machine and nothing stays on it. Start it with: make demo
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import start_certbot
import start_servers

LIFE = 40  # seconds; certbot renews when half of it is over
BUCKET = "telegraf"
STEPS = 6


def step(number: int, text: str) -> None:
    """Says what comes next."""
    print(f"\n[{number}/{STEPS}] {text}", flush=True)


def show(text: str) -> None:
    """What a command printed, set off from the demo's own words."""
    for line in text.strip().splitlines():
        print(f"    {line}", flush=True)


def certbot_said(done: subprocess.CompletedProcess[str]) -> None:
    """certbot's output; ends the demo where it failed."""
    show("\n".join(line for line in done.stdout.splitlines() if not set(line) <= {"-", " "}))
    if done.returncode != 0:
        raise RuntimeError(f"certbot ended with status {done.returncode}")


def wait_until(moment: float) -> None:
    """Counts the seconds down on one line."""
    while (left := moment - time.time()) > 0:
        print(f"\r    due in {left:2.0f} s ", end="", flush=True)
        time.sleep(min(1, left))
    print("\r    due now     ", flush=True)


def demo(folder: Path) -> None:
    """Plays it, with all data in a folder."""
    step(1, f"A CA whose certificates live {LIFE} seconds, and an InfluxDB, both on 127.0.0.1")
    with start_certbot.pebble(folder / "pebble", LIFE) as authority, start_servers.influxdb("influxd-1.8", folder / "influxdb") as influxdb:
        influxdb.command(f'CREATE DATABASE "{BUCKET}"')
        show(f"CA: {authority.directory}\nInfluxDB: {influxdb.url}")

        step(2, "The hook in certbot's folder, and its settings beside it")
        certbot = start_certbot.Certbot(folder / "letsencrypt", authority)
        certbot.settings({"INFLUXDB_URL": influxdb.url, "INFLUXDB_BUCKET": BUCKET, "HOSTNAME": "demo"})
        env_file = certbot.folder / "certbot_renewal_report.env"
        show(f"{certbot.hook}\n{env_file}:\n  " + env_file.read_text().replace("\n", "\n  "))

        step(3, "certbot certonly -d example.com -d www.example.com")
        certbot_said(certbot.issue("example.com", "example.com", "www.example.com"))
        first = certbot.not_before("example.com")

        step(4, f"certbot renew, {LIFE // 2} seconds too early, and again when the renewal is due")
        certbot_said(certbot.renew())
        wait_until(first + LIFE / 2 + 1)
        certbot_said(certbot.renew())

        step(5, f"{certbot.hook.name} --check")
        checked = subprocess.run([sys.executable, str(certbot.hook), "--check"], capture_output=True, text=True, env={}, timeout=60)
        show(checked.stdout + checked.stderr)

        step(6, "What is in InfluxDB now: two renewals, each with its names, and the state after each report")
        for seconds, field, value, *tags in sorted(influxdb.points(BUCKET)):
            moment = time.strftime("%H:%M:%S", time.gmtime(int(seconds)))
            show(f"{moment}  certbot_renewal,{','.join(tags):50} {field}={value}")
        renewals = sum(1 for point in influxdb.points(BUCKET) if "domain=all" in point and point[1] == "renewed_count")
        if renewals != 2 or checked.returncode != 0:
            raise RuntimeError(f"{renewals} renewals are there, 2 were expected")
        print("\nThat was it: both renewals arrived. Nothing is left running, or on the disk.")


def main() -> int:
    """Exit status 0 when both renewals arrived."""
    try:
        with tempfile.TemporaryDirectory(prefix="certbot-renewal-report-demo-") as folder:
            demo(Path(folder))
    except (start_servers.MissingServer, RuntimeError, TimeoutError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
