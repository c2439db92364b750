"""The renewal board and InfluxDB: the same from each version, and the right to read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.board import (
    COLUMNS,
    IMAGE_NAME,
    RENEWED,
    FleetSettings,
    board_json,
    cards_by_name,
    run_board,
    runs_csv,
    store,
)
from support.buckets import Bucket, new_token
from support.points import certificate_state
from tools.demo_fleet import NO_RECORD, WEB2_FAILURES
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.lineages import DAY


@pytest.fixture
def fleet_json(influxdb: InfluxDB, fleet_settings: FleetSettings) -> dict[str, Any]:
    """The fleet as the board prints it as JSON, from each InfluxDB in turn."""
    return board_json(fleet_settings(influxdb.name))


def test_the_states_are_the_same_from_each_influxdb(fleet_json: dict[str, Any]) -> None:
    counts = {column: len(names) for column, names in COLUMNS.items()}
    assert fleet_json["counts"] == {**counts, "renewed": RENEWED}
    expected = {}
    for column, names in COLUMNS.items():
        expected.update(dict.fromkeys(names, column))
    cards = cards_by_name(fleet_json)
    states = {name: card["state"] for name, card in cards.items() if card["state"] != "renewed"}
    assert states == expected


def test_names_and_dry_runs_are_the_same_from_each_influxdb(fleet_json: dict[str, Any]) -> None:
    cards = cards_by_name(fleet_json)
    names = cards["example.com on web1"]["names"]
    assert names == ["example.com", "www.example.com", "*.static.example.com"]
    assert cards["example.net on web2"]["dry_run_error"] == NO_RECORD
    assert cards["shop.example.com on web1"]["dry_run_error"] == "none"


def test_reasons_and_labels_are_the_same_from_each_influxdb(fleet_json: dict[str, Any]) -> None:
    cards = cards_by_name(fleet_json)
    reasons = {card["lineage"]: card["reason"] for card in cards.values() if card["reason"]}
    assert reasons == WEB2_FAILURES
    assert [name for name, card in cards.items() if card["staging"]] == ["test.example.net on web2"]


def test_the_runs_are_the_same_from_each_influxdb(
    influxdb: InfluxDB, fleet_settings: FleetSettings
) -> None:
    rows = runs_csv(fleet_settings(influxdb.name))
    assert len({(row["host"], row["time"]) for row in rows}) == 36
    last_run = [row for row in rows if row["host"] == "web2" and row["time"] == rows[0]["time"]]
    results = {row["lineage"]: (row["result"], row["reason"]) for row in last_run}
    failed = {lineage: ("failed", reason) for lineage, reason in WEB2_FAILURES.items()}
    not_due = dict.fromkeys(("api.example.net", "test.example.net"), ("not due", ""))
    assert results == {**failed, **not_due}
    versions = {(row["mode"], row["exit_status"], row["certbot"]) for row in last_run}
    assert versions == {("renew", "1", "5.8.0")}


def test_the_history_is_the_same_from_each_influxdb(fleet_json: dict[str, Any]) -> None:
    blog = [row for row in fleet_json["renewals"] if row["lineage"] == "blog.example.com"]
    newest, older, oldest = blog
    assert round(newest["days_late"], 2) == 1.2
    assert round(older["days_late"], 2) == 7.4
    assert oldest["days_late"] is None
    assert {row["lifetime_days"] for row in blog} == {90}
    card = cards_by_name(fleet_json)["blog.example.com on web1"]
    due_after = round(60.9 * DAY)  # two thirds of 90 days, and a hundredth of them
    assert newest["next_due"] == card["due"] == newest["time"] + due_after


def test_the_hosts_are_the_same_from_each_influxdb(fleet_json: dict[str, Any]) -> None:
    hosts = [(host["host"], host["kind"]) for host in fleet_json["hosts"]]
    assert hosts == [("db1", "silent"), ("web2", "failing")]


def test_since_cuts_the_history_but_not_what_its_first_renewals_are_compared_with(
    influxdb: InfluxDB, fleet_settings: FleetSettings, fleet_json: dict[str, Any]
) -> None:
    recent = board_json(fleet_settings(influxdb.name), "--since", "40d")["renewals"]
    assert 0 < len(recent) < len(fleet_json["renewals"])
    first_ones = ("status.example.com", IMAGE_NAME)  # they have no predecessor
    for row in recent:
        assert row["days_late"] is not None or row["lineage"] in first_ones


def test_a_measurement_may_have_any_name(server: Callable[[str], InfluxDB]) -> None:
    bucket = Bucket(server("influxd-2"))
    measurement = 'a "b" ${c}'
    state = certificate_state("fine.example.com", int(time.time()) + DAY)
    store(bucket, state._replace(measurement=measurement))
    assert run_board({**bucket.settings, "MEASUREMENT": measurement}).status == 0


# ---- The right to read -------------------------------------------------------------------------
@pytest.fixture
def guarded_influxdb(tmp_path: Path) -> Iterator[InfluxDB]:
    """An InfluxDB 1.x with authentication, and a user `hook` who may write to `telegraf`."""
    with start_influxdb(
        "influxd-1.12", tmp_path / "influxdb", config="auth-enabled = true"
    ) as influxdb:
        influxdb.command("CREATE USER admin WITH PASSWORD 'fake' WITH ALL PRIVILEGES")
        run_as_admin(influxdb, "CREATE DATABASE telegraf")
        run_as_admin(influxdb, "CREATE USER hook WITH PASSWORD 'fake-Secret-7f3'")
        run_as_admin(influxdb, "GRANT WRITE ON telegraf TO hook")
        yield influxdb


def run_as_admin(influxdb: InfluxDB, influxql: str) -> None:
    """Run a command of InfluxQL that only an administrator may run."""
    influxdb.command(influxql, u="admin", p="fake")


def test_a_user_who_may_only_write_is_refused_until_granted_to_read(
    guarded_influxdb: InfluxDB,
) -> None:
    settings = {
        **guarded_influxdb.settings("telegraf"),
        "INFLUXDB_TOKEN": "hook:fake-Secret-7f3",
    }
    refused = run_board(settings).err
    assert "allow the token or the user in INFLUXDB_TOKEN to read telegraf" in refused
    assert '"hook"' not in refused  # InfluxDB names the user
    run_as_admin(guarded_influxdb, "GRANT READ ON telegraf TO hook")
    assert "no certificate was reported to" in run_board(settings).err


def test_a_wrong_password_has_its_remedy(guarded_influxdb: InfluxDB) -> None:
    settings = {**guarded_influxdb.settings("telegraf"), "INFLUXDB_TOKEN": "hook:no"}
    assert "set INFLUXDB_TOKEN to" in run_board(settings).err


def test_a_token_that_may_only_write_has_its_remedy(server: Callable[[str], InfluxDB]) -> None:
    bucket = Bucket(server("influxd-2"))
    settings = {**bucket.settings, "INFLUXDB_TOKEN": new_token(bucket.influxdb, "write")}
    assert "or allow the token to read this bucket" in run_board(settings).err
