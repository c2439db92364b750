"""SIGTERM and SIGKILL at lines of the deploy hook and of the run report.

Each program runs as a process, on a disk of its own, and gets a signal at one of the lines that it
executes. Half of the lines are drawn from all, half from the last ones, where the known file is
replaced.

What must hold after each signal:

- The known file is the old or the new one, never a part of it.
- If it is the new one, the renewal and the state are stored.
- After one run report that nobody stops, the database equals the disk.
"""

from __future__ import annotations

import collections
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools import ROOT
from tools.faults.disks import LINEAGE, Disk, Program, expect, stored_by_host
from tools.servers.influxdb import InfluxDB

LAST_LINES = 14  # among them are those that write the known file
PARALLEL = 2


def stop_at_line(
    script: Path, line: int, signal_: signal.Signals, environ: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a program as a process that gets a signal before its line number `line`, from 1."""
    command = [sys.executable, "-m", "tools.faults.stop_at_line", str(line), str(int(signal_))]
    return subprocess.run(
        [*command, str(script), *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_to_end(
    script: Path, environ: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in the same way, but without a signal. Its last line is for `count_lines`."""
    return stop_at_line(script, 0, signal.SIGTERM, environ, *arguments)


def count_lines(ended: subprocess.CompletedProcess[str]) -> int:
    """Return how many lines a program has executed that ended by itself."""
    return int(ended.stdout.rpartition("lines ")[2])


class Stop(NamedTuple):
    """A program that gets a signal at a line."""

    disk: Disk
    program: Program
    signal_: signal.Signals
    line: int

    @property
    def kind(self) -> str:
        """The program and the signal, in words."""
        return f"{self.program.value}-{self.signal_.name}"

    @property
    def host(self) -> str:
        """The host tag; also the name of the disk's folder."""
        return self.disk.folder.name

    def happen(self, settings: Mapping[str, str]) -> None:
        """Start the program and stop it; the known file does not know its lineage before."""
        self.disk.reset_known_to_other(self.host)
        environ = self.disk.environ(self.program, {**settings, "HOSTNAME": self.host})
        script = self.disk.scripts[self.program]
        arguments = self.program.arguments
        ended = stop_at_line(script, self.line, self.signal_, environ, *arguments)
        expect(ended.returncode == -self.signal_, f"{self.host} is stopped: {ended}")
        expect("Traceback" not in ended.stderr, f"{self.host}: no traceback: {ended}")

    def known_is_new(self) -> bool:
        """Return whether the known file was replaced; expect that it is the old or the new one."""
        known = self.disk.known_lineages(self.host)
        is_new = LINEAGE in known
        text = self.disk.known.read_text()
        is_old = text == self.disk.other_known(self.host)
        expect(is_new or is_old, f"{self.host}: half of what is known: {text!r}")
        return is_new


# ---- Where to stop -----------------------------------------------------------------------------
def lines_of_report(disk: Disk, settings: Mapping[str, str], program: Program) -> int:
    """Return how many lines a report has that adds the lineage to the known file."""
    disk.reset_known_to_other("whole")
    environ = disk.environ(program, {**settings, "HOSTNAME": "whole"})
    return count_lines(run_to_end(disk.scripts[program], environ, *program.arguments))


def draw_lines(line_count: int, chance: random.Random, count: int) -> list[int]:
    """Return about so many lines, sorted: half of them among the last, and always two of these."""
    first_of_last = line_count - LAST_LINES
    lines = {first_of_last, line_count - 1}
    lines.update(chance.sample(range(1, line_count), count - count // 2))
    lines.update(chance.choices(range(first_of_last, line_count), k=count // 2))
    return sorted(lines)


def make_stops(
    folder: Path, line_counts: Mapping[Program, int], chance: random.Random, count: int
) -> list[Stop]:
    """Return about `count` stops for each program and signal, each with a disk of its own."""
    stops = []
    for program, line_count in line_counts.items():
        for signal_ in (signal.SIGTERM, signal.SIGKILL):
            for line in draw_lines(line_count, chance, count):
                disk = Disk(folder / f"{program.value}-{signal_.name}-{line}")
                stops.append(Stop(disk, program, signal_, line))
    return stops


# ---- The trial ---------------------------------------------------------------------------------
def try_signals(influxdb: InfluxDB, folder: Path, chance: random.Random, count: int) -> str:
    """Try about `count` signals of each kind for each program; return what they came to."""
    bucket = influxdb.new_bucket()
    settings = influxdb.settings(bucket)
    model = Disk(folder / "model")
    line_counts = {program: lines_of_report(model, settings, program) for program in Program}
    stops = make_stops(folder, line_counts, chance, count)
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda stop: stop.happen(settings), stops))

    outcomes = check_stopped(influxdb, bucket, stops)
    repair_and_check(influxdb, bucket, stops)

    counts = ", ".join(f"{program.value} {line_counts[program]}" for program in Program)
    summary = ", ".join(f"{outcome} {number}" for outcome, number in sorted(outcomes.items()))
    return f"{influxdb.name}: lines: {counts}; the known file afterwards: {summary}"


def check_stopped(influxdb: InfluxDB, bucket: str, stops: Sequence[Stop]) -> dict[str, int]:
    """Check the known files, and that what is known was stored; return how many are new and old."""
    stored = stored_by_host(influxdb, bucket)
    outcomes = collections.Counter[str]()
    for stop in stops:
        if stop.known_is_new():
            outcomes[f"{stop.kind} new"] += 1
            stop.disk.expect_renewal_stored(stored[stop.host], stop.host)
        else:
            outcomes[f"{stop.kind} old"] += 1
    kinds = {stop.kind for stop in stops}
    is_complete = len(outcomes) == 2 * len(kinds)
    expect(is_complete, f"each stopped before and after the known file was replaced: {outcomes}")
    return outcomes


def repair_and_check(influxdb: InfluxDB, bucket: str, stops: Sequence[Stop]) -> None:
    """Send a run report of each disk; then the database must equal the disk."""
    for stop in stops:
        settings = {**influxdb.settings(bucket), "HOSTNAME": stop.host}
        ended = stop.disk.report(Program.RUN_REPORT, settings)
        expect(ended.status == 0, f"{stop.host}: the run report after it succeeds: {ended.err}")
        stop.disk.expect_current_known(stop.host)
    stored = stored_by_host(influxdb, bucket)
    for stop in stops:
        stop.disk.expect_equal_to(stored[stop.host], stop.host)
