"""The board as a table in a terminal, and below it the problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from renewal_board.model import DAY, Card, Fleet
from renewal_board.texts import utc

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"overdue": "bold red", "failing": "red", "due": "yellow", "retired": "dim"}
WIDTH = 160  # columns where the output is no terminal


def print_table(fleet: Fleet, out: TextIO) -> None:
    """Print the table; raise ModuleNotFoundError if rich is missing."""
    from rich.console import Console
    from rich.text import Text

    width = None if out.isatty() else WIDTH
    console = Console(file=out, width=width, highlight=False, markup=False, soft_wrap=True)
    console.print(certificates_table(fleet), soft_wrap=False)

    for host in fleet.hosts:
        console.print(Text(f"{host.host}: {host.problem}", "red"))
    for card in fleet.cards:
        card_notes = notes(card)
        if card_notes:
            line = f"{card.lineage} on {card.host}: {'; '.join(card_notes)}"
            console.print(Text(line, COLOURS.get(card.state, "")))
    for line in fleet.dry_runs:
        console.print(Text(line))
    if fleet.notice:
        console.print(Text(fleet.notice))
    console.print(", ".join(f"{count} {state}" for state, count in fleet.counts.items()))


def certificates_table(fleet: Fleet) -> Table:
    """Return the table: a row for each certificate, in the colour of its state."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("state")
    table.add_column("certificate", overflow="fold")
    table.add_column("host", overflow="fold")
    table.add_column("age")
    table.add_column("due")
    table.add_column("expires")
    for card in fleet.cards:
        cells = [
            card.state,
            f"{card.lineage} (staging)" if card.staging else card.lineage,
            card.host,
            f"{(fleet.made - card.not_before) // DAY} d" if card.not_before else "",
            date_of(card.due),
            date_of(card.expiry),
        ]
        table.add_row(*map(Text, cells), style=COLOURS.get(card.state))
    return table


def date_of(moment: int) -> str:
    """Return the date of a time, 2026-03-01, "" for 0: not known."""
    return utc(moment)[:10]


def notes(card: Card) -> list[str]:
    """Return the problems of a certificate, in words."""
    parts = []
    if card.state == "overdue":
        parts.append(f"overdue by {card.days_overdue:.1f} days")
    if card.state != "retired" and card.days_left < 0:
        parts.append("expired")
    parts += card.problems
    if card.reason:
        parts.append(f"reason: {card.reason}")
    if card.has_failed_dry_run():
        parts.append(f"dry run at {utc(card.dry_run)} failed: {card.dry_run_error}")
    return parts
