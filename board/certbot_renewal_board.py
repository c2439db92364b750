#!/usr/bin/env python3
"""The renewal board: every certificate that certbot looks after, on one HTML page, in a table, as CSV or JSON.

It reads InfluxDB with the queries of flux/, or VictoriaMetrics or Prometheus, so it shows what the alerts see. Needs requests, Jinja2 and
rich, the hook's file certbot_renewal_report.py (for the settings, which are the same) and the folder flux/ beside its own folder.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shlex
import signal
import stat
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TextIO

from certbot_renewal_promql import Prometheus

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
try:
    import certbot_renewal_report as hook
except ImportError:
    sys.exit(f"certbot_renewal_board: no certbot_renewal_report.py in {HERE.parent}: copy it there")

# ---- Settings --------------------------------------------------------------------------------------------------------
NAME = "certbot_renewal_board"
FLUX = HERE.parent / "flux"
DAY = 86400  # seconds
PATIENCE = (
    120.0  # seconds for a query, where INFLUXDB_TIMEOUT is not set: the hook's ten are for a write
)
LONGEST = 400  # days, the longest lifetime of a certificate (398 by the CA/Browser Forum's rules): how far back the last reports are looked for
UNITS = {"m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}  # seconds
STATES = {  # the columns of the board, the worst first
    "overdue": "Overdue",
    "failing": "Failing",
    "due": "Due",
    "renewed": "Renewed",
    "ended": "No longer on the host",
}
EMPTY = '<section class="empty">'  # a page without any certificate has it
UNSAFE = re.compile(
    "[\x00-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)  # steers a terminal, or the order of letters
HOOKS = "/etc/letsencrypt/renewal-hooks/deploy"
POST_HOOKS = "/etc/letsencrypt/renewal-hooks/post"
REMEDIES = (  # (what a server says to a query, status first; what to do about it): the first that fits. InfluxDB 1.8, 1.12, 2.9
    (r"orgID or org|organization name", "set INFLUXDB_ORG to the organization's name"),
    (r"^401", "set INFLUXDB_TOKEN to a token that may read {bucket}, or to user:password on 1.x"),
    (
        r"flux-enabled|[Ff]lux query service disabled",
        "set flux-enabled = true in [http] of InfluxDB's configuration",
    ),
    (r"unsupported path", "this is VictoriaMetrics: give --source prometheus"),
    (
        r"^403|requires READ",
        "give the token, or the user, in INFLUXDB_TOKEN the right to read {bucket}",
    ),
    (r"^3", "a redirect: set INFLUXDB_URL to InfluxDB itself"),
    (r"^2", "it is something else than InfluxDB: correct INFLUXDB_URL"),
    (r"retention policy", "correct what stands behind the slash in INFLUXDB_BUCKET"),
    (r"could not find bucket|no database", "correct INFLUXDB_BUCKET, or let the token read it"),
    (r"^40[45]", "INFLUXDB_URL must be InfluxDB itself, 1.8 or newer; Telegraf cannot be read"),
    (
        r"schema collision|type conflict|unsupported|cannot|type error|invalid",
        "{bucket} holds something else: correct INFLUXDB_BUCKET or MEASUREMENT",
    ),
    (r"", "look at the server's log"),
)


PROMETHEUS_REMEDIES = (  # likewise. VictoriaMetrics 1.79, Prometheus 2.42
    (r"^40[13]", "set INFLUXDB_TOKEN to user:password, or to a bearer token, that may read there"),
    (r"^3", "a redirect: set INFLUXDB_URL to VictoriaMetrics or Prometheus itself"),
    (
        r"^2|^40[45]|unsupported path|cannot parse path",
        "it is no Prometheus: correct INFLUXDB_URL, as in http://victoria:8428, or http://vmselect:8481/select/0/prometheus of a cluster",
    ),
    (r"too many samples|-search\.max", "raise that limit of the server"),
    (r"", "look at the server's log"),
)


class BoardError(Exception):
    """What an administrator has to mend, on one line: the text names the setting and the remedy, and holds no secret."""


# ---- Questions -------------------------------------------------------------------------------------------------------
Row = dict[str, str]


def flux_text(value: str) -> str:
    """A string literal of Flux."""
    return '"' + re.sub(r'([\\"]|\$(?=\{))', r"\\\1", value) + '"'


def query_of(name: str, settings: hook.Settings, **parameters: str) -> str:
    """A query of flux/ with its parameters: bucket and measurement as set, others as given, in Flux."""
    values = {
        "bucket": flux_text(settings.bucket),
        "measurement": flux_text(settings.measurement),
        **parameters,
    }
    try:
        text = (FLUX / f"{name}.flux").read_text(encoding="utf-8")
    except OSError as error:
        raise BoardError(
            f"{FLUX}: {error.strerror}: copy the folder flux/ to where board/ is"
        ) from None
    return re.sub(
        r"(?m)^(\w+) = .*$",
        lambda line: f"{line[1]} = {values[line[1]]}" if line[1] in values else line[0],
        text,
    )


def rows_of(text: str) -> Iterator[Row]:
    """The rows of InfluxDB's answer, CSV, whose text may steer nothing; each of its tables has a header of its own."""
    header: list[str] = []
    for row in csv.reader(io.StringIO(text, newline="")):
        if not row or row[0].startswith("#"):
            header = []
        elif header:
            yield dict(zip(header, map(plain, row)))
        else:
            header = row


def plain(text: str) -> str:
    """A text without what would steer a terminal, or turn it around."""
    return UNSAFE.sub("?", text)


def judged(settings: hook.Settings, said: str, remedies: Sequence[tuple[str, str]]) -> BoardError:
    """What an answer that is no result means, and what to do about it."""
    for secret in filter(None, (settings.token, *settings.token.split(":", 1))):
        said = said.replace(secret, "***")
    remedy = next(text for sign, text in remedies if re.search(sign, said)).format(
        bucket=settings.bucket
    )
    return BoardError(f"{settings.url} answered {hook.shortened(said)}: {remedy}")


def ask(
    settings: hook.Settings,
    path: str,
    kind: tuple[str, ...],
    read: Callable[[str], Any],
    remedies: Sequence[tuple[str, str]],
    **sent: Any,
) -> Any:
    """What is read in an answer of that kind; BoardError where there is none, or no good one: `read` may return one, too."""
    requests = hook.load_requests()
    sent.update(auth=hook.with_token(settings), timeout=settings.timeout, allow_redirects=False)

    def work() -> Any:
        try:
            answer = requests.post(settings.url + path, **sent)
            text = answer.content.decode("utf-8", "replace")
            if answer.status_code != 200 or not answer.headers.get("Content-Type", "").startswith(
                kind
            ):
                with contextlib.suppress(ValueError, AttributeError):
                    text = str(
                        json.loads(text).get("message") or json.loads(text).get("error") or text
                    )
                return judged(settings, f"{answer.status_code} {text}", remedies)
            return read(text)
        except (requests.RequestException, OSError, ValueError, csv.Error) as error:
            remedy = "does it run, and is INFLUXDB_URL its address?"
            if isinstance(error, requests.exceptions.SSLError) or "CA certificate" in str(error):
                remedy = "set REQUESTS_CA_BUNDLE to the file with your CA's certificate, or correct INFLUXDB_URL"
            return BoardError(f"cannot reach {settings.url}: {hook.root_cause(error)}: {remedy}")

    late = BoardError(
        f"no answer from {settings.url} for {settings.timeout:g} s: raise INFLUXDB_TIMEOUT, or look at the server's log"
    )
    found = hook.in_time(settings.timeout, work, late)
    if isinstance(found, BoardError):
        raise found
    return found


class Source(Protocol):
    """Where the reports are: the `place`, the `settings` that name it, and in words what is not kept there."""

    place: str
    settings: str
    lacks: str

    def rows(self, name: str, **parameters: float) -> list[Row]:
        """What the query of flux/ by that name finds; `since` is in seconds before now, `silence` in days."""

    def fields(self) -> list[str]:
        """What the measurement holds."""


class InfluxDB:
    """A Source: InfluxDB, asked with the queries of flux/."""

    settings, lacks = "INFLUXDB_BUCKET or MEASUREMENT", ""

    def __init__(self, given: hook.Settings) -> None:
        self.given, self.place = given, f"{given.bucket} at {given.url}"

    def rows(self, name: str, **parameters: float) -> list[Row]:
        """The rows of the query."""
        values = {
            key: f"-{value:.0f}s" if key == "since" else str(value)
            for key, value in parameters.items()
        }
        return self.ask(query_of(name, self.given, **values))

    def fields(self) -> list[str]:
        """By a query of its own."""
        flux = f"from(bucket: {flux_text(self.given.bucket)}) |> range(start: -{LONGEST}d)"
        flux += f' |> filter(fn: (r) => r._measurement == {flux_text(self.given.measurement)}) |> last() |> keep(columns: ["_field"])'
        return sorted(
            {row["_value"] for row in self.ask(flux + ' |> group() |> distinct(column: "_field")')}
        )

    def ask(self, flux: str) -> list[Row]:
        """The rows of any query."""

        def read(text: str) -> list[Row] | BoardError:
            rows = list(rows_of(text))
            if failed := next(
                (row["error"] for row in rows if "error" in row), ""
            ):  # a query may fail when its answer has begun
                return judged(self.given, failed, REMEDIES)
            return rows

        wanted = {"type": "flux", "query": flux, "dialect": {"header": True, "annotations": []}}
        found: list[Row] = ask(
            self.given,
            "/api/v2/query",
            ("text/csv",),
            read,
            REMEDIES,
            json=wanted,
            params={"org": self.given.org},
        )
        return found


def steers_nothing(parsed: dict[str, Any]) -> dict[str, Any]:
    """An object of JSON whose texts are plain."""
    return {key: plain(value) if isinstance(value, str) else value for key, value in parsed.items()}


def prometheus(given: hook.Settings) -> Source:
    """A Source: VictoriaMetrics or Prometheus."""
    given = given._replace(version=1 if ":" in given.token else 3)  # Basic, or Bearer

    def get(path: str, read: Callable[[Any], Any], **sent: Any) -> Any:
        def data(text: str) -> Any:
            try:
                answer = json.loads(text, object_hook=steers_nothing)
                if answer.get(
                    "isPartial"
                ):  # rather the old page than one without some certificates
                    return judged(
                        given,
                        "503 isPartial: a vmstorage is away, and what it holds is missing",
                        PROMETHEUS_REMEDIES,
                    )
                return read(answer["data"])
            except (ValueError, KeyError, TypeError, AttributeError):
                return judged(given, f"200 {text}", PROMETHEUS_REMEDIES)

        return ask(
            given,
            f"/api/v1/{path}",
            ("application/json", "application/stream+json"),
            data,
            PROMETHEUS_REMEDIES,
            data=sent,
        )

    return Prometheus(get, given.measurement, given.url)


SOURCES: dict[str, Callable[[hook.Settings], Source]] = {
    "influxdb": InfluxDB,
    "prometheus": prometheus,
}


# ---- What the answers say --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Renewal:
    """A renewal: `time` is notBefore and `next_due` when its successor was to come, Unix seconds; None where it is not known."""

    time: int
    host: str
    lineage: str
    names: list[str]
    lifetime_days: float | None
    next_due: int | None
    days_late: float | None  # after its predecessor was due; negative: before


@dataclass
class Card:
    """A certificate on a host. The moments are Unix seconds, 0 where they are not known."""

    host: str
    lineage: str
    state: str
    names: list[str] = field(default_factory=list)
    not_before: int = 0
    due: int = 0
    expiry: int = 0
    days_overdue: float = 0.0
    days_left: float = 0.0
    problems: list[str] = field(default_factory=list)
    last_failure: int = 0
    failed_with: list[str] = field(default_factory=list)  # lineages of the same run
    dry_run: int = 0
    dry_run_error: str = ""  # "none": it could be renewed
    to_try: list[str] = field(default_factory=list)
    renewals: list[Renewal] = field(default_factory=list)

    def mark(self, problem: str) -> None:
        """Notes what is wrong with it: it is failing, if nothing worse."""
        self.problems.append(problem)
        self.state = "failing" if self.state in ("due", "renewed") else self.state


@dataclass
class Host:
    """A host of which the last run failed, or none is known: what is wrong, since when (Unix seconds), and what to try."""

    host: str
    kind: str  # silent, failing; unheard: silent, but not judged while InfluxDB hears nobody
    says: str
    since: int
    to_try: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Thresholds:
    """In days, as in the alerts: after a renewal was due, without a run report, for delivery."""

    crit: float = 1.0
    silence: float = 2.0
    grace: float = 1.0


@dataclass
class Fleet:
    """All that the board shows: as of `made`, Unix seconds, renewals since `since`."""

    made: int
    since: int
    cards: list[Card]
    hosts: list[Host]
    renewals: list[Renewal]
    dry_runs: list[str]
    lacks: str  # what the source does not keep

    @property
    def counts(self) -> dict[str, int]:
        """How many certificates are in each state."""
        return {state: sum(card.state == state for card in self.cards) for state in STATES}


def seconds(text: str) -> int:
    """A time in InfluxDB's answer as Unix seconds."""
    return int(
        datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    )


def words(text: str) -> list[str]:
    """Names in a field, which are parted by spaces; "none" stands for no name."""
    return [] if text == "none" else text.split()


def renewals_of(rows: Sequence[Row], since: int) -> list[Renewal]:
    """The renewals from a moment on, the newest first, each with how late it came after its predecessor was due."""
    due: dict[tuple[str, str], int | None] = {}
    found = []
    for row in rows:  # the oldest first
        at, key = seconds(row["time"]), (row["host"], row["lineage"])
        lifetime, due_after = float(row["lifetime_days"]), float(row["due_after_days"])
        was_due = due.get(key)
        due[key] = at + round(due_after * DAY) if due_after else None
        late = None if was_due is None else (at - was_due) / DAY
        found.append(Renewal(at, *key, words(row["names"]), lifetime or None, due[key], late))
    return [renewal for renewal in reversed(found) if renewal.time >= since]


def read_fleet(source: Source, since: int, limits: Thresholds) -> Fleet:
    """Asks all that the board shows; `since` is in seconds before now. BoardError where it is not told."""
    now, rows = int(time.time()), source.rows
    certificates = rows("overdue")
    if not certificates:
        look_closer(source)
    history = renewals_of(
        rows("history", since=since + (1 + LONGEST) * DAY), now - since
    )  # with the predecessors of the first
    cards = {(row["host"], row["lineage"]): card_of(row, limits, now) for row in certificates}
    for renewal in history:
        if card := cards.get((renewal.host, renewal.lineage)):
            card.renewals.append(renewal)
            card.names = card.names or renewal.names
    for row in rows("certificates"):
        if card := cards.get((row["host"], row["lineage"])):
            card.not_before = now - round(float(row["age_days"]) * DAY)
            if card.not_before > now + 300:
                card.mark("it is not valid yet: the clock of its host was wrong, or this one's is")
    hosts = hosts_of(rows("silent_hosts", silence=limits.silence), rows("failing"), cards, limits)
    note_failures(cards, rows("failures", since=since))
    note_delivery(cards, rows("not_delivered"), rows("not_served"), limits)
    dry_runs = note_dry_runs(cards, rows("dry_runs"))
    for card in cards.values():
        card.to_try = to_try(card)
    order = list(STATES)
    ordered = sorted(
        cards.values(),
        key=lambda card: (order.index(card.state), card.due, card.host, card.lineage),
    )
    return Fleet(now, now - since, ordered, hosts, history, dry_runs, source.lacks)


def look_closer(source: Source) -> None:
    """BoardError where no certificate is known, but the measurement is in use: by something else, or by the published hook alone."""
    found = source.fields()
    if found == ["renewed_count"]:
        remedy = f"put certbot_renewal_report.py into {HOOKS} on the hosts, and run it there with --check"
        raise BoardError(
            f"{source.place} holds only renewals, as the published hook wrote them, and no state: {remedy}"
        )
    if found and not {"renewal_due", "certificates", "dry_run_failed"}.intersection(found):
        raise BoardError(
            f"{source.place} holds other things ({hook.shortened(' '.join(found[:5]))}): correct {source.settings}"
        )


def card_of(row: Row, limits: Thresholds, now: int) -> Card:
    """A certificate from its row of overdue.flux; what else is known comes later. It is overdue as of the last report, as for the alert,
    and when it has expired, for whoever looks wants to know. Between both it is due."""
    if row["ended"] == "true":
        return Card(row["host"], row["lineage"], "ended")
    due, days_left = seconds(row["due"]), float(row["days_left"])
    late = float(row["days_overdue"]) >= limits.crit or days_left < 0
    days_overdue = (now - due) / DAY  # now, not at the last report
    state = "overdue" if late else "due" if days_overdue >= 0 else "renewed"
    return Card(
        row["host"],
        row["lineage"],
        state,
        [],
        0,
        due,
        seconds(row["expiry"]),
        days_overdue,
        days_left,
    )


def hosts_of(
    silent: Sequence[Row],
    runs: Sequence[Row],
    cards: dict[tuple[str, str], Card],
    limits: Thresholds,
) -> list[Host]:
    """The hosts that are silent, then those whose last run failed; a certificate that the run names is failing."""
    found = []
    for row in sorted(silent, key=lambda row: -float(row["days_silent"])):
        if float(row["days_silent"]) >= limits.silence:
            says = f"no report of certbot for {float(row['days_silent']):.1f} days, last of {some(row['lineages'])}"
            says += (
                ". Most hosts were away until lately, or the server was: no alert tells of it by itself"
                if row["deaf"] == "true"
                else ""
            )
            check = f"{POST_HOOKS}/certbot_renewal_run.py --all"
            gone = shlex.join(
                [
                    f"{POST_HOOKS}/certbot_renewal_run.py",
                    "--host",
                    row["host"],
                    "--retire",
                    *words(row["lineages"]),
                ]
            )
            tries = [
                f"{check}  # on that host: does the report arrive?",
                f"{gone}  # on any host, if this one is gone for good",
            ]
            kind = "unheard" if row["deaf"] == "true" else "silent"
            found.append(
                Host(
                    row["host"],
                    kind,
                    says,
                    seconds(row["last"]),
                    [] if row["host"] == "(most hosts)" else tries,
                )
            )
    silent_hosts = {host.host for host in found}
    for card in cards.values():
        if card.host in silent_hosts and card.state == "due" and card.days_overdue >= limits.crit:
            card.mark("nobody knows whether it was renewed: its host is silent")
    for row in sorted(runs, key=lambda row: row["host"]):
        if row["failing"] == "true":
            parts = (
                [f"not renewed: {some(row['failed']) or row['failed_count']}"]
                if row["failed"] != "none"
                else []
            )
            parts += (
                [f"unreadable: {some(row['unreadable']) or row['unreadable_count']}"]
                if row["unreadable"] != "none"
                else []
            )
            parts += [f"exit status {row['exit_status']}"] if int(row["exit_status"]) > 0 else []
            tries = [
                "certbot renew --dry-run  # its log is /var/log/letsencrypt/letsencrypt.log",
                "certbot certificates",
            ]
            found.append(
                Host(
                    row["host"],
                    "failing",
                    f"certbot fails, {', '.join(parts)}",
                    seconds(row["run"]),
                    tries,
                )
            )
            for what, problem in (
                ("failed", "certbot could not renew it in its last run"),
                ("unreadable", "it cannot be read"),
            ):
                for lineage in words(row[what]):
                    if lineage == "...":  # there were more than a field can hold
                        continue
                    card = cards.setdefault(
                        (row["host"], lineage), Card(row["host"], lineage, "failing")
                    )
                    card.mark(problem)
    return found


def note_failures(cards: dict[tuple[str, str], Card], failures: Sequence[Row]) -> None:
    """The last run that did not renew a certificate, or could not read it, and what else it left."""
    for row in failures:  # the newest first
        for lineage in (together := words(row["failed"]) + words(row["unreadable"])):
            card = cards.get((row["host"], lineage))
            if card and not card.last_failure:
                card.last_failure, card.failed_with = (
                    seconds(row["time"]),
                    [name for name in together if name != lineage],
                )


def note_delivery(
    cards: dict[tuple[str, str], Card],
    targets: Sequence[Row],
    served: Sequence[Row],
    limits: Thresholds,
) -> None:
    """What was not delivered, or is not served, for longer than it may take."""
    late = []
    for row in targets:
        if float(row["days_missing"]) >= limits.grace:
            why = "" if row["deploy_error"] == "none" else f": {row['deploy_error']}"
            has = "it never got one" if row["never"] == "true" else f"what it has {expires(row)}"
            late.append(
                (
                    row,
                    f"not delivered to {row['target']} for {float(row['days_missing']):.1f} days, {has}{why}",
                )
            )
    for row in served:
        if float(row["days_unserved"]) >= limits.grace:
            names = some(row["not_served"])
            late.append(
                (
                    row,
                    f"another certificate is served{names and ' for ' + names}, which {expires(row)}",
                )
            )
    for row, problem in late:
        if card := cards.get((row["host"], row["lineage"])):
            card.mark(problem)


def note_dry_runs(cards: dict[tuple[str, str], Card], rows: Sequence[Row]) -> list[str]:
    """How the last dry run of each certificate went; in words, the last one of each host."""
    runs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        runs[row["host"], row["time"]].append(row)
        if card := cards.get((row["host"], row["lineage"])):
            card.dry_run, card.dry_run_error = seconds(row["time"]), row["dry_run_error"]
    last = {host: (when, of) for (host, when), of in sorted(runs.items())}
    told = []
    for host, (when, of) in last.items():
        failed = " ".join(row["lineage"] for row in of if row["failed"] == "1")
        tried, result = (
            f"{len(of)} certificate{'s' if len(of) > 1 else ''}",
            f"failed: {failed}" if failed else "none failed",
        )
        told.append(f"{host}: dry run of {utc(seconds(when))}, {tried}, {result}")
    return told


def expires(row: Row) -> str:
    """When the certificate ends that is there instead of the renewed one, in words."""
    return (
        f"{'expired' if float(row['days_left']) < 0 else 'expires'} {utc(seconds(row['expiry']))}"
    )


def some(names: str) -> str:
    """The first few of many names."""
    return (
        names
        if len(names.split()) <= 8
        else " ".join(names.split()[:6]) + f" and {len(names.split()) - 6} more"
    )


def to_try(card: Card) -> list[str]:
    """The commands that an administrator would try first, on the card's host, as root."""
    name = shlex.quote(card.lineage)
    if card.state == "overdue":
        return [
            f"certbot renew --cert-name {name} --dry-run  # can it be renewed at all?",
            "systemctl list-timers | grep certbot  # or the cron job: is certbot started?",
            f"{HOOKS}/certbot_renewal_report.py --check  # was it renewed, and only the report lost?",
        ]
    tries = (
        [f"certbot renew --cert-name {name} --dry-run"]
        if any("certbot" in problem for problem in card.problems)
        else []
    )
    tries += (
        ["certbot certificates"]
        if any("cannot be read" in problem for problem in card.problems)
        else []
    )
    tries += (
        [f"{HOOKS}/certbot_renewal_deliver.py --check"]
        if any("not delivered" in problem for problem in card.problems)
        else []
    )
    tries += (
        [f"{HOOKS}/certbot_renewal_report.py --check"]
        if any("is served" in problem for problem in card.problems)
        else []
    )
    return tries


def utc(moment: float) -> str:
    """A moment for people; nothing for one that is not known."""
    return hook.utc(moment) if moment else ""


# ---- As text ---------------------------------------------------------------------------------------------------------
CSV_HEADER = ["time", "host", "lineage", "names", "lifetime_days", "next_due", "days_late"]


def iso(moment: int | None) -> str:
    """A moment for programs."""
    return "" if moment is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def csv_rows(renewals: Sequence[Renewal]) -> list[list[str]]:
    """The history, the newest first. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    rows = []
    for it in renewals:
        lifetime, late = (
            "" if number is None else f"{round(number, 2) + 0:.2f}"
            for number in (it.lifetime_days, it.days_late)
        )
        texts = [
            re.sub(r"^(?=[=+\-@\t\r])", "'", text)
            for text in (it.host, it.lineage, " ".join(it.names))
        ]
        rows.append([iso(it.time), *texts, lifetime, iso(it.next_due), late])
    return rows


def csv_text(renewals: Sequence[Renewal]) -> str:
    """The history as CSV (RFC 4180)."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([CSV_HEADER, *csv_rows(renewals)])
    return out.getvalue()


def json_text(fleet: Fleet) -> str:
    """Everything as JSON; the moments are Unix seconds."""
    cards = [
        {**asdict(card), "renewals": [renewal.time for renewal in card.renewals]}
        for card in fleet.cards
    ]
    whole = {
        "made": fleet.made,
        "since": fleet.since,
        "counts": fleet.counts,
        "certificates": cards,
    }
    whole["lacks"] = fleet.lacks
    whole["hosts"], whole["renewals"] = (
        [asdict(host) for host in fleet.hosts],
        [asdict(renewal) for renewal in fleet.renewals],
    )
    return json.dumps(whole, indent=1) + "\n"


def print_table(fleet: Fleet, out: TextIO) -> None:
    """A table for a terminal, and below it what is wrong."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        file=out, width=None if out.isatty() else 160, highlight=False, markup=False, soft_wrap=True
    )
    colours = {"overdue": "bold red", "failing": "red", "due": "yellow", "ended": "dim"}
    table = Table(
        "state",
        "certificate",
        "host",
        "age",
        "due",
        "expires",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for column in table.columns[1:3]:
        column.overflow = "fold"
    for card in fleet.cards:
        age = f"{(fleet.made - card.not_before) // DAY} d" if card.not_before else ""
        cells = [
            card.state,
            card.lineage,
            card.host,
            age,
            utc(card.due)[:10],
            utc(card.expiry)[:10],
        ]
        table.add_row(*map(Text, cells), style=colours.get(card.state))
    console.print(table, soft_wrap=False)
    for host in fleet.hosts:
        console.print(Text(f"{host.host}: {host.says}", "red"))
    for card in fleet.cards:
        if said := notes(card):
            console.print(
                Text(
                    f"{card.lineage} on {card.host}: {'; '.join(said)}", colours.get(card.state, "")
                )
            )
    for line in fleet.dry_runs:
        console.print(Text(line))
    if fleet.lacks:
        console.print(Text(fleet.lacks))
    console.print(", ".join(f"{count} {state}" for state, count in fleet.counts.items()))


def notes(card: Card) -> list[str]:
    """What is to be said of a certificate beside its dates."""
    found = [f"overdue by {card.days_overdue:.1f} days"] if card.state == "overdue" else []
    found += ["expired"] if card.state != "ended" and card.days_left < 0 else []
    found += card.problems
    found += (
        [f"dry run of {utc(card.dry_run)} failed: {card.dry_run_error}"]
        if card.dry_run_error not in ("", "none")
        else []
    )
    return found


# ---- As a page -------------------------------------------------------------------------------------------------------
COLOURS = 6  # hosts that have a colour of their own in the chart


@dataclass(frozen=True)
class Bar:
    """A day of the chart, with a part for each host: its colour's number, its name, how many renewals, and in parts of the height where it
    begins and how high it is."""

    day: str
    count: int
    parts: list[tuple[int, str, int, float, float]]


@dataclass(frozen=True)
class Chart:
    """Renewals per day (UTC) and host: the hosts with the most have a colour of their own, the last stands for the others."""

    bars: list[Bar]
    hosts: list[str]
    most: int


def chart_of(fleet: Fleet, days: int = 90) -> Chart:
    """The chart of the last days, at most so many."""
    last = fleet.made // DAY
    first = max(last - days + 1, fleet.since // DAY)
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    of_host: dict[str, int] = defaultdict(int)
    for renewal in fleet.renewals:
        if renewal.time // DAY >= first:
            counts[renewal.time // DAY][renewal.host] += 1
            of_host[renewal.host] += 1
    ranked = sorted(of_host, key=lambda host: (-of_host[host], host))
    colour_of = {host: min(place, COLOURS - 1) for place, host in enumerate(ranked)}
    hosts = (
        ranked
        if len(ranked) <= COLOURS
        else [*ranked[: COLOURS - 1], f"{len(ranked) - COLOURS + 1} other hosts"]
    )
    most = max((sum(day.values()) for day in counts.values()), default=0)
    bars = []
    for day in range(first, last + 1):
        per_colour: dict[int, int] = defaultdict(int)
        for host, count in counts[day].items():
            per_colour[colour_of[host]] += count
        parts, at = [], 0
        for colour, count in sorted(per_colour.items()):
            parts.append((colour, hosts[colour], count, at / most, count / most))
            at += count
        bars.append(Bar(utc(day * DAY)[:10], at, parts))
    return Chart(bars, hosts, most)


def page(fleet: Fleet, source: Source, measurement: str, max_age: int, limits: Thresholds) -> str:
    """The board as one HTML file that needs nothing else, and allows nothing else to its browser."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(utc=utc, iso=iso)
    style, script = (
        (HERE / name).read_text(encoding="utf-8") for name in ("board.css", "board.js")
    )
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for text in (style, script)
    ]
    columns = {state: [card for card in fleet.cards if card.state == state] for state in STATES}
    return environment.get_template("board.html").render(
        fleet=fleet,
        columns=columns,
        states=STATES,
        chart=chart_of(fleet),
        history={"header": CSV_HEADER, "rows": csv_rows(fleet.renewals)},
        style=style,
        script=script,
        hashes=hashes,
        max_age=max_age,
        where=source.place,
        measurement=measurement,
        limits=limits,
        day=DAY,
        hooks=HOOKS,
    )


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is the old one or the new one, whatever happens. A new one may be read by everybody, as a web server does; an old
    one keeps its mode, and a link its place."""
    path = path.resolve()
    try:
        if path.exists() and not path.is_file():
            raise BoardError(f"{path}: not a file: give --html the name of one")
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name[:200]}.", delete=False
        ) as file:
            try:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
    except OSError as error:
        raise BoardError(
            f"{path}: {error.strerror}: give --html a file that can be written"
        ) from None


def holds_certificates(path: Path) -> bool:
    """Whether there is a page that must not give way to one without a certificate."""
    with contextlib.suppress(OSError):
        return EMPTY not in path.read_text(encoding="utf-8", errors="replace")
    return False


# ---- Command line ----------------------------------------------------------------------------------------------------
def span(text: str) -> int:
    """A span of time such as 400d, 12h or 90m, in seconds."""
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time such as 400d, 12h or 90m")
    return int(match[1]) * UNITS[match[2]]


def days(text: str) -> float:
    """A number of days."""
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days such as 1 or 0.5")
    return float(text)


def command_line() -> argparse.ArgumentParser:
    """What may be given."""
    places = f"The settings are the hook's, INFLUXDB_URL and so on: from {NAME}.env beside this file, else the environment."
    status = "Exit status: 0 well, 1 something is overdue or a host silent, 2 it could not be told, or wrong usage."
    parser = argparse.ArgumentParser(
        f"{NAME}.py", description=(__doc__ or "").partition("\n")[0], epilog=f"{places} {status}"
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the board into a file")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--csv", action="store_true", help="print every renewal, for an auditor")
    text.add_argument("--json", action="store_true", help="print everything")
    parser.add_argument(
        "--since",
        metavar="SPAN",
        type=span,
        default="400d",
        help="how far back renewals go: 400d, 12h (default 400d)",
    )
    parser.add_argument(
        "--max-age",
        metavar="SPAN",
        type=span,
        default="1h",
        help="after which the page says that it is old (default 1h)",
    )
    for name, meaning in (
        ("crit", "after certbot should have renewed: overdue"),
        ("silence", "without a run report: silent"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="DAYS",
            type=days,
            default=getattr(Thresholds, name),
            help=f"days {meaning}, as in the alert",
        )
    parser.add_argument(
        "--grace",
        metavar="DAYS",
        type=days,
        default=Thresholds.grace,
        help="days for a renewal to be delivered and served",
    )
    about = "what INFLUXDB_URL is: influxdb, or VictoriaMetrics and whatever else answers as Prometheus does (default influxdb)"
    parser.add_argument("--source", choices=SOURCES, default="influxdb", help=about)
    parser.add_argument(
        "--env",
        metavar="FILE",
        type=Path,
        default=HERE / f"{NAME}.env",
        help="a file with the settings",
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {hook.__version__}")
    return parser


def main(arguments: Sequence[str], environ: hook.Environ, out: TextIO) -> int:
    """Makes what is asked for and returns the exit status: 0 well, 1 something is overdue or a host silent, 2 it could not be told."""
    given = command_line().parse_args(arguments)
    limits = Thresholds(given.crit, given.silence, given.grace)
    try:
        if given.env != HERE / f"{NAME}.env" and not given.env.is_file():
            raise BoardError(f"{given.env}: no such file: correct --env")
        settings = hook.read_settings(environ, str(given.env.parent), hook.__file__, given.env.name)
        if settings.sources["INFLUXDB_TIMEOUT"][1] == hook.__file__:
            settings = settings._replace(timeout=PATIENCE)
        for warning in hook.warnings_of(settings, str(given.env.parent)):
            if "everybody" in warning:  # the other is of a host that reports
                print(f"{NAME}: warning: {plain(warning)}", file=sys.stderr)
        try:
            source = SOURCES[given.source](settings)
            fleet = read_fleet(source, given.since, limits)
        except (KeyError, ValueError, OverflowError) as error:
            remedy = "correct INFLUXDB_URL, INFLUXDB_BUCKET or MEASUREMENT"
            raise BoardError(
                f"{settings.url} answers what the queries of flux/ never do ({error}): {remedy}"
            ) from None
        if given.html and (fleet.cards or not holds_certificates(given.html)):
            write_whole(
                given.html, page(fleet, source, settings.measurement, given.max_age, limits)
            )
        if not fleet.cards:
            remedy = f"on each host run {HOOKS}/certbot_renewal_report.py --check, or correct {source.settings}"
            raise BoardError(f"no certificate is known yet in {source.place}: {remedy}")
        if given.csv or given.json:
            out.write(csv_text(fleet.renewals) if given.csv else json_text(fleet))
        elif not given.html:
            print_table(fleet, out)
        out.flush()
    except ModuleNotFoundError as error:
        return fail(
            f"no {error.name} for {sys.executable}: apt-get install python3-{error.name}, or pip install {error.name}"
        )
    except (
        BrokenPipeError
    ):  # who reads has seen enough; nothing more goes there when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    except (BoardError, hook.ReportError, OSError) as error:
        return fail(f"stdout: {error.strerror}" if isinstance(error, OSError) else str(error))
    return 1 if fleet.counts["overdue"] or any(host.kind == "silent" for host in fleet.hosts) else 0


def fail(why: str) -> int:
    """Says in one line on stderr why it could not be told."""
    print(f"{NAME}: {plain(why)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is no reason for a traceback
    if sys.stdout is None:
        sys.exit(fail("stdout: closed"))
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # where the locale is not UTF-8
    sys.exit(main(sys.argv[1:], os.environ, sys.stdout))
