"""docs/alerts.md describes the alerts as the alert systems have them, and its commands work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from support.alerts import steps_of_details
from support.documents import rows_of, section_of
from support.machine import Machine, start_machine
from support.manual import Block, blocks_of, follow, follow_page, read_page
from tools import ROOT
from tools.generate.alerts import ALERTS, MOST_HOSTS, Alert, Instructions
from tools.generate.rules import RULES

PAGE = read_page("alerts.md")
TEMPLATES = ROOT / "kapacitor" / "templates"
TASKS = ROOT / "tools" / "generate" / "tasks"

EACH_ALERT = pytest.mark.parametrize("alert", ALERTS, ids=[alert.name for alert in ALERTS])

# What the page, and the scripts for Kapacitor, have in place of the labels of an alert.
EXAMPLES = {
    "HOST": "web1",
    "LINEAGE": "example.com",
    "TARGET": "haproxy",
}
KAPACITOR_LABELS = {
    "HOST": '{{ index .Tags "host" }}',
    "LINEAGE": '{{ index .Tags "lineage" }}',
    "TARGET": '{{ index .Tags "target" }}',
}


def script(name: str) -> str:
    """Return the script of an alert for Kapacitor."""
    return (TEMPLATES / f"{name}.tick").read_text()


# ---- Headings ----------------------------------------------------------------------------------
def test_each_alert_has_a_section() -> None:
    headings = re.findall(r"^## (\w+_\w+)$", PAGE, re.MULTILINE)
    assert headings == [alert.name for alert in ALERTS]


def test_each_alert_of_the_rules_is_on_the_page() -> None:
    names = set(re.findall(r"^      - alert: (\w+)$", RULES.read_text(), re.MULTILINE))
    assert len(names) == 8
    for name in names:
        assert f"## {name}\n" in PAGE or f"`{name}`" in PAGE


# ---- What to do --------------------------------------------------------------------------------
def steps_of(instructions: Instructions, labels: dict[str, str]) -> list[str]:
    """Return the lines of instructions after the introduction."""
    return instructions.text(labels).splitlines()[1:]


def steps_on_page(section: str) -> list[str]:
    """Return the numbered steps of a section, and their commands, each in one line."""
    steps = []
    pattern = r"^(\d\. .*\n(?:   \S.*\n)*)(?:\n    ```sh\n    (.*)\n    ```\n)?"
    for text, command in re.findall(pattern, section, re.MULTILINE):
        steps.append(" ".join(text.split()))
        if command:
            steps.append(f"   {command}")
    return steps


@EACH_ALERT
def test_the_page_has_the_instructions_of_each_alert(alert: Alert) -> None:
    section = section_of(PAGE, alert.name).partition("\n### ")[0]
    assert steps_on_page(section) == steps_of(alert.instructions, EXAMPLES)


def test_the_page_has_the_instructions_for_most_hosts() -> None:
    section = section_of(PAGE, "host_silent").partition("\n### Most hosts are silent\n")[2]
    assert steps_on_page(section) == steps_of(MOST_HOSTS, EXAMPLES)


@EACH_ALERT
def test_kapacitor_s_mails_have_the_instructions_of_each_alert(alert: Alert) -> None:
    details = script(alert.name).partition(".details('''\n")[2]
    details = details.rpartition("<ol>")[2]  # of a host; those for most hosts come first
    assert steps_of_details(details) == steps_of(alert.instructions, KAPACITOR_LABELS)


def test_kapacitor_s_mail_about_most_hosts_has_its_instructions() -> None:
    details = script("host_silent").partition(".details('''\n")[2].partition("</ol>")[0]
    assert steps_of_details(details) == steps_of(MOST_HOSTS, KAPACITOR_LABELS)


# ---- Samples -----------------------------------------------------------------------------------
# What differs between notifications: level, names, times, numbers, endings of a word, the reason.
VALUES = re.compile(
    r"""
    ^ (?: CRITICAL | WARNING | OK ) : [ ]
    | (?<= ;[ ]reason:[ ] ) .*
    | \( most[ ]hosts \)
    | (?: [\w.]+ @ )? (?: \w+\. )? example \. (?: com | net ) (?: : \d+ )?
    | \b web\d | \b haproxy
    | \d{4}-\d\d-\d\d[ ]\d\d:\d\d[ ]UTC
    | \d+[ ]of[ ]\d+[ ]hosts  # of the query
    | \d+ (?: \.\d )?
    | \b (?: renewals? | expire[sd] )
    """,
    re.VERBOSE,
)


def samples() -> list[tuple[str, str]]:
    """Return the notifications on the page, each with the alert of its section."""
    found: list[tuple[str, str]] = []
    names = [
        *((alert.name, alert.name) for alert in ALERTS),
        ("Fleets", "renewal_overdue_hosts"),
        ("Data of the published hook", "renewal_overdue_domains"),
    ]
    for title, name in names:
        lines = re.findall(r"(?m)^(?:CRITICAL|WARNING|OK): .*$", section_of(PAGE, title))
        found += [(name, line) for line in lines]
    return found


@pytest.mark.parametrize(("name", "sample"), samples())
def test_each_sample_has_the_words_of_kapacitor_s_message(name: str, sample: str) -> None:
    message = re.search(r"\.message\('(.*)'\)\n", script(name))
    assert message
    words = " ".join(re.sub(r"\{\{.*?\}\}", " ", message[1]).split())
    for piece in VALUES.sub("…", sample).split("…"):
        for phrase in re.split(r"[,:;()]", piece):
            assert phrase.strip() in words


def test_there_are_samples_of_each_alert() -> None:
    assert {name for name, _ in samples()} == {path.stem for path in TEMPLATES.glob("*.tick")}


# ---- Thresholds --------------------------------------------------------------------------------
class Threshold(NamedTuple):
    """A row of the table of thresholds."""

    variable: str
    record: str
    default: str


def documented_thresholds() -> list[Threshold]:
    """Return the rows of the table."""
    header = "| variable | record | default | alerts | meaning |"
    rows = rows_of(PAGE, "Thresholds", header)
    return [Threshold(row[0], row[1], row[2].replace("empty", "")) for row in rows]


def test_the_page_lists_the_variables_of_the_scripts() -> None:
    defaults = {}
    for alert in ALERTS:
        for variable, value in re.findall(r"(?m)^var (\w+) = (.*)$", script(alert.name)):
            defaults[variable] = value.strip("'")
    assert {row.variable: row.default for row in documented_thresholds()} == defaults


def test_the_rules_record_the_same_thresholds() -> None:
    records = {}
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                records[rule["record"]] = float(re.sub(r"vector\((\d+)\)", r"\1", rule["expr"]))
    documented = {}
    for row in documented_thresholds():
        if row.record.startswith("certbot_renewal:"):
            documented[row.record] = float(row.default)
    assert documented == records


def test_the_tasks_of_influxdb_2_have_the_same_thresholds() -> None:
    defaults = {row.variable: row.default for row in documented_thresholds()}
    thresholds = []
    for path in TASKS.glob("*.flux.in"):
        thresholds += re.findall(r"(?m)^(crit|grace|urgent) = (.*)$", path.read_text())
    assert len(thresholds) == 3
    for name, value in thresholds:
        assert defaults[name] == value


# ---- Reminders ---------------------------------------------------------------------------------
def test_the_reminders_are_those_of_the_alert_systems() -> None:
    rows = dict(rows_of(PAGE, "Reminders", "| Alert system | While an alert fires |"))
    alertmanager = yaml.safe_load((ROOT / "prometheus" / "alertmanager.yml").read_text())
    assert alertmanager["route"]["repeat_interval"] == "4d"
    assert rows["Alertmanager"].startswith("every four days")
    for path in TEMPLATES.glob("*.tick"):
        assert ".stateChangesOnly(" in path.read_text()
    assert rows["Kapacitor"] == "no reminder"


# ---- Commands ----------------------------------------------------------------------------------
@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A throwaway machine."""
    with start_machine(tmp_path) as running:
        yield running


def commands_of(*sections: str) -> list[Block]:
    """Return the commands of sections, without the samples of notifications."""
    return [block for block in blocks_of(PAGE, sections) if block.is_command]


def test_the_command_for_a_threshold_changes_it_alone(machine: Machine) -> None:
    before = RULES.read_text()
    machine.write("/etc/vmalert/rules.yml", before)
    follow_page(machine, "alerts.md", "Thresholds")

    after = machine.read("/etc/vmalert/rules.yml")
    line = "      - record: certbot_renewal:crit_days\n        expr: vector({})\n"
    assert after == before.replace(line.format(1), line.format(2))
    assert after != before


def test_the_commands_switch_to_the_alert_for_fleets(machine: Machine) -> None:
    machine.run("mkdir -p /etc/kapacitor/load && cp -r kapacitor/* /etc/kapacitor/load/")
    machine.add_unit("kapacitor.service", "[Service]\nExecStart=/bin/sleep infinity\n")
    machine.run("systemctl start kapacitor")
    follow(machine, commands_of("Fleets"))
    tasks = machine.run("ls /etc/kapacitor/load/tasks").split()
    assert "renewal_overdue_hosts.yaml" in tasks
    assert "renewal_overdue.yaml" not in tasks


def test_the_commands_of_the_instructions_work_on_a_host(machine: Machine) -> None:
    machine.add_certbot("example.com", "example.net")
    influxdb = machine.add_influxdb("influxd-1.12")
    with machine.network():
        bucket = influxdb.new_bucket()
    hooks = "/etc/letsencrypt/renewal-hooks"
    machine.run(f"mkdir -p {hooks}/deploy {hooks}/post")
    machine.run(f"install -m 755 certbot_renewal_report.py {hooks}/deploy/")
    machine.run(f"install -m 755 certbot_renewal_run.py {hooks}/post/")
    machine.write(
        "/etc/letsencrypt/certbot_renewal_report.env",
        f"INFLUXDB_BUCKET={bucket}\n",
    )

    *overdue, retire_certificate = commands_of("renewal_overdue")
    others = commands_of("renewal_failing", "dry_run_failed", "Most hosts are silent")
    follow(machine, [*overdue, *others])
    machine.run(f"cp -r deliver/* {hooks}/deploy/")
    machine.write(
        "/etc/letsencrypt/certbot_renewal_deliver.toml", '[[command]]\ncommand = ["true"]\n'
    )
    machine.run(f"{hooks}/deploy/certbot_renewal_deliver.py --all")
    follow(machine, commands_of("certificate_not_delivered", "certificate_not_served"))

    *on_the_host, retire_host = commands_of("host_silent")
    follow(machine, on_the_host)
    # Of another host, since this one and its certificates exist.
    for retire in (retire_certificate, retire_host):
        machine.run(retire.text.replace("--host web1", "--host old-web"))
