"""README and docs/board.md have what the programs have: settings, options, messages, queries."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
from support.hooks import Ran
from tools import ROOT
from tools.servers.lineages import DAY, REPORT_HOOK, RUN_REPORT

README = (ROOT / "README.md").read_text()
DELIVER = (ROOT / "docs" / "deliver.md").read_text()
BOARD = (ROOT / "docs" / "board.md").read_text()

ANY_VALUE = re.compile("…")

# What servers, libraries and the system say, and what stands for any value.
FOREIGN = re.compile(
    r"""
    … | Connection[ ]refused | certificate[ ]verify[ ]failed | 404[ ]page[ ]not[ ]found
    | retention[ ]policy[ ]not[ ]found | \b \d\d\d \b | [45]… | wrong | empty
    """,
    re.VERBOSE,
)


# ---- Settings and points -----------------------------------------------------------------------
def test_the_readme_lists_the_settings_as_the_code_has_them() -> None:
    documented = {}
    for name, default, meaning in rows_of(README, "Settings", "| setting | default | meaning |"):
        documented[name] = (default.replace("empty", ""), meaning)
    settings = {}
    for name, setting in hook.SETTINGS.items():
        settings[name] = (setting.default, setting.meaning)
    assert documented == settings


def test_the_readme_names_the_variables_that_requests_reads() -> None:
    for name in hook.FORWARDED_VARIABLES:
        assert f"`{name}`" in README


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


def test_every_heading_of_the_troubleshooting_is_a_message_of_a_program() -> None:
    assert len(headings(README)) > 20
    assert headings_without_message(README, [REPORT_HOOK, RUN_REPORT], FOREIGN) == []


def test_every_heading_of_the_deliver_page_is_a_message_of_the_deliver_hook() -> None:
    programs = [*sorted((ROOT / "deliver").rglob("*.py")), REPORT_HOOK]
    assert len(headings(DELIVER)) > 10
    assert headings_without_message(DELIVER, programs, ANY_VALUE) == []


def test_every_heading_of_the_board_page_is_a_message_of_the_board() -> None:
    programs = [*sorted((ROOT / "board").rglob("*.py")), REPORT_HOOK]
    assert len(headings(BOARD)) > 5
    assert headings_without_message(BOARD, programs, ANY_VALUE) == []


def test_every_remedy_is_in_the_troubleshooting() -> None:
    troubleshooting = section_of(README, "Troubleshooting")
    for remedy in hook.REMEDIES:
        for part in re.split(r"\{\w+\}(?: \(.*?\))?", remedy.text):
            assert part.strip() in troubleshooting, remedy.text


# ---- Options -----------------------------------------------------------------------------------
def documented_options(program: str) -> set[str]:
    """Return the options in the rows of the README's table of commands about a program.

    A row that names no program is about all of them.
    """
    options: set[str] = set()
    for command, *_ in rows_of(README, "What it does", "| command | does |"):
        if program in command or ".py" not in command:
            options.update(re.findall(r"--[a-z-]+", command))
    return options


def test_the_readme_has_the_options_of_the_report_hook(report_hook: Callable[..., Ran]) -> None:
    options = options_of_help(report_hook("--help").out)
    assert options == {"--help", "--version", "--config-dir", "--check", "--dry-run"}
    assert documented_options("certbot_renewal_report.py") == options


def test_the_readme_has_the_options_of_the_run_report(run_report: Callable[..., Ran]) -> None:
    options = options_of_help(run_report("--help").out)
    assert options == {
        "--help",
        "--version",
        "--config-dir",
        "--check",
        "--dry-run",
        "--all",
        "--history",
        "--patience",
        "--stdout",
        "--retire",
        "--host",
        "--after-dry-run",
    }
    assert documented_options("certbot_renewal_run.py") == options


def test_the_board_page_has_the_options_of_the_board() -> None:
    rows = re.findall(r"(?m)^\| .*", section_of(BOARD, "Options"))
    documented = set(re.findall(r"`(--[a-z-]+)", " ".join(rows)))
    assert documented == options_of_help(certbot_renewal_board.command_line().format_help())


# ---- Files -------------------------------------------------------------------------------------


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
