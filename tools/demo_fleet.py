"""A small fleet with all that a board can show: certificates on disk, of all lifetimes and in all states, reported by the hook itself at
the moments at which it would have. For the pictures of the README, and for the tests of the board."""

from __future__ import annotations

import contextlib
import io
import unittest.mock
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import certbot_renewal_report as hook
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_report_hook, make_lineage
from tools.servers.prometheus import VictoriaMetrics

HOUR = 3600


@dataclass(frozen=True)
class Lineage:
    """A certificate as it lies on a host: renewed so many days ago, and before that each time so many days after it was due."""

    name: str
    days: float  # since the last renewal
    names: tuple[str, ...] = ()  # more than its own
    lifetime: float = 90  # days
    late: tuple[float, ...] = (
        0.4,
        0.2,
        0.5,
    )  # the renewals before, the newest first, in days after they were due


@dataclass(frozen=True)
class Host:
    """A host, and how its last run of certbot went, so many days ago."""

    name: str
    lineages: tuple[Lineage, ...]
    days: float = 0.1
    exit_status: int | None = 0
    ended: tuple[str, ...] = ()
    dry_run: str = ""  # what certbot said in one, with {live} for the folder
    deployed: str = ""  # what certbot_renewal_deliver.py noted of a certificate, with {begin} and {end} of the old one that a target has


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
        dry_run="The following simulated renewals succeeded:\n"
        + "".join(
            f"  {{live}}/{name}.example.com/fullchain.pem (success)\n"
            for name in ("shop", "blog", "wiki", "status")
        ),
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
        dry_run="Failed to renew certificate example.net with error: Some challenges have failed.\n"
        "The following simulated renewals failed:\n  {live}/example.net/fullchain.pem (failure)\n",
    ),
    Host(
        "mail",
        (
            Lineage(
                "mail.example.org",
                14.8,
                ("imap.example.org", "smtp.example.org"),
                45,
                late=(0.2, 0.4, 0.3, 0.6),
            ),
            Lineage("lists.example.org", 30.3, (), 45),
            Lineage("webmail.example.org", 41.5, (), 64),
        ),
        ended=("legacy.example.org",),
        deployed="mail.example.org\tsmtp2\tno\t{begin}\t{end}\t0\tconnect to host smtp2 port 22: Connection timed out\n",
    ),
    Host("db1", (Lineage("db1.example.com", 48.6), Lineage("replica.example.com", 47.2)), days=3.3),
    Host(
        "edge",
        (
            Lineage("edge.example.com", 8.9, ("cache.example.com",)),
            Lineage("img.example.com", 26.3, lifetime=64),
        ),
        exit_status=None,
    ),
)


def due_after(lifetime: float) -> float:
    """After how many days certbot renews."""
    return lifetime * (1 / 2 if lifetime < 10 else 2 / 3)


def put_on_disk(folder: Path, lineages: Iterable[Lineage], now: int) -> None:
    """Lays the lineages out as certbot does, the older certificates in archive/."""
    for it in lineages:
        began = [it.days]
        for late in it.late:
            began.append(began[-1] + due_after(it.lifetime) + late)
        for days in reversed(began):
            make_lineage(
                folder,
                it.name,
                [it.name, *it.names],
                now - round(days * DAY),
                round(it.lifetime * DAY),
            )


def run_hook_at(
    folder: Path, now: int, environ: dict[str, str], *arguments: str, stdin: str = ""
) -> None:
    """Runs the hook in this process, as of a moment; RuntimeError with what it says where a report was not stored."""
    said = io.StringIO()
    with (
        unittest.mock.patch("certbot_renewal_report.time.time", lambda: float(now)),
        unittest.mock.patch.object(hook, "from_stdin", lambda: stdin),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        status = hook.main(arguments, environ, str(install_report_hook(folder)))
    if status != 0 and "the clock of this host" not in said.getvalue():
        raise RuntimeError(said.getvalue() or f"the hook ended with status {status}")


def report(
    fleet: Iterable[Host], folder: Path, influxdb: InfluxDB | VictoriaMetrics, bucket: str, now: int
) -> None:
    """Makes the hosts in a folder, and has each of them report."""
    for number, host in enumerate(fleet):
        certbot, at = folder / str(number), now - round(host.days * DAY)
        environ = {**influxdb.settings(bucket), "HOSTNAME": host.name}
        put_on_disk(certbot, [*host.lineages, *(Lineage(name, 50) for name in host.ended)], now)
        if host.deployed:
            old = {"begin": now - round(44.9 * DAY), "end": now + round(0.1 * DAY)}
            (certbot / hook.DEPLOY_FILE).write_text(host.deployed.format_map(old))
        failed = {"EXIT_STATUS": "1"} if host.exit_status == 1 else {}
        for hours in range(60, 0, -12):
            run_hook_at(certbot, at - hours * HOUR, {**environ, **failed}, "--all", "--history")
        for name in host.ended:
            for path in (certbot / "live" / name, certbot / "renewal" / f"{name}.conf"):
                path.rename(path.with_name(f".{path.name}"))
        if host.dry_run:
            run_hook_at(
                certbot,
                at - 5 * DAY,
                environ,
                "--after-dry-run",
                stdin=host.dry_run.replace("{live}", "/etc/letsencrypt/live"),
            )
        ended = {} if host.exit_status is None else {"EXIT_STATUS": str(host.exit_status)}
        run_hook_at(certbot, at, {**environ, **ended}, "--all")
