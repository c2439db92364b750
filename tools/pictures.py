#!/usr/bin/env python3
"""Makes the README's pictures of the renewal board, docs/board.png and docs/board-phone.png: a small fleet that the hook reports to a real
InfluxDB, and Debian's Chromium. Start it with: make pictures
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from tools import ROOT, demo_fleet
from tools.servers.influxdb import start_influxdb
from tools.servers.processes import installed_program

BUCKET = "telegraf"
PICTURES = {  # name: width, height, colours
    "board": (1280, 1000, "light"),
    "board-phone": (390, 844, "dark"),
}


def main() -> int:
    """Writes the pictures."""
    with tempfile.TemporaryDirectory(prefix="certbot-renewal-report-pictures-") as name:
        folder, page_file = Path(name), Path(name) / "board.html"
        with start_influxdb("influxd-1.8", folder / "influxdb") as influxdb:
            influxdb.command(f'CREATE DATABASE "{BUCKET}"')
            demo_fleet.report(
                demo_fleet.FLEET, folder / "hosts", influxdb, BUCKET, int(time.time())
            )
            program = ROOT / "board" / "certbot_renewal_board.py"
            subprocess.run(
                [sys.executable, str(program), "--html", str(page_file)],
                env=influxdb.settings(BUCKET),
                timeout=120,
            )
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=installed_program("chromium", "chromium"), args=["--no-sandbox"]
            )
            for picture, (width, height, colours) in PICTURES.items():
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme="dark" if colours == "dark" else "light",
                )
                page.goto(f"file://{page_file}")
                page.wait_for_selector("body[data-ready]")
                page.screenshot(path=ROOT / "docs" / f"{picture}.png")
                print(f"docs/{picture}.png")
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
