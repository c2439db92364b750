"""Reports that are interrupted: by a signal at a line, or by the end of InfluxDB while they write.

This is the short form; `make faults` is the long form.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import certbot_renewal_report
import certbot_renewal_run
from support.hooks import known
from support.lineages import remove_lineage
from support.points import Points, renewals_of, run_points, state_of
from support.servers import require_program
from tools.faults.crowds import try_crowd
from tools.faults.signals import PARALLEL, count_lines, run_to_end, stop_at_line, try_signals
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_run_report, make_lineage

SIGNALS = 4  # of each kind for each program


def test_a_program_that_is_stopped_leaves_the_old_or_the_new_known_file(
    server: Callable[[str], InfluxDB], tmp_path: Path, chance: random.Random
) -> None:
    print(try_signals(server("influxd-1.12"), tmp_path, chance, SIGNALS))


@pytest.mark.parametrize(("name", "count"), [("influxd-1.12", 200), ("influxd-2", 30)])
def test_what_many_hooks_reported_at_once_survives_a_kill_of_influxdb_while_they_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    require_program(name)
    monkeypatch.setenv("NO_PROXY", "*")
    print(try_crowd(name, tmp_path, count))


# ---- A run report that is killed ---------------------------------------------------------------
BEFORE = ["gone", "stays"]  # the lineages when the first run report was sent
AFTER = ["new", "stays"]  # the lineages when run reports are killed
LAST_LINES = 25  # among them is the line that replaces the known file


class RunReports:
    """Run reports of many hosts. Each has a copy of a folder in which a lineage was deleted.

    Since the first run report, `gone` was deleted, `new` was added, and `stays` was renewed.
    """

    def __init__(self, influxdb: InfluxDB, folder: Path) -> None:
        """`folder` is certbot's folder, which is copied for each host."""
        self.influxdb = influxdb
        self.bucket = influxdb.new_bucket()
        self.folder = folder
        self.script = install_run_report(folder).relative_to(folder)
        now = int(time.time())
        self.begin = now - DAY  # of the current certificates

        for lineage in BEFORE:
            self.add_certificate(lineage, now - 10 * DAY)
        ended = run_to_end(folder / self.script, self.environ("begin"), "--all")
        assert ended.returncode == 0
        for lineage in AFTER:
            self.add_certificate(lineage, self.begin)
        remove_lineage(folder, "gone")

    def add_certificate(self, lineage: str, begin: int) -> None:
        """Add a certificate to a lineage, which may be new."""
        make_lineage(self.folder, lineage, [f"{lineage}.example.com"], begin, 90 * DAY)

    def environ(self, host: str) -> dict[str, str]:
        """Return the environment of a host's report."""
        return {"HOSTNAME": host, **self.influxdb.settings(self.bucket)}

    def folder_of(self, host: str) -> Path:
        """Return the configuration folder of a host."""
        return self.folder.parent / host

    def copy_folder(self, host: str) -> None:
        """Make the configuration folder of a host, whose first run report was the same."""
        shutil.copytree(self.folder, self.folder_of(host), symlinks=True)
        known_file = self.folder_of(host) / certbot_renewal_report.KNOWN_FILE
        known_file.write_text(known_file.read_text().replace('"begin"', f'"{host}"'))

    def count_lines(self) -> int:
        """Return how many lines a run report executes that nobody kills."""
        self.copy_folder("whole")
        script = self.folder_of("whole") / self.script
        return count_lines(run_to_end(script, self.environ("whole"), "--all"))

    def kill_at(self, line: int) -> str:
        """Kill a run report at a line; return its host."""
        host = f"killed-{line}"
        self.copy_folder(host)
        script = self.folder_of(host) / self.script
        ended = stop_at_line(script, line, signal.SIGKILL, self.environ(host), "--all")
        assert ended.returncode == -signal.SIGKILL
        return host

    def report(self, host: str) -> None:
        """Send the run report of a host, in this process; nobody kills this one."""
        script = self.folder_of(host) / self.script
        assert certbot_renewal_run.main(["--all"], self.environ(host), str(script)) == 0

    def points_of(self, hosts: Iterable[str]) -> dict[str, Points]:
        """Return what is stored of each host."""
        stored = self.influxdb.points(self.bucket)
        points = {}
        for host in hosts:
            points[host] = {point for point in stored if f"host={host}" in point}
        return points


def lines_to_kill_at(line_count: int) -> list[int]:
    """Return lines in regular steps, and all of the last ones."""
    step = line_count // 25
    lines = set(range(step, line_count, step))
    lines.update(range(line_count - LAST_LINES, line_count))
    return sorted(lines)


def assert_nothing_false(points: Points, known_lineages: list[str]) -> None:
    """Assert what must hold when a run report was killed, wherever that was."""
    assert known_lineages in (BEFORE, AFTER)
    for point in points:
        is_ended = point[1] == "renewal_due" and point[2] == "0"
        assert not is_ended or "lineage=gone" in point

    # The known file and the run point come after the states.
    if known_lineages == AFTER or run_points(points):
        tags = set().union(*points)
        assert tags >= {"lineage=gone", "lineage=new", "lineage=stays"}


def test_after_a_run_report_that_is_killed_the_next_one_reports_everything(
    server: Callable[[str], InfluxDB], certbot_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    reports = RunReports(server("influxd-1.12"), certbot_folder)
    lines = lines_to_kill_at(reports.count_lines())
    with ThreadPoolExecutor(PARALLEL) as pool:
        hosts = list(pool.map(reports.kill_at, lines))

    known_of_hosts = {host: known(reports.folder_of(host), host) for host in hosts}
    for host, points in reports.points_of(hosts).items():
        assert_nothing_false(points, known_of_hosts[host])
    # They were killed before and after the known file was replaced.
    assert BEFORE in known_of_hosts.values()
    assert AFTER in known_of_hosts.values()

    for host in hosts:
        reports.report(host)
    for host, points in reports.points_of(hosts).items():
        assert known(reports.folder_of(host), host) == AFTER
        assert state_of(points, "gone")["renewal_due"] == 0
        assert renewals_of(points, "new") == {reports.begin}
        assert renewals_of(points, "stays") == {reports.begin}
        assert run_points(points)
