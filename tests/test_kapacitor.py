"""The alert pack on the real Kapacitor, with a real mail server: who gets a mail, when, and how often."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.alerts import (
    HOST_TASKS,
    critical,
    critical_names,
    make_load_folder,
    recovered,
    told,
    wait_for_evaluations,
)
from support.points import LIVES, run_point, state, write
from support.servers import Alerting, require_program
from tools import ROOT
from tools.servers.certbot import Certbot
from tools.servers.influxdb import ORG, InfluxDB, start_influxdb
from tools.servers.kapacitor import start_inbox, start_kapacitor
from tools.servers.lineages import DAY
from tools.servers.processes import wait_for

EVERY = pytest.mark.parametrize(
    "house", ["influxd-1.8", "influxd-1.12", "influxd-2"], indirect=True
)
QUICK = pytest.mark.parametrize(
    "house", ["influxd-1.12", "influxd-2"], indirect=True
)  # 1.8 takes a second for each look: test_flux


@EVERY
def test_each_overdue_certificate_is_one_mail_and_its_recovery_another(
    house: Alerting, tmp_path: Path
) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket, now = influxdb.new_bucket(), int(time.time())
    overdue = now - DAY  # due a day ago: critical at crit = 1.0
    soon = now + 8
    quiet = [state(f"quiet-{name}", overdue + 60 + 8, life=life) for name, life in LIVES.items()]
    turning = [
        state(f"turning-{name}", soon - DAY, life=life) for name, life in LIVES.items()
    ]  # a day overdue in seconds from now
    long_ago = now - 5 * DAY
    write(
        influxdb,
        bucket,
        *quiet,
        *turning,
        state("evidence-quiet", long_ago, run_at=long_ago + DAY - 60, at=long_ago + DAY - 60),
        state("evidence-late", long_ago, run_at=long_ago + DAY + 1, at=long_ago + DAY + 1),
        state("new", now + 60 * DAY),
        state("twin", overdue - 60, host="web1"),
        state("twin", overdue - 60, host="web2"),
        state("ending", overdue - 60),
        state("expired", now - 40 * DAY),
        state("hundred", overdue - 60),
        *(
            f"certbot_renewal,domain={i}.example.com,host=web1 renewed_count=1 {now - 61 * DAY}"
            for i in range(100)
        ),
        f"certbot_renewal,domain=all,host=web1,lineage=hundred renewed_count=100 {now - 61 * DAY}",
        # Two lineages share a name, one of them was renewed: the other is overdue all the same.
        state("shared-late", overdue - 60),
        state("shared-fine", now + 59 * DAY),
        f"certbot_renewal,domain=shared.example.com,host=web1 renewed_count=1 {now - DAY}",
        # A state that was renewed, and then again an older one that arrives late: the newer one counts.
        state("late-arrival", now + 60 * DAY, at=now - 10),
        state("late-arrival", overdue - 60, at=now - 20),
        # What the published hook wrote, and what somebody else did.
        f"certbot_renewal,domain=all,host=web1 renewed_count=2 {now - 80 * DAY}",
        f"certbot_renewal,domain=gone.example.com,host=web1 renewed_count=1 {now - 80 * DAY}",
        f"certbot_renewal,domain=all,host=web1,lineage=half not_after=5i {now - DAY}",
        f"certbot_renewal,domain=all,host=web1,lineage=due-only renewal_due=5i {now - DAY}",
        f"certbot_renewal,domain=all renewal_due=5i,not_after=5i,run_at=0i {now - DAY}",
        f'certbot_renewal,host=web1 failed="",certificates=3i {now - DAY}',
    )
    kapacitor = house.start_kapacitor(make_load_folder(tmp_path, influxdb, bucket))
    at_once = Counter(
        f"{name} on web1"
        for name in ("evidence-late", "twin", "ending", "hundred", "shared-late", "expired")
    )
    at_once["twin on web2"] = 1
    wait_for(lambda: critical(box) >= at_once, "the first mails")
    if time.time() < soon - 1:
        assert critical(box) == at_once  # the others are not due for a second or more
    wait_for(lambda: time.time() > soon, "the moment when the others are overdue")
    wait_for_evaluations(kapacitor)
    everything = at_once + Counter(f"turning-{name} on web1" for name in LIVES)
    wait_for(
        lambda: critical(box) >= everything, "the last mails"
    )  # Kapacitor sends them after it has judged
    assert critical(box) == everything
    assert not recovered(box)
    assert kapacitor.errors() == []
    hundred, expired = (
        told(box, f"{name} on web1: not renewed, due since ") for name in ("hundred", "expired")
    )
    assert ", 29.0 days left" in hundred and "(in 29.0 days)" in hundred and "(1.0 days)" in hundred
    assert "certbot renew --cert-name hundred --dry-run" in hundred
    assert ", expired\n" in expired and "(past)" in expired and "(40.0 days)" in expired

    write(
        influxdb,
        bucket,
        *(state(f"turning-{name}", now + 30 * DAY) for name in LIVES),
        state("twin", now + DAY, host="web2"),
    )
    write(
        influxdb,
        bucket,
        state("ending", 0),
        state("hundred", now + DAY),
        state("hundred", now + DAY),
    )
    wait_for_evaluations(kapacitor)
    well = Counter(
        [
            "twin on web2",
            "ending on web1",
            "hundred on web1",
            *(f"turning-{name} on web1" for name in LIVES),
        ]
    )
    wait_for(lambda: recovered(box) >= well, "the mails that all is well")
    assert recovered(box) == well
    assert "ending on web1: no longer on this host" in box.subjects()
    assert any(subject.startswith("twin on web2: renewed, next due ") for subject in box.subjects())
    assert critical(box) == everything


@QUICK
def test_restarts_and_outages_make_no_mail(house: Alerting, tmp_path: Path) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket, now = (
        influxdb.new_bucket("604800"),
        int(time.time()),
    )  # seven days' retention: the state is enough
    write(influxdb, bucket, state("late", now - 2 * DAY), state("fine", now + DAY))
    load = make_load_folder(tmp_path, influxdb, bucket)
    kapacitor = house.start_kapacitor(load)
    wait_for_evaluations(kapacitor)
    assert box.subjects() == [
        s for s in box.subjects() if s.startswith("late on web1: not renewed, due since ")
    ]
    assert len(box.mails) == 1

    house.stop("kapacitor")
    kapacitor = house.start_kapacitor(load)
    wait_for_evaluations(kapacitor)
    house.stop("influxdb")
    wait_for(kapacitor.errors, "a query that fails")
    house.start_influxdb()
    wait_for_evaluations(kapacitor)
    kapacitor.reload()
    wait_for_evaluations(kapacitor)
    house.stop("kapacitor", "influxdb")
    house.start_influxdb()
    kapacitor = house.start_kapacitor(load)
    wait_for_evaluations(kapacitor)
    assert len(box.mails) == 1
    write(influxdb, bucket, state("late", now + 60 * DAY))
    wait_for_evaluations(kapacitor)
    assert [s.split(",")[0] for s in box.subjects()[1:]] == ["late on web1: renewed"]


@QUICK
def test_what_is_overdue_on_a_host_is_one_mail_and_one_more_when_another_is(
    house: Alerting, tmp_path: Path
) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket, now = influxdb.new_bucket(), int(time.time())
    many = [f"many{number:02}" for number in range(40)]  # one became overdue later than the other
    at = dict(zip(many, range(now - 9 * DAY, now)))

    def look() -> list[str]:
        """What new mails are about, without the days."""
        wait_for_evaluations(kapacitor, tasks=["renewal_overdue_hosts"])
        return sorted(re.sub(r"due since .* left", "due", box.read()) for _ in box.unread())

    def renewed(host: str, *lineages: str) -> None:
        write(
            influxdb, bucket, *(state(lineage, now + 60 * DAY, host=host) for lineage in lineages)
        )

    write(
        influxdb,
        bucket,
        *(state(lineage, moment, host="web1") for lineage, moment in at.items()),
        state("alone", now - 2 * DAY, host="web2"),
        state("fine", now + DAY, host="web2"),
        state("not-yet", now - DAY + 120, host="web3"),
        state(
            "evidence-quiet", now - 25 * 3600, host="web3", run_at=now - 7 * 3600, at=now - 7 * 3600
        ),
        state("ended", 0, host="web3"),
        f"certbot_renewal,domain=all,host=web3,lineage=half not_after=5i {now - DAY}",
    )
    load = make_load_folder(tmp_path, influxdb, bucket, often=["renewal_overdue_hosts"])
    kapacitor = house.start_kapacitor(load)
    names = " ".join(reversed(many))
    assert look() == [
        f"web1: 40 not renewed, due: {names[:100]}",
        "web2: 1 not renewed, due: alone",
    ]
    assert f"the newest first: {names}<" in told(box, "web1: ")

    write(influxdb, bucket, state("another", now - 3 * DAY, host="web1"))
    assert [subject[:41] for subject in look()] == ["web1: 41 not renewed, due: another many39"]
    renewed("web1", *many[3:])  # few are left, then more again, then few: each is told of once
    assert look() == []
    write(
        influxdb,
        bucket,
        *(state(f"late{number}", now - 2 * DAY - number, host="web1") for number in range(9)),
    )
    assert [subject[:39] for subject in look()] == ["web1: 13 not renewed, due: late0 late1 "]
    renewed("web1", *(f"late{number}" for number in range(9)), "another")
    assert look() == []

    house.stop("kapacitor")
    kapacitor = house.start_kapacitor(load)
    assert look() == []
    house.stop("influxdb")
    wait_for(kapacitor.errors, "a query that fails")
    house.start_influxdb()
    kapacitor.reload()
    assert look() == []
    house.stop("kapacitor")
    write(influxdb, bucket, state("meanwhile", now - DAY - 60, host="web1"))
    kapacitor = house.start_kapacitor(load)
    assert look() == ["web1: 4 not renewed, due: meanwhile many02 many01 many00"]
    renewed("web1", *many[:3])
    assert look() == []
    write(influxdb, bucket, state("meanwhile", 0, host="web1"))
    renewed("web2", "alone")
    assert look() == [
        "web1: no renewal is overdue any more",
        "web2: no renewal is overdue any more",
    ]
    write(
        influxdb, bucket, state("many01", now - 5 * DAY, host="web1")
    )  # longer overdue than what was told of before
    assert look() == ["web1: 1 not renewed, due: many01"]


@QUICK
def test_a_host_that_fails_or_is_silent_is_one_mail_and_its_recovery_another(
    house: Alerting, tmp_path: Path
) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket, now = influxdb.new_bucket(), int(time.time())
    day, soon = now + DAY, now + 8
    silent = soon - 2 * DAY  # silent for two days in seconds from now

    def reported(host: str, at: int, lineage: str = "a", due: int = day) -> str:
        return state(lineage, due, host=host, run_at=at, at=at)

    write(
        influxdb,
        bucket,
        *(reported(host, now - 60) for host in ("well", "failed", "error", "unreadable", "pair")),
        *(reported(host, now - 49 * 3600) for host in ("silent", "retired")),
        reported(
            "pair", now - 49 * 3600, lineage="b"
        ),  # another container with the same host tag, which stopped
        reported("turning", silent),
        state("a", day, host="deploy-hook-only", at=now - 50 * DAY),
        *(
            run_point(host, now - 25 * 3600, exit_status=0)
            for host in ("well", "failed", "error", "unreadable", "pair")
        ),
        *(run_point(host, now - 60, exit_status=0) for host in ("well", "pair")),
        run_point("failed", now - 60, failed="a b", exit_status=1),
        run_point("error", now - 60, exit_status=143),
        run_point("unreadable", now - 60, unreadable="c"),
    )
    load = make_load_folder(tmp_path, influxdb, bucket, often=HOST_TASKS)
    kapacitor = house.start_kapacitor(load)
    wait_for(lambda: time.time() > soon, "the moment when the last host is silent")
    wait_for_evaluations(kapacitor, tasks=HOST_TASKS)
    wait_for(lambda: len(box.mails) >= 7, "the mails")
    subjects = sorted(subject.partition(" days, last ")[0] for subject in box.subjects())
    assert subjects == [
        "error: certbot fails, exit status 143",
        "failed: certbot fails, not renewed: a b, exit status 1",
        "pair: no report of certbot for 2.0",
        "retired: no report of certbot for 2.0",
        "silent: no report of certbot for 2.0",
        "turning: no report of certbot for 2.0",
        "unreadable: certbot fails, unreadable: c",
    ]
    house.stop("kapacitor")
    kapacitor = house.start_kapacitor(load)
    wait_for_evaluations(kapacitor, tasks=HOST_TASKS)
    assert len(box.mails) == len(subjects)
    at = int(time.time())
    write(
        influxdb,
        bucket,
        run_point("failed", at, exit_status=0),
        run_point("error", at),
        reported("silent", at),
        reported("pair", at, "b"),
    )
    write(influxdb, bucket, reported("retired", at, due=0))
    wait_for_evaluations(kapacitor, tasks=HOST_TASKS)
    wait_for(lambda: len(box.mails) >= len(subjects) + 5, "the mails of their ends")
    assert sorted(box.subjects()[len(subjects) :]) == [
        "error: certbot runs well again",
        "failed: certbot runs well again",
        "pair: reports again",
        "retired: no longer expected to report",
        "silent: reports again",
    ]
    assert kapacitor.errors() == []


@QUICK
def test_hosts_that_are_silent_together_are_one_mail(house: Alerting, tmp_path: Path) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket, now, hosts = (
        influxdb.new_bucket(),
        int(time.time()),
        [f"web{number}" for number in range(5)],
    )

    def reported(at: int, *which: str) -> list[str]:
        return [
            line
            for host in which
            for line in (
                state("a", now + DAY, host=host, run_at=at, at=at),
                run_point(host, at, exit_status=0),
            )
        ]

    # web0 stopped first, and was told of; then InfluxDB was away for three days.
    write(influxdb, bucket, *reported(now - 6 * DAY, "web0"), *reported(now - 3 * DAY, *hosts[1:]))
    kapacitor = house.start_kapacitor(
        make_load_folder(tmp_path, influxdb, bucket, often=HOST_TASKS)
    )
    wait_for_evaluations(kapacitor, tasks=HOST_TASKS)
    (subject,) = box.subjects()
    assert subject.startswith("(most hosts): no report of certbot for 3.0 days, last ")
    assert "web0 web1 web2 web3 web4 (5 of 5)" in subject
    assert "Was InfluxDB away?" in told(box, "(most hosts)") and "--retire" not in told(
        box, "(most hosts)"
    )
    write(influxdb, bucket, *reported(now, *hosts[1:4]))
    wait_for(lambda: len(box.mails) == 2, "the recovery")
    wait_for_evaluations(kapacitor, tasks=HOST_TASKS)
    assert box.subjects()[1:] == [
        "(most hosts): report again"
    ]  # nothing yet of web0 and web4, which may have had no run of certbot
    write(
        influxdb, bucket, *reported(now - 25 * 3600, *hosts[1:4]), *reported(now, *hosts[1:4])
    )  # as a day later
    wait_for(lambda: len(box.mails) == 4, "the mails of those that do not report again")
    assert sorted(subject.partition(":")[0] for subject in box.subjects()[2:]) == ["web0", "web4"]
    write(
        influxdb, bucket, *reported(now - 3 * DAY, *(f"more{number}" for number in range(6)))
    )  # most are silent again
    wait_for(lambda: len(box.mails) == 5, "the mail that most hosts are silent")
    wait_for_evaluations(kapacitor, tasks=HOST_TASKS)
    assert box.subjects()[4].startswith("(most hosts): ")
    assert len(box.mails) == 5  # web0 and web4 stay told of
    assert kapacitor.errors() == []


def test_created_the_way_chronograf_does_it_works_the_same(
    server: Callable[[str], InfluxDB], tmp_path: Path
) -> None:
    require_program("kapacitord")
    influxdb = server("influxd-1.12")
    bucket, now = influxdb.new_bucket(), int(time.time())
    write(influxdb, bucket, state("late", now - 2 * DAY))
    write(
        influxdb,
        bucket,
        f"certbot_renewal,domain=old.example.com,host=web1 renewed_count=1 {now - 63 * DAY}",
    )
    load = tmp_path / "load"
    for name in ("templates", "tasks", "handlers"):
        (load / name).mkdir(parents=True)
    shutil.copy(ROOT / "kapacitor" / "handlers" / "email.yaml", load / "handlers")
    with (
        start_inbox() as box,
        start_kapacitor(tmp_path / "kapacitor", load, influxdb, box) as kapacitor,
    ):
        for path in (ROOT / "kapacitor" / "templates").iterdir():
            script = path.read_text().replace("var bucket = 'telegraf'", f"var bucket = '{bucket}'")
            script = re.sub(r"(?m)^var every = .*$", "var every = 1s", script)
            dbrps = [{"db": "telegraf", "rp": "autogen"}]
            task = {
                "id": path.stem,
                "type": "batch",
                "dbrps": dbrps,
                "script": script,
                "status": "enabled",
            }
            created = kapacitor.api("POST", "/tasks", json=task)
            assert created.status_code == 200, created.text
        wait_for_evaluations(kapacitor)
        wait_for(
            lambda: kapacitor.alert("renewal_overdue_domains")["collected"] >= 3,
            "three evaluations",
        )
        assert (critical(box), critical_names(box)) == (
            Counter(["late on web1"]),
            Counter(["old.example.com on web1"]),
        )
        assert kapacitor.errors() == []


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
def test_an_influxdb_1_x_that_asks_for_a_password(tmp_path: Path, name: str) -> None:
    for binary in (name, "kapacitord"):
        require_program(binary)
    with (
        start_influxdb(name, tmp_path / name, config="auth-enabled = true") as influxdb,
        start_inbox() as box,
    ):
        influxdb.command("CREATE USER admin WITH PASSWORD 'fake-admin' WITH ALL PRIVILEGES")
        for command in (
            "CREATE DATABASE d",
            "CREATE USER reader WITH PASSWORD 'fake-reader'",
            "GRANT READ ON d TO reader",
        ):
            influxdb.command(command, u="admin", p="fake-admin")
        influxdb.headers["Authorization"] = "Token admin:fake-admin"
        write(influxdb, "d", state("late", int(time.time()) - 2 * DAY))
        load, login = (
            make_load_folder(tmp_path, influxdb, "d"),
            'username = "reader"\npassword = "fake-reader"',
        )
        with start_kapacitor(tmp_path / "kapacitor", load, influxdb, box, login=login):
            wait_for(lambda: critical(box) == Counter(["late on web1"]), "the mail")


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
def test_names_that_the_published_hook_reported(
    server: Callable[[str], InfluxDB], tmp_path: Path, name: str
) -> None:
    require_program("kapacitord")
    influxdb = server(name)
    bucket, now = influxdb.new_bucket(), int(time.time())
    for domain, days in (("new", 1), ("due", 60), ("old", 63)):
        write(
            influxdb,
            bucket,
            f"certbot_renewal,domain={domain}.example.com,host=web1 renewed_count=1 {now - days * DAY}",
        )
    write(
        influxdb, bucket, f"certbot_renewal,domain=all,host=web1 renewed_count=3 {now - 63 * DAY}"
    )
    load = make_load_folder(tmp_path, influxdb, bucket)
    example = load / "tasks" / "renewal_overdue_domains.yaml.example"
    text = (
        example.read_text()
        .replace("value: telegraf", f"value: {bucket}")
        .replace("value: 1h", "value: 1s")
    )
    example.with_suffix("").write_text(text)
    with (
        start_inbox() as box,
        start_kapacitor(tmp_path / "kapacitor", load, influxdb, box) as kapacitor,
    ):
        wait_for(
            lambda: kapacitor.alert("renewal_overdue_domains")["collected"] >= 9,
            "three evaluations",
        )
        assert critical_names(box) == Counter(["old.example.com on web1"])
        write(
            influxdb,
            bucket,
            f"certbot_renewal,domain=old.example.com,host=web1 renewed_count=1 {now}",
        )
        wait_for(lambda: len(box.mails) == 2, "the recovery")
        assert box.subjects()[-1] == "old.example.com on web1: renewed"
        assert kapacitor.errors() == []


def test_every_example_loads_when_its_suffix_is_taken_off(
    server: Callable[[str], InfluxDB], tmp_path: Path
) -> None:
    require_program("kapacitord")
    influxdb = server("influxd-1.8")
    load = make_load_folder(tmp_path, influxdb, influxdb.new_bucket())
    examples = sorted(load.glob("*/*.example"))
    assert [path.name for path in examples if path.parent.name == "handlers"] == [
        "pagerduty.yaml.example",
        "slack.yaml.example",
        "webhook.yaml.example",
    ]
    for path in examples:
        path.rename(path.with_suffix(""))
    with (
        start_inbox() as box,
        start_kapacitor(tmp_path / "kapacitor", load, influxdb, box) as kapacitor,
    ):
        everyone = {"email", "pagerduty", "slack", "webhook"}
        topic = "/alerts/topics/certbot_renewal/handlers"
        wait_for(
            lambda: (
                {handler["id"] for handler in kapacitor.api("GET", topic).json()["handlers"]}
                == everyone
            ),
            "the handlers",
        )
        (load / "handlers" / "webhook.yaml").unlink()
        kapacitor.reload()
        everyone.remove("webhook")  # shows that it read the folder again
        wait_for(
            lambda: (
                {handler["id"] for handler in kapacitor.api("GET", topic).json()["handlers"]}
                == everyone
            ),
            "the handlers",
        )
        tasks = {
            task["id"]: (task["status"], task["executing"])
            for task in kapacitor.api("GET", "/tasks").json()["tasks"]
        }
        names = [path.stem for path in (ROOT / "kapacitor" / "templates").iterdir()]
        assert tasks == dict.fromkeys(names, ("enabled", True))
        assert kapacitor.errors() == []


CRIT_VAR, BUCKET_VAR, ORG_VAR = (
    "crit: {type: float, value: 1.0}",
    "bucket: {type: string, value: ",
    f"org: {{type: string, value: {ORG}}}",
)


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (
            "influxd-1.12",
            CRIT_VAR,
            "crit: {type: int, value: 1}",
            ("failed to load tasks: ", "invalid type supplied for crit, got int exp float"),
        ),
        (
            "influxd-1.12",
            CRIT_VAR,
            "crit: {type: float, value: soon}",
            ("invalid var ", "expected float value"),
        ),
        (
            "influxd-1.8",
            BUCKET_VAR,
            BUCKET_VAR + "no",
            ('err="failed to initialize execute state: no database"',),
        ),
        (
            "influxd-1.12",
            BUCKET_VAR,
            BUCKET_VAR + "no",
            ('err="failed to initialize execute state: no database"',),
        ),
        ("influxd-2", BUCKET_VAR, BUCKET_VAR + "no", ("could not find bucket",)),
        (
            "influxd-2",
            ORG_VAR,
            'org: {type: string, value: ""}',
            ("Please provide either orgID or org",),
        ),
        (
            "influxd-2",
            ORG_VAR,
            "org: {type: string, value: nobody}",
            ("organization name ", " not found"),
        ),
        ("influxd-2", "token", "fake-wrong", ('err="unauthorized access"',)),
    ],
)
def test_what_kapacitor_says_of_a_mistake_is_in_the_readme(
    server: Callable[[str], InfluxDB],
    tmp_path: Path,
    name: str,
    old: str,
    new: str,
    says: tuple[str, ...],
) -> None:
    require_program("kapacitord")
    influxdb = server(name)
    load = make_load_folder(tmp_path, influxdb, influxdb.new_bucket())
    task = load / "tasks" / "renewal_overdue.yaml"
    assert old == "token" or old in task.read_text()
    task.write_text(task.read_text().replace(old, new))
    token = new if old == "token" else ""
    log = tmp_path / "kapacitor" / "log"

    def said() -> bool:
        lines = log.read_text().replace("\\", "").splitlines()
        return any("lvl=error" in line and all(text in line for text in says) for line in lines)

    with (
        contextlib.suppress(RuntimeError),
        start_inbox() as box,
    ):  # it does not start with a task that it cannot read
        starting = start_kapacitor(log.parent, load, influxdb, box, token=token)
        with starting:
            wait_for(said, "the error")
    assert said()
    for text in says:
        assert text in (ROOT / "README.md").read_text()


# ---- End to end ------------------------------------------------------------------------------------------------------
LIFE = 24  # seconds: due after 12
CRIT = 2  # seconds after that


@QUICK
def test_a_certificate_that_certbot_did_not_renew_in_time(house: Alerting, tmp_path: Path) -> None:
    influxdb, box = house.start_influxdb(), house.box
    bucket = influxdb.new_bucket()
    authority = house.start_pebble(LIFE)
    kapacitor = house.start_kapacitor(
        make_load_folder(tmp_path, influxdb, bucket, crit=f"{CRIT / DAY:.9f}")
    )
    certbot = Certbot(tmp_path / "letsencrypt", authority)
    certbot.settings({**influxdb.settings(bucket), "HOSTNAME": "web1"})
    assert certbot.issue("example.com", "example.com").returncode == 0
    begin = certbot.not_before("example.com")
    wait_for_evaluations(kapacitor, 1)
    if time.time() < begin + LIFE / 2:
        assert box.mails == []
    wait_for(lambda: box.mails, "the mail that it is overdue")
    assert time.time() >= begin + LIFE / 2 + CRIT - 1
    assert critical(box) == Counter(["example.com on web1"])
    renewed = certbot.renew()
    assert renewed.returncode == 0, renewed.stdout
    wait_for(lambda: len(box.mails) == 2, "the mail that it is well again")
    assert box.subjects()[1].startswith("example.com on web1: renewed, next due ")
