#!/usr/bin/env python3
"""Measures the renewal board with 2,000 certificates on 100 hosts.

There are 60 days of two reports a day, and six renewals of each certificate. It prints how many
seconds the board takes to make a page out of each InfluxDB, beside its slowest query alone, and
out of VictoriaMetrics, which stores each renewal as often as it was reported. Then it prints how
many milliseconds Chromium takes until the page is ready, for a filter, and for a sort.

Start it with: make bench
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

from tools import ROOT
from tools.benchmarks.fleet import Fleet, load, seconds
from tools.servers.influxdb import start_influxdb
from tools.servers.processes import installed_program
from tools.servers.prometheus import start_victoria_metrics

BOARD = ROOT / "board" / "certbot_renewal_board.py"
FLEET = Fleet(2000, 100)
RENEWALS = 6  # of each certificate
DAYS = 60  # of reports
REPORTS = 2 * DAYS
PAGE_LOADS = 5
FILTERS = ["c1", "c12", "c1234", "", "host7", "nothing at all", ""]
SORTS = ["name", "expiry", "host", ""]

# From an input until the browser has laid the page out and may draw it: the next frame but one.
TIME_INPUT = """([id, value]) => new Promise((resolve) => {
    const begin = performance.now();
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    const worked = performance.now() - begin;
    const drawn = () => resolve([worked, performance.now() - begin]);
    requestAnimationFrame(() => requestAnimationFrame(drawn));
})"""
TIME_LOAD = "performance.timing.loadEventEnd - performance.timing.navigationStart"


class InputTimes(NamedTuple):
    """Milliseconds after an input: until the work ends, and until the page is drawn."""

    work: float
    drawn: float


def make_page(page: Path, environ: dict[str, str], *arguments: str) -> float:
    """Make the board into a file; return how many seconds that took."""
    begin = time.perf_counter()
    board = subprocess.run(
        [sys.executable, str(BOARD), "--html", str(page), *arguments], env=environ, timeout=600
    )
    if board.returncode not in (0, 1):
        raise RuntimeError(f"the board ended with status {board.returncode}")
    return time.perf_counter() - begin


def megabytes(page: Path) -> float:
    """Return the size of a file in MB."""
    return page.stat().st_size / 1e6


def measure_influxdb(name: str, folder: Path) -> Path:
    """Print how long the board takes out of an InfluxDB; return the page."""
    page = folder / f"{name}.html"
    now = int(time.time())
    with start_influxdb(name, folder / name, config="max-body-size = 0") as influxdb:
        bucket = influxdb.new_bucket()
        load(influxdb, bucket, FLEET.renewals(now, RENEWALS))
        load(influxdb, bucket, FLEET.states(now, DAYS, 0))
        load(influxdb, bucket, FLEET.runs(now, DAYS, 0))

        query = (ROOT / "flux" / "history.flux").read_text()
        query_seconds = seconds(influxdb, bucket, query, 3)
        board_seconds = make_page(page, influxdb.settings(bucket))
    ratio = board_seconds / query_seconds
    print(
        f"{name:13} {board_seconds:8.1f} {query_seconds:9.1f} {ratio:7.2f} {megabytes(page):8.1f}",
        flush=True,
    )
    return page


def measure_victoria_metrics(folder: Path) -> None:
    """Print how long the board takes out of VictoriaMetrics."""
    page = folder / "victoria.html"
    now = int(time.time())
    with start_victoria_metrics(folder / "victoria") as metrics:
        renewals = list(FLEET.renewals(now, RENEWALS))
        for _ in range(REPORTS):
            load(metrics, "", iter(renewals))
        load(metrics, "", FLEET.states(now, DAYS, 0))
        load(metrics, "", FLEET.runs(now, DAYS, 0))
        metrics.flush()
        board_seconds = make_page(page, metrics.settings(), "--source", "prometheus")
    print(f"{'victoria':13} {board_seconds:8.1f} {'':17} {megabytes(page):8.1f}", flush=True)


def measure_inputs(page: Page, field: str, values: Sequence[str]) -> InputTimes:
    """Return the medians of the times for inputs into a field."""
    times = [InputTimes(*page.evaluate(TIME_INPUT, [field, value])) for value in values]
    return InputTimes(
        statistics.median(one.work for one in times),
        statistics.median(one.drawn for one in times),
    )


def measure_browser(browser: Browser, page_file: Path) -> None:
    """Print how long the browser takes for the board."""
    load_times = []
    for _ in range(PAGE_LOADS):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"file://{page_file}")
        load_times.append(page.evaluate(TIME_LOAD))
        if page.get_attribute("body", "data-ready") is None:
            raise RuntimeError("loaded, and not ready")
        filtered = measure_inputs(page, "q", FILTERS)
        sort = measure_inputs(page, "sort", SORTS)
        page.close()
    print(
        f"ready {statistics.median(load_times):.0f}, "
        f"filter {filtered.work:.0f}, drawn after {filtered.drawn:.0f}; "
        f"sort {sort.work:.0f}, drawn after {sort.drawn:.0f} (ms)"
    )


def main() -> int:
    """Print a line for each server, and one for the browser."""
    print("influxdb         board   history   ratio       MB")
    with tempfile.TemporaryDirectory(prefix="certbot-renewal-report-bench-") as name:
        folder = Path(name)
        measure_influxdb("influxd-1.8", folder)
        measure_influxdb("influxd-1.12", folder)
        page_file = measure_influxdb("influxd-2", folder)
        measure_victoria_metrics(folder)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=installed_program("chromium", "chromium"), args=["--no-sandbox"]
            )
            measure_browser(browser, page_file)
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
