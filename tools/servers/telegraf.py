"""Starts real servers on free loopback ports with their data in a folder of their own, for the tests and the demo."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import requests

from tools.servers.influxdb import ORG, InfluxDB
from tools.servers.processes import (
    built_program,
    free_port,
    running,
    wait_for,
)


@contextlib.contextmanager
def start_telegraf(
    version: int, target: InfluxDB, bucket: str, folder: Path, config: str = "", agent: str = ""
) -> Iterator[str]:
    """Telegraf with its listener for version 1 or 2 writes, passing on to InfluxDB at once; yields the listener's address.
    `config` are more settings of the listener, `agent` of Telegraf itself."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    listener = "influxdb_listener" if version == 1 else "influxdb_v2_listener"
    if target.major == 2:
        output = f'[[outputs.influxdb_v2]]\nurls = ["{target.url}"]\ntoken = "{target.token}"\norganization = "{ORG}"\nbucket = "{bucket}"\n'
    else:
        output = f'[[outputs.influxdb]]\nurls = ["{target.url}"]\ndatabase = "{bucket}"\nskip_database_creation = true\n'
    conf = folder / f"telegraf{version}.conf"
    agent = f'[agent]\nflush_interval = "200ms"\nomit_hostname = true\n{agent}\n'
    conf.write_text(
        f'{agent}[[inputs.{listener}]]\nservice_address = "127.0.0.1:{port}"\n{config}\n{output}'
    )
    url = f"http://127.0.0.1:{port}"
    ready = "/ping" if version == 1 else "/api/v2/ready"
    with running(
        [built_program("telegraf"), "--config", str(conf)], folder / "telegraf.log"
    ) as child:
        wait_for(lambda: requests.get(url + ready, timeout=5), "telegraf", child=child)
        yield url
