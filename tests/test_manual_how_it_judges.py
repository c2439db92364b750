"""docs/how-it-judges.md has the due dates that the report hook calculates."""

from __future__ import annotations

import pytest

from certbot_renewal_report import due_by_rule
from support.documents import rows_of
from support.manual import read_page
from support.points import HOUR
from tools.servers.lineages import DAY

PAGE = read_page("how-it-judges.md")
UNITS = {"day": DAY, "days": DAY, "hour": HOUR, "hours": HOUR}
GRACE = DAY  # crit

ROWS = rows_of(PAGE, "Due date", "| lifetime | due | left | alert |")


def seconds_of(text: str) -> float:
    """Return a time such as `90 days` or `hour 80` in seconds."""
    (number,) = [word for word in text.split() if word not in UNITS]
    (unit,) = [word for word in text.split() if word in UNITS]
    return float(number) * UNITS[unit]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_certificate_is_due_when_the_page_says(row: list[str]) -> None:
    lifetime, due, left, alert = [seconds_of(cell) for cell in row]
    begin = 1_790_000_000
    due_after = due_by_rule(begin, begin + int(lifetime), (4, 1), "") - begin

    tenth_of_a_day = DAY / 10
    assert due == pytest.approx(due_after, abs=tenth_of_a_day)
    assert left == pytest.approx(lifetime - due_after, abs=tenth_of_a_day)
    assert alert == pytest.approx(due_after + GRACE, abs=tenth_of_a_day)
