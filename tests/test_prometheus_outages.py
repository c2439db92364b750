"""What the alerts of prometheus/ do when most hosts are silent, and during restarts and outages."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from certbot_renewal_report import Point
from support.hooks import start_run_report
from support.metrics import PROMETHEUS, RESEND_AS_DOCUMENTED, MetricsAlerting, host_report
from support.points import HOUR, certificate_state
from tools.servers.lineages import DAY, make_lineage
from tools.servers.processes import free_port, wait_for
from tools.servers.prometheus import Prometheus, start_prometheus, start_vmagent

OVERDUE = "CRITICAL: web1: renewal_overdue, 1 firing: late"
RENEWED = "OK: web1: renewal_overdue, 1 resolved: late"


# ---- Most hosts --------------------------------------------------------------------------------
def reports_of_a_day(hosts: Sequence[str], now: int) -> list[Point]:
    """Return run reports of hosts that have reported on time for a day."""
    reports = []
    for reported_at in (now - 26 * HOUR, now - 13 * HOUR, now - 30):
        reports += [host_report(host, reported_at) for host in hosts]
    return reports


def test_most_hosts_silent_are_one_mail_and_those_that_stay_silent_alert_a_day_later(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    back = ["web1", "web2", "web3"]
    # web0 stopped first. Then VictoriaMetrics was away for three days.
    away = [host_report(host, now - 3 * DAY) for host in (*back, "web4")]
    metrics_alerting.write(host_report("web0", now - 6 * DAY), *away)
    assert metrics_alerting.next_subjects(1) == ["CRITICAL: (most hosts): host_silent, 1 firing"]
    metrics_alerting.wait_until_notified()

    metrics_alerting.write(*(host_report(host, now - 30) for host in back))
    assert metrics_alerting.next_subjects(1) == ["OK: (most hosts): host_silent, 1 resolved"]
    # Nothing yet about web0 and web4: certbot may not have run there since.
    metrics_alerting.wait_for_evaluations()
    assert metrics_alerting.alerts() == set()

    metrics_alerting.write(*reports_of_a_day(back, now))
    assert metrics_alerting.next_subjects(2) == [
        "CRITICAL: web0: host_silent, 1 firing",
        "CRITICAL: web4: host_silent, 1 firing",
    ]


def test_the_alert_of_a_silent_host_goes_on_while_most_hosts_are_silent(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    metrics_alerting.write(
        *reports_of_a_day(["web1", "web2", "web3"], now),
        host_report("web0", now - 6 * DAY),
        host_report("web4", now - 3 * DAY),
    )
    assert metrics_alerting.next_subjects(2) == [
        "CRITICAL: web0: host_silent, 1 firing",
        "CRITICAL: web4: host_silent, 1 firing",
    ]
    wait_for(
        lambda: metrics_alerting.silent_hosts_recorded() == {"web0", "web4"},
        "what vmalert records",
    )

    metrics_alerting.write(*(host_report(f"more{number}", now - 3 * DAY) for number in range(6)))
    assert metrics_alerting.next_subjects(1) == ["CRITICAL: (most hosts): host_silent, 1 firing"]
    metrics_alerting.assert_no_further_mail()


# ---- Restarts and outages ----------------------------------------------------------------------
def test_restarts_send_no_mail(metrics_alerting: MetricsAlerting) -> None:
    now = int(time.time())
    metrics_alerting.write(
        certificate_state("late", now - 2 * DAY, at=now - 30),
        certificate_state("fine", now + DAY),
        certificate_state("late", now - 2 * DAY, host="web2", at=now - 30),
    )
    assert metrics_alerting.next_subjects(2) == [
        OVERDUE,
        "CRITICAL: web2: renewal_overdue, 1 firing: late",
    ]

    everything = ["vmalert", "alertmanager", "victoria"]
    for names in (["alertmanager"], ["victoria"], everything):
        metrics_alerting.stop(*names)
        metrics_alerting.start(*reversed(names))
        wait_for(lambda: len(metrics_alerting.alerts()) == 2, "the alerts")
        metrics_alerting.wait_until_notified()
    assert metrics_alerting.inbox.unread() == []


def test_mails_arrive_after_the_mail_server_was_away(metrics_alerting: MetricsAlerting) -> None:
    now = int(time.time())
    metrics_alerting.write(
        certificate_state("late", now - 2 * DAY, at=now - 30),
        certificate_state("late", now - 2 * DAY, host="web2", at=now - 30),
    )
    metrics_alerting.next_subjects(2)
    metrics_alerting.wait_until_notified()

    metrics_alerting.stop("inbox")
    metrics_alerting.write(
        certificate_state("late", now + 60 * DAY),
        certificate_state("other", now - 2 * DAY, host="web2"),
    )
    failures = "alertmanager_notification_requests_failed_total"
    wait_for(lambda: metrics_alerting.alertmanager.number(failures) > 3, "mails that fail")
    metrics_alerting.start("inbox")
    assert metrics_alerting.next_subjects(2) == [
        "CRITICAL: web2: renewal_overdue, 2 firing: late, other",
        RENEWED,
    ]
    metrics_alerting.assert_no_further_mail()


def test_without_the_resend_delay_an_outage_looks_like_a_recovery(
    metrics_alerting: MetricsAlerting,
) -> None:
    """Show why the manual sets the delay: without it an alert survives four intervals of the rules.

    With their interval of 15 minutes that is an hour.
    """
    metrics_alerting.restart_vmalert()
    metrics_alerting.write(certificate_state("late", int(time.time()) - 2 * DAY))
    assert metrics_alerting.next_subjects(1) == [OVERDUE]
    metrics_alerting.stop("victoria")
    assert metrics_alerting.next_subjects(1) == [RENEWED]


def test_with_the_documented_resend_delay_an_outage_of_a_day_sends_no_mail(
    metrics_alerting: MetricsAlerting,
) -> None:
    metrics_alerting.restart_vmalert(RESEND_AS_DOCUMENTED)
    now = int(time.time())
    metrics_alerting.write(certificate_state("late", now - 2 * DAY, at=now - 30))
    assert metrics_alerting.next_subjects(1) == [OVERDUE]
    (alert,) = metrics_alerting.alertmanager.api("/api/v2/alerts")
    ends_at = datetime.datetime.fromisoformat(alert["endsAt"].replace("Z", "+00:00"))
    # A day, and the eight hours until vmalert would have sent the alert again.
    assert ends_at.timestamp() >= now + (24 + 8) * HOUR

    for names in (["victoria"], ["vmalert", "victoria"]):
        metrics_alerting.stop(*names)
        metrics_alerting.wait_for_notifications(4)  # takes longer than four intervals of the rules
        metrics_alerting.start(*reversed(names))
        metrics_alerting.wait_until_notified()

    # A new Alertmanager alone would know nothing for hours, so vmalert is restarted too.
    metrics_alerting.stop("alertmanager", "vmalert")
    metrics_alerting.start("alertmanager", "vmalert")
    metrics_alerting.assert_no_further_mail()

    metrics_alerting.write(certificate_state("late", now + 60 * DAY))
    assert metrics_alerting.next_subjects(1) == [RENEWED]


# ---- Prometheus --------------------------------------------------------------------------------
@contextlib.contextmanager
def prometheus_as_documented(alerting: MetricsAlerting, port: int) -> Iterator[Prometheus]:
    """Start Prometheus, in place of VictoriaMetrics and vmalert, as the manual configures it.

    It finds its Alertmanager five seconds after its start. What it could not send before, it would
    not send again for hours.
    """
    target = alerting.alertmanager.url.partition("//")[2]
    config = f"""
rule_files: ['{alerting.rules_file}']
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{target}']}}]}}]}}
"""
    flag = RESEND_AS_DOCUMENTED.replace("-rule.resendDelay", "--rules.alert.resend-delay")
    with start_prometheus(alerting.folder / "prometheus", config, port, flag) as prometheus:

        def active_alertmanagers() -> list[object]:
            data = prometheus.api("/api/v1/alertmanagers")["data"]
            return list(data["activeAlertmanagers"])

        wait_for(active_alertmanagers, "Prometheus to find Alertmanager")
        yield prometheus


# A module that Python imports when it starts. It moves the program's clock.
MOVED_CLOCK = """
import time

now = time.time
time.time = lambda: now() + {seconds}
"""


def send_run_report(certbot_folder: Path, url: str, host: str, clock_error: int = 0) -> None:
    """Send a run report of a host, whose clock is so many seconds ahead.

    The program reports that the clock is wrong, and sends the report.
    """
    certbot_folder.mkdir(exist_ok=True)
    (certbot_folder / "sitecustomize.py").write_text(MOVED_CLOCK.format(seconds=clock_error))
    report = start_run_report(
        certbot_folder,
        "--all",
        INFLUXDB_URL=url,
        HOSTNAME=host,
        PYTHONPATH=str(certbot_folder),
    )
    assert report.returncode == 0 or "correct the wrong clock" in report.stderr


def test_prometheus_behind_vmagent_alerts_and_gets_the_reports_sent_while_it_was_down(
    metrics_alerting: MetricsAlerting,
) -> None:
    metrics_alerting.stop("vmalert", "victoria")
    now = int(time.time())
    port = free_port()
    web1 = metrics_alerting.folder / "web1"
    web2 = metrics_alerting.folder / "web2"
    target = f"http://127.0.0.1:{port}/api/v1/write"
    relabel = f"-remoteWrite.urlRelabelConfig={PROMETHEUS / 'vmagent.yml'}"
    vmagent_folder = metrics_alerting.folder / "vmagent"
    with start_vmagent(vmagent_folder, target, relabel, "-remoteWrite.queues=1") as vmagent:
        with prometheus_as_documented(metrics_alerting, port):
            make_lineage(web1, "late", ["example.com"], now - 62 * DAY, 90 * DAY)
            send_run_report(web1, vmagent.url, "web1")
            assert metrics_alerting.next_subjects(1) == [OVERDUE]

        make_lineage(web2, "fine", ["example.net"], now - 5 * DAY, 90 * DAY)
        send_run_report(web2, vmagent.url, "web2")
        metrics_alerting.wait_for_notifications(4)  # takes longer than four intervals of the rules

        with prometheus_as_documented(metrics_alerting, port) as prometheus:
            wait_for(
                lambda: prometheus.query('certbot_renewal_run_at{host="web2"}'),
                "the report that vmagent kept",
            )
            assert metrics_alerting.inbox.unread() == []
            make_lineage(web1, "late", ["example.com"], now, 90 * DAY)
            send_run_report(web1, vmagent.url, "web1")
            assert metrics_alerting.next_subjects(1) == [RENEWED]
        assert vmagent.number("vmagent_remotewrite_packets_dropped_total") == 0


def test_a_host_with_a_wrong_clock_does_not_keep_the_reports_of_others_from_prometheus(
    metrics_alerting: MetricsAlerting,
) -> None:
    metrics_alerting.stop("vmalert", "victoria")
    now = int(time.time())
    port = free_port()
    target = f"http://127.0.0.1:{port}/api/v1/write"
    relabel = f"-remoteWrite.urlRelabelConfig={PROMETHEUS / 'vmagent.yml'}"
    clock_errors = {"behind": -40 * DAY, "ahead": 2 * HOUR, "far-ahead": 40 * DAY, "right": 0}
    with (
        start_vmagent(metrics_alerting.folder / "vmagent", target, relabel) as vmagent,
        prometheus_as_documented(metrics_alerting, port) as prometheus,
    ):
        for host, clock_error in clock_errors.items():
            folder = metrics_alerting.folder / host
            make_lineage(folder, "late", ["example.com"], now - 62 * DAY, 90 * DAY)
            send_run_report(folder, vmagent.url, host, clock_error)
        assert metrics_alerting.next_subjects(len(clock_errors)) == [
            f"CRITICAL: {host}: renewal_overdue, 1 firing: late" for host in sorted(clock_errors)
        ]

        for host in clock_errors:
            (report,) = prometheus.query(f'certbot_renewal_reported_at{{host="{host}"}}')
            assert float(report["value"][1]) == pytest.approx(time.time(), abs=60)
        refused = "prometheus_target_scrapes_sample_out_of_bounds_total"
        assert prometheus.number(refused) == 0
        assert vmagent.number("vmagent_remotewrite_packets_dropped_total") == 0
