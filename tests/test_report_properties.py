"""Any arguments, settings, environment and files, for the report hook and for the run report.

With any input, a program ends in time, prints the reason of a failure in one line, shows no
traceback and no secret.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import certbot_renewal_report
import certbot_renewal_run
from support.hooks import Ran
from support.odd_files import Kind, OddFile
from tools.faults.disks import known_text
from tools.servers import faulty
from tools.servers.lineages import (
    DAY,
    install_report_hook,
    install_run_report,
    make_certificate,
    make_lineage,
)

SECRET = "fake-Secret-7f3"
LONGEST_SECONDS = 30  # a program that takes longer hangs


class Program(NamedTuple):
    """One of the programs: its function main, and what installs it in a configuration folder."""

    main: Callable[[Sequence[str], MutableMapping[str, str], str], int]
    install: Callable[[Path], Path]


REPORT_HOOK = Program(certbot_renewal_report.main, install_report_hook)
RUN_REPORT = Program(certbot_renewal_run.main, install_run_report)

# The test suite tries the same examples each time; `make faults` tries others, and many more.
IS_LONG_FORM = "FAULTS_EXAMPLES" in os.environ
MANY_EXAMPLES = settings(
    max_examples=int(os.environ.get("FAULTS_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not IS_LONG_FORM,
    print_blob=IS_LONG_FORM,
)


# ---- Texts -------------------------------------------------------------------------------------
# What somebody might write, right or nearly right. EXIT_STATUS takes TERM; \u0663 is a digit.
LIKELY_TEXTS = [
    "",
    " ",
    "0",
    "1",
    "2",
    "1.5",
    "example.com",
    "a b",
    "/",
    "http://127.0.0.1:1",
    "http://[::1]:1/x",
    "http://x:99999",
    "\u0663",
    "TERM",
]

# Any bytes but NUL, as Python decodes those of arguments and of the environment: bytes that are
# not UTF-8 become surrogates.
DECODED_BYTES = st.binary(max_size=80).filter(lambda data: b"\0" not in data).map(os.fsdecode)

# Any text without NUL and surrogates.
PLAIN_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80)

# The value of an argument or of a variable.
A_VALUE = st.one_of(st.sampled_from(LIKELY_TEXTS), DECODED_BYTES, PLAIN_TEXT)

# Something repeated so often that quadratic work would be noticed.
A_HUGE_TEXT = st.builds(
    lambda text, times: text * times,
    st.sampled_from(["x", " ", "a ", "\u00e9,", "\n", '"', "=", "9", "1d"]),
    st.integers(0, 30_000),
)


# ---- Arguments ---------------------------------------------------------------------------------
REPORT_HOOK_OPTIONS = ["--check", "--dry-run", "--help", "--version", "--config-dir", "-h", "-x"]

# Without --patience: a run report that waits is no run report that hangs.
RUN_REPORT_OPTIONS = [
    *REPORT_HOOK_OPTIONS,
    "--all",
    "--logs-dir",
    "--history",
    "--stdout",
    "--retire",
    "--host",
]


def command_lines(usual: list[str], options: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """Return a strategy for arguments: the usual ones, or options and values in any order."""
    any_arguments = st.lists(st.one_of(st.sampled_from(options), A_VALUE), max_size=4)
    return st.one_of(st.just(usual), any_arguments)


# ---- Environment and env file ------------------------------------------------------------------
VARIABLES = (
    *certbot_renewal_report.SETTINGS,
    *certbot_renewal_report.FORWARDED_VARIABLES,
    "RENEWED_LINEAGE",
    "RENEWED_DOMAINS",
    "FAILED_DOMAINS",
    "EXIT_STATUS",
)
A_VARIABLE = st.sampled_from(VARIABLES)

# Variables of the environment. Linux limits each of them to 128 KiB.
AN_ENVIRONMENT = st.dictionaries(
    A_VARIABLE,
    st.one_of(A_VALUE, A_HUGE_TEXT.filter(lambda text: len(text) < 100_000)),
    max_size=6,
)

# A line of the env file.
AN_ENV_LINE = st.builds(
    lambda name, text: f"{name}={text}", A_VARIABLE, st.one_of(A_VALUE, st.text(max_size=20))
)


# ---- Files -------------------------------------------------------------------------------------
PEM = make_certificate(["example.com", "192.0.2.1"], 1_780_000_000, 90 * DAY)

SECRET_URL = f"https://somebody:{SECRET}@example.com/?token={SECRET}"

# Parts of renewal configurations, of the known file, of certbot's log and of its cli.ini.
LIKELY_LINES = [
    b"cert = x\n",
    b"[renewalparams]\n",
    b"renew_before_expiry = 30 days\n",
    b"renew_before_expiry = 999999y 9mo\n",
    b"\t",
    b'{"web1": {',
    b'"verdicts": {"a": {"not_before": 99999999999999}}, "retired": {"b": -1}, ',
    b'"incident": [1, ["a"], 2, 3], "log_position": "now"}}\n',
    b"2026-11-27 18:06:39,159:DEBUG:certbot._internal.main:certbot version: 5.8.0\n",
    b"2026-11-27 18:06:39,159:DEBUG:x:Notifying user: Processing /x/example.com.conf\n",
    b"2026-11-27 18:06:40,159:ERROR:certbot._internal.renewal:Failed to renew certificate "
    b"example.com with error: " + SECRET_URL.encode() + b"\n",
    b"2026-11-27 18:06:40,159:ERROR:certbot._internal.log:1 renew failure(s)\n",
    b"logs-dir = /dev\n",
]


def replace_byte(position: int, byte: int) -> bytes:
    """Return a certificate in which one byte is another."""
    return PEM[:position] + bytes([byte]) + PEM[position + 1 :]


def encode_lines(lines: Sequence[str]) -> bytes:
    """Return lines as they stand in a file; surrogates become the bytes for which they stand."""
    return "\n".join(lines).encode("utf-8", "surrogateescape")


# The content of a file: bytes, a huge text, settings, a damaged certificate, likely lines.
A_CONTENT = st.one_of(
    st.binary(max_size=300),
    A_HUGE_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.one_of(AN_ENV_LINE, A_VALUE), max_size=6).map(encode_lines),
    st.builds(replace_byte, st.integers(0, len(PEM) - 1), st.integers(0, 255)),
    st.lists(st.sampled_from(LIKELY_LINES)).map(b"".join),
)

# Places in certbot's folder where a program looks for something.
PLACES = [
    "certbot_renewal_report.env",
    "certbot_renewal_report.known",
    "certbot_renewal_report.known.new",
    "certbot_renewal_report.turn",
    "certbot_renewal_deliver.state",
    "token",
    "live",
    "live/example.com/cert.pem",
    "live/.hidden",
    "live/other",
    "live/other/cert.pem",
    "live/\udcff",
    "live/a b 1",
    "renewal",
    "renewal/example.com.conf",
    "renewal/.conf",
    "renewal/other.conf",
    "renewal/\udcff\n.conf",
    "archive",
    "archive/example.com/cert1.pem",
    "archive/example.com/cert2.pem",
    "cli.ini",
    "logs",
    "logs/letsencrypt.log",
    "logs/letsencrypt.log.1",
    "logs/letsencrypt.log.2.gz",
]
AN_ODD_FILE = st.builds(OddFile, st.sampled_from(PLACES), st.sampled_from(Kind), A_CONTENT)


# ---- Situations --------------------------------------------------------------------------------
class Situation(NamedTuple):
    """All that a program finds beside its arguments, where it differs from the usual.

    `environ` are variables, `env_lines` the lines of the env file, [] if there is no such file.
    `odd_files` are put into the configuration folder, one after the other. `lineage_suffix` is
    added to RENEWED_LINEAGE. `server_answers`: else nobody listens at INFLUXDB_URL.
    """

    environ: Mapping[str, str] = {}
    env_lines: Sequence[str] = ()
    odd_files: Sequence[OddFile] = ()
    lineage_suffix: str = ""
    server_answers: bool = True


A_SITUATION = st.builds(
    Situation,
    environ=AN_ENVIRONMENT,
    env_lines=st.lists(AN_ENV_LINE, max_size=3),
    odd_files=st.lists(AN_ODD_FILE, max_size=4),
    lineage_suffix=DECODED_BYTES,
    server_answers=st.booleans(),
)


def make_folder(folder: Path, situation: Situation) -> Path:
    """Make a configuration folder with two certificates; return the lineage's folder in live/."""
    begin = int(time.time()) - DAY
    make_lineage(folder, "example.com", ["example.com"], begin - DAY, 90 * DAY)
    live = make_lineage(folder, "example.com", ["example.com"], begin, 90 * DAY)
    (folder / "token").write_text(SECRET)
    known_file = folder / certbot_renewal_report.KNOWN_FILE
    known_file.write_text(known_text("web1", "example.com", 1))

    for odd_file in situation.odd_files:
        odd_file.put_into(folder)
    env_file = folder / certbot_renewal_report.ENV_FILE
    if situation.env_lines and not env_file.is_dir():
        env_file.unlink(missing_ok=True)
        env_file.write_bytes(encode_lines(situation.env_lines))
    return live


def make_environment(live: Path, situation: Situation, server_url: str) -> dict[str, str]:
    """Return the environment: of a renewal of the lineage, and what the situation has else."""
    environ = {
        "INFLUXDB_URL": server_url if situation.server_answers else "http://127.0.0.1:1",
        "INFLUXDB_TIMEOUT": "0.2",
        "INFLUXDB_TOKEN": f"somebody:{SECRET}",
        "HOSTNAME": "web1",
        "RENEWED_LINEAGE": str(live) + situation.lineage_suffix,
        "RENEWED_DOMAINS": "example.com",
        **situation.environ,
    }
    if "9" in environ["INFLUXDB_TIMEOUT"]:  # many of them are a long time, and no fault
        environ["INFLUXDB_TIMEOUT"] = "0.2"
    return environ


# ---- Running a program -------------------------------------------------------------------------
@pytest.fixture
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no address but loopback be reached, and no name be looked up, whatever a setting is."""
    real_connect = socket.socket.connect
    real_getaddrinfo = socket.getaddrinfo
    loopback = ("127.0.0.1", "::1")

    def connect(self: socket.socket, address: Any) -> None:
        if address[0] not in loopback:
            raise OSError(101, "Network is unreachable")
        real_connect(self, address)

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in loopback:
            raise socket.gaierror(-2, "Name or service not known")
        return real_getaddrinfo(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise an AssertionError in what takes longer."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    handler_before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler_before)


@contextlib.contextmanager
def environment(environ: dict[str, str]) -> Iterator[None]:
    """Replace the environment of this process, and restore it: the programs add to it."""
    environ_before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environ_before)


def run_program(
    capfd: pytest.CaptureFixture[str],
    program: Program,
    script: Path,
    arguments: Sequence[str],
    environ: dict[str, str],
) -> Ran:
    """Run a program in this process, in a real environment; return how it ended."""
    capfd.readouterr()
    with environment(environ), within(LONGEST_SECONDS):
        try:
            status = program.main(arguments, os.environ, str(script))
        except SystemExit as wrong_usage:
            status = int(str(wrong_usage.code))
    out, err = capfd.readouterr()
    return Ran(status, out, err)


def assert_proper_end(ran: Ran, arguments: Sequence[str]) -> None:
    """Assert what each program promises about its end and its output."""
    output = ran.out + ran.err
    assert "Traceback" not in output
    assert ran.status in (0, 1, 2)
    assert SECRET not in output
    if ran.status == 2:  # argparse has shown the usage, and what was wrong in the arguments
        return
    assert ran.out.isascii() or "--stdout" in arguments
    assert ran.err.isascii()
    reasons = 1 if ran.status == 1 else 0
    assert ran.err.count("\n") == reasons + ran.err.count(": warning: ")


def assert_ends_properly(
    capfd: pytest.CaptureFixture[str],
    program: Program,
    arguments: Sequence[str],
    situation: Situation,
    server_url: str,
) -> None:
    """Run a program in a situation, and assert what it promises."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        script = program.install(folder)
        live = make_folder(folder, situation)
        environ = make_environment(live, situation, server_url)
        ran = run_program(capfd, program, script, arguments, environ)
    assert_proper_end(ran, arguments)


@pytest.fixture(scope="module")
def storing_server() -> Iterator[str]:
    """Yield the URL of a server that takes every report."""
    with faulty.serving(faulty.STORED) as url:
        yield url


# ---- The properties ----------------------------------------------------------------------------
FAILED_RUN = OddFile("logs/letsencrypt.log", Kind.FILE, b"".join(LIKELY_LINES))
LONG_SPACES = "HOSTNAME=a" + " " * 100_000 + "b"
LONG_INTERVAL = b"renew_before_expiry = " + b"999999w " * 200_000


@pytest.mark.usefixtures("only_loopback")
@MANY_EXAMPLES
@given(arguments=command_lines([], REPORT_HOOK_OPTIONS), situation=A_SITUATION)
@example([], Situation(env_lines=["HTTP_PROXY=a\0b"]))
@example([], Situation(env_lines=["INFLUXDB_TOKEN_FILE=a\0b"]))
@example(["--dry-run"], Situation({"INFLUXDB_BUCKET": "\udcff"}))
@example(
    [], Situation({"RENEWED_DOMAINS": "a", "INFLUXDB_TOKEN": "\udcff"}, lineage_suffix="\udcff")
)
@example(["--dry-run"], Situation(env_lines=[LONG_SPACES]))
def test_the_report_hook_ends_properly_whatever_it_finds(
    capfd: pytest.CaptureFixture[str],
    storing_server: str,
    arguments: list[str],
    situation: Situation,
) -> None:
    assert_ends_properly(capfd, REPORT_HOOK, arguments, situation, storing_server)


@pytest.mark.usefixtures("only_loopback")
@MANY_EXAMPLES
@given(arguments=command_lines(["--all"], RUN_REPORT_OPTIONS), situation=A_SITUATION)
@example(["--all"], Situation(odd_files=[OddFile("certbot_renewal_report.env", Kind.PIPE)]))
@example(["--all"], Situation(odd_files=[OddFile("certbot_renewal_report.known", Kind.PIPE)]))
@example(["--all"], Situation(odd_files=[OddFile("certbot_renewal_report.known.new", Kind.PIPE)]))
@example(["--all"], Situation(odd_files=[OddFile("live/example.com/cert.pem", Kind.PIPE)]))
@example(["--all"], Situation(odd_files=[OddFile("logs/letsencrypt.log", Kind.PIPE)]))
@example(["--all"], Situation(odd_files=[OddFile("logs/letsencrypt.log", Kind.DEVICE)]))
@example(["--all"], Situation(odd_files=[OddFile("logs", Kind.LINK_TO_ITSELF)]))
@example(["--all"], Situation(odd_files=[FAILED_RUN]))
@example(
    ["--all", "--patience=0.0001"],
    Situation(odd_files=[OddFile("certbot_renewal_report.turn", Kind.PIPE)]),
)
@example(["--all"], Situation(odd_files=[OddFile("live/example.com/cert.pem", Kind.DEVICE)]))
@example(["--all"], Situation(odd_files=[OddFile("renewal/example.com.conf", Kind.PIPE)]))
@example(["--all"], Situation(odd_files=[OddFile("live/other", Kind.LINK_TO_ITSELF)]))
@example(
    ["--all"],
    Situation(odd_files=[OddFile("renewal/example.com.conf", Kind.FILE, b"\n" * 200_000)]),
)
@example(
    ["--all"],
    Situation(odd_files=[OddFile("renewal/example.com.conf", Kind.FILE, LONG_INTERVAL)]),
)
def test_the_run_report_ends_properly_whatever_it_finds(
    capfd: pytest.CaptureFixture[str],
    storing_server: str,
    arguments: list[str],
    situation: Situation,
) -> None:
    assert_ends_properly(capfd, RUN_REPORT, arguments, situation, storing_server)
