"""Who judges a simulated fleet: models of the alert pack's queries and of the published one, and probes, which ask no database.

A model says what a query must answer, much faster than the query; simulate.py holds the two together. Times are Unix seconds.
"""

from __future__ import annotations

import heapq
import itertools
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import certbot_renewal_report as hook
from simulated_fleet import BEGIN, Fleet
from start_certbot import DAY

EVERY = 900  # seconds from one evaluation to the next, as `every` of the alert pack
OVERDUE, SILENT, FAILING, PUBLISHED, PROBE = "overdue", "silent_hosts", "failing", "overdue_domains", "probe"
STATE = re.compile(
    r"certbot_renewal,domain=all,host=(\S+),lineage=(\S+) not_before=\d+i,renewal_due=(\d+)i,not_after=\d+i,run_at=(\d+)i (\d+)"
)
RUN = re.compile(r"certbot_renewal,host=(\S+) \S*failed_count=(\d+)i.* (\d+)")
EXIT_STATUS = re.compile(r"exit_status=(\d+)i")
NAME = re.compile(r"certbot_renewal,domain=(?!all,)(\S+),host=(\S+) renewed_count=1 (\d+)")
# From which value of its query on an alert is critical: the vars of the TICKscripts as they come.
CRITICAL = {OVERDUE: 1.0, SILENT: 2.0, FAILING: 1.0, PUBLISHED: 60.0}
Key = tuple[str, ...]  # host tag; and lineage or name, for the alert of overdue renewals


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
    def value(self, alert: str, key: Key, now: int) -> float | None:
        """What the alert judges of a row; None where there is no row."""

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


class AlertPack(Judge):
    """The three alerts of the pack."""

    def __init__(self, retention: float) -> None:
        super().__init__(retention)
        self.states: dict[str, dict[str, tuple[int, int, int]]] = defaultdict(dict)  # by host and lineage: time, due, run_at
        self.runs: dict[str, tuple[int, bool]] = {}  # by host: time, failing

    def take(self, line: str) -> None:
        if state := STATE.fullmatch(line):
            host, lineage, at, due, run_at = state[1], state[2], int(state[5]), int(state[3]), int(state[4])
            if at >= self.states[host].get(lineage, (0, 0, 0))[0]:
                self.states[host][lineage] = at, due, run_at
                self.changes(OVERDUE, (host, lineage), 0 if run_at or not due else due + DAY, at + self.retention)
                self.changes(SILENT, (host,), at + self.retention, run_at + 2 * DAY if run_at and due else 0)
        elif run := RUN.fullmatch(line):
            at, status = int(run[3]), EXIT_STATUS.search(line)
            if at >= self.runs.get(run[1], (0, False))[0]:
                self.runs[run[1]] = at, run[2] != "0" or bool(status and status[1] != "0")
                self.changes(FAILING, (run[1],))

    def value(self, alert: str, key: Key, now: int) -> float | None:
        """Days overdue, days silent, or 1 for failing."""
        if alert == FAILING:
            at, failing = self.runs.get(key[0], (0, False))
            return float(failing) if at >= now - min(self.retention, 30 * DAY) else None
        visible = {name: state for name, state in self.states[key[0]].items() if state[0] >= now - self.retention}
        if alert == SILENT:
            last = min((run_at for _, due, run_at in visible.values() if run_at and due), default=0)
            return ((now - last) / DAY if last else -1.0) if visible else None
        if key[1] not in visible:
            return None
        _, due, run_at = visible[key[1]]
        return ((run_at or now) - due) / DAY if due else -1.0

    def keys(self, alert: str) -> Iterable[Key]:
        if alert == OVERDUE:
            return [(host, lineage) for host, lineages in self.states.items() for lineage in lineages]
        return [(host,) for host in (self.runs if alert == FAILING else self.states)]

    def evidence(self, alert: str, key: Key, now: int) -> float:
        return (self.states[key[0]][key[1]][2] or now) if alert == OVERDUE else now


class PublishedAlert(Judge):
    """The published query by name, in windows of a day: 60 of them without a renewal. A row vanishes 65 days after the renewal."""

    def __init__(self, retention: float) -> None:
        super().__init__(retention)
        self.last: dict[Key, int] = {}

    def take(self, line: str) -> None:
        if (found := NAME.fullmatch(line)) and int(found[3]) > self.last.get((found[2], found[1]), 0):
            key, at = (found[2], found[1]), int(found[3])
            self.last[key] = at
            self.changes(PUBLISHED, key, (at // DAY + 62) * DAY, at + 65 * DAY)

    def value(self, alert: str, key: Key, now: int) -> float | None:
        """Whole days since the end of the window after that of the last renewal."""
        at = self.last[key]
        end = (at // DAY + 1) * DAY
        if at < now - 65 * DAY:
            return None
        return -1.0 if now <= end else float(max(0, (now - end - DAY) // DAY))

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
    "2/3 of the lifetime + 3 days": lambda found: found.not_before + (found.not_after - found.not_before) * 2 / 3 + 3 * DAY,
}
