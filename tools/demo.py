#!/usr/bin/env python3
"""Shows the whole life of a certificate in a minute.

certbot gets a certificate from a local CA, and the hook reports it. certbot does not renew it in
time: the alert fires and Kapacitor sends a mail. certbot renews it: the alert resolves and
Kapacitor sends another mail.

certbot, the CA pebble, InfluxDB 1.8, Kapacitor, the mail server and the hook are real. But the
certificate is valid for 40 seconds, not 90 days, and the alert fires 5 seconds after the renewal
was due, not a day. Nothing leaves this machine and nothing stays on it. Start it with: make demo
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools import ROOT
from tools.servers.certbot import Certbot, start_pebble
from tools.servers.influxdb import start_influxdb
from tools.servers.kapacitor import Inbox, start_inbox, start_kapacitor
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, wait_for

LIFETIME_SECONDS = 40  # certbot renews when half of it is over
CRIT_SECONDS = 5  # the alert fires so long after the renewal was due
BUCKET = "telegraf"
STEPS = 7


def print_step(number: int, text: str) -> None:
    """Print what the demo does next."""
    print(f"\n[{number}/{STEPS}] {text}", flush=True)


def show(text: str) -> None:
    """Print a command's output, indented."""
    for line in text.strip().splitlines():
        print(f"    {line}", flush=True)


def show_certbot(result: subprocess.CompletedProcess[str]) -> None:
    """Print certbot's output; raise a RuntimeError if it failed."""
    lines = [line for line in result.stdout.splitlines() if not is_rule(line)]
    show("\n".join(lines))
    if result.returncode != 0:
        raise RuntimeError(f"certbot ended with status {result.returncode}")


def is_rule(line: str) -> bool:
    """Return whether a line of certbot's output is empty, or only dashes."""
    return set(line) <= {"-", " "}


def show_mail(box: Inbox, number: int) -> None:
    """Wait for the mail of this number, from 1; print who gets it and its subject."""
    wait_for(lambda: len(box.mails) >= number, "a mail", LIFETIME_SECONDS + CRIT_SECONDS)
    mail = box.mails[number - 1]
    show(f"From: {mail['From']}\nTo: {mail['To']}\nSubject: {mail['Subject']}")


def make_load_folder(folder: Path) -> Path:
    """Copy the alert pack, and set its variables for certificates that are valid for seconds."""
    load_folder = folder / "load"
    shutil.copytree(ROOT / "kapacitor", load_folder)
    task = load_folder / "tasks" / "renewal_overdue.yaml"
    text = task.read_text()
    text = text.replace("value: 1.0", f"value: {CRIT_SECONDS / DAY:.9f}")
    text = text.replace("value: 15m", "value: 1s")
    task.write_text(text)
    return load_folder


class Demo:
    """The servers of the demo, and its steps, in their order."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        """Start the servers, with their data in a folder; the stack stops them."""
        print_step(
            1,
            f"Start a CA for certificates that are valid for {LIFETIME_SECONDS} seconds, "
            "InfluxDB, Kapacitor and a mail server, all on 127.0.0.1",
        )
        self.authority = stack.enter_context(start_pebble(folder / "pebble", LIFETIME_SECONDS))
        self.influxdb = stack.enter_context(start_influxdb("influxd-1.8", folder / "influxdb"))
        self.box = stack.enter_context(start_inbox())
        kapacitor = stack.enter_context(
            start_kapacitor(folder / "kapacitor", make_load_folder(folder), self.influxdb, self.box)
        )
        self.influxdb.command(f'CREATE DATABASE "{BUCKET}"')
        show(f"CA: {self.authority.directory}")
        show(f"InfluxDB: {self.influxdb.url}")
        show(f"Kapacitor: {kapacitor.url}, with the folder kapacitor/ of this project")

    def install_hook(self, folder: Path) -> Certbot:
        """Install the hook and its settings for a certbot with this configuration folder."""
        print_step(2, "Install the report hook in certbot's folder, with its settings")
        certbot = Certbot(folder, self.authority)
        certbot.settings(
            {
                "INFLUXDB_URL": self.influxdb.url,
                "INFLUXDB_BUCKET": BUCKET,
                "HOSTNAME": "demo",
            }
        )
        env_file = folder / "certbot_renewal_report.env"
        settings = [f"  {line}" for line in env_file.read_text().splitlines()]
        show("\n".join([str(certbot.hook), f"{env_file}:", *settings]))
        return certbot

    def get_certificate(self, certbot: Certbot) -> None:
        """Get the first certificate; the hook reports it."""
        print_step(3, "Get a certificate: certbot certonly -d example.com -d www.example.com")
        show_certbot(certbot.issue("example.com", "example.com", "www.example.com"))

    def miss_renewal(self) -> None:
        """Wait until the alert fires."""
        print_step(
            4,
            f"certbot does not run now. The renewal is due in {LIFETIME_SECONDS // 2} seconds. "
            f"The alert fires {CRIT_SECONDS} seconds later, and Kapacitor sends a mail",
        )
        show_mail(self.box, 1)

    def renew(self, certbot: Certbot) -> None:
        """Renew the certificate, and wait until the alert resolves."""
        print_step(
            5,
            "Renew the certificate before it expires: certbot renew. "
            "The alert resolves, and Kapacitor sends another mail",
        )
        show_certbot(certbot.renew())
        show_mail(self.box, 2)

    def check_installation(self, certbot: Certbot) -> None:
        """Run the hook with --check; raise a RuntimeError if it fails."""
        print_step(6, f"Check the installation: {certbot.hook.name} --check")
        result = subprocess.run(
            [sys.executable, str(certbot.hook), "--check"],
            capture_output=True,
            text=True,
            env={},
            timeout=60,
        )
        show(result.stdout + result.stderr)
        if result.returncode != 0:
            raise RuntimeError(f"--check ended with status {result.returncode}")

    def show_points(self) -> None:
        """Print all points; raise a RuntimeError if a renewal or a mail is missing."""
        print_step(
            7,
            "Show the points in InfluxDB: two renewals, each with its names, "
            "and the state of the certificate after each report",
        )
        renewals = 0
        for seconds, field, value, *tags in sorted(self.influxdb.points(BUCKET)):
            moment = time.strftime("%H:%M:%S", time.gmtime(int(seconds)))
            show(f"{moment}  certbot_renewal,{','.join(tags):50} {field}={value}")
            if field == "renewed_count" and "domain=all" in tags:
                renewals += 1

        mails = len(self.box.mails)
        if renewals != 2 or mails != 2:
            raise RuntimeError(f"expected 2 renewals and 2 mails, found {renewals} and {mails}")
        print("\nThe demo is complete: two renewals, one alert that fired and resolved.")


def play(folder: Path) -> None:
    """Play the demo, with all data in a folder."""
    with contextlib.ExitStack() as stack:
        demo = Demo(folder, stack)
        certbot = demo.install_hook(folder / "letsencrypt")
        demo.get_certificate(certbot)
        demo.miss_renewal()
        demo.renew(certbot)
        demo.check_installation(certbot)
        demo.show_points()


def main() -> int:
    """Play the demo; return 0 if both renewals were stored and both mails arrived."""
    try:
        with tempfile.TemporaryDirectory(prefix="certbot-renewal-report-demo-") as folder:
            play(Path(folder))
    except (MissingServer, RuntimeError, TimeoutError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("All servers are stopped, and all files are deleted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
