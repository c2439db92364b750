"""The queries of flux/, the same text on every InfluxDB: what an administrator sees in each."""

from __future__ import annotations

from datetime import datetime, timezone

from tools import ROOT
from tools.servers.influxdb import InfluxDB

Rows = list[dict[str, str]]


def run_query(influxdb: InfluxDB, name: str, bucket: str, more: str = "") -> Rows:
    """The rows of a query; `more` is what its comment says one may add."""
    text = (ROOT / "flux" / f"{name}.flux").read_text()
    if more:
        assert f"//     {more}\n" in text
        text = f"{text.rstrip()}\n    {more}"
    rows = influxdb.query(text.replace('bucket = "telegraf"', f'bucket = "{bucket}"'))
    assert all(
        value != ""
        for row in rows
        for name, value in row.items()
        if name not in ("", "result", "table")
    ), "a null"
    return rows


def seconds(text: str) -> int:
    """A time in a query's answer as Unix seconds."""
    return int(
        datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    )
