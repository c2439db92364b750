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
    HOUR,
    certbot_run,
    certificate_state,
    dry_run_result,
    retired_host,
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
        certificate_state("late", due, failure="no TXT record", at=at),
        certificate_state("late", due, host="web2", at=at),
        certificate_state("ending", due, at=at),
        certificate_state("fine", start + DAY, at=at),
        certbot_run("web9", start - 3 * DAY),
        certbot_run(
            "web1",
            at,
            failed="late other",
            exit_status=1,
            failures="late: no TXT record | other: refused",
        ),
        dry_run_result("fine", "none", at=at),
        dry_run_result("tried", "no such plugin", at=at),
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
            f"crit: CRITICAL: late on web1: {overdue}; reason: no TXT record",
            f"crit: CRITICAL: late on web2: {overdue}",
            f"crit: CRITICAL: ending on web1: {overdue}",
            "warn: WARNING: web1: certbot failed; not renewed: late, other; exit status 1; "
            "reason: late: no TXT record | other: refused",
            "warn: WARNING: web1: dry run failed: tried; reason: tried: no such plugin",
            f"crit: CRITICAL: web9: no run report for 3.0 days (last: {utc(start - 3 * DAY)})",
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
        certbot_run("web9", at),
        certbot_run("web1", at, steps=1),
        dry_run_result("tried", "none", at=at),
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
            "ok: OK: web1: no failed dry run",
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
    silent = certbot_run("web8", at - 3 * DAY)
    back = [certbot_run(host, at) for host in ("web5", "web6", "web7")]
    task_alerting.write(silent, *back)
    task_alerting.evaluate(start + QUARTER, "host_silent")
    assert task_alerting.webhook.next_messages() == []


def test_when_more_certificates_fail_renewal_failing_fires_again(
    task_alerting: TaskAlerting,
) -> None:
    start = task_alerting.start
    failed = {1: "a", 2: "a b"}
    for step, lineages in failed.items():
        at = start + step * QUARTER
        task_alerting.write(certbot_run("web1", at - MINUTE, failed=lineages, step=step))
        task_alerting.evaluate(at, "renewal_failing")
        assert task_alerting.webhook.next_messages() == [
            f"warn: WARNING: web1: certbot failed; not renewed: {lineages.replace(' ', ', ')}"
        ]

    # Fewer certificates fail: the incident continues. A restart changes nothing.
    at = start + 3 * QUARTER
    task_alerting.write(certbot_run("web1", at - MINUTE, failed="b", step=2))
    task_alerting.restart_influxdb()
    task_alerting.evaluate(at, "renewal_failing")
    assert task_alerting.webhook.next_messages() == []

    # Each of the two notifications gets its recovery.
    at = start + 4 * QUARTER
    task_alerting.write(certbot_run("web1", at - MINUTE, steps=2))
    task_alerting.evaluate(at, "renewal_failing")
    recovery = "ok: OK: web1: certbot succeeded"
    assert task_alerting.webhook.next_messages() == [recovery, recovery]
    task_alerting.evaluate(start + 5 * QUARTER, "renewal_failing")
    assert task_alerting.webhook.next_messages() == []


def test_the_reason_of_a_run_that_failed_as_a_whole_is_in_the_notification(
    task_alerting: TaskAlerting,
) -> None:
    start = task_alerting.start
    reason = "Another instance of Certbot is already running. " + "x" * 400
    task_alerting.write(certbot_run("web1", start - MINUTE, exit_status=1, failure=reason))
    task_alerting.evaluate(start, "renewal_failing")
    assert task_alerting.webhook.next_messages() == [
        f"warn: WARNING: web1: certbot failed; exit status 1; reason: {reason[:397]}..."
    ]


def test_a_certificate_of_a_day_is_overdue_after_half_of_the_time_that_is_left(
    task_alerting: TaskAlerting,
) -> None:
    start = task_alerting.start
    # A third of the day is left when it is due: 8 hours. So the alert fires 4 hours later.
    early = certificate_state("early", start - 4 * HOUR + MINUTE, lifetime=DAY, at=start - MINUTE)
    late = certificate_state("late", start - 4 * HOUR, lifetime=DAY, at=start - MINUTE)
    task_alerting.write(early, late)
    task_alerting.evaluate(start, "renewal_overdue")
    assert task_alerting.webhook.next_messages() == [
        "crit: CRITICAL: late on web1: renewal overdue, "
        f"due since {utc(start - 4 * HOUR)}, 0.2 days left"
    ]


def test_the_alert_of_a_silent_host_resolves_when_the_host_is_retired(
    task_alerting: TaskAlerting,
) -> None:
    start = task_alerting.start
    task_alerting.write(certbot_run("web9", start - 3 * DAY))
    task_alerting.evaluate(start, "host_silent")
    assert len(task_alerting.webhook.next_messages()) == 1

    task_alerting.write(retired_host("web9", start + 6 * MINUTE))
    task_alerting.evaluate(start + QUARTER, "host_silent")
    assert task_alerting.webhook.next_messages() == [
        "ok: OK: web9: retired, no run reports expected"
    ]


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
    assert len(task_alerting.tasks()) == 6

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
