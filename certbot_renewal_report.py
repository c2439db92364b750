#!/usr/bin/env python3
"""Reports certbot's renewals to InfluxDB or VictoriaMetrics: a deploy hook in one file.

Copy this file into /etc/letsencrypt/renewal-hooks/deploy, make it executable, and run it there once
with --check. It needs Python 3.9 and requests. certbot starts the hook after each renewal. The hook
reads the renewed certificate, and reports its start, its names and the date of the next renewal.

The other programs of this project import this file: settings, certificates, points and sending are
here. The hook runs as root. It trusts certbot's configuration folder, which belongs to root, and
its environment. It does not trust the answers of the server.
"""

from __future__ import annotations

import binascii
import calendar
import contextlib
import gc
import ipaddress
import json
import os
import re
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from email.utils import parsedate
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, Union
from urllib.parse import urlencode

if TYPE_CHECKING:
    import argparse

__version__ = "0.1.0"

NAME = "certbot_renewal_report"
ENV_FILE = "certbot_renewal_report.env"
KNOWN_FILE = "certbot_renewal_report.known"
DELIVERY_STATE_FILE = "certbot_renewal_deliver.state"
DAY = 86400  # seconds

Environ = MutableMapping[str, str]

# Control characters, and the surrogates that stand for bytes that are not UTF-8.
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class ReportError(Exception):
    """Something that an administrator has to correct.

    The text names the setting and the remedy, and holds no secret.
    """


# ---- Settings ----------------------------------------------------------------------------------
URL = r"https?://(\[[\da-fA-F:.]+\]|[^\s/:?#@\[\]]+)(:\d{1,5})?(/[^\s?#@]*)?"

# One word of VERIFY: 443, mail.example.com:993, example.com=[::1]:443, example.com=none
VERIFY_WORD = r"""
    (?! none \b )
    (?: (?P<lineage> [^\s=]+ ) = )?
    (?:
        (?: (?P<host> \[ [\da-fA-F:.]+ \] | [^\s/:=\[\]]+ ) : )?
        (?P<port> \d{1,5} )
        | none
    )
"""
# A name may stand once in a pattern: without their names, the groups can be repeated.
VERIFY_WORD_UNNAMED = re.sub(r"[?]P<[a-z]+>", "", VERIFY_WORD)
VERIFY_WORDS = rf"(?: (?: {VERIFY_WORD_UNNAMED} ) (?: \s+ | $ ) )*"


class Setting(NamedTuple):
    """One setting: its default, its meaning for --help and the manual, and which values are valid.

    `pattern` must match the whole value. `must_be` says in words what it matches.
    """

    default: str
    meaning: str
    pattern: str = r".*"
    must_be: str = "one line of text"


# The values come from certbot_renewal_report.env, else from the environment, else from this table.
# --help and the manual print the table.
SETTINGS: dict[str, Setting] = {
    "INFLUXDB_URL": Setting(
        "http://127.0.0.1:8086",
        "address of InfluxDB, VictoriaMetrics or a Telegraf listener",
        URL,
        "http:// or https:// with a host and a port, such as http://127.0.0.1:8086 "
        "(put user and password into INFLUXDB_TOKEN)",
    ),
    "INFLUXDB_VERSION": Setting(
        "2",
        "2 for InfluxDB 1.8 to 2.x, 1 for older InfluxDB and Telegraf's influxdb_listener, "
        "3 for InfluxDB 3",
        r"[123]",
        "2 (InfluxDB 1.8 to 2.x), 1 (older InfluxDB, and Telegraf's influxdb_listener) "
        "or 3 (InfluxDB 3)",
    ),
    "INFLUXDB_BUCKET": Setting(
        "telegraf",
        "bucket; on InfluxDB 1.x the database, or database/retention_policy",
        r"[^/].*",
        "the name of a bucket or of a database",
    ),
    "INFLUXDB_ORG": Setting("", "organization; only InfluxDB 2.x needs it"),
    "INFLUXDB_TOKEN": Setting("", "token; on InfluxDB 1.x user:password"),
    "INFLUXDB_TOKEN_FILE": Setting("", "file that holds the token, instead of INFLUXDB_TOKEN"),
    "INFLUXDB_TIMEOUT": Setting(
        "10",
        "seconds in which a report must be sent, with all retries",
        r"(?=.*[1-9])[0-9]{1,5}(\.[0-9]{1,9})?",
        "a number of seconds above 0, such as 10",
    ),
    "MEASUREMENT": Setting(
        "certbot_renewal",
        "name of the measurement",
        r"[^#_].*",
        "a name that does not begin with # or _",
    ),
    "HOSTNAME": Setting("", "host tag; empty means the name of the host. Required in a container"),
    "VERIFY": Setting(
        "",
        "ports to check whether the renewed certificate is served: 443 or host:993; "
        "for one lineage NAME=host:443 or NAME=none",
        rf"(?x) {VERIFY_WORDS}",
        "port, host:port, NAME=port, NAME=host:port or NAME=none, separated by spaces",
    ),
}

# Variables that requests reads from the environment. The env file may set them too.
# INFLUXDB_USER: the published hook selects the API version by it.
FORWARDED_VARIABLES = (
    "REQUESTS_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "INFLUXDB_USER",
)

# Matches: export INFLUXDB_TOKEN='a b'   # comment
# Not every word is a name: a token alone on a line may end in ==, and must not be shown.
ENV_LINE = re.compile(
    r"""
    (?: export \s+ )?
    (?P<name> [A-Z_]{1,31} ) \s* = \s*
    (?:
        (?P<quote> ["'] ) (?P<quoted> [^\0]*? ) (?P=quote)
        # Without quotes: what does not begin with a quote, nor is a comment.
        | (?P<plain> (?! (?<=\s) \# ) [^"'\s\0] [^\0]*? )?
    )
    (?: (?<!\s) \s+ \# .* )?  # a comment
    """,
    re.VERBOSE,
)


class SettingSource(NamedTuple):
    """The text of a setting, not yet checked, and where it comes from, in words.

    `is_default`: neither the env file nor the environment sets it, so it is the script's default.
    """

    value: str
    origin: str
    is_default: bool = False


class Settings(NamedTuple):
    """The settings, checked.

    `timeout` is in seconds. `host` is the host tag. `verify` is the text of VERIFY, "" if no
    endpoint is checked. `sources` has, by name, each setting's text and its origin, for --check.
    """

    url: str
    version: int
    bucket: str
    org: str
    token: str
    timeout: float
    measurement: str
    host: str
    sources: dict[str, SettingSource]
    verify: str = ""


def config_folder(script: str, live_folder: str = "") -> str:
    """Return certbot's configuration folder.

    It is the folder in whose renewal-hooks the script is installed, else the folder to which the
    lineage's folder in live/ belongs, else /etc/letsencrypt.
    """
    hooks = os.path.dirname(os.path.dirname(os.path.abspath(script)))
    if os.path.basename(hooks) == "renewal-hooks":
        return os.path.dirname(hooks)

    live = os.path.dirname(os.path.abspath(live_folder))
    if live_folder and os.path.basename(live) == "live":
        return os.path.dirname(live)
    return "/etc/letsencrypt"


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a file, as an opener for open(); raise OSError for a pipe or a device.

    A pipe would block the hook until somebody writes into it, and a device may never end.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(0, "Neither a file nor a folder", path)
    return os.open(path, flags, 0o666)


def read_text(
    path: str, problems: list[str], may_be_missing: bool = False, newline: str | None = None
) -> str:
    """Return the text of a file; if it cannot be read, return "" and add to the problems.

    `newline` is that of open(): "" leaves the ends of lines as they are.
    """
    try:
        with open(path, encoding="utf-8", newline=newline, opener=open_regular) as file:
            return file.read()
    except FileNotFoundError as error:
        if not may_be_missing:
            problems.append(f"{path}: {error.strerror}: restore the file, or correct its path")
    except PermissionError as error:
        problems.append(f"{path}: {error.strerror}: run as root, or let this user read the file")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        problems.append(f"{path}: {reason}: replace it with a text file")
    return ""


def write_text(path: str, text: str) -> None:
    """Write a file, and wait until it is on the disk.

    Raise OSError if that fails, or if it is a pipe or a device.
    """
    with open(path, "w", encoding="utf-8", opener=open_regular) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_env_file(path: str, problems: list[str]) -> dict[str, str]:
    """Return the settings in an env file, by name; {} if there is no such file.

    A line is NAME=value, quoted or not, or a # comment. Each other line is added to the problems.
    """
    known_names = (*SETTINGS, *FORWARDED_VARIABLES)
    values = {}
    text = read_text(path, problems, may_be_missing=True)
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue

        match = ENV_LINE.fullmatch(stripped)
        if match is None:
            problems.append(
                f"{path}: line {number} is not NAME=value: correct the line "
                "(it is not shown because it may hold a secret)"
            )
        elif match["name"] not in known_names:
            known = ", ".join(known_names)
            problems.append(
                f"{path}: line {number}: {match['name']} is not a known setting: use one of {known}"
            )
        else:
            values[match["name"]] = match["quoted"] or match["plain"] or ""
    return values


def setting_sources(
    environ: Mapping[str, str], env_file: Mapping[str, str], env_path: str, script: str
) -> dict[str, SettingSource]:
    """Return each setting with its origin: the env file, else the environment, else the script."""
    sources = {
        name: SettingSource(setting.default, script, is_default=True)
        for name, setting in SETTINGS.items()
    }
    if environ.get("INFLUXDB_USER") in ("1", "2"):
        origin = "INFLUXDB_USER, as in the published hook"
        sources["INFLUXDB_VERSION"] = SettingSource(environ["INFLUXDB_USER"], origin)

    for name in SETTINGS:
        if name in env_file:
            sources[name] = SettingSource(env_file[name], env_path)
        elif name in environ:
            sources[name] = SettingSource(environ[name], "the environment")

    if not sources["HOSTNAME"].value.strip():
        sources["HOSTNAME"] = SettingSource(os.uname().nodename, "the name of this host")
    return sources


def setting_problems(values: Mapping[str, str]) -> list[str]:
    """Return a text for each setting whose value is not valid."""
    problems = []
    for name, value in values.items():
        setting = SETTINGS[name]
        if re.fullmatch(setting.pattern, value) and not CONTROL.search(value):
            continue
        if value:
            problems.append(f"{name} is not valid: it must be {setting.must_be}")
        else:
            problems.append(f"{name} is empty: it must be {setting.must_be}")
    return problems


def read_token(values: Mapping[str, str], problems: list[str]) -> str:
    """Return the token, set in INFLUXDB_TOKEN or in the file INFLUXDB_TOKEN_FILE; "" if not set."""
    token = values["INFLUXDB_TOKEN"]
    token_file = values["INFLUXDB_TOKEN_FILE"]
    if not token_file:
        return token
    if token:
        problems.append("INFLUXDB_TOKEN and INFLUXDB_TOKEN_FILE are both set: remove one of them")
        return ""

    token = read_text(token_file, problems).strip()
    if not token or CONTROL.search(token):
        problems.append(
            "INFLUXDB_TOKEN_FILE is not valid: it must name a file that holds only the token, "
            "on one line"
        )
    return token


def read_settings(environ: Environ, folder: str, script: str, env_file: str = ENV_FILE) -> Settings:
    """Return all settings; raise a ReportError that lists every problem at once.

    Variables of FORWARDED_VARIABLES in the env file are put into `environ`: requests reads them.
    """
    problems: list[str] = []
    env_path = os.path.join(folder, env_file)
    from_file = read_env_file(env_path, problems)
    for name in FORWARDED_VARIABLES:
        if name in from_file:
            environ[name] = from_file[name]

    sources = setting_sources(environ, from_file, env_path, script)
    values = {name: source.value.strip() for name, source in sources.items()}
    problems += setting_problems(values)
    token = read_token(values, problems)
    if problems:
        places = f"settings come from {env_path}, the environment and the top of {script}"
        raise ReportError(f"{'; '.join(problems)} ({places})")

    return Settings(
        url=values["INFLUXDB_URL"].rstrip("/"),
        version=int(values["INFLUXDB_VERSION"]),
        bucket=values["INFLUXDB_BUCKET"],
        org=values["INFLUXDB_ORG"],
        token=token,
        timeout=float(values["INFLUXDB_TIMEOUT"]),
        measurement=values["MEASUREMENT"],
        host=values["HOSTNAME"],
        sources=sources,
        verify=values["VERIFY"],
    )


# ---- Renewal configurations --------------------------------------------------------------------
FILE_KINDS = ("cert", "privkey", "chain", "fullchain")

# In [renewalparams]: certbot refuses another value than True or False, or than a number.
TRUE_OR_FALSE_KEYS = ("must_staple", "allow_subset_of_names", "reuse_key", "autorenew")
NUMBER_KEYS = ("rsa_key_size", "http01_port")

# The entries of a renewal configuration by their sections and key: ("renewalparams", "server").
# None is a section, or a list of values.
ConfEntries = dict[tuple[str, ...], Union[str, None]]

# Matches: [renewalparams]   or   [[webroot_map]]   # comment
SECTION_HEADER = re.compile(
    r"""
    \s* (?P<opening> (?: \[ \s* )+ )
    (?P<name> "\s* \S .*? " | '\s* \S .*? ' | [^'"\s] .*? )
    (?P<closing> (?: \s* \] )+ )
    \s* (?: \# .* )?
    """,
    re.VERBOSE,
)
LONGEST_HEADER = 1000  # characters: the pattern takes long for more

# Matches: "a key" =
QUOTED_KEY = re.compile(r"""(?P<key> ".*?" | '.*?' ) \s* =""", re.VERBOSE)

# Matches: a, "b, c", d   # comment
VALUE_LIST = re.compile(
    r"""
    (?P<items> (?: (?: ".*?" | '.*?' | [^'",\#] [^,\#]*? ) \s* , \s* )+ )
    (?: ".*?" | '.*?' | [^'",\#\s] [^,]*? | (?<!,) )?  # the last item needs no comma
    \s* (?: \# .* )?
    """,
    re.VERBOSE,
)
LIST_ITEM = re.compile(r"""( ".*?" | '.*?' | .*? ) \s* , \s*""", re.VERBOSE)
EMPTY_LIST = re.compile(r", \s* (?: \# .* )?", re.VERBOSE)
MOST_COMMAS = 6  # the pattern takes long for more

# Matches: %(cert)s
INTERPOLATION = re.compile(r"% \( (?P<key> [^)]* ) \) s", re.VERBOSE)

# Matches: 5.8.0
CERTBOT_VERSION = re.compile(r"(?P<major> \d{1,4} ) \. (?P<minor> \d{1,4} )", re.VERBOSE)

# Endpoints for tests whose names do not contain "staging": of Google Trust Services and Buypass.
TEST_CAS = ("dv.acme-v02.test-api.pki.goog", "api.test4.buypass.no")


class ConfSyntaxError(Exception):
    """A line that certbot refuses; the text has configobj's words for it, and not the line."""


class RenewalConf(NamedTuple):
    """What this project needs of a renewal configuration, the file renewal/NAME.conf.

    `version` is that of the certbot that wrote the file, (0, 0) if it is not known. `interval` is
    renew_before_expiry. `server` is the CA's ACME directory. `cert`, `privkey`, `chain` and
    `fullchain` are the paths of the lineage's links, `archive_dir` is the folder to which they
    lead. `path` is the file itself. Texts are "" if they are not set.
    """

    version: tuple[int, int] = (0, 0)
    interval: str = ""
    autorenew: bool = True
    server: str = ""
    cert: str = ""
    privkey: str = ""
    chain: str = ""
    fullchain: str = ""
    archive_dir: str = ""
    path: str = ""


def renewal_conf_path(folder: str, lineage: str) -> str:
    """Return the path of a lineage's renewal configuration."""
    return os.path.join(folder, "renewal", f"{lineage}.conf")


def read_renewal_conf(path: str, problems: list[str]) -> RenewalConf:
    """Read a renewal configuration; what certbot would refuse is added to the problems.

    If the file cannot be read or parsed, only the path of the file is known.
    """
    faults: list[str] = []
    # certbot divides the file at \n only.
    text = read_text(path, faults, newline="")
    if faults:
        problems += faults
        return RenewalConf(path=path)
    try:
        entries = parse_renewal_conf(text)
    except ConfSyntaxError as error:
        problems.append(
            f"{path}: error parsing the file ({error}): correct the line, or restore the file "
            "(the line is not shown because it may hold a secret)"
        )
        return RenewalConf(path=path)

    fault = conf_fault(entries)
    if fault:
        problems.append(f"{path}: {fault}: restore the file, or issue the certificate again")
    return make_renewal_conf(entries, path)


def make_renewal_conf(entries: ConfEntries, path: str) -> RenewalConf:
    """Return a renewal configuration with the values of these entries."""
    values = {}
    for key in ("version", "renew_before_expiry", "archive_dir", *FILE_KINDS):
        values[key] = entries.get((key,)) or ""
    autorenew = entries.get(("renewalparams", "autorenew")) or ""
    return RenewalConf(
        version=version_of(values["version"]),
        interval=values["renew_before_expiry"],
        autorenew=autorenew.lower() != "false",
        server=entries.get(("renewalparams", "server")) or "",
        cert=values["cert"],
        privkey=values["privkey"],
        chain=values["chain"],
        fullchain=values["fullchain"],
        archive_dir=values["archive_dir"],
        path=path,
    )


def version_of(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version of certbot, such as 5.8.0; (0, 0) if it is none."""
    version = CERTBOT_VERSION.match(text)
    return (int(version["major"]), int(version["minor"])) if version else (0, 0)


def conf_fault(entries: ConfEntries) -> str:
    """Return why certbot refuses a renewal configuration, in its words; "" if it does not.

    The checks are those of `RenewableCert` and `reconstitute` in certbot 5.8, in their order.
    """
    missing = [kind for kind in FILE_KINDS if not entries.get((kind,))]
    if missing:
        return f"the file is missing a required file reference ({', '.join(missing)})"
    if entries.get(("renewalparams",), "no section") is not None:
        return "the file lacks renewalparams"
    if entries.get(("renewalparams", "authenticator")) is None:
        return "the file does not specify an authenticator"
    if has_unknown_interpolation(entries):
        return "missing option in interpolation, in a value with %(…)s"

    for key in TRUE_OR_FALSE_KEYS:
        value = entries.get(("renewalparams", key), "True")
        if value is None or value.lower() not in ("true", "false"):
            return f"expected True or False for {key}"
    for key in NUMBER_KEYS:
        value = entries.get(("renewalparams", key), "0")
        is_unset = key == "http01_port" and value == "None"
        if not is_unset and (value is None or not re.fullmatch(r"\s*[+-]?\d+\s*", value)):
            return f"expected a numeric value for {key}"
    return ""


def has_unknown_interpolation(entries: ConfEntries) -> bool:
    """Return whether a value that certbot reads has a %(key)s whose key is not set."""
    for names, value in entries.items():
        is_read = len(names) == 1 or names[0] == "renewalparams"
        if not is_read or value is None or "%(" not in value:
            continue
        for match in INTERPOLATION.finditer(value):
            # certbot looks in the section of the value, and then in the ones around it.
            sections = [names[:depth] for depth in range(len(names))]
            if not any(entries.get((*section, match["key"])) for section in sections):
                return True
    return False


def parse_renewal_conf(text: str) -> ConfEntries:
    """Return the entries of a renewal configuration; raise a ConfSyntaxError.

    certbot reads the file with configobj 5, which accepts and refuses the same.
    """
    entries: ConfEntries = {}
    section: tuple[str, ...] = ()
    lines = enumerate(text.removeprefix("\ufeff").split("\n"), 1)
    for number, line in lines:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            header = match_section_header(line)
            if header:
                section = entered_section(section, header)
                add_entry(entries, section, None, "Duplicate section name")
            else:
                key, value_text = split_key(line)
                value = parse_value(value_text, lines)
                add_entry(entries, (*section, key), value, "Duplicate keyword name")
        except ConfSyntaxError as error:
            raise ConfSyntaxError(f"{error} at line {number}") from None
    return entries


def add_entry(
    entries: ConfEntries, names: tuple[str, ...], value: str | None, duplicate: str
) -> None:
    """Add an entry; raise a ConfSyntaxError with the text `duplicate` if there is one already."""
    if names in entries:
        raise ConfSyntaxError(duplicate)
    entries[names] = value


def match_section_header(line: str) -> re.Match[str] | None:
    """Return the match of SECTION_HEADER if a line is one."""
    if not line.lstrip().startswith("[") or len(line) > LONGEST_HEADER:
        return None
    return SECTION_HEADER.fullmatch(line)


def entered_section(section: tuple[str, ...], header: re.Match[str]) -> tuple[str, ...]:
    """Return the section that a header begins, within the present section or beside it."""
    depth = header["opening"].count("[")
    if depth != header["closing"].count("]"):
        raise ConfSyntaxError("Cannot compute the section depth")
    if depth > len(section) + 1:
        raise ConfSyntaxError("Section too nested")
    return (*section[: depth - 1], unquoted(header["name"]))


def unquoted(text: str) -> str:
    """Return a text without the quotes around it."""
    is_quoted = text[0] == text[-1] and text[0] in ("'", '"')
    return text[1:-1] if is_quoted else text


def split_key(line: str) -> tuple[str, str]:
    """Return the key of a line, and the text after the = without the blanks before it."""
    text = line.lstrip()
    quoted = QUOTED_KEY.match(text)
    if quoted:
        return quoted["key"][1:-1], text[quoted.end() :].lstrip()

    indent = line[: len(line) - len(text)]
    if text[0] in ("'", '"', "="):  # a key only if it begins with the blank before
        text = indent[-1:] + text
    key, equals, value = text[1:].partition("=")
    if not equals or text[0] in ("'", '"', "="):
        raise ConfSyntaxError("Invalid line (matched as neither section nor keyword)")
    return text[0] + key.rstrip(), value.lstrip()


def parse_value(text: str, lines: Iterator[tuple[int, str]]) -> str | None:
    """Return a value; None if it is a list. Raise a ConfSyntaxError.

    `lines` are the numbered lines below, of which a value in triple quotes takes as many as it has.
    """
    if text.startswith(('"""', "'''")):
        return parse_long_value(text, lines)
    if is_list(text):
        return None
    if text.startswith(('"', "'")):
        end = end_of_quoted(text, text[0], 1)
        if end is None:
            raise ConfSyntaxError("Parse error in value")
        return text[1:end]

    value = text.partition("#")[0].rstrip()
    if "," in value:
        raise ConfSyntaxError("Parse error in value")
    return value


def end_of_quoted(text: str, quotes: str, start: int) -> int | None:
    """Return where quotes are, after which there is nothing but a comment; None if nowhere."""
    match = re.compile(rf"{quotes}\s*(?:#.*)?\Z").search(text, start)
    return match.start() if match else None


def parse_long_value(text: str, lines: Iterator[tuple[int, str]]) -> str:
    """Return a value in triple quotes, which may go on in the lines below."""
    quotes = text[:3]
    parts = [text[3:].rstrip("\r")]
    while quotes not in parts[-1]:
        _, line = next(lines, (0, quotes + "the file ends"))
        parts.append(line.rstrip("\r"))
    end = end_of_quoted(parts[-1], quotes, 0)
    if end is None:
        raise ConfSyntaxError("Parse error in multiline value")
    return "\n".join([*parts[:-1], parts[-1][:end]])


def is_list(text: str) -> bool:
    """Return whether a value is a list: it has a comma outside quotes. Raise a ConfSyntaxError.

    A value with more than MOST_COMMAS commas is not examined: no value that this project needs has.
    """
    if text.count(",") > MOST_COMMAS or EMPTY_LIST.fullmatch(text):
        return True
    if "," not in text:
        return False
    # Two blanks mean the same as many, which would take long.
    match = VALUE_LIST.fullmatch(re.sub(r"\s{2,}", "  ", text))
    if match is None:
        return False
    if "" in LIST_ITEM.findall(match["items"]):
        raise ConfSyntaxError("Parse error in value")
    return True


def is_staging_server(server: str) -> bool:
    """Return whether an ACME directory is that of a CA for tests, whose certificates are no good.

    certbot takes a server for one if its URL contains "staging".
    """
    host = server.partition("://")[2].partition("/")[0].lower()
    return "staging" in host or host in TEST_CAS


# ---- Certificates ------------------------------------------------------------------------------
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class DecodedCertificate(NamedTuple):
    """What this project needs of an X.509 certificate; `not_before`, `not_after`: Unix seconds."""

    names: list[str]
    not_before: int
    not_after: int


class Certificate(NamedTuple):
    """The certificate of a lineage; `not_before`, `not_after`, `renewal_due`: Unix seconds.

    `failure` says why certbot does not renew the certificate, "" if there is no reason.
    `is_staging`: a CA for tests has issued it.
    """

    lineage: str
    names: list[str]
    not_before: int
    not_after: int
    renewal_due: int
    failure: str = ""
    is_staging: bool = False


class Lineages(NamedTuple):
    """All lineages in certbot's configuration folder.

    `names` are the names of all lineages, `certificates` the certificates that can be read.
    `unreadable` has, by name, the problem of a lineage that certbot cannot read; its certificate
    may be there nevertheless. `problems` concern the folders themselves: if there are any, `names`
    may not be complete. `confs` has the renewal configurations by name.
    """

    names: set[str]
    certificates: list[Certificate]
    unreadable: dict[str, str]
    problems: list[str]
    confs: Mapping[str, RenewalConf] = {}


def decode_certificate(path: str) -> DecodedCertificate:
    """Decode the first certificate of a PEM file; raise OSError or ValueError if there is none."""
    os.close(open_regular(path))  # raises an error in the system's words; OpenSSL's are cryptic
    # Private, but in every Python from 3.6 to 3.14. The cryptography package is not on every host.
    decoded: dict[str, Any] = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]

    names = []
    for kind, name in decoded.get("subjectAltName", ()):
        if kind == "DNS":
            names.append(name.strip().lower())
        elif kind == "IP Address":
            # Certificates spell IPv6 out. certbot, and so the published hook, writes it short.
            names.append(str(ipaddress.ip_address(name.strip())))
    return DecodedCertificate(
        names,
        seconds_of(decoded["notBefore"]),
        seconds_of(decoded["notAfter"]),
    )


def seconds_of(text: str) -> int:
    """Return a time as OpenSSL writes it, `Nov  8 04:26:40 2026 GMT`, in Unix seconds.

    `ssl.cert_time_to_seconds` does the same in four times the time.
    """
    month, day, clock, year, _ = text.split()
    hour, minute, second = map(int, clock.split(":"))
    month_number = MONTHS.index(month) + 1
    return calendar.timegm((int(year), month_number, int(day), hour, minute, second))


def read_certificate(path: str, lineage: str, conf: RenewalConf | None = None) -> Certificate:
    """Return the certificate in a file; raise a ReportError if it cannot be read.

    `conf` is the lineage's renewal configuration, None if there is none.
    """
    try:
        decoded = decode_certificate(path)
    except (OSError, ValueError) as error:
        is_damaged = isinstance(error, (ssl.SSLError, ValueError))  # SSLError is an OSError
        reason = "not a certificate" if is_damaged else getattr(error, "strerror", "")
        raise ReportError(
            f"{path}: {reason}: check the certificate as root with: certbot certificates"
        ) from None

    conf = conf or RenewalConf()
    renewal_due = due_without_verdict(decoded, conf)
    failure = no_renewal_reason(conf, decoded.not_after)
    is_staging = is_staging_server(conf.server)
    return Certificate(lineage, *decoded, renewal_due, failure, is_staging)


def due_without_verdict(decoded: DecodedCertificate, conf: RenewalConf) -> int:
    """Return the due date by certbot's rules, in Unix seconds."""
    if not conf.autorenew:
        return latest_due(decoded.not_before, decoded.not_after)
    return due_by_rule(decoded.not_before, decoded.not_after, conf.version, conf.interval)


def no_renewal_reason(conf: RenewalConf, not_after: int) -> str:
    """Return why certbot will not renew a certificate when it is due, "" if it will."""
    if not conf.autorenew:
        return f"autorenew = False in {conf.path}: certbot never renews this certificate"
    if conf.interval and subtract_interval(not_after, conf.interval) is None:
        return f"renew_before_expiry = {conf.interval} in {conf.path} is no interval for certbot"
    return ""


def current_certificate_path(folder: str, lineage: str) -> str:
    """Return the usual path of a lineage's current certificate, a link into archive/."""
    return os.path.join(folder, "live", lineage, "cert.pem")


def certificate_path(folder: str, lineage: str, conf: RenewalConf) -> str:
    """Return the path of a lineage's current certificate; its configuration names it."""
    return conf.cert or current_certificate_path(folder, lineage)


def read_lineages(folder: str, certbot: str = "") -> Lineages:
    """Read all lineages of a configuration folder.

    `certbot` is the version in certbot's log, "" if it is not known.

    As for certbot, a lineage is a file in renewal/ and the paths in that file. A certificate that
    has lost this file is a lineage too, an unreadable one.
    """
    lineages = Lineages(set(), [], {}, [], {})
    renewal = os.path.join(folder, "renewal")
    entries = list_folder(renewal, lineages.problems)
    for entry in entries:
        if entry.endswith(".conf"):
            add_lineage_name(lineages, renewal, entry, entry[: -len(".conf")])

    confs = {}
    for name in sorted(lineages.names):
        confs[name] = read_lineage(folder, name, lineages, certbot)
    lineages = lineages._replace(confs=confs)
    add_lineages_without_conf(folder, entries, lineages)
    lineages.certificates.sort()
    return lineages


def list_folder(path: str, problems: list[str]) -> list[str]:
    """Return the names in a folder; if it cannot be listed, return [] and add to the problems."""
    try:
        return os.listdir(path)
    except OSError as error:
        problems.append(
            f"{path}: {error.strerror}: run as root, "
            "or name certbot's configuration folder with --config-dir"
        )
        return []


def add_lineage_name(lineages: Lineages, folder: str, entry: str, name: str) -> None:
    """Add the name of a lineage, unless certbot would not take it for one."""
    if not entry.isprintable():
        lineages.problems.append(f"{folder}: {entry!a} is not the name of a lineage: remove it")
    elif not entry.startswith("."):  # certbot ignores hidden files
        lineages.names.add(name)


def relocated(conf: RenewalConf, folder: str) -> RenewalConf:
    """Return a renewal configuration with the paths as they are in this folder.

    A container may have certbot's configuration folder at another path than this host. Then the
    paths of the file do not exist here, but the same files are in `folder`.
    """
    certbot_folder, live, rest = conf.cert.partition("/live/")
    if not live or certbot_folder == folder or os.path.lexists(conf.cert):
        return conf
    if not os.path.lexists(os.path.join(folder, "live", rest)):
        return conf
    paths = {}
    for field in (*FILE_KINDS, "archive_dir"):
        path = getattr(conf, field)
        if path.startswith(f"{certbot_folder}/"):
            paths[field] = folder + path[len(certbot_folder) :]
    return conf._replace(**paths)


def read_lineage(folder: str, name: str, lineages: Lineages, certbot: str) -> RenewalConf:
    """Add the certificate of a lineage to the lineages, or its problem, or both; return its conf.

    As certbot does, only the first problem is named.
    """
    problems: list[str] = []
    conf = read_renewal_conf(renewal_conf_path(folder, name), problems)
    conf = relocated(conf, folder)
    if certbot:  # newer than the file, which certbot writes at a renewal only
        conf = conf._replace(version=version_of(certbot))
    if not problems:
        fault = links_fault(conf, conf.archive_dir or os.path.join(folder, "archive", name))
        if fault:
            problems.append(f"{conf.path}: {fault}")
    try:
        path = certificate_path(folder, name, conf)
        lineages.certificates.append(read_certificate(path, name, conf))
    except ReportError as error:
        problems.append(str(error))
    if problems:
        lineages.unreadable[name] = problems[0]
    return conf


def links_fault(conf: RenewalConf, archive: str) -> str:
    """Return why certbot cannot use the links of a lineage, with the remedy; "" if it can.

    A renewal writes the next files into the folder `archive`, so the links must lead there.
    """
    links = {kind: getattr(conf, kind) for kind in FILE_KINDS}
    targets = {}
    for kind, link in links.items():
        try:
            target = os.path.join(os.path.dirname(link), os.readlink(link))
        except (OSError, ValueError):
            return (
                f"expected {link} to be a symlink: restore the links into {archive} "
                "(a backup must keep symbolic links), or issue the certificate again"
            )
        targets[kind] = os.path.abspath(target)
        if not os.path.exists(target):
            return (
                f"target {targets[kind]} of symlink {link} does not exist: restore the file, "
                "or issue the certificate again"
            )

    for kind, target in targets.items():
        if not re.fullmatch(rf"{kind}\d+\.pem", os.path.basename(target)):
            return (
                f"{target} does not follow the archive naming convention {kind}1.pem: "
                "restore the link and the file, or issue the certificate again"
            )
        if not is_same_folder(os.path.dirname(target), archive):
            return (
                f"the link {links[kind]} does not point within {archive}: "
                "correct archive_dir, or restore the link"
            )
    if not has_common_version(targets):
        return (
            f"no version has all of {', '.join(FILE_KINDS)} in {archive}: restore the missing "
            "files, or issue the certificate again"
        )
    return ""


def is_same_folder(folder: str, other: str) -> bool:
    """Return whether two paths lead to the same folder."""
    return folder == other or os.path.realpath(folder) == os.path.realpath(other)


def has_common_version(targets: Mapping[str, str]) -> bool:
    """Return whether archive/ has all four files with one of the numbers to which links lead."""
    numbers = set()
    for kind, target in targets.items():
        numbers.add(os.path.basename(target)[len(kind) :])
    if len(numbers) == 1:
        return True
    for number in numbers:
        paths = [
            os.path.join(os.path.dirname(target), f"{kind}{number}")
            for kind, target in targets.items()
        ]
        if all(map(os.path.exists, paths)):
            return True
    return False


def add_lineages_without_conf(
    folder: str, renewal_entries: Sequence[str], lineages: Lineages
) -> None:
    """Add the valid certificates in live/ whose renewal configuration is missing, as unreadable.

    If renewal/ has the file under a longer name, such as NAME.conf.disabled, somebody has switched
    the renewal off. `certbot delete` removes archive/NAME, so a deleted lineage is not taken for
    one, even if live/NAME still has other files.
    """
    live = os.path.join(folder, "live")
    for name in sorted(list_folder(live, lineages.problems)):
        if name in lineages.names or not name.isprintable():
            continue
        certificate = read_certificate_without_conf(folder, name)
        is_switched_off = any(entry.startswith(f"{name}.conf") for entry in renewal_entries)
        if certificate is None or is_switched_off:
            continue
        if is_in_use(os.path.join(live, name), lineages.confs):
            continue

        lineages.names.add(name)
        lineages.certificates.append(certificate)
        lineages.unreadable[name] = (
            f"{renewal_conf_path(folder, name)}: renewal configuration is missing: restore the "
            "file, or, if the certificate is no longer wanted, delete "
            f"{os.path.join(live, name)} and {os.path.join(folder, 'archive', name)}, "
            f"or retire it with {RUN_REPORT_NAME}.py --retire {name}"
        )


def read_certificate_without_conf(folder: str, name: str) -> Certificate | None:
    """Return the certificate in live/NAME; None unless certbot has put a valid one there.

    certbot puts a link into archive/NAME there. A copy, or a link to another folder, is none.
    """
    path = current_certificate_path(folder, name)
    if not os.path.islink(path):
        return None
    archive = os.path.join(folder, "archive", name)
    if not is_same_folder(os.path.dirname(os.path.realpath(path)), archive):
        return None
    try:
        certificate = read_certificate(path, name)
    except ReportError:
        return None
    return certificate if certificate.not_after > time.time() else None


def is_in_use(live_folder: str, confs: Mapping[str, RenewalConf]) -> bool:
    """Return whether a renewal configuration of another name has this folder's certificate."""
    return any(
        is_same_folder(os.path.dirname(conf.cert), live_folder)
        for conf in confs.values()
        if conf.cert
    )


# ---- Due dates ---------------------------------------------------------------------------------
# Matches: 3 weeks, and then 12 hours, in "3 weeks, 12 hours". It is the pattern of parsedatetime,
# with which certbot reads an interval: its words (no "twelve", no "thirty") and its units.
INTERVAL_PART = re.compile(
    r"""
    (?: (?P<minus> - ) \s* )?
    \b
    (?P<number>
        \d+ (?: \. \d+ )?
        |
        (?: zero | an? | one | two | three | four | five | six | seven | eight | nine | ten
            | eleven | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen
            | twenty
        ) \b
    )
    \s*
    (?P<unit>
        seconds? | secs? | s | minutes? | mins? | m | hours? | hr | h | days? | dy | d
        | weeks? | wk | w | months? | mth | years? | yr | y
    )
    \b
    """,
    re.VERBOSE,
)

# Matches: before, in "30 days before expiry". For certbot it is minus 30 days.
BACKWARDS = re.compile(r"\b(?:before|prior|ago)\b")

NUMBER_WORDS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "thirteen": 13, "fourteen": 14, "fifteen": 15,
    "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
}  # fmt: skip
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}  # by the unit's first letter
UNIT_MONTHS = {"month": 1, "months": 1, "mth": 1, "year": 12, "years": 12, "yr": 12, "y": 12}
MOST_YEARS = 7970  # certbot ignores a part of an interval that leads beyond the year 9999
LONGEST_INTERVAL = 200  # characters; a longer text is not an interval


class IntervalPart(NamedTuple):
    """A part of an interval, such as 12 hours; `unit` is one that INTERVAL_PART matches."""

    amount: float
    unit: str


class Verdict(NamedTuple):
    """What certbot's log said about a certificate; the times are Unix seconds, 0 for never.

    `not_before` is the certificate's: a verdict about an earlier certificate counts for nothing.
    `not_due_at`: the last run that called it not due. `failed_since`: the first of the attempts to
    renew it that failed, and `failure` the reason of the last one; 0 and "" if the last run did not
    fail. `due_at_once`: the first run that did not renew it although the CA asked for that (its
    window was in the past). `unreadable`: why certbot cannot read the lineage, "" if it can.
    `read_at`: the last run that has looked at the lineage.
    """

    not_before: int
    not_due_at: int = 0
    failed_since: int = 0
    due_at_once: int = 0
    failure: str = ""
    unreadable: str = ""
    read_at: int = 0


def due_by_rule(not_before: int, not_after: int, version: tuple[int, int], interval: str) -> int:
    """Return the time from which certbot renews a certificate by its own rules, in Unix seconds.

    `version` is certbot's; (0, 0) if it is not known, which counts as the newest. `interval` is
    `renew_before_expiry`, "" if it is not set. The rules are those of certbot's `should_autorenew`.
    If certbot does not understand the interval, the time is `latest_due`. It is never before
    notBefore: certbot then renews in every run.
    """
    lifetime = not_after - not_before
    if interval:
        due = subtract_interval(not_after, interval)
        if due is None:
            due = latest_due(not_before, not_after)
    elif (0, 0) < version < (4, 0):
        due = not_after - 30 * DAY
    else:
        seconds_left = lifetime // 2 if lifetime < 10 * DAY else lifetime // 3
        due = not_after - seconds_left
        may_ask_ca = version == (0, 0) or version >= (4, 1)
        if may_ask_ca:  # ARI: the window of Let's Encrypt ends so much later
            due += lifetime // 100
    return max(due, not_before)


def latest_due(not_before: int, not_after: int) -> int:
    """Return the latest time from which a certificate should have been renewed, in Unix seconds.

    That is a sixth of the lifetime before the expiry, at most 15 days. Whatever certbot's log says,
    one alert then fires in time.
    """
    lifetime = not_after - not_before
    return not_after - min(lifetime // 6, 15 * DAY)


def due_with_verdict(by_rule: int, not_before: int, not_after: int, verdict: Verdict) -> int:
    """Return the time from which a certificate should have been renewed, in Unix seconds.

    certbot's verdict replaces the due date by rule, but does not move it beyond `latest_due`. It is
    never before notBefore.
    """
    if verdict.not_before != not_before:
        return by_rule

    due = verdict.failed_since or max(by_rule, verdict.not_due_at)
    due = min(due, max(by_rule, latest_due(not_before, not_after)))
    if 0 < verdict.due_at_once < by_rule:  # later, the CA's window may have ended as usual
        # The run has already failed to renew: a day earlier, so that the alert fires at that run.
        due = min(due, verdict.due_at_once - DAY)
    return max(due, not_before)


def subtract_interval(moment: int, interval: str) -> int | None:
    """Return the earliest time from which adding an interval leads to a moment, in Unix seconds.

    certbot renews when the current time plus `renew_before_expiry` is later than the expiry. The
    interval means what certbot (parsedatetime) makes of it: `30` (days), `two weeks`, `1 month and
    12 hours`. Other words beside the amounts do not count. None means that certbot renews only
    after the expiry: it does not understand the interval (`thirty days`), or the interval is not
    positive (`-30 days`, `30 days before expiry`).
    """
    # certbot adds the parts from left to right, so subtract them from right to left.
    earlier = moment
    for part in reversed(interval_parts(interval)):
        if part.unit in UNIT_MONTHS:
            months = part.amount * UNIT_MONTHS[part.unit]
            if abs(months) < MOST_YEARS * 12:
                earlier = subtract_months(earlier, months)
        else:
            seconds = part.amount * UNIT_SECONDS[part.unit[0]]
            if abs(seconds) < MOST_YEARS * 365 * DAY:
                earlier -= int(seconds // 1)
    return earlier if earlier < moment else None


def interval_parts(interval: str) -> list[IntervalPart]:
    """Return the amounts and units in an interval, [] if there are none."""
    text = interval.strip().lower()
    if len(text) > LONGEST_INTERVAL:
        return []
    if text.isdigit():
        text += " days"

    parts = []
    last_before = -1
    backwards = BACKWARDS.search(text)
    for index, match in enumerate(INTERVAL_PART.finditer(text)):
        parts.append(IntervalPart(amount_of(match), match["unit"]))
        if backwards and match.end() < backwards.start():
            last_before = index

    if last_before >= 0:  # "before" turns the last amount around, and no other
        amount, unit = parts[last_before]
        parts[last_before] = IntervalPart(-abs(amount), unit)
    return parts


def amount_of(match: re.Match[str]) -> float:
    """Return the amount in a match of INTERVAL_PART; 0 for "-two", as certbot knows only "-2"."""
    number = (match["minus"] or "") + match["number"]
    try:
        return float(number)
    except ValueError:
        return NUMBER_WORDS.get(number, 0)


def subtract_months(moment: int, months: float) -> int:
    """Return the earliest time from which adding some months leads to a moment, in Unix seconds.

    If the month is too short, that is the beginning of the next month: on 28 February, a month more
    is 28 March; on 1 March, it is 1 April. A fraction of a month counts as one of 30 days.
    """
    whole_months = int(months)
    moment -= round((months - whole_months) * 30 * DAY)

    date = time.gmtime(moment)
    year, month_index = divmod(date.tm_year * 12 + date.tm_mon - 1 - whole_months, 12)
    year = min(max(year, 1), 9998)  # the calendar module knows no others
    month = month_index + 1
    days_in_month = calendar.monthrange(year, month)[1]
    if date.tm_mday > days_in_month:
        return calendar.timegm((year, month, days_in_month + 1, 0, 0, 0))
    return calendar.timegm((year, month, date.tm_mday, date.tm_hour, date.tm_min, date.tm_sec))


# ---- Points ------------------------------------------------------------------------------------
FieldValue = Union[int, float, str]

# The longest text in a field: InfluxDB takes 64 KiB, and a character has up to four bytes.
FIELD_CHARACTERS = 15_000


class Point(NamedTuple):
    """One point of line protocol.

    Fields: an int is stored as an integer, a float as a float, a str as a string. `time` is in
    Unix seconds; None: the server's time when the point arrives. A host's clock may be wrong.
    """

    measurement: str
    tags: dict[str, str]
    fields: dict[str, FieldValue]
    time: int | None = None


def line_protocol(point: Point) -> str:
    """Format a point as one line, its time in seconds if it has one.

    Tags are sorted, as InfluxDB recommends. A tag without a value is left out.
    """
    series = [escape(point.measurement, special=", ")]
    for key, value in sorted(point.tags.items()):
        if value:
            series.append(f"{key}={escape(value)}")
    fields = [f"{key}={format_field(value)}" for key, value in point.fields.items()]
    line = f"{','.join(series)} {','.join(fields)}"
    return line if point.time is None else f"{line} {point.time}"


def format_field(value: FieldValue) -> str:
    """Format a field's value."""
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return f"{value:g}"
    quoted = re.sub(r'([\\"])', r"\\\1", replace_control(value))
    return f'"{quoted}"'


def escape(text: str, special: str = ",= ") -> str:
    """Escape a measurement or a tag for line protocol.

    Line protocol cannot hold control characters, nor a backslash before a special character or at
    the end: they become _ and /.
    """
    text = re.sub(rf"\\(?=[{special}]|$)", "/", replace_control(text))
    return re.sub(rf"([{special}])", r"\\\1", text)


def replace_control(text: str) -> str:
    """Replace control characters, and bytes that are not UTF-8: line protocol cannot hold them."""
    return CONTROL.sub("_", text.encode("utf-8", "replace").decode())


def joined_names(names: Sequence[str]) -> str:
    """Join names for a string field, as many as it can hold; the rest is "...".

    No names give "none": Flux 0.196 (InfluxDB 1.12) mixes up rows that have empty strings.
    """
    text = " ".join(names) or "none"
    if len(text) <= FIELD_CHARACTERS:
        return text
    return text[:FIELD_CHARACTERS].rpartition(" ")[0] + " ..."


def make_point(
    settings: Settings, fields: dict[str, FieldValue], moment: int | None = None, **tags: str
) -> Point:
    """Return a point of this host; `moment` None: the server's time counts."""
    return Point(settings.measurement, {**tags, "host": settings.host}, fields, moment)


def renewal_points(settings: Settings, certificate: Certificate) -> list[Point]:
    """Return the renewal that a certificate proves, at its notBefore.

    Reporting it again changes nothing.
    """
    return make_renewal_points(
        settings,
        certificate.lineage,
        certificate.names,
        certificate.not_before,
        lifetime=certificate.not_after - certificate.not_before,
        due_after=certificate.renewal_due - certificate.not_before,
    )


def make_renewal_points(
    settings: Settings,
    lineage: str,
    names: Sequence[str],
    moment: int,
    lifetime: int = 0,
    due_after: int = 0,
) -> list[Point]:
    """Return the points of a renewal: one of the certificate, one of each name.

    They match the published hook's queries. `lifetime` and `due_after` are in seconds, 0 if they
    are not known. flux/history.flux needs the four fields of the first point together.
    """
    fields: dict[str, FieldValue] = {
        "renewed_count": float(len(names)),
        "lifetime": lifetime,
        "due_after": due_after,
        "names": joined_names(names),
    }
    of_certificate = make_point(settings, fields, moment, domain="all", lineage=lineage)
    of_names = [make_point(settings, {"renewed_count": 1.0}, moment, domain=name) for name in names]
    return [of_certificate, *of_names]


def state_point(
    settings: Settings,
    certificate: Certificate,
    run_at: int,
    served_fields: Mapping[str, FieldValue] | None = None,
) -> Point:
    """Return the state of a certificate, and what is served of it if a run report looked.

    `run_at` is the time of the report on a host with run reports, else 0. The queries need the
    first four fields together. The point has no time: a host's clock may be wrong.
    """
    fields: dict[str, FieldValue] = {
        "not_before": certificate.not_before,
        "renewal_due": certificate.renewal_due,
        "not_after": certificate.not_after,
        "run_at": run_at,
        "failure": shortened(certificate.failure) or "none",
        "staging": int(certificate.is_staging),
        **(served_fields or {}),
    }
    return make_point(settings, fields, domain="all", lineage=certificate.lineage)


def retired_states(settings: Settings, lineages: Iterable[str], run_at: int) -> list[Point]:
    """Return the states of retired lineages. The times of their certificates are 0."""
    retired = [Certificate(lineage, [], 0, 0, 0) for lineage in lineages]
    return [state_point(settings, certificate, run_at) for certificate in retired]


# ---- Deliveries --------------------------------------------------------------------------------
# Fingerprint of a delivery that is no longer wanted: the lineage or the target is retired.
DELIVERY_RETIRED = "retired"

# One line of certbot_renewal_deliver.state, its columns separated by tabs:
# example.com  haproxy  1f0c…  1767225600  1775001600  1767230000  connection refused
DELIVERY_LINE = re.compile(
    r"""
    ^ (?P<lineage> [^\t\n]+ ) \t
    (?P<target> [^\t\n]+ ) \t
    (?P<fingerprint> \w+ ) \t
    (?P<not_before> \d{1,12} ) \t
    (?P<not_after> \d{1,12} ) \t
    (?P<changed_at> \d{1,12} ) \t
    (?P<error> [^\t\n]* ) $
    """,
    re.VERBOSE | re.MULTILINE,
)


class Delivery(NamedTuple):
    """What a target has of a lineage, as certbot_renewal_deliver.py recorded it.

    `fingerprint` is SHA-256 of the certificate in hexadecimal, "none", or DELIVERY_RETIRED. The
    times are Unix seconds: `not_before` and `not_after` of that certificate, 0 if there is none;
    `changed_at` when this became so. `error` says why the last attempt failed, "" if it did not.
    """

    lineage: str
    target: str
    fingerprint: str = "none"
    not_before: int = 0
    not_after: int = 0
    changed_at: int = 0
    error: str = ""


def parse_deliveries(text: str) -> list[Delivery]:
    """Return the deliveries in the text of certbot_renewal_deliver.state."""
    deliveries = []
    for line in DELIVERY_LINE.finditer(text):
        delivery = Delivery(
            line["lineage"],
            line["target"],
            line["fingerprint"],
            int(line["not_before"]),
            int(line["not_after"]),
            int(line["changed_at"]),
            line["error"],
        )
        deliveries.append(delivery)
    return deliveries


def delivery_points(
    settings: Settings,
    deliveries: Sequence[Delivery],
    certificates: Sequence[Certificate],
    run_at: int,
) -> list[Point]:
    """Return a point for each delivery: the certificate that the target has, and the one on disk.

    A delivery of a lineage that cannot be read is left out, unless the delivery is retired.
    """
    renewed_at = {certificate.lineage: certificate.not_before for certificate in certificates}
    points = []
    for delivery in deliveries:
        is_retired = delivery.fingerprint == DELIVERY_RETIRED
        if not is_retired and delivery.lineage not in renewed_at:
            continue
        fields: dict[str, FieldValue] = {
            "deployed": delivery.not_before,
            "deployed_expiry": delivery.not_after,
            "renewed": 0 if is_retired else renewed_at[delivery.lineage],
            "run_at": run_at,
            # "none" if there is no error; cut to what a field can hold.
            "deploy_error": joined_names([delivery.error]),
        }
        tags = {"lineage": delivery.lineage, "target": delivery.target}
        points.append(make_point(settings, fields, None, **tags))
    return points


# ---- Sending -----------------------------------------------------------------------------------
LINES_PER_REQUEST = 5000  # InfluxDB's documentation, "Optimize writes"
FIRST_PAUSE_SECONDS = 0.5  # between the first try and the second; doubled after each try
LARGEST_CLOCK_DIFFERENCE = 300  # seconds between this host and the server
ERROR_BYTES = 8192  # as much of an answer is read
VICTORIA_METRICS_HEADER = "X-Server-Hostname"  # in each of its answers

CHECK_SERVER = "check that the server is running and that INFLUXDB_URL is correct"
SET_CA_BUNDLE = (
    "set REQUESTS_CA_BUNDLE to the file with your CA's certificate, or correct INFLUXDB_URL"
)

# OpenSSL's errors for an answer that is plain HTTP; the second one since OpenSSL 3.2.
NOT_TLS_ERRORS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


class Remedy(NamedTuple):
    """What to do about an answer that matches the pattern: its status, a space, and its text.

    `server` matches the beginning of the server's version, from the header X-Influxdb-Version.
    """

    pattern: str
    text: str
    server: str = ""


# The first that matches. Taken from InfluxDB 1.8, 1.12, 2.9 and 3, Telegraf 1.39, and vmauth and
# VictoriaMetrics 1.79.
REMEDIES = (
    Remedy(r"orgID or org|organization name", "set INFLUXDB_ORG to the organization's name"),
    Remedy(
        r"^401",
        'INFLUXDB_TOKEN is {fault}: create a token with write access to the bucket "{bucket}"',
        server=r"v?[23]\.",
    ),
    Remedy(
        r"^401",
        "INFLUXDB_TOKEN is {fault}: set it to user:password of a user with write access to "
        'the database "{bucket}"',
        server=r"1\.",
    ),
    Remedy(
        r"^401",
        "INFLUXDB_TOKEN is {fault}: set it to the token of the server, or to user:password "
        "(Telegraf's influxdb_v2_listener needs INFLUXDB_VERSION=2)",
    ),
    Remedy(
        r"auth token|missing route",
        "INFLUXDB_TOKEN is {fault}: set it to user:password of a user of vmauth who may write, "
        "with INFLUXDB_VERSION=1",
    ),
    Remedy(
        r"^403",
        'give the token or the user in INFLUXDB_TOKEN write access to "{bucket}"',
    ),
    Remedy(
        r"retention policy not found",
        "create the retention policy, or correct the part after the slash in INFLUXDB_BUCKET",
    ),
    Remedy(
        r"^404 .*(bucket|database)",
        'create "{bucket}", correct INFLUXDB_BUCKET, or give the token access to "{bucket}"',
    ),
    Remedy(
        r"^40[45]|unsupported path",
        "set INFLUXDB_VERSION={other}, or correct the path in INFLUXDB_URL "
        "(1 is for InfluxDB before 1.8 and Telegraf's influxdb_listener)",
    ),
    Remedy(r"^(5|429)|max-(values|series)-per", "check the log of the server"),
    Remedy(
        r"new tag",
        "delete the table and create it with all tags: influxdb3 create table "
        "--database {bucket} --tags domain,host,lineage,target {measurement}",
    ),
    Remedy(
        r"conflict",
        "set MEASUREMENT to another name, because another program writes other field types to "
        "this measurement",
    ),
    Remedy(
        r"retention policy",
        'correct the clock of this host, or increase the retention of "{bucket}"',
    ),
    Remedy(r"", "check INFLUXDB_URL, and any proxy between this host and the server"),
)

# Matches: partial write: points beyond retention policy dropped=3 (1.x)
# Matches: dropped 3 points outside retention policy (2.x)
DROPPED_POINTS = re.compile(
    r"""
    points \s beyond \s retention \s policy .*? dropped = (?P<dropped_1> \d+ )
    | dropped \s (?P<dropped_2> \d+ ) \s points \s outside \s retention \s policy
    """,
    re.VERBOSE,
)


class SendResult(NamedTuple):
    """The result of one request.

    `error` is "" if the server stored the points, perhaps with a `remark`. `retry` says that
    another try may help, `retry_after` after how many seconds the server wants it. `date` is the
    server's clock, the text of the header Date, "" if there is none. `has_buckets` is False if the
    server is VictoriaMetrics.
    """

    error: str = ""
    retry: bool = False
    retry_after: float = 0.0
    remark: str = ""
    date: str = ""
    has_buckets: bool = True


def load_requests() -> Any:
    """Import requests; raise a ReportError if it is missing.

    It is imported only to send: it takes four times as long as all the rest, and --help,
    --dry-run and clear errors work without it.
    """
    try:
        import requests
    except ImportError:
        raise ReportError(
            f"{sys.executable} has no requests library: "
            "install it with apt-get install python3-requests, or pip install requests"
        ) from None
    return requests


def write_url(settings: Settings) -> str:
    """Return the URL that takes points, whose times are in seconds."""
    if settings.version == 2:
        query = {"bucket": settings.bucket, "org": settings.org, "precision": "s"}
        return f"{settings.url}/api/v2/write?{urlencode(query)}"
    if settings.version == 3:
        query = {"db": settings.bucket, "precision": "second"}
        return f"{settings.url}/api/v3/write_lp?{urlencode(query)}"
    database, _, policy = settings.bucket.partition("/")
    query = {"db": database, "rp": policy, "precision": "s"}
    return f"{settings.url}/write?{urlencode(query)}"


def authorization(settings: Settings) -> Callable[[Any], Any]:
    """Return a function that adds the token to a request, for requests' parameter `auth`.

    A header alone would not do: requests lets ~/.netrc replace it.
    """
    token = settings.token.encode("utf-8", "replace")
    if settings.version == 1 and b":" in token:  # InfluxDB before 1.8 knows nothing else
        value = b"Basic " + binascii.b2a_base64(token, newline=False)
    elif settings.version == 3:
        value = b"Bearer " + token
    else:
        value = b"Token " + token

    def authorize(request: Any) -> Any:
        if token:
            request.headers["Authorization"] = value
        return request

    return authorize


def run_with_deadline(seconds: float, work: Callable[[], Any], value_if_late: Any = None) -> Any:
    """Return the result of the work, or `value_if_late` if it takes longer than these seconds.

    requests' timeouts count from byte to byte: a slow name server, or a server that drips, outlives
    them. So the work runs in a thread of its own, which is left behind when the time is over. It
    does not hold the program: the thread is a daemon.
    """
    results = [value_if_late]
    worker = threading.Thread(target=lambda: results.append(work()), daemon=True)
    worker.start()
    worker.join(seconds)
    return results[-1]


class Sending:
    """The sending of some lines: one request, and its tries until the timeout has passed.

    `result` is valid at any time, since the deadline may come while a try is in progress: it is
    the result of the last try, or what is known of a try whose answer is not complete.
    """

    def __init__(self, settings: Settings, lines: Sequence[str], droppable: int) -> None:
        """`droppable` is the number of points that may be older than the bucket's retention."""
        self.settings = settings
        self.body = "\n".join(lines).encode()
        self.droppable = droppable
        self.requests = load_requests()
        self.deadline = time.monotonic() + settings.timeout
        self.tries = 0
        self.result = SendResult(f"no answer from {settings.url}: {CHECK_SERVER}", retry=True)

    def run(self) -> SendResult:
        """Try until a try succeeds, fails for good, or the timeout has passed."""
        run_with_deadline(self.settings.timeout, self.try_until_deadline)
        result = self.result
        if not result.retry:
            return result
        tries = counted(self.tries, "try", "tries")
        limit = f"INFLUXDB_TIMEOUT is {self.settings.timeout:g} s"
        return result._replace(error=f"{result.error} ({tries}; {limit})")

    def try_until_deadline(self) -> None:
        """Try again while that may help: after 0.5 s, 1 s, 2 s, or when the server wants it."""
        pause = 0.0
        while self.result.retry and time.monotonic() + pause < self.deadline:
            time.sleep(pause)
            self.tries += 1
            self.result = self.try_once()
            own_pause = FIRST_PAUSE_SECONDS * 2 ** (self.tries - 1)
            pause = max(self.result.retry_after, own_pause)

    def try_once(self) -> SendResult:
        """Send one request and judge the answer."""
        seconds_left = max(self.deadline - time.monotonic(), 0.1)
        try:
            with self.requests.post(
                write_url(self.settings),
                data=self.body,
                headers={
                    "Content-Type": "text/plain; charset=utf-8",
                    "User-Agent": f"{NAME}/{__version__}",
                },
                auth=authorization(self.settings),
                # To connect takes a third at most: the next address of the host has its turn then.
                timeout=(seconds_left / 3, seconds_left),
                # A POST would arrive as a GET, and a login page's 200 look like success.
                allow_redirects=False,
                stream=True,  # no more is read than a reason
            ) as response:
                return self.judge_response(response)
        except (self.requests.RequestException, OSError, ValueError) as error:
            return self.judge_failure(error)

    def judge_response(self, response: Any) -> SendResult:
        """Judge an answer; `result` says that it is incomplete while its text is read."""
        if response.status_code == 204:
            has_buckets = VICTORIA_METRICS_HEADER not in response.headers
            return SendResult(date=response.headers.get("Date", ""), has_buckets=has_buckets)
        answer = f"{self.settings.url} answered {response.status_code}"
        self.result = SendResult(
            f"{answer}, but the answer is incomplete: {CHECK_SERVER}", retry=True
        )
        body = next(response.iter_content(ERROR_BYTES), b"").decode("utf-8", "replace")
        return judge_answer(
            self.settings, response.status_code, response.headers, body, self.droppable
        )

    def judge_failure(self, error: BaseException) -> SendResult:
        """Judge a request without an answer."""
        return SendResult(
            unreachable(self.settings, error), retry="certificate" not in root_cause(error)
        )


def send_lines(settings: Settings, lines: Sequence[str], droppable: int = 0) -> SendResult:
    """Send lines of line protocol in one request, and try again until the timeout.

    `droppable` is the number of points that may be older than the bucket's retention: if the
    server drops no more than these, it is no error.
    """
    return Sending(settings, lines, droppable).run()


def unreachable(settings: Settings, error: BaseException) -> str:
    """Return the problem of a request without an answer, with the remedy."""
    cause = root_cause(error)
    is_tls = isinstance(error, load_requests().exceptions.SSLError) or "CA certificate" in cause
    if any(error_name in cause for error_name in NOT_TLS_ERRORS):
        remedy = "the server does not use TLS: set INFLUXDB_URL to http://, or enable TLS"
    elif is_tls:
        remedy = SET_CA_BUNDLE
    else:
        remedy = CHECK_SERVER
    return f"cannot reach {settings.url}: {cause}: {remedy}"


def root_cause(error: BaseException) -> str:
    """Return the error of the system, without the wrappings of urllib3 and requests."""
    while error.__context__ is not None:
        error = error.__context__
    return shortened(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def shortened(text: str) -> str:
    """Return foreign words on one line, in ASCII and at most 400 characters."""
    return re.sub(r"[^\x21-\x7e]+", " ", text).strip()[:400]


def judge_answer(
    settings: Settings, status: int, headers: Mapping[str, str], body: str, droppable: int
) -> SendResult:
    """Return the meaning of an answer other than 204, with the remedy."""
    text = error_message(body)
    dropped = DROPPED_POINTS.search(text)
    if dropped and int(dropped["dropped_1"] or dropped["dropped_2"]) <= droppable:
        remark = "; renewals older than the retention of the bucket were not stored"
        return SendResult(remark=remark, date=headers.get("Date", ""))

    if status < 300:
        return SendResult(
            f"{settings.url} answered {status}, but InfluxDB answers 204: "
            "set INFLUXDB_URL to the address of the server"
        )
    if status < 400:
        # Without a query, a fragment, a user and a password: each may hold a secret.
        location = re.sub(r"[?#].*|(?<=//)[^/@]*@", "", headers.get("Location", ""))
        target = shortened(location) or "an unknown address"
        return SendResult(
            f"{settings.url} answered {status}, a redirect to {target}: "
            "set INFLUXDB_URL to the address of the server"
        )
    return judge_refusal(settings, status, headers, text)


def judge_refusal(
    settings: Settings, status: int, headers: Mapping[str, str], text: str
) -> SendResult:
    """Return the meaning of a status of 400 or more. A token in the answer is replaced."""
    reason = f"{status} {shortened(text)}"
    server_version = headers.get("X-Influxdb-Version", "")
    remedy = remedy_for(reason, REMEDIES, server_version).format(
        bucket=settings.bucket,
        measurement=settings.measurement,
        other=1 if settings.version == 2 else 2,
        fault="not valid" if settings.token else "empty",
    )
    answer = f"{status} {shortened(without_secrets(settings, text)) or '(no text)'}"

    retry_after = re.fullmatch(r"\d{1,6}", headers.get("Retry-After", ""))
    if retry_after:
        answer += f" (Retry-After {retry_after[0]} s)"
    is_temporary = status >= 500 and "retention policy not found" not in reason
    return SendResult(
        f"{settings.url} answered {answer}: {remedy}",
        retry=status == 429 or is_temporary,
        retry_after=float(retry_after[0]) if retry_after else 0.0,
    )


def remedy_for(answer: str, remedies: Sequence[Remedy], server_version: str = "") -> str:
    """Return the text of the first remedy that matches an answer: its status, a space, its text.

    `server_version` is that of the header X-Influxdb-Version, "" if there is none.
    """
    return next(
        remedy.text
        for remedy in remedies
        if re.search(remedy.pattern, answer) and re.match(remedy.server, server_version)
    )


def error_message(body: str) -> str:
    """Return the message in an answer: of JSON its message or error, else the whole text."""
    # It may be JSON of another kind, or no JSON: then the whole text is the message.
    with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError, RecursionError):
        answer = json.loads(body)
        lines = [line["error_message"] for line in answer.get("data") or ()]  # InfluxDB 3
        return str(answer.get("message") or ", ".join(lines) or answer.get("error") or body)
    return body


def without_secrets(settings: Settings, text: str) -> str:
    """Return a text with *** in place of the token, the user and the password.

    vmauth repeats the header of a request, in which user and password are one word in base64.
    """
    token = settings.token
    encoded = binascii.b2a_base64(token.encode("utf-8", "replace"), newline=False).decode()
    for secret in (token, encoded, *token.split(":", 1)):
        if secret:
            text = text.replace(secret, "***")
    return text


# ---- The known file ----------------------------------------------------------------------------
RETIRED_REPORTS = 30 * DAY  # for so long each report repeats that a lineage is retired


class Incident(NamedTuple):
    """A time in which certbot fails on a host.

    `step` is 0 while certbot does not fail. It is 1 in the first report of the incident, and one
    more in each report in which a further lineage fails. `lineages` are all that failed in this
    incident; "" stands for a run that failed as a whole. `highest_step` is the highest of the last
    30 days, reported at `highest_at` (Unix seconds).
    """

    step: int = 0
    lineages: Sequence[str] = ()
    highest_step: int = 0
    highest_at: int = 0


class HostRecord:
    """What is known of the reports of one host tag. Times are Unix seconds, 0 for never.

    `run_report_at`: the last run report; 0 if this host sends none. `full_report_at`: the last
    report about all lineages. `log_position`: the last certbot run in certbot's log of which a run
    report was sent, "" if there is none. `certbot`: the version in certbot's log, "" if it is not
    known. `exit_status`: that of the last certbot run, -1 if it is not known. `run_failure`: why
    the last certbot run failed as a whole, "" if it did not. `locked_since`: since when each
    certbot run found another one running. `verdicts` has, by lineage, what was reported last.
    `retired` has, by lineage, since when it is retired. With `is_damaged`, the known file could not
    be read: nothing is known, and the file must stay as it is.
    """

    is_damaged = False

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        """`values` are a part of the known file; raise TypeError or ValueError if they are none."""
        values = values or {}
        self.run_report_at = int(values.get("run_report_at", 0))
        self.full_report_at = int(values.get("full_report_at", 0))
        self.log_position = str(values.get("log_position", ""))
        self.certbot = str(values.get("certbot", ""))
        self.exit_status = int(values.get("exit_status", -1))
        self.run_failure = str(values.get("run_failure", ""))
        self.locked_since = int(values.get("locked_since", 0))
        self.incident = Incident(*values.get("incident", ()))
        self.verdicts: dict[str, Verdict] = {}
        for lineage, verdict in values.get("verdicts", {}).items():
            self.verdicts[lineage] = Verdict(**verdict)
        self.retired: dict[str, int] = {}
        for lineage, since in values.get("retired", {}).items():
            self.retired[lineage] = int(since)

    @property
    def has_run_reports(self) -> bool:
        """Whether this host sends run reports."""
        return self.run_report_at > 0

    def to_json(self) -> dict[str, Any]:
        """Return the record as it stands in the known file."""
        verdicts = {lineage: verdict._asdict() for lineage, verdict in self.verdicts.items()}
        return {**vars(self), "verdicts": verdicts}


class KnownFile:
    """The file that says what was reported last: a HostRecord for each host tag, as JSON.

    Hosts may share certbot's configuration folder, so each has a record of its own. The file is
    needed to see which lineages are retired, which renewals were not reported, and what certbot's
    log said before.

    A program replaces the file as a whole, and only after the server has stored the report. Also
    after a power loss it is the old file or the new one, and never has more than was reported.
    """

    def __init__(self, folder: str, host: str) -> None:
        """`folder` is certbot's configuration folder, `host` the host tag."""
        self.path = os.path.join(folder, KNOWN_FILE)
        self.host = host

    def read(self, problems: list[str]) -> HostRecord:
        """Return the record of this host, an empty one if there is none.

        If the file is damaged, add to the problems. Run reports may then be installed: without
        them, the certificates of a host that is off would be judged as of now.
        """
        if not os.path.exists(self.path):
            return HostRecord()
        number_of_problems = len(problems)
        text = read_text(self.path, problems)
        if len(problems) == number_of_problems:
            try:
                return HostRecord(self.parse(text).get(self.host))
            except (ValueError, TypeError, AttributeError, RecursionError):
                problems.append(f"{self.path} is damaged: remove it, the next report writes it")
        record = HostRecord({"run_report_at": 1})
        record.is_damaged = True
        return record

    @staticmethod
    def parse(text: str) -> dict[str, Any]:
        """Return the records by host tag; raise ValueError or TypeError if the text is damaged."""
        records = json.loads(text)
        if not isinstance(records, dict):
            raise TypeError(text)
        return records

    def write(self, record: HostRecord) -> None:
        """Replace the record of this host, and keep the others; print a warning if that fails."""
        if not record.is_damaged:
            self.replace(record.to_json())

    def remove(self) -> None:
        """Remove the record of this host, because the host is retired."""
        self.replace(None)

    def replace(self, values: dict[str, Any] | None) -> None:
        """Replace this host's part of the file; None: remove it."""
        records = {}
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # damaged: write it anew
            records = self.parse(read_text(self.path, [], may_be_missing=True))
        records.pop(self.host, None)
        if values is not None:
            records[self.host] = values
        try:
            write_text(f"{self.path}.new", json.dumps(records, indent=1, sort_keys=True) + "\n")
            os.replace(f"{self.path}.new", self.path)
        except OSError as error:
            remedy = (
                "make the file writable; until then, retired certificates are only reported by "
                f"{RUN_REPORT_NAME}.py --retire"
            )
            warn(f"{self.path}: {error.strerror}: {remedy}")


def judged(folder: str, lineages: Lineages, record: HostRecord, now: int) -> Lineages:
    """Return the lineages as certbot's log judges them: due dates, failures, unreadable ones.

    A lineage that was retired by hand is left out, although its certificate is still in live/.
    """
    names = {name for name in lineages.names if not is_retired_by_hand(folder, name, record)}
    certificates = []
    for certificate in lineages.certificates:
        if certificate.lineage in names:
            verdict = record.verdicts.get(certificate.lineage, Verdict(0))
            certificates.append(with_verdict(certificate, verdict, now))

    readable = {certificate.lineage for certificate in certificates}
    unreadable = {}
    for name in sorted(names):
        problem = lineages.unreadable.get(name, "")
        verdict = record.verdicts.get(name, Verdict(0))
        if is_newer_than_files(verdict, folder, name) and (verdict.unreadable or name in readable):
            problem = verdict.unreadable
        if problem:
            unreadable[name] = problem
    return lineages._replace(names=names, certificates=certificates, unreadable=unreadable)


class KnownHost(NamedTuple):
    """The lineages of this host as certbot's log judges them, and the record of this host.

    `problems` concern the known file.
    """

    record: HostRecord
    lineages: Lineages
    problems: list[str]


def read_known_host(settings: Settings, folder: str, now: int) -> KnownHost:
    """Read the record and the lineages of this host, for --check and --dry-run."""
    problems: list[str] = []
    record = KnownFile(folder, settings.host).read(problems)
    lineages = judged(folder, read_lineages(folder, record.certbot), record, now)
    return KnownHost(record, lineages, problems)


def is_retired_by_hand(folder: str, name: str, record: HostRecord) -> bool:
    """Return whether a lineage without a renewal configuration was retired with --retire."""
    return name in record.retired and not os.path.exists(renewal_conf_path(folder, name))


def is_newer_than_files(verdict: Verdict, folder: str, name: str) -> bool:
    """Return whether certbot has read a lineage since its files were last changed."""
    paths = [renewal_conf_path(folder, name)]
    if not verdict.read_at or not os.path.exists(paths[0]):
        return False
    paths += [os.path.join(folder, place, name) for place in ("live", "archive")]
    # read_at is in whole seconds, rounded down.
    return verdict.read_at >= int(max(map(changed_at, paths)))


def changed_at(path: str) -> float:
    """Return when a file or a folder was last changed, in Unix seconds; 0 if there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def with_verdict(certificate: Certificate, verdict: Verdict, now: int) -> Certificate:
    """Return a certificate with the due date and the failure that follow from certbot's verdict."""
    not_before, not_after = certificate.not_before, certificate.not_after
    due = due_with_verdict(certificate.renewal_due, not_before, not_after, verdict)
    failure = certificate.failure
    if verdict.not_before == not_before:
        if verdict.failed_since:
            failure = verdict.failure
        elif verdict.not_due_at >= due and not failure:
            failure = f"certbot, {utc(verdict.not_due_at)}: Certificate not yet due for renewal"
    return certificate._replace(renewal_due=due, failure=failure if due <= now else "")


def record_lineages(record: HostRecord, folder: str, lineages: Lineages, now: int) -> list[str]:
    """Note in the record which lineages are on this host; return those that are newly retired.

    If all lineages are missing at once, and nothing shows that certbot's folder is mounted, none is
    retired: they become unreadable. Otherwise no alert would be possible any more.
    """
    for name in lineages.names:
        record.retired.pop(name, None)
    for name, since in list(record.retired.items()):
        if since <= now - RETIRED_REPORTS:
            del record.retired[name]
    if lineages.problems:  # not all lineages are seen, so none can be missed
        return []

    missing = sorted(set(record.verdicts) - lineages.names)
    if missing and not lineages.names and not is_mounted(folder):
        for name in missing:
            lineages.unreadable[name] = all_missing_problem(missing)
        return []
    for name in missing:
        del record.verdicts[name]
        record.retired[name] = now
    for certificate in lineages.certificates:
        record_new_lineage(record, certificate)
    for name in lineages.unreadable:
        record.verdicts.setdefault(name, Verdict(0))
    return missing


def record_new_lineage(record: HostRecord, certificate: Certificate) -> None:
    """Note a lineage that was not reported before.

    On a host with run reports, the next one also reports the predecessors of the certificate, which
    were missed. Otherwise the reports start with the present certificate.
    """
    known_begin = 0 if record.has_run_reports else certificate.not_before
    record.verdicts.setdefault(certificate.lineage, Verdict(known_begin))


def is_mounted(folder: str) -> bool:
    """Return whether live/ is that of certbot: certbot puts a README there, and never deletes it.

    Without it, live/ may be the empty folder at which a volume should be mounted.
    """
    return os.path.exists(os.path.join(folder, "live", "README"))


def all_missing_problem(missing: Sequence[str]) -> str:
    """Return the problem of a host that has lost all its lineages at once."""
    return (
        f"all lineages are missing ({' '.join(missing)}): check that certbot's configuration "
        "folder is mounted; if they were deleted on purpose, retire them with "
        f"{RUN_REPORT_NAME}.py --retire {' '.join(missing)}"
    )


# ---- Reports -----------------------------------------------------------------------------------
FULL_REPORT_SECONDS = 600  # a deploy hook reports the other lineages once in this time


class Report(NamedTuple):
    """The content of one report.

    `renewals` are points at the time of a certificate, which may be older than the retention of the
    bucket. `states` are points at the current time. `last` is sent when the server has stored all
    others, None if there is no last point. `summary` says what is reported. `retired` has a text
    for each lineage that is newly retired. `problems` do not prevent the report; each has its
    remedy.
    """

    renewals: list[Point]
    states: list[Point]
    summary: str
    problems: list[str]
    retired: Sequence[str] = ()
    last: Point | None = None

    def points(self) -> list[Point]:
        """Return all points in the order in which they are sent."""
        last = [] if self.last is None else [self.last]
        return [*self.renewals, *self.states, *last]

    def subjects(self) -> str:
        """Return in words what is reported."""
        return "; ".join(filter(None, [self.summary, *self.retired]))


class Outcome(NamedTuple):
    """The result of a report: whether it was stored, its problems, whether a retry may help."""

    stored: bool
    problems: list[str]
    retry: bool = False


class Served(NamedTuple):
    """What a run report saw of a served certificate: fields of its state, and the same in words.

    `words` are "1 of 2", or "1 of 2, another certificate at www.example.com".
    """

    fields: dict[str, FieldValue]
    words: str = ""

    def summary(self) -> str:
        """Return the words for the success line of a report."""
        return f", served at {self.words}" if self.words else ""


def certificates_report(
    settings: Settings,
    folder: str,
    lineages: Lineages,
    now: int,
    has_run_reports: bool,
    served: Mapping[str, Served] | None = None,
) -> Report:
    """Return the renewals and states of certificates, and what their targets have.

    `served` has what a run report saw of a lineage; it may lack any.
    """
    problems = list(lineages.problems)
    for problem in lineages.unreadable.values():
        if problem not in problems:  # all lineages may have the same
            problems.append(problem)
    run_at = now if has_run_reports else 0
    report = Report([], [], "", problems)
    summaries = []
    for certificate in lineages.certificates:
        if now < certificate.not_before:
            problems.append(
                f"the clock of this host shows {utc(now)}, before {certificate.lineage} "
                f"was issued ({utc(certificate.not_before)}): correct the clock"
            )
        seen = (served or {}).get(certificate.lineage, Served({}))
        report.renewals.extend(renewal_points(settings, certificate))
        report.states.append(state_point(settings, certificate, run_at, seen.fields))
        summaries.append(summary_of(certificate) + seen.summary())

    path = os.path.join(folder, DELIVERY_STATE_FILE)
    deliveries = parse_deliveries(read_text(path, problems, may_be_missing=True))
    report.states.extend(delivery_points(settings, deliveries, lineages.certificates, run_at))
    summary = counted(len(summaries), "certificate")
    return report._replace(summary=summaries[0] if len(summaries) == 1 else summary)


def summary_of(certificate: Certificate) -> str:
    """Return in words what is reported of a certificate."""
    staging = " (of a staging CA)" if certificate.is_staging else ""
    return (
        f"{certificate.lineage}{staging} renewed {utc(certificate.not_before)}, "
        f"{counted(len(certificate.names), 'name')}, "
        f"next renewal due {utc(certificate.renewal_due)}"
    )


class PendingReport(NamedTuple):
    """A report, and the record that the known file must have once it is stored."""

    report: Report
    record: HostRecord


def renewal_report(settings: Settings, environ: Environ, folder: str, now: int) -> PendingReport:
    """Return the report of the renewal for which certbot has started this hook.

    The certificate counts, not the environment: in a dry run certbot names a renewal that did not
    happen. If the certificate cannot be read, the names are reported as renewed now. Raise a
    ReportError if there is nothing to report.

    The report also has the state of all other lineages, at most once in ten minutes: it repairs
    what an earlier report has lost.
    """
    names = environ.get("RENEWED_DOMAINS", "").split()
    live_folder = environ.get("RENEWED_LINEAGE", "").strip()
    if not names and not live_folder:
        raise ReportError(not_set_problem("RENEWED_DOMAINS"))
    problems: list[str] = []
    record = KnownFile(folder, settings.host).read(problems)
    try:
        certificate = read_renewed_certificate(live_folder)
    except ReportError as error:
        if not names:
            raise
        lineage = os.path.basename(live_folder.rstrip("/"))
        return PendingReport(report_of_names(settings, lineage, names, str(error), now), record)

    if not names:
        fault = not_set_problem("RENEWED_DOMAINS")
        problems.append(f"{fault} (the names of the certificate are reported)")
    report = report_of_renewal(settings, folder, certificate, record, now)
    return PendingReport(report._replace(problems=[*report.problems, *problems]), record)


def report_of_renewal(
    settings: Settings, folder: str, certificate: Certificate, record: HostRecord, now: int
) -> Report:
    """Return the report of a renewed certificate, perhaps with all other lineages.

    The record is changed to what is reported.
    """
    lineages = Lineages({certificate.lineage}, [certificate], {}, [])
    is_complete = False
    if not 0 <= now - record.full_report_at < FULL_REPORT_SECONDS:
        all_lineages = read_lineages(folder, record.certbot)
        if certificate.lineage in all_lineages.names:  # else the hook is in another folder
            lineages = all_lineages
            is_complete = True
    lineages = judged(folder, lineages, record, now)

    retired: list[str] = []
    if is_complete:
        retired = record_lineages(record, folder, lineages, now)
        record.full_report_at = now
    elif certificate.lineage.isprintable():  # a name with a line break is no lineage
        record_new_lineage(record, certificate)
    # The faults of other lineages are the subject of run reports, not of this renewal.
    lineages.unreadable.clear()
    report = certificates_report(settings, folder, lineages, now, record.has_run_reports)
    run_at = now if record.has_run_reports else 0
    report.states.extend(retired_states(settings, record.retired, run_at))
    others = len(lineages.certificates) - 1
    summary = summary_of(certificate)
    if others:
        summary += f", and the state of {counted(others, 'other certificate')}"
    return report._replace(summary=summary, retired=retired_texts(retired))


def retired_texts(lineages: Sequence[str]) -> list[str]:
    """Return in words that lineages are retired."""
    return [f"{lineage} retired" for lineage in lineages]


def report_of_names(
    settings: Settings, lineage: str, names: Sequence[str], fault: str, now: int
) -> Report:
    """Return the report of a renewal whose certificate cannot be read: its names, renewed now."""
    points = make_renewal_points(settings, lineage, names, now)
    summary = f"{names[0]}, {counted(len(names), 'name')}"
    problem = f"{fault} (the renewal is reported with the current time, without a state)"
    return Report([], points, summary, [problem])


def report_renewal(settings: Settings, environ: Environ, folder: str, now: int) -> Outcome:
    """Report the renewal for which certbot has started this hook; raise a ReportError."""
    pending = renewal_report(settings, environ, folder, now)
    outcome = send_report(settings, pending.report)
    if outcome.stored:
        KnownFile(folder, settings.host).write(pending.record)
    return outcome


def not_set_problem(name: str) -> str:
    """Return the problem that certbot's variable is not set."""
    return (
        f"{name} is empty or not set, but certbot sets it for a deploy hook: "
        f"to start the hook by hand, use {NAME}.py --check"
    )


def read_renewed_certificate(live_folder: str) -> Certificate:
    """Return the certificate in a lineage's folder in live/; raise a ReportError."""
    if not live_folder:
        raise ReportError(not_set_problem("RENEWED_LINEAGE"))
    live_folder = os.path.abspath(live_folder)
    lineage = os.path.basename(live_folder)
    certbot_folder = os.path.dirname(os.path.dirname(live_folder))
    # Without the renewal configuration, the certificate's own dates still hold.
    conf = read_renewal_conf(renewal_conf_path(certbot_folder, lineage), [])
    return read_certificate(os.path.join(live_folder, "cert.pem"), lineage, conf)


def report_of_folder(settings: Settings, folder: str, now: int) -> Report:
    """Return a report of all certificates of this host, for --check and --dry-run."""
    known = read_known_host(settings, folder, now)
    report = report_of_known_host(settings, folder, known, now)
    return report._replace(problems=[*report.problems, *known.problems])


def report_of_known_host(
    settings: Settings,
    folder: str,
    known: KnownHost,
    now: int,
    served: Mapping[str, Served] | None = None,
) -> Report:
    """Return a report of all certificates of this host, for --check and --dry-run.

    `served` has what is served of a lineage; it may lack any.
    """
    has_run_reports = known.record.has_run_reports
    report = certificates_report(settings, folder, known.lineages, now, has_run_reports, served)
    report.problems.extend(no_certificate_problems(folder, known.lineages))
    return report


def no_certificate_problems(folder: str, lineages: Lineages) -> list[str]:
    """Return a problem if the configuration folder has no certificate at all."""
    if lineages.names or lineages.problems:
        return []
    return [no_certificate_problem(folder)]


def no_certificate_problem(folder: str) -> str:
    """Return the problem of a configuration folder without certificates."""
    return (
        f"{folder}/live: no certificates: get a certificate with certbot, "
        "or name certbot's configuration folder with --config-dir"
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: 1 name, 2 names. `plural`: if it is not the noun and an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def utc(moment: float) -> str:
    """Return a time in Unix seconds for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


class Batch(NamedTuple):
    """The lines of one request; `droppable` of them may be older than the bucket's retention."""

    lines: list[str]
    droppable: int


def batches_of(report: Report) -> Iterator[Batch]:
    """Divide a report into requests, without its last point."""
    points = [*report.renewals, *report.states]
    for start in range(0, len(points), LINES_PER_REQUEST):
        lines = [line_protocol(point) for point in points[start : start + LINES_PER_REQUEST]]
        droppable = min(max(len(report.renewals) - start, 0), LINES_PER_REQUEST)
        yield Batch(lines, droppable)


def send_report(settings: Settings, report: Report) -> Outcome:
    """Send a report, and print what was reported. Problems include the report's own."""
    problems = list(report.problems)
    remark = ""
    result = SendResult()
    for batch in batches_of(report):
        result = send_lines(settings, batch.lines, batch.droppable)
        if result.error:
            return Outcome(False, [*problems, result.error], result.retry)
        remark = result.remark or remark
    if report.last is not None:
        last = dated_by_server(report.last, result.date)
        result = send_lines(settings, [line_protocol(last)])
        if result.error:
            return Outcome(False, [*problems, result.error], result.retry)

    say(f"{report.subjects()}: reported to {destination(settings, result.has_buckets)}{remark}")
    return Outcome(True, problems + clock_problems(result.date))


def dated_by_server(point: Point, date: str) -> Point:
    """Return a run point whose field `reported_at` is the server's time, if it has that field.

    `date` is the header Date of the answer to the same report's states, "" if there is none. PromQL
    cannot read the time of a point, and this host's clock may be wrong.
    """
    server = unix_time(date)
    if server is None or not point.fields.get("reported_at"):
        return point
    return point._replace(fields={**point.fields, "reported_at": server})


def destination(settings: Settings, has_buckets: bool) -> str:
    """Return in words where reports are sent to."""
    return f"{settings.url}, bucket {settings.bucket}" if has_buckets else settings.url


def unix_time(date: str) -> int | None:
    """Return the time in a header Date as Unix seconds; None if it cannot be read."""
    try:
        return calendar.timegm(parsedate(date) or ())
    except (ValueError, OverflowError):
        return None


def clock_problems(date: str) -> list[str]:
    """Return a problem if the clock of the server, a header Date, differs from this host's."""
    server = unix_time(date)
    now = time.time()
    if server is None or abs(server - now) <= LARGEST_CLOCK_DIFFERENCE:
        return []
    try:
        clocks = f"the clock of this host shows {utc(now)}, the clock of the server {utc(server)}"
    except (ValueError, OverflowError, OSError):
        return []  # a year that the system cannot show
    return [f"{clocks}: correct the wrong clock"]


# ---- --check -----------------------------------------------------------------------------------
# Where --check looks for what starts run reports.
STARTER_PATHS = (
    "/etc/systemd/system/**",
    "/etc/cron*",
    "/etc/cron*/*",
    "/var/spool/cron/**",
    "/etc/telegraf/**",
)
RUN_REPORT_NAME = "certbot_renewal_run"
RUN_REPORT_OPTIONS = (
    "--all",
    "--history",
    "--patience",
    "--stdout",
    "--retire",
    "--host",
    "--logs-dir",
)
CHECK_SECONDS = 5.0  # to find out what kind of server answers
LEAST_RETENTION_DAYS = 400  # a certificate lives for 398 days at most (CA/Browser Forum)
NO_FLUX = ", which has no Flux: it stores reports, but flux/, kapacitor/ and the board do not work"

# Matches VictoriaMetrics' -retentionPeriod: 12, 100d, 1.5y. Without a unit it is months.
RETENTION = re.compile(r"(?P<amount>\d+(?:\.\d+)?)(?P<unit>[hdwy]?)M*")
RETENTION_DAYS = {"h": 1 / 24, "d": 1, "w": 7, "y": 365, "": 31}

# Matches the host name that Docker gives to a container: 0123456789ab, or all 64 digits of its id.
CONTAINER_ID = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")


def warnings_of(settings: Settings, folder: str) -> list[str]:
    """Return the problems that do not prevent a report."""
    return container_id_problems(settings, folder) + secret_warnings(settings)


def container_id_problems(settings: Settings, folder: str) -> list[str]:
    """Return a problem if the host tag is a container's id."""
    if not CONTAINER_ID.fullmatch(settings.host):
        return []
    return [
        f"the host tag {settings.host} is a container's id, which changes: "
        f"set HOSTNAME in {folder}/{ENV_FILE}"
    ]


def secret_warnings(settings: Settings) -> list[str]:
    """Return a warning for each file with the token that every user can read."""
    token = settings.sources["INFLUXDB_TOKEN"]
    secret_files = [settings.sources["INFLUXDB_TOKEN_FILE"].value]
    if token.value:
        secret_files.insert(0, token.origin)
    return [
        f"{path} holds the token, but every user can read it: chmod o= {path}"
        for path in secret_files
        if os.path.isfile(path) and os.stat(path).st_mode & 0o004
    ]


def run_report_starters() -> list[str]:
    """Return the files that start run reports: the files that name the program and --all."""
    from glob import glob

    command = re.compile(rf"(?m)^[^#\n]*{RUN_REPORT_NAME}\.py.*--all")
    starters = []
    for pattern in STARTER_PATHS:
        paths = sorted(glob(pattern, recursive=True))
        starters += [path for path in paths if command.search(read_text(path, []))]
    return starters


class Server(NamedTuple):
    """The server that answers at INFLUXDB_URL: its kind and version in words."""

    kind: str
    has_buckets: bool = True


class ServerProbe:
    """Finds out what answers at INFLUXDB_URL, by what it says of itself."""

    def __init__(self, settings: Settings) -> None:
        """Raise a ReportError if requests is missing."""
        self.settings = settings
        self.requests = load_requests()

    def describe(self) -> Server:
        """Return the server, within CHECK_SECONDS."""
        server: Server = run_with_deadline(CHECK_SECONDS, self.ask_server, Server("no answer"))
        return server

    def ask_server(self) -> Server:
        """Return the server; its kind is "no answer: …" if nothing answers."""
        try:
            headers = self.get("/ping")[0]
            version = shortened(headers.get("X-Influxdb-Version", ""))
            if version:
                return Server(influxdb_kind(version))
            if VICTORIA_METRICS_HEADER in headers:
                version = self.find("/metrics", r"vm_app_version\{.*short_version=")
                retention = self.find("/metrics", r'flag\{name="retentionPeriod", value=')
                kind = f"VictoriaMetrics {version}".rstrip() + retention_warning(retention)
                return Server(kind, has_buckets=False)
            version = self.find("/api/v1/status/buildinfo", '.*"version":')
            if version:
                return Server(f"Prometheus {version}", has_buckets=False)
            return Server("unknown")
        except (self.requests.RequestException, OSError, ValueError) as error:
            return Server(f"no answer: {root_cause(error)}")

    def get(self, path: str) -> tuple[Mapping[str, str], str]:
        """Return the headers and the text of an answer, at most 800 KiB of it."""
        with self.requests.get(
            self.settings.url + path,
            timeout=CHECK_SECONDS,
            allow_redirects=False,
            stream=True,
            auth=authorization(self.settings),
        ) as response:
            body = b""
            for chunk in response.iter_content(8192):
                body += chunk
                if len(body) >= 100 * 8192:
                    break
            return response.headers, body.decode("utf-8", "replace")

    def find(self, path: str, key: str) -> str:
        """Return the quoted text after a key at the beginning of a line, "" if there is none."""
        match = re.search(rf'(?m)^{key}"([^"]*)"', self.get(path)[1])
        return shortened(match[1]) if match else ""


def influxdb_kind(version: str) -> str:
    """Return the kind of a server with this version in X-Influxdb-Version."""
    if version == "1.0":
        return "Telegraf listener 1.0"
    kind = version if "Telegraf" in version else f"InfluxDB {version}"
    return kind + NO_FLUX if re.match("v?3", version) else kind


def retention_warning(retention: str) -> str:
    """Return a text if the retention of VictoriaMetrics is shorter than 400 days, else ""."""
    match = RETENTION.fullmatch(retention)
    if match is None:
        return ""
    days = float(match["amount"]) * RETENTION_DAYS[match["unit"]]
    if days >= LEAST_RETENTION_DAYS:
        return ""
    return (
        f", retention {days:g} days: an alert resolves when its last report is deleted, "
        f"so start VictoriaMetrics with -retentionPeriod={LEAST_RETENTION_DAYS}d"
    )


def renewal_status(certificate: Certificate, now: int) -> str:
    """Return how far a certificate's renewal is: OK, due, OVERDUE or EXPIRED.

    A renewal is overdue a day after its due date, or after half of the time between the due date
    and the expiry if that is shorter.
    """
    grace = min(DAY, (certificate.not_after - certificate.renewal_due) / 2)
    if now >= certificate.not_after:
        return "EXPIRED"
    if now > certificate.renewal_due + grace:
        return "OVERDUE"
    return "due" if now >= certificate.renewal_due else "OK"


def ready_verdict(
    settings: Settings,
    certificates: Sequence[Certificate],
    now: int,
    served: Mapping[str, Served] | None = None,
) -> str:
    """Return the last line of --check of an installation that works.

    `served` has what was seen of a lineage, None if no endpoint was checked.
    """
    statuses = [renewal_status(certificate, now) for certificate in certificates]
    overdue = statuses.count("OVERDUE")
    expired = statuses.count("EXPIRED")
    late = []
    if overdue:
        late.append(f"{counted(overdue, 'certificate is', 'certificates are')} overdue")
    if expired:
        late.append(f"{counted(expired, 'certificate has', 'certificates have')} expired")
    if late:
        return f"ready, but {' and '.join(late)}: find the reason with certbot renew --dry-run"

    not_served = [
        lineage
        for lineage, seen in (served or {}).items()
        if seen.fields.get("not_served", "none") != "none"
    ]
    if not_served:
        number = counted(len(not_served), "certificate is", "certificates are")
        return f"ready, but {number} not served: reload the servers, or correct VERIFY"
    return f"ready: reports arrive at {settings.url}, as host {settings.host}"


def say_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, indented."""
    columns = list(zip(header, *rows))
    widths = [max(map(len, column)) for column in columns]
    for cells in (header, *rows):
        padded = [cell.ljust(width) for cell, width in zip(cells, widths)]
        say("  " + "  ".join(padded).rstrip())


def say_settings(settings: Settings, folder: str, script: str) -> None:
    """Print the settings that are not defaults, and their origin. The token is not shown.

    The env file is in the folder, the table of the defaults in the script.
    """
    say(f"Settings (the others have the defaults of {script}):")
    rows = []
    for name, source in settings.sources.items():
        if not source.is_default:
            is_secret = name == "INFLUXDB_TOKEN" and source.value
            value = "***" if is_secret else source.value or "(empty)"
            rows.append([name, value, source.origin])
    say_table(["setting", "value", "origin"], rows)
    env_path = os.path.join(folder, ENV_FILE)
    if not os.path.exists(env_path):
        say(f"Env file: {env_path} does not exist")


def say_program(name: str, script: str, version: str) -> None:
    """Print where a program is, its version and its mode."""
    mode = os.stat(script).st_mode & 0o7777
    say(f"{name}: {script}, version {version}, mode {mode:o}")


def say_certificates(
    certificates: Sequence[Certificate], served: Mapping[str, Served] | None, now: int
) -> None:
    """Print a table of the certificates. `served`: None if no endpoint was checked."""
    if not certificates:
        return
    header = ["lineage", "names", "renewed", "due", "expires", "status"]
    if served is not None:
        header.append("served")
    rows = []
    for certificate in certificates:
        staging = " (staging)" if certificate.is_staging else ""
        row = [
            certificate.lineage + staging,
            str(len(certificate.names)),
            utc(certificate.not_before).removesuffix(" UTC"),
            utc(certificate.renewal_due).removesuffix(" UTC"),
            utc(certificate.not_after).removesuffix(" UTC"),
            renewal_status(certificate, now),
        ]
        if served is not None:
            row.append(served[certificate.lineage].words if certificate.lineage in served else "-")
        rows.append(row)
    say("Certificates (times are UTC):")
    say_table(header, rows)


def say_run_reports(folder: str, host: str) -> None:
    """Print when the last run report was sent, and what starts run reports."""
    last = KnownFile(folder, host).read([]).run_report_at
    when = f"last {utc(last)}" if last else "none yet"
    starters = run_report_starters()
    if starters:
        say(f"Run reports: {when}, started by:", *[f"  {path}" for path in starters])
    else:
        nothing = f"no timer, cron job or Telegraf input starts {RUN_REPORT_NAME}.py"
        say(f"Run reports: {when} ({nothing})")

    post_hook = os.path.join(folder, "renewal-hooks", "post", f"{RUN_REPORT_NAME}.py")
    if os.access(post_hook, os.X_OK):
        say(f"Post hook: {post_hook}, reports only after attempted renewals")


def deploy_hook_problems(script: str, folder: str) -> list[str]:
    """Return why certbot would not start a deploy hook."""
    problems = []
    deploy_folder = os.path.join(folder, "renewal-hooks", "deploy")
    if os.path.realpath(os.path.dirname(script)) != os.path.realpath(deploy_folder):
        problems.append(
            f"{script} is not in {deploy_folder}, where certbot would run it: copy it there"
        )
    return problems + not_executable_problems(script)


def not_executable_problems(script: str) -> list[str]:
    """Return a problem if certbot would ignore a hook because it is not executable."""
    if os.stat(script).st_mode & 0o111:
        return []
    return [f"{script} is not executable, so certbot ignores it: chmod 755 {script}"]


def version_problems(version: str, program: str) -> list[str]:
    """Return a problem if another program of this project has another version than this file."""
    if version == __version__:
        return []
    return [
        f"{os.path.abspath(__file__)} is version {__version__}, {program} is version {version}: "
        "copy both from the same release"
    ]


class Checked(NamedTuple):
    """What --check found on this host: the certificates, the report of them, and the time.

    `served` has what was seen of a lineage, None if no endpoint was checked.
    """

    certificates: Sequence[Certificate]
    report: Report
    now: int
    served: Mapping[str, Served] | None = None


def check_sending(settings: Settings, checked: Checked, folder: str) -> list[str]:
    """Print the server, the certificates and the run reports, send the report; return problems.

    Nothing is sent under a container's id: the server would keep a host that no longer exists.
    """
    server = ServerProbe(settings).describe()
    say(f"Server: {server.kind}, at {destination(settings, server.has_buckets)}")
    say_certificates(checked.certificates, checked.served, checked.now)
    say_run_reports(folder, settings.host)

    problems = warnings_of(settings, folder)
    if server.kind.startswith("Prometheus"):
        problems.append(
            "Prometheus does not accept line protocol: set INFLUXDB_URL to vmagent or to a "
            "Telegraf listener that forwards to Prometheus"
        )
    elif checked.report.points() and not container_id_problems(settings, folder):
        problems += send_report(settings, checked.report).problems
    else:
        problems += checked.report.problems
    return problems


def check(settings: Settings, folder: str, script: str, now: int) -> list[str]:
    """Prove the installation with a real write; print the findings, return the problems."""
    known = read_known_host(settings, folder, now)
    report = report_of_known_host(settings, folder, known, now)
    certificates = known.lineages.certificates
    load_requests()  # before anything is printed: nothing works without it
    problems = [*known.problems, *deploy_hook_problems(script, folder)]
    say_settings(settings, folder, script)
    say_program("Report hook", script, __version__)

    checked = Checked(certificates, report, now)
    problems += check_sending(settings, checked, folder)
    if not problems:
        say(ready_verdict(settings, certificates, now))
    return problems


# ---- Command line ------------------------------------------------------------------------------
class Options(NamedTuple):
    """The options of the command line; certbot gives none."""

    check: bool = False
    dry_run: bool = False
    config_dir: str = ""


def say(*lines: str, stream: TextIO | None = None) -> None:
    """Print lines in ASCII; a closed pipe is no failure.

    certbot treats a lineage as failed if its hook prints what is not UTF-8.
    """
    stream = stream or sys.stdout
    for line in lines:
        text = CONTROL.sub(" ", line).encode("ascii", "backslashreplace").decode()
        try:
            print(text, file=stream, flush=True)
        except OSError:
            # Without this, the interpreter complains when it flushes the stream at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def warn(text: str, program: str = NAME) -> None:
    """Print a warning to stderr."""
    say(f"{program}: warning: {text}", stream=sys.stderr)


def say_problems(problems: Sequence[str], program: str, is_check: bool) -> int:
    """Print the problems on one line of stderr; return the exit status, 0 without problems."""
    if not problems:
        return 0
    prefix = "not ready: " if is_check else ""
    say(f"{program}: {prefix}{'; '.join(problems)}", stream=sys.stderr)
    return 1


def say_points(settings: Settings, report: Report) -> None:
    """Print the lines of a report and the URL for them, for --dry-run."""
    lines = [line_protocol(point) for point in report.points()]
    say(*lines)
    say(f"# {counted(len(lines), 'line')}, not sent to {write_url(settings)}")


def settings_table() -> str:
    """Return the table of settings, for --help."""
    lines = [
        f"settings, from {ENV_FILE} in certbot's configuration folder,",
        f"from the environment, or from the table at the top of {NAME}.py:",
    ]
    for name, setting in SETTINGS.items():
        lines.append(f"  {name:20} {setting.default or '(empty)':22} {setting.meaning}")
    return "\n".join(lines)


def argument_parser(
    program: str, description: str, epilog: str, check_help: str, dry_run_help: str
) -> argparse.ArgumentParser:
    """Return a parser with the options that all programs have.

    `check_help` and `dry_run_help` are what --help says about --check and --dry-run.
    """
    import argparse

    parser = argparse.ArgumentParser(
        f"{program}.py",
        description=description,
        epilog=epilog,
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-h", "--help", action="store_true", help="print this help")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument(
        "--config-dir", metavar="DIR", default="", help="certbot's configuration folder"
    )
    proofs = parser.add_mutually_exclusive_group()
    proofs.add_argument("--check", action="store_true", help=check_help)
    proofs.add_argument("--dry-run", action="store_true", help=dry_run_help)
    return parser


def printed_help(
    arguments: argparse.Namespace,
    parser: argparse.ArgumentParser,
    program: str,
    version: str,
) -> bool:
    """Print the help or the version if one is asked for; return whether it was."""
    if arguments.help:
        say(*parser.format_help().splitlines())
    elif arguments.version:
        say(f"{program} {version}")
    return bool(arguments.help or arguments.version)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of this program's command line."""
    return argument_parser(
        NAME,
        (__doc__ or "").partition("\n")[0],
        settings_table(),
        check_help="check the installation, and report all certificates of this host",
        dry_run_help="print the line protocol and the URL for it, send nothing",
    )


def unknown_options_problem(arguments: Sequence[str]) -> str:
    """Return the problem of arguments that this program does not have."""
    for argument in arguments:
        if argument.partition("=")[0] in RUN_REPORT_OPTIONS:
            return f"{argument} is an option of {RUN_REPORT_NAME}.py, which sends run reports"
    return f"unknown arguments: {' '.join(arguments)}"


def read_options(arguments: Sequence[str]) -> Options | None:
    """Parse the command line; None if it only asked for help or the version, which was printed.

    Wrong usage raises SystemExit with status 2, as argparse does.
    """
    if not arguments:  # as certbot starts it: argparse is not needed, and not imported
        return Options()
    parser = command_line()
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(unknown_options_problem(unknown))
    if printed_help(parsed, parser, NAME, __version__):
        return None
    return Options(parsed.check, parsed.dry_run, parsed.config_dir)


def wrong_folder_problems(script: str, folder: str, program: str) -> list[str]:
    """Return a problem if certbot starts the program as the wrong kind of hook.

    `folder` is the folder of renewal-hooks in which it belongs: deploy or post. On some mounts
    every file is executable, so certbot starts every file that it finds.
    """
    parent = os.path.dirname(script)
    hooks = os.path.dirname(parent)
    if os.path.basename(hooks) != "renewal-hooks" or os.path.basename(parent) == folder:
        return []
    right = os.path.join(hooks, folder)
    return [f"{script} is in the wrong folder: move {program}.py to {right}"]


def refuse_wrong_folder(script: str, folder: str, program: str) -> None:
    """Raise a ReportError if certbot starts the program as the wrong kind of hook."""
    for problem in wrong_folder_problems(script, folder, program):
        raise ReportError(problem)


def run(options: Options, environ: Environ, script: str, folder: str) -> list[str]:
    """Run the chosen command; return the problems. Raise a ReportError."""
    now = int(time.time())
    settings = read_settings(environ, folder, script)
    if options.check:
        return check(settings, folder, script, now)
    if options.dry_run:
        is_renewal = environ.get("RENEWED_DOMAINS") or environ.get("RENEWED_LINEAGE")
        if is_renewal:
            report = renewal_report(settings, environ, folder, now).report
        else:
            report = report_of_folder(settings, folder, now)
        say_points(settings, report)
        return report.problems

    refuse_wrong_folder(script, "deploy", NAME)
    for text in warnings_of(settings, folder):
        warn(text)
    return report_renewal(settings, environ, folder, now).problems


def main(arguments: Sequence[str], environ: Environ, script: str = __file__) -> int:
    """Run the hook; return 0: stored, 1: not stored or a problem to correct, 2: wrong usage."""
    options = read_options(arguments)
    if options is None:
        return 0
    script = os.path.abspath(script)
    folder = options.config_dir or config_folder(script, environ.get("RENEWED_LINEAGE", ""))
    try:
        problems = run(options, environ, script, folder)
    except ReportError as error:
        problems = [str(error)]
    return say_problems(problems, NAME, options.check)


if __name__ == "__main__":
    gc.disable()  # it ends before there is anything to collect: 5 % of its time
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C needs no traceback
    sys.exit(main(sys.argv[1:], os.environ))
