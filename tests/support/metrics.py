"""The alerts of prometheus/ on real VictoriaMetrics, vmalert and Alertmanager, and their mails."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from certbot_renewal_report import FieldValue, Point, line_protocol
from support.points import certbot_run
from support.servers import skip_or_fail
from tools import ROOT
from tools.servers.certbot import Authority, start_pebble
from tools.servers.kapacitor import Inbox, start_inbox
from tools.servers.processes import MissingServer, free_port, wait_for
from tools.servers.prometheus import (
    Program,
    VictoriaMetrics,
    start_alertmanager,
    start_victoria_metrics,
    start_vmalert,
)

PROMETHEUS = ROOT / "prometheus"

# Alertmanager takes an alert for resolved if vmalert does not send it again within four times this
# delay. So an alert survives 4 * 3 = 12 s without VictoriaMetrics, and a new Alertmanager gets it
# after 3 s.
RESEND_OFTEN = "-rule.resendDelay=3s"
RESEND_AS_DOCUMENTED = "-rule.resendDelay=8h"


# ---- Configuration -----------------------------------------------------------------------------
def copy_rules(folder: Path, crit: str = "1") -> Path:
    """Copy the rules; vmalert evaluates the copy five times a second. `crit` is in days."""
    text = (PROMETHEUS / "rules.yml").read_text()
    text = text.replace("expr: vector(1)\n", f"expr: vector({crit})\n", 1)
    copy = folder / "rules.yml"
    copy.write_text(re.sub(r"(?m)^    interval: .*$", "    interval: 200ms", text))
    return copy


def alertmanager_config() -> str:
    """Return Alertmanager's configuration, with shorter times."""
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    text = text.replace("group_wait: 30s", "group_wait: 500ms")
    return text.replace("group_interval: 5m", "group_interval: 300ms")


# ---- The servers -------------------------------------------------------------------------------
class MetricsAlerting:
    """The alerting of one test: VictoriaMetrics, vmalert, Alertmanager and an inbox.

    A test may stop each of them, and start it again with its data, on the same port. The names of
    the servers for start() and stop() are those in START_ORDER, and pebble for stop().
    """

    START_ORDER = ("inbox", "victoria", "alertmanager", "vmalert")

    victoria: VictoriaMetrics
    alertmanager: Program
    vmalert: Program

    def __init__(self, folder: Path) -> None:
        """Prepare the rules in a folder; the servers keep their data there."""
        self.folder = folder
        self.victoria_port = free_port()
        self.alertmanager_port = free_port()
        self.rules_file = copy_rules(folder)
        self.vmalert_flags = [RESEND_OFTEN]
        self.inbox = Inbox()
        names = (*self.START_ORDER, "pebble")
        self.stacks = {name: contextlib.ExitStack() for name in names}

    # -- Starting and stopping --
    def start(self, *names: str) -> None:
        """Start some of the servers, in this order."""
        starters = {
            "inbox": self.start_inbox,
            "victoria": self.start_victoria,
            "alertmanager": self.start_alertmanager,
            "vmalert": self.start_vmalert,
        }
        for name in names:
            starters[name]()

    def stop(self, *names: str) -> None:
        """Stop some of the servers, in this order."""
        for name in names:
            self.stacks[name].close()

    def restart_vmalert(self, *flags: str) -> None:
        """Start vmalert again, with other flags, and the rules as they are now."""
        self.stop("vmalert")
        self.vmalert_flags = list(flags)
        self.start("vmalert")

    def start_inbox(self) -> None:
        """Start the mail server."""
        self.stacks["inbox"].enter_context(start_inbox(self.inbox))

    def start_victoria(self) -> None:
        """Start VictoriaMetrics."""
        starting = start_victoria_metrics(self.folder / "victoria", self.victoria_port)
        self.victoria = self.stacks["victoria"].enter_context(starting)

    def start_alertmanager(self) -> None:
        """Start Alertmanager."""
        starting = start_alertmanager(
            self.folder / "alertmanager",
            alertmanager_config(),
            self.inbox,
            self.alertmanager_port,
        )
        self.alertmanager = self.stacks["alertmanager"].enter_context(starting)

    def start_vmalert(self) -> None:
        """Start vmalert."""
        starting = start_vmalert(
            self.folder / "vmalert",
            self.rules_file,
            f"http://127.0.0.1:{self.victoria_port}",
            f"http://127.0.0.1:{self.alertmanager_port}",
            *self.vmalert_flags,
        )
        self.vmalert = self.stacks["vmalert"].enter_context(starting)

    def start_pebble(self, lifetime: int) -> Authority:
        """Start a CA whose certificates have a lifetime of so many seconds."""
        starting = start_pebble(self.folder / "pebble", lifetime)
        try:
            return self.stacks["pebble"].enter_context(starting)
        except MissingServer as error:
            skip_or_fail(error)

    # -- Points and alerts --
    def write(self, *points: Point) -> None:
        """Store points in VictoriaMetrics."""
        self.victoria.write("\n".join(line_protocol(point) for point in points))

    def alerts(self) -> set[str]:
        """Return the alerts that Alertmanager has, as `alertname host lineage target`."""
        alerts = set()
        for alert in self.alertmanager.api("/api/v2/alerts"):
            labels = alert["labels"]
            names = [name for name in ("alertname", "host", "lineage", "target") if name in labels]
            alerts.add(" ".join(labels[name] for name in names))
        return alerts

    def silent_hosts_recorded(self) -> set[str]:
        """Return the hosts of which vmalert has recorded that they fire as silent."""
        self.victoria.flush()
        series = self.victoria.query('ALERTS{alertname="host_silent", alertstate="firing"}')
        return {result["metric"]["host"] for result in series}

    # -- Waiting --
    def wait_for_evaluations(self, times: int = 2) -> None:
        """Wait until vmalert has evaluated all rules so many times more."""
        metric = ("vmalert_iteration_total", 'group="certbot_renewal"')
        at_start = self.vmalert.number(*metric)
        # One more: the first evaluation may have begun before the call.
        wait_for(
            lambda: self.vmalert.number(*metric) > at_start + times,
            f"{times} evaluations",
            poll_seconds=0.1,
        )

    def wait_for_notifications(self, times: int = 2) -> None:
        """Wait until Alertmanager has decided so many times about each group whether to notify."""
        groups = self.alertmanager.number("alertmanager_dispatcher_aggregation_groups")
        decisions = "alertmanager_nflog_queries_total"
        at_start = self.alertmanager.number(decisions)
        wait_for(
            lambda: self.alertmanager.number(decisions) >= at_start + times * groups,
            "Alertmanager's decisions",
            poll_seconds=0.1,
        )

    def wait_until_notified(self) -> None:
        """Wait until what is stored now was evaluated, and notified if it is to be notified.

        At least one alert must be firing.
        """
        self.wait_for_evaluations()
        wait_for(self.alerts, "an alert")
        self.wait_for_notifications()

    # -- Mails --
    def next_subjects(self, count: int) -> list[str]:
        """Wait for so many mails that nobody has read yet; return their subjects, sorted."""
        return sorted(self.inbox.read() for _ in range(count))

    def mail_text(self, subject: str) -> str:
        """Return the text of the last mail with a subject."""
        mails = [mail for mail in self.inbox.mails if mail["Subject"] == subject]
        body = mails[-1].get_body(("plain",))
        assert body is not None
        return str(body.get_content()).replace("\r\n", "\n")

    def assert_no_further_mail(self) -> None:
        """Assert that the alerts that fire now are notified already. At least one must fire."""
        self.wait_until_notified()
        assert self.inbox.unread() == []

    def assert_no_alert(self) -> None:
        """Assert that no alert fires, and that no mail is unread."""
        self.wait_for_evaluations()
        assert self.alerts() == set()
        assert self.inbox.unread() == []


@contextlib.contextmanager
def start_metrics_alerting(folder: Path) -> Iterator[MetricsAlerting]:
    """Start all of them; skip or fail the test if a program is missing."""
    alerting = MetricsAlerting(folder)
    try:
        alerting.start(*alerting.START_ORDER)
        yield alerting
    except MissingServer as error:
        skip_or_fail(error)
    finally:
        # The last one first: without VictoriaMetrics, vmalert takes five seconds to stop.
        alerting.stop("pebble", *reversed(alerting.START_ORDER))


# ---- Points ------------------------------------------------------------------------------------
def host_report(host: str, reported_at: int) -> Point:
    """Return the run point of a run report of a host, about a certbot run that succeeded."""
    return certbot_run(host, reported_at)


def with_fields(point: Point, **fields: FieldValue) -> Point:
    """Return the point with further fields."""
    return point._replace(fields={**point.fields, **fields})


def with_look(point: Point) -> Point:
    """Return a state in which the run report looked what is served, and a server answered."""
    run_at = point.fields["run_at"]
    return with_fields(point, looked_at=run_at, seen_at=run_at)
