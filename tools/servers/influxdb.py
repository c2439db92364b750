"""Starts InfluxDB 1.8, 1.12 and 2 on loopback, and reads and writes what is in it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union

import requests

from tools.servers.processes import built_program, free_port, running, wait_for_status

ORG = "example-org"
TOKEN = "fake-token-for-tests-only"
START_SECONDS = 300  # with much data: it reads its log before it answers

Storage = Mapping[str, Union[str, int]]

# Columns of a Flux result that are neither tags nor the value of a point.
COLUMNS_WITHOUT_TAGS = frozenset(
    {
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
)


class InfluxDB:
    """A running InfluxDB 1.x or 2.x: `new_bucket()` makes a place to write to, `query()` runs Flux.

    `name` is that of its program, `major` the first number of its version. `token` is "" on 1.x,
    which asks for none. `headers` are what a request to it must have.
    """

    def __init__(
        self, name: str, url: str, child: subprocess.Popen[bytes], token: str = ""
    ) -> None:
        """`child` is its process."""
        self.name = name
        self.url = url
        self.child = child
        self.token = token
        self.major = 2 if name == "influxd-2" else 1
        self.headers = {"Authorization": f"Token {token}"} if token else {}
        self.buckets = 0

    def version(self) -> str:
        """Return the version that it reports."""
        return requests.get(f"{self.url}/ping", timeout=30).headers["X-Influxdb-Version"]

    def new_bucket(self, retention: str = "") -> str:
        """Make a bucket (2.x) or a database (1.x); return its name.

        `retention` is in seconds ("604800"), "" keeps points for ever.
        """
        self.buckets += 1
        bucket = f"bucket{self.buckets}"
        if self.major == 1:
            duration = f" WITH DURATION {retention}s" if retention else ""
            self.command(f'CREATE DATABASE "{bucket}"{duration}')
            return bucket

        rules = [{"type": "expire", "everySeconds": int(retention)}] if retention else []
        self.post("/api/v2/buckets", name=bucket, orgID=self.org_id(), retentionRules=rules)
        return bucket

    def org_id(self) -> str:
        """Return the id of the only organization (2.x)."""
        response = requests.get(f"{self.url}/api/v2/orgs", headers=self.headers, timeout=30)
        return str(response.json()["orgs"][0]["id"])

    def post(self, path: str, **body: Any) -> None:
        """Send a request to the HTTP API, its body as JSON; raise an error if it fails."""
        response = requests.post(self.url + path, json=body, headers=self.headers, timeout=30)
        response.raise_for_status()

    def command(self, influxql: str, **login: str) -> None:
        """Run a command of InfluxQL (1.x); `login` are the parameters `u` and `p`."""
        requests.post(
            f"{self.url}/query",
            params={"q": influxql, **login},
            headers=self.headers,
            timeout=30,
        ).raise_for_status()

    def settings(self, bucket: str) -> dict[str, str]:
        """Return the hook's settings for a bucket of this server."""
        return {
            "INFLUXDB_URL": self.url,
            "INFLUXDB_BUCKET": bucket,
            "INFLUXDB_ORG": ORG if self.major == 2 else "",
            "INFLUXDB_TOKEN": self.token,
        }

    def query(self, flux: str) -> list[dict[str, str]]:
        """Run a Flux query; return its rows, each by column, as text.

        Raise a RuntimeError with the server's message if it fails.
        """
        dialect = {"header": True, "annotations": []}
        response = requests.post(
            f"{self.url}/api/v2/query",
            params={"org": ORG},
            json={"type": "flux", "query": flux, "dialect": dialect},
            headers=self.headers,
            timeout=120,
        )
        if response.status_code != 200:
            raise RuntimeError(f"{self.name}: {response.text}")
        rows = rows_of_csv(response.content.decode(errors="surrogateescape"))
        if rows and "error" in rows[0]:  # one that came after the first rows were sent
            raise RuntimeError(f"{self.name}: {rows[0]}")
        return rows

    def points(self, bucket: str) -> set[tuple[str, ...]]:
        """Return all that is in a bucket: (time in seconds, field, value, tag=value …).

        The tags are sorted, so that two such sets can be compared.
        """
        rows = self.query(f"""
            from(bucket: "{bucket}")
            |> range(start: 1970-01-02T00:00:00Z, stop: 2200-01-01T00:00:00Z)
            |> map(fn: (r) => ({{r with
                _value: string(v: r._value),
                seconds: int(v: r._time) / 1000000000
            }}))
        """)
        points = set()
        for row in rows:
            tags = []
            for column, value in sorted(row.items()):
                if value and column not in COLUMNS_WITHOUT_TAGS:
                    tags.append(f"{column}={value}")
            points.add((row["seconds"], row["_field"], row["_value"], *tags))
        return points


def rows_of_csv(text: str) -> list[dict[str, str]]:
    """Return the rows of a Flux result: tables separated by empty lines, each with its header."""
    rows = []
    header: list[str] = []
    for row in csv.reader(io.StringIO(text, newline="")):
        if not row:
            header = []
        elif header:
            rows.append(dict(zip(header, row)))
        else:
            header = row
    return rows


@contextlib.contextmanager
def start_influxdb(
    name: str,
    folder: Path,
    port: int | None = None,
    config: str = "",
    storage: Storage | None = None,
) -> Iterator[InfluxDB]:
    """Start InfluxDB, `influxd-1.8`, `influxd-1.12` or `influxd-2`, and wait until it is ready.

    The same folder again gives the same data. `config` are settings of the section [http] of 1.x,
    `storage` of the storage engine, by the names that all versions share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    if name == "influxd-2":
        command = command_of_2(folder, port, storage or {})
    else:
        command = command_of_1(name, folder, port, config, storage or {})

    with running(command, folder / "log") as child:
        wait_for_status(f"{url}/ping", 204, name, child, START_SECONDS)
        if name == "influxd-2":
            wait_for_status(f"{url}/health", 200, name, child)
            influxdb = InfluxDB(name, url, child, TOKEN)
            set_up(influxdb)
        else:
            influxdb = InfluxDB(name, url, child)
        yield influxdb


def command_of_1(name: str, folder: Path, port: int, config: str, storage: Storage) -> list[str]:
    """Write the configuration of InfluxDB 1.x; return its command."""
    storage_lines = [f"{key} = {json.dumps(value)}" for key, value in storage.items()]
    storage_config = "\n".join(storage_lines)
    conf = folder / "influxdb.conf"
    conf.write_text(f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
{storage_config}
[http]
bind-address = "127.0.0.1:{port}"
flux-enabled = true
log-enabled = false
{config}
""")
    return [built_program(name), "-config", str(conf)]


def command_of_2(folder: Path, port: int, storage: Storage) -> list[str]:
    """Return the command of InfluxDB 2."""
    command = [built_program("influxd-2"), "--reporting-disabled"]
    command += ["--bolt-path", f"{folder}/bolt"]
    command += ["--sqlite-path", f"{folder}/sqlite"]
    command += ["--engine-path", f"{folder}/engine"]
    command += ["--http-bind-address", f"127.0.0.1:{port}"]
    command += ["--log-level", "error"]
    command += [f"--storage-{key}={value}" for key, value in storage.items()]
    return command


def set_up(influxdb: InfluxDB) -> None:
    """Make the first user, organization and token of InfluxDB 2, unless it has them."""
    setup = requests.get(f"{influxdb.url}/api/v2/setup", timeout=10).json()
    if setup["allowed"]:
        influxdb.post(
            "/api/v2/setup",
            username="admin",
            password="fake-password-1",
            org=ORG,
            bucket="first",
            token=TOKEN,
        )
