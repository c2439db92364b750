"""The alerts for Grafana and InfluxDB 2: the same as those of kapacitor/templates/."""

from __future__ import annotations

from typing import NamedTuple


class Alert(NamedTuple):
    """An alert. `query` is the name of its query in flux/, `keys` are the columns of its groups."""

    name: str
    query: str
    keys: tuple[str, ...]
    description: str


ALERTS = [
    Alert(
        "renewal_overdue",
        "overdue",
        ("host", "lineage"),
        "Critical when a certificate was not renewed in time.",
    ),
    Alert(
        "renewal_failing",
        "failing",
        ("host",),
        "Warning when a run of certbot failed, left a certificate that was due, "
        "or cannot read one.",
    ),
    Alert(
        "host_silent",
        "silent_hosts",
        ("host",),
        "Critical when a host that sent run reports has stopped to.",
    ),
    Alert(
        "certificate_not_delivered",
        "not_delivered",
        ("host", "lineage", "target"),
        "Warning when a renewed certificate did not get to a target, "
        "critical when the one that the target has will soon expire.",
    ),
    Alert(
        "certificate_not_served",
        "not_served",
        ("host", "lineage"),
        "Warning when a certificate was renewed and another one is served, "
        "critical when that one will soon expire.",
    ),
]
