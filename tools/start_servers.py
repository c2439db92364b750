"""Starts real servers on free loopback ports with their data in a folder of their own, for the tests and the demo."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

import build_servers

ORG = "example-org"
TOKEN = "fake-token-for-tests-only"
READY_SECONDS = 60


class MissingServer(Exception):
    """A program is not on this machine; the message says how to get it."""


def binary(name: str) -> str:
    """The path of a server's binary; MissingServer when it was not built."""
    found = build_servers.find(name)
    if found is None:
        raise MissingServer(f"{name} is missing: make servers")
    return str(found)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; not one that the system gives to outgoing connections, which could take it."""
    while True:
        port = random.SystemRandom().randrange(10000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], Any], what: str, seconds: float = READY_SECONDS, child: subprocess.Popen[bytes] | None = None) -> Any:
    """Waits until the condition is true and returns what it returned; an error of it means not yet."""
    deadline = time.monotonic() + seconds
    error: object = "not true"
    while time.monotonic() < deadline:
        if child is not None and child.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with status {child.returncode}")
        try:
            if value := condition():
                return value
        except (OSError, ValueError, KeyError) as seen:
            error = seen
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {seconds:g} s ({error})")


@contextlib.contextmanager
def running(command: list[str], log: Path, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is stopped at the end, its output in a file."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **(environ or {})})
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class InfluxDB:
    """A running InfluxDB 1.x or 2.x: `new_bucket()` gives a place to write to, `query()` runs Flux."""

    def __init__(self, name: str, url: str, child: subprocess.Popen[bytes], token: str = "") -> None:
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
            self.command(f'CREATE DATABASE "{bucket}"' + (f" WITH DURATION {retention}s" if retention else ""))
        else:
            orgs = requests.get(self.url + "/api/v2/orgs", headers=self.headers, timeout=30).json()["orgs"]
            rules = [{"type": "expire", "everySeconds": int(retention)}] if retention else []
            wanted = {"name": bucket, "orgID": orgs[0]["id"], "retentionRules": rules}
            requests.post(self.url + "/api/v2/buckets", json=wanted, headers=self.headers, timeout=30).raise_for_status()
        return bucket

    def command(self, influxql: str, **login: str) -> None:
        """Runs a command of InfluxQL (1.x)."""
        requests.post(self.url + "/query", params={"q": influxql, **login}, headers=self.headers, timeout=30).raise_for_status()

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
        for row in csv.reader(io.StringIO(answer.content.decode(errors="surrogateescape"), newline="")):
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
        inner = {"", "result", "table", "_start", "_stop", "_time", "_value", "_field", "_measurement", "seconds"}
        return {(r["seconds"], r["_field"], r["_value"], *sorted(f"{k}={v}" for k, v in r.items() if k not in inner and v)) for r in rows}


@contextlib.contextmanager
def influxdb(
    name: str, folder: Path, port: int | None = None, config: str = "", storage: dict[str, str | int] | None = None
) -> Iterator[InfluxDB]:
    """InfluxDB 1.8, 1.12 or 2 (`influxd-1.8` …), ready; the same folder again gives the same data. `config` are settings of the [http]
    section of 1.x, `storage` of the storage engine, by the names that all versions share."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    if name == "influxd-2":
        command = [binary(name), "--bolt-path", f"{folder}/bolt", "--sqlite-path", f"{folder}/sqlite", "--engine-path", f"{folder}/engine"]
        command += ["--http-bind-address", f"127.0.0.1:{port}", "--reporting-disabled", "--log-level", "error"]
        command += [f"--storage-{key}={value}" for key, value in (storage or {}).items()]
    else:
        conf, data = folder / "influxdb.conf", "\n".join(f"{key} = {json.dumps(value)}" for key, value in (storage or {}).items())
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
        command = [binary(name), "-config", str(conf)]
    with running(command, folder / "log") as child:
        wait_for(lambda: requests.get(url + "/ping", timeout=5).status_code == 204, name, 300, child)  # it reads its log first
        if name != "influxd-2":
            yield InfluxDB(name, url, child)
            return
        wait_for(lambda: requests.get(url + "/health", timeout=5).status_code == 200, name, child=child)
        first = {"username": "admin", "password": "fake-password-1", "org": ORG, "bucket": "first", "token": TOKEN}
        if requests.get(url + "/api/v2/setup", timeout=10).json()["allowed"]:
            requests.post(url + "/api/v2/setup", json=first, timeout=30).raise_for_status()
        yield InfluxDB(name, url, child, TOKEN)


@contextlib.contextmanager
def telegraf(version: int, target: InfluxDB, bucket: str, folder: Path, config: str = "", agent: str = "") -> Iterator[str]:
    """Telegraf with its listener for version 1 or 2 writes, passing on to InfluxDB at once; yields the listener's address.
    `config` are more settings of the listener, `agent` of Telegraf itself."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    listener = "influxdb_listener" if version == 1 else "influxdb_v2_listener"
    if target.major == 2:
        output = (
            f'[[outputs.influxdb_v2]]\nurls = ["{target.url}"]\ntoken = "{target.token}"\norganization = "{ORG}"\nbucket = "{bucket}"\n'
        )
    else:
        output = f'[[outputs.influxdb]]\nurls = ["{target.url}"]\ndatabase = "{bucket}"\nskip_database_creation = true\n'
    conf = folder / f"telegraf{version}.conf"
    agent = f'[agent]\nflush_interval = "200ms"\nomit_hostname = true\n{agent}\n'
    conf.write_text(f'{agent}[[inputs.{listener}]]\nservice_address = "127.0.0.1:{port}"\n{config}\n{output}')
    url = f"http://127.0.0.1:{port}"
    ready = "/ping" if version == 1 else "/api/v2/ready"
    with running([binary("telegraf"), "--config", str(conf)], folder / "telegraf.log") as child:
        wait_for(lambda: requests.get(url + ready, timeout=5), "telegraf", child=child)
        yield url
