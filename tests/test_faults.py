"""Faults made to happen, in short; `make faults` is the long form. Afterwards the database equals the disk, and nothing is half."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import certbot_renewal_report
from support.hooks import known, start_report_hook
from support.servers import require_program
from tools.faults.trials import Disk, by_host, crowd, exchanges, signals
from tools.servers import faulty
from tools.servers.faulty import Fault, Proxy
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_report_hook, make_lineage

SEED = int(os.environ.get("FAULTS_SEED", 1))


@pytest.fixture
def lot(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Chance, the same in each run; another FAULTS_SEED has others."""
    monkeypatch.setenv("NO_PROXY", "*")
    print(f"FAULTS_SEED={SEED}")
    return random.Random(SEED)


# ---- On the way ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["influxd-1.12", "influxd-2"])
def test_after_faults_at_any_byte_one_run_report_makes_the_database_equal_the_disk(
    server: Callable[[str], InfluxDB], tmp_path: Path, lot: random.Random, name: str
) -> None:
    print(exchanges(server(name), tmp_path, lot, 60))


@pytest.mark.parametrize("side", ["request", "response"])
def test_a_connection_that_breaks_once_is_tried_again(
    server: Callable[[str], InfluxDB], tmp_path: Path, side: str
) -> None:
    influxdb, disk = server("influxd-1.12"), Disk(tmp_path)
    proxy, bucket = Proxy(influxdb.url), influxdb.new_bucket()
    with faulty.serving(proxy.serve) as url:
        proxy.befall(Fault("cut", side, 5, only=0))
        done = start_report_hook(
            tmp_path, **{**influxdb.settings(bucket), "INFLUXDB_URL": url, **disk.renewed}
        )
    assert (done.returncode, done.stderr, proxy.connections) == (0, "", 2)
    disk.check_report(by_host(influxdb.points(bucket))["web1"], "web1")


@pytest.mark.parametrize(
    "date",
    [
        "Wed, 25 Nov 20226 03:00:00 GMT",
        "Wed, 25 Nov 2026 99999999999999999:00:00 GMT",
        "yesterday",
        "",
    ],
)
def test_a_date_that_is_none_does_not_matter(certbot_folder: Path, date: str) -> None:
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY
    )
    answer = faulty.answer(f"HTTP/1.1 204 No Content\r\nDate: {date}\r\n\r\n".encode())
    with faulty.serving(answer) as url:
        done = start_report_hook(
            certbot_folder,
            INFLUXDB_URL=url,
            RENEWED_LINEAGE=str(live),
            RENEWED_DOMAINS="example.com",
        )
    assert (done.returncode, done.stderr) == (0, "")


# ---- On the host -----------------------------------------------------------------------------------------------------
def test_a_hook_that_is_stopped_leaves_nothing_half(
    server: Callable[[str], InfluxDB], tmp_path: Path, lot: random.Random
) -> None:
    print(signals(server("influxd-1.12"), tmp_path, lot, 4))


@pytest.mark.parametrize(("name", "count"), [("influxd-1.12", 200), ("influxd-2", 30)])
def test_what_many_hooks_at_once_reported_survives_a_kill_of_influxdb_while_they_write(
    tmp_path: Path, name: str, count: int
) -> None:
    require_program(name)
    print(crowd(name, tmp_path, count))


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """A disk without a byte to spare."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A disk that takes no writes."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


@contextlib.contextmanager
def no_big_files(folder: Path) -> Iterator[None]:
    """A limit of no bytes for each file, as a quota may be; for the children too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def small_disk(certbot_folder: Path) -> Iterator[Path]:
    """certbot's folder on a disk of its own."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", certbot_folder],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(
            f"not allowed here: {mounted.stderr}"
        )  # in CI too: the limit of a file is tested everywhere
    yield certbot_folder
    subprocess.run(["umount", certbot_folder], check=True)


@pytest.mark.parametrize("arguments", [(), ("--all",)], ids=["deploy hook", "run report"])
@pytest.mark.parametrize(
    ("disk", "says"),
    [
        (full, "No space left on device"),
        (read_only, "Read-only file system"),
        (no_big_files, "File too large"),
    ],
)
def test_a_disk_that_takes_nothing_costs_a_warning_and_no_report(
    server: Callable[[str], InfluxDB],
    request: pytest.FixtureRequest,
    certbot_folder: Path,
    disk: Callable[[Path], contextlib.AbstractContextManager[None]],
    says: str,
    arguments: tuple[str, ...],
) -> None:
    if disk is not no_big_files:
        request.getfixturevalue("small_disk")
    influxdb, house = server("influxd-1.12"), Disk(certbot_folder)
    settings = influxdb.settings(influxdb.new_bucket())
    environ = {**settings, **({} if arguments else house.renewed)}
    install_report_hook(certbot_folder)
    house.known.write_text("other 1\n")
    pipe = subprocess.PIPE  # run_hook would write its copy of the hook
    command = [sys.executable, "-B", str(house.script), *arguments]
    with disk(certbot_folder):
        done = subprocess.run(
            command,
            env={"HOSTNAME": "web1", **environ},
            stdout=pipe,
            stderr=pipe,
            text=True,
            timeout=60,
        )
    assert (done.returncode, "reported into" in done.stdout) == (0, True)
    assert done.stderr == (
        f"certbot_renewal_report: warning: {house.known}: {says}: make it writable, or a certificate that ends must be told with --retire\n"
    )
    assert house.known.read_text() == "other 1\n"
    house.check_report(by_host(influxdb.points(settings["INFLUXDB_BUCKET"]))["web1"], "web1")
    again = start_report_hook(certbot_folder, *arguments, **environ)
    assert (again.returncode, again.stderr) == (0, "")
    assert known(certbot_folder) == (["example.com"] if arguments else ["other", "example.com"])


def test_a_stdout_that_is_full_costs_no_report(
    server: Callable[[str], InfluxDB], certbot_folder: Path
) -> None:
    influxdb, house = server("influxd-1.12"), Disk(certbot_folder)
    settings = influxdb.settings(influxdb.new_bucket())
    with Path("/dev/full").open("wb") as nowhere:
        command, environ = (
            [sys.executable, str(house.script)],
            {"HOSTNAME": "web1", **settings, **house.renewed},
        )
        done = subprocess.run(
            command, env=environ, stdout=nowhere, stderr=subprocess.PIPE, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, b"")
    house.check_report(by_host(influxdb.points(settings["INFLUXDB_BUCKET"]))["web1"], "web1")


@pytest.mark.parametrize(
    ("target", "says"), [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_a_report_that_stdout_does_not_take_is_not_known_as_reported(
    certbot_folder: Path, target: str, says: str
) -> None:
    house = Disk(certbot_folder)
    house.known.write_text("other 1\n")
    command = f"exec {sys.executable} {house.script} --all --stdout {target}"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"HOSTNAME": "web1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        1,
        f"certbot_renewal_report: stdout: {says}: nothing was taken\n",
    )
    assert house.known.read_text() == "other 1\n"


@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["deploy hook", "check"])
def test_what_cannot_be_read_is_not_lost(
    server: Callable[[str], InfluxDB], certbot_folder: Path, arguments: tuple[str, ...]
) -> None:
    influxdb, house = server("influxd-1.12"), Disk(certbot_folder)
    house.known.write_bytes(b"other 1\n\xff\n")
    done = start_report_hook(
        certbot_folder, *arguments, **influxdb.settings(influxdb.new_bucket()), **house.renewed
    )
    assert (
        done.returncode,
        f"{certbot_renewal_report.KNOWN_FILE}: not UTF-8 text" in done.stderr,
    ) == (1, True)
    assert house.known.read_bytes() == b"other 1\n\xff\n"
