#!/usr/bin/env python3
"""What the alerts' queries cost on a large fleet, and overdue.flux as ratios in one run: to the published query and to reading alone.

The fleet: 10,000 certificates with two names each, 60 days of two reports a day, then 400 days. On InfluxDB 1.8, 1.12 and 2, one after
the other. Then what Kapacitor needs, and how long a mail takes. Ten minutes or more; start it with: make bench
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
from tools.benchmarks.fleet import Fleet, load, only, peak, seconds
from tools.servers.influxdb import start_influxdb
from tools.servers.kapacitor import Inbox, start_inbox, start_kapacitor
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, wait_for

CERTIFICATES = int(os.environ.get("FLEET", "10000"))
FLEET = Fleet(CERTIFICATES, CERTIFICATES // 10)
RUNS = 3  # of each query; the slow one on 1.8 runs once
READING = """from(bucket: "telegraf")
    |> range(start: -400d)
    |> filter(fn: (r) => r._measurement == "certbot_renewal")
    |> filter(fn: (r) => r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at")
    |> last()
"""


def queries(name: str, folder: Path) -> None:
    """Prints a line of seconds and ratios for one InfluxDB."""
    names = ("overdue", "overdue_domains", "silent_hosts", "failing", "not_delivered", "not_served")
    overdue, published, silent, failing, *others = (
        (ROOT / "flux" / f"{query}.flux").read_text() for query in names
    )
    with start_influxdb(name, folder / name, config="max-body-size = 0") as influxdb:
        bucket, now = influxdb.new_bucket(), int(time.time())
        load(influxdb, bucket, FLEET.renewals(now))
        for report in (FLEET.states, FLEET.runs):
            load(influxdb, bucket, report(now, 60, 0))
        ours, reading = (
            seconds(influxdb, bucket, overdue, RUNS),
            seconds(influxdb, bucket, READING, RUNS),
        )
        theirs = seconds(influxdb, bucket, published, 1 if name == "influxd-1.8" else RUNS)
        of_hosts = "".join(
            f"{seconds(influxdb, bucket, query, RUNS):9.1f}" for query in (silent, failing)
        )
        for report in (FLEET.states, FLEET.runs):
            load(influxdb, bucket, report(now, 400, 60))
        longer = "".join(
            f"{seconds(influxdb, bucket, query, RUNS):9.1f}" for query in (overdue, silent, failing)
        )
        load(influxdb, bucket, FLEET.looks(now, 60, 0))
        last = "".join(f"{seconds(influxdb, bucket, query, RUNS):9.1f}" for query in others)
        print(
            f"{name:13} {ours:9.1f} {theirs:12.1f} {ours / theirs:7.2f} {ours / reading:9.2f} {of_hosts} {longer} {last}",
            flush=True,
        )


def mails(box: Inbox, number: int) -> bool:
    """Whether more mails than that arrived."""
    return len(box.mails) > number


def kapacitor(folder: Path) -> None:
    """Prints what Kapacitor needs for the fleet, and how long it takes from a point to a mail."""
    every = 10
    load_folder = only("renewal_overdue", folder / "load", f"{every}s")
    with (
        start_influxdb(
            "influxd-1.12", folder / "kapacitors", config="max-body-size = 0"
        ) as influxdb,
        start_inbox() as box,
    ):
        influxdb.command('CREATE DATABASE "telegraf"')
        now = int(time.time())
        with start_kapacitor(folder / "kapacitor", load_folder, influxdb, box) as running:
            took = []
            for number in range(3):
                fields = f"not_before=0i,renewal_due={now - 2 * DAY}i,not_after={now}i,run_at=0i"
                load(
                    influxdb,
                    "telegraf",
                    iter(
                        [
                            f"certbot_renewal,domain=all,host=h,lineage=late{number} {fields} {int(time.time())}"
                        ]
                    ),
                )
                begin = time.perf_counter()
                wait_for(functools.partial(mails, box, number), "a mail")
                took.append(time.perf_counter() - begin)
            print(
                f"from a point written to its mail: at most {max(took):.1f} s with every = {every} s (wanted: every + 2 s)"
            )
            load(influxdb, "telegraf", FLEET.renewals(now))
            load(influxdb, "telegraf", FLEET.states(now, 3, 0))
            wait_for(
                lambda: running.alert("renewal_overdue")["collected"] >= 10 * CERTIFICATES,
                "ten evaluations",
                300,
            )
            print(
                f"peak memory of kapacitord over ten evaluations of {CERTIFICATES} certificates: {peak(running.pid):.0f} MiB"
            )


def main() -> int:
    """Prints all figures. Exit status 1 where a server is missing or a query fails."""
    print(
        f"{CERTIFICATES} certificates, ten on a host, 60 days of reports, then 400; seconds of the queries, and ratios"
    )
    hosts, more = f"{'silent':>9}{'failing':>9}", f"{'delivered':>9}{'served':>9}"
    print(
        f"{'':13} {'overdue':>9} {'published':>12} {'ratio':>7} {'/reading':>9} {hosts} {'400 days':>9}{hosts} {more}",
        flush=True,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("influxd-1.8", "influxd-1.12", "influxd-2"):
                queries(name, Path(folder))
            print(
                "wanted: at most 1.0 of the published (0.1 on 1.8), 3.0 of reading alone, 1.3 for 400 days against 60"
            )
            kapacitor(Path(folder))
    except (MissingServer, RuntimeError, requests.RequestException, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
