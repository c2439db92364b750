"""The real servers that tests start, and what happens when one is not built."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from tools.servers.certbot import Authority, start_pebble
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.kapacitor import Inbox, Kapacitor, start_inbox, start_kapacitor
from tools.servers.processes import MissingServer, built_program, free_port


def skip_or_fail(error: MissingServer) -> NoReturn:
    """Skip the test; with REQUIRE_SERVERS=1 fail it, so that CI runs every test."""
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(str(error))
    pytest.skip(str(error))


def require_program(name: str) -> None:
    """Skip or fail the test if a server is not built."""
    try:
        built_program(name)
    except MissingServer as error:
        skip_or_fail(error)


def make_stacks() -> dict[str, contextlib.ExitStack]:
    """Return an empty stack for each server of an Alerting."""
    return {name: contextlib.ExitStack() for name in ("kapacitor", "influxdb", "pebble")}


@dataclass
class Alerting:
    """The alerting of one test: an InfluxDB, a Kapacitor and the inbox in which its mails arrive.

    A test starts them in this order, may stop each of them, and start it again with its data.
    `port` is InfluxDB's. `influxdb` is set by start_influxdb(). `shared` is an InfluxDB that runs
    already, and that the test must not stop; None: the test has its own.
    """

    influxdb_name: str
    folder: Path
    inbox: Inbox
    shared: InfluxDB | None = None
    port: int = field(default_factory=free_port)
    stacks: dict[str, contextlib.ExitStack] = field(default_factory=make_stacks)
    influxdb: InfluxDB = field(init=False)

    def start_influxdb(self) -> InfluxDB:
        """Start InfluxDB, with the data that it had before."""
        if self.shared is not None:
            self.influxdb = self.shared
            return self.influxdb
        data_folder = self.folder / self.influxdb_name
        starting = start_influxdb(self.influxdb_name, data_folder, self.port)
        self.influxdb = self.stacks["influxdb"].enter_context(starting)
        return self.influxdb

    def start_kapacitor(self, load_folder: Path) -> Kapacitor:
        """Start Kapacitor, with the alert states that it had before."""
        data_folder = self.folder / "kapacitor"
        starting = start_kapacitor(data_folder, load_folder, self.influxdb, self.inbox)
        return self.stacks["kapacitor"].enter_context(starting)

    def start_pebble(self, lifetime: int) -> Authority:
        """Start a CA whose certificates have a lifetime of so many seconds."""
        starting = start_pebble(self.folder / "pebble", lifetime)
        try:
            return self.stacks["pebble"].enter_context(starting)
        except MissingServer as error:
            skip_or_fail(error)

    def stop(self, *names: str) -> None:
        """Stop some of: kapacitor, influxdb, pebble."""
        assert self.shared is None or "influxdb" not in names, "other tests use it too"
        for name in names:
            self.stacks[name].close()


@contextlib.contextmanager
def start_alerting(
    influxdb_name: str, folder: Path, shared: InfluxDB | None = None
) -> Iterator[Alerting]:
    """Start an inbox, and give the test the alerting around it; stop what the test has started."""
    require_program(influxdb_name)
    require_program("kapacitord")
    with start_inbox() as inbox:
        alerting = Alerting(influxdb_name, folder, inbox, shared)
        try:
            yield alerting
        finally:
            for stack in alerting.stacks.values():
                stack.close()
