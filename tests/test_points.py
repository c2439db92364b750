"""What a report looks like, as another project's parser of line protocol reads it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from line_protocol_parser import parse_line

import certbot_renewal_report as hook
from support.hooks import TEXT, Ran
from support.renewals import printed_points
from tools.faults.disks import known_text
from tools.servers.lineages import DAY, make_lineage

NAMES = ["example.com", "*.example.com", "xn--bcher-kva.example", "192.0.2.7", "2001:db8::1"]
NOT_BEFORE = 1_780_000_000  # any time
TAGS_OF_CERTIFICATE = {"host": "web1", "domain": "all", "lineage": "example.com"}


def dry_run_points(
    report_hook: Callable[..., Ran], certbot_folder: Path, names: list[str]
) -> list[dict[str, Any]]:
    """Return the points that the hook reports of a renewed certificate for these names."""
    live = make_lineage(certbot_folder, "example.com", names, NOT_BEFORE, 90 * DAY)
    ran = report_hook("--dry-run", RENEWED_LINEAGE=str(live), RENEWED_DOMAINS=" ".join(names))
    return printed_points(ran)


def settings_of(measurement: str, host: str) -> hook.Settings:
    """Return settings of which only the measurement and the host matter."""
    return hook.Settings("", 2, "", "", "", 10, measurement, host, {})


def test_a_renewal_is_a_point_of_the_certificate_and_one_of_each_name(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    points = dry_run_points(report_hook, certbot_folder, NAMES)
    of_certificate = {
        "measurement": "certbot_renewal",
        "tags": TAGS_OF_CERTIFICATE,
        "fields": {
            "renewed_count": 5.0,
            "lifetime": 90 * DAY,
            "due_after": 60 * DAY,
            "names": " ".join(NAMES),
        },
        "time": NOT_BEFORE,
    }
    of_names = []
    for name in NAMES:
        point = {
            "measurement": "certbot_renewal",
            "tags": {"host": "web1", "domain": name},
            "fields": {"renewed_count": 1.0},
            "time": NOT_BEFORE,
        }
        of_names.append(point)
    assert points[:-1] == [of_certificate, *of_names]
    assert isinstance(points[0]["fields"]["renewed_count"], float)


def test_the_state_of_a_certificate_has_its_tags_and_whole_numbers(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    state = dry_run_points(report_hook, certbot_folder, NAMES)[-1]
    assert state["tags"] == TAGS_OF_CERTIFICATE
    assert state["fields"].pop("failure") == "none"
    assert all(type(value) is int for value in state["fields"].values())


def test_run_at_is_the_time_of_the_report_where_run_reports_are_installed(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    known_file = certbot_folder / "certbot_renewal_report.known"
    known_file.write_text(known_text("web1", "example.com", NOT_BEFORE))
    state = dry_run_points(report_hook, certbot_folder, ["example.com"])[-1]
    assert 0 <= time.time() - state["fields"]["run_at"] < 60


def test_only_renewals_have_a_time_since_the_clock_of_a_host_may_be_wrong(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    *renewals, state = dry_run_points(report_hook, certbot_folder, ["example.com"])
    assert [point["time"] for point in renewals] == [NOT_BEFORE, NOT_BEFORE]
    assert state["time"] is None


def test_a_certificate_without_names_has_a_state(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", [], NOT_BEFORE, 90 * DAY)
    ran = report_hook("--dry-run", HOSTNAME="web1")
    assert (ran.status, ran.err) == (0, "")
    dates = f"not_before={NOT_BEFORE}i,renewal_due={NOT_BEFORE + 60 * DAY}i,"
    assert f"lineage=example.com {dates}" in ran.out


@given(measurement=TEXT.filter(lambda text: text[0] not in "#_"), host=TEXT, name=TEXT)
@example(measurement="a b,c=d", host='we"b 1,=', name="*.exam\\ple.com")
def test_another_parser_reads_back_whatever_text_is_written(
    measurement: str, host: str, name: str
) -> None:
    settings = settings_of(measurement, host)
    points = hook.make_renewal_points(settings, name, [name], NOT_BEFORE)
    of_certificate, of_name = [parse_line(hook.line_protocol(point)) for point in points]
    assert of_certificate == {
        "measurement": measurement,
        "tags": {"domain": "all", "host": host, "lineage": name},
        "fields": {"renewed_count": 1.0, "lifetime": 0, "due_after": 0, "names": name},
        "time": NOT_BEFORE,
    }
    assert of_name["tags"] == {"domain": name, "host": host}


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
    settings = settings_of("certbot_renewal", host)
    point = hook.make_renewal_points(settings, "example.com", [], NOT_BEFORE)[0]
    assert parse_line(hook.line_protocol(point))["tags"]["host"] == stored


def test_the_error_of_a_delivery_is_cut_to_what_a_field_can_hold(
    report_hook: Callable[..., Ran], certbot_folder: Path
) -> None:
    columns = ["example.com", "haproxy", "none", "0", "0", "0", "refused " * 10_000]
    state_file = certbot_folder / "certbot_renewal_deliver.state"
    state_file.write_text("\t".join(columns) + "\n")
    delivery = dry_run_points(report_hook, certbot_folder, ["example.com"])[-1]
    assert delivery["tags"] == {"host": "web1", "lineage": "example.com", "target": "haproxy"}
    error = delivery["fields"]["deploy_error"]
    assert error.endswith("refused ...")
    assert len(error.encode()) < 64 * 1024  # InfluxDB refuses a longer one


@pytest.mark.parametrize(("length", "is_cut"), [(15_000, False), (15_001, True)])
def test_names_are_cut_where_a_field_would_be_too_long(length: int, is_cut: bool) -> None:
    names = ["a", "b" * (length - 2)]
    expected = "a ..." if is_cut else " ".join(names)
    assert hook.joined_names(names) == expected
