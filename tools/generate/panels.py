"""The panels of all dashboards: their titles, queries and places."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from tools.generate.queries import read_query

RED = "#DC4E58"

# Matches how far back a query looks: since = -400d
SINCE = re.compile(r"^since = -\d+d$", re.MULTILINE)


class Place(NamedTuple):
    """The place of a panel, in cells of a grid of twelve columns; x and y of its upper left."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Panel:
    """A table, or the graph. All dashboards have the same.

    `query` is the name of a query in flux/, and `addition` is Flux that is added to its end.
    `since` is how far back the panel looks, such as "-30d"; "": as far as the query.
    `alarm` is the column that is red; "": none. A table with a red column is empty as long as
    nothing is wrong.
    """

    title: str
    query: str
    note: str
    place: Place
    addition: str = ""
    since: str = ""
    alarm: str = ""
    is_graph: bool = False

    def flux(self) -> str:
        """Return the query as this panel asks it."""
        query = read_query(self.query)
        if self.since:
            query = SINCE.sub(f"since = {self.since}", query)
        if self.addition:
            query = f"{query}\n    {self.addition}"
        return query


def only_rows(condition: str, column: str) -> str:
    """Return Flux that keeps the rows with a condition, in one table, the highest value first.

    Grafana and Chronograf show one table at a time.
    """
    table = f'|> group() |> sort(columns: ["{column}"], desc: true)'
    return f"|> filter(fn: (r) => {condition}) {table}"


PANELS = [
    Panel(
        title="Overdue",
        query="overdue",
        note="Certificates that were due a day ago or earlier. If less than two days are between "
        "due date and expiry, half of this time counts instead of a day. failure is certbot's "
        "reason. Empty if there are none.",
        place=Place(0, 0, 8, 3),
        addition=only_rows(
            "r.days_overdue >= 1.0 or r.days_overdue >= r.grace_days", "days_overdue"
        ),
        alarm="days_overdue",
    ),
    Panel(
        title="Silent hosts",
        query="silent_hosts",
        note="Hosts without a run report for two days. If most_hosts_away is true, the server was "
        "probably down, and no alert fires for a single host. Empty if there are none.",
        place=Place(8, 0, 4, 3),
        addition=only_rows("r.days_silent >= silence", "days_silent"),
        alarm="days_silent",
    ),
    Panel(
        title="Failing hosts",
        query="failing",
        note="Hosts where the last certbot run failed, did not renew a due certificate, "
        "or could not read a certificate. failures and failure are certbot's reasons. "
        "Empty if there are none.",
        place=Place(0, 3, 12, 3),
        # A host has a row for each step of its incident, and they have the same columns.
        addition=only_rows('r.failing and r.step == "1"', "failed_count")
        + ' |> drop(columns: ["step"])',
        alarm="failed_count",
    ),
    Panel(
        title="Not delivered",
        query="not_delivered",
        note="Targets without the renewed certificate, and for how many days. "
        "Empty if there are none.",
        place=Place(0, 6, 6, 3),
        addition=only_rows("r.days_missing >= 0.0", "days_missing"),
        alarm="days_missing",
    ),
    Panel(
        title="Not served",
        query="not_served",
        note="Certificates for which another certificate is served, and for how many days. "
        "Empty if there are none.",
        place=Place(6, 6, 6, 3),
        addition=only_rows("r.days_unserved >= 0.0", "days_unserved"),
        alarm="days_unserved",
    ),
    Panel(
        title="Renewals per day",
        query="renewals_per_host",
        note="Renewals of certificates per day (UTC) and host, in the last 30 days.",
        place=Place(0, 9, 12, 3),
        is_graph=True,
    ),
    Panel(
        title="Certificates",
        query="certificates",
        note="Every certificate with its age, next renewal and expiry, the oldest first.",
        place=Place(0, 12, 6, 4),
    ),
    Panel(
        title="Names",
        query="domains",
        note="Every name, and when its certificate was last renewed, the oldest first.",
        place=Place(6, 12, 6, 4),
    ),
    Panel(
        title="Runs",
        query="runs",
        note="Every certbot run of the last 30 days, with its result for each certificate, "
        "the newest first.",
        place=Place(0, 16, 12, 4),
        since="-30d",
    ),
    Panel(
        title="Dry runs",
        query="dry_run_results",
        note="The last dry run of each certificate for which a dry run was reported.",
        place=Place(0, 20, 12, 3),
    ),
]
