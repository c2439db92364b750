"""compose/alerts.yaml on the real Kapacitor: the alerts, and the mail server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from support.servers import require_program
from tools import ROOT
from tools.servers.influxdb import InfluxDB
from tools.servers.processes import built_program, free_port, running, wait_for

COMPOSE = ROOT / "compose"
# Matches: ${SMTP_PORT:-25}
WITH_DEFAULT = re.compile(r"\$\{\w+:-(?P<default>.*)\}")


def container_environment() -> dict[str, str]:
    """Return the environment of the container, with EMAIL and SMTP_HOST set and nothing else."""
    service = yaml.safe_load((COMPOSE / "alerts.yaml").read_text())["services"]["kapacitor"]
    environ = {}
    for name, value in service["environment"].items():
        value = WITH_DEFAULT.sub(r"\g<default>", value)
        value = re.sub(r"\$\{SMTP_HOST:.*\}", "mail.example.com", value)
        environ[name] = re.sub(r"\$\{EMAIL:.*\}", "admin@example.net", value)
    return environ


class KapacitorApi:
    """The API of a Kapacitor on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        """`port` is that of its HTTP API."""
        self.url = f"http://127.0.0.1:{port}/kapacitor/v1"

    def get(self, path: str) -> Any:
        """Return the answer to a GET."""
        return requests.get(f"{self.url}/{path}", timeout=5).json()

    def tasks(self) -> set[str]:
        """Return the names of the tasks."""
        return {task["id"] for task in self.get("tasks")["tasks"]}

    def handlers(self) -> list[str]:
        """Return the kinds of the topic's handlers."""
        handlers = self.get("alerts/topics/certbot_renewal/handlers")["handlers"]
        return [handler["kind"] for handler in handlers]


@pytest.fixture
def kapacitor_conf(server: Callable[[str], InfluxDB], tmp_path: Path) -> Path:
    """compose/kapacitor.conf with the folders and the InfluxDB of this machine."""
    require_program("kapacitord")
    text = (COMPOSE / "kapacitor.conf").read_text()
    text = text.replace("/var/lib/kapacitor", str(tmp_path))
    text = text.replace("/etc/kapacitor/load", str(ROOT / "kapacitor"))
    conf = tmp_path / "kapacitor.conf"
    conf.write_text(text.replace("http://influxdb:8086", server("influxd-1.12").url))
    return conf


def test_kapacitor_loads_the_alerts_and_takes_the_mail_server_from_its_environment(
    kapacitor_conf: Path, tmp_path: Path
) -> None:
    port = free_port()
    api = KapacitorApi(port)
    environ = {**container_environment(), "KAPACITOR_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}"}
    command = [built_program("kapacitord"), "-config", str(kapacitor_conf)]
    tasks = {path.stem for path in (ROOT / "kapacitor" / "tasks").glob("*.yaml")}
    with running(command, tmp_path / "log", environ) as child:
        wait_for(lambda: api.tasks() == tasks, "the tasks", child=child)
        wait_for(lambda: api.handlers() == ["smtp"], "the handler", child=child)
        (smtp,) = api.get("config/smtp")["elements"]

    names = ("enabled", "host", "port", "from", "to", "username", "password")
    assert {name: smtp["options"][name] for name in names} == {
        "enabled": True,
        "host": "mail.example.com",
        "port": 25,
        "from": "admin@example.net",
        "to": ["admin@example.net"],
        "username": "",
        "password": False,  # not set
    }
    assert "lvl=error" not in (tmp_path / "log").read_text()
