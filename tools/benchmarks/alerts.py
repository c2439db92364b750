#!/usr/bin/env python3
"""Measures what the alerts' queries cost on a large fleet, and what Kapacitor needs for it.

The fleet has 10,000 certificates with two names each, and 60 days of two reports a day, then 400
days. The queries run on InfluxDB 1.8, 1.12 and 2, one after the other; overdue.flux also as ratios
in one run, to the published query and to reading alone. Then it measures the memory of Kapacitor,
and how long a mail takes.

It takes ten minutes or more. FLEET is the number of certificates. Start it with: make bench
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
from pathlib import Path

import requests

from tools import ROOT
from tools.benchmarks.fleet import (
    Fleet,
    load,
    load_folder_of_one_alert,
    load_reports,
    peak_memory,
    seconds,
)
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.kapacitor import Inbox, Kapacitor, start_inbox, start_kapacitor
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, wait_for

CERTIFICATES = int(os.environ.get("FLEET", "10000"))
FLEET = Fleet(CERTIFICATES, CERTIFICATES // 10)
DAYS = 60
MORE_DAYS = 400
RUNS = 3  # of each query
EVERY_SECONDS = 10  # Kapacitor's alert is evaluated so often
EVALUATIONS = 10
EVALUATION_TIMEOUT = 300

PUBLISHED_QUERY = "overdue_domains"
READING = """from(bucket: "telegraf")
    |> range(start: -400d)
    |> filter(fn: (r) => r._measurement == "certbot_renewal")
    |> filter(fn: (r) =>
        r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at" or
        r._field == "failure")
    |> last()
"""


# ---- Queries -----------------------------------------------------------------------------------
class QueryBenchmark:
    """Measures queries on the fleet in a bucket of one InfluxDB."""

    def __init__(self, influxdb: InfluxDB) -> None:
        """Write the renewals, and the reports of 60 days."""
        self.influxdb = influxdb
        self.bucket = influxdb.new_bucket()
        self.now = int(time.time())
        load(influxdb, self.bucket, FLEET.renewals(self.now))
        load_reports(influxdb, self.bucket, FLEET, self.now, DAYS, 0)

    def seconds(self, name: str, runs: int = RUNS) -> float:
        """Return the median time of a query of flux/."""
        return self.seconds_of((ROOT / "flux" / f"{name}.flux").read_text(), runs)

    def seconds_of(self, flux: str, runs: int = RUNS) -> float:
        """Return the median time of a query."""
        return seconds(self.influxdb, self.bucket, flux, runs)

    def figures(self) -> list[str]:
        """Return all figures, in the order of `print_heading`."""
        overdue = self.seconds("overdue")
        reading = self.seconds_of(READING)
        # 1.8 takes minutes for the published query.
        published = self.seconds(
            PUBLISHED_QUERY, 1 if self.influxdb.name == "influxd-1.8" else RUNS
        )
        figures = [
            f"{overdue:9.1f}",
            f"{published:12.1f}",
            f"{overdue / published:7.2f}",
            f"{overdue / reading:9.2f}",
        ]
        figures += self.columns("silent_hosts", "failing")

        load_reports(self.influxdb, self.bucket, FLEET, self.now, MORE_DAYS, DAYS)
        figures += self.columns("overdue", "silent_hosts", "failing")

        load(self.influxdb, self.bucket, FLEET.looks(self.now, DAYS, 0))
        figures += self.columns("not_delivered", "not_served")
        return figures

    def columns(self, *queries: str) -> list[str]:
        """Return the times of queries, each as a column."""
        return [f"{self.seconds(query):9.1f}" for query in queries]


def print_heading() -> None:
    """Print the heading of the table of queries."""
    print(
        f"{CERTIFICATES} certificates, ten on a host, {DAYS} days of reports, then {MORE_DAYS}; "
        "seconds of the queries, and ratios"
    )
    columns = [f"{'overdue':>9}", f"{'published':>12}", f"{'ratio':>7}", f"{'/reading':>9}"]
    names = ["silent", "failing", f"{MORE_DAYS} days", "silent", "failing", "delivered", "served"]
    columns += [f"{name:>9}" for name in names]
    print(f"{'':13} {' '.join(columns)}", flush=True)


def measure_queries(folder: Path) -> None:
    """Print a line of seconds and ratios for each InfluxDB."""
    print_heading()
    for name in ("influxd-1.8", "influxd-1.12", "influxd-2"):
        with start_influxdb(name, folder / name, config="max-body-size = 0") as influxdb:
            figures = QueryBenchmark(influxdb).figures()
            print(f"{name:13} {' '.join(figures)}", flush=True)
    print(
        "wanted: at most 1.0 of the published query (0.1 on 1.8), 3.0 of reading alone, "
        f"1.3 for {MORE_DAYS} days against {DAYS}"
    )


# ---- Kapacitor ---------------------------------------------------------------------------------
def measure_kapacitor(folder: Path) -> None:
    """Print how long it takes from a point to its mail, and what Kapacitor needs for the fleet."""
    alert_folder = load_folder_of_one_alert("renewal_overdue", folder / "load", f"{EVERY_SECONDS}s")
    no_limit = "max-body-size = 0"
    with (
        start_influxdb("influxd-1.12", folder / "kapacitors", config=no_limit) as influxdb,
        start_inbox() as box,
    ):
        influxdb.command('CREATE DATABASE "telegraf"')
        with start_kapacitor(folder / "kapacitor", alert_folder, influxdb, box) as kapacitor:
            slowest = max(seconds_to_mail(influxdb, box, number) for number in range(3))
            print(
                f"from a point written to its mail: at most {slowest:.1f} s "
                f"with every = {EVERY_SECONDS} s (wanted: every + 2 s)"
            )
            print_peak_memory(influxdb, kapacitor)


def seconds_to_mail(influxdb: InfluxDB, box: Inbox, number: int) -> float:
    """Report a certificate that is overdue; return how long its mail takes."""
    now = int(time.time())
    tags = f"domain=all,host=h,lineage=late{number}"
    times = f"not_before=0i,renewal_due={now - 2 * DAY}i,not_after={now}i,run_at=0i"
    mails_before = len(box.mails)
    load(influxdb, "telegraf", iter([f'certbot_renewal,{tags} {times},failure="none" {now}']))
    begin = time.perf_counter()
    wait_for(functools.partial(has_more_mails, box, mails_before), "a mail")
    return time.perf_counter() - begin


def has_more_mails(box: Inbox, number: int) -> bool:
    """Return whether more than so many mails have arrived."""
    return len(box.mails) > number


def print_peak_memory(influxdb: InfluxDB, kapacitor: Kapacitor) -> None:
    """Print how much memory Kapacitor has had after ten evaluations of the whole fleet."""
    now = int(time.time())
    load(influxdb, "telegraf", FLEET.renewals(now))
    load(influxdb, "telegraf", FLEET.states(now, 3, 0))
    wait_for(
        lambda: kapacitor.alert("renewal_overdue")["collected"] >= EVALUATIONS * CERTIFICATES,
        "ten evaluations",
        EVALUATION_TIMEOUT,
    )
    memory = peak_memory(kapacitor.pid)
    print(
        f"peak memory of kapacitord over ten evaluations of {CERTIFICATES} certificates: "
        f"{memory:.0f} MiB"
    )


def main() -> int:
    """Print all figures; return 1 if a server is missing or a query fails."""
    try:
        with tempfile.TemporaryDirectory() as name:
            measure_queries(Path(name))
            measure_kapacitor(Path(name))
    except (MissingServer, RuntimeError, requests.RequestException, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
