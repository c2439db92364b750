"""A fleet of hosts with certificates as line protocol, and what the benchmarks measure with it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from tools import ROOT
from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.lineages import DAY
from tools.servers.prometheus import VictoriaMetrics

LINES_PER_WRITE = 20_000
LIFETIME = 90 * DAY
RENEWAL_INTERVAL = 60 * DAY
REPORT_INTERVAL = DAY // 2

# Pauses in seconds before a write is tried again that a busy server has answered with 5xx.
PAUSES = (1, 5, 25)


# ---- The fleet ---------------------------------------------------------------------------------
def issued_at(number: int, now: int) -> int:
    """Return notBefore of a lineage's current certificate: the lineages are spread over 60 days."""
    return now - number * 7919 % RENEWAL_INTERVAL


@dataclass(frozen=True)
class Fleet:
    """So many certificates of two names each, on so many hosts, as many on each.

    The reports are lines of line protocol, their times in seconds. `now` is in Unix seconds; a
    period begins `first_day` days ago and ends `last_day` days ago.
    """

    certificates: int
    hosts: int

    def host(self, number: int) -> str:
        """Return the host of a certificate."""
        return f"host{number * self.hosts // self.certificates}"

    def host_and_lineage(self, number: int) -> str:
        """Return the tags of a certificate."""
        return f"host={self.host(number)},lineage=c{number}.example.com"

    def renewals(self, now: int, times: int = 2) -> Iterator[str]:
        """Yield the last renewals of every certificate, so many of each, and of its two names."""
        for number in range(self.certificates):
            name = f"c{number}.example.com"
            fields = (
                f"renewed_count=2,lifetime={LIFETIME}i,due_after={LIFETIME * 2 // 3}i,"
                f'names="{name} www.{name}"'
            )
            tags = self.host_and_lineage(number)
            host = self.host(number)
            for earlier in range(times):
                moment = issued_at(number, now) - earlier * RENEWAL_INTERVAL
                yield f"certbot_renewal,domain=all,{tags} {fields} {moment}"
                yield f"certbot_renewal,domain={name},host={host} renewed_count=1 {moment}"
                yield f"certbot_renewal,domain=www.{name},host={host} renewed_count=1 {moment}"

    def states(self, now: int, first_day: int, last_day: int) -> Iterator[str]:
        """Yield the states of every certificate: two run reports a day."""
        tags = [self.host_and_lineage(number) for number in range(self.certificates)]
        for start in report_times(now, first_day, last_day):
            for number in range(self.certificates):
                moment = start + number % 3600
                not_before = certificate_at(moment, issued_at(number, now))
                fields = (
                    f"not_before={not_before}i,renewal_due={not_before + LIFETIME * 2 // 3}i,"
                    f"not_after={not_before + LIFETIME}i,run_at={moment}i,"
                    'failure="none"'
                )
                yield f"certbot_renewal,domain=all,{tags[number]} {fields} {moment}"

    def looks(self, now: int, first_day: int, last_day: int) -> Iterator[str]:
        """Yield with each of the states what is served, and what the only target has."""
        tags = [self.host_and_lineage(number) for number in range(self.certificates)]
        for start in report_times(now, first_day, last_day):
            for number in range(self.certificates):
                moment = start + number % 3600
                not_before = issued_at(number, now)
                served = f'served=2i,seen_at={moment}i,served_expiry=0i,not_served="none"'
                yield (
                    f"certbot_renewal,domain=all,{tags[number]} "
                    f"looked_at={moment}i,{served} {moment}"
                )
                delivered = (
                    f"deployed={not_before}i,deployed_expiry={not_before + LIFETIME}i,"
                    f'renewed={not_before}i,run_at={moment}i,deploy_error="none"'
                )
                yield f"certbot_renewal,{tags[number]},target=edge {delivered} {moment}"

    def runs(self, now: int, first_day: int, last_day: int) -> Iterator[str]:
        """Yield the runs of certbot: two a day on every host."""
        for start in report_times(now, first_day, last_day):
            for host in range(self.hosts):
                yield self.run_point(f"host{host}", start + host % 3600)

    def run_point(self, host: str, moment: int) -> str:
        """Return the run point of a run report in which every certificate is not due."""
        count = self.certificates // self.hosts
        not_due = " ".join(f"c{number}.example.com" for number in range(count))
        fields = (
            f"certificates={count}i,unreadable_count=0i,failed_count=0i,exit_status=0i,"
            f"failing=0i,steps=0i,retired=0i,started_at={moment - 10}i,duration=5i,"
            f'reported_at={moment}i,not_due="{not_due}",mode="renew",certbot="5.8.0",hook="0.1.0"'
        )
        return f"certbot_renewal,host={host} {fields} {moment}"


def report_times(now: int, first_day: int, last_day: int) -> range:
    """Return the times at which the hosts begin to report, in Unix seconds."""
    return range(now - first_day * DAY, now - last_day * DAY, REPORT_INTERVAL)


def certificate_at(moment: int, issued: int) -> int:
    """Return notBefore of the certificate that a lineage had at a moment.

    `issued` is notBefore of the current one; before it, one came every 60 days.
    """
    if moment >= issued:
        return issued
    intervals = (moment - issued) // RENEWAL_INTERVAL  # negative
    return issued + intervals * RENEWAL_INTERVAL


# ---- Databases ---------------------------------------------------------------------------------
def load(influxdb: InfluxDB | VictoriaMetrics, bucket: str, lines: Iterator[str]) -> None:
    """Write many lines, in requests of 20,000; raise an error if one fails."""
    while True:
        batch = "\n".join(itertools.islice(lines, LINES_PER_WRITE))
        if not batch:
            return
        write_batch(influxdb, bucket, batch)


def load_reports(
    influxdb: InfluxDB | VictoriaMetrics,
    bucket: str,
    fleet: Fleet,
    now: int,
    first_day: int,
    last_day: int,
) -> None:
    """Write all run reports of a period: states and runs."""
    load(influxdb, bucket, fleet.states(now, first_day, last_day))
    load(influxdb, bucket, fleet.runs(now, first_day, last_day))


def load_history(
    influxdb: InfluxDB | VictoriaMetrics, bucket: str, fleet: Fleet, days: int
) -> None:
    """Write the renewals of a fleet, and its reports of the last days."""
    now = int(time.time())
    load(influxdb, bucket, fleet.renewals(now))
    load_reports(influxdb, bucket, fleet, now, days, 0)


def write_batch(influxdb: InfluxDB | VictoriaMetrics, bucket: str, batch: str) -> None:
    """Write lines in one request.

    On a busy machine a server misses its own deadline and answers 5xx: then try again, as the hook
    does.
    """
    for pause in (*PAUSES, 0):
        response = requests.post(
            f"{influxdb.url}/api/v2/write",
            params={"bucket": bucket, "org": ORG, "precision": "s"},
            data=batch,
            headers=influxdb.headers,
            timeout=300,
        )
        if response.status_code < 500:
            break
        time.sleep(pause)
    response.raise_for_status()


def seconds(influxdb: InfluxDB, bucket: str, flux: str, runs: int, limit: int = 900) -> float:
    """Return the median time of so many runs of a query, each until its last byte.

    Raise requests.ReadTimeout if a run takes longer than the limit.
    """
    body = {
        "type": "flux",
        "query": flux.replace('"telegraf"', f'"{bucket}"'),
        "dialect": {"annotations": []},
    }
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        response = requests.post(
            f"{influxdb.url}/api/v2/query",
            params={"org": ORG},
            json=body,
            headers=influxdb.headers,
            timeout=limit,
        )
        times.append(time.perf_counter() - begin)
        if response.status_code != 200:
            raise RuntimeError(response.text)
    return statistics.median(times)


# ---- Kapacitor, memory -------------------------------------------------------------------------
def load_folder_of_one_alert(template: str, folder: Path, every: str) -> Path:
    """Make a load directory for Kapacitor; return it.

    It has one alert of the pack and its mails. The alert is evaluated once in `every`, such as 10s.
    """
    for source in (f"templates/{template}.tick", "handlers/email.yaml"):
        target = folder / source
        target.parent.mkdir(parents=True)
        target.write_bytes((ROOT / "kapacitor" / source).read_bytes())
    task = folder / "tasks" / f"{template}.yaml"
    task.parent.mkdir()
    task.write_text(f"""template-id: {template}
dbrps: [{{db: telegraf, rp: autogen}}]
vars:
  every: {{type: duration, value: {every}}}
""")
    return folder


def peak_memory(pid: int) -> float:
    """Return the most memory that a process has had at once, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
