"""Makes what the board shows out of the rows of a source."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from renewal_board import commands, reports
from renewal_board.model import DAY, STATES, Card, Fleet, HostProblem, Renewal, Thresholds
from renewal_board.report_hook import hook
from renewal_board.reports import LONGEST_LIFE_DAYS, MOST_HOSTS, CertificateKey
from renewal_board.texts import first_names, utc

CLOCK_TOLERANCE = 300  # seconds by which clocks may differ
FAILURE_DAYS = 30  # how far back the last failure of a certificate is looked for
DRY_RUN_DAYS = 30  # for so long a failed dry run counts, as in dry_runs.flux
MORE_NAMES = "..."  # in a field that cannot hold all names
OWN_FIELDS = {"renewal_due", "certificates", "dry_run_failed"}  # one of them is in each report

Cards = dict[CertificateKey, Card]


def read_fleet(source: reports.Source, since: int, thresholds: Thresholds) -> Fleet:
    """Return all that the board shows; `since`: seconds before now, for renewals and failures.

    The order of the steps matters, since a card changes from step to step: a problem makes a card
    that is "due" or "renewed" a "failing" one.

    Raise a ReportError if the source does not answer, or holds something else.
    """
    now = int(time.time())
    states = source.overdue()
    if not states:
        refuse_other_data(source)
    cards = {row.certificate: card_of(row, thresholds, now) for row in states}
    host_rows = source.silent_hosts(thresholds.silence)
    retire_cards(cards, host_rows)

    # How late the first renewal came is known from its predecessor.
    history_since = since + (1 + LONGEST_LIFE_DAYS) * DAY
    renewals = renewals_of(source.history(history_since), now - since, thresholds)
    add_renewals(cards, renewals)
    add_ages(cards, source.certificates(), now)

    silent_hosts = silent_hosts_of(host_rows, thresholds)
    mark_unknown(cards, silent_hosts)  # before other problems: it needs the cards that are "due"
    failing_runs = [row for row in source.failing() if row.is_failing]
    failing_runs.sort(key=lambda row: row.host)
    failing_hosts = [failing_host(row) for row in failing_runs]
    mark_failed(cards, failing_runs)  # adds cards, so what is added to all cards comes later
    add_last_failures(cards, source.runs(min(since, FAILURE_DAYS * DAY)))

    mark_not_delivered(cards, source.not_delivered(), thresholds)
    mark_not_served(cards, source.not_served(), thresholds)
    dry_runs = source.dry_run_results()
    add_dry_runs(cards, dry_runs)
    for card in cards.values():  # last: these steps replace those of all problems
        if card.state == "overdue":
            card.steps = commands.for_overdue(card.lineage)

    return Fleet(
        made=now,
        since=now - since,
        cards=in_board_order(cards),
        hosts=silent_hosts + failing_hosts,
        renewals=renewals,
        dry_runs=dry_run_lines(dry_runs, now),
        notice=source.notice,
    )


def refuse_other_data(source: reports.Source) -> None:
    """Raise a ReportError if a measurement without any certificate holds something else.

    That is data of another program, or of the published hook, which reports renewals only.
    """
    fields = source.fields()
    if fields == ["renewed_count"]:
        raise hook.ReportError(
            f"{source.place} contains only renewals of the published hook: "
            f"install certbot_renewal_report.py in {commands.DEPLOY_HOOKS} on each host, "
            "and run it with --check"
        )
    if fields and not OWN_FIELDS.intersection(fields):
        examples = hook.shortened(" ".join(fields[:5]))
        raise hook.ReportError(
            f"{source.place} contains other data ({examples}): correct {source.settings_to_correct}"
        )


def in_board_order(cards: Cards) -> list[Card]:
    """Return the cards: the worst state first, in it what is due first."""
    rank = {state: number for number, state in enumerate(STATES)}
    return sorted(
        cards.values(),
        key=lambda card: (rank[card.state], card.due, card.host, card.lineage),
    )


# ---- Certificates and their renewals -----------------------------------------------------------
def card_of(row: reports.OverdueRow, thresholds: Thresholds, now: int) -> Card:
    """Return the card of a certificate; what else is known of it is added later.

    It is overdue if it is so by its host's last report, as in the alert. It is also overdue if it
    has expired, which the reader of a board wants to know. Between both its state is due.
    """
    host, lineage = row.certificate
    if row.is_retired:
        return Card(host, lineage, "retired")

    overdue_after_days = min(thresholds.crit, row.grace_days)
    days_overdue = (now - row.due) / DAY  # now: not at the last report, as row.days_overdue
    if row.days_overdue >= overdue_after_days or row.days_left < 0:
        state = "overdue"
    elif days_overdue >= 0:
        state = "due"
    else:
        state = "renewed"
    return Card(
        host,
        lineage,
        state,
        due=row.due,
        expiry=row.expiry,
        days_overdue=days_overdue,
        overdue_after_days=overdue_after_days,
        judged_at=row.judged_at,
        days_left=row.days_left,
        reason=row.failure,
    )


def retire_cards(cards: Cards, rows: Sequence[reports.SilentHostRow]) -> None:
    """Replace the cards of hosts that are retired: their certificates are retired too."""
    retired_hosts = {row.host for row in rows if row.days_silent < 0}
    for key in cards:
        if key.host in retired_hosts:
            cards[key] = Card(key.host, key.lineage, "retired")


def renewals_of(
    rows: Sequence[reports.HistoryRow], since: int, thresholds: Thresholds
) -> list[Renewal]:
    """Return the renewals from a time on, the newest first; the rows are the oldest first."""
    predecessors: dict[CertificateKey, reports.HistoryRow] = {}
    renewals = []
    for row in rows:
        days_late = None
        was_overdue = False
        predecessor = predecessors.get(row.certificate)
        if predecessor is not None and predecessor.due_after_days:
            days_late = (row.time - next_due(predecessor)) / DAY
            grace_days = (predecessor.lifetime_days - predecessor.due_after_days) / 2
            was_overdue = days_late >= min(thresholds.crit, grace_days)
        predecessors[row.certificate] = row
        renewal = Renewal(
            row.time,
            *row.certificate,
            list(row.names),
            row.lifetime_days or None,
            next_due(row) if row.due_after_days else None,
            days_late,
            was_overdue,
        )
        renewals.append(renewal)
    return [renewal for renewal in reversed(renewals) if renewal.time >= since]


def next_due(row: reports.HistoryRow) -> int:
    """Return when the renewal after this one is due."""
    return row.time + round(row.due_after_days * DAY)


def add_renewals(cards: Cards, renewals: Sequence[Renewal]) -> None:
    """Add its renewals to each card, and the names in the newest one that has any."""
    for renewal in renewals:
        card = cards.get(CertificateKey(renewal.host, renewal.lineage))
        if card:
            card.renewals.append(renewal)
            card.names = card.names or renewal.names


def add_ages(cards: Cards, rows: Sequence[reports.CertificateRow], now: int) -> None:
    """Add to each card when its certificate began, and whether a staging CA issued it."""
    for row in rows:
        card = cards.get(row.certificate)
        if card is None or card.state == "retired":
            continue
        card.staging = row.is_staging
        card.not_before = now - round(row.age_days * DAY)
        if card.not_before > now + CLOCK_TOLERANCE:
            card.add_problem("not valid yet: check the clocks of the host and of this machine")


# ---- Hosts -------------------------------------------------------------------------------------
def silent_hosts_of(
    rows: Sequence[reports.SilentHostRow], thresholds: Thresholds
) -> list[HostProblem]:
    """Return the hosts that are silent, those that have been so for longest first."""
    silent = [row for row in rows if row.days_silent >= thresholds.silence]
    silent.sort(key=lambda row: -row.days_silent)
    return [silent_host(row) for row in silent]


def silent_host(row: reports.SilentHostRow) -> HostProblem:
    """Return the problem of a host that is silent, or of most hosts."""
    problem = f"no run report for {row.days_silent:.1f} days"
    if row.host == MOST_HOSTS:
        return HostProblem(row.host, "silent", f"{problem}: {row.silent_hosts}", row.last)

    kind = "silent"
    if row.most_were_silent:
        kind = "unknown"
        problem += (
            ". Most hosts were silent until recently, perhaps because the server was down: "
            "no alert fires for this host alone"
        )
    steps = commands.for_silent_host(row.host)
    return HostProblem(row.host, kind, problem, row.last, steps)


def mark_unknown(cards: Cards, silent_hosts: Sequence[HostProblem]) -> None:
    """Mark the certificates that should be renewed by now on hosts that are silent."""
    silent_names = {host.host for host in silent_hosts}
    for card in cards.values():
        is_late = card.state == "due" and card.days_overdue >= card.overdue_after_days
        if is_late and card.host in silent_names:
            card.add_problem("its host is silent: check whether the certificate was renewed")


def failing_host(row: reports.FailingRow) -> HostProblem:
    """Return the problem of a host whose last certbot run failed."""
    parts = []
    if row.failed_count:
        parts.append(f"not renewed: {first_names(row.failed) or row.failed_count}")
    if row.unreadable_count:
        parts.append(f"unreadable: {first_names(row.unreadable) or row.unreadable_count}")
    if row.exit_status > 0:
        parts.append(f"exit status {row.exit_status}")

    problem = "the last certbot run failed"
    if parts:
        problem += f" ({'; '.join(parts)})"
    if row.failure:
        problem += f": {row.failure}"
    steps = list(commands.FAILING_HOST)
    return HostProblem(row.host, "failing", problem, row.last_report, steps)


def mark_failed(cards: Cards, failing_runs: Sequence[reports.FailingRow]) -> None:
    """Mark the certificates that the last run of certbot could not renew or read, and say why.

    What cannot be read may never have been reported: it gets a card of its own.
    """
    for row in failing_runs:
        for lineage in lineages_in(row.failed):
            card = card_of_name(cards, row.host, lineage)
            card.reason = row.failures.get(lineage, card.reason)
            card.add_problem("not renewed in the last certbot run", commands.dry_run(lineage))
        for lineage in lineages_in(row.unreadable):
            card = card_of_name(cards, row.host, lineage)
            card.reason = row.failures.get(lineage, card.reason)
            card.add_problem("certbot cannot read it", commands.SHOW_CERTIFICATES)


def lineages_in(names: Sequence[str]) -> list[str]:
    """Return the names in a field without the mark that there were more."""
    return [name for name in names if name != MORE_NAMES]


def card_of_name(cards: Cards, host: str, lineage: str) -> Card:
    """Return the card of a lineage, a new one if there is none."""
    return cards.setdefault(CertificateKey(host, lineage), Card(host, lineage, "failing"))


def add_last_failures(cards: Cards, rows: Sequence[reports.RunRow]) -> None:
    """Add to each card the last run that failed for it, and what else failed in that run."""
    for row in rows:  # the newest first
        lineages = [*row.failed, *row.unreadable]
        for lineage in lineages:
            card = cards.get(CertificateKey(row.host, lineage))
            if card and not card.last_failure:
                card.last_failure = row.time
                card.failed_with = [name for name in lineages if name != lineage]


# ---- Delivered and served ----------------------------------------------------------------------
def mark_not_delivered(
    cards: Cards, rows: Sequence[reports.NotDeliveredRow], thresholds: Thresholds
) -> None:
    """Mark the certificates that a target has not got for longer than that may take."""
    for row in rows:
        card = cards.get(row.certificate)
        if card is None or card.state == "retired" or row.days_missing < thresholds.grace:
            continue
        if row.has_none:
            present = "no certificate was ever delivered there"
        else:
            present = f"the certificate there {expiry_in_words(row.days_left, row.expiry)}"
        problem = f"not delivered to {row.target} for {row.days_missing:.1f} days ({present})"
        if row.error:
            problem += f": {row.error}"
        card.add_problem(problem, commands.CHECK_DELIVERY)


def mark_not_served(
    cards: Cards, rows: Sequence[reports.NotServedRow], thresholds: Thresholds
) -> None:
    """Mark the certificates that are not served: another one is, for longer than may be."""
    for row in rows:
        card = cards.get(row.certificate)
        if card is None or card.state == "retired" or row.days_unserved < thresholds.grace:
            continue
        problem = "another certificate is served"
        if row.not_served:
            problem += f" for {first_names(row.not_served)}"
        problem += f" (that certificate {expiry_in_words(row.days_left, row.expiry)})"
        card.add_problem(problem, commands.CHECK_SERVED)


def expiry_in_words(days_left: float, expiry: int) -> str:
    """Return when a certificate expires or expired."""
    verb = "expired" if days_left < 0 else "expires"
    return f"{verb} {utc(expiry)}"


# ---- Dry runs ----------------------------------------------------------------------------------
def add_dry_runs(cards: Cards, rows: Sequence[reports.DryRunRow]) -> None:
    """Add its last dry run to each card."""
    for row in rows:
        card = cards.get(row.certificate)
        if card:
            card.dry_run = row.time
            card.dry_run_error = row.error


def dry_run_lines(rows: Sequence[reports.DryRunRow], now: int) -> list[str]:
    """Return a line about the dry runs of each host, the hosts in alphabetical order.

    The last dry run of each certificate counts, if it is not too old.
    """
    rows_of_host = defaultdict(list)
    for row in rows:
        if row.time >= now - DRY_RUN_DAYS * DAY:
            rows_of_host[row.certificate.host].append(row)

    lines = []
    for host, host_rows in sorted(rows_of_host.items()):
        last = max(row.time for row in host_rows)
        failed = [row.certificate.lineage for row in host_rows if row.has_failed]
        plural = "s" if len(host_rows) > 1 else ""
        result = f"failed: {' '.join(failed)}" if failed else "none failed"
        tried = f"{len(host_rows)} certificate{plural}"
        lines.append(f"{host}: dry run at {utc(last)}, {tried}, {result}")
    return lines
