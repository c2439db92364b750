"""Whether a renewed certificate was delivered, and is served: the queries on every InfluxDB, the alerts on the real Kapacitor."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from support.alerts import make_load_folder, wait_for_evaluations
from support.hooks import next_second
from support.points import delivery, served, state, write
from support.queries import run_query, seconds
from support.servers import Alerting, require_program, skip_or_fail
from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.lineages import DAY, KEY, make_lineage
from tools.servers.processes import MissingServer, built_program, free_port, wait_for
from tools.servers.targets import start_nginx

ALERTS = ("certificate_not_delivered", "certificate_not_served")


def test_what_a_target_lacks_and_since_when(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    old, new = now - 62 * DAY, now - 2 * DAY
    write(influxdb, bucket, state("a", new + 60 * DAY), state("b", 0), state("c", new + 60 * DAY))
    assert run_query(influxdb, "not_delivered", bucket) == []
    write(
        influxdb,
        bucket,
        delivery("fine", new, new),
        delivery("late", old, new, error="refused"),
        delivery("judged-then", old, new, run_at=now - DAY),
        delivery("new", 0, new),
        delivery("ahead", new + 5, new),
        delivery("over", 0, 0),
        delivery("healed", old, new, at=now - 90),
        delivery("healed", new, new, at=now - 60),
        delivery("tagged", old, new, at=now - 90).replace(" ", ",dc=north ", 1),
        delivery("tagged", new, new),
        delivery("gone", old, new, lineage="b"),
        delivery("other", old, new - DAY, lineage="c"),
    )
    rows = {
        (row["lineage"], row["target"]): row for row in run_query(influxdb, "not_delivered", bucket)
    }
    days = {key: round(float(row["days_missing"]), 2) for key, row in rows.items()}
    fine = dict.fromkeys(
        (
            ("a", "fine"),
            ("a", "ahead"),
            ("a", "over"),
            ("a", "healed"),
            ("a", "tagged"),
            ("b", "gone"),
        ),
        -1,
    )
    assert days == {
        **fine,
        ("a", "late"): 2,
        ("a", "judged-then"): 1,
        ("a", "new"): 2,
        ("c", "other"): 3,
    }
    assert [key for key, row in rows.items() if row["ended"] == "true"] == [
        ("a", "over"),
        ("b", "gone"),
    ]
    late, never = rows["a", "late"], rows["a", "new"]
    assert (seconds(late["renewed"]), seconds(late["expiry"]), late["deploy_error"]) == (
        new,
        old + 90 * DAY,
        "refused",
    )
    assert (
        round(float(late["days_left"])),
        late["never"],
        never["never"],
        float(never["days_left"]),
    ) == (28, "false", "true", 0)


def test_what_is_served_instead_and_since_when(influxdb: InfluxDB) -> None:
    bucket, now = influxdb.new_bucket(), int(time.time())
    new, expiry = now - 2 * DAY, now + 28 * DAY
    write(influxdb, bucket, state("never-looked", new + 60 * DAY))
    assert run_query(influxdb, "not_served", bucket) == []
    write(
        influxdb,
        bucket,
        served("fine", new, 2, "none"),
        served("other", new, 1, "a.example.com b.example.com:993", expiry),
        # Nobody answers now: what was seen before stays, judged then.
        served("away", new, 0, "a.example.com", expiry, at=now - DAY),
        served("away", new, 0),
        served("never-there", new, 0),
        served("healed", new, 0, "a.example.com", expiry, at=now - 60),
        served("healed", new, 1, "none"),
        # The deploy hook reports without a look.
        served("renewed", now - 60 * DAY, 0, "a.example.com", now - DAY, at=now - 3600),
        state("renewed", now + 60 * DAY, run_at=now),
        served("given-up", new, 0, "a.example.com", expiry, at=now - 3 * DAY),
        state("given-up", new + 60 * DAY, run_at=now),
        served("ended", new, 0, "a.example.com", expiry, at=now - 60),
        state("ended", 0, run_at=now),
    )
    rows = {row["lineage"]: row for row in run_query(influxdb, "not_served", bucket)}
    days = {lineage: round(float(row["days_unserved"]), 2) for lineage, row in rows.items()}
    fine = dict.fromkeys(("fine", "never-there", "healed", "given-up", "ended"), -1)
    assert days == {**fine, "other": 2, "away": 1, "renewed": 0}
    assert {lineage for lineage, row in rows.items() if row["looked"] == "false"} == {
        "given-up",
        "ended",
    }
    assert (rows["other"]["not_served"], rows["other"]["served"]) == (
        "a.example.com b.example.com:993",
        "1",
    )
    assert (seconds(rows["other"]["renewed"]), seconds(rows["other"]["expiry"])) == (new, expiry)
    assert (
        round(float(rows["other"]["days_left"])),
        round(float(rows["renewed"]["days_left"])),
    ) == (28, -1)


def test_what_telegraf_sees_is_compared_with_the_renewals(
    influxdb: InfluxDB, tmp_path: Path
) -> None:
    require_program("telegraf")
    bucket, now, port = influxdb.new_bucket(), int(time.time()), free_port()
    folder, block = (
        tmp_path / "letsencrypt",
        "server {{ listen {0}:{1} ssl; ssl_certificate {2}/fullchain.pem; ssl_certificate_key {2}/privkey.pem; }}",
    )
    live = make_lineage(folder, "a", ["localhost"], now - 62 * DAY, 90 * DAY, key=KEY)
    renewal = "certbot_renewal,domain=localhost,host=web1 renewed_count=1 {}"
    write(
        influxdb,
        bucket,
        renewal.format(now - 62 * DAY),
        renewal.format(now - 2 * DAY),
        renewal.format(now - 9 * DAY).replace("localhost", "other"),
    )
    try:
        with start_nginx(tmp_path / "nginx", block.format("127.0.0.1", port, live)):
            look_with_telegraf(influxdb, bucket, tmp_path, f"tcp://localhost:{port}")
    except MissingServer as error:
        skip_or_fail(error)
    (row,) = run_query(influxdb, "not_served_x509", bucket)
    assert (row["source"], row["name"]) == (f"tcp://localhost:{port}", "localhost")
    assert (round(float(row["days_unserved"]), 2), round(float(row["days_left"]), 2)) == (2, 28)
    next_second()
    new = f"x509_cert,san=localhost,serial_number=2,source=tcp://localhost:{port} startdate={now - 2 * DAY}i,enddate={now + 88 * DAY}i"
    write(influxdb, bucket, f"{new} {int(time.time())}")
    (row,) = run_query(influxdb, "not_served_x509", bucket)
    assert (float(row["days_unserved"]), round(float(row["days_left"]))) == (-1, 88)


def look_with_telegraf(influxdb: InfluxDB, bucket: str, folder: Path, source: str) -> None:
    """One look of a real Telegraf, as the comment of the query sets it up."""
    if influxdb.major == 1:
        output = f'[[outputs.influxdb]]\nurls = ["{influxdb.url}"]\ndatabase = "{bucket}"\nskip_database_creation = true\n'
    else:
        output = f'[[outputs.influxdb_v2]]\nurls = ["{influxdb.url}"]\nbucket = "{bucket}"\norganization = "{ORG}"\ntoken = "{influxdb.token}"\n'
    conf = folder / "telegraf.conf"
    conf.write_text(
        f'[agent]\nomit_hostname = true\n[[inputs.x509_cert]]\nsources = ["{source}"]\n{output}'
    )
    command = [built_program("telegraf"), "--config", str(conf), "--once"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    next_second()  # it rounds the time to a second, up or down


@pytest.mark.parametrize("house", ["influxd-2"], indirect=True)
def test_a_delivery_that_fails_is_one_mail_and_the_recovery_another(
    house: Alerting, tmp_path: Path
) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket, now = influxdb.new_bucket(), int(time.time())
    old, new = now - 62 * DAY, now - 2 * DAY
    write(influxdb, bucket, *(state(name, new + 60 * DAY) for name in ("a", "b")))
    kapacitor = house.start_kapacitor(make_load_folder(tmp_path, influxdb, bucket, often=ALERTS))
    wait_for(lambda: kapacitor.api("GET", "/tasks").json()["tasks"], "the tasks")
    write(
        influxdb,
        bucket,
        delivery("edge", old, new, error="no route to host"),
        delivery("soon", old, new, life=65),
        delivery(
            "expired", old, now - 60, life=61
        ),  # renewed a minute ago, but nothing good is there
        delivery("fresh", now - 60 * DAY, now - DAY + 600, life=61),  # its day of grace is not over
        delivery("never", 0, new),
        delivery("fine", new, new),
        delivery("edge", old, new, lineage="b"),
        served("s", new, 0, "a.example.com", now + 28 * DAY),
        served("t", new, 0, "a.example.com", now + 2 * DAY),
        served("u", now - 60, 0, "a.example.com", now - DAY),
        served("v", now - DAY + 600, 0, "a.example.com", now + DAY),
        served("w", new, 1, "none"),
    )
    begins = [
        "a on web1: not delivered to edge",
        "a on web1: not delivered to soon",
        "a on web1: not delivered to expired",
    ]
    begins += [
        "a on web1: not delivered to never",
        "b on web1: not delivered to edge",
        "s on web1: renewed",
        "t on web1: renewed",
    ]
    begins += ["u on web1: renewed"]
    wait_for(lambda: len(box.mails) >= len(begins), "the mails")
    wait_for_evaluations(kapacitor, tasks=ALERTS)
    subjects = [subject.replace(": urgent, ", ": ") for subject in box.subjects()]
    assert sorted(
        ", ".join(subject.split(", ")[:1]) if "not delivered" in subject else subject[:18]
        for subject in subjects
    ) == sorted(begins)
    levels = {
        alert["id"]: alert["state"]["level"]
        for alert in kapacitor.api("GET", "/alerts/topics/certbot_renewal/events").json()["events"]
    }
    critical = {name.partition("/")[2] for name, level in levels.items() if level == "CRITICAL"}
    assert critical == {"web1/a/soon", "web1/a/expired", "web1/t", "web1/u"}
    assert sum(": urgent, " in subject for subject in box.subjects()) == len(critical)
    mail = next(
        mail
        for mail in box.mails
        if "delivered to edge" in str(mail["Subject"]) and str(mail["Subject"])[0] == "a"
    )
    assert "The last try: no route to host" in mail.get_content()
    write(
        influxdb,
        bucket,
        *(delivery(target, new, new) for target in ("edge", "soon", "never")),
        delivery("expired", 0, 0),
        state("b", 0),
        *(served(lineage, new, 1, "none") for lineage in "stu"),
    )
    wait_for(lambda: len(box.mails) >= 2 * len(begins), "the mails that all is well")
    wait_for_evaluations(kapacitor, tasks=ALERTS)
    well = sorted(
        subject.partition(": ")[2].partition(" to ")[0].partition(" for ")[0]
        for subject in box.subjects()[len(begins) :]
    )
    assert well == ["delivered"] * 3 + ["no longer"] * 2 + ["the renewed certificate is served"] * 3
    assert kapacitor.errors() == []
