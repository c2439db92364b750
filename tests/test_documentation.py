"""What the project promises of its files: the hook's size, the Pythons it runs on, and that the README says what the code does."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import certbot_renewal_board
import certbot_renewal_deliver
import certbot_renewal_promql
import certbot_renewal_report
from support.hooks import Ran
from tools import ROOT
from tools.servers import pythons
from tools.servers.influxdb import InfluxDB
from tools.servers.lineages import DAY, KEY, REPORT_HOOK, install_report_hook, make_lineage
from tools.servers.targets import install_deliver_hook

DELIVER_HOOK = ROOT / "deliver" / "certbot_renewal_deliver.py"
DELIVER = (ROOT / "docs" / "deliver.md").read_text()


@pytest.mark.parametrize("name", ["config_folder", "say", "shortened"])
def test_what_both_hooks_need_is_the_same_in_both(name: str) -> None:
    """Each is one file that needs no other, so some of it stands twice."""
    twins = [
        inspect.getsource(getattr(module, name))
        for module in (certbot_renewal_report, certbot_renewal_deliver)
    ]
    assert twins[0] == twins[1]


def test_the_programs_use_nothing_newer_than_python_3_9() -> None:
    vermin, board = (
        str(Path(sys.executable).with_name("vermin")),
        [certbot_renewal_board.__file__, certbot_renewal_promql.__file__],
    )
    programs = [str(REPORT_HOOK), str(DELIVER_HOOK), *board]
    done = subprocess.run(
        [vermin, "-t=3.9-", "--no-tips", "--violations", *programs], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("minor", pythons.MINORS)
def test_the_hook_runs_on_every_python(
    server: Callable[[str], InfluxDB], certbot_folder: Path, minor: int
) -> None:
    python = pythons.environment(minor) / "bin" / "python"
    if not (python.parent.parent / "ready").exists():
        pytest.skip(
            f"no Python 3.{minor} on this machine"
        )  # in CI too: not every Python can be had
    influxdb = server("influxd-1.8")
    bucket, names, begin = (
        influxdb.new_bucket(),
        ["example.com", "*.example.com", "2001:db8::1"],
        int(time.time()) - DAY,
    )
    live = make_lineage(
        certbot_folder,
        "example.com",
        names,
        begin,
        90 * DAY,
        "renew_before_expiry = 3 weeks\n",
        KEY,
    )
    environ = {
        "RENEWED_LINEAGE": str(live),
        "RENEWED_DOMAINS": " ".join(names),
        "HOSTNAME": "web1",
        **influxdb.settings(bucket),
    }
    for arguments, extra in (
        ((), environ),
        (("--check",), influxdb.settings(bucket)),
        (("--help",), {}),
    ):
        command = [str(python), "-W", "error", str(install_report_hook(certbot_folder)), *arguments]
        done = subprocess.run(command, env=extra, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    points = influxdb.points(bucket)
    assert ("renewed_count", "1", "domain=2001:db8::1", "host=web1") in {p[1:] for p in points}
    assert (
        "renewal_due",
        str(begin + 69 * DAY),
        "domain=all",
        "host=web1",
        "lineage=example.com",
    ) in {p[1:] for p in points}
    deploy = install_deliver_hook(
        certbot_folder, f'[[command]]\ncommand = ["touch", "{certbot_folder}/delivered"]\n'
    )
    for argument in ("--all", "--check", "--help"):
        done = subprocess.run(
            [str(python), "-W", "error", str(deploy), argument],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (certbot_folder / "delivered").exists()


# ---- README ----------------------------------------------------------------------------------------------------------
README = (ROOT / "README.md").read_text()


def rows_of(section: str, header: str, page: str = README) -> list[list[str]]:
    """The rows of a table in a section of a page, as plain text."""
    text = (
        page.split(f"\n## {section}\n")[1]
        .split("\n## ")[0]
        .split(header + "\n")[1]
        .split("\n\n")[0]
    )
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in text.splitlines()[1:]
    ]


def test_the_readme_lists_the_settings_as_the_code_has_them() -> None:
    documented = {
        row[0]: (row[1].replace("empty", ""), row[2])
        for row in rows_of("Settings", "| setting | default | meaning |")
    }
    assert documented == {name: (s.default, s.meaning) for name, s in certbot_renewal_report.SETTINGS.items()}
    for name in certbot_renewal_report.FORWARDED_VARIABLES:
        assert f"`{name}`" in README


def test_the_options_of_targets_are_documented_as_the_code_has_them() -> None:
    documented = {
        (row[0], row[1]): (row[2], row[3])
        for row in rows_of("Options", "| kind | option | default | meaning |", DELIVER)
    }
    tables = {"each": certbot_renewal_deliver.COMMON, **certbot_renewal_deliver.KINDS}
    shown = {None: "required", "": "empty", "[]": "empty"}
    assert documented == {
        (kind, option): (
            shown.get(default if default is None else str(default), str(default)),
            meaning,
        )
        for kind, table in tables.items()
        for option, (default, meaning) in table.items()
    }


def test_the_example_of_targets_is_read_without_a_fault(tmp_path: Path) -> None:
    (example,) = re.findall(r"```\n(\[\[haproxy\]\].*?)```", DELIVER, re.DOTALL)
    (tmp_path / certbot_renewal_deliver.TOML_FILE).write_text(example)
    names = [target.name for target in certbot_renewal_deliver.read_targets(str(tmp_path))]
    assert names == [
        "haproxy",
        "web/web1.example.com",
        "web/deploy@web2.example.com:2222",
        "vault",
        "mail",
    ]


def test_the_readmes_line_protocol_is_what_the_hook_writes() -> None:
    begin = 1_790_000_000
    due = certbot_renewal_report.due_date(begin, begin + 90 * DAY)
    found = certbot_renewal_report.Certificate(
        "example.com", ["example.com"], begin, begin + 90 * DAY, due
    )
    settings = certbot_renewal_report.Settings("", 2, "", "", "", 10, "certbot_renewal", "web1", {})
    points = certbot_renewal_report.renewal_points(settings, found)
    points.append(certbot_renewal_report.state_point(settings, found, 0, begin + 100))
    lines = [certbot_renewal_report.line_protocol(p) for p in points]
    assert "```\n" + "\n".join(lines) + "\n```" in README.split("\n## ")[0]


def test_every_heading_of_the_troubleshooting_is_said_by_the_hook() -> None:
    source = (
        REPORT_HOOK.read_text()
        .replace("{NAME}", certbot_renewal_report.NAME)
        .replace("{'wrong' if text else 'empty'}", "wrong … empty")
    )
    foreign = r"…|Connection refused|certificate verify failed|404 page not found|retention policy not found|\b\d\d\d\b|[45]…|wrong|empty"
    headings = re.findall(r"(?m)^### (`.*)$", README)
    assert len(headings) > 20
    for literal in re.findall(r"`([^`]*)`", " ".join(headings)):
        for piece in re.split(foreign, literal):
            assert piece.strip(" :") in source, literal
    source, headings = DELIVER_HOOK.read_text(), re.findall(r"(?m)^### (`.*)$", DELIVER)
    assert len(headings) > 10
    for literal in re.findall(r"`([^`]*)`", " ".join(headings)):
        for piece in literal.split("…"):
            assert piece.strip(" :") in source, literal


def test_the_boards_manual_has_its_options_and_what_it_says() -> None:
    page, source = (
        (ROOT / "docs" / "board.md").read_text(),
        Path(certbot_renewal_board.__file__).read_text().replace('"', ""),
    )
    options = set(re.findall(r"(?m)^\| .*", page.split("\n## Options\n")[1].split("\n## ")[0]))
    documented = set(re.findall(r"`(--[a-z-]+)", " ".join(options)))
    known = {
        option
        for action in certbot_renewal_board.command_line()._actions
        for option in action.option_strings
    }
    assert documented == known - {"-h"}
    headings = re.findall(r"(?m)^### (`.*)$", page)
    assert len(headings) > 5
    for literal in re.findall(r"`([^`]*)`", " ".join(headings)):
        for piece in literal.split("…"):
            assert piece.strip(" :,") in source, literal


def test_every_remedy_is_in_the_troubleshooting() -> None:
    troubleshooting = README.split("\n## Troubleshooting\n")[1].split("\n## ")[0]
    for _, remedy in certbot_renewal_report.REMEDIES:
        for part in re.split(r"\{\w+\}(?: \(.*?\))?", remedy):
            assert part.strip() in troubleshooting, remedy


def test_the_readme_lists_the_vars_and_the_queries() -> None:
    scripts = (
        (ROOT / "kapacitor" / "templates" / f"{name}.tick").read_text()
        for name in (
            "renewal_overdue",
            "renewal_failing",
            "host_silent",
            "certificate_not_delivered",
            "certificate_not_served",
        )
    )
    defaults = {
        name: value.strip("'")
        for script in scripts
        for name, value in re.findall(r"(?m)^var (\w+) = (.*)$", script)
    }
    assert {
        row[0]: row[1].replace("empty", "")
        for row in rows_of("Alerts", "| var | default | meaning |")
    } == defaults
    queries = {row[0] for row in rows_of("Queries", "| query | shows |")}
    assert queries == {path.name for path in (ROOT / "flux").iterdir()}


def test_every_option_is_in_the_readme_and_every_file_it_names_is_there(
    report_hook: Callable[..., Ran],
) -> None:
    options = set(re.findall(r"(?m)^  (?:-h, )?(--[a-z-]+)", report_hook("--help").out))
    assert options == {
        "--help",
        "--all",
        "--after-dry-run",
        "--patience",
        "--history",
        "--stdout",
        "--retire",
        "--host",
        "--check",
        "--dry-run",
        "--config-dir",
        "--version",
    }
    assert all(
        f"`certbot_renewal_report.py {option}" in README or f"`{option}`" in README
        for option in options
    )
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for path in re.findall(
        r"`((?:systemd|compose|flux|kapacitor|telegraf)/[\w./]*)`", README + DELIVER
    ):
        assert (ROOT / path).exists(), path
    for option in ("--all", "--check", "restore"):
        assert f"certbot_renewal_deliver.py {option}" in DELIVER
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)(?:^|`)make ([a-z]+)", README):
        assert f"\n{target}:" in makefile
