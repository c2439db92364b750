#!/usr/bin/env python3
"""A whole certificate life in a minute: certbot gets a certificate from a local CA, the hook reports it, certbot does not renew it in
time, Kapacitor sends a mail, certbot renews it, Kapacitor says so.

Everything is real (certbot, the CA pebble, InfluxDB 1.8, Kapacitor, a mail server, the hook) but the certificate lives 40 seconds, not
90 days, and the alert comes 5 seconds, not a day, after it was due. Nothing leaves this machine and nothing stays on it. Start it
with: make demo
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.servers.certbot import Certbot, start_pebble
from tools.servers.influxdb import start_influxdb
from tools.servers.kapacitor import Inbox, start_inbox, start_kapacitor
from tools.servers.lineages import DAY, REPORT_HOOK
from tools.servers.processes import MissingServer, wait_for

LIFE = 40  # seconds; certbot renews when half of it is over
CRIT = 5  # seconds after that: the alert
BUCKET = "telegraf"
STEPS = 7


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


def load_folder(folder: Path) -> Path:
    """The alert pack with its vars set for a life of seconds."""
    load = folder / "load"
    shutil.copytree(REPORT_HOOK.parent / "kapacitor", load)
    task = load / "tasks" / "renewal_overdue.yaml"
    task.write_text(
        task.read_text()
        .replace("value: 1.0", f"value: {CRIT / DAY:.9f}")
        .replace("value: 15m", "value: 1s")
    )
    return load


def wait_for_mail(box: Inbox, number: int) -> None:
    """Waits for a mail and shows what it is about."""
    wait_for(lambda: len(box.mails) >= number, "a mail", LIFE + CRIT)
    mail = box.mails[number - 1]
    show(f"From: {mail['From']}\nTo: {mail['To']}\nSubject: {mail['Subject']}")


def demo(folder: Path) -> None:
    """Plays it, with all data in a folder."""
    step(
        1,
        f"A CA whose certificates live {LIFE} seconds, an InfluxDB, a Kapacitor and a mail server, all on 127.0.0.1",
    )
    with (
        start_pebble(folder / "pebble", LIFE) as authority,
        start_influxdb("influxd-1.8", folder / "influxdb") as influxdb,
        start_inbox() as box,
        start_kapacitor(folder / "kapacitor", load_folder(folder), influxdb, box) as kapacitor,
    ):
        influxdb.command(f'CREATE DATABASE "{BUCKET}"')
        show(
            f"CA: {authority.directory}\nInfluxDB: {influxdb.url}\nKapacitor: {kapacitor.url}, with the folder kapacitor/ of this project"
        )

        step(2, "The hook in certbot's folder, and its settings beside it")
        certbot = Certbot(folder / "letsencrypt", authority)
        certbot.settings(
            {"INFLUXDB_URL": influxdb.url, "INFLUXDB_BUCKET": BUCKET, "HOSTNAME": "demo"}
        )
        env_file = certbot.folder / "certbot_renewal_report.env"
        show(f"{certbot.hook}\n{env_file}:\n  " + env_file.read_text().replace("\n", "\n  "))

        step(3, "certbot certonly -d example.com -d www.example.com")
        certbot_said(certbot.issue("example.com", "example.com", "www.example.com"))

        step(
            4,
            f"certbot does not run now. In {LIFE // 2} seconds the renewal is due, {CRIT} seconds later Kapacitor sends a mail",
        )
        wait_for_mail(box, 1)

        step(
            5, "certbot renew: late, but the certificate still lives. Kapacitor sends another mail"
        )
        certbot_said(certbot.renew())
        wait_for_mail(box, 2)

        step(6, f"{certbot.hook.name} --check")
        checked = subprocess.run(
            [sys.executable, str(certbot.hook), "--check"],
            capture_output=True,
            text=True,
            env={},
            timeout=60,
        )
        show(checked.stdout + checked.stderr)

        step(
            7,
            "What is in InfluxDB now: two renewals, each with its names, and the state after each report",
        )
        points = sorted(influxdb.points(BUCKET))
        for seconds, field, value, *tags in points:
            moment = time.strftime("%H:%M:%S", time.gmtime(int(seconds)))
            show(f"{moment}  certbot_renewal,{','.join(tags):50} {field}={value}")
        renewals = sum(
            1 for point in points if "domain=all" in point and point[1] == "renewed_count"
        )
        if renewals != 2 or len(box.mails) != 2 or checked.returncode != 0:
            raise RuntimeError(
                f"{renewals} renewals and {len(box.mails)} mails are there, 2 of each were expected"
            )
        print(
            "\nThat was it: two renewals, one alarm, one all-clear. Nothing is left running, or on the disk."
        )


def main() -> int:
    """Exit status 0 when both renewals and both mails arrived."""
    try:
        with tempfile.TemporaryDirectory(prefix="certbot-renewal-report-demo-") as folder:
            demo(Path(folder))
    except (MissingServer, RuntimeError, TimeoutError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
