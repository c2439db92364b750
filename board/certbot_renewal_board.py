#!/usr/bin/env python3
"""Shows all certificates of all hosts: on an HTML page, in a table, as CSV or as JSON.

It reads InfluxDB with the queries of flux/, or VictoriaMetrics or Prometheus, so it shows what the
alerts use. It needs requests, Jinja2 and rich, its whole folder, and beside that folder the folder
flux/ and certbot_renewal_report.py. It has the same settings as certbot_renewal_report.py.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

try:
    from renewal_board import NAME, __version__
except ModuleNotFoundError:
    remedy = "copy the whole folder board/"
    print(f"certbot_renewal_board: the folder renewal_board is missing: {remedy}", file=sys.stderr)
    sys.exit(2)
from renewal_board.commands import CHECK_REPORT
from renewal_board.exports import csv_text, json_text, runs_csv_text
from renewal_board.fleet import read_fleet
from renewal_board.influxdb import InfluxDB
from renewal_board.model import DAY, Fleet, Thresholds
from renewal_board.page import is_page_with_certificates, page_html, write_page
from renewal_board.prometheus import Prometheus
from renewal_board.report_hook import hook
from renewal_board.reports import RunRow, Source
from renewal_board.table import print_table
from renewal_board.texts import plain

ENV_FILE = Path(__file__).resolve().parent / f"{NAME}.env"
# For a query, if INFLUXDB_TIMEOUT is not set: its default of ten seconds is meant for a write.
QUERY_SECONDS = 120.0
UNIT_SECONDS = {"m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}

# Matches: 400d, 12h, 90m
SPAN = re.compile(r"(?P<amount>\d{1,6})(?P<unit>[mhdw])")

# Matches: 1, 0.5
DAYS = re.compile(r"\d{1,4}(\.\d{1,6})?")

SOURCES: dict[str, Callable[[hook.Settings], Source]] = {
    "influxdb": InfluxDB,
    "prometheus": Prometheus,
}


# ---- Command line ------------------------------------------------------------------------------
class Options(NamedTuple):
    """What the command line asks for; `since` and `max_age` are in seconds.

    `html` is the file for the page, None if there is to be none. `csv` is what to print as CSV:
    "renewals", "runs", or "" for nothing.
    """

    html: Path | None
    csv: str
    json: bool
    since: int
    max_age: int
    thresholds: Thresholds
    source: str
    env: Path


def parse_span(text: str) -> int:
    """Return a span of time such as 400d, 12h or 90m in seconds."""
    match = SPAN.fullmatch(text)
    if match is None or not int(match["amount"]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time span such as 400d, 12h or 90m")
    return int(match["amount"]) * UNIT_SECONDS[match["unit"]]


def parse_days(text: str) -> float:
    """Return a number of days."""
    if not DAYS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days such as 1 or 0.5")
    return float(text)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        f"{NAME}.py",
        description=(__doc__ or "").partition("\n")[0],
        epilog="The settings are those of certbot_renewal_report.py (INFLUXDB_URL and so on). They "
        f"come from {NAME}.env beside this file, or from the environment. Exit status: 0: no "
        "certificate is overdue and no host is silent. 1: a certificate is overdue or a host is "
        "silent. 2: the board could not be made, or the usage is wrong.",
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the HTML page to FILE")
    text = parser.add_mutually_exclusive_group()
    text.add_argument(
        "--csv",
        nargs="?",
        choices=("renewals", "runs"),
        const="renewals",
        default="",
        help="print the renewals as CSV (the default), or the runs of certbot: a row for each run "
        "and certificate, with the result and its reason",
    )
    text.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--since",
        metavar="SPAN",
        type=parse_span,
        default="400d",
        help="show renewals, or runs, of this time span: 400d, 12h (default 400d)",
    )
    parser.add_argument(
        "--max-age",
        metavar="SPAN",
        type=parse_span,
        default="1h",
        help="age at which the page warns that it is old (default 1h)",
    )
    add_thresholds(parser)
    parser.add_argument(
        "--source",
        choices=SOURCES,
        default="influxdb",
        help="kind of server at INFLUXDB_URL: influxdb, or prometheus for VictoriaMetrics and "
        "Prometheus (default influxdb)",
    )
    parser.add_argument(
        "--env", metavar="FILE", type=Path, default=ENV_FILE, help="file with the settings"
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    return parser


def add_thresholds(parser: argparse.ArgumentParser) -> None:
    """Add the options that are thresholds of the alerts."""
    meanings = {
        "crit": "days after the due date from which a certificate is overdue (default 1.0)",
        "silence": "days without a run report after which a host is silent (default 2.0)",
        "grace": "days in which a renewed certificate must be delivered and served (default 1.0)",
    }
    for name, meaning in meanings.items():
        default = getattr(Thresholds, name)
        parser.add_argument(
            f"--{name}", metavar="DAYS", type=parse_days, default=default, help=meaning
        )


def read_options(arguments: Sequence[str]) -> Options:
    """Parse the command line; wrong usage raises SystemExit with status 2, as argparse does."""
    parser = command_line()
    parsed = parser.parse_args(arguments)
    if parsed.csv == "runs" and parsed.source == "prometheus":
        parser.error("--csv runs needs InfluxDB: VictoriaMetrics and Prometheus store no text")
    return Options(
        html=parsed.html,
        csv=parsed.csv,
        json=parsed.json,
        since=parsed.since,
        max_age=parsed.max_age,
        thresholds=Thresholds(parsed.crit, parsed.silence, parsed.grace),
        source=parsed.source,
        env=parsed.env,
    )


# ---- What the program does ---------------------------------------------------------------------
def read_settings(environ: hook.Environ, env_file: Path) -> hook.Settings:
    """Return the settings; print a warning if everybody may read a token. Raise a ReportError."""
    if env_file != ENV_FILE and not env_file.is_file():
        raise hook.ReportError(f"{env_file}: no such file: correct --env")
    settings = hook.read_settings(environ, str(env_file.parent), hook.__file__, env_file.name)
    for warning in hook.secret_warnings(settings):
        print(f"{NAME}: warning: {plain(warning)}", file=sys.stderr)

    if settings.sources["INFLUXDB_TIMEOUT"].is_default:
        return settings._replace(timeout=QUERY_SECONDS)
    return settings


def make_board(options: Options, environ: hook.Environ, out: TextIO) -> Fleet:
    """Write and print what the command line asks for; return what the board shows.

    Raise a ReportError, or ModuleNotFoundError if a library is missing.
    """
    settings = read_settings(environ, options.env)
    source = SOURCES[options.source](settings)
    runs: list[RunRow] = []
    try:
        fleet = read_fleet(source, options.since, options.thresholds)
        if options.csv == "runs":
            runs = source.runs(options.since)
    except (KeyError, ValueError, OverflowError, csv.Error) as error:
        raise hook.ReportError(
            f"{settings.url} sent an unexpected answer ({error}): "
            "correct INFLUXDB_URL, INFLUXDB_BUCKET or MEASUREMENT"
        ) from None

    if options.html and (fleet.cards or not is_page_with_certificates(options.html)):
        html = page_html(fleet, source, settings.measurement, options.max_age)
        write_page(options.html, html)
    if not fleet.cards:
        raise hook.ReportError(
            f"no certificate was reported to {source.place} yet: "
            f"run {CHECK_REPORT} on each host, or correct {source.settings_to_correct}"
        )
    print_board(options, fleet, runs, out)
    return fleet


def print_board(options: Options, fleet: Fleet, runs: Sequence[RunRow], out: TextIO) -> None:
    """Print the board as the command line asks for it; raise a ReportError."""
    try:
        if options.csv == "runs":
            out.write(runs_csv_text(runs))
        elif options.csv:
            out.write(csv_text(fleet.renewals))
        elif options.json:
            out.write(json_text(fleet))
        elif not options.html:
            print_table(fleet, out)
        out.flush()
    except BrokenPipeError:
        # The reader has seen enough. Without this, the interpreter complains when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    except OSError as error:
        raise hook.ReportError(f"stdout: {error.strerror}") from None


def main(arguments: Sequence[str], environ: hook.Environ, out: TextIO) -> int:
    """Run the program.

    Return 0; 1: a certificate is overdue or a host silent; 2: the board could not be made.
    """
    options = read_options(arguments)
    try:
        fleet = make_board(options, environ, out)
    except ModuleNotFoundError as error:
        library = error.name
        return fail(
            f"no {library} for {sys.executable}: "
            f"apt-get install python3-{library}, or pip install {library}"
        )
    except hook.ReportError as error:
        return fail(str(error))
    return 1 if fleet.needs_attention() else 0


def fail(problem: str) -> int:
    """Print in one line on stderr why the board could not be made; return the exit status."""
    print(f"{NAME}: {plain(problem)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C needs no traceback
    if sys.stdout is None:
        sys.exit(fail("stdout: closed"))
    # Where the locale is not UTF-8, a name may hold what it cannot encode.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:], os.environ, sys.stdout))
