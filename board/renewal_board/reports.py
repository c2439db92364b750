"""The rows that the board asks for, and what a source must answer.

Each kind of row is named after the query of flux/ that finds it, and the comment at the top of that
query explains its columns. All times are Unix seconds, 0 if they are not known.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

LONGEST_LIFE_DAYS = 400  # a certificate lives for 398 days at most (CA/Browser Forum)
MOST_HOSTS = "(most hosts)"  # the host of the row about most hosts at once


class CertificateKey(NamedTuple):
    """Which certificate is meant: a lineage on a host."""

    host: str
    lineage: str


class OverdueRow(NamedTuple):
    """A certificate, and whether it is overdue by its host's last report."""

    certificate: CertificateKey
    days_overdue: float
    days_left: float
    due: int
    expiry: int
    is_retired: bool


class CertificateRow(NamedTuple):
    """A certificate that is still on its host, and its age."""

    certificate: CertificateKey
    age_days: float


class SilentHostRow(NamedTuple):
    """A host, and for how many days its run reports have been missing; -1: it never sent any.

    `lineages` are those of which the last report is the oldest. `most_were_silent`: most hosts were
    silent until recently, so this one is not judged; the column `most_hosts_away` of the query.

    In the row of MOST_HOSTS, `silent_hosts` is text with the names of the first ten silent hosts,
    and how many are silent: "2 of 3 hosts: web1, web2". It has no lineages. Its `days_silent` is -1
    if most hosts are not silent.
    """

    host: str
    last: int
    days_silent: float
    lineages: list[str]
    most_were_silent: bool
    silent_hosts: str = ""


class FailingRow(NamedTuple):
    """How the last run of certbot on a host went; `exit_status` is -1 if it is not known.

    `failed` and `unreadable` are lineages, fewer than the counts if the source does not know them.
    The last one is "..." if there were more than a field can hold.
    """

    host: str
    run: int
    is_failing: bool
    exit_status: int
    failed_count: int
    unreadable_count: int
    failed: list[str]
    unreadable: list[str]


class FailureRow(NamedTuple):
    """A run of certbot that did not renew some lineages, or could not read them."""

    time: int
    host: str
    lineages: list[str]


class NotDeliveredRow(NamedTuple):
    """A target of a certificate, and for how many days it has lacked the new one; -1: it has it.

    `days_left` and `expiry` are those of the certificate that the target has. `error` says why the
    last attempt failed, "" if it did not or if the source does not know it.
    """

    certificate: CertificateKey
    target: str
    days_missing: float
    days_left: float
    expiry: int
    has_none: bool
    error: str


class NotServedRow(NamedTuple):
    """For how many days another certificate has been served instead; -1: it has not.

    `days_left` and `expiry` are those of the other one. `not_served`: the names for which it is
    served, [] if the source does not know them.
    """

    certificate: CertificateKey
    days_unserved: float
    days_left: float
    expiry: int
    not_served: list[str]


class DryRunRow(NamedTuple):
    """How the last dry run of a certificate ended; `error` is "none" if it succeeded."""

    certificate: CertificateKey
    time: int
    has_failed: bool
    error: str


class HistoryRow(NamedTuple):
    """A renewal at `time`, notBefore; both numbers of days are 0 if they are not known."""

    time: int
    certificate: CertificateKey
    names: tuple[str, ...]
    lifetime_days: float
    due_after_days: float


class Source(Protocol):
    """Where the reports are stored. Each method but `fields` runs the query of its name.

    `place` says where that is, `settings_to_correct` which settings name the place, and `notice`
    what is not stored there, in a sentence, or "".
    """

    place: str
    settings_to_correct: str
    notice: str

    def overdue(self) -> list[OverdueRow]:
        """Return all certificates that were ever reported."""

    def certificates(self) -> list[CertificateRow]:
        """Return the certificates that are still on their hosts."""

    def silent_hosts(self, silence_days: float) -> list[SilentHostRow]:
        """Return all hosts, each with its silence."""

    def failing(self) -> list[FailingRow]:
        """Return the last run of each host that sends run reports."""

    def failures(self, since: int) -> list[FailureRow]:
        """Return the runs that failed, the newest first; `since`: seconds before now."""

    def not_delivered(self) -> list[NotDeliveredRow]:
        """Return all targets of all certificates."""

    def not_served(self) -> list[NotServedRow]:
        """Return all certificates that run reports look for."""

    def dry_runs(self) -> list[DryRunRow]:
        """Return the last dry run of each certificate."""

    def history(self, since: int) -> list[HistoryRow]:
        """Return the renewals, the oldest first; `since`: seconds before now."""

    def fields(self) -> list[str]:
        """Return the names of all fields in the measurement, sorted."""
