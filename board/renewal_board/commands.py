"""The commands that the board suggests. An administrator pastes them into a shell, as root."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

DEPLOY_HOOKS = "/etc/letsencrypt/renewal-hooks/deploy"
POST_HOOKS = "/etc/letsencrypt/renewal-hooks/post"
REPORT_HOOK = f"{DEPLOY_HOOKS}/certbot_renewal_report.py"
DELIVER_HOOK = f"{DEPLOY_HOOKS}/certbot_renewal_deliver.py"
RUN_REPORT = f"{POST_HOOKS}/certbot_renewal_run.py"

CHECK_REPORT = f"{REPORT_HOOK} --check"
CHECK_DELIVERY = f"{DELIVER_HOOK} --check"
CHECK_SERVED = f"{RUN_REPORT} --check"
SHOW_CERTIFICATES = "certbot certificates"

FAILING_HOST = [
    "certbot renew --dry-run  # its log is /var/log/letsencrypt/letsencrypt.log",
    SHOW_CERTIFICATES,
]


def dry_run(lineage: str) -> str:
    """Return the command that tries whether certbot can renew a lineage."""
    return f"certbot renew --cert-name {shlex.quote(lineage)} --dry-run"


def for_overdue(lineage: str) -> list[str]:
    """Return the commands for a certificate that is overdue, on its host."""
    return [
        f"{dry_run(lineage)}  # can it be renewed at all?",
        "systemctl list-timers | grep certbot  # or the cron job: is certbot started?",
        f"{CHECK_REPORT}  # was it renewed, and only the report lost?",
    ]


def for_silent_host(host: str, lineages: Sequence[str]) -> list[str]:
    """Return the commands for a host that sends no run reports any more."""
    retire = shlex.join([RUN_REPORT, "--host", host, "--retire", *lineages])
    return [
        f"{RUN_REPORT} --all  # on that host: does the report arrive?",
        f"{retire}  # on any host, if this one is gone for good",
    ]
