"""The lines of the reports, as the models read them: only those at which a query looks."""

from __future__ import annotations

import re
from typing import NamedTuple, Union

from tools.simulation.alerts import Subject

# Matches: certbot_renewal,domain=all,host=a,lineage=x not_before=1i,renewal_due=2i,not_after=3i,
# run_at=4i 5 (on one line)
STATE_LINE = re.compile(
    r"""
    certbot_renewal,domain=all,host=(?P<host> \S+ ),lineage=(?P<lineage> \S+ ) [ ]
    not_before=\d+i,
    renewal_due=(?P<due> \d+ )i,
    not_after=\d+i,
    run_at=(?P<run_at> \d+ )i [ ]
    (?P<time> \d+ )
    """,
    re.VERBOSE,
)

# Matches: certbot_renewal,host=a certificates=1i,failed_count=0i,exit_status=0i 5
RUN_LINE = re.compile(
    r"""
    certbot_renewal,host=(?P<host> \S+ ) [ ]
    \S* failed_count=(?P<failed_count> \d+ )i .* [ ]
    (?P<time> \d+ )
    """,
    re.VERBOSE,
)

# Matches: exit_status=1i
EXIT_STATUS = re.compile(r"exit_status=(?P<exit_status> \d+ )i", re.VERBOSE)

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
    run_at: int


class StatePoint(NamedTuple):
    """A state that arrived."""

    subject: Subject
    state: State


class RunPoint(NamedTuple):
    """A run of certbot that arrived; `is_failing`: a lineage failed, or certbot itself."""

    host: str
    time: int
    is_failing: bool


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
        values = State(int(state["time"]), int(state["due"]), int(state["run_at"]))
        return StatePoint(Subject(state["host"], state["lineage"]), values)
    run = RUN_LINE.fullmatch(line)
    if run:
        has_failures = run["failed_count"] != "0" or has_exit_status(line)
        return RunPoint(run["host"], int(run["time"]), has_failures)
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


def has_exit_status(line: str) -> bool:
    """Return whether certbot failed in a run, by its exit status; it may be unknown."""
    status = EXIT_STATUS.search(line)
    return status is not None and status["exit_status"] != "0"
