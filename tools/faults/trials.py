#!/usr/bin/env python3
"""What may go wrong between the hook and InfluxDB, made to happen, and what must hold afterwards: the database equals the disk.

- A proxy that delays, drips, cuts, sends twice, doubles and corrupts a byte, at each position of request and answer.
- SIGTERM and SIGKILL at lines of the deploy hook and of the run report drawn by lot.
- 200 hooks at once, and InfluxDB killed and started again while they write.

This is the long form; tests/test_faults.py has the short one of all of it. A seed that is printed repeats a run. Start it with: make faults
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import requests

import certbot_renewal_report
from tools.servers import faulty
from tools.servers.faulty import Fault, Proxy
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.lineages import DAY, REPORT_HOOK, install_report_hook, make_lineage
from tools.servers.processes import MissingServer, free_port, wait_for

NAMES = ["example.com", "www.example.com"]
Point = tuple[str, ...]


class Ran(NamedTuple):
    """How the hook ended, and what it said."""

    status: int
    out: str
    err: str


class Wrong(Exception):
    """A promise that was not kept."""


def expect(condition: object, what: str) -> None:
    """Raises Wrong where something is not as promised."""
    if not condition:
        raise Wrong(what)


def run_here(script: Path, environ: dict[str, str], *arguments: str) -> Ran:
    """The hook in this process, which is quick; whatever happens, it keeps the promises about what it says."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = certbot_renewal_report.main(arguments, dict(environ), str(script))
    ran = Ran(status, out.getvalue(), err.getvalue())
    expect(
        "Traceback" not in ran.out + ran.err and (ran.out + ran.err).isascii(),
        f"what it said: {ran}",
    )
    expect(
        ran.err.count("\n") <= 1 and (status == 0) == (not ran.err),
        f"one line, and only when it failed: {ran}",
    )
    expect(
        not environ.get("INFLUXDB_TOKEN") or environ["INFLUXDB_TOKEN"] not in ran.out + ran.err,
        f"the token: {ran}",
    )
    return ran


class Disk:
    """A certbot folder with a lineage's three certificates: the first was reported, the second's report was lost, the third is current."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.script = folder, install_report_hook(folder)
        self.begun = [int(time.time()) - days * DAY for days in (100, 40, 1)]
        for moment in self.begun:
            self.live = make_lineage(folder, NAMES[0], NAMES, moment, 90 * DAY)
        self.known = folder / certbot_renewal_report.KNOWN_FILE
        self.renewed = {"RENEWED_LINEAGE": str(self.live), "RENEWED_DOMAINS": " ".join(NAMES)}

    def forget(self) -> None:
        """As it was after the first certificate was reported."""
        self.known.write_text(f"{NAMES[0]} {self.begun[0]}\n")

    def renewals(self, host: str, moments: Iterable[int]) -> set[Point]:
        """The renewal points of these certificates."""
        whole = (str(len(NAMES)), "domain=all", f"host={host}", f"lineage={NAMES[0]}")
        each = [("1", f"domain={name}", f"host={host}") for name in NAMES]
        return {
            (str(moment), "renewed_count", *rest) for moment in moments for rest in (whole, *each)
        }

    def check_report(self, mine: set[Point], host: str) -> None:
        """What a deploy hook that said success must have stored: the current renewal and its state."""
        expect(
            self.renewals(host, self.begun[2:]) <= mine,
            f"{host}: success, and the renewal is not stored",
        )
        expect(any(p[1] == "run_at" for p in mine), f"{host}: success, and the state is not stored")

    def check_whole(self, mine: set[Point], host: str, more: bool) -> None:
        """What must be stored after a run report; and nothing else, unless there may be more, which a corrupted request made."""
        renewals, stored = (
            self.renewals(host, self.begun[1:]),
            {p for p in mine if p[1] == "renewed_count"},
        )
        expect(renewals <= stored, f"{host}: renewals are missing: {renewals - stored}")
        expect(
            any(p[1:] == ("certificates", "1", f"host={host}") for p in mine),
            f"{host}: the run of certbot is missing",
        )
        fields = {
            "not_before": self.begun[2],
            "renewal_due": self.begun[2] + 60 * DAY,
            "not_after": self.begun[2] + 90 * DAY,
        }
        states = {(p[1], p[2]) for p in mine if p[1] in fields and f"lineage={NAMES[0]}" in p}
        expect(
            {(key, str(value)) for key, value in fields.items()} <= states,
            f"{host}: the state is missing",
        )
        if not more:
            on_disk = self.renewals(host, self.begun)
            expect(stored <= on_disk, f"{host}: renewals that are not on disk: {stored - on_disk}")
            expect(len(states) == len(fields), f"{host}: states that are not on disk: {states}")
        expect(
            f"{NAMES[0]} {self.begun[2]}\n" in self.known.read_text(),
            f"{host}: what is known is wrong",
        )


def by_host(points: set[Point]) -> dict[str, set[Point]]:
    """The points of each host."""
    found = collections.defaultdict[str, set[Point]](set)
    for p in points:
        for tag in p[3:]:
            if tag.startswith("host="):
                found[tag[5:]].add(p)
    return found


# ---- A proxy at each byte --------------------------------------------------------------------------------------------
HARMLESS = ("none", "delay", "drip", "duplicate")  # the report arrives all the same


def may_store_more(fault: Fault) -> bool:
    """A request whose bytes are others than the hook sent may store other points: plain HTTP has no check of its own. In real life TCP has
    a checksum and TLS a better one."""
    return fault.side == "request" and fault.mode in ("corrupt", "double")


def every_fault(lengths: dict[str, int], lot: random.Random) -> list[Fault]:
    """Each mode at each byte of both directions, and behind the last one where that makes sense."""
    faults = []
    for side, length in lengths.items():
        for mode in faulty.MODES:
            if mode == "duplicate" and side == "response":
                continue
            positions = range(length + (mode in ("cut", "duplicate")))
            faults += [Fault(mode, side, at, lot.randrange(1, 256)) for at in positions]
    return faults


def some_faults(
    lengths: dict[str, int], lot: random.Random, count: int, bounds: Sequence[int]
) -> list[Fault]:
    """So many drawn by lot, and all that are at a boundary of the request, or at an end."""
    faults = every_fault(lengths, lot)
    near = [
        f
        for f in faults
        if (f.side == "request" and f.at in bounds)
        or f.at in (0, lengths[f.side] - 1, lengths[f.side])
    ]
    return lot.sample(faults, count) + near


def exchanges(
    influxdb: InfluxDB,
    folder: Path,
    lot: random.Random,
    count: int | None = None,
    timeout: str = "0.4",
) -> str:
    """Faults of deploy hooks, `count` drawn by lot or else all, and of a quarter as many run reports in their second request; what they
    came to, in words. A timeout under half a second leaves one try."""
    disk, ended, longest = (
        Disk(folder / influxdb.name),
        collections.Counter[tuple[str, str, int]](),
        0.0,
    )
    proxy = Proxy(influxdb.url)
    with faulty.serving(proxy.serve) as url:

        def report(bucket: str, number: int, fault: Fault, *arguments: str) -> Ran:
            proxy.befall(fault)
            time_enough = "30" if fault.mode in HARMLESS else timeout
            environ = {
                **influxdb.settings(bucket),
                "INFLUXDB_URL": url,
                "INFLUXDB_TIMEOUT": time_enough,
                "HOSTNAME": f"host-{number:06}",
            }
            return run_here(
                disk.script, environ if arguments else {**environ, **disk.renewed}, *arguments
            )

        disk.forget()
        bucket = influxdb.new_bucket()
        expect(report(bucket, 0, Fault("none")).status == 0, "without a fault")
        lengths = wait_for(
            lambda: dict(proxy.passed) if len(proxy.passed) == 2 else None, "the end of an exchange"
        )
        body = len("\n".join(dry_run(disk, "host-000000")))
        bounds = [
            lengths["request"] - body - 4,
            lengths["request"] - body - 1,
            lengths["request"] - body,
        ]
        cases = (
            every_fault(lengths, lot) if count is None else some_faults(lengths, lot, count, bounds)
        )
        runs = [fault._replace(only=1) for fault in lot.sample(cases, len(cases) // 4)]
        work = [*((fault, ()) for fault in cases), *((fault, ("--all",)) for fault in runs)]
        for begin in range(0, len(work), 400):
            bucket = influxdb.new_bucket()
            report(bucket, 0, Fault("none"))  # the fields have their types
            batch = dict(enumerate(work[begin : begin + 400], begin + 1))
            interrupted = {}
            for number, (fault, arguments) in batch.items():
                disk.forget()
                started = time.monotonic()
                interrupted[number] = report(bucket, number, fault, *arguments)
                longest = max(longest, 0 if fault.mode in HARMLESS else time.monotonic() - started)
                ended[fault.side, fault.mode, interrupted[number].status] += 1
                expect(
                    interrupted[number].status or proxy.said == b"HTTP/1.1 204",
                    f"{fault} {arguments}: success, after {proxy.said!r}",
                )
                kept = disk.known.read_text() != f"{NAMES[0]} {disk.begun[0]}\n"
                delivered = (
                    "reported into" in interrupted[number].out
                )  # a corrupted Date may still call the clock wrong
                expect(
                    kept == (delivered and bool(arguments)),
                    f"{fault} {arguments}: only what was delivered is known",
                )
            stored = by_host(influxdb.points(bucket))
            for number, (fault, arguments) in batch.items():
                if interrupted[number].status == 0 and not may_store_more(fault):
                    disk.check_report(stored[f"host-{number:06}"], f"host-{number:06}")
                expect(
                    interrupted[number].status == 0 or fault.mode not in HARMLESS,
                    f"{fault} {arguments}: {interrupted[number].err}",
                )
            for number, (fault, _) in batch.items():
                disk.forget()
                clean = report(bucket, number, Fault("none"), "--all")
                expect(clean.status == 0, f"the run report after {fault}: {clean.err}")
            stored = by_host(influxdb.points(bucket))
            for number, (fault, _) in batch.items():
                disk.check_whole(
                    stored[f"host-{number:06}"], f"host-{number:06}", may_store_more(fault)
                )
    table = "; ".join(
        f"{side} {mode} exit {status}: {times}"
        for (side, mode, status), times in sorted(ended.items())
    )
    sizes = f"request {lengths['request']} bytes, answer {lengths['response']}"
    return (
        f"{influxdb.name}: {sizes}; {table}; longest {longest:.2f} s with a timeout of {timeout} s"
    )


def dry_run(disk: Disk, host: str) -> list[str]:
    """The lines of a deploy hook's report."""
    return run_here(disk.script, {"HOSTNAME": host, **disk.renewed}, "--dry-run").out.splitlines()[
        :-1
    ]


# ---- Signals ---------------------------------------------------------------------------------------------------------
# Runs a script and sends it a signal when it has come to its nth line, counted in all its threads and, with the sending of a request, in
# http.client; says how many there were when it was not stopped.
STOPPER = """
import http.client, os, runpy, sys, threading
script, at, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.argv[:4] = [script]
count = 0
def trace(frame, event, argument):
    global count
    if frame.f_code.co_filename not in (script, http.client.__file__):
        return None
    count += event == "line"
    if count == at:
        os.kill(os.getpid(), number)
    return trace
threading.settrace(trace)
sys.settrace(trace)
try:
    runpy.run_path(script, run_name="__main__")
finally:
    sys.settrace(None)
    print("lines", count)
"""


def stopped(
    script: Path, at: int, number: signal.Signals, environ: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """The hook as a process that gets a signal at its nth line; never where that is -1."""
    command = [sys.executable, "-c", STOPPER, str(script), str(at), str(int(number)), *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


class Stop(NamedTuple):
    """A deploy hook or a run report that gets a signal at a line."""

    disk: Disk
    host: str
    at: int
    number: signal.Signals
    arguments: tuple[str, ...]

    def old(self) -> str:
        """What is known before: of another lineage, so that the hook has something to add."""
        return f"other {self.disk.begun[0]}\n"

    def is_new(self) -> bool:
        """Whether it kept what it should. Half of it is wrong."""
        text, mine = (
            self.disk.known.read_text(),
            f"{NAMES[0]} {self.disk.begun[2] if self.arguments else 0}\n",
        )
        begin = "# run report of " if self.arguments else self.old()
        expect(
            text == self.old() or (text.startswith(begin) and text.endswith("\n" + mine)),
            f"{self.host}: half of what is known: {text!r}",
        )
        return text != self.old()


def signals(influxdb: InfluxDB, folder: Path, lot: random.Random, count: int) -> str:
    """SIGTERM and SIGKILL for deploy hooks and run reports, `count` of each at lines drawn by lot, half of them among the last, where it
    keeps what it delivered; what they came to."""
    model, bucket, stops, totals = (
        Disk(folder / "model"),
        influxdb.new_bucket(),
        list[Stop](),
        dict[str, int](),
    )
    settings = influxdb.settings(bucket)
    for kind, arguments in (("deploy-hook", ()), ("run-report", ("--all",))):
        totals[kind] = whole = lines_of(model, settings, *arguments)
        for number in (signal.SIGTERM, signal.SIGKILL):
            places = {
                whole - 14,
                whole - 1,
                *lot.sample(range(1, whole), count - count // 2),
                *lot.choices(range(whole - 14, whole), k=count // 2),
            }
            for at in sorted(places):
                host = f"{kind}-{number.name}-{at}"
                stops.append(Stop(Disk(folder / host), host, at, number, arguments))

    def stop(what: Stop) -> None:
        what.disk.known.write_text(what.old())
        environ = {
            **settings,
            "HOSTNAME": what.host,
            **({} if what.arguments else what.disk.renewed),
        }
        ended = stopped(what.disk.script, what.at, what.number, environ, *what.arguments)
        expect(
            ended.returncode == -what.number and "Traceback" not in ended.stderr,
            f"{what.host}: {ended}",
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(stop, stops))
    stored, kept = by_host(influxdb.points(bucket)), collections.Counter[tuple[str, str]]()
    for what in stops:
        kept[what.host.rpartition("-")[0], "new" if what.is_new() else "old"] += 1
        if what.is_new():
            what.disk.check_report(stored[what.host], what.host)
        expect(
            run_here(what.disk.script, {**settings, "HOSTNAME": what.host}, "--all").status == 0,
            f"{what.host}: the run report after it",
        )
    stored = by_host(influxdb.points(bucket))
    for what in stops:
        what.disk.check_whole(stored[what.host], what.host, False)
    expect(len(kept) == 8, f"each was stopped before and after it kept what is known: {kept}")
    return f"{influxdb.name}: lines {totals}; what is known afterwards: " + ", ".join(
        f"{k} {v} {n}" for (k, v), n in sorted(kept.items())
    )


def lines_of(disk: Disk, settings: dict[str, str], *arguments: str) -> int:
    """How many lines there are in a report that nobody stops, which learns of a lineage."""
    disk.known.write_text("other 1\n")
    environ = {**settings, "HOSTNAME": "whole", **({} if arguments else disk.renewed)}
    return int(
        stopped(disk.script, -1, signal.SIGTERM, environ, *arguments).stdout.rpartition("lines ")[2]
    )


# ---- Many at once ----------------------------------------------------------------------------------------------------
# Loads the hook once and forks a process for each report on stdin, all held back until all are there; prints number and status of each
# that ends. What a process says goes to a file.
FORKER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import certbot_renewal_report, requests
gate, opener = os.pipe()
for number, (environ, script, log) in enumerate(json.load(sys.stdin)):
    if os.fork() == 0:
        result = os.dup(1)
        for descriptor in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        os.close(opener)
        os.read(gate, 1)
        os.environ.clear()
        os.environ.update(environ)
        status = 99
        try:
            status = certbot_renewal_report.main([], os.environ, script)
        finally:
            sys.stdout.flush()
            os.write(result, f"{number} {status}\\n".encode())
            os._exit(status)
os.close(opener)
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""


@contextlib.contextmanager
def forked(
    reports: Sequence[tuple[dict[str, str], str, str]],
) -> Iterator[Iterator[tuple[int, int]]]:
    """The hooks as processes at once; yields number and status of each as it ends."""
    command = [sys.executable, "-c", FORKER, str(REPORT_HOOK.parent)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin and running.stdout
        with running.stdin as stdin:
            json.dump(reports, stdin)
        yield ((int(line.split()[0]), int(line.split()[1])) for line in running.stdout)


def crowd(name: str, folder: Path, count: int) -> str:
    """So many deploy hooks of as many hosts at once; InfluxDB is killed when a third has ended, and starts again. What it came to."""
    port, ended, away = free_port(), dict[int, int](), 0.0
    disks = {f"host-{number:03}": Disk(folder / f"host-{number:03}") for number in range(count)}
    with contextlib.ExitStack() as stack:

        def started() -> InfluxDB:
            return stack.enter_context(start_influxdb(name, folder / name, port))

        influxdb = started()
        settings = influxdb.settings(influxdb.new_bucket())
        bucket = settings["INFLUXDB_BUCKET"]
        logs = {host: disk.folder / "log" for host, disk in disks.items()}
        for disk in disks.values():
            disk.known.write_text(f"other {disk.begun[0]}\n")
        environs = {
            host: {**settings, "HOSTNAME": host, **disk.renewed} for host, disk in disks.items()
        }
        for number, environ in enumerate(environs.values()):
            environ["INFLUXDB_TIMEOUT"] = (
                "0.3" if number % 5 == 4 else "60"
            )  # some give up, the others wait for the server to be back
        with forked(
            [(environs[host], str(disks[host].script), str(logs[host])) for host in disks]
        ) as results:
            for number, status in results:
                ended[number] = status
                if len(ended) == count // 3:
                    influxdb.child.kill()
                    influxdb.child.wait()
                    since = time.monotonic()
                    influxdb = started()
                    away = time.monotonic() - since
        hosts = dict(enumerate(disks))
        expect(sorted(ended) == sorted(hosts), f"not all ended: {len(ended)} of {count}")
        stored = by_host(influxdb.points(bucket))
        for number, host in hosts.items():
            said = logs[host].read_text()
            expect(
                "Traceback" not in said and said.count("\n") == 1 and ended[number] in (0, 1),
                f"{host}: {ended[number]} {said}",
            )
            if ended[number] == 0:
                disks[host].check_report(stored[host], host)
            expect(
                ended[number] == 0 or environs[host]["INFLUXDB_TIMEOUT"] == "0.3", f"{host}: {said}"
            )
            disks[host].forget()
            expect(
                run_here(disks[host].script, {**settings, "HOSTNAME": host}, "--all").status == 0,
                f"{host}: the run report",
            )
        stored = by_host(influxdb.points(bucket))
        for host, disk in disks.items():
            disk.check_whole(stored[host], host, False)
    failed = sum(1 for status in ended.values() if status)
    came_to = f"{count - failed} said success and are stored, {failed} gave up"
    return f"{name}: {count} hooks at once, {came_to}; InfluxDB was away for {away:.1f} s"


# ---- The long form ---------------------------------------------------------------------------------------------------
def versions(influxdb: InfluxDB) -> str:
    """What takes part."""
    server = requests.get(influxdb.url + "/ping", timeout=5).headers["X-Influxdb-Version"]
    ours = f"hook {certbot_renewal_report.__version__}, Python {platform.python_version()}, requests {requests.__version__}"
    return f"{influxdb.name} {server}, {ours}"


def main() -> None:
    """Runs all of it, longest last; the first promise that is not kept ends it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeats a run"
    )
    parser.add_argument("--signals", type=int, default=200, help="how many of each kind")
    given = parser.parse_args()
    os.environ["NO_PROXY"] = "*"
    print(f"seed {given.seed} (--seed repeats a run), {platform.platform()}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for server in ("influxd-1.12", "influxd-2"):
            folder, lot = Path(name) / server, random.Random(given.seed)
            with start_influxdb(server, folder / "server") as influxdb:
                print(versions(influxdb), flush=True)
                for part in (
                    partial(crowd, server, folder / "crowd", 200),
                    partial(signals, influxdb, folder / "signals", lot, given.signals),
                    partial(exchanges, influxdb, folder / "exchanges", lot),
                ):
                    begin = time.monotonic()
                    print(f"{part()} ({time.monotonic() - begin:.0f} s)", flush=True)
    print("after each of them the database equalled the disk")


if __name__ == "__main__":
    try:
        main()
    except MissingServer as error:
        sys.exit(f"faults: {error}")
