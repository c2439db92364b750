"""README and docs/board.md have what the programs have: settings, options, messages, queries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import certbot_renewal_board
from support.documents import (
    headings,
    literals,
    messages,
    options_of_help,
    section_of,
)
from tools import ROOT
from tools.servers.lineages import REPORT_HOOK

README = (ROOT / "README.md").read_text()
DELIVER = (ROOT / "docs" / "deliver.md").read_text()
BOARD = (ROOT / "docs" / "board.md").read_text()

ANY_VALUE = re.compile("…")


# ---- Messages ----------------------------------------------------------------------------------
def headings_without_message(
    page: str, programs: Sequence[Path], placeholder: re.Pattern[str]
) -> list[str]:
    """Return the messages in the headings of a page that no program has.

    `placeholder` matches what stands between the pieces that a program must have.
    """
    said = messages(*programs)
    unknown = []
    for literal in literals(headings(page)):
        pieces = [piece.strip(" :,") for piece in placeholder.split(literal)]
        if not all(piece in said for piece in pieces):
            unknown.append(literal)
    return unknown


def test_every_heading_of_the_deliver_page_is_a_message_of_the_deliver_hook() -> None:
    programs = [*sorted((ROOT / "deliver").rglob("*.py")), REPORT_HOOK]
    assert len(headings(DELIVER)) > 10
    assert headings_without_message(DELIVER, programs, ANY_VALUE) == []


def test_every_heading_of_the_board_page_is_a_message_of_the_board() -> None:
    programs = [*sorted((ROOT / "board").rglob("*.py")), REPORT_HOOK]
    assert len(headings(BOARD)) > 5
    assert headings_without_message(BOARD, programs, ANY_VALUE) == []


# ---- Options -----------------------------------------------------------------------------------
def test_the_board_page_has_the_options_of_the_board() -> None:
    rows = re.findall(r"(?m)^\| .*", section_of(BOARD, "Options"))
    documented = set(re.findall(r"`(--[a-z-]+)", " ".join(rows)))
    assert documented == options_of_help(certbot_renewal_board.command_line().format_help())


# ---- Files -------------------------------------------------------------------------------------


def test_the_package_has_both_programs() -> None:
    package = (ROOT / "pyproject.toml").read_text()
    assert 'py-modules = ["certbot_renewal_report", "certbot_renewal_run"]' in package
