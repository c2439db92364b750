"""Run reports: every certificate on disk, what ended, and how certbot's run went, read back from the real InfluxDB."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import certbot_renewal_report
from support.hooks import Ran, known, next_second
from support.points import renewals_of, run_points, state_of
from support.servers import Alerting
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_report_hook, make_lineage
from tools.servers.processes import wait_for

Hook = Callable[..., Ran]
DROP_IN = (
    Path(__file__).resolve().parent.parent / "systemd" / "certbot.service.d" / "renewal-report.conf"
)


def test_a_run_report_tells_of_every_certificate_and_of_the_run(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    now = int(time.time())
    settings = influxdb.settings(influxdb.new_bucket())
    make_lineage(certbot_folder, "due", ["due.example.com"], now - 70 * DAY, 90 * DAY)
    make_lineage(
        certbot_folder, "fine", ["fine.example.com", "www.example.com"], now - DAY, 90 * DAY
    )
    (
        make_lineage(
            certbot_folder, "dangling", ["dangling.example.com"], now - DAY, 90 * DAY
        ).resolve()
        / "cert.pem"
    ).resolve().unlink()
    make_lineage(certbot_folder, "no-conf", ["no-conf.example.com"], now - DAY, 90 * DAY)
    (certbot_folder / "renewal" / "no-conf.conf").unlink()
    make_lineage(certbot_folder, "bad-conf", ["bad-conf.example.com"], now - DAY, 90 * DAY)
    (certbot_folder / "renewal" / "bad-conf.conf").write_text("fullchain = /x\n")
    ran = run_report("--all", EXIT_STATUS="1", **settings)
    assert ran.status == 1
    for text in (
        "dangling/cert.pem: No such file",
        "no-conf.conf: No such file",
        "cert, privkey, chain, [renewalparams] missing",
    ):
        assert text in ran.err
    points = influxdb.points(settings["INFLUXDB_BUCKET"])
    assert {p[-1] for p in points if p[1] == "renewal_due"} == {
        f"lineage={name}" for name in ("due", "fine", "no-conf", "bad-conf")
    }
    assert now <= state_of(points, "fine")["run_at"] <= time.time()
    (run,) = run_points(points)
    assert run == {
        "certificates": "4",
        "failed_count": "1",
        "failed": "due",
        "unreadable_count": "3",
        "unreadable": "bad-conf dangling no-conf",
        "exit_status": "1",
    }
    assert known(certbot_folder) == ["bad-conf", "dangling", "due", "fine", "no-conf"]


def test_a_certificate_that_is_gone_is_told_once(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    now, settings = int(time.time()), influxdb.settings(influxdb.new_bucket())
    for name in ("gone", "stays"):
        make_lineage(certbot_folder, name, [f"{name}.example.com"], now - DAY, 90 * DAY)
    assert run_report("--all", **settings).status == 0
    for place in ("live/gone", "archive/gone"):
        shutil.rmtree(certbot_folder / place)
    next_second()
    assert run_report("--all", **settings).status == 1  # its conf is still there: broken, not ended
    assert state_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "gone")["renewal_due"] > 0
    (certbot_folder / "renewal" / "gone.conf").unlink()
    assert (
        run_report(
            "--all", **{**settings, "INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TIMEOUT": "0.1"}
        ).status
        == 1
    )
    assert known(certbot_folder) == ["gone", "stays"]  # not delivered: not forgotten
    next_second()
    ran = run_report("--all", **settings)
    assert (ran.status, re.findall("; (.*): reported into ", ran.out)) == (0, ["gone ended"])
    ended = state_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "gone")
    assert {ended[name] for name in ("not_before", "renewal_due", "not_after")} == {0}
    assert known(certbot_folder) == ["stays"]
    next_second()
    assert run_report("--all", **settings).status == 0
    assert state_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "gone") == ended
    assert (
        state_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "stays")["run_at"] > ended["run_at"]
    )


@contextlib.contextmanager
def waiting(folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A patient run report as a process."""
    command = [sys.executable, str(install_report_hook(folder)), "--all", "--patience", "1"]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()  # or a test that fails waits for an hour


@pytest.mark.parametrize("house", ["influxd-1.12"], indirect=True)
def test_a_patient_run_report_waits_for_influxdb_until_a_later_one_takes_over(
    house: Alerting, certbot_folder: Path
) -> None:
    influxdb, now = house.start_influxdb(), int(time.time())
    bucket = influxdb.new_bucket()
    make_lineage(certbot_folder, "early", ["early.example.com"], now - DAY, 90 * DAY)
    settings = {"HOSTNAME": "web1", "INFLUXDB_TIMEOUT": "1", **influxdb.settings(bucket)}
    house.stop("influxdb")

    turn = certbot_folder / certbot_renewal_report.TURN_FILE
    with waiting(certbot_folder, EXIT_STATUS="1", **settings) as first:
        wait_for(turn.exists, "the first one's turn")
        mine = turn.read_text()
        with waiting(certbot_folder, EXIT_STATUS="0", **settings) as second:
            assert first.communicate(timeout=60) == ("", "")
            assert turn.read_text() != mine
            make_lineage(certbot_folder, "late", ["late.example.com"], now - 60, 90 * DAY)
            with (
                socket.create_server(("127.0.0.1", house.port)) as nobody,
                nobody.accept()[0] as connection,
            ):
                while connection.recv(
                    65536
                ):  # until this try, which may have read the disk too early, has given up
                    pass
            house.start_influxdb()
            out, err = second.communicate(timeout=60)
    assert (first.returncode, second.returncode, err) == (0, 0, "")
    assert out.startswith("2 certificates: reported into ") and out.count("\n") == 1
    points = influxdb.points(bucket)
    assert [run["exit_status"] for run in run_points(points)] == [
        "0"
    ]  # not what the first one would tell, which is no news
    assert state_of(points, "late")["not_before"] == now - 60
    assert known(certbot_folder) == ["early", "late"]


def test_what_waits_gives_way_to_a_later_run_that_was_reported_without_patience(
    server: Callable[[str], InfluxDB], run_report: Hook, certbot_folder: Path
) -> None:
    influxdb = server("influxd-1.12")
    settings = influxdb.settings(influxdb.new_bucket())
    make_lineage(certbot_folder, "a", ["a.example.com"], int(time.time()) - DAY, 90 * DAY)
    turn, away = (
        certbot_folder / certbot_renewal_report.TURN_FILE,
        {"INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TIMEOUT": "0.1"},
    )
    with waiting(certbot_folder, HOSTNAME="web1", EXIT_STATUS="1", **away) as first:
        mine = wait_for(lambda: turn.exists() and turn.read_text(), "its turn")
        for arguments, environ in (
            ((), {**away, "EXIT_STATUS": "0"}),
            (("--dry-run",), {**settings, "EXIT_STATUS": "0"}),
            ((), settings),
        ):
            run_report("--all", *arguments, **environ)  # not reported, or of no run
            assert turn.read_text() == mine
        assert run_report("--all", EXIT_STATUS="0", **settings).status == 0
        assert (first.communicate(timeout=60), first.returncode) == (("", ""), 0)


def test_patience_ends_and_is_not_for_what_waiting_does_not_help(
    server: Callable[[str], InfluxDB], run_report: Hook, certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "a", ["a.example.com"], int(time.time()) - DAY, 90 * DAY)
    away = {
        "INFLUXDB_URL": "http://127.0.0.1:1",
        "INFLUXDB_TIMEOUT": "0.1",
        "HOSTNAME": "0123456789ab",
    }
    ran = run_report("--all", "--patience", "0.0005", **away)  # time for two tries
    assert (ran.status, ran.err.count("cannot reach"), ran.err.count("is a container's id")) == (
        1,
        1,
        1,
    )
    assert (
        "answered 404"
        in run_report("--all", "--patience", "6", **server("influxd-1.12").settings("nowhere")).err
    )


def test_folders_that_cannot_be_listed_end_nothing(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    settings = influxdb.settings(influxdb.new_bucket())
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    assert run_report("--all", **settings).status == 0
    for place in ("live", "renewal"):
        (certbot_folder / place).rename(certbot_folder / f"{place}.away")
    next_second()
    ran = run_report("--all", **settings)
    assert (ran.status, known(certbot_folder)) == (1, ["example.com"])
    assert "name certbot's configuration folder with --config-dir" in ran.err
    assert state_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "example.com")["renewal_due"] > 0


def post_hook(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """The hook as certbot starts it after all renewals: by a link in renewal-hooks/post/."""
    link = folder / "renewal-hooks" / "post" / "certbot_renewal_report.py"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(install_report_hook(folder))
    return subprocess.run(
        [sys.executable, str(link)],
        env={"HOSTNAME": "web1", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_post_hook_tells_what_failed_and_was_due(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    now, settings = int(time.time()), influxdb.settings(influxdb.new_bucket())
    make_lineage(certbot_folder, "due", ["due.example.com"], now - 70 * DAY, 90 * DAY)
    fine = make_lineage(certbot_folder, "fine", ["fine.example.com"], now - DAY, 90 * DAY)
    # certbot 2.1 gives no FAILED_DOMAINS, and leaves what its last deploy hook had.
    leaked = {"RENEWED_DOMAINS": "fine.example.com", "RENEWED_LINEAGE": str(fine)}
    assert post_hook(certbot_folder, **settings, **leaked).returncode == 0
    points = influxdb.points(settings["INFLUXDB_BUCKET"])
    assert run_points(points)[-1] == {
        "certificates": "2",
        "unreadable_count": "0",
    }  # it knows nothing of the run
    assert state_of(points, "due")["run_at"] == 0
    assert not (certbot_folder / certbot_renewal_report.KNOWN_FILE).exists()
    next_second()
    # Names of a dry run or a forced renewal are there too, though nothing was due; and the list may be cut in a name.
    assert (
        post_hook(
            certbot_folder, **settings, FAILED_DOMAINS="fine.example.com due.example.com cut.exam"
        ).returncode
        == 0
    )
    assert run_points(influxdb.points(settings["INFLUXDB_BUCKET"]))[-1]["failed"] == "due"
    assert run_report("--all", **settings).status == 0
    next_second()
    assert post_hook(certbot_folder, **settings, FAILED_DOMAINS="").returncode == 0
    points = influxdb.points(settings["INFLUXDB_BUCKET"])
    assert (run_points(points)[-1]["failed_count"], state_of(points, "due")["run_at"] > now) == (
        "0",
        True,
    )


@pytest.mark.parametrize(("seconds", "failed"), [(-1, False), (0, True)])
def test_what_failed_counts_from_the_second_when_it_is_due(
    run_report: Hook,
    certbot_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    failed: bool,
) -> None:
    begin = int(time.time()) - 60 * DAY
    make_lineage(certbot_folder, "due", ["due.example.com"], begin, 90 * DAY)
    now = float(begin + 60 * DAY + seconds)
    monkeypatch.setattr(
        certbot_renewal_report, "time", types.SimpleNamespace(**{**vars(time), "time": lambda: now})
    )
    out = run_report("--all", "--dry-run", FAILED_DOMAINS="due.example.com").out
    assert ('failed="due"' in out, "failed_count=1i" in out) == (failed, failed)


@pytest.mark.parametrize(
    ("text", "stored"),
    [("0", "0"), ("1", "1"), ("TERM", "143"), ("KILL", "137"), ("", None), ("x y", None)],
)
def test_the_exit_status_as_systemd_gives_it(
    run_report: Hook, certbot_folder: Path, text: str, stored: str | None
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    ran = run_report("--all", "--dry-run", EXIT_STATUS=text)
    run = next(line for line in ran.out.splitlines() if " certificates=1i" in line)
    assert (f"exit_status={stored}i" in run) == (stored is not None)
    assert ("EXIT_STATUS is wrong" in ran.err) == (text == "x y")
    assert not (certbot_folder / certbot_renewal_report.KNOWN_FILE).exists()


def test_the_past_is_in_the_archive(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    now, settings = int(time.time()), influxdb.settings(influxdb.new_bucket())
    moments = [now - days * DAY for days in (121, 61, 1)]
    for moment in moments:
        make_lineage(certbot_folder, "example.com", ["example.com"], moment, 90 * DAY)
    assert run_report("--all", **settings).status == 0
    assert renewals_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "example.com") == {moments[-1]}
    assert run_report("--all", "--history", **settings).status == 0
    assert renewals_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "example.com") == set(moments)


def test_what_was_renewed_while_the_server_was_away_is_not_lost(
    influxdb: InfluxDB, report_hook: Hook, run_report: Hook, certbot_folder: Path
) -> None:
    now, settings = int(time.time()), influxdb.settings(influxdb.new_bucket())
    moments = [now - days * DAY for days in (40, 10, 7, 4, 1)]
    for moment in moments[:2]:
        live = make_lineage(certbot_folder, "example.com", ["example.com"], moment, 160 * 3600)
    assert run_report("--all", **settings).status == 0
    nowhere = {**settings, "INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TIMEOUT": "0.1"}
    for moment, (environ, status) in zip(moments[2:], ((nowhere, 1), (nowhere, 1), (settings, 0))):
        make_lineage(certbot_folder, "example.com", ["example.com"], moment, 160 * 3600)
        renewed = {"RENEWED_LINEAGE": str(live), "RENEWED_DOMAINS": "example.com"}
        assert report_hook(**environ, **renewed).status == status
    assert renewals_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "example.com") == {
        moments[1],
        moments[4],
    }
    damaged = certbot_folder / "archive" / "example.com" / "cert3.pem"
    whole = damaged.read_bytes()
    damaged.write_text("damaged")
    ran = run_report("--all", "--dry-run", **settings)
    assert (
        ran.status,
        "cert3.pem: not a certificate" in ran.err,
        "That renewal was not reported" in ran.err,
    ) == (1, True, True)
    damaged.write_bytes(whole)
    assert run_report("--all", **settings).status == 0
    assert renewals_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "example.com") == set(
        moments[1:]
    )


def test_a_certificate_that_lived_between_two_run_reports_ends_too(
    influxdb: InfluxDB, report_hook: Hook, run_report: Hook, certbot_folder: Path
) -> None:
    now, settings = int(time.time()), influxdb.settings(influxdb.new_bucket())
    for place in ("live", "renewal"):
        (certbot_folder / place).mkdir()
    assert run_report("--all", **settings).status == 0
    live = make_lineage(certbot_folder, "trial", ["trial.example.com"], now - 60, 90 * DAY)
    assert (
        report_hook(
            RENEWED_LINEAGE=str(live), RENEWED_DOMAINS="trial.example.com", **settings
        ).status
        == 0
    )
    for place in ("live/trial", "archive/trial"):
        shutil.rmtree(certbot_folder / place)
    (certbot_folder / "renewal" / "trial.conf").unlink()
    next_second()
    assert run_report("--all", **settings).status == 0
    assert state_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "trial")["renewal_due"] == 0


def test_many_lines_go_in_several_requests(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certbot_renewal_report, "BATCH", 3)
    now, settings = int(time.time()), influxdb.settings(influxdb.new_bucket("604800"))
    for number in range(
        5
    ):  # all older than the bucket keeps: what of them falls in which request does not matter
        make_lineage(
            certbot_folder,
            f"c{number}",
            [f"c{number}.example.com"],
            now - (8 + number) * DAY,
            90 * DAY,
        )
    ran = run_report("--all", **settings)
    assert (ran.status, ran.err) == (0, "")
    points = influxdb.points(settings["INFLUXDB_BUCKET"])
    assert {p[-1] for p in points if p[1] == "run_at"} == {
        f"lineage=c{number}" for number in range(5)
    }
    assert run_points(points)[-1]["certificates"] == "5"


def test_more_names_than_a_field_can_hold(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    settings = influxdb.settings(influxdb.new_bucket())
    for place in ("live", "renewal"):
        (certbot_folder / place).mkdir()
    for number in range(400):  # 96,000 characters
        (certbot_folder / "renewal" / f"{number:03}{'x' * 237}.conf").touch()
    assert "reported into" in run_report("--all", **settings).out
    (run,) = run_points(influxdb.points(settings["INFLUXDB_BUCKET"]))
    names = run["unreadable"].split()
    assert (run["unreadable_count"], names[0], names[-1], len(names[-2])) == (
        "400",
        "000" + "x" * 237,
        "...",
        240,
    )


def test_a_host_is_retired_with_one_command(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    now, settings = int(time.time()), influxdb.settings(influxdb.new_bucket())
    make_lineage(certbot_folder, "a.example.com", ["a.example.com"], now - DAY, 90 * DAY)
    (certbot_folder / "certbot_renewal_report.env").write_text("HOSTNAME=web1\n")
    for host in ([], ["--host", "web1"]):
        refused = run_report(*host, "--retire", "a.example.com", **settings)
        assert (
            refused.status,
            "certbot delete --cert-name a.example.com" in refused.err,
            "--host" in refused.err,
        ) == (1, True, True)
    retired = run_report(
        "--host", "old-web", "--retire", "a.example.com", "b.example.com", **settings
    )
    assert retired.status == 0
    assert retired.out.startswith(
        "a.example.com on old-web ended; b.example.com on old-web ended: reported into "
    )
    points = influxdb.points(settings["INFLUXDB_BUCKET"])
    assert {p[3:] for p in points} == {
        ("domain=all", "host=old-web", f"lineage={name}.example.com") for name in ("a", "b")
    }
    assert {p[2] for p in points if p[1] == "renewal_due"} == {"0"}
    assert run_report("--retire", "b.example.com", **settings).status == 0
    assert (
        state_of(influxdb.points(settings["INFLUXDB_BUCKET"]), "b.example.com")["renewal_due"] == 0
    )


@pytest.mark.parametrize(
    "wrong",
    [
        ["--host", "old-web"],
        ["--host", "old-web", "--all"],
        ["--history"],
        ["--stdout", "--check"],
        ["--all", "--after-dry-run"],
    ],
)
def test_options_that_do_not_go_together(
    report_hook: Hook, wrong: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        report_hook(*wrong)
    assert ended.value.code == 2
    assert (
        "--history, --patience and --stdout go with --all, --host with --retire"
        in capfd.readouterr().err
    )


def test_a_known_file_that_cannot_be_written_is_a_warning(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    (certbot_folder / f"{certbot_renewal_report.KNOWN_FILE}.new").mkdir()
    ran = run_report("--all", **influxdb.settings(influxdb.new_bucket()))
    assert (ran.status, "reported into" in ran.out) == (0, True)
    assert "warning: " in ran.err
    assert "make it writable, or a certificate that ends must be told with --retire" in ran.err


def test_a_known_file_that_cannot_be_read_is_not_lost(
    influxdb: InfluxDB, run_report: Hook, certbot_folder: Path
) -> None:
    make_lineage(certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY)
    file, settings = (
        certbot_folder / certbot_renewal_report.KNOWN_FILE,
        influxdb.settings(influxdb.new_bucket()),
    )
    file.write_bytes(b"gone.example.com 1\n\xff\n")
    ran = run_report("--all", **settings)
    assert (ran.status, "not UTF-8 text" in ran.err, "reported into" in ran.out) == (1, True, True)
    assert file.read_bytes() == b"gone.example.com 1\n\xff\n"
    assert len(run_points(influxdb.points(settings["INFLUXDB_BUCKET"]))) == 1


def test_a_folder_whose_name_is_no_lineages_is_named_and_ends_nothing(
    run_report: Hook, certbot_folder: Path
) -> None:
    live = make_lineage(
        certbot_folder, "example.com", ["example.com"], int(time.time()) - DAY, 90 * DAY
    )
    (certbot_folder / certbot_renewal_report.KNOWN_FILE).write_text("a 1\nexample.com 1\n")
    for name in (b"a\nb", b"\xff"):
        shutil.copytree(live, certbot_folder / "live" / os.fsdecode(name))
    ran = run_report("--all", "--dry-run")
    assert (ran.status, ran.err.count("is no name of a lineage: remove it")) == (1, 2)
    assert (ran.out.count("renewal_due="), ran.out.count("renewal_due=0i")) == (1, 0)


def test_two_installations_with_one_host_tag_end_nothing_of_each_other(
    influxdb: InfluxDB, run_report: Hook, tmp_path: Path
) -> None:
    now, settings = int(time.time()), influxdb.settings(influxdb.new_bucket())
    folders = {lineage: tmp_path / f"container-{lineage}" for lineage in ("a", "b")}
    for lineage, folder in folders.items():
        make_lineage(folder, lineage, [f"{lineage}.example.com"], now - DAY, 90 * DAY)
    for folder in (*folders.values(), *folders.values()):
        next_second()
        assert run_report("--all", "--config-dir", str(folder), **settings).status == 0
    points = influxdb.points(settings["INFLUXDB_BUCKET"])
    assert {p[2] for p in points if p[1] == "renewal_due"} == {str(now - DAY + 60 * DAY)}
