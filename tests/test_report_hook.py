"""The report hook as a program: its options, where certbot starts it, and its surroundings."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import certbot_renewal_report as hook
from support.hooks import Ran, start, start_report_hook
from support.renewals import (
    MOCKED_URL,
    Renewal,
    printed_points,
    renew,
    storing_influxdb,
)
from tools.servers import faulty
from tools.servers.lineages import REPORT_HOOK, install, install_report_hook

Hook = Callable[..., Ran]
STORED = faulty.answer(b"HTTP/1.1 204 No Content\r\n\r\n")

# Runs the program that is its first argument, and prints at the end which modules it has imported.
PRINT_MODULES = """
import atexit, json, runpy, sys
atexit.register(lambda: print(json.dumps(list(sys.modules))))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# ---- Options -----------------------------------------------------------------------------------
def test_help_prints_the_table_of_settings(report_hook: Hook) -> None:
    ran = report_hook("--help")
    assert ran.status == 0
    for name, setting in hook.SETTINGS.items():
        default = re.escape(setting.default or "(empty)")
        row = rf"^ +{name} +{default} +{re.escape(setting.meaning)}$"
        assert re.search(row, ran.out, re.MULTILINE)


def test_help_prints_the_options(report_hook: Hook) -> None:
    help_text = report_hook("-h").out
    assert help_text.startswith("usage: certbot_renewal_report.py ")
    assert re.search(r"(?m)^  -h, --help +print this help$", help_text)
    assert re.search(r"(?m)^  --check +check the installation, ", help_text)
    assert re.search(r"(?m)^  --dry-run +print the line protocol and the URL for it, ", help_text)


def test_version_is_printed(report_hook: Hook) -> None:
    assert report_hook("--version").out == f"certbot_renewal_report {hook.__version__}\n"


def test_a_wrong_option_is_a_usage_error(report_hook: Hook) -> None:
    with pytest.raises(SystemExit) as ended:
        report_hook("--chek")
    assert ended.value.code == 2


@pytest.mark.parametrize(
    "arguments", [["--all"], ["--patience=24", "--all"], ["--retire", "a"], ["--logs-dir=/x"]]
)
def test_an_option_of_the_run_report_is_named_with_its_program(
    report_hook: Hook, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        report_hook(*arguments)
    assert ended.value.code == 2
    message = f"{arguments[0]} is an option of certbot_renewal_run.py, which sends run reports\n"
    assert capfd.readouterr().err.endswith(f"error: {message}")


def test_a_dry_run_prints_the_lines_and_sends_nothing(
    report_hook: Hook, certbot_folder: Path
) -> None:
    renew(certbot_folder, names=["example.com"])
    ran = report_hook("--dry-run", INFLUXDB_URL="http://127.0.0.1:1", INFLUXDB_TOKEN="fake-token")
    assert ran.status == 0
    assert len(printed_points(ran)) == 3
    assert "# 3 lines, not sent to http://127.0.0.1:1/api/v2/write?" in ran.out
    assert "fake-token" not in ran.out + ran.err


def test_a_line_break_in_a_path_does_not_break_the_message(report_hook: Hook) -> None:
    ran = report_hook("--dry-run", "--config-dir", "/nowhere/two\nlines")
    assert " /nowhere/two lines/live: No such file or directory: " in ran.err


# ---- Where certbot starts it -------------------------------------------------------------------
def test_started_by_hand_it_says_what_to_do(report_hook: Hook) -> None:
    ran = report_hook()
    assert (ran.status, ran.out) == (1, "")
    assert "to start the hook by hand, use certbot_renewal_report.py --check" in ran.err


def test_started_as_a_post_hook_it_reports_nothing_and_says_where_it_belongs(
    certbot_folder: Path, renewal: Renewal
) -> None:
    hooks = certbot_folder / "renewal-hooks"
    script = install(REPORT_HOOK, hooks / "post")
    connections: list[socket.socket] = []
    with faulty.serving(connections.append) as url:
        done = start(script, **renewal.environ, INFLUXDB_URL=url)
    assert (done.returncode, done.stdout, connections) == (1, "", [])
    assert done.stderr == (
        f"certbot_renewal_report: {script} is in the wrong folder: "
        f"move certbot_renewal_report.py to {hooks}/deploy\n"
    )


def test_a_hook_in_the_wrong_folder_is_named_with_the_right_one(
    certbot_folder: Path, renewal: Renewal, capfd: pytest.CaptureFixture[str]
) -> None:
    hooks = certbot_folder / "renewal-hooks"
    script = str(hooks / "pre" / "certbot_renewal_report.py")
    assert hook.main([], {**renewal.environ, "HOSTNAME": "web1"}, script) == 1
    problem = f"{script} is in the wrong folder: move certbot_renewal_report.py to {hooks}/deploy"
    assert problem in capfd.readouterr().err


def test_a_hook_outside_of_the_hooks_folders_finds_the_settings_by_the_lineage(
    tmp_path: Path,
    certbot_folder: Path,
    renewal: Renewal,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (certbot_folder / "certbot_renewal_report.env").write_text("HOSTNAME=by-the-lineage\n")
    script = str(tmp_path / "certbot_renewal_report.py")
    assert hook.main(["--dry-run"], {**renewal.environ}, script) == 0
    assert "host=by-the-lineage" in capfd.readouterr().out


def test_after_a_renewal_only_the_modules_that_it_needs_are_imported(
    certbot_folder: Path, renewal: Renewal
) -> None:
    """argparse and glob would take a part of the time for which certbot waits."""
    script = install_report_hook(certbot_folder)
    with faulty.serving(STORED) as url:
        done = subprocess.run(
            [sys.executable, "-c", PRINT_MODULES, str(script)],
            env={**renewal.environ, "INFLUXDB_URL": url, "HOSTNAME": "web1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")
    said, modules = done.stdout.splitlines()
    assert said.startswith("example.com renewed ")
    assert "requests" in json.loads(modules)
    assert not {"argparse", "glob"}.intersection(json.loads(modules))


@pytest.mark.parametrize("host", ["3f2b8c9d0e1a", "3f2b8c9d0e1a" * 5 + "abcd"])
def test_a_host_tag_that_is_a_container_id_gives_a_warning_and_the_report_is_sent(
    report_hook: Hook, renewal: Renewal, host: str
) -> None:
    with storing_influxdb():
        ran = report_hook(**renewal.environ, INFLUXDB_URL=MOCKED_URL, HOSTNAME=host)
    assert ran.status == 0
    assert f"warning: the host tag {host} is a container's id, which changes" in ran.err
    assert ": set HOSTNAME in" in ran.err


# ---- Its surroundings --------------------------------------------------------------------------
@pytest.mark.parametrize("argument", ["--help", "--dry-run", "--version"])
def test_a_closed_pipe_makes_no_noise(
    certbot_folder: Path, renewal: Renewal, argument: str
) -> None:
    script = install_report_hook(certbot_folder)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, str(script), argument],
        env=renewal.environ,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert done.stderr == b""


def test_a_report_is_sent_with_stdout_and_stderr_closed(
    certbot_folder: Path, renewal: Renewal
) -> None:
    requests: list[bytes] = []

    def store(connection: socket.socket) -> None:
        requests.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    script = install_report_hook(certbot_folder)
    with faulty.serving(store) as url:
        done = subprocess.run(
            ["/bin/sh", "-c", f"exec {sys.executable} {script} >&- 2>&-"],
            # A container's id, so that there is a warning to print.
            env={**renewal.environ, "INFLUXDB_URL": url, "HOSTNAME": "3f2b8c9d0e1a"},
            timeout=60,
        )
    assert done.returncode == 0
    assert len(requests) == 1


def test_without_requests_it_says_how_to_install_it(certbot_folder: Path, renewal: Renewal) -> None:
    script = install_report_hook(certbot_folder)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script)],  # without site-packages
        env=renewal.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "apt-get install python3-requests" in done.stderr


def test_ctrl_c_makes_no_noise(certbot_folder: Path, renewal: Renewal) -> None:
    is_waiting = threading.Event()

    def never_answer(connection: socket.socket) -> None:
        is_waiting.set()
        faulty.silent(connection)

    with faulty.serving(never_answer) as url:
        running = subprocess.Popen(
            [sys.executable, str(install_report_hook(certbot_folder))],
            env={**renewal.environ, "INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": "60"},
            stderr=subprocess.PIPE,
        )
        assert is_waiting.wait(30)
        running.send_signal(signal.SIGINT)
        _, error_output = running.communicate(timeout=30)
    assert (running.returncode, error_output) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(
    "proxy",
    [
        "http://somebody:fake-secret@[::1",
        "http://somebody:fake-secret@127.0.0.1:1",
        "fake-secret",
        "http://",
    ],
)
def test_a_wrong_proxy_is_named_without_its_password(
    certbot_folder: Path, renewal: Renewal, proxy: str
) -> None:
    done = start_report_hook(
        certbot_folder,
        **renewal.environ,
        INFLUXDB_URL=MOCKED_URL,
        INFLUXDB_TIMEOUT="3",
        HTTP_PROXY=proxy,
        http_proxy=proxy,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot reach" in done.stderr
    assert "Traceback" not in done.stderr
    assert "fake-secret" not in done.stderr
