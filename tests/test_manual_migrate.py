"""docs/migrate.md: an administrator of the published hook follows it on a throwaway machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.installations import BARE, Host, start_host
from support.manual import read_page
from tools import ROOT

# Reports a renewal as the published hook does: at the time of the report.
OLD_HOOK = """#!/bin/sh
sleep 1.1
curl -fsS 'https://influx.example.com:8086/api/v2/write?org=example-org&bucket=certbot' \\
    -H 'Authorization: Token {token}' \\
    --data-binary 'certbot_renewal,domain=example.com,host=web1 renewed_count=1'
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the published hook."""
    with start_host(tmp_path_factory.mktemp("machine")) as host:
        host.restore(BARE)
        hook = "/etc/letsencrypt/renewal-hooks/deploy/old_hook.py"
        host.machine.write(hook, OLD_HOOK.format(token=host.token))
        host.machine.run(f"chmod 755 {hook}")
        host.machine.run("certbot -q renew --force-renewal --cert-name example.com")
        yield host


def series_of_the_name(host: Host) -> set[tuple[str, ...]]:
    """Return the renewals of the name example.com: time and tags."""
    return {
        (point[0], *point[3:])
        for point in host.points()
        if point[1] == "renewed_count" and "domain=example.com" in point
    }


def test_the_new_hook_continues_the_series_of_the_old_one(host: Host) -> None:
    old = series_of_the_name(host)
    assert len(old) == 1
    host.follow("install.md", "On a host")
    host.follow("migrate.md", "Steps")
    host.machine.run("certbot -q renew --force-renewal --cert-name example.com")

    new = series_of_the_name(host) - old
    assert len(new) == 2  # the certificate of the old hook at its notBefore, and the renewal
    assert {point[1:] for point in new} == {point[1:] for point in old}


def test_the_alert_for_data_of_the_published_hook_is_there() -> None:
    page = read_page("migrate.md")
    example = "kapacitor/tasks/renewal_overdue_domains.yaml.example"
    assert f"`{example}`" in page
    assert (ROOT / example).exists()
