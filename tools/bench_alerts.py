#!/usr/bin/env python3
"""What the alerts' queries cost on a large fleet, and overdue.flux as ratios in one run: to the published query and to reading alone.

The fleet: 10,000 certificates with two names each, 60 days of two reports a day, then 400 days. On InfluxDB 1.8, 1.12 and 2, one after
the other. Then what Kapacitor needs, and how long a mail takes. Ten minutes or more; start it with: make bench
"""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import requests

import start_kapacitor
import start_servers
from start_certbot import DAY
from start_servers import ORG, InfluxDB, wait_for

ROOT = Path(__file__).resolve().parent.parent
FLEET = int(os.environ.get("FLEET", "10000"))  # certificates
BATCH = 20_000  # lines in one write
LIFE = 90 * DAY
RUNS = 3  # of each query; the slow one on 1.8 runs once
READING = """from(bucket: "telegraf")
    |> range(start: -400d)
    |> filter(fn: (r) => r._measurement == "certbot_renewal")
    |> filter(fn: (r) => r._field == "renewal_due" or r._field == "not_after" or r._field == "run_at")
    |> last()
"""


def began(number: int, now: int) -> int:
    """When the present certificate of a lineage began: spread over 60 days."""
    return now - number * 7919 % (60 * DAY)


def renewals(now: int) -> Iterator[str]:
    """The last two renewals of every certificate and of its two names."""
    for number, age in itertools.product(range(FLEET), (0, 60 * DAY)):
        host, lineage, moment = f"host{number // 10}", f"c{number}.example.com", began(number, now) - age
        yield f"certbot_renewal,domain=all,host={host},lineage={lineage} renewed_count=2 {moment}"
        for name in (lineage, f"www.{lineage}"):
            yield f"certbot_renewal,domain={name},host={host} renewed_count=1 {moment}"


def states(now: int, first_day: int, last_day: int) -> Iterator[str]:
    """Two reports a day of every certificate, from so many days ago to so many days ago."""
    for at, number in itertools.product(range(now - first_day * DAY, now - last_day * DAY, DAY // 2), range(FLEET)):
        begin, moment = began(number, now), at + number % 3600
        begin += (moment - begin) // (60 * DAY) * 60 * DAY if moment < begin else 0  # the certificate of that time
        tags = f"domain=all,host=host{number // 10},lineage=c{number}.example.com"
        times = f"not_before={begin}i,renewal_due={begin + LIFE * 2 // 3}i,not_after={begin + LIFE}i,run_at={moment}i"
        yield f"certbot_renewal,{tags} {times} {moment}"


def runs(now: int, first_day: int, last_day: int) -> Iterator[str]:
    """Two runs of certbot a day on every host, from so many days ago to so many days ago."""
    for at, host in itertools.product(range(now - first_day * DAY, now - last_day * DAY, DAY // 2), range(FLEET // 10)):
        yield f"certbot_renewal,host=host{host} certificates=10i,failed_count=0i,unreadable_count=0i,exit_status=0i {at + host % 3600}"


def load(influxdb: InfluxDB, bucket: str, lines: Iterator[str]) -> None:
    """Writes many points."""
    parameters = {"bucket": bucket, "org": ORG, "precision": "s"}
    while batch := "\n".join(itertools.islice(lines, BATCH)):
        requests.post(
            influxdb.url + "/api/v2/write", params=parameters, data=batch, headers=influxdb.headers, timeout=300
        ).raise_for_status()


def seconds(influxdb: InfluxDB, bucket: str, flux: str, runs: int = RUNS) -> float:
    """The median time of a query until its last byte."""
    body = {"type": "flux", "query": flux.replace('"telegraf"', f'"{bucket}"'), "dialect": {"annotations": []}}
    took = []
    for _ in range(runs):
        begin = time.perf_counter()
        answer = requests.post(influxdb.url + "/api/v2/query", params={"org": ORG}, json=body, headers=influxdb.headers, timeout=900)
        took.append(time.perf_counter() - begin)
        if answer.status_code != 200:
            raise RuntimeError(answer.text)
    return statistics.median(took)


def queries(name: str, folder: Path) -> None:
    """Prints a line of seconds and ratios for one InfluxDB."""
    overdue, published, silent, failing = (
        (ROOT / "flux" / f"{query}.flux").read_text() for query in ("overdue", "overdue_domains", "silent_hosts", "failing")
    )
    with start_servers.influxdb(name, folder / name, config="max-body-size = 0") as influxdb:
        bucket, now = influxdb.new_bucket(), int(time.time())
        load(influxdb, bucket, renewals(now))
        for report in (states, runs):
            load(influxdb, bucket, report(now, 60, 0))
        ours, reading = seconds(influxdb, bucket, overdue), seconds(influxdb, bucket, READING)
        theirs = seconds(influxdb, bucket, published, 1 if name == "influxd-1.8" else RUNS)
        of_hosts = "".join(f"{seconds(influxdb, bucket, query):9.1f}" for query in (silent, failing))
        for report in (states, runs):
            load(influxdb, bucket, report(now, 400, 60))
        longer = "".join(f"{seconds(influxdb, bucket, query):9.1f}" for query in (overdue, silent, failing))
        print(f"{name:13} {ours:9.1f} {theirs:12.1f} {ours / theirs:7.2f} {ours / reading:9.2f} {of_hosts} {longer}", flush=True)


def mails(box: start_kapacitor.Inbox, number: int) -> bool:
    """Whether more mails than that arrived."""
    return len(box.mails) > number


def kapacitor(folder: Path) -> None:
    """Prints what Kapacitor needs for the fleet, and how long it takes from a point to a mail."""
    task = "template-id: renewal_overdue\ndbrps: [{db: telegraf, rp: autogen}]\nvars:\n  every: {type: duration, value: EVERY}\n"
    load_folder = folder / "load"
    for source in ("templates/renewal_overdue.tick", "handlers/email.yaml"):
        (load_folder / source).parent.mkdir(parents=True)
        (load_folder / source).write_bytes((ROOT / "kapacitor" / source).read_bytes())
    (load_folder / "tasks").mkdir()
    with (
        start_servers.influxdb("influxd-1.12", folder / "kapacitors", config="max-body-size = 0") as influxdb,
        start_kapacitor.inbox() as box,
    ):
        influxdb.command('CREATE DATABASE "telegraf"')
        now, every = int(time.time()), 10
        (load_folder / "tasks" / "renewal_overdue.yaml").write_text(task.replace("EVERY", f"{every}s"))
        with start_kapacitor.kapacitor(folder / "kapacitor", load_folder, influxdb, box) as running:
            took = []
            for number in range(3):
                fields = f"not_before=0i,renewal_due={now - 2 * DAY}i,not_after={now}i,run_at=0i"
                load(influxdb, "telegraf", iter([f"certbot_renewal,domain=all,host=h,lineage=late{number} {fields} {int(time.time())}"]))
                begin = time.perf_counter()
                wait_for(functools.partial(mails, box, number), "a mail")
                took.append(time.perf_counter() - begin)
            print(f"from a point written to its mail: at most {max(took):.1f} s with every = {every} s (wanted: every + 2 s)")
            load(influxdb, "telegraf", renewals(now))
            load(influxdb, "telegraf", states(now, 3, 0))
            wait_for(lambda: running.alert("renewal_overdue")["collected"] >= 10 * FLEET, "ten evaluations", 300)
            peak = next(line for line in Path(f"/proc/{running.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
            print(f"peak memory of kapacitord over ten evaluations of {FLEET} certificates: {int(peak.split()[1]) / 1024:.0f} MiB")


def main() -> int:
    """Prints all figures. Exit status 1 where a server is missing or a query fails."""
    print(f"{FLEET} certificates, ten on a host, 60 days of reports, then 400; seconds of the queries, and ratios")
    hosts = f"{'silent':>9}{'failing':>9}"
    print(f"{'':13} {'overdue':>9} {'published':>12} {'ratio':>7} {'/reading':>9} {hosts} {'400 days':>9}{hosts}", flush=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("influxd-1.8", "influxd-1.12", "influxd-2"):
                queries(name, Path(folder))
            print("wanted: at most 1.0 of the published (0.1 on 1.8), 3.0 of reading alone, 1.3 for 400 days against 60")
            kapacitor(Path(folder))
    except (start_servers.MissingServer, RuntimeError, requests.RequestException, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
