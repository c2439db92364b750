"""The chart of the renewal board: which renewals are in it, and how high the bars are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from renewal_board.chart import Chart, chart_of
from renewal_board.model import DAY, Fleet, Renewal

MADE = 1_735_689_600 + DAY // 2  # 2025-01-01 12:00 UTC
TODAY = MADE // DAY


def chart_of_renewals(days: Sequence[int], since: int = 0) -> Chart:
    """Return the chart of the host web1, which renews once on each of these days since 1970."""
    renewals = [
        Renewal(day * DAY + 60, "web1", "a", [], lifetime_days=90, next_due=None, days_late=None)
        for day in days
    ]
    fleet = Fleet(
        made=MADE, since=since, cards=[], hosts=[], renewals=renewals, dry_runs=[], notice=""
    )
    return chart_of(fleet)


@pytest.mark.parametrize(
    ("day", "count"),
    [(TODAY - 90, 0), (TODAY - 89, 1), (TODAY, 1), (TODAY + 1, 0)],
)
def test_the_renewals_of_the_last_90_days_are_in_the_chart(day: int, count: int) -> None:
    chart = chart_of_renewals([day])
    assert len(chart.bars) == 90
    assert [bar.day for bar in chart.bars][-1] == "2025-01-01"
    assert sum(bar.count for bar in chart.bars) == count
    assert chart.hosts == ["web1"] * count
    assert chart.most == count


def test_renewals_of_a_clock_that_is_ahead_do_not_shrink_the_other_bars() -> None:
    chart = chart_of_renewals([TODAY, TODAY, *[TODAY + 1] * 10])
    assert chart.most == 2
    assert [part.height for part in chart.bars[-1].parts] == [1.0]


def test_the_chart_begins_with_the_boards_renewals() -> None:
    chart = chart_of_renewals([TODAY - 3, TODAY - 2], since=(TODAY - 2) * DAY)
    assert [bar.count for bar in chart.bars] == [1, 0, 0]
