"""The alerts of dashboards/influxdb2.yml on a real InfluxDB 2: what a webhook receives of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from certbot_renewal_report import Point
from support.alerts import utc
from support.dashboards import INFLUXDB2_TEMPLATE
from support.influxdb2 import MINUTE, QUARTER, TaskAlerting, apply_template, start_task_alerting
from support.points import (
    certbot_run,
    certificate_state,
    reported_state,
    retired_state,
    served_state,
    target_state,
)
from tools.servers.lineages import DAY


@pytest.fixture(scope="module")
def applied_template(tmp_path_factory: pytest.TempPathFactory) -> TaskAlerting:
    """A stopped InfluxDB 2 with the template."""
    return apply_template(tmp_path_factory.mktemp("applied"))


@pytest.fixture
def task_alerting(applied_template: TaskAlerting, tmp_path: Path) -> Iterator[TaskAlerting]:
    """InfluxDB 2 with the template, and a webhook, of a test's own."""
    with start_task_alerting(applied_template, tmp_path / "influxdb") as alerting:
        yield alerting


def incidents(start: int) -> list[Point]:
    """Return points with an incident of each kind, reported a minute before a time."""
    due = start - 2 * DAY
    renewed = due
    at = start - MINUTE
    return [
        certificate_state("late", due, at=at),
        certificate_state("late", due, host="web2", at=at),
        certificate_state("ending", due, at=at),
        certificate_state("fine", start + DAY, at=at),
        reported_state("a", start + DAY, start - 3 * DAY, host="web9"),
        certbot_run("web1", at, failed="late other", exit_status=1),
        certificate_state("delivered", renewed + 60 * DAY, at=at),
        target_state(
            "haproxy", deployed=renewed - 60 * DAY, renewed=renewed, lineage="delivered", at=at
        ),
        target_state(
            "vault", deployed=start - 88 * DAY, renewed=renewed, lineage="delivered", at=at
        ),
        served_state(
            "served",
            renewed,
            0,
            not_served="served.example.com",
            served_expiry=start + DAY,
            at=at,
        ),
    ]


def incident_messages(start: int) -> list[str]:
    """Return the notifications about incidents(start), sorted."""
    due = utc(start - 2 * DAY)
    renewed = due
    overdue = f"renewal overdue, due since {due}, 28.0 days left"
    return sorted(
        [
            f"crit: CRITICAL: late on web1: {overdue}",
            f"crit: CRITICAL: late on web2: {overdue}",
            f"crit: CRITICAL: ending on web1: {overdue}",
            "warn: WARNING: web1: certbot failed; not renewed: late, other; exit status 1",
            "crit: CRITICAL: web9: no run report for 3.0 days "
            f"(last: {utc(start - 3 * DAY)}; certificates: a)",
            f"warn: WARNING: delivered on web1: not delivered to haproxy, renewed {renewed}, "
            f"the old certificate there expires {utc(start + 28 * DAY)}",
            f"crit: CRITICAL: delivered on web1: not delivered to vault, renewed {renewed}, "
            f"the old certificate there expires {utc(start + 2 * DAY)}",
            "crit: CRITICAL: served on web1: not served for served.example.com, "
            f"renewed {renewed}, the served certificate expires {utc(start + DAY)}",
        ]
    )


def recoveries(renewed: int, at: int) -> list[Point]:
    """Return points in which each of the incidents has ended; their deliveries are `renewed`."""
    due = at + 60 * DAY
    return [
        certificate_state("late", due, at=at),
        certificate_state("late", due, host="web2", at=at),
        retired_state("ending", at=at),
        reported_state("a", at + DAY, at, host="web9"),
        certbot_run("web1", at, exit_status=0),
        target_state("haproxy", deployed=renewed, renewed=renewed, lineage="delivered", at=at),
        target_state("vault", deployed=0, renewed=0, lineage="delivered", at=at),
        served_state("served", renewed, 1, not_served="none", at=at),
    ]


def recovery_messages(at: int) -> list[str]:
    """Return the notifications about recoveries(…, at), sorted."""
    next_due = utc(at + 60 * DAY)
    return sorted(
        [
            f"ok: OK: late on web1: renewed, next renewal due {next_due}",
            f"ok: OK: late on web2: renewed, next renewal due {next_due}",
            "ok: OK: ending on web1: no longer on this host",
            "ok: OK: web1: certbot succeeded",
            "ok: OK: web9: reports again",
            "ok: OK: delivered on web1: delivered to haproxy",
            "ok: OK: delivered on web1: no longer delivered to vault",
            "ok: OK: served on web1: the renewed certificate is served",
        ]
    )


# ---- Notifications -----------------------------------------------------------------------------
def test_each_incident_is_one_notification_and_its_recovery_one(
    task_alerting: TaskAlerting,
) -> None:
    start = task_alerting.start
    task_alerting.write(*incidents(start))
    task_alerting.evaluate(start)
    assert task_alerting.webhook.next_messages() == incident_messages(start)

    at = start + 6 * MINUTE
    task_alerting.write(*recoveries(start - 2 * DAY, at))
    task_alerting.evaluate(start + QUARTER)
    assert task_alerting.webhook.next_messages() == recovery_messages(at)

    task_alerting.evaluate(start + 2 * QUARTER)
    assert task_alerting.webhook.next_messages() == []


def test_a_restart_repeats_no_notification(task_alerting: TaskAlerting) -> None:
    start = task_alerting.start
    task_alerting.write(*incidents(start))
    task_alerting.evaluate(start)
    assert task_alerting.webhook.next_messages() == incident_messages(start)

    task_alerting.restart_influxdb()
    task_alerting.evaluate(start + QUARTER)
    assert task_alerting.webhook.next_messages() == []


def test_while_most_hosts_are_silent_a_silent_host_neither_fires_nor_resolves(
    task_alerting: TaskAlerting,
) -> None:
    start = task_alerting.start
    task_alerting.write(*incidents(start))
    task_alerting.evaluate(start, "host_silent")
    assert [message.split(" (")[0] for message in task_alerting.webhook.next_messages()] == [
        "crit: CRITICAL: web9: no run report for 3.0 days"
    ]

    at = start + 6 * MINUTE
    silent = reported_state("a", at + DAY, at - 3 * DAY, host="web8")
    back = [reported_state("a", at + DAY, at, host=host) for host in ("web5", "web6", "web7")]
    task_alerting.write(silent._replace(time=at), *back)
    task_alerting.evaluate(start + QUARTER, "host_silent")
    assert task_alerting.webhook.next_messages() == []


def test_a_notification_that_the_endpoint_refused_is_sent_again(
    task_alerting: TaskAlerting,
) -> None:
    start = task_alerting.start
    due = start - 2 * DAY
    messages = [
        f"crit: CRITICAL: next on web1: renewal overdue, due since {utc(due)}, 28.0 days left"
    ]
    task_alerting.write(certificate_state("next", due, at=start - MINUTE))
    task_alerting.webhook.status = 503
    task_alerting.evaluate(start, "renewal_overdue")
    assert task_alerting.webhook.next_messages() == messages

    # Many webhooks answer 204. InfluxDB takes it for a failure, but the alert does not.
    task_alerting.webhook.status = 204
    task_alerting.evaluate(start + QUARTER, "renewal_overdue")
    assert task_alerting.webhook.next_messages() == messages
    task_alerting.evaluate(start + 2 * QUARTER, "renewal_overdue")
    assert task_alerting.webhook.next_messages() == []


# ---- The template ------------------------------------------------------------------------------
# The examples in the comment at the top of the template, in their order.
BUCKET_EXAMPLE, SLACK_EXAMPLE, PAGERDUTY_EXAMPLE = range(3)


def example(number: int) -> str:
    """Return a resource from the comment at the top of the template."""
    blocks = re.findall(r"(?m)(?:^#   .*\n)+", INFLUXDB2_TEMPLATE)
    return re.sub(r"(?m)^#   ", "", blocks[number])


def with_endpoint(template: str, endpoint: str) -> str:
    """Return the template with another endpoint, and the message as the comment says."""
    http_endpoint = re.compile(
        r"apiVersion: \S+\nkind: NotificationEndpointHTTP\n.*?(?=---\n)", re.DOTALL
    )
    text = http_endpoint.sub(lambda _: endpoint, template)
    return text.replace("  endpointName:", '  messageTemplate: "${ r._message }"\n  endpointName:')


def without_kind(kind: str, template: str) -> str:
    """Return the template without its resources of a kind."""
    documents = template.split("---\n")
    return "---\n".join(document for document in documents if f"kind: {kind}\n" not in document)


def test_the_template_has_the_documented_intervals(task_alerting: TaskAlerting) -> None:
    assert {task["every"] for task in task_alerting.tasks()} == {"15m0s"}
    assert [rule["every"] for rule in task_alerting.notification_rules()] == ["5m0s"]


def test_applied_again_to_its_stack_the_template_replaces_the_endpoint_with_slack(
    task_alerting: TaskAlerting,
) -> None:
    endpoint = example(SLACK_EXAMPLE).replace(
        "https://hooks.slack.com/services/fake/fake/fake", task_alerting.webhook.url
    )
    slack_template = with_endpoint(task_alerting.template, endpoint)
    task_alerting.apply(slack_template, stack_id=task_alerting.stack_id)
    assert task_alerting.names_of("dashboards") == ["certbot renewals"]
    assert len(task_alerting.notification_rules()) == 1
    assert len(task_alerting.tasks()) == 5

    start = task_alerting.start
    task_alerting.write(certificate_state("slack", start - 2 * DAY, at=start - MINUTE))
    task_alerting.evaluate(start, "renewal_overdue")
    (notification,) = task_alerting.webhook.received
    text = notification["attachments"][0]["text"]
    assert text.split(",")[0] == "CRITICAL: slack on web1: renewal overdue"


def test_the_examples_of_pagerduty_and_of_the_bucket_can_be_applied(
    task_alerting: TaskAlerting,
) -> None:
    template = with_endpoint(task_alerting.template, example(PAGERDUTY_EXAMPLE))
    # The tasks and the dashboard are applied already, and would be there twice.
    template = without_kind("Task", without_kind("Dashboard", template))
    task_alerting.apply(f"{template}---\n{example(BUCKET_EXAMPLE)}")
    assert task_alerting.names_of("buckets", name="telegraf") == ["telegraf"]


def test_the_bucket_with_the_notifications_keeps_a_week_and_can_keep_all(
    task_alerting: TaskAlerting,
) -> None:
    (monitoring,) = task_alerting.get("buckets", name="_monitoring")["buckets"]
    assert monitoring["retentionRules"][0]["everySeconds"] == 7 * DAY

    forever = {"retentionRules": [{"type": "expire", "everySeconds": 0}]}
    changed = task_alerting.send("PATCH", f"buckets/{monitoring['id']}", forever)
    assert changed["retentionRules"][0]["everySeconds"] == 0
