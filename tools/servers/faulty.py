"""Servers that do what no real one does on demand: drip, hang up, say nothing, refuse to connect; and a proxy in front of a real one that
mistreats the bytes. For the tests and the benchmarks."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

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
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(
            65536
        ):  # a body that comes after its headers: closing before that would reset the connection
            pass

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


# ---- A proxy ---------------------------------------------------------------------------------------------------------
PAUSE = 0.003  # seconds that a delay lasts: enough for the bytes before it to be read alone


class Fault(NamedTuple):
    """What a proxy does to the bytes of one direction when it comes to a position of them; a dead letter where it never comes there."""

    mode: str  # one of MODES
    side: str = "request"  # or "response"
    at: int = 0  # how many bytes pass untouched
    flip: int = 1  # the bits that change in a byte that is corrupted
    only: int | None = None  # the number of the connection that it befalls, from 0; None: all


MODES = {  # what each sends on of the bytes in hand, in pieces: those before the position, and those from it on
    "delay": lambda before, after, flip: [before, after],
    "drip": lambda before, after, flip: [before, *(after[at : at + 1] for at in range(len(after)))],
    "cut": lambda before, after, flip: [before],
    "duplicate": lambda before, after, flip: [
        before,
        after,
    ],  # what came so far goes to the server once more
    "double": lambda before, after, flip: [before + after[:1] + after],
    "corrupt": lambda before, after, flip: [before + bytes([after[0] ^ flip]) + after[1:]],
}


class Proxy:
    """A proxy in front of a server on loopback. `passed` and `said`: how much came last, and how the answer began."""

    def __init__(self, target: str) -> None:
        self.target = ("127.0.0.1", urlsplit(target).port or 80)
        self.fault, self.connections, self.passed, self.said = (
            Fault("none"),
            0,
            dict[str, int](),
            b"",
        )

    def befall(self, fault: Fault) -> None:
        """The fault of all connections from now on, which are counted anew."""
        self.fault, self.connections = fault, 0

    def serve(self, client: socket.socket) -> None:
        """One connection."""
        fault = self.fault if self.fault.only in (None, self.connections) else Fault("none")
        self.connections += 1
        with socket.create_connection(self.target) as server:
            for end in (client, server):
                end.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
                )  # or pieces would be put together again
            back = threading.Thread(
                target=self.pump, args=(server, client, "response", fault), daemon=True
            )
            back.start()
            self.pump(client, server, "request", fault)
            back.join()

    def pump(self, source: socket.socket, sink: socket.socket, side: str, fault: Fault) -> None:
        """One direction of a connection, until its end."""
        passed, seen = 0, b""
        with contextlib.suppress(OSError), contextlib.ExitStack() as at_end:
            while data := source.recv(65536):
                if side == "response" and not seen:
                    self.said = data[:12]
                place = fault.at - passed
                passed, seen = passed + len(data), seen + data
                if (
                    fault.mode not in MODES
                    or fault.side != side
                    or not 0 <= place < len(data) + (fault.mode in ("cut", "duplicate"))
                ):
                    sink.sendall(data)
                    continue
                for piece in MODES[fault.mode](data[:place], data[place:], fault.flip):
                    sink.sendall(piece)
                    time.sleep(PAUSE if fault.mode == "delay" else 0)
                if fault.mode == "cut":
                    break
                if fault.mode == "duplicate":
                    again = at_end.enter_context(
                        socket.create_connection(self.target)
                    )  # its answer is nobody's
                    again.sendall(seen[: fault.at])
                    again.shutdown(socket.SHUT_WR)
        self.passed[side] = passed
        for end in (source, sink) if fault.mode == "cut" and fault.side == side else (sink,):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR if fault.mode == "cut" else socket.SHUT_WR)
