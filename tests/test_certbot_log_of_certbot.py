"""certbot's log, written by the real certbot: the newest one with ARI, and Debian's without it."""

from __future__ import annotations

import fcntl
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from certbot_renewal_run import (
    FAILED,
    KILLED,
    NOT_DUE,
    NOT_PROCESSED,
    RENEWED,
    UNREADABLE,
    CertbotRun,
    LineageResult,
    read_certbot_log,
)
from support.certbot_logs import LOCKED, newest_run
from tools.servers.certbot import (
    Authority,
    Certbot,
    distribution_certbot,
    start_pebble,
    start_pebble_with_ari,
)
from tools.servers.lineages import DAY
from tools.servers.processes import free_port, wait_for

A, B = "a.example.com", "b.example.com"


class Authorities(NamedTuple):
    """Three CAs: without ARI, with ARI, and one that asks for proof, which no name can give."""

    plain: Authority
    ari: Authority
    strict: Authority


@pytest.fixture(scope="module")
def authorities(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Authorities]:
    """The CAs."""
    with (
        start_pebble_with_ari(tmp_path_factory.mktemp("ari")) as ari,
        start_pebble(tmp_path_factory.mktemp("strict"), http=free_port()) as strict,
    ):
        yield Authorities(authority, ari, strict)


def without_hook(certbot: Certbot) -> Certbot:
    """Return a certbot without the report hook, which has no settings here."""
    certbot.hook.unlink()
    return certbot


@pytest.fixture(scope="module", params=["newest", "distribution"])
def issued(
    request: pytest.FixtureRequest,
    authorities: Authorities,
    tmp_path_factory: pytest.TempPathFactory,
) -> Certbot:
    """certbot with two lineages, which each test copies."""
    folder = tmp_path_factory.mktemp(request.param) / "letsencrypt"
    if request.param == "newest":
        certbot = Certbot(folder, authorities.ari)
    else:
        certbot = Certbot(folder, authorities.plain, distribution_certbot())
    without_hook(certbot)
    for lineage in (A, B):
        issued = certbot.issue(lineage, lineage)
        assert issued.returncode == 0, issued.stdout
    return certbot


@pytest.fixture
def certbot(issued: Certbot, tmp_path: Path) -> Certbot:
    """certbot with two lineages."""
    return without_hook(issued.copied(tmp_path / "letsencrypt"))


@pytest.fixture(scope="module")
def issued_with_ari(authorities: Authorities, tmp_path_factory: pytest.TempPathFactory) -> Certbot:
    """The newest certbot with a lineage, at the CA with ARI; each test copies it."""
    certbot = without_hook(Certbot(tmp_path_factory.mktemp("a") / "letsencrypt", authorities.ari))
    issued = certbot.issue(A, A)
    assert issued.returncode == 0, issued.stdout
    return certbot


@pytest.fixture
def newest_certbot(issued_with_ari: Certbot, tmp_path: Path) -> Certbot:
    """The newest certbot with a lineage, at the CA with ARI."""
    return without_hook(issued_with_ari.copied(tmp_path / "letsencrypt"))


@pytest.fixture
def refused_certbot(certbot: Certbot, authorities: Authorities) -> Certbot:
    """The same folder, with the CA that asks for proof; the second lineage proves by HTTP."""
    web = certbot.folder.parent / "web"
    web.mkdir()
    conf = conf_of(certbot, B)
    text = conf.read_text().replace("authenticator = manual", "authenticator = webroot")
    text = re.sub(r"(?m)^(pref_challs|manual_auth_hook) = .*\n", "", text)
    conf.write_text(f"{text}webroot_path = {web},\n[[webroot_map]]\n")

    refused = without_hook(Certbot(certbot.folder, authorities.strict, certbot.program))
    registered = refused.run("register", "--agree-tos", "--register-unsafely-without-email")
    assert registered.returncode == 0, registered.stdout
    return refused


def conf_of(certbot: Certbot, lineage: str) -> Path:
    """Return the path of a lineage's renewal configuration."""
    return certbot.folder / "renewal" / f"{lineage}.conf"


def read(certbot: Certbot) -> CertbotRun:
    """Return the newest run in certbot's log."""
    return newest_run(certbot.log.parent, int(time.time()))


def results(run: CertbotRun) -> dict[str, str]:
    """Return the results by lineage."""
    return {lineage: result.result for lineage, result in run.results.items()}


def count_runs(certbot: Certbot) -> int:
    """Return how many runs of `certbot renew` the whole log has."""
    log = read_certbot_log(str(certbot.log.parent), "1970-01-01 00:00:00,000", int(time.time()))
    assert log.problem == ""
    return len(log.runs)


# ---- Good runs ---------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [[], ["-q"]])
def test_nothing_is_due(certbot: Certbot, options: list[str]) -> None:
    before = int(time.time())
    assert certbot.renew(*options).returncode == 0
    run = read(certbot)
    assert results(run) == {A: NOT_DUE, B: NOT_DUE}
    assert (run.mode, run.failure, run.is_dry_run, run.is_finished) == ("renew", "", False, True)
    assert before <= run.started_at <= run.ended_at <= time.time()
    program = [certbot.program, "--version"]
    output = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert output.split() == ["certbot", run.version]


def test_a_forced_renewal(certbot: Certbot) -> None:
    assert certbot.renew("-q", "--force-renewal").returncode == 0
    run = read(certbot)
    assert run.results == {A: LineageResult(RENEWED, "", None), B: LineageResult(RENEWED, "", None)}
    assert run.mode == "renew --force-renewal"


def test_one_lineage(certbot: Certbot) -> None:
    assert certbot.renew("--cert-name", A).returncode == 0
    run = read(certbot)
    assert results(run) == {A: NOT_DUE}
    assert run.mode == f"renew --cert-name {A}"


def test_a_dry_run(certbot: Certbot) -> None:
    assert certbot.renew("--dry-run", "--server", certbot.authority.directory).returncode == 0
    run = read(certbot)
    assert run.is_dry_run
    assert results(run) == {A: RENEWED, B: RENEWED}


def test_autorenew_false(certbot: Certbot) -> None:
    conf = conf_of(certbot, A)
    conf.write_text(
        conf.read_text().replace("[renewalparams]", "[renewalparams]\nautorenew = False")
    )
    assert certbot.renew().returncode == 0
    assert results(read(certbot)) == {A: NOT_DUE, B: NOT_DUE}


def test_a_hook_that_fails(certbot: Certbot) -> None:
    hook = "echo token is hunter2; exit 3"
    certbot.renew("--force-renewal", "--cert-name", A, "--deploy-hook", hook)
    reason = "Hook 'deploy-hook' reported error code 3."
    assert read(certbot).results == {A: LineageResult(RENEWED, reason, None)}


def test_a_folder_without_lineages(authorities: Authorities, tmp_path: Path) -> None:
    certbot = without_hook(Certbot(tmp_path / "letsencrypt", authorities.plain))
    assert certbot.renew().returncode == 0
    run = read(certbot)
    assert (run.results, run.failure) == ({}, "")


def test_other_commands_are_ignored(certbot: Certbot) -> None:
    certbot.issue(A, A, B)
    certbot.run("certificates")
    certbot.run("delete", "--cert-name", "unknown.example.com")
    certbot.run("delete", "--cert-name", B)
    certbot.run("reconfigure", "--cert-name", A)
    assert count_runs(certbot) == 0


def test_each_run_is_read_once_in_files_that_certbot_rotates(certbot: Certbot) -> None:
    options = ["--max-log-backups", "5"]
    certbot.renew(*options)
    first = read(certbot)
    certbot.run("certificates", *options)
    certbot.renew("--cert-name", A, *options)
    certbot.renew("--cert-name", B, *options)
    log = read_certbot_log(str(certbot.log.parent), first.position, int(time.time()))
    assert [run.mode for run in log.runs] == [f"renew --cert-name {A}", f"renew --cert-name {B}"]


# ---- Failures ----------------------------------------------------------------------------------
def test_the_ca_refuses(refused_certbot: Certbot) -> None:
    assert refused_certbot.renew("--force-renewal").returncode == 1
    run = read(refused_certbot)
    assert results(run) == {A: FAILED, B: FAILED}
    assert run.failure == ""

    by_dns = run.results[A].reason
    assert by_dns.startswith("Some challenges have failed. (")
    assert A in by_dns
    assert "unauthorized: No TXT records found for DNS challenge" in by_dns
    by_http = run.results[B].reason
    assert f"http://{B}:" in by_http
    assert "/.well-known/acme-challenge/***" in by_http
    assert "connection refused" in by_http

    secrets = re.findall(r'"token": "([^"]+)"', refused_certbot.log.read_text())
    assert len(secrets) > 3
    for secret in secrets:
        assert secret not in by_dns + by_http


def test_a_dry_run_that_fails(refused_certbot: Certbot) -> None:
    server = refused_certbot.authority.directory
    assert refused_certbot.renew("--dry-run", "--server", server).returncode == 1
    run = read(refused_certbot)
    assert run.is_dry_run
    assert results(run) == {A: FAILED, B: FAILED}


def test_configurations_that_certbot_cannot_read(certbot: Certbot) -> None:
    good = conf_of(certbot, A).read_text()
    conf_of(certbot, "c.example.com").write_text("[[[\n")
    conf_of(certbot, "d.example.com").write_text(good.replace("authenticator = manual\n", ""))
    (certbot.folder / "live" / B / "privkey.pem").unlink()
    assert certbot.renew().returncode == 1
    run = read(certbot)
    assert results(run) == {
        A: NOT_DUE,
        B: UNREADABLE,
        "c.example.com": UNREADABLE,
        "d.example.com": UNREADABLE,
    }
    assert "does not specify an authenticator" in run.results["d.example.com"].reason
    assert "is broken. The error was: error parsing" in run.results["c.example.com"].reason
    assert run.failure == ""


def test_another_certbot_is_running(certbot: Certbot) -> None:
    with (certbot.folder / ".certbot.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        assert certbot.renew("-q").returncode == 1
    run = read(certbot)
    assert (run.is_locked, run.failure, run.results) == (True, LOCKED, {})


def test_the_ca_is_away(newest_certbot: Certbot) -> None:
    away = Authority("https://127.0.0.1:1/dir", newest_certbot.authority.bundle)
    certbot = without_hook(Certbot(newest_certbot.folder, away))
    assert certbot.renew("--force-renewal").returncode == 1
    run = read(certbot)
    assert results(run) == {A: FAILED}
    assert "Connection refused" in run.results[A].reason


def test_a_plugin_that_is_missing(certbot: Certbot) -> None:
    assert certbot.renew("--force-renewal", "-a", "dns-nothing").returncode == 1
    reason = read(certbot).results[A].reason
    assert reason == "The requested dns-nothing plugin does not appear to be installed"


@pytest.mark.parametrize(
    ("options", "failure"),
    [
        (["--cert-name", "unknown.example.com"], "No certificate found with name unknown.example"),
        (["-d", "x.example.com"], "Currently, the renew verb is capable of either renewing all"),
    ],
)
def test_a_run_with_wrong_options(certbot: Certbot, options: list[str], failure: str) -> None:
    assert certbot.renew(*options).returncode == 1
    run = read(certbot)
    assert run.failure.startswith(failure)
    assert run.results == {}


# ---- Runs that have not ended ------------------------------------------------------------------
def test_a_post_hook_reads_complete_results(refused_certbot: Certbot) -> None:
    copies = refused_certbot.folder.parent / "copies"
    copy = f"mkdir {copies} && cp {refused_certbot.log} {copies}"
    refused_certbot.renew("--force-renewal", "--cert-name", B, "--post-hook", copy)
    run = newest_run(copies, int(time.time()))
    assert (run.is_finished, run.failure) == (False, "")
    assert results(run) == {B: FAILED}
    assert "connection refused" in run.results[B].reason
    assert read(refused_certbot).is_finished


@pytest.mark.parametrize(
    ("sent", "failure"),
    [(signal.SIGKILL, KILLED), (signal.SIGINT, "Exiting due to user request.")],
)
def test_a_run_that_ends_early(certbot: Certbot, sent: signal.Signals, failure: str) -> None:
    command = [certbot.program, "renew", "--force-renewal", "--pre-hook", "sleep 5"]
    environ = certbot.surroundings()
    child = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: "Running pre-hook" in certbot.log.read_text(), "the pre-hook")
        run = read(certbot)
        assert (run.is_finished, run.failure) == (False, "")
    finally:
        child.send_signal(sent)
        child.wait()
    log = read_certbot_log(str(certbot.log.parent), "", int(time.time()) + 2 * 3600)
    assert (log.runs[0].is_finished, log.runs[0].failure) == (True, failure)
    assert results(log.runs[0]) == {A: NOT_PROCESSED}


# ---- ARI ---------------------------------------------------------------------------------------
def set_window(certbot: Certbot, start: int, end: int) -> None:
    """Set the CA's window for the certificate, and let certbot ask for it again."""
    certbot.authority.set_window(certbot.folder / "live" / A / "cert.pem", start, end)
    conf = conf_of(certbot, A)
    conf.write_text(conf.read_text().partition("[acme_renewal_info]")[0])


def test_the_usual_window(newest_certbot: Certbot) -> None:
    newest_certbot.renew()
    result = read(newest_certbot).results[A]
    due = newest_certbot.not_before(A) + 60 * DAY
    assert result == LineageResult(NOT_DUE, "", (due - DAY, due + DAY))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (-2 * DAY, -DAY, RENEWED),
        (80 * DAY, 85 * DAY, NOT_DUE),
        (-DAY // 24, 3000 * DAY, NOT_DUE),
    ],
)
def test_other_windows(newest_certbot: Certbot, start: int, end: int, expected: str) -> None:
    now = int(time.time())
    set_window(newest_certbot, now + start, now + end)
    newest_certbot.renew()
    assert read(newest_certbot).results == {
        A: LineageResult(expected, "", (now + start, now + end))
    }


def test_a_run_that_does_not_ask_has_no_window(newest_certbot: Certbot) -> None:
    newest_certbot.renew()
    newest_certbot.renew()
    assert read(newest_certbot).results == {A: LineageResult(NOT_DUE, "", None)}
