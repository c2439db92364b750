"""The renewal board as a process and in a browser, and the fleet that real programs reported to it.

This is a plugin of pytest: conftest.py names it, so all tests have its fixtures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from certbot_renewal_report import Point
from support.buckets import Bucket
from support.points import as_lines, write
from support.servers import skip_or_fail
from tools import ROOT
from tools.demo_fleet import FLEET, Host, Lineage, report_fleet
from tools.servers.influxdb import InfluxDB
from tools.servers.processes import MissingServer, installed_program
from tools.servers.prometheus import VictoriaMetrics

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

BOARD = ROOT / "board" / "certbot_renewal_board.py"

# Names that attack a browser or a spreadsheet in which somebody reads the board.
SCRIPT_NAME = '<script>document.title="taken"</script>'
IMAGE_NAME = '"><img src=x onerror=alert(1)>'
STRANGE_HOST = Host(f"=cmd|{SCRIPT_NAME}", (Lineage(IMAGE_NAME, 5, (SCRIPT_NAME,), late=()),))

# The certificates of the fleet in each column; all others are in "renewed".
COLUMNS = {
    "overdue": {"example.net on web2", "old.example.net on web2"},
    "failing": {"intranet.example.net on web2", "mail.example.org on mail"},
    "due": {"lists.example.org on mail"},
    "retired": {"legacy.example.org on mail"},
}
RENEWED = 13

FleetSettings = Callable[[str], dict[str, str]]


@dataclass(frozen=True)
class BoardRun:
    """How the board ended, and what it printed."""

    status: int
    out: str
    err: str


def run_board(environ: dict[str, str], *arguments: str, board: Path = BOARD) -> BoardRun:
    """Run the board as cron does; it never prints a traceback, and an error is one line."""
    process = subprocess.run(
        [sys.executable, str(board), *arguments],
        env={**environ, "COLUMNS": "80"},
        capture_output=True,
        timeout=120,
    )
    run = BoardRun(process.returncode, process.stdout.decode(), process.stderr.decode())
    assert "Traceback" not in run.err
    errors = 1 if run.status == 2 else 0
    assert run.err.count("\n") == errors + run.err.count(": warning: ")
    return run


def board_json(environ: dict[str, str], *arguments: str, status: int = 1) -> dict[str, Any]:
    """Return what the board prints as JSON; it ends with this status, and prints no error."""
    run = run_board(environ, "--json", *arguments)
    assert (run.status, run.err) == (status, "")
    whole: dict[str, Any] = json.loads(run.out)
    return whole


def cards_by_name(whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the certificates in the board's JSON, by "lineage on host"."""
    return {f"{card['lineage']} on {card['host']}": card for card in whole["certificates"]}


def store(bucket: Bucket, *points: Point | str) -> None:
    """Write points into a bucket."""
    write(bucket.influxdb, bucket.name, *points)


def store_metrics(metrics: VictoriaMetrics, *points: Point | str) -> None:
    """Write points into VictoriaMetrics, and wait until queries find them."""
    metrics.store(*as_lines(points))


def visible_cards(page: Page, state: str) -> list[str]:
    """Return the cards that can be seen in a column, as "lineage on host"."""
    cards = page.locator(f".{state} .card:visible").all()
    return [
        f"{card.locator('h3').text_content()} on {card.get_attribute('data-host')}"
        for card in cards
    ]


@pytest.fixture
def one_bucket(server: Callable[[str], InfluxDB]) -> Bucket:
    """An empty bucket of InfluxDB 1.12: for what does not depend on the InfluxDB."""
    return Bucket(server("influxd-1.12"))


@pytest.fixture(scope="session")
def fleet_settings(
    server: Callable[[str], InfluxDB], tmp_path_factory: pytest.TempPathFactory
) -> FleetSettings:
    """Returns the settings with which to read the fleet from an InfluxDB, by its name."""
    settings: dict[str, dict[str, str]] = {}

    def get(name: str) -> dict[str, str]:
        if name not in settings:
            influxdb = server(name)
            bucket = influxdb.new_bucket()
            folder = tmp_path_factory.mktemp("fleet")
            report_fleet([*FLEET, STRANGE_HOST], folder, influxdb, bucket, int(time.time()))
            settings[name] = influxdb.settings(bucket)
        return settings[name]

    return get


@pytest.fixture(scope="session")
def board_file(fleet_settings: FleetSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the fleet."""
    path = tmp_path_factory.mktemp("board") / "index.html"
    run = run_board(fleet_settings("influxd-1.12"), "--html", str(path))
    assert run == BoardRun(1, "", "")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    from playwright.sync_api import sync_playwright  # most tests need no browser

    try:
        program = installed_program("chromium", "chromium")
    except MissingServer as error:
        skip_or_fail(error)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class PageOpener:
    """Opens pages in a browser, and keeps what the browser complains of, or fetches."""

    def __init__(self, browser: Browser, board_file: Path) -> None:
        """`board_file` is the page of the fleet."""
        self.browser = browser
        self.board_file = board_file
        self.pages: list[Page] = []
        self.complaints: list[str] = []

    def __call__(self, path: Path | None = None, fragment: str = "", **options: Any) -> Page:
        """Open the page of the fleet, or another file, and wait until its script is ready."""
        page = self.browser.new_page(**options)
        self.pages.append(page)
        page.on("console", self.note_message)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self.note_request)
        page.goto(f"file://{path or self.board_file}{fragment}")
        page.wait_for_selector("body[data-ready]", state="attached")
        return page

    def note_message(self, message: ConsoleMessage) -> None:
        """Keep what the browser prints on its console."""
        self.complaints.append(message.text)

    def note_request(self, request: Request) -> None:
        """Keep what is fetched from anywhere but the page itself."""
        if not request.url.startswith(("file:", "blob:")):
            self.complaints.append(request.url)


@pytest.fixture
def open_page(browser: Browser, board_file: Path) -> Iterator[PageOpener]:
    """Opens a page; at the end of the test, nothing was complained of, and nothing fetched."""
    opener = PageOpener(browser, board_file)
    yield opener
    for page in opener.pages:
        page.close()
    assert opener.complaints == []
