"""The reports of a simulated fleet: made by the two programs' own code, and on their way.

The programs' functions run as on a host, with these differences. The certificates of a host are
those of the simulation, instead of files in certbot's configuration folder. The lines of a report
go into a list, with the moment at which the database would receive them, instead of to a server.
The clock is that of the simulation. The known file is a real file.

The program's own waiting does not run: it would take real hours, and the simulated clock does not
pass meanwhile. `--patience`, and that a newer run report takes the turn, are modelled here, in
try_run_report: the program is started with `--all` alone, once for each try.
"""

from __future__ import annotations

import contextlib
import functools
import unittest.mock
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import certbot_renewal_report as hook
import certbot_renewal_run as run_program
from tools.simulation.frequencies import (
    LATEST_REPETITION,
    NETWORK_AWAY_LONGEST,
    NETWORK_AWAY_SHORTEST,
    REPORT_LOST,
    REPORT_REPEATED,
    RUN_REPORT_PATIENCE,
)
from tools.simulation.hosts import Calendar, Host, Randomness
from tools.simulation.periods import HOUR, log_uniform
from tools.simulation.truth import ReceivedReport, Truth

DEPLOY_HOOK_SECONDS = 5  # after the renewal, the deploy hook makes its report
RUN_REPORT_SECONDS = 60  # after certbot's start, the run report is made
ARRIVAL_SECONDS = 61  # after the event, a report is in the database
TELEGRAF_SECONDS = 60  # with Telegraf, which sends what it has every 20 seconds
TELEGRAF_INTERVAL = 20


class Arrival(NamedTuple):
    """The lines of a report, and the moment at which the database receives them."""

    at: float
    lines: list[str]


class Transmission(NamedTuple):
    """How the sending of a report ended.

    `left_host` is false if the network was away. `arrived_at`: None if the program failed to send.
    """

    left_host: bool
    arrived_at: float | None


class RunReportTask(NamedTuple):
    """A run report that is to be sent: of which run of certbot, and until when it is tried."""

    host: Host
    run_number: int
    exit_status: int
    give_up_at: float


class FakeServer:
    """Stands in for `send_lines`: takes the lines of one report, or cannot be reached."""

    def __init__(self) -> None:
        """At first it can be reached."""
        self.is_reachable = True
        self.lines: list[str] = []

    def expect_report(self, is_reachable: bool) -> None:
        """Make it ready for the next report."""
        self.is_reachable = is_reachable
        self.lines = []

    def send_lines(
        self, settings: hook.Settings, lines: Sequence[str], droppable: int = 0
    ) -> hook.SendResult:
        """Take the lines of a request, as `hook.send_lines` does."""
        if not self.is_reachable:
            return hook.SendResult("lost")
        self.lines.extend(lines)
        return hook.SendResult()


class FakeDisks:
    """Stands in for the functions that read certbot's configuration folder."""

    def __init__(self) -> None:
        """At first there is no host."""
        self.hosts: dict[str, Host] = {}  # by configuration folder

    def add(self, host: Host) -> None:
        """Create the folder of a new host."""
        host.folder.mkdir(parents=True, exist_ok=True)
        self.hosts[str(host.folder)] = host

    def read_lineages(self, folder: str) -> hook.Lineages:
        """Return all lineages of a host, as `hook.read_lineages` does."""
        lineages = sorted(self.hosts[folder].lineages.items())
        certificates = [lineage.certificate for _, lineage in lineages]
        names = {certificate.lineage for certificate in certificates}
        return hook.Lineages(names, certificates, {}, [])

    def read_certificate(
        self, path: str, lineage: str, conf: hook.RenewalConf | None = None
    ) -> hook.Certificate:
        """Return the certificate of a lineage, as `hook.read_certificate` does."""
        folder = path.partition("/live/")[0]
        return self.hosts[folder].lineages[lineage].certificate

    def older_certificates(
        self, folder: str, certificates: Sequence[hook.Certificate], problems: list[str]
    ) -> Iterator[hook.Certificate]:
        """Yield predecessors, the newest first, as `older_certificates` of the run report does."""
        for certificate in certificates:
            yield from reversed(self.hosts[folder].lineages[certificate.lineage].archive)


class Reporting:
    """Sends the reports of a fleet. `arrivals` are what the database receives.

    `published_arrivals` are what it would receive from the published hook, which is also a deploy
    hook.
    """

    def __init__(self, calendar: Calendar, truth: Truth, randomness: Randomness) -> None:
        """`truth` says when InfluxDB is down, and records which run reports arrive."""
        self.calendar = calendar
        self.truth = truth
        self.randomness = randomness
        self.disks = FakeDisks()
        self.server = FakeServer()
        self.arrivals: list[Arrival] = []
        self.published_arrivals: list[Arrival] = []
        options = run_program.read_options(["--all"])
        assert options is not None
        self.run_report_options = options

    @contextlib.contextmanager
    def fakes(self) -> Iterator[None]:
        """Let the two programs use the simulated disks and server, and print nothing."""

        def say_nothing(*lines: str, stream: object = None) -> None:
            pass

        in_report_hook = unittest.mock.patch.multiple(
            hook,
            read_lineages=self.disks.read_lineages,
            read_certificate=self.disks.read_certificate,
            send_lines=self.server.send_lines,
            say=say_nothing,
            # A year escapes the same few names millions of times.
            escape=functools.lru_cache(None)(hook.escape),
        )
        in_run_report = unittest.mock.patch.object(
            run_program, "older_certificates", self.disks.older_certificates
        )
        with in_report_hook, in_run_report:
            yield

    # ---- What the programs send ----------------------------------------------------------------
    def send_renewal(self, host: Host, name: str) -> None:
        """Let the deploy hook report a renewal, a moment after it."""
        settings = settings_of(host.tag)
        names = host.lineages[name].names
        environ = {
            "RENEWED_LINEAGE": f"{host.folder}/live/{name}",
            "RENEWED_DOMAINS": " ".join(names),
        }
        clock = self.clock_of(host) + DEPLOY_HOOK_SECONDS
        transmission = self.transmit(
            host, lambda: hook.report_renewal(settings, environ, str(host.folder), clock)
        )
        if transmission.arrived_at is not None:
            of_names = hook.make_renewal_points(settings, name, names, clock)[1:]
            lines = [hook.line_protocol(point) for point in of_names]
            self.published_arrivals.append(Arrival(transmission.arrived_at, lines))

    def send_run_report(self, host: Host, exit_status: int) -> None:
        """Let the run report be sent after a run of certbot, as with --patience 24."""
        host.newest_run += 1
        give_up_at = self.calendar.now + RUN_REPORT_PATIENCE
        self.try_run_report(RunReportTask(host, host.newest_run, exit_status, give_up_at))

    def try_run_report(self, task: RunReportTask) -> None:
        """Try to send a run report, unless there was another run meanwhile, which has the turn.

        If it fails, it is tried again when the network and InfluxDB are both back, at most five
        minutes later. The program does not survive that the host is switched off.
        """
        host = task.host
        now = self.calendar.now
        if host.gone or task.run_number != host.newest_run:
            return

        transmission = self.transmit(host, lambda: self.run_report_program(task))
        if transmission.left_host and host.last_reported_run != task.run_number:
            host.last_reported_run = task.run_number
            self.truth.run_is_reported(host.tag, now)

        back_at = max(host.network_back_at, self.truth.influxdb_down.end_at(now))
        next_try = back_at + host.network_random.random() * 300
        if transmission.arrived_at is not None:
            self.truth.received[host.tag].append(ReceivedReport(now, transmission.arrived_at))
        elif next_try < task.give_up_at and not host.off.seconds_within(now, next_try):
            self.calendar.schedule(next_try, self.try_run_report, task)

    def run_report_program(self, task: RunReportTask) -> None:
        """Let the program make a run report, send it, and write the known file."""
        host = task.host
        clock = self.clock_of(host) + RUN_REPORT_SECONDS
        settings = settings_of(host.tag)
        environ = {"EXIT_STATUS": str(task.exit_status)}
        reporter = run_program.RunReporter(self.run_report_options, environ, "", str(host.folder))
        report = reporter.make_report(settings, clock)
        reporter.send_or_print(settings, report, is_first=False, now=clock)

    def check_installation(self, host: Host) -> None:
        """Let the administrator run `--check`, and repeat it until it succeeds."""
        if host.gone:
            return
        now = self.calendar.now
        away_until = max(host.off.end_at(now), self.truth.influxdb_down.end_at(now))
        if away_until:
            self.calendar.schedule(away_until + HOUR, self.check_installation, host)
            return

        settings = settings_of(host.tag)
        report = hook.report_of_folder(settings, str(host.folder), self.clock_of(host))
        self.send_by_hand(settings, report)

    def retire(self, host: Host, tag: str, lineages: Sequence[str]) -> None:
        """Let the administrator run `--retire` on a host, repeated until it succeeds.

        `tag` is the host to which the lineages belonged.
        """
        away_until = self.truth.influxdb_down.end_at(self.calendar.now)
        if away_until:
            self.calendar.schedule(away_until + HOUR, self.retire, host, tag, lineages)
            return

        settings = settings_of(host.tag)
        report = run_program.retirement_report(
            settings, str(host.folder), lineages, tag, int(self.calendar.now)
        )
        self.send_by_hand(settings, report)

    # ---- On the way ----------------------------------------------------------------------------
    def clock_of(self, host: Host) -> int:
        """Return what the clock of a host says."""
        return int(self.calendar.now) + host.clock_error

    def send_by_hand(self, settings: hook.Settings, report: hook.Report) -> None:
        """Send a report that arrives at once."""
        self.server.expect_report(is_reachable=True)
        hook.send_report(settings, report)
        self.arrivals.append(Arrival(self.calendar.now + 1, self.server.lines))

    def transmit(self, host: Host, send: Callable[[], object]) -> Transmission:
        """Let a program send a report; it may be lost, come late, or arrive twice.

        Telegraf accepts a report while InfluxDB is down. Then it sends all that it has, in their
        order, within an hour after InfluxDB is back.
        """
        # Always the same number of random numbers: the next report has the same luck.
        now = self.calendar.now
        is_lost = host.network_random.random() < REPORT_LOST
        away_fraction = host.network_random.random()
        is_repeated = host.network_random.random() < REPORT_REPEATED
        delay_fraction = host.network_random.random()
        if is_lost:
            host.network_back_at = now + log_uniform(
                away_fraction, NETWORK_AWAY_SHORTEST, NETWORK_AWAY_LONGEST
            )

        influxdb_back_at = self.truth.influxdb_down.end_at(now)
        is_accepted = host.telegraf or not influxdb_back_at
        self.server.expect_report(is_reachable=is_accepted and not is_lost)
        send()
        if not self.server.is_reachable:
            return Transmission(left_host=not is_lost, arrived_at=None)

        arrived_at = now + ARRIVAL_SECONDS
        if influxdb_back_at:
            telegraf_random = self.randomness.of("telegraf", host.number, influxdb_back_at)
            arrived_at = influxdb_back_at + telegraf_random.random() * HOUR
        elif host.telegraf:
            arrived_at = now + (TELEGRAF_SECONDS + delay_fraction * TELEGRAF_INTERVAL)
        self.arrivals.append(Arrival(arrived_at, self.server.lines))
        if is_repeated:
            again_at = arrived_at + delay_fraction * LATEST_REPETITION
            self.arrivals.append(Arrival(again_at, self.server.lines))
        return Transmission(left_host=True, arrived_at=arrived_at)


def settings_of(tag: str) -> hook.Settings:
    """Return the settings of a program with this host tag."""
    return hook.Settings(
        url="",
        version=2,
        bucket="bucket",
        org="",
        token="",
        timeout=10,
        measurement="certbot_renewal",
        host=tag,
        sources={},
    )
