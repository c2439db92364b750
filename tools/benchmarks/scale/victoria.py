"""What fleets cost on VictoriaMetrics: reports, disk, and the rules of prometheus/rules.yml."""

from __future__ import annotations

import functools
import statistics
import time
from pathlib import Path

import requests
import yaml

from tools import ROOT
from tools.benchmarks.fleet import Fleet, load, load_history, peak_memory
from tools.benchmarks.scale.costs import cpu_seconds, describe_volume, query_cost, settled_bytes
from tools.benchmarks.scale.fleets import (
    METRICS,
    days_for,
    overdue_states,
    point_count,
    silent_runs,
)
from tools.benchmarks.scale.rush import rush
from tools.servers.kapacitor import start_inbox
from tools.servers.processes import wait_for
from tools.servers.prometheus import (
    Program,
    VictoriaMetrics,
    start_alertmanager,
    start_victoria_metrics,
    start_vmalert,
)

# VictoriaMetrics refuses large queries by default; here their cost is to be measured.
NO_LIMITS = (
    "-search.disableCache",
    "-search.maxQueryDuration=10m",
    "-search.maxUniqueTimeseries=10000000",
)
FAULTY_SHARE = 0.01  # of the certificates are overdue, and of the hosts are silent
FIRST_EVALUATION_SECONDS = 600
EVALUATIONS = 3
EVALUATIONS_SECONDS = 1800


def measure_victoria(fleet: Fleet, folder: Path) -> None:
    """Print what a fleet costs on VictoriaMetrics."""
    folder = folder / f"{METRICS}-{fleet.certificates}"
    print_writes(fleet, folder)
    print_queries(folder)
    with start_victoria_metrics(folder, None, *NO_LIMITS) as server:
        cost = cost_of_all_rules(server, fleet, folder / "rules")
        print(f"{'':13} {cost}; peak memory {peak_memory(server.pid):.0f} MiB", flush=True)


def print_writes(fleet: Fleet, folder: Path) -> None:
    """Fill VictoriaMetrics, and print what all reports at once cost it, and its size."""
    days = days_for(fleet)
    with start_victoria_metrics(folder, None, *NO_LIMITS) as server:
        begin = time.perf_counter()
        load_history(server, "", fleet, days)
        rate = point_count(fleet, days) / (time.perf_counter() - begin)

        cpu_before = cpu_seconds(server.pid)
        all_reports = rush(server.url, "bucket", "", fleet)
        cpu = cpu_seconds(server.pid) - cpu_before
        print(f"{METRICS} {all_reports}; {cpu:.1f} s CPU", flush=True)

        memory = peak_memory(server.pid)
        size = merged_bytes(server)
        print(f"{'':13} {describe_volume(days, rate, size, memory)}", flush=True)
        load(server, "", fleet.looks(int(time.time()), days, 0))
        server.flush()


def print_queries(folder: Path) -> None:
    """Print what the query of each alert costs, on a server that was just started for it."""
    texts = []
    for alert, promql in alert_queries().items():
        with start_victoria_metrics(folder, None, *NO_LIMITS) as server:
            cost = query_cost(functools.partial(median_seconds, server, promql), server.pid)
            texts.append(
                f"{alert} {cost.seconds:.1f} s ({cost.cpu_seconds:.1f} s CPU) "
                f"{peak_memory(server.pid):.0f} MiB"
            )
    print(f"{'':13} {', '.join(texts)}", flush=True)


def alert_queries() -> dict[str, str]:
    """Return the queries of the alerts in prometheus/rules.yml, by the alert's name.

    A second alert of the same name is the one about most hosts.
    """
    groups = yaml.safe_load((ROOT / "prometheus" / "rules.yml").read_text())["groups"]
    queries: dict[str, str] = {}
    for group in groups:
        for rule in group["rules"]:
            name = rule.get("alert")
            if name in queries:
                name = f"{name} (most hosts)"
            if name:
                queries[name] = rule["expr"]
    return queries


def merged_bytes(server: VictoriaMetrics) -> int:
    """Return the bytes on disk when all parts are merged."""
    server.flush()
    requests.get(f"{server.url}/internal/force_merge", timeout=30).raise_for_status()
    return settled_bytes(server.folder)


def bytes_of_a_year(fleet: Fleet, folder: Path) -> int:
    """Return the bytes on disk after a year of two reports a day, when all is merged."""
    with start_victoria_metrics(folder) as server:
        load_history(server, "", fleet, 365)
        return merged_bytes(server)


def median_seconds(server: VictoriaMetrics, promql: str, runs: int) -> float:
    """Return the median time of so many runs of a query."""
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        server.query(promql)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def cost_of_all_rules(server: VictoriaMetrics, fleet: Fleet, folder: Path) -> str:
    """Let vmalert evaluate all rules; return what that costs, in words.

    It does so when no alert fires, and when 1 % of the certificates are overdue, and as many hosts
    as 1 % of all are silent.
    """
    folder.mkdir()
    source = ROOT / "prometheus"
    rules = folder / "rules.yml"
    rules.write_text((source / "rules.yml").read_text().replace("interval: 15m", "interval: 1s"))
    config = (source / "alertmanager.yml").read_text()
    with (
        start_inbox() as box,
        start_alertmanager(folder / "alertmanager", config, box) as notifier,
        start_vmalert(folder / "vmalert", rules, server.url, notifier.url) as vmalert,
    ):
        without_alerts = seconds_of_evaluation(vmalert)
        now = int(time.time())
        load(server, "", overdue_states(fleet, FAULTY_SHARE, now))
        load(server, "", silent_runs(fleet, FAULTY_SHARE, now))
        server.flush()
        with_alerts = seconds_of_evaluation(vmalert)

        firing = vmalert.number("vmalert_alerts_firing")
        errors = (folder / "vmalert" / "log").read_text().count("failed to execute")
        return (
            f"all rules by vmalert {without_alerts:.1f} s, "
            f"with {firing:.0f} alerts {with_alerts:.1f} s, "
            f"{peak_memory(vmalert.pid):.0f} MiB, {errors} errors"
        )


def seconds_of_evaluation(vmalert: Program) -> float:
    """Return how long an evaluation of all rules takes: the mean of the next three."""
    # One may be running, and may have begun before the points were there.
    running = evaluation_number(vmalert, "count")
    wait_for(
        lambda: evaluation_number(vmalert, "count") > running,
        "an evaluation",
        FIRST_EVALUATION_SECONDS,
    )
    count_before = evaluation_number(vmalert, "count")
    seconds_before = evaluation_number(vmalert, "sum")
    wait_for(
        lambda: evaluation_number(vmalert, "count") >= count_before + EVALUATIONS,
        "three evaluations",
        EVALUATIONS_SECONDS,
    )
    seconds = evaluation_number(vmalert, "sum") - seconds_before
    return seconds / (evaluation_number(vmalert, "count") - count_before)


def evaluation_number(vmalert: Program, kind: str) -> float:
    """Return the number of evaluations so far (`count`), or the seconds of all (`sum`)."""
    name = f"vmalert_iteration_duration_seconds_{kind}"
    return vmalert.number(name, 'group="certbot_renewal"')
