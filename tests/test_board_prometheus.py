"""The renewal board on VictoriaMetrics and Prometheus: the same as from InfluxDB."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from certbot_renewal_report import FieldValue, Point
from support.board import (
    STRANGE_HOST,
    BoardRun,
    board_json,
    cards_by_name,
    run_board,
    store,
    store_metrics,
)
from support.buckets import Bucket
from support.points import (
    HOUR,
    certbot_run,
    certificate_state,
    reported_state,
    retired_host,
    retired_state,
    target_state,
    with_tag,
)
from tools.demo_fleet import FLEET, report_fleet
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY
from tools.servers.prometheus import (
    Prometheus,
    VictoriaMetrics,
    copy_database,
    start_prometheus,
)

NewVictoria = Callable[[], VictoriaMetrics]
Whole = dict[str, Any]  # what the board prints as JSON

FROM_PROMETHEUS = ("--source", "prometheus")
VICTORIA_NOTICE = "VictoriaMetrics stores no text: failed names and reasons are missing."
ONE_NAME_LATE = "elsewhere.example.com"

# What only text says, at the end or in the middle of a problem.
TEXT_IN_PROBLEM = re.compile(
    r"""
    : [ ] ( no [ ] route | connect [ ] to [ ] .* ) $  # why a delivery failed
    | [ ] for [ ] elsewhere\.example\.com (?=[ ])     # for which names another one is served
    """,
    re.VERBOSE,
)


# ---- Reports that the demo fleet does not have --------------------------------------------------
def looked_state(lineage: str, begin: int, at: int, served: int, expiry: int, names: str) -> Point:
    """Return a state of a run report that looked at what is served."""
    state = reported_state(lineage, begin + 60 * DAY, at, host="cdn")
    looked: dict[str, FieldValue] = {
        "looked_at": at,
        "seen_at": at,
        "served": served,
        "served_expiry": expiry,
        "not_served": names,
    }
    return state._replace(fields={**state.fields, **looked})


def unanswered_state(lineage: str, begin: int, at: int) -> Point:
    """Return a state of a run report that looked at what is served, when no server answered."""
    state = reported_state(lineage, begin + 60 * DAY, at, host="cdn")
    return state._replace(fields={**state.fields, "looked_at": at, "served": 0})


def with_label(point: Point) -> Point:
    """Return a point with one more tag, as when Telegraf begins to add it."""
    return with_tag(point, "dc", "1")


def served_states(now: int) -> list[Point]:
    """Return states of certificates that are served, or another one instead."""
    begin = now - 2 * DAY
    long_ago = now - 30 * DAY
    expiry = now + 20 * DAY
    name = ONE_NAME_LATE
    return [
        looked_state("served", begin, now, 1, 0, "none"),
        looked_state("elsewhere", begin, now - DAY // 2, 0, expiry, name),
        unanswered_state("elsewhere", begin, now),
        looked_state("soon-after", begin, now - 13 * DAY // 10, 0, expiry, name),
        unanswered_state("soon-after", begin, now),
        # VERIFY was taken out of the settings: it is not looked at any more.
        looked_state("looked-at-before", long_ago, now - 3 * DAY, 0, expiry, name),
        certificate_state("looked-at-before", long_ago + 60 * DAY, host="cdn", run_at=now),
    ]


def late_states(now: int) -> list[Point]:
    """Return states of certificates that are due, and of retired ones."""
    due = now - 3 * DAY // 2
    reported = now - DAY - 3600
    five_days_ago = now - 5 * DAY
    return [
        reported_state("by-its-report", due, reported, host="late"),
        certificate_state("without-reports", due, host="late", at=now - 2 * DAY),
        reported_state("deleted", now - 4 * DAY, now - 9 * DAY, host="late"),
        retired_state("deleted", host="late", run_at=five_days_ago, at=five_days_ago),
        # The certificate of a day is overdue after half of the time to its expiry.
        certificate_state("short", now - 5 * HOUR, host="day", lifetime=DAY, run_at=now),
        certificate_state("of-wrong-clock", due, host="ahead", run_at=now + 40 * DAY),
        reported_state("retired", now, now - DAY, host="web1"),
        retired_state("retired", host="web1", run_at=now),
    ]


def runs(now: int) -> list[Point]:
    """Return runs of certbot, and what retires hosts."""
    three_days_ago = now - 3 * DAY
    return [
        certbot_run("cdn", now, unreadable="broken", exit_status=1),
        certbot_run("cdn", now - DAY, failed="x y", exit_status=1),
        certbot_run("late", now - DAY - 3600),
        certbot_run("day", now),
        certbot_run("ahead", now),
        reported_state("silent", now + 9 * DAY, three_days_ago, host="three"),
        certbot_run("three", three_days_ago),
        # Overdue and silent until they were retired, one of them by a host with another label.
        reported_state("a", now - 9 * DAY, three_days_ago, host="former"),
        certbot_run("former", three_days_ago, failed="a", exit_status=1),
        retired_host("former", now - DAY),
        reported_state("a", now - 9 * DAY, three_days_ago, host="removed"),
        certbot_run("removed", three_days_ago, failed="a", exit_status=1),
        with_label(retired_host("removed", now - DAY)),
    ]


def labelled_states(now: int) -> list[Point]:
    """Return states whose series was continued by one with a label more."""
    before = now - DAY
    return [
        reported_state("labelled", now - 9 * DAY, before, host="cdn"),
        reported_state("over", now + 9 * DAY, before, host="cdn"),
        with_label(certificate_state("labelled", now + DAY, host="cdn", run_at=now)),
        with_label(retired_state("over", host="cdn", run_at=now)),
    ]


def deliveries(now: int) -> list[Point]:
    """Return what targets have of a certificate, by the run report of web1 in the demo fleet."""
    old = now - 88 * DAY
    new = now - 2 * DAY
    at = now - DAY // 10
    late = target_state("late", deployed=old, renewed=new, run_at=at, error="no route", at=at)
    targets = [
        target_state("has", deployed=new, renewed=new, run_at=at, at=at),
        late,
        target_state("never", deployed=0, renewed=new, run_at=at, at=at),
        target_state("no-longer", deployed=0, renewed=0, run_at=at, at=at),
    ]
    return [
        reported_state("delivered", new + 60 * DAY, at, host="web1"),
        reported_state("alone", new + 60 * DAY, at, host="web1"),
        *(with_tag(target, "lineage", "delivered") for target in targets),
        with_tag(late, "lineage", "retired"),
    ]


def other_reports(now: int) -> list[Point | str]:
    """Return reports of all that the demo fleet does not have."""
    return [
        *served_states(now),
        *late_states(now),
        *labelled_states(now),
        *deliveries(now),
        *runs(now),
        f"certbot_renewal,domain=all,host=published renewed_count=1 {now - DAY}",
        f"certbot_renewal,domain=published.example.com,host=published renewed_count=1 {now - DAY}",
    ]


# ---- The same as from InfluxDB -----------------------------------------------------------------
def sorted_words(names: list[str]) -> list[str]:
    """Return names in alphabetical order; one with spaces, as an attack has, is several words."""
    return sorted(" ".join(names).split())


def without_text(whole: Whole) -> Whole:
    """Return what the board shows without what only text says.

    Days are rounded, and the ages left out: the boards were made some seconds apart.
    """
    whole = copy.deepcopy(whole)
    for card in whole["certificates"]:
        card["names"] = sorted_words(card["names"])
        card["not_before"] = 0
        card["days_overdue"] = round(card["days_overdue"], 2)
        card["days_left"] = round(card["days_left"], 2)
        card["judged_at"] = round(card["judged_at"], -2)
        card["reason"] = ""
        card["last_failure"] = 0
        card["failed_with"] = []
        if card["dry_run_error"] not in ("", "none"):
            card["dry_run_error"] = "some reason"
        card["problems"] = [TEXT_IN_PROBLEM.sub("", problem) for problem in card["problems"]]
    for host in whole["hosts"]:
        host["problem"] = host["problem"].replace("unreadable: broken", "unreadable: 1")
    for renewal in whole["renewals"]:
        renewal["names"] = sorted_words(renewal["names"])
    return {key: whole[key] for key in ("counts", "certificates", "hosts", "renewals")}


def begins(whole: Whole) -> dict[str, int]:
    """Return notBefore of each certificate that has one.

    The board has it from the age as of the query, so it may be some seconds off.
    """
    cards = cards_by_name(whole)
    return {name: card["not_before"] for name, card in cards.items() if card["not_before"]}


def without_unreadable(whole: Whole) -> Whole:
    """Return what the board shows without the one certificate of which only text says the name."""
    whole = copy.deepcopy(whole)
    (unreadable,) = (card for card in whole["certificates"] if card["lineage"] == "broken")
    whole["certificates"].remove(unreadable)
    whole["counts"]["failing"] -= 1
    return whole


@pytest.fixture(scope="module")
def both_servers(
    server: Callable[[str], InfluxDB],
    victoria: NewVictoria,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Bucket, VictoriaMetrics]:
    """The same reports in an InfluxDB and in a VictoriaMetrics."""
    bucket = Bucket(server("influxd-1.12"))
    metrics = victoria()
    folder = tmp_path_factory.mktemp("fleet")
    now = int(time.time())
    # Without its retired certificate: one renewal of it came in the same second as another's.
    fleet = [replace(host, ended=()) for host in FLEET] + [STRANGE_HOST]
    report_fleet(fleet, folder / "influxdb", bucket.influxdb, bucket.name, now)
    report_fleet(fleet, folder / "victoria", metrics, "certbot", now)
    store(bucket, *other_reports(now))
    store_metrics(metrics, *other_reports(now))
    return bucket, metrics


@pytest.fixture(scope="module")
def metrics(both_servers: tuple[Bucket, VictoriaMetrics]) -> VictoriaMetrics:
    """The VictoriaMetrics with the fleet and the other reports."""
    return both_servers[1]


@pytest.fixture(scope="module")
def from_metrics(metrics: VictoriaMetrics) -> Whole:
    """What the board shows of that VictoriaMetrics."""
    return board_json(metrics.settings(), *FROM_PROMETHEUS)


def test_victoria_metrics_shows_the_same_as_influxdb_without_text(
    both_servers: tuple[Bucket, VictoriaMetrics],
) -> None:
    bucket, metrics = both_servers
    from_influxdb = board_json(bucket.settings)
    from_metrics = board_json(metrics.settings(), *FROM_PROMETHEUS)
    assert without_text(from_metrics) == without_text(without_unreadable(from_influxdb))
    assert begins(from_metrics) == pytest.approx(begins(from_influxdb), rel=0, abs=30)
    for kind in ("certificates", "hosts", "renewals"):
        assert from_metrics[kind]
    assert from_influxdb["notice"] == ""
    assert from_metrics["notice"] == VICTORIA_NOTICE


def test_victoria_metrics_has_problems_and_dry_runs(from_metrics: Whole) -> None:
    cards = cards_by_name(from_metrics)
    served = cards["elsewhere on cdn"]["problems"][0]
    assert served.startswith("another certificate is served (that certificate expires ")
    intranet = cards["intranet.example.net on web2"]
    assert intranet["problems"] == ["not renewed in the last certbot run"]
    assert cards["example.net on web2"]["dry_run_error"] == "certbot could not renew it"
    assert cards["shop.example.com on web1"]["dry_run_error"] == "none"


def test_victoria_metrics_has_the_names(from_metrics: Whole) -> None:
    names = cards_by_name(from_metrics)["example.com on web1"]["names"]
    assert sorted(names) == ["*.static.example.com", "example.com", "www.example.com"]


def test_of_two_series_of_a_certificate_the_newest_counts(from_metrics: Whole) -> None:
    assert cards_by_name(from_metrics)["labelled on cdn"]["state"] == "renewed"


def test_the_page_says_what_victoria_metrics_does_not_store(
    metrics: VictoriaMetrics, tmp_path: Path
) -> None:
    page = tmp_path / "board.html"
    run = run_board(metrics.settings(), *FROM_PROMETHEUS, "--html", str(page))
    assert run == BoardRun(1, "", "")
    text = page.read_text()
    assert VICTORIA_NOTICE in text
    assert f"from {metrics.url}." in text


def test_no_name_turns_the_terminal_around(victoria: NewVictoria) -> None:
    metrics = victoria()
    now = int(time.time())
    store_metrics(metrics, certificate_state("strange", now + DAY, host="upside\u202edown"))
    assert "upside?down" in run_board(metrics.settings(), *FROM_PROMETHEUS).out


# ---- Silent hosts ------------------------------------------------------------------------------
def away_then_back(now: int, hosts_back: int, days_back: int) -> list[Point]:
    """Return reports of five hosts that were away, of which some came back some days ago."""
    points = []
    away_since = now - 3 * DAY
    for number in range(5):
        host = f"web{number}"
        reported = [away_since + number]
        if number >= 5 - hosts_back:
            reported.append(now - 60)
            if days_back:
                reported.append(now - DAY - 900)
        for at in reported:
            points.append(reported_state("a", now + 9 * DAY, at, host=host))
            points.append(certbot_run(host, at))
    return points


@pytest.mark.parametrize(
    ("hosts_back", "days_back", "status", "silent", "unknown"),
    [
        pytest.param(0, 0, 1, ["(most hosts)"], 5, id="all are away"),
        pytest.param(2, 0, 1, ["(most hosts)"], 3, id="the first are back"),
        pytest.param(3, 0, 0, [], 2, id="most are back"),
        pytest.param(3, 1, 1, ["web0", "web1"], 0, id="most are back for a day"),
    ],
)
def test_silent_hosts_are_the_same_as_from_influxdb(
    one_bucket: Bucket,
    victoria: NewVictoria,
    hosts_back: int,
    days_back: int,
    status: int,
    silent: list[str],
    unknown: int,
) -> None:
    metrics = victoria()
    lines = away_then_back(int(time.time()), hosts_back, days_back)
    store(one_bucket, *lines)
    store_metrics(metrics, *lines)
    hosts = board_json(one_bucket.settings, status=status)["hosts"]
    assert board_json(metrics.settings(), *FROM_PROMETHEUS, status=status)["hosts"] == hosts
    assert [host["kind"] for host in hosts].count("unknown") == unknown
    assert [host["host"] for host in hosts if host["kind"] == "silent"] == silent


def test_of_many_silent_hosts_the_first_ten_are_named_and_all_are_counted(
    victoria: NewVictoria,
) -> None:
    metrics = victoria()
    then = int(time.time()) - 3 * DAY
    hosts = [f"web{number:02}" for number in range(12)]
    states = [reported_state("a", then + 9 * DAY, then, host=name) for name in hosts]
    store_metrics(metrics, *states, *(certbot_run(name, then) for name in hosts))
    whole = board_json(metrics.settings(), *FROM_PROMETHEUS)
    problems = {host["host"]: host["problem"] for host in whole["hosts"]}
    first = ", ".join(hosts[:10])
    assert problems["(most hosts)"] == f"no run report for 3.0 days: 12 of 12 hosts: {first}, ..."


# ---- Which ones failed -------------------------------------------------------------------------
def test_what_failed_is_known_if_nothing_else_was_due(victoria: NewVictoria) -> None:
    metrics = victoria()
    now = int(time.time())
    due = now - 3600
    store_metrics(
        metrics,
        certificate_state("a", due, host="all", run_at=now),
        certificate_state("b", due, host="all", run_at=now),
        reported_state("of-another-installation", due, now - 1800, host="all"),
        certbot_run("all", now, failed="a b", exit_status=1),
        certificate_state("a", due, host="some", run_at=now),
        certificate_state("b", due, host="some", run_at=now),
        certbot_run("some", now, failed="b", exit_status=1),
    )
    whole = board_json(metrics.settings(), *FROM_PROMETHEUS, status=0)
    assert {host["host"]: host["problem"] for host in whole["hosts"]} == {
        "all": "the last certbot run failed (not renewed: a b; exit status 1)",
        "some": "the last certbot run failed (not renewed: 1; exit status 1)",
    }
    states = {name: card["state"] for name, card in cards_by_name(whole).items()}
    assert states == {
        "a on all": "failing",
        "b on all": "failing",
        "of-another-installation on all": "due",
        "a on some": "due",
        "b on some": "due",
    }


def test_a_report_that_is_of_no_run_does_not_hide_the_last_run(victoria: NewVictoria) -> None:
    metrics = victoria()
    now = int(time.time())
    store_metrics(
        metrics,
        certbot_run("by-hand", now - DAY, failed="b", exit_status=1),
        f"certbot_renewal,host=by-hand certificates=1i,unreadable_count=0i {now}",
        certificate_state("old", now + DAY, host="odd", run_at=now),
        certbot_run("odd", now - DAY, exit_status=1),
        certbot_run("odd", now, failed="x"),  # its exit status is not known
    )
    whole = board_json(metrics.settings(), *FROM_PROMETHEUS, status=0)
    assert {host["host"]: host["problem"] for host in whole["hosts"]} == {
        "by-hand": "the last certbot run failed (not renewed: 1; exit status 1)",
        "odd": "the last certbot run failed (not renewed: 1)",
    }
    states = {name: card["state"] for name, card in cards_by_name(whole).items()}
    assert states == {"old on odd": "renewed"}


# ---- Names and history -------------------------------------------------------------------------
def test_certificates_that_began_in_the_same_second_have_no_names(victoria: NewVictoria) -> None:
    """Which names are whose would be a guess."""
    metrics = victoria()
    now = int(time.time())
    days_ago = {"a": 5, "b": 5, "c": 4, "d": 3, "e": 2, "f": 2}
    without_a_name = ("d", "f")
    for lineage, days in days_ago.items():
        begin = now - days * DAY
        fields = f"renewed_count=1,lifetime={90 * DAY}i,due_after={60 * DAY}i"
        store_metrics(
            metrics,
            certificate_state(lineage, begin + 60 * DAY, at=now - 60),
            f"certbot_renewal,domain=all,host=web1,lineage={lineage} {fields} {begin}",
        )
        if lineage not in without_a_name:
            name = f"{lineage}.example.com"
            metrics.write(f"certbot_renewal,domain={name},host=web1 renewed_count=1 {begin}")
    whole = board_json(metrics.settings(), *FROM_PROMETHEUS, status=0)
    names = {card["lineage"]: card["names"] for card in whole["certificates"]}
    assert names == {"a": [], "b": [], "c": ["c.example.com"], "d": [], "e": [], "f": []}
    assert len(whole["renewals"]) == 6


def twice_a_day(lineage: str, due: int, first: int, last: int) -> list[Point]:
    """Return the states of a certificate in two reports a day between two times."""
    return [reported_state(lineage, due, at, host="cdn") for at in range(first, last, DAY // 2)]


@pytest.fixture(scope="module")
def now() -> int:
    """The current time, the same for all tests of a module."""
    return int(time.time())


@pytest.fixture(scope="module")
def metrics_with_history(
    victoria: NewVictoria, tmp_path_factory: pytest.TempPathFactory, now: int
) -> VictoriaMetrics:
    """A VictoriaMetrics with the fleet and with states of 70 days.

    The certificate `twice` was renewed nine days ago. `back` is an old one again, from a backup.
    """
    metrics = victoria()
    report_fleet(FLEET, tmp_path_factory.mktemp("fleet"), metrics, "certbot", now)
    begin = now - 70 * DAY
    renewed = now - 9 * DAY
    store_metrics(
        metrics,
        *other_reports(now),
        *twice_a_day("twice", begin + 60 * DAY, begin, renewed),
        *twice_a_day("twice", renewed + 60 * DAY, renewed, now),
        *twice_a_day("back", begin + 20 * DAY, begin, renewed),
        reported_state("back", begin, now, host="cdn"),
    )
    return metrics


@pytest.fixture(scope="module")
def prometheus(
    metrics_with_history: VictoriaMetrics, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus with the same data."""
    folder = tmp_path_factory.mktemp("prometheus")
    copy_database(metrics_with_history, folder)
    with start_prometheus(folder) as running:
        yield running


@pytest.fixture(scope="module")
def from_prometheus(prometheus: Prometheus) -> Whole:
    """What the board shows of that Prometheus."""
    return board_json({"INFLUXDB_URL": prometheus.url}, *FROM_PROMETHEUS)


def test_the_history_of_prometheus_is_what_the_states_say(from_prometheus: Whole, now: int) -> None:
    begin = now - 70 * DAY
    assert from_prometheus["notice"] == (
        "Prometheus stores no text: failed names and reasons are missing. "
        "The history begins with the first report, and has no names."
    )
    rows = [row for row in from_prometheus["renewals"] if row["host"] == "cdn"]
    twice = [
        (row["time"], row["lifetime_days"], row["days_late"])
        for row in rows
        if row["lineage"] == "twice"
    ]
    assert twice == [(now - 9 * DAY, 90, 1), (begin, 90, None)]
    back = [row["time"] for row in rows if row["lineage"] == "back"]
    assert back == [begin - 40 * DAY, begin - 60 * DAY]


def without_history(whole: Whole) -> Whole:
    """Return what the board shows without names and renewals."""
    whole = copy.deepcopy(whole)
    for card in whole["certificates"]:
        card["names"] = []
        card["renewals"] = []
    return whole


def test_prometheus_shows_the_same_as_victoria_metrics_without_names(
    from_prometheus: Whole, metrics_with_history: VictoriaMetrics
) -> None:
    from_metrics = board_json(metrics_with_history.settings(), *FROM_PROMETHEUS)
    one = without_text(without_history(from_prometheus))
    other = without_text(without_history(from_metrics))
    assert one["certificates"] == other["certificates"]
    assert begins(from_prometheus) == pytest.approx(begins(from_metrics), rel=0, abs=30)
    assert from_prometheus["hosts"] == from_metrics["hosts"]
