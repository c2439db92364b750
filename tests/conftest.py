"""Certificates on disk, and the real servers: started once per session, skipped where missing, a failure with REQUIRE_SERVERS=1."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

import certbot_renewal_report
import start_certbot
import start_kapacitor
import start_prometheus
import start_servers
from start_certbot import Authority, put_hook
from start_kapacitor import Inbox, Kapacitor
from start_prometheus import VictoriaMetrics
from start_servers import InfluxDB, free_port

# For make mutants: that a test fails is enough, and the least example that makes it fail would take its time.
hypothesis.settings.register_profile("mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])


def run_hook(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The hook as certbot starts it: a process, from its place in the hooks folder."""
    if "MUTANT_UNDER_TEST" in os.environ:
        pytest.skip("mutmut changes the hook in its own process only")
    environ = {"HOSTNAME": "web1", **environ}
    return subprocess.run([sys.executable, str(put_hook(folder)), *arguments], env=environ, capture_output=True, text=True, timeout=60)


@dataclass
class Ran:
    """How the hook ended, and what it said."""

    status: int
    out: str
    err: str


@pytest.fixture
def hook(certbot_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs the hook in this process: `hook("--check", RENEWED_DOMAINS="example.com", …)`. Whatever the input, it keeps its promises."""
    script = str(put_hook(certbot_folder))

    def run(*arguments: str, **environ: str) -> Ran:
        environ = {"HOSTNAME": "web1", **environ}
        for name in ("REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        capfd.readouterr()
        status = certbot_renewal_report.main(arguments, environ, script)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert (out + err).isascii()
        assert err.count("\n") <= 1 + err.count(": warning: ")
        assert (status == 0) == all(": warning: " in line for line in err.splitlines())
        return Ran(status, out, err)

    return run


@pytest.fixture
def certbot_folder(tmp_path: Path) -> Path:
    """An empty configuration folder of certbot."""
    folder = tmp_path / "letsencrypt"
    (folder / "renewal-hooks" / "deploy").mkdir(parents=True)
    return folder


def missing(error: start_servers.MissingServer) -> NoReturn:
    """Skips the test, or fails it in CI: no test passes without its server."""
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(str(error))
    pytest.skip(str(error))


def require(name: str) -> None:
    """Makes sure that a server was built."""
    try:
        start_servers.binary(name)
    except start_servers.MissingServer as error:
        missing(error)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], InfluxDB]]:
    """Gives a running InfluxDB by name (`influxd-1.8`, `influxd-1.12`, `influxd-2`), one per session."""
    with contextlib.ExitStack() as stack:
        running: dict[str, InfluxDB] = {}

        def get(name: str) -> InfluxDB:
            require(name)
            if name not in running:
                running[name] = stack.enter_context(start_servers.influxdb(name, tmp_path_factory.mktemp(name)))
            return running[name]

        yield get


@pytest.fixture(scope="session")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], VictoriaMetrics]]:
    """Gives a VictoriaMetrics without any data."""
    with contextlib.ExitStack() as stack:

        def get() -> VictoriaMetrics:
            try:
                return stack.enter_context(start_prometheus.victoria_metrics(tmp_path_factory.mktemp("victoria")))
            except start_servers.MissingServer as error:
                missing(error)

        yield get


@pytest.fixture(params=["influxd-1.8", "influxd-1.12", "influxd-2"])
def influxdb(request: pytest.FixtureRequest, server: Callable[[str], InfluxDB]) -> InfluxDB:
    """Each InfluxDB in turn."""
    return server(request.param)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """A CA whose certificates live for 90 days."""
    try:
        with start_certbot.pebble(tmp_path_factory.mktemp("pebble")) as running:
            yield running
    except start_servers.MissingServer as error:
        missing(error)


class House:
    """An InfluxDB, a Kapacitor and an inbox that a test may stop and start again, each with its data."""

    def __init__(self, name: str, folder: Path, box: Inbox) -> None:
        self.name, self.folder, self.box, self.port = name, folder, box, free_port()
        self.stacks = {what: contextlib.ExitStack() for what in ("kapacitor", "influxdb", "pebble")}

    def start_influxdb(self) -> InfluxDB:
        """Starts it, with the data that it had."""
        self.influxdb = self.stacks["influxdb"].enter_context(start_servers.influxdb(self.name, self.folder / self.name, self.port))
        return self.influxdb

    def start_kapacitor(self, load: Path) -> Kapacitor:
        """Starts it, with the state that it had."""
        running = start_kapacitor.kapacitor(self.folder / "kapacitor", load, self.influxdb, self.box)
        return self.stacks["kapacitor"].enter_context(running)

    def start_pebble(self, life: int) -> Authority:
        """A CA whose certificates live for so many seconds."""
        try:
            return self.stacks["pebble"].enter_context(start_certbot.pebble(self.folder / "pebble", life))
        except start_servers.MissingServer as error:
            missing(error)

    def stop(self, *what: str) -> None:
        """Stops some of them."""
        for name in what:
            self.stacks[name].close()


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """A house of its own for a test; its parameter is the InfluxDB."""
    for name in (request.param, "kapacitord"):
        require(name)
    with start_kapacitor.inbox() as box:
        found = House(request.param, tmp_path, box)
        try:
            yield found
        finally:
            found.stop(*found.stacks)
