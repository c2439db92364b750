"""docs/servers.md, followed by a reader on the real servers: tokens, users and retention."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from support.machine import Machine, start_machine
from support.manual import all_blocks, blocks_of, follow, follow_page, read_page
from support.servers import require_program
from tools.servers.influxdb import InfluxDB
from tools.servers.processes import installed_program, running, wait_for
from tools.servers.prometheus import start_victoria_metrics

PAGE = "servers.md"
LINE = "certbot_renewal,host=web1 certificates=1i"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine without any server."""
    with start_machine(tmp_path) as running_machine:
        yield running_machine


def write_status(machine: Machine, url: str, token: str) -> int:
    """Return the status with which a server answers a write of the report hook."""
    with machine.network():
        response = requests.post(
            f"{url}/api/v2/write?org=example-org&bucket=certbot",
            data=LINE,
            headers={"Authorization": f"Token {token}"},
            timeout=30,
        )
    return response.status_code


def read_status(machine: Machine, url: str, token: str) -> tuple[int, str]:
    """Return the status and the body of the answer to a query like that of an alert."""
    query = 'from(bucket: "certbot") |> range(start: -1h)'
    with machine.network():
        response = requests.post(
            f"{url}/api/v2/query?org=example-org",
            data=query,
            headers={"Authorization": f"Token {token}", "Content-Type": "application/vnd.flux"},
            timeout=30,
        )
    return response.status_code, response.text


def can_write_only(machine: Machine, url: str, token: str) -> bool:
    """Return whether a token can write to the bucket and cannot read it."""
    status, body = read_status(machine, url, token)
    can_read = status == 200 and "web1" in body
    return write_status(machine, url, token) == 204 and not can_read


def can_read_only(machine: Machine, url: str, token: str) -> bool:
    """Return whether a token can read what is in the bucket and cannot write to it."""
    status, body = read_status(machine, url, token)
    return status == 200 and "web1" in body and write_status(machine, url, token) != 204


# ---- InfluxDB 2 --------------------------------------------------------------------------------
def test_tokens_of_influxdb_2_can_only_write_or_only_read(machine: Machine) -> None:
    machine.add_built_program("influx")
    influxdb = machine.add_influxdb("influxd-2")
    section = blocks_of(read_page(PAGE), ["InfluxDB 2.x"])
    commands = [block for block in section if block.is_command]
    # The tutorial's test sets InfluxDB up; here it is done.
    _set_up, config, bucket, write_token, read_token, retention = commands

    machine.run(config.text.replace("fake-token", influxdb.token))
    assert "9600h0m0s" in machine.run(bucket.text)
    hook = machine.run(write_token.text).strip()
    alerts = machine.run(read_token.text).strip()
    assert "9600h0m0s" in machine.run(retention.text)

    assert can_write_only(machine, influxdb.url, hook)
    assert can_read_only(machine, influxdb.url, alerts)


# ---- InfluxDB 1.x ------------------------------------------------------------------------------
SAMPLE = """[meta]
  dir = "/var/lib/influxdb/meta"
[data]
  dir = "/var/lib/influxdb/data"
  wal-dir = "/var/lib/influxdb/wal"
[http]
  # flux-enabled = false
  # auth-enabled = false
"""


@pytest.mark.parametrize("name", ["influxd-1.8", "influxd-1.12"])
def test_users_of_influxdb_1_can_only_write_or_only_read(machine: Machine, name: str) -> None:
    require_program(name)
    machine.add_built_program("influxd", name)
    machine.write("/etc/influxdb/influxdb.conf", SAMPLE)
    machine.add_unit(
        "influxdb.service",
        "[Service]\nX-Listens=8086\nExecStart=influxd -config /etc/influxdb/influxdb.conf\n",
    )

    follow_page(machine, PAGE, "InfluxDB 1.8 to 1.12")

    url = "http://127.0.0.1:8086"
    assert can_write_only(machine, url, "hook:fake-password")
    assert can_read_only(machine, url, "kapacitor:fake-password")
    policies = machine.run(
        f"curl -sS -u admin:fake-password {url}/query -d 'q=SHOW RETENTION POLICIES ON certbot'"
    )
    assert "9600h0m0s" in policies


# ---- VictoriaMetrics ---------------------------------------------------------------------------
def test_users_of_vmauth_can_only_write_or_only_read(machine: Machine) -> None:
    vmauth = installed_program("vmauth", "victoria-metrics")
    config, *_ = [
        block for block in all_blocks(read_page(PAGE)) if block.title == "/etc/vmauth.yml"
    ]
    follow(machine, [config])
    command = [*machine.enter(), vmauth, "-auth.config=/etc/vmauth.yml"]
    command += ["-httpListenAddr=127.0.0.1:8427"]
    url = "http://127.0.0.1:8427"

    def status(method: str, path: str, user: str) -> int:
        with machine.network():
            return requests.request(
                method, url + path, data=LINE, auth=(user, "fake-password"), timeout=30
            ).status_code

    with (
        machine.network(),
        start_victoria_metrics(machine.folder / "victoria", 8428),
        running(command, machine.folder / "vmauth.log"),
    ):
        wait_for(lambda: status("GET", "/api/v1/query?query=1", "reader") == 200, "vmauth")
        assert status("POST", "/write?db=certbot&precision=s", "hook") == 204
        assert status("POST", "/write?db=certbot&precision=s", "reader") == 400
        assert status("GET", "/api/v1/query?query=1", "hook") == 400

        wrong_password = report_to(machine, url, "hook:fake-wrong")
        assert "INFLUXDB_TOKEN is not valid: set it to user:password" in wrong_password
        encoded = base64.b64encode(b"hook:fake-wrong").decode()
        assert encoded not in wrong_password
        assert "write, with INFLUXDB_VERSION=1" in report_to(machine, url, "reader:fake-password")


def report_to(machine: Machine, url: str, token: str) -> str:
    """Report a renewal to vmauth as a user; return what the report hook prints."""
    return machine.run(
        f"INFLUXDB_URL={url} INFLUXDB_VERSION=1 INFLUXDB_TOKEN={token} "
        "RENEWED_DOMAINS=example.com RENEWED_LINEAGE=/missing/live/example.com "
        "python3 certbot_renewal_report.py",
        may_fail=True,
    )


# ---- Telegraf ----------------------------------------------------------------------------------
def test_telegraf_s_listeners_take_reports_with_the_documented_settings(
    machine: Machine, influxdb_of_machine: InfluxDB
) -> None:
    machine.add_built_program("telegraf")
    follow(machine, [block for block in blocks_of(read_page(PAGE), ["Telegraf"]) if block.is_file])
    influxdb = influxdb_of_machine
    machine.write(
        "/etc/telegraf/telegraf.conf",
        f'[agent]\nflush_interval = "200ms"\n[[outputs.influxdb_v2]]\nurls = ["{influxdb.url}"]\n'
        f'token = "{influxdb.token}"\norganization = "example-org"\nbucket = "first"\n',
    )
    machine.add_unit(
        "telegraf.service",
        "[Service]\nX-Listens=8187\nExecStart=telegraf --config /etc/telegraf/telegraf.conf"
        " --config-directory /etc/telegraf/telegraf.d\n",
    )
    machine.run("systemctl start telegraf")
    env_files = [block.text for block in blocks_of(read_page(PAGE), ["Telegraf"])]
    env_files = [text for text in env_files if text.startswith("INFLUXDB_URL")]
    assert len(env_files) == 2

    for number, text in enumerate(env_files):
        machine.run(f"mkdir -p /etc/le{number}/renewal-hooks/post /etc/le{number}/live")
        machine.run(
            f"mkdir -p /etc/le{number}/renewal /etc/le{number}/renewal-hooks/deploy\n"
            f"cp certbot_renewal_report.py /etc/le{number}/renewal-hooks/deploy/\n"
            f"cp certbot_renewal_run.py /etc/le{number}/renewal-hooks/post/\n"
        )
        machine.write(
            f"/etc/le{number}/certbot_renewal_report.env", f"{text}HOSTNAME=host{number}\n"
        )
        machine.run(f"chmod 600 /etc/le{number}/certbot_renewal_report.env")
        machine.run(
            f"python3 /etc/le{number}/renewal-hooks/post/certbot_renewal_run.py --all"
            f" --config-dir /etc/le{number}"
        )

    def hosts() -> bool:
        with machine.network():
            points = influxdb.points("first")
        return all(f"host=host{number}" in str(points) for number in range(2))

    wait_for(hosts, "both reports")


@pytest.fixture
def influxdb_of_machine(machine: Machine) -> InfluxDB:
    """An InfluxDB 2 on the machine."""
    return machine.add_influxdb("influxd-2")


# ---- Links -------------------------------------------------------------------------------------
def test_every_server_of_the_table_has_a_section() -> None:
    page = read_page(PAGE)
    headings = re.findall(r"(?m)^## (.*)$", page)
    anchors = re.findall(r"\]\(#([\w-]+)\)", page)
    known = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(anchors) <= known
