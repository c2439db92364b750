"""certbot's log, with any text: there is always an answer, and no secret in it."""

from __future__ import annotations

import gzip
import random
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from certbot_renewal_run import (
    FAILED,
    NOT_DUE,
    NOT_PROCESSED,
    RENEWED,
    UNREADABLE,
    CertbotLog,
    read_certbot_log,
    rfc3339_time,
    without_secrets,
)
from support.certbot_logs import RunText, failed_run, quiet_run

NOW = 1795892400  # 2026-11-28 19:00 UTC
RESULTS = {RENEWED, NOT_DUE, FAILED, UNREADABLE, NOT_PROCESSED}
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
THUMBPRINT = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"
SECRETS = [
    TOKEN,
    THUMBPRINT,
    "JHb54aT_KTXBWQOzGYkt9A",  # a nonce
    "eyJhbGciOiJFUzI1NiIsImtpZCI6Imh0dHBzOi8vY2EuZXhhbXBsZS9hY2N0LzEyMzQ1In0",
    "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",  # an EAB key
    "1234567890",  # the number of an account
    "hunter2",
]
URL = "https://ca.example/acme"


def sample_log() -> str:
    """Return a log with each kind of message, and the secrets where certbot writes them."""
    run = RunText("2026-11-27 18:06:39", arguments=["--eab-hmac-key", SECRETS[4]])
    run.processing("a.example.com").window("2027-01-26T04:55:54Z", "2027-01-28T04:55:54Z")
    run.notice("Certificate not yet due for renewal").processing("b.example.com")
    run.line(
        "acme.client",
        f'Sending POST request to {URL}/acct/{SECRETS[5]}:\n{{\n  "protected": "{SECRETS[3]}",\n}}',
    )
    run.line(
        "acme.client",
        f"Received response:\nHTTP 200\nReplay-Nonce: {SECRETS[2]}\n"
        f'Location: {URL}/acct/{SECRETS[5]}\n\n{{\n  "token": "{TOKEN}",\n}}',
    )
    run.line("acme.client", f"Storing nonce: {SECRETS[2]}")
    path = f"/var/www/.well-known/acme-challenge/{TOKEN}"
    run.message("_internal.plugins.webroot", f"Attempting to save validation to {path}")
    run.refusal("b.example.com", f'"{TOKEN}.{THUMBPRINT}" is not what {URL}/acct/1234567890 has')
    run.failed("b.example.com", f"https://user:hunter2@proxy.example: token={TOKEN}")
    run.broken("c.example.com").renewed("d.example.com")
    run.message("display.ops", "Hook 'deploy-hook' reported error code 3", "WARNING")
    run.notice("Hook 'deploy-hook' ran with output:\n password: hunter2")
    run.summary(["d.example.com"], ["b.example.com"], ["a.example.com"], ["c.example.com"])
    run.end(failed=1, broken=1)
    unexpected = RunText("2026-11-27 19:06:39").fatal(f"password=hunter2 key {SECRETS[4]}")
    return quiet_run("2026-11-27 12:00:00", "a.example.com").text + run.text + unexpected.text


def read_text(content: bytes, after: str = "1970-01-01 00:00:00,000") -> CertbotLog:
    """Return what is read in a log with this content; assert what is true for every log."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "letsencrypt.log").write_bytes(content)
        log = read_certbot_log(folder, after, NOW)
    assert log.problem == ""
    for run in log.runs:
        for result in run.results.values():
            assert result.result in RESULTS
            assert_is_a_reason(result.reason)
        assert_is_a_reason(run.failure)
        assert run.mode.startswith("renew")
    return log


def assert_is_a_reason(text: str) -> None:
    """Assert that a text can stand in a report: ASCII, one line, not too long, no separator."""
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= 400
    assert "|" not in text


def assert_has_no_secret(log: CertbotLog) -> None:
    """Assert that no result shows a secret of the sample log."""
    for secret in SECRETS:
        assert secret not in repr(log)


def test_the_sample_log_is_read_without_secrets() -> None:
    log = read_text(sample_log().encode())
    assert_has_no_secret(log)
    assert [len(run.results) for run in log.runs] == [1, 4, 0]
    assert log.runs[1].results["b.example.com"].reason == (
        "https://***@proxy.example: token=*** "
        '(b.example.com: unauthorized: "***.***" is not what https://ca.example/acme/acct/*** has)'
    )
    assert log.runs[2].failure == "password=*** key ***"


@given(st.binary(max_size=2000), st.text(max_size=30))
@example(b"\n" * 100, "")
def test_any_bytes(content: bytes, after: str) -> None:
    read_text(content, after)


LINE = st.sampled_from([*sample_log().splitlines(), "", "Skipping.", "\x00\x1b[31m", "a|b"])


@given(st.lists(st.one_of(LINE, st.text(max_size=50)), max_size=60))
def test_lines_in_any_order(lines: list[str]) -> None:
    log = read_text("\n".join(lines).encode("utf-8", errors="surrogateescape"))
    assert_has_no_secret(log)


@given(st.integers(min_value=0), st.integers(min_value=0), st.randoms(use_true_random=False))
def test_a_sample_that_is_cut_and_shuffled(start: int, end: int, chance: random.Random) -> None:
    text = sample_log()
    text = text[start % len(text) :][: end % len(text)]
    assert_has_no_secret(read_text(text.encode()))
    lines = text.splitlines()
    chance.shuffle(lines)
    assert_has_no_secret(read_text("\n".join(lines).encode()))


@given(st.text(max_size=200))
def test_any_reason_of_the_ca(detail: str) -> None:
    run = failed_run("2026-11-27 18:06:39", "example.com", detail)
    read = read_text(run.text.encode("utf-8", errors="replace"))
    if detail.isprintable():
        assert read.runs[0].results["example.com"].result == FAILED


@given(st.text(max_size=100), st.text(BASE64URL, min_size=43, max_size=43), st.text(max_size=100))
def test_a_token_is_left_out_wherever_it_stands(before: str, token: str, after: str) -> None:
    is_random = len(set(token)) > 20
    text = without_secrets(f"{before} {token} {after}")
    assert token not in text or not is_random


@given(st.binary(max_size=300))
def test_any_bytes_in_a_compressed_log(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "letsencrypt.log.1.gz"
        path.write_bytes(content)
        assert read_certbot_log(folder, "", NOW).runs == []
        path.write_bytes(gzip.compress(sample_log().encode()) + content)
        assert len(read_certbot_log(folder, "", NOW).runs) == 1


@given(st.one_of(st.text(max_size=40), st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|-99:99)")))
def test_any_time(text: str) -> None:
    moment = rfc3339_time(text)
    assert moment is None or isinstance(moment, int)


@given(st.integers(min_value=2, max_value=59))
def test_a_file_may_end_with_the_run_of_another_minute(minute: int) -> None:
    first = quiet_run("2026-11-27 12:01:00", "a.example.com")
    second = quiet_run(f"2026-11-27 12:{minute:02}:00", "a.example.com")
    log = read_text((first.text + second.text).encode(), "2026-11-27 12:01:00,000")
    assert [run.started_at - 1795780860 for run in log.runs] == [60 * (minute - 1)]
