"""What the board shows. All times are Unix seconds.

--json prints most of these classes, with the names of their fields as keys. exports.json_text has
what differs: the cards are named "certificates".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from renewal_board.commands import Step

DAY = 86400  # seconds

# The columns of the board with their titles, the worst first.
STATES = {
    "overdue": "Overdue",
    "failing": "Failing",
    "due": "Due",
    "renewed": "Renewed",
    "retired": "Retired",
}


@dataclass(frozen=True)
class Thresholds:
    """In days, as in the alerts.

    A certificate is overdue from `crit` days after its due date on, or from half of the time
    between due date and expiry on, if that is shorter. A host is silent from `silence` days after
    its last run report on. A renewed certificate may take `grace` days to be delivered and served.
    """

    crit: float = 1.0
    silence: float = 2.0
    grace: float = 1.0


@dataclass(frozen=True)
class Renewal:
    """A renewal.

    `time` is notBefore, `next_due` when the next renewal was due, `days_late` how long after its
    predecessor was due it came, negative if before. None: not known. `was_overdue`: its predecessor
    was overdue until then.
    """

    time: int
    host: str
    lineage: str
    names: list[str]
    lifetime_days: float | None
    next_due: int | None
    days_late: float | None
    was_overdue: bool = False


@dataclass
class Card:
    """A certificate on a host; its times are 0 if they are not known.

    `state` is a key of STATES. The certificate is overdue if it is due for `overdue_after_days` at
    `judged_at`, the last run report. `staging`: a staging CA issued it. `reason` says in certbot's
    words why it is not renewed or cannot be read, "" if there is nothing to say. `failed_with` are
    the other lineages that failed in the run of `last_failure`. `dry_run_error` is "none" if the
    last dry run succeeded, "" if there was none. `renewals` are the newest first.
    """

    host: str
    lineage: str
    state: str
    names: list[str] = field(default_factory=list)
    not_before: int = 0
    due: int = 0
    expiry: int = 0
    days_overdue: float = 0.0
    overdue_after_days: float = 0.0
    judged_at: int = 0
    days_left: float = 0.0
    staging: bool = False
    problems: list[str] = field(default_factory=list)
    reason: str = ""
    last_failure: int = 0
    failed_with: list[str] = field(default_factory=list)
    dry_run: int = 0
    dry_run_error: str = ""
    steps: list[Step] = field(default_factory=list)
    renewals: list[Renewal] = field(default_factory=list)

    def add_problem(self, problem: str, step: Step | None = None) -> None:
        """Add a problem and the step to take: the certificate is failing, if nothing worse."""
        self.problems.append(problem)
        if step and step not in self.steps:
            self.steps.append(step)
        if self.state in ("due", "renewed"):
            self.state = "failing"

    def has_failed_dry_run(self) -> bool:
        """Return whether certbot could not renew it in its last dry run."""
        return self.dry_run_error not in ("", "none")


@dataclass
class HostProblem:
    """A host whose last certbot run failed, or that no longer sends run reports.

    `kind` is "failing", "silent", or "unknown": silent, but not judged, because most hosts were
    silent. `problem` is a text, `since` the time of the last report.
    """

    host: str
    kind: str
    problem: str
    since: int
    steps: list[Step] = field(default_factory=list)


@dataclass
class Fleet:
    """All that the board shows: at the time `made`, with the renewals since `since`.

    The cards are in the order of the board, the renewals the newest first. `dry_runs` has a line
    of text for the last dry run of each host. `notice` says what the source does not store.
    """

    made: int
    since: int
    cards: list[Card]
    hosts: list[HostProblem]
    renewals: list[Renewal]
    dry_runs: list[str]
    notice: str

    @property
    def counts(self) -> dict[str, int]:
        """How many certificates are in each state."""
        counts = dict.fromkeys(STATES, 0)
        for card in self.cards:
            counts[card.state] += 1
        return counts

    def needs_attention(self) -> bool:
        """Return whether a certificate is overdue, or a host silent."""
        return self.counts["overdue"] > 0 or any(host.kind == "silent" for host in self.hosts)
