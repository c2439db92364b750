"""The renewal board in a browser: what an administrator sees of the fleet."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from support.board import (
    COLUMNS,
    IMAGE_NAME,
    RENEWED,
    SCRIPT_NAME,
    STRANGE_HOST,
    FleetSettings,
    PageOpener,
    run_board,
    store,
    visible_cards,
)
from support.buckets import Bucket
from support.points import certbot_run, certificate_state
from tools.demo_fleet import NO_RECORD
from tools.servers.lineages import DAY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


def card_of(page: Page, lineage: str) -> Locator:
    """Return the card of a lineage."""
    return page.locator(f".card[data-name='{lineage}']")


def aria_label(locator: Locator) -> str:
    """Return what a screen reader says of a picture."""
    return locator.get_attribute("aria-label") or ""


def focus_by_keyboard(page: Page, element_id: str) -> None:
    """Press Tab until an element has the focus, at most 20 times."""
    page.keyboard.press("Tab")
    for _ in range(20):
        if page.evaluate("document.activeElement.id") == element_id:
            break
        page.keyboard.press("Tab")


# ---- What stands where -------------------------------------------------------------------------
def test_each_certificate_is_in_its_column(open_page: PageOpener) -> None:
    page = open_page()
    assert {column: set(visible_cards(page, column)) for column in COLUMNS} == COLUMNS
    assert len(visible_cards(page, "renewed")) == RENEWED


def test_each_column_has_the_number_of_its_cards(open_page: PageOpener) -> None:
    page = open_page()
    expected = {column: str(len(names)) for column, names in COLUMNS.items()}
    expected["renewed"] = str(RENEWED)
    counts = {column: page.locator(f".{column} .count").inner_text() for column in expected}
    assert counts == expected


def test_hosts_with_a_problem_and_dry_runs_are_on_the_page(open_page: PageOpener) -> None:
    page = open_page()
    titles = [title.inner_text().splitlines()[0] for title in page.locator(".hosts h3").all()]
    assert titles == ["db1 silent", "web2 failing"]
    dry_runs = page.locator(".dry-runs").inner_text()
    assert re.search(r"web2: dry run at .* UTC, 1 certificate, failed: example.net", dry_runs)


@pytest.mark.parametrize(
    "part",
    [
        "63 days old",
        "overdue by 2.6 days",
        "not renewed in the last certbot run",
        "also failed: intranet.example.net old.example.net",
        f"reason: {NO_RECORD}",
    ],
)
def test_a_card_says_what_is_wrong(open_page: PageOpener, part: str) -> None:
    assert part in card_of(open_page(), "example.net").inner_text()


def test_a_card_shows_its_life_and_its_renewals(open_page: PageOpener) -> None:
    page = open_page()
    card = card_of(page, "example.net")
    life = aria_label(card.locator(".life"))
    assert re.search(r"Began .*, due .*, expires .*, 71 percent of the lifetime", life)
    assert re.search(r"Renewed 4 times since", aria_label(card.locator(".dots")))
    old_dots = card_of(page, "old.example.net").locator(".dots")
    assert "10.0 days late" in aria_label(old_dots)


def test_a_card_unfolds_to_its_names_and_to_the_commands_to_try(open_page: PageOpener) -> None:
    card = card_of(open_page(), "example.net")
    card.locator("summary").click()
    text = card.inner_text()
    assert "Test whether certbot can renew it:\ncertbot renew --cert-name example.net" in text
    assert "www.example.net" in card.inner_text()


def test_a_card_of_a_staging_ca_has_a_label(open_page: PageOpener) -> None:
    page = open_page()
    assert card_of(page, "test.example.net").locator(".staging").inner_text() == "staging"
    assert page.locator(".staging").count() == 1


def test_a_card_says_what_was_not_delivered(open_page: PageOpener) -> None:
    card = card_of(open_page(), "mail.example.org")
    assert "not delivered to smtp2" in card.inner_text()


def test_with_many_hosts_in_trouble_the_certificates_are_near_the_top(
    one_bucket: Bucket, open_page: PageOpener, tmp_path: Path
) -> None:
    now = int(time.time())
    path = tmp_path / "board.html"
    failed = " ".join(f"c{number}.example.com" for number in range(60))
    hosts = [f"host{number}" for number in range(30)] + ["h" * 200, "upside\u202edown"]
    runs = [certbot_run(host, now, failed=failed, exit_status=1) for host in hosts]
    store(one_bucket, *runs, certificate_state("a", now + DAY, host=hosts[-1]))
    assert run_board(one_bucket.settings, "--html", str(path)).status == 0

    page = open_page(path, viewport={"width": 1280, "height": 1000})
    assert page.locator(".board").bounding_box()["y"] < 1000  # type: ignore[index]
    page.locator(".hosts > details > summary").click()
    assert page.locator(".host:visible").count() == 32
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert "upside?down" in page.inner_text("main")


# ---- Filter and order --------------------------------------------------------------------------
def test_the_filter_finds_a_name_and_needs_the_keyboard_only(open_page: PageOpener) -> None:
    page = open_page()
    focus_by_keyboard(page, "q")
    page.keyboard.type("STATIC example")  # a name of the certificate, in another case
    assert visible_cards(page, "renewed") == ["example.com on web1"]
    assert page.locator("#shown").inner_text() == "1 certificate"
    assert page.locator(".overdue .count").inner_text() == "0"


def test_the_filter_by_host_and_state_is_that_of_the_history_too(open_page: PageOpener) -> None:
    page = open_page()
    page.locator("#host").select_option("mail")
    page.locator("#state").select_option("failing")
    assert visible_cards(page, "failing") == ["mail.example.org on mail"]
    assert not page.locator(".renewed").is_visible()
    assert page.locator("#history tr").count() == int(page.locator("#rows").inner_text()) > 0
    hosts = page.locator("#history td:nth-child(2)").all()
    assert {host.inner_text() for host in hosts} == {"mail"}


def test_the_filter_is_in_the_pages_address(open_page: PageOpener, board_file: Path) -> None:
    page = open_page()
    page.locator("#host").select_option("mail")
    page.locator("#state").select_option("failing")
    again = open_page(fragment=page.url.partition(str(board_file))[2])
    assert again.locator("#host").input_value() == "mail"
    assert again.locator("#state").input_value() == "failing"
    assert visible_cards(again, "failing") == ["mail.example.org on mail"]


def test_cards_are_sorted_as_selected(open_page: PageOpener) -> None:
    page = open_page(fragment="#sort=name")
    renewed = visible_cards(page, "renewed")
    assert renewed == sorted(renewed)
    page.locator("#sort").select_option("age")
    assert visible_cards(page, "renewed")[0] == "blog.example.com on web1"
    page.locator("#sort").select_option("")
    by_due_date = visible_cards(page, "renewed")
    assert by_due_date[:2] == ["webmail.example.org on mail", "status.example.com on web1"]


# ---- The history -------------------------------------------------------------------------------
def test_the_download_has_the_rows_that_csv_prints(
    open_page: PageOpener, fleet_settings: FleetSettings
) -> None:
    page = open_page()
    with page.expect_download() as download:
        page.locator("#csv").click()
    downloaded = Path(download.value.path()).read_bytes().decode()
    printed = run_board(fleet_settings("influxd-1.12"), "--csv").out
    assert downloaded == printed
    rows = list(csv.DictReader(io.StringIO(printed, newline="")))
    assert len(rows) == 73
    assert page.locator("#history tr").count() == len(rows)


# ---- Names that attack -------------------------------------------------------------------------
def test_a_name_with_html_in_it_is_text(open_page: PageOpener) -> None:
    page = open_page()
    assert page.title() == "Certificates: 2 overdue"
    card = page.locator(".card", has_text="onerror")
    assert card.locator("h3").text_content() == IMAGE_NAME
    assert card.get_attribute("data-host") == STRANGE_HOST.name
    assert SCRIPT_NAME in (card.locator(".names").text_content() or "")
    assert page.locator("img").count() == 0


def test_a_reason_with_html_in_it_is_text(
    one_bucket: Bucket, open_page: PageOpener, tmp_path: Path
) -> None:
    now = int(time.time())
    path = tmp_path / "board.html"
    run = certbot_run(
        "web1", now, failed="a", failures=f"a: {SCRIPT_NAME}", failure=IMAGE_NAME, exit_status=1
    )
    store(
        one_bucket,
        certificate_state("a", now + DAY, run_at=now),
        certificate_state("b", now - 2 * DAY, run_at=now, failure=IMAGE_NAME),
        run,
    )
    assert run_board(one_bucket.settings, "--html", str(path)).status == 1

    page = open_page(path)
    assert page.title() == "Certificates: 1 overdue"
    assert card_of(page, "a").locator(".reason").inner_text() == f"reason: {SCRIPT_NAME}"
    assert card_of(page, "b").locator(".reason").inner_text() == f"reason: {IMAGE_NAME}"
    assert IMAGE_NAME in page.locator(".host").inner_text()
    assert page.locator("img").count() == 0


# ---- How it can be used ------------------------------------------------------------------------
def test_a_page_that_is_not_replaced_any_more_says_so(open_page: PageOpener) -> None:
    page = open_page()
    assert page.locator("#stale").inner_text() == ""
    page.clock.set_fixed_time(time.time() + 3 * 3600)
    page.reload()
    page.wait_for_selector("header.stale")
    assert "This page is 3 hours old. Check that" in page.locator("#stale").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(open_page: PageOpener, scheme: str) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": 390, "height": 844})
    page.evaluate("for (const element of document.querySelectorAll('details')) element.open = true")
    violations = Axe().run(page).response["violations"]
    serious = [one["id"] for one in violations if one["impact"] in ("serious", "critical")]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_page_can_be_printed(open_page: PageOpener) -> None:
    page = open_page()
    page.emulate_media(media="print")
    assert not page.locator("#filter").is_visible()
    assert len(page.pdf()) > 10_000
    background = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    assert background == "rgb(255, 255, 255)"


# ---- Without a report --------------------------------------------------------------------------
def test_without_a_report_the_page_says_what_to_do(
    one_bucket: Bucket, browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "board.html"
    run = run_board(one_bucket.settings, "--html", str(path))
    assert run.status == 2
    assert "no certificate was reported to" in run.err
    assert "--check" in run.err

    page = browser.new_page()
    page.goto(f"file://{path}")
    text = page.inner_text("main")
    page.close()
    assert "No report yet" in text
    assert "certbot_renewal_report.py --check" in text
    hooks = "/etc/letsencrypt/renewal-hooks"
    assert f"install -m 755 certbot_renewal_report.py {hooks}/deploy/" in text
    assert f"install -m 755 certbot_renewal_run.py {hooks}/post/" in text
