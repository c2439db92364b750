"""The board as CSV and as JSON, for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from renewal_board.model import Card, Fleet, Renewal
from renewal_board.reports import RunRow
from renewal_board.texts import iso

CSV_HEADER = ["time", "host", "lineage", "names", "lifetime_days", "next_due", "days_late"]
RUNS_HEADER = [
    "time",
    "host",
    "started",
    "ended",
    "mode",
    "exit_status",
    "certbot",
    "hook",
    "failure",
    "lineage",
    "result",
    "reason",
]
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def csv_rows(renewals: Sequence[Renewal]) -> list[list[str]]:
    """Return the history for a spreadsheet, a row for each renewal."""
    return [
        [
            iso(renewal.time),
            no_formula(renewal.host),
            no_formula(renewal.lineage),
            no_formula(" ".join(renewal.names)),
            two_decimals(renewal.lifetime_days),
            iso(renewal.next_due),
            two_decimals(renewal.days_late),
        ]
        for renewal in renewals
    ]


def no_formula(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text


def two_decimals(number: float | None) -> str:
    """Return a number with two decimals, "" for None. There is no -0.00."""
    return "" if number is None else f"{round(number, 2) + 0:.2f}"


def csv_text(renewals: Sequence[Renewal]) -> str:
    """Return the history as CSV (RFC 4180)."""
    return as_csv([CSV_HEADER, *csv_rows(renewals)])


def as_csv(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV (RFC 4180)."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue()


def runs_csv_text(runs: Sequence[RunRow]) -> str:
    """Return the runs of certbot as CSV: a row for each lineage of a run, at least one a run."""
    rows = [RUNS_HEADER]
    for run in runs:
        of_run = cells_of_run(run)
        of_lineages = cells_of_lineages(run) or [["", "", ""]]
        rows += [[*of_run, *of_lineage] for of_lineage in of_lineages]
    return as_csv(rows)


def cells_of_run(run: RunRow) -> list[str]:
    """Return the cells about a whole run of certbot.

    Without certbot's log, mode, start and end are not known. The query then has the time of the
    report as start and end.
    """
    is_known = run.mode != ""
    return [
        iso(run.time),
        no_formula(run.host),
        iso(run.started if is_known else None),
        iso(run.ended if is_known else None),
        no_formula(run.mode),
        str(run.exit_status) if run.exit_status >= 0 else "",
        no_formula(run.certbot),
        no_formula(run.hook),
        no_formula(run.failure),
    ]


def cells_of_lineages(run: RunRow) -> list[list[str]]:
    """Return the cells about each lineage of a run: its name, its result, and the reason.

    The last lineage of a result is "..." if the point could not hold all of them.
    """
    lineages_of_results = {
        "failed": run.failed,
        "unreadable": run.unreadable,
        "renewed": run.renewed,
        "not due": run.not_due,
        "not processed": run.not_processed,
    }
    cells = []
    for result, lineages in lineages_of_results.items():
        for lineage in lineages:
            reason = run.failures.get(lineage, "")
            cells.append([no_formula(lineage), result, no_formula(reason)])
    return cells


def json_text(fleet: Fleet) -> str:
    """Return the board as JSON; times are Unix seconds.

    The cards are named "certificates", and have only the times of their renewals. The lines about
    dry runs are left out: each certificate has its own last dry run.
    """
    whole = {
        "made": fleet.made,
        "since": fleet.since,
        "counts": fleet.counts,
        "certificates": [card_as_json(card) for card in fleet.cards],
        "notice": fleet.notice,
        "hosts": [asdict(host) for host in fleet.hosts],
        "renewals": [asdict(renewal) for renewal in fleet.renewals],
    }
    return json.dumps(whole, indent=1) + "\n"


def card_as_json(card: Card) -> dict[str, Any]:
    """Return a certificate, with the times of its renewals; all else of them is in "renewals"."""
    return {**asdict(card), "renewals": [renewal.time for renewal in card.renewals]}
