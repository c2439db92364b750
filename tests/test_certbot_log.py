"""certbot's log: what the run report reads in it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import certbot_renewal_report
from certbot_renewal_run import (
    FAILED,
    KILLED,
    NOT_DUE,
    NOT_PROCESSED,
    RENEWED,
    UNREADABLE,
    CertbotRun,
    logs_folder,
    read_certbot_log,
)
from support.certbot_logs import (
    LOCKED,
    RunText,
    failed_run,
    newest_run,
    only_run,
    quiet_run,
    write_log,
)

NOW = 1795892400  # 2026-11-28 19:00 UTC
HOUR = 3600
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"  # RFC 8555, 8.3
THUMBPRINT = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The host's time zone: UTC, unless a test changes it."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder for logs."""
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def parsed(logs: Path, run: RunText) -> CertbotRun:
    """Return what is read of a single run that has ended hours ago."""
    write_log(logs / "letsencrypt.log", run, written_at=NOW - 5 * HOUR)
    return newest_run(logs, NOW)


def reason_of(logs: Path, run: RunText, lineage: str = "example.com") -> str:
    """Return why a lineage failed in a single run."""
    result = parsed(logs, run).results[lineage]
    assert result.result in (FAILED, UNREADABLE)
    return result.reason


# ---- Results -----------------------------------------------------------------------------------
def test_a_run_with_each_result(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").not_due("a.example.com").renewed("b.example.com")
    run.processing("c.example.com").refusal("www.example.com", "No TXT record")
    run.failed("c.example.com").broken("d.example.com").wait(80)
    run.summary(
        renewed=["b.example.com"],
        failed=["c.example.com"],
        not_due=["a.example.com"],
        broken=["d.example.com"],
    )
    read = parsed(logs, run.end(failed=1, broken=1))

    assert {name: result.result for name, result in read.results.items()} == {
        "a.example.com": NOT_DUE,
        "b.example.com": RENEWED,
        "c.example.com": FAILED,
        "d.example.com": UNREADABLE,
    }
    assert list(read.results) == sorted(read.results)
    assert read.results["a.example.com"].reason == read.results["b.example.com"].reason == ""
    assert read.results["c.example.com"].reason == (
        "Some challenges have failed. (www.example.com: unauthorized: No TXT record)"
    )
    assert read.results["d.example.com"].reason == (
        "Renewal configuration file /etc/letsencrypt/renewal/d.example.com.conf is broken. "
        "The error was: error parsing /etc/letsencrypt/renewal/d.example.com.conf"
    )


def test_the_run_itself(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39", "2.1.0").not_due("a.example.com").wait(80)
    read = parsed(logs, run.summary(not_due=["a.example.com"]).end())
    assert read.position == "2026-11-27 18:06:39,000"
    assert read.started_at == 1795802799
    assert read.ended_at - read.started_at == 80
    assert (read.version, read.mode) == ("2.1.0", "renew")
    assert (read.is_dry_run, read.is_finished, read.is_locked) == (False, True, False)
    assert read.failure == ""


def test_a_failed_lineage_is_no_failure_of_the_whole_run(logs: Path) -> None:
    assert parsed(logs, failed_run("2026-11-27 18:06:39", "example.com", "no")).failure == ""


def test_a_run_without_any_lineage(logs: Path) -> None:
    read = parsed(logs, RunText("2026-11-27 18:06:39").summary().end())
    assert (read.results, read.failure, read.is_finished) == ({}, "", True)


def test_a_lineage_has_its_name_from_its_configuration_not_from_its_folder(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").processing("shop").failed("shop", "no")
    read = parsed(logs, run.summary(failed=["example.com-0001"]).end(failed=1))
    assert list(read.results) == ["shop"]


def test_a_lineage_with_a_long_name(logs: Path) -> None:
    name = "the-production-portal-of-a-customer.europe.example.com"
    run = RunText("2026-11-27 18:06:39").not_due(name)
    assert "Processing\n/etc" in run.text
    assert list(parsed(logs, run.summary(not_due=[name]).end()).results) == [name]


def test_an_error_after_the_verdict_counts(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").not_due("example.com").failed("example.com", "no updater")
    assert reason_of(logs, run.summary(failed=["example.com"]).end(failed=1)) == "no updater"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("{} lacks renewalparams. Skipping.", "{} lacks renewalparams."),
        (
            "{} does not specify an authenticator. Skipping.",
            "{} does not specify an authenticator.",
        ),
        (
            "{} (cert: example.com) produced an unexpected error: 'x'. Skipping.",
            "{} (cert: example.com) produced an unexpected error: 'x'.",
        ),
        ("{}: The error was a ValueError. Skipping the file.", "{}: The error was a ValueError."),
    ],
)
def test_each_way_to_be_unreadable(logs: Path, error: str, reason: str) -> None:
    file = "Renewal configuration file /etc/letsencrypt/renewal/example.com.conf"
    run = RunText("2026-11-27 18:06:39").processing("example.com").error(error.format(file))
    run.summary(broken=["example.com"]).end(broken=1)
    assert parsed(logs, run).results["example.com"].result == UNREADABLE
    assert reason_of(logs, run) == reason.format(file)


def test_a_hook_that_failed_is_named_with_the_renewed_lineage(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").renewed("example.com")
    run.message("display.ops", "Hook 'deploy-hook' reported error code 3", "WARNING")
    run.notice("Hook 'deploy-hook' ran with output:\n password is hunter2")
    read = parsed(logs, run.summary(renewed=["example.com"]).end())
    assert read.results["example.com"].result == RENEWED
    assert read.results["example.com"].reason == "Hook 'deploy-hook' reported error code 3."


# ---- Mode --------------------------------------------------------------------------------------
def test_a_forced_renewal_of_one_lineage(logs: Path) -> None:
    arguments = ["--force-renew", "--cert-name", "a.example.com"]
    run = RunText("2026-11-27 18:06:39", arguments=arguments).processing("a.example.com")
    run.message("_internal.renewal", "Auto-renewal forced with --force-renewal...")
    read = parsed(logs, run.summary(renewed=["a.example.com"]).end())
    assert read.mode == "renew --force-renewal --cert-name a.example.com"


def test_the_name_may_stand_behind_an_equals_sign(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39", arguments=["--cert-name=a.example.com"])
    run.not_due("a.example.com").summary(not_due=["a.example.com"]).end()
    assert parsed(logs, run).mode == "renew --cert-name a.example.com"


def test_a_dry_run_that_failed(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").processing("example.com")
    run.notice("Simulating renewal of an existing certificate for example.com")
    run.failed("example.com", "no").summary(failed=["example.com"], noun="simulated renewal")
    read = parsed(logs, run.end(failed=1))
    assert read.is_dry_run
    assert read.results["example.com"].result == FAILED


def test_a_dry_run_of_which_nothing_but_the_list_at_the_end_tells(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").broken("example.com")
    read = parsed(logs, run.summary(broken=["example.com"], noun="simulated renewal").end(broken=1))
    assert read.is_dry_run


# ---- Other commands ----------------------------------------------------------------------------
@pytest.mark.parametrize("function", ["certonly", "run", "certificates", "delete", "reconfigure"])
def test_other_commands_are_no_run(logs: Path, function: str) -> None:
    quiet = RunText("2026-11-27 18:06:39").notice("Found the following certs:")
    failed = RunText("2026-11-27 18:06:40").fatal("No certificate found", function)
    write_log(logs / "letsencrypt.log", quiet, failed)
    assert read_certbot_log(str(logs), "", NOW) == ([], "", None)


def test_a_question_that_somebody_leaves_with_control_c_is_no_run(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39")
    run.message("_internal.log", "Exiting due to user request.", "ERROR")
    write_log(logs / "letsencrypt.log", run)
    assert read_certbot_log(str(logs), "", NOW).runs == []


def test_a_lock_during_certonly_is_no_run(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39", arguments=["--webroot", "-d", "example.com"])
    write_log(logs / "letsencrypt.log", run.fatal(LOCKED, "make_or_verify_needed_dirs"))
    assert read_certbot_log(str(logs), "", NOW).runs == []


def test_the_newest_run_is_found_behind_other_commands(logs: Path) -> None:
    other = RunText("2026-11-27 19:00:00").notice("Found the following certs:")
    write_log(logs / "letsencrypt.log", quiet_run("2026-11-27 18:06:39", "example.com"), other)
    log = read_certbot_log(str(logs), "", NOW)
    assert only_run(log).position == "2026-11-27 18:06:39,000"
    assert log.current_run is None


# ---- Whole runs that fail ----------------------------------------------------------------------
def test_another_certbot_is_running(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").fatal(LOCKED, "make_or_verify_needed_dirs")
    read = parsed(logs, run)
    assert (read.is_locked, read.failure, read.results) == (True, LOCKED, {})


def test_a_second_certbot_that_writes_into_the_log_of_the_first_one(logs: Path) -> None:
    first = RunText("2026-11-27 18:06:39").renewed("example.com").wait(60)
    second = RunText("2026-11-27 18:06:50").fatal(LOCKED, "make_or_verify_needed_dirs")
    rest = RunText("2026-11-27 18:07:40").summary(renewed=["example.com"]).end()
    rest.text = rest.text[rest.text.index("2026-11-27 18:07:40,005") :]
    write_log(logs / "letsencrypt.log", first, second, rest)

    log = read_certbot_log(str(logs), "2026-11-26 00:00:00,000", NOW)
    assert [run.is_locked for run in log.runs] == [False, True]
    assert log.runs[0].results["example.com"].result == RENEWED
    assert log.runs[0].is_finished
    assert log.current_run == log.runs[0]


def test_an_unknown_name_is_a_failure_of_the_run(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39", arguments=["--cert-name", "x"])
    assert parsed(logs, run.fatal("No certificate found with name x")).failure == (
        "No certificate found with name x"
    )


def test_an_unexpected_error_has_its_text(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").processing("example.com")
    run.message("_internal.log", "An unexpected error occurred:", "ERROR")
    run.message("_internal.log", "OSError: [Errno 28] No space left on device", "ERROR")
    read = parsed(logs, run)
    assert read.failure == (
        "An unexpected error occurred: OSError: [Errno 28] No space left on device"
    )
    assert read.results["example.com"].result == NOT_PROCESSED


def test_a_run_that_somebody_interrupted(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").not_due("a.example.com").processing("b.example.com")
    run.message("_internal.log", "Exiting due to user request.", "ERROR")
    read = parsed(logs, run)
    assert read.failure == "Exiting due to user request."
    assert read.results["a.example.com"].result == NOT_DUE
    assert read.results["b.example.com"].result == NOT_PROCESSED


# ---- Runs that go on or were killed ------------------------------------------------------------
@pytest.fixture
def half_a_run() -> RunText:
    """A run in the middle of its second lineage."""
    run = RunText("2026-11-28 18:00:00").not_due("a.example.com")
    return run.processing("b.example.com").notice("Renewing an existing certificate")


def test_a_run_may_go_on_for_an_hour_after_its_last_line(logs: Path, half_a_run: RunText) -> None:
    write_log(logs / "letsencrypt.log", half_a_run, written_at=NOW - HOUR + 10)
    read = newest_run(logs, NOW)
    assert (read.is_finished, read.failure) == (False, "")
    assert read.results["b.example.com"].result == NOT_PROCESSED


def test_after_an_hour_without_a_line_it_was_killed(logs: Path, half_a_run: RunText) -> None:
    write_log(logs / "letsencrypt.log", half_a_run, written_at=NOW - HOUR - 10)
    read = newest_run(logs, NOW)
    assert (read.is_finished, read.failure) == (True, KILLED)
    assert read.results["b.example.com"].result == NOT_PROCESSED


def test_a_run_was_killed_if_there_is_a_newer_one(logs: Path, half_a_run: RunText) -> None:
    newer = quiet_run("2026-11-28 18:30:00", "a.example.com", "b.example.com")
    write_log(logs / "letsencrypt.log", half_a_run, newer, written_at=NOW)
    first, second = read_certbot_log(str(logs), "2026-11-27 00:00:00,000", NOW).runs
    assert (first.is_finished, first.failure) == (True, KILLED)
    assert (second.is_finished, second.failure) == (True, "")


def test_the_results_are_complete_while_post_hooks_run(logs: Path) -> None:
    run = RunText("2026-11-28 18:59:00").renewed("a.example.com").processing("b.example.com")
    run.failed("b.example.com", "no")
    run.summary(renewed=["a.example.com"], failed=["b.example.com"])
    run.message("compat.misc", "Running post-hook command: /etc/letsencrypt/hook", "INFO")
    write_log(logs / "letsencrypt.log", run, written_at=NOW)
    read = newest_run(logs, NOW)
    assert (read.is_finished, read.failure) == (False, "")
    assert read.results["a.example.com"].result == RENEWED
    assert read.results["b.example.com"].result == FAILED


def test_a_run_that_was_killed_in_a_post_hook_did_its_work(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").renewed("example.com").summary(renewed=["example.com"])
    read = parsed(logs, run)
    assert (read.is_finished, read.failure) == (True, "")
    assert read.results["example.com"].result == RENEWED


def test_a_lineage_without_a_word_and_without_a_success_in_the_list_is_not_renewed(
    logs: Path,
) -> None:
    run = RunText("2026-11-27 18:06:39").processing("a.example.com").not_due("b.example.com")
    read = parsed(logs, run.summary(not_due=["b.example.com"]).end())
    assert read.results["a.example.com"].result == NOT_PROCESSED


# ---- ARI ---------------------------------------------------------------------------------------
def window_read(logs: Path, start: str, end: str) -> tuple[int, int] | None:
    """Return the window that is read of a run that is not due."""
    run = RunText("2026-11-27 18:06:39").processing("example.com").window(start, end)
    run.notice("Certificate not yet due for renewal").summary(not_due=["example.com"]).end()
    return parsed(logs, run).results["example.com"].window


@pytest.mark.parametrize(
    "start", ["2027-01-26T04:55:54Z", "2027-01-26T04:55:54.123456Z", "2027-01-26T05:55:54+01:00"]
)
def test_the_window_of_the_ca(logs: Path, start: str) -> None:
    assert window_read(logs, start, "2027-01-28T04:55:54Z") == (1800939354, 1801112154)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("soon", "2027-01-28T04:55:54Z"),
        ("2027-13-26T04:55:54Z", "2027-01-28T04:55:54Z"),
        ("2027-01-28T04:55:55Z", "2027-01-28T04:55:54Z"),
    ],
)
def test_a_window_that_makes_no_sense_is_none(logs: Path, start: str, end: str) -> None:
    assert window_read(logs, start, end) is None


def test_a_window_belongs_to_the_lineage_that_is_processed(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").processing("a.example.com")
    run.window("2027-01-26T04:55:54Z", "2027-01-28T04:55:54Z")
    run.notice("Certificate not yet due for renewal").not_due("b.example.com")
    read = parsed(logs, run.summary(not_due=["a.example.com", "b.example.com"]).end())
    assert read.results["a.example.com"].window == (1800939354, 1801112154)
    assert read.results["b.example.com"].window is None


# ---- Local time --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("position", "now", "started_at"),
    [
        ("2026-07-01 12:00:00", 1795892400, 1782900000),
        ("2026-12-01 12:00:00", 1798000000, 1796122800),
        # The clock is put back at 3:00 summer time, 2026-10-25 01:00 UTC.
        ("2026-10-25 02:30:00", 1792888200 + 60, 1792888200),
        ("2026-10-25 02:30:00", 1792891800 + 60, 1792891800),
        # This time does not exist: the clock is put forward at 2:00.
        ("2026-03-29 02:30:00", 1795892400, 1774747800),
    ],
)
def test_the_log_has_local_time(
    utc: pytest.MonkeyPatch, logs: Path, position: str, now: int, started_at: int
) -> None:
    utc.setenv("TZ", "Europe/Berlin")
    time.tzset()
    write_log(logs / "letsencrypt.log", quiet_run(position, "example.com"), written_at=now)
    assert newest_run(logs, now).started_at == started_at


# ---- Which runs --------------------------------------------------------------------------------
STARTS = [f"2026-11-27 {hour:02}:00:00" for hour in range(10, 15)]


def positions(logs: Path, after: str) -> list[str]:
    """Return the times of the runs after a position, without their milliseconds."""
    log = read_certbot_log(str(logs), after, NOW)
    assert log.problem == ""
    return [run.position.partition(",")[0] for run in log.runs]


def write_rotated(logs: Path, names: list[str]) -> None:
    """Write a run into each file, the oldest first."""
    for start, name in zip(STARTS, names, strict=True):
        write_log(logs / name, quiet_run(start, "example.com"))


@pytest.mark.parametrize(
    "names",
    [
        ["letsencrypt.log.4", "letsencrypt.log.3", "letsencrypt.log.2", "letsencrypt.log.1"],
        [f"letsencrypt.log.{number}.gz" for number in (10, 9, 2)] + ["letsencrypt.log.1"],
        [f"letsencrypt.log-202611{day}.gz" for day in (23, 24, 25)] + ["letsencrypt.log-20261126"],
    ],
)
def test_runs_in_rotated_files(logs: Path, names: list[str]) -> None:
    write_rotated(logs, [*names, "letsencrypt.log"])
    assert positions(logs, f"{STARTS[1]},000") == STARTS[2:]
    assert positions(logs, "") == STARTS[-1:]
    assert positions(logs, f"{STARTS[-1]},000") == []


def test_runs_in_one_file(logs: Path) -> None:
    runs = [quiet_run(start, "example.com") for start in STARTS]
    write_log(logs / "letsencrypt.log", *runs)
    assert positions(logs, f"{STARTS[1]},000") == STARTS[2:]
    assert positions(logs, "") == STARTS[-1:]


def test_without_the_run_at_the_position_its_time_decides(logs: Path) -> None:
    write_log(logs / "letsencrypt.log", *[quiet_run(start, "example.com") for start in STARTS])
    assert positions(logs, "2026-11-27 12:30:00,000") == STARTS[3:]
    assert positions(logs, "2026-10-01 12:30:00,000") == STARTS
    assert positions(logs, "2026-11-28 12:30:00,000") == []


def test_a_position_that_is_no_time_means_every_run(logs: Path) -> None:
    write_log(logs / "letsencrypt.log", *[quiet_run(start, "example.com") for start in STARTS])
    assert positions(logs, "yesterday") == STARTS


def test_the_newest_log_may_be_empty(logs: Path) -> None:
    write_log(logs / "letsencrypt.log")
    write_log(logs / "letsencrypt.log.1", quiet_run(STARTS[0], "example.com"))
    assert positions(logs, "") == STARTS[:1]


def test_twenty_files_are_read(logs: Path) -> None:
    for number in range(25):
        run = quiet_run(f"2026-11-{27 - number:02} 10:00:00", "example.com")
        write_log(logs / f"letsencrypt.log.{number}", run)
    assert len(positions(logs, "2026-01-01 00:00:00,000")) == 20


def test_only_the_files_that_are_needed_are_read(logs: Path) -> None:
    write_log(logs / "letsencrypt.log", quiet_run(STARTS[3], "example.com"))
    write_log(logs / "letsencrypt.log.1", quiet_run(STARTS[2], "example.com"))
    os.mkfifo(logs / "letsencrypt.log.2")  # a problem, if it is read
    assert positions(logs, "") == STARTS[3:4]
    assert positions(logs, f"{STARTS[2]},000") == STARTS[3:4]


# ---- Large logs --------------------------------------------------------------------------------
@pytest.fixture
def large_run() -> RunText:
    """A run that writes 6 MB: four lineages, two of which fail."""
    run = RunText("2026-11-27 18:06:39").processing("a.example.com")
    run.line("acme.client", "Received response:\n" + "A" * 3_000_000)
    run.failed("a.example.com", "no").renewed("b.example.com")
    run.line("acme.client", "Received response:\n" + ("A" * 100 + "\n") * 30_000)
    run.not_due("c.example.com").processing("d.example.com").failed("d.example.com", "neither")
    run.summary(
        renewed=["b.example.com"],
        failed=["a.example.com", "d.example.com"],
        not_due=["c.example.com"],
    )
    return run.end(failed=2)


def test_of_a_run_beyond_the_limit_the_results_are_known(logs: Path, large_run: RunText) -> None:
    read = parsed(logs, large_run)
    assert {name: result.result for name, result in read.results.items()} == {
        "a.example.com": FAILED,
        "b.example.com": RENEWED,
        "c.example.com": NOT_DUE,
        "d.example.com": FAILED,
    }
    assert read.results["d.example.com"].reason == "neither"
    assert read.position.startswith("2026-11-27 18:06:39")


def test_a_lineage_whose_beginning_is_cut_off_has_its_reason(logs: Path) -> None:
    run = RunText("2026-11-27 18:06:39").processing("a.example.com")
    run.line("acme.client", "Received response:\n" + ("A" * 100 + "\n") * 60_000)
    run.failed("a.example.com", "no").summary(failed=["a.example.com"]).end(failed=1)
    assert parsed(logs, run).results["a.example.com"].reason == "no"


def test_a_beginning_that_is_cut_off_does_not_hide_the_newest_run(
    logs: Path, large_run: RunText
) -> None:
    newer = quiet_run("2026-11-28 01:00:00", "a.example.com")
    write_log(logs / "letsencrypt.log", large_run, newer)
    assert positions(logs, "2026-01-01 00:00:00,000") == ["2026-11-28 01:00:00"]


def test_a_large_compressed_log(logs: Path, large_run: RunText) -> None:
    write_log(logs / "letsencrypt.log.1.gz", large_run)
    assert newest_run(logs, NOW).results["d.example.com"].reason == "neither"


def test_a_log_of_a_thousand_lineages_is_read_quickly(logs: Path) -> None:
    names = [f"host{number}.example.com" for number in range(1000)]
    run = RunText("2026-11-27 18:06:39")
    for name in names:
        run.processing(name).window("2027-01-26T04:55:54Z", "2027-01-28T04:55:54Z")
        for _ in range(15):
            run.line("urllib3.connectionpool", 'https://ca.example "GET /dir HTTP/1.1" 200 613')
        run.notice("Certificate not yet due for renewal")
    write_log(logs / "letsencrypt.log", run.summary(not_due=names).end())
    started = time.process_time()
    assert len(newest_run(logs, NOW).results) == 1000
    assert time.process_time() - started < 1  # it takes a tenth of that


# ---- Logs that cannot be read ------------------------------------------------------------------
SHARE = "share the folder with the container, or name it with --logs-dir"


def problem_of(logs: Path) -> str:
    """Return why the log cannot be read; assert that no run is found in it."""
    log = read_certbot_log(str(logs), "", NOW)
    assert (log.runs, log.current_run) == ([], None)
    return log.problem


def test_the_folder_is_missing(tmp_path: Path) -> None:
    logs = tmp_path / "nowhere"
    assert problem_of(logs) == f"{logs}: No such file or directory: {SHARE}"


def test_the_folder_is_empty(logs: Path) -> None:
    path = logs / "letsencrypt.log"
    assert problem_of(logs) == f"{path}: No such file or directory: {SHARE}"


def test_the_log_is_a_pipe(logs: Path) -> None:
    os.mkfifo(logs / "letsencrypt.log")
    assert problem_of(logs) == (
        f"{logs}/letsencrypt.log: Neither a file nor a folder: "
        "name the folder of certbot's log with --logs-dir"
    )


def test_the_log_is_a_device(logs: Path) -> None:
    (logs / "letsencrypt.log").symlink_to("/dev/zero")
    assert "letsencrypt.log: Neither a file nor a folder: name the folder" in problem_of(logs)


def test_the_log_is_a_folder(logs: Path) -> None:
    (logs / "letsencrypt.log").mkdir()
    assert "letsencrypt.log: Is a directory: name the folder" in problem_of(logs)


def test_another_user_may_not_read_the_log(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    write_log(logs / "letsencrypt.log", quiet_run(STARTS[0], "example.com"))
    monkeypatch.setattr(certbot_renewal_report, "open_regular", refuse)
    assert problem_of(logs) == (
        f"{logs}/letsencrypt.log: Permission denied: "
        "run as root, or let this user read certbot's log"
    )


def test_a_damaged_older_log_is_a_problem_and_the_others_count(logs: Path) -> None:
    write_log(logs / "letsencrypt.log", quiet_run(STARTS[1], "example.com"))
    os.mkfifo(logs / "letsencrypt.log.1")
    write_log(logs / "letsencrypt.log.2", quiet_run(STARTS[0], "example.com"))
    log = read_certbot_log(str(logs), "2026-01-01 00:00:00,000", NOW)
    assert len(log.runs) == 2
    assert "letsencrypt.log.1: Neither a file nor a folder" in log.problem


def test_a_log_that_is_not_utf_8(logs: Path) -> None:
    run = failed_run("2026-11-27 18:06:39", "example.com", "b\u00fccher")
    write_log(logs / "letsencrypt.log", run, written_at=NOW)
    path = logs / "letsencrypt.log"
    path.write_bytes(path.read_bytes().replace("\u00fc".encode(), b"\xfc"))
    assert newest_run(logs, NOW).results["example.com"].reason == (
        "Some challenges have failed. (example.com: unauthorized: b cher)"
    )


def test_a_log_that_is_being_written_ends_anywhere(logs: Path) -> None:
    text = failed_run("2026-11-27 18:06:39", "example.com", "no").text
    for length in range(0, len(text), 7):
        (logs / "letsencrypt.log").write_text(text[:length])
        assert read_certbot_log(str(logs), "", NOW).problem == ""


def test_a_compressed_log_that_is_cut_off(logs: Path) -> None:
    path = logs / "letsencrypt.log.1.gz"
    write_log(path, quiet_run(STARTS[0], "example.com"))
    path.write_bytes(path.read_bytes()[:-20])
    assert read_certbot_log(str(logs), "", NOW).problem == ""
    path.write_bytes(b"this is no gzip")
    assert read_certbot_log(str(logs), "", NOW).problem == ""


# ---- Reasons -----------------------------------------------------------------------------------
def refused(detail: str, name: str = "example.com") -> RunText:
    """Return a run in which the CA refuses example.com."""
    run = RunText("2026-11-27 18:06:39").processing("example.com").refusal(name, detail)
    return run.failed("example.com").summary(failed=["example.com"]).end(failed=1)


def test_a_reason_is_one_line_of_400_ascii_characters(logs: Path) -> None:
    reason = reason_of(logs, refused("first line\nsecond | line \u2013 " + "again " * 100))
    assert "first line second / line again again" in reason
    assert len(reason) == 400
    assert reason.isascii()


def test_names_that_are_refused_for_the_same_reason_stand_together(logs: Path) -> None:
    names = [f"{letter}.example.com" for letter in "abcde"]
    problems = "".join(f"  Domain: {n}\n  Type:   dns\n  Detail: no A record\n\n" for n in names)
    run = RunText("2026-11-27 18:06:39").processing("example.com")
    run.notice(f"\nCertbot failed to authenticate some domains:\n{problems}Hint: look.\n")
    run.failed("example.com").summary(failed=["example.com"]).end(failed=1)
    assert reason_of(logs, run) == (
        "Some challenges have failed. "
        "(a.example.com, b.example.com, c.example.com and 2 more: dns: no A record)"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"http://example.com/.well-known/acme-challenge/{TOKEN}: 404",
            "http://example.com/.well-known/acme-challenge/***: 404",
        ),
        (f'Incorrect TXT record "{TOKEN}" found', 'Incorrect TXT record "***" found'),
        (f"did not match: {TOKEN}.{THUMBPRINT}", "did not match: ***.***"),
        (
            "https://ca.example/acme/acct/123456789 is not active",
            "https://ca.example/acme/acct/*** is not active",
        ),
        ("https://ca.example/my-account/2922c1", "https://ca.example/my-account/***"),
        ("proxy http://user:pass@proxy.example:3128", "proxy http://***@proxy.example:3128"),
        ("https://dns.example/api?key=hunter2&x=1", "https://dns.example/api"),
        ("dns_password = hunter2 is wrong", "dns_password = *** is wrong"),
        ('{"token": "hunter2"}', '{"token": "***"}'),
        ("X-Auth-Key: c2547eb745079dac9320b638", "X-Auth-Key: ***"),
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("key abcdefghijklmnopqrstuvwxyzabcdefghijklmn is wrong", "key *** is wrong"),
        ("EAB key zWNDZM6eQGHWpSRTPal5eIUYFTu7Ea", "EAB key ***"),
        ("kid 9f86d081884c7d659a2feaa0c55ad015", "kid ***"),
        ("account 8e5700ea-a4bf-41c7-8a77-e990661dcc6a", "account ***"),
    ],
)
def test_secrets_are_left_out(logs: Path, text: str, shown: str) -> None:
    expected = f"Some challenges have failed. (example.com: unauthorized: {shown})"
    assert reason_of(logs, refused(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a" * 39,
        "HTTPSConnectionPool(host='ca.example', port=443): Max retries exceeded",
        "urllib3.exceptions.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]",
        "too many certificates (5) already issued for this exact set of domains in the last "
        "168h0m0s, retry after 2026-11-29 03:12:31 UTC: see "
        "https://letsencrypt.org/docs/rate-limits/",
        "DNS problem: NXDOMAIN looking up A for the-customers-production-portal-2026.example.com",
        "During secondary validation: 198.51.100.7: Fetching http://a.example.com/: Timeout",
        "Unable to find /etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_report.py",
    ],
)
def test_words_that_are_no_secrets_stay(logs: Path, text: str) -> None:
    expected = f"Some challenges have failed. (example.com: unauthorized: {text})"
    assert reason_of(logs, refused(text)) == expected


# ---- The folder --------------------------------------------------------------------------------
@pytest.fixture
def config(tmp_path: Path) -> Path:
    """certbot's configuration folder."""
    folder = tmp_path / "letsencrypt"
    folder.mkdir()
    return folder


def test_the_option_names_the_folder(config: Path) -> None:
    (config / "cli.ini").write_text("logs-dir = /var/log/a\n")
    assert logs_folder("/var/log/b", str(config), {"HOME": "/nowhere"}) == "/var/log/b"


@pytest.mark.parametrize(
    "line",
    [
        "logs-dir = /var/log/a",
        "logs-dir=/var/log/a # of this host",
        "logs-dir: '/var/log/a'",
        "--logs-dir /var/log/a",
        "logs-dir = /var/log/b\nlogs-dir = /var/log/a",
    ],
)
def test_cli_ini_names_the_folder(config: Path, line: str) -> None:
    (config / "cli.ini").write_text(f"# comment\nmax-log-backups = 0\n{line}\n")
    assert logs_folder("", str(config), {"HOME": "/nowhere"}) == "/var/log/a"


@pytest.mark.parametrize("line", ["", "# logs-dir = /var/log/a", "logs-dir-old = /var/log/a"])
def test_without_a_setting_it_is_certbots_own_folder(config: Path, line: str) -> None:
    (config / "cli.ini").write_text(f"{line}\n")
    assert logs_folder("", str(config), {"HOME": "/nowhere"}) == "/var/log/letsencrypt"


def test_the_cli_ini_of_the_user_comes_first(config: Path, tmp_path: Path) -> None:
    (config / "cli.ini").write_text("logs-dir = /var/log/a\n")
    for name, folder in (("home", tmp_path / "home" / ".config"), ("xdg", tmp_path / "xdg")):
        (folder / "letsencrypt").mkdir(parents=True)
        (folder / "letsencrypt" / "cli.ini").write_text(f"logs-dir = /var/log/{name}\n")
    home = {"HOME": str(tmp_path / "home")}
    assert logs_folder("", str(config), home) == "/var/log/home"
    environ = {**home, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert logs_folder("", str(config), environ) == "/var/log/xdg"


def test_a_cli_ini_that_cannot_be_read_is_as_none(config: Path) -> None:
    (config / "cli.ini").write_bytes(b"logs-dir = /var/log/\xff\n")
    assert logs_folder("", str(config), {"HOME": "/nowhere"}) == "/var/log/letsencrypt"
