"""The alerting rules for vmalert and Prometheus: unit tests by promtool, and both programs read the file."""

from __future__ import annotations

import subprocess

import pytest

from support.servers import skip_or_fail
from tools.generate import rules
from tools.servers.processes import MissingServer, installed_program


def run(program: str, package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of a Debian package."""
    try:
        found = installed_program(program, package)
    except MissingServer as error:
        skip_or_fail(error)
    return subprocess.run(
        [found, *arguments], cwd=rules.RULES.parent, capture_output=True, text=True, timeout=120
    )


def test_the_rules_are_those_of_their_source() -> None:
    assert rules.RULES.read_text() == rules.rules(), "run: python3 -m tools.generate.rules"


@pytest.mark.parametrize(
    ("program", "package", "arguments"),
    [
        (
            "promtool",
            "prometheus",
            ("test", "rules", "rules_test.yml", "rules_test_away.yml", "rules_test_edges.yml"),
        ),
        ("promtool", "prometheus", ("check", "rules", "rules.yml")),
        ("vmalert", "victoria-metrics", ("-dryRun", "-rule=rules.yml")),
    ],
)
def test_the_rules_do_what_their_tests_say(
    program: str, package: str, arguments: tuple[str, ...]
) -> None:
    done = run(program, package, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
