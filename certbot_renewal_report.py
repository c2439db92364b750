#!/usr/bin/env python3
"""Reports certbot's renewals to InfluxDB: a deploy hook in one file.

Copy it into /etc/letsencrypt/renewal-hooks/deploy, make it executable, run it there once with --check. Needs Python 3.9 and requests.
It reads the certificate that certbot has renewed, and writes when that was, for which names, and when the next renewal is due.
"""

from __future__ import annotations

import argparse
import binascii
import calendar
import contextlib
import gc
import ipaddress
import itertools
import json
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from email.utils import parsedate
from glob import glob
from typing import Any, NamedTuple, TextIO
from urllib.parse import urlencode

__version__ = "0.1.0"

# ---- Settings --------------------------------------------------------------------------------------------------------
# Name: (default, meaning): from certbot_renewal_report.env, else the environment, or edited here. --help and the README print it too.
SETTINGS: dict[str, tuple[str, str]] = {
    "INFLUXDB_URL": ("http://127.0.0.1:8086", "InfluxDB, VictoriaMetrics, or a Telegraf listener"),
    "INFLUXDB_VERSION": (
        "2",
        "2: /api/v2/write (InfluxDB 1.8 and later); 1: /write (before, and Telegraf's influxdb_listener); 3: /api/v3/write_lp",
    ),
    "INFLUXDB_BUCKET": ("telegraf", "bucket; or database, or database/retention_policy"),
    "INFLUXDB_ORG": ("", "organization; 2.x needs it"),
    "INFLUXDB_TOKEN": ("", "token, or user:password on 1.x"),
    "INFLUXDB_TOKEN_FILE": ("", "a file that holds the token, instead of INFLUXDB_TOKEN"),
    "INFLUXDB_TIMEOUT": ("10", "seconds for all tries together"),
    "MEASUREMENT": ("certbot_renewal", "measurement"),
    "HOSTNAME": ("", "host tag; empty: the host's name. A container must set it"),
    "VERIFY": (
        "",
        "where run reports look whether a certificate is served: 443, host:993; for one lineage NAME=host:443, NAME=none",
    ),
}
PLACE = r"(?!none\b)(?:([^\s=]+)=)?(?:(?:(\[[\da-fA-F:.]+\]|[^\s/:=\[\]]+):)?(\d{1,5})|none)"  # lineage, host, port
URL = r"https?://(\[[\da-fA-F:.]+\]|[^\s/:?#@\[\]]+)(:\d{1,5})?(/[^\s?#@]*)?"
RULES = {  # what a value must look like, and that in words
    "INFLUXDB_URL": (
        URL,
        "http:// or https://, host and port, as in http://127.0.0.1:8086; user and password belong in INFLUXDB_TOKEN",
    ),
    "INFLUXDB_VERSION": (
        r"[123]",
        "2 (InfluxDB 1.8 and newer), 1 (older, and Telegraf's influxdb_listener), or 3 (InfluxDB 3)",
    ),
    "INFLUXDB_BUCKET": (r"[^/].*", "the name of a bucket, or of a database"),
    "INFLUXDB_TIMEOUT": (
        r"(?=.*[1-9])[0-9]{1,5}(\.[0-9]{1,9})?",
        "a number of seconds above 0, such as 10",
    ),
    "MEASUREMENT": (r"[^#_].*", "a name that begins with neither # nor _"),
    "VERIFY": (
        rf"({PLACE}(\s+|$))*",
        "port, host:port, NAME=port, NAME=host:port or NAME=none; several of them parted by spaces",
    ),
}
PASSED_ON = (
    "REQUESTS_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "INFLUXDB_USER",
)  # the file may set these too
ENV_FILE = "certbot_renewal_report.env"
KNOWN_FILE = "certbot_renewal_report.known"  # made by run reports only: that it exists says that they are installed
DEPLOY_FILE = "certbot_renewal_deliver.state"  # what certbot_renewal_deliver.py notes
TURN_FILE = "certbot_renewal_report.turn"  # whose turn it is among the run reports that wait for InfluxDB: the last one's
NAME = "certbot_renewal_report"
STARTERS = (
    "/etc/systemd/system/**",
    "/etc/cron*",
    "/etc/cron*/*",
    "/var/spool/cron/**",
    "/etc/telegraf/**",
)  # --check looks there
# What certbot says of a lineage at the end of a dry run, with --config-dir where its folder is another.
DRY_RUN = r"(?m)^ +\S.*?/(?:live/([^/\n]+)/fullchain\.pem|renewal/([^/\n]+)\.conf) \((success|failure|parsefail)\)$"
DELIVERY = r"(?m)^([^\t\n]+)\t([^\t\n]+)\t(\w+)\t(\d{1,12})\t(\d{1,12})\t\d{1,12}\t([^\t\n]*)$"  # a line of DEPLOY_FILE
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # and what stands for bytes that are no UTF-8
DAY = 86400  # seconds
CONNECT, PAUSE = (
    5,
    300,
)  # seconds: for one look at what is served; at most between the tries of --patience
BATCH = 5000  # lines in one request, as InfluxDB's documentation advises
Environ = MutableMapping[str, str]
# NAME=value, quoted or not, and a comment. Not every word is a name: a token alone on a line may end in ==, and is not to be shown.
ENV_LINE = r"""(?:export\s+)?([A-Z_]{1,31})\s*=\s*(?:(["'])([^\0]*?)\2|((?!(?<=\s)#)[^"'\s\0][^\0]*?)?)(?:(?<!\s)\s+#.*)?"""


class ReportError(Exception):
    """What an administrator has to mend: the text names the setting and the remedy, and holds no secret."""


class Settings(NamedTuple):
    """The settings, valid. `timeout` is in seconds; `sources` says of each one, by name, its value and where it comes from."""

    url: str
    version: int
    bucket: str
    org: str
    token: str
    timeout: float
    measurement: str
    host: str
    sources: dict[str, tuple[str, str]]
    verify: str = ""


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


def opened(path: str, flags: int = os.O_RDONLY) -> int:
    """Opens a file for open(); no pipe, which would be waited for, and no device, which may never end."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(0, "Neither a file nor a folder")
    return os.open(path, flags, 0o666)


def text_of(path: str, faults: list[str], may_be_missing: bool = False) -> str:
    """What is in a text file; "" and one more of the faults where it cannot be read."""
    try:
        with open(path, encoding="utf-8", opener=opened) as file:
            return file.read()
    except (OSError, ValueError) as error:
        if not (may_be_missing and isinstance(error, FileNotFoundError)):
            faults.append(
                f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}: make it text that this user can read"
            )
        return ""


def read_env_file(path: str, faults: list[str]) -> dict[str, str]:
    """The settings in an env-style file: NAME=value, quoted or not, with # comments. Every faulty line goes to the faults."""
    found = {}
    for number, line in enumerate(text_of(path, faults, may_be_missing=True).splitlines(), 1):
        match = re.fullmatch(ENV_LINE, line.strip())
        if match and match[1] in (*SETTINGS, *PASSED_ON):
            found[match[1]] = match[3] or match[4] or ""
        elif match:
            faults.append(
                f"{path}: line {number}: {match[1]} is no setting (known: {', '.join((*SETTINGS, *PASSED_ON))})"
            )
        elif line.strip() and not line.strip().startswith("#"):
            faults.append(
                f"{path}: line {number} is not NAME=value (not shown, it may hold a secret)"
            )
    return found


def read_settings(environ: Environ, folder: str, script: str, env_file: str = ENV_FILE) -> Settings:
    """All settings, from the file, the environment, this script, in this order; ReportError names every fault at once."""
    path, faults = os.path.join(folder, env_file), list[str]()
    in_file = read_env_file(path, faults)
    environ.update(
        (name, in_file[name]) for name in PASSED_ON if name in in_file
    )  # where requests looks for them
    sources = {name: (default, script) for name, (default, _) in SETTINGS.items()}
    if environ.get("INFLUXDB_USER") in ("1", "2"):
        sources["INFLUXDB_VERSION"] = (
            environ["INFLUXDB_USER"],
            "INFLUXDB_USER, as the published hook has it",
        )
    sources.update(
        {name: (environ[name], "the environment") for name in SETTINGS if name in environ}
    )
    sources.update({name: (in_file[name], path) for name in SETTINGS if name in in_file})
    if not sources["HOSTNAME"][0].strip():
        sources["HOSTNAME"] = (os.uname().nodename, "the host itself")
    value = {name: found.strip() for name, (found, _) in sources.items()}
    for name, text in value.items():
        pattern, must_be = RULES.get(name, (r".*", "one line of text"))
        if not re.fullmatch(pattern, text) or CONTROL.search(text):
            faults.append(f"{name} is {'wrong' if text else 'empty'}: it must be {must_be}")
    token, token_file = value["INFLUXDB_TOKEN"], value["INFLUXDB_TOKEN_FILE"]
    if token and token_file:
        faults.append("INFLUXDB_TOKEN and INFLUXDB_TOKEN_FILE are both set: keep one")
    elif token_file:
        token = text_of(token_file, faults).strip()
        if not token or CONTROL.search(token):
            faults.append(
                "INFLUXDB_TOKEN_FILE is wrong: it must name a file that holds the token, on one line, and nothing else"
            )
    if faults:
        raise ReportError(
            "; ".join(faults) + f" (settings: {path}, the environment, the top of {script})"
        )
    url, version, timeout = (
        value["INFLUXDB_URL"].rstrip("/"),
        int(value["INFLUXDB_VERSION"]),
        float(value["INFLUXDB_TIMEOUT"]),
    )
    bucket, org, measurement, host = (
        value[name] for name in ("INFLUXDB_BUCKET", "INFLUXDB_ORG", "MEASUREMENT", "HOSTNAME")
    )
    return Settings(
        url, version, bucket, org, token, timeout, measurement, host, sources, value["VERIFY"]
    )


# ---- Certificates ----------------------------------------------------------------------------------------------------
class Certificate(NamedTuple):
    """The certificate of a lineage, as it lies on disk; the moments in Unix seconds."""

    lineage: str
    names: list[str]
    not_before: int
    not_after: int
    renewal_due: int


def read_certificate(path: str, lineage: str, conf: str = "") -> Certificate:
    """The certificate in a file, of a lineage with this text as its renewal configuration; ReportError where none can be read."""
    try:
        os.close(opened(path))  # for the system's own words; OpenSSL's are another language
        # Private, but in every Python from 3.6 to 3.14, while the cryptography package is not on every install.
        decoded: dict[str, Any] = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
        not_before, not_after = (
            ssl.cert_time_to_seconds(decoded[key]) for key in ("notBefore", "notAfter")
        )
        # Certificates spell IPv6 out; certbot, and so the published hook, writes the short form.
        found = [
            (kind, name.strip().lower())
            for kind, name in decoded.get("subjectAltName", ())
            if kind in ("DNS", "IP Address")
        ]
        names = [name if kind == "DNS" else str(ipaddress.ip_address(name)) for kind, name in found]
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = (
            "not a certificate" if isinstance(error, (ssl.SSLError, ValueError)) else error.strerror
        )
        raise ReportError(
            f"{path}: {reason}: look at it as root, with: certbot certificates"
        ) from None
    return Certificate(
        lineage, names, not_before, not_after, due(not_before, not_after, renew_before_expiry(conf))
    )


class Disk(NamedTuple):
    """All lineages of a host: the certificates that can be read, what is wrong with which lineage, and with the folders themselves."""

    lineages: set[str]
    certificates: list[Certificate]
    broken: dict[str, str]  # by lineage
    faults: list[str]


def on_disk(folder: str) -> Disk:
    """What certbot's configuration folder holds. A lineage is in live/ and in renewal/: where one half is missing, it is broken."""
    disk = Disk(set(), [], {}, [])
    for place, ending in (("live", ""), ("renewal", ".conf")):
        path = os.path.join(folder, place)
        try:
            entries = [
                name
                for name in os.listdir(path)
                if (name.endswith(ending) if ending else os.path.isdir(os.path.join(path, name)))
            ]
            disk.lineages.update(
                name[: len(name) - len(ending)]
                for name in entries
                if name.isprintable() and name[0] != "."
            )  # as certbot
            disk.faults.extend(
                f"{path}: {name!a} is no name of a lineage: remove it"
                for name in entries
                if not name.isprintable()
            )
        except OSError as error:
            disk.faults.append(
                f"{path}: {error.strerror}: run as root, or name certbot's configuration folder with --config-dir"
            )
    for lineage in sorted(disk.lineages):
        path, wrong = os.path.join(folder, "renewal", lineage + ".conf"), list[str]()
        conf = text_of(path, wrong)
        missing = [
            key
            for key in ("cert", "privkey", "chain", "fullchain")
            if not re.search(rf"(?m)^[ \t]*{key}[ \t]*=[ \t]*\S", conf)
        ]
        missing += [] if re.search(r"(?m)^[ \t]*\[renewalparams\]", conf) else ["[renewalparams]"]
        wrong += (
            [f"{path}: {', '.join(missing)} missing, certbot cannot renew it"]
            if missing and not wrong
            else []
        )
        try:
            disk.certificates.append(
                read_certificate(os.path.join(folder, "live", lineage, "cert.pem"), lineage, conf)
            )
        except ReportError as error:
            wrong.append(str(error))
        if wrong:
            disk.broken[lineage] = "; ".join(wrong)
    return disk


def older_certificates(
    folder: str, disk: Disk, after: dict[str, int], faults: list[str]
) -> list[Certificate]:
    """The predecessors that certbot still keeps in archive/, for each lineage those that began after a moment (Unix seconds)."""
    older = []
    for lineage in (
        found.lineage
        for found in disk.certificates
        if found.not_before > after.get(found.lineage, 0)
    ):
        current = re.fullmatch(
            r"(.*cert)(\d{1,4})(\.pem)",
            os.path.realpath(os.path.join(folder, "live", lineage, "cert.pem")),
        )
        paths = (
            (f"{current[1]}{number}{current[3]}" for number in range(int(current[2]) - 1, 0, -1))
            if current
            else ()
        )
        for path in filter(os.path.exists, paths):
            try:
                found = read_certificate(
                    path, lineage, text_of(os.path.join(folder, "renewal", lineage + ".conf"), [])
                )
                if found.not_before <= after.get(lineage, 0):
                    break
                older.append(found)
            except ReportError as error:
                faults.append(f"{error}. That renewal was not reported")
    return older


def due(not_before: int, not_after: int, before_expiry: str = "") -> int:
    """When certbot renews, Unix seconds: `renew_before_expiry` before the end, else when a third of the lifetime is left, or a
    half if the lifetime is under ten days (certbot 4.0 and newer). Never before notBefore: certbot then renews at every run."""
    lifetime = not_after - not_before
    usual = not_after - (lifetime // 2 if lifetime < 10 * DAY else lifetime // 3)
    moment = before(not_after, before_expiry)
    return max(usual if moment is None else moment, not_before)


def before(moment: int, interval: str) -> int | None:
    """The moment an interval earlier, as certbot reads it (with parsedatetime): `30`, `3 weeks`, `720 hours`; None if it is none."""
    if not re.fullmatch(r"(\d{1,6}(\.\d+)?\s*([smhdwy][a-z]*[\s,]*|$)){1,9}", interval.lower()):
        return None
    for amount, unit in re.findall(r"([\d.]+)\s*(mo|mth|[smhdwy]|$)", interval.lower()):
        if unit in ("mo", "mth", "y"):
            then = time.gmtime(moment)
            year, month = divmod(
                then.tm_year * 12
                + then.tm_mon
                - 1
                - int(float(amount)) * (12 if unit == "y" else 1),
                12,
            )
            day = min(then.tm_mday, calendar.monthrange(max(year, 1970), month + 1)[1])
            moment = calendar.timegm((max(year, 1970), month + 1, day, *then[3:6]))
        else:
            moment -= int(float(amount) * {"s": 1, "m": 60, "h": 3600, "w": 7 * DAY}.get(unit, DAY))
    return moment


def renew_before_expiry(conf: str) -> str:
    """The setting in the text of a renewal configuration, "" if it is not set. It counts only above the first section."""
    match = re.search(
        r"""(?m)^[ \t]*renew_before_expiry[ \t]*=[ \t]*["']?([^"'#\n]*)""",
        re.split(r"(?m)^[ \t]*\[", conf)[0],
    )
    return match[1].strip() if match else ""


# ---- Served ----------------------------------------------------------------------------------------------------------
Place = tuple[str, int, str]  # host, port, the name to ask for


def places_of(settings: Settings, found: Certificate) -> list[Place]:
    """Where VERIFY wants a certificate looked for: each of its names but wildcards, which no server can be asked for."""
    entries = [
        match.groups("")
        for match in (re.fullmatch(PLACE, part) for part in settings.verify.split())
        if match
    ]
    names = [name for name in found.names if not name.startswith("*")]
    chosen = [entry for entry in entries if entry[0] == found.lineage] or [
        entry for entry in entries if not entry[0]
    ]
    return sorted(
        {
            (host.strip("[]") or name, int(port), name)
            for _, host, port in chosen
            if port
            for name in names or [host]
            if name
        }
    )


def looked_at(places: set[Place]) -> dict[Place, Any]:
    """The certificate (DER) that is served at each place, or in words why none is, of 50 places at a time."""
    seen: dict[Place, Any] = dict.fromkeys(places, "no answer")
    queue, context = (
        iter(sorted(places)),
        ssl._create_unverified_context(),
    )  # which one it is counts, not whose

    def work() -> None:
        for place in queue:
            try:
                with (
                    socket.create_connection(place[:2], CONNECT) as plain,
                    context.wrap_socket(plain, server_hostname=place[2]) as peer,
                ):
                    seen[place] = peer.getpeercert(True)
            except (OSError, ValueError, OverflowError) as error:  # the last for a port above 65535
                seen[place] = root_cause(error)

    workers, both = (
        [threading.Thread(target=work, daemon=True) for _ in list(places)[:50]],
        (threading.Thread.start, threading.Thread.join),
    )
    in_time(
        (2 + len(places) // 50) * CONNECT,
        lambda: [step(worker) for step in both for worker in workers],
    )
    return dict(seen)


def served_fields(
    settings: Settings, folder: str, disk: Disk, faults: list[str], now: int
) -> dict[str, tuple[str, str]]:
    """What is served of each lineage that VERIFY is about: fields of its state, and words. Where nobody answers, what was known stays. A
    certificate that lies on disk under another lineage is as good: a name may have two."""
    wanted = {
        found.lineage: places
        for found in disk.certificates
        if (places := places_of(settings, found))
    }
    seen, fields = looked_at({place for places in wanted.values() for place in places}), {}
    paths = {
        os.path.join(folder, "live", found.lineage, "cert.pem"): found
        for found in disk.certificates
    }
    present = {
        binascii.a2b_base64(x): it
        for p, it in paths.items()
        for x in re.findall(r"(?s)E-----(.+?)-----END", text_of(p, faults))
    }
    for lineage, at in wanted.items():
        answers = {place: seen[place] for place in at if isinstance(seen[place], bytes)}
        others = {
            n if (h, p) == (n, 443) else f"{n}@{h}:{p}": der
            for (h, p, n), der in answers.items()
            if not fits(present.get(der), lineage, n)
        }
        known = f",seen_at={now}i,served_expiry={min(map(end_of, others.values()), default=0)}i,not_served={quoted(sorted(others) or ['none'])}"
        well, other = (
            len(answers) - len(others),
            f", another one for {' '.join(sorted(others))}" if others else "",
        )
        fields[lineage] = (
            f",looked_at={now}i,served={well}i{known if answers else ''}",
            f", served at {well} of {len(at)}{other}",
        )
        if not answers:
            faults.append(
                f"nobody answers for {lineage} at {at[0][0]}:{at[0][1]} ({seen[at[0]]}): correct VERIFY, or add {lineage}=none"
            )
    if strange := sorted(
        {part.partition("=")[0] for part in settings.verify.split() if "=" in part} - disk.lineages
    ):
        faults.append(
            f"VERIFY speaks of {' '.join(strange)}, which is no lineage here: see certbot certificates"
        )
    return fields


def fits(found: Certificate | None, lineage: str, name: str) -> bool:
    """Whether what is served lies on disk, as the lineage's certificate, or as another's that holds the name, perhaps by a wildcard."""
    return found is not None and (
        found.lineage == lineage
        or not {name, f"*.{name.partition('.')[2]}"}.isdisjoint(found.names)
    )


def end_of(der: bytes) -> int:
    """When a certificate ends, Unix seconds, from its Validity: two times, one after the other (RFC 5280, 4.1.2.5); 0 if it has none."""
    found = re.search(
        rb"\x30.(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)[\x17\x18].(\d{12,14})Z", der, re.DOTALL
    )
    with contextlib.suppress(TypeError, ValueError):
        text = found[1].decode()  # type: ignore[index]
        return calendar.timegm(
            time.strptime(
                text if len(text) == 14 else ("20" if text < "5" else "19") + text, "%Y%m%d%H%M%S"
            )
        )
    return 0


# ---- Points ----------------------------------------------------------------------------------------------------------
def escaped(text: str, special: str = ",= ") -> str:
    """A measurement or tag for line protocol, which cannot hold control characters, nor backslashes that would escape: now _ and /."""
    text = CONTROL.sub("_", text.encode("utf-8", "replace").decode())
    return re.sub(rf"([{special}])", r"\\\1", re.sub(rf"\\(?=[{special}]|$)", "/", text))


def point(settings: Settings, fields: str, moment: int, **tags: str) -> str:
    """One line of line protocol. Tags in the order of the alphabet, as InfluxDB wants them; a tag without a value is left out."""
    pairs = [
        f"{key}={escaped(value)}"
        for key, value in sorted({**tags, "host": settings.host}.items())
        if value
    ]
    return f"{','.join([escaped(settings.measurement, ', '), *pairs])} {fields} {moment}"


def renewal_points(
    settings: Settings,
    lineage: str,
    names: Sequence[str],
    moment: int,
    lifetime: int = 0,
    due_after: int = 0,
) -> list[str]:
    """What the published hook wrote, at the time of the certificate: repeating it changes nothing. And for how many seconds it lives, after
    how many it is due (0: not known), and its names. These fields always: the history relies on it."""
    told = f"renewed_count={len(names)},lifetime={lifetime}i,due_after={due_after}i,names={quoted(names or ['none'])}"
    whole = point(settings, told, moment, domain="all", lineage=lineage)
    return [whole, *(point(settings, "renewed_count=1", moment, domain=name) for name in names)]


def renewal_of(settings: Settings, found: Certificate) -> list[str]:
    """The renewal that a certificate proves."""
    lifetime, due_after = found.not_after - found.not_before, found.renewal_due - found.not_before
    return renewal_points(
        settings, found.lineage, found.names, found.not_before, lifetime, due_after
    )


def state_point(
    settings: Settings, found: Certificate, run_at: int, now: int, served: str = ""
) -> str:
    """What is on disk now, and `served`, if that is known. The four fields always: the queries rely on it."""
    fields = {
        "not_before": found.not_before,
        "renewal_due": found.renewal_due,
        "not_after": found.not_after,
        "run_at": run_at,
    }
    return point(
        settings,
        ",".join(f"{key}={value}i" for key, value in fields.items()) + served,
        now,
        domain="all",
        lineage=found.lineage,
    )


def end_points(settings: Settings, lineages: Sequence[str], now: int) -> list[str]:
    """The last states of lineages that are no longer on this host."""
    return [
        state_point(settings, Certificate(lineage, [], 0, 0, 0), now, now) for lineage in lineages
    ]


def run_point(
    settings: Settings, disk: Disk, failed: Sequence[str] | None, exit_status: int | None, now: int
) -> str:
    """How the last run of certbot left this host; `failed` and `exit_status` only where they are known: by hand they are not."""
    fields = f"certificates={len(disk.certificates)}i,unreadable_count={len(disk.broken)}i"
    # Both or none: where strings and times of points are not kept, as in VictoriaMetrics, the last of each must be of one run.
    fields += (
        ""
        if failed is None
        else f",failed_count={len(failed)}i,exit_status={-1 if exit_status is None else exit_status}i"
    )
    for name, found in (("failed", failed), ("unreadable", sorted(disk.broken))):
        fields += (
            f",{name}={quoted(found)}" if found else ""
        )  # Flux 0.196 (InfluxDB 1.12) mixes up rows with empty strings
    return point(settings, fields, now)


def delivery_points(
    settings: Settings,
    folder: str,
    found: Sequence[Certificate],
    run_at: int,
    now: int,
    faults: list[str],
) -> list[str]:
    """What certbot_renewal_deliver.py noted: which certificate each target has, beside the one on disk, and why it has no newer one."""
    renewed, points = {certificate.lineage: certificate.not_before for certificate in found}, []
    for lineage, target, has, begin, end, error in re.findall(
        DELIVERY, text_of(os.path.join(folder, DEPLOY_FILE), faults, True)
    ):
        if has == "ended" or lineage in renewed:
            fields = f"deployed={begin}i,deployed_expiry={end}i,renewed={0 if has == 'ended' else renewed[lineage]}i,run_at={run_at}i"
            points.append(
                point(
                    settings,
                    f"{fields},deploy_error={quoted([error or 'none'])}",
                    now,
                    lineage=lineage,
                    target=target,
                )
            )
    return points


def quoted(names: Sequence[str]) -> str:
    """Names as the value of a string field, separated by a space; as many as InfluxDB takes (64 KiB), the counts tell of the others."""
    text = CONTROL.sub("_", " ".join(names).encode("utf-8", "replace").decode())
    text = (
        text if len(text) <= 15_000 else text[:15_000].rpartition(" ")[0] + " ..."
    )  # a character is four bytes at most
    return '"' + re.sub(r'([\\"])', r"\\\1", text) + '"'


# ---- Delivery --------------------------------------------------------------------------------------------------------
REMEDIES = (  # (what a server says, status first; what to do about it): the first that fits. InfluxDB 1.8, 1.12, 2.9, Telegraf 1.39
    (r"orgID or org|organization name", "set INFLUXDB_ORG to the organization's name"),
    (
        r"^401",
        "set INFLUXDB_TOKEN to a valid token, or to user:password on 1.x; Telegraf's influxdb_v2_listener wants INFLUXDB_VERSION=2",
    ),
    (r"^403", "give the token, or the user, in INFLUXDB_TOKEN the right to write to {bucket}"),
    (
        r"retention policy not found",
        "create it, or correct what stands behind the slash in INFLUXDB_BUCKET",
    ),
    (
        r"^404 .*(bucket|database)",
        "create {bucket}, or correct INFLUXDB_BUCKET, or give the token access to it",
    ),
    (
        r"^40[45]",
        "set INFLUXDB_VERSION={other} (1: before 1.8, and Telegraf's influxdb_listener), or correct the path in INFLUXDB_URL",
    ),
    (r"^(5|429)|max-(values|series)-per", "look at the server's log"),
    (
        r"new tag",
        "give the table all its tags: influxdb3 create table --database {bucket} --tags domain,host,lineage,target {measurement}",
    ),
    (r"conflict", "set MEASUREMENT to another name: something else writes other types to this one"),
    (
        r"retention policy",
        "set the clock of this host, or let INFLUXDB_BUCKET keep points for longer",
    ),
    (r"", "correct INFLUXDB_URL, or what stands between this host and InfluxDB"),
)
NO_FLUX = (
    ", which has no Flux: it keeps the reports, but flux/, kapacitor/ and the board cannot ask it"
)


class Answer(NamedTuple):
    """How one request ended: `error` is "" when the report was stored, perhaps with a `remark`; `again` says that another try may help."""

    error: str = ""
    again: bool = False
    retry_after: float = 0.0  # seconds, the server's wish
    remark: str = ""
    date: str = ""  # the server's clock


def load_requests() -> Any:
    """The requests library, loaded only when something is sent: the rest works without it."""
    try:
        import requests
    except ImportError:
        raise ReportError(
            f"no requests library for {sys.executable}: apt-get install python3-requests, or pip install requests"
        ) from None
    return requests


def write_url(settings: Settings) -> str:
    """Where a write goes; times are seconds."""
    if settings.version == 2:
        return f"{settings.url}/api/v2/write?" + urlencode(
            {"bucket": settings.bucket, "org": settings.org, "precision": "s"}
        )
    if settings.version == 3:
        return f"{settings.url}/api/v3/write_lp?" + urlencode(
            {"db": settings.bucket, "precision": "second"}
        )
    database, _, policy = settings.bucket.partition("/")
    return f"{settings.url}/write?" + urlencode({"db": database, "rp": policy, "precision": "s"})


def with_token(settings: Settings) -> Callable[[Any], Any]:
    """Puts the token on a request. Given as `auth`, since requests would let ~/.netrc overrule a header."""
    token = settings.token.encode("utf-8", "replace")
    value = (b"Bearer " if settings.version == 3 else b"Token ") + token
    if settings.version == 1 and b":" in token:  # InfluxDB before 1.8 knows no other way
        value = b"Basic " + binascii.b2a_base64(token, newline=False)

    def authorize(request: Any) -> Any:
        if token:
            request.headers["Authorization"] = value
        return request

    return authorize


def in_time(seconds: float, work: Callable[[], Any], late: Any = None) -> Any:
    """What the work returns, or `late`: a slow name server, or a server that drips, outlives every timeout that requests knows."""
    results = [late]
    worker = threading.Thread(target=lambda: results.append(work()), daemon=True)
    worker.start()
    worker.join(seconds)
    return results[-1]


def deliver(settings: Settings, lines: Sequence[str], droppable: int) -> Answer:
    """Sends the lines in one request, tried again until the timeout; so many points may be `droppable`, older than the bucket keeps."""
    requests, deadline, tries = load_requests(), time.monotonic() + settings.timeout, [0]
    answers = [
        Answer(
            f"no answer from {settings.url}: does it run, and is INFLUXDB_URL its address?",
            again=True,
        )
    ]

    def work() -> None:
        pause = 0.0
        while answers[-1].again and time.monotonic() + pause < deadline:
            time.sleep(pause)
            tries[0] += 1
            answers.append(try_once(requests, settings, lines, droppable, deadline, answers))
            pause = max(answers[-1].retry_after, 0.25 * 2 ** tries[0])

    in_time(settings.timeout, work)
    answer = answers[-1]
    effort = (
        f" (tried {tries[0]} times; INFLUXDB_TIMEOUT is {settings.timeout:g} s)"
        if answer.again
        else ""
    )
    return answer._replace(error=answer.error + effort)


def try_once(
    requests: Any,
    settings: Settings,
    lines: Sequence[str],
    droppable: int,
    deadline: float,
    answers: list[Answer],
) -> Answer:
    """One request, judged. What is known before the answer is complete goes to `answers`, should the deadline come first."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": f"{NAME}/{__version__}"}
    left = max(deadline - time.monotonic(), 0.1)
    sent = {"data": "\n".join(lines).encode(), "headers": headers, "auth": with_token(settings)}
    try:
        # No redirects: a POST would arrive as a GET, and a login page's 200 look like success. A stream: no more is read than a reason.
        with requests.post(
            write_url(settings),
            **sent,
            timeout=(left / 3, left),
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code == 204:
                return Answer(date=response.headers.get("Date", ""))
            answers.append(
                Answer(
                    f"{settings.url} answered {response.status_code} and never finished: is it InfluxDB?",
                    again=True,
                )
            )
            body = next(response.iter_content(8192), b"").decode("utf-8", "replace")
            return judge(settings, response.status_code, response.headers, body, droppable)
    except (requests.RequestException, OSError, ValueError) as error:
        cause, remedy = root_cause(error), "does it run, and is INFLUXDB_URL its address?"
        if isinstance(error, requests.exceptions.SSLError) or "CA certificate" in cause:
            remedy = "set REQUESTS_CA_BUNDLE to the file with your CA's certificate, or correct INFLUXDB_URL"
        return Answer(
            f"cannot reach {settings.url}: {cause}: {remedy}", again="certificate" not in cause
        )


def root_cause(error: BaseException) -> str:
    """What the system said, without the wrappings of urllib3 and requests."""
    while error.__context__ is not None:
        error = error.__context__
    return shortened(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def shortened(text: str) -> str:
    """Foreign words on one line, in ASCII and not too many."""
    return re.sub(r"[^\x21-\x7e]+", " ", text).strip()[:400]


def judge(settings: Settings, status: int, headers: Any, body: str, droppable: int) -> Answer:
    """What an answer other than 204 means, and what to do about it."""
    with contextlib.suppress(
        ValueError, AttributeError, TypeError, KeyError, RecursionError
    ):  # plain text, or JSON of another kind
        parsed = json.loads(body)
        each = [
            line["error_message"] for line in parsed.get("data") or ()
        ]  # InfluxDB 3, line by line
        body = str(parsed.get("message") or ", ".join(each) or parsed.get("error") or body)
    dropped = re.search(
        r"points beyond retention policy.*?dropped=(\d+)|dropped (\d+) points outside retention policy",
        body,
    )
    if dropped and int(dropped[1] or dropped[2]) <= droppable:  # the others were stored
        return Answer(
            remark="; what is older than the bucket keeps was not stored",
            date=headers.get("Date", ""),
        )
    if status < 300:
        return Answer(
            f"{settings.url} answered {status}, where InfluxDB answers 204: it is something else, correct INFLUXDB_URL"
        )
    if status < 400:
        place = shortened(re.sub(r"[?#].*|(?<=//)[^/@]*@", "", headers.get("Location", "")))
        return Answer(
            f"{settings.url} answered {status}, a redirect to {place or 'nowhere'}: set INFLUXDB_URL to InfluxDB itself"
        )
    wish, reason = (
        re.fullmatch(r"\d{1,6}", headers.get("Retry-After", "")),
        f"{status} {shortened(body)}",
    )
    named = {
        "bucket": settings.bucket,
        "measurement": settings.measurement,
        "other": 1 if settings.version == 2 else 2,
    }
    remedy = next(text for sign, text in REMEDIES if re.search(sign, reason)).format(**named)
    for secret in filter(
        None, (settings.token, *settings.token.split(":", 1))
    ):  # in JSON it may have been spelled otherwise
        body = body.replace(secret, "***")
    said = f"{status} {shortened(body) or 'nothing more'}" + (
        f" (Retry-After {wish[0]} s)" if wish else ""
    )
    again = status == 429 or (status >= 500 and "retention policy not found" not in reason)
    return Answer(
        f"{settings.url} answered {said}: {remedy}", again, float(wish[0]) if wish else 0.0
    )


# ---- Reports ---------------------------------------------------------------------------------------------------------
class Report(NamedTuple):
    """The lines to send, in words what they say of each certificate, and what is wrong, with its remedy, though they can be sent."""

    lines: list[str]
    says: list[str]
    renewals: int  # how many of the lines, the first, have the time of a certificate, which may be older than the bucket keeps
    faults: list[str]
    ended: Sequence[str] = ()  # likewise in words, of each lineage that is gone
    last: tuple[str, ...] = ()  # a line to send when all others were accepted
    known: str = (
        ""  # what to write into KNOWN_FILE after that: lineages, with notBefore of the certificate
    )


def report_of(
    settings: Settings,
    disk: Disk,
    now: int,
    run_reports: bool,
    folder: str = "",
    verify: bool = False,
) -> Report:
    """Renewals and state of all certificates. The time of a state is now, but never before its certificate began: a clock may be off."""
    renewals, states, says, faults = (
        list[str](),
        list[str](),
        list[str](),
        [*disk.faults, *disk.broken.values()],
    )
    served = (
        served_fields(settings, folder, disk, faults, now) if verify and settings.verify else {}
    )
    for found in disk.certificates:
        moment = max(now, found.not_before)
        if moment != now:
            faults.append(
                f"the clock of this host says {utc(now)}, before {found.lineage} was issued ({utc(moment)}): set the clock"
            )
        fields, words = served.get(found.lineage, ("", ""))
        renewals += renewal_of(settings, found)
        states.append(state_point(settings, found, moment if run_reports else 0, moment, fields))
        due = f"next renewal due {utc(found.renewal_due)}{words}"
        says.append(
            f"{found.lineage} renewed {utc(found.not_before)}, {len(found.names)} names, {due}"
        )
    states += (
        delivery_points(settings, folder, disk.certificates, now if run_reports else 0, now, faults)
        if folder
        else []
    )
    return Report([*renewals, *states], says, len(renewals), faults)


def deploy_report(settings: Settings, environ: Environ, folder: str, now: int) -> Report:
    """The renewal that certbot is telling of. What the certificate says counts: in a dry run certbot names what it was asked for."""
    names, live = (
        environ.get("RENEWED_DOMAINS", "").split(),
        environ.get("RENEWED_LINEAGE", "").strip(),
    )
    by_hand = (
        f"is empty or not set: certbot sets it for a deploy hook. By hand use {NAME}.py --check"
    )
    try:
        if not live:
            raise ReportError(
                f"RENEWED_LINEAGE {by_hand}" if names else f"RENEWED_DOMAINS {by_hand}"
            )
        live = os.path.abspath(live)
        lineage, certbot = os.path.basename(live), os.path.dirname(os.path.dirname(live))
        conf = text_of(
            os.path.join(certbot, "renewal", lineage + ".conf"), []
        )  # without it the certificate's own dates still hold
        found = read_certificate(os.path.join(live, "cert.pem"), lineage, conf)
        disk = Disk(
            {lineage},
            [found],
            {},
            []
            if names
            else [f"RENEWED_DOMAINS {by_hand}. The names of the certificate were reported"],
        )
        known = known_lineages(folder, disk.faults)
        new = (
            known is not None and lineage not in known and lineage.isprintable() and not disk.faults
        )  # or its end were not told
        return report_of(settings, disk, now, known is not None, folder)._replace(
            known=f"{lineage} 0\n" if new else ""
        )
    except ReportError as error:
        if not names:
            raise
        lines = renewal_points(settings, os.path.basename(live.rstrip("/")), names, now)
        return Report(
            lines,
            [f"{names[0]}, {len(names)} names"],
            0,
            [f"{error}. Reported as renewed now, without state"],
        )


def known_lineages(folder: str, faults: list[str]) -> dict[str, int] | None:
    """The lineages of the last run report, with notBefore of their certificates; None where there was none."""
    path = os.path.join(folder, KNOWN_FILE)
    lines = re.findall(r"(?m)^(.+) (\d{1,12})$", text_of(path, faults, may_be_missing=True))
    return {name: int(begin) for name, begin in lines} if os.path.exists(path) else None


def run_report(
    settings: Settings, environ: Environ, folder: str, now: int, in_post: bool, history: bool
) -> Report:
    """Every certificate on disk, what ended since the last run report, and how certbot's run went. From certbot's post hook, which comes
    only when something was due, it is no run report: nothing is known of the days when it does not come."""
    disk = on_disk(folder)
    known = known_lineages(folder, disk.faults)
    report = report_of(
        settings, disk, now, not in_post or known is not None, folder, verify=not in_post
    )  # servers restart after hooks
    status, after = exit_status_of(environ, report.faults), {} if history else known
    last = (run_point(settings, disk, failed_lineages(disk, environ, status, now), status, now),)
    older = (
        [] if after is None else older_certificates(folder, disk, after, report.faults)
    )  # a first one starts with what there is
    renewals = [line for found in older for line in renewal_of(settings, found)]
    report = report._replace(
        lines=renewals + report.lines, renewals=len(renewals) + report.renewals, last=last
    )
    if in_post or disk.faults:  # where not all is seen, nothing is missed
        return report
    ended = sorted(set(known or {}) - disk.lineages)
    report.lines.extend(end_points(settings, ended, now))
    begin = {
        **dict.fromkeys(disk.broken, 0),
        **{found.lineage: found.not_before for found in disk.certificates},
    }
    known_now = "".join(
        [
            f"# run report of {utc(now)}\n",
            *(f"{lineage} {moment}\n" for lineage, moment in sorted(begin.items())),
        ]
    )
    return report._replace(ended=[f"{lineage} ended" for lineage in ended], known=known_now)


def from_stdin() -> str:
    """What is piped into this program; "" at a terminal."""
    try:
        with open(0, "rb", closefd=False) as stdin:
            return "" if stdin.isatty() else stdin.read().decode("utf-8", "replace")
    except OSError:
        return ""


def dry_run_report(settings: Settings, said: str, now: int) -> Report:
    """How each lineage fared in a dry run, by what certbot printed (2.1 to 5.8): fields of their own, neither a renewal nor a run."""
    why = dict(re.findall(r"(?m)^Failed to renew certificate (.+?) with error: (.*)$", said))
    ends = {
        live or conf: "" if how == "success" else why.get(live, how)
        for live, conf, how in re.findall(DRY_RUN, said)
    }
    if not ends or "simulated renewals" not in said:
        remedy = f"certbot renew --dry-run 2>&1 | {NAME}.py --after-dry-run"
        raise ReportError(
            f"stdin tells of no dry run: {remedy}. What it says: {shortened(said) or 'nothing'}"
        )
    fields = {
        name: f"dry_run_failed={int(end != '')}i,dry_run_error={quoted([shortened(end) or 'none'])}"
        for name, end in ends.items()
    }
    failed = (
        ", failed: " + " ".join(name for name, end in ends.items() if end)
        if any(ends.values())
        else ", none failed"
    )
    points = [
        point(settings, text, now, domain="all", lineage=name) for name, text in fields.items()
    ]
    return Report(points, [f"dry run of {len(ends)} certificates{failed}"], 0, [])


def exit_status_of(environ: Environ, faults: list[str]) -> int | None:
    """certbot's exit status from EXIT_STATUS, as systemd sets it for ExecStopPost: a number, or after a signal its name, here 128 more."""
    text = environ.get("EXIT_STATUS", "").strip()
    meaning = {
        **{found.name[3:]: 128 + found for found in signal.Signals},
        **{str(number): number for number in range(256)},
        "": None,
    }
    if text not in meaning:
        faults.append(
            f"EXIT_STATUS is wrong: it must be certbot's exit status, a number, or a signal's name. Reported without: {text}"
        )
    return meaning.get(text)


def failed_lineages(
    disk: Disk, environ: Environ, exit_status: int | None, now: int
) -> list[str] | None:
    """The lineages that are due, and were not renewed: after a failed run all that are due, else those whose names certbot gives in
    FAILED_DOMAINS (it gives those of a dry run and of a forced renewal too, which are not due). None where nothing tells of a run."""
    if exit_status is None and "FAILED_DOMAINS" not in environ:
        return None
    late, names = (
        (found for found in disk.certificates if found.renewal_due <= now),
        set(environ.get("FAILED_DOMAINS", "").split()),
    )
    return [found.lineage for found in late if exit_status or names.intersection(found.names)]


def retirement(
    settings: Settings, folder: str, host: str, lineages: Sequence[str], now: int
) -> Report:
    """The end of lineages that are no longer on another host, or on this one."""
    if host and host != settings.host:
        settings = settings._replace(host=host)
    elif present := on_disk(folder).lineages.intersection(lineages):
        remedies = [
            f"{name} is still on this host: certbot delete --cert-name {name}"
            for name in sorted(present)
        ]
        raise ReportError("; ".join([*remedies, "another host is named with --host"]))
    return Report(
        end_points(settings, lineages, now),
        [],
        0,
        [],
        [f"{lineage} on {settings.host} ended" for lineage in lineages],
    )


def keep(folder: str, report: Report) -> None:
    """Writes what the next run report must know, after this one was delivered: whatever happens, the file is the old one or the new one."""
    path = os.path.join(folder, KNOWN_FILE)
    try:
        if report.known:
            with open(path + ".new", "w", encoding="utf-8", opener=opened) as file:
                file.write(
                    ("" if report.last else text_of(path, [])) + report.known
                )  # a deploy hook adds to it
            os.replace(path + ".new", path)
    except OSError as error:
        remedy = "make it writable, or a certificate that ends must be told with --retire"
        say(f"{NAME}: warning: {path}: {error.strerror}: {remedy}", stream=sys.stderr)


def utc(moment: float) -> str:
    """A moment for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def send(settings: Settings, report: Report, folder: str) -> tuple[list[str], bool]:
    """Delivers a report and says so on stdout; returns what is wrong, with the clock too, as the server's answer shows it, and whether
    another try may help."""
    faults, remark, answer = list(report.faults), "", Answer()
    batches = [
        (report.lines[at : at + BATCH], max(0, min(report.renewals - at, BATCH)))
        for at in range(0, len(report.lines), BATCH)
    ]
    for lines, droppable in [*batches, *(([line], 0) for line in report.last)]:
        answer = deliver(settings, lines, droppable)
        if answer.error:
            return [*faults, answer.error], answer.again
        remark = answer.remark or remark
    what = (
        report.says
        if len(report.says) == 1 or (report.ended and not report.says)
        else [f"{len(report.says)} certificates"]
    )
    say(
        f"{'; '.join([*what, *report.ended])}: reported into {settings.bucket} at {settings.url}{remark}"
    )
    keep(folder, report)
    with contextlib.suppress(ValueError, OverflowError, OSError):  # no date
        server, now = calendar.timegm(parsedate(answer.date) or ()), time.time()
        if abs(server - now) > 300:
            faults.append(
                f"the clock of this host says {utc(now)}, the server's {utc(server)}: set the wrong one"
            )
    return faults, False


def pipe(report: Report, folder: str) -> list[str]:
    """Writes a report to stdout, its times in nanoseconds, as Telegraf's exec input expects them; returns what is wrong."""
    try:
        with open(1, "wb", closefd=False) as out:
            out.write(
                "".join(f"{line}000000000\n" for line in [*report.lines, *report.last]).encode()
            )
    except OSError as error:
        raise ReportError(f"stdout: {error.strerror}: nothing was taken") from None
    keep(folder, report)
    return report.faults


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


def warnings_of(settings: Settings, folder: str) -> list[str]:
    """What does not keep a report from being sent, but will hurt one day."""
    found = []
    if re.fullmatch(r"[0-9a-f]{12}|[0-9a-f]{64}", settings.host):
        found.append(
            f"the host tag {settings.host} is a container's id, which changes: set HOSTNAME in {folder}/{ENV_FILE}"
        )
    token, source = settings.sources["INFLUXDB_TOKEN"]
    for path in (source if token else "", settings.sources["INFLUXDB_TOKEN_FILE"][0]):
        if os.path.isfile(path) and os.stat(path).st_mode & 0o004:
            found.append(f"{path} holds the token and everybody may read it: chmod o= {path}")
    return found


def starters_of(folder: str) -> str:
    """What starts run reports on this system, in words: the files that name this script and --all, and the post hook."""
    line = re.compile(rf"(?m)^[^#\n]*{NAME}\.py.*--all")
    post = os.path.join(folder, "renewal-hooks", "post", f"{NAME}.py")
    found = [
        path
        for pattern in STARTERS
        for path in sorted(glob(pattern, recursive=True))
        if line.search(text_of(path, []))
    ]
    return (
        ", ".join([*found, *([post] if os.access(post, os.X_OK) else [])])
        or "nothing that is known here"
    )


def server_kind(requests: Any, settings: Settings) -> str:
    """What answers at INFLUXDB_URL, by what it says of itself; in words, whatever happens."""

    def ask(path: str) -> tuple[Any, str]:
        with requests.get(
            settings.url + path,
            timeout=5,
            allow_redirects=False,
            stream=True,
            auth=with_token(settings),
        ) as answer:
            return answer.headers, b"".join(
                itertools.islice(answer.iter_content(8192), 100)
            ).decode("utf-8", "replace")

    def says(path: str, what: str) -> str:
        return shortened("".join(re.findall(rf'^{what}"([^"]*)"', ask(path)[1], re.MULTILINE)[:1]))

    try:
        headers, _ = ask("/ping")
        if version := shortened(headers.get("X-Influxdb-Version", "")):
            kind = (
                "Telegraf listener "
                if version == "1.0"
                else ""
                if "Telegraf" in version
                else "InfluxDB "
            )
            return kind + version + (NO_FLUX if re.match("v?3", version) else "")
        if "X-Server-Hostname" in headers:
            version = says("/metrics", r"vm_app_version\{.*short_version=")
            return f"VictoriaMetrics {version}".rstrip() + too_short(
                says("/metrics", r'flag\{name="retentionPeriod", value=')
            )
        version = says("/api/v1/status/buildinfo", '.*"version":')
        return f"Prometheus {version}" if version else "InfluxDB unknown"
    except (requests.RequestException, OSError, ValueError) as error:
        return f"none: {root_cause(error)}"


def too_short(retention: str) -> str:
    """What to say of VictoriaMetrics' -retentionPeriod (months, or with a unit), where a certificate may live longer."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdwy]?)", retention.rstrip("M"))
    days = (
        float(found[1]) * {"h": 1 / 24, "d": 1, "w": 7, "y": 365, "": 31}[found[2]]
        if found
        else 400
    )
    return (
        ""
        if days >= 400
        else f", which keeps points for {days:g} days: an alert ends with them, start it with -retentionPeriod=400d"
    )


def check(settings: Settings, report: Report, folder: str, script: str) -> list[str]:
    """Proves the installation, with a real write; prints what it sees and returns what is wrong."""
    deploy, mode, faults, requests = (
        os.path.join(folder, "renewal-hooks", "deploy"),
        os.stat(script).st_mode,
        list[str](),
        load_requests(),
    )
    if os.path.realpath(os.path.dirname(script)) != os.path.realpath(deploy):
        faults.append(f"{script} is not in {deploy}, where certbot would run it: copy it there")
    if not mode & 0o111:
        faults.append(f"{script} is not executable, so certbot ignores it: chmod 755 {script}")
    shown = {
        name: "***" if name == "INFLUXDB_TOKEN" and value else value or "(empty)"
        for name, (value, _) in settings.sources.items()
    }
    say(
        *(f"{name:20} {value:24} from {settings.sources[name][1]}" for name, value in shown.items())
    )
    kind = in_time(5, lambda: server_kind(requests, settings), "none: no answer")
    last = (
        text_of(os.path.join(folder, KNOWN_FILE), [], may_be_missing=True)
        .partition("\n")[0]
        .replace("# run report of", "last")
    )
    say(
        f"{'this file':20} {script}, mode {mode & 0o7777:o}",
        f"{'run reports':20} {last or 'none yet'}, started by {starters_of(folder)}",
    )
    say(f"{'server':20} {kind}", *(f"{'certificate':20} {text}" for text in report.says))
    faults += warnings_of(settings, folder)
    if kind.startswith("Prometheus"):
        faults.append(
            "Prometheus takes no line protocol: set INFLUXDB_URL to vmagent or a Telegraf listener, which pass points on to it"
        )
    else:
        faults += send(settings, report, folder)[0] if report.lines else report.faults
    if not faults:
        say(
            f"ready: renewals will be reported into {settings.bucket} at {settings.url}, as host {settings.host}"
        )
    return faults


def command_line() -> argparse.ArgumentParser:
    """What may be given; its help ends in the table of settings."""
    table = "".join(
        f"\n  {name:20} {default or '(empty)':22} {meaning}"
        for name, (default, meaning) in SETTINGS.items()
    )
    places = f"settings, from {ENV_FILE} in certbot's configuration folder, else the environment, else the top of this file:"
    parser = argparse.ArgumentParser(
        f"{NAME}.py",
        description=(__doc__ or "").partition("\n")[0],
        epilog=places + table,
        add_help=False,
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-h", "--help", action="store_true", help="print this")
    parser.add_argument(
        "--all",
        action="store_true",
        help="the run report: every certificate, and how certbot's run went",
    )
    parser.add_argument(
        "--history",
        action="store_true",
        help="with --all: the renewals of older certificates in archive/, too",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="HOURS",
        help="with --all: while InfluxDB is away, try for so long",
    )
    parser.add_argument(
        "--stdout",
        action="store_true",
        help="with --all: print the report, for Telegraf's exec input; send nothing",
    )
    parser.add_argument(
        "--retire",
        nargs="+",
        metavar="NAME",
        help="tell that certificates are no longer on this host",
    )
    parser.add_argument("--host", default="", help="with --retire: on that host, by its HOSTNAME")
    parser.add_argument(
        "--after-dry-run",
        action="store_true",
        help="tell how certbot renew --dry-run went, from what it printed: stdin",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="prove the installation, with a real write of the certificates present",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the lines and where they would go, send nothing",
    )
    parser.add_argument("--config-dir", metavar="DIR", help="certbot's configuration folder")
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


def main(arguments: Sequence[str], environ: Environ, script: str = __file__) -> int:
    """Runs the hook and returns the exit status: 0 stored, 1 not stored or something to be mended, 2 wrong usage."""
    parser, script = command_line(), os.path.abspath(script)
    given = parser.parse_args(arguments)
    alone = given.after_dry_run and (given.all or given.check or given.retire)
    if (
        ((given.history or given.stdout or given.patience) and not given.all)
        or (given.host and not given.retire)
        or alone
    ):
        parser.error(
            "--history, --patience and --stdout go with --all, --host with --retire, --after-dry-run with none of these"
        )
    if given.help or given.version:
        say(*(parser.format_help().splitlines() if given.help else [f"{NAME} {__version__}"]))
        return 0
    folder = given.config_dir or config_folder(script, environ.get("RENEWED_LINEAGE", ""))
    turn, mine = os.path.join(folder, TURN_FILE), f"{os.getpid()} {time.time()}"
    pause, until = 1.0, time.monotonic() + given.patience * 3600

    def take_turn() -> None:
        with contextlib.suppress(OSError), open(turn, "w", encoding="utf-8") as file:
            file.write(mine)

    of_a_run = (
        given.all
        and environ.get("EXIT_STATUS")
        and not (given.patience or given.dry_run or given.stdout)
    )
    waiting = text_of(turn, [], may_be_missing=True) if of_a_run else ""
    if given.patience:
        take_turn()
    faults, again = report_once(given, environ, script, folder, True)
    if waiting and not again and text_of(turn, []) == waiting:  # it is of an earlier run
        take_turn()
    while again and time.monotonic() + pause < until:
        time.sleep(pause)
        if text_of(turn, []) not in (
            mine,
            "",
        ):  # a later run of certbot reports; how this one ended would look like news
            return 0
        pause = min(2 * pause, PAUSE)
        faults, again = report_once(
            given, environ, script, folder, False
        )  # with what is on disk then
    if faults:
        say(f"{NAME}: {'not ready: ' if given.check else ''}{'; '.join(faults)}", stream=sys.stderr)
    return 1 if faults else 0


def report_once(
    given: argparse.Namespace, environ: Environ, script: str, folder: str, first: bool
) -> tuple[list[str], bool]:
    """Does what the arguments ask for; returns what is wrong, and whether another try may help. Only the first try tells warnings."""
    now, again = int(time.time()), False
    in_post = (
        os.path.dirname(script).endswith(os.path.join("", "renewal-hooks", "post"))
        and not given.all
    )
    try:
        settings = read_settings(environ, folder, script)
        if given.retire:
            report = retirement(settings, folder, given.host, given.retire, now)
        elif given.after_dry_run:
            report = dry_run_report(settings, from_stdin(), now)
        elif given.all or (in_post and not given.check):
            report = run_report(settings, environ, folder, now, in_post, given.history)
        elif given.check or (
            given.dry_run
            and not environ.get("RENEWED_DOMAINS")
            and not environ.get("RENEWED_LINEAGE")
        ):
            disk = on_disk(folder)
            report = report_of(
                settings,
                disk,
                now,
                known_lineages(folder, disk.faults) is not None,
                folder,
                verify=given.check,
            )
            if not disk.lineages and not disk.faults:
                report.faults.append(
                    f"{folder}/live: no certificate: get one with certbot, or name its folder with --config-dir"
                )
        else:
            report = deploy_report(settings, environ, folder, now)
        if given.check:
            faults = check(settings, report, folder, script)
        elif given.dry_run:
            lines = [*report.lines, *report.last]
            say(*lines, f"# {len(lines)} lines, not sent; they would go to {write_url(settings)}")
            faults = report.faults
        elif given.stdout:
            faults = pipe(report, folder)
        else:
            say(
                *(f"{NAME}: warning: {text}" for text in warnings_of(settings, folder) if first),
                stream=sys.stderr,
            )
            faults, again = send(settings, report, folder)
    except ReportError as error:
        faults = [str(error)]
    return faults, again


if __name__ == "__main__":
    gc.disable()  # it ends before there is anything to collect: 5 % of its time
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is no reason for a traceback
    sys.exit(main(sys.argv[1:], os.environ))
