"""The programs in the folders where certbot starts them: how they find each other, or refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.buckets import Bucket
from support.hooks import start
from support.lineages import UNREACHABLE, make_aged_lineage
from tools import ROOT
from tools.servers.certbot import Authority, Certbot
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import (
    REPORT_HOOK,
    RUN_REPORT,
    install,
    install_report_hook,
    install_run_report,
    make_empty_log,
)
from tools.servers.processes import wait_for


def link(program: Path, folder: Path) -> Path:
    """Install a program as a symbolic link."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / program.name
    path.symlink_to(program)
    return path


@pytest.mark.parametrize("hook_is_a_link", [False, True])
@pytest.mark.parametrize("run_is_a_link", [False, True])
def test_the_run_report_finds_the_report_hook(
    certbot_folder: Path, tmp_path: Path, hook_is_a_link: bool, run_is_a_link: bool
) -> None:
    hooks = certbot_folder / "renewal-hooks"
    put_hook = link if hook_is_a_link else install
    put_run = link if run_is_a_link else install
    # Each program is linked to a folder of its own, in which the other one is missing.
    put_hook(install(REPORT_HOOK, tmp_path / "a"), hooks / "deploy")
    run_report = put_run(install(RUN_REPORT, tmp_path / "b"), hooks / "post")
    make_aged_lineage(certbot_folder, "example.com", 1)
    make_empty_log(certbot_folder)
    done = start(run_report, "--all", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "lineage=example.com" in done.stdout


@pytest.mark.parametrize("arguments", [["--all"], ["--check"], []])
def test_without_the_report_hook_the_run_report_says_where_to_copy_it(
    certbot_folder: Path, arguments: list[str]
) -> None:
    post = certbot_folder / "renewal-hooks" / "post"
    done = start(install(RUN_REPORT, post), *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    deploy = certbot_folder / "renewal-hooks" / "deploy"
    assert done.stderr == (
        f"certbot_renewal_run: certbot_renewal_report.py is missing: copy it to {deploy}\n"
    )


def test_a_damaged_report_hook_is_named(certbot_folder: Path) -> None:
    run_report = install_run_report(certbot_folder)
    hook = certbot_folder / "renewal-hooks" / "deploy" / REPORT_HOOK.name
    hook.write_text(hook.read_text() + "(")
    done = start(run_report, "--all")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"certbot_renewal_run: {hook} is damaged: ")
    hook.write_text("")
    assert f"{hook} is version unknown" in start(run_report, "--all").stderr


def test_check_of_a_run_report_in_the_wrong_folder_is_not_ready(certbot_folder: Path) -> None:
    deploy = certbot_folder / "renewal-hooks" / "deploy"
    install_report_hook(certbot_folder)
    script = install(RUN_REPORT, deploy)
    done = start(script, "--check", **UNREACHABLE)
    assert done.returncode == 1
    assert f"{script} is in the wrong folder: move certbot_renewal_run.py to " in done.stderr


def test_check_of_a_run_report_says_if_certbot_would_not_start_the_report_hook(
    certbot_folder: Path, tmp_path: Path
) -> None:
    run_report = install_run_report(certbot_folder)
    hook = certbot_folder / "renewal-hooks" / "deploy" / REPORT_HOOK.name
    hook.chmod(0o644)
    done = start(run_report, "--check", **UNREACHABLE)
    assert f"{hook} is not executable, so certbot ignores it: chmod 755 {hook}" in done.stderr
    hook.rename(run_report.with_name(hook.name))
    done = start(run_report, "--check", **UNREACHABLE)
    assert (
        f"certbot_renewal_report.py is not in {hook.parent}, where certbot would run it: "
        in done.stderr
    )


def test_check_names_the_file_with_the_defaults(certbot_folder: Path) -> None:
    done = start(install_run_report(certbot_folder), "--check", **UNREACHABLE)
    hook = certbot_folder / "renewal-hooks" / "deploy" / REPORT_HOOK.name
    defaults = f"Settings (the others have the defaults of {hook}):"
    assert done.stdout.splitlines()[0] == defaults


def test_check_names_a_report_hook_of_another_version(certbot_folder: Path) -> None:
    run_report = install_run_report(certbot_folder)
    hook = certbot_folder / "renewal-hooks" / "deploy" / REPORT_HOOK.name
    hook.write_text(hook.read_text().replace('__version__ = "', '__version__ = "9.'))
    make_aged_lineage(certbot_folder, "example.com", 1)
    done = start(run_report, "--check", **UNREACHABLE)
    assert done.returncode == 1
    assert f"{hook} is version 9." in done.stderr
    assert "copy both from the same release" in done.stderr


def test_a_run_report_that_certbot_starts_as_a_deploy_hook_sends_nothing(
    certbot_folder: Path, bucket: Bucket
) -> None:
    deploy = certbot_folder / "renewal-hooks" / "deploy"
    install_report_hook(certbot_folder)
    live = make_aged_lineage(certbot_folder, "example.com", 0)
    renewal = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": "example.com"}
    done = start(install(RUN_REPORT, deploy), **renewal, **bucket.settings)
    assert done.returncode == 1
    assert "is in the wrong folder: move certbot_renewal_run.py to " in done.stderr
    assert str(certbot_folder / "renewal-hooks" / "post") in done.stderr
    assert bucket.points() == set()


def make_everything_executable(folder: Path) -> None:
    """Give every file in a folder the mode that some mounts give to all files."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o777)


def test_certbot_starts_each_program_once_where_every_file_is_executable(
    server: Callable[[str], InfluxDB], authority: Authority, tmp_path: Path
) -> None:
    bucket = Bucket(server("influxd-1.12"))  # without a token, which nobody else may read
    certbot = Certbot(tmp_path / "letsencrypt", authority)
    certbot.settings({**bucket.settings, "HOSTNAME": "web1"})
    install_run_report(certbot.folder)
    assert certbot.issue("example.com", "example.com").returncode == 0
    make_everything_executable(certbot.folder)
    first = certbot.not_before("example.com")
    wait_for(lambda: time.time() > first + 1, "another second")

    renewed = certbot.renew("--force-renewal")
    assert renewed.returncode == 0
    assert renewed.stdout.count("example.com renewed ") == 2  # by the deploy and the post hook
    assert "error output" not in renewed.stdout
    assert "reported error code" not in renewed.stdout
    hooks = [path for path in (certbot.folder / "renewal-hooks").rglob("*") if path.is_file()]
    started = [path.name for path in hooks if path.parent.name in ("deploy", "post")]
    assert sorted(started) == [REPORT_HOOK.name, RUN_REPORT.name]


def test_the_report_hook_runs_from_another_folder_without_any_other_file(
    certbot_folder: Path, tmp_path: Path
) -> None:
    alone = install(REPORT_HOOK, tmp_path / "alone")
    make_aged_lineage(certbot_folder, "example.com", 1)
    done = subprocess.run(
        [sys.executable, "-I", str(alone), "--dry-run", "--config-dir", str(certbot_folder)],
        env={"HOSTNAME": "web1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    shutil.rmtree(alone.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lineage=example.com" in done.stdout


def test_the_package_has_both_programs() -> None:
    package = (ROOT / "pyproject.toml").read_text()
    assert 'py-modules = ["certbot_renewal_report", "certbot_renewal_run"]' in package
