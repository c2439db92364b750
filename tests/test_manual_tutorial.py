"""docs/tutorial.md: every command of it, on a throwaway machine, up to the mails."""

from __future__ import annotations

from pathlib import Path

from support.machine import start_machine
from support.manual import follow_page

SECTIONS = [
    "1. Install InfluxDB and Kapacitor",
    "2. Create two tokens",
    "3. Install the report hook",
    "4. Send run reports",
    "5. Set up Kapacitor",
    "6. Get the first mail",
    "7. Get the recovery",
]
INFLUXDB = """[Service]
ExecStart=influxd --reporting-disabled --http-bind-address 127.0.0.1:8086 --log-level error
X-Listens=8086
"""
KAPACITOR = """[Service]
ExecStart=kapacitord -config /etc/kapacitor/kapacitor.conf
X-Listens=9092
"""


def test_the_tutorial_leads_to_the_first_mail_and_its_recovery(tmp_path: Path) -> None:
    with start_machine(tmp_path) as machine:
        machine.add_certbot("example.com", "www.example.net")
        machine.add_built_program("influxd", "influxd-2")
        for program in ("influx", "kapacitor", "kapacitord"):
            machine.add_built_program(program)
        machine.add_unit("influxdb.service", INFLUXDB)
        machine.add_unit("kapacitor.service", KAPACITOR)
        machine.run("groupadd --system kapacitor; mkdir -p /etc/kapacitor")
        follow_page(machine, "tutorial.md", *SECTIONS)
