"""When a certificate is due: by rule, and by certbot's verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import certbot_renewal_report as hook
from support.hooks import Ran
from support.renewals import printed_points
from tools.servers.lineages import DAY, make_lineage

HOUR = 3600
NOT_BEFORE = 1_780_000_000  # any time
LEFT_BY_DEFAULT = 30 * DAY - 90 * DAY // 100  # of 90 days, with a certbot that may ask the CA


def reported_state(report_hook: Callable[..., Ran], live_folder: Path) -> dict[str, Any]:
    """Return the fields of the state that the hook reports of a renewal."""
    ran = report_hook("--dry-run", RENEWED_LINEAGE=str(live_folder), RENEWED_DOMAINS="example.com")
    fields: dict[str, Any] = printed_points(ran)[-1]["fields"]
    return fields


LIFETIMES = {
    "90 d": 90 * DAY,
    "64 d": 64 * DAY,
    "47 d": 47 * DAY,
    "45 d": 45 * DAY,
    "160 h": 160 * HOUR,
    "24 h": DAY,
    "365 d": 365 * DAY,
    "180 d": 180 * DAY,
}


@pytest.mark.parametrize(
    ("lifetime", "before_4_0", "from_4_0", "from_4_1"),
    [
        # Hours from the beginning of the certificate. From 4.1, certbot may ask the CA (ARI): 1 %.
        ("365 d", 335 * 24, 5840, 5840 + 87.6),
        ("180 d", 150 * 24, 2880, 2880 + 43.2),
        ("90 d", 60 * 24, 1440, 1440 + 21.6),
        ("64 d", 34 * 24, 1024, 1024 + 15.36),
        ("47 d", 17 * 24, 752, 752 + 11.28),
        ("45 d", 15 * 24, 720, 720 + 10.8),
        # Shorter than the 30 days of certbot before 4.0: due from the beginning.
        ("160 h", 0, 80, 80 + 1.6),
        ("24 h", 0, 12, 12 + 0.24),
    ],
)
def test_the_due_date_by_the_version_of_certbot(
    lifetime: str, before_4_0: float, from_4_0: float, from_4_1: float
) -> None:
    not_after = NOT_BEFORE + LIFETIMES[lifetime]
    hours = {}
    for version in [(0, 31), (1, 21), (2, 1), (3, 3), (4, 0), (4, 1), (5, 8), (0, 0)]:
        due = hook.due_by_rule(NOT_BEFORE, not_after, version, "")
        hours[version] = (due - NOT_BEFORE) / HOUR
    assert hours == {
        (0, 31): before_4_0,
        (1, 21): before_4_0,
        (2, 1): before_4_0,
        (3, 3): before_4_0,
        (4, 0): from_4_0,
        (4, 1): pytest.approx(from_4_1),
        (5, 8): pytest.approx(from_4_1),
        (0, 0): pytest.approx(from_4_1),  # not known: as the newest
    }


@pytest.mark.parametrize(
    ("lifetime", "due_after"),
    [
        (10 * DAY, 10 * DAY - 10 * DAY // 3),  # ten days exactly: a third is left
        (10 * DAY - 1, 5 * DAY),  # just under ten days: a half is left
        (40, 20),
    ],
)
def test_a_lifetime_under_ten_days_is_renewed_at_its_half(lifetime: int, due_after: int) -> None:
    not_after = NOT_BEFORE + lifetime
    assert hook.due_by_rule(NOT_BEFORE, not_after, (4, 0), "") == NOT_BEFORE + due_after


@pytest.mark.parametrize("version", [(0, 0), (2, 1), (4, 0), (4, 1), (5, 8)])
@pytest.mark.parametrize(
    ("interval", "left"),
    [
        ("two weeks", 14 * DAY),
        ("10 days and 6 hours", 10 * DAY + 6 * HOUR),
        ("8 hours", 8 * HOUR),
        ("90 days", 90 * DAY),
        ("91 days", 90 * DAY),  # longer than the lifetime: due from the beginning
        # certbot does not understand these, and renews only after the expiry: the latest date.
        ("thirty days", 15 * DAY),
        ("banana", 15 * DAY),
        ("0 days", 15 * DAY),
        ("-30 days", 15 * DAY),
        ("30 days before expiry", 15 * DAY),
    ],
)
def test_renew_before_expiry_counts_in_every_version(
    version: tuple[int, int], interval: str, left: int
) -> None:
    not_after = NOT_BEFORE + 90 * DAY
    assert hook.due_by_rule(NOT_BEFORE, not_after, version, interval) == not_after - left


@pytest.mark.parametrize(
    ("lifetime", "left"),
    [
        ("365 d", 15 * DAY),
        ("180 d", 15 * DAY),
        ("90 d", 15 * DAY),  # a sixth, and 15 days
        ("64 d", 64 * DAY // 6),
        ("47 d", 47 * DAY // 6),
        ("45 d", 7.5 * DAY),
        ("160 h", 160 * HOUR // 6),
        ("24 h", 4 * HOUR),
    ],
)
def test_the_latest_due_date(lifetime: str, left: int) -> None:
    not_after = NOT_BEFORE + LIFETIMES[lifetime]
    assert hook.latest_due(NOT_BEFORE, not_after) == not_after - left


def day_due(verdict: hook.Verdict, rule: float = 60, lifetime: int = 90) -> float:
    """Return the day on which a certificate is due by certbot's verdict; by rule on day `rule`."""
    by_rule = NOT_BEFORE + int(rule * DAY)
    due = hook.due_with_verdict(by_rule, NOT_BEFORE, NOT_BEFORE + lifetime * DAY, verdict)
    return (due - NOT_BEFORE) / DAY


def verdict_on(
    not_due: float = 0, failed: float = 0, due_at_once: float = 0, not_before: int = NOT_BEFORE
) -> hook.Verdict:
    """Return a verdict about a certificate; the times are days of its lifetime, 0 for never."""

    def moment(day: float) -> int:
        return not_before + int(day * DAY) if day else 0

    return hook.Verdict(
        not_before,
        not_due_at=moment(not_due),
        failed_since=moment(failed),
        due_at_once=moment(due_at_once),
    )


@pytest.mark.parametrize(
    ("not_due", "due"), [(0, 60), (59, 60), (60, 60), (61.5, 61.5), (75, 75), (75.5, 75), (89, 75)]
)
def test_not_due_moves_the_due_date_up_to_the_latest(not_due: float, due: float) -> None:
    assert day_due(verdict_on(not_due=not_due)) == due


@pytest.mark.parametrize(("failed", "due"), [(2, 2), (60, 60), (61.5, 61.5), (75, 75), (76, 75)])
def test_a_certificate_is_due_since_the_first_failed_attempt(failed: float, due: float) -> None:
    assert day_due(verdict_on(failed=failed)) == due
    assert day_due(verdict_on(failed=failed, not_due=failed - 0.5)) == due


def test_no_verdict_moves_a_later_date_by_rule() -> None:
    assert day_due(verdict_on(), rule=85) == 85  # renew_before_expiry = 5 days
    assert day_due(verdict_on(not_due=89), rule=85) == 85
    assert day_due(verdict_on(failed=89), rule=85) == 85
    assert day_due(verdict_on(failed=80), rule=85) == 80


def test_the_alert_fires_at_the_run_that_did_not_follow_the_ca() -> None:
    # crit is one day.
    assert day_due(verdict_on(not_due=20, due_at_once=20)) == 19
    assert day_due(verdict_on(failed=20, due_at_once=20)) == 19
    assert day_due(verdict_on(failed=70, due_at_once=76)) == 70
    assert day_due(verdict_on(not_due=89, due_at_once=89)) == 75
    assert day_due(verdict_on(not_due=0.5, due_at_once=0.5)) == 0  # not before the certificate


@pytest.mark.parametrize("rule", [60, 85])
def test_a_verdict_about_another_certificate_counts_for_nothing(rule: float) -> None:
    older = NOT_BEFORE - 60 * DAY
    assert day_due(verdict_on(failed=61, not_before=older), rule) == rule
    assert day_due(verdict_on(not_due=150, due_at_once=70, not_before=older), rule) == rule
    assert day_due(hook.Verdict(0), rule) == rule


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
        ("[renewalparams]\nrenew_before_expiry = 20 days\n", LEFT_BY_DEFAULT),
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
