"""The programs of this project as processes, and what they leave behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st

import certbot_renewal_report
import certbot_renewal_run
from tools import ROOT
from tools.servers.lineages import install_report_hook, install_run_report


def start(program: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the project as a process, to its end."""
    if "MUTANT_UNDER_TEST" in os.environ:
        pytest.skip("mutmut changes the hook in its own process only")
    environ = {"HOSTNAME": "web1", **environ}
    return subprocess.run(
        [sys.executable, str(program), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def start_report_hook(
    folder: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the report hook as certbot starts it: a process, from its place in the hooks folder."""
    return start(install_report_hook(folder), *arguments, **environ)


def start_run_report(
    folder: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run certbot_renewal_run.py as a process, from its place in the hooks folder."""
    return start(install_run_report(folder), *arguments, **environ)


@dataclass
class Ran:
    """How a program ended: its exit status, and what it printed to stdout and stderr."""

    status: int
    out: str
    err: str


RUN_REPORT = "/etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py --all"


# Text that line protocol can hold as a tag: no control character, and no backslash where it would
# escape something.
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(
    lambda text: not re.search(r"\\[,= ]|\\$", text)
)


def known(folder: Path, host: str = "web1") -> list[str]:
    """The lineages that were reported last for a host tag, sorted."""
    known_file = certbot_renewal_report.KnownFile(str(folder), host)
    return sorted(known_file.read([]).verdicts)


def next_second() -> None:
    """Points of two reports within one second are the same points."""
    begin = int(time.time())
    while int(time.time()) == begin:
        time.sleep(0.01)


def set_clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    """Let both programs believe that it is a certain time, in Unix seconds."""
    clock = types.SimpleNamespace(**{**vars(time), "time": lambda: now})
    monkeypatch.setattr(certbot_renewal_report, "time", clock)
    monkeypatch.setattr(certbot_renewal_run, "time", clock)


# The command of docs/run-reports.md for cron.
RUN_REPORTS = (ROOT / "docs" / "run-reports.md").read_text()
(CRON,) = re.findall(r"(?m)^ *17 3,15 \* \* \* root (certbot .*)$", RUN_REPORTS)
