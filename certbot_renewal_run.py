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


# STUB
class LineageResult(NamedTuple):
    result: str
    reason: str
    window: tuple[int, int] | None


class CertbotRun(NamedTuple):
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
    runs: list[CertbotRun]
    problem: str
    current_run: CertbotRun | None = None


RENEWED, NOT_DUE, FAILED, UNREADABLE, NOT_PROCESSED = (
    "renewed",
    "not due",
    "failed",
    "unreadable",
    "not processed",
)


def logs_folder(option: str, folder: str, environ: Mapping[str, str]) -> str:
    return option


def read_certbot_log(logs_dir: str, after: str, now: int) -> CertbotLog:
    return CertbotLog([], "")


# END STUB
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


LOCK_PATIENCE = hook.DAY  # for so long, another running certbot is no failure


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
    due_at_once = verdict.due_at_once or started_at if is_window_past else 0
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
        step = incident.step if failing <= set(incident.lineages) else incident.step + 1

    highest_step, highest_at = incident.highest_step, incident.highest_at
    if step >= highest_step or highest_at < now - LONGEST_INCIDENT_VIEW:
        highest_step, highest_at = step, now
    return hook.Incident(step, sorted(seen), highest_step, highest_at)


LONGEST_INCIDENT_VIEW = 30 * hook.DAY  # flux/failing.flux looks back for so long


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
        "renewed": names_with(RENEWED, results),
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
            fields[name] = hook.joined_names(text.split(" "))
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
    return RunReport(report, removes_record=True)


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
        has_failed = result.result != RENEWED
        fields: dict[str, hook.FieldValue] = {
            "dry_run_failed": int(has_failed),
            "dry_run_error": (result.reason or "no reason in the log") if has_failed else "none",
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


class Reading(NamedTuple):
    """What a report is made of: the lineages, the record of this host, and certbot's runs.

    `known_before` has, by lineage, notBefore of the certificate that was reported last.
    """

    lineages: hook.Lineages
    record: hook.HostRecord
    runs: list[CertbotRun]
    newly_retired: list[str]
    known_before: dict[str, int]


def read_host(settings: hook.Settings, folder: str, log: CertbotLog, now: int) -> Reading:
    """Read the lineages and certbot's log, and bring the record of this host up to date."""
    problems: list[str] = []
    record = hook.KnownFile(folder, settings.host).read(problems)
    known_before = {name: verdict.not_before for name, verdict in record.verdicts.items()}
    version = next((run.version for run in reversed(log.runs) if run.version), record.certbot)
    lineages = hook.read_lineages(folder, version)
    lineages = lineages._replace(problems=[*lineages.problems, *problems])
    apply_log(record, lineages.certificates, log.runs, issue_times(lineages))
    lineages = hook.judged(folder, lineages, record, now)
    newly_retired = hook.record_lineages(record, lineages, now)
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
    log: CertbotLog,
    now: int,
    history: bool = False,
) -> RunReport:
    """Return the run report: every certificate, retired ones, missed renewals, certbot's runs.

    With `history`, it has the renewals of all older certificates that are still in archive/.
    """
    reading = read_host(settings, folder, log, now)
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

    if history:  # as if no renewal had ever been reported
        report = with_missed_renewals(settings, report, folder, reading.lineages, {})
    elif reading.known_before:  # the first report starts with the certificates that there are
        report = with_missed_renewals(
            settings, report, folder, reading.lineages, reading.known_before
        )
    return RunReport(report, record)


def post_hook_report(
    settings: hook.Settings, environ: Mapping[str, str], folder: str, log: CertbotLog, now: int
) -> RunReport:
    """Return the report of certbot's post hook: every certificate, and the failed renewals.

    certbot starts a post hook only if a renewal was attempted. On other days there is no report, so
    the post hook does not prove that certbot runs: it is not a run report. It does not check which
    certificates are served, because servers restart after the hooks. After a dry run, it reports
    only the results of the dry run.
    """
    current_run = log.current_run
    if current_run is not None and current_run.is_dry_run:
        return dry_run_report(settings, current_run)

    reading = read_host(settings, folder, log, now)
    record = reading.record
    record.full_report_at = now
    has_run_reports = record.has_run_reports
    report = hook.certificates_report(settings, folder, reading.lineages, now, has_run_reports)
    report = with_run(settings, report, reading, environ, now)
    if reading.known_before:
        report = with_missed_renewals(
            settings, report, folder, reading.lineages, reading.known_before
        )
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
        log = self.read_log(settings, now)
        if options.all:
            return run_report(settings, self.environ, self.folder, log, now, options.history)
        return post_hook_report(settings, self.environ, self.folder, log, now)

    def read_log(self, settings: hook.Settings, now: int) -> CertbotLog:
        """Return the certbot runs since the last run report; warn if the log cannot be read."""
        record = hook.KnownFile(self.folder, settings.host).read([])
        path = logs_folder(self.options.logs_dir, self.folder, self.environ)
        log = read_certbot_log(path, record.log_position, now)
        if log.problem and not self.options.check:
            hook.warn(f"{log.problem} (the report has no reasons of failures)", NAME)
        return log

    def check(self, settings: hook.Settings, now: int) -> list[str]:
        """Prove that run reports arrive; print the findings, return the problems."""
        return check(settings, self.folder, self.script, self.read_log(settings, now), now)

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
    settings: hook.Settings, folder: str, script: str, log: CertbotLog, now: int
) -> list[str]:
    """Prove that run reports arrive, with a real write; print the findings, return the problems.

    It reports the certificates and which of them are served, but no run of certbot.
    """
    problems = hook.wrong_folder_problems(script, "post", NAME)
    record = hook.KnownFile(folder, settings.host).read(problems)
    lineages = hook.judged(folder, hook.read_lineages(folder, record.certbot), record, now)
    served = served_certificates(settings, folder, lineages, problems, now)
    report = hook.certificates_report(
        settings, folder, lineages, now, record.has_run_reports, served
    )
    report.problems.extend(hook.no_certificate_problems(folder, lineages))
    if os.path.basename(os.path.dirname(script)) == "post":
        problems += hook.not_executable_problems(script)
        problems += report_hook_problems(folder)

    hook.say_settings(settings, folder, os.path.abspath(hook.__file__))
    hook.say_program("Run report program", script, __version__)
    hook.say_program("Report hook", hook.__file__, hook.__version__)
    say_log(log)
    endpoints = served if settings.verify else None
    checked = hook.Checked(lineages.certificates, report, now, endpoints)
    problems += hook.check_sending(settings, checked, folder)
    if log.problem:
        problems.append(log.problem)
    if not problems:
        hook.say(hook.ready_verdict(settings, lineages.certificates, now, endpoints))
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
