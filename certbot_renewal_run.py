#!/usr/bin/env python3
"""Sends run reports: all certificates of a host, and the result of certbot's last run.

Copy this file into /etc/letsencrypt/renewal-hooks/post and make it executable. It needs
certbot_renewal_report.py in /etc/letsencrypt/renewal-hooks/deploy, or beside it.

certbot starts this program as a post hook after it has attempted a renewal. The post hook reports
the certificates and the failed renewals. A timer, cron or a container starts this program with
--all after every run of certbot. That is the run report: it proves that certbot runs, it finds
retired certificates, and it checks which certificates are served.

The program runs as root. It trusts certbot's configuration folder, which belongs to root, and its
environment. It does not trust the answers of servers.
"""

from __future__ import annotations

import argparse
import ast
import binascii
import calendar
import contextlib
import errno
import gc
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Union

# The report hook is beside this file, or in ../deploy if this file is installed in
# renewal-hooks/post. Python itself looks in the folder to which a symbolic link leads. The user who
# installed this file owns all these folders.
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(HERE)
if os.path.basename(HERE) == "post":
    sys.path.append(os.path.join(os.path.dirname(HERE), "deploy"))

__version__ = "0.1.0"

NAME = "certbot_renewal_run"

try:
    import certbot_renewal_report as hook
except ModuleNotFoundError as error:
    if error.name != "certbot_renewal_report":
        raise
    hooks = os.path.dirname(HERE)
    right_folder = HERE
    if os.path.basename(hooks) == "renewal-hooks":
        right_folder = os.path.join(hooks, "deploy")  # in another one it would be the wrong hook
    sys.exit(f"{NAME}: certbot_renewal_report.py is missing: copy it to {right_folder}")
except SyntaxError as error:
    sys.exit(f"{NAME}: {error.filename} is damaged: copy it again from the same release")
if getattr(hook, "__version__", "") != __version__:
    sys.exit(
        f"{NAME}: {hook.__file__} is version {getattr(hook, '__version__', 'unknown')}, "
        f"{NAME}.py is version {__version__}: copy both from the same release"
    )

TURN_FILE = "certbot_renewal_report.turn"


# ---- certbot's log -----------------------------------------------------------------------------
# certbot tells no hook what was due, what failed and why, but it writes all of it into its log.
# The program trusts the log, and the cli.ini that names its folder: both belong to root.
RENEWED = "renewed"
NOT_DUE = "not due"
FAILED = "failed"
UNREADABLE = "unreadable"
NOT_PROCESSED = "not processed"

LOG_NAME = "letsencrypt.log"
DEFAULT_LOGS_FOLDER = "/var/log/letsencrypt"
MOST_LOG_FILES = 20
MOST_LOG_BYTES = 4 * 1024 * 1024  # of each file, from its end
MOST_UNPACKED_BYTES = 256 * 1024 * 1024  # of a compressed file
LOG_CHUNK_BYTES = 256 * 1024
GZIP_FORMAT = 31  # of zlib.decompressobj
LONGEST_ARGUMENTS = 100_000  # characters
LONGEST_MESSAGE = 20_000  # characters: a reason is made of no more
MOST_NAMES_SHOWN = 3  # of those that the CA refused for the same reason
FEWEST_DIGITS_OF_RANDOM = 5  # in a long word that is all lower or all upper case
LONGEST_SILENCE = 3600  # seconds: a certbot that has written nothing for so long has ended
CLOCK_CHANGE = 2 * 3600  # seconds: in autumn, local time jumps back

RUN_START = ":DEBUG:certbot._internal.main:certbot version: "
TIME_LENGTH = len("2026-11-27 18:06:39,159")
LOCKED = "Another instance of Certbot is already running."
LOCK_ERROR = f":ERROR:certbot._internal.log:{LOCKED}"
KILLED = "certbot ended without a summary: it was killed, or the host stopped"
NO_REASON = "the reason is not in the part of the log that was read"

# Matches: letsencrypt.log.1, letsencrypt.log.2.gz, letsencrypt.log-20261127.gz (dateext)
LOG_FILE = re.compile(
    r"""
    letsencrypt\.log
    (?: \. (?P<number>\d{1,6}) | - (?P<date>\d{8}(?:-\d+)?) )?
    (?P<gz>\.gz)?
    """,
    re.VERBOSE | re.ASCII,
)

# Matches: 2026-11-27 18:06:39,159:DEBUG:certbot._internal.main:certbot version: 5.8.0
LOG_RECORD = re.compile(
    r"""
    (?P<time>\d{4}-\d\d-\d\d\ \d\d:\d\d:\d\d,\d{3})
    : (?P<level>[A-Z]+)
    : (?P<logger>[\w.]+)
    : (?P<text>.*)
    """,
    re.VERBOSE | re.ASCII,
)

# Matches: certbot version: 5.8.0
CERTBOT_VERSION = re.compile(r"certbot version: (?P<version>\d[\w.+-]{0,30})", re.ASCII)

# Matches the beginning of such a line, where the line before it is not whole.
FIRST_RECORD = re.compile(r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}:", re.ASCII | re.MULTILINE)

# certbot breaks this line where it is longer than 80 characters. Matches:
# Processing /etc/letsencrypt/renewal/example.com.conf
PROCESSING = re.compile(r"Processing\s+(?P<path>/.*\.conf)\s*", re.DOTALL)

# Matches: Failed to renew certificate example.com with error: Some challenges have failed.
FAILED_RENEWAL = re.compile(
    r"""
    Failed\ to\ renew\ certificate\ (?P<lineage>[^/\x00-\x1f\x7f]{1,250}?)
    \ with\ error:\ (?P<error>.*)
    """,
    re.VERBOSE | re.DOTALL,
)

# Matches: No renewals were attempted.
SUMMARY = re.compile(
    r"""
    \s*
    (?: The\ following\ certificates\ are\ not\ due
    |   No\ (?:simulated\ )?renewals\ were\ attempted
    |   Congratulations,\ all\ (?:simulated\ )?renewals\ succeeded
    |   All\ (?:simulated\ )?renewals\ failed
    |   The\ following\ (?:simulated\ )?renewals\ (?:succeeded|failed)
    |   Additionally,\ the\ following\ renewal\ configurations
    )
    """,
    re.VERBOSE,
)

# Matches: /etc/letsencrypt/live/example.com/fullchain.pem expires on 2027-02-25 (skipped)
SUMMARY_LINE = re.compile(
    r"""
    \s* (?P<path>\S.*?)
    (?: \ expires\ on\ [\d-]+ )?
    \ \( (?P<ending>success|failure|skipped|parsefail) \) \s*
    """,
    re.VERBOSE | re.ASCII,
)
# certbot takes any name that is a file name.
LINEAGE_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,250}")
RESULTS = {"success": RENEWED, "failure": FAILED, "skipped": NOT_DUE, "parsefail": UNREADABLE}

# Matches: 1 renew failure(s), 2 parse failure(s)
COUNTED_FAILURES = re.compile(r"\d+ renew failure\(s\), \d+ parse failure\(s\)", re.ASCII)

# Matches: File "/usr/lib/python3/dist-packages/certbot/_internal/main.py", line 1639, in renew
VERB_FRAME = re.compile(
    r"""
    certbot/_internal/main\.py", \ line\ \d+, \ in\ (?P<function>\w+)
    """,
    re.VERBOSE | re.ASCII,
)
# The functions of certbot's main.py that run before the one of the verb.
FUNCTIONS_BEFORE_VERB = {"main", "make_or_verify_needed_dirs"}

# One refusal of the CA. certbot 5 writes Identifier, older ones write Domain. Matches:
#   Domain: www.example.com
#   Type:   unauthorized
#   Detail: No TXT records found for DNS challenge
REFUSAL = re.compile(
    r"""
    ^[ ]* (?:Domain|Identifier): [ ]* (?P<name>\S+) [ ]* \n
    [ ]* Type: [ ]* (?P<type>\S*) [ ]* \n
    [ ]* Detail: [ ]* (?P<detail>.+?) [ ]* (?=\n[ ]*\n|\Z)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)

# Matches: Hook 'deploy-hook' reported error code 3
HOOK_ERROR = re.compile(r"Hook '[\w -]+' .{0,300}?reported error code -?\d+", re.ASCII)

# Matches: "suggestedWindow": {"start": "2027-01-26T04:55:54Z", "end": "2027-01-28T04:55:54Z"}
SUGGESTED_WINDOW = re.compile(r'"suggestedWindow"\s*:\s*\{(?P<members>[^{}]{1,1000})\}')
WINDOW_MEMBER = re.compile(r'"(?P<name>start|end)"\s*:\s*"(?P<time>[^"]+)"')

# Matches: 2027-01-26T04:55:54.123Z, 2027-01-26T05:55:54+01:00 (RFC 3339)
RFC3339_TIME = re.compile(
    r"""
    (?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)
    [Tt\ ]
    (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d) (?:\.\d+)?
    (?: [Zz] | (?P<sign>[+-])(?P<hours>\d\d):(?P<minutes>\d\d) )
    """,
    re.VERBOSE | re.ASCII,
)

# Matches: logs-dir = /var/log/certbot
INI_OPTION = re.compile(
    r"""
    (?:--)? logs-dir (?: \s*[:=]\s* | \s+ )
    (?P<quote>["']?) (?P<value>.+?) (?P=quote)
    \s* (?: \s[;\#].* )?
    """,
    re.VERBOSE,
)


class LineageResult(NamedTuple):
    """What a run of certbot did with a lineage.

    `result` is RENEWED, NOT_DUE, FAILED, UNREADABLE or NOT_PROCESSED (certbot ended too early).
    `reason` is why, in the words of certbot and the CA, on one line of at most 400 characters and
    without secrets; "" if there is none. `window` is the time in which the CA wants the renewal
    (ARI), its start and end in Unix seconds; None if this run did not ask for it.
    """

    result: str
    reason: str
    window: tuple[int, int] | None


class CertbotRun(NamedTuple):
    """One run of `certbot renew`, as certbot's log describes it.

    `position` finds the run again: the time in its first line, as the log has it. `started_at` and
    `ended_at` are Unix seconds by this host's clock. `version` is certbot's, "" if not known.
    `mode` is `renew`, with the options that choose lineages. A run that is not finished may still
    be going on. `results` are by lineage, in the log's order. `failure` is why the run as a whole
    failed, "" if it did not. `is_locked`: another certbot was running, so this one did nothing.
    """

    position: str
    started_at: int
    ended_at: int
    version: str
    mode: str
    is_dry_run: bool
    is_finished: bool
    results: dict[str, LineageResult]
    failure: str
    is_locked: bool


class CertbotLog(NamedTuple):
    """The runs that were asked for, the oldest first.

    `problem` says why the log could not be read, and what to do; "" if it could. `current_run` is
    the run of the newest command in the log, to which a hook belongs that certbot starts; None if
    its verb is not `renew`.
    """

    runs: list[CertbotRun]
    problem: str
    current_run: CertbotRun | None = None


class LogPart(NamedTuple):
    """The part of a log file that one certbot command wrote.

    `has_start` is False if the beginning is missing: the command wrote more than is read.
    `may_go_on` is True if the file was written to a short time ago.
    """

    text: str
    has_start: bool
    may_go_on: bool

    @property
    def position(self) -> str:
        """Return the time text of the first line."""
        return self.text[:TIME_LENGTH]

    @property
    def is_locked(self) -> bool:
        """Whether another certbot was running."""
        return LOCK_ERROR in self.text


class LogRecord(NamedTuple):
    """One message in the log; its text may have several lines."""

    time: str
    level: str
    logger: str
    text: str


def logs_folder(option: str, folder: str, environ: Mapping[str, str]) -> str:
    """Return the folder of certbot's log.

    `option` is --logs-dir of this program, "" if it is not given. Otherwise the folder is logs-dir
    of a cli.ini. certbot reads two of them, and the one in the home folder takes precedence.
    """
    if option:
        return os.path.abspath(option)

    home = environ.get("HOME") or os.path.expanduser("~")
    config_home = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    for path in (
        os.path.join(config_home, "letsencrypt", "cli.ini"),
        os.path.join(folder, "cli.ini"),
    ):
        logs_dir = logs_dir_of(hook.read_text(path, [], may_be_missing=True))
        if logs_dir:
            return os.path.abspath(logs_dir)
    return DEFAULT_LOGS_FOLDER


def logs_dir_of(cli_ini: str) -> str:
    """Return logs-dir in the text of a cli.ini, "" if it is not set. The last one counts."""
    logs_dir = ""
    for line in cli_ini.splitlines():
        match = INI_OPTION.fullmatch(line.strip())
        if match is not None:
            logs_dir = match["value"]
    return logs_dir


def read_certbot_log(logs_dir: str, after: str, now: int) -> CertbotLog:
    """Return the runs of `certbot renew` after the position `after`; with "", only the newest.

    It reads at most the newest 20 files, and 4 MiB of each, from the end. It reads no more files
    than it needs. If the run at the position is not in the log any more, its time decides. `now` is
    the time in Unix seconds.
    """
    problems: list[str] = []
    after_at = unix_time_of(after, now)
    is_after_found = False
    current_run = None
    runs: list[CertbotRun] = []  # the newest first
    has_newest = False
    for part in log_parts(logs_dir, now, problems):
        is_newest = not has_newest and not part.is_locked
        run = parse_run(part, is_newest and part.may_go_on, now)
        if is_newest:
            has_newest = True
            current_run = run

        is_after_found = part.position == after
        if is_after_found or unix_time_of(part.position, now) < after_at - CLOCK_CHANGE:
            break
        if run is not None:
            runs.append(run)
            if not after:
                break

    if not is_after_found:
        runs = [run for run in runs if run.started_at > after_at]
    runs.reverse()
    return CertbotLog(runs, problems[0] if problems else "", current_run)


def log_parts(logs_dir: str, now: int, problems: list[str]) -> Iterator[LogPart]:
    """Yield what each certbot command wrote into the log, the newest first."""
    for path in log_paths(logs_dir, problems)[:MOST_LOG_FILES]:
        yield from reversed(read_log_parts(path, now, problems))


def log_paths(logs_dir: str, problems: list[str]) -> list[str]:
    """Return the paths of the log and of older ones, the newest first."""
    try:
        names = os.listdir(logs_dir)
    except OSError as error:
        problems.append(log_problem(logs_dir, error))
        return []

    numbered = []
    dated = []
    for name in names:
        match = LOG_FILE.fullmatch(name)
        if match is None:
            continue
        if match["date"]:
            dated.append((match["date"], name))
        else:
            numbered.append((int(match["number"] or 0), name))
    newest_first = [name for _, name in sorted(numbered)]
    newest_first += [name for _, name in sorted(dated, reverse=True)]
    if not newest_first:
        missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        problems.append(log_problem(os.path.join(logs_dir, LOG_NAME), missing))
    return [os.path.join(logs_dir, name) for name in newest_first]


def log_problem(path: str, error: OSError) -> str:
    """Return why a log cannot be read, and what to do."""
    reason = error.strerror or type(error).__name__
    remedy = "share the folder with the container, or name it with --logs-dir"
    if isinstance(error, PermissionError):
        remedy = "run as root, or let this user read certbot's log"
    elif not isinstance(error, FileNotFoundError):
        remedy = "name the folder of certbot's log with --logs-dir"
    return hook.shortened(f"{path}: {reason}: {remedy}")


def read_log_parts(path: str, now: int, problems: list[str]) -> list[LogPart]:
    """Return what certbot commands wrote into a file, the oldest first."""
    try:
        with open(path, "rb", opener=hook.open_regular) as file:
            written_at = os.fstat(file.fileno()).st_mtime
            content = read_end_unpacked(file) if path.endswith(".gz") else read_end(file)
    except FileNotFoundError:
        return []  # certbot has just moved it
    except OSError as error:
        problems.append(log_problem(path, error))
        return []
    may_go_on = abs(now - written_at) < LONGEST_SILENCE
    return split_log(content.decode("utf-8", errors="replace"), may_go_on)


def read_end(file: BinaryIO) -> bytes:
    """Return the last 4 MiB of a file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MOST_LOG_BYTES))
    return file.read(MOST_LOG_BYTES)


def read_end_unpacked(file: BinaryIO) -> bytes:
    """Return the last 4 MiB of a file that gzip has compressed; of a damaged one, what can be read.

    Of a file that is absurdly large, only the beginning is unpacked.
    """
    unpacker = zlib.decompressobj(wbits=GZIP_FORMAT)
    end = bytearray()
    unpacked_bytes = 0
    with contextlib.suppress(zlib.error):
        while not unpacker.eof and unpacked_bytes < MOST_UNPACKED_BYTES:
            packed = unpacker.unconsumed_tail or file.read(LOG_CHUNK_BYTES)
            if not packed:
                break
            chunk = unpacker.decompress(packed, LOG_CHUNK_BYTES)
            unpacked_bytes += len(chunk)
            end += chunk
            if len(end) > 2 * MOST_LOG_BYTES:
                del end[:-MOST_LOG_BYTES]
    return bytes(end[-MOST_LOG_BYTES:])


def split_log(text: str, may_go_on: bool) -> list[LogPart]:
    """Return the parts of a log's text that each certbot command wrote, the oldest first.

    The text before the first start belongs to a command whose beginning is missing. It only counts
    if there is nothing else: otherwise an earlier report has seen it.
    """
    starts = run_starts(text)
    if not starts:
        first_record = FIRST_RECORD.search(text)
        if first_record is None:
            return []
        return [LogPart(text[first_record.start() :], False, may_go_on)]

    parts: list[LogPart] = []
    for start, end in zip(starts, [*starts[1:], len(text)]):
        part = LogPart(text[start:end], True, may_go_on)
        if part.is_locked and parts:
            # The other certbot still runs. If both have one file, it writes on behind this error.
            own, lock_error, rest = part.text.partition(LOCK_ERROR)
            part = part._replace(text=own + lock_error)
            parts[-1] = parts[-1]._replace(text=parts[-1].text + rest.lstrip("\n"))
        parts.append(part)
    return parts


def run_starts(text: str) -> list[int]:
    """Return where in a log's text certbot commands begin."""
    starts = []
    found_at = text.find(RUN_START)
    while found_at >= 0:
        start = found_at - TIME_LENGTH
        if start == 0 or (start > 0 and text[start - 1] == "\n"):
            starts.append(start)
        found_at = text.find(RUN_START, found_at + 1)
    return starts


def unix_time_of(position: str, now: int) -> int:
    """Return the Unix seconds of a time text in the log, which is local time; 0 if it is none.

    Where the clock is put back, `2026-10-25 02:30:00,159` is the time of two moments. It means the
    later one that is not to come yet.
    """
    try:
        fields = [int(number) for number in re.split("[- :,]", position)[:6]]
        year, month, day, hour, minute, second = fields
        moments = []
        for is_summer_time in (0, 1):
            moment = time.mktime((year, month, day, hour, minute, second, 0, 0, is_summer_time))
            if list(time.localtime(moment)[:6]) == fields:
                moments.append(moment)
        if not moments:  # where the clock is put forward, this time does not exist
            moments.append(time.mktime((year, month, day, hour, minute, second, 0, 0, -1)))
    except (ValueError, OverflowError, OSError):
        return 0
    past_moments = [moment for moment in moments if moment <= now]
    return int(max(past_moments, default=min(moments)))


def log_records(text: str) -> Iterator[LogRecord]:
    """Yield the messages in a log's text. Lines before the first one are left out."""
    match: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        next_match = LOG_RECORD.fullmatch(line) if line[:2] == "20" else None
        if next_match is None:
            lines.append(line)
            continue
        if match is not None:
            yield log_record(match, lines)
        match = next_match
        lines = []
    if match is not None:
        yield log_record(match, lines)


def log_record(match: re.Match[str], further_lines: Sequence[str]) -> LogRecord:
    """Return the message of a first line and the lines behind it."""
    text = "\n".join([match["text"], *further_lines])
    return LogRecord(match["time"], match["level"], match["logger"], text)


def parse_run(part: LogPart, may_go_on: bool, now: int) -> CertbotRun | None:
    """Return the run of `certbot renew` in a part of the log; None if the verb is another one."""
    reader = RunReader(part.has_start)
    for record in log_records(part.text):
        reader.take(record)
    reader.end_lineage(NOT_PROCESSED)
    if not reader.is_renewal:
        return None

    is_finished = reader.has_end or not may_go_on
    failure = without_secrets(" ".join(reader.fatal_errors))
    if is_finished and not reader.has_end and not reader.has_summary:
        failure = KILLED
    started_at = unix_time_of(part.position, now)
    return CertbotRun(
        position=part.position,
        started_at=started_at,
        ended_at=max(started_at, unix_time_of(reader.last_time, now)),
        version=reader.version,
        mode=reader.mode,
        is_dry_run=reader.is_dry_run,
        is_finished=is_finished,
        results=reader.final_results(),
        failure=failure,
        is_locked=reader.is_locked,
    )


class RunReader:
    """Follows the messages of one certbot command.

    certbot says which lineage it processes, then what it does with it, and at the end of a run it
    lists all lineages with their results. A lineage has its name from its renewal configuration:
    its folder in live/ may have another one.
    """

    def __init__(self, has_start: bool) -> None:
        """`has_start`: the beginning of the run is in the log."""
        self.has_start = has_start
        self.version = ""
        self.arguments: list[str] = []
        self.last_time = ""
        self.is_dry_run = False
        self.is_forced = False
        self.is_locked = False
        self.has_summary = False
        self.has_end = False
        self.fatal_errors: list[str] = []
        self.functions: set[str] = set()  # of the traceback of a fatal error
        self.results: dict[str, LineageResult] = {}
        self.listed: dict[str, str] = {}  # result by lineage, from the list at the end
        self.start_lineage("")

    def start_lineage(self, name: str) -> None:
        """certbot processes this lineage now."""
        self.lineage = name
        self.result = ""
        self.errors: list[str] = []
        self.refusals = ""
        self.hook_errors: list[str] = []
        self.window: tuple[int, int] | None = None

    def end_lineage(self, result: str) -> None:
        """certbot is done with the lineage; `result` is its result if certbot has named none."""
        if self.lineage:
            reason = self.reason()
            self.results[self.lineage] = LineageResult(self.result or result, reason, self.window)
        self.start_lineage("")

    def reason(self) -> str:
        """Return why the lineage failed, in certbot's words and those of the CA; "" if it did not.

        For a renewed one, it names the hooks that failed.
        """
        words = [*self.errors, *self.hook_errors]
        if self.refusals:
            words.insert(len(self.errors), f"({refusals_in(self.refusals)})")
        return without_secrets(" ".join(words))

    @property
    def is_renewal(self) -> bool:
        """Whether the command is `certbot renew`.

        certbot does not log its verb. It shows by what the run says, or by the traceback of a fatal
        error. A command that failed earlier, because of a lock for example, is taken for `renew` if
        it got no domain.
        """
        if self.results or self.listed or self.has_summary or "renew" in self.functions:
            return True
        has_failed_early = bool(self.functions) and self.functions <= FUNCTIONS_BEFORE_VERB
        return (self.is_locked or has_failed_early) and not has_domain(self.arguments)

    @property
    def mode(self) -> str:
        """Return `renew` with the options that choose lineages."""
        words = ["renew"]
        if self.is_forced:
            words.append("--force-renewal")
        name = value_of("--cert-name", self.arguments)
        if name:
            words.append(f"--cert-name {hook.shortened(name)}")
        return " ".join(words)

    def final_results(self) -> dict[str, LineageResult]:
        """Return the results by lineage.

        If the beginning of the run is missing, the list at the end has further lineages. There, a
        lineage has the name of its folder.
        """
        results = dict(self.results)
        if not self.has_start:
            self.listed.pop("", None)
            for lineage, result in self.listed.items():
                reason = NO_REASON if result in (FAILED, UNREADABLE) else ""
                results.setdefault(lineage, LineageResult(result, reason, None))
        if self.has_summary and RENEWED not in self.listed.values():
            for lineage, lineage_result in results.items():
                if lineage_result.result == RENEWED:
                    results[lineage] = lineage_result._replace(result=NOT_PROCESSED)
        return results

    def take(self, record: LogRecord) -> None:
        """Note what a message says."""
        self.last_time = record.time
        text = record.text
        if record.logger == "acme.client":
            if "suggestedWindow" in text:
                self.window = suggested_window(text)
        elif text.startswith("Notifying user: "):
            self.take_notice(text[len("Notifying user: ") :])
        elif record.logger.endswith(".renewal"):
            self.take_renewal(record)
        elif record.logger.endswith("._internal.log"):
            self.take_end(record)
        elif record.logger.endswith("._internal.main"):
            self.take_start(text)
        elif "reported error code" in text:
            match = HOOK_ERROR.search(text)
            if match is not None and not self.has_summary:
                self.hook_errors.append(f"{match[0]}.")

    def take_start(self, text: str) -> None:
        """Note the version or the arguments."""
        version = CERTBOT_VERSION.match(text)
        if version is not None:
            self.version = version["version"]
        elif text.startswith("Arguments: "):
            self.arguments = parse_arguments(text[len("Arguments: ") :])
            self.is_dry_run = self.is_dry_run or "--dry-run" in self.arguments

    def take_notice(self, text: str) -> None:
        """Note what certbot says to the user, on the screen or with -q only in the log."""
        processing = PROCESSING.fullmatch(text)
        if processing is not None:
            self.end_lineage(RENEWED)
            self.start_lineage(lineage_of(processing["path"]))
        elif text.startswith("Certificate not yet due for renewal"):
            self.result = NOT_DUE
        elif text.startswith("Simulating renewal"):
            self.is_dry_run = True
        elif "failed to authenticate" in text:
            self.refusals = text
        else:
            self.take_summary(text)

    def take_summary(self, text: str) -> bool:
        """Note the results at the end of a run; return whether the text is about them."""
        if SUMMARY.match(text):
            self.end_lineage(RENEWED)
            self.has_summary = True
            self.is_dry_run = self.is_dry_run or "simulated renewal" in text
            return True
        if not self.has_summary:
            return False

        for line in text.split("\n"):
            match = SUMMARY_LINE.fullmatch(line)
            if match is not None:
                self.listed[lineage_of(match["path"])] = RESULTS[match["ending"]]
        return True

    def take_renewal(self, record: LogRecord) -> None:
        """Note a message about the lineages."""
        text = record.text
        if record.level != "ERROR":
            self.is_forced = self.is_forced or text.startswith("Auto-renewal forced")
            self.is_dry_run = self.is_dry_run or "simulating renewal for dry run" in text
            if text.startswith("no renewal failures"):
                self.has_summary = True
                self.has_end = True
            return
        if self.take_summary(text):
            return

        match = FAILED_RENEWAL.match(text)
        if match is not None:
            self.lineage = self.lineage or match["lineage"]  # if its beginning is missing
            self.result = FAILED
            self.errors = [match["error"]]
            return
        error = without_skipping(text)
        self.errors.append(without_values(error))
        if error != text:
            self.result = UNREADABLE

    def take_end(self, record: LogRecord) -> None:
        """Note a fatal error."""
        text = record.text
        if text.startswith("Exiting abnormally"):
            self.functions.update(match["function"] for match in VERB_FRAME.finditer(text))
        if record.level not in ("ERROR", "CRITICAL"):
            return

        self.has_end = True
        self.is_locked = self.is_locked or text.startswith(LOCKED)
        if COUNTED_FAILURES.match(text):
            self.has_summary = True
        elif text.startswith("Exiting abnormally"):
            self.fatal_errors.append(text.strip().rpartition("\n")[2])
        else:
            self.fatal_errors.append(text)


def lineage_of(path: str) -> str:
    """Return the name of a lineage by the path of its configuration, or of a file in live/.

    Return "" if the path has no such name.
    """
    folder, name = os.path.split(path)
    lineage = name[: -len(".conf")] if name.endswith(".conf") else os.path.basename(folder)
    return lineage if LINEAGE_NAME.fullmatch(lineage) else ""


def parse_arguments(text: str) -> list[str]:
    """Return the arguments of certbot that the log has as a Python list, [] if it is none."""
    try:
        arguments = ast.literal_eval(text[:LONGEST_ARGUMENTS])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(argument) for argument in arguments] if isinstance(arguments, list) else []


def value_of(option: str, arguments: Sequence[str]) -> str:
    """Return the value of an option, `--option value` or `--option=value`; "" without it."""
    value = ""
    for argument, next_argument in zip(arguments, [*arguments[1:], ""]):
        if argument == option:
            value = next_argument
        elif argument.startswith(f"{option}="):
            value = argument[len(option) + 1 :]
    return value


def has_domain(arguments: Sequence[str]) -> bool:
    """Return whether certbot got domains, as for `certonly` and `run`."""
    options = [argument.partition("=")[0] for argument in arguments]
    return not {"-d", "--domain", "--domains", "--csr"}.isdisjoint(options)


def without_skipping(error: str) -> str:
    """Return an error without its end that certbot skips the file."""
    for ending in ("Skipping.", "Skipping the file."):
        if error.rstrip().endswith(ending):
            return error.rstrip()[: -len(ending)].rstrip()
    return error


def without_values(error: str) -> str:
    """Return why certbot cannot read a renewal configuration, without the values in it.

    certbot quotes the whole configuration, which may hold secrets, if a path is missing; and the
    value that is no number.
    """
    error = re.sub(r"(?s)\{.*\}", "{...}", error)
    return re.sub(r"(?s) but found .*", "", error)


def suggested_window(text: str) -> tuple[int, int] | None:
    """Return the window of a CA's renewal information (RFC 9773), None if it is not valid."""
    window = SUGGESTED_WINDOW.search(text)
    if window is None:
        return None
    times = {}
    for member in WINDOW_MEMBER.finditer(window["members"]):
        times[member["name"]] = rfc3339_time(member["time"])
    start, end = times.get("start"), times.get("end")
    if start is None or end is None or end < start:
        return None
    return (start, end)


def rfc3339_time(text: str) -> int | None:
    """Return the Unix seconds of a time in RFC 3339, None if it is none."""
    match = RFC3339_TIME.fullmatch(text.strip())
    if match is None:
        return None
    names = ("year", "month", "day", "hour", "minute", "second")
    year, month, day, hour, minute, second = (int(match[name]) for name in names)
    if not (year > 0 and 1 <= month <= 12):
        return None
    moment = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
    if match["sign"]:
        offset = int(match["hours"]) * 3600 + int(match["minutes"]) * 60
        moment -= offset if match["sign"] == "+" else -offset
    return moment


def refusals_in(text: str) -> str:
    """Return why the CA refused domains: `www.example.com: unauthorized: …; …`.

    Names that were refused for the same reason stand together.
    """
    names_by_reason: dict[str, list[str]] = {}
    for refusal in REFUSAL.finditer(text[:LONGEST_MESSAGE]):
        reason = f"{refusal['type']}: {refusal['detail']}"
        names_by_reason.setdefault(reason, []).append(refusal["name"])

    refusals = []
    for reason, names in names_by_reason.items():
        shown = ", ".join(names[:MOST_NAMES_SHOWN])
        if len(names) > MOST_NAMES_SHOWN:
            shown += f" and {len(names) - MOST_NAMES_SHOWN} more"
        refusals.append(f"{shown}: {reason}")
    return "; ".join(refusals)


# Matches the secret in: https://user:password@example.com/path
URL_PASSWORD = re.compile(r"(?<=://)[^/\s@]{1,500}@")
# Matches the secret in: https://example.com/path?key=secret#fragment
URL_QUERY = re.compile(
    r"""
    (?P<url> :// [^\s?\#"'<>]{1,500} )
    [?\#] [^\s"'<>]*? (?= [).,;:]* (?: [\s"'<>] | $ ) )
    """,
    re.VERBOSE,
)
# Matches the secrets in: /.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17, /acme/acct/123456
SECRET_PATH = re.compile(
    r"""
    (?P<before> / (?: acme-challenge | [\w-]*acc(?:t|ount)s? ) / )
    [^\s/"'<>,;:)\]]+
    """,
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
# Matches the secrets in: password=abc, "token": "abc", X-Auth-Key: abc, Authorization: Bearer abc
NAMED_SECRET = re.compile(
    r"""
    (?P<before>
        (?: passw(?:or)?d | passphrase | secret | token | [-_ ]key | apikey | hmac | \bkid
          | credentials? | authorization | nonce )
        ["']? \s* [:=] \s* ["']?
        (?: (?:bearer|basic) \s+ )?
    )
    [^\s"',;&)]+
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
# A run of the characters of base64 and base64url that may be a token.
LONG_WORD = re.compile(r"[A-Za-z0-9_+=-]{16,}", re.ASCII)
# Matches each of: Connection, HTTPS, failed
CAMEL_CASE_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+", re.ASCII)
SHORTEST_AVERAGE_PART = 3  # letters, of a name in camel case
SHORTEST_KEY = 40  # characters; tokens of ACME have 43, key authorizations 87


def without_secrets(text: str) -> str:
    """Return a message on one line of at most 400 ASCII characters, without secrets.

    Secrets are challenge tokens, key authorizations, account URLs, keys, and passwords in URLs.
    "***" stands in their place. "|" separates reasons in a report, so it becomes "/".
    """
    if len(text) > LONGEST_MESSAGE:
        text = text[:LONGEST_MESSAGE].rpartition(" ")[0]
    text = URL_PASSWORD.sub("***@", text)
    text = URL_QUERY.sub(r"\g<url>", text)
    text = SECRET_PATH.sub(r"\g<before>***", text)
    text = NAMED_SECRET.sub(r"\g<before>***", text)
    text = LONG_WORD.sub(replace_random_word, text)
    return hook.shortened(text.replace("|", "/"))


def replace_random_word(match: re.Match[str]) -> str:
    """Return "***" for a word that looks random, as a token does; otherwise the word.

    Host names, file names and Python's names are no secrets.
    """
    word = match[0]
    letters = re.sub(r"[^A-Za-z]", "", word)
    digit_count = sum(character.isdigit() for character in word)
    if letters.islower() and is_in_host_name(match):
        return word
    if len(word) >= SHORTEST_KEY and "-" not in word:
        return "***"
    if not letters or letters.islower() or letters.isupper():
        return "***" if digit_count >= FEWEST_DIGITS_OF_RANDOM else word
    if digit_count or len(word) >= SHORTEST_KEY:
        return "***"
    parts = CAMEL_CASE_PART.findall(word)
    return "***" if len(letters) < SHORTEST_AVERAGE_PART * len(parts) else word


def is_in_host_name(match: re.Match[str]) -> bool:
    """Return whether a word is a part of a name with dots."""
    before = match.string[max(0, match.start() - 2) : match.start()]
    behind = match.string[match.end() : match.end() + 2]
    return bool(re.fullmatch(r"[a-z0-9]\.", before) or re.fullmatch(r"\.[a-z]", behind))


# ---- certbot's run -----------------------------------------------------------------------------
LOCK_PATIENCE = hook.DAY  # for so long, another running certbot is no failure
LONGEST_INCIDENT_VIEW = 30 * hook.DAY  # flux/failing.flux looks back for so long


def exit_status_of(environ: Mapping[str, str], problems: list[str]) -> int | None:
    """Return certbot's exit status, from EXIT_STATUS; None if it is not known.

    systemd sets it for ExecStopPost: a number, or after a signal its name, here 128 and more.
    """
    text = environ.get("EXIT_STATUS", "").strip()
    statuses = {str(number): number for number in range(256)}
    for signal_ in signal.Signals:
        statuses[signal_.name[len("SIG") :]] = 128 + signal_
    if text and text not in statuses:
        problems.append(
            "EXIT_STATUS is not valid: it must be certbot's exit status, a number "
            f"or the name of a signal (ignored: {text})"
        )
    return statuses.get(text)


def failed_without_log(
    certificates: Sequence[hook.Certificate],
    environ: Mapping[str, str],
    exit_status: int | None,
    now: int,
) -> list[str]:
    """Return the lineages that are due and were not renewed, on a host without certbot's log.

    After a failed run these are all due lineages. For a post hook, certbot gives the names of the
    failed certificates in FAILED_DOMAINS, also after a forced renewal. These are not due.
    """
    failed_names = set(environ.get("FAILED_DOMAINS", "").split())
    failed = []
    for certificate in certificates:
        is_due = certificate.renewal_due <= now
        has_failed = bool(exit_status) or not failed_names.isdisjoint(certificate.names)
        if is_due and has_failed:
            failed.append(certificate.lineage)
    return failed


def apply_log(
    record: hook.HostRecord,
    certificates: Sequence[hook.Certificate],
    runs: Sequence[CertbotRun],
    issued_at: Mapping[str, float],
) -> None:
    """Note in the record what certbot's log says of each lineage, and of the runs as a whole.

    `runs` are those since the last report, the oldest first. `issued_at` says by lineage when the
    present certificate was written to the disk: what a run said before is about its predecessor.
    """
    not_before = {certificate.lineage: certificate.not_before for certificate in certificates}
    for run in runs:
        if run.is_dry_run:
            continue
        record.certbot = run.version or record.certbot
        record.run_failure = run.failure
        if not run.is_locked:
            record.locked_since = 0
        elif not record.locked_since:
            record.locked_since = run.started_at
        for lineage, result in run.results.items():
            if result.result != RENEWED and run.started_at < issued_at.get(lineage, 0):
                continue
            verdict = record.verdicts.get(lineage, hook.Verdict(0))
            if lineage in not_before and verdict.not_before != not_before[lineage]:
                verdict = hook.Verdict(not_before[lineage])
            record.verdicts[lineage] = verdict_after(verdict, result, run.started_at)


def verdict_after(verdict: hook.Verdict, result: LineageResult, started_at: int) -> hook.Verdict:
    """Return the verdict about a lineage after a run of certbot that began at `started_at`."""
    if result.result == NOT_PROCESSED:
        return verdict
    if result.result == UNREADABLE:
        return verdict._replace(unreadable=result.reason, read_at=started_at)
    if result.result == RENEWED:
        return hook.Verdict(verdict.not_before, read_at=started_at)

    verdict = verdict._replace(unreadable="", read_at=started_at)
    is_window_past = result.window is not None and result.window[1] <= started_at
    due_at_once = 0
    if is_window_past:
        due_at_once = verdict.due_at_once or started_at
    if result.result == NOT_DUE:
        return verdict._replace(
            not_due_at=started_at, failed_since=0, failure="", due_at_once=due_at_once
        )
    return verdict._replace(
        failed_since=verdict.failed_since or started_at,
        failure=result.reason,
        due_at_once=due_at_once,
    )


class RunSummary(NamedTuple):
    """What a report says about certbot's runs since the last report.

    `failed` are the lineages whose last attempt failed. `failures` has, by lineage, why it failed
    or cannot be read. `failure` says why the last run failed as a whole, "" if it did not.
    `counts_as_failed`: the failure of the whole run is no other certbot that has just started.
    """

    runs: Sequence[CertbotRun]
    failed: Sequence[str]
    failures: Mapping[str, str]
    failure: str
    counts_as_failed: bool


def summary_of_runs(
    record: hook.HostRecord,
    lineages: hook.Lineages,
    runs: Sequence[CertbotRun],
    failed_without_reason: Sequence[str],
    now: int,
) -> RunSummary:
    """Return what a report says about certbot's runs.

    `failed_without_reason` are the lineages that failed on a host without certbot's log.
    """
    failures = {}
    failed = set(failed_without_reason)
    for certificate in lineages.certificates:
        verdict = record.verdicts.get(certificate.lineage, hook.Verdict(0))
        if verdict.failed_since and verdict.not_before == certificate.not_before:
            failed.add(certificate.lineage)
            failures[certificate.lineage] = verdict.failure
    for lineage, problem in lineages.unreadable.items():
        failures[lineage] = hook.shortened(problem).replace("|", "/")

    failure = record.run_failure
    if not failure and record.exit_status > 0 and not failed and not lineages.unreadable:
        failure = f"certbot exited with status {record.exit_status}"
    is_briefly_locked = record.locked_since > 0 and now - record.locked_since < LOCK_PATIENCE
    real_runs = [run for run in runs if not run.is_dry_run]
    return RunSummary(real_runs, sorted(failed), failures, failure, not is_briefly_locked)


def next_incident(
    incident: hook.Incident, summary: RunSummary, lineages: hook.Lineages, now: int
) -> hook.Incident:
    """Return the incident after a report: its step is higher if a further lineage fails."""
    failing = {*summary.failed, *lineages.unreadable}
    if summary.failure and summary.counts_as_failed:
        failing.add("")
    step = 0
    seen: set[str] = set()
    if failing:
        seen = failing.union(incident.lineages)
        step = incident.step
        if len(seen) > len(incident.lineages):
            step += 1

    highest_step, highest_at = incident.highest_step, incident.highest_at
    if step >= highest_step or highest_at < now - LONGEST_INCIDENT_VIEW:
        highest_step, highest_at = step, now
    return hook.Incident(step, sorted(seen), highest_step, highest_at)


def run_point(
    settings: hook.Settings,
    lineages: hook.Lineages,
    record: hook.HostRecord,
    summary: RunSummary,
) -> hook.Point:
    """Return the point about certbot's runs since the last report."""
    fields: dict[str, hook.FieldValue] = {
        "certificates": len(lineages.certificates),
        "unreadable_count": len(lineages.unreadable),
        "failed_count": len(summary.failed),
        "exit_status": record.exit_status,
        "failing": record.incident.step,
        "steps": record.incident.highest_step,
    }
    if summary.runs:
        started_at = summary.runs[0].started_at
        fields["started_at"] = started_at
        fields["duration"] = max(0, summary.runs[-1].ended_at - started_at)

    results: dict[str, LineageResult] = {}
    for run in summary.runs:
        results.update(run.results)
    texts = {
        "failed": " ".join(summary.failed),
        "unreadable": " ".join(sorted(lineages.unreadable)),
        # Not "renewed": deliveries have an integer of this name, and a field has one type.
        "succeeded": names_with(RENEWED, results),
        "not_due": names_with(NOT_DUE, results),
        "not_processed": names_with(NOT_PROCESSED, results),
        "failures": " | ".join(f"{name}: {why}" for name, why in sorted(summary.failures.items())),
        "failure": hook.shortened(summary.failure),
        "mode": ", ".join(dict.fromkeys(run.mode for run in summary.runs)),
        "certbot": record.certbot,
        "hook": __version__,
    }
    for name, text in texts.items():
        if text:  # Flux 0.196 (InfluxDB 1.12) mixes up rows that have empty strings
            fields[name] = hook.joined_names([text])  # cut to what a field can hold
    return hook.make_point(settings, fields)


def as_run_report(point: hook.Point, now: int) -> hook.Point:
    """Return the run point of a run report: it says that the host is alive."""
    return point._replace(fields={**point.fields, "retired": 0, "reported_at": now})


def names_with(wanted: str, results: Mapping[str, LineageResult]) -> str:
    """Return the lineages with a result, separated by spaces."""
    return " ".join(sorted(name for name, result in results.items() if result.result == wanted))


# ---- Older certificates ------------------------------------------------------------------------
# Matches: /etc/letsencrypt/archive/example.com/cert7.pem
ARCHIVED = re.compile(r"(?P<before>.*cert)(?P<number>\d{1,4})(?P<after>\.pem)")


def older_certificates(
    folder: str, certificates: Sequence[hook.Certificate], problems: list[str]
) -> Iterator[hook.Certificate]:
    """Yield the predecessors that certbot still keeps in archive/, the newest of a lineage first.

    One that cannot be read is added to the problems.
    """
    for certificate in certificates:
        lineage = certificate.lineage
        conf = hook.read_renewal_conf(hook.renewal_conf_path(folder, lineage), [])
        for path in older_paths(hook.certificate_path(folder, lineage, conf)):
            try:
                yield hook.read_certificate(path, lineage, conf)
            except hook.ReportError as error:
                problems.append(f"{error} (this older renewal is not reported)")


def older_paths(current_path: str) -> Iterator[str]:
    """Yield the files of the predecessors of a certificate, the newest first."""
    current = ARCHIVED.fullmatch(os.path.realpath(current_path))
    if current is None:
        return
    for number in range(int(current["number"]) - 1, 0, -1):
        path = f"{current['before']}{number}{current['after']}"
        if os.path.exists(path):
            yield path


def renewals_since(
    folder: str,
    certificates: Sequence[hook.Certificate],
    known: Mapping[str, int],
    problems: list[str],
) -> list[hook.Certificate]:
    """Return the predecessors that began after the known certificate of their lineage.

    `known` has notBefore of the certificate that was reported last, by lineage.
    """
    missed = []
    for certificate in certificates:
        reported = known.get(certificate.lineage, 0)
        if certificate.not_before <= reported:
            continue
        for older in older_certificates(folder, [certificate], problems):
            if older.not_before <= reported:
                break
            missed.append(older)
    return missed


# ---- Served ------------------------------------------------------------------------------------
CONNECT_SECONDS = 5
PARALLEL_LOOKS = 50

VERIFY_RULE = re.compile(hook.VERIFY_WORD, re.VERBOSE)

# The field Validity of a certificate (RFC 5280, 4.1.2.5): notBefore and notAfter, each of them a
# UTCTime 260301000000Z or a GeneralizedTime 20600301000000Z.
DER_VALIDITY = re.compile(
    rb"""
    \x30 .
    (?: \x17 \x0d \d{12} Z | \x18 \x0f \d{14} Z )
    [\x17\x18] . (?P<not_after> \d{12,14} ) Z
    """,
    re.VERBOSE | re.DOTALL,
)

PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END", re.DOTALL)

# The result of a look at an endpoint: the certificate (DER), or in words why there is none.
Look = Union[bytes, str]


class VerifyRule(NamedTuple):
    """One word of VERIFY.

    `lineage` is "" in a rule for all lineages, `host` is "" for each name of a certificate itself,
    `port` is None if the lineage is not to be checked (NAME=none).
    """

    lineage: str
    host: str
    port: int | None


class Endpoint(NamedTuple):
    """Where a certificate should be served: an address, and the name to ask for (SNI)."""

    host: str
    port: int
    server_name: str

    def label(self) -> str:
        """Return the name, and the address if it is not the name's port 443."""
        if (self.host, self.port) == (self.server_name, 443):
            return self.server_name
        return f"{self.server_name}@{self.host}:{self.port}"


def verify_rules(verify: str) -> list[VerifyRule]:
    """Return the rules in the text of VERIFY."""
    rules = []
    for word in verify.split():
        match = VERIFY_RULE.fullmatch(word)
        if match:
            host = (match["host"] or "").strip("[]")
            port = int(match["port"]) if match["port"] else None
            rules.append(VerifyRule(match["lineage"] or "", host, port))
    return rules


def rules_for(lineage: str, rules: Sequence[VerifyRule]) -> list[VerifyRule]:
    """Return the rules that concern a lineage: its own, else the general ones."""
    own_rules = [rule for rule in rules if rule.lineage == lineage]
    general_rules = [rule for rule in rules if not rule.lineage]
    return own_rules or general_rules


def endpoints_of(certificate: hook.Certificate, rules: Sequence[VerifyRule]) -> list[Endpoint]:
    """Return the endpoints at which VERIFY expects this certificate, sorted.

    Wildcard names are left out: no server can be asked for one. An empty list means that VERIFY
    does not concern this certificate.
    """
    server_names = [name for name in certificate.names if not name.startswith("*")]
    endpoints = set()
    for rule in rules_for(certificate.lineage, rules):
        if not rule.port:  # NAME=none, or port 0: do not look
            continue
        for server_name in server_names or [rule.host]:
            if server_name:
                endpoints.add(Endpoint(rule.host or server_name, rule.port, server_name))
    return sorted(endpoints)


def look_at(endpoint: Endpoint) -> Look:
    """Return the certificate (DER) that is served at an endpoint, or why there is none."""
    # Which certificate it is counts, not who has signed it.
    context = ssl._create_unverified_context()
    address = (endpoint.host, endpoint.port)
    try:
        plain = socket.create_connection(address, CONNECT_SECONDS)
        with plain, context.wrap_socket(plain, server_hostname=endpoint.server_name) as connection:
            return connection.getpeercert(True) or "no certificate"
    except (OSError, ValueError, OverflowError) as error:  # OverflowError: a port above 65535
        return hook.root_cause(error)


def look_at_all(endpoints: Iterable[Endpoint]) -> dict[Endpoint, Look]:
    """Look at many endpoints at the same time, within a deadline; return what each look found."""
    waiting = sorted(set(endpoints))
    looks: dict[Endpoint, Look] = dict.fromkeys(waiting, "no answer")
    queue = iter(waiting)

    def work() -> None:
        for endpoint in queue:
            looks[endpoint] = look_at(endpoint)

    workers = []
    for _ in waiting[:PARALLEL_LOOKS]:
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        workers.append(worker)

    rounds = 2 + len(waiting) // PARALLEL_LOOKS
    deadline = time.monotonic() + rounds * CONNECT_SECONDS
    for worker in workers:
        worker.join(max(deadline - time.monotonic(), 0.0))
    return dict(looks)  # a copy: a late worker may still write


def certificates_by_der(
    folder: str, certificates: Sequence[hook.Certificate], problems: list[str]
) -> dict[bytes, hook.Certificate]:
    """Return the certificates on disk by their DER."""
    by_der = {}
    for certificate in certificates:
        path = hook.current_certificate_path(folder, certificate.lineage)
        for pem in PEM_CERTIFICATE.findall(hook.read_text(path, problems)):
            by_der[binascii.a2b_base64(pem)] = certificate
    return by_der


def is_served_correctly(on_disk: hook.Certificate | None, lineage: str, server_name: str) -> bool:
    """Return whether the served certificate is the lineage's, or another one for the name.

    `on_disk` is the certificate that is served, None if it is not on disk. A name may have two
    certificates: one of another lineage is correct if it holds the name, perhaps by a wildcard.
    """
    if on_disk is None:
        return False
    wildcard = f"*.{server_name.partition('.')[2]}"
    holds_name = server_name in on_disk.names or wildcard in on_disk.names
    return on_disk.lineage == lineage or holds_name


def expiry_of(der: bytes) -> int:
    """Return notAfter of a certificate (DER) in Unix seconds, 0 if it has none."""
    match = DER_VALIDITY.search(der)
    if match is None:
        return 0
    text = match["not_after"].decode()
    if len(text) == 12:  # two digits of the year: 50 to 99 are 1950 to 1999 (RFC 5280)
        century = "20" if int(text[:2]) < 50 else "19"
        text = century + text
    try:
        return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%S"))
    except ValueError:
        return 0


def served_certificates(
    settings: hook.Settings,
    folder: str,
    lineages: hook.Lineages,
    problems: list[str],
    now: int,
) -> dict[str, hook.Served]:
    """Look at each lineage that VERIFY concerns; return what is served of it, by lineage."""
    rules = verify_rules(settings.verify)
    unknown = sorted({rule.lineage for rule in rules if rule.lineage} - lineages.names)
    if unknown:
        problems.append(
            f"VERIFY has rules for {' '.join(unknown)}, but this host has no lineage of that name: "
            "correct VERIFY (certbot certificates lists the lineages)"
        )

    endpoints = {}
    for certificate in lineages.certificates:
        expected = endpoints_of(certificate, rules)
        if expected:
            endpoints[certificate.lineage] = expected
    if not endpoints:
        return {}

    looks = look_at_all(endpoint for expected in endpoints.values() for endpoint in expected)
    by_der = certificates_by_der(folder, lineages.certificates, problems)
    served = {}
    for lineage, expected in endpoints.items():
        own_looks = {endpoint: looks[endpoint] for endpoint in expected}
        served[lineage] = served_state(lineage, own_looks, by_der, problems, now)
    return served


def served_state(
    lineage: str,
    looks: Mapping[Endpoint, Look],
    by_der: Mapping[bytes, hook.Certificate],
    problems: list[str],
    now: int,
) -> hook.Served:
    """Return which certificates are served for a lineage.

    If no endpoint answers, the fields of the last answer stay as they are in the database, and the
    reason is added to the problems.
    """
    answers = 0
    wrong_by_label = {}  # the certificates that should not be served
    for endpoint, look in looks.items():
        if isinstance(look, str):
            continue
        answers += 1
        if not is_served_correctly(by_der.get(look), lineage, endpoint.server_name):
            wrong_by_label[endpoint.label()] = look

    correct = answers - len(wrong_by_label)
    fields: dict[str, hook.FieldValue] = {"looked_at": now, "served": correct}
    if answers:
        fields["seen_at"] = now
        fields["served_expiry"] = min(map(expiry_of, wrong_by_label.values()), default=0)
        fields["not_served"] = hook.joined_names(sorted(wrong_by_label))
    else:
        endpoint, look = next(iter(looks.items()))
        problems.append(
            f"no server answers for {lineage} at {endpoint.host}:{endpoint.port} ({look!s}): "
            f"check the server, correct VERIFY, or add {lineage}=none to VERIFY"
        )

    words = f"{correct} of {len(looks)}"
    if wrong_by_label:
        words += f", another certificate at {' '.join(sorted(wrong_by_label))}"
    return hook.Served(fields, words)


# ---- Retired certificates and hosts ------------------------------------------------------------
def retirement_report(
    settings: hook.Settings, folder: str, lineages: Sequence[str], host: str, now: int
) -> RunReport:
    """Return the report that retires lineages of a host, or without lineages the whole host.

    `host` "": this host. Raise a ReportError if a lineage is still on this host.
    """
    is_this_host = host in ("", settings.host)
    if not is_this_host:
        settings = settings._replace(host=host)
    problems: list[str] = []
    record = hook.KnownFile(folder, settings.host).read(problems)
    if not lineages:
        return host_retirement_report(settings, record, problems, now)

    if is_this_host:
        present = [
            lineage
            for lineage in lineages
            if os.path.exists(hook.renewal_conf_path(folder, lineage))
        ]
        if present:
            raise hook.ReportError(still_present_problem(sorted(present)))
    for lineage in lineages:
        record.verdicts.pop(lineage, None)
        record.retired[lineage] = now
    states = hook.retired_states(settings, lineages, now)
    retired = [f"{lineage} on {settings.host} retired" for lineage in lineages]
    # Of another host nothing is known, unless it shares this folder.
    is_known = is_this_host or bool(record.run_report_at or record.full_report_at)
    return RunReport(hook.Report([], states, "", problems, retired), record if is_known else None)


def host_retirement_report(
    settings: hook.Settings, record: hook.HostRecord, problems: list[str], now: int
) -> RunReport:
    """Return the report that retires a host, and the lineages that are known of it."""
    lineages = sorted({*record.verdicts, *record.retired})
    fields: dict[str, hook.FieldValue] = {
        "certificates": 0,
        "unreadable_count": 0,
        "failed_count": 0,
        "exit_status": -1,
        "failing": 0,
        "steps": record.incident.highest_step,
        "retired": 1,
        "reported_at": 0,
    }
    report = hook.Report(
        renewals=[],
        states=hook.retired_states(settings, lineages, now),
        summary="",
        problems=problems,
        retired=[f"host {settings.host} retired"],
        last=hook.make_point(settings, fields),
    )
    return RunReport(report, removes_record=not record.is_damaged)


def still_present_problem(lineages: Sequence[str]) -> str:
    """Return the problem of lineages that are to be retired, but are on this host."""
    remedies = [
        f"{lineage} is still on this host: delete it with certbot delete --cert-name {lineage}, "
        "or name another host with --host"
        for lineage in lineages
    ]
    return "; ".join(remedies)


# ---- certbot's dry run -------------------------------------------------------------------------
def dry_run_points(settings: hook.Settings, runs: Sequence[CertbotRun]) -> list[hook.Point]:
    """Return the result of each lineage's last dry run, in fields that no renewal has."""
    results: dict[str, LineageResult] = {}
    for run in runs:
        if run.is_dry_run:
            results.update(run.results)

    points = []
    for lineage, result in results.items():
        if result.result in (NOT_DUE, NOT_PROCESSED):
            continue
        has_failed = result.result in (FAILED, UNREADABLE)
        error = "none"
        if has_failed:
            error = result.reason or "no reason in the log"
        fields: dict[str, hook.FieldValue] = {
            "dry_run_failed": int(has_failed),
            "dry_run_error": error,
        }
        points.append(hook.make_point(settings, fields, domain="all", lineage=lineage))
    return points


def dry_run_report(settings: hook.Settings, run: CertbotRun) -> RunReport:
    """Return the report of a dry run: only its results."""
    points = dry_run_points(settings, [run])
    failed = sorted(
        lineage for lineage, result in run.results.items() if result.result in (FAILED, UNREADABLE)
    )
    summary = f"dry run of {hook.counted(len(points), 'certificate')}, {len(failed)} failed"
    if failed:
        summary += f" ({' '.join(failed)})"
    return RunReport(hook.Report([], points, summary, []))


# ---- The run report ----------------------------------------------------------------------------
class RunReport(NamedTuple):
    """A report, and what the known file must say once it is stored.

    `record` None: it does not change, or, with `removes_record`, it has no record of the host any
    more.
    """

    report: hook.Report
    record: hook.HostRecord | None = None
    removes_record: bool = False


class Sources(NamedTuple):
    """What a report is made of beside certbot's folder: the record of this host, certbot's log.

    `problems` concern the known file, which has the record.
    """

    record: hook.HostRecord
    log: CertbotLog
    problems: list[str]


class Reading(NamedTuple):
    """What a report is made of: the lineages, the record of this host, and certbot's runs.

    `known_before` has, by lineage, notBefore of the certificate that was reported last. It is None
    before the first report of the host.
    """

    lineages: hook.Lineages
    record: hook.HostRecord
    runs: list[CertbotRun]
    newly_retired: list[str]
    known_before: dict[str, int] | None


def read_host(folder: str, sources: Sources, now: int) -> Reading:
    """Read the lineages, and bring the record of this host up to date."""
    record, log, problems = sources
    known_before = None
    if record.full_report_at or record.has_run_reports:
        known_before = {name: verdict.not_before for name, verdict in record.verdicts.items()}
    version = next((run.version for run in reversed(log.runs) if run.version), record.certbot)
    lineages = hook.read_lineages(folder, version)
    lineages = lineages._replace(problems=[*lineages.problems, *problems])
    apply_log(record, lineages.certificates, log.runs, issue_times(lineages))
    lineages = hook.judged(folder, lineages, record, now)
    newly_retired = hook.record_lineages(record, folder, lineages, now)
    record_certificates(record, lineages)
    return Reading(lineages, record, log.runs, newly_retired, known_before)


def record_certificates(record: hook.HostRecord, lineages: hook.Lineages) -> None:
    """Note in the record which certificates are reported; a verdict about another one is gone."""
    for certificate in lineages.certificates:
        verdict = record.verdicts.get(certificate.lineage, hook.Verdict(0))
        if verdict.not_before != certificate.not_before:
            record.verdicts[certificate.lineage] = hook.Verdict(
                certificate.not_before, unreadable=verdict.unreadable, read_at=verdict.read_at
            )


def issue_times(lineages: hook.Lineages) -> dict[str, float]:
    """Return by lineage when its present certificate was written to the disk, in Unix seconds."""
    return {name: hook.changed_at(conf.cert) for name, conf in lineages.confs.items()}


def run_report(
    settings: hook.Settings,
    environ: Mapping[str, str],
    folder: str,
    sources: Sources,
    now: int,
    history: bool = False,
) -> RunReport:
    """Return the run report: every certificate, retired ones, missed renewals, certbot's runs.

    With `history`, it has the renewals of all older certificates that are still in archive/.
    """
    reading = read_host(folder, sources, now)
    served_problems: list[str] = []
    served = served_certificates(settings, folder, reading.lineages, served_problems, now)
    record = reading.record
    record.run_report_at = now
    record.full_report_at = now
    finished = [run for run in reading.runs if run.is_finished or environ.get("EXIT_STATUS")]
    if finished:
        record.log_position = finished[-1].position

    report = hook.certificates_report(settings, folder, reading.lineages, now, True, served)
    report.problems.extend(served_problems)
    report = with_run(settings, report, reading, environ, now)
    if report.last is not None:
        report = report._replace(last=as_run_report(report.last, now))

    # With the history, it is as if no renewal had ever been reported.
    known_before = {} if history else reading.known_before
    report = with_missed_renewals(settings, report, folder, reading.lineages, known_before)
    return RunReport(report, record)


def post_hook_report(
    settings: hook.Settings, environ: Mapping[str, str], folder: str, sources: Sources, now: int
) -> RunReport:
    """Return the report of certbot's post hook: every certificate, and the failed renewals.

    certbot starts a post hook only if a renewal was attempted. On other days there is no report, so
    the post hook does not prove that certbot runs: it is not a run report. It does not check which
    certificates are served, because servers restart after the hooks. After a dry run, it reports
    only the results of the dry run.
    """
    current_run = sources.log.current_run
    if current_run is not None and current_run.is_dry_run:
        return dry_run_report(settings, current_run)

    reading = read_host(folder, sources, now)
    record = reading.record
    record.full_report_at = now
    has_run_reports = record.has_run_reports
    report = hook.certificates_report(settings, folder, reading.lineages, now, has_run_reports)
    report = with_run(settings, report, reading, environ, now)
    report = with_missed_renewals(settings, report, folder, reading.lineages, reading.known_before)
    return RunReport(report, record)


def with_run(
    settings: hook.Settings,
    report: hook.Report,
    reading: Reading,
    environ: Mapping[str, str],
    now: int,
) -> hook.Report:
    """Add certbot's runs to a report: the run point, dry runs, retired lineages."""
    lineages, record = reading.lineages, reading.record
    exit_status = exit_status_of(environ, report.problems)
    failed: list[str] = []
    if exit_status is not None:
        record.exit_status = exit_status
        if exit_status == 0:
            record.run_failure = ""
    elif reading.runs or "FAILED_DOMAINS" in environ:
        record.exit_status = -1
    if not reading.runs:  # certbot's log says nothing
        failed = failed_without_log(lineages.certificates, environ, exit_status, now)

    summary = summary_of_runs(record, lineages, reading.runs, failed, now)
    record.incident = next_incident(record.incident, summary, lineages, now)
    run_at = now if record.has_run_reports else 0
    states = [
        *report.states,
        *hook.retired_states(settings, record.retired, run_at),
        *dry_run_points(settings, reading.runs),
    ]
    return report._replace(
        states=states,
        retired=hook.retired_texts(reading.newly_retired),
        last=run_point(settings, lineages, record, summary),
    )


def with_missed_renewals(
    settings: hook.Settings,
    report: hook.Report,
    folder: str,
    lineages: hook.Lineages,
    known: Mapping[str, int] | None,
) -> hook.Report:
    """Add the renewals since the known certificates to a report, before all others.

    `known` has notBefore of the certificate that was reported last, by lineage. None adds nothing:
    the first report of a host starts with the present certificates.
    """
    if known is None:
        return report
    renewals = []
    for older in renewals_since(folder, lineages.certificates, known, report.problems):
        renewals += hook.renewal_points(settings, older)
    return report._replace(renewals=[*renewals, *report.renewals])


def print_report(report: hook.Report) -> None:
    """Print a report for Telegraf's exec input, its times in nanoseconds; raise a ReportError."""
    lines = []
    for point in report.points():
        nanoseconds = "" if point.time is None else "000000000"
        lines.append(f"{hook.line_protocol(point)}{nanoseconds}\n")
    try:
        with open(1, "wb", closefd=False) as stdout:
            stdout.write("".join(lines).encode())
    except OSError as error:
        raise hook.ReportError(
            f"stdout: {error.strerror}: the report was not written, check the program that reads it"
        ) from None


# ---- Waiting for InfluxDB ----------------------------------------------------------------------
FIRST_PAUSE_SECONDS = 1.0  # doubled after each try
LONGEST_PAUSE_SECONDS = 300.0
MOST_PATIENCE_HOURS = 24.0 * 365


class TurnFile:
    """The file with the id of the newest run report, for reports that wait for InfluxDB.

    The newest run report wins: if an older one were stored after it, the older run would look like
    news. So:

    - A run report that may wait (--patience) writes its own id into the file before its first try.
      Before each other try it reads the file. Another id is that of a newer run report, and the
      older one ends in silence.
    - A run report that does not wait, but is about a run of certbot, reads the file before its
      try. The id in it is that of an older report, which may be waiting. If this report is stored,
      and no other report has written its id since, it writes its own, and the older one ends.

    The file may be missing or empty: then no report waits, or a disk is full. A report that waits
    continues in both cases.
    """

    def __init__(self, folder: str) -> None:
        """`folder` is certbot's configuration folder."""
        self.path = os.path.join(folder, TURN_FILE)
        self.own_id = f"{os.getpid()} {time.time()}"

    def read(self) -> str:
        """Return the id of the newest run report, "" if there is none."""
        return hook.read_text(self.path, [], may_be_missing=True)

    def take(self) -> None:
        """Make this run report the newest; do nothing if the file cannot be written."""
        with contextlib.suppress(OSError):  # a full disk, or a pipe: this report still waits
            hook.write_text(self.path, self.own_id)

    def has_newer_report(self) -> bool:
        """Return whether a newer run report has come."""
        return self.read() not in (self.own_id, "")


# ---- Command line ------------------------------------------------------------------------------
class Options(NamedTuple):
    """The options of the command line; without an option: the post hook's report.

    `retire` has the lineages to retire, [] for the whole host, None to retire nothing.
    """

    all: bool
    history: bool
    patience_hours: float
    stdout: bool
    retire: list[str] | None
    host: str
    logs_dir: str
    check: bool
    dry_run: bool
    config_dir: str

    @property
    def is_post_hook(self) -> bool:
        """Whether certbot's post hook is meant."""
        return not (self.all or self.retire is not None or self.check)


class RunReporter:
    """Sends one report, as the command line asks for it, as often as it is tried."""

    def __init__(self, options: Options, environ: hook.Environ, script: str, folder: str) -> None:
        """`script` is the path of this program, `folder` certbot's configuration folder."""
        self.options = options
        self.environ = environ
        self.script = script
        self.folder = folder

    def report(self) -> hook.Outcome:
        """Send the report; while InfluxDB cannot be reached, retry for the time of --patience."""
        is_sent = not (self.options.dry_run or self.options.stdout or self.options.check)
        if not is_sent:
            return self.try_once(is_first=True)
        turn = TurnFile(self.folder)
        if self.options.patience_hours:
            return self.report_patiently(turn)

        is_of_a_run = self.options.all and self.environ.get("EXIT_STATUS")
        older_id = turn.read() if is_of_a_run else ""
        outcome = self.try_once(is_first=True)
        if older_id and outcome.stored and turn.read() == older_id:
            turn.take()
        return outcome

    def report_patiently(self, turn: TurnFile) -> hook.Outcome:
        """Try until the report is stored, a newer report has come, or the time is over.

        Each try reports what is on disk then.
        """
        turn.take()
        pause = FIRST_PAUSE_SECONDS
        until = time.monotonic() + self.options.patience_hours * 3600
        outcome = self.try_once(is_first=True)
        while outcome.retry and time.monotonic() + pause < until:
            time.sleep(pause)
            if turn.has_newer_report():
                return hook.Outcome(stored=False, problems=[])
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            outcome = self.try_once(is_first=False)
        return outcome

    def try_once(self, is_first: bool) -> hook.Outcome:
        """Do once what the command line asks for.

        Only the first try prints warnings about the settings.
        """
        now = int(time.time())
        try:
            if self.options.is_post_hook:
                hook.refuse_wrong_folder(self.script, "post", NAME)
            defaults = os.path.abspath(hook.__file__)  # the table of defaults is in that file
            settings = hook.read_settings(self.environ, self.folder, defaults)
            if self.options.check:
                return hook.Outcome(True, self.check(settings, now))
            report = self.make_report(settings, now)
            return self.send_or_print(settings, report, is_first, now)
        except hook.ReportError as error:
            return hook.Outcome(False, [str(error)])

    def make_report(self, settings: hook.Settings, now: int) -> RunReport:
        """Return the report that the command line asks for; raise a ReportError."""
        options = self.options
        if options.retire is not None:
            return retirement_report(settings, self.folder, options.retire, options.host, now)
        problems: list[str] = []
        record = hook.KnownFile(self.folder, settings.host).read(problems)
        sources = Sources(record, self.read_log(record, now), problems)
        if options.all:
            return run_report(settings, self.environ, self.folder, sources, now, options.history)
        return post_hook_report(settings, self.environ, self.folder, sources, now)

    def read_log(self, record: hook.HostRecord, now: int) -> CertbotLog:
        """Return the certbot runs since the last run report; warn if the log cannot be read."""
        path = logs_folder(self.options.logs_dir, self.folder, self.environ)
        log = read_certbot_log(path, record.log_position, now)
        if log.problem and not self.options.check:
            hook.warn(f"{log.problem} (the report has no reasons of failures)", NAME)
        return log

    def check(self, settings: hook.Settings, now: int) -> list[str]:
        """Prove that run reports arrive; print the findings, return the problems."""
        known = hook.read_known_host(settings, self.folder, now)
        log = self.read_log(known.record, now)
        return check(settings, self.folder, self.script, known, log, now)

    def send_or_print(
        self, settings: hook.Settings, run: RunReport, is_first: bool, now: int
    ) -> hook.Outcome:
        """Send a report, or print it; then the known file says what it has reported."""
        if self.options.dry_run:
            hook.say_points(settings, run.report)
            return hook.Outcome(False, run.report.problems)

        if self.options.stdout:
            print_report(run.report)
            outcome = hook.Outcome(True, run.report.problems)
        else:
            if is_first:
                for text in hook.warnings_of(settings, self.folder):
                    hook.warn(text, NAME)
            outcome = hook.send_report(settings, run.report)
        if outcome.stored:
            known_file = hook.KnownFile(self.folder, self.options.host or settings.host)
            if run.record is not None:
                known_file.write(run.record)
            elif run.removes_record:
                known_file.remove()
        return outcome


def check(
    settings: hook.Settings,
    folder: str,
    script: str,
    known: hook.KnownHost,
    log: CertbotLog,
    now: int,
) -> list[str]:
    """Prove that run reports arrive, with a real write; print the findings, return the problems.

    It reports the certificates and which of them are served, but no run of certbot.
    """
    problems = [*hook.wrong_folder_problems(script, "post", NAME), *known.problems]
    certificates = known.lineages.certificates
    served = served_certificates(settings, folder, known.lineages, problems, now)
    report = hook.report_of_known_host(settings, folder, known, now, served)
    if os.path.basename(os.path.dirname(script)) == "post":
        problems += hook.not_executable_problems(script)
        problems += report_hook_problems(folder)

    hook.say_settings(settings, folder, os.path.abspath(hook.__file__))
    hook.say_program("Run report program", script, __version__)
    hook.say_program("Report hook", hook.__file__, hook.__version__)
    say_log(log)
    endpoints = served if settings.verify else None
    checked = hook.Checked(certificates, report, now, endpoints)
    problems += hook.check_sending(settings, checked, folder)
    if log.problem:
        problems.append(log.problem)
    if not problems:
        hook.say(hook.ready_verdict(settings, certificates, now, endpoints))
    return problems


def say_log(log: CertbotLog) -> None:
    """Print what certbot's log says of its last run."""
    if not log.runs:
        hook.say("certbot's log: no new run of certbot renew")
        return
    run = log.runs[-1]
    mode = f"{run.mode} --dry-run" if run.is_dry_run else run.mode
    hook.say(f"certbot's log: last run {hook.utc(run.started_at)}, certbot {run.version}, {mode}")


def report_hook_problems(folder: str) -> list[str]:
    """Return why certbot would not start the report hook after a renewal."""
    deploy_folder = os.path.join(folder, "renewal-hooks", "deploy")
    path = os.path.join(deploy_folder, f"{hook.NAME}.py")
    if not os.path.exists(path):
        return [
            f"{hook.NAME}.py is not in {deploy_folder}, where certbot would run it: copy it there"
        ]
    return hook.not_executable_problems(path)


def hours(text: str) -> float:
    """Return a number of hours of the command line; raise ValueError if it is not valid."""
    number = float(text)
    if not 0 <= number <= MOST_PATIENCE_HOURS:
        raise ValueError(text)
    return number


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = hook.argument_parser(
        NAME,
        f"{(__doc__ or '').partition(chr(10))[0]}\n"
        "Without an option it works as certbot's post hook.",
        hook.settings_table(),
        check_help="check the installation, report all certificates and check which are served",
        dry_run_help="print the line protocol and the URL for it, send nothing",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="send the run report: every certificate, and the result of certbot's run",
    )
    parser.add_argument(
        "--history",
        action="store_true",
        help="with --all: also report the renewals of older certificates in archive/",
    )
    parser.add_argument(
        "--patience",
        type=hours,
        default=0.0,
        metavar="HOURS",
        help="with --all: retry for HOURS while the server cannot be reached",
    )
    parser.add_argument(
        "--stdout",
        action="store_true",
        help="with --all: print the report, for Telegraf's exec input; send nothing",
    )
    parser.add_argument(
        "--retire",
        nargs="*",
        metavar="NAME",
        help="report that certificates, or without NAME this host, no longer exist",
    )
    parser.add_argument("--host", default="", help="with --retire: on the host with this HOSTNAME")
    parser.add_argument("--logs-dir", default="", metavar="DIR", help="the folder of certbot's log")
    return parser


def read_options(arguments: Sequence[str]) -> Options | None:
    """Parse the command line; None if it only asked for help or the version, which was printed.

    Wrong usage raises SystemExit with status 2, as argparse does.
    """
    parser = command_line()
    parsed = parser.parse_args(arguments)
    has_options_of_all = parsed.history or parsed.stdout or parsed.patience
    if has_options_of_all and not parsed.all:
        parser.error("--history, --patience and --stdout need --all")
    retires = parsed.retire is not None
    if parsed.host and not retires:
        parser.error("--host needs --retire")
    if sum([parsed.all, retires, parsed.check]) > 1:
        parser.error("--all, --retire and --check exclude each other")
    if hook.printed_help(parsed, parser, NAME, __version__):
        return None
    return Options(
        parsed.all,
        parsed.history,
        parsed.patience,
        parsed.stdout,
        parsed.retire,
        parsed.host,
        parsed.logs_dir,
        parsed.check,
        parsed.dry_run,
        parsed.config_dir,
    )


def main(arguments: Sequence[str], environ: hook.Environ, script: str = __file__) -> int:
    """Run the program; return 0: stored, 1: not stored or a problem to correct, 2: wrong usage."""
    options = read_options(arguments)
    if options is None:
        return 0
    script = os.path.abspath(script)
    folder = options.config_dir or hook.config_folder(script, environ.get("RENEWED_LINEAGE", ""))
    problems = RunReporter(options, environ, script, folder).report().problems
    return hook.say_problems(problems, NAME, options.check)


if __name__ == "__main__":
    gc.disable()  # it ends before there is much to collect
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C needs no traceback
    sys.exit(main(sys.argv[1:], os.environ))
