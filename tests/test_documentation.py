"""The README has what the programs have."""

from __future__ import annotations

import re

import certbot_renewal_report as hook
from support.documents import rows_of
from tools import ROOT
from tools.servers.lineages import DAY

README = (ROOT / "README.md").read_text()


# ---- Settings and points -----------------------------------------------------------------------
def test_the_line_protocol_in_the_readme_is_what_the_hook_writes() -> None:
    begin = 1_790_000_000
    end = begin + 90 * DAY
    due_date = hook.due_date(begin, end)
    certificate = hook.Certificate("example.com", ["example.com"], begin, end, due_date)
    settings = hook.Settings("", 2, "", "", "", 10, "certbot_renewal", "web1", {})
    points = hook.renewal_points(settings, certificate)
    points.append(hook.state_point(settings, certificate, 0, begin + 100))
    lines = "\n".join(hook.line_protocol(point) for point in points)
    assert f"```\n{lines}\n```" in README.partition("\n## ")[0]


# ---- Files -------------------------------------------------------------------------------------
def test_the_readme_lists_the_variables_of_the_scripts() -> None:
    defaults = {}
    for name in (
        "renewal_overdue",
        "renewal_failing",
        "host_silent",
        "certificate_not_delivered",
        "certificate_not_served",
    ):
        script = (ROOT / "kapacitor" / "templates" / f"{name}.tick").read_text()
        for variable, value in re.findall(r"(?m)^var (\w+) = (.*)$", script):
            defaults[variable] = value.strip("'")
    documented = {}
    for variable, default, _ in rows_of(README, "Alerts", "| var | default | meaning |"):
        documented[variable] = default.replace("empty", "")
    assert documented == defaults


def test_the_readme_lists_the_queries() -> None:
    queries = {row[0] for row in rows_of(README, "Queries", "| query | shows |")}
    assert queries == {path.name for path in (ROOT / "flux").iterdir()}


def test_every_file_that_the_manual_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    folders = "systemd|compose|flux|kapacitor|telegraf"
    for path in re.findall(rf"`((?:{folders})/[\w./]*)`", README):
        assert (ROOT / path).exists(), path


def test_the_makefile_has_every_target_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)(?:^|`)make ([a-z]+)", README):
        assert f"\n{target}:" in makefile


def test_the_package_has_both_programs() -> None:
    package = (ROOT / "pyproject.toml").read_text()
    assert 'py-modules = ["certbot_renewal_report", "certbot_renewal_run"]' in package
