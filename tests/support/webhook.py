"""A webhook that receives notifications."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

from tools.servers.processes import free_port


class Webhook:
    """A running webhook: `received` has the requests, decoded, and it answers with `status`."""

    def __init__(self, port: int) -> None:
        """Receive nothing yet; start_webhook() listens on the port."""
        self.port = port
        self.url = f"http://127.0.0.1:{port}/certificates"
        self.received: list[dict[str, Any]] = []
        self.read_count = 0
        self.status = 200

    def next_messages(self) -> list[str]:
        """Return the notifications since the last call, as `level: message`, sorted."""
        # The list only grows: a notification that arrives meanwhile must not be lost.
        bodies = self.received[self.read_count :]
        self.read_count += len(bodies)
        return sorted(f"{body.get('_level')}: {body.get('_message')}" for body in bodies)


@contextlib.contextmanager
def start_webhook(port: int | None = None) -> Iterator[Webhook]:
    """Start a webhook on loopback; None: on any free port."""
    webhook = Webhook(port or free_port())

    class Handler(http.server.BaseHTTPRequestHandler):
        """Takes a notification, and answers."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            webhook.received.append(json.loads(body))
            self.send_response(webhook.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Write nothing to the output of the tests."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", webhook.port), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield webhook
        server.shutdown()
