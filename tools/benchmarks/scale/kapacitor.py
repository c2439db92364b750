"""What the alerts on Kapacitor cost, and the mails when many certificates are overdue at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.benchmarks.fleet import Fleet, load, load_folder_of_one_alert, peak_memory
from tools.benchmarks.scale.costs import cpu_seconds
from tools.benchmarks.scale.fleets import (
    FLEETS,
    LARGE,
    MIDDLE_FLEET,
    overdue_states,
    storage_for,
)
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.kapacitor import Inbox, Kapacitor, start_inbox, start_kapacitor
from tools.servers.processes import wait_for

INFLUXDB = "influxd-1.12"
BUCKET = "telegraf"
PATIENCE_SECONDS = 120  # for the mails of one flood, and three evaluations more
SLOW_MAIL_SECONDS = 0.03


class CountingInbox(Inbox):
    """A mail server that only counts the mails, and needs some seconds for each.

    `times` says by the clock perf_counter when each mail came.
    """

    def __init__(self, pause: float) -> None:
        """`pause` is in seconds."""
        super().__init__()
        self.pause = pause
        self.times: list[float] = []

    def keep(self, content: bytes) -> None:
        """Count a mail."""
        if self.pause:
            time.sleep(self.pause)  # its event loop has nothing else to do
        self.times.append(time.perf_counter())


@dataclass(frozen=True)
class Case:
    """What is measured: an alert of the pack that is evaluated every so many seconds, on a fleet.

    `pause` is what the mail server needs for each mail, in seconds. `buffer` is Kapacitor's
    topic-buffer-length, 0: its default. `shares` of the fleet become overdue, one after the other.
    """

    fleet: Fleet
    template: str
    every: int
    pause: float = 0.0
    buffer: int = 0
    shares: tuple[float, ...] = (0.01, 1.0)

    def describe(self) -> str:
        """Return the case in words."""
        text = f"{self.fleet.certificates} certificates, {self.template}"
        if self.pause:
            text += f", mail server takes {self.pause * 1000:.0f} ms"
        if self.buffer:
            text += f", topic-buffer-length = {self.buffer}"
        return f"{text}, every = {self.every} s"

    def groups(self) -> int:
        """Return how many groups an evaluation has: hosts, or certificates."""
        if self.template.endswith("_hosts"):
            return self.fleet.hosts
        return self.fleet.certificates


def measure_alerts(case: Case, folder: Path) -> None:
    """Print what an alert costs, and what happens when shares of the fleet become overdue."""
    box = CountingInbox(case.pause)
    config = "max-body-size = 0"
    storage = storage_for(INFLUXDB)
    with (
        start_influxdb(INFLUXDB, folder / "influxdb", None, config, storage) as influxdb,
        start_inbox(box),
    ):
        influxdb.command(f'CREATE DATABASE "{BUCKET}"')
        load(influxdb, BUCKET, case.fleet.states(int(time.time()), 1, 0))
        alert_folder = load_folder_of_one_alert(case.template, folder / "load", f"{case.every}s")
        settings = f"[alert]\ntopic-buffer-length = {case.buffer}" if case.buffer else ""
        with start_kapacitor(
            folder / "kapacitor", alert_folder, influxdb, box, login=settings
        ) as kapacitor:
            cost = cpu_of_evaluation(kapacitor, case)
            print(f"{case.describe()}: {cost:.2f} s CPU an evaluation", flush=True)
            for share in case.shares:
                states = overdue_states(case.fleet, share, int(time.time()))
                mails = flood(box, kapacitor, influxdb, states, case.every)
                memory = peak_memory(kapacitor.pid)
                print(f"  {share:4.0%} overdue: {mails}; peak memory {memory:.0f} MiB", flush=True)


def cpu_of_evaluation(kapacitor: Kapacitor, case: Case) -> float:
    """Return the CPU time that Kapacitor needs for an evaluation, the mean of two or more."""
    groups = case.groups()
    wait_for(lambda: rows_judged(kapacitor, case) >= groups, "an evaluation", 600)
    rows_before = rows_judged(kapacitor, case)
    cpu_before = cpu_seconds(kapacitor.pid)
    rows = 0
    while rows < 2 * groups:
        time.sleep(case.every)  # rarely: each of these requests costs it something, too
        rows = rows_judged(kapacitor, case) - rows_before
    return (cpu_seconds(kapacitor.pid) - cpu_before) / rows * groups


def rows_judged(kapacitor: Kapacitor, case: Case) -> int:
    """Return how many rows the alert has judged so far, one for each group and evaluation."""
    return kapacitor.alert(case.template)["collected"]


def flood(
    box: CountingInbox,
    kapacitor: Kapacitor,
    influxdb: InfluxDB,
    states: Iterator[str],
    every: int,
) -> str:
    """Make certificates overdue; return in words which mails come, when, and what is lost.

    It ends when no mail has come for two evaluations, or when the patience ends.
    """
    mails_before = len(box.times)
    lost_before = lost_events(kapacitor)
    load(influxdb, BUCKET, states)
    begin = time.perf_counter()
    patience = PATIENCE_SECONDS + 3 * every
    quiet = 2 * every + 5

    def is_over() -> bool:
        now = time.perf_counter()
        if now - begin > patience:
            return True
        has_mails = len(box.times) > mails_before
        return has_mails and now - box.times[-1] > quiet

    wait_for(is_over, "the mails", 2 * patience)
    lost = lost_events(kapacitor) - lost_before
    mails = [moment - begin for moment in box.times[mails_before:]]
    if not mails:
        return f"no mail within {patience} s"
    rest = ", more to come" if time.perf_counter() - begin > patience else ""
    return f"{len(mails)} mails, first {mails[0]:.1f} s, last {mails[-1]:.1f} s{rest}, {lost} lost"


def lost_events(kapacitor: Kapacitor) -> int:
    """Return how many events Kapacitor has dropped since it could not send their mails in time."""
    return kapacitor.log.read_text().count("failed to deliver event")


def measure_kapacitor(folder: Path) -> None:
    """Print what the alerts cost, and the mails of a flood; with a slow mail server, too."""
    print("\nKapacitor, on InfluxDB 1.12", flush=True)
    for fleet in FLEETS[1:] or FLEETS:
        every = 10 if fleet.certificates < LARGE else 30
        for template in ("renewal_overdue", "renewal_overdue_hosts"):
            case = Case(fleet, template, every)
            measure_alerts(case, folder / f"{template}-{fleet.certificates}")
    for buffer in (0, MIDDLE_FLEET.certificates):
        case = Case(MIDDLE_FLEET, "renewal_overdue", 10, SLOW_MAIL_SECONDS, buffer, (1.0,))
        measure_alerts(case, folder / f"slow-{buffer}")
