"""Odd settings, files and answers, one at a time: what the property tests have found, and more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import responses

import certbot_renewal_report
from support.hooks import Ran, known, start_report_hook, start_run_report
from support.odd_files import Kind, OddFile
from support.renewals import MOCKED_URL, MOCKED_WRITE_URL, Renewal
from tools.servers import faulty
from tools.servers.lineages import install_report_hook

SECRET = "fake-Secret-7f3"

# A known file of a host with run reports that has reported one lineage.
KNOWN = '{"web1": {"run_report_at": 1, "verdicts": {"example.com": {"not_before": 1}}}}\n'


def report_to(
    server: faulty.Serve, certbot_folder: Path, renewal: Renewal
) -> subprocess.CompletedProcess[str]:
    """Report a renewal to a server."""
    with faulty.serving(server) as url:
        return start_report_hook(certbot_folder, INFLUXDB_URL=url, **renewal.environ)


# ---- Files that are odd ------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Kind.PIPE, Kind.DEVICE, Kind.SOCKET])
@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("certbot_renewal_report.env", "certbot_renewal_report.env"),
        ("archive/example.com/cert1.pem", "live/example.com/cert.pem"),
        ("renewal/example.com.conf", "renewal/example.com.conf"),
    ],
)
@pytest.mark.usefixtures("renewal")
def test_what_is_neither_a_file_nor_a_folder_is_named_and_not_waited_for(
    certbot_folder: Path, place: str, named: str, kind: Kind
) -> None:
    OddFile(place, kind).put_into(certbot_folder)
    ended = start_run_report(certbot_folder, "--all", "--dry-run")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"{certbot_folder / named}: Neither a file nor a folder: " in ended.stderr


@pytest.mark.parametrize("kind", [Kind.PIPE, Kind.DEVICE, Kind.SOCKET])
@pytest.mark.usefixtures("renewal")
def test_what_stands_in_the_place_of_a_link_is_not_waited_for(
    certbot_folder: Path, kind: Kind
) -> None:
    OddFile("live/example.com/cert.pem", kind).put_into(certbot_folder)
    ended = start_run_report(certbot_folder, "--all", "--dry-run")
    assert ended.returncode == 1
    assert "restore the link" in ended.stderr
    assert "unreadable_count=1i" in ended.stdout


def test_certificates_numbered_by_date_take_no_time(certbot_folder: Path, renewal: Renewal) -> None:
    (certbot_folder / certbot_renewal_report.KNOWN_FILE).write_text(KNOWN)
    archive = certbot_folder / "archive" / "example.com"
    for kind in certbot_renewal_report.FILE_KINDS:
        (archive / f"{kind}1.pem").rename(archive / f"{kind}999999999.pem")
        current = renewal.live_folder / f"{kind}.pem"
        current.unlink()
        current.symlink_to(archive / f"{kind}999999999.pem")

    ended = start_run_report(certbot_folder, "--all", "--dry-run")  # raises an error after 60 s
    assert ended.returncode == 0


@pytest.mark.usefixtures("renewal")
def test_what_certbot_does_not_take_for_a_lineage_is_no_lineage(
    run_report: Callable[..., Ran], certbot_folder: Path
) -> None:
    for name in (".conf", ".#example.com.conf"):
        (certbot_folder / "renewal" / name).touch()
    (certbot_folder / "live" / ".git").mkdir()
    (certbot_folder / "live" / "loop").symlink_to("loop")

    ran = run_report("--all", "--dry-run")
    assert ran.status == 0
    assert ran.err == ""
    assert "certificates=1i,unreadable_count=0i" in ran.out


@pytest.mark.parametrize("name", ["a\nb", "\udcff"])
def test_a_lineage_whose_name_is_odd_is_not_added_to_the_known_file(
    certbot_folder: Path, renewal: Renewal, name: str
) -> None:
    odd_folder = renewal.live_folder.rename(renewal.live_folder.parent / name)
    (certbot_folder / certbot_renewal_report.KNOWN_FILE).write_text(KNOWN)

    odd_renewal = renewal._replace(live_folder=odd_folder)
    ended = report_to(faulty.STORED, certbot_folder, odd_renewal)

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert known(certbot_folder) == ["example.com"]


# ---- Settings that are odd ---------------------------------------------------------------------
def test_a_token_alone_on_a_line_is_not_shown(certbot_folder: Path, env_file: Path) -> None:
    env_file.write_text("INFLUXDB_TOKEN=\nfakeSecret7f3fakeSecret7f3==\n")
    ended = start_report_hook(certbot_folder, "--dry-run")
    assert ended.returncode == 1
    assert (
        "line 2 is not NAME=value: correct the line (it is not shown because it may" in ended.stderr
    )
    assert "fakeSecret" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "line", ["HOSTNAME= # none", "HOSTNAME=  # none", "HOSTNAME= ", "HOSTNAME='' # none"]
)
@pytest.mark.usefixtures("renewal")
def test_a_comment_after_an_empty_value_is_a_comment(
    report_hook: Callable[..., Ran], env_file: Path, line: str
) -> None:
    env_file.write_text(f"{line}\n")
    assert f"host={os.uname().nodename}" in report_hook("--dry-run").out


@pytest.mark.usefixtures("renewal")
def test_long_lines_of_blanks_take_no_time(certbot_folder: Path, env_file: Path) -> None:
    env_file.write_text("HOSTNAME=a" + " " * 300_000 + "b\n")
    renewal_conf = certbot_folder / "renewal" / "example.com.conf"
    renewal_conf.write_text("\n" * 300_000 + renewal_conf.read_text())

    ended = start_report_hook(certbot_folder, "--dry-run")  # raises an error after 60 s
    assert ended.returncode == 0


def test_a_setting_that_is_no_utf_8_is_named(certbot_folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(install_report_hook(certbot_folder)), "--dry-run"],
        env={b"INFLUXDB_BUCKET": b"\xff", b"HOSTNAME": b"web1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "INFLUXDB_BUCKET is not valid: it must be the name of a bucket" in ended.stderr


# ---- Answers that are odd ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "date",
    [
        "Wed, 25 Nov 20226 03:00:00 GMT",
        "Wed, 25 Nov 2026 99999999999999999:00:00 GMT",
        "yesterday",
        "",
    ],
)
def test_an_answer_whose_date_cannot_be_read_is_a_success(
    certbot_folder: Path, renewal: Renewal, date: str
) -> None:
    response = f"HTTP/1.1 204 No Content\r\nDate: {date}\r\n\r\n".encode()
    ended = report_to(faulty.answer(response), certbot_folder, renewal)
    assert ended.returncode == 0
    assert ended.stderr == ""


class RefusedReport:
    """Reports a renewal to a server that answers with a status and a text."""

    def __init__(self, report_hook: Callable[..., Ran], renewal: Renewal) -> None:
        """`renewal` is what certbot has renewed."""
        self.report_hook = report_hook
        self.renewal = renewal

    def __call__(self, status: int, body: str, **environ: str) -> str:
        """Return what the hook prints on stderr."""
        with responses.RequestsMock() as mock:
            mock.add(responses.POST, MOCKED_WRITE_URL, status=status, body=body)
            ran = self.report_hook(INFLUXDB_URL=MOCKED_URL, **self.renewal.environ, **environ)
        return ran.err


@pytest.fixture
def stderr_of_answer(report_hook: Callable[..., Ran], renewal: Renewal) -> RefusedReport:
    """Return what the hook prints about an answer: `stderr_of_answer(401, "wrong token")`."""
    return RefusedReport(report_hook, renewal)


@pytest.mark.parametrize(
    "body",
    [
        '{"message": "bad token ab:fake\\u002dSecret\\u002d7f3"}',
        '{"error": "user somebody has no rights"}',
        f'{{"message": "a password of ab:{SECRET} is wrong"}}',
    ],
)
def test_a_secret_that_the_server_repeats_in_other_letters_is_not_shown(
    stderr_of_answer: RefusedReport, body: str
) -> None:
    stderr = stderr_of_answer(401, body, INFLUXDB_TOKEN=f"somebody:ab:{SECRET}")
    assert "***" in stderr
    assert SECRET not in stderr
    assert "ab:" not in stderr
    assert "user somebody" not in stderr


@pytest.mark.parametrize(
    "body", ["[1]", "7", '"text"', "null", "{}", '{"message": ["x"]}', '{"error": {"a": 1}}']
)
def test_an_answer_in_json_of_another_kind_is_shown_as_it_is(
    stderr_of_answer: RefusedReport, body: str
) -> None:
    stderr = stderr_of_answer(400, body)
    assert "answered 400 " in stderr
    assert ": check INFLUXDB_URL, and any proxy between this host and the server" in stderr


@pytest.mark.parametrize("token", ["e", "a:o"])
def test_a_short_token_is_not_replaced_in_the_remedy(
    stderr_of_answer: RefusedReport, token: str
) -> None:
    stderr = stderr_of_answer(404, '{"message": "bucket not found"}', INFLUXDB_TOKEN=token)
    assert 'create "telegraf", correct INFLUXDB_BUCKET' in stderr
