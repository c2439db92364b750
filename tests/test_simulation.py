"""The simulated year in short, and that its model of Kapacitor's alert states counts the mails that the real one sends."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from support.alerts import make_load_folder, wait_for_evaluations
from support.points import run_point, state, write
from support.servers import Alerting, require_program, skip_or_fail
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, installed_program, wait_for
from tools.simulation.judges import EVERY, FAILING, MOST, OVERDUE, RULES, SILENT, AlertPack, Key
from tools.simulation.simulate import year

ALARMS = {
    OVERDUE: r"not renewed, due since",
    SILENT: r"no report of certbot",
    FAILING: r"certbot fails",
}
ENDS = {
    OVERDUE: r"renewed, next|no longer on",
    SILENT: r"reports? again|no longer expected",
    FAILING: r"certbot runs well",
}


@pytest.mark.parametrize(("seed", "server"), [(76, "influxd-1.12"), (67, "influxd-2")])
def test_in_a_simulated_time_no_alarm_is_false_and_no_incident_missed(
    seed: int, server: str
) -> None:
    require_program(server)
    require_victoria_metrics()
    results = {
        name: by_alert for name, by_alert, _ in year(seed, certificates=40, days=120, server=server)
    }
    rules = ", rules of Prometheus"
    for name in ("with run reports", "with run reports, 7 days kept", f"with run reports{rules}"):
        assert {alert for alert, score in results[name].items() if score.incidents} >= {
            OVERDUE,
            SILENT,
            FAILING,
        }
        for score in results[name].values():
            assert (score.false, score.missed, score.wrong) == (0, 0, [])
            assert (
                score.alarms == score.heard >= score.recoveries
            )  # one mail for each incident, and one for its end
            assert max(score.late, default=0.0) <= 2 * EVERY
    assert results[f"deploy hook alone{rules}"] == results["deploy hook alone"]
    for name in (
        "published hook and script",
        "21 days before expiry",
    ):  # the truth tells them apart
        assert sum(score.false for score in results[name].values()) > 0


def require_victoria_metrics() -> None:
    """Makes sure that it is installed."""
    try:
        installed_program("victoria-metrics", "victoria-metrics")
    except MissingServer as error:
        skip_or_fail(error)


def meaning(subject: str) -> tuple[str, str, bool]:
    """Of a mail: the alert, what it is about, and whether it is an alarm or its end."""
    about, _, says = subject.partition(": ")
    kinds = [
        (alert, alarm)
        for alarm, of in ((True, ALARMS), (False, ENDS))
        for alert in of
        if re.match(of[alert], says)
    ]
    ((alert, alarm),) = kinds
    return alert, about, alarm


@pytest.mark.parametrize("house", ["influxd-1.12"], indirect=True)
def test_the_model_counts_the_mails_that_kapacitor_sends(house: Alerting, tmp_path: Path) -> None:
    influxdb, chance = house.start_influxdb(), random.Random(1)
    bucket, judge = influxdb.new_bucket(), AlertPack(400 * DAY)
    load = make_load_folder(tmp_path, influxdb, bucket, often=tuple(RULES.values()))
    kapacitor = house.start_kapacitor(load)
    levels, told = dict[tuple[str, Key], bool](), Counter[tuple[str, str, bool]]()
    for step in range(8):
        now, lines = int(time.time()), [run_point("a", int(time.time()), exit_status=0)]
        for host in [host for host in "abcde" if chance.random() < 0.6]:
            made = now - chance.choice((0, 0, 30 * 3600, 50 * 3600))  # some arrive late
            for lineage in ("x", "y"):
                due = chance.choice((0, now - 3 * DAY, now + 30 * DAY, now + 30 * DAY))
                lines.append(state(lineage, due, host=host, run_at=made, at=made))
            lines.append(run_point(host, made, exit_status=chance.choice((0, 0, 1))))
        write(influxdb, bucket, *lines)
        for line in lines:
            judge.take(line)
        if step == 4:
            house.stop("kapacitor")
            kapacitor = house.start_kapacitor(load)
        judge.changed_until(now)
        for alert in RULES:
            for key in judge.keys(alert):
                row, before = judge.row(alert, key, now), levels.get((alert, key), False)
                if row and row.critical(alert, before) != before:
                    levels[alert, key] = not before
                    told[alert, " on ".join(reversed(key)), not before] += 1
        wait_for_evaluations(kapacitor, tasks=tuple(RULES.values()))
        wait_for(lambda: len(house.box.mails) >= told.total(), "the mails")
        assert told == Counter(meaning(subject) for subject in house.box.subjects())
    assert {(alert, alarm) for alert, _, alarm in told} == {
        (alert, alarm) for alert in RULES for alarm in (False, True)
    }
    assert told[SILENT, MOST[0], True]
    assert kapacitor.errors() == []
