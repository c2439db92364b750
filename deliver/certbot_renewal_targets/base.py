"""What all kinds of targets share: errors, options, lineages, targets, deadlines, programs, files.

This code runs as root. It trusts certbot's configuration folder, with the settings file in it, and
its environment: both belong to root. So commands and paths in the settings file are used as they
are. It does not trust what a target answers: of that it shows one line of ASCII, and runs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import ssl
import stat
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from tempfile import NamedTemporaryFile, TemporaryFile
from threading import Semaphore
from typing import Any, ClassVar, NamedTuple

import certbot_renewal_report as hook


# ---- Errors ------------------------------------------------------------------------------------
# hook.ReportError         an administrator has to correct something
#     DeliverError         a delivery failed, or the settings file is wrong
#         TargetDownError  the target itself failed
class DeliverError(hook.ReportError):
    """A delivery that failed, or a settings file that is wrong.

    The text names the cause and the remedy, and holds no secret.
    """


class TargetDownError(DeliverError):
    """A target that failed as a whole: another certificate would fail in the same way."""


# ---- Options -----------------------------------------------------------------------------------
class Rule(NamedTuple):
    """A rule for the value of an option; `must_be` says in words what it accepts."""

    accepts: Callable[[Any], bool]
    must_be: str


def is_text(value: Any) -> bool:
    """Return whether a value is one line of text, perhaps an empty one."""
    return isinstance(value, str) and not hook.CONTROL.search(value)


def is_list_of_texts(value: Any) -> bool:
    """Return whether a value is a list of texts, none of them empty."""
    return isinstance(value, list) and all(isinstance(part, str) and part for part in value)


def is_number(value: Any) -> bool:
    """Return whether a value is a number above 0, and as seconds less than a day."""
    is_numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_numeric and 0 < value < hook.DAY


TEXT = Rule(is_text, "one line of text")
LIST_OF_TEXTS = Rule(is_list_of_texts, 'a list of strings, for example ["one", "two"]')
NUMBER = Rule(is_number, f"a number above 0 and below {hook.DAY}")


class Option(NamedTuple):
    """One option of a target: its default, and its meaning for --help and the manual.

    A default of None means that the option is required. `is_own_file`: it is the path of a file
    that each certificate must have for itself.
    """

    default: Any
    meaning: str
    rule: Rule = TEXT
    is_own_file: bool = False


COMMON_OPTIONS: Mapping[str, Option] = {
    "name": Option(
        "",
        "name of the target in reports and alerts; if empty, the kind. ssh adds the host: "
        "ssh/web1.example.com",
    ),
    "lineages": Option(
        [],
        "lineages to deliver; * matches any text. Without lineages and names: all lineages",
        LIST_OF_TEXTS,
    ),
    "names": Option(
        [],
        "a certificate that contains one of these names is also delivered; * matches any text",
        LIST_OF_TEXTS,
    ),
    "timeout": Option(30, "seconds for the delivery of one certificate", NUMBER),
}


def option_faults(known: Mapping[str, Option], options: Mapping[str, Any]) -> list[str]:
    """Return the faults in the values of options, one text for each wrong option.

    `options` must have a value for each known option, its default if it is not set.
    """
    faults = []
    gets_one_lineage = names_one_lineage(options)
    for name, option in known.items():
        value = options[name]
        if option.default is None and not value:
            faults.append(f"{name} is missing: {option.meaning}")
        elif not option.rule.accepts(value):
            faults.append(f"{name} is not valid: it must be {option.rule.must_be}")
        elif option.is_own_file and not gets_one_lineage and is_shared_path(value):
            faults.append(
                f"{name} is the same file for all certificates: add {{lineage}} to the path, "
                "or name exactly one lineage in lineages"
            )
    return faults


def is_shared_path(path: str) -> bool:
    """Return whether a path is the same for all lineages; an empty one is none."""
    return bool(path) and "{lineage}" not in path


def names_one_lineage(options: Mapping[str, Any]) -> bool:
    """Return whether a target gets one lineage at most: `lineages` is one name, no pattern."""
    lineages = options["lineages"]
    if not is_list_of_texts(lineages) or len(lineages) != 1 or options["names"]:
        return False
    return not set("*?[").intersection(lineages[0])


# ---- Lineages ----------------------------------------------------------------------------------
PEM_PARTS = ("cert", "chain", "fullchain", "privkey")

# Matches the first certificate of a PEM text, from its BEGIN line to its END line.
FIRST_CERTIFICATE = re.compile(
    r"""
    -----BEGIN [ ] CERTIFICATE-----
    .*?
    -----END [ ] CERTIFICATE----- \n?
    """,
    re.VERBOSE | re.DOTALL,
)


def is_lineage_name(name: str) -> bool:
    """Return whether a name can be that of a lineage, and of its folder in live/."""
    return name.isprintable() and "/" not in name and not name.startswith(".")


class Lineage(NamedTuple):
    """The current certificate of a lineage, with its key.

    `live_folder` is the lineage's folder in live/. `not_before`, `not_after`: Unix seconds. `der`
    is the certificate without its chain. `pem` has the text of cert, chain, fullchain and privkey.
    """

    name: str
    live_folder: str
    names: list[str]
    not_before: int
    not_after: int
    der: bytes
    pem: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hexadecimal."""
        return hashlib.sha256(self.der).hexdigest()


def read_lineage(live_folder: str) -> Lineage:
    """Return the lineage in a folder of live/.

    Raise a DeliverError if it cannot be read, or if its key belongs to another certificate: no
    target may get such a pair.
    """
    name = os.path.basename(live_folder)
    paths = {part: os.path.join(live_folder, f"{part}.pem") for part in PEM_PARTS}
    try:
        pem = {part: read_bytes_as_text(path) for part, path in paths.items()}
        der = ssl.PEM_cert_to_DER_cert(first_certificate(pem["fullchain"]))
        decoded = hook.decode_certificate(paths["fullchain"])
        require_matching_key(paths["fullchain"], paths["privkey"])
    except (OSError, ValueError) as error:
        is_damaged = isinstance(error, (ssl.SSLError, ValueError))  # SSLError is an OSError
        reason = getattr(error, "strerror", "")
        if is_damaged:
            reason = "the key does not match the certificate, or a file is damaged"
        path = getattr(error, "filename", None) or paths["fullchain"]
        raise DeliverError(
            f"{name}: {path}: {reason}: check it as root with: certbot certificates"
        ) from None
    return Lineage(name, live_folder, *decoded, der, pem)


def require_matching_key(certificate_path: str, key_path: str) -> None:
    """Raise OSError if a key does not belong to a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")  # the CA decides whether a key is long enough
    context.load_cert_chain(certificate_path, key_path, password=lambda: "")  # never ask for one


def first_certificate(pem: str) -> str:
    """Return the first certificate of a PEM text; raise ValueError if there is none."""
    match = FIRST_CERTIFICATE.search(pem)
    if match is None:
        raise ValueError("no certificate")
    return match[0]


def decode_pem(pem: str) -> hook.DecodedCertificate:
    """Decode the first certificate of a PEM text; raise ValueError if there is none."""
    # The standard library decodes files only.
    with NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(first_certificate(pem))
        file.flush()
        try:
            return hook.decode_certificate(file.name)
        except ssl.SSLError as error:
            raise ValueError(str(error)) from None


# ---- Deadlines ---------------------------------------------------------------------------------
class Deadline:
    """The moment at which the delivery of one lineage to one target must be complete.

    A target that is slow, but not down, may hold certbot up for its timeout with each lineage. A
    deadline is enforced twice. Each step that waits (a connection, a program) waits at most for
    `seconds_left`, so that it can say what did not answer. The deliver hook also leaves a delivery
    alone half a second after the deadline.
    """

    def __init__(self, seconds: float) -> None:
        """Set the deadline; `seconds` counts from now."""
        self.moment = time.monotonic() + seconds

    def seconds_left(self) -> float:
        """Return the seconds until the deadline, but at least 0.05: no step fails untried."""
        return max(self.moment - time.monotonic(), 0.05)

    def has_passed(self) -> bool:
        """Return whether the deadline is over."""
        return time.monotonic() > self.moment


# ---- Targets -----------------------------------------------------------------------------------
# Paths go through the command lines of HAProxy and sftp, which do not quote all characters alike.
PATH_CHARACTERS = re.compile(r"[\w./@%+=:,~-]+")


class Attempt(NamedTuple):
    """One attempt to deliver a lineage to a target, or to look what would be delivered.

    `recorded` is what the state file says of the target and the lineage. `record_start` records in
    the state file that a change begins: if the run is killed then, the next run knows it.
    """

    lineage: Lineage
    recorded: hook.Delivery
    deadline: Deadline
    record_start: Callable[[], None]


class Target(ABC):
    """A place to which certificates are delivered. Each kind has a class of its own.

    `slots` limits how many targets of one table are served at the same time: they share it.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(
        self, name: str, options: Mapping[str, Any], slots: Semaphore | None = None
    ) -> None:
        """`options` has a value, already checked, for each option of the kind."""
        self.name = name
        self.options = options
        self.slots = slots or Semaphore()

    @classmethod
    def table_faults(cls, options: Mapping[str, Any]) -> list[str]:
        """Return the other faults of a table, after each option has passed its own rule."""
        return []

    @classmethod
    def of_table(cls, name: str, options: Mapping[str, Any]) -> Sequence[Target]:
        """Return the targets of one table: one, unless the kind has several in a table."""
        return [cls(name, options)]

    @abstractmethod
    def look(self, attempt: Attempt) -> str:
        """Return in words what would be delivered; change nothing.

        "" means that the target has the certificate. If it keeps a newer one, the words say so.
        Raise a DeliverError if a delivery would fail.
        """

    @abstractmethod
    def deliver(self, attempt: Attempt) -> str:
        """Deliver a certificate; return in words what was done.

        "" means that the target had the certificate. If it keeps a newer one, the words say so.
        Raise a DeliverError if the delivery fails; another attempt must be able to go on then.
        """

    def wants(self, lineage: Lineage) -> bool:
        """Return whether the target should get a lineage."""
        lineage_patterns = self.options["lineages"]
        name_patterns = self.options["names"]
        if not lineage_patterns and not name_patterns:
            return True
        if matches_any(lineage.name, lineage_patterns):
            return True
        return any(matches_any(name, name_patterns) for name in lineage.names)

    def path(self, option: str, lineage: Lineage) -> str:
        """Return the path in an option, for a lineage; "" if it is not set."""
        path = str(self.options[option]).replace("{lineage}", lineage.name)
        if path and not PATH_CHARACTERS.fullmatch(path):
            raise DeliverError(f"{option} is {path!a}: use only letters, digits and _./@%+=:,~-")
        return path


class Restored(NamedTuple):
    """The names of the restored entries, and the problems of other entries."""

    names: list[str]
    problems: list[str]


class RestorableTarget(Target):
    """A target that can give back what was delivered to it."""

    @abstractmethod
    def restore(self, folder: str) -> Restored:
        """Rebuild certbot's configuration folder; keep lineages that are as new there, or newer."""


def matches_any(text: str, patterns: Sequence[str]) -> bool:
    """Return whether a text matches one of the patterns, in which * stands for anything."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


# ---- Programs ----------------------------------------------------------------------------------
STATUS_UNREACHABLE = 255  # ssh and sftp: the host cannot be reached, or refuses the login

# What to do about an error message of ssh or sftp. The first that matches; "": nothing is known.
REMEDIES = (
    hook.Remedy(
        r"HAS CHANGED", "find out why the host key changed before you replace it in known_hosts"
    ),
    hook.Remedy(
        r"Host key verification", "add the key of this host to known_hosts of certbot's user"
    ),
    hook.Remedy(
        r"Permission denied \(", "add the key of certbot's user to authorized_keys on this host"
    ),
    hook.Remedy(
        r"connect to host", "check that sshd is running on this host and that hosts is correct"
    ),
    hook.Remedy(r"", ""),
)


def run_program(
    command: Sequence[str],
    input_text: str,
    deadline: Deadline,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Run a program with a text on stdin; return what it prints on stdout.

    Raise a DeliverError if it fails. Raise a TargetDownError if it cannot be started, if it cannot
    reach its host, or if it does not end in time: then it is killed with its children.
    """
    # Files, not pipes: a child that goes on running would keep a pipe open.
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(input_text.encode())
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                env=environ,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise TargetDownError(
                f"{command[0]}: {reason}: install it, or make it executable"
            ) from None

        wait_or_kill(process, command[0], deadline)
        stdout.seek(0)
        stderr.seek(0)
        output = stdout.read().decode("utf-8", "replace")
        errors = stderr.read().decode("utf-8", "replace")
    if process.returncode:
        raise program_error(command[0], process.returncode, output, errors)
    return output


def wait_or_kill(process: subprocess.Popen[bytes], name: str, deadline: Deadline) -> None:
    """Wait until a program ends; at the deadline kill it, and raise a TargetDownError."""
    try:
        process.wait(deadline.seconds_left())
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session, so its children too
        process.wait()
        raise TargetDownError(f"{name} did not end in time: check why, or raise timeout") from None


def last_lines(output: str) -> str:
    """Return the last three lines of an output that are not empty, as one line."""
    lines = [line for line in output.splitlines() if line.strip()]
    return hook.shortened(" ".join(lines[-3:]))


def program_error(name: str, status: int, output: str, errors: str) -> DeliverError:
    """Return the error of a program that failed: its last lines, and a remedy if one is known."""
    reason = last_lines(errors) or last_lines(output) or "no output"
    text = f"{name} ended with status {status}: {reason}"
    remedy = hook.remedy_for(errors, REMEDIES)
    if remedy:
        text += f": {remedy}"
    if status == STATUS_UNREACHABLE:
        return TargetDownError(text)
    return DeliverError(text)


# ---- Files -------------------------------------------------------------------------------------
def read_bytes_as_text(path: str) -> str:
    """Return any file as text; raise OSError if it cannot be read, or is a pipe or a device.

    Bytes that are not UTF-8 become surrogates, which `replace_file` writes as the same bytes. Only
    line ends change: all become \\n.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", opener=hook.open_regular) as file:
        return file.read()


def replace_file(path: str, text: str, mode: int = 0o600) -> None:
    """Write a file beside the old one and move it into place; raise OSError if that fails.

    At any time, the file is the old one or the new one. An old file keeps its mode and owner. A new
    file has the given mode, and belongs to the owner of its folder.
    """
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    try:
        owner = os.stat(path)
        mode = stat.S_IMODE(owner.st_mode)
    except FileNotFoundError:
        owner = os.stat(folder)

    # HAProxy loads every file of a folder at its start, but none that ends in .key.
    new_path = os.path.join(folder, f".{name}.new.key")
    remove_file(new_path)
    try:
        write_new_file(new_path, text, owner, mode)
        os.replace(new_path, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new_path)
        raise


def write_new_file(path: str, text: str, owner: os.stat_result, mode: int) -> None:
    """Write a new file to the disk; until it has its owner, nobody else may read it."""

    def open_new(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_EXCL, 0o600)

    with open(path, "w", encoding="utf-8", errors="surrogateescape", opener=open_new) as file:
        file.write(text)
        file.flush()
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def remove_file(path: str) -> None:
    """Remove a file if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
