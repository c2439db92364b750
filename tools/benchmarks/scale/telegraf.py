"""What Telegraf as a relay keeps of the reports while InfluxDB is not available."""

from __future__ import annotations

import time
from pathlib import Path

from tools.benchmarks.fleet import Fleet
from tools.benchmarks.scale.fleets import MIDDLE_FLEET, storage_for
from tools.benchmarks.scale.rush import rush
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.processes import free_port
from tools.servers.telegraf import start_telegraf

INFLUXDB = "influxd-1.12"
BUFFER_LIMITS = (10_000, 1_000_000)  # Telegraf's default, and enough
POLL_SECONDS = 5
LEAST_POLLS = 3


def measure_telegraf(folder: Path) -> None:
    """Print what a relay keeps, with each metric_buffer_limit."""
    print("\nTelegraf as a relay, InfluxDB down", flush=True)
    for limit in BUFFER_LIMITS:
        measure_relay(MIDDLE_FLEET, folder / f"relay-{limit}", limit)


def measure_relay(fleet: Fleet, folder: Path, limit: int) -> None:
    """Let all hosts report while InfluxDB is down; print how much arrives when it is back."""
    port = free_port()
    data = folder / "influxdb"
    config = "max-body-size = 0"
    storage = storage_for(INFLUXDB)
    with start_influxdb(INFLUXDB, data, port, config, storage) as influxdb:
        bucket = influxdb.new_bucket()

    agent = f"metric_buffer_limit = {limit}"
    with start_telegraf(2, influxdb, bucket, folder / "telegraf", agent=agent) as url:
        all_reports = rush(url, bucket, "", fleet)
        with start_influxdb(INFLUXDB, data, port, config, storage) as influxdb:
            arrived = count_when_settled(influxdb, bucket)
    print(
        f"metric_buffer_limit = {limit}: {all_reports}; of {fleet.certificates} states "
        f"{arrived} arrived when InfluxDB was back",
        flush=True,
    )


def count_when_settled(influxdb: InfluxDB, bucket: str) -> int:
    """Return the number of states in a bucket when no more arrive."""
    counts: list[int] = []
    while len(counts) < LEAST_POLLS or counts[-1] != counts[-2]:
        time.sleep(POLL_SECONDS)
        counts.append(state_count(influxdb, bucket))
    return counts[-1]


def state_count(influxdb: InfluxDB, bucket: str) -> int:
    """Return the number of states in a bucket."""
    rows = influxdb.query(f"""
        from(bucket: "{bucket}")
        |> range(start: -400d)
        |> filter(fn: (r) => r._field == "run_at")
        |> group()
        |> count()
    """)
    return int(rows[0]["_value"]) if rows else 0
