"""The alerts: their names, and what to do when they fire. All alert systems have the same."""

from __future__ import annotations

from typing import NamedTuple

REPORT_HOOK = "/etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_report.py"
DELIVER_HOOK = "/etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_deliver.py"
RUN_REPORT = "/etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py"


class Step(NamedTuple):
    """A step of the instructions of an alert; `command` may be "".

    HOST, LINEAGE and TARGET stand for the labels of the alert.
    """

    text: str
    command: str = ""


class Instructions(NamedTuple):
    """What to do when an alert fires: an introduction, and numbered steps."""

    introduction: str
    steps: tuple[Step, ...]

    def text(self, labels: dict[str, str]) -> str:
        """Return the instructions as plain text, a step or a command on each line.

        `labels` are the texts for HOST and so on.
        """
        lines = [self.introduction]
        for number, step in enumerate(self.steps, start=1):
            lines.append(f"{number}. {step.text}")
            if step.command:
                lines.append(f"   {step.command}")
        text = "\n".join(lines)
        for label, replacement in labels.items():
            text = text.replace(label, replacement)
        return text


class Alert(NamedTuple):
    """An alert. `query` is the name of its query in flux/, `keys` are the columns of its groups."""

    name: str
    query: str
    keys: tuple[str, ...]
    description: str
    instructions: Instructions


CHECK_TIMER = Step(
    "Check that certbot's timer is active, or that its cron job exists:",
    "systemctl list-timers | grep certbot",
)

ALERTS = [
    Alert(
        "renewal_overdue",
        "overdue",
        ("host", "lineage"),
        "Critical when a certificate was not renewed in time.",
        Instructions(
            "What to do on HOST, as root:",
            (
                Step(
                    "Check whether certbot can renew the certificate. "
                    "If not, /var/log/letsencrypt/letsencrypt.log has the reason:",
                    "certbot renew --cert-name LINEAGE --dry-run",
                ),
                CHECK_TIMER,
                Step(
                    "If the certificate was renewed and only the report was lost, "
                    "send the report again:",
                    f"{REPORT_HOOK} --check",
                ),
                Step(
                    "If the certificate no longer exists, retire it:",
                    f"{RUN_REPORT} --host HOST --retire LINEAGE",
                ),
            ),
        ),
    ),
    Alert(
        "renewal_failing",
        "failing",
        ("host", "step"),
        "Warning when a certbot run failed, did not renew a due certificate, "
        "or could not read a certificate. It fires again when more certificates fail.",
        Instructions(
            "What to do on HOST, as root:",
            (
                Step(
                    "Try the renewals. The log of each run is in /var/log/letsencrypt/:",
                    "certbot renew --dry-run",
                ),
                Step("List the certificates that certbot can read:", "certbot certificates"),
            ),
        ),
    ),
    Alert(
        "dry_run_failed",
        "dry_runs",
        ("host",),
        "Warning when the last dry run of a certificate failed.",
        Instructions(
            "What to do on HOST, as root:",
            (
                Step("Remove the cause. The log of each dry run is in /var/log/letsencrypt/."),
                Step(
                    "Repeat the dry run. The alert resolves when it succeeds:",
                    "certbot renew --dry-run",
                ),
            ),
        ),
    ),
    Alert(
        "host_silent",
        "silent_hosts",
        ("host",),
        "Critical when a host that sent run reports no longer sends them.",
        Instructions(
            "It is not known whether the certificates of this host are renewed. "
            "What to do on HOST, as root:",
            (
                CHECK_TIMER,
                Step("Send a run report, and read what it prints:", f"{RUN_REPORT} --all"),
                Step(
                    "If the host no longer exists, retire it. "
                    "Run this command on any host that has certbot_renewal_run.py:",
                    f"{RUN_REPORT} --retire --host HOST",
                ),
            ),
        ),
    ),
    Alert(
        "certificate_not_delivered",
        "not_delivered",
        ("host", "lineage", "target"),
        "Warning when a renewed certificate was not delivered to a target, "
        "critical when the old certificate on the target expires soon.",
        Instructions(
            "What to do on HOST, as root:",
            (
                Step(
                    "Check the target, and read what is printed about TARGET:",
                    f"{DELIVER_HOOK} --check",
                ),
                Step("Deliver the certificate:", f"{DELIVER_HOOK} --all"),
                Step(
                    "Report the delivery, so that the alert resolves now "
                    "and not after the next certbot run:",
                    f"{RUN_REPORT} --all",
                ),
            ),
        ),
    ),
    Alert(
        "certificate_not_served",
        "not_served",
        ("host", "lineage"),
        "Warning when another certificate is still served after a renewal, "
        "critical when the served certificate expires soon.",
        Instructions(
            "What to do, as root:",
            (
                Step("Reload or restart the server program that serves these names."),
                Step(
                    "Check that this program reads /etc/letsencrypt/live/LINEAGE/. "
                    "If it reads a copy, deliver each renewal to the copy."
                ),
                Step("On HOST, check again what is served, and report it:", f"{RUN_REPORT} --all"),
            ),
        ),
    ),
]
BY_NAME = {alert.name: alert for alert in ALERTS}

# Of host_silent, about the host "(most hosts)".
MOST_HOSTS = Instructions(
    "It is not known whether the certificates of these hosts are renewed. "
    "The cause is probably something that all of them need. What to do:",
    (
        Step(
            "Check whether the server that stores the reports was down. If it was, wait: each host "
            "reports after its next certbot run. This alert resolves when half of the hosts have "
            "reported."
        ),
        Step(
            "On one of these hosts, as root, check that the server can be reached "
            "and accepts the reports:",
            f"{REPORT_HOOK} --check",
        ),
    ),
)
