"""The reports of a simulated fleet: made by the two programs' own code, and on their way.

The programs' functions run as on a host, with these differences. The lineages of a host, and
certbot's log, are those of the simulation, instead of files. The lines of a report go into a list,
with the moment at which the database would receive them, instead of to a server. The clock is that
of the simulation. The known file is a real file.

The server dates lines without a time when it receives them. So does Telegraf, before it stores
them: a report that waits in Telegraf keeps the time at which Telegraf received it.

The program's own waiting does not run: it would take real hours, and the simulated clock does not
pass meanwhile. `--patience`, and that a newer run report takes the turn, are modelled here, in
try_run_report: the program is started with `--all` alone, once for each try.
"""

from __future__ import annotations

import contextlib
import email.utils
import enum
import functools
import re
import shutil
import unittest.mock
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import certbot_renewal_report as hook
import certbot_renewal_run as run_program
from tools.simulation.frequencies import (
    LATEST_REPETITION,
    LATEST_REPETITION_BY_TELEGRAF,
    LETS_ENCRYPT,
    NETWORK_AWAY_LONGEST,
    NETWORK_AWAY_SHORTEST,
    REPORT_LOST,
    REPORT_REPEATED,
    RUN_REPORT_PATIENCE,
)
from tools.simulation.hosts import Calendar, Fault, Host, Lineage, Randomness
from tools.simulation.logs import Log
from tools.simulation.periods import HOUR, log_uniform
from tools.simulation.truth import ReceivedReport, Truth

# After certbot's start, each program makes its report; a second later a server has it.
DEPLOY_HOOK_SECONDS = 5  # and one second more for each further renewal
POST_HOOK_SECONDS = 40
RUN_REPORT_SECONDS = 60
TELEGRAF_INTERVAL = 20  # Telegraf sends what it has every 20 seconds

# Matches the time at the end of a line of line protocol: 1767225600
HAS_TIME = re.compile(r"[ ] \d+ $", re.VERBOSE)


class Reports(enum.Enum):
    """Which programs are installed on the hosts, and when they report."""

    DEPLOY_HOOK = "deploy hook"
    BOTH_HOOKS = "deploy hook and post hook"  # without a timer
    RUN_REPORTS = "run reports"  # and both hooks


class Arrival(NamedTuple):
    """The lines of a report, all with a time, and the moment at which the database has them."""

    at: float
    lines: list[str]


class Transmission(NamedTuple):
    """How the sending of a report ended.

    `left_host` is false if the network was away. `received_at` is when InfluxDB or Telegraf has
    received and dated it, `arrived_at` when InfluxDB has it: None if the program failed to send.
    """

    left_host: bool
    received_at: float | None = None
    arrived_at: float | None = None


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
        self.date = ""
        self.lines: list[str] = []

    def expect_report(self, is_reachable: bool, received_at: float) -> None:
        """Make it ready for the next report; `received_at`: what its clock says then."""
        self.is_reachable = is_reachable
        self.date = email.utils.formatdate(int(received_at), usegmt=True)
        self.lines = []

    def send_lines(
        self, settings: hook.Settings, lines: Sequence[str], droppable: int = 0
    ) -> hook.SendResult:
        """Take the lines of a request, as `hook.send_lines` does."""
        if not self.is_reachable:
            return hook.SendResult("lost")
        self.lines.extend(lines)
        return hook.SendResult(date=self.date)


class FakeDisks:
    """Stands in for the functions that read certbot's configuration folder and its log."""

    def __init__(self, calendar: Calendar) -> None:
        """At first there is no host."""
        self.calendar = calendar
        self.hosts: dict[str, Host] = {}  # by configuration folder
        self.logs: dict[str, Log] = {}  # by host tag, which is the name of the folder of the log

    # ---- What the fleet does to the disks ------------------------------------------------------
    def add(self, host: Host) -> None:
        """Create the folder of a new host."""
        (host.folder / "renewal").mkdir(parents=True, exist_ok=True)
        self.hosts[str(host.folder)] = host
        self.logs[host.tag] = host.log

    def wipe(self, host: Host) -> None:
        """Empty the folder of a host that is set up again, except for its present lineages."""
        shutil.rmtree(host.folder)
        self.add(host)
        for name in host.lineages:
            self.add_configuration(host, name)

    def add_configuration(self, host: Host, name: str) -> None:
        """Create the renewal configuration of a lineage: programs look whether it exists."""
        (host.folder / "renewal" / f"{name}.conf").touch()

    def remove_configuration(self, host: Host, name: str) -> None:
        """Remove the renewal configuration of a lineage; it may be lost already."""
        (host.folder / "renewal" / f"{name}.conf").unlink(missing_ok=True)

    def lose_or_restore_configuration(self, host: Host, lineage: Lineage) -> None:
        """Remove the renewal configuration while it is lost, and create it again after that."""
        name = lineage.certificate.lineage
        exists = (host.folder / "renewal" / f"{name}.conf").exists()
        is_lost = lineage.fault_at(self.calendar.now) is Fault.CONFIGURATION_LOST
        if is_lost and exists:
            self.remove_configuration(host, name)
        elif not is_lost and not exists:
            self.add_configuration(host, name)

    # ---- What the programs read ----------------------------------------------------------------
    def read_lineages(self, folder: str, certbot: str = "") -> hook.Lineages:
        """Return all lineages of a host, as `hook.read_lineages` does.

        `certbot` is its version, "" if it is not known.
        """
        host = self.hosts[folder]
        confs: dict[str, hook.RenewalConf] = {}
        lineages = hook.Lineages(set(), [], {}, [], confs)
        now = self.calendar.now
        if host.unmounted.contains(now):
            return lineages
        for name, lineage in sorted(host.lineages.items()):
            fault = lineage.fault_at(now)
            self.lose_or_restore_configuration(host, lineage)
            lineages.names.add(name)
            if fault:
                lineages.unreadable[name] = f"{name}: {fault.value}"
            conf = hook.RenewalConf()
            if fault is not Fault.CONFIGURATION_LOST:
                conf = renewal_conf(host, lineage)
                confs[name] = conf
                if certbot:
                    conf = conf._replace(version=hook.version_of(certbot))
            if fault is not Fault.FILES_DELETED:
                lineages.certificates.append(seen_certificate(lineage, conf))
        return lineages

    def read_certificate(
        self, path: str, lineage: str, conf: hook.RenewalConf | None = None
    ) -> hook.Certificate:
        """Return the certificate of a lineage, as `hook.read_certificate` does."""
        host = self.hosts[path.partition("/live/")[0]]
        return seen_certificate(host.lineages[lineage], renewal_conf(host, host.lineages[lineage]))

    def older_certificates(
        self, folder: str, certificates: Sequence[hook.Certificate], problems: list[str]
    ) -> Iterator[hook.Certificate]:
        """Yield predecessors, the newest first, as `older_certificates` of the run report does."""
        for certificate in certificates:
            yield from reversed(self.hosts[folder].lineages[certificate.lineage].archive)

    def changed_at(self, path: str) -> float:
        """Return when the files of a lineage were last changed, as `hook.changed_at` does.

        `path` is that of its renewal configuration, of its folder or of a file in it. 0: it is
        missing.
        """
        now = self.calendar.now
        folder, name = LINEAGE_PATH.fullmatch(path).group("folder", "name")  # type: ignore[union-attr]
        host = self.hosts[folder]
        lineage = host.lineages.get(name)
        if lineage is None or host.unmounted.contains(now):
            return 0.0
        return max(lineage.changed_at, lineage.fault_changed_at(now) + host.clock_error)

    def read_certbot_log(self, logs_dir: str, after: str, now: int) -> run_program.CertbotLog:
        """Return certbot's runs after a position, as `run_program.read_certbot_log` does."""
        return self.logs[Path(logs_dir).name].read(after)


# The ACME directories of real CAs.
SERVERS = {LETS_ENCRYPT: "https://acme-v02.api.letsencrypt.org/directory"}

# Matches: /etc/letsencrypt/renewal/c1.example.com.conf, /etc/letsencrypt/live/c1.example.com/x.pem
LINEAGE_PATH = re.compile(
    r"""
    (?P<folder> .* ) / (?: renewal|live|archive ) /
    (?P<name> [^/]+? )
    (?: \.conf | /.* )?
    """,
    re.VERBOSE,
)


def renewal_conf(host: Host, lineage: Lineage) -> hook.RenewalConf:
    """Return what the programs read in the renewal configuration of a lineage."""
    name = lineage.certificate.lineage
    paths = {kind: f"{host.folder}/live/{name}/{kind}.pem" for kind in hook.FILE_KINDS}
    return hook.RenewalConf(
        version=host.version,  # of the certbot that has written the file
        interval=lineage.interval,
        autorenew=lineage.autorenew,
        server=SERVERS.get(lineage.ca, f"https://{lineage.ca}.example.com/directory"),
        **paths,
    )


def seen_certificate(lineage: Lineage, conf: hook.RenewalConf) -> hook.Certificate:
    """Return a certificate as the programs see it: due by their rule, which may not be the truth.

    `conf` is the renewal configuration of the lineage, the default one if it is lost.
    """
    certificate = lineage.certificate
    decoded = hook.DecodedCertificate(
        certificate.names, certificate.not_before, certificate.not_after
    )
    return certificate._replace(
        renewal_due=hook.due_without_verdict(decoded, conf),
        failure=hook.no_renewal_reason(conf, certificate.not_after),
    )


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
        self.disks = FakeDisks(calendar)
        self.server = FakeServer()
        self.arrivals: list[Arrival] = []
        self.published_arrivals: list[Arrival] = []

    @contextlib.contextmanager
    def fakes(self) -> Iterator[None]:
        """Let the two programs use the simulated disks and server, and print nothing."""

        def say_nothing(*lines: str, **options: object) -> None:
            pass

        in_report_hook = unittest.mock.patch.multiple(
            hook,
            read_lineages=self.disks.read_lineages,
            read_certificate=self.disks.read_certificate,
            changed_at=self.disks.changed_at,
            send_lines=self.server.send_lines,
            say=say_nothing,
            warn=say_nothing,
            # A year escapes the same few names millions of times.
            escape=functools.lru_cache(None)(hook.escape),
        )
        in_run_report = unittest.mock.patch.multiple(
            run_program,
            older_certificates=self.disks.older_certificates,
            read_certbot_log=self.disks.read_certbot_log,
        )
        with in_report_hook, in_run_report:
            yield

    # ---- What the programs send ----------------------------------------------------------------
    def send_renewal(self, host: Host, name: str, number: int = 0) -> None:
        """Let the deploy hook report a renewal, a moment after it.

        `number` is that of the renewal in this run of certbot, from 0 on.
        """
        settings = settings_of(host.tag)
        names = host.lineages[name].names
        environ = {
            "RENEWED_LINEAGE": f"{host.folder}/live/{name}",
            "RENEWED_DOMAINS": " ".join(names),
        }
        seconds = DEPLOY_HOOK_SECONDS + number
        clock = self.clock_of(host) + seconds
        transmission = self.transmit(
            host, seconds, lambda: hook.report_renewal(settings, environ, str(host.folder), clock)
        )
        if transmission.arrived_at is not None:
            of_names = hook.make_renewal_points(settings, name, names, clock)[1:]
            lines = [hook.line_protocol(point) for point in of_names]
            self.published_arrivals.append(Arrival(transmission.arrived_at, lines))

    def send_post_hook_report(
        self, host: Host, renewed: Sequence[str], failed: Sequence[str]
    ) -> None:
        """Let the post hook report, after a run of certbot that attempted to renew something."""
        environ = {
            "RENEWED_DOMAINS": names_of(host, renewed),
            "FAILED_DOMAINS": names_of(host, failed),
        }
        self.transmit(
            host, POST_HOOK_SECONDS, lambda: self.run(host, [], environ, POST_HOOK_SECONDS)
        )

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

        environ = {"EXIT_STATUS": str(task.exit_status)}
        transmission = self.transmit(
            host, RUN_REPORT_SECONDS, lambda: self.run(host, ["--all"], environ, RUN_REPORT_SECONDS)
        )
        is_first_time = host.last_reported_run != task.run_number
        if transmission.received_at is not None or (transmission.left_host and is_first_time):
            host.last_reported_run = task.run_number
            self.truth.run_is_reported(host.tag, now + RUN_REPORT_SECONDS)

        back_at = max(host.network_back_at, self.truth.influxdb_down.end_at(now))
        next_try = back_at + host.network_random.random() * 300
        if transmission.received_at is not None and transmission.arrived_at is not None:
            report = ReceivedReport(transmission.received_at, transmission.arrived_at)
            self.truth.received[host.tag].append(report)
        elif next_try < task.give_up_at and not host.off.seconds_within(now, next_try):
            self.calendar.schedule(next_try, self.try_run_report, task)

    def run(
        self, host: Host, arguments: Sequence[str], environ: dict[str, str], seconds: int
    ) -> None:
        """Let the run report program make a report, send it, and write the known file.

        `seconds` is how long after now it does so.
        """
        options = options_of(*arguments, "--logs-dir", host.tag)
        clock = self.clock_of(host) + seconds
        settings = settings_of(host.tag)
        reporter = run_program.RunReporter(options, environ, "", str(host.folder))
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

        `tag` is the host to which the lineages belonged; without lineages, this host is retired.
        """
        away_until = self.truth.influxdb_down.end_at(self.calendar.now)
        if away_until:
            self.calendar.schedule(away_until + HOUR, self.retire, host, tag, lineages)
            return

        arguments = ["--host", tag, "--retire", *lineages]
        self.server.expect_report(is_reachable=True, received_at=self.calendar.now)
        self.run(host, arguments, {}, seconds=0)
        self.add_arrival(self.calendar.now, self.calendar.now)

    # ---- On the way ----------------------------------------------------------------------------
    def clock_of(self, host: Host) -> int:
        """Return what the clock of a host says."""
        return int(self.calendar.now) + host.clock_error

    def send_by_hand(self, settings: hook.Settings, report: hook.Report) -> None:
        """Send a report that arrives at once."""
        now = self.calendar.now
        self.server.expect_report(is_reachable=True, received_at=now)
        hook.send_report(settings, report)
        self.add_arrival(now, now)

    def add_arrival(self, received_at: float, arrived_at: float) -> None:
        """Add the lines that the server took: dated when received, in the database on arrival."""
        lines = [dated(line, int(received_at)) for line in self.server.lines]
        self.arrivals.append(Arrival(arrived_at, lines))

    def transmit(self, host: Host, seconds: int, send: Callable[[], object]) -> Transmission:
        """Let a program send a report, some seconds from now; it may be lost, or come twice.

        Telegraf accepts a report while InfluxDB is down. Then it sends all that it has, in their
        order, within an hour after InfluxDB is back. If a request is repeated on its way, it is
        another report for the server, with the time of the repetition. What Telegraf repeats has
        its time already.
        """
        # Always the same number of random numbers: the next report has the same luck.
        now = self.calendar.now
        is_lost = host.network_random.random() < REPORT_LOST
        away_fraction = host.network_random.random()
        is_repeated = host.network_random.random() < REPORT_REPEATED
        delay_fraction = host.network_random.random()
        if now + seconds < host.network_back_at:
            is_lost = True
        elif is_lost:
            seconds_away = log_uniform(away_fraction, NETWORK_AWAY_SHORTEST, NETWORK_AWAY_LONGEST)
            host.network_back_at = now + seconds + seconds_away

        influxdb_back_at = self.truth.influxdb_down.end_at(now)
        is_accepted = host.telegraf or not influxdb_back_at
        received_at = now + seconds + 1
        self.server.expect_report(is_accepted and not is_lost, received_at)
        send()
        if not self.server.is_reachable:
            return Transmission(left_host=not is_lost)

        arrived_at = received_at
        if influxdb_back_at:
            telegraf_random = self.randomness.of("telegraf", host.number, influxdb_back_at)
            arrived_at = influxdb_back_at + telegraf_random.random() * HOUR
        elif host.telegraf:
            arrived_at += delay_fraction * TELEGRAF_INTERVAL
        self.add_arrival(received_at, arrived_at)
        if is_repeated and host.telegraf:
            self.add_arrival(
                received_at, arrived_at + delay_fraction * LATEST_REPETITION_BY_TELEGRAF
            )
        elif is_repeated:
            again_at = received_at + delay_fraction * LATEST_REPETITION
            self.add_arrival(again_at, again_at)
        return Transmission(True, received_at, arrived_at)


@functools.lru_cache(None)
def options_of(*arguments: str) -> run_program.Options:
    """Return the options of the run report program; a year asks for the same ones very often."""
    options = run_program.read_options(arguments)
    assert options is not None
    return options


def dated(line: str, moment: int) -> str:
    """Return a line with a time: its own, else this one."""
    return line if HAS_TIME.search(line) else f"{line} {moment}"


def names_of(host: Host, lineages: Sequence[str]) -> str:
    """Return the names in the certificates of some lineages, as certbot gives them to hooks."""
    names = []
    for lineage in lineages:
        names += host.lineages[lineage].names
    return " ".join(names)


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
