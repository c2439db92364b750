"""Starts many deploy hooks at the same moment.

    python -m tools.faults.fork_reports < reports.json

Imports the hook once and forks a process for each report. All of them wait until the last is
forked. A line on stdout has the number and the exit status of each process that has ended, as in:
17 0. What the hooks themselves print goes into files.

stdin has a list of reports; each is an object with "environ", "script", the path of the hook, and
"log", the path of the file for its output.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

import requests  # noqa: F401  imported here, so that no process has to load it

import certbot_renewal_report


def run_hook(number: int, report: dict[str, Any], starting_gate: int) -> None:
    """Run the hook in a forked process and end the process; never return.

    `starting_gate` is a pipe: it ends when all processes may start.
    """
    results = os.dup(1)
    log = os.open(report["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.read(starting_gate, 1)

    os.environ.clear()
    os.environ.update(report["environ"])
    status = 99  # the hook raised an error
    try:
        status = certbot_renewal_report.main([], os.environ, report["script"])
    finally:
        sys.stdout.flush()
        os.write(results, f"{number} {status}\n".encode())
        os._exit(status)


def main() -> None:
    """Fork a process for each report, let all of them start, and wait for their ends."""
    reports = json.load(sys.stdin)
    starting_gate, opener = os.pipe()
    for number, report in enumerate(reports):
        if os.fork() == 0:
            os.close(opener)
            run_hook(number, report, starting_gate)
    os.close(opener)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()


if __name__ == "__main__":
    main()
