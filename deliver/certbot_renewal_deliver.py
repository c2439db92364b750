#!/usr/bin/env python3
"""Delivers certbot's renewed certificates to where they are used: a deploy hook in one file.

Copy it into /etc/letsencrypt/renewal-hooks/deploy, make it executable, write certbot_renewal_deliver.toml, run it there once with --check.
Needs Python 3.9 (before 3.11 with tomli), hvac for Vault, and OpenSSH's client for ssh.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import gc
import hashlib
import importlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Callable, NamedTuple, Optional, TextIO

__version__ = "0.1.0"

# ---- Targets ---------------------------------------------------------------------------------------------------------
# What may stand in certbot_renewal_deliver.toml: kind of target, option: (default, meaning). None: it must be there. This table is
# also what --help and docs/deliver.md print.
COMMON: dict[str, tuple[Any, str]] = {
    "name": (
        "",
        "what reports and alerts call it; empty: the kind. For ssh the host follows, as in ssh/web1.example.com",
    ),
    "lineages": ([], "the certificates that it gets, * stands for anything; empty: all of them"),
    "names": ([], "likewise, by a name that the certificate holds"),
    "timeout": (30, "seconds for one certificate"),
}
KINDS: dict[str, dict[str, tuple[Any, str]]] = {
    "haproxy": {
        "socket": (None, "HAProxy's stats socket, level admin: its path, or host:port"),
        "certificate": (
            None,
            "the file that HAProxy has loaded, as HAProxy calls it: /etc/haproxy/certs/{lineage}.pem",
        ),
        "file": ("", "the same file as it is called here; empty: as HAProxy calls it"),
        "crt_list": (
            "",
            "what a new certificate is added to: the folder of certificate, or a crt-list, which must have the same path here",
        ),
    },
    "vault": {
        "url": ("", "Vault's address; empty: VAULT_ADDR from the environment"),
        "mount": ("secret", "where the KV engine, version 2, is mounted"),
        "path": (
            "certbot",
            "certificates go to PATH/certificates/LINEAGE, certbot's accounts to PATH/accounts",
        ),
        "namespace": ("", "Vault's namespace; empty: VAULT_NAMESPACE from the environment"),
        "token_file": (
            "",
            "a file that holds the token; without it and role_id_file: VAULT_TOKEN from the environment",
        ),
        "role_id_file": ("", "a file that holds the role id of an AppRole"),
        "secret_id_file": ("", "a file that holds its secret id"),
        "ca_file": (
            "",
            "the certificate of the CA that Vault's own is from; empty: VAULT_CACERT, or the system's",
        ),
    },
    "ssh": {
        "hosts": (None, "a list of [user@]host[:port], or of names in OpenSSH's configuration"),
        "fullchain": (
            None,
            "where the certificate goes, with its chain: /etc/ssl/example/{lineage}.pem",
        ),
        "key": (None, "where its key goes"),
        "reload": ("", "the command to run there after each certificate that was copied"),
        "config": (
            "",
            "a file with OpenSSH's client configuration (ssh -F), for the key, the user, known hosts",
        ),
        "parallel": (20, "so many hosts at the same time"),
    },
    "command": {
        "command": (
            None,
            "a list: the program and its arguments. It gets RENEWED_LINEAGE and RENEWED_DOMAINS as certbot's hooks do",
        ),
    },
}
NAME = "certbot_renewal_deliver"
TOML_FILE = f"{NAME}.toml"
STATE_FILE = f"{NAME}.state"  # what which target has, for the next run and for the reports of certbot_renewal_report.py
PATIENCE = 300  # seconds that a run waits for another one to end; certbot waits as long
KEEP = 30 * 86400  # seconds: so long the state tells that a target ended, until a report told it
FILE = r"[\w./@%+=:,~-]+"  # paths go through HAProxy's and sftp's command lines; neither quotes all characters alike
HOST = r"(?!-)([\w.+-]+@)?(\[[\da-fA-F:.]+\]|(?!-)[\w.-]+)(:\d{1,5})?"  # with a - in front it would be an option of ssh
Change = Optional[Callable[[], None]]  # what notes that a change begins; None: only look
PEM = ("cert", "chain", "fullchain", "privkey")
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # and what stands for bytes that are no UTF-8


class DeployError(Exception):
    """What an administrator has to mend: the text names the cause and the remedy, and holds no secret."""

    def __init__(self, text: str, down: bool = False) -> None:
        super().__init__(text)
        self.down = down  # the target itself: another certificate would fare no better


class Target(NamedTuple):
    """One place that certificates go to."""

    kind: str
    name: str
    group: int  # the table in the file; the hosts of one ssh table share its `parallel`
    options: dict[str, Any]

    def wants(self, lineage: Lineage) -> bool:
        """Whether the lineage is for it."""
        lineages, names = self.options["lineages"], self.options["names"]
        by_name = any(
            fnmatchcase(name, pattern) or name == pattern
            for name in lineage.names
            for pattern in names
        )
        return (
            not (lineages or names)
            or any(fnmatchcase(lineage.name, pattern) for pattern in lineages)
            or by_name
        )

    def path(self, option: str, lineage: Lineage) -> str:
        """A path of its options, for a lineage."""
        path = str(self.options[option].replace("{lineage}", lineage.name))
        if path and not re.fullmatch(FILE, path):
            raise DeployError(
                f"{option} is {path!a}: it may hold letters, digits and _./@%+=:,~- only"
            )
        return path


def read_targets(folder: str) -> list[Target]:
    """The targets in certbot_renewal_deliver.toml; DeployError names every fault at once."""
    path, faults, targets = os.path.join(folder, TOML_FILE), list[str](), list[Target]()
    try:
        with open(path, "rb") as file:
            tables = toml_library().load(file)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise DeployError(
                f"{path}: {error.strerror}: write it, as docs/deliver.md says, and let certbot's user read it"
            ) from None
        raise DeployError(f"{path}: {error}: it must be TOML, as in docs/deliver.md") from None
    for kind, found in tables.items():
        if (
            kind not in KINDS
            or not isinstance(found, list)
            or not all(isinstance(table, dict) for table in found)
        ):
            faults.append(
                f"{kind} is no kind of target: each begins with [[{']], [['.join(KINDS)}]]"
            )
            continue
        for table in found:
            targets += targets_of(kind, table, len(targets), faults)
    names = [target.name for target in targets]
    faults += [
        f"two targets are called {name}: give each a name"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if faults or not targets:
        raise DeployError(f"{path}: {'; '.join(faults) or 'no target in it'}")
    return targets


def toml_library() -> Any:
    """tomllib, which Python has since 3.11, or tomli."""
    for name in ("tomllib", "tomli"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise DeployError(
        f"no TOML library for {sys.executable}: apt-get install python3-tomli, or pip install tomli"
    )


def targets_of(kind: str, table: dict[str, Any], group: int, faults: list[str]) -> list[Target]:
    """The targets of one table: one for each host of ssh, else one. What is wrong with it goes to the faults."""
    known, begin = {**COMMON, **KINDS[kind]}, len(faults)
    name = str(table.get("name") or kind)
    options = {**{option: default for option, (default, _) in known.items()}, **table}
    faults += [
        f"{name}: {option} is no option of {kind} (known: {', '.join(known)})"
        for option in table
        if option not in known
    ]
    single = re.fullmatch(
        r"\['[^'*?]+'\]\[\]", f"{options['lineages']}{options['names']}"
    )  # one lineage, by its name
    for option, (default, meaning) in known.items():
        value = options[option]
        kind_of_value = [] if option in ("hosts", "command") else "" if default is None else default
        if value is None or (default is None and not value):
            faults.append(f"{name}: {option} is missing: {meaning}")
        elif isinstance(kind_of_value, list) and not (
            isinstance(value, list) and all(isinstance(part, str) and part for part in value)
        ):
            faults.append(
                f'{name}: {option} is wrong: it must be a list of texts, as in ["one", "two"]'
            )
        elif isinstance(kind_of_value, int) and (
            not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 86400
        ):
            faults.append(f"{name}: {option} is wrong: it must be a number above 0")
        elif isinstance(kind_of_value, str) and (
            not isinstance(value, str) or CONTROL.search(value)
        ):
            faults.append(f"{name}: {option} is wrong: it must be one line of text")
        elif (
            option in ("certificate", "file", "fullchain", "key")
            and value
            and "{lineage}" not in value
            and not single
        ):
            faults.append(
                f"{name}: {option} would be the same file for all certificates: put {{lineage}} into it, or name one in lineages"
            )
    if CONTROL.search(name):
        faults.append(f"{name!a} is no name for a target")
    if len(faults) > begin:
        return []
    if kind == "ssh":
        wrong = [host for host in options["hosts"] if not re.fullmatch(HOST, host)]
        faults += [
            f"{name}: {host!a} in hosts is wrong: it must be [user@]host[:port]" for host in wrong
        ]
        return [
            Target(kind, f"{name}/{host}", group, {**options, "host": host})
            for host in options["hosts"]
            if not wrong
        ]
    return [Target(kind, name, group, options)]


# ---- Certificates ----------------------------------------------------------------------------------------------------
class Lineage(NamedTuple):
    """The certificate of a lineage, as it lies on disk; the moments in Unix seconds."""

    name: str
    live: str
    names: list[str]
    not_before: int
    not_after: int
    der: bytes
    pem: dict[str, str]  # cert, chain, fullchain, privkey

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate."""
        return hashlib.sha256(self.der).hexdigest()


def config_folder(script: str, lineage: str = "") -> str:
    """certbot's configuration folder: the one whose hooks this file lies in, else the lineage's, else /etc/letsencrypt."""
    hooks, live = (
        os.path.dirname(os.path.dirname(os.path.abspath(script))),
        os.path.dirname(os.path.abspath(lineage)),
    )
    if os.path.basename(hooks) == "renewal-hooks":
        return os.path.dirname(hooks)
    return (
        os.path.dirname(live)
        if lineage and os.path.basename(live) == "live"
        else "/etc/letsencrypt"
    )


def text_of(path: str) -> str:
    """What is in a text file; OSError where it cannot be read. A file only: a pipe would be waited for."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(0, "not a file", path)
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def read_lineage(live: str) -> Lineage:
    """The lineage in a folder of live/; DeployError where it cannot be read, or its key is another one's: nobody gets that."""
    name, path = os.path.basename(live), os.path.join(live, "fullchain.pem")
    try:
        pem = {kind: text_of(os.path.join(live, f"{kind}.pem")) for kind in PEM}
        decoded = decode(pem["fullchain"], path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")  # whether a key is long enough is for the CA to say
        context.load_cert_chain(path, os.path.join(live, "privkey.pem"), password=lambda: "")
    except (OSError, ValueError) as error:
        reason = (
            "certificate and key do not belong together, or are none"
            if isinstance(error, (ssl.SSLError, ValueError))
            else error.strerror
        )
        raise DeployError(
            f"{name}: {getattr(error, 'filename', None) or path}: {reason}: look at it as root, with: certbot certificates"
        ) from None
    return Lineage(name, live, *decoded, pem)


def decode(fullchain: str, path: str = "") -> tuple[list[str], int, int, bytes]:
    """Names, notBefore, notAfter (Unix seconds) and DER of the first certificate in a PEM text; ValueError where there is none."""
    first = re.search(
        r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", fullchain, re.DOTALL
    )
    der = ssl.PEM_cert_to_DER_cert(first[0] if first else "")
    with contextlib.ExitStack() as stack:
        if not path:  # what the standard library has reads files only
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".pem"))
            file.write(first[0] if first else "")
            file.flush()
            path = file.name
        try:
            found: dict[str, Any] = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
        except ssl.SSLError as error:
            raise ValueError(error) from None
    names = [
        name.strip().lower()
        for kind, name in found.get("subjectAltName", ())
        if kind in ("DNS", "IP Address")
    ]
    return names, *(ssl.cert_time_to_seconds(found[key]) for key in ("notBefore", "notAfter")), der  # type: ignore[return-value]


def replace_file(path: str, text: str, mode: int = 0o600) -> None:
    """Writes a file beside and moves it into place: whatever happens, it is the old one or the new one. An old one keeps its mode and
    owner; a new one belongs to whom the folder belongs to. OSError where that cannot be done."""
    path = os.path.realpath(path)
    # HAProxy loads every file of a folder at its start, but none that ends in .key.
    beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new.key")
    try:
        was = os.stat(path)
        mode = was.st_mode & 0o7777
    except FileNotFoundError:
        was = os.stat(os.path.dirname(path))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)
    try:
        with open(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
            "w",
            encoding="utf-8",
            errors="surrogateescape",
        ) as file:
            file.write(text)
            file.flush()
            if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), was.st_uid, was.st_gid)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


# ---- State -----------------------------------------------------------------------------------------------------------
class Row(NamedTuple):
    """What a target has of a lineage, as far as is known: a line of the state file. certbot_renewal_report.py reads it."""

    fingerprint: str = "none"  # "ended": it is no longer for this target
    not_before: int = 0
    not_after: int = 0
    at: int = 0  # Unix seconds, when this became so
    error: str = ""  # why the last try failed


class State:
    """What every target has. It is written after each delivery: a run that is killed loses nothing."""

    LINE = re.compile(
        r"(?m)^([^\t\n]+)\t([^\t\n]+)\t(\w+)\t(\d{1,12})\t(\d{1,12})\t(\d{1,12})\t([^\t\n]*)$"
    )

    def __init__(self, folder: str) -> None:
        self.path, self.lock, self.rows = (
            os.path.join(folder, STATE_FILE),
            threading.Lock(),
            dict[tuple[str, str], Row](),
        )
        self.fault = ""
        try:
            for lineage, target, fingerprint, *moments, error in self.LINE.findall(
                text_of(self.path)
            ):
                begin, end, at = map(int, moments)
                self.rows[lineage, target] = Row(fingerprint, begin, end, at, error)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.fault = (
                f"{self.path}: {error.strerror}: make it readable; without it a command runs again"
            )

    def note(self, lineage: str, target: str, row: Row) -> None:
        """Keeps what a target has now, or why it has not."""
        with self.lock:
            old = self.rows.get((lineage, target), Row())
            if old._replace(at=0) == row._replace(at=0) and (lineage, target) in self.rows:
                return
            self.rows[lineage, target] = row
            self.write()

    def end(self, wanted: set[tuple[str, str]]) -> None:
        """Keeps that what is not wanted any more has ended, until a report has told it."""
        now = int(time.time())
        gone = [
            key
            for key, row in self.rows.items()
            if key not in wanted and row.fingerprint != "ended"
        ]
        old = [
            key
            for key, row in self.rows.items()
            if row.fingerprint == "ended" and row.at < now - KEEP
        ]
        for key in gone:
            self.rows[key] = Row("ended", at=now)
        for key in old:
            del self.rows[key]
        if gone or old:
            self.write()

    def write(self) -> None:
        """Writes the file; what is wrong with that is told at the end, the deliveries go on."""
        lines = [
            "\t".join([*key, *map(str, row[:-1]), CONTROL.sub(" ", row.error)]) + "\n"
            for key, row in sorted(self.rows.items())
        ]
        try:
            replace_file(
                self.path, "".join(lines)
            )  # for certbot's user alone: a command's last words may be in it
        except OSError as error:
            self.fault = (
                f"{self.path}: {error.strerror}: make it writable, or alerts know nothing of this"
            )


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Waits for another run of this script to end: two would deliver the same to the same targets. DeployError when it hangs."""
    path, until, file = os.path.join(folder, f".{NAME}.lock"), time.monotonic() + PATIENCE, None
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(
            OSError
        ):  # a folder that cannot be written to: at worst both deliver
            # For its owner alone: whoever can open it could lock it.
            file = stack.enter_context(open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w"))
        while file is not None:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > until:
                raise DeployError(
                    f"{path}: another run has held it for {PATIENCE} s: look what it hangs at, and end it"
                )
            time.sleep(0.1)
        yield


# ---- HAProxy ---------------------------------------------------------------------------------------------------------
def ask_haproxy(target: Target, command: str, deadline: float) -> str:
    """What HAProxy's Runtime API answers to one command."""
    place = target.options["socket"]
    host, _, port = place.rpartition(":")
    is_path = "/" in place or not port.isdigit()
    answer = b""
    try:
        with (
            socket.socket(socket.AF_UNIX)
            if is_path
            else socket.create_connection((host.strip("[]"), int(port)), left(deadline)) as peer
        ):
            peer.settimeout(left(deadline))
            if is_path:
                peer.connect(place)
            peer.sendall(command.encode() + b"\n")
            while part := peer.recv(65536):
                answer += part
                peer.settimeout(left(deadline))
    except (OSError, OverflowError) as error:
        if (
            isinstance(error, ConnectionError) and len(command) > 15000
        ):  # it takes no more than its buffer, 16 KiB, and hangs up
            raise DeployError(
                f"{place}: HAProxy hung up on {len(command)} bytes: raise tune.bufsize in haproxy.cfg"
            ) from None
        reason = (
            "no answer in time"
            if isinstance(error, socket.timeout)
            else getattr(error, "strerror", None) or str(error)
        )
        raise DeployError(
            f"{place}: {reason}: does HAProxy run, and is socket its stats socket?", down=True
        ) from None
    if b"ermission denied" in answer[:100]:
        raise DeployError(
            f"{place}: HAProxy answered: permission denied: write level admin behind stats socket in haproxy.cfg",
            down=True,
        )
    return answer.decode("utf-8", "replace").strip()


def left(deadline: float) -> float:
    """The seconds until a moment of the monotonic clock, but a few at least: to time out at once is no way to try."""
    return max(deadline - time.monotonic(), 0.05)


def end_of_another_transaction(target: Target, name: str, deadline: float) -> None:
    """Waits until nobody has begun to set another certificate. HAProxy 2.6 would take ours for that one. After two seconds it is aborted:
    nobody takes so long, whoever began it was killed, and it would be in the way for ever."""
    begin = time.monotonic()
    while other := re.search(r"(?m)^\*(.+)$", ask_haproxy(target, "show ssl cert", deadline)):
        if other[1] == name or time.monotonic() > deadline:
            return
        if time.monotonic() > begin + 2:
            ask_haproxy(target, f"abort ssl cert {other[1]}", deadline)
        time.sleep(0.1)


def deliver_haproxy(
    target: Target, lineage: Lineage, row: Row, deadline: float, change: Change
) -> str:
    """Puts the certificate into the running HAProxy, without a restart, then into the file that the next start reads."""
    name, crt_list = target.path("certificate", lineage), target.path("crt_list", lineage)
    file, done, unreached = target.path("file", lineage) or name, list[str](), ""
    pem = re.sub(
        r"\n\s*\n", "\n", f"{lineage.pem['fullchain'].strip()}\n{lineage.pem['privkey'].strip()}\n"
    )  # an empty line would end it

    def says(command: str, expected: str) -> str:
        answer = ask_haproxy(target, command, deadline)
        if not re.search(expected, answer):
            words = (
                shortened(answer.rpartition("\n")[2] if "Committing" in answer else answer)
                or "nothing"
            )
            raise DeployError(f"HAProxy refused: {words}: look at its log")
        return answer

    try:
        shown = ask_haproxy(target, f"show ssl cert {name}", deadline)
        if not change:
            ask_haproxy(
                target, f"abort ssl cert {name}.check", deadline
            )  # there is none, but it takes level admin to be told so
        if hashlib.sha1(lineage.der).hexdigest().upper() not in shown:
            new = "Filename:" not in shown
            if new and not crt_list:
                raise DeployError(
                    f"HAProxy has no certificate {name}: correct certificate, or set crt_list to where a new one is added"
                )
            if not change:
                return "would get it, as a new one" if new else "would get it"
            end_of_another_transaction(target, name, deadline)
            try:
                if new:
                    says(f"new ssl cert {name}", "New empty certificate store")
                says(
                    f"set ssl cert {name} <<\n{pem}",
                    f"Transaction (created|updated) for certificate {re.escape(name)}!",
                )
                says(f"commit ssl cert {name}", "Success!")
            except DeployError:
                with contextlib.suppress(DeployError):
                    ask_haproxy(target, f"abort ssl cert {name}", deadline)
                    if new:
                        ask_haproxy(target, f"del ssl cert {name}", deadline)
                raise
            shown = says(f"show ssl cert {name}", hashlib.sha1(lineage.der).hexdigest().upper())
            done.append("serves it")
        if "Status: Unused" in shown:
            if not crt_list:
                raise DeployError(
                    f"no bind of HAProxy uses {name}: set crt_list to where it is added"
                )
            if not change:
                return "would add it to crt_list"
            says(f"add ssl crt-list {crt_list} {name}", "Success!")
            done.append(f"added to {crt_list}")
    except DeployError as error:
        if not error.down:
            raise
        unreached = str(error)  # its next start is served by the file
    if unreached and not change:
        raise DeployError(unreached, down=True)
    try:
        wanted = {file: pem}
        listed = (
            ""
            if crt_list.rstrip("/") in ("", os.path.dirname(name)) or os.path.isdir(crt_list)
            else text_of(crt_list)
        )
        if listed and not re.search(rf"(?m)^\s*{re.escape(name)}(\s|$)", listed):
            wanted[crt_list] = listed.rstrip("\n") + f"\n{name}\n"
        for path, text in wanted.items():
            if not os.path.exists(path) or text_of(path) != text:
                if not change:
                    return f"would write {path}"
                replace_file(path, text)
                done.append(f"{path} written")
    except OSError as error:
        raise DeployError(
            f"{unreached or 'HAProxy serves it'}, but {error.filename or file}: {error.strerror}: the next start would serve the old one"
        ) from None
    if unreached:
        raise DeployError(f"{unreached} Its next start serves {file}", down=True)
    return ", ".join(done)


# ---- Vault -----------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def vault(target: Target, deadline: float) -> Iterator[Any]:
    """Vault's KV engine, logged in; DeployError for whatever Vault or the way to it says."""
    try:
        import hvac
        import requests
    except ImportError:
        raise DeployError(
            f"no hvac library for {sys.executable}: pip install hvac, or apt-get install python3-hvac",
            down=True,
        ) from None
    options = target.options
    secrets = dict[str, str]()
    for option in ("token_file", "role_id_file", "secret_id_file"):
        try:
            secrets[option] = text_of(options[option]).strip() if options[option] else ""
        except OSError as error:
            raise DeployError(f"{option}: {options[option]}: {error.strerror}", down=True) from None
    url = options["url"] or os.environ.get("VAULT_ADDR", "")
    if not url:
        raise DeployError(
            "url is empty, and so is VAULT_ADDR: set one to Vault's address", down=True
        )
    remedies = {
        "Forbidden": "is the token still valid, and does its policy give the right to it?",
        "VaultDown": "unseal it",
        "InvalidPath": "is mount a KV engine?",
    }
    try:
        client = hvac.Client(
            url=url,
            token=secrets["token_file"] or None,
            namespace=options["namespace"] or os.environ.get("VAULT_NAMESPACE") or None,
            timeout=left(deadline),
            **({"verify": options["ca_file"]} if options["ca_file"] else {}),
        )
        if secrets["role_id_file"]:
            try:
                client.auth.approle.login(secrets["role_id_file"], secrets["secret_id_file"])
            except (
                hvac.exceptions.InvalidRequest,
                hvac.exceptions.Forbidden,
                hvac.exceptions.InvalidPath,
            ) as error:
                remedy = "correct role_id_file and secret_id_file; after five wrong tries Vault locks a role for 15 minutes"
                raise DeployError(f"{url}: {shortened(str(error))}: {remedy}", down=True) from None
        elif not client.token:
            raise DeployError(
                "no token for Vault: set token_file, role_id_file, or VAULT_TOKEN", down=True
            )
        try:
            yield client
        finally:
            if secrets["role_id_file"]:
                with contextlib.suppress(hvac.exceptions.VaultError, requests.RequestException):
                    client.auth.token.revoke_self()
    except hvac.exceptions.VaultError as error:
        kind = type(error).__name__
        remedy = remedies.get(kind, "look at Vault's log")
        raise DeployError(
            f"{url}: {shortened(str(error))}: {remedy}", down=kind == "VaultDown"
        ) from None
    except (requests.RequestException, OSError, ValueError) as error:
        while error.__context__ is not None:
            error = error.__context__  # type: ignore[assignment]
        reason = shortened(getattr(error, "strerror", None) or str(error))
        raise DeployError(
            f"{url}: {reason}: does Vault run, and is url its address?", down=True
        ) from None


def asked(call: Callable[..., Any], target: Target, path: str, **more: Any) -> Any:
    """What Vault answers to a call about a path, None where there is nothing; an engine that is missing is an error."""
    import hvac

    try:
        return call(
            path=f"{target.options['path']}/{path}", mount_point=target.options["mount"], **more
        )
    except hvac.exceptions.InvalidPath as error:
        if error.errors:
            raise
        return None


def read_secret(client: Any, target: Target, path: str) -> tuple[dict[str, str], int]:
    """A secret and its version; {} and the version to check against where it is missing (0) or deleted."""
    answer = asked(
        client.secrets.kv.v2.read_secret_version, target, path, raise_on_deleted_version=False
    )
    return (
        (answer["data"]["data"] or {}, answer["data"]["metadata"]["version"]) if answer else ({}, 0)
    )


def update_secret(
    client: Any,
    target: Target,
    path: str,
    new: Callable[[dict[str, str]], dict[str, str]],
    change: bool,
) -> bool:
    """Writes what `new` makes of a secret, unless it is that already; returns whether. Check-and-set: where another host writes at
    the same time, what that one wrote is looked at again, and nothing of it is lost."""
    import hvac

    for _ in range(10):
        found, version = read_secret(client, target, path)
        wanted = new(found)
        if wanted != found and not change:
            full, right = (
                f"{target.options['mount']}/data/{target.options['path']}/{path}",
                "update" if version else "create",
            )
            if not {"root", right}.intersection(client.sys.get_capabilities([full])["data"][full]):
                raise DeployError(
                    f"the token may not {right} {full}: give its policy the right to it"
                )
        if wanted == found or not change:
            return wanted != found
        try:
            asked(
                client.secrets.kv.v2.create_or_update_secret,
                target,
                path,
                secret=wanted,
                cas=version,
            )
            return True
        except hvac.exceptions.InvalidRequest as error:
            if "check-and-set" not in str(error):
                raise
    raise DeployError(f"{path}: somebody else writes it all the time")


def deliver_vault(
    target: Target, lineage: Lineage, row: Row, deadline: float, change: Change
) -> str:
    """Writes the certificate, its key and what certbot needs to renew it elsewhere."""
    folder = os.path.dirname(os.path.dirname(lineage.live))
    number = re.search(r"(\d+)\.pem$", os.path.realpath(os.path.join(lineage.live, "cert.pem")))
    try:
        conf = text_of(os.path.join(folder, "renewal", f"{lineage.name}.conf"))
        places = os.walk(
            os.path.join(folder, "accounts"), followlinks=True
        )  # links: from the first to the second version of ACME
        files = [os.path.join(place, name) for place, _, names in places for name in names]
        accounts = {os.path.relpath(path, folder): text_of(path) for path in files}
    except OSError as error:
        raise DeployError(
            f"{error.filename}: {error.strerror}: make it readable for certbot's user"
        ) from None
    mine = {
        **lineage.pem,
        "conf": moved(conf, folder, "/etc/letsencrypt"),
        "number": number[1] if number else "1",
    }

    def newest(found: dict[str, str]) -> dict[str, str]:
        with contextlib.suppress(KeyError, ValueError):
            if decode(found["fullchain"])[1] > lineage.not_before:
                newer.append(True)
                return found  # another host renewed it after this one
            if found["fullchain"] == mine["fullchain"] and what_counts(
                found["conf"]
            ) == what_counts(mine["conf"]):
                return found
        return mine

    newer = list[bool]()
    with vault(target, deadline) as client:
        changed = update_secret(
            client, target, "accounts", lambda found: {**found, **accounts}, bool(change)
        )
        changed = (
            update_secret(client, target, f"certificates/{lineage.name}", newest, bool(change))
            or changed
        )
    return (
        "has a newer one"
        if newer
        else ""
        if not changed
        else "holds it"
        if change
        else "would get it"
    )


def moved(conf: str, old: str, new: str) -> str:
    """A renewal configuration for another folder of certbot."""
    return re.sub(rf"(?m){re.escape(old)}(?=/|$)", lambda _: new, conf)


def what_counts(conf: str) -> str:
    """A renewal configuration without what each run of certbot may write anew."""
    return re.sub(r"(?m)^\s*(version|ari_retry_after)\s*=.*\n?", "", conf)


def restore(target: Target, folder: str) -> tuple[list[str], list[str]]:
    """Rebuilds certbot's configuration folder out of Vault; returns in words what it did, and what is wrong with single entries. What is
    as new on disk stays."""
    done, wrong, umask = list[str](), list[str](), os.umask(0o077)
    try:
        with vault(target, time.monotonic() + target.options["timeout"]) as client:
            accounts, _ = read_secret(client, target, "accounts")
            for path, text in sorted(accounts.items()):
                place = os.path.join(folder, path)
                if path.startswith("accounts/") and ".." not in path and not os.path.exists(place):
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                    replace_file(place, text, 0o400 if path.endswith("private_key.json") else 0o644)
                    done.append(path)
            answer = asked(client.secrets.kv.v2.list_secrets, target, "certificates")
            for name in answer["data"]["keys"] if answer else ():
                found, _ = read_secret(client, target, f"certificates/{name}")
                try:
                    if found and put_back(folder, name, found):
                        done.append(name)
                except (KeyError, ValueError):
                    wrong.append(
                        f"{name} in Vault is no certificate of this script: remove it there"
                    )
    except OSError as error:
        raise DeployError(
            f"{error.filename or folder}: {error.strerror}: make it writable"
        ) from None
    finally:
        os.umask(umask)
    return done, wrong


def put_back(folder: str, name: str, found: dict[str, str]) -> bool:
    """Writes a lineage as certbot lays it out, unless what is there is as new; returns whether. KeyError, ValueError: it is none."""
    number, begin, conf = (
        int(found["number"]),
        decode(found["fullchain"])[1],
        moved(found["conf"], "/etc/letsencrypt", folder),
    )
    if (
        not re.fullmatch(r"[^/.][^/]*", name)
        or not name.isprintable()
        or not all(found[kind] for kind in PEM)
    ):
        raise ValueError(name)
    live, archive, renewal = (
        os.path.join(folder, *parts) for parts in (("live", name), ("archive", name), ("renewal",))
    )
    with contextlib.suppress(DeployError):
        if read_lineage(live).not_before >= begin:
            return False
    for path in (live, archive, renewal):
        os.makedirs(path, exist_ok=True)
    there = [
        int(entry[1])
        for entry in (re.fullmatch(r"cert(\d+)\.pem", entry) for entry in os.listdir(archive))
        if entry
    ]
    number = max([number, *(entry + 1 for entry in there)])
    for kind in PEM:
        replace_file(
            os.path.join(archive, f"{kind}{number}.pem"),
            found[kind],
            0o600 if kind == "privkey" else 0o644,
        )
    replace_file(os.path.join(renewal, f"{name}.conf"), conf, 0o644)
    for kind in (
        PEM
    ):  # last, as their being there says that all is; one after the other, as certbot does it
        link = os.path.join(live, f"{kind}.pem")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link + ".new")
        os.symlink(os.path.join("..", "..", "archive", name, f"{kind}{number}.pem"), link + ".new")
        os.replace(link + ".new", link)
    return True


# ---- OpenSSH ---------------------------------------------------------------------------------------------------------
PLACE = """
real() { readlink -f "$1" 2>/dev/null || echo "$1"; }  # where a link leads to
stat_of() { stat -c '%u:%g %a' "$1" 2>/dev/null || stat -f '%u:%g %Lp' "$1"; }
ready() {  # an old file hands down its owner and mode
    to=$(real "$1")
    [ "$to" = "$1" ] || mv -f "$1.new" "$to.new"
    if [ -e "$to" ]; then
        was=$(stat_of "$to")
        is=$(stat_of "$to.new")
        [ "${is% *}" = "${was% *}" ] || chown "${was% *}" "$to.new"
        chmod "${was#* }" "$to.new"
    else
        chmod "$2" "$to.new"
    fi
}
"""
LOOK = """
for file in {key} {fullchain}; do
    folder=$(dirname "$file")
    [ -w "$folder" ] || {{ echo "$folder is not there, or may not be written to" >&2; exit 1; }}
done
cat {fullchain} 2>/dev/null || :
"""


def deliver_ssh(target: Target, lineage: Lineage, row: Row, deadline: float, change: Change) -> str:
    """Copies certificate and key to a host, moves them into place there, and runs the reload command."""
    options, parts = target.options, re.fullmatch(HOST, target.options["host"])
    user, host, port = parts.groups("") if parts else ("", "", "")
    fullchain, key = (target.path(option, lineage) for option in ("fullchain", "key"))
    given = [
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "ServerAliveInterval=5",
        "-o",
        "ForwardAgent=no",
    ]
    given += [
        "-o",
        f"ConnectTimeout={max(1, int(options['timeout']))}",
        *(["-F", options["config"]] if options["config"] else []),
    ]
    given += ["-o", f"Port={port[1:]}"] if port else []

    def shell(
        script: str,
    ) -> str:  # by way of stdin: no login shell has to be quoted for. In braces: it is read to its end before it runs
        return run(
            ["ssh", "-T", *given, user + host.strip("[]"), "exec sh -s"],
            f"{{ set -e\n{script}\nexit; }}\n",
            deadline,
        )

    same = lineage.pem["fullchain"].strip() in shell(LOOK.format(fullchain=fullchain, key=key))
    if same and not row.error:
        return ""
    if not change:
        return "would run reload" if same else "would get it"
    moves = ""
    if not same:
        live = {f"{key}.new": os.path.realpath(os.path.join(lineage.live, "privkey.pem"))}
        live[f"{fullchain}.new"] = os.path.realpath(os.path.join(lineage.live, "fullchain.pem"))
        batch = "".join(
            f'put "{here}" {there}\n' for there, here in live.items()
        )  # the key's mode here is its first one there
        sftp = ["sftp", "-q", *given, "-b", "-", user + host]
        try:
            run(sftp, batch, deadline)
        except DeployError as error:
            if not error.down:  # a full disk, say: nothing half-written stays
                with contextlib.suppress(DeployError):
                    run(sftp, "".join(f"-rm {there}\n" for there in live), deadline)
            raise
        moves = " && ".join(
            f'mv -f "$(real {path}).new" "$(real {path})"' for path in (key, fullchain)
        )
        moves = f"{PLACE}\nready {key} 600; ready {fullchain} 644; {moves}"
        change()  # should this run be stopped between moves and reload, the next one must know
    failed = f"status=$?; echo '(reload; the files are {'as they should be' if same else 'in place'})' >&2; exit $status"
    shell(f"{moves}\n( {options['reload'] or ':'}\n) </dev/null || {{ {failed}; }}")
    return "reload ran" if same else "copied, reload ran" if options["reload"] else "copied"


def run(
    command: Sequence[str], text: str, deadline: float, environ: Mapping[str, str] | None = None
) -> str:
    """Runs a program with a text as its input; returns what it prints. DeployError where it fails, or has not ended in time: then it and
    its children are killed."""
    # Files, not pipes: a child that stays behind would keep a pipe open.
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryFile() as wrong,
    ):
        given.write(text.encode())
        given.seek(0)
        try:
            child = subprocess.Popen(
                command, stdin=given, stdout=said, stderr=wrong, start_new_session=True, env=environ
            )
        except (OSError, ValueError) as error:
            raise DeployError(
                f"{command[0]}: {getattr(error, 'strerror', None) or error}: is it installed, and executable?",
                down=True,
            ) from None
        try:
            child.wait(left(deadline))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise DeployError(
                f"{command[0]} did not end in time: timeout is too short, or it hangs", down=True
            ) from None
        said.seek(0)
        wrong.seek(0)
        out, errors = (file.read().decode("utf-8", "replace") for file in (said, wrong))
    if child.returncode:
        lines = [line for line in (errors.strip() or out.strip()).splitlines() if line.strip()]
        words = shortened(" ".join(lines[-3:])) or "no word"
        remedies = {
            "HAS CHANGED": "find out why before you replace it in known_hosts",
            "Host key verification": "put the host's key into known_hosts of certbot's user",
            "Permission denied (": "put the key of certbot's user into authorized_keys there",
            "connect to host": "does its sshd run, and is hosts right?",
        }
        remedy = next((f": {remedy}" for sign, remedy in remedies.items() if sign in errors), "")
        raise DeployError(
            f"{command[0]} ended with status {child.returncode}: {words}{remedy}",
            down=child.returncode == 255,
        )
    return out


# ---- Command ---------------------------------------------------------------------------------------------------------
def deliver_command(
    target: Target, lineage: Lineage, row: Row, deadline: float, change: Change
) -> str:
    """Runs a program. What it did is not to be seen: that it ended with 0 for this certificate is all that is known."""
    if row.fingerprint == lineage.fingerprint:  # which is noted only when it succeeded
        return ""
    if not change and not shutil.which(target.options["command"][0]):
        raise DeployError(
            f"{target.options['command'][0]}: not found: is it installed, and executable?"
        )
    if not change:
        return f"would run {shortened(' '.join(target.options['command']))}"
    renewed = {"RENEWED_LINEAGE": lineage.live, "RENEWED_DOMAINS": " ".join(lineage.names)}
    run(target.options["command"], "", deadline, {**os.environ, **renewed})
    return "ran"


# ---- Deliveries ------------------------------------------------------------------------------------------------------
DELIVER: dict[str, Callable[[Target, Lineage, Row, float, Change], str]] = {
    "haproxy": deliver_haproxy,
    "vault": deliver_vault,
    "ssh": deliver_ssh,
    "command": deliver_command,
}


class Outcome(NamedTuple):
    """How the delivery of a lineage to a target ended: what was done, "" if nothing was to do; or the error."""

    lineage: str
    target: str
    done: str
    error: str


def in_time(seconds: float, work: Callable[[], str]) -> str:
    """What the work returns, or raises; DeployError when it takes too long: no target may hold certbot, which waits for its hooks."""
    results = list[Any]()

    def attempt() -> None:
        try:
            results.append(work())
        except DeployError as error:
            results.append(error)
        except Exception as error:
            results.append(
                DeployError(
                    f"{type(error).__name__}: {shortened(str(error))}: this is a fault of {NAME}.py, please report it"
                )
            )

    worker = threading.Thread(target=attempt, daemon=True)
    worker.start()
    worker.join(seconds)
    if not results:
        raise DeployError("no answer in time: timeout is too short, or it hangs", down=True)
    if isinstance(results[0], DeployError):
        raise results[0]
    return str(results[0])


def deliver(
    targets: Sequence[Target], lineages: Sequence[Lineage], state: State, change: bool
) -> list[Outcome]:
    """Delivers each lineage to each target that wants it. Each target is on its own: none waits for another one."""
    outcomes, groups = (
        list[Outcome](),
        {
            target.group: threading.Semaphore(max(1, int(target.options.get("parallel", 1))))
            for target in targets
        },
    )

    def serve(target: Target) -> None:
        down = ""
        with groups[target.group]:
            for lineage in filter(target.wants, lineages):
                row, done, error = state.rows.get((lineage.name, target.name), Row()), "", down
                row = Row() if row.fingerprint == "ended" else row  # it goes there again
                if not down:
                    seconds = target.options["timeout"]
                    deadline = time.monotonic() + seconds
                    try:
                        begun = row._replace(
                            error="the last run was stopped while it delivered", at=int(time.time())
                        )
                        note = (
                            functools.partial(state.note, lineage.name, target.name, begun)
                            if change
                            else None
                        )
                        done = in_time(
                            seconds + 0.5,
                            lambda: DELIVER[target.kind](target, lineage, row, deadline, note),
                        )  # noqa: B023
                    except DeployError as fault:
                        error, down = str(fault), str(fault) if fault.down else ""
                if change:
                    has = (
                        Row(lineage.fingerprint, lineage.not_before, lineage.not_after)
                        if not error
                        else row
                    )
                    state.note(
                        lineage.name,
                        target.name,
                        has._replace(error=shortened(error), at=int(time.time())),
                    )
                outcomes.append(Outcome(lineage.name, target.name, done, error))

    workers = [
        threading.Thread(target=serve, args=[target], daemon=True)
        for target in targets
        if any(map(target.wants, lineages))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(outcomes)


def shortened(text: str) -> str:
    """Foreign words on one line, in ASCII and not too many."""
    return re.sub(r"[^\x21-\x7e]+", " ", text).strip()[:400]


# ---- Command line ----------------------------------------------------------------------------------------------------
def say(*lines: str, stream: TextIO | None = None) -> None:
    """Prints in ASCII (certbot fails a lineage whose hook prints anything that is not UTF-8); a closed pipe is no failure."""
    stream = stream or sys.stdout
    for line in lines:
        try:
            print(
                CONTROL.sub(" ", line).encode("ascii", "backslashreplace").decode(),
                file=stream,
                flush=True,
            )
        except OSError:
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), stream.fileno()
            )  # or the interpreter complains when it flushes at its end


def lineages_on_disk(folder: str, faults: list[str]) -> list[Lineage]:
    """All lineages that can be read; what is wrong with the others goes to the faults."""
    found, live = list[Lineage](), os.path.join(folder, "live")
    try:
        entries = sorted(
            entry
            for entry in os.listdir(live)
            if os.path.isdir(os.path.join(live, entry)) and entry[0] != "." and entry.isprintable()
        )
    except OSError as error:
        faults.append(
            f"{live}: {error.strerror}: run as root, or name certbot's configuration folder with --config-dir"
        )
        return []
    for entry in entries:
        try:
            found.append(read_lineage(os.path.join(live, entry)))
        except DeployError as error:
            faults.append(str(error))
    return found


def table_of_options() -> str:
    """The options of all kinds of targets, for --help."""
    tables = {"every kind": COMMON, **KINDS}
    rows = {
        kind: [f"  {name:15} {said(found):9} {what}\n" for name, (found, what) in table.items()]
        for kind, table in tables.items()
    }
    return "".join("".join([f"\n{kind}:\n", *lines]) for kind, lines in rows.items())


def said(default: Any) -> str:
    """A default, for people."""
    return "required" if default is None else "(empty)" if default in ("", []) else str(default)


def command_line() -> argparse.ArgumentParser:
    """What may be given; its help ends in the table of options."""
    parser = argparse.ArgumentParser(
        f"{NAME}.py", description=(__doc__ or "").partition("\n")[0], add_help=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"targets, from {TOML_FILE} in certbot's configuration folder, each a table [[kind]]:\n{table_of_options()}"
    parser.add_argument("-h", "--help", action="store_true", help="print this")
    parser.add_argument(
        "what",
        nargs="?",
        choices=["restore"],
        help="rebuild certbot's configuration folder out of Vault",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="deliver what any target lacks of any certificate: after each run of certbot",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="prove the installation: look at each target, change nothing",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what would be delivered, change nothing"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="certbot's configuration folder")
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


def main(arguments: Sequence[str], environ: Mapping[str, str], script: str = __file__) -> int:
    """Runs the hook and returns the exit status: 0 every target has what it should have, 1 something is to be mended, 2 wrong usage."""
    parser, script, faults = command_line(), os.path.abspath(script), list[str]()
    given = parser.parse_args(arguments)
    if given.help or given.version:
        say(*(parser.format_help().splitlines() if given.help else [f"{NAME} {__version__}"]))
        return 0
    live = environ.get("RENEWED_LINEAGE", "").strip().rstrip("/")
    folder = given.config_dir or config_folder(script, live)
    everything = (
        given.all
        or given.check
        or given.dry_run
        or os.path.basename(os.path.dirname(script)) == "post"
    )
    try:
        targets = read_targets(folder)
        if given.what:
            restore_all(targets, folder)
        elif not everything and not live:
            raise DeployError(
                f"RENEWED_LINEAGE is not set: certbot sets it for a deploy hook. By hand use {NAME}.py --all"
            )
        else:
            faults += deliver_all(
                targets, folder, "" if everything else os.path.abspath(live), given, script
            )
    except DeployError as error:
        faults.append(str(error))
    if faults:
        say(f"{NAME}: {'not ready: ' if given.check else ''}{'; '.join(faults)}", stream=sys.stderr)
    return 1 if faults else 0


def restore_all(targets: Sequence[Target], folder: str) -> None:
    """Restores from the first Vault of the targets, and says what."""
    found = next((target for target in targets if target.kind == "vault"), None)
    if found is None:
        raise DeployError(f"{TOML_FILE} has no [[vault]] to restore from")
    with alone(folder):
        done, wrong = restore(found, folder)
    say(*(f"{NAME}: warning: {text}" for text in wrong), stream=sys.stderr)
    say(
        f"restored into {folder}: {', '.join(done) or 'nothing, all of it is there, or Vault holds nothing yet'}"
    )


def deliver_all(
    targets: Sequence[Target], folder: str, live: str, given: argparse.Namespace, script: str
) -> list[str]:
    """Delivers one lineage, or all; says what was done and returns what is wrong."""
    faults, looking = list[str](), given.check or given.dry_run
    with alone(folder):
        state = State(folder)
        lineages = [read_lineage(live)] if live else lineages_on_disk(folder, faults)
        if not live and not lineages and not faults and given.check:
            faults.append(
                f"{folder}/live: no certificate: get one with certbot, or name its folder with --config-dir"
            )
        outcomes = deliver(targets, lineages, state, not looking)
        if not live and not faults and not looking:  # where not all is seen, nothing is missed
            state.end(
                {
                    (lineage.name, target.name)
                    for target in targets
                    for lineage in lineages
                    if target.wants(lineage)
                }
            )
    if given.check:
        deploy = os.path.join(folder, "renewal-hooks", "deploy")
        if os.path.realpath(os.path.dirname(script)) != os.path.realpath(deploy):
            faults.append(f"{script} is not in {deploy}, where certbot would run it: copy it there")
        if not os.stat(script).st_mode & 0o111:
            faults.append(f"{script} is not executable, so certbot ignores it: chmod 755 {script}")
    faults += [state.fault] if state.fault else []
    if given.check:  # what cannot be tried without doing it
        outcomes = [
            found._replace(error=last_error(state, found))
            if found.done and not found.error
            else found
            for found in outcomes
        ]
    for target, error in dict.fromkeys(
        (found.target, found.error) for found in outcomes if found.error
    ):
        names = [
            found.lineage for found in outcomes if (found.target, found.error) == (target, error)
        ]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        faults.append(f"{', '.join(names[:3])}{more} not delivered to {target}: {error}")
    if looking:
        say(
            *(
                f"{found.target:25} {found.lineage:25} {found.error or found.done or 'has it'}"
                for found in outcomes
            )
        )
        idle = [
            target.name for target in targets if lineages and not any(map(target.wants, lineages))
        ]
        faults += [
            f"no certificate here is for {name}: correct its lineages and names" for name in idle
        ]
        if not faults and given.check:
            say(
                f"ready: {len(lineages)} certificates for {len(targets)} targets of {os.path.join(folder, TOML_FILE)}"
            )
        return faults
    done = [
        f"{found.lineage} to {found.target}: {found.done}"
        for found in outcomes
        if found.done and not found.error
    ]
    had = sum(1 for found in outcomes if not found.done and not found.error)
    if had:
        done.append(f"{had} had it" if done or faults else f"nothing to do: {had} had it")
    say("; ".join(done) or "nothing delivered")
    return faults


def last_error(state: State, found: Outcome) -> str:
    """Why the last try of a delivery failed, "" if it did not."""
    error = state.rows.get((found.lineage, found.target), Row()).error
    return f"the last try: {error}. --all tries again" if error else ""


if __name__ == "__main__":
    gc.disable()  # it ends before there is anything to collect
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is no reason for a traceback
    sys.exit(main(sys.argv[1:], os.environ))
