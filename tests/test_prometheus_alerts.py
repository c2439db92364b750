"""Which alerts of prometheus/ send which mails: real VictoriaMetrics, vmalert and Alertmanager."""

from __future__ import annotations

import subprocess
import time

from certbot_renewal_report import Point
from support.alerts import utc
from support.hooks import CRON
from support.manual import assert_output, blocks_of, read_page
from support.metrics import (
    PROMETHEUS,
    MetricsAlerting,
    copy_rules,
    host_report,
    with_fields,
    with_look,
)
from support.points import (
    HOUR,
    LIFETIMES,
    certbot_run,
    certificate_state,
    dry_run_result,
    make_point,
    published_renewal,
    reported_state,
    retired_host,
    retired_state,
    target_state,
    with_tag,
)
from support.servers import skip_or_fail
from tools.servers.certbot import Certbot
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, installed_program


def test_amtool_accepts_the_configuration() -> None:
    try:
        amtool = installed_program("amtool", "prometheus-alertmanager")
    except MissingServer as error:
        skip_or_fail(error)
    check = subprocess.run(
        [amtool, "check-config", str(PROMETHEUS / "alertmanager.yml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert check.returncode == 0, check.stdout + check.stderr


# ---- Overdue -----------------------------------------------------------------------------------
def overdue_mail(host: str, lineage: str) -> str:
    """Return the subject of the mail about one overdue certificate."""
    return f"CRITICAL: {host}: renewal_overdue, 1 firing: {lineage}"


def test_certificates_of_each_lifetime_alert_a_day_after_the_due_date_and_resolve_once_renewed(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    due_a_day_ago = now - DAY - 60
    due_later = due_a_day_ago + 600
    for name, lifetime in LIFETIMES.items():
        late = certificate_state(
            "late", due_a_day_ago, host=f"late-{name}", lifetime=lifetime, at=now - 30
        )
        quiet = certificate_state("quiet", due_later, host=f"quiet-{name}", lifetime=lifetime)
        metrics_alerting.write(late, quiet)
    subjects = [overdue_mail(f"late-{name}", "late") for name in LIFETIMES]
    assert metrics_alerting.next_subjects(len(LIFETIMES)) == sorted(subjects)
    metrics_alerting.assert_no_further_mail()

    for name in LIFETIMES:
        metrics_alerting.write(certificate_state("late", now + 30 * DAY, host=f"late-{name}"))
    recoveries = [f"OK: late-{name}: renewal_overdue, 1 resolved: late" for name in LIFETIMES]
    assert metrics_alerting.next_subjects(len(LIFETIMES)) == sorted(recoveries)
    metrics_alerting.assert_no_alert()


def test_a_certificate_is_judged_as_of_its_last_run_report(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    due = now - 36 * HOUR
    metrics_alerting.write(
        certificate_state("evidence-quiet", due, host="b", run_at=due + DAY - 60),
        host_report("b", due + DAY - 60),
        certificate_state("evidence-late", due, host="c", run_at=due + DAY),
        host_report("c", due + DAY),
    )
    assert metrics_alerting.next_subjects(1) == [overdue_mail("c", "evidence-late")]
    metrics_alerting.assert_no_further_mail()


def test_the_clocks_of_hosts_do_not_matter(metrics_alerting: MetricsAlerting) -> None:
    now = int(time.time())
    far = 40 * DAY
    metrics_alerting.write(
        certificate_state("ahead", now - HOUR, host="b", run_at=now + far),
        host_report("b", now - 30),
        certificate_state("behind", now - 2 * DAY, host="c", run_at=now - far, at=now - 30),
        host_report("c", now - 30),
    )
    assert metrics_alerting.next_subjects(1) == [overdue_mail("c", "behind")]
    metrics_alerting.assert_no_further_mail()


def test_a_certificate_of_a_day_alerts_after_half_of_the_time_between_due_date_and_expiry(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    # Due when a third is left, 8 hours: half of it is 4 hours.
    for lineage, due in (("late", now - 4 * HOUR - 60), ("quiet", now - 4 * HOUR + 600)):
        metrics_alerting.write(certificate_state(lineage, due, lifetime=DAY, at=now - 30))
    assert metrics_alerting.next_subjects(1) == [overdue_mail("web1", "late")]
    text = metrics_alerting.mail_text(overdue_mail("web1", "late"))
    assert text.partition("\n")[0].endswith(" UTC, 0.2 days left")
    metrics_alerting.assert_no_further_mail()


def test_the_mail_about_an_overdue_certificate_says_since_when_and_what_to_try(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    metrics_alerting.write(certificate_state("late", now - DAY - 60, at=now - 30))
    assert metrics_alerting.next_subjects(1) == [overdue_mail("web1", "late")]

    text = metrics_alerting.mail_text(overdue_mail("web1", "late"))
    due = utc(now - DAY - 60)
    expected = f"""\
CRITICAL: late on web1: renewal overdue, due since {due}, 29.0 days left

What to do on web1, as root:
1. Check whether certbot can renew the certificate. \
If not, /var/log/letsencrypt/letsencrypt.log has the reason:
   certbot renew --cert-name late --dry-run
2. Check that certbot's timer is active, or that its cron job exists:
   systemctl list-timers | grep certbot
3. If the certificate was renewed and only the report was lost, send the report again:
   /etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_report.py --check
4. If the certificate no longer exists, retire it:
   /etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py --host web1 --retire late
"""
    assert text.rstrip("\n") == expected.rstrip("\n")


def test_the_mail_is_as_the_manual_shows_it(metrics_alerting: MetricsAlerting) -> None:
    due = int(time.time()) - 15 * DAY
    metrics_alerting.write(
        certificate_state("example.com", due), certificate_state("example.net", due)
    )
    (subject,) = metrics_alerting.next_subjects(1)

    *_, shown = blocks_of(read_page("alerts.md"), ["Notifications"])
    assert_output(shown.text, f"{subject}\n\n{metrics_alerting.mail_text(subject)}")


def test_the_mail_ends_with_the_runbook_that_an_administrator_adds_to_a_rule(
    metrics_alerting: MetricsAlerting,
) -> None:
    rules = metrics_alerting.rules_file.read_text()
    (example,) = [
        block.text for block in blocks_of(read_page("alerts.md")) if "runbook" in block.text
    ]
    existing, added, following = example.splitlines(keepends=True)
    before = existing + following
    assert before in rules
    metrics_alerting.rules_file.write_text(rules.replace(before, existing + added + following))
    metrics_alerting.restart_vmalert(*metrics_alerting.vmalert_flags)

    metrics_alerting.write(certificate_state("late", int(time.time()) - 2 * DAY))
    assert metrics_alerting.next_subjects(1) == [overdue_mail("web1", "late")]
    text = metrics_alerting.mail_text(overdue_mail("web1", "late"))
    assert text.rstrip("\n").endswith("--retire late\n\nhttps://wiki.example.com/certificates")


def test_an_expired_certificate_alerts_and_resolves_once_it_is_retired(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    metrics_alerting.write(certificate_state("expired", now - 40 * DAY, host="d", at=now - 30))
    assert metrics_alerting.next_subjects(1) == [overdue_mail("d", "expired")]
    text = metrics_alerting.mail_text(overdue_mail("d", "expired"))
    assert text.partition("\n")[0].endswith(" UTC, expired 10.0 days ago")

    metrics_alerting.write(retired_state("expired", host="d"))
    recovery = "OK: d: renewal_overdue, 1 resolved: expired"
    assert metrics_alerting.next_subjects(1) == [recovery]
    text = metrics_alerting.mail_text(recovery)
    assert text.strip() == "OK: expired on d: renewal_overdue resolved"


def test_only_the_newest_state_of_a_certificate_counts_and_only_of_this_project(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    overdue = now - DAY - 60
    renewed = now + 60 * DAY
    tagged = reported_state("tagged", renewed, now - 60, host="g")
    metrics_alerting.write(
        certificate_state("late", overdue, at=now - 30),
        retired_state("ended", host="e"),
        # An older state arrives late.
        certificate_state("late-arrival", renewed, host="f", at=now - 10),
        certificate_state("late-arrival", overdue, host="f", at=now - 20),
        # A tag was added with the renewal: the old series is never written again.
        reported_state("tagged", overdue, now - 90, host="g"),
        with_tag(tagged, "dc", "north"),
        host_report("g", now - 60),
        # Points of the published hook, and of another program.
        published_renewal(2, now - 80 * DAY, host="h"),
        make_point(
            {"domain": "all", "host": "h", "lineage": "due-only"}, {"renewal_due": 5}, now - DAY
        ),
        make_point({"domain": "all"}, {"renewal_due": 5, "not_after": 5, "run_at": 0}, now - DAY),
    )
    assert metrics_alerting.next_subjects(1) == [overdue_mail("web1", "late")]
    metrics_alerting.assert_no_further_mail()


def test_the_overdue_certificates_of_a_host_are_one_mail_and_one_more_when_another_joins(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    at = now - 30
    lineages = [f"many{number}" for number in range(7)]
    overdue = [certificate_state(lineage, now - 2 * DAY, at=at) for lineage in lineages]
    metrics_alerting.write(
        *overdue,
        certificate_state("fine", now + DAY),
        certificate_state("alone", now - 2 * DAY, host="web2"),
    )
    assert metrics_alerting.next_subjects(2) == [
        f"CRITICAL: web1: renewal_overdue, 7 firing: {', '.join(lineages[:5])}, ...",
        "CRITICAL: web2: renewal_overdue, 1 firing: alone",
    ]

    metrics_alerting.write(certificate_state("another", now - DAY - 60, at=at))
    (subject,) = metrics_alerting.next_subjects(1)
    assert subject == (
        f"CRITICAL: web1: renewal_overdue, 8 firing: another, {', '.join(lineages[:4])}, ..."
    )
    assert metrics_alerting.mail_text(subject).count("\nCRITICAL: ") == 7  # after the first line

    renewed = [certificate_state(name, now + 60 * DAY, at=at + 10) for name in lineages[1:]]
    metrics_alerting.write(*renewed)
    assert metrics_alerting.next_subjects(1) == [
        "CRITICAL: web1: renewal_overdue, 2 firing: another, many0; "
        f"6 resolved: {', '.join(lineages[1:6])}, ..."
    ]

    metrics_alerting.write(
        certificate_state("many0", now + 60 * DAY, at=at + 10),
        certificate_state("another", now + 60 * DAY, at=at + 10),
    )
    assert metrics_alerting.next_subjects(1) == [
        "OK: web1: renewal_overdue, 2 resolved: another, many0"
    ]
    metrics_alerting.assert_no_further_mail()


def test_a_negative_threshold_fires_the_alert_and_the_default_resolves_it(
    metrics_alerting: MetricsAlerting,
) -> None:
    rules = metrics_alerting.rules_file
    edit = "/record: certbot_renewal:crit_days/{n;s/vector(.*)/vector(%s)/}"
    subprocess.run(["sed", "-i", edit % "-1000", str(rules)], check=True)
    metrics_alerting.restart_vmalert(*metrics_alerting.vmalert_flags)
    metrics_alerting.write(
        certificate_state("fine", int(time.time()) + DAY), retired_state("retired")
    )
    assert metrics_alerting.next_subjects(1) == [overdue_mail("web1", "fine")]

    subprocess.run(["sed", "-i", edit % "1", str(rules)], check=True)
    metrics_alerting.restart_vmalert(*metrics_alerting.vmalert_flags)
    assert metrics_alerting.next_subjects(1) == ["OK: web1: renewal_overdue, 1 resolved: fine"]


LIFETIME_SECONDS = 12
CRIT_SECONDS = 2


def test_a_certificate_that_certbot_did_not_renew_in_time_alerts_until_cron_renews_it(
    metrics_alerting: MetricsAlerting,
) -> None:
    metrics_alerting.rules_file = copy_rules(
        metrics_alerting.folder, crit=f"{CRIT_SECONDS / DAY:.9f}"
    )
    metrics_alerting.restart_vmalert(*metrics_alerting.vmalert_flags)
    authority = metrics_alerting.start_pebble(LIFETIME_SECONDS)
    certbot = Certbot(metrics_alerting.folder / "letsencrypt", authority)
    certbot.settings({**metrics_alerting.victoria.settings(), "HOSTNAME": "web1"})
    assert certbot.issue("example.com", "example.com").returncode == 0
    not_before = certbot.not_before("example.com")

    assert metrics_alerting.next_subjects(1) == [overdue_mail("web1", "example.com")]
    # Below ten days, a certificate is due after half of its lifetime.
    assert time.time() >= not_before + LIFETIME_SECONDS / 2 + CRIT_SECONDS - 1

    certbot.shell(CRON)
    assert metrics_alerting.next_subjects(1) == [
        "OK: web1: renewal_overdue, 1 resolved: example.com"
    ]


# ---- Failing and silent hosts ------------------------------------------------------------------
def test_a_failing_host_is_one_mail_with_the_reasons_and_its_recovery_another(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    metrics_alerting.write(
        certbot_run("well", now - 60),
        certbot_run("failed", now - 60, failed="a b", exit_status=1),
        certbot_run("error", now - 60, exit_status=143),
        certbot_run("unreadable", now - 60, unreadable="c", exit_status=0),
    )
    hosts = ("error", "failed", "unreadable")
    assert metrics_alerting.next_subjects(3) == [
        f"WARNING: {host}: renewal_failing, 1 firing" for host in hosts
    ]
    failed = metrics_alerting.mail_text("WARNING: failed: renewal_failing, 1 firing")
    assert "WARNING: failed: certbot failed; 2 not renewed; exit status 1\n" in failed
    unreadable = metrics_alerting.mail_text("WARNING: unreadable: renewal_failing, 1 firing")
    assert "WARNING: unreadable: certbot failed; 1 unreadable\n" in unreadable
    metrics_alerting.assert_no_further_mail()

    for host in hosts:
        metrics_alerting.write(certbot_run(host, now - 10, exit_status=-1))
    assert metrics_alerting.next_subjects(3) == [
        f"OK: {host}: renewal_failing, 1 resolved" for host in hosts
    ]
    metrics_alerting.assert_no_alert()


def test_a_failing_host_is_one_more_mail_each_time_that_more_certificates_fail(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    subject = "WARNING: web1: renewal_failing, 1 firing"
    failed = ["a", "a b", "a b c"]
    for step, names in enumerate(failed, start=1):
        run = certbot_run("web1", now - 100 + step, failed=names, exit_status=1, step=step)
        metrics_alerting.write(run)
        assert metrics_alerting.next_subjects(1) == [subject]
        text = metrics_alerting.mail_text(subject)
        assert f"WARNING: web1: certbot failed; {step} not renewed; exit status 1\n" in text
        assert "resolved" not in text
        metrics_alerting.assert_no_further_mail()

    # Fewer fail: still the same incident.
    metrics_alerting.write(certbot_run("web1", now - 50, failed="a", exit_status=1, step=3))
    metrics_alerting.assert_no_further_mail()

    metrics_alerting.write(certbot_run("web1", now - 10))
    assert metrics_alerting.next_subjects(1) == ["OK: web1: renewal_failing, 1 resolved"]
    metrics_alerting.assert_no_alert()


def test_a_host_that_failed_before_a_label_was_added_is_failing_no_longer(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    metrics_alerting.write(certbot_run("web1", now - 60, failed="a", exit_status=1))
    assert metrics_alerting.next_subjects(1) == ["WARNING: web1: renewal_failing, 1 firing"]
    metrics_alerting.write(with_tag(certbot_run("web1", now - 10), "db", "certbot"))
    assert metrics_alerting.next_subjects(1) == ["OK: web1: renewal_failing, 1 resolved"]


def test_failed_dry_runs_of_a_host_are_one_mail_until_all_succeed(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    metrics_alerting.write(
        dry_run_result("a", "Timeout", at=now - 60),
        dry_run_result("b", "Timeout", at=now - 60),
        dry_run_result("fine", "none", at=now - 60),
        dry_run_result("fine", "none", host="web2", at=now - 60),
    )
    subject = "WARNING: web1: dry_run_failed, 1 firing"
    assert metrics_alerting.next_subjects(1) == [subject]
    text = metrics_alerting.mail_text(subject)
    assert text.startswith("WARNING: web1: dry run failed; 2 not renewed\n")
    assert "certbot renew --dry-run\n" in text

    metrics_alerting.write(dry_run_result("a", "none", at=now - 30))
    metrics_alerting.assert_no_further_mail()
    metrics_alerting.write(dry_run_result("b", "none", at=now - 30))
    assert metrics_alerting.next_subjects(1) == ["OK: web1: dry_run_failed, 1 resolved"]


def test_a_silent_host_is_one_mail_and_its_recovery_another(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    two_days_ago = now - 49 * HOUR
    # Most hosts report on time: otherwise no silent host would alert by itself.
    for host in ("well", "well2", "well3", "well4", "well5"):
        metrics_alerting.write(host_report(host, now - 25 * HOUR), host_report(host, now - 60))
    metrics_alerting.write(
        host_report("silent", two_days_ago),
        host_report("retired", two_days_ago),
        with_tag(host_report("retired-elsewhere", two_days_ago), "dc", "north"),
        certificate_state("a", now + DAY, host="deploy-hook-only", at=now - 50 * DAY),
        # A certificate that is reported no more: its host is alive.
        reported_state("gone", now + DAY, two_days_ago, host="well"),
    )
    hosts = ("retired", "retired-elsewhere", "silent")
    assert metrics_alerting.next_subjects(3) == [
        f"CRITICAL: {host}: host_silent, 1 firing" for host in hosts
    ]
    text = metrics_alerting.mail_text("CRITICAL: silent: host_silent, 1 firing")
    last = utc(two_days_ago)
    assert f"CRITICAL: silent: no run report for 2.0 days (last: {last})\n" in text
    assert "certbot_renewal_run.py --retire --host silent\n" in text
    metrics_alerting.assert_no_further_mail()

    metrics_alerting.write(
        host_report("silent", now - 10),
        retired_host("retired", now - 10),
        retired_host("retired-elsewhere", now - 10),
    )
    assert metrics_alerting.next_subjects(3) == [
        f"OK: {host}: host_silent, 1 resolved" for host in hosts
    ]
    metrics_alerting.assert_no_alert()


# ---- Deliveries and served certificates --------------------------------------------------------
def test_a_missing_delivery_is_a_warning_then_urgent_and_resolves_with_one_mail(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    old = now - 62 * DAY
    renewed = now - 2 * DAY
    at = now - 30
    metrics_alerting.write(
        certificate_state("a", renewed + 60 * DAY),
        target_state("edge", deployed=old, renewed=renewed, at=at),
        target_state("never", deployed=0, renewed=renewed, at=at),
        target_state("fine", deployed=renewed, renewed=renewed),
        # Renewed a minute ago, but the certificate of the target has expired: urgent at once.
        target_state("expired", deployed=old, renewed=now - 60, lifetime=61 * DAY, at=at),
        # The day of grace is not over.
        target_state("fresh", deployed=now - 60 * DAY, renewed=now - DAY + 600, lifetime=61 * DAY),
    )
    subject = "CRITICAL: web1: certificate_not_delivered, 3 firing: a/edge, a/never, a/expired"
    assert metrics_alerting.next_subjects(1) == [subject]
    text = metrics_alerting.mail_text(subject)
    assert (
        f"WARNING: a on web1: not delivered to edge, renewed {utc(renewed)}, "
        f"the old certificate there expires {utc(old + 90 * DAY)}\n"
    ) in text
    assert (
        f"WARNING: a on web1: not delivered to never, renewed {utc(renewed)}, "
        "the target never received a certificate\n"
    ) in text
    assert (
        f"CRITICAL: a on web1: not delivered to expired, renewed {utc(now - 60)}, "
        f"the old certificate there expired {utc(old + 61 * DAY)}\n"
    ) in text
    metrics_alerting.assert_no_further_mail()

    # 65 - 62 = 3 days are left: edge becomes urgent, and its warning is muted.
    metrics_alerting.write(
        target_state("edge", deployed=old, renewed=renewed, lifetime=65 * DAY, at=at + 10)
    )
    assert metrics_alerting.next_subjects(1) == [
        "CRITICAL: web1: certificate_not_delivered, 3 firing: a/never, a/edge, a/expired"
    ]
    metrics_alerting.assert_no_further_mail()

    metrics_alerting.write(
        target_state("edge", deployed=renewed, renewed=renewed, at=at + 20),
        target_state("never", deployed=renewed, renewed=renewed, at=at + 20),
        target_state("expired", deployed=0, renewed=0, at=at + 20),
    )
    # Both alerts about edge: the warning first.
    assert metrics_alerting.next_subjects(1) == [
        "OK: web1: certificate_not_delivered, 4 resolved: a/edge, a/never, a/edge, a/expired"
    ]
    metrics_alerting.assert_no_alert()


def served_other(lineage: str, renewed: int, expiry: int, at: int) -> Point:
    """Return the state of a certificate in place of which another is served until `expiry`.

    An `expiry` of 0: the renewed certificate is served.
    """
    state = reported_state(lineage, renewed + 60 * DAY, at)
    return with_fields(with_look(state), served_expiry=expiry)


def test_another_served_certificate_is_a_warning_then_urgent_and_resolves_with_one_mail(
    metrics_alerting: MetricsAlerting,
) -> None:
    now = int(time.time())
    renewed = now - 2 * DAY
    at = now - 30
    metrics_alerting.write(
        served_other("s", renewed, now + 28 * DAY, at),
        served_other("w", renewed, 0, at),
        # Renewed a minute ago, but what is served has expired: urgent at once.
        served_other("u", now - 60, now - DAY, at),
        # The day of grace is not over.
        served_other("v", now - DAY + 600, now + DAY, at),
        host_report("web1", at),
    )
    subject = "CRITICAL: web1: certificate_not_served, 2 firing: s, u"
    assert metrics_alerting.next_subjects(1) == [subject]
    assert (
        f"WARNING: s on web1: not served, renewed {utc(renewed)}, "
        f"the served certificate expires {utc(now + 28 * DAY)}\n"
    ) in metrics_alerting.mail_text(subject)
    metrics_alerting.assert_no_further_mail()

    # Two days are left: s becomes urgent, and its warning is muted.
    metrics_alerting.write(served_other("s", renewed, now + 2 * DAY, at + 10))
    assert metrics_alerting.next_subjects(1) == [subject]
    metrics_alerting.assert_no_further_mail()

    metrics_alerting.write(
        served_other("s", renewed, 0, at + 20), served_other("u", renewed, 0, at + 20)
    )
    # Both alerts about s.
    assert metrics_alerting.next_subjects(1) == [
        "OK: web1: certificate_not_served, 3 resolved: s, s, u"
    ]
    metrics_alerting.assert_no_alert()
