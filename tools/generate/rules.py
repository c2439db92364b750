#!/usr/bin/env python3
"""Writes prometheus/rules.yml from tools/generate/rules.yml.in: what PromQL has no names for is named here, and stands in full there.

python3 -m tools.generate.rules
"""

from __future__ import annotations

import re

from tools import ROOT

RULES = ROOT / "prometheus" / "rules.yml"


def last(field: str, of: str = 'domain="all"') -> str:
    """The last point of a field, in each series of a certificate. One without a host or a lineage is somebody else's: vmalert cannot make
    its text, and would tell of no other either."""
    return f'last_over_time(certbot_renewal_{field}{{{of},host!="",lineage!=""}}[400d])'


def last_run(field: str) -> str:
    """The last point of a field of runs, for each host."""
    return f'max by (host) (last_over_time(certbot_renewal_{field}{{host!=""}}[30d]))'


def threshold(name: str, default: int) -> str:
    """A threshold in days. One that a server has twice is still one number."""
    return f"scalar(max(last_over_time(certbot_renewal:{name}_days[7d])) or vector({default}))"


NAMES = {
    "RUN_AT": last("run_at"),
    "DUE": last("renewal_due"),
    "NEWEST": "RUN_AT >= on (host, lineage) group_left () max by (host, lineage) (RUN_AT)",  # of several series of one certificate
    # For how many days a renewal is overdue; below 0: until it is due.
    "OVERDUE": """min by (host, lineage) (
            (
              (NEWEST) + (RUN_AT == bool 0) * time() - (DUE > 0)
            ) / 86400
          )""",
    "FAILED_COUNT": last_run("failed_count"),
    "UNREADABLE_COUNT": last_run("unreadable_count"),
    "EXIT_STATUS": last_run("exit_status"),
    "CRIT_DAYS": threshold("crit", 1),
    "SILENCE_DAYS": threshold("silence", 2),
    "GRACE_DAYS": threshold("grace", 1),
    "URGENT_DAYS": threshold("urgent", 7),
    # When each host was last heard of: by the certificate that was reported least recently. A host without run reports is none.
    "LAST": "(min by (host) (topk by (host, lineage) (1, RUN_AT) > 0 and DUE > 0))",
    "SILENT": "((time() - LAST) / 86400 >= SILENCE_DAYS)",
    # Who reported within half of the silence, and not much later than half of it after the time before.
    "HEARD": """(
              min by (host) (min_over_time(certbot_renewal_run_at{domain="all"}[1d]) > 0)
                - max by (host) (last_over_time(certbot_renewal_run_at{domain="all"}[400d] offset 1d) > 0)
              <= 0.55 * SILENCE_DAYS * 86400
            )""",
    # More than two hosts, and more than twice as many as were heard.
    "DEAF": "count(LAST) > clamp_min(2 * (count(HEARD) or vector(0)), 2)",
    "MOST_HOSTS": """label_replace(
            min(SILENT) and (count(LAST) < 2 * count(SILENT)) > 2,
            "host", "(most hosts)", "", ""
          )""",
    # How many days ago each host was last told of, or 0 for less than one, which is less than the silence: a subquery does not see the last
    # five minutes. vmalert 1.79 keeps no ALERTS_FOR_STATE of an alert without `for`.
    "TOLD_AGE": """(
              0 * max by (host) (last_over_time(FIRED[1d]))
              or (time() - max by (host) (max_over_time(timestamp(FIRED)[60d:5m]))) / 86400
            )""",
    "FIRED": 'ALERTS{alertname="host_silent", alertstate="firing"}',
    "TARGET_RUN_AT": last("run_at", 'target!=""'),
    "RENEWED": last("renewed", 'target!=""'),
    "ENDS": last("deployed_expiry", 'target!=""'),
    # For how many days a target has lacked what was renewed.
    "MISSING": """(
              (topk by (host, lineage, target) (1, TARGET_RUN_AT) + (TARGET_RUN_AT == bool 0) * time() - (RENEWED > DEPLOYED)) / 86400
              and on (host, lineage) DUE > 0
            )""",
    "DEPLOYED": last("deployed", 'target!=""'),
    "SERVED_ENDS": last("served_expiry"),
    # From the renewal until the last look that somebody answered, where another one was served. Two days of reports without a look say
    # that VERIFY was taken out of the settings.
    "UNSERVED": """(
              clamp_min(SEEN_AT - NOT_BEFORE, 0) / 86400
              and LOOKED_AT >= topk by (host, lineage) (1, RUN_AT) - 2 * 86400
              and DUE > 0
              and SERVED_ENDS > 0
            )""",
    # From which of those days on it is urgent: the same as otherwise where the old one expires soon, 0 where it has expired.
    "URGENT_FROM": "GRACE_DAYS * ((ENDS > 0) < time() + URGENT_DAYS * 86400 >= bool time())",
    "URGENT_UNSERVED_FROM": "GRACE_DAYS * ((SERVED_ENDS > 0) < time() + URGENT_DAYS * 86400 >= bool time())",
    "SEEN_AT": last("seen_at"),
    "LOOKED_AT": last("looked_at"),
    "NOT_BEFORE": last("not_before"),
    "NOT_AFTER": last("not_after"),
}


def spelled(text: str) -> str:
    """A text with what the names stand for."""
    name = re.compile(rf"\b({'|'.join(NAMES)})\b")
    while found := name.search(text):
        text = text[: found.start()] + NAMES[found[0]] + text[found.end() :]
    return text


def rules() -> str:
    """The text of the file."""
    return spelled((ROOT / "tools" / "generate" / "rules.yml.in").read_text())


if __name__ == "__main__":
    RULES.write_text(rules())
