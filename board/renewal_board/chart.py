"""The chart of the page: renewals per day (UTC) and host."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from renewal_board.model import DAY, Fleet
from renewal_board.texts import utc

COLOURS = 6  # the last colour is that of all other hosts
DAYS = 90  # shown at most


@dataclass(frozen=True)
class BarPart:
    """The renewals of a host, or of all other hosts, on a day.

    `colour` is the number of its colour. `bottom` and `height` are parts of the chart's height.
    """

    colour: int
    host: str
    count: int
    bottom: float
    height: float


@dataclass(frozen=True)
class Bar:
    """A day of the chart; `count`: all renewals of the day."""

    day: str
    count: int
    parts: list[BarPart]


@dataclass(frozen=True)
class Chart:
    """The chart: its days, the hosts in the order of their colours, the most renewals of a day."""

    bars: list[Bar]
    hosts: list[str]
    most: int


def chart_of(fleet: Fleet) -> Chart:
    """Return the chart of the last days, but not of days before the board's renewals."""
    last_day = fleet.made // DAY
    first_day = max(last_day - DAYS + 1, fleet.since // DAY)
    counts: dict[int, Counter[str]] = defaultdict(Counter)  # by day and host
    host_counts: Counter[str] = Counter()
    for renewal in fleet.renewals:
        day = renewal.time // DAY
        if first_day <= day <= last_day:  # not later: a clock may have been ahead
            counts[day][renewal.host] += 1
            host_counts[renewal.host] += 1

    ranked = sorted(host_counts, key=lambda host: (-host_counts[host], host))
    colours = {host: min(rank, COLOURS - 1) for rank, host in enumerate(ranked)}
    hosts = ranked
    if len(ranked) > COLOURS:
        others = len(ranked) - (COLOURS - 1)
        hosts = [*ranked[: COLOURS - 1], f"{others} other hosts"]

    most = max((sum(day_counts.values()) for day_counts in counts.values()), default=0)
    bars = []
    for day in range(first_day, last_day + 1):
        colour_counts: Counter[int] = Counter()
        for host, count in counts[day].items():
            colour_counts[colours[host]] += count
        bars.append(bar_of(day, colour_counts, hosts, most))
    return Chart(bars, hosts, most)


def bar_of(day: int, colour_counts: Mapping[int, int], hosts: list[str], most: int) -> Bar:
    """Return the bar of a day, its parts from bottom to top."""
    parts = []
    below = 0
    for colour, count in sorted(colour_counts.items()):
        parts.append(BarPart(colour, hosts[colour], count, below / most, count / most))
        below += count
    return Bar(utc(day * DAY)[:10], below, parts)
