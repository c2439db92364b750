#!/usr/bin/env python3
"""What the hook costs, as ratios in one run: against the smallest script that posts the same body, run reports against the hook on one
lineage, and the hook against its own deadline.

All are whole processes of the same Python, started in turn, posting to the same InfluxDB 1.8. The figures are medians, the
ratios those of the pairs: a machine whose speed drifts changes both of a pair.
Start it with: make bench
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.servers import faulty
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.lineages import (
    DAY,
    REPORT_HOOK,
    install_report_hook,
    make_certificate,
    make_lineage,
)
from tools.servers.processes import MissingServer

RUNS = 41  # of each; a median of fewer swings by more than the differences that matter
DEADLINE = 2.0  # seconds, INFLUXDB_TIMEOUT of the runs against faulty servers
SMALLEST = "import requests\nrequests.post({url!r}, data=open({body!r}, 'rb').read())\n"
# The measuring process is small: a child inherits the peak memory of the one that starts it.
LAUNCHER = """
import os, sys, time
begin = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(time.perf_counter() - begin, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""


Measured = tuple[float, float, int]


def measure(script: Path, environ: dict[str, str], *arguments: str) -> Measured:
    """Seconds, peak memory in KiB and exit status of a Python script as a process."""
    command = [sys.executable, "-I", "-S", "-c", LAUNCHER, sys.executable, str(script), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    seconds, memory, status = done.stdout.split()
    return float(seconds), float(memory), int(status)


def compared(count: int, pairs: list[tuple[Measured, Measured]]) -> float:
    """Prints a line of medians and of the ratios of the pairs; returns the median time of the first of each pair, in seconds."""
    if any(run[2] for pair in pairs for run in pair):
        raise RuntimeError("a report failed")
    times, memories = (
        [statistics.median(pair[who][what] for pair in pairs) for who in (0, 1)] for what in (0, 1)
    )
    of_time, of_memory = (
        f"{statistics.median(pair[0][what] / pair[1][what] for pair in pairs):6.2f}"
        for what in (0, 1)
    )
    mib = [memory / 1024 for memory in memories]
    print(
        f"{count:8} {times[0] * 1000:9.0f} {times[1] * 1000:12.0f} {of_time} {mib[0]:9.1f} {mib[1]:13.1f} {of_memory}",
        flush=True,
    )
    return times[0]


def against_the_smallest(folder: Path, influxdb: InfluxDB) -> None:
    """Prints time and memory of the hook and of the smallest script for reports of 3, 100 and 1,000 names."""
    hook, small, body = folder / REPORT_HOOK.name, folder / "smallest.py", folder / "body"
    hook.write_bytes(REPORT_HOOK.read_bytes())
    bucket, seconds = influxdb.new_bucket(), dict[int, float]()
    print(
        f"{'names':>8} {'hook ms':>9} {'smallest ms':>12} {'ratio':>6} {'hook MiB':>9} {'smallest MiB':>13} {'ratio':>6}"
    )
    for count in (3, 100, 1000):
        names = [f"name{number}.example.com" for number in range(count)]
        live = folder / "live" / f"of-{count}"
        live.mkdir(parents=True)
        (live / "cert.pem").write_bytes(make_certificate(names, int(time.time()) - DAY, 90 * DAY))
        environ = {
            "RENEWED_LINEAGE": str(live),
            "RENEWED_DOMAINS": " ".join(names),
            "HOSTNAME": "bench",
            **influxdb.settings(bucket),
        }
        dry = subprocess.run(
            [sys.executable, str(hook), "--dry-run"],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        body.write_text(
            "".join(
                line for line in dry.stdout.splitlines(keepends=True) if not line.startswith("#")
            )
        )
        small.write_text(
            SMALLEST.format(
                url=f"{influxdb.url}/api/v2/write?bucket={bucket}&precision=s", body=str(body)
            )
        )
        pairs = [(measure(hook, environ), measure(small, {})) for _ in range(RUNS)]
        seconds[count] = compared(count, pairs)
    print(
        f"1,000 names take {seconds[1000] / seconds[3]:.2f} of the time of 3 names (wanted: at most 1.5)"
    )
    print(
        "wanted: time at most 1.20 and memory at most 1.15 of the smallest script, on 3 and 100 names"
    )


def run_reports(folder: Path, influxdb: InfluxDB) -> None:
    """Prints time and memory of run reports of 10 and of 1,000 lineages, as ratios to the hook on one lineage."""
    environ, now = (
        {"HOSTNAME": "bench", **influxdb.settings(influxdb.new_bucket())},
        int(time.time()),
    )
    for count in (1, 10, 1000):
        for number in range(count):
            names = [f"{name}{number}.example.com" for name in ("a", "b", "c")]
            make_lineage(folder / str(count), f"c{number}", names, now - DAY - number, 90 * DAY)
    one, renewed = (
        install_report_hook(folder / "1"),
        {"RENEWED_LINEAGE": str(folder / "1" / "live" / "c0"), "RENEWED_DOMAINS": "a0.example.com"},
    )
    print(
        f"\n{'lineages':>8} {'--all ms':>9} {'hook on one':>12} {'ratio':>6} {'--all MiB':>9} {'hook on one':>13} {'ratio':>6}"
    )
    for count in (10, 1000):
        many = install_report_hook(folder / str(count))
        compared(
            count,
            [
                (measure(many, environ, "--all"), measure(one, {**environ, **renewed}))
                for _ in range(RUNS)
            ],
        )
    print(
        "wanted: time at most 1.2 of the hook on one lineage with 10 lineages, 5 with 1,000; memory at most 2"
    )


def against_the_deadline(folder: Path) -> None:
    """Prints how long the hook takes when the server is at fault."""
    live = folder / "live" / "of-3"
    print(f"\nfaults, with INFLUXDB_TIMEOUT={DEADLINE:g} (wanted: at most 0.5 s more)")
    for name, fault in faulty.EVERY.items():
        with fault() as url:
            environ = {
                "RENEWED_LINEAGE": str(live),
                "RENEWED_DOMAINS": "example.com",
                "HOSTNAME": "bench",
            }
            seconds, _, status = measure(
                folder / REPORT_HOOK.name,
                {**environ, "INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": str(DEADLINE)},
            )
        print(
            f"  {name:17} {seconds:5.2f} s, exit status {status}{'' if seconds <= DEADLINE + 0.5 else '  TOO LONG'}"
        )


def main() -> int:
    """Prints all figures. Exit status 1 where a server is missing or a report failed."""
    try:
        with tempfile.TemporaryDirectory() as name:
            print(
                f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, medians of {RUNS} runs each"
            )
            with start_influxdb("influxd-1.8", Path(name) / "influxdb") as influxdb:
                against_the_smallest(Path(name), influxdb)
                run_reports(Path(name), influxdb)
            against_the_deadline(Path(name))
    except (MissingServer, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
