"""What a server may answer, or do instead: each time one clear line with the remedy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
import responses

from support.hooks import Ran, start_report_hook
from support.renewals import (
    MOCKED_URL,
    MOCKED_WRITE_URL,
    Renewal,
    renew,
    sent_lines,
    storing_influxdb,
)
from tools.servers import faulty

Hook = Callable[..., Ran]

SECRET = "fake-secret"
WRITE_PATHS = {1: "/write", 2: "/api/v2/write", 3: "/api/v3/write_lp"}


class Answer(NamedTuple):
    """An answer of a server, and a part of what the hook must say about it.

    `version` is INFLUXDB_VERSION.
    """

    status: int
    body: str
    message: str
    version: int = 2
    headers: Mapping[str, str] = {}


@pytest.fixture
def renewal(certbot_folder: Path) -> Renewal:
    """A certificate that certbot has renewed."""
    return renew(certbot_folder, names=["example.com", "www.example.com"])


@pytest.fixture
def environ(renewal: Renewal) -> dict[str, str]:
    """What certbot gives a deploy hook, and the settings."""
    return {
        **renewal.environ,
        "INFLUXDB_URL": MOCKED_URL,
        "INFLUXDB_TOKEN": f"somebody:{SECRET}",
        "INFLUXDB_TIMEOUT": "30",  # longer than any answer takes, also on a busy machine
    }


def requests_until_failure(report_hook: Hook, environ: dict[str, str], answer: Answer) -> int:
    """Report to a server that always answers so; assert the message, count the requests."""
    url = MOCKED_URL + WRITE_PATHS[answer.version]
    environ = {**environ, "INFLUXDB_VERSION": str(answer.version)}
    with responses.RequestsMock() as mock:
        mock.add(
            responses.POST, url, answer.body, status=answer.status, headers=dict(answer.headers)
        )
        ran = report_hook(**environ)
        count = len(mock.calls)
    assert (ran.status, ran.out) == (1, "")
    assert answer.message in ran.err
    assert len(ran.err) < 900
    tries = "1 try" if count == 1 else f"{count} tries"
    assert "INFLUXDB_TIMEOUT is" not in ran.err or f"({tries}; INFLUXDB_TIMEOUT is" in ran.err
    assert SECRET not in ran.err
    return count


# ---- A request that is refused -----------------------------------------------------------------
REFUSALS = [
    Answer(
        401,
        '{"code":"unauthorized","message":"unauthorized access"}',
        "401 unauthorized access: INFLUXDB_TOKEN is not valid: set it to the token of",
    ),
    Answer(
        401,
        '{"error":"authorization failed"}',
        "401 authorization failed: INFLUXDB_TOKEN is not valid",
        version=1,
    ),
    Answer(
        403,
        '{"code":"forbidden","message":"insufficient permissions for write"}',
        'give the token or the user in INFLUXDB_TOKEN write access to "telegraf"',
    ),
    Answer(
        404,
        '{"code":"not found","message":"bucket \\"telegraf\\" not found"}',
        'create "telegraf", correct INFLUXDB_BUCKET, or give the token access to "telegraf"',
    ),
    Answer(
        404,
        '{"error":"database not found: \\"telegraf\\""}',
        'create "telegraf", correct INFLUXDB_BUCKET, or give the token access to "telegraf"',
        version=1,
    ),
    Answer(404, '{"message":"organization name \\"x\\" not found"}', "set INFLUXDB_ORG"),
    Answer(404, "404 page not found\n", "set INFLUXDB_VERSION=1"),
    Answer(404, "404 page not found\n", "set INFLUXDB_VERSION=2", version=1),
    Answer(404, '{"message":"no dbrp mapping found"}', "set INFLUXDB_VERSION=2", version=1),
    Answer(404, "", "set INFLUXDB_VERSION=2", version=3),
    Answer(400, '{"message":"Please provide either orgID or org"}', "set INFLUXDB_ORG"),
    Answer(
        400,
        '{"error":"partial write: field type conflict: input field renewed_count"}',
        "set MEASUREMENT to another name",
    ),
    Answer(422, '{"message":"unable to parse"}', "422 unable to parse"),
    Answer(413, "too large", "413 too large"),
    # A fault of the settings, though the status is that of a fault of the server.
    Answer(
        500,
        '{"error":"retention policy not found: rp"}',
        "create the retention policy, or correct the part after the slash in INFLUXDB_BUCKET",
        version=1,
    ),
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_is_reported_with_its_remedy(
    report_hook: Hook, environ: dict[str, str], answer: Answer
) -> None:
    assert requests_until_failure(report_hook, environ, answer) == 1


def test_influxdb_3_says_which_tags_its_table_lacks(
    report_hook: Hook, environ: dict[str, str]
) -> None:
    reason = (
        "Detected a new tag 'target' in write. "
        "The tag set is immutable on first write to the table."
    )
    line = (
        '{"original_line":"certbot_renewal,target=lb","line_number":4,'
        f'"error_message":"{reason}"}}'
    )
    body = f'{{"error":"partial write of line protocol occurred","data":[{line}]}}'
    remedy = (
        "delete the table and create it with all tags: influxdb3 create table --database telegraf "
        "--tags domain,host,lineage,target certbot_renewal"
    )
    answer = Answer(400, body, f"400 {reason}: {remedy}", version=3)
    assert requests_until_failure(report_hook, environ, answer) == 1


STRANGE_BODIES = [
    Answer(
        400,
        f'{{"message":"token somebody:{SECRET} is {SECRET} bad"}}',
        "token *** is *** bad",
    ),
    Answer(400, "\x1b[31mcaf\xe9\nBad\x00 thing", "400 [31mcaf Bad thing"),
    Answer(400, "x" * 100_000, "x" * 400),
    Answer(400, "[" * 100_000, "[[["),
    Answer(
        400,
        '{"error":"partial write","data":"none"}',
        '400 {"error":"partial write","data":"none"}',
        version=3,
    ),
]


@pytest.mark.parametrize("answer", STRANGE_BODIES)
def test_foreign_words_are_short_on_one_line_and_without_secrets(
    report_hook: Hook, environ: dict[str, str], answer: Answer
) -> None:
    assert requests_until_failure(report_hook, environ, answer) == 1


NOT_INFLUXDB = [
    Answer(
        200,
        "<html>Please log in</html>",
        "answered 200, but InfluxDB answers 204: set INFLUXDB_URL",
    ),
    Answer(
        302,
        "",
        "a redirect to https://login.example.com/: set INFLUXDB_URL",
        headers={"Location": f"https://user:{SECRET}@login.example.com/?x=1"},
    ),
    Answer(301, "", "a redirect to an unknown address: set INFLUXDB_URL"),
]


@pytest.mark.parametrize("answer", NOT_INFLUXDB)
def test_an_answer_that_is_not_of_influxdb_is_no_success(
    report_hook: Hook, environ: dict[str, str], answer: Answer
) -> None:
    assert requests_until_failure(report_hook, environ, answer) == 1


# ---- A server in trouble -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, "panic", "500 panic: check the log of the server ("),
        Answer(503, "", "503 (no text): check the log of the server ("),
    ],
)
def test_a_server_error_is_tried_again_until_the_timeout(
    report_hook: Hook, environ: dict[str, str], answer: Answer
) -> None:
    environ["INFLUXDB_TIMEOUT"] = "3"
    assert requests_until_failure(report_hook, environ, answer) > 1


def test_no_other_try_is_made_if_the_server_wants_it_after_the_timeout(
    report_hook: Hook, environ: dict[str, str]
) -> None:
    message = "429 slow down (Retry-After 30 s): check the log of the server (1 try;"
    answer = Answer(429, "slow down", message, headers={"Retry-After": "30"})
    assert requests_until_failure(report_hook, environ, answer) == 1


def test_a_server_that_recovers_within_the_timeout_gets_the_report(
    report_hook: Hook, environ: dict[str, str]
) -> None:
    a_date = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, MOCKED_WRITE_URL, body=requests.ConnectionError("reset"))
        mock.add(responses.POST, MOCKED_WRITE_URL, status=503, headers={"Retry-After": "1"})
        mock.add(responses.POST, MOCKED_WRITE_URL, status=429, headers=a_date)
        mock.add(responses.POST, MOCKED_WRITE_URL, status=204)
        ran = report_hook(**environ)
        assert len({call.request.body for call in mock.calls}) == 1
    assert (ran.status, ran.err) == (0, "")
    assert "example.com renewed " in ran.out


# ---- Points that are not stored ----------------------------------------------------------------
def report_with_dropped_points(report_hook: Hook, environ: dict[str, str], dropped: int) -> Ran:
    """Report to an InfluxDB that drops so many points as too old."""
    error = f"partial write: points beyond retention policy dropped={dropped}"
    with responses.RequestsMock() as mock:
        mock.add(responses.POST, MOCKED_WRITE_URL, json={"error": error}, status=400)
        return report_hook(**environ)


def test_a_renewal_beyond_the_retention_is_no_failure(
    report_hook: Hook, environ: dict[str, str]
) -> None:
    ran = report_with_dropped_points(report_hook, environ, 3)  # the renewal has three points
    assert (ran.status, ran.err) == (0, "")
    assert "renewals older than the retention of the bucket were not stored" in ran.out


def test_a_state_beyond_the_retention_is_a_failure(
    report_hook: Hook, environ: dict[str, str]
) -> None:
    ran = report_with_dropped_points(report_hook, environ, 4)  # the fourth point is the state
    assert ran.status == 1
    remedy = 'correct the clock of this host, or increase the retention of "telegraf"'
    assert remedy in ran.err


# ---- Clocks ------------------------------------------------------------------------------------
def test_a_clock_that_is_before_the_certificate_is_reported_and_the_report_is_sent(
    report_hook: Hook, environ: dict[str, str], certbot_folder: Path
) -> None:
    future = renew(certbot_folder, age=-7200)
    with storing_influxdb() as influxdb:
        ran = report_hook(**{**environ, **future.environ})
        lines = sent_lines(influxdb)
    assert (ran.status, ran.out.count("\n")) == (1, 1)
    assert "the clock of this host shows" in ran.err
    assert ": correct the clock\n" in ran.err
    *renewals, state = lines
    assert {line.rpartition(" ")[2] for line in renewals} == {str(future.not_before)}
    assert state.endswith(",staging=0i")  # it has the time of the server


def test_a_clock_that_differs_from_the_servers_is_reported(
    report_hook: Hook, environ: dict[str, str]
) -> None:
    with storing_influxdb(Date="Wed, 21 Oct 2015 07:28:00 GMT"):
        ran = report_hook(**environ)
    assert ran.status == 1
    assert "the clock of the server 2015-10-21 07:28 UTC: correct the wrong clock" in ran.err


# ---- Servers that misbehave, on real sockets ---------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "messages"),
    [
        (
            "unreachable",
            ["Connection refused: check that the server is running and that INFLUXDB_URL is "],
        ),
        ("blackholed", ["cannot reach", "no answer from"]),  # whichever the deadline meets first
        ("dripping headers", ["no answer from"]),
        ("dripping body", ["answered 500, but the answer is incomplete: check that"]),
        ("endless redirect", ["answered 302, but the answer is incomplete: check that"]),
        ("silent", ["cannot reach", "no answer from"]),
        ("hanging up", ["cannot reach"]),
        ("503", ["answered 503 (no text): check the log of the server"]),
        ("not HTTP", ["cannot reach"]),
    ],
)
def test_a_server_that_misbehaves_does_not_hold_certbot(
    certbot_folder: Path, environ: dict[str, str], fault: str, messages: list[str]
) -> None:
    with faulty.EVERY[fault]() as url:
        environ = {**environ, "INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": "3"}
        begin = time.monotonic()
        done = start_report_hook(certbot_folder, **environ)
        assert time.monotonic() - begin < 30
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert url in done.stderr
    assert "INFLUXDB_TIMEOUT is 3 s" in done.stderr
    assert any(text in done.stderr for text in messages)
