"""Time in the simulation: moments, periods, and how often something happens.

A moment is a number of Unix seconds. A simulated year is in the past, since VictoriaMetrics drops
points from the future.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from certbot_renewal_report import DAY

HOUR = 3600
YEAR = 365 * DAY
BEGIN = 1_735_689_600  # of every simulated year: 2025-01-01 00:00 UTC
EVALUATION_INTERVAL = 900  # seconds between two evaluations of the alerts: `every` of kapacitor/


class Period(NamedTuple):
    """From one moment to another."""

    begin: float
    end: float


class Frequency(NamedTuple):
    """How often something happens, and for how long: the shortest and the longest, in seconds."""

    per_year: float
    shortest: float
    longest: float


class Periods:
    """The periods in which something is so, for example in which a host is off."""

    def __init__(self, periods: Iterable[Period]) -> None:
        """Periods that overlap, or follow each other without a gap, become one."""
        self.joined: list[Period] = []
        for period in sorted(periods):
            if self.joined and period.begin <= self.joined[-1].end:
                last = self.joined.pop()
                period = Period(last.begin, max(period.end, last.end))
            self.joined.append(period)
        self.begins = [period.begin for period in self.joined]

    def end_at(self, moment: float) -> float:
        """Return when the period around a moment ends; 0 if there is none."""
        index = bisect_right(self.begins, moment) - 1
        if index >= 0 and moment < self.joined[index].end:
            return self.joined[index].end
        return 0.0

    def contains(self, moment: float) -> bool:
        """Return whether a moment is in one of the periods."""
        return self.end_at(moment) > 0

    def seconds_within(self, begin: float, end: float) -> float:
        """Return how many of the seconds between two moments are in the periods."""
        seconds = 0.0
        for period in self.joined:
            seconds += max(0.0, min(end, period.end) - max(begin, period.begin))
        return seconds


def log_uniform(fraction: float, shortest: float, longest: float) -> float:
    """Return a length between two others; `fraction`: a random number from 0 to 1.

    The lengths are spread evenly over the orders of magnitude, so most of them are short.
    """
    factor: float = (longest / shortest) ** fraction
    return shortest * factor


def random_periods(source: random.Random, frequency: Frequency, days: float) -> list[Period]:
    """Return the periods in which something happens, in the first `days` days of the year."""
    rate = frequency.per_year / YEAR
    periods = []
    begin = BEGIN + source.expovariate(rate)
    while begin < BEGIN + days * DAY:
        length = log_uniform(source.random(), frequency.shortest, frequency.longest)
        periods.append(Period(begin, begin + length))
        begin += length + source.expovariate(rate)
    return periods
