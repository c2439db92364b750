"""A small fleet with all that a board can show, for the tests of the board and the pictures.

The certificates lie on disk as certbot writes them, with all lifetimes and in all states. The
programs of the project report them, at the times at which certbot and a timer would start them.
"""

from __future__ import annotations

import contextlib
import io
import os
import unittest.mock
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import certbot_renewal_report as hook
import certbot_renewal_run
from certbot_renewal_run import CertbotLog, CertbotRun, LineageResult
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_run_report, make_lineage
from tools.servers.prometheus import VictoriaMetrics

HOUR = 3600
CERTBOT = "5.8.0"
CERTBOT_RELEASE = (5, 8)
RUN_SECONDS = 12  # how long a run of certbot takes
PRODUCTION_CA = "https://acme-v02.api.letsencrypt.org/directory"
STAGING_CA = "https://acme-staging-v02.api.letsencrypt.org/directory"


@dataclass(frozen=True)
class Lineage:
    """A certificate on a host. All numbers are in days.

    `age` is the time since the last renewal. `late`: how long after they were due the renewals
    before it came, the newest first. `more_names`: the names beside its own. `is_staging`: a
    staging CA issued it.
    """

    name: str
    age: float
    more_names: tuple[str, ...] = ()
    lifetime: float = 90
    late: tuple[float, ...] = (0.4, 0.2, 0.5)
    is_staging: bool = False


@dataclass(frozen=True)
class Host:
    """A host. Its last run of certbot was so many days ago.

    `has_log` is False if nothing says how certbot's runs end. `failures` says why certbot cannot
    renew certificates that are due, by lineage. `ended` are certificates that were deleted.
    `dry_run` has the results of a dry run by lineage: why it failed, "" if it succeeded. `delivery`
    is a line of certbot_renewal_deliver.state, with {begin} and {end} for the old certificate of
    the target.
    """

    name: str
    lineages: tuple[Lineage, ...]
    days_since_run: float = 0.1
    has_log: bool = True
    failures: Mapping[str, str] = field(default_factory=dict)
    ended: tuple[str, ...] = ()
    dry_run: Mapping[str, str] = field(default_factory=dict)
    delivery: str = ""


WEB1_DRY_RUN = {
    "shop.example.com": "",
    "blog.example.com": "",
    "wiki.example.com": "",
    "status.example.com": "",
}
NO_RECORD = (
    "DNS problem: NXDOMAIN looking up A for cdn.example.net - check that a DNS record exists for "
    "this domain"
)
REFUSED = "192.0.2.7: Fetching http://old.example.net/: Connection refused"
WEB2_FAILURES = {
    "example.net": NO_RECORD,
    "intranet.example.net": "The manual plugin is not working; there may be problems with your "
    "existing configuration.",
    "old.example.net": REFUSED,
}
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
            Lineage("status.example.com", 2.7, lifetime=160 / 24, late=(0.1, 0.3, 0.2, 0.4)),
        ),
        dry_run=WEB1_DRY_RUN,
    ),
    Host(
        "web2",
        (
            Lineage("example.net", 63.6, ("www.example.net", "cdn.example.net")),
            Lineage("intranet.example.net", 61.3),
            Lineage("api.example.net", 21.7, ("v2.api.example.net",)),
            Lineage("old.example.net", 62.9, late=(0.2, 9.1)),
            Lineage("test.example.net", 17.6, is_staging=True),
        ),
        failures=WEB2_FAILURES,
        dry_run={"example.net": NO_RECORD},
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
            Lineage("lists.example.org", 30.5, lifetime=45),
            Lineage("webmail.example.org", 42.8, lifetime=64),
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
        has_log=False,
    ),
)


def days_until_due(lifetime: float) -> float:
    """Return after how many days certbot renews a certificate that lives for so many days."""
    return hook.due_by_rule(0, round(lifetime * DAY), CERTBOT_RELEASE, "") / DAY


def write_lineage(folder: Path, lineage: Lineage, now: int) -> None:
    """Write a lineage into a configuration folder of certbot, its older certificates too."""
    ages = [lineage.age]
    for days_late in lineage.late:
        ages.append(ages[-1] + days_until_due(lineage.lifetime) + days_late)

    names = [lineage.name, *lineage.more_names]
    lifetime = round(lineage.lifetime * DAY)
    conf = f"version = {CERTBOT}\n"
    params = {"server": STAGING_CA if lineage.is_staging else PRODUCTION_CA}
    for age in reversed(ages):
        not_before = now - round(age * DAY)
        make_lineage(folder, lineage.name, names, not_before, lifetime, conf, params=params)
    # The run report compares when a certificate was written with certbot's log.
    issued_at = now - round(lineage.age * DAY)
    for path in (folder / "archive" / lineage.name).iterdir():
        os.utime(path, (issued_at, issued_at))


def delete_lineage(folder: Path, name: str) -> None:
    """Hide a lineage, so that certbot no longer has it."""
    for path in (folder / "live" / name, folder / "renewal" / f"{name}.conf"):
        path.rename(path.with_name(f".{path.name}"))


def start_run_report_at(
    folder: Path, moment: int, environ: dict[str, str], log: CertbotLog, *arguments: str
) -> None:
    """Run certbot_renewal_run.py in this process, as if it were another time (Unix seconds).

    The server's clock shows the same time: without this, all points would have the present time.
    `log` is what certbot's log says. Raise RuntimeError with the output of the program if the
    report was not stored.
    """
    script = install_run_report(folder)
    stderr = io.StringIO()
    line_protocol = hook.line_protocol

    def line_at_moment(point: hook.Point) -> str:
        return line_protocol(point if point.time else point._replace(time=moment))

    with (
        unittest.mock.patch("time.time", lambda: float(moment)),
        unittest.mock.patch.object(hook, "unix_time", lambda date: moment),
        unittest.mock.patch.object(hook, "line_protocol", line_at_moment),
        unittest.mock.patch.object(
            certbot_renewal_run, "read_certbot_log", lambda logs_dir, after, now: log
        ),
        contextlib.redirect_stderr(stderr),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        status = certbot_renewal_run.main(arguments, environ, str(script))
    if status != 0:
        raise RuntimeError(stderr.getvalue() or f"the run report ended with status {status}")


# ---- certbot's log -----------------------------------------------------------------------------
def certbot_log(started_at: int, results: dict[str, LineageResult], is_dry_run: bool) -> CertbotLog:
    """Return a log with one run of certbot."""
    run = CertbotRun(
        position=str(started_at),
        started_at=started_at,
        ended_at=started_at + RUN_SECONDS,
        version=CERTBOT,
        mode="renew",
        is_dry_run=is_dry_run,
        is_finished=True,
        results=results,
        failure="",
        is_locked=False,
    )
    return CertbotLog([run], "", run)


def log_of_run(host: Host, ended_at: int, now: int) -> CertbotLog:
    """Return the log of the run of certbot that ended on a host at a time."""
    if not host.has_log:
        return CertbotLog([], "")
    started_at = ended_at - RUN_SECONDS
    results = {
        lineage.name: result_of_run(lineage, lineage.age - (now - started_at) / DAY, host.failures)
        for lineage in host.lineages
    }
    return certbot_log(started_at, results, is_dry_run=False)


def result_of_run(lineage: Lineage, age: float, failures: Mapping[str, str]) -> LineageResult:
    """Return what a run of certbot did with a lineage at this age of its certificate, in days."""
    is_due = age >= days_until_due(lineage.lifetime)
    if is_due and lineage.name in failures:
        return LineageResult(certbot_renewal_run.FAILED, failures[lineage.name], None)
    return LineageResult(certbot_renewal_run.NOT_DUE, "", None)


def log_of_dry_run(host: Host, ended_at: int) -> CertbotLog:
    """Return the log of a host's dry run that ended at a time."""
    results = {}
    for lineage, reason in host.dry_run.items():
        result = certbot_renewal_run.FAILED if reason else certbot_renewal_run.RENEWED
        results[lineage] = LineageResult(result, reason, None)
    return certbot_log(ended_at - RUN_SECONDS, results, is_dry_run=True)


# ---- Reports -----------------------------------------------------------------------------------
def exit_status_variable(log: CertbotLog) -> dict[str, str]:
    """Return certbot's exit status as the environment has it; {} if there was no run."""
    if not log.runs:
        return {}
    results = [result.result for result in log.runs[-1].results.values()]
    return {"EXIT_STATUS": "1" if certbot_renewal_run.FAILED in results else "0"}


def report_host(host: Host, folder: Path, environ: dict[str, str], now: int) -> None:
    """Make a host in a folder, and report it at the time of each of its runs of certbot."""
    for lineage in host.lineages:
        write_lineage(folder, lineage, now)
    for name in host.ended:
        write_lineage(folder, Lineage(name, 50), now)
    if host.delivery:
        old = {"begin": now - round(44.9 * DAY), "end": now + round(0.1 * DAY)}
        (folder / hook.DELIVERY_STATE_FILE).write_text(host.delivery.format_map(old))

    # Two runs a day, for two and a half days.
    last_run = now - round(host.days_since_run * DAY)
    for hours in range(60, 0, -12):
        moment = last_run - hours * HOUR
        log = log_of_run(host, moment, now)
        run_environ = {**environ, **exit_status_variable(log)}
        start_run_report_at(folder, moment, run_environ, log, "--all", "--history")

    for name in host.ended:
        delete_lineage(folder, name)
    if host.dry_run:
        dry_run_at = last_run - 5 * DAY
        start_run_report_at(folder, dry_run_at, environ, log_of_dry_run(host, dry_run_at))
    log = log_of_run(host, last_run, now)
    run_environ = {**environ, **exit_status_variable(log)}
    start_run_report_at(folder, last_run, run_environ, log, "--all")


def report_fleet(
    fleet: Iterable[Host], folder: Path, server: InfluxDB | VictoriaMetrics, bucket: str, now: int
) -> None:
    """Make the hosts in a folder, and report each of them into a bucket."""
    for number, host in enumerate(fleet):
        environ = {**server.settings(bucket), "HOSTNAME": host.name}
        report_host(host, folder / str(number), environ, now)
