#!/usr/bin/env python3
"""Injects faults between the programs and InfluxDB; afterwards the database must equal the disk.

- tools.faults.crowds: 200 hooks at once, and InfluxDB killed and started again while they write
- tools.faults.signals: SIGTERM and SIGKILL at lines of the deploy hook and of the run report
- tools.faults.exchanges: a proxy that delays, drips, cuts, sends twice, doubles and corrupts, at
  each byte of request and response

This is the long form, for InfluxDB 1.12 and 2; `make faults` starts it. tests/test_interrupted_*.py
have the short form. The run prints its seed; the same seed repeats the run.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import requests

import certbot_renewal_report
from tools.faults.crowds import try_crowd
from tools.faults.exchanges import try_exchanges
from tools.faults.signals import try_signals
from tools.servers.influxdb import InfluxDB, start_influxdb
from tools.servers.processes import MissingServer

SERVERS = ("influxd-1.12", "influxd-2")
CROWD = 200  # hooks at the same moment


class Options(NamedTuple):
    """The command line; `signals`: how many of each kind for each program."""

    seed: int
    signals: int


def read_options() -> Options:
    """Parse the command line; without --seed, draw a seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    random_seed = random.SystemRandom().randrange(10**6)
    parser.add_argument("--seed", type=int, default=random_seed, help="repeats a run")
    parser.add_argument("--signals", type=int, default=200, help="how many of each kind")
    parsed = parser.parse_args()
    return Options(parsed.seed, parsed.signals)


def versions(influxdb: InfluxDB) -> str:
    """Return the versions of everything that takes part."""
    return (
        f"{influxdb.name} {influxdb.version()}, hook {certbot_renewal_report.__version__}, "
        f"Python {platform.python_version()}, requests {requests.__version__}"
    )


def run_trials(server_name: str, folder: Path, options: Options) -> Iterator[str]:
    """Run all trials with one server, the longest last; yield what each of them came to."""
    chance = random.Random(options.seed)
    with start_influxdb(server_name, folder / "server") as influxdb:
        yield versions(influxdb)
        yield try_crowd(server_name, folder / "crowd", CROWD)
        yield try_signals(influxdb, folder / "signals", chance, options.signals)
        yield try_exchanges(influxdb, folder / "exchanges", chance)


def main() -> None:
    """Run all trials with each server; the first promise that does not hold ends the run."""
    options = read_options()
    os.environ["NO_PROXY"] = "*"
    repeat = f"make faults SEED={options.seed} repeats it"
    print(f"seed {options.seed} ({repeat}), {platform.platform()}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for server_name in SERVERS:
            started = time.monotonic()
            for outcome in run_trials(server_name, Path(temporary) / server_name, options):
                print(f"{outcome} ({time.monotonic() - started:.0f} s)", flush=True)
                started = time.monotonic()
    print("after each trial the database was equal to the disk")


if __name__ == "__main__":
    try:
        main()
    except MissingServer as error:
        sys.exit(f"faults: {error}")
