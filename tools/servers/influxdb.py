"""Starts real servers on free loopback ports with their data in a folder of their own, for the tests and the demo."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import requests

from tools.servers.processes import (
    built_program,
    free_port,
    running,
    wait_for,
)

ORG = "example-org"
TOKEN = "fake-token-for-tests-only"


class InfluxDB:
    """A running InfluxDB 1.x or 2.x: `new_bucket()` gives a place to write to, `query()` runs Flux."""

    def __init__(
        self, name: str, url: str, child: subprocess.Popen[bytes], token: str = ""
    ) -> None:
        self.name, self.url, self.child, self.token = name, url, child, token
        self.major = 2 if name == "influxd-2" else 1
        self.headers = {"Authorization": f"Token {token}"} if token else {}
        self.buckets = 0

    def version(self) -> str:
        """What it calls itself."""
        return requests.get(self.url + "/ping", timeout=30).headers["X-Influxdb-Version"]

    def new_bucket(self, retention: str = "") -> str:
        """A fresh bucket (2.x) or database (1.x), kept for ever or for a number of seconds ("604800")."""
        self.buckets += 1
        bucket = f"bucket{self.buckets}"
        if self.major == 1:
            self.command(
                f'CREATE DATABASE "{bucket}"'
                + (f" WITH DURATION {retention}s" if retention else "")
            )
        else:
            orgs = requests.get(self.url + "/api/v2/orgs", headers=self.headers, timeout=30).json()[
                "orgs"
            ]
            rules = [{"type": "expire", "everySeconds": int(retention)}] if retention else []
            wanted = {"name": bucket, "orgID": orgs[0]["id"], "retentionRules": rules}
            requests.post(
                self.url + "/api/v2/buckets", json=wanted, headers=self.headers, timeout=30
            ).raise_for_status()
        return bucket

    def command(self, influxql: str, **login: str) -> None:
        """Runs a command of InfluxQL (1.x)."""
        requests.post(
            self.url + "/query", params={"q": influxql, **login}, headers=self.headers, timeout=30
        ).raise_for_status()

    def settings(self, bucket: str) -> dict[str, str]:
        """The hook's settings for a bucket of this server."""
        return {
            "INFLUXDB_URL": self.url,
            "INFLUXDB_BUCKET": bucket,
            "INFLUXDB_ORG": ORG if self.major == 2 else "",
            "INFLUXDB_TOKEN": self.token,
        }

    def query(self, flux: str) -> list[dict[str, str]]:
        """The rows of a Flux query, as text; RuntimeError with the server's words when it fails."""
        answer = requests.post(
            self.url + "/api/v2/query",
            params={"org": ORG},
            json={"type": "flux", "query": flux, "dialect": {"header": True, "annotations": []}},
            headers=self.headers,
            timeout=120,
        )
        if answer.status_code != 200:
            raise RuntimeError(f"{self.name}: {answer.text}")
        rows: list[dict[str, str]] = []
        header: list[str] = []
        for row in csv.reader(
            io.StringIO(answer.content.decode(errors="surrogateescape"), newline="")
        ):
            if not row:
                header = []  # the next table has columns of its own
            elif header:
                rows.append(dict(zip(header, row)))
            else:
                header = row
        if rows and "error" in rows[0]:
            raise RuntimeError(f"{self.name}: {rows[0]}")
        return rows

    def points(self, bucket: str) -> set[tuple[str, ...]]:
        """All that is in a bucket: (time in seconds, field, value, tag=value …), to be compared as a set."""
        everything = f'from(bucket: "{bucket}") |> range(start: 1970-01-02T00:00:00Z, stop: 2200-01-01T00:00:00Z)'
        as_text = "map(fn: (r) => ({r with _value: string(v: r._value), seconds: int(v: r._time) / 1000000000}))"
        rows = self.query(f"{everything} |> {as_text}")
        inner = {
            "",
            "result",
            "table",
            "_start",
            "_stop",
            "_time",
            "_value",
            "_field",
            "_measurement",
            "seconds",
        }
        return {
            (
                r["seconds"],
                r["_field"],
                r["_value"],
                *sorted(f"{k}={v}" for k, v in r.items() if k not in inner and v),
            )
            for r in rows
        }


@contextlib.contextmanager
def start_influxdb(
    name: str,
    folder: Path,
    port: int | None = None,
    config: str = "",
    storage: dict[str, str | int] | None = None,
) -> Iterator[InfluxDB]:
    """InfluxDB 1.8, 1.12 or 2 (`influxd-1.8` …), ready; the same folder again gives the same data. `config` are settings of the [http]
    section of 1.x, `storage` of the storage engine, by the names that all versions share."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    if name == "influxd-2":
        command = [
            built_program(name),
            "--bolt-path",
            f"{folder}/bolt",
            "--sqlite-path",
            f"{folder}/sqlite",
            "--engine-path",
            f"{folder}/engine",
        ]
        command += [
            "--http-bind-address",
            f"127.0.0.1:{port}",
            "--reporting-disabled",
            "--log-level",
            "error",
        ]
        command += [f"--storage-{key}={value}" for key, value in (storage or {}).items()]
    else:
        conf, data = (
            folder / "influxdb.conf",
            "\n".join(f"{key} = {json.dumps(value)}" for key, value in (storage or {}).items()),
        )
        conf.write_text(f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
{data}
[http]
bind-address = "127.0.0.1:{port}"
flux-enabled = true
log-enabled = false
{config}
""")
        command = [built_program(name), "-config", str(conf)]
    with running(command, folder / "log") as child:
        wait_for(
            lambda: requests.get(url + "/ping", timeout=5).status_code == 204, name, 300, child
        )  # it reads its log first
        if name != "influxd-2":
            yield InfluxDB(name, url, child)
            return
        wait_for(
            lambda: requests.get(url + "/health", timeout=5).status_code == 200, name, child=child
        )
        first = {
            "username": "admin",
            "password": "fake-password-1",
            "org": ORG,
            "bucket": "first",
            "token": TOKEN,
        }
        if requests.get(url + "/api/v2/setup", timeout=10).json()["allowed"]:
            requests.post(url + "/api/v2/setup", json=first, timeout=30).raise_for_status()
        yield InfluxDB(name, url, child, TOKEN)
