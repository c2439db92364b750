"""A fleet of hosts over a simulated year: what certbot does on them, what goes wrong, what the hook's own code reports, and the truth.

Times are Unix seconds. Every sequence of chances has its own seed, so that the same year befalls every way of reporting and judging.
How often things go wrong is on top; the numbers are guesses from the experience of administrators, rather too many than too few.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import random
import unittest.mock
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certbot_renewal_report as hook
from tools.servers.lineages import DAY

HOUR = 3600
BEGIN = 1_735_689_600  # 2025-01-01 00:00 UTC: a year that is over, since VictoriaMetrics drops what is from the future
LIFETIMES = ((90 * DAY, 0.7), (64 * DAY, 0.1), (45 * DAY, 0.12), (160 * HOUR, 0.08))

# A year of a host, or of a lineage, or of the whole: (how often, shortest and longest, seconds).
HOST_OFF = (0.4, 12 * HOUR, 8 * DAY)
TIMER_OFF = (
    0.25,
    2 * DAY,
    45 * DAY,
)  # certbot is not started: package removed, timer disabled, cron broken
LINEAGE_BROKEN = (0.12, 6 * HOUR, 35 * DAY)  # its challenge fails, until somebody mends it
RATE_LIMITED = (0.05, 2 * HOUR, 7 * DAY)
CA_OUTAGE = (5, HOUR, 36 * HOUR)
INFLUXDB_DOWN = (14, 10 * 60, 12 * HOUR)
INFLUXDB_AWAY = (1.0, DAY, 30 * DAY)
KAPACITOR_DOWN = (25, 60, 6 * HOUR)
REPORT_LOST = 0.02  # not delivered within the hook's ten seconds, because the network is away
NETWORK_AWAY = (10, 24 * HOUR)  # shortest and longest, seconds, spread over the orders of magnitude
PATIENCE = 24 * HOUR  # of run reports, as the README has it
REPORT_REPEATED = 0.02
RENEWED_BY_HAND = 0.4  # a year and lineage; half of them with other names
RENEWED_PAST_HOOKS = 0.15
DELETED = 0.1
CREATED = 0.1
BROUGHT_FORWARD = 0.3  # by the CA (ARI), by up to ten days
CLONED = 0.03  # a year and host
REBUILT = 0.05
RETIRED = 0.05


@dataclass
class Span:
    """From when to when; open ends are the end of the year."""

    begin: float
    end: float
    of: tuple[str, ...]  # host tag, and lineage
    expiry: float = 0.0  # of the certificate that is overdue


class Spans:
    """Moments at which something is so: asked by time."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        joined: list[list[float]] = []
        for begin, end in sorted(spans):
            if joined and begin <= joined[-1][1]:
                joined[-1][1] = max(end, joined[-1][1])
            else:
                joined.append([begin, end])
        self.begins, self.ends = [begin for begin, _ in joined], [end for _, end in joined]

    def end_of(self, moment: float) -> float:
        """When the span around a moment ends; 0 where there is none."""
        at = bisect_right(self.begins, moment) - 1
        return self.ends[at] if at >= 0 and moment < self.ends[at] else 0.0

    def length_within(self, begin: float, end: float) -> float:
        """For how many of the seconds between two moments it is so."""
        return sum(max(0.0, min(end, e) - max(begin, b)) for b, e in zip(self.begins, self.ends))


def chances(
    of: random.Random, rate: tuple[float, float, float], days: float
) -> list[tuple[float, float]]:
    """Spans of a year, or of so many days, most of them short: their lengths spread evenly over the orders of magnitude."""
    often, shortest, longest = rate
    spans = []
    moment = BEGIN + of.expovariate(often / (365 * DAY))
    while moment < BEGIN + days * DAY:
        length = shortest * (longest / shortest) ** of.random()
        spans.append((moment, moment + length))
        moment += length + of.expovariate(often / (365 * DAY))
    return spans


@dataclass
class Lineage:
    """A lineage on a host: its certificate, those before it in archive/, and when its renewals fail."""

    names: list[str]
    lifetime: int
    backdated: str  # by the CA: "hour" or "midnight"
    fails: Spans
    chance: random.Random
    certificate: hook.Certificate
    archive: list[hook.Certificate] = field(default_factory=list)
    forward: float = 0.0  # when the CA wants it renewed at the latest


@dataclass
class Host:
    """A host: `tag` is what it calls itself, `folder` is certbot's configuration folder, `skew` what its clock is ahead by."""

    number: int
    tag: str
    folder: Path
    skew: int
    telegraf: bool
    first_issuance_known: bool  # certbot 5.3 and newer calls deploy hooks then
    off: Spans
    timer_off: Spans
    chance: random.Random
    network: random.Random
    network_back: float = 0.0  # after the last report that was lost
    turn: int = 0  # of run reports: a later one takes over
    told_turn: int = 0  # the last that the network let out, whether InfluxDB was there or not
    lineages: dict[str, Lineage] = field(default_factory=dict)
    gone: bool = False


class Fleet:
    """The year: `run()` plays it; then `arrivals` are the reports as the database gets them, and the spans are the truth."""

    def __init__(
        self, seed: int, certificates: int, days: int, run_reports: bool, folder: Path
    ) -> None:
        self.seed, self.days, self.run_reports, self.folder = seed, days, run_reports, folder
        self.end = BEGIN + days * DAY
        self.hosts: list[Host] = []
        self.folders: dict[str, Host] = {}
        self.events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.lineage_numbers = (
            itertools.count()
        )  # numbers of their own: reports must not change what befalls a lineage
        self.arrivals: list[tuple[float, list[str]]] = []
        self.published: list[
            tuple[float, list[str]]
        ] = []  # what arrives of the published hook, which is a deploy hook
        self.certificates: dict[tuple[str, str], list[tuple[float, hook.Certificate | None]]] = (
            defaultdict(list)
        )  # since when which
        self.overdue: list[Span] = []
        self.failing: list[Span] = []
        self.silent: list[Span] = []
        self.delivered: dict[str, list[tuple[float, float]]] = defaultdict(
            list
        )  # run reports, by host tag: made, arrived
        self.last_run: dict[int, float] = {}  # that could be told of
        self.fails_since: dict[str, float] = {}
        self.under_way: list[str] = []
        self.lost = self.refused = False  # the report on its way, by the network or by anything
        self.now = float(BEGIN)
        chance = self.chance("whole")
        away = chances(chance, INFLUXDB_AWAY, days)
        self.influxdb_down = Spans(chances(chance, INFLUXDB_DOWN, days) + away)
        self.kapacitor_down = Spans(chances(chance, KAPACITOR_DOWN, days))
        self.ca_down = Spans(chances(chance, CA_OUTAGE, days))
        while sum(len(host.lineages) for host in self.hosts) < certificates:
            self.add_host()

    def chance(self, *of: object) -> random.Random:
        """Chances of their own for each thing."""
        return random.Random(f"{self.seed} {of}")

    def at(self, moment: float, what: Callable[..., None], *of: Any) -> None:
        """Plans an event."""
        if moment < self.end:
            heapq.heappush(self.events, (moment, next(self.order), what, of))

    # ---- Hosts and lineages ------------------------------------------------------------------------------------------
    def add_host(self, tag: str = "") -> Host:
        """A host with its timer, and at first with one to ten lineages."""
        number = len(self.hosts)
        chance = self.chance("host", number)
        host = Host(
            number=number,
            tag=tag or f"host{number}",
            folder=self.folder / f"host{number}",
            skew=chance.randint(-300, 300) if chance.random() < 0.1 else 0,
            telegraf=chance.random() < 0.3,
            first_issuance_known=chance.random() < 0.5,
            off=Spans(chances(chance, HOST_OFF, self.days)),
            timer_off=Spans(chances(chance, TIMER_OFF, self.days)),
            chance=chance,
            network=self.chance("network", number),
        )
        host.folder.mkdir(parents=True, exist_ok=True)
        self.hosts.append(host)
        self.folders[str(host.folder)] = host
        if not tag:
            for _ in range(min(10, int(1 + chance.expovariate(0.28)))):
                self.add_lineage(host, BEGIN - 1 - chance.random())
            self.at(BEGIN + 1, self.install, host)
            for often, what in (
                (CLONED, self.clone),
                (REBUILT, self.rebuild),
                (RETIRED, self.retire),
            ):
                if chance.random() < often * self.days / 365:
                    self.at(BEGIN + chance.random() * self.days * DAY, what, host)
        self.at(self.now + chance.random() * DAY / 2, self.timer, host)
        return host

    def add_lineage(self, host: Host, moment: float) -> str:
        """A lineage, at the beginning of the year somewhere in its life, else new."""
        number = next(self.lineage_numbers)
        chance = self.chance("lineage", number)
        lifetime = chance.choices([life for life, _ in LIFETIMES], [part for _, part in LIFETIMES])[
            0
        ]
        name = f"c{number}.example.com"
        lineage = Lineage(
            names=[
                name,
                *(f"{prefix}.{name}" for prefix in ("www", "mail")[: chance.choice((0, 1, 1, 2))]),
            ],
            lifetime=lifetime,
            backdated=chance.choices(("hour", "midnight"), (0.85, 0.15))[0],
            fails=Spans(
                chances(chance, LINEAGE_BROKEN, self.days)
                + chances(chance, RATE_LIMITED, self.days)
            ),
            chance=chance,
            certificate=hook.Certificate(name, [], 0, 0, 0),
        )
        host.lineages[name] = lineage
        begun = (
            moment
            if moment > BEGIN
            else moment - chance.random() * (hook.due(0, lifetime) - 1.2 * DAY)
        )
        self.issue(host, name, begun)
        if moment > BEGIN and host.first_issuance_known:
            self.deploy_report(host, name)
        for often, what in (
            (RENEWED_BY_HAND, self.renew_by_hand),
            (RENEWED_PAST_HOOKS, self.renew_past_hooks),
            (DELETED, self.delete),
        ):
            if chance.random() < often * self.days / 365:
                self.at(max(moment, BEGIN) + chance.random() * self.days * DAY, what, host, name)
        return name

    def issue(self, host: Host, name: str, moment: float) -> None:
        """A new certificate for a lineage: certbot's archive grows, an overdue renewal ends."""
        lineage = host.lineages[name]
        before = lineage.certificate
        if before.not_before:
            lineage.archive.append(before)
            self.no_longer_overdue(host, name, moment)
        begin = int(moment) - HOUR if lineage.backdated == "hour" else int(moment) // DAY * DAY
        end = begin + lineage.lifetime
        lineage.certificate = hook.Certificate(
            name, list(lineage.names), begin, end, hook.due(begin, end)
        )
        ahead = (
            lineage.chance.random() * 10 * DAY if lineage.chance.random() < BROUGHT_FORWARD else 0.0
        )
        lineage.forward = max(lineage.certificate.renewal_due - ahead, begin + lineage.lifetime / 4)
        self.certificates[host.tag, name].append((moment, lineage.certificate))

    def no_longer_overdue(self, host: Host, name: str, moment: float) -> None:
        """Notes for how long the renewal of a certificate was overdue: a day after it was due, and until now."""
        begin = max(
            host.lineages[name].certificate.renewal_due + DAY,
            self.certificates[host.tag, name][0][0],
        )  # a copy has its own
        if moment > begin:
            self.overdue.append(
                Span(begin, moment, (host.tag, name), host.lineages[name].certificate.not_after)
            )

    def forget(self, host: Host, name: str, moment: float) -> None:
        """A lineage leaves a host."""
        self.no_longer_overdue(host, name, moment)
        self.certificates[host.tag, name].append((moment, None))
        del host.lineages[name]

    # ---- What happens ------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Plays the year."""
        with unittest.mock.patch.multiple(
            hook,
            on_disk=self.on_disk,
            read_certificate=lambda path, lineage, conf="": (
                self.folders[path.partition("/live/")[0]].lineages[lineage].certificate
            ),
            older_certificates=self.older_certificates,
            deliver=self.deliver,
            say=lambda *lines, stream=None: None,
            escaped=functools.lru_cache(None)(hook.escaped),  # most of the time
        ):
            while self.events:
                self.now, _, what, of = heapq.heappop(self.events)
                what(*of)
        for host in self.hosts:
            for name in list(host.lineages):
                self.forget(host, name, self.end)
            self.heard_of(host, self.end)
        for tag, begin in self.fails_since.items():
            self.failing.append(Span(begin, self.end, (tag,)))
        self.arrivals.sort(key=lambda arrival: arrival[0])

    def on_disk(self, folder: str) -> hook.Disk:
        """What stands in for reading certbot's folder."""
        found = [
            lineage.certificate for _, lineage in sorted(self.folders[folder].lineages.items())
        ]
        return hook.Disk({certificate.lineage for certificate in found}, found, {}, [])

    def older_certificates(
        self, folder: str, disk: hook.Disk, after: dict[str, int], faults: list[str]
    ) -> list[hook.Certificate]:
        """What stands in for reading certbot's archive."""
        return [
            old
            for name, of in self.folders[folder].lineages.items()
            for old in of.archive
            if old.not_before > after.get(name, 0)
        ]

    def timer(self, host: Host) -> None:
        """certbot's timer: twice a day, at random; what was missed while the host was off it makes up for when it is on again."""
        if host.gone:
            return
        on_again = host.off.end_of(self.now)
        if on_again:
            self.at(on_again + host.chance.random() * 300, self.timer, host)
            return
        next_half = (self.now - BEGIN) // (DAY / 2) + 1
        self.at(BEGIN + (next_half + host.chance.random()) * DAY / 2, self.timer, host)
        if not host.timer_off.end_of(self.now):
            self.certbot(host)

    def certbot(self, host: Host) -> None:
        """One run: what is due is renewed, or fails; the deploy hook after each renewal, the run report at the end."""
        failed = False
        for name, lineage in list(host.lineages.items()):
            if self.now < min(lineage.certificate.renewal_due, lineage.forward):
                continue
            if self.ca_down.end_of(self.now) or lineage.fails.end_of(self.now):
                failed = True
            else:
                self.issue(host, name, self.now)
                self.deploy_report(host, name)
        if failed:
            self.fails_since.setdefault(host.tag, self.now)
        elif host.tag in self.fails_since:
            self.failing.append(Span(self.fails_since.pop(host.tag), self.now, (host.tag,)))
        if self.run_reports:
            self.run_report(host, 1 if failed else 0)

    def heard_of(self, host: Host, moment: float) -> None:
        """Notes for how long a host was silent: two days after the last run of certbot that its network let it tell of, and until now."""
        begin = self.last_run.get(host.number, moment) + 2 * DAY
        if moment > begin and not host.gone:
            self.silent.append(Span(begin, moment, (host.tag,)))

    def renew_by_hand(self, host: Host, name: str) -> None:
        """Somebody renews a certificate, often with other names: hooks run, but nothing is known of a run."""
        lineage = host.lineages.get(name)
        if not lineage or host.off.end_of(self.now) or self.ca_down.end_of(self.now):
            return
        if lineage.chance.random() < 0.5:
            lineage.names = (
                lineage.names[:1] if len(lineage.names) > 1 else [*lineage.names, f"new.{name}"]
            )
        self.issue(host, name, self.now)
        self.deploy_report(host, name)

    def renew_past_hooks(self, host: Host, name: str) -> None:
        """Another script renews it, and no hook is called."""
        if (
            name in host.lineages
            and not host.off.end_of(self.now)
            and not self.ca_down.end_of(self.now)
        ):
            self.issue(host, name, self.now)

    def delete(self, host: Host, name: str) -> None:
        """`certbot delete`; as often another certificate comes."""
        if name in host.lineages and len(host.lineages) > 1 and not host.off.end_of(self.now):
            self.forget(host, name, self.now)
            if host.chance.random() < CREATED / DELETED:
                self.add_lineage(host, self.now)

    def clone(self, host: Host) -> None:
        """A copy of a host, with its certificates and the hook's own file, goes on under a name of its own."""
        if host.gone:
            return
        copy = self.add_host(f"{host.tag}-copy")
        for name, lineage in host.lineages.items():
            chance = self.chance("copy", host.number, name)
            copy.lineages[name] = Lineage(
                lineage.names,
                lineage.lifetime,
                lineage.backdated,
                lineage.fails,
                chance,
                lineage.certificate,
                list(lineage.archive),
            )
            copy.lineages[name].forward = lineage.forward
            self.certificates[copy.tag, name].append((self.now, lineage.certificate))
        for file in host.folder.iterdir():
            (copy.folder / file.name).write_bytes(file.read_bytes())

    def rebuild(self, host: Host) -> None:
        """A host is set up anew, without its disk. Some certificates come again; the administrator says of the others that they ended."""
        if host.gone or host.off.end_of(self.now):
            return
        dropped = []
        for name, lineage in list(host.lineages.items()):
            if host.chance.random() < 0.3 and len(host.lineages) > 1:
                self.forget(host, name, self.now)
                dropped.append(name)
            else:
                lineage.archive.clear()
                self.issue(host, name, self.now)
                lineage.archive.clear()
        for file in host.folder.iterdir():
            file.unlink()
        for name in host.lineages:
            if host.first_issuance_known:
                self.deploy_report(host, name)
        if dropped:
            self.at(
                self.now + host.chance.random() * 2 * HOUR, self.say_ended, host, host.tag, dropped
            )

    def retire(self, host: Host) -> None:
        """A host is gone for good. Half of the administrators say so ten minutes later, the others when the alarm asks them to."""
        if host.gone:
            return
        names = list(host.lineages)
        later = 600.0 if host.chance.random() < 0.5 else 2 * DAY + host.chance.random() * DAY
        if later > 600:
            self.silent.append(
                Span(
                    self.last_run.get(host.number, self.now) + 2 * DAY,
                    self.now + later,
                    (host.tag,),
                )
            )
        for name in names:
            self.forget(host, name, self.now)
        if host.tag in self.fails_since:
            self.failing.append(Span(self.fails_since.pop(host.tag), self.now, (host.tag,)))
        host.gone = True
        self.at(self.now + later, self.say_ended, self.hosts[0], host.tag, names)

    # ---- Reports -----------------------------------------------------------------------------------------------------
    def settings(self, host: Host, tag: str = "") -> hook.Settings:
        """The hook's settings on a host."""
        return hook.Settings("", 2, "bucket", "", "", 10, "certbot_renewal", tag or host.tag, {})

    def deploy_report(self, host: Host, name: str) -> None:
        """The deploy hook, a moment after a renewal."""
        environ = {
            "RENEWED_LINEAGE": f"{host.folder}/live/{name}",
            "RENEWED_DOMAINS": " ".join(host.lineages[name].names),
        }
        clock = int(self.now) + 5 + host.skew
        arrives = self.sent(
            host, lambda: hook.deploy_report(self.settings(host), environ, str(host.folder), clock)
        )
        if arrives:
            self.published.append(
                (
                    arrives,
                    hook.renewal_points(
                        self.settings(host), name, host.lineages[name].names, clock
                    )[1:],
                )
            )

    def run_report(self, host: Host, exit_status: int) -> None:
        """The run report, a minute after certbot began."""
        host.turn += 1
        self.run_report_tried(host, exit_status, host.turn, self.now + PATIENCE)

    def run_report_tried(self, host: Host, exit_status: int, turn: int, until: float) -> None:
        """One try of it. Without success there is another one, at most five minutes after the network and InfluxDB are there again, if
        the host is not switched off in between."""
        if turn != host.turn or host.gone:
            return
        environ, clock = {"EXIT_STATUS": str(exit_status)}, int(self.now) + 60 + host.skew
        arrives = self.sent(
            host,
            lambda: hook.run_report(
                self.settings(host), environ, str(host.folder), clock, False, False
            ),
        )
        if host.told_turn != turn and not self.lost:
            host.told_turn = turn
            self.heard_of(host, self.now)
            self.last_run[host.number] = self.now
        again = (
            max(host.network_back, self.influxdb_down.end_of(self.now))
            + host.network.random() * 300
        )
        if arrives:
            self.delivered[host.tag].append((self.now, arrives))
        elif again < until and not host.off.length_within(self.now, again):
            self.at(again, self.run_report_tried, host, exit_status, turn, until)

    def install(self, host: Host) -> None:
        """`--check` at the installation, as the README has it, repeated by the administrator until it succeeds."""
        if host.gone:
            return
        away = max(host.off.end_of(self.now), self.influxdb_down.end_of(self.now))
        if away:
            self.at(away + HOUR, self.install, host)
            return
        self.under_way, self.refused = [], False
        disk, clock = self.on_disk(str(host.folder)), int(self.now) + host.skew
        run_reports = hook.known_lineages(str(host.folder), []) is not None  # when it came late
        hook.send(
            self.settings(host),
            hook.report_of(self.settings(host), disk, clock, run_reports),
            str(host.folder),
        )
        self.arrivals.append((self.now + 1, self.under_way))

    def say_ended(self, host: Host, tag: str, names: list[str]) -> None:
        """`--retire`, repeated by the administrator until it succeeds."""
        if self.influxdb_down.end_of(self.now):
            self.at(self.influxdb_down.end_of(self.now) + HOUR, self.say_ended, host, tag, names)
            return
        lines = hook.end_points(self.settings(host, tag), names, int(self.now))
        self.arrivals.append((self.now + 1, lines))

    def sent(self, host: Host, report: Callable[[], hook.Report]) -> float:
        """A report on its way: lost, repeated, or late, with Telegraf in between; the hook keeps what it knows of the outcome.
        Returns when it arrives, or 0."""
        self.lost, length = host.network.random() < REPORT_LOST, host.network.random()
        if self.lost:
            host.network_back = (
                self.now + NETWORK_AWAY[0] * (NETWORK_AWAY[1] / NETWORK_AWAY[0]) ** length
            )
        repeated = host.network.random() < REPORT_REPEATED
        late = host.network.random()
        down = self.influxdb_down.end_of(self.now)
        self.under_way, self.refused = [], self.lost or bool(down and not host.telegraf)
        made = report()
        hook.send(self.settings(host), made, str(host.folder))
        if self.refused:
            return 0.0
        arrives = self.now + (60 + late * 20 if host.telegraf else 61)
        if down:  # Telegraf kept it, with those before it, and gives them all on in their order
            arrives = down + self.chance("telegraf", host.number, down).random() * HOUR
        self.arrivals.append((arrives, self.under_way))
        if repeated:
            self.arrivals.append((arrives + late * 6 * HOUR, self.under_way))
        return arrives

    def deliver(self, settings: hook.Settings, lines: Sequence[str], droppable: int) -> hook.Answer:
        """What stands in for the network."""
        if self.refused:
            return hook.Answer("lost")
        self.under_way.extend(lines)
        return hook.Answer()
