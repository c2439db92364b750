"""The steps that the board suggests: an instruction, and the command to paste into a root shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

DEPLOY_HOOKS = "/etc/letsencrypt/renewal-hooks/deploy"
POST_HOOKS = "/etc/letsencrypt/renewal-hooks/post"
REPORT_HOOK = f"{DEPLOY_HOOKS}/certbot_renewal_report.py"
DELIVER_HOOK = f"{DEPLOY_HOOKS}/certbot_renewal_deliver.py"
RUN_REPORT = f"{POST_HOOKS}/certbot_renewal_run.py"

CHECK_REPORT = f"{REPORT_HOOK} --check"


@dataclass(frozen=True)
class Step:
    """One step of an administrator: what to do, and the command for it."""

    instruction: str
    command: str


CHECK_DELIVERY = Step("Check the deliveries", f"{DELIVER_HOOK} --check")
CHECK_SERVED = Step("Check which certificates are served", f"{RUN_REPORT} --check")
SHOW_CERTIFICATES = Step("List the certificates and read the errors", "certbot certificates")

FAILING_HOST = [
    Step(
        "Test the renewal, then read /var/log/letsencrypt/letsencrypt.log",
        "certbot renew --dry-run",
    ),
    SHOW_CERTIFICATES,
]


def dry_run(lineage: str) -> Step:
    """Return the step that tests whether certbot can renew a lineage."""
    command = f"certbot renew --cert-name {shlex.quote(lineage)} --dry-run"
    return Step("Test whether certbot can renew it", command)


def for_overdue(lineage: str) -> list[Step]:
    """Return the steps for a certificate that is overdue, on its host."""
    return [
        dry_run(lineage),
        Step(
            "Check that certbot's timer is active, or that its cron job exists",
            "systemctl list-timers --all | grep certbot",
        ),
        Step("If it was renewed and only the report was lost, send the report again", CHECK_REPORT),
    ]


def for_silent_host(host: str) -> list[Step]:
    """Return the steps for a host that no longer sends run reports."""
    retire = shlex.join([RUN_REPORT, "--retire", "--host", host])
    return [
        Step("Send a run report on this host", f"{RUN_REPORT} --all"),
        Step("If this host no longer exists, retire it on any other host", retire),
    ]
