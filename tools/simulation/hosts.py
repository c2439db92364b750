"""What a simulated fleet consists of: hosts, their lineages, and the calendar of what happens."""

from __future__ import annotations

import enum
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import certbot_renewal_report as hook
from tools.simulation.alerts import Subject
from tools.simulation.logs import Log
from tools.simulation.periods import BEGIN, Periods

FIRST_VERSION_WITH_HOOKS_AT_ISSUANCE = (5, 3)


class Fault(enum.Enum):
    """What is wrong with the files of a lineage.

    certbot cannot read a lineage that is UNREADABLE, or whose FILES_DELETED; of the latter the
    certificate is gone, too. It does not see a lineage with CONFIGURATION_LOST.
    """

    UNREADABLE = "unreadable"
    FILES_DELETED = "files deleted"
    CONFIGURATION_LOST = "configuration lost"


@dataclass
class Lineage:
    """A lineage on a host.

    `ca` is a key of CAS, `backdated` says how the CA sets notBefore, a key of BACKDATED. `interval`
    is renew_before_expiry, "" if it is not set. `broken`: when its renewals fail. `faults`: when
    its files have a fault. `archive` has the predecessors of the certificate, the oldest first.
    `revoked_at` is when the CA moved the window of the certificate into the past, 0 if it did not.
    `changed_at` is when its files were last changed, by the clock of its host.

    The `renewal_due` of a certificate here is the truth: the programs compute their own.
    """

    names: list[str]
    lifetime: int
    ca: str
    backdated: str
    interval: str
    autorenew: bool
    broken: Periods
    faults: dict[Fault, Periods]
    random_source: random.Random
    certificate: hook.Certificate
    archive: list[hook.Certificate] = field(default_factory=list)
    revoked_at: float = 0.0
    changed_at: float = 0.0

    def fault_at(self, moment: float) -> Fault | None:
        """Return what is wrong with its files, None if nothing is."""
        for fault, periods in self.faults.items():
            if periods.contains(moment):
                return fault
        return None

    def fault_changed_at(self, moment: float) -> float:
        """Return when a fault last changed its files, or was last repaired; 0: never.

        The renewal configuration can be lost without any change to the other files.
        """
        changes = [0.0]
        for fault, periods in self.faults.items():
            if fault is not Fault.CONFIGURATION_LOST:
                for period in periods.joined:
                    changes += [change for change in period if change <= moment]
        return max(changes)


@dataclass
class Host:
    """A host with certbot.

    `tag` is its HOSTNAME, `folder` certbot's configuration folder, `certbot` its version,
    `clock_error` the seconds by which its clock is ahead, `run_interval` the seconds between two
    starts of certbot's timer. With `telegraf`, reports go to a Telegraf that stores them while
    InfluxDB is away. `network_back_at` is when the network is back after the last report that was
    lost. `newest_run` numbers the runs of certbot. `last_reported_run` is the last of them whose
    report the network let out, whether InfluxDB was there or not.

    `failing` are the lineages that failed, or could not be read, in their last run of certbot; ""
    stands for a run that failed as a whole. `sharers` are the hosts that have the same folder, and
    so the same lineages: this one, and perhaps another. `switched_off` are the lineages whose
    renewal configuration has another name for some time.
    """

    number: int
    tag: str
    folder: Path
    certbot: str
    clock_error: int
    run_interval: int
    telegraf: bool
    log: Log
    off: Periods
    timer_off: Periods
    unmounted: Periods
    run_fails: Periods
    random_source: random.Random
    network_random: random.Random
    network_back_at: float = 0.0
    newest_run: int = 0
    last_reported_run: int = 0
    lineages: dict[str, Lineage] = field(default_factory=dict)
    switched_off: dict[str, Lineage] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    sharers: list[Host] = field(default_factory=list)
    gone: bool = False

    def subject(self, lineage: str) -> Subject:
        """Return a lineage of this host, as a subject of alerts."""
        return Subject(self.tag, lineage)

    def subjects(self, lineage: str) -> list[Subject]:
        """Return a lineage as a subject of alerts, of each host that has it."""
        return [host.subject(lineage) for host in self.sharers]

    @property
    def version(self) -> tuple[int, int]:
        """certbot's version."""
        major, minor, _ = self.certbot.split(".")
        return int(major), int(minor)

    @property
    def runs_hooks_at_issuance(self) -> bool:
        """Whether certbot starts hooks also when it issues the first certificate of a lineage."""
        return self.version >= FIRST_VERSION_WITH_HOOKS_AT_ISSUANCE


class Randomness:
    """Random numbers of a seed: every thing has a sequence of its own.

    So the same happens in the year of a seed, with every way to report and every alert system.
    """

    def __init__(self, seed: int) -> None:
        """The same seed gives the same sequences."""
        self.seed = seed

    def of(self, *thing: object) -> random.Random:
        """Return the sequence of a thing."""
        return random.Random(f"{self.seed} {thing}")


class Event(NamedTuple):
    """Something that will happen. `order` decides between events at the same moment."""

    moment: float
    order: int
    action: Callable[..., None]
    arguments: tuple[Any, ...]


class Calendar:
    """What will happen in the year, and the current moment."""

    def __init__(self, end: float) -> None:
        """`end` is the end of the year: what is scheduled for later does not happen."""
        self.now = float(BEGIN)
        self.end = end
        self.events: list[Event] = []
        self.order = itertools.count()

    def schedule(self, moment: float, action: Callable[..., None], *arguments: Any) -> None:
        """Make something happen at a moment."""
        if moment < self.end:
            heapq.heappush(self.events, Event(moment, next(self.order), action, arguments))

    def play(self) -> None:
        """Let everything happen in its order; an action may schedule more."""
        while self.events:
            event = heapq.heappop(self.events)
            self.now = event.moment
            event.action(*event.arguments)
