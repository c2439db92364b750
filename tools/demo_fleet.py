"""A small fleet with all that a board can show, for the tests of the board and the pictures.

The certificates lie on disk as certbot writes them, with all lifetimes and in all states. The
programs of the project report them, at the times at which certbot and a timer would start them.
"""

from __future__ import annotations

import contextlib
import io
import unittest.mock
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import certbot_renewal_report as hook
import certbot_renewal_run
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_run_report, make_lineage
from tools.servers.prometheus import VictoriaMetrics

HOUR = 3600
LIVE = "/etc/letsencrypt/live"


@dataclass(frozen=True)
class Lineage:
    """A certificate on a host. All numbers are in days.

    `age` is the time since the last renewal. `late`: how long after they were due the renewals
    before it came, the newest first. `more_names`: the names beside its own.
    """

    name: str
    age: float
    more_names: tuple[str, ...] = ()
    lifetime: float = 90
    late: tuple[float, ...] = (0.4, 0.2, 0.5)


@dataclass(frozen=True)
class Host:
    """A host, and how its last run of certbot ended, so many days ago.

    `exit_status` is None if nothing reports it. `ended` are certificates that were deleted.
    `dry_run` is what certbot printed in a dry run, "" if there was none. `delivery` is a line of
    certbot_renewal_deliver.state, with {begin} and {end} for the old certificate of the target.
    """

    name: str
    lineages: tuple[Lineage, ...]
    days_since_run: float = 0.1
    exit_status: int | None = 0
    ended: tuple[str, ...] = ()
    dry_run: str = ""
    delivery: str = ""


WEB1_DRY_RUN = f"""\
The following simulated renewals succeeded:
  {LIVE}/shop.example.com/fullchain.pem (success)
  {LIVE}/blog.example.com/fullchain.pem (success)
  {LIVE}/wiki.example.com/fullchain.pem (success)
  {LIVE}/status.example.com/fullchain.pem (success)
"""
WEB2_DRY_RUN = f"""\
Failed to renew certificate example.net with error: Some challenges have failed.
The following simulated renewals failed:
  {LIVE}/example.net/fullchain.pem (failure)
"""
MAIL_DELIVERY = (
    "mail.example.org\tsmtp2\tno\t{begin}\t{end}\t0\t"
    "connect to host smtp2 port 22: Connection timed out\n"
)

FLEET = (
    Host(
        "web1",
        (
            Lineage("example.com", 12, ("www.example.com", "*.static.example.com")),
            Lineage("shop.example.com", 34.2, ("pay.shop.example.com",)),
            Lineage("blog.example.com", 55.4, late=(0.3, 6.5)),
            Lineage("wiki.example.com", 3.4),
            Lineage("status.example.com", 2.1, lifetime=160 / 24, late=(0.1, 0.3, 0.2, 0.4)),
        ),
        dry_run=WEB1_DRY_RUN,
    ),
    Host(
        "web2",
        (
            Lineage("example.net", 63.2, ("www.example.net", "cdn.example.net")),
            Lineage("intranet.example.net", 60.4),
            Lineage("api.example.net", 21.7, ("v2.api.example.net",)),
            Lineage("old.example.net", 61.9, late=(0.2, 9.1)),
        ),
        exit_status=1,
        dry_run=WEB2_DRY_RUN,
    ),
    Host(
        "mail",
        (
            Lineage(
                "mail.example.org",
                14.8,
                ("imap.example.org", "smtp.example.org"),
                lifetime=45,
                late=(0.2, 0.4, 0.3, 0.6),
            ),
            Lineage("lists.example.org", 30.3, lifetime=45),
            Lineage("webmail.example.org", 41.5, lifetime=64),
        ),
        ended=("legacy.example.org",),
        delivery=MAIL_DELIVERY,
    ),
    Host(
        "db1",
        (Lineage("db1.example.com", 48.6), Lineage("replica.example.com", 47.2)),
        days_since_run=3.3,
    ),
    Host(
        "edge",
        (
            Lineage("edge.example.com", 8.9, ("cache.example.com",)),
            Lineage("img.example.com", 26.3, lifetime=64),
        ),
        exit_status=None,
    ),
)


def days_until_due(lifetime: float) -> float:
    """Return after how many days certbot renews a certificate that lives for so many days."""
    return lifetime / 2 if lifetime < 10 else lifetime * 2 / 3


def write_lineage(folder: Path, lineage: Lineage, now: int) -> None:
    """Write a lineage into a configuration folder of certbot, its older certificates too."""
    ages = [lineage.age]
    for days_late in lineage.late:
        ages.append(ages[-1] + days_until_due(lineage.lifetime) + days_late)

    names = [lineage.name, *lineage.more_names]
    lifetime = round(lineage.lifetime * DAY)
    for age in reversed(ages):
        make_lineage(folder, lineage.name, names, now - round(age * DAY), lifetime)


def delete_lineage(folder: Path, name: str) -> None:
    """Hide a lineage, so that certbot no longer has it."""
    for path in (folder / "live" / name, folder / "renewal" / f"{name}.conf"):
        path.rename(path.with_name(f".{path.name}"))


def start_run_report_at(
    folder: Path, moment: int, environ: dict[str, str], *arguments: str, stdin: str = ""
) -> None:
    """Run certbot_renewal_run.py in this process, as if it were another time (Unix seconds).

    Raise RuntimeError with its output if the report was not stored. That the server's clock then
    differs is no error.
    """
    script = install_run_report(folder)
    stderr = io.StringIO()
    with (
        unittest.mock.patch("time.time", lambda: float(moment)),
        unittest.mock.patch.object(certbot_renewal_run, "read_stdin", lambda: stdin),
        contextlib.redirect_stderr(stderr),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        status = certbot_renewal_run.main(arguments, environ, str(script))
    output = stderr.getvalue()
    if status != 0 and "the clock of this host" not in output:
        raise RuntimeError(output or f"the run report ended with status {status}")


def exit_status_variable(exit_status: int | None) -> dict[str, str]:
    """Return certbot's exit status as the environment has it; {} for None."""
    return {} if exit_status is None else {"EXIT_STATUS": str(exit_status)}


def report_host(host: Host, folder: Path, environ: dict[str, str], now: int) -> None:
    """Make a host in a folder, and report it at the time of each of its runs of certbot."""
    for lineage in host.lineages:
        write_lineage(folder, lineage, now)
    for name in host.ended:
        write_lineage(folder, Lineage(name, 50), now)
    if host.delivery:
        old = {"begin": now - round(44.9 * DAY), "end": now + round(0.1 * DAY)}
        (folder / hook.DELIVERY_STATE_FILE).write_text(host.delivery.format_map(old))

    # Two runs a day, for two and a half days. A host that fails now has failed in each of them.
    last_run = now - round(host.days_since_run * DAY)
    earlier_status = 1 if host.exit_status == 1 else None
    earlier = {**environ, **exit_status_variable(earlier_status)}
    for hours in range(60, 0, -12):
        start_run_report_at(folder, last_run - hours * HOUR, earlier, "--all", "--history")

    for name in host.ended:
        delete_lineage(folder, name)
    if host.dry_run:
        dry_run_at = last_run - 5 * DAY
        start_run_report_at(folder, dry_run_at, environ, "--after-dry-run", stdin=host.dry_run)
    last = {**environ, **exit_status_variable(host.exit_status)}
    start_run_report_at(folder, last_run, last, "--all")


def report_fleet(
    fleet: Iterable[Host], folder: Path, server: InfluxDB | VictoriaMetrics, bucket: str, now: int
) -> None:
    """Make the hosts in a folder, and report each of them into a bucket."""
    for number, host in enumerate(fleet):
        environ = {**server.settings(bucket), "HOSTNAME": host.name}
        report_host(host, folder / str(number), environ, now)
