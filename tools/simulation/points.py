"""The lines of the reports, as the models read them: only those at which a query looks."""

from __future__ import annotations

import re
from typing import NamedTuple, Union

from tools.simulation.alerts import Subject

# Matches: certbot_renewal,domain=all,host=a,lineage=x not_before=1i,renewal_due=2i,not_after=3i,
# run_at=4i,failure="none" 5 (on one line)
STATE_LINE = re.compile(
    r"""
    certbot_renewal,domain=all,host=(?P<host> \S+ ),lineage=(?P<lineage> \S+ ) [ ]
    not_before=\d+i,
    renewal_due=(?P<due> \d+ )i,
    not_after=(?P<expiry> \d+ )i,
    run_at=(?P<run_at> \d+ )i,
    .* [ ]
    (?P<time> \d+ )
    """,
    re.VERBOSE,
)

# Matches: certbot_renewal,host=a certificates=1i,failed_count=0i,exit_status=0i,failing=0i 5
RUN_LINE = re.compile(
    r"""
    certbot_renewal,host=(?P<host> \S+ ) [ ]
    certificates= .* [ ]
    (?P<time> \d+ )
    """,
    re.VERBOSE,
)

# Matches: ,failing=1i
RUN_FIELD = re.compile(
    r""", (?P<name> failing|steps|retired|reported_at ) = (?P<value> \d+ ) i""", re.VERBOSE
)

# Matches: certbot_renewal,domain=www.example.com,host=a renewed_count=1 5
NAME_LINE = re.compile(
    r"""
    certbot_renewal,domain=(?! all, )(?P<name> \S+ ),host=(?P<host> \S+ ) [ ]
    renewed_count=1 [ ]
    (?P<time> \d+ )
    """,
    re.VERBOSE,
)

# What vmalert and Prometheus store while an alert fires, its time in milliseconds. Matches:
# ALERTS{alertname="host_silent",alertstate="firing",host="a"} 1 5000
ALERTS_LINE = re.compile(
    r"""
    ALERTS\{ alertname="host_silent",alertstate="firing",host="(?P<host> \S+ )" \} [ ]
    1 [ ]
    (?P<time> \d+ )000
    """,
    re.VERBOSE,
)


class State(NamedTuple):
    """The state of a certificate. `due` is 0 if it is retired, `run_at` 0 without run reports."""

    time: int
    due: int
    expiry: int
    run_at: int


class StatePoint(NamedTuple):
    """A state that arrived."""

    subject: Subject
    state: State


class RunPoint(NamedTuple):
    """A run point that arrived, with those of its fields at which queries look.

    `failing` is the step of the incident, 0 if there is none, `steps` the highest step of 30 days.
    Both are None if the report was not about a run of certbot. `reported_at` is the server's time,
    0 if the host is retired, None if it is not a run report.
    """

    host: str
    time: int
    failing: int | None
    steps: int | None
    is_retired: bool
    reported_at: int | None


class NamePoint(NamedTuple):
    """A renewal of a name that arrived."""

    subject: Subject
    time: int


class FiringPoint(NamedTuple):
    """That host_silent fires for a host, as Prometheus stores it."""

    host: str
    time: int


ParsedPoint = Union[StatePoint, RunPoint, NamePoint, FiringPoint]


def parse_line(line: str) -> ParsedPoint | None:
    """Return what a line says; None if no query looks at it."""
    if "renewed_count" in line:
        return parse_renewal(line)
    state = STATE_LINE.fullmatch(line)
    if state:
        values = State(
            int(state["time"]), int(state["due"]), int(state["expiry"]), int(state["run_at"])
        )
        return StatePoint(Subject(state["host"], state["lineage"]), values)
    run = RUN_LINE.fullmatch(line)
    if run:
        return parse_run(run["host"], int(run["time"]), line)
    firing = ALERTS_LINE.fullmatch(line)
    if firing:
        return FiringPoint(firing["host"], int(firing["time"]))
    return None


def parse_renewal(line: str) -> NamePoint | None:
    """Return the renewal of a name; None if it is that of a certificate."""
    name = NAME_LINE.fullmatch(line)
    if name is None:
        return None
    return NamePoint(Subject(name["host"], name["name"]), int(name["time"]))


def parse_run(host: str, moment: int, line: str) -> RunPoint:
    """Return a run point."""
    fields = {match["name"]: int(match["value"]) for match in RUN_FIELD.finditer(line)}
    return RunPoint(
        host=host,
        time=moment,
        failing=fields.get("failing"),
        steps=fields.get("steps"),
        is_retired=fields.get("retired") == 1,
        reported_at=fields.get("reported_at"),
    )
