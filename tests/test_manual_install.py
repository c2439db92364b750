"""docs/install.md: an administrator follows it on a throwaway machine."""

from __future__ import annotations

import re

import pytest

from support.installations import BARE, INSTALLED, LINEAGES, RUN_REPORT, Host
from support.manual import read_page
from tools import ROOT

REPORT_HOOK = "/etc/letsencrypt/renewal-hooks/deploy/certbot_renewal_report.py"


@pytest.fixture
def host(running_host: Host) -> Host:
    """A host with certbot alone."""
    running_host.restore(BARE)
    return running_host


@pytest.fixture
def installed(running_host: Host) -> Host:
    """A host on which the steps of "On a host" are done."""
    running_host.restore(INSTALLED)
    return running_host


def test_on_a_host_the_certificates_are_reported_and_certbot_reports_the_next_renewal(
    host: Host,
) -> None:
    host.follow("install.md", "On a host")
    assert all(host.state_of(lineage)["renewal_due"] > 0 for lineage in LINEAGES)
    mode = host.machine.run("stat -c %a /etc/letsencrypt/certbot_renewal_report.env")
    assert mode == "600\n"

    renewed = host.machine.run("certbot renew --force-renewal --cert-name example.com")
    assert "example.com renewed" in renewed
    assert "Hook 'deploy-hook' reported error" not in renewed


def test_in_a_container_the_certificates_are_reported_under_the_name_of_the_env_file(
    installed: Host,
) -> None:
    installed.machine.run("hostname 0123456789ab")
    installed.follow("install.md", "In a container")
    hosts = {tag for point in installed.points() for tag in point if tag.startswith("host=")}
    assert hosts == {"host=web1"}


def test_a_hook_that_is_not_executable_is_found_only_through_python3(installed: Host) -> None:
    machine = installed.machine
    machine.run(f"chmod 644 {REPORT_HOOK}")
    assert "Permission denied" in machine.run(f"{REPORT_HOOK} --check", may_fail=True)
    checked = machine.run(f"python3 {REPORT_HOOK} --check", may_fail=True)
    assert "is not executable, so certbot ignores it: chmod 755" in checked.splitlines()[-1]


def test_an_update_replaces_both_programs_and_keeps_the_settings(installed: Host) -> None:
    for program in (REPORT_HOOK, RUN_REPORT):
        installed.machine.run(f"sed -i 's/^__version__ = .*/__version__ = \"0.0.1\"/' {program}")
    installed.follow("install.md", "Update")
    version = installed.machine.run(f"{RUN_REPORT} --version")
    assert not version.endswith(" 0.0.1\n")


def test_after_an_uninstall_nothing_is_left_and_no_certificate_is_awaited(installed: Host) -> None:
    installed.follow("run-reports.md", "Debian and Ubuntu")
    installed.follow("install.md", "Uninstall")
    assert not installed.exists("/etc/letsencrypt/renewal-hooks/*/*renewal*")
    assert not installed.exists("/etc/letsencrypt/*renewal_*")
    assert not installed.exists("/etc/systemd/system/certbot.service.d/*")
    assert not installed.exists("/root/retire")
    assert all(installed.state_of(lineage)["renewal_due"] == 0 for lineage in LINEAGES)

    runs = len(installed.runs())
    installed.machine.run("systemctl start certbot.service")
    assert len(installed.runs()) == runs


def test_the_requirements_are_those_of_the_package() -> None:
    package = (ROOT / "pyproject.toml").read_text()
    requirements = read_page("install.md")
    (python,) = re.findall(r'requires-python = ">=(.*)"', package)
    (requests,) = re.findall(r'"requests>=(.*)"\]', package)
    assert f"| Python | {python} or later" in requirements
    assert f"| requests | {requests} or later" in requirements
