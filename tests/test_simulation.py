"""The simulated year in short, and that its model of Kapacitor sends the mails of the real one."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from certbot_renewal_report import Point, line_protocol
from support.alerts import make_load_folder, wait_for_evaluations
from support.points import certbot_run, reported_state, retired_state, write
from support.servers import Alerting, require_program, skip_or_fail
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, installed_program, wait_for
from tools.simulation.alerts import (
    ALERT_NAMES,
    FAILING,
    MOST_HOSTS,
    OVERDUE,
    SILENT,
    AlertId,
    AlertStates,
)
from tools.simulation.models import AlertPack
from tools.simulation.periods import EVALUATION_INTERVAL, HOUR
from tools.simulation.scores import Score
from tools.simulation.simulate import simulate_year

# How the subject of a mail goes on after what it is about.
FIRES = {
    OVERDUE: r"renewal overdue, due since",
    SILENT: r"no run report for",
    FAILING: r"certbot failed",
}
RESOLVES = {
    OVERDUE: r"renewed, next|no longer on",
    SILENT: r"reports? again|retired, no run",
    FAILING: r"certbot succeeded",
}

WITH_RUN_REPORTS = (
    "with run reports",
    "with run reports, 7 days kept",
    "with run reports, rules of Prometheus",
)


# ---- A simulated year --------------------------------------------------------------------------
@pytest.mark.parametrize(("seed", "server"), [(72, "influxd-1.12"), (77, "influxd-2")])
def test_in_a_simulated_time_no_alert_is_false_and_no_incident_missed(
    seed: int, server: str
) -> None:
    require_program(server)
    require_victoria_metrics()
    results = simulate_year(seed, certificates=40, days=120, influxdb_version=server)
    by_name = {result.name: result.scores for result in results}

    for name in WITH_RUN_REPORTS:
        alerts_with_incidents = {alert for alert, score in by_name[name].items() if score.incidents}
        assert alerts_with_incidents >= {OVERDUE, SILENT, FAILING}
        for score in by_name[name].values():
            assert_no_error(score)
            assert_one_notification_for_each_incident(score)
    assert by_name["both hooks, no timer"][FAILING].true_alerts > 0
    rules = by_name["deploy hook alone, rules of Prometheus"]
    assert rules == by_name["deploy hook alone"]
    # The counting does find false alerts.
    for name in ("published hook and script", "21 days before expiry"):
        assert sum(score.false_alerts for score in by_name[name].values()) > 0


def assert_no_error(score: Score) -> None:
    """Assert that no alert was false or late, and no incident missed."""
    assert (score.false_alerts, score.missed, score.errors) == (0, 0, [])
    assert max(score.delays, default=0.0) <= 2 * EVALUATION_INTERVAL


def assert_one_notification_for_each_incident(score: Score) -> None:
    """Assert that an alert fired once for each incident, and resolved at most once."""
    assert score.firings == score.noticed >= score.resolutions


def require_victoria_metrics() -> None:
    """Skip the test if VictoriaMetrics is not installed."""
    try:
        installed_program("victoria-metrics", "victoria-metrics")
    except MissingServer as error:
        skip_or_fail(error)


# ---- Kapacitor ---------------------------------------------------------------------------------
class Mail(NamedTuple):
    """What a mail says: an alert fires or resolves, and about what."""

    alert: str
    about: str
    fires: bool


def mail_of(subject: str) -> Mail:
    """Return what a mail says, from its subject; it must say one thing."""
    _level, _, text = subject.partition(": ")
    about, _, statement = text.partition(": ")
    mails = [Mail(alert, about, True) for alert in FIRES if re.match(FIRES[alert], statement)]
    for alert, pattern in RESOLVES.items():
        if re.match(pattern, statement):
            mails.append(Mail(alert, about, False))
    (mail,) = mails
    return mail


class Modelled:
    """The model of the queries and of Kapacitor's alert states, and the mails that they expect."""

    def __init__(self) -> None:
        """At first there are no points."""
        self.model = AlertPack(400 * DAY)
        self.states = AlertStates()
        self.mails: Counter[Mail] = Counter()

    def evaluate(self, now: int) -> None:
        """Judge every row of every alert."""
        self.model.changed_until(now)
        for alert in ALERT_NAMES:
            for subject in self.model.subjects(alert):
                alert_id = AlertId(alert, subject)
                if self.states.changes_with(alert_id, self.model.row(alert_id, now)):
                    self.mails[self.mail_about(alert_id)] += 1

    def mail_about(self, alert_id: AlertId) -> Mail:
        """Return the mail of an alert whose state has changed."""
        host, lineage, _ = alert_id.subject
        about = host
        if lineage:
            about = f"{lineage} on {host}"
        return Mail(alert_id.alert, about, self.states.is_firing(alert_id))


def state_or_end(lineage: str, due: int, host: str, sent_at: int) -> Point:
    """Return the state of a certificate in a run report; `due` 0: it is retired."""
    if due == 0:
        return retired_state(lineage, host=host, run_at=sent_at, at=sent_at)
    return reported_state(lineage, due, sent_at, host=host)


def random_report(host: str, chance: random.Random, now: int) -> list[Point]:
    """Return a run report of a host with two lineages, which may have been sent long ago."""
    sent_at = now - chance.choice((0, 0, 30 * HOUR, 50 * HOUR))
    points = []
    for lineage in ("x", "y"):
        due = chance.choice((0, now - 3 * DAY, now + 30 * DAY, now + 30 * DAY))
        points.append(state_or_end(lineage, due, host, sent_at))
    step = chance.choice((0, 0, 1, 2))
    points.append(certbot_run(host, sent_at, exit_status=min(step, 1), step=step, steps=2))
    return points


def random_reports(chance: random.Random, now: int) -> list[Point]:
    """Return the reports of some of five hosts."""
    points = [certbot_run("a", now, exit_status=0)]
    for host in [host for host in "abcde" if chance.random() < 0.6]:
        points += random_report(host, chance, now)
    return points


@pytest.mark.parametrize("alerting", ["influxd-1.12"], indirect=True)
def test_kapacitor_sends_the_mails_that_the_model_expects(
    alerting: Alerting, tmp_path: Path
) -> None:
    influxdb = alerting.start_influxdb()
    bucket = influxdb.new_bucket()
    tasks = tuple(ALERT_NAMES.values())
    load = make_load_folder(tmp_path, influxdb, bucket, often=tasks)
    kapacitor = alerting.start_kapacitor(load)
    chance = random.Random(134)
    expected = Modelled()
    for step in range(8):
        now = int(time.time())
        points = random_reports(chance, now)
        write(influxdb, bucket, *points)
        for point in points:
            expected.model.take(line_protocol(point))
        if step == 4:  # it keeps its alert states when it is started again
            alerting.stop("kapacitor")
            kapacitor = alerting.start_kapacitor(load)

        expected.evaluate(now)
        wait_for_evaluations(kapacitor, tasks=tasks)
        wait_for(lambda: len(alerting.inbox.mails) >= expected.mails.total(), "the mails")
        assert expected.mails == Counter(mail_of(subject) for subject in alerting.inbox.subjects())

    assert_every_kind_of_mail(expected.mails)
    assert kapacitor.errors() == []


def assert_every_kind_of_mail(mails: Counter[Mail]) -> None:
    """Assert that each alert has fired and resolved, also the one about most hosts."""
    kinds = {(mail.alert, mail.fires) for mail in mails}
    assert kinds == set(itertools.product(ALERT_NAMES, (False, True)))
    assert mails[Mail(SILENT, MOST_HOSTS.host, True)]
