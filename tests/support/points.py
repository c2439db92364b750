"""Points as the programs of this project send them, and the points that a bucket holds.

Every time is in Unix seconds. `at` is the time of a point; None stands for now.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import requests

from certbot_renewal_report import FieldValue, Point, line_protocol
from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.lineages import DAY

MEASUREMENT = "certbot_renewal"
HOUR = 3600
WHOLE_NUMBER = re.compile(r"-?\d+")

# The lifetimes of certificates that CAs issue, or will issue: names to seconds.
LIFETIMES = {"90d": 90 * DAY, "64d": 64 * DAY, "45d": 45 * DAY, "160h": 160 * HOUR}

# All that a bucket holds, as InfluxDB.points() returns it: (time, field, value, tag=value …)
Points = set[tuple[str, ...]]


# ---- Points to write ---------------------------------------------------------------------------
def as_lines(points: Iterable[Point | str]) -> list[str]:
    """Return points, given as values or as lines of line protocol, as lines."""
    return [point if isinstance(point, str) else line_protocol(point) for point in points]


def write(influxdb: InfluxDB, bucket: str, *points: Point | str) -> None:
    """Write points into a bucket."""
    response = requests.post(
        influxdb.url + "/api/v2/write",
        params={"bucket": bucket, "org": ORG, "precision": "s"},
        data="\n".join(as_lines(points)).encode(),
        headers=influxdb.headers,
        timeout=60,
    )
    response.raise_for_status()


def make_point(tags: dict[str, str], fields: dict[str, FieldValue], at: int | None) -> Point:
    """Return a point of the project's measurement."""
    moment = int(time.time()) if at is None else at
    return Point(MEASUREMENT, tags, fields, moment)


def certificate_state(
    lineage: str,
    due: int,
    *,
    host: str = "web1",
    lifetime: int = 90 * DAY,
    run_at: int = 0,
    failure: str = "none",
    at: int | None = None,
) -> Point:
    """Return the state of a certificate whose renewal is due at a time, or was.

    The renewal is due when a third of the lifetime (seconds) is left. `run_at` is the time of the
    run report; 0 on a host that sends no run reports. `failure` says why certbot does not renew it.
    """
    fields: dict[str, FieldValue] = {
        "not_before": due - lifetime * 2 // 3,
        "renewal_due": due,
        "not_after": due + lifetime // 3,
        "run_at": run_at,
        "failure": failure,
    }
    return make_point({"domain": "all", "host": host, "lineage": lineage}, fields, at)


def reported_state(lineage: str, due: int, reported_at: int, *, host: str = "web1") -> Point:
    """Return the state of a certificate in a run report that was sent at a time."""
    return certificate_state(lineage, due, host=host, run_at=reported_at, at=reported_at)


def retired_state(
    lineage: str, *, host: str = "web1", run_at: int = 0, at: int | None = None
) -> Point:
    """Return the state of a certificate that is no longer on its host."""
    fields: dict[str, FieldValue] = {
        "not_before": 0,
        "renewal_due": 0,
        "not_after": 0,
        "run_at": run_at,
        "failure": "none",
    }
    return make_point({"domain": "all", "host": host, "lineage": lineage}, fields, at)


def served_state(
    lineage: str,
    not_before: int,
    served: int,
    *,
    not_served: str = "",
    served_expiry: int = 0,
    at: int | None = None,
) -> Point:
    """Return the state of a certificate of 90 days in a run report that looked at its servers.

    `served` is the number of endpoints at which it is served. `not_served` has the endpoints at
    which another one is served, which expires at `served_expiry`; "none": it is served everywhere;
    "": no endpoint answered.
    """
    moment = int(time.time()) if at is None else at
    state = reported_state(lineage, not_before + 60 * DAY, moment)
    fields = {**state.fields, "served": served}
    if not_served:
        fields["served_expiry"] = served_expiry
        fields["not_served"] = not_served
    return state._replace(fields=fields)


def certbot_run(
    host: str,
    at: int | None,
    *,
    failed: str = "",
    unreadable: str = "",
    exit_status: int = 0,
    step: int | None = None,
    steps: int | None = None,
    failures: str = "",
    failure: str = "",
) -> Point:
    """Return the run point of a run report about a run of certbot.

    `failed` and `unreadable` name lineages, separated by spaces. `step` is that of the incident, 0
    if there is none; None: 1 if anything failed. `steps` is the highest step of the last 30 days;
    None: `step`. `failures` is "name: reason | name: reason". `failure` says why the whole run
    failed.
    """
    moment = int(time.time()) if at is None else at
    has_failed = bool(failed or unreadable or exit_status > 0)
    current_step = int(has_failed) if step is None else step
    fields: dict[str, FieldValue] = {
        "certificates": 1,
        "unreadable_count": len(unreadable.split()),
        "failed_count": len(failed.split()),
        "exit_status": exit_status,
        "failing": current_step,
        "steps": current_step if steps is None else steps,
        "retired": 0,
        "started_at": moment - 60,
        "duration": 5,
        "reported_at": moment,
    }
    texts = {
        "failed": failed,
        "unreadable": unreadable,
        "failures": failures,
        "failure": failure,
        "mode": "renew",
        "certbot": "5.8.0",
        "hook": "0.1.0",
    }
    fields.update({name: text for name, text in texts.items() if text})
    return make_point({"host": host}, fields, moment)


def post_hook_run(host: str, at: int | None, **run: str) -> Point:
    """Return the run point of a post hook: its exit status is not known, and it is no run report.

    `run` are parameters of certbot_run.
    """
    point = certbot_run(host, at, exit_status=-1, **run)  # type: ignore[arg-type]
    fields = {**point.fields}
    del fields["reported_at"]
    del fields["retired"]
    return point._replace(fields=fields)


def report_by_hand(host: str, at: int | None) -> Point:
    """Return the run point of a run report that was not about a run of certbot."""
    point = certbot_run(host, at)
    names = ("certificates", "unreadable_count", "retired", "reported_at", "hook")
    return point._replace(fields={name: point.fields[name] for name in names})


def retired_host(host: str, at: int | None) -> Point:
    """Return the run point that retires a host."""
    fields: dict[str, FieldValue] = {
        "certificates": 0,
        "unreadable_count": 0,
        "failed_count": 0,
        "exit_status": -1,
        "failing": 0,
        "steps": 0,
        "retired": 1,
        "reported_at": 0,
    }
    return make_point({"host": host}, fields, at)


def dry_run_result(lineage: str, error: str, *, host: str = "web1", at: int | None = None) -> Point:
    """Return the result of a dry run of a lineage; `error` is "none" if it succeeded."""
    fields: dict[str, FieldValue] = {
        "dry_run_failed": 0 if error == "none" else 1,
        "dry_run_error": error,
    }
    return make_point({"domain": "all", "host": host, "lineage": lineage}, fields, at)


def target_state(
    target: str,
    *,
    deployed: int,
    renewed: int,
    lineage: str = "a",
    lifetime: int = 90 * DAY,
    run_at: int = 0,
    error: str = "none",
    at: int | None = None,
) -> Point:
    """Return the delivery of a lineage to a target.

    `deployed` and `renewed` are the notBefore of the certificate that the target has, and of the
    one on disk. `deployed` 0: the target never got one. `renewed` 0: the delivery is retired.
    `lifetime` (seconds) is that of the certificate that the target has. `error` says why the last
    attempt failed.
    """
    fields: dict[str, FieldValue] = {
        "deployed": deployed,
        "deployed_expiry": deployed + lifetime if deployed else 0,
        "renewed": renewed,
        "run_at": run_at,
        "deploy_error": error,
    }
    return make_point({"host": "web1", "lineage": lineage, "target": target}, fields, at)


def certificate_renewal(
    lineage: str, at: int, names: Sequence[str], *, host: str = "web1", lifetime: int = 90 * DAY
) -> Point:
    """Return the renewal of a certificate; `lifetime` in seconds, 0 if it is not known."""
    fields: dict[str, FieldValue] = {
        "renewed_count": float(len(names)),
        "lifetime": lifetime,
        "due_after": lifetime * 2 // 3,
        "names": " ".join(names),
    }
    return make_point({"domain": "all", "host": host, "lineage": lineage}, fields, at)


def name_renewal(name: str, at: int, host: str = "web1") -> Point:
    """Return the renewal of a name, as this project and the published hook report it."""
    return make_point({"domain": name, "host": host}, {"renewed_count": 1.0}, at)


def published_renewal(count: int, at: int, host: str = "web1") -> Point:
    """Return the renewal of a certificate with so many names, as the published hook reports it."""
    return make_point({"domain": "all", "host": host}, {"renewed_count": float(count)}, at)


def with_tag(point: Point, name: str, value: str) -> Point:
    """Return the point with one more tag, as Telegraf adds its global tags; "" adds none."""
    return point._replace(tags={**point.tags, name: value})


# ---- Points in a bucket ------------------------------------------------------------------------
class StoredField(NamedTuple):
    """A field of a point in a bucket; `tags` has texts such as "host=web1"."""

    time: int
    name: str
    value: str
    tags: frozenset[str]


def stored_fields(points: Points) -> list[StoredField]:
    """Return the fields in a bucket, by time."""
    fields = []
    for moment, name, value, *tags in points:
        fields.append(StoredField(int(moment), name, value, frozenset(tags)))
    return sorted(fields, key=lambda field: field.time)


def fields_by_time(fields: Iterable[StoredField]) -> list[dict[str, str]]:
    """Return the fields of each time, by name, the oldest time first."""
    values: dict[int, dict[str, str]] = {}
    for field in fields:
        values.setdefault(field.time, {})[field.name] = field.value
    return [values[moment] for moment in sorted(values)]


def run_points(points: Points) -> list[dict[str, str]]:
    """Return the fields of each run point, by name, the oldest point first."""
    of_hosts = [field for field in stored_fields(points) if len(field.tags) == 1]
    return [fields for fields in fields_by_time(of_hosts) if "certificates" in fields]


def state_of(points: Points, lineage: str) -> dict[str, int]:
    """Return the numbers in the newest state of a lineage, by name."""
    tags = {"domain=all", f"lineage={lineage}"}
    of_lineage = [field for field in stored_fields(points) if tags <= field.tags]
    others = ("renewed_count", "not_served", "dry_run_failed", "dry_run_error")
    of_states = [field for field in of_lineage if field.name not in others]
    newest = fields_by_time(of_states)[-1]
    return {name: int(value) for name, value in newest.items() if WHOLE_NUMBER.fullmatch(value)}


def failure_of(points: Points, lineage: str) -> str:
    """Return the text `failure` in the newest state of a lineage."""
    tags = {"domain=all", f"lineage={lineage}"}
    of_lineage = [field for field in stored_fields(points) if tags <= field.tags]
    return [field.value for field in of_lineage if field.name == "failure"][-1]


def renewals_of(points: Points, lineage: str) -> set[int]:
    """Return the times at which a lineage was renewed."""
    counts = [field for field in stored_fields(points) if field.name == "renewed_count"]
    return {field.time for field in counts if f"lineage={lineage}" in field.tags}
