"""Everything that can be wrong: each time one clear line with the remedy, exit status 1, and whatever can be reported is reported."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import responses

from support.hooks import Ran, start_report_hook
from tools.servers import faulty
from tools.servers.lineages import DAY, install_report_hook, make_lineage

URL = "http://influx.example.com:8086"
SECRET = "fake-secret"
Hook = Callable[..., Ran]


@pytest.fixture
def renewed(certbot_folder: Path) -> dict[str, str]:
    """What certbot gives a deploy hook, and where it reports to."""
    live = make_lineage(
        certbot_folder,
        "example.com",
        ["example.com", "www.example.com"],
        int(time.time()) - 3600,
        90 * DAY,
    )
    return {
        "RENEWED_LINEAGE": str(live),
        "RENEWED_DOMAINS": "example.com www.example.com",
        "INFLUXDB_URL": URL,
        "INFLUXDB_TOKEN": f"somebody:{SECRET}",
        "INFLUXDB_TIMEOUT": "30",  # no answer of ours takes as long, also on a busy machine
    }


# ---- What a server may answer ----------------------------------------------------------------------------------------
V1, V2, V3 = ({"INFLUXDB_VERSION": version} for version in "123")
PATHS = {"1": "/write", "2": "/api/v2/write", "3": "/api/v3/write_lp"}
ANSWERS = [  # version, status, body, headers; what the line must say
    (
        V2,
        401,
        '{"code":"unauthorized","message":"unauthorized access"}',
        {},
        "401 unauthorized access: set INFLUXDB_TOKEN",
    ),
    (
        V1,
        401,
        '{"error":"authorization failed"}',
        {},
        "401 authorization failed: set INFLUXDB_TOKEN",
    ),
    (
        V2,
        403,
        '{"code":"forbidden","message":"insufficient permissions for write"}',
        {},
        "give the token, or the user, in INFLUXDB_TOKEN",
    ),
    (
        V2,
        404,
        '{"code":"not found","message":"bucket \\"telegraf\\" not found"}',
        {},
        "create telegraf, or correct INFLUXDB_BUCKET",
    ),
    (
        V1,
        404,
        '{"error":"database not found: \\"telegraf\\""}',
        {},
        "create telegraf, or correct INFLUXDB_BUCKET",
    ),
    (V2, 404, '{"message":"organization name \\"x\\" not found"}', {}, "set INFLUXDB_ORG"),
    (V2, 404, "404 page not found\n", {}, "set INFLUXDB_VERSION=1"),
    (V1, 404, "404 page not found\n", {}, "set INFLUXDB_VERSION=2"),
    (V1, 404, '{"message":"no dbrp mapping found"}', {}, "set INFLUXDB_VERSION=2"),
    (V2, 400, '{"message":"Please provide either orgID or org"}', {}, "set INFLUXDB_ORG"),
    (
        V2,
        400,
        '{"error":"partial write: field type conflict: input field renewed_count"}',
        {},
        "set MEASUREMENT to another name",
    ),
    (
        V3,
        400,
        '{"error":"partial write of line protocol occurred","data":[{"original_line":"certbot_renewal,target=lb","line_number":4,'
        '"error_message":"Detected a new tag \'target\' in write. The tag set is immutable on first write to the table."}]}',
        {},
        "400 Detected a new tag 'target' in write. The tag set is immutable on first write to the table.: give the table all its tags: "
        "influxdb3 create table --database telegraf --tags domain,host,lineage,target certbot_renewal",
    ),
    (
        V3,
        400,
        '{"error":"partial write","data":"none"}',
        {},
        '400 {"error":"partial write","data":"none"}',
    ),
    (V3, 404, "", {}, "set INFLUXDB_VERSION=2"),
    (V2, 422, '{"message":"unable to parse"}', {}, "422 unable to parse"),
    (V2, 413, "too large", {}, "413 too large"),
    (
        V2,
        429,
        "slow down",
        {"Retry-After": "30"},
        "429 slow down (Retry-After 30 s): look at the server's log (tried 1 times",
    ),
    (V2, 500, "panic", {}, "500 panic: look at the server's log (tried "),
    (V2, 503, "", {}, "503 nothing more: look at the server's log (tried "),
    (
        V1,
        500,
        '{"error":"retention policy not found: rp"}',
        {},
        "create it, or correct what stands behind the slash",
    ),
    (V2, 200, "<html>Please log in</html>", {}, "answered 200, where InfluxDB answers 204"),
    (
        V2,
        302,
        "",
        {"Location": "https://user:secret2@login.example.com/?x=1"},
        "a redirect to https://login.example.com/: set INFLUXDB_URL",
    ),
    (V2, 301, "", {}, "a redirect to nowhere"),
    (
        V2,
        400,
        f'{{"message":"token somebody:{SECRET} is {SECRET} bad"}}',
        {},
        "token *** is *** bad",
    ),
    (V2, 400, "\x1b[31mcaf\xe9\nBad\x00 thing", {}, "400 [31mcaf Bad thing"),
    (V2, 400, "x" * 100_000, {}, "x" * 400),
    (V2, 400, "[" * 100_000, {}, "[[["),
]


@pytest.mark.parametrize(("version", "status", "body", "headers", "says"), ANSWERS)
def test_what_a_server_says_is_told_with_the_remedy(
    report_hook: Hook,
    renewed: dict[str, str],
    version: dict[str, str],
    status: int,
    body: str,
    headers: dict[str, str],
    says: str,
) -> None:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add(
            responses.POST,
            URL + PATHS[version["INFLUXDB_VERSION"]],
            body=body,
            status=status,
            headers=headers,
        )
        given_up = {"INFLUXDB_TIMEOUT": "3"} if status in (500, 503) else {}
        ran = report_hook(**{**renewed, **version, **given_up})
        tries = len(mock.calls)
    assert (ran.status, ran.out) == (1, "")
    assert says in ran.err
    assert len(ran.err) < 900
    assert SECRET not in ran.err and "secret2" not in ran.err
    assert (tries > 1) == (status in (500, 503) and "retention policy" not in body)


def test_a_server_that_recovers_within_the_timeout_gets_the_report(
    report_hook: Hook, renewed: dict[str, str]
) -> None:
    with responses.RequestsMock(assert_all_requests_are_fired=True) as mock:
        mock.add(responses.POST, URL + "/api/v2/write", body=requests.ConnectionError("reset"))
        mock.add(responses.POST, URL + "/api/v2/write", status=503, headers={"Retry-After": "1"})
        mock.add(
            responses.POST,
            URL + "/api/v2/write",
            status=429,
            headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"},
        )
        mock.add(responses.POST, URL + "/api/v2/write", status=204)
        ran = report_hook(**renewed)
        assert len({call.request.body for call in mock.calls}) == 1
    assert (ran.status, ran.err) == (0, "")
    assert "example.com renewed " in ran.out


def test_points_beyond_the_retention_are_no_failure_but_other_dropped_points_are(
    report_hook: Hook, renewed: dict[str, str]
) -> None:
    refusal = "partial write: points beyond retention policy dropped={}"
    with responses.RequestsMock() as mock:
        for dropped in (3, 4):  # the renewal has three points, the fourth is the state
            mock.add(
                responses.POST,
                URL + "/api/v2/write",
                json={"error": refusal.format(dropped)},
                status=400,
            )
        stored = report_hook(**renewed)
        refused = report_hook(**renewed)
    assert (stored.status, stored.err) == (0, "")
    assert "what is older than the bucket keeps was not stored" in stored.out
    assert refused.status == 1
    assert (
        "set the clock of this host, or let INFLUXDB_BUCKET keep points for longer" in refused.err
    )


def test_a_clock_that_is_off_is_told(
    report_hook: Hook, renewed: dict[str, str], certbot_folder: Path
) -> None:
    future = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) + 7200, 90 * DAY
    )
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, URL + "/api/v2/write", status=204)
        ran = report_hook(**{**renewed, "RENEWED_LINEAGE": str(future)})
        body = mock.calls[0].request.body
    assert (ran.status, ran.out.count("\n")) == (1, 1)  # the report was sent all the same
    assert "the clock of this host says" in ran.err and "set the clock" in ran.err
    assert isinstance(body, bytes)
    assert (
        len({line.rsplit(b" ", 1)[1] for line in body.splitlines()}) == 1
    )  # never a state before its certificate
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - 3600, 90 * DAY)
    with responses.RequestsMock() as mock:
        mock.add(
            responses.POST,
            URL + "/api/v2/write",
            status=204,
            headers={"Date": "Wed, 21 Oct 2015 07:28:00 GMT"},
        )
        ran = report_hook(**renewed)
    assert ran.status == 1
    assert "the server's 2015-10-21 07:28 UTC: set the wrong one" in ran.err


# ---- Servers that misbehave: on real sockets -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("unreachable", ("Connection refused: does it run, and is INFLUXDB_URL its address?",)),
        ("blackholed", ("cannot reach", "no answer from")),  # whichever the deadline meets first
        ("dripping headers", ("no answer from",)),
        ("dripping body", ("answered 500 and never finished",)),
        ("endless redirect", ("answered 302 and never finished",)),
        ("silent", ("cannot reach", "no answer from")),
        ("hanging up", ("cannot reach",)),
        ("503", ("answered 503 nothing more: look at the server's log",)),
        ("not HTTP", ("cannot reach",)),
    ],
)
def test_a_misbehaving_server_does_not_hold_certbot(
    certbot_folder: Path, renewed: dict[str, str], fault: str, says: tuple[str, ...]
) -> None:
    with faulty.EVERY[fault]() as url:
        done = start_report_hook(
            certbot_folder, **{**renewed, "INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": "3"}
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert url in done.stderr and "INFLUXDB_TIMEOUT is 3 s" in done.stderr
    assert any(text in done.stderr for text in says)


def test_a_check_ends_too(certbot_folder: Path, renewed: dict[str, str]) -> None:
    with faulty.EVERY["dripping headers"]() as url:
        done = start_report_hook(
            certbot_folder, "--check", INFLUXDB_URL=url, INFLUXDB_TIMEOUT="0.6"
        )
    assert done.returncode == 1
    assert f"{'server':20} none: no answer\n" in done.stdout
    assert "not ready: no answer from" in done.stderr


def test_what_would_be_another_line_is_a_space(report_hook: Hook) -> None:
    assert (
        " /nowhere/two lines/live: No such file or directory: "
        in report_hook("--dry-run", "--config-dir", "/nowhere/two\nlines").err
    )


# ---- Settings --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFLUXDB_URL", "influx.example.com:8086"),
        ("INFLUXDB_URL", "ftp://influx.example.com"),
        ("INFLUXDB_URL", f"http://somebody:{SECRET}@influx.example.com:8086"),
        ("INFLUXDB_URL", "http://influx example.com:8086"),
        ("INFLUXDB_URL", "http://"),
        ("INFLUXDB_URL", "http://influx.example.com:8086/?db=telegraf"),
        ("INFLUXDB_URL", "http://[::1"),
        ("INFLUXDB_URL", ""),
        ("INFLUXDB_VERSION", "4"),
        ("INFLUXDB_VERSION", "1.8"),
        ("INFLUXDB_VERSION", ""),
        ("INFLUXDB_BUCKET", ""),
        ("INFLUXDB_BUCKET", "   "),
        ("INFLUXDB_BUCKET", "/rp"),
        ("INFLUXDB_TIMEOUT", "0"),
        ("INFLUXDB_TIMEOUT", "-1"),
        ("INFLUXDB_TIMEOUT", "ten"),
        ("INFLUXDB_TIMEOUT", "inf"),
        ("INFLUXDB_TIMEOUT", ""),
        ("MEASUREMENT", ""),
        ("MEASUREMENT", "#comment"),
        ("MEASUREMENT", "_internal"),
        ("HOSTNAME", "web\n1"),
        ("INFLUXDB_TOKEN", "fake-secret\r\nX-Injected: 1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_must_be(
    report_hook: Hook, renewed: dict[str, str], name: str, value: str
) -> None:
    ran = report_hook(**{**renewed, name: value})
    assert (ran.status, ran.out) == (1, "")
    assert f"{name} is {'wrong' if value.strip() else 'empty'}: it must be " in ran.err
    assert "certbot_renewal_report.env" in ran.err  # where to correct it
    assert SECRET not in ran.err


def test_all_faults_of_the_settings_are_told_at_once(
    report_hook: Hook, renewed: dict[str, str], certbot_folder: Path
) -> None:
    path = certbot_folder / "certbot_renewal_report.env"
    path.write_text(
        f"INFLUXDB_URL=influx\nINFLUXDB_TOKEN_FILE=/nowhere/token\nINFLUX_BUCKET=x\n{SECRET}\n"
    )
    ran = report_hook(**{**renewed, "INFLUXDB_VERSION": "9", "INFLUXDB_TOKEN": ""})
    assert ran.status == 1
    for said in (
        "INFLUXDB_URL is wrong",
        "INFLUXDB_VERSION is wrong",
        "INFLUX_BUCKET is no setting",
        "line 4 is not NAME=value",
    ):
        assert said in ran.err
    assert f"{path}: line 3" in ran.err
    hook_again = report_hook(
        **{**renewed, "INFLUXDB_TOKEN": "fake", "INFLUXDB_TOKEN_FILE": "/nowhere/token"}
    )
    assert "are both set: keep one" in hook_again.err


@pytest.mark.parametrize("content", [None, b"", b"a\nb", b"\xff\xfe"])
def test_a_token_file_without_a_token(
    report_hook: Hook, renewed: dict[str, str], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    ran = report_hook(**{**renewed, "INFLUXDB_TOKEN": "", "INFLUXDB_TOKEN_FILE": str(path)})
    assert ran.status == 1
    assert "INFLUXDB_TOKEN_FILE is wrong: it must name a file that holds the token" in ran.err
    assert content is not None or f"{path}: No such file or directory" in ran.err


@pytest.mark.parametrize("content", [b"\xff\xfeH\x00", None])
def test_an_env_file_that_cannot_be_read(
    report_hook: Hook, renewed: dict[str, str], certbot_folder: Path, content: bytes | None
) -> None:
    path = certbot_folder / "certbot_renewal_report.env"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    ran = report_hook(**renewed)
    assert ran.status == 1
    assert (
        f"{path}: {'Is a directory' if content is None else 'not UTF-8 text'}: make it text"
        in ran.err
    )


def test_files_that_the_user_may_not_read(
    report_hook: Hook, renewed: dict[str, str], certbot_folder: Path
) -> None:
    env_file, certificate = (
        certbot_folder / "certbot_renewal_report.env",
        Path(renewed["RENEWED_LINEAGE"], "cert.pem").resolve(),
    )
    env_file.write_text("HOSTNAME=web1\n")
    for path in (env_file, certificate):
        path.chmod(0)
    for folder in certbot_folder.parents:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)  # pytest's folders are for their user alone
    ran = as_nobody(lambda: report_hook(**renewed))
    assert ran.status == 1
    assert f"{env_file}: Permission denied: make it text that this user can read" in ran.err
    env_file.chmod(0o644)
    again = as_nobody(lambda: report_hook("--dry-run", **renewed))
    assert again.status == 1
    assert (
        "cert.pem: Permission denied: look at it as root, with: certbot certificates" in again.err
    )
    assert "domain=www.example.com" in again.out


def as_nobody(run: Callable[[], Ran]) -> Ran:
    """Runs as somebody who is not root: root may read everything."""
    if os.geteuid() != 0:
        return run()
    os.seteuid(65534)
    try:
        return run()
    finally:
        os.seteuid(0)


# ---- What certbot gives, or does not ---------------------------------------------------------------------------------
def break_nothing(live: Path) -> None:
    """Leaves the lineage as it is."""


def no_folder(live: Path) -> None:
    """The folder is gone."""
    (live / "cert.pem").unlink()
    live.rmdir()


def no_certificate(live: Path) -> None:
    """The file is gone."""
    (live / "cert.pem").unlink()


def dangling(live: Path) -> None:
    """The archive is gone."""
    (live / "cert.pem").resolve().unlink()


def not_a_certificate(live: Path) -> None:
    """Something else."""
    (live / "cert.pem").resolve().write_text("this is no certificate")


def cut_off(live: Path) -> None:
    """A disk was full."""
    path = (live / "cert.pem").resolve()
    path.write_bytes(path.read_bytes()[:200])


def a_folder(live: Path) -> None:
    """A folder of that name."""
    (live / "cert.pem").unlink()
    (live / "cert.pem").mkdir()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (no_folder, "No such file or directory"),
        (no_certificate, "No such file or directory"),
        (dangling, "No such file or directory"),
        (not_a_certificate, "not a certificate"),
        (cut_off, "not a certificate"),
        (a_folder, "not a certificate"),
    ],
)
def test_a_renewal_whose_certificate_cannot_be_read_is_reported_all_the_same(
    report_hook: Hook, renewed: dict[str, str], broken: Callable[[Path], None], reason: str
) -> None:
    broken(Path(renewed["RENEWED_LINEAGE"]))
    before = int(time.time())
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, URL + "/api/v2/write", status=204)
        ran = report_hook(**renewed)
        body = mock.calls[0].request.body
    assert isinstance(body, bytes)
    lines = body.decode().splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        f"certbot_renewal,domain=all,host=web1,lineage=example.com {WHOLE}",
        "certbot_renewal,domain=example.com,host=web1 renewed_count=1",
        "certbot_renewal,domain=www.example.com,host=web1 renewed_count=1",
    ]
    assert all(before <= int(line.rsplit(" ", 1)[1]) <= time.time() for line in lines)
    assert ran.status == 1
    assert (
        f"cert.pem: {reason}: look at it as root" in ran.err
        and "Reported as renewed now, without state" in ran.err
    )


@pytest.mark.parametrize("domains", [None, "", "  "])
def test_without_names_the_certificate_is_reported_and_the_fault_named(
    report_hook: Hook, renewed: dict[str, str], domains: str | None
) -> None:
    del renewed["RENEWED_DOMAINS"]
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, URL + "/api/v2/write", status=204)
        ran = report_hook(**renewed, **({} if domains is None else {"RENEWED_DOMAINS": domains}))
        assert isinstance(mock.calls[0].request.body, bytes)
        assert b"domain=www.example.com" in mock.calls[0].request.body
    assert ran.status == 1
    assert (
        "RENEWED_DOMAINS is empty or not set: certbot sets it for a deploy hook. By hand use"
        in ran.err
    )


WHOLE = 'renewed_count=2,lifetime=0i,due_after=0i,names="example.com www.example.com"'


def test_without_lineage_the_names_are_reported(report_hook: Hook, renewed: dict[str, str]) -> None:
    del renewed["RENEWED_LINEAGE"]
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, URL + "/api/v2/write", status=204)
        ran = report_hook(**renewed)
        assert isinstance(mock.calls[0].request.body, bytes)
        assert mock.calls[0].request.body.startswith(
            f"certbot_renewal,domain=all,host=web1 {WHOLE} ".encode()
        )
    assert ran.status == 1
    assert "RENEWED_LINEAGE is empty or not set" in ran.err


def test_run_by_hand_it_says_what_to_do(report_hook: Hook) -> None:
    ran = report_hook()
    assert (ran.status, ran.out) == (1, "")
    assert "By hand use certbot_renewal_report.py --check" in ran.err


@pytest.mark.parametrize("host", ["3f2b8c9d0e1a", "3f2b8c9d0e1a" * 5 + "abcd"])
def test_a_container_id_as_host_is_called_out_and_the_report_sent(
    report_hook: Hook, renewed: dict[str, str], host: str
) -> None:
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, URL + "/api/v2/write", status=204)
        ran = report_hook(**{**renewed, "HOSTNAME": host})
    assert ran.status == 0
    assert (
        f"warning: the host tag {host} is a container's id, which changes: set HOSTNAME in"
        in ran.err
    )


# ---- Its own surroundings --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("argument", ["--help", "--dry-run", "--version"])
def test_a_closed_pipe_makes_no_noise(
    certbot_folder: Path, renewed: dict[str, str], argument: str
) -> None:
    script = install_report_hook(certbot_folder)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, str(script), argument],
        env=renewed,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert done.stderr == b""


def test_a_closed_stderr_and_stdout_do_not_keep_a_report_from_being_sent(
    certbot_folder: Path, renewed: dict[str, str]
) -> None:
    got: list[bytes] = []

    def take(connection: socket.socket) -> None:
        got.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    script = install_report_hook(certbot_folder)
    with faulty.serving(take) as url:
        command = f"exec {sys.executable} {script} >&- 2>&-"
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**renewed, "INFLUXDB_URL": url, "HOSTNAME": "3f2b8c9d0e1a"},
            timeout=60,
        )
    assert done.returncode == 0
    assert len(got) == 1


def test_without_requests_it_says_how_to_install_it(
    certbot_folder: Path, renewed: dict[str, str]
) -> None:
    command = [sys.executable, "-I", "-S", str(install_report_hook(certbot_folder))]
    done = subprocess.run(command, env=renewed, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "apt-get install python3-requests" in done.stderr


def test_ctrl_c_makes_no_noise(certbot_folder: Path, renewed: dict[str, str]) -> None:
    taken = threading.Event()

    def take(connection: socket.socket) -> None:
        taken.set()
        faulty.silent(connection)

    with faulty.serving(take) as url:
        environ = {**renewed, "INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": "60"}
        running = subprocess.Popen(
            [sys.executable, str(install_report_hook(certbot_folder))],
            env=environ,
            stderr=subprocess.PIPE,
        )
        assert taken.wait(30)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(
    "proxy",
    [
        "http://somebody:fake-secret@[::1",
        "http://somebody:fake-secret@127.0.0.1:1",
        "fake-secret",
        "http://",
    ],
)
def test_a_wrong_proxy_is_told_without_its_password(
    certbot_folder: Path, renewed: dict[str, str], proxy: str
) -> None:
    done = start_report_hook(
        certbot_folder,
        **{**renewed, "INFLUXDB_TIMEOUT": "3", "HTTP_PROXY": proxy, "http_proxy": proxy},
    )
    assert done.returncode == 1
    assert (
        done.stderr.count("\n") == 1
        and "cannot reach" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert SECRET not in done.stderr


def test_a_wrong_option_is_a_usage_error(report_hook: Hook) -> None:
    with pytest.raises(SystemExit) as ended:
        report_hook("--chek")
    assert ended.value.code == 2
