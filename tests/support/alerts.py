"""The alerts of kapacitor/ on a real Kapacitor, and the mails that they send."""

from __future__ import annotations

import functools
import html
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from certbot_renewal_report import Point
from support.points import write
from support.servers import Alerting
from tools import ROOT
from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.kapacitor import Inbox, Kapacitor
from tools.servers.processes import wait_for

# The parameters of the fixture `alerting`.
EACH_INFLUXDB = pytest.mark.parametrize(
    "alerting", ["influxd-1.8", "influxd-1.12", "influxd-2"], indirect=True
)
# Without 1.8, which needs a second for a query. The tests of the queries run on 1.8 too.
EACH_QUICK_INFLUXDB = pytest.mark.parametrize(
    "alerting", ["influxd-1.12", "influxd-2"], indirect=True
)

OVERDUE_TASKS = ("renewal_overdue",)
HOST_TASKS = ("host_silent", "renewal_failing")


# ---- The load directory ------------------------------------------------------------------------
def make_load_folder(
    folder: Path,
    influxdb: InfluxDB,
    bucket: str,
    crit: str = "1.0",
    often: Sequence[str] = OVERDUE_TASKS,
) -> Path:
    """Copy kapacitor/ into a folder, and adapt the copy as an administrator does.

    The tasks get the bucket, the organization and `crit` (days). Those named in `often` run all the
    time, instead of every 15 minutes; examples among them are switched on.
    """
    load_folder = folder / "load"
    shutil.copytree(ROOT / "kapacitor", load_folder, dirs_exist_ok=True)
    tasks = load_folder / "tasks"
    switch_on_examples(tasks, often)

    # InfluxDB 1.8 needs up to a second for a query, most of it to parse the query.
    every = "2s" if influxdb.name == "influxd-1.8" else "500ms"
    for path in tasks.glob("*.yaml"):
        text = path.read_text()
        text = text.replace("value: telegraf", f"value: {bucket}")
        text = text.replace("value: 1.0", f"value: {crit}")
        if influxdb.major == 2:
            text = text.replace('value: ""', f"value: {ORG}")
        if path.stem in often:
            text = text.replace("value: 15m", f"value: {every}")
            text = text.replace("value: 1h", f"value: {every}")
        path.write_text(text)
    return load_folder


def switch_on_examples(tasks: Path, names: Sequence[str]) -> None:
    """Take the suffix off the examples with these names, as their comments say."""
    for name in names:
        example = tasks / f"{name}.yaml.example"
        if example.exists():
            example.rename(example.with_suffix(""))
    if "renewal_overdue_hosts" in names:
        (tasks / "renewal_overdue.yaml").unlink()


# ---- Evaluations -------------------------------------------------------------------------------
class EvaluationCounter:
    """Counts how often one task has evaluated all rows of its query since this was made."""

    def __init__(self, kapacitor: Kapacitor, task: str) -> None:
        """Start to count as soon as Kapacitor executes the task."""
        self.kapacitor = kapacitor
        self.task = task
        statistics = wait_for(lambda: kapacitor.alert(task), f"the task {task}")
        self.rows_at_start: int = statistics["collected"]

    def has_evaluated(self, times: int) -> bool:
        """Return whether it has evaluated them so often, each time from the beginning."""
        alert = self.kapacitor.alert(self.task)
        rows = alert["collected"]
        if rows < self.rows_at_start:  # Kapacitor has loaded the task again
            self.rows_at_start = rows
        rows_per_evaluation = max(alert["working_cardinality"], 1)
        # One evaluation more: the first may have begun before this was made.
        return rows >= self.rows_at_start + (times + 1) * rows_per_evaluation


def wait_for_evaluations(
    kapacitor: Kapacitor, times: int = 2, tasks: Sequence[str] = OVERDUE_TASKS
) -> None:
    """Wait until each task has evaluated all rows of its query so many times more."""
    counters = [EvaluationCounter(kapacitor, task) for task in tasks]
    for counter in counters:
        wait_for(
            functools.partial(counter.has_evaluated, times),
            f"{times} evaluations of {counter.task}",
            poll_seconds=0.2,
        )


def handlers_of(kapacitor: Kapacitor) -> set[str]:
    """Return the names of the handlers that the alerts' topic has."""
    answer = kapacitor.api("GET", "/alerts/topics/certbot_renewal/handlers").json()
    return {handler["id"] for handler in answer["handlers"]}


class WatchedBucket:
    """A bucket that a Kapacitor watches with some of the alerts, and the mails that it sends."""

    kapacitor: Kapacitor

    def __init__(
        self,
        alerting: Alerting,
        tasks: Sequence[str] = OVERDUE_TASKS,
        crit: str = "1.0",
        retention: str = "",
    ) -> None:
        """Start InfluxDB, make the bucket, and start Kapacitor.

        `crit` is in days. `retention` is in seconds, as a text; "": for ever.
        """
        influxdb = alerting.start_influxdb()
        self.alerting = alerting
        self.inbox = alerting.inbox
        self.tasks = tasks
        self.bucket = influxdb.new_bucket(retention)
        self.load_folder = make_load_folder(alerting.folder, influxdb, self.bucket, crit, tasks)
        self.start_kapacitor()

    def start_kapacitor(self) -> None:
        """Start Kapacitor, with the alert states that it had before.

        It loads the tasks first. An alert that fires before the handlers are loaded sends no mail.
        """
        self.kapacitor = self.alerting.start_kapacitor(self.load_folder)
        wait_for(lambda: handlers_of(self.kapacitor), "the handlers")

    def restart_kapacitor(self) -> None:
        """Stop Kapacitor and start it again."""
        self.alerting.stop("kapacitor")
        self.start_kapacitor()

    def pause(self) -> None:
        """Let Kapacitor evaluate nothing until resume() is called."""
        self.set_status("disabled")

    def resume(self) -> None:
        """Let Kapacitor evaluate the alerts again."""
        self.set_status("enabled")

    def set_status(self, status: str) -> None:
        """Set the status of each task: enabled or disabled."""
        for task in self.tasks:
            response = self.kapacitor.api("PATCH", f"/tasks/{task}", json={"status": status})
            response.raise_for_status()

    def restart_influxdb_after_a_failed_query(self) -> None:
        """Stop InfluxDB until Kapacitor has noticed it, and start it again."""
        errors_before = len(self.kapacitor.errors())
        self.alerting.stop("influxdb")
        wait_for(lambda: len(self.kapacitor.errors()) > errors_before, "a query that fails")
        self.alerting.start_influxdb()

    def write(self, *points: Point) -> None:
        """Write points into the bucket."""
        write(self.alerting.influxdb, self.bucket, *points)

    def write_paused(self, *points: Point) -> None:
        """Write points of different weeks; an evaluation sees all of them or none.

        InfluxDB stores those of a week (a shard) at a time of their own.
        """
        self.pause()
        self.write(*points)
        self.resume()

    def wait_for_evaluations(self) -> None:
        """Wait until each alert has evaluated all rows of its query twice more."""
        wait_for_evaluations(self.kapacitor, tasks=self.tasks)

    def next_subjects(self, count: int) -> list[str]:
        """Wait for so many mails that nobody has read yet; return their subjects, sorted.

        Fail if another mail follows within two evaluations. With a count of 0 this asserts that
        the alerts do not send a mail.
        """
        subjects = [self.inbox.read() for _ in range(count)]
        self.wait_for_evaluations()
        assert self.inbox.unread() == []
        return sorted(subjects)


def critical_alerts(kapacitor: Kapacitor) -> set[str]:
    """Return the ids of the alerts whose level is critical, such as renewal_overdue/web1/a."""
    answer = kapacitor.api("GET", "/alerts/topics/certbot_renewal/events").json()
    critical = [event for event in answer["events"] if event["state"]["level"] == "CRITICAL"]
    return {event["id"] for event in critical}


# ---- Mails -------------------------------------------------------------------------------------
def utc(at: int) -> str:
    """Return a time, in Unix seconds, as notifications show it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


# What the subject of each mail begins with.
LEVELS = ("OK: ", "WARNING: ", "CRITICAL: ")


def overdue_notifications(inbox: Inbox) -> Counter[str]:
    """Return the certificates that mails report as overdue, as `lineage on host`."""
    return subjects_of_mails(inbox, ": renewal overdue, due since ")


def overdue_name_notifications(inbox: Inbox) -> Counter[str]:
    """Return the names that mails of renewal_overdue_domains report, as `name on host`."""
    return subjects_of_mails(inbox, ": not renewed for ")


def overdue_recoveries(inbox: Inbox) -> Counter[str]:
    """Return the certificates that mails report as no longer overdue, as `lineage on host`."""
    renewed = subjects_of_mails(inbox, ": renewed, next renewal due ")
    retired = subjects_of_mails(inbox, ": no longer on")
    return renewed + retired


def subjects_of_mails(inbox: Inbox, phrase: str) -> Counter[str]:
    """Return what stands between level and phrase, for each mail with the phrase in its subject."""
    counter: Counter[str] = Counter()
    for subject in inbox.subjects():
        before, found, _ = subject.partition(phrase)
        if found:
            assert subject.startswith(LEVELS)
            counter[before.partition(": ")[2]] += 1
    return counter


def mail_text(inbox: Inbox, subject_start: str) -> str:
    """Return the subject and the text of the one mail whose subject starts so."""
    (mail,) = [mail for mail in inbox.mails if str(mail["Subject"]).startswith(subject_start)]
    text = mail.get_content().replace("\r\n", "\n")
    return f"{mail['Subject']}\n{text}"


def steps_of_details(details: str) -> list[str]:
    """Return the numbered steps in the HTML of a mail, and their commands, each in one line."""
    steps = []
    items = re.findall(r"<li>(.*?)(?:<br>\s*<code>(.*?)</code>)?</li>", details, re.DOTALL)
    for number, (text, command) in enumerate(items, start=1):
        steps.append(html.unescape(f"{number}. {text}"))
        if command:
            steps.append(html.unescape(f"   {command}"))
    return steps


def as_plain_text(details: str) -> str:
    """Return the HTML of an overdue mail as the manual shows it, without its formatting."""
    (title,) = re.findall(r"<p><b>(.*)</b></p>", details)
    rows = re.findall(r"<tr><td>(.*)</td><td>(.*)</td></tr>", details)
    table = [f"{name}: {value}" for name, value in rows]
    (introduction,) = re.findall(r"<p>(What to do .*)</p>", details)
    lines = [title, "", *table, "", introduction, *steps_of_details(details)]
    return html.unescape("\n".join(lines))
