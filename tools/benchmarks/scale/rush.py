"""The rush: all hosts send their run reports at the same time, as fast as the server takes them."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import NamedTuple

import certbot_renewal_report as hook
import certbot_renewal_run as run_program
from tools.benchmarks.fleet import LIFETIME, Fleet, issued_at
from tools.servers.influxdb import ORG

CLIENTS = 200  # hosts that report at the same time
PROCESSES = 2  # that play the hosts: one would wait for itself
TIMEOUT_SECONDS = 10.0
NO_FOLDER = "/nonexistent"  # certbot's configuration folder: it has no file of the deliver hook


class HostResult(NamedTuple):
    """How the report of a host ended: seconds of each request, and the error, "" if none."""

    seconds: list[float]
    error: str


class RushResult(NamedTuple):
    """The results of some hosts; `begin` and `end` by the clock perf_counter."""

    begin: float
    end: float
    hosts: list[HostResult]


def make_certificate(number: int, now: int) -> hook.Certificate:
    """Return a certificate of the fleet."""
    name = f"c{number}.example.com"
    not_before = issued_at(number, now)
    not_after = not_before + LIFETIME
    due = hook.due_by_rule(not_before, not_after, (0, 0), "")
    return hook.Certificate(name, [name, f"www.{name}"], not_before, not_after, due)


def make_report(settings: hook.Settings, fleet: Fleet, host: int, now: int) -> hook.Report:
    """Return the run report of a host."""
    settings = settings._replace(host=f"host{host}")
    count = fleet.certificates // fleet.hosts
    numbers = range(host * count, (host + 1) * count)
    certificates = [make_certificate(number, now) for number in numbers]
    names = {certificate.lineage for certificate in certificates}
    lineages = hook.Lineages(names, certificates, {}, [])
    report = hook.certificates_report(settings, NO_FOLDER, lineages, now, has_run_reports=True)
    summary = run_program.RunSummary([], [], {}, "", True)
    last = run_program.run_point(settings, lineages, hook.HostRecord(), summary)
    return report._replace(last=run_program.as_run_report(last, now))


def batches_of(report: hook.Report) -> list[hook.Batch]:
    """Return the requests of a report, its last point included."""
    last = [] if report.last is None else [hook.line_protocol(report.last)]
    return [*hook.batches_of(report), hook.Batch(last, 0)]


def send(settings: hook.Settings, batches: Sequence[hook.Batch]) -> HostResult:
    """Send the report of a host as the run report does."""
    seconds = []
    for batch in batches:
        begin = time.perf_counter()
        result = hook.send_lines(settings, batch.lines, batch.droppable)
        seconds.append(time.perf_counter() - begin)
        if result.error:
            return HostResult(seconds, result.error)
    return HostResult(seconds, "")


def send_reports(
    settings: hook.Settings, fleet: Fleet, hosts: Sequence[int], clients: int, now: int
) -> RushResult:
    """Send the reports of some hosts, so many at a time."""
    reports = [make_report(settings, fleet, host, now) for host in hosts]
    batches = [batches_of(report) for report in reports]
    begin = time.perf_counter()  # the same clock in all processes
    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(functools.partial(send, settings), batches))
    return RushResult(begin, time.perf_counter(), results)


def rush(url: str, bucket: str, token: str, fleet: Fleet) -> str:
    """Let all hosts report; return what that took, in words."""
    settings = hook.Settings(
        url=url,
        version=2,
        bucket=bucket,
        org=ORG,
        token=token,
        timeout=TIMEOUT_SECONDS,
        measurement="certbot_renewal",
        host="",
        sources={},
    )
    send_share = functools.partial(
        send_reports, settings, fleet, clients=CLIENTS // PROCESSES, now=int(time.time())
    )
    shares = [range(share, fleet.hosts, PROCESSES) for share in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES) as pool:
        return in_words(list(pool.map(send_share, shares)), fleet)


def in_words(results: Sequence[RushResult], fleet: Fleet) -> str:
    """Describe the results of all processes."""
    seconds = []
    errors = []
    for result in results:
        for host in result.hosts:
            seconds += host.seconds
            if host.error:
                errors.append(host.error)
    seconds.sort()

    wall = max(result.end for result in results) - min(result.begin for result in results)
    points = 4 * fleet.certificates + fleet.hosts
    reason = f": {errors[0][:300]}" if errors else ""
    return (
        f"all reports in {wall:.1f} s, {len(seconds) / wall:.0f} requests/s, "
        f"{points / wall:.0f} points/s; "
        f"a request median {seconds[len(seconds) // 2]:.2f} s, slowest {seconds[-1]:.2f} s; "
        f"{len(errors)} failed{reason}"
    )
