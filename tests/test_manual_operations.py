"""docs/operations.md: an administrator follows it on a throwaway machine."""

from __future__ import annotations

import json
import re

import pytest

import certbot_renewal_deliver as deliver
import certbot_renewal_report as hook
import certbot_renewal_run as run
from support.installations import INSTALLED, RUN_REPORT, Host
from support.manual import read_page
from support.points import run_points, state_of

RETIRED_HOST = "old-web"


@pytest.fixture
def host(running_host: Host) -> Host:
    """A host with run reports."""
    running_host.restore(INSTALLED)
    running_host.machine.run(f"{RUN_REPORT} --all")
    return running_host


def test_a_certificate_is_retired_by_the_next_run_report(host: Host) -> None:
    host.machine.run("certbot delete --non-interactive --cert-name www.example.net")
    assert host.state_of("www.example.net")["renewal_due"] > 0
    host.machine.run(f"sleep 1; {RUN_REPORT} --all")
    assert host.state_of("www.example.net")["renewal_due"] == 0


def test_a_certificate_is_retired_by_hand(host: Host) -> None:
    host.machine.run("sleep 1")
    host.follow("operations.md", "Retire a certificate")
    assert host.state_of("www.example.net")["renewal_due"] == 0
    assert host.state_of("example.com")["renewal_due"] > 0


def test_a_certificate_that_certbot_has_is_not_retired(host: Host) -> None:
    refused = host.machine.run(f"{RUN_REPORT} --retire www.example.net", may_fail=True)
    assert "www.example.net is still on this host" in refused


def test_another_host_is_retired(host: Host) -> None:
    host.follow("operations.md", "Retire a host")
    retired = {point for point in host.points() if f"host={RETIRED_HOST}" in point}
    (run,) = run_points(retired)
    assert (run["retired"], run["reported_at"], run["failing"]) == ("1", "0", "0")
    assert state_of(retired, "example.com")["renewal_due"] == 0
    lineages = {tag for point in retired for tag in point if tag.startswith("lineage=")}
    assert lineages == {"lineage=example.com"}


def test_a_host_with_another_name_reports_under_that_name(host: Host) -> None:
    host.machine.run("echo HOSTNAME=new-web >>/etc/letsencrypt/certbot_renewal_report.env")
    host.follow("operations.md", "Rename a host")
    assert any("host=new-web" in point for point in host.points())


@pytest.mark.parametrize(
    "section", ["Move to another bucket or server", "Renewals from before the installation"]
)
def test_an_empty_bucket_gets_the_state_and_the_older_renewals(host: Host, section: str) -> None:
    for _ in range(2):
        host.machine.run("certbot -q renew --force-renewal --cert-name example.com")
    host.empty_bucket()
    host.follow("operations.md", section)
    assert host.state_of("example.com")["run_at"] > 0
    assert len(host.renewals_of("example.com")) == 3


def test_the_table_of_files_is_what_the_programs_keep() -> None:
    rows = re.findall(r"(?m)^\| `(\.?certbot_renewal_\w+\.\w+)` \|", read_page("operations.md"))
    assert rows == [
        hook.ENV_FILE,
        hook.KNOWN_FILE,
        run.TURN_FILE,
        deliver.TOML_FILE,
        hook.DELIVERY_STATE_FILE,
        deliver.LOCK_FILE,
    ]


def known_certificates(known_file: str) -> dict[str, int]:
    """Return notBefore of the certificates in the file, by lineage."""
    verdicts = json.loads(known_file)["web1"]["verdicts"]
    return {lineage: verdict["not_before"] for lineage, verdict in verdicts.items()}


def test_the_lost_file_of_known_certificates_is_made_again(host: Host) -> None:
    known_file = f"/etc/letsencrypt/{hook.KNOWN_FILE}"
    known = known_certificates(host.machine.read(known_file))
    assert set(known) == {"example.com", "www.example.net"}
    host.machine.run(f"rm {known_file} && {RUN_REPORT} --all")
    assert known_certificates(host.machine.read(known_file)) == known
