"""A bucket of a real InfluxDB, the settings that write to it, and what is in it."""

from __future__ import annotations

import requests

from support.points import Points, renewals_of, run_points, state_of
from tools.servers.influxdb import InfluxDB


class Bucket:
    """An empty bucket; `settings` are the variables with which the programs write to it."""

    def __init__(self, influxdb: InfluxDB, retention: str = "") -> None:
        """`retention` is in seconds, "" for ever."""
        self.influxdb = influxdb
        self.name = influxdb.new_bucket(retention)
        self.settings = influxdb.settings(self.name)

    def points(self) -> Points:
        """Return all that is in the bucket."""
        return self.influxdb.points(self.name)

    def renewals_of(self, lineage: str) -> set[int]:
        """Return the times of all renewals of a lineage."""
        return renewals_of(self.points(), lineage)

    def state_of(self, lineage: str) -> dict[str, int]:
        """Return the numbers in the newest state of a lineage."""
        return state_of(self.points(), lineage)

    def runs(self) -> list[dict[str, str]]:
        """Return the fields of all points about runs of certbot, the oldest first."""
        return run_points(self.points())


def new_token(influxdb: InfluxDB, action: str) -> str:
    """Return a token of InfluxDB 2 that may do one thing with all buckets: read, or write."""
    answer = requests.get(f"{influxdb.url}/api/v2/orgs", headers=influxdb.headers, timeout=30)
    org = answer.json()["orgs"][0]["id"]
    permission = {"action": action, "resource": {"type": "buckets", "orgID": org}}
    answer = requests.post(
        f"{influxdb.url}/api/v2/authorizations",
        json={"orgID": org, "permissions": [permission]},
        headers=influxdb.headers,
        timeout=30,
    )
    return str(answer.json()["token"])
