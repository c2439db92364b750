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


class VictoriaMetrics:
    """A running VictoriaMetrics: takes line protocol, answers PromQL."""

    def __init__(self, url: str, folder: Path, pid: int) -> None:
        self.url, self.folder, self.pid = url, folder, pid

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

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """What a query finds, as of a moment (Unix seconds): a `metric` (labels) and a `value` (time, text) each."""
        parameters: dict[str, str | float] = {"query": promql} if at is None else {"query": promql, "time": at}
        answer = requests.post(self.url + "/api/v1/query", data=parameters, timeout=300)
        if answer.status_code != 200:
            raise RuntimeError(f"VictoriaMetrics: {answer.text}")
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


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
