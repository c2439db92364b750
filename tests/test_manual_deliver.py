"""docs/deliver.md: a reader follows it, and its tables are what the deliver hook has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import certbot_renewal_deliver
from support.documents import headings_without_message, options_of_help, rows_of
from support.machine import Machine, start_machine
from support.manual import Block, all_blocks, follow, follow_page, read_page
from support.servers import require_program, skip_or_fail
from support.targets import available
from tools import ROOT
from tools.servers.processes import MissingServer, installed_program, running, wait_for
from tools.servers.targets import Vault, answers, start_vault

PAGE = read_page("deliver.md")
DELIVER_HOOK = "/etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_deliver.py"
CHECK = f"{DELIVER_HOOK} --check"
ALL = f"{DELIVER_HOOK} --all"
PROGRAMS = [*sorted((ROOT / "deliver").rglob("*.py")), ROOT / "certbot_renewal_report.py"]

HAPROXY_CFG = """global
    {global_line}
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend https
    {bind_line}
    http-request return status 200
"""

SERVE = "openssl s_client -connect 127.0.0.1:443 -servername example.com </dev/null 2>/dev/null"


# ---- A reader follows it -----------------------------------------------------------------------
@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with certbot, the report hook and the deliver hook."""
    with start_machine(tmp_path, ["web1.example.com", "vault.example.com"]) as machine:
        with available(machine.stack):
            machine.add_certbot("example.com")
        machine.run(
            "mkdir -p /etc/letsencrypt/renewal-hooks/deploy /etc/letsencrypt/renewal-hooks/post\n"
            "install -m 755 certbot_renewal_report.py /etc/letsencrypt/renewal-hooks/deploy/\n"
            "install -m 755 certbot_renewal_run.py /etc/letsencrypt/renewal-hooks/post/\n"
            "echo INFLUXDB_TIMEOUT=0.2 >/etc/letsencrypt/certbot_renewal_report.env\n"
        )
        follow_page(machine, "deliver.md", "Install")
        yield machine


def example(language: str, start: str) -> str:
    """Return the first line of an example of the page that begins so."""
    for block in all_blocks(PAGE):
        if block.language == language and block.text.startswith(start):
            return block.text.strip()
    raise AssertionError(f"no example {start}")


def add_haproxy(machine: Machine) -> None:
    """Add a HAProxy with the lines of the page, as a service; it does not run yet."""
    program = installed_program("haproxy", "haproxy")
    text = HAPROXY_CFG.format(
        global_line=example("haproxy", "stats socket"), bind_line=example("haproxy", "bind")
    )
    machine.write("/etc/haproxy/haproxy.cfg", text)
    command = f"{program} -db -f /etc/haproxy/haproxy.cfg"
    machine.run("mkdir -p /run/haproxy")
    machine.add_unit("haproxy.service", f"[Service]\nExecStart={command}\nX-Listens=443\n")


def test_a_reader_delivers_to_haproxy(machine: Machine) -> None:
    with available(machine.stack):
        add_haproxy(machine)
    follow_page(machine, "deliver.md", "HAProxy", "Check and deliver")
    on_disk = machine.run("openssl x509 -fingerprint -noout -in /etc/letsencrypt/live/*/cert.pem")
    assert machine.run(f"{SERVE} | openssl x509 -fingerprint -noout") == on_disk

    renewed = machine.run("certbot renew --force-renewal")
    assert "example.com to haproxy: now served" in renewed
    new = machine.run("openssl x509 -fingerprint -noout -in /etc/letsencrypt/live/*/cert.pem")
    assert new != on_disk
    assert machine.run(f"{SERVE} | openssl x509 -fingerprint -noout") == new


def test_a_reader_starts_deliveries_after_each_certbot_run(machine: Machine) -> None:
    follow_page(machine, "deliver.md", "A command")
    log = "/var/log/delivered"
    machine.run(
        f"sed -i 's|^command = .*|command = [\"touch\", \"{log}\"]|; /^names/d' "
        "/etc/letsencrypt/certbot_renewal_deliver.toml"
    )
    follow_page(machine, "deliver.md", "After each certbot run")
    machine.run("systemctl start certbot.service", may_fail=True)
    machine.run(f"test -e {log}")

    machine.run(f"rm {log} /etc/letsencrypt/certbot_renewal_deliver.state")
    line = machine.read("/etc/cron.d/certbot").splitlines()[-1]
    command = re.sub(r"^17 3,15 \* \* \* root ", "", line).replace("--patience 24", "")
    machine.run(command, may_fail=True)
    machine.run(f"test -e {log}")
    follow_page(machine, "deliver.md", "Remove")
    assert machine.run("ls /etc/letsencrypt/renewal-hooks/deploy") == "certbot_renewal_report.py\n"


def test_a_reader_delivers_to_another_server(machine: Machine) -> None:
    with available(machine.stack):
        add_sshd(machine)
    follow_page(machine, "deliver.md", "Other servers")
    checked = machine.run(CHECK)
    assert re.search(r"web/web1.example.com +example.com +would be copied", checked)
    delivered = machine.run(ALL)
    assert delivered == "example.com to web/web1.example.com: copied, reload ran\n"
    assert "nginx reloaded" in machine.read("/var/log/reloads")


def add_sshd(machine: Machine) -> None:
    """Add an OpenSSH server, of the same machine, and what the page needs besides."""
    program = installed_program("sshd", "openssh-server")
    machine.run("mkdir -p /run/sshd /root/.ssh && chmod 700 /root /root/.ssh")
    machine.run("rm -f /etc/ssh/ssh_host_* /root/.ssh/*; ssh-keygen -q -A")
    path = f"SetEnv PATH={machine.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    machine.write(
        "/etc/ssh/test_config",
        f"ListenAddress 127.0.0.2\nUsePAM no\n{path}\nSubsystem sftp internal-sftp\n",
    )
    with machine.network():
        command = [*machine.enter(), program, "-D", "-e", "-f", "/etc/ssh/test_config"]
        machine.stack.enter_context(running(command, machine.folder / "sshd.log"))
    wait_for(lambda: machine.run("ssh-keyscan web1.example.com 2>/dev/null"), "sshd")

    # ssh-copy-id would ask for a password.
    add_script(machine, "ssh-copy-id", 'cat "$2" >>/root/.ssh/authorized_keys')
    add_script(machine, "systemctl", 'echo "$2 $1ed" >>/var/log/reloads')


def add_script(machine: Machine, name: str, text: str) -> None:
    """Put a shell script on PATH."""
    path = machine.folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_reader_delivers_to_vault_and_restores_from_it(machine: Machine) -> None:
    require_program("vault-server")
    vault = add_vault(machine)
    steps = [block for block in all_blocks(PAGE) if block.section == "Vault"]
    follow(machine, steps[:-1])
    checked = machine.run(CHECK)
    assert re.search(r"vault +example.com +would be written", checked)
    assert machine.run(ALL) == "example.com to vault: written\n"
    follow(machine, steps[-1:])

    certificate = machine.read("/etc/letsencrypt/live/example.com/fullchain.pem")
    assert vault.secret("certbot/certificates/example.com")["fullchain"] == certificate
    machine.run("cd /etc/letsencrypt && rm -r accounts archive live renewal && cd -")
    follow_page(machine, "deliver.md", "Restore from Vault")
    assert machine.read("/etc/letsencrypt/live/example.com/fullchain.pem") == certificate
    assert "example.com to vault: written" in machine.run("certbot renew --force-renewal")


def add_vault(machine: Machine) -> Vault:
    """Add a Vault, by https at vault.example.com, and a command `vault` that is an administrator."""
    with machine.network():
        vault = machine.stack.enter_context(start_vault(machine.folder / "vault", 8200))
        machine.stack.enter_context(serve_tls(8200, machine.folder / "server.pem"))
    add_python(machine, "vault", VAULT_COMMAND.format(url=vault.url, token=vault.token))
    return vault


# ---- Tables ------------------------------------------------------------------------------------
def test_the_options_of_targets_are_documented_as_the_code_has_them() -> None:
    documented = {}
    header = "| kind | option | default | meaning |"
    for kind, option, default, meaning in rows_of(PAGE, "Options", header):
        documented[kind, option] = (default, meaning)
    options = {}
    for kind, table in certbot_renewal_deliver.option_tables().items():
        for name, declared in table.items():
            default = certbot_renewal_deliver.default_in_words(declared).strip("()")
            options[kind, name] = (default, declared.meaning)
    assert documented == options
