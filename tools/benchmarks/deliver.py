#!/usr/bin/env python3
"""What certbot_renewal_deliver.py costs when there is nothing to do, as ratios in one run to a bare start of Python with the same imports;
and how long 20 hosts take of which 5 hang. On the real HAProxy, Vault and OpenSSH server. Start it with: make bench
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
from tools.servers.lineages import DAY, KEY, make_lineage
from tools.servers.processes import MissingServer
from tools.servers.targets import (
    install_deliver_hook,
    run_deliver_hook,
    start_haproxy,
    start_sshd,
    start_vault,
)

RUNS = 21
TIMEOUT = 20  # seconds, of the hosts: all of them share two cores here


def against_a_bare_start(folder: Path, targets: dict[str, str]) -> None:
    """Prints the time of the hook, where all targets have the certificate, and of a script with nothing but its imports."""
    print(f"{'nothing to do for':32} {'hook ms':>8} {'bare ms':>8} {'ratio':>6}")
    for name, toml in targets.items():
        certbot = folder / re.sub(r"\W", "", name)
        make_lineage(
            certbot, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY, key=KEY
        )
        hook, bare = install_deliver_hook(certbot, toml), certbot / "bare.py"
        imports = re.findall(r"(?m)^(?:import|from) .*$", hook.read_text())
        bare.write_text(
            "\n".join([*imports, "import tomllib", "import hvac" if "[[vault]]" in toml else ""])
        )
        environ = {
            "RENEWED_LINEAGE": str(certbot / "live" / "example.com"),
            "RENEWED_DOMAINS": "example.com",
            "PATH": os.environ["PATH"],
        }
        first = run_deliver_hook(hook, **environ)
        if first.returncode:
            raise RuntimeError(first.stderr)
        pairs = [(measure(hook, environ), measure(bare, environ)) for _ in range(RUNS)]
        if any(run[2] for pair in pairs for run in pair):
            raise RuntimeError(f"{name}: a run failed")
        times = [statistics.median(pair[who][0] for pair in pairs) * 1000 for who in (0, 1)]
        ratio = statistics.median(pair[0][0] / pair[1][0] for pair in pairs)
        print(f"{name:32} {times[0]:8.0f} {times[1]:8.0f} {ratio:6.2f}", flush=True)
    print("wanted: at most 1.5")


def hosts_that_hang(folder: Path) -> None:
    """Prints how long 15 hosts take, alone and with 5 more that accept the connection and say nothing. All of them are this machine."""
    there, certbot = folder / "there", folder / "hosts"
    there.mkdir()
    config = certbot / "ssh_config"
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(start_sshd(folder / f"sshd{number}", there)) for number in range(15)
        ]
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        for hanging in (0, 5):
            make_lineage(
                certbot,
                "example.com",
                ["example.com"],
                int(time.time()) - DAY + hanging,
                90 * DAY,
                key=KEY,
            )
            known = {
                f"host{number}": (server.port, server.config.read_text())
                for number, server in enumerate(servers)
            }
            known.update({f"silent{number}": (silent, "") for number in range(hanging)})
            config.write_text(
                "".join(
                    f"Host {name}\nHostName 127.0.0.1\nPort {port}\n{more}"
                    for name, (port, more) in known.items()
                )
            )
            hook = install_deliver_hook(
                certbot,
                f"""[[ssh]]
hosts = {list(known)}
fullchain = "{there}/{{lineage}}.crt"
key = "{there}/{{lineage}}.key"
config = "{config}"
timeout = {TIMEOUT}
""",
            )
            begin = time.monotonic()
            done = run_deliver_hook(hook, "--all")
            seconds = time.monotonic() - begin
            print(
                f"{len(known)} hosts, {hanging} of them hang: {done.stdout.count('copied')} have it after {seconds:.1f} s",
                flush=True,
            )
    print(f"wanted: at most one timeout, {TIMEOUT} s, and 1 s")


def main() -> int:
    """Prints all figures. Exit status 1 where a server is missing or a delivery failed."""
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            haproxy = stack.enter_context(start_haproxy(folder / "haproxy"))
            vault = stack.enter_context(start_vault(folder / "vault"))
            (folder / "token").write_text(vault.token)
            command = '[[command]]\ncommand = ["true"]\n'
            targets = {
                "no target": f"{command}lineages = ['other']\n",
                "a command": command,
                "HAProxy": haproxy.target(),
                "Vault": f'[[vault]]\nurl = "{vault.url}"\ntoken_file = "{folder}/token"\n',
            }
            against_a_bare_start(folder, targets)
            hosts_that_hang(folder)
    except (MissingServer, RuntimeError) as error:
        print(f"bench_deploy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
