#!/usr/bin/env python3
"""Writes prometheus/rules.yml from tools/rules.yml.in: what PromQL has no names for is named here, and stands in full there.

python3 tools/make_rules.py
"""

from __future__ import annotations

import re

from put_queries import ROOT

RULES = ROOT / "prometheus" / "rules.yml"


def last(field: str, of: str = 'domain="all"') -> str:
    """The last point of a field, in each series of a certificate. One without a host or a lineage is somebody else's: vmalert cannot make
    its text, and would tell of no other either."""
    return f'last_over_time(certbot_renewal_{field}{{{of},host!="",lineage!=""}}[400d])'


def threshold(name: str, default: int) -> str:
    """A threshold in days. One that a server has twice is still one number."""
    return f"scalar(max(last_over_time(certbot_renewal:{name}_days[7d])) or vector({default}))"


NAMES = {
    "RUN_AT": last("run_at"),
    "DUE": last("renewal_due"),
    "NEWEST": "RUN_AT >= on (host, lineage) group_left () max by (host, lineage) (RUN_AT)",  # of several series of one certificate
    "CRIT_DAYS": threshold("crit", 1),
    "SILENCE_DAYS": threshold("silence", 2),
    "GRACE_DAYS": threshold("grace", 1),
    "URGENT_DAYS": threshold("urgent", 7),
    # When each host was last heard of: by the certificate that was reported least recently. A host without run reports is none.
    "LAST": "(min by (host) ((RUN_AT > 0) and DUE > 0 and NEWEST))",
    "SILENT": "((time() - LAST) / 86400 >= SILENCE_DAYS)",
    # Who reported within half of the silence, and not much later than half of it after the time before.
    "HEARD": """(
              min by (host) (min_over_time(certbot_renewal_run_at{domain="all"}[1d]) > 0)
                - max by (host) (last_over_time(certbot_renewal_run_at{domain="all"}[400d] offset 1d) > 0)
              <= 0.55 * SILENCE_DAYS * 86400
              and on (host) LAST
            )""",
    # Who was told of since its last report: within a day, which is less than the silence; or when nobody looked for longer, by the time of
    # that. A subquery does not see the last five minutes. vmalert 1.79 keeps no ALERTS_FOR_STATE of an alert without `for`.
    "TOLD": """(
              last_over_time(FIRED[1d])
              or max by (host) (max_over_time(timestamp(FIRED)[60d:5m])) > LAST
            )""",
    "FIRED": 'ALERTS{alertname="host_silent", alertstate="firing"}',
    "TARGET_RUN_AT": last("run_at", 'target!=""'),
    "RENEWED": last("renewed", 'target!=""'),
    "ENDS": last("deployed_expiry", 'target!=""'),
    # For how many days a target has lacked what was renewed.
    "MISSING": """(
              (TARGET_RUN_AT + (TARGET_RUN_AT == bool 0) * time() - (RENEWED > 0)) / 86400
              and DEPLOYED < RENEWED
              and on (host, lineage) DUE > 0
              and TARGET_RUN_AT
                >= on (host, lineage, target) group_left () max by (host, lineage, target) (TARGET_RUN_AT)
            )""",
    "DEPLOYED": last("deployed", 'target!=""'),
    "SERVED_ENDS": last("served_expiry"),
    # From the renewal until the last look that somebody answered, where another one was served. Two days of reports without a look say
    # that VERIFY was taken out of the settings.
    "UNSERVED": """(
              clamp_min(SEEN_AT - NOT_BEFORE, 0) / 86400
              and SERVED_ENDS > 0
              and DUE > 0
              and LOOKED_AT >= RUN_AT - 2 * 86400
              and NEWEST
            )""",
    "SEEN_AT": last("seen_at"),
    "LOOKED_AT": last("looked_at"),
    "NOT_BEFORE": last("not_before"),
}


def rules() -> str:
    """The text of the file."""
    name = re.compile(rf"\b({'|'.join(NAMES)})\b")
    text = (ROOT / "tools" / "rules.yml.in").read_text()
    while found := name.search(text):
        text = text[: found.start()] + NAMES[found[0]] + text[found.end() :]
    return text


if __name__ == "__main__":
    RULES.write_text(rules())
