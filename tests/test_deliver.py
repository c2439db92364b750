"""The deliver hook: its settings file, its state, its lock, its checks, and how it is installed."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

import certbot_renewal_deliver
import certbot_renewal_report
import certbot_renewal_targets
from certbot_renewal_targets import base
from support.hooks import next_second, start_report_hook, start_run_report
from support.targets import (
    NOW,
    RENEWALS,
    STATE_FILE,
    assert_failure,
    assert_success,
    command_table,
    first_certificate,
    installed_in,
    is_pair,
    lines_of,
    new_certbot,
    renew,
    renewed_certificate,
    ssh_table,
)
from tools import ROOT
from tools.servers.certbot import Authority
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, REPORT_HOOK, key_as_pem, make_lineage
from tools.servers.targets import (
    DELIVER_HOOK,
    TARGETS_PACKAGE,
    HAProxy,
    Sshd,
    install_deliver_hook,
    run_deliver_hook,
)


def delivery_to(folder: Path, target: str) -> certbot_renewal_report.Delivery:
    """Return what the state file says that a target has of example.com."""
    return certbot_renewal_deliver.StateFile(str(folder)).delivery("example.com", target)


# ---- Started by certbot ------------------------------------------------------------------------
PROOF = "--manual --manual-auth-hook /bin/true --preferred-challenges dns"
TIMER = "env -i PATH=$PATH HOME=$HOME REQUESTS_CA_BUNDLE=$REQUESTS_CA_BUNDLE certbot -q renew"


@pytest.mark.parametrize(
    "command",
    [
        f"{TIMER} --force-renewal",
        f"certbot certonly --force-renewal {PROOF} -d example.com --deploy-hook 'touch its-own'",
        "certbot renew --force-renewal --no-directory-hooks && {hook} --all",
    ],
    ids=["a timer", "a script with a hook of its own", "a script past the hooks"],
)
def test_whoever_starts_certbot_the_targets_get_the_certificate(
    authority: Authority, tmp_path: Path, command: str
) -> None:
    certbot = new_certbot(tmp_path, authority)
    hook = installed_in(certbot, command_table(tmp_path))
    certificate = certbot.folder / "live" / "example.com" / "cert.pem"
    assert certbot.issue("example.com", "example.com").returncode == 0
    assert len(lines_of(tmp_path / "log")) == 1

    before = certificate.read_bytes()
    own_hook = tmp_path / "its-own"
    line = command.replace("{hook}", str(hook)).replace("its-own", str(own_hook))
    completed = certbot.shell(line)
    assert completed.returncode == 0, completed.stdout
    assert certificate.read_bytes() != before
    assert len(lines_of(tmp_path / "log")) == 2
    assert own_hook.exists() == ("--deploy-hook" in command)


def test_where_every_file_is_executable_certbot_starts_the_deliver_hook_once(
    authority: Authority, tmp_path: Path
) -> None:
    certbot = new_certbot(tmp_path, authority)
    certbot.settings({"INFLUXDB_TIMEOUT": "0.1"})
    install_deliver_hook(certbot.folder, command_table(tmp_path))
    for path in (certbot.folder / "renewal-hooks").rglob("*"):
        path.chmod(0o755)
    issued = certbot.issue("example.com", "example.com")
    assert issued.returncode == 0, issued.stdout
    # The deliver hook, and the report hook, which has no InfluxDB here.
    assert issued.stdout.count("Hook 'deploy-hook' ran with output:") == 1
    assert issued.stdout.count("Hook 'deploy-hook' ran with error output:") == 1
    assert len(lines_of(tmp_path / "log")) == 1


def test_started_by_hand_without_arguments_it_says_how(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['true']\n")
    completed = run_deliver_hook(hook)
    assert completed.returncode == 1
    assert completed.stderr == (
        "certbot_renewal_deliver: RENEWED_LINEAGE is not set: certbot sets it when it starts this "
        "hook. To deliver by hand, run certbot_renewal_deliver.py --all\n"
    )


# ---- Several targets ---------------------------------------------------------------------------
def test_a_target_that_hangs_keeps_no_other_waiting(tmp_path: Path, certbot_folder: Path) -> None:
    slow = '[[command]]\nname = "slow"\ncommand = ["sleep", "60"]\ntimeout = 1\n'
    hook = install_deliver_hook(certbot_folder, slow + command_table(tmp_path))
    renew(certbot_folder)
    began = time.monotonic()
    completed = run_deliver_hook(hook, "--all")
    assert time.monotonic() - began < 30
    error = "sleep did not end in time: check why, or raise timeout"
    assert_failure(completed, f"not delivered to slow: {error}")
    assert "example.com to log: command ran" in completed.stdout


def test_equal_errors_of_several_certificates_are_one_message(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['false']\n")
    for number in range(5):
        renew(certbot_folder, f"c{number}")
    completed = run_deliver_hook(hook, "--all")
    error = "c0, c1, c2 and 2 more not delivered to command: false ended with status 1: no output"
    assert completed.stderr == f"certbot_renewal_deliver: {error}\n"


def test_a_certificate_with_the_key_of_another_one_is_delivered_nowhere(
    tmp_path: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder, "good")
    bad = renew(certbot_folder, "bad")
    (bad / "privkey.pem").write_bytes(key_as_pem(rsa.generate_private_key(65537, 2048)))
    completed = run_deliver_hook(hook, "--all")
    assert_failure(
        completed, "bad: ", "the key does not match the certificate, or a file is damaged"
    )
    lineages = [Path(line.split()[0]).name for line in lines_of(tmp_path / "log")]
    assert lineages == ["good"]


# ---- Secrets, and sudden ends ------------------------------------------------------------------
def wrap_programs(folder: Path, scratch: Path) -> str:
    """Wrap ssh and sftp: they log their arguments, and the temporary files; return a PATH."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name in ("ssh", "sftp"):
        lines = [
            "#!/bin/sh",
            f'echo "$0 $@" >> {folder}/arguments',
            f"ls -laR {scratch} >> {folder}/arguments",
            f'exec {shutil.which(name)} "$@"',
        ]
        (bin_folder / name).write_text("\n".join(lines) + "\n")
        (bin_folder / name).chmod(0o755)
    return f"{bin_folder}:{os.environ['PATH']}"


def files_open_to_others(folder: Path, secret: str) -> list[Path]:
    """Return the files with a secret that others than their owner may open."""
    paths = []
    for path in folder.rglob("*"):
        is_open = path.is_file() and path.stat().st_mode & 0o077
        if is_open and secret in path.read_text("latin1"):
            paths.append(path)
    return paths


def test_no_argument_log_or_file_shows_a_key(
    sshd: Sshd, haproxy: HAProxy, tmp_path: Path, certbot_folder: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = wrap_programs(tmp_path, scratch)
    key = rsa.generate_private_key(65537, 2048)
    names = ["example.com"]
    live = make_lineage(certbot_folder, "example.com", names, NOW - 60, 90 * DAY, key=key)
    toml = haproxy.table() + ssh_table(sshd, tmp_path / "there") + command_table(tmp_path)
    hook = install_deliver_hook(certbot_folder, toml)
    completed = run_deliver_hook(hook, "--all", PATH=path, TMPDIR=str(scratch))
    assert_success(completed)

    arguments = (tmp_path / "arguments").read_text()
    assert arguments.count("BatchMode=yes") == 3
    secret = (live / "privkey.pem").read_text().splitlines()[1]
    assert files_open_to_others(tmp_path, secret) == []
    state = (certbot_folder / STATE_FILE).read_text()
    for text in (completed.stdout, completed.stderr, arguments, state):
        assert secret not in text
    assert list(scratch.iterdir()) == []


def kill_a_run(hook: Path, seconds: float) -> None:
    """Start a run, and kill it after `seconds`."""
    child = subprocess.Popen(
        [sys.executable, str(hook), "--all"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    child.kill()
    child.wait()


def test_a_run_that_is_killed_leaves_nothing_half_written_and_the_next_one_goes_on(
    sshd: Sshd, haproxy: HAProxy, tmp_path: Path, certbot_folder: Path
) -> None:
    there = tmp_path / "there"
    copy = there / "example.com.crt"
    pem = haproxy.certs / "example.com.pem"
    hook = install_deliver_hook(certbot_folder, haproxy.table() + ssh_table(sshd, there))
    certificates = [renewed_certificate(certbot_folder, days_ago=80)]
    assert_success(run_deliver_hook(hook, "--all"))
    seconds = random.Random(1)
    for number in range(max(4, RENEWALS * 2)):
        certificates.append(renewed_certificate(certbot_folder, days_ago=79 - number))
        kill_a_run(hook, seconds.uniform(0.1, 0.9))
        assert haproxy.served("example.com") in certificates
        assert is_pair(pem, pem)
        assert is_pair(copy, there / "example.com.key")
        if number % 2:
            assert_success(run_deliver_hook(hook, "--all"))
            assert haproxy.served("example.com") == certificates[-1]
            assert first_certificate(copy) == certificates[-1]


# ---- State file --------------------------------------------------------------------------------
def test_a_target_that_is_wanted_again_begins_again(tmp_path: Path, certbot_folder: Path) -> None:
    renew(certbot_folder)
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    assert_success(run_deliver_hook(hook, "--all"))
    install_deliver_hook(certbot_folder, command_table(tmp_path, "other"))
    assert_success(run_deliver_hook(hook, "--all"))
    assert delivery_to(certbot_folder, "log").fingerprint == certbot_renewal_report.DELIVERY_RETIRED

    install_deliver_hook(certbot_folder, "[[command]]\nname = 'log'\ncommand = ['false']\n")
    assert run_deliver_hook(hook, "--all").returncode == 1
    delivery = delivery_to(certbot_folder, "log")
    assert delivery.fingerprint == "none"
    assert delivery.not_before == 0
    assert delivery.error == "false ended with status 1: no output"


def test_a_retired_delivery_is_forgotten_after_30_days(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['true']\n")
    renew(certbot_folder)
    state = certbot_folder / STATE_FILE
    retired = certbot_renewal_report.DELIVERY_RETIRED
    rows = [
        f"retired\tcommand\t{retired}\t0\t0\t{NOW - 29 * DAY}\t",
        f"forgotten\tcommand\t{retired}\t0\t0\t{NOW - 31 * DAY}\t",
    ]
    state.write_text("\n".join(rows) + "\n")
    assert_success(run_deliver_hook(hook, "--all"))
    assert [line.split("\t")[0] for line in lines_of(state)] == ["example.com", "retired"]


def test_a_lineage_that_is_deleted_is_retired(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    live = renew(certbot_folder)
    renew(certbot_folder, "other")
    assert_success(run_deliver_hook(hook, "--all"))
    shutil.rmtree(live)
    assert_success(run_deliver_hook(hook, "--all"))
    delivery = delivery_to(certbot_folder, "log")
    assert delivery.fingerprint == certbot_renewal_report.DELIVERY_RETIRED
    assert delivery.changed_at >= NOW


def test_a_state_file_that_cannot_be_read_or_written_is_an_error_and_deliveries_go_on(
    tmp_path: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    state = certbot_folder / STATE_FILE
    state.mkdir()
    completed = run_deliver_hook(hook, "--all")
    assert_failure(
        completed,
        f"{state}: Is a directory: make it readable; until then each command runs again",
        f"{state}: Is a directory: make it writable; until then reports",
    )
    assert "example.com to log: command ran" in completed.stdout


def test_a_state_file_that_cannot_be_written_is_one_error_for_all_deliveries(
    tmp_path: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder, "one")
    renew(certbot_folder, "two")
    (certbot_folder / STATE_FILE).mkdir()
    completed = run_deliver_hook(hook, "--all")
    assert_failure(completed)
    assert completed.stderr.count("make it writable") == 1
    assert "one to log: command ran; two to log: command ran" in completed.stdout


def test_a_delivery_that_cannot_be_recorded_is_reported_with_the_fault(
    tmp_path: Path,
    certbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken_record(*_: object) -> None:
        raise TypeError("broken")

    monkeypatch.setattr(certbot_renewal_deliver.StateFile, "record", broken_record)
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder, "one")
    renew(certbot_folder, "two")
    status = certbot_renewal_deliver.main(["--all"], {}, str(hook))
    assert status == 1
    output = capsys.readouterr()
    assert output.out == "one to log: command ran; two to log: command ran\n"
    assert "one, two not delivered to log: TypeError: broken: this is a bug in" in output.err


def test_a_state_file_that_holds_rubbish_is_replaced(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    (certbot_folder / STATE_FILE).write_text("rubbish\n\x00\n")
    assert_success(run_deliver_hook(hook, "--all"), "command ran")
    assert delivery_to(certbot_folder, "log").not_before == NOW - 60


def test_a_look_does_not_change_the_state(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    for argument in ("--dry-run", "--check"):
        assert_success(run_deliver_hook(hook, argument), "would run")
    assert not (certbot_folder / STATE_FILE).exists()


# ---- Lock --------------------------------------------------------------------------------------
def test_a_run_waits_until_another_one_has_ended(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    with certbot_renewal_deliver.run_lock(str(certbot_folder)):
        child = subprocess.Popen([sys.executable, str(hook), "--all"], stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(2)
        assert lines_of(tmp_path / "log") == []
    assert child.wait(60) == 0
    assert len(lines_of(tmp_path / "log")) == 1


def test_a_run_does_not_wait_forever_for_another_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certbot_renewal_deliver, "LOCK_SECONDS", 0.3)
    error = r"another run has held this lock for 0.3 s: find that run with: fuser -v"
    with (
        certbot_renewal_deliver.run_lock(str(tmp_path)),
        pytest.raises(base.DeliverError, match=error),
        certbot_renewal_deliver.run_lock(str(tmp_path)),
    ):
        pass


# ---- --check -----------------------------------------------------------------------------------
def test_check_of_a_complete_installation_is_ready(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    path = certbot_folder / "certbot_renewal_deliver.toml"
    ready = f"ready: 1 certificate for 1 target in {path}"
    assert_success(run_deliver_hook(hook, "--check"), ready)


def test_check_names_a_folder_that_is_missing(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['true']\n")
    live = f"{certbot_folder}/live"
    error = f"not ready: {live}: No such file or directory: run as root"
    assert_failure(run_deliver_hook(hook, "--check"), error)


def test_check_without_a_certificate_is_not_ready(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['true']\n")
    live = certbot_folder / "live"
    live.mkdir()
    error = f"not ready: {live}: no certificates: get a certificate with certbot"
    assert_failure(run_deliver_hook(hook, "--check"), error)


def test_a_target_that_no_certificate_is_for_is_not_ready(certbot_folder: Path) -> None:
    toml = "[[command]]\ncommand = ['true']\nlineages = ['exmaple.com']\n"
    hook = install_deliver_hook(certbot_folder, toml)
    renew(certbot_folder)
    error = "not ready: no certificate matches the target command: correct its lineages or names"
    assert_failure(run_deliver_hook(hook, "--check"), error)
    assert_success(run_deliver_hook(hook, "--all"), "nothing delivered")


def test_a_delivery_that_failed_the_last_time_is_not_ready(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['false']\n")
    renew(certbot_folder)
    assert run_deliver_hook(hook, "--all").returncode == 1
    error = "the last attempt failed: false ended with status 1: no output: try again with --all"
    assert_failure(run_deliver_hook(hook, "--check"), error)


def test_check_of_a_hook_that_certbot_would_not_start_is_not_ready(
    tmp_path: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    hook.chmod(0o644)
    error = f"{hook} is not executable, so certbot ignores it: chmod 755 {hook}"
    assert_failure(run_deliver_hook(hook, "--check"), f"not ready: {error}")

    checked = run_deliver_hook(DELIVER_HOOK, "--check", "--config-dir", str(certbot_folder))
    deploy = certbot_folder / "renewal-hooks" / "deploy"
    error = f"{DELIVER_HOOK} is not in {deploy}, where certbot would run it: copy it there"
    assert_failure(checked, f"not ready: {error}")


@pytest.mark.parametrize("option", ["--dry-run", "--check"])
def test_restore_is_refused_with_an_option_that_changes_nothing(
    certbot_folder: Path, option: str
) -> None:
    hook = install_deliver_hook(certbot_folder, "[[command]]\ncommand = ['true']\n")
    completed = run_deliver_hook(hook, "restore", option)
    assert completed.returncode == 2
    assert "restore changes files: do not combine it with --check or --dry-run" in completed.stderr


# ---- Settings file -----------------------------------------------------------------------------
HAPROXY_TABLE = "[[haproxy]]\nsocket = 'x'\n"
SSH_TABLE = "[[ssh]]\nfullchain = '/{lineage}'\nkey = '/k{lineage}'\n"
COMMAND_TABLE = "[[command]]\ncommand = ['x']\n"


@pytest.mark.parametrize(
    ("toml", "error"),
    [
        ("", "this file has no target: add one"),
        ("not toml", "Expected '=' after a key"),
        (
            "[haproxy]\nsocket = 'x'\n",
            "haproxy is not a kind of target: "
            "begin each target with one of [[command]], [[haproxy]], [[ssh]], [[vault]]",
        ),
        ("[[ftp]]\n", "ftp is not a kind of target"),
        ("[[base]]\n", "base is not a kind of target"),
        ("[[haproxy]]\n", "haproxy: socket is missing: HAProxy's stats socket"),
        (
            HAPROXY_TABLE + "certificate = '/x.pem'\n",
            "certificate is the same file for all certificates: add {lineage} to the path",
        ),
        (
            HAPROXY_TABLE + "certificate = '/x.pem'\nlineages = ['exampl[ae].com']\n",
            "certificate is the same file for all certificates: add {lineage} to the path",
        ),
        (
            HAPROXY_TABLE + "certificate = 3\n",
            "certificate is not valid: it must be one line of text",
        ),
        (SSH_TABLE + "hosts = 'web1'\n", "hosts is not valid: it must be a list of strings"),
        (
            SSH_TABLE + "hosts = ['-oProxyCommand=x']\n",
            "in hosts is not valid: write [user@]host",
        ),
        (
            COMMAND_TABLE + "timeout = 0\n",
            "timeout is not valid: it must be a number above 0 and below 86400",
        ),
        (
            COMMAND_TABLE + "timeout = 86400\n",
            "timeout is not valid: it must be a number above 0 and below 86400",
        ),
        (
            COMMAND_TABLE + "reload = 'x'\n",
            "reload is not an option of command (known options: name, lineages,",
        ),
        (
            COMMAND_TABLE * 2,
            "more than one target has the name command: set a different name for each",
        ),
        (COMMAND_TABLE + "name = 3\n", "name is not valid: it must be one line of text"),
    ],
)
def test_a_fault_in_the_settings_file_is_named(certbot_folder: Path, toml: str, error: str) -> None:
    hook = install_deliver_hook(certbot_folder, toml)
    renew(certbot_folder)
    completed = run_deliver_hook(hook, "--all")
    path = f"{certbot_folder}/certbot_renewal_deliver.toml"
    assert completed.stderr.startswith(f"certbot_renewal_deliver: {path}: ")
    assert_failure(completed, error)
    assert "Traceback" not in completed.stderr


@pytest.mark.parametrize("seconds", ["0.1", "86399"])
def test_a_timeout_above_0_and_below_a_day_is_accepted(tmp_path: Path, seconds: str) -> None:
    toml = f"{COMMAND_TABLE}timeout = {seconds}\n"
    (tmp_path / certbot_renewal_deliver.TOML_FILE).write_text(toml)
    (target,) = certbot_renewal_deliver.read_targets(str(tmp_path))
    assert target.options["timeout"] == float(seconds)


def test_all_faults_in_the_settings_file_are_named_at_once(certbot_folder: Path) -> None:
    toml = "[[ftp]]\n[[haproxy]]\nsockett = 'x'\n[[command]]\ncommand = 'x'\ntimeout = -1\n"
    hook = install_deliver_hook(certbot_folder, toml)
    assert_failure(
        run_deliver_hook(hook, "--all"),
        "ftp is not a kind of target",
        "haproxy: sockett is not an option of haproxy",
        "haproxy: socket is missing",
        "haproxy: certificate is missing",
        "command: command is not valid",
        "command: timeout is not valid",
    )


def test_a_settings_file_that_is_missing_is_named(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "")
    path = certbot_folder / "certbot_renewal_deliver.toml"
    path.unlink()
    error = f"{path}: No such file or directory: write this file as docs/deliver.md shows"
    assert_failure(run_deliver_hook(hook, "--all"), error)


TEXTS = ["{lineage}", "/x/{lineage}.pem", "web1", "-x", "a:b"]
SINGLE_VALUES = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(TEXTS)
)
VALUES = st.recursive(
    SINGLE_VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=2)
    ),
    max_leaves=4,
)
OPTION_TABLES = certbot_renewal_deliver.option_tables()
OPTION_NAMES = sorted(set().union(*OPTION_TABLES.values()))


@given(
    st.sampled_from(certbot_renewal_targets.kind_names()),
    st.dictionaries(st.one_of(st.sampled_from(OPTION_NAMES), st.text()), VALUES),
)
def test_whatever_is_in_a_table_it_is_a_target_or_a_fault(
    kind_name: str, table: dict[str, object]
) -> None:
    faults: list[str] = []
    kind = certbot_renewal_targets.load_kind(kind_name)
    targets = certbot_renewal_deliver.targets_of_table(kind_name, kind, table, faults)
    assert bool(targets) != bool(faults)
    lineage = base.Lineage("example.com", "/live", ["www.example.com"], 0, 0, b"", {})
    for target in targets:
        target.wants(lineage)
        for option in ("certificate", "file", "fullchain", "key"):
            with contextlib.suppress(base.DeliverError, KeyError):
                target.path(option, lineage)


# ---- Installed ---------------------------------------------------------------------------------
def make_checkout(folder: Path) -> Path:
    """Copy what the deliver hook needs of the checkout; return the copy."""
    checkout = folder / "checkout"
    (checkout / "deliver").mkdir(parents=True)
    shutil.copy(REPORT_HOOK, checkout)
    shutil.copy(DELIVER_HOOK, checkout / "deliver")
    shutil.copytree(TARGETS_PACKAGE, checkout / "deliver" / TARGETS_PACKAGE.name)
    (checkout / "deliver" / DELIVER_HOOK.name).chmod(0o755)
    return checkout


@pytest.mark.parametrize("report", ["copy", "link", "missing"])
@pytest.mark.parametrize("targets", ["copy", "link", "missing"])
def test_a_deliver_hook_that_is_a_link_finds_the_report_hook_and_the_targets(
    tmp_path: Path, certbot_folder: Path, report: str, targets: str
) -> None:
    checkout = make_checkout(tmp_path)
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    hook.unlink()
    hook.symlink_to(checkout / "deliver" / hook.name)
    if report != "copy":
        (hook.parent / REPORT_HOOK.name).unlink()
    if report == "link":
        (hook.parent / REPORT_HOOK.name).symlink_to(checkout / REPORT_HOOK.name)
    if targets != "copy":
        shutil.rmtree(hook.parent / TARGETS_PACKAGE.name)
    if targets == "link":
        package = checkout / "deliver" / TARGETS_PACKAGE.name
        (hook.parent / TARGETS_PACKAGE.name).symlink_to(package)

    renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--check"), "ready: ")
    assert_success(run_deliver_hook(hook, "--all"), "example.com to log: command ran")


def test_a_deliver_hook_that_is_a_copy_finds_links_to_the_report_hook_and_the_targets(
    tmp_path: Path, certbot_folder: Path
) -> None:
    checkout = make_checkout(tmp_path)
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    (hook.parent / REPORT_HOOK.name).unlink()
    (hook.parent / REPORT_HOOK.name).symlink_to(checkout / REPORT_HOOK.name)
    shutil.rmtree(hook.parent / TARGETS_PACKAGE.name)
    package = checkout / "deliver" / TARGETS_PACKAGE.name
    (hook.parent / TARGETS_PACKAGE.name).symlink_to(package)
    renew(certbot_folder)
    assert_success(run_deliver_hook(hook, "--check"), "ready: ")


@pytest.mark.parametrize("is_link", [False, True], ids=["copy", "link"])
def test_in_the_post_folder_it_delivers_everything(
    tmp_path: Path, certbot_folder: Path, is_link: bool
) -> None:
    """The report hook and the targets stay in the deploy folder."""
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    post_hook = certbot_folder / "renewal-hooks" / "post" / hook.name
    post_hook.parent.mkdir()
    hook.rename(post_hook)
    if is_link:
        post_hook.rename(tmp_path / hook.name)
        post_hook.symlink_to(tmp_path / hook.name)
    live = renew(certbot_folder)
    renew(certbot_folder, "other")
    completed = run_deliver_hook(post_hook, RENEWED_LINEAGE=str(live))
    assert_success(completed, "example.com to log: command ran; other to log: command ran")


def test_it_runs_from_a_checkout(tmp_path: Path, certbot_folder: Path) -> None:
    install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    hook = ROOT / "deliver" / DELIVER_HOOK.name
    completed = run_deliver_hook(hook, "--all", "--config-dir", str(certbot_folder))
    assert_success(completed, "example.com to log: command ran")


@pytest.mark.parametrize("missing", ["certbot_renewal_report", "certbot_renewal_targets"])
def test_without_what_it_needs_it_says_what_is_missing(
    tmp_path: Path, certbot_folder: Path, missing: str
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    if missing == "certbot_renewal_targets":
        shutil.rmtree(hook.parent / missing)
    else:
        (hook.parent / f"{missing}.py").unlink()
    completed = run_deliver_hook(hook, "--all")
    assert completed.returncode == 1
    assert completed.stderr == (
        f"certbot_renewal_deliver: {missing} is missing: copy certbot_renewal_report.py "
        f"and certbot_renewal_targets/ to {hook.parent}\n"
    )


def test_an_empty_folder_of_targets_counts_as_missing(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    shutil.rmtree(hook.parent / TARGETS_PACKAGE.name)
    (hook.parent / TARGETS_PACKAGE.name).mkdir()
    error = "certbot_renewal_deliver: certbot_renewal_targets is missing: copy "
    assert_failure(run_deliver_hook(hook, "--all"), error)


def set_version(path: Path, version: str) -> None:
    """Change the version of an installed file."""
    text, count = re.subn(
        r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', path.read_text()
    )
    assert count == 1
    path.write_text(text)


def test_check_with_a_report_hook_of_another_version_is_not_ready(
    tmp_path: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    report_hook = hook.parent / REPORT_HOOK.name
    set_version(report_hook, "0.0.9")
    version = certbot_renewal_deliver.__version__
    assert_failure(
        run_deliver_hook(hook, "--check"),
        f"not ready: {report_hook} is version 0.0.9, certbot_renewal_deliver.py is version "
        f"{version}: copy both from the same release",
    )
    assert_success(run_deliver_hook(hook, "--all"), "command ran")
    assert run_deliver_hook(hook, "--version").stdout == f"certbot_renewal_deliver {version}\n"


def test_check_with_targets_of_another_version_is_not_ready(
    tmp_path: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    renew(certbot_folder)
    set_version(hook.parent / TARGETS_PACKAGE.name / "__init__.py", "0.0.9")
    error = "certbot_renewal_targets/ is version 0.0.9: copy both from the same release"
    assert_failure(run_deliver_hook(hook, "--check"), error)


# ---- Kinds -------------------------------------------------------------------------------------
FOLDER_KIND = '''"""A folder: a target that is a module of its own."""
import os
from certbot_renewal_targets import base

class Target(base.Target):
    OPTIONS = {"folder": base.Option(None, "where the certificates go")}

    def look(self, attempt):
        return "" if os.path.exists(self.file(attempt)) else "would be copied"

    def deliver(self, attempt):
        base.replace_file(self.file(attempt), attempt.lineage.pem["fullchain"])
        return "copied"

    def file(self, attempt):
        return os.path.join(self.options["folder"], attempt.lineage.name)
'''


def test_a_new_kind_of_target_needs_one_module(tmp_path: Path, certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, f"[[folder]]\nfolder = '{tmp_path}'\n")
    live = renew(certbot_folder)
    assert_failure(run_deliver_hook(hook, "--all"), "folder is not a kind of target")

    (hook.parent / TARGETS_PACKAGE.name / "folder.py").write_text(FOLDER_KIND)
    assert_success(run_deliver_hook(hook, "--dry-run"), "would be copied")
    assert not (tmp_path / "example.com").exists()
    assert_success(run_deliver_hook(hook, "--all"), "example.com to folder: copied")
    assert (tmp_path / "example.com").read_text() == (live / "fullchain.pem").read_text()
    assert_success(run_deliver_hook(hook, "--check"), "up to date")
    help_text = run_deliver_hook(hook, "--help").stdout
    assert re.search(r"(?m)^folder:\n  folder +required +where the certificates go$", help_text)


def test_a_kind_without_its_required_option_is_a_fault(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "[[folder]]\n")
    (hook.parent / TARGETS_PACKAGE.name / "folder.py").write_text(FOLDER_KIND)
    error = "folder: folder is missing: where the certificates go"
    assert_failure(run_deliver_hook(hook, "--all"), error)


LIST_IMPORTS = """
import contextlib, runpy, sys
sys.argv = sys.argv[1:]
with contextlib.suppress(SystemExit):
    runpy.run_path(sys.argv[0], run_name="__main__")
print(*sys.modules)
"""


def test_a_run_imports_only_the_kinds_that_the_settings_file_names(
    tmp_path: Path, certbot_folder: Path
) -> None:
    hook = install_deliver_hook(certbot_folder, command_table(tmp_path))
    live = renew(certbot_folder)
    completed = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTS, str(hook)],
        env={"PATH": os.environ["PATH"], "RENEWED_LINEAGE": str(live)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_success(completed, "example.com to log: command ran")
    imported = set(completed.stdout.splitlines()[-1].split())
    kinds = {name for name in imported if name.startswith("certbot_renewal_targets.")}
    assert kinds == {"certbot_renewal_targets.base", "certbot_renewal_targets.command"}
    assert not imported.intersection({"hvac", "requests", "argparse"})


def test_the_help_lists_the_options_of_all_kinds(certbot_folder: Path) -> None:
    hook = install_deliver_hook(certbot_folder, "")
    completed = run_deliver_hook(hook, "--help")
    assert_success(
        completed, "every kind:\n  name            (empty)   name of the target in reports"
    )
    for kind in ("command", "haproxy", "ssh", "vault"):
        assert f"\n{kind}:\n" in completed.stdout


# ---- Reports -----------------------------------------------------------------------------------
def deliveries_in(points: set[tuple[str, ...]]) -> dict[str, dict[str, str]]:
    """Return the newest fields of each target."""
    deliveries: dict[str, dict[str, str]] = {}
    for _, field, value, *tags in sorted(points, key=lambda point: int(point[0])):
        for tag in tags:
            key, _, target = tag.partition("=")
            if key == "target":
                deliveries.setdefault(target, {})[field] = value
    return deliveries


def test_reports_say_what_each_target_has(
    server: Callable[[str], InfluxDB], tmp_path: Path, certbot_folder: Path
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    settings = influxdb.settings(bucket)
    tables = command_table(tmp_path) + command_table(tmp_path, "edge")
    hook = install_deliver_hook(certbot_folder, tables)
    live = renew(certbot_folder, days_ago=60)
    environ = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": "example.com"}
    assert_success(run_deliver_hook(hook, **environ))
    reported = start_report_hook(certbot_folder, **settings, **environ)
    assert reported.returncode == 0, reported.stderr
    begin = NOW - 60 - 60 * DAY
    fields = {
        "deployed": str(begin),
        "deployed_expiry": str(begin + 90 * DAY),
        "renewed": str(begin),
        "run_at": "0",
        "deploy_error": "none",
    }
    assert deliveries_in(influxdb.points(bucket)) == {"edge": fields, "log": fields}


def test_reports_say_which_target_lacks_a_renewed_certificate_and_why(
    server: Callable[[str], InfluxDB], tmp_path: Path, certbot_folder: Path
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    script = f"test -e {tmp_path}/route || {{ echo no route; exit 1; }}"
    edge = f"[[command]]\nname = 'edge'\ncommand = ['/bin/sh', '-c', '{script}']\n"
    hook = install_deliver_hook(certbot_folder, edge + command_table(tmp_path))
    (tmp_path / "route").touch()
    renew(certbot_folder, days_ago=60)
    assert_success(run_deliver_hook(hook, "--all"))
    (tmp_path / "route").unlink()
    renew(certbot_folder)
    assert run_deliver_hook(hook, "--all").returncode == 1

    settings = influxdb.settings(bucket)
    assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
    deliveries = deliveries_in(influxdb.points(bucket))
    assert deliveries["edge"]["deployed"] == str(NOW - 60 - 60 * DAY)
    assert deliveries["edge"]["renewed"] == str(NOW - 60)
    assert deliveries["edge"]["deploy_error"] == "/bin/sh ended with status 1: no route"
    assert int(deliveries["edge"]["run_at"]) >= NOW
    assert deliveries["log"]["deployed"] == str(NOW - 60)


def test_a_report_says_that_a_target_is_retired(
    server: Callable[[str], InfluxDB], tmp_path: Path, certbot_folder: Path
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    settings = influxdb.settings(bucket)
    renew(certbot_folder)
    tables = command_table(tmp_path) + command_table(tmp_path, "edge")
    hook = install_deliver_hook(certbot_folder, tables)
    assert_success(run_deliver_hook(hook, "--all"))
    assert start_run_report(certbot_folder, "--all", **settings).returncode == 0

    install_deliver_hook(certbot_folder, command_table(tmp_path))
    assert_success(run_deliver_hook(hook, "--all"))
    next_second()
    assert start_run_report(certbot_folder, "--all", **settings).returncode == 0
    deliveries = deliveries_in(influxdb.points(bucket))
    assert deliveries["edge"]["renewed"] == "0"
    assert deliveries["log"]["renewed"] == str(NOW - 60)
