"""Starts what speaks PromQL on loopback: VictoriaMetrics, Prometheus, and their companions.

VictoriaMetrics stores the hook's points as series. vmalert evaluates rules and Alertmanager sends
the notifications; vmagent takes reports and passes them on.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import requests

from tools.servers.kapacitor import Inbox
from tools.servers.processes import free_port, installed_program, running, wait_for, wait_for_status

RETENTION = "100y"


class Program:
    """A running program with metrics about itself, in Prometheus' format."""

    def __init__(self, url: str, folder: Path, pid: int) -> None:
        """`folder` has its data and its log, `pid` is its process id."""
        self.url = url
        self.folder = folder
        self.pid = pid
        self.headers: dict[str, str] = {}

    def number(self, name: str, label: str = "") -> float:
        """Return one of its metrics, the sum of all series.

        `label` is text that a series must have, such as `name="value"`.
        """
        response = requests.get(f"{self.url}/metrics", timeout=30)
        response.raise_for_status()
        total = 0.0
        for line in response.text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and label in series:
                total += float(value)
        return total

    def api(self, path: str) -> Any:
        """Return the answer of its HTTP API, decoded from JSON."""
        response = requests.get(self.url + path, timeout=30)
        response.raise_for_status()
        return response.json()


class Prometheus(Program):
    """A running server that answers PromQL."""

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the results of a query: each has a `metric` (labels) and a `value` (time, text).

        `at` is the time for which it is evaluated, in Unix seconds, None: now.
        """
        parameters: dict[str, str | float] = {"query": promql}
        if at is not None:
            parameters["time"] = at
        return self.results("/api/v1/query", parameters)

    def query_range(
        self, promql: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """Return the results of a query at each step: each has a `metric` and its `values`.

        `start` and `end` are in Unix seconds, `step` in seconds.
        """
        parameters: dict[str, str | float] = {
            "query": promql,
            "start": start,
            "end": end,
            "step": step,
            "nocache": "1",
        }
        return self.results("/api/v1/query_range", parameters)

    def results(self, path: str, parameters: dict[str, str | float]) -> list[dict[str, Any]]:
        """Send a query; raise a RuntimeError with the server's message if it fails."""
        response = requests.post(self.url + path, data=parameters, timeout=300)
        if response.status_code != 200:
            raise RuntimeError(f"{parameters['query']}: {response.text}")
        results: list[dict[str, Any]] = response.json()["data"]["result"]
        return results


class VictoriaMetrics(Prometheus):
    """A running VictoriaMetrics. It also takes line protocol."""

    def settings(self, bucket: str = "certbot") -> dict[str, str]:
        """Return the hook's settings for it."""
        return {"INFLUXDB_URL": self.url, "INFLUXDB_BUCKET": bucket}

    def write(self, lines: str) -> None:
        """Store line protocol, its times in seconds; queries find it when this returns."""
        requests.post(
            f"{self.url}/api/v2/write?precision=s", data=lines.encode(), timeout=120
        ).raise_for_status()
        self.flush()

    def store(self, *lines: str) -> None:
        """Store lines, and wait until queries find even the newest.

        A query does not find a point of the present second.
        """
        self.write("\n".join(lines))
        newest = max(int(line.rpartition(" ")[2]) for line in lines)
        wait_for(lambda: self.now() > newest, "the present second")

    def now(self) -> float:
        """Return the time for which it evaluates queries, in Unix seconds."""
        return float(self.query("time()")[0]["value"][0])

    def flush(self) -> None:
        """Make queries find what was written before."""
        requests.get(f"{self.url}/internal/force_flush", timeout=120).raise_for_status()


ProgramT = TypeVar("ProgramT", bound=Program)


@contextlib.contextmanager
def start(
    kind: type[ProgramT],
    name: str,
    package: str,
    folder: Path,
    port: int,
    *arguments: str,
    ready: str = "/-/ready",
) -> Iterator[ProgramT]:
    """Start a program of a Debian package; wait until its path `ready` answers 200."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    with running([installed_program(name, package), *arguments], folder / "log") as child:
        wait_for_status(url + ready, 200, name, child)
        yield kind(url, folder, child.pid)


@contextlib.contextmanager
def start_victoria_metrics(
    folder: Path, port: int | None = None, *flags: str
) -> Iterator[VictoriaMetrics]:
    """Start VictoriaMetrics, and wait until it is ready. The same folder again: the same data."""
    port = port or free_port()
    name = "victoria-metrics"
    arguments = [
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={folder}/data",
        f"-retentionPeriod={RETENTION}",
        "-search.latencyOffset=0s",
        *flags,
    ]
    with start(VictoriaMetrics, name, name, folder, port, *arguments, ready="/health") as victoria:
        yield victoria


def copy_database(victoria: VictoriaMetrics, folder: Path) -> None:
    """Copy the hook's points of a VictoriaMetrics to where a Prometheus of this folder reads them.

    Prometheus takes old points in no other way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    points = folder / "points"
    points.write_text(as_openmetrics(exported_series(victoria)))
    promtool = installed_program("promtool", "prometheus")
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics"]
    command += ["--quiet", "--max-block-duration=9600h"]
    command += [str(points), str(folder / "data")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)


def exported_series(victoria: VictoriaMetrics) -> list[dict[str, Any]]:
    """Return the hook's series: each has a `metric` (labels), `timestamps` (ms) and `values`."""
    response = requests.get(
        f"{victoria.url}/api/v1/export",
        params={"match[]": '{__name__=~"certbot_renewal_.+"}'},
        timeout=120,
    )
    return [json.loads(line) for line in response.text.splitlines()]


def as_openmetrics(all_series: list[dict[str, Any]]) -> str:
    """Return series in the format OpenMetrics, sorted by name."""
    lines = []
    for series in sorted(all_series, key=lambda series: str(series["metric"]["__name__"])):
        labels = []
        for label, value in series["metric"].items():
            if label != "__name__":
                labels.append(f"{label}={json.dumps(value, ensure_ascii=False)}")
        name = f"{series['metric']['__name__']}{{{','.join(labels)}}}"

        # A dict: VictoriaMetrics may have the value of one time more than once.
        values = dict(zip(series["timestamps"], series["values"]))
        for milliseconds, value in sorted(values.items()):
            lines.append(f"{name} {value} {milliseconds / 1000}")
    return "\n".join([*lines, "# EOF\n"])


@contextlib.contextmanager
def start_prometheus(
    folder: Path, config: str = "{}", port: int | None = None, *flags: str
) -> Iterator[Prometheus]:
    """Start Prometheus as a receiver of remote writes, and wait until it is ready.

    The same folder again gives the same data. `config` is its configuration, YAML.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config_file = folder / "prometheus.yml"
    config_file.write_text(config)
    name = "prometheus"
    arguments = [
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={folder}/data",
        f"--config.file={config_file}",
        f"--storage.tsdb.retention.time={RETENTION}",
        "--web.enable-remote-write-receiver",
        *flags,
    ]
    with start(Prometheus, name, name, folder, port, *arguments) as prometheus:
        yield prometheus


@contextlib.contextmanager
def start_alertmanager(
    folder: Path, config: str, mail: Inbox, port: int | None = None
) -> Iterator[Program]:
    """Start Alertmanager; the same folder again gives the same state.

    `config` is the text of its configuration. It sends its mails to the inbox, whose address
    replaces 127.0.0.1:25 there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config_file = folder / "alertmanager.yml"
    config_file.write_text(config.replace("127.0.0.1:25", f"127.0.0.1:{mail.port}"))
    name = "prometheus-alertmanager"
    arguments = [
        f"--config.file={config_file}",
        f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",  # it is alone
    ]
    with start(Program, name, name, folder, port, *arguments) as alertmanager:
        yield alertmanager


@contextlib.contextmanager
def start_vmalert(
    folder: Path, rules: Path, source: str, notifier: str, *flags: str
) -> Iterator[Program]:
    """Start vmalert with a file of rules.

    `source` is the address of the VictoriaMetrics that it asks and where it stores its own series,
    `notifier` that of the Alertmanager to which it sends alerts.
    """
    port = free_port()
    arguments = [
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-rule={rules}",
        f"-notifier.url={notifier}",
        f"-datasource.url={source}",
        f"-remoteRead.url={source}",
        f"-remoteWrite.url={source}",
        "-remoteWrite.flushInterval=200ms",
        "-datasource.queryTimeAlignment=false",
        *flags,
    ]
    name, package = "vmalert", "victoria-metrics"
    with start(Program, name, package, folder, port, *arguments, ready="/health") as vmalert:
        yield vmalert


@contextlib.contextmanager
def start_vmagent(folder: Path, target: str, *flags: str) -> Iterator[Program]:
    """Start vmagent: it takes the hook's reports and passes them on at once.

    `target` is an address for remote write.
    """
    port = free_port()
    arguments = [
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-remoteWrite.url={target}",
        f"-remoteWrite.tmpDataPath={folder}/data",
        "-remoteWrite.flushInterval=200ms",
        *flags,
    ]
    name, package = "vmagent", "victoria-metrics"
    with start(Program, name, package, folder, port, *arguments, ready="/health") as vmagent:
        yield vmagent
