"""Real VictoriaMetrics and its kin on loopback: what stores the hook's points as series, and asks rules of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from start_certbot import command
from start_servers import free_port, running, wait_for

YEARS = "100y"  # kept for


class Prometheus:
    """What answers PromQL."""

    def __init__(self, url: str, folder: Path, pid: int) -> None:
        self.url, self.folder, self.pid = url, folder, pid
        self.headers: dict[str, str] = {}

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """What a query finds, as of a moment (Unix seconds): a `metric` (labels) and a `value` (time, text) each."""
        parameters: dict[str, str | float] = {"query": promql} if at is None else {"query": promql, "time": at}
        answer = requests.post(self.url + "/api/v1/query", data=parameters, timeout=300)
        if answer.status_code != 200:
            raise RuntimeError(f"{promql}: {answer.text}")
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


class VictoriaMetrics(Prometheus):
    """A running VictoriaMetrics: takes line protocol, too."""

    def settings(self) -> dict[str, str]:
        """The hook's settings for it."""
        return {"INFLUXDB_URL": self.url, "INFLUXDB_BUCKET": "certbot"}

    def write(self, lines: str) -> None:
        """Stores line protocol with times in seconds; what is written is found at once."""
        answer = requests.post(self.url + "/api/v2/write?precision=s", data=lines.encode(), timeout=120)
        answer.raise_for_status()
        self.flush()

    def flush(self) -> None:
        """Makes what was written before be found by queries."""
        requests.get(self.url + "/internal/force_flush", timeout=120).raise_for_status()


@contextlib.contextmanager
def victoria_metrics(folder: Path, port: int | None = None, *flags: str) -> Iterator[VictoriaMetrics]:
    """VictoriaMetrics, ready; the same folder again gives the same data."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}/data", f"-retentionPeriod={YEARS}"]
    arguments += ["-search.latencyOffset=0s", *flags]
    with running([command("victoria-metrics", "victoria-metrics"), *arguments], folder / "log") as child:
        wait_for(lambda: requests.get(url + "/health", timeout=5).status_code == 200, "VictoriaMetrics", child=child)
        yield VictoriaMetrics(url, folder, child.pid)


@contextlib.contextmanager
def prometheus(folder: Path, config: str = "{}", port: int | None = None) -> Iterator[Prometheus]:
    """Prometheus, ready to be written to by others; the same folder again gives the same data. `config` is its configuration, YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url, file = f"http://127.0.0.1:{port}", folder / "prometheus.yml"
    file.write_text(config)
    arguments = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder}/data", f"--config.file={file}"]
    arguments += [f"--storage.tsdb.retention.time={YEARS}", "--web.enable-remote-write-receiver"]
    with running([command("prometheus", "prometheus"), *arguments], folder / "log") as child:
        wait_for(lambda: requests.get(url + "/-/ready", timeout=5).status_code == 200, "Prometheus", child=child)
        yield Prometheus(url, folder, child.pid)
