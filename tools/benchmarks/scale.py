#!/usr/bin/env python3
"""What a fleet costs: 1,000 certificates on 50 hosts, 10,000 on 500, 100,000 on 5,000. On InfluxDB 1.8, 1.12, 2 and VictoriaMetrics, one
after the other: all run reports at once, size on disk, time and memory of the alerts' queries. Then Kapacitor: what an evaluation costs,
and the mails when 1 %, and when all, are overdue at once, by certificate and by host. Then Telegraf as a relay while InfluxDB is away.

Fifty-five minutes on a quiet machine; start it with: make scale, or for a part of it with
SIZES="1000/50 10000/500" ENGINES="influxd-1.12 victoria-metrics" PYTHONPATH=. python tools/scale.py databases (or kapacitor, or telegraf).
Writes docs/scale.svg.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

import certbot_renewal_report as hook
from tools import ROOT
from tools.benchmarks.fleet import LIFE, Fleet, began, load, only, peak, seconds
from tools.servers.influxdb import ORG, InfluxDB, start_influxdb
from tools.servers.kapacitor import Inbox, Kapacitor, start_inbox, start_kapacitor
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, built_program, free_port, wait_for
from tools.servers.prometheus import (
    Program,
    VictoriaMetrics,
    start_alertmanager,
    start_victoria_metrics,
    start_vmalert,
)
from tools.servers.telegraf import start_telegraf

SIZES = [
    Fleet(*map(int, size.split("/")))
    for size in os.environ.get("SIZES", "1000/50 10000/500 100000/5000").split()
]
MIDDLE = SIZES[min(1, len(SIZES) - 1)]
LARGE = 100_000  # certificates; of such a fleet less is measured, for time
SEED = int(os.environ.get("SEED", "1"))  # of which certificates are overdue
METRICS = "victoria-metrics"
ENGINES = os.environ.get("ENGINES", f"influxd-1.8 influxd-1.12 influxd-2 {METRICS}").split()
CLIENTS, PROCESSES = (
    200,
    2,
)  # hosts that report at once, and the processes that play them: one would wait for itself
DAYS, FEWER = (
    60,
    10,
)  # of reports behind the queries, and for the large: InfluxDB 1.8 reads them all, the others the last
QUERIES = ("overdue", "overdue_hosts", "silent_hosts", "failing")
# 1.x refuses what goes beyond 100,000 values of a tag, and so a fleet with more names than that
LIMITS: dict[str, dict[str, str | int]] = {
    name: {"max-values-per-tag": 0} if "-1." in name else {} for name in ENGINES
}
AT_ONCE: dict[str, str | int] = {
    "cache-snapshot-write-cold-duration": "1s",
    "compact-full-write-cold-duration": "1s",
}
# What VictoriaMetrics refuses by itself is to be measured here
ROOMY = (
    "-search.disableCache",
    "-search.maxQueryDuration=10m",
    "-search.maxUniqueTimeseries=10000000",
)
LIMIT = 180  # seconds for a query
PATIENCE = 120  # seconds for the mails of one flood, and three evaluations more
COLOURS = (
    "#d1495b",
    "#e07b39",
    "#2e86ab",
    "#3a9d6e",
    "#8d6cab",
    "#a08c2c",
)  # to be seen on white and on black


# ---- InfluxDB --------------------------------------------------------------------------------------------------------
Settled = tuple[
    float, float, list[float], list[str]
]  # when the first began and the last ended, seconds of each request, errors


def reported(
    settings: hook.Settings, fleet: Fleet, hosts: Sequence[int], clients: int, now: int
) -> Settled:
    """Run reports of some hosts, as the hook makes and sends them, so many at a time."""
    each = fleet.certificates // fleet.hosts
    reports = []
    for host in hosts:
        found = []
        for number in range(host * each, (host + 1) * each):
            begin, name = began(number, now), f"c{number}.example.com"
            found.append(
                hook.Certificate(
                    name, [name, f"www.{name}"], begin, begin + LIFE, hook.due(begin, begin + LIFE)
                )
            )
        disk, own = (
            hook.Disk({one.lineage for one in found}, found, {}, []),
            settings._replace(host=f"host{host}"),
        )
        lines = hook.report_of(own, disk, now, True).lines
        parts = [lines[at : at + hook.BATCH] for at in range(0, len(lines), hook.BATCH)]
        reports.append([*parts, [hook.run_point(own, disk, [], 0, now)]])
    took, errors = list[float](), list[str]()

    def one(parts: list[list[str]]) -> None:
        for part in parts:
            begin = time.perf_counter()
            answer = hook.deliver(settings, part, 0)
            took.append(time.perf_counter() - begin)
            if answer.error:
                errors.append(answer.error)
                return

    first = time.perf_counter()  # one clock for all processes
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, reports))
    return first, time.perf_counter(), took, errors


def all_reports(url: str, bucket: str, token: str, fleet: Fleet) -> str:
    """All hosts report, as fast as the server takes it: requests and points in a second, the slowest request, what failed."""
    settings = hook.Settings(url, 2, bucket, ORG, token, 10.0, "certbot_renewal", "", {})
    shares, now = (
        [range(share, fleet.hosts, PROCESSES) for share in range(PROCESSES)],
        int(time.time()),
    )
    with ProcessPoolExecutor(PROCESSES) as pool:
        parts = list(
            pool.map(
                functools.partial(reported, settings, fleet, clients=CLIENTS // PROCESSES, now=now),
                shares,
            )
        )
    took, errors = (
        sorted(each for part in parts for each in part[2]),
        [error for part in parts for error in part[3]],
    )
    wall = max(part[1] for part in parts) - min(part[0] for part in parts)
    points = fleet.certificates * 4 + fleet.hosts
    why = f": {errors[0][:300]}" if errors else ""
    return (
        f"all reports in {wall:.1f} s, {len(took) / wall:.0f} requests/s, {points / wall:.0f} points/s; "
        f"a request median {took[len(took) // 2]:.2f} s, slowest {took[-1]:.2f} s; {len(errors)} failed{why}"
    )


def cpu(pid: int) -> float:
    """Seconds that a process has computed."""
    return sum(
        map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
    ) / os.sysconf("SC_CLK_TCK")


def measured(median_of: Callable[[int], float], pid: int) -> tuple[float, float]:
    """The seconds of a query, the median of three, and what its server computes for it, which others on the machine do not lengthen; where
    the first, of a server that was just started, takes over five, it is the only one."""
    computed, took = cpu(pid), median_of(1)
    if took > 5:
        return took, cpu(pid) - computed
    computed = cpu(pid)
    return median_of(3), (cpu(pid) - computed) / 3


def on_disk(folder: Path) -> int:
    """The bytes of a folder, as du counts them."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # compaction
            total += path.stat().st_blocks * 512
    return total


def settled(folder: Path) -> int:
    """The bytes of a folder when they have been the same for ten seconds; after a minute in any case."""
    sizes = [on_disk(folder)]
    while len(sizes) < 60 and (len(sizes) < 10 or len(set(sizes[-10:])) > 1):
        time.sleep(1)
        sizes.append(on_disk(folder))
    return sizes[-1]


def disk_of_a_year(name: str, folder: Path) -> float:
    """KiB on disk for each certificate after a year of two reports a day, everything compacted."""
    fleet, now = Fleet(1000, 50), int(time.time())
    if name == METRICS:
        with start_victoria_metrics(folder) as server:
            for lines in (fleet.renewals(now), fleet.states(now, 365, 0), fleet.runs(now, 365, 0)):
                load(server, "", lines)
            return merged(server) / fleet.certificates / 1024
    with start_influxdb(name, folder, config="max-body-size = 0") as influxdb:
        bucket = influxdb.new_bucket()
        load(influxdb, bucket, fleet.renewals(now))
        for report in (fleet.states, fleet.runs):
            load(influxdb, bucket, report(now, 365, 0))
    with start_influxdb(name, folder, storage=AT_ONCE):
        return settled(folder) / fleet.certificates / 1024


def engine(name: str, fleet: Fleet, folder: Path) -> dict[str, float]:
    """Prints what a fleet costs on an InfluxDB; returns the seconds of each query."""
    now, folder, days = (
        int(time.time()),
        folder / f"{name}-{fleet.certificates}",
        DAYS if fleet.certificates < LARGE else FEWER,
    )
    with start_influxdb(name, folder, config="max-body-size = 0", storage=LIMITS[name]) as influxdb:
        bucket, begin = influxdb.new_bucket(), time.perf_counter()
        load(influxdb, bucket, fleet.renewals(now))
        for report in (fleet.states, fleet.runs):
            load(influxdb, bucket, report(now, days, 0))
        rate = (fleet.certificates * (6 + 2 * days) + fleet.hosts * 2 * days) / (
            time.perf_counter() - begin
        )
        computed, said = (
            cpu(influxdb.child.pid),
            all_reports(influxdb.url, bucket, influxdb.token, fleet),
        )
        print(f"{name:13} {said}; {cpu(influxdb.child.pid) - computed:.1f} s CPU", flush=True)
        written = peak(influxdb.child.pid)
    with start_influxdb(name, folder, storage={**LIMITS[name], **AT_ONCE}):
        size = settled(folder)
    print(
        f"{'':13} {days} days at {rate:.0f} points/s: {size / 2**20:.0f} MiB on disk; peak memory {written:.0f} MiB",
        flush=True,
    )
    figures, texts = dict[str, float](), list[str]()
    for query in QUERIES:
        with start_influxdb(
            name, folder, storage=LIMITS[name]
        ) as influxdb:  # a memory of its own for each
            text = (ROOT / "flux" / f"{query}.flux").read_text()
            ask = functools.partial(seconds, influxdb, bucket, text, limit=LIMIT)
            try:
                figures[query], computed = measured(ask, influxdb.child.pid)
                texts.append(
                    f"{query} {figures[query]:.1f} s ({computed:.1f} s CPU) {peak(influxdb.child.pid):.0f} MiB"
                )
            except requests.ReadTimeout:
                texts.append(f"{query} over {LIMIT} s {peak(influxdb.child.pid):.0f} MiB")
    print(f"{'':13} {', '.join(texts)}", flush=True)
    return figures


# ---- VictoriaMetrics -------------------------------------------------------------------------------------------------
def alerts_of_prometheus() -> dict[str, str]:
    """The alerts of prometheus/rules.yml, and their queries; one that is there twice tells of most hosts, too."""
    groups, found = (
        yaml.safe_load((ROOT / "prometheus" / "rules.yml").read_text())["groups"],
        dict[str, str](),
    )
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        found[f"{rule['alert']} (most hosts)" if rule["alert"] in found else rule["alert"]] = rule[
            "expr"
        ]
    return found


def merged(server: VictoriaMetrics) -> int:
    """The bytes on disk when everything is merged."""
    server.flush()
    requests.get(server.url + "/internal/force_merge", timeout=30).raise_for_status()
    return settled(server.folder)


def promql_seconds(server: VictoriaMetrics, promql: str, runs: int) -> float:
    """The median time of a query."""
    took = []
    for _ in range(runs):
        begin = time.perf_counter()
        server.query(promql)
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


def seconds_of_all(running: Program) -> float:
    """How long vmalert takes for an evaluation of all rules: the mean of the next three."""

    def said(what: str) -> float:
        return running.number(
            f"vmalert_iteration_duration_seconds_{what}", 'group="certbot_renewal"'
        )

    begin, took = said("count") + 1, said("sum")  # that one may be under way
    wait_for(lambda: said("count") >= begin, "an evaluation", 600)
    begin, took = said("count"), said("sum")
    wait_for(lambda: said("count") >= begin + 3, "three evaluations", 1800)
    return (said("sum") - took) / (said("count") - begin)


def rules_of(server: VictoriaMetrics, fleet: Fleet, folder: Path) -> str:
    """What a real vmalert needs for all rules, when nothing is wrong, and when 1 % are overdue and 1 % of the hosts silent."""
    folder.mkdir()
    rules, box, now = folder / "rules.yml", Inbox(), int(time.time())
    rules.write_text(
        (ROOT / "prometheus" / "rules.yml").read_text().replace("interval: 15m", "interval: 1s")
    )
    config = (ROOT / "prometheus" / "alertmanager.yml").read_text()
    with (
        start_inbox(box),
        start_alertmanager(folder / "alertmanager", config, box) as notifier,
        start_vmalert(folder / "vmalert", rules, server.url, notifier.url) as running,
    ):
        well = seconds_of_all(running)
        load(server, "", late(fleet, 0.01, now))
        load(server, "", silent(fleet, 0.01, now))
        server.flush()
        ill = seconds_of_all(running)
        firing = running.number("vmalert_alerts_firing")
        errors = (folder / "vmalert" / "log").read_text().count("failed to execute")
        return f"all rules by vmalert {well:.1f} s, with {firing:.0f} alerts {ill:.1f} s, {peak(running.pid):.0f} MiB, {errors} errors"


def metrics_engine(fleet: Fleet, folder: Path) -> None:
    """Prints what a fleet costs on VictoriaMetrics; like `engine`, with the rules of Prometheus for queries."""
    now, folder, days = (
        int(time.time()),
        folder / f"{METRICS}-{fleet.certificates}",
        DAYS if fleet.certificates < LARGE else FEWER,
    )
    with start_victoria_metrics(folder, None, *ROOMY) as server:
        begin = time.perf_counter()
        for lines in (fleet.renewals(now), fleet.states(now, days, 0), fleet.runs(now, days, 0)):
            load(server, "", lines)
        rate = (fleet.certificates * (6 + 2 * days) + fleet.hosts * 2 * days) / (
            time.perf_counter() - begin
        )
        computed, said = cpu(server.pid), all_reports(server.url, "bucket", "", fleet)
        print(f"{METRICS} {said}; {cpu(server.pid) - computed:.1f} s CPU", flush=True)
        written = peak(server.pid)
        size = merged(server)
        print(
            f"{'':13} {days} days at {rate:.0f} points/s: {size / 2**20:.0f} MiB on disk; peak memory {written:.0f} MiB",
            flush=True,
        )
        load(server, "", fleet.looks(now, days, 0))
        server.flush()
    texts = []
    for alert, promql in alerts_of_prometheus().items():
        with start_victoria_metrics(folder, None, *ROOMY) as server:  # a memory of its own for each
            took, computed = measured(functools.partial(promql_seconds, server, promql), server.pid)
            texts.append(f"{alert} {took:.1f} s ({computed:.1f} s CPU) {peak(server.pid):.0f} MiB")
    print(f"{'':13} {', '.join(texts)}", flush=True)
    with start_victoria_metrics(folder, None, *ROOMY) as server:
        print(
            f"{'':13} {rules_of(server, fleet, folder / 'rules')}; peak memory {peak(server.pid):.0f} MiB",
            flush=True,
        )


# ---- Kapacitor -------------------------------------------------------------------------------------------------------
@dataclass
class Arrivals(Inbox):
    """A mail server that counts, and takes its time for each mail (seconds)."""

    pause: float = 0.0
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Counts a mail."""
        if self.pause:
            time.sleep(self.pause)  # nothing else is in its loop
        self.times.append(time.perf_counter())
        return "250 OK"


def late(fleet: Fleet, share: float, now: int) -> Iterator[str]:
    """States of certificates that are overdue, this share of all: chosen at random, each due at another moment."""
    for number in sorted(
        random.Random(SEED).sample(range(fleet.certificates), round(fleet.certificates * share))
    ):
        due = now - 2 * DAY - number % DAY
        times = f"not_before={due - LIFE * 2 // 3}i,renewal_due={due}i,not_after={due + LIFE // 3}i,run_at={now}i"
        yield f"certbot_renewal,domain=all,host={fleet.host(number)},lineage=c{number}.example.com {times} {now}"


def silent(fleet: Fleet, share: float, now: int) -> Iterator[str]:
    """States of certificates that nobody has heard of for three days, one of this share of all hosts each."""
    for host in range(round(fleet.hosts * share)):
        times = f"not_before={now - LIFE // 2}i,renewal_due={now + LIFE // 6}i,not_after={now + LIFE // 2}i,run_at={now - 3 * DAY}i"
        yield f"certbot_renewal,domain=all,host=host{host},lineage=silent.example.com {times} {now - 3 * DAY}"


def flood(
    box: Arrivals, running: Kapacitor, influxdb: InfluxDB, lines: Iterator[str], every: int
) -> str:
    """Makes certificates overdue; what mails come, when, and how many events Kapacitor threw away."""
    before, lost = len(box.times), running.log.read_text().count("failed to deliver event")
    load(influxdb, "telegraf", lines)
    begin, patience = time.perf_counter(), PATIENCE + 3 * every

    def over() -> bool:
        quiet = time.perf_counter() - (
            box.times[-1] if len(box.times) > before else begin + patience
        )
        return quiet > 2 * every + 5 or time.perf_counter() - begin > patience

    wait_for(over, "the mails", 2 * patience)
    mails = [at - begin for at in box.times[before:]]
    lost = running.log.read_text().count("failed to deliver event") - lost
    if not mails:
        return f"no mail within {patience} s"
    rest = "" if time.perf_counter() - begin <= patience else ", more to come"
    return f"{len(mails)} mails, first {mails[0]:.1f} s, last {mails[-1]:.1f} s{rest}, {lost} lost"


def alerts(
    fleet: Fleet,
    template: str,
    every: int,
    folder: Path,
    pause: float = 0.0,
    buffer: int = 0,
    shares: Sequence[float] = (),
) -> None:
    """Prints what Kapacitor needs for a fleet, and what happens when shares of it become overdue, one after the other. `pause` is the mail
    server's for each mail, in seconds, `buffer` Kapacitor's topic-buffer-length."""
    now, box = int(time.time()), Arrivals(pause)
    more = f"[alert]\ntopic-buffer-length = {buffer}" if buffer else ""
    name = "influxd-1.12"
    with (
        start_influxdb(
            name, folder / "influxdb", config="max-body-size = 0", storage=LIMITS[name]
        ) as influxdb,
        start_inbox(box),
    ):
        influxdb.command('CREATE DATABASE "telegraf"')
        load(influxdb, "telegraf", fleet.states(now, 1, 0))
        load_folder = only(template, folder / "load", f"{every}s")
        with start_kapacitor(
            folder / "kapacitor", load_folder, influxdb, box, login=more
        ) as running:
            groups = fleet.hosts if template.endswith("_hosts") else fleet.certificates
            wait_for(lambda: running.alert(template)["collected"] >= groups, "an evaluation", 600)
            begin, computed, judged = running.alert(template)["collected"], cpu(running.pid), 0
            while judged < 2 * groups:
                time.sleep(every)  # without looking: to be asked costs it something too
                judged = running.alert(template)["collected"] - begin
            cost = (cpu(running.pid) - computed) / judged * groups
            slow = f", mail server takes {pause * 1000:.0f} ms" if pause else ""
            slow += f", topic-buffer-length = {buffer}" if buffer else ""
            print(
                f"{fleet.certificates} certificates, {template}{slow}, every = {every} s: {cost:.2f} s CPU an evaluation",
                flush=True,
            )
            for share in shares:
                found = flood(box, running, influxdb, late(fleet, share, int(time.time())), every)
                print(
                    f"  {share:4.0%} overdue: {found}; peak memory {peak(running.pid):.0f} MiB",
                    flush=True,
                )


# ---- Telegraf --------------------------------------------------------------------------------------------------------
def relay(fleet: Fleet, folder: Path, limit: int) -> None:
    """Prints what Telegraf keeps of the reports of all hosts while InfluxDB is away; `limit` is its metric_buffer_limit."""
    port, name = free_port(), "influxd-1.12"
    start = functools.partial(
        start_influxdb, name, folder / "influxdb", port, "max-body-size = 0", LIMITS[name]
    )
    with start() as influxdb:
        bucket = influxdb.new_bucket()
    with start_telegraf(
        2, influxdb, bucket, folder / "telegraf", agent=f"metric_buffer_limit = {limit}"
    ) as url:
        said = all_reports(url, bucket, "", fleet)
        with start() as influxdb:
            count = f'from(bucket: "{bucket}") |> range(start: -400d) |> filter(fn: (r) => r._field == "run_at") |> group() |> count()'
            kept = [-1, 0]
            while kept[-1] != kept[-2] or len(kept) < 5:
                time.sleep(5)
                kept.append(int((influxdb.query(count) or [{"_value": "0"}])[0]["_value"]))
    print(
        f"metric_buffer_limit = {limit}: {said}; of {fleet.certificates} states {kept[-1]} arrived when InfluxDB was back",
        flush=True,
    )


# ---- The picture -----------------------------------------------------------------------------------------------------
def picture(figures: dict[str, dict[int, float]]) -> str:
    """Seconds of a query against the size of the fleet, both in powers of ten, as SVG that follows light and dark."""
    width, height, left, right, bottom = 640, 320, 50, 170, 40

    def across(certificates: float) -> float:
        return left + (math.log10(certificates) - 3) / 2 * (width - left - right)

    def up(took: float) -> float:
        return height - bottom - (math.log10(took) + 1) / 4 * (height - bottom - 30)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        "<title>Seconds of the query of overdue renewals, against certificates</title>",
        "<style>text{fill:#333}.g{stroke:#8886}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>",
        f'<text x="{left}" y="14">seconds of a query; it runs every 15 minutes</text>',
    ]
    for power in range(-1, 4):
        y = up(10**power)
        lines.append(f'<path class="g" d="M{left} {y:.0f}H{width - right}"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{10**power:g}</text>')
    for power, label in ((3, "1,000"), (4, "10,000"), (5, "100,000 certificates")):
        lines.append(
            f'<text x="{across(10**power):.0f}" y="{height - bottom + 18}" text-anchor="middle">{label}</text>'
        )
    y = 0.0
    for (name, points), colour in zip(
        sorted(figures.items(), key=lambda item: -item[1][max(item[1])]), COLOURS
    ):
        path = " ".join(
            f"{across(size):.0f},{up(took):.0f}" for size, took in sorted(points.items())
        )
        dash = ' stroke-dasharray="6 4"' if "by host" in name else ""
        lines.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
        )
        y = max(up(points[max(points)]) + 4, y + 15)  # one below the other
        lines.append(
            f'<text x="{across(max(points)) + 8:.0f}" y="{y:.0f}" style="fill:{colour}">{name}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


# ---- What is measured ------------------------------------------------------------------------------------------------
def of_databases(folder: Path) -> None:
    """Prints what fleets cost on each database, and draws the queries of InfluxDB."""
    for kind in ENGINES:
        year = disk_of_a_year(kind, folder / f"year-{kind}")
        print(
            f"{kind:13} {year:.1f} KiB on disk for a certificate and a year of two reports a day, of 1000 on 50 hosts",
            flush=True,
        )
    drawn = dict[str, dict[int, float]]()
    for fleet in SIZES:
        print(
            f"\n{fleet.certificates} certificates on {fleet.hosts} hosts, {CLIENTS} hosts reporting at a time"
        )
        for kind in ENGINES:
            if kind == METRICS:
                metrics_engine(fleet, folder)
                continue
            figures = engine(kind, fleet, folder)
            for query, more in (("overdue", ""), ("overdue_hosts", ", by host")):
                if query in figures:
                    drawn.setdefault(kind.replace("influxd-", "InfluxDB ") + more, {})[
                        fleet.certificates
                    ] = figures[query]
    if len(SIZES) > 1:
        (ROOT / "docs").mkdir(exist_ok=True)
        (ROOT / "docs" / "scale.svg").write_text(picture(drawn))


def of_kapacitor(folder: Path) -> None:
    """Prints what the alerts cost, and the mails of a flood; with a slow mail server too."""
    print("\nKapacitor, on InfluxDB 1.12", flush=True)
    for fleet in SIZES[1:] or SIZES:
        for template in ("renewal_overdue", "renewal_overdue_hosts"):
            every = 10 if fleet.certificates < LARGE else 30
            alerts(
                fleet,
                template,
                every,
                folder / f"{template}-{fleet.certificates}",
                shares=(0.01, 1.0),
            )
    for buffer in (0, MIDDLE.certificates):
        alerts(MIDDLE, "renewal_overdue", 10, folder / f"slow-{buffer}", 0.03, buffer, (1.0,))


def of_telegraf(folder: Path) -> None:
    """Prints what a relay keeps."""
    print("\nTelegraf as a relay, InfluxDB away", flush=True)
    for limit in (10_000, 1_000_000):
        relay(MIDDLE, folder / f"relay-{limit}", limit)


PARTS = {"databases": of_databases, "kapacitor": of_kapacitor, "telegraf": of_telegraf}


def versions(parts: Sequence[str], folder: Path) -> Iterator[str]:
    """What each server says it is; VictoriaMetrics of Debian does not say it."""
    for name in ENGINES:
        if name == METRICS:
            found = subprocess.run(
                ["dpkg-query", "-W", "-f", "${Version}", name],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            yield f"VictoriaMetrics {found.partition('+')[0]}"
        else:
            with start_influxdb(name, folder / name) as influxdb:
                yield f"InfluxDB {influxdb.version()}"
    for part, name, option in (
        ("kapacitor", "kapacitord", "version"),
        ("telegraf", "telegraf", "--version"),
    ):
        if part in parts:
            command = [built_program(name), option]
            yield (
                subprocess.run(command, capture_output=True, text=True, check=True)
                .stdout.split("(")[0]
                .strip()
            )


def main() -> int:
    """Prints all figures, or those of the parts that are named. Exit status 1 where a server is missing or a query fails."""
    try:
        with tempfile.TemporaryDirectory() as name:
            print(
                f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, seed {SEED}"
            )
            (Path(name) / "versions").mkdir()
            parts = sys.argv[1:] or list(PARTS)
            print(", ".join(versions(parts, Path(name) / "versions")), flush=True)
            for part in parts:
                PARTS[part](Path(name))
            print(f"load {os.getloadavg()[0]:.1f} at the end")
    except (MissingServer, RuntimeError, requests.RequestException, TimeoutError) as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
