"""A reverse proxy in front of a real InfluxDB, with a path prefix, IPv6 or TLS."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import requests


class Proxy(http.server.ThreadingHTTPServer):
    """A reverse proxy. `url` is its address, `paths` are those of the requests that it got."""

    daemon_threads = True

    def __init__(self, host: str, target: str, prefix: str) -> None:
        """`target` is the address of InfluxDB; `prefix` is removed from the path of a request."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Forward)
        self.target = target
        self.prefix = prefix
        self.url = ""
        self.paths: list[str] = []

    def use_tls(self, certificate: Path) -> None:
        """Speak TLS, with the certificate and the key in a file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)


class Forward(http.server.BaseHTTPRequestHandler):
    """Passes a request on to InfluxDB, and its answer back."""

    server: Proxy

    def do_POST(self) -> None:
        """Pass a write on."""
        path = self.path.removeprefix(self.server.prefix)
        self.server.paths.append(path.partition("?")[0])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {}
        for name in ("Authorization", "Content-Type"):
            if name in self.headers:
                headers[name] = self.headers[name]
        answer = requests.post(
            self.server.target + path,
            data=body,
            headers=headers,
            timeout=30,
            auth=lambda request: request,  # or requests would read ~/.netrc
        )
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def start_proxy(
    target: str, prefix: str = "", host: str = "127.0.0.1", certificate: Path | None = None
) -> Iterator[Proxy]:
    """Start a reverse proxy; with TLS if there is a file with a certificate and its key."""
    with Proxy(host, target, prefix) as proxy:
        scheme = "http"
        if certificate is not None:
            proxy.use_tls(certificate)
            scheme = "https"
        address = f"[{host}]" if ":" in host else host
        proxy.url = f"{scheme}://{address}:{proxy.server_port}{prefix}"
        threading.Thread(target=proxy.serve_forever, args=[0.05], daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
