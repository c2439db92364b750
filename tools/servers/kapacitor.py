"""A real Kapacitor on loopback, with its load directory, its InfluxDB and a mail server that keeps what arrives."""

from __future__ import annotations

import email.message
import email.policy
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from aiosmtpd.controller import Controller

from tools.servers.influxdb import InfluxDB
from tools.servers.processes import built_program, free_port, running, wait_for

READY_SECONDS = 60


class Inbox:
    """A mail server: `mails` holds what arrived, in order."""

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []
        self.port = free_port()
        self.number = 0  # of those that were read

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keeps a mail."""
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, email.message.EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def subjects(self) -> list[str]:
        """What the mails are about."""
        return [str(mail["Subject"]) for mail in self.mails]

    def read(self) -> str:
        """What the next mail is about; waits for it."""
        wait_for(lambda: len(self.mails) > self.number, "a mail")
        self.number += 1
        return self.subjects()[self.number - 1]

    def unread(self) -> list[str]:
        """What the mails after that are about."""
        return self.subjects()[self.number :]


@contextmanager
def start_inbox(box: Inbox | None = None) -> Iterator[Inbox]:
    """Starts a mail server on loopback."""
    box = box or Inbox()
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


class Kapacitor:
    """A running Kapacitor."""

    def __init__(self, url: str, log: Path, pid: int) -> None:
        self.url, self.log, self.pid = url, log, pid

    def api(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """A call of its HTTP API."""
        return requests.request(method, f"{self.url}/kapacitor/v1{path}", timeout=30, **arguments)

    def alert(self, task: str) -> dict[str, int]:
        """The statistics of a task's alert node: `collected` rows so far, `working_cardinality` groups known."""
        nodes = self.api("GET", f"/tasks/{task}").json()["stats"]["node-stats"]
        return next(dict(node) for name, node in nodes.items() if name.startswith("alert"))

    def reload(self) -> None:
        """Reads the load directory anew."""
        os.kill(self.pid, signal.SIGHUP)

    def errors(self) -> list[str]:
        """Lines of its log that are errors."""
        return [
            line for line in self.log.read_text().splitlines() if re.search(r"\blvl=error\b", line)
        ]


@contextmanager
def start_kapacitor(
    folder: Path, load: Path, influxdb: InfluxDB, mail: Inbox, token: str = "", login: str = ""
) -> Iterator[Kapacitor]:
    """Kapacitor with a load directory, ready; the same folder again gives the same state. `login` are more settings of its InfluxDB."""
    folder.mkdir(parents=True, exist_ok=True)
    port, conf, log = free_port(), folder / "kapacitor.conf", folder / "log"
    conf.write_text(f"""hostname = "127.0.0.1"
data_dir = "{folder}/data"
skip-config-overrides = true
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
[load]
enabled = true
dir = "{load}"
[replay]
dir = "{folder}/replay"
[storage]
boltdb = "{folder}/kapacitor.db"
[logging]
file = "STDERR"
level = "INFO"
[[influxdb]]
enabled = true
default = true
name = "default"
urls = ["{influxdb.url}"]
token = "{token or influxdb.token}"
disable-subscriptions = true
{login}
[smtp]
enabled = true
host = "127.0.0.1"
port = {mail.port}
from = "kapacitor@example.com"
to = ["admin@example.com"]
no-verify = true
idle-timeout = "1s"
[reporting]
enabled = false
""")
    url = f"http://127.0.0.1:{port}"
    with running([built_program("kapacitord"), "-config", str(conf)], log) as child:
        wait_for(
            lambda: requests.get(url + "/kapacitor/v1/ping", timeout=5).status_code == 204,
            "kapacitord",
            READY_SECONDS,
            child,
        )
        yield Kapacitor(url, log, child.pid)
