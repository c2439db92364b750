"""nginx with certificates of a configuration folder, which it reads at its start and reload."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.servers import skip_or_fail
from tools.servers.processes import MissingServer, free_port, wait_for
from tools.servers.targets import served_certificate, start_nginx


class Nginx:
    """A running nginx; `ports` are the ports of 127.0.0.1 at which it serves, by lineage."""

    def __init__(self, pid: int, ports: dict[str, int], folder: Path) -> None:
        """`folder` is certbot's configuration folder."""
        self.pid = pid
        self.ports = ports
        self.folder = folder

    def address(self, lineage: str) -> str:
        """Return where a lineage is served, as VERIFY wants it."""
        return f"127.0.0.1:{self.ports[lineage]}"

    def reload(self) -> None:
        """Let it read the certificates again, and wait until it serves them."""
        os.kill(self.pid, signal.SIGHUP)
        wait_for(self.serves_what_is_on_disk, "nginx")

    def serves_what_is_on_disk(self) -> bool:
        """Return whether each lineage's certificate on disk is served."""
        for lineage, port in self.ports.items():
            pem = (self.folder / "live" / lineage / "cert.pem").read_text()
            served = served_certificate(port, "x.example.com")
            if served != ssl.PEM_cert_to_DER_cert(pem):
                return False
        return True


@contextmanager
def serving_lineages(folder: Path, certbot_folder: Path, *lineages: str) -> Iterator[Nginx]:
    """Start nginx with its files in a folder, each lineage on a port of its own."""
    ports = {lineage: free_port() for lineage in lineages}
    servers = [
        f"server {{ listen 127.0.0.1:{port} ssl; "
        f"ssl_certificate {certbot_folder}/live/{lineage}/fullchain.pem; "
        f"ssl_certificate_key {certbot_folder}/live/{lineage}/privkey.pem; }}\n"
        for lineage, port in ports.items()
    ]
    try:
        with start_nginx(folder, "".join(servers)) as pid:
            yield Nginx(pid, ports, certbot_folder)
    except MissingServer as error:
        skip_or_fail(error)
