"""A fleet of hosts over a simulated year: what certbot does on them, and what goes wrong.

Hosts with one to ten lineages exist at the beginning of the year, each lineage somewhere in its
lifetime. certbot's timer starts twice a day on each host and renews what is due. All that
frequencies.py lists happens to the hosts, to their lineages, to the CA, to InfluxDB and to
Kapacitor. The fleet records the truth, and lets the programs report.
"""

from __future__ import annotations

from pathlib import Path

import certbot_renewal_report as hook
from certbot_renewal_report import DAY
from tools.simulation import frequencies
from tools.simulation.alerts import SILENCE, Subject
from tools.simulation.hosts import Calendar, Host, Lineage, Randomness
from tools.simulation.periods import BEGIN, HOUR, Periods, random_periods
from tools.simulation.reports import Arrival, Reporting
from tools.simulation.truth import Incident, Truth

LONGEST_DELAY_AFTER_BOOT = 300  # seconds until certbot's timer starts what was missed


class Fleet:
    """A fleet in a simulated year: `run()` plays the year, and records the truth and reports."""

    def __init__(
        self, seed: int, certificates: int, days: int, run_reports: bool, folder: Path
    ) -> None:
        """Create the hosts, which have `certificates` lineages in all.

        With `run_reports`, hosts report after each run of certbot, otherwise each renewal only.
        `folder` is where the hosts' folders are created.
        """
        self.days = days
        self.run_reports = run_reports
        self.folder = folder
        self.randomness = Randomness(seed)
        source = self.randomness.of("whole")
        influxdb_away = random_periods(source, frequencies.INFLUXDB_AWAY, days)
        influxdb_down = random_periods(source, frequencies.INFLUXDB_DOWN, days)
        kapacitor_down = random_periods(source, frequencies.KAPACITOR_DOWN, days)
        self.ca_down = Periods(random_periods(source, frequencies.CA_OUTAGE, days))
        self.truth = Truth(
            seed, days, Periods(influxdb_down + influxdb_away), Periods(kapacitor_down)
        )
        self.calendar = Calendar(self.truth.end)
        self.reporting = Reporting(self.calendar, self.truth, self.randomness)
        self.hosts: list[Host] = []
        self.lineages_created = 0
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
        if source.random() < frequencies.WRONG_CLOCK:
            largest = frequencies.LARGEST_CLOCK_ERROR
            clock_error = source.randint(-largest, largest)
        host = Host(
            number=number,
            tag=tag or f"host{number}",
            folder=self.folder / f"host{number}",
            clock_error=clock_error,
            telegraf=source.random() < frequencies.BEHIND_TELEGRAF,
            runs_hooks_at_issuance=source.random() < frequencies.CERTBOT_RUNS_HOOKS_AT_ISSUANCE,
            off=Periods(random_periods(source, frequencies.HOST_OFF, self.days)),
            timer_off=Periods(random_periods(source, frequencies.TIMER_OFF, self.days)),
            random_source=source,
            network_random=self.randomness.of("network", number),
        )
        self.reporting.disks.add(host)
        self.hosts.append(host)
        return host

    def start_timer(self, host: Host) -> None:
        """Schedule the first run of certbot on a host."""
        self.calendar.schedule(
            self.calendar.now + host.random_source.random() * DAY / 2, self.start_certbot, host
        )

    def add_first_host(self) -> None:
        """Add a host that exists at the beginning of the year, with its lineages."""
        host = self.add_host(tag="")
        source = host.random_source
        lineages = min(10, int(1 + source.expovariate(0.28)))
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

    def add_lineage(self, host: Host, moment: float) -> None:
        """Add a lineage. Before the beginning of the year, it is somewhere in its lifetime."""
        number = self.lineages_created  # not the host's: reports must not change what happens
        self.lineages_created += 1
        source = self.randomness.of("lineage", number)
        name = f"c{number}.example.com"
        lifetime = source.choices(
            list(frequencies.LIFETIMES), list(frequencies.LIFETIMES.values())
        )[0]
        further_names = source.choice((0, 1, 1, 2))
        names = [name, f"www.{name}", f"mail.{name}"][: 1 + further_names]
        backdated = source.choices(
            list(frequencies.BACKDATED), list(frequencies.BACKDATED.values())
        )[0]
        broken = random_periods(source, frequencies.LINEAGE_BROKEN, self.days)
        rate_limited = random_periods(source, frequencies.RATE_LIMITED, self.days)
        host.lineages[name] = Lineage(
            names=names,
            lifetime=lifetime,
            backdated=backdated,
            broken=Periods(broken + rate_limited),
            random_source=source,
            certificate=hook.Certificate(name, [], 0, 0, 0),
        )

        is_new = moment > BEGIN
        issued_at = moment
        if not is_new:
            age = source.random() * (hook.due_date(0, lifetime) - 1.2 * DAY)
            issued_at = moment - age
        self.issue(host, name, issued_at)
        if is_new and host.runs_hooks_at_issuance:
            self.reporting.send_renewal(host, name)
        self.schedule_interventions(host, name, max(moment, BEGIN))

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

    def issue(self, host: Host, name: str, moment: float) -> None:
        """Give a lineage a new certificate; its predecessor goes into certbot's archive."""
        lineage = host.lineages[name]
        subject = host.subject(name)
        if lineage.certificate.not_before:
            lineage.archive.append(lineage.certificate)
            self.truth.certificate_ends(subject, lineage.certificate, moment)

        not_before = backdated(moment, lineage.backdated)
        not_after = not_before + lineage.lifetime
        renewal_due = hook.due_date(not_before, not_after)
        lineage.certificate = hook.Certificate(
            name, list(lineage.names), not_before, not_after, renewal_due
        )
        advance = 0.0
        if lineage.random_source.random() < frequencies.RENEWAL_ADVANCED:
            advance = lineage.random_source.random() * frequencies.LONGEST_ADVANCE
        earliest = not_before + lineage.lifetime / 4
        lineage.renew_by = max(renewal_due - advance, earliest)
        self.truth.certificate_begins(subject, lineage.certificate, moment)

    def remove_lineage(self, host: Host, name: str, moment: float) -> None:
        """Remove a lineage from a host."""
        certificate = host.lineages.pop(name).certificate
        self.truth.lineage_ends(host.subject(name), certificate, moment)

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

        next_half_day = (now - BEGIN) // (DAY / 2) + 1
        next_start = BEGIN + (next_half_day + host.random_source.random()) * DAY / 2
        self.calendar.schedule(next_start, self.start_certbot, host)
        if not host.timer_off.contains(now):
            self.run_certbot(host)

    def run_certbot(self, host: Host) -> None:
        """Renew what is due, or fail; then the run report is sent, if there are run reports."""
        now = self.calendar.now
        has_failed = False
        for name, lineage in list(host.lineages.items()):
            if not lineage.is_due(now):
                continue
            if self.ca_down.contains(now) or lineage.broken.contains(now):
                has_failed = True
            else:
                self.issue(host, name, now)
                self.reporting.send_renewal(host, name)
        self.truth.run_ends(host.tag, has_failed, now)
        if self.run_reports:
            self.reporting.send_run_report(host, int(has_failed))

    # ---- What people do ------------------------------------------------------------------------
    def can_issue(self, host: Host, name: str) -> bool:
        """Return whether somebody could renew a lineage of a host now."""
        now = self.calendar.now
        if name not in host.lineages:
            return False
        return not (host.off.contains(now) or self.ca_down.contains(now))

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
        self.reporting.send_renewal(host, name)

    def renew_without_hooks(self, host: Host, name: str) -> None:
        """Renew a lineage by another script: no hook is started."""
        if self.can_issue(host, name):
            self.issue(host, name, self.calendar.now)

    def delete(self, host: Host, name: str) -> None:
        """Delete a lineage with `certbot delete`; another one may be created instead."""
        now = self.calendar.now
        if name not in host.lineages or len(host.lineages) == 1 or host.off.contains(now):
            return
        self.remove_lineage(host, name, now)
        if host.random_source.random() < frequencies.REPLACED_AFTER_DELETION:
            self.add_lineage(host, now)

    def clone(self, host: Host) -> None:
        """Start a copy of a host, with its certificates and known file, under its own name."""
        if host.gone:
            return
        copy = self.add_host(f"{host.tag}-copy")
        self.start_timer(copy)
        for name, lineage in host.lineages.items():
            copy.lineages[name] = Lineage(
                names=lineage.names,
                lifetime=lineage.lifetime,
                backdated=lineage.backdated,
                broken=lineage.broken,
                random_source=self.randomness.of("copy", host.number, name),
                certificate=lineage.certificate,
                archive=list(lineage.archive),
                renew_by=lineage.renew_by,
            )
            self.truth.certificate_begins(
                copy.subject(name), lineage.certificate, self.calendar.now
            )
        for file in host.folder.iterdir():
            (copy.folder / file.name).write_bytes(file.read_bytes())

    def rebuild(self, host: Host) -> None:
        """Set a host up again, without its disk.

        It gets new certificates for some lineages. The administrator retires the others.
        """
        now = self.calendar.now
        if host.gone or host.off.contains(now):
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
        for file in host.folder.iterdir():
            file.unlink()

        if host.runs_hooks_at_issuance:
            for name in host.lineages:
                self.reporting.send_renewal(host, name)
        if dropped:
            retired_at = now + host.random_source.random() * 2 * HOUR
            self.calendar.schedule(retired_at, self.reporting.retire, host, host.tag, dropped)

    def retire(self, host: Host) -> None:
        """Remove a host for good.

        Half of the administrators retire it ten minutes later, the others when the alert fires:
        until then, its silence is an incident.
        """
        if host.gone:
            return
        now = self.calendar.now
        lineages = list(host.lineages)
        if host.random_source.random() < frequencies.RETIRED_AT_ONCE:
            retired_at = now + 600
        else:
            retired_at = now + (SILENCE + host.random_source.random() * DAY)
            silent_since = self.truth.last_run.get(host.tag, now) + SILENCE
            self.truth.silent.append(Incident(Subject(host.tag), silent_since, retired_at))
        for name in lineages:
            self.remove_lineage(host, name, now)
        self.truth.failing_ends(host.tag, now)
        host.gone = True
        self.calendar.schedule(retired_at, self.reporting.retire, self.hosts[0], host.tag, lineages)


def backdated(moment: float, kind: str) -> int:
    """Return notBefore of a certificate issued at a moment; `kind`: a key of BACKDATED."""
    if kind == "hour":
        return int(moment) - HOUR
    return int(moment) // DAY * DAY
