"""The queries that say what is overdue, by certificate, by host and by name, on every InfluxDB."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest

from certbot_renewal_report import Point
from support.points import (
    HOUR,
    certificate_renewal,
    certificate_state,
    name_renewal,
    reported_state,
    retired_state,
    with_tag,
    write,
)
from support.queries import Rows, days_in, rows_by, run_query, unix_seconds
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY

# A tag that Telegraf adds, or no longer adds: its value before the change, and after it.
TAG_CHANGES = pytest.mark.parametrize(
    ("tag_before", "tag_after"), [("", "north"), ("north", "")], ids=["added", "removed"]
)


# ---- overdue -----------------------------------------------------------------------------------
def test_days_overdue_and_days_left_are_exact_to_the_second(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    due = {"long": now - 60 * DAY, "just": now - 1, "soon": now + HOUR, "later": now + 59 * DAY}
    write(influxdb, bucket, *[certificate_state(name, moment) for name, moment in due.items()])

    rows = rows_by("lineage", run_query(influxdb, "overdue", bucket))

    assert set(rows) == set(due)
    for name, moment in due.items():
        row = rows[name]
        expiry = moment + 30 * DAY
        queried_at = unix_seconds(row["_time"])
        seconds_overdue = float(row["days_overdue"]) * DAY
        seconds_left = float(row["days_left"]) * DAY
        assert seconds_overdue == pytest.approx(queried_at - moment, abs=1)
        assert seconds_left == pytest.approx(expiry - queried_at, abs=1)
        assert unix_seconds(row["due"]) == moment
        assert unix_seconds(row["expiry"]) == expiry
        assert row["retired"] == "false"
        assert unix_seconds(row["judged_at"]) == queried_at


def test_on_a_host_with_run_reports_the_last_report_is_the_evidence(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(influxdb, bucket, reported_state("a", now - 5 * DAY, now - 2 * DAY))

    (row,) = run_query(influxdb, "overdue", bucket)

    assert float(row["days_overdue"]) == 3  # until the last report
    assert unix_seconds(row["judged_at"]) == now - 2 * DAY
    assert float(row["days_left"]) == pytest.approx(25, abs=0.01)  # from now


@pytest.mark.parametrize("clock_error", [-40 * DAY, 40 * DAY], ids=["behind", "ahead"])
def test_a_host_with_a_wrong_clock_is_judged_by_the_clock_of_the_server(
    influxdb: InfluxDB, clock_error: int
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    report_time = now - HOUR
    write(
        influxdb,
        bucket,
        certificate_state("late", now - 3 * DAY, run_at=report_time + clock_error, at=report_time),
        certificate_state("fine", now + DAY, run_at=report_time + clock_error, at=report_time),
    )

    rows = rows_by("lineage", run_query(influxdb, "overdue", bucket))

    assert days_in("days_overdue", rows["late"], digits=2) == pytest.approx(2.96)
    assert days_in("days_overdue", rows["fine"], digits=2) == pytest.approx(-1.04)
    assert unix_seconds(rows["late"]["judged_at"]) == report_time


def test_the_grace_is_half_of_the_time_between_due_date_and_expiry(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    due = int(time.time()) - HOUR
    write(
        influxdb,
        bucket,
        certificate_state("90 days", due, lifetime=90 * DAY),
        certificate_state("24 hours", due, lifetime=DAY),
        certificate_state("due at its expiry", due, lifetime=0),
        retired_state("retired"),
    )

    rows = rows_by("lineage", run_query(influxdb, "overdue", bucket))

    assert {name: float(row["grace_days"]) for name, row in rows.items()} == {
        "90 days": 15,
        "24 hours": pytest.approx(4 / 24),
        "due at its expiry": 0,
        "retired": 1,
    }


def test_each_certificate_has_the_reason_in_its_newest_report(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    failure = 'DNS problem: "NXDOMAIN" looking up A, for example.com'
    write(
        influxdb,
        bucket,
        certificate_state("fails", now - 5 * DAY, failure=failure),
        certificate_state("fails, not due", now + 5 * DAY, failure="autorenew = False"),
        certificate_state("recovered", now - 5 * DAY, failure=failure, at=now - HOUR),
        certificate_state("recovered", now + 55 * DAY),
    )

    rows = rows_by("lineage", run_query(influxdb, "overdue", bucket))

    assert {name: row["failure"] for name, row in rows.items()} == {
        "fails": failure,
        "fails, not due": "autorenew = False",
        "recovered": "none",
    }


def test_an_absurd_certificate_does_not_hide_the_others(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certificate_state("500 years", now + 333 * 365 * DAY, lifetime=500 * 365 * DAY),
        certificate_state("500 years, due", now - 5 * DAY, lifetime=500 * 365 * DAY),
        certificate_state("due before 1970", -5 * DAY),
        certificate_state("far away", 9 * 10**17),
        certificate_state("late", now - 5 * DAY),
    )

    rows = rows_by("lineage", run_query(influxdb, "overdue", bucket))
    (host,) = run_query(influxdb, "overdue_hosts", bucket)

    assert len(rows) == 5
    assert days_in("days_overdue", rows["500 years"]) < 0
    assert rows["500 years"]["expiry"] == "2255-03-14T16:00:00Z"  # Flux has no later time
    assert days_in("days_overdue", rows["500 years, due"]) == 5
    assert days_in("days_overdue", rows["far away"]) < 0
    assert days_in("days_overdue", rows["late"]) == 5
    assert "late" in host["lineages"]


def test_a_retired_certificate_is_not_overdue(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, retired_state("a", run_at=int(time.time())))

    (row,) = run_query(influxdb, "overdue", bucket)

    assert row["retired"] == "true"
    assert float(row["days_overdue"]) == -1


def test_every_row_has_the_time_of_the_query(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certificate_state("overdue", now - 60 * DAY),
        certificate_state("fine", now + 59 * DAY),
        reported_state("reported", now - 5 * DAY, now - 2 * DAY),
        retired_state("retired", run_at=now),
    )

    rows = run_query(influxdb, "overdue", bucket)

    assert len(rows) == 4
    assert len({row["_time"] for row in rows}) == 1
    assert unix_seconds(rows[0]["_time"]) >= now


def test_a_dashboard_shows_only_overdue_certificates_the_longest_first(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        reported_state("3 days", now - 5 * DAY, now - 2 * DAY),
        certificate_state("60 days", now - 60 * DAY),
        certificate_state("an hour", now - HOUR),
        certificate_state("an hour of three", now - HOUR, lifetime=6 * HOUR),
        certificate_state("fine", now + 59 * DAY),
        retired_state("retired", run_at=now),
    )

    rows = run_query(
        influxdb,
        "overdue",
        bucket,
        "|> filter(fn: (r) => r.days_overdue >= 1.0 or r.days_overdue >= r.grace_days)",
        '|> group() |> sort(columns: ["days_overdue"], desc: true)',
    )

    assert [row["lineage"] for row in rows] == ["60 days", "3 days", "an hour of three"]
    assert {row["table"] for row in rows} == {"0"}  # one table


# ---- overdue_hosts -----------------------------------------------------------------------------
class OverdueCertificate(NamedTuple):
    """An overdue certificate in the rows of the query overdue; `due` is in Unix seconds."""

    due: int
    lineage: str
    days_left: float
    failure: str


def overdue_by_host(rows: Rows) -> dict[str, list[OverdueCertificate]]:
    """Return the overdue certificates of each host, the one that was due last first."""
    by_host: dict[str, list[OverdueCertificate]] = {}
    for row in rows:
        of_host = by_host.setdefault(row["host"], [])
        if float(row["days_overdue"]) >= min(1.0, float(row["grace_days"])):
            due = unix_seconds(row["due"])
            days_left = float(row["days_left"])
            certificate = OverdueCertificate(due, row["lineage"], days_left, row["failure"])
            of_host.append(certificate)
            of_host.sort(reverse=True)
    return by_host


def sixty_certificates(now: int) -> list[Point]:
    """Return the states of certificates on four hosts, about half of them overdue.

    On two of the hosts they come from run reports of different ages. Every seventh is retired, and
    every fifth has a lifetime of two days.
    """
    states = []
    for number in range(60):
        lineage = f"c{number}"
        host = f"web{number % 4}"
        has_run_reports = number % 4 >= 2
        run_at = now - number * HOUR if has_run_reports else 0
        at = run_at or now - number
        if number % 7 == 0:
            states.append(retired_state(lineage, host=host, run_at=run_at, at=at))
            continue

        seconds_apart = 7 * (DAY // 3 - 600 * (number % 3))
        due = now - DAY + (number - 30) * seconds_apart
        lifetime = 2 * DAY if number % 5 == 0 else 90 * DAY
        failure = f"reason of {lineage}"
        state = certificate_state(
            lineage, due, host=host, lifetime=lifetime, run_at=run_at, failure=failure, at=at
        )
        states.append(state)
    return states


def test_by_host_the_same_certificates_are_overdue(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    overdue_then = certificate_state("tagged", now - 9 * DAY, host="fine", at=now - 90 * DAY)
    write(
        influxdb,
        bucket,
        *sixty_certificates(now),
        certificate_state("fine", now + DAY, host="fine"),
        retired_state("retired", host="retired"),
        with_tag(overdue_then, "dc", "north"),
        certificate_state("tagged", now + DAY, host="fine"),
    )

    expected = overdue_by_host(run_query(influxdb, "overdue", bucket))
    rows = rows_by("host", run_query(influxdb, "overdue_hosts", bucket))

    assert sum(len(certificates) for certificates in expected.values()) > 20
    assert set(rows) == set(expected)
    assert len(rows) == 6
    for host, certificates in expected.items():
        row = rows[host]
        lineages = [certificate.lineage for certificate in certificates]
        first_expiry = min((certificate.days_left for certificate in certificates), default=0.0)
        assert int(row["overdue"]) == len(certificates)
        assert row["lineages"] == (" ".join(lineages) or "none")
        assert float(row["days_left"]) == pytest.approx(first_expiry, abs=0.001)
        assert row["failure"] == (certificates[-1].failure if certificates else "none")


def test_the_row_of_a_host_has_the_time_since_when_its_newest_is_due(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        *sixty_certificates(now),
        certificate_state("a", now + DAY, host="fine"),
        retired_state("a", host="retired"),
    )

    expected = overdue_by_host(run_query(influxdb, "overdue", bucket))
    rows = rows_by("host", run_query(influxdb, "overdue_hosts", bucket))

    for host in ("web0", "web1", "web2", "web3"):
        newest = expected[host][0]
        oldest = expected[host][-1]
        assert unix_seconds(rows[host]["_time"]) == newest.due
        assert unix_seconds(rows[host]["oldest"]) == oldest.due
    assert unix_seconds(rows["fine"]["_time"]) >= now
    assert unix_seconds(rows["retired"]["_time"]) >= now


# ---- One tag more or less ----------------------------------------------------------------------
def test_with_another_tag_the_newest_report_of_a_certificate_counts(influxdb: InfluxDB) -> None:
    """The series with the old tags stays in InfluxDB, and nobody writes to it any more."""
    bucket = influxdb.new_bucket()
    now = int(time.time())
    new_report = certificate_state("a", now - 3 * DAY, at=now - 60)
    write(
        influxdb,
        bucket,
        certificate_state("a", now - 63 * DAY, at=now - 90 * DAY),
        with_tag(new_report, "dc", "north"),
    )

    (row,) = run_query(influxdb, "overdue", bucket)

    assert days_in("days_overdue", row) == 3


def write_renewals_around_a_tag_change(
    influxdb: InfluxDB, bucket: str, now: int, tag_before: str, tag_after: str
) -> None:
    """Write two renewals of a.example.com; the second was reported before the change and after it.

    The lineage is a. It was renewed 69 days ago and a day ago.
    """
    first = now - 69 * DAY
    second = now - DAY
    old_state = certificate_state("a", first + 60 * DAY, at=now - 20 * DAY)
    new_state = certificate_state("a", second + 60 * DAY, at=now - 60)
    write(
        influxdb,
        bucket,
        with_tag(old_state, "dc", tag_before),
        with_tag(new_state, "dc", tag_after),
    )
    for tag, moment in ((tag_before, first), (tag_before, second), (tag_after, second)):
        of_certificate = certificate_renewal("a", moment, ["a.example.com"])
        of_name = name_renewal("a.example.com", moment)
        write(influxdb, bucket, with_tag(of_certificate, "dc", tag), with_tag(of_name, "dc", tag))


@TAG_CHANGES
def test_with_another_tag_a_certificate_has_one_row(
    influxdb: InfluxDB, tag_before: str, tag_after: str
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write_renewals_around_a_tag_change(influxdb, bucket, now, tag_before, tag_after)

    (overdue,) = run_query(influxdb, "overdue", bucket)
    (certificate,) = run_query(influxdb, "certificates", bucket)
    (domain,) = run_query(influxdb, "domains", bucket)

    assert overdue["lineage"] == "a"
    assert days_in("days_overdue", overdue) == -59
    assert certificate["lineage"] == "a"
    assert days_in("age_days", certificate) == 1
    assert domain["domain"] == "a.example.com"
    assert days_in("age_days", domain) == 1


@TAG_CHANGES
def test_with_another_tag_a_renewal_is_in_the_history_once(
    influxdb: InfluxDB, tag_before: str, tag_after: str
) -> None:
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write_renewals_around_a_tag_change(influxdb, bucket, now, tag_before, tag_after)

    rows = run_query(influxdb, "history", bucket)

    assert [unix_seconds(row["time"]) for row in rows] == [now - 69 * DAY, now - DAY]
    assert {row["lineage"] for row in rows} == {"a"}
    assert {row["names"] for row in rows} == {"a.example.com"}


# ---- overdue_domains ---------------------------------------------------------------------------
def write_names_renewed_at_noon(influxdb: InfluxDB, bucket: str) -> None:
    """Write renewals of d1, d30, d61, d62 and d64.example.com: at noon, so many days ago."""
    midnight = int(time.time()) // DAY * DAY
    for days in (1, 30, 61, 62, 64):
        write(
            influxdb,
            bucket,
            name_renewal(f"d{days}.example.com", midnight - days * DAY + DAY // 2),
        )


def test_overdue_domains_counts_days_as_the_published_query_does(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    write_names_renewed_at_noon(influxdb, bucket)

    rows = rows_by("domain", run_query(influxdb, "overdue_domains", bucket))

    # The days without a renewal until today. The first of them counts as 0.
    assert int(rows["d30.example.com"]["stateDuration"]) == 28
    assert int(rows["d61.example.com"]["stateDuration"]) == 59
    assert int(rows["d62.example.com"]["stateDuration"]) == 60


def test_a_dashboard_shows_only_names_that_are_overdue(influxdb: InfluxDB) -> None:
    bucket = influxdb.new_bucket()
    write_names_renewed_at_noon(influxdb, bucket)

    rows = run_query(
        influxdb, "overdue_domains", bucket, "|> filter(fn: (r) => r.stateDuration >= 61)"
    )

    assert [row["domain"] for row in rows] == ["d64.example.com"]
