#!/usr/bin/env python3
"""Measures what the report hook and the run report cost, as ratios in one run.

- The report hook against the smallest script that posts the same body.
- Run reports of 10 and of 1,000 lineages against the report hook on one lineage.
- The report hook against its own deadline, with servers that have faults.

All are processes of the same Python, started in turn, which post to the same InfluxDB 1.8. The
figures are medians; the ratios are medians of the ratios of the pairs, since a machine whose speed
drifts changes both of a pair. Start it with: make bench
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tools.servers import faulty
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.lineages import (
    DAY,
    install_report_hook,
    install_run_report,
    make_certificate,
    make_lineage,
)
from tools.servers.processes import MissingServer

# Runs of each program: a median of fewer swings by more than the differences that matter.
RUNS = int(os.environ.get("RUNS", "41"))
TIMEOUT_SECONDS = 2.0  # INFLUXDB_TIMEOUT of the runs against faulty servers
TOLERANCE_SECONDS = 0.5  # so much longer than the timeout may a run take

SMALLEST_SCRIPT = "import requests\nrequests.post({url!r}, data=open({body!r}, 'rb').read())\n"

# Starts a program, and prints its seconds, its peak memory in KiB and its exit status. A process of
# its own, and a small one: a child inherits the peak memory of the process that starts it.
LAUNCHER = """
import os, sys, time
begin = time.perf_counter()
no_output = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=no_output)
_, status, usage = os.wait4(pid, 0)
print(time.perf_counter() - begin, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""


class Measured(NamedTuple):
    """What one run of a program took; `memory` is its peak, in KiB."""

    seconds: float
    memory: float
    status: int


class Comparison(NamedTuple):
    """Medians of a program's runs, of its baseline's, and of the ratios of the pairs."""

    program: Measured
    baseline: Measured
    time_ratio: float
    memory_ratio: float


def measure(script: Path, environ: Mapping[str, str], *arguments: str) -> Measured:
    """Run a Python script as a process, and measure it."""
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER]
    command = [*launcher, sys.executable, str(script), *arguments]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    seconds, memory, status = result.stdout.split()
    return Measured(float(seconds), float(memory), int(status))


def compare(
    measure_program: Callable[[], Measured], measure_baseline: Callable[[], Measured]
) -> Comparison:
    """Measure a program and its baseline in turn; raise a RuntimeError if a run fails."""
    programs = []
    baselines = []
    for _ in range(RUNS):
        programs.append(measure_program())
        baselines.append(measure_baseline())
    if any(run.status for run in [*programs, *baselines]):
        raise RuntimeError("a report failed")

    pairs = list(zip(programs, baselines))
    return Comparison(
        median_of(programs),
        median_of(baselines),
        statistics.median(program.seconds / baseline.seconds for program, baseline in pairs),
        statistics.median(program.memory / baseline.memory for program, baseline in pairs),
    )


def median_of(runs: list[Measured]) -> Measured:
    """Return the medians of runs that succeeded."""
    seconds = statistics.median(run.seconds for run in runs)
    memory = statistics.median(run.memory for run in runs)
    return Measured(seconds, memory, 0)


def print_heading(count: str, program: str, baseline: str) -> None:
    """Print the heading of a table of comparisons."""
    of_time = f"{f'{program} ms':>10} {f'{baseline} ms':>13} {'ratio':>6}"
    of_memory = f"{f'{program} MiB':>10} {f'{baseline} MiB':>13} {'ratio':>6}"
    print(f"{count:>8} {of_time} {of_memory}")


def print_comparison(count: int, comparison: Comparison) -> None:
    """Print a row of a table of comparisons."""
    program, baseline, time_ratio, memory_ratio = comparison
    of_time = f"{program.seconds * 1000:10.0f} {baseline.seconds * 1000:13.0f} {time_ratio:6.2f}"
    of_memory = f"{program.memory / 1024:10.1f} {baseline.memory / 1024:13.1f} {memory_ratio:6.2f}"
    print(f"{count:8} {of_time} {of_memory}", flush=True)


def against_the_smallest(folder: Path, influxdb: InfluxDB) -> None:
    """Print what the report hook costs for 3, 100 and 1,000 names, against the smallest script."""
    bucket = influxdb.new_bucket()
    seconds = {}
    print_heading("names", "hook", "smallest")
    for count in (3, 100, 1000):
        comparison = compare_with_smallest(folder / f"of-{count}", influxdb, bucket, count)
        print_comparison(count, comparison)
        seconds[count] = comparison.program.seconds
    of_names = seconds[1000] / seconds[3]
    print(f"1,000 names take {of_names:.2f} of the time of 3 names (wanted: at most 1.5)")
    print(
        "wanted: time at most 1.20 and memory at most 1.15 of the smallest script, "
        "on 3 and 100 names"
    )


def compare_with_smallest(folder: Path, influxdb: InfluxDB, bucket: str, count: int) -> Comparison:
    """Compare the report hook for a certificate of so many names with the smallest script."""
    names = [f"name{number}.example.com" for number in range(count)]
    live = folder / "live" / "example.com"
    live.mkdir(parents=True)
    (live / "cert.pem").write_bytes(make_certificate(names, int(time.time()) - DAY, 90 * DAY))
    hook = install_report_hook(folder)
    environ = {
        "RENEWED_LINEAGE": str(live),
        "RENEWED_DOMAINS": " ".join(names),
        "HOSTNAME": "bench",
        **influxdb.settings(bucket),
    }

    body = folder / "body"
    body.write_text(lines_of_dry_run(hook, environ))
    url = f"{influxdb.url}/api/v2/write?bucket={bucket}&precision=s"
    smallest = folder / "smallest.py"
    smallest.write_text(SMALLEST_SCRIPT.format(url=url, body=str(body)))
    return compare(lambda: measure(hook, environ), lambda: measure(smallest, {}))


def lines_of_dry_run(hook: Path, environ: Mapping[str, str]) -> str:
    """Return the lines that the report hook would send."""
    command = [sys.executable, str(hook), "--dry-run"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


def run_reports(folder: Path, influxdb: InfluxDB) -> None:
    """Print what run reports of 10 and 1,000 lineages cost, against the hook on one lineage."""
    environ = {"HOSTNAME": "bench", **influxdb.settings(influxdb.new_bucket())}
    one = folder / "lineages-1"
    make_lineages(one, 1)
    hook = install_report_hook(one)
    renewal = {"RENEWED_LINEAGE": str(one / "live" / "c0"), "RENEWED_DOMAINS": "a0.example.com"}

    print()
    print_heading("lineages", "--all", "hook on 1")
    for count in (10, 1000):
        many = folder / f"lineages-{count}"
        make_lineages(many, count)
        comparison = compare_run_report(many, hook, environ, {**environ, **renewal})
        print_comparison(count, comparison)
    print(
        "wanted: time at most 1.2 of the hook on one lineage with 10 lineages, 5 with 1,000; "
        "memory at most 2"
    )


def compare_run_report(
    folder: Path, hook: Path, environ: Mapping[str, str], hook_environ: Mapping[str, str]
) -> Comparison:
    """Compare the run report of a configuration folder with a run of the report hook."""
    program = install_run_report(folder)
    return compare(lambda: measure(program, environ, "--all"), lambda: measure(hook, hook_environ))


def make_lineages(folder: Path, count: int) -> None:
    """Make so many lineages of three names each."""
    now = int(time.time())
    for number in range(count):
        names = [f"a{number}.example.com", f"b{number}.example.com", f"c{number}.example.com"]
        make_lineage(folder, f"c{number}", names, now - DAY - number, 90 * DAY)


def against_the_deadline(folder: Path) -> None:
    """Print how long the report hook takes when the server has a fault."""
    make_lineage(folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    hook = install_report_hook(folder)
    environ = {
        "RENEWED_LINEAGE": str(folder / "live" / "example.com"),
        "RENEWED_DOMAINS": "example.com",
        "HOSTNAME": "bench",
        "INFLUXDB_TIMEOUT": str(TIMEOUT_SECONDS),
    }
    limit = TIMEOUT_SECONDS + TOLERANCE_SECONDS
    wanted = f"wanted: at most {TOLERANCE_SECONDS:g} s more"
    print(f"\nfaults, with INFLUXDB_TIMEOUT={TIMEOUT_SECONDS:g} ({wanted})")
    for name, start_faulty in faulty.EVERY.items():
        with start_faulty() as url:
            run = measure(hook, {**environ, "INFLUXDB_URL": url})
        verdict = "" if run.seconds <= limit else "  TOO LONG"
        print(f"  {name:17} {run.seconds:5.2f} s, exit status {run.status}{verdict}")


def main() -> int:
    """Print all figures; return 1 if a server is missing or a report failed."""
    python = sys.version.split()[0]
    print(f"Python {python}, {os.cpu_count()} cores, medians of {RUNS} runs each")
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with start_influxdb("influxd-1.8", folder / "influxdb") as influxdb:
                against_the_smallest(folder, influxdb)
                run_reports(folder, influxdb)
            against_the_deadline(folder / "faults")
    except (MissingServer, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
