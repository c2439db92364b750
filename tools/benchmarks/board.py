#!/usr/bin/env python3
"""What the renewal board costs with 2,000 certificates on 100 hosts, 60 days of two reports a day and six renewals each: seconds to make
it out of each InfluxDB, beside its slowest query alone, and out of VictoriaMetrics, which has each renewal as often as it was reported;
then in Chromium the milliseconds until it is ready, and for a filter and a sort.

Start it with: make bench
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tools import ROOT
from tools.benchmarks.fleet import Fleet, load, seconds
from tools.servers.influxdb import start_influxdb
from tools.servers.processes import installed_program
from tools.servers.prometheus import start_victoria_metrics

FLEET = Fleet(2000, 100)
RUNS = 5
# From an input until the browser has laid the page out and may draw it: the next frame but one.
STEP = """([id, value]) => new Promise((done) => {
    const begin = performance.now();
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    const worked = performance.now() - begin;
    requestAnimationFrame(() => requestAnimationFrame(() => done([worked, performance.now() - begin])));
})"""


def make(name: str, folder: Path) -> Path:
    """Makes the board out of an InfluxDB, and prints how long that took."""
    with start_influxdb(name, folder / name, config="max-body-size = 0") as influxdb:
        bucket, now, path = influxdb.new_bucket(), int(time.time()), folder / f"{name}.html"
        load(influxdb, bucket, FLEET.renewals(now, 6))
        for report in (FLEET.states, FLEET.runs):
            load(influxdb, bucket, report(now, 60, 0))
        history = seconds(influxdb, bucket, (ROOT / "flux" / "history.flux").read_text(), 3)
        took = run(path, influxdb.settings(bucket))
        print(
            f"{name:13} {took:8.1f} {history:9.1f} {took / history:7.2f} {path.stat().st_size / 1e6:8.1f}",
            flush=True,
        )
        return path


def run(path: Path, environ: dict[str, str], *arguments: str) -> float:
    """Makes the board into a file, in so many seconds."""
    begin = time.perf_counter()
    program = ROOT / "board" / "certbot_renewal_board.py"
    done = subprocess.run(
        [sys.executable, str(program), "--html", str(path), *arguments], env=environ, timeout=600
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the board ended with status {done.returncode}")
    return time.perf_counter() - begin


def make_of_victoria_metrics(folder: Path) -> None:
    """Makes the board out of VictoriaMetrics, and prints how long that took."""
    with start_victoria_metrics(folder / "victoria") as metrics:
        now, path = int(time.time()), folder / "victoria.html"
        renewals = list(FLEET.renewals(now, 6))
        for _ in range(120):
            load(metrics, "", iter(renewals))
        for report in (FLEET.states, FLEET.runs):
            load(metrics, "", report(now, 60, 0))
        metrics.flush()
        took = run(path, metrics.settings(), "--source", "prometheus")
        print(f"{'victoria':13} {took:8.1f} {'':17} {path.stat().st_size / 1e6:8.1f}", flush=True)


def steps(page: Page, field: str, values: list[str]) -> tuple[float, float]:
    """The median milliseconds of inputs into a field: of the work, and until it is drawn."""
    took = [page.evaluate(STEP, [field, value]) for value in values]
    return statistics.median(it[0] for it in took), statistics.median(it[1] for it in took)


def look(path: Path) -> None:
    """Prints what a browser needs for the board."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=installed_program("chromium", "chromium"), args=["--no-sandbox"]
        )
        ready = []
        for _ in range(RUNS):
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(f"file://{path}")
            ready.append(
                page.evaluate(
                    "performance.timing.loadEventEnd - performance.timing.navigationStart"
                )
            )
            if page.get_attribute("body", "data-ready") is None:
                raise RuntimeError("loaded, and not ready")
            filtered = steps(page, "q", ["c1", "c12", "c1234", "", "host7", "nothing at all", ""])
            sorts = steps(page, "sort", ["name", "expiry", "host", ""])
            page.close()
        print(f"ready {statistics.median(ready):.0f}", end=", ")
        print(
            f"filter {filtered[0]:.0f}, drawn after {filtered[1]:.0f}; sort {sorts[0]:.0f}, drawn after {sorts[1]:.0f} (ms)"
        )
        browser.close()


def main() -> int:
    """Prints a line for each InfluxDB, and one for the browser."""
    print("influxdb         board   history   ratio       MB")
    with tempfile.TemporaryDirectory(prefix="certbot-renewal-report-bench-") as folder:
        for name in ("influxd-1.8", "influxd-1.12", "influxd-2"):
            path = make(name, Path(folder))
        make_of_victoria_metrics(Path(folder))
        look(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
