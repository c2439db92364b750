"""Faults of exchanges with InfluxDB, injected by a proxy at each byte of the request and response.

Every exchange meets one fault: a mode (delay, drip, cut, duplicate, double, corrupt) at a position
in the bytes of one direction. A deploy hook, which sends one request, meets each of them. A run
report, which sends a second request with the run point, meets a quarter of them there.

What must hold after each exchange:

- Success means that InfluxDB answered 204, and that the renewal and the state are stored.
- A fault that only delays or repeats bytes is no failure.
- The known file has changed if and only if the report was delivered.
- After one run report without a fault, the database equals the disk. Only a request whose bytes
  were changed may have stored other points beside them.
"""

from __future__ import annotations

import collections
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.faults.disks import Disk, Ended, Program, expect, stored_by_host
from tools.faults.proxy import NO_FAULT, Fault, Mode, Proxy, Side
from tools.servers import faulty
from tools.servers.influxdb import InfluxDB
from tools.servers.processes import wait_for

EXCHANGES_PER_BUCKET = 400  # so that a bucket is read back quickly
PATIENT_TIMEOUT = "30"  # seconds, INFLUXDB_TIMEOUT where the report must arrive
SHORT_TIMEOUT = "0.4"  # seconds, for all other faults: under half a second there is only one try
FIRST_HOST = "host-000000"


class ExchangeSize(NamedTuple):
    """How many bytes an exchange without a fault has; `body`: of the request, the report alone."""

    request: int
    response: int
    body: int

    def of(self, side: Side) -> int:
        """Return the number of bytes of one direction."""
        return self.request if side is Side.REQUEST else self.response

    def boundaries(self, side: Side) -> set[int]:
        """Return the positions where something begins or ends: the direction, headers and body."""
        length = self.of(side)
        ends = {0, length - 1, length}
        if side is Side.RESPONSE:
            return ends
        body_start = length - self.body
        return ends | {body_start - 4, body_start - 1, body_start}  # four bytes end the headers


class Exchange(NamedTuple):
    """A program that meets a fault, on a host of its own."""

    number: int
    program: Program
    fault: Fault

    @property
    def host(self) -> str:
        """The host tag; its length is always the same, so that requests have the same size."""
        return f"host-{self.number:06}"


# ---- Which faults ------------------------------------------------------------------------------
def all_faults(size: ExchangeSize, chance: random.Random) -> list[Fault]:
    """Return each mode at each byte of both directions; chance decides how a byte is corrupted."""
    faults: list[Fault] = []
    for side in Side:
        for mode in Mode:
            is_possible = side is Side.REQUEST or mode is not Mode.DUPLICATE
            if mode is Mode.NONE or not is_possible:
                continue
            positions = range(size.of(side) + int(mode.acts_behind_last_byte()))
            faults.extend(Fault(mode, side, at, chance.randrange(1, 256)) for at in positions)
    return faults


def choose_faults(size: ExchangeSize, chance: random.Random, count: int | None) -> list[Fault]:
    """Return `count` faults drawn by chance, and all those at a boundary; None: all faults."""
    faults = all_faults(size, chance)
    if count is None:
        return faults
    drawn = chance.sample(faults, count)
    for fault in faults:
        if fault.position in size.boundaries(fault.side):
            drawn.append(fault)
    return drawn


def exchanges_with(faults: Sequence[Fault], chance: random.Random) -> list[Exchange]:
    """Return a deploy hook for each fault, and a run report for a quarter of them."""
    exchanges = []
    for number, fault in enumerate(faults, 1):
        exchanges.append(Exchange(number, Program.DEPLOY_HOOK, fault))
    of_run_reports = chance.sample(faults, len(faults) // 4)
    for number, fault in enumerate(of_run_reports, len(faults) + 1):
        in_second_request = fault._replace(connection=1)
        exchanges.append(Exchange(number, Program.RUN_REPORT, in_second_request))
    return exchanges


def in_batches(exchanges: Sequence[Exchange]) -> Iterator[Sequence[Exchange]]:
    """Divide the exchanges into those that share a bucket."""
    for start in range(0, len(exchanges), EXCHANGES_PER_BUCKET):
        yield exchanges[start : start + EXCHANGES_PER_BUCKET]


# ---- The trial ---------------------------------------------------------------------------------
class ExchangeTrial:
    """Sends reports through the proxy, and checks what must hold after each of them.

    `outcomes` counts side, mode and exit status of the exchanges. `longest` is the time in seconds
    that the slowest program took to give up.
    """

    def __init__(self, influxdb: InfluxDB, disk: Disk, proxy: Proxy, proxy_url: str) -> None:
        """`proxy_url` is the URL of the proxy, which stands in front of `influxdb`."""
        self.influxdb = influxdb
        self.disk = disk
        self.proxy = proxy
        self.proxy_url = proxy_url
        self.outcomes = collections.Counter[tuple[str, str, int]]()
        self.longest = 0.0

    def report(self, bucket: str, host: str, program: Program, fault: Fault) -> Ended:
        """Send a report that meets a fault; the known file knows the first certificate before."""
        self.disk.reset_known(host)
        self.proxy.set_fault(fault)
        settings = {
            **self.influxdb.settings(bucket),
            "INFLUXDB_URL": self.proxy_url,
            "INFLUXDB_TIMEOUT": PATIENT_TIMEOUT if fault.is_harmless() else SHORT_TIMEOUT,
            "HOSTNAME": host,
        }
        return self.disk.report(program, settings)

    def new_bucket(self) -> str:
        """Return a bucket with one report: the fields have their types, which no fault can set."""
        bucket = self.influxdb.new_bucket()
        ended = self.report(bucket, FIRST_HOST, Program.DEPLOY_HOOK, NO_FAULT)
        expect(ended.status == 0, f"a report without a fault is stored: {ended.err}")
        return bucket

    def measure(self) -> ExchangeSize:
        """Return the size of a deploy hook's exchange."""
        self.new_bucket()
        request = self.proxy.request
        response = self.proxy.response
        wait_for(lambda: request.is_finished and response.is_finished, "the end of an exchange")
        body = "\n".join(self.disk.report_lines(FIRST_HOST))
        return ExchangeSize(len(request.received), len(response.received), len(body))

    def try_batch(self, batch: Sequence[Exchange]) -> None:
        """Interrupt each exchange of a batch, then repair it by a run report without a fault."""
        bucket = self.new_bucket()
        succeeded = [exchange for exchange in batch if self.interrupt(bucket, exchange)]
        stored = stored_by_host(self.influxdb, bucket)
        for exchange in succeeded:
            if not exchange.fault.may_store_other_points():
                self.disk.expect_renewal_stored(stored[exchange.host], exchange.host)

        for exchange in batch:
            ended = self.report(bucket, exchange.host, Program.RUN_REPORT, NO_FAULT)
            expect(ended.status == 0, f"the run report after {exchange} succeeds: {ended.err}")
            self.disk.expect_current_known(exchange.host)
        stored = stored_by_host(self.influxdb, bucket)
        for exchange in batch:
            self.disk.expect_everything_stored(stored[exchange.host], exchange.host)
            if not exchange.fault.may_store_other_points():
                self.disk.expect_nothing_else_stored(stored[exchange.host], exchange.host)

    def interrupt(self, bucket: str, exchange: Exchange) -> bool:
        """Send a report that meets its fault; return whether the program reported success."""
        fault = exchange.fault
        started = time.monotonic()
        ended = self.report(bucket, exchange.host, exchange.program, fault)
        if not fault.is_harmless():
            self.longest = max(self.longest, time.monotonic() - started)
        self.outcomes[fault.side.value, fault.mode.value, ended.status] += 1

        succeeded = ended.status == 0
        expect(succeeded or not fault.is_harmless(), f"{exchange} is no failure: {ended.err}")
        if succeeded:
            answer = self.proxy.response.received[:12]
            expect(answer == b"HTTP/1.1 204", f"{exchange}: success after {answer!r}")
        self.expect_only_delivered_is_known(exchange, ended)
        return succeeded

    def expect_only_delivered_is_known(self, exchange: Exchange, ended: Ended) -> None:
        """Expect that a report that was delivered has changed the known file, and no other."""
        # Not the exit status: a corrupt Date may still be reported as a wrong clock.
        is_delivered = "reported to" in ended.out
        is_changed = self.disk.known.read_text() != self.disk.first_known(exchange.host)
        expect(is_changed == is_delivered, f"{exchange}: only what was delivered is known")

    def summary(self, size: ExchangeSize) -> str:
        """Return in words what the exchanges came to."""
        outcomes = []
        for (side, mode, status), count in sorted(self.outcomes.items()):
            outcomes.append(f"{side} {mode} exit {status}: {count}")
        return (
            f"{self.influxdb.name}: request {size.request} bytes, answer {size.response}; "
            f"{'; '.join(outcomes)}; "
            f"longest {self.longest:.2f} s with a timeout of {SHORT_TIMEOUT} s"
        )


def try_exchanges(
    influxdb: InfluxDB, folder: Path, chance: random.Random, count: int | None = None
) -> str:
    """Try faults of exchanges, `count` drawn by chance, None: all; return what they came to."""
    proxy = Proxy(influxdb.url)
    with faulty.serving(proxy.serve) as proxy_url:
        trial = ExchangeTrial(influxdb, Disk(folder / influxdb.name), proxy, proxy_url)
        size = trial.measure()
        faults = choose_faults(size, chance, count)
        for batch in in_batches(exchanges_with(faults, chance)):
            trial.try_batch(batch)
        return trial.summary(size)
