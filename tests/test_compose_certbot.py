"""What certbot's containers run in compose/, without a container engine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.front import replace_once
from support.lineages import UNREACHABLE
from support.servers import require_program
from tools import ROOT
from tools.servers.certbot import Authority, Certbot
from tools.servers.lineages import RUN_REPORT
from tools.servers.processes import free_port, running, wait_for
from tools.servers.targets import start_vault

COMPOSE = ROOT / "compose"
VAULT = COMPOSE / "vault"


def write_script(path: Path, text: str) -> None:
    """Write a script of /bin/sh."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_certbot_gets_its_first_certificate_then_renews_and_reports_each_run(
    authority: Authority, tmp_path: Path
) -> None:
    certbot = Certbot(tmp_path / "letsencrypt", authority)
    certbot.settings(UNREACHABLE)
    calls = tmp_path / "calls"
    hooks = certbot.folder / "renewal-hooks"
    # Each records how it was started, unless certbot started it as a hook, without any argument.
    for program in (
        hooks / "deploy" / "certbot_renewal_deliver.py",
        hooks / "post" / RUN_REPORT.name,
    ):
        write_script(program, f'[ -z "$1" ] || echo {program.name} "$@" "$EXIT_STATUS" >>{calls}')
    replacements = {
        "--http-01-port 80": f"--http-01-port {free_port()}",
        "/tmp/ran": str(tmp_path / "ran"),
        "=1200": "=0.1",  # the pause after the first certificate
    }
    script = replace_once((COMPOSE / "certbot.sh").read_text(), replacements)
    environ = {
        **certbot.surroundings(),
        "DOMAINS": "example.com,www.example.com",
        "EMAIL": "admin@example.org",
    }
    command = ["/bin/sh", "-c", certbot.adapted(script)]
    with running(command, tmp_path / "log", environ) as child:
        wait_for(lambda: calls.read_text().count("--patience") == 2, "two reports", child=child)

    assert child.returncode == 0  # it ends when it is stopped, also while it sleeps
    each_run = "certbot_renewal_deliver.py --all \ncertbot_renewal_run.py --all --patience 24 0\n"
    assert calls.read_text() == 2 * each_run
    assert (tmp_path / "log").read_text().count("Requesting a certificate") == 1
    assert (certbot.folder / "live" / "example.com" / "fullchain.pem").exists()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("restore_status", "result"), [(0, (0, "restore\nbegins\n")), (1, (1, "restore\n"))]
)
def test_certbot_begins_only_with_the_certificates_in_vault(
    tmp_path: Path, restore_status: int, result: tuple[int, str]
) -> None:
    image = tmp_path / "image"
    etc = tmp_path / "letsencrypt"
    etc.mkdir()
    write_script(
        image / "renewal-hooks" / "deploy" / "certbot_renewal_deliver.py",
        f"echo $1\nexit {restore_status}",
    )
    write_script(tmp_path / "certbot.sh", "echo begins")
    script = (VAULT / "entrypoint.sh").read_text()
    script = script.replace("/usr/local/share/letsencrypt", str(image))
    script = script.replace("/etc/letsencrypt", str(etc))
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == result


@pytest.mark.parametrize(
    ("policies", "certificate", "accounts", "listing"),
    [
        (["reading"], ["read"], ["deny"], ["deny"]),
        (["renewing"], ["read", "update"], ["read", "update"], ["list"]),
        (
            ["renewing", "first_start"],
            ["create", "read", "update"],
            ["create", "read", "update"],
            ["list"],
        ),
    ],
)
def test_a_policy_allows_what_it_says_and_nothing_else(
    tmp_path: Path,
    policies: list[str],
    certificate: list[str],
    accounts: list[str],
    listing: list[str],
) -> None:
    require_program("vault-server")
    expected = {
        "secret/data/certbot/certificates/example.com": certificate,
        "secret/data/certbot/accounts": accounts,
        "secret/metadata/certbot/certificates/": listing,
        "secret/metadata/certbot/certificates/example.com": ["deny"],
        "secret/metadata/certbot/": ["deny"],
        "secret/delete/certbot/certificates/example.com": ["deny"],
        "secret/destroy/certbot/certificates/example.com": ["deny"],
        "secret/data/other": ["deny"],
    }
    with start_vault(tmp_path) as vault:
        for policy in policies:
            text = (VAULT / "policies" / f"{policy}.hcl").read_text()
            assert vault.api("PUT", f"sys/policies/acl/{policy}", policy=text).ok
        login = vault.api("POST", "auth/token/create", policies=policies).json()
        token = login["auth"]["client_token"]
        answer = vault.api("POST", "sys/capabilities", token=token, paths=list(expected)).json()
    assert {path: sorted(answer[path]) for path in expected} == expected
