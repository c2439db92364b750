"""Intervals in renew_before_expiry: the report hook reads them as certbot does."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import pytest
from certbot._internal import storage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certbot_renewal_report import NUMBER_WORDS, subtract_interval
from tools.servers.lineages import DAY

HOUR = 3600
UTC = datetime.timezone.utc


def unix_time(text: str) -> int:
    """Return a time such as 2026-09-15 12:00:00 (UTC) in Unix seconds."""
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def certbot_adds(moment: int, interval: str) -> int:
    """Return the moment plus the interval, as certbot calculates it before each renewal."""
    begin = datetime.datetime.fromtimestamp(moment, UTC)
    return int(storage.add_time_interval(begin, interval).timestamp())


def assert_certbot_agrees(expiry: int, interval: str, tolerance: int = 0) -> None:
    """Check that certbot renews from the same time on, and not before; the tolerance in seconds.

    certbot renews when the current time plus the interval is later than the expiry.
    """
    due = subtract_interval(expiry, interval)
    if due is None:
        assert certbot_adds(expiry - 1, interval) < expiry, "certbot renews before the expiry"
    else:
        assert due < expiry
        assert certbot_adds(due + tolerance, interval) >= expiry
        assert certbot_adds(due - tolerance - 1, interval) < expiry


EXPIRY = unix_time("2026-09-15 12:00:00")
MOMENTS = [
    EXPIRY,
    unix_time("2027-01-01 00:00:00"),
    unix_time("2027-03-31 23:59:59"),  # a month earlier is not in February
    unix_time("2028-02-29 06:30:00"),
    unix_time("2028-12-31 12:00:00"),
]


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [
        ("30 days", 30 * DAY),
        ("30", 30 * DAY),
        (" 30 ", 30 * DAY),
        ("030", 30 * DAY),
        ("30 day", 30 * DAY),
        ("30days", 30 * DAY),
        ("30d", 30 * DAY),
        ("30 D", 30 * DAY),
        ("30 DAYS", 30 * DAY),
        ("'30 days'", 30 * DAY),
        ('"30 days"', 30 * DAY),
        ("30\tdays", 30 * DAY),
        ("+30 days", 30 * DAY),
        ("30 dy", 30 * DAY),
        ("3 weeks", 21 * DAY),
        ("3w", 21 * DAY),
        ("3 wk", 21 * DAY),
        ("two weeks", 14 * DAY),
        ("Two Weeks", 14 * DAY),
        ("a week", 7 * DAY),
        ("eleven days", 11 * DAY),
        ("twenty days", 20 * DAY),
        ("8 hours", 8 * HOUR),
        ("8 hr", 8 * HOUR),
        ("8h", 8 * HOUR),
        ("an hour", HOUR),
        ("90 minutes", 90 * 60),
        ("90 mins", 90 * 60),
        ("10 secs", 10),
        ("10 days and 6 hours", 10 * DAY + 6 * HOUR),
        ("3 weeks, 12 hours", 21 * DAY + 12 * HOUR),
        ("3 weeks,12 hours", 21 * DAY + 12 * HOUR),
        ("3 weeks 12 hours", 21 * DAY + 12 * HOUR),
        ("1d 12h", DAY + 12 * HOUR),
        ("1 week 2 days 3 hours 4 minutes 5 seconds", 9 * DAY + 3 * HOUR + 4 * 60 + 5),
        ("3.5 days", 84 * HOUR),
        ("0.5 days", 12 * HOUR),
        ("5 days - 6 hours", 5 * DAY - 6 * HOUR),
        ("1 month", 31 * DAY),
        ("one month", 31 * DAY),
        ("1 mth", 31 * DAY),
        ("6 months 1 week", (31 + 31 + 30 + 31 + 30 + 31 + 7) * DAY),
        ("1 year", 365 * DAY),
        ("1y", 365 * DAY),
        ("1.5 years", (365 + 184) * DAY),
        ("36500 days", 36500 * DAY),
        # Other words do not count.
        ("30 days left", 30 * DAY),
        ("30 days or so", 30 * DAY),
        ("within 30 days", 30 * DAY),
        ("20 to 30 days", 30 * DAY),
        ("30 days from now", 30 * DAY),
        ("before 30 days", 30 * DAY),
        ("10 days and 6 hours before expiry", 10 * DAY - 6 * HOUR),
        ("10 days and a week ago", 3 * DAY),
        # certbot understands only a part of these, or understands them in another way.
        ("2m", 120),
        ("half a day", DAY),
        ("half an hour", HOUR),
        ("1 day and a half", DAY),
        ("1,5 days", 5 * DAY),
        (".5 days", 5 * DAY),
        ("twenty one days", DAY),
        ("2 weeks and twelve hours", 14 * DAY),
    ],
)
def test_an_interval_means_what_certbot_makes_of_it(interval: str, seconds: int) -> None:
    assert subtract_interval(EXPIRY, interval) == EXPIRY - seconds
    for moment in MOMENTS:
        assert_certbot_agrees(moment, interval)


@pytest.mark.parametrize(
    "interval",
    [
        "",
        "banana",
        "soon",
        "none",
        "days",
        "days 30",
        "month",
        "thirty days",
        "twelve days",
        "twenty-one days",
        "half day",
        "a few days",
        "one hundred days",
        "30-days",
        "30_days",
        "1,000 days",
        "1mo",
        "2 wks",
        "8 hrs",
        "2h30m",
        "1 fortnight",
        "30 Tage",
        "P30D",
        "33%",
        "1e3",
        "0",
        "0 days",
        "zero days",
        "-30",
        "-30 days",
        "- 30 days",
        "-8h",
        "20-30 days",
        "6 hours - 5 days",
        "30 days ago",
        "30 days before expiry",
        "a month prior to the expiry",
        "10000000 days",  # beyond the year 9999
        "9999 years",
        "9" * 400 + " days",
        "9" * 400 + " years",
    ],
)
def test_certbot_renews_only_after_the_expiry(interval: str) -> None:
    assert subtract_interval(EXPIRY, interval) is None
    assert certbot_adds(EXPIRY - 1, interval) < EXPIRY


@pytest.mark.parametrize("interval", ["30.5", "1/3", "tomorrow", "next month", "monday", "eom"])
def test_a_date_is_not_an_interval(interval: str) -> None:
    """certbot reads a date or a time of day in it, which a due date cannot follow."""
    assert subtract_interval(EXPIRY, interval) is None


@pytest.mark.parametrize(
    ("expiry", "due"),
    [
        # The day exists in the month before.
        ("2027-03-28 12:00:00", "2027-02-28 12:00:00"),
        ("2027-05-30 12:00:00", "2027-04-30 12:00:00"),
        # It does not: on 28 February, a month later is 28 March; on 1 March, it is 1 April.
        ("2027-03-29 12:00:00", "2027-03-01 00:00:00"),
        ("2027-03-31 12:00:00", "2027-03-01 00:00:00"),
        ("2028-03-30 12:00:00", "2028-03-01 00:00:00"),
        ("2027-05-31 12:00:00", "2027-05-01 00:00:00"),
        ("2027-01-31 12:00:00", "2026-12-31 12:00:00"),
    ],
)
def test_a_month_before_the_end_of_a_longer_month(expiry: str, due: str) -> None:
    assert subtract_interval(unix_time(expiry), "1 month") == unix_time(due)
    assert_certbot_agrees(unix_time(expiry), "1 month")


def test_a_fraction_of_a_month_is_one_of_thirty_days() -> None:
    for moment in MOMENTS:
        assert_certbot_agrees(moment, "1.5 months", tolerance=DAY)
        assert_certbot_agrees(moment, "0.5 months", tolerance=DAY)
        assert_certbot_agrees(moment, "0.3 years", tolerance=DAY)


# ---- Any wording -------------------------------------------------------------------------------
SHORT_UNITS = ["seconds", "second", "secs", "sec", "s", "minutes", "minute", "mins", "min", "m"]
SHORT_UNITS += ["hours", "hour", "hr", "h", "days", "day", "dy", "d", "weeks", "week", "wk", "w"]
LONG_UNITS = ["months", "month", "mth", "years", "year", "yr", "y"]
UNKNOWN_UNITS = ["hrs", "dys", "wks", "mo", "mths", "yrs", "fortnights", "Tage", "-", ""]
UNKNOWN_NUMBERS = ["twelve", "thirty", "forty", "ninety", "hundred", "half", "few", "1,000"]

NUMBERS = st.sampled_from(["zero", *NUMBER_WORDS]) | st.integers(0, 30).map(str)
DECIMALS = st.sampled_from(["0.5", "1.5", "2.25", "10.75", "3.0", "007.5"])
SPACES = st.sampled_from([" ", "", "  ", "\t"])
PARTS = st.one_of(
    st.tuples(NUMBERS | DECIMALS, SPACES, st.sampled_from(SHORT_UNITS)),
    st.tuples(st.integers(0, 400).map(str), SPACES, st.sampled_from(SHORT_UNITS)),
    st.tuples(NUMBERS, SPACES, st.sampled_from(LONG_UNITS)),
).map("".join)
UNKNOWN_PARTS = st.one_of(
    st.tuples(NUMBERS, SPACES, st.sampled_from(UNKNOWN_UNITS)),
    st.tuples(st.sampled_from(UNKNOWN_NUMBERS), SPACES, st.sampled_from(SHORT_UNITS)),
).map("".join)
JOINTS = [" ", ", ", ",", " and ", ", and ", " & ", " + ", "; "]
MINUS = [" - ", " -"]
FRAMES = st.sampled_from(
    ["{}", "'{}'", '"{}"', " {} ", "-{}", "+{}", "about {}", "{} or so", "{} left", "in {}", "{}."]
)
BACKWARDS_FRAMES = st.sampled_from(["{} before expiry", "{} before", "{} ago", "{} prior to it"])


@st.composite
def wordings(
    draw: st.DrawFn,
    parts: st.SearchStrategy[str],
    frames: st.SearchStrategy[str],
    joints: Sequence[str],
) -> str:
    """One to four parts, such as "two weeks, 12 hours", in words and spellings that people use."""
    text = draw(parts)
    for _ in range(draw(st.integers(0, 3))):
        text += draw(st.sampled_from(joints)) + draw(parts)
    spellings = st.sampled_from([text, text, text.upper(), text.title()])
    return draw(frames).format(draw(spellings))


EXPIRIES = st.one_of(
    st.sampled_from(MOMENTS),
    st.integers(unix_time("2026-01-01 00:00:00"), unix_time("2036-01-01 00:00:00")),
)


ANY_WORDING = st.one_of(
    wordings(PARTS, FRAMES, JOINTS + MINUS),
    wordings(PARTS | UNKNOWN_PARTS, FRAMES, JOINTS),
    wordings(PARTS, BACKWARDS_FRAMES, JOINTS),
)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(expiry=EXPIRIES, interval=ANY_WORDING)
def test_any_wording_means_what_certbot_makes_of_it(expiry: int, interval: str) -> None:
    assert_certbot_agrees(expiry, interval)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(expiry=st.integers(0, 253402300799), interval=st.text())
@example(expiry=253402300799, interval="1 day - 2000 years - 9 months")
@example(expiry=0, interval="7000 years 1 month")
@example(expiry=EXPIRY, interval="9999w " * 100_000)
@example(expiry=EXPIRY, interval="-" * 100_000)
@example(expiry=EXPIRY, interval="-" + " " * 100_000)
@example(expiry=EXPIRY, interval="1" * 100_000)
def test_any_text_is_an_interval_or_none(expiry: int, interval: str) -> None:
    due = subtract_interval(expiry, interval)
    assert due is None or due < expiry
