"""What the real certbot decides about each lineage, as the reports of its host tell it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import certbot_renewal_report
from support.buckets import Bucket
from support.hooks import next_second
from support.points import HOUR, failure_of
from tools.servers.certbot import (
    Authority,
    Certbot,
    distribution_certbot,
    start_pebble_with_ari,
)
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, install_run_report
from tools.servers.processes import wait_for

DUE_NOW = "renew_before_expiry = 3650 days\n"  # more than the lifetime
WEAK_KEY = "key_type = rsa\nrsa_key_size = 512"  # certbot refuses to make it


class Host(NamedTuple):
    """The host web1: a certbot with all hooks, which report into a bucket."""

    certbot: Certbot
    bucket: Bucket

    def issue(self, *lineages: str) -> None:
        """Issue the first certificates of lineages."""
        for lineage in lineages:
            issued = self.certbot.issue(lineage, f"{lineage}.example.com")
            assert issued.returncode == 0, issued.stdout

    def conf(self, lineage: str) -> Path:
        """Return the path of a renewal configuration."""
        return self.certbot.folder / "renewal" / f"{lineage}.conf"

    def change_conf(self, lineage: str, old: str, new: str) -> None:
        """Change a text in a renewal configuration."""
        text = self.conf(lineage).read_text()
        assert old in text
        self.conf(lineage).write_text(text.replace(old, new, 1))

    def make_due(self, *lineages: str) -> None:
        """Make certbot find lineages due in each run."""
        for lineage in lineages:
            self.conf(lineage).write_text(DUE_NOW + self.conf(lineage).read_text())

    def make_failing(self, *lineages: str) -> None:
        """Make lineages due, and their renewal impossible."""
        self.make_due(*lineages)
        for lineage in lineages:
            self.change_conf(lineage, "key_type = ecdsa", WEAK_KEY)

    def run_certbot(self, arguments: str = "") -> dict[str, str]:
        """Run certbot and the run report, as a timer does; return the fields of the run point."""
        next_second()  # the points of two reports are two points
        renew = f"certbot -q renew --no-random-sleep-on-renew {arguments}"
        run_report = "/etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py --all"
        self.certbot.shell(f"{renew}; EXIT_STATUS=$? {run_report}")
        return self.bucket.runs()[-1]

    def report_by_hand(self) -> dict[str, str]:
        """Send a run report without a run of certbot; return the fields of the run point."""
        next_second()
        self.certbot.shell("/etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py --all")
        return self.bucket.runs()[-1]

    def change_record(self, **values: object) -> None:
        """Change what the programs remember of this host."""
        path = self.certbot.folder / certbot_renewal_report.KNOWN_FILE
        records = json.loads(path.read_text())
        records["web1"].update(values)
        path.write_text(json.dumps(records))


@pytest.fixture(params=["newest", "distribution"])
def host(
    request: pytest.FixtureRequest,
    server: Callable[[str], InfluxDB],
    authority: Authority,
    tmp_path: Path,
) -> Host:
    """A host with the newest certbot, and one with that of the distribution."""
    host = make_host(server("influxd-1.12"), authority, tmp_path)
    if request.param == "distribution":
        host.certbot.program = distribution_certbot()
    return host


def make_host(influxdb: InfluxDB, authority: Authority, folder: Path) -> Host:
    """Make a host with the newest certbot, and no lineage."""
    bucket = Bucket(influxdb)
    certbot = Certbot(folder / "letsencrypt", authority)
    install_run_report(certbot.folder)
    certbot.settings({**bucket.settings, "HOSTNAME": "web1"})
    return Host(certbot, bucket)


# ---- Runs --------------------------------------------------------------------------------------
def test_a_run_is_reported_with_the_result_of_each_lineage(host: Host) -> None:
    host.issue("due", "failing", "fine")
    host.make_due("due")
    host.make_failing("failing")
    before = time.time()
    run = host.run_certbot()
    assert (run["succeeded"], run["not_due"], run["failed"]) == ("due", "fine", "failing")
    assert run["failures"] == "failing: Unsupported RSA key length: 512"
    assert (run["exit_status"], run["failed_count"], run["failing"]) == ("1", "1", "1")
    assert run["mode"] == "renew"
    assert before - 1 <= int(run["started_at"]) <= time.time()
    version = host.certbot.shell("certbot --version").stdout.split()[-1]
    assert run["certbot"] == version


def test_the_state_of_a_lineage_has_the_reason_and_is_due_since_the_first_failed_attempt(
    host: Host,
) -> None:
    host.issue("failing")
    host.make_failing("failing")
    host.run_certbot()
    first_due = host.bucket.state_of("failing")["renewal_due"]
    assert time.time() - 60 < first_due <= time.time()
    assert failure_of(host.bucket.points(), "failing") == "Unsupported RSA key length: 512"

    host.run_certbot()
    assert host.bucket.state_of("failing")["renewal_due"] == first_due

    host.change_conf("failing", WEAK_KEY, "key_type = ecdsa")
    run = host.run_certbot()
    assert (run["succeeded"], run["failing"]) == ("failing", "0")
    assert failure_of(host.bucket.points(), "failing") == "none"


def test_each_further_lineage_that_fails_is_a_further_step_of_the_incident(host: Host) -> None:
    host.issue("a", "b")
    host.make_failing("a")
    assert host.run_certbot()["failing"] == "1"
    assert host.run_certbot()["failing"] == "1"
    host.make_failing("b")
    run = host.run_certbot()
    assert (run["failing"], run["steps"], run["failed"]) == ("2", "2", "a b")
    host.change_conf("a", WEAK_KEY, "key_type = ecdsa")
    assert host.run_certbot()["failing"] == "2"
    host.change_conf("b", WEAK_KEY, "key_type = ecdsa")
    run = host.run_certbot()
    assert (run["failing"], run["steps"]) == ("0", "2")


def test_a_run_for_another_lineage_does_not_hide_a_failure(host: Host) -> None:
    host.issue("failing", "fine")
    host.make_failing("failing")
    host.certbot.shell("certbot -q renew --no-random-sleep-on-renew --cert-name failing")
    run = host.run_certbot("--cert-name fine")
    assert (run["failed"], run["failing"]) == ("failing", "1")
    run = host.run_certbot("--cert-name fine")
    assert (run["failed"], run["failing"]) == ("failing", "1")


def test_a_report_by_hand_does_not_change_the_result_of_the_last_run(host: Host) -> None:
    host.issue("failing")
    host.make_failing("failing")
    host.run_certbot()
    run = host.report_by_hand()
    assert (run["failed"], run["failing"]) == ("failing", "1")
    assert "mode" not in run


@contextlib.contextmanager
def running_certbot(host: Host) -> Iterator[None]:
    """Hold the lock that a running certbot holds."""
    with (host.certbot.folder / ".certbot.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def test_another_running_certbot_is_a_failure_only_after_a_day(host: Host) -> None:
    host.issue("fine")
    host.run_certbot()
    with running_certbot(host):
        run = host.run_certbot()
        assert run["failure"] == "Another instance of Certbot is already running."
        assert (run["exit_status"], run["failing"]) == ("1", "0")
        host.change_record(locked_since=int(time.time()) - DAY)
        assert host.run_certbot()["failing"] == "1"
    run = host.run_certbot()
    assert (run["failing"], "failure" in run) == ("0", False)


# ---- The post hook -----------------------------------------------------------------------------
def test_the_post_hook_reports_failures_and_reasons_at_once(host: Host) -> None:
    host.issue("failing", "fine")
    host.make_failing("failing")
    next_second()
    host.certbot.renew()
    run = host.bucket.runs()[-1]
    assert run["failures"] == "failing: Unsupported RSA key length: 512"
    assert (run["failing"], run["exit_status"]) == ("1", "-1")
    assert "reported_at" not in run  # it does not prove that certbot runs regularly


def test_after_a_dry_run_the_post_hook_reports_only_its_results(host: Host) -> None:
    host.issue("failing", "fine")
    host.make_failing("failing")
    runs_before = host.bucket.runs()
    points_before = host.bucket.points()
    next_second()
    host.certbot.renew("--dry-run")
    assert host.bucket.runs() == runs_before
    new = {point[1:] for point in host.bucket.points() - points_before}
    tags = ("domain=all", "host=web1")
    assert new == {
        ("dry_run_failed", "0", *tags, "lineage=fine"),
        ("dry_run_error", "none", *tags, "lineage=fine"),
        ("dry_run_failed", "1", *tags, "lineage=failing"),
        ("dry_run_error", "Unsupported RSA key length: 512", *tags, "lineage=failing"),
    }


def test_a_dry_run_is_no_run_of_certbot(host: Host) -> None:
    host.issue("failing")
    host.make_failing("failing")
    host.certbot.renew("--dry-run")
    run = host.report_by_hand()
    assert (run["failed_count"], run["failing"]) == ("0", "0")


# ---- Broken, deleted, switched off -------------------------------------------------------------
def test_an_unreadable_lineage_is_reported_with_certbots_own_reason(host: Host) -> None:
    host.issue("broken", "fine")
    host.change_conf("broken", "authenticator = manual\n", "")
    run = host.run_certbot()
    assert (run["unreadable"], run["failing"]) == ("broken", "1")
    assert "authenticator" in run["failures"]
    assert host.run_certbot()["certificates"] == "2"


def test_the_reason_of_an_unreadable_lineage_quotes_no_value_of_its_configuration(
    host: Host,
) -> None:
    host.issue("broken", "fine")
    host.change_conf("broken", "[renewalparams]\n", "[renewalparams]\ndns_key = fake-secret\n")
    lines = host.conf("broken").read_text().splitlines(keepends=True)
    host.conf("broken").write_text("".join(line for line in lines if "fullchain" not in line))
    run = host.run_certbot()
    assert run["unreadable"] == "broken"
    assert "missing a required file reference" in run["failures"]
    assert "fake-secret" not in str(host.bucket.points())


def test_a_repaired_lineage_is_readable_before_certbot_has_read_it(host: Host) -> None:
    host.issue("broken", "fine")
    text = host.conf("broken").read_text()
    host.conf("broken").write_text("nonsense")
    assert host.run_certbot()["unreadable"] == "broken"
    next_second()
    host.conf("broken").write_text(text)
    assert host.report_by_hand()["unreadable_count"] == "0"


def test_a_link_to_a_lineage_in_live_is_no_lineage(host: Host) -> None:
    host.issue("fine")
    (host.certbot.folder / "live" / "alias").symlink_to("fine")
    run = host.run_certbot()
    assert (run["certificates"], run["failing"]) == ("1", "0")


def test_a_lineage_whose_configuration_is_renamed_is_retired(host: Host) -> None:
    host.issue("fine", "switched-off")
    host.run_certbot()
    host.conf("switched-off").rename(host.conf("switched-off").with_suffix(".conf.disabled"))
    assert host.run_certbot()["failing"] == "0"
    assert host.bucket.state_of("switched-off")["renewal_due"] == 0


def test_a_deleted_lineage_is_retired_although_its_folder_stays(host: Host) -> None:
    host.issue("fine", "old")
    host.run_certbot()
    (host.certbot.folder / "live" / "old" / "bundle.pem").write_text("somebody else's file")
    deleted = host.certbot.run("delete", "--cert-name", "old")
    assert deleted.returncode == 0, deleted.stdout
    assert (host.certbot.folder / "live" / "old").exists()
    assert host.run_certbot()["failing"] == "0"
    assert host.bucket.state_of("old")["renewal_due"] == 0


def test_the_only_lineage_of_a_host_is_retired_when_certbot_deletes_it(host: Host) -> None:
    host.issue("only")
    host.run_certbot()
    assert host.certbot.run("delete", "--cert-name", "only").returncode == 0
    run = host.run_certbot()
    assert (run["unreadable_count"], run["failing"]) == ("0", "0")
    assert host.bucket.state_of("only")["renewal_due"] == 0


def test_all_lineages_are_unreadable_while_the_volumes_are_not_mounted(host: Host) -> None:
    host.issue("a", "b")
    host.run_certbot()
    for name in ("live", "archive", "renewal"):
        (host.certbot.folder / name).rename(host.certbot.folder / f"{name}.away")
        (host.certbot.folder / name).mkdir()
    run = host.run_certbot()
    assert (run["unreadable"], run["failing"]) == ("a b", "1")
    assert host.bucket.state_of("a")["renewal_due"] > 0


def test_a_certificate_whose_configuration_has_vanished_is_unreadable_until_it_is_retired(
    host: Host,
) -> None:
    host.issue("fine", "lost")
    host.run_certbot()
    host.conf("lost").unlink()
    run = host.run_certbot()
    assert (run["unreadable"], run["failing"]) == ("lost", "1")
    retired = host.certbot.shell(
        "/etc/letsencrypt/renewal-hooks/post/certbot_renewal_run.py --retire lost"
    )
    assert retired.returncode == 0, retired.stdout
    run = host.run_certbot()
    assert (run["unreadable_count"], run["failing"]) == ("0", "0")
    assert host.bucket.state_of("lost")["renewal_due"] == 0


def test_a_lineage_that_certbot_must_not_renew_is_due_late_and_the_reason_is_named(
    host: Host,
) -> None:
    host.issue("manual")
    host.change_conf("manual", "[renewalparams]\n", "[renewalparams]\nautorenew = False\n")
    run = host.run_certbot()
    assert run["failing"] == "0"
    state = host.bucket.state_of("manual")
    assert abs(state["renewal_due"] - (state["not_after"] - 15 * DAY)) <= 1


# ---- The CA's window (ARI) ---------------------------------------------------------------------
LIFETIME = 60  # seconds: due by certbot's own rule after 30


@pytest.fixture
def ari_host(server: Callable[[str], InfluxDB], tmp_path: Path) -> Iterator[Callable[[int], Host]]:
    """Gives a host whose CA says when to renew; the lifetime of certificates is in seconds."""
    with contextlib.ExitStack() as stack:

        def make(lifetime: int) -> Host:
            authority = stack.enter_context(start_pebble_with_ari(tmp_path / "ca", lifetime))
            return make_host(server("influxd-1.12"), authority, tmp_path)

        yield make


def set_window(host: Host, start: int, end: int) -> None:
    """Set the CA's window for the certificate `a`, and let certbot ask for it."""
    certificate = host.certbot.folder / "live" / "a" / "cert.pem"
    host.certbot.authority.set_window(certificate, start, end)
    asked_before = re.compile(r"\[acme_renewal_info\]\n.*", re.DOTALL)
    host.conf("a").write_text(asked_before.sub("", host.conf("a").read_text()))


def test_a_certificate_whose_window_is_late_is_not_due_before_certbot_says_so(
    ari_host: Callable[[int], Host],
) -> None:
    host = ari_host(LIFETIME)
    host.issue("a")
    begin = host.certbot.not_before("a")
    set_window(host, begin + 50, begin + 52)
    wait_for(lambda: time.time() > begin + 35, "the time at which certbot alone would renew")
    run = host.run_certbot()
    assert (run["not_due"], run["failing"]) == ("a", "0")
    assert host.bucket.state_of("a")["renewal_due"] == int(run["started_at"])


def test_a_certificate_that_the_ca_wants_renewed_at_once_is_overdue_after_one_failed_run(
    ari_host: Callable[[int], Host],
) -> None:
    host = ari_host(90 * DAY)
    host.issue("a")
    host.change_conf("a", "key_type = ecdsa", WEAK_KEY)
    now = int(time.time())
    set_window(host, now - HOUR, now - HOUR // 2)
    run = host.run_certbot()
    assert (run["failed"], run["failing"]) == ("a", "1")
    # A day ago, or at the beginning of the certificate if that was later.
    state = host.bucket.state_of("a")
    assert state["renewal_due"] == max(state["not_before"], int(run["started_at"]) - DAY)
