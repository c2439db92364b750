"""README and docs/board.md have what the programs have: settings, options, messages, queries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import certbot_renewal_board
import certbot_renewal_report as hook
from support.documents import (
    headings,
    literals,
    messages,
    options_of_help,
    rows_of,
    section_of,
)
from tools import ROOT
from tools.servers.lineages import DAY, REPORT_HOOK

README = (ROOT / "README.md").read_text()
DELIVER = (ROOT / "docs" / "deliver.md").read_text()
BOARD = (ROOT / "docs" / "board.md").read_text()

ANY_VALUE = re.compile("…")


# ---- Settings and points -----------------------------------------------------------------------
def test_the_line_protocol_in_the_readme_is_what_the_hook_writes() -> None:
    begin = 1_790_000_000
    end = begin + 90 * DAY
    due_date = hook.due_date(begin, end)
    certificate = hook.Certificate("example.com", ["example.com"], begin, end, due_date)
    settings = hook.Settings("", 2, "", "", "", 10, "certbot_renewal", "web1", {})
    points = hook.renewal_points(settings, certificate)
    points.append(hook.state_point(settings, certificate, 0, begin + 100))
    lines = "\n".join(hook.line_protocol(point) for point in points)
    assert f"```\n{lines}\n```" in README.partition("\n## ")[0]


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
def test_the_readme_lists_the_variables_of_the_scripts() -> None:
    defaults = {}
    for name in (
        "renewal_overdue",
        "renewal_failing",
        "host_silent",
        "certificate_not_delivered",
        "certificate_not_served",
    ):
        script = (ROOT / "kapacitor" / "templates" / f"{name}.tick").read_text()
        for variable, value in re.findall(r"(?m)^var (\w+) = (.*)$", script):
            defaults[variable] = value.strip("'")
    documented = {}
    for variable, default, _ in rows_of(README, "Alerts", "| var | default | meaning |"):
        documented[variable] = default.replace("empty", "")
    assert documented == defaults


def test_the_readme_lists_the_queries() -> None:
    queries = {row[0] for row in rows_of(README, "Queries", "| query | shows |")}
    assert queries == {path.name for path in (ROOT / "flux").iterdir()}


def test_every_file_that_the_manual_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    folders = "systemd|compose|flux|kapacitor|telegraf"
    for path in re.findall(rf"`((?:{folders})/[\w./]*)`", README + DELIVER):
        assert (ROOT / path).exists(), path


def test_the_makefile_has_every_target_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)(?:^|`)make ([a-z]+)", README):
        assert f"\n{target}:" in makefile


def test_the_package_has_both_programs() -> None:
    package = (ROOT / "pyproject.toml").read_text()
    assert 'py-modules = ["certbot_renewal_report", "certbot_renewal_run"]' in package
