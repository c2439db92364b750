"""When certbot renews, what a report looks like, where settings come from: each rule against certbot's own code or a foreign parser."""

from __future__ import annotations

import base64
import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import responses
from certbot._internal import renewal, storage
from hypothesis import example, given
from line_protocol_parser import parse_line

import certbot_renewal_report as hook_module
from support.hooks import TEXT, Ran
from tools.servers.lineages import DAY, install_report_hook, make_lineage

HOUR = 3600
BEGIN = 1_780_000_000  # an arbitrary notBefore


def lines_of(ran: Ran) -> list[dict[str, Any]]:
    """The points of a dry run, as another project's parser reads them."""
    assert ran.out.splitlines()[-1].startswith("# ")
    return [parse_line(line) for line in ran.out.splitlines()[:-1]]


@pytest.mark.parametrize(
    ("lifetime", "due_after"),
    [
        (90 * DAY, 60 * DAY),
        (64 * DAY, 64 * DAY * 2 // 3),  # day 42.7
        (45 * DAY, 30 * DAY),
        (10 * DAY, 10 * DAY - 10 * DAY // 3),  # ten days exactly: a third
        (10 * DAY - 1, 5 * DAY),  # just under: a half
        (160 * HOUR, 80 * HOUR),
        (40, 20),
    ],
)
def test_due_dates_are_those_of_certbot(
    report_hook: Callable[..., Ran], certbot_folder: Path, lifetime: int, due_after: int
) -> None:
    live = make_lineage(certbot_folder, "example.com", ["example.com"], BEGIN, lifetime)
    state = lines_of(
        report_hook("--dry-run", RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="example.com")
    )[-1]["fields"]
    assert state == {
        "not_before": BEGIN,
        "renewal_due": BEGIN + due_after,
        "not_after": BEGIN + lifetime,
        "run_at": 0,
    }
    by_certbot = renewal._default_renewal_time((live / "cert.pem").read_bytes()).timestamp()
    assert abs(by_certbot - BEGIN - due_after) < 1


@pytest.mark.parametrize(
    "interval",
    [
        "30 days",
        "3 weeks",
        "720 hours",
        "30",
        "1 month",
        "1 mth",
        "6 months 1 week",
        "3 days 12 hours",
        "45 days, 12 hours",
        "30d",
        "3w",
        "12h",
        "90 minutes",
        "30 DAYS",
        "1 year",
        "1 day",
        "3.5 days",
        "0 days",
        "10 seconds",
        "1 week 2 days 3 hours 4 minutes 5 seconds",
    ],
)
def test_an_interval_means_what_certbot_makes_of_it(interval: str) -> None:
    end = datetime.datetime(2026, 9, 15, 12, 0, 0, tzinfo=datetime.timezone.utc)
    moment = hook_module.subtract_interval(int(end.timestamp()), interval)
    assert moment is not None
    assert (
        storage.add_time_interval(
            datetime.datetime.fromtimestamp(moment, datetime.timezone.utc), interval
        )
        == end
    )


@pytest.mark.parametrize("nothing", ["", "banana", "days 30", "soon", "-30 days", "30 days or so"])
def test_what_is_no_interval_leaves_the_usual_due_date(nothing: str) -> None:
    assert hook_module.due_date(BEGIN, BEGIN + 90 * DAY, nothing) == BEGIN + 60 * DAY


@pytest.mark.parametrize(
    ("conf", "left"),
    [
        ("renew_before_expiry = 20 days\n", 20 * DAY),
        ("renew_before_expiry=2 weeks\n", 14 * DAY),
        ("renew_before_expiry = 720 hours  # as before\n", 720 * HOUR),
        ('renew_before_expiry = "25 days"\n', 25 * DAY),
        (
            "# renew_before_expiry = 20 days\n",
            30 * DAY,
        ),  # the commented line of old versions is no setting
        (
            "[renewalparams]\nrenew_before_expiry = 20 days\n",
            30 * DAY,
        ),  # nor is one below a section, for certbot
        ("renew_before_expiry =\n", 30 * DAY),
        (
            "renew_before_expiry = 3650 days\n",
            90 * DAY,
        ),  # longer than the lifetime: due from the beginning
    ],
)
def test_renew_before_expiry_moves_the_due_date(
    report_hook: Callable[..., Ran], certbot_folder: Path, conf: str, left: int
) -> None:
    live = make_lineage(certbot_folder, "example.com", ["example.com"], BEGIN, 90 * DAY, conf)
    fields = lines_of(
        report_hook("--dry-run", RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="example.com")
    )[-1]["fields"]
    assert fields["not_after"] - fields["renewal_due"] == left


def test_older_renewals_are_due_by_the_same_policy(
    run_report: Callable[..., Ran], certbot_folder: Path
) -> None:
    for begin in (BEGIN - 70 * DAY, BEGIN):
        make_lineage(
            certbot_folder,
            "example.com",
            ["example.com"],
            begin,
            90 * DAY,
            "renew_before_expiry = 20 days\n",
        )
    renewals = [
        it
        for it in lines_of(run_report("--all", "--history", "--dry-run"))
        if "due_after" in it["fields"]
    ]
    assert {it["time"]: it["fields"]["due_after"] for it in renewals} == {
        BEGIN - 70 * DAY: 70 * DAY,
        BEGIN: 70 * DAY,
    }


def test_a_report_is_points_of_the_renewal_and_one_of_the_state(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    names = ["example.com", "*.example.com", "xn--bcher-kva.example", "192.0.2.7", "2001:db8::1"]
    live = make_lineage(certbot_folder, "example.com", names, BEGIN, 90 * DAY)
    *renewals, state = lines_of(
        report_hook("--dry-run", RENEWED_LINEAGE=str(live), RENEWED_DOMAINS=" ".join(names))
    )
    whole = {"host": "web1", "domain": "all", "lineage": "example.com"}
    more = {"lifetime": 90 * DAY, "due_after": 60 * DAY, "names": " ".join(names)}
    assert renewals == [
        {
            "measurement": "certbot_renewal",
            "tags": whole,
            "fields": {"renewed_count": 5.0, **more},
            "time": BEGIN,
        },
        *(
            {
                "measurement": "certbot_renewal",
                "tags": {"host": "web1", "domain": n},
                "fields": {"renewed_count": 1.0},
                "time": BEGIN,
            }
            for n in names
        ),
    ]
    assert isinstance(renewals[0]["fields"]["renewed_count"], float)
    assert state["tags"] == whole
    assert all(type(value) is int for value in state["fields"].values())


def test_run_at_is_the_time_of_the_report_where_run_reports_are_installed(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    live = make_lineage(certbot_folder, "example.com", ["example.com"], BEGIN, 90 * DAY)
    (certbot_folder / "certbot_renewal_report.known").touch()
    state = lines_of(
        report_hook("--dry-run", RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="example.com")
    )[-1]
    assert state["fields"]["run_at"] == state["time"] >= BEGIN


@given(measurement=TEXT.filter(lambda t: t[0] not in "#_"), host=TEXT, name=TEXT)
@example(measurement="a b,c=d", host='we"b 1,=', name="*.exam\\ple.com")
def test_what_goes_into_a_line_comes_out_of_a_foreign_parser(
    measurement: str, host: str, name: str
) -> None:
    settings = hook_module.Settings("", 2, "", "", "", 10, measurement, host, {})
    whole, each = (
        parse_line(hook_module.line_protocol(point)) for point in hook_module.points_of_renewal(settings, name, [name], BEGIN)
    )
    assert whole == {
        "measurement": measurement,
        "tags": {"domain": "all", "host": host, "lineage": name},
        "fields": {"renewed_count": 1.0, "lifetime": 0, "due_after": 0, "names": name},
        "time": BEGIN,
    }
    assert each["tags"] == {"domain": name, "host": host}


@pytest.mark.parametrize(
    ("host", "stored"),
    [
        ("a\\", "a/"),
        ("a\\ b", "a/ b"),
        ("a\nb", "a_b"),
        ("a\r\n,b=1", "a__,b=1"),
        ("\udcffweb", "?web"),
        ("a\x00", "a_"),
    ],
)
def test_what_line_protocol_cannot_hold_is_replaced(host: str, stored: str) -> None:
    settings = hook_module.Settings("", 2, "", "", "", 10, "certbot_renewal", host, {})
    assert (
        parse_line(hook_module.line_protocol(hook_module.points_of_renewal(settings, "example.com", [], BEGIN)[0]))["tags"][
            "host"
        ]
        == stored
    )


# ---- Settings --------------------------------------------------------------------------------------------------------
def host_tag(ran: Ran) -> str:
    """The host tag that a dry run would send."""
    found = re.search(r"host=([^, ]*)", ran.out)
    assert found, ran.err
    return found[1]


def test_the_file_wins_over_the_environment_over_the_script(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], BEGIN, 90 * DAY)
    at_default = "http://127.0.0.1:8086/api/v2/write?bucket=telegraf&org=&precision=s"
    assert report_hook("--dry-run").out.rstrip().endswith(at_default)
    in_environment = {
        "HOSTNAME": "from-environment",
        "MEASUREMENT": "mine",
        "INFLUXDB_BUCKET": "b1",
        "INFLUXDB_ORG": "o1",
    }
    ran = report_hook("--dry-run", **in_environment)
    assert host_tag(ran) == "from-environment"
    assert ran.out.startswith("mine,") and "bucket=b1&org=o1" in ran.out
    (certbot_folder / "certbot_renewal_report.env").write_text(
        "HOSTNAME=from-file\nINFLUXDB_VERSION=1\nINFLUXDB_BUCKET=db/rp\n"
    )
    ran = report_hook("--dry-run", **in_environment)
    assert host_tag(ran) == "from-file"
    assert ran.out.startswith("mine,") and "/write?db=db&rp=rp&precision=s" in ran.out
    script = certbot_folder / "renewal-hooks" / "deploy" / "certbot_renewal_report.py"
    assert '"MEASUREMENT": Setting(\n        "certbot_renewal",' in script.read_text()


def test_the_defaults_may_be_edited_in_the_script(certbot_folder: Path) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], BEGIN, 90 * DAY)
    script = install_report_hook(certbot_folder)
    edited = script.read_text().replace(
        '"http://127.0.0.1:8086",\n',
        '"http://influx.example.com:8086",\n',
    )
    script.write_text(edited)
    done = subprocess.run(
        [sys.executable, str(script), "--dry-run"],
        env={},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "http://influx.example.com:8086/api/v2/write" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "HOSTNAME=web9",
        "export HOSTNAME=web9",
        "HOSTNAME = web9",
        "HOSTNAME='web9'",
        'HOSTNAME="web9"',
        "HOSTNAME=web9  # of the rack",
        '  HOSTNAME="web9" # of the rack',
        "\n# a comment\n\nHOSTNAME=web9\n",
        "HOSTNAME=web9\r\n",
    ],
)
def test_an_env_file_is_read_as_a_shell_would(
    report_hook: Callable[..., Ran], certbot_folder: Path, line: str
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], BEGIN, 90 * DAY)
    (certbot_folder / "certbot_renewal_report.env").write_bytes(line.encode())
    assert host_tag(report_hook("--dry-run")) == "web9"


def test_a_hash_or_an_equals_sign_inside_a_value_belongs_to_it(certbot_folder: Path) -> None:
    path = certbot_folder / "certbot_renewal_report.env"
    path.write_text("INFLUXDB_TOKEN=fake#token==\nINFLUXDB_BUCKET='a # b'\n")
    faults: list[str] = []
    assert hook_module.read_env_file(str(path), faults) == {
        "INFLUXDB_TOKEN": "fake#token==",
        "INFLUXDB_BUCKET": "a # b",
    }
    assert faults == []


def test_a_certificate_without_names_has_a_state(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", [], BEGIN, 90 * DAY)
    ran = report_hook("--dry-run", HOSTNAME="web1")
    assert (ran.status, ran.err) == (0, "")
    assert f"lineage=example.com not_before={BEGIN}i,renewal_due={BEGIN + 60 * DAY}i," in ran.out


def test_an_empty_hostname_in_the_file_means_the_name_of_the_host(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], BEGIN, 90 * DAY)
    assert host_tag(report_hook("--dry-run", HOSTNAME="")) == os.uname().nodename


def test_the_published_hooks_version_setting_still_counts(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], BEGIN, 90 * DAY)
    assert "/write?db=telegraf" in report_hook("--dry-run", INFLUXDB_USER="1").out
    assert "/api/v2/write" in report_hook("--dry-run", INFLUXDB_USER="1", INFLUXDB_VERSION="2").out
    assert "/api/v2/write" in report_hook("--dry-run", INFLUXDB_USER="somebody").out


def test_the_folder_of_certbot_is_found_from_the_hook_or_the_lineage(tmp_path: Path) -> None:
    find = hook_module.config_folder
    assert find("/srv/certbot/renewal-hooks/deploy/certbot_renewal_report.py") == "/srv/certbot"
    assert find("/opt/certbot_renewal_report.py", "/srv/certbot/live/example.com") == "/srv/certbot"
    assert find("/opt/certbot_renewal_report.py") == "/etc/letsencrypt"
    assert find("/opt/certbot_renewal_report.py", "/somewhere/else") == "/etc/letsencrypt"


def test_help_prints_the_table_of_settings(report_hook: Callable[..., Ran]) -> None:
    ran = report_hook("--help")
    assert ran.status == 0
    for name, (default, meaning, *_) in hook_module.SETTINGS.items():
        assert re.search(
            rf"^ +{name} +{re.escape(default or '(empty)')} +{re.escape(meaning)}$",
            ran.out,
            re.MULTILINE,
        )


def test_version_is_printed(report_hook: Callable[..., Ran]) -> None:
    assert report_hook("--version").out == f"certbot_renewal_report {hook_module.__version__}\n"


def test_a_dry_run_sends_nothing_and_needs_no_requests(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    ran = report_hook("--dry-run", INFLUXDB_URL="http://127.0.0.1:1", INFLUXDB_TOKEN="fake-token")
    assert ran.status == 0
    assert len(lines_of(ran)) == 3
    assert "3 lines, not sent" in ran.out
    assert "fake-token" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("version", "token", "header"),
    [
        ("2", "fake-token", "Token fake-token"),
        ("2", "hook:fake", "Token hook:fake"),
        (
            "1",
            "hook:fake",
            "Basic " + base64.b64encode(b"hook:fake").decode(),
        ),  # all that InfluxDB before 1.8 knows
        ("1", "fake-token", "Token fake-token"),
        ("1", "", None),
    ],
)
def test_the_authorization_that_each_version_understands(
    report_hook: Callable[..., Ran],
    certbot_folder: Path,
    version: str,
    token: str,
    header: str | None,
) -> None:
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY
    )
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, re.compile("http://127.0.0.1:8086/.*write"), status=204)
        ran = report_hook(
            RENEWED_LINEAGE=str(live),
            RENEWED_DOMAINS="example.com",
            INFLUXDB_VERSION=version,
            INFLUXDB_TOKEN=token,
        )
        sent = mock.calls[0].request.headers.get("Authorization")
    assert ran.status == 0
    assert (sent.decode() if isinstance(sent, bytes) else sent) == header
