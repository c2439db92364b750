"""What fleets cost on InfluxDB: reports, disk, and the alerts' queries."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import requests

from tools import ROOT
from tools.benchmarks.fleet import Fleet, load_history, peak_memory, seconds
from tools.benchmarks.scale.costs import cpu_seconds, describe_volume, query_cost, settled_bytes
from tools.benchmarks.scale.fleets import days_for, point_count, storage_for
from tools.benchmarks.scale.rush import rush
from tools.servers.influxdb import Storage, start_influxdb

QUERIES = ("overdue", "overdue_hosts", "silent_hosts", "failing")
QUERY_LIMIT_SECONDS = 180
NO_BODY_LIMIT = "max-body-size = 0"

# InfluxDB 1.x compacts after a second without writes, not after hours.
COMPACT_AT_ONCE: Storage = {
    "cache-snapshot-write-cold-duration": "1s",
    "compact-full-write-cold-duration": "1s",
}


def measure_influxdb(name: str, fleet: Fleet, folder: Path) -> dict[str, float]:
    """Print what a fleet costs on an InfluxDB; return the seconds of each query."""
    folder = folder / f"{name}-{fleet.certificates}"
    bucket = print_writes(name, fleet, folder)
    return print_queries(name, bucket, folder)


def print_writes(name: str, fleet: Fleet, folder: Path) -> str:
    """Fill an InfluxDB; return the bucket.

    Print what it costs when all hosts report at once, and the size on disk.
    """
    days = days_for(fleet)
    storage = storage_for(name)
    with start_influxdb(name, folder, config=NO_BODY_LIMIT, storage=storage) as influxdb:
        bucket = influxdb.new_bucket()
        begin = time.perf_counter()
        load_history(influxdb, bucket, fleet, days)
        rate = point_count(fleet, days) / (time.perf_counter() - begin)

        cpu_before = cpu_seconds(influxdb.child.pid)
        all_reports = rush(influxdb.url, bucket, influxdb.token, fleet)
        cpu = cpu_seconds(influxdb.child.pid) - cpu_before
        print(f"{name:13} {all_reports}; {cpu:.1f} s CPU", flush=True)
        memory = peak_memory(influxdb.child.pid)

    with start_influxdb(name, folder, storage={**storage, **COMPACT_AT_ONCE}):
        size = settled_bytes(folder)
    print(f"{'':13} {describe_volume(days, rate, size, memory)}", flush=True)
    return bucket


def print_queries(name: str, bucket: str, folder: Path) -> dict[str, float]:
    """Print what each query costs on a filled InfluxDB; return the seconds of each.

    Each query has an InfluxDB that was just started, so that the memory is that of the query. One
    that takes too long is left out of the result.
    """
    seconds_by_query = {}
    texts = []
    for query in QUERIES:
        flux = (ROOT / "flux" / f"{query}.flux").read_text()
        with start_influxdb(name, folder, storage=storage_for(name)) as influxdb:
            pid = influxdb.child.pid
            median_seconds = functools.partial(
                seconds, influxdb, bucket, flux, limit=QUERY_LIMIT_SECONDS
            )
            try:
                cost = query_cost(median_seconds, pid)
                seconds_by_query[query] = cost.seconds
                took = f"{cost.seconds:.1f} s ({cost.cpu_seconds:.1f} s CPU)"
            except requests.ReadTimeout:
                took = f"over {QUERY_LIMIT_SECONDS} s"
            texts.append(f"{query} {took} {peak_memory(pid):.0f} MiB")
    print(f"{'':13} {', '.join(texts)}", flush=True)
    return seconds_by_query


def bytes_of_a_year(name: str, fleet: Fleet, folder: Path) -> int:
    """Return the bytes on disk after a year of two reports a day, when all is compacted."""
    with start_influxdb(name, folder, config=NO_BODY_LIMIT) as influxdb:
        load_history(influxdb, influxdb.new_bucket(), fleet, 365)
    with start_influxdb(name, folder, storage=COMPACT_AT_ONCE):
        return settled_bytes(folder)
