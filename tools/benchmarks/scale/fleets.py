"""The fleets that are measured, their faults, and the settings of the measurement."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from tools.benchmarks.fleet import LIFETIME, Fleet
from tools.servers.influxdb import Storage
from tools.servers.lineages import DAY


def fleet_of_size(size: str) -> Fleet:
    """Return the fleet of a size such as 1000/50: certificates/hosts."""
    certificates, _, hosts = size.partition("/")
    return Fleet(int(certificates), int(hosts))


METRICS = "victoria-metrics"
ALL_SIZES = "1000/50 10000/500 100000/5000"
SIZES = os.environ.get("SIZES", ALL_SIZES).split()
ENGINES = os.environ.get("ENGINES", f"influxd-1.8 influxd-1.12 influxd-2 {METRICS}").split()
SEED = int(os.environ.get("SEED", "1"))  # chooses the certificates that are overdue

FLEETS = [fleet_of_size(size) for size in SIZES]
MIDDLE_FLEET = FLEETS[min(1, len(FLEETS) - 1)]

LARGE = 100_000  # certificates; less is measured of such a fleet, to save time
DAYS = 60  # of reports behind the queries: InfluxDB 1.8 reads them all, the others the last
DAYS_OF_LARGE = 10

# InfluxDB 1.x refuses more than 100,000 values of a tag: a fleet with more names.
NO_TAG_LIMIT: Storage = {"max-values-per-tag": 0}


def storage_for(name: str) -> Storage:
    """Return what the storage of an InfluxDB needs for a large fleet."""
    return NO_TAG_LIMIT if "-1." in name else {}


def days_for(fleet: Fleet) -> int:
    """Return for how many days a fleet has reported."""
    return DAYS if fleet.certificates < LARGE else DAYS_OF_LARGE


def point_count(fleet: Fleet, days: int) -> int:
    """Return how many points the reports of so many days and the renewals are."""
    renewals = 6 * fleet.certificates
    states = 2 * days * fleet.certificates
    runs = 2 * days * fleet.hosts
    return renewals + states + runs


def overdue_states(fleet: Fleet, share: float, now: int) -> Iterator[str]:
    """Yield states of certificates that are overdue, each due at another time.

    They are this share of all, chosen at random.
    """
    count = round(fleet.certificates * share)
    numbers = random.Random(SEED).sample(range(fleet.certificates), count)
    for number in sorted(numbers):
        due = now - 2 * DAY - number % DAY
        fields = (
            f"not_before={due - LIFETIME * 2 // 3}i,renewal_due={due}i,"
            f'not_after={due + LIFETIME // 3}i,run_at={now}i,failure="none"'
        )
        yield f"certbot_renewal,domain=all,{fleet.host_and_lineage(number)} {fields} {now}"


def silent_runs(fleet: Fleet, share: float, now: int) -> Iterator[str]:
    """Yield the last run of each of the silent hosts, three days ago.

    They are hosts of their own, as many as this share of the fleet's.
    """
    for number in range(round(fleet.hosts * share)):
        yield fleet.run_point(f"silent{number}", now - 3 * DAY)
