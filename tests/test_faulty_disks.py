"""Disks that are full, read-only, limited or damaged, and a stdout that takes nothing."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

import certbot_renewal_report
from support.hooks import known, start_report_hook, start_run_report
from tools.faults.disks import Disk, Program, known_text, stored_by_host
from tools.servers.influxdb import InfluxDB

OTHER = known_text("web1", "other", 1)  # a known file with another lineage than the one on disk
START = {Program.DEPLOY_HOOK: start_report_hook, Program.RUN_REPORT: start_run_report}


class Reporting(NamedTuple):
    """A disk whose known file has the lineage `other` only, and where its reports go."""

    disk: Disk
    influxdb: InfluxDB
    bucket: str

    def environ(self, program: Program) -> dict[str, str]:
        """Return the environment of a report."""
        return self.disk.environ(program, self.influxdb.settings(self.bucket))

    def expect_renewal_stored(self) -> None:
        """Expect that the renewal on disk is stored."""
        stored = stored_by_host(self.influxdb, self.bucket)
        self.disk.expect_renewal_stored(stored["web1"], "web1")


@pytest.fixture
def reporting(server: Callable[[str], InfluxDB], certbot_folder: Path) -> Reporting:
    """A disk in certbot's folder, and InfluxDB 1.12."""
    influxdb = server("influxd-1.12")
    disk = Disk(certbot_folder)
    disk.known.write_text(OTHER)
    return Reporting(disk, influxdb, influxdb.new_bucket())


def start_in_place(
    disk: Disk, program: Program, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a program as a process that writes nothing but what the program itself writes.

    `start_report_hook` would install it again, and Python would write its bytecode.
    """
    return subprocess.run(
        [sys.executable, "-B", str(disk.scripts[program]), *program.arguments],
        env={"HOSTNAME": "web1", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


# ---- Disks that take no writes -----------------------------------------------------------------
@pytest.fixture
def small_disk(certbot_folder: Path) -> Iterator[None]:
    """Mount a small disk at certbot's folder."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "none", certbot_folder],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        # In CI, too: the limit of a file's size is tested everywhere.
        pytest.skip(f"not allowed here: {mounted.stderr}")
    yield
    subprocess.run(["umount", certbot_folder], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk of a folder to its last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make the disk of a folder read-only."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


@contextlib.contextmanager
def no_file_size() -> Iterator[None]:
    """Limit files to no bytes, as a quota may do, for this process and its children."""
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard_limit))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft_limit, hard_limit))


def assert_reported_with_warning(
    reporting: Reporting,
    program: Program,
    faulty_disk: AbstractContextManager[None],
    reason: str,
) -> None:
    """Assert that a report is sent though the known file cannot be written, and what follows."""
    disk = reporting.disk
    environ = reporting.environ(program)
    with faulty_disk:
        ended = start_in_place(disk, program, environ)

    assert ended.returncode == 0
    assert "reported to" in ended.stdout
    assert ended.stderr == (
        f"certbot_renewal_report: warning: {disk.known}: {reason}: make the file writable; "
        "until then, retired certificates are only reported by certbot_renewal_run.py --retire\n"
    )
    assert disk.known.read_text() == OTHER
    reporting.expect_renewal_stored()

    again = START[program](disk.folder, *program.arguments, **environ)
    assert again.returncode == 0
    assert again.stderr == ""
    assert known(disk.folder) == ["example.com"]


@pytest.mark.parametrize("program", Program)
@pytest.mark.parametrize(
    ("make_faulty", "reason"),
    [(full, "No space left on device"), (read_only, "Read-only file system")],
)
def test_a_disk_that_takes_no_writes_causes_a_warning_and_the_report_is_sent(
    small_disk: None,
    reporting: Reporting,
    program: Program,
    make_faulty: Callable[[Path], AbstractContextManager[None]],
    reason: str,
) -> None:
    faulty_disk = make_faulty(reporting.disk.folder)
    assert_reported_with_warning(reporting, program, faulty_disk, reason)


@pytest.mark.parametrize("program", Program)
def test_a_limit_of_file_sizes_causes_a_warning_and_the_report_is_sent(
    reporting: Reporting, program: Program
) -> None:
    assert_reported_with_warning(reporting, program, no_file_size(), "File too large")


# ---- A stdout that takes nothing ---------------------------------------------------------------
def test_a_full_stdout_does_not_keep_a_report_from_being_sent(reporting: Reporting) -> None:
    script = reporting.disk.scripts[Program.DEPLOY_HOOK]
    with Path("/dev/full").open("wb") as full_device:
        ended = subprocess.run(
            [sys.executable, str(script)],
            env={"HOSTNAME": "web1", **reporting.environ(Program.DEPLOY_HOOK)},
            stdout=full_device,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert ended.returncode == 0
    assert ended.stderr == b""
    reporting.expect_renewal_stored()


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_a_printed_report_that_stdout_does_not_take_is_not_known_as_reported(
    certbot_folder: Path, redirection: str, reason: str
) -> None:
    disk = Disk(certbot_folder)
    disk.known.write_text(OTHER)
    script = disk.scripts[Program.RUN_REPORT]
    command = f"exec {sys.executable} {script} --all --stdout {redirection}"

    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"HOSTNAME": "web1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 1
    assert ended.stderr == (
        f"certbot_renewal_run: stdout: {reason}: the report was not written, "
        "check the program that reads it\n"
    )
    assert disk.known.read_text() == OTHER


# ---- A damaged known file ----------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["deploy hook", "check"])
def test_a_known_file_that_cannot_be_read_is_named_and_not_replaced(
    reporting: Reporting, arguments: tuple[str, ...]
) -> None:
    disk = reporting.disk
    damaged = b'{"web1": {}}\xff'
    disk.known.write_bytes(damaged)

    ended = start_report_hook(disk.folder, *arguments, **reporting.environ(Program.DEPLOY_HOOK))

    assert ended.returncode == 1
    assert f"{certbot_renewal_report.KNOWN_FILE}: not UTF-8 text" in ended.stderr
    assert disk.known.read_bytes() == damaged
