"""Servers that do what no real one does on demand: drip, hang up, say nothing, refuse to connect. For the tests and the benchmarks."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """A server on loopback that treats every connection as told; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):  # the client is gone
                serve(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def blackhole() -> Iterator[str]:
    """An address where connecting hangs: Linux drops further connections when the queue of a listener is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            yield f"http://127.0.0.1:{full.getsockname()[1]}"


@contextlib.contextmanager
def closed() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


def drip(begin: bytes) -> Serve:
    """Sends a beginning, then a byte now and then, for ever: no read timeout ends this."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    return serve


def answer(text: bytes) -> Serve:
    """Reads the request, answers and closes."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(text)

    return serve


def silent(connection: socket.socket) -> None:
    """Takes everything and says nothing."""
    while connection.recv(65536):
        pass


DRIPPING_HEADERS = drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")
DRIPPING_BODY = drip(b"HTTP/1.1 500 Oops\r\nContent-Length: 99999\r\n\r\n")
ENDLESS_REDIRECT = drip(b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n")
UNAVAILABLE = answer(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
NOT_HTTP = answer(b"SSH-2.0-OpenSSH_9.2\r\n")
HANG_UP = answer(b"")
EVERY: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
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
