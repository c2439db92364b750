"""The real certbot on a host, and the mails of the real Kapacitor about it."""

from __future__ import annotations

import html
import re
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from support.alerts import (
    EACH_QUICK_INFLUXDB,
    HOST_TASKS,
    OVERDUE_TASKS,
    WatchedBucket,
    mail_text,
    overdue_notifications,
)
from support.hooks import CRON, RUN_REPORT
from support.points import HOUR, certbot_run, renewals_of
from support.servers import Alerting
from tools.servers.certbot import Authority, Certbot
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_run_report
from tools.servers.processes import wait_for

# Where certificates live for seconds, the alert fires 2 seconds after the due date.
CRIT_SECONDS = 2
CRIT = f"{CRIT_SECONDS / DAY:.9f}"  # days

# One of the two for each test: the tests of the queries and of the alerts run on all of them.
INFLUXDB_1 = pytest.mark.parametrize("alerting", ["influxd-1.12"], indirect=True)
INFLUXDB_2 = pytest.mark.parametrize("alerting", ["influxd-2"], indirect=True)

LINEAGE = "example.com"


class Host(NamedTuple):
    """The host web1: a certbot whose hooks report into a bucket that Kapacitor watches."""

    certbot: Certbot
    watched: WatchedBucket

    @property
    def influxdb(self) -> InfluxDB:
        """Return the InfluxDB to which the hooks report."""
        return self.watched.alerting.influxdb

    def issue(self, lineage: str = LINEAGE) -> int:
        """Issue the first certificate of a lineage; return its notBefore."""
        process = self.certbot.issue(lineage, lineage, f"www.{lineage}")
        assert process.returncode == 0, process.stdout
        return self.certbot.not_before(lineage)

    def run_certbot_by_cron(self) -> None:
        """Run the line of docs/run-reports.md for cron.

        Kapacitor evaluates nothing meanwhile. On a real host it evaluates every 15 minutes, and so
        finds the report of the post hook and that of the line for cron together.
        """
        self.watched.pause()
        self.certbot.shell(CRON)
        self.watched.resume()

    def renewal_times(self) -> set[int]:
        """Return the times of the renewals that were reported."""
        return renewals_of(self.influxdb.points(self.watched.bucket), LINEAGE)


def make_host(
    alerting: Alerting,
    authority: Authority,
    tasks: tuple[str, ...] = (*OVERDUE_TASKS, *HOST_TASKS),
    crit: str = "1.0",
) -> Host:
    """Make the host with the report hook alone, and start the alerts."""
    watched = WatchedBucket(alerting, tasks, crit)
    certbot = Certbot(alerting.folder / "letsencrypt", authority)
    settings = alerting.influxdb.settings(watched.bucket)
    certbot.settings({**settings, "HOSTNAME": "web1", "INFLUXDB_TIMEOUT": "3"})
    return Host(certbot, watched)


def make_host_with_run_reports(alerting: Alerting, authority: Authority, crit: str = "1.0") -> Host:
    """Make the host with the report hook and the run report, and start the alerts."""
    host = make_host(alerting, authority, crit=crit)
    install_run_report(host.certbot.folder)
    return host


def renewal_conf(host: Host, lineage: str) -> Path:
    """Return the renewal configuration of a lineage."""
    return host.certbot.folder / "renewal" / f"{lineage}.conf"


# ---- Runs that fail ----------------------------------------------------------------------------
@INFLUXDB_1
def test_a_renewal_that_fails_is_one_notification_until_it_succeeds(
    alerting: Alerting, authority: Authority
) -> None:
    host = make_host_with_run_reports(alerting, authority)
    host.issue("late")
    host.issue("fine")
    conf = renewal_conf(host, "late")
    original = conf.read_text()
    host.run_certbot_by_cron()
    assert host.watched.next_subjects(0) == []

    # Due from the beginning, and with a key that no CA accepts.
    is_due = "renew_before_expiry = 3650 days\n" + original
    conf.write_text(is_due.replace("key_type = ecdsa", "key_type = rsa\nrsa_key_size = 512"))
    host.run_certbot_by_cron()
    assert host.watched.next_subjects(1) == [
        "WARNING: web1: certbot failed; not renewed: late; exit status 1; "
        "reason: late: Unsupported RSA key length: 512"
    ]
    assert "late: Unsupported RSA key length: 512" in mail_text(alerting.inbox, "WARNING: web1: ")

    # By hand, as the mail about a silent host proposes: this is no run of certbot.
    host.certbot.shell(RUN_REPORT)
    assert host.watched.next_subjects(0) == []

    conf.write_text(is_due)
    host.run_certbot_by_cron()
    assert host.watched.next_subjects(1) == ["OK: web1: certbot succeeded"]
    assert host.watched.kapacitor.errors() == []


@INFLUXDB_1
def test_an_unreadable_lineage_is_one_notification_until_it_is_repaired(
    alerting: Alerting, authority: Authority
) -> None:
    host = make_host_with_run_reports(alerting, authority)
    host.issue("late")
    host.issue("fine")
    conf = renewal_conf(host, "fine")
    original = conf.read_text()
    host.run_certbot_by_cron()
    assert host.watched.next_subjects(0) == []

    conf.write_text("# damaged\n")
    host.run_certbot_by_cron()
    (subject,) = host.watched.next_subjects(1)
    assert subject.startswith(
        "WARNING: web1: certbot failed; unreadable: fine; exit status 1; reason: fine: "
        "Renewal configuration file "
    )

    conf.write_text(original)
    host.run_certbot_by_cron()
    assert host.watched.next_subjects(1) == ["OK: web1: certbot succeeded"]
    assert host.watched.kapacitor.errors() == []


# ---- Hosts that do not report ------------------------------------------------------------------
@INFLUXDB_2
def test_a_host_on_which_certbot_was_not_started_is_silent_until_its_next_run(
    alerting: Alerting, authority: Authority
) -> None:
    host = make_host(alerting, authority)
    host.certbot.hook.unlink()
    host.issue()  # nobody reports it
    install_run_report(host.certbot.folder)
    now = int(time.time())
    host.watched.write(certbot_run("web1", now - 49 * HOUR))

    subject = alerting.inbox.read()
    assert re.fullmatch(r"CRITICAL: web1: no run report for 2\.0 days \(last: 20.* UTC\)", subject)

    host.run_certbot_by_cron()
    assert host.watched.next_subjects(1) == ["OK: web1: reports again"]


@INFLUXDB_2
def test_the_mail_about_a_silent_host_has_the_command_that_retires_the_host(
    alerting: Alerting, authority: Authority
) -> None:
    host = make_host_with_run_reports(alerting, authority)
    host.issue()
    host.run_certbot_by_cron()
    now = int(time.time())
    host.watched.write(certbot_run("old-web", now - 49 * HOUR))
    (subject,) = host.watched.next_subjects(1)
    assert subject.startswith("CRITICAL: old-web: no run report for ")

    text = mail_text(alerting.inbox, "CRITICAL: old-web: ")
    (command,) = re.findall(r"<code>(/etc/letsencrypt/.* --host .*)</code>", text)
    process = host.certbot.shell(html.unescape(command))
    assert process.returncode == 0, process.stdout

    assert host.watched.next_subjects(1) == ["OK: old-web: retired, no run reports expected"]


# ---- Overdue -----------------------------------------------------------------------------------
@EACH_QUICK_INFLUXDB
def test_a_certificate_that_certbot_renews_too_late_is_overdue_until_then(
    alerting: Alerting,
) -> None:
    lifetime = 24  # seconds: due after 12
    host = make_host(alerting, alerting.start_pebble(lifetime), OVERDUE_TASKS, CRIT)
    overdue_at = host.issue() + lifetime / 2 + CRIT_SECONDS

    alerting.inbox.read()
    assert time.time() >= overdue_at - 1
    assert overdue_notifications(alerting.inbox) == Counter(["example.com on web1"])

    process = host.certbot.renew()
    assert process.returncode == 0, process.stdout
    assert alerting.inbox.read().startswith("OK: example.com on web1: renewed, next renewal due ")


@INFLUXDB_1
def test_a_renewal_whose_report_was_lost_is_reported_by_the_next_run_without_an_alert(
    alerting: Alerting,
) -> None:
    lifetime = 40  # seconds: due after 20
    host = make_host_with_run_reports(alerting, alerting.start_pebble(lifetime), CRIT)
    first = host.issue()
    due = first + lifetime / 2
    host.certbot.shell(RUN_REPORT)
    assert time.time() < due, "this machine is too slow for this test"

    alerting.stop("influxdb")
    wait_for(lambda: time.time() > due, "the certificate to be due")
    process = host.certbot.renew()
    assert "Hook 'deploy-hook' reported error code 1" in process.stdout
    second = host.certbot.not_before(LINEAGE)

    alerting.start_influxdb()
    wait_for(lambda: time.time() > due + CRIT_SECONDS + 1, "the time at which it would be overdue")
    assert host.watched.next_subjects(0) == []
    assert host.renewal_times() == {first}

    host.run_certbot_by_cron()
    assert host.renewal_times() >= {first, second}
    assert host.watched.next_subjects(0) == []


@INFLUXDB_2
def test_deleting_an_overdue_certificate_resolves_the_alert(alerting: Alerting) -> None:
    lifetime = 10  # seconds: due after 5
    host = make_host_with_run_reports(alerting, alerting.start_pebble(lifetime), CRIT)
    not_before = host.issue()
    wait_for(lambda: time.time() > not_before + 8, "the renewal to be overdue")
    process = host.certbot.shell(RUN_REPORT)
    assert process.returncode == 0, process.stdout
    assert re.fullmatch(
        r"CRITICAL: example\.com on web1: renewal overdue, due since .*", alerting.inbox.read()
    )

    process = host.certbot.run("delete", "--cert-name", LINEAGE)
    assert process.returncode == 0, process.stdout
    host.run_certbot_by_cron()
    assert host.watched.next_subjects(1) == ["OK: example.com on web1: no longer on this host"]

    for _ in range(2):
        host.run_certbot_by_cron()
        assert host.watched.next_subjects(0) == []
