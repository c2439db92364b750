"""A proxy in front of a server on loopback, which injects a fault at one byte of a connection."""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit

DELAY_SECONDS = 0.003  # enough for the bytes before the delay to be read alone


class Side(enum.Enum):
    """A direction of a connection: from the client to the server, or back."""

    REQUEST = "request"
    RESPONSE = "response"


class Mode(enum.Enum):
    """What happens when so many bytes of a direction have passed."""

    NONE = "none"  # nothing
    DELAY = "delay"  # the rest comes a little later
    DRIP = "drip"  # each byte from there on is sent alone
    CUT = "cut"  # the connection is closed
    DUPLICATE = (
        "duplicate"  # what has passed goes to the server once more, in a connection of its own
    )
    DOUBLE = "double"  # the next byte is sent twice
    CORRUPT = "corrupt"  # the next byte is changed

    def acts_behind_last_byte(self) -> bool:
        """Return whether the mode makes sense when all bytes have passed."""
        return self in (Mode.CUT, Mode.DUPLICATE)


class Fault(NamedTuple):
    """A fault of one direction of a connection. If so many bytes never pass, nothing happens."""

    mode: Mode
    side: Side = Side.REQUEST
    position: int = 0  # how many bytes pass untouched
    flipped_bits: int = 1  # which bits CORRUPT changes
    connection: int | None = None  # only the connection with this number, from 0; None: all

    def is_harmless(self) -> bool:
        """Return whether the report must still arrive."""
        return self.mode in (Mode.NONE, Mode.DELAY, Mode.DRIP, Mode.DUPLICATE)

    def may_store_other_points(self) -> bool:
        """Return whether the server gets a request that the client has not sent.

        Plain HTTP has no checksum of its own: what is stored may be wrong. In real life TCP has a
        checksum, and TLS a better one.
        """
        return self.side is Side.REQUEST and self.mode in (Mode.CORRUPT, Mode.DOUBLE)


NO_FAULT = Fault(Mode.NONE)


def pieces(fault: Fault, before: bytes, after: bytes) -> list[bytes]:
    """Return what is sent on, one piece at a time.

    `before` are the bytes before the fault's position, `after` those that follow.
    """
    if fault.mode is Mode.DRIP:
        return [before, *(bytes([byte]) for byte in after)]
    if fault.mode is Mode.CUT:
        return [before]
    if fault.mode is Mode.DOUBLE:
        return [before + after[:1] + after]
    if fault.mode is Mode.CORRUPT:
        return [before + bytes([after[0] ^ fault.flipped_bits]) + after[1:]]
    return [before, after]


class Direction:
    """Passes on the bytes of one direction of a connection, with the fault if it is on this side.

    `received` are the bytes that came from the source. `is_finished` says that no more will come.
    """

    def __init__(
        self, side: Side, source: socket.socket, sink: socket.socket, fault: Fault
    ) -> None:
        """`fault` is the fault of the connection, perhaps of its other direction."""
        self.source = source
        self.sink = sink
        self.fault = fault if fault.side is side else NO_FAULT
        self.fault_has_happened = False
        self.received = b""
        self.duplicates = contextlib.ExitStack()  # their connections
        self.is_finished = False

    def run(self) -> None:
        """Pass on everything until the end of this direction, then end it for the sink, too."""
        with contextlib.suppress(OSError), self.duplicates:
            while not self.is_cut():
                data = self.source.recv(65536)
                if not data:
                    break
                self.pass_on(data)
        self.is_finished = True
        self.shut_down()

    def is_cut(self) -> bool:
        """Return whether the fault has cut the connection."""
        return self.fault.mode is Mode.CUT and self.fault_has_happened

    def pass_on(self, data: bytes) -> None:
        """Send on some data, with the fault if it is in them."""
        position = self.fault.position - len(self.received)
        self.received += data
        if not self.fault_is_in(position, len(data)):
            self.sink.sendall(data)
            return

        self.fault_has_happened = True
        self.send_pieces(data[:position], data[position:])
        if self.fault.mode is Mode.DUPLICATE:
            self.duplicates.enter_context(self.send_duplicate())

    def fault_is_in(self, position: int, length: int) -> bool:
        """Return whether the fault happens in data of this length, at a position from 0."""
        if self.fault.mode is Mode.NONE or self.fault_has_happened:
            return False
        end = length + 1 if self.fault.mode.acts_behind_last_byte() else length
        return 0 <= position < end

    def send_pieces(self, before: bytes, after: bytes) -> None:
        """Send on the data in which the fault is."""
        for piece in pieces(self.fault, before, after):
            self.sink.sendall(piece)
            if self.fault.mode is Mode.DELAY:
                time.sleep(DELAY_SECONDS)

    def send_duplicate(self) -> socket.socket:
        """Send to the server once more what came before the fault; nobody reads the response.

        Return the connection, which must stay open: a server may drop a request whose client has
        closed the connection.
        """
        connection = socket.create_connection(self.sink.getpeername())
        connection.sendall(self.received[: self.fault.position])
        connection.shutdown(socket.SHUT_WR)
        return connection

    def shut_down(self) -> None:
        """End this direction for the sink; after a cut, both directions for both ends."""
        if self.is_cut():
            for end in (self.source, self.sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        else:
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class Proxy:
    """Passes connections on to a server. `tools.servers.faulty.serving(proxy.serve)` starts it.

    `connections` counts the connections since the fault was set. `request` and `response` are the
    two directions of the last one.
    """

    request: Direction
    response: Direction

    def __init__(self, server_url: str) -> None:
        """`server_url` is the URL of a server on loopback."""
        self.server_address = ("127.0.0.1", urlsplit(server_url).port or 80)
        self.fault = NO_FAULT
        self.connections = 0

    def set_fault(self, fault: Fault) -> None:
        """Set the fault of the connections from now on, which are counted from 0."""
        self.fault = fault
        self.connections = 0

    def serve(self, client: socket.socket) -> None:
        """Pass on one connection."""
        is_concerned = self.fault.connection in (None, self.connections)
        fault = self.fault if is_concerned else NO_FAULT
        self.connections += 1
        with socket.create_connection(self.server_address) as server:
            for end in (client, server):
                # Otherwise the kernel would put the pieces together again.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = Direction(Side.REQUEST, client, server, fault)
            response = Direction(Side.RESPONSE, server, client, fault)
            self.request = request
            self.response = response
            responding = threading.Thread(target=response.run, daemon=True)
            responding.start()
            request.run()
            responding.join()
