"""Who judges a simulated fleet: models of the alert pack's queries, of its rules for Prometheus and of the published query, and probes,
which ask no database.

A model says what a query must answer, much faster than the query; simulate.py holds the two together. Times are Unix seconds.
"""

from __future__ import annotations

import heapq
import itertools
import re
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import certbot_renewal_report as hook
from tools.servers.lineages import DAY
from tools.simulation.fleet import BEGIN, Fleet

EVERY = 900  # seconds from one evaluation to the next, as `every` of the alert pack
OVERDUE, SILENT, FAILING, PUBLISHED, PROBE = (
    "overdue",
    "silent_hosts",
    "failing",
    "overdue_domains",
    "probe",
)
STATE = re.compile(
    r"certbot_renewal,domain=all,host=(\S+),lineage=(\S+) not_before=\d+i,renewal_due=(\d+)i,not_after=\d+i,run_at=(\d+)i (\d+)"
)
RUN = re.compile(r"certbot_renewal,host=(\S+) \S*failed_count=(\d+)i.* (\d+)")
EXIT_STATUS = re.compile(r"exit_status=(\d+)i")
NOTED = re.compile(
    r'ALERTS{alertname="host_silent",alertstate="firing",host="(\S+)"} 1 (\d+)000'
)  # what vmalert and Prometheus note
NAME = re.compile(r"certbot_renewal,domain=(?!all,)(\S+),host=(\S+) renewed_count=1 (\d+)")
# From which value of its query on an alert is critical: the vars of the TICKscripts as they come.
CRITICAL = {OVERDUE: 1.0, SILENT: 2.0, FAILING: 1.0, PUBLISHED: 60.0}
RULES = {
    OVERDUE: "renewal_overdue",
    SILENT: "host_silent",
    FAILING: "renewal_failing",
}  # their names in kapacitor/ and prometheus/
MOST = ("(most hosts)",)  # the row of host_silent that tells of more than half of them
Key = tuple[str, ...]  # host tag; and lineage or name, for the alert of overdue renewals


class Row(NamedTuple):
    """What a query says: the value that the alert judges, and, where that is critical, whether it shall not judge it now (`deaf`)."""

    value: float
    deaf: bool = False

    def critical(self, alert: str, before: bool) -> bool:
        """The level that the TICKscript gives, after what it was before."""
        return self.value >= CRITICAL[alert] and (before or not self.deaf)


@dataclass
class Mail:
    """A notification: `alarm` or recovery; `evidence` is the moment of which the alarm tells."""

    at: int
    alert: str
    key: Key
    alarm: bool
    evidence: float


class Judge(ABC):
    """What queries must say of what has arrived, of points kept for `retention` seconds. `changed` are the rows that may have become
    others, `later` the moments at which a row may become another by itself."""

    def __init__(self, retention: float) -> None:
        self.retention = retention
        self.changed: set[tuple[str, Key]] = set()
        self.later: list[tuple[float, str, Key]] = []

    @abstractmethod
    def take(self, line: str) -> None:
        """A point that arrived."""

    @abstractmethod
    def row(self, alert: str, key: Key, now: int) -> Row | None:
        """What the query must say; None where there is no row."""

    @abstractmethod
    def keys(self, alert: str) -> Iterable[Key]:
        """Everything of which there may be a row."""

    def changes(self, alert: str, key: Key, *moments: float) -> None:
        """Notes that a row may be another now, and at some moments."""
        self.changed.add((alert, key))
        for moment in filter(None, moments):
            heapq.heappush(self.later, (moment, alert, key))

    def changed_until(self, now: int) -> set[tuple[str, Key]]:
        """The rows that may have become others since this was asked last."""
        while self.later and self.later[0][0] <= now:
            self.changed.add(heapq.heappop(self.later)[1:])
        changed, self.changed = self.changed, set()
        return changed

    def evidence(self, alert: str, key: Key, now: int) -> float:
        """The moment of which an alarm tells."""
        return now

    def noted(self, alert: str, key: Key, now: int) -> list[str]:
        """What whoever evaluates stores of an alarm that is on."""
        return []


class AlertPack(Judge):
    """The three alerts of the pack."""

    def __init__(self, retention: float) -> None:
        super().__init__(retention)
        self.states: dict[str, dict[str, tuple[int, int, int]]] = defaultdict(
            dict
        )  # by host and lineage: time, due, run_at
        self.runs: dict[str, tuple[int, bool]] = {}  # by host: time, failing
        self.heard: dict[str, list[int]] = defaultdict(
            list
        )  # by host: times of its run points, sorted
        self.lasts: dict[str, int | None] = {}  # by host: what `last_of` says
        self.silent: list[Key] = []
        self.deaf_at, self.deaf = 0, False  # as of a moment

    def take(self, line: str) -> None:
        if "renewed_count" in line:
            return
        if state := STATE.fullmatch(line):
            host, lineage, at, due, run_at = (
                state[1],
                state[2],
                int(state[5]),
                int(state[3]),
                int(state[4]),
            )
            if at >= self.states[host].get(lineage, (0, 0, 0))[0]:
                self.states[host][lineage] = at, due, run_at
                self.changes(
                    OVERDUE,
                    (host, lineage),
                    0 if run_at or not due else due + DAY,
                    at + self.retention + 1,
                )
                self.changes(SILENT, (host,), at + self.retention + 1)
        elif run := RUN.fullmatch(line):
            at, status = int(run[3]), EXIT_STATUS.search(line)
            insort(self.heard[run[1]], at)
            if at >= self.runs.get(run[1], (0, False))[0]:
                self.runs[run[1]] = at, run[2] != "0" or bool(status and status[1] != "0")
                self.changes(FAILING, (run[1],))

    def last_of(self, host: str, now: int) -> int | None:
        """When the certificate of a host that was reported least recently was; 0 without run reports, None without any report."""
        visible = [
            state for state in self.states[host].values() if state[0] >= now - self.retention
        ]
        return (
            min((run_at for _, due, run_at in visible if run_at and due), default=0)
            if visible
            else None
        )

    def most_silent_since(self, now: int) -> int:
        """Since when more than half of three or more hosts are silent, or 0."""
        lasts = [last for last in self.lasts.values() if last]
        silent = [last for last in lasts if last <= now - 2 * DAY]
        return max(silent) if len(lasts) > 2 and len(silent) * 2 > len(lasts) else 0

    def is_deaf(self, now: int) -> bool:
        """Whether most of three or more hosts came back less than a day ago, from more than 26.4 hours without a report, or are away."""
        if self.deaf_at != now:
            hosts = [host for host, last in self.lasts.items() if last]
            self.deaf_at, self.deaf = now, len(hosts) > 2 and self.well(hosts, now) * 2 < len(hosts)
        return self.deaf

    def well(self, hosts: list[str], now: int) -> int:
        """How many of these hosts came back long enough ago, or were not away."""
        return sum(self.is_well(host, now) for host in hosts)

    def is_well(self, host: str, now: int) -> bool:
        """Whether its first report in the last day came at most 26.4 hours after the one before."""
        times = self.heard[host]
        at = bisect_left(times, now - DAY)
        return (
            0 < at < len(times) and times[at] < now and (times[at] - times[at - 1]) * 10 <= DAY * 11
        )

    def row(self, alert: str, key: Key, now: int) -> Row | None:
        """Days overdue, days silent, or 1 for failing."""
        if alert == FAILING:
            at, failing = self.runs.get(key[0], (0, False))
            return Row(float(failing)) if at >= now - min(self.retention, 30 * DAY) else None
        if alert == SILENT:
            last = self.most_silent_since(now) if key == MOST else self.lasts[key[0]]
            days = (now - last) / DAY if last else -1.0
            return (
                None
                if last is None
                else Row(days, days >= CRITICAL[SILENT] and key != MOST and self.is_deaf(now))
            )
        at, due, run_at = self.states[key[0]][key[1]]
        return (
            (Row(((run_at or now) - due) / DAY) if due else Row(-1.0))
            if at >= now - self.retention
            else None
        )

    def keys(self, alert: str) -> Iterable[Key]:
        if alert == OVERDUE:
            return [
                (host, lineage) for host, lineages in self.states.items() for lineage in lineages
            ]
        return [(host,) for host in (self.runs if alert == FAILING else self.states)] + (
            [MOST] if alert == SILENT else []
        )

    def changed_until(self, now: int) -> set[tuple[str, Key]]:
        """What is said of hosts that are silent depends on the others, too."""
        changed = super().changed_until(now)
        self.lasts.update(
            (key[0], self.last_of(key[0], now)) for alert, key in changed if alert == SILENT
        )
        before, self.silent = (
            self.silent,
            [(host,) for host, last in self.lasts.items() if (last or now) <= now - 2 * DAY],
        )
        return changed | {(SILENT, key) for key in [MOST, *before, *self.silent]}

    def evidence(self, alert: str, key: Key, now: int) -> float:
        return (self.states[key[0]][key[1]][2] or now) if alert == OVERDUE else now


class Rules(AlertPack):
    """The same three as rules of Prometheus: what does not fire has no row, which is -1 here. Who was heard is known by `run_at` of
    certificates, not by runs. A host that was told of stays told of until it reports: whoever evaluates stores that it was."""

    def __init__(self, retention: float) -> None:
        super().__init__(retention)
        # By host and lineage: time, run_at.
        self.run_ats: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.wells: dict[
            str, tuple[int, bool]
        ] = {}  # by host: what `is_well` says, and before which moment
        self.told: dict[Key, int] = {}  # by host: when it was last told of

    def take(self, line: str) -> None:
        super().take(line)
        if state := STATE.fullmatch(line):
            insort(self.run_ats[state[1]][state[2]], (int(state[5]), int(state[4])))
            self.wells.pop(state[1], None)
        elif run := RUN.fullmatch(line):
            self.changes(FAILING, (run[1],), int(run[3]) + 30 * DAY)
        elif noted := NOTED.fullmatch(line):
            self.told[(noted[1],)] = int(noted[2])

    def well(self, hosts: list[str], now: int) -> int:
        """Of all, those too that ended lately."""
        return super().well(list(self.run_ats), now)

    def is_well(self, host: str, now: int) -> bool:
        """By certificate: the least `run_at` of the last day, and the last before it. Prometheus drops what is 0, without run reports."""
        until, well = self.wells.get(host, (0, False))
        if now >= until:
            firsts, befores, until = list[int](), list[int](), now + DAY
            for times in self.run_ats[host].values():
                at = bisect_left(times, (now - DAY + 1, 0))
                if at < len(times):
                    firsts.append(min(run_at for _, run_at in times[at:]))
                    until = min(until, times[at][0] + DAY)
                if at:
                    befores.append(times[at - 1][1])
            first, before = min(filter(None, firsts), default=0), max(befores, default=0)
            self.wells[host] = until, well = (
                until,
                bool(first and before and (first - before) * 10 <= DAY * 11),
            )
        return well

    def row(self, alert: str, key: Key, now: int) -> Row:
        row = super().row(alert, key, now)
        if row and row.deaf and self.told.get(key, 0) > (self.lasts[key[0]] or 0):
            row = Row(row.value)
        old = (
            alert == FAILING and self.runs[key[0]][0] == now - 30 * DAY
        )  # Flux looks back to that moment, PromQL until after it
        return row if row and row.critical(alert, False) and not old else Row(-1.0)

    def noted(self, alert: str, key: Key, now: int) -> list[str]:
        told = alert == SILENT and key != MOST
        return (
            [f'ALERTS{{alertname="host_silent",alertstate="firing",host="{key[0]}"}} 1 {now}000']
            if told
            else []
        )


class PublishedAlert(Judge):
    """The published query by name, in windows of a day: 60 of them without a renewal. A row vanishes 65 days after the renewal."""

    def __init__(self, retention: float) -> None:
        super().__init__(retention)
        self.last: dict[Key, int] = {}

    def take(self, line: str) -> None:
        if (found := NAME.fullmatch(line)) and int(found[3]) > self.last.get(
            (found[2], found[1]), 0
        ):
            key, at = (found[2], found[1]), int(found[3])
            self.last[key] = at
            self.changes(PUBLISHED, key, (at // DAY + 62) * DAY, at + 65 * DAY)

    def row(self, alert: str, key: Key, now: int) -> Row | None:
        """Whole days since the end of the window after that of the last renewal."""
        at = self.last[key]
        end = (at // DAY + 1) * DAY
        if at < now - 65 * DAY:
            return None
        return Row(-1.0 if now <= end else float(max(0, (now - end - DAY) // DAY)))

    def keys(self, alert: str) -> Iterable[Key]:
        return self.last


def probed(fleet: Fleet, threshold: Callable[[hook.Certificate], float]) -> list[Mail]:
    """What a probe mails that looks at every certificate, as served, every fifteen minutes, and alerts from a moment of its life on. A host
    that is off gives no answer, which is nothing that this alert knows of; a certificate that is deleted is probed no longer."""
    mails, off = [], {host.tag: host.off for host in fleet.hosts}

    def next_look(moment: float) -> int:
        return BEGIN + int(max(moment - BEGIN, 0) // EVERY + 1) * EVERY

    for key, history in fleet.certificates.items():
        alarm = False
        for (begin, certificate), (end, _) in itertools.pairwise([*history, (fleet.end, None)]):
            since = max(begin, threshold(certificate)) if certificate else fleet.end
            if alarm and since > begin:
                alarm = False
                mails.append(Mail(next_look(begin), PROBE, key, False, begin))
            at = next_look(since)
            while on_again := off[key[0]].end_of(at):
                at = next_look(on_again)
            if not alarm and at < end:
                alarm = True
                mails.append(Mail(at, PROBE, key, True, at))
    return mails


PROBES: dict[str, Callable[[hook.Certificate], float]] = {
    "21 days before expiry": lambda found: found.not_after - 21 * DAY,
    "14 days before expiry": lambda found: found.not_after - 14 * DAY,
    "7 days before expiry": lambda found: found.not_after - 7 * DAY,
    "2/3 of the lifetime + 3 days": lambda found: (
        found.not_before + (found.not_after - found.not_before) * 2 / 3 + 3 * DAY
    ),
}
