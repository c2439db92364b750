"""README.md: its steps to install, on a throwaway machine."""

from __future__ import annotations

from pathlib import Path

from support.buckets import new_token
from support.machine import start_machine
from support.manual import blocks_of, follow, read_page


def test_the_steps_to_install_report_the_certificates(tmp_path: Path) -> None:
    with start_machine(tmp_path, ["influx.example.com"]) as machine:
        machine.add_certbot("example.com")
        influxdb = machine.add_influxdb("influxd-2")
        with machine.network():
            influxdb.post("/api/v2/buckets", name="certbot", orgID=influxdb.org_id())
            token = new_token(influxdb, "write")
        page = read_page("README.md").replace("fake-token", token)
        follow(machine, blocks_of(page, ["Install"]))
        with machine.network():
            fields = {point[1] for point in influxdb.points("certbot")}
        assert {"renewed_count", "renewal_due", "certificates"} <= fields


def test_the_demo_and_the_tests_are_targets_of_the_makefile() -> None:
    commands = [block.text for block in blocks_of(read_page("README.md"), ["Try it"])]
    assert commands == ["make demo\n", "make test\n"]
