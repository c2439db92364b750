"""Whether a renewed certificate was delivered, and is served: the queries on every InfluxDB, the alerts on the real Kapacitor."""

from __future__ import annotations

import time

import requests

from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.lineages import DAY

LIVES = {"90d": 90 * DAY, "64d": 64 * DAY, "45d": 45 * DAY, "160h": 160 * 3600}
Points = set[tuple[str, ...]]


def delivery(
    target: str,
    deployed: int,
    renewed: int,
    lineage: str = "a",
    run_at: int = 0,
    error: str = "none",
    at: int | None = None,
    life: int = 90,
) -> str:
    """What a target has (began at `deployed`, 0: none) beside what is on disk (began at `renewed`, 0: it ended)."""
    fields = f"deployed={deployed}i,deployed_expiry={deployed + life * DAY if deployed else 0}i,renewed={renewed}i,run_at={run_at}i"
    return f'certbot_renewal,host=web1,lineage={lineage},target={target} {fields},deploy_error="{error}" {at or int(time.time())}'


def served(
    lineage: str,
    begin: int,
    served: int | None,
    not_served: str = "",
    expiry: int = 0,
    at: int | None = None,
) -> str:
    """The state of a certificate, and what was seen of it; `not_served` "": nobody answered."""
    at = at or int(time.time())
    fields = "" if served is None else f",served={served}i"
    fields += f',served_expiry={expiry}i,not_served="{not_served}"' if not_served else ""
    return state(lineage, begin + 60 * DAY, run_at=at, at=at).rpartition(" ")[0] + f"{fields} {at}"


def write(influxdb: InfluxDB, bucket: str, *lines: str) -> None:
    """Writes points, with times in seconds."""
    parameters = {"bucket": bucket, "org": ORG, "precision": "s"}
    url = influxdb.url + "/api/v2/write"
    requests.post(
        url, params=parameters, data="\n".join(lines), headers=influxdb.headers, timeout=60
    ).raise_for_status()


def state(
    lineage: str,
    due: int,
    host: str = "web1",
    life: int = 90 * DAY,
    run_at: int = 0,
    at: int | None = None,
) -> str:
    """The state of a certificate that is or was due at a moment; 0: it ended."""
    begin, end = (due - life * 2 // 3, due + life // 3) if due else (0, 0)
    fields = f"not_before={begin}i,renewal_due={due}i,not_after={end}i,run_at={run_at}i"
    return f"certbot_renewal,domain=all,host={host},lineage={lineage} {fields} {at or int(time.time())}"


def run_point(
    host: str, at: int, failed: str = "", unreadable: str = "", exit_status: int | None = None
) -> str:
    """How a run of certbot went."""
    status = "" if exit_status is None else f",exit_status={exit_status}i"
    names = "".join(
        f',{name}="{text}"'
        for name, text in (("failed", failed), ("unreadable", unreadable))
        if text
    )
    counts = f"certificates=1i,failed_count={len(failed.split())}i,unreadable_count={len(unreadable.split())}i"
    return f"certbot_renewal,host={host} {counts}{status}{names} {at}"


def run_points(points: Points) -> list[dict[str, str]]:
    """The run points, oldest first: their fields."""
    moments = sorted({int(p[0]) for p in points if p[1] == "certificates"})
    return [
        {p[1]: p[2] for p in points if int(p[0]) == moment and len(p) == 4} for moment in moments
    ]


def state_of(points: Points, lineage: str) -> dict[str, int]:
    """The newest state of a lineage."""
    mine = {
        p
        for p in points
        if f"lineage={lineage}" in p
        and "domain=all" in p
        and p[1] not in ("renewed_count", "not_served")
    }
    newest = max(int(p[0]) for p in mine)
    return {p[1]: int(p[2]) for p in mine if int(p[0]) == newest}


def renewals_of(points: Points, lineage: str) -> set[int]:
    """The moments at which a lineage was renewed."""
    return {int(p[0]) for p in points if p[1] == "renewed_count" and f"lineage={lineage}" in p}
