"""The renewal board in a terminal: the table, the lines below it, the exit status, and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import time

import pytest

from support.board import (
    STRANGE_HOST,
    FleetSettings,
    board_json,
    run_board,
    store,
)
from support.buckets import Bucket
from support.points import (
    certbot_run,
    certificate_state,
    dry_run_result,
    reported_state,
    retired_host,
)
from tools.servers.lineages import DAY


def test_with_all_certificates_renewed_the_status_is_0(one_bucket: Bucket) -> None:
    now = int(time.time())
    store(
        one_bucket,
        certificate_state("fine.example.com", now + DAY, run_at=now),
        certbot_run("web1", now, exit_status=0),
    )
    run = run_board(one_bucket.settings)
    assert (run.status, run.err) == (0, "")
    assert re.search(r"renewed +fine\.example\.com +web1", run.out)


def test_the_table_names_what_is_wrong_and_the_status_is_1(one_bucket: Bucket) -> None:
    now = int(time.time())
    store(
        one_bucket,
        certificate_state("late.example.com", now - 2 * DAY, run_at=now),
        certbot_run("web2", now, unreadable="broken", exit_status=1),
    )
    run = run_board(one_bucket.settings)
    assert run.status == 1
    assert re.search(r"overdue +late\.example\.com +web1", run.out)
    assert re.search(r"failing +broken +web2", run.out)
    notes = (
        "late.example.com on web1: overdue by 2.0 days\nbroken on web2: certbot cannot read it\n"
    )
    assert notes in run.out
    assert "web2: the last certbot run failed (unreadable: broken; exit status 1)" in run.out


def test_crit_is_the_number_of_days_after_which_a_certificate_is_overdue(
    one_bucket: Bucket,
) -> None:
    now = int(time.time())
    store(one_bucket, certificate_state("late.example.com", now - 2 * DAY, run_at=now))
    assert run_board(one_bucket.settings).status == 1
    assert run_board(one_bucket.settings, "--crit", "3").status == 0


@pytest.mark.parametrize(("hours", "state"), [(3.9, "due"), (4.1, "overdue")])
def test_a_certificate_of_a_day_is_overdue_after_half_of_the_time_to_its_expiry(
    one_bucket: Bucket, hours: float, state: str
) -> None:
    now = int(time.time())
    due = now - round(hours * 3600)  # the expiry is eight hours later
    store(one_bucket, certificate_state("day", due, lifetime=DAY, run_at=now))
    assert re.search(rf"{state} +day +web1", run_board(one_bucket.settings).out)


def test_when_most_hosts_are_silent_the_board_says_that_it_may_be_the_server(
    one_bucket: Bucket,
) -> None:
    then = int(time.time()) - 3 * DAY
    for number in range(3):
        store(
            one_bucket,
            reported_state("a", then + 9 * DAY, then, host=f"web{number}"),
            certbot_run(f"web{number}", then),
        )
    run = run_board(one_bucket.settings)
    assert run.status == 1
    silent = "no run report for 3.0 days"
    assert f"(most hosts): {silent}: 3 of 3 hosts: web0, web1, web2" in run.out
    assert f"web1: {silent}. Most hosts were silent until recently" in run.out


def test_of_many_silent_hosts_the_first_ten_are_named_and_all_are_counted(
    one_bucket: Bucket,
) -> None:
    then = int(time.time()) - 3 * DAY
    hosts = [f"web{number:02}" for number in range(12)]
    store(one_bucket, *(reported_state("a", then + 9 * DAY, then, host=host) for host in hosts))
    store(one_bucket, *(certbot_run(host, then) for host in hosts))
    problems = {host["host"]: host["problem"] for host in board_json(one_bucket.settings)["hosts"]}
    first = ", ".join(hosts[:10])
    assert problems["(most hosts)"] == f"no run report for 3.0 days: 12 of 12 hosts: {first}, ..."


def test_a_certificate_that_nobody_has_reported_since_is_not_called_renewed(
    one_bucket: Bucket,
) -> None:
    now = int(time.time())
    store(
        one_bucket,
        reported_state("a", now - 40 * DAY, now - 60 * DAY, host="expired"),
        reported_state("a", now - 2 * DAY, now - 3 * DAY, host="away"),
        certbot_run("away", now - 3 * DAY),
        reported_state("a", now - 3600, now - 7200, host="here"),
    )
    for number in range(4):
        store(one_bucket, reported_state("a", now + DAY, now, host=f"web{number}"))
    run = run_board(one_bucket.settings)
    assert run.status == 1
    rows = [row.split() for row in run.out.splitlines()]
    states = {row[2]: row[0] for row in rows if row[1] == "a"}
    assert states == {
        "expired": "overdue",  # since it has expired
        "away": "failing",
        "here": "due",  # since its last report
        "web0": "renewed",
        "web1": "renewed",
        "web2": "renewed",
        "web3": "renewed",
    }
    assert "a on expired: overdue by 40.0 days; expired" in run.out
    assert "a on away: its host is silent: check whether the certificate was renewed" in run.out


def test_a_certificate_that_is_not_valid_yet_has_a_note(one_bucket: Bucket) -> None:
    now = int(time.time())
    store(one_bucket, reported_state("early", now + 90 * DAY, now, host="here"))
    run = run_board(one_bucket.settings)
    assert "early on here: not valid yet: check the clocks" in run.out


def test_a_note_says_when_the_certificate_of_a_target_expired(one_bucket: Bucket) -> None:
    now = int(time.time())
    fields = (
        f"deployed={now - 91 * DAY}i,deployed_expiry={now - DAY}i,"
        f'renewed={now - 5 * DAY}i,run_at={now}i,deploy_error="no route"'
    )
    store(
        one_bucket,
        certificate_state("a", now + 55 * DAY, run_at=now, at=now),
        f"certbot_renewal,host=web1,lineage=a,target=edge {fields} {now}",
    )
    assert re.search(
        r"a on web1: not delivered to edge for 5\.0 days "
        r"\(the certificate there expired .*\): no route\n",
        run_board(one_bucket.settings).out,
    )


def test_of_many_names_that_failed_the_first_are_shown(one_bucket: Bucket) -> None:
    now = int(time.time())
    failed = " ".join([*(f"c{number}" for number in range(9)), "..."])  # more than a field holds
    store(
        one_bucket,
        certificate_state("c0", now - 3600, run_at=now),
        certbot_run("web1", now, failed=failed, exit_status=1),
    )
    run = run_board(one_bucket.settings)
    names = "c0 c1 c2 c3 c4 c5 and 4 more"
    assert f"web1: the last certbot run failed (not renewed: {names}; exit status 1)" in run.out
    assert "c8 on web1: not renewed in the last certbot run" in run.out
    assert "... on web1" not in run.out


# ---- Reasons -----------------------------------------------------------------------------------
def test_a_certificate_that_fails_has_certbots_reason(one_bucket: Bucket) -> None:
    now = int(time.time())
    store(
        one_bucket,
        certificate_state("a", now - 3600, run_at=now),
        certbot_run(
            "web1",
            now,
            failed="a",
            unreadable="b",
            failures="a: no A record: NXDOMAIN | b: no private key",
            exit_status=1,
        ),
    )
    out = run_board(one_bucket.settings).out
    assert "a on web1: not renewed in the last certbot run; reason: no A record: NXDOMAIN\n" in out
    assert "b on web1: certbot cannot read it; reason: no private key\n" in out


def test_an_overdue_certificate_that_no_run_attempts_has_the_reason_of_its_state(
    one_bucket: Bucket,
) -> None:
    now = int(time.time())
    state = certificate_state("a", now - 2 * DAY, run_at=now, failure="autorenew = False")
    store(one_bucket, state, certbot_run("web1", now))
    out = run_board(one_bucket.settings).out
    assert "a on web1: overdue by 2.0 days; reason: autorenew = False\n" in out


def test_a_run_that_fails_as_a_whole_has_its_reason_at_the_host(one_bucket: Bucket) -> None:
    now = int(time.time())
    store(
        one_bucket,
        certificate_state("a", now + DAY, run_at=now),
        certbot_run("web1", now, step=1, failure="Another instance of Certbot is running."),
    )
    run = run_board(one_bucket.settings)
    reason = "Another instance of Certbot is running."
    assert f"web1: the last certbot run failed: {reason}\n" in run.out


def test_a_host_has_one_problem_however_many_steps_its_incident_has(one_bucket: Bucket) -> None:
    now = int(time.time())
    store(
        one_bucket,
        certificate_state("a", now + DAY, run_at=now),
        certbot_run("web1", now, failed="a b", step=2),
    )
    assert run_board(one_bucket.settings).out.count("the last certbot run failed") == 1


def test_a_run_of_certbot_that_succeeds_ends_the_problem_and_not_its_record(
    one_bucket: Bucket,
) -> None:
    now = int(time.time())
    store(
        one_bucket,
        certificate_state("a", now + DAY, run_at=now),
        certbot_run("web1", now - 9 * DAY, failed="a b", failures="a: refused"),
        certbot_run("web1", now),
    )
    (card,) = board_json(one_bucket.settings, status=0)["certificates"]
    assert (card["state"], card["reason"]) == ("renewed", "")
    assert (card["last_failure"], card["failed_with"]) == (now - 9 * DAY, ["b"])


# ---- Labels ------------------------------------------------------------------------------------
def test_a_certificate_of_a_staging_ca_is_labelled(one_bucket: Bucket) -> None:
    now = int(time.time())
    state = certificate_state("test.example.com", now + DAY)
    store(
        one_bucket,
        state._replace(fields={**state.fields, "staging": 1}),
        certificate_state("real.example.com", now + DAY),  # as older programs report it
    )
    run = run_board(one_bucket.settings)
    assert "renewed  test.example.com (staging)  web1" in run.out
    assert re.search(r"renewed  real\.example\.com +web1", run.out)


def test_the_certificates_of_a_retired_host_are_retired(one_bucket: Bucket) -> None:
    now = int(time.time())
    then = now - 9 * DAY
    store(
        one_bucket,
        reported_state("a", then - 2 * DAY, then, host="gone"),
        certbot_run("gone", then, failed="a"),
        retired_host("gone", now - 60),
        certificate_state("a", now + DAY, host="here", run_at=now),
        certbot_run("here", now),
    )
    run = run_board(one_bucket.settings)
    assert run.status == 0
    assert re.search(r"retired  a +gone", run.out)
    assert "gone:" not in run.out


# ---- Dry runs ----------------------------------------------------------------------------------
def test_a_dry_run_counts_for_30_days(one_bucket: Bucket) -> None:
    now = int(time.time())
    store(
        one_bucket,
        certificate_state("a", now + DAY),
        dry_run_result("a", "none", at=now - 60),
        dry_run_result("b", "no A record", at=now - 29 * DAY),
        dry_run_result("c", "no A record", at=now - 31 * DAY),
    )
    out = run_board(one_bucket.settings).out
    assert re.search(r"web1: dry run at .* UTC, 2 certificates, failed: b\n", out)


# ---- Commands ----------------------------------------------------------------------------------
def test_the_suggested_commands_are_quoted_for_a_shell(one_bucket: Bucket) -> None:
    now = int(time.time())
    then = now - 3 * DAY
    store(
        one_bucket,
        certificate_state("two words", now - 2 * DAY, host="web1", run_at=now),
        certbot_run("web1", now, failed="$(id)", exit_status=1),
        reported_state("a", now + DAY, then, host="it's"),
        certbot_run("it's", then),
    )
    whole = json.loads(run_board(one_bucket.settings, "--json").out)
    commands = {
        card["lineage"]: [step["command"] for step in card["steps"]]
        for card in whole["certificates"]
    }
    assert commands["$(id)"] == ["certbot renew --cert-name '$(id)' --dry-run"]
    assert commands["two words"][0] == "certbot renew --cert-name 'two words' --dry-run"
    (silent,) = (host for host in whole["hosts"] if host["host"] == "it's")
    run_report = "/etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py"
    assert silent["steps"][1]["command"] == f"{run_report} --retire --host 'it'\"'\"'s'"


# ---- Names that attack -------------------------------------------------------------------------
def test_a_name_that_a_spreadsheet_would_take_for_a_formula_has_an_apostrophe(
    fleet_settings: FleetSettings,
) -> None:
    printed = run_board(fleet_settings("influxd-1.12"), "--csv").out
    rows = list(csv.DictReader(io.StringIO(printed, newline="")))
    (host,) = {row["host"] for row in rows if "cmd" in row["host"]}
    assert host == f"'{STRANGE_HOST.name}"


def test_no_name_reaches_the_terminal_as_an_escape_sequence(
    fleet_settings: FleetSettings,
) -> None:
    assert "\x1b" not in run_board(fleet_settings("influxd-1.12")).out
