"""Servers that do on demand what no real server does: drip, hang up, answer nothing, not HTTP.

The tests and the benchmarks send reports to them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

# What a server does with one connection. When it returns, the connection is closed.
Serve = Callable[[socket.socket], None]

DRIP_SECONDS = 0.05  # between two bytes


# ---- Servers -----------------------------------------------------------------------------------
@contextlib.contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """Start a server on loopback that treats every connection with `serve`; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept_connections, args=(listener, serve), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def accept_connections(listener: socket.socket, serve: Serve) -> None:
    """Serve each connection in a thread of its own, until the listener is shut down."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve_connection, args=(connection, serve), daemon=True).start()


def serve_connection(connection: socket.socket, serve: Serve) -> None:
    """Serve one connection and close it. It is not an error if the client has closed it."""
    with connection, contextlib.suppress(OSError):
        serve(connection)


@contextlib.contextmanager
def blackhole() -> Iterator[str]:
    """Yield a URL where connecting hangs.

    When the queue of a listener is full, Linux drops further connections.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def closed() -> Iterator[str]:
    """Yield a URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


# ---- What a server does with a connection ------------------------------------------------------
def drip(beginning: bytes) -> Serve:
    """Return a server that sends a beginning, then a byte now and then, without end.

    No read timeout ends this: each byte comes in time.
    """

    def serve(connection: socket.socket) -> None:
        connection.sendall(beginning)
        while True:
            connection.sendall(b"x")
            time.sleep(DRIP_SECONDS)

    return serve


def answer(response: bytes) -> Serve:
    """Return a server that answers when a request begins, and closes when the client does."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(response)
        connection.shutdown(socket.SHUT_WR)
        # The body of a request may come after its headers. If the server closed before it has
        # read the body, the kernel would reset the connection, and the response could get lost.
        silent(connection)

    return serve


def silent(connection: socket.socket) -> None:
    """Read everything and answer nothing."""
    while connection.recv(65536):
        pass


STORED = answer(b"HTTP/1.1 204 No Content\r\n\r\n")  # as InfluxDB answers; it takes every report
DRIPPING_HEADERS = drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")
DRIPPING_BODY = drip(b"HTTP/1.1 500 Oops\r\nContent-Length: 99999\r\n\r\n")
ENDLESS_REDIRECT = drip(b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n")
UNAVAILABLE = answer(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
NOT_HTTP = answer(b"SSH-2.0-OpenSSH_9.2\r\n")
HANG_UP = answer(b"")

# All faulty servers, by name. Each value starts its server and yields its URL.
EVERY: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "unreachable": closed,
    "blackholed": blackhole,
    "dripping headers": lambda: serving(DRIPPING_HEADERS),
    "dripping body": lambda: serving(DRIPPING_BODY),
    "endless redirect": lambda: serving(ENDLESS_REDIRECT),
    "silent": lambda: serving(silent),
    "hanging up": lambda: serving(HANG_UP),
    "503": lambda: serving(UNAVAILABLE),
    "not HTTP": lambda: serving(NOT_HTTP),
}
