"""The queries of flux/, the same text on every InfluxDB: what an administrator sees in each."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.points import run_point, state, write
from support.queries import run_query, seconds
from support.servers import require_program
from tools import ROOT
from tools.generate import templates
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY
from tools.servers.processes import built_program

ALL = sorted((ROOT / "flux").glob("*.flux"))


def test_overdue_is_exact_to_the_second(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    due = {"60d": now - 60 * DAY, "just": now - 1, "soon": now + 3600, "far": now + 59 * DAY}
    write(influxdb, bucket, *(state(name, moment) for name, moment in due.items()))
    write(
        influxdb,
        bucket,
        state("reported", now - 5 * DAY, run_at=now - 2 * DAY),
        state("ended", 0, run_at=now),
    )
    rows = {row["lineage"]: row for row in run_query(influxdb, "overdue", bucket)}
    assert set(rows) == {*due, "reported", "ended"}
    for name, moment in due.items():
        row = rows[name]
        at = seconds(row["_time"])
        assert abs(float(row["days_overdue"]) * DAY - (at - moment)) <= 1
        assert abs(float(row["days_left"]) * DAY - (moment + 30 * DAY - at)) <= 1
        assert (seconds(row["due"]), seconds(row["expiry"]), row["ended"]) == (
            moment,
            moment + 30 * DAY,
            "false",
        )
    assert float(rows["reported"]["days_overdue"]) == 3  # at the evidence, not now
    assert abs(float(rows["reported"]["days_left"]) - 25) < 0.01  # until the expiry it is from now
    assert {row["_time"] for row in rows.values()} == {rows["just"]["_time"]}
    assert (rows["ended"]["ended"], float(rows["ended"]["days_overdue"])) == ("true", -1)
    table = run_query(
        influxdb,
        "overdue",
        bucket,
        '|> filter(fn: (r) => r.days_overdue >= 1.0) |> group() |> sort(columns: ["days_overdue"], desc: true)',
    )
    assert [row["lineage"] for row in table] == ["60d", "reported"]
    assert {row["table"] for row in table} == {"0"}


def test_by_host_the_same_is_overdue_as_by_certificate(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    for number in range(60):
        host, due = (
            f"web{number % 4}",
            now - DAY + 7 * (number - 30) * (DAY // 3 - 600 * (number % 3)),
        )
        run_at = 0 if number % 4 < 2 else now - number * 3600
        write(
            influxdb,
            bucket,
            state(
                f"c{number}",
                due if number % 7 else 0,
                host=host,
                run_at=run_at,
                at=run_at or now - number,
            ),
        )
    write(influxdb, bucket, state("fine", now + DAY, host="fine"), state("gone", 0, host="gone"))
    write(
        influxdb,
        bucket,
        state("tagged", now - 9 * DAY, host="fine", at=now - 90 * DAY).replace(
            " ", ",dc=north ", 1
        ),
    )
    write(influxdb, bucket, state("tagged", now + DAY, host="fine"))
    expected: dict[str, list[tuple[int, str]]] = {
        row["host"]: [] for row in run_query(influxdb, "overdue", bucket)
    }
    expiry = dict.fromkeys(expected, 0.0)
    for row in run_query(influxdb, "overdue", bucket):
        if float(row["days_overdue"]) >= 1.0:
            expected[row["host"]].append((seconds(row["due"]), row["lineage"]))
            expiry[row["host"]] = min(expiry[row["host"]] or 99, float(row["days_left"]))
    rows = {row["host"]: row for row in run_query(influxdb, "overdue_hosts", bucket)}
    assert len(rows) == 6 and sum(len(found) for found in expected.values()) > 20
    assert {host: row["lineages"] for host, row in rows.items()} == {
        host: " ".join(name for _, name in sorted(found, reverse=True)) or "none"
        for host, found in expected.items()
    }
    for host, found in expected.items():
        row = rows[host]
        assert int(row["overdue"]) == len(found)
        assert abs(float(row["days_left"]) - expiry[host]) < 0.001
        if found:
            assert (seconds(row["oldest"]), seconds(row["_time"])) == (min(found)[0], max(found)[0])
        else:
            assert seconds(row["_time"]) >= now


def test_a_tag_more_makes_no_second_certificate(influxdb: InfluxDB) -> None:
    """Telegraf adds its global tags: with them a series begins beside the one from before, which nobody writes to any more."""
    bucket, now = influxdb.new_bucket(), int(time.time())
    write(influxdb, bucket, state("late", now - 63 * DAY, at=now - 90 * DAY))
    write(influxdb, bucket, state("late", now - 3 * DAY, at=now - 60).replace(" ", ",dc=north ", 1))
    assert [
        round(float(row["days_overdue"])) for row in run_query(influxdb, "overdue", bucket)
    ] == [3]
    bucket, begin = influxdb.new_bucket(), now - DAY
    for lineage, old, new in (("gains", "", ",dc=north"), ("loses", ",dc=north", "")):
        write(
            influxdb,
            bucket,
            state(lineage, now - 9 * DAY, at=now - 20 * DAY).replace(" ", f"{old} ", 1),
        )
        write(
            influxdb,
            bucket,
            state(lineage, begin + 60 * DAY, at=now - 60).replace(" ", f"{new} ", 1),
        )
        for tags, moment in ((old, now - 69 * DAY), (old, begin), (new, begin)):
            whole = f"certbot_renewal,domain=all,host=web1,lineage={lineage}{tags}"
            write(
                influxdb,
                bucket,
                f'{whole} renewed_count=1,lifetime=7776000i,due_after=5184000i,names="{lineage}.example.com" {moment}',
            )
            write(
                influxdb,
                bucket,
                f"certbot_renewal,domain={lineage}.example.com,host=web1{tags} renewed_count=1 {moment}",
            )
    rows = run_query(influxdb, "overdue", bucket)
    assert {row["lineage"]: round(float(row["days_overdue"])) for row in rows} == {
        "gains": -59,
        "loses": -59,
    }
    for name, query in (("lineage", "overdue"), ("lineage", "certificates"), ("domain", "domains")):
        assert sorted(row[name].split(".")[0] for row in run_query(influxdb, query, bucket)) == [
            "gains",
            "loses",
        ]
    assert [
        round(float(row["age_days"])) for row in run_query(influxdb, "certificates", bucket)
    ] == [1, 1]
    assert [round(float(row["age_days"])) for row in run_query(influxdb, "domains", bucket)] == [
        1,
        1,
    ]
    history = [
        (seconds(row["time"]), row["lineage"]) for row in run_query(influxdb, "history", bucket)
    ]
    assert history == [
        (at, lineage) for at in (now - 69 * DAY, begin) for lineage in ("gains", "loses")
    ]
    assert {row["names"] for row in run_query(influxdb, "history", bucket)} == {
        "gains.example.com",
        "loses.example.com",
    }


def test_a_tag_more_makes_no_second_host(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    for host, old, new in (("gains", "", ",dc=north"), ("loses", ",dc=north", "")):
        for tags, at, names in ((old, now - 9 * DAY, "a b"), (new, now - 60, "")):
            write(
                influxdb,
                bucket,
                state("a", now + DAY, host=host, run_at=at, at=at).replace(" ", f"{tags} ", 1),
            )
            write(
                influxdb,
                bucket,
                run_point(host, at, names, exit_status=1 if names else 0).replace(
                    " ", f"{tags} ", 1
                ),
            )
    assert [(row["host"], row["failing"]) for row in run_query(influxdb, "failing", bucket)] == [
        ("gains", "false"),
        ("loses", "false"),
    ]
    silent = [
        (row["host"], round(float(row["days_silent"])))
        for row in run_query(influxdb, "silent_hosts", bucket)
    ]
    assert silent == [("(most hosts)", -1), ("gains", 0), ("loses", 0)]


def test_certificates_oldest_first(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    write(
        influxdb,
        bucket,
        state("young", now + 59 * DAY),
        state("old", now + DAY, host="web2"),
        state("ended", 0),
    )
    write(
        influxdb,
        bucket,
        f"certbot_renewal,domain=all,host=web1 renewed_count=1 {now}",
        f"certbot_renewal,host=web1 certificates=3i {now}",
    )
    rows = run_query(influxdb, "certificates", bucket)
    assert [(row["host"], row["lineage"], round(float(row["age_days"]), 3)) for row in rows] == [
        ("web2", "old", 59),
        ("web1", "young", 1),
    ]
    assert [seconds(row["next_renewal"]) for row in rows] == [now + DAY, now + 59 * DAY]
    assert [seconds(row["expiry"]) for row in rows] == [now + 31 * DAY, now + 89 * DAY]


def test_domains_oldest_first(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    for name, days in (("a.example.com", 5), ("b.example.com", 50), ("a.example.com", 65)):
        write(
            influxdb,
            bucket,
            f"certbot_renewal,domain={name},host=web1 renewed_count=1 {now - days * DAY}",
        )
    rows = run_query(influxdb, "domains", bucket)
    assert [(row["domain"], row["host"], round(float(row["age_days"]))) for row in rows] == [
        ("b.example.com", "web1", 50),
        ("a.example.com", "web1", 5),
    ]


def test_renewals_per_host_and_day(influxdb: InfluxDB) -> None:
    bucket, today = influxdb.new_bucket(), int(time.time()) // DAY * DAY
    for host, lineage, days in (
        ("web1", "a", 3),
        ("web1", "b", 3),
        ("web1", "a", 5),
        ("web2", "a", 3),
    ):
        write(
            influxdb,
            bucket,
            f"certbot_renewal,domain=all,host={host},lineage={lineage} renewed_count=7 {today - days * DAY + 60}",
        )
    rows = run_query(influxdb, "renewals_per_host", bucket)
    counts = {(row["host"], seconds(row["_time"])): int(row["_value"]) for row in rows}
    assert {place: count for place, count in counts.items() if count} == {
        ("web1", today - 2 * DAY): 2,  # a window carries the time of its end
        ("web1", today - 4 * DAY): 1,
        ("web2", today - 2 * DAY): 1,
    }
    assert len(counts) >= 60  # days without a renewal too


def test_overdue_domains_counts_as_published(influxdb: InfluxDB) -> None:
    bucket, midnight = influxdb.new_bucket(), int(time.time()) // DAY * DAY
    for days in (1, 30, 61, 62, 64):  # renewed at noon, that many days before today
        write(
            influxdb,
            bucket,
            f"certbot_renewal,domain=d{days}.example.com,host=web1 renewed_count=1 {midnight - days * DAY + DAY // 2}",
        )
    rows = {
        row["domain"]: int(row["stateDuration"])
        for row in run_query(influxdb, "overdue_domains", bucket)
    }
    # The windows without a renewal: those of the days after it until today's; the first of them counts as 0.
    assert {name: rows[f"d{name}.example.com"] for name in (30, 61, 62)} == {30: 28, 61: 59, 62: 60}
    table = run_query(
        influxdb, "overdue_domains", bucket, "|> filter(fn: (r) => r.stateDuration >= 61)"
    )
    assert [row["domain"] for row in table] == ["d64.example.com"]


def test_history_tells_who_was_renewed_when(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    whole = "certbot_renewal,domain=all,host=web1,lineage"
    same_second = now - DAY  # whose names are whose is known all the same
    for lineage, names, life in (
        ("a", "a.example.com *.a.example.com", 90),
        ("b", "b.example.com", 45),
    ):
        due = life * DAY * 2 // 3
        write(
            influxdb,
            bucket,
            f'{whole}={lineage} renewed_count={names.count(" ") + 1},lifetime={life * DAY}i,due_after={due}i,names="{names}" {same_second}',
            *(
                f"certbot_renewal,domain={name},host=web1 renewed_count=1 {same_second}"
                for name in names.split()
            ),
            state(lineage, now + DAY),
        )
    write(
        influxdb,
        bucket,
        f'{whole}=unreadable renewed_count=3,lifetime=0i,due_after=0i,names="c" {now - 60}',
    )
    columns = ("host", "lineage", "count", "names", "lifetime_days", "due_after_days")
    assert [
        (seconds(row["time"]), *(row[name] for name in columns))
        for row in run_query(influxdb, "history", bucket)
    ] == [
        (same_second, "web1", "a", "2", "a.example.com *.a.example.com", "90", "60"),
        (same_second, "web1", "b", "1", "b.example.com", "45", "30"),
        (now - 60, "web1", "unreadable", "3", "c", "0", "0"),
    ]


def test_failures_are_the_runs_that_left_something(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    write(
        influxdb,
        bucket,
        run_point("web1", now - 2 * DAY, "a b", exit_status=1),
        run_point("web1", now - DAY, exit_status=0),
        run_point("web2", now - 60, unreadable="c"),
    )
    rows = [
        (seconds(row["time"]), row["host"], row["failed"], row["unreadable"])
        for row in run_query(influxdb, "failures", bucket)
    ]
    assert rows == [(now - 60, "web2", "none", "c"), (now - 2 * DAY, "web1", "a b", "none")]


def test_dry_runs_tell_how_the_last_one_went(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    for lineage, days, failed, error in (
        ("a", 2, 1, "no route"),
        ("a", 1, 0, "none"),
        ("b", 2, 1, "no route"),
    ):
        fields = f'dry_run_failed={failed}i,dry_run_error="{error}"'
        write(
            influxdb,
            bucket,
            f"certbot_renewal,domain=all,host=web1,lineage={lineage} {fields} {now - days * DAY}",
        )
    write(influxdb, bucket, state("a", now + DAY))
    rows = [
        (seconds(row["time"]), row["lineage"], row["failed"], row["dry_run_error"])
        for row in run_query(influxdb, "dry_runs", bucket)
    ]
    assert rows == [(now - DAY, "a", "0", "none"), (now - 2 * DAY, "b", "1", "no route")]


@pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])
def test_an_empty_bucket_gives_no_rows_and_no_error(influxdb: InfluxDB, path: Path) -> None:
    assert run_query(influxdb, path.stem, influxdb.new_bucket()) == []


@pytest.mark.parametrize(
    ("tags", "fields"),
    [
        (",domain=all,host=web1,lineage=half", "not_after=5i"),
        (",domain=all,host=web1,lineage=half", "renewal_due=5i,run_at=0i"),
        (",domain=all,host=web1,lineage=half", "deployed=5i,served=1i"),
        (",domain=all,host=web1", "renewal_due=5i,run_at=0i"),
        (",domain=all", "certificates=3i"),
    ],
)
def test_what_others_write_into_the_measurement_is_left_alone(
    influxdb: InfluxDB, tags: str, fields: str
) -> None:
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, f"certbot_renewal{tags} {fields} {int(time.time())}")
    assert [run_query(influxdb, path.stem, bucket) for path in ALL] == [[]] * len(ALL)


@pytest.mark.parametrize(
    ("name", "number"), [("influxd-1.8", 0), ("influxd-1.12", 0), ("influxd-2", 1)]
)
def test_the_readmes_command_gives_the_history_as_csv(
    server: Callable[[str], InfluxDB], name: str, number: int, tmp_path: Path
) -> None:
    influxdb = server(name)
    bucket, now = influxdb.new_bucket(), int(time.time())
    write(
        influxdb,
        bucket,
        f'certbot_renewal,domain=all,host=web1,lineage=a renewed_count=1,lifetime=1i,due_after=1i,names="a.example.com" {now}',
    )
    (tmp_path / "flux").mkdir()
    text = (ROOT / "flux" / "history.flux").read_text().replace('"telegraf"', f'"{bucket}"')
    (tmp_path / "flux" / "history.flux").write_text(text)
    block = (
        (ROOT / "README.md")
        .read_text()
        .split("The history as CSV:\n\n```\n")[1]
        .split("```")[0]
        .replace("\\\n", "")
    )
    command = (
        block.splitlines()[number]
        .replace("http://127.0.0.1:8086", influxdb.url)
        .replace("fake-token", influxdb.token)
    )
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    header, row = (
        line.split(",") for line in done.stdout.splitlines() if line and not line.startswith("#")
    )
    assert {"time", "host", "lineage", "count", "names"} <= set(header)
    assert dict(zip(header, row))["names"] == "a.example.com"


@pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])
def test_each_query_is_formatted(path: Path) -> None:
    require_program("flux")
    done = subprocess.run(
        [built_program("flux"), "fmt", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.rstrip() == path.read_text().rstrip(), "run: flux fmt -w flux/*.flux"


def test_each_script_runs_the_query_of_the_same_name() -> None:
    scripts = sorted(templates.TEMPLATES.glob("*.tick"))
    assert len(scripts) == 7
    for script in scripts:
        assert script.read_text() == templates.with_query(script), (
            "run: python3 -m tools.generate.templates"
        )
        assert "from(bucket: bucket)" in script.read_text()


def test_failing_is_what_the_last_run_was(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    write(
        influxdb,
        bucket,
        run_point("recovered", now - 7200, "a b", "c", 1),
        run_point("recovered", now - 60, exit_status=0),
        run_point("failed", now - 7200, exit_status=0),
        run_point("failed", now - 60, "a b", exit_status=1),
        run_point(
            "post-hook", now - 7200, exit_status=1
        ),  # what the older run ended with is not what the newer did
        run_point("post-hook", now - 60),
        run_point(
            "by-hand", now - 7200, "a b", exit_status=1
        ),  # nor does a report that comes from no run change what the last one did
        f"certbot_renewal,host=by-hand certificates=1i,unreadable_count=0i {now - 60}",
        run_point("unreadable", now - 60, unreadable="c"),
        run_point("error", now - 60, exit_status=1),
        state("a", now + DAY, host="deploy-hook-only"),
    )
    rows = {row["host"]: row for row in run_query(influxdb, "failing", bucket)}
    assert {host: row["failing"] for host, row in rows.items()} == {
        "recovered": "false",
        "failed": "true",
        "post-hook": "false",
        "by-hand": "true",
        "unreadable": "true",
        "error": "true",
    }
    assert (rows["failed"]["failed"], rows["failed"]["exit_status"]) == ("a b", "1")
    assert (rows["recovered"]["failed"], rows["recovered"]["unreadable"]) == ("none", "none")
    assert (rows["by-hand"]["failed"], rows["by-hand"]["exit_status"]) == ("a b", "1")
    assert (rows["unreadable"]["unreadable"], rows["unreadable"]["exit_status"]) == ("c", "-1")
    assert seconds(rows["failed"]["run"]) == now - 60


def test_a_host_is_silent_when_one_of_its_certificates_is(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    for host, lineage, due, run_at in (
        ("both", "a", now + DAY, now - 60),
        ("both", "b", now + DAY, now - 3 * DAY),  # another container with the same host tag
        ("both", "c", now + DAY, now - 3 * DAY),
        ("fine", "a", now + DAY, now - 60),
        ("fine", "ended", 0, now - 30 * DAY),
        ("retired", "a", 0, now - 30 * DAY),
        ("deploy-hook-only", "a", now - DAY, 0),
        ("gone", "a", now - DAY, now - 2 * DAY),
    ):
        write(
            influxdb,
            bucket,
            state(lineage, due, host=host, run_at=run_at, at=run_at or now - 90 * DAY),
        )
    rows = {row["host"]: row for row in run_query(influxdb, "silent_hosts", bucket)}
    assert {host: round(float(row["days_silent"])) for host, row in rows.items()} == {
        "both": 3,
        "fine": 0,
        "retired": -1,
        "deploy-hook-only": -1,
        "gone": 2,
        "(most hosts)": 2,
    }
    assert {host: row["lineages"] for host, row in rows.items()} == {
        "both": "b c",
        "fine": "a",
        "retired": "none",
        "deploy-hook-only": "none",
        "gone": "a",
        "(most hosts)": "both gone (2 of 3)",
    }
    assert seconds(rows["both"]["last"]) == now - 3 * DAY


@pytest.mark.parametrize(
    ("hosts", "days_ago", "deaf", "most"),
    [
        (5, {0.5: 5, 1.5: 5, 2.5: 5}, False, False),
        (5, {0.5: 3, 1.5: 3, 2.5: 5}, False, False),  # two are silent
        (
            5,
            {0.5: 2, 1.5: 5, 2.5: 5},
            True,
            False,
        ),  # InfluxDB has been away for a while, or is again there since a while
        (5, {0.5: 5, 1.5: 2, 2.5: 5}, True, False),
        (5, {0.5: 2, 1.5: 2, 2.5: 5}, True, True),
        (5, {2.5: 5}, True, True),
        (
            5,
            {0.01: 3, 1.9: 3, 2.5: 5},
            True,
            False,
        ),  # back since a quarter of an hour, after less than two days
        (5, {0.2: 3, 1.01: 3, 2.5: 5}, False, False),  # back since a day
        (3, {0.5: 2, 1.5: 2, 2.5: 3}, False, False),
        (3, {0.5: 1, 1.5: 1, 2.5: 3}, True, True),
        (2, {2.5: 2}, False, False),  # two are no fleet: each is judged
        (1, {2.5: 1}, False, False),
    ],
)
def test_a_host_is_not_judged_while_most_are_not_heard(
    influxdb: InfluxDB, hosts: int, days_ago: dict[float, int], deaf: bool, most: bool
) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    for days, heard in days_ago.items():
        at = now - int(days * DAY)
        for number in range(heard):
            write(
                influxdb,
                bucket,
                state("a", now + DAY, host=f"web{number}", run_at=at, at=at),
                run_point(f"web{number}", at),
            )
    rows = {row["host"]: row for row in run_query(influxdb, "silent_hosts", bucket)}
    assert {row["deaf"] for host, row in rows.items() if host != "(most hosts)"} == {
        str(deaf).lower()
    }
    assert float(rows["(most hosts)"]["days_silent"]) == pytest.approx(
        2.5 if most else -1.0, abs=0.01
    )
    assert len(rows) == hosts + 1
