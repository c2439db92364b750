"""The rules on real VictoriaMetrics, Prometheus and Alertmanager, with a real mail server: who gets a mail, when, and how often."""

from __future__ import annotations

import contextlib
import datetime
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hooks import CRON, start_run_report
from support.points import LIVES, delivery, run_point, state
from support.servers import skip_or_fail
from tools.servers.certbot import Certbot, start_pebble
from tools.servers.kapacitor import Inbox, start_inbox
from tools.servers.lineages import DAY, make_lineage
from tools.servers.processes import MissingServer, free_port, installed_program, wait_for
from tools.servers.prometheus import (
    Program,
    Prometheus,
    VictoriaMetrics,
    start_alertmanager,
    start_prometheus,
    start_victoria_metrics,
    start_vmagent,
    start_vmalert,
)

PROMETHEUS = Path(__file__).resolve().parent.parent / "prometheus"
OFTEN = "-rule.resendDelay=3s"  # so that an alert holds for 12 s without VictoriaMetrics, and a new Alertmanager knows it after 3


def rules(folder: Path, interval: str = "200ms", crit: str = "1") -> Path:
    """A copy of the rules that are looked at more often, and `crit`."""
    text = (
        (PROMETHEUS / "rules.yml")
        .read_text()
        .replace("expr: vector(1)\n", f"expr: vector({crit})\n", 1)
    )
    copy = folder / "rules.yml"
    copy.write_text(re.sub(r"(?m)^    interval: .*$", f"    interval: {interval}", text))
    return copy


def config() -> str:
    """Alertmanager's configuration, with shorter times."""
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    return text.replace("group_wait: 30s", "group_wait: 500ms").replace(
        "group_interval: 5m", "group_interval: 300ms"
    )


class Street:
    """A VictoriaMetrics, a vmalert, an Alertmanager and an inbox that a test may stop and start again, each with its data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, (free_port(), free_port())
        self.stacks = {
            what: contextlib.ExitStack()
            for what in ("vmalert", "alertmanager", "victoria", "inbox")
        }
        self.rules, self.flags, self.box = rules(folder), [OFTEN], Inbox()

    def start(self, *what: str) -> None:
        """Starts some of them, in this order."""
        for name in what:
            getattr(self, f"start_{name}")()

    def start_inbox(self) -> None:
        """Starts the mail server."""
        self.stacks["inbox"].enter_context(start_inbox(self.box))

    def start_victoria(self) -> None:
        """Starts VictoriaMetrics."""
        running = start_victoria_metrics(self.folder / "victoria", self.ports[0])
        self.victoria: VictoriaMetrics = self.stacks["victoria"].enter_context(running)

    def start_alertmanager(self) -> None:
        """Starts Alertmanager."""
        running = start_alertmanager(
            self.folder / "alertmanager", config(), self.box, self.ports[1]
        )
        self.alertmanager: Program = self.stacks["alertmanager"].enter_context(running)

    def start_vmalert(self) -> None:
        """Starts vmalert."""
        urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        running = start_vmalert(self.folder / "vmalert", self.rules, *urls, *self.flags)
        self.vmalert: Program = self.stacks["vmalert"].enter_context(running)

    def stop(self, *what: str) -> None:
        """Stops some of them."""
        for name in what:
            self.stacks[name].close()

    def write(self, *lines: str) -> None:
        """Stores points."""
        self.victoria.write("\n".join(lines))

    def evaluated(self, times: int = 2) -> None:
        """Waits until all rules were evaluated so many times more, from beginning to end."""
        count = ("vmalert_iteration_total", 'group="certbot_renewal"')
        first = self.vmalert.number(*count)
        wait_for(lambda: self.vmalert.number(*count) > first + times, f"{times} evaluations")

    def alerts(self) -> set[str]:
        """What Alertmanager knows to be firing: `alertname host lineage target`."""
        labels = (alert["labels"] for alert in self.alertmanager.api("/api/v2/alerts"))
        return {
            " ".join(
                found[name] for name in ("alertname", "host", "lineage", "target") if name in found
            )
            for found in labels
        }

    def told(self, number: int) -> bool:
        """Whether VictoriaMetrics knows that so many hosts were told of as silent."""
        self.victoria.flush()
        return (
            len(
                self.victoria.query(
                    'ALERTS{alertname="host_silent", alertstate="firing", host=~"web."}'
                )
            )
            == number
        )

    def looked(self) -> None:
        """Waits until what is known was evaluated, and Alertmanager has seen twice what of it is to be told."""
        self.evaluated()
        wait_for(self.alerts, "an alert")
        self.tells()

    def tells(self, times: int = 2) -> None:
        """Waits until Alertmanager has seen so many times what of the alerts is to be told."""
        groups = self.alertmanager.number("alertmanager_dispatcher_aggregation_groups")
        seen = self.alertmanager.number("alertmanager_nflog_queries_total")
        wait_for(
            lambda: (
                self.alertmanager.number("alertmanager_nflog_queries_total")
                >= seen + times * groups
            ),
            "looks of Alertmanager",
        )

    def mails(self, number: int) -> list[str]:
        """What the next mails are about, sorted; waits for so many."""
        return sorted(self.box.read() for _ in range(number))


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    """All of them, running."""
    street = Street(tmp_path)
    try:
        street.start("inbox", "victoria", "alertmanager", "vmalert")
        yield street
    except MissingServer as error:
        skip_or_fail(error)
    finally:
        street.stop(*street.stacks)


def reported(host: str, at: int, lineage: str = "a", due: int | None = None) -> str:
    """A certificate that is not due for a day, or when it is, in a run report."""
    return state(
        lineage, int(time.time()) + DAY if due is None else due, host=host, run_at=at, at=at
    )


def text_of(box: Inbox, subject: str) -> str:
    """The text of the last mail with this subject."""
    mail = next(mail for mail in reversed(box.mails) if mail["Subject"] == subject)
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def test_amtool_takes_the_configuration() -> None:
    try:
        program = installed_program("amtool", "prometheus-alertmanager")
    except MissingServer as error:
        skip_or_fail(error)
    done = subprocess.run(
        [program, "check-config", str(PROMETHEUS / "alertmanager.yml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_overdue_certificate_is_one_mail_and_its_recovery_another(street: Street) -> None:
    now = int(time.time())
    overdue, due, at = now - DAY - 60, now - 36 * 3600, now - 30
    street.write(
        *(
            state("late", overdue, host=f"late-{name}", life=life, at=at)
            for name, life in LIVES.items()
        ),
        *(
            state("quiet", overdue + 600, host=f"quiet-{name}", life=life)
            for name, life in LIVES.items()
        ),
        state("evidence-quiet", due, host="b", run_at=due + DAY - 60),
        state("evidence-late", due, host="c", run_at=due + DAY),
        state("expired", now - 40 * DAY, host="d", at=at),
        state("ended", 0, host="e"),
        # A state that was renewed, and then again an older one that arrives late: the newer one counts.
        state("late-arrival", now + 60 * DAY, host="f", at=now - 10),
        state("late-arrival", overdue, host="f", at=now - 20),
        # A tag came with the renewal: the series from before is never written to again.
        state("tagged", overdue, host="g", run_at=now - 90, at=now - 90),
        state("tagged", now + 60 * DAY, host="g", run_at=now - 60, at=now - 60).replace(
            " ", ",dc=north ", 1
        ),
        # What the published hook wrote, and what somebody else did.
        f"certbot_renewal,domain=all,host=h renewed_count=2 {now - 80 * DAY}",
        f"certbot_renewal,domain=all,host=h,lineage=due-only renewal_due=5i {now - DAY}",
        f"certbot_renewal,domain=all renewal_due=5i,not_after=5i,run_at=0i {now - DAY}",
    )
    overdue_ones = {
        **{f"late-{name}": "late" for name in LIVES},
        "c": "evidence-late",
        "d": "expired",
    }
    found = street.mails(len(overdue_ones))
    assert found == sorted(
        f"[critical] {host}: renewal_overdue, 1 firing: {lineage}"
        for host, lineage in overdue_ones.items()
    )
    late, expired = (
        text_of(street.box, "[critical] late-90d: renewal_overdue, 1 firing: late"),
        text_of(street.box, "[critical] d: renewal_overdue, 1 firing: expired"),
    )
    assert re.match(
        r"critical: late on late-90d: not renewed, due since 20\S+ .*, 29\.0 days left\n\nWhat to try first, on that host, as root: ",
        late,
    )
    assert (
        "certbot renew --cert-name late --dry-run" in late
        and "/prometheus.md#renewal_overdue" in late
    )
    assert ", expired\n" in expired
    street.looked()

    street.write(
        *(state("late", now + 30 * DAY, host=f"late-{name}") for name in LIVES),
        state("expired", 0, host="d"),
    )
    assert street.mails(len(LIVES) + 1) == sorted(
        [
            "[resolved] d: renewal_overdue, 1 resolved: expired",
            *(f"[resolved] late-{name}: renewal_overdue, 1 resolved: late" for name in LIVES),
        ]
    )
    assert (
        text_of(street.box, "[resolved] d: renewal_overdue, 1 resolved: expired").strip()
        == "resolved: renewal_overdue of expired on d"
    )
    street.looked()
    assert street.box.unread() == []


def test_what_is_overdue_on_a_host_is_one_mail_and_one_more_when_another_is(street: Street) -> None:
    now, many = int(time.time()), [f"many{number}" for number in range(7)]
    at = now - 30
    street.write(
        *(state(lineage, now - 2 * DAY, at=at) for lineage in many),
        state("fine", now + DAY),
        state("alone", now - 2 * DAY, "web2"),
    )
    five = " ".join(many[:5])
    assert street.mails(2) == [
        f"[critical] web1: renewal_overdue, 7 firing: {five} ...",
        "[critical] web2: renewal_overdue, 1 firing: alone",
    ]
    street.write(state("another", now - DAY - 60, at=at))
    assert street.mails(1) == [
        f"[critical] web1: renewal_overdue, 8 firing: another {' '.join(many[:4])} ..."
    ]
    assert text_of(street.box, street.box.subjects()[-1]).count("\ncritical: ") == 7
    street.write(*(state(lineage, now + 60 * DAY, at=at + 10) for lineage in many[1:]))
    assert street.mails(1) == [
        f"[critical] web1: renewal_overdue, 2 firing: another many0; 6 resolved: {' '.join(many[1:6])} ..."
    ]
    street.write(*(state(lineage, now + 60 * DAY, at=at + 10) for lineage in ("many0", "another")))
    assert street.mails(1) == ["[resolved] web1: renewal_overdue, 2 resolved: another many0"]
    street.looked()
    assert street.box.unread() == []


def test_a_host_that_fails_or_is_silent_is_one_mail_and_its_recovery_another(
    street: Street,
) -> None:
    now = int(time.time())
    long_ago, well = now - 49 * 3600, ("well", "failed", "error", "unreadable", "pair", "more")
    street.write(
        *(reported(host, now - 60) for host in well),
        *(reported(host, now - 25 * 3600) for host in well),  # most are heard
        *(reported(host, long_ago) for host in ("silent", "retired")),
        reported(
            "pair", long_ago, lineage="b"
        ),  # another container with the same host tag, which stopped
        state("a", now + DAY, host="deploy-hook-only", at=now - 50 * DAY),
        *(
            run_point(host, now - 25 * 3600, exit_status=0)
            for host in ("well", "failed", "error", "unreadable", "pair")
        ),
        *(run_point(host, now - 60, exit_status=0) for host in ("well", "pair")),
        run_point("failed", now - 60, failed="a b", exit_status=1),
        run_point("error", now - 60, exit_status=143),
        run_point("unreadable", now - 60, unreadable="c", exit_status=0),
    )
    silent, failing = ("pair", "retired", "silent"), ("error", "failed", "unreadable")
    assert street.mails(6) == sorted(
        [
            *(f"[critical] {host}: host_silent, 1 firing" for host in silent),
            *(f"[warning] {host}: renewal_failing, 1 firing" for host in failing),
        ]
    )
    assert "failed: certbot fails, 2 not renewed, exit status 1\n" in text_of(
        street.box, "[warning] failed: renewal_failing, 1 firing"
    )
    assert "unreadable: certbot fails, 1 unreadable\n" in text_of(
        street.box, "[warning] unreadable: renewal_failing, 1 firing"
    )
    assert "silent: no report of certbot for 2.0 days\n" in text_of(
        street.box, "[critical] silent: host_silent, 1 firing"
    )
    street.looked()
    street.write(
        *(run_point(host, now - 10, exit_status=-1) for host in failing),
        *(reported(host, now - 10) for host in ("silent", "pair")),
    )
    street.write(reported("retired", now - 10, due=0), reported("pair", now - 10, "b"))
    assert street.mails(6) == sorted(
        [
            *(f"[resolved] {host}: host_silent, 1 resolved" for host in silent),
            *(f"[resolved] {host}: renewal_failing, 1 resolved" for host in failing),
        ]
    )
    street.evaluated()
    assert street.alerts() == set() and street.box.unread() == []


def test_hosts_that_are_silent_together_are_one_mail(street: Street) -> None:
    now, hosts = int(time.time()), [f"web{number}" for number in range(5)]
    # web0 stopped first, and was told of; then VictoriaMetrics was away for three days.
    street.write(
        reported("web0", now - 6 * DAY), *(reported(host, now - 3 * DAY) for host in hosts[1:])
    )
    assert street.mails(1) == ["[critical] (most hosts): host_silent, 1 firing"]
    street.looked()
    street.write(*(reported(host, now - 30) for host in hosts[1:4]))
    assert street.mails(1) == ["[resolved] (most hosts): host_silent, 1 resolved"]
    street.evaluated()
    assert (
        street.alerts() == set()
    )  # nothing yet of web0 and web4, which may have had no run of certbot
    # As a day later.
    street.write(
        *(reported(host, now - 26 * 3600) for host in hosts[1:4]),
        *(reported(host, now - 13 * 3600) for host in hosts[1:4]),
    )
    assert street.mails(2) == [
        "[critical] web0: host_silent, 1 firing",
        "[critical] web4: host_silent, 1 firing",
    ]
    wait_for(lambda: street.told(2), "what vmalert notes")
    street.write(
        *(reported(f"more{number}", now - 3 * DAY) for number in range(6))
    )  # most are silent again
    assert street.mails(1) == ["[critical] (most hosts): host_silent, 1 firing"]
    street.looked()
    assert street.box.unread() == []  # web0 and web4 stay told of


def other_served(lineage: str, begin: int, expiry: int, at: int) -> str:
    """The state of a certificate in place of which another one is served, which expires then; 0: the right one is."""
    begins = state(lineage, begin + 60 * DAY, run_at=at, at=at).rpartition(" ")[0]
    return f"{begins},looked_at={at}i,seen_at={at}i,served_expiry={expiry}i {at}"


def test_a_delivery_that_fails_is_a_warning_then_urgent_and_gets_well_with_one_mail(
    street: Street,
) -> None:
    now = int(time.time())
    old, new, at = now - 62 * DAY, now - 2 * DAY, now - 30
    street.write(
        state("a", new + 60 * DAY),
        delivery("edge", old, new, at=at),
        delivery(
            "expired", old, now - 60, at=at, life=61
        ),  # renewed a minute ago, but nothing good is there
        delivery("fresh", now - 60 * DAY, now - DAY + 600, life=61),  # its day of grace is not over
        delivery("never", 0, new, at=at),
        delivery("fine", new, new),
        other_served("s", new, now + 28 * DAY, at),
        other_served("u", now - 60, now - DAY, at),
        other_served("v", now - DAY + 600, now + DAY, at),
        other_served("w", new, 0, at),
    )
    assert street.mails(2) == [
        "[critical] web1: certificate_not_delivered, 3 firing: a/edge a/never a/expired",
        "[critical] web1: certificate_not_served, 2 firing: s u",
    ]
    text = text_of(
        street.box, "[critical] web1: certificate_not_delivered, 3 firing: a/edge a/never a/expired"
    )
    assert (
        "critical: a on web1: not delivered to expired, renewed 0.0 days before the last report, what it has expires 20"
        in text
    )
    street.looked()
    # A day later, the days that are left are few.
    street.write(
        delivery("edge", old, new, at=at + 10, life=65),
        other_served("s", new, now + 2 * DAY, at + 10),
    )
    assert (
        street.mails(2)
        == [
            "[critical] web1: certificate_not_delivered, 3 firing: a/never a/edge a/expired",  # the warning of edge is muted
            "[critical] web1: certificate_not_served, 2 firing: s u",
        ]
    )
    street.looked()
    street.write(
        *(delivery(target, new, new, at=at + 20) for target in ("edge", "never")),
        delivery("expired", 0, 0, at=at + 20),
        *(other_served(lineage, new, 0, at + 20) for lineage in "su"),
    )
    assert (
        street.mails(2)
        == [
            "[resolved] web1: certificate_not_delivered, 4 resolved: a/edge a/never a/edge a/expired",  # the first is the warning
            "[resolved] web1: certificate_not_served, 3 resolved: s s u",
        ]
    )
    street.evaluated()
    assert street.alerts() == set() and street.box.unread() == []


def test_restarts_and_outages_make_no_mail(street: Street) -> None:
    now = int(time.time())
    street.write(
        state("late", now - 2 * DAY, at=now - 30),
        state("fine", now + DAY),
        state("late", now - 2 * DAY, "web2", at=now - 30),
    )
    assert street.mails(2) == [
        f"[critical] web{number}: renewal_overdue, 1 firing: late" for number in (1, 2)
    ]
    for what in (["alertmanager"], ["victoria"], ["vmalert", "alertmanager", "victoria"]):
        street.stop(*what)
        street.start(*reversed(what))
        wait_for(lambda: len(street.alerts()) == 2, "the alerts")
        street.looked()
    assert street.box.unread() == []

    street.stop("inbox")
    street.write(state("late", now + 60 * DAY), state("other", now - 2 * DAY, host="web2"))
    tries = "alertmanager_notification_requests_failed_total"
    wait_for(lambda: street.alertmanager.number(tries) > 3, "mails that fail")
    street.start("inbox")
    assert street.mails(2) == [
        "[critical] web2: renewal_overdue, 2 firing: late other",
        "[resolved] web1: renewal_overdue, 1 resolved: late",
    ]
    street.looked()
    assert street.box.unread() == []


DAY_LONG = "-rule.resendDelay=8h"  # as the manual says


def test_without_the_flag_an_outage_looks_like_a_recovery(street: Street) -> None:
    """What the next test is about: an alert holds for four of the rules' intervals, an hour of their 15 minutes."""
    street.stop("vmalert")
    street.flags = []
    street.start("vmalert")
    street.write(state("late", int(time.time()) - 2 * DAY))
    street.mails(1)
    street.stop("victoria")
    assert street.mails(1) == ["[resolved] web1: renewal_overdue, 1 resolved: late"]


def test_with_the_flag_an_outage_of_a_day_makes_no_mail(street: Street) -> None:
    street.stop("vmalert")
    street.flags = [DAY_LONG]
    street.start("vmalert")
    now = int(time.time())
    street.write(state("late", now - 2 * DAY, at=now - 30))
    street.mails(1)
    (alert,) = street.alertmanager.api("/api/v2/alerts")
    ends = datetime.datetime.fromisoformat(alert["endsAt"].replace("Z", "+00:00")).timestamp()
    assert ends >= now + (24 + 8) * 3600  # also when it was about to be sent again
    for away in (["victoria"], ["vmalert", "victoria"]):
        street.stop(*away)
        street.tells(4)  # takes longer than four intervals
        street.start(*reversed(away))
        street.looked()
    # A new Alertmanager would know nothing for hours: so vmalert is started anew with it.
    street.stop("alertmanager", "vmalert")
    street.start("alertmanager", "vmalert")
    street.looked()
    assert street.box.unread() == []
    street.write(state("late", now + 60 * DAY))
    assert street.mails(1) == ["[resolved] web1: renewal_overdue, 1 resolved: late"]


LIFE, CRIT = 12, 2  # seconds: due after 6, overdue after 2 more


def test_a_certificate_that_certbot_did_not_renew_in_time(street: Street) -> None:
    street.stop("vmalert")
    street.rules = rules(street.folder, crit=f"{CRIT / DAY:.9f}")
    street.start("vmalert")
    with contextlib.ExitStack() as stack:
        try:
            authority = stack.enter_context(start_pebble(street.folder / "pebble", LIFE))
        except MissingServer as error:
            skip_or_fail(error)
        certbot = Certbot(street.folder / "letsencrypt", authority)
        certbot.settings({**street.victoria.settings(), "HOSTNAME": "web1"})
        assert certbot.issue("example.com", "example.com").returncode == 0
        begin = certbot.not_before("example.com")
        assert street.mails(1) == ["[critical] web1: renewal_overdue, 1 firing: example.com"]
        assert time.time() >= begin + LIFE / 2 + CRIT - 1
        certbot.shell(CRON)
        assert street.mails(1) == ["[resolved] web1: renewal_overdue, 1 resolved: example.com"]


@contextlib.contextmanager
def prometheus_of(street: Street, port: int) -> Iterator[Prometheus]:
    """Prometheus instead of VictoriaMetrics and vmalert, as the manual has it. It finds its Alertmanager five seconds after its start, and
    would not send again for hours what it could not send before."""
    target = street.alertmanager.url.partition("//")[2]
    config = f"rule_files: ['{street.rules}']\nalerting: {{alertmanagers: [{{static_configs: [{{targets: ['{target}']}}]}}]}}\n"
    flag = DAY_LONG.replace("-rule.resendDelay", "--rules.alert.resend-delay")
    with start_prometheus(street.folder / "prometheus", config, port, flag) as running:
        wait_for(
            lambda: running.api("/api/v1/alertmanagers")["data"]["activeAlertmanagers"],
            "Prometheus to find Alertmanager",
        )
        yield running


def test_with_prometheus_behind_vmagent(street: Street) -> None:
    street.stop("vmalert", "victoria")
    port, certbot, other, now = (
        free_port(),
        street.folder / "web1",
        street.folder / "web2",
        int(time.time()),
    )
    target, relabel = (
        f"http://127.0.0.1:{port}/api/v1/write",
        f"-remoteWrite.urlRelabelConfig={PROMETHEUS / 'vmagent.yml'}",
    )
    with start_vmagent(
        street.folder / "vmagent", target, relabel, "-remoteWrite.queues=1"
    ) as agent:
        settings = {"INFLUXDB_URL": agent.url}
        with prometheus_of(street, port):
            make_lineage(certbot, "late", ["example.com"], now - 62 * DAY, 90 * DAY)
            assert start_run_report(certbot, "--all", **settings).returncode == 0
            assert street.mails(1) == ["[critical] web1: renewal_overdue, 1 firing: late"]
        make_lineage(other, "fine", ["example.net"], now - 5 * DAY, 90 * DAY)
        assert (
            start_run_report(other, "--all", **settings, HOSTNAME="web2").returncode == 0
        )  # vmagent keeps it
        street.tells(4)  # takes longer than four intervals
        with prometheus_of(street, port) as prometheus:
            wait_for(
                lambda: prometheus.query('certbot_renewal_run_at{host="web2"}'), "what vmagent kept"
            )
            assert street.box.unread() == []
            make_lineage(certbot, "late", ["example.com"], now, 90 * DAY)
            assert start_run_report(certbot, "--all", **settings).returncode == 0
            assert street.mails(1) == ["[resolved] web1: renewal_overdue, 1 resolved: late"]
        assert agent.number("vmagent_remotewrite_packets_dropped_total") == 0
