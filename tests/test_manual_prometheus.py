"""docs/prometheus.md, followed by a reader, and compared with the rules."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from certbot_renewal_report import line_protocol
from support.documents import section_of
from support.machine import Machine, start_machine
from support.manual import blocks_of, follow, follow_page, read_page
from support.points import certbot_run, reported_state
from support.servers import skip_or_fail
from tools import ROOT
from tools.servers.lineages import DAY
from tools.servers.processes import MissingServer, installed_program, wait_for

PAGE = "prometheus.md"
PROGRAMS = {
    "victoria-metrics": "victoria-metrics",
    "vmalert": "victoria-metrics",
    "vmagent": "victoria-metrics",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
}

# As Debian's packages have them.
PACKAGED_UNITS = {
    "victoria-metrics": "X-Listens=8428\nExecStart=/usr/bin/victoria-metrics $ARGS",
    "prometheus-alertmanager": "X-Listens=9093\nExecStart=/usr/bin/prometheus-alertmanager $ARGS",
    "prometheus": "X-Listens=9090\nExecStart=/usr/bin/prometheus $ARGS",
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with Debian's packages, none of them started."""
    try:
        for program, package in PROGRAMS.items():
            installed_program(program, package)
    except MissingServer as error:
        skip_or_fail(error)
    with start_machine(tmp_path) as running:
        for name, lines in PACKAGED_UNITS.items():
            environment = f"EnvironmentFile=/etc/default/{name}"
            running.add_unit(f"{name}.service", f"[Service]\n{environment}\n{lines}\n")
        running.write("/etc/default/prometheus-alertmanager", "ARGS=--cluster.listen-address=\n")
        running.run("rm -rf /var/lib/victoria-metrics/* /var/lib/prometheus/*")
        yield running


def report(machine: Machine, port: int) -> None:
    """Report a certificate that is not due."""
    now = int(time.time())
    points = [
        reported_state("example.com", now + 40 * DAY, now),
        certbot_run("web1", now, exit_status=0),
    ]
    with machine.network():
        response = requests.post(
            f"http://127.0.0.1:{port}/api/v2/write?precision=s",
            data="\n".join(line_protocol(point) for point in points),
            timeout=30,
        )
    response.raise_for_status()


def test_a_reader_gets_a_mail_and_its_recovery_from_vmalert(machine: Machine) -> None:
    follow_page(machine, PAGE, "Requirements", "VictoriaMetrics")
    report(machine, 8428)
    # The env file, the first command and its output are for a host.
    follow(machine, blocks_of(read_page(PAGE), ["The hosts"])[3:])

    follow_page(machine, PAGE, "Alertmanager", "vmalert")
    # Without this the recovery takes minutes.
    machine.run(
        "sed -i 's/group_interval: 5m/group_interval: 5s/' /etc/prometheus/alertmanager.yml\n"
        "systemctl restart prometheus-alertmanager\n"
    )
    follow_page(machine, PAGE, "Prove the mail and the recovery")

    assert len(machine.inbox.mails) == 2
    rules = (ROOT / "prometheus" / "rules.yml").read_text()
    assert machine.read("/etc/vmalert/rules.yml") == rules


def test_a_reader_gets_a_mail_from_prometheus_behind_vmagent(machine: Machine) -> None:
    follow_page(machine, PAGE, "Alertmanager", "Prometheus")
    wait_for_answer(machine, "http://127.0.0.1:8429/health")
    report(machine, 8429)
    # Until it is ready, SIGHUP may end Prometheus.
    wait_for_answer(machine, "http://127.0.0.1:9090/-/ready")
    proof = blocks_of(read_page(PAGE), ["Prove the mail and the recovery"])[0].text
    proof = proof.replace("/etc/vmalert/rules.yml", "/etc/prometheus/certbot_renewal.yml")
    machine.run(proof.replace("restart vmalert", "reload prometheus"))

    wait_for(lambda: machine.inbox.mails, "the mail", 240)
    assert machine.inbox.subjects() == ["CRITICAL: web1: renewal_overdue, 1 firing: example.com"]


def wait_for_answer(machine: Machine, url: str) -> None:
    """Wait until a server of the machine answers with 200."""

    def answers() -> bool:
        with machine.network():
            return requests.get(url, timeout=5).status_code == 200

    wait_for(answers, url)


# ---- Tables ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("unit", "section"), [("vmalert", "vmalert"), ("vmagent", "Prometheus")])
def test_the_page_explains_the_flags_of_a_unit(unit: str, section: str) -> None:
    text = (ROOT / "systemd" / f"{unit}.service").read_text()
    flags = set(re.findall(r"(?m)^    (-[\w.]+)=", text))
    page = section_of(read_page(PAGE), section)
    documented = set(re.findall(r"(?m)^\| `(-[\w.]+)", page))
    if unit == "vmagent":
        flags -= {"-httpListenAddr", "-remoteWrite.url"}
    assert documented == flags
