"""Exchanges with InfluxDB that are cut, delayed or corrupted on their way.

This is the short form; `make faults` injects a fault at each byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hooks import start_report_hook
from tools.faults.disks import Disk, Program, stored_by_host
from tools.faults.exchanges import try_exchanges
from tools.faults.proxy import Fault, Mode, Proxy, Side
from tools.servers import faulty
from tools.servers.influxdb import InfluxDB

FAULTS = 60  # drawn by chance, besides those at the boundaries of an exchange


@pytest.mark.parametrize("name", ["influxd-1.12", "influxd-2"])
def test_after_faults_at_any_byte_one_run_report_makes_the_database_equal_the_disk(
    server: Callable[[str], InfluxDB], tmp_path: Path, chance: random.Random, name: str
) -> None:
    print(try_exchanges(server(name), tmp_path, chance, FAULTS))


@pytest.mark.parametrize("side", Side)
def test_a_connection_that_breaks_once_is_tried_again(
    server: Callable[[str], InfluxDB], tmp_path: Path, side: Side
) -> None:
    influxdb = server("influxd-1.12")
    bucket = influxdb.new_bucket()
    disk = Disk(tmp_path)
    proxy = Proxy(influxdb.url)
    proxy.set_fault(Fault(Mode.CUT, side, position=5, connection=0))

    with faulty.serving(proxy.serve) as proxy_url:
        settings = {**influxdb.settings(bucket), "INFLUXDB_URL": proxy_url}
        ended = start_report_hook(tmp_path, **disk.environ(Program.DEPLOY_HOOK, settings))

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert proxy.connections == 2
    disk.expect_renewal_stored(stored_by_host(influxdb, bucket)["web1"], "web1")
