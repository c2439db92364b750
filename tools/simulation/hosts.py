"""What a simulated fleet consists of: hosts, their lineages, and the calendar of what happens."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import certbot_renewal_report as hook
from tools.simulation.alerts import Subject
from tools.simulation.periods import BEGIN, Periods


@dataclass
class Lineage:
    """A lineage on a host.

    `backdated` says how the CA sets notBefore, a key of BACKDATED. `broken`: when its renewals
    fail. `archive` has the predecessors of the certificate, the oldest first. `renew_by` is when
    the CA wants the certificate renewed at the latest (ARI).
    """

    names: list[str]
    lifetime: int
    backdated: str
    broken: Periods
    random_source: random.Random
    certificate: hook.Certificate
    archive: list[hook.Certificate] = field(default_factory=list)
    renew_by: float = 0.0

    def is_due(self, moment: float) -> bool:
        """Return whether certbot would renew the certificate."""
        return moment >= min(self.certificate.renewal_due, self.renew_by)


@dataclass
class Host:
    """A host with certbot.

    `tag` is its HOSTNAME, `folder` certbot's configuration folder, `clock_error` the seconds by
    which its clock is ahead. With `telegraf`, reports go to a Telegraf that stores them while
    InfluxDB is away. `network_back_at` is when the network is back after the last report that was
    lost. `newest_run` numbers the runs of certbot. `last_reported_run` is the last of them whose
    report the network let out, whether InfluxDB was there or not.
    """

    number: int
    tag: str
    folder: Path
    clock_error: int
    telegraf: bool
    runs_hooks_at_issuance: bool
    off: Periods
    timer_off: Periods
    random_source: random.Random
    network_random: random.Random
    network_back_at: float = 0.0
    newest_run: int = 0
    last_reported_run: int = 0
    lineages: dict[str, Lineage] = field(default_factory=dict)
    gone: bool = False

    def subject(self, lineage: str) -> Subject:
        """Return a lineage of this host, as a subject of alerts."""
        return Subject(self.tag, lineage)


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
