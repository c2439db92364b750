"""--after-dry-run: how a dry run went, by what the real certbot prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.buckets import Bucket
from support.lineages import UNREACHABLE
from support.servers import skip_or_fail
from tools.servers.certbot import Authority, Certbot
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import REPORT_HOOK, RUN_REPORT, install
from tools.servers.processes import MissingServer


@pytest.fixture(scope="module", params=["", "/usr/bin/certbot"], ids=["newest", "distribution"])
def issued_certbot(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Certbot:
    """A certbot with a lineage that it can renew, one that the CA refuses, and a broken one.

    No test renews anything, so they share it.
    """
    certbot = Certbot(tmp_path_factory.mktemp("dry-run") / "letsencrypt", authority)
    if request.param and not Path(request.param).exists():
        skip_or_fail(MissingServer("certbot is missing: apt-get install certbot"))
    certbot.program = request.param or certbot.program
    certbot.settings(UNREACHABLE)  # the hook fails at once
    for lineage in ("example.com", "refused", "torn"):
        certbot.issue(lineage, f"{lineage}.example.com")
    refused = certbot.folder / "renewal" / "refused.conf"
    weak_key = "key_type = rsa\nrsa_key_size = 512"
    refused.write_text(refused.read_text().replace("key_type = ecdsa", weak_key))
    (certbot.folder / "renewal" / "torn.conf").write_text("nonsense")
    return certbot


@pytest.fixture
def bucket(server: Callable[[str], InfluxDB]) -> Bucket:
    """An empty bucket."""
    return Bucket(server("influxd-1.12"))


@pytest.fixture
def certbot(issued_certbot: Certbot, bucket: Bucket) -> Certbot:
    """A certbot with three lineages, whose hooks report into the bucket."""
    issued_certbot.settings({**bucket.settings, "HOSTNAME": "web1"})
    return issued_certbot


@pytest.fixture
def after_dry_run(certbot: Certbot, tmp_path: Path) -> str:
    """The command that reports a dry run, not installed as a post hook."""
    folder = tmp_path / "programs"
    install(REPORT_HOOK, folder)
    run_report = install(RUN_REPORT, folder)
    return f"{run_report} --after-dry-run --config-dir {certbot.folder}"


def test_each_lineage_is_reported_with_the_reason_in_certbots_words(
    bucket: Bucket, certbot: Certbot, after_dry_run: str
) -> None:
    done = certbot.shell(f"certbot renew --dry-run 2>&1 | {after_dry_run}")
    assert done.stdout.startswith(
        "dry run of 3 certificates, 2 failed (refused torn): reported to"
    ), done.stdout
    assert {point[1:3] + point[5:] for point in bucket.points()} == {
        ("dry_run_failed", "0", "lineage=example.com"),
        ("dry_run_error", "none", "lineage=example.com"),
        ("dry_run_failed", "1", "lineage=refused"),
        ("dry_run_error", "Unsupported RSA key length: 512", "lineage=refused"),
        ("dry_run_failed", "1", "lineage=torn"),
        ("dry_run_error", "parsefail", "lineage=torn"),
    }


def test_the_output_of_a_real_run_is_refused(
    bucket: Bucket, certbot: Certbot, after_dry_run: str
) -> None:
    out = certbot.shell(f"certbot renew 2>&1 | {after_dry_run}").stdout
    assert "stdin is not the output of a dry run: use certbot renew --dry-run" in out
    assert "(stdin was: Saving debug log" in out
    assert bucket.points() == set()
