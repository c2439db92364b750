"""After any sequence of events, the next run report makes the database equal the disk."""

from __future__ import annotations

import contextlib
import enum
import re
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import certbot_renewal_report
import certbot_renewal_run
from support.buckets import Bucket
from support.hooks import known
from support.lineages import UNREACHABLE, make_empty_folders, remove_lineage
from support.points import Points, renewals_of, state_of, write
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_report_hook, install_run_report, make_lineage

LINEAGES = ("a", "b")
SEND_LINES = certbot_renewal_report.send_lines
DATED = re.compile(r" \d{10}$")  # a line with a time


class Fate(enum.Enum):
    """What becomes of a report."""

    STORED = "stored"
    LOST = "lost"  # InfluxDB cannot be reached
    DELAYED = "delayed"  # it is between Telegraf and InfluxDB; for the host it was delivered
    REPEATED = "repeated"  # it is sent twice


# ---- The host ----------------------------------------------------------------------------------
class Host:
    """A host whose clock the test sets.

    With each event, a second passes. Each certificate begins a day after the one before.

    `now` is the clock of the host, of Telegraf and of InfluxDB. `current` has notBefore of the
    certificates on disk, by lineage; `issued` those that there have ever been. `delayed` are the
    requests that InfluxDB has not received yet, each the lines of a request.
    """

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        """`folder` becomes certbot's folder; no certificate is in it."""
        self.folder = folder
        self.bucket = bucket
        self.environ = {"HOSTNAME": "web1", **bucket.settings}
        self.report_hook = install_report_hook(folder)
        self.run_report = install_run_report(folder)
        make_empty_folders(folder)

        self.now = int(time.time()) - 200
        self.last_begin = self.now - 50 * DAY
        self.current: dict[str, int] = {}
        self.issued: dict[str, set[int]] = defaultdict(set)
        self.delayed: list[str] = []

    def renew(self, lineage: str, fate: Fate | None) -> None:
        """Renew a lineage, or issue its first certificate; None: the hook does not start."""
        self.last_begin += DAY
        names = [f"{lineage}.example.com"]
        live = make_lineage(self.folder, lineage, names, self.last_begin, 90 * DAY)
        self.issued[lineage].add(self.last_begin)
        self.current[lineage] = self.last_begin
        if fate is None:
            return
        environ = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": names[0]}
        self.send(fate, certbot_renewal_report.main, self.report_hook, (), environ)

    def delete(self, lineage: str) -> None:
        """Delete a lineage, if it is there."""
        if self.current.pop(lineage, None) is not None:
            remove_lineage(self.folder, lineage)

    def report_run(self, fate: Fate) -> None:
        """Send the run report."""
        self.send(fate, certbot_renewal_run.main, self.run_report, ("--all",), {})

    def send(
        self,
        fate: Fate,
        main: Callable[[Sequence[str], dict[str, str], str], int],
        script: Path,
        arguments: tuple[str, ...],
        environ: dict[str, str],
    ) -> None:
        """Run a program, whose report has a fate."""
        environ = {**self.environ, **environ}
        if fate is Fate.LOST:
            environ.update(UNREACHABLE)
        send_lines = self.delay_lines if fate is Fate.DELAYED else self.send_lines
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(certbot_renewal_report, "send_lines", send_lines)
            main(arguments, environ, str(script))
            if fate is Fate.REPEATED:
                main(arguments, environ, str(script))

    def send_lines(
        self, settings: certbot_renewal_report.Settings, lines: Sequence[str], droppable: int = 0
    ) -> certbot_renewal_report.SendResult:
        """Send a request to InfluxDB."""
        return SEND_LINES(settings, self.dated(lines), droppable)

    def delay_lines(
        self, settings: certbot_renewal_report.Settings, lines: Sequence[str], droppable: int = 0
    ) -> certbot_renewal_report.SendResult:
        """Take a request that arrives later; the programs believe that it is stored."""
        self.delayed.append("\n".join(self.dated(lines)))
        return certbot_renewal_report.SendResult()

    def dated(self, lines: Sequence[str]) -> list[str]:
        """Return lines with the time of their receiver, as InfluxDB and Telegraf date them."""
        return [line if DATED.search(line) else f"{line} {self.now}" for line in lines]

    def receive_delayed(self, index: int) -> None:
        """Let InfluxDB receive one of the delayed requests; 0 is the oldest."""
        write(self.bucket.influxdb, self.bucket.name, self.delayed.pop(index))


@contextlib.contextmanager
def clock_of(host: Host) -> Iterator[None]:
    """Let both programs see the clock of the host."""
    clock = types.SimpleNamespace(**vars(time))
    clock.time = lambda: float(host.now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certbot_renewal_report, "time", clock)
        patch.setattr(certbot_renewal_run, "time", clock)
        yield


# ---- Events ------------------------------------------------------------------------------------
class Renewal(NamedTuple):
    """certbot renews a lineage; the fate of the hook's report, None: the hook does not start."""

    lineage: str
    fate: Fate | None

    def happen(self, host: Host) -> None:
        """Let it happen."""
        host.renew(self.lineage, self.fate)


class Deletion(NamedTuple):
    """A lineage is deleted, if it is there."""

    lineage: str

    def happen(self, host: Host) -> None:
        """Let it happen."""
        host.delete(self.lineage)


class Run(NamedTuple):
    """certbot has run, and its run report is sent."""

    fate: Fate

    def happen(self, host: Host) -> None:
        """Let it happen."""
        host.report_run(self.fate)


class Arrival(NamedTuple):
    """The newest of the delayed requests reaches InfluxDB, if there is one."""

    def happen(self, host: Host) -> None:
        """Let it happen."""
        if host.delayed:
            host.receive_delayed(-1)


Event = Union[Renewal, Deletion, Run, Arrival]

A_LINEAGE = st.sampled_from(LINEAGES)
A_FATE = st.sampled_from(Fate)
AN_EVENT: st.SearchStrategy[Event] = st.one_of(
    st.builds(Renewal, A_LINEAGE, st.one_of(A_FATE, st.none())),
    st.builds(Deletion, A_LINEAGE),
    st.builds(Run, A_FATE),
    st.builds(Arrival),
)


# ---- The property ------------------------------------------------------------------------------
def assert_lineage_is_as_on_disk(points: Points, lineage: str, host: Host) -> None:
    """Assert that the points of a lineage are what its files say, or that it has ended."""
    renewals = renewals_of(points, lineage)
    name_tag = f"domain={lineage}.example.com"
    assert renewals == {int(point[0]) for point in points if name_tag in point}
    assert renewals <= host.issued[lineage]

    if lineage in host.current:
        for path in (host.folder / "archive" / lineage).glob("cert*"):
            certificate = certbot_renewal_report.read_certificate(str(path), lineage)
            assert certificate.not_before in renewals
        state = state_of(points, lineage)
        assert state["not_before"] == host.current[lineage]
        assert state["run_at"] == host.now
    elif host.current and any(f"lineage={lineage}" in point for point in points):
        assert state_of(points, lineage)["renewal_due"] == 0


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(events=st.lists(AN_EVENT, max_size=20))
def test_after_any_events_a_last_run_report_makes_the_points_equal_the_disk(
    influxdb: InfluxDB, events: list[Event]
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        bucket = Bucket(influxdb)
        host = Host(Path(temporary) / "letsencrypt", bucket)
        with clock_of(host):
            for event in [Run(Fate.STORED), *events, Run(Fate.STORED)]:
                host.now += 1
                event.happen(host)
        while host.delayed:
            host.receive_delayed(0)

        points = bucket.points()
        if host.current:  # all lineages that vanish at once are a fault
            assert known(host.folder) == sorted(host.current)
        for lineage in LINEAGES:
            assert_lineage_is_as_on_disk(points, lineage, host)
