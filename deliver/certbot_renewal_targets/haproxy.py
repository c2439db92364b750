"""HAProxy: a running process gets a certificate by its Runtime API, and its next start by a file.

The Runtime API answers on the stats socket. With level admin, a user of this socket controls
HAProxy, so the socket is for root alone. The answers of HAProxy are only compared with the expected
texts.
Commands: https://docs.haproxy.org/2.6/management.html#9.3
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import certbot_renewal_report as hook
from certbot_renewal_targets import base

BUFFER_BYTES = 15_000  # a little less than tune.bufsize, 16 KiB: HAProxy takes no longer command
TRANSACTION_SECONDS = 2  # a transaction of somebody else that is open for longer is aborted

# Matches the line of a transaction that has not ended, in the answer to `show ssl cert`:
# */etc/haproxy/certs/example.com.pem
TRANSACTION = re.compile(r"^\*(?P<name>.+)$", re.MULTILINE)

EMPTY_LINES = re.compile(r"\n\s*\n")


class RuntimeApi:
    """HAProxy's Runtime API: each command has a connection of its own, closed by HAProxy."""

    def __init__(self, address: str, deadline: base.Deadline) -> None:
        """`address` is the path of a socket, or host:port."""
        self.address = address
        self.deadline = deadline

    def ask(self, command: str) -> str:
        """Return the answer to a command; raise a TargetDownError if HAProxy cannot be asked."""
        try:
            answer = self.exchange(command.encode() + b"\n")
        except (OSError, OverflowError) as error:  # OverflowError: there is no such port
            is_late = isinstance(error, socket.timeout)
            # HAProxy hangs up, or waits forever: that depends on where its buffer is full.
            if (is_late or isinstance(error, ConnectionError)) and len(command) > BUFFER_BYTES:
                raise self.too_long(command) from None
            reason = getattr(error, "strerror", None) or str(error)
            if is_late:
                reason = "no answer in time"
            raise base.TargetDownError(
                f"{self.address}: {reason}: "
                "check that HAProxy is running and that socket is its stats socket"
            ) from None

        # HAProxy may also hang up without an error: that depends on what the system has buffered.
        if not answer and len(command) > BUFFER_BYTES:
            raise self.too_long(command)
        if b"ermission denied" in answer[:100]:
            raise base.TargetDownError(
                f"{self.address}: HAProxy answered permission denied: "
                'add "level admin" to the stats socket line in haproxy.cfg'
            )
        return answer.decode("utf-8", "replace").strip()

    def too_long(self, command: str) -> base.DeliverError:
        """Return the error of a command that HAProxy's buffer cannot hold."""
        return base.DeliverError(
            f"{self.address}: HAProxy cannot take a command of {len(command)} bytes: "
            "raise tune.bufsize in haproxy.cfg"
        )

    def order(self, command: str, *successes: str) -> str:
        """Return the answer to a command; raise a DeliverError if it is not a success.

        The answer holds one of the texts in `successes` if HAProxy did what the command says.
        """
        answer = self.ask(command)
        if any(success in answer for success in successes):
            return answer
        reason = answer
        # If a commit fails, the reason is the last line:
        # Committing /etc/haproxy/certs/example.com.pem.
        # unable to load.
        if "Committing" in answer:
            reason = answer.rpartition("\n")[2]
        raise base.DeliverError(
            f"HAProxy refused: {hook.shortened(reason) or 'no reason given'}: check its log"
        )

    def exchange(self, request: bytes) -> bytes:
        """Send a request; return all that comes until HAProxy closes the connection."""
        answer = b""
        with self.connect() as connection:
            connection.sendall(request)
            while True:
                connection.settimeout(self.deadline.seconds_left())
                part = connection.recv(65536)
                if not part:
                    return answer
                answer += part

    def connect(self) -> socket.socket:
        """Return a connection to the stats socket; its timeout is the time until the deadline."""
        seconds = self.deadline.seconds_left()
        host, _, port = self.address.rpartition(":")
        if "/" not in self.address and port.isdecimal():
            return socket.create_connection((host.strip("[]"), int(port)), seconds)

        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(seconds)
            connection.connect(self.address)
        except OSError:
            connection.close()
            raise
        return connection


class Wanted(NamedTuple):
    """What HAProxy should have of a lineage.

    `name` is the file as HAProxy calls it, `file` the same file as it is called here. `crt_list`
    is what a new certificate is added to: a folder, or a crt-list; "" if nothing is added. `pem` is
    the certificate, its chain and its key. `sha1` is how HAProxy shows the certificate.
    """

    name: str
    file: str
    crt_list: str
    pem: str
    sha1: str

    def has_crt_list_file(self) -> bool:
        """Return whether new certificates are added to a crt-list, which is a file."""
        folder = os.path.dirname(self.name)
        if self.crt_list.rstrip("/") in ("", folder):
            return False
        return not os.path.isdir(self.crt_list)


class Shown(NamedTuple):
    """What HAProxy shows of a certificate: its answer to `show ssl cert NAME`."""

    answer: str

    def has_certificate(self, wanted: Wanted) -> bool:
        """Return whether it is the wanted certificate."""
        return wanted.sha1 in self.answer

    def is_known(self) -> bool:
        """Return whether HAProxy knows a certificate of this name at all."""
        return "Filename:" in self.answer

    def is_unused(self) -> bool:
        """Return whether no bind uses the certificate."""
        return "Status: Unused" in self.answer


class Target(base.Target):
    """A running HAProxy.

    It gets a certificate in two steps. First the running process, by its Runtime API:

    1. `show ssl cert NAME`: does the process have the certificate, and know the name?
    2. `new ssl cert NAME`: an empty entry, if the name is new.
    3. `set ssl cert NAME`: a transaction with certificate, chain and key.
    4. `commit ssl cert NAME`: from now on new connections get the certificate.
    5. `add ssl crt-list CRT_LIST NAME`: a bind uses the entry, if it is new.

    Then the files that the next start of HAProxy reads: the certificate's, and a crt-list if it
    lacks the name. The files are also written if HAProxy does not run.
    """

    OPTIONS: ClassVar[Mapping[str, base.Option]] = {
        "socket": base.Option(
            None, "HAProxy's stats socket with level admin: a path, or host:port"
        ),
        "certificate": base.Option(
            None,
            "the certificate file, as haproxy.cfg names it: /etc/haproxy/certs/{lineage}.pem",
            is_own_file=True,
        ),
        "file": base.Option(
            "", "the path of the same file on this host, if it differs", is_own_file=True
        ),
        "crt_list": base.Option(
            "",
            "where to add a new certificate: the folder in the option certificate, or a crt-list "
            "with the same path on this host",
        ),
    }

    def look(self, attempt: base.Attempt) -> str:
        """Return what the process lacks, else which file would be written for the next start."""
        wanted = self.wanted(attempt.lineage)
        api = RuntimeApi(self.options["socket"], attempt.deadline)
        return look_at_process(api, wanted) or look_at_files(wanted)

    def deliver(self, attempt: base.Attempt) -> str:
        """Put the certificate into the running process, then into the files."""
        wanted = self.wanted(attempt.lineage)
        api = RuntimeApi(self.options["socket"], attempt.deadline)
        steps = []
        down_error = ""
        try:
            steps += update_process(api, wanted)
        except base.TargetDownError as error:
            down_error = str(error)  # the next start must still serve the certificate

        situation = "HAProxy serves the new certificate, but"
        if down_error:
            situation = f"{down_error}. Also,"
        steps += write_files(wanted, situation)
        if down_error:
            raise base.TargetDownError(f"{down_error} (the next start will serve {wanted.file})")
        return ", ".join(steps)

    def wanted(self, lineage: base.Lineage) -> Wanted:
        """Return what HAProxy should have of a lineage."""
        name = self.path("certificate", lineage)
        pem = f"{lineage.pem['fullchain'].strip()}\n{lineage.pem['privkey'].strip()}\n"
        return Wanted(
            name=name,
            file=self.path("file", lineage) or name,
            crt_list=self.path("crt_list", lineage),
            pem=EMPTY_LINES.sub("\n", pem),  # an empty line would end the command
            sha1=hashlib.sha1(lineage.der).hexdigest().upper(),
        )


# ---- The running process -----------------------------------------------------------------------
def show_certificate(api: RuntimeApi, wanted: Wanted) -> Shown:
    """Return what the process has under the name of the certificate."""
    return Shown(api.ask(f"show ssl cert {wanted.name}"))


def require_place(shown: Shown, wanted: Wanted) -> None:
    """Raise a DeliverError if the name is new, and there is nothing to add it to."""
    if not shown.is_known() and not wanted.crt_list:
        raise base.DeliverError(
            f"HAProxy has not loaded {wanted.name}: correct certificate, "
            "or set crt_list to add a new certificate"
        )


def require_crt_list(wanted: Wanted) -> None:
    """Raise a DeliverError if there is nothing to add an unused certificate to."""
    if not wanted.crt_list:
        raise base.DeliverError(
            f"no bind line of HAProxy uses {wanted.name}: set crt_list to add it"
        )


def look_at_process(api: RuntimeApi, wanted: Wanted) -> str:
    """Return what would be done to the running process, "" if it serves the certificate."""
    shown = show_certificate(api, wanted)
    # There is no such transaction. But without level admin, HAProxy does not say so.
    api.ask(f"abort ssl cert {wanted.name}.check")
    if not shown.has_certificate(wanted):
        require_place(shown, wanted)
        return "would be replaced" if shown.is_known() else "would be added as a new certificate"
    if shown.is_unused():
        require_crt_list(wanted)
        return "would be added to crt_list"
    return ""


def update_process(api: RuntimeApi, wanted: Wanted) -> list[str]:
    """Make the running process serve the certificate; return what was done."""
    steps = []
    shown = show_certificate(api, wanted)
    if not shown.has_certificate(wanted):
        require_place(shown, wanted)
        end_other_transaction(api, wanted.name)
        set_certificate(api, wanted, is_new=not shown.is_known())
        shown = Shown(api.order(f"show ssl cert {wanted.name}", wanted.sha1))
        steps.append("now served")

    if shown.is_unused():
        require_crt_list(wanted)
        api.order(f"add ssl crt-list {wanted.crt_list} {wanted.name}", "Success!")
        steps.append(f"added to {wanted.crt_list}")
    return steps


def set_certificate(api: RuntimeApi, wanted: Wanted, is_new: bool) -> None:
    """Set and commit the certificate; if HAProxy refuses it, take everything back."""
    name = wanted.name
    try:
        if is_new:
            api.order(f"new ssl cert {name}", "New empty certificate store")
        api.order(
            f"set ssl cert {name} <<\n{wanted.pem}",
            f"Transaction created for certificate {name}!",
            f"Transaction updated for certificate {name}!",
        )
        api.order(f"commit ssl cert {name}", "Success!")
    except base.DeliverError:
        with contextlib.suppress(base.DeliverError):
            api.ask(f"abort ssl cert {name}")
            if is_new:
                api.ask(f"del ssl cert {name}")
        raise


def end_other_transaction(api: RuntimeApi, name: str) -> None:
    """Wait until nobody else is setting a certificate.

    HAProxy has one transaction for all certificates, and 2.6 would take ours for the other one.
    After TRANSACTION_SECONDS the other transaction is aborted: no program needs that long. The
    program that began it was killed, and it would block all deliveries forever. Raise a
    TargetDownError if the other transaction is still open at the deadline.
    """
    abort_at = base.Deadline(TRANSACTION_SECONDS)
    while True:
        transaction = TRANSACTION.search(api.ask("show ssl cert"))
        if transaction is None or transaction["name"] == name:
            return
        if api.deadline.has_passed():
            raise base.TargetDownError(
                f"{api.address}: HAProxy has an unfinished transaction for {transaction['name']}: "
                f"abort it, or set timeout to more than {TRANSACTION_SECONDS} seconds"
            )
        if abort_at.has_passed():
            api.ask(f"abort ssl cert {transaction['name']}")
        time.sleep(0.1)


# ---- The files for the next start --------------------------------------------------------------
def outdated_files(wanted: Wanted) -> dict[str, str]:
    """Return the files that must change for the next start, by path: their new text.

    Raise OSError if a file cannot be read.
    """
    texts = {wanted.file: wanted.pem}
    if wanted.has_crt_list_file():
        crt_list = base.read_bytes_as_text(wanted.crt_list)
        if not re.search(rf"(?m)^\s*{re.escape(wanted.name)}(\s|$)", crt_list):
            texts[wanted.crt_list] = f"{crt_list.rstrip()}\n{wanted.name}\n".lstrip("\n")

    return {path: text for path, text in texts.items() if not has_text(path, text)}


def has_text(path: str, text: str) -> bool:
    """Return whether a file exists and has this text."""
    return os.path.exists(path) and base.read_bytes_as_text(path) == text


def look_at_files(wanted: Wanted) -> str:
    """Return which file would be written first, "" if none would be."""
    try:
        outdated = outdated_files(wanted)
    except OSError as error:
        raise file_error(error, wanted, "HAProxy serves the new certificate, but") from None
    if not outdated:
        return ""
    return f"would write {next(iter(outdated))}"


def write_files(wanted: Wanted, situation: str) -> list[str]:
    """Write the files that must change for the next start; return what was done.

    If that fails, the error begins with `situation`: the state of the running process in words.
    """
    try:
        outdated = outdated_files(wanted)
        for path, text in outdated.items():
            base.replace_file(path, text)
    except OSError as error:
        raise file_error(error, wanted, situation) from None
    return [f"wrote {path}" for path in outdated]


def file_error(error: OSError, wanted: Wanted, situation: str) -> base.DeliverError:
    """Return the error of a file that cannot be read or written."""
    path = error.filename or wanted.file
    return base.DeliverError(
        f"{situation} {path}: {error.strerror}: "
        "the next start of HAProxy would serve the old certificate"
    )
