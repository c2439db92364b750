#!/usr/bin/env python3
"""Simulates years of a fleet, and counts false alerts and missed incidents.

This program computes the figures in docs/trials.md: are the alerts right? Start it with
`make simulation`. It simulates a year of a fleet, lets the alerts judge the reports that arrive,
and compares the notifications with the events of the year:

1. A **simulated year** is that of a fleet of hosts with certbot (fleet.py, hosts.py). Certificates
   are renewed, and things go wrong as often as frequencies.py says: certbot's timer stops, a
   challenge fails, hosts are off, InfluxDB is down, reports are lost, late or repeated. A seed
   decides all of it. The same seed gives the same year, in every configuration.
2. The **reports** are made by the two programs' own code (reports.py): the deploy hook's after each
   renewal, the run report after each run of certbot. The simulation replaces their disk, their
   clock and the network.
3. The fleet records its **incidents** (truth.py): overdue renewals, silent hosts, failing runs, and
   when each of them began and ended. The alerts do not know them.
4. The **evaluation** (evaluation.py) judges every fifteen minutes, as Kapacitor does: an alert
   fires when its query's row becomes critical, and resolves when the row is no longer so. Each
   change is one notification (AlertStates in alerts.py, as `stateChangesOnly`). Models of the
   queries (models.py) say what a query must answer. The real queries, on a real InfluxDB or
   VictoriaMetrics (databases.py), are asked every four weeks and at notifications. If one does not
   answer what its model says, the simulation ends with an error: so the counts are those of the
   real queries.
5. The **scores** (scores.py) compare notifications with incidents: which alerts were true, false,
   early or late, and which incidents were missed. The definitions are at the top of that file.

The same year is judged in several configurations: by the alert pack on InfluxDB, with run reports
or with the deploy hook alone; by the same alerts as rules of Prometheus; by the published query;
and by probes (probes.py), which look at the certificates that are served, and ask no database.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import certbot_renewal_report as hook
from certbot_renewal_report import DAY
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.processes import MissingServer
from tools.servers.prometheus import start_victoria_metrics
from tools.simulation.alerts import FAILING, OVERDUE, PROBE, PUBLISHED, SILENT
from tools.simulation.databases import Database, InfluxDBBucket, VictoriaMetricsSeries
from tools.simulation.evaluation import Evaluation
from tools.simulation.fleet import Fleet
from tools.simulation.models import AlertPack, PrometheusRules, PublishedQuery, QueryModel
from tools.simulation.periods import HOUR
from tools.simulation.probes import PROBES, probe_notifications
from tools.simulation.reports import Reports
from tools.simulation.scores import ALERT_PACK, FIXED_THRESHOLD, Score, Tolerance, scores

# The programs write a hundred thousand files in a year: that takes minutes on a disk.
MEMORY = Path("/dev/shm")
INFLUXDB_VERSIONS = ("influxd-1.12", "influxd-2")  # one seed on the one, the next on the other


@dataclass(frozen=True)
class Configuration:
    """A way to report and to alert.

    `reports` says which programs are installed on the hosts. The database keeps points for
    `retention_days`. The real query is asked at one of `compare_every` notifications.
    """

    name: str
    model: type[QueryModel]
    alerts: tuple[str, ...]
    reports: Reports = Reports.RUN_REPORTS
    retention_days: int = 400
    compare_every: int = 1
    tolerance: Tolerance = ALERT_PACK

    @property
    def is_published(self) -> bool:
        """Whether the published hook reports, and the published query judges."""
        return self.model is PublishedQuery

    @property
    def is_on_victoria_metrics(self) -> bool:
        """Whether the database is VictoriaMetrics, instead of InfluxDB."""
        return self.model is PrometheusRules

    @property
    def makes_promise(self) -> bool:
        """Whether no alert may be false, and no incident missed.

        If points are kept for 7 days, and InfluxDB is down for as long, no alert fires for a host
        that dies in this time. With the deploy hook alone, a lost report looks like a missing
        renewal.
        """
        return self.reports is Reports.RUN_REPORTS and self.retention_days > 7


CONFIGURATIONS = (
    Configuration("with run reports", AlertPack, (OVERDUE, SILENT, FAILING)),
    Configuration(
        "with run reports, 7 days kept", AlertPack, (OVERDUE, SILENT, FAILING), retention_days=7
    ),
    Configuration(
        "with run reports, rules of Prometheus", PrometheusRules, (OVERDUE, SILENT, FAILING)
    ),
    Configuration(
        "both hooks, no timer",
        AlertPack,
        (OVERDUE, FAILING),
        reports=Reports.BOTH_HOOKS,
        compare_every=5,
    ),
    Configuration(
        "deploy hook alone",
        AlertPack,
        (OVERDUE,),
        reports=Reports.DEPLOY_HOOK,
        compare_every=5,
    ),
    Configuration(
        "deploy hook alone, rules of Prometheus",
        PrometheusRules,
        (OVERDUE,),
        reports=Reports.DEPLOY_HOOK,
        compare_every=5,
    ),
    Configuration(
        "published hook and script",
        PublishedQuery,
        (PUBLISHED,),
        reports=Reports.DEPLOY_HOOK,
        compare_every=5,
        tolerance=FIXED_THRESHOLD,
    ),
)


# ---- One year ----------------------------------------------------------------------------------
class Result(NamedTuple):
    """The scores of a year by alert, in a configuration or of a probe; `remark`: how it was run."""

    name: str
    scores: dict[str, Score]
    remark: str


class Year:
    """A year of one seed, in every configuration. The servers of the tests do the evaluation."""

    def __init__(
        self, seed: int, certificates: int, days: int, influxdb: InfluxDB, folder: Path
    ) -> None:
        """`folder` is for the data of the hosts and of VictoriaMetrics."""
        self.seed = seed
        self.certificates = certificates
        self.days = days
        self.influxdb = influxdb
        self.folder = folder
        self.fleets: dict[Reports, Fleet] = {}

    def results(self) -> list[Result]:
        """Return the scores in every configuration, and of every probe."""
        results = [self.evaluate(configuration) for configuration in CONFIGURATIONS]
        fleet = self.fleet(Reports.DEPLOY_HOOK)
        hosts_off = {host.tag: host.off for host in fleet.hosts}
        for name, alert_from in PROBES.items():
            notifications = probe_notifications(fleet.truth, hosts_off, alert_from)
            score = scores(fleet.truth, [PROBE], notifications, FIXED_THRESHOLD)
            results.append(Result(name, score, f"seed {self.seed}, {name}"))
        return results

    def fleet(self, reports: Reports) -> Fleet:
        """Return the fleet after its year, with these programs installed on its hosts."""
        if reports not in self.fleets:
            folder = self.folder / f"fleet {len(self.fleets)}"
            fleet = Fleet(self.seed, self.certificates, self.days, reports, folder)
            fleet.run()
            self.fleets[reports] = fleet
        return self.fleets[reports]

    def evaluate(self, configuration: Configuration) -> Result:
        """Return the scores in a configuration."""
        started_at = time.monotonic()
        fleet = self.fleet(configuration.reports)
        arrivals = fleet.arrivals
        if configuration.is_published:
            arrivals = fleet.published_arrivals
        model = configuration.model(configuration.retention_days * DAY)
        with self.database(configuration) as database:
            evaluation = Evaluation(fleet.truth, model, database, configuration.compare_every)
            evaluation.run(arrivals)

        server = f"InfluxDB {self.influxdb.version()}"
        if configuration.is_on_victoria_metrics:
            server = "VictoriaMetrics"
        remark = (
            f"seed {self.seed}, {server}, {configuration.name}: {len(fleet.hosts)} hosts, "
            f"{len(arrivals)} reports, {evaluation.queries_asked} queries, "
            f"{time.monotonic() - started_at:.0f} s"
        )
        by_alert = scores(
            fleet.truth, configuration.alerts, evaluation.notifications, configuration.tolerance
        )
        return Result(configuration.name, by_alert, remark)

    @contextlib.contextmanager
    def database(self, configuration: Configuration) -> Iterator[Database]:
        """Start an empty database for a configuration."""
        if not configuration.is_on_victoria_metrics:
            yield InfluxDBBucket(self.influxdb, configuration.alerts, configuration.retention_days)
            return
        # Without a cache: it is asked of the past, to which points are still added.
        folder = self.folder / configuration.name
        with start_victoria_metrics(folder, None, "-search.disableCache") as server:
            yield VictoriaMetricsSeries(server, configuration.alerts)


def simulate_year(seed: int, certificates: int, days: int, influxdb_version: str) -> list[Result]:
    """Return the results of the year of a seed; MissingServer if a server is not installed."""
    parent = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        # A request may be of any size: that of many points is large.
        with start_influxdb(
            influxdb_version, folder / "influxdb", config="max-body-size = 0"
        ) as influxdb:
            return Year(seed, certificates, days, influxdb, folder).results()


# ---- The table ---------------------------------------------------------------------------------
HEADER = (
    "",
    "alert",
    "true",
    "false",
    "after an outage",
    "incidents",
    "missed",
    "late: median",
    "late: worst",
    "late: worst after an outage",
    "notifications",
    "recoveries",
    "expired",
    "unannounced",
)

Scores = dict[str, dict[str, Score]]  # by configuration or probe, by alert


def table(totals: Scores) -> str:
    """Return the scores as a table in Markdown."""
    lines = [table_row(HEADER), "|---" * len(HEADER) + "|"]
    for name, by_alert in totals.items():
        for alert, score in by_alert.items():
            lines.append(table_row([name, alert, *score_cells(score)]))
    return "\n".join(lines)


def table_row(cells: Sequence[str]) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def score_cells(score: Score) -> list[str]:
    """Return the cells of a score, in the order of the header."""
    return [
        str(score.true_alerts),
        str(score.false_alerts),
        str(score.alerts_after_outage),
        str(score.incidents),
        str(score.missed),
        hours(statistics.median, score.delays),
        hours(max, score.delays),
        hours(max, score.delays_after_outage),
        per_incident(score.firings, score),
        per_incident(score.resolutions, score),
        str(score.expired),
        str(score.unannounced),
    ]


def hours(summary: Callable[[Sequence[float]], float], delays: Sequence[float]) -> str:
    """Return the median or the maximum of some delays, "" if there are none."""
    if not delays:
        return ""
    return f"{summary(delays) / HOUR:.1f} h"


def per_incident(count: int, score: Score) -> str:
    """Return how often something happened for each incident that was noticed, "" if none was."""
    if not score.noticed:
        return ""
    return f"{count / score.noticed:.2f}"


# ---- Command line ------------------------------------------------------------------------------
def simulate_years(seeds: int, certificates: int, days: int) -> Scores:
    """Simulate years at the same time, and print the table after each; return the totals."""
    totals: Scores = defaultdict(lambda: defaultdict(Score))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        years = []
        for seed, version in zip(range(1, seeds + 1), itertools.cycle(INFLUXDB_VERSIONS)):
            years.append(pool.submit(simulate_year, seed, certificates, days, version))
        for year in years:
            for result in result_or_end(year, pool):
                print(result.remark)
                for alert, score in result.scores.items():
                    totals[result.name][alert].add(score)
            print(table(totals), flush=True)
    return totals


def result_or_end(year: Future[list[Result]], pool: ProcessPoolExecutor) -> list[Result]:
    """Return the results of a year; if it failed, start no further year, and raise its error."""
    try:
        return year.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def print_remarks(totals: Scores) -> None:
    """Print each false alert and missed incident with run reports, and what else is remarkable."""
    for configuration in CONFIGURATIONS:
        if configuration.reports is not Reports.RUN_REPORTS:
            continue
        for score in totals[configuration.name].values():
            for text in [*score.remarks, *score.errors]:
                print(f"{configuration.name}: {text}")


def has_errors(totals: Scores) -> bool:
    """Return whether a configuration that promises no errors has some."""
    for configuration in CONFIGURATIONS:
        if not configuration.makes_promise:
            continue
        if any(score.errors for score in totals[configuration.name].values()):
            return True
    return False


def main() -> int:
    """Print the scores; return 1 if there are errors where none may be, else 0.

    Raise MissingServer if a server is not installed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--certificates", type=int, default=500)
    parser.add_argument("--days", type=int, default=365)
    options = parser.parse_args()
    print(
        f"certbot_renewal_report {hook.__version__}; {options.certificates} certificates, "
        f"{options.days} days, seeds 1 to {options.seeds}",
        flush=True,
    )
    totals = simulate_years(options.seeds, options.certificates, options.days)
    print_remarks(totals)
    return int(has_errors(totals))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MissingServer as error:
        sys.exit(f"simulation: {error}")
