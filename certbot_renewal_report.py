#!/usr/bin/env python3
"""Reports certbot's renewals to InfluxDB: a deploy hook in one file.

Copy it into /etc/letsencrypt/renewal-hooks/deploy, make it executable, run it there once with --check.
Needs Python 3.9 and requests (Debian: python3-requests). It reads the certificate that certbot has just renewed
and writes, as line protocol, when it was renewed, for which names, and when the next renewal is due.
"""

from __future__ import annotations

import argparse
import binascii
import calendar
import ipaddress
import json
import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from email.utils import parsedate
from typing import Any, NamedTuple, TextIO

__version__ = "0.1.0"

# ---- Settings --------------------------------------------------------------------------------------------------------
# Name: (default, meaning). Set them in certbot_renewal_report.env in certbot's configuration folder or in the environment
# (the file wins: it is there on purpose), or edit the defaults here. This table is also what --help and the README print.
SETTINGS: dict[str, tuple[str, str]] = {
    "INFLUXDB_URL": ("http://127.0.0.1:8086", "InfluxDB 1.x, 2.x (3 takes writes too), or a Telegraf listener"),
    "INFLUXDB_VERSION": ("2", "2: /api/v2/write; 1: /write (before 1.8, and Telegraf's influxdb_listener)"),
    "INFLUXDB_BUCKET": ("telegraf", "bucket; or database, or database/retention_policy"),
    "INFLUXDB_ORG": ("", "organization; 2.x needs it"),
    "INFLUXDB_TOKEN": ("", "token, or user:password on 1.x"),
    "INFLUXDB_TOKEN_FILE": ("", "a file that holds the token, instead of INFLUXDB_TOKEN"),
    "INFLUXDB_TIMEOUT": ("10", "seconds for all tries together"),
    "MEASUREMENT": ("certbot_renewal", "measurement"),
    "HOSTNAME": ("", "host tag; empty: the host's name. A container must set it"),
}
MAY_BE_EMPTY = ("INFLUXDB_ORG", "INFLUXDB_TOKEN", "INFLUXDB_TOKEN_FILE", "HOSTNAME")
PASSED_ON = ("REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "INFLUXDB_USER")  # the file may set these too
ENV_FILE = "certbot_renewal_report.env"
KNOWN_FILE = "certbot_renewal_report.known"  # made by run reports only: that it exists says that they are installed
NAME = "certbot_renewal_report"
DAY = 86400
Environ = MutableMapping[str, str]


class ReportError(Exception):
    """What an administrator has to mend: the text names the setting and the remedy, and holds no secret."""


class Settings(NamedTuple):
    """The settings, valid. `timeout` is in seconds; `sources` says where each one comes from."""

    url: str
    version: int
    bucket: str
    org: str
    token: str
    timeout: float
    measurement: str
    host: str
    sources: dict[str, tuple[str, str]]  # name: (value, source)

    def target(self) -> str:
        """Where reports go, in words."""
        return f"{self.url}, {'bucket' if self.version == 2 else 'database'} {self.bucket}"


def config_folder(script: str, lineage: str = "") -> str:
    """certbot's configuration folder: the one whose hooks this file lies in, else the lineage's, else /etc/letsencrypt."""
    hooks = os.path.dirname(os.path.dirname(os.path.abspath(script)))
    if os.path.basename(hooks) == "renewal-hooks":
        return os.path.dirname(hooks)
    live = os.path.dirname(os.path.abspath(lineage)) if lineage else ""
    return os.path.dirname(live) if os.path.basename(live) == "live" else "/etc/letsencrypt"


def read_env_file(path: str) -> dict[str, str]:
    """The settings in an env-style file: `NAME=value`, `export`, quotes and # comments as a shell has them."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ReportError(f"{path}: {reason}: make it a text file that the user who runs certbot can read, or remove it") from None
    found, faults = {}, []
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(
            r"""\s*(?:export\s+)?(\w+)=(?:"([^"]*)"|'([^']*)'|([^"'\s]\S*(?:[ \t]+[^#\s]\S*)*)?)\s*(?:(?<=\s)#.*)?""", line
        )
        if match and (match[1] in SETTINGS or match[1] in PASSED_ON):
            found[match[1]] = next((value for value in match.groups()[1:] if value is not None), "")
        elif match:
            faults.append(f"line {number}: {match[1]} is no setting (known: {', '.join([*SETTINGS, *PASSED_ON[:4]])})")
        elif line.strip() and not line.lstrip().startswith("#"):
            faults.append(f"line {number} is not NAME=value (its text is not shown: it may hold a secret)")
    if faults:
        raise ReportError(f"{path}: {'; '.join(faults)}")
    return found


def read_settings(environ: Environ, folder: str) -> Settings:
    """All settings, from the file, the environment, this script, in this order; ReportError names every fault at once."""
    path = os.path.join(folder, ENV_FILE)
    in_file = read_env_file(path)
    environ.update((name, value) for name, value in in_file.items() if name in PASSED_ON)  # where requests looks for them
    sources = {}
    for name, (default, _) in SETTINGS.items():
        where = (
            (in_file[name], path) if name in in_file else (environ[name], "environment") if name in environ else (default, "this script")
        )
        sources[name] = (where[0].strip(), where[1])
    if sources["INFLUXDB_VERSION"][1] == "this script" and environ.get("INFLUXDB_USER") in ("1", "2"):
        sources["INFLUXDB_VERSION"] = (environ["INFLUXDB_USER"], "INFLUXDB_USER, as the published hook read it")
    if not sources["HOSTNAME"][0]:
        sources["HOSTNAME"] = (os.uname().nodename, "the host's name")
    value = {name: found[0] for name, found in sources.items()}
    faults = [
        f"{name} is empty: set it, or remove the line and get {SETTINGS[name][0]}"
        for name in SETTINGS
        if not value[name] and name not in MAY_BE_EMPTY
    ]
    faults += [
        f"{name} has a line break or control character: remove it" for name in SETTINGS if re.search(r"[\x00-\x1f\x7f]", value[name])
    ]
    if value["INFLUXDB_URL"]:
        faults += url_faults(value["INFLUXDB_URL"])
    if value["INFLUXDB_VERSION"] not in ("", "1", "2"):
        faults.append(
            f"INFLUXDB_VERSION is {value['INFLUXDB_VERSION']}: set 2 (InfluxDB 1.8 and up), or 1 (older, and Telegraf's influxdb_listener)"
        )
    timeout = re.fullmatch(r"\d{1,5}(\.\d+)?", value["INFLUXDB_TIMEOUT"])
    if value["INFLUXDB_TIMEOUT"] and not (timeout and float(timeout[0]) > 0):
        faults.append(f"INFLUXDB_TIMEOUT is {value['INFLUXDB_TIMEOUT']}: set a number of seconds above 0, such as 10")
    if value["MEASUREMENT"].startswith(("#", "_")):
        faults.append("MEASUREMENT begins with # or _, which InfluxDB does not take: set another, such as certbot_renewal")
    token = value["INFLUXDB_TOKEN"]
    if value["INFLUXDB_TOKEN_FILE"]:
        token, token_fault = read_token(value["INFLUXDB_TOKEN_FILE"], token)
        faults += token_fault
    if faults:
        raise ReportError("; ".join(faults) + f". Settings come from {path}, the environment and the top of the script")
    return Settings(
        url=value["INFLUXDB_URL"].rstrip("/"),
        version=int(value["INFLUXDB_VERSION"]),
        bucket=value["INFLUXDB_BUCKET"],
        org=value["INFLUXDB_ORG"],
        token=token,
        timeout=float(value["INFLUXDB_TIMEOUT"]),
        measurement=value["MEASUREMENT"],
        host=value["HOSTNAME"],
        sources=sources,
    )


def url_faults(url: str) -> list[str]:
    """What is wrong with INFLUXDB_URL; it is shown only where it cannot hold a password."""
    if "@" in url:
        return ["INFLUXDB_URL has credentials in it: move them to INFLUXDB_TOKEN, as user:password"]
    if not re.match(r"https?://", url):
        return [f"INFLUXDB_URL is {url}: begin it with http:// or https://, such as http://127.0.0.1:8086"]
    if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/:?#\[\]]+)(:\d{1,5})?(/[^\s?#]*)?", url):
        return [
            f"INFLUXDB_URL is {url}: set scheme, host and port only, such as http://127.0.0.1:8086 or http://[::1]:8086, no spaces, no ?"
        ]
    return []


def read_token(path: str, token: str) -> tuple[str, list[str]]:
    """The token in the file, and what is wrong with it."""
    if token:
        return "", ["INFLUXDB_TOKEN and INFLUXDB_TOKEN_FILE are both set: keep one"]
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        return "", [f"INFLUXDB_TOKEN_FILE is {path}: {reason}: write the token there, readable for the user who runs certbot"]
    if not token or re.search(r"[\x00-\x1f\x7f]", token):
        return "", [f"INFLUXDB_TOKEN_FILE is {path}: it must hold the token alone, on one line"]
    return token, []


# ---- Certificates ----------------------------------------------------------------------------------------------------
class Certificate(NamedTuple):
    """The certificate of a lineage, as it lies on disk; the moments in Unix seconds."""

    lineage: str
    names: list[str]
    not_before: int
    not_after: int
    renewal_due: int


def read_certificate(live: str) -> Certificate:
    """The certificate of the lineage whose folder in live/ is given; ReportError if there is none or it cannot be read."""
    path, live = os.path.join(live, "cert.pem"), os.path.abspath(live)
    try:
        # Private, but in every Python from 3.6 to 3.14, while the cryptography package is not on every install.
        decoded: dict[str, Any] = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
        not_before, not_after = (ssl.cert_time_to_seconds(decoded[key]) for key in ("notBefore", "notAfter"))
    except ssl.SSLError:  # an OSError too, but what it says is OpenSSL's own language, and differs by version
        try:
            with open(path, "rb"):
                reason = "is not a certificate"
        except OSError as error:
            reason = error.strerror or "cannot be read"
        raise ReportError(f"{path}: {reason}: look at it with: certbot certificates") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: {getattr(error, 'strerror', None) or error}: look at it with: certbot certificates") from None
    # Certificates spell IPv6 out; certbot, and so the published hook, writes the short form.
    names = [
        str(ipaddress.ip_address(value.strip())) if kind == "IP Address" else value.lower()
        for kind, value in decoded.get("subjectAltName", ())
        if kind in ("DNS", "IP Address")
    ]
    conf = os.path.join(os.path.dirname(os.path.dirname(live)), "renewal", os.path.basename(live) + ".conf")
    return Certificate(
        os.path.basename(live), list(dict.fromkeys(names)), not_before, not_after, due(not_before, not_after, renew_before_expiry(conf))
    )


def due(not_before: int, not_after: int, before_expiry: str = "") -> int:
    """When certbot renews, Unix seconds: `renew_before_expiry` before the end, else when a third of the lifetime is left, or a
    half if the lifetime is under ten days (certbot 4.0 and newer). Never before notBefore: certbot then renews at every run."""
    lifetime = not_after - not_before
    moment = before(not_after, before_expiry) if before_expiry else None
    if moment is None:
        moment = not_after - (lifetime // 2 if lifetime < 10 * DAY else lifetime // 3)
    return max(moment, not_before)


def before(moment: int, interval: str) -> int | None:
    """The moment that lies an interval earlier, as certbot reads it with parsedatetime: `30`, `30 days`, `3 weeks`, `720 hours`,
    `1 month`; None if it is no interval."""
    seconds, months = 0.0, 0
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)[\s,]*", interval.lower())
    if not parts or not re.fullmatch(r"\s*(\d+(\.\d+)?\s*[a-z]*[\s,]*)+", interval.lower()):
        return None
    for amount, unit in parts:
        if re.fullmatch(r"m(on(th)?|th)s?|y(ea)?rs?|y", unit):
            months += int(float(amount) * (12 if unit.startswith("y") else 1))
        elif match := re.fullmatch(r"(s)(ec(ond)?s?)?|(m)(in(ute)?s?)?|(h)((ou)?rs?)?|(d)(ays?)?|(w)((ee)?ks?)?|()", unit):
            factor = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY, "": DAY}
            seconds += float(amount) * factor[match[0][:1]]
        else:
            return None
    if months:
        then = time.gmtime(moment)
        year, month = divmod(then.tm_year * 12 + then.tm_mon - 1 - months, 12)
        day = min(then.tm_mday, calendar.monthrange(year, month + 1)[1])
        moment = calendar.timegm((year, month + 1, day, then.tm_hour, then.tm_min, then.tm_sec))
    return moment - int(seconds)


def renew_before_expiry(conf: str) -> str:
    """The setting of a renewal configuration, "" if it is not set. It counts only above the first section."""
    try:
        with open(conf, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.lstrip().startswith("["):
                    break
                if match := re.match(r"""\s*renew_before_expiry\s*=\s*["']?([^"'#\n]*)""", line):
                    return match[1].strip()
    except OSError:
        pass  # without the configuration certbot would not renew at all; the certificate's own dates still hold
    return ""


# ---- Points ----------------------------------------------------------------------------------------------------------
def escaped(text: str, special: str = ",= ") -> str:
    """A measurement or tag for line protocol. A backslash before a special character or at the end cannot be written in it
    (InfluxDB would take it for an escape), nor can a control character: they become / and _."""
    text = re.sub(r"[\x00-\x1f\x7f]", "_", text.encode("utf-8", "replace").decode())
    text = re.sub(rf"\\(?=[{special}]|$)", "/", text)
    return re.sub(rf"([{special}])", r"\\\1", text)


def point(settings: Settings, fields: str, moment: int, **tags: str) -> str:
    """One line of line protocol. Tags in the order of the alphabet, as InfluxDB wants them; a tag without a value is left out."""
    pairs = [f"{key}={escaped(value)}" for key, value in sorted({**tags, "host": settings.host}.items()) if value]
    return f"{','.join([escaped(settings.measurement, ', '), *pairs])} {fields} {moment}"


def renewal_points(settings: Settings, lineage: str, names: Sequence[str], moment: int) -> list[str]:
    """What the published hook wrote, at the time of the certificate: repeating it changes nothing."""
    whole = point(settings, f"renewed_count={len(names)}", moment, domain="all", lineage=lineage)
    return [whole, *(point(settings, "renewed_count=1", moment, domain=name) for name in names)]


def state_point(settings: Settings, certificate: Certificate, run_at: int, now: int) -> str:
    """What is on disk now. All four fields, always: the queries rely on it."""
    fields = (
        f"not_before={certificate.not_before}i,renewal_due={certificate.renewal_due}i,not_after={certificate.not_after}i,run_at={run_at}i"
    )
    return point(settings, fields, now, domain="all", lineage=certificate.lineage)


# ---- Delivery --------------------------------------------------------------------------------------------------------
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
            f"the requests library is missing for {sys.executable}: apt-get install python3-requests, or pip install requests"
        ) from None
    return requests


def write_request(settings: Settings) -> tuple[str, dict[str, str]]:
    """The address and the parameters of a write; times are seconds."""
    if settings.version == 2:
        return settings.url + "/api/v2/write", {"bucket": settings.bucket, "org": settings.org, "precision": "s"}
    database, _, policy = settings.bucket.partition("/")
    return settings.url + "/write", {"db": database, "rp": policy, "precision": "s"}


def with_token(settings: Settings) -> Callable[[Any], Any]:
    """Puts the token on a request. Given as `auth`, since requests would let ~/.netrc overrule a header."""
    token = settings.token.encode()

    def authorize(request: Any) -> Any:
        if token and settings.version == 1 and b":" in token:  # InfluxDB before 1.8 knows no other way
            request.headers["Authorization"] = b"Basic " + binascii.b2a_base64(token, newline=False)
        elif token:
            request.headers["Authorization"] = b"Token " + token
        return request

    return authorize


def deliver(settings: Settings, lines: Sequence[str], droppable: int) -> Answer:
    """Sends the lines in one request; tries again, with back-off, until the timeout for all tries is over. Raises ReportError.
    `droppable` of the points may be older than the bucket's retention."""
    requests = load_requests()
    deadline = time.monotonic() + settings.timeout
    answers = [Answer(f"no answer from {settings.url}: does it run, and is INFLUXDB_URL its address?", again=True)]
    tries = [0]
    done = threading.Event()

    def work() -> None:
        while True:
            tries[0] += 1
            answer = try_once(requests, settings, lines, droppable, deadline, answers)
            answers.append(answer)
            pause = max(answer.retry_after, 0.25 * 2 ** tries[0])
            if not answer.again or time.monotonic() + pause >= deadline:
                return done.set()
            time.sleep(pause)

    # In a thread of its own: a slow name server, or a server that drips, outlives every timeout that requests knows.
    threading.Thread(target=work, daemon=True).start()
    done.wait(settings.timeout)
    answer = answers[-1]
    if answer.error:
        raise ReportError(
            hidden(settings, answer.error)
            + (f" (tried {tries[0]}x within INFLUXDB_TIMEOUT, {settings.timeout:g} s)" if answer.again else "")
        )
    return answer


def try_once(requests: Any, settings: Settings, lines: Sequence[str], droppable: int, deadline: float, answers: list[Answer]) -> Answer:
    """One request, judged. What is known before the answer is complete goes to `answers`, should the deadline come first."""
    url, parameters = write_request(settings)
    left = max(deadline - time.monotonic(), 0.1)
    try:
        with requests.post(
            url,
            params=parameters,
            data="\n".join(lines).encode(),
            headers={"Content-Type": "text/plain; charset=utf-8", "User-Agent": f"{NAME}/{__version__}"},
            auth=with_token(settings),
            timeout=left,
            allow_redirects=False,  # a POST would arrive as a GET, and a login page's 200 would look like success
            stream=True,  # never read more of an answer than its reason
        ) as response:
            if response.status_code == 204:
                return Answer(date=response.headers.get("Date", ""))
            answers.append(
                Answer(f"{settings.url} answered {response.status_code} and never finished its answer: is it InfluxDB?", again=True)
            )
            body = next(response.iter_content(8192), b"").decode("utf-8", "replace")
            return judge(settings, response.status_code, response.headers, body, droppable)
    except requests.exceptions.SSLError as error:
        return Answer(f"{settings.url}: {root_cause(error)}: set REQUESTS_CA_BUNDLE to your CA's file, or correct INFLUXDB_URL")
    except (requests.RequestException, OSError, ValueError) as error:
        if "CA certificate bundle" in str(error):
            return Answer("REQUESTS_CA_BUNDLE names a file that is not there: correct or unset it")
        return Answer(f"cannot reach {settings.url}: {root_cause(error)}: does it run, and is INFLUXDB_URL its address?", again=True)


def root_cause(error: BaseException) -> str:
    """What the system said, without the wrappings of urllib3 and requests."""
    while error.__context__ is not None:
        error = error.__context__
    return shortened(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def shortened(text: str) -> str:
    """A server's words on one line, in ASCII and not too many."""
    return re.sub(r"[^\x21-\x7e]+", " ", text).strip()[:400]


def hidden(settings: Settings, text: str) -> str:
    """The text without the token, and without the password in it, should a server repeat them."""
    for secret in (settings.token, settings.token.partition(":")[2]):
        text = text.replace(secret, "***") if secret else text
    return text


def judge(settings: Settings, status: int, headers: Any, body: str, droppable: int) -> Answer:
    """What an answer other than 204 means, and what to do about it. Status codes and texts: InfluxDB 1.8 to 2.9, Telegraf 1.39."""
    try:
        parsed = json.loads(body)
        reason = shortened(str(parsed.get("message") or parsed.get("error") or body))
    except (ValueError, AttributeError):
        reason = shortened(body)
    said = f"{settings.url} answered {status}: {reason or 'nothing more'}"
    if status == 204 or (
        (dropped := re.search(r"points beyond retention policy.*dropped=(\d+)|dropped (\d+) points outside retention policy", reason))
        and int(dropped[1] or dropped[2]) <= droppable
    ):
        return Answer(remark="; what is older than the bucket's retention was not kept", date=headers.get("Date", ""))
    if 300 <= status < 400:
        place = shortened(re.sub(r"[?#].*|(?<=//)[^/@]*@", "", headers.get("Location", "")))
        return Answer(f"{settings.url} answered {status}, a redirect to {place or 'nowhere'}: set INFLUXDB_URL to InfluxDB itself")
    if status < 300:
        return Answer(f"{settings.url} answered {status} where InfluxDB answers 204, so it is something else: correct INFLUXDB_URL")
    if status == 429 or (status >= 500 and "retention policy not found" not in reason):
        wish = headers.get("Retry-After", "")
        return Answer(
            f"{said}: wait, or look at the server's log", again=True, retry_after=float(wish) if re.fullmatch(r"\d{1,6}", wish) else 0.0
        )
    return Answer(f"{said}: {remedy(settings, status, reason)}")


def remedy(settings: Settings, status: int, reason: str) -> str:
    """What to do about a refusal."""
    other = 3 - settings.version
    if "orgID or org" in reason or "organization" in reason:
        return "set INFLUXDB_ORG to the organization's name"
    if "dbrp mapping" in reason:
        return "set INFLUXDB_VERSION=2"
    if status == 401:
        return "set INFLUXDB_TOKEN to a valid token, or to user:password on 1.x" + (
            "; for Telegraf's influxdb_v2_listener and InfluxDB 2 set INFLUXDB_VERSION=2" if other == 2 else ""
        )
    if status == 403:
        return f"give the token (INFLUXDB_TOKEN), or its user, the right to write to {settings.bucket}"
    if "retention policy not found" in reason:
        return "correct the part of INFLUXDB_BUCKET behind the slash, or create the retention policy"
    if "page not found" in reason or status == 405:
        return f"set INFLUXDB_VERSION={other}, or correct the path in INFLUXDB_URL" + (
            " (before 1.8, and Telegraf's influxdb_listener, want 1)" if other == 1 else ""
        )
    if status == 404:
        return f"create {settings.bucket}, or correct INFLUXDB_BUCKET"
    if "retention policy" in reason:
        return "is the clock of this host right, and does INFLUXDB_BUCKET keep points for more than a few hours?"
    if "conflict" in reason:
        return "something else writes to this measurement with other types: set MEASUREMENT to another name"
    return "correct INFLUXDB_URL or what stands between this host and InfluxDB"


# ---- Reports ---------------------------------------------------------------------------------------------------------
class Report(NamedTuple):
    """The lines to send, in words what they say, and what is wrong (each with its remedy) though they can be sent."""

    lines: list[str]
    says: str
    renewals: int = 0  # how many of the lines have the time of a certificate, which may be older than the bucket keeps
    faults: Sequence[str] = ()


def report_of(settings: Settings, folder: str, certificates: Iterable[Certificate], now: int) -> Report:
    """Renewals and state of certificates. The time of a state is now, but never before its certificate began: a clock may be off."""
    run_reports = os.path.exists(os.path.join(folder, KNOWN_FILE))
    renewals, states, faults, says = [], [], [], []
    for certificate in certificates:
        moment = max(now, certificate.not_before)
        if moment != now:
            faults.append(f"the clock of this host says {utc(now)}, before {certificate.lineage} was issued ({utc(moment)}): set the clock")
        renewals += renewal_points(settings, certificate.lineage, certificate.names, certificate.not_before)
        states.append(state_point(settings, certificate, moment if run_reports else 0, moment))
        said = f"{certificate.lineage} renewed {utc(certificate.not_before)}, {len(certificate.names)} names"
        says.append(f"{said}, due {utc(certificate.renewal_due)}")
    return Report([*renewals, *states], "; ".join(says), len(renewals), faults)


def deploy_report(settings: Settings, environ: Environ, folder: str, now: int) -> Report:
    """The report of the renewal that certbot is telling of. What the certificate says counts: certbot gives a dry run's names too."""
    names, live = environ.get("RENEWED_DOMAINS", "").split(), environ.get("RENEWED_LINEAGE", "").strip()
    by_hand = f"certbot sets it for a deploy hook. By hand: {NAME}.py --check, or certbot renew --dry-run --run-deploy-hooks"
    if not live and not names:
        raise ReportError(f"RENEWED_DOMAINS and RENEWED_LINEAGE are empty or not set, nothing to report: {by_hand}")
    faults = [] if names else [f"RENEWED_DOMAINS is empty or not set, the certificate's names were taken: {by_hand}"]
    try:
        if not live:
            raise ReportError(f"RENEWED_LINEAGE is empty or not set: {by_hand}")
        certificate = read_certificate(live)
        report = report_of(settings, folder, [certificate], now)
        return report._replace(faults=[*faults, *report.faults])
    except ReportError as error:
        if not names:
            raise
        lineage = os.path.basename(os.path.abspath(live)) if live else ""
        lines = renewal_points(settings, lineage, names, now)
        return Report(
            lines, f"{lineage or names[0]}, {len(names)} names, at the current time", 0, [f"{error}. Reported without state: renewed now"]
        )


def present_certificates(folder: str) -> tuple[list[Certificate], list[str]]:
    """Every certificate in live/, and what could not be read."""
    live, found, faults = os.path.join(folder, "live"), [], []
    try:
        entries = sorted(entry.path for entry in os.scandir(live) if entry.is_dir())
    except OSError as error:
        return [], [f"{live}: {error.strerror}: run as the user who runs certbot, or name certbot's folder with --config-dir"]
    for path in entries:
        try:
            found.append(read_certificate(path))
        except ReportError as error:
            faults.append(str(error))
    return found, faults


def utc(moment: float) -> str:
    """A moment for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def send(settings: Settings, report: Report, now: int) -> list[str]:
    """Delivers a report and says so on stdout; returns the faults, what the answer shows of the clock included."""
    answer = deliver(settings, report.lines, report.renewals)
    say(f"{report.says}: reported to {settings.target()}{answer.remark}")
    faults = list(report.faults)
    server = parsedate(answer.date)
    if server and abs(calendar.timegm(server) - now) > 300 + settings.timeout:
        faults.append(f"the clock of this host says {utc(now)}, the server's {utc(calendar.timegm(server))}: set the clock that is wrong")
    return faults


# ---- Command line ----------------------------------------------------------------------------------------------------
def say(text: str, stream: TextIO | None = None) -> None:
    """One line, in ASCII (certbot fails a lineage whose hook prints anything that is not UTF-8); a closed pipe is no failure."""
    stream = stream or sys.stdout
    try:
        print(re.sub(r"[\x00-\x1f]", " ", text).encode("ascii", "backslashreplace").decode(), file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or the interpreter complains when it flushes at its end


def complain(text: str) -> None:
    """One line on stderr."""
    say(f"{NAME}: {text}", sys.stderr)


def check(settings: Settings, folder: str, script: str, now: int) -> int:
    """Proves the installation, with a real write; the last line is the verdict."""
    for name, (value, source) in settings.sources.items():
        say(f"{name:20} {'***' if name == 'INFLUXDB_TOKEN' and value else value or '(empty)':30} from {source}")
    faults, place = [], os.path.abspath(script)
    say(f"this file: {place}")
    if os.path.basename(os.path.dirname(place)) != "deploy" or os.path.basename(os.path.dirname(os.path.dirname(place))) != "renewal-hooks":
        faults.append(f"{place} is not in {folder}/renewal-hooks/deploy, so certbot runs it only if --deploy-hook names it: copy it there")
    if not os.access(place, os.X_OK):
        faults.append(f"{place} is not executable, so certbot ignores it: chmod 755 {place}")
    say(f"server: {server_kind(settings)}")
    certificates, unreadable = present_certificates(folder)
    faults += unreadable
    for certificate in certificates:
        say(f"certificate: {report_of(settings, folder, [certificate], now).says}")
    if certificates:
        report = report_of(settings, folder, certificates, now)
        try:
            faults += send(settings, report._replace(says=f"{len(certificates)} certificates"), now)
        except ReportError as error:
            faults.append(str(error))
    elif not unreadable:
        faults.append(
            f"no certificate in {folder}/live, so nothing was sent: get one with certbot first, or name certbot's folder with --config-dir"
        )
    faults += warnings_of(settings, folder)
    if faults:
        complain("not ready: " + "; ".join(faults))
        return 1
    say(f"ready: certbot's renewals will be reported to {settings.target()}, as host {settings.host}")
    return 0


def server_kind(settings: Settings) -> str:
    """What answers at INFLUXDB_URL, from /ping; in words, whatever happens."""
    requests = load_requests()
    try:
        with requests.get(
            settings.url + "/ping", timeout=min(settings.timeout, 5), allow_redirects=False, stream=True, auth=with_token(settings)
        ) as answer:
            version = answer.headers.get("X-Influxdb-Version", "")
            telegraf = "Telegraf" in version or version == "1.0"
            return shortened(
                f"{'Telegraf listener' if telegraf else 'InfluxDB'} {version}"
                if version
                else f"unknown, /ping answered {answer.status_code}"
            )
    except (requests.RequestException, OSError, ValueError) as error:
        return f"none: {root_cause(error)}"


def warnings_of(settings: Settings, folder: str) -> list[str]:
    """What does not keep a report from being sent, but will hurt one day."""
    found = []
    if re.fullmatch(r"[0-9a-f]{12}|[0-9a-f]{64}", settings.host):
        found.append(
            f"the host tag {settings.host} is a container's id, which changes: set HOSTNAME to the host's name in {folder}/{ENV_FILE}"
        )
    for path in (os.path.join(folder, ENV_FILE), settings.sources["INFLUXDB_TOKEN_FILE"][0]):
        try:
            if (
                path
                and settings.token
                and os.stat(path).st_mode & 0o077
                and (path.endswith(ENV_FILE) is False or settings.sources["INFLUXDB_TOKEN"][1] == path)
            ):
                found.append(f"{path} holds the token and others may read it: chmod 600 {path}")
        except OSError:
            pass
    return found


def help_text() -> str:
    """The table of settings, as --help prints it."""
    rows = [f"  {name:20} {default or '(empty)':22} {meaning}" for name, (default, meaning) in SETTINGS.items()]
    return (
        "settings (name, default, meaning):\n"
        + "\n".join(rows)
        + f"\n\nfrom {ENV_FILE} in certbot's configuration folder, else the environment, else the top of this file"
    )


def main(arguments: Sequence[str], environ: Environ, script: str = __file__) -> int:
    """Runs the hook and returns the exit status: 0 stored, 1 not stored or something is to be mended, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog=f"{NAME}.py",
        description=(__doc__ or "").splitlines()[0],
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="prove the installation: settings, server, a real write of the certificates present"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the lines and where they would go, send nothing")
    parser.add_argument("--config-dir", metavar="DIR", help="certbot's configuration folder")
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    given = parser.parse_args(arguments)
    now = int(time.time())
    try:
        folder = given.config_dir or config_folder(script, environ.get("RENEWED_LINEAGE", ""))
        settings = read_settings(environ, folder)
        if given.check:
            return check(settings, folder, script, now)
        if given.dry_run and not environ.get("RENEWED_LINEAGE") and not environ.get("RENEWED_DOMAINS"):
            certificates, faults = present_certificates(folder)
            report = report_of(settings, folder, certificates, now)._replace(faults=faults)
        else:
            report = deploy_report(settings, environ, folder, now)
        if given.dry_run:
            for line in report.lines:
                say(line)
            url, parameters = write_request(settings)
            say(f"# {len(report.lines)} lines, not sent: POST {url} {' '.join(f'{key}={value}' for key, value in parameters.items())}")
            faults = list(report.faults)
        else:
            for text in warnings_of(settings, folder):
                complain(f"warning: {text}")
            faults = send(settings, report, now)
    except ReportError as error:
        complain(str(error))
        return 1
    for fault in faults:
        complain(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
