"""The rows that the board asks for, and what a source must answer.

Each kind of row is named after the query of flux/ that finds it, and the comment at the top of that
query explains its columns. All times are Unix seconds, 0 if they are not known. A text is "" if
there is nothing to say, or if the source does not store texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

LONGEST_LIFE_DAYS = 400  # a certificate lives for 398 days at most (CA/Browser Forum)
MOST_HOSTS = "(most hosts)"  # the host of the row about most hosts at once


class CertificateKey(NamedTuple):
    """Which certificate is meant: a lineage on a host."""

    host: str
    lineage: str


class OverdueRow(NamedTuple):
    """A certificate, and for how long its renewal has been due.

    `days_overdue` is counted until `judged_at`, the last run report of the host, or now if the host
    sends none. `grace_days` is half of the time between due date and expiry. `failure`: why certbot
    does not renew the certificate, in certbot's words.
    """

    certificate: CertificateKey
    days_overdue: float
    grace_days: float
    days_left: float
    due: int
    expiry: int
    judged_at: int
    failure: str
    is_retired: bool


class CertificateRow(NamedTuple):
    """A certificate that is still on its host, and its age.

    `is_staging`: a staging CA issued it, so browsers do not trust it.
    """

    certificate: CertificateKey
    age_days: float
    is_staging: bool


class SilentHostRow(NamedTuple):
    """A host that sent run reports, and the days since the last one; -1: the host is retired.

    `most_were_silent`: most hosts were silent until recently, so this one is not judged; the column
    `most_hosts_away` of the query.

    In the row of MOST_HOSTS, `silent_hosts` is text with the names of the first ten silent hosts,
    and how many are silent: "2 of 3 hosts: web1, web2". Its `days_silent` is -1 if most hosts are
    not silent.
    """

    host: str
    last: int
    days_silent: float
    most_were_silent: bool
    silent_hosts: str = ""


class FailingRow(NamedTuple):
    """How the last run of certbot on a host went; `exit_status` is -1 if it is not known.

    The query has a row for each step of an incident. This is the row of step 1, since the further
    ones are for notifications only.

    `failed` and `unreadable` are lineages, fewer than the counts if the source does not know them.
    The last one is "..." if there were more than a field can hold. `failures` are the reasons, by
    lineage, and `failure` is why the run as a whole failed.
    """

    host: str
    last_report: int
    is_failing: bool
    exit_status: int
    failed_count: int
    unreadable_count: int
    failed: list[str]
    unreadable: list[str]
    failures: Mapping[str, str]
    failure: str


class RunRow(NamedTuple):
    """A run of certbot, reported at `time`, and the lineages by their results.

    `started` and `ended` are by the host's clock. `exit_status` is -1 if it is not known. The last
    lineage of a result is "..." if there were more than a field can hold. `failures` are the
    reasons, by lineage, and `failure` is why the run as a whole failed.
    """

    time: int
    host: str
    started: int
    ended: int
    mode: str
    exit_status: int
    renewed: list[str]
    not_due: list[str]
    not_processed: list[str]
    failed: list[str]
    unreadable: list[str]
    failures: Mapping[str, str]
    failure: str
    certbot: str
    hook: str


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
        """Return all hosts that ever sent run reports, each with its silence."""

    def failing(self) -> list[FailingRow]:
        """Return the last run of each host that reports runs: one row for each host."""

    def runs(self, since: int) -> list[RunRow]:
        """Return all runs, the newest first; `since`: seconds before now.

        [] if the source does not store texts.
        """

    def not_delivered(self) -> list[NotDeliveredRow]:
        """Return all targets of all certificates."""

    def not_served(self) -> list[NotServedRow]:
        """Return all certificates that run reports look for."""

    def dry_run_results(self) -> list[DryRunRow]:
        """Return the last dry run of each certificate."""

    def history(self, since: int) -> list[HistoryRow]:
        """Return the renewals, the oldest first; `since`: seconds before now."""

    def fields(self) -> list[str]:
        """Return the names of all fields in the measurement, sorted."""
