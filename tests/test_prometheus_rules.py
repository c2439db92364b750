"""The alerting rules for vmalert and Prometheus: unit tests by promtool, and both read the file."""

from __future__ import annotations

import subprocess

import pytest

from support.servers import skip_or_fail
from tools.generate import rules
from tools.servers.processes import MissingServer, installed_program

UNIT_TESTS = ("rules_test.yml", "rules_test_away.yml", "rules_test_edges.yml")


def assert_succeeds(program: str, package: str, *arguments: str) -> None:
    """Run a program of a Debian package in prometheus/, and assert that it succeeds."""
    try:
        path = installed_program(program, package)
    except MissingServer as error:
        skip_or_fail(error)
    process = subprocess.run(
        [path, *arguments], cwd=rules.RULES.parent, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_the_rules_are_generated_from_their_source() -> None:
    assert rules.RULES.read_text() == rules.rules(), "run: python3 -m tools.generate.rules"


@pytest.mark.parametrize("file", UNIT_TESTS)
def test_promtool_s_unit_tests_pass(file: str) -> None:
    assert_succeeds("promtool", "prometheus", "test", "rules", file)


def test_prometheus_reads_the_rules() -> None:
    assert_succeeds("promtool", "prometheus", "check", "rules", "rules.yml")


def test_vmalert_reads_the_rules() -> None:
    assert_succeeds("vmalert", "victoria-metrics", "-dryRun", "-rule=rules.yml")
