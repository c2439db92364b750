"""docs/deliver.md: a reader follows it, and its tables are what the deliver hook has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import certbot_renewal_deliver
from support import documents
from support.documents import (
    error_messages,
    message_entries,
    options_of_help,
    pieces_of,
    rows_of,
)
from support.machine import Machine, serve_tls, start_machine
from support.manual import all_blocks, follow, follow_page, read_page
from support.servers import require_program, skip_or_fail
from tools import ROOT
from tools.servers.influxdb import TOKEN
from tools.servers.processes import (
    MissingServer,
    built_program,
    installed_program,
    running,
    wait_for,
)
from tools.servers.targets import Vault

PAGE = read_page("deliver.md")
DELIVER_HOOK = "/etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_deliver.py"
CHECK = f"{DELIVER_HOOK} --check"
ALL = f"{DELIVER_HOOK} --all"
MODULES = sorted((ROOT / "deliver").rglob("*.py"))

# Functions and classes whose arguments are messages.
MESSAGE_CALLS = ("DeliverError", "ReportError", "TargetDownError", "exit", "warn")

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

FINGERPRINT = "openssl x509 -noout -fingerprint"
FINGERPRINT_ON_DISK = f"{FINGERPRINT} -in /etc/letsencrypt/live/example.com/cert.pem"
FINGERPRINT_SERVED = (
    "openssl s_client -connect 127.0.0.1:443 -servername example.com </dev/null 2>/dev/null "
    f"| {FINGERPRINT}"
)

# Vault's own command line is not among the programs that the tests build. This one knows what the
# page uses of it.
VAULT_COMMAND = """#!/usr/bin/env python3
import pathlib, sys
import requests

options = dict(word.strip("-").partition("=")[::2] for word in sys.argv if word.startswith("-"))
words = [word for word in sys.argv[1:] if not word.startswith("-")]

def ask(method, path, **body):
    headers = {{"X-Vault-Token": "{token}"}}
    answer = requests.request(method, "{url}/v1/" + path, headers=headers, json=body or None)
    answer.raise_for_status()
    return answer.json()["data"] if answer.text else {{}}

if words[:2] == ["policy", "write"]:
    ask("PUT", "sys/policies/acl/" + words[2], policy=pathlib.Path(words[3]).read_text())
elif words[0] == "write":
    data = ask("POST", words[1], **dict(word.split("=", 1) for word in words[2:]))
elif words[0] == "read":
    data = ask("GET", words[1])
elif words != ["auth", "enable", "approle"]:
    sys.exit("unknown: " + " ".join(words))
if "field" in options:
    print(data[options["field"]], end="")
"""


# ---- A reader follows it -----------------------------------------------------------------------
def require_installed(name: str) -> None:
    """Skip or fail the test if a program of Debian is missing."""
    try:
        installed_program(name, name)
    except MissingServer as error:
        skip_or_fail(error)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with certbot, the report hook and the deliver hook."""
    with start_machine(tmp_path, ["web1.example.com", "vault.example.com"]) as machine:
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
    """Start a HAProxy as a service; then write the lines of the page into its configuration."""
    program = installed_program("haproxy", "haproxy")
    command = f"{program} -W -f /etc/haproxy/haproxy.cfg"
    machine.add_unit("haproxy.service", f"[Service]\nExecStart={command}\nX-Listens=443\n")
    before = HAPROXY_CFG.format(global_line="", bind_line="bind :443")
    machine.write("/etc/haproxy/haproxy.cfg", before)
    machine.run("mkdir -p /run/haproxy\nsystemctl start haproxy")

    global_line = example("haproxy", "stats socket")
    bind_line = example("haproxy", "bind")
    edited = HAPROXY_CFG.format(global_line=global_line, bind_line=bind_line)
    machine.write("/etc/haproxy/haproxy.cfg", edited)
    unit = f"[Service]\nExecStart={command}\nX-Listens=443\nX-Creates=/run/haproxy/admin.sock\n"
    machine.add_unit("haproxy.service", unit)  # the page now creates this socket


def test_a_reader_delivers_to_haproxy(machine: Machine) -> None:
    require_installed("haproxy")
    add_haproxy(machine)
    follow_page(machine, "deliver.md", "HAProxy", "Check and deliver")
    on_disk = machine.run(FINGERPRINT_ON_DISK)
    assert machine.run(FINGERPRINT_SERVED) == on_disk

    renewed = machine.run("certbot renew --force-renewal")
    assert "example.com to haproxy: now served" in renewed
    assert machine.run(FINGERPRINT_ON_DISK) != on_disk
    assert machine.run(FINGERPRINT_SERVED) == machine.run(FINGERPRINT_ON_DISK)


def test_a_reader_starts_deliveries_after_each_certbot_run(machine: Machine) -> None:
    follow_page(machine, "deliver.md", "A command")
    log = "/var/log/delivered"
    machine.run(
        f'sed -i \'s|^command = .*|command = ["touch", "{log}"]|; /^names/d\' '
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
    assert machine.run("ls /etc/letsencrypt/renewal-hooks/deploy/*.py").count("\n") == 1


def test_a_reader_delivers_to_another_server(machine: Machine) -> None:
    require_installed("sshd")
    add_sshd(machine)
    follow_page(machine, "deliver.md", "Other servers")
    assert re.search(r"web/web1.example.com +example.com +would be copied", machine.run(CHECK))
    assert machine.run(ALL) == "example.com to web/web1.example.com: copied, reload ran\n"
    assert machine.read("/var/log/reloads") == "reload nginx\n"
    copied = machine.read("/etc/nginx/certificates/example.com.key")
    assert copied == machine.read("/etc/letsencrypt/live/example.com/privkey.pem")


def add_sshd(machine: Machine) -> None:
    """Start an OpenSSH server on the machine, and add commands that the page uses."""
    machine.run("mkdir -p /run/sshd && rm -rf /root/.ssh && mkdir -m 700 /root/.ssh")
    machine.run("rm -f /etc/ssh/ssh_host_* && ssh-keygen -q -A")
    lines = [
        "ListenAddress 127.0.0.2",
        "UsePAM no",
        "Subsystem sftp internal-sftp",
        f"SetEnv PATH={machine.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    machine.write("/etc/ssh/test_config", "\n".join(lines) + "\n")
    sshd = installed_program("sshd", "openssh-server")
    command = [*machine.enter(), sshd, "-D", "-e", "-f", "/etc/ssh/test_config"]
    machine.stack.enter_context(running(command, machine.folder / "sshd.log"))
    scan = "ssh-keyscan web1.example.com 2>/dev/null"
    wait_for(lambda: machine.run(scan, may_fail=True), "sshd")

    # The real one asks for a password.
    add_script(machine, "ssh-copy-id", '#!/bin/sh\ncat "$2" >>/root/.ssh/authorized_keys\n')
    add_script(machine, "systemctl", '#!/bin/sh\necho "$@" >>/var/log/reloads\n')


def add_script(machine: Machine, name: str, text: str) -> None:
    """Put a script on PATH."""
    path = machine.folder / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def test_a_reader_delivers_to_vault_and_restores_from_it(machine: Machine) -> None:
    require_program("vault-server")
    vault = add_vault(machine)
    *steps, last_step = [block for block in all_blocks(PAGE) if block.section == "Vault"]
    follow(machine, steps)
    assert re.search(r"vault +example.com +would be written", machine.run(CHECK))
    assert machine.run(ALL) == "example.com to vault: written\n"
    follow(machine, [last_step])

    path = "/etc/letsencrypt/live/example.com/fullchain.pem"
    certificate = machine.read(path)
    with machine.network():
        assert vault.secret("certbot/certificates/example.com")["fullchain"] == certificate
    machine.run("(cd /etc/letsencrypt && rm -r accounts archive live renewal)")
    follow_page(machine, "deliver.md", "Restore from Vault")
    assert machine.read(path) == certificate
    assert "example.com to vault: written" in machine.run("certbot renew --force-renewal")


def add_vault(machine: Machine) -> Vault:
    """Start a Vault, by https at vault.example.com, and add a command for its administrator."""
    vault = Vault("http://127.0.0.1:8200", TOKEN)
    command = [*machine.enter(), str(built_program("vault-server")), "-token", TOKEN]
    machine.stack.enter_context(running(command, machine.folder / "vault.log"))
    with machine.network():
        machine.stack.enter_context(serve_tls(8200, machine.folder / "server.pem"))
        wait_for(lambda: vault.api("GET", "secret/config").ok, "vault")
    add_script(machine, "vault", VAULT_COMMAND.format(url=vault.url, token=vault.token))
    return vault


# ---- What the page lists -----------------------------------------------------------------------
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


def test_the_targets_of_the_page_are_read_without_a_problem(tmp_path: Path) -> None:
    tables = [
        block.text for block in all_blocks(PAGE) if block.title.endswith("renewal_deliver.toml")
    ]
    (tmp_path / certbot_renewal_deliver.TOML_FILE).write_text("\n".join(tables))
    names = [target.name for target in certbot_renewal_deliver.read_targets(str(tmp_path))]
    assert names == ["haproxy", "web/web1.example.com", "vault", "mail"]


def test_the_page_has_the_commands_of_the_deliver_hook() -> None:
    rows = " ".join(row[0] for row in rows_of(PAGE, "Commands", "| command | action |"))
    options = options_of_help(certbot_renewal_deliver.command_line().format_help())
    assert set(re.findall(r"--[a-z-]+", rows)) == options
    assert "certbot_renewal_deliver.py restore" in rows


def test_the_files_of_the_project_that_the_page_names_exist() -> None:
    for path in re.findall(r"(?<![\w/])((?:systemd|compose|deliver)/[\w./-]+\w)", PAGE):
        assert (ROOT / path).exists(), path


# ---- Messages ----------------------------------------------------------------------------------
def test_the_messages_of_the_deliver_hook_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MESSAGE_CALLS", MESSAGE_CALLS)
    entries = message_entries(read_page("messages.md"))
    explained = [piece for entry in entries for piece in pieces_of(entry.message)]
    printed = error_messages(*MODULES)
    assert len(printed) > 40
    missing = [text for text in printed if not any(piece in text for piece in explained)]
    assert missing == []
