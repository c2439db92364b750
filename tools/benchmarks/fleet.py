"""A fleet of hosts with certificates, as line protocol, and how it gets into a database: what the benches measure with."""

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

BATCH = 20_000  # lines in one write
LIFE = 90 * DAY


def began(number: int, now: int) -> int:
    """When the present certificate of a lineage began: spread over 60 days."""
    return now - number * 7919 % (60 * DAY)


@dataclass(frozen=True)
class Fleet:
    """So many certificates of two names each, on so many hosts, as many on each."""

    certificates: int
    hosts: int

    def host(self, number: int) -> str:
        """The host of a certificate."""
        return f"host{number * self.hosts // self.certificates}"

    def renewals(self, now: int, times: int = 2) -> Iterator[str]:
        """The last renewals of every certificate and of its two names."""
        for number, age in itertools.product(
            range(self.certificates), range(0, times * 60 * DAY, 60 * DAY)
        ):
            host, lineage, moment = (
                self.host(number),
                f"c{number}.example.com",
                began(number, now) - age,
            )
            told = f'renewed_count=2,lifetime={LIFE}i,due_after={LIFE * 2 // 3}i,names="{lineage} www.{lineage}"'
            yield f"certbot_renewal,domain=all,host={host},lineage={lineage} {told} {moment}"
            for name in (lineage, f"www.{lineage}"):
                yield f"certbot_renewal,domain={name},host={host} renewed_count=1 {moment}"

    def states(self, now: int, first_day: int, last_day: int) -> Iterator[str]:
        """Two reports a day of every certificate, from so many days ago to so many days ago."""
        tags = [
            f"domain=all,host={self.host(number)},lineage=c{number}.example.com"
            for number in range(self.certificates)
        ]
        for at, number in itertools.product(
            range(now - first_day * DAY, now - last_day * DAY, DAY // 2), range(self.certificates)
        ):
            begin, moment = began(number, now), at + number % 3600
            begin += (
                (moment - begin) // (60 * DAY) * 60 * DAY if moment < begin else 0
            )  # the certificate of that time
            times = f"not_before={begin}i,renewal_due={begin + LIFE * 2 // 3}i,not_after={begin + LIFE}i,run_at={moment}i"
            yield f"certbot_renewal,{tags[number]} {times} {moment}"

    def looks(self, now: int, first_day: int, last_day: int) -> Iterator[str]:
        """With each of those reports, what is served of every certificate, and what its one target has."""
        tags = [
            f"host={self.host(number)},lineage=c{number}.example.com"
            for number in range(self.certificates)
        ]
        for at, number in itertools.product(
            range(now - first_day * DAY, now - last_day * DAY, DAY // 2), range(self.certificates)
        ):
            begin, moment = began(number, now), at + number % 3600
            served = f'served=2i,seen_at={moment}i,served_expiry=0i,not_served="none"'
            yield f"certbot_renewal,domain=all,{tags[number]} looked_at={moment}i,{served} {moment}"
            has = f'deployed={begin}i,deployed_expiry={begin + LIFE}i,renewed={begin}i,run_at={moment}i,deploy_error="none"'
            yield f"certbot_renewal,{tags[number]},target=edge {has} {moment}"

    def runs(self, now: int, first_day: int, last_day: int) -> Iterator[str]:
        """Two runs of certbot a day on every host, from so many days ago to so many days ago."""
        counts = f"certificates={self.certificates // self.hosts}i,failed_count=0i,unreadable_count=0i,exit_status=0i"
        for at, host in itertools.product(
            range(now - first_day * DAY, now - last_day * DAY, DAY // 2), range(self.hosts)
        ):
            yield f"certbot_renewal,host=host{host} {counts} {at + host % 3600}"


def only(template: str, folder: Path, every: str) -> Path:
    """A load directory for Kapacitor with one alert of the pack, which looks so often, and its mails."""
    for source in (f"templates/{template}.tick", "handlers/email.yaml"):
        (folder / source).parent.mkdir(parents=True)
        (folder / source).write_bytes((ROOT / "kapacitor" / source).read_bytes())
    (folder / "tasks").mkdir()
    task = f"template-id: {template}\ndbrps: [{{db: telegraf, rp: autogen}}]\nvars:\n  every: {{type: duration, value: {every}}}\n"
    (folder / "tasks" / f"{template}.yaml").write_text(task)
    return folder


def peak(pid: int) -> float:
    """The most memory that a process had at once, in MiB."""
    line = next(
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def load(influxdb: InfluxDB | VictoriaMetrics, bucket: str, lines: Iterator[str]) -> None:
    """Writes many points; 5xx, as where a busy machine makes a server miss its own deadline, is tried again, as the hook does."""
    parameters, url = (
        {"bucket": bucket, "org": ORG, "precision": "s"},
        influxdb.url + "/api/v2/write",
    )
    while batch := "\n".join(itertools.islice(lines, BATCH)):
        for pause in (1, 5, 25, 0):
            answer = requests.post(
                url, params=parameters, data=batch, headers=influxdb.headers, timeout=300
            )
            if answer.status_code < 500:
                break
            time.sleep(pause)
        answer.raise_for_status()


def seconds(influxdb: InfluxDB, bucket: str, flux: str, runs: int, limit: int = 900) -> float:
    """The median time of a query until its last byte; at the limit it is given up (requests.ReadTimeout)."""
    body = {
        "type": "flux",
        "query": flux.replace('"telegraf"', f'"{bucket}"'),
        "dialect": {"annotations": []},
    }
    took = []
    for _ in range(runs):
        begin = time.perf_counter()
        answer = requests.post(
            influxdb.url + "/api/v2/query",
            params={"org": ORG},
            json=body,
            headers=influxdb.headers,
            timeout=limit,
        )
        took.append(time.perf_counter() - begin)
        if answer.status_code != 200:
            raise RuntimeError(answer.text)
    return statistics.median(took)
