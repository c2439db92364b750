"""The template of dashboards/influxdb2.yml in a real InfluxDB 2, with a webhook as its endpoint."""

from __future__ import annotations

import contextlib
import copy
import functools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from certbot_renewal_report import Point
from support.dashboards import INFLUXDB2_TEMPLATE, Json, for_bucket, run_documented_python
from support.points import write
from support.servers import require_program
from support.webhook import Webhook, start_webhook
from tools.generate.alerts import ALERTS
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.processes import free_port, wait_for

MINUTE = 60
QUARTER = 15 * MINUTE  # between two evaluations of the alerts
NOTIFICATION_RULE = "certbot renewals"


class TaskAlerting:
    """InfluxDB 2 with the template. A test runs its tasks as of any time.

    `start` is the time of the first evaluation, two hours ago: further evaluations are each a
    QUARTER later. `template` is the template with the test's bucket and webhook, and `stack_id` the
    stack that it was applied with.
    """

    influxdb: InfluxDB

    def __init__(self, folder: Path, webhook: Webhook) -> None:
        """Start InfluxDB, and apply the template."""
        self.prepare(folder, webhook)
        self.start_influxdb()
        self.bucket = self.influxdb.new_bucket()
        self.org_id = self.get("orgs")["orgs"][0]["id"]
        template = for_bucket(self.bucket, INFLUXDB2_TEMPLATE)
        self.template = template.replace("http://127.0.0.1:9999/certificates", webhook.url)
        self.stack_id = self.apply(self.template)

    def prepare(self, folder: Path, webhook: Webhook) -> None:
        """Set what differs between copies of the same data."""
        self.folder = folder
        self.webhook = webhook
        self.port = free_port()
        self.running = contextlib.ExitStack()
        self.start = int(time.time()) // QUARTER * QUARTER - 8 * QUARTER

    def started_copy(self, folder: Path, webhook: Webhook) -> TaskAlerting:
        """Return one that runs on a copy of the data; this one must be stopped.

        InfluxDB needs seconds to apply the template, but not to start with data that have it. The
        webhook must have the same address.
        """
        copied = copy.copy(self)
        copied.prepare(folder, webhook)
        shutil.copytree(self.folder, folder)
        copied.start_influxdb()
        return copied

    def start_influxdb(self) -> None:
        """Start InfluxDB, with the data that it had before."""
        starting = start_influxdb("influxd-2", self.folder, self.port)
        self.influxdb = self.running.enter_context(starting)

    def restart_influxdb(self) -> None:
        """Stop InfluxDB, and start it again."""
        self.running.close()
        self.start_influxdb()

    # -- The API --
    def get(self, path: str, **parameters: str) -> Any:
        """Return what the API answers."""
        response = requests.get(
            f"{self.influxdb.url}/api/v2/{path}",
            params=parameters,
            headers=self.influxdb.headers,
            timeout=30,
        )
        return response.json()

    def send(self, method: str, path: str, body: Json) -> Any:
        """Send a request to the API, assert that it succeeds, and return the answer."""
        response = requests.request(
            method,
            f"{self.influxdb.url}/api/v2/{path}",
            json=body,
            headers=self.influxdb.headers,
            timeout=60,
        )
        assert response.status_code < 300, response.text
        return response.json()

    def apply(self, template: str, stack_id: str = "") -> str:
        """Apply a template with the manual's command; return its stack.

        With `stack_id`, it replaces the template of that stack.
        """
        name = "certbot_renewal.yml"
        body = run_documented_python(name, template, self.folder, self.org_id)
        if stack_id:
            body["stackID"] = stack_id
        answer = self.send("POST", "templates/apply", body)
        assert not answer.get("errors")
        return str(answer["stackID"])

    def notification_rules(self) -> list[Json]:
        """Return the notification rules."""
        rules: list[Json] = self.get("notificationRules", orgID=self.org_id)["notificationRules"]
        return rules

    def tasks(self) -> list[Json]:
        """Return the tasks, without those of notification rules."""
        tasks: list[Json] = self.get("tasks")["tasks"]
        return tasks

    def names_of(self, kind: str, **parameters: str) -> list[str]:
        """Return the names of all resources of a kind: dashboards, buckets."""
        return [resource["name"] for resource in self.get(kind, **parameters)[kind]]

    # -- Evaluations --
    def write(self, *points: Point) -> None:
        """Write points into the bucket."""
        write(self.influxdb, self.bucket, *points)

    def evaluate(self, at: int, *names: str) -> None:
        """Run alerts as of a time (all, if none is named), and the rule five minutes later."""
        self.run_tasks(at, *(names or [alert.name for alert in ALERTS]))
        self.run_tasks(at + 5 * MINUTE, NOTIFICATION_RULE)

    def run_tasks(self, at: int, *names: str) -> None:
        """Run tasks as of a time, and assert that they succeed."""
        ids = {task["name"]: task["id"] for task in self.tasks()}
        for rule in self.notification_rules():
            ids[rule["name"]] = rule["taskID"]
        scheduled_for = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))

        run_ids = []
        for name in names:
            run = self.send("POST", f"tasks/{ids[name]}/runs", {"scheduledFor": scheduled_for})
            run_ids.append(run["id"])
        for run_id in run_ids:
            status = wait_for(functools.partial(self.status_of_run, run_id), "the run of a task")
            assert status == "success"

    def status_of_run(self, run_id: str) -> str:
        """Return how a run of a task ended: success or failed; "" until InfluxDB has recorded it.

        The API knows it a moment earlier. InfluxDB would repeat the run if it restarted then.
        """
        rows = self.influxdb.query(f'''
            from(bucket: "_tasks")
                |> range(start: -1d)
                |> filter(fn: (r) => r._field == "runID" and r._value == "{run_id}")
        ''')
        return rows[0]["status"] if rows else ""


def apply_template(folder: Path) -> TaskAlerting:
    """Return a stopped InfluxDB 2 with the template, for copies of it.

    Its data are in a folder. Skip or fail the test if it is not built.
    """
    require_program("influxd-2")
    with start_webhook() as webhook:
        alerting = TaskAlerting(folder, webhook)
        alerting.running.close()
    return alerting


@contextlib.contextmanager
def start_task_alerting(applied: TaskAlerting, folder: Path) -> Iterator[TaskAlerting]:
    """Start a copy of what apply_template() returned; its data are in a folder, which is new."""
    with start_webhook(applied.webhook.port) as webhook:
        alerting = applied.started_copy(folder, webhook)
        with alerting.running:
            yield alerting
