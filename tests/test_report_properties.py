"""Whatever is in settings, environment, arguments and on disk: no traceback, one line with the reason, no secret, and an end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import responses
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import certbot_renewal_report
from support.hooks import Ran, start_report_hook, start_run_report
from tools.servers import faulty
from tools.servers.lineages import DAY, install_report_hook, make_certificate, make_lineage

SECRET = "fake-Secret-7f3"
EXAMPLES = int(os.environ.get("FAULTS_EXAMPLES", "150"))
MANY = settings(  # in the suite the same ones each time; make faults has others, many more
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="FAULTS_EXAMPLES" not in os.environ,
    print_blob="FAULTS_EXAMPLES" in os.environ,
)
PEM = make_certificate(["example.com", "192.0.2.1"], 1_780_000_000, 90 * DAY)
SECONDS = 30  # after so many something hangs

# What an environment can hold: every byte but NUL; what is no UTF-8 comes as surrogates.
LIKELY = [
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
BYTES = st.binary(max_size=80).filter(lambda b: b"\0" not in b).map(os.fsdecode)
VALUE = st.one_of(
    st.sampled_from(LIKELY),
    BYTES,
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80),
)
HUGE = st.builds(
    lambda text, times: text * times,
    st.sampled_from(["x", " ", "a ", "\u00e9,", "\n", '"', "=", "9", "1d"]),
    st.integers(0, 30_000),
)
NAMES = (
    *certbot_renewal_report.SETTINGS,
    *certbot_renewal_report.PASSED_ON,
    "RENEWED_LINEAGE",
    "RENEWED_DOMAINS",
    "FAILED_DOMAINS",
    "EXIT_STATUS",
)
ENVIRON = st.dictionaries(
    st.sampled_from(NAMES), st.one_of(VALUE, HUGE.filter(lambda t: len(t) < 100_000)), max_size=6
)
OPTIONS = [
    "--all",
    "--after-dry-run",
    "--history",
    "--stdout",
    "--check",
    "--dry-run",
    "--help",
    "--version",
    "--retire",
    "--host",
    "--config-dir",
    "-h",
    "-x",
]
ARGUMENTS = st.lists(st.one_of(st.sampled_from(OPTIONS), VALUE), max_size=4)
LINE = st.builds(
    lambda name, text: f"{name}={text}",
    st.sampled_from(NAMES),
    st.one_of(VALUE, st.text(max_size=20)),
)
WORDS = [
    b"cert = x\n",
    b"[renewalparams]\n",
    b"renew_before_expiry = 30 days\n",
    b"renew_before_expiry = 999999y 9mo\n",
    b"\t",
]
WORDS += [b"a 1\n", b"example.com 99999999999\n", b"# run report of now\n"]
CONTENT = st.one_of(
    st.binary(max_size=300),
    HUGE.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.one_of(LINE, VALUE), max_size=6).map(
        lambda lines: "\n".join(lines).encode("utf-8", "surrogateescape")
    ),
    st.builds(
        lambda at, byte: PEM[:at] + bytes([byte]) + PEM[at + 1 :],
        st.integers(0, len(PEM) - 1),
        st.integers(0, 255),
    ),
    st.lists(st.sampled_from(WORDS)).map(b"".join),
)
PLACES = [
    "certbot_renewal_report.env",
    "certbot_renewal_report.known",
    "certbot_renewal_report.known.new",
    "token",
]
PLACES += [
    "live",
    "live/example.com/cert.pem",
    "live/.hidden",
    "live/other",
    "live/other/cert.pem",
    "live/\udcff",
    "live/a b 1",
]
PLACES += [
    "renewal",
    "renewal/example.com.conf",
    "renewal/.conf",
    "renewal/other.conf",
    "renewal/\udcff\n.conf",
]
PLACES += ["archive", "archive/example.com/cert1.pem", "archive/example.com/cert2.pem"]
KINDS = ["file", "folder", "pipe", "dangling", "loop", "device", "socket", "gone"]
ODD = st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(KINDS), CONTENT), max_size=4)


def place(folder: Path, where: str, kind: str, content: bytes) -> None:
    """Puts something where certbot or the administrator would have something else."""
    path = folder / where
    with contextlib.suppress(OSError):  # its folder is odd already
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            path.rename(folder / f"away-{len(list(folder.iterdir()))}")
        path.unlink(missing_ok=True)
        if kind == "file":
            path.write_bytes(content)
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            os.mknod(path, stat.S_IFSOCK)  # bind() takes 107 characters
        elif kind != "gone":
            path.symlink_to({"dangling": "nowhere", "loop": path.name, "device": "/dev/zero"}[kind])


@pytest.fixture
def safe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No address but loopback is reached, whatever a setting says, and what hangs is ended."""
    connect = socket.socket.connect

    def only_loopback(self: socket.socket, address: Any) -> None:
        if address[0] not in ("127.0.0.1", "::1"):
            raise OSError(101, "Network is unreachable")
        connect(self, address)

    def only_here(host: str, *rest: Any, **more: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    real = socket.getaddrinfo
    numeric = ("127.0.0.1", "::1")
    monkeypatch.setattr(socket.socket, "connect", only_loopback)
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *a, **k: real(host, *a, **k) if host in numeric else only_here(host),
    )
    before = signal.signal(signal.SIGALRM, hangs)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def run(
    capfd: pytest.CaptureFixture[str], script: Path, arguments: list[str], environ: dict[str, str]
) -> Ran:
    """The hook in this process, with a real environment, and all that it promises of what it says."""
    capfd.readouterr()
    before = dict(os.environ)  # all of it: the hook adds to it
    os.environ.clear()
    os.environ.update(environ)
    signal.alarm(SECONDS)
    try:
        status = certbot_renewal_report.main(arguments, os.environ, str(script))
    except SystemExit as ended:  # wrong usage
        status = int(str(ended.code))
    finally:
        signal.alarm(0)
        os.environ.clear()
        os.environ.update(before)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert status in (0, 1, 2)
    assert SECRET not in out + err
    if status != 2:  # else argparse has shown the usage, and what was given
        assert ("--stdout" in arguments or out.isascii()) and err.isascii()
        assert err.count("\n") == (status == 1) + err.count(": warning: ")
    return Ran(status, out, err)


@pytest.fixture
def stored() -> Iterator[str]:
    """Something that takes every report."""
    with faulty.serving(faulty.answer(b"HTTP/1.1 204 No Content\r\n\r\n")) as url:
        yield url


@MANY
@given(
    arguments=ARGUMENTS,
    environ=ENVIRON,
    lines=st.lists(LINE, max_size=3),
    odd=ODD,
    lineage=BYTES,
    reached=st.booleans(),
)
@example(["--all"], {}, [], [("certbot_renewal_report.env", "pipe", b"")], "", True)
@example(["--all"], {}, [], [("certbot_renewal_report.known", "pipe", b"")], "", True)
@example(["--all"], {}, [], [("certbot_renewal_report.known.new", "pipe", b"")], "", True)
@example(["--all"], {}, [], [("live/example.com/cert.pem", "pipe", b"")], "", True)
@example(["--all"], {}, [], [("live/example.com/cert.pem", "device", b"")], "", True)
@example(["--all"], {}, [], [("renewal/example.com.conf", "pipe", b"")], "", True)
@example(["--all"], {}, [], [("live/other", "loop", b"")], "", True)
@example([], {}, ["HTTP_PROXY=a\0b"], [], "", True)
@example([], {}, ["INFLUXDB_TOKEN_FILE=a\0b"], [], "", True)
@example(["--all"], {}, [], [("renewal/example.com.conf", "file", b"\n" * 200_000)], "", True)
@example(["--dry-run"], {"INFLUXDB_BUCKET": "\udcff"}, [], [], "", True)
@example([], {"RENEWED_DOMAINS": "a", "INFLUXDB_TOKEN": "\udcff"}, [], [], "\udcff", True)
@example(
    ["--all"],
    {},
    [],
    [("renewal/example.com.conf", "file", b"renew_before_expiry = " + b"999999w " * 200_000)],
    "",
    True,
)
@example(["--dry-run"], {}, ["HOSTNAME=a" + " " * 100_000 + "b"], [], "", True)
def test_nothing_that_it_is_given_makes_it_fail_without_a_reason(
    capfd: pytest.CaptureFixture[str],
    safe: None,
    stored: str,
    arguments: list[str],
    environ: dict[str, str],
    lines: list[str],
    odd: list[tuple[str, str, bytes]],
    lineage: str,
    reached: bool,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script, begin = install_report_hook(folder), int(time.time()) - DAY
        for moment in (begin - DAY, begin):
            live = make_lineage(folder, "example.com", ["example.com"], moment, 90 * DAY)
        (folder / "token").write_text(SECRET)
        known = folder / certbot_renewal_report.KNOWN_FILE
        known.write_text("example.com 1\n")
        for what in odd:
            place(folder, *what)
        env_file = folder / "certbot_renewal_report.env"
        if lines and not env_file.is_dir():
            env_file.unlink(missing_ok=True)
            env_file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
        usual = {
            "INFLUXDB_URL": stored if reached else "http://127.0.0.1:1",
            "INFLUXDB_TIMEOUT": "0.2",
            "HOSTNAME": "web1",
        }
        usual |= {
            "INFLUXDB_TOKEN": f"somebody:{SECRET}",
            "RENEWED_LINEAGE": str(live) + lineage.replace("\0", ""),
            "RENEWED_DOMAINS": "example.com",
        }
        environ = {**usual, **environ}
        if "9" in environ.get("INFLUXDB_TIMEOUT", ""):
            environ["INFLUXDB_TIMEOUT"] = "0.2"
        run(capfd, script, arguments, environ)


@pytest.mark.parametrize("odd", ["pipe", "device", "socket"])
@pytest.mark.parametrize(
    "where", ["certbot_renewal_report.env", "live/example.com/cert.pem", "renewal/example.com.conf"]
)
def test_what_is_neither_a_file_nor_a_folder_is_named_and_not_waited_for(
    certbot_folder: Path, where: str, odd: str
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    place(certbot_folder, where, odd, b"")
    done = start_run_report(certbot_folder, "--all", "--dry-run")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{certbot_folder / where}: Neither a file nor a folder: " in done.stderr


def test_a_token_alone_on_a_line_is_not_shown(certbot_folder: Path) -> None:
    (certbot_folder / "certbot_renewal_report.env").write_text(
        "INFLUXDB_TOKEN=\nfakeSecret7f3fakeSecret7f3==\n"
    )
    done = start_report_hook(certbot_folder, "--dry-run")
    assert done.returncode == 1
    assert "line 2 is not NAME=value (not shown, it may hold a secret)" in done.stderr
    assert "fakeSecret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "line", ["HOSTNAME= # none", "HOSTNAME=  # none", "HOSTNAME= ", "HOSTNAME=''# none"]
)
def test_a_comment_behind_nothing_is_a_comment(
    report_hook: Callable[..., Ran], certbot_folder: Path, line: str
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    (certbot_folder / "certbot_renewal_report.env").write_text(line.replace("''#", "'' #") + "\n")
    assert f"host={os.uname().nodename}" in report_hook("--dry-run").out


def test_a_line_of_blanks_takes_no_time(certbot_folder: Path) -> None:
    (certbot_folder / "certbot_renewal_report.env").write_text("HOSTNAME=a" + " " * 300_000 + "b\n")
    make_lineage(
        certbot_folder,
        "example.com",
        ["example.com"],
        int(time.time()) - DAY,
        90 * DAY,
        "\n" * 300_000,
    )
    assert start_report_hook(certbot_folder, "--dry-run").returncode == 0  # within its 60 s


@pytest.mark.parametrize(
    "body",
    [
        '{"message": "bad token ab:fake\\u002dSecret\\u002d7f3"}',
        '{"error": "user somebody has no rights"}',
        f'{{"message": "a password of ab:{SECRET} is wrong"}}',
    ],
)
def test_a_secret_that_the_server_repeats_in_other_letters_is_not_shown(
    report_hook: Callable[..., Ran], certbot_folder: Path, body: str
) -> None:
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY
    )
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, "http://127.0.0.1:8086/api/v2/write", status=401, body=body)
        ran = report_hook(
            RENEWED_LINEAGE=str(live),
            RENEWED_DOMAINS="example.com",
            INFLUXDB_TOKEN=f"somebody:ab:{SECRET}",
        )
    assert "***" in ran.err
    assert SECRET not in ran.err and "ab:" not in ran.err and "user somebody" not in ran.err


@pytest.mark.parametrize(
    "body", ["[1]", "7", '"text"', "null", "{}", '{"message": ["x"]}', '{"error": {"a": 1}}']
)
def test_an_answer_in_json_of_another_kind_is_shown_as_it_is(
    report_hook: Callable[..., Ran], certbot_folder: Path, body: str
) -> None:
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY
    )
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, "http://127.0.0.1:8086/api/v2/write", status=400, body=body)
        ran = report_hook(RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="example.com")
    assert (
        "answered 400 " in ran.err
        and ": correct INFLUXDB_URL, or what stands between this host and InfluxDB" in ran.err
    )


@pytest.mark.parametrize("token", ["e", "a:o"])
def test_a_short_token_does_not_spoil_the_remedy(
    report_hook: Callable[..., Ran], certbot_folder: Path, token: str
) -> None:
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY
    )
    with responses.RequestsMock() as mock:
        mock.add(
            responses.POST,
            "http://127.0.0.1:8086/api/v2/write",
            status=404,
            body='{"message": "bucket not found"}',
        )
        ran = report_hook(
            RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="example.com", INFLUXDB_TOKEN=token
        )
    assert "create telegraf, or correct INFLUXDB_BUCKET" in ran.err


def test_certificates_numbered_by_date_take_no_time(certbot_folder: Path) -> None:
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY
    )
    (certbot_folder / certbot_renewal_report.KNOWN_FILE).write_text("example.com 1\n")
    archive = certbot_folder / "archive" / "example.com"
    (archive / "cert1.pem").rename(archive / "cert999999999.pem")
    (live / "cert.pem").unlink()
    (live / "cert.pem").symlink_to(archive / "cert999999999.pem")
    assert start_run_report(certbot_folder, "--all", "--dry-run").returncode == 0  # within its 60 s


def test_what_certbot_does_not_look_at_is_no_lineage(
    run_report: Callable[..., Ran], certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    for name in (".conf", ".#example.com.conf"):
        (certbot_folder / "renewal" / name).touch()
    (certbot_folder / "live" / ".git").mkdir()
    (certbot_folder / "live" / "loop").symlink_to("loop")
    ran = run_report("--all", "--dry-run")
    assert (ran.status, ran.err) == (0, "")
    assert "certificates=1i,unreadable_count=0i" in ran.out


def test_a_setting_that_is_no_utf_8_is_named(certbot_folder: Path) -> None:
    command, environ = (
        [sys.executable, str(install_report_hook(certbot_folder)), "--dry-run"],
        {b"INFLUXDB_BUCKET": b"\xff", b"HOSTNAME": b"web1"},
    )
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert (
        done.returncode,
        "INFLUXDB_BUCKET is wrong: it must be the name of a bucket" in done.stderr,
    ) == (1, True)


@pytest.mark.parametrize("name", ["a\nb", "\udcff"])
def test_a_deploy_hook_on_what_is_no_name_of_a_lineage_leaves_what_is_known(
    stored: str, certbot_folder: Path, name: str
) -> None:
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY
    )
    odd = live.rename(live.parent / name)
    known = certbot_folder / certbot_renewal_report.KNOWN_FILE
    known.write_text("example.com 1\n")
    done = start_report_hook(
        certbot_folder, INFLUXDB_URL=stored, RENEWED_LINEAGE=str(odd), RENEWED_DOMAINS="example.com"
    )
    assert (done.returncode, done.stderr, known.read_text()) == (0, "", "example.com 1\n")
