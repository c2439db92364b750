"""docs/settings.md has the settings, the options and the output of the programs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import responses

import certbot_renewal_report as hook
from support.certbot_logs import quiet_run, write_log
from support.documents import options_of_help, rows_of
from support.hooks import Ran
from support.manual import all_blocks, assert_output, read_page
from support.renewals import renew
from tools.servers.lineages import DAY, install_run_report

PAGE = read_page("settings.md")


# ---- Settings ----------------------------------------------------------------------------------
def test_the_settings_are_those_of_the_code() -> None:
    documented = {}
    for name, default, meaning in rows_of(PAGE, "Settings", "| setting | default | meaning |"):
        documented[name] = (default.replace("empty", ""), meaning)
    settings = {}
    for name, setting in hook.SETTINGS.items():
        settings[name] = (setting.default, setting.meaning)
    assert documented == settings


def test_the_page_names_the_variables_that_requests_reads() -> None:
    for name in hook.FORWARDED_VARIABLES:
        assert f"`{name}`" in PAGE


def test_the_example_of_an_env_file_is_valid(env_file: Path) -> None:
    (example,) = [block for block in all_blocks(PAGE) if block.language == "ini"]
    env_file.write_text(example.text)
    settings = hook.read_settings({}, str(env_file.parent), "")
    assert (settings.bucket, settings.org, settings.token) == ("certs", "example-org", "fake-token")


def test_the_settings_for_each_server_are_valid(env_file: Path) -> None:
    rows = rows_of(PAGE, "Settings for each server", "| server | settings |")
    assert len(rows) > 5
    for _, settings in rows:
        for name in re.findall(r"[A-Z]+_[A-Z]+", settings):
            assert name in hook.SETTINGS
        env_file.write_text("\n".join(re.findall(r"[A-Z]+_[A-Z]+=[^\s,;]+", settings)))
        hook.read_settings({}, str(env_file.parent), "")


# ---- Commands ----------------------------------------------------------------------------------
def documented_options(program: str) -> set[str]:
    """Return the options in the tables of commands that are those of a program."""
    rows = re.findall(rf"(?m)^\| `{program}\.py .*", PAGE)
    return set(re.findall(r"--[a-z-]+", " ".join(row.split(" | ")[0] for row in rows)))


def test_the_options_of_the_report_hook_are_those_of_its_help(
    report_hook: Callable[..., Ran],
) -> None:
    options = options_of_help(report_hook("--help").out)
    assert options == {"--help", "--version", "--config-dir", "--check", "--dry-run"}
    assert documented_options("certbot_renewal_report") == options


def test_the_options_of_the_run_report_are_those_of_its_help(
    run_report: Callable[..., Ran],
) -> None:
    options = options_of_help(run_report("--help").out)
    assert options == {
        "--help",
        "--version",
        "--config-dir",
        "--check",
        "--dry-run",
        *hook.RUN_REPORT_OPTIONS,
    }
    assert documented_options("certbot_renewal_run") == options


# ---- --check -----------------------------------------------------------------------------------
def texts_of_page() -> list[str]:
    """Return the outputs on the page: of the report hook, and lines of the run report."""
    return [block.text for block in all_blocks(PAGE) if block.language == "text"]


def test_check_prints_what_the_page_shows(
    report_hook: Callable[..., Ran],
    certbot_folder: Path,
    env_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renew(certbot_folder, "example.com", age=DAY)
    renew(certbot_folder, "shop.example.com", age=70 * DAY)
    url = "https://influx.example.com:8086"
    env_file.write_text(f"INFLUXDB_URL={url}\nINFLUXDB_TOKEN=fake-token\n")
    env_file.chmod(0o600)
    install_run_report(certbot_folder)
    record = hook.HostRecord({"run_report_at": time.time()})
    hook.KnownFile(str(certbot_folder), "web1").write(record)
    drop_in = certbot_folder / "renewal-report.conf"
    drop_in.write_text("certbot_renewal_run.py --all")
    monkeypatch.setattr(hook, "STARTER_PATHS", [str(drop_in)])

    with responses.RequestsMock() as mock:
        mock.add(responses.GET, f"{url}/ping", headers={"X-Influxdb-Version": "v2.9.1"})
        mock.add(responses.POST, f"{url}/api/v2/write", status=204)
        ran = report_hook("--check")
    assert (ran.status, ran.err) == (0, "")

    documented, _of_run_report = texts_of_page()
    units = "/etc/systemd/system/certbot.service.d"
    printed = ran.out.replace(str(drop_in), f"{units}/{drop_in.name}")
    assert_output(documented, printed.replace(str(certbot_folder), "/etc/letsencrypt"))


def test_check_of_the_run_report_prints_the_lines_of_the_page(
    run_report: Callable[..., Ran], certbot_folder: Path, env_file: Path, tmp_path: Path
) -> None:
    renew(certbot_folder, "example.com", age=DAY)
    url = "https://influx.example.com:8086"
    env_file.write_text(f"INFLUXDB_URL={url}\n")
    report_hook = certbot_folder / "renewal-hooks" / "deploy" / "certbot_renewal_report.py"
    write_log(
        tmp_path / "logs" / "letsencrypt.log", quiet_run("2026-11-28 03:17:00", "example.com")
    )

    with responses.RequestsMock() as mock:
        mock.add(responses.GET, f"{url}/ping", headers={"X-Influxdb-Version": "v2.9.1"})
        mock.add(responses.POST, f"{url}/api/v2/write", status=204)
        ran = run_report("--check", f"--logs-dir={tmp_path / 'logs'}")
    assert (ran.status, ran.err) == (0, "")

    _of_report_hook, documented = texts_of_page()
    printed = ran.out.replace(hook.__file__, str(report_hook))
    lines = printed.replace(str(certbot_folder), "/etc/letsencrypt").splitlines()
    first = lines.index(next(line for line in lines if line.startswith("Run report program")))
    assert_output(documented, "\n".join(lines[first : first + 3]))


def test_the_statuses_of_the_page_are_those_that_check_prints() -> None:
    rows = rows_of(PAGE, "What --check prints", "| status | meaning |")
    day_60 = hook.Certificate("a", ["a"], 0, 90 * DAY, 60 * DAY)
    statuses = [hook.renewal_status(day_60, days * DAY) for days in (1, 60, 62, 90)]
    assert [row[0] for row in rows] == statuses
