"""Whatever happens to reports, in the end InfluxDB holds what the disk says: any sequence of events, and a kill at any point."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import certbot_renewal_report
from support.hooks import known
from support.points import renewals_of, run_points, state_of
from tools.faults.trials import stopped
from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.lineages import DAY, install_report_hook, make_lineage

LINEAGES = ("a", "b")
NOWHERE = {"INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TIMEOUT": "0.1"}
FATES = ("reported", "lost", "delayed", "repeated")
EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("renewed"), st.sampled_from(LINEAGES), st.sampled_from([*FATES, "not called"])
        ),
        st.tuples(st.just("deleted"), st.sampled_from(LINEAGES), st.just("")),
        st.tuples(st.just("run report"), st.just(""), st.sampled_from(FATES)),
        st.tuples(st.just("arrived"), st.just(""), st.just("")),
    ),
    max_size=20,
)


class Host:
    """A host whose clock the test sets: a second passes with every event, a day with every renewal's certificate."""

    def __init__(self, folder: Path, influxdb: InfluxDB) -> None:
        self.folder, self.influxdb, self.bucket = folder, influxdb, influxdb.new_bucket()
        self.environ = {"HOSTNAME": "web1", **influxdb.settings(self.bucket)}
        self.script, self.now = str(install_report_hook(folder)), int(time.time()) - 200
        self.begun, self.issued = self.now - 50 * DAY, defaultdict[str, set[int]](set)
        self.present, self.under_way = dict[str, int](), list[str]()
        for place in ("live", "renewal"):
            (folder / place).mkdir()

    def report(self, fate: str, *arguments: str, **environ: str) -> None:
        """Starts the hook; its report arrives, once or twice, or later, or never."""
        settings = {**self.environ, **environ, **(NOWHERE if fate == "lost" else {})}
        with pytest.MonkeyPatch.context() as patch:
            if (
                fate == "delayed"
            ):  # somewhere between Telegraf and InfluxDB; for the host it was delivered
                patch.setattr(
                    certbot_renewal_report, "deliver", lambda _, lines, __: self.taken(lines)
                )
            for _ in range(2 if fate == "repeated" else 1):
                certbot_renewal_report.main(arguments, dict(settings), self.script)

    def taken(self, lines: list[str]) -> certbot_renewal_report.Answer:
        """Takes a request of which nobody knows when it arrives."""
        self.under_way.append("\n".join(lines))
        return certbot_renewal_report.Answer()

    def happens(self, event: str, lineage: str, fate: str) -> None:
        """One event, a second after the last."""
        self.now += 1
        if event == "renewed":
            self.begun += DAY
            live = make_lineage(
                self.folder, lineage, [f"{lineage}.example.com"], self.begun, 90 * DAY
            )
            self.issued[lineage].add(self.begun)
            self.present[lineage] = self.begun
            if fate != "not called":
                self.report(
                    fate, RENEWED_LINEAGE=str(live), RENEWED_DOMAINS=f"{lineage}.example.com"
                )
        elif event == "deleted" and self.present.pop(lineage, 0):
            for place in (f"live/{lineage}", f"archive/{lineage}"):
                shutil.rmtree(self.folder / place)
            (self.folder / "renewal" / f"{lineage}.conf").unlink()
        elif event == "run report":
            self.report(fate, "--all")
        elif event == "arrived" and self.under_way:
            self.arrive(self.under_way.pop())  # the last first

    def arrive(self, lines: str) -> None:
        """A report that was under way."""
        parameters = {"bucket": self.bucket, "org": ORG, "precision": "s"}
        url = self.influxdb.url + "/api/v2/write"
        requests.post(
            url, params=parameters, data=lines, headers=self.influxdb.headers, timeout=60
        ).raise_for_status()


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(events=EVENTS)
def test_in_the_end_the_points_are_what_the_disk_says(
    influxdb: InfluxDB, events: list[tuple[str, str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        host = Host(Path(name) / "letsencrypt", influxdb)
        patch.setattr(
            certbot_renewal_report,
            "time",
            types.SimpleNamespace(**{**vars(time), "time": lambda: float(host.now)}),
        )
        for event in [("run report", "", "reported"), *events]:
            host.happens(*event)
        host.happens("run report", "", "reported")
        while host.under_way:
            host.arrive(host.under_way.pop(0))
        points = influxdb.points(host.bucket)
        assert known(host.folder) == sorted(host.present)
        for lineage in LINEAGES:
            renewals = renewals_of(points, lineage)
            assert renewals == {int(p[0]) for p in points if f"domain={lineage}.example.com" in p}
            assert renewals <= host.issued[lineage]
            if lineage in host.present:
                archive = host.folder / "archive" / lineage
                assert renewals >= {
                    certbot_renewal_report.read_certificate(str(p), lineage).not_before
                    for p in archive.iterdir()
                }
                state = state_of(points, lineage)
                assert (state["not_before"], state["run_at"]) == (host.present[lineage], host.now)
            elif any(f"lineage={lineage}" in p for p in points):
                assert state_of(points, lineage)["renewal_due"] == 0


def test_a_run_report_that_is_killed_leaves_nothing_wrong(
    server: Callable[[str], InfluxDB], certbot_folder: Path
) -> None:
    influxdb, now = server("influxd-1.12"), int(time.time())
    bucket = influxdb.new_bucket()
    script = install_report_hook(certbot_folder).relative_to(certbot_folder)

    def run_report(host: str, folder: Path, at: int = -1) -> subprocess.CompletedProcess[str]:
        return stopped(
            folder / script,
            at,
            signal.SIGKILL,
            {"HOSTNAME": host, **influxdb.settings(bucket)},
            "--all",
        )

    def whole_report(host: str, folder: Path) -> int:
        environ = {"HOSTNAME": host, **influxdb.settings(bucket)}
        return subprocess.run(
            [sys.executable, folder / script, "--all"],
            env=environ,
            stdout=subprocess.DEVNULL,
            timeout=60,
        ).returncode

    def copied(host: str) -> Path:
        return shutil.copytree(certbot_folder, certbot_folder.parent / host, symlinks=True)

    for lineage in ("gone", "stays"):
        make_lineage(certbot_folder, lineage, [f"{lineage}.example.com"], now - 10 * DAY, 90 * DAY)
    assert run_report("begin", certbot_folder).returncode == 0
    for lineage in ("new", "stays"):
        make_lineage(certbot_folder, lineage, [f"{lineage}.example.com"], now - DAY, 90 * DAY)
    for place in ("live/gone", "archive/gone"):
        shutil.rmtree(certbot_folder / place)
    (certbot_folder / "renewal" / "gone.conf").unlink()

    whole = run_report("whole", copied("whole"))
    lines = int(whole.stdout.rpartition("lines ")[2])
    places = {
        *range(lines // 25, lines, lines // 25),
        *range(lines - 25, lines),
    }  # the last lines keep what was delivered
    hosts = {f"killed-{at}": at for at in sorted(places)}
    with ThreadPoolExecutor(2) as pool:
        folders = dict(zip(hosts, pool.map(copied, hosts)))
        ended = list(
            pool.map(lambda host: run_report(host, folders[host], hosts[host]).returncode, hosts)
        )
    assert set(ended) == {-signal.SIGKILL}
    points = influxdb.points(bucket)
    for host, folder in folders.items():
        mine = {p for p in points if f"host={host}" in p}
        assert known(folder) in (["gone", "stays"], ["new", "stays"])
        assert not {
            p for p in mine if p[1] == "renewal_due" and p[2] == "0" and "lineage=gone" not in p
        }
        if known(folder) == ["new", "stays"] or run_points(mine):
            assert {f"lineage={name}" for name in ("gone", "new", "stays")} <= set().union(*mine)
    assert {tuple(known(folder)) for folder in folders.values()} == {
        ("gone", "stays"),
        ("new", "stays"),
    }  # it was killed before and after
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda host: whole_report(host, folders[host]), hosts)) == {0}
    points = influxdb.points(bucket)
    for host, folder in folders.items():
        mine = {p for p in points if f"host={host}" in p}
        assert known(folder) == ["new", "stays"]
        assert (
            state_of(mine, "gone")["renewal_due"],
            renewals_of(mine, "new"),
            renewals_of(mine, "stays"),
        ) == (
            0,
            {now - DAY},
            {now - DAY},
        )
        assert run_points(mine)
