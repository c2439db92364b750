"""docs/grafana.md, followed by a reader without Grafana: what its commands make of the files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.machine import Machine, start_machine
from support.manual import all_blocks, blocks_of, follow_page, read_page
from tools import ROOT

PAGE = "grafana.md"
RULES = "/etc/grafana/provisioning/alerting/certbot_renewal.yaml"
PROOF = "Prove the notification and the recovery"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with the folders of Grafana, and something that can be restarted in its place."""
    with start_machine(tmp_path) as running:
        running.add_unit("grafana-server.service", "[Service]\nExecStart=sleep infinity\n")
        running.run("mkdir -p /etc/grafana/provisioning/alerting")
        yield running


def rules_of(text: str) -> dict[str, dict[str, Any]]:
    """Return the alert rules by title."""
    return {rule["title"]: rule for rule in yaml.safe_load(text)["groups"][0]["rules"]}


def condition_of(rule: dict[str, Any]) -> str:
    """Return the expression of a rule's condition."""
    (condition,) = [data for data in rule["data"] if data["refId"] == rule["condition"]]
    return str(condition["model"]["expression"])


def test_the_commands_install_the_rules_and_prove_one_of_them(machine: Machine) -> None:
    follow_page(machine, PAGE, "Data source", "Alert rules")
    installed = machine.read(RULES)
    original = (ROOT / "dashboards" / "grafana-alerts.yaml").read_text()
    assert installed == original.replace('bucket = "telegraf"', 'bucket = "certbot"')

    overdue, restored, times = blocks_of(read_page(PAGE), [PROOF])
    machine.run(overdue.text)
    changed = machine.read(RULES)
    assert yaml.safe_load(changed)["groups"][0]["interval"] == "10s"
    rules = rules_of(changed)
    assert condition_of(rules["renewal_overdue"]) == "$A >= -1000 || $A >= $D"
    del rules["renewal_overdue"]
    assert rules == {
        name: rule for name, rule in rules_of(installed).items() if name != "renewal_overdue"
    }

    machine.run(restored.text)
    machine.run(times.text)
    assert machine.read(RULES) == installed


def test_the_data_source_has_the_uid_that_the_rules_name() -> None:
    (source_file,) = [block for block in all_blocks(read_page(PAGE)) if block.is_file]
    (source,) = yaml.safe_load(source_file.text)["datasources"]
    rules = yaml.safe_load((ROOT / "dashboards" / "grafana-alerts.yaml").read_text())
    assert source["uid"] == rules["datasource"]
    assert source["jsonData"]["version"] == "Flux"
