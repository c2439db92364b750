"""A fleet of hosts over a simulated year: what certbot does on them, and what goes wrong.

Hosts with one to ten lineages exist at the beginning of the year, each lineage somewhere in its
lifetime. certbot's timer starts twice a day on each host and renews what is due. All that
frequencies.py lists happens to the hosts, to their lineages, to the CA, to InfluxDB and to
Kapacitor. The fleet records the truth, and lets the programs report.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import certbot_renewal_report as hook
import certbot_renewal_run as run_program
from certbot_renewal_report import DAY
from tools.simulation import certbot, frequencies, logs
from tools.simulation.alerts import SILENCE, Subject
from tools.simulation.hosts import Calendar, Fault, Host, Lineage, Randomness
from tools.simulation.periods import BEGIN, HOUR, Periods, random_periods
from tools.simulation.reports import Arrival, Reporting, Reports
from tools.simulation.truth import Incident, Truth

LONGEST_DELAY_AFTER_BOOT = 300  # seconds until certbot's timer starts what was missed
OFTEN = 2 * HOUR  # between two starts of certbot's timer where certificates last a day

NO_CERTIFICATE = hook.Certificate("", [], 0, 0, 0)

Thing = TypeVar("Thing")


class Fleet:
    """A fleet in a simulated year: `run()` plays the year, and records the truth and reports."""

    def __init__(
        self, seed: int, certificates: int, days: int, reports: Reports, folder: Path
    ) -> None:
        """Create the hosts, which have `certificates` lineages in all.

        `reports` says which programs are installed on the hosts. `folder` is where the hosts'
        folders are created.
        """
        self.days = days
        self.reports = reports
        self.folder = folder
        self.randomness = Randomness(seed)
        source = self.randomness.of("whole")
        influxdb_away = random_periods(source, frequencies.INFLUXDB_AWAY, days)
        influxdb_down = random_periods(source, frequencies.INFLUXDB_DOWN, days)
        kapacitor_down = random_periods(source, frequencies.KAPACITOR_DOWN, days)
        self.ca_down = Periods(random_periods(source, frequencies.CA_OUTAGE, days))
        revocations = {}
        for ca in frequencies.CAS:
            if self.happens_this_year(source.random(), frequencies.REVOCATIONS_PER_YEAR):
                revocations[ca] = BEGIN + source.random() * days * DAY
        self.truth = Truth(
            seed, days, Periods(influxdb_down + influxdb_away), Periods(kapacitor_down)
        )
        self.calendar = Calendar(self.truth.end)
        self.reporting = Reporting(self.calendar, self.truth, self.randomness)
        self.hosts: list[Host] = []
        self.lineages_created = 0
        for ca, moment in revocations.items():
            self.calendar.schedule(moment, self.revoke, ca)
        while sum(len(host.lineages) for host in self.hosts) < certificates:
            self.add_first_host()

    @property
    def arrivals(self) -> list[Arrival]:
        """What the database receives, as it arrives."""
        return self.reporting.arrivals

    @property
    def published_arrivals(self) -> list[Arrival]:
        """What the database would receive from the published hook."""
        return self.reporting.published_arrivals

    def run(self) -> None:
        """Play the year."""
        with self.reporting.fakes():
            self.calendar.play()
        for host in self.hosts:
            for name in list(host.lineages):
                self.remove_lineage(host, name, self.truth.end)
            if not host.gone:
                self.truth.silence_ends(host.tag, self.truth.end)
        self.truth.year_ends()
        self.arrivals.sort(key=lambda arrival: arrival.at)

    def happens_this_year(self, chance: float, per_year: float) -> bool:
        """Return whether something happens in the simulated days; `chance`: from 0 to 1."""
        return chance < per_year * self.days / 365

    # ---- Hosts and lineages --------------------------------------------------------------------
    def add_host(self, tag: str) -> Host:
        """Add a host without lineages; the caller starts its timer."""
        number = len(self.hosts)
        source = self.randomness.of("host", number)
        clock_error = 0
        chance = source.random()
        for largest, share in frequencies.WRONG_CLOCKS.items():
            if 0 <= chance < share:
                clock_error = source.randint(-largest, largest)
            chance -= share
        log_is_missing = source.random() < frequencies.LOG_MISSING
        has_day_certificates = source.random() < frequencies.DAY_CERTIFICATES
        host = Host(
            number=number,
            tag=tag or f"host{number}",
            folder=self.folder / f"host{number}",
            certbot=one_of(source, frequencies.CERTBOT_VERSIONS),
            clock_error=clock_error,
            run_interval=OFTEN if has_day_certificates else DAY // 2,
            telegraf=source.random() < frequencies.BEHIND_TELEGRAF,
            log=logs.Log("the log cannot be read" if log_is_missing else ""),
            off=Periods(random_periods(source, frequencies.HOST_OFF, self.days)),
            timer_off=Periods(random_periods(source, frequencies.TIMER_OFF, self.days)),
            unmounted=Periods(random_periods(source, frequencies.UNMOUNTED, self.days)),
            run_fails=Periods(random_periods(source, frequencies.WHOLE_RUN_FAILS, self.days)),
            random_source=source,
            network_random=self.randomness.of("network", number),
        )
        host.sharers = [host]
        self.reporting.disks.add(host)
        self.hosts.append(host)
        return host

    def start_timer(self, host: Host) -> None:
        """Schedule the first run of certbot on a host."""
        self.calendar.schedule(
            self.calendar.now + host.random_source.random() * host.run_interval,
            self.start_certbot,
            host,
        )

    def add_first_host(self) -> None:
        """Add a host that exists at the beginning of the year, with its lineages."""
        host = self.add_host(tag="")
        source = host.random_source
        lineages = min(10, int(1 + source.expovariate(0.28)))
        if source.random() < frequencies.SHARED:
            self.share(host)
        for _ in range(lineages):
            self.add_lineage(host, BEGIN - 1 - source.random())

        self.calendar.schedule(BEGIN + 1, self.reporting.check_installation, host)
        possible_events = (
            (frequencies.CLONED_PER_YEAR, self.clone),
            (frequencies.REBUILT_PER_YEAR, self.rebuild),
            (frequencies.RETIRED_PER_YEAR, self.retire),
        )
        for per_year, action in possible_events:
            if self.happens_this_year(source.random(), per_year):
                self.calendar.schedule(BEGIN + source.random() * self.days * DAY, action, host)
        self.start_timer(host)

    def share(self, host: Host) -> None:
        """Add another host that has the same configuration folder, for example by NFS."""
        other = self.add_host(f"{host.tag}-b")
        other.folder = host.folder
        other.run_interval = host.run_interval
        other.lineages = host.lineages
        other.switched_off = host.switched_off
        host.sharers.append(other)
        other.sharers = host.sharers
        self.start_timer(other)

    def add_lineage(self, host: Host, moment: float) -> None:
        """Add a lineage. Before the beginning of the year, it is somewhere in its lifetime."""
        number = self.lineages_created  # not the host's: reports must not change what happens
        self.lineages_created += 1
        source = self.randomness.of("lineage", number)
        name = f"c{number}.example.com"
        lineage = self.new_lineage(host, name, source)
        host.lineages[name] = lineage
        self.reporting.disks.add_configuration(host, name)

        is_new = moment > BEGIN
        issued_at = moment
        if not is_new:
            self.date_certificate(host, name, 0)
            lifetime_before_renewal = max(0.0, lineage.certificate.renewal_due - 1.2 * DAY)
            issued_at = moment - source.random() * lifetime_before_renewal
            lineage.certificate = NO_CERTIFICATE
        self.issue(host, name, issued_at)
        if is_new and host.runs_hooks_at_issuance:
            self.report_renewals(host, [name], [])
        self.schedule_interventions(host, name, max(moment, BEGIN))

    def new_lineage(self, host: Host, name: str, source: random.Random) -> Lineage:
        """Return a lineage without a certificate."""
        lifetime = one_of(source, frequencies.LIFETIMES)
        interval_chance = source.random()
        if host.run_interval == OFTEN:
            lifetime = DAY
        further_names = source.choice((0, 1, 1, 2))
        broken = random_periods(source, frequencies.LINEAGE_BROKEN, self.days)
        rate_limited = random_periods(source, frequencies.RATE_LIMITED, self.days)
        faults = {
            Fault.UNREADABLE: frequencies.UNREADABLE,
            Fault.FILES_DELETED: frequencies.FILES_DELETED,
            Fault.CONFIGURATION_LOST: frequencies.CONFIGURATION_LOST,
        }
        return Lineage(
            names=[name, f"www.{name}", f"mail.{name}"][: 1 + further_names],
            lifetime=lifetime,
            ca=one_of(source, frequencies.CAS),
            backdated=one_of(source, frequencies.BACKDATED),
            interval=self.interval_of(host, lifetime, interval_chance),
            autorenew=source.random() >= frequencies.NOT_RENEWED_BY_CERTBOT,
            broken=Periods(broken + rate_limited),
            faults={
                fault: Periods(random_periods(source, frequency, self.days))
                for fault, frequency in faults.items()
            },
            random_source=source,
            certificate=NO_CERTIFICATE,
        )

    def interval_of(self, host: Host, lifetime: int, chance: float) -> str:
        """Return renew_before_expiry of a lineage, "" if it is not set; `chance`: from 0 to 1.

        certbot before 4.0 would renew short certificates in each run: there it must be set.
        """
        shortest = lifetime * frequencies.SHORTEST_INTERVAL
        longest = lifetime * frequencies.LONGEST_INTERVAL
        fitting = [
            text
            for text, seconds in frequencies.INTERVALS.items()
            if shortest <= seconds <= longest
        ]
        is_needed = lifetime < 30 * DAY and host.version < certbot.FIRST_VERSION_WITH_A_THIRD
        if is_needed:
            return fitting[0]
        if chance < frequencies.HAS_INTERVAL:
            return fitting[int(chance / frequencies.HAS_INTERVAL * len(fitting))]
        return ""

    def schedule_interventions(self, host: Host, name: str, begin: float) -> None:
        """Schedule what people will do with a lineage."""
        source = host.lineages[name].random_source
        possible_events = (
            (frequencies.RENEWED_BY_HAND_PER_YEAR, self.renew_by_hand),
            (frequencies.RENEWED_WITHOUT_HOOKS_PER_YEAR, self.renew_without_hooks),
            (frequencies.DELETED_PER_YEAR, self.delete),
        )
        for per_year, action in possible_events:
            if self.happens_this_year(source.random(), per_year):
                moment = begin + source.random() * self.days * DAY
                self.calendar.schedule(moment, action, host, name)
        for period in random_periods(source, frequencies.SWITCHED_OFF, self.days):
            if period.begin > begin:
                self.calendar.schedule(period.begin, self.switch_off, host, name, period.end)

    def issue(self, host: Host, name: str, moment: float) -> None:
        """Give a lineage a new certificate; its predecessor goes into certbot's archive."""
        lineage = host.lineages[name]
        if lineage.certificate is not NO_CERTIFICATE:
            lineage.archive.append(lineage.certificate)
            for subject in host.subjects(name):
                self.truth.certificate_ends(subject, lineage.certificate, moment)

        self.date_certificate(host, name, moment)
        for subject in host.subjects(name):
            self.truth.certificate_begins(subject, lineage.certificate, moment)
        if not lineage.autorenew:
            first, last = frequencies.RENEWED_BY_HAND_BETWEEN
            part = lineage.random_source.uniform(first, last)
            renewed_at = max(moment, BEGIN) + 1
            renewed_at = max(renewed_at, lineage.certificate.not_before + part * lineage.lifetime)
            self.calendar.schedule(renewed_at, self.renew_at_last, host, name)

    def date_certificate(self, host: Host, name: str, moment: float) -> None:
        """Set the certificate of a lineage to one that is issued at a moment."""
        lineage = host.lineages[name]
        not_before = backdated(moment, lineage.backdated)
        lineage.revoked_at = 0.0
        lineage.changed_at = moment + host.clock_error
        lineage.certificate = hook.Certificate(
            name, list(lineage.names), not_before, not_before + lineage.lifetime, 0
        )
        renewal_due = int(certbot.due_at_the_latest(lineage, host.version))
        lineage.certificate = lineage.certificate._replace(renewal_due=renewal_due)

    def remove_lineage(self, host: Host, name: str, moment: float) -> Lineage:
        """Remove a lineage from a host, and from those that have the same folder; return it."""
        lineage = host.lineages.pop(name)
        self.reporting.disks.remove_configuration(host, name)
        for sharer in host.sharers:
            self.truth.lineage_ends(sharer.subject(name), lineage.certificate, moment)
            sharer.failing.discard(name)
        return lineage

    def revoke(self, ca: str) -> None:
        """Let a CA revoke some of its certificates: it wants them renewed at once."""
        source = self.randomness.of("revocation", ca)
        for host in self.hosts:
            for lineage in host.lineages.values():
                if lineage.ca == ca and source.random() < frequencies.REVOKED:
                    lineage.revoked_at = self.calendar.now

    # ---- certbot -------------------------------------------------------------------------------
    def start_certbot(self, host: Host) -> None:
        """Let certbot's timer start: twice a day, at random.

        What was missed while the host was off is started soon after it is on again.
        """
        now = self.calendar.now
        if host.gone:
            return
        on_again = host.off.end_at(now)
        if on_again:
            delay = host.random_source.random() * LONGEST_DELAY_AFTER_BOOT
            self.calendar.schedule(on_again + delay, self.start_certbot, host)
            return

        next_turn = (now - BEGIN) // host.run_interval + 1
        next_start = BEGIN + (next_turn + host.random_source.random()) * host.run_interval
        self.calendar.schedule(next_start, self.start_certbot, host)
        if not host.timer_off.contains(now):
            self.run_certbot(host)

    def run_certbot(self, host: Host) -> None:
        """Renew what is due, or fail; then the reports are sent."""
        now = self.calendar.now
        is_locked = host.random_source.random() < frequencies.ALREADY_RUNNING
        if is_locked:
            self.end_run(host, {}, failure=logs.IS_LOCKED)
            return
        if host.run_fails.contains(now):
            self.end_run(host, {}, failure=logs.RUN_FAILED)
            return

        results = {}
        if not host.unmounted.contains(now):
            for name, lineage in sorted(host.lineages.items()):
                if lineage.fault_at(now) is not Fault.CONFIGURATION_LOST:
                    results[name] = self.process(host, name)
        self.end_run(host, results)

    def process(self, host: Host, name: str) -> run_program.LineageResult:
        """Let certbot look at a lineage, and renew it if it is due; return the result."""
        now = self.calendar.now
        lineage = host.lineages[name]
        ca_is_up = not self.ca_down.contains(now)
        if lineage.fault_at(now):
            return logs.result_of(run_program.UNREADABLE, logs.PARSE_FAILED)
        asks_ca = ca_is_up and lineage.autorenew
        window = certbot.window_of(lineage, host.version) if asks_ca else None
        clock = now + host.clock_error
        if not certbot.would_renew(lineage, host.version, clock, ca_is_up):
            return logs.result_of(run_program.NOT_DUE, window=window)
        if not ca_is_up:
            return logs.result_of(run_program.FAILED, logs.CA_AWAY)
        if lineage.broken.contains(now):
            return logs.result_of(run_program.FAILED, logs.CHALLENGE_FAILED, window)
        self.issue(host, name, now)
        return logs.result_of(run_program.RENEWED, window=window)

    def end_run(
        self, host: Host, results: Mapping[str, run_program.LineageResult], failure: str = ""
    ) -> None:
        """Write the log of a run of the timer, record the truth about it, and report it."""
        run = logs.make_run(
            self.calendar.now + host.clock_error, host.certbot, results, failure=failure
        )
        host.log.add(run)
        self.record_run(host, run)
        self.send_hooks_reports(host, results)
        if self.reports is Reports.RUN_REPORTS:
            has_failed = bool(failure or logs.failing_lineages(results))
            self.reporting.send_run_report(host, exit_status=int(has_failed))

    def record_run(self, host: Host, run: run_program.CertbotRun) -> None:
        """Record in the truth what failed in a run, and since when."""
        now = self.calendar.now
        for name, result in run.results.items():
            is_attempt = result.result == run_program.FAILED
            if is_attempt and not host.log.problem:  # without a log nobody knows of it
                is_urgent = bool(result.window and host.lineages[name].revoked_at)
                self.truth.attempt_fails(host.subject(name), run.started_at, now, is_urgent)
            elif result.result == run_program.NOT_DUE:
                self.truth.is_not_due(host.subject(name))

        host.failing.difference_update(run.results)
        host.failing.update(logs.failing_lineages(run.results))
        is_briefly_locked = run.is_locked and not host.log.problem
        host.failing.discard("")
        if run.failure and not is_briefly_locked:
            host.failing.add("")
        # The programs see faults of files themselves, also after a run that looked at nothing.
        faulty = set()
        for name, lineage in host.lineages.items():
            if lineage.fault_at(now) or host.unmounted.contains(now):
                faulty.add(name)
        self.truth.run_ends(host.tag, host.failing | faulty, now)

    def send_hooks_reports(
        self, host: Host, results: Mapping[str, run_program.LineageResult]
    ) -> None:
        """Let certbot start the hooks: they report what was renewed, and what failed."""
        renewed = [name for name in results if results[name].result == run_program.RENEWED]
        failed = [name for name in results if results[name].result == run_program.FAILED]
        self.report_renewals(host, renewed, failed)

    def report_renewals(self, host: Host, renewed: list[str], failed: list[str]) -> None:
        """Let certbot start the deploy hook for each renewal, and then the post hook."""
        for number, name in enumerate(renewed):
            self.reporting.send_renewal(host, name, number)
        if (renewed or failed) and self.reports is not Reports.DEPLOY_HOOK:
            self.reporting.send_post_hook_report(host, renewed, failed)

    # ---- What people do ------------------------------------------------------------------------
    def can_change(self, host: Host, name: str) -> bool:
        """Return whether somebody could do something with a lineage of a host now."""
        now = self.calendar.now
        if name not in host.lineages or host.off.contains(now) or host.unmounted.contains(now):
            return False
        return host.lineages[name].fault_at(now) is None

    def can_issue(self, host: Host, name: str) -> bool:
        """Return whether somebody could renew a lineage of a host now."""
        return self.can_change(host, name) and not self.ca_down.contains(self.calendar.now)

    def renew_by_hand(self, host: Host, name: str) -> None:
        """Renew a lineage by hand, often with other names: hooks run, but no run report is sent."""
        if not self.can_issue(host, name):
            return
        lineage = host.lineages[name]
        if lineage.random_source.random() < frequencies.NAMES_CHANGED_BY_HAND:
            if len(lineage.names) > 1:
                lineage.names = lineage.names[:1]
            else:
                lineage.names = [*lineage.names, f"new.{name}"]
        self.issue(host, name, self.calendar.now)

        results = {name: logs.result_of(run_program.RENEWED)}
        mode = f"renew --force-renewal --cert-name {name}"
        run = logs.make_run(self.calendar.now + host.clock_error, host.certbot, results, mode=mode)
        host.log.add(run)
        host.failing.discard(name)
        self.send_hooks_reports(host, results)

    def renew_at_last(self, host: Host, name: str) -> None:
        """Renew a lineage by hand that certbot does not renew, as soon as it is possible."""
        if name not in host.lineages:
            return
        if self.can_issue(host, name):
            self.renew_by_hand(host, name)
        else:
            self.calendar.schedule(self.calendar.now + DAY, self.renew_at_last, host, name)

    def renew_without_hooks(self, host: Host, name: str) -> None:
        """Renew a lineage by another script: no hook is started, and certbot's log is silent."""
        if self.can_issue(host, name):
            self.issue(host, name, self.calendar.now)
            host.failing.discard(name)

    def delete(self, host: Host, name: str) -> None:
        """Delete a lineage with `certbot delete`; another one may be created instead."""
        if not self.can_change(host, name) or len(host.lineages) == 1:
            return
        now = self.calendar.now
        self.remove_lineage(host, name, now)
        if host.random_source.random() < frequencies.REPLACED_AFTER_DELETION:
            self.add_lineage(host, now)

    def switch_off(self, host: Host, name: str, until: float) -> None:
        """Rename the renewal configuration of a lineage: certbot does not see it any more."""
        if not self.can_change(host, name) or len(host.lineages) == 1:
            return
        host.switched_off[name] = self.remove_lineage(host, name, self.calendar.now)
        self.calendar.schedule(until, self.switch_on, host, name)

    def switch_on(self, host: Host, name: str) -> None:
        """Give the renewal configuration of a lineage its name again."""
        now = self.calendar.now
        if host.gone or name not in host.switched_off:
            return
        lineage = host.switched_off.pop(name)
        lineage.changed_at = now + host.clock_error
        host.lineages[name] = lineage
        self.reporting.disks.add_configuration(host, name)
        for subject in host.subjects(name):
            self.truth.certificate_begins(subject, lineage.certificate, now)
        if not lineage.autorenew:
            self.calendar.schedule(now + DAY, self.renew_at_last, host, name)

    def is_busy(self, host: Host) -> bool:
        """Return whether a host is in a state in which nobody copies it or sets it up again."""
        now = self.calendar.now
        return (
            host.gone
            or len(host.sharers) > 1
            or host.unmounted.contains(now)
            or any(lineage.fault_at(now) for lineage in host.lineages.values())
        )

    def clone(self, host: Host) -> None:
        """Start a copy of a host, with its certificates and known file, under its own name."""
        if self.is_busy(host):
            return
        copy = self.add_host(f"{host.tag}-copy")
        copy.certbot = host.certbot
        copy.run_interval = host.run_interval
        self.start_timer(copy)
        for name, lineage in host.lineages.items():
            copy.lineages[name] = dataclasses.replace(
                lineage,
                random_source=self.randomness.of("copy", host.number, name),
                archive=list(lineage.archive),
            )
            self.truth.certificate_begins(
                copy.subject(name), lineage.certificate, self.calendar.now
            )
            if not lineage.autorenew:
                self.calendar.schedule(self.calendar.now + DAY, self.renew_at_last, copy, name)
        shutil.copytree(host.folder, copy.folder, dirs_exist_ok=True)

    def rebuild(self, host: Host) -> None:
        """Set a host up again, without its disk.

        It gets new certificates for some lineages. The administrator retires the others.
        """
        now = self.calendar.now
        if self.is_busy(host) or host.off.contains(now):
            return
        dropped = []
        for name, lineage in list(host.lineages.items()):
            is_unwanted = host.random_source.random() < frequencies.DROPPED_AT_REBUILD
            if is_unwanted and len(host.lineages) > 1:
                self.remove_lineage(host, name, now)
                dropped.append(name)
            else:
                self.issue(host, name, now)
                lineage.archive.clear()
        dropped += host.switched_off
        host.switched_off.clear()
        host.failing.clear()
        host.log.runs.clear()
        self.reporting.disks.wipe(host)

        if host.runs_hooks_at_issuance:
            self.report_renewals(host, list(host.lineages), [])
        if dropped:
            retired_at = now + host.random_source.random() * 2 * HOUR
            self.calendar.schedule(retired_at, self.reporting.retire, host, host.tag, dropped)

    def retire(self, host: Host) -> None:
        """Remove a host for good.

        Half of the administrators retire it ten minutes later, the others when the alert fires:
        until then, its silence is an incident.
        """
        if host.gone or len(host.sharers) > 1:
            return
        now = self.calendar.now
        lineages = [*host.lineages, *host.switched_off]
        if host.random_source.random() < frequencies.RETIRED_AT_ONCE:
            retired_at = now + 600
        else:
            retired_at = now + (SILENCE + host.random_source.random() * DAY)
            silent_since = self.truth.last_run.get(host.tag, now) + SILENCE
            self.truth.silent.append(Incident(Subject(host.tag), silent_since, retired_at))
        for name in list(host.lineages):
            self.remove_lineage(host, name, now)
        self.truth.failing_ends(host.tag, now)
        host.gone = True
        retire = self.reporting.retire
        if lineages:
            self.calendar.schedule(retired_at, retire, self.hosts[0], host.tag, lineages)
        self.calendar.schedule(retired_at + 1, retire, self.hosts[0], host.tag, [])


def one_of(source: random.Random, shares: Mapping[Thing, float]) -> Thing:
    """Return one of some things at random; the mapping says how many of all are of each kind."""
    return source.choices(list(shares), list(shares.values()))[0]


def backdated(moment: float, kind: str) -> int:
    """Return notBefore of a certificate issued at a moment; `kind`: a key of BACKDATED."""
    if kind == "hour":
        return int(moment) - HOUR
    return int(moment) // DAY * DAY
