"""The queries of flux/, as an administrator runs them."""

from __future__ import annotations

from datetime import datetime, timezone

from tools import ROOT
from tools.servers.influxdb import InfluxDB

QUERIES = sorted((ROOT / "flux").glob("*.flux"))
BUCKET_LINE = 'bucket = "telegraf"'

# Columns that InfluxDB adds to each row of an answer. They may be empty.
ANSWER_COLUMNS = ("", "result", "table")

Rows = list[dict[str, str]]


def run_query(influxdb: InfluxDB, name: str, bucket: str, *more: str) -> Rows:
    """Return the rows of a query of flux/, by column; no value is null.

    `more` are lines that a comment in the query's file proposes to add.
    """
    text = (ROOT / "flux" / f"{name}.flux").read_text()
    for line in more:
        assert f"//     {line}\n" in text
        text = f"{text.rstrip()}\n    {line}"

    rows = influxdb.query(text.replace(BUCKET_LINE, f'bucket = "{bucket}"'))
    for row in rows:
        nulls = [column for column, value in row.items() if value == ""]
        assert set(nulls) <= set(ANSWER_COLUMNS)
    return rows


def rows_by(column: str, rows: Rows) -> dict[str, dict[str, str]]:
    """Return the rows by the value that each has in a column; every value is there once."""
    by_value = {row[column]: row for row in rows}
    assert len(by_value) == len(rows)
    return by_value


def days_in(column: str, row: dict[str, str], digits: int = 0) -> float:
    """Return a number of days in a row, rounded."""
    return round(float(row[column]), digits)


def unix_seconds(text: str) -> int:
    """Return a time in a query's answer, such as 2026-01-02T03:04:05.6Z, in Unix seconds."""
    moment = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    return int(moment.replace(tzinfo=timezone.utc).timestamp())


# ---- Old name ----------------------------------------------------------------------------------
