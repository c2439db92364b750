"""Certificates on disk, and the real servers: started once per session, skipped where missing, a failure with REQUIRE_SERVERS=1."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NoReturn

import pytest

from tools.servers.certbot import Authority, start_pebble
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.kapacitor import Inbox, Kapacitor, start_kapacitor
from tools.servers.processes import MissingServer, built_program, free_port


def skip_or_fail(error: MissingServer) -> NoReturn:
    """Skips the test, or fails it in CI: no test passes without its server."""
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(str(error))
    pytest.skip(str(error))


def require_program(name: str) -> None:
    """Makes sure that a server was built."""
    try:
        built_program(name)
    except MissingServer as error:
        skip_or_fail(error)


class Alerting:
    """An InfluxDB, a Kapacitor and an inbox that a test may stop and start again, each with its data."""

    def __init__(self, name: str, folder: Path, box: Inbox) -> None:
        self.name, self.folder, self.box, self.port = name, folder, box, free_port()
        self.stacks = {what: contextlib.ExitStack() for what in ("kapacitor", "influxdb", "pebble")}

    def start_influxdb(self) -> InfluxDB:
        """Starts it, with the data that it had."""
        self.influxdb = self.stacks["influxdb"].enter_context(
            start_influxdb(self.name, self.folder / self.name, self.port)
        )
        return self.influxdb

    def start_kapacitor(self, load: Path) -> Kapacitor:
        """Starts it, with the state that it had."""
        running = start_kapacitor(self.folder / "kapacitor", load, self.influxdb, self.box)
        return self.stacks["kapacitor"].enter_context(running)

    def start_pebble(self, life: int) -> Authority:
        """A CA whose certificates live for so many seconds."""
        try:
            return self.stacks["pebble"].enter_context(start_pebble(self.folder / "pebble", life))
        except MissingServer as error:
            skip_or_fail(error)

    def stop(self, *what: str) -> None:
        """Stops some of them."""
        for name in what:
            self.stacks[name].close()
