"""The alerting rules for vmalert and Prometheus: unit tests by promtool, and both programs read the file."""

from __future__ import annotations

import subprocess

import pytest

import make_rules
import start_servers
from conftest import missing
from start_certbot import command


def run(program: str, package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of a Debian package."""
    try:
        found = command(program, package)
    except start_servers.MissingServer as error:
        missing(error)
    return subprocess.run([found, *arguments], cwd=make_rules.RULES.parent, capture_output=True, text=True, timeout=120)


def test_the_rules_are_those_of_their_source() -> None:
    assert make_rules.RULES.read_text() == make_rules.rules(), "run: python3 tools/make_rules.py"


@pytest.mark.parametrize(
    ("program", "package", "arguments"),
    [
        ("promtool", "prometheus", ("test", "rules", "rules_test.yml", "rules_test_away.yml", "rules_test_edges.yml")),
        ("promtool", "prometheus", ("check", "rules", "rules.yml")),
        ("vmalert", "victoria-metrics", ("-dryRun", "-rule=rules.yml")),
    ],
)
def test_the_rules_do_what_their_tests_say(program: str, package: str, arguments: tuple[str, ...]) -> None:
    done = run(program, package, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
