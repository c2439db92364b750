"""Many deploy hooks at the same moment, and InfluxDB killed while they write.

Each hook is a process with a disk of its own. When a third of the hooks have ended, InfluxDB is
killed and started again. A fifth of the hooks give up quickly, the others wait for the server.

What must hold afterwards:

- A hook that reported success has stored its report, before the kill or after it.
- Only a hook that gives up quickly may have failed; it says why, in one line.
- After one run report of each host, the database equals the disks.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tools import ROOT
from tools.faults.disks import Disk, Program, expect, stored_by_host
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.processes import free_port

IMPATIENT_TIMEOUT = "0.3"  # seconds, INFLUXDB_TIMEOUT of every fifth hook
PATIENT_TIMEOUT = "60"


class Member(NamedTuple):
    """One deploy hook of the crowd."""

    host: str
    disk: Disk
    is_impatient: bool

    @property
    def log(self) -> Path:
        """The file with what the hook printed."""
        return self.disk.folder / "log"

    def start_parameters(self, settings: Mapping[str, str]) -> dict[str, object]:
        """Return what tools.faults.fork_reports needs to start the hook."""
        timeout = IMPATIENT_TIMEOUT if self.is_impatient else PATIENT_TIMEOUT
        own_settings = {**settings, "HOSTNAME": self.host, "INFLUXDB_TIMEOUT": timeout}
        return {
            "environ": self.disk.environ(Program.DEPLOY_HOOK, own_settings),
            "script": str(self.disk.scripts[Program.DEPLOY_HOOK]),
            "log": str(self.log),
        }


class HookEnded(NamedTuple):
    """The end of a hook; `number`: of its member."""

    number: int
    status: int


class KilledServer:
    """An InfluxDB that can be killed and started again on the same port, with its data."""

    def __init__(self, name: str, folder: Path, servers: ExitStack) -> None:
        """Start it; `servers` stops it at its end."""
        self.name = name
        self.folder = folder
        self.servers = servers
        self.port = free_port()
        self.influxdb = self.start()
        self.seconds_away = 0.0

    def start(self) -> InfluxDB:
        """Start the server and wait until it is ready."""
        return self.servers.enter_context(start_influxdb(self.name, self.folder, self.port))

    def kill_and_start(self) -> None:
        """Kill the server as a crash would, and start it again."""
        self.influxdb.child.kill()
        self.influxdb.child.wait()
        killed = time.monotonic()
        self.influxdb = self.start()
        self.seconds_away = time.monotonic() - killed


def make_crowd(folder: Path, count: int) -> list[Member]:
    """Return the members; the lineage of each is new for its known file."""
    members = []
    for number in range(count):
        host = f"host-{number:03}"
        disk = Disk(folder / host)
        disk.reset_known_to_other(host)
        members.append(Member(host, disk, is_impatient=number % 5 == 4))
    return members


@contextlib.contextmanager
def start_together(
    members: Sequence[Member], settings: Mapping[str, str]
) -> Iterator[Iterator[HookEnded]]:
    """Start all hooks at the same moment; yield an iterator of their ends, as they come."""
    command = [sys.executable, "-m", "tools.faults.fork_reports"]
    reports = [member.start_parameters(settings) for member in members]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin
        assert running.stdout
        with running.stdin as stdin:
            json.dump(reports, stdin)
        yield map(parse_end, running.stdout)


def parse_end(line: str) -> HookEnded:
    """Return what a line of tools.faults.fork_reports says."""
    number, status = line.split()
    return HookEnded(int(number), int(status))


def report_and_kill(
    members: Sequence[Member], settings: Mapping[str, str], server: KilledServer
) -> dict[str, int]:
    """Start all hooks, kill the server when a third has ended; return exit statuses by host."""
    statuses = {}
    with start_together(members, settings) as ends:
        for end in ends:
            statuses[members[end.number].host] = end.status
            if len(statuses) == len(members) // 3:
                server.kill_and_start()
    expect(len(statuses) == len(members), f"all end: {len(statuses)} of {len(members)}")
    return statuses


def check_ended(member: Member, status: int) -> None:
    """Check what a hook printed, and that it failed only if it was impatient."""
    output = member.log.read_text()
    expect("Traceback" not in output, f"{member.host}: no traceback: {output}")
    expect(output.count("\n") == 1, f"{member.host}: one line: {output}")
    expect(status in (0, 1), f"{member.host}: success or failure: {status}")
    expect(status == 0 or member.is_impatient, f"{member.host} waits for the server: {output}")


def try_crowd(server_name: str, folder: Path, count: int) -> str:
    """Try so many deploy hooks of as many hosts; return what they came to."""
    members = make_crowd(folder, count)
    with ExitStack() as servers:
        server = KilledServer(server_name, folder / server_name, servers)
        bucket = server.influxdb.new_bucket()
        settings = server.influxdb.settings(bucket)
        statuses = report_and_kill(members, settings, server)

        stored = stored_by_host(server.influxdb, bucket)
        for member in members:
            check_ended(member, statuses[member.host])
            if statuses[member.host] == 0:
                member.disk.expect_renewal_stored(stored[member.host], member.host)

        for member in members:
            member.disk.reset_known(member.host)
            own_settings = {**settings, "HOSTNAME": member.host}
            ended = member.disk.report(Program.RUN_REPORT, own_settings)
            expect(ended.status == 0, f"{member.host}: the run report succeeds: {ended.err}")
            member.disk.expect_current_known(member.host)
        stored = stored_by_host(server.influxdb, bucket)
        for member in members:
            member.disk.expect_equal_to(stored[member.host], member.host)

    failed = sum(statuses.values())
    return (
        f"{server_name}: {count} hooks at once, {count - failed} reported success and are stored, "
        f"{failed} gave up; InfluxDB was down for {server.seconds_away:.1f} s"
    )
