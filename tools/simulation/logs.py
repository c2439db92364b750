"""certbot's log on a simulated host: its runs, as `read_certbot_log` would find them there."""

from __future__ import annotations

import time
from collections.abc import Mapping

import certbot_renewal_run as run_program

RUN_SECONDS = 30  # how long a run of certbot takes
LONGEST_LOG = 20  # runs

CHALLENGE_FAILED = "The CA could not connect to the server: Timeout during connect"
CA_AWAY = "HTTPSConnectionPool: Max retries exceeded"
PARSE_FAILED = "expected cert.pem to be a symlink"
RUN_FAILED = "The requested nginx plugin does not appear to be installed"
IS_LOCKED = "Another instance of Certbot is already running."


class Log:
    """certbot's log on a host: its last runs, or the problem of a log that cannot be read."""

    def __init__(self, problem: str = "") -> None:
        """At first there are no runs."""
        self.problem = problem
        self.runs: list[run_program.CertbotRun] = []

    def add(self, run: run_program.CertbotRun) -> None:
        """Add a run; old ones are removed."""
        self.runs = [*self.runs[-LONGEST_LOG + 1 :], run]

    def read(self, after: str) -> run_program.CertbotLog:
        """Return the runs after a position, as `read_certbot_log` does; after "": the newest."""
        if self.problem:
            return run_program.CertbotLog([], self.problem)
        positions = [run.position for run in self.runs]
        if after in positions:
            runs = self.runs[positions.index(after) + 1 :]
        elif after:
            runs = self.runs
        else:
            runs = self.runs[-1:]
        newest = self.runs[-1] if self.runs else None
        return run_program.CertbotLog(runs, "", newest)


def make_run(
    clock: float,
    certbot: str,
    results: Mapping[str, run_program.LineageResult],
    *,
    mode: str = "renew",
    failure: str = "",
) -> run_program.CertbotRun:
    """Return a run of certbot as its log shows it.

    `clock` is what the host's clock said when it began, `certbot` its version.
    """
    milliseconds = int(clock % 1 * 1000)
    position = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(clock)) + f",{milliseconds:03d}"
    return run_program.CertbotRun(
        position=position,
        started_at=int(clock),
        ended_at=int(clock) + RUN_SECONDS,
        version=certbot,
        mode=mode,
        is_dry_run=False,
        is_finished=True,
        results=dict(results),
        failure=failure,
        is_locked=failure == IS_LOCKED,
    )


def result_of(
    result: str, reason: str = "", window: tuple[float, float] | None = None
) -> run_program.LineageResult:
    """Return the result of a lineage in a run; `window`: the CA's (ARI), in Unix seconds."""
    whole_seconds = (int(window[0]), int(window[1])) if window else None
    return run_program.LineageResult(result, reason, whole_seconds)


def failing_lineages(results: Mapping[str, run_program.LineageResult]) -> list[str]:
    """Return the lineages that failed, or could not be read, in a run."""
    return [
        lineage
        for lineage, result in results.items()
        if result.result in (run_program.FAILED, run_program.UNREADABLE)
    ]
