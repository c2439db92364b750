"""What befalls a host with run reports: the real certbot, started by the line for cron, and who gets a mail from the real Kapacitor."""

from __future__ import annotations

import html
import re
import time
from pathlib import Path

import pytest

from support.alerts import HOST_TASKS, make_load_folder, told, wait_for_evaluations
from support.hooks import CRON, RUN_REPORT
from support.points import renewals_of, state, write
from support.servers import Alerting
from tools.servers.certbot import Authority, Certbot
from tools.servers.kapacitor import Kapacitor
from tools.servers.lineages import DAY
from tools.servers.processes import wait_for

ALERTS = ("renewal_overdue", *HOST_TASKS)
CRIT = f"{2 / DAY:.9f}"  # days: 2 seconds after a renewal was due, where lives last for seconds
# One of the two for each: what the queries find on every InfluxDB is test_flux's, what Kapacitor makes of it test_kapacitor's.
ONE = pytest.mark.parametrize("house", ["influxd-1.12"], indirect=True)
TWO = pytest.mark.parametrize("house", ["influxd-2"], indirect=True)


def looked(kapacitor: Kapacitor) -> None:
    """Waits until every alert was judged twice more."""
    wait_for_evaluations(kapacitor, tasks=ALERTS)


def host(
    house: Alerting, tmp_path: Path, authority: Authority, crit: str = "1.0"
) -> tuple[Certbot, str, Kapacitor]:
    """A certbot whose hook reports into a new bucket as web1, that bucket, and a Kapacitor that watches it."""
    influxdb = house.start_influxdb()
    certbot, bucket = Certbot(tmp_path / "letsencrypt", authority), influxdb.new_bucket()
    certbot.settings({**influxdb.settings(bucket), "HOSTNAME": "web1", "INFLUXDB_TIMEOUT": "3"})
    return (
        certbot,
        bucket,
        house.start_kapacitor(make_load_folder(tmp_path, influxdb, bucket, crit, ALERTS)),
    )


@ONE
def test_a_run_that_fails(house: Alerting, tmp_path: Path, authority: Authority) -> None:
    certbot, _, kapacitor = host(house, tmp_path, authority)
    for lineage in ("late", "fine"):
        issued = certbot.issue(lineage, f"{lineage}.example.com", f"www.{lineage}.example.com")
        assert issued.returncode == 0, issued.stdout
    late, fine = (certbot.folder / "renewal" / f"{lineage}.conf" for lineage in ("late", "fine"))
    due = "renew_before_expiry = 3650 days\n"  # from the beginning
    good = {path: path.read_text() for path in (late, fine)}
    certbot.shell(CRON)
    looked(kapacitor)
    assert house.box.mails == []

    late.write_text(
        due + good[late].replace("key_type = ecdsa", "key_type = rsa\nrsa_key_size = 512")
    )
    certbot.shell(CRON)
    assert house.box.read() == "web1: certbot fails, not renewed: late, exit status 1"
    certbot.shell(
        RUN_REPORT
    )  # by hand, as the mail about a silent host advises: it is no run of certbot
    looked(kapacitor)
    late.write_text(due + good[late])
    certbot.shell(CRON)
    assert house.box.read() == "web1: certbot runs well again"

    late.write_text(good[late])
    fine.write_text("# damaged\n")
    certbot.shell(CRON)
    assert house.box.read() == "web1: certbot fails, unreadable: fine, exit status 1"
    fine.write_text(good[fine])
    certbot.shell(CRON)
    assert house.box.read() == "web1: certbot runs well again"
    looked(kapacitor)
    assert house.box.unread() == []
    assert kapacitor.errors() == []


@TWO
def test_a_host_that_certbot_was_not_started_on_and_one_that_is_gone(
    house: Alerting, tmp_path: Path, authority: Authority
) -> None:
    certbot, bucket, kapacitor = host(house, tmp_path, authority)
    certbot.hook.chmod(0o644)  # certbot leaves it out
    assert certbot.issue("example.com", "example.com").returncode == 0
    certbot.hook.chmod(0o755)
    at, due = int(time.time()) - 49 * 3600, int(time.time()) + 50 * DAY
    write(house.influxdb, bucket, state("example.com", due, run_at=at, at=at))
    assert re.fullmatch(
        r"web1: no report of certbot for 2\.0 days, last 20.* UTC of example\.com", house.box.read()
    )
    certbot.shell(CRON)
    assert house.box.read() == "web1: reports again"
    write(
        house.influxdb,
        bucket,
        *(
            state(name, due, host="old-web", run_at=at, at=at)
            for name in ("example.com", "b.example.com")
        ),
    )
    assert re.fullmatch(
        "old-web: no report of certbot for .* of b.example.com example.com", house.box.read()
    )
    (command,) = re.findall(
        r"<code>(/etc/letsencrypt/.* --host .*)</code>", told(house.box, "old-web: ")
    )
    retired = certbot.shell(html.unescape(command))
    assert retired.returncode == 0, retired.stdout
    assert house.box.read() == "old-web: no longer expected to report"
    looked(kapacitor)
    assert house.box.unread() == []


@ONE
def test_a_deploy_hook_whose_report_was_lost(house: Alerting, tmp_path: Path) -> None:
    life = 40
    certbot, bucket, kapacitor = host(house, tmp_path, house.start_pebble(life), CRIT)
    assert certbot.issue("example.com", "example.com").returncode == 0
    first = certbot.not_before("example.com")
    certbot.shell(RUN_REPORT)
    assert time.time() < first + life / 2, "this machine is too slow for this test"
    house.stop("influxdb")
    wait_for(lambda: time.time() > first + life / 2, "the certificate to be due")
    renewed = certbot.renew()
    assert "Hook 'deploy-hook' reported error code 1" in renewed.stdout
    second = certbot.not_before("example.com")
    influxdb = house.start_influxdb()
    wait_for(lambda: time.time() > first + life / 2 + 3, "the moment when it would be overdue")
    looked(kapacitor)
    assert renewals_of(influxdb.points(bucket), "example.com") == {first}
    certbot.shell(CRON)
    assert renewals_of(influxdb.points(bucket), "example.com") >= {first, second}
    looked(kapacitor)
    assert house.box.mails == []


@TWO
def test_a_certificate_that_is_deleted_while_it_is_overdue(house: Alerting, tmp_path: Path) -> None:
    certbot, _, kapacitor = host(house, tmp_path, house.start_pebble(10), CRIT)
    assert certbot.issue("example.com", "example.com").returncode == 0
    begin = certbot.not_before("example.com")
    wait_for(lambda: time.time() > begin + 8, "the renewal to be overdue")
    assert certbot.shell(RUN_REPORT).returncode == 0
    assert re.fullmatch(r"example\.com on web1: not renewed, due since .*", house.box.read())
    assert certbot.run("delete", "--cert-name", "example.com").returncode == 0
    certbot.shell(CRON)
    assert re.fullmatch(r"example\.com on web1: no longer on this host", house.box.read())
    for _ in range(2):
        certbot.shell(CRON)
        looked(kapacitor)
    assert house.box.unread() == []
