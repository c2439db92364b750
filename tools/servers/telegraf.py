"""Starts Telegraf as a relay: it takes the hook's reports and passes them on to InfluxDB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.processes import built_program, free_port, running, wait_for_status

LISTENERS = {1: "influxdb_listener", 2: "influxdb_v2_listener"}


@contextlib.contextmanager
def start_telegraf(
    version: int, target: InfluxDB, bucket: str, folder: Path, config: str = "", agent: str = ""
) -> Iterator[str]:
    """Start Telegraf with its listener for writes of version 1 or 2; yield the listener's address.

    It passes on to a bucket of the target at once. `config` has further settings of the listener,
    `agent` of Telegraf itself, both in TOML.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    conf = folder / f"telegraf{version}.conf"
    conf.write_text(f"""[agent]
flush_interval = "200ms"
omit_hostname = true
{agent}
[[inputs.{LISTENERS[version]}]]
service_address = "127.0.0.1:{port}"
{config}
{output_config(target, bucket)}
""")

    url = f"http://127.0.0.1:{port}"
    command = [built_program("telegraf"), "--config", str(conf)]
    with running(command, folder / "telegraf.log") as child:
        if version == 1:
            wait_for_status(f"{url}/ping", 204, "telegraf", child)
        else:
            wait_for_status(f"{url}/api/v2/ready", 200, "telegraf", child)
        yield url


def output_config(target: InfluxDB, bucket: str) -> str:
    """Return the output section of Telegraf's configuration."""
    if target.major == 2:
        return f"""[[outputs.influxdb_v2]]
urls = ["{target.url}"]
token = "{target.token}"
organization = "{ORG}"
bucket = "{bucket}"
"""
    return f"""[[outputs.influxdb]]
urls = ["{target.url}"]
database = "{bucket}"
skip_database_creation = true
"""
