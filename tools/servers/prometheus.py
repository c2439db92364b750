"""Real VictoriaMetrics and its kin on loopback: what stores the hook's points as series, and asks rules of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from tools.servers.kapacitor import Inbox
from tools.servers.processes import free_port, installed_program, running, wait_for

YEARS = "100y"  # kept for


class Program:
    """One of them that runs, and has numbers about itself."""

    def __init__(self, url: str, folder: Path, pid: int) -> None:
        self.url, self.folder, self.pid = url, folder, pid
        self.headers: dict[str, str] = {}

    def number(self, name: str, label: str = "") -> float:
        """One of its numbers, the sum of all its series, or of those with a label (`name="value"`)."""
        answer = requests.get(self.url + "/metrics", timeout=30)
        answer.raise_for_status()
        lines = (line.rpartition(" ") for line in answer.text.splitlines())
        return sum(
            float(value)
            for series, _, value in lines
            if series.partition("{")[0] == name and label in series
        )

    def api(self, path: str) -> Any:
        """What its HTTP API answers."""
        answer = requests.get(self.url + path, timeout=30)
        answer.raise_for_status()
        return answer.json()


class Prometheus(Program):
    """What answers PromQL."""

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """What a query finds, as of a moment (Unix seconds): a `metric` (labels) and a `value` (time, text) each."""
        parameters: dict[str, str | float] = (
            {"query": promql} if at is None else {"query": promql, "time": at}
        )
        answer = requests.post(self.url + "/api/v1/query", data=parameters, timeout=300)
        if answer.status_code != 200:
            raise RuntimeError(f"{promql}: {answer.text}")
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def query_range(
        self, promql: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """What a query finds at each step (seconds): a `metric` and `values` each."""
        parameters: dict[str, str | float] = {
            "query": promql,
            "start": start,
            "end": end,
            "step": step,
            "nocache": "1",
        }
        answer = requests.post(self.url + "/api/v1/query_range", data=parameters, timeout=300)
        if answer.status_code != 200:
            raise RuntimeError(f"{promql}: {answer.text}")
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


class VictoriaMetrics(Prometheus):
    """A running VictoriaMetrics: takes line protocol, too."""

    def settings(self, bucket: str = "certbot") -> dict[str, str]:
        """The hook's settings for it."""
        return {"INFLUXDB_URL": self.url, "INFLUXDB_BUCKET": bucket}

    def write(self, lines: str) -> None:
        """Stores line protocol with times in seconds; what is written is found at once."""
        answer = requests.post(
            self.url + "/api/v2/write?precision=s", data=lines.encode(), timeout=120
        )
        answer.raise_for_status()
        self.flush()

    def store(self, *lines: str) -> None:
        """Stores lines, and waits until the newest is found, too: a query finds none of the present second."""
        self.write("\n".join(lines))
        newest = max(int(line.rpartition(" ")[2]) for line in lines)
        wait_for(lambda: float(self.query("time()")[0]["value"][0]) > newest, "the present second")

    def flush(self) -> None:
        """Makes what was written before be found by queries."""
        requests.get(self.url + "/internal/force_flush", timeout=120).raise_for_status()


@contextlib.contextmanager
def start_victoria_metrics(
    folder: Path, port: int | None = None, *flags: str
) -> Iterator[VictoriaMetrics]:
    """VictoriaMetrics, ready; the same folder again gives the same data."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={folder}/data",
        f"-retentionPeriod={YEARS}",
    ]
    arguments += ["-search.latencyOffset=0s", *flags]
    with running(
        [installed_program("victoria-metrics", "victoria-metrics"), *arguments], folder / "log"
    ) as child:
        wait_for(
            lambda: requests.get(url + "/health", timeout=5).status_code == 200,
            "VictoriaMetrics",
            child=child,
        )
        yield VictoriaMetrics(url, folder, child.pid)


def copy_database(victoria: VictoriaMetrics, folder: Path) -> None:
    """Puts what VictoriaMetrics has of the hook where a Prometheus in that folder will read it, also the points of long ago, which it
    takes from nobody else."""
    folder.mkdir(parents=True, exist_ok=True)
    answer = requests.get(
        victoria.url + "/api/v1/export",
        params={"match[]": '{__name__=~"certbot_renewal_.+"}'},
        timeout=120,
    )
    lines = []
    for series in map(json.loads, answer.text.splitlines()):
        name = series["metric"].pop("__name__")
        labels = ",".join(
            f"{key}={json.dumps(value, ensure_ascii=False)}"
            for key, value in series["metric"].items()
        )
        samples = dict(
            zip(series["timestamps"], series["values"])
        )  # it may have one more than once
        lines += [
            f"{name}{{{labels}}} {value} {at / 1000}" for at, value in sorted(samples.items())
        ]
    (folder / "points").write_text(
        "\n".join([*sorted(lines, key=lambda line: line.partition("{")[0]), "# EOF\n"])
    )
    program = [
        installed_program("promtool", "prometheus"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--quiet",
        "--max-block-duration=9600h",
    ]
    subprocess.run(
        [*program, str(folder / "points"), str(folder / "data")],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=120,
    )


@contextlib.contextmanager
def start_prometheus(
    folder: Path, config: str = "{}", port: int | None = None, *flags: str
) -> Iterator[Prometheus]:
    """Prometheus, ready to be written to by others; the same folder again gives the same data. `config` is its configuration, YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url, file = f"http://127.0.0.1:{port}", folder / "prometheus.yml"
    file.write_text(config)
    arguments = [
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={folder}/data",
        f"--config.file={file}",
    ]
    arguments += [
        f"--storage.tsdb.retention.time={YEARS}",
        "--web.enable-remote-write-receiver",
        *flags,
    ]
    with running(
        [installed_program("prometheus", "prometheus"), *arguments], folder / "log"
    ) as child:
        wait_for(
            lambda: requests.get(url + "/-/ready", timeout=5).status_code == 200,
            "Prometheus",
            child=child,
        )
        yield Prometheus(url, folder, child.pid)


@contextlib.contextmanager
def start_program(
    name: str, package: str, folder: Path, port: int, *arguments: str, ready: str = "/-/ready"
) -> Iterator[Program]:
    """A program of a Debian package, ready."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    with running([installed_program(name, package), *arguments], folder / "log") as child:
        wait_for(lambda: requests.get(url + ready, timeout=5).status_code == 200, name, child=child)
        yield Program(url, folder, child.pid)


@contextlib.contextmanager
def start_alertmanager(
    folder: Path, config: str, mail: Inbox, port: int | None = None
) -> Iterator[Program]:
    """Alertmanager with the text of its configuration, which it sends mail by the inbox for; the same folder again gives the same state."""
    folder.mkdir(parents=True, exist_ok=True)
    port, file = port or free_port(), folder / "alertmanager.yml"
    file.write_text(config.replace("127.0.0.1:25", f"127.0.0.1:{mail.port}"))
    arguments = [
        f"--config.file={file}",
        f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    arguments.append("--cluster.listen-address=")  # alone
    with start_program(
        "prometheus-alertmanager", "prometheus-alertmanager", folder, port, *arguments
    ) as started:
        yield started


@contextlib.contextmanager
def start_vmalert(
    folder: Path, rules: Path, source: str, notifier: str, *flags: str
) -> Iterator[Program]:
    """vmalert, which asks a VictoriaMetrics, keeps its own series there, and tells an Alertmanager (their addresses)."""
    port = free_port()
    arguments = [
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-rule={rules}",
        f"-notifier.url={notifier}",
        f"-datasource.url={source}",
    ]
    arguments += [
        f"-remoteRead.url={source}",
        f"-remoteWrite.url={source}",
        "-remoteWrite.flushInterval=200ms",
    ]
    arguments += ["-datasource.queryTimeAlignment=false", *flags]
    with start_program(
        "vmalert", "victoria-metrics", folder, port, *arguments, ready="/health"
    ) as started:
        yield started


@contextlib.contextmanager
def start_vmagent(folder: Path, target: str, *flags: str) -> Iterator[Program]:
    """vmagent, which takes the hook's reports and passes them on (to the address for remote write), at once."""
    port = free_port()
    arguments = [
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-remoteWrite.url={target}",
        f"-remoteWrite.tmpDataPath={folder}/data",
    ]
    arguments += ["-remoteWrite.flushInterval=200ms", *flags]
    with start_program(
        "vmagent", "victoria-metrics", folder, port, *arguments, ready="/health"
    ) as started:
        yield started
