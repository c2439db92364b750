"""How an administrator sets the alerts up in a real Kapacitor, and what goes wrong."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from support.alerts import (
    WatchedBucket,
    handlers_of,
    make_load_folder,
    overdue_name_notifications,
    overdue_notifications,
    wait_for_evaluations,
)
from support.points import certificate_state, name_renewal, published_renewal, write
from support.servers import Alerting, require_program
from tools import ROOT
from tools.servers.influxdb import ORG, InfluxDB, start_influxdb
from tools.servers.kapacitor import Kapacitor, start_inbox, start_kapacitor
from tools.servers.lineages import DAY
from tools.servers.processes import wait_for

# The pages with Kapacitor's errors, those that exist.
MESSAGES = "".join(
    page.read_text()
    for page in (ROOT / "docs" / "messages.md", ROOT / "README.md")
    if page.exists()
)
TASKS = sorted(path.stem for path in (ROOT / "kapacitor" / "templates").iterdir())


# ---- The examples ------------------------------------------------------------------------------
def test_every_example_loads_when_its_suffix_is_taken_off(
    server: Callable[[str], InfluxDB], tmp_path: Path
) -> None:
    require_program("kapacitord")
    influxdb = server("influxd-1.8")
    load_folder = make_load_folder(tmp_path, influxdb, influxdb.new_bucket())
    handlers = load_folder / "handlers"
    assert sorted(path.name for path in handlers.glob("*.example")) == [
        "pagerduty.yaml.example",
        "slack.yaml.example",
        "webhook.yaml.example",
    ]
    for path in load_folder.glob("*/*.example"):
        path.rename(path.with_suffix(""))

    with (
        start_inbox() as inbox,
        start_kapacitor(tmp_path / "kapacitor", load_folder, influxdb, inbox) as kapacitor,
    ):
        expected = {"email", "pagerduty", "slack", "webhook"}
        wait_for(lambda: handlers_of(kapacitor) == expected, "the handlers")

        # That a handler is gone shows that Kapacitor has read the folder again.
        (handlers / "webhook.yaml").unlink()
        kapacitor.reload()
        expected.remove("webhook")
        wait_for(lambda: handlers_of(kapacitor) == expected, "the handlers after a reload")

        tasks = kapacitor.api("GET", "/tasks").json()["tasks"]
        assert sorted(task["id"] for task in tasks) == TASKS
        assert {(task["status"], task["executing"]) for task in tasks} == {("enabled", True)}
        assert kapacitor.errors() == []


@pytest.mark.parametrize("alerting", ["influxd-1.8", "influxd-1.12"], indirect=True)
def test_the_example_for_the_published_hook_has_a_notification_for_each_name(
    alerting: Alerting,
) -> None:
    watched = WatchedBucket(alerting, ["renewal_overdue_domains"])
    now = int(time.time())
    watched.write(
        name_renewal("new.example.com", now - DAY),
        name_renewal("due.example.com", now - 60 * DAY),
        name_renewal("old.example.com", now - 63 * DAY),
        published_renewal(3, now - 63 * DAY),
    )

    watched.next_subjects(1)
    assert overdue_name_notifications(alerting.inbox) == Counter(["old.example.com on web1"])

    watched.write(name_renewal("old.example.com", now))
    assert watched.next_subjects(1) == ["OK: old.example.com on web1: renewed"]
    assert watched.kapacitor.errors() == []


# ---- Chronograf --------------------------------------------------------------------------------
def create_task(kapacitor: Kapacitor, template: Path, bucket: str) -> None:
    """Create a task from a template's script, as an administrator does it in Chronograf.

    The administrator sets the vars at the top of the script.
    """
    script = template.read_text().replace("var bucket = 'telegraf'", f"var bucket = '{bucket}'")
    task = {
        "id": template.stem,
        "type": "batch",
        "dbrps": [{"db": "telegraf", "rp": "autogen"}],
        "script": re.sub(r"(?m)^var every = .*$", "var every = 1s", script),
        "status": "enabled",
    }
    response = kapacitor.api("POST", "/tasks", json=task)
    assert response.status_code == 200, response.text


def test_tasks_that_are_created_in_chronograf_send_the_same_notifications(
    server: Callable[[str], InfluxDB], tmp_path: Path
) -> None:
    require_program("kapacitord")
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    now = int(time.time())
    write(
        influxdb,
        bucket,
        certificate_state("late", now - 2 * DAY),
        name_renewal("old.example.com", now - 63 * DAY),
    )
    load_folder = tmp_path / "load"
    for name in ("templates", "tasks", "handlers"):
        (load_folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "kapacitor" / "handlers" / "email.yaml", load_folder / "handlers")

    with (
        start_inbox() as inbox,
        start_kapacitor(tmp_path / "kapacitor", load_folder, influxdb, inbox) as kapacitor,
    ):
        for template in (ROOT / "kapacitor" / "templates").iterdir():
            create_task(kapacitor, template, bucket)
        wait_for_evaluations(kapacitor, tasks=["renewal_overdue", "renewal_overdue_domains"])

        assert overdue_notifications(inbox) == Counter(["late on web1"])
        assert overdue_name_notifications(inbox) == Counter(["old.example.com on web1"])
        assert kapacitor.errors() == []


# ---- Credentials -------------------------------------------------------------------------------
def create_users(influxdb: InfluxDB, bucket: str) -> None:
    """Create a database, a user who may read it, and an administrator, as whom the test writes."""
    influxdb.command("CREATE USER admin WITH PASSWORD 'fake-admin' WITH ALL PRIVILEGES")
    influxdb.headers["Authorization"] = "Token admin:fake-admin"
    for command in (
        f"CREATE DATABASE {bucket}",
        "CREATE USER reader WITH PASSWORD 'fake-reader'",
        f"GRANT READ ON {bucket} TO reader",
    ):
        influxdb.command(command, u="admin", p="fake-admin")


@pytest.mark.parametrize("influxdb_name", ["influxd-1.8", "influxd-1.12"])
def test_kapacitor_reads_an_influxdb_1_x_that_asks_for_a_password(
    tmp_path: Path, influxdb_name: str
) -> None:
    require_program(influxdb_name)
    require_program("kapacitord")
    login = 'username = "reader"\npassword = "fake-reader"'
    with (
        start_influxdb(
            influxdb_name, tmp_path / influxdb_name, config="auth-enabled = true"
        ) as influxdb,
        start_inbox() as inbox,
    ):
        create_users(influxdb, "d")
        write(influxdb, "d", certificate_state("late", int(time.time()) - 2 * DAY))
        load_folder = make_load_folder(tmp_path, influxdb, "d")
        with start_kapacitor(tmp_path / "kapacitor", load_folder, influxdb, inbox, login=login):
            inbox.read()
            assert overdue_notifications(inbox) == Counter(["late on web1"])


# ---- Mistakes ----------------------------------------------------------------------------------
class Mistake(NamedTuple):
    """A mistake in a task: `wrong` instead of `right`; Kapacitor's error has these texts in it."""

    influxdb_name: str
    right: str
    wrong: str
    error: tuple[str, ...]


CRIT_VAR = "crit: {type: float, value: 1.0}"
BUCKET_VAR = "bucket: {type: string, value: "
ORG_VAR = f"org: {{type: string, value: {ORG}}}"
NO_DATABASE = ('err="failed to initialize execute state: no database"',)

MISTAKES = {
    "a var of another type": Mistake(
        "influxd-1.12",
        CRIT_VAR,
        "crit: {type: int, value: 1}",
        ("failed to load tasks: ", "invalid type supplied for crit, got int exp float"),
    ),
    "a var with another value": Mistake(
        "influxd-1.12",
        CRIT_VAR,
        "crit: {type: float, value: soon}",
        ("invalid var ", "expected float value"),
    ),
    "no such database in 1.8": Mistake("influxd-1.8", BUCKET_VAR, f"{BUCKET_VAR}no", NO_DATABASE),
    "no such database in 1.12": Mistake("influxd-1.12", BUCKET_VAR, f"{BUCKET_VAR}no", NO_DATABASE),
    "no such bucket": Mistake(
        "influxd-2", BUCKET_VAR, f"{BUCKET_VAR}no", ("could not find bucket",)
    ),
    "no organization": Mistake(
        "influxd-2",
        ORG_VAR,
        'org: {type: string, value: ""}',
        ("Please provide either orgID or org",),
    ),
    "no such organization": Mistake(
        "influxd-2",
        ORG_VAR,
        "org: {type: string, value: nobody}",
        ("organization name ", " not found"),
    ),
}


def error_lines(log: Path) -> list[str]:
    """Return the errors in Kapacitor's log, with their quotes as an administrator reads them."""
    lines = log.read_text().replace("\\", "").splitlines()
    return [line for line in lines if "lvl=error" in line]


def assert_error_is_logged_and_documented(
    influxdb: InfluxDB, load_folder: Path, error: tuple[str, ...], token: str = ""
) -> None:
    """Start Kapacitor, and look for an error with these texts in its log and in the manual."""
    folder = load_folder.parent / "kapacitor"

    def is_logged() -> bool:
        return any(all(text in line for text in error) for line in error_lines(folder / "log"))

    # Kapacitor does not start with a task that it cannot read: RuntimeError.
    with (
        contextlib.suppress(RuntimeError),
        start_inbox() as inbox,
        start_kapacitor(folder, load_folder, influxdb, inbox, token=token),
    ):
        wait_for(is_logged, "the error")

    assert is_logged()
    for text in error:
        assert text in MESSAGES


@pytest.mark.parametrize("name", MISTAKES)
def test_kapacitors_error_about_a_mistake_in_a_task_is_documented(
    server: Callable[[str], InfluxDB], tmp_path: Path, name: str
) -> None:
    require_program("kapacitord")
    mistake = MISTAKES[name]
    influxdb = server(mistake.influxdb_name)
    load_folder = make_load_folder(tmp_path, influxdb, influxdb.new_bucket())
    task = load_folder / "tasks" / "renewal_overdue.yaml"
    text = task.read_text()
    assert mistake.right in text
    task.write_text(text.replace(mistake.right, mistake.wrong))

    assert_error_is_logged_and_documented(influxdb, load_folder, mistake.error)


def test_kapacitors_error_about_a_wrong_token_is_documented(
    server: Callable[[str], InfluxDB], tmp_path: Path
) -> None:
    require_program("kapacitord")
    influxdb = server("influxd-2")
    load_folder = make_load_folder(tmp_path, influxdb, influxdb.new_bucket())

    error = ('err="unauthorized access"',)
    assert_error_is_logged_and_documented(influxdb, load_folder, error, token="fake-wrong")
