"""The renewal board: what an administrator sees in a browser, in a terminal and in a spreadsheet, of a fleet that real hooks reported."""

from __future__ import annotations

import base64
import copy
import csv
import io
import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from support.points import delivery, run_point, state, write
from support.servers import skip_or_fail
from tools import demo_fleet
from tools.demo_fleet import FLEET, Host, Lineage
from tools.servers.faulty import answer, drip, serving
from tools.servers.influxdb import ORG, InfluxDB, start_influxdb
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, installed_program
from tools.servers.prometheus import (
    VictoriaMetrics,
    copy_database,
    start_prometheus,
    start_victoria_metrics,
)

BOARD = Path(__file__).resolve().parent.parent / "board" / "certbot_renewal_board.py"
NASTY = '<script>document.title="taken"</script>'
STRANGE = Host(f"=cmd|{NASTY}", (Lineage('"><img src=x onerror=alert(1)>', 5, (NASTY,), late=()),))
COLUMNS = {
    "overdue": {"example.net on web2", "old.example.net on web2"},
    "failing": {"intranet.example.net on web2", "mail.example.org on mail"},
    "due": {"lists.example.org on mail"},
    "ended": {"legacy.example.org on mail"},
}


@dataclass(frozen=True)
class Made:
    """How the board ended, and what it said."""

    status: int
    out: str
    err: str


def board(environ: dict[str, str], *arguments: str) -> Made:
    """Runs the board as cron would."""
    done = subprocess.run(
        [sys.executable, str(BOARD), *arguments],
        env={**environ, "COLUMNS": "80"},
        capture_output=True,
        timeout=120,
    )
    made = Made(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in made.err
    assert made.err.count("\n") == (1 if made.status == 2 else 0) + made.err.count(": warning: ")
    return made


@pytest.fixture(scope="session")
def fleet(
    server: Callable[[str], InfluxDB], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, str]]:
    """The fleet, reported into an InfluxDB by name: what it gives are the settings to read it with."""
    known: dict[str, dict[str, str]] = {}

    def get(name: str) -> dict[str, str]:
        if name not in known:
            influxdb = server(name)
            bucket = influxdb.new_bucket()
            demo_fleet.report(
                [*FLEET, STRANGE],
                tmp_path_factory.mktemp("fleet"),
                influxdb,
                bucket,
                int(time.time()),
            )
            known[name] = influxdb.settings(bucket)
        return known[name]

    return get


@pytest.fixture(scope="session")
def made(fleet: Callable[[str], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of the fleet, as a file."""
    path = tmp_path_factory.mktemp("board") / "index.html"
    assert board(fleet("influxd-1.12"), "--html", str(path)) == Made(1, "", "")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    try:
        program = installed_program("chromium", "chromium")
    except MissingServer as error:
        skip_or_fail(error)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser: Browser, made: Path) -> Iterator[Callable[..., Page]]:
    """Opens the board, or another file, and waits until it is ready. Nothing may be complained of, and nothing fetched."""
    pages: list[Page] = []
    wrong: list[str] = []

    def open_page(path: Path = made, fragment: str = "", **options: Any) -> Page:
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: (
                wrong.append(request.url)
                if not request.url.startswith(("file:", "blob:"))
                else None
            ),
        )
        page.goto(f"file://{path}{fragment}")
        page.wait_for_selector("body[data-ready]", state="attached")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


def shown(page: Page, state: str) -> list[str]:
    """The cards that can be seen in a column."""
    cards = page.locator(f".{state} .card:visible")
    return [
        f"{it.locator('h3').text_content()} on {it.get_attribute('data-host')}"
        for it in cards.all()
    ]


def test_each_certificate_stands_in_its_column(opened: Callable[..., Page]) -> None:
    page = opened()
    assert {column: set(shown(page, column)) for column in COLUMNS} == COLUMNS
    assert len(shown(page, "renewed")) == 12
    assert {it: page.locator(f".{it} .count").inner_text() for it in [*COLUMNS, "renewed"]} == {
        **{column: str(len(names)) for column, names in COLUMNS.items()},
        "renewed": "12",
    }
    assert re.search(
        r"web2: dry run of .* UTC, 1 certificate, failed: example.net",
        page.locator(".dry-runs").inner_text(),
    )
    assert [it.inner_text().splitlines()[0] for it in page.locator(".hosts h3").all()] == [
        "db1 silent",
        "web2 failing",
    ]
    overdue = page.locator(".card[data-name='example.net']")
    text = overdue.inner_text()
    for part in (
        "63 days old",
        "overdue by 3.2 days",
        "could not renew it",
        "in one run with intranet.example.net old.example.net",
        "Some challenges",
    ):
        assert part in text
    assert re.search(
        r"Began .*, due .*, expires .*, 70 percent",
        overdue.locator(".life").get_attribute("aria-label") or "",
    )
    assert re.search(
        r"Renewed 4 times since", overdue.locator(".dots").get_attribute("aria-label") or ""
    )
    assert "9.1 days late" in (
        page.locator(".card[data-name='old.example.net'] .dots").get_attribute("aria-label") or ""
    )
    overdue.locator("summary").click()
    assert "certbot renew --cert-name example.net --dry-run" in overdue.inner_text()
    assert "www.example.net" in overdue.inner_text()
    assert (
        "not delivered to smtp2" in page.locator(".card[data-name='mail.example.org']").inner_text()
    )


def test_the_filter_is_in_the_page_and_in_its_address(
    opened: Callable[..., Page], made: Path
) -> None:
    page = opened()
    page.keyboard.press("Tab")
    for _ in range(20):  # by keyboard alone
        if page.evaluate("document.activeElement.id") == "q":
            break
        page.keyboard.press("Tab")
    page.keyboard.type("STATIC example")  # a name of the certificate, in another case
    assert shown(page, "renewed") == ["example.com on web1"]
    assert page.locator("#shown").inner_text() == "1 certificate"
    assert page.locator(".overdue .count").inner_text() == "0"
    page.locator("#q").fill("")
    page.locator("#host").select_option("mail")
    page.locator("#state").select_option("failing")
    assert shown(page, "failing") == ["mail.example.org on mail"]
    assert not page.locator(".renewed").is_visible()
    assert page.locator("#history tr").count() == int(page.locator("#rows").inner_text()) > 0
    assert {it.inner_text() for it in page.locator("#history td:nth-child(2)").all()} == {"mail"}
    again = opened(fragment=page.url.partition(str(made))[2])
    assert (again.locator("#host").input_value(), again.locator("#state").input_value()) == (
        "mail",
        "failing",
    )
    assert shown(again, "failing") == ["mail.example.org on mail"]


def test_cards_are_sorted_as_asked_for(opened: Callable[..., Page]) -> None:
    page = opened(fragment="#sort=name")
    renewed = shown(page, "renewed")
    assert renewed == sorted(renewed)
    page.locator("#sort").select_option("age")
    assert shown(page, "renewed")[0] == "blog.example.com on web1"
    page.locator("#sort").select_option("")
    assert shown(page, "renewed")[:2] == [
        "webmail.example.org on mail",
        "status.example.com on web1",
    ]


def test_the_download_has_the_rows_that_csv_prints(
    opened: Callable[..., Page], fleet: Callable[[str], dict[str, str]]
) -> None:
    page = opened()
    with page.expect_download() as download:
        page.locator("#csv").click()
    downloaded = Path(download.value.path()).read_bytes().decode()
    printed = board(fleet("influxd-1.12"), "--csv").out
    assert downloaded == printed
    rows = list(csv.DictReader(io.StringIO(printed, newline="")))
    assert len(rows) == 69
    assert page.locator("#history tr").count() == len(rows)


def test_names_from_outside_are_text(
    opened: Callable[..., Page], fleet: Callable[[str], dict[str, str]]
) -> None:
    page = opened()
    assert page.title() == "Certificates: 2 overdue"
    card = page.locator(".card", has_text="onerror")
    assert card.locator("h3").text_content() == STRANGE.lineages[0].name
    assert card.get_attribute("data-host") == STRANGE.name
    assert NASTY in (card.locator(".names").text_content() or "")
    assert page.locator("img").count() == 0
    row = next(
        row
        for row in csv.DictReader(
            io.StringIO(board(fleet("influxd-1.12"), "--csv").out, newline="")
        )
        if "cmd" in row["host"]
    )
    assert row["host"] == f"'{STRANGE.name}"  # no spreadsheet takes it for a formula
    assert "\x1b" not in board(fleet("influxd-1.12")).out


def test_a_page_that_nobody_makes_any_more_says_so(
    opened: Callable[..., Page], browser: Browser, made: Path
) -> None:
    page = opened()
    assert page.locator("#stale").inner_text() == ""
    page.clock.set_fixed_time(time.time() + 3 * 3600)
    page.reload()
    page.wait_for_selector("header.stale")
    assert "This page is 3 hours old" in page.locator("#stale").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(opened: Callable[..., Page], scheme: str) -> None:
    page = opened(color_scheme=scheme, viewport={"width": 390, "height": 844})
    page.evaluate("for (const it of document.querySelectorAll('details')) it.open = true")
    found = Axe().run(page).response["violations"]
    assert [
        (it["id"], it["impact"]) for it in found if it["impact"] in ("serious", "critical")
    ] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # of a phone


def test_it_prints(opened: Callable[..., Page]) -> None:
    page = opened()
    page.emulate_media(media="print")
    assert not page.locator("#filter").is_visible()
    assert len(page.pdf()) > 10_000
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
        == "rgb(255, 255, 255)"
    )


def test_on_each_influxdb_it_tells_the_same(
    influxdb: InfluxDB, fleet: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    done = board(fleet(influxdb.name), "--json", "--html", str(tmp_path / "board.html"))
    told = json.loads(done.out)
    assert done.status == 1
    assert told["counts"] == {"overdue": 2, "failing": 2, "due": 1, "renewed": 12, "ended": 1}
    cards = {f"{card['lineage']} on {card['host']}": card for card in told["certificates"]}
    assert {name: card["state"] for name, card in cards.items() if card["state"] != "renewed"} == {
        name: column for column, names in COLUMNS.items() for name in names
    }
    assert cards["example.com on web1"]["names"] == [
        "example.com",
        "www.example.com",
        "*.static.example.com",
    ]
    assert cards["example.net on web2"]["dry_run_error"] == "Some challenges have failed."
    assert cards["shop.example.com on web1"]["dry_run_error"] == "none"
    blog = [row for row in told["renewals"] if row["lineage"] == "blog.example.com"]
    assert [None if row["days_late"] is None else round(row["days_late"], 2) for row in blog] == [
        0.3,
        6.5,
        None,
    ]
    assert {row["lifetime_days"] for row in blog} == {90}
    assert (
        blog[0]["next_due"]
        == cards["blog.example.com on web1"]["due"]
        == blog[0]["time"] + 60 * DAY
    )
    assert [(host["host"], host["kind"]) for host in told["hosts"]] == [
        ("db1", "silent"),
        ("web2", "failing"),
    ]
    assert stat.S_IMODE((tmp_path / "board.html").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["board.html"]
    recent = json.loads(board(fleet(influxdb.name), "--json", "--since", "40d").out)["renewals"]
    assert 0 < len(recent) < len(told["renewals"])
    assert all(
        row["days_late"] is not None
        for row in recent
        if row["lineage"] not in ("status.example.com", STRANGE.lineages[0].name)
    )


def test_the_table_names_what_is_wrong_and_the_status_says_so(
    server: Callable[[str], InfluxDB],
) -> None:
    influxdb = server("influxd-1.12")
    bucket, now = influxdb.new_bucket(), int(time.time())
    settings = influxdb.settings(bucket)
    write(
        influxdb,
        bucket,
        state("fine.example.com", now + DAY, run_at=now),
        run_point("web1", now, exit_status=0),
    )
    well = board(settings)
    assert (well.status, well.err) == (0, "")
    assert re.search(r"renewed +fine\.example\.com +web1", well.out)
    write(
        influxdb,
        bucket,
        state("late.example.com", now - 2 * DAY, run_at=now),
        run_point("web2", now, unreadable="broken", exit_status=1),
    )
    late = board(settings)
    assert late.status == 1
    assert re.search(r"overdue +late\.example\.com +web1", late.out)
    assert re.search(r"failing +broken +web2", late.out)
    assert (
        "late.example.com on web1: overdue by 2.0 days\nbroken on web2: it cannot be read\n"
        in late.out
    )
    assert "web2: certbot fails, unreadable: broken, exit status 1" in late.out
    assert board(settings, "--crit", "3").status == 0


def test_when_most_hosts_are_silent_the_board_says_that_it_may_be_influxdb(
    server: Callable[[str], InfluxDB],
) -> None:
    influxdb = server("influxd-1.12")
    bucket, then = influxdb.new_bucket(), int(time.time()) - 3 * DAY
    write(
        influxdb,
        bucket,
        *(state("a", then + 9 * DAY, host=f"web{n}", run_at=then, at=then) for n in range(3)),
    )
    done = board(influxdb.settings(bucket))
    assert done.status == 1
    assert (
        "(most hosts): no report of certbot for 3.0 days, last of web0 web1 web2 (3 of 3)"
        in done.out
    )
    assert (
        "web1: no report of certbot for 3.0 days, last of a. Most hosts were away until lately"
        in done.out
    )


def test_what_nobody_knows_of_is_not_called_renewed(server: Callable[[str], InfluxDB]) -> None:
    influxdb = server("influxd-1.12")
    bucket, now = influxdb.new_bucket(), int(time.time())
    for host, due, heard in (
        ("gone", now - 40 * DAY, now - 60 * DAY),
        ("away", now - 2 * DAY, now - 3 * DAY),
        ("here", now - 3600, now - 7200),
    ):
        write(influxdb, bucket, state("a", due, host=host, run_at=heard, at=heard))
    write(
        influxdb,
        bucket,
        *(state("a", now + DAY, host=f"web{n}", run_at=now, at=now) for n in range(4)),
    )
    write(influxdb, bucket, state("early", now + 90 * DAY, host="here", run_at=now, at=now))
    done = board(influxdb.settings(bucket))
    assert done.status == 1
    assert {
        row.split()[2]: row.split()[0] for row in done.out.splitlines() if row.split()[1] == "a"
    } == {
        "gone": "overdue",  # since it has expired
        "away": "failing",
        "here": "due",  # since its last report
        **{f"web{n}": "renewed" for n in range(4)},
    }
    assert "a on gone: overdue by 40.0 days; expired" in done.out
    assert "a on away: nobody knows whether it was renewed: its host is silent" in done.out
    assert "early on here: it is not valid yet" in done.out


def test_what_a_target_has_is_said_to_expire(server: Callable[[str], InfluxDB]) -> None:
    influxdb = server("influxd-1.12")
    bucket, now = influxdb.new_bucket(), int(time.time())
    write(influxdb, bucket, state("a", now + 55 * DAY, run_at=now, at=now))
    has = f"deployed={now - 91 * DAY}i,deployed_expiry={now - DAY}i,renewed={now - 5 * DAY}i,run_at={now}i"
    write(
        influxdb,
        bucket,
        f'certbot_renewal,host=web1,lineage=a,target=edge {has},deploy_error="no route" {now}',
    )
    assert re.search(
        r"a on web1: not delivered to edge for 5\.0 days, what it has expired .*: no route\n",
        board(influxdb.settings(bucket)).out,
    )


def test_with_many_hosts_in_trouble_the_certificates_are_near_the_top(
    server: Callable[[str], InfluxDB], opened: Callable[..., Page], tmp_path: Path
) -> None:
    influxdb = server("influxd-1.12")
    bucket, now, path = influxdb.new_bucket(), int(time.time()), tmp_path / "board.html"
    failed = " ".join(f"c{n}.example.com" for n in range(60))
    names = [f"host{n}" for n in range(30)] + ["h" * 200, "upside\u202edown"]
    write(
        influxdb,
        bucket,
        *(run_point(name, now, failed, exit_status=1) for name in names),
        state("a", now + DAY, host=names[-1]),
    )
    assert board(influxdb.settings(bucket), "--html", str(path)).status == 0
    page = opened(path, viewport={"width": 1280, "height": 1000})
    assert page.locator(".board").bounding_box()["y"] < 1000  # type: ignore[index]
    page.locator(".hosts > details > summary").click()
    assert page.locator(".host:visible").count() == 32
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert "upside?down" in page.inner_text("main")


def test_without_a_report_the_board_says_what_to_do(
    server: Callable[[str], InfluxDB], browser: Browser, tmp_path: Path
) -> None:
    influxdb = server("influxd-1.12")
    settings, path = influxdb.settings(influxdb.new_bucket()), tmp_path / "board.html"
    done = board(settings, "--html", str(path))
    assert done.status == 2
    assert "no certificate is known yet in" in done.err and "--check" in done.err
    page = browser.new_page()
    page.goto(f"file://{path}")
    assert "No report yet" in page.inner_text(
        "main"
    ) and "certbot_renewal_report.py --check" in page.inner_text("main")
    page.close()


def test_the_page_goes_where_it_should(
    fleet: Callable[[str], dict[str, str]], server: Callable[[str], InfluxDB], tmp_path: Path
) -> None:
    settings, page, link = fleet("influxd-1.12"), tmp_path / "board.html", tmp_path / "link.html"
    page.touch(0o640)
    link.symlink_to(page)
    assert board(settings, "--html", str(link)).err == ""
    assert link.is_symlink() and "example.net" in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    device = tmp_path / "pipe"
    os.mkfifo(device)
    assert "not a file: give --html the name of one" in board(settings, "--html", str(device)).err
    nothing = server("influxd-1.12")
    assert board(nothing.settings(nothing.new_bucket()), "--html", str(page)).status == 2
    assert (
        "example.net" in page.read_text()
    )  # a page of certificates does not give way to one without


def test_no_traceback_whatever_happens(
    fleet: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    settings = fleet("influxd-1.12")
    for threshold in ("nan", "inf", "-1", "1e9", "x"):
        assert (
            subprocess.run(
                [sys.executable, str(BOARD), "--crit", threshold], capture_output=True, timeout=60
            ).returncode
            == 2
        )
    for begin, remedy in (
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Please log in",
            "it is something else than InfluxDB: correct INFLUXDB_URL",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: https://example.com/login\r\n\r\n",
            "a redirect: set INFLUXDB_URL to InfluxDB itself",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\na,b\r\n1,2\r\n",
            "correct INFLUXDB_URL, INFLUXDB_BUCKET or MEASUREMENT",
        ),
    ):
        with serving(answer(begin)) as url:
            assert remedy in board({"INFLUXDB_URL": url}).err
    with serving(drip(b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\n")) as url:
        assert (
            "raise INFLUXDB_TIMEOUT" in board({"INFLUXDB_URL": url, "INFLUXDB_TIMEOUT": "0.5"}).err
        )
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(BOARD))}"
    piped = subprocess.run(
        ["sh", "-c", f"{command} --json | head -c 1"],
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (piped.stdout, piped.stderr) == ("{", "")
    closed = subprocess.run(
        ["sh", "-c", f"{command} --csv >&-"],
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (closed.returncode, closed.stderr.count("\n")) == (2, 1)
    full = subprocess.run(
        ["sh", "-c", f"{command} --csv >/dev/full"],
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (full.returncode, full.stderr) == (
        2,
        "certbot_renewal_board: stdout: No space left on device\n",
    )
    for module in ("rich", "jinja2"):
        (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})")
    poor = {**settings, "PYTHONPATH": str(tmp_path)}
    assert f"no rich for {sys.executable}: apt-get install python3-rich" in board(poor).err
    assert (
        "apt-get install python3-jinja2" in board(poor, "--html", str(tmp_path / "board.html")).err
    )


def other_schema(influxdb: InfluxDB, lines: str) -> dict[str, str]:
    """The settings for a bucket with something else in it."""
    bucket = influxdb.new_bucket()
    write(influxdb, bucket, *(f"{line} {int(time.time())}" for line in lines.splitlines()))
    return influxdb.settings(bucket)


PUBLISHED = "certbot_renewal,domain=all,host=web1 renewed_count=1\ncertbot_renewal,domain=a,host=web1 renewed_count=1"
TEXTS = 'certbot_renewal,domain=all,host=web1,lineage=a renewal_due="x",not_after="y",run_at="z",not_before="w"'
WRONG: dict[
    str, tuple[Callable[[InfluxDB], dict[str, str]], str, str]
] = {  # what is wrong: the settings, what is said on 1.x, and on 2.x
    "nobody there": (
        lambda db: {"INFLUXDB_URL": "http://127.0.0.1:1"},
        "Connection refused: does it run, and is INFLUXDB_URL",
        "",
    ),
    "bucket": (lambda db: {**db.settings("nix")}, "correct INFLUXDB_BUCKET", ""),
    "not a setting": (
        lambda db: {**db.settings("x"), "INFLUXDB_TIMEOUT": "x"},
        "INFLUXDB_TIMEOUT is wrong",
        "",
    ),
    "other measurement": (
        lambda db: other_schema(db, "certbot_renewal,cpu=0 usage=1"),
        "correct INFLUXDB_BUCKET or MEASUREMENT",
        "",
    ),
    "other types": (
        lambda db: other_schema(db, TEXTS),
        "correct INFLUXDB_BUCKET or MEASUREMENT",
        "",
    ),
    "published hook": (lambda db: other_schema(db, PUBLISHED), "holds only renewals", ""),
    "retention policy": (
        lambda db: db.settings(f"{db.new_bucket()}/nix"),
        "behind the slash in INFLUXDB_BUCKET",
        "correct INFLUXDB_BUCKET",
    ),
    "token": (
        lambda db: {**db.settings("x"), "INFLUXDB_TOKEN": "fake-Secret-7f3"},
        "correct INFLUXDB_BUCKET",
        "set INFLUXDB_TOKEN to a token that may read",
    ),
    "org": (
        lambda db: {**db.settings(db.new_bucket()), "INFLUXDB_ORG": "nix"},
        "no certificate is known yet",
        "set INFLUXDB_ORG",
    ),
}


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-2"])
def test_bad_input_is_one_line_with_the_remedy_and_the_old_file_stays(
    server: Callable[[str], InfluxDB], tmp_path: Path, name: str
) -> None:
    influxdb, path = server(name), tmp_path / "board.html"
    path.write_text("the old one")
    for what, (settings, on_1, on_2) in WRONG.items():
        done = board(settings(influxdb), "--html", str(path))
        assert done.status == 2, what
        assert ((on_2 or on_1) if influxdb.major == 2 else on_1) in done.err, what
        assert "fake-Secret" not in done.err
        if "no certificate is known yet" not in done.err:
            assert path.read_text() == "the old one", what
        path.write_text("the old one")


def test_who_may_write_may_not_read(server: Callable[[str], InfluxDB], tmp_path: Path) -> None:
    """A token of the hook, that is to say; and a user of 1.x likewise."""
    with start_influxdb(
        "influxd-1.12", tmp_path / "influxdb", config="auth-enabled = true"
    ) as influxdb:
        influxdb.command("CREATE USER admin WITH PASSWORD 'fake' WITH ALL PRIVILEGES")
        for words in (
            "CREATE DATABASE telegraf",
            "CREATE USER hook WITH PASSWORD 'fake-Secret-7f3'",
            "GRANT WRITE ON telegraf TO hook",
        ):
            influxdb.command(words, u="admin", p="fake")
        settings = {**influxdb.settings("telegraf"), "INFLUXDB_TOKEN": "hook:fake-Secret-7f3"}
        refused = board(settings).err
        assert "INFLUXDB_TOKEN the right to read telegraf" in refused
        assert '"hook"' not in refused  # InfluxDB names the user
        influxdb.command("GRANT READ ON telegraf TO hook", u="admin", p="fake")
        assert "no certificate is known yet" in board(settings).err
        assert "set INFLUXDB_TOKEN to" in board({**settings, "INFLUXDB_TOKEN": "hook:no"}).err
    influxdb = server("influxd-2")
    bucket = influxdb.new_bucket()
    org = requests.get(
        f"{influxdb.url}/api/v2/orgs", params={"org": ORG}, headers=influxdb.headers, timeout=30
    ).json()["orgs"][0]["id"]
    permission = {"action": "write", "resource": {"type": "buckets", "orgID": org}}
    wanted = {"orgID": org, "permissions": [permission]}
    token = requests.post(
        f"{influxdb.url}/api/v2/authorizations", json=wanted, headers=influxdb.headers, timeout=30
    ).json()["token"]
    assert (
        "or let the token read it"
        in board({**influxdb.settings(bucket), "INFLUXDB_TOKEN": token}).err
    )


def test_a_measurement_may_have_any_name(server: Callable[[str], InfluxDB]) -> None:
    influxdb = server("influxd-2")
    bucket = influxdb.new_bucket()
    line = state("fine.example.com", int(time.time()) + DAY)
    write(influxdb, bucket, line.replace("certbot_renewal", 'a\\ "b"\\ ${c}'))
    assert board({**influxdb.settings(bucket), "MEASUREMENT": 'a "b" ${c}'}).status == 0


def test_settings_come_from_a_file(fleet: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    file = tmp_path / "board.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in fleet("influxd-1.12").items()))
    done = board({}, "--env", str(file), "--json")
    assert (done.status, done.err) == (1, "")  # nothing is secret: this InfluxDB asks for no token
    other = tmp_path / "other.env"
    other.write_text(file.read_text() + "INFLUXDB_TOKEN=fake:token\n")
    other.chmod(0o644)
    assert (
        f"warning: {other} holds the token and everybody may read it: chmod o= {other}"
        in board({}, "--env", str(other), "--json").err
    )
    assert "correct --env" in board({}, "--env", str(tmp_path / "nix"), "--json").err
    assert (
        "give --html a file"
        in board({}, "--env", str(file), "--html", str(tmp_path / "nix" / "board.html")).err
    )


# ---- VictoriaMetrics and Prometheus ----------------------------------------------------------------------------------
def json_of(settings: dict[str, str], *arguments: str, status: int = 1) -> dict[str, Any]:
    """What the board tells as JSON."""
    done = board(settings, "--json", *arguments)
    assert (done.status, done.err) == (status, "")
    told: dict[str, Any] = json.loads(done.out)
    return told


def without_text(told: dict[str, Any]) -> dict[str, Any]:
    """What the board tells, but for what only text says, and the seconds that it was asked at another time."""
    told = copy.deepcopy(told)
    for card in told["certificates"]:
        card["names"].sort()
        card["days_overdue"], card["days_left"] = (
            round(card["days_overdue"], 2),
            round(card["days_left"], 2),
        )
        card["last_failure"], card["failed_with"] = 0, []
        card["dry_run_error"] = (
            card["dry_run_error"]
            if card["dry_run_error"] == "none"
            else bool(card["dry_run_error"])
        )
        card["problems"] = [
            re.sub(r": (no route|connect to .*)$| for elsewhere.example.com(?=,)", "", it)
            for it in card["problems"]
        ]
    for host in told["hosts"]:
        host["says"] = host["says"].replace("unreadable: broken", "unreadable: 1")
    for renewal in told["renewals"]:
        renewal["names"].sort()
    ours = ("counts", "certificates", "hosts", "renewals")
    return {key: told[key] for key in ours}


def more_trouble(now: int) -> list[str]:
    """What the fleet has not: what is served, targets, a lineage of which a series more came with a label, and an unreadable one."""
    old, new = now - 88 * DAY, now - 2 * DAY

    def looked(lineage: str, at: int, served: int, expiry: int, names: str) -> str:
        of = state(lineage, new + 60 * DAY, host="cdn", run_at=at, at=at).rpartition(" ")[0]
        return f'{of},looked_at={at}i,seen_at={at}i,served={served}i,served_expiry={expiry}i,not_served="{names}" {at}'

    before = now - 30 * DAY
    labelled = [
        state(name, due, host="cdn", run_at=now).replace("host=", "dc=1,host=")
        for name, due in (("labelled", now + DAY), ("over", 0))
    ]
    return [
        looked("served", now, 1, 0, "none"),
        looked("elsewhere", now - DAY // 2, 0, now + 20 * DAY, "elsewhere.example.com"),
        looked("soon-after", now - 13 * DAY // 10, 0, now + 20 * DAY, "elsewhere.example.com"),
        looked(
            "looked-at-before", now - 3 * DAY, 0, now + 20 * DAY, "elsewhere.example.com"
        ).replace(str(new), str(before)),
        state("looked-at-before", new + 60 * DAY, host="cdn", run_at=now).replace(
            str(new), str(before)
        ),
        state(
            "by-its-report",
            now - 3 * DAY // 2,
            host="late",
            run_at=now - DAY - 3600,
            at=now - DAY - 3600,
        ),
        state("without-reports", now - 3 * DAY // 2, host="late", at=now - 2 * DAY),
        state("gone", now - 4 * DAY, host="late", run_at=now - 9 * DAY, at=now - 9 * DAY),
        state("gone", 0, host="late", run_at=now - 5 * DAY, at=now - 5 * DAY),
        *(
            state(name, now + 9 * DAY, host="two", run_at=at, at=at)
            for name, at in (("forgotten", now - 3 * DAY), ("seen", now))
        ),
        state("ended", now, host="web1", run_at=now - DAY, at=now - DAY),
        state("ended", 0, host="web1", run_at=now),
        state("labelled", now - 9 * DAY, host="cdn", run_at=now - DAY, at=now - DAY),
        state("over", now + 9 * DAY, host="cdn", run_at=now - DAY, at=now - DAY),
        *labelled,
        *(state(name, new + 60 * DAY, host="web1", run_at=now) for name in ("delivered", "alone")),
        delivery("has", new, new, "delivered", run_at=now),
        delivery("late", old, new, "delivered", run_at=now, error="no route"),
        delivery("never", 0, new, "delivered", run_at=now),
        delivery("no longer", 0, 0, "delivered", run_at=now).replace("no longer", "no-longer"),
        delivery("of-what-ended", old, new, "ended", run_at=now),
        run_point("cdn", now, unreadable="broken", exit_status=1),
        run_point("cdn", now - DAY, failed="x y", exit_status=1),
        f"certbot_renewal,domain=all,host=published renewed_count=1 {now - DAY}",
        f"certbot_renewal,domain=published.example.com,host=published renewed_count=1 {now - DAY}",
    ]


def test_victoria_metrics_tells_the_same_as_influxdb_but_for_text(
    server: Callable[[str], InfluxDB], victoria: Callable[[], VictoriaMetrics], tmp_path: Path
) -> None:
    influxdb, metrics, now = server("influxd-1.12"), victoria(), int(time.time())
    bucket = influxdb.new_bucket()
    apart = [
        replace(host, lineages=host.lineages, ended=()) if host.name == "mail" else host
        for host in FLEET
    ]
    for place, name in ((influxdb, bucket), (metrics, "certbot")):
        demo_fleet.report([*apart, STRANGE], tmp_path / name, place, name, now)
    write(influxdb, bucket, *more_trouble(now))
    metrics.store(*more_trouble(now))
    by_influxdb, by_metrics = (
        json_of(influxdb.settings(bucket)),
        json_of(metrics.settings(), "--source", "prometheus"),
    )
    assert by_influxdb["lacks"] == "" and by_metrics["lacks"].startswith("Text is not kept there")
    unreadable = [
        card for card in by_influxdb["certificates"] if card["lineage"] == "broken"
    ]  # known by its name alone
    by_influxdb["certificates"].remove(*unreadable)
    by_influxdb["counts"]["failing"] -= 1
    assert without_text(by_metrics) == without_text(by_influxdb)
    assert {len(by_metrics[what]) > 0 for what in ("certificates", "hosts", "renewals")} == {True}
    cards = {
        card["lineage"]: card
        for card in by_metrics["certificates"]
        if card["host"] in ("cdn", "web1", "web2")
    }
    assert cards["elsewhere"]["problems"][0].startswith(
        "another certificate is served, which expires "
    )
    assert cards["labelled"]["state"] == "renewed"
    assert cards["intranet.example.net"]["problems"] == [
        "certbot could not renew it in its last run"
    ]
    assert (cards["example.net"]["dry_run_error"], cards["shop.example.com"]["dry_run_error"]) == (
        "certbot could not renew it",
        "none",
    )
    assert sorted(cards["example.com"]["names"]) == [
        "*.static.example.com",
        "example.com",
        "www.example.com",
    ]
    page = tmp_path / "board.html"
    assert board(metrics.settings(), "--source", "prometheus", "--html", str(page)) == Made(
        1, "", ""
    )
    assert (
        "Text is not kept there" in page.read_text() and f"from {metrics.url}." in page.read_text()
    )
    assert "upside?down" in board(with_a_strange_host(metrics, now), "--source", "prometheus").out


def with_a_strange_host(metrics: VictoriaMetrics, now: int) -> dict[str, str]:
    """A host whose name would turn the letters of a terminal around."""
    metrics.write(state("strange", now + DAY, host="upside\u202edown"))
    return metrics.settings()


@pytest.mark.parametrize(("back", "days"), [(0, 0), (2, 0), (3, 0), (3, 1)])
def test_most_hosts_silent_is_told_alike(
    server: Callable[[str], InfluxDB], victoria: Callable[[], VictoriaMetrics], back: int, days: int
) -> None:
    """While they are away, when the first of them are back, when most are, and when these have been for a day."""
    influxdb, metrics, now = server("influxd-1.12"), victoria(), int(time.time())
    bucket, then = influxdb.new_bucket(), now - 3 * DAY
    lines = [
        state("a", now + 9 * DAY, host=f"web{n}", run_at=then + n, at=then + n) for n in range(5)
    ]
    lines += [run_point(f"web{n}", then + n, exit_status=0) for n in range(5)]
    for host in ("web2", "web3", "web4")[3 - back :]:
        for at in (now - 60, now - DAY - 900)[: 1 + days]:
            lines += [
                state("a", now + 9 * DAY, host=host, run_at=at, at=at),
                run_point(host, at, exit_status=0),
            ]
    write(influxdb, bucket, *lines)
    metrics.store(*lines)
    status = 1 if back < 3 or days else 0
    hosts = json_of(influxdb.settings(bucket), status=status)["hosts"]
    assert json_of(metrics.settings(), "--source", "prometheus", status=status)["hosts"] == hosts
    assert [host["kind"] for host in hosts].count("unheard") == (0 if days else 5 - back)
    assert [host["host"] for host in hosts if host["kind"] == "silent"] == (
        ["web0", "web1"] if days else ["(most hosts)"][: 3 - back]
    )


def test_which_ones_failed_is_known_where_no_other_could_have(
    victoria: Callable[[], VictoriaMetrics],
) -> None:
    metrics, now = victoria(), int(time.time())
    metrics.store(
        *(state(name, now - 3600, host="all", run_at=now) for name in ("a", "b")),
        state("of-another-installation", now - 3600, host="all", run_at=now - 1800, at=now - 1800),
        run_point("all", now, failed="a b", exit_status=1),
        *(state(name, now - 3600, host="some", run_at=now) for name in ("a", "b")),
        run_point("some", now, failed="b", exit_status=1),
        run_point("by-hand", now - DAY, failed="b", exit_status=1),
        f"certbot_renewal,host=by-hand certificates=1i,unreadable_count=0i {now}",
        state("old", now + DAY, host="odd", run_at=now),
        run_point("odd", now - DAY, exit_status=1),
        run_point("odd", now, failed="x"),
    )
    told = json.loads(board(metrics.settings(), "--source", "prometheus", "--json").out)
    assert {host["host"]: host["says"] for host in told["hosts"]} == {
        "all": "certbot fails, not renewed: a b, exit status 1",
        "some": "certbot fails, not renewed: 1, exit status 1",
        "by-hand": "certbot fails, not renewed: 1, exit status 1",
        "odd": "certbot fails, not renewed: 1",
    }
    assert {f"{it['lineage']} on {it['host']}": it["state"] for it in told["certificates"]} == {
        **dict.fromkeys(("a on all", "b on all"), "failing"),
        **dict.fromkeys(("of-another-installation on all", "a on some", "b on some"), "due"),
        "old on odd": "renewed",
    }


def test_two_that_began_at_once_have_no_names(victoria: Callable[[], VictoriaMetrics]) -> None:
    """Whose they are would be a guess."""
    metrics, now = victoria(), int(time.time())
    at_once = ("a", "b", "e", "f")
    for lineage, began in (
        *((name, now - 5 * DAY) for name in at_once[:2]),
        ("c", now - 4 * DAY),
        ("d", now - 3 * DAY),
        *((name, now - 2 * DAY) for name in at_once[2:]),
    ):
        told = f"renewed_count=1,lifetime={90 * DAY}i,due_after={60 * DAY}i {began}"
        metrics.store(
            state(lineage, began + 60 * DAY, at=now - 60),
            f"certbot_renewal,domain=all,host=web1,lineage={lineage} {told}",
        )
        if lineage not in "df":  # of which a name is not known
            metrics.write(
                f"certbot_renewal,domain={lineage}.example.com,host=web1 renewed_count=1 {began}"
            )
    told = json.loads(board(metrics.settings(), "--source", "prometheus", "--json").out)
    assert {card["lineage"]: card["names"] for card in told["certificates"]} == {
        **{key: [] for key in "abdef"},
        "c": ["c.example.com"],
    }
    assert len(told["renewals"]) == 6


def test_prometheus_tells_the_same_but_for_names_and_with_the_history_that_states_tell(
    victoria: Callable[[], VictoriaMetrics], tmp_path: Path
) -> None:
    metrics, now = victoria(), int(time.time())
    demo_fleet.report(FLEET, tmp_path / "fleet", metrics, "certbot", now)
    begin = now - 70 * DAY
    metrics.store(
        *more_trouble(now),
        *(
            state("twice", begin + 60 * DAY, host="cdn", run_at=at, at=at)
            for at in range(begin, now - 9 * DAY, DAY // 2)
        ),
        *(
            state("twice", now + 51 * DAY, host="cdn", run_at=at, at=at)
            for at in range(now - 9 * DAY, now, DAY // 2)
        ),
        *(
            state("back", begin + 20 * DAY, host="cdn", run_at=at, at=at)
            for at in range(begin, now - 9 * DAY, DAY // 2)
        ),
        state("back", begin, host="cdn", run_at=now, at=now),  # the old one, out of a backup
    )
    by_metrics = json_of(metrics.settings(), "--source", "prometheus")
    copy_database(metrics, tmp_path / "prometheus")
    with start_prometheus(tmp_path / "prometheus") as prometheus:
        by_prometheus = json_of({"INFLUXDB_URL": prometheus.url}, "--source", "prometheus")
    assert by_prometheus["lacks"].endswith(
        "The history is what the reports of this time tell, without names."
    )
    told = [
        (row["lineage"], row["time"], row["lifetime_days"], row["days_late"])
        for row in by_prometheus["renewals"]
        if row["host"] == "cdn"
    ]
    assert [row for row in told if row[0] == "twice"] == [
        ("twice", now - 9 * DAY, 90, 1),
        ("twice", begin, 90, None),
    ]
    assert [row[1] for row in told if row[0] == "back"] == [begin - 40 * DAY, begin - 60 * DAY]
    for whole in (by_prometheus, by_metrics):
        for card in whole["certificates"]:
            card["names"], card["renewals"] = [], []
    assert without_text(by_prometheus)["certificates"] == without_text(by_metrics)["certificates"]
    assert by_prometheus["hosts"] == by_metrics["hosts"]


def test_a_limit_of_the_server_and_a_strange_measurement(
    victoria: Callable[[], VictoriaMetrics], tmp_path: Path
) -> None:
    metrics, now, name = victoria(), int(time.time()), 'a "b" ü😀'
    metrics.store(
        state("fine", now + DAY, at=now - 60).replace("certbot_renewal", name.replace(" ", "\\ "))
    )
    metrics.store(*(state(name, now + DAY, at=now - 60) for name in "abc"))
    told = json.loads(
        board({**metrics.settings(), "MEASUREMENT": name}, "--source", "prometheus", "--json").out
    )
    assert [card["lineage"] for card in told["certificates"]] == ["fine"]
    copy_database(metrics, tmp_path / "prometheus")
    limited = start_prometheus(tmp_path / "prometheus", "{}", None, "--query.max-samples=2")
    with limited as prometheus:
        assert (
            "raise that limit of the server"
            in board({"INFLUXDB_URL": prometheus.url}, "--source", "prometheus").err
        )
    with start_victoria_metrics(
        metrics.folder / "limited", None, "-search.maxUniqueTimeseries=2"
    ) as limited_metrics:
        limited_metrics.store(*(state(name, now + DAY, at=now - 60) for name in "abc"))
        assert (
            "raise that limit of the server"
            in board(limited_metrics.settings(), "--source", "prometheus").err
        )


IS_PARTIAL = b'{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}'


def test_without_prometheus_the_remedy_is_said(
    server: Callable[[str], InfluxDB], victoria: Callable[[], VictoriaMetrics], tmp_path: Path
) -> None:
    metrics, page = victoria(), tmp_path / "board.html"
    page.write_text("the old one")
    well = metrics.settings()
    begin = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"

    def said(settings: dict[str, str], source: str = "prometheus") -> str:
        done = board(settings, "--source", source, "--html", str(page))
        assert (done.status, page.read_text()) == (2, "the old one")
        return done.err

    done = board(well, "--source", "prometheus")
    assert f"no certificate is known yet in {metrics.url}: on each host run" in done.err
    assert "or correct INFLUXDB_URL or MEASUREMENT" in done.err
    metrics.write(PUBLISHED.replace("\n", f" {int(time.time())}\n") + f" {int(time.time())}")
    assert "holds only renewals" in said(well)
    metrics.write("mine,cpu=0 usage=1")
    assert "holds other things (usage): correct INFLUXDB_URL or MEASUREMENT" in said(
        {**well, "MEASUREMENT": "mine"}
    )
    assert "this is VictoriaMetrics: give --source prometheus" in said(well, "influxdb")
    for name in ("influxd-1.8", "influxd-2"):
        influxdb = server(name)
        assert "it is no Prometheus: correct INFLUXDB_URL, as in http://victoria:8428" in said(
            influxdb.settings("x")
        )
    assert "it is no Prometheus" in said({"INFLUXDB_URL": metrics.url + "/select/0/prometheus"})
    assert "does it run, and is INFLUXDB_URL its address?" in said(
        {"INFLUXDB_URL": "http://127.0.0.1:1"}
    )
    for body, remedy in (
        (IS_PARTIAL, "a vmstorage is away"),
        (b"[]", "it is no Prometheus"),
        (b'{"data":{"result":[{"metric":{}}]}}', "it is no Prometheus"),
        (b"<p>Please log in", "it is no Prometheus"),
    ):
        with serving(answer(begin + body)) as url:
            assert remedy in said({"INFLUXDB_URL": url})


def test_a_password_or_a_bearer_token_opens_prometheus() -> None:
    seen: list[str] = []

    def refuse(connection: socket.socket) -> None:
        seen.extend(re.findall(r"Authorization: (.*?)\r", connection.recv(65536).decode()))
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")

    def asked(token: str) -> str:
        with serving(refuse) as url:
            return board(
                {"INFLUXDB_URL": url, "INFLUXDB_TOKEN": token}, "--source", "prometheus"
            ).err

    refused = asked("fake-Secret-7f3")
    assert (
        "401" in refused
        and "set INFLUXDB_TOKEN to user:password, or to a bearer token" in refused
        and "Secret" not in refused
    )
    asked("board:fake")
    assert seen == ["Bearer fake-Secret-7f3", "Basic " + base64.b64encode(b"board:fake").decode()]
