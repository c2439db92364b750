"""When certbot renews: each rule of the report hook against certbot's own code."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certbot._internal import renewal, storage

import certbot_renewal_report as hook
from support.hooks import Ran
from support.renewals import printed_points
from tools.servers.lineages import DAY, make_lineage

HOUR = 3600
NOT_BEFORE = 1_780_000_000  # any time


def reported_state(report_hook: Callable[..., Ran], live_folder: Path) -> dict[str, Any]:
    """Return the fields of the state that the hook reports of a renewal."""
    ran = report_hook("--dry-run", RENEWED_LINEAGE=str(live_folder), RENEWED_DOMAINS="example.com")
    fields: dict[str, Any] = printed_points(ran)[-1]["fields"]
    return fields


@pytest.mark.parametrize(
    ("lifetime", "due_after"),
    [
        (90 * DAY, 60 * DAY),
        (64 * DAY, 64 * DAY * 2 // 3),  # day 42.7
        (45 * DAY, 30 * DAY),
        (10 * DAY, 10 * DAY - 10 * DAY // 3),  # ten days exactly: a third is left
        (10 * DAY - 1, 5 * DAY),  # just under ten days: a half is left
        (160 * HOUR, 80 * HOUR),
        (40, 20),
    ],
)
def test_the_due_date_is_the_one_of_certbot(
    report_hook: Callable[..., Ran], certbot_folder: Path, lifetime: int, due_after: int
) -> None:
    live = make_lineage(certbot_folder, "example.com", ["example.com"], NOT_BEFORE, lifetime)
    assert reported_state(report_hook, live) == {
        "not_before": NOT_BEFORE,
        "renewal_due": NOT_BEFORE + due_after,
        "not_after": NOT_BEFORE + lifetime,
        "run_at": 0,
    }
    certbots_due_date = renewal._default_renewal_time((live / "cert.pem").read_bytes())
    assert abs(certbots_due_date.timestamp() - NOT_BEFORE - due_after) < 1


@pytest.mark.parametrize(
    "interval",
    [
        "30 days",
        "3 weeks",
        "720 hours",
        "30",
        "1 month",
        "1 mth",
        "6 months 1 week",
        "3 days 12 hours",
        "45 days, 12 hours",
        "30d",
        "3w",
        "12h",
        "90 minutes",
        "30 DAYS",
        "1 year",
        "1 day",
        "3.5 days",
        "0 days",
        "10 seconds",
        "1 week 2 days 3 hours 4 minutes 5 seconds",
    ],
)
def test_an_interval_means_what_certbot_makes_of_it(interval: str) -> None:
    utc = datetime.timezone.utc
    end = datetime.datetime(2026, 9, 15, 12, 0, 0, tzinfo=utc)
    moment = hook.subtract_interval(int(end.timestamp()), interval)
    assert moment is not None
    beginning = datetime.datetime.fromtimestamp(moment, utc)
    assert storage.add_time_interval(beginning, interval) == end


@pytest.mark.parametrize("text", ["", "banana", "days 30", "soon", "-30 days", "30 days or so"])
def test_a_text_that_is_no_interval_leaves_the_usual_due_date(text: str) -> None:
    assert hook.due_date(NOT_BEFORE, NOT_BEFORE + 90 * DAY, text) == NOT_BEFORE + 60 * DAY


@pytest.mark.parametrize(
    ("conf", "left"),
    [
        ("renew_before_expiry = 20 days\n", 20 * DAY),
        ("renew_before_expiry=2 weeks\n", 14 * DAY),
        ("renew_before_expiry = 720 hours  # as before\n", 720 * HOUR),
        ('renew_before_expiry = "25 days"\n', 25 * DAY),
        # Old versions of certbot wrote the setting as a comment.
        ("# renew_before_expiry = 20 days\n", 30 * DAY),
        # certbot does not read it below a section.
        ("[renewalparams]\nrenew_before_expiry = 20 days\n", 30 * DAY),
        ("renew_before_expiry =\n", 30 * DAY),
        # Longer than the lifetime: due from the beginning.
        ("renew_before_expiry = 3650 days\n", 90 * DAY),
    ],
)
def test_renew_before_expiry_moves_the_due_date(
    report_hook: Callable[..., Ran], certbot_folder: Path, conf: str, left: int
) -> None:
    names = ["example.com"]
    live = make_lineage(certbot_folder, "example.com", names, NOT_BEFORE, 90 * DAY, conf)
    state = reported_state(report_hook, live)
    assert state["not_after"] - state["renewal_due"] == left


def test_an_older_renewal_is_due_by_the_same_renew_before_expiry(
    run_report: Callable[..., Ran], certbot_folder: Path
) -> None:
    conf = "renew_before_expiry = 20 days\n"
    older = NOT_BEFORE - 70 * DAY
    for not_before in (older, NOT_BEFORE):
        names = ["example.com"]
        make_lineage(certbot_folder, "example.com", names, not_before, 90 * DAY, conf)
    due_after = {}
    for point in printed_points(run_report("--all", "--history", "--dry-run")):
        if "due_after" in point["fields"]:
            due_after[point["time"]] = point["fields"]["due_after"]
    assert due_after == {older: 70 * DAY, NOT_BEFORE: 70 * DAY}
