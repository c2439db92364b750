#!/usr/bin/env python3
"""Measure what the deliver hook costs, on the real HAProxy, Vault and OpenSSH server.

When there is nothing to do: as the ratio to a bare start of Python with the same imports, each run
of the hook beside one of the bare script. And how long 20 hosts take, of which 5 hang. Start it
with: make bench
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tools.benchmarks.hook import measure
from tools.servers.lineages import DAY, KEY, REPORT_HOOK, make_lineage
from tools.servers.processes import MissingServer
from tools.servers.targets import (
    DELIVER_HOOK,
    TARGETS_PACKAGE,
    Sshd,
    install_deliver_hook,
    run_deliver_hook,
    start_haproxy,
    start_sshd,
    start_vault,
)

RUNS = 21
HOSTS = 15
HANGING_HOSTS = 5
TIMEOUT_SECONDS = 20  # of the hosts: all of them share two cores here

# Matches an import of a library at the top of a module, not of the project's own modules.
LIBRARY_IMPORT = re.compile(r"(?m)^(?:import|from) (?!certbot_renewal|__future__).*$")


# ---- Nothing to do -----------------------------------------------------------------------------
def library_imports(kind: str) -> str:
    """Return a script with all imports of libraries that a run with one kind of target needs."""
    modules = [REPORT_HOOK, DELIVER_HOOK, *(TARGETS_PACKAGE.glob("__init__.py"))]
    modules += [TARGETS_PACKAGE / "base.py", TARGETS_PACKAGE / f"{kind}.py"]
    lines = ["from __future__ import annotations", "import tomllib"]
    for module in modules:
        lines += LIBRARY_IMPORT.findall(module.read_text())
    if kind == "vault":
        lines.append("import hvac")
    return "\n".join(lines) + "\n"


def compare_with_bare_start(folder: Path, name: str, kind: str, toml: str) -> None:
    """Print the time of the hook, whose target has the certificate, and of the bare script."""
    began = int(time.time()) - DAY
    live = make_lineage(folder, "example.com", ["example.com"], began, 90 * DAY, key=KEY)
    hook = install_deliver_hook(folder, toml)
    bare = folder / "bare.py"
    bare.write_text(library_imports(kind))
    environ = {
        "RENEWED_LINEAGE": str(live),
        "RENEWED_DOMAINS": "example.com",
        "PATH": os.environ["PATH"],
    }
    first = run_deliver_hook(hook, **environ)
    if first.returncode:
        raise RuntimeError(first.stderr)

    hook_seconds: list[float] = []
    bare_seconds: list[float] = []
    for _ in range(RUNS):
        for script, results in ((hook, hook_seconds), (bare, bare_seconds)):
            seconds, _, status = measure(script, environ)
            if status:
                raise RuntimeError(f"{name}: {script} failed")
            results.append(seconds)
    ratio = statistics.median(map(float.__truediv__, hook_seconds, bare_seconds))
    hook_ms = statistics.median(hook_seconds) * 1000
    bare_ms = statistics.median(bare_seconds) * 1000
    print(f"{name:32} {hook_ms:8.0f} {bare_ms:8.0f} {ratio:6.2f}", flush=True)


def compare_all_with_bare_start(folder: Path) -> None:
    """Print the comparison for each kind of target that is asked what it has."""
    command = '[[command]]\ncommand = ["true"]\n'
    print(f"{'nothing to do for':32} {'hook ms':>8} {'bare ms':>8} {'ratio':>6}")
    idle = f"{command}lineages = ['other']\n"
    compare_with_bare_start(folder / "idle", "no target", "command", idle)
    compare_with_bare_start(folder / "command", "a command", "command", command)
    with start_haproxy(folder / "haproxy") as haproxy:
        compare_with_bare_start(folder / "front", "HAProxy", "haproxy", haproxy.table())
    with start_vault(folder / "vault") as vault:
        (folder / "token").write_text(vault.token)
        table = f'[[vault]]\nurl = "{vault.url}"\ntoken_file = "{folder}/token"\n'
        compare_with_bare_start(folder / "store", "Vault", "vault", table)
    print("wanted: at most 1.5")


# ---- Hosts that hang ---------------------------------------------------------------------------
def ssh_configuration(servers: dict[str, Sshd], hanging: dict[str, int]) -> str:
    """Return OpenSSH's client configuration for servers, and for ports that never answer."""
    lines = []
    for name, server in servers.items():
        own_lines = server.config.read_text()
        lines.append(f"Host {name}\nHostName 127.0.0.1\nPort {server.port}\n{own_lines}")
    for name, port in hanging.items():
        lines.append(f"Host {name}\nHostName 127.0.0.1\nPort {port}\n")
    return "".join(lines)


def measure_hosts(
    folder: Path, there: Path, servers: dict[str, Sshd], hanging: dict[str, int]
) -> None:
    """Print how long a renewed certificate takes to all hosts."""
    began = int(time.time()) - DAY + len(hanging)
    make_lineage(folder, "example.com", ["example.com"], began, 90 * DAY, key=KEY)
    config = folder / "ssh_config"
    config.write_text(ssh_configuration(servers, hanging))
    hosts = [*servers, *hanging]
    toml = f"""[[ssh]]
hosts = {hosts}
fullchain = "{there}/{{lineage}}.crt"
key = "{there}/{{lineage}}.key"
config = "{config}"
timeout = {TIMEOUT_SECONDS}
"""
    hook = install_deliver_hook(folder, toml)
    start = time.monotonic()
    completed = run_deliver_hook(hook, "--all")
    seconds = time.monotonic() - start
    copies = completed.stdout.count("copied")
    print(
        f"{len(hosts)} hosts, {len(hanging)} of them hang: {copies} have it after {seconds:.1f} s",
        flush=True,
    )


def measure_hosts_that_hang(folder: Path) -> None:
    """Print how long 15 hosts take, alone and with 5 more that hang.

    All of them are this machine. Those that hang accept the connection and say nothing.
    """
    there = folder / "there"
    there.mkdir()
    with contextlib.ExitStack() as stack:
        servers = {}
        for number in range(HOSTS):
            server = start_sshd(folder / f"sshd{number}", there)
            servers[f"host{number}"] = stack.enter_context(server)
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        hanging = {f"silent{number}": silent for number in range(HANGING_HOSTS)}
        measure_hosts(folder / "hosts", there, servers, {})
        measure_hosts(folder / "hosts", there, servers, hanging)
    print(f"wanted: at most one timeout, {TIMEOUT_SECONDS} s, and 1 s")


def main() -> int:
    """Print all figures; return 1 if a server is missing or a delivery failed."""
    try:
        with tempfile.TemporaryDirectory() as name:
            compare_all_with_bare_start(Path(name))
            measure_hosts_that_hang(Path(name))
    except (MissingServer, RuntimeError) as error:
        print(f"tools.benchmarks.deliver: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
