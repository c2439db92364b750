#!/usr/bin/env python3
"""Measures what a fleet costs: 1,000 certificates on 50 hosts, 10,000 on 500, 100,000 on 5,000.

    python -m tools.benchmarks.scale [databases] [kapacitor] [telegraf]

- databases: InfluxDB 1.8, 1.12, 2 and VictoriaMetrics, one after the other: all run reports at
  once, size on disk, time and memory of the alerts' queries. With all sizes it writes
  docs/scale.svg.
- kapacitor: what an evaluation costs, and the mails when 1 %, and when all certificates are overdue
  at once, by certificate and by host.
- telegraf: what a relay keeps while InfluxDB is down.

All of it takes fifty-five minutes on a quiet machine; start it with: make scale. For a part of it:

    SIZES="1000/50 10000/500" ENGINES="influxd-1.12 victoria-metrics" \\
        python -m tools.benchmarks.scale databases
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import requests

from tools import ROOT
from tools.benchmarks.fleet import Fleet
from tools.benchmarks.scale import influxdb, victoria
from tools.benchmarks.scale.chart import draw_chart
from tools.benchmarks.scale.fleets import ALL_SIZES, ENGINES, FLEETS, METRICS, SEED, SIZES
from tools.benchmarks.scale.kapacitor import measure_kapacitor
from tools.benchmarks.scale.rush import CLIENTS
from tools.benchmarks.scale.telegraf import measure_telegraf
from tools.servers.influxdb import start_influxdb
from tools.servers.processes import MissingServer, built_program

FLEET_OF_A_YEAR = Fleet(1000, 50)

# The queries in the chart, and what their lines' names end with.
DRAWN_QUERIES = {"overdue": "", "overdue_hosts": ", by host"}


def measure_databases(folder: Path) -> None:
    """Print what fleets cost on each database; if all sizes are measured, draw the chart."""
    for engine in ENGINES:
        print_size_of_a_year(engine, folder / f"year-{engine}")

    drawn: dict[str, dict[int, float]] = {}
    for fleet in FLEETS:
        print(
            f"\n{fleet.certificates} certificates on {fleet.hosts} hosts, "
            f"{CLIENTS} hosts reporting at a time"
        )
        for engine in ENGINES:
            if engine == METRICS:
                victoria.measure_victoria(fleet, folder)
                continue
            seconds = influxdb.measure_influxdb(engine, fleet, folder)
            for query, suffix in DRAWN_QUERIES.items():
                if query in seconds:
                    line = engine.replace("influxd-", "InfluxDB ") + suffix
                    drawn.setdefault(line, {})[fleet.certificates] = seconds[query]
    if ALL_SIZES.split() == SIZES:
        (ROOT / "docs" / "scale.svg").write_text(draw_chart(drawn))


def print_size_of_a_year(engine: str, folder: Path) -> None:
    """Print how much a database has on disk for a certificate after a year."""
    fleet = FLEET_OF_A_YEAR
    if engine == METRICS:
        size = victoria.bytes_of_a_year(fleet, folder)
    else:
        size = influxdb.bytes_of_a_year(engine, fleet, folder)
    print(
        f"{engine:13} {size / fleet.certificates / 1024:.1f} KiB on disk for a certificate "
        f"and a year of two reports a day, of {fleet.certificates} on {fleet.hosts} hosts",
        flush=True,
    )


PARTS: dict[str, Callable[[Path], None]] = {
    "databases": measure_databases,
    "kapacitor": measure_kapacitor,
    "telegraf": measure_telegraf,
}


def versions(parts: Sequence[str], folder: Path) -> list[str]:
    """Return the versions of the servers of these parts."""
    texts = [version_of_engine(engine, folder) for engine in ENGINES]
    if "kapacitor" in parts:
        texts.append(output_of(built_program("kapacitord"), "version").split("(")[0].strip())
    if "telegraf" in parts:
        texts.append(output_of(built_program("telegraf"), "--version").split("(")[0].strip())
    return texts


def version_of_engine(engine: str, folder: Path) -> str:
    """Return a database and its version. Debian's VictoriaMetrics does not know its own."""
    if engine == METRICS:
        version = output_of("dpkg-query", "-W", "-f", "${Version}", engine)
        return f"VictoriaMetrics {version.partition('+')[0]}"
    with start_influxdb(engine, folder / engine) as server:
        return f"InfluxDB {server.version()}"


def output_of(*command: str) -> str:
    """Run a command; return its output."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main(arguments: Sequence[str]) -> int:
    """Print all figures, or those of the parts that are named.

    Return 1 if a server is missing or a query fails.
    """
    parts = arguments or list(PARTS)
    cores = os.cpu_count()
    print(
        f"Python {platform.python_version()}, {cores} cores, load {os.getloadavg()[0]:.1f}, "
        f"seed {SEED}"
    )
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            version_folder = folder / "versions"
            version_folder.mkdir()
            print(", ".join(versions(parts, version_folder)), flush=True)
            for part in parts:
                PARTS[part](folder)
        print(f"load {os.getloadavg()[0]:.1f} at the end")
    except (MissingServer, RuntimeError, requests.RequestException, TimeoutError) as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
