#!/usr/bin/env python3
"""Makes the pictures of the renewal board: docs/board.png and docs/board-phone.png.

The demo fleet is reported to a real InfluxDB, and Debian's Chromium shows the board. Start it with:
make pictures
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Browser, sync_playwright

from tools import ROOT
from tools.demo_fleet import FLEET, report_fleet
from tools.servers.influxdb import start_influxdb
from tools.servers.processes import installed_program

BUCKET = "telegraf"
BOARD = ROOT / "board" / "certbot_renewal_board.py"


class Picture(NamedTuple):
    """A picture in docs/: its file, the size of the window in pixels, and the colours."""

    file_name: str
    width: int
    height: int
    color_scheme: Literal["light", "dark"]


PICTURES = (
    Picture("board.png", 1280, 1000, "light"),
    Picture("board-phone.png", 390, 844, "dark"),
)


def make_page(folder: Path) -> Path:
    """Report the demo fleet to an InfluxDB, and return the page that the board makes of it."""
    page = folder / "board.html"
    with start_influxdb("influxd-1.8", folder / "influxdb") as influxdb:
        influxdb.command(f'CREATE DATABASE "{BUCKET}"')
        report_fleet(FLEET, folder / "hosts", influxdb, BUCKET, int(time.time()))
        subprocess.run(
            [sys.executable, str(BOARD), "--html", str(page)],
            env=influxdb.settings(BUCKET),
            timeout=120,
        )
    return page


def take_picture(browser: Browser, page_file: Path, picture: Picture) -> None:
    """Write a picture of the page into docs/."""
    page = browser.new_page(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme=picture.color_scheme,
    )
    page.goto(f"file://{page_file}")
    page.wait_for_selector("body[data-ready]")
    page.screenshot(path=ROOT / "docs" / picture.file_name)
    print(f"docs/{picture.file_name}")


def main() -> int:
    """Make all pictures."""
    with tempfile.TemporaryDirectory(prefix="certbot-renewal-report-pictures-") as folder:
        page_file = make_page(Path(folder))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=installed_program("chromium", "chromium"), args=["--no-sandbox"]
            )
            for picture in PICTURES:
                take_picture(browser, page_file, picture)
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
