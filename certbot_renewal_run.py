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
import binascii
import calendar
import contextlib
import gc
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Union

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


# ---- certbot's run -----------------------------------------------------------------------------
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


def failed_lineages(
    certificates: Sequence[hook.Certificate],
    environ: Mapping[str, str],
    exit_status: int | None,
    now: int,
) -> list[str] | None:
    """Return the lineages that are due and were not renewed; None if the result is not known.

    After a failed run these are all due lineages. For a post hook, certbot gives the names of the
    failed certificates in FAILED_DOMAINS, also after a dry run and after a forced renewal. These
    are not due.
    """
    if exit_status is None and "FAILED_DOMAINS" not in environ:
        return None
    run_failed = bool(exit_status)
    failed_names = set(environ.get("FAILED_DOMAINS", "").split())
    failed = []
    for certificate in certificates:
        is_due = certificate.renewal_due <= now
        has_failed = run_failed or not failed_names.isdisjoint(certificate.names)
        if is_due and has_failed:
            failed.append(certificate.lineage)
    return failed


def run_point(
    settings: hook.Settings,
    lineages: hook.Lineages,
    failed: Sequence[str] | None,
    exit_status: int | None,
    now: int,
) -> hook.Point:
    """Return the point about certbot's run; `failed`, `exit_status`: None if they are not known."""
    fields: dict[str, hook.FieldValue] = {
        "certificates": len(lineages.certificates),
        "unreadable_count": len(lineages.unreadable),
    }
    if failed is not None:
        # Both or none: VictoriaMetrics keeps no strings, and the last number of each must be of
        # the same run.
        fields["failed_count"] = len(failed)
        fields["exit_status"] = -1 if exit_status is None else exit_status
    if failed:
        fields["failed"] = hook.joined_names(failed)
    if lineages.unreadable:
        fields["unreadable"] = hook.joined_names(sorted(lineages.unreadable))
    return hook.make_point(settings, fields, now)


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


# ---- Retired certificates ----------------------------------------------------------------------
def retired_states(settings: hook.Settings, lineages: Iterable[str], now: int) -> list[hook.Point]:
    """Return the last states of retired lineages. The times of their certificates are 0."""
    retired = [hook.Certificate(lineage, [], 0, 0, 0) for lineage in lineages]
    return [hook.state_point(settings, certificate, now, now) for certificate in retired]


def retirement_report(
    settings: hook.Settings, folder: str, lineages: Sequence[str], host: str, now: int
) -> hook.Report:
    """Return the report that retires lineages of a host; `host` "": of this host.

    Raise a ReportError if one is still on this host.
    """
    if host and host != settings.host:
        settings = settings._replace(host=host)
    else:
        present = hook.read_lineages(folder).names.intersection(lineages)
        if present:
            raise hook.ReportError(still_present_problem(sorted(present)))

    retired = [f"{lineage} on {settings.host} retired" for lineage in lineages]
    return hook.Report([], retired_states(settings, lineages, now), [], [], retired)


def still_present_problem(lineages: Sequence[str]) -> str:
    """Return the problem of lineages that are to be retired, but are on this host."""
    remedies = [
        f"{lineage} is still on this host: delete it with certbot delete --cert-name {lineage}, "
        "or name another host with --host"
        for lineage in lineages
    ]
    return "; ".join(remedies)


# ---- certbot's dry run -------------------------------------------------------------------------
# What certbot prints of a lineage at the end of a dry run; with --config-dir the folder differs:
#   /etc/letsencrypt/live/example.com/fullchain.pem (success)
#   /etc/letsencrypt/renewal/example.com.conf (parsefail)
DRY_RUN_RESULT = re.compile(
    r"""
    ^ [ ]+ \S .*? /
    (?:
        live/ (?P<live> [^/\n]+ ) /fullchain\.pem
        | renewal/ (?P<conf> [^/\n]+ ) \.conf
    )
    [ ] \( (?P<result> success | failure | parsefail ) \) $
    """,
    re.VERBOSE | re.MULTILINE,
)

# Matches: Failed to renew certificate example.com with error: Some challenges have failed.
DRY_RUN_REASON = re.compile(
    r"^Failed to renew certificate (?P<lineage>.+?) with error: (?P<reason>.*)$", re.MULTILINE
)


def dry_run_results(output: str) -> dict[str, str]:
    """Return by lineage why its dry run failed, "" if it succeeded; {} if this is no dry run.

    `output` is what certbot 2.1 to 5.8 prints.
    """
    if "simulated renewals" not in output:
        return {}
    reasons = {match["lineage"]: match["reason"] for match in DRY_RUN_REASON.finditer(output)}
    results = {}
    for match in DRY_RUN_RESULT.finditer(output):
        lineage = match["live"] or match["conf"]
        if match["result"] == "success":
            results[lineage] = ""
        else:
            results[lineage] = reasons.get(match["live"], match["result"])
    return results


def dry_run_report(settings: hook.Settings, output: str, now: int) -> hook.Report:
    """Return the result of each lineage's dry run, in fields that no renewal and no run has.

    Raise a ReportError if the output is not certbot's of a dry run.
    """
    results = dry_run_results(output)
    if not results:
        raise hook.ReportError(
            "stdin is not the output of a dry run: "
            f"use certbot renew --dry-run 2>&1 | {NAME}.py --after-dry-run "
            f"(stdin was: {hook.shortened(output) or 'empty'})"
        )

    points = []
    for lineage, reason in results.items():
        fields: dict[str, hook.FieldValue] = {
            "dry_run_failed": 1 if reason else 0,
            "dry_run_error": hook.shortened(reason) or "none",
        }
        points.append(hook.make_point(settings, fields, now, domain="all", lineage=lineage))

    failed = [lineage for lineage, reason in results.items() if reason]
    count = hook.counted(len(results), "certificate")
    summary = f"dry run of {count}, {len(failed)} failed"
    if failed:
        summary += f" ({' '.join(failed)})"
    return hook.Report([], points, [summary], [])


def read_stdin() -> str:
    """Return the text on stdin, "" at a terminal."""
    try:
        with open(0, "rb", closefd=False) as stdin:
            if stdin.isatty():
                return ""
            return stdin.read().decode("utf-8", "replace")
    except OSError:
        return ""


# ---- The run report ----------------------------------------------------------------------------
class RunReport(NamedTuple):
    """The run report; `known`: what the known file must say once it is stored, None: no change."""

    report: hook.Report
    known: dict[str, int] | None = None


def run_report(
    settings: hook.Settings,
    environ: Mapping[str, str],
    folder: str,
    now: int,
    history: bool = False,
) -> RunReport:
    """Return the run report: every certificate, retired ones, missed renewals, certbot's run.

    With `history`, it has the renewals of all older certificates that are still in archive/.
    """
    lineages = hook.read_lineages(folder)
    known_file = hook.KnownFile(folder)
    known = known_file.read(lineages.problems)
    served_problems: list[str] = []
    served = served_certificates(settings, folder, lineages, served_problems, now)
    report = hook.certificates_report(settings, folder, lineages, now, True, served)
    report.problems.extend(served_problems)
    report = with_run(settings, report, lineages, environ, now)

    if history:  # as if no renewal had ever been reported
        report = with_missed_renewals(settings, report, folder, lineages, {})
    elif known_file.exists():  # the first run report starts with the certificates that there are
        report = with_missed_renewals(settings, report, folder, lineages, known)
    if lineages.problems:  # not all lineages are seen, so none can be missed
        return RunReport(report)

    retired = sorted(set(known) - lineages.names)
    report.states.extend(retired_states(settings, retired, now))
    report = report._replace(retired=[f"{lineage} retired" for lineage in retired])
    known_now = dict.fromkeys(lineages.unreadable, 0)
    for certificate in lineages.certificates:
        known_now[certificate.lineage] = certificate.not_before
    return RunReport(report, known_now)


def post_hook_report(
    settings: hook.Settings, environ: Mapping[str, str], folder: str, now: int
) -> RunReport:
    """Return the report of certbot's post hook: every certificate, and the failed renewals.

    certbot starts a post hook only if a renewal was attempted. On other days there is no report, so
    the post hook does not prove that certbot runs: it is not a run report. It does not check which
    certificates are served, because servers restart after the hooks.
    """
    lineages = hook.read_lineages(folder)
    known_file = hook.KnownFile(folder)
    known = known_file.read(lineages.problems)
    report = hook.certificates_report(settings, folder, lineages, now, known_file.exists())
    report = with_run(settings, report, lineages, environ, now)
    if known_file.exists():
        report = with_missed_renewals(settings, report, folder, lineages, known)
    return RunReport(report)


def with_run(
    settings: hook.Settings,
    report: hook.Report,
    lineages: hook.Lineages,
    environ: Mapping[str, str],
    now: int,
) -> hook.Report:
    """Add the point about certbot's run to a report."""
    exit_status = exit_status_of(environ, report.problems)
    failed = failed_lineages(lineages.certificates, environ, exit_status, now)
    return report._replace(last=run_point(settings, lineages, failed, exit_status, now))


def with_missed_renewals(
    settings: hook.Settings,
    report: hook.Report,
    folder: str,
    lineages: hook.Lineages,
    known: Mapping[str, int],
) -> hook.Report:
    """Add the renewals since the known certificates to a report, before all others.

    `known` has notBefore of the certificate that was reported last, by lineage.
    """
    renewals = []
    for older in renewals_since(folder, lineages.certificates, known, report.problems):
        renewals += hook.renewal_points(settings, older)
    return report._replace(renewals=[*renewals, *report.renewals])


def print_report(report: hook.Report) -> None:
    """Print a report for Telegraf's exec input, its times in nanoseconds; raise a ReportError."""
    lines = [f"{hook.line_protocol(point)}000000000\n" for point in report.points()]
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
    """The options of the command line; without an option: the post hook's report."""

    all: bool
    history: bool
    patience_hours: float
    stdout: bool
    retire: list[str]
    host: str
    after_dry_run: bool
    check: bool
    dry_run: bool
    config_dir: str

    @property
    def is_post_hook(self) -> bool:
        """Whether certbot's post hook is meant."""
        return not (self.all or self.retire or self.after_dry_run or self.check)


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
                return hook.Outcome(True, check(settings, self.folder, self.script, now))
            report = self.make_report(settings, now)
            return self.send_or_print(settings, report, is_first, now)
        except hook.ReportError as error:
            return hook.Outcome(False, [str(error)])

    def make_report(self, settings: hook.Settings, now: int) -> RunReport:
        """Return the report that the command line asks for; raise a ReportError."""
        options = self.options
        if options.retire:
            return RunReport(
                retirement_report(settings, self.folder, options.retire, options.host, now)
            )
        if options.after_dry_run:
            return RunReport(dry_run_report(settings, read_stdin(), now))
        if options.all:
            return run_report(settings, self.environ, self.folder, now, options.history)
        return post_hook_report(settings, self.environ, self.folder, now)

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
        if outcome.stored and run.known is not None:
            hook.KnownFile(self.folder).replace(run.known, now)
        return outcome


def check(settings: hook.Settings, folder: str, script: str, now: int) -> list[str]:
    """Prove that run reports arrive, with a real write; print the findings, return the problems.

    It reports the certificates and which of them are served, but no run of certbot.
    """
    lineages = hook.read_lineages(folder)
    known_file = hook.KnownFile(folder)
    known_file.read(lineages.problems)  # only to report that it cannot be read
    problems = hook.wrong_folder_problems(script, "post", NAME)
    served = served_certificates(settings, folder, lineages, problems, now)
    has_run_reports = known_file.exists()
    report = hook.certificates_report(settings, folder, lineages, now, has_run_reports, served)
    report.problems.extend(hook.no_certificate_problems(folder, lineages))
    if os.path.basename(os.path.dirname(script)) == "post":
        problems += hook.not_executable_problems(script)
        problems += report_hook_problems(folder)

    hook.say_settings(settings, folder, os.path.abspath(hook.__file__))
    hook.say_program("Run report program", script, __version__)
    hook.say_program("Report hook", hook.__file__, hook.__version__)
    endpoints = served if settings.verify else None
    checked = hook.Checked(lineages.certificates, report, now, endpoints)
    problems += hook.check_sending(settings, checked, folder)
    if not problems:
        hook.say(hook.ready_verdict(settings, lineages.certificates, now, endpoints))
    return problems


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
        nargs="+",
        default=[],
        metavar="NAME",
        help="report that certificates no longer exist on this host",
    )
    parser.add_argument("--host", default="", help="with --retire: on the host with this HOSTNAME")
    parser.add_argument(
        "--after-dry-run",
        action="store_true",
        help="report the results of certbot renew --dry-run, whose output is stdin",
    )
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
    if parsed.host and not parsed.retire:
        parser.error("--host needs --retire")
    commands = [parsed.all, bool(parsed.retire), parsed.after_dry_run, parsed.check]
    if sum(commands) > 1:
        parser.error("--all, --retire, --after-dry-run and --check exclude each other")
    if hook.printed_help(parsed, parser, NAME, __version__):
        return None
    return Options(
        parsed.all,
        parsed.history,
        parsed.patience,
        parsed.stdout,
        parsed.retire,
        parsed.host,
        parsed.after_dry_run,
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
