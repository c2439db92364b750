"""A source of reports: InfluxDB, asked with the queries of flux/."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime, timezone

from renewal_board import reports
from renewal_board.report_hook import ROOT, hook
from renewal_board.reports import LONGEST_LIFE_DAYS, CertificateKey
from renewal_board.server import Server
from renewal_board.texts import plain

FLUX = ROOT / "flux"

# What to do about an answer that is no result: the first that matches. InfluxDB 1.8, 1.12, 2.9.
REMEDIES = (
    hook.Remedy(r"orgID or org|organization name", "set INFLUXDB_ORG to the organization's name"),
    hook.Remedy(
        r"^401",
        "set INFLUXDB_TOKEN to a token that can read {bucket}, or to user:password on 1.x",
    ),
    hook.Remedy(
        r"flux-enabled|[Ff]lux query service disabled",
        "set flux-enabled = true in [http] of InfluxDB's configuration",
    ),
    hook.Remedy(r"unsupported path", "this is VictoriaMetrics: add --source prometheus"),
    hook.Remedy(
        r"^403|requires READ",
        "allow the token or the user in INFLUXDB_TOKEN to read {bucket}",
    ),
    hook.Remedy(r"^3", "this is a redirect: set INFLUXDB_URL to the address of InfluxDB"),
    hook.Remedy(r"^2", "this is not InfluxDB: correct INFLUXDB_URL"),
    hook.Remedy(r"retention policy", "correct the part after the slash in INFLUXDB_BUCKET"),
    hook.Remedy(
        r"could not find bucket|no database",
        "correct INFLUXDB_BUCKET, or allow the token to read this bucket",
    ),
    hook.Remedy(
        r"^40[45]",
        "set INFLUXDB_URL to InfluxDB 1.8 or newer; Telegraf cannot answer queries",
    ),
    hook.Remedy(
        r"schema collision|type conflict|unsupported|cannot|type error|invalid",
        "{bucket} contains other data: correct INFLUXDB_BUCKET or MEASUREMENT",
    ),
    hook.Remedy(
        r"internal error",
        "if {bucket} contains other data, correct INFLUXDB_BUCKET or MEASUREMENT; "
        "otherwise check the server's log",
    ),
    hook.Remedy(r"", "check the server's log"),
)

# A parameter at the top of a query. Matches: bucket = "telegraf"
PARAMETER = re.compile(r"^(?P<name>\w+) = .*$", re.MULTILINE)

# What must be escaped in a string of Flux: \ and ", and the $ of ${, which begins an expression.
FLUX_SPECIAL = re.compile(r'[\\"]|\$(?=\{)')

CsvRow = dict[str, str]


def flux_text(value: str) -> str:
    """Return a text as a string literal of Flux."""
    escaped = FLUX_SPECIAL.sub(lambda match: f"\\{match[0]}", value)
    return f'"{escaped}"'


def query_text(name: str, settings: hook.Settings, **parameters: str) -> str:
    """Return a query of flux/; `parameters` are literals of Flux, and replace its own.

    Bucket and measurement are those of the settings. Raise a ReportError if the query is missing.
    """
    values = {
        "bucket": flux_text(settings.bucket),
        "measurement": flux_text(settings.measurement),
        **parameters,
    }
    try:
        text = (FLUX / f"{name}.flux").read_text(encoding="utf-8")
    except OSError as error:
        raise hook.ReportError(
            f"{FLUX}: {error.strerror}: copy the folder flux/ beside the folder board/"
        ) from None

    def replace(line: re.Match[str]) -> str:
        parameter = line["name"]
        return f"{parameter} = {values[parameter]}" if parameter in values else line[0]

    return PARAMETER.sub(replace, text)


def parse_csv(text: str) -> Iterator[CsvRow]:
    """Yield the rows of InfluxDB's answer, by column. Each of its tables has its own header."""
    header: list[str] = []
    for cells in csv.reader(io.StringIO(text, newline="")):
        if not cells:
            header = []  # an empty line ends a table
        elif header:
            yield dict(zip(header, map(plain, cells)))
        else:
            header = cells


def seconds_of(text: str) -> int:
    """Return a time in InfluxDB's answer as Unix seconds: 2026-03-01T12:00:00Z, or finer."""
    moment = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    return int(moment.replace(tzinfo=timezone.utc).timestamp())


def names_of(text: str) -> list[str]:
    """Return the names in a field, separated by spaces there; "none" stands for no name."""
    return [] if text == "none" else text.split()


def text_of(text: str) -> str:
    """Return the text in a field; "none" stands for no text."""
    return "" if text == "none" else text


def failures_of(text: str) -> dict[str, str]:
    """Return the reasons in a field by lineage: "a.example.com: reason | b.example.com: reason".

    The last reason may be cut off, or missing, if the field could not hold it.
    """
    failures = {}
    for part in text_of(text).split(" | "):
        lineage, _, reason = part.partition(": ")
        if reason:
            failures[lineage] = reason
    return failures


def key_of(row: CsvRow) -> CertificateKey:
    """Return which certificate a row is about."""
    return CertificateKey(row["host"], row["lineage"])


def run_row(row: CsvRow) -> reports.RunRow:
    """Return a row of runs.flux."""
    return reports.RunRow(
        seconds_of(row["time"]),
        row["host"],
        seconds_of(row["started"]),
        seconds_of(row["ended"]),
        text_of(row["mode"]),
        int(row["exit_status"]),
        names_of(row["renewed"]),
        names_of(row["not_due"]),
        names_of(row["not_processed"]),
        names_of(row["failed"]),
        names_of(row["unreadable"]),
        failures_of(row["failures"]),
        text_of(row["failure"]),
        text_of(row["certbot"]),
        text_of(row["hook"]),
    )


class InfluxDB:
    """A reports.Source."""

    settings_to_correct = "INFLUXDB_BUCKET or MEASUREMENT"
    notice = ""

    def __init__(self, settings: hook.Settings) -> None:
        """Raise a ReportError if requests is missing."""
        self.settings = settings
        self.place = f"{settings.bucket} at {settings.url}"
        self.server = Server(settings, ("text/csv",), REMEDIES)

    def run(self, name: str, **parameters: str) -> list[CsvRow]:
        """Return the rows of a query of flux/."""
        return self.ask(query_text(name, self.settings, **parameters))

    def ask(self, flux: str) -> list[CsvRow]:
        """Return the rows of any query; raise a ReportError if it fails."""
        dialect = {"header": True, "annotations": []}
        text = self.server.post(
            "/api/v2/query",
            params={"org": self.settings.org},
            json={"type": "flux", "query": flux, "dialect": dialect},
        )
        rows = list(parse_csv(text))
        for row in rows:
            if row.get("error"):  # a query may fail when its answer has begun
                raise self.server.refusal(row["error"])
        return rows

    def overdue(self) -> list[reports.OverdueRow]:
        """Return the rows of overdue.flux."""
        return [
            reports.OverdueRow(
                key_of(row),
                float(row["days_overdue"]),
                float(row["grace_days"]),
                float(row["days_left"]),
                seconds_of(row["due"]),
                seconds_of(row["expiry"]),
                seconds_of(row["judged_at"]),
                text_of(row["failure"]),
                row["retired"] == "true",
            )
            for row in self.run("overdue")
        ]

    def certificates(self) -> list[reports.CertificateRow]:
        """Return the rows of certificates.flux."""
        return [
            reports.CertificateRow(
                key_of(row), float(row["age_days"]), is_staging=row["staging"] == "true"
            )
            for row in self.run("certificates")
        ]

    def silent_hosts(self, silence_days: float) -> list[reports.SilentHostRow]:
        """Return the rows of silent_hosts.flux."""
        return [
            reports.SilentHostRow(
                row["host"],
                seconds_of(row["last_report"]),
                float(row["days_silent"]),
                row["most_hosts_away"] == "true",
                text_of(row["hosts"]),
            )
            for row in self.run("silent_hosts", silence=f"{silence_days:f}")
        ]

    def failing(self) -> list[reports.FailingRow]:
        """Return the rows of failing.flux for the first step."""
        return [
            reports.FailingRow(
                row["host"],
                seconds_of(row["last_report"]),
                row["failing"] == "true",
                int(row["exit_status"]),
                int(row["failed_count"]),
                int(row["unreadable_count"]),
                names_of(row["failed"]),
                names_of(row["unreadable"]),
                failures_of(row["failures"]),
                text_of(row["failure"]),
            )
            for row in self.run("failing")
            if row["step"] == "1"
        ]

    def runs(self, since: int) -> list[reports.RunRow]:
        """Return the rows of runs.flux."""
        return [run_row(row) for row in self.run("runs", since=f"-{since}s")]

    def not_delivered(self) -> list[reports.NotDeliveredRow]:
        """Return the rows of not_delivered.flux."""
        return [
            reports.NotDeliveredRow(
                key_of(row),
                row["target"],
                float(row["days_missing"]),
                float(row["days_left"]),
                seconds_of(row["expiry"]),
                row["never_delivered"] == "true",
                text_of(row["deploy_error"]),
            )
            for row in self.run("not_delivered")
        ]

    def not_served(self) -> list[reports.NotServedRow]:
        """Return the rows of not_served.flux."""
        return [
            reports.NotServedRow(
                key_of(row),
                float(row["days_unserved"]),
                float(row["days_left"]),
                seconds_of(row["expiry"]),
                names_of(row["not_served"]),
            )
            for row in self.run("not_served")
        ]

    def dry_run_results(self) -> list[reports.DryRunRow]:
        """Return the rows of dry_run_results.flux."""
        return [
            reports.DryRunRow(
                key_of(row),
                seconds_of(row["time"]),
                row["failed"] == "1",
                row["dry_run_error"],
            )
            for row in self.run("dry_run_results")
        ]

    def history(self, since: int) -> list[reports.HistoryRow]:
        """Return the rows of history.flux."""
        return [
            reports.HistoryRow(
                seconds_of(row["time"]),
                key_of(row),
                tuple(names_of(row["names"])),
                float(row["lifetime_days"]),
                float(row["due_after_days"]),
            )
            for row in self.run("history", since=f"-{since}s")
        ]

    def fields(self) -> list[str]:
        """Return the fields of the measurement, by a query of its own."""
        flux = f"""
            from(bucket: {flux_text(self.settings.bucket)})
                |> range(start: -{LONGEST_LIFE_DAYS}d)
                |> filter(fn: (r) => r._measurement == {flux_text(self.settings.measurement)})
                |> last()
                |> keep(columns: ["_field"])
                |> group()
                |> distinct(column: "_field")
        """
        return sorted({row["_value"] for row in self.ask(flux)})
