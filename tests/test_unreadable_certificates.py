"""A renewal of which certbot, or the disk, gives less than it should: what is known is reported."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hooks import Ran
from support.renewals import MOCKED_URL, Renewal, renew, sent_lines, storing_influxdb
from support.users import as_nobody, let_everybody_enter

Hook = Callable[..., Ran]

# The fields of a renewal whose certificate could not be read.
FIELDS = 'renewed_count=2,lifetime=0i,due_after=0i,names="example.com www.example.com"'


@pytest.fixture
def renewal(certbot_folder: Path) -> Renewal:
    """A certificate that certbot has renewed."""
    return renew(certbot_folder, names=["example.com", "www.example.com"])


def report(report_hook: Hook, environ: dict[str, str]) -> tuple[Ran, list[str]]:
    """Report to an InfluxDB that stores everything; return how that went, and the lines sent."""
    with storing_influxdb() as influxdb:
        ran = report_hook(**environ, INFLUXDB_URL=MOCKED_URL)
        return ran, sent_lines(influxdb)


# ---- The certificate ---------------------------------------------------------------------------
def remove_folder(live: Path) -> None:
    """Remove the lineage's folder in live/."""
    shutil.rmtree(live)


def remove_link(live: Path) -> None:
    """Remove the link to the certificate."""
    (live / "cert.pem").unlink()


def remove_from_archive(live: Path) -> None:
    """Remove the file to which the link leads."""
    (live / "cert.pem").resolve().unlink()


def write_other_text(live: Path) -> None:
    """Write what is no certificate."""
    (live / "cert.pem").resolve().write_text("this is no certificate")


def cut_off(live: Path) -> None:
    """Cut off the certificate, as a full disk does."""
    path = (live / "cert.pem").resolve()
    path.write_bytes(path.read_bytes()[:200])


def put_folder(live: Path) -> None:
    """Put a folder in the place of the certificate."""
    (live / "cert.pem").unlink()
    (live / "cert.pem").mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove_folder, "No such file or directory"),
        (remove_link, "No such file or directory"),
        (remove_from_archive, "No such file or directory"),
        (write_other_text, "not a certificate"),
        (cut_off, "not a certificate"),
        (put_folder, "not a certificate"),
    ],
)
def test_a_renewal_is_reported_by_its_names_if_the_certificate_cannot_be_read(
    report_hook: Hook, renewal: Renewal, damage: Callable[[Path], None], reason: str
) -> None:
    damage(renewal.live_folder)
    before = int(time.time())
    ran, lines = report(report_hook, renewal.environ)
    assert [line.rpartition(" ")[0] for line in lines] == [
        f"certbot_renewal,domain=all,host=web1,lineage=example.com {FIELDS}",
        "certbot_renewal,domain=example.com,host=web1 renewed_count=1",
        "certbot_renewal,domain=www.example.com,host=web1 renewed_count=1",
    ]
    times = [int(line.rpartition(" ")[2]) for line in lines]
    assert all(before <= moment <= time.time() for moment in times)
    assert ran.status == 1
    assert f"cert.pem: {reason}: check the certificate as root" in ran.err
    assert "(the renewal is reported with the current time, without a state)" in ran.err


def test_a_certificate_that_the_user_may_not_read(
    report_hook: Hook, renewal: Renewal, certbot_folder: Path
) -> None:
    (renewal.live_folder / "cert.pem").resolve().chmod(0)
    let_everybody_enter(certbot_folder)
    ran = as_nobody(lambda: report_hook("--dry-run", **renewal.environ))
    assert ran.status == 1
    remedy = "check the certificate as root with: certbot certificates"
    assert f"cert.pem: Permission denied: {remedy}" in ran.err
    assert "domain=www.example.com" in ran.out


# ---- certbot's variables -----------------------------------------------------------------------
@pytest.mark.parametrize("names", [{}, {"RENEWED_DOMAINS": ""}, {"RENEWED_DOMAINS": "  "}])
def test_without_names_the_names_of_the_certificate_are_reported(
    report_hook: Hook, renewal: Renewal, names: dict[str, str]
) -> None:
    environ = {"RENEWED_LINEAGE": str(renewal.live_folder), **names}
    ran, lines = report(report_hook, environ)
    assert any("domain=www.example.com" in line for line in lines)
    assert ran.status == 1
    remedy = "to start the hook by hand, use certbot_renewal_report.py --check"
    problem = "RENEWED_DOMAINS is empty or not set, but certbot sets it for a deploy hook"
    assert f"{problem}: {remedy} (the names of the certificate are reported)" in ran.err


def test_without_a_lineage_the_names_are_reported(report_hook: Hook, renewal: Renewal) -> None:
    ran, lines = report(report_hook, {"RENEWED_DOMAINS": " ".join(renewal.names)})
    assert lines[0].startswith(f"certbot_renewal,domain=all,host=web1 {FIELDS} ")
    assert ran.status == 1
    assert "RENEWED_LINEAGE is empty or not set" in ran.err
