"""Starts Kapacitor on loopback with its load directory, and a mail server that keeps its mails."""

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
from tools.servers.processes import built_program, free_port, running, wait_for, wait_for_status


class Inbox:
    """A mail server: `mails` holds what has arrived, in order."""

    def __init__(self) -> None:
        """Choose a port; `start_inbox` starts the server."""
        self.mails: list[email.message.EmailMessage] = []
        self.port = free_port()
        self.read_count = 0

    async def handle_DATA(  # noqa: N802 - aiosmtpd calls this name
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        """Take a mail."""
        self.keep(envelope.content)
        return "250 OK"

    def keep(self, content: bytes) -> None:
        """Keep a mail."""
        mail = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(mail, email.message.EmailMessage)
        self.mails.append(mail)

    def subjects(self) -> list[str]:
        """Return the subjects of all mails."""
        return [str(mail["Subject"]) for mail in self.mails]

    def read(self) -> str:
        """Return the subject of the next mail; wait for it."""
        wait_for(lambda: len(self.mails) > self.read_count, "a mail")
        self.read_count += 1
        return self.subjects()[self.read_count - 1]

    def unread(self) -> list[str]:
        """Return the subjects of the mails that `read` has not returned yet."""
        return self.subjects()[self.read_count :]


@contextmanager
def start_inbox(box: Inbox | None = None) -> Iterator[Inbox]:
    """Start a mail server on loopback; an inbox that is passed in keeps its mails and its port."""
    box = box or Inbox()
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


class Kapacitor:
    """A running Kapacitor; `log` is the file with its output, `pid` its process id."""

    def __init__(self, url: str, log: Path, pid: int) -> None:
        """`url` is that of its HTTP API."""
        self.url = url
        self.log = log
        self.pid = pid

    def api(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request to its HTTP API."""
        return requests.request(method, f"{self.url}/kapacitor/v1{path}", timeout=30, **arguments)

    def alert(self, task: str) -> dict[str, int]:
        """Return the statistics of a task's alert node.

        `collected`: rows so far; `working_cardinality`: groups that it knows.
        """
        nodes = self.api("GET", f"/tasks/{task}").json()["stats"]["node-stats"]
        return next(dict(node) for name, node in nodes.items() if name.startswith("alert"))

    def reload(self) -> None:
        """Make it read its load directory again."""
        os.kill(self.pid, signal.SIGHUP)

    def errors(self) -> list[str]:
        """Return the lines of its log that are errors."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if re.search(r"\blvl=error\b", line)]


@contextmanager
def start_kapacitor(
    folder: Path, load: Path, influxdb: InfluxDB, mail: Inbox, token: str = "", login: str = ""
) -> Iterator[Kapacitor]:
    """Start Kapacitor with a load directory, and wait until it is ready.

    The same folder again gives the same state. `token` replaces the InfluxDB's own, `login` has
    further lines for the section [[influxdb]] of the configuration, or sections after it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    conf = folder / "kapacitor.conf"
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
    log = folder / "log"
    with running([built_program("kapacitord"), "-config", str(conf)], log) as child:
        wait_for_status(f"{url}/kapacitor/v1/ping", 204, "kapacitord", child)
        yield Kapacitor(url, log, child.pid)
