"""Fixtures: the programs, run in this process, and the real servers, started once per session.

A test whose server is missing is skipped; with REQUIRE_SERVERS=1 it fails.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import hypothesis
import pytest

import certbot_renewal_report
import certbot_renewal_run
from support.buckets import Bucket
from support.hooks import Ran
from support.installations import Host, start_host
from support.metrics import MetricsAlerting, start_metrics_alerting
from support.renewals import Renewal, renew
from support.servers import Alerting, skip_or_fail, start_alerting
from support.targets import available
from tools.servers.certbot import Authority, start_pebble
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.lineages import install_report_hook, install_run_report
from tools.servers.processes import MissingServer
from tools.servers.prometheus import VictoriaMetrics, start_victoria_metrics
from tools.servers.targets import HAProxy, Sshd, start_haproxy, start_sshd

pytest_plugins = ["support.board"]

# For make mutants: a test that fails is enough, and to shrink its example takes time.
hypothesis.settings.register_profile(
    "mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Skip a test, or fail it in CI, if a fixture of it needs a server that is missing."""
    try:
        yield
    except MissingServer as error:
        skip_or_fail(error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Skip a test, or fail it in CI, if it needs a server that is missing."""
    try:
        yield
    except MissingServer as error:
        skip_or_fail(error)


class InProcess:
    """Runs a program of the project in this process, and asserts what it promises for any input."""

    def __init__(
        self,
        main: Callable[[Sequence[str], dict[str, str], str], int],
        script: Path,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """`main` is the program's, `script` the path from which it seems to run."""
        self.main = main
        self.script = script
        self.capfd = capfd
        self.monkeypatch = monkeypatch

    def __call__(self, *arguments: str, **environ: str) -> Ran:
        """Run it: `report_hook("--check", RENEWED_DOMAINS="example.com", …)`."""
        environ = {"HOSTNAME": "web1", **environ}
        for name in ("REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
            self.monkeypatch.delenv(name, raising=False)
            self.monkeypatch.delenv(name.lower(), raising=False)
        self.capfd.readouterr()
        status = self.main(arguments, environ, str(self.script))
        out, err = self.capfd.readouterr()
        assert "Traceback" not in out + err
        assert (out + err).isascii()
        assert err.count("\n") <= 1 + err.count(": warning: ")
        assert (status == 0) == all(": warning: " in line for line in err.splitlines())
        return Ran(status, out, err)


@pytest.fixture
def report_hook(
    certbot_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """The report hook, installed in the configuration folder."""
    script = install_report_hook(certbot_folder)
    return InProcess(certbot_renewal_report.main, script, capfd, monkeypatch)


@pytest.fixture
def run_report(
    certbot_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """The run report, installed in the configuration folder."""
    script = install_run_report(certbot_folder)
    return InProcess(certbot_renewal_run.main, script, capfd, monkeypatch)


@pytest.fixture
def certbot_folder(tmp_path: Path) -> Path:
    """An empty configuration folder of certbot."""
    folder = tmp_path / "letsencrypt"
    (folder / "renewal-hooks" / "deploy").mkdir(parents=True)
    return folder


@pytest.fixture
def env_file(certbot_folder: Path) -> Path:
    """The path of the env file, which does not exist yet."""
    return certbot_folder / certbot_renewal_report.ENV_FILE


@pytest.fixture
def renewal(certbot_folder: Path) -> Renewal:
    """A certificate that certbot has just renewed, in the configuration folder."""
    return renew(certbot_folder)


@pytest.fixture
def chance(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Chance for the fault trials, the same in each run; FAULTS_SEED gives another one."""
    monkeypatch.setenv("NO_PROXY", "*")
    seed = int(os.environ.get("FAULTS_SEED", "1"))
    print(f"FAULTS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], InfluxDB]]:
    """Gives a running InfluxDB by name, `influxd-1.8`, `influxd-1.12` or `influxd-2`.

    There is one of each per session.
    """
    with contextlib.ExitStack() as stack:
        running: dict[str, InfluxDB] = {}

        def get(name: str) -> InfluxDB:
            if name not in running:
                running[name] = stack.enter_context(
                    start_influxdb(name, tmp_path_factory.mktemp(name))
                )
            return running[name]

        yield get


@pytest.fixture(scope="session")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], VictoriaMetrics]]:
    """Gives a VictoriaMetrics without any data."""
    with contextlib.ExitStack() as stack:

        def get() -> VictoriaMetrics:
            return stack.enter_context(start_victoria_metrics(tmp_path_factory.mktemp("victoria")))

        yield get


@pytest.fixture
def metrics_alerting(tmp_path: Path) -> Iterator[MetricsAlerting]:
    """VictoriaMetrics, vmalert, Alertmanager and an inbox of a test's own."""
    with start_metrics_alerting(tmp_path) as running:
        yield running


@pytest.fixture(params=["influxd-1.8", "influxd-1.12", "influxd-2"])
def influxdb(request: pytest.FixtureRequest, server: Callable[[str], InfluxDB]) -> InfluxDB:
    """Each InfluxDB in turn."""
    return server(request.param)


@pytest.fixture
def bucket(influxdb: InfluxDB) -> Bucket:
    """An empty bucket of each InfluxDB in turn."""
    return Bucket(influxdb)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """A CA whose certificates live for 90 days."""
    with start_pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


@pytest.fixture
def alerting(
    request: pytest.FixtureRequest, tmp_path: Path, server: Callable[[str], InfluxDB]
) -> Iterator[Alerting]:
    """The alerting of one test; the test's parameter names the InfluxDB.

    InfluxDB 1.8 needs seconds to start, so tests share it, and cannot stop it.
    """
    shared = server(request.param) if request.param == "influxd-1.8" else None
    with start_alerting(request.param, tmp_path, shared) as running:
        yield running


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[HAProxy]:
    """A HAProxy with a placeholder as its only certificate."""
    with available(start_haproxy(tmp_path / "haproxy")) as running:
        yield running


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An OpenSSH server."""
    with available(start_sshd(tmp_path_factory.mktemp("sshd"))) as running:
        yield running


@pytest.fixture(scope="module")
def running_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A throwaway host for all tests of a page; a test restores the state that it needs."""
    with start_host(tmp_path_factory.mktemp("machine")) as host:
        yield host
