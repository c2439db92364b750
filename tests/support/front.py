"""HAProxy with compose/haproxy/haproxy.cfg on this machine, and the services behind it."""

from __future__ import annotations

import http.server
import os
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tools import ROOT
from tools.servers.processes import free_port, installed_program, running, wait_for

HAPROXY = ROOT / "compose" / "haproxy"

# RFC 1035, 4.1: parts of a DNS message.
HEADER_BYTES = 12
TYPE_A = b"\0\x01"
FLAGS_NO_ERROR = b"\x81\x80"
FLAGS_NO_SUCH_NAME = b"\x81\x83"
# An answer about the name in the question (a pointer to it): type A, class IN, 1 s, 127.0.0.1.
ANSWER_LOOPBACK = b"\xc0\x0c" + TYPE_A + b"\0\x01" + b"\0\0\0\x01" + b"\0\x04" + b"\x7f\0\0\x01"


class NameServer(socketserver.ThreadingUDPServer):
    """A name server; the names in `known` are on this machine, all others do not exist."""

    def __init__(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        super().__init__(("127.0.0.1", 0), NameServer.Handler)
        self.known: set[str] = set()

    class Handler(socketserver.BaseRequestHandler):
        """Answers one question."""

        server: NameServer

        def handle(self) -> None:
            """Answer with the IPv4 address of a known name; it has no other address."""
            query, connection = self.request
            question_end = query.index(b"\0", HEADER_BYTES) + 5
            question = query[HEADER_BYTES:question_end]
            first_label = question[1 : 1 + question[0]].decode()
            is_known = first_label in self.server.known
            answer = b""
            if is_known and question[-4:-2] == TYPE_A:
                answer = ANSWER_LOOPBACK

            flags = FLAGS_NO_ERROR if is_known else FLAGS_NO_SUCH_NAME
            answer_count = b"\0\x01" if answer else b"\0\0"
            header = query[:2] + flags + b"\0\x01" + answer_count + bytes(4)
            connection.sendto(header + question + answer, self.client_address)


class EchoHandler(http.server.BaseHTTPRequestHandler):
    """A web service that answers with the scheme and the path that it was asked for."""

    def do_GET(self) -> None:
        """Answer any path."""
        body = f"{self.headers.get('X-Forwarded-Proto')} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Run a server in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def replace_once(text: str, replacements: dict[str, str]) -> str:
    """Replace each of the texts, which must be there exactly once."""
    for old, new in replacements.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class Front:
    """HAProxy with haproxy.cfg, whose folders and ports are changed for this machine.

    One web service stands for both certbot and the service behind HAProxy.
    """

    def __init__(self, folder: Path, names: NameServer, service_port: int) -> None:
        """Write the configuration into the folder; HAProxy is not started."""
        self.folder = folder
        self.names = names
        self.certs = folder / "certs"
        self.cfg = folder / "haproxy.cfg"
        self.http_port = free_port()
        self.https_port = free_port()
        name_server = f"127.0.0.1:{names.server_address[1]}"
        replacements = {
            "    bind :80\n": f"    bind 127.0.0.1:{self.http_port}\n",
            "    bind :443 ": f"    bind 127.0.0.1:{self.https_port} ",
            "certbot:80\n": f"certbot:{service_port}\n",
            "web:80 check\n": f"web:{service_port} check inter 200ms\n",
            "    parse-resolv-conf\n": f"    nameserver names {name_server}\n",
        }
        if os.geteuid() != 0:
            replacements["    user haproxy\n"] = ""
            replacements["    group haproxy\n"] = ""
        text = self.adapted((HAPROXY / "haproxy.cfg").read_text())
        self.certs.mkdir()
        self.cfg.write_text(replace_once(text, replacements))

    def adapted(self, text: str) -> str:
        """Return a text with the folders of this machine."""
        text = text.replace("/run/haproxy", str(self.folder))
        text = text.replace("/etc/haproxy/certs", str(self.certs))
        return text.replace('"/certs', f'"{self.certs}')

    @contextmanager
    def started(self) -> Iterator[None]:
        """Run HAProxy as its image starts it."""
        command = [installed_program("haproxy", "haproxy"), "-W", "-db", "-f", str(self.cfg)]
        with running(command, self.folder / "log") as child:
            wait_for(lambda: self.get("/haproxy-alive").status_code == 200, "haproxy", child=child)
            yield

    def get(self, path: str) -> requests.Response:
        """Return the answer on port 80."""
        return requests.get(
            f"http://127.0.0.1:{self.http_port}{path}",
            headers={"Host": "www.example.com"},
            allow_redirects=False,
            timeout=5,
        )

    def get_https(self, name: str) -> str:
        """Return the answer on port 443 with a certificate for a name, or OpenSSL's reason."""
        context = ssl.create_default_context(cafile=str(self.folder / "example.com.pem"))
        try:
            plain = socket.create_connection(("127.0.0.1", self.https_port), 5)
            with plain, context.wrap_socket(plain, server_hostname=name) as connection:
                connection.sendall(f"GET /page HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
                with connection.makefile("rb") as answer:
                    return answer.read().decode().partition("\r\n\r\n")[2]
        except ssl.SSLError as error:
            return error.reason
